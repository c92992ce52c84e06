#!/usr/bin/env python3
"""Small GGUF files that carry a tokenizer and no tensors, written with llama.cpp's own package, and in
gguf_tokenizer_cases.json texts with their ids, and what those decode to where that is another text: of SentencePiece models by `sentencepiece` (its encode of
the model as trained), of byte-level ones by the Hugging Face `tokenizers` library (its encode of the
tokenizer.json that the file says in its own words).

    python3 -m venv venv && venv/bin/pip install gguf sentencepiece protobuf tokenizers
    venv/bin/python tests/golden/make_gguf_tokenizers.py
"""
import io
import json
import pathlib
import random
import sys

import gguf
import sentencepiece
import tokenizers
from sentencepiece import sentencepiece_model_pb2 as pb

HERE = pathlib.Path(__file__).resolve().parent
OUT = HERE / "gguf_tokenizers"
sys.path.insert(0, str(HERE.parent / "tokenizers"))

import corpus    # noqa: E402
import families  # noqa: E402

NORMAL, UNKNOWN, CONTROL, USER_DEFINED, UNUSED, BYTE = range(1, 7)
PRE = {"gpt2": "gpt-2", "llama3": "llama-bpe", "qwen2": "qwen2", "gpt-oss": "gpt-4o",
       "mistral-nemo": "tekken", "deepseek-v3": "deepseek-v3", "smollm": "smollm", "qwen3.5": "qwen35"}
N_PADDING = 3  # rows of a table that no token has


def writer(name, kind):
    w = gguf.GGUFWriter(OUT / f"{name}.gguf", "llama")
    w.add_tokenizer_model(kind)
    return w


def finish(w):
    w.write_header_to_file()
    w.write_kv_data_to_file()
    w.close()


# --- SentencePiece ---------------------------------------------------------------------------------

def train(texts, **options):
    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(texts), model_writer=model, model_type="bpe", minloglevel=2,
        normalization_rule_name="identity", remove_extra_whitespaces=False, split_digits=True,
        allow_whitespace_only_pieces=True, max_sentence_length=1 << 20, num_threads=1, **options)
    proto = pb.ModelProto()
    proto.ParseFromString(model.getvalue())
    return proto


def write_spelt(name, proto, says_ids):
    """As llama.cpp's converter does: user-defined tokens with true spaces, unused rows behind."""
    w = writer(name, "llama")
    pieces, kinds = [], []
    for p in proto.pieces:
        text = p.piece.replace(families.SPACE, " ") if p.type == USER_DEFINED else p.piece
        pieces.append(text)
        kinds.append(p.type)
    scores = [p.score for p in proto.pieces] + [-10000.0] * N_PADDING
    w.add_token_list(pieces + [f"[PAD{i}]" for i in range(N_PADDING)])
    w.add_token_scores(scores)
    w.add_token_types(kinds + [UNUSED] * N_PADDING)
    if says_ids:
        w.add_bos_token_id(proto.trainer_spec.bos_id)
        w.add_eos_token_id(proto.trainer_spec.eos_id)
        w.add_unk_token_id(proto.trainer_spec.unk_id)
        w.add_add_bos_token(True)
        w.add_add_eos_token(False)
    if not proto.normalizer_spec.add_dummy_prefix:
        w.add_add_space_prefix(False)
    finish(w)


def spelt_cases(proto, texts):
    sp = sentencepiece.SentencePieceProcessor(model_proto=proto.SerializeToString())
    cases = []
    for text in dict.fromkeys(texts):
        ids = sp.encode(text)
        case = {"text": text, "ids": [sp.bos_id(), *ids]}
        if sp.unk_id() in ids:  # which it shows as a mark of its own
            case["decoded"] = None
        elif sp.decode(ids) != text:
            case["decoded"] = sp.decode(ids)
        cases.append(case)
    return cases


def coarse(proto, n_levels):
    """The model with few different scores: then the leftmost pair of the best counts."""
    out = pb.ModelProto()
    out.CopyFrom(proto)
    rng = random.Random(5)
    for p in out.pieces:
        if p.type == NORMAL and len(p.piece) > 1:
            p.score = -float(rng.randrange(n_levels))
    return out


def spelt(texts):
    """(name, model, whether the file says its special ids); other scripts are left to bytes and unknowns"""
    texts = [t for t in texts if sum(c > "\x7f" for c in t) < len(t) / 10]
    llama = train(texts, vocab_size=560, byte_fallback=True, character_coverage=0.98)
    yield "spelt", llama, False
    yield "spelt_ties", coarse(llama, 3), True
    yield "spelt_same", coarse(llama, 1), True
    # gemma's: no space before a text, runs of spaces and line ends are tokens
    yield "spelt_plain", train(
        texts, vocab_size=600, byte_fallback=True, character_coverage=0.98, add_dummy_prefix=False,
        pad_id=0, eos_id=1, bos_id=2, unk_id=3, control_symbols=["<start_of_turn>", "<end_of_turn>"],
        user_defined_symbols=["\n\n", "\n\n\n", *(families.SPACE * n for n in (2, 3, 4)), "<table>", "ing"]), True
    yield "spelt_unknown", train(texts, vocab_size=250, byte_fallback=False, character_coverage=0.98), True


# --- byte-level ------------------------------------------------------------------------------------

def write_byte_level(name, spec, adds_bos):
    """`adds_bos`: None when the way of cutting says it."""
    w = writer(name, "gpt2")
    w.add_tokenizer_pre(PRE[name])
    vocab = spec["model"]["vocab"]
    tokens = {i: (t, NORMAL) for t, i in vocab.items()}
    tokens |= {a["id"]: (a["content"], CONTROL if a["special"] else USER_DEFINED) for a in spec["added_tokens"]}
    n = max(tokens) + 1
    tokens |= {i: (f"[PAD{i}]", UNUSED) for i in range(n, n + N_PADDING)}
    w.add_token_list([tokens[i][0] for i in sorted(tokens)])
    w.add_token_types([tokens[i][1] for i in sorted(tokens)])
    w.add_token_merges([m if isinstance(m, str) else " ".join(m) for m in spec["model"]["merges"]])
    bos = next((a["id"] for a in spec["added_tokens"] if "<s>" == a["content"] or "begin" in a["content"]), None)
    if bos is not None:
        w.add_bos_token_id(bos)
    if adds_bos is not None:
        w.add_add_bos_token(adds_bos)
    finish(w)


def byte_level_cases(spec, texts):
    tok = tokenizers.Tokenizer.from_str(json.dumps(spec))
    cases = []
    for text in dict.fromkeys(texts):
        ids = tok.encode(text).ids
        cases.append({"text": text, "ids": ids})
        if tok.decode(ids) != text:
            cases[-1]["decoded"] = tok.decode(ids)
    return cases


# --- texts -----------------------------------------------------------------------------------------

def training():
    return [line for line in corpus.sample()[0].split("\n") if line] + [
        "def f(x):\n\n    if x > 1:\n        return  x\n\n\n", "a  b   c    d", "12 345 6789",
        "The tide rises, the tide falls, the twilight darkens, the curlew calls;"] * 3


def texts(markers, extra):
    rng = random.Random(3)
    words = corpus.PIECES + corpus.SPACES + corpus.EMOJI + markers + corpus.sample()[0].split()[:200] + [" "] * 60
    yield from ["", " ", "  ", "a", " a", "a ", "\n", "\n\n\n\n", "\u2581", "The tide rises.", *extra]
    yield corpus.sample()[0][::7][:200]
    for _ in range(9):
        yield "".join(rng.choice(words) + (" " if rng.random() < 0.3 else "") for _ in range(rng.randint(2, 24)))
    yield "falls" * 24


def main():
    OUT.mkdir(exist_ok=True)
    files = []
    for name, proto, says_ids in spelt(training()):
        write_spelt(name, proto, says_ids)
        markers = ["<table>", "    ", "ing"] if name == "spelt_plain" else []
        if name == "spelt_plain":
            extra = ["falling  in   a    deep      hole", "<table>\n\n\n\n<table>"]
        else:
            extra = ["the  tide   rises    ", "x" * 120, "thethethe" * 12]
        plain = [t for t in texts(markers, extra) if "\0" not in t and families.SPACE not in t]
        files.append({"file": name, "oracle": f"sentencepiece {sentencepiece.__version__}",
                      "cases": spelt_cases(proto, plain)})
    for name in PRE:
        spec = json.loads(families.make(name, training(), 300)[0])
        says = {"gpt2": False, "llama3": None, "mistral-nemo": None, "deepseek-v3": True}
        write_byte_level(name, spec, says.get(name))
        markers = [a["content"] for a in spec["added_tokens"]]
        files.append({"file": name, "oracle": f"tokenizers {tokenizers.__version__}",
                      "cases": byte_level_cases(spec, texts(markers, [m + " " + m for m in markers]))})
    with open(HERE / "gguf_tokenizer_cases.json", "w", encoding="utf-8") as f:
        f.write("[")
        for i, each in enumerate(files):
            cases = each.pop("cases")
            f.write(("," if i else "") + "\n" + json.dumps(each, separators=(",", ":"))[:-1] + ",\"cases\":[\n")
            f.write(",\n".join(json.dumps(c, ensure_ascii=False, separators=(",", ":")) for c in cases) + "\n]}")
        f.write("\n]\n")


if __name__ == "__main__":
    main()
