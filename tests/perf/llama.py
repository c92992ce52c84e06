#!/usr/bin/env python3
"""tidemark's CPU engine beside llama.cpp's on the same files: a GGUF of preset:llama-1b in BF16 and in
Q8_0, prompt of 512 and 64 tokens decoded alone, in turn, as many threads. Exit 1 when a limit is missed.

usage: llama.py [TIDEMARK [FOLDER [THREADS]]]     default: build/tidemark build/llama 2

The first time some ten minutes more, to build PyPI's llama-cpp-python from its source distribution
for this very CPU, and 6 GB for the files. What is timed is what llama-bench times: a prompt in one
batch, or one token after the other from an empty context, each after a run that does not count.
llama.cpp runs with flash attention and without; the better of the two counts.
"""

import ctypes
import json
import os
import pathlib
import statistics
import subprocess
import sys
import time

ROOT = pathlib.Path(__file__).parents[2]
PACKAGES = ["llama-cpp-python==0.3.36", "gguf==0.19.0", "numpy"]
# GGML's AMX and AVX512_BF16 come with the native flags of a CPU that has them. GCC 12 takes the stores of
# a tile configuration for dead (its ldtilecfg names 8 of 64 bytes), and GGML's AMX then dies of SIGILL.
BUILD = {"CMAKE_ARGS": "-DCMAKE_BUILD_TYPE=Release -DGGML_NATIVE=ON -DLLAVA_BUILD=OFF",
         "CXXFLAGS": "-fno-tree-dse -fno-dse", "FORCE_CMAKE": "1"}
PROMPT, GEN = 512, 64
ROUNDS = 3   # A B A B ...
REPEATS = 3  # of each test in a round
Q8_0_BLOCK = 32


def install(folder):
    """A Python with llama.cpp in it."""
    python = folder / "venv" / "bin" / "python"
    done = folder / "installed"
    if done.exists() and done.read_text().split() == PACKAGES:
        return python
    print("building llama.cpp", file=sys.stderr, flush=True)
    folder.mkdir(parents=True, exist_ok=True)
    subprocess.run([sys.executable, "-m", "venv", folder / "venv"], check=True)
    with open(folder / "build.log", "wb") as log:
        subprocess.run([python, "-m", "pip", "install", "-v", "--no-binary", "llama-cpp-python",
                        *PACKAGES], check=True, stdout=log, stderr=log,
                       env=dict(os.environ, **BUILD))
    done.write_text("\n".join(PACKAGES) + "\n")
    return python


# --- in llama.cpp's Python: files -----------------------------------------------------------------

LAYER_TENSORS = {
    "self_attn.q_proj": "attn_q", "self_attn.k_proj": "attn_k", "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output", "mlp.gate_proj": "ffn_gate", "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down", "input_layernorm": "attn_norm",
    "post_attention_layernorm": "ffn_norm"}
TENSORS = {"model.embed_tokens.weight": "token_embd.weight", "model.norm.weight":
           "output_norm.weight", "lm_head.weight": "output.weight"}


def gguf_name(name):
    if name in TENSORS:
        return TENSORS[name]
    layer, what = name.removeprefix("model.layers.").split(".", 1)
    return f"blk.{layer}.{LAYER_TENSORS[what.removesuffix('.weight')]}.weight"


def pairs_of_halves(rows, n_heads):
    """(j, j + half) of each head become (2j, 2j + 1), as llama.cpp rotates a llama's q and k."""
    heads = rows.reshape(n_heads, 2, -1, rows.shape[1])
    return heads.swapaxes(1, 2).reshape(rows.shape)


def bfloat16_tensors(folder):
    """(name, (rows, columns) or (columns) of 16-bit words) of one safetensors file"""
    import numpy as np  # noqa: PLC0415: of llama.cpp's Python

    data = np.memmap(folder / "model.safetensors", dtype=np.uint8, mode="r")
    n = int.from_bytes(data[:8].tobytes(), "little")
    for name, about in json.loads(data[8:8 + n].tobytes()).items():
        if name != "__metadata__":
            begin, end = about["data_offsets"]
            words = data[8 + n + begin:8 + n + end].view(np.uint16)
            yield name, words.reshape(about["shape"])


def write_gguf(folder, kind, path):
    """The model in `folder` as GGUF: matrices in BF16 or Q8_0, vectors in F32."""
    import gguf  # noqa: PLC0415
    import numpy as np  # noqa: PLC0415

    config = json.loads((folder / "config.json").read_text())
    heads = {"attn_q": config["num_attention_heads"], "attn_k": config["num_key_value_heads"]}
    out = gguf.GGUFWriter(path, "llama")
    out.add_block_count(config["num_hidden_layers"])
    out.add_context_length(4096)
    out.add_embedding_length(config["hidden_size"])
    out.add_feed_forward_length(config["intermediate_size"])
    out.add_head_count(config["num_attention_heads"])
    out.add_head_count_kv(config["num_key_value_heads"])
    out.add_key_length(config["head_dim"])
    out.add_value_length(config["head_dim"])
    out.add_rope_dimension_count(config["head_dim"])
    out.add_rope_freq_base(config["rope_theta"])
    out.add_layer_norm_rms_eps(config["rms_norm_eps"])
    out.add_vocab_size(config["vocab_size"])
    out.add_tokenizer_model("none")  # nothing here is text
    quantized = {"BF16": gguf.GGMLQuantizationType.BF16, "Q8_0": gguf.GGMLQuantizationType.Q8_0}
    for name, words in bfloat16_tensors(folder):
        to = gguf_name(name)
        wide = (words.astype(np.uint32) << 16).view(np.float32)
        n_heads = heads.get(to.split(".")[-2])
        if n_heads:
            wide = pairs_of_halves(wide, n_heads)
        if words.ndim == 1:
            out.add_tensor(to, wide)
        else:
            out.add_tensor(to, gguf.quants.quantize(wide, quantized[kind]),
                           raw_dtype=quantized[kind])
    out.write_header_to_file()
    out.write_kv_data_to_file()
    out.write_tensors_to_file()
    out.close()


# --- in llama.cpp's Python: its speed -------------------------------------------------------------

def context_of(llama, model, threads, flash):
    params = llama.llama_context_default_params()
    params.n_ctx = PROMPT + GEN
    params.n_batch = params.n_ubatch = PROMPT
    params.n_threads = params.n_threads_batch = threads
    params.flash_attn_type = (llama.LLAMA_FLASH_ATTN_TYPE_ENABLED if flash else
                              llama.LLAMA_FLASH_ATTN_TYPE_DISABLED)
    return llama.llama_init_from_model(model, params)


def seconds(llama, context, tokens, at_once):
    """To take `tokens` from an empty context, so many in each call."""
    llama.llama_memory_clear(llama.llama_get_memory(context), True)
    ids = (llama.llama_token * tokens)(*((i * 37 + 11) % 32000 for i in range(tokens)))
    llama.llama_synchronize(context)
    begin = time.perf_counter()
    for i in range(0, tokens, at_once):
        part = ctypes.cast(ctypes.byref(ids, i * ctypes.sizeof(llama.llama_token)),
                           ctypes.POINTER(llama.llama_token))
        if llama.llama_decode(context, llama.llama_batch_get_one(part, at_once)) != 0:
            sys.exit("llama_decode failed")
        llama.llama_synchronize(context)
    return time.perf_counter() - begin


def run_llama(path, threads):
    """{test: {flash: [tokens/s]}} of one loaded model, on standard output"""
    import llama_cpp.llama_cpp as llama  # noqa: PLC0415

    quiet = llama.llama_log_callback(lambda level, text, data: None)
    llama.llama_log_set(quiet, None)
    llama.llama_backend_init()
    params = llama.llama_model_default_params()
    model = llama.llama_model_load_from_file(str(path).encode(), params)
    tests = {"prompt": (PROMPT, PROMPT), "gen": (GEN, 1)}
    rates = {name: {} for name in tests}
    for flash in (False, True):
        context = context_of(llama, model, threads, flash)
        for name, (tokens, at_once) in tests.items():
            seconds(llama, context, min(tokens, 8 * at_once), at_once)
            rates[name][f"flash {'on' if flash else 'off'}"] = [
                tokens / seconds(llama, context, tokens, at_once) for _ in range(REPEATS)]
        llama.llama_free(context)
    print(json.dumps({"rates": rates, "system": llama.llama_print_system_info().decode()}))


# --- both -----------------------------------------------------------------------------------------

def run_tidemark(binary, path, threads):
    command = [binary, "bench", "--model", str(path), "--format", "json", "--repeats", str(REPEATS),
               "--prompt", str(PROMPT), "--gen", str(GEN), "--batch", "1", "--kv", "bf16",
               "--threads", str(threads)]
    return json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout)


def part(python, *args):
    """This script's own part in llama.cpp's Python."""
    return subprocess.run([python, __file__, "--part", *map(str, args)], check=True,
                          stdout=subprocess.PIPE).stdout


def files(binary, python, folder):
    made = folder / "llama-1b"
    for kind in ("BF16", "Q8_0"):
        path = folder / f"llama-1b-{kind}.gguf"
        if not path.exists():
            if not (made / "tidemark.json").exists():
                subprocess.run([binary, "model", "make", "--preset", "llama-1b", "--out", made],
                               check=True)
            part(python, "write", made, kind, path.with_suffix(".part"))
            path.with_suffix(".part").rename(path)
        yield kind, path


class Rates:
    """tokens/s of one test: tidemark's best and mean of each round, llama.cpp's runs by setting"""

    def __init__(self):
        self.best, self.means, self.theirs = [], [], {}

    def add(self, ours, theirs):
        self.best.append(ours["tokens_per_s"]["best"])
        self.means.append(ours["tokens_per_s"]["mean"])
        for flash, runs in theirs.items():
            self.theirs.setdefault(flash, []).extend(runs)

    def say(self, kind, test):
        """The ratio of the bests."""
        flash, runs = max(self.theirs.items(), key=lambda item: max(item[1]))
        print(f"  {kind} {test:<10} tidemark {max(self.best):7.2f} tokens/s (median of rounds "
              f"{statistics.median(self.means):.2f}), llama.cpp {max(runs):7.2f} (median "
              f"{statistics.median(runs):.2f}; {flash})", flush=True)
        return max(self.best) / max(runs)


def compare(binary, python, path, kind, threads):
    prompt, gen = Rates(), Rates()
    for _ in range(ROUNDS):
        ours = run_tidemark(binary, path, threads)
        theirs = json.loads(part(python, "run", path, threads))
        prompt.add(ours["results"][0], theirs["rates"]["prompt"])
        gen.add(ours["results"][1], theirs["rates"]["gen"])
    print(f"{path.name}, {threads} threads; tidemark: kernels {ours['kernels']}, "
          f"{ours['bytes_per_weight']:.2f} bytes per weight, cache bf16; llama.cpp: "
          f"{PACKAGES[0]}, cache f16, {theirs['system'].strip()}")
    return prompt.say(kind, f"prompt {PROMPT}"), gen.say(kind, f"gen {GEN}")


def check(what, value, limit):
    ok = value >= limit
    print(f"{'PASS' if ok else 'FAIL'}  {what:<44} {value:6.2f}, at least {limit}", flush=True)
    return ok


def main():
    binary = sys.argv[1] if len(sys.argv) > 1 else str(ROOT / "build" / "tidemark")
    folder = pathlib.Path(sys.argv[2] if len(sys.argv) > 2 else ROOT / "build" / "llama")
    threads = int(sys.argv[3]) if len(sys.argv) > 3 else 2
    python = install(folder)
    ratios = {kind: compare(binary, python, path, kind, threads)
              for kind, path in files(binary, python, folder)}
    good = [check("BF16 decode batch 1, of llama.cpp's", ratios["BF16"][1], 1.0),
            check("BF16 prompt 512, of llama.cpp's", ratios["BF16"][0], 1.5),
            check("Q8_0 decode batch 1, of llama.cpp's", ratios["Q8_0"][1], 1.0)]
    print(f"      Q8_0 prompt 512, of llama.cpp's {'':<12} {ratios['Q8_0'][0]:6.2f}")
    sys.exit(not all(good))


if sys.argv[1:2] == ["--part"]:
    if sys.argv[2] == "write":
        write_gguf(pathlib.Path(sys.argv[3]), sys.argv[4], pathlib.Path(sys.argv[5]))
    else:
        run_llama(pathlib.Path(sys.argv[3]), int(sys.argv[4]))
else:
    main()
