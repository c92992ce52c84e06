"""Texts in many scripts, from what is on any machine and from a seeded generator.

Real text: translations and manuals that are installed, Python's own sources, the committed sample,
conversations of the shared data. What is missing of the wanted size is generated: words of every
script, random characters, and everything that cutting text into words can get wrong.
"""
import gzip
import json
import os
import pathlib
import random
import re
import struct
import sysconfig
import unicodedata

HERE = pathlib.Path(__file__).resolve().parent
ROOT = HERE.parent.parent
DOC_BYTES = 6000

# first and last character of letters of scripts
SCRIPTS = {
    "latin": (0x61, 0x7A), "latin1": (0xC0, 0x17F), "greek": (0x391, 0x3C9),
    "cyrillic": (0x410, 0x44F), "armenian": (0x561, 0x586), "hebrew": (0x5D0, 0x5EA),
    "arabic": (0x620, 0x64A), "syriac": (0x710, 0x72F), "devanagari": (0x904, 0x94D),
    "bengali": (0x985, 0x9CD), "gurmukhi": (0xA05, 0xA4D), "gujarati": (0xA85, 0xACD),
    "tamil": (0xB85, 0xBCD), "telugu": (0xC05, 0xC4D), "kannada": (0xC85, 0xCCD),
    "malayalam": (0xD05, 0xD4D), "sinhala": (0xD85, 0xDDF), "thai": (0xE01, 0xE4E),
    "lao": (0xE81, 0xECD), "tibetan": (0xF40, 0xFBC), "burmese": (0x1000, 0x103F),
    "georgian": (0x10D0, 0x10FA), "ethiopic": (0x1200, 0x135A), "cherokee": (0x13A0, 0x13F4),
    "khmer": (0x1780, 0x17D3), "mongolian": (0x1820, 0x1878), "kana": (0x3041, 0x30FF),
    "bopomofo": (0x3105, 0x312F), "han": (0x4E00, 0x9FFF), "han_a": (0x3400, 0x4DBF),
    "hangul": (0xAC00, 0xD7A3), "jamo": (0x1100, 0x11FF), "gothic": (0x10330, 0x1034A),
    "deseret": (0x10400, 0x1044F), "han_b": (0x20000, 0x2A6DF), "math": (0x1D400, 0x1D7FF),
}
EMOJI = ["\U0001F600", "\U0001F468\u200D\U0001F469\u200D\U0001F467", "\U0001F44D\U0001F3FD",
         "\U0001F1E9\U0001F1EA", "\u2764\uFE0F", "1\uFE0F\u20E3", "\u263A", "\U0001FAE0"]
SPACES = [" ", "  ", "   ", "\t", "\n", "\r\n", "\n\n", " \n", "\n ", " \n \n ", "\r", "\u00A0", "\u3000",
          "\u2003", "\u200B", "\u2028", "\u0085", "\x0b", "\x1c", "\u202F ", " " * 17, "\n" * 5, "\t\t\t "]
PIECES = ["don't", "I'LL", "we've", "'tis", "it\u2019s", "'\u017F", "O'Re", "'s", "''", "'D'm", "x'ReY",
          "3.14159", "1,234,567", "0x7f", "1234567890", "\u0663\u0664\u0665", "\u00BD", "\u2167", "\u00B2", "\uFF11\uFF12",
          "e\u0301", "\u1E0D\u0307", "q\u0323\u0307", "\u0065\u0323\u0302", "\u0301", "\u0301\u0301A", "\u1100\u1161\u11A8",
          "\uAC00\u11A8", "\uAC00\u11A7", "\u0915\u093C", "\u0958", "\u212B", "\u2126", "\uFB01", "\u01C5", "\u0345", "\u0F71\u0F72",
          "\u09C7\u09BE", "\u0B92\u0BD7", "\u30AB\u3099", "a\u0327\u0301", "a\u0301\u0327", "\u0300\u0316",
          "!!!", "...", "?!", "->", "://", "/*", "*/", "==", "\\n", "{}", "[]", "()", "#!", "--", "\u2014", "\u2026",
          "\u3001", "\u3002", "\u300C", "\uFF01", "\u0964", "\u060C", "/", "//\n", "!\n\n", ".\r\n/", " /\n", "$", "\u20AC", "+",
          "<b>", "</p>", "&amp;", "camelCase", "HTTPServer", "XMLhttpRequest", "snake_case", "\u01C4a",
          "\u00AA\u00BA", "\u02B0", "A\u02B0b", "\u65E5\u672CA", "A\u65E5", "\u9FA5\u9FA6\u9FFF", "\u00DFS", "\x00", "\x07", "\x7f", "\u00AD",
          "\uFEFF", "\uFFFD", "\uFFFE", "\uE000", "\U0010FFFF", "\u0378", "\u2581", "\u2581\u2581 ", "\u0120", "\u010A", "<0x41>",
          "A\u0301B", "\u0301B\u0301b", " \u0301", "\n\u0301", "1\u0301a", ".a", "(a", " (A", "\u00A0a", "\ta", "\u00B7a"]


def clip(texts, n_bytes, start=0):
    """Texts until n_bytes are reached, long ones in parts."""
    total = start
    for text in texts:
        for at in range(0, len(text), DOC_BYTES):
            part = text[at:at + DOC_BYTES]
            total += len(part.encode())
            yield part
            if total >= n_bytes:
                return


def sample():
    return [(HERE / "sample.txt").read_text(encoding="utf-8")]


def python_sources():
    for path in sorted(pathlib.Path(sysconfig.get_paths()["stdlib"]).glob("*.py")):
        yield path.read_text(encoding="utf-8", errors="replace")


def catalogue(path):
    """The translations of a .mo file."""
    data = path.read_bytes()
    if len(data) < 28 or data[:4] != b"\xde\x12\x04\x95":
        return ""
    n, _, table = struct.unpack_from("<3I", data, 8)
    places = [struct.unpack_from("<2I", data, table + 8 * i) for i in range(1, n)]
    return "\n".join(data[at:at + size].decode("utf-8", "replace") for size, at in places)


def translations():
    """Some of every language in turn."""
    folders = sorted(pathlib.Path("/usr/share/locale").glob("*/LC_MESSAGES"))
    for i in range(3):
        for folder in folders:
            for path in sorted(folder.glob("*.mo"))[i:i + 1]:
                yield catalogue(path)[:40000].replace("\0", "\n")


def manuals():
    for path in sorted(pathlib.Path("/usr/share/man").glob("*/man1/*.gz")):
        if re.fullmatch(r"[a-z]{2}(_[A-Z]{2})?", path.parts[-3]):
            with gzip.open(path) as f:
                yield f.read().decode("utf-8", "replace")[:20000]


def conversations():
    shared = pathlib.Path(os.environ.get("TIDEMARK_SHARED", ROOT.parent / "shared"))
    for path in sorted(shared.glob("data/sharegpt/*.json")):
        for talk in json.loads(path.read_text(encoding="utf-8")):
            turns = talk.get("conversations", []) if isinstance(talk, dict) else []
            yield "\n".join(t.get("value") or "" for t in turns)


def words(rng, script, n):
    first, last = SCRIPTS[script]
    letters = [chr(c) for c in range(first, last + 1) if unicodedata.category(chr(c)) != "Cn"]
    frequent = rng.sample(letters, min(len(letters), 40))
    for _ in range(n):
        pool = frequent if rng.random() < 0.8 else letters
        yield "".join(rng.choice(pool) for _ in range(min(30, int(rng.expovariate(0.2)) + 1)))


def generated(rng, markers):
    """Endless: paragraphs of one script, and of everything at once."""
    while True:
        script = rng.choice(list(SCRIPTS))
        text = " ".join(words(rng, script, 120))
        if rng.random() < 0.3:
            text = text.title() if rng.random() < 0.5 else unicodedata.normalize("NFD", text)
        yield text
        parts = []
        for _ in range(200):
            kind = rng.random()
            if kind < 0.3:
                parts.append(rng.choice(SPACES))
            elif kind < 0.65:
                parts.append(rng.choice(PIECES))
            elif kind < 0.7:
                parts.append(rng.choice(EMOJI))
            elif kind < 0.73:
                parts.append(rng.choice(markers))
            elif kind < 0.8:
                c = rng.choice([rng.randrange(0x3000), rng.randrange(0xD800), rng.randrange(0xE000, 0x110000)])
                parts.append(chr(c))
            else:
                parts.extend(words(rng, rng.choice(list(SCRIPTS)), 1))
        yield "".join(parts)


def corpus(n_bytes, markers, seed=1):
    """[text]: about n_bytes of UTF-8; markers: texts of added tokens to strew in."""
    rng = random.Random(seed)
    texts = [t for source, share in ((sample(), 1.0), (translations(), 0.35), (conversations(), 0.15),
                                     (manuals(), 0.1), (python_sources(), 0.1))
             for t in clip(source, n_bytes * share) if t]
    real = sum(len(t.encode()) for t in texts)
    texts += clip(generated(rng, markers), n_bytes, start=real)
    texts.append("".join(texts[: len(texts) // 50]))  # one that is long
    rng.shuffle(texts)
    return ["", " ", "\n", "a"] + texts


def english(n_bytes):
    """Plain conversation, for speed: of the shared data, else Python's documentation strings."""
    texts = list(clip(conversations(), n_bytes)) or list(clip(python_sources(), n_bytes))
    while texts and sum(len(t.encode()) for t in texts) < n_bytes:
        texts += texts
    return texts
