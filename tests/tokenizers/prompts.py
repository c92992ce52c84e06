"""Prompts as a server would tokenise them: for every family of tokenizers, the text of what
`tidemark dataset show` draws gives exactly its ids, by Hugging Face `tokenizers`, also behind a
preamble with its mark at any place; and so does each message of a conversation.

usage: prompts.py TIDEMARK [--family NAME]...
"""
import argparse
import json
import pathlib
import subprocess
import sys
import tempfile

from library import tokenizers

import corpus
import families

CONFIG = {"architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_size": 64,
          "intermediate_size": 128, "num_hidden_layers": 1, "num_attention_heads": 4,
          "num_key_value_heads": 4, "max_position_embeddings": 4096, "rms_norm_eps": 1e-5}
N_EVENTS = 50
PREAMBLE = "You are a helpful assistant. Answer in short."


def train_words(texts):
    """A vocabulary of whole words with their space, as SentencePiece's are."""
    tok = tokenizers.Tokenizer(tokenizers.models.BPE())
    tok.pre_tokenizer = tokenizers.pre_tokenizers.Metaspace()
    tok.train_from_iterator(texts, tokenizers.trainers.BpeTrainer(vocab_size=3000, show_progress=False))
    return json.loads(tok.to_str())["model"]


def show(tidemark, folder, *args):
    """The requests that `dataset show` prints."""
    run = subprocess.run([tidemark, "dataset", "show", *args, "--model", folder, "--events", str(N_EVENTS)],
                         check=True, capture_output=True, text=True)
    return [json.loads(line) for line in run.stdout.splitlines()]


def drawn(tidemark, folder, tok, *settings):
    """How many drawn prompts come out otherwise, and how long their vocabulary is."""
    asked = show(tidemark, folder, "sharegpt", "load.prefix.tokens=20", *settings)
    wrong = sum(tok.encode("".join(m["content"] for m in r["messages"]), add_special_tokens=False).ids
                != r["ids"] for r in asked)
    return wrong, len({i for r in asked for i in r["ids"]})


def behind_preambles(tidemark, folder, tok):
    """How many drawn prompts come out otherwise behind a preamble, over all places of its mark."""
    return sum(drawn(tidemark, folder, tok, f"load.preamble.text={PREAMBLE}", f"load.preamble.mutate={mutate}")[0]
               for mutate in ("none", "head", "middle", "tail"))


def spoken(tidemark, folder, tok, texts, path):
    """How many turns of conversations come out otherwise."""
    talks = [texts[i:i + 4] for i in range(0, 4 * N_EVENTS, 4)]
    path.write_text(json.dumps([{"conversations": [
        {"from": "gpt" if k % 2 else "human", "value": t} for k, t in enumerate(talk)]} for talk in talks]))
    wrong = 0
    for r in show(tidemark, folder, path, "load.dataset.turns=multi"):
        want = talks[r["entry"]][:2 * r["turn"] + 1]
        ids = tok.encode(want[0], add_special_tokens=True).ids
        special = [i for i in ids[:2] if i in {t for t, a in tok.get_added_tokens_decoder().items()
                                               if a.special}][:1]
        ids = special + [i for t in want for i in tok.encode(t, add_special_tokens=False).ids]
        wrong += [m["content"] for m in r["messages"]] != want or ids != r["ids"]
    return wrong


def main():
    p = argparse.ArgumentParser()
    p.add_argument("tidemark")
    p.add_argument("--family", action="append", choices=families.NAMES)
    a = p.parse_args()
    training = corpus.english(1 << 20)
    texts = [t[:400] for t in training if t.strip()][:4 * N_EVENTS]
    bad, shared = 0, {"spelt": train_words(training)}
    with tempfile.TemporaryDirectory() as temporary:
        folder = pathlib.Path(temporary)
        for name in a.family or families.NAMES:
            text, n_ids = families.make(name, training, 3000, shared)
            (folder / "tokenizer.json").write_text(text)
            (folder / "config.json").write_text(json.dumps({**CONFIG, "vocab_size": n_ids}))
            tok = tokenizers.Tokenizer.from_str(text)
            wrong, n_words = drawn(a.tidemark, folder, tok)
            marked = behind_preambles(a.tidemark, folder, tok)
            turns = spoken(a.tidemark, folder, tok, texts, folder / "talks.json")
            print(f"{name}: {wrong} of {N_EVENTS} drawn prompts differ ({n_words} words), "
                  f"{marked} of {4 * N_EVENTS} behind a preamble, {turns} turns of {N_EVENTS} conversations", flush=True)
            bad += wrong + marked + turns + (n_words < 100 or n_words > 2500)
    sys.exit(bad > 0)


if __name__ == "__main__":
    main()
