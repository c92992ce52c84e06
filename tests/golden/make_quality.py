#!/usr/bin/env python3
"""Write quality.json: what `tidemark bench --quality` must say, from Hugging Face transformers and torch.

    python3 -m venv venv && venv/bin/pip install torch transformers
    venv/bin/python tests/golden/make_quality.py ../shared/models/stories260K

Every form of weights and cache is made here out of its description (workers/cpu/matrix.h, narrow.c, cache.h,
packed.h): tensors are rounded and what meets integers is rounded, too; keys and values are rounded where
transformers' eager attention takes them. Arithmetic is float32, as that of --kernels portable, which keeps
activations of bf16 weights whole. Chunks, positions and sums are those of llama.cpp's perplexity, in float64.

stories260K reads quality.txt (written for this) with its own tokenizer; llama_tiny_f32 the ids of its golden.json.
"""
import json
import pathlib
import sys

import torch
import transformers
from transformers.models.llama import modeling_llama

HERE = pathlib.Path(__file__).parent
WEIGHTS, CACHES = ["as-is", "bf16", "int8", "int4"], ["f32", "bf16", "fp8", "int8"]
GROUP = 32


def to_bf16(x):
    return x.to(torch.bfloat16).to(torch.float32)


# --- weights and what they are multiplied with ---------------------------------------------------


def grouped(x):
    """(..., n) -> (..., groups, 32), zeros behind the end."""
    pad = -x.shape[-1] % GROUP
    return torch.nn.functional.pad(x, (0, pad)).unflatten(-1, (-1, GROUP))


def ungrouped(g, n):
    return g.flatten(-2)[..., :n]


def to_int8(w):
    g = grouped(w)
    factor = (g.abs().amax(-1, keepdim=True) / 127).to(torch.float16).to(torch.float32)
    inverse = torch.where(factor != 0, 1 / factor, torch.zeros_like(factor))
    return ungrouped(torch.round(g * inverse).clamp(-127, 127) * factor, w.shape[-1])


def to_int4(w):
    g = grouped(w)
    largest = g.gather(-1, g.abs().argmax(-1, keepdim=True))
    factor = (-largest / 8).to(torch.float16).to(torch.float32)
    inverse = torch.where(factor != 0, 1 / factor, torch.zeros_like(factor))
    return ungrouped(torch.round(g * inverse).clamp(-8, 7) * factor, w.shape[-1])


def narrowed(x):
    """Activations that meet integers: 8 bits with a float32 factor per 32."""
    g = grouped(x)
    largest = g.abs().amax(-1, keepdim=True)
    inverse = torch.where(largest > 1e-30, 127 / largest, torch.zeros_like(largest))
    return ungrouped(torch.round(g * inverse) * (largest / 127), x.shape[-1])


def round_weights(model, weights):
    """In place; a tied embedding is what the head is."""
    in_layers = {"as-is": lambda w: w, "bf16": to_bf16, "int8": to_int8, "int4": to_int4}[weights]
    at_ends = {"int4": to_int8}.get(weights, in_layers)
    tied = model.config.tie_word_embeddings
    with torch.no_grad():
        for name, module in model.named_modules():
            if isinstance(module, torch.nn.Linear):
                is_head = name == "lm_head"
                if not (is_head and tied):
                    module.weight.copy_((at_ends if is_head else in_layers)(module.weight))
                if weights.startswith("int"):
                    module.register_forward_pre_hook(lambda m, args: (narrowed(args[0]),))
            elif isinstance(module, torch.nn.Embedding):
                rounding = at_ends if tied or weights == "bf16" else (lambda w: w)
                module.weight.copy_(rounding(module.weight))


# --- the cache -----------------------------------------------------------------------------------


def by_position(x, top, code):
    """Each position and head has a factor that makes its largest number `top`."""
    factor = x.abs().amax(-1, keepdim=True) / top
    inverse = torch.where(factor > 0, 1 / factor, torch.zeros_like(factor))
    return code(x * inverse) * factor


ROUND_CACHE = {
    "f32": lambda x: x,
    "bf16": to_bf16,
    "fp8": lambda x: by_position(x, 448, lambda v: v.to(torch.float8_e4m3fn).to(torch.float32)),
    "int8": lambda x: by_position(x, 127, lambda v: torch.round(v).clamp(-127, 127)),
}
eager = modeling_llama.eager_attention_forward


def use_cache(cache):
    rounding = ROUND_CACHE[cache]
    modeling_llama.eager_attention_forward = lambda module, q, k, v, *args, **kwargs: eager(
        module, q, rounding(k), rounding(v), *args, **kwargs)


# --- the text ------------------------------------------------------------------------------------


def judged(folder, weights, cache, chunks):
    """ln of the distributions at the judged positions, float64 (n, vocab)."""
    model = transformers.AutoModelForCausalLM.from_pretrained(folder, attn_implementation="eager",
                                                              dtype=torch.float32).eval()
    round_weights(model, weights)
    use_cache(cache)
    first = chunks.shape[1] // 2
    with torch.no_grad():
        return torch.cat([model(c.unsqueeze(0)).logits[0, first:-1].double().log_softmax(-1) for c in chunks])


def cut(ids, context, bos):
    chunks = torch.tensor(ids[:len(ids) // context * context]).reshape(-1, context)
    if bos is not None:
        chunks[:, 0] = bos
    return chunks


def estimate(x):
    return float(x.mean()), float(x.std() / len(x) ** 0.5)


def compare(base, q, follows):
    kl = (base.exp() * (base - q)).sum(-1)
    surprise = -q.gather(-1, follows).squeeze(-1)
    more = surprise + base.gather(-1, follows).squeeze(-1)
    mean, se = estimate(surprise)
    ratio, ratio_se = estimate(more)
    kl_mean, kl_se = estimate(kl)
    perplexity, ratio = float(torch.tensor(mean).double().exp()), float(torch.tensor(ratio).double().exp())
    same = (base.argmax(-1) == q.argmax(-1)).double().mean()
    return {"perplexity": {"value": perplexity, "se": perplexity * se},
            "perplexity_ratio": {"value": ratio, "se": ratio * ratio_se},
            "kl": {"mean": kl_mean, "se": kl_se, "p99": float(kl.quantile(0.99)), "max": float(kl.max())},
            "same_top": {"value": float(same), "se": float((same * (1 - same) / (len(kl) - 1)).sqrt())}}


def answer(folder, ids, context, bos):
    chunks = cut(ids, context, bos)
    follows = torch.cat([c[context // 2 + 1:] for c in chunks]).unsqueeze(-1)
    base = judged(folder, "bf16", "bf16", chunks)
    forms = [{"weights": w, "kv": c, **compare(base, judged(folder, w, c, chunks), follows)}
             for w in WEIGHTS for c in CACHES]
    return {"tokens": len(ids), "context": context, "chunks": len(chunks), "judged": len(follows), "forms": forms}


def main():
    stories = pathlib.Path(sys.argv[1])
    tokenizer = transformers.AutoTokenizer.from_pretrained(stories)
    text = (HERE / "quality.txt").read_text(encoding="utf-8")
    tiny = json.loads((HERE / "llama_tiny_f32" / "golden.json").read_text(encoding="utf-8"))
    out = {"transformers": transformers.__version__, "torch": torch.__version__,
           "stories260K": answer(stories, tokenizer(text).input_ids, 128, 1),
           "llama_tiny_f32": answer(HERE / "llama_tiny_f32", tiny["prompt_ids"] + tiny["ids"], 32, None)}
    (HERE / "quality.json").write_text(json.dumps(out, indent=1) + "\n")
    for name in ("stories260K", "llama_tiny_f32"):
        for f in out[name]["forms"]:
            print(name, f["weights"], f["kv"], f["perplexity"], f["kl"], f["same_top"]["value"])


main()
