"""configs/gpu-*.yaml: what their comments say to run is right, fits the GPUs that they name, and starts.

`run --dry-run` is that of the config itself but for what needs the GPUs: a small model on the CPU, with the ranks, the
split and the load that the config has."""

import json
import re

import tidemark_cli as cli

SMALL = ["target.backend=cpu", "target.model=preset:small-2l", "target.threads=1", "target.max_running=16",
         "target.max_batch_tokens=64", "load.input_tokens=4", "load.output_tokens=2"]
CONFIGS = sorted((cli.ROOT / "configs").glob("gpu-*.yaml"))


def commands(path):
    """Of the comments, as words."""
    lines = [line.lstrip("# ") for line in path.read_text().splitlines() if line.startswith("#   ")]
    return [line.split() for line in lines]


class GpuConfigs(cli.TestCase):
    def n_workers(self, path):
        return int(re.match(r"gpu-(\d+)", path.stem)[1])

    def n_ranks(self, args):
        return int(self.good("run", *args, "--np-only", cwd=cli.ROOT).out)

    def check_commands(self, path):
        """GPUs of the inspected kind hold each commented run; launchers start as many ranks as there are."""
        words = commands(path)
        inspected = [w for w in words if w[:3] == ["tidemark", "model", "inspect"]]
        self.assertEqual(len(inspected), 1, path)
        hardware = inspected[0][-1]
        runs = [w[w.index("run") + 1:] for w in words if "run" in w]
        self.assertIn(f"configs/{path.name}", [w[0] for w in runs])
        for run in runs:
            fit = self.good("model", "inspect", *[w for w in run if not w.startswith("results=")], "--hardware", hardware,
                            "--format", "json", cwd=cli.ROOT).json()
            self.assertTrue(fit["fits"], run)
            n = fit["replicas"] * fit["pipeline"] * fit["tensor"]
            shares = 2 if "target.memory_fraction=45%" in run else 1  # a GPU
            self.assertEqual(n, self.n_workers(path) * shares, run)
            self.assertEqual(self.n_ranks(run), 1 + n)
        for w in words:
            for flag in ("-np", "--ntasks"):
                if flag in " ".join(w):
                    self.assertRegex(" ".join(w), rf"{flag}[ =]{1 + self.n_workers(path)} ")

    def check_weights(self, path):
        """Ranks hold the model between them: not less, and little of it twice."""
        fit = self.good("model", "inspect", path, "--gpu-memory", "200GB", "--format", "json", cwd=cli.ROOT).json()
        whole = self.good("model", "inspect", fit["model"], "--hardware", "h200", "--format", "json").json()["model"]
        held = fit["tensor"] * sum(s["weight_bytes"] for s in fit["stages"])
        self.assertEqual(sum(s["layers"] for s in fit["stages"]), sum(k["layers"] for k in whole["layer_kinds"]))
        self.assertTrue(1 <= held / whole["bytes"] < 1.07, (path, held, whole["bytes"]))

    def check_dry_run(self, path):
        out = self.good("run", path, "--dry-run", *SMALL, cwd=cli.ROOT).out
        self.assertIn("one request: ok", out)

    def test_what_does_not_fit(self):
        config = cli.ROOT / "configs" / "gpu-1.yaml"
        self.refused(["model", "inspect", config, "target.model=preset:llama-3.1-405b", "--hardware", "h100-sxm"],
                     "gpu-1.yaml: stage 0 does not fit", "90%, is 72.0 GB")
        self.refused(["model", "inspect", config, "--hardware", "l4"], "one context takes 131072")
        self.refused(["model", "inspect", config], "--hardware NAME or --gpu-memory BYTES")
        self.refused(["model", "inspect", config, "--hardware", "l4", "--tensor", "2"], "--tensor", "target.tensor=T")
        self.refused(["model", "inspect", config, "target.backend=cpu", "--hardware", "l4"], "no GPUs of its own")
        out = cli.run("model", "inspect", config, "--hardware", "l4", "--format", "json").out
        self.assertFalse(json.loads(out)["fits"])


def add_checks():
    for path in CONFIGS:
        name = re.sub(r"\W", "_", path.stem)
        for what in ("commands", "weights", "dry_run"):
            setattr(GpuConfigs, f"test_{what}_of_{name}",
                    lambda self, what=what, path=path: getattr(self, f"check_{what}")(path))


if __name__ == "__main__":
    add_checks()
    cli.main(cli.SideBySide())
