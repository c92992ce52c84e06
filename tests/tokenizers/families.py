"""The tokenizer.json of model families: the exact configuration that each publishes, with a
vocabulary trained on the spot by the Hugging Face `tokenizers` library."""
import json
import random

from tokenizers import Regex, Tokenizer, models, normalizers, pre_tokenizers, trainers

CONTRACTIONS = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)"
CL100K = CONTRACTIONS + (r"|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}%s| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|"
                         r"\s+(?!\S)|\s+")
QWEN35 = CONTRACTIONS + (r"|[^\r\n\p{L}\p{N}]?[\p{L}\p{M}]+|\p{N}| ?[^\s\p{L}\p{M}\p{N}]+[\r\n]*|"
                         r"\s*[\r\n]+|\s+(?!\S)|\s+")
HEAD, TAIL = r"[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]", r"[\p{Ll}\p{Lm}\p{Lo}\p{M}]"
CASED = (r"[^\r\n\p{{L}}\p{{N}}]?{head}*{tail}+{end}|[^\r\n\p{{L}}\p{{N}}]?{head}+{tail}*{end}|\p{{N}}{n}|"
         r" ?[^\s\p{{L}}\p{{N}}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+")
O200K = CASED.format(head=HEAD, tail=TAIL, end=CONTRACTIONS + "?", n="{1,3}")
TEKKEN = CASED.format(head=HEAD, tail=TAIL, end="", n="")
DEEPSEEK = [r"\p{N}{1,3}", "[\u4e00-\u9fa5\u3040-\u309f\u30a0-\u30ff]+",
            "[!\"#$%&'()*+,\\-./:;<=>?@\\[\\\\\\]^_`{|}~][A-Za-z]+|[^\r\n\\p{L}\\p{P}\\p{S}]?[\\p{L}\\p{M}]+|"
            " ?[\\p{P}\\p{S}]+[\r\n]*|\\s*[\r\n]+|\\s+(?!\\S)|\\s+"]
BYTES = [f"<0x{b:02X}>" for b in range(256)]
SPACE = "\u2581"


def split(regex, behavior="Isolated", invert=False):
    return {"type": "Split", "pattern": {"Regex": regex}, "behavior": behavior, "invert": invert}


def byte_level(**options):
    return {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True,
            **options}


def sequence(key, *items):
    return {"type": "Sequence", key: list(items)}


def cut_by(*regexes, **options):
    return sequence("pretokenizers", *(split(r, **options) for r in regexes), byte_level(use_regex=False))


def added(content, special=True, **flags):
    return {"content": content, "single_word": False, "lstrip": False, "rstrip": False,
            "normalized": False, "special": special, **flags}


def template(before=None, after=None):
    """`$A` between special tokens."""
    def around(t):
        return [{"SpecialToken": {"id": t, "type_id": 0}}] if t else []
    single = around(before) + [{"Sequence": {"id": "A", "type_id": 0}}] + around(after)
    return {"type": "TemplateProcessing", "single": single,
            "pair": single + [{"Sequence": {"id": "B", "type_id": 1}}],
            "special_tokens": {t: t for t in (before, after) if t}}


REPLACE = {"type": "Replace", "pattern": {"String": " "}, "content": SPACE}
UNSPACE = {"type": "Replace", "pattern": {"String": SPACE}, "content": " "}
FALLBACK = [UNSPACE, {"type": "ByteFallback"}, {"type": "Fuse"}]
STRIP = {"type": "Strip", "content": " ", "start": 1, "stop": 0}


def metaspace(scheme, is_split):
    return {"type": "Metaspace", "replacement": SPACE, "prepend_scheme": scheme, "split": is_split}


BYTE_LEVEL = {
    "gpt2": dict(pre_tokenizer=byte_level(), post_processor=byte_level(trim_offsets=False),
                 added=[added("<|endoftext|>", normalized=True)]),
    "llama3": dict(pre_tokenizer=cut_by(CL100K % "{1,3}"),
                   post_processor=sequence("processors", byte_level(), template("<|begin_of_text|>")),
                   added=[added(t) for t in ("<|begin_of_text|>", "<|end_of_text|>", "<|start_header_id|>",
                                             "<|end_header_id|>", "<|eot_id|>")], ignore_merges=True),
    "qwen2": dict(normalizer={"type": "NFC"}, pre_tokenizer=cut_by(CL100K % ""),
                  post_processor=byte_level(trim_offsets=False),
                  added=[added(t) for t in ("<|endoftext|>", "<|im_start|>", "<|im_end|>")] +
                  [added(t, special=False) for t in ("<tool_call>", "</tool_call>", "<think>")]),
    "qwen3.5": dict(normalizer={"type": "NFC"}, pre_tokenizer=cut_by(QWEN35),
                    added=[added(t) for t in ("<|endoftext|>", "<|im_start|>", "<|im_end|>")]),
    "gpt-oss": dict(pre_tokenizer=cut_by(O200K), post_processor=byte_level(trim_offsets=False),
                    added=[added(t) for t in ("<|startoftext|>", "<|endoftext|>", "<|return|>",
                                              "<|channel|>", "<|start|>", "<|end|>", "<|message|>")]),
    "gpt-4o": dict(pre_tokenizer=cut_by(O200K, behavior="Removed", invert=True),
                   added=[added("<|endoftext|>"), added("<|endofprompt|>")]),
    "mistral-nemo": dict(pre_tokenizer=cut_by(TEKKEN), post_processor=template("<s>"), ignore_merges=True,
                         added=[added(t) for t in ("<unk>", "<s>", "</s>", "[INST]", "[/INST]")]),
    "deepseek-v3": dict(normalizer=sequence("normalizers"), pre_tokenizer=cut_by(*DEEPSEEK),
                        post_processor=sequence("processors", template("<\uff5cbegin\u2581of\u2581sentence\uff5c>")),
                        added=[added(t, normalized=True) for t in (
                            "<\uff5cbegin\u2581of\u2581sentence\uff5c>", "<\uff5cend\u2581of\u2581sentence\uff5c>")] +
                        [added(t, special=False, normalized=True) for t in (
                            "<\uff5cUser\uff5c>", "<\uff5cAssistant\uff5c>", "<think>", "</think>")]),
    "smollm": dict(pre_tokenizer=sequence("pretokenizers", {"type": "Digits", "individual_digits": True},
                                          byte_level()),
                   added=[added("<|endoftext|>"), added("<|im_start|>"), added("<|im_end|>")]),
    "flags": dict(normalizer=sequence("normalizers", {"type": "Strip", "strip_left": True, "strip_right": True},
                                      {"type": "NFKC"}),
                  pre_tokenizer=byte_level(add_prefix_space=True), post_processor=template("<s>", "</s>"),
                  added=[added("<s>"), added("</s>"), added("<mask>", lstrip=True),
                         added("<right>", special=False, rstrip=True),
                         added("word", special=False, single_word=True),
                         added("\u00e9", special=False, single_word=True, normalized=True),
                         added("\ufb01n", special=False, normalized=True)]),
}
SPELT = {
    "gemma": dict(normalizer=REPLACE, post_processor=template("<bos>"),
                  pre_tokenizer={"type": "Split", "pattern": {"String": " "},
                                 "behavior": "MergedWithPrevious", "invert": False},
                  decoder=sequence("decoders", *FALLBACK),
                  added=[added(t) for t in ("<pad>", "<eos>", "<bos>", "<unk>", "<start_of_turn>")] +
                  [added(t, special=False) for t in ("\n\n", "\n\n\n", SPACE * 2, SPACE * 3, "<table>")]),
    "llama2": dict(normalizer=sequence("normalizers", {"type": "Prepend", "prepend": SPACE}, REPLACE),
                   post_processor=template("<s>"), decoder=sequence("decoders", *FALLBACK, STRIP),
                   added=[added("<unk>"), added("<s>"), added("</s>")]),
    "mistral-v0.3": dict(pre_tokenizer=metaspace("first", False), post_processor=template("<s>"),
                         decoder=sequence("decoders", *FALLBACK, STRIP),
                         added=[added(t) for t in ("<unk>", "<s>", "</s>", "[INST]", "[/INST]")]),
    "metaspace": dict(normalizer={"type": "NFKD"}, pre_tokenizer=metaspace("always", True),
                      decoder=metaspace("always", True),
                      added=[added("<unk>"), added("</s>"), added("<mask>", lstrip=True),
                             added("<right>", special=False, rstrip=True)],
                      byte_fallback=False),
}
NAMES = [*BYTE_LEVEL, *SPELT]
MARKERS = sorted({a["content"] for f in (*BYTE_LEVEL.values(), *SPELT.values()) for a in f["added"]})


def train_byte_level(f, texts, vocab):
    """Words as the family cuts them; one vocabulary for each."""
    tok = Tokenizer(models.BPE())
    spec = json.loads(tok.to_str())
    spec.update(normalizer=f.get("normalizer"), pre_tokenizer=f["pre_tokenizer"])
    tok = Tokenizer.from_str(json.dumps(spec))
    tok.train_from_iterator(texts, trainers.BpeTrainer(
        vocab_size=vocab, show_progress=False, initial_alphabet=pre_tokenizers.ByteLevel.alphabet()))
    return json.loads(tok.to_str())["model"]


def train_spelt(texts, vocab):
    """As SentencePiece does: words begin with their space, and merges do not reach across."""
    tok = Tokenizer(models.BPE())
    tok.normalizer = normalizers.Replace(" ", SPACE)
    tok.pre_tokenizer = pre_tokenizers.Sequence([
        pre_tokenizers.Split(Regex(r"\n+|\p{N}|[\p{P}\p{S}]"), "isolated"),
        pre_tokenizers.Split(SPACE, "merged_with_next")])
    tok.train_from_iterator((t.replace("\0", "") for t in texts), trainers.BpeTrainer(
        vocab_size=vocab, show_progress=False, limit_alphabet=vocab // 4, max_token_length=16))
    return json.loads(tok.to_str())["model"]


def with_first(model, first):
    """The model with these tokens before all others."""
    names = first + [t for t in sorted(model["vocab"], key=model["vocab"].get) if t not in first]
    return {**model, "vocab": {t: i for i, t in enumerate(names)}}


def finish(f, model):
    """(tokenizer.json, ids in all)"""
    vocab = model["vocab"]
    tokens = []
    for a in f["added"]:
        if a["content"] not in vocab:
            a = {**a, "id": len(vocab) + sum(t["content"] not in vocab for t in tokens)}
        else:
            a = {**a, "id": vocab[a["content"]]}
        tokens.append(a)
    ids = {t["content"]: t["id"] for t in tokens}
    post = json.loads(json.dumps(f.get("post_processor")))
    for p in (post or {}).get("processors", [post]):
        if p and p["type"] == "TemplateProcessing":
            p["special_tokens"] = {t: {"id": t, "ids": [ids[t]], "tokens": [t]} for t in p["special_tokens"]}
    spec = {"version": "1.0", "truncation": None, "padding": None, "added_tokens": tokens,
            "normalizer": f.get("normalizer"), "pre_tokenizer": f.get("pre_tokenizer"),
            "post_processor": post, "decoder": f.get("decoder", byte_level()), "model": model}
    return json.dumps(spec), max([*ids.values(), *vocab.values()]) + 1


def make_pairs(name):
    """A byte-level family with a merge for every pair of bytes: shows each cut between two of them, also
    those that no trained token reaches across."""
    f = BYTE_LEVEL[name]
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    pairs = [[a, b] for a in alphabet for b in alphabet]
    random.Random(1).shuffle(pairs)
    vocab = {t: i for i, t in enumerate([*alphabet, *(a + b for a, b in pairs)])}
    return finish(f, {"type": "BPE", "vocab": vocab, "merges": pairs,
                      "ignore_merges": f.get("ignore_merges", False)})


def make(name, texts, vocab, shared={}):
    """(tokenizer.json, ids in all) of a family; the spelt ones share what was trained."""
    if name in BYTE_LEVEL:
        f = BYTE_LEVEL[name]
        model = train_byte_level(f, texts, vocab)
        return finish(f, {**model, "ignore_merges": f.get("ignore_merges", False)})
    f = SPELT[name]
    if "spelt" not in shared:
        shared["spelt"] = train_spelt(texts, vocab)
    has_bytes = f.get("byte_fallback", True)
    first = [a["content"] for a in f["added"] if a["special"]] + (BYTES if has_bytes else [])
    model = with_first(shared["spelt"], first)
    return finish(f, {**model, "unk_token": "<unk>", "fuse_unk": True, "byte_fallback": has_bytes})
