"""The sim backend under mpirun: scheduler, stages and transports are the real ones, only the arithmetic
is replaced by the time that it would take. A model of gemma-2-9b's shape, which has no weights here, over
four simulated L4: the split by cost beats the equal one as arithmetic says, its stages are even, the
bubble in the report is the one in the timeline, and the virtual clock says the same without the wait."""

import json

import numpy as np

import tidemark_cli as cli

MODEL = "preset:gemma-2-9b"
EQUAL, WEIGHTED = [10, 11, 11, 10], [11, 12, 12, 7]
USERS, STAGES = 32, 4
STEP_S = 12
LATE = 0.08  # of the rate on the virtual clock, at most
SCALE = 4  # four times as slow: what ranks lose on a busy machine weighs less
COMPUTE, SEND = (1, 2, 3), 4  # numbers of span operations


class Timeline:
    """Spans and requests of a file's only step, on a grid of 50 us over its window."""

    def __init__(self, path):
        import h5py  # noqa: PLC0415

        with h5py.File(path, "r") as f:
            group = f["steps/0000"]
            self.spans = {name: column[()] for name, column in group["workers"].items()}
            self.requests = {name: column[()] for name, column in group["requests"].items()}
            self.warm, self.end = int(group.attrs["t_warm_ns"]), int(group.attrs["t_end_ns"])
            self.drain = int(group.attrs["t_drain_ns"])
            ranks = f["meta/ranks"]
            self.rank_of = {int(s): int(r) for s, r in zip(ranks["stage"][()], ranks["rank"][()])}
            self.kernels = {k.decode().rstrip("\0") for k in ranks["kernels"][()]} - {""}
            self.target = json.loads(f["meta/target"][()])
        self.at = np.arange(self.warm, self.end, 50_000)

    def covered(self, begin, end):
        """Which points of the grid lie in any [begin, end)."""
        edges = np.zeros(len(self.at) + 1)
        np.add.at(edges, np.searchsorted(self.at, begin), 1)
        np.add.at(edges, np.searchsorted(self.at, end), -1)
        return np.cumsum(edges[:-1]) > 0

    def of(self, stage, ops):
        mine = (self.spans["rank"] == self.rank_of[stage]) & np.isin(self.spans["op"], ops)
        begin = self.spans["t_begin_ns"][mine]
        return begin, begin + self.spans["dur_ns"][mine]

    def bubble(self, stage):
        """Share of the window in which there was work, but this stage neither computed nor sent."""
        r = self.requests
        left = np.where(r["t_emit_last_ns"] > 0, r["t_emit_last_ns"], r["t_last_ns"])
        left = np.where(r["outcome"] == cli.OUTCOMES.index("cancelled"), self.drain, left)
        active = self.covered(r["t_recv_ns"], left)
        return float(np.mean(active & ~self.covered(*self.of(stage, (*COMPUTE, SEND)))))

    def step_ns(self, stage):
        """Mean time of a batch of 8 decoding requests."""
        mine = (self.spans["rank"] == self.rank_of[stage]) & (self.spans["op"] == 2)
        mine &= self.spans["n_rows"] == USERS // STAGES
        return float(self.spans["dur_ns"][mine].mean())


class TwoReplicas(cli.TestCase):
    """Two load ranks of one user each share two replicas. Told by the leaders where the other is, each
    takes the free replica; else each goes in turn, for it has nothing outstanding itself."""

    def imbalance(self, routing):
        """Mean |difference| of requests in the replicas / mean sum."""
        import h5py  # noqa: PLC0415

        path = self.folder / f"{routing}.h5"
        config = cli.small_run(
            self.folder, results=str(path), target__model="preset:llama-3.1-8b",
            target__backend="sim", target__sim={"hardware": "l4", "scale": 0.3},
            target__pipeline=1, target__replicas=2, target__routing=routing, load__ranks=2,
            load__arrival="closed", load__users=2, load__rates=None,
            load__output_tokens={"kind": "lognormal", "mean": 30, "sd": 20, "max": 120},
            load__step="8s", load__drain="2s")
        self.good("run", config, "--quiet", "--force")
        with h5py.File(path, "r") as f:
            step = f["steps/0000"]
            replica, sent, last = (step["requests"][key][()] for key in
                                   ("replica", "t_send_ns", "t_last_ns"))
            begin, end = int(step.attrs["t_warm_ns"]), int(step.attrs["t_end_ns"])
        at = np.arange(begin, end, 2_000_000)
        n = np.zeros((2, len(at)))
        for where, first, until in zip(replica, sent, np.where(last > 0, last, end)):
            n[where] += (at >= first) & (at < until)
        return float(np.mean(np.abs(n[0] - n[1])) / np.mean(n.sum(axis=0)))

    def test_whole_loads_are_better_balanced_than_own_ones(self):
        for _ in range(3):  # on a busy machine what is told comes late
            own, told = self.imbalance("own_tokens"), self.imbalance("least_tokens")
            print(f"imbalance of two replicas: {told:.3f}, {own:.3f} where nobody tells")
            if told < 0.5 * own:
                break
        self.assertLess(told, 0.5 * own)


class Simulated(cli.TestCase):
    def keys(self, **more):
        keys = dict(target__model=MODEL, target__backend="sim", target__pipeline=STAGES,
                    target__sim={"hardware": "l4", "scale": SCALE},
                    target__max_running=USERS,
                    load__arrival="closed", load__users=USERS, load__rates=None,
                    load__output_tokens=60, load__step=f"{STEP_S}s", load__drain="1s")
        return dict(keys, **more)

    def measure(self, name, split):
        """Run; (report's step, timeline)."""
        path = self.folder / f"{name}.h5"
        config = cli.small_run(self.folder, **self.keys(target__layer_split=split,
                                                        results=str(path)))
        self.good("run", config, "--quiet", "--force")
        report = self.good("report", path, "--format", "json").json()
        self.assertEqual(report["run"]["target"]["backend"], "sim")
        return report["steps"][0], Timeline(path)

    def measure_on_time(self, name, split, plan):
        """Again where the machine had no time for the ranks: they cannot be late and in step."""
        for _ in range(3):
            step, timeline = self.measure(name, split)
            if abs(step["tokens_per_s"]["output"]["value"] / plan - 1) < LATE:
                break
        return step, timeline

    def planned(self, split):
        config = cli.small_run(self.folder, **self.keys(target__layer_split=split))
        return self.good("model", "plan", config, "--format", "json").json()

    def check_bubbles(self, step, timeline):
        for row in step["stages"]:
            with self.subTest(stage=row["stage"]):
                want = timeline.bubble(row["stage"])
                self.assertLess(abs(row["bubble"] - want), 0.02, (row, want))

    def test_a_split_by_cost_beats_an_equal_one(self):
        rates, plans = [], []
        for name, split, want in (("equal", EQUAL, EQUAL), ("weighted", [], WEIGHTED)):
            plans.append(self.planned(split)["steps"][0]["output_tokens_per_s"])
            step, timeline = self.measure_on_time(name, split, plans[-1])
            self.assertEqual(timeline.target["layers"], want)
            self.assertEqual(timeline.target["accelerator"], "simulated: l4")
            self.assertEqual(timeline.kernels, {"sim"})
            self.check_bubbles(step, timeline)
            rates.append(step["tokens_per_s"]["output"]["value"])
            step_ns = [timeline.step_ns(s) for s in range(STAGES)]
            # Where the others wait for the slowest stage.
            idle = 1 - min(step_ns) / max(step_ns)
            print(f"{name}: {rates[-1]:.1f} tokens/s, on the virtual clock {plans[-1]:.1f}; stages "
                  f"{[round(t / 1e6, 2) for t in step_ns]} ms, least busy {idle:.1%} idle, bubbles "
                  f"{[round(row['bubble'], 3) for row in step['stages']]}")
        imbalance = max(step_ns) / (sum(step_ns) / STAGES)
        self.assertLessEqual(imbalance, 1.05)
        self.assertGreaterEqual(plans[1] / plans[0], 1.15)
        self.assertGreaterEqual(rates[1] / rates[0], 1.10)
        for rate, plan in zip(rates, plans):
            self.assertLess(abs(rate / plan - 1), LATE, (rate, plan))

    def test_other_costs_of_the_same_shape(self):
        """Costs from a file: as the roofline that wrote it, and a head made dear moves layers away."""
        costs = self.folder / "costs.json"
        self.good("model", "inspect", MODEL, "--hardware", "l4", "--save-costs", costs,
                  "--gpus", 4, "--pipeline", 4)
        plan = self.good("model", "plan", cli.small_run(self.folder, **self.keys()),
                         f"target.sim.costs={costs}", "--format", "json").json()
        self.assertEqual(plan["layers"], WEIGHTED)
        parts = json.loads(costs.read_text())
        parts["head"]["read_ns"] *= 2
        costs.write_text(json.dumps(parts))
        plan = self.good("model", "plan", cli.small_run(self.folder, **self.keys()),
                         f"target.sim.costs={costs}", "--format", "json").json()
        self.assertLess(plan["layers"][-1], WEIGHTED[-1] - 1)
        parts["hidden"] = 1
        costs.write_text(json.dumps(parts))
        self.refused(["run", cli.small_run(self.folder, **self.keys()),
                      f"target.sim.costs={costs}"], "target.sim.costs", costs, "hidden is not 3584")

    def test_bad_settings(self):
        config = cli.small_run(self.folder, **self.keys())
        for setting, *says in ((["target.sim.hardware=h1000"], "target.sim.hardware", "h100-sxm"),
                               (["target.sim.costs=/nowhere.json"], "target.sim.costs", "/nowhere"),
                               (["target.sim.read_share=0"], "target.sim.read_share"),
                               (["target.sim.scale=0"], "target.sim.scale"),
                               (["target.tensor=2"], "target.tensor", "target.sim.tensor")):
            with self.subTest(setting=setting):
                self.refused(["run", config, *setting], *says)


if __name__ == "__main__":
    cli.main()
