"""The main job with backend cuda, on the stand-in for CUDA (TIDEMARK_CUDA_PLUGIN): texts are the CPU's, the KV pool is
what the share of memory leaves, workers share GPUs, and what is missing or breaks costs one clear line and no
step that was complete."""

import os

import h5py

import tidemark_cli as cli

NOWHERE = {"TIDEMARK_CUDA_PLUGIN": "/nowhere.so"}
LAUNCH_FAILURE = 719  # cudaErrorLaunchFailure: the device is lost to the process


class Cuda(cli.TestCase):
    def config(self, **keys):
        return cli.small_run(self.folder, **dict(
            dict(target__backend="cuda", target__max_running=4, target__max_batch_tokens=32, load__input_tokens=8,
                 load__output_tokens=3, load__rates=[2.0], load__step="3s", load__drain="60s",
                 load__arrival="constant"), **keys))

    @property
    def file(self):
        return self.folder / "run.h5"

    def report(self):
        return self.good("report", self.file, "--format", "json").json()

    def engines(self):
        with h5py.File(self.file, "r") as f:
            table = f["meta/engine"]
            texts = {k: [v.decode().rstrip("\0") for v in table[k][()]] for k in ("backend", "device", "pci")}
            return texts, table["kv_blocks"][()].tolist()

    def hops(self, wanted=0):
        """What carries hidden states from each worker to the next, or, 1, parts of sums in each stage."""
        with h5py.File(self.file, "r") as f:
            edges = f["meta/edges"]
            return [name.decode().rstrip("\0") for name, kind in zip(edges["transport"][()], edges["kind"][()])
                    if kind == wanted]

    def test_text_is_the_cpus(self):
        model = cli.shared("models/stories260K")
        ask = ["generate", "--model", model, "--prompt", "Once upon a time", "--max-tokens", "12", "--pipeline", "2"]
        ours = self.good(*ask, timeout=2 * cli.DEADLINE_S)
        cpu = self.good(*ask, env=NOWHERE)
        self.assertEqual(ours.out, cpu.out)

    def test_main_job(self):
        """Two replicas of two stages share two GPUs: neighbours the same one."""
        self.good("run", self.config(target__pipeline=2, target__replicas=2, target__memory_fraction=0.45,
                                     target__backend="auto"),
                  "--quiet", env={"GPU_ON_CPU_DEVICES": "2"}, timeout=3 * cli.DEADLINE_S)
        self.good("validate", self.file)
        report = self.report()
        self.assertEqual(report["run"]["target"]["backend"], "cuda")
        self.assertEqual(report["run"]["target"]["accelerator"], "GPU on CPU")
        self.assertEqual(report["steps"][0]["requests"]["failed"], 0)
        texts, blocks = self.engines()
        self.assertEqual(texts["backend"], ["cuda"] * 4)
        self.assertEqual(blocks, [4 * 2048 // 16] * 4)  # a context for each request that runs
        self.assertEqual(texts["pci"], ["0000:00:00"] * 2 + ["0000:01:00"] * 2)
        self.assertEqual(self.hops(), ["ipc"] * 2)

    def test_hops_over_nccl(self):
        """On the stand-in for NCCL, which moves the bytes; two ranks on one GPU it is not even asked about."""
        keys = dict(target__pipeline=3, target__model="preset:tiny-qwen2", target__transport="nccl",
                    target__telemetry="off")
        self.good("run", self.config(**keys), "--quiet", env={"GPU_ON_CPU_DEVICES": "3"}, timeout=2 * cli.DEADLINE_S)
        self.assertEqual(self.report()["steps"][0]["requests"]["failed"], 0)
        self.assertEqual(self.hops(), ["nccl"] * 2)
        result = cli.run("run", self.config(**keys), "--quiet", "--force", env={"GPU_ON_CPU_DEVICES": "1"},
                         timeout=2 * cli.DEADLINE_S)
        self.one_clear_line(result, "GPU", "NCCL", code=2)
        result = self.good("run", self.config(**keys, target__backend="cpu"), "--quiet", "--force", code=2)
        self.one_clear_line(result, "target.transport", "GPUs", "not cuda")

    def test_gpus_that_do_not_reach_each_other(self):
        """Sums between them take NCCL where all have it; hops, too, but not beside such sums, unless they are asked to."""
        keys = dict(target__pipeline=2, target__tensor=2, target__model="preset:tiny-qwen2", target__telemetry="off",
                    load__step="2s")
        env = {"GPU_ON_CPU_DEVICES": "4", "GPU_ON_CPU_APART": "0-1 0-2"}
        self.good("run", self.config(**keys), "--quiet", env=env, timeout=3 * cli.DEADLINE_S)
        self.assertEqual(self.report()["steps"][0]["requests"]["failed"], 0)
        self.assertEqual((self.hops(), self.hops(1)), (["mpi", "ipc"], ["nccl", "ipc"]))
        self.good("run", self.config(**keys), "--quiet", "--force", env=dict(env, GPU_ON_CPU_APART="2-3 0-2"),
                  timeout=3 * cli.DEADLINE_S)
        self.assertEqual((self.hops(), self.hops(1)), (["mpi", "ipc"], ["ipc", "nccl"]))
        self.good("run", self.config(**keys, target__transport="nccl"), "--quiet", "--force", env=env,
                  timeout=3 * cli.DEADLINE_S)
        self.assertEqual((self.hops(), self.hops(1)), (["nccl", "nccl"], ["nccl", "ipc"]))
        result = cli.run("run", self.config(**keys), "--quiet", "--force", env=dict(env, NCCL_STAND_IN="error=2"),
                         timeout=2 * cli.DEADLINE_S)
        self.one_clear_line(result, "NCCL (sums of the tensor-parallel group)", "ncclAllReduce", code=1)
        without = dict(env, TIDEMARK_NCCL="/nowhere.so")
        result = cli.run("run", self.config(**keys), "--quiet", "--force", env=without, timeout=2 * cli.DEADLINE_S)
        self.one_clear_line(result, "target.tensor", "ranks 1 (0000:00:00) and 2 (0000:01:00)", "do not reach",
                            "not every worker has", "/nowhere.so")
        together = dict(env, GPU_ON_CPU_DEVICES="2", GPU_ON_CPU_APART="0-1")
        keys = dict(keys, target__pipeline=1, target__tensor=4)
        result = cli.run("run", self.config(**keys), "--quiet", "--force", env=together, timeout=2 * cli.DEADLINE_S)
        self.one_clear_line(result, "no two ranks on one GPU", "as 1 and 2 are")
        keys = dict(keys, target__pipeline=2, target__tensor=1, load__step="1s")
        self.good("run", self.config(**keys), "--quiet", "--force", env=together, timeout=2 * cli.DEADLINE_S)
        self.assertEqual(self.hops(), ["nccl"])
        apart = dict(without, GPU_ON_CPU_DEVICES="2", GPU_ON_CPU_APART="0-1")
        self.good("run", self.config(**keys), "--quiet", "--force", env=apart, timeout=2 * cli.DEADLINE_S)
        self.assertEqual(self.hops(), ["mpi"])
        result = cli.run("run", self.config(**keys, target__transport="ipc"), "--quiet", "--force", env=apart,
                         timeout=2 * cli.DEADLINE_S)
        self.one_clear_line(result, "target.transport: ipc", "rank 1 (0000:00:00)", "rank 2's (0000:01:00)")

    def test_memory_decides_the_pool(self):
        self.good("run", self.config(target__memory_fraction=0.6, target__max_running=64, load__step="2s",
                                     target__transport="mpi"),
                  "--quiet", env={"GPU_ON_CPU_BYTES": str(1290 << 20)}, timeout=2 * cli.DEADLINE_S)
        self.assertEqual(self.hops(), ["mpi"])
        _, blocks = self.engines()
        self.assertEqual(blocks[0], blocks[1])  # of the stage that has less room
        self.assertTrue(2048 // 16 <= blocks[0] < 64 * 2048 // 16, blocks)
        result = self.good("run", self.config(target__memory_fraction=0.5, target__kv_tokens=100000), "--quiet",
                           "--force", code=1, env={"GPU_ON_CPU_BYTES": str(1300 << 20)}, timeout=2 * cli.DEADLINE_S)
        self.one_clear_line(result, "target.memory_fraction: 50%", "target.kv_tokens asks for 100000", code=1)

    def test_out_of_memory_before_traffic(self):
        result = self.good("run", self.config(), "--quiet", code=1, env={"GPU_ON_CPU_BYTES": "3000000"})
        self.one_clear_line(result, "rank 1, GPU 0 (GPU on CPU)", "cudaMalloc of ", " for ", code=1)
        self.assertFalse(self.file.exists())

    def test_without_a_gpu(self):
        result = self.good("run", self.config(), "--quiet", code=2, env={"GPU_ON_CPU_DEVICES": "0"})
        self.one_clear_line(result, "backend cuda", "no GPU")
        result = self.good("run", self.config(), "--quiet", code=2, env=NOWHERE)
        self.one_clear_line(result, "backend cuda", "/nowhere.so")
        result = self.good("run", self.config(target__backend="auto", load__step="1s"), "--force",
                           env={"GPU_ON_CPU_DEVICES": "0"})
        self.assertIn("target.backend: auto takes the CPU (no GPU)", result.err)
        self.assertEqual(self.report()["run"]["target"]["backend"], "cpu")

    def test_tensor_parallel_text_is_the_cpus(self):
        """Ranks of a stage on one GPU, or on one each: greedy and drawn."""
        model = cli.shared("models/stories260K")
        ask = ["generate", "--model", model, "--prompt", "Once upon a time", "--max-tokens", "8"]
        drawn = ask + ["--temperature", "0.8", "--seed", "3"]
        split = ["--tensor", "2", "--pipeline", "2"]
        cpu = self.good(*ask, env=NOWHERE)
        ours = self.good(*ask, *split, env={"GPU_ON_CPU_DEVICES": "2"}, timeout=3 * cli.DEADLINE_S)
        self.assertEqual(ours.out, cpu.out)
        cpu = self.good(*drawn, env=NOWHERE)
        ours = self.good(*drawn, "--tensor", "2", timeout=3 * cli.DEADLINE_S)
        self.assertEqual(ours.out, cpu.out)

    def test_too_many_tensor_parallel_ranks(self):
        self.refused(["run", self.config(target__tensor=9)], "target.tensor: 9", "cuda backend allows 1 to 8")

    def test_a_gpu_is_lost(self):
        """In the second step: the first stays whole."""
        config = self.config(load__rates=[0.5, 4.0], load__step="4s", load__drain="20s")
        result = self.good("run", config, "--quiet", code=1, timeout=3 * cli.DEADLINE_S,
                           env={"GPU_ON_CPU_FAIL": f"cudaGraphLaunch:7:{LAUNCH_FAILURE}"})
        self.assertRegex(result.err, r"rank 1, GPU 0 \(GPU on CPU\): cudaGraphLaunch: .*lost to this process")
        self.good("recover", self.file)
        report = self.report()
        self.assertEqual(report["steps"][0]["requests"]["failed"], 0)


if __name__ == "__main__":
    if not os.environ.get("TIDEMARK_CUDA_PLUGIN"):
        cli.skip("needs the stand-in's backend (TIDEMARK_CUDA_PLUGIN)")
    cli.main()
