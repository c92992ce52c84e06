"""Load profiles as a run offers them: bursts and ramps are the same bytes for any number of load ranks; a
cap on concurrency holds requests back and says so; a client that was stopped sends what was due at once,
marks it late, and counts the lateness as latency."""

import json
import signal
import struct
import time

import tidemark_cli as cli
from serve import Server

MS = 1000000


class Offered(cli.TestCase):
    def offer(self, name, **keys):
        path = self.folder / f"{name}.h5"
        config = cli.small_run(self.folder, target__kind="null", results=str(path), **keys)
        self.good("run", config, "--quiet")
        return cli.read_steps(path)[0]

    def test_bursts_and_ramps_are_the_seeds_alone(self):
        kinds = {"gamma": dict(load__arrival={"kind": "gamma", "cv": 2}),
                 "linear": dict(load__ramp={"kind": "linear", "from": 0, "to": 2}),
                 "geometric": dict(load__arrival={"kind": "gamma", "cv": 0.5},
                                   load__ramp={"kind": "geometric", "from": 0.25, "to": 4})}
        seen = set()
        for name, keys in kinds.items():
            with self.subTest(profile=name):
                keys.update(load__rates=[300.0], load__step="1s")
                one, two = (self.offer(f"{name}{n}", load__ranks=n, **keys) for n in (1, 2))
                bytes_of = [b"".join(struct.pack("<Qqqq", *row) for row in step.schedule())
                            for step in (one, two)]
                self.assertEqual(*bytes_of)
                self.assertEqual(one.attrs["schedule_hash"], two.attrs["schedule_hash"])
                self.assertGreater(len(one.schedule()), 150)
                seen.add(bytes_of[0])
        self.assertEqual(len(seen), len(kinds))

    def test_ramp_rises(self):
        step = self.offer("ramp", load__rates=[2000.0], load__step="1s",
                          load__ramp={"kind": "linear", "from": 0, "to": 2})
        due = [t for _, t, _, _ in step.schedule()]
        quarters = [sum(k * 250 * MS <= t < (k + 1) * 250 * MS for t in due) for k in range(4)]
        for got, wanted in zip(quarters, (125, 375, 625, 875)):
            self.assertLess(abs(got - wanted), 5 * wanted**0.5)


class Conversations(cli.TestCase):
    THINK_NS = 100 * MS

    def converse(self, name, **keys):
        model = cli.shared("models/stories260K")
        data = self.folder / "talks.json"
        talks = [{"conversations": [{"from": ("human", "gpt")[i % 2], "value": f"once upon a day {k}"}
                                    for i in range(2 * (1 + k % 3))]} for k in range(30)]
        data.write_text(json.dumps(talks))
        path = self.folder / f"{name}.h5"
        config = cli.small_run(self.folder, target__model=str(model), load__rates=[6.0],
                               load__dataset={"source": str(data), "turns": "multi"},
                               load__input_tokens=0, load__output_tokens=6,
                               load__think="100ms", load__step="3s", results=str(path), **keys)
        self.good("run", config, "--quiet")
        return cli.read_steps(path)[0]

    def test_turns_follow_replies_and_stay_on_their_rank(self):
        contents = {}
        for n_ranks in (1, 2):
            step = self.converse(f"ranks{n_ranks}", load__ranks=n_ranks)
            r, outcomes = step.requests, step.outcomes()
            self.assertEqual(len(r["id"]), step.attrs["n_scheduled"])
            at = {int(request): i for i, request in enumerate(r["id"])}
            for request, i in at.items():
                turn, event = request >> 40, request & (1 << 40) - 1
                self.assertEqual((r["turn"][i], r["conversation"][i]), (turn, event + 1))
                self.assertEqual(r["load_rank"][i], event % n_ranks)
                what = (r["n_in"][i], r["n_out_req"][i])
                self.assertEqual(contents.setdefault(request, what), what, f"request {request}")
                if turn > 0:
                    before = at[request - (1 << 40)]
                    self.assertEqual(outcomes[int(r["id"][before])], "ok")
                    self.assertEqual(r["t_sched_ns"][i] - r["t_last_ns"][before], self.THINK_NS)
                    self.assertGreater(r["n_in"][i], r["n_in"][before], "the history is there")
            if n_ranks == 1:
                first = step
            self.assertEqual(step.attrs["schedule_hash"], first.attrs["schedule_hash"])
        self.assertTrue(any(request >> 40 for request in contents), "some conversation went on")


class Cap(cli.TestCase):
    def test_what_waits_at_the_cap_is_shown_and_no_lag(self):
        """A reply takes 20 ms: 100 requests/s through one place cannot be."""
        with Server("serve.ttft=20ms") as server:
            config = cli.small_run(self.folder, load__rates=[100.0], load__output_tokens=1,
                                   target__max_concurrency=1, load__drain="1s", target__kind="openai",
                                   target__url=f"http://127.0.0.1:{server.port}/v1", target__model="any",
                                   target__check=False, target__pipeline=1)
            result = self.good("run", config)
        step = cli.read_steps(self.folder / "run.h5")[0]
        r, outcomes = step.requests, step.outcomes()
        sent = [i for i in range(len(r["id"])) if r["t_send_ns"][i] > 0]
        for before, after in zip(sent, sent[1:]):
            if outcomes[before] == "ok":
                self.assertGreaterEqual(r["t_send_ns"][after], r["t_last_ns"][before],
                                        "one at a time")
        waited = r["cap_wait_us"].astype("int64") * 1000
        for i in sent:
            self.assertLessEqual(waited[i], r["t_send_ns"][i] - r["t_sched_ns"][i])
        self.assertGreater((waited > 0).mean(), 0.9)
        self.assertGreater((waited[-10:] / MS).min(), 200, "the last ones queue for the longest")
        report = self.good("report", self.folder / "run.h5", "--format", "json").json()
        judged = report["steps"][0]
        self.assertNotEqual(judged["verdict"], "client_limited")
        self.assertEqual(judged["verdict"], "unstable", judged["reason"])
        self.assertGreater(judged["cap_wait_us"]["share"], 0.9)
        self.assertGreater(judged["cap_wait_us"]["p99"], judged["cap_wait_us"]["p50"])
        self.assertGreater(judged["ttft_ms"]["p50"], judged["cap_wait_us"]["p50"] * 1e-3 * 0.5)
        self.assertLess(judged["send_lag_us"]["p50"], judged["cap_wait_us"]["p50"])
        self.assertIn("waited at the cap", result.out)

    def test_a_cap_that_is_never_reached_changes_nothing(self):
        config = cli.small_run(self.folder, target__max_concurrency=1000)
        self.good("run", config, "--quiet")
        step = cli.read_steps(self.folder / "run.h5")[0]
        self.assertEqual(step.requests["cap_wait_us"].max(), 0)


class Stall(cli.TestCase):
    STALL_MS = 1000

    def test_a_stopped_client_neither_bursts_nor_hides_it(self):
        config = cli.small_run(self.folder, target__kind="null", load__rates=[2000.0],
                               load__step="4s", load__warmup="10%", load__arrival="constant")
        process = cli.start("run", config)
        journal = self.folder / "run.h5.journal"
        process.wait_until(lambda: cli.journal_bytes(journal, 0), "step 0")
        time.sleep(1.5)
        process.signal(signal.SIGSTOP)
        time.sleep(self.STALL_MS / 1000)
        process.signal(signal.SIGCONT)
        result = process.finish()
        self.assertEqual(result.code, 0, str(result))
        step = cli.read_steps(self.folder / "run.h5")[0]
        r = step.requests
        due, sent = r["t_sched_ns"], r["t_send_ns"]
        lag = sent - due
        self.assertEqual(len(due), step.attrs["n_scheduled"])
        self.assertEqual(set(step.outcomes().values()), {"ok"}, "everything that was due was sent")
        self.assertGreaterEqual(lag.min(), 0, "nothing was sent before it was due")
        self.assertEqual(((lag > MS) == (r["late"] == 1)).all(), True)
        self.assertEqual(step.attrs["n_late"], (r["late"] == 1).sum())
        worst = int(lag.argmax())
        self.assertGreater(lag[worst], (self.STALL_MS - 50) * MS)
        in_stall = (due >= due[worst]) & (due < sent[worst] - MS)
        self.assertGreater(in_stall.sum(), 2 * (self.STALL_MS - 50))
        self.assertTrue((r["late"][in_stall] == 1).all(), "what the stall held up is labelled")
        self.assertLess((sent[in_stall] - sent[worst]).max(), self.STALL_MS / 3 * MS,
                        "and was sent at once")
        response = r["t_first_ns"] - due
        self.assertTrue((response >= lag).all(), "lateness is in the response latency")
        report = self.good("report", self.folder / "run.h5", "--format", "json").json()
        judged = report["steps"][0]
        self.assertEqual(judged["verdict"], "client_limited")
        self.assertEqual(judged["requests"]["late"], int(step.attrs["n_late"]))
        self.assertGreater(judged["ttft_ms"]["p99"], 0.6 * self.STALL_MS)
        self.assertLess(judged["ttft_service_ms"]["p99"], 50)
        self.assertIn("sent late", result.out)


if __name__ == "__main__":
    cli.main()
