#!/usr/bin/env python3
"""Write the tiny random models of this folder and what Hugging Face transformers says of them.

    python3 -m venv venv && venv/bin/pip install torch transformers
    venv/bin/python tests/golden/make_tiny_models.py [NAME...]

Logits are transformers' own (eager attention, float32 arithmetic; weights of fewer bits are widened first),
at a few positions of one prompt on both sides of block, chunk and window edges; then 128 greedy ids. The
shapes are chosen to be awkward: grouped queries, a head size that is neither hidden / heads nor a multiple of
a vector, an odd vocabulary, windows shorter than the prompt in some layers and none in others, experts in
some layers and none in others, biases and norms that are not what training starts from. Seeds are tried in
turn until no greedy choice is closer than MARGIN, at least DIFFERENT ids come up, and bfloat16 activations
(transformers' own, on the same weights) stay within BF16_DISTANCE of the float32 logits, as do, where weights are
not float32, hidden states and norms that round as tidemark's do: then no expert hangs on the last bit.

*_f32: float32, config.json as transformers writes it now (rope_parameters, layer_types, dtype).
*_bf16: bfloat16, config.json as published ones are (rope_theta, rope_scaling with `type`, torch_dtype).
gpt_oss_tiny_mxfp4, deepseek_v3_tiny_fp8: matrices in 4 and 8 bits, the answers are the decoded weights'.
llama_tiny_f32 comes in two shards, the others in one file.
*_even_*: as *_tiny_*, but that sizes are multiples of 8, as the cuda backend wants them.
"""
import copy
import json
import pathlib
import sys

import torch
import transformers
from safetensors.torch import save_file

HERE = pathlib.Path(__file__).parent
N_PROMPT, N_IDS = 150, 128
MARGIN, BF16_DISTANCE, DIFFERENT = 2e-3, 2.2e-2, 8
ROUNDINGS = 20
POSITIONS = [0, 1, 2, 14, 15, 16, 17, 18, 19, 20, 21, 22, 47, 63, 64, 100, 127, 128, 129, 143, 144, 149]
VOCAB = 97
COMMON = dict(vocab_size=VOCAB, max_position_embeddings=320, bos_token_id=1, eos_token_id=2)
MXFP4_VALUES = torch.tensor([0, .5, 1, 1.5, 2, 3, 4, 6, -0., -.5, -1, -1.5, -2, -3, -4, -6])
BLOCK = 128  # FP8 factors are of squares this wide

LLAMA = dict(hidden_size=24, intermediate_size=40, num_hidden_layers=3, num_attention_heads=6,
             num_key_value_heads=2, head_dim=10, rms_norm_eps=1e-5, attention_bias=False, mlp_bias=False)
LLAMA3 = dict(rope_type="llama3", factor=8.0, low_freq_factor=1.0, high_freq_factor=4.0,
              original_max_position_embeddings=32)
QWEN2 = dict(hidden_size=28, intermediate_size=44, num_hidden_layers=3, num_attention_heads=6,
             num_key_value_heads=2, head_dim=10, rms_norm_eps=1e-6, use_sliding_window=True,
             sliding_window=19, max_window_layers=1)
GEMMA2 = dict(hidden_size=24, intermediate_size=40, num_hidden_layers=4, num_attention_heads=4,
              num_key_value_heads=2, head_dim=10, rms_norm_eps=1e-6, query_pre_attn_scalar=13,
              sliding_window=17, final_logit_softcapping=6.0, attn_logit_softcapping=5.0,
              hidden_activation="gelu_pytorch_tanh")
GPT_OSS = dict(hidden_size=24, intermediate_size=20, num_hidden_layers=3, num_attention_heads=6,
               num_key_value_heads=2, head_dim=12, rms_norm_eps=1e-5, sliding_window=18,
               num_local_experts=6, num_experts_per_tok=3)
GPT_OSS_YARN = dict(rope_type="yarn", factor=8.0, beta_fast=4.0, beta_slow=1.0, truncate=False,
                    original_max_position_embeddings=256)
DEEPSEEK = dict(hidden_size=24, intermediate_size=40, moe_intermediate_size=12, num_hidden_layers=3,
                num_attention_heads=4, num_key_value_heads=4, n_shared_experts=1, n_routed_experts=8,
                routed_scaling_factor=2.5, kv_lora_rank=14, q_lora_rank=18, qk_rope_head_dim=8,
                v_head_dim=10, qk_nope_head_dim=6, n_group=4, topk_group=2, num_experts_per_tok=3,
                first_k_dense_replace=1, norm_topk_prob=True, rms_norm_eps=1e-6)
DEEPSEEK_YARN = dict(rope_type="yarn", factor=40.0, beta_fast=4.0, beta_slow=1.0, mscale=1.0,
                     mscale_all_dim=1.0, original_max_position_embeddings=64)


def spread(family, tied, name, p):
    """Random values of one tensor: near what a trained one holds, far enough from what would hide mistakes."""
    noise = torch.randn_like(p)
    transposed = family == "gpt_oss" and ".experts." in name
    gain = p.shape[-2 if transposed and p.dim() == 3 else -1] ** -0.5  # keeps what is summed near 1
    if "e_score_correction_bias" in name:
        return 0.2 * torch.rand_like(p)  # choices stay positive: dropped groups then lose however they are masked
    if "norm" in name:
        at = {"post_attention": 1.0, "post_feedforward": 1.0}.get(name.split(".")[-2].split("_layer")[0], 0.0)
        return (at if family == "gemma2" else 1.0) + 0.1 * noise
    if "sinks" in name:
        return noise
    if "gate_up_proj_bias" in name:
        return 3 * noise  # some meet the clamp at 7
    if "bias" in name:
        return 0.3 * noise
    if "embed" in name:
        return (2 * gain if tied else 1.5) * noise
    if ".mlp.router." in name or ".mlp.gate.weight" in name:
        return 3.5 * gain * noise
    return 1.25 * gain * noise


def build(family, config, seed):
    torch.manual_seed(seed)
    auto = transformers.AutoConfig.for_model(family, **copy.deepcopy(config))
    auto._attn_implementation = "eager"
    auto._experts_implementation = "eager"
    model = transformers.AutoModelForCausalLM.from_config(auto).eval().to(torch.float32)
    with torch.no_grad():
        for name, p in [*model.named_parameters(), *model.named_buffers()]:
            if "inv_freq" not in name and "embed_scale" not in name:
                p.copy_(spread(family, auto.tie_word_embeddings, name, p))
    return model


def published_names(model):
    """The state as checkpoints spell it: DeepSeek's experts one by one."""
    out = {}
    for name, t in model.state_dict().items():
        if name == "lm_head.weight" and model.config.tie_word_embeddings:
            continue
        if not name.startswith("model.layers.") or ".experts." not in name or "deepseek" not in \
                model.config.model_type:
            out[name] = t.clone()
            continue
        prefix, kind = name.rsplit(".", 1)
        for e, w in enumerate(t):
            parts = dict(zip(("gate_proj", "up_proj"), w.chunk(2))) if kind == "gate_up_proj" else \
                {"down_proj": w}
            out.update({f"{prefix}.{e}.{part}.weight": v.clone() for part, v in parts.items()})
    return out


def load_published(model, tensors):
    """The opposite of published_names, in float32."""
    state = model.state_dict()
    with torch.no_grad():
        for name, t in state.items():
            prefix, kind = name.rsplit(".", 1)
            if name in tensors:
                t.copy_(tensors[name].to(torch.float32))
            elif ".experts." in name:
                parts = ["gate_proj", "up_proj"] if kind == "gate_up_proj" else [kind]
                for e in range(t.shape[0]):
                    t[e].copy_(torch.cat([tensors[f"{prefix}.{e}.{p}.weight"] for p in parts]))
            else:
                assert name == "lm_head.weight"


def to_mxfp4(w):
    """(..., n) -> codes (..., n / 32, 16), scales (..., n / 32), and the values these stand for."""
    groups = w.reshape(*w.shape[:-1], -1, 32)
    largest = groups.abs().amax(-1, keepdim=True).clamp(min=2.0**-100)
    exponent = torch.floor(torch.log2(largest)) - 2
    scaled = groups / torch.exp2(exponent)
    codes = (scaled.unsqueeze(-1) - MXFP4_VALUES).abs().argmin(-1)
    values = (MXFP4_VALUES[codes] * torch.exp2(exponent)).reshape(w.shape)
    blocks = (codes[..., 0::2] | codes[..., 1::2] << 4).to(torch.uint8)
    return blocks, (exponent.squeeze(-1) + 127).to(torch.uint8), values


def to_fp8(w):
    """(rows, cols) -> e4m3 codes, a factor per 128 x 128 square, and the values these stand for."""
    rows, cols = w.shape
    scale = torch.stack([torch.stack([w[r:r + BLOCK, c:c + BLOCK].abs().max() / 448
                                      for c in range(0, cols, BLOCK)]) for r in range(0, rows, BLOCK)])
    wide = scale.repeat_interleave(BLOCK, 0)[:rows].repeat_interleave(BLOCK, 1)[:, :cols]
    codes = (w / wide).to(torch.float8_e4m3fn)
    return codes, scale.to(torch.float32), codes.to(torch.float32) * wide


def quantise(storage, tensors):
    """What is stored, and what it stands for."""
    if storage == "f32":
        return tensors, tensors
    stored, means = {}, {}
    for name, t in tensors.items():
        if storage == "mxfp4" and name.endswith(("experts.gate_up_proj", "experts.down_proj")):
            blocks, scales, values = to_mxfp4(t.transpose(1, 2).contiguous())
            stored[name + "_blocks"], stored[name + "_scales"] = blocks, scales
            means[name] = values.transpose(1, 2).contiguous()
        elif storage == "fp8" and t.dim() == 2 and not name.endswith(("embed_tokens.weight", "lm_head.weight",
                                                                      "mlp.gate.weight")):
            stored[name], stored[name + "_scale_inv"], means[name] = to_fp8(t)
        else:
            keep = torch.float32 if "e_score_correction_bias" in name else torch.bfloat16
            stored[name] = means[name] = t.to(keep)
    return stored, means


def generate(model, prompt):
    out, ids, cache, margin = [], prompt, None, float("inf")
    while len(out) < N_IDS and margin >= MARGIN:
        step = model(ids, cache=cache, use_cache=True)
        cache, top = step.cache, step.logits[0, -1].topk(2)
        margin = min(margin, float(top.values[0] - top.values[1]))
        out.append(int(top.indices[0]))
        ids = top.indices[:1].reshape(1, 1)
    return out, margin


def bf16_distance(model, prompt, logits):
    got = copy.deepcopy(model).to(torch.bfloat16)(prompt).logits[0, POSITIONS].to(torch.float32)
    return float((got - logits).norm() / logits.norm())


def rounded(x):
    return x.to(torch.bfloat16).to(torch.float32)


def rounded_somehow(x):
    return rounded(x * (1 + 2**-8 * (torch.rand(x.shape) - 0.5)))


def carried_distance(model, prompt, logits, inputs):
    """Likewise where only hidden states between layers are rounded, what norms round before their weight, and, with
    `inputs`, what matrices are multiplied with, up or down as it comes."""
    model = copy.deepcopy(model)
    for name, module in model.named_modules():
        if inputs and (isinstance(module, torch.nn.Linear) or name.endswith(".experts")):
            module.register_forward_pre_hook(lambda m, args: (rounded_somehow(args[0]), *args[1:]))
    for layer in model.model.layers:
        layer.register_forward_hook(lambda module, args, out: rounded(out))
    for norm in model.modules():
        if type(norm).__name__ in ("LlamaRMSNorm", "Qwen2RMSNorm", "DeepseekV3RMSNorm"):
            norm.forward = lambda x, n=norm: n.weight * rounded(
                x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + n.variance_epsilon))
    return float((model(prompt).logits[0, POSITIONS] - logits).norm() / logits.norm())


def try_seed(family, config, storage, seed):
    model = build(family, config, seed)
    stored, means = quantise(storage, published_names(model))
    load_published(model, means)
    if family == "gemma2" and storage == "bf16":  # as a bfloat16 model does: the factor is an activation
        scale = model.model.embed_tokens.embed_scale
        scale.copy_(scale.to(torch.bfloat16).to(torch.float32))
    prompt = torch.randint(3, VOCAB, (1, N_PROMPT))
    with torch.no_grad():
        logits = model(prompt).logits[0, POSITIONS].contiguous()
        distance = bf16_distance(model, prompt, logits)
        for draw in range(0 if storage == "f32" else ROUNDINGS):
            if distance <= BF16_DISTANCE:
                distance = max(distance, carried_distance(model, prompt, logits, draw > 0))
        ids, margin = generate(model, prompt) if distance <= BF16_DISTANCE else ([], 0)
    print(f"  seed {seed}: margin {margin:.2g}, bf16 {distance:.2g}, {len(set(ids))} ids, "
          f"largest logit {float(logits.abs().max()):.3g}")
    if margin < MARGIN or distance > BF16_DISTANCE or len(set(ids)) < DIFFERENT:
        return None
    golden = {"prompt_ids": prompt[0].tolist(), "positions": POSITIONS, "ids": ids, "least_margin": margin,
              "bf16_distance": distance}
    return model, stored, logits, golden


def save_weights(tensors, folder, n_shards):
    if n_shards == 1:
        save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
        return
    weight_map = {}
    for i in range(n_shards):
        file = f"model-{i + 1:05}-of-{n_shards:05}.safetensors"
        part = sorted(tensors)[i::n_shards]
        save_file({n: tensors[n] for n in part}, folder / file, metadata={"format": "pt"})
        weight_map.update({n: file for n in part})
    total = sum(t.numel() * t.element_size() for t in tensors.values())
    (folder / "model.safetensors.index.json").write_text(
        json.dumps({"metadata": {"total_size": total}, "weight_map": weight_map}, indent=1) + "\n")


def present_config(model, storage, config, folder):
    model.config.architectures = [type(model).__name__]
    model.config.dtype = "float32" if storage == "f32" else "bfloat16"
    model.config.save_pretrained(folder)


def published_config(model, storage, config, folder):
    old = dict(architectures=[type(model).__name__], model_type=model.config.model_type, torch_dtype="bfloat16",
               **{"tie_word_embeddings": model.config.tie_word_embeddings, **config})
    rope = dict(old.pop("rope_parameters"))
    old["rope_theta"] = rope.pop("rope_theta")
    kind = rope.pop("rope_type")
    if kind != "default":
        key = "rope_type" if model.config.model_type in ("llama", "gpt_oss") else "type"
        old["rope_scaling"] = {key: kind, **rope}
    if "hidden_activation" in old:
        old["hidden_act"] = old["hidden_activation"]
    if model.config.model_type == "gpt_oss":
        old.update(attention_bias=True, hidden_act="silu", swiglu_limit=7.0,
                   layer_types=model.config.layer_types)
    if model.config.model_type == "deepseek_v3":
        old.update(moe_layer_freq=1, num_nextn_predict_layers=1, scoring_func="sigmoid", topk_method="noaux_tc",
                   hidden_act="silu", attention_bias=False)
    if storage == "fp8":
        old["quantization_config"] = dict(activation_scheme="dynamic", fmt="e4m3", quant_method="fp8",
                                          weight_block_size=[BLOCK, BLOCK])
    if storage == "mxfp4":
        old["quantization_config"] = dict(quant_method="mxfp4", modules_to_not_convert=[
            "model.layers.*.self_attn", "model.layers.*.mlp.router", "model.embed_tokens", "lm_head"])
    (folder / "config.json").write_text(json.dumps(old, indent=1) + "\n")


def write(name, family, config, storage, write_config):
    folder = HERE / name
    folder.mkdir(exist_ok=True)
    print(name)
    config = {**COMMON, **config}
    found = next(filter(None, (try_seed(family, config, storage, seed) for seed in range(1, 2000))))
    model, stored, logits, golden = found
    if storage == "fp8":  # what published checkpoints hold behind the last layer is not the model's
        stored[f"model.layers.{config['num_hidden_layers']}.eh_proj.weight"] = torch.zeros(2, 3).bfloat16()
    save_weights({k: v.contiguous() for k, v in stored.items()}, folder, 2 if name == "llama_tiny_f32" else 1)
    write_config(model, storage, config, folder)
    save_file({"logits": logits}, folder / "golden.safetensors")
    (folder / "golden.json").write_text(json.dumps(golden) + "\n")


def rope(theta, **scaling):
    return {"rope_parameters": {"rope_theta": theta, "rope_type": "default", **scaling}}


MODELS = {
    "llama_tiny_f32": ("llama", {**LLAMA, **rope(5000.0, **LLAMA3)}, "f32", present_config),
    "llama_tiny_bf16": ("llama", {**LLAMA, **rope(5000.0, **LLAMA3)}, "bf16", published_config),
    "qwen2_tiny_f32": ("qwen2", {**QWEN2, **rope(5000.0)}, "f32", present_config),
    "qwen2_tiny_bf16": ("qwen2", {**QWEN2, "tie_word_embeddings": True, **rope(
        5000.0, rope_type="yarn", factor=4.0, original_max_position_embeddings=64)}, "bf16", published_config),
    "gemma2_tiny_f32": ("gemma2", {**GEMMA2, **rope(5000.0)}, "f32", present_config),
    "gemma2_tiny_bf16": ("gemma2", {**GEMMA2, **rope(5000.0)}, "bf16", published_config),
    "gpt_oss_tiny_f32": ("gpt_oss", {**GPT_OSS, **rope(5000.0, **GPT_OSS_YARN)}, "f32", present_config),
    "gpt_oss_tiny_bf16": ("gpt_oss", {**GPT_OSS, **rope(5000.0, **GPT_OSS_YARN)}, "bf16", published_config),
    "gpt_oss_tiny_mxfp4": ("gpt_oss", {**GPT_OSS, "hidden_size": 64, "intermediate_size": 32,
                                       **rope(5000.0, **GPT_OSS_YARN)}, "mxfp4", published_config),
    "deepseek_v3_tiny_f32": ("deepseek_v3", {**DEEPSEEK, **rope(5000.0, **DEEPSEEK_YARN)}, "f32",
                             present_config),
    "deepseek_v3_tiny_bf16": ("deepseek_v3", {**DEEPSEEK, "q_lora_rank": None, **rope(
        5000.0, **{**DEEPSEEK_YARN, "mscale_all_dim": 0.7})}, "bf16", published_config),
    "deepseek_v3_tiny_fp8": ("deepseek_v3", {**DEEPSEEK, "hidden_size": 144, "intermediate_size": 136,
                                             **rope(5000.0, **DEEPSEEK_YARN)}, "fp8", published_config),
}

EVEN = {
    "llama": {"head_dim": 8},
    "qwen2": {"hidden_size": 32, "intermediate_size": 48, "head_dim": 8},
    "gemma2": {"head_dim": 16},
    "gpt_oss": {"intermediate_size": 24, "head_dim": 16},
    "deepseek_v3": {"moe_intermediate_size": 16, "kv_lora_rank": 16, "q_lora_rank": 24, "v_head_dim": 16,
                    "qk_nope_head_dim": 8},
}


def even(family, config, storage, write_config):
    changed = {k: v for k, v in EVEN[family].items() if config.get(k) is not None and config[k] % 8}
    return family, {**config, **changed}, storage, write_config


MODELS |= {name.replace("_tiny_", "_even_"): even(*model) for name, model in MODELS.items()}


if __name__ == "__main__":
    torch.set_num_threads(1)
    for wanted in sys.argv[1:] or MODELS:
        write(wanted, *MODELS[wanted])
