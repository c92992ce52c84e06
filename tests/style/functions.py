"""Size of functions and files: no function above 60 lines, median at most 15; .h at most 200
lines, .c at most 800."""

import json
import statistics
import subprocess

import source_tree

FUNCTION_LINES = 60
MEDIAN_LINES = 15
FILE_LINES = {".c": 800, ".h": 200}


def functions(paths):
    """(lines, path, line, name) of every function, by universal-ctags."""
    tags = subprocess.run(
        ["ctags", "--output-format=json", "--languages=C", "--langmap=C:.c.h", "--kinds-C=f",
         "--fields=+ne", "-L", "-", "-f", "-"],
        input="\n".join(paths), cwd=source_tree.ROOT, check=True, capture_output=True, text=True)
    for line in tags.stdout.splitlines():
        tag = json.loads(line)
        if "end" in tag:
            yield tag["end"] - tag["line"] + 1, tag["path"], tag["line"], tag["name"]


def main():
    paths = source_tree.tracked("*.c", "*.h")
    sizes = sorted(functions(paths))
    findings = [f"{path}:{line}: {name} has {lines} lines; the limit is {FUNCTION_LINES}"
                for lines, path, line, name in sizes if lines > FUNCTION_LINES]
    for path in paths:
        lines, limit = source_tree.text(path).count("\n"), FILE_LINES[path[-2:]]
        if lines > limit:
            findings.append(f"{path}: {lines} lines; the limit is {limit}")
    product = [s[0] for s in sizes if not s[1].startswith("tests/")]
    if product:
        median = statistics.median(product)
        p90 = product[int(0.9 * (len(product) - 1))]
        print(f"{len(product)} functions outside tests: median {median:g} lines, p90 {p90}, "
              f"longest {product[-1]}")
        if median > MEDIAN_LINES:
            findings.append(f"the median function has {median:g} lines; the limit is {MEDIAN_LINES}")
    source_tree.finish(findings, f"{len(sizes)} functions in {len(paths)} files")


main()
