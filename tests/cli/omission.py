"""Coordinated omission: a server that stalls for 1 s under a constant rate, and what each clock says of it.

One request at a time (target.max_concurrency=1), so that all that is due during the stall waits in the
client. What each request's times must be follows from the due times alone: it begins when the one before
it has ended, and the server stands still in the stall. The response percentiles (from when a request was
due) must say so; the service percentiles (from when it was sent), which is all that a tool sees that counts
from its own sends, hide it.
"""

import unittest

import h5py
import numpy as np

import tidemark_cli as cli
from serve import Server

RATE_RPS, SERVICE_S, STEP_S = 100, 0.005, 10
STALL_FROM_S, STALL_TO_S = 4.0, 5.0
LIMITS = {99: 0.02, 90: 0.1}


def times_of(due, services):
    """When each ends that begins when it is due and the one before it has ended, and stands still in the stall."""
    end, ends = -np.inf, []
    for q, service in zip(due, services):
        begin = max(q, end)
        if STALL_FROM_S <= begin < STALL_TO_S:
            begin = STALL_TO_S
        end = begin + service
        if begin < STALL_FROM_S < end:
            end += STALL_TO_S - STALL_FROM_S
        ends.append(end)
    return np.array(ends)


class Omission(cli.TestCase):
    def test_a_stall_is_in_the_response_times(self):
        path = str(self.folder / "stall.h5")
        with Server("serve.model=m", f"serve.ttft={SERVICE_S}s", f"serve.stall=[{STALL_FROM_S}s,{STALL_TO_S}s]") as server:
            result = cli.run("run", "target.kind=openai", f"target.url=http://127.0.0.1:{server.port}/v1",
                             "target.model=m", "target.max_concurrency=1", "load.arrival=constant",
                             f"load.rates={RATE_RPS}", f"load.step={STEP_S}s", "load.warmup=0", "load.input_tokens=8",
                             "load.output_tokens=1", "-o", path, "--quiet")
        self.assertEqual(result.code, 0, str(result))
        with h5py.File(path) as f:
            step = f["steps/0000"]
            r = {k: step["requests"][k][...] for k in step["requests"]}
            self.assertTrue((r["outcome"] == 0).all())
            due = (r["t_sched_ns"] - r["t_sched_ns"][0]) / 1e9
            response = (r["t_first_ns"] - r["t_sched_ns"]) / 1e6
            service = (r["t_first_ns"] - r["t_send_ns"]) / 1e6
            cap_wait = r["cap_wait_us"] / 1e3
        np.testing.assert_allclose(due, np.arange(len(due)) / RATE_RPS, atol=1e-8)

        # A busy machine makes single ones slower; how long the stall held up its one is known without it.
        is_stalled = service > 500 * (STALL_TO_S - STALL_FROM_S)
        self.assertEqual(is_stalled.sum(), 1)
        usual = np.where(is_stalled, np.median(service), service)
        expected = 1e3 * (times_of(due, usual / 1e3) - due)
        for q, limit in LIMITS.items():
            is_at, should = np.percentile(response, q), np.percentile(expected, q)
            self.assertLess(abs(is_at / should - 1), limit, f"response p{q}: {is_at} ms, should be {should} ms")

        report = self.good("report", path, "--format", "json").json()["steps"][0]
        self.assertAlmostEqual(report["ttft_ms"]["p99"], np.percentile(response, 99), places=6)
        self.assertAlmostEqual(report["ttft_service_ms"]["p99"], np.percentile(service, 99), places=6)
        # Such a wait is the user's own cap, and shown as that; a tool that counts from its sends shows nothing.
        self.assertGreater(np.percentile(cap_wait, 99), 0.8 * np.percentile(response, 99))
        self.assertGreater(np.percentile(response, 99), 10 * np.percentile(service, 99))
        self.assertGreater(np.percentile(response, 90), 10 * np.percentile(service, 90))


if __name__ == "__main__":
    cli.main()
