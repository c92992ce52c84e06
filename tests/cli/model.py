"""tidemark model: what a model weighs, how it splits, what machines hold; and traffic on a virtual clock."""

import json

import tidemark_cli as cli

LLAMA_405B = {"model_type": "llama", "num_hidden_layers": 126, "hidden_size": 16384,
              "intermediate_size": 53248, "num_attention_heads": 128, "num_key_value_heads": 8,
              "vocab_size": 128256, "max_position_embeddings": 131072, "torch_dtype": "bfloat16"}


class Inspect(cli.TestCase):
    def model(self, config=None):
        folder = self.folder / "model"
        folder.mkdir(exist_ok=True)
        (folder / "config.json").write_text(json.dumps(config or LLAMA_405B))
        return str(folder)

    def inspect(self, *args):
        return self.good("model", "inspect", *args, "--format", "json").json()

    def test_what_16_of_80_gb_hold_of_a_405b(self):
        """16 x 80e9 x 0.9 bytes less 811.7e9 of weights, over 516,096 a token: 160 and 5."""
        said = self.inspect(self.model(), "--gpus", 16, "--gpu-memory", "80GB", "--memory-share", "0.9",
                            "--context", "4096,131072", "--hardware", "h100-sxm")
        model = said["model"]
        self.assertEqual(model["parameters"], 405853388800)
        self.assertEqual(model["bytes"], 2 * 405853388800)
        self.assertEqual(model["kv_bytes_per_token"], {"bf16": 516096, "fp8": 258048})
        held = {(r["context"], r["kv_dtype"]): r["requests"] for r in said["concurrency"]}
        self.assertEqual(held, {(4096, "bf16"): 160, (4096, "fp8"): 321,
                                (131072, "bf16"): 5, (131072, "fp8"): 10})
        for row in said["concurrency"]:
            self.assertLessEqual(row["requests_on_best_split"], row["requests"])

    def test_splits(self):
        said = self.inspect(self.model(), "--gpus", 16, "--hardware", "h100-sxm")
        shapes = [(s["pipeline"], s["tensor"]) for s in said["splits"]]
        self.assertEqual(shapes, [(16, 1), (8, 2), (4, 4), (2, 8)])
        best = [s for s in said["splits"] if s["best"]]
        self.assertEqual(len(best), 1)
        for s in said["splits"]:
            with self.subTest(pipeline=s["pipeline"]):
                self.assertTrue(s["fits"])
                self.assertEqual(sum(s["layers"]), 126)
                self.assertEqual(len(s["stage_ns"]), s["pipeline"])
                self.assertEqual(max(s["stage_ns"]), s["slowest_ns"])
                self.assertLessEqual(s["slowest_ns"], s["equal_split_slowest_ns"])
                mean = sum(s["stage_ns"]) / s["pipeline"]
                self.assertAlmostEqual(s["imbalance"], s["slowest_ns"] / mean)
                self.assertLessEqual(s["tokens_per_s"], best[0]["tokens_per_s"])
        wide = self.inspect(self.model(), "--gpus", 16, "--tensor", 16, "--hardware", "h100-sxm")
        self.assertEqual([s["layers"] for s in wide["splits"]], [[126]])
        one = self.inspect(self.model(), "--pipeline", 4, "--tensor", 4, "--hardware", "h100-sxm")
        self.assertEqual([(s["pipeline"], s["tensor"]) for s in one["splits"]], [(4, 4)])
        small = self.inspect(self.model(), "--gpus", 8, "--hardware", "h100-sxm")
        self.assertFalse(any(s["fits"] for s in small["splits"]))

    def test_text(self):
        out = self.good("model", "inspect", self.model(), "--gpus", 16, "--hardware", "mi300x").out
        for says in ("405.853 B", "811.707 GB", "516096 B in bf16", "mi300x", "16 x 1", "* "):
            self.assertIn(says, out)

    def test_this_machine(self):
        """Rooflines of what is measured here; then costs measured here, a layer at a time."""
        said = self.inspect("preset:tiny")
        machine, roofline = said["machine"], said["roofline"]
        self.assertEqual(machine["name"], "this machine")
        self.assertTrue(1e9 < machine["read_bytes_per_s"] < 1e13, machine)
        self.assertTrue(1e9 < machine["bf16_flops_per_s"] < 1e15, machine)
        self.assertGreater(machine["memory_bytes"], 1e9)
        least_s = (said["model"]["bytes"] - 4 * 1024 * 128) / machine["read_bytes_per_s"]
        self.assertGreater(roofline["decode_tokens_per_s"], 0)
        self.assertLess(roofline["decode_tokens_per_s"], 1 / least_s)
        costs = self.folder / "costs.json"
        said = self.inspect("preset:tiny", "--measure", "--save-costs", costs)
        self.assertGreater(said["model"]["layer_kinds"][0]["decode_ns"], 0)
        again = self.inspect("preset:tiny", "--costs", costs)
        self.assertEqual(again["model"]["layer_kinds"], said["model"]["layer_kinds"])
        self.assertIn("threads", again["machine"]["costs"])
        shard = self.folder / "shard.json"
        said = self.good("model", "inspect", "preset:tiny", "--measure", "--tensor", 2, "--save-costs", shard)
        self.assertIn("2 ranks with their sums", said.out)
        self.assertEqual(json.loads(shard.read_text())["tensor"], 2)
        self.refused(["model", "inspect", "preset:tiny", "--costs", shard], "--costs", shard, "2 ranks")
        self.refused(["model", "inspect", "preset:tiny", "--costs", f"{costs},{shard}"], "--costs", shard, "threads each")
        one = json.loads(costs.read_text())
        one["threads"] = json.loads(shard.read_text())["threads"]
        costs.write_text(json.dumps(one))
        self.refused(["model", "inspect", "preset:tiny", "--costs", f"{costs},{shard},{shard}"], "--costs", "2 ranks")
        self.refused(["run", cli.small_run(self.folder), "target.backend=sim", f"target.sim.costs={shard}"],
                     "target.sim.costs", "2 ranks")
        self.refused(["model", "inspect", "preset:tiny", "--measure", "--tensor", 2], "--save-costs")

    def test_refusals(self):
        model = self.model()
        for args, *says in ((["model"], "model inspect M"),
                            (["model", "look", model], "model inspect M"),
                            (["model", "inspect"], "model inspect M"),
                            (["model", "inspect", model, "--hardware", "h1000"], "h100-sxm"),
                            (["model", "inspect", model, "--gpus", "0"], "--gpus", "from 1 to 4096"),
                            (["model", "inspect", model, "--gpus", "7.5"], "--gpus", "7.5"),
                            (["model", "inspect", model, "--gpus", "4", "--pipeline", "3"], "--gpus 4"),
                            (["model", "inspect", model, "--gpu-memory", "80"], "--gpu-memory"),
                            (["model", "inspect", model, "--memory-share", "1.5"], "--memory-share"),
                            (["model", "inspect", model, "--memory-share", "0.9,0"], "--memory-share"),
                            (["model", "inspect", model, "--context", "4096,"], "--context"),
                            (["model", "inspect", model, "--context", "0"], "--context"),
                            (["model", "inspect", model, "--costs", "/nowhere.json"], "/nowhere.json"),
                            (["model", "inspect", "/nowhere"], "/nowhere"),
                            (["model", "inspect", "preset:huge"], "preset:huge")):
            with self.subTest(args=args):
                self.refused(args, *says)


class Make(cli.TestCase):
    def test_a_folder_computes_what_the_preset_computes(self):
        """The same requests of the same schedule; unit.maker compares the values themselves."""
        folder = self.folder / "made"
        out = self.good("model", "make", "--arch", "qwen2", "--preset", "tiny", "--out", folder).out
        self.assertIn("preset:tiny-qwen2", out)
        config = json.loads((folder / "config.json").read_text())
        self.assertEqual(config["architectures"], ["Qwen2ForCausalLM"])
        header, data = cli.read_safetensors(folder / "model.safetensors")
        self.assertEqual(header["__metadata__"], {"format": "pt"})
        tensors = {name: t for name, t in header.items() if name != "__metadata__"}
        self.assertEqual(max(t["data_offsets"][1] for t in tensors.values()), len(data))
        self.assertEqual(tensors["model.layers.0.self_attn.q_proj.bias"]["shape"], [128])
        said = [self.good("model", "inspect", model, "--hardware", "l4", "--format", "json").json()
                for model in ("preset:tiny-qwen2", folder)]
        for one in said:
            one["model"].pop("name")
        self.assertEqual(said[0], said[1])
        path = self.folder / "run.h5"
        self.good("run", cli.small_run(self.folder, target__model=str(folder), results=str(path)),
                  "--quiet")
        self.assertEqual(set(cli.read_steps(path)[0].outcomes().values()), {"ok"})

    def test_progress_on_a_terminal(self):
        process = cli.start("model", "make", "--preset", "tiny", "--out", self.folder / "made",
                            terminal=True)
        result = process.finish()
        self.assertEqual(result.code, 0, str(result))
        self.assertIn("100.0 %", result.err)

    def test_refusals(self):
        full = self.folder / "full"
        full.mkdir()
        (full / "file").write_text("x")
        for args, *says in (([], "--preset NAME --out DIR"),
                            (["--preset", "tiny"], "--out DIR"),
                            (["--preset", "tinny", "--out", "x"], "--preset", "tiny-qwen2"),
                            (["--arch", "qwen3", "--preset", "tiny", "--out", "x"], "--arch", "qwen2"),
                            (["--arch", "gemma2", "--preset", "small", "--out", "x"], "of llama"),
                            (["--preset", "tiny", "--out", full], full, "not empty"),
                            (["--preset", "tiny", "--out", full / "file"], "file"),
                            (["--preset", "tiny", "--out", full / "a" / "b"], "No such file"),
                            (["--preset", "tiny", "--out", "x", "--seed", "1.5"], "--seed")):
            with self.subTest(args=args):
                self.refused(["model", "make", *args], *says)


class Plan(cli.TestCase):
    def plan(self, *args):
        return self.good("model", "plan", *args, "--format", "json").json()

    def test_same_requests_as_a_run(self):
        """The same config gives the same bytes twice, and at a light load what is offered is served."""
        config = cli.small_run(self.folder, target__backend="sim", target__sim={"hardware": "l4"},
                               load__rates=[50.0, 100.0], load__step="60s")
        one, two = self.plan(config), self.plan(config)
        self.assertEqual(one, two)
        self.assertEqual(one["layers"], [2, 2])
        for step, rate in zip(one["steps"], (50, 100)):
            self.assertEqual(step["ok"], step["requests"])
            self.assertLess(abs(step["offered_rps"] / rate - 1), 0.1)
            self.assertLess(abs(step["output_tokens_per_s"] / (8 * step["offered_rps"]) - 1), 0.02)
            self.assertGreater(step["ttft_ms"]["p50"], 0)
            self.assertLessEqual(step["ttft_ms"]["p50"], step["ttft_ms"]["p99"])
        self.assertGreater(one["steps"][1]["queue"]["running_mean"],
                           one["steps"][0]["queue"]["running_mean"])

    def test_auto_climbs_past_saturation(self):
        keys = ["target.model=preset:small", "target.pipeline=4", "target.sim.hardware=l4",
                "load.step=20s", "load.dataset=sharegpt"]
        steps = self.plan(*keys)["steps"]
        rates = [s["rate_rps"] for s in steps]
        self.assertGreaterEqual(len(steps), 4)
        self.assertEqual(rates, sorted(rates))
        self.assertEqual(steps[0]["ok"], steps[0]["requests"])
        self.assertLess(steps[-1]["output_tokens_per_s"] / steps[-2]["output_tokens_per_s"], 1.1)
        self.assertGreater(steps[-1]["ttft_ms"]["p50"], 10 * steps[0]["ttft_ms"]["p50"])
        self.assertGreater(max(s["busy"] for s in steps[-1]["stages"]), 0.95)

    def test_replicas_share_the_load(self):
        keys = ["target.model=preset:tiny", "target.sim.hardware=l4", "load.step=20s",
                "load.rates=40", "load.output_tokens=50"]
        one = self.plan(*keys)["steps"][0]
        two = self.plan(*keys, "target.replicas=2")["steps"][0]
        self.assertEqual(one["requests"], two["requests"])
        self.assertEqual(len(two["stages"]), 2)
        self.assertLess(max(s["busy"] for s in two["stages"]), one["stages"][0]["busy"])

    def test_refusals(self):
        for args, *says in ((["target.kind=null"], "target.kind=stages"),
                            (["target.backend=cpu", "target.model=preset:tiny"], "target.backend=sim"),
                            (["target.modell=x"], "target.modell", "target.model"),
                            (["a.yaml", "b.yaml"], "b.yaml", "one config file")):
            with self.subTest(args=args):
                self.refused(["model", "plan", *args], *says)


if __name__ == "__main__":
    cli.main()
