"""Measures what peers.sh installed; see there. usage: peers.py OUT BUILD

The server has core 1, the tool with all its processes core 0. A tool's speed is measured from
outside, the same way for all: CPU seconds of its processes from /proc against tokens from the
server's /metrics, between the times when a fifth and four fifths of the tokens had been sent, so
that starting, reading data and reporting cost nothing. Exit 1 when tidemark is not at least ten times
as fast per CPU second as every Python tool, or a residue is above 2 %.
"""

import datetime
import os
import pathlib
import re
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request

import peers_tools as tools
import send_clock

LIMIT_S = 120  # of one tool's run
TICK_S = 0.1
NOTHING = 0.25  # ms: less is a client's own time around its stamps, whatever the definition
LEAST_RATIO, MOST_RESIDUE = 10, 0.02
missed = []
TICKS_PER_S = os.sysconf("SC_CLK_TCK")
CLIENT, SERVER = "0", "1"  # cores


class Server:
    def __init__(self, build, *settings):
        command = ["taskset", "-c", SERVER, build / "tidemark", "serve", "target.kind=null",
                   "serve.port=0", *settings]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True,
                                        stderr=subprocess.DEVNULL)
        self.url = self.process.stdout.readline().split()[-1].removesuffix("/v1")

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.process.terminate()
        self.process.wait()

    def count(self, what):
        with urllib.request.urlopen(f"{self.url}/metrics", timeout=10) as reply:
            text = reply.read().decode()
        return float(re.search(rf"^vllm:{what}_total.* (\S+)$", text, re.M).group(1))


def cpu_s(root):
    """CPU seconds of a process and all below it, also of the dead whose parents waited for them."""
    total, todo = 0, [root]
    while todo:
        pid = todo.pop()
        try:
            fields = pathlib.Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
            for task in pathlib.Path(f"/proc/{pid}/task").iterdir():
                todo += (task / "children").read_text().split()
        except OSError:
            continue
        total += sum(int(f) for f in fields[11:15])  # user, system, and of children waited for
    return total / TICKS_PER_S


def watch(server, what, pid, stop):
    """[(time, CPU seconds, count)] until stopped."""
    samples = []
    while not stop.wait(TICK_S):
        samples.append((time.monotonic(), cpu_s(pid), server.count(what)))
    return samples


def run(tool, load, server, folder, what=None):
    """Run to the end. With `what`: (per CPU second, per second) of this counter of the server's."""
    log = folder / f"{tool.name}.log"
    environ = dict(os.environ, **tool.environ)
    command = ["taskset", "-c", CLIENT, *tool.command(load, server.url, folder)]
    with open(log, "w") as out:
        process = subprocess.Popen(command, stdout=out, stderr=subprocess.STDOUT, env=environ,
                                   start_new_session=True)
    stop, samples = threading.Event(), []
    watcher = threading.Thread(
        target=lambda: samples.extend(watch(server, what, process.pid, stop)))
    if what:
        watcher.start()
    try:
        code = process.wait(LIMIT_S)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, 9)
        process.wait()
        code = f"over {LIMIT_S} s"
    finally:
        stop.set()
        if what:
            watcher.join()
    if code != 0:
        last = [line for line in log.read_text().splitlines() if line.strip()][-1:]
        raise RuntimeError(f"{tool.name}: exit code {code}: {' '.join(last)}")
    return rates(samples) if what else None


def rates(samples):
    begin, end = samples[0][2], samples[-1][2]
    inner = [s for s in samples if 0.2 <= (s[2] - begin) / max(1, end - begin) <= 0.8]
    if len(inner) < 5:
        raise RuntimeError(f"only {len(inner)} looks at the server while it was loaded")
    (t0, cpu0, n0), (t1, cpu1, n1) = inner[0], inner[-1]
    return (n1 - n0) / max(cpu1 - cpu0, 1 / TICKS_PER_S), (n1 - n0) / (t1 - t0)


def attempt(tool, *args):
    """(result, None), or (None, why there is none)."""
    try:
        if tool.why_not():
            return None, tool.why_not()
        return run(tool, *args), None
    except (RuntimeError, OSError) as e:
        return None, str(e)


# --- the tables -----------------------------------------------------------------------------------


def table(head, rows):
    lines = [head, ["---"] + ["---:"] * (len(head) - 1), *rows]
    return "\n".join("| " + " | ".join(str(cell) for cell in line) + " |" for line in lines) + "\n"


def speed_table(all_tools, build, folder, what, shapes):
    """Rows of tools; the ratio is tidemark's rate per CPU second over the tool's.

    Shapes: {language: (load, settings of the server)}."""
    found, ours = [], None
    for tool in all_tools:
        load, *settings = shapes[tool.language]
        with Server(build, *settings) as server:
            result, why = attempt(tool, load, server, folder, what)
        print(f"{what} {settings} {tool.name}: {result or why}", file=sys.stderr)
        found.append((tool, result, why))
        ours = result if tool.name == "tidemark" else ours
    rows = []
    for tool, result, why in found:
        if result and ours:
            ratio = ours[0] / result[0]
            if tool.language == "Python" and ratio < LEAST_RATIO:
                missed.append(f"{ratio:.1f} times {tool.name}")
            rows.append([f"{tool.name} ({tool.language})", f"{result[0]:,.0f}", f"{result[1]:,.0f}",
                         f"{ratio:.1f}"])
        else:
            rows.append([tool.name, why or "-", "", ""])
    unit = "events" if what == "generation_tokens" else "requests"
    return table(["client", f"{unit}/s per CPU-second", f"{unit}/s", "tidemark is x times"], rows)


def one_user(tool, build, folder):
    """Run the tool: (None or why it did not, its delays from stamp to server, None or why none)."""
    # one user: a tool's own time per event, which is no definition, hardly shows
    load = tools.Load(users=1, requests=18, tokens=64, seconds=10, stream=True)
    log = folder / f"{tool.name}.csv"
    server = Server(build, "serve.ttft=80ms", "serve.itl=8ms", "serve.spin=300us",
                    f"serve.log={log}")
    with server, send_clock.Watch() as watch:
        _, why = attempt(tool, load, server, folder)
    if why:
        return why, None, None
    starts = tool.starts_ns(folder, watch)
    if not starts:
        return None, None, "keeps no stamps on a clock"
    try:
        return None, send_clock.delays_ms(starts, log), None
    except RuntimeError as e:
        return None, None, str(e)


def under(tool, records, theirs, moved):
    """tidemark's records by the tool's definitions, sent as much earlier as moved: (median, mean)."""
    usual, earlier = records.sent_earlier(moved[0]), records.sent_earlier(moved[1])
    same = dict(tool.as_tidemark(earlier))
    for name in tools.MEDIANS:
        same[name] = tool.as_tidemark(usual)[name]
    # users whose next request waits for the tool are not load; some tools say how many
    same["throughput"] *= theirs.get("in_flight", records.in_flight()) / earlier.in_flight()
    return same


def disagreement(peers, us, build, folder):
    why, our_delays, no_clock = one_user(us, build, folder)
    if why:
        return why + "\n"
    records, rows, worst = us.records(folder), [], 0
    clocks = [clock_row(us, our_delays, no_clock)]
    for tool in peers:
        why, delays, no_clock = one_user(tool, build, folder)
        if why:
            rows.append([tool.name, why, "", "", "", "", ""])
            continue
        clocks.append(clock_row(tool, delays, no_clock))
        moved = (0, 0)
        if delays and our_delays:
            both = send_clock.typical(delays), send_clock.typical(our_delays)
            moved = [theirs - ours for theirs, ours in zip(*both)]
        added, residue = figures(tool, records, tool.read(folder), moved)
        rows += added
        worst = max(worst, residue)
    head = ["figure (ms, tokens/s)", "it reports", "tidemark reports",
            "tidemark's records under its definition", "sent by its send clock", "off by", "residue"]
    if worst > MOST_RESIDUE:
        missed.append(f"a residue of {100 * worst:.1f} %")
    return (table(head, rows) + f"\nLargest residue: {100 * worst:.1f} %.\n\n" +
            table(["from the stamp to the server", "median, ms", "mean, ms", "longest, ms"],
                  clocks))


def figures(tool, records, theirs, moved):
    """(rows of the tool's figures, the largest residue)"""
    rows, worst = [], 0
    plain, same = (under(tool, records, theirs, by) for by in ((0, 0), moved))
    for name in [n for n in tools.FIGURES if n in theirs]:
        off = theirs[name] - same[name]
        residue = 0 if abs(off) < NOTHING else off / same[name]
        worst = max(worst, abs(residue))
        rows.append([f"{tool.name} {name}", f"{theirs[name]:.2f}", f"{own(records)[name]:.2f}",
                     f"{plain[name]:.2f}", f"{same[name]:.2f}", f"{off:+.2f}", f"{100 * residue:+.1f} %"])
    return rows, worst


def clock_row(tool, delays, why):
    if not delays:
        return [tool.name, why, "", ""]
    return [tool.name, *(f"{x:.2f}" for x in (*send_clock.typical(delays), max(delays)))]


def own(r):
    """The figures under tidemark's own definitions; its service times, as peers have no others."""
    same = tools.per_token_after_first(r)
    return dict(same, tpot=same["itl"])


def make_tokenizer(python, folder):
    """A thousand words, each a token, as Hugging Face stores it: no peer may ask the hub."""
    script = """
import sys
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast
words = ["<unk>", "<s>", "</s>", *(f"w{i:03d}" for i in range(1000))]
t = Tokenizer(models.WordLevel({w: i for i, w in enumerate(words)}, unk_token="<unk>"))
t.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
fast = PreTrainedTokenizerFast(tokenizer_object=t, unk_token="<unk>", bos_token="<s>",
    eos_token="</s>", chat_template="{% for m in messages %}{{ m['content'] }}{% endfor %}")
fast.save_pretrained(sys.argv[1])
"""
    subprocess.run([python, "-c", script, folder], check=True, capture_output=True)


def facts():
    model = re.search(r"model name\s*: (.*)", pathlib.Path("/proc/cpuinfo").read_text())
    return (f"{datetime.date.today()}, {os.cpu_count()} cores"
            f"{' of ' + model.group(1) if model else ''}, load average {os.getloadavg()[0]:.1f}")


def main():
    out, build = pathlib.Path(sys.argv[1]), pathlib.Path(sys.argv[2])
    home = out / "tools"
    us = tools.Tidemark(home, build)
    peers = [tools.Guidellm(home), tools.Aiperf(home), tools.InferencePerf(home),
             tools.VllmBench(home)]
    for tool in peers[:3]:
        if not tool.why_not():
            make_tokenizer(tool.home / "bin" / "python", home / "tokenizer")
            break
    machine = facts()
    full = tools.Load(users=64, requests=192, tokens=512, seconds=4, stream=True)
    more = full._replace(requests=64 * 40)
    short = full._replace(tokens=1, stream=False)
    few = full._replace(requests=128), "serve.itl=10ms"  # 6,400 events/s
    many = full._replace(users=1500, requests=4500, seconds=8), "serve.itl=8ms"  # 187,500
    paced = {"Python": few, "Rust": many, "C": many}
    packed = {language: (load, "serve.events_per_packet=8")
              for language, load in (("Python", full), ("Rust", more), ("C", more))}
    with tempfile.TemporaryDirectory(prefix="tidemark-peers-") as temporary:
        folder = pathlib.Path(temporary)
        text = [f"Measured {machine}.\n"]
        all_tools = [us, tools.Reader(home, build), *peers]
        text += ["\n### SSE events, one in a packet, as many as a core can take\n",
                 speed_table(all_tools, build, folder, "generation_tokens", paced),
                 "\n### SSE events, eight in a packet, as fast as they come\n",
                 speed_table(all_tools, build, folder, "generation_tokens", packed),
                 "\n### Short plain requests\n",
                 speed_table([us, tools.Wrk(home)], build, folder, "request_success",
                             {"C": (short,)})]
        text += ["\n### The same endpoint in every tool's words\n",
                 disagreement(peers, us, build, folder)]
        present = [t for t in [us, *peers, tools.Wrk(home)] if not t.why_not()]
        versions = [f"{t.name} {t.version()}" for t in present]
        text += ["\nVersions: " + ", ".join(versions) + ".\n"]
    (out / "peers.md").write_text("\n".join(text))
    print((out / "peers.md").read_text())
    print(f"FAIL: {', '.join(missed)}" if missed else "PASS: all within their limits")
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
