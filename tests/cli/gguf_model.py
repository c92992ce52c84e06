"""A model folder as one GGUF file, tokenizer and all, as llama.cpp's converter writes a Llama: F32."""

import json
import struct

U32, I32, F32, BOOL, TEXT, ARRAY = 4, 5, 6, 7, 8, 9
NORMAL, UNKNOWN, CONTROL, BYTE = 1, 2, 3, 6
LAYER = {"self_attn.q_proj": "attn_q", "self_attn.k_proj": "attn_k", "self_attn.v_proj": "attn_v",
         "self_attn.o_proj": "attn_output", "mlp.gate_proj": "ffn_gate", "mlp.up_proj": "ffn_up",
         "mlp.down_proj": "ffn_down", "input_layernorm": "attn_norm", "post_attention_layernorm": "ffn_norm"}
OTHERS = {"model.embed_tokens": "token_embd", "model.norm": "output_norm", "lm_head": "output"}


def text(s):
    data = s.encode()
    return struct.pack("<Q", len(data)) + data


def value(key, kind, v):
    packed = {U32: "<I", F32: "<f", BOOL: "<?"}
    return text(key) + struct.pack("<I", kind) + (text(v) if kind == TEXT else struct.pack(packed[kind], v))


def array(key, kind, values):
    head = text(key) + struct.pack("<IIQ", ARRAY, kind, len(values))
    if kind == TEXT:
        return head + b"".join(text(v) for v in values)
    return head + struct.pack(f"<{len(values)}{'i' if kind == I32 else 'f'}", *values)


def head(n_tensors, values):
    return b"GGUF" + struct.pack("<IQQ", 3, n_tensors, len(values))


def tokenizer_values(spec):
    """SentencePiece's scores: the earlier a merge, the better its result."""
    vocab, merges = spec["model"]["vocab"], spec["model"]["merges"]
    scores = {}
    for rank, merge in enumerate(merges):
        scores.setdefault("".join(merge.split(" ") if isinstance(merge, str) else merge), -float(rank))
    tokens = sorted(vocab, key=vocab.get)
    added = {t["content"] for t in spec["added_tokens"]}
    kinds = [UNKNOWN if t == "<unk>" else CONTROL if t in added else BYTE if len(t) == 6 and t[:3] == "<0x"
             else NORMAL for t in tokens]
    return [value("tokenizer.ggml.model", TEXT, "llama"), array("tokenizer.ggml.tokens", TEXT, tokens),
            array("tokenizer.ggml.scores", F32, [scores.get(t, -1e6) for t in tokens]),
            array("tokenizer.ggml.token_type", I32, kinds), value("tokenizer.ggml.bos_token_id", U32, 1),
            value("tokenizer.ggml.eos_token_id", U32, 2)]


def model_values(c):
    keys = {"block_count": "num_hidden_layers", "context_length": "max_position_embeddings",
            "embedding_length": "hidden_size", "feed_forward_length": "intermediate_size",
            "attention.head_count": "num_attention_heads", "attention.head_count_kv": "num_key_value_heads",
            "rope.dimension_count": "head_dim"}
    return [value("general.architecture", TEXT, "llama"),
            *(value("llama." + to, U32, c[key]) for to, key in keys.items()),
            value("llama.attention.layer_norm_rms_epsilon", F32, c["rms_norm_eps"]),
            value("llama.rope.freq_base", F32, c["rope_theta"])]


def name_of(name):
    stem = name.removesuffix(".weight")
    if stem in OTHERS:
        return OTHERS[stem] + ".weight"
    _, _, layer, part = stem.split(".", 3)
    return f"blk.{layer}.{LAYER[part]}.weight"


def in_pairs(data, n_heads, head_dim):
    """Rows of query and key as the two halves of a rotated pair stand side by side."""
    size = len(data) // (n_heads * head_dim)
    rows = [data[i * size:(i + 1) * size] for i in range(n_heads * head_dim)]
    half = head_dim // 2
    return b"".join(rows[h * head_dim + j * half + i] for h in range(n_heads) for i in range(half) for j in (0, 1))


def tensors(folder, c):
    data = (folder / "model.safetensors").read_bytes()
    (n,) = struct.unpack_from("<Q", data)
    for name, info in json.loads(data[8:8 + n]).items():
        if name == "__metadata__":
            continue
        begin, end = info["data_offsets"]
        values = data[8 + n + begin:8 + n + end]
        for part, heads in (("q_proj", "num_attention_heads"), ("k_proj", "num_key_value_heads")):
            if part in name:
                values = in_pairs(values, c[heads], c["head_dim"])
        yield name_of(name), info["shape"], values


def write(folder, path, has_tokenizer=True):
    """Every tensor of the folder must be F32."""
    c = json.loads((folder / "config.json").read_text())
    values = model_values(c)
    if has_tokenizer:
        values += tokenizer_values(json.loads((folder / "tokenizer.json").read_text(encoding="utf-8")))
    infos, data = [], b""
    for name, shape, v in tensors(folder, c):
        infos.append(text(name) + struct.pack(f"<I{len(shape)}Q", len(shape), *reversed(shape)) +
                     struct.pack("<IQ", 0, len(data)))
        data += v + bytes(-len(v) % 32)
    before = head(len(infos), values) + b"".join(values + infos)
    path.write_bytes(before + bytes(-len(before) % 32) + data)
    return path
