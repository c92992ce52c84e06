"""The files of the project that the style tests look at, and one way to end such a test."""

import pathlib
import subprocess
import sys

ROOT = pathlib.Path(__file__).resolve().parents[2]


def tracked(*patterns):
    """Relative paths of the files under version control that match, in order."""
    try:
        listed = subprocess.run(
            ["git", "-c", f"safe.directory={ROOT}", "ls-files", "-z", "--", *patterns],
            cwd=ROOT, check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError):
        print("skipped: needs git and a checkout of the project (not a plain copy of its files)")
        sys.exit(77)
    paths = listed.stdout.decode().split("\0")
    return sorted(p for p in paths if p and (ROOT / p).is_file())


def text(path):
    return (ROOT / path).read_text(encoding="utf-8")


def finish(findings, looked_at):
    """Print the findings, one line each, and leave with 0 or 1."""
    for finding in findings:
        print(finding)
    print(f"{looked_at}: {len(findings)} finding{'' if len(findings) == 1 else 's'}")
    sys.exit(1 if findings else 0)
