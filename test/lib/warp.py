"""Starts smtpwarp for a test and looks after it.

    warp = Warp(namespace, directory, "--tls", "none")      # the `warp` fixture does this part
    session = warp.session()                                # inetd's way: a process, its client and its upstream
    session.greet("SIZE 1000")
    session.client.send("MAIL FROM:<a@b.example>")

Without `listen()` every session is a process of its own with the client's socket as fd 0, as inetd starts it. close()
fails the test for a crash, a sanitizer's report, a process that stays, or a log that is not what DESIGN 7 says.
"""
import contextlib
import fcntl
import json
import os
import pathlib
import re
import signal
import socket
import subprocess

import peers
from waiting import TIMEOUT, wait_until

BINARY = os.path.abspath(os.environ.get("SMTPWARP", pathlib.Path(__file__).parent.parent.parent / "smtpwarp"))
LISTENERS = {"v", "event", "time"}     # the fields of a record that belongs to no session
BRIEF = LISTENERS | {"session", "client", "server", "direction", "data"}
COMMON = LISTENERS | {"session", "client", "server", "helo", "auth", "transaction", "mail_from", "rcpt_to", "size", "message_id"}
NO_REPORTS = {"ASAN_OPTIONS": "detect_leaks=0:handle_segv=0"}   # where a sanitizer would be in the way
MESSAGE = b"Subject: hello\r\n\r\nHello.\r\n.\r\n"


def environment(directory, extra=None):
    """A clean one, with sanitizer reports (if the binary makes any) going to files. Extra wins."""
    return {"PATH": os.environ["PATH"],
            "ASAN_OPTIONS": f"log_path={directory}/sanitizer:detect_stack_use_after_return=1",
            "UBSAN_OPTIONS": f"log_path={directory}/sanitizer:print_stacktrace=1:halt_on_error=1", **(extra or {})}


def sanitizer_reports(directory):
    return [path.read_text() for path in pathlib.Path(directory).glob("sanitizer*")]


def send_message(client, data=MESSAGE, recipient="b@mail.test"):
    """As a client that has been greeted; returns the reply to the message."""
    client.ask("MAIL FROM:<a@client.example>", "250")
    client.ask(f"RCPT TO:<{recipient}>", "250")
    client.ask("DATA", "354")
    client.send_raw(data)
    return client.expect("250")


def is_pending(pid, number):
    """Whether the process has not taken this signal yet: a second one would become one with it, signal(7)."""
    with open(f"/proc/{pid}/status") as status:
        return int(re.search(r"^ShdPnd:\s*(\w+)", status.read(), re.M)[1], 16) >> (number - 1) & 1


def cpu_seconds(pid):
    """What the process has used."""
    with open(f"/proc/{pid}/stat") as file:
        fields = file.read().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def gone(pid):
    """Whether the process has ended; one that ends while its file is read makes that ESRCH, not ENOENT."""
    with contextlib.suppress(OSError):
        return ") Z" in pathlib.Path(f"/proc/{pid}/stat").read_text()
    return True


def children_of(pid):
    """By name; smtpwarp-broker and such are no sessions."""
    children = {}
    with contextlib.suppress(OSError), open(f"/proc/{pid}/task/{pid}/children") as file:
        for word in file.read().split():
            with contextlib.suppress(OSError):
                children[int(word)] = pathlib.Path(f"/proc/{word}/comm").read_text().strip()
    return children


def is_sealed(file):
    """Whether nobody can write to this memory file."""
    get_seals, write = 1034, 8      # linux/fcntl.h
    return bool(fcntl.fcntl(file, get_seals) & write)


def sessions_of(pid):
    return [child for child, name in children_of(pid).items() if not name.startswith("smtpwarp-")]


class Warp:
    def __init__(self, namespace, directory, *options, upstream=None, env=None):
        self.namespace, self.directory = namespace, pathlib.Path(directory)
        self.group = peers.Group()
        self.upstream = peers.Listener(group=self.group)
        self.doors = [self.upstream]
        self.log_path = self.directory / "log"
        self.error_path = self.directory / "stderr"
        self.options, self.env = [str(option) for option in options], env
        if upstream:                # a peers.MailServer; otherwise the test itself plays self.upstream
            self.options += ["--upstream", upstream.url]
        self.processes, self.listener, self.listen_port = [], None, None
        self.wrapper = []           # a command that runs smtpwarp, as strace does
        self.binary = BINARY
        self.complete = True        # every session is expected to end with its `close` record
        self.exit_codes = (0,)

    def etc(self, **texts):
        """Files of /etc that only this smtpwarp sees: hosts="...", resolv_conf="..."."""
        script = ""
        for name, text in texts.items():
            path = self.directory / name
            path.write_bytes(text if isinstance(text, bytes) else text.encode())
            script += f"mount --bind {path} /etc/{name.replace('_', '.')} && "
        self.wrapper = ["unshare", "--mount", "sh", "-c", script + 'exec "$@"', "sh"]

    # Starting

    def command(self):
        options = self.options
        if not any(option.startswith("--upstream") for option in options) and "--transparent" not in options:
            options = ["--upstream", self.upstream.name_port, *options]
        if "--log" not in options:
            options = ["--log", f"file:{self.log_path}", *options]
        return [*self.wrapper, self.binary, *(option for option in options if option != "--transparent")]

    def spawn(self, *options, **popen):
        """A process. Its stderr goes to a file, but for callers that want it elsewhere."""
        with open(self.error_path, "ab") as errors:
            process = subprocess.Popen([*self.command(), *map(str, options)], env=environment(self.directory, self.env),
                                       **{"stderr": errors, "stdin": subprocess.DEVNULL, **popen})
        self.processes.append(process)
        return process

    def listen(self, *addresses):
        """One process for all connections; connect() goes to the first address from now on."""
        addresses = addresses or ("127.0.0.1:2525",)
        return self.listen_by(*(word for address in addresses for word in ("--listen", address)))

    def listen_by(self, *options):
        """listen() by these options; returns when smtpwarp says that it is ready."""
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as notify:
            notify.bind("")     # a name of the kernel's choice, reachable for --user too
            notify.settimeout(TIMEOUT)
            self.env = {**(self.env or {}), "NOTIFY_SOCKET": "@" + notify.getsockname()[1:].decode()}
            self.listener = self.spawn(*options)
            assert b"READY=1" in notify.recv(4096)
        self.listen_port = int(re.search(r"\d+$", str(options[-1]))[0])
        return self

    def listen_upstream(self, address, port):
        """One more place where the test plays the upstream."""
        self.doors.append(peers.Listener(address, port, self.group))
        return self.doors[-1]

    def connect(self, address="127.0.0.1", port=None, source=None):
        if self.listener:
            return peers.connect(address, port or self.listen_port, self.group, source)
        with socket.create_server((address, 0), family=socket.AF_INET6 if ":" in address else socket.AF_INET) as door:
            client = peers.connect(address, door.getsockname()[1], self.group, source)
            accepted, _ = door.accept()
        with accepted:
            self.spawn(stdin=accepted, stdout=accepted)
        return client

    def greeted(self):
        """A client whose EHLO has been answered."""
        client = self.connect()
        client.expect("220")
        client.ask("EHLO client.example", "250")
        return client

    def session(self):
        """A client and the upstream's end of it, before the first byte."""
        client = self.connect()
        return Session(client, self.upstream.accept())

    # Its log

    def records(self, event=None, **fields):
        """The records so far, of that event and with those values."""
        if not self.log_path.exists():
            return []
        text = self.log_path.read_bytes().decode("utf-8")       # strict: a record is UTF-8
        records = [json.loads(line, parse_constant=_no_json) for line in text.split("\n")[:-1]]
        wanted = dict(fields, **({"event": event} if event else {}))
        return [record for record in records if wanted.items() <= {k: _plain(v) for k, v in record.items()}.items()]

    def wait_until(self, condition, what=""):
        """waiting.wait_until(), while what comes for the test's peers is taken in. A failure shows the log."""
        return wait_until(condition, lambda: f"{what}; log: {self.log_text()[-3000:]}", pause=self.group.turn)

    def wait_for(self, event, count=1, **fields):
        """The newest record of that event, once there are count of them."""
        def enough():
            found = self.records(event, **fields)
            return found[count - 1:count]
        return self.wait_until(enough, f"{count} records {event} {fields}")[0]

    def wait_held(self, count=1):
        """Until so many clients of this namespace's smtpwarps are held (--tarpit): each has a socket for that."""
        self.wait_until(lambda: len(self.namespace.abstract_names("smtpwarp-tarpit-")) == count, f"{count} clients that are held")

    def wait_asleep(self, process=None):
        """Until it waits for events, and so has handled what was sent to it by now, SIGHUP too."""
        pid = (process or self.processes[-1]).pid

        def asleep():
            with open(f"/proc/{pid}/status") as file:
                status = dict(line.split(":\t") for line in file)
            return status["State"].startswith("S") and not int(status["ShdPnd"], 16) & 1 << (signal.SIGHUP - 1)
        self.wait_until(asleep, f"process {pid} is busy")

    def hang_up(self):
        """SIGHUP, until the listener has read again what it reads then."""
        self.listener.send_signal(signal.SIGHUP)
        self.wait_asleep(self.listener)

    def log_text(self):
        return self.log_path.read_text(errors="replace") if self.log_path.exists() else ""

    # The end

    def children(self):
        """The processes of sessions."""
        return sessions_of(self.listener.pid)

    def wait_exit(self, process=None):
        process = process or self.processes[-1]
        self.wait_until(lambda: process.poll() is not None, f"the end of smtpwarp {process.args[1:]}")
        return process.returncode

    def close(self):
        self.group.close()
        for door in self.doors:
            door.close()
        if self.listener and self.listener.poll() is None:
            self.listener.send_signal(signal.SIGTERM)
        try:
            codes = [self.wait_exit(process) for process in self.processes]
        finally:
            for process in self.processes:
                if process.poll() is None:
                    process.kill()
                    process.wait()
        assert not sanitizer_reports(self.directory), sanitizer_reports(self.directory)[0]
        assert set(codes) <= set(self.exit_codes), f"exit codes {codes}; stderr: {self.error_path.read_text()[-2000:]}"
        self._check_log()

    def _check_log(self):
        """What holds for every log: DESIGN 7 and PROTOCOL 78."""
        assert self.log_text()[-1:] in ("", "\n"), "the last record is not a whole line"
        records = self.records()
        for record in records:
            fields = LISTENERS if "session" not in record else BRIEF if record["event"] == "comm" else COMMON
            assert fields <= set(record), f"lacks {fields - set(record)}: {record}"
            assert record["v"] == 1
            assert re.fullmatch(r"[0-9A-HJKMNP-TV-Z]{26}|", record.get("session", "")), record["session"]
            assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z", record["time"]), record["time"]
        if self.complete:
            sessions = [record["session"] for record in records if "session" in record]
            closes = [record["session"] for record in records if record["event"] == "close"]
            assert sorted(closes) == sorted(set(sessions)), "a session without exactly one close record"


def _no_json(word):
    raise ValueError(f"{word} is not JSON")


def _plain(value):
    return json.dumps(value) if isinstance(value, (dict, list)) else value


def same(reply, wanted):
    """RFC 5321 4.2 has a space behind the code of a last line, even if no text follows; senders may leave it out."""
    return reply.rstrip(" ") == wanted.rstrip(" ")


class Session:
    """Both ends of a session, and the usual ways from one phase to the next, with an upstream played by hand."""

    PHASES = "connect", "banner", "ehlo", "mail", "rcpt", "data", "body", "dot", "sent"

    def __init__(self, client, server):
        self.client, self.server = client, server

    def exchange(self, command, reply, seen=None):
        """A command goes to the upstream as it is (or as seen), its reply comes back as it is."""
        self.client.send(command)
        self.server.expect_line(seen or command)
        self.server.send(*reply.split("\n"))
        got = self.client.reply()
        assert same(got, reply), f"the client got {got!r} for {reply!r}"

    def greet(self, *extensions):
        """Banner and EHLO; returns the EHLO reply that the client got."""
        self.banner()
        return self.ehlo(*extensions)

    def banner(self):
        self.server.send("220 server.example ESMTP")
        self.client.expect("220 server.example ESMTP")

    def ehlo(self, *extensions):
        self.client.send("EHLO client.example")
        self.server.expect_line("EHLO client.example")
        lines = ["server.example", *extensions]
        self.server.send(*[f"250-{line}" for line in lines[:-1]], f"250 {lines[-1]}")
        return self.client.expect("250")

    def mail(self, sender="MAIL FROM:<from@client.example>"):
        self.exchange(sender, "250 2.1.0 sender fine")

    def rcpt(self, recipient="RCPT TO:<to@server.example>"):
        self.exchange(recipient, "250 2.1.5 recipient fine")

    def data(self):
        self.exchange("DATA", "354 go on")

    def body(self):
        self.client.send_raw(b"Subject: half")

    def dot(self):
        """The end of data has reached the upstream, which has not answered."""
        self.client.send_raw(b"\r\n\r\nwhole\r\n.\r\n")
        assert self.server.until(b"\r\n.\r\n") == b"Subject: half\r\n\r\nwhole\r\n.\r\n"

    def sent(self):
        self.server.send("250 2.0.0 taken")
        self.client.expect("250 2.0.0 taken")

    def to(self, phase, *extensions):
        """Goes through the phases up to and including this one."""
        for step in self.PHASES[1:self.PHASES.index(phase) + 1]:
            getattr(self, step)(*(extensions if step == "ehlo" else ()))
        return self

    def transaction(self, data=MESSAGE):
        """A whole message; the data as the upstream got it."""
        self.mail()
        self.rcpt()
        self.data()
        self.client.send_raw(data)
        seen = self.server.until(b".\r\n") if data == b".\r\n" else self.server.until(b"\r\n.\r\n")
        self.sent()
        return seen

    def quit(self):
        self.exchange("QUIT", "221 2.0.0 bye")
        self.server.close()
        self.client.expect_end()
