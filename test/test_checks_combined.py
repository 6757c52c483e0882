"""Checks of clients and recipients combined with TLS, PROXY headers, hooks, routes and extensions. What each does by itself
is in test_checks.py. PROTOCOL 39, 44, 48, 55, 65, 79."""
import contextlib
import os
import socket
import ssl
import time

import pytest

import certificates
import nameservers
from nameservers import Rude, listed, reply
from test_checks import EARLY, LATE, OUTSIDE4, ask_recipients, deliver, elapsed, hooks, lists, net, outside
from test_identity import V1, begin, v2
from warp import MESSAGE

__all__ = ["hooks", "net"]      # fixtures
IMPLICIT, PASS = ["--client-tls", "implicit"], ["--client-tls", "passthrough"]
DELAY = ["--greet-delay", 0.4, "--hostname", "proxy.example"]
PROXIES = ["--accept-proxy", "127.0.0.0/8", "--valid-recipients", "."]
BOTH = pytest.mark.parametrize("late", [[], LATE], ids=["early", "late"])
CLIENT = "192.0.2.1"            # whom V1 and v2() name


@pytest.fixture
def implicit(warp, certs):
    """implicit(*options): a smtpwarp that speaks TLS from the first octet, and a client before its handshake."""
    def make(*options, **settings):
        proxy = warp(*certs.options(), *IMPLICIT, *options, **settings)
        return proxy, proxy.connect()
    return make


# The greet delay and TLS

@BOTH
def test_39_delay_inside_of_tls(implicit, certs, mail_server, late):
    """PROTOCOL 65: the handshake, in which the client speaks first, is no early talk; the delay counts from its end."""
    _, client = implicit(*DELAY, *late, upstream=mail_server("PIPELINING"))
    client.silent(0.5)                          # longer than the delay
    start = time.monotonic()
    client.begin_tls(certs.trusting(), certificates.HOST)
    assert client.line() == "220-proxy.example ESMTP"
    client.expect("220 ")
    assert elapsed(start) >= 0.4
    deliver(client)


@BOTH
@pytest.mark.parametrize("tarpit", [0, 0.3])
def test_39_early_talker_inside_of_tls(implicit, certs, mail_server, late, tarpit):
    """What is said behind the handshake at once is: the refusal comes inside of TLS too."""
    server = mail_server()
    proxy, client = implicit("--greet-delay", 60, "--tarpit", tarpit, *late, upstream=server)
    client.begin_tls(certs.trusting(), certificates.HOST)
    start = time.monotonic()
    client.send("EHLO client.example")
    assert client.line().startswith("220-") and client.line() == EARLY and elapsed(start) >= tarpit
    client.expect_end()
    verdict = proxy.wait_for("verdict")
    assert verdict["on"] == "greeting" and verdict["data"] == "EHLO client.example\r\n" and verdict["client"]["tls"]
    assert not server.peers


def test_clients_that_are_not_allowed_get_no_handshake(implicit):
    """It costs what a stranger must not spend; and without TLS there is no reply that it could read."""
    proxy, client = implicit("--allow-clients", "192.0.2.1", "--tarpit", 60)
    client.send_raw(b"\x16\x03\x01")
    client.expect_end()
    assert client.got == b"" and not proxy.records("tls")
    verdict = proxy.wait_for("verdict")
    assert (verdict["on"], verdict["verdict"]) == ("clients", "reject")
    assert proxy.wait_for("close")["reason"] == "client is not allowed"


@pytest.mark.parametrize("said", [b"", b"x" * 5000], ids=["nothing", "much"])
@pytest.mark.parametrize("end", ["half_close", "close_notify", "reset"])
def test_70_tarpit_inside_of_tls(implicit, certs, said, end):
    """A client that closes its side hears its answer if it can; after close_notify it does not want to, RFC 5246 7.2.1."""
    proxy, client = implicit("--tarpit", 60, "--greet-delay", 60)
    client.begin_tls(certs.trusting(), certificates.HOST)
    client.send("EHLO client.example")
    client.expect_line("220-" + os.uname().nodename + " ESMTP")
    client.send_raw(said)
    proxy.wait_held()
    client.silent(0)
    if end == "reset":
        client.reset()
    elif end == "half_close":
        socket.socket.shutdown(client.sock, socket.SHUT_WR)
        client.expect_line(EARLY)
    else:
        with contextlib.suppress(ssl.SSLWantReadError):
            client.sock.unwrap()        # it stands behind what was said, and is not read perhaps
        client.close()
    proxy.wait_exit()
    reasons = {"half_close": {"spoke too early"}, "reset": {"connection reset"},
               "close_notify": {"spoke too early", "connection reset"}}      # who is gone resets what comes still
    assert proxy.wait_for("close")["reason"] in reasons[end]


def test_39_plaintext_instead_of_a_handshake(implicit):
    """It is no early talk but no TLS."""
    proxy, client = implicit("--greet-delay", 60)
    client.send("EHLO client.example")
    assert b"220" not in client.rest()
    assert proxy.wait_for("close")["reason"] == "TLS handshake failed" and not proxy.records("verdict")


def test_39_starttls_behind_the_delay(warp, certs, mail_server):
    """There is no second greeting, so no second delay."""
    proxy = warp(*certs.options(), *DELAY, upstream=mail_server())
    client = proxy.greeted()
    client.ask("STARTTLS", "220 ")
    client.begin_tls(certs.trusting(), certificates.HOST)
    deliver(client)
    assert b"220-" not in client.buffer


@pytest.mark.parametrize("early", [False, True])
def test_39_delay_before_passthrough(warp, mail_server, early):
    hello = b"\x16\x03\x01\x00\x05hello"
    proxy = warp(*DELAY, *PASS)
    client = proxy.connect()
    assert client.line() == "220-proxy.example ESMTP"
    if early:
        client.send_raw(hello)
        assert client.line() == EARLY
        client.expect_end()
        return
    server = proxy.upstream.accept()
    server.send("220 server.example")
    client.expect("220 ")
    for command, answer in ("EHLO c", "250-server.example\n250 STARTTLS"), ("STARTTLS", "220 go ahead"):
        client.send(command)
        server.expect_line(command)
        server.send(*answer.split("\n"))
        client.expect(answer[:3])
    client.send_raw(hello)
    assert server.take(len(hello)) == hello


# The client that a PROXY header names

@BOTH
@pytest.mark.parametrize("header", [V1, v2(), v2(command=0)], ids=["v1", "v2", "local"])
@pytest.mark.parametrize("early", [False, True])
def test_39_delay_behind_a_proxy(warp, mail_server, late, header, early):
    """The header is no early talk, wherever its segment ends; what stands behind it is."""
    proxy = warp(*PROXIES, *DELAY, *late, upstream=mail_server())
    client = begin(proxy, header + b"EHLO c\r\n" * early)
    assert client.line() == "220-proxy.example ESMTP"
    if not early:
        client.expect("220 ")
        deliver(client)
        return
    assert client.line() == EARLY
    verdict = proxy.wait_for("verdict")
    assert verdict["data"] == "EHLO c\r\n"
    assert verdict["client"]["ip"] == ("127.0.0.1" if header == v2(command=0) else CLIENT)


@pytest.mark.parametrize("who", ["client", "proxy"])
def test_79_list_is_asked_for_the_client(net, warp, mail_server, who):
    """And never for the proxy, though that is not on loopback and listed."""
    wanted = nameservers.reversed_name(CLIENT if who == "client" else OUTSIDE4)

    def answer(query, _):
        return listed(query) if nameservers.query_name(query)[0] == wanted else reply(query, flags=0x8183)
    with Rude(answer) as server:
        proxy = warp("--accept-proxy", OUTSIDE4, "--valid-recipients", ".", *lists("bl.test", server=server.name_port), upstream=mail_server())
        client = outside(proxy)
        client.send_raw(V1)
        client.expect(f"554 5.7.1 Client {CLIENT} is listed by bl.test" if who == "client" else "220")
        names = {nameservers.query_name(query)[0] for query in server.queries}
        assert names == {nameservers.reversed_name(CLIENT)}


@pytest.mark.parametrize("allowed, answer", [(f"{CLIENT}/32", "220"), ("127.0.0.0/8", f"554 5.7.1 Client {CLIENT} is not")])
@pytest.mark.parametrize("header", [V1, v2()], ids=["v1", "v2"])
def test_55_allow_clients_goes_by_the_header(warp, mail_server, allowed, answer, header):
    proxy = warp(*PROXIES, "--allow-clients", allowed, upstream=mail_server())
    begin(proxy, header).expect(answer)


@pytest.mark.parametrize("header", [b"PROXY UNKNOWN\r\n", v2(command=0)], ids=["unknown", "local"])
@pytest.mark.parametrize("allowed, answer", [(f"{CLIENT}/32", "554 5.7.1 Client 127.0.0.1"), ("127.0.0.0/8", "220")])
def test_55_allow_clients_without_a_name_in_the_header(warp, mail_server, header, allowed, answer):
    """The proxy speaks for itself, and is the client."""
    begin(warp(*PROXIES, "--allow-clients", allowed, upstream=mail_server()), header).expect(answer)


# Recipients

@pytest.mark.parametrize("held", [False, True])
def test_tarpit_when_connecting_late(warp, mail_server, held):
    """No upstream is kept waiting while a client is held for a recipient that there is not; then all goes on."""
    server = mail_server()
    seconds = 0.5 if held else 60               # which it is not held
    proxy = warp(*LATE, "--valid-recipients", "^b@", "--tarpit", seconds, "--max-tarpits", int(held), upstream=server)
    client = proxy.greeted()
    start = time.monotonic()
    assert [one.code for one in ask_recipients(client, "no@x.example")] == [550]
    assert (not held or elapsed(start) >= seconds) and not server.peers
    client.ask("RCPT TO:<b@server.example>", "250")
    client.ask("DATA", "354")
    client.send_raw(MESSAGE)
    client.expect("250")
    assert server.messages[0]["to"] == ["<b@server.example>"]
    assert [one["code"] for one in proxy.wait_for("message")["rcpt_to"]] == [550, 250]


@pytest.mark.parametrize("end", ["close", "reset", "421"])
def test_tarpit_of_a_hook_and_an_upstream_that_leaves(warp, hooks, end):
    """The client hears of it at once."""
    hooks.script("ehlo", "echo tarpit 60")
    proxy = warp(*hooks.options)
    session = proxy.session()
    session.banner()
    session.client.send("EHLO client.example")
    proxy.wait_held()
    if end == "421":
        session.server.send("421 4.4.2 waited too long")
    else:
        getattr(session.server, end)()
    session.client.expect("421 4.")
    session.client.expect_end()
    assert proxy.wait_for("close")["by"] == "upstream"


VALID = '^(info|"quoted local"|"a@b"|[^a-z]+)@(server[.]example|bücher[.]example)$'


@BOTH
@pytest.mark.parametrize("address, valid", [
    ("info@server.example", True), ("INFO@SERVER.EXAMPLE", True), ('"quoted local"@server.example', True),
    ('"Quoted LOCAL"@server.example', True), ('"a@b"@server.example', True), ('"info"@server.example', False),
    ("a@b@server.example", False), ("ελληνικά@server.example", True), ("info@bücher.example", True),
    ("info@Bücher.example", True), ("info@bÜcher.example", False), ("éa@server.example", False),
    ('"info@server.example"@evil.example', False), ("info@server.example\udcff", False)])
def test_44_valid_recipients_of_all_alphabets(warp, mail_server, late, address, valid):
    """Octets: ASCII's letters match in either case, others only as they are; quotes belong to the address."""
    server = mail_server("SMTPUTF8", "8BITMIME")
    client = warp("--valid-recipients", VALID, *late, upstream=server).greeted()
    client.ask("MAIL FROM:<a@client.example> SMTPUTF8", "250")
    client.ask(f"RCPT TO:<{address}>", "250" if valid else "550 5.1.1")
    assert any(address in command for command in server.commands) == valid


@BOTH
def test_valid_recipients_and_hooks(warp, mail_server, hooks, late):
    """Hooks are asked about valid ones only, and may rewrite to what would not be."""
    seen = hooks.directory / "seen"
    hooks.script("rcpt", f"cat >>{seen}; echo rewrite else@where.example")
    server = mail_server("PIPELINING")
    client = warp("--valid-recipients", "^b[0-9]@", *hooks.options, *late, upstream=server).greeted()
    client.send("MAIL FROM:<a@client.example>", *(f"RCPT TO:<{name}@x.example>" for name in ("b1", "no", "b2", "nor")), "DATA")
    assert [client.reply().code for _ in range(6)] == [250, 250, 550, 250, 550, 354]
    client.send_raw(MESSAGE)
    client.expect("250")
    assert server.messages[0]["to"] == ["<else@where.example>"] * 2
    assert seen.read_text().count("\n") == 2 and "no@" not in seen.read_text()


@BOTH
@pytest.mark.parametrize("tarpit", [0, 0.2])
def test_valid_recipients_pipelined_with_a_message(warp, mail_server, late, tarpit):
    """Held or not, the replies stay in order, and the message goes to the valid alone."""
    server = mail_server("PIPELINING")
    proxy = warp("--valid-recipients", "^b[0-9]@", "--tarpit", tarpit, *late, upstream=server)
    client = proxy.greeted()
    names = "no", "b1", "nor", "b2", "b3", "none"
    client.send_raw(b"MAIL FROM:<a@client.example>\r\n" + b"".join(b"RCPT TO:<%s@x.example>\r\n" % name.encode()
                                                                   for name in names) + b"DATA\r\n")
    assert [client.reply().code for _ in range(8)] == [250, 550, 250, 550, 250, 250, 550, 354]
    client.send_raw(MESSAGE + b"QUIT\r\n")
    assert [client.reply().code for _ in range(2)] == [250, 221]
    assert server.messages[0]["to"] == [f"<b{n}@x.example>" for n in (1, 2, 3)]


# --override-recipient

@BOTH
def test_48_override_keeps_orcpt(warp, mail_server, late):
    """RFC 3461 4.2: it says whom the sender meant, whoever it is sent to. Late, DSN is not offered."""
    server = mail_server("DSN")
    client = warp("--override-recipient", "test@lab.example", *late, upstream=server).greeted()
    client.ask("MAIL FROM:<a@client.example>", "250")
    parameters = "NOTIFY=SUCCESS,FAILURE ORCPT=rfc822;b+2Bc@server.example"
    client.ask(f"RCPT TO:<b@server.example> {parameters}", "555 5.5.4" if late else "250")
    sent = [command for command in server.commands if command.startswith("RCPT")]
    assert sent == ([] if late else [f"RCPT TO:<test@lab.example> {parameters}"])


@pytest.mark.parametrize("late, known", [([], True), (LATE, True), (LATE, False)])
def test_44_override_of_an_internationalized_recipient(warp, mail_server, late, known):
    """The sender's message is still one with SMTPUTF8: a server without it cannot have it, RFC 6531 3.5."""
    server = mail_server(*["SMTPUTF8", "8BITMIME"] * known)
    proxy = warp("--override-recipient", "test@lab.example", *late, upstream=server)
    client = proxy.greeted()
    client.ask("MAIL FROM:<a@client.example> SMTPUTF8", "250")
    client.ask("RCPT TO:<ελληνικά@bücher.example>", "250" if known else "553 5.6.7")
    assert [command for command in server.commands if command.startswith("RCPT")] == ["RCPT TO:<test@lab.example>"] * known
    client.ask("QUIT", "221")
    if known:
        one, = proxy.wait_for("message")["rcpt_to"]
        assert (one["address"], one["original"]) == ("test@lab.example", "ελληνικά@bücher.example")


def test_44_override_with_an_internationalized_address(warp, mail_server):
    server = mail_server("SMTPUTF8", "8BITMIME")
    client = warp("--override-recipient", "prüfung@lab.example", upstream=server).greeted()
    client.ask("MAIL FROM:<a@client.example> SMTPUTF8", "250")
    client.ask("RCPT TO:<b@server.example>", "250")
    assert server.commands[-1] == "RCPT TO:<prüfung@lab.example>"


def test_override_with_routes_and_hooks(warp, mail_server, hooks, tmp_path):
    """The way is that of the override, though a hook has rewritten the recipient; a hook's refusal stands."""
    lab, other = mail_server(), mail_server()
    (tmp_path / "routes").write_text(f"lab.example;{lab.name_port}\nserver.example;{other.name_port}\n")
    hooks.script("rcpt", "if grep -q '\"rcpt\":{\"address\":\"no@'; then echo reject; else echo rewrite c@server.example; fi")
    proxy = warp("--transparent", "--override-recipient", "test@lab.example", "--routes", tmp_path / "routes", *hooks.options)
    client = proxy.greeted()
    assert [one.code for one in ask_recipients(client, "no@server.example", "b@server.example")] == [550, 250]
    client.ask("DATA", "354")
    client.send_raw(MESSAGE)
    client.expect("250")
    assert lab.messages[0]["to"] == ["<test@lab.example>"] and not other.peers
    assert [(one["address"], one.get("original")) for one in proxy.wait_for("message")["rcpt_to"]] == [
        ("no@server.example", None), ("test@lab.example", "b@server.example")]
