"""No unfinished business and no path of somebody's machine in what is tracked; links of the docs
lead to files that exist."""

import pathlib
import re

import source_tree

# split, so that this file does not find itself
FORBIDDEN = re.compile(r"\b(?:TO" r"DO|FIX" r"ME|XX" r"X|HA" r"CK)\b|/wo" r"rk/")
FOREIGN = ("LICENSE", "tests/fuzz/corpus/", "tests/golden/")  # texts as others wrote them
LINK = re.compile(r"!?\[[^\]]*\]\(([^)\s]+)(?:\s+\"[^\"]*\")?\)")
CODE = re.compile(r"^(```|~~~).*?^\1|`[^`\n]*`", re.DOTALL | re.MULTILINE)
NAMED = re.compile(r"`((?:[\w.-]+/)+[\w.-]+\.(?:c|h|py|sh|md|yaml|csv|sbatch|cmake|json))`")
ELSEWHERE = ("http://", "https://", "mailto:", "#")


def forbidden_words(path, content):
    for number, line in enumerate(content.splitlines(), 1):
        found = FORBIDDEN.search(line)
        if found:
            yield f"{path}:{number}: {found.group()!r} has no place in a tracked file"


def dead_links(path, content):
    """Markdown links, from the page's folder; and files named in `code`, from the root or the page."""
    folder = pathlib.PurePosixPath(path).parent
    prose = CODE.sub(lambda m: " " * len(m.group()), content)
    for target in LINK.findall(prose):
        if target.startswith(ELSEWHERE):
            continue
        if not (source_tree.ROOT / folder / target.split("#")[0]).exists():
            yield f"{path}: link to {target}: no such file"
    for name in NAMED.findall(content):
        if name.startswith(("results/runs/", "build/")):
            continue
        if not any((source_tree.ROOT / start / name).exists() for start in (".", folder)):
            yield f"{path}: names `{name}`: no such file"


def main():
    findings, count = [], 0
    for path in source_tree.tracked():
        if path.startswith(FOREIGN):
            continue
        try:
            content = source_tree.text(path)
        except UnicodeDecodeError:
            continue  # not a text
        count += 1
        findings += forbidden_words(path, content)
        if path.endswith(".md"):
            findings += dead_links(path, content)
    source_tree.finish(findings, f"words and links of {count} files")


main()
