"""tidemark against an OpenAI-compatible server that others wrote: llama.cpp's, on a random model.

The server comes from PyPI (tests/requirements-foreign.txt) into a folder beside the binary; without
the registry, or when that takes longer than INSTALL_S, the script is left out and says so.
"""

import pathlib
import re
import shutil
import signal
import subprocess

import tidemark_cli as cli

INSTALL_S = 120
WANTED = cli.ROOT / "tests" / "requirements-foreign.txt"
SERVER = cli.ROOT / "tests" / "support" / "llama_server.py"
VENV = pathlib.Path(cli.BINARY).parent / "venv-foreign"
N_IN, N_OUT, RATE = 12, 8, 20


def install():
    """The Python that has the server."""
    python, done = VENV / "bin" / "python", VENV / "installed.txt"
    if done.exists() and done.read_text() == WANTED.read_text():
        return python
    shutil.rmtree(VENV, ignore_errors=True)
    commands = (["/usr/bin/python3", "-m", "venv", VENV],
                [python, "-m", "pip", "install", "-q", "--retries", "1", "-r", WANTED])
    for command in commands:
        try:
            subprocess.run(command, timeout=INSTALL_S, check=True, capture_output=True, text=True)
        except subprocess.TimeoutExpired:
            cli.skip(f"a foreign server: {WANTED.name} took over {INSTALL_S} s to install")
        except subprocess.CalledProcessError as e:
            said = (e.stderr.strip() or e.stdout.strip() or "no reason given").splitlines()[-1]
            cli.skip(f"a foreign server: {WANTED.name} could not be installed: {said}")
    done.write_text(WANTED.read_text())
    return python


class Foreign(cli.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.python = install()

    def setUp(self):
        super().setUp()
        self.server = cli.Process([self.python, SERVER, self.folder])
        self.addCleanup(self.server.finish)
        self.addCleanup(self.server.end)
        self.url = self.server.wait_until(self._where, "`listening on`")

    def _where(self):
        found = re.match(r"listening on (\S+)\n", "".join(t for _, t in self.server.out_chunks))
        return found and found.group(1)

    def start(self, **keys):
        defaults = dict(name="foreign", target__kind="openai", target__url=f"{self.url}/v1",
                        target__model="random", target__tokenizer=str(self.folder),
                        load__arrival="constant", load__rates=[RATE], load__step="2s",
                        load__drain="20s", load__warmup=0, load__input_tokens=N_IN,
                        load__output_tokens=N_OUT)
        config = cli.write_config(self.folder / "config.yaml", **dict(defaults, **keys))
        return cli.start("run", config, "--quiet", "--force", "-o", self.folder / "run.h5")

    def load(self, **keys):
        """(the only step, the report) of a run to the end."""
        result = self.start(**keys).finish()
        self.assertEqual(result.code, 0, str(result))
        (step,) = cli.read_steps(self.folder / "run.h5")
        return step, self.good("report", self.folder / "run.h5", "--format", "json").json()

    def all_well(self, step, chunks):
        r = step.requests
        self.assertEqual(len(r["id"]), 2 * RATE)
        self.assertEqual(set(step.outcomes().values()), {"ok"})
        self.assertEqual(set(r["http_status"]), {200})
        self.assertEqual(set(r["n_chunks"]), {chunks})
        for column in ("n_out", "n_out_usage", "n_out_local"):  # local: the text in our tokenizer
            self.assertEqual(set(r[column]), {N_OUT}, column)
        order = ["t_sched_ns", "t_send_ns", "t_byte_ns", "t_first_ns", "t_last_ns"]
        for before, after in zip(order, order[1:]):
            self.assertTrue((r[before] <= r[after]).all(), f"{before} <= {after}")

    def test_chat_streamed(self):
        step, report = self.load()
        self.all_well(step, chunks=N_OUT)
        # its first event has a role only, and its last but one no text: neither is a token
        self.assertEqual(report["run"]["target"]["server"], "llama.cpp")
        self.assertEqual(report["run"]["target"]["model"], "random")

    def test_chat_whole(self):
        step, _ = self.load(target__stream=False)
        self.all_well(step, chunks=1)

    def test_completions_streamed(self):
        step, _ = self.load(target__api="completions")
        self.all_well(step, chunks=N_OUT)

    def test_completions_whole(self):
        step, _ = self.load(target__api="completions", target__stream=False)
        self.all_well(step, chunks=1)

    def test_prompts_as_ids_have_the_length_asked_for(self):
        step, _ = self.load(target__api="completions", target__prompt="ids")
        self.all_well(step, chunks=N_OUT)
        self.assertEqual(set(step.requests["n_in_usage"]), {N_IN})

    def test_without_usage_the_text_is_counted(self):
        step, _ = self.load(target__usage="none")
        self.assertEqual(set(step.outcomes().values()), {"ok"})
        self.assertEqual(set(step.requests["n_out"]), {N_OUT})

    def test_a_prompt_over_its_context_is_counted_as_refused(self):
        step, _ = self.load(target__context=4096, load__input_tokens=1000)
        self.assertEqual(set(step.outcomes().values()), {"http_status"})
        self.assertEqual(set(step.requests["http_status"]), {400})

    def test_a_model_that_it_does_not_have(self):
        result = self.start(target__model="another").finish()
        self.one_clear_line(result, "another", "random", code=result.code)
        self.assertIn(result.code, (1, 2))

    def test_killed_in_the_middle_of_a_run(self):
        run = self.start(load__step="4s", load__drain="2s")
        journal = self.folder / "run.h5.journal"
        run.wait_until(lambda: cli.journal_bytes(journal) > 4096, "records of finished requests")
        self.server.signal(signal.SIGKILL)
        result = run.finish()
        self.assertEqual(result.code, 0, str(result))
        (step,) = cli.read_steps(self.folder / "run.h5")
        outcomes = list(step.outcomes().values())
        self.assertEqual(len(outcomes), 4 * RATE)
        self.assertIn("ok", outcomes)
        self.assertIn("connect", outcomes)
        report = self.good("report", self.folder / "run.h5", "--format", "json").json()
        self.assertEqual(report["steps"][0]["verdict"], "errors")


if __name__ == "__main__":
    cli.main()
