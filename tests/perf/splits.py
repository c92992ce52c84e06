#!/usr/bin/env python3
"""What `model inspect --edges` predicts for splits P x T against runs of them on this machine's cores: output
tokens/s at saturation, and TTFT of one request alone.

usage: splits.py [TIDEMARK [SECONDS [MODEL ...]]]      default: build/tidemark, steps of 12 s, tiny and small

Costs are measured with one thread (of a rank alone, and of one of T), edges with as many ranks as the run has (the
load rank is one of them), and every rank computes with one thread. Since a machine's speed wanders, costs are measured
before and after each run, which is held against the mean of what both predict; each split is tried three times, and the
one in the middle counts. A closed loop keeps as many requests under way as may run, of lengths from half to one and a
half times the mean. Splits whose ranks are more than the cores share them, which no prediction knows of: they are
shown, with their costs scaled by that share, and do not count. Exit 1 when the median error of the others is above 10 %.
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
TRIES = 3
SPLITS = [(1, 1), (2, 1), (1, 2), (2, 2)]  # P x T
LOADS = [(128, 64, 16), (32, 128, 32)]  # prompt tokens, output tokens, requests at once
WHEN_STARTED_ALONE = {"OMPI_ALLOW_RUN_AS_ROOT": "1", "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1"}


class Machine:
    def __init__(self, binary, seconds, folder):
        self.binary, self.seconds, self.folder = binary, seconds, pathlib.Path(folder)
        self.cores = len(os.sched_getaffinity(0))

    def tidemark(self, *args, one_core=False):
        command = [*(["taskset", "-c", str(min(os.sched_getaffinity(0)))] if one_core else []), self.binary,
                   *map(str, args)]
        done = subprocess.run(command, stdout=subprocess.PIPE, env=dict(os.environ, **WHEN_STARTED_ALONE))
        if done.returncode:
            sys.exit(f"{' '.join(command)}: exit code {done.returncode}")
        return done.stdout

    def costs(self, model, tensor, n_workers):
        """Of a rank alone, or of one of those that share the layers, as they are now; each has a share of a core."""
        path = self.folder / f"{tensor}.json"
        self.tidemark("model", "inspect", model, "--measure", "--tensor", tensor, "--save-costs", path, one_core=True)
        costs, by = json.loads(path.read_text()), max(n_workers / self.cores, 1)
        for part in [*costs["layers"].values(), costs["embed"], costs["head"]]:
            part.update({key: [[n, by * ns] for n, ns in cost] if key == "points" else by * cost
                         for key, cost in part.items()})
        path.write_text(json.dumps(costs))
        return str(path)

    def edges(self, n_ranks):
        path = self.folder / f"edges{n_ranks}.json"
        if not path.exists():
            self.tidemark("bench", "--edges", "--ranks", n_ranks, "--seconds", 10, "--max-size", "8MiB", "--output", path)
        return path

    def predict(self, model, pipeline, tensor, load):
        n_in, n_out, users = load
        n_workers = pipeline * tensor
        costs = ",".join(self.costs(model, t, n_workers) for t in sorted({1, tensor}))
        said = json.loads(self.tidemark(
            "model", "inspect", model, "--edges", self.edges(1 + n_workers), "--costs", costs, "--pipeline", pipeline,
            "--tensor", tensor, "--input-tokens", n_in, "--output-tokens", n_out, "--requests", users, "--format", "json"))
        split, = said["edges"]["splits"]
        return split["output_tokens_per_s"] / split["replicas"], split["ttft_ns"] / 1e6, split["layers"]

    def step(self, model, pipeline, tensor, layers, n_in, n_out, users, max_running):
        config, path = self.folder / "run.yaml", self.folder / "run.h5"
        config.write_text(json.dumps({
            "target": {"kind": "stages", "model": model, "backend": "cpu", "pipeline": pipeline, "tensor": tensor,
                       "threads": 1, "max_running": max_running, "layer_split": layers, "idle_class": False},
            "load": {"ranks": 1, "dataset": "sharegpt", "input_tokens": n_in, "output_tokens": n_out,
                     "arrival": "closed", "users": users, "step": f"{self.seconds}s", "drain": "1s"},
            "results": str(path)}))
        self.tidemark("run", config, "--quiet", "--force")
        return json.loads(self.tidemark("report", path, "--format", "json"))["steps"][0]

    def measure(self, model, pipeline, tensor, load, layers):
        def spread(mean):
            return {"kind": "uniform", "min": mean // 2, "max": mean * 3 // 2}

        n_in, n_out, users = load
        full = self.step(model, pipeline, tensor, layers, spread(n_in), spread(n_out), users, users)
        alone = self.step(model, pipeline, tensor, layers, n_in, 4, 1, users)
        return full["tokens_per_s"]["output"]["value"], alone["ttft_service_ms"]["p50"] or float("nan")

    def try_once(self, model, pipeline, tensor, load):
        """Output tokens/s predicted and measured, TTFT in ms predicted and measured."""
        before, before_ttft, layers = self.predict(model, pipeline, tensor, load)
        got, got_ttft = self.measure(model, pipeline, tensor, load, layers)
        after, after_ttft, _ = self.predict(model, pipeline, tensor, load)
        return (before + after) / 2, got, (before_ttft + after_ttft) / 2, got_ttft


def main():
    binary = sys.argv[1] if len(sys.argv) > 1 else str(ROOT / "build" / "tidemark")
    seconds = float(sys.argv[2]) if len(sys.argv) > 2 else 12
    models = sys.argv[3:] or ["preset:tiny", "preset:small"]
    errors = []
    with tempfile.TemporaryDirectory() as folder:
        m = Machine(binary, seconds, folder)
        print(f"{m.cores} cores, load average {os.getloadavg()[0]:.1f} before; steps of {seconds:g} s; one thread a rank\n")
        print(f"{'model':<14} {'P x T':>6} {'in/out/at once':>15} {'predicted':>10} {'measured':>10} {'error':>7} "
              f"{'TTFT ms':>8} {'measured':>9}  counts", flush=True)
        for model in models:
            for load in LOADS:
                for pipeline, tensor in SPLITS:
                    tries = [m.try_once(model, pipeline, tensor, load) for _ in range(TRIES)]
                    want, got, want_ttft, got_ttft = sorted(tries, key=lambda t: t[0] / t[1])[TRIES // 2]
                    error, counts = want / got - 1, pipeline * tensor <= m.cores
                    errors += [abs(error)] if counts else []
                    print(f"{model:<14} {pipeline:>2} x {tensor:<2} {'/'.join(map(str, load)):>14} {want:>10.0f} "
                          f"{got:>10.0f} {error:>+7.1%} {want_ttft:>8.2f} {got_ttft:>9.2f}  {'yes' if counts else 'no'}",
                          flush=True)
    median = statistics.median(errors)
    print(f"\n{'PASS' if median <= LIMIT else 'FAIL'}  median error of {len(errors)} that count: {median:.1%}, "
          f"at most {LIMIT:.0%}; largest {max(errors):.1%}")
    sys.exit(median > LIMIT)


main()
