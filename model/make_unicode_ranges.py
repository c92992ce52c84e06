#!/usr/bin/env python3
"""Make unicode_ranges.c: what the tokenizers need to know of every character.

    python3 -m venv venv && venv/bin/pip install unicodedata2==16.0.0 tokenizers==0.23.3
    venv/bin/python model/make_unicode_ranges.py > model/unicode_ranges.c

Categories are Unicode 16.0, as in the regular expressions of `tokenizers` 0.23.3 (checked here for
every character). Its normalisers are older: they know nothing of characters that later versions
gave a decomposition or a combining class. Which those are is asked of the library itself.
"""
import sys
import unicodedata2 as ucd
from tokenizers import Regex, normalizers, pre_tokenizers

UPPER, LOWER, OTHER, NUMBER, MARK, PUNCT, SYMBOL, SPACE, WORD, COMPOSES, COMBINES, NEW = (
    1 << i for i in range(12))
BY_CATEGORY = {"Lu": UPPER, "Lt": UPPER, "Ll": LOWER, "Lm": OTHER, "Lo": OTHER}
BY_GROUP = {"N": NUMBER, "M": MARK, "P": PUNCT, "S": SYMBOL}
LETTER = UPPER | LOWER | OTHER
CIRCLED = [(0x24B6, 0x24E9), (0x1F130, 0x1F149), (0x1F150, 0x1F169), (0x1F170, 0x1F189)]
SPACES = [*range(9, 14), 0x20, 0x85, 0xA0, 0x1680, *range(0x2000, 0x200B), 0x2028, 0x2029, 0x202F,
          0x205F, 0x3000]
POINTS = [c for c in range(0x110000) if not 0xD800 <= c < 0xE000]

assert ucd.unidata_version == "16.0.0", ucd.unidata_version


def is_word(c, category):
    """\\w of Unicode: alphabetic, marks, decimal digits, connectors, join controls."""
    return (category[0] in "LM" or category in ("Nd", "Nl", "Pc") or c in (0x200C, 0x200D) or
            any(first <= c <= last for first, last in CIRCLED))


def is_unknown(c):
    """Whether the library's normalisers take c for a character without any properties."""
    text = chr(c)
    if any(getattr(normalizers, form)().normalize_str(text) != ucd.normalize(form, text)
           for form in ("NFD", "NFKD")):
        return True
    order = ucd.combining(text)
    if order == 0:
        return False
    probe = "a\u0334" if order > 1 else "a\u0327"  # of class 1, 202
    probe = probe[0] + text + probe[1] if order > 1 else probe + text
    return normalizers.NFD().normalize_str(probe) != ucd.normalize("NFD", probe)


def second_in_compositions():
    """Characters that can join the one before them under NFC: in the library, in later versions."""
    known = set(range(0x1161, 0x1176)) | set(range(0x11A8, 0x11C3))  # Hangul vowels, finals
    unknown = set()
    for c in POINTS:
        parts = ucd.decomposition(chr(c)).split()
        if len(parts) == 2 and parts[0][0] != "<" and ucd.normalize("NFC", chr(c)) == chr(c):
            (unknown if is_unknown(c) else known).add(int(parts[1], 16))
    return known, unknown - known


def all_flags():
    seconds, new_seconds = second_in_compositions()
    flags = [0] * 0x110000
    for c in POINTS:
        text, category = chr(c), ucd.category(chr(c))
        f = BY_CATEGORY.get(category, 0) | BY_GROUP.get(category[0], 0)
        f |= SPACE if c in SPACES else 0
        f |= WORD if is_word(c, category) else 0
        changes = ucd.combining(text) or ucd.decomposition(text) or c in seconds
        if c in new_seconds or (changes and is_unknown(c)):
            f |= NEW
        else:
            f |= COMPOSES if c in seconds or ucd.normalize("NFC", text) != text else 0
            f |= COMBINES if ucd.combining(text) else 0
        flags[c] = f
    return flags


def check(flags):
    """Every class against the library's own regular expressions."""
    classes = [("\\p{L}", LETTER), ("[\\p{Lu}\\p{Lt}]", UPPER), ("\\p{Ll}", LOWER),
               ("\\p{N}", NUMBER), ("\\p{M}", MARK), ("\\p{P}", PUNCT), ("\\p{S}", SYMBOL),
               ("\\s", SPACE)]
    for regex, mask in classes:
        split = pre_tokenizers.Split(Regex(regex), "removed")
        left = {c for piece, _ in split.pre_tokenize_str("".join(map(chr, POINTS))) for c in piece}
        wrong = [c for c in POINTS if (chr(c) in left) == bool(flags[c] & mask)]
        assert not wrong, (regex, wrong[:5])


def main():
    flags = all_flags()
    check(flags)
    rows = []
    for c, f in enumerate(flags):
        if c == 0 or f != flags[c - 1]:
            rows.append(f"{{0x{c:X}, 0x{f:X}}}")
    print("""/* Made by model/make_unicode_ranges.py from Unicode 16.0.0: do not edit. */
#include "model/unicode_ranges.h"

/* clang-format off */
const struct unicode_range unicode_ranges[] = {""")
    line = "   "
    for row in rows:
        if len(line) + len(row) + 2 > 100:
            print(line)
            line = "   "
        line += f" {row},"
    print(line)
    print(f"""}};
/* clang-format on */
const size_t unicode_ranges_n = {len(rows)};""")
    print(f"{len(rows)} ranges", file=sys.stderr)


main()
