"""--plain-after: mail to a server whose TLS fails is deferred, until its TLS has failed for so long; then it goes in plain."""
import datetime
import re
import subprocess
import time

import pytest

import peers
from statemap import HARMS, State
from test_upstream_tls import FAILURES, asked_for_tls, refused, start
from warp import BINARY

TEXT = r"451 4\.7\.5 127\.0\.0\.1: TLS failed, plain in {} s: (.+)"
REFUSALS = ["454 4.7.0 not now", "501 5.5.4 no", "554 5.7.1 no"]


class Choosing(peers.Conversation):
    """The handshake succeeds, if the server's `works` is true; else the connection is reset."""

    def do_starttls(self, line):
        if getattr(self.server, "works", False):
            return super().do_starttls(line)
        self.peer.send("220 2.0.0 go ahead")
        self.peer.take(1)
        self.peer.reset()
        return False


@pytest.fixture(name="state")
def fixture_state(tmp_path):
    return tmp_path / "state"


@pytest.fixture(name="server")
def fixture_server(mail_server, certs):
    return mail_server(tls=certs.context(), conversation=Choosing)


def send(proxy, greeting="EHLO client.example"):
    """The reply to EHLO that defers; or to a message, which has been sent."""
    client = proxy.connect()
    client.expect("220")
    client.send(greeting)
    reply = client.reply()
    if reply.code == 250:
        for command, code in (("MAIL FROM:<a@b.example>", "250"), ("RCPT TO:<c@d.example>", "250"), ("DATA", "354"), (".", "250")):
            reply = client.ask(command, code)
    client.close()
    return reply


def send_until_plain(proxy, server, since, after):
    """Mail is deferred, and then goes in plain: not before `after` seconds have passed since then. Returns how often it was deferred."""
    deferred = 0
    while (reply := send(proxy)).code == 451:
        assert re.fullmatch(TEXT.format(r"\d+"), reply)
        deferred += 1
        time.sleep(0.05)
    assert reply.code == 250 and time.monotonic() >= since + after
    assert not server.messages[-1]["tls"]
    return deferred


@pytest.mark.parametrize("fail", FAILURES)
def test_failed_handshake(warp, certs, state, fail):
    """58: no second connection."""
    proxy = warp("--tls-timeout", 0.4, "--plain-after", "5m", "--state", state)
    session = proxy.session()
    asked_for_tls(session)
    fail(session.server, certs)
    reply = session.client.reply()
    reason = re.fullmatch(TEXT.format(300), reply)[1]
    session.client.send("MAIL FROM:<a@b.example>")
    assert session.client.reply() == f"421{reply[3:]}"
    session.client.expect_end()
    record = proxy.wait_for("tls")
    assert (record["result"], record["reason"], record["level"]) == ("failed", reason, "may")
    wait = datetime.datetime.fromisoformat(record["plain_from"][:-1]) - datetime.datetime.fromisoformat(record["time"][:-1])
    assert 299.9 < wait.total_seconds() < 301.1
    proxy.upstream.nobody(0.02)
    proxy.wait_for("close")
    proxy.wait_exit()
    assert State(state).counts()["tls_failed"] == 1


@pytest.mark.parametrize("reply", REFUSALS)
@pytest.mark.parametrize("greeting", ["EHLO client.example", "HELO client.example"])
def test_starttls_refused(warp, certs, mail_server, state, reply, greeting):
    server = mail_server(tls=certs.context(), replies={"STARTTLS": reply})
    client = warp("--plain-after", 300, "--state", state, upstream=server).connect()
    client.expect("220")
    client.send(greeting)
    assert re.fullmatch(TEXT.format(300), client.reply())[1] == f"STARTTLS was refused: {reply}"
    client.ask("QUIT", "221")
    client.expect_end()


def test_starttls_not_offered(warp, mail_server, state):
    """There is nothing that could have failed."""
    server = mail_server()
    assert send(warp("--plain-after", 300, "--state", state, upstream=server)).code == 250


@pytest.mark.parametrize("level", ["encrypt", "verify-if-offered"])
def test_levels_without_plain(warp, certs, server, state, level):
    """They never get there."""
    proxy = start(warp, certs, server, "--plain-after", 0.1, "--state", state, "--tls", level).listen()
    for _ in range(3):
        client = proxy.connect()
        client.expect("220")
        client.send("EHLO client.example")
        refused(client, server)
        time.sleep(0.6)
    assert not any("plain_from" in record for record in proxy.records("tls"))


def test_plain_after_a_while(warp, server, state):
    """All sessions know, however they were started. TLS that succeeds ends it."""
    options = "--plain-after", 2, "--state", state
    single, listener = warp(*options, upstream=server), warp(*options, upstream=server).listen()
    begun = time.monotonic()
    assert send(single).code == 451
    assert send_until_plain(listener, server, begun, 2)
    assert send(single).code == 250
    assert not any(message["tls"] for message in server.messages)
    server.works = True
    assert send(single).code == 250 and server.messages[-1]["tls"]
    server.works = False
    begun = time.monotonic()
    assert send(listener).code == 451
    assert send_until_plain(single, server, begun, 2)
    results = [record["result"] for record in single.records("tls")]
    assert results[:3] == ["failed", "fallback", "ok"] and results[-1] == "fallback"


@pytest.mark.parametrize("options, command", [(["--connect-on", "recipient"], 2), (["--tls-on", "recipient"], 2), (["--client-tls", "auto"], 1)],
                         ids=lambda value: value[-1] if isinstance(value, list) else None)
def test_tls_that_begins_later(warp, server, state, options, command):
    """The command that needs it is deferred: RCPT; or the MAIL of a client that sends without TLS."""
    proxy = warp("--plain-after", 2, "--state", state, *options, upstream=server).listen()
    begun, replies = time.monotonic(), []
    while not replies or replies[-1].code != 250:
        client = proxy.greeted()
        replies = []
        for line in ("MAIL FROM:<a@b.example>", "RCPT TO:<c@d.example>")[:command]:
            client.send(line)
            replies.append(client.reply())
        assert [reply.code for reply in replies[:-1]] == [250] * (command - 1)
        assert replies[-1].code == 250 or re.fullmatch(TEXT.format(r"\d"), replies[-1]), replies
        client.close()
    assert time.monotonic() >= begun + 2
    assert proxy.wait_for("tls", result="failed") and proxy.wait_for("tls", result="fallback")


@pytest.mark.parametrize("harm", HARMS)
def test_file_is_harmed_while_in_use(warp, server, state, harm):
    """A file that is cut remembers nothing: mail waits, and does not go in plain."""
    proxy = warp("--plain-after", 300, "--state", state, upstream=server).listen()
    assert send(proxy).code == 451
    harm(state)
    for _ in range(2):
        assert send(proxy).code == 451
    server.works = True
    assert send(proxy).code == 250 and server.messages[0]["tls"]


@pytest.mark.parametrize("kind", ["none", "nowhere", "other"])
@pytest.mark.parametrize("how", ["check", "listen"])
def test_a_file_is_needed(tmp_path, kind, how):
    """For want of one smtpwarp does not start."""
    (tmp_path / "other").write_text("x")
    path = {"none": "none", "nowhere": tmp_path / "no/state", "other": tmp_path / "other"}[kind]
    done = subprocess.run([BINARY, "--plain-after", "300", "--state", path, "--log", "stderr",
                           *(["--check"] if how == "check" else ["--listen", "127.0.0.1:2525"])], capture_output=True, text=True, check=False)
    why = {"none": "no file", "nowhere": "No such file or directory",
           "other": "it is no state of this version: remove it, or name another file"}[kind]
    assert done.returncode == 78
    assert f"--plain-after needs a file that smtpwarp's user can write, --state: {path}: {why}" in done.stderr


def test_a_client_is_told(warp, server, tmp_path):
    """Started for one connection."""
    proxy = warp("--plain-after", 300, "--state", tmp_path / "no/state", upstream=server)
    proxy.exit_codes = (78,)
    proxy.complete = False
    proxy.connect().expect("421 4.3.5")
