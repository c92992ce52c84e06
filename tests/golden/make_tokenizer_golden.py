#!/usr/bin/env python3
"""Make tokenizer_cases.json with the Hugging Face `tokenizers` library as the oracle.

    python3 -m venv venv && venv/bin/pip install tokenizers
    venv/bin/python make_tokenizer_golden.py ../../../shared/models/stories260K > tokenizer_cases.json

The file holds tokenizers and, for each, texts with their ids (BOS template applied) and what the
ids decode to. "shared" tokenizers are not copied: a test opens them where they lie.
"""
import json
import random
import sys

import tokenizers
from tokenizers import Tokenizer

SPECIAL = [{"id": i, "content": c, "single_word": False, "lstrip": False, "rstrip": False,
            "normalized": False, "special": True} for i, c in enumerate(["<unk>", "<s>", "</s>"])]


def added(i, content, **flags):
    token = {"id": i, "content": content, "single_word": False, "lstrip": False, "rstrip": False,
             "normalized": False, "special": False}
    token.update(flags)
    return token


def make(vocab, merges, added_tokens=(), normalizer=None, decoder=None, post=None, **model):
    body = {"type": "BPE", "dropout": None, "unk_token": None, "continuing_subword_prefix": None,
            "end_of_word_suffix": None, "fuse_unk": False, "byte_fallback": False,
            "ignore_merges": False, "vocab": {t: i for i, t in enumerate(vocab)}, "merges": merges}
    body.update(model)
    return {"version": "1.0", "truncation": None, "padding": None,
            "added_tokens": list(added_tokens), "normalizer": normalizer, "pre_tokenizer": None,
            "post_processor": post, "decoder": decoder, "model": body}


FUSE = {"type": "Sequence", "decoders": [{"type": "ByteFallback"}, {"type": "Fuse"}]}
PREPEND = {"type": "Sequence", "normalizers": [
    {"type": "Prepend", "prepend": "_"},
    {"type": "Replace", "pattern": {"String": " "}, "content": "_"}]}
UNPREPEND = {"type": "Sequence", "decoders": [
    {"type": "Replace", "pattern": {"String": "_"}, "content": " "},
    {"type": "ByteFallback"}, {"type": "Fuse"},
    {"type": "Strip", "content": " ", "start": 1, "stop": 0}]}


def both_ends(name_id, end_id):
    return {"type": "TemplateProcessing",
            "single": [{"SpecialToken": {"id": "<s>", "type_id": 0}},
                       {"Sequence": {"id": "A", "type_id": 0}},
                       {"SpecialToken": {"id": "</s>", "type_id": 0}}],
            "pair": [{"Sequence": {"id": "A", "type_id": 0}},
                     {"Sequence": {"id": "B", "type_id": 1}}],
            "special_tokens": {"<s>": {"id": "<s>", "ids": [name_id], "tokens": ["<s>"]},
                               "</s>": {"id": "</s>", "ids": [end_id], "tokens": ["</s>"]}}}


def crafted():
    letters = list("abc ")
    chain = ["a b", "ab c", "b c", "a a", "aa a", "aa aa", "c a", "ca b"]
    results = ["ab", "abc", "bc", "aa", "aaa", "aaaa", "ca", "cab"]
    yield "unk", make(["<unk>"] + letters + results, chain, unk_token="<unk>", decoder=FUSE)
    yield "unk_fused", make(["<unk>"] + letters + results, [m.split(" ") for m in chain],
                            unk_token="<unk>", fuse_unk=True, decoder=FUSE)
    yield "dropped", make(letters + results, chain, decoder=FUSE)
    yield "ignore_merges", make(letters + results + ["cabab", "b b"], chain, ignore_merges=True,
                                decoder=FUSE)
    some = ["<0x%02X>" % b for b in range(256) if b not in (0xC3, 0x64)]
    yield "some_bytes", make(["<unk>"] + letters + results + some, chain, unk_token="<unk>",
                             fuse_unk=True, byte_fallback=True, decoder=FUSE)
    every = ["<0x%02X>" % b for b in range(256)]
    yield "merged_bytes", make(letters + every + ["<0xC3><0xA9>", "a<0xC3><0xA9>"],
                               [["<0xC3>", "<0xA9>"], ["a", "<0xC3><0xA9>"]], byte_fallback=True,
                               decoder=FUSE)
    words = ["<unk>", "<s>", "</s>", "_"] + list("abc") + ["_a", "_ab", "ab", "__", "____", "bc"]
    yield "words", make(words + every, ["_ a", "a b", "_a b", "_ _", "__ __",
                                        "b c"],
                        added_tokens=SPECIAL + [
                            added(len(words) + 256, "<left>", lstrip=True),
                            added(len(words) + 257, "<right>", rstrip=True),
                            added(len(words) + 258, "<both>", lstrip=True, rstrip=True, special=True),
                            added(len(words) + 259, "<lef"),
                            added(len(words) + 260, "<<"),
                            added(len(words) + 261, "cab c", normalized=True),
                            added(len(words) + 262, "bb", normalized=True),
                            added(len(words) + 263, "\u3000\u00e9")],
                        normalizer=PREPEND, decoder=UNPREPEND, unk_token="<unk>", fuse_unk=True,
                        byte_fallback=True, post=both_ends(1, 2))


def story_texts(rng):
    yield from ["", " ", "  ", "   ", "\n", "\n\n", "\t", " \n ", "a", " a", "a ", "  a  b  ", "\r\n",
                "Once upon a time", "Once upon a time, there was a little girl named Lily.",
                "<s>", "</s>", "<unk>", "<s><s>", "<s>Once", "Once<s>upon</s> a time", "< s>", "<s",
                "</s", "a<s> b", "a <s>b", "<s> ", " <s>", "<s>\n</s>", "<0x41>", "<0x0A>", "\u2581",
                "\u2581\u2581", " \u2581 ", "the\u2581the", "\x01\x02\x7f", "caf\u00e9", "\u00e9",
                "na\u00efve \u00fcber", "\u65e5\u672c\u8a9e", "\u4f60\u597d, world", "\U0001F600",
                "\U0001F469\u200d\U0001F469\u200d\U0001F467", "e\u0301", "\u00a0", "\u3000", "\ufeff",
                "\uffff", "\ufffd", "\U0010FFFF", "\u0410\u0411\u0412", "\u05e9\u05dc\u05d5\u05dd",
                "0123456789", "3.14159", "!!!???...", "\"quoted\" 'text'", "{\"json\": [1, 2]}",
                "if (a < b) { return a->b; }", "https://example.org/a?b=c&d=%20", "TheTheThe",
                "the the the the", "thethethe", "tttttttt", "hehehehe", "aaaaaaaaaaaaaaaa",
                "a" * 40, "he" * 60, "th" * 33 + "e", " " * 50, "\n" * 70, "\u2581" * 40,
                "x" * 500, ("Once upon a time there was a very happy little friend. " * 40),
                "the" * 400, "\U0001F600" * 60, "Lily and Tim said they wanted to play up on the big"]
    words = ["the", " the", "\u2581", "he", "t", "h", "e", " ", "\n", "Once", "upon", "\u00e9", "<s>",
             "</s>", "Lily", "Timmy", "wanted", "ed", "\U0001F600", "very", ",", "\"", "a", "nd", "x"]
    for _ in range(90):
        yield "".join(rng.choice(words) for _ in range(rng.randint(2, 60)))
    for _ in range(20):
        points = [rng.choice([rng.randint(1, 0x7f), rng.randint(0x80, 0x7ff),
                              rng.randint(0x800, 0xd7ff), rng.randint(0x10000, 0x10ffff)])
                  for _ in range(rng.randint(1, 40))]
        yield "".join(map(chr, points))


def small_texts(rng, pieces):
    yield from ["", " ", "a", "x", "xx", "xax", "xxaxx", "\u00e9", "a\u00e9", "a\u00e9\u00e9b", "d\u00e9d",
                "\u00e9d\u00e9a", "\u00c3x\u00e9", "abcabc", "aaaaa", "cabab", "b b", "abxcab"]
    for _ in range(40):
        yield "".join(rng.choice(pieces) for _ in range(rng.randint(1, 30)))
    for _ in range(4):
        yield "".join(rng.choice(pieces) for _ in range(rng.randint(80, 300)))


def cases(tok, texts):
    out = []
    for text in dict.fromkeys(texts):
        e = tok.encode(text)
        out.append({"text": text, "ids": e.ids, "decoded": tok.decode(e.ids)})
    return out


def main():
    rng = random.Random(1)
    sets = []
    path = sys.argv[1] + "/tokenizer.json"
    sets.append({"name": "stories260K", "shared": "models/stories260K", "vocab": 512,
                 "cases": cases(Tokenizer.from_file(path), story_texts(rng))})
    plain = ["a", "b", "c", " ", "aa", "ab", "abc", "x", "y", "\u00e9", "d"]
    tagged = plain + ["<left>", "<right>", "<both>", "<lef", "<<", "cab c", "cab_c", "bb", " bb",
                      "  ", "<s>", "</s>", "\u3000", "\n", "\u3000\u00e9", "_"]
    for name, spec in crafted():
        tok = Tokenizer.from_str(json.dumps(spec))
        n = tok.get_vocab_size(with_added_tokens=True)
        texts = small_texts(rng, tagged if name == "words" else plain)
        sets.append({"name": name, "tokenizer": spec, "vocab": n, "cases": cases(tok, texts)})
    print("{\"oracle\": \"tokenizers %s\",\n\"sets\": [" % tokenizers.__version__)
    for i, s in enumerate(sets):
        lines = ",\n".join(json.dumps(c, separators=(",", ":")) for c in s.pop("cases"))
        head = json.dumps(s, separators=(",", ":"))[:-1]
        print(head + ",\"cases\":[\n" + lines + "\n]}" + ("," if i + 1 < len(sets) else ""))
    print("]}")


main()
