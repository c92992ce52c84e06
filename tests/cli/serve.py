"""`tidemark serve target.kind=null` and the fault server, byte by byte: protocol, times, limits.

Clients are Python's http.client where a usual client is wanted, and plain sockets where bytes count.
The fault server is named by FAULT_SERVER.
"""

import concurrent.futures
import contextlib
import csv
import http.client
import json
import os
import re
import select
import signal
import socket
import subprocess
import time
import unittest

import tidemark_cli as cli

FAULTS = os.environ.get("FAULT_SERVER")
SLACK_S = 3.0 if cli.SANITIZED else 1.0  # what a busy machine may add to a time
QUIET_S = 2.0  # nothing for so long: nothing more comes


class Server:
    """A server under way: `with Server("serve.ttft=1ms") as s: s.port`."""

    def __init__(self, *settings, program=None, env=None, target="target.kind=null"):
        command = [program] if program else [cli.BINARY, "serve", target]
        self.process = cli.Process([*command, "serve.port=0", *settings], env=env)
        self.port = int(self.process.wait_until(self._where, "`listening on`").group(1))

    def _where(self):
        text = "".join(t for _, t in self.process.out_chunks)
        return re.fullmatch(r"listening on http://127\.0\.0\.1:(\d+)/v1\n", text)

    def __enter__(self):
        return self

    def __exit__(self, kind, *_):
        if kind:
            self.process.end()
        elif self.process.popen.poll() is None:
            self.stop()

    def stop(self):
        self.process.signal(signal.SIGTERM)
        result = self.process.finish()
        assert result.code == 0, str(result)
        assert len(result.out.splitlines()) == 1, str(result)
        return result

    def connect(self):
        return socket.create_connection(("127.0.0.1", self.port), timeout=cli.DEADLINE_S)

    def http(self):
        return http.client.HTTPConnection("127.0.0.1", self.port, timeout=cli.DEADLINE_S)

    def get(self, path, **headers):
        with contextlib.closing(self.http()) as c:
            return ask(c, "GET", path, None, headers)

    def post(self, path, body, **headers):
        with contextlib.closing(self.http()) as c:
            return ask(c, "POST", path, body, headers)

    def metrics(self):
        text = self.get("/metrics")[2].decode()
        return {m[1]: float(m[2]) for m in re.finditer(r"^([\w:]+)(?:{.*})? (\S+)$", text, re.M)}


def ask(connection, method, path, body=None, headers=()):
    """(status, headers, body) over this connection, which stays open."""
    if isinstance(body, dict):
        body = json.dumps(body)
    connection.request(method, path, body, dict(headers))
    reply = connection.getresponse()
    return reply.status, reply.headers, reply.read()


def completion(**more):
    return dict({"model": "m", "prompt": "one two three", "max_tokens": 4, "stream": True}, **more)


def chat(**more):
    return dict({"model": "m", "messages": [{"role": "user", "content": "one two"}],
                 "max_tokens": 4, "stream": True}, **more)


def raw(body, path="/v1/completions", **headers):
    """A request's bytes."""
    text = json.dumps(body)
    lines = [f"POST {path} HTTP/1.1", "Host: a", f"Content-Length: {len(text)}",
             *(f"{k.replace('_', '-')}: {v}" for k, v in headers.items())]
    return ("\r\n".join(lines) + "\r\n\r\n" + text).encode()


def events(body):
    """The events of a whole SSE body: JSON each; [DONE] must be last and is left out."""
    found = [e.removeprefix("data: ") for e in body.decode().split("\n\n")]
    assert found[-2:] == ["[DONE]", ""], found
    return [json.loads(e) for e in found[:-2]]


def read_all(s, quiet_s=None):
    """What comes: [(seconds, bytes)] and how it ended: "end", "reset", or "quiet" for so long."""
    got, began = [], time.monotonic()
    while True:
        if quiet_s and not select.select([s], [], [], quiet_s)[0]:
            return got, "quiet"
        try:
            data = s.recv(1 << 20)
        except ConnectionResetError:
            return got, "reset"
        if not data:
            return got, "end"
        got.append((time.monotonic() - began, data))


def joined(got):
    return b"".join(data for _, data in got)


class Answers(cli.TestCase):
    def test_streams(self):
        with Server() as s:
            status, head, body = s.post("/v1/completions",
                                        completion(stream_options={"include_usage": True}),
                                        **{"X-Request-Id": "3-17"})
            self.assertEqual(status, 200)
            self.assertIn("text/event-stream", head["Content-Type"])
            self.assertEqual(head["Transfer-Encoding"], "chunked")
            *tokens, usage = events(body)
            self.assertEqual(len(tokens), 4)
            self.assertEqual({t["id"] for t in tokens}, {"cmpl-3-17"})
            self.assertEqual({t["object"] for t in tokens}, {"text_completion"})
            self.assertEqual([t["choices"][0]["finish_reason"] for t in tokens],
                             [None, None, None, "length"])
            text = "".join(t["choices"][0]["text"] for t in tokens)
            self.assertEqual(len(text.split()), 4)
            self.assertEqual(usage["choices"], [])
            self.assertEqual(usage["usage"], {"prompt_tokens": 3, "completion_tokens": 4,
                                              "total_tokens": 7})

    def test_chats(self):
        with Server() as s:
            role, *tokens = events(s.post("/v1/chat/completions", chat())[2])
            self.assertEqual(role["choices"][0]["delta"], {"role": "assistant", "content": ""})
            self.assertEqual(len(tokens), 4)
            self.assertTrue(all(t["choices"][0]["delta"]["content"] for t in tokens))
            self.assertEqual({t["object"] for t in tokens}, {"chat.completion.chunk"})
        with Server("serve.role_chunk=false") as s:
            self.assertEqual(len(events(s.post("/v1/chat/completions", chat())[2])), 4)

    def test_whole_replies(self):
        with Server("serve.tokens=7") as s:
            status, head, body = s.post("/v1/completions", {"model": "m", "prompt": [5, 6, 7, 8]})
            reply = json.loads(body)
            self.assertEqual((status, head["Content-Type"]), (200, "application/json"))
            self.assertEqual(len(reply["choices"][0]["text"].split()), 7)
            self.assertEqual(reply["usage"], {"prompt_tokens": 4, "completion_tokens": 7,
                                              "total_tokens": 11})
            reply = json.loads(s.post("/v1/chat/completions", chat(stream=False))[2])
            self.assertEqual(len(reply["choices"][0]["message"]["content"].split()), 4)
            self.assertEqual(reply["object"], "chat.completion")
            long = json.loads(s.post("/v1/completions", {"model": "m", "prompt": "a",
                                                         "max_tokens": 100000})[2])
            self.assertEqual(len(long["choices"][0]["text"].split()), 100000)

    def test_other_paths(self):
        with Server("serve.model=llama") as s:
            self.assertEqual(json.loads(s.get("/v1/models")[2])["data"][0]["id"], "llama")
            self.assertIn("version", json.loads(s.get("/version")[2]))
            self.assertEqual(s.get("/health")[::2], (200, b""))
            self.assertEqual(s.get("/v1/nothing")[0], 404)
            self.assertEqual(s.get("/v1/completions")[0], 405)
            self.assertEqual(s.post("/v1/completions", completion())[0], 404)
            self.assertEqual(s.post("/v1/completions", completion(model="llama"))[0], 200)

    def test_wrong_bodies(self):
        with Server() as s:
            for body, says in ((b"{", "JSON"), (b"", "JSON"), ({"model": "m"}, "prompt"),
                               (completion(max_tokens=0), "max_tokens")):
                status, _, text = s.post("/v1/completions", body)
                error = json.loads(text)["error"]
                self.assertEqual((status, error["code"]), (400, 400))
                self.assertIn(says, error["message"])

    def test_api_key(self):
        with Server("serve.api_key_env=TIDEMARK_TEST_KEY", env={"TIDEMARK_TEST_KEY": "s3"}) as s:
            self.assertEqual(s.post("/v1/completions", completion())[0], 401)
            self.assertEqual(s.post("/v1/completions", completion(),
                                    Authorization="Bearer s4")[0], 401)
            self.assertEqual(s.post("/v1/completions", completion(),
                                    Authorization="Bearer s3")[0], 200)
            self.assertEqual(s.get("/v1/models")[0], 401)
            self.assertEqual(s.get("/health")[0], 200)


class Protocol(cli.TestCase):
    def test_one_connection_many_requests(self):
        with Server() as s, contextlib.closing(s.http()) as c:
            for _ in range(3):
                self.assertEqual(ask(c, "POST", "/v1/completions", completion())[0], 200)
                self.assertEqual(ask(c, "POST", "/v1/completions", b"{")[0], 400)
                self.assertEqual(ask(c, "GET", "/health")[0], 200)
            self.assertEqual(s.metrics()["tidemark_connections"], 2)

    def test_pipelined_requests_are_answered_in_order(self):
        with Server() as s, s.connect() as c:
            c.sendall(b"".join(raw(completion(max_tokens=n), X_Request_Id=f"r{n}")
                               for n in (3, 1, 2)))
            got, end = read_all(c, QUIET_S)
            self.assertEqual(end, "quiet")
            ids = re.findall(rb'"id":"cmpl-r(\d)"', joined(got))
            self.assertEqual(ids, [b"3", b"3", b"3", b"1", b"2", b"2"])

    def test_request_byte_by_byte(self):
        with Server() as s, s.connect() as c:
            c.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            for byte in raw(completion()):
                c.sendall(bytes([byte]))
            self.assertEqual(joined(read_all(c, QUIET_S)[0]).count(b'"text":'), 4)

    def test_chunked_request(self):
        with Server() as s, contextlib.closing(s.http()) as c:
            c.request("POST", "/v1/completions", iter([b'{"model":"m",', b'"prompt":"a"}']),
                      encode_chunked=True)
            self.assertEqual(c.getresponse().status, 200)

    def test_expect_continue(self):
        with Server() as s, s.connect() as c:
            head, body = raw(completion(), Expect="100-continue").split(b"\r\n\r\n")
            c.sendall(head + b"\r\n\r\n")
            self.assertEqual(c.recv(1000), b"HTTP/1.1 100 Continue\r\n\r\n")
            c.sendall(body)
            self.assertTrue(c.recv(1000).startswith(b"HTTP/1.1 200 OK"))

    def test_http_1_0(self):
        with Server() as s, s.connect() as c:
            c.sendall(raw(completion()).replace(b"HTTP/1.1", b"HTTP/1.0"))
            got, end = read_all(c)
            head, body = joined(got).split(b"\r\n\r\n", 1)
            self.assertEqual(end, "end")
            self.assertNotIn(b"Transfer-Encoding", head)
            self.assertEqual(len(events(body)), 4)

    def test_connection_close(self):
        with Server() as s, s.connect() as c:
            c.sendall(raw(completion(), Connection="close"))
            got, end = read_all(c)
            self.assertEqual(end, "end")
            self.assertIn(b"Connection: close", joined(got))

    def test_refused_bytes(self):
        with Server("serve.max_body=1024") as s:
            for text, status in ((b"SSH-2.0-OpenSSH\r\n\r\n", 400), (b"\x16\x03\x01\x00", 400),
                                 (b"GET / HTTP/3.0\r\n\r\n", 505),
                                 (b"GET / HTTP/1.1\r\nA: " + b"x" * 40000, 431),
                                 (raw(completion(prompt="x" * 2000)), 413)):
                with s.connect() as c:
                    c.sendall(text)
                    got, end = read_all(c)
                    self.assertEqual(end, "end", text[:40])
                    self.assertTrue(joined(got).startswith(b"HTTP/1.1 %d " % status), got)

    def test_slow_clients(self):
        with Server("serve.request_deadline=500ms", "serve.idle=2s",
                    "serve.write_deadline=300ms") as s:
            with s.connect() as c:
                c.sendall(b"GET /health HT")
                got, end = read_all(c)
                self.assertTrue(joined(got).startswith(b"HTTP/1.1 408 "), got)
            with s.connect() as c:
                self.assertEqual(read_all(c), ([], "end"))
            with s.connect() as c:  # asks for more than buffers hold and takes nothing
                c.sendall(raw(completion(max_tokens=1000000)))
                s.process.wait_until(lambda: s.metrics()["tidemark_connections"] == 1,
                                     "end of the client that takes nothing")

    def test_many_connections(self):
        with Server() as s, contextlib.ExitStack() as stack:
            connections = [stack.enter_context(s.connect()) for _ in range(900)]
            for c in connections:
                c.sendall(raw(completion(max_tokens=2)))
            for c in connections:
                got = b""
                while not got.endswith(b"0\r\n\r\n"):
                    got += c.recv(1 << 16)
                self.assertEqual(got.count(b'"text":'), 2)


class Times(cli.TestCase):
    def log(self, path):
        with open(path, newline="") as f:
            return list(csv.DictReader(f))

    def test_laws_and_log(self):
        path = self.folder / "log.csv"
        with Server("serve.ttft=600ms", "serve.itl=50ms", f"serve.log={path}") as s:
            with s.connect() as c:
                c.sendall(raw(completion(), X_Request_Id="0-1"))
                got, _ = read_all(c, QUIET_S)
            self.assertLess(got[0][0], 0.5)  # the head does not wait for the first token
            self.assertGreater(got[1][0], 0.5)
            self.assertLess(got[1][0], 0.6 + SLACK_S)
            s.stop()
        read, *tokens = self.log(path)
        self.assertEqual({r["request"] for r in [read, *tokens]}, {"0-1"})
        self.assertEqual([int(r["token"]) for r in [read, *tokens]], [-1, 0, 1, 2, 3])
        law = [int(r["law_ns"]) - int(read["before_ns"]) for r in tokens]
        self.assertEqual(law, [600000000, 650000000, 700000000, 750000000])
        for r in tokens:
            late = int(r["before_ns"]) - int(r["law_ns"])
            self.assertTrue(0 <= late < SLACK_S * 1e9, r)
            self.assertLessEqual(int(r["before_ns"]), int(r["after_ns"]))

    def test_packets(self):
        path = self.folder / "log.csv"
        with Server("serve.itl=10ms", "serve.tokens_per_event=2", "serve.events_per_packet=3",
                    f"serve.log={path}") as s:
            tokens = events(s.post("/v1/completions", completion(max_tokens=15))[2])
            s.stop()
        self.assertEqual([len(t["choices"][0]["text"].split()) for t in tokens], [2] * 7 + [1])
        read, *packets = self.log(path)
        self.assertEqual([int(p["tokens"]) for p in packets], [6, 6, 3])
        self.assertEqual(int(packets[2]["law_ns"]) - int(packets[0]["law_ns"]), 120000000)

    def test_draws_repeat(self):
        laws = []
        for seed in (1, 1, 2):
            path = self.folder / "log.csv"
            with Server("serve.ttft=5ms", "serve.itl=1ms", "serve.law=exponential",
                        f"serve.seed={seed}", f"serve.log={path}") as s:
                s.post("/v1/completions", completion(max_tokens=30))
                s.stop()
            rows = self.log(path)
            laws.append([int(r["law_ns"]) - int(rows[0]["before_ns"]) for r in rows[1:]])
        self.assertEqual(laws[0], laws[1])
        self.assertNotEqual(laws[0], laws[2])
        self.assertGreater(len(set(laws[0])), 25)

    def test_stall(self):
        with Server("serve.itl=10ms", "serve.stall=[100ms,700ms]") as s, s.connect() as c:
            c.sendall(raw(completion(max_tokens=30)))
            got, _ = read_all(c, QUIET_S)
            gaps = [b - a for (a, _), (b, _) in zip(got, got[1:])]
            self.assertGreater(max(gaps), 0.55)
            self.assertLess(max(gaps), 0.61 + SLACK_S)
            self.assertGreater(got[-1][0], 0.88)  # the laws stood still, they do not catch up

    def test_queue(self):
        with Server("serve.max_concurrent=1", "serve.ttft=1500ms", "serve.kv_tokens=10") as s, \
                s.connect() as first, s.connect() as gone, s.connect() as last:
            first.sendall(raw(completion(max_tokens=1)))
            s.process.wait_until(lambda: s.metrics()["vllm:num_requests_running"] == 1, "request")
            gone.sendall(raw(completion()))
            last.sendall(raw(completion(max_tokens=1)))
            m = s.process.wait_until(
                lambda: s.metrics() if s.metrics()["vllm:num_requests_waiting"] == 2 else None,
                "queue")
            self.assertEqual(m["vllm:num_requests_running"], 1)
            self.assertAlmostEqual(m["vllm:kv_cache_usage_perc"], 0.3)
            gone.close()
            s.process.wait_until(lambda: s.metrics()["vllm:num_requests_waiting"] < 2, "departure")
            got, _ = read_all(last, 2 * 1.5 + QUIET_S)
            self.assertGreater(got[-1][0], 1.4)  # its own law, begun when the first had ended
            m = s.metrics()
            self.assertEqual([m["vllm:num_requests_running"], m["vllm:num_requests_waiting"],
                              m["vllm:request_success_total"]], [0, 0, 2])
            self.assertEqual(m["vllm:kv_cache_usage_perc"], 0)


class Ends(cli.TestCase):
    def test_first_signal_lets_replies_end(self):
        with Server("serve.ttft=500ms") as s, s.connect() as c:
            c.sendall(raw(completion()))
            c.recv(1000)
            s.process.signal(signal.SIGTERM)
            got, end = read_all(c)
            self.assertEqual(joined(got).count(b'"text":'), 4)
            result = s.process.finish()
            self.assertEqual(result.code, 0)
            self.assertIn("1 requests: 1 answered", result.err)

    def test_second_signal_does_not(self):
        with Server("serve.ttft=1h", "serve.drain=1h") as s, s.connect() as c:
            c.sendall(raw(completion()))
            c.recv(1000)
            s.process.signal(signal.SIGINT)
            time.sleep(0.2)
            self.assertIsNone(s.process.popen.poll())
            s.process.signal(signal.SIGINT)
            self.assertEqual(s.process.finish().code, 0)

    def test_wrong_settings(self):
        for setting, *says in (("target.kind=openai", "target.kind", "null"),
                               ("serve.port=70000", "serve.port", "65535"),
                               ("serve.host=nowhere", "serve.host", "nowhere"),
                               ("serve.itl=8", "serve.itl"),
                               ("serve.itll=8ms", "serve.itll", "serve.itl"),
                               ("serve.law=gauss", "serve.law", "lognormal"),
                               ("serve.stall=[1s]", "serve.stall"),
                               ("serve.log=/nowhere/log.csv", "serve.log", "/nowhere/log.csv"),
                               ("serve.api_key_env=TIDEMARK_NOT_SET", "TIDEMARK_NOT_SET"),
                               ("load.step=1s", "load")):
            result = cli.run_with_leak_check("serve", "target.kind=null", "serve.port=0", setting)
            self.one_clear_line(result, *says)
        self.one_clear_line(cli.run("serve"), "target.model")

    def test_port_in_use(self):
        with Server() as s:
            result = cli.run("serve", "target.kind=null", f"serve.port={s.port}")
            self.one_clear_line(result, str(s.port), code=1)

    def test_help_names_every_key(self):
        text = self.good("serve", "--help").out
        for key in ("serve.ttft", "serve.itl", "serve.log", "serve.stall", "target.kind"):
            self.assertIn(key, text)


# What a client sees of each fault: (how it ends, status or None, what the bytes hold).
WORD = b" word"
FAULT_SIGNS = {
    "slow_first": ("quiet", 200, WORD), "slow_head": ("quiet", 200, WORD),
    "stall": ("quiet", 200, b"[DONE]"), "stall_forever": ("quiet", 200, WORD),
    "never": ("quiet", None, b""), "head_only": ("quiet", 200, b"chunked"),
    "split_utf8": ("quiet", 200, "café 水".encode()), "split_data": ("quiet", 200, b"[DONE]"),
    "bytewise": ("quiet", 200, b"[DONE]"), "odd_chunks": ("quiet", 200, b"\r\n7\r\n"),
    "chunk_extensions": ("quiet", 200, b"X-Trailer"), "bad_chunk": ("end", 200, b"zz\r\n"),
    "events_in_chunk": ("quiet", 200, b"[DONE]"), "crlf": ("quiet", 200, b"[DONE]\r\n\r\n\r\n"),
    "cr": ("quiet", 200, b"[DONE]\r\r\r\n"), "tokens_in_event": ("quiet", 200, b" one two"),
    "role_only": ("quiet", 200, b'"role":"assistant"'), "empty_events": ("quiet", 200, b'""'),
    "usage_last": ("quiet", 200, b'"choices":[],"usage":{'), "comments": ("quiet", 200, b": ping"),
    "usage_each": ("quiet", 200, b'"completion_tokens":3'),
    "reasoning": ("quiet", 200, b"reasoning_content"), "bad_json": ("quiet", 200, b'" wo\n\n'),
    "bad_path": ("quiet", 200, b"oops C:"), "two_dones": ("quiet", 200, b"[DONE]\n\n"),
    "error_in_stream": ("quiet", 200, b'data: {"error"'), "huge_line": ("quiet", 200, b"x" * 1000000),
    "no_done": ("quiet", 200, b"length"), "late_done": ("quiet", 200, b"[DONE]"),
    "truncated": ("end", 200, WORD),
    "half_event": ("end", 200, WORD), "reset_early": ("reset", None, b""),
    "reset_mid": ("reset", 200, WORD), "close_early": ("end", None, b""),
    "close_after": ("end", 200, b"Connection: close"), "idle_close": ("end", 200, b"[DONE]"),
    "http10": ("end", 200, b"HTTP/1.0"), "with_length": ("quiet", 200, b"Content-Length"),
    "short_length": ("end", 200, b"Content-Length"), "not_sse": ("quiet", 200, b"application/json"),
    "html": ("quiet", 200, b"<!doctype"), "empty_body": ("quiet", 200, b"Content-Length: 0"),
    "not_http": ("end", None, b"SSH-2.0"), "http_401": ("quiet", 401, b"WWW-Authenticate"),
    "http_404": ("quiet", 404, b"error"), "http_429": ("quiet", 429, b"Retry-After: 1\r\n"),
    "http_500": ("quiet", 500, b"error"), "http_503": ("quiet", 503, b"error"),
}
LACK_DONE = {"stall_forever", "never", "head_only", "bad_chunk", "no_done", "truncated",
             "half_event", "reset_early", "reset_mid", "close_early", "not_sse", "html",
             "empty_body", "not_http", "http_401", "http_404", "http_429", "http_500", "http_503"}


@unittest.skipUnless(FAULTS, "needs the fault server (FAULT_SERVER)")
class Faults(cli.TestCase):
    def see(self, server, name, by_model=False):
        body = chat(model=f"fault:{name}") if by_model else chat()
        headers = {} if by_model else {"X_Fault": name}
        with server.connect() as c:
            c.sendall(raw(body, "/v1/chat/completions", **headers))
            return read_all(c, QUIET_S)

    def test_every_fault(self):
        listed = subprocess.run([FAULTS, "--list"], capture_output=True, text=True, check=True)
        names = [line.split("\t")[0] for line in listed.stdout.splitlines()]
        self.assertEqual(sorted(names), sorted(FAULT_SIGNS))
        with Server(program=FAULTS) as s:
            with concurrent.futures.ThreadPoolExecutor(16) as pool:
                seen = dict(zip(names, pool.map(lambda name: self.see(s, name), names)))
            for name, (got, ended) in seen.items():
                with self.subTest(name):
                    end, status, holds = FAULT_SIGNS[name]
                    text = joined(got)
                    self.assertEqual(ended, end)
                    self.assertIn(holds, text)
                    found = re.match(rb"HTTP/1\.[01] (\d+)", text)
                    self.assertEqual(int(found.group(1)) if found else None, status)
                    if name != "odd_chunks":
                        self.assertEqual(b"[DONE]" not in text, name in LACK_DONE)
            self.assertEqual(s.get("/health")[0], 200)

    def test_by_model_and_with_a_time(self):
        with Server(program=FAULTS) as s:
            got, _ = self.see(s, "slow_first=1500ms", by_model=True)
            self.assertGreater(got[-1][0] - got[0][0], 1.0)
            self.assertEqual(self.see(s, "no_such_fault")[0][0][1][:15], b"HTTP/1.1 200 OK")

    def test_cuts_are_packets(self):
        with Server(program=FAULTS) as s:
            packets = [data for _, data in self.see(s, "split_utf8")[0]]
            self.assertTrue(any(p.endswith(b"caf\xc3") for p in packets), packets)
            packets = [data for _, data in self.see(s, "split_data")[0]]
            self.assertTrue(any(p.endswith(b"da") for p in packets), packets)
            self.assertTrue(any(p.endswith(b"data:") for p in packets), packets)

    def test_good_ones_by_a_usual_client(self):
        """What RFC 9112 allows must read as the plain reply does."""
        with Server(program=FAULTS) as s:
            for name in ("odd_chunks", "chunk_extensions", "bytewise", "slow_head", "http10",
                         "with_length", "events_in_chunk", "close_after", "stall"):
                with self.subTest(name):
                    status, _, body = s.post("/v1/completions", completion(), **{"X-Fault": name})
                    self.assertEqual(status, 200)
                    self.assertEqual([e["choices"][0]["text"] for e in events(body)], [" word"] * 4)


if __name__ == "__main__":
    cli.main()
