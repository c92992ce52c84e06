"""`tidemark bench --backend cuda` on the stand-in for CUDA (TIDEMARK_CUDA_PLUGIN), where times mean nothing: what it
prints adds up, quality is the CPU's, and what is missing or breaks costs one clear line."""

import json
import os

import tidemark_cli as cli

MODEL = cli.ROOT / "tests" / "golden" / "llama_even_bf16"
WIDE = cli.ROOT / "tests" / "golden" / "llama_even_f32"
SMALL = ["--prompt", "9", "--gen", "2", "--batch", "1,3", "--repeats", "2", "--threads", "1"]
RATES = {"read_bytes_per_s", "copy_bytes_per_s", "host_to_device_bytes_per_s", "device_to_host_bytes_per_s"}
FORMATS = {"float32", "bfloat16", "fp8", "int8"}


class BenchCuda(cli.TestCase):
    def bench(self, *args, model=MODEL, backend="cuda", **options):
        return self.good("bench", "--backend", backend, "--model", model, *args, timeout=3 * cli.DEADLINE_S, **options)

    def test_json(self):
        about = self.bench(*SMALL, "--depth", "0,20", "--format", "json").json()
        self.assertEqual((about["backend"], about["device"], about["kernels"]), ("cuda", "GPU on CPU", "cuda"))
        self.assertEqual((about["weights"], about["kv"], about["peak"]["name"]), ("as-is", "bf16", "bfloat16"))
        self.assertEqual(set(about["ceilings"]), {"of", *RATES, *FORMATS})
        self.assertIn("GPU on CPU, 4 multiprocessors", about["ceilings"]["of"])
        for key in RATES:
            self.assertGreater(about["ceilings"][key], 0, key)
        for key in FORMATS:
            self.assertGreater(about["ceilings"][key]["per_s"], 0, key)
            self.assertIn("cuBLASLt", about["ceilings"][key]["instruction"])
        self.assertEqual(about["peak"]["per_s"], about["ceilings"]["bfloat16"]["per_s"])
        self.assertEqual([(r["test"], r["batch"], r["depth"]) for r in about["results"]],
                         [("prompt", 1, 0), ("prompt", 1, 20), ("gen", 1, 0), ("gen", 1, 20), ("gen", 3, 0),
                          ("gen", 3, 20)])
        for r in about["results"]:
            best_s = r["tokens"] * r["batch"] / r["tokens_per_s"]["best"]
            self.assertAlmostEqual(r["read_share"], r["bytes"] / best_s / about["ceilings"]["read_bytes_per_s"])
            self.assertAlmostEqual(r["peak_share"], r["flops"] / best_s / about["peak"]["per_s"])
            self.assertTrue(0 <= r["launch_share"] <= r["gap_share"] < 1, r)

    def test_what_steps_read_is_what_a_cpu_reads(self):
        """Where both keep weights and cache in the same formats."""
        ours, cpu = (self.bench(*SMALL, "--depth", "20", "--kv", "bf16", "--format", "json", backend=backend).json()
                     for backend in ("cuda", "cpu"))
        self.assertEqual(ours["weight_bytes"], cpu["weight_bytes"])
        for mine, other in zip(ours["results"], cpu["results"]):
            self.assertEqual((mine["bytes"], mine["flops"]), (other["bytes"], other["flops"]))

    def test_float32_has_its_own_peak(self):
        about = self.bench(*SMALL, "--format", "json", model=WIDE).json()
        self.assertEqual((about["peak"]["name"], about["bytes_per_weight"]), ("float32", 4))

    def test_table(self):
        text = self.bench(*SMALL).out
        for line in ("cuda, GPU on CPU, loaded", "ceilings of GPU on CPU", "host to device", "gen 2 x 3"):
            self.assertIn(line, text)

    def test_quality_is_the_cpus(self):
        ids = self.folder / "some.ids"
        ids.write_text(" ".join(str(i * 7 % 60 + 1) for i in range(80)), encoding="utf-8")
        args = ["--quality", ids, "--context", "40", "--weights", "bf16,int8", "--kv", "bf16,fp8", "--prompt", "0",
                "--gen", "1", "--batch", "1", "--repeats", "1", "--threads", "1", "--format", "json"]
        ours, cpu = (self.bench(*args, backend=backend).json() for backend in ("cuda", "cpu"))
        self.assertEqual((ours["backend"], ours["device"]), ("cuda", "GPU on CPU"))
        self.assertEqual(ours["text"], cpu["text"])
        self.assertEqual(ours["forms"][0]["kl"]["mean"], 0)  # the baseline beside itself
        for mine, other in zip(ours["forms"], cpu["forms"]):
            form = (mine["weights"], mine["kv"])
            self.assertEqual(form, (other["weights"], other["kv"]))
            for key in ("perplexity", "perplexity_ratio"):
                # inputs are rounded to bfloat16 in other places, int8 to other inputs
                self.assertAlmostEqual(mine[key]["value"] / other[key]["value"], 1, delta=0.03, msg=(form, key))

    def test_auto(self):
        result = self.bench(*SMALL, "--format", "json", backend="auto")
        self.assertEqual((result.json()["backend"], result.err), ("cuda", ""))
        result = self.bench(*SMALL, "--format", "json", backend="auto", env={"TIDEMARK_CUDA_PLUGIN": "/nowhere.so"})
        self.assertEqual((result.json()["backend"], result.json()["kv"]), ("cpu", "f32"))
        self.assertIn("backend auto: cpu", result.err)
        self.assertIn("/nowhere.so", result.err)
        self.assertEqual(result.err.count("\n"), 1)

    def test_edges_between_gpus(self):
        """Three ranks on two GPUs: those that share one have no NCCL; a run would take ipc everywhere."""
        file, svg = self.folder / "edges.json", self.folder / "edges.svg"
        text = self.good("bench", "--edges", "--backend", "cuda", "--ranks", "3", "--seconds", "3", "--max-size", "1MiB",
                         "--output", file, "--heatmap", svg, "--model", "preset:tiny", "--batch", "4", "--prompt", "0",
                         env={"GPU_ON_CPU_DEVICES": "2"}).out
        for says in ("3 of the ranks have a GPU (GPU on CPU)", "ipc, within a host", "nccl, within a host"):
            self.assertIn(says, text)
        about = json.loads(file.read_text())
        self.assertEqual([(t["name"], t["carries_hidden"]) for t in about["transports"]],
                         [("ipc", True), ("nccl", True), ("mpi", True), ("messages", False)])
        pairs = {t["name"]: {(link["from"], link["to"]): link for link in t["links"]} for t in about["transports"]}
        everybody = {(a, b) for a in range(3) for b in range(3) if a != b}
        self.assertEqual(set(pairs["ipc"]), everybody)
        self.assertEqual(set(pairs["nccl"]), everybody - {(0, 1), (1, 0)})
        self.assertEqual(set(pairs["mpi"]), everybody)
        for rank in about["ranks"]:
            self.assertEqual(rank["gpu"], "GPU on CPU")
            self.assertGreater(rank["gpu_copy_ns"][0], 0)
        for name in ("ipc", "nccl"):
            for (a, b), link in pairs[name].items():
                self.assertTrue(0 < link["min_ns"][0] <= link["median_ns"][0])
                at = about["copy_bytes"].index(link["bandwidth_at_bytes"])
                copies = [ns for ns in (about["ranks"][r]["gpu_copy_ns"][at] for r in (a, b)) if ns]
                taken = link["bandwidth_at_bytes"] / link["bandwidth_bytes_per_s"] * 1e9
                if copies:
                    self.assertAlmostEqual(link["copy_share"], min(copies) / taken, delta=1e-9)
        hop, = about["model"]["hops"]
        ns = [link["latency_ns"] + hop["bytes"] * link["byte_ns"] for link in pairs["ipc"].values()]
        self.assertAlmostEqual(hop["worst_ns"], max(ns), delta=1e-6 * max(ns))
        self.assertIn("transport ipc<", svg.read_text())

    def test_edges_between_gpus_that_do_not_reach_each_other(self):
        about = self.good("bench", "--edges", "--backend", "cuda", "--ranks", "2", "--seconds", "1", "--max-size", "1KiB",
                          "--format", "json", env={"GPU_ON_CPU_DEVICES": "2", "GPU_ON_CPU_APART": "0-1"}).json()
        self.assertEqual([t["name"] for t in about["transports"]], ["nccl", "mpi", "messages"])

    def test_edges_without_gpus(self):
        about = self.good("bench", "--edges", "--backend", "auto", "--ranks", "2", "--seconds", "1", "--max-size", "1KiB",
                          "--format", "json", env={"GPU_ON_CPU_DEVICES": "0"}).json()
        self.assertEqual([t["name"] for t in about["transports"]], ["mpi", "messages"])
        result = self.good("bench", "--edges", "--backend", "cuda", "--ranks", "2", "--seconds", "1", code=2,
                           env={"GPU_ON_CPU_DEVICES": "0"})
        self.one_clear_line(result, "no GPU")

    def test_wrong_input(self):
        model = ["bench", "--backend", "cuda", "--model", MODEL, "--gen", "2"]
        self.refused([*model, "--kernels", "amx"], "--kernels", "amx", "cuda")
        self.refused([*model, "--prompt", "1000"], "context", "1000 tokens")
        self.refused([*model, *SMALL], "backend cuda", "/nowhere.so", env={"TIDEMARK_CUDA_PLUGIN": "/nowhere.so"})

    def test_no_memory(self):
        result = self.good("bench", "--backend", "cuda", "--model", MODEL, "--prompt", "0", "--gen", "2", "--batch",
                           "200", "--depth", "300", code=1, env={"GPU_ON_CPU_BYTES": "80000000"})
        self.one_clear_line(result, "rank 0, GPU 0 (GPU on CPU)", "cudaMalloc of ", "bytes for ", code=1)


if __name__ == "__main__":
    if not os.environ.get("TIDEMARK_CUDA_PLUGIN"):
        cli.skip("needs the stand-in's backend (TIDEMARK_CUDA_PLUGIN)")
    cli.main()
