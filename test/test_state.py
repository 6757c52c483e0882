"""--state: what sessions observe together of the servers that they are connected to."""
import contextlib
import os
import random
import signal
import socket
import subprocess
import threading

import pytest

import certificates
from statemap import HARMS, SIZE, State, sessions
from warp import BINARY

# What five providers say to whom they throttle, or have on a list.
THROTTLES = ["421 4.7.28 [192.0.2.1 15] Our system has detected an unusual rate of unsolicited mail originating from your IP address",
             "451 4.7.650 The mail server [192.0.2.1] has been temporarily rate limited due to IP reputation.",
             "421 4.7.0 [TSS04] Messages from 192.0.2.1 temporarily deferred due to unexpected volume or user complaints - 4.16.55.1",
             "451 4.7.1 Too many connections from your host, try again later",
             "452 4.7.28 Rate limit exceeded, slow down"]
RULES = "*\t*\t451 4.7.650 *\tthrottle\n*\t*\t421 4.7.0 [tss*\tthrottle\n*\t*\t451 4.7.1 too many connections*\tthrottle\n"
NETWORK = "127.0.0.0/24"


@pytest.fixture
def state(tmp_path):
    return tmp_path / "state"


class Sink:
    """A mail server in a thread that answers MAIL, RCPT, DATA and the message with what answer(verb, line, n) says; None: 250, 354. n: which
    message this is, from 0 on. banner: a function of how many there were serves as well."""

    def __init__(self, answer=lambda verb, line, n: None, banner="220 mx.example ESMTP", address="127.0.0.1", port=0):
        self.answer, self.banner, self.messages = answer, banner, 0
        self.door = socket.create_server((address, port), backlog=200)
        self.url = f"{address}:{self.door.getsockname()[1]}"
        threading.Thread(target=self.accept, daemon=True).start()

    def accept(self):
        while True:
            try:
                sock, _ = self.door.accept()
            except OSError:
                return
            threading.Thread(target=self.serve, args=(sock,), daemon=True).start()

    def serve(self, sock):
        try:
            with sock, sock.makefile("rwb") as file:
                self.talk(file)
        except (OSError, ValueError):
            pass

    def talk(self, file):
        def say(text):
            file.write(text.encode() + b"\r\n")
            file.flush()
        banner = self.banner(self.messages) if callable(self.banner) else self.banner
        say(banner)
        while not banner.startswith("421") and (line := file.readline()):
            verb = line[:4].upper().decode().strip()
            if verb == "MAIL":
                number, self.messages = self.messages, self.messages + 1
            reply = self.answer(verb, line.decode(), number) if verb in ("MAIL", "RCPT", "DATA") else None
            say(reply or {"DATA": "354 go", "QUIT": "221 bye"}.get(verb, "250 ok"))
            if verb == "DATA" and not reply:
                while file.readline() not in (b".\r\n", b""):
                    pass
                say(self.answer(".", "", number) or "250 taken")
            if verb == "QUIT" or (reply or "").startswith("421"):
                return

    def close(self):
        self.door.shutdown(socket.SHUT_RDWR)
        self.door.close()


@pytest.fixture
def sink(host):
    made = []

    def make(*args, **options):
        made.append(Sink(*args, **options))
        return made[-1]
    yield make
    for one in made:
        one.close()


def deliver(proxy, messages=1, recipients=("to@server.example",), client=None):
    """A session with so many messages, until the server ends it. Returns the final codes."""
    client, codes = client or proxy.greeted(), []
    for _ in range(messages):
        steps = ["MAIL FROM:<a@client.example>", *(f"RCPT TO:<{recipient}>" for recipient in recipients), "DATA"]
        for step in steps:
            client.send(step)
            code = client.reply().code
            if code == 354:
                client.send_raw(b"Subject: x\r\n\r\nx\r\n.\r\n")
                code = client.reply().code
            if code == 421 or step.startswith("MAIL") and code >= 400:
                break
        codes.append(code)
        if code == 421:
            client.expect_end()
            return codes
        if code >= 400:
            client.ask("RSET", "250")
    client.ask("QUIT", "221")
    client.expect_end()
    return codes


def test_counts(warp, sink, state):
    proxy = warp("--state", state, upstream=sink(lambda verb, line, n: "550 5.1.1 who?" if "no@" in line else None))
    assert deliver(proxy, 2, ["to@server.example", "no@server.example"]) == [250, 250]
    close = proxy.wait_for("close")
    proxy.wait_exit()
    slot = State(state).slot(NETWORK)
    assert slot.counts == {"connect_ok": 1, "message_accepted": 2, "tls_plain": 1, "ok": 2, "unknown-user": 2}
    assert slot.timed == {"connect": 1, "banner": 1, "tls": 0, "rcpt": 2, "data": 2, "accept": 2}
    assert slot.text == "5.1.1 who?" and slot.state_name == "ok"
    assert State(state).totals == {"ended_client": 1, "bytes_from_client": close["client_in"], "bytes_to_client": close["client_out"],
                                   "bytes_from_upstream": close["server_in"], "bytes_to_upstream": close["server_out"]}
    assert close["site"] == proxy.records("connect")[0]["site"] == proxy.records("message")[0]["site"] == NETWORK
    assert sessions(state) == 0


@pytest.mark.parametrize("reply", THROTTLES, ids=["gmail", "office365", "yahoo", "postfix", "other"])
def test_throttle_is_noticed(warp, sink, state, tmp_path, reply):
    """A sink that takes fifty messages, and then every other."""
    rules = tmp_path / "rules"
    rules.write_text(RULES)
    proxy = warp("--state", state, "--reply-rules", rules, upstream=sink(lambda verb, line, n: reply if verb == "." and n >= 50 and n % 2 else None)).listen()
    deliver(proxy, 50)
    assert not proxy.records("backoff")
    sent = 0
    while not proxy.records("backoff"):
        sent += len(deliver(proxy, 2))
        proxy.wait_for("message", 50 + sent)
        assert sent <= 20
    change, = proxy.records("backoff")
    assert (change["site"], change["source"], change["mode"]) == (NETWORK, "127.0.0.1", "observe")
    assert (change["from"], change["to"], change["why"], change["text"]) == ("ok", "throttled", "replies", reply[4:][:127])
    assert change["until"] > change["time"] and change["class"] in ("throttle", "reputation", "blocklist")
    assert State(state).slot(NETWORK).state_name == change["to"]


def test_block_is_noticed(warp, sink, state):
    proxy = warp("--state", state, upstream=sink(banner="554 5.7.1 Service unavailable; 192.0.2.1 is on a blocklist"))
    for _ in range(2):
        client = proxy.connect()
        client.expect("554")
        client.ask("QUIT", "221")
        client.expect_end()
        proxy.wait_exit()
    assert [(change["from"], change["to"]) for change in proxy.records("backoff")] == [("ok", "blocked")]
    assert State(state).slot(NETWORK).counts == {"connect_banner": 2}


@pytest.mark.parametrize("stage, reply", [("RCPT", "450 4.2.0 Greylisted, come back later"), ("RCPT", "452 4.2.2 Mailbox full"),
                                          ("RCPT", "550 5.1.1 No such user"), (".", "552 5.3.4 Too large"),
                                          (".", "554 5.7.1 This message is spam")])
def test_what_is_no_throttle(warp, sink, state, stage, reply):
    proxy = warp("--state", state, "--max-errors", 0, upstream=sink(lambda verb, line, n: reply if verb == stage else None))
    deliver(proxy, 60)
    proxy.wait_exit()
    slot = State(state).slot(NETWORK)
    assert (slot.state_name, slot.score) == ("ok", 0) and not proxy.records("backoff")


def test_same_counts_however_started(warp, sink, state, tmp_path):
    """Single starts, one file; a listener, another."""
    counts = []
    for listens in False, True:
        file = tmp_path / f"state{listens}"
        server = sink(lambda verb, line, n: [None, "550 5.1.1 who?", "452 4.2.2 full"][n % 3] if verb == "RCPT" else
                      THROTTLES[1] if verb == "." and n % 4 == 0 else None)
        proxy = warp("--state", file, upstream=server)
        if listens:
            proxy.listen()
        for _ in range(10):
            deliver(proxy, 3)
        proxy.wait_for("close", 10)
        map_ = State(file)
        counts.append((map_.counts(), map_.slot(NETWORK).state_name, map_.slot(NETWORK).timed, map_.totals,
                       [(change["from"], change["to"]) for change in proxy.records("backoff")]))
    assert counts[0] == counts[1]


def test_site_by_certificate(warp, mail_server, state, tmp_path, certs):
    """A certificate that a trusted CA has signed tells the site, in the first session and the next, before its TLS; a banner does not."""
    providers = tmp_path / "providers"
    providers.write_text(f"big .{certificates.HOST.partition('.')[2]} {certificates.HOST}\n")
    server = mail_server(tls=certs.context(), banner="220 mx.google.com ESMTP")
    proxy = warp("--state", state, "--providers", providers, "--tls-ca", certs.ca, upstream=server)
    for site in NETWORK, "big":
        deliver(proxy)
        proxy.wait_exit()
        assert proxy.records("connect")[-1]["site"] == site
        assert proxy.records("message")[-1]["site"] == "big"
    assert State(state).slot("big").counts["message_accepted"] == 2


def test_sessions_that_are_killed(warp, sink, state):
    """Counters lose one step for each at most, locks go with their sessions at once, and the file stays readable."""
    total, kills = (5000, 200) if os.environ.get("STATE_KILLS") else (300, 40)
    proxy = warp("--state", state, upstream=sink()).listen()
    proxy.complete, chance, killed = False, random.Random(7), 0
    for number in range(total):
        client = proxy.greeted()
        if number % (total // kills) == 0 and killed < kills:
            child, = proxy.wait_until(lambda: len(proxy.children()) == 1 and proxy.children(), "the one session")
            for step in ["MAIL FROM:<a@b.example>", "RCPT TO:<c@d.example>", "DATA"][:chance.randrange(4)]:
                client.send(step)
                if chance.random() < 0.7:
                    client.reply()
            if chance.random() < 0.5:
                client.send_raw(b"x\r\n.\r\nQUIT\r\n")
            with contextlib.suppress(ProcessLookupError):       # it has ended already
                os.kill(child, signal.SIGKILL)
            killed += 1
            client.close()
            proxy.wait_until(lambda pid=child: pid not in proxy.children(), "the killed one is gone")
            assert sessions(state) == len(proxy.children())
        else:
            deliver(proxy, client=client)
    proxy.wait_until(lambda: not proxy.children(), "all sessions are over")
    slot = State(state).slot(NETWORK)
    delivered = total - killed
    assert killed == kills and delivered <= slot.counts["message_accepted"] <= total
    assert delivered <= slot.counts["connect_ok"] <= total
    assert delivered - killed <= sum(State(state).totals[name] for name in ("ended_client",)) <= total
    assert sessions(state) == 0


def test_what_a_killed_session_loses(warp, sink, state):
    """The message under way; what was before it is counted, its octets, too."""
    proxy = warp("--state", state, upstream=sink()).listen()
    proxy.complete = False
    client = proxy.greeted()
    for number in range(3):
        client.ask("MAIL FROM:<a@client.example>", "250")
        client.ask("RCPT TO:<b@server.example>", "250")
        client.ask("DATA", "354")
        if number < 2:
            client.send_raw(b"Subject: x\r\n\r\nx\r\n.\r\n")
            client.expect("250")
    child, = proxy.children()
    os.kill(child, signal.SIGKILL)
    proxy.wait_until(lambda: not proxy.children(), "the end of the session")
    client.close()
    killed = State(state)
    assert killed.slot(NETWORK).counts == {"connect_ok": 1, "message_accepted": 2, "tls_plain": 1, "ok": 2}
    assert killed.totals["bytes_from_client"] == len("EHLO client.example\r\n") + 2 * len(
        "MAIL FROM:<a@client.example>\r\nRCPT TO:<b@server.example>\r\nDATA\r\nSubject: x\r\n\r\nx\r\n.\r\n")
    deliver(proxy)
    close = proxy.wait_for("close")
    assert State(state).totals["bytes_from_client"] == killed.totals["bytes_from_client"] + close["client_in"]


@pytest.mark.parametrize("harm", HARMS)
def test_file_is_harmed_while_in_use(warp, sink, state, harm):
    proxy = warp("--state", state, upstream=sink()).listen()
    client = proxy.greeted()
    harm(state)
    assert deliver(proxy, 3, client=client) == [250] * 3
    assert deliver(proxy, 3) == [250] * 3


@pytest.mark.parametrize("kind", ["link", "other", "directory", "nowhere", "world"])
def test_file_that_is_no_good(warp, sink, state, kind):
    if kind == "link":
        state.symlink_to("/dev/zero")
    elif kind == "other":
        state.write_text("x")
    elif kind == "directory":
        state.mkdir()
    elif kind == "world":
        state.write_bytes(bytes(SIZE))
        state.chmod(0o666)
    path = state / "no" / "state" if kind == "nowhere" else state
    for listens in False, True:
        proxy = warp("--state", path, upstream=sink())
        if listens:
            proxy.listen()
        assert deliver(proxy) == [250]
        error, = proxy.records("error")
        assert error["error"].startswith(f"--state {path}: ") and error["error"].endswith("; nothing is observed")
    assert check(path) == f"smtpwarp: {error['error']}\n"


def check(path, *options):
    done = subprocess.run([BINARY, "--check", "--state", path, *options], capture_output=True, text=True, check=False)
    assert done.returncode == 0
    return done.stderr


def test_check_makes_and_changes_nothing(warp, sink, state):
    assert check(state) == "" and not state.exists()
    assert "Permission denied; nothing is observed" in check(state, "--user", "nobody") and not state.exists()
    proxy = warp("--state", state, upstream=sink()).listen()
    deliver(proxy)
    proxy.wait_for("close")
    before = state.read_bytes()
    assert check(state) == "" and state.read_bytes() == before
    assert "belongs to another user" in check(state, "--user", "nobody") or "Permission denied" in check(state, "--user", "nobody")


def test_full_file_system(warp, sink, tmp_path):
    small = tmp_path / "small"
    small.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", small], check=True)
    try:
        proxy = warp("--state", small / "state", upstream=sink())
        assert deliver(proxy) == [250]
        proxy.wait_exit()
        assert "No space left" in proxy.records("error")[0]["error"] and not list(small.iterdir())
    finally:
        subprocess.run(["umount", small], check=True)


def test_values(warp, sink):
    done = subprocess.run([BINARY, "--check", "--state", "relative"], capture_output=True, text=True, check=False)
    assert done.returncode == 78 and "--state relative: give a path from / on, or none" in done.stderr
    proxy = warp("--state", "none", upstream=sink())
    assert deliver(proxy) == [250] and not proxy.records("error")


def test_limits_and_hooks(warp, sink, state):
    proxy = warp("--state", state, "--max-sessions", 1, upstream=sink()).listen()
    first = proxy.greeted()
    proxy.connect().expect("421")
    deliver(proxy, client=first)
    proxy.wait_for("close")
    assert State(state).totals["limit_sessions"] == 1


def test_providers_fault(warp, sink, tmp_path):
    file = tmp_path / "providers"
    file.write_text("gmail .google.com\nbad\n")
    done = subprocess.run([BINARY, "--check", "--providers", file], capture_output=True, text=True, check=False)
    assert done.returncode == 78 and f"--providers {file}: line 2: " in done.stderr
