"""How tokens are chosen and what ends a text: `tidemark serve` over real stages, by HTTP, and
`tidemark generate`. The same seed gives the same text however it is asked for and whatever runs beside it."""

import concurrent.futures
import contextlib
import json
import math
import time

import tidemark_cli as cli
from serve import Server, events, raw

PROMPT = "Once upon a time"
BUSY_S = 20.0


def stages(*settings, pipeline=1):
    model = cli.shared("models/stories260K")
    return Server(f"target.pipeline={pipeline}", *settings, target=f"target.model={model}")


def body(**more):
    return dict({"model": "m", "prompt": PROMPT, "max_tokens": 24}, **more)


def complete(server, **more):
    status, _, text = server.post("/v1/completions", body(**more))
    assert status == 200, text
    return json.loads(text)


def text_of(server, **more):
    return complete(server, **more)["choices"][0]["text"]


def stream(server, path="/v1/completions", **more):
    """The choices of all events but the last, which has none, and the usage."""
    status, _, text = server.post(path, body(
        stream=True, stream_options={"include_usage": True}, **more))
    assert status == 200, text
    *tokens, usage = events(text)
    return [t["choices"][0] for t in tokens], usage["usage"]


def generate(*more, prompt=PROMPT, count=24):
    result = cli.run("generate", "-m", cli.shared("models/stories260K"), "-p", prompt, "-n", count,
                     "--format", "json", *more)
    assert result.code == 0, str(result)
    return result.json()


class Golden:
    def __init__(self):
        cases = json.loads((cli.shared("models/stories260K") / "golden.json").read_text())["cases"]
        self.case = cases[0]
        self.ids = self.case["ids"]
        self.text = self.case["text"][len(PROMPT):]


class Serve(cli.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.golden = Golden()
        cls.server = stages(pipeline=2)

    @classmethod
    def tearDownClass(cls):
        cls.server.stop()

    def test_greedy_is_the_golden_text(self):
        reply = complete(self.server, temperature=0, max_tokens=len(self.golden.ids))
        self.assertEqual(reply["choices"][0]["text"], self.golden.text)
        self.assertEqual(reply["usage"]["completion_tokens"], len(self.golden.ids))
        ids = self.golden.case["prompt_ids"]
        self.assertEqual(text_of(self.server, prompt=ids, temperature=0),
                         text_of(self.server, temperature=0))
        for more in ({"top_k": 1}, {"top_p": 1e-6}, {"min_p": 1}, {"temperature": 1e-5}):
            self.assertEqual(text_of(self.server, seed=3, **more),
                             text_of(self.server, temperature=0), more)

    def test_a_seed_is_a_text(self):
        """Alone, beside others, streamed, and by `generate` over another number of stages."""
        wants = [{"seed": s, "temperature": 0.5 + s / 4, "top_p": 0.95 if s % 2 else 1,
                  "top_k": 50 if s % 3 else 0} for s in range(8)]
        alone = [text_of(self.server, **w) for w in wants]
        self.assertGreater(len(set(alone)), 5)
        with concurrent.futures.ThreadPoolExecutor(8) as pool:
            together = list(pool.map(lambda w: text_of(self.server, **w), wants * 3))
        self.assertEqual(together, alone * 3)
        choices, usage = stream(self.server, **wants[5])
        self.assertEqual("".join(c["text"] for c in choices), alone[5])
        self.assertEqual(usage["completion_tokens"], 24)
        for stages_of_it in (1, 3):
            got = generate("--seed", 5, "--temperature", wants[5]["temperature"], "--top-p", "0.95",
                           "--top-k", 50, "--pipeline", stages_of_it)
            self.assertEqual(got["text"], alone[5])

    def test_without_a_seed_texts_differ(self):
        """And the default is temperature 1."""
        texts = {text_of(self.server, max_tokens=40) for _ in range(6)}
        self.assertGreater(len(texts), 3)

    def test_chat(self):
        status, _, text = self.server.post("/v1/chat/completions", {
            "model": "m", "messages": [{"role": "user", "content": "hello"}], "max_tokens": 6,
            "temperature": 0, "logprobs": True, "top_logprobs": 3})
        self.assertEqual(status, 200)
        choice = json.loads(text)["choices"][0]
        tokens = choice["logprobs"]["content"]
        self.assertEqual("".join(t["token"] for t in tokens), choice["message"]["content"])
        for t in tokens:
            self.assertEqual(bytes(t["bytes"]).decode(), t["token"])
            self.assertEqual(len(t["top_logprobs"]), 3)
            self.assertEqual(t["top_logprobs"][0]["logprob"], t["logprob"])  # it is greedy

    def test_logprobs(self):
        for more in ({"temperature": 0}, {"temperature": 1.5, "seed": 1}):
            reply = complete(self.server, logprobs=4, **more)["choices"][0]
            found = reply["logprobs"]
            self.assertEqual("".join(found["tokens"]), reply["text"])
            at = 0
            for token, value, offset, top in zip(found["tokens"], found["token_logprobs"],
                                                 found["text_offset"], found["top_logprobs"]):
                self.assertEqual(offset, at)
                at += len(token)
                self.assertIn(len(top), (4, 5))
                self.assertEqual(top[token], value)
                self.assertLess(sum(math.exp(v) for v in top.values()), 1.00001)
            choices, _ = stream(self.server, logprobs=4, **more)
            for key in ("tokens", "token_logprobs", "text_offset", "top_logprobs"):
                self.assertEqual([x for c in choices if c["logprobs"] for x in c["logprobs"][key]],
                                 found[key])
        self.assertIsNone(complete(self.server, temperature=0)["choices"][0]["logprobs"])

    def test_stop_texts(self):
        whole = self.golden.text
        n = len(self.golden.ids)
        for stop in (["Lily"], ["\n"], ["red", "big"], ["zzz", "outside"], ["xx", "yy", "zz", "."]):
            end = min(whole.find(s) for s in stop if s in whole)
            found = next(s for s in stop if whole.startswith(s, end))
            for given in (stop, stop[0]) if len(stop) == 1 else (stop,):
                reply = complete(self.server, temperature=0, stop=given, max_tokens=n)
                choice = reply["choices"][0]
                self.assertEqual(choice["text"], whole[:end])
                self.assertEqual((choice["finish_reason"], choice["stop_reason"]), ("stop", found))
                self.assertLess(reply["usage"]["completion_tokens"], n)
            choices, _ = stream(self.server, temperature=0, stop=stop, max_tokens=n)
            self.assertEqual("".join(c["text"] for c in choices), whole[:end])
            self.assertEqual(choices[-1]["finish_reason"], "stop")
        choice = complete(self.server, temperature=0, stop=["there", "Lily"], min_tokens=5,
                          max_tokens=20)["choices"][0]
        self.assertEqual((choice["text"], choice["stop_reason"]),
                         (whole[:whole.find("Lily")], "Lily"))
        reply = complete(self.server, temperature=0, stop=["zzz"], max_tokens=30)["choices"][0]
        self.assertEqual((reply["finish_reason"], reply["stop_reason"]), ("length", None))

    def test_stop_ids(self):
        ids = self.golden.ids
        at = next(i for i, id in enumerate(ids) if i >= 5 and id not in ids[:i])
        before = generate(count=at)["text"]
        choice = complete(self.server, temperature=0, stop_token_ids=[1, ids[at]])["choices"][0]
        self.assertEqual(choice["text"], before)  # the token itself is not part of the text
        self.assertEqual((choice["finish_reason"], choice["stop_reason"]), ("stop", ids[at]))
        reply = complete(self.server, temperature=0, stop_token_ids=[ids[at]], min_tokens=at + 3)
        self.assertGreater(reply["usage"]["completion_tokens"], at + 3)
        self.assertNotEqual(reply["choices"][0]["text"][:len(before) + 5],
                            self.golden.text[:len(before) + 5])

    def test_refusals_name_the_key(self):
        for more, key in (({"temperature": -1}, "temperature"), ({"top_p": 0}, "top_p"),
                          ({"top_k": -5}, "top_k"), ({"min_p": 2}, "min_p"), ({"seed": "x"}, "seed"),
                          ({"stop": list("abcde")}, "stop"), ({"n": 2}, "n"),
                          ({"logit_bias": {"1": 5}}, "logit_bias"), ({"logprobs": 21}, "logprobs"),
                          ({"presence_penalty": 1}, "presence_penalty"), ({"echo": True}, "echo"),
                          ({"stop_token_ids": [512]}, "stop_token_ids"), ({"prompt": [512]}, "prompt"),
                          ({"prompt": [-1]}, "prompt"), ({"max_tokens": 100000}, "max_tokens")):
            status, _, text = self.server.post("/v1/completions", body(**more))
            error = json.loads(text)["error"]
            self.assertEqual(status, 400, more)
            self.assertEqual(error["message"].split(":")[0], key)
            self.assertNotIn("\n", error["message"])
        self.assertEqual(self.server.get("/health")[0], 200)

    def test_who_leaves_is_cancelled(self):
        with contextlib.ExitStack() as stack:
            for _ in range(4):
                c = stack.enter_context(self.server.connect())
                c.sendall(raw(body(max_tokens=500, stream=True, ignore_eos=True)))
                self.assertTrue(c.recv(100).startswith(b"HTTP/1.1 200"))
        began = time.monotonic()
        while self.server.metrics()["vllm:num_requests_running"] > 0:
            self.assertLess(time.monotonic() - began, BUSY_S)
            time.sleep(0.05)
        self.assertEqual(self.server.get("/health")[0], 200)


class Servers(cli.TestCase):
    def test_a_full_queue_and_two_replicas(self):
        with stages("target.max_running=1", "target.max_waiting=0", "target.replicas=2",
                    "serve.model=tiny-stories") as s:
            self.assertEqual(json.loads(s.get("/v1/models")[2])["data"][0]["id"], "tiny-stories")
            self.assertEqual(s.post("/v1/completions", body())[0], 404)
            ask = body(model="tiny-stories", max_tokens=400, ignore_eos=True, temperature=0)
            with concurrent.futures.ThreadPoolExecutor(12) as pool:
                replies = list(pool.map(lambda _: s.post("/v1/completions", ask), range(12)))
            by_status = {status: [r for r in replies if r[0] == status] for status in (200, 503)}
            self.assertEqual(sum(map(len, by_status.values())), 12)
            self.assertGreaterEqual(len(by_status[200]), 2)
            self.assertGreaterEqual(len(by_status[503]), 1)
            self.assertEqual(len({json.loads(r[2])["choices"][0]["text"] for r in by_status[200]}), 1)

    def test_scarce_blocks_and_a_prefix_cache(self):
        """Who is preempted, or begins behind shared blocks, says what it says alone."""
        sampled = body(max_tokens=300, ignore_eos=True, temperature=1, seed=5)
        greedy = body(max_tokens=300, ignore_eos=True, temperature=0)
        with stages("target.kv_tokens=600", "target.prefix_cache=true") as s:
            alone = [json.loads(s.post("/v1/completions", ask)[2])["choices"][0]["text"]
                     for ask in (sampled, greedy)]
            with concurrent.futures.ThreadPoolExecutor(8) as pool:
                replies = list(pool.map(lambda i: s.post("/v1/completions", (sampled, greedy)[i % 2]),
                                        range(8)))
            for i, (status, _, text) in enumerate(replies):
                self.assertEqual(status, 200)
                self.assertEqual(json.loads(text)["choices"][0]["text"], alone[i % 2])
            m = s.process.wait_until(
                lambda: s.metrics() if s.metrics()["vllm:num_preemptions_total"] > 0 else None,
                "preemptions")
            self.assertGreaterEqual(m["vllm:prefix_cache_queries_total"],
                                    m["vllm:prefix_cache_hits_total"])

    def test_a_model_without_a_tokenizer(self):
        with Server(target="target.model=preset:tiny") as s:
            self.assertEqual(s.post("/v1/completions", body())[0], 400)
            reply = complete(s, prompt=[5, 6, 7], max_tokens=8, temperature=0, logprobs=1)
            words = reply["choices"][0]["text"].split()
            self.assertEqual(len(words), 8)
            self.assertEqual([t.strip() for t in reply["choices"][0]["logprobs"]["tokens"]], words)

    def test_wrong_settings(self):
        self.one_clear_line(cli.run("serve", "target.model=preset:nothing"), "preset")
        self.one_clear_line(cli.run("serve", "target.model=preset:tiny", "serve.prt=1"), "serve.port")
        self.one_clear_line(cli.run("serve", "target.model=preset:tiny", "target.pipline=2"),
                            "target.pipeline")
        self.one_clear_line(cli.run("serve", "target.model=preset:tiny", "load.rates=1"), "load")


class Generate(cli.TestCase):
    def test_stop_and_logprobs(self):
        golden = Golden()
        got = generate("--stop", "Lily", "--stop", "zzz", "--logprobs", 2, count=60)
        self.assertEqual(got["text"], golden.text[:golden.text.find("Lily")])
        self.assertEqual(got["finish_reason"], "stop")
        self.assertEqual(got["ids"], golden.ids[:len(got["ids"])])
        self.assertEqual([x["id"] for x in got["logprobs"]], got["ids"])
        for x in got["logprobs"]:
            self.assertEqual(len(x["top"]), 2)
            self.assertEqual(x["top"][0]["id"], x["id"])
            self.assertLessEqual(x["top"][1]["logprob"], x["top"][0]["logprob"])
        text = self.good("generate", "-m", cli.shared("models/stories260K"), "-p", PROMPT, "-n", 3,
                         "--logprobs", 1).out.splitlines()
        self.assertEqual(len(text), 4)
        self.assertIn("|", text[1])

    def test_wrong_numbers(self):
        for flag, value in (("--temperature", "-1"), ("--temperature", "hot"), ("--top-p", "0"),
                            ("--top-p", "1.1"), ("--min-p", "2"), ("--top-k", "1.5"),
                            ("--seed", "x"), ("--logprobs", "21"), ("--stop", "")):
            result = cli.run("generate", "-m", cli.shared("models/stories260K"), "-p", "a", flag, value)
            self.one_clear_line(result, flag)


if __name__ == "__main__":
    cli.main()
