"""Shell scripts pass shellcheck; Python files compile."""

import re
import subprocess

import source_tree

SHELL = re.compile(rb"^#!.*\b(ba|da)?sh\b")


def is_shell(path):
    if path.endswith((".sh", ".bash")):
        return True
    with open(source_tree.ROOT / path, "rb") as f:
        return bool(SHELL.match(f.readline(100)))


def main():
    everything = source_tree.tracked()
    shell = [path for path in everything if is_shell(path)]
    python = [path for path in everything if path.endswith(".py")]
    found = subprocess.run(["shellcheck", "--format=gcc", "--", *shell], cwd=source_tree.ROOT,
                           capture_output=True, text=True)
    findings = (found.stdout + found.stderr).splitlines()
    for path in python:
        try:
            compile(source_tree.text(path), path, "exec")
        except SyntaxError as e:
            findings.append(f"{path}:{e.lineno}: {e.msg}")
    source_tree.finish(findings, f"{len(shell)} shell scripts and {len(python)} Python files")


main()
