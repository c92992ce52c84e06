"""Ranks whose GPUs reach each other that are killed, stopped or stuck in the middle of a step, on the stand-ins for CUDA
and NCCL: over each transport, in each role. What must hold each time is struck.py's, and also: memory that processes
shared as that of a GPU, or through NCCL, is nobody's afterwards. That of a real GPU is its driver's to take back.

TIDEMARK_CRASH_CUDA=all: the whole product of transports, roles and signals.
"""

import os
import random
import re
import signal
import time

import struck
import tidemark_cli as cli

ALL = os.environ.get("TIDEMARK_CRASH_CUDA") == "all"
BATCH_S = 1.5
STAGES, GROUP, BOTH = (1, 2, 1), (1, 1, 2), (1, 2, 2)  # load ranks, pipeline, tensor
KILL, STOP = signal.SIGKILL, signal.SIGSTOP
SHARED = {"ipc": "gpu_on_cpu", "nccl": "nccl-stand-in"}  # what the stand-ins call memory that processes share
# of STAGES rank 1 leads and sends, rank 2 receives; of GROUP both add up
USUAL = [("ipc", STAGES, 1, KILL), ("ipc", STAGES, 2, STOP), ("nccl", STAGES, 2, KILL), ("nccl", STAGES, 1, STOP),
         ("mpi", STAGES, 0, KILL), ("ipc", GROUP, 1, STOP)]


def whole_product():
    places = [(transport, STAGES) for transport in ("mpi", "ipc", "nccl")] + [("ipc", GROUP), ("nccl", BOTH)]
    return [(transport, place, rank, how) for transport, place in places
            for rank in range(place[0] + struck.n_workers(place)) for how in (KILL, STOP)]


def shared_memory(pids):
    """{(name, inode)} of memory without a file that these processes have open or mapped."""
    found = set()
    for pid in pids:
        try:
            with open(f"/proc/{pid}/maps", encoding="utf-8", errors="replace") as maps:
                found |= {(m[2], int(m[1])) for m in map(re.compile(r"\S+ \S+ \S+ \S+ (\d+) +/memfd:(\S+)").match, maps) if m}
            for fd in os.scandir(f"/proc/{pid}/fd"):
                m = re.match(r"/memfd:(\S+)", os.readlink(fd.path))
                found |= {(m[1], os.stat(fd.path).st_ino)} if m else set()
        except OSError:
            continue  # it has ended, or is not ours to look at
    return found


class CrashCuda(struck.Struck):
    RATES = [1.5, 2.0]
    INTO_S = 250  # until a step begins: the stand-in takes its time where others have the cores
    N_OUT = 2
    STRIKE_S = 1.0
    SILENCE_S = 4
    SETTINGS = dict(target__backend="cuda", target__model="preset:tiny-2l", target__max_running=2,
                    target__max_batch_tokens=8, target__telemetry="off", load__input_tokens=4, load__drain="200s")
    ENV = {"GPU_ON_CPU_DEVICES": "4"}

    def into_step(self, process, index, wait_s):
        super().into_step(process, index, wait_s)
        self.memory = shared_memory(process.ranks().values())

    def check_swept(self):
        super().check_swept()
        everybody = [name for name in os.listdir("/proc") if name.isdigit()]
        self.assertEqual(self.memory & shared_memory(everybody), set(), "somebody still has it")

    def check_shared(self, transport):
        """What was looked for afterwards was there before."""
        names = {name for name, _ in self.memory}
        if transport in SHARED:
            self.assertIn(SHARED[transport], names)

    def one(self, transport, place, rank, how):
        draw = random.Random(f"{struck.SEED} {transport} {place} {rank} {how}")
        line = self.strike_one(how, place, rank, 2, self.STRIKE_S * draw.random(),
                               target__transport=transport)
        self.check_shared(transport)
        if how == KILL:
            self.check_killed(line, place, rank)
        else:
            self.check_stopped(line, rank)

    def scripted(self, script, deadline_s):
        """One step in which NCCL does what the script says: the one line of the run."""
        process = self.start(STAGES, 1, env={"NCCL_STAND_IN": script}, target__transport="nccl",
                             deadline__batch=f"{BATCH_S}s")
        self.into_step(process, 0, 0)
        result = self.gone(process, time.monotonic_ns(), deadline_s)
        line = self.check_line(result)
        self.check_swept()
        self.good("recover", self.file)
        self.assertIn("lost", cli.read_steps(self.file)[0].outcomes().values())
        self.good("validate", self.file)
        return line

    def test_nccl_hangs(self):
        """A message that never arrives; the first batch of a size has four times deadline.batch."""
        line = self.scripted("rank=1 hang=1", 4 * BATCH_S + 1)
        self.check_shared("nccl")
        self.assertRegex(line, r"^tidemark: rank 2 \(replica 0, stage 1, tensor 0\): rank 1 \(replica 0, stage 0, tensor 0\) has "
                               r"not sent the hidden states of a batch of \d+ tokens for 6\.\d s \(limit 6\.0 s: ")

    def test_nccl_fails(self):
        """And the receiver's communicator can not even be aborted."""
        line = self.scripted("rank=1 error=2 hang_in=abort", 2)
        self.assertRegex(line, r"^tidemark: rank 2 \(replica 0, stage 1, tensor 0\): .*ncclRecv of \d+ bytes from rank 1: "
                               "remote error; as the script wants it$")


def add_trials():
    """Each a test of its own, so that they run side by side."""
    for transport, place, rank, how in whole_product() if ALL else USUAL:
        setattr(CrashCuda, f"test_{how.name[3:].lower()}_{transport}_{place[1]}x{place[2]}_rank_{rank}",
                lambda self, trial=(transport, place, rank, how): self.one(*trial))


if __name__ == "__main__":
    if not os.environ.get("TIDEMARK_CUDA_PLUGIN"):
        cli.skip("needs the stand-in's backend (TIDEMARK_CUDA_PLUGIN)")
    add_trials()
    cli.main(struck.SideBySide(CrashCuda))
