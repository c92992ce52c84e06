"""The result file and the commands around it: other readers open it, reports come from it, a run
that was stopped goes on in it."""

import json
import os
import pathlib
import re
import shutil
import signal
import subprocess

import tidemark_cli as cli

RATES = [10.0, 20.0, 30.0]


def table_of(report):
    """What a run prints of its report: all before the definitions."""
    table, definitions, rest = report.partition("\nq, s, f, l, n ")
    assert definitions and "TTFT" in rest, report
    return table


class Kernels(cli.TestCase):
    """target.kernels: what this CPU has is used and recorded, the rest refused."""

    FLAGS = {"amx": "amx_bf16", "avx512_bf16": "avx512_bf16", "avx512": "avx512f", "avx2": "avx2",
             "portable": "fpu"}

    def test_each_set(self):
        import h5py

        flags = pathlib.Path("/proc/cpuinfo").read_text(encoding="ascii").split()
        config = cli.small_run(self.folder, load__rates=[20.0], load__step="500ms")
        for kernels in ("portable", "avx2", "amx"):
            run = ["run", config, f"target.kernels={kernels}", "--force", "--quiet"]
            if self.FLAGS[kernels] not in flags:
                self.one_clear_line(cli.run(*run), kernels, "this CPU", "portable")
                continue
            self.good(*run)
            with h5py.File(self.folder / "run.h5", "r") as f:
                self.assertEqual(set(f["meta/engine/kernels"][()]), {kernels.encode()})

    def test_what_no_cpu_has(self):
        config = cli.small_run(self.folder)
        self.one_clear_line(cli.run("run", config, "target.kernels=mmx"), "target.kernels", "mmx",
                            "avx512_bf16")
        self.one_clear_line(cli.run("run", config, "target.backend=sim", "target.kernels=avx2"),
                            "target.kernels", "avx2", "sim")


class Hops(cli.TestCase):
    """What goes from stage to stage is hidden states, once, in the model's own type, whatever the ranks of a stage."""

    def test_bytes(self):
        import h5py

        hidden, send = 128, 4
        for model, stages, ranks, each in (("preset:tiny-qwen2", 3, 1, 2), ("preset:tiny", 3, 1, 4),
                                           ("preset:tiny-qwen2", 2, 2, 2)):
            self.good("run", cli.small_run(self.folder, target__model=model, target__pipeline=stages,
                                           target__tensor=ranks, load__step="500ms"), "--force", "--quiet")
            with h5py.File(self.folder / "run.h5", "r") as f:
                spans = {k: v[()] for k, v in f["steps/0000/workers"].items()}
            for rank in range(1, 1 + (stages - 1) * ranks):  # the last stage sends ids
                mine = (spans["rank"] == rank) & (spans["op"] == send)
                self.assertGreater(mine.sum(), 0)
                self.assertEqual((spans["n_bytes"][mine] / spans["n_tokens"][mine]).tolist(),
                                 [hidden * each / ranks] * int(mine.sum()))


class OneRun(cli.TestCase):
    """What can be asked of one finished run, made once."""

    @classmethod
    def setUpClass(cls):
        cls.home = pathlib.Path(cli.tempfile.mkdtemp(prefix="tidemark-test-"))
        cls.addClassCleanup(shutil.rmtree, cls.home, ignore_errors=True)
        cls.file = cls.home / "run.h5"
        config = cli.small_run(cls.home, load__rates=RATES, load__step="1500ms")
        cls.result = cli.run_with_leak_check("run", config, "--force")
        assert cls.result.code == 0, str(cls.result)

    def test_table_on_stdout_and_silent_progress(self):
        """Piped: the table on stdout, one line per step on stderr, no progress line."""
        self.assertRegex(self.result.out, r"(?i)saturation")
        for line in self.result.err.splitlines():
            self.assertRegex(line, r"^\d\d:\d\d:\d\d\.\d{3} (rank 0 )?(run|launch): ")
        self.assertNotIn("\r", self.result.err)
        self.assertNotIn("\033", self.result.err)

    def test_h5py(self):
        steps = cli.read_steps(self.file)
        self.assertEqual([s.attrs["rate_rps"] for s in steps], RATES)
        self.assertEqual([int(s.attrs["index"]) for s in steps], [0, 1, 2])
        for step in steps:
            lengths = {len(column) for column in step.requests.values()}
            self.assertEqual(lengths, {int(step.attrs["n_scheduled"])})
        attrs = cli.root_attrs(self.file)
        self.assertEqual(int(attrs["complete"]), 1)
        self.assertFalse(pathlib.Path(f"{self.file}.journal").exists(), "a journal is left")

    def test_h5py_units_and_names(self):
        import h5py

        with h5py.File(self.file, "r") as f:
            for name, column in f["steps"][sorted(f["steps"])[0]]["requests"].items():
                self.assertIn("units", column.attrs, name)
                self.assertIn("long_name", column.attrs, name)

    def test_pandas(self):
        import h5py
        import pandas

        with h5py.File(self.file, "r") as f:
            name = sorted(n for n in f["steps"] if n.isdigit())[0]
            columns = f["steps"][name]["requests"]
            frame = pandas.DataFrame({key: columns[key][()] for key in columns})
        ok = frame[frame.outcome == 0]
        ttft_ms = (ok.t_first_ns - ok.t_sched_ns) / 1e6
        self.assertGreater(ttft_ms.median(), 0)
        self.assertLess(ttft_ms.median(), 5000)

    def test_h5dump(self):
        dump = subprocess.run(["h5dump", "-H", self.file], capture_output=True, text=True,
                              timeout=cli.DEADLINE_S)
        self.assertEqual((dump.returncode, dump.stderr), (0, ""))
        for name in ("requests", "tokens", "t_sched_ns", "analysis"):
            self.assertIn(f'"{name}"', dump.stdout)

    def test_validate(self):
        result = self.good("validate", self.file)
        self.assertIn("conforms", result.out)

    def test_validate_finds_damage(self):
        import h5py

        broken = self.folder / "broken.h5"
        shutil.copyfile(self.file, broken)
        with h5py.File(broken, "r+") as f:
            name = sorted(n for n in f["steps"] if n.isdigit())[0]
            del f["steps"][name]["requests"]["t_first_ns"]
        result = cli.run("validate", broken)
        self.assertEqual(result.code, 2, str(result))
        self.assertIn("t_first_ns", result.out)
        self.one_clear_line(result, "finding")

    def test_recover_of_a_whole_file_changes_no_step(self):
        copy = self.folder / "copy.h5"
        shutil.copyfile(self.file, copy)
        result = self.good("recover", copy)
        self.assertIn("no journal", result.out)
        self.assertEqual([s.schedule() for s in cli.read_steps(copy)],
                         [s.schedule() for s in cli.read_steps(self.file)])

    def test_report_json_follows_its_schema(self):
        import jsonschema

        report = self.good("report", self.file, "--format", "json").json()
        path = cli.ROOT / "docs" / "report.schema.json"
        schema = json.loads(path.read_text())
        jsonschema.Draft202012Validator.check_schema(schema)
        errors = list(jsonschema.Draft202012Validator(schema).iter_errors(report))
        self.assertEqual([f"{list(e.path)}: {e.message[:200]}" for e in errors], [])
        self.assertEqual([s["rate_rps"] for s in report["steps"]], RATES)
        self.assertEqual(report["run"]["complete"], True)
        self.assertEqual(report["run"]["name"], "small")

    def test_report_is_repeatable(self):
        for form in ("json", "html", "text"):
            one = self.good("report", self.file, "--format", form).out
            self.assertEqual(one, self.good("report", self.file, "--format", form).out)

    def test_report_takes_other_objectives(self):
        report = self.good("report", self.file, "--format", "json", "slo.ttft=7ms").json()
        self.assertIn("7", json.dumps(report["slo"]["objectives"]))

    def test_report_text_is_what_the_run_printed(self):
        self.assertEqual(table_of(self.good("report", self.file).out), self.result.out)

    def test_html_needs_no_network(self):
        page = self.folder / "r.html"
        self.good("report", self.file, "--format", "html", "-o", page)
        text = page.read_text()
        self.assertLess(len(text.encode()), 1_000_000)
        self.assertIn("<svg", text)
        addresses = set(re.findall(r"(?:https?:)?//[^\s\"'<>)]+", text))
        fetched = re.findall(r"(?:src|href|action|poster|data|srcset)\s*=\s*[\"']?(?!#|data:)"
                             r"([^\"'\s>]+)", text)
        self.assertEqual([a for a in fetched if "//" in a], [])
        self.assertEqual(re.findall(r"@import|url\((?!#|data:)[^)]*\)|<link|<iframe|<object|<embed",
                                    text), [])
        namespaces = {"http://www.w3.org/2000/svg", "http://www.w3.org/1999/xlink"}
        loud = {a for a in addresses if a not in namespaces and re.search(r"<script|fetch\(", text)}
        self.assertEqual(loud, set())

    def test_dry_run_leaves_nothing(self):
        config = cli.small_run(self.folder, target__tensor=2)
        before = sorted(os.listdir(self.folder))
        result = self.good("run", config, "--dry-run")
        self.assertIn("one request: ok", result.out)
        lines = result.out.splitlines()
        first = lines.index("placement: 5 rank(s) on 1 host(s); 0 of 1 hop(s) between hosts")
        for rank, (what, ways) in enumerate([
                (r"load rank", ""), (r"replica 0, stage 0, tensor 0", "; sums by memory; hidden states to rank 3 by mpi"),
                (r"replica 0, stage 0, tensor 1", "; sums by memory; hidden states to rank 4 by mpi"),
                (r"replica 0, stage 1, tensor 0", "; sums by memory; ids to rank 1 by mpi"),
                (r"replica 0, stage 1, tensor 1", "; sums by memory")]):
            self.assertRegex(lines[first + 1 + rank],
                             rf"^  rank {rank} \({what}\) on \S+, CPUs \S+( \(pinned\))?(, memory node \d+)?{ways}$")
        self.assertEqual(sorted(os.listdir(self.folder)), before)


class Origin(cli.TestCase):
    """What a run says of where it came from, in a folder with a price table of its own."""

    @classmethod
    def setUpClass(cls):
        cls.home = pathlib.Path(cli.tempfile.mkdtemp(prefix="tidemark-test-"))
        cls.addClassCleanup(shutil.rmtree, cls.home, ignore_errors=True)
        cls.file, cls.table = cls.home / "run.h5", cls.home / "prices.csv"
        shutil.copyfile(cli.ROOT / "configs" / "prices.csv", cls.table)
        cls.table_bytes = cls.table.read_bytes()
        config = cli.small_run(cls.home, load__step="500ms", cost__prices="prices.csv")
        result = cli.run("run", config, cwd=cls.home)
        assert result.code == 0, str(result)
        cls.printed = result.out
        cls.table.write_text(cls.table.read_text().replace(",0.10,", ",7.00,"))

    def provenance(self, path=None):
        import h5py

        with h5py.File(path or self.file, "r") as f:
            return json.loads(f["meta/provenance"].asstr()[()])

    def cost(self, *args, **options):
        return self.good("report", self.file, "--format", "json", *args, **options).json()["cost"]

    def test_price_is_kept_whole(self):
        price = self.provenance()["price"]
        header, row = [line.split(",") for line in self.table_bytes.decode().splitlines()[:2]]
        self.assertEqual(set(price), {*header, "table", "table_hash"})
        for column, value in zip(header, row):
            if column in ("accel_count", "usd_per_hour"):
                self.assertEqual(price[column], float(value))
            else:
                self.assertEqual(price[column], value)
        self.assertEqual(price["table"], "prices.csv")
        self.assertRegex(price["table_hash"], "^[0-9a-f]{16}$")

    def test_report_has_the_price_of_the_run(self):
        """From any folder, whatever the table says by now."""
        for folder in (self.home, self.folder):
            self.assertEqual(table_of(self.good("report", self.file, cwd=folder).out),
                             self.printed)
        self.assertEqual(self.cost(cwd=self.folder)["usd_per_hour"], 0.1)

    def test_report_with_another_ratio_keeps_the_price(self):
        cost = self.cost("cost.output_to_input_ratio=2", cwd=self.folder)
        self.assertEqual((cost["usd_per_hour"], cost["output_to_input_ratio"]), (0.1, 2))

    def test_report_asks_the_table_anew(self):
        self.assertEqual(self.cost(f"cost.prices={self.table}", cwd=self.folder)["usd_per_hour"], 7)
        self.assertEqual(self.cost("cost.instance=example-1gpu", cwd=self.home)["usd_per_hour"], 3)
        away = cli.run("report", self.file, "cost.instance=example-1gpu", cwd=self.folder)
        self.one_clear_line(away, "prices.csv", "cost.prices")

    def test_recover_needs_no_table(self):
        copy = self.folder / "copy.h5"
        shutil.copyfile(self.file, copy)
        self.good("recover", copy, cwd=self.folder)
        self.assertEqual(table_of(self.good("report", copy, cwd=self.folder).out), self.printed)

    def test_recover_without_any_price(self):
        import h5py

        copy = self.folder / "copy.h5"
        shutil.copyfile(self.file, copy)
        provenance = self.provenance()
        for damaged in (None, {}, dict(provenance["price"], usd_per_hour=-1)):
            provenance["price"] = damaged
            with h5py.File(copy, "r+") as f:
                kept = f["meta/provenance"]
                text, attrs = json.dumps(provenance), dict(kept.attrs)
                del f["meta/provenance"]
                f["meta"].create_dataset("provenance", data=text,
                                         dtype=h5py.string_dtype("utf-8", len(text.encode())))
                f["meta/provenance"].attrs.update(attrs)
            self.good("recover", copy, cwd=self.folder)
            report = self.good("report", copy, "--format", "json", cwd=self.folder).json()
            self.assertIsNone(report["cost"]["usd_per_hour"])
            self.assertRegex(" ".join(report["run"]["warnings"]), "no price of example-cpu")

    def test_kernels_of_each_worker(self):
        import h5py

        with h5py.File(self.file, "r") as f:
            for ranks in (f["meta/ranks"], f["meta/ranks_after"]):
                kernels = [name.decode() for name in ranks["kernels"][()]]
                self.assertEqual([bool(k) for k in kernels], [bool(r) for r in ranks["role"][()]])
                self.assertLessEqual(set(kernels), {"", "portable", "avx2", "avx512", "avx512_bf16",
                                                    "amx"})

    def test_engine_of_each_worker(self):
        import h5py

        with h5py.File(self.file, "r") as f:
            ranks, engine = f["meta/ranks"], {k: c[()] for k, c in f["meta/engine"].items()}
            workers = [rank for rank, role in zip(ranks["rank"][()], ranks["role"][()]) if role]
            self.assertEqual(engine["rank"].tolist(), workers)
            self.assertEqual(engine["kernels"].tolist(),
                             [k for k, role in zip(ranks["kernels"][()], ranks["role"][()]) if role])
        self.assertEqual(set(engine["weights"]), {b"f32"})
        self.assertEqual(set(engine["bytes_per_weight"]), {4.0})
        self.assertEqual(set(engine["kv_cache"]), {b"f32"})
        self.assertEqual(set(engine["moe_routing"]), {b"none"})
        said = self.good("report", self.file, "--format", "json").json()["run"]["engine"]
        self.assertEqual(said["weight_bytes"], engine["weight_bytes"].sum())
        self.assertEqual(said["bytes_per_weight"], 4.0)
        self.assertEqual([r["n_layers"] for r in said["ranks"]], engine["n_layers"].tolist())
        for report in (self.printed, self.good("report", self.file, "--format", "html").out):
            self.assertRegex(report, r"weights f32, 4 B each, .*; KV cache f32, .* a token")

    def test_edges_between_workers(self):
        """Two stages on one host: hidden states to the second, ids back from it."""
        import h5py

        with h5py.File(self.file, "r") as f:
            edges = {k: c[()].tolist() for k, c in f["meta/edges"].items()}
            first, last = [rank for rank, role in zip(f["meta/ranks/rank"][()], f["meta/ranks/role"][()]) if role]
        self.assertEqual((edges["from_rank"], edges["to_rank"], edges["kind"]), ([first, last], [last, first], [0, 2]))
        self.assertEqual((edges["transport"], edges["same_host"]), ([b"mpi"] * 2, [1, 1]))
        said = self.good("report", self.file, "--format", "json").json()["run"]["engine"]
        self.assertEqual((said["hops"], said["hops_between_hosts"]), (1, 0))
        self.assertEqual([e["kind"] for e in said["edges"]], ["hidden", "ids"])
        self.assertIn("; hidden states by mpi, 0 of 1 hop(s) between hosts\n", self.printed)

    def test_no_key_of_the_launcher(self):
        env = self.provenance()["env"]
        self.assertEqual(env["OMPI_MCA_pml"], "ob1")
        self.assertEqual([name for name in env if re.search("orte|ess|pmix", name, re.I)], [])

    def test_versions_of_the_libraries(self):
        libraries = self.provenance()["libraries"]
        said = self.good("--version").out
        for name, line in (("libyaml", "libyaml"), ("random123", "Random123")):
            self.assertRegex(said, f"(?m)^{line} +{re.escape(libraries[name])}$")

    def test_hashes_of_a_preset_are_null(self):
        self.assertEqual(self.provenance()["model"], {"name": "preset:tiny", "config_hash": None,
                                                      "weights_hash": None, "tokenizer_hash": None})

    def test_hashes_of_a_model(self):
        if not (cli.SHARED / "models" / "stories260K").exists():
            self.skipTest("needs models/stories260K in the shared data (TIDEMARK_SHARED)")
        model = cli.copy_model(self.folder)
        config = cli.small_run(self.folder, load__step="300ms", target__model=str(model))

        def hashes():
            self.good("run", config, "--quiet", "--force")
            said = self.provenance(self.folder / "run.h5")["model"]
            self.assertEqual(said.pop("name"), str(model))
            for value in said.values():
                self.assertRegex(value, "^[0-9a-f]{16}$")
            return said

        first = hashes()
        self.assertEqual(hashes(), first)
        with open(model / "config.json", "a") as f:
            f.write("\n")
        header, data = cli.read_safetensors(model / "model.safetensors")
        header.setdefault("__metadata__", {})["changed"] = "yes"
        cli.write_safetensors(model / "model.safetensors", header, data)
        with open(model / "tokenizer.json", "a") as f:
            f.write("\n")
        second = hashes()
        self.assertEqual({key for key in first if first[key] == second[key]}, set())


class Ways(cli.TestCase):
    def test_quiet_is_silent(self):
        config = cli.small_run(self.folder, load__step="500ms")
        result = self.good("run", config, "--quiet")
        self.assertEqual((result.out, result.err), ("", ""))

    def test_progress_on_a_terminal(self):
        config = cli.small_run(self.folder, load__step="2s")
        process = cli.start("run", config, terminal=True)
        result = process.finish()
        self.assertEqual(result.code, 0, str(result))
        drawn = re.findall(r"\033\[K([^\r\n]* in flight [^\r\n]*)", result.err)
        self.assertGreater(len(drawn), 3, result.err)
        self.assertLess(max(len(line) for line in drawn), 120, "wider than the terminal")

    def test_quiet_on_a_terminal(self):
        config = cli.small_run(self.folder, load__step="500ms")
        result = cli.start("run", config, "--quiet", terminal=True).finish()
        self.assertEqual((result.code, result.err), (0, ""), str(result))

    def test_force_replaces(self):
        config = cli.small_run(self.folder, load__step="300ms")
        self.good("run", config, "--quiet")
        first = cli.root_attrs(self.folder / "run.h5")["uuid"]
        self.good("run", config, "--quiet", "--force")
        self.assertNotEqual(cli.root_attrs(self.folder / "run.h5")["uuid"], first)

    def test_output_overrides_results(self):
        config = cli.small_run(self.folder, load__step="300ms")
        other = self.folder / "a name with 'quotes' and spaces.h5"
        self.good("run", config, "--quiet", "-o", other)
        self.assertTrue(other.exists())
        self.assertFalse((self.folder / "run.h5").exists())

    def test_by_hand_under_mpirun(self):
        config = cli.small_run(self.folder, load__step="500ms")
        self.good("run", config, "--quiet", np=3)
        self.assertEqual(len(cli.read_steps(self.folder / "run.h5")), 1)

    def test_one_process_needs_no_mpirun(self):
        """A null target with one load rank: nothing is launched."""
        config = cli.small_run(self.folder, target__kind="null", load__step="300ms")
        self.good("run", config, "--quiet", env={"PATH": "/nonexistent"})

    def test_strict_exit_code(self):
        """One slot in flight for a load that needs more: sent late, client_limited, invalid."""
        config = cli.small_run(self.folder, load__rates=[200.0], load__max_in_flight=1,
                               load__output_tokens=64, load__step="1s", load__drain="5s")
        result = self.good("run", config, "--quiet", "--strict", code=3)
        self.assertEqual(result.out, "")
        report = self.good("report", self.folder / "run.h5", "--format", "json").json()
        self.assertEqual(report["run"]["valid"], False)
        self.assertIn(report["steps"][0]["verdict"], ("client_limited", "errors"))
        self.good("run", config, "--quiet", "--force")


class Resume(cli.TestCase):
    """A run that was stopped in good order and goes on is the run that was never stopped."""

    def test_same_steps_as_unbroken(self):
        rates = [10.0, 15.0, 20.0, 25.0]
        keys = dict(load__rates=rates, load__step="1s")
        whole = self.folder / "whole.h5"
        self.good("run", cli.small_run(self.folder, results=str(whole), **keys), "--quiet")
        broken = self.folder / "broken.h5"
        config = cli.small_run(self.folder, results=str(broken), **keys)
        process = cli.start("run", config)
        journal = pathlib.Path(f"{broken}.journal")
        process.wait_until(lambda: cli.journal_bytes(journal, 1), "second step")
        process.signal(signal.SIGUSR1)
        stopped = process.finish()
        self.assertEqual(stopped.code, 0, str(stopped))
        self.assertEqual(len(cli.read_steps(broken)), 2, str(stopped))
        self.assertEqual(int(cli.root_attrs(broken)["complete"]), 0)
        self.good("validate", broken)
        first_part = [s.requests["t_send_ns"].tolist() for s in cli.read_steps(broken)]
        self.good("run", config, "--resume", "--quiet")
        a, b = cli.read_steps(whole), cli.read_steps(broken)
        self.assertEqual([s.attrs["rate_rps"] for s in b], rates)
        self.assertEqual([s.schedule() for s in b], [s.schedule() for s in a])
        self.assertEqual([s.attrs["schedule_hash"] for s in b],
                         [s.attrs["schedule_hash"] for s in a])
        self.assertEqual([s.requests["t_send_ns"].tolist() for s in b[:2]], first_part)
        begins = [int(s.attrs["t_begin_ns"]) for s in b]
        self.assertEqual(begins, sorted(begins), "times go on where they were")
        self.assertEqual(int(cli.root_attrs(broken)["complete"]), 1)
        self.good("validate", broken)

    def test_other_config_is_refused(self):
        path = self.folder / "run.h5"
        config = cli.small_run(self.folder, load__rates=[10.0, 20.0, 30.0], load__step="1s")
        process = cli.start("run", config)
        process.wait_until(pathlib.Path(f"{path}.journal").exists, "first step")
        process.signal(signal.SIGUSR1)
        self.assertEqual(process.finish().code, 0)
        other = cli.run("run", config, "--resume", "load.seed=7")
        self.one_clear_line(other, path, "config")


if __name__ == "__main__":
    cli.main()
