"""Hooks and late connections under hostile events. DESIGN 4, 6; PROTOCOL 2, 8, 9, 15, 16, 66, 68, 71."""
import contextlib
import os
import random
import signal
import socket
import threading
import time

import pytest

import peers
from hooks import Hooks
from warp import MESSAGE, cpu_seconds

LATE = ["--connect-on", "recipient", "--hostname", "proxy.example"]
BIG = b"A: b\r\n\r\n" + b"0123456789abcdef" * 62 + b"\r\n"
BIG *= 16 << 10     # more than sockets hold: 16 MiB


@pytest.fixture
def hooks(tmp_path):
    return Hooks(tmp_path / "hooks")


def opened(server, *extensions):
    """A server of a late session, up to its 250 to RCPT."""
    server.send("220 server.example")
    server.line()
    lines = ["server.example", *extensions]
    server.send(*[f"250-{line}" for line in lines[:-1]], f"250 {lines[-1]}")
    for verb in "MAIL", "RCPT":
        assert server.line().startswith(verb)
        server.send("250 2.1.0 fine")
    return server


def resident(path, answer):
    """A resident hook: answer(connection) for each, in a thread."""
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(path))
    listener.listen(8)

    def serve():
        while True:
            connection, _ = listener.accept()
            with connection:
                answer(connection)
    threading.Thread(target=serve, daemon=True).start()


# What the server says while it is sent a kept message

@pytest.mark.parametrize("mode", ["early", "late"])
@pytest.mark.parametrize("reply", ["552 5.3.4 too much", "250 2.0.0 taken"])
@pytest.mark.parametrize("end", ["half_close", "close"])
def test_9_reply_and_end_in_the_middle_of_a_chunk_of_ours(warp, hooks, mode, reply, end):
    """The client hears the refusal, or 451 for a 250 that cannot be meant, and a late session goes on."""
    hooks.script("data", "exit 0")
    proxy = warp(*hooks.options, *(LATE if mode == "late" else []), "--tls", "none", "--message-size-limit", 0,
                 "--hook-timeout", 30)
    if mode == "late":
        client = proxy.greeted()
        client.send("MAIL FROM:<a@b>", "RCPT TO:<b@c>")
        server = opened(proxy.upstream.accept(), "CHUNKING")
        for _ in range(2):
            client.expect("250")
    else:
        session = proxy.session().to("rcpt", "CHUNKING")
        client, server = session.client, session.server
    server.paused = True
    client.send_raw(b"BDAT %d LAST\r\n" % len(BIG) + BIG, timeout=30)
    server.wait_readable()      # it has begun to come
    server.send(reply)
    getattr(server, end)()
    client.expect("552 5.3.4 too much" if reply[0] == "5" else "451 4.5.0")     # the server reads nothing: then it would have all of it
    if mode == "late":
        client.ask("NOOP", "250")
        client.ask("QUIT", "221")
    assert proxy.wait_for("message")["result"] != "accepted"


def test_16_reply_too_many_while_a_server_is_opened(warp):
    """It is not taken for the reply to what is said next."""
    client = warp(*LATE, "--tls", "none")
    proxy, client = client, client.greeted()
    client.send("MAIL FROM:<a@b>", "RCPT TO:<b@c>")
    server = proxy.upstream.accept()
    server.send("220 server.example")
    server.expect_line("EHLO client.example")
    server.send("250-server.example", "250 CHUNKING", "250 2.1.0 fine")
    client.expect("250")
    client.expect("451 4.5.0")
    assert server.rest() == b""
    client.ask("NOOP", "250")


@pytest.mark.parametrize("words", ["what?", "250 2.0.0 so what", "421 4.4.2 bye"])
@pytest.mark.parametrize("when", ["idle", "at RSET"])
def test_15_what_a_server_says_that_nobody_needs(warp, words, when):
    """Late, with no message of it, its oddities and its 421 are not the client's: it is left."""
    proxy = warp(*LATE, "--tls", "none")
    client = proxy.greeted()
    client.send("MAIL FROM:<a@b>", "RCPT TO:<b@c>")
    server = opened(proxy.upstream.accept(), "SIZE")
    for _ in range(2):
        client.expect("250")
    client.ask("RSET", "250")
    server.expect_line("RSET")
    if when == "idle":
        server.send("250 2.0.0 forgotten")
    server.send("211 2.0.0 fine" if when == "at RSET" and words[0] == "2" else words)
    if when == "at RSET" and words[0] == "2":
        server.send(words)
    assert server.rest() == b""
    client.ask("NOOP", "250")
    client.send("MAIL FROM:<a@b>", "RCPT TO:<b@c>")
    opened(proxy.upstream.accept(), "SIZE")
    for _ in range(2):
        client.expect("250")


def test_66_late_250_before_all_of_a_chunk_was_sent(warp):
    """No hooks: the client hears that it went wrong, not nothing."""
    proxy = warp(*LATE, "--tls", "none", "--message-size-limit", 0)
    client = proxy.greeted()
    client.send("MAIL FROM:<a@b>", "RCPT TO:<b@c>")
    server = opened(proxy.upstream.accept(), "CHUNKING")
    for _ in range(2):
        client.expect("250")
    server.paused = True
    client.send_raw(b"BDAT %d LAST\r\n" % len(BIG))
    sent = client.send_what_fits(BIG, len(BIG) // 2)
    server.send("250 2.0.0 taken")
    server.half_close()
    client.send_raw(bytes(len(BIG) - sent), timeout=30)
    client.expect("451 4.5.0")
    client.ask("NOOP", "250")


# Memory

@pytest.mark.parametrize("verdicts", ["echo rewrite {long}", "echo rewrite {long}; echo reject"])
def test_rewritten_recipients_fill_no_more_than_there_is_room_for(warp, mail_server, hooks, verdicts):
    """All addresses of a transaction together have 1 MiB; what is beyond it is a failure of the hook, or a 452."""
    hooks.script("rcpt", verdicts.format(long="$(printf '%011999d' 0)@x"))
    client = warp(*hooks.options, upstream=mail_server()).greeted()
    client.ask("MAIL FROM:<a@b>", "250")
    codes = []
    for number in range(100):
        client.send(f"RCPT TO:<{number}@c.example>")
        codes.append(client.reply().code)
    assert set(codes) == ({250, 451} if "reject" not in verdicts else {550, 451}), codes
    client.ask("RSET", "250")
    client.ask("QUIT", "221")


# Late: what is left of one message when the next begins

def test_71_message_refused_at_data_leaves_nothing_for_the_next(warp, mail_server):
    """MAIL without RSET, RFC 5321 4.1.4: the server's transaction, of which the client knows nothing, ends first."""
    refusals = ["451 4.3.0 not now"]
    server = mail_server(replies={"DATA": lambda line: refusals.pop() if refusals else "354 go on"})
    client = warp(*LATE, upstream=server).greeted()
    client.ask("MAIL FROM:<a@b>", "250")
    client.ask("RCPT TO:<one@c>", "250")
    client.ask("DATA", "451")
    client.ask("MAIL FROM:<a@b>", "250")
    client.ask("RCPT TO:<two@c>", "250")
    client.ask("DATA", "354")
    client.send_raw(MESSAGE)
    client.expect("250")
    assert [message["to"] for message in server.messages] == [["<two@c>"]]


@pytest.mark.parametrize("last", ["421 4.7.0 one message a connection", "no word"])
def test_server_that_takes_one_message_a_connection(warp, mail_server, last):
    """What it says to a second MAIL is meant for the connection: it is asked again over another."""
    server = mail_server(replies={"MAIL": lambda line: second() if server.commands.count(line) > 1 else ""})

    def second():
        if len(server.peers) > 1:
            return ""
        if last == "no word":
            server.peers[0].sock.shutdown(socket.SHUT_RDWR)
        return last if last[0] == "4" else None
    proxy = warp(*LATE, upstream=server)
    client = proxy.greeted()
    for _ in range(2):
        client.ask("MAIL FROM:<a@b>", "250")
        client.ask("RCPT TO:<b@c>", "250")
        client.ask("DATA", "354")
        client.send_raw(MESSAGE)
        client.expect("250")
    assert len(server.messages) == len(server.peers) == 2


def test_58_tls_that_failed_with_one_server_is_tried_with_the_next(warp, mail_server, certs):
    """Late, level may: the first falls back to plain and then does not want the message, the second knows TLS."""
    second = mail_server(tls=certs.context())
    first = mail_server("STARTTLS", replies={"STARTTLS": "454 4.7.0 not now", "MAIL": "421 4.3.2 later"})
    proxy = warp(*LATE, "--upstream", first.name_port, "--upstream", second.name_port)
    client = proxy.greeted()
    client.ask("MAIL FROM:<a@b>", "250")
    client.ask("RCPT TO:<b@c>", "250")
    assert "STARTTLS" in second.commands


@pytest.mark.parametrize("again", ["closed", "421 4.7.0 too many connections"])
def test_58_server_that_cannot_be_had_in_plain_is_not_the_last(warp, mail_server, again):
    """Late: TLS fails, and so does the connection without it."""
    first, second = peers.Listener(), mail_server()
    client = warp(*LATE, "--upstream", first.name_port, "--upstream", second.name_port).greeted()
    client.ask("MAIL FROM:<a@b>", "250")
    client.send("RCPT TO:<b@c>")
    server = first.accept()
    server.send("220 first.example")
    server.expect_line("EHLO client.example")
    server.send("250-first.example", "250 STARTTLS")
    server.expect_line("STARTTLS")
    if again == "closed":
        first.close()
    server.send("220 go")
    server.take(5)
    server.send("no TLS at all")
    server.close()
    if again != "closed":
        first.accept().send(again)
        first.close()
    client.expect("250 2.1.5")
    client.ask("DATA", "354")
    client.send_raw(MESSAGE)
    client.expect("250")
    assert len(second.messages) == 1


# Time

def test_upstream_has_its_time_to_take_a_message(warp, hooks):
    """--block-timeout counts from when there was something to take, not from what was sent last."""
    hooks.script("data", "exit 0")
    proxy = warp(*hooks.options, "--tls", "none", "--block-timeout", 2, "--message-size-limit", 0)
    session = proxy.session().to("rcpt")
    session.client.ask("DATA", "354")
    session.client.send_raw(BIG + b".\r\n", timeout=30)
    session.server.expect_line("DATA")
    time.sleep(2.3)
    session.server.send("354 go on")
    assert session.server.take(len(BIG) + 3, timeout=30) == BIG + b".\r\n"
    session.server.send("250 2.0.0 taken")
    session.client.expect("250 2.0.0 taken")


@pytest.mark.parametrize("event", ["mail", "log"])
def test_hook_that_never_stops_complaining(warp, mail_server, hooks, event):
    """Its stderr never keeps a session from looking at the clock, or at its client."""
    hooks.script(event, "exec yes >&2" if event == "mail" else "exec yes complaint >&2")
    client = warp(*hooks.options, "--hook-timeout", 0.5, upstream=mail_server()).greeted()
    client.ask("MAIL FROM:<a@b>", "451 4.3.0" if event == "mail" else "250")
    client.ask("QUIT", "221")
    client.expect_end()


def test_log_hook_that_talks_costs_no_cpu(warp, mail_server, hooks):
    """While the last reply lingers, and the client does not close, there is nothing to do."""
    hooks.script("log", "while read -r line; do echo; echo >&2; done")
    hooks.script("mail", "echo close go away")
    proxy = warp(*hooks.options, upstream=mail_server())
    client = proxy.greeted()
    client.ask("MAIL FROM:<a@b>", "421")
    before, start = cpu_seconds(proxy.processes[-1].pid), time.monotonic()
    time.sleep(0.5)
    assert cpu_seconds(proxy.processes[-1].pid) - before < 0.3 * (time.monotonic() - start)


def test_log_hook_that_repeats_what_it_reads_lives_on(warp, mail_server, hooks, tmp_path):
    """tee(1) is one: what a log hook says on stdout is nobody's business, however much it is."""
    hooks.script("log", f"exec tee {tmp_path}/all")
    proxy = warp(*hooks.options, upstream=mail_server("PIPELINING"))
    client = proxy.greeted()
    for count in range(30, 601, 30):
        client.send(*["RSET"] * 30)
        assert [client.reply().code for _ in range(30)] == [250] * 30
        proxy.wait_until(lambda: (tmp_path / "all").exists() and     # pylint: disable=cell-var-from-loop
                         (tmp_path / "all").read_text().count('"RSET"') == count, f"{count} lines by now")
    client.ask("QUIT", "221")
    proxy.wait_exit()
    text = (tmp_path / "all").read_text()
    assert len(text) > 100000 and '"event":"close"' in text


# Sockets

def test_resident_hook_that_is_killed_within_a_message(warp, mail_server, hooks):
    """It had not read what it was sent: the kernel tells, and half a message goes nowhere."""
    def answer(connection):
        connection.recv(1, socket.MSG_PEEK)
        connection.sendall(b"replace-message\nA: b\n\nfirst half")
    resident(hooks.place("data", "50-killed"), answer)
    server = mail_server()
    client = warp(*hooks.options, upstream=server).greeted()
    client.ask("MAIL FROM:<a@b>", "250")
    client.ask("RCPT TO:<b@c>", "250")
    client.ask("DATA", "354")
    client.send_raw(MESSAGE)
    client.expect("451 4.3.0")
    assert not server.messages


# Names

def test_25_a_name_that_hooks_refuse_is_not_said_to_the_server(warp, mail_server, hooks):
    """RFC 5321 4.1.4: after an EHLO that was refused all is as it was before."""
    hooks.script("ehlo", "grep -q bad.example && echo reject; exit 0")
    server = mail_server()
    proxy = warp(*hooks.options, *LATE, upstream=server)
    client = proxy.greeted()
    client.ask("EHLO bad.example", "550")
    client.ask("MAIL FROM:<a@b>", "250")
    client.ask("RCPT TO:<b@c>", "250")
    assert "EHLO client.example" in server.commands


# Anything at all, at random

SCRIPT = """read -r line
case $line in
*'"rcpt":'*) line=${line##*'"rcpt":'} ;;
*'"event":"data"'*) line=${line#*'"address":"'}; line=.\\"${line#*.}; line=${line%%@*} ;;
esac
case $line in
*\\"reject.*) echo reject ;;
*\\"defer.*) echo log a b; echo defer later ;;
*\\"shut.*) echo close now ;;
*\\"crash.*) echo replace-message; echo half; kill -9 $$ ;;
*\\"fail.*) echo add-header X-Edit: no; exit 3 ;;
*\\"slow.*) sleep 0.3 ;;
*\\"hang.*) sleep 60 ;;
*\\"bad.*) echo nonsense ;;
*\\"discard.*) echo discard ;;
*\\"edit.*) echo add-header X-Edit: yes; echo remove-header X-Gone; echo accept ;;
*\\"replace.*) echo replace-message; echo X-Edit: new; exec cat <&3 ;;
*\\"rewrite.*) echo rewrite other@r.example ;;
esac
exit 0"""
AT_MAIL = ["none"] * 12 + ["reject", "defer", "shut", "crash", "fail", "slow", "bad"]
AT_RCPT = AT_MAIL + ["rewrite", "rewrite"]
AT_DATA = ["none"] * 6 + ["reject", "defer", "shut", "crash", "fail", "slow", "hang", "bad", "discard", "discard"] + \
    ["edit", "edit", "replace", "replace"]
PATIENCE = 25       # all of a late session's timeouts, one after the other


class Gone(Exception):
    pass


class Line:
    """One end of a connection, and how it can be left."""

    def __init__(self, sock, rng):
        self.sock, self.rng, self.buffer = sock, rng, b""
        sock.settimeout(PATIENCE)

    def read(self):
        try:
            data = self.sock.recv(65536)
        except TimeoutError:
            raise AssertionError("nothing came, and no end either") from None
        except OSError:
            data = b""
        if not data:
            raise Gone
        self.buffer += data

    def until(self, mark):
        while mark not in self.buffer:
            self.read()
        head, _, self.buffer = self.buffer.partition(mark)
        return head + mark

    def take(self, count):
        while len(self.buffer) < count:
            self.read()
        head, self.buffer = self.buffer[:count], self.buffer[count:]
        return head

    def write(self, data):
        """In parts, now and then."""
        if self.rng.random() < 0.2 and len(data) > 1:
            at = self.rng.randrange(1, len(data))
            self.write(data[:at])
            time.sleep(0.002)
            data = data[at:]
        try:
            self.sock.sendall(data)
        except OSError:
            raise Gone from None

    def leave(self):
        if self.rng.random() < 0.4:
            self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        elif self.rng.random() < 0.3:
            with contextlib.suppress(OSError):
                self.sock.shutdown(socket.SHUT_WR)
                while self.sock.recv(65536):
                    pass
        self.sock.close()
        raise Gone


class WildServer:
    """Answers most of the time. taken: (content, code of its reply or None, whether it spoke too early)."""

    def __init__(self, seed):
        self.listener, self.seed, self.taken, self.errors, self.threads = peers.Listener(), seed, [], [], []
        threading.Thread(target=self.accept, daemon=True).start()

    def accept(self):
        number = 0
        with contextlib.suppress(OSError):
            while True:
                sock, _ = self.listener.sock.accept()
                number += 1
                line = Line(sock, random.Random(f"{self.seed}/{number}"))
                self.threads.append(threading.Thread(target=self.serve, args=(line,), daemon=True))
                self.threads[-1].start()

    def serve(self, line):
        try:
            self.converse(line)
        except Gone:
            pass
        except AssertionError as error:
            self.errors.append(error)
        finally:
            line.sock.close()

    def answer(self, line, reply, faults=0.07, twice="close"):
        """The reply, or something else. The code that was said."""
        what = line.rng.choice(["tempfail", "permfail", "421", "close", "garbage", twice, "silence", "halves", "last",
                                "last words"]) if line.rng.random() < faults else "reply"
        if what in ("tempfail", "permfail", "421"):
            reply = {"tempfail": "450 4.2.0 wait", "permfail": "550-5.1.1 no\r\n550 5.1.1 never", "421": "421 4.3.2 bye"}[what]
        if what == "close":
            line.leave()
        if what == "garbage":
            reply = line.rng.choice(["hello", "999 what", "250-a\r\nwhat", "\0\1\2", "250-never ends"])
        if what == "silence":
            time.sleep(1.5)
            line.leave()
        if what == "twice":
            line.sock.sendall(reply.encode() + b"\r\n" + reply.encode() + b"\r\n")    # together: else nobody could tell
            return int(reply[:3])
        if what == "last words":
            reply = "421 4.3.2 bye"
        line.write(reply.encode() + b"\r\n")
        if what in ("421", "last", "last words"):
            line.leave()
        if what == "halves":
            time.sleep(0.05)
        return int(reply[:3]) if reply[:3].isdigit() else 0

    @staticmethod
    def hear(line, rcpts, read, early=0.06):
        """The message, None if nobody is to have it, and whether the server has spoken before its end."""
        early = line.rng.random() < early
        if early:
            words = line.rng.choice([b"552 5.3.4 early\r\n", b"421 4.3.2 early\r\n", b"250 2.0.0 early\r\n"])
            line.write(words)
            if line.rng.random() < 0.5 and words[:1] != b"2":
                line.leave()
        elif line.rng.random() < 0.04:
            line.read()
            line.leave()
        data = read()
        if not rcpts:
            assert data == b"", data
            line.write(b"554 5.5.1 nobody\r\n")
            return None, early
        return data, early

    def content(self, line, rcpts, read):
        data, early = self.hear(line, rcpts, read)
        if data is None:
            return
        entry = [data, None, early]
        self.taken.append(entry)
        if not early:
            fate = line.rng.random()
            code = 250 if fate < 0.75 else 451 if fate < 0.85 else 0
            if not code:
                line.leave()
            entry[1] = code
            line.write(b"%d 2.0.0 noted\r\n" % code if code == 250 else b"451 4.3.0 noted\r\n")
            if line.rng.random() < 0.05:
                line.leave()

    def converse(self, line):
        self.answer(line, "220 server.example", 0.07, "twice")
        offers = [word for word in ("PIPELINING", "CHUNKING", "SIZE 1000000", "8BITMIME", "STARTTLS") if line.rng.random() < 0.6]
        rcpts, sender, chunks = 0, False, b""

        def message():
            data = b""
            while not data.endswith(b"\r\n.\r\n") and data != b".\r\n":
                data += line.until(b"\r\n")
            return b"".join(row[row.startswith(b"."):] for row in data[:-3].splitlines(keepends=True))

        while True:
            verb, _, rest = line.until(b"\r\n").decode("latin-1").strip().partition(" ")
            if verb in ("EHLO", "HELO", "RSET"):
                words = ["server.example", *(offers if verb == "EHLO" else [])]
                code = self.answer(line, "\r\n".join([*(f"250-{word}" for word in words), "250 DSN"]), 0.04,
                                   "twice" if verb == "EHLO" else "close")
                if code == 250:
                    rcpts, sender, chunks = 0, False, b""
            elif verb == "STARTTLS":
                line.write(line.rng.choice([b"454 4.7.0 no\r\n", b"220 go\r\n", b"220 go\r\n250 injected\r\n"]))
                line.read()
                line.write(b"no TLS at all\r\n")
                line.leave()
            elif verb == "MAIL":
                code = 503 if sender else self.answer(line, "250 2.1.0 fine")
                if code == 503:
                    line.write(b"503 5.5.1 nested\r\n")
                sender = sender or code == 250
            elif verb == "RCPT":
                rcpts += self.answer(line, "250 2.1.5 fine" if sender else "503 5.5.1 MAIL", 0.15) == 250
            elif verb == "DATA":
                if self.answer(line, "354 go", 0.07, "twice") == 354:
                    self.content(line, rcpts, message)
                    rcpts, sender = 0, False
            elif verb == "BDAT":
                size = int(rest.split()[0])
                if rest.endswith("LAST"):
                    whole = chunks
                    self.content(line, rcpts, lambda: whole + line.take(size))
                    rcpts, sender, chunks = 0, False, b""
                else:
                    chunks += line.take(size)
                    self.answer(line, "250 2.0.0 more")
            elif verb == "QUIT":
                line.write(b"221 2.0.0 bye\r\n")
                line.leave()
            else:
                self.answer(line, "250 2.0.0 fine")


class WildClient:
    """Sends messages, or begins to. ended: token -> its message, sent to the end; replies: token -> the code of the answer."""

    def __init__(self, seed, port):
        self.rng, self.seed, self.ended, self.replies = random.Random(seed), seed, {}, {}
        self.line = Line(socket.create_connection(("127.0.0.1", port), PATIENCE), self.rng)

    def reply(self):
        row = self.line.until(b"\r\n")
        while row[3:4] == b"-":
            row = self.line.until(b"\r\n")
        return int(row[:3])

    def say(self, *commands):
        """Their codes."""
        if self.rng.random() < 0.02:
            self.line.write(commands[0][:3].encode())
            self.line.leave()
        if self.rng.random() < 0.5:
            self.line.write("".join(command + "\r\n" for command in commands).encode())
            return [self.reply() for _ in commands]
        codes = []
        for command in commands:
            self.line.write(command.encode() + b"\r\n")
            codes.append(self.reply())
        return codes

    def run(self):
        with contextlib.suppress(Gone):
            if self.reply() != 220:
                return
            self.say(f"{self.rng.choice(['EHLO', 'EHLO', 'HELO'])} {self.rng.choice(AT_MAIL)}.example")
            for number in range(self.rng.randrange(1, 4)):
                self.message(f"{self.seed}-{number}".replace("/", "-"))
            self.line.write(b"QUIT\r\n")
            while True:
                self.line.read()
        self.line.sock.close()

    def message(self, token):
        rng = self.rng
        if rng.random() < 0.3:
            self.say(rng.choice(["NOOP", "RSET", "EHLO again.example", "MAIL FROM:<", "FROB", "DATA", "BDAT 4 LAST\r\nab",
                                 "VRFY a", "X" * 600]))
        verdict = rng.choice(AT_DATA)
        lines = [f"Message-ID: <{token}>".encode(), b"X-Gone: x", b""]
        lines += [rng.choice([b".", b"..", b".a", b"", b"text", b"x" * 900]) for _ in range(rng.choice([0, 5, 20, 1000]))]
        content = b"".join(line + b"\r\n" for line in lines)
        envelope = [f"MAIL FROM:<{rng.choice(AT_MAIL)}.{verdict}.{token}@a.example>",
                    *[f"RCPT TO:<{rng.choice(AT_RCPT)}.{i}@r.example>" for i in range(rng.randrange(1, 4))]]
        if rng.random() < 0.4:
            self.say(*envelope)
            self.chunks(token, content)
        elif self.say(*envelope, "DATA")[-1] == 354:
            raw = b"".join(b"." * row.startswith(b".") + row for row in content.splitlines(keepends=True)) + b".\r\n"
            self.part(token, content, raw)
            self.replies[token] = self.reply()

    def part(self, token, content, raw):
        if self.rng.random() < 0.08:
            self.line.write(raw[:self.rng.randrange(len(raw))])
            self.line.leave()
        self.ended[token] = content
        self.line.write(raw)

    def chunks(self, token, content):
        at = self.rng.randrange(len(content))
        if self.rng.random() < 0.5:
            self.line.write(b"BDAT %d\r\n" % at + content[:at])
            if self.reply() != 250:
                return
            if self.rng.random() < 0.05:
                self.line.leave()
        else:
            at = 0
        self.part(token, content, b"BDAT %d LAST\r\n" % (len(content) - at) + content[at:])
        self.replies[token] = self.reply()


def plain(content):
    """Without what hooks did to it."""
    if content.startswith(b"X-Edit: yes\r\n"):
        return content[13:].replace(b"\r\n\r\n", b"\r\nX-Gone: x\r\n\r\n", 1)
    return content.removeprefix(b"X-Edit: new\r\n")


def check_wild(clients, server, records, discarding):
    transactions = {message["message_id"][1:-1]: message for message in records
                    if message["event"] == "message" and message["message_id"]}
    messages = {token: message["result"] for token, message in transactions.items()}
    ended = {token: content for client in clients for token, content in client.ended.items()}
    replies = {token: code for client in clients for token, code in client.replies.items()}
    discards = {token for token, message in transactions.items()
                if discarding and ".discard." in message["mail_from"]["address"]}
    taken = {}
    for content, code, early in server.taken:
        token = plain(content)[13:].partition(b">")[0].decode()
        assert plain(content) == ended.get(token), f"not what the client sent: {content[:300]}"
        assert token not in taken, f"{token} came twice"
        taken[token] = code, early
    for token, (code, early) in taken.items():
        assert code != 250 or messages.get(token) in ("accepted", "unknown"), (token, messages.get(token))
        assert code != 250 or replies.get(token, 250) == 250, (token, replies[token])
    for token, code in replies.items():
        if code == 250 and token not in discards:
            assert taken.get(token, (0, 0))[0] == 250 or taken.get(token, (0, 0))[1], (token, taken.get(token), messages.get(token))
        if code == 250 and token in discards:
            assert token not in taken, token


@pytest.mark.parametrize("mode", ["early", "late"])
@pytest.mark.parametrize("filtered", [True, False])
def test_wild_sessions(warp, hooks, host, mode, filtered):
    """Nothing that either side or a hook does makes smtpwarp lie, lose or double a message, crash or hang."""
    seed = os.environ.get("SEED", "1") + mode + str(filtered)
    for event in ("connect", "ehlo", "mail", "rcpt", "data", "close") if filtered else ("mail", "log"):
        hooks.script(event, SCRIPT if event != "log" else "exec cat >/dev/null")
    if filtered:
        talk = random.Random(seed)

        def answer(connection):
            connection.recv(10 if talk.random() < 0.1 else 65536)
            connection.sendall(talk.choice([b"accept\n"] * 9 + [b"", b"log a b\n", b"add-header", b"reject\n"]))
        resident(hooks.place("data", "60-resident"), answer)
    server = WildServer(seed)
    times = ["--connect-timeout", "--tls-timeout", "--banner-timeout", "--mail-timeout", "--rcpt-timeout", "--data-timeout",
             "--dot-timeout", "--command-timeout", "--block-timeout", "--hook-timeout"]
    proxy = warp(*hooks.options, *(LATE if mode == "late" else []), "--upstream", server.listener.name_port,
                 *[word for name in times for word in (name, 1)], "--idle-timeout", 2, "--drain-timeout", 0.5)
    proxy.listen()
    clients, errors, lock = [], [], threading.Lock()
    end, numbers = time.monotonic() + 8, iter(range(100000))

    def too_few():
        return len(clients) <= 20 or len(server.taken) <= 10

    def work():
        while not errors and (time.monotonic() < end or too_few() and time.monotonic() < end + 60):
            with lock:
                client = WildClient(f"{seed}/{next(numbers)}", proxy.listen_port)
                clients.append(client)
                if client.rng.random() < 0.05 and (children := proxy.children()):
                    with contextlib.suppress(OSError):
                        os.kill(client.rng.choice(children), signal.SIGTERM)
            try:
                client.run()
            except AssertionError as error:
                errors.append((client.seed, error))
    workers = [threading.Thread(target=work) for _ in range(8)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    proxy.wait_until(lambda: not proxy.children(), "the end of all sessions")
    server.listener.close()
    for thread in server.threads:
        thread.join(PATIENCE)
    records = proxy.records()
    assert not errors and not server.errors, (errors, server.errors)
    assert not [record for record in records if "crashed" in record.get("error", "")]
    assert len(proxy.records("close")) == len(clients)
    assert not too_few(), (len(clients), len(server.taken))
    check_wild(clients, server, records, filtered)
