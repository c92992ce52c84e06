"""`tidemark bench --edges`: what it says of 2, 3 and 4 ranks adds up, and `model inspect --edges` ranks splits on
it; a stopped rank is named; wrong input costs one clear line."""

import json
import math
import os
import signal
import statistics
import time
import xml.etree.ElementTree

import tidemark_cli as cli

SIZES = [8 * 4**i for i in range(9)]  # up to 512 KiB
SHORT = ["bench", "--edges", "--seconds", "1", "--max-size", "2MiB"]


class Edges(cli.TestCase):
    def check_times(self, transport, link):
        """Times are in order, fit and bandwidth follow from the medians."""
        taken = [t for t in zip(transport["bytes"], link["n"], link["min_ns"], link["median_ns"], link["p99_ns"])
                 if t[1]]
        self.assertEqual(taken[0][0], 8)
        for _, n, least, median, p99 in taken:
            self.assertGreaterEqual(n, 3)
            self.assertTrue(0 < least <= median <= p99, link)
        at, rate = link["bandwidth_at_bytes"], link["bandwidth_bytes_per_s"]
        self.assertIn((at, rate), [(b, 1e9 * b / median) for b, _, _, median, _ in taken])
        logs = [abs(math.log(max(link["latency_ns"] + b * link["byte_ns"], 1) / median)) for b, _, _, median, _ in taken]
        wanted = math.exp(statistics.median(logs)) - 1
        self.assertAlmostEqual(link["fit_error"], wanted, delta=1e-6 * (1 + wanted))

    def check(self, about, n):
        self.assertEqual(about["schema"], "tidemark.edges/1")
        self.assertEqual([r["rank"] for r in about["ranks"]], list(range(n)))
        self.assertEqual(about["rounds"], n - 1 if n % 2 == 0 else n)
        self.assertEqual(about["pairs_beside"], n // 2 - 1)
        for rank in about["ranks"]:
            self.assertEqual(rank["host"], os.uname().nodename)
            self.assertTrue(all(ns > 0 for ns in rank["copy_ns"] if ns))
            self.assertGreater(rank["look_ns"], 50e3)
        self.assertEqual([t["name"] for t in about["transports"]], ["mpi", "messages"])
        self.assertEqual([t["carries_hidden"] for t in about["transports"]], [True, False])
        self.assertEqual(about["transports"][0]["bytes"], [*SIZES, 2 << 20])
        self.assertEqual(about["transports"][1]["bytes"], SIZES[:8])
        for transport in about["transports"]:
            pairs = [(link["from"], link["to"]) for link in transport["links"]]
            self.assertEqual(pairs, [(a, b) for a in range(n) for b in range(n) if a != b])
            for link in transport["links"]:
                self.check_times(transport, link)

    def test_two_ranks_by_hand(self):
        about = self.good(*SHORT, "--format", "json", np=2).json()
        self.check(about, 2)
        self.assertNotIn("model", about)
        self.assertEqual(about["provenance"]["argv"][:2], ["bench", "--edges"])

    def test_three_ranks_and_a_model(self):
        """An odd number; the table, the file and the heat map of one measurement; splits on it."""
        file, svg, costs = self.folder / "edges.json", self.folder / "edges.svg", self.folder / "costs.json"
        self.good("model", "inspect", "preset:tiny", "--hardware", "l4", "--save-costs", costs)
        text = self.good(*SHORT, "--ranks", "3", "--output", file, "--heatmap", svg, "--model", "preset:tiny",
                         "--batch", "1,64", "--prompt", "512", "--costs", costs).out
        about = json.loads(file.read_text())
        self.check(about, 3)
        for says in ("edges between 3 ranks on 1 host", "each pair was measured alone", "mpi, within a host",
                     "messages, within a host", "from (rows) to (columns)", "fitted: ", "outliers",
                     "hops of preset:tiny, tokens x 512 bytes", "decode 64", "32 KiB"):
            self.assertIn(says, text)
        hops = {(h["batch"], h["tokens"]): h for h in about["model"]["hops"]}
        self.assertEqual(sorted(hops), [("decode", 1), ("decode", 64), ("prompt", 512)])
        links = about["transports"][0]["links"]
        for (_, tokens), hop in hops.items():
            self.assertEqual(hop["bytes"], tokens * 128 * 4)  # float32
            ns = [link["latency_ns"] + hop["bytes"] * link["byte_ns"] for link in links]
            for key, want in (("best_ns", min(ns)), ("median_ns", statistics.median(ns)), ("worst_ns", max(ns)),
                              ("worst_stage_share", max(ns) / hop["stage_ns"])):
                self.assertAlmostEqual(hop[key], want, delta=1e-6 * want)
        root = xml.etree.ElementTree.fromstring(svg.read_text())
        wide = [link for link in links if link["bandwidth_at_bytes"] >= 1 << 20]
        self.assertEqual(len(root.findall(".//{http://www.w3.org/2000/svg}title")), 6 + len(wide))
        self.check_inspect(file, costs)

    def check_inspect(self, file, costs):
        prices = f"cost.prices={cli.ROOT / 'configs' / 'prices.csv'}"
        args = ["model", "inspect", "preset:tiny", "--edges", file]
        said = self.good(*args, "--hardware", "l4", prices, "cost.instance=example-1gpu", "--format",
                         "json").json()["edges"]
        self.assertTrue(said["price_is_example"])
        splits = said["splits"]
        # 4 heads, 4 layers, 3 ranks: T is 1 or 2.
        self.assertEqual(sorted((s["tensor"], s["pipeline"], s["replicas"]) for s in splits),
                         [(1, 1, 3), (1, 2, 1), (1, 3, 1), (2, 1, 1)])
        rates = [s["output_tokens_per_s"] for s in splits]
        self.assertEqual(rates, sorted(rates, reverse=True))
        for s in splits:
            self.assertEqual(sum(s["layers"]), 4)
            self.assertAlmostEqual(s["requests_per_s"], s["output_tokens_per_s"] / 256)
            usd_per_s = s["ranks"] * 3 / 3600
            self.assertEqual(s["instances"], s["ranks"])
            self.assertAlmostEqual(s["usd_per_m_output"],
                                   1e6 * usd_per_s / (1.25 * s["output_tokens_per_s"]), places=9)
        text = self.good(*args, "--costs", costs, prices, "cost.instance=example-cpu").out
        for says in ("splits T x P x R over the 3 ranks on 1 host", "an example and no market price", "1 x 1 x 3"):
            self.assertIn(says, text)
        self.refused([*args, "--hardware", "l4", "--gpus", "3"], "--edges", "--gpus")
        self.refused([*args, "--hardware", "l4", "--tensor", "3"], "--edges", "4 heads over 3 ranks")
        self.refused([*args, "--hardware", "l4", prices, "cost.instance=imaginary"], "imaginary")
        self.refused([*args, "--hardware", "l4", "load.seed=1"], "load", "cost")

    def test_four_ranks_on_a_terminal(self):
        text = "".join(t for _, t in self.wait_on_terminal(*SHORT, "--ranks", "4"))
        self.assertIn("edges: round 1 of 3, ", text)
        self.assertIn("with 1 other pair at work", text)

    def wait_on_terminal(self, *args):
        process = cli.start(*args, terminal=True)
        result = process.finish()
        self.assertEqual(result.code, 0, str(result))
        return process.chunks

    def test_a_stopped_rank_is_named(self):
        process = cli.start("bench", "--edges", "--ranks", "3", "--seconds", "16")
        ranks = process.wait_until(lambda: len(process.ranks()) == 3 and process.ranks(), "three ranks")
        time.sleep(1)
        os.kill(ranks[2], signal.SIGSTOP)
        result = process.finish()
        self.one_clear_line_of(result, "rank 2 ", "silent")

    def one_clear_line_of(self, result, *wanted):
        lines = cli.own_lines(result.err)
        self.assertEqual(result.code, 1, str(result))
        self.assertEqual(len(lines), 1, str(result))
        for text in wanted:
            self.assertIn(text, lines[0])


class WrongInput(cli.TestCase):
    def test_bench(self):
        bench = ["bench", "--edges"]
        for args, *says in ((bench, "--ranks N", "2 to 64"),
                            ([*bench, "--ranks", "1"], "--ranks", "2 to 64"),
                            ([*bench, "--ranks", "65"], "--ranks", "2 to 64"),
                            ([*bench, "--ranks", "2", "--seconds", "0"], "--seconds", "1 to 600"),
                            ([*bench, "--ranks", "2", "--max-size", "8"], "--max-size", "1KiB to 1GiB"),
                            ([*bench, "--ranks", "2", "--format", "xml"], "--format", "xml", "table, json"),
                            ([*bench, "--ranks", "2", "--model", "preset:no"], "preset:no"),
                            ([*bench, "--ranks", "2", "--costs", "x.json"], "--costs", "--model"),
                            ([*bench, "--ranks", "2", "--output", "/nowhere/x"], "--output", "/nowhere/x"),
                            ([*bench, "--ranks", "2", "--heatmap", "/nowhere/x"], "--heatmap", "/nowhere/x"),
                            ([*bench, "--quality", "x"], "--edges", "--quality"),
                            (["bench", "--model", "preset:tiny", "--ranks", "2"], "--ranks", "--edges")):
            with self.subTest(args):
                self.refused(args, *says)
        self.refused(bench, "1 rank", "2 to 64", np=1)
        self.refused([*bench, "--ranks", "3"], "--ranks", "has 2", np=2)
        self.refused([*bench, "--seconds", "x"], "--seconds", np=2)

    def test_inspect(self):
        file = self.folder / "edges.json"
        args = ["model", "inspect", "preset:tiny", "--hardware", "l4", "--edges", file]
        self.refused(args, "--edges", file)
        for text, *says in (("{", "not such JSON"), ("{}", "schema", "bench --edges --output"),
                            ('{"schema": "tidemark.edges/1", "ranks": [{"rank": 0, "host": "a"}]}', "1 ranks")):
            with self.subTest(text):
                file.write_text(text)
                self.refused(args, file, *says)
        self.refused(["model", "inspect", "preset:tiny", "--input-tokens", "3"], "--input-tokens", "--edges")
        self.refused(["model", "inspect", "preset:tiny", "cost.instance=x"], "cost.instance=x", "--edges")
        self.refused([*args, "--output-tokens", "0"], "--output-tokens")


if __name__ == "__main__":
    cli.main(cli.SideBySide())
