#!/usr/bin/python3
"""How fast one load rank on one core reads an endpoint, beside a bare epoll and recv reader.

    tests/perf/endpoint_speed.py [BUILD]      default: build; needs its target sse_reader; two minutes

`tidemark serve` runs on one core; `tidemark run` (one rank, no mpirun) and then sse_reader, which does
nothing but count events, on the other. CPU seconds are those of the client's process, its start included.
Two ways of one event per packet: as fast as the server sends, where the kernel merges packets that wait, and
paced, where nearly every recv brings one event. Exit 1 when a figure misses its limit.
"""
import os
import pathlib
import re
import resource
import signal
import statistics
import subprocess
import sys
import tempfile
import time

import h5py
import numpy as np

ROOT = pathlib.Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tests/cli"))
import nginx  # noqa: E402 (tests/cli/nginx.py)

BUILD = pathlib.Path(sys.argv[1] if len(sys.argv) > 1 else ROOT / "build")
TURNS = 7  # of tidemark and the bare reader
failed = []


def spread(values, text="{:,.0f}"):
    """Median, smallest and largest."""
    return f"{text.format(statistics.median(values))} [{text.format(min(values))}, {text.format(max(values))}]"


def pinned(core):
    cores = sorted(os.sched_getaffinity(0))
    return lambda: os.sched_setaffinity(0, {cores[core % len(cores)]})


class Server:
    def __init__(self, *settings):
        self.process = subprocess.Popen([BUILD / "tidemark", "serve", "target.kind=null", "serve.port=0", *settings],
                                        stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True,
                                        preexec_fn=pinned(1))
        self.url = re.match(r"listening on (\S+)", self.process.stdout.readline()).group(1)
        self.port = re.search(r":(\d+)/", self.url).group(1)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.process.send_signal(signal.SIGTERM)
        self.process.wait(timeout=60)


def resident_kb(pid):
    try:
        return int(re.search(r"VmRSS:\s+(\d+)", pathlib.Path(f"/proc/{pid}/status").read_text()).group(1))
    except (OSError, AttributeError):
        return 0


def tidemark(server, *settings, watch_s=0):
    """One step: what the file says of it, CPU seconds, most resident kB of the client's process in watch_s."""
    with tempfile.TemporaryDirectory(prefix="tidemark-speed.") as work:
        path = f"{work}/run.h5"
        client = subprocess.Popen(
            [BUILD / "tidemark", "run", "target.kind=openai", f"target.url={server.url}", "target.model=any",
             "target.check=false", "target.metrics=none", "load.input_tokens=8", "load.warmup=20%", "-o", path,
             "--quiet", *settings], preexec_fn=pinned(0))
        rss_kb, until = 0, time.monotonic() + watch_s
        while time.monotonic() < until:
            rss_kb = max(rss_kb, resident_kb(client.pid))
            time.sleep(0.1)
        _, status, usage = os.wait4(client.pid, 0)
        if status != 0:
            raise SystemExit(f"endpoint_speed.py: tidemark ended with {status}")
        with h5py.File(path) as f:
            step = f["steps/0000"]
            r = step["requests"]
            outcome, last = r["outcome"][...], r["t_last_ns"][...]
            begin = step.attrs["t_begin_ns"]
            first = {"events": int(r["n_chunks"][...].sum()), "ok": int((outcome == 0).sum()), "n": len(outcome), "outcomes": dict(zip(*map(list, map(np.ndarray.tolist, np.unique(outcome, return_counts=True))))),
                     "not_cancelled": int(((outcome != 0) & (outcome != 7)).sum()),
                     "seconds": (max(last.max(), step.attrs["t_end_ns"]) - begin) / 1e9,
                     "send": r["t_send_ns"][...], "last": last, "end_ns": int(step.attrs["t_end_ns"])}
    return first | {"cpu_s": usage.ru_utime + usage.ru_stime, "rss_kb": rss_kb}


def reader(server, streams, tokens, seconds):
    out = subprocess.run([BUILD / "tests/sse_reader", server.port, str(streams), str(tokens), str(seconds), "1"],
                         check=True, capture_output=True, text=True, timeout=120, preexec_fn=pinned(0)).stdout
    return {k: float(v) for k, v in re.findall(r"(\w+)=([\d.]+)", out)}


def check(what, value, least=None, most=None, text="{:,.0f}"):
    ok = (least is None or value >= least) and (most is None or value <= most)
    limit = f"at least {text.format(least)}" if least is not None else f"at most {text.format(most)}" if most else ""
    print(f"{'PASS' if ok else 'FAIL'}  {what:<58} {text.format(value):>12}  {limit}")
    if not ok:
        failed.append(what)


def events(per_packet, pace, streams, tokens, least):
    """Both clients in turn, so that a change of the machine's speed meets both; medians are judged."""
    name = f"{per_packet} event{'s' * (per_packet > 1)} a packet, {'paced' if pace else 'unpaced'}"
    law = [f"serve.itl={pace}", f"serve.ttft={pace}"] if pace else []
    ours, bare = [], []
    with Server(f"serve.events_per_packet={per_packet}", *law) as server:
        for _ in range(TURNS):
            ours.append(tidemark(server, "load.arrival=closed", f"load.users={streams}", "load.step=4s", "load.drain=0s",
                                 f"load.output_tokens={tokens}"))
            bare.append(reader(server, streams, tokens, 4))
    rate = [t["events"] / t["seconds"] for t in ours]
    per_cpu_s = [t["events"] / t["cpu_s"] for t in ours]
    bare_rate = [b["events_per_s"] for b in bare]
    ratios = [r / b for r, b in zip(rate, bare_rate)]
    print(f"      {name}: {streams} streams of {tokens} tokens; bare reader {spread(bare_rate)} events/s, "
          f"{spread([b['events_per_reader_cpu_s'] for b in bare])} per CPU s, "
          f"{spread([b['events_per_recv'] for b in bare])} a recv")
    print(f"      {name}: {spread(rate)} events/s")
    check(f"{name}: events per CPU second", statistics.median(per_cpu_s), least)
    check(f"{name}: events/s over the bare reader's", statistics.median(ratios), 0.9, text="{:.2f}")
    of_bare = [p / b["events_per_reader_cpu_s"] for p, b in zip(per_cpu_s, bare)]
    if least:
        check(f"{name}: events per CPU second over the bare reader's", statistics.median(of_bare), 0.9, text="{:.2f}")
    print(f"      {name}: over the bare reader's, turn by turn: events/s {spread(ratios, '{:.2f}')}; "
          f"events per CPU second {spread(of_bare, '{:.2f}')}")


def short_requests():
    with Server() as server:
        t = tidemark(server, "load.arrival=closed", "load.users=64", "load.step=5s", "load.drain=1s",
                     "load.output_tokens=1")
    check("short requests per second (one token, streamed)", t["ok"] / t["seconds"], 15000)
    print(f"      {t['ok'] / t['cpu_s']:,.0f} per CPU second, {t['not_cancelled']} failed")


def many_streams(n):
    with Server("serve.ttft=2s", "serve.itl=100ms") as server:
        few = tidemark(server, "load.arrival=closed", "load.users=100", "load.step=8s", "load.drain=20s",
                       "load.output_tokens=64", watch_s=8)
        many = tidemark(server, f"load.rates.list={n / 8.2:.0f}", "load.step=12s", "load.drain=30s", "load.arrival=constant",
                        "load.output_tokens=64", watch_s=12)
    live = sorted([(t, 1) for t in many["send"]] + [(t, -1) for t in many["last"]])
    most, now = 0, 0
    for _, change in live:
        now += change
        most = max(most, now)
    check("streams in flight at once", most, n)
    check("of these, failed", many["n"] - many["ok"], most=0)
    print(f"      by outcome {many['outcomes']}")
    # libcurl is gone from a plain connection once that stands: all of this is tidemark's own
    check("resident bytes per stream in flight", (many["rss_kb"] - few["rss_kb"]) * 1024 / most, most=4 * 1024)


def through_nginx(version, port, streams):
    """TLS, through an nginx on the server's core, so that this is what the three of them do: no limits."""
    with tempfile.TemporaryDirectory(prefix="tidemark-speed.") as work, Server("serve.itl=10ms", "serve.ttft=10ms") as server:
        nginx.make_certificates(pathlib.Path(work))
        command, ports = nginx.configure(work, server.port, nginx.free_ports(len(nginx.PORTS)))
        proxy = subprocess.Popen(command, preexec_fn=pinned(1))
        while not nginx.answers(ports[port]):
            time.sleep(0.05)
        few, many = (tidemark(server, f"target.url=https://127.0.0.1:{ports[port]}/v1", f"target.ca_file={work}/ca.pem",
                              "load.arrival=closed", f"load.users={n}", "load.step=6s", "load.drain=1s",
                              "load.output_tokens=100", watch_s=6) for n in (streams // 10, streams))
        proxy.terminate()
        proxy.wait(timeout=30)
    print(f"      TLS, {version}, {streams} streams: {many['events'] / many['seconds']:,.0f} events/s, "
          f"{many['events'] / many['cpu_s']:,.0f} per CPU second, {many['not_cancelled']} failed; "
          f"{(many['rss_kb'] - few['rss_kb']) * 1024 / (streams - streams // 10):,.0f} resident bytes a stream")


def main():
    print(f"cores {len(os.sched_getaffinity(0))}; limit of open files {resource.getrlimit(resource.RLIMIT_NOFILE)}")
    events(1, None, 64, 1000, 200_000)
    events(8, None, 64, 1000, 1_000_000)
    events(1, "5ms", 800, 200, None)
    short_requests()
    many_streams(15000)
    through_nginx("HTTP/1.1", "tls1", 500)
    through_nginx("HTTP/2", "tls2", 500)
    print("all within their limits" if not failed else f"missed: {', '.join(failed)}")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
