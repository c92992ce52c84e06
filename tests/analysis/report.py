#!/usr/bin/python3
"""report.py MAKE_RUN MAKE_REPORT SOURCE DIR: the report of a simulated run whose truth is known.

The JSON is valid against the strict schema and its numbers are those that h5py and numpy find in the
same file; the same file gives the same bytes; the page is one file that needs no network.
"""

import html.parser
import json
import math
import os
import pathlib
import re
import subprocess
import sys

try:
    import h5py
    import jsonschema
    import numpy as np
except ImportError as missing:
    print(f"skipped: {missing}")
    sys.exit(77)

MAKE_RUN, MAKE_REPORT, SOURCE, DIR = sys.argv[1], sys.argv[2], pathlib.Path(sys.argv[3]), sys.argv[4]
PRICES = f"cost.prices={SOURCE}/configs/prices.csv"
VOID = {"meta", "br"}


def make_run(name, *args):
    """A simulated run: its path and what is true of it."""
    path = os.path.join(DIR, name + ".h5")
    out = subprocess.run([MAKE_RUN, path, *args], check=True, capture_output=True, text=True)
    return path, json.loads(out.stdout)


def make_report(path, name, *assignments):
    prefix = os.path.join(DIR, name)
    subprocess.run([MAKE_REPORT, path, prefix, PRICES, *assignments], check=True)
    texts = {kind: pathlib.Path(f"{prefix}.{kind}").read_text(encoding="utf-8")
             for kind in ("json", "html", "txt")}
    return json.loads(texts["json"]), texts


def close(got, want, rel=1e-9):
    assert got is not None and math.isclose(got, want, rel_tol=rel, abs_tol=1e-12), (got, want)


def check_latency(step, values, ok, name):
    got = step[name]
    assert got["n"] == len(values)
    for key, p in (("p50", 50), ("p90", 90), ("p95", 95), ("p99", 99), ("p999", 99.9)):
        close(got[key], np.percentile(values, p))
    close(got["mean"], values.mean())
    close(got["sd"], values.std(ddof=1), 1e-6)
    close(got["min"], values.min())
    close(got["max"], values.max())
    assert got["lo95"] < got["mean"] < got["hi95"]
    assert got["p50_lo95"] <= got["p50"] <= got["p50_hi95"]
    assert got["p99_supported"] == (ok >= 459)


def check_step(step, group):
    """Against the records, computed here in another way."""
    column = {key: values[:] for key, values in group["requests"].items()}
    warm, end = group.attrs["t_warm_ns"], group.attrs["t_end_ns"]
    window = (end - warm) * 1e-9
    due, ok = column["t_sched_ns"], column["outcome"] == 0
    inside = (due >= warm) & (due < end)
    assert step["requests"]["scheduled"] == len(due) == sum(step["requests"]["by_outcome"].values())
    assert step["requests"]["ok"] == ok.sum()
    close(step["offered"]["rps"], inside.sum() / window)
    close(step["offered"]["input_tokens_per_s"], column["n_in"][inside].sum() / window)
    close(step["offered"]["output_tokens_per_s"], column["n_out_req"][inside].sum() / window)

    good = inside & ok
    first, last = column["t_first_ns"][good], column["t_last_ns"][good]
    q, s, n = due[good], column["t_send_ns"][good], column["n_out"][good]
    more = n > 1
    for name, values in (
            ("ttft_ms", first - q), ("ttft_service_ms", first - s),
            ("ttfc_ms", column["t_content_ns"][good] - q),
            ("tpot_ms", (last - first)[more] / (n[more] - 1)),
            ("ntpot_ms", (last - q) / n), ("ntpot_service_ms", (last - s) / n),
            ("e2e_ms", last - q), ("e2e_service_ms", last - s)):
        check_latency(step, values * 1e-6, good.sum(), name)
    all_ms = np.sort(np.append((first - q) * 1e-6, np.full(inside.sum() - good.sum(), np.inf)))
    for p in (50, 99):
        at = p / 100 * (len(all_ms) - 1)
        low, high = all_ms[math.floor(at)], all_ms[math.ceil(at)]
        value = step["ttft_ms"][f"p{p}_error_adjusted"]
        if math.isinf(high):
            assert value is None
        else:
            close(value, low + (at - math.floor(at)) * (high - low))
    lag = (column["t_send_ns"] - due)[inside & (column["t_send_ns"] >= 0)] * 1e-3
    close(step["send_lag_us"]["p99"], np.percentile(lag, 99))
    close(step["send_lag_us"]["max"], lag.max())

    offsets, dt_us = group["tokens/offsets"][:], group["tokens/dt_us"][:].astype(np.int64)
    served, gaps = 0, []
    for k in range(len(due)):
        dt = dt_us[offsets[k]:offsets[k + 1]]
        if len(dt):
            t = column["t_send_ns"][k] + 1000 * np.cumsum(dt)
            served += ((t >= warm) & (t < end)).sum()
            if good[k]:
                gaps.append(dt[1:])
    close(step["tokens_per_s"]["output"]["value"], served / window)
    check_latency(step, np.concatenate(gaps) * 1e-3, more.sum(), "itl_ms")
    assert step["icl_ms"] == step["itl_ms"], "every token came alone"
    f = column["t_first_ns"]
    prefilled = column["n_in"][(f >= warm) & (f < end)].sum()
    close(step["tokens_per_s"]["input"]["value"], prefilled / window)
    close(step["tokens_per_s"]["total"]["value"], (served + prefilled) / window)
    met = ((first - q) * 1e-6 <= 500) & ((last - q) / n * 1e-6 <= 100)
    close(step["goodput"]["attainment"], met.sum() / inside.sum())
    close(step["goodput"]["rps"], met.sum() / window)
    close(step["goodput"]["failed_share"], 1 - good[inside].mean())


def check_stages(step):
    assert len(step["stages"]) == 2
    for row in step["stages"]:
        assert 0 < row["busy"] <= 1 and 0 <= row["bubble"] <= row["recv_wait"] + 1e-12
        assert row["busy"] + row["recv_wait"] <= 1 + 1e-12
    path = step["critical_path"]["ttft"]
    parts = sum(path[key] for key in ("client_lag_ms", "transport_ms", "queue_ms", "hops_ms",
                                      "bubble_ms", "return_ms")) + sum(path["stages_ms"])
    assert abs(parts - path["total_ms"]) <= path["unexplained_share"] * path["total_ms"] + 1e-6
    assert path["unexplained_share"] < 0.05


T_OF_9 = 2.2621571627409915  # two-sided 95 % of Student's t


def tokens_by_tenth(group, edges):
    """(input, output) tokens of each tenth of the window."""
    sent, n_in, first = (group[f"requests/{key}"][:] for key in ("t_send_ns", "n_in", "t_first_ns"))
    offsets, dt_us = group["tokens/offsets"][:], group["tokens/dt_us"][:].astype(np.int64)
    arrivals = np.concatenate([sent[k] + 1000 * np.cumsum(dt_us[offsets[k]:offsets[k + 1]])
                               for k in range(len(sent))])
    return (np.histogram(first, edges, weights=n_in)[0],
            np.histogram(arrivals, edges)[0].astype(float))


def check_ratio(got, joules, tokens):
    """A ratio of sums, and its interval over tenths."""
    value = joules.sum() / tokens.sum()
    half = T_OF_9 * math.sqrt(10 / 9 * ((joules - value * tokens) ** 2).sum()) / tokens.sum()
    close(got["value"], value, 1e-4)
    close(got["lo95"], max(0, value - half), 1e-2)
    close(got["hi95"], value + half, 1e-2)


def check_gpus(step, group):
    """Energy of two GPUs, one with a counter and one without, by numpy's interpolation."""
    column = {key: values[:] for key, values in group["gpus"].items()}
    warm, end = int(group.attrs["t_warm_ns"]), int(group.attrs["t_end_ns"])
    edges, joules = np.linspace(warm, end, 11), np.zeros(10)
    inside = (column["t_ns"] >= warm) & (column["t_ns"] < end)
    for device, source in ((0, "counter"), (1, "power")):
        mine = column["device"] == device
        t, w = column["t_ns"][mine] * 1e-9, column["power_w"][mine].astype(float)
        grown = (column["energy_j"][mine] if source == "counter" else
                 np.append(0, np.cumsum(np.diff(t) * (w[1:] + w[:-1]) / 2)))
        each = np.diff(np.interp(edges * 1e-9, t, grown))
        got = step["gpus"]["devices"][device]
        close(got["energy_j"], each.sum(), 1e-6)
        close(got["power_w"], each.sum() / ((end - warm) * 1e-9), 1e-6)
        assert (got["device"], got["energy_from"]) == (device, source)
        close(got["gpu_util"], column["gpu_util"][mine & inside].astype(float).mean(), 1e-6)
        joules += each
    gpus = step["gpus"]
    close(gpus["energy_j"], joules.sum(), 1e-6)
    watts = joules / ((end - warm) * 1e-10)
    half = T_OF_9 * watts.std(ddof=1) / math.sqrt(10)
    close(gpus["power_w"]["value"], watts.mean(), 1e-6)
    close(gpus["power_w"]["hi95"], watts.mean() + half, 1e-4)
    n_in, n_out = tokens_by_tenth(group, edges)
    check_ratio(gpus["joules_per_output_token"], joules, n_out)
    check_ratio(gpus["joules_per_token"], joules, n_in + n_out)
    close(gpus["throttled"], (column["throttle"][inside] == 4).mean())
    close(gpus["temperature_c"], float(column["temperature_c"][inside].max()), 1e-6)
    assert (gpus["n"], gpus["energy_from"], gpus["memory_used_bytes"]) == (2, "both", 2e9)


def check_with_gpus():
    path, _ = make_run("gpus", "--gpus", "2", "--rates", "2,4", "--step", "60")
    report, texts = make_report(path, "gpus")
    jsonschema.validate(report, SCHEMA)
    with h5py.File(path) as file:
        for step in report["steps"]:
            check_gpus(step, file[f"steps/{step['index']:04d}"])
    assert [gpu["uuid"] for gpu in report["run"]["gpus"]] == ["GPU-0", "GPU-1"]
    page = Page()
    page.feed(texts["html"])
    page.close()
    assert page.open == [], page.open
    for words in ("What energy it takes", "Energy of a token", "GPU &lt;of make_run&gt;", "power_cap"):
        assert words in texts["html"], words
    assert "2 GPUs took" in texts["txt"] and "joules per token" in texts["txt"]


def check_failures_shown(report, texts):
    """Where requests failed, percentiles of the others do not stand alone."""
    failed = [step for step in report["steps"] if step["requests"]["failed"]]
    assert failed, "the sweep ends in overload"
    for step in failed:
        requests = step["requests"]
        line = f"step {step['index']}: {requests['failed']} of {requests['scheduled']} failed"
        assert line in texts["txt"], line
    cells = re.findall(r'<small class="adjusted">all ([^<]*)</small>', texts["html"])
    shown = [step[metric][f"{p}_error_adjusted"] for step in failed for metric, p in
             (("ttft_ms", "p50"), ("ttft_ms", "p99"), ("ntpot_ms", "p50"), ("e2e_ms", "p50"))]
    assert len(cells) == len(shown)
    assert [cell == "\u221e" for cell in cells] == [value is None for value in shown]


def check_goodput_marked():
    """Where more than 1 % failed (unfinished after a short drain), the plot says so."""
    path, _ = make_run("unfinished", "--rates", "3,12,14", "--step", "60", "--drain", "1")
    report, texts = make_report(path, "unfinished")
    much = [step for step in report["steps"] if step["goodput"]["failed_share"] > 0.01]
    assert len(much) > 1, "far more is offered than can be served"
    plot = texts["html"].split('aria-label="Goodput against request rate"')[1].split("</figure>")[0]
    tips = re.findall(r"<title>met every objective: [^<]*, ([0-9.]+) % failed</title>", plot)
    assert tips == [f"{100 * step['goodput']['failed_share']:.1f}" for step in much], tips
    assert "goodput where more than 1 % failed" in plot.split("</svg>", 1)[1]


def check_money(cost, at):
    usd_per_s = cost["instances"] * cost["usd_per_hour"] / 3600
    paid = (at["input_tokens_per_s"] * at["usd_per_m_input"]["value"] +
            at["output_tokens_per_s"] * at["usd_per_m_output"]["value"]) * 1e-6
    close(paid, usd_per_s, 1e-12)
    for usd in (at["usd_per_m_input"], at["usd_per_m_output"]):
        assert usd["lo95"] <= usd["value"] <= usd["hi95"]
    close(at["usd_per_m_output"]["value"],
          cost["output_to_input_ratio"] * at["usd_per_m_input"]["value"])


def check_answers(report, truth):
    sat = report["saturation"]
    assert sat["verdict"] == "found", sat
    assert sat["lo95"] < sat["rate_rps"] < sat["hi95"]
    assert abs(sat["rate_rps"] / truth["saturation_rps"] - 1) < 0.05
    assert abs(sat["output_tokens_per_s"] / truth["saturation_output_tokens_per_s"] - 1) < 0.03
    assert sat["cross_check"]["agrees"] is True
    assert report["slo"]["verdict"] == "found"
    assert report["slo"]["lo95"] <= report["slo"]["rate_rps"] <= report["slo"]["hi95"]
    verdicts = [step["verdict"] for step in report["steps"]]
    assert verdicts[0] == "stable" and verdicts[-1] == "unstable"
    cost = report["cost"]
    assert cost["example"] is True and cost["instances"] == 2  # 2 stages, one accelerator each
    check_money(cost, cost["at_saturation"])
    check_money(cost, cost["at_slo"])
    for row in cost["by_step"]:
        check_money(cost, row)


class Page(html.parser.HTMLParser):
    """Tags that are not closed in order, and everything that refers elsewhere."""

    def __init__(self):
        super().__init__()
        self.open, self.links, self.tags = [], [], []

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        if tag not in VOID:
            self.open.append(tag)
        self.links += [value for key, value in attrs if key in ("src", "href", "xlink:href")]

    def handle_startendtag(self, tag, attrs):
        self.tags.append(tag)

    def handle_endtag(self, tag):
        assert self.open and self.open.pop() == tag, tag


def check_page(text):
    page = Page()
    page.feed(text)
    page.close()
    assert page.open == [], page.open
    assert page.links == [] and "script" not in page.tags and "link" not in page.tags
    assert "url(" not in text and "@import" not in text
    assert not re.search(r"https?://(?!example)", text), "nothing from a network"
    assert len(text.encode()) < 1_000_000
    assert text.index("Valid: the run passes") < text.index("<svg")
    for term, sentence in REPORT["definitions"].items():
        assert f"<dt>{term}</dt><dd>{html.escape(sentence)}</dd>" in text, term
    kernels = re.search(r"Ranks and clocks.*?</details>", text, re.S).group(0)
    assert ">kernels</th>" in kernels and kernels.count(">sim<") == 2, kernels
    assert "EXAMPLE PRICE" in text and "prefers-color-scheme" in text
    for word in ("Latency\u2013throughput curve", "Distribution of TTFT", "in flight over time",
                 "Pipeline utilisation", "Send lag", "Definitions", "Provenance"):
        assert word in text, word
    assert "nan" not in re.sub(r"<style>.*?</style>", "", text, flags=re.S).lower().split()


def check_missing(path):
    """Without prices and objectives the keys are there and say null."""
    report, texts = make_report(path, "plain", "cost.instance=null", "slo.ttft=null", "slo.ntpot=null")
    jsonschema.validate(report, SCHEMA)
    assert report["cost"]["usd_per_hour"] is None and report["cost"]["by_step"] == []
    assert report["slo"]["verdict"] == "none" and report["slo"]["rate_rps"] is None
    assert "What it costs" not in texts["html"]
    refused = subprocess.run([MAKE_REPORT, path, os.path.join(DIR, "x"), PRICES,
                              "cost.instance=warp-drive"], capture_output=True, text=True,
                             check=False)
    assert refused.returncode == 2 and "example-1gpu" in refused.stderr, refused


def check_no_price_kept(path):
    """Where the file keeps no price and none is asked for, cost is null and a note says why."""
    prefix = os.path.join(DIR, "unpriced")
    subprocess.run([MAKE_REPORT, path, prefix], check=True, cwd="/")
    report = json.loads(pathlib.Path(f"{prefix}.json").read_text(encoding="utf-8"))
    jsonschema.validate(report, SCHEMA)
    assert report["cost"]["usd_per_hour"] is None and report["cost"]["by_step"] == []
    assert any("no price of example-1gpu" in line for line in report["run"]["warnings"])
    assert report["run"]["valid"]


def check_below(truth):
    """Rates far below capacity: no saturation, and no number for it."""
    rate = truth["saturation_rps"]
    path, _ = make_run("below", "--rates", ",".join(f"{rate * x:.3f}" for x in (0.2, 0.35, 0.5)),
                       "--step", "60")
    report, texts = make_report(path, "below")
    jsonschema.validate(report, SCHEMA)
    assert report["saturation"]["verdict"] == "not_reached"
    assert report["saturation"]["rate_rps"] is None
    assert "where more than 1 % failed" not in texts["html"]
    assert report["cost"]["at_saturation"]["usd_per_m_output"]["value"] is None
    assert "not reached" in texts["html"]


os.makedirs(DIR, exist_ok=True)
SCHEMA = json.loads((SOURCE / "docs/report.schema.json").read_text(encoding="utf-8"))
jsonschema.Draft202012Validator.check_schema(SCHEMA)
FILE, TRUTH = make_run("known")
REPORT, TEXTS = make_report(FILE, "first")
assert make_report(FILE, "second")[1] == TEXTS, "same file in, same bytes out"
jsonschema.validate(REPORT, SCHEMA)
with h5py.File(FILE) as file:
    for index, one in enumerate(REPORT["steps"]):
        check_step(one, file[f"steps/{index:04d}"])
        check_stages(one)
assert REPORT["run"]["valid"] and REPORT["run"]["complete"]
check_answers(REPORT, TRUTH)
check_page(TEXTS["html"])
assert "VALID" in TEXTS["txt"] and "EXAMPLE PRICE" in TEXTS["txt"]
check_failures_shown(REPORT, TEXTS)
check_goodput_marked()
PLAIN = " ".join(TEXTS["txt"].split())
assert all(f"{term} {text}" in PLAIN for term, text in REPORT["definitions"].items())
check_missing(FILE)
check_no_price_kept(FILE)
check_below(TRUTH)
check_with_gpus()
assert "Energy of a token" not in TEXTS["html"] and REPORT["steps"][0]["gpus"] is None
print("report: ok")
