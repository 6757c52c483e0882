"""Who smtpwarp is to the upstream: --upstream-auth, --tls-cert and --tls-key. DESIGN 8; PROTOCOL 49, 72, 84."""
import base64
import hashlib
import os
import re
import ssl
import subprocess

import pytest
from aiosmtpd.controller import Controller
from aiosmtpd.smtp import AuthResult

import certificates
import netns
import peers
from warp import BINARY, Warp, send_message

LATE = ["--connect-on", "recipient", "--hostname", "proxy.example"]
USER, PASSWORD = "relay@mx.example", "geheim: s3cret"


def b64(text):
    return base64.b64encode(text.encode()).decode()


PLAIN = b64(f"\0{USER}\0{PASSWORD}")


def write(path, text, mode=0o600):
    path.write_text(text)
    path.chmod(mode)
    return path


@pytest.fixture
def passwords(tmp_path):
    return write(tmp_path / "passwords", f"# upstreams\n\nother.example a:b\n127.0.0.1 {USER}:{PASSWORD}\n* c:d\n")


@pytest.fixture
def login(warp, certs, passwords):
    """login(*options, upstream=...): a Warp that authenticates."""
    def make(*options, **settings):
        return warp("--tls-ca", certs.ca, "--tls-name", certificates.HOST, "--upstream-auth", passwords, "--verbose",
                    *options, **settings)
    return make


def wants(answers):
    """Replies to AUTH and what follows it, in order, whatever is said."""
    left = list(answers)
    return lambda line: left.pop(0)


def server_for(mail_server, certs, mechanisms="PLAIN LOGIN", answers=("235 2.7.0 welcome",), words=(), **options):
    """Offers AUTH; words are the lines after a 334."""
    reply = wants(answers)
    replies = {"AUTH": reply, **{word.upper(): reply for word in words}, **options.pop("replies", {})}
    return mail_server("8BITMIME", f"AUTH {mechanisms}", tls=certs.context(), replies=replies, **options)


def greet(client, hello="EHLO client.example"):
    client.expect("220")
    client.send(hello)
    return client.reply()


def nothing_secret(proxy):
    """No record has the password, nor the lines that say it."""
    for secret in (PASSWORD, b64(PASSWORD), PLAIN, "s3cret"):
        assert secret not in proxy.log_text()


@pytest.mark.parametrize("late", [False, True])
@pytest.mark.parametrize("mechanisms,words,said", [
    ("PLAIN LOGIN", [], [f"AUTH PLAIN {PLAIN}"]),
    ("CRAM-MD5 login", [b64(USER), b64(PASSWORD)], ["AUTH LOGIN", b64(USER), b64(PASSWORD)])])
def test_message_of_a_client_that_cannot(login, mail_server, certs, late, mechanisms, words, said):
    """PLAIN first, else LOGIN; inside of TLS, ahead of anything of the client's; AUTH is then not for the client."""
    answers = ["334 VXNlcm5hbWU6", "334 UGFzc3dvcmQ6"][:len(words)] + ["235 2.7.0 welcome"]
    server = server_for(mail_server, certs, mechanisms, answers, words)
    proxy = login(*(LATE if late else []), upstream=server)
    client = proxy.connect()
    assert "AUTH" not in greet(client)
    client.ask("AUTH PLAIN AGEAYg==", "502 5.5.1")
    send_message(client)
    client.ask("QUIT", "221")
    proxy.wait_for("close")
    hello = "EHLO proxy.example" if late and server.commands[0] == "EHLO proxy.example" else "EHLO client.example"
    assert server.commands[:4 + len(words)] == [hello, "STARTTLS", hello, *said]
    assert server.commands[4 + len(words)].startswith("MAIL") and server.messages[0]["tls"]
    assert proxy.wait_for("message")["auth"] is None
    nothing_secret(proxy)


def test_helo_client(login, mail_server, certs):
    server = server_for(mail_server, certs)
    client = login(upstream=server).connect()
    assert greet(client, "HELO client.example").code == 250
    send_message(client)
    assert server.commands[:5] == ["EHLO client.example", "STARTTLS", "EHLO client.example", f"AUTH PLAIN {PLAIN}",
                                   "HELO client.example"]


def test_once_though_the_client_greets_twice(login, mail_server, certs):
    server = server_for(mail_server, certs)
    client = login(upstream=server).connect()
    greet(client)
    assert "AUTH" not in client.ask("EHLO client.example", "250")
    send_message(client)
    assert sum(command.startswith("AUTH") for command in server.commands) == 1


def test_72_connection_of_the_next_message_is_authenticated_already(login, mail_server, certs):
    server = server_for(mail_server, certs)
    client = login(*LATE, upstream=server).connect()
    greet(client)
    send_message(client)
    send_message(client)
    assert len(server.messages) == 2 and len(server.peers) == 1
    assert sum(command.startswith("AUTH") for command in server.commands) == 1


def test_again_after_xclient(login, mail_server, certs):
    """XCLIENT makes the server forget; so it comes first."""
    server = mail_server("XCLIENT ADDR", "AUTH PLAIN", tls=certs.context(), replies={"XCLIENT": "220 server.example"})
    client = login("--xclient", upstream=server).connect()
    greet(client)
    send_message(client)
    verbs = [command.split()[0] for command in server.commands]
    assert verbs[:6] == ["EHLO", "STARTTLS", "EHLO", "XCLIENT", "EHLO", "AUTH"]


@pytest.mark.parametrize("late", [False, True])
@pytest.mark.parametrize("mechanisms,answers,words,reply", [
    ("PLAIN", ["535 5.7.8 no"], [], "451 4.7.8 127.0.0.1: authentication failed"),
    ("PLAIN", ["454 4.7.0 later"], [], "451 4.7.8 127.0.0.1: authentication failed"),
    ("PLAIN", ["334 "], [], "451 4.7.8 127.0.0.1: authentication failed"),
    ("LOGIN", ["334 a", "334 b", "334 c"], [b64(USER), b64(PASSWORD)], "451 4.7.8 127.0.0.1: authentication failed"),
    ("CRAM-MD5", [], [], "451 4.7.4 127.0.0.1: neither AUTH PLAIN nor LOGIN is offered")])
def test_refused(login, mail_server, certs, late, mechanisms, answers, words, reply):
    server = server_for(mail_server, certs, mechanisms, answers, words)
    proxy = login(*(LATE if late else []), upstream=server)
    client = proxy.connect()
    got = greet(client)
    if late:
        client.ask("MAIL FROM:<a@client.example>", "250")
        client.send("RCPT TO:<b@server.example>")
        got = client.reply()
    assert got == reply
    client.send("QUIT")
    client.expect("221")
    proxy.wait_for("close")
    assert any(reply[4:] in record["error"] for record in proxy.records("error"))
    assert not any(command.startswith("MAIL") for command in server.commands)
    nothing_secret(proxy)


# Who hears it

def fingerprint(certs, kind, colons=False):
    digits = hashlib.sha256(ssl.PEM_cert_to_DER_cert(certs.pair(kind)[0].read_text())).hexdigest()
    return "fingerprint=" + (":".join(re.findall("..", digits.upper())) if colons else digits)


@pytest.fixture
def far(certs, tmp_path):
    """far(line, *options, kind=...): the first reply to a client's greeting, whose upstream is on another host and has a line with
    these conditions; that server; and the smtpwarp. HOST and PORT in line stand for the server's."""
    if netns.unsupported():
        pytest.skip(netns.unsupported())
    made = []
    with netns.pair() as (server_host, host):
        def make(line, *options, kind="good"):
            with server_host:
                server = peers.MailServer("AUTH PLAIN", address=server_host.ip4, tls=certs.context(kind))
            path = write(tmp_path / "passwords", line.replace("HOST", server_host.ip4).replace("PORT", str(server.port)))
            proxy = Warp(host, tmp_path, "--tls-ca", certs.ca, "--upstream-auth", path, *options, upstream=server)
            made.extend([proxy, server])
            client = proxy.connect()
            return greet(client), server, proxy
        with host:
            yield make
        for one in made:
            one.close()


NAMED = ["--tls-name", certificates.HOST]
LINE = f"HOST {{}} {USER}:{PASSWORD}\n"


@pytest.mark.parametrize("level", ["may", "encrypt"])
@pytest.mark.parametrize("kind, conditions, options, reason", [
    ("good", "", NAMED, None), ("good", "", [], "certificate is not verified"),
    ("self-signed", "", NAMED, "certificate is not verified"), ("wrong-name", "", NAMED, "certificate is not verified"),
    ("self-signed", "unverified", NAMED, None), ("good", "unverified", [], None),
    ("self-signed", "fingerprint=self-signed", [], None), ("self-signed", "fingerprint=SELF-SIGNED", [], None),
    ("self-signed", "fingerprint=good fingerprint=self-signed", [], None),
    ("self-signed", "fingerprint=good", [], "certificate has another fingerprint"),
    ("good", "fingerprint=self-signed", NAMED, "certificate has another fingerprint")])
def test_84_only_to_who_is_meant(far, certs, level, kind, conditions, options, reason):
    """A name in a certificate, a certificate that the file names, or the word that it does not matter."""
    line = re.sub(r"fingerprint=(\S+)", lambda m: fingerprint(certs, m[1].lower(), m[1].isupper()), LINE.format(conditions))
    reply, server, proxy = far(line, "--tls", level, *options, kind=kind)
    if not reason:
        assert reply.code == 250 and server.commands[-1] == f"AUTH PLAIN {PLAIN}"
        return
    assert reply.startswith("451 4.7.5 ") and reply.endswith(reason)
    assert "AUTH" not in str(server.commands)
    error = proxy.wait_for("error")["error"]
    assert reason in error and fingerprint(certs, kind) in error
    nothing_secret(proxy)


def test_84_verify_still_counts_with_a_pin(far, certs):
    reply, server, _ = far(LINE.format(fingerprint(certs, "self-signed")), "--tls", "verify", *NAMED, kind="self-signed")
    assert reply == f"451 4.7.5 {server.name_port.split(':')[0]}: certificate is not signed by a trusted CA"


@pytest.mark.parametrize("line, meant", [("*", False), ("*:PORT", False), ("* unverified", False), ("HOST unverified", True)])
def test_84_other_hosts_are_none_that_a_client_chooses(certs, tmp_path, line, meant):
    """In transparent mode anybody could have the password sent to a host of his own."""
    if netns.unsupported():
        pytest.skip(netns.unsupported())
    with netns.pair() as (server_host, host):
        with server_host:
            server = peers.MailServer("AUTH PLAIN", address=server_host.ip4, port=25, tls=certs.context())
        line = line.replace("HOST", server_host.ip4).replace("PORT", "25")
        passwords = write(tmp_path / "passwords", f"{line} {USER}:{PASSWORD}\n")
        host.nft("table ip t { chain c { type nat hook output priority -100; "
                 "meta mark 7 return; tcp dport 25 redirect to :2525; }; }")
        with host:
            proxy = Warp(host, tmp_path, "--transparent", "--tls-ca", certs.ca, *NAMED, "--upstream-auth", passwords,
                         "--mark", "7").listen("127.0.0.1:2525")
            client = peers.connect(server_host.ip4, 25, proxy.group)
            texts = greet(client).texts
            assert ("AUTH PLAIN" in texts) == (not meant)
            assert (f"AUTH PLAIN {PLAIN}" in server.commands) == meant
            client.close()
            proxy.wait_for("close")
            proxy.close()
        server.close()


def test_84_unix_socket_needs_no_certificate(login, certs, tmp_path):
    server = peers.MailServer("AUTH PLAIN", address=str(tmp_path / "lmtp"), lmtp=True, tls=certs.context("self-signed"))
    write(tmp_path / "passwords", f"{tmp_path / 'lmtp'} {USER}:{PASSWORD}\n")
    client = login(upstream=server).connect()
    greet(client)
    assert f"AUTH PLAIN {PLAIN}" in server.commands
    server.close()


class Mailbox:
    """For aiosmtpd: keeps what comes, and who sent it."""

    def __init__(self):
        self.taken = []

    async def handle_DATA(self, _server, session, envelope):     # pylint: disable=invalid-name; aiosmtpd's
        self.taken.append((session.auth_data, envelope.rcpt_tos))
        return "250 2.0.0 taken"


@pytest.mark.parametrize("excluded,late", [([], False), (["PLAIN"], False), (["PLAIN"], True)])
@pytest.mark.parametrize("password,reply", [(PASSWORD, 250), ("other", 451)])
def test_real_server(login, certs, host, passwords, excluded, late, password, reply):
    """aiosmtpd, which takes AUTH inside of TLS only, and mail after AUTH only."""
    def judge(_server, _session, _envelope, _mechanism, data):
        right = (data.login, data.password) == (USER.encode(), PASSWORD.encode())
        return AuthResult(success=right, handled=False, auth_data=data.login)
    write(passwords, f"127.0.0.1 {USER}:{password}\n")
    box = Mailbox()
    server = Controller(box, "127.0.0.1", 2526, authenticator=judge, auth_required=True, require_starttls=True,
                        tls_context=certs.context(), auth_exclude_mechanism=excluded)
    server.start()
    try:
        proxy = login("--tls", "verify", *(LATE if late else []), "--upstream", "127.0.0.1:2526")
        client = proxy.connect()
        code = greet(client).code
        if late and reply == 451:
            client.ask("MAIL FROM:<a@client.example>", "250")
            client.ask("RCPT TO:<b@server.example>", "451 4.7.8")
        elif reply == 451:
            assert code == 451
        else:
            send_message(client)
            assert box.taken == [(USER.encode(), ["b@mail.test"])]
        nothing_secret(proxy)
    finally:
        server.stop()


@pytest.mark.parametrize("level", ["none", "may"])
@pytest.mark.parametrize("hello", ["EHLO client.example", "HELO client.example"])
def test_never_without_tls(login, mail_server, level, hello):
    server = mail_server("AUTH PLAIN LOGIN")
    client = login("--tls", level, upstream=server).connect()
    assert greet(client, hello).startswith("451 4.7.5 127.0.0.1: ")
    client.send("MAIL FROM:<a@client.example>")
    client.expect("421 4.7.5")
    client.expect_end()
    assert not any(command.startswith(("AUTH", "MAIL")) for command in server.commands)


def test_no_fallback_to_plain(login, mail_server, certs):
    """A handshake that fails is not tried again without TLS, where nothing would protect the password."""
    server = mail_server("AUTH PLAIN", tls=certs.context(minimum=ssl.TLSVersion.TLSv1_3))
    client = login(upstream=server).connect()
    assert greet(client).startswith("451 4.7.5 ")
    assert len(server.peers) == 1 and "AUTH" not in str(server.commands)


def test_server_that_knows_only_helo(login, mail_server, certs):
    server = mail_server(tls=certs.context(), implicit=True, helo_only=True)
    proxy = login("--upstream", f"smtps://{server.name_port}")
    client = proxy.connect()
    assert greet(client) == "451 4.7.4 127.0.0.1: neither AUTH PLAIN nor LOGIN is offered"


def test_other_upstreams_authenticate_the_client_themselves(login, mail_server, certs, passwords):
    write(passwords, f"127.0.0.1:1 {USER}:{PASSWORD}\n")
    server = server_for(mail_server, certs)
    client = login(upstream=server).connect()
    assert "AUTH PLAIN LOGIN" in greet(client).texts
    client.ask("AUTH PLAIN AGEAYg==", "235")
    assert server.commands[3:] == ["AUTH PLAIN AGEAYg=="]


@pytest.mark.parametrize("line", ["127.0.0.1 {}", "[127.0.0.1] {}", "127.0.0.1:{port} {}", "[127.0.0.1]:{port}\t {}",
                                  "* {}", "*:{port} {}"])
def test_lines_that_fit(login, mail_server, certs, passwords, line):
    server = server_for(mail_server, certs)
    write(passwords, "* x:y\n" * ("*" not in line) + line.format(f"{USER}:{PASSWORD}", port=server.port) + "\r\n")
    client = login(upstream=server).connect()
    greet(client)
    assert server.commands[-1] == f"AUTH PLAIN {PLAIN}"


@pytest.mark.parametrize("size", [1, 243, 244, 245, 255])
def test_long_passwords(login, mail_server, certs, passwords, size):
    """Around the size at which a buffer grows, and the largest."""
    write(passwords, f"* {'u' * 128}:{'p' * size}\n")
    server = server_for(mail_server, certs)
    client = login(upstream=server).connect()
    assert greet(client).code == 250
    assert server.commands[-1] == "AUTH PLAIN " + b64(f"\0{'u' * 128}\0{'p' * size}")


@pytest.mark.parametrize("line", ["host", "host user", "host user:", "host :password", "host:0 u:p", "host:65536 u:p",
                                  "host:x u:p", "[host u:p", "[] u:p", "[h]25 u:p", ":25 u:p", f"h {'u' * 256}:p",
                                  f"h u:{'p' * 256}", "h u:p\0q"])
def test_malformed_line(tmp_path, line):
    path = write(tmp_path / "passwords", f"# fine\n* a:b\n{line}\n")
    result = subprocess.run([BINARY, "--check", "--upstream-auth", path], capture_output=True, text=True, timeout=20)
    assert result.returncode == 78
    assert result.stderr == f"smtpwarp: --upstream-auth {path}: line 3 is not HOST USER:PASSWORD\n"


def test_files_that_are_no_good(tmp_path):
    large = write(tmp_path / "large", "#" * 65536)
    for path, reason in ((tmp_path / "none", "No such file"), (tmp_path, "Is a directory"), (large, "larger than 64 kB")):
        result = subprocess.run([BINARY, "--check", "--upstream-auth", path], capture_output=True, text=True, timeout=20)
        assert result.returncode == 78 and reason in result.stderr
    result = subprocess.run([BINARY, "--check", "--client-tls", "passthrough", "--upstream-auth",
                             write(tmp_path / "good", "* a:b\n")], capture_output=True, text=True, timeout=20)
    assert result.returncode == 78 and "--upstream-auth" in result.stderr


@pytest.mark.parametrize("mode", [0o600, 0o640, 0o644])
def test_warning(login, mail_server, certs, passwords, mode):
    passwords.chmod(mode)
    proxy = login(upstream=server_for(mail_server, certs))
    greet(proxy.connect())
    assert ("every user of this host can get at it" in proxy.log_text()) == (mode == 0o644)


def test_hangup_reads_the_file_again(login, mail_server, certs, passwords):
    server = server_for(mail_server, certs, answers=["235 ok"] * 3)
    proxy = login(upstream=server).listen()
    for text, said in ((None, PLAIN), ("* new:one\n", b64("\0new\0one")), ("nonsense\n", b64("\0new\0one"))):
        if text:
            write(passwords, text)
            proxy.hang_up()
        greet(proxy.connect())
        assert server.commands[-1] == f"AUTH PLAIN {said}"
    assert "line 1 is not HOST USER:PASSWORD; what was read before is still in use" in proxy.log_text()


# Certificates

@pytest.mark.parametrize("kind", ["good", "p384", "rsa", "rsa4096"])
@pytest.mark.parametrize("alone", [False, True])
def test_certificate_for_an_upstream_that_asks(warp, mail_server, certs, tmp_path, kind, alone):
    cert, key = certs.pair(kind)
    context = certs.context()
    context.verify_mode = ssl.CERT_REQUIRED
    context.load_verify_locations(certs.ca)
    server = mail_server(tls=context)
    both = write(tmp_path / "both.pem", cert.read_text() + key.read_text())
    files = ["--tls-cert", both] if alone else ["--tls-cert", cert, "--tls-key", key]
    client = warp("--tls", "encrypt", *files, upstream=server).connect()
    assert greet(client).code == 250
    send_message(client)
    assert server.peers[0].sock.getpeercert(True) == ssl.PEM_cert_to_DER_cert(cert.read_text())


def test_upstream_that_asks_in_vain_or_not_at_all(warp, mail_server, certs):
    context = certs.context()
    context.verify_mode = ssl.CERT_REQUIRED
    context.load_verify_locations(certs.ca)
    cert, key = certs.pair("good")
    client = warp("--tls", "encrypt", upstream=mail_server(tls=context)).connect()
    assert greet(client).startswith("451 4.7.5 ")
    server = mail_server(tls=certs.context())
    client = warp("--tls", "encrypt", "--tls-cert", cert, "--tls-key", key, upstream=server).connect()
    assert greet(client).code == 250
    assert server.peers[0].sock.getpeercert(True) is None


def test_keys_that_are_no_good(certs):
    cert, key = certs.pair("good")
    for arguments, reason in ((["--tls-key", key], f"--tls-key {key}: there is no --tls-cert"),
                              (["--tls-cert", cert], f"--tls-key {cert}: no private key in it"),
                              (["--tls-cert", key], f"--tls-cert {key}: no certificate in it"),
                              (["--tls-cert", cert, "--tls-key", certs.pair("p384")[1]], "is not that of the first")):
        result = subprocess.run([BINARY, "--check", *arguments], capture_output=True, text=True, timeout=20)
        assert result.returncode == 78 and reason in result.stderr
