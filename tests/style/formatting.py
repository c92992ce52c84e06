"""Every tracked .c and .h is as clang-format 14 writes it, under the project's .clang-format."""

import collections
import pathlib
import shutil
import subprocess
import sys

import source_tree


def main():
    tool = shutil.which("clang-format-14") or shutil.which("clang-format")
    if not tool:
        print("skipped: needs clang-format 14")
        sys.exit(77)
    version = subprocess.run([tool, "--version"], capture_output=True, text=True).stdout
    if "version 14." not in version:
        print(f"skipped: versions of clang-format differ in taste; needs 14, this is {version.strip()}")
        sys.exit(77)
    paths = source_tree.tracked("*.c", "*.h")
    found = subprocess.run([tool, "--dry-run", *paths], cwd=source_tree.ROOT, capture_output=True,
                           text=True).stderr
    places = [line.split(":") for line in found.splitlines() if "clang-formatted" in line]
    per_file = collections.Counter(place[0] for place in places)
    first = {place[0]: place[1] for place in reversed(places)}
    findings = [f"{path}:{first[path]}: clang-format would change {n} place(s)" for path, n in per_file.items()]
    source_tree.finish(findings, f"format of {len(paths)} files ({pathlib.Path(tool).name} -i FILE repairs)")


main()
