#!/usr/bin/python3
"""killed.py KILL_WRITER DIR KILLS: kills a writer KILLS times at random moments (kill_writer checks
each file with tidemark's own reader), then opens every file with stock h5py: all of it is readable.
Each of the two has DEADLINE_S; what it does when that is over is said."""

import faulthandler
import glob
import os
import subprocess
import sys
import time

try:
    import h5py
except ImportError as missing:
    print(f"skipped: {missing}")
    sys.exit(77)

DEADLINE_S = 130


def say_what_they_do(pid):
    """Of a process and its children: state, where the kernel has them, how much they computed."""
    for line in subprocess.run(["ps", "-o", "pid,ppid,stat,wchan:24,time,args", "--pid", str(pid), "--ppid", str(pid)],
                               capture_output=True, text=True).stdout.splitlines():
        print(f"killed.py: {line}", file=sys.stderr)


def kill_writers(writer, folder, kills):
    process = subprocess.Popen([writer, folder, kills])
    try:
        assert process.wait(DEADLINE_S) == 0
    except subprocess.TimeoutExpired:
        say_what_they_do(process.pid)
        process.kill()
        raise


def read_all(name, item):
    if isinstance(item, h5py.Dataset):
        item[()]
    dict(item.attrs)


def main():
    writer, folder, kills = sys.argv[1:]
    began = time.monotonic()
    kill_writers(writer, folder, kills)
    print(f"killed after {time.monotonic() - began:.1f} s", flush=True)
    faulthandler.dump_traceback_later(DEADLINE_S, exit=True)
    n_steps = 0
    paths = sorted(glob.glob(os.path.join(folder, "killed_*.h5")))
    for path in paths:
        with h5py.File(path, "r") as file:
            file.visititems(read_all)
            assert all(step.attrs["complete"] == 1 for step in file["steps"].values())
            n_steps += len(file["steps"])
    assert len(paths) == int(kills) and n_steps > 0
    for path in paths:
        for journal in glob.glob(path + ".journal/*"):
            os.unlink(journal)
        if os.path.isdir(path + ".journal"):
            os.rmdir(path + ".journal")
        os.unlink(path)
    os.rmdir(folder)
    print(f"{len(paths)} files of killed writers, {n_steps} steps, all readable")


main()
