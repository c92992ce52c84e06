#!/usr/bin/env python3
"""Half an hour of steady traffic on a GPU: nothing fails, no memory grows, and what is computed beside it stays right.

usage: gpu_soak.py [--tidemark FILE] [--beside PROGRAM] [--seconds S] [--out FOLDER]

A closed loop of --users over --passes passes of one step each, on a preset of random weights. Exit 1 where

    the run fails, is not valid, or a request does;
    a rank's resident memory in the last pass is more than 2 % and 8 MB above that of the second one, the first that no
        allocation of the first batches is in;
    the GPU's memory in the last pass is above that of the second one by as much;
    PROGRAM, which is run again and again beside it, fails once (test_cuda_families: results against transformers', of
        which one that is not a number would not be near).

What each pass took is shown, without a limit. --out keeps report and samples as JSON. No GPU has run this yet.
"""

import argparse
import json
import os
import pathlib
import subprocess
import sys
import tempfile
import threading
import time

ROOT = pathlib.Path(__file__).resolve().parents[2]
SAMPLE_S = 1
GROWTH, GROWTH_BYTES = 1.02, 8 << 20


def descendants(pid):
    children = {}
    for entry in pathlib.Path("/proc").glob("[0-9]*"):
        try:
            parent = int((entry / "stat").read_text().rpartition(")")[2].split()[1])
        except OSError:
            continue  # it has ended
        children.setdefault(parent, []).append(int(entry.name))
    found, todo = [], [pid]
    while todo:
        mine = children.get(todo.pop(), [])
        found += mine
        todo += mine
    return found


def rank_of(pid):
    """A process's MPI rank, None without one."""
    for word in pathlib.Path(f"/proc/{pid}/environ").read_bytes().split(b"\0"):
        if word.startswith(b"OMPI_COMM_WORLD_RANK="):
            return int(word.partition(b"=")[2])
    return None


def resident(pid):
    return int(pathlib.Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def sample(pid):
    """(monotonic s, {rank: bytes}) of all ranks below a process."""
    ranks = {}
    for child in descendants(pid):
        try:
            rank = rank_of(child)
            if rank is not None:
                ranks[rank] = max(ranks.get(rank, 0), resident(child))
        except OSError:
            pass  # it has ended
    return time.monotonic(), ranks


class Beside(threading.Thread):
    """A program that is run again and again until it is told to stop."""

    def __init__(self, program):
        super().__init__()
        self.program, self.over, self.n_runs, self.failed = program, threading.Event(), 0, ""

    def run(self):
        while not self.over.is_set() and not self.failed:
            done = subprocess.run([str(self.program)], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
                                  check=False)
            if done.returncode != 0:
                self.failed = f"exit status {done.returncode}: {done.stdout[-500:]}"
            self.n_runs += 1


def traffic(args, path):
    command = [args.tidemark, "run", ROOT / "configs" / "quickstart.yaml", f"target.model=preset:{args.model}",
               f"target.backend={args.backend}", "target.pipeline=1", f"target.memory_fraction={args.memory_fraction}",
               f"target.max_running={args.users}", "load.arrival=closed", f"load.users={args.users}", "load.rates=",
               f"load.repeats={args.passes}", f"load.step={args.seconds / args.passes:.0f}s", "load.drain=30s", "slo=",
               "cost=", f"results={path}", "--quiet", "--force"]
    print("+", " ".join(map(str, command)), file=sys.stderr, flush=True)
    began, samples = time.monotonic(), []
    with subprocess.Popen([str(x) for x in command]) as process:
        try:
            while process.poll() is None:
                samples.append(sample(process.pid))
                if time.monotonic() - began > args.seconds + 60 * args.passes + 600:
                    raise SystemExit("gpu_soak.py: the run does not end")
                time.sleep(SAMPLE_S)
        finally:
            process.terminate()
    if process.returncode != 0:
        raise SystemExit(f"gpu_soak.py: the run ended with {process.returncode}")
    return samples


def in_share(samples, begin, end):
    """The most that each rank had between two shares of the whole time."""
    first, last = samples[0][0], samples[-1][0]
    most = {}
    for t_s, ranks in samples:
        if begin <= (t_s - first) / (last - first) <= end:
            for rank, n_bytes in ranks.items():
                most[rank] = max(most.get(rank, 0), n_bytes)
    return most


class Judge:
    def __init__(self):
        self.missed = 0

    def check(self, what, ok, note):
        self.missed += not ok
        print(f"{'ok  ' if ok else 'FAIL'}  {what:<40} {note}", flush=True)

    def grown(self, what, before, after):
        self.check(what, after <= max(before * GROWTH, before + GROWTH_BYTES),
                   f"{before / 1e6:.1f} -> {after / 1e6:.1f} MB")


def judge(args, judged, samples, report):
    steps = report["steps"]
    judged.check("valid", report["run"]["valid"], "")
    for step in steps:
        failed = step["requests"]["failed"]
        judged.check(f"pass {step['repeat'] + 1}: no request failed", failed == 0,
                     f"{step['requests']['ok']} ok, {failed} failed, "
                     f"{step['tokens_per_s']['output']['value']:.0f} tokens/s, ITL p50 {step['itl_ms']['p50']:.3g} ms")
    before, after = in_share(samples, 1 / args.passes, 2 / args.passes), in_share(samples, 1 - 1 / args.passes, 1)
    judged.check("ranks were seen in both passes", before.keys() == after.keys() and len(before) >= 2,
                 f"{sorted(before)} and {sorted(after)}")
    for rank in sorted(before.keys() & after.keys()):
        judged.grown(f"rank {rank}, resident", before[rank], after[rank])
    if args.backend == "cuda":
        before, after = ((step["gpus"] or {}).get("memory_used_bytes") for step in (steps[1], steps[-1]))
        if before and after:
            judged.grown("GPU, in use", before, after)
        else:
            judged.check("GPU, in use", False, "not told: target.telemetry found nothing")


def arguments():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tidemark", default=ROOT / "build" / "tidemark", type=pathlib.Path)
    parser.add_argument("--beside", type=pathlib.Path)
    parser.add_argument("--seconds", type=float, default=1800)
    parser.add_argument("--passes", type=int, default=6)
    parser.add_argument("--users", type=int, default=64)
    parser.add_argument("--model", default="llama-1b")
    parser.add_argument("--memory-fraction", default="60%")
    parser.add_argument("--backend", default="cuda")
    parser.add_argument("--out", type=pathlib.Path, help="folder for the report and the samples")
    args = parser.parse_args()
    if args.passes < 3:
        parser.error("--passes: 3 at least, to compare the second with the last")
    return args


def main():
    args, judged = arguments(), Judge()
    beside = Beside(args.beside) if args.beside else None
    with tempfile.TemporaryDirectory() as folder:
        path = pathlib.Path(folder) / "soak.h5"
        if beside:
            beside.start()
        try:
            samples = traffic(args, path)
        finally:
            if beside:
                beside.over.set()
                beside.join()
        text = subprocess.run([str(args.tidemark), "report", str(path), "--format", "json"], stdout=subprocess.PIPE,
                              text=True, check=True).stdout
    if args.out:
        args.out.mkdir(parents=True, exist_ok=True)
        (args.out / "soak.json").write_text(text)
        (args.out / "soak-memory.json").write_text(json.dumps(samples))
    judge(args, judged, samples, json.loads(text))
    if beside:
        judged.check(f"{args.beside.name}, {beside.n_runs} times beside it", not beside.failed, beside.failed)
    sys.exit(1 if judged.missed else 0)


if __name__ == "__main__":
    main()
