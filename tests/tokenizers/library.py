"""Hugging Face `tokenizers`, against which ours is held: imported from build/venv, which ./run-tests makes,
where the Python at hand does not have it. A test that cannot get it skips."""
import os
import pathlib
import sys

os.environ["TOKENIZERS_PARALLELISM"] = "false"  # speeds are those of one thread
VENV = pathlib.Path(__file__).resolve().parents[2] / "build" / "venv"


def imported():
    try:
        import tokenizers
    except ImportError:
        python = VENV / "bin" / "python"
        if pathlib.Path(sys.prefix) != VENV and python.exists():
            os.execv(python, [python, *sys.argv])
        print("skipped: needs the Python package tokenizers (tests/requirements.txt; could not be installed)")
        sys.exit(77)
    return tokenizers


tokenizers = imported()
