"""`tidemark dataset stats`: the figures it prints, against numpy on the same file."""

import csv
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


if __name__ == "__main__":
    cli.main()
