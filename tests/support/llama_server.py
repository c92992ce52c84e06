"""llama.cpp's HTTP server on a small random model that this script writes first.

usage: llama_server.py FOLDER

Leaves random.gguf and the same vocabulary as tokenizer.json in FOLDER, says `listening on URL` on
stdout and serves until it is ended. Needs the package xllamacpp, which is
llama.cpp's server in a wheel: its HTTP, its scheduler, its kernels.
"""
import array
import json
import pathlib
import random
import signal
import struct
import sys

import xllamacpp

WIDTH, HEADS, LAYERS, HIDDEN, CONTEXT = 64, 4, 2, 128, 2048
SLOT_CONTEXT = 512  # tokens of a request
U32, F32, STRING, ARRAY = 4, 6, 8, 9  # types of GGUF values
NORMAL, UNKNOWN, CONTROL, BYTE = 1, 2, 3, 6  # types of SentencePiece tokens
ALIGN = 32
LETTERS = "abcdefghijklmnopqrstuvwxyz"
WORDS = ["▁" + a + b for a in LETTERS for b in LETTERS]
TEMPLATE = "{% for m in messages %}{{ m['role'] }}: {{ m['content'] }}\n{% endfor %}"


def vocabulary():
    """[(piece, type)]: three special ones, all bytes, letters, and two letters after a space: the
    words of all replies."""
    special = [("<unk>", UNKNOWN), ("<s>", CONTROL), ("</s>", CONTROL)]
    of_bytes = [(f"<0x{b:02X}>", BYTE) for b in range(256)]
    pieces = ["▁", *LETTERS, *("▁" + a for a in LETTERS), *WORDS]
    return special + of_bytes + [(p, NORMAL) for p in pieces]


def write_tokenizer(path, vocab):
    """The same pieces as Hugging Face writes them, without the space that a text begins with."""
    merges = [["▁", a] for a in LETTERS] + [[word[:2], word[2]] for word in WORDS]
    added = [{"id": i, "content": piece, "special": True, "single_word": False, "lstrip": False,
              "rstrip": False, "normalized": False} for i, (piece, _) in enumerate(vocab[:3])]
    path.write_text(json.dumps({
        "version": "1.0", "truncation": None, "padding": None, "added_tokens": added,
        "normalizer": {"type": "Replace", "pattern": {"String": " "}, "content": "▁"},
        "pre_tokenizer": None, "post_processor": None,
        "decoder": {"type": "Sequence", "decoders": [
            {"type": "Replace", "pattern": {"String": "▁"}, "content": " "},
            {"type": "ByteFallback"}, {"type": "Fuse"}]},
        "model": {"type": "BPE", "dropout": None, "unk_token": "<unk>",
                  "continuing_subword_prefix": None, "end_of_word_suffix": None, "fuse_unk": True,
                  "byte_fallback": True, "ignore_merges": False,
                  "vocab": {piece: i for i, (piece, _) in enumerate(vocab)}, "merges": merges}}))


def string(text):
    data = text.encode()
    return struct.pack("<Q", len(data)) + data


def array_of(kind, packed):
    return struct.pack("<IQ", kind, len(packed)) + b"".join(packed)


def metadata(vocab):
    """{key: (type, bytes)} of a Llama with these sizes."""
    def u32(n):
        return U32, struct.pack("<I", n)

    kinds = [struct.pack("<i", kind) for _, kind in vocab]
    scores = [struct.pack("<f", -float(i)) for i in range(len(vocab))]
    return {
        "general.architecture": (STRING, string("llama")),
        "general.name": (STRING, string("random")),
        "llama.context_length": u32(CONTEXT),
        "llama.embedding_length": u32(WIDTH),
        "llama.block_count": u32(LAYERS),
        "llama.feed_forward_length": u32(HIDDEN),
        "llama.attention.head_count": u32(HEADS),
        "llama.attention.layer_norm_rms_epsilon": (F32, struct.pack("<f", 1e-5)),
        "llama.rope.dimension_count": u32(WIDTH // HEADS),
        "tokenizer.ggml.model": (STRING, string("llama")),
        "tokenizer.ggml.tokens": (ARRAY, array_of(STRING, [string(p) for p, _ in vocab])),
        "tokenizer.ggml.scores": (ARRAY, array_of(F32, scores)),
        "tokenizer.ggml.token_type": (ARRAY, array_of(5, kinds)),
        "tokenizer.ggml.unknown_token_id": u32(0),
        "tokenizer.ggml.bos_token_id": u32(1),
        "tokenizer.ggml.eos_token_id": u32(2),
        "tokenizer.chat_template": (STRING, string(TEMPLATE)),
    }


def tensors(n_vocab, draw):
    """[(name, shape with the row length first, float32 values)]"""
    def normal(*shape):
        n = shape[0] * (shape[1] if len(shape) > 1 else 1)
        return shape, array.array("f", [draw.gauss(0, shape[0] ** -0.5) for _ in range(n)])

    def ones():
        return (WIDTH,), array.array("f", [1.0] * WIDTH)

    made = {"token_embd.weight": normal(WIDTH, n_vocab), "output_norm.weight": ones()}
    # The logits of all but the words are 0, and some word's is above that: no reply has others.
    shape, values = normal(WIDTH, n_vocab)
    n_others = (n_vocab - len(WORDS)) * WIDTH
    values[:n_others] = array.array("f", bytes(4 * n_others))
    made["output.weight"] = shape, values
    for i in range(LAYERS):
        block = {"attn_norm": ones(), "ffn_norm": ones(), "ffn_gate": normal(WIDTH, HIDDEN),
                 "ffn_up": normal(WIDTH, HIDDEN), "ffn_down": normal(HIDDEN, WIDTH)}
        block.update({f"attn_{n}": normal(WIDTH, WIDTH) for n in ("q", "k", "v", "output")})
        made.update({f"blk.{i}.{name}.weight": t for name, t in block.items()})
    return [(name, shape, values) for name, (shape, values) in made.items()]


def write_model(path, vocab):
    """A file in GGUF version 3: header, metadata, descriptions of tensors, tensors."""
    keys, parts = metadata(vocab), tensors(len(vocab), random.Random(1))
    head = b"GGUF" + struct.pack("<IQQ", 3, len(parts), len(keys))
    for key, (kind, value) in keys.items():
        head += string(key) + struct.pack("<I", kind) + value
    body = b""
    for name, shape, values in parts:
        head += string(name) + struct.pack(f"<I{len(shape)}Q", len(shape), *shape)
        head += struct.pack("<IQ", 0, len(body))  # float32
        body += values.tobytes()
        body += bytes(-len(body) % ALIGN)
    path.write_bytes(head + bytes(-len(head) % ALIGN) + body)


def settings(model):
    p = xllamacpp.CommonParams()
    p.model.path = str(model)
    p.model_alias = {"random"}
    p.port = 0
    p.n_parallel = 4
    p.n_ctx = 4 * SLOT_CONTEXT
    p.cpuparams.n_threads = p.cpuparams_batch.n_threads = 1
    p.endpoint_metrics = True
    p.warmup = False
    return p


def main():
    folder, vocab = pathlib.Path(sys.argv[1]), vocabulary()
    write_model(folder / "random.gguf", vocab)
    write_tokenizer(folder / "tokenizer.json", vocab)
    server = xllamacpp.Server(settings(folder / "random.gguf"))
    print(f"listening on {server.listening_address}", flush=True)
    signal.pause()


main()
