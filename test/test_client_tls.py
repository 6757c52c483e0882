"""TLS towards clients: --cert, --key, --client-tls. DESIGN 5; PROTOCOL 35, 49, 56, 57, 59, 64, 65."""
import collections
import contextlib
import json
import os
import pathlib
import re
import shutil
import smtplib
import ssl
import subprocess
import tempfile

import pytest

import certificates
import mta
import netns
import peers
from hooks import Hooks
from warp import BINARY, MESSAGE, NO_REPORTS, Session, Warp, environment, send_message

TLS = ssl.TLSVersion
LATE = ["--connect-on", "recipient", "--hostname", "proxy.example"]
pytestmark = pytest.mark.filterwarnings("ignore:ssl.TLSVersion:DeprecationWarning")


@pytest.fixture
def proxy(warp, certs):
    """proxy(*options, kind=...): a Warp with a certificate."""
    def make(*more, kind="good", **settings):
        return warp(*certs.options(kind), *more, **settings)
    return make


# It works

@pytest.mark.parametrize("late", [False, True])
@pytest.mark.parametrize("upstream_tls", [False, True])
def test_message_over_starttls(proxy, certs, mail_server, secure, late, upstream_tls):
    """Offered in the list, which smtpproxy never does; gone from it inside of TLS, EHLO said again to the upstream; the records
    know all of it."""
    server = mail_server("PIPELINING", "8BITMIME", tls=certs.context() if upstream_tls else None)
    made = proxy(*(LATE if late else []), upstream=server)
    client = made.connect()
    client.expect("220")
    assert "STARTTLS" in client.ask("EHLO first.example", "250").texts
    secure(client)
    assert "STARTTLS" not in client.ask("EHLO second.example", "250").texts
    send_message(client)
    client.ask("QUIT", "221")
    client.expect_end()
    assert server.messages[0]["data"] == MESSAGE and server.messages[0]["tls"] == upstream_tls
    assert [c for c in server.commands if c.startswith("EHLO")][-1] == "EHLO second.example"
    record = made.wait_for("tls", side="client")
    assert (record["level"], record["result"], record["verified"]) == ("may", "ok", False)
    assert record["name"] == certificates.HOST and record["tls_ms"] > 0 and record["helo"] is None
    wanted = {"version": "TLSv1.2", "cipher": "TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256", "verified": False}
    message = made.wait_for("message")
    assert message["client"]["tls"] == wanted and message["helo"] == "second.example"
    assert bool(message["server"]["tls"]) == upstream_tls
    close = made.wait_for("close")
    assert close["client"]["tls"] == wanted and close["messages"] == 1 and close["by"] == "client"


def test_messages_of_all_sizes(proxy, mail_server, secure):
    """Up to some megabytes, in one session, octet for octet."""
    server = mail_server("PIPELINING")
    client = proxy(upstream=server).greeted()
    secure(client)
    client.ask("EHLO c", "250")
    sizes = [1, 500, 4000, 16000, 16384, 40000, 5_000_000]
    messages = [b"".join(b"%08d\r\n" % i for i in range(size // 10 + 1)) + b".\r\n" for size in sizes]
    for message in messages:
        send_message(client, message)
    assert [message["data"] for message in server.messages] == messages


def test_everything_in_one_record(proxy, mail_server, secure):
    """PROTOCOL 37: what lies decrypted is handled, though the socket has nothing more to say."""
    server = mail_server("PIPELINING")
    client = proxy(upstream=server).greeted()
    secure(client)
    client.send_raw(b"EHLO c\r\nMAIL FROM:<a@b>\r\nRCPT TO:<b@c>\r\nDATA\r\nHi\r\n.\r\nMAIL FROM:<>\r\nRCPT TO:<f@g>\r\n"
                    b"DATA\r\nHo\r\n.\r\nQUIT\r\n")
    assert [client.reply().code for _ in range(9)] == [250, 250, 250, 354, 250, 250, 250, 354, 250]
    client.expect("221")
    assert [message["data"] for message in server.messages] == [b"Hi\r\n.\r\n", b"Ho\r\n.\r\n"]


@pytest.mark.parametrize("client_end", ["close_notify", "cut"])
def test_64_client_gone_in_the_middle_of_a_message(proxy, certs, mail_server, secure, client_end):
    server = mail_server()
    made = proxy(upstream=server)
    client = made.greeted()
    secure(client)
    client.ask("EHLO c", "250")
    client.ask("MAIL FROM:<a@b>", "250")
    client.ask("RCPT TO:<b@c>", "250")
    client.ask("DATA", "354")
    client.send_raw(b"Half a message\r\n")
    if client_end == "close_notify":
        client.sock.settimeout(5)
        with contextlib.suppress(ssl.SSLError, OSError):
            client.sock.unwrap()
    client.close()
    assert made.wait_for("message")["result"] == "aborted"
    assert server.messages == []


def test_last_reply_and_close_notify(proxy, secure, mail_server):
    """A reply that ends the session reaches the client inside of TLS, and the end is an orderly one."""
    made = proxy("--max-errors", 2, upstream=mail_server())
    client = made.greeted()
    secure(client)
    client.send("FROB", "FROB", "FROB")
    assert client.replies_to(421) == [500, 500, 421]
    assert client.expect_end() == "close"


@pytest.mark.parametrize("late", [False, True])
def test_client_that_does_not_wait_for_221(warp, certs, secure, late):
    """QUIT and close_notify together, as Postfix says them: there is nobody left to flush a reply to."""
    made = warp(*certs.options(), "--tls", "none", *(LATE if late else []))
    client = made.connect()
    server = None if late else made.upstream.accept()
    if server:
        server.send("220 server.example")
    client.expect("220")
    secure(client)
    client.send("QUIT")
    if server:
        server.expect_line("QUIT")
    with contextlib.suppress(ssl.SSLError, OSError):
        client.sock.unwrap()
    if server:
        made.wait_asleep()      # close_notify has been read
        server.send("221 2.0.0 bye")
    close = made.wait_for("close")
    assert (close["by"], close["reason"]) in (("client", "QUIT"), ("client", "connection closed"))


# 57: all is forgotten

def test_57_nothing_from_before_counts(proxy, certs, mail_server, secure):
    made = proxy(upstream=mail_server())
    client = made.greeted()
    secure(client)
    client.ask("MAIL FROM:<a@b>", "503 5.5.1")
    client.ask("NOOP", "250")
    client.ask("EHLO c", "250")
    send_message(client)


def test_57_starttls_in_the_middle_of_something(warp, certs):
    """It would leave a message, or a login, of whoever spoke before: refused."""
    made = warp(*certs.options(), "--tls", "none")
    session = made.session()
    session.greet("AUTH PLAIN")
    session.mail()
    session.client.ask("STARTTLS", "503 5.5.1")
    session.exchange("RSET", "250 2.0.0 fine")
    session.exchange("AUTH PLAIN AGEAYg==", "235 2.7.0 welcome")
    session.client.ask("STARTTLS", "503 5.5.1")


def test_57_a_refused_message_is_forgotten(proxy, mail_server, secure):
    made = proxy(upstream=mail_server(replies={"MAIL": "550 5.7.1 no"}))
    client = made.greeted()
    client.ask("MAIL FROM:<a@b>", "550")
    secure(client)
    assert made.wait_for("message")["result"] == "rejected"
    assert made.wait_for("tls", side="client")["mail_from"] is None


def test_hooks_are_told(proxy, certs, mail_server, secure, tmp_path):
    hooks = Hooks(tmp_path / "hooks")
    hooks.script("mail", f"cat >> {tmp_path}/seen")
    client = proxy(*hooks.options, upstream=mail_server()).greeted()
    client.ask("MAIL FROM:<a@b>", "250")
    client.ask("RSET", "250")
    secure(client)
    client.ask("EHLO c", "250")
    client.ask("MAIL FROM:<a@b>", "250")
    plain, encrypted = (tmp_path / "seen").read_text().splitlines()
    assert '"tls":null},"server"' in plain
    assert re.search(r'"tls":\{"version":"TLSv1.2","cipher":"TLS_ECDHE_\w+","verified":false\}\},"server"', encrypted)


# Together with other things

@pytest.fixture
def inside(certs, secure):
    """inside(warp, how): a client that has TLS, and has said EHLO in it."""
    def begin(made, how):
        client = made.connect()
        if how == "implicit":
            client.begin_tls(certs.trusting(), certificates.HOST)
        client.expect("220")
        if how != "implicit":
            secure(client)
        client.ask("EHLO client.example", "250")
        return client
    return begin


BOTH_WAYS = pytest.mark.parametrize("how", ["require", "implicit"])


@BOTH_WAYS
def test_hooks_of_all_events_are_told(proxy, mail_server, inside, tmp_path, how):
    """connect comes before STARTTLS, and after a handshake that comes first."""
    hooks = Hooks(tmp_path / "hooks")
    for event in "connect", "ehlo", "mail", "rcpt", "data", "close":
        hooks.script(event, f"cat >> {tmp_path}/seen")
    made = proxy("--client-tls", how, *hooks.options, upstream=mail_server())
    client = inside(made, how)
    send_message(client)
    client.ask("QUIT", "221")
    made.wait_exit()
    seen = [json.loads(line) for line in (tmp_path / "seen").read_text().splitlines()]
    assert [line["event"] for line in seen] == ["connect", "ehlo", "mail", "rcpt", "data", "close"]
    told = [line["client"]["tls"] and line["client"]["tls"]["version"] for line in seen]
    assert told == [None if how == "require" else "TLSv1.2"] + ["TLSv1.2"] * 5


@BOTH_WAYS
@pytest.mark.parametrize("late", [False, True])
def test_upstream_with_implicit_tls(proxy, certs, mail_server, inside, how, late):
    server = mail_server(tls=certs.context(), implicit=True)
    made = proxy("--client-tls", how, "--upstream", f"smtps://{server.name_port}", *(LATE if late else []))
    send_message(inside(made, how))
    assert server.messages[0]["tls"] and made.wait_for("message")["client"]["tls"]


@BOTH_WAYS
def test_routes(proxy, mail_server, inside, tmp_path, how):
    """Each recipient's server, from one session."""
    servers = [mail_server(), mail_server()]
    routes = tmp_path / "routes"
    routes.write_text("".join(f"b{n}@server.example;{server.name_port};none\n" for n, server in enumerate(servers)))
    made = proxy("--client-tls", how, "--transparent", "--routes", routes)
    client = inside(made, how)
    for number in range(2):
        send_message(client, recipient=f"b{number}@server.example")
    assert [[message["to"] for message in server.messages] for server in servers] == [
        [["<b0@server.example>"]], [["<b1@server.example>"]]]
    made.wait_for("message", count=2)
    assert all(record["client"]["tls"] for record in made.records("message"))


@BOTH_WAYS
@pytest.mark.parametrize("late", [False, True])
def test_upstream_auth(proxy, certs, mail_server, inside, tmp_path, how, late):
    """Said once to a server, ahead of the client's EHLO inside of TLS; the client is not shown AUTH there either."""
    server = mail_server("AUTH PLAIN", tls=certs.context())
    passwords = tmp_path / "passwords"
    passwords.write_text("127.0.0.1 user:secret\n")
    passwords.chmod(0o600)
    client = inside(proxy("--client-tls", how, "--upstream-auth", passwords, *(LATE if late else []), upstream=server), how)
    client.ask("AUTH PLAIN AGEAYg==", "502 5.5.1")
    send_message(client)
    assert [command for command in server.commands if command.startswith("AUTH")] == ["AUTH PLAIN AHVzZXIAc2VjcmV0"]
    assert server.messages[0]["tls"]


# 56: injection

@pytest.mark.parametrize("late", [False, True])
@pytest.mark.parametrize("tail", [b"x", b"\r\n", b"EHLO evil\r\n", b"MAIL FROM:<evil@evil>\r\n",
                                  b"\x16\x03\x01\x00\x05hello"])
def test_35_56_plaintext_behind_starttls(proxy, mail_server, tail, late):
    """CVE-2011-0411: never read as a command, inside of TLS or out of it."""
    server = mail_server()
    made = proxy(*(LATE if late else []), upstream=server)
    client = made.greeted()
    client.send_raw(b"STARTTLS\r\n" + tail)
    client.expect("421 4.7.0")
    client.expect_end()
    assert "plaintext behind STARTTLS" in made.wait_for("error")["error"]
    assert made.wait_for("close")["by"] == "smtpwarp"
    assert not any("evil" in command for command in server.commands)


def test_56_plaintext_in_a_later_segment(warp, certs):
    """While STARTTLS waits for its turn."""
    made = warp(*certs.options())
    session = made.session()
    session.client.send_parts(b"STARTTLS\r\n", b"NOOP\r\n")
    session.server.send("220 server.example")
    session.client.expect("220 server")
    session.client.expect("421 4.7.0")
    assert "plaintext" in made.wait_for("error")["error"]


def test_56_plaintext_instead_of_a_handshake(proxy, mail_server):
    made = proxy(upstream=mail_server())
    client = made.greeted()
    client.ask("STARTTLS", "220")
    client.send("MAIL FROM:<evil@evil.example>")
    assert b"250" not in client.rest()
    assert "plaintext behind STARTTLS" in made.wait_for("error")["error"]
    record = made.wait_for("tls", side="client")
    assert record["result"] == "failed" and record["reason"]


# 59

def test_59_starttls_where_it_does_not_belong(proxy, warp, mail_server, secure):
    client = proxy(upstream=mail_server()).greeted()
    client.ask("STARTTLS now", "501 5.5.4")
    secure(client)
    client.ask("STARTTLS", "503 5.5.1")
    client.ask("EHLO c", "250")
    client.ask("STARTTLS", "503 5.5.1")
    client = warp(upstream=mail_server()).greeted()
    client.ask("STARTTLS", "502 5.5.1")


@pytest.mark.parametrize("greeting", [None, "HELO client.example"])
def test_59_starttls_without_ehlo(proxy, mail_server, secure, greeting):
    client = proxy(upstream=mail_server()).connect()
    client.expect("220")
    if greeting:
        client.ask(greeting, "250")
    secure(client)
    client.ask("EHLO c", "250")
    send_message(client)


@pytest.mark.parametrize("octets", [2000, 15000, 40000])
def test_hello_of_many_octets(proxy, certs, mail_server, octets):
    """As clients send it that offer much, in several segments, and records."""
    client = proxy(upstream=mail_server()).greeted()
    client.ask("STARTTLS", "220")
    context = certs.trusting()
    context.set_alpn_protocols(["x" * 249] * (octets // 250))
    client.begin_tls(context, certificates.HOST)
    client.ask("EHLO c", "250")
    send_message(client)


# Handshakes that fail

@pytest.mark.parametrize("version", [TLS.TLSv1, TLS.TLSv1_1], ids=str)
def test_64_old_versions_are_refused(proxy, certs, mail_server, version):
    made = proxy(upstream=mail_server())
    client = made.greeted()
    client.ask("STARTTLS", "220")
    with pytest.raises(ssl.SSLError):
        client.begin_tls(certs.trusting(version), certificates.HOST)
    record = made.wait_for("tls", side="client")
    assert record["result"] == "failed" and "version" in record["reason"] and record["version"] is None
    close = made.wait_for("close")
    assert (close["by"], close["reason"]) == ("client", "TLS handshake failed")
    assert not made.records("error"), "an old client is no attack"


def test_64_certificate_that_the_client_does_not_trust(proxy, mail_server):
    made = proxy(upstream=mail_server())
    client = made.greeted()
    client.ask("STARTTLS", "220")
    with pytest.raises(ssl.SSLError):
        client.begin_tls(ssl.create_default_context(), certificates.HOST)
    assert "trust" in made.wait_for("tls", side="client")["reason"]


@pytest.mark.parametrize("how", ["may", "implicit"])
@pytest.mark.parametrize("end", [True, False])
def test_handshake_that_does_not_come(proxy, mail_server, how, end):
    made = proxy("--client-tls", how, "--tls-timeout", 60 if end else 0.3, upstream=mail_server())
    if how == "may":
        client = made.greeted()
        client.ask("STARTTLS", "220")
    else:
        client = made.connect()
    if end:
        client.half_close()
    client.expect_end()
    record = made.wait_for("tls", side="client")
    assert record["result"] == "failed"
    assert record["reason"] == ("connection closed" if end else "TLS handshake timed out")
    made.wait_for("close")


def test_454_without_random_numbers(proxy, mail_server, secure):
    """The session goes on in plain: getrandom(2) fails once the numbers of passes and the record's identifier have been made."""
    made = proxy(upstream=mail_server())
    made.wrapper = ["strace", "-f", "-o", "/dev/null", "-e", "trace=getrandom", "-e",
                    "inject=getrandom:error=ENOSYS:when=3..3"]
    made.env = NO_REPORTS
    client = made.greeted()
    client.ask("STARTTLS", "454 4.7.0")
    assert "random" in made.wait_for("tls", side="client")["reason"]
    client.ask("NOOP", "250")
    secure(client)


def test_server_is_lost_during_the_handshake(warp, certs):
    made = warp(*certs.options(), "--tls", "none")
    session = made.session()
    session.greet()
    session.client.ask("STARTTLS", "220")
    session.server.close()
    session.client.expect_end()
    assert made.wait_for("tls", side="client")["result"] == "failed"


def test_termination_during_the_handshake(proxy, mail_server):
    made = proxy(upstream=mail_server())
    client = made.greeted()
    client.ask("STARTTLS", "220")
    made.processes[-1].terminate()
    client.expect_end()
    assert made.wait_for("close")["reason"] == "shutting down"


def test_64_renegotiation_is_refused(proxy, certs, mail_server, host):
    made = proxy(upstream=mail_server()).listen()
    command = ["openssl", "s_client", "-connect", "127.0.0.1:2525", "-starttls", "smtp", "-tls1_2"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT) as process:
        process.stdin.write(b"R\n")
        process.stdin.flush()
        assert b"no renegotiation" in process.stdout.read()     # it gives up then
    made.wait_for("close")


# --client-tls

REFUSED = ["MAIL FROM:<a@b>", "RCPT TO:<a@b>", "DATA", "RSET", "VRFY a", "EXPN a", "HELP", "ETRN a", "AUTH PLAIN AGEAYg==",
           "BDAT 5\r\nQUIT\n"]


@pytest.mark.parametrize("late", [False, True])
def test_require(proxy, mail_server, secure, late):
    """RFC 3207 4. What BDAT brings is not taken for commands."""
    made = proxy(*(LATE if late else []), "--client-tls", "require", upstream=mail_server("AUTH PLAIN", "CHUNKING"))
    client = made.connect()
    client.expect("220")
    for greeting in "HELO c", "EHLO c":
        assert "AUTH PLAIN" not in client.ask(greeting, "250").texts
        client.ask("NOOP", "250")
    for command in REFUSED:
        client.send_raw(command.encode() + b"\r\n" * ("BDAT" not in command))
        client.expect("530 5.7.0 Must issue a STARTTLS command first")
    client.ask("EHLO c", "250")
    secure(client)
    client.ask("EHLO c", "250")
    send_message(client)


def test_65_implicit(proxy, certs, mail_server):
    """TLS comes before the banner, and before the upstream hears of the client. No STARTTLS then."""
    server = mail_server()
    made = proxy("--client-tls", "implicit", upstream=server)
    client = made.connect()
    client.silent()
    assert server.peers == []
    client.begin_tls(certs.trusting(), certificates.HOST)
    client.expect("220")
    assert "STARTTLS" not in client.ask("EHLO c", "250").texts
    client.ask("STARTTLS", "503 5.5.1")
    send_message(client)
    client.ask("QUIT", "221")
    client.expect_end()
    assert made.wait_for("connect")["client"]["tls"]["version"] == "TLSv1.2"
    assert made.wait_for("tls", side="client")["level"] == "implicit"


def test_65_implicit_and_allowed_clients(proxy, certs, mail_server):
    """The client is greeted at once, though nothing comes that would wake smtpwarp after the checks."""
    made = proxy("--client-tls", "implicit", "--allow-clients", "127.0.0.0/8", upstream=mail_server())
    client = made.connect()
    client.begin_tls(certs.trusting(), certificates.HOST)
    client.expect("220 ")


def test_65_implicit_and_plaintext(proxy, mail_server):
    server = mail_server()
    made = proxy("--client-tls", "implicit", upstream=server)
    client = made.connect()
    client.send("EHLO c")
    assert b"220" not in client.rest()
    assert made.wait_for("tls", side="client")["result"] == "failed"
    assert not made.records("error") and server.peers == []


def test_65_upstream_out_of_reach(proxy, certs):
    """The refusal comes inside of TLS."""
    made = proxy("--client-tls", "implicit", "--upstream", "127.0.0.1:1")
    client = made.connect()
    client.begin_tls(certs.trusting(), certificates.HOST)
    client.expect("421 4.4.1")
    assert client.expect_end() == "close"


# 49: AUTH for distant clients

def test_49_auth_is_shown_inside_of_tls(certs, tmp_path, secure):
    if netns.unsupported():
        pytest.skip(netns.unsupported())
    with netns.pair() as (client_host, host):
        with host:
            made = Warp(host, tmp_path, *certs.options(), "--tls", "none", "--verbose", "--allow-clients", client_host.ip4)
            made.listen(f"{host.ip4}:2525")
        with client_host:
            client = peers.connect(host.ip4, 2525, made.group)
        session = Session(client, made.upstream.accept())
        assert "AUTH PLAIN" not in session.greet("AUTH PLAIN").texts
        session.client.ask("AUTH PLAIN AHVzZXIAc2VjcmV0", "538 5.7.11")
        secure(client)
        assert "AUTH PLAIN" in session.ehlo("AUTH PLAIN").texts
        session.exchange("AUTH PLAIN AHVzZXIAc2VjcmV0", "235 2.7.0 welcome")
        session.mail()
        client.close()
        assert made.wait_for("close")["auth"] == "user"
        assert "c2VjcmV0" not in made.log_text() and "secret" not in made.log_text()
        made.close()


# 84: a password never travels less protected than the client sent it

@pytest.fixture
def far(certs, tmp_path):
    """far(*options, tls=...): a smtpwarp with a certificate, and its upstream on another host, with STARTTLS if it gets a
    context."""
    if netns.unsupported():
        pytest.skip(netns.unsupported())
    made = []
    with netns.pair() as (server_host, host):
        def make(*options, tls=None):
            with server_host:
                server = peers.MailServer("AUTH PLAIN", address=server_host.ip4, tls=tls)
            proxy = Warp(host, tmp_path, *certs.options(), *options, upstream=server)
            made.extend([proxy, server])
            return proxy, server
        with host:
            yield make
        for one in made:
            one.close()


FAR_PLAIN = "AUTH PLAIN AHVzZXIAc2VjcmV0"


@pytest.mark.parametrize("late", [[], [*LATE, "--auth"]], ids=["early", "late"])
@pytest.mark.parametrize("level", ["none", "may", "verify-if-offered"])
def test_84_password_in_tls_is_not_for_a_plain_server(far, certs, level, late):
    """Whoever strips STARTTLS on the way would have it."""
    proxy, server = far("--tls", level, "--tls-name", "server.example", "--client-tls", "require", *late)
    client = proxy.connect()
    client.expect("220")
    client.ask("EHLO c", "250")
    client.ask("STARTTLS", "220")
    client.begin_tls(certs.trusting(), certificates.HOST)
    assert "AUTH PLAIN" not in client.ask("EHLO c", "250").texts
    client.ask(FAR_PLAIN, "502 5.5.1" if late else "538 5.7.11 AUTH needs encryption up to the server")
    send_message(client)
    assert len(server.messages) == 1 and "AUTH" not in str(server.commands)


@pytest.mark.parametrize("late", [[], [*LATE, "--auth"]], ids=["early", "late"])
@pytest.mark.parametrize("case", ["TLS on both sides", "--plain-auth", "plain on both sides"])
def test_84_password_that_is_as_safe_as_before(far, certs, secure, case, late):
    """The plain client is on this host, as before."""
    proxy, server = far(*(["--plain-auth"] if case == "--plain-auth" else []), *late,
                        tls=certs.context() if case == "TLS on both sides" else None)
    client = proxy.connect()
    client.expect("220")
    assert "AUTH PLAIN" in client.ask("EHLO c", "250").texts
    if case != "plain on both sides":
        secure(client)
        assert "AUTH PLAIN" in client.ask("EHLO c", "250").texts
    client.ask(FAR_PLAIN, "235")
    assert FAR_PLAIN in server.commands


@pytest.mark.parametrize("protected", [False, True])
def test_84_tls_that_ends_at_a_proxy_before_us(far, protected):
    """Its header says so."""
    proxy, server = far("--tls", "none", "--accept-proxy", "127.0.0.1", "--valid-recipients", ".")
    client = proxy.connect()
    address = bytes([127, 0, 0, 1, 127, 0, 0, 1]) + (4711).to_bytes(2, "big") + (25).to_bytes(2, "big")
    ssl_tlv = b"\x20\x00\x05\x01\x00\x00\x00\x00" if protected else b""
    client.send_raw(b"\r\n\r\n\0\r\nQUIT\n\x21\x11" + len(address + ssl_tlv).to_bytes(2, "big") + address + ssl_tlv)
    client.expect("220")
    assert ("AUTH PLAIN" in client.ask("EHLO c", "250").texts) == (not protected)
    client.ask(FAR_PLAIN, "538 5.7.11" if protected else "235")
    assert (FAR_PLAIN in server.commands) == (not protected)


# Keys and certificates

def shown(*more):
    """What openssl s_client says of the server."""
    return subprocess.run(["openssl", "s_client", "-connect", "127.0.0.1:2525", "-showcerts", *more],
                          input="QUIT\n", capture_output=True, text=True, timeout=20, check=False).stdout


def rewritten(key, form, path):
    """The key in another form."""
    commands = {
        "pkcs8": ["pkey", "-in", key],
        "traditional": ["pkey", "-in", key, "-traditional"],
        "params": ["ec", "-in", key, "-param_enc", "named_curve"],
    }
    text = subprocess.run(["openssl", *commands["pkcs8" if form in ("crlf", "text") else form]], check=True,
                          capture_output=True).stdout
    if form == "crlf":
        text = text.replace(b"\n", b"\r\n")
    if form == "text":
        text = b"Bag Attributes\n    friendlyName: -----no block-----\nKey Attributes: <No Attributes>\n" + text + b"\n# end\n"
    if form == "params":
        text = subprocess.run(["openssl", "ecparam", "-name", "prime256v1"], check=True, capture_output=True).stdout + text
    path.write_bytes(text)
    path.chmod(0o600)
    return path


@pytest.mark.parametrize("kind", ["rsa", "rsa3072", "rsa4096", "good", "p384", "chained"])
@pytest.mark.parametrize("form", ["pkcs8", "traditional", "crlf", "text"])
def test_kinds_and_forms_of_keys(warp, certs, mail_server, secure, tmp_path, kind, form):
    cert, key = certs.pair(kind)
    made = warp("--cert", cert, "--key", rewritten(key, form, tmp_path / "key"), upstream=mail_server())
    client = made.greeted()
    secure(client)
    client.ask("EHLO c", "250")
    assert ("RSA" if "rsa" in kind else "ECDSA") in made.wait_for("tls", side="client")["cipher"]


def test_ec_parameters_ahead_of_the_key(warp, certs, mail_server, secure, tmp_path):
    cert, key = certs.pair("good")
    secure(warp("--cert", cert, "--key", rewritten(key, "params", tmp_path / "key"), upstream=mail_server()).greeted())


@pytest.mark.parametrize("crlf", [False, True])
def test_chain_and_key_in_one_file(warp, certs, mail_server, tmp_path, crlf):
    cert, key = certs.pair("rsa")
    both = tmp_path / "both.pem"
    text = b"subject=x\n" + cert.read_bytes() + b"\n\n" + pathlib.Path(certs.ca).read_bytes() + key.read_bytes()
    both.write_bytes(text.replace(b"\n", b"\r\n") if crlf else text)
    both.chmod(0o600)
    warp("--cert", both, upstream=mail_server()).listen()
    assert len(set(re.findall(r"-----BEGIN.*?-----END", shown("-starttls", "smtp"), re.S))) == 2


def check(*arguments, **env):
    return subprocess.run([BINARY, "--check", *map(str, arguments)], env={"PATH": "/usr/bin:/bin", **env},
                          capture_output=True, text=True, timeout=20, check=False)


def encrypted(key, path, *form):
    subprocess.run(["openssl", "pkey", "-in", key, "-aes128", "-passout", "pass:secret", *form, "-out", path], check=True)
    return path


def test_keys_that_are_refused(certs, tmp_path):
    """At start, with one line that says which file and why, and exit code 78."""
    cert, key = certs.pair("rsa")
    ec_cert, ec_key = certs.pair("good")
    other_cert, _ = certs.pair("expired")
    nothing = tmp_path / "nothing"
    nothing.write_text("no PEM here\n")
    half = tmp_path / "half"
    half.write_bytes(key.read_bytes()[:-600] + b"\n-----END PRIVATE KEY-----\n")
    many = tmp_path / "many"
    many.write_bytes(cert.read_bytes() * 11)
    cases = [
        ((cert, encrypted(key, tmp_path / "e8")), "--key", "is encrypted"),
        ((cert, encrypted(key, tmp_path / "e1", "-traditional")), "--key", "is encrypted"),
        ((cert, ec_key), "--key", "not that of the first certificate"),
        ((ec_cert, key), "--key", "not that of the first certificate"),
        ((other_cert, ec_key), "--key", "not that of the first certificate"),
        ((nothing, key), "--cert", "no certificate in it"),
        ((many, key), "--cert", "more than 10 certificates"),
        ((cert, nothing), "--key", "no private key in it"),
        ((cert, half), "--key", "malformed"),
        ((tmp_path / "gone", key), "--cert", "No such file"),
        ((cert, tmp_path / "gone"), "--key", "No such file"),
        ((cert, tmp_path), "--key", "Is a directory"),
        (certs.pair("rsa1024"), "--key", "must be RSA of 2048"),
        (certs.pair("p521"), "--key", "P-256 or P-384"),
        (certs.pair("ed25519"), "--key", "not supported"),
    ]
    for (one, two), name, reason in cases:
        result = check("--cert", one, "--key", two)
        assert result.returncode == 78, (one, two)
        assert f"smtpwarp: {name} {two if name == '--key' else one}: " in result.stderr and reason in result.stderr
        assert result.stderr.count("\n") == 1, result.stderr


def test_options_that_do_not_go_together(certs):
    cert, key = certs.pair("good")
    for arguments, reason in [
            (["--key", key], "there is no --cert"), (["--client-tls", "require"], "needs --cert"),
            (["--client-tls", "passthrough", *LATE], "--connect-on recipient"),
            (["--client-tls", "passthrough", "--routes", "/dev/null"], "--connect-on recipient"),
            (["--client-tls", "passthrough", "--tls", "verify-if-offered", "--tls-name", "x"], "--tls demands"),
            (["--client-tls", "passthrough", "--tls", "encrypt"], "--tls demands")]:
        result = check(*arguments)
        assert result.returncode == 78 and reason in result.stderr
    assert check("--cert", cert, "--key", key, SMTPWARP_CLIENT_TLS="implicit").returncode == 0
    assert check("--client-tls", "none").returncode == 64


def test_client_that_waits_hears_of_a_bad_key(warp, certs):
    made = warp("--cert", certs.pair("good")[0], "--key", certs.pair("rsa")[1])
    made.exit_codes = (78,)
    made.connect().expect("421 4.3.5")


@pytest.mark.parametrize("mode, warned", [(0o600, False), (0o640, False), (0o644, True)])
def test_key_that_others_can_read(warp, certs, mail_server, tmp_path, mode, warned):
    cert, key = certs.pair("good")
    copy = tmp_path / "key"
    shutil.copy(key, copy)
    copy.chmod(mode)
    made = warp("--cert", cert, "--key", copy, upstream=mail_server()).listen()
    errors = [record["error"] for record in made.records("error")]
    assert errors == ([f"warning: --key {copy}: every user of this host can get at it"] if warned else [])


# A certificate for each name

def leaf(certs, kind):
    return ssl.PEM_cert_to_DER_cert(certs.pair(kind)[0].read_text().partition("-----END")[0] + "-----END CERTIFICATE-----\n")


def shown_for(name, *more):
    """The first certificate that openssl s_client is shown when it asks for this name; None: for none. The handshake ends in order."""
    text = shown("-starttls", "smtp", "-tls1_2", *(["-noservername"] if name is None else ["-servername", name]), *more)
    assert "Verification" in text or "Verify return code" in text
    return ssl.PEM_cert_to_DER_cert(re.search(r"-----BEGIN CERTIFICATE-----.*?-----END CERTIFICATE-----\n", text, re.S)[0])


RSA_ONLY, EC_ONLY = ["-cipher", "ECDHE-RSA-AES128-GCM-SHA256"], ["-cipher", "ECDHE-ECDSA-AES128-GCM-SHA256"]


@pytest.mark.parametrize("name, more, kind", [
    (None, [], "wrong-name"), ("unknown.test", [], "wrong-name"), ("other.example", [], "wrong-name"), ("OTHER.Example", [], "wrong-name"),
    (certificates.HOST, [], "rsa"), (certificates.HOST.upper(), [], "rsa"), (certificates.HOST, EC_ONLY, "p384"),
    ("any.example", [], "wildcard"), ("example", [], "wrong-name"), ("one.more.example", [], "wrong-name"),
    (None, RSA_ONLY, "rsa"), ("any.example", RSA_ONLY, "rsa"), ("a" * 60 + ".test", [], "wrong-name")])
def test_certificate_for_the_name(warp, certs, mail_server, name, more, kind):
    """RFC 6066 3: the first pair that has the name and a kind of key that the client takes; without one, the first of such a kind."""
    options = [word for pair in ("wrong-name", "rsa", "p384", "wildcard") for word in certs.options(pair)]
    made = warp(*options, upstream=mail_server()).listen()
    assert shown_for(name, *more) == leaf(certs, kind)
    record = made.wait_for("tls", side="client")
    assert record["result"] == "ok" and record["name"] == name
    assert ("RSA" in record["cipher"]) == (kind == "rsa")


@pytest.mark.parametrize("how", ["inetd", "variables"])
def test_certificates_in_other_ways(warp, certs, mail_server, how):
    """A session that starts by itself; variables with several values; a file that has a key, too."""
    pairs = [certs.pair("wrong-name"), certs.pair("rsa")]
    env = {f"SMTPWARP_{name}": ",".join(str(pair[i]) for pair in pairs) for i, name in enumerate(["CERT", "KEY"])}
    made = (warp(upstream=mail_server(), env=env).listen() if how == "variables" else
            warp(*certs.options("wrong-name"), *certs.options("rsa"), upstream=mail_server()))
    for name, kind in (certificates.HOST, "rsa"), ("other.example", "wrong-name"):
        client = made.greeted()
        client.ask("STARTTLS", "220")
        client.begin_tls(certs.trusting(), name)
        assert client.sock.getpeercert(True) == leaf(certs, kind)
        client.ask("EHLO client.example", "250")
        client.close()


def test_certificates_each_with_its_key_in_one_file(warp, certs, mail_server, tmp_path):
    options = []
    for kind in "wrong-name", "rsa":
        both = tmp_path / f"{kind}.pem"
        both.write_bytes(b"".join(path.read_bytes() for path in certs.pair(kind)))
        both.chmod(0o600)
        options += ["--cert", both]
    warp(*options, upstream=mail_server()).listen()
    assert shown_for(certificates.HOST) == leaf(certs, "rsa") and shown_for(None) == leaf(certs, "wrong-name")


def test_faults_of_one_of_several_pairs(certs, tmp_path):
    good, rsa = certs.options("good"), certs.options("rsa")
    for arguments, reason in [
            ([*good, "--cert", tmp_path / "gone", "--key", rsa[3]], f"--cert {tmp_path / 'gone'}: No such file"),
            ([*good, *rsa[:3], good[3]], f"--key {good[3]}: the key is not that of the first certificate"),
            ([*good, *rsa[:2]], "there are 1 --key for 2 --cert"),
            ([*good, *rsa[2:]], "there are 2 --key for 1 --cert"),
            ([*rsa[2:], *good[2:]], f"--key {rsa[3]}: there is no --cert"),
            (good * 9, "can be given 8 times at most")]:
        result = check(*arguments)
        assert result.returncode in (64, 78) and reason in result.stderr and result.stderr.count("\n") == 1, result.stderr
    assert check(*good * 8).returncode == 0


# A certificate is renewed

class Renewed:
    """Files that are replaced as ACME clients do: a new file takes the name of the old one."""

    def __init__(self, certs, directory):
        self.certs, self.directory = certs, directory
        directory.mkdir()
        directory.chmod(0o755)
        self.cert, self.key = directory / "cert", directory / "key"
        self.options = ["--cert", self.cert, "--key", self.key]

    def replace(self, kind, mode=0o600, only=None):
        for source, target in zip(self.certs.pair(kind), (self.cert, self.key)):
            if only not in (None, target.name):
                continue
            new = self.directory / "new"
            shutil.copy(source, new)
            new.chmod(mode)
            os.replace(new, target)


def kind_now(made):
    """Whether the next session shows an RSA key."""
    client = made.greeted()
    client.ask("STARTTLS", "220")
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    context.maximum_version = TLS.TLSv1_2
    client.begin_tls(context)
    kind = "rsa" if "RSA" in client.sock.cipher()[0] else "good"
    client.close()
    return kind


def test_renewed_certificate(warp, certs, mail_server, tmp_path):
    files = Renewed(certs, tmp_path / "renewed")
    files.replace("good")
    made = warp(*files.options, upstream=mail_server()).listen()
    assert kind_now(made) == "good"
    old = made.greeted()
    for kind in "rsa", "good", "rsa":
        files.replace(kind)
        assert kind_now(made) == kind, "the next session has it"
    old.ask("STARTTLS", "220")      # a session that began before still has its key
    old.begin_tls(certs.trusting(), certificates.HOST)
    assert "ECDSA" in old.sock.cipher()[0]
    assert not made.records("error")


def test_renewed_certificate_of_several(warp, certs, mail_server, tmp_path):
    """The second pair alone, also while the first is no good and stays as it was; then the first."""
    first, second = Renewed(certs, tmp_path / "first"), Renewed(certs, tmp_path / "second")
    first.replace("wrong-name")
    second.replace("good")
    made = warp(*first.options, *second.options, upstream=mail_server()).listen()

    def now():
        return [next(kind for kind in ("wrong-name", "good", "rsa", "wildcard") if leaf(certs, kind) == shown_for(name))
                for name in (None, certificates.HOST)]
    assert now() == ["wrong-name", "good"]
    old = made.greeted()
    second.replace("rsa")
    assert now() == ["wrong-name", "rsa"]
    first.key.write_text("nonsense")
    second.replace("good")
    assert now() == ["wrong-name", "good"]
    errors = [record["error"] for record in made.records("error")]
    assert errors == [f"--key {first.key}: no private key in it; what was read before is still in use"]
    first.replace("wildcard")
    assert now() == ["wildcard", "wildcard"]
    second.replace("rsa")
    assert now() == ["wildcard", "wildcard"]
    old.ask("STARTTLS", "220")      # a session that began before still has its keys
    old.begin_tls(certs.trusting(), "other.example")
    assert old.sock.getpeercert(True) == leaf(certs, "wrong-name")


@pytest.mark.parametrize("first", ["cert", "key"])
def test_renewed_one_file_after_the_other(warp, certs, mail_server, tmp_path, first):
    """In between both are of no use: sessions have the old pair, and the log says so once."""
    files = Renewed(certs, tmp_path / "renewed")
    files.replace("good")
    made = warp(*files.options, upstream=mail_server()).listen()
    files.replace("rsa", only=first)
    assert [kind_now(made) for _ in range(3)] == ["good"] * 3
    files.replace("rsa", only="key" if first == "cert" else "cert")
    assert kind_now(made) == "rsa"
    errors = [record["error"] for record in made.records("error")]
    assert errors == [f"--key {files.key}: the key is not that of the first certificate; what was read before is still in use"]


@pytest.mark.parametrize("first", ["cert", "key"])
def test_session_that_starts_between_the_two(warp, certs, mail_server, tmp_path, first):
    """By inetd, with no old pair to go on with: it waits for the second file."""
    files = Renewed(certs, tmp_path / "renewed")
    files.replace("good")
    made = warp(*files.options, upstream=mail_server())
    files.replace("rsa", only=first)
    client = made.connect()
    client.silent(0.1)
    files.replace("rsa", only="key" if first == "cert" else "cert")
    client.expect("220")
    assert kind_now(made) == "rsa"


def test_renewed_certificate_that_is_no_good(warp, certs, mail_server, tmp_path):
    """The old one stays in use, which is logged once."""
    files = Renewed(certs, tmp_path / "renewed")
    files.replace("good")
    made = warp(*files.options, upstream=mail_server()).listen()
    files.key.write_text("nonsense")
    assert [kind_now(made) for _ in range(3)] == ["good"] * 3
    errors = [record["error"] for record in made.records("error")]
    assert errors == [f"--key {files.key}: no private key in it; what was read before is still in use"]
    files.replace("rsa")
    assert kind_now(made) == "rsa"


@pytest.fixture
def open_path():
    """A directory that every user can reach."""
    with tempfile.TemporaryDirectory() as name:
        pathlib.Path(name).chmod(0o755)
        yield pathlib.Path(name)


def test_renewed_certificate_that_the_user_may_not_read(warp, certs, mail_server, open_path):
    """It was read before --user was taken on; after that, only files that this user may read count."""
    files = Renewed(certs, open_path / "renewed")
    files.replace("good")
    made = warp(*files.options, "--user", "nobody", upstream=mail_server(), env=NO_REPORTS).listen()
    assert kind_now(made) == "good"
    files.replace("rsa")
    assert [kind_now(made) for _ in range(3)] == ["good"] * 3
    assert ["Permission denied; what was read" in record["error"] for record in made.records("error")] == [True]
    files.cert.chmod(0o644)
    files.key.chmod(0o644)
    assert kind_now(made) == "rsa"


def test_sighup_reads_keys_again(warp, certs, mail_server, tmp_path):
    files = Renewed(certs, tmp_path / "renewed")
    files.replace("good")
    made = warp(*files.options, upstream=mail_server()).listen()
    assert kind_now(made) == "good"
    files.key.write_text("nonsense")
    made.listener.send_signal(1)    # and before a client comes
    assert "no private key" in made.wait_for("error")["error"]
    assert kind_now(made) == "good"


# What it costs those who do not use it

ARRIVALS = {"ppoll", "recvfrom", "sendto"}     # there are as many as the network has parts of what it brings


def test_client_without_tls_costs_no_system_call(warp, certs, mail_server, tmp_path):
    """From the session's identifier to its last record, calls with --cert are those without it. Behind that a session that was started
    alone ends the agent that has its key."""
    counts = []
    for more in [], certs.options():
        trace = tmp_path / f"trace{len(counts)}"
        made = warp(*more, upstream=mail_server())
        made.wrapper = ["strace", "-f", "-o", trace, "-e", "signal=none"]
        made.env = NO_REPORTS
        client = made.greeted()
        send_message(client)
        client.ask("QUIT", "221")
        client.expect_end()
        made.wait_exit()
        before, _, calls = trace.read_text().partition("getrandom(")
        calls = calls.partition('"event\\":\\"close')[0]
        session = before.rpartition("\n")[2].split()[0]
        made_calls = re.findall(rf"^{session} +(\w+)\(", calls, re.M)
        counts.append(collections.Counter(name for name in made_calls if name not in ARRIVALS))
    assert counts[0].total() > 10 and counts[0] == counts[1]


# Clients of all kinds

def run_client(argv, **options_):
    return subprocess.run(list(map(str, argv)), capture_output=True, text=True, timeout=60, check=False, **options_)


@pytest.fixture(params=[("rsa", "require"), ("good", "require"), ("rsa", "implicit"), ("good", "implicit")], ids="-".join)
def served(request, warp, certs, mail_server):
    """A Warp, its upstream, and whether clients begin with STARTTLS."""
    kind, how = request.param
    server = mail_server("PIPELINING", "8BITMIME")
    made = warp(*certs.options(kind), "--client-tls", how, upstream=server).listen()
    return made, server, how == "require"


def test_client_openssl(served, certs):
    made, _, starttls = served
    text = shown("-CAfile", certs.ca, "-verify_hostname", certificates.HOST, "-verify_return_error",
                 *(["-starttls", "smtp"] if starttls else []))
    assert "Verify return code: 0 (ok)" in text and "TLSv1.2" in text
    assert made.wait_for("tls", side="client")["result"] == "ok"


def test_client_gnutls(served, certs):
    made, _, starttls = served
    result = run_client(["gnutls-cli", f"--x509cafile={certs.ca}", "--sni-hostname", certificates.HOST,
                         f"--verify-hostname={certificates.HOST}", *(["--starttls-proto=smtp"] if starttls else []),
                         "-p", "2525", "127.0.0.1"], input="QUIT\n")
    assert result.returncode == 0, result.stdout + result.stderr
    assert "Handshake was completed" in result.stdout
    assert made.wait_for("tls", side="client")["result"] == "ok"


def test_client_swaks(served, certs):
    made, server, starttls = served
    result = run_client(["swaks", "--server", "127.0.0.1:2525", "--tls" if starttls else "--tls-on-connect",
                         "--tls-verify", "--tls-ca-path", certs.ca, "--tls-sni", certificates.HOST,
                         "--from", "a@client.example", "--to", "b@server.example"])
    assert result.returncode == 0, result.stdout + result.stderr
    assert len(server.messages) == 1 and made.wait_for("message")["client"]["tls"]


def test_client_msmtp(served, certs):
    made, server, starttls = served
    result = run_client(["msmtp", "--host=127.0.0.1", "--port=2525", "--tls=on",
                         f"--tls-starttls={'on' if starttls else 'off'}", f"--tls-trust-file={certs.ca}",
                         f"--tls-host-override={certificates.HOST}", "--from=a@client.example", "b@server.example"],
                        input="Subject: hello\n\nHello.\n")
    assert result.returncode == 0, result.stderr
    assert len(server.messages) == 1 and made.wait_for("message")["client"]["tls"]


NODEMAILER = """
const [transport, mail] = JSON.parse(process.argv[1]);
require("nodemailer").createTransport(transport).sendMail(mail, (error, info) =>
    console.log(JSON.stringify(error ? { error: error.message } : info)));
"""


def nodemailer(certs, how, name=certificates.HOST, ca=True):
    """What it says of a message that it sends with a login: an object."""
    transport = {"host": "127.0.0.1", "port": 2525, "auth": {"user": "user", "pass": "secret"},
                 "tls": {"servername": name, **({"ca": certs.ca.read_text()} if ca else {})},
                 **({"secure": True} if how == "implicit" else {"requireTLS": True})}
    mail = {"from": "a@client.example", "to": ["b@server.example", "c@server.example"], "subject": "hello", "text": "Hello."}
    result = run_client(["node", "-e", NODEMAILER, json.dumps([transport, mail])],
                        env={"PATH": os.environ["PATH"], "NODE_PATH": "/usr/share/nodejs"})
    assert result.returncode == 0, result.stderr
    return json.loads(result.stdout)


@pytest.mark.parametrize("how", ["require", "implicit"])
@pytest.mark.parametrize("kind", ["rsa", "good"])
def test_client_nodemailer(warp, certs, mail_server, how, kind):
    """The certificate verified; AUTH, which is shown inside of TLS only, is the upstream's to judge."""
    server = mail_server("PIPELINING", "AUTH PLAIN LOGIN")
    made = warp(*certs.options(kind), "--client-tls", how, upstream=server).listen()
    info = nodemailer(certs, how)
    assert info["accepted"] == ["b@server.example", "c@server.example"] and info["response"] == "250 2.0.0 taken"
    assert [message["to"] for message in server.messages] == [["<b@server.example>", "<c@server.example>"]]
    assert "AUTH PLAIN AHVzZXIAc2VjcmV0" in server.commands
    record = made.wait_for("message")
    assert record["auth"] == "user" and record["client"]["tls"]["version"] == "TLSv1.2"


@pytest.mark.parametrize("how", ["require", "implicit"])
@pytest.mark.parametrize("trust, error", [({"name": "other.example"}, "does not match certificate"),
                                          ({"ca": False}, "certificate")])
def test_client_nodemailer_is_not_content(warp, certs, mail_server, how, trust, error):
    """With a certificate for another name, or of an unknown authority: nothing is said inside of TLS."""
    server = mail_server("AUTH PLAIN")
    made = warp(*certs.options(), "--client-tls", how, upstream=server).listen()
    assert error in nodemailer(certs, how, **trust)["error"]
    made.wait_for("close")
    assert not any(command.startswith(("AUTH", "MAIL")) for command in server.commands)


@pytest.mark.parametrize("how", ["require", "implicit"])
def test_client_smtplib(warp, certs, mail_server, how):
    server = mail_server("PIPELINING")
    warp(*certs.options(), "--client-tls", how, upstream=server).listen()
    context = ssl.create_default_context(cafile=certs.ca)
    context.check_hostname = False
    make = smtplib.SMTP_SSL if how == "implicit" else smtplib.SMTP
    with make("127.0.0.1", 2525, timeout=20, **({"context": context} if how == "implicit" else {})) as smtp:
        if how == "require":
            smtp.starttls(context=context)
        smtp.sendmail("a@client.example", ["b@server.example"], "Subject: hello\n\nHello.\n")
    assert len(server.messages) == 1


@pytest.mark.skipif(not mta.PACKAGES.exists(), reason="test/fetch-packages has not been run")
@pytest.mark.parametrize("client_class", [mta.Postfix, mta.Exim])
@pytest.mark.parametrize("kind, how", [("rsa", "require"), ("good", "require"), ("rsa", "implicit"), ("good", "implicit")])
def test_client_mail_server(host, warp, certs, mail_server, client_class, kind, how):
    """Which demands TLS and a good certificate, sends many recipients, and by BDAT if it can (Exim)."""
    server = mail_server("PIPELINING", "8BITMIME", "SIZE 10000000")
    made = warp(*certs.options(kind), "--client-tls", how, upstream=server).listen("127.0.0.2:25")
    mails = [mta.Mail("a@client.test", [f"b{n}@mail.test" for n in range(count)], b"Subject: hi\r\n\r\n" + b"x\r\n" * size)
             for count, size in ((1, 1), (50, 100), (1, 100_000))]
    with client_class(host, relay="127.0.0.2", trust=certs.ca, implicit=how == "implicit") as sender:
        sender.submit(mails)
        sender.release()
        sender.wait_idle()
    assert sorted(len(message["to"]) for message in server.messages) == [1, 1, 50]
    records = made.records("message")
    assert len(records) == 3 and all(record["client"]["tls"]["version"] == "TLSv1.2" for record in records)
