"""--client-tls auto: a client's STARTTLS goes to the upstream; a client that begins a message without has it carried over TLS.
DESIGN 5; PROTOCOL 40, 56, 81."""
import pytest

import certificates
from hooks import Hooks
from test_passthrough import HELLO, context
from warp import MESSAGE, send_message

AUTO = ["--client-tls", "auto"]
MAIL, RCPT = "MAIL FROM:<a@client.example>", "RCPT TO:<b@server.example>"


def goes_on_in_plain(made, *commands):
    """A server whose handshake has failed: a second connection to it, on which it gets these commands. Nothing shows to the client."""
    again = made.upstream.accept()
    again.send("220 server.example ESMTP")
    again.expect_line("EHLO client.example")
    again.send("250-server.example", "250 STARTTLS")
    for command in commands:
        again.expect_line(command)
        again.send("250 2.1.0 fine")


def test_client_that_speaks_tls(warp, certs, mail_server):
    """It speaks with the upstream, and verifies its certificate; the records say that nothing was seen."""
    server = mail_server("PIPELINING", tls=certs.context())
    made = warp(*AUTO, upstream=server)
    client = made.greeted()
    client.ask("STARTTLS", "220")
    client.begin_tls(context(certs), certificates.HOST)
    client.ask("EHLO inside.example", "250")
    send_message(client)
    client.ask("QUIT", "221")
    client.expect_end()
    client.close()
    assert [(one["data"], one["tls"]) for one in server.messages] == [(MESSAGE, True)]
    record, close = made.wait_for("tls"), made.wait_for("close")
    assert (record["side"], record["level"], record["result"]) == ("client", "auto", "passthrough")
    assert close["seen"] is False and close["messages"] == 0
    assert not made.records("error")


@pytest.mark.parametrize("hello", ["EHLO c", "HELO c"])
def test_client_without_tls(warp, certs, mail_server, hello):
    """Its messages go over TLS all the same, the second one on the same connection."""
    server = mail_server("PIPELINING", "SIZE 10000", tls=certs.context())
    made = warp(*AUTO, upstream=server)
    client = made.connect()
    client.expect("220")
    texts = client.ask(hello, "250").texts
    assert ("STARTTLS" in texts) == (hello == "EHLO c")
    assert ("STARTTLS" in server.commands) == (hello == "HELO c")
    send_message(client)
    send_message(client)
    assert "STARTTLS" not in client.ask("EHLO c", "250").texts
    client.ask("QUIT", "221")
    assert [one["tls"] for one in server.messages] == [True, True]
    assert server.commands.count("STARTTLS") == 1
    record, close = made.wait_for("tls"), made.wait_for("close")
    assert (record["side"], record["result"]) == ("upstream", "ok")
    assert close["seen"] is True and close["messages"] == 2 and "hint" not in close


def test_pipelined(warp, certs, mail_server):
    """A whole message in one segment: MAIL waits for TLS, and what is behind it waits for MAIL."""
    server = mail_server("PIPELINING", tls=certs.context())
    client = warp(*AUTO, upstream=server).greeted()
    client.send_raw(f"{MAIL}\r\n{RCPT}\r\nDATA\r\n".encode())
    for code in ("250", "250", "354"):
        client.expect(code)
    client.send_raw(MESSAGE)
    client.expect("250")
    assert [(one["data"], one["tls"]) for one in server.messages] == [(MESSAGE, True)]


def test_refused_mail_is_the_upstreams_word(warp, certs, mail_server):
    server = mail_server(tls=certs.context(), replies={"MAIL": "550 5.7.1 not you"})
    made = warp(*AUTO, upstream=server)
    client = made.greeted()
    client.ask(MAIL, "550 5.7.1 not you")
    client.ask(MAIL, "550 5.7.1 not you")
    assert server.commands.count("STARTTLS") == 1
    client.ask("QUIT", "221")
    assert made.wait_for("message")["result"] == "rejected"


@pytest.mark.parametrize("reply", ["454 4.7.0 not now", "502 5.5.1 what?"])
@pytest.mark.parametrize("level, outcome", [("may", "250"), ("encrypt", "451 4.7.5")])
def test_starttls_that_is_refused(warp, mail_server, level, outcome, reply):
    server = mail_server("STARTTLS", replies={"STARTTLS": reply})
    made = warp(*AUTO, "--tls", level, upstream=server)
    client = made.greeted()
    client.ask(MAIL, outcome)
    if outcome == "250":
        client.ask(RCPT, "250")
        return
    client.ask(RCPT, "421 4.7.5")
    client.expect_end()
    assert "MAIL" not in str(server.commands)
    message = made.wait_for("message")
    assert message["result"] == "deferred" and message["reply"]["by"] == "smtpwarp"


@pytest.mark.parametrize("level, outcome", [("none", "250"), ("may", "250"), ("encrypt", "451 4.7.5")])
def test_starttls_that_is_not_offered(warp, mail_server, level, outcome):
    server = mail_server("SIZE")
    client = warp(*AUTO, "--tls", level, upstream=server).connect()
    client.expect("220")
    assert "STARTTLS" not in client.ask("EHLO c", "250").texts
    client.ask("STARTTLS", "502")
    client.ask(MAIL, outcome)


@pytest.fixture(name="offered")
def fixture_offered(warp):
    """offered(*options): a session whose upstream has offered STARTTLS."""
    def make(*options):
        made = warp(*AUTO, *options)
        session = made.session()
        session.warp = made
        assert "STARTTLS" in session.greet("STARTTLS", "SIZE", "AUTH PLAIN").texts
        return session
    return make


def test_auth_without_tls(warp, certs, mail_server):
    """A client on this host that says its password in the clear: it crosses the network inside of TLS."""
    server = mail_server("AUTH PLAIN", tls=certs.context(), replies={"AUTH": "235 2.7.0 welcome"})
    made = warp(*AUTO, "--verbose", upstream=server)
    client = made.greeted()
    client.ask("AUTH PLAIN AHUAc2VjcmV0", "235")
    assert server.commands[-3:] == ["STARTTLS", "EHLO client.example", "AUTH PLAIN AHUAc2VjcmV0"]
    send_message(client)
    client.ask("QUIT", "221")
    assert server.messages[0]["tls"] and "AHUAc2VjcmV0" not in made.log_text()


@pytest.mark.parametrize("level, offers, outcome", [
    ("encrypt", ["STARTTLS", "AUTH PLAIN"], "454 4.7.5"), ("encrypt", ["AUTH PLAIN"], "454 4.7.5"), ("none", ["AUTH PLAIN"], "235")])
def test_auth_whose_tls_fails(warp, mail_server, level, offers, outcome):
    server = mail_server(*offers, replies={"STARTTLS": "454 4.7.0 no", "AUTH": "235 2.7.0 welcome"})
    client = warp(*AUTO, "--tls", level, upstream=server).greeted()
    client.ask("AUTH PLAIN AHUAc2VjcmV0", outcome)
    assert ("AUTH PLAIN AHUAc2VjcmV0" in server.commands) == (outcome == "235")


def test_auth_that_vanishes_behind_tls(warp, certs, mail_server):
    server = mail_server(tls=certs.context(), replies={
        "EHLO": lambda line, seen=[]: "250-server.example\n250-AUTH PLAIN\n250 STARTTLS" if not seen.append(1) and len(seen) == 1
        else "250 server.example"})
    client = warp(*AUTO, upstream=server).greeted()
    client.ask("AUTH PLAIN AHUAc2VjcmV0", "454 4.7.0")
    send_message(client)


def test_56_octets_behind_220_to_our_starttls(offered):
    session = offered()
    session.client.send(MAIL)
    session.server.expect_line("STARTTLS")
    session.server.send_raw(b"220 go ahead\r\n250 evil\r\n")
    session.client.expect("451 4.7.0")
    session.client.ask(RCPT, "421")
    assert "after the reply to STARTTLS" in session.warp.wait_for("error")["error"]


@pytest.mark.parametrize("tail", [b"x", HELLO])
def test_56_octets_behind_the_clients_starttls(offered, tail):
    session = offered()
    session.client.send_raw(b"STARTTLS\r\n" + tail)
    session.client.expect("421 4.7.0")
    session.client.expect_end()


@pytest.mark.parametrize("level, outcome", [("may", "250"), ("encrypt", "451 4.7.5")])
def test_handshake_that_fails(offered, level, outcome):
    """With may the mail goes in plain, on a second connection that the client does not notice."""
    session = offered("--tls", level)
    client = session.client
    client.send(MAIL)
    session.server.expect_line("STARTTLS")
    session.server.send("220 go ahead")
    session.server.take(5)
    session.server.close()
    if outcome != "250":
        client.expect(outcome)
        client.ask(RCPT, "421")
        return
    goes_on_in_plain(session.warp, MAIL)
    client.expect("250 2.1.0 fine")
    assert session.warp.wait_for("tls")["result"] == "fallback"


def test_upstream_that_is_lost_before_tls(offered):
    session = offered()
    session.client.send(MAIL)
    session.server.expect_line("STARTTLS")
    session.server.close()
    session.client.expect("421 4.4.2")
    session.client.expect_end()


def test_xforward(warp, certs, mail_server):
    """Told before MAIL, as always."""
    server = mail_server("XFORWARD NAME ADDR", tls=certs.context(), replies={"XFORWARD": "250 2.0.0 noted"})
    client = warp(*AUTO, "--xforward", "--client-names", "none", upstream=server).greeted()
    send_message(client)
    verbs = [command.split()[0] for command in server.commands]
    assert verbs[verbs.index("STARTTLS"):][:4] == ["STARTTLS", "EHLO", "XFORWARD", "MAIL"]


# --tls-inspect

@pytest.mark.parametrize("block, inspected", [("127.0.0.0/8", True), ("to:127.0.0.0/8", True), ("10.0.0.0/8", False), ("to:::/0", False)])
@pytest.mark.parametrize("certificate", [False, True])
def test_inspected(warp, certs, mail_server, block, inspected, certificate):
    """Whoever is inspected is not shown the upstream's STARTTLS, but ours, if there is a certificate; hooks see its mail."""
    server = mail_server("SIZE", tls=certs.context())
    made = warp(*AUTO, "--tls-inspect", block, *(certs.options() if certificate else []), upstream=server)
    client = made.connect()
    client.expect("220")
    shown = "STARTTLS" in client.ask("EHLO c", "250").texts
    assert shown == (certificate or not inspected)
    assert ("STARTTLS" in server.commands) == inspected
    if shown:
        client.ask("STARTTLS", "220")
        client.begin_tls(context(certs), certificates.HOST)
        client.ask("EHLO c", "250")
    send_message(client)
    client.ask("QUIT", "221")
    client.close()
    assert made.wait_for("close")["seen"] == inspected
    assert server.messages[0]["tls"]


def test_sessions_that_must_be_seen(warp, mail_server, tmp_path):
    """smtpwarp does not start with checks of recipients that a client gets past, unless the operator has named those it does not."""
    hooks = Hooks(tmp_path / "hooks")
    hooks.script("rcpt", "echo accept")
    for options in (["--valid-recipients", "@x"], ["--override-recipient", "a@b.example"], hooks.options):
        made = warp(*AUTO, *options, upstream=mail_server())
        process = made.spawn("--check")
        assert process.wait() == 78
        assert "--tls-inspect" in made.error_path.read_text()
        made.exit_codes = (78,)
        assert warp(*AUTO, *options, "--tls-inspect", "to:10.0.0.0/8", upstream=mail_server()).spawn("--check").wait() == 0


def test_client_that_may_want_tls(warp, certs, mail_server):
    """One that leaves at the sight of a list without STARTTLS, where the server has it."""
    made = warp(upstream=mail_server(tls=certs.context()))
    for _ in range(2):
        client = made.greeted()
        client.ask("QUIT", "221")
    assert [record.get("hint") for record in made.wait_for("close", 2) and made.records("close")] == ["may require TLS"] * 2
    client = made.greeted()
    send_message(client)
    client.ask("QUIT", "221")
    made.wait_for("close", 3)
    assert "hint" not in made.records("close")[2]
