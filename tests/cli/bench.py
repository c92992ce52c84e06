"""`tidemark bench`: what it prints adds up, in both formats, for every kernel set that this machine
has and every form of the weights; wrong input costs one clear line."""

import re
import unittest

import tidemark_cli as cli

SETS = ["portable", "avx2", "avx512", "avx512_bf16", "amx"]
ROW = re.compile(r"^(prompt \d+(?: at \d+)?|gen \d+ x \d+(?: at \d+)?) +([\d.]+) \+- ([\d.]+) +([\d.]+) .* ([\d.]+)%$",
                 re.M)


class Bench(cli.TestCase):
    def bench(self, *args, threads=2):
        return self.good("bench", "--model", "preset:tiny", "--threads", str(threads), *args)

    def check_result(self, r, about):
        """Rates follow from bytes, operations and the best time; shares from rates and ceilings."""
        rate = r["tokens_per_s"]
        best_s = r["tokens"] * r["batch"] / rate["best"]
        self.assertGreaterEqual(rate["best"], rate["mean"])
        self.assertGreaterEqual(rate["sd"], 0)
        read, peak = about["ceilings"]["read_bytes_per_s"], about["peak"]["per_s"]
        for key, value in (("read_bytes_per_s", r["bytes"] / best_s),
                           ("flops_per_s", r["flops"] / best_s),
                           ("read_share", r["bytes"] / best_s / read),
                           ("peak_share", r["flops"] / best_s / peak),
                           ("roofline_share", max(r["bytes"] / read, r["flops"] / peak) / best_s)):
            self.assertAlmostEqual(r[key], value, delta=1e-9 * value, msg=key)
        self.assertTrue(0 <= r["gap_share"] < 1, r)
        self.assertEqual(r["launch_share"], 0)
        # Two operations per weight and token at least, every weight but the embedding read once a step.
        self.assertGreater(r["flops"], r["tokens"] * r["batch"] * 1e5)
        self.assertGreater(about["ceilings"]["float32"]["per_s"], 1e8)

    def test_json(self):
        about = self.bench("--prompt", "32,300", "--gen", "3,8", "--batch", "1,5", "--repeats", "2",
                           "--format", "json").json()
        self.assertEqual(about["schema"], "tidemark.bench/1")
        self.assertEqual((about["backend"], about["device"], about["threads"]), ("cpu", None, 2))
        self.assertEqual((about["weights"], about["kv"]), ("as-is", "f32"))
        self.assertEqual((about["ceilings"]["of"], about["peak"]["name"]), ("2 threads", "float32"))
        self.assertAlmostEqual(about["bytes_per_weight"], about["weight_bytes"] / about["params"])
        self.assertEqual([(r["test"], r["tokens"], r["batch"]) for r in about["results"] if r["depth"] == 0],
                         [("prompt", 32, 1), ("prompt", 300, 1), ("gen", 3, 1), ("gen", 3, 5),
                          ("gen", 8, 1), ("gen", 8, 5)])
        for result in about["results"]:
            self.assertEqual(result["tokens_per_s"]["n"], 2)
            self.check_result(result, about)
        # A step reads the weights once, whatever its batch: the rest is the cache.
        one, five = about["results"][4:]
        self.assertLess(five["bytes"], 1.5 * one["bytes"])
        self.assertAlmostEqual(five["flops"], 5 * one["flops"], delta=1e-6 * five["flops"])

    def test_depth(self):
        """A test behind d positions is the last part of a longer one: the same bytes and operations, and all of
        them again in each repeat."""
        def run(*args):
            about = self.bench(*args, "--batch", "3", "--repeats", "2", "--format", "json").json()
            for result in about["results"]:
                self.check_result(result, about)
            return about["kv_bytes_per_token"], {(r["test"], r["tokens"], r["depth"]): r for r in about["results"]}

        _, results = run("--prompt", "0", "--gen", "3,17,20", "--depth", "0,17")
        self.assertEqual(len(results), 6)
        for key in ("bytes", "flops"):
            whole, first, last = (results["gen", n, d][key] for n, d in ((20, 0), (17, 0), (3, 17)))
            self.assertAlmostEqual(whole, first + last, delta=1e-9 * whole)
        # What the cache adds to a step: all that it holds of each request.
        kv_bytes, results = run("--prompt", "40", "--gen", "4", "--depth", "0,1000,1500")
        far, near = (results["gen", 4, d]["bytes"] for d in (1500, 1000))
        self.assertAlmostEqual(far - near, 4 * 3 * 500 * kv_bytes, delta=1)
        near, far = (results["prompt", 40, d] for d in (0, 1500))
        self.assertAlmostEqual(far["bytes"] - near["bytes"], 1500 * kv_bytes, delta=1)
        self.assertGreater(far["flops"], 2 * near["flops"])

    def test_table(self):
        text = self.bench("--prompt", "16", "--gen", "4", "--batch", "1,2", "--repeats", "1").out
        rows = ROW.findall(text)
        self.assertEqual([r[0] for r in rows], ["prompt 16", "gen 4 x 1", "gen 4 x 2"])
        for _, mean, sd, best, gap in rows:
            self.assertEqual((float(sd), float(mean)), (0, float(best)))
            self.assertLess(float(gap), 100)
        text = self.bench("--prompt", "0", "--gen", "4", "--batch", "2", "--depth", "100,2000", "--repeats", "1").out
        self.assertEqual([r[0] for r in ROW.findall(text)], ["gen 4 x 2 at 100", "gen 4 x 2 at 2000"])
        self.assertIn("ceilings of 2 threads:\n  read", text)

    @unittest.skipIf(cli.SANITIZED, "24 threads take too long")
    def test_more_threads_than_cores(self):
        """Each has a part of its own of what is read."""
        text = self.bench("--prompt", "0", "--gen", "2", "--batch", "1", "--repeats", "1", threads=24).out
        self.assertIn("ceilings of 24 threads:\n  read", text)

    def test_kernel_sets_and_weights(self):
        sizes = {}
        for kernels in SETS:
            for weights in ("as-is", "int8", "int4"):
                command = ["bench", "--model", "preset:tiny", "--threads", "1", "--prompt", "20",
                           "--gen", "2", "--batch", "1", "--repeats", "1", "--format", "json",
                           "--kernels", kernels, "--weights", weights]
                with open("/proc/cpuinfo", encoding="utf-8") as info:
                    flags = info.read()
                if {"avx2": "avx2", "avx512": "avx512bw", "avx512_bf16": "avx512_bf16",
                        "amx": "amx_bf16"}.get(kernels, "flags") not in flags:
                    self.refused(command, "kernels", kernels, "this CPU")
                    continue
                about = self.good(*command).json()
                self.assertEqual((about["kernels"], about["weights"]), (kernels, weights))
                sizes[weights] = about["bytes_per_weight"]
        self.assertLess(sizes["int8"], sizes["as-is"])
        self.assertLess(sizes["int4"], sizes["int8"])

    def test_wrong_input(self):
        model = ["bench", "--model", "preset:tiny"]
        self.refused(["bench"], "bench", "--model")
        self.refused([*model, "more"], "bench", "no arguments")
        self.refused([*model, "--gen", "1,,2"], "--gen", "1,,2", "whole numbers")
        self.refused([*model, "--batch", "0"], "--batch", "'0'", "1 to")
        self.refused([*model, "--depth", "0,-1"], "--depth", "'0,-1'", "0 to")
        self.refused([*model, "--depth", "4000"], "4512 tokens", "context", "preset:tiny")
        self.refused([*model, "--repeats", "1,2"], "--repeats", "not a list")
        self.refused([*model, "--prompt", "0", "--gen", "0"], "nothing to measure")
        self.refused([*model, "--prompt", "1000000"], "context", "preset:tiny")
        self.refused([*model, "--weights", "int2"], "--weights", "int2", "int8")
        self.refused([*model, "--kernels", "mmx"], "kernels", "mmx", "portable")
        self.refused([*model, "--backend", "tpu"], "--backend", "tpu", "cpu")


if __name__ == "__main__":
    cli.main()
