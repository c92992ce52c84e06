#!/usr/bin/python3
"""How true tidemark's times are, against a server that logs when it really sent each token.

    tests/perf/accuracy.py [BINARY] [--seconds S]      default: build/tidemark, 12 s a case

`tidemark serve` runs on one core with a law for times and serve.log, `tidemark run` on another. Of every
request of the window, what tidemark recorded is held against the log, event by event, on one clock:
TTFT = t_first - t_send against (first token's send stamp - t_send), and the gaps between tokens against
the gaps between send stamps. Printed for each: the error of the mean and of the p99, which must be within
0.5 % and 1 %, and the p50 and p99 of the single errors. Token counts must be exact. Exit 1 when not.
"""
import argparse
import csv
import os
import pathlib
import re
import signal
import subprocess
import sys
import tempfile

import h5py
import numpy as np

ROOT = pathlib.Path(__file__).resolve().parents[2]
CASES = [  # concurrency, TTFT in ms, gap in ms, tokens
    (1, 80, 8, 64),
    (100, 80, 8, 64),
    (5000, 500, 100, 64),
]
MEAN_LIMIT, P99_LIMIT = 0.005, 0.01


def pinned(core):
    cores = sorted(os.sched_getaffinity(0))
    return {cores[core % len(cores)]}


def start_server(binary, work, ttft_ms, gap_ms):
    server = subprocess.Popen(
        [binary, "serve", "target.kind=null", "serve.port=0", "serve.model=m", f"serve.ttft={ttft_ms}ms",
         f"serve.itl={gap_ms}ms", f"serve.log={work}/sent.csv", "serve.spin=200us"],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        preexec_fn=lambda: os.sched_setaffinity(0, pinned(1)))
    url = re.match(r"listening on (\S+)", server.stdout.readline()).group(1)
    return server, url


def offer(binary, work, url, case, seconds):
    users, ttft_ms, gap_ms, tokens = case
    e2e_s = (ttft_ms + gap_ms * (tokens - 1)) / 1000
    load = ["load.arrival=closed", "load.users=1"] if users == 1 else [f"load.rates={users / e2e_s:.4g}"]
    subprocess.run(
        [binary, "run", "target.kind=openai", f"target.url={url}", "target.model=m", *load,
         f"load.step={seconds + 2 * e2e_s}s", f"load.drain={2 * e2e_s + 1}s", "load.input_tokens=32",
         f"load.warmup={min(0.6, 1.5 * e2e_s / (seconds + 2 * e2e_s))}", f"load.output_tokens={tokens}",
         "-o", f"{work}/run.h5", "--force", "--quiet"],
        check=True, preexec_fn=lambda: os.sched_setaffinity(0, pinned(0)))


def read_log(path):
    """Send stamps of each request's tokens, in order; a stamp is the middle of the send call."""
    sent = {}
    with open(path, newline="") as f:
        for row in csv.DictReader(f):
            if int(row["token"]) >= 0 and int(row["tokens"]) > 0:
                stamp = (int(row["before_ns"]) + int(row["after_ns"])) // 2
                sent.setdefault(row["request"], []).append(stamp)
    return {k: np.array(v) for k, v in sent.items()}


def read_run(path):
    """Of each finished request whose due time is in the window: id, t_send, token times (ns, absolute)."""
    with h5py.File(path) as f:
        t0, step = int(f.attrs["t0_ns"]), f["steps/0000"]
        r, tokens = step["requests"], step["tokens"]
        offsets, dt = tokens["offsets"][...], tokens["dt_us"][...]
        inside = (r["t_sched_ns"][...] >= step.attrs["t_warm_ns"]) & (r["t_sched_ns"][...] < step.attrs["t_end_ns"])
        if (r["outcome"][...] != 0).any():
            raise SystemExit(f"accuracy.py: {(r['outcome'][...] != 0).sum()} requests failed")
        for i in np.flatnonzero(inside):
            send = int(r["t_send_ns"][i]) + t0
            at = np.cumsum(dt[offsets[i]:offsets[i + 1]].astype(np.int64)) * 1000
            at += (int(r["t_first_ns"][i]) + t0 - send) - int(at[0])  # the file's first time has ns
            yield f"0-{r['id'][i]}", send, send + at


def judge(name, ours, true):
    """One line; whether it is within the limits."""
    mean = ours.mean() / true.mean() - 1
    p99 = np.percentile(ours, 99) / np.percentile(true, 99) - 1
    single = np.abs(ours - true) / true.mean()
    ok = abs(mean) <= MEAN_LIMIT and abs(p99) <= P99_LIMIT
    print(f"{'PASS' if ok else 'FAIL'}  {name:<28} n {len(ours):>8}  mean {100 * mean:+.3f} %  p99 {100 * p99:+.3f} %  "
          f"single errors p50 {100 * np.percentile(single, 50):.3f} %  p99 {100 * np.percentile(single, 99):.3f} %")
    return ok


def measure(binary, case, seconds):
    users, ttft_ms, gap_ms, tokens = case
    with tempfile.TemporaryDirectory(prefix="tidemark-accuracy.") as work:
        server, url = start_server(binary, work, ttft_ms, gap_ms)
        try:
            offer(binary, work, url, case, seconds)
        finally:
            server.send_signal(signal.SIGTERM)
            said = server.communicate(timeout=60)[1]
        sent = read_log(f"{work}/sent.csv")
        ttft, ttft_true, gaps, gaps_true, wrong = [], [], [], [], 0
        for request, send, at in read_run(f"{work}/run.h5"):
            true = sent[request]
            wrong += len(at) != len(true) or len(at) != tokens
            ttft.append(at[0] - send)
            ttft_true.append(true[0] - send)
            gaps.append(np.diff(at))
            gaps_true.append(np.diff(true))
    ok = judge(f"{users} in flight, TTFT {ttft_ms} ms", np.array(ttft), np.array(ttft_true))
    ok &= judge(f"{users} in flight, gaps {gap_ms} ms", np.concatenate(gaps), np.concatenate(gaps_true))
    print(f"{'PASS' if wrong == 0 else 'FAIL'}  {users} in flight, token counts     wrong {wrong}")
    behind = re.search(r"packets behind their law: .*", said)
    print(f"      the server itself: {behind.group(0) if behind else 'said nothing'}")
    return ok and wrong == 0


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("binary", nargs="?", default=os.environ.get("TIDEMARK", ROOT / "build/tidemark"))
    p.add_argument("--seconds", type=float, default=12)
    a = p.parse_args()
    return 0 if all([measure(str(a.binary), case, a.seconds) for case in CASES]) else 1


if __name__ == "__main__":
    sys.exit(main())
