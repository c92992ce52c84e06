"""tidemark's tokenizer against Hugging Face `tokenizers`, for every family that is supported:
ids with and without special tokens, and decoded texts, must be the same for every text. Byte-level
families are also read from a GGUF file that says what their tokenizer.json does.

usage: agree.py DRIVER [--bytes N] [--vocab N] [--family NAME]... [--speed] [--keep FOLDER]

--speed also measures both on the corpus and on plain English, in CPU seconds of one thread, and holds
ours against limits: a line with PASS or FAIL for each. Exit 1 when a text differs or a limit is missed.
"""
import argparse
import array
import os
import pathlib
import struct
import subprocess
import sys
import tempfile
import time

from library import tokenizers

import corpus
import families
import gguf_file

MIB = 1 << 20
LEAST_MIB_S = 20
LEAST_TIMES = 5  # as fast as theirs, whichever of encode_batch and encode is faster


def write_corpus(path, texts):
    with open(path, "wb") as f:
        for text in texts:
            data = text.encode()
            f.write(struct.pack("<I", len(data)) + data)


def results(path, n):
    """(ids, ids with special tokens, decoded) of each text, as bytes."""
    data, at = path.read_bytes(), 0
    for _ in range(n):
        row = []
        for each in (4, 4, 1):
            (count,) = struct.unpack_from("<I", data, at)
            row.append(data[at + 4:at + 4 + each * count])
            at += 4 + each * count
        yield row
    assert at == len(data)


def show(text, ours, theirs):
    """The difference, with what stands around it."""
    if isinstance(ours, bytes):
        at = next((i for i, (a, b) in enumerate(zip(ours, theirs)) if a != b), min(len(ours), len(theirs)))
        return f"{ours[max(0, at - 30):at + 30]} instead of {theirs[max(0, at - 30):at + 30]}"
    at = next((i for i, (a, b) in enumerate(zip(ours, theirs)) if a != b), min(len(ours), len(theirs)))
    return f"at id {at}: {list(ours[at:at + 6])} instead of {list(theirs[at:at + 6])}"


def compare(tok, texts, out):
    """Texts that differ, each with a line about it."""
    wrong = []
    plain = [e.ids for e in tok.encode_batch(texts, add_special_tokens=False)]
    special = [e.ids for e in tok.encode_batch(texts, add_special_tokens=True)]
    for i, (text, row) in enumerate(zip(texts, results(out, len(texts)))):
        want = (plain[i], special[i], tok.decode(special[i]).encode())
        got = (array.array("i", row[0]).tolist(), array.array("i", row[1]).tolist(), row[2])
        for what, a, b in zip(("ids", "ids with special tokens", "text"), got, want):
            if a != b:
                word = tok.decode(b[:20]) if what != "text" else ""
                wrong.append(f"text {i} {text[:20]!r} {what}: {show(text, a, b)} {word!r}")
                break
    return wrong


def agreement(driver, folder, name, spec, n_ids, texts, gguf=None):
    """Their tokenizer, and how many texts differ, which are shown. gguf: ours reads this file."""
    path, out = gguf or folder / f"{name}.json", folder / f"{name}.out"
    if not gguf:
        path.write_text(spec)
    write_corpus(folder / "corpus", texts)
    tok = tokenizers.Tokenizer.from_str(spec)
    run = subprocess.run([driver, path, str(n_ids), folder / "corpus", out], text=True, stderr=subprocess.PIPE)
    wrong = compare(tok, texts, out) if run.returncode == 0 else [run.stderr.strip()]
    print(f"{name}: {n_ids} ids, {len(wrong)} of {len(texts)} texts differ", flush=True)
    for line in wrong[:5]:
        print("  ", line)
    return tok, len(wrong)


def cpu_of(call):
    begin = time.process_time()
    call()
    return time.process_time() - begin


def speed(driver, spec, n_ids, tok, texts, path):
    """MiB/s: ours, theirs by encode_batch, theirs by encode."""
    write_corpus(path, texts)
    size = sum(len(t.encode()) for t in texts) / MIB
    run = subprocess.run([driver, spec, str(n_ids), path, "3", "--speed"], check=True,
                         capture_output=True, text=True)
    ours = size / float(run.stdout.split()[0])
    batch = size / cpu_of(lambda: tok.encode_batch(texts, add_special_tokens=False))
    single = size / cpu_of(lambda: [tok.encode(t, add_special_tokens=False) for t in texts])
    return ours, batch, single


def check(what, value, least):
    """Whether the limit is held, with a line about it."""
    ok = value >= least
    print(f"{'PASS' if ok else 'FAIL'}  {what:<62} {value:8.1f}  at least {least}", flush=True)
    return ok


def check_speed(name, ours, batch, single):
    """How many limits are missed."""
    print(f"      {name}: encode_batch {batch:.2f} MiB/s (x{ours / batch:.1f}), "
          f"encode {single:.2f} (x{ours / single:.1f})")
    return [check(f"{name}: MiB per CPU second", ours, LEAST_MIB_S),
            check(f"{name}: times as fast as theirs", ours / max(batch, single), LEAST_TIMES)].count(False)


def arguments():
    p = argparse.ArgumentParser()
    p.add_argument("driver")
    p.add_argument("--bytes", type=int, default=1000000)
    p.add_argument("--vocab", type=int, default=3000)
    p.add_argument("--family", action="append", choices=families.NAMES)
    p.add_argument("--speed", action="store_true")
    p.add_argument("--keep", type=pathlib.Path)
    return p.parse_args()


def main():
    a = arguments()
    texts = corpus.corpus(a.bytes, families.MARKERS)
    training = texts[::5] if a.bytes <= 4000000 else texts[::12]
    n_bytes = sum(len(t.encode()) for t in texts)
    print(f"{len(texts)} texts, {n_bytes} bytes, {len(set(''.join(texts)))} different characters; "
          f"tokenizers {tokenizers.__version__}; load average {' '.join(f'{x:.2f}' for x in os.getloadavg())}")
    bad, slow = 0, 0
    with tempfile.TemporaryDirectory() as temporary:
        folder = a.keep or pathlib.Path(temporary)
        folder.mkdir(exist_ok=True)
        plain = corpus.english(4 * MIB) if a.speed else []
        for name in a.family or families.NAMES:
            text, n_ids = families.make(name, training, a.vocab)
            tok, n_wrong = agreement(a.driver, folder, name, text, n_ids, texts)
            bad += n_wrong
            if name in gguf_file.PRE:
                gguf_file.write(folder / f"{name}.gguf", name, text)
                bad += agreement(a.driver, folder, f"{name} in GGUF", text, n_ids, texts[::2],
                                 folder / f"{name}.gguf")[1]
            if name in families.BYTE_LEVEL:
                pairs = families.make_pairs(name)
                bad += agreement(a.driver, folder, f"{name} by pairs", *pairs, texts[::4])[1]
            for kind, some in (("corpus", texts), ("English", plain)) if a.speed else ():
                slow += check_speed(f"{name}, {kind}",
                                    *speed(a.driver, folder / f"{name}.json", n_ids, tok, some, folder / "some"))
    print(f"{'FAIL' if bad else 'PASS'}  texts that differ: {bad}; limits of speed that are missed: {slow}")
    sys.exit(bad + slow > 0)


if __name__ == "__main__":
    main()
