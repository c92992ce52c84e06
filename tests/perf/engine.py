#!/usr/bin/env python3
"""The CPU engine's speed as shares of this machine's ceilings, all measured in one process
(`tidemark bench`); exit 1 when one is missed.

usage: engine.py [TIDEMARK [MODEL [THREADS]]]     default: build/tidemark preset:llama-1b, all cores

The model must be larger than the caches. Shares are of the best of several runs, since other users of
the machine slow single ones. Peaks are those of a vector instruction (vdpbf16ps, else vfmadd231ps); the
share of the tile unit's, where there is one, is shown beside them.
"""

import json
import pathlib
import subprocess
import sys

ROOT = pathlib.Path(__file__).parents[2]
REPEATS = "7"


def check(what, value, limit, at_least=True):
    ok = value >= limit if at_least else value <= limit
    bound = "at least" if at_least else "at most"
    print(f"{'PASS' if ok else 'FAIL'}  {what:<52} {value:6.2f}, {bound} {limit}", flush=True)
    return ok


def bench(binary, model, threads, *args):
    command = [binary, "bench", "--model", model, "--format", "json", "--repeats", REPEATS, *args]
    if threads:
        command += ["--threads", threads]
    return json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout)


def main():
    binary = sys.argv[1] if len(sys.argv) > 1 else str(ROOT / "build" / "tidemark")
    model = sys.argv[2] if len(sys.argv) > 2 else "preset:llama-1b"
    threads = sys.argv[3] if len(sys.argv) > 3 else None
    about = bench(binary, model, threads, "--prompt", "512", "--gen", "8", "--batch", "1,16",
                  "--kv", "bf16")
    ceilings = about["ceilings"]
    vector, tiles = ceilings.get("bfloat16") or ceilings["float32"], ceilings.get("bfloat16_tiles")
    read = ceilings["read_bytes_per_s"]
    print(f"{model}, {about['threads']} threads, kernels {about['kernels']}, loaded in "
          f"{about['load_s']:.1f} s; read {read / 1e9:.1f} GB/s, {vector['instruction']} "
          f"{vector['per_s'] / 1e9:.0f} GFLOP/s")
    prompt, one, many = about["results"]
    for r in about["results"]:
        print(f"  {r['test']} {r['tokens']} x {r['batch']}: {r['tokens_per_s']['best']:.1f} tokens/s "
              f"(mean {r['tokens_per_s']['mean']:.1f}, sd {r['tokens_per_s']['sd']:.1f}), "
              f"{r['read_bytes_per_s'] / 1e9:.1f} GB/s, {r['flops_per_s'] / 1e9:.0f} GFLOP/s")
    if tiles:
        print(f"  prompt 512 is {prompt['flops_per_s'] / tiles['per_s']:.2f} of the tile unit's "
              f"{tiles['per_s'] / 1e9:.0f} GFLOP/s ({tiles['instruction']})")
    seconds = many["tokens"] * many["batch"] / many["tokens_per_s"]["best"]
    bound = max(many["bytes"] / read, many["flops"] / vector["per_s"])
    gain = many["tokens_per_s"]["best"] / one["tokens_per_s"]["best"]
    good = [check("decode batch 1, share of read bandwidth", one["read_share"], 0.85),
            check(f"prompt 512, share of {vector['instruction']}",
                  prompt["flops_per_s"] / vector["per_s"], 0.55),
            check("decode batch 16, step over its bound", seconds / bound, 1.8, at_least=False)]
    print(f"      decode batch 16 over batch 1, tokens/s {'':<11} {gain:6.2f}, goal 8")
    sys.exit(not all(good))


main()
