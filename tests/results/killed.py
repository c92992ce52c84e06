#!/usr/bin/python3
"""killed.py KILL_WRITER DIR KILLS: kills a writer KILLS times at random moments (kill_writer checks
each file with tidemark's own reader), then opens every file with stock h5py: all of it is readable."""

import glob
import os
import subprocess
import sys

try:
    import h5py
except ImportError as missing:
    print(f"skipped: {missing}")
    sys.exit(77)


def read_all(name, item):
    if isinstance(item, h5py.Dataset):
        item[()]
    dict(item.attrs)


def main():
    writer, folder, kills = sys.argv[1:]
    subprocess.run([writer, folder, kills], check=True)
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
