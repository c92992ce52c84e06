"""`tidemark dataset`: the figures that stats prints, against numpy on the same file; the requests that
show prints, against the file itself."""

import csv
import json
import re

import numpy
import tidemark_cli as cli

ROW = re.compile(r"^  (input|output) +(\d+) +" + r" +".join([r"([\d.]+)"] * 6) + "$", re.M)


# GKE Inference Quickstart's published ShareGPT benchmark: min, median, mean, P90, P99, max
PUBLISHED = {"input": (4, 108, 226, 635, 887, 1024), "output": (1, 132, 195, 488, 778, 1024)}


def recorded():
    """The Azure conversation trace: its path, and (input, output) of each request."""
    path = cli.shared("data/traces/AzureLLMInferenceTrace_conv.csv")
    with open(path, newline="") as file:
        return path, [(int(r["ContextTokens"]), int(r["GeneratedTokens"]))
                      for r in csv.DictReader(file)]


def summary(tokens):
    """min, median, mean, P90, P99, max, as the table has them."""
    p50, p90, p99 = numpy.percentile(tokens, [50, 90, 99])
    return [min(tokens), p50, numpy.mean(tokens), p90, p99, max(tokens)]


def shown(text):
    """{"input": (n, [min ... max]), "output": ...} of the printed table."""
    return {name: (int(n), [float(v) for v in values]) for name, n, *values in ROW.findall(text)}


class Stats(cli.TestCase):
    def check(self, source, n_in, n_out, *args):
        """Text and JSON both say what numpy says of these lengths."""
        about = self.good("dataset", "stats", source, *args, "--format", "json").json()
        text = self.good("dataset", "stats", source, *args).out
        self.assertEqual(about["entries"], len(n_in))
        for name, tokens in (("input", n_in), ("output", n_out)):
            wanted = summary(tokens)
            got = about[f"{name}_tokens"]
            for key, value in zip(("min", "median", "mean", "p90", "p99", "max"), wanted):
                self.assertAlmostEqual(got[key], value, delta=1e-9 * value, msg=f"{name} {key}")
            n, values = shown(text)[name]
            self.assertEqual(n, len(tokens))
            for value, exact in zip(values, wanted):
                self.assertLessEqual(abs(value - exact), 0.5, f"{name}: {text}")
        return about

    def test_trace(self):
        rows = [(n_in, n_in % 7 + 1) for n_in in (3, 400, 17, 90, 256, 31, 8, 5, 1200, 64)]
        path = self.folder / "trace.csv"
        path.write_text("TIMESTAMP,ContextTokens,GeneratedTokens\n" + "".join(
            f"2023-11-16 18:15:{i:02}.5000000,{n_in},{n_out}\n"
            for i, (n_in, n_out) in enumerate(rows)))
        self.check(path, *zip(*rows))

    def test_recorded_trace(self):
        path, rows = recorded()
        about = self.check(path, *zip(*rows), "--model", "preset:tiny-16k")
        self.assertEqual(about["filtered"], {})

    def test_context_filters_and_says_so(self):
        """What does not fit the model is left out of the figures and counted by reason."""
        path, rows = recorded()
        fit = [row for row in rows if sum(row) <= 2048]
        about = self.check(path, *zip(*fit), "--model", "preset:tiny")
        self.assertEqual(sum(about["filtered"].values()), len(rows) - len(fit))

    def test_published_table(self):
        """A sampler: of 100,000 draws min and max are exact, the other figures within 2 %."""
        out = self.good("dataset", "stats", "sharegpt").out
        for name, published in PUBLISHED.items():
            n, values = shown(out)[name]
            self.assertEqual((n, values[0], values[-1]), (100000, published[0], published[-1]))
            for value, wanted in zip(values, published):
                self.assertLessEqual(abs(value - wanted), 0.02 * wanted, f"{name}: {out}")

    def test_burstgpt(self):
        """Columns are found by name; failed requests have no response and are counted."""
        path = self.folder / "burst.csv"
        path.write_text("Timestamp,Model,Request tokens,Response tokens,Total tokens,Log Type\n"
                        "5,ChatGPT,472,18,490,Conversation log\n9,GPT-4,12,0,12,API log\n"
                        "9,GPT-4,30,7,37,API log\n")
        about = self.check(path, (472, 30), (18, 7))
        self.assertEqual(about["filtered"], {"zero_tokens": 1})

    def test_reuse(self):
        """What caches could save: 3 of 4 requests begin with the same two blocks, one repeats another."""
        path = self.folder / "mooncake.jsonl"
        path.write_text("".join(
            json.dumps({"timestamp": 0, "input_length": n, "output_length": 1, "hash_ids": ids}) + "\n"
            for n, ids in ((1024, [1, 2]), (1024, [1, 2]), (1536, [1, 2, 3]), (512, [4]))))
        reuse = self.good("dataset", "stats", path, "--format", "json").json()["reuse"]
        self.assertEqual(reuse["requests"], 4)
        self.assertEqual(reuse["repeat_share"], 1 / 4)
        self.assertEqual(reuse["prefix_share"], 2048 / reuse["prompt_tokens"])
        self.assertIn("25.00 % repeat an earlier prompt", self.good("dataset", "stats", path).out)


class Show(cli.TestCase):
    def show(self, source, *args):
        run = self.good("dataset", "show", source, *args)
        return [json.loads(line) for line in run.out.splitlines()]

    def test_blocks_of_a_trace(self):
        """On the real trace, a block's tokens are the same wherever its hash_id stands, and only there."""
        path = cli.shared("data/traces/mooncake_conversation_trace.jsonl")
        trace = [json.loads(line) for line in path.read_text().splitlines()]
        seen = {}
        for asked in self.show(path, "--model", "preset:tiny-16k", "--events", "150"):
            ids = asked["ids"]
            self.assertEqual(len(ids), trace[asked["entry"]]["input_length"])
            for k, name in enumerate(trace[asked["entry"]]["hash_ids"]):
                block = ids[512 * k:512 * (k + 1)]
                known = seen.setdefault(name, block)
                n = min(len(block), len(known))
                self.assertEqual(block[:n], known[:n])
                seen[name] = max(block, known, key=len)
        long = [tuple(block[:64]) for block in seen.values() if len(block) >= 64]
        self.assertGreater(len(long), 500)
        self.assertEqual(len(set(long)), len(long))

    def test_conversation(self):
        """Turn by turn, each prompt is the whole history with the file's own replies."""
        path = cli.shared("data/sharegpt/fastchat_dummy_multi_turn_500.json")
        model = cli.shared("models/stories260K")
        source = json.loads(path.read_text())
        last = []
        for asked in self.show(path, "--model", model, "load.dataset.turns=multi", "load.think=2s",
                               "--events", "40"):
            turns = source[asked["entry"]]["conversations"][:2 * asked["turn"] + 1]
            self.assertEqual([m["content"] for m in asked["messages"]], [t["value"] for t in turns])
            self.assertEqual([m["role"] for m in asked["messages"]],
                             ["assistant" if t["from"] == "gpt" else "user" for t in turns])
            self.assertEqual(len(asked["ids"]), asked["n_in"])
            if asked["turn"] > 0:
                self.assertEqual(asked["ids"][:len(last)], last)
                self.assertEqual(asked["think_ns"], 2000000000)
            last = asked["ids"]

    def test_wrong_input(self):
        self.refused(["dataset", "show", "sharegpt", "--events", "0"], "--events")


if __name__ == "__main__":
    cli.main()
