"""Ranks of every role that are killed, stopped or stuck in the middle of a step, at random times. What must hold each
time is struck.py's."""

import json
import os
import random
import signal
import time

import struck
import tidemark_cli as cli

KILLS = int(os.environ.get("TIDEMARK_CRASH_KILLS") or 20)
BATCH_S = 0.5
PLACES = [(1, 2, 1), (2, 2, 1), (1, 2, 2), (1, 1, 2)]  # load ranks, pipeline, tensor


class SideBySide(struck.SideBySide):
    """All trials, then what only all of them together can show."""

    def run(self, suite):
        whole, seen = super().run(suite), struck.Seen
        print(f"  witnesses: {seen.n_witnessed} requests shown as done, {seen.n_due} due long before; not asked of "
              f"{seen.n_busy} runs that others held up", flush=True)
        kills = [test for test in self._tests(suite) if "test_kill" in test.id()]
        if kills and (seen.n_witnessed == 0 or seen.n_due + seen.n_busy == 0):
            print("FAILED: the progress line or the schedule witnessed nothing")
            whole.errors.append((kills[0], "no witness"))
        if seen.n_busy > len(kills) / 2:
            cli.left_out.append("in most runs what was due before the kill: this machine was too busy")
        return whole


class Crash(struck.Struck):
    def strike_at_random(self, draw, how, place, rank, part=0, parts=1):
        """At a random time in the given part of its last step's equal parts."""
        n_steps = draw.choice([1, 1, 1, 1, 2])
        wait_s = 0.2 + (self.STRIKE_S - 0.3) * (part + draw.random()) / parts
        return self.strike_one(how, place, rank, n_steps, wait_s)

    def kill_one(self, k):
        draw = random.Random(struck.SEED * 1000 + k)
        place = PLACES[k % len(PLACES)]
        rank = (k // len(PLACES) + k % len(PLACES)) % (place[0] + struck.n_workers(place))  # every role has its turn
        line = self.strike_at_random(draw, signal.SIGKILL, place, rank, draw.randrange(KILLS), KILLS)
        self.check_killed(line, place, rank)

    def stop_one(self, place, rank):
        draw = random.Random(struck.SEED * 1000 + 500 + 10 * rank + len(place))
        self.check_stopped(self.strike_at_random(draw, signal.SIGSTOP, place, rank), rank)

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
        again = cli.run("run", self.config(self.home, PLACES[0], 1), "--force", "--quiet", "load.step=300ms",
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
             for rank in range(place[0] + struck.n_workers(place)) if place is PLACES[0] or rank >= place[0]]
    for place, rank in stops:
        setattr(Crash, f"test_stop_{place[1]}x{place[2]}_rank_{rank}",
                lambda self, place=place, rank=rank: self.stop_one(place, rank))


if __name__ == "__main__":
    add_trials()
    cli.main(SideBySide(Crash))
