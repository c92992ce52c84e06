"""`tidemark bench --quality`: all forms of weights and cache against what transformers makes of their
descriptions (tests/golden/make_quality.py), exact where it must be, in order where it must be; the same whatever
threads, chunks of files and lists ask for; speeds beside it; a bad text costs one clear line."""

import json
import re
import shutil

import gguf_model
import tidemark_cli as cli

GOLDEN = cli.ROOT / "tests" / "golden"
TINY = GOLDEN / "llama_tiny_f32"
QUICK = ["--threads", "1", "--repeats", "1", "--prompt", "8", "--gen", "2", "--batch", "1"]
CACHES = ["f32", "bf16", "fp8", "int8"]
WEIGHTS = ["as-is", "bf16", "int8", "int4"]


def has_avx2():
    with open("/proc/cpuinfo", encoding="utf-8") as info:
        return " avx2 " in info.read()


# Inputs of bf16 weights stay float32 in these.
WHOLE_INPUTS = ["--kernels", "avx2" if has_avx2() else "portable"]


def by_form(answer):
    return {(f["weights"], f["kv"]): f for f in answer["forms"]}


def without_clock(answer):
    """What must not depend on the machine."""
    kept = {key: value for key, value in answer.items() if key not in ("threads", "kernels")}
    kept["forms"] = [{k: v for k, v in f.items() if k not in ("results", "load_s")} for f in answer["forms"]]
    return kept


class Quality(cli.TestCase):
    def setUp(self):
        super().setUp()
        golden = json.loads((TINY / "golden.json").read_text(encoding="utf-8"))
        self.tiny_ids = golden["prompt_ids"] + golden["ids"]
        self.ids = self.text("tiny.ids", " ".join(map(str, self.tiny_ids)))

    def text(self, name, content):
        path = self.folder / name
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return path

    def judge(self, *args, model=TINY, text=None, context=32, **options):
        result = self.good("bench", "--model", model, "--quality", text or self.ids, "--context", context, *QUICK,
                           "--format", "json", *args, timeout=3 * cli.DEADLINE_S, **options)
        self.assertEqual(result.err, "")
        return result.json()

    def close(self, got, wanted, share, what):
        self.assertAlmostEqual(got, wanted, delta=share * abs(wanted), msg=what)

    def compare_with_transformers(self, answer, golden):
        """Where nothing is rounded on the way the answer is transformers' but for the order of sums; a number of
        the cache or of an input that rounds the other way, being close to call, moves the rest a little."""
        self.assertEqual({k: answer["text"][k] for k in ("tokens", "context", "chunks", "judged")},
                         {k: golden[k] for k in ("tokens", "context", "chunks", "judged")})
        forms = by_form(answer)
        self.assertEqual(len(forms), len(golden["forms"]))
        for wanted in golden["forms"]:
            form = (wanted["weights"], wanted["kv"])
            got, integers = forms[form], wanted["weights"].startswith("int")
            share = 5e-3 if integers else 1e-6 if wanted["kv"] == "f32" else 5e-4
            for key in ("perplexity", "perplexity_ratio"):
                by = max(share, 5e-4) if key == "perplexity_ratio" else share  # the baseline's cache rounds
                self.close(got[key]["value"], wanted[key]["value"], by, (form, key))
                self.close(got[key]["se"], wanted[key]["se"], 20 * by, (form, key, "se"))
            self.close(got["kl"]["mean"], wanted["kl"]["mean"], 0.1 if integers else 0.05, (form, "kl"))
            self.close(got["kl"]["se"], wanted["kl"]["se"], 0.3, (form, "kl se"))
            self.close(got["kl"]["p99"], wanted["kl"]["p99"], 0.3, (form, "kl p99"))
            self.assertLessEqual(abs(got["same_top"]["value"] - wanted["same_top"]["value"]), 0.011, form)

    def test_transformers_on_random_weights(self):
        golden = json.loads((GOLDEN / "quality.json").read_text(encoding="utf-8"))["llama_tiny_f32"]
        for kernels in (["--kernels", "portable"], WHOLE_INPUTS):
            self.compare_with_transformers(self.judge(*kernels), golden)

    def test_transformers_on_a_trained_model(self):
        golden = json.loads((GOLDEN / "quality.json").read_text(encoding="utf-8"))["stories260K"]
        answer = self.judge(*WHOLE_INPUTS, model=cli.shared("models/stories260K"),
                            text=GOLDEN / "quality.txt", context=128)
        self.assertTrue(answer["text"]["bos"])
        self.compare_with_transformers(answer, golden)

    def check_order(self, answer, caches=CACHES):
        """Fewer bits, more divergence, less memory."""
        forms = by_form(answer)
        kl = {form: f["kl"]["mean"] for form, f in forms.items()}
        for kv in caches:
            self.assertLess(2 * kl["int8", kv], kl["int4", kv], kv)
            self.assertLess(kl["bf16", kv], kl["int8", kv], kv)
        self.assertLess(kl["bf16", "bf16"], kl["bf16", "int8"])
        self.assertLess(kl["bf16", "int8"], kl["bf16", "fp8"])
        for key, order in (("bytes_per_weight", [("bf16", "f32"), ("int8", "f32"), ("int4", "f32")]),
                           ("kv_bytes_per_token", [("bf16", "f32"), ("bf16", "bf16"), ("bf16", "int8")])):
            sizes = [forms[form][key] for form in order]
            self.assertEqual(sizes, sorted(set(sizes), reverse=True), key)
        for form, f in forms.items():
            self.assertGreaterEqual(f["kl"]["mean"], 0, form)
            self.assertLessEqual(f["kl"]["mean"], f["kl"]["max"], form)
            self.assertAlmostEqual(f["bytes_per_weight"] * answer["params"], f["weight_bytes"], msg=form)
            self.assertAlmostEqual(f["perplexity_ratio"]["value"],
                                   f["perplexity"]["value"] / answer["forms"][0]["perplexity"]["value"], 12)

    def check_baseline(self, answer):
        """It is read twice, and says the same bits."""
        first = answer["forms"][0]
        self.assertEqual({k: first[k] for k in ("weights", "kv")}, answer["baseline"])
        self.assertEqual(answer["baseline"], {"weights": "bf16", "kv": "bf16"})
        self.assertEqual(first["kl"], {"mean": 0, "se": 0, "p99": 0, "max": 0})
        self.assertEqual(first["perplexity_ratio"], {"value": 1, "se": 0})
        self.assertEqual(first["same_top"], {"value": 1, "se": 0})

    def test_every_form(self):
        answer = self.judge("--threads", "2")
        self.assertEqual(answer["schema"], "tidemark.quality/1")
        self.assertEqual(sorted(by_form(answer)), sorted((w, k) for w in WEIGHTS for k in CACHES))
        self.check_baseline(answer)
        self.check_order(answer)

    def test_a_trained_model(self):
        answer = self.judge("--batch", "1,3", model=cli.shared("models/stories260K"), text=GOLDEN / "quality.txt",
                            context=128)
        self.check_baseline(answer)
        self.check_order(answer)
        for f in answer["forms"]:  # beside the quality stands the speed
            self.assertEqual([(r["test"], r["tokens"], r["batch"]) for r in f["results"]],
                             [("prompt", 8, 1), ("gen", 2, 1), ("gen", 2, 3)])
            self.assertTrue(all(r["tokens_per_s"]["mean"] > 0 for r in f["results"]))

    def test_as_stored_is_the_baseline(self):
        """Weights of bf16, and formats that are kept as such: as-is is no form beside it."""
        for model in ("llama_tiny_bf16", "deepseek_v3_tiny_fp8", "gpt_oss_tiny_mxfp4", "gemma2_tiny_bf16"):
            answer = self.judge(model=GOLDEN / model)
            self.assertEqual({f["weights"] for f in answer["forms"]}, {"bf16", "int8", "int4"})
            self.assertEqual(len(answer["forms"]), 12)
            self.check_baseline(answer)

    def test_threads_and_kernels(self):
        """Threads and the sizes of batches change no bit; kernels round inputs of bf16 or do not."""
        some = ["--weights", "int8,as-is", "--kv", "bf16,int8", "--kernels", "portable"]
        one = without_clock(self.judge(*some))
        self.assertEqual(one, without_clock(self.judge(*some, "--threads", "3", "--prompt", "40", "--batch", "9")))
        auto = by_form(self.judge(*some[:4]))
        self.assertEqual(set(auto), {("bf16", "bf16"), ("int8", "bf16"), ("int8", "int8"), ("as-is", "bf16"),
                                     ("as-is", "int8")})
        for f in one["forms"]:
            self.close(auto[f["weights"], f["kv"]]["perplexity"]["value"], f["perplexity"]["value"], 0.05, f)

    def test_gguf(self):
        """The same model as one file, tokenizer and all, says the same."""
        stories, file = cli.shared("models/stories260K"), self.folder / "stories.gguf"
        gguf_model.write(stories, file)
        some = ["--weights", "int8", "--kv", "bf16"]
        a, b = (without_clock(self.judge(*some, model=model, text=GOLDEN / "quality.txt", context=128))
                for model in (stories, file))
        self.assertEqual(a["forms"], b["forms"])
        self.assertEqual(a["text"], b["text"])

    def test_a_part_of_the_text(self):
        """The first chunks only, and what lies behind the last whole one is not read."""
        forms = ["--weights", "int4", "--kv", "bf16"]
        two = self.judge(*forms, "--chunks", "2")
        self.assertEqual((two["text"]["chunks"], two["text"]["whole_chunks"], two["text"]["judged"]), (2, 8, 30))
        cut = self.judge(*forms, text=self.text("cut.ids", "\n".join(map(str, self.tiny_ids[:79]))))
        self.assertEqual(two["forms"][1]["kl"], cut["forms"][1]["kl"])
        self.assertEqual(len(two["forms"]), 2)
        self.assertEqual(self.judge(*forms, "--chunks", "0")["text"]["chunks"], 8)
        # of a chunk of N tokens those behind positions N / 2 to N - 2 are judged
        odd = self.judge(*forms, "--context", "9")["text"]
        self.assertEqual((odd["chunks"], odd["judged"]), (16, 16 * 4))

    def test_table(self):
        text = self.good("bench", "--model", TINY, "--quality", self.ids, "--context", "32", *QUICK, "--weights",
                         "int4", "--kv", "fp8").out
        rows = re.findall(r"^(\S+) +(\w+) +([\d.]+) +(\d+) +([\d.]+) \+- ([\d.]+) +([\d.]+) \+- ([\d.]+) +(\S+) \+- "
                          r"(\S+) +(\S+) +([\d.]+) \+- ([\d.]+) % +([\d.]+) +([\d.]+)$", text, re.M)
        self.assertEqual([row[:2] for row in rows], [("bf16", "bf16"), ("int4", "fp8")])
        self.assertEqual(rows[0][6:13], ("1.00000", "0.00000", "0.00e+00", "0e+00", "0.0e+00", "100.00", "0.00"))
        self.assertIn("8 of 8 whole chunks of 32 tokens, 120 positions judged", text)
        self.assertRegex(text, r"same top token +prompt 8 +gen 2 x 1\n")

    def test_progress_is_for_terminals(self):
        result = cli.run("bench", "--model", TINY, "--quality", self.ids, "--context", "32", *QUICK, "--weights",
                         "int4", "--kv", "fp8", terminal=True)
        self.assertIn("int4 in fp8 (2 of 2): chunk 8 of 8", result.err)

    def test_bad_text(self):
        """Empty, short, no text, no file, ids that the model has not; a model without a tokenizer."""
        model = ["bench", "--model", TINY, "--context", "32", *QUICK]
        for name, content, *wanted in (
                ("empty.ids", "", "0 tokens", "--context", "32"),
                ("short.ids", "1 " * 31, "31 tokens", "32"),
                ("above.ids", "1 2\n3 97\n", "line 2", "'97'", "0 to 96"),
                ("below.ids", "1\n\n-1", "line 3", "'-1'", "0 to 96"),
                ("words.ids", "Once upon a time", "line 1", "'Once'", "token id"),
                ("bytes.ids", b"1 \xff\xff 3", "line 1", "token id"),
                ("text.txt", "Once upon a time", "llama_tiny_f32", "no tokenizer", ".ids")):
            self.refused([*model, "--quality", self.text(name, content)], *wanted)
        self.refused([*model, "--quality", self.folder / "none.ids"], "none.ids", "No such file")
        self.refused([*model, "--quality", self.folder], self.folder, "not a regular file")
        self.refused(["bench", "--model", "preset:tiny", "--quality", self.text("a.txt", "a")], "preset:tiny",
                     "no tokenizer", ".ids")

    def test_bad_text_for_a_tokenizer(self):
        model = ["bench", "--model", cli.shared("models/stories260K"), "--context", "32", *QUICK]
        self.refused([*model, "--quality", self.text("broken.txt", b"Once upon \xff a time")], "broken.txt",
                     "not UTF-8", "byte 10")
        self.refused([*model, "--quality", self.text("empty.txt", "")], "empty.txt", "tokens; one chunk")

    def test_broken_weights(self):
        header, data = cli.read_safetensors(GOLDEN / "llama_tiny_bf16" / "model.safetensors")
        begin, end = header["model.norm.weight"]["data_offsets"]
        shutil.copy(GOLDEN / "llama_tiny_bf16" / "config.json", self.folder)
        cli.write_safetensors(self.folder / "model.safetensors", header,
                              data[:begin] + b"\xc0\x7f" * ((end - begin) // 2) + data[end:])
        self.refused(["bench", "--model", self.folder, "--quality", self.ids, "--context", "32", *QUICK],
                     "weights bf16, cache bf16", "not finite", code=1)

    def test_bad_options(self):
        model = ["bench", "--model", TINY, *QUICK]
        quality = [*model, "--quality", self.ids]
        self.refused([*model, "--context", "32"], "--context", "--quality")
        self.refused([*quality, "--context", "7"], "--context", "'7'", "8 to")
        self.refused([*quality, "--context", "321"], "--context", "321", "8 to 320")
        self.refused([*quality, "--chunks", "some"], "--chunks", "'some'", "0 to")
        self.refused([*quality, "--weights", "int8,int2"], "--weights", "'int2'", "as-is, bf16, int8, int4")
        self.refused([*quality, "--weights", ""], "--weights", "''", "as-is")
        self.refused([*quality, "--kv", "f32,"], "--kv", "''", "f32, bf16, fp8, int8")
        self.refused([*quality, "--kv", "f32,f32,f32,f32,f32"], "--kv", "at most once")
        self.refused([*model, "--weights", "int8,int4"], "--weights", "int8,int4", "--quality")
        self.refused([*quality, "--context", "32"], "logits", "No such file", code=1,
                     env={"TMPDIR": str(self.folder / "none")})

    def refused(self, args, *wanted, code=2, **options):
        return self.one_clear_line(cli.run_with_leak_check(*args, **options), *wanted, code=code)

    def test_nothing_is_left(self):
        tmp = self.folder / "tmp"
        tmp.mkdir()
        self.judge("--weights", "int4", "--kv", "fp8", env={"TMPDIR": str(tmp)})
        self.assertEqual(list(tmp.iterdir()), [])


if __name__ == "__main__":
    cli.main()
