"""Exports of real runs, read by the tools' own parsers (parsers.py): none may reject a file, read
another number than the file holds, or find the file at odds with itself or with the tool's formulas.

    python3 tests/exports/accept.py                    seconds; the first time it installs 35 MB
    TIDEMARK_SLOW=1 python3 tests/exports/accept.py    vLLM's parser too: a download of hundreds of MB
"""

import contextlib
import csv
import functools
import io
import json
import pathlib
import re
import shutil
import signal
import sys
import types
import unittest
import unittest.mock
import warnings

sys.path.insert(0, str(pathlib.Path(__file__).parents[1] / "cli"))
sys.dont_write_bytecode = True

import parsers  # noqa: E402
import tidemark_cli as cli  # noqa: E402

FORMATS = "vllm,inference-perf,guidellm,br0.2,csv"
GOALS = dict(slo__ttft="50ms", slo__tpot="20ms", slo__e2e="400ms")
SERVER = ("serve", "target.kind=null", "serve.port=0", "serve.ttft=20ms", "serve.itl=10ms")
SERVED = dict(target__kind="openai", target__model="demo", target__metrics="none")
RUNS = {
    "open": dict(load__rates=[10.0, 20.0], load__warmup="20%", **GOALS),
    "closed": dict(load__arrival="closed", load__users=3, load__rates=None),
    "cut": dict(load__output_tokens=100, load__drain="0s", **SERVED),  # what is sent late, is cancelled
    "timed_out": dict(load__output_tokens={"kind": "lognormal", "mean": 8, "sd": 8},
                      target__timeout="150ms", **SERVED),
}


def numbers(tree, path=()):
    """{path: number} of everything in a tree of JSON."""
    if isinstance(tree, (dict, list)):
        items = tree.items() if isinstance(tree, dict) else enumerate(tree)
        return {k: v for key, value in items for k, v in numbers(value, (*path, key)).items()}
    return {path: tree} if isinstance(tree, (int, float)) and not isinstance(tree, bool) else {}


def load(path):
    return json.loads(path.read_text())


def of_each_run(test):
    """A test that takes the folder of a run's exports, of all runs."""

    @functools.wraps(test)
    def of_all(self, *args):
        for folder in self.runs:
            with self.subTest(run=folder.name):
                test(self, folder, *args)

    return of_all


def make_runs(home):
    server = cli.start(*SERVER)
    url = server.wait_until(lambda: re.search(r"http\S+", "".join(t for _, t in server.out_chunks)),
                            "`listening on`").group()
    try:
        for name, keys in RUNS.items():
            make_run(home / name, **keys, target__url=url if "target__kind" in keys else None)
    finally:
        server.signal(signal.SIGTERM)
        server.finish()


def make_run(folder, **keys):
    folder.mkdir()
    config = cli.small_run(folder, **keys)
    for args in (("run", config, "--force"),
                 ("export", folder / "run.h5", "--as", FORMATS, "-o", folder)):
        result = cli.run(*args)
        assert result.code == 0, f"{folder.name}: {result}"


class Accept(cli.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.home = pathlib.Path(cli.tempfile.mkdtemp(prefix="tidemark-test-"))
        cls.addClassCleanup(shutil.rmtree, cls.home, ignore_errors=True)
        make_runs(cls.home)
        cls.runs = sorted(cls.home.iterdir())

    def assert_near(self, got, wanted, what, relative=1e-9, absolute=1e-9):
        self.assertIsNotNone(got, what)
        self.assertLessEqual(abs(got - wanted), absolute + relative * abs(wanted),
                             f"{what}: {got}, wanted {wanted}")

    def assert_holds(self, model, file):
        """All numbers of the file are in what the parser made of it."""
        kept = numbers(model)
        for path, value in numbers(file).items():
            self.assert_near(kept.get(path), value, ".".join(map(str, path)))

    def test_errors_are_there(self):
        """Else the tests below would read less than they say."""
        for name, key in (("cut", "incomplete"), ("timed_out", "errored"), ("open", "successful")):
            benchmark = load(self.home / name / "guidellm" / "benchmarks.json")["benchmarks"][0]
            self.assertGreater(benchmark["metrics"]["request_totals"][key], 0, name)

    # --- guidellm ---------------------------------------------------------------------------------

    @of_each_run
    def test_guidellm(self, folder):
        report_class, _ = parsers.guidellm()
        file = load(folder / "guidellm" / "benchmarks.json")
        report = report_class.load_file(folder / "guidellm")
        self.assertEqual(len(report.benchmarks), len(file["benchmarks"]))
        for read, raw in zip(report.benchmarks, file["benchmarks"]):
            metrics, ours = read.metrics, raw["metrics"]
            self.assert_holds(metrics.model_dump(mode="json"), ours)
            for got, key in ((metrics.requests_per_second, "requests_per_second"),
                             (metrics.time_to_first_token_ms, "time_to_first_token_ms"),
                             (metrics.output_tokens_per_second, "output_tokens_per_second")):
                wanted = ours[key]["successful"]
                self.assert_near(got.successful.mean, wanted["mean"], key)
                self.assert_near(got.successful.percentiles.p99, wanted["percentiles"]["p99"], key)

    @of_each_run
    def test_guidellm_formulas(self, folder):
        """Its own formulas over the requests of the file give the figures of the file."""
        report_class, metrics_class = parsers.guidellm()
        from guidellm.benchmark.schemas.accumulator import GenerativeRequestsAccumulator

        for read in report_class.load_file(folder / "guidellm").benchmarks:
            stats = {k: GenerativeRequestsAccumulator(requests_stats=getattr(read.requests, of))
                     for k, of in (("completed", "successful"), ("incomplete", "incomplete"),
                                   ("errored", "errored"))}
            timings = types.SimpleNamespace(finalized_measure_start=read.start_time,
                                            finalized_measure_end=read.end_time)
            own = metrics_class.compile(
                types.SimpleNamespace(timings=timings, config=read.config, **stats))
            self.assert_same_figures(read.metrics.model_dump(mode="json"),
                                     own.model_dump(mode="json"))

    def assert_same_figures(self, file, own):
        """But for what hangs on the last quarter of a microsecond, which the times of day in the file
        have lost as 64-bit floats: which value comes most often, and 1 over the shortest gap."""
        own, file = numbers(own), numbers(file)
        for path, value in file.items():
            n = file.get((*path[:-1], "count"), 1) if path[-1] == "total_sum" else 1  # values added up
            if path[-1] != "mode" and (not path[0].endswith("_per_second") or path[-1] == "mean"):
                self.assert_near(own.get(path), value, ".".join(path), relative=1e-3,
                                 absolute=n * (1e-3 if path[0].endswith("_ms") else 1e-6))

    # --- inference-perf ---------------------------------------------------------------------------

    @of_each_run
    def test_inference_perf(self, folder):
        """Its validation of a whole set of reports has no error to tell, and finds what it looks for."""
        validation, report_file, _ = parsers.inference_perf()
        from inference_perf.reportgen.br.v0_2 import validation as br_validation

        paths = sorted((folder / "inference-perf").iterdir())
        files = [report_file(path.stem, load(path)) for path in paths]
        found = validation.run_validators(validation.default_validators(), files)
        self.assertEqual([str(f) for f in found.all_errors()], [])
        self.assertEqual(set(found.reports), {path.name for path in paths})
        for file in (f for f in files if f.name.startswith("stage_")):
            for _, wanted in br_validation._AGREEMENT_PATHS:
                value = validation.get_path(file.get_contents(), *wanted)
                self.assertTrue(validation.is_number(value), f"{file.name}: {wanted}: {value}")

    @of_each_run
    def test_inference_perf_charts(self, folder):
        """What `inference-perf --analyze` draws is what the stages hold."""
        _, _, analyze = parsers.inference_perf()
        drawn = []
        analyze._generate_plot = lambda charts, *_: drawn.extend(charts)
        analyze._generate_multi_plot = lambda *_: None
        parsers.stand_in("matplotlib")  # is only asked for
        analyze.analyze_reports([str(folder / "inference-perf")])
        stages = [load(p) for p in (folder / "inference-perf").glob("stage_*")]
        wanted = sorted(
            (s["load_summary"].get("concurrency") or s["load_summary"]["achieved_rate"],
             1e3 * s["successes"]["latency"]["time_to_first_token"]["mean"],
             s["successes"]["throughput"]["output_tokens_per_sec"]) for s in stages)
        charts = {c["title"]: c["data"] for c in drawn}
        for title, column in (("Time to First Token", 1), ("Output Tokens/sec", 2)):
            found = [data for name, data in charts.items() if name.startswith(title + " vs")]
            self.assertEqual(found, [[(row[0], row[column]) for row in wanted]], list(charts))

    # --- llm-d Benchmark Report v0.2 --------------------------------------------------------------

    @of_each_run
    def test_br02(self, folder):
        validation, _, _ = parsers.inference_perf()
        report_class = parsers.br02()
        for path in sorted((folder / "br0.2").iterdir()):
            file = load(path)
            report = report_class.model_validate(file)
            self.assert_holds(report.dump(), file)
            self.assertEqual(
                [str(f) for f in validation.distribution_findings(path.name, file["results"], "")],
                [])
            read = report.results.request_performance.aggregate
            ours = file["results"]["request_performance"]["aggregate"]
            for name in ("request_rate", "output_token_rate"):
                self.assert_near(getattr(read.throughput, name).mean,
                                 ours["throughput"][name]["mean"], name)
            if read.requests.total > read.requests.failures + read.requests.incomplete:
                ttft = ours["latency"]["time_to_first_token"]
                self.assert_near(read.latency.time_to_first_token.mean, ttft["mean"], "TTFT")
                self.assert_near(read.latency.time_to_first_token.p99, ttft["p99"], "TTFT p99")

    # --- vLLM -------------------------------------------------------------------------------------

    def test_vllm(self):
        plot, why = parsers.vllm()
        if why:
            raise unittest.SkipTest(why)
        self.see_vllm(plot)

    @of_each_run
    def see_vllm(self, folder, plot):
        """What `vllm bench sweep plot` would draw of the results, put together as a sweep does."""
        runs = [load(path) for path in sorted((folder / "vllm").iterdir())]
        (folder / "vllm" / "summary.json").write_text(json.dumps(runs))
        for x, y in (("request_throughput", "p99_ttft_ms"), ("request_rate", "mean_ttft_ms"),
                     ("output_throughput", "median_e2el_ms")):
            self.assertEqual(self.drawn(plot, folder / "vllm", x, y),
                             [(number(run[x]), run[y]) for run in runs])

    def drawn(self, plot, folder, x, y):
        """[(x, y)] that it hands over to be drawn."""
        points = []
        grid = unittest.mock.MagicMock()

        def relplot(frame, **_):
            points.extend(zip(frame[x].tolist(), frame[y].tolist()))
            return grid

        parsers.stand_in("matplotlib")
        parsers.stand_in("matplotlib.pyplot", close=grid)
        parsers.stand_in("seaborn", relplot=relplot)
        with contextlib.redirect_stdout(io.StringIO()):
            plot.plot(folder, folder, [], [], [], [], var_x=x, var_y=y, scale_x=None, scale_y=None,
                      filter_by=plot.PlotFilters(), bin_by=plot.PlotBinners(), dry_run=False)
        return points

    # --- CSV --------------------------------------------------------------------------------------

    @of_each_run
    def test_csv(self, folder):
        """Python's csv and pandas read the same figures that the report has."""
        import pandas

        steps = self.good("report", folder / "run.h5", "--format", "json").json()["steps"]
        path = folder / "csv" / "steps.csv"
        with open(path, newline="") as f:
            rows = list(csv.DictReader(f))
        frame = pandas.read_csv(path)
        self.assertEqual(len(rows), len(steps))
        for i, (row, step) in enumerate(zip(rows, steps)):
            for column, wanted in (("rate_rps", step["rate_rps"]),
                                   ("ttft_ms_mean", step["ttft_ms"]["mean"]),
                                   ("ttft_ms_p99", step["ttft_ms"]["p99"])):
                if wanted is None:
                    self.assertEqual((row[column], frame[column].isna()[i]), ("", True), column)
                else:
                    self.assert_near(float(row[column]), wanted, column)
                    self.assert_near(frame[column][i], wanted, column)


def number(value):
    return float(value) if value == "inf" else value


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    parsers.enter_venv()
    cli.main()
