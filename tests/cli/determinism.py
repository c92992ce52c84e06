"""The offered load is a function of the seed alone: pipelines of 1, 2 and 4 stages under 1, 2 and 3
load ranks (TIDEMARK_FULL=1: every pair of them) are offered the same schedule, byte for byte; every
scheduled request is in the file exactly once, with an outcome; tokens received are the tokens asked for."""

import os
import struct

import tidemark_cli as cli

RATES = [4.0, 8.0]
LAYOUTS = [(1, 1), (4, 1), (2, 2), (1, 3), (4, 3)]
if os.environ.get("TIDEMARK_FULL") == "1":
    LAYOUTS = [(p, l) for l in (1, 2, 3) for p in (1, 2, 4)]


def schedule_bytes(step):
    return b"".join(struct.pack("<Qqqq", *row) for row in step.schedule())


class Schedule(cli.TestCase):
    def offer(self, name, **keys):
        """Run; the file's steps."""
        path = self.folder / f"{name}.h5"
        config = cli.small_run(self.folder, results=str(path), **keys)
        self.good("run", config, "--quiet")
        return cli.read_steps(path)

    def check_requests(self, step, load_ranks):
        """Each exactly once, with an outcome, owned by the right rank; replies whole."""
        r = step.requests
        n = len(r["id"])
        self.assertEqual(n, step.attrs["n_scheduled"])
        self.assertEqual(r["id"].tolist(), list(range(n)), "every id once, in order")
        self.assertEqual(r["load_rank"].tolist(), [i % load_ranks for i in range(n)])
        self.assertEqual(len(step.offsets), n + 1)
        outcomes = step.outcomes()
        self.assertLessEqual(set(outcomes.values()), {"ok", "cancelled", "rejected"})
        n_ok = 0
        for i in range(n):
            n_times = int(step.offsets[i + 1] - step.offsets[i])
            self.assertEqual(r["n_out"][i], n_times, f"request {i}: a time for every token")
            self.assertGreaterEqual(r["n_out_req"][i], r["n_out"][i])
            if outcomes[i] == "ok":
                n_ok += 1
                self.assertEqual(r["n_out"][i], r["n_out_req"][i], f"request {i}: tokens asked for")
                self.assertGreaterEqual(r["t_send_ns"][i], r["t_sched_ns"][i])
                self.assertGreaterEqual(r["t_last_ns"][i], r["t_first_ns"][i])
        return n_ok / n

    def check_layouts(self, layouts, rates, least_ok, **keys):
        first = None
        for pipeline, load_ranks in layouts:
            with self.subTest(pipeline=pipeline, load_ranks=load_ranks):
                steps = self.offer(f"p{pipeline}l{load_ranks}", target__pipeline=pipeline,
                                   load__ranks=load_ranks, load__rates=rates, **keys)
                self.assertEqual(len(steps), len(rates))
                shares = [self.check_requests(step, load_ranks) for step in steps]
                self.assertGreater(min(shares), least_ok, "the checks above need replies")
                offered = [(int(s.attrs["schedule_hash"]), schedule_bytes(s)) for s in steps]
                first = first or offered
                self.assertEqual(offered, first)
        self.assertNotEqual(first[0], first[-1] if len(first) > 1 else None)

    def test_stages(self):
        self.check_layouts(LAYOUTS, RATES, 0.5, load__step="2s", load__drain="4s",
                           load__input_tokens=0, load__output_tokens=0)  # as the published table says

    def test_real_model_and_conversations(self):
        model = cli.shared("models/stories260K")
        data = cli.shared("data/sharegpt/sharegpt_v3_first_turns_1000.json")
        self.check_layouts([(2, 1), (1, 3)], [8.0], 0.5, load__step="2s", load__input_tokens=0,
                           load__output_tokens=12, target__model=str(model),
                           load__dataset={"source": str(data), "filter": "first-turn"})

    def test_null_target(self):
        """One process, no stages: the same schedule as stages are offered."""
        keys = dict(load__step="1s", load__rates=[50.0])
        null = self.offer("null", target__kind="null", **keys)
        self.assertEqual(self.check_requests(null[0], 1), 1.0)
        spread = self.offer("null2", target__kind="null", load__ranks=2, **keys)
        stages = self.offer("stages", **keys)
        for other in (spread, stages):
            self.assertEqual(schedule_bytes(other[0]), schedule_bytes(null[0]))
            self.assertEqual(other[0].attrs["schedule_hash"], null[0].attrs["schedule_hash"])

    def test_seed_matters(self):
        keys = dict(load__step="500ms", load__rates=[50.0], target__kind="null")
        one = self.offer("one", load__seed=1, **keys)
        again = self.offer("again", load__seed=1, **keys)
        two = self.offer("two", load__seed=2, **keys)
        self.assertEqual(schedule_bytes(one[0]), schedule_bytes(again[0]))
        self.assertNotEqual(schedule_bytes(one[0]), schedule_bytes(two[0]))


if __name__ == "__main__":
    cli.main()
