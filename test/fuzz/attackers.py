#!/usr/bin/python3
"""Fuzzes the listener while others on its host do it harm: processes of other users, and what an operator or a full disk may do.

    attackers.py [--seconds N | --count N] [--from SEED] [PROGRAM]      for so long or so many, a listener for each seed
    attackers.py --seed SEED [PROGRAM]                                  one, with its attacks shown

A seed chooses one to three attacks. While they run, clients send mail. Of each attempt to send, this must be true:

* Acknowledged, the message has come to the server once, octet for octet; otherwise at most once.
* Attacks of other users, and whatever becomes of the log, keep no message back. Those that take away what smtpwarp needs, such as
  hooks, routes or descriptors, may defer mail; when they are over, the next message passes. Limits last, so none need pass.
* The listener lives, ends with 0 on SIGTERM, and nothing has come from a sanitizer.
* The log's lines are whole and JSON; where nobody has touched it, each acknowledged message is in it. No record has a client of a forged
  PROXY header.
"""
import argparse
import contextlib
import json
import os
import pathlib
import random
import resource
import shutil
import signal
import smtplib
import socket
import subprocess
import sys
import tempfile
import threading
import time

ROOT = pathlib.Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "test/lib"))
OTHER = 33              # a user who is not smtpwarp's
PORT = 2525
CLIENTS, SENDING = 3, 0.6    # seconds that each client sends
PATIENCE = 20           # seconds in which mail must pass again
ATTACKER = "127.0.0.66"
FORGED = "203.0.113.9"

SQUAT = """
import random, resource, socket, sys
resource.setrlimit(resource.RLIMIT_NOFILE, (4000, 4000))
made, random = [], random.Random(int(sys.argv[1]))
for turn in range(3500):
    port = random.randrange(32768, 61000)
    name = random.choice([f"smtpwarp/{port}/{sys.argv[2]}/127.0.0.1/127.0.0.1", f"smtpwarp/{sys.argv[2]}/{port}/127.0.0.1/127.0.0.1",
                          f"smtpwarp-tarpit-{turn:012x}{0:09x}{0:016x}", "smtpwarp-tarpit-"])
    made.append(socket.socket(socket.AF_UNIX, random.choice([socket.SOCK_STREAM, socket.SOCK_DGRAM, socket.SOCK_SEQPACKET])))
    try:
        made[-1].bind("\\0" + name)
        made[-1].listen()
    except OSError:
        pass
sys.stdin.read()
"""
DIAG = """
import socket, struct
while True:
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 4) as s:
        for family in 1, 2, 10:
            body = struct.pack("BBHIIIII", 1, 0, 0, 0xffffffff, 0, 0xff, 0, 0) if family == 1 else \\
                struct.pack("BBBBI", family, 6, 0, 0, 0xffffffff) + bytes(48)
            s.send(struct.pack("IHHII", 16 + len(body), 20, 0x301, 1, 0) + body)
        for _ in range(10):
            s.recv(65536)
"""
SIGNALS = """
import os, sys
pid = int(sys.argv[1])
while True:
    pids = [pid]
    for parent in pids:
        try:
            with open(f"/proc/{parent}/task/{parent}/children") as file:
                pids += map(int, file.read().split())
        except OSError:
            pass
    for victim in pids:
        for number in 1, 2, 3, 9, 15, 17, 19:     # anyone in the session may send SIGCONT, kill(2)
            try:
                os.kill(victim, number)
            except PermissionError:
                pass
            except ProcessLookupError:
                pass
            else:
                raise SystemExit("a signal that nobody may send has been sent")
"""
ROUTES = "*;{upstream};\n"
PASSWORDS = "nobody.example relay:secret\n"
HOOKS = {"rcpt": "#!/bin/sh\necho accept\n", "data": "#!/bin/sh\n{ echo replace-message; cat <&3; }\n", "log": "#!/bin/sh\ncat >/dev/null\n"}


class Attack:
    """One of them: step() again and again between begin() and end()."""
    strict = True       # no message is kept back
    log = True          # each message is in the log
    lasts = False       # there is no end of it, after which mail passes
    pause = 0.01

    def __init__(self, case):
        self.case, self.random = case, random.Random(case.random.random())

    def lower(self):
        pass

    def begin(self):
        pass

    def step(self):
        pass

    def end(self):
        pass


class Process(Attack):
    """A program of another user."""
    def words(self):
        raise NotImplementedError

    def begin(self):
        self.process = subprocess.Popen([sys.executable, "-c", *self.words()], user=OTHER, group=OTHER, extra_groups=[],
                                        stdin=subprocess.PIPE, stderr=subprocess.PIPE)

    def end(self):
        self.process.kill()
        errors = self.process.communicate()[1]
        if b"nobody may send" in errors:
            self.case.fault(errors.decode())


class Squat(Process):
    def words(self):
        return SQUAT, str(self.random.randrange(1 << 30)), str(self.case.server.port)


class Diag(Process):
    def words(self):
        return (DIAG,)


class Signals(Process):
    def words(self):
        return SIGNALS, str(self.case.proxy.listener.pid)


class Hangups(Attack):
    """An operator in a hurry."""
    def step(self):
        self.case.proxy.listener.send_signal(signal.SIGHUP)


class Flood(Attack):
    """All that one address may have, with words of all kinds."""
    WORDS = [b"", b"", b"PROXY TCP4 203.0.113.9 203.0.113.8 4096 25\r\n", b"EHLO x\r\nXCLIENT ADDR=203.0.113.9 NAME=forged.example\r\n",
             b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c\xcb\0\x71\x09\xcb\0\x71\x08\x10\0\0\x19", b"POST / HTTP/1.1\r\nHost: x\r\n\r\n",
             b"\x16\x03\x01\x02\0\x01", b"EHLO " + b"x" * 3000, b"EHLO x\r\nMAIL FROM:<>\r\nRCPT TO:<a@b>\r\nDATA\r\nhalf", bytes(9000)]
    sources = 1
    pause = 0.002

    def begin(self):
        self.sockets = []

    def step(self):
        sock = socket.socket()
        sock.setblocking(False)
        with contextlib.suppress(OSError):
            sock.bind((f"127.0.0.{66 + self.random.randrange(self.sources)}", 0))
            sock.connect_ex(("127.0.0.1", PORT))
        self.sockets.append(sock)
        victim = self.random.choice(self.sockets)
        with contextlib.suppress(OSError):
            victim.send(self.random.choice(self.WORDS))
        if len(self.sockets) > 150 or self.random.random() < .3:
            self.sockets.remove(victim)
            if self.random.random() < .5:
                victim.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
            victim.close()

    def end(self):
        for sock in self.sockets:
            sock.close()


class Exhaust(Flood):
    """All sessions, from many addresses."""
    strict = False
    sources = 100


class Files(Attack):
    """What smtpwarp reads is changed, now and then to what it cannot read."""
    strict = False
    pause = 0.03

    def paths(self):
        raise NotImplementedError

    def begin(self):
        self.kept = {path: path.read_text() for path in self.paths()}

    def clear(self, path):
        if path.is_dir() and not path.is_symlink():
            path.rmdir()
        else:
            path.unlink(missing_ok=True)

    def write(self, path, text):
        new = path.with_name(".new")
        new.write_text(text)
        new.chmod(0o755)
        new.rename(path)

    def step(self):
        path = self.random.choice(list(self.kept))
        how = self.random.randrange(9)
        self.clear(path)
        if how in (0, 1, 2):
            self.write(path, self.kept[path])
        elif how == 3:
            self.write(path, self.random.choice(["", "#!/bin/sh\n", "#!/nowhere\n", "garbage\0garbage", ";;;;\n", "#!/bin/sh\nkill -9 $PPID\n"]))
        elif how == 4:
            path.mkdir()
        elif how == 5:
            path.symlink_to(path.name)
        elif how == 6:
            self.write(path, self.kept[path])
            path.chmod(0)
        elif how == 7:
            self.write(path, self.kept[path])
            with contextlib.suppress(OSError):      # it runs
                os.truncate(path, self.random.randrange(len(self.kept[path])))
        if self.random.random() < .3:
            self.case.proxy.listener.send_signal(signal.SIGHUP)

    def end(self):
        for path, text in self.kept.items():
            self.clear(path)
            self.write(path, text)
        self.case.proxy.listener.send_signal(signal.SIGHUP)


class HookFiles(Files):
    def paths(self):
        return [self.case.directory / "hooks" / event / "50-hook" for event in HOOKS]


class RouteFiles(Files):
    def paths(self):
        return [self.case.directory / "routes", self.case.directory / "passwords"]


class LogFile(Attack):
    """Renamed, removed, truncated, or something else in its place."""
    log = False
    pause = 0.02

    def step(self):
        path = self.case.proxy.log_path
        how = self.random.randrange(5)
        if path.is_dir():
            path.rmdir()
        elif how == 0 and path.exists():
            path.rename(path.with_name(f"log.{time.monotonic_ns()}"))
        elif how == 1:
            path.unlink(missing_ok=True)
        elif how == 2 and path.exists():
            os.truncate(path, 0)
        elif how == 3 and not path.exists():
            path.mkdir()
        self.case.proxy.listener.send_signal(signal.SIGHUP)

    def end(self):
        if self.case.proxy.log_path.is_dir():
            self.case.proxy.log_path.rmdir()
        self.case.proxy.listener.send_signal(signal.SIGHUP)


class Limit(Attack):
    """The listener and what it starts may have less, from its start on."""
    strict = log = False
    lasts = True
    kind, values = resource.RLIMIT_NOFILE, range(14, 60)

    def lower(self):
        """In the process that becomes the listener."""
        value = self.random.choice(self.values)
        resource.setrlimit(self.kind, (value, value))


class FileSizes(Limit):
    kind, values = resource.RLIMIT_FSIZE, [100000, 300000]   # less, and it does not start with --upstream-auth


class Stacks(Limit):
    kind, values = resource.RLIMIT_STACK, [128 << 10, 256 << 10, 1 << 20]


class Killer(Attack):
    """The OOM killer ends sessions."""
    strict = log = False
    pause = 0.05

    def step(self):
        for pid in self.case.proxy.children():
            if self.random.random() < .2:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)


class Stopper(Attack):
    def step(self):
        self.case.proxy.listener.send_signal(signal.SIGSTOP)
        time.sleep(.01)
        self.end()

    def end(self):
        self.case.proxy.listener.send_signal(signal.SIGCONT)


ATTACKS = [Squat, Diag, Signals, Hangups, Flood, Exhaust, HookFiles, RouteFiles, LogFile, Limit, FileSizes, Stacks, Killer, Stopper]
SINKS = ["file", "file", "file", "file", "full", "pipe", "socket"]


class Case:
    """A listener, its attackers, and clients that only want to send."""

    def __init__(self, seed, verbose):
        self.seed, self.verbose, self.random = seed, verbose, random.Random(seed)
        self.faults, self.attempts, self.lock, self.over = [], [], threading.Lock(), threading.Event()
        self.acknowledged = 0
        self.kinds = self.random.sample(ATTACKS, self.random.choice([1, 1, 2, 3]))
        self.sink = self.random.choice(SINKS)
        self.hooks, self.routes = self.random.random() < .5, self.random.random() < .4
        if HookFiles in self.kinds:
            self.hooks = True
        if RouteFiles in self.kinds:
            self.routes = True
        if self.sink != "file" and LogFile in self.kinds:
            self.kinds.remove(LogFile)
        self.strict = all(kind.strict for kind in self.kinds)

    def fault(self, text):
        with self.lock:
            self.faults.append(text)

    # The listener

    def log_options(self, closing):
        if self.sink == "full":
            (self.directory / "disk").mkdir()
            subprocess.run(["mount", "-t", "tmpfs", "-o", "size=16k,mode=777", "tmpfs", self.directory / "disk"], check=True)
            closing.callback(subprocess.run, ["umount", "-l", self.directory / "disk"], check=True)
            (self.directory / "disk/other").write_bytes(bytes(8192))
            return ["--log", f"file:{self.directory}/disk/log"]
        if self.sink == "socket":
            sock = closing.enter_context(socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM))
            sock.bind(str(self.directory / "log.socket"))
            os.chmod(self.directory / "log.socket", 0o777)
            return ["--log", f"unix:{self.directory}/log.socket"]
        return ["--log", "stderr"] if self.sink == "pipe" else []

    def start(self, closing):
        options = ["--user", "nobody", "--max-sessions", 60, "--max-sessions-per-source", 20, "--accept-proxy", "127.0.0.250",
                   "--command-timeout", 20, *self.log_options(closing)]
        if self.hooks:
            for event, text in HOOKS.items():
                (self.directory / "hooks" / event).mkdir(parents=True)
                path = self.directory / "hooks" / event / "50-hook"
                path.write_text(text)
                path.chmod(0o755)
            options += ["--hooks", self.directory / "hooks", "--hook-timeout", 5]
        if self.routes:
            (self.directory / "routes").write_text(ROUTES.format(upstream=self.server.url))
            (self.directory / "passwords").write_text(PASSWORDS)
            options += ["--connect-on", "recipient", "--routes", self.directory / "routes", "--upstream-auth", self.directory / "passwords"]
        self.proxy = Attacked(self.host, self.directory, *options, upstream=None if self.routes else self.server)
        self.proxy.complete = False
        self.attacks = [kind(self) for kind in self.kinds]
        self.proxy.lower = [attack.lower for attack in self.attacks]
        if self.routes:
            self.proxy.options.append("--transparent")      # no upstream of the test's own
        if self.sink == "pipe":
            self.proxy.pipe = full_pipe(closing)
        closing.callback(self.proxy.close)
        self.proxy.listen_by("--listen", f"127.0.0.1:{PORT}")

    # Mail

    def message(self, number):
        own = random.Random(f"{self.seed} {number}")
        lines = own.choice([1, 3, 50, 3000])
        return f"Message-ID: <{number}@client.example>\r\n\r\n".encode() + b"".join(
            b"%d %s\r\n" % (own.randrange(1 << 40), b"x" * own.randrange(60)) for _ in range(lines))

    def send(self):
        """One attempt, with a message of its own: whether it was acknowledged."""
        with self.lock:
            number = len(self.attempts)
            self.attempts.append(False)
        done = why = False
        try:
            client = smtplib.SMTP("127.0.0.1", PORT, "client.example", timeout=30)
            try:
                client.ehlo()
                client.sendmail("a@client.example", "b@mail.example", self.message(number))
                done = True
                client.quit()
            finally:
                client.close()
        except (smtplib.SMTPException, OSError) as error:
            why = error
        self.attempts[number] = done
        if self.verbose and not done:
            print(f"attempt {number}: {why!r}", flush=True)
        return done, why

    def client(self):
        with self.host:
            end = time.monotonic() + SENDING
            while time.monotonic() < end:
                done, why = self.send()
                if not done and self.strict:
                    self.fault(f"mail was kept back: {why!r}")

    def attack(self, attack):
        with self.host:
            attack.begin()
            try:
                while not self.over.wait(attack.pause):
                    attack.step()
            finally:
                attack.end()

    def run_thread(self, what, *args):
        try:
            what(*args)
        except Exception as error:      # pylint: disable=broad-except; it is told
            self.fault(f"{what.__name__} {args}: {error!r}")

    # What is true in the end

    def expect_passes(self):
        end = time.monotonic() + PATIENCE
        while not (result := self.send())[0]:
            if time.monotonic() > end or self.proxy.listener.poll() is not None:
                self.fault(f"mail does not pass when all is over: {result[1]!r}")
                return
            time.sleep(.2)

    def check_mail(self):
        got = {}
        for message in list(self.server.messages):
            number = int(message["data"].partition(b"@")[0].rpartition(b"<")[2])
            got.setdefault(number, []).append(message["data"])
        for number, done in enumerate(self.attempts):
            copies = got.get(number, [])
            if len(copies) > 1 or (done and not copies):
                self.fault(f"message {number}, {'acknowledged' if done else 'not acknowledged'}, came {len(copies)} times")
            if any(copy != self.message(number) + b".\r\n" for copy in copies):
                self.fault(f"message {number} differs: {len(self.message(number)) + 3} octets, {[len(copy) for copy in copies]} came")

    def check_log(self):
        lines = []
        for path in [*self.directory.glob("log*"), *self.directory.glob("disk/log")]:
            if not path.is_file():
                continue
            text = path.read_bytes()
            if text[-1:] not in (b"", b"\n"):
                self.fault(f"the last record of {path.name} is not whole")
            lines += text.split(b"\n")[:-1]
        records = []
        for line in lines:
            try:
                records.append(json.loads(line))
            except ValueError:
                self.fault(f"no JSON: {line[:200]!r}")
        if any((record.get("client") or {}).get("ip") == FORGED for record in records):
            self.fault("a forged client is in the log")
        if self.sink == "file" and all(kind.log for kind in self.kinds):
            found = {record["message_id"] for record in records if record["event"] == "message" and record["result"] == "accepted"}
            missing = [number for number, done in enumerate(self.attempts) if done and f"<{number}@client.example>" not in found]
            if missing:
                self.fault(f"messages {missing} are not in the log")

    def play(self):
        attackers = [threading.Thread(target=self.run_thread, args=(self.attack, attack)) for attack in self.attacks]
        clients = [threading.Thread(target=self.run_thread, args=(self.client,)) for _ in range(CLIENTS)]
        for thread in [*attackers, *clients]:
            thread.start()
        for thread in clients:
            thread.join()
        self.over.set()
        for thread in attackers:
            thread.join()
        if not any(attack.lasts for attack in self.attacks):
            self.expect_passes()
        if self.proxy.listener.poll() is not None:
            self.fault(f"the listener has ended with {self.proxy.listener.returncode}")

    def run(self):
        words = ", ".join(kind.__name__ for kind in self.kinds)
        if self.verbose:
            print(f"{words}; log: {self.sink}; hooks: {self.hooks}; routes: {self.routes}", flush=True)
        self.directory = pathlib.Path(tempfile.mkdtemp(prefix="attack", dir="/dev/shm"))
        self.directory.chmod(0o777)
        try:
            with contextlib.ExitStack() as closing:
                self.host = closing.enter_context(netns.single())
                with self.host:
                    self.server = peers.MailServer()
                    closing.callback(self.server.close)
                    self.start(closing)
                    self.play()
                    closing.pop_all().close()
            self.check_mail()
            self.check_log()
        except AssertionError as error:
            self.fault(str(error))
        finally:
            shutil.rmtree(self.directory, ignore_errors=True)
        if self.faults:
            print(f"---- seed {self.seed} ({words}; log: {self.sink}): replay with --seed {self.seed}", *sorted(set(self.faults)), sep="\n",
                  flush=True)
        return not self.faults


def full_pipe(closing):
    """The end for writing of a pipe that has no room, and whose reader does not read."""
    reader, writer = os.pipe()
    closing.callback(os.close, reader)
    closing.callback(os.close, writer)
    os.set_blocking(writer, False)
    with contextlib.suppress(BlockingIOError):
        while True:
            os.write(writer, b"x" * 4096)
    os.set_blocking(writer, True)
    return writer


def arguments():
    parser = argparse.ArgumentParser()
    parser.add_argument("--seconds", type=float, default=10)
    parser.add_argument("--count", type=int)
    parser.add_argument("--from", dest="start", type=int, default=1)
    parser.add_argument("--seed", type=int)
    parser.add_argument("program", nargs="?", default=str(ROOT / "smtpwarp"))
    return parser.parse_args()


def main():
    end, seed, bad, sent, done = time.monotonic() + asked.seconds, asked.start, 0, 0, 0
    if asked.seed is not None:
        sys.exit(not Case(asked.seed, True).run())
    while (seed - asked.start < asked.count if asked.count else time.monotonic() < end) and bad < 10:
        case = Case(seed, False)
        bad += not case.run()
        sent += len(case.attempts)
        done += sum(case.attempts)
        seed += 1
    print(f"{seed - asked.start} listeners, {sent} messages, {done} of them acknowledged: {bad} findings")
    sys.exit(1 if bad else 0)


asked = arguments()
os.environ["SMTPWARP"] = os.path.abspath(asked.program)
import netns    # noqa: E402; these read SMTPWARP
import peers    # noqa: E402
import warp     # noqa: E402


class Attacked(warp.Warp):
    pipe = None         # takes the place of its file for stderr
    lower = ()          # what is called before it is started

    def spawn(self, *options, **popen):
        if self.pipe:
            popen["stderr"] = self.pipe
        return super().spawn(*options, **popen, preexec_fn=self.lowered)

    def lowered(self):
        for lower in self.lower:
            lower()

    def _check_log(self):
        """Attackers touch it: check_log() above looks."""


main()
