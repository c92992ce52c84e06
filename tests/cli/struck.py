"""Runs of which a rank is killed, stopped or stuck in the middle of a step, and what must hold afterwards: crash.py and
crash_cuda.py have the trials.

Each time: all other processes are gone within the deadline that concerns them and 5 s; the exit status is 1 and
the launcher says in one line which rank it was; nothing is left in the session and shared-memory folders; the
steps before are intact; and after `recover` the step holds the whole schedule of an unbroken run with the
same seed, where nothing that finished more than 1 s before the kill is missing and every other request is `lost`.

What had finished by then is known from two witnesses that share nothing with the journal:

 1. The progress line, read here with this process's clock. It shows the loop's own count of
    finished requests (load rank 0's, times the number of load ranks). A count read more than 1 s
    before the kill was finished then: load rank 0 must have at least so many records. Exact.
 2. The schedule. The load is light (a few percent of what the stages serve), so that a reply takes
    milliseconds. A request due more than 1 s + `SLACK_S` before the kill had finished, unless the progress line
    shows that replies were slower than that. It covers all load ranks, by name.

Clocks agree: times in the file are rank 0's CLOCK_MONOTONIC less t0_ns, and the kill is stamped
with the same clock on the same host.

Trials run side by side: most of their time they wait.
"""

import concurrent.futures
import os
import pathlib
import re
import shutil
import signal
import threading
import time

import tidemark_cli as cli

SEED = int(os.environ.get("TIDEMARK_CRASH_SEED") or 1)
GONE_S = 5  # beyond the deadline
LAGS = 10  # and what sleep is too long by, so many times
LAUNCHER_S = 10  # and its threads of the idle class end late where all cores are taken
FINISHED_S = 1.0
SLACK_S = 0.6
REST_S = 1.2  # of a step, behind the last time at which it is struck
PROGRESS = re.compile(r"step (\d+)(?:/\d+)? [^\r\n]*? done (\d+)")
CLEAR_LINE = "\033[K"
SHM = pathlib.Path("/dev/shm")


def n_workers(place):
    return place[1] * place[2]


def role(place, rank):
    """As messages of the launcher name it. A place: load ranks, pipeline, tensor."""
    load_ranks, _, tensor = place
    if rank < load_ranks:
        return "load rank"
    stage, t = divmod(rank - load_ranks, tensor)
    return f"worker, replica 0 stage {stage}" + (f" tensor {t}" if tensor > 1 else "")


def said(err):
    """What was said on stderr besides progress, the log of finished steps, and what `auto` took."""
    lines = [line.replace(CLEAR_LINE, "") for line in re.split(r"[\r\n]+", err)]
    return [line for line in lines
            if line and not PROGRESS.match(line) and not cli.AS_ROOT.match(line)
            and not re.search(r" run: (step \d+|target.backend): ", line)]


class Seen:
    """What the trials have in common: the unbroken run that all are measured against, and their witnesses."""

    lock = threading.Lock()
    unbroken = None  # a future: the trials begin meanwhile
    n_witnessed = n_due = n_busy = n_silent = 0

    @classmethod
    def add(cls, n_witnessed, n_due):
        with cls.lock:
            cls.n_witnessed += n_witnessed
            cls.n_due += n_due


class SideBySide(cli.SideBySide):
    """All trials of a class, and the run that they are measured against."""

    def __init__(self, trials):
        self.trials = trials

    def run(self, suite):
        with cli.tempfile.TemporaryDirectory(prefix="tidemark-mpi-") as folder, \
                concurrent.futures.ThreadPoolExecutor(1, initializer=cli.give_place, initargs=(folder,)) as pool:
            Seen.unbroken = pool.submit(self.trials.measure)
            whole = super().run(suite)
        kills = [test for test in self._tests(suite) if "test_kill" in test.id()]
        if Seen.n_silent > len(kills) / 4:
            print("FAILED: only silence told of", Seen.n_silent, "of", len(kills), "kills")
            whole.errors.append((kills[0], "silence"))
        return whole


class Struck(cli.TestCase):
    RATES = [25.0, 30.0]
    N_OUT = 8  # tokens of a reply
    SILENCE_S = 2
    INTO_S = cli.DEADLINE_S
    STRIKE_S = FINISHED_S + 2 * SLACK_S  # by then it is struck, so that a late kill leaves requests due long before it
    SETTINGS = {}  # of all runs
    ENV = {}

    # --- one run ----------------------------------------------------------------------------------

    @classmethod
    def config(cls, folder, place, n_steps, **keys):
        load_ranks, pipeline, tensor = place
        return cli.small_run(folder, **dict(dict(
            load__ranks=load_ranks, load__rates=cls.RATES[:n_steps], load__step=f"{cls.STRIKE_S + REST_S}s",
            load__output_tokens=cls.N_OUT, target__pipeline=pipeline, target__tensor=tensor, target__threads=1,
            deadline__silence=f"{cls.SILENCE_S}s", **cls.SETTINGS), **keys))

    @classmethod
    def measure(cls):
        """The steps of the unbroken run: their schedule does not depend on what computes."""
        home = pathlib.Path(cli.tempfile.mkdtemp(prefix="tidemark-test-"))
        try:
            result = cli.run("run", cls.config(home, (1, 2, 1), 2), "target.backend=cpu", "--quiet")
            assert result.code == 0, str(result)
            unbroken = cli.read_steps(home / "run.h5")
        finally:
            shutil.rmtree(home, ignore_errors=True)
        for step in unbroken:
            assert set(step.outcomes().values()) == {"ok"}, step.outcomes()
        return unbroken

    def start(self, place, n_steps, env=None, **keys):
        """A run whose folders for sessions are its own; its progress goes to a pipe."""
        self.lag_s = 0
        self.home = pathlib.Path(cli.tempfile.mkdtemp(prefix="t", dir=self.folder))
        self.tmp = self.home / "tmp"
        self.tmp.mkdir()
        self.file = self.home / "run.h5"
        self.journal = pathlib.Path(f"{self.file}.journal")
        process = cli.start("run", self.config(self.home, place, n_steps, **keys),
                            env={"TMPDIR": str(self.tmp), "TIDEMARK_TTY": "200", **self.ENV, **(env or {})})
        self.addCleanup(process.end)
        return process

    def nap(self, seconds):
        """Sleep; how much too long shows how far behind this machine is."""
        began = time.monotonic()
        time.sleep(seconds)
        self.lag_s = max(self.lag_s, time.monotonic() - began - seconds)

    def into_step(self, process, index, wait_s):
        process.wait_until(lambda: cli.journal_bytes(self.journal, index), f"step {index}",
                           self.INTO_S)
        self.step_ns = time.monotonic_ns()
        self.nap(wait_s)
        self.pids = list(cli.processes(process.mark))

    def strike(self, process, rank, how):
        """Signal a rank; when it was, on this host's monotonic clock."""
        pid = process.ranks()[rank]
        at_ns = time.monotonic_ns()
        os.kill(pid, how)
        return at_ns

    def gone(self, process, since_ns, deadline_s=0):
        """Its result; all its ranks have ended so long after a deadline that began at `since`, and the launcher,
        which cleans up behind them, by LAUNCHER_S later. Where others have the cores all takes longer."""
        while True:
            limit_s = deadline_s + GONE_S + LAGS * self.lag_s
            left = {pid: env.get("OMPI_COMM_WORLD_RANK", "launcher or mpirun")
                    for pid, env in cli.processes(process.mark).items()}
            if not left:
                break
            late_s = (time.monotonic_ns() - since_ns) / 1e9 - limit_s
            if late_s > LAUNCHER_S or (late_s > 0 and any(name.isdigit() for name in left.values())):
                process.end()
                self.fail(f"still there after {limit_s} s: {left}\n{process.stderr()}")
            self.nap(0.1)
        return process.finish()

    # --- what must hold afterwards ----------------------------------------------------------------

    def check_swept(self):
        self.assertEqual(sorted(os.listdir(self.tmp)), [], "left in the session folder")
        tokens = {str(pid) for pid in self.pids}
        left = [name for name in os.listdir(SHM) if tokens & set(re.split(r"[^0-9A-Za-z]+", name))]  # others' have hexadecimal numbers
        self.assertEqual(left, [], "left in shared memory")

    def check_whole_steps(self, n_whole):
        steps = cli.read_steps(self.file)
        self.assertEqual(len(steps), n_whole)
        for step, unbroken in zip(steps, Seen.unbroken.result()):
            self.assertEqual(step.schedule(), unbroken.schedule())
            self.assertEqual(set(step.outcomes().values()), {"ok"})
        self.good("validate", self.file)

    def check_recovered(self, n_whole, load_ranks, struck_ns, chunks):
        result = self.good("recover", self.file)
        self.assertIn(f"step {n_whole} ", result.out)
        self.assertFalse(self.journal.exists())
        steps = cli.read_steps(self.file)
        self.assertEqual(len(steps), n_whole + 1)
        step, unbroken = steps[-1], Seen.unbroken.result()[n_whole]
        self.assertEqual(int(step.attrs["recovered"]), 1)
        self.assertEqual(step.schedule(), unbroken.schedule(), "every request by name")
        outcomes = step.outcomes()
        self.assertLessEqual(set(outcomes.values()), {"ok", "lost"})
        n_shown = self.check_first_witness(step, n_whole, load_ranks, struck_ns, chunks)
        Seen.add(n_shown, self.check_second_witness(step, struck_ns, n_shown * load_ranks))
        for i, outcome in outcomes.items():
            wanted = self.N_OUT if outcome == "ok" else 0
            self.assertEqual(int(step.requests["n_out"][i]), wanted, f"request {i}: {outcome}")
        self.good("validate", self.file)
        return sum(o == "ok" for o in outcomes.values()), len(outcomes)

    def check_first_witness(self, step, index, load_ranks, struck_ns, chunks):
        done = 0
        for read_ns, text in chunks:
            if read_ns < struck_ns - int(FINISHED_S * 1e9):
                for number, count in PROGRESS.findall(text):
                    if int(number) == index + 1:
                        done = max(done, int(count) // load_ranks)
        r = step.requests
        have = int(((r["load_rank"] == 0) & (r["outcome"] == 0)).sum())
        self.assertGreaterEqual(have, done, "load rank 0 had shown more as done, > 1 s before")
        return done

    def check_second_witness(self, step, struck_ns, n_shown):
        t0_ns = int(cli.root_attrs(self.file)["t0_ns"])
        by_ns = struck_ns - t0_ns - int((FINISHED_S + SLACK_S) * 1e9)
        r = step.requests
        due = [int(i) for i, due_ns in zip(r["id"], r["t_sched_ns"]) if due_ns < by_ns]
        if n_shown < len(due):  # replies took longer than SLACK_S: others had the cores
            Seen.n_busy += 1
            return 0
        outcomes = step.outcomes()
        self.assertEqual([i for i in due if outcomes[i] != "ok"], [],
                         "due long before the kill, and not in the file")
        return len(due)

    # --- one trial --------------------------------------------------------------------------------

    def strike_one(self, how, place, rank, n_steps, wait_s, **keys):
        """One run struck so long after its last step began: its one line."""
        for _ in range(3):
            process = self.start(place, n_steps, **keys)
            self.into_step(process, n_steps - 1, wait_s)
            struck_ns = self.strike(process, rank, how)
            if struck_ns - self.step_ns < int((self.STRIKE_S + REST_S - 0.5) * 1e9):
                break  # else this process came late to it: the step may be over
            process.end()
        result = self.gone(process, struck_ns, self.SILENCE_S if how == signal.SIGSTOP else 0)
        took_s = (time.monotonic_ns() - struck_ns) / 1e9
        line = self.check_line(result)
        self.check_swept()
        self.check_whole_steps(n_steps - 1)
        n_ok, n_all = self.check_recovered(n_steps - 1, place[0], struck_ns, process.chunks)
        print(f"  {how.name} of rank {rank} of {place[0]} + {place[1]} x {place[2]}, step {n_steps - 1}, "
              f"{wait_s:.2f} s into it: gone after {took_s:.1f} s; {n_ok} of {n_all} requests kept",
              flush=True)
        return line

    def check_line(self, result):
        self.assertEqual(result.code, 1, str(result))
        lines = said(result.err)
        self.assertEqual(len(lines), 1, f"one line wanted: {lines}")
        return lines[0]

    def check_killed(self, line, place, rank):
        if re.search(rf"\brank {rank} \(pid \d+ on \S+\) has been silent", line):
            Seen.n_silent += 1  # its threads of the idle class took so long to end
            return
        self.assertRegex(line, rf"^tidemark: rank {rank} \({role(place, rank)}\) on \S+ was killed by "
                               r"signal 9 \(Killed\)$")

    def check_stopped(self, line, rank):
        """SIGSTOP: nothing tells the others but its silence, of deadline.silence."""
        self.assertRegex(line, rf"\brank {rank} \(pid \d+ on \S+\) has been silent")
