#!/usr/bin/env python3
"""Run a command and print its seconds, CPU seconds and largest memory.

usage: timed.py NAME COMMAND [ARG ...]
"""

import resource
import subprocess
import sys
import time


def main():
    begin = time.monotonic()
    status = subprocess.run(sys.argv[2:], check=False).returncode
    seconds = time.monotonic() - begin
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    print(f"{sys.argv[1]}: {seconds:.2f} s, {used.ru_utime + used.ru_stime:.2f} CPU seconds, "
          f"{used.ru_maxrss / 1000:.0f} MB at most")
    sys.exit(status)


main()
