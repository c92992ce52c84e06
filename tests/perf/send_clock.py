"""Where in its work a tool takes the time that it calls "sent": from its stamp to the server's read(2)
of the request.

Measured from outside, the same way for all tools that keep these times: the stamps in their result
files against the server's serve.log. No latency that a tool reports goes into it. A load of one user
is needed: then each stamp is followed by one read before the next.
"""

import csv
import itertools
import statistics
import time

STEPPED_NS = 100_000  # the time of day may drift against the monotonic clock by so much in a run
EARLY_NS = 200_000  # ... and a read may seem to be before its stamp by so much


def wall_offset_ns():
    """Time of day less the monotonic clock."""
    return time.time_ns() - time.monotonic_ns()


class Watch:
    """`with Watch() as w:` a run; w.monotonic(stamp) is then for stamps by the time of day."""

    def __enter__(self):
        self.before = wall_offset_ns()
        return self

    def __exit__(self, *_):
        self.after = wall_offset_ns()

    def monotonic(self, wall_ns):
        if abs(self.after - self.before) > STEPPED_NS:
            raise RuntimeError("the time of day was set during the run")
        return wall_ns - (self.before + self.after) // 2


def reads_ns(log):
    """When the server had read each request, in order; see workers/send_log.h."""
    with open(log, newline="") as f:
        return sorted(int(row["before_ns"]) for row in csv.DictReader(f) if row["token"] == "-1")


def delays_ms(starts_ns, log):
    """From each stamp to the one read that belongs to it."""
    starts, reads, delays = sorted(starts_ns), reads_ns(log), []
    for start, following in itertools.zip_longest(starts, starts[1:], fillvalue=float("inf")):
        own = [r for r in reads if start - EARLY_NS <= r < following - EARLY_NS]
        if len(own) != 1:
            raise RuntimeError(f"{len(own)} requests reached the server between two stamps")
        delays.append((own[0] - start) / 1e6)
    return delays


def typical(delays):
    """(median, mean), as figures of both kinds are moved by it."""
    return statistics.median(delays), statistics.mean(delays)
