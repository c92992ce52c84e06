"""`tidemark run target.kind=openai` against servers that are right, wrong, slow, dead, or not there.

What each request came to is read from the result file with h5py; what a user sees is the exit code, one
line on stderr for the first failure of a kind, and the report. Runs go side by side: they mostly wait.
The fault server is named by FAULT_SERVER.
"""

import concurrent.futures
import http.server
import os
import signal
import socket
import subprocess
import threading
import time
import unittest

import h5py
import numpy as np

import tidemark_cli as cli
from serve import FAULTS, Server

NONE = 2**32 - 1  # of a column of token counts
NO_TIME = np.iinfo(np.int64).min
N_OUT = 8
WAIT_S = 0.3  # of the faults that wait
AT_ONCE = 3 if cli.SANITIZED else 6
KEY = "sk-7f3e-never-to-be-shown"


class Finished:
    """A run that has ended: its result and the first step's columns."""

    def __init__(self, path, result):
        self.path, self.result = path, result
        steps = cli.read_steps(path) if os.path.exists(path) else []
        if steps:
            self.step, self.r = steps[0], steps[0].requests

    def outcomes(self):
        return sorted(set(self.step.outcomes().values()))

    def column(self, name):
        return set(self.r[name].tolist())

    def seconds(self, to, since="t_send_ns"):
        return (self.r[to] - self.r[since]) / 1e9

    def gaps_us(self, i):
        return self.step.dt_us[int(self.step.offsets[i]):][:int(self.r["n_out"][i])]


def lines_of(result):
    return cli.own_lines(result.err)


class EndpointTest(cli.TestCase):
    def begin(self, url, *settings, name="run", env=None):
        """A light run of half a second, started; settings win over what is here.

        Replies have all the time that a slow machine takes: the run ends with the last of them."""
        path = str(self.folder / f"{name}.h5")
        process = cli.start("run", "target.kind=openai", f"target.url={url}", "target.model=m",
                            "load.arrival=constant", "load.rates=20", "load.step=500ms",
                            "load.drain=40s", "load.warmup=0", "load.input_tokens=8",
                            f"load.output_tokens={N_OUT}", "-o", path, "--quiet", *settings, env=env)
        return path, process

    def load(self, url, *settings, **options):
        path, process = self.begin(url, *settings, **options)
        return Finished(path, process.finish())

    def clean(self, url, *settings, **options):
        """The same, where every request must come out well and nothing is said."""
        run = self.load(url, *settings, **options)
        self.assertEqual((run.result.code, lines_of(run.result)), (0, []), str(run.result))
        self.assertEqual(run.outcomes(), ["ok"])
        return run

    def side_by_side(self, jobs):
        """{name: function} -> {name: value}, several at once."""
        with concurrent.futures.ThreadPoolExecutor(AT_ONCE) as pool:
            started = {name: pool.submit(job) for name, job in jobs.items()}
            return {name: s.result() for name, s in started.items()}


def url_of(server):
    return f"http://127.0.0.1:{server.port}/v1"


# Of each fault: outcome, tokens, messages with tokens, status, what the line says beside the outcome.
GOOD = ("ok", N_OUT, N_OUT, 200, "")
EXPECTED = {
    **dict.fromkeys(("slow_first", "slow_head", "stall", "split_utf8", "split_data", "bytewise",
                     "odd_chunks", "chunk_extensions", "events_in_chunk", "crlf", "cr", "role_only",
                     "empty_events", "usage_last", "comments", "huge_line", "no_done", "late_done", "two_dones",
                     "close_after", "idle_close", "http10", "with_length"), GOOD),
    "reasoning": ("ok", N_OUT + 3, N_OUT + 3, 200, ""),
    "usage_each": ("ok", N_OUT, 3, 200, ""),
    "tokens_in_event": ("ok", N_OUT, N_OUT // 4, 200, ""),
    "stall_forever": ("timeout_total", 2, 2, 200, "time"),
    "never": ("timeout_first", 0, 0, 0, "time"),
    "head_only": ("timeout_first", 0, 0, 200, "time"),
    "bad_chunk": ("truncated", 1, 1, 200, "chunk"),
    "bad_json": ("bad_stream", 1, 1, 200, "not JSON"),
    "bad_path": ("bad_stream", 5, 5, 200, "not JSON"),
    "error_in_stream": ("bad_stream", 1, 1, 200, "scripted fault"),
    "truncated": ("truncated", 2, 2, 200, "closed"),
    "half_event": ("truncated", 1, 1, 200, "closed"),
    "short_length": ("truncated", N_OUT, N_OUT, 200, "100 bytes"),
    "reset_early": ("connect", 0, 0, 0, "reset"),
    "reset_mid": ("truncated", 2, 2, 200, "reset"),
    "close_early": ("connect", 0, 0, 0, "Empty reply"),
    "not_http": ("connect", 0, 0, 0, "HTTP"),
    "not_sse": ("bad_stream", 0, 0, 200, "not a stream of events"),
    "html": ("bad_stream", 0, 0, 200, "welcome"),
    "empty_body": ("truncated", 0, 0, 200, "no token"),
    **{f"http_{status}": ("http_status", 0, 0, status, f"status {status}")
       for status in (401, 404, 429, 500, 503)},
}


# What must come before a limit has seconds for it; nothing else meets one.
LIMITS = {"never": ["target.first_timeout=1s"], "head_only": ["target.first_timeout=3s"],
          "stall_forever": ["target.timeout=4s"]}


@unittest.skipUnless(FAULTS, "needs the fault server (FAULT_SERVER)")
class Faults(EndpointTest):
    def see(self, server, fault, *settings):
        return self.load(url_of(server), f"target.model=fault:{fault}", "target.check=false",
                         *LIMITS.get(fault, []), *settings, name=fault)

    def check(self, fault, run):
        outcome, n_out, n_chunks, status, says = EXPECTED[fault]
        self.assertEqual(run.result.code, 0, str(run.result))
        self.assertEqual(run.outcomes(), [outcome], str(run.result))
        self.assertEqual(len(run.r["id"]), 10)
        self.assertEqual([run.column(c) for c in ("n_out", "n_chunks", "http_status")],
                         [{n_out}, {n_chunks}, {status}])
        lines = lines_of(run.result)
        if outcome == "ok":
            self.assertEqual(lines, [])
        else:
            self.assertEqual(len(lines), 1, lines)
            self.assertIn(outcome, lines[0])
            self.assertIn(says, lines[0])
            self.assertLess(len(lines[0]), 400)

    def test_every_fault(self):
        listed = subprocess.run([FAULTS, "--list"], capture_output=True, text=True, check=True)
        names = [line.split("\t")[0] for line in listed.stdout.splitlines()]
        self.assertEqual(sorted(names), sorted(EXPECTED))
        with Server(program=FAULTS) as s:
            runs = self.side_by_side({n: lambda n=n: self.see(s, n) for n in names})
        for name, run in runs.items():
            with self.subTest(name):
                self.check(name, run)
        self.check_times(runs)

    def check_times(self, runs):
        """The first token is the first one with text, and gaps are where the server waited.

        A client that is held up sees less of a wait, never all replies of a run."""
        for name in ("slow_first", "role_only", "empty_events", "slow_head"):
            with self.subTest(name):
                self.assertGreater(runs[name].seconds("t_first_ns").min(), 0.9 * WAIT_S)
        for name in ("role_only", "empty_events"):
            with self.subTest(name):
                self.assertLess(runs[name].seconds("t_byte_ns").min(), 0.5 * WAIT_S)
        stall = runs["stall"]
        self.assertGreater(stall.seconds("t_last_ns").min(), 0.9 * WAIT_S)
        for i in range(10):
            self.assertEqual(np.argmax(stall.gaps_us(i)), 2)
        self.assertGreater(max(stall.gaps_us(i)[2] for i in range(10)), 0.9e6 * WAIT_S)
        several = runs["tokens_in_event"]
        self.assertEqual(several.column("n_out_usage"), {N_OUT})
        for i in range(10):
            gaps = several.gaps_us(i)
            self.assertGreater(gaps[0], 0)
            self.assertEqual([*gaps[1:4], *gaps[5:]], [0] * 6)
        reasoning = runs["reasoning"]
        self.assertGreater(reasoning.seconds("t_content_ns").min(), 0.6 * WAIT_S)
        self.assertGreater(np.median(reasoning.seconds("t_content_ns", "t_first_ns")), 0.6 * WAIT_S)

    def test_the_text_of_an_error_is_no_answer(self):
        """A tokenizer counts what was answered, not what was said of the failure."""
        tokenizer = f"target.tokenizer={cli.shared('models/stories260K')}"
        faults = ("bad_json", "bad_path", "error_in_stream")
        with Server(program=FAULTS) as s:
            runs = self.side_by_side({f: lambda f=f: self.see(s, f, tokenizer) for f in faults})
        for fault, run in runs.items():
            with self.subTest(fault):
                self.check(fault, run)
                self.assertEqual(run.column("n_out_local"), {NONE})

    def test_short_timeout_of_the_first_token(self):
        with Server(program=FAULTS) as s:
            run = self.see(s, "slow_first=30s", "target.first_timeout=100ms")
        self.assertEqual(run.outcomes(), ["timeout_first"])
        self.assertEqual(run.column("t_first_ns"), {NO_TIME})

    def test_continuous_usage(self):
        """Tokens of each event are the server's own count, whatever its text."""
        with Server(program=FAULTS) as s:
            run = self.see(s, "usage_each=3s", "target.usage=continuous")
        self.assertEqual(run.outcomes(), ["ok"])
        self.assertEqual(run.column("n_out"), {N_OUT})
        for i in range(10):
            gaps = run.gaps_us(i)
            self.assertEqual([*gaps[1:5], gaps[6]], [0] * 5)
            self.assertGreater(min(gaps[5], gaps[7]), 0.6e6)  # of a second each

    def test_short_timeout_in_all(self):
        with Server(program=FAULTS) as s:
            run = self.see(s, "stall=30s", "target.timeout=2s")
        self.assertEqual(run.outcomes(), ["timeout_total"])
        self.assertEqual(run.column("n_out"), {2})

    def judge(self, run):
        self.assertEqual(run.outcomes(), ["ok"], str(run.result))
        return self.good("report", run.path, "--format", "json").json()["steps"][0]

    def test_a_place_at_the_cap_is_free_at_the_end_of_a_stream(self):
        """An answer has its tokens at once and takes 30 ms: what waits for that waits at the cap."""
        with Server(program=FAULTS) as s:
            run = self.see(s, "late_done=30ms", "target.max_concurrency=1", "load.rates=35",
                           "load.step=2s")
        step = self.judge(run)
        self.assertNotEqual(step["verdict"], "client_limited", step["reason"])
        self.assertLess(step["send_lag_us"]["p50"], 10000)
        self.assertGreater(step["cap_wait_us"]["p50"], 20000)
        self.assertLess(step["e2e_service_ms"]["p50"], 20)  # latencies end with the last token

    def test_users_go_on_at_the_end_of_a_stream(self):
        with Server(program=FAULTS) as s:
            run = self.see(s, "late_done=30ms", "load.rates=", "load.arrival=closed", "load.users=2",
                           "load.step=2s")
        step = self.judge(run)
        self.assertGreater(len(run.r["id"]), 20)
        self.assertLess(step["ttft_ms"]["p50"] - step["ttft_service_ms"]["p50"], 10)
        self.assertLess(step["ttft_ms"]["p50"], 20)

    def test_failures_are_kept(self):
        """Every 20th request fails: who asks for the latency is told so, and goodput counts them all."""
        with Server(program=FAULTS) as s:
            run = self.load(url_of(s), 'target.headers=["X-Fault: http_500/20"]', "load.rates=200",
                            "load.step=2s", "slo.ttft=20s", "target.check=false")
        outcomes = list(run.step.outcomes().values())
        self.assertEqual((outcomes.count("ok"), outcomes.count("http_status")), (380, 20))
        self.assertEqual(len(lines_of(run.result)), 1, str(run.result))

        step = self.good("report", run.path, "--format", "json").json()["steps"][0]
        self.assertEqual(step["verdict"], "errors")
        ok = run.r["outcome"] == 0
        ttft = run.seconds("t_first_ns", "t_sched_ns") * 1e3
        with_failed = np.sort(np.where(ok, ttft, np.inf))
        self.assertAlmostEqual(step["ttft_ms"]["p50"], np.percentile(ttft[ok], 50), places=6)
        self.assertAlmostEqual(step["ttft_ms"]["p50_error_adjusted"], np.percentile(with_failed, 50),
                               places=6)
        self.assertIsNotNone(step["ttft_ms"]["p99"])
        self.assertIsNone(step["ttft_ms"]["p99_error_adjusted"])
        self.assertEqual(step["goodput"]["failed_share"], 0.05)
        self.assertEqual(step["goodput"]["attainment"], 0.95)
        self.assertAlmostEqual(step["goodput"]["rps"], 190, places=3)

        text = self.good("report", run.path).out
        line = next(l for l in text.splitlines() if l.startswith("step 0: ") and "failed" in l)
        for part in ("20 of 400 failed (5.0 %)", "ms without them", "as infinite, p50 ",
                     "p99 infinite ms", "goodput 190/s, 95.0 % of all"):
            self.assertIn(part, line)
        row = next(l for l in text.splitlines() if l.endswith("errors"))
        self.assertIn(" 0.95! ", row)  # goodput never stands alone
        html = self.good("report", run.path, "--format", "html").out
        self.assertIn("5.0 % failed", html)
        self.assertIn("\u221e", html)


class Counts(EndpointTest):
    def test_tokens_per_event(self):
        with Server("serve.model=m", "serve.tokens_per_event=4", "serve.itl=50ms") as s:
            runs = self.side_by_side({
                usage: lambda usage=usage: self.clean(url_of(s), f"target.usage={usage}", name=usage)
                for usage in ("final", "continuous", "none")})
        for usage in ("final", "continuous"):  # the latter is not what this server does
            with self.subTest(usage):
                run = runs[usage]
                self.assertEqual([run.column(c) for c in ("n_out", "n_chunks", "n_out_usage")],
                                 [{N_OUT}, {2}, {N_OUT}])
                for i in range(10):
                    gaps = np.sort(run.gaps_us(i)[1:])
                    self.assertEqual(gaps[:-1].sum(), 0)
                    self.assertGreater(gaps[-1], 50000)  # four tokens take 200 ms
        self.assertEqual(runs["none"].column("n_out_usage"), {NONE})
        self.assertEqual(runs["none"].column("n_out"), {2})  # an event is all that is known of

    def test_whole_replies(self):
        with Server("serve.model=m", "serve.ttft=20ms") as s:
            runs = self.side_by_side({
                api: lambda api=api: self.clean(url_of(s), "target.stream=false",
                                                f"target.api={api}", name=api)
                for api in ("chat", "completions")})
        for run in runs.values():
            self.assertEqual([run.column(c) for c in ("n_out", "n_chunks")], [{N_OUT}, {1}])
            np.testing.assert_array_equal(run.r["t_first_ns"], run.r["t_last_ns"])

    def test_ids(self):
        folder = cli.shared("models/stories260K")
        with Server("serve.model=m") as s:
            run = self.clean(url_of(s), "target.api=completions", "target.prompt=ids",
                             f"target.tokenizer={folder}")
        self.assertEqual(run.column("n_in_usage"), {8})
        self.assertEqual(run.column("n_out"), {N_OUT})
        self.assertNotIn(NONE, run.column("n_out_local"))

    def test_weights(self):
        with Server("serve.model=m") as a, Server("serve.model=m") as b:
            run = self.clean(f"{url_of(a)},{url_of(b)}", "target.url_weights=3,1", "load.rates=400")
            served = [s.metrics()["vllm:request_success_total"] for s in (a, b)]
        by_record = [int((run.r["replica"] == i).sum()) for i in (0, 1)]
        self.assertEqual(by_record, served)
        self.assertAlmostEqual(by_record[0] / 200, 0.75, delta=0.12)  # four standard deviations

    def test_cap(self):
        with Server("serve.model=m", "serve.ttft=50ms") as s:
            run = self.clean(url_of(s), "target.max_concurrency=2", "load.rates=80")
        events = sorted([(t, 1) for t in run.r["t_send_ns"]] + [(t, -1) for t in run.r["t_last_ns"]])
        self.assertEqual(max(np.cumsum([n for _, n in events])), 2)
        self.assertGreater(run.r["cap_wait_us"].max(), 200000)

    def test_metrics_are_scraped(self):
        with Server("serve.model=m", "serve.ttft=300ms", "serve.max_concurrent=1") as s:
            run = self.load(url_of(s), "target.metrics_rate=10", "load.step=2s", "load.rates=5")
        queue = self.good("report", run.path, "--format", "json").json()["steps"][0]["queue"]
        self.assertGreater(queue["waiting"]["max"], 1)
        self.assertEqual(queue["running"]["max"], 1)
        self.assertIsNotNone(queue["kv_used"]["mean"])

    def test_the_client_shows_how_it_kept_up(self):
        with Server("serve.model=m", "serve.itl=1ms") as s:
            run = self.clean(url_of(s))
        step = self.good("report", run.path, "--format", "json").json()["steps"][0]
        text, page = self.shown(run.path)
        for key in ("stamp_us", "chunk_us"):
            self.assertGreater(step[key]["p50"], 0)
            self.assertGreaterEqual(step[key]["p99"], step[key]["p50"])
        self.assertRegex(text, r"\nstep 0: the client's p99 in us: send lag [0-9.]+, poll gap [0-9.]+, "
                               r"arrival to read [0-9.]+, handling [0-9.]+\n")
        self.assertIn("<th>arrival to read<br>", page)

        config = cli.small_run(self.folder, target__kind="null", load__step="300ms", results=str(self.folder / "null.h5"))
        self.assertIn("\nstep 0: the client's p99 in us: send lag ", self.good("run", config).out)
        step = self.good("report", self.folder / "null.h5", "--format", "json").json()["steps"][0]
        text, page = self.shown(self.folder / "null.h5")
        for key in ("stamp_us", "chunk_us"):
            self.assertEqual(step[key], {"p50": None, "p99": None})
        self.assertRegex(text, r"\nstep 0: the client's p99 in us: send lag [0-9.]+, poll gap [0-9.]+\n")
        self.assertNotIn("<th>arrival to read<br>", page)

    def shown(self, path):
        """Text and page of its report."""
        page = self.folder / "page.html"
        self.good("report", path, "--format", "html", "-o", page)
        return self.good("report", path).out, page.read_text()

    def test_a_metric_that_is_not_told_is_missing(self):
        class Metrics(http.server.BaseHTTPRequestHandler):
            def do_GET(self):
                self.send_response(200)
                self.end_headers()
                self.wfile.write(b"vllm:num_requests_running 3\n")

            def log_message(self, *_):
                pass

        with Server("serve.model=m") as s, http.server.HTTPServer(("127.0.0.1", 0), Metrics) as metrics:
            threading.Thread(target=metrics.serve_forever, daemon=True).start()
            run = self.load(url_of(s), f"target.metrics=http://127.0.0.1:{metrics.server_port}/metrics",
                            "target.metrics_rate=10", "load.step=1s")
            metrics.shutdown()
        self.assertEqual(run.result.code, 0, str(run.result))
        report = self.good("report", run.path, "--format", "json").json()
        queue, missing = report["steps"][0]["queue"], {"mean": None, "p50": None, "max": None}
        self.assertEqual(queue, {"running": {"mean": 3, "p50": 3, "max": 3}, "waiting": missing,
                                 "kv_used": missing, "preemptions": None, "prefix_hit_share": None})
        self.assertIn("target.metrics_rate", report["definitions"]["queue, running"])
        self.assertIn("read target.metrics_rate times a second", self.shown(run.path)[1])
        self.good("validate", run.path)

    def test_load_ranks_share_one_schedule(self):
        with Server("serve.model=m") as s:
            runs = [self.clean(url_of(s), "load.arrival=poisson", "load.rates=100",
                               f"load.ranks={ranks}", name=f"ranks{ranks}") for ranks in (1, 2)]
        one, two = (run.step for run in runs)
        self.assertEqual(one.attrs["schedule_hash"], two.attrs["schedule_hash"])
        self.assertEqual(sorted(one.schedule()), sorted(two.schedule()))
        self.assertGreater(len(one.schedule()), 20)


class Recorder:
    """A server that keeps what it is asked, by whom and when, and answers 500 with all the headers it
    got. It closes each connection."""

    def __init__(self, status=500):
        self.asked = asked = []

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self):
                self.rfile.read(int(self.headers.get("Content-Length", 0)))
                asked.append((self.path, dict(self.headers), self.client_address[0], time.monotonic()))
                text = f"I was told: {dict(self.headers)}".encode()
                self.send_response(status)
                self.send_header("Content-Length", str(len(text)))
                self.end_headers()
                self.wfile.write(text)

            do_POST = do_CONNECT = do_GET

            def log_message(self, *_):
                pass

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.port = self.server.server_port

    def __enter__(self):
        self.thread = threading.Thread(target=self.server.serve_forever)
        self.thread.start()
        return self

    def __exit__(self, *_):
        self.server.shutdown()
        self.thread.join()
        self.server.server_close()


class Secrets(EndpointTest):
    def assert_nowhere(self, secret, *results):
        for result in results:
            self.assertNotIn(secret, result.out + result.err)
        files = [p for p in self.folder.rglob("*") if p.is_file() and p.name != "key"]
        self.assertTrue(files)
        for path in files:
            self.assertNotIn(secret.encode(), path.read_bytes(), path)

    def attributes(self, path):
        found = []
        with h5py.File(path) as f:
            f.visititems(lambda _, node: found.extend(map(str, node.attrs.values())))
            found.extend(map(str, f.attrs.values()))
        return "\n".join(found)

    def test_key_arrives_and_is_shown_nowhere(self):
        key_file = self.folder / "key"
        key_file.write_text(KEY + "\n")
        env = {"TIDEMARK_TEST_KEY": KEY}
        with Server("serve.model=m", "serve.api_key_env=TIDEMARK_TEST_KEY", env=env) as s:
            runs = [self.clean(url_of(s), "target.api_key_env=TIDEMARK_TEST_KEY", env=env, name="e"),
                    self.clean(url_of(s), f"target.api_key_file={key_file}", name="f")]
            self.refused(["run", "target.kind=openai", f"target.url={url_of(s)}", "target.model=m",
                          "-o", str(self.folder / "no.h5")], "401", "target.api_key_env")
        reports = [self.good("report", run.path, "--format", form)
                   for run in runs for form in ("text", "json", "html")]
        self.assert_nowhere(KEY, *(run.result for run in runs), *reports)
        for run in runs:
            self.assertNotIn(KEY, self.attributes(run.path))

    def test_key_is_not_in_a_journal(self):
        env = {"TIDEMARK_TEST_KEY": KEY}
        with Server("serve.model=m", "serve.api_key_env=TIDEMARK_TEST_KEY", env=env) as s:
            path, process = self.begin(url_of(s), "target.api_key_env=TIDEMARK_TEST_KEY",
                                       "load.rates=100", "load.step=30s", env=env)
            journal = self.folder / "run.h5.journal"
            process.wait_until(lambda: cli.journal_bytes(journal) > 10000, "journal")
            process.signal(signal.SIGKILL)
            result = process.finish()
            self.assertTrue(journal.exists())
            self.assert_nowhere(KEY, result)

    def test_what_a_server_says_of_secrets_is_masked(self):
        env = {"TIDEMARK_TEST_KEY": KEY, "TIDEMARK_TEST_TENANT": "tenant-" + KEY[::-1]}
        settings = ["target.api_key_env=TIDEMARK_TEST_KEY",
                    'target.headers=["X-Tenant: ${TIDEMARK_TEST_TENANT}"]']
        with Recorder() as s:
            before = self.load(url_of(s), *settings, env=env)
            run = self.load(url_of(s), *settings, "target.check=false", env=env)
            sent = s.asked[-1][1]
        self.assertEqual(sent["Authorization"], "Bearer " + KEY)
        self.assertEqual(sent["X-Tenant"], env["TIDEMARK_TEST_TENANT"])
        self.assertNotIn("Expect", sent)  # an empty one is refused by some servers
        self.assertEqual(before.result.code, 1)
        self.assertEqual(run.outcomes(), ["http_status"])
        for result in (before.result, run.result):
            self.assertEqual(len(lines_of(result)), 1, str(result))
            self.assertIn("***", result.err)
            self.assert_nowhere(KEY, result)
            self.assert_nowhere(env["TIDEMARK_TEST_TENANT"], result)

    def test_proxies_of_the_environment_are_ignored(self):
        with Server("serve.model=m") as s, Recorder() as proxy:
            at = f"http://127.0.0.1:{proxy.port}"
            env = {name: at for name in ("http_proxy", "HTTP_PROXY", "https_proxy", "HTTPS_PROXY",
                                         "all_proxy", "ALL_PROXY")}
            env.update(no_proxy="", NO_PROXY="")
            self.clean(url_of(s), env=env)
            self.assertEqual(proxy.asked, [])
            asked_for = self.load(url_of(s), f"target.proxy={at}", name="proxied")
            self.assertEqual(asked_for.result.code, 1)
            self.assertTrue(proxy.asked[0][0].startswith(url_of(s)), proxy.asked)


class Dying(EndpointTest):
    def test_killed(self):
        with Server("serve.model=m") as s:
            path, process = self.begin(url_of(s), "load.rates=50", "load.step=5s")
            s.process.wait_until(lambda: s.metrics()["vllm:request_success_total"] > 10, "requests")
            s.process.signal(signal.SIGKILL)
            s.process.finish()
            run = Finished(path, process.finish())
        self.assertEqual(run.result.code, 0, str(run.result))
        outcomes = list(run.step.outcomes().values())
        self.assertEqual(len(outcomes), 250)
        self.assertGreater(outcomes.count("ok"), 10)
        self.assertGreater(outcomes.count("connect"), 30)
        self.assertLessEqual(set(outcomes), {"ok", "connect", "truncated"})
        self.assertLessEqual(len(lines_of(run.result)), 2, str(run.result))

    def test_hangs(self):
        with Server("serve.model=m", "serve.itl=20ms") as s:
            path, process = self.begin(url_of(s), "load.rates=50", "load.step=4s",
                                       "target.first_timeout=2s", "target.timeout=4s")
            s.process.wait_until(lambda: s.metrics()["vllm:request_success_total"] > 10, "requests")
            s.process.signal(signal.SIGSTOP)
            run = Finished(path, process.finish())
            s.process.signal(signal.SIGCONT)
        self.assertEqual(run.result.code, 0, str(run.result))
        outcomes = list(run.step.outcomes().values())
        self.assertGreater(outcomes.count("ok"), 5)
        self.assertGreater(outcomes.count("timeout_first"), 20)
        self.assertGreater(outcomes.count("timeout_total"), 0)  # their first tokens had come
        self.assertLessEqual(set(outcomes), {"ok", "timeout_first", "timeout_total"})
        self.assertEqual(len(lines_of(run.result)), 2, str(run.result))


class NotThere(EndpointTest):
    """Before the run: one line and no run. Without asking before: a run of counted failures."""

    def test_not_there(self):
        with Server("serve.model=llama") as s, Recorder(200) as other, socket.create_server(
                ("127.0.0.1", 0)) as silent, socket.socket() as closed:
            closed.bind(("127.0.0.1", 0))
            url = {
                "refused": f"http://127.0.0.1:{closed.getsockname()[1]}/v1",
                "no name": "http://no-such-host.invalid/v1",
                "TLS": f"https://127.0.0.1:{s.port}/v1",
                "model": url_of(s),
                "not an API": url_of(other),
                "silent": f"http://127.0.0.1:{silent.getsockname()[1]}/v1",
            }
            says = {"refused": (1, "connect"), "no name": (1, "no-such-host.invalid"),
                    "TLS": (1, ("SSL", "TLS")), "model": (2, "llama"),
                    "not an API": (1, "not a list of models"), "silent": (1, ("timed out", "Timeout"))}
            later = {"refused": "connect", "no name": "connect", "TLS": "connect",
                     "model": "http_status", "not an API": "bad_stream",
                     "silent": "timeout_first"}
            # Only who says nothing meets a limit; all else happens on a slow machine, too.
            limit = {"silent": ["target.timeout=2s", "target.first_timeout=1s"]}
            jobs = {(name, "before"): lambda n=name: self.load(
                url[n], *limit.get(n, ["target.timeout=1m"]), name=n + "1") for name in says}
            jobs.update({(name, "later"): lambda n=name: self.load(
                url[n], "target.check=false", "target.metrics=none", *limit.get(n, []),
                name=n + "2") for name in later})
            runs = self.side_by_side(jobs)
        for name, (code, text) in says.items():
            with self.subTest(name):
                self.one_clear_line(runs[name, "before"].result, text, code=code)
                self.assertFalse(os.path.exists(runs[name, "before"].path))
        for name, outcome in later.items():
            with self.subTest(name):
                run = runs[name, "later"]
                self.assertEqual(run.result.code, 0, str(run.result))
                self.assertEqual(run.outcomes(), [outcome])
                self.assertEqual(len(lines_of(run.result)), 1, str(run.result))


class WrongSettings(EndpointTest):
    def test_wrong_settings(self):
        (self.folder / "empty").write_text("\n")
        wrong = (
            ("target.url=ftp://a/v1", "target.url", "http://HOST"),
            ("target.url=http://u:hidden@a/v1", "target.url", "target.api_key_env"),
            ("target.url=http://a/v1?x=1", "target.url"),
            ("target.url_weights=1,2", "target.url_weights"),
            ("target.url_weights=0", "target.url_weights"),
            ("target.api=chats", "target.api", "completions"),
            ("target.prompt=ids", "target.prompt", "target.tokenizer"),
            ("target.usage=all", "target.usage", "continuous"),
            ("target.headers=[nothing]", "target.headers"),
            ('target.headers=["Authorization: Bearer hidden"]', "target.headers", "${VAR}"),
            ('target.headers=["X-Key: ${TIDEMARK_NOT_SET}"]', "TIDEMARK_NOT_SET"),
            ("target.extra_body='[1]'", "target.extra_body", "object"),
            ("target.extra_body='{\"stream\": false}'", "target.extra_body", "stream"),
            ("target.api_key=hidden", "target.api_key"),
            ("target.api_key_env=TIDEMARK_NOT_SET", "TIDEMARK_NOT_SET"),
            ("target.api_key_file=/nowhere/key", "target.api_key_file", "/nowhere/key"),
            (f"target.api_key_file={self.folder}/empty", "target.api_key_file", "empty"),
            ("target.key_file=/nowhere/key.pem", "target.key_file", "target.cert_file"),
            ("target.ca_file=/nowhere/ca.pem", "/nowhere/ca.pem"),
            ("target.first_timeout=5", "target.first_timeout"),
            ("target.tokenizer=/nowhere", "/nowhere"),
            ("target.metrics_rate=50", "target.metrics_rate", "10"),
            ("target.max_concurrency=-1", "target.max_concurrency"),
            ("target.metrics=http://u:hidden@a/metrics", "target.metrics", "password"),
            ("target.proxy=http://u:hidden@a:1", "target.proxy", "${VAR}"),
            ("target.proxy=u:hidden@a:1", "target.proxy", "${VAR}"),
            ("target.proxy='u:${TIDEMARK_NOT_SET}@a:1'", "target.proxy", "TIDEMARK_NOT_SET"),
        )
        with Server("serve.model=m") as s:
            results = self.side_by_side({
                w: lambda i=i, w=w: self.load(url_of(s), w[0], name=str(i)) for i, w in enumerate(wrong)})
        for (setting, *says), run in results.items():
            with self.subTest(setting):
                self.one_clear_line(run.result, *says)
                self.assertNotIn("hidden", run.result.err)


if __name__ == "__main__":
    cli.main()
