"""The installed binary as a user meets it: started, watched, ended.

Every process of a run is found by a mark in its environment, whoever its parent is by now; nothing
here waits without a deadline, and what is left when a deadline passes is killed before the test
fails. Places come from the environment:

    TIDEMARK            the binary
    TIDEMARK_SOURCE     the project's root
    TIDEMARK_SHARED     models and data sets (default: ../shared beside the project)
    TIDEMARK_SANITIZED  1: a sanitizer build; slower, so that deadlines grow and soaks shrink
"""

import concurrent.futures
import contextlib
import json
import os
import pathlib
import pty
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
import unittest
import uuid

ROOT = pathlib.Path(os.environ.get("TIDEMARK_SOURCE") or pathlib.Path(__file__).parents[2])
BINARY = os.environ.get("TIDEMARK") or str(ROOT / "build" / "tidemark")
SHARED = pathlib.Path(os.environ.get("TIDEMARK_SHARED") or ROOT.parent / "shared")
SANITIZED = os.environ.get("TIDEMARK_SANITIZED") == "1"
DEADLINE_S = 120 if SANITIZED else 60
MPIRUN = ["mpirun", "--oversubscribe", "--bind-to", "none", "--mca", "pml", "ob1", "--mca", "btl",
          "self,vader"]
MARK = "TIDEMARK_TEST_MARK"
SKIPPED = 77
# LeakSanitizer itself dies now and then when a process of MPI ends, so that only what can be run
# again asks for it. In other builds the variable means nothing.
LEAKS = {"ASAN_OPTIONS": "detect_leaks=1"}
NO_LEAKS = {"ASAN_OPTIONS": "detect_leaks=0"}
LEAK_CHECK_DIED = "LeakSanitizer has encountered a fatal error"
left_out = []  # what main() has to say was not checked, though its test passed
place = threading.local()  # .env: see give_place


def skip(reason):
    """Leave the whole script out: what it needs is not here."""
    print(f"skipped: {reason}")
    sys.exit(SKIPPED)


def shared(path):
    """A file or folder of the shared data; without it the test is left out."""
    found = SHARED / path
    if not found.exists():
        raise unittest.SkipTest(f"needs {path} in the shared data (TIDEMARK_SHARED)")
    return found


def give_place(folder):
    """What this thread starts keeps the launcher's files in a folder of its own: when mpirun ends and thinks that
    no other one runs, it removes the folder of all."""
    place.env = {"TMPDIR": tempfile.mkdtemp(dir=folder)}


class SideBySide:
    """Runs tests several at a time: those that start processes and wait for them, and judge nothing by the
    clock."""

    def run(self, suite):
        whole = unittest.TestResult()
        with tempfile.TemporaryDirectory(prefix="tidemark-mpi-") as folder, \
                concurrent.futures.ThreadPoolExecutor((1 if SANITIZED else 2) * len(os.sched_getaffinity(0)),
                                                      initializer=give_place, initargs=(folder,)) as pool:
            for test, result, took_s in pool.map(self._run_one, self._tests(suite)):
                bad = result.failures + result.errors
                print(f"{test.id()} ... {took_s:.1f} s", "FAILED" if bad else "ok", *[text for _, text in bad],
                      flush=True)
                whole.testsRun += result.testsRun
                whole.failures += result.failures
                whole.errors += result.errors
                whole.skipped += result.skipped
        return whole

    @staticmethod
    def _run_one(test):
        result = unittest.TestResult()
        began = time.monotonic()
        test.run(result)
        return test, result, time.monotonic() - began

    def _tests(self, suite):
        for test in suite:
            if isinstance(test, unittest.TestSuite):
                yield from self._tests(test)
            else:
                yield test


def main(runner=None):
    """Run the calling script's tests; when all of them were left out, so is the script."""
    if not os.access(BINARY, os.X_OK):
        skip(f"{BINARY} is not built (TIDEMARK)")
    with tempfile.TemporaryDirectory(prefix="tidemark-mpi-") as folder:
        give_place(folder)
        result = unittest.main(verbosity=2, module="__main__", exit=False, testRunner=runner).result
    for reason in sorted({reason for _, reason in result.skipped}.union(left_out)):
        print(f"skipped: {reason}")
    if not result.wasSuccessful():
        sys.exit(1)
    sys.exit(0 if result.testsRun > len(result.skipped) else SKIPPED)


# --- processes ------------------------------------------------------------------------------------


def environ_of(pid):
    try:
        pairs = pathlib.Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
    except OSError:
        return {}
    return dict(pair.decode("utf-8", "replace").split("=", 1) for pair in pairs if b"=" in pair)


def journal_bytes(folder, step=None):
    """Bytes of a run's journals, or of the one of a step: the folder comes and goes between steps, also while it is read."""
    try:
        return sum(file.stat().st_size for file in os.scandir(folder)
                   if step is None or file.name == f"step_{step:04d}.journal")
    except FileNotFoundError:
        return 0


def processes(mark):
    """{pid: environment} of the living processes that carry the mark. A zombie has none."""
    found = {}
    for entry in os.listdir("/proc"):
        if entry.isdigit():
            env = environ_of(entry)
            if env.get(MARK) == mark:
                found[int(entry)] = env
    return found


def kill_all(mark):
    """SIGKILL to all processes of one run: only the ones that carry its mark."""
    for _ in range(50):
        left = processes(mark)
        if not left:
            return
        for pid in left:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        time.sleep(0.1)


class Result:
    def __init__(self, code, out, err):
        self.code, self.out, self.err = code, out, err

    def __str__(self):
        return f"exit code {self.code}\n--- stdout\n{self.out}\n--- stderr\n{self.err}"

    def json(self):
        return json.loads(self.out)


class Process:
    """A run under way. `chunks` is what came on stderr: [(monotonic ns when read, text)]."""

    def __init__(self, command, env=None, cwd=None, terminal=False):
        self.mark = uuid.uuid4().hex
        self.began = time.monotonic()
        full = dict(os.environ, **NO_LEAKS, **{MARK: self.mark})
        full.pop("TIDEMARK_TTY", None)
        if os.geteuid() == 0:
            full.update(OMPI_ALLOW_RUN_AS_ROOT="1", OMPI_ALLOW_RUN_AS_ROOT_CONFIRM="1")
        full.update(getattr(place, "env", {}))
        full.update(env or {})
        if full["ASAN_OPTIONS"] == NO_LEAKS["ASAN_OPTIONS"]:
            full.pop("LSAN_OPTIONS", None)  # whose whole stacks would still be walked at each malloc
        self.chunks, self.out_chunks, self.terminal_fd = [], [], None
        options = dict(env=full, cwd=cwd, start_new_session=True)
        if terminal:
            self._start_on_terminal(command, options)
        else:
            self.popen = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                                          stderr=subprocess.PIPE, **options)
            self._readers = [self._reader(self.popen.stdout.fileno(), self.out_chunks),
                             self._reader(self.popen.stderr.fileno(), self.chunks)]
        self.pid = self.popen.pid

    def _start_on_terminal(self, command, options):
        """stdin, stdout and stderr are a terminal of 120 columns, the session's own."""
        self.terminal_fd, inner = pty.openpty()
        subprocess.run(["stty", "cols", "120", "rows", "40", "-echo"], stdin=inner, check=True)
        # setsid, then the terminal becomes the controlling one by being opened
        name = os.ttyname(inner)
        script = 'tty=$1; shift; exec "$@" <>"$tty" >&0 2>&0'
        self.popen = subprocess.Popen(["bash", "-c", script, "bash", name, *command],
                                      stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
                                      stderr=subprocess.DEVNULL, **options)
        self._readers = [self._reader(self.terminal_fd, self.chunks)]
        self._inner = inner

    @staticmethod
    def _reader(fd, chunks):
        def read():
            while True:
                try:
                    data = os.read(fd, 65536)
                except OSError:
                    return  # a terminal whose other side is closed
                if not data:
                    return
                chunks.append((time.monotonic_ns(), data.decode("utf-8", "replace")))

        thread = threading.Thread(target=read, daemon=True)
        thread.start()
        return thread

    def type(self, text):
        os.write(self.terminal_fd, text.encode())

    def stderr(self):
        return "".join(text for _, text in self.chunks)

    def ranks(self):
        """{rank: pid} of the MPI ranks that live."""
        return {int(env["OMPI_COMM_WORLD_RANK"]): pid for pid, env in processes(self.mark).items()
                if "OMPI_COMM_WORLD_RANK" in env}

    def signal(self, number):
        os.kill(self.pid, number)

    def wait_until(self, condition, what, timeout=DEADLINE_S):
        """Poll a condition every 20 ms; its first true value."""
        end = time.monotonic() + timeout
        while time.monotonic() < end:
            value = condition()
            if value:
                return value
            if self.popen.poll() is not None:
                raise AssertionError(f"ended before {what}: {self.finish()}")
            time.sleep(0.02)
        self.end()
        raise AssertionError(f"no {what} within {timeout} s: {self.finish()}")

    def finish(self, timeout=DEADLINE_S):
        """Wait for the end; what came out. Past the deadline all is killed and the test fails."""
        try:
            self.popen.wait(timeout)
        except subprocess.TimeoutExpired:
            self.end()
            raise AssertionError(f"still running after {timeout} s: {self._result()}") from None
        return self._result()

    def _result(self):
        if self.terminal_fd is not None:
            os.close(self._inner)
        for reader in self._readers:
            reader.join(5)  # a process left behind holds the pipe open; it shows elsewhere
        for stream in (self.popen.stdout, self.popen.stderr):
            if stream:
                stream.close()
        if self.terminal_fd is not None:
            os.close(self.terminal_fd)
            self.terminal_fd = None
        return Result(self.popen.returncode, "".join(text for _, text in self.out_chunks),
                      self.stderr())

    def end(self):
        kill_all(self.mark)
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.popen.wait(5)


def start(*args, np=0, env=None, cwd=None, terminal=False):
    """Start tidemark with these arguments; np > 0: by hand, under mpirun with so many ranks."""
    command = [*MPIRUN, "-np", str(np)] if np else []
    return Process([*command, BINARY, *map(str, args)], env, cwd, terminal)


def run(*args, timeout=DEADLINE_S, **options):
    return start(*args, **options).finish(timeout)


def run_with_leak_check(*args, **options):
    """The same for what may be run again: wrong input, `generate`, `run --force`. Where the leak
    checker itself crashes each time, the result is of a run without it, and main() says so."""
    env = options.pop("env", None) or {}
    for _ in range(2):
        result = run(*args, env=dict(env, **LEAKS), **options)
        if LEAK_CHECK_DIED not in result.err:
            return result
    left_out.append(f"leak check of `tidemark {args[0]}`: LeakSanitizer itself crashed twice")
    return run(*args, env=env, **options)


# --- what tests share -----------------------------------------------------------------------------


class TestCase(unittest.TestCase):
    maxDiff = 4000

    def setUp(self):
        self.folder = pathlib.Path(tempfile.mkdtemp(prefix="tidemark-test-"))
        self.addCleanup(shutil.rmtree, self.folder, ignore_errors=True)

    def good(self, *args, code=0, **options):
        """Run to the expected end; the result."""
        result = run(*args, **options)
        self.assertEqual(result.code, code, f"{args}: {result}")
        return result

    def one_clear_line(self, result, *wanted, code=2):
        """Wrong input: this exit code, and one line on stderr that holds the wanted texts.

        A wanted text may be a tuple of texts of which one must be there."""
        lines = own_lines(result.err)
        self.assertEqual(result.code, code, str(result))
        self.assertEqual(len(lines), 1, f"one line wanted: {result}")
        self.assertTrue(lines[0].startswith("tidemark: "), lines[0])
        self.assertLess(len(lines[0]), 600, lines[0])
        for text in wanted:
            any_of = text if isinstance(text, tuple) else (text,)
            self.assertTrue(any(str(t) in lines[0] for t in any_of), f"no {text!r} in: {lines[0]}")
        return lines[0]

    def refused(self, args, *wanted, **options):
        """Run to one clear line; see there."""
        return self.one_clear_line(run_with_leak_check(*args, **options), *wanted)

    def one_clear_line_both_ways(self, args, *wanted, np, env=None):
        """Wrong input of `run` or `generate`: started alone (which alone is what a sanitizer build has time
        for: the same code reads it), and under mpirun by hand. Side by side: mpirun mostly sleeps."""
        if SANITIZED:
            self.refused(args, *wanted, env=env)
            return
        started = [(ranks, start(*args, np=ranks, env=env)) for ranks in (0, np)]
        results = [(ranks, process.finish()) for ranks, process in started]
        for ranks, result in results:
            with self.subTest(np=ranks or "self-launch"):
                self.one_clear_line(result, *wanted)


RULE = re.compile(r"-{60,}\s*$")
AS_ROOT = re.compile(r"\S+ launch: running as root: ")  # said at every start, no error


def own_lines(err):
    """Lines of stderr without the notices that mpirun, started by hand, frames with dashes, and without what `auto` took."""
    lines, in_notice = [], False
    for line in err.splitlines():
        if RULE.match(line):
            in_notice = not in_notice
        elif not in_notice and line.strip() and not AS_ROOT.match(line) and " run: target.backend: auto" not in line:
            lines.append(line)
    return lines


def write_config(path, **keys):
    """A config file from dotted keys; values in JSON are YAML."""
    lines = [f"{key}: {json.dumps(value)}" for key, value in nest(keys).items()]
    pathlib.Path(path).write_text("\n".join(lines) + "\n")
    return str(path)


def nest(keys):
    root = {}
    for dotted, value in keys.items():
        node = root
        *above, last = dotted.split("__")
        for part in above:
            node = node.setdefault(part, {})
        node[last] = value
    return root


def small_run(folder, **keys):
    """Config of a run of seconds: the tiny preset, two stages, short replies, light load. A key of
    None is left out."""
    defaults = dict(name="small", target__kind="stages", target__model="preset:tiny",
                    target__pipeline=2, load__ranks=1, load__dataset="sharegpt",
                    load__input_tokens=16, load__output_tokens=8, load__rates=[20.0],
                    load__step="2s", load__drain="20s", load__seed=1,
                    cost__prices=str(ROOT / "configs" / "prices.csv"), cost__instance="example-cpu",
                    results=str(pathlib.Path(folder) / "run.h5"))
    defaults.update(keys)
    wanted = {key: value for key, value in defaults.items() if value is not None}
    return write_config(pathlib.Path(folder) / "config.yaml", **wanted)


def copy_model(folder, name="stories260K"):
    """A copy of a shared model, to be damaged."""
    to = pathlib.Path(folder) / name
    to.mkdir()
    for file in shared(f"models/{name}").iterdir():
        shutil.copyfile(file, to / file.name)
    return to


def read_safetensors(path):
    """(header as a dict, data bytes)"""
    data = pathlib.Path(path).read_bytes()
    n = int.from_bytes(data[:8], "little")
    return json.loads(data[8 : 8 + n]), data[8 + n :]


def write_safetensors(path, header, data):
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    pathlib.Path(path).write_bytes(len(text).to_bytes(8, "little") + text + data)


# --- result files ---------------------------------------------------------------------------------


OUTCOMES = ["ok", "http_status", "connect", "timeout_first", "timeout_total", "truncated",
            "bad_stream", "cancelled", "rejected", "lost"]


class Step:
    """One step's group of a result file, read whole."""

    def __init__(self, group):
        self.attrs = dict(group.attrs)
        self.requests = {name: column[()] for name, column in group["requests"].items()}
        self.dt_us = group["tokens/dt_us"][()]
        self.offsets = group["tokens/offsets"][()]

    def schedule(self):
        """[(id, ns since the step began, input tokens, output tokens asked for)]"""
        r = self.requests
        due = r["t_sched_ns"] - self.attrs["t_begin_ns"]
        return [tuple(int(v) for v in row) for row in zip(r["id"], due, r["n_in"], r["n_out_req"])]

    def outcomes(self):
        """{id: name of the outcome}"""
        r = self.requests
        return {int(i): OUTCOMES[o] for i, o in zip(r["id"], r["outcome"])}


def read_steps(path):
    """The complete steps of a result file, through h5py."""
    import h5py  # noqa: PLC0415: a test's own dependency, not the helpers'

    with h5py.File(path, "r") as f:
        names = sorted(name for name in f["steps"] if name.isdigit())
        groups = [f["steps"][name] for name in names]
        return [Step(g) for g in groups if g.attrs.get("complete", 1)]


def root_attrs(path):
    import h5py  # noqa: PLC0415

    with h5py.File(path, "r") as f:
        return dict(f.attrs)
