#!/usr/bin/env python3
"""Run a command and hold its seconds and its largest memory against limits; exit 1 when one is missed.

usage: timed.py NAME CORES MOST_SECONDS MOST_MB COMMAND [ARG ...]

It runs on no more than so many cores.
"""

import os
import resource
import subprocess
import sys
import time


def check(what, value, most, unit):
    ok = value <= most
    print(f"{'PASS' if ok else 'FAIL'}  {what:<34} {value:>10,.1f} {unit:<3} at most {most:,.1f}", flush=True)
    return ok


def main():
    name, cores, most_s, most_mb = sys.argv[1], *map(float, sys.argv[2:5])
    own = sorted(os.sched_getaffinity(0))[:int(cores)]
    begin = time.monotonic()
    status = subprocess.run(sys.argv[5:], check=False, preexec_fn=lambda: os.sched_setaffinity(0, own)).returncode
    seconds = time.monotonic() - begin
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    print(f"      {name}: on {len(own)} cores, {used.ru_utime + used.ru_stime:.2f} CPU seconds")
    good = [check(f"{name}: time", seconds, most_s, "s"),
            check(f"{name}: memory", used.ru_maxrss * 1024 / 1e6, most_mb, "MB")]
    sys.exit(status or not all(good))


main()
