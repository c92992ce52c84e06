"""Wrong input costs one clear line on stderr and exit 2: what is wrong, where, and what is allowed.
Each case is tried as the user starts it (checks before the launch, or the self-launched ranks), and
under mpirun by hand, where all ranks must part in peace and rank 0 alone speaks."""

import json
import os
import pathlib
import re
import stat

import gguf_model
import tidemark_cli as cli


class Settings(cli.TestCase):
    """Of `run`: the config file and the command line."""

    def bad(self, *assignments, wants, np=3):
        config = cli.small_run(self.folder)
        self.one_clear_line_both_ways(["run", config, *assignments], *wants, np=np)

    def test_unknown_key_names_the_nearest(self):
        self.bad("load.ratse=1,2", wants=["load.ratse", "unknown key", "load.rates"])

    def test_unknown_key_in_the_file(self):
        config = cli.write_config(self.folder / "c.yaml", target__model="preset:tiny",
                                  target__pipelin=2)
        self.one_clear_line_both_ways(["run", config], config, "target.pipelin", "target.pipeline",
                                      np=2)

    def test_unknown_section(self):
        self.bad("lod.seed=1", wants=["lod", "unknown key", "load"])

    def test_wrong_unit(self):
        self.bad("load.step=12parsecs", wants=["load.step", "12parsecs", ("ms", "seconds", "unit")])

    def test_wrong_type(self):
        self.bad("target.pipeline=two", wants=["target.pipeline", "two", "whole number"])

    def test_not_one_of_the_choices(self):
        self.bad("load.arrival=poison", wants=["load.arrival", "poison", "poisson"])

    def test_spread_without_gamma(self):
        self.bad("load.arrival.cv=2", wants=["load.arrival.cv", "load.arrival.kind=gamma"])

    def test_ramp_of_nothing(self):
        self.bad("load.ramp={kind: geometric, from: 0, to: 1}", wants=["load.ramp", "above 0"])

    def test_ramp_without_a_rate(self):
        self.bad("load.arrival=closed", "load.users=2", "load.ramp=linear",
                 wants=["load.ramp", "load.arrival=closed"])

    def test_cap_below_the_load_ranks(self):
        self.bad("target.max_concurrency=1", "load.ranks=2",
                 wants=["target.max_concurrency", "2 load ranks"], np=4)

    def test_negative_rate(self):
        self.bad("load.rates=-1,2", wants=["load.rates", "-1"])

    def test_falling_rates(self):
        self.bad("load.rates=2,1", wants=["load.rates", "above"])

    def test_more_requests_than_a_step_can_hold(self):
        self.bad("load.rates=1e8", "load.step=1h", wants=["load.rates", "load.step", "at most"])
        self.assertFalse((self.folder / "run.h5").exists(), "a run that never began left a file")

    def test_more_stages_than_layers(self):
        self.bad("target.pipeline=9", wants=["target.pipeline", "9", "layers"], np=10)

    def test_layer_split_that_does_not_add_up(self):
        self.bad("target.layer_split=1,1", wants=["target.layer_split", "layers"])

    def test_unknown_preset(self):
        self.bad("target.model=preset:gigantic", wants=["gigantic", "tiny"])

    def test_file_that_is_not_yaml(self):
        bad = self.folder / "bad.yaml"
        bad.write_text("load: {rates: [1, 2\nname: x\n")
        self.one_clear_line_both_ways(["run", bad], f"{bad}:", np=2)

    def test_missing_config_file(self):
        self.one_clear_line_both_ways(["run", "nowhere/c.yaml"], "nowhere/c.yaml", np=2)

    def test_no_config_file(self):
        self.refused(["run"], "config file")

    def test_resume_with_force(self):
        config = cli.small_run(self.folder)
        self.one_clear_line_both_ways(["run", config, "--resume", "--force"], "--resume",
                                      "--force", np=3)

    def test_unknown_instance_price(self):
        self.bad("cost.instance=a3-imaginary-8g", wants=["a3-imaginary-8g", "cost.instance"])

    def test_missing_price_table(self):
        self.bad("cost.prices=nowhere.csv", wants=["nowhere.csv"])


class World(cli.TestCase):
    def test_world_that_does_not_fit_the_layout(self):
        """1 load rank + 1 replica x 2 stages = 3; the sum is shown."""
        config = cli.small_run(self.folder)
        for np in (2, 4):
            with self.subTest(np=np):
                result = cli.run("run", config, np=np)
                line = self.one_clear_line(result, f"{np} ranks", "1 load", "2 pipeline")
                self.assertIn("3", line)

    def test_np_only_says_how_many(self):
        config = cli.small_run(self.folder)
        result = self.good("run", config, "load.ranks=2", "target.replicas=3", "--np-only")
        self.assertEqual(result.out, "8\n")
        result = self.good("run", config, "--np-only", np=3)
        self.assertEqual(result.out, "3\n", "by hand: said once, and no run begun")


class Commands(cli.TestCase):
    def test_unknown_command_names_the_nearest(self):
        self.one_clear_line_both_ways(["genrate"], "genrate", "unknown command", "generate", np=3)

    def test_unknown_option_names_the_nearest(self):
        self.one_clear_line_both_ways(["run", "c.yaml", "--resum"], "--resum", "--resume", np=3)

    def test_option_without_its_value(self):
        self.refused(["generate", "--model"], "--model", "needs a value")

    def test_option_with_a_value_too_many(self):
        self.refused(["run", "c.yaml", "--force=yes"], "--force", "no value")

    def test_what_needs_no_ranks_is_done_once(self):
        """Under mpirun or srun rank 0 alone reads, writes and speaks."""
        self.refused(["validate", "nowhere.h5"], "nowhere.h5", np=3)
        self.refused(["dataset"], "dataset stats", np=3)
        result = self.good("dataset", "stats", "sharegpt", np=3)
        self.assertEqual(result.out.count("input"), 1)
        self.assertEqual(self.good("run", "--help", np=3).out.count("usage:"), 1)

    def test_no_command_prints_the_help(self):
        result = cli.run()
        self.assertEqual(result.code, 2)
        self.assertIn("usage: tidemark", result.err)

    def test_wrong_formats(self):
        self.refused(["report", "x.h5", "--format", "pdf"], "--format", "pdf", "html")
        self.refused(["generate", "-m", "x", "-p", "y", "--format", "xml"], "xml", "json")

    def test_no_result_file(self):
        for command in ("report", "validate", "recover"):
            with self.subTest(command):
                self.refused([command], command, "result file")
                self.refused([command, "nowhere.h5"], "nowhere.h5")

    def test_not_a_result_file(self):
        text = self.folder / "notes.h5"
        text.write_text("not HDF5\n")
        for command in ("report", "validate", "recover"):
            with self.subTest(command):
                self.refused([command, text], text)

    def test_help_and_version(self):
        self.assertIn("run", self.good("--help").out)
        self.assertIn("HDF5", self.good("--version").out)
        for command in ("run", "report", "validate", "recover", "generate", "dataset"):
            with self.subTest(command):
                result = self.good(command, "--help")
                self.assertRegex(result.out, f"(?m)^usage:\n  tidemark {command} ")
                self.assertRegex(result.out, r"(?m)^options:\n(  .*\n)*  -h, --help ")
                self.assertRegex(result.out, r"(?m)^exit codes:\n  0  done$")
                self.assertRegex(result.out, f"(?m)^example:\n  tidemark {command} ")
                self.assertEqual(result.err, "")
                self.assertEqual(result.out, self.good(command, "-h").out)

    def test_help_shows_what_the_tables_hold(self):
        generate = self.good("generate", "--help").out
        self.assertRegex(generate, r"(?m)^  -n, --max-tokens N +\S.* \(default 64\)$")
        self.assertRegex(generate, r"(?m)^      --ignore-eos +\S")
        keys = {"run": "name target.model load.rates.list load.dataset.filter slo.ttft cost.prices",
                "report": "slo.ttft cost.prices",
                "dataset": "load.dataset.filter load.output_tokens"}
        for command, has in keys.items():
            said = self.good(command, "--help").out
            for key in keys["run"].split():
                with self.subTest(f"{command}: {key}"):
                    found = re.search(f"(?m)^  {re.escape(key)} ", said) is not None
                    self.assertEqual(found, key in has.split())


class Models(cli.TestCase):
    """Damaged copies of a real model: `generate` and `run` refuse them alike."""

    def setUp(self):
        super().setUp()
        self.model = cli.copy_model(self.folder)
        self.weights = self.model / "model.safetensors"

    def bad(self, *wanted, by_ranks=not cli.SANITIZED):
        """By several ranks, which take seconds to start, and in a sanitizer build mostly by one."""
        with self.subTest("generate"):
            self.refused(["generate", "--model", self.model, "--prompt", "Once", "--max-tokens", 2,
                          "--pipeline", 2 if by_ranks else 1], *wanted)
        if by_ranks:
            config = cli.small_run(self.folder, target__model=str(self.model))
            with self.subTest("run, by hand"):
                self.refused(["run", config], *wanted, np=3)
        self.assertFalse((self.folder / "run.h5").exists(), "a run that never began left a file")

    def edit_json(self, name, **changes):
        path = self.model / name
        content = json.loads(path.read_text())
        content.update(changes)
        path.write_text(json.dumps(content))

    def edit_weights(self, change):
        header, data = cli.read_safetensors(self.weights)
        cli.write_safetensors(self.weights, change(header) or header, data)

    def test_copy_is_good(self):
        result = self.good("generate", "--model", self.model, "--prompt", "Once", "--max-tokens", 2)
        self.assertTrue(result.out.startswith("Once"))

    def test_missing_folder(self):
        self.model = self.folder / "nowhere"
        self.bad(self.model)

    def test_missing_config(self):
        (self.model / "config.json").unlink()
        self.bad(self.model, "config.json")

    def test_missing_weights(self):
        self.weights.unlink()
        self.bad(self.model, "safetensors")

    def test_config_that_is_not_json(self):
        (self.model / "config.json").write_text("{model_type: llama}")
        self.bad("config.json", "JSON")

    def test_unknown_family(self):
        self.edit_json("config.json", model_type="mamba", architectures=["MambaForCausalLM"])
        self.bad("config.json", "mamba", "llama")

    def test_truncated_weights(self):
        size = self.weights.stat().st_size
        os.truncate(self.weights, size - 1000)
        self.bad("model.safetensors", (size - 1000, "truncated", "cut", "ends", "bytes"))

    def test_weights_cut_inside_the_header(self):
        os.truncate(self.weights, 100)
        self.bad("model.safetensors")

    def test_empty_weights(self):
        os.truncate(self.weights, 0)
        self.bad("model.safetensors")

    def test_header_that_is_not_json(self):
        data = bytearray(self.weights.read_bytes())
        data[8:12] = b"oops"
        self.weights.write_bytes(data)
        self.bad("model.safetensors")

    def test_wrong_shape(self):
        def change(header):
            header["model.layers.2.self_attn.q_proj.weight"]["shape"] = [32, 128]

        self.edit_weights(change)
        self.bad(self.model, "model.layers.2.self_attn.q_proj.weight", "(32, 128)", "(64, 64)")

    def test_wrong_dtype(self):
        def change(header):
            tensor = header["model.layers.3.mlp.up_proj.weight"]
            tensor["dtype"] = "I32"

        self.edit_weights(change)
        self.bad(self.model, "model.layers.3.mlp.up_proj.weight", "I32", "F32")

    def test_missing_tensor(self):
        def change(header):
            header["other"] = header.pop("model.layers.4.mlp.down_proj.weight")

        self.edit_weights(change)
        self.bad("model.layers.4.mlp.down_proj.weight", by_ranks=True)

    def test_offsets_outside_the_file(self):
        def change(header):
            tensor = header["model.norm.weight"]
            tensor["data_offsets"] = [1 << 40, (1 << 40) + 256]

        self.edit_weights(change)
        self.bad("model.safetensors", "model.norm.weight")

    def test_tokenizer_that_does_not_match_the_vocabulary(self):
        path = self.model / "tokenizer.json"
        tokenizer = json.loads(path.read_text())
        vocab = tokenizer["model"]["vocab"]
        vocab[max(vocab, key=vocab.get)] = 60000
        path.write_text(json.dumps(tokenizer))
        self.bad("tokenizer.json", "60000", "config.json", "511")

    def test_tokenizer_of_another_kind(self):
        path = self.model / "tokenizer.json"
        tokenizer = json.loads(path.read_text())
        tokenizer["model"]["type"] = "Unigram"
        path.write_text(json.dumps(tokenizer))
        self.bad("tokenizer.json", "Unigram", "BPE")

    def test_weight_that_is_not_a_number(self):
        """Nothing of the files' form is wrong: it is the arithmetic that finds it, and ends the run."""
        header, data = cli.read_safetensors(self.weights)
        begin = header["model.layers.4.mlp.down_proj.weight"]["data_offsets"][0]
        for number in (0x7FC00000, 0x7F800000):
            bad = data[:begin] + number.to_bytes(4, "little") + data[begin + 4:]
            cli.write_safetensors(self.weights, header, bad)
            config = cli.small_run(self.folder, target__model=str(self.model))
            for args in (["generate", "--model", self.model, "--prompt", "Once", "--max-tokens", 2],
                         ["generate", "--model", self.model, "--prompt", "Once", "--max-tokens", 2,
                          "--temperature", 1, "--tensor", 2],
                         ["run", "--force", config]):
                with self.subTest(args=args, number=hex(number)):
                    self.one_clear_line(cli.run(*args), "rank", "logits", "not finite", code=1)

    def test_narrow_formats_keep_what_is_not_a_number(self):
        """Bytes have no NaN: their factor has it."""
        header, data = cli.read_safetensors(self.weights)
        for tensor, setting in (("model.norm.weight", "target.weights=int8"), ("model.norm.weight", "target.weights=int4"),
                                ("model.layers.0.self_attn.k_proj.weight", "target.kv_cache=int8"),
                                ("model.layers.0.self_attn.v_proj.weight", "target.kv_cache=fp8")):
            begin = header[tensor]["data_offsets"][0]
            bad = data[:begin] + (0x7FC00000).to_bytes(4, "little") + data[begin + 4:]
            cli.write_safetensors(self.weights, header, bad)
            config = cli.small_run(self.folder, target__model=str(self.model))
            with self.subTest(tensor, setting=setting):
                self.one_clear_line(cli.run("run", "--force", config, setting), "rank", "logits", "not finite", code=1)

    def test_missing_tokenizer(self):
        (self.model / "tokenizer.json").unlink()
        self.one_clear_line_both_ways(
            ["generate", "--model", self.model, "--prompt", "Once", "--max-tokens", 2],
            "tokenizer.json", np=2)


class Prompts(cli.TestCase):
    def setUp(self):
        super().setUp()
        self.model = cli.shared("models/stories260K")

    def test_prompt_longer_than_the_context(self):
        self.one_clear_line_both_ways(
            ["generate", "--model", self.model, "--prompt", "once upon a time " * 200,
             "--max-tokens", 1], "--prompt", "context", "512", np=2)

    def test_reply_longer_than_the_context(self):
        self.one_clear_line_both_ways(
            ["generate", "--model", self.model, "--prompt", "once", "--max-tokens", 512],
            "--max-tokens", "512", np=2)

    def test_not_a_count(self):
        for count in ("0", "-3", "many", "7x"):
            result = cli.run("generate", "-m", self.model, "-p", "once", "-n", count)
            self.one_clear_line(result, "--max-tokens", count)

    def test_preset_has_no_tokenizer(self):
        result = cli.run("generate", "-m", "preset:tiny", "-p", "once", "-n", 2)
        self.one_clear_line(result, "preset:tiny", "tokenizer")

    def test_gguf_tokenizer(self):
        model = gguf_model.write(self.model, self.folder / "plain.gguf", has_tokenizer=False)
        result = cli.run("generate", "-m", model, "-p", "once", "-n", 2)
        self.one_clear_line(result, "plain.gguf has no tokenizer")
        model = gguf_model.write(self.model, self.folder / "other.gguf")
        model.write_bytes(model.read_bytes().replace(gguf_model.text("llama") + gguf_model.text(
            "tokenizer.ggml.tokens"), gguf_model.text("plamo") + gguf_model.text("tokenizer.ggml.tokens")))
        self.one_clear_line_both_ways(["generate", "-m", model, "-p", "once", "-n", 2],
                                      "other.gguf: metadata tokenizer.ggml.model is plamo; llama", np=2)


class Data(cli.TestCase):
    """Data sets, read by the load ranks once the world runs."""

    def bad(self, source, *wanted, model="preset:tiny", **more):
        keys = {"load__dataset": {"source": str(source), **more}, "load__input_tokens": 0,
                "load__output_tokens": 0, "target__model": str(model)}
        config = cli.small_run(self.folder, **keys)
        self.one_clear_line_both_ways(["run", config], *wanted, np=3)

    def text(self, name, content):
        path = self.folder / name
        path.write_text(content)
        return path

    def conversations(self, content):
        model = cli.shared("models/stories260K")
        path = self.text("sharegpt.json", content)
        return path, model

    def test_missing_file(self):
        self.bad(self.folder / "nowhere.json", "nowhere.json",
                 model=cli.shared("models/stories260K"))

    def test_source_of_no_known_kind(self):
        self.bad("sharegtp", "sharegtp", "sharegpt")

    def test_sharegpt_that_is_not_json(self):
        path, model = self.conversations('[{"id": "a", "conversations": [}]\n')
        self.bad(path, path, "JSON", model=model)

    def test_sharegpt_that_is_something_else(self):
        path, model = self.conversations('{"conversations": 3}\n')
        self.bad(path, path, model=model)

    def test_sharegpt_that_keeps_no_conversation(self):
        turns = [{"from": "human", "value": "Hi"}, {"from": "gpt", "value": "Yo"}]
        path, model = self.conversations(json.dumps([{"id": "a", "conversations": turns}]))
        self.bad(path, path, ("no conversation", "keeps no", "nothing left", "none"),
                 model=model, filter="vllm")

    def test_sharegpt_needs_a_tokenizer(self):
        path, _ = self.conversations("[]\n")
        self.bad(path, "tokenizer")

    def test_trace_with_a_bad_line(self):
        path = self.text("trace.csv", "TIMESTAMP,ContextTokens,GeneratedTokens\n"
                         "2023-11-16 18:15:46.6805900,374,44\n"
                         "2023-11-16 18:15:50.9951690,many,109\n")
        self.bad(path, f"{path}:3", "ContextTokens")

    def test_trace_that_goes_back_in_time(self):
        path = self.text("trace.csv", "TIMESTAMP,ContextTokens,GeneratedTokens\n"
                         "2023-11-16 18:15:50.9951690,374,44\n"
                         "2023-11-16 18:15:46.6805900,10,109\n")
        self.bad(path, f"{path}:3")

    def test_trace_with_a_foreign_header(self):
        path = self.text("trace.csv", "when,prompt,answer\n1,2,3\n")
        self.bad(path, path, "TIMESTAMP")

    def test_trace_that_is_empty(self):
        path = self.text("trace.csv", "TIMESTAMP,ContextTokens,GeneratedTokens\n")
        self.bad(path, path)

    def test_window_without_arrivals(self):
        trace = cli.shared("data/traces/AzureLLMInferenceTrace_conv.csv")
        self.bad(trace, trace.name, "window", window=["900000s", "900001s"])

    def test_trace_arrivals_need_a_trace(self):
        config = cli.small_run(self.folder, load__arrival="trace", load__rates={})
        self.one_clear_line_both_ways(["run", config], "load.arrival", np=3)

    def test_trace_arrivals_need_a_length(self):
        path = self.text("trace.csv", "TIMESTAMP,ContextTokens,GeneratedTokens\n"
                         "2023-11-16 18:15:46.6805900,374,44\n")
        config = cli.small_run(self.folder, load__arrival="trace", load__rates={}, load__dataset=str(path),
                               load__input_tokens=None, load__output_tokens=None)
        self.one_clear_line_both_ways(["run", config], "load.arrival", "at one time", np=3)

    def test_dataset_stats(self):
        """The same lines from `dataset stats`, which needs no ranks."""
        path = self.text("trace.csv", "TIMESTAMP,ContextTokens,GeneratedTokens\n"
                         "2023-11-16 18:15:46.6805900,374\n")
        self.refused(["dataset", "stats", path], f"{path}:2")
        self.refused(["dataset", "stats", self.folder / "no.csv"], "no.csv")


class Files(cli.TestCase):
    """Where results go to, and result files that are not what they should be."""

    def result_file(self):
        config = cli.small_run(self.folder, load__step="300ms", load__ranks=1)
        self.good("run", config, "--quiet")
        return config, self.folder / "run.h5"

    def test_existing_is_not_overwritten(self):
        (self.folder / "run.h5").write_text("precious")
        config = cli.small_run(self.folder)
        self.one_clear_line_both_ways(["run", config], self.folder / "run.h5", "--force", np=3)
        self.assertEqual((self.folder / "run.h5").read_text(), "precious")

    def test_folder_that_does_not_exist(self):
        config = cli.small_run(self.folder, results=str(self.folder / "nowhere" / "run.h5"))
        self.one_clear_line_both_ways(["run", config], self.folder / "nowhere", np=3)

    def test_folder_instead_of_a_file(self):
        config = cli.small_run(self.folder, results=str(self.folder))
        self.one_clear_line_both_ways(["run", config], self.folder, np=3)

    def test_folder_that_cannot_be_written(self):
        if os.geteuid() == 0:
            # root may write everywhere but where nobody can
            folder = pathlib.Path("/proc")
        else:
            folder = self.folder / "locked"
            folder.mkdir()
            folder.chmod(stat.S_IRUSR | stat.S_IXUSR)
        config = cli.small_run(self.folder, results=str(folder / "run.h5"))
        self.one_clear_line_both_ways(["run", config], folder / "run.h5", np=3)

    def test_file_from_a_newer_schema(self):
        import h5py
        import numpy

        config, path = self.result_file()
        with h5py.File(path, "r+") as f:
            have = f.attrs["schema_version"]
            dtype = f.attrs.get_id("schema_version").dtype
            f.attrs.create("schema_version", numpy.array(b"2.0.0", dtype=dtype), dtype=dtype)
        have = have.decode() if isinstance(have, bytes) else str(have)
        for command in ("report", "validate", "recover"):
            with self.subTest(command):
                self.refused([command, path], path, "2.0.0", have.split(".")[0])
        self.one_clear_line_both_ways(["run", config, "--resume"], path, "2.0.0", np=3)

    def test_resume_of_a_complete_file(self):
        config, path = self.result_file()
        before = path.read_bytes()
        self.one_clear_line_both_ways(["run", config, "--resume"], path, "complete", np=3)
        self.assertEqual(path.read_bytes(), before)

    def test_resume_of_nothing(self):
        config = cli.small_run(self.folder)
        self.one_clear_line_both_ways(["run", config, "--resume"], self.folder / "run.h5", np=3)

    def test_report_to_a_place_that_does_not_exist(self):
        _, path = self.result_file()
        to = self.folder / "nowhere" / "r.html"
        self.refused(["report", path, "--format", "html", "-o", to], to)

    def test_report_with_an_unknown_price(self):
        _, path = self.result_file()
        self.refused(["report", path, "cost.instance=imaginary"], "imaginary")


if __name__ == "__main__":
    cli.main(cli.SideBySide())
