"""What a test of a whole run asks of its result file; one line per thing that is not so.

usage: check_run.py TIDEMARK FILE.h5 [options]
"""

import argparse
import json
import subprocess
import sys

import h5py


def options():
    parser = argparse.ArgumentParser()
    parser.add_argument("tidemark")
    parser.add_argument("file")
    parser.add_argument("--count-steps", action="store_true", help="print how many, and leave")
    parser.add_argument("--complete", action="store_true", help="the run came to its end")
    parser.add_argument("--steps", type=int, help="that many steps")
    parser.add_argument("--all-ok", action="store_true", help="no request failed or was cancelled")
    parser.add_argument("--slurm-job", help="this job's id is in the provenance")
    parser.add_argument("--hosts", help="comma-separated: each rank's host, in order")
    parser.add_argument("--hops-between-hosts", type=int, help="of one replica's hidden states")
    parser.add_argument("--clock-bound-us", type=float,
                        help="the clock of a rank on another host than rank 0's is known to that")
    return parser.parse_args()


def values(thing):
    """All strings and numbers in a nest of dicts and lists."""
    if isinstance(thing, dict):
        thing = list(thing.values())
    if isinstance(thing, list):
        return [v for part in thing for v in values(part)]
    return [str(thing)]


def text(value):
    return value.decode() if isinstance(value, bytes) else str(value)


def request_findings(step):
    """Every scheduled request was served, and got as many tokens as it asked for."""
    requests = step["requests"]
    if requests["ok"] != requests["scheduled"] or requests["scheduled"] == 0:
        yield (f"step {step['index']}: {requests['ok']} of {requests['scheduled']} requests ok: "
               f"{requests['by_outcome']}")


def rank_findings(h5, wanted):
    ranks = h5["meta/ranks"]
    hosts = [text(h) for h in ranks["host"][:]]
    if wanted.hosts and hosts != wanted.hosts.split(","):
        yield f"hosts of the ranks are {hosts}, not {wanted.hosts}"
    for table in ("meta/ranks", "meta/ranks_after") if wanted.clock_bound_us else ():
        if table not in h5:
            yield f"no {table}"
            continue
        for rank, bound_ns in enumerate(h5[table]["clock_bound_ns"][:]):
            if hosts[rank] != hosts[0] and not 0 < bound_ns < 1000 * wanted.clock_bound_us:
                yield f"{table}: rank {rank} on {hosts[rank]} has a clock bound of {bound_ns} ns"


def edge_findings(report, h5, wanted):
    """Hops between hosts are those that the hosts of the ranks make, in the file and in the report."""
    edges, hosts = h5["meta/edges"], [text(h) for h in h5["meta/ranks/host"][:]]
    rows = list(zip(edges["from_rank"][:], edges["to_rank"][:], edges["kind"][:], edges["same_host"][:]))
    for sender, receiver, _, same in rows:
        if bool(same) != (hosts[sender] == hosts[receiver]):
            yield f"the edge from rank {sender} to rank {receiver} has same_host {same}"
    between = sum(kind == 0 and not same for _, _, kind, same in rows)
    said = report["run"]["engine"]["hops_between_hosts"]
    if wanted.hops_between_hosts is not None and {between, said} != {wanted.hops_between_hosts}:
        yield f"{between} hops between hosts in the file and {said} in the report, not {wanted.hops_between_hosts}"


def findings(report, h5, wanted):
    steps = report["steps"]
    if wanted.complete and not (report["run"]["complete"] and h5.attrs["complete"] == 1):
        yield "the run is not complete"
    if wanted.steps is not None and len(steps) != wanted.steps:
        yield f"{len(steps)} steps, not {wanted.steps}"
    if wanted.all_ok:
        for step in steps:
            yield from request_findings(step)
    if wanted.slurm_job:
        provenance = json.loads(text(h5["meta/provenance"][()]))
        if wanted.slurm_job not in values(provenance.get("slurm", {})):
            yield f"provenance does not name Slurm job {wanted.slurm_job}: {provenance.get('slurm')}"
    yield from rank_findings(h5, wanted)
    if report["run"]["engine"]:
        yield from edge_findings(report, h5, wanted)


def main():
    wanted = options()
    report = json.loads(subprocess.run(
        [wanted.tidemark, "report", wanted.file, "--format", "json"],
        check=True, stdout=subprocess.PIPE).stdout)
    if wanted.count_steps:
        print(len(report["steps"]))
        return 0
    with h5py.File(wanted.file, "r") as h5:
        found = list(findings(report, h5, wanted))
    for finding in found:
        print(f"{wanted.file}: {finding}")
    return 1 if found else 0


sys.exit(main())
