"""`tidemark generate` with a real model gives exactly the ids of an independent implementation, at
every way to split its layers over pipeline stages."""

import json
import os

import gguf_model
import tidemark_cli as cli

SOAK = os.environ.get("TIDEMARK_SOAK") == "1"


class Golden(cli.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.model = cli.shared("models/stories260K")
        cls.cases = json.loads((cls.model / "golden.json").read_text())["cases"]

    def check(self, pipeline, cases, model=None):
        for case in cases:
            with self.subTest(pipeline=pipeline, prompt=case["prompt"]):
                run = cli.run_with_leak_check if case is cases[0] else cli.run  # leaks take long to look for
                result = run(
                    "generate", "--model", model or self.model, "--prompt", case["prompt"], "--max-tokens",
                    len(case["ids"]), "--pipeline", pipeline, "--format", "json")
                self.assertEqual(result.code, 0, str(result))
                got = result.json()
                self.assertEqual(got["prompt_ids"], case["prompt_ids"])
                self.assertEqual(got["ids"], case["ids"])
                self.assertIn(got["finish_reason"], ("length", "stop"))
                # a continuation begins with its first word's space, a whole text does not
                self.assertEqual((case["prompt"] + got["text"]).lstrip(" "), case["text"])
                self.assertEqual(result.err, "")

    def test_one_stage(self):
        self.check(1, self.cases)

    def test_two_stages(self):
        self.check(2, self.cases)

    def test_three_stages(self):
        self.check(3, self.cases if SOAK else self.cases[:2])

    def test_five_stages(self):
        self.check(5, self.cases if SOAK else self.cases[-2:])

    def test_gguf(self):
        """The same model in one file with its tokenizer."""
        model = gguf_model.write(self.model, self.folder / "stories.gguf")
        self.check(1, self.cases, model)
        self.check(2, self.cases[:1], model)

    def test_text(self):
        """For people: the prompt and its continuation."""
        case = self.cases[0]
        result = self.good("generate", "-m", self.model, "-p", case["prompt"], "-n",
                           len(case["ids"]))
        self.assertEqual(result.out, case["text"] + "\n")

    def test_one_token(self):
        case = self.cases[0]
        got = self.good("generate", "-m", self.model, "-p", case["prompt"], "-n", 1, "--format",
                        "json").json()
        self.assertEqual((got["ids"], got["finish_reason"]), (case["ids"][:1], "length"))

    def test_end_of_sequence(self):
        """Where a token of the continuation ends the sequence it stops, unless told not to."""
        case = self.cases[0]
        model = cli.copy_model(self.folder)
        end = next(i for i, id in enumerate(case["ids"]) if i >= 9 and id not in case["ids"][:i])
        config = json.loads((model / "config.json").read_text())
        config["eos_token_id"] = [2, case["ids"][end]]
        (model / "config.json").write_text(json.dumps(config))

        def generate(count, *more):
            got = self.good("generate", "-m", model, "-p", case["prompt"], "-n", count,
                            "--format", "json", *more).json()
            return got["ids"], got["finish_reason"]

        self.assertEqual(generate(end + 5), (case["ids"][: end + 1], "stop"))
        self.assertEqual(generate(end + 1), (case["ids"][: end + 1], "stop"))
        self.assertEqual(generate(end), (case["ids"][:end], "length"))
        self.assertEqual(generate(end + 1, "--ignore-eos"), (case["ids"][: end + 1], "length"))


if __name__ == "__main__":
    cli.main()
