"""GPUs that a scripted library tells of (tests/support/fake_nvml.c), from the sampling thread to the report.

Power is constant, so that energy is power times the window whatever the samples' times, and joules per
token follow from the tokens that h5py finds. The library is named by FAKE_NVML_PATH. No real GPU is here.
"""

import csv
import json
import os
import pathlib
import signal
import subprocess
import time

import h5py
import numpy as np

import tidemark_cli as cli
from serve import Server

LIBRARY = os.environ["FAKE_NVML_PATH"]
UUIDS = [f"GPU-{0xa0 + i:08x}-0000-4000-8000-000000000000" for i in range(3)]


def script(text, **more):
    return dict({"TIDEMARK_NVML": LIBRARY, "FAKE_NVML": text}, **more)


def texts(column):
    return [v.decode().rstrip("\0") for v in column[()]]


def tokens_in_window(path, index=0):
    """(input, output) tokens of the window, as docs/measurement.md counts them."""
    with h5py.File(path, "r") as f:
        step = f[f"steps/{index:04d}"]
        warm, end = int(step.attrs["t_warm_ns"]), int(step.attrs["t_end_ns"])
        r = {name: column[()] for name, column in step["requests"].items()}
        offsets, dt_us = step["tokens/offsets"][()], step["tokens/dt_us"][()].astype(np.int64)
    n_out = 0
    for k in range(len(r["id"])):
        t = r["t_send_ns"][k] + 1000 * np.cumsum(dt_us[offsets[k]:offsets[k + 1]])
        n_out += int(((t >= warm) & (t < end)).sum())
    first = r["t_first_ns"]
    return int(r["n_in"][(first >= warm) & (first < end)].sum()), n_out


class Telemetry(cli.TestCase):
    def config(self, **keys):
        return cli.small_run(self.folder, **dict(
            dict(target__backend="sim", target__telemetry="on", load__arrival="constant",
                 load__rates=[20.0], load__step="2500ms", load__warmup=0.2), **keys))

    @property
    def file(self):
        return self.folder / "run.h5"

    def report(self):
        return self.good("report", self.file, "--format", "json").json()

    def check_energy(self, step, watts):
        seconds = step["window_s"]
        n_in, n_out = tokens_in_window(self.file, step["index"])
        gpus = step["gpus"]
        self.assertGreater(n_out, 0)
        for got, wanted in ((gpus["energy_j"], watts * seconds), (gpus["power_w"]["value"], watts),
                            (gpus["joules_per_output_token"]["value"], watts * seconds / n_out),
                            (gpus["joules_per_token"]["value"], watts * seconds / (n_in + n_out))):
            self.assertAlmostEqual(got / wanted, 1, delta=0.01)

    def test_power_times_window_over_tokens(self):
        self.good("run", self.config(load__rates=[20.0, 40.0]), "--quiet",
                  env=script("devices=2 power=300 throttle=4:0:600"))
        self.good("validate", self.file)
        with h5py.File(self.file, "r") as f:
            self.assertEqual(texts(f["meta/gpus/uuid"]), UUIDS[:2])
            self.assertEqual(f["meta/gpus/rank"][()].tolist(), [1, 1], "a worker looks, not the load rank")
            for step in f["steps"].values():
                t, device = step["gpus/t_ns"][()], step["gpus/device"][()]
                self.assertTrue((np.diff(t) >= 0).all())
                self.assertLessEqual(t[0], step.attrs["t_begin_ns"] + 250_000_000)
                self.assertGreater(t[-1], step.attrs["t_end_ns"] - 250_000_000)
                self.assertLess(abs((device == 0).sum() - (device == 1).sum()), 2)
                self.assertEqual(set(step["gpus/power_w"][device == 1].tolist()), {310.0})
        report = self.report()
        self.assertEqual([g["name"] for g in report["run"]["gpus"]], ["Scripted GPU"] * 2)
        for step in report["steps"]:
            self.check_energy(step, 610)
            self.assertEqual(step["gpus"]["energy_from"], "counter")
            self.assertEqual((step["gpus"]["throttled"], step["gpus"]["clock_reasons"]["power_cap"]), (1, 1))
        self.assertIn("joules per token", report["definitions"])
        self.check_renderings(report)

    def check_renderings(self, report):
        text = self.good("report", self.file).out
        self.assertIn("step 1: 2 GPUs took 610", text)
        self.assertIn("throttled 100 % of the time: power_cap 100 %", text)
        page = self.good("report", self.file, "--format", "html").out
        for wanted in ("Energy of a token", "power_cap 100 %", UUIDS[1]):
            self.assertIn(wanted, page)
        self.good("export", self.file, "--as", "csv", "-o", self.folder)
        with open(next(self.folder.glob("**/csv/steps.csv")), newline="", encoding="ascii") as f:
            rows = list(csv.DictReader(f))
        for row, step in zip(rows, report["steps"]):
            self.assertAlmostEqual(float(row["joules_per_output_token"]),
                                   step["gpus"]["joules_per_output_token"]["value"], delta=1e-6)
        figures = self.good("compare", self.file, self.file, "--format", "json").json()["steps"][0]["figures"]
        self.assertIn("gpus.joules_per_output_token", [f["metric"] for f in figures])

    def test_power_without_a_counter(self):
        self.good("run", self.config(), "--quiet", env=script("power=250 without=energy+throttle"))
        step = self.report()["steps"][0]
        self.check_energy(step, 250)
        self.assertEqual((step["gpus"]["energy_from"], step["gpus"]["throttled"]), ("power", None))

    def test_gpus_that_tell_nothing(self):
        self.good("run", self.config(), "--quiet", env=script("without=energy+power"))
        self.good("validate", self.file)
        gpus = self.report()["steps"][0]["gpus"]
        self.assertEqual((gpus["energy_j"], gpus["joules_per_token"]["value"]), (None, None))
        self.assertEqual(gpus["sm_mhz"], 1980)
        self.assertIn("1 GPU whose power is not known", self.good("report", self.file).out)

    def test_only_visible_ones(self):
        self.good("run", self.config(), "--quiet",
                  env=script("devices=3", CUDA_VISIBLE_DEVICES=f"2,{UUIDS[0][:12]}"))
        with h5py.File(self.file, "r") as f:
            self.assertEqual(f["meta/gpus/index"][()].tolist(), [0, 2])
            self.assertEqual(sorted(set(f["steps/0000/gpus/device"][()].tolist())), [0, 1])
        self.assertAlmostEqual(self.report()["steps"][0]["gpus"]["power_w"]["value"], 100 + 120, delta=2)

    def run_on_hosts(self, hosts, args, without=None):
        """A rank on each of these: host names of this machine's, as far as the ranks can tell. One may be without
        the library."""
        if subprocess.run(["unshare", "--uts", "true"], capture_output=True, check=False).returncode != 0:
            self.skipTest("host names of our own need unshare(1) and the right to use it")
        command, between = list(cli.MPIRUN), []
        for host in hosts:
            command += [*between, "-np", "1", "env", *(["TIDEMARK_NVML=/none"] if host == without else []),
                        "unshare", "--uts", "sh", "-c", 'hostname "$0" && exec "$@"', host, cli.BINARY,
                        *map(str, args)]
            between = [":"]
        result = cli.Process(command, env=script("devices=2 power=150")).finish()
        self.assertEqual(result.code, 0, str(result))
        self.good("validate", self.file)
        with h5py.File(self.file, "r") as f:
            devices = [set(step["gpus/device"][()].tolist()) for step in f["steps"].values()]
            return f["meta/gpus/rank"][()].tolist(), texts(f["meta/gpus/host"]), devices

    def test_stages_on_several_hosts(self):
        """One rank of each host that has workers looks, and the samples of all come together."""
        args = ("run", self.config(target__replicas=2, load__rates=[20.0, 25.0]), "--quiet")
        ranks, hosts, devices = self.run_on_hosts(["a", "b", "c", "b", "c"], args)
        self.assertEqual((ranks, hosts), ([1, 1, 2, 2], ["b", "b", "c", "c"]))
        self.assertEqual(devices, [{0, 1, 2, 3}] * 2)
        for step in self.report()["steps"]:
            self.check_energy(step, 2 * 310)

    def test_gpus_of_one_host_cannot_be_looked_at(self):
        """The sum would be too low: it is said."""
        args = ("run", self.config(target__pipeline=1, target__replicas=2), "--quiet")
        ranks, _, _ = self.run_on_hosts(["a", "b", "c"], args, without="c")
        self.assertEqual(ranks, [1, 1])
        self.assertIn("telemetry of GPUs is incomplete, so that energy is too low: /none",
                      " ".join(self.report()["run"]["warnings"]))

    def test_load_ranks_on_several_hosts(self):
        with Server("serve.ttft=1ms") as s:
            args = ("run", "target.kind=openai", "target.model=demo", "load.ranks=2", "load.rates=[20,25]",
                    "load.step=1500ms", f"target.url=http://127.0.0.1:{s.port}/v1", "-o", self.file, "--quiet")
            ranks, hosts, devices = self.run_on_hosts(["a", "b"], args)
        self.assertEqual((ranks, hosts), ([0, 0, 1, 1], ["a", "a", "b", "b"]))
        self.assertEqual(devices, [{0, 1, 2, 3}] * 2)

    # --- without ----------------------------------------------------------------------------------

    def check_nothing(self, n_said, env, **keys):
        """A run that samples nothing, and says why so many times."""
        result = self.good("run", self.config(**keys), "--quiet", "--force", env=env)
        self.assertEqual(len(cli.own_lines(result.err)), n_said, str(result))
        self.good("validate", self.file)
        report = self.report()
        with h5py.File(self.file, "r") as f:
            self.assertEqual(len(f["meta/gpus/uuid"]), 0)
            self.assertEqual(len(f["steps/0000/gpus/t_ns"]), 0)
            said = json.loads(f["meta/provenance"][()]).get("telemetry")
        self.assertEqual((report["run"]["gpus"], report["steps"][0]["gpus"]), ([], None))
        self.assertEqual(said is not None, n_said > 0)
        self.assertEqual([w for w in report["run"]["warnings"] if "telemetry" in w],
                         [f"telemetry of GPUs is {said}"] if said else [])
        self.assertNotRegex(self.good("report", self.file).out, "GPUs? (took|whose)")
        return said

    def test_no_library(self):
        missing = {"TIDEMARK_NVML": str(self.folder / "none.so")}
        self.assertIn("none.so", self.check_nothing(1, missing))
        self.assertIn("Driver Not Loaded", self.check_nothing(1, script("init=9")))
        none = "none of the target's is visible as a whole"
        self.assertIn(none, self.check_nothing(1, script("", CUDA_VISIBLE_DEVICES="")))
        self.assertIn(none, self.check_nothing(1, script("mig=0")))

    def test_nobody_asked(self):
        """No GPU is this target's, or nobody wants to know: nothing is looked at, and nothing said."""
        self.check_nothing(0, script(""), target__telemetry="off")
        self.check_nothing(0, script(""), target__telemetry="auto")
        self.check_nothing(0, {"TIDEMARK_NVML": "/none"}, target__telemetry="auto")

    # --- endpoints and ends -----------------------------------------------------------------------

    def test_endpoint_of_this_host(self):
        settings = ("target.kind=openai", "target.model=demo", "load.arrival=constant", "load.rates=20",
                    "load.step=1500ms", "load.ranks=2", "load.input_tokens=8", "load.output_tokens=8", "--quiet")
        with Server("serve.ttft=1ms") as s:
            self.good("run", *settings, f"target.url=http://127.0.0.1:{s.port}/v1", "-o", self.file,
                      env=script("power=500"))
            with h5py.File(self.file, "r") as f:
                self.assertEqual(f["meta/gpus/rank"][()].tolist(), [0])
            self.check_energy(self.report()["steps"][0], 500)
            # by another name it might be anywhere, whosever GPUs are here
            self.good("run", *settings, f"target.url=http://0.0.0.0:{s.port}/v1", "-o", self.file, "--force",
                      env=script("power=500"))
            self.assertEqual(self.report()["run"]["gpus"], [])

    def test_endpoint_without_gpus(self):
        """Of an endpoint nobody knows that it computes with GPUs: without a library there is nothing to say."""
        with Server("serve.ttft=1ms") as s:
            result = self.good("run", "target.kind=openai", "target.model=demo", "load.rates=20",
                               "load.step=500ms", f"target.url=http://localhost:{s.port}/v1", "-o", self.file,
                               "--quiet", env={"TIDEMARK_NVML": "/none"})
        self.assertEqual(cli.own_lines(result.err), [])
        self.assertEqual([w for w in self.report()["run"]["warnings"] if "telemetry" in w], [])

    def test_killed_recovered_resumed(self):
        """A killed run's samples are recovered; what goes on looks at the GPUs that it finds again."""
        config = self.config(load__rates=[20.0, 25.0], load__step="3s")
        process = cli.start("run", config, "--quiet", env=script("devices=2 power=300"))
        self.addCleanup(process.end)
        journal = pathlib.Path(f"{self.file}.journal")
        process.wait_until(lambda: cli.journal_bytes(journal, 1), "step 1")
        time.sleep(2.2)
        os.kill(process.ranks()[1], signal.SIGKILL)
        self.assertEqual(process.finish().code, 1)
        self.good("recover", self.file)
        self.good("validate", self.file)
        with h5py.File(self.file, "r") as f:
            step = f["steps/0001"]
            self.assertEqual(int(step.attrs["recovered"]), 1)
            t = step["gpus/t_ns"][()] - step.attrs["t_begin_ns"]
            self.assertGreater(t[-1], 1_000_000_000)
        result = self.good("run", config, "--resume", "--quiet", env=script("devices=1 power=300"))
        self.assertEqual(cli.own_lines(result.err), [])
        self.good("validate", self.file)
        steps = self.report()["steps"]
        self.assertEqual(len(steps), 3)
        self.assertEqual(steps[2]["gpus"]["energy_j"], None, "one of the two GPUs is not there")
        self.assertAlmostEqual(steps[2]["gpus"]["devices"][0]["power_w"], 300, delta=3)


if __name__ == "__main__":
    cli.main(cli.SideBySide())
