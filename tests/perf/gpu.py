#!/usr/bin/env python3
"""The CUDA backend's speed as shares of what the GPU can do, both measured in one process, and PyTorch's beside it;
exit 1 when a limit is missed. Never in CI, which has no GPU.

usage: gpu.py [--tidemark FILE] [--attention FILE] [--out FOLDER] [--torch PYTHON | --no-torch] ...

    large decode batch 1        >= 0.80 of the bandwidth (goal 0.88)
    small decode batch 1        >= 0.60 of the bandwidth
    large, batch 64 at 512      step <= 1.25 x max(bytes / bandwidth, operations / matrix rate)
    large, prompt of 2,048      >= 0.80 of the matrix rate
    paged attention, >= 2,048   >= 0.60 of the bandwidth, and <= 1.05 x the time with blocks in order
    scheduler and launch gap    <= 2 % of a step at 8 and 64 requests

Large and small are presets (llama-3.1-8b, llama-1b), weights bfloat16, cache bfloat16. Bandwidth is the larger of what
reading and copying reached, the matrix rate cuBLASLt's in bfloat16: `tidemark bench` measures both between its cases.
Attention is timed by the program gpu_perf_attention, beside reading in its own process; a batch of one at 2,048
positions is shown without a limit, since it reads less per layer than a launch takes. Shares are of the best run.

The gap has two parts. Launching: of a step's time from its submission to its end, what the device did not compute, from
`tidemark bench`. The scheduler: of the time in which there was work, what the stage did not spend in steps (`bubble` of
a report), from `tidemark run` with a closed loop of so many users, 512 tokens in and 256 out.

What each program printed is kept in FOLDER as JSON. Without PyTorch in PYTHON (default: python3), or where it
sees no GPU, the comparison says so and is left out: it has no limit. Most of the time goes into PyTorch's compiling;
--torch-modes eager,graph leaves that out. No GPU has run this yet.
"""

import argparse
import json
import pathlib
import subprocess
import sys
import tempfile

ROOT = pathlib.Path(__file__).resolve().parents[2]


class Failed(Exception):
    """A program did not do what it should; its own words went to standard error."""


def output(command):
    print("+", " ".join(map(str, command)), file=sys.stderr, flush=True)
    done = subprocess.run([str(x) for x in command], stdout=subprocess.PIPE, text=True, check=False)
    if done.returncode != 0:
        raise Failed(f"{command[0]}: exit status {done.returncode}")
    return done.stdout


class Report:
    def __init__(self, folder):
        self.folder, self.missed = folder, []

    def keep(self, name, text):
        if self.folder:
            self.folder.mkdir(parents=True, exist_ok=True)
            (self.folder / f"{name}.json").write_text(text)
        return json.loads(text)

    def check(self, what, value, limit, at_least=True, note=""):
        ok = value >= limit if at_least else value <= limit
        if not ok:
            self.missed.append(what)
        bound = ">=" if at_least else "<="
        print(f"{'ok  ' if ok else 'FAIL'}  {what:<58} {value:7.3f}  {bound} {limit:g}{note}", flush=True)

    def show(self, what, value, note=""):
        print(f"      {what:<58} {value:7.3f}  {note}", flush=True)


def bench(args, report, name, model, *tests):
    text = output([args.tidemark, "bench", "--backend", args.backend, "--model", f"preset:{model}", "--kv", "bf16",
                   "--repeats", args.repeats, "--format", "json", *tests])
    about = report.keep(name, text)
    rates = about["ceilings"]
    print(f"\n{model}: {about['backend']}, {rates['of']}; loaded in {about['load_s']:.1f} s")
    for key, rate in rates.items():
        if key.endswith("_bytes_per_s"):
            print(f"      {key.removesuffix('_bytes_per_s'):<20} {rate / 1e9:10.1f} GB/s")
        elif isinstance(rate, dict):
            print(f"      {key:<20} {rate['per_s'] / 1e9:10.0f} GFLOP/s  {rate['instruction']}")
    return about


def bandwidth(about):
    rates = about["ceilings"]
    return max(rates["read_bytes_per_s"], rates.get("copy_bytes_per_s", 0))


def name_of(r):
    at = f" at {r['depth']}" if r["depth"] else ""
    return f"prompt {r['tokens']}{at}" if r["test"] == "prompt" else f"gen {r['tokens']} x {r['batch']}{at}"


def find(about, test, batch, depth):
    return next(r for r in about["results"] if (r["test"], r["batch"], r["depth"]) == (test, batch, depth))


def best_s(r):
    return r["tokens"] * r["batch"] / r["tokens_per_s"]["best"]


def judge_large(args, report, about):
    one, many, prompt = (find(about, *key) for key in (("gen", 1, 0), ("gen", 64, args.depth), ("prompt", 1, 0)))
    read, peak = bandwidth(about), about["peak"]["per_s"]
    report.check(f"{name_of(one)}, share of bandwidth", one["read_bytes_per_s"] / read, 0.80, note=", goal 0.88")
    report.check(f"{name_of(many)}, step over its bound",
                 best_s(many) / max(many["bytes"] / read, many["flops"] / peak), 1.25, at_least=False)
    report.check(f"{name_of(prompt)}, share of {about['peak']['name']} rate", prompt["flops_per_s"] / peak, 0.80)
    for r in about["results"]:
        if r["test"] == "gen":
            report.show(f"{name_of(r)}, device idle, share of the time", r["gap_share"])


def judge_small(report, about):
    one = find(about, "gen", 1, 0)
    report.check(f"{name_of(one)}, share of bandwidth", one["read_bytes_per_s"] / bandwidth(about), 0.60)
    report.show(f"{name_of(one)}, device idle, share of the time", one["gap_share"])


def closed_loop(args, report, users):
    """The stage's bubble over its bubble and its steps, in a run of so many users."""
    with tempfile.TemporaryDirectory() as folder:
        path = pathlib.Path(folder) / "run.h5"
        output([args.tidemark, "run", ROOT / "configs" / "quickstart.yaml", f"target.model=preset:{args.large}",
                f"target.backend={args.backend}", "target.pipeline=1", "target.kv_cache=bf16",
                "target.max_running=64", "load.arrival=closed", f"load.users={users}", "load.rates=",
                f"load.step={args.step}", "load.drain=5s", f"load.input_tokens={args.depth}",
                "load.output_tokens=256", "slo=", "cost=", f"results={path}", "--quiet", "--force"])
        step = report.keep(f"users-{users}", output([args.tidemark, "report", path, "--format", "json"]))["steps"][0]
    stage = step["stages"][0]
    print(f"      {users} users: {step['verdict']}, {step['tokens_per_s']['output']['value']:.0f} tokens/s, busy "
          f"{stage['busy']:.3f}, bubble {stage['bubble']:.4f}")
    return stage["bubble"] / (stage["bubble"] + stage["busy"])


def judge_gaps(args, report, about):
    print("\nscheduler and launch gap")
    for users in (8, 64):
        launch = find(about, "gen", users, args.depth)["launch_share"]
        scheduler = closed_loop(args, report, users)
        report.show(f"{users} at once, launching, share of a step", launch)
        report.show(f"{users} at once, scheduler, share of a step", scheduler)
        report.check(f"{users} at once, scheduler and launch gap", 1 - (1 - launch) * (1 - scheduler), 0.02,
                     at_least=False)


def judge_attention(report, cases):
    print("\nattention over the paged cache")
    for c in cases:
        what = f"{c['model']}, {c['kv']}, {c['batch']} x {c['context']}"
        note = f"{c['paged_bytes_per_s'] / 1e9:.0f} of {c['read_bytes_per_s'] / 1e9:.0f} GB/s"
        held = c["context"] >= 2048 and c["batch"] * c["context"] > 2048 and c["model"].startswith("llama")
        if held:
            report.check(f"{what}, share of reading", c["read_share"], 0.60, note=f"; {note}")
            report.check(f"{what}, scattered over in order", c["paged_over_in_order"], 1.05, at_least=False)
        else:
            report.show(f"{what}, share of reading", c["read_share"], note)
            report.show(f"{what}, scattered over in order", c["paged_over_in_order"])


def torch_test(r):
    return f"prompt:{r['tokens']}" if r["test"] == "prompt" else f"gen:{r['tokens']}:{r['batch']}:{r['depth']}"


def beside_torch(args, report, name, model, about):
    """The same tests by PyTorch, in its fastest mode; a figure without a limit."""
    compared = [("prompt", 1, 0), ("gen", 1, 0), ("gen", 64, args.depth)]  # not all: PyTorch compiles for each
    wanted = [r for r in about["results"] if (r["test"], r["batch"], r["depth"]) in compared]
    command = [args.torch, pathlib.Path(__file__).with_name("gpu_torch.py"), model, *map(torch_test, wanted),
               "--device", args.torch_device, "--modes", args.torch_modes]
    print(f"\n{model} beside PyTorch")
    try:
        theirs = report.keep(f"{name}-torch", output(command))
    except (Failed, OSError) as e:
        print(f"      PyTorch was not there to compare with: {e}")
        return
    print(f"      torch {theirs['torch']}, transformers {theirs['transformers']}")
    for ours, other in zip(wanted, theirs["results"]):
        if not other["tokens_per_s"]:
            print(f"      {name_of(ours)}: no mode of PyTorch works: {other['failed']}")
            continue
        mode, rate = max(other["tokens_per_s"].items(), key=lambda item: item[1])
        mine = ours["tokens_per_s"]["best"]
        report.show(f"{name_of(ours)}, tokens/s over PyTorch's", mine / rate, f"{mine:.1f} and {rate:.1f} ({mode})")


def arguments():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tidemark", default=ROOT / "build" / "tidemark", type=pathlib.Path)
    parser.add_argument("--attention", default=ROOT / "build" / "tests" / "gpu_perf_attention", type=pathlib.Path)
    parser.add_argument("--out", type=pathlib.Path, help="folder for what was printed")
    parser.add_argument("--torch", default="python3", help="a Python that has PyTorch and transformers")
    parser.add_argument("--no-torch", action="store_true")
    parser.add_argument("--torch-modes", default="eager,graph,compiled")
    parser.add_argument("--repeats", default="5")
    # to try the script out where there is no GPU
    parser.add_argument("--backend", default="cuda")
    parser.add_argument("--large", default="llama-3.1-8b")
    parser.add_argument("--small", default="llama-1b")
    parser.add_argument("--prompt", default="2048")
    parser.add_argument("--depth", type=int, default=512)
    parser.add_argument("--step", default="20s")
    parser.add_argument("--torch-device", default="cuda")
    return parser.parse_args()


def measure(args, report):
    large = bench(args, report, "large", args.large, "--prompt", args.prompt, "--gen", "64", "--batch", "1,8,64",
                  "--depth", f"0,{args.depth}")
    judge_large(args, report, large)
    small = bench(args, report, "small", args.small, "--prompt", "0", "--gen", "64", "--batch", "1")
    judge_small(report, small)
    judge_gaps(args, report, large)
    if args.attention.exists():
        judge_attention(report, report.keep("attention", output([args.attention])))
    else:
        report.missed.append("attention")
        print(f"\nFAIL  attention was not measured: there is no {args.attention}")
    if not args.no_torch:
        beside_torch(args, report, "large", args.large, large)
        beside_torch(args, report, "small", args.small, small)


def main():
    args = arguments()
    report = Report(args.out)
    try:
        measure(args, report)
    except (Failed, OSError) as e:
        sys.exit(f"gpu.py: {e}")
    print(f"\n{len(report.missed)} limits missed" if report.missed else "\nall limits held")
    sys.exit(1 if report.missed else 0)


if __name__ == "__main__":
    main()
