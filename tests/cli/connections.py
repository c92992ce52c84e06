"""How `tidemark run target.kind=openai` makes its connections: from which addresses, how many a second, for how
long it waits for one, and with more of them than the soft limit of open files allows."""

import collections
import contextlib
import resource
import socket
import time

import numpy as np

import tidemark_cli as cli
from endpoint import EndpointTest, Recorder, url_of
from serve import Server

QUIET = ("target.check=false", "target.metrics=none")  # no connections but those of requests
SOFT_LIMIT = 64
N_STREAMS = 100


@contextlib.contextmanager
def soft_limit_of_open_files(n):
    """For what is started in here."""
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (n, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)


@contextlib.contextmanager
def full_backlog():
    """A port that listens and takes no connection: whoever comes waits."""
    with contextlib.ExitStack() as all_of:
        listener = all_of.enter_context(socket.create_server(("127.0.0.1", 0), backlog=0))
        port = listener.getsockname()[1]
        for _ in range(4):
            waiting = all_of.enter_context(socket.socket())
            waiting.setblocking(False)
            with contextlib.suppress(BlockingIOError):
                waiting.connect(("127.0.0.1", port))
        yield port


class Connections(EndpointTest):
    def test_from_several_addresses(self):
        with Recorder() as s:
            self.load(url_of(s), *QUIET, "target.local_addresses=127.0.0.2,127.0.0.3")
        peers = collections.Counter(peer for _, _, peer, _ in s.asked)
        self.assertEqual(set(peers), {"127.0.0.2", "127.0.0.3"})
        self.assertGreaterEqual(min(peers.values()), 3, peers)  # of ten, in turn

    def test_paced(self):
        """Ten requests of half a second each need a connection: at four a second, the last comes after 2.25 s.
        It was not sent before; that it waited was asked for, and is not the client's lag."""
        with Recorder() as s:
            run = self.load(url_of(s), *QUIET, "target.connects=4", "load.drain=60s")
        times = sorted(at for *_, at in s.asked)
        self.assertEqual((len(times), run.outcomes()), (10, ["http_status"]))
        self.assertGreater(times[-1] - times[0], 1.5)
        waited_ns = run.r["t_send_ns"] - run.r["t_sched_ns"]
        self.assertGreater(waited_ns.max(), 1e9)
        self.assertLess(np.median(waited_ns - 1000 * run.r["cap_wait_us"].astype(np.int64)), 0.1e9)

    def test_timeout(self):
        begin = time.monotonic()
        with full_backlog() as port:
            run = self.load(f"http://127.0.0.1:{port}/v1", *QUIET, "target.connect_timeout=500ms", "load.drain=60s")
        self.assertEqual((len(run.r["id"]), run.outcomes()), (10, ["connect"]))
        self.assertIn("time", run.result.err.lower())
        self.assertLess(time.monotonic() - begin, 25)  # the default is 30 s

    def test_more_streams_than_the_soft_limit_of_open_files(self):
        with Server("serve.model=m", "serve.ttft=4s") as s, soft_limit_of_open_files(SOFT_LIMIT):
            run = self.clean(url_of(s), f"load.rates={2 * N_STREAMS}", "load.drain=60s")
        self.assertEqual(len(run.r["id"]), N_STREAMS)
        events = sorted([(t, 1) for t in run.r["t_send_ns"]] + [(t, -1) for t in run.r["t_last_ns"]])
        self.assertGreater(max(np.cumsum([n for _, n in events])), SOFT_LIMIT)


if __name__ == "__main__":
    cli.main()
