#!/usr/bin/python3
"""open_everywhere.py MAKE_RUN DIR: a result file opens with stock h5py, pandas and h5dump, and the
three read the same values, which also agree with each other (counts, sums, order, units)."""

import json
import os
import subprocess
import sys

try:
    import h5py
    import numpy as np
    import pandas as pd
except ImportError as missing:
    print(f"skipped: {missing}")
    sys.exit(77)


def h5dump_values(path, name):
    """The dataset as h5dump prints it, one value per line."""
    out = path + ".txt"
    subprocess.run(["h5dump", "-d", name, "-y", "-w", "1", "-o", out, path], check=True,
                   stdout=subprocess.DEVNULL)
    with open(out, encoding="ascii") as text:
        values = [int(value) for value in text.read().replace(",", " ").split()]
    os.unlink(out)
    return values


def check_step(path, name, step):
    columns = step["requests"]
    frame = pd.DataFrame({key: column[:] for key, column in columns.items()})
    n = len(frame)
    assert n > 0 and frame["id"].is_monotonic_increasing and frame["id"].is_unique
    assert n == step.attrs["n_scheduled"], "every scheduled request is there"
    ok = frame[frame["outcome"] == 0]
    assert (ok["t_send_ns"] >= ok["t_sched_ns"]).all()
    assert (ok["t_first_ns"] <= ok["t_last_ns"]).all()
    assert (ok["n_out"] == ok["n_out_req"]).all()

    offsets, dt_us = step["tokens/offsets"][:], step["tokens/dt_us"][:]
    assert len(offsets) == n + 1 and offsets[-1] == len(dt_us) == frame["n_out"].sum()
    assert (np.diff(offsets) == frame["n_out"]).all()
    for k in ok.index[:50]:  # the token times end where t_last says
        last = frame["t_send_ns"][k] + 1000 * int(dt_us[offsets[k]:offsets[k + 1]].sum())
        assert abs(last - frame["t_last_ns"][k]) <= 1000 * (frame["n_out"][k] + 1)

    assert step["path/first/stage_00_us"].shape == (n,)
    series = step["series/t_ns"][:]
    assert (np.diff(series) >= 0).all()
    assert h5dump_values(path, f"/steps/{name}/requests/n_out") == list(frame["n_out"])
    assert h5dump_values(path, f"/steps/{name}/requests/t_send_ns") == list(frame["t_send_ns"])


def check_rules(name, item):
    """What DESIGN asks of every dataset."""
    if not isinstance(item, h5py.Dataset) or item.shape == ():
        return
    assert "units" in item.attrs and "long_name" in item.attrs, name
    assert item.ndim == 1, name
    if item.shape[0] > 0:
        assert item.shuffle and item.compression == "gzip" and item.compression_opts == 1, name
        assert item.fletcher32, name
        assert item.chunks[0] <= 65536, name
    if "/requests/" in name and not name.endswith("/id"):
        assert len(item.dims[0]) == 1, f"{name} has its dimension scale"
    if "flag_values" in item.attrs:
        meanings = item.attrs["flag_meanings"].decode().split()
        assert len(meanings) == len(item.attrs["flag_values"])
        assert item.shape[0] == 0 or item[:].max() < len(meanings), name


def main():
    make_run, folder = sys.argv[1:]
    path = os.path.join(folder, "open_everywhere.h5")
    command = [make_run, path, "--rates", "2,12", "--step", "40"]
    contents = []
    for _ in range(2):
        truth = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
        with open(path, "rb") as file:
            contents.append(file.read())
    assert contents[0] == contents[1], "equal content is equal bytes"
    with h5py.File(path, "r") as file:
        assert file.attrs["schema_name"] == b"tidemark.run" and file.attrs["complete"] == 1
        assert list(file["steps"]) == ["0000", "0001"]
        json.loads(file["meta/config"][()])
        file.visititems(check_rules)
        for name, step in file["steps"].items():
            assert step.attrs["complete"] == 1
            check_step(path, name, step)
        index = pd.DataFrame({key: column[:] for key, column in file["meta/steps"].items()})
        assert list(index["rate_rps"]) == [2, 12] and list(index["index"]) == [0, 1]
        served = file["steps/0001"].attrs["served_output_tokens_per_s"]
        assert abs(served / truth["saturation_output_tokens_per_s"] - 1) < 0.1, served
    subprocess.run(["h5dump", "-H", path], check=True, stdout=subprocess.DEVNULL)
    os.unlink(path)
    print("h5py, pandas and h5dump agree")


main()
