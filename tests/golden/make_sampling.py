"""Writes sampling.json: what Hugging Face transformers makes of rows of logits when it samples.

    python3 tests/golden/make_sampling.py > tests/golden/sampling.json    (torch, transformers)

Each case has logits, parameters, and the probability of every id after the temperature, top-k, top-p and
min-p processors in the order in which generate() applies them.
"""

import json
import sys

import numpy
import torch
import transformers
from transformers.generation import logits_process as lp

PARAMETERS = [
    {"temperature": 1.0}, {"temperature": 0.3}, {"temperature": 2.5},
    {"temperature": 1.0, "top_k": 1}, {"temperature": 0.7, "top_k": 5},
    {"temperature": 1.0, "top_p": 0.9}, {"temperature": 1.0, "top_p": 0.5},
    {"temperature": 1.5, "top_p": 0.01}, {"temperature": 1.0, "min_p": 0.1},
    {"temperature": 3.0, "min_p": 0.02}, {"temperature": 0.8, "top_k": 20, "top_p": 0.8},
    {"temperature": 1.2, "top_k": 8, "min_p": 0.2}, {"temperature": 1.0, "top_p": 0.95, "min_p": 0.05},
    {"temperature": 1.7, "top_k": 30, "top_p": 0.9, "min_p": 0.03},
]


def probabilities(logits, p):
    chain = [lp.TemperatureLogitsWarper(p["temperature"])]
    if "top_k" in p:
        chain.append(lp.TopKLogitsWarper(p["top_k"]))
    if "top_p" in p:
        chain.append(lp.TopPLogitsWarper(p["top_p"]))
    if "min_p" in p:
        chain.append(lp.MinPLogitsWarper(p["min_p"]))
    scores = torch.tensor([logits], dtype=torch.float32)
    for processor in chain:
        scores = processor(None, scores)
    return torch.softmax(scores.double(), -1)[0].tolist()


def main():
    rng = numpy.random.default_rng(1)
    cases = []
    for i, parameters in enumerate(PARAMETERS):
        for vocab in (50, 70 + 5 * i):
            logits = [float(x) for x in rng.normal(0, 2.5, vocab)]
            if i % 3 == 0:  # ids without a chance
                logits[3] = logits[vocab - 1] = -1e30
            logits = [float(f"{numpy.float32(x):.9g}") for x in logits]
            p = [float(f"{x:.9g}") for x in probabilities(logits, parameters)]
            cases.append({**parameters, "logits": logits, "probabilities": p})
    json.dump({"made_with": f"transformers {transformers.__version__}", "cases": cases}, sys.stdout)
    print()


main()
