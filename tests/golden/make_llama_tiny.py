#!/usr/bin/env python3
"""Write the two tiny random Llama models of this folder and what Hugging Face transformers says of them.

    python3 -m venv venv && venv/bin/pip install torch transformers
    venv/bin/python tests/golden/make_llama_tiny.py

Logits are transformers' own (eager attention, float32 arithmetic; bfloat16 weights are widened first), at
a few positions of one prompt on both sides of block and chunk edges; then greedy ids. The dimensions are
chosen to be awkward: grouped queries, a head size that is neither hidden / heads nor a multiple of a
vector, an odd vocabulary, llama3 rotary scaling, an untied head, a context past one attention chunk.
llama_tiny_f32: two shards, config.json in the present style (rope_parameters, dtype).
llama_tiny_bf16: one file, config.json in the older style (rope_theta, rope_scaling, torch_dtype).
"""
import json
import pathlib

import torch
from safetensors.torch import save_file
from transformers import LlamaConfig, LlamaForCausalLM

HERE = pathlib.Path(__file__).parent
N_PROMPT, N_IDS = 150, 32
POSITIONS = [0, 1, 2, 14, 15, 16, 17, 47, 63, 64, 100, 126, 127, 128, 129, 143, 144, 149]
SHAPE = dict(hidden_size=24, intermediate_size=40, num_hidden_layers=3, num_attention_heads=6,
             num_key_value_heads=2, head_dim=10, vocab_size=97, max_position_embeddings=256,
             rms_norm_eps=1e-5, bos_token_id=1, eos_token_id=2)
ROPE = dict(rope_type="llama3", factor=8.0, low_freq_factor=1.0, high_freq_factor=4.0,
            original_max_position_embeddings=32)
THETA = 5000.0


def build(seed):
    torch.manual_seed(seed)
    config = LlamaConfig(**SHAPE, rope_parameters={"rope_theta": THETA, **ROPE}, attention_bias=False,
                         mlp_bias=False, tie_word_embeddings=False, attn_implementation="eager")
    model = LlamaForCausalLM(config).eval().to(torch.float32)
    with torch.no_grad():
        for name, p in model.named_parameters():
            p.copy_(1 + 0.1 * torch.randn_like(p) if "norm" in name else 0.25 * torch.randn_like(p))
    return model


def answers(model, folder):
    prompt = torch.randint(3, SHAPE["vocab_size"], (1, N_PROMPT))
    with torch.no_grad():
        logits = model(prompt).logits[0, POSITIONS].contiguous()
        ids, margin = prompt, float("inf")
        for _ in range(N_IDS):
            top = model(ids).logits[0, -1].topk(2)
            margin = min(margin, float(top.values[0] - top.values[1]))
            ids = torch.cat([ids, top.indices[:1].reshape(1, 1)], 1)
    assert margin > 1e-3, "a greedy choice too close to call"
    save_file({"logits": logits}, folder / "golden.safetensors")
    golden = {"prompt_ids": prompt[0].tolist(), "positions": POSITIONS,
              "ids": ids[0, N_PROMPT:].tolist(), "least_margin": margin}
    (folder / "golden.json").write_text(json.dumps(golden) + "\n")


def write_f32():
    folder = HERE / "llama_tiny_f32"
    folder.mkdir(exist_ok=True)
    model = build(1)
    tensors = {k: v.contiguous() for k, v in model.state_dict().items()}
    names = sorted(tensors)
    shards = {"model-00001-of-00002.safetensors": names[::2],
              "model-00002-of-00002.safetensors": names[1::2]}
    weight_map = {}
    for file, part in shards.items():
        save_file({n: tensors[n] for n in part}, folder / file, metadata={"format": "pt"})
        weight_map.update({n: file for n in part})
    total = sum(t.numel() * t.element_size() for t in tensors.values())
    (folder / "model.safetensors.index.json").write_text(
        json.dumps({"metadata": {"total_size": total}, "weight_map": weight_map}, indent=1) + "\n")
    model.config.architectures = ["LlamaForCausalLM"]
    model.config.dtype = "float32"
    model.config.save_pretrained(folder)
    answers(model, folder)


def write_bf16():
    folder = HERE / "llama_tiny_bf16"
    folder.mkdir(exist_ok=True)
    model = build(2)
    tensors = {k: v.to(torch.bfloat16).contiguous() for k, v in model.state_dict().items()}
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    # Only the parameters are rounded: a model moved to bfloat16 would round its rotary tables as well.
    model.load_state_dict({k: v.to(torch.float32) for k, v in tensors.items()})
    config = dict(architectures=["LlamaForCausalLM"], model_type="llama", **SHAPE, hidden_act="silu",
                  rope_theta=THETA, rope_scaling=ROPE, tie_word_embeddings=False, attention_bias=False,
                  torch_dtype="bfloat16")
    (folder / "config.json").write_text(json.dumps(config, indent=1) + "\n")
    answers(model, folder)


if __name__ == "__main__":
    write_f32()
    write_bf16()
