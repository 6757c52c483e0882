"""--auth: AUTH of clients with --connect-on recipient. DESIGN 4, 8; PROTOCOL 29, 35, 49, 72."""
import base64
import ssl
import subprocess

import pytest

import certificates
import netns
import peers
from hooks import Hooks
from waiting import wait_until
from warp import BINARY, MESSAGE, Warp

LATE = ["--connect-on", "recipient", "--hostname", "proxy.example"]
USER, SECRET = "tim@client.example", "open sesame 4711"


def b64(text):
    return base64.b64encode(text.encode()).decode()


PLAIN = b64(f"\0{USER}\0{SECRET}")
OWN = ["proxy.example", "ENHANCEDSTATUSCODES", "SIZE 10240000", "8BITMIME", "SMTPUTF8", "CHUNKING"]


@pytest.fixture
def late(warp):
    """late(*options, upstream=...): a Warp with --auth."""
    return lambda *options, **settings: warp(*LATE, "--auth", "--verbose", *options, **settings)


@pytest.fixture
def routed(late, tmp_path):
    """routed(home, *options, **servers): --upstream home, and name.example goes to servers[name], in plain."""
    def make(home, *options, **servers):
        path = tmp_path / "routes"
        path.write_text("".join(f"{name}.example;{server.name_port};\n" for name, server in servers.items()))
        return late("--tls", "none", "--routes", path, *options, upstream=home)
    return make


def greet(client, hello="EHLO client.example"):
    client.expect("220")
    return client.ask(hello, "250")


def transaction(client, *recipients, sender="MAIL FROM:<a@client.example>"):
    """The codes of RCPT, and of the end of data if it came to that."""
    client.ask(sender, "250")
    codes = []
    for recipient in recipients:
        client.send(f"RCPT TO:<{recipient}>")
        codes.append(client.reply().code)
        if codes[-1] == 421:
            client.expect_end()
            return codes
    client.ask("DATA", "354")
    client.send_raw(MESSAGE)
    return [*codes, client.reply().code]


def opened(proxy, *extensions, hello="EHLO client.example"):
    """A client whose EHLO has been answered, and the upstream's end, which the test plays."""
    client = proxy.connect()
    client.expect("220")
    client.send(hello)
    server = proxy.upstream.accept()
    server.send("220 server.example")
    server.expect_line(hello)
    server.send("250-server.example", *[f"250-{line}" for line in extensions], "250 HELP")
    client.expect("250")
    return client, server


def verbs(server):
    return [line.split()[0] for line in server.commands]


def nothing_secret(proxy):
    for secret in (SECRET, b64(SECRET), PLAIN, PLAIN[:20]):
        assert secret not in proxy.log_text()


# What the client is shown

@pytest.mark.parametrize("offer, shown", [(["AUTH PLAIN LOGIN", "DSN", "SIZE 100"], ["AUTH PLAIN LOGIN"]),
                                          (["auth=LOGIN PLAIN"], ["AUTH LOGIN PLAIN"]),
                                          (["AUTH=LOGIN", "AUTH PLAIN LOGIN"], ["AUTH LOGIN"]), (["DSN"], [])])
def test_40_list_of_our_own_with_the_mechanisms_of_the_upstream(late, mail_server, offer, shown):
    server = mail_server(*offer)
    client = late(upstream=server).connect()
    assert greet(client).texts == [*OWN, *shown, "PIPELINING"]
    client.ask("AUTH FROB", "235" if shown else "502 5.5.1")
    assert server.commands[0] == "EHLO client.example"


def test_without_the_option_all_is_as_before(warp, mail_server):
    server = mail_server("AUTH PLAIN")
    client = warp(*LATE, upstream=server).connect()
    assert greet(client).texts == [*OWN, "PIPELINING"] and not server.peers
    client.ask("AUTH PLAIN AGEAYg==", "502 5.5.1")
    client.ask("MAIL FROM:<a@b> AUTH=<>", "555 5.5.4")
    assert transaction(client, "b@c") == [250, 250]
    client.ask("AUTH PLAIN AGEAYg==", "502 5.5.1")
    assert "AUTH" not in verbs(server)


def test_early_it_changes_nothing(warp):
    session = warp("--auth").session()
    assert "AUTH PLAIN" in session.greet("AUTH PLAIN").texts
    session.exchange("AUTH PLAIN AGEAYg==", "235 2.7.0 welcome")
    session.transaction()


@pytest.mark.parametrize("options", [[], LATE, ["--routes", "/dev/null"]])
def test_needs_an_upstream(options):
    result = subprocess.run([BINARY, "--check", "--auth", *options], capture_output=True, text=True, timeout=20)
    assert (result.returncode, result.stderr) == (
        78, "smtpwarp: --auth needs --upstream, the server that names and passwords go to\n")


def test_helo_knows_no_auth(late, mail_server):
    server = mail_server("AUTH PLAIN")
    client = late(upstream=server).connect()
    assert greet(client, "HELO client.example").texts == ["proxy.example"] and not server.peers
    client.ask("AUTH PLAIN AGEAYg==", "502 5.5.1")
    assert transaction(client, "b@c") == [250, 250]
    client.ask("AUTH PLAIN AGEAYg==", "502 5.5.1")


@pytest.mark.parametrize("secure", [False, True])
def test_49_distant_clients_see_it_inside_of_tls(certs, tmp_path, secure):
    """Those who do not are no reason to connect."""
    if netns.unsupported():
        pytest.skip(netns.unsupported())
    cert, key = certs.pair("good")
    with netns.pair() as (client_host, host):
        with host:
            server = peers.MailServer("AUTH PLAIN")
            proxy = Warp(host, tmp_path, *LATE, "--auth", "--allow-clients", client_host.ip4, "--cert", cert, "--key", key,
                         *([] if secure else ["--plain-auth"]), upstream=server).listen(f"{host.ip4}:2525")
        with client_host:
            client = peers.connect(host.ip4, 2525, proxy.group)
            texts = greet(client).texts
            assert ("AUTH PLAIN" in texts) == (not secure) and len(server.peers) == (not secure)
            if secure:
                client.ask("AUTH PLAIN AGEAYg==", "538 5.7.11")
                client.ask("STARTTLS", "220")
                client.begin_tls(ssl.create_default_context(cafile=certs.ca), certificates.HOST)
                assert "AUTH PLAIN" in client.ask("EHLO client.example", "250").texts
            client.ask("AUTH PLAIN AGEAYg==", "235")
            client.close()
        server.close()
        proxy.close()


# The exchange

DIALOGUES = {
    "PLAIN at once": [(f"AUTH PLAIN {PLAIN}", "235 2.7.0 welcome")],
    "PLAIN after 334": [("AUTH PLAIN", "334 "), (PLAIN, "235 2.7.0 welcome")],
    "LOGIN": [("AUTH LOGIN", "334 VXNlcm5hbWU6"), (b64(USER), "334 UGFzc3dvcmQ6"), (b64(SECRET), "235 2.7.0 welcome")],
    "refused, then right": [(f"AUTH PLAIN {PLAIN}", "535 5.7.8 no"), (f"AUTH PLAIN {PLAIN}", "235 2.7.0 welcome")],
    "cancelled, then right": [("AUTH LOGIN", "334 VXNlcm5hbWU6"), ("*", "501 5.7.0 cancelled"),
                              (f"auth plain {PLAIN}", "235 2.7.0 welcome")],
    "a continuation that looks like a command": [("AUTH LOGIN", "334 VXNlcm5hbWU6"), ("QUIT", "501 5.5.2 what"),
                                                 (f"AUTH PLAIN {PLAIN}", "235-2.7.0 very\n235 2.7.0 welcome")],
    "long lines": [("AUTH GSSAPI " + "x" * 12274, "334 " + "y" * 12282), ("z" * 12286, "334 "),
                   (b64("client"), "535 5.7.8 no"), (f"AUTH PLAIN {PLAIN}", "235 2.7.0 welcome")],
}


@pytest.mark.parametrize("dialogue", DIALOGUES.values(), ids=DIALOGUES)
def test_49_exchange(late, dialogue):
    """Then the message goes over this connection; name in the record, secret nowhere."""
    proxy = late("--tls", "none")
    client, server = opened(proxy, "AUTH PLAIN LOGIN GSSAPI")
    for line, reply in dialogue:
        client.send(line)
        server.expect_line(line)
        server.send(*reply.split("\n"))
        assert client.reply() == reply
    client.ask("AUTH PLAIN AGEAYg==", "503 5.5.1")
    client.ask("MAIL FROM:<a@b> AUTH=e+3Dmc2@example.com", "250")
    client.ask("AUTH PLAIN AGEAYg==", "503 5.5.1")
    client.send("RCPT TO:<b@c>")
    server.expect_line("MAIL FROM:<a@b> AUTH=e+3Dmc2@example.com")
    server.send("250 2.1.0 fine")
    server.expect_line("RCPT TO:<b@c>")
    server.send("250 2.1.5 fine")
    client.expect("250 2.1.5 fine")
    client.send("DATA")
    server.expect_line("DATA")
    server.send("354 go on")
    client.expect("354")
    client.send_raw(MESSAGE)
    assert server.until(b"\r\n.\r\n") == MESSAGE
    server.send("250 2.0.0 taken")
    client.expect("250 2.0.0 taken")
    assert proxy.wait_for("message")["auth"] == USER
    proxy.upstream.nobody()
    nothing_secret(proxy)


def test_35_what_follows_auth_waits(late):
    proxy = late("--tls", "none")
    client, server = opened(proxy, "PIPELINING", "AUTH PLAIN")
    client.send(f"AUTH PLAIN {PLAIN}", "MAIL FROM:<a@b>", "RCPT TO:<b@c>")
    server.expect_line(f"AUTH PLAIN {PLAIN}")
    server.silent()
    client.silent()
    server.send("235 2.7.0 welcome")
    client.expect("235")
    client.expect("250")
    server.expect_line("MAIL FROM:<a@b>")


def test_ehlo_and_auth_in_one_segment(late, mail_server):
    server = mail_server("AUTH PLAIN")
    client = late(upstream=server).connect()
    client.send("EHLO c", f"AUTH PLAIN {PLAIN}", "MAIL FROM:<a@b>", "RCPT TO:<b@c>", "DATA", "Hi", ".", "QUIT")
    assert client.replies_to(221) == [220, 250, 235, 250, 250, 354, 250, 221]
    assert verbs(server)[:5] == ["EHLO", "AUTH", "MAIL", "RCPT", "DATA"] and len(server.peers) == 1


def test_ehlo_once_more(late, mail_server):
    """The server is told the new name; who has authenticated has, RFC 4954 4."""
    server = mail_server("AUTH PLAIN")
    client = late("--tls", "none", upstream=server).connect()
    greet(client)
    assert "AUTH PLAIN" in client.ask("EHLO second.example", "250").texts
    client.ask(f"AUTH PLAIN {PLAIN}", "235")
    client.ask("MAIL FROM:<a@b>", "250")
    client.ask("RCPT TO:<b@c>", "250")
    client.ask("EHLO third.example", "250")
    client.ask(f"AUTH PLAIN {PLAIN}", "503 5.5.1")
    client.ask("DATA", "503 5.5.1")
    assert transaction(client, "b@c") == [250, 250]
    client.ask("MAIL FROM:<a@b>", "250")
    client.ask("RCPT TO:<b@c>", "250")
    client.ask("HELO fourth.example", "250")
    assert transaction(client, "d@e") == [250, 250]
    assert len(server.peers) == 1 and [message["to"] for message in server.messages] == [["<b@c>"], ["<d@e>"]]
    assert [line for line in server.commands if "EHLO" in line][-1] == "EHLO third.example"
    assert verbs(server).count("RSET") == 1


# Which server

def test_72_mail_for_other_servers_goes_without_the_clients_name(routed, mail_server):
    """A transaction that begins at one server gets 452 for what goes to the other; on its own it goes there, over a
    connection that knows nothing of the client's AUTH."""
    home, other = mail_server("AUTH PLAIN"), mail_server("AUTH PLAIN", "XCLIENT LOGIN ADDR",
                                                         replies={"XCLIENT": "220 again"})
    proxy = routed(home, "--xclient", other=other)
    client = proxy.connect()
    greet(client)
    client.ask(f"AUTH PLAIN {PLAIN}", "235")
    assert transaction(client, "b@c", "x@other.example", "d@c") == [250, 452, 250, 250]
    assert transaction(client, "x@other.example", "b@c", sender="MAIL FROM:<a@b> AUTH=a@b") == [250, 452, 250]
    assert [len(message["to"]) for message in home.messages + other.messages] == [2, 1]
    assert "XCLIENT ADDR=127.0.0.1" in other.commands and "MAIL FROM:<a@b>" in other.commands
    assert not any(word in " ".join(other.commands) for word in ("AUTH", USER, "LOGIN"))
    wait_until(lambda: verbs(home)[-1] == "QUIT")
    assert verbs(home).count("AUTH") == 1 and len(home.peers) == 1
    assert [record["auth"] for record in proxy.records("message")] == [USER] * 2


def test_72_back_to_the_server_that_was_left(routed, mail_server):
    """It would not know the client, which has to come again."""
    home, other = mail_server("AUTH PLAIN"), mail_server()
    proxy = routed(home, other=other)
    client = proxy.connect()
    greet(client)
    client.ask(f"AUTH PLAIN {PLAIN}", "235")
    assert transaction(client, "x@other.example", "b@c", "y@other.example") == [250, 452, 250, 250]
    assert transaction(client, "b@c") == [421]
    assert len(home.peers) == 1 and verbs(home) == ["EHLO", "AUTH", "QUIT"]
    record = proxy.wait_for("message", 2)
    assert record["result"] == "deferred" and record["rcpt_to"][0]["code"] == 421
    client.close()
    assert proxy.wait_for("close")["by"] == "smtpwarp"


def test_72_password_is_for_one_server_only(routed, mail_server):
    """AUTH that comes when another is connected."""
    home, other = mail_server("AUTH PLAIN"), mail_server("AUTH PLAIN")
    proxy = routed(home, other=other)
    client = proxy.connect()
    greet(client)
    assert transaction(client, "x@other.example") == [250, 250]
    client.ask(f"AUTH PLAIN {PLAIN}", "421 4.4.2")
    client.expect_end()
    assert "AUTH" not in verbs(home) + verbs(other)
    nothing_secret(proxy)


def test_client_that_does_not_authenticate(routed, mail_server):
    """Its mail goes where it would, and whether that is enough is the server's to say."""
    home = mail_server("AUTH PLAIN", replies={"MAIL": "530 5.7.0 Authentication required"})
    other = mail_server()
    client = routed(home, other=other).connect()
    greet(client)
    client.ask("MAIL FROM:<a@b> AUTH=<>", "250")
    client.ask("RCPT TO:<b@c>", "530 5.7.0")
    client.ask("RSET", "250")
    assert "MAIL FROM:<a@b>" in home.commands
    assert transaction(client, "x@other.example") == [250, 250]


@pytest.mark.parametrize("line, same", [("{0}:{1};", True), ("smtp://{0}:{1};none", True), ("{0}:{1}, other.example;", True),
                                        ("{0}:{1};may", False), ("127.0.0.2:{1};", False)])
def test_route_to_the_same_server(late, mail_server, tmp_path, line, same):
    """Is the same connection, if all else is the same as well."""
    path = tmp_path / "routes"
    server = mail_server("AUTH PLAIN", address="0.0.0.0")
    path.write_text("*;" + line.format("127.0.0.1", server.port) + "\n")
    client = late("--tls", "none", "--routes", path, "--upstream", f"127.0.0.1:{server.port}").connect()
    greet(client)
    client.ask(f"AUTH PLAIN {PLAIN}", "235")
    assert transaction(client, "b@c") == [250, 250]
    assert len(server.peers) == 2 - same


def test_upstream_verdict_of_connect(late, mail_server, tmp_path):
    """It is the server of the whole session, and so AUTH's."""
    hooks = Hooks(tmp_path / "hooks")
    home, other = mail_server("AUTH PLAIN"), mail_server("AUTH LOGIN")
    hooks.script("connect", f"echo upstream {other.name_port}")
    client = late(*hooks.options, upstream=home).connect()
    assert "AUTH LOGIN" in greet(client).texts
    client.ask(f"AUTH PLAIN {PLAIN}", "235")
    assert transaction(client, "b@c") == [250, 250] and not home.peers and len(other.peers) == 1


def test_hooks_know_the_user(late, mail_server, tmp_path):
    """And may demand one."""
    hooks = Hooks(tmp_path / "hooks")
    hooks.script("mail", "if grep -q '\"auth\":null'; then echo reject 530 5.7.0 Authentication required; fi")
    proxy = late(*hooks.options, upstream=mail_server("AUTH PLAIN"))
    client = proxy.connect()
    greet(client)
    client.ask("MAIL FROM:<a@b>", "530 5.7.0")
    client.ask(f"AUTH PLAIN {PLAIN}", "235")
    assert transaction(client, "b@c") == [250, 250]


# Servers that fail

@pytest.mark.parametrize("failure, reason", [
    ({"banner": "554 5.7.1 no"}, "4.4.1"), ({"replies": {"EHLO": "421 4.3.2 later"}}, "4.4.1"),
    ({"replies": {"EHLO": "451 4.3.2 later"}}, "4.4.1"), (None, "4.4.1"), ("tls", "4.7.5")], ids=str)
def test_no_server_to_be_asked(late, mail_server, failure, reason):
    """421: a client that sees no AUTH might give up for good. The next server is tried first."""
    options = ["--tls", "encrypt"] if failure == "tls" else []
    server = "127.0.0.1:1" if failure is None else mail_server(**({} if failure == "tls" else failure)).name_port
    proxy = late(*options, "--upstream", server)
    client = proxy.connect()
    client.expect("220 proxy.example")
    client.ask("EHLO client.example", f"421 {reason} 127.0.0.1: ")
    client.expect_end()
    client.close()
    assert proxy.wait_for("close")["reason"].startswith(reason)
    assert proxy.records("tls" if failure == "tls" else "error")
    if failure != "tls":
        client = late("--upstream", server, "--upstream", mail_server("AUTH PLAIN").name_port).connect()
        assert "AUTH PLAIN" in greet(client).texts


def test_server_that_knows_only_helo(late, mail_server):
    client = late(upstream=mail_server(helo_only=True)).connect()
    assert greet(client).texts == [*OWN, "PIPELINING"]
    client.ask("AUTH PLAIN AGEAYg==", "502 5.5.1")
    assert transaction(client, "b@c") == [250, 250]


@pytest.mark.parametrize("leave", ["close", "421"])
def test_lost_before_auth(late, leave):
    """That is nobody's business; AUTH needs another session, mail does not."""
    proxy = late("--tls", "none")
    client, server = opened(proxy, "AUTH PLAIN")
    if leave == "421":
        server.send("421 4.4.2 idle")
    server.close()
    client.silent()
    client.ask("NOOP", "250")
    client.ask("MAIL FROM:<a@b>", "250")
    client.send("RCPT TO:<b@c>")
    server = proxy.upstream.accept()
    server.send("554 no")
    client.expect("451 4.4.1")
    client.ask("RSET", "250")
    client.ask("AUTH PLAIN AGEAYg==", "421 4.4.2 127.0.0.1: connection is closed")
    client.expect_end()


@pytest.mark.parametrize("leave", ["close", "421"])
def test_lost_before_auth_at_the_next_ehlo(late, leave):
    """Another connection has the same list."""
    proxy = late("--tls", "none")
    client, server = opened(proxy, "AUTH PLAIN")
    client.ask("MAIL FROM:<a@b>", "250")
    client.send("EHLO again.example")
    server.expect_line("EHLO again.example")
    if leave == "421":
        server.send("421 4.4.2 idle")
    server.close()
    server = proxy.upstream.accept()
    server.send("220 server.example")
    server.expect_line("EHLO again.example")
    server.send("250-server.example", "250 AUTH LOGIN")
    assert "AUTH LOGIN" in client.expect("250").texts
    client.send("AUTH LOGIN")
    server.expect_line("AUTH LOGIN")


def test_lost_at_starttls_of_the_next_ehlo(late, mail_server, certs):
    """The server that is there instead, and speaks TLS from the first octet, greets first."""
    first = peers.Listener()
    first.close()
    proxy = late("--upstream", f"smtps://{first.name_port}")
    proxy.options += ["--upstream", proxy.upstream.name_port]
    client, server = opened(proxy, "AUTH PLAIN")
    other = mail_server("AUTH LOGIN", port=first.port, tls=certs.context(), implicit=True)
    client.send("EHLO again.example")
    server.expect_line("EHLO again.example")
    server.send("250-server.example", "250 STARTTLS")
    server.expect_line("STARTTLS")
    server.close()
    assert "AUTH LOGIN" in client.expect("250").texts
    client.ask("MAIL FROM:<a@b>", "250")
    client.ask("RCPT TO:<b@c>", "250")
    assert verbs(other) == ["EHLO", "MAIL", "RCPT"]


@pytest.mark.parametrize("leave", ["close", "421"])
@pytest.mark.parametrize("phase", ["AUTH", "334", "535", "235", "MAIL", "EHLO", "RCPT", "after"])
def test_lost_after_auth(late, leave, phase):
    """The session stands and falls with the connection that knows the client: no other one is made."""
    proxy = late("--tls", "none")
    client, server = opened(proxy, "AUTH PLAIN LOGIN")
    client.send("AUTH LOGIN")
    server.expect_line("AUTH LOGIN")
    if phase != "AUTH":
        server.send("334 ")
        client.expect("334")
    if phase not in ("AUTH", "334"):
        client.send("x")
        server.expect_line("x")
        server.send("535 5.7.8 no" if phase == "535" else "235 2.7.0 welcome")
        client.expect("535" if phase == "535" else "235")
    if phase == "EHLO":
        client.send("EHLO again.example")
        server.expect_line("EHLO again.example")
    if phase in ("MAIL", "RCPT", "after"):
        client.ask("MAIL FROM:<a@b>", "250")
        client.send("RCPT TO:<b@c>")
        server.expect_line("MAIL FROM:<a@b>")
    if phase in ("RCPT", "after"):
        server.send("250 fine")
        server.expect_line("RCPT TO:<b@c>")
    if phase == "after":
        server.send("250 fine")
        client.expect("250")
        client.send("DATA")
        server.expect_line("DATA")
        server.send("354 go on")
        client.expect("354")
        client.send_raw(MESSAGE)
        server.until(b"\r\n.\r\n")
        server.send("250 taken")
        client.expect("250")
    if leave == "421":
        server.send("421 4.3.2 shutting down")
    server.close()
    client.expect("421 4.")
    client.expect_end()
    client.close()
    proxy.upstream.nobody()
    record = proxy.wait_for("close")
    assert record["by"] == "upstream"


def test_lost_while_its_own_mail_goes_elsewhere(routed, mail_server):
    """It was left already."""
    home, other = mail_server("AUTH PLAIN"), mail_server()
    client = routed(home, other=other).connect()
    greet(client)
    client.ask(f"AUTH PLAIN {PLAIN}", "235")
    client.ask("MAIL FROM:<a@b>", "250")
    client.ask("RCPT TO:<x@other.example>", "250")
    wait_until(lambda: verbs(home)[-1] == "QUIT")
    client.ask("RSET", "250")
    assert transaction(client, "x@other.example") == [250, 250]


@pytest.mark.parametrize("line", ["250 2.0.0 what?", "hello"])
def test_16_server_that_speaks_out_of_turn(late, line):
    proxy = late("--tls", "none")
    client, server = opened(proxy, "AUTH PLAIN")
    client.send(f"AUTH PLAIN {PLAIN}")
    server.until(b"\r\n")
    server.send("235 2.7.0 welcome", line)
    client.expect("235")
    client.expect("421 4.5.0")
    client.expect_end()


def test_server_that_does_not_answer_auth(late):
    proxy = late("--tls", "none", "--command-timeout", "1")
    client, server = opened(proxy, "AUTH PLAIN")
    client.send(f"AUTH PLAIN {PLAIN}")
    server.until(b"\r\n")
    client.expect("421 4.4.2")
    client.expect_end()


def test_client_that_leaves_while_the_server_is_asked(late):
    proxy = late("--tls", "none")
    client = proxy.connect()
    client.expect("220")
    client.send("EHLO c")
    server = proxy.upstream.accept()
    client.close()
    assert server.rest() == b""
    assert proxy.wait_for("close")["by"] == "client"


def test_upstream_auth_goes_before(late, mail_server, certs, tmp_path):
    """A server that smtpwarp has authenticated with is not for the client to: AUTH is not shown."""
    passwords = tmp_path / "passwords"
    passwords.write_text("127.0.0.1 a:b\n")
    server = mail_server("AUTH PLAIN", tls=certs.context())
    client = late("--upstream-auth", passwords, upstream=server).connect()
    assert greet(client).texts == [*OWN, "PIPELINING"]
    client.ask(f"AUTH PLAIN {PLAIN}", "502 5.5.1")
    assert transaction(client, "b@c") == [250, 250]
    assert verbs(server).count("AUTH") == 1 and len(server.peers) == 1
