#!/usr/bin/env python3
"""Count, independently of tidemark, what the filters keep of the shared conversations.

    venv/bin/pip install tokenizers; venv/bin/python count_sharegpt.py ../../../shared

Prints one line per file, filter and context: kept, counts by reason, sums of the kept lengths. The
numbers stand in tests/unit/test_dataset.c; those of the trace in tests/unit/test_trace.c.
"""
import collections
import csv
import datetime
import json
import sys

from tokenizers import Tokenizer

FILES = ["fastchat_dummy_multi_turn_500.json", "sharegpt_v3_first_turns_1000.json"]
FILTERS = ["vllm", "inference-benchmark", "first-turn"]


def reason(name, n_in, n_out, context):
    if name != "first-turn":
        if n_in < 4:
            return "prompt_too_short"
        if n_in > 1024:
            return "prompt_too_long"
        if n_out < 4:
            return "completion_too_short"
        if name == "inference-benchmark" and n_out > 1024:
            return "completion_too_long"
        if name == "vllm" and n_in + n_out > 2048:
            return "sum_too_long"
    return "context" if n_in + n_out > context else "kept"


def conversations(tok, path, name, context):
    counts, sums = collections.Counter(), [0, 0]

    def length(text):  # len(tokenizer(text).input_ids), of prompts and of completions, as both tools count
        return len(tok.encode(text, add_special_tokens=True).ids)

    for c in json.load(open(path)):
        turns = c["conversations"]
        if name == "first-turn":
            human = [t for t in turns if t["from"] == "human"]
            if not human:
                counts["no_human_turn"] += 1
                continue
            n_in, n_out = length(human[0]["value"]), 1  # at least one token must fit
        elif len(turns) < 2:
            counts["too_few_turns"] += 1
            continue
        else:
            n_in, n_out = length(turns[0]["value"]), length(turns[1]["value"])
        why = reason(name, n_in, n_out, context)
        counts[why] += 1
        if why == "kept":
            sums[0] += n_in
            sums[1] += n_out
    return dict(counts), sums


def nanoseconds(text):
    whole, fraction = text.split(".")
    t = datetime.datetime.strptime(whole, "%Y-%m-%d %H:%M:%S").replace(tzinfo=datetime.timezone.utc)
    return int(t.timestamp()) * 10**9 + int(fraction.ljust(9, "0"))


def trace(path, begin_s, end_s, context):
    rows = [(nanoseconds(t), int(i), int(o)) for t, i, o in list(csv.reader(open(path)))[1:]]
    first = rows[0][0]
    inside = [(t - first, i, o) for t, i, o in rows
              if begin_s * 10**9 <= t - first < end_s * 10**9]
    kept = [r for r in inside if r[1] + r[2] <= context]
    return {"outside_window": len(rows) - len(inside), "context": len(inside) - len(kept),
            "kept": len(kept), "sum_in": sum(r[1] for r in kept), "sum_out": sum(r[2] for r in kept),
            "first": kept[0], "last": kept[-1]}


def main():
    shared = sys.argv[1]
    tok = Tokenizer.from_file(shared + "/models/stories260K/tokenizer.json")
    for file in FILES:
        for name in FILTERS:
            for context in (64, 512, 2048):
                counts, sums = conversations(tok, shared + "/data/sharegpt/" + file, name, context)
                print(file, name, context, counts, sums)
    for context in (2048, 16384):
        print("trace 300..600 s", context,
              trace(shared + "/data/traces/AzureLLMInferenceTrace_conv.csv", 300, 600, context))


main()
