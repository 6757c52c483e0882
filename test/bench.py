"""`make bench`: what smtpwarp costs, side by side with a direct connection and HAProxy in TCP mode.

    bench.py [--quick] [--rounds N] [--sessions N]      # $SMTPWARP: the binary, default ./smtpwarp

Prints Markdown. Takes root and the packages of test/packages/bench; all traffic stays on the loopback of a network
namespace of its own. Contestants take turns within each round, figures are medians over the rounds, and ratios are
formed within a round, so that what else the machine does weighs on all of them alike. CPU is that of a contestant's
whole cgroup: user and system, the listener and every child, dead or alive. HAProxy's cost falls with the number of
sessions at once, for one wake-up then serves many of them; --sessions is that number.
"""
import argparse
import asyncio
import collections
import contextlib
import dataclasses
import json
import multiprocessing
import os
import pathlib
import platform
import resource
import shutil
import signal
import socket
import ssl
import statistics
import subprocess
import sys
import tempfile
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "lib"))

import certificates
import mta
import netns

BINARY = os.path.abspath(os.environ.get("SMTPWARP", pathlib.Path(__file__).parent.parent / "smtpwarp"))
HOST = "127.0.0.1"
SINK, OWN_SINK = 2525, 2526
PROGRAMS = ("haproxy", "smtp-source", "smtp-sink", "inetd", "tcpserver", "stunnel", "postconf", "strip")
DESCRIPTORS_SPARE = 200
HAPROXY_SESSIONS = 2000
QUIET = 0.05                # seconds in which CPU use of a finished load trickles in
REPLY_TIMEOUT = 60
MESSAGE = b"Subject: bench\r\n\r\n" + b"x" * 62 * 64 + b"\r\n.\r\n"

Goal = collections.namedtuple("Goal", "text met")


def at_most(limit, unit=""):
    return Goal(f"≤ {limit:g}{unit}", lambda value: value <= limit)


def at_least(limit, unit=""):
    return Goal(f"≥ {limit:g}{unit}", lambda value: value >= limit)


@dataclasses.dataclass
class Load:
    name: str
    size: int
    per_connection: int
    messages: int
    cpu_goal: Goal = None           # CPU per message as a multiple of HAProxy's
    rate_goal: Goal = None          # throughput as a share of HAProxy's
    sessions: int = 0               # at once; 0: --sessions
    who: tuple = ("direct", "HAProxy", "smtpwarp", "smtpwarp, defaults")

    def commands(self, sessions, port):
        """smtp-source shares -m messages among its -s sessions; with -d each of them stays connected."""
        sessions = self.sessions or sessions
        common = ["smtp-source", "-s", str(sessions), "-l", str(self.size), f"{HOST}:{port}"]
        if self.per_connection == 1:
            return [[*common[:-1], "-m", str(self.messages), common[-1]]]
        batch = sessions * self.per_connection
        return [[*common[:-1], "-d", "-m", str(batch), common[-1]]] * max(1, self.messages // batch)


# Sessions of their own from the launchers too: the start cost is the difference to the listener.
LOADS = (
    Load("4 KB, 1 a connection", 4096, 1, 2000, cpu_goal=at_most(2, " ×"),
         who=("direct", "HAProxy", "smtpwarp", "smtpwarp, defaults", "smtpwarp, state", "inetd", "tcpserver")),
    Load("4 KB, 20 a connection", 4096, 20, 4000, cpu_goal=at_most(1.3, " ×"),
         who=("direct", "HAProxy", "smtpwarp", "smtpwarp, defaults", "smtpwarp, state")),
    Load("100 KB, 1 a connection", 100 << 10, 1, 1000),
    Load("100 KB, 20 a connection", 100 << 10, 20, 1200),
    Load("10 MB, 1 a connection", 10_000_000, 1, 20, rate_goal=at_least(95, " %"), sessions=2),
    Load("4 KB, 1 a connection, TLS upstream", 4096, 1, 300, who=("smtpwarp, TLS",)),
    Load("4 KB, 20 a connection, TLS upstream", 4096, 20, 800, who=("smtpwarp, TLS",)),
)


class Group:
    """A cgroup of its own: exact CPU time, and memory with the kernel's share where the controller is to be had."""

    def __init__(self, name):
        self.name = f"smtpwarp-bench-{os.getpid()}-{name}"
        self.cpu_directory = self._make("cgroup2", "")
        self.memory_directory = self._make("cgroup", "memory") or self.cpu_directory
        if not self.cpu_directory:
            sys.exit("bench: needs a writable cgroup v2 hierarchy to measure CPU time")

    def _make(self, kind, controller):
        for line in pathlib.Path("/proc/mounts").read_text().splitlines():
            _, mount, this_kind, options, *_ = line.split()
            if this_kind == kind and (not controller or controller in options.split(",")):
                directory = pathlib.Path(mount, self.name)
                with contextlib.suppress(OSError):
                    directory.mkdir(exist_ok=True)
                    return directory
        return None

    def _directories(self):
        return {self.cpu_directory, self.memory_directory}

    def enter(self, pid=0):
        for directory in self._directories():
            (directory / "cgroup.procs").write_text(str(pid))

    def pids(self):
        return [int(pid) for pid in (self.cpu_directory / "cgroup.procs").read_text().split()]

    def cpu(self):
        """Microseconds so far."""
        return int((self.cpu_directory / "cpu.stat").read_text().split()[1])

    def memory(self):
        """Bytes, page tables, stacks and socket buffers included; None where no controller counts them."""
        for name in "memory.current", "memory.usage_in_bytes":
            with contextlib.suppress(FileNotFoundError):
                return int((self.memory_directory / name).read_text())
        return None

    def close(self):
        for pid in self.pids():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        wait_for(lambda: not self.pids(), "killed processes are gone", 30)
        for directory in self._directories():
            directory.rmdir()


def wait_for(condition, what, timeout=10):
    end = time.monotonic() + timeout
    while not condition():
        if time.monotonic() > end:
            raise TimeoutError(f"bench: waited {timeout} s until {what}")
        time.sleep(0.005)


class Contestant:
    def __init__(self, bench, name, port, argv=None):
        self.name, self.port = name, port
        self.group = Group(port) if argv else None
        if argv:
            bench.stack.callback(self.group.close)
            process = bench.spawn(argv, preexec_fn=self.group.enter)
            bench.host.wait_listening(port, alive=lambda: process.poll() is None)
            self.process = process
            time.sleep(QUIET)       # a companion may begin after the port is open
            self.resting = len(self.group.pids())

    def settle(self):
        if self.group:
            wait_for(lambda: len(self.group.pids()) <= self.resting, f"sessions of {self.name} have ended")
        time.sleep(QUIET)

    def cpu(self):
        return self.group.cpu() if self.group else 0

    def launcher_cpu(self):
        """Microseconds of the first process alone, without its children."""
        return int(pathlib.Path(f"/proc/{self.process.pid}/schedstat").read_text().split()[0]) / 1000


class Bench:
    def __init__(self, options, host, stack):
        self.options, self.host, self.stack = options, host, stack
        self.directory = pathlib.Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="smtpwarp-bench-")))
        self.directory.chmod(0o755)
        # On tmpfs, as the default of --state is.
        self.memory = stack.enter_context(tempfile.TemporaryDirectory(prefix="smtpwarp-bench-", dir="/dev/shm"))
        self.errors = (self.directory / "stderr").open("w")
        self.port = 3000
        self.shortfalls = []

    def spawn(self, argv, **options):
        process = subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=self.errors,
                                   **options)
        self.stack.callback(stop, process)
        return process

    def start_sinks(self):
        self.sink = self.spawn(["smtp-sink", "-u", "nobody", "-m", "20000", f"{HOST}:{SINK}", "4096"])
        self.host.wait_listening(SINK, alive=lambda: self.sink.poll() is None)
        context = certificates.Store(self.directory / "certificates").context("good", maximum=ssl.TLSVersion.TLSv1_2)
        server = multiprocessing.get_context("fork").Process(target=own_sink, args=(context,), daemon=True)
        server.start()
        self.stack.callback(server.kill)
        self.host.wait_listening(OWN_SINK, alive=server.is_alive)

    def contestant(self, name, sink=SINK):
        self.port += 1
        return Contestant(self, name, sink if name == "direct" else self.port, self.command(name, self.port, sink))

    def command(self, name, port, sink):
        listen = ["--listen", f"{HOST}:{port}", "--max-sessions", "20000"]
        common = ["--message-size-limit", "0", "--upstream", f"{HOST}:{sink}"]
        # HAProxy neither logs nor looks for TLS: like is compared with like, and the defaults stand beside it.
        bare = [*common, "--tls", "none", "--log", "none", "--state", "none"]
        if name == "direct":
            return None
        if name == "HAProxy":
            return ["haproxy", "-db", "-f", self.write(f"haproxy-{port}", haproxy_configuration(port, sink))]
        if name == "smtpwarp":
            return [BINARY, *listen, *bare]
        if name == "smtpwarp, defaults":
            return [BINARY, *listen, *common, "--log", f"file:{self.directory}/log-{port}"]
        if name == "smtpwarp, state":
            return [BINARY, *listen, *bare[:-1], f"{self.memory}/state-{port}"]
        if name == "smtpwarp, TLS":
            return [BINARY, *listen, "--upstream", f"{HOST}:{OWN_SINK}", "--tls", "encrypt", "--log", "none"]
        if name == "smtpwarp, no TLS":
            return [BINARY, *listen, "--upstream", f"{HOST}:{OWN_SINK}", "--tls", "none", "--log", "none"]
        if name == "stunnel":
            return ["stunnel", self.write(f"stunnel-{port}", stunnel_configuration(port))]
        if name in HOOKS:
            return ["sh", "-c", self.with_hook(name, [BINARY, *listen, *bare])]
        if name == "inetd":
            line = [f"{HOST}:{port}", "stream", "tcp", "nowait", "root", BINARY, "smtpwarp", *bare]
            return ["inetd", "-i", "-R", "1000000", self.write(f"inetd-{port}", " ".join(line) + "\n")]
        if name == "tcpserver":
            return ["tcpserver", "-HRl0", "-c", "1000", "-b", "1000", HOST, str(port), BINARY, *bare]
        raise ValueError(name)

    def with_hook(self, name, command):
        """A shell command: smtpwarp with that `data` hook, in one group with the hook."""
        directory = self.directory / f"hooks-{self.port}" / "data"
        directory.mkdir(parents=True)
        words = " ".join([*command, "--hooks", str(directory.parent)])
        hook = directory / "50-accept"
        if name == "a shell hook":
            hook.write_text("#!/bin/sh\nread -r line\necho accept\n")
            hook.chmod(0o755)
        elif name == "a C hook":
            hook.symlink_to(self.hook_program())
        elif name == "a resident hook":
            return f"{self.hook_program()} {hook} & until [ -S {hook} ]; do sleep 0.01; done; exec {words}"
        return f"exec {words}"

    def hook_program(self):
        program = self.directory / "bench_hook"
        if not program.exists():
            source = pathlib.Path(__file__).parent / "lib/bench_hook.c"
            subprocess.run(["cc", "-O2", "-o", program, source], check=True)
        return program

    def write(self, name, text):
        (self.directory / name).write_text(text)
        return str(self.directory / name)

    def judge(self, what, value, goal):
        """The two last cells of a row."""
        if goal is None:
            return ["", ""]
        if goal.met(value):
            return [goal.text, "met"]
        self.shortfalls.append(f"{what}: {value:.2f}, goal {goal.text}")
        return [goal.text, "**falls short**"]


def stop(process):
    process.terminate()
    try:
        process.wait(5)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def haproxy_configuration(port, sink):
    return f"""
global
    maxconn {HAPROXY_SESSIONS}
defaults
    mode tcp
    timeout connect 30s
    timeout client 300s
    timeout server 300s
listen smtp
    bind {HOST}:{port}
    server sink {HOST}:{sink}
"""


def stunnel_configuration(port):
    """It says STARTTLS to the server, and makes each handshake in full."""
    return f"""
foreground = yes
pid =
syslog = no
debug = 0
[smtp]
client = yes
accept = {HOST}:{port}
connect = {HOST}:{OWN_SINK}
protocol = smtp
sessionResume = no
"""


class Queue(mta.Postfix):
    """A Postfix that sends each message over a connection of its own, after release()."""

    def __init__(self, bench, level):
        super().__init__(bench.host, relay=HOST)
        bench.port += 1
        self.port = bench.port
        self.CLIENT = self.CLIENT.replace("[{relay}]:25", f"[{HOST}]:{OWN_SINK}").replace("{level}", level) + (
            "smtp_connection_cache_on_demand = no\n")
        self.group = Group(self.port)

    def start(self):
        super().start()
        master = self.process.pid
        for pid in master, *pathlib.Path(f"/proc/{master}/task/{master}/children").read_text().split():
            self.group.enter(pid)

    def stop(self):
        super().stop()
        self.group.close()

    def send(self, count):
        """Messages on hold go out. Returns microseconds of CPU for each."""
        subprocess.run(["smtp-source", "-s", "5", "-m", str(count), "-l", "4096", f"{HOST}:{self.port}"], check=True)
        time.sleep(QUIET)
        cpu = self.group.cpu()
        self.release()
        self.wait_idle()
        time.sleep(QUIET)
        return (self.group.cpu() - cpu) / count


# A sink with STARTTLS, and for idle sessions: smtp-sink's time for each new one grows with their number. It is slow
# with messages, but where it is used only smtpwarp's own CPU time and memory are looked at.

def own_sink(context):
    async def serve():
        async with await asyncio.start_server(lambda *streams: converse(*streams, context), HOST, OWN_SINK,
                                              backlog=4096) as server:
            await server.serve_forever()
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    asyncio.run(serve())


async def converse(reader, writer, context):
    with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError):
        writer.write(b"220 sink ESMTP\r\n")
        while verb := (await reader.readline())[:4].upper().strip():
            writer.write({b"EHLO": b"250-sink\r\n250-PIPELINING\r\n250 STARTTLS\r\n", b"QUIT": b"221 Bye\r\n",
                          b"STAR": b"220 Go\r\n", b"DATA": b"354 Go\r\n"}.get(verb, b"250 Ok\r\n"))
            await writer.drain()
            if verb == b"STAR":
                await writer.start_tls(context)
            elif verb == b"DATA":
                await reader.readuntil(b"\r\n.\r\n")
                writer.write(b"250 Ok\r\n")
            elif verb == b"QUIT":
                break
    writer.close()


# Messages

Sample = collections.namedtuple("Sample", "cpu launcher rate")


def run_load(bench, load, contestant):
    cpu, launcher = contestant.cpu(), contestant.launcher_cpu() if contestant.group else 0
    commands = load.commands(bench.options.sessions, contestant.port)
    messages = sum(int(command[command.index("-m") + 1]) for command in commands)
    start = time.perf_counter()
    for command in commands:
        subprocess.run(command, check=True, stdin=subprocess.DEVNULL)
    seconds = time.perf_counter() - start
    contestant.settle()
    if not contestant.group:
        return Sample(0, 0, messages / seconds)
    return Sample((contestant.cpu() - cpu) / messages, (contestant.launcher_cpu() - launcher) / messages,
                  messages / seconds)


def measure_loads(bench, contestants):
    samples = collections.defaultdict(list)
    for _ in range(bench.options.rounds):
        for load in LOADS:
            for name in load.who:
                samples[load.name, name].append(run_load(bench, load, contestants[name]))
    return samples


def ratio(samples, load, name, field):
    """To HAProxy of the same round, median; None without it."""
    pairs = zip(samples[load.name, name], samples.get((load.name, "HAProxy"), []))
    ratios = [getattr(mine, field) / getattr(other, field) for mine, other in pairs]
    return statistics.median(ratios) if ratios else None


def median(samples, load, name, field):
    return statistics.median(getattr(sample, field) for sample in samples[load.name, name])


def load_row(bench, samples, load, name):
    rate, cpu = median(samples, load, name, "rate"), median(samples, load, name, "cpu")
    rate_ratio, cpu_ratio = ratio(samples, load, name, "rate"), ratio(samples, load, name, "cpu")
    speed = f"{rate * load.size / 1e6:,.0f} MB/s" if load.size > 1 << 20 else f"{rate:,.0f}"
    cells = [load.name, name, speed, f"{cpu:,.0f}" if cpu else "", f"{cpu_ratio:.2f} ×" if cpu and cpu_ratio else ""]
    what = f"{load.name}, {name}"
    if not name.startswith("smtpwarp"):
        return [*cells, "", ""]
    if load.rate_goal:
        return [*cells, *bench.judge(what + ", throughput in % of HAProxy's", 100 * rate_ratio, load.rate_goal)]
    return [*cells, *bench.judge(what + ", CPU to HAProxy's", cpu_ratio, load.cpu_goal)]


def report_loads(bench, samples):
    heading(f"Messages, {bench.options.sessions} sessions at once (10 MB: 2)")
    rows = [load_row(bench, samples, load, name) for load in LOADS for name in load.who
            if name not in ("inetd", "tcpserver")]
    table(["load", "", "messages/s", "CPU µs/message", "CPU to HAProxy's", "goal", ""], rows)


def state_cost(bench, load, names):
    """What a session costs more behind the second of two that have just been started."""
    pair, differences = [bench.contestant(name) for name in names], []
    for turn in range(8):
        cpu = {one.name: run_load(bench, load, one).cpu for one in (pair[::-1] if turn % 2 else pair)}
        differences.append(cpu[names[1]] - cpu[names[0]])
    return statistics.median(differences)


def report_state(bench):
    """Where the kernel puts a program's memory decides on the page tables of its sessions, and so on more than a map can cost: many
    starts, and between them short loads in turns."""
    heading("What --state adds to a session of one 4 KB message")
    costs = [state_cost(bench, Load("", 4096, 1, 100), ("smtpwarp", "smtpwarp, state")) for _ in range(bench.options.rounds * 8)]
    added, (low, _, high) = statistics.median(costs), statistics.quantiles(costs)
    table(["CPU µs/session", "half of the starts between", "goal", ""],
          [[f"{added:+,.1f}", f"{low:+,.0f} and {high:+,.0f}", *bench.judge("--state, µs a session", added, at_most(10, " µs"))]])


def report_start_cost(bench, samples):
    load = LOADS[0]
    heading("Start under inetd and tcpserver, against the listener (a session of one 4 KB message)")
    listener = median(samples, load, "smtpwarp", "cpu")
    rows = [["listener", f"{listener:,.0f}", "", "", "", ""]]
    for name in "inetd", "tcpserver":
        cpu, launcher = median(samples, load, name, "cpu"), median(samples, load, name, "launcher")
        rows.append([name, f"{cpu:,.0f}", f"{cpu - listener:+,.0f}", f"{launcher:,.0f}",
                     *bench.judge(f"start under {name}, µs more", cpu - listener, at_most(100, " µs"))])
    table(["started by", "CPU µs/session", "more than listener", "of it the launcher's own process", "goal", ""], rows)


# Hooks

HOOKS = "no hook", "a shell hook", "a C hook", "a resident hook"
HOOK_LOADS = (Load("4 KB, 1 a connection", 4096, 1, 1000, sessions=50, who=HOOKS),
              Load("1 MB, 1 a connection", 1 << 20, 1, 200, sessions=50, who=HOOKS))


def report_hooks(bench):
    """What one `data` hook that accepts costs; CPU of the hook included. A message in memory is part of the price."""
    heading("A `data` hook that accepts, 50 sessions at once")
    contestants = {name: bench.contestant(name) for name in HOOKS}
    samples = collections.defaultdict(list)
    for _ in range(bench.options.rounds):
        for load in HOOK_LOADS:
            for name in HOOKS:
                samples[load.name, name].append(run_load(bench, load, contestants[name]))
    rows = []
    for load in HOOK_LOADS:
        cpu = {name: median(samples, load, name, "cpu") for name in HOOKS}
        for name in HOOKS:
            more = cpu[name] - cpu["no hook"]
            share = 100 * more / (cpu["a shell hook"] - cpu["no hook"])
            goal = at_most(10, " %") if name == "a resident hook" and load.size == 4096 else None
            rows.append([load.name, name, f"{median(samples, load, name, 'rate'):,.0f}", f"{cpu[name]:,.0f}",
                         *([f"{more:+,.0f}", f"{share:.0f} %"] if name != "no hook" else ["", ""]),
                         *bench.judge(f"{name}, {load.name}, % of a shell hook's cost", share, goal)])
    table(["load", "", "messages/s", "CPU µs/message", "for the hook", "of a shell hook's", "goal", ""], rows)


# TLS with the upstream

TLS_LOAD = Load("4 KB, 1 a connection", 4096, 1, 300, sessions=20)


def report_tls(bench):
    """A handshake is what a connection with TLS costs more than one without."""
    heading("TLS with the upstream: connections with one 4 KB message, TLS 1.2, P-256, each handshake in full")
    proxies = {name: bench.contestant(name) for name in ("smtpwarp, no TLS", "smtpwarp, TLS", "stunnel")}
    queues = {level: bench.stack.enter_context(Queue(bench, level)) for level in ("none", "encrypt")}
    samples = collections.defaultdict(list)
    for _ in range(bench.options.rounds):
        for name, contestant in proxies.items():
            samples[name].append(run_load(bench, TLS_LOAD, contestant).cpu)
        for level, queue in queues.items():
            samples[level].append(queue.send(TLS_LOAD.messages))
    own = [tls - plain for tls, plain in zip(samples["smtpwarp, TLS"], samples["smtpwarp, no TLS"])]
    theirs = [tls - plain for tls, plain in zip(samples["encrypt"], samples["none"])]
    stunnel = [mine / other for mine, other in zip(samples["smtpwarp, TLS"], samples["stunnel"])]
    postfix = [mine / other for mine, other in zip(own, theirs)]
    figure = {name: f"{statistics.median(values):,.0f}" for name, values in samples.items()}
    table(["", "CPU µs/connection, plain", "with TLS", "a handshake", "smtpwarp to it"], [
        ["smtpwarp", figure["smtpwarp, no TLS"], figure["smtpwarp, TLS"], f"{statistics.median(own):,.0f}", ""],
        ["Postfix, with its queue", figure["none"], figure["encrypt"], f"{statistics.median(theirs):,.0f}",
         f"a handshake: {statistics.median(postfix):.2f} ×"],
        ["stunnel", "", figure["stunnel"], "", f"a connection: {statistics.median(stunnel):.2f} ×"]])


# One session after another, connect to the reply to QUIT

def read_reply(connection):
    reply = b""
    while not reply.endswith(b"\r\n") or reply.splitlines()[-1][3:4] == b"-":
        piece = connection.recv(4096)
        if not piece:
            raise ConnectionError(f"bench: connection lost after {reply!r}")
        reply += piece
    return reply


def expect(connection, code):
    reply = read_reply(connection)
    if not reply.startswith(code):
        raise RuntimeError(f"bench: {reply!r} where {code.decode()} was due")


def dial(port):
    connection = socket.create_connection((HOST, port), REPLY_TIMEOUT)
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return connection


DIALOGUE = ((b"EHLO client.example\r\n", b"250"), (b"MAIL FROM:<a@client.example>\r\n", b"250"),
            (b"RCPT TO:<b@mail.example>\r\n", b"250"), (b"DATA\r\n", b"354"), (MESSAGE, b"250"), (b"QUIT\r\n", b"221"))


def time_session(port):
    start = time.perf_counter()
    with dial(port) as connection:
        expect(connection, b"220")
        for command, code in DIALOGUE:
            connection.sendall(command)
            expect(connection, code)
        return time.perf_counter() - start


def pin(cpu, pids):
    for pid in pids:
        for thread in os.listdir(f"/proc/{pid}/task"):
            os.sched_setaffinity(int(thread), {cpu})


def part_cpus(bench, contestants):
    """The ends on one CPU, the proxies on another, as if they were two machines: left to the scheduler, a proxy that
    happens to share the client's CPU answers in half the time of one that does not, whichever it is."""
    cpus = sorted(os.sched_getaffinity(0))
    pin(cpus[0], [os.getpid(), bench.sink.pid])
    for contestant in contestants.values():
        if contestant.group:
            pin(cpus[-1], contestant.group.pids())
    return len(cpus) > 1


def report_latency(bench, contestants):
    parted = part_cpus(bench, contestants)
    heading("A whole session with one 4 KB message, one at a time, milliseconds"
            + ", client and server on one CPU, proxy on another" * parted)
    times = collections.defaultdict(list)
    for _ in range(bench.options.rounds * 4):
        for name in "direct", "HAProxy", "smtpwarp", "smtpwarp, defaults", "inetd":
            times[name] += [1000 * time_session(contestants[name].port) for _ in range(50)]
    p50 = {name: statistics.median(values) for name, values in times.items()}
    rows = []
    for name, values in times.items():
        goal = at_most(1.3, " ×") if name.startswith("smtpwarp") else None
        to_haproxy = p50[name] / p50["HAProxy"]
        rows.append([name, f"{p50[name]:.3f}", f"{statistics.quantiles(values, n=100)[98]:.3f}", f"{to_haproxy:.2f} ×",
                     *bench.judge(f"session, {name}, p50 to HAProxy's", to_haproxy, goal)])
    table(["", "p50", "p99", "p50 to HAProxy's", "goal", ""], rows)


# Idle sessions

Memory = collections.namedtuple("Memory", "pss private group")


def rollup(pid):
    try:
        return pathlib.Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()[1:]
    except (FileNotFoundError, ProcessLookupError):
        return []       # it has just ended; idle_memory() compares the lists of processes


def memory_of(group):
    fields = collections.Counter()
    for pid in group.pids():
        for line in rollup(pid):
            key, value, _ = line.split()
            fields[key.partition("_")[0].rstrip(":") if key.startswith("Private") else key] += int(value)
    group_bytes = group.memory()
    return Memory(fields["Pss:"], fields["Private"], None if group_bytes is None else group_bytes / 1024)


def open_idle(stack, port, number):
    """Sessions that have had their EHLO answered, dialled by the hundred as a backlog takes them."""
    for first in range(0, number, 100):
        batch = [stack.enter_context(dial(port)) for _ in range(min(100, number - first))]
        for connection in batch:
            expect(connection, b"220")
            connection.sendall(b"EHLO client.example\r\n")
        for connection in batch:
            expect(connection, b"250")


def idle_memory(bench, name, number):
    """KiB a session; a fresh instance, so that no earlier load has left its traces."""
    contestant = bench.contestant(name, OWN_SINK)
    with contextlib.ExitStack() as stack:
        open_idle(stack, contestant.port, 20)       # what the first sessions leave behind is not the idle ones' cost
    contestant.settle()
    before = memory_of(contestant.group)
    with contextlib.ExitStack() as stack:
        open_idle(stack, contestant.port, number)
        time.sleep(0.5)
        resident = contestant.group.pids()
        after = memory_of(contestant.group)
        if contestant.group.pids() != resident:
            raise RuntimeError(f"bench: sessions of {name} ended while idle")
    stop(contestant.process)
    return Memory(*(None if new is None else (new - old) / number for new, old in zip(after, before)))


def report_idle(bench):
    heading("Idle sessions (after EHLO), KiB each")
    many = 200 if bench.options.quick else 1000
    crowd = min(10_000, resource.getrlimit(resource.RLIMIT_NOFILE)[0] - DESCRIPTORS_SPARE)
    cases = [("HAProxy", many, None, None), ("smtpwarp", many, 24, 110), ("smtpwarp, TLS", many, 80, 170)]
    if not bench.options.quick:
        cases.append(("smtpwarp", crowd, 24, 110))
    rows = []
    for name, number, pss_goal, group_goal in cases:
        rows += idle_rows(bench, name, number, pss_goal, group_goal)
    table(["", "sessions", "figure", "KiB", "goal", ""], rows)


def idle_rows(bench, name, number, pss_goal, group_goal):
    memory = idle_memory(bench, name, number)
    rows = []
    for figure, value, limit in (("PSS", memory.pss, pss_goal), ("private", memory.private, None),
                                 ("with the kernel's share", memory.group, group_goal)):
        if value is None:
            rows.append([name, f"{number:,}", figure, "no memory controller", "", ""])
            continue
        verdict = bench.judge(f"{number} idle sessions, {name}, {figure}, KiB", value, limit and at_most(limit))
        rows.append([name, f"{number:,}", figure, f"{value:.1f}", *verdict])
    return rows


def fill_state(bench):
    """A file of --state whose slots are all in use."""
    top = pathlib.Path(BINARY).parent
    program, state = bench.directory / "make_state", bench.directory / "state.full"
    sources = ["test/lib/make_state.c", "io/statefile.c", "io/file.c", "io/readable.c", *(f"pure/{name}.c" for name in (
        "statemap", "detector", "replyclass"))]
    subprocess.run(["cc", "-std=c11", "-O2", "-I.", "-o", program, *sources], cwd=top, check=True)
    subprocess.run([program, state, "1100"], stdin=subprocess.DEVNULL, check=True)
    return state


def write_large_log(bench, size):
    """Records of a day, a thousand messages to each of a hundred sites and so on, until it has this size."""
    sample = (pathlib.Path(BINARY).parent / "hooks/sample/log.jsonl").read_text().splitlines()
    record = json.loads(next(line for line in sample if '"event":"message"' in line))
    path, second = bench.directory / "large.log", 0
    with path.open("w") as log:
        while log.tell() < size:
            batch = []
            for _ in range(5000):
                second += 1
                hour, minute = divmod(second // 60 % 1440, 60)
                record["time"] = f"2026-11-{1 + second // 86400 % 28:02}T{hour:02}:{minute:02}:{second % 60:02}.000000Z"
                record["site"] = f"site{second % 100}.example"
                record["result"] = "deferred" if second % 7 == 0 else "accepted"
                batch.append(json.dumps(record, separators=(",", ":")))
            log.write("\n".join(batch) + "\n")
    return path


def timed(command, output):
    """Seconds, and KiB of memory at the most."""
    start = time.perf_counter()
    with open(output, "wb") as out:
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=out)
        _, status, usage = os.wait4(process.pid, 0)
    if status:
        raise RuntimeError(f"bench: {command} ended with {status}")
    return time.perf_counter() - start, usage.ru_maxrss


def report_stat(bench):
    heading("smtpwarp-stat")
    state, rounds = fill_state(bench), 20
    seconds = statistics.median(timed([f"{BINARY}-stat", "metrics", "--state", state], os.devnull)[0] for _ in range(rounds))
    rows = [["metrics, all slots in use", f"{seconds * 1000:.1f} ms", "", "", ""]]
    size = 100_000_000 if bench.options.quick else 1_000_000_000
    seconds, memory = timed([f"{BINARY}-stat", "report", write_large_log(bench, size)], bench.directory / "report.html")
    verdict = bench.judge("report of 1 GB, s", seconds * 1e9 / size, at_most(20, " s"))
    rows.append([f"report of {size / 1e6:,.0f} MB", f"{seconds:.1f} s", f"{memory / 1024:.0f} MiB", *verdict])
    table(["", "time", "memory", "goal", ""], rows)


def report_size(bench):
    heading("Binaries")
    rows = []
    for binary, goal in (BINARY, at_most(240)), (f"{BINARY}-stat", None):
        stripped = bench.directory / "stripped"
        subprocess.run(["strip", "-o", stripped, binary], check=True)
        size = stripped.stat().st_size / 1000
        rows.append([pathlib.Path(binary).name, f"{size:.1f}", *bench.judge(f"{pathlib.Path(binary).name}, KB", size, goal)])
    table(["", "KB stripped", "goal", ""], rows)


# Markdown

def heading(text):
    print(f"\n### {text}\n", flush=True)


def table(head, rows):
    for row in head, ["---"] * len(head), *rows:
        print("| " + " | ".join(row) + " |", flush=True)


def first_line(*command):
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()[0]


def report_setting(bench):
    congestion = pathlib.Path("/proc/sys/net/ipv4/tcp_congestion_control").read_text().strip()
    print(f"Linux {platform.release()}, {os.cpu_count()} CPUs, load {os.getloadavg()[0]:.1f} at the start, "
          f"{congestion}; {first_line('haproxy', '-v')}; {first_line(BINARY, '--version')}. "
          f"Medians of {bench.options.rounds} rounds. `smtpwarp` is `--tls none --log none`, what HAProxy does too; "
          "`defaults` looks for STARTTLS and logs to a file.")


def parse_options():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="under a minute, rougher")
    parser.add_argument("--rounds", type=int, help="default 5, with --quick 2")
    parser.add_argument("--sessions", type=int, default=20, help="at once in the message loads (default 20)")
    options = parser.parse_args()
    options.rounds = options.rounds or (2 if options.quick else 5)
    return options


def check_needs():
    if reason := netns.unsupported():
        sys.exit(f"bench: {reason}")
    if missing := [name for name in (BINARY, *PROGRAMS) if not shutil.which(name)]:
        sys.exit(f"bench: not found: {', '.join(missing)} (make; packages are listed in test/packages-demo and packages-bench)")


def raise_descriptor_limit():
    """Every child inherits it; the sink and the client hold one descriptor for each idle session."""
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def main():
    options = parse_options()
    os.environ["PATH"] += ":/usr/sbin:/sbin"
    check_needs()
    raise_descriptor_limit()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("bench: terminated"))
    with netns.single() as host, host, contextlib.ExitStack() as stack:
        host.sysctl("net.ipv4.ip_local_port_range", "10000 65000")
        bench = Bench(options, host, stack)
        report_setting(bench)
        bench.start_sinks()
        names = dict.fromkeys(name for load in LOADS for name in load.who)
        contestants = {name: bench.contestant(name) for name in names}
        samples = measure_loads(bench, contestants)
        report_loads(bench, samples)
        report_state(bench)
        report_latency(bench, contestants)
        report_start_cost(bench, samples)
        report_hooks(bench)
        report_tls(bench)
        report_idle(bench)
        report_stat(bench)
        report_size(bench)
        heading("Short of the goal")
        print("\n".join(f"- {text}" for text in bench.shortfalls) or "Nothing.")


if __name__ == "__main__":
    main()
