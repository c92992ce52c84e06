"""A byte-level family's tokenizer.json as a GGUF file says the same."""
import json
import pathlib
import sys

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "cli"))

import gguf_model as gguf  # noqa: E402

NORMAL, CONTROL, USER_DEFINED, UNUSED = 1, 3, 4, 5
PRE = {"gpt2": "gpt-2", "llama3": "llama-bpe", "qwen2": "qwen2", "qwen3.5": "qwen35", "gpt-oss": "gpt-4o",
       "gpt-4o": "gpt-4o", "mistral-nemo": "tekken", "deepseek-v3": "deepseek-v3", "smollm": "smollm"}


def first_of(post):
    """The id that the template puts before a text, None without."""
    for p in (post or {}).get("processors", [post]):
        if p and p["type"] == "TemplateProcessing" and "SpecialToken" in p["single"][0]:
            return p["special_tokens"][p["single"][0]["SpecialToken"]["id"]]["ids"][0]
    return None


def write(path, name, spec):
    spec = json.loads(spec)
    tokens = {i: (t, NORMAL) for t, i in spec["model"]["vocab"].items()}
    tokens |= {a["id"]: (a["content"], CONTROL if a["special"] else USER_DEFINED) for a in spec["added_tokens"]}
    rows = [tokens.get(i, (f"[PAD{i}]", UNUSED)) for i in range(max(tokens) + 1)]
    merges = [m if isinstance(m, str) else " ".join(m) for m in spec["model"]["merges"]]
    bos = first_of(spec["post_processor"])
    values = [gguf.value("tokenizer.ggml.model", gguf.TEXT, "gpt2"),
              gguf.value("tokenizer.ggml.pre", gguf.TEXT, PRE[name]),
              gguf.array("tokenizer.ggml.tokens", gguf.TEXT, [t for t, _ in rows]),
              gguf.array("tokenizer.ggml.token_type", gguf.I32, [kind for _, kind in rows]),
              gguf.array("tokenizer.ggml.merges", gguf.TEXT, merges),
              gguf.value("tokenizer.ggml.add_bos_token", gguf.BOOL, bos is not None)]
    if bos is not None:
        values.append(gguf.value("tokenizer.ggml.bos_token_id", gguf.U32, bos))
    path.write_bytes(gguf.head(0, values) + b"".join(values))
