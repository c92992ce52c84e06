#!/usr/bin/env python3
"""What `model inspect --edges` predicts for splits P x T against runs of them on this machine's cores: output
tokens/s at saturation, and TTFT of one request alone.

usage: splits.py [TIDEMARK [SECONDS [MODEL ...]]]      default: build/tidemark, steps of 3 s, preset:small

Every rank has one core and one thread. Costs are measured as they are used: P stages at once, each on T cores of its
own, of which the slowest counts; edges with as many ranks as the run has, the load rank among them. A machine's speed
wanders, so costs and runs take turns, and a split's predictions on the whole are held against its runs on the whole.
A closed loop keeps as many requests under way as may run, of lengths from half to one and a half times the mean. Where
the load rank has no core of its own, what it takes of one (in the report) slows the ranks that compute: their costs are
scaled by it. Splits of more ranks than there are cores are left out. Exit 1 when the median error is above 10 %.
"""

import json
import os
import pathlib
import statistics
import subprocess
import sys
import tempfile

ROOT = pathlib.Path(__file__).parents[2]
LIMIT = 0.10
TURNS = 8
SPLITS = [(1, 1), (2, 1), (1, 2), (2, 2), (4, 1), (1, 4)]  # P x T
LOADS = [(128, 64, 16), (32, 128, 32)]  # prompt tokens, output tokens, requests at once
WHEN_STARTED_ALONE = {"OMPI_ALLOW_RUN_AS_ROOT": "1", "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1"}


class Machine:
    def __init__(self, binary, seconds, folder):
        self.binary, self.seconds, self.folder = binary, seconds, pathlib.Path(folder)
        self.cores = sorted(os.sched_getaffinity(0))

    def start(self, *args, cores=None):
        command = ["taskset", "-c", ",".join(map(str, cores or self.cores)), self.binary, *map(str, args)]
        return subprocess.Popen(command, stdout=subprocess.PIPE, env=dict(os.environ, **WHEN_STARTED_ALONE))

    @staticmethod
    def said(started):
        out, _ = started.communicate()
        if started.returncode:
            sys.exit(f"{' '.join(started.args)}: exit code {started.returncode}")
        return out

    def tidemark(self, *args):
        return self.said(self.start(*args))

    def costs(self, model, pipeline, tensor):
        """Of each of P stages of T ranks, all measured at once."""
        def start(stage):
            path = self.folder / f"{stage}.{tensor}.json"
            return path, self.start("model", "inspect", model, "--measure", "--tensor", tensor, "--save-costs", path,
                                    cores=self.cores[stage * tensor:(stage + 1) * tensor])

        started = [start(stage) for stage in range(pipeline)]
        for _, process in started:
            self.said(process)
        return [path for path, _ in started]

    def edges(self, n_ranks):
        path = self.folder / f"edges{n_ranks}.json"
        if not path.exists():
            self.tidemark("bench", "--edges", "--ranks", n_ranks, "--seconds", 10, "--max-size", "8MiB", "--output", path)
        return path

    @staticmethod
    def scale(path, by):
        costs = json.loads(path.read_text())
        for part in [*costs["layers"].values(), costs["embed"], costs["head"]]:
            part.update({key: [[n, by * ns] for n, ns in cost] if key == "points" else by * cost
                         for key, cost in part.items()})
        path.write_text(json.dumps(costs))

    def predict(self, costs, whole, model, pipeline, tensor, load, load_share):
        """Output tokens/s and TTFT in ms, with the costs of the slowest stage."""
        n_in, n_out, users = load
        n_workers, splits = pipeline * tensor, []
        for path in costs:
            if n_workers + load_share > len(self.cores):
                self.scale(path, 1 + load_share)
            said = json.loads(self.tidemark(
                "model", "inspect", model, "--edges", self.edges(1 + n_workers), "--costs",
                path if tensor == 1 else f"{whole},{path}", "--pipeline", pipeline, "--tensor", tensor, "--input-tokens",
                n_in, "--output-tokens", n_out, "--requests", users, "--format", "json"))
            splits += said["edges"]["splits"]
        slowest = min(splits, key=lambda split: split["output_tokens_per_s"])
        return slowest["output_tokens_per_s"] / slowest["replicas"], slowest["ttft_ns"] / 1e6, slowest["layers"]

    def step(self, model, pipeline, tensor, layers, n_in, n_out, users, max_running):
        config, path = self.folder / "run.yaml", self.folder / "run.h5"
        target = {"kind": "stages", "model": model, "backend": "cpu", "pipeline": pipeline, "tensor": tensor,
                  "threads": 1, "max_running": max_running, "idle_class": False}
        config.write_text(json.dumps({
            "target": target | {"layer_split": layers},
            "load": {"ranks": 1, "dataset": "sharegpt", "input_tokens": n_in, "output_tokens": n_out,
                     "arrival": "closed", "users": users, "step": f"{self.seconds}s", "drain": "1s"},
            "results": str(path)}))
        self.tidemark("run", config, "--quiet", "--force")
        return json.loads(self.tidemark("report", path, "--format", "json"))["steps"][0]

    def measure(self, model, pipeline, tensor, load, layers):
        """Output tokens/s, TTFT in ms, the load rank's share of a core."""
        def spread(mean):
            return {"kind": "uniform", "min": mean // 2, "max": mean * 3 // 2}

        n_in, n_out, users = load
        full = self.step(model, pipeline, tensor, layers, spread(n_in), spread(n_out), users, users)
        alone = self.step(model, pipeline, tensor, layers, n_in, 4, 1, users)
        got = full["tokens_per_s"]["output"]["value"], alone["ttft_service_ms"]["p50"], full["load_cpu_share"]
        if None in got:
            sys.exit(f"{model} as {pipeline} x {tensor}: steps of {self.seconds:g} s are too short, nothing was measured")
        return got

    def compare(self, model, pipeline, tensor, load):
        """Means: tokens/s predicted and measured, TTFT predicted and measured."""
        whole, = self.costs(model, 1, 1)
        whole = whole.rename(self.folder / "whole.json")
        rows = []
        for _ in range(TURNS):
            costs = self.costs(model, pipeline, tensor)
            _, _, layers = self.predict(costs, whole, model, pipeline, tensor, load, 0)
            got, got_ttft, load_share = self.measure(model, pipeline, tensor, load, layers)
            want, want_ttft, same = self.predict(costs, whole, model, pipeline, tensor, load, load_share)
            assert same == layers, "costs that are all scaled alike gave another split of the layers"
            rows.append((want, got, want_ttft, got_ttft))
        return [statistics.mean(column) for column in zip(*rows)]


def main():
    binary = sys.argv[1] if len(sys.argv) > 1 else str(ROOT / "build" / "tidemark")
    seconds = float(sys.argv[2]) if len(sys.argv) > 2 else 3
    models = sys.argv[3:] or ["preset:small"]
    errors = []
    with tempfile.TemporaryDirectory() as folder:
        m = Machine(binary, seconds, folder)
        print(f"{len(m.cores)} cores, load average {os.getloadavg()[0]:.1f} before; steps of {seconds:g} s; {TURNS} turns; "
              f"one thread a rank\n")
        print(f"{'model':<14} {'P x T':>6} {'in/out/at once':>15} {'predicted':>10} {'measured':>10} {'error':>7} "
              f"{'TTFT ms':>8} {'measured':>9}", flush=True)
        for model in models:
            for load in LOADS:
                for pipeline, tensor in [s for s in SPLITS if s[0] * s[1] <= len(m.cores)]:
                    want, got, want_ttft, got_ttft = m.compare(model, pipeline, tensor, load)
                    errors.append(abs(want / got - 1))
                    print(f"{model:<14} {pipeline:>2} x {tensor:<2} {'/'.join(map(str, load)):>14} {want:>10.0f} "
                          f"{got:>10.0f} {want / got - 1:>+7.1%} {want_ttft:>8.2f} {got_ttft:>9.2f}", flush=True)
    median = statistics.median(errors)
    print(f"\n{'PASS' if median <= LIMIT else 'FAIL'}  median error of {len(errors)}: {median:.1%}, "
          f"at most {LIMIT:.0%}; largest {max(errors):.1%}")
    sys.exit(median > LIMIT)


main()
