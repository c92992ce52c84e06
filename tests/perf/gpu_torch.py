#!/usr/bin/env python3
"""How fast PyTorch and transformers run a Llama shape: prompts and decoding with random weights in bfloat16, greedy;
decoding with a static cache, prompts without any. JSON on standard output: per test, tokens per second of each mode
that works, and why others do not. tests/perf/gpu.py runs it beside tidemark.

usage: gpu_torch.py SHAPE TEST ... [--device cuda] [--modes eager,graph,compiled] [--repeats 5]

SHAPE is a name below. A TEST is `prompt:N`, or `gen:N:BATCH:DEPTH`: N tokens of each of BATCH requests whose
caches hold DEPTH positions. Modes: `eager`; `graph`, a step captured as a CUDA graph; `compiled`, torch.compile's
reduce-overhead, which captures as well. What is timed is a run of all steps, the choice of each token included,
by the wall clock from one synchronisation to the next; a run before does not count.
"""

import argparse
import json
import sys
import time

SHAPES = {
    "llama-3.1-8b": {"num_hidden_layers": 32, "hidden_size": 4096, "intermediate_size": 14336,
                     "num_attention_heads": 32, "num_key_value_heads": 8, "head_dim": 128, "vocab_size": 128256,
                     "tie_word_embeddings": False},
    "llama-1b": {"num_hidden_layers": 16, "hidden_size": 2048, "intermediate_size": 8192,
                 "num_attention_heads": 32, "num_key_value_heads": 8, "head_dim": 64, "vocab_size": 128256,
                 "tie_word_embeddings": True},
    "tiny": {"num_hidden_layers": 2, "hidden_size": 64, "intermediate_size": 128, "num_attention_heads": 4,
             "num_key_value_heads": 2, "head_dim": 16, "vocab_size": 500, "tie_word_embeddings": False},
}
FILL_TOKENS = 8192  # of a batch at once when caches are filled


class Runner:
    """One model; its tests share the weights."""

    def __init__(self, torch, shape, device):
        import transformers  # noqa: PLC0415: where it is there

        self.torch, self.device = torch, device
        self.StaticCache = transformers.StaticCache
        self.config = transformers.LlamaConfig(**SHAPES[shape], max_position_embeddings=131072,
                                               rope_theta=500000.0, attn_implementation="sdpa")
        torch.set_default_dtype(torch.bfloat16)
        with torch.device(device):
            self.model = transformers.LlamaForCausalLM(self.config).eval()
        self.versions = {"torch": torch.__version__, "transformers": transformers.__version__}

    def synchronize(self):
        if self.device == "cuda":
            self.torch.cuda.synchronize()

    def ids(self, batch, n):
        return self.torch.randint(0, self.config.vocab_size, (batch, n), device=self.device)

    def step(self, ids, cache):
        """Next ids (batch, 1). Without a cache nothing is kept, and attention needs no mask: prompts are fastest so."""
        kept = {"past_key_values": cache, "use_cache": True} if cache is not None else {"use_cache": False}
        out = self.model(input_ids=ids, logits_to_keep=1, **kept)
        return out.logits[:, -1:].argmax(-1)

    def filled(self, batch, depth, room):
        """A cache with `depth` positions of each request and room for more."""
        cache = self.StaticCache(config=self.config, max_cache_len=depth + room)
        at_once = max(1, FILL_TOKENS // batch)
        for at in range(0, depth, at_once):
            self.step(self.ids(batch, min(at_once, depth - at)), cache)
        return cache

    def cut(self, cache, depth):
        """Back to `depth` positions, in place, so that captured steps still find it."""
        for layer in cache.layers if cache is not None else ():
            if layer.is_initialized:
                layer.cumulative_length.fill_(depth)


def stepper(runner, mode, ids, cache):
    """A function that runs one step on `ids` and puts what was chosen back there, when it is one token."""
    torch = runner.torch
    call = runner.step
    if mode == "compiled":
        call = torch.compile(runner.step, mode="reduce-overhead", fullgraph=True, dynamic=False)

    def step():
        chosen = call(ids, cache)
        if ids.shape[1] == 1:
            ids.copy_(chosen)

    if mode != "graph":
        return step
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        for _ in range(3):
            step()
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        step()
    return graph.replay


def rate(runner, mode, test, repeats):
    """Tokens per second, the best run's."""
    kind, n, batch, depth = test
    steps, width = (1, n) if kind == "prompt" else (n, 1)
    cache = None if kind == "prompt" else runner.filled(batch, depth, n + 8)
    ids = runner.ids(batch, width)
    if cache is not None and depth == 0:
        runner.step(ids, cache)  # its memory must be there before a step is captured
    runner.cut(cache, depth)
    step = stepper(runner, mode, ids, cache)

    def run(n_steps):
        """Seconds."""
        runner.cut(cache, depth)
        runner.synchronize()
        begin = time.perf_counter()
        for _ in range(n_steps):
            step()
        runner.synchronize()
        return time.perf_counter() - begin

    for _ in range(3):  # compiling and capturing take more than one call
        run(min(3, steps))
    run(steps)
    return n * batch / min(run(steps) for _ in range(repeats))


def parse(text):
    kind, *numbers = text.split(":")
    numbers = [int(x) for x in numbers]
    if kind == "prompt" and len(numbers) == 1:
        return kind, numbers[0], 1, 0
    if kind == "gen" and len(numbers) == 3:
        return kind, *numbers
    raise argparse.ArgumentTypeError(f"{text!r} is neither prompt:N nor gen:N:BATCH:DEPTH")


def measure(runner, test, modes, repeats):
    kind, n, batch, depth = test
    result = {"test": kind, "tokens": n, "batch": batch, "depth": depth, "tokens_per_s": {}, "failed": {}}
    for mode in modes:
        try:
            with runner.torch.no_grad():
                result["tokens_per_s"][mode] = rate(runner, mode, test, repeats)
        except Exception as e:  # whatever this version of them cannot do
            result["failed"][mode] = f"{type(e).__name__}: {str(e).splitlines()[0] if str(e) else ''}"
        print(f"  torch {kind} {n} x {batch} at {depth}, {mode}: "
              f"{result['tokens_per_s'].get(mode, result['failed'].get(mode))}", file=sys.stderr, flush=True)
    return result


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("shape", choices=SHAPES)
    parser.add_argument("tests", nargs="+", type=parse)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--modes", default="eager,graph,compiled")
    parser.add_argument("--repeats", type=int, default=5)
    args = parser.parse_args()
    import torch  # noqa: PLC0415

    if args.device == "cuda" and not torch.cuda.is_available():
        sys.exit("torch sees no GPU")
    runner = Runner(torch, args.shape, args.device)
    results = [measure(runner, test, args.modes.split(","), args.repeats) for test in args.tests]
    print(json.dumps({"shape": args.shape, **runner.versions, "results": results}))


if __name__ == "__main__":
    main()
