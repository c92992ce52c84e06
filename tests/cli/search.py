"""The searches as a user runs them: which steps come, what the file and the report say of them, that an
overloaded step ends early with the same requests on any number of load ranks, killed or not, and that a run
which was stopped goes on with the same steps."""

import json
import pathlib
import signal
import struct

import tidemark_cli as cli
from serve import FAULTS, Server

KINDS = ["base", "sweep", "bisect", "fill", "revisit"]
JOURNAL_STOP = 6  # results/journal.h
NULL = dict(target__kind="null", load__step="400ms", load__drain="5s", load__probe="200ms")
SLOW = ["serve.ttft=500ms", "serve.max_concurrent=20"]  # at most 40 requests/s; 1 % of its TTFT is a late send


def endpoint(server):
    return dict(target__kind="openai", target__url=f"http://127.0.0.1:{server.port}/v1", target__model="any",
                target__check=False, target__pipeline=1)


TRIES = 3
BUSY = f"this machine held up the client in each of {TRIES} runs, which the search must obey"


def steps_of(file):
    """[(kind, rate, pass)]"""
    return [(KINDS[s.attrs["kind"]], float(s.attrs["rate_rps"]), int(s.attrs["repeat"]))
            for s in cli.read_steps(file)]


def was_held_up(report):
    return "client_limited" in [s["verdict"] for s in report["steps"]]


def journal_kinds(path):
    """The kinds of a journal's whole entries: heads of {magic, kind, n_bytes, checksum}, payloads."""
    data, at, kinds = path.read_bytes() if path.exists() else b"", 0, []
    while at + 16 <= len(data):
        _, kind, n_bytes, _ = struct.unpack_from("<4I", data, at)
        at += 16 + (n_bytes + 7) // 8 * 8
        kinds += [kind] if at <= len(data) else []
    return kinds


class Search(cli.TestCase):
    def run_of(self, name, *options, **keys):
        """(steps of the file, report) of a run; its file is valid, its report fits the schema."""
        folder = self.folder / name
        folder.mkdir(exist_ok=True)
        self.good("run", cli.small_run(folder, **keys), "--quiet", *options)
        self.good("validate", folder / "run.h5")
        report = self.good("report", folder / "run.h5", "--format", "json").json()
        self.check_schema(report)
        return cli.read_steps(folder / "run.h5"), report

    def check_schema(self, report):
        try:
            import jsonschema  # noqa: PLC0415
        except ImportError:
            return
        schema = json.loads((cli.ROOT / "docs" / "report.schema.json").read_text())
        jsonschema.validate(report, schema)

    def texts(self, name):
        file = self.folder / name / "run.h5"
        text = self.good("report", file, "--format", "text").out
        page = self.folder / "page.html"
        self.good("report", file, "--format", "html", "-o", page)
        return text, page.read_text()

    def test_ladder(self):
        with Server("serve.ttft=5ms") as server:
            steps, report = self.run_of("ladder", load__concurrency=[1, 2, 4], load__rates={}, **NULL | endpoint(server))
        self.assertEqual([(int(s.attrs["users"]), float(s.attrs["rate_rps"])) for s in steps],
                         [(1, 0), (2, 0), (4, 0)])
        found = report["concurrency"]
        self.assertEqual([r["users"] for r in found["rungs"]], [1, 2, 4])
        sound = [r["users"] for r in found["rungs"] if r["verdict"] in ("stable", "too_short")]
        if not sound:
            self.skipTest("this machine was too busy for any rung")
        self.assertIn(found["best"], sound)
        self.assertLessEqual(found["lo95"], found["best"])
        self.assertGreaterEqual(found["hi95"], found["best"])
        text, page = self.texts("ladder")
        self.assertIn("concurrency   best limit", text)
        self.assertIn("Best limit of requests in flight", page)

    def test_best_concurrency(self):
        """A server of four places: more users bring nothing, two such rungs end the climb."""
        with Server("serve.ttft=50ms", "serve.max_concurrent=4") as server:
            steps, report = self.run_of("best", load__concurrency="best", load__rates={}, load__step="3s",
                                        load__drain="500ms", load__output_tokens=1, **endpoint(server))
        if any(s["verdict"] == "client_limited" for s in report["steps"]):
            self.skipTest("this machine was too busy for a rung")
        users = [int(s.attrs["users"]) for s in steps]
        self.assertEqual(users[:4], [1, 2, 4, 8])
        found = report["concurrency"]
        self.assertIn(found["best"], (3, 4, 5, 6, 8))
        for rung in found["rungs"]:
            self.assertAlmostEqual(rung["little"], 1, delta=0.35, msg=str(rung))

    def test_failing_rungs_are_no_answer(self):
        """One request in five gets HTTP 500."""
        with Server(program=FAULTS) as server:
            flaky = dict(**NULL | endpoint(server), target__headers=["X-Fault: http_500/5"])
            _, report = self.run_of("flaky", load__concurrency=[1, 2, 4], load__rates={}, **flaky)
            self.assertEqual([s["verdict"] for s in report["steps"]], ["errors"] * 3)
            self.assertFalse(report["run"]["valid"])
            self.assertIn("step 2 (4 users) is errors", report["run"]["invalid_reasons"][2])
            self.assertEqual([r["verdict"] for r in report["concurrency"]["rungs"]], ["errors"] * 3)
            self.assertIsNone(report["concurrency"]["best"])
            self.assertIn("concurrency   no limit to go by", self.texts("flaky")[0])
            _, report = self.run_of("users", load__arrival="closed", load__users=2, load__rates={},
                                    **flaky)
        self.assertFalse(report["run"]["valid"])

    def test_the_probe_is_of_all_replicas(self):
        with Server("serve.ttft=5ms") as server:
            steps, _ = self.run_of("probe", load__rates=dict(max_steps=1), load__output_tokens=1,
                                   **NULL | endpoint(server), target__replicas=2)
        self.assertEqual((KINDS[steps[0].attrs["kind"]], int(steps[0].attrs["users"])), ("base", 64))

    def test_repeats(self):
        steps, report = self.run_of("repeats", load__rates=[200.0, 400.0], load__repeats=3, **NULL)
        self.assertEqual([(float(s.attrs["rate_rps"]), int(s.attrs["repeat"])) for s in steps],
                         [(r, k) for k in range(3) for r in (200, 400)])
        self.assertEqual(len({int(s.attrs["seed"]) for s in steps}), 6)
        found = report["repeats"]
        self.assertEqual((found["passes"], len(found["steps"])), (3, 2))
        first = found["steps"][0]["output_tokens_per_s"]
        values = [s["tokens_per_s"]["output"]["value"] for s in report["steps"][::2]]
        self.assertAlmostEqual(first["value"], sum(values) / 3)
        self.assertLess(first["lo95"], min(values))
        self.assertGreater(first["hi95"], max(values))
        text, page = self.texts("repeats")
        self.assertIn("Over 3 passes", text)
        self.assertIn("Over 3 passes", page)

    def test_objectives(self):
        """The null target answers at once: every rate is met, and the text says so."""
        rates = dict(start=100, factor=2, max_steps=3, slo=True)
        for attempt in range(TRIES):
            name = f"slo{attempt}"
            steps, report = self.run_of(name, load__rates=rates, slo__ttft="50ms", slo__quantile=0.5,
                                        **NULL)
            if not was_held_up(report):
                break
        else:
            self.skipTest(BUSY)
        self.assertEqual([KINDS[s.attrs["kind"]] for s in steps], ["sweep"] * 3 + ["revisit"])
        decided = report["slo"]["decided"]
        self.assertEqual([p["holds"] for p in decided["probes"]], ["met"] * 3)
        self.assertEqual((decided["highest_met_rps"], decided["lowest_missed_rps"]), (400, None))
        self.assertTrue(decided["monotone"])
        self.assertEqual((report["drift"]["first_step"], report["drift"]["last_step"]), (0, 3))
        self.assertIn("decided by 95 %: met at 400/s", self.texts(name)[0])

    def overload(self, server, **keys):
        """4 requests/s, then 400, of a server of at most 40."""
        rates = dict(start=4, factor=100, max_steps=2, bisect=0, fill=0, revisit=False)
        rates.update(keys.pop("rates", {}))
        return dict(dict(load__rates=rates, load__output_tokens=1, load__step="4500ms",
                         load__drain="1s", **endpoint(server)), **keys)

    def test_overload_stops_early(self):
        with Server(*SLOW) as s:
            whole, _ = self.run_of("whole", **self.overload(s, rates=dict(stop_early=False)))
        with Server(*SLOW) as s:
            one, report = self.run_of("one", **self.overload(s))
        with Server(*SLOW) as s:
            two, _ = self.run_of("two", **self.overload(s, load__ranks=2))
        for name, found in (("one", one), ("two", two), ("killed", self.killed_after_the_stop())):
            with self.subTest(name):
                self.check_stopped(found[1].attrs)
                end_ns = found[1].attrs["t_end_ns"] - found[1].attrs["t_begin_ns"]
                wanted = [row for row in whole[1].schedule() if row[1] < end_ns]
                self.assertEqual(found[1].schedule(), wanted)
                self.assertEqual(int(found[1].attrs["n_scheduled"]), len(wanted))
                self.assertEqual(found[1].attrs["schedule_hash"], whole[1].attrs["schedule_hash"])
        if not was_held_up(report):  # which would be the reason
            self.assertIn("stopped early after", report["steps"][1]["reason"])
        self.assertTrue(report["steps"][1]["stopped_early"])

    def killed_after_the_stop(self):
        """The steps of a run whose death came while what was sent before the stop was still waited for."""
        file = self.folder / "run.h5"
        journal = pathlib.Path(f"{file}.journal", "step_0001.journal")
        with Server(*SLOW) as server:
            config = cli.small_run(self.folder, **self.overload(server, load__drain="1m"))
            process = cli.start("run", config, "--quiet")
            self.addCleanup(process.end)
            process.wait_until(lambda: JOURNAL_STOP in journal_kinds(journal), "early stop")
            process.signal(signal.SIGKILL)
            process.finish()
        self.assertEqual(len(cli.read_steps(file)), 1)
        self.good("recover", file)
        self.good("validate", file)
        steps = cli.read_steps(file)
        self.assertEqual(int(steps[1].attrs["recovered"]), 1)
        self.assertEqual(set(steps[1].outcomes().values()), {"ok", "lost"})
        report = self.good("report", file, "--format", "json").json()["steps"][1]
        self.assertTrue(report["stopped_early"] and report["recovered"])
        return steps

    def check_stopped(self, attrs):
        self.assertEqual(int(attrs["stopped_early"]), 1)
        self.assertLess(attrs["t_end_ns"], attrs["t_planned_ns"])
        self.assertLess(attrs["t_warm_ns"], attrs["t_end_ns"])
        self.assertGreater(attrs["t_end_ns"] - attrs["t_begin_ns"], 1.5e9)  # a third of the step

    def stopped_and_resumed(self):
        """Kind, rate and pass of all steps, after a stop in step 2 and a resumption; the report."""
        keys = dict(load__rates=dict(start=100, factor=2, max_steps=3), load__repeats=2, **NULL)
        keys["load__step"] = "700ms"
        config = cli.small_run(self.folder, **keys)
        file, journal = self.folder / "run.h5", pathlib.Path(f"{self.folder}/run.h5.journal")
        process = cli.start("run", config, "--quiet", "--force")
        self.addCleanup(process.end)
        process.wait_until(lambda: cli.journal_bytes(journal, 2), "step 2")
        process.signal(signal.SIGINT)
        self.assertEqual(process.finish().code, 0)
        before = steps_of(file)
        self.good("run", config, "--quiet", "--resume")
        found = steps_of(file)
        self.assertLess(len(before), len(found))
        self.assertEqual(found[:len(before)], before)
        return found, self.good("report", file, "--format", "json").json()

    def test_resume_goes_on_with_the_same_steps(self):
        one_pass = [("sweep", 100.0), ("sweep", 200.0), ("sweep", 400.0), ("revisit", 100.0)]
        for _ in range(TRIES):
            found, report = self.stopped_and_resumed()
            first, second = ([s[:2] for s in found if s[2] == k] for k in range(2))
            self.assertEqual(first, second)
            if not was_held_up(report):
                self.assertEqual(found, [(*s, k) for k in range(2) for s in one_pass])
                return
        self.skipTest(BUSY)

    def test_dry_run_counts_what_refines(self):
        config = cli.small_run(self.folder, load__rates=dict(start=100), **NULL)
        self.assertIn("at most 18 steps", self.good("run", config, "--dry-run").out)

    def test_bad_input(self):
        for wanted, keys in {
            "load.concurrency: 1 (whole numbers": dict(load__concurrency=[2, 1], load__rates={}),
            "load of its own": dict(load__concurrency="best"),
            "load.rates.slo: not with": dict(load__rates=dict(list=[1.0], slo=True)),
            "not one of off, best": dict(load__concurrency="most", load__rates={}),
            "an objective": dict(load__rates=dict(slo=True)),
        }.items():
            with self.subTest(wanted=wanted):
                config = cli.small_run(self.folder, **keys)
                self.refused(["run", config], wanted)


if __name__ == "__main__":
    cli.main()
