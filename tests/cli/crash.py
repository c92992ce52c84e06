"""Ranks of every role that are killed, stopped or stuck in the middle of a step, at random times.

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
import json
import os
import pathlib
import random
import re
import shutil
import signal
import threading
import time

import tidemark_cli as cli

KILLS = int(os.environ.get("TIDEMARK_CRASH_KILLS") or (5 if cli.SANITIZED else 20))
SEED = int(os.environ.get("TIDEMARK_CRASH_SEED") or 1)
SILENCE_S = 2
BATCH_S = 0.5
GONE_S = 5  # beyond the deadline
LAGS = 10  # and what sleep is too long by, so many times
LAUNCHER_S = 10  # and its threads of the idle class end late where all cores are taken
FINISHED_S = 1.0
SLACK_S = 2.0 if cli.SANITIZED else 0.6
RATES = [25.0, 30.0]
STRIKE_S = FINISHED_S + 2 * SLACK_S  # by then it is struck, so that a late kill leaves requests due long before it
STEP_S = STRIKE_S + 1.2  # and the step is not over
PLACES = [(1, 2, 1), (2, 2, 1), (1, 2, 2), (1, 1, 2)]  # load ranks, pipeline, tensor
PROGRESS = re.compile(r"step (\d+)(?:/\d+)? [^\r\n]*? done (\d+)")
CLEAR_LINE = "\033[K"
SHM = pathlib.Path("/dev/shm")


def config(folder, place, n_steps, **keys):
    load_ranks, pipeline, tensor = place
    return cli.small_run(folder, load__ranks=load_ranks, load__rates=RATES[:n_steps],
                         load__step=f"{STEP_S}s", target__pipeline=pipeline, target__tensor=tensor,
                         target__threads=1, deadline__silence=f"{SILENCE_S}s", **keys)


def n_workers(place):
    return place[1] * place[2]


def role(place, rank):
    """As messages of the launcher name it."""
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

    @staticmethod
    def measure():
        home = pathlib.Path(cli.tempfile.mkdtemp(prefix="tidemark-test-"))
        try:
            result = cli.run("run", config(home, PLACES[0], 2), "--quiet")
            assert result.code == 0, str(result)
            unbroken = cli.read_steps(home / "run.h5")
        finally:
            shutil.rmtree(home, ignore_errors=True)
        for step in unbroken:
            assert set(step.outcomes().values()) == {"ok"}, step.outcomes()
        return unbroken

    @classmethod
    def add(cls, n_witnessed, n_due):
        with cls.lock:
            cls.n_witnessed += n_witnessed
            cls.n_due += n_due


class SideBySide(cli.SideBySide):
    """All trials, then what only all of them together can show."""

    def run(self, suite):
        with cli.tempfile.TemporaryDirectory(prefix="tidemark-mpi-") as folder, \
                concurrent.futures.ThreadPoolExecutor(1, initializer=cli.give_place, initargs=(folder,)) as pool:
            Seen.unbroken = pool.submit(Seen.measure)
            whole = super().run(suite)
        print(f"  witnesses: {Seen.n_witnessed} requests shown as done, {Seen.n_due} due long before; not asked of "
              f"{Seen.n_busy} runs that others held up", flush=True)
        kills = [test for test in self._tests(suite) if "test_kill" in test.id()]
        if kills and (Seen.n_witnessed == 0 or Seen.n_due + Seen.n_busy == 0):
            print("FAILED: the progress line or the schedule witnessed nothing")
            whole.errors.append((kills[0], "no witness"))
        if Seen.n_silent > len(kills) / 4:
            print("FAILED: only silence told of", Seen.n_silent, "of", len(kills), "kills")
            whole.errors.append((kills[0], "silence"))
        if Seen.n_busy > len(kills) / 2:
            cli.left_out.append("in most runs what was due before the kill: this machine was too busy")
        return whole


class Crash(cli.TestCase):
    # --- one run ----------------------------------------------------------------------------------

    def start(self, place, n_steps, **keys):
        """A run whose folders for sessions are its own; its progress goes to a pipe."""
        self.lag_s = 0
        self.home = pathlib.Path(cli.tempfile.mkdtemp(prefix="t", dir=self.folder))
        self.tmp = self.home / "tmp"
        self.tmp.mkdir()
        self.file = self.home / "run.h5"
        self.journal = pathlib.Path(f"{self.file}.journal")
        process = cli.start("run", config(self.home, place, n_steps, **keys),
                            env={"TMPDIR": str(self.tmp), "TIDEMARK_TTY": "200"})
        self.addCleanup(process.end)
        return process

    def nap(self, seconds):
        """Sleep; how much too long shows how far behind this machine is."""
        began = time.monotonic()
        time.sleep(seconds)
        self.lag_s = max(self.lag_s, time.monotonic() - began - seconds)

    def into_step(self, process, index, wait_s):
        process.wait_until(lambda: list(self.journal.glob(f"*{index:04d}*")), f"step {index}")
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
            limit_s = (deadline_s + GONE_S) * (3 if cli.SANITIZED else 1) + LAGS * self.lag_s
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
            wanted = 8 if outcome == "ok" else 0
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

    # --- trials -----------------------------------------------------------------------------------

    def strike_one(self, draw, how, place, rank, part=0, parts=1):
        """One run struck at a random time in the given part of its last step's equal parts: its one line."""
        n_steps = draw.choice([1, 1, 1, 1, 2])
        wait_s = 0.2 + (STRIKE_S - 0.3) * (part + draw.random()) / parts
        for _ in range(3):
            process = self.start(place, n_steps)
            self.into_step(process, n_steps - 1, wait_s)
            struck_ns = self.strike(process, rank, how)
            if struck_ns - self.step_ns < int((STEP_S - 0.5) * 1e9):
                break  # else this process came late to it: the step may be over
            process.end()
        result = self.gone(process, struck_ns, SILENCE_S if how == signal.SIGSTOP else 0)
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

    def kill_one(self, k):
        draw = random.Random(SEED * 1000 + k)
        place = PLACES[k % len(PLACES)]
        rank = (k // len(PLACES) + k % len(PLACES)) % (place[0] + n_workers(place))  # every role has its turn
        line = self.strike_one(draw, signal.SIGKILL, place, rank, draw.randrange(KILLS), KILLS)
        if re.search(rf"\brank {rank} \(pid \d+ on \S+\) has been silent", line):
            Seen.n_silent += 1  # its threads of the idle class took so long to end
            return
        self.assertRegex(line, rf"^tidemark: rank {rank} \({role(place, rank)}\) on \S+ was killed by "
                               r"signal 9 \(Killed\)$")

    def stop_one(self, place, rank):
        """SIGSTOP: nothing tells the others but its silence, of deadline.silence."""
        draw = random.Random(SEED * 1000 + 500 + 10 * rank + len(place))
        line = self.strike_one(draw, signal.SIGSTOP, place, rank)
        self.assertRegex(line, rf"\brank {rank} \(pid \d+ on \S+\) has been silent")

    def test_stuck(self):
        """A stage that lives and answers, but whose backend does not end its first batch: the simulated head of
        the last stage takes hours. The first batch of a size has four times deadline.batch."""
        costs = self.folder / "costs.json"
        costs.write_text(json.dumps({"schema": "tidemark.costs/1", "source": "test", "hidden": 128, "vocab": 1024,
                                     "layers": {"dense": {"fixed_ns": 1000}}, "embed": {}, "head": {"fixed_ns": 1e13}}))
        process = self.start(PLACES[0], 1, target__backend="sim", target__sim__costs=str(costs),
                             deadline__batch=f"{BATCH_S}s")
        self.into_step(process, 0, 0)
        result = self.gone(process, time.monotonic_ns(), 4 * BATCH_S)
        self.assertRegex(self.check_line(result),
                         r"^tidemark: rank 2 \(replica 0, stage 1, tensor 0\): its backend \(sim\) has been "
                         r"computing a batch of \d+ tokens for 2\.\d s \(limit 2\.0 s: deadline\.batch, ")
        self.check_swept()
        self.good("recover", self.file)
        self.assertEqual(set(cli.read_steps(self.file)[0].outcomes().values()), {"lost"})
        self.good("validate", self.file)

    def test_launcher_is_killed(self):
        """Nobody is left to clean up: the ranks end by themselves, the next start sweeps."""
        process = self.start(PLACES[0], 1)
        self.into_step(process, 0, 1.5)
        struck_ns = time.monotonic_ns()
        process.signal(signal.SIGKILL)
        self.gone(process, struck_ns)
        self.check_recovered(0, 1, struck_ns, process.chunks)
        again = cli.run("run", config(self.home, PLACES[0], 1), "--force", "--quiet", "load.step=300ms",
                        env={"TMPDIR": str(self.tmp)})
        self.assertEqual(again.code, 0, str(again))
        self.check_swept()

    def test_mpirun_is_killed(self):
        process = self.start(PLACES[0], 1)
        self.into_step(process, 0, 1.5)
        ranks = set(process.ranks().values())
        mpirun = [pid for pid in cli.processes(process.mark) if pid not in ranks | {process.pid}]
        self.assertEqual(len(mpirun), 1)
        struck_ns = time.monotonic_ns()
        os.kill(mpirun[0], signal.SIGKILL)
        self.assertIn("mpirun", self.check_line(self.gone(process, struck_ns)))
        self.check_swept()
        self.check_recovered(0, 1, struck_ns, process.chunks)


def add_trials():
    """Each a test of its own, so that they run side by side."""
    for k in range(KILLS):
        setattr(Crash, f"test_kill_{k:02d}", lambda self, k=k: self.kill_one(k))
    stops = [(place, rank) for place in (PLACES[0], PLACES[2])
             for rank in range(place[0] + n_workers(place)) if place is PLACES[0] or rank >= place[0]]
    for place, rank in stops if not cli.SANITIZED else stops[1:2]:
        setattr(Crash, f"test_stop_{place[1]}x{place[2]}_rank_{rank}",
                lambda self, place=place, rank=rank: self.stop_one(place, rank))


if __name__ == "__main__":
    add_trials()
    cli.main(SideBySide())
