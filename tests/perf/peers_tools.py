"""The load generators of peers.py: how each is started, and what its result file says.

A tool has `command(load, url, folder)`, where a load is a closed loop of `users` that ends after
`requests` requests of `tokens` tokens, and `read(folder)`: what it reports, in ms and tokens/s, by
the names of FIGURES (medians of ttft and e2e, else means), and the mean of requests in flight where
it says that. `starts_ns(folder, watch)` are its stamps of sending on the monotonic clock, None where
it keeps none. `as_tidemark` says the same figures of tidemark's raw records under the tool's
definitions; docs/peers.md has these in words.
"""

import collections
import copy
import json
import os
import pathlib
import statistics
import subprocess

FIGURES = ["ttft", "tpot", "itl", "e2e", "throughput"]
MEDIANS = ["ttft", "e2e"]
PROMPT = 32  # tokens
MODEL = "m"
Load = collections.namedtuple("Load", "users requests tokens seconds stream")


class Records:
    """Columns of a tidemark step in ms: sent, first byte, first token, last token; and tokens."""

    def __init__(self, requests):
        ok = requests["outcome"] == 0
        self.n = requests["n_out"][ok].astype(float)
        columns = [requests[f"t_{name}_ns"][ok] / 1e6 for name in ("send", "byte", "first", "last")]
        self.s, self.b, self.f, self.l = columns

    def sent_earlier(self, ms):
        """The same, but with the stamp of sending taken so much earlier."""
        other = copy.copy(self)
        other.s = self.s - ms
        return other

    def throughput(self):
        return 1e3 * self.n.sum() / (self.l.max() - self.s.min())

    def in_flight(self):
        return (self.l - self.s).sum() / (self.l.max() - self.s.min())


def median(column):
    return statistics.median(column.tolist())


def per_token_after_first(r):
    """The definitions that guidellm's ITL, aiperf and inference-perf share."""
    gap = ((r.l - r.f) / (r.n - 1)).mean()
    return {"ttft": median(r.f - r.s), "itl": gap, "e2e": median(r.l - r.s),
            "throughput": r.throughput()}


class Tool:
    environ = {}

    def __init__(self, tools):
        self.home = tools / self.name
        self.tokenizer = str(tools / "tokenizer")

    def why_not(self):
        failed = self.home.with_name(self.name + ".failed")
        return failed.read_text().strip() if failed.exists() else None

    def version(self):
        pip = [self.home / "bin" / "python", "-m", "pip", "show", self.name]
        said = subprocess.run(pip, capture_output=True, text=True, check=False).stdout
        return said.split("Version: ")[1].split()[0]

    def script(self):
        return str(self.home / "bin" / self.name)

    def starts_ns(self, folder, watch):
        return None


class Guidellm(Tool):
    name = "guidellm"
    language = "Python"
    environ = {"HF_HUB_OFFLINE": "1"}

    def command(self, load, url, folder):
        shape = f"prompt_tokens={PROMPT},output_tokens={load.tokens}"
        return [self.script(), "run", "--backend", f"kind=openai_http,target={url},model={MODEL}",
                "--profile", f"kind=concurrent,streams={load.users}",
                "--constraint", f"kind=max_requests,count={load.requests}",
                "--tokenizer", f"kind=huggingface_auto,model={self.tokenizer}",
                "--data", f"kind=synthetic_text,{shape}",
                "--output", f"kind=json,path={folder}/guidellm.json",
                "--disable-console-interactive"]

    def read(self, folder):
        metrics = json.loads((folder / "guidellm.json").read_text())["benchmarks"][0]["metrics"]

        def mean(name, what="mean"):
            return metrics[name]["successful"][what]

        return {"ttft": mean("time_to_first_token_ms", "median"),
                "tpot": mean("time_per_output_token_ms"), "itl": mean("inter_token_latency_ms"),
                "e2e": 1e3 * mean("request_latency", "median"),
                "throughput": mean("output_tokens_per_second"),
                "in_flight": mean("request_concurrency")}

    def starts_ns(self, folder, watch):
        requests = json.loads((folder / "guidellm.json").read_text())["benchmarks"][0]["requests"]
        return [watch.monotonic(round(1e9 * r["info"]["timings"]["request_start"]))
                for kind in requests.values() for r in kind or []]

    def as_tidemark(self, r):
        return dict(per_token_after_first(r), tpot=(r.l - r.s).sum() / r.n.sum())


class Aiperf(Tool):
    name = "aiperf"
    language = "Python"

    def command(self, load, url, folder):
        return [self.script(), "profile", "-m", MODEL, "--url", url, "--endpoint-type", "chat",
                "--streaming", "--tokenizer", self.tokenizer, "--concurrency", str(load.users),
                "--request-count", str(load.requests), "--isl", str(PROMPT), "--isl-stddev", "0",
                "--osl", str(load.tokens), "--osl-stddev", "0", "--extra-inputs",
                "ignore_eos:true", "--artifact-dir", str(folder / "aiperf"), "--ui", "none"]

    def read(self, folder):
        d = json.loads((folder / "aiperf" / "profile_export_aiperf.json").read_text())
        return {"ttft": d["time_to_first_token"]["p50"], "itl": d["inter_token_latency"]["avg"],
                "e2e": d["request_latency"]["p50"],
                "throughput": d["output_token_throughput"]["avg"],
                "in_flight": d["effective_concurrency"]["avg"]}

    def starts_ns(self, folder, watch):
        lines = (folder / "aiperf" / "profile_export.jsonl").read_text().splitlines()
        return [watch.monotonic(json.loads(line)["metadata"]["request_start_ns"]) for line in lines]

    def as_tidemark(self, r):
        return per_token_after_first(r)


class InferencePerf(Tool):
    name = "inference-perf"
    language = "Python"
    environ = {"HF_HUB_OFFLINE": "1"}

    def command(self, load, url, folder):
        config = {
            "api": {"type": "chat", "streaming": True},
            "data": {"type": "shared_prefix", "shared_prefix": {
                "num_groups": 1, "num_prompts_per_group": 64, "system_prompt_len": 1,
                "question_len": PROMPT - 1, "output_len": load.tokens}},
            "load": {"type": "concurrent", "num_workers": 1, "stages": [
                {"num_requests": load.requests, "concurrency_level": load.users}]},
            "server": {"type": "vllm", "model_name": MODEL, "base_url": url, "ignore_eos": True},
            "tokenizer": {"pretrained_model_name_or_path": self.tokenizer},
            "report": {"request_lifecycle": {"per_request": True}},
            "storage": {"local_storage": {"path": str(folder / "inference-perf")}}}
        path = folder / "inference-perf.yaml"
        path.write_text(json.dumps(config))
        return [self.script(), "-c", str(path)]

    def report(self, folder, name):
        path = next((folder / "inference-perf").rglob(f"{name}_lifecycle_metrics.json"))
        return json.loads(path.read_text())

    def read(self, folder):
        done = self.report(folder, "summary")["successes"]
        times = [(r["start_time"], r["end_time"]) for r in self.report(folder, "per_request")]
        starts, ends = zip(*times)

        def ms(name, what):
            return 1e3 * done["latency"][name][what]

        return {"ttft": ms("time_to_first_token", "median"),
                "tpot": ms("time_per_output_token", "mean"),
                "itl": ms("inter_token_latency", "mean"), "e2e": ms("request_latency", "median"),
                "throughput": done["throughput"]["output_tokens_per_sec"],
                "in_flight": (sum(ends) - sum(starts)) / (max(ends) - min(starts))}

    def starts_ns(self, folder, watch):
        return [round(1e9 * r["start_time"]) for r in self.report(folder, "per_request")]

    def as_tidemark(self, r):
        same = per_token_after_first(r)
        return dict(same, tpot=same["itl"])


class VllmBench(Tool):
    name = "vllm"
    language = "Rust"

    def version(self):
        return (self.home / "bin" / "vllm.version").read_text()

    def command(self, load, url, folder):
        return [str(self.home / "bin" / "vllm-rs"), "bench", "serve", "--backend", "openai-chat",
                "--base-url", url, "--endpoint", "/v1/chat/completions", "--model", MODEL,
                "--tokenizer", self.tokenizer, "--dataset-name", "random",
                "--random-input-len", str(PROMPT), "--random-output-len", str(load.tokens),
                "--num-prompts", str(load.requests), "--max-concurrency", str(load.users),
                "--ignore-eos", "--disable-tqdm", "--save-result", "--result-dir", str(folder),
                "--result-filename", "vllm.json"]

    def read(self, folder):
        d = json.loads((folder / "vllm.json").read_text())
        return {"ttft": d["median_ttft_ms"], "tpot": d["mean_tpot_ms"], "itl": d["mean_itl_ms"],
                "e2e": d["median_e2el_ms"], "throughput": d["output_throughput"]}

    def as_tidemark(self, r):
        return {"ttft": median(r.b - r.s), "tpot": ((r.l - r.b) / (r.n - 1)).mean(),
                "itl": (r.l - r.b).sum() / r.n.sum(), "e2e": median(r.l - r.s),
                "throughput": r.throughput()}


class Tidemark(Tool):
    name = "tidemark"
    language = "C"

    def __init__(self, tools, build):
        super().__init__(tools)
        self.binary = str(build / "tidemark")

    def version(self):
        return subprocess.run([self.binary, "--version"], capture_output=True, text=True,
                              check=True).stdout.split()[1]

    def command(self, load, url, folder):
        config = folder / "tidemark.yaml"
        config.write_text("name: peers\n")
        return [self.binary, "run", str(config), "target.kind=openai", f"target.url={url}/v1",
                f"target.model={MODEL}", "target.metrics=none",
                f"target.stream={str(load.stream).lower()}", "target.check=false",
                "load.arrival=closed", f"load.users={load.users}", "load.warmup=0",
                f"load.step={load.seconds}s", f"load.input_tokens={PROMPT}",
                f"load.output_tokens={load.tokens}", "--quiet", "--force", "-o",
                str(folder / "tidemark.h5")]

    def columns(self, folder):
        """(t0_ns, {name: column} of the requests)"""
        import h5py  # noqa: PLC0415: Debian's, for the one table that needs it

        with h5py.File(folder / "tidemark.h5", "r") as f:
            step = f[sorted(f"steps/{name}" for name in f["steps"] if name.isdigit())[-1]]
            columns = {name: column[()] for name, column in step["requests"].items()}
            return int(f.attrs["t0_ns"]), columns

    def records(self, folder):
        return Records(self.columns(folder)[1])

    def starts_ns(self, folder, watch):
        t0_ns, columns = self.columns(folder)
        return [t0_ns + int(t) for t in columns["t_send_ns"] if t >= 0]


class Reader(Tool):
    """No tool: recv and a count of events, the least that any client must do."""

    name = "epoll and recv"
    language = "C"

    def __init__(self, tools, build):
        super().__init__(tools)
        self.binary = str(build / "tests" / "sse_reader")

    def version(self):
        return "sse_reader.c"

    def why_not(self):
        return None if os.access(self.binary, os.X_OK) else "target sse_reader is not built"

    def command(self, load, url, folder):
        port = url.rsplit(":", 1)[1]
        return [self.binary, port, str(load.users), str(load.tokens), str(load.seconds)]


class Wrk(Tool):
    name = "wrk"
    language = "C"

    def version(self):
        said = subprocess.run(["wrk", "-v"], capture_output=True, text=True, check=False)
        return (said.stdout + said.stderr).split()[1]

    def why_not(self):
        found = any(os.access(pathlib.Path(p) / "wrk", os.X_OK) for p in os.get_exec_path())
        return None if found else "Debian package wrk is not installed"

    def command(self, load, url, folder):
        script = folder / "post.lua"
        body = json.dumps({"model": MODEL, "max_tokens": load.tokens, "messages": [
            {"role": "user", "content": "a " * PROMPT}]})
        script.write_text(f"wrk.method = 'POST'\nwrk.body = '{body}'\n"
                          "wrk.headers['Content-Type'] = 'application/json'\n")
        return ["wrk", "-t1", f"-c{load.users}", f"-d{load.seconds}s", "-s", str(script),
                f"{url}/v1/chat/completions"]
