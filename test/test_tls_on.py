"""--tls-on recipient: the upstream's banner and list at once, TLS with it when the recipient is known. DESIGN 5."""
import pytest

import certificates
from hooks import Hooks
from test_client_tls_auto import MAIL, RCPT, goes_on_in_plain
from test_passthrough import context
from warp import MESSAGE, send_message

LATE = ["--tls-on", "recipient"]


def verbs(server):
    return [command.split()[0] for command in server.commands]


@pytest.mark.parametrize("hello", ["EHLO c", "HELO c"])
def test_messages(warp, certs, mail_server, hello):
    """The client sees the upstream's own banner and list; TLS begins at the first RCPT, and stays."""
    server = mail_server("PIPELINING", "SIZE 10000", tls=certs.context(), banner="220 its.own ESMTP banner")
    made = warp(*LATE, "--verbose", upstream=server)
    client = made.connect()
    client.expect("220 its.own ESMTP banner")
    texts = client.ask(hello, "250").texts
    assert "STARTTLS" not in texts and ("SIZE 10000" in texts) == (hello == "EHLO c")
    client.ask(MAIL, "250 2.1.0 Ok")
    assert "STARTTLS" not in server.commands and "MAIL" not in verbs(server)
    client.ask(RCPT, "250")
    client.ask("DATA", "354")
    client.send_raw(MESSAGE)
    client.expect("250")
    send_message(client)
    client.ask("QUIT", "221")
    client.expect_end()
    assert [(one["tls"], one["data"]) for one in server.messages] == [(True, MESSAGE)] * 2
    assert verbs(server).count("STARTTLS") == 1
    assert [record["result"] for record in made.records("message")] == ["accepted"] * 2
    assert made.wait_for("tls")["result"] == "ok" and made.wait_for("close")["by"] == "client"


@pytest.mark.parametrize("rset", [False, True])
def test_pipelined(warp, certs, mail_server, rset):
    server = mail_server("PIPELINING", tls=certs.context())
    client = warp(*LATE, upstream=server).greeted()
    more = b"MAIL FROM:<x@client.example>\r\nRSET\r\n" if rset else b""
    client.send_raw(more + f"{MAIL}\r\n{RCPT}\r\n{RCPT}\r\nDATA\r\n".encode())
    for code in ["250", "250"] * rset + ["250", "250", "250", "354"]:
        client.expect(code)
    client.send_raw(MESSAGE)
    client.expect("250")
    assert [(one["tls"], one["data"], len(one["to"])) for one in server.messages] == [(True, MESSAGE, 2)]


def test_refused_mail_is_the_reply_to_rcpt(warp, certs, mail_server):
    server = mail_server(tls=certs.context(), replies={"MAIL": "550 5.7.1 not you"})
    made = warp(*LATE, upstream=server)
    client = made.greeted()
    client.ask(MAIL, "250")
    client.ask(RCPT, "550 5.7.1 not you")
    client.ask("DATA", "5")
    client.ask("RSET", "250")
    client.ask("QUIT", "221")
    message = made.wait_for("message")
    assert message["result"] == "rejected" and message["rcpt_to"][0]["code"] == 550


def test_refused_recipients(warp):
    session = warp(*LATE).session()
    session.greet("SIZE")
    session.client.ask(MAIL, "250")
    for name, reply in ("bad", "550 5.1.1 who?"), ("good", "250 2.1.5 ok"), ("bad2", "450 4.2.1 later"):
        session.client.send(f"RCPT TO:<{name}@server.example>")
        if name == "bad":
            session.server.expect_line(MAIL)
            session.server.send("250 2.1.0 fine")
        session.server.expect_line(f"RCPT TO:<{name}@server.example>")
        session.server.send(reply)
        session.client.expect(reply)
    session.data()
    session.body()
    session.dot()
    session.sent()
    session.exchange("RSET", "250 2.0.0 its own")


@pytest.mark.parametrize("level, outcome", [("none", "250"), ("may", "250"), ("encrypt", "451 4.7.5")])
@pytest.mark.parametrize("offered, reply", [(False, None), (True, "454 4.7.0 not now")])
def test_no_tls(warp, mail_server, level, outcome, offered, reply):
    server = mail_server(*["STARTTLS"] * offered, replies={"STARTTLS": reply} if reply else None)
    made = warp(*LATE, "--tls", level, upstream=server)
    client = made.greeted()
    client.ask(MAIL, "250")
    client.ask(RCPT, outcome)
    if outcome == "250":
        client.ask("DATA", "354")
        client.send_raw(MESSAGE)
        client.expect("250")
    else:
        assert "MAIL" not in verbs(server)
        client.ask("RSET", "421")
        assert made.wait_for("message")["rcpt_to"][0]["code"] == 451


@pytest.mark.parametrize("level, outcome", [("may", "250"), ("encrypt", "451 4.7.5")])
def test_handshake_that_fails(warp, level, outcome):
    made = warp(*LATE, "--tls", level)
    session = made.session()
    session.greet("STARTTLS", "8BITMIME")
    session.client.ask(MAIL, "250")
    session.client.send(RCPT)
    session.server.expect_line("STARTTLS")
    session.server.send("220 go ahead")
    session.server.take(5)
    session.server.close()
    if outcome != "250":
        session.client.expect(outcome)
        session.client.ask("NOOP", "421")
        return
    goes_on_in_plain(made, MAIL, RCPT)
    session.client.expect("250 2.1.0 fine")


@pytest.mark.parametrize("when", ["STARTTLS", "MAIL", "RCPT"])
def test_upstream_that_is_lost(warp, when):
    """Before it has the recipient: the recipient is deferred, and the session ends."""
    made = warp(*LATE)
    session = made.session()
    session.greet("SIZE") if when != "STARTTLS" else session.greet("STARTTLS")
    session.client.ask(MAIL, "250")
    session.client.send(RCPT)
    if when != "STARTTLS":
        session.server.expect_line(MAIL)
    if when == "RCPT":
        session.server.send("250 2.1.0 fine")
        session.server.expect_line(RCPT)
    if when == "STARTTLS":
        session.server.expect_line("STARTTLS")
    session.server.close()
    again = made.upstream.accept() if when != "RCPT" else None
    if again:
        again.close()
        session.client.expect("451 4.4.1")
        session.client.ask("NOOP", "421")
    else:
        session.client.expect("421 4.4.2")


def test_what_vanishes_behind_tls(warp, certs, mail_server):
    """SMTPUTF8 was shown in the clear, and TLS has it no more: such a message is refused, others go on without what there is not."""
    server = mail_server(tls=certs.context(), replies={
        "EHLO": lambda line, seen=[]: "250-server.example\n250-STARTTLS\n250-DSN\n250-8BITMIME\n250 SMTPUTF8" if not seen.append(1) and len(seen) == 1
        else "250 server.example"})
    client = warp(*LATE, upstream=server).greeted()
    client.ask("MAIL FROM:<a@client.example> SMTPUTF8", "250")
    client.ask(RCPT, "553 5.6.7")
    client.ask("RSET", "250")
    client.ask("MAIL FROM:<a@client.example> BODY=8BITMIME RET=HDRS", "250")
    client.ask(RCPT, "250")
    assert server.commands[-2] == "MAIL FROM:<a@client.example> RET=HDRS"


# Verdicts of hooks

@pytest.fixture(name="judged")
def fixture_judged(warp, certs, mail_server, tmp_path):
    """A session whose rcpt hook asks for TLS by the recipient: name@LEVEL.example."""
    hooks = Hooks(tmp_path / "hooks")
    hooks.script("rcpt", r"""sed -E 's/.*"rcpt":\{"address":"[^@]*@([^.]*)[.].*/tls \1 HOST/'""".replace("HOST", certificates.HOST))
    server = mail_server("PIPELINING", "SIZE", tls=certs.context())
    made = warp(*LATE, *hooks.options, "--tls-ca", certs.ca, upstream=server)
    return made, made.greeted(), server


def test_verdicts_decide(judged):
    """Another level in a transaction of its own has a connection of its own; the client notices nothing."""
    made, client, server = judged
    for level in "none", "encrypt", "verify", "verify", "none":
        client.ask(MAIL, "250")
        client.ask(f"RCPT TO:<b@{level}.example>", "250")
        client.ask("DATA", "354")
        client.send_raw(MESSAGE)
        client.expect("250")
    client.ask("QUIT", "221")
    assert [one["tls"] for one in server.messages] == [False, True, True, True, False]
    assert [record["level"] for record in made.records("tls")] == ["encrypt", "verify"]
    assert len(server.peers) == 3


def test_recipients_that_want_other_tls(judged):
    """Within one transaction: it is refused for now, and what goes to the others does not change."""
    _, client, server = judged
    client.ask(MAIL, "250")
    client.ask("RCPT TO:<b@none.example>", "250")
    client.ask("RCPT TO:<b@encrypt.example>", "452 4.5.3")
    client.ask("DATA", "354")
    client.send_raw(MESSAGE)
    client.expect("250")
    client.ask(MAIL, "250")
    client.ask("RCPT TO:<b@encrypt.example>", "250")
    client.ask("RCPT TO:<b@none.example>", "452 4.5.3")
    assert [(one["tls"], one["to"]) for one in server.messages] == [(False, ["<b@none.example>"])]


def test_with_auto(warp, certs, mail_server):
    """A client that uses STARTTLS passes; for another TLS comes with the recipient."""
    server = mail_server(tls=certs.context())
    made = warp(*LATE, "--client-tls", "auto", upstream=server)
    client = made.greeted()
    client.ask("STARTTLS", "220")
    client.begin_tls(context(certs), certificates.HOST)
    client.ask("EHLO inside", "250")
    send_message(client)
    client = made.greeted()
    client.ask(MAIL, "250 2.1.0 Ok")
    client.ask(RCPT, "250")
    assert server.messages[0]["tls"] and verbs(server)[-4:] == ["STARTTLS", "EHLO", "MAIL", "RCPT"]


@pytest.mark.parametrize("options", [["--upstream-auth", "/dev/null"]])
def test_what_it_is_not_for(warp, options):
    process = warp(*LATE, *options, "--upstream", "127.0.0.1:25")
    assert process.spawn("--check").wait() == 78
    process.exit_codes = (78,)
    assert "begins TLS too late for --upstream-auth: use --connect-on recipient" in process.error_path.read_text()


# REQUIRETLS, RFC 8689

@pytest.mark.parametrize("level, extensions, outcome", [
    ("verify", ["REQUIRETLS"], "250"), ("verify", [], "451 4.7.30"), ("may", ["REQUIRETLS"], None)])
def test_requiretls(warp, certs, mail_server, level, extensions, outcome):
    """Offered inside of TLS, and only by policies that verify; whether it can be kept shows with the recipient."""
    server = mail_server("SIZE", tls=certs.context(), replies={
        "EHLO": lambda line, seen=[]: "250-server.example\n250 STARTTLS" if not seen.append(1) and len(seen) <= 2
        else "\n".join(["250-server.example", *(f"250-{word}" for word in extensions), "250 SIZE"])})
    made = warp(*LATE, "--tls", level, *certs.options(), "--tls-ca", certs.ca, "--tls-name", certificates.HOST, upstream=server)
    client = made.connect()
    client.expect("220")
    assert "REQUIRETLS" not in client.ask("EHLO c", "250").texts
    client.ask(f"{MAIL} REQUIRETLS", "530 5.7.30")
    client.ask("STARTTLS", "220")
    client.begin_tls(context(certs), certificates.HOST)
    assert ("REQUIRETLS" in client.ask("EHLO c", "250").texts) == bool(outcome)
    client.ask(f"{MAIL} REQUIRETLS", "250" if outcome else "530 5.7.30")
    if outcome:
        client.ask(RCPT, outcome)
        assert (f"{MAIL} REQUIRETLS" in server.commands) == (outcome == "250")
