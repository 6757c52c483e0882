"""Random sessions: clients, servers, name servers and hooks that do what they ought to most of the time and else what harms, with
all of it at once: names that are looked up, SMTP and LMTP, AUTH of clients that connect late, routes, XCLIENT, TLS that fails, TLS policies.
No message may be lost, doubled or go astray. PROTOCOL 8, 34, 49, 53, 66, 72, 74."""
import base64
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
from nameservers import A, PTR, Rude, query_name, query_type, record, reply
from peers import decode
from policies import SocketMap
from test_hooks_hostile import Gone, Line, WildServer

PATIENCE = 25
SECRET = base64.b64encode(b"\0tim\0sesame").decode()
TIMES = ["--connect-timeout", "--tls-timeout", "--banner-timeout", "--mail-timeout", "--rcpt-timeout", "--data-timeout",
         "--dot-timeout", "--command-timeout", "--block-timeout", "--hook-timeout"]
ROUTES = """a.example;a.test:{a};
b.example;lmtp://b.test:{b};
c.example;lmtp:unix:{c};
d.example;none.test, smtp://a.test:{a};
e.example;lmtp://none.test, lmtp://b.test:{b};
f.example;none.test;
"""
OF_SERVER = {"a": "ad", "b": "be", "c": "c"}    # whose recipients a server may see; all others are home's
POLICIES = """a.example none
c.example may
d.example encrypt
e.example dane
"""
MAP = {b"map b.example": b"OK dane-only", b"map f.example": b"TEMP later"}
BARRED = "bdf"      # no server here has TLS, so nothing may go to recipients whose policy demands it
HOOK = """read -r line
case $line in *'"rcpt":'*) line=${line##*'"rcpt":'} ;; esac
case $line in
*\\"defer.*) echo defer later ;;
*\\"shut.*) echo close now ;;
*\\"there.*) echo "upstream a.test:$PORT" ;;
esac
exit 0"""
DELAYS = "[ $(($$ % 8)) -ne 0 ] || echo tarpit 1"


def names(seed):
    """A name server that knows *.test, most of the time."""
    rng = random.Random(seed)

    def answer(query, tcp):
        what = rng.choice(["fine"] * 40 + ["slow", "slow", "SERVFAIL", "silence"])
        if what == "silence":
            return None
        if what == "slow":
            time.sleep(0.02)
        name, kind = query_name(query)[0], query_type(query)
        if what == "SERVFAIL":
            return reply(query, flags=0x8182)
        if kind == PTR:
            return reply(query, record(PTR, b"\6client\4test\0"))
        if name == "none.test":
            return reply(query, flags=0x8183)
        return reply(query, *[record(A, socket.inet_aton("127.0.0.1"))] * (kind == A))
    return Rude(answer)


class Server(WildServer):
    """One of several. taken: (token, recipient, content, code of its reply or None, whether it spoke too early)."""

    def __init__(self, seed, letter, late, lmtp=False, address="127.0.0.1"):
        self.letter, self.late, self.lmtp, self.barred = letter, late, lmtp, ""
        self.listener, self.seed, self.taken, self.errors, self.threads = peers.Listener(address), f"{seed}/{letter}", [], [], []
        threading.Thread(target=self.accept, daemon=True).start()

    def is_mine(self, recipient):
        domain = recipient.partition("@")[2][0]
        if not self.late or recipient.startswith("there"):
            return True
        return domain in OF_SERVER.get(self.letter, "h")

    def finish(self, line, rcpts, read):
        data, early = self.hear(line, rcpts, read, 0.03)
        if data is None:
            return
        token = data.partition(b"Message-ID: <")[2].partition(b">")[0].decode()
        entries = [[token, rcpt, data, None, early] for rcpt in rcpts]
        self.taken += entries
        if early:
            return
        replies = b""
        fates = [line.rng.random() for _ in (entries if self.lmtp else entries[:1])]
        for i, fate in enumerate(fates):
            code = 250 if fate < 0.8 else 451 if fate < 0.9 else 554 if fate < 0.95 else 0
            if not code:
                line.write(replies)
                line.leave()
            for entry in entries[i:i + 1] if self.lmtp else entries:
                entry[3] = code
            replies += b"%d-2.0.0 noted\r\n" % code if fate < 0.1 else b""
            replies += b"%d %d.0.0 noted\r\n" % (code, code // 100)
        line.write(replies)
        if line.rng.random() < 0.05:
            line.leave()

    def authenticate(self, line, rest):
        assert not self.late or self.letter == "h", "a password for another server"
        if not rest.partition(" ")[2]:
            if self.answer(line, "334 ", 0.1) != 334:
                return False
            rest = line.until(b"\r\n").decode()
            if rest == "*\r\n":
                line.write(b"501 5.7.0 cancelled\r\n")
                return False
        code = self.answer(line, line.rng.choice(["235 2.7.0 welcome"] * 3 + ["535 5.7.8 no"]), 0.07)
        return code == 235

    def converse(self, line):
        rng = line.rng
        self.answer(line, "220 server.example", 0.07, "twice")
        offers = [word for word in ("PIPELINING", "CHUNKING", "SIZE 1000000", "8BITMIME", "STARTTLS", "AUTH PLAIN LOGIN",
                                    "XCLIENT NAME ADDR LOGIN PROTO", "XFORWARD NAME ADDR") if rng.random() < 0.6]
        rcpts, sender, chunks, user = [], False, b"", False

        def message():
            data = b""
            while not data.endswith(b"\r\n.\r\n") and data != b".\r\n":
                data += line.until(b"\r\n")
            return b"".join(row[row.startswith(b"."):] for row in data[:-3].splitlines(keepends=True))

        while True:
            text = line.until(b"\r\n").decode("latin-1").strip()
            verb, _, rest = text.partition(" ")
            assert SECRET not in text or verb == "AUTH", text
            if verb in ("EHLO", "HELO", "RSET", "LHLO"):
                assert verb == "RSET" or (verb == "LHLO") == self.lmtp, text
                words = ["server.example", *(offers if verb in ("EHLO", "LHLO") else [])]
                code = self.answer(line, "\r\n".join([*(f"250-{word}" for word in words), "250 DSN"]), 0.04,
                                   "twice" if verb == "EHLO" else "close")
                if code == 250:
                    rcpts, sender, chunks = [], False, b""
            elif verb == "STARTTLS":
                line.write(rng.choice([b"454 4.7.0 no\r\n", b"220 go\r\n", b"220 go\r\n250 injected\r\n"]))
                line.read()
                line.write(b"no TLS at all\r\n")
                line.leave()
            elif verb == "AUTH":
                assert not user and not sender, text
                user = self.authenticate(line, rest)
            elif verb == "XCLIENT":
                assert "LOGIN=" not in rest or "LOGIN=[" in rest or user or not self.late, text
                assert "XCLIENT" in " ".join(offers) and not sender
                if self.answer(line, "220 again", 0.05) == 220:
                    rcpts, sender, chunks = [], False, b""
            elif verb == "MAIL":
                assert " AUTH=" not in rest or self.letter == "h" or not self.late, text
                code = 503 if sender else self.answer(line, "250 2.1.0 fine")
                if code == 503:
                    assert not self.late, f"nested {text}"
                    line.write(b"503 5.5.1 nested\r\n")
                sender = sender or code == 250
            elif verb == "RCPT":
                recipient = rest.partition("<")[2].partition(">")[0]
                assert self.is_mine(recipient), f"{recipient} at {self.letter}"
                assert recipient.partition("@")[2][:1] not in self.barred, f"{recipient} without TLS"
                if self.answer(line, "250 2.1.5 fine" if sender else "503 5.5.1 MAIL", 0.1) == 250:
                    rcpts.append(recipient)
            elif verb == "DATA":
                assert rcpts or not self.lmtp or not self.late, "DATA for nobody"
                if not rcpts and self.lmtp:
                    line.write(b"503 5.5.1 RCPT\r\n")
                elif self.answer(line, "354 go", 0.07, "twice") == 354:
                    self.finish(line, rcpts, message)
                    rcpts, sender = [], False
            elif verb == "BDAT":
                size = int(rest.split()[0])
                if rest.endswith("LAST"):
                    whole = chunks
                    self.finish(line, rcpts, lambda: whole + line.take(size))
                    rcpts, sender, chunks = [], False, b""
                else:
                    chunks += line.take(size)
                    self.answer(line, "250 2.0.0 more")
            elif verb == "QUIT":
                line.write(b"221 2.0.0 bye\r\n")
                line.leave()
            else:
                self.answer(line, "250 2.0.0 fine")


class Client:
    """Sends messages, or begins to. ended: token -> its message, sent to the end; replies: (token, recipient) -> code."""

    FITS = {"NOOP": (250,), "VRFY": (252,), "HELP": (214,), "RSET": (250,), "QUIT": (221,), "MAIL": (250, 4, 5),
            "RCPT": (250, 4, 5), "DATA": (354, 4, 5), "EHLO": (250, 4, 5), "HELO": (250, 4, 5),
            "LHLO": (250, 4, 5), "AUTH": (235, 334, 4, 5),
            "FROB": (5,), "BDAT": (4, 5, 250)}

    def __init__(self, seed, port, late, hooked):
        self.rng, self.seed, self.late, self.hooked = random.Random(seed), seed, late, hooked
        self.ended, self.replies, self.lmtp, self.went = {}, {}, False, []
        self.line = Line(socket.create_connection(("127.0.0.1", port), PATIENCE), self.rng)

    def reply(self):
        rows = [self.line.until(b"\r\n")]
        while rows[-1][3:4] == b"-":
            rows.append(self.line.until(b"\r\n"))
        assert len({row[:3] for row in rows}) == 1 or rows[0].startswith(b"220-proxy.example"), rows
        code = int(rows[-1][:3])
        self.went.append(f"<- {decode(rows[-1])}")
        if code == 421:
            left = self.line.buffer + self.rest()
            assert b"354" not in left and b"noted" not in left, (self.went, left)
            raise Gone
        return code

    def rest(self):
        data = b""
        with contextlib.suppress(OSError):
            while part := self.line.sock.recv(65536):
                data += part
        return data

    def fits(self, command, code):
        wanted = self.FITS[command[:4].upper()]
        early = () if self.late else (2, 4, 5)    # whatever the server says
        assert code in wanted or code // 100 in wanted or code // 100 in early, (command, code, self.went)
        assert "noted" not in self.went[-1], (command, self.went)   # which is of a message
        return code

    def write(self, *commands):
        rng = self.rng
        data = "".join(command + "\r\n" for command in commands).encode()
        if rng.random() < 0.015:
            self.line.write(data[:rng.randrange(len(data))])
            self.went.append("left")
            self.line.leave()
        self.went.append(f"-> {[command[:60] for command in commands]}")
        self.line.write(data)
        if rng.random() < 0.01:
            self.went.append("shut")
            with contextlib.suppress(OSError):
                self.line.sock.shutdown(socket.SHUT_WR)

    def say(self, *commands):
        """Their codes."""
        if self.rng.random() < 0.2:
            commands = *commands, self.rng.choice(["NOOP x", "VRFY a", "HELP", "FROB"]) if self.late else "NOOP"
        if self.rng.random() < 0.02:
            commands = *commands, *["NOOP " + "x" * 400] * 800
        if self.rng.random() < 0.5:
            self.write(*commands)
            return [self.fits(command, self.reply()) for command in commands]
        codes = []
        for command in commands:
            self.write(command)
            codes.append(self.fits(command, self.reply()))
        return codes

    def hello(self):
        verb = self.rng.choice(["EHLO", "EHLO", "LHLO", "LHLO", "HELO"])
        code = self.say(f"{verb} client.example")[0]
        if code == 250:
            self.lmtp = verb == "LHLO"
        return code

    def run(self):
        with contextlib.suppress(Gone):
            code = self.reply()
            assert code in (220, 554) or not self.late, code
            if code != 220:
                return
            self.hello()
            for number in range(self.rng.randrange(1, 5)):
                if self.rng.random() < 0.3:
                    self.authenticate()
                if self.rng.random() < 0.2:
                    self.say("RSET")
                if self.rng.random() < 0.2:
                    self.hello()
                self.message(f"{self.seed}-{number}".replace("/", "-"))
            self.write("QUIT")
            self.fits("QUIT", self.reply())
            left = self.line.buffer + self.rest()
            assert not left, (self.went, left)
        self.line.sock.close()

    def authenticate(self):
        if self.rng.random() < 0.5:
            self.write(f"AUTH PLAIN {SECRET}")
        else:
            self.write("AUTH PLAIN")
        code = self.fits("AUTH", self.reply())
        while code == 334:
            self.write(self.rng.choice([SECRET, SECRET, "*"]))
            code = self.fits("AUTH", self.reply())

    def envelope(self, token):
        rng = self.rng
        domains = "hhhaabbcdef"
        if rng.random() < 0.6:
            domains = rng.choice(domains)
        who = ["none"] * 12 + ["defer", "shut", "there"] * self.hooked
        rcpts = [f"{rng.choice(who)}.{i}.{token}@{rng.choice(domains)}.example" for i in range(rng.randrange(1, 5))]
        sender = f"MAIL FROM:<{rng.choice(who[:-1] if self.hooked else who)}.{token}@s.example>"
        if rng.random() < 0.1:
            sender += " AUTH=<>"
        return sender, rcpts

    def message(self, token):
        rng = self.rng
        sender, rcpts = self.envelope(token)
        lines = [f"Message-ID: <{token}>".encode(), b""]
        lines += [rng.choice([b".", b"..", b".a", b"", b"text", b"x" * 900]) for _ in range(rng.choice([0, 5, 20, 400]))]
        content = b"".join(line + b"\r\n" for line in lines)
        commands = [sender, *(f"RCPT TO:<{rcpt}>" for rcpt in rcpts)]
        codes = self.say(*commands)
        if codes[0] != 250:
            self.say("RSET")
        elif rng.random() < 0.4:
            self.chunks(token, content, [rcpt for rcpt, code in zip(rcpts, codes[1:]) if code == 250])
        else:
            self.data(token, content, [rcpt for rcpt, code in zip(rcpts, codes[1:]) if code == 250])

    def data(self, token, content, accepted):
        self.write("DATA")
        if self.fits("DATA", self.reply()) != 354:
            return
        raw = b"".join(b"." * row.startswith(b".") + row for row in content.splitlines(keepends=True)) + b".\r\n"
        self.part(token, content, raw)
        self.final(token, accepted)

    def final(self, token, accepted):
        for rcpt in accepted[:None if self.lmtp else 1] or [None]:
            code = self.reply()
            assert code == 250 or code >= 400, (code, self.went)
            for each in [rcpt] if self.lmtp else accepted:
                self.replies[token, each] = code
        if not accepted:
            assert code >= 400, self.went

    def part(self, token, content, raw):
        if self.rng.random() < 0.05:
            self.line.write(raw[:self.rng.randrange(len(raw))])
            self.line.leave()
        self.ended[token] = content
        self.went.append(f"-> content of {token}")
        self.line.write(raw)

    def chunks(self, token, content, accepted):
        at = self.rng.randrange(len(content))
        if self.rng.random() < 0.5:
            self.line.write(b"BDAT %d\r\n" % at + content[:at])
            self.went.append(f"-> chunk of {token}")
            if self.reply() != 250:
                return
        else:
            at = 0
        self.part(token, content, b"BDAT %d LAST\r\n" % (len(content) - at) + content[at:])
        self.final(token, accepted)


def check(clients, servers):
    """No message twice or elsewhere, and each 250 is the server's own."""
    ended = {token: content for client in clients for token, content in client.ended.items()}
    replies = {key: code for client in clients for key, code in client.replies.items()}
    taken = {}
    for token, rcpt, content, code, early in (entry for server in servers for entry in server.taken):
        assert content == ended.get(token), f"not what the client sent: {content[:300]}"
        assert (token, rcpt) not in taken, f"{token} for {rcpt} came twice"
        taken[token, rcpt] = code, early
    for key, code in replies.items():
        if code == 250:
            assert taken.get(key, (0, 0))[0] == 250 or taken[key][1], (key, taken.get(key))
    for key, (code, _) in taken.items():
        assert code != 250 or replies.get(key, 250) == 250, (key, replies[key])
    return sum(code == 250 for code, _ in taken.values())


@pytest.mark.parametrize("mode", ["late", "early", "late-policies", "early-policies"])
@pytest.mark.parametrize("hooked", [False, True])
def test_wild_sessions(warp, host, tmp_path, mode, hooked):
    """Every command has one reply, every message goes to its own server and once, 250 is that server's word, a password goes
    nowhere but where AUTH is asked for, and all sessions end. SEED, SECONDS and WORKERS make it another or longer test."""
    seed, late = os.environ.get("SEED", "1") + mode + str(hooked), mode.startswith("late")
    rng = random.Random(seed)
    servers = {letter: Server(seed, letter, late, lmtp, address) for letter, lmtp, address in (
        ("h", late and rng.random() < 0.4, "127.0.0.1"), ("a", False, "127.0.0.1"), ("b", True, "127.0.0.1"),
        ("c", True, str(tmp_path / "c")))}
    port = {letter: server.listener.port or server.listener.address for letter, server in servers.items()}
    (tmp_path / "routes").write_text(ROUTES.format(**port))
    home = ["--upstream", "none.test", "--upstream", ("lmtp://" if servers["h"].lmtp else "") + f"h.test:{port['h']}"]
    options = [*home, "--routes", tmp_path / "routes", "--auth", "--connect-on", "recipient"] if late else \
        [*home, "--upstream", f"lmtp://b.test:{port['b']}", "--upstream", f"lmtp:unix:{port['c']}"]
    if not late:
        pairs = [options[at:at + 2] for at in range(0, len(options), 2)]
        rng.shuffle(pairs)
        options = [word for pair in pairs for word in pair]
    options += [word for word in ("--xclient", "--xforward") if rng.random() < 0.5]
    options += ["--greet-delay", 0.03] if rng.random() < 0.3 else []
    hooks = Hooks(tmp_path / "hooks")
    if hooked:
        hooks.script("ehlo", DELAYS)
        for event in ["mail", "rcpt"]:
            hooks.script(event, HOOK.replace("$PORT", str(port["a"])) if late else HOOK.replace("*\\\"there.*)", "nothing)"))
    if "policies" in mode:
        (tmp_path / "policies").write_text(POLICIES)
        options += ["--tls-policy", tmp_path / "policies", "--tls-policy", f"socketmap:unix:{tmp_path}/map:map"]
        options += ["--client-tls", "auto"] if not late and not hooked else []
        for server in servers.values():
            server.barred = BARRED
    with names(seed) as dns, SocketMap(tmp_path / "map", MAP):
        proxy = warp(*(hooks.options if hooked else []), *options, "--dns-server", dns.name_port, "--tls", "may",
                     *[word for name in TIMES for word in (name, 1)], "--idle-timeout", 2, "--drain-timeout", 0.5,
                     "--max-errors", 0, "--hostname", "proxy.example")
        proxy.etc(hosts="127.0.0.1 here\n", resolv_conf="nameserver 127.0.0.1\n")
        proxy.listen()
        sessions(proxy, list(servers.values()), seed, late, hooked)


def sessions(proxy, servers, seed, late, hooked):
    clients, errors, lock = [], [], threading.Lock()
    end, numbers = time.monotonic() + float(os.environ.get("SECONDS", 4)), iter(range(100000))

    def work():
        while time.monotonic() < end and not errors:
            with lock:
                client = Client(f"{seed}/{next(numbers)}", proxy.listen_port, late, hooked)
                clients.append(client)
                if client.rng.random() < 0.03 and (children := proxy.children()):
                    with contextlib.suppress(OSError):
                        os.kill(client.rng.choice(children), signal.SIGTERM)
            try:
                client.run()
            except AssertionError as error:
                errors.append((client.seed, error, client.went))
    workers = [threading.Thread(target=work) for _ in range(int(os.environ.get("WORKERS", 8)))]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    proxy.wait_until(lambda: not proxy.children(), "the end of all sessions")
    with open(f"/proc/{proxy.listener.pid}/stat") as stat:
        fields = stat.read().rpartition(")")[2].split()
    cpu = (int(fields[13]) + int(fields[14])) / os.sysconf("SC_CLK_TCK")     # of its children
    for server in servers:
        server.listener.close()
        for thread in server.threads:
            thread.join(PATIENCE)
    faults = [error for server in servers for error in server.errors]
    assert not errors and not faults, (errors, faults)
    assert not [item for item in proxy.records() if "crashed" in item.get("error", "")]
    assert not [item for item in proxy.records("verdict", verdict="failed") if " in line " in item["text"]]
    assert len(proxy.records("close")) == len(clients)
    delivered = check(clients, servers)
    print(f"\n{seed}: {len(clients)} sessions, {delivered} messages taken, {cpu} s of CPU time")
    assert len(clients) > 20 and delivered > 5, (len(clients), delivered)
    assert cpu < 0.05 * len(clients), "sessions that do not sleep while they wait"
