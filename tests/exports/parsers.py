"""The parsers that other tools have for their own result files, out of their wheels.

A package whose __init__ loads models or a cloud's client is entered past it; the modules that read
are the tool's own, unchanged. They come from PyPI (requirements.txt) into a folder beside the binary.
"""

import argparse
import importlib.util
import os
import pathlib
import shutil
import subprocess
import sys
import types
import zipfile

import tidemark_cli as cli

HERE = pathlib.Path(__file__).parent
VENV = pathlib.Path(cli.BINARY).resolve().parent / "venv-exports"
VLLM = "vllm==0.33.0"
INSTALL_S = 120
WHEEL_S = 1200  # vLLM's has hundreds of MB


def pip(*args, timeout=INSTALL_S):
    """Run pip; why it failed, or None."""
    command = [VENV / "bin" / "python", "-m", "pip", "--disable-pip-version-check", *args]
    return failure(command, timeout)


def failure(command, timeout):
    try:
        subprocess.run(command, timeout=timeout, check=True, capture_output=True, text=True)
    except subprocess.TimeoutExpired:
        return f"took over {timeout} s to install"
    except subprocess.CalledProcessError as e:
        return (e.stderr.strip() or e.stdout.strip() or "no reason given").splitlines()[-1]
    return None


def enter_venv():
    """Go on under the Python that has the tools; without the registry the script is left out."""
    if pathlib.Path(sys.prefix) == VENV:
        return
    wanted, done = HERE / "requirements.txt", VENV / "installed.txt"
    python = VENV / "bin" / "python"
    if not done.exists() or done.read_text() != wanted.read_text():
        shutil.rmtree(VENV, ignore_errors=True)
        why = failure(["/usr/bin/python3", "-m", "venv", "--system-site-packages", VENV], INSTALL_S)
        why = why or pip("install", "-q", "--retries", "1", "--no-deps", "--only-binary", ":all:",
                         "--ignore-requires-python", "-r", wanted)
        if why:
            cli.skip(f"the tools' parsers: {wanted.name} could not be installed: {why}")
        done.write_text(wanted.read_text())
    os.execv(python, [python, *sys.argv])


# --- packages without their __init__ --------------------------------------------------------------


def bare(name, folder=None):
    """A package whose modules can be imported, though its __init__ has not run."""
    if name in sys.modules:
        return sys.modules[name]
    above, _, last = name.rpartition(".")
    if above:
        folder = folder or pathlib.Path(sys.modules[above].__path__[0], last)
    elif not folder:
        folder = importlib.util.find_spec(name).submodule_search_locations[0]
    package = types.ModuleType(name)
    package.__path__ = [str(folder)]
    sys.modules[name] = package
    if above:
        setattr(sys.modules[above], last, package)
    return package


def stand_in(name, **contents):
    """A module that holds no more than this."""
    module = types.ModuleType(name)
    vars(module).update(contents)
    sys.modules[name] = module
    return module


def guidellm():
    """(class of a report, class of its metrics)"""
    bare("guidellm")
    bare("guidellm.benchmark")
    from guidellm.benchmark.schemas import GenerativeBenchmarksReport, GenerativeMetrics

    return GenerativeBenchmarksReport, GenerativeMetrics


def inference_perf():
    """(its validation of a set of reports, its class of a file, its reader for charts)"""
    bare("inference_perf")
    bare("inference_perf.reportgen")
    bare("inference_perf.reportgen.br")
    bare("inference_perf.reportgen.br.v0_2")
    utils = bare("inference_perf.utils")
    from inference_perf.utils.report_file import ReportFile

    utils.ReportFile = ReportFile
    from inference_perf.analysis import analyze
    from inference_perf.reportgen import validation

    return validation, ReportFile, analyze


def br02():
    """llm-d-benchmark's model of its report v0.2; it has no package, inference-perf carries a copy."""
    from inference_perf.reportgen.br.v0_2.schema_v0_2 import BenchmarkReportV02

    return BenchmarkReportV02


def vllm():
    """(vLLM's reader of `vllm bench sweep plot`, None), or (None, why there is none)."""
    folder = VENV / "vllm"
    if not (folder / "benchmarks").exists():
        if os.environ.get("TIDEMARK_SLOW") != "1":
            return None, "vLLM's reader is in a wheel of hundreds of MB: set TIDEMARK_SLOW=1"
        why = take_from_wheel(folder)
        if why:
            return None, f"vLLM's wheel: {why}"
    for name in ("vllm", "vllm.utils", "vllm.benchmarks", "vllm.benchmarks.lib",
                 "vllm.benchmarks.sweep"):
        bare(name, folder if name == "vllm" else None)
    # these two want the rest of vLLM: for the command line, and for what to say of missing packages
    stand_in("vllm.utils.argparse_utils", FlexibleArgumentParser=argparse.ArgumentParser)
    stand_in("vllm.utils.import_utils", PlaceholderModule=None)
    from vllm.benchmarks.sweep import plot

    return plot, None


def take_from_wheel(folder):
    """vLLM's Python modules only; why not, or None."""
    wheels = VENV / "wheels"
    why = pip("download", "--no-deps", "--only-binary", ":all:", "-d", wheels, VLLM,
              timeout=WHEEL_S)
    for wheel in [] if why else wheels.glob("vllm-*.whl"):
        with zipfile.ZipFile(wheel) as z:
            names = [n for n in z.namelist()
                     if n.startswith(("vllm/benchmarks/", "vllm/utils/")) and n.endswith(".py")]
            z.extractall(folder.parent, names)
    shutil.rmtree(wheels, ignore_errors=True)
    return why
