"""Other tools' formats: what is written agrees with their own formulas over its own raw values, and
vLLM's results come back as they went. Keys and formulas of vLLM: vllm/benchmarks/serve.py, mid 2026."""

import json
import pathlib
import shutil

import tidemark_cli as cli

PERCENTS = [0.1, 1, 5, 10, 25, 50, 75, 90, 95, 99, 99.9]
FORMATS = "vllm,inference-perf,guidellm,br0.2,csv,requests-csv"


def vllm_metrics(run):
    """vLLM's calculate_metrics, over the arrays of --save-detailed: {key: value}."""
    import numpy

    good = [i for i, error in enumerate(run["errors"]) if not error]
    values = {"ttft": [run["ttfts"][i] for i in good], "e2el": [run["latencies"][i] for i in good],
              "itl": [gap for i in good for gap in run["itls"][i]],
              "tpot": [(run["latencies"][i] - run["ttfts"][i]) / (run["output_lens"][i] - 1)
                       for i in good if run["output_lens"][i] > 1]}
    out = {"completed": len(good), "failed": len(run["errors"]) - len(good),
           "total_input_tokens": sum(run["input_lens"][i] for i in good),
           "total_output_tokens": sum(run["output_lens"])}
    out["request_throughput"] = len(good) / run["duration"]
    out["output_throughput"] = out["total_output_tokens"] / run["duration"]
    for name, v in values.items():
        v = 1e3 * numpy.array(v or [0])
        out[f"mean_{name}_ms"], out[f"std_{name}_ms"] = numpy.mean(v), numpy.std(v)
        out[f"median_{name}_ms"] = numpy.median(v)
        out.update({f"p{p:g}_{name}_ms": numpy.percentile(v, p) for p in PERCENTS})
    return out


class Exports(cli.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.home = pathlib.Path(cli.tempfile.mkdtemp(prefix="tidemark-test-"))
        cls.addClassCleanup(shutil.rmtree, cls.home, ignore_errors=True)
        cls.file, cls.out = cls.home / "run.h5", cls.home / "out"
        config = cli.small_run(cls.home, load__rates=[10.0, 20.0])
        for args in (("run", config, "--force"),
                     ("export", cls.file, "--as", FORMATS, "-o", cls.out)):
            result = cli.run(*args)
            assert result.code == 0, str(result)

    def vllm(self, folder=None):
        return [json.loads(f.read_text()) for f in sorted((folder or self.out / "vllm").iterdir())]

    def assert_near(self, got, wanted, what):
        self.assertLessEqual(abs(got - wanted), 1e-9 + 1e-6 * abs(wanted), f"{what}: {got} {wanted}")

    def test_vllm_formulas(self):
        for run in self.vllm():
            self.assertEqual({len(run[k]) for k in ("input_lens", "itls", "errors", "queue_times")},
                             {run["num_prompts"]})
            for key, value in vllm_metrics(run).items():
                self.assert_near(run[key], value, key)

    def test_vllm_round_trip(self):
        back = self.home / "back.h5"
        self.good("import", "vllm", *sorted((self.out / "vllm").iterdir()), "-o", back, "--force")
        self.good("validate", back)
        self.good("export", back, "--as", "vllm", "-o", self.home / "again")
        for went, came in zip(self.vllm(), self.vllm(self.home / "again" / "vllm"), strict=True):
            for key in vllm_metrics(went):
                self.assert_near(came[key], went[key], key)

    def test_jsonl_reports(self):
        lines = self.home / "all.jsonl"
        lines.write_text("\n".join(json.dumps(run) for run in reversed(self.vllm())))
        report = self.good("report", lines, "--format", "json").json()
        self.assertEqual([s["rate_rps"] for s in report["steps"]], [10, 20])
        self.assertTrue(any("imported" in w for w in report["run"]["warnings"]))

    def test_inference_perf_formulas(self):
        import numpy

        requests = json.loads(
            (self.out / "inference-perf" / "per_request_lifecycle_metrics.json").read_text())
        summary = json.loads(
            (self.out / "inference-perf" / "summary_lifecycle_metrics.json").read_text())
        good = [r for r in requests if not r["error"]]
        latency = [r["end_time"] - r["start_time"] for r in good]
        got = summary["successes"]["latency"]["request_latency"]
        self.assertEqual(summary["successes"]["count"], len(good))
        self.assert_near(got["mean"], numpy.mean(latency), "mean")
        self.assert_near(got["p99"], numpy.percentile(latency, 99), "p99")

    def test_whole_gaps_stay(self):
        """Also behind a first token that came at half a microsecond."""
        gaps = [(1000 + 7 * k % 90) / 1e6 for k in range(200)]
        went, out = self.home / "halves.json", self.home / "halves"
        went.write_text(json.dumps({"input_lens": [4] * 50, "output_lens": [201] * 50,
                                    "ttfts": [(80000.5 + 13 * i) / 1e6 for i in range(50)],
                                    "itls": [gaps] * 50, "start_times": [i / 10 for i in range(50)]}))
        self.good("import", "vllm", went, "-o", self.home / "halves.h5", "--force")
        self.good("export", self.home / "halves.h5", "--as", "vllm", "-o", out)
        (run,) = self.vllm(out / "vllm")
        for came in run["itls"]:
            self.assertEqual([round(1e9 * gap) for gap in came], [round(1e9 * gap) for gap in gaps])

    def test_token_times_end_with_their_request(self):
        """Though gaps are kept in whole microseconds, and these are rounded up."""
        went, out = self.home / "rounded.json", self.home / "rounded"
        went.write_text(json.dumps({"input_lens": [4, 4], "output_lens": [1, 2],
                                    "ttfts": [0.0100006, 0.0100006], "itls": [[], [0.0010007]],
                                    "start_times": [0, 0.1]}))
        self.good("import", "vllm", went, "-o", self.home / "rounded.h5", "--force")
        self.good("export", self.home / "rounded.h5", "--as", "inference-perf", "-o", out)
        path = out / "inference-perf" / "per_request_lifecycle_metrics.json"
        for request in json.loads(path.read_text()):
            times = request["info"]["response_metrics"]["output_token_times"]
            self.assertEqual(times, sorted(times))
            self.assertLessEqual(times[-1], request["end_time"])

    def test_compare(self):
        same = self.good("compare", self.file, self.file, "--format", "json").json()
        figures = [f for step in same["steps"] for f in step["figures"]]
        self.assertTrue(figures and all(f["verdict"] == "unclear" for f in figures))
        self.assertTrue(all(step["same_schedule"] for step in same["steps"]))
        self.good("compare", self.file, self.file, "--max-regression", "5%")
        slow = self.home / "slow.json"
        run = self.vllm()[1]
        for key in ("ttfts", "latencies"):
            run[key] = [x + 1 for x in run[key]]
        slow.write_text(json.dumps(run))
        failed = self.good("compare", self.file, slow, "--max-regression", "5%", code=3)
        self.assertIn("ttft_service_ms.p50", failed.out.split("FAILED")[1])

    def test_wrong_input(self):
        bad = self.home / "bad.json"
        bad.write_text('{"input_lens": [1], "output_lens": [1], "ttfts": [-1]}')
        self.refused(("report", bad), bad, "ttfts[0]")
        self.refused(("export", self.file, "--as", "foo"), "foo", "vllm")
        self.refused(("compare", self.file), "two result files")
        self.refused(("compare", self.file, self.file, "--max-regression", "5%", "--metrics", "x"),
                     "'x' is unknown")
        self.refused(("import", "vllm", bad), "-o")


cli.main()
