"""TLS and HTTP/2 through nginx, which stands before the null server: certificates of an authority
that the test makes, clients that must show theirs, versions of HTTP, connections kept.
"""

import collections
import pathlib
import shutil
import signal
import subprocess
import tempfile

import nginx
import tidemark_cli as cli

RATE, SECONDS, N_OUT = 40, 3, 8
TTFT_MS, ITL_MS = 20, 5
class Tls(cli.TestCase):
    @classmethod
    def setUpClass(cls):
        if not nginx.NGINX:
            cli.skip("TLS and HTTP/2: no nginx (packages-test.txt)")
        cls.home = pathlib.Path(tempfile.mkdtemp(prefix="tidemark-tls-"))
        cls.addClassCleanup(shutil.rmtree, cls.home, ignore_errors=True)
        nginx.make_certificates(cls.home)
        upstream, *ports = nginx.free_ports(1 + len(nginx.PORTS))
        command, cls.ports = nginx.configure(cls.home, upstream, ports)
        cls.begin([cli.BINARY, "serve", "target.kind=null", f"serve.port={upstream}",
                   f"serve.ttft={TTFT_MS}ms", f"serve.itl={ITL_MS}ms", "serve.model=m"], upstream)
        cls.begin(command, cls.ports["plain1"])

    @classmethod
    def begin(cls, command, port):
        process = cli.Process([str(c) for c in command])
        cls.addClassCleanup(process.finish)
        cls.addClassCleanup(process.signal, signal.SIGTERM)  # nginx writes over its environment
        process.wait_until(lambda: nginx.answers(port), f"answer at its port {port}")

    def target(self, at, **keys):
        """The arguments of a run against one of the ports."""
        scheme = "http" if at.startswith("plain") else "https"
        defaults = dict(name="tls", target__kind="openai", target__model="m", load__warmup=0,
                        target__url=f"{scheme}://127.0.0.1:{self.ports[at]}/v1",
                        target__metrics="none", load__arrival="constant", load__rates=[RATE],
                        load__step=f"{SECONDS}s", load__drain="20s", load__input_tokens=8,
                        load__output_tokens=N_OUT)
        config = cli.write_config(self.folder / "config.yaml", **dict(defaults, **keys))
        return ["run", config, "--quiet", "-o", self.folder / "run.h5"]

    def load(self, at, *flags, **keys):
        """Run to the end: all is well, times are the server's. The log's {protocol: connections}."""
        log = self.home / "access.log"
        before = len(log.read_text().splitlines())
        self.good(*self.target(at, **keys), *flags)
        (step,) = cli.read_steps(self.folder / "run.h5")
        r = step.requests
        self.assertEqual(set(step.outcomes().values()), {"ok"})
        self.assertEqual(len(r["id"]), RATE * SECONDS)
        self.assertEqual(set(r["n_out"]), {N_OUT})
        self.check_times(r)
        seen = collections.defaultdict(set)
        for line in log.read_text().splitlines()[before:]:
            port, connection, protocol, status = line.split()
            self.assertEqual((int(port), status), (self.ports[at], "200"))
            seen[protocol].add(connection)
        return {protocol: len(connections) for protocol, connections in seen.items()}

    def check_times(self, r):
        """Never early; the least disturbed request was not held back: chunks came as they left."""
        first_ms = (r["t_first_ns"] - r["t_send_ns"]) / 1e6
        rest_ms = (r["t_last_ns"] - r["t_first_ns"]) / 1e6
        self.assertGreaterEqual(first_ms.min(), TTFT_MS)
        if not cli.SANITIZED:  # which may be too slow to see one chunk without the next
            self.assertLess(first_ms.min(), TTFT_MS + (N_OUT - 1) * ITL_MS / 2)
            self.assertGreater(rest_ms.max(), (N_OUT - 1) * ITL_MS / 2)

    def trusted(self, **keys):
        return dict(keys, target__ca_file=str(self.home / "ca.pem"))

    def stopped(self, *wanted, at="tls1", **keys):
        """The run ends with one clear line before it begins."""
        result = cli.run(*self.target(at, **keys))
        self.assertIn(result.code, (1, 2), str(result))
        self.one_clear_line(result, f"127.0.0.1:{self.ports[at]}", *wanted, code=result.code)

    def test_an_authority_of_the_users(self):
        self.assertEqual(list(self.load("tls1", **self.trusted())), ["HTTP/1.1"])

    def test_any_certificate_will_do(self):
        self.load("tls1", target__insecure=True)

    def test_any_certificate_will_do_by_a_flag(self):
        self.load("tls1", "--insecure", target__insecure=False)

    def test_the_systems_authorities_do_not_know_it(self):
        self.stopped("certificate")

    def test_a_strangers_authority(self):
        self.stopped("certificate", target__ca_file=str(self.home / "other.pem"))

    def test_tls_where_there_is_none(self):
        self.stopped(target__url=f"https://127.0.0.1:{self.ports['plain1']}/v1", at="plain1")

    def test_a_certificate_of_the_client(self):
        self.load("client", **self.trusted(target__cert_file=str(self.home / "client.pem"),
                                           target__key_file=str(self.home / "client.key")))

    def test_no_certificate_where_one_is_wanted(self):
        self.stopped("400", at="client", **self.trusted())

    def test_connections_are_kept(self):
        (connections,) = self.load("plain1").values()
        self.assertLess(connections, RATE * SECONDS / 2)

    def test_http2_where_the_server_offers_it(self):
        seen = self.load("tls2", **self.trusted())
        self.assertEqual(list(seen), ["HTTP/2.0"])
        self.assertLess(seen["HTTP/2.0"], RATE * SECONDS / 4, "many requests share a connection")

    def test_http1_where_the_user_wants_it(self):
        self.assertEqual(list(self.load("tls2", **self.trusted(target__http="1.1"))), ["HTTP/1.1"])

    def test_http2_without_tls(self):
        url = f"http://127.0.0.1:{self.ports['plain2']}/v1/models"
        twice = ["curl", "-s", "--http2-prior-knowledge", *(2 * ["-o", "/dev/null", url])]
        if subprocess.run(twice, check=False).returncode == 16:  # libcurl before 8.0
            self.refused(["run", "target.kind=openai", f"target.url={url[:-len('/models')]}", "target.model=m",
                          "target.http=2"], "target.http", "libcurl 8.0")
            return
        seen = self.load("plain2", target__http="2")
        self.assertEqual(list(seen), ["HTTP/2.0"])
        self.assertLessEqual(seen["HTTP/2.0"], 4, "many requests share a connection")


if __name__ == "__main__":
    cli.main()
