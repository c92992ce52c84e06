#!/usr/bin/env python3
"""Print a ShareGPT-shaped JSON of about so many megabytes.

usage: make_sharegpt.py SHARED MEGABYTES

Texts are those of SHARED/data/sharegpt (generated words where it is absent), cut and joined anew for
each turn, with numbers and made-up names in between: 2 to 8 turns, 1.5 kB each in the mean.
"""

import json
import pathlib
import random
import sys


def texts(shared):
    """All messages of the shared conversations."""
    found = []
    for path in sorted(pathlib.Path(shared, "data/sharegpt").glob("*.json")):
        for conversation in json.loads(path.read_text()):
            found += [turn["value"] for turn in conversation["conversations"]]
    if not found:
        draw = random.Random(7)
        found = [" ".join("".join(draw.choices("etaoinshrdlu", k=draw.randint(2, 9)))
                          for _ in range(300)) for _ in range(2000)]
    return "\n\n".join(found)


def main():
    shared, megabytes = sys.argv[1], int(sys.argv[2])
    corpus, draw, out = texts(shared), random.Random(1), sys.stdout
    written = out.write("[")
    index = 0
    while written < megabytes * 1000000:
        turns = []
        for k in range(draw.randint(2, 8)):
            at, length = draw.randrange(len(corpus) - 4000), int(draw.expovariate(1 / 1500)) + 20
            name = "".join(draw.choices("abcdefghijklmnopqrstuvwxyz", k=7)).title()
            text = f"{corpus[at:at + length]} {name} {draw.randrange(10**6)}."
            turns.append({"from": "gpt" if k % 2 else "human", "value": text})
        one = {"id": f"made_{index}", "conversations": turns}
        written += out.write((",\n" if index else "") + json.dumps(one, ensure_ascii=False))
        index += 1
    out.write("]\n")


main()
