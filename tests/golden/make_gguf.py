#!/usr/bin/env python3
"""Write one small GGUF file of random weights in every supported type, with llama.cpp's own package, and
print what that package decodes: FNV-1a (64 bit) of each tensor's float32 bytes, for tests/unit/test_gguf.c.

    python3 -m venv venv && venv/bin/pip install gguf
    venv/bin/python tests/golden/make_gguf.py
"""
import pathlib

import gguf
import numpy as np

PATH = pathlib.Path(__file__).parent / "types.gguf"
HIDDEN, INTERMEDIATE, HEADS, VOCAB = 64, 32, 2, 33
Q = gguf.GGMLQuantizationType


def fnv(values):
    h = 0xcbf29ce484222325
    for b in np.ascontiguousarray(values, dtype="<f4").tobytes():
        h = ((h ^ b) * 0x100000001b3) & 0xffffffffffffffff
    return h


def main():
    rng = np.random.default_rng(7)
    w = gguf.GGUFWriter(PATH, "llama")
    w.add_block_count(1)
    w.add_context_length(128)
    w.add_embedding_length(HIDDEN)
    w.add_feed_forward_length(INTERMEDIATE)
    w.add_head_count(HEADS)
    w.add_head_count_kv(1)
    w.add_layer_norm_rms_eps(1e-5)
    w.add_rope_freq_base(10000.0)
    w.add_rope_dimension_count(HIDDEN // HEADS)
    w.add_token_list(["<unk>", "<s>", "</s>"])
    w.add_bos_token_id(1)
    w.add_eos_token_id(2)
    head = HIDDEN // HEADS
    tensors = {
        "token_embd": ((VOCAB, HIDDEN), Q.MXFP4), "output": ((VOCAB, HIDDEN), Q.Q8_0),
        "output_norm": ((HIDDEN,), Q.F32), "blk.0.attn_norm": ((HIDDEN,), Q.F32),
        "blk.0.attn_q": ((HIDDEN, HIDDEN), Q.Q8_0), "blk.0.attn_k": ((head, HIDDEN), Q.F16),
        "blk.0.attn_v": ((head, HIDDEN), Q.BF16), "blk.0.attn_output": ((HIDDEN, HIDDEN), Q.Q4_0),
        "blk.0.ffn_norm": ((HIDDEN,), Q.F32), "blk.0.ffn_gate": ((INTERMEDIATE, HIDDEN), Q.Q4_0),
        "blk.0.ffn_up": ((INTERMEDIATE, HIDDEN), Q.MXFP4), "blk.0.ffn_down": ((HIDDEN, INTERMEDIATE), Q.Q8_0),
    }
    for name, (shape, kind) in tensors.items():
        data = gguf.quants.quantize(rng.standard_normal(shape).astype(np.float32), kind)
        w.add_tensor(name + ".weight", data, raw_dtype=kind)
        values = gguf.quants.dequantize(data, kind).reshape(shape)
        print(f"{name:18} {kind.name:6} 0x{fnv(values):016x}")
    w.write_header_to_file()
    w.write_kv_data_to_file()
    w.write_tensors_to_file()
    w.close()


if __name__ == "__main__":
    main()
