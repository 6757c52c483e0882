"""--client-tls passthrough: STARTTLS is left to client and upstream, and what follows goes through unread. DESIGN 5;
PROTOCOL 40, 56, 70."""
import ssl

import pytest

import certificates
import mta
import netns
import peers
from hooks import Hooks
from warp import MESSAGE, Warp

PASS = ["--client-tls", "passthrough"]
HELLO = b"\x16\x03\x01\x00\x05hello"     # as TLS begins; smtpwarp does not look


def context(certs):
    made = ssl.create_default_context(cafile=certs.ca)
    made.minimum_version = ssl.TLSVersion.TLSv1_2
    return made


@pytest.fixture
def passing(warp):
    """passing(*options): a session whose upstream has offered STARTTLS."""
    def make(*options, **settings):
        made = warp(*PASS, *options, **settings)
        session = made.session()
        session.warp = made
        assert "STARTTLS" in session.greet("STARTTLS", "SIZE").texts
        return session
    return make


@pytest.fixture
def tunnel(passing):
    """tunnel(*options): the same after 220, and the client's first octets."""
    def make(*options, **settings):
        session = passing(*options, **settings)
        session.exchange("STARTTLS", "220 2.0.0 go ahead")
        session.client.send_raw(HELLO)
        assert session.server.take(len(HELLO)) == HELLO
        return session
    return make


# Both ends do TLS

@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3], ids=str)
def test_tls_from_end_to_end(warp, certs, mail_server, version):
    """The client verifies the upstream's certificate; also with a version that BearSSL does not know."""
    server = mail_server("PIPELINING", tls=certs.context("rsa", version, version))
    made = warp(*PASS, "--verbose", upstream=server)
    client = made.greeted()
    client.ask("STARTTLS", "220")
    client.begin_tls(context(certs), certificates.HOST)
    assert client.sock.version() == ("TLSv1.2" if version == ssl.TLSVersion.TLSv1_2 else "TLSv1.3")
    client.ask("EHLO inside.example", "250")
    client.ask("MAIL FROM:<secret@client.example>", "250")
    client.ask("RCPT TO:<b@server.example>", "250")
    client.ask("DATA", "354")
    message = b"x" * 70 + b"\r\n" + MESSAGE
    client.send_raw(message)
    client.expect("250")
    client.ask("QUIT", "221")
    client.expect_end()
    client.close()
    assert [(one["data"], one["tls"]) for one in server.messages] == [(message, True)]
    assert [command for command in server.commands if command.startswith(("EHLO", "STARTTLS"))] == [
        "EHLO client.example", "STARTTLS", "EHLO inside.example"]
    record = made.wait_for("tls")
    assert (record["side"], record["level"], record["result"]) == ("client", "passthrough", "passthrough")
    assert record["version"] is None and record["cipher"] is None and record["reason"] is None
    close = made.wait_for("close")
    assert close["messages"] == 0 and close["mail_from"] is None and close["client"]["tls"] is None
    assert close["client_in"] == close["server_out"] > len(message) and close["client_out"] > 500
    assert made.records("message") == [] and made.records("error") == []
    assert "secret@" not in made.log_text() and "inside" not in made.log_text()


def test_40_starttls_is_the_upstreams(warp, mail_server):
    """Not offered, it is not shown, and refused; smtpwarp does not start TLS by itself either."""
    server = mail_server("SIZE")
    client = warp(*PASS, upstream=server).connect()
    client.expect("220")
    client.ask("STARTTLS", "502 5.5.1")
    assert "STARTTLS" not in client.ask("EHLO c", "250").texts
    client.ask("STARTTLS", "502 5.5.1")
    assert "STARTTLS" not in server.commands


def test_without_starttls_it_is_a_session_like_others(passing):
    session = passing()
    session.client.ask("STARTTLS now", "501 5.5.4")
    assert session.transaction() == MESSAGE
    assert session.warp.wait_for("message")["result"] == "accepted"
    session.quit()
    assert session.warp.records("tls") == []


@pytest.mark.parametrize("reply", ["454 4.7.0 not now", "501 5.5.4 no", "250 2.0.0 what?"])
def test_starttls_that_is_refused(passing, reply):
    session = passing()
    session.exchange("STARTTLS", reply)
    session.transaction()
    session.exchange("STARTTLS", "220 2.0.0 now then")
    session.client.send_raw(HELLO)
    assert session.server.take(len(HELLO)) == HELLO


def test_upstream_inside_of_tls_has_none_to_pass(warp, certs, mail_server):
    server = mail_server("STARTTLS", tls=certs.context(), implicit=True)
    made = warp(*PASS, "--upstream", f"smtps://{server.name_port}")
    client = made.connect()
    client.expect("220")
    assert "STARTTLS" not in client.ask("EHLO c", "250").texts
    client.ask("STARTTLS", "502")


def test_verdict_that_demands_tls(warp, certs, mail_server, tmp_path):
    """Then smtpwarp sees to it itself."""
    hooks = Hooks(tmp_path / "hooks")
    hooks.script("connect", "echo tls encrypt")
    server = mail_server(tls=certs.context())
    client = warp(*PASS, *hooks.options, upstream=server).connect()
    client.expect("220")
    assert "STARTTLS" not in client.ask("EHLO c", "250").texts
    client.ask("MAIL FROM:<a@b>", "250")
    assert "STARTTLS" in server.commands


# 56: injection

def attacked(session, error):
    assert error in session.warp.wait_for("error")["error"]
    assert session.warp.wait_for("close")["by"] == "smtpwarp"
    assert session.warp.records("tls") == []


@pytest.mark.parametrize("tail", [b"x", b"EHLO evil\r\n", HELLO])
@pytest.mark.parametrize("later", [False, True])
def test_56_octets_behind_starttls(passing, tail, later):
    session = passing()
    if later:
        session.client.send_parts(b"STARTTLS\r\n", tail)
        session.server.expect_line("STARTTLS")
        session.server.send("220 go ahead")
    else:
        session.client.send_raw(b"STARTTLS\r\n" + tail)
    session.client.expect("421 4.7.0")
    session.client.expect_end()
    assert tail not in session.server.rest()
    attacked(session, "plaintext behind STARTTLS")


@pytest.mark.parametrize("tail", [b"x", b"250 evil\r\n", HELLO])
def test_56_octets_behind_220(passing, tail):
    session = passing()
    session.client.send("STARTTLS")
    session.server.expect_line("STARTTLS")
    session.server.send_raw(b"220 go ahead\r\n" + tail)
    session.client.expect("421 4.7.0")
    session.client.expect_end()
    attacked(session, "after the reply to STARTTLS")


def test_56_upstream_speaks_first(passing):
    """In TLS the client does, so this was put there after 220."""
    session = passing()
    session.exchange("STARTTLS", "220 go ahead")
    session.server.send("250 evil")
    session.client.expect_end()
    assert "before the client's handshake" in session.warp.wait_for("error")["error"]


# Octets

def test_octets_go_both_ways(tunnel):
    session = tunnel()
    for _ in range(3):
        session.server.send_raw(b"\0\r\n.\r\nQUIT\r\n")
        assert session.client.take(12) == b"\0\r\n.\r\nQUIT\r\n"
        session.client.send_raw(b"QUIT\r\nSTARTTLS\r\n")
        assert session.server.take(16) == b"QUIT\r\nSTARTTLS\r\n"


def test_many_octets_at_once(tunnel):
    """Both sides send before they read; nothing is lost, and no side can make smtpwarp keep much."""
    session = tunnel()
    session.client.paused = session.server.paused = True
    block = bytes(range(256)) * 256
    up = session.client.send_what_fits(block, 200_000_000)
    down = session.server.send_what_fits(block, 200_000_000)
    assert 100_000 < up < 100_000_000 and 100_000 < down < 100_000_000, (up, down)
    session.client.paused = session.server.paused = False
    assert session.server.take(up) == (block * (up // len(block) + 1))[:up]
    assert session.client.take(down) == (block * (down // len(block) + 1))[:down]
    session.client.half_close()
    session.server.expect_end()
    session.server.close()
    close = session.warp.wait_for("close")
    assert close["client_in"] == close["server_out"] > up and close["client_out"] > close["server_in"] > down


@pytest.mark.parametrize("first", ["client", "upstream"])
def test_70_half_close(tunnel, first):
    """The end of one side is passed on, and the other may go on speaking."""
    session = tunnel()
    one, other = (session.client, session.server) if first == "client" else (session.server, session.client)
    one.send_raw(b"last words")
    one.half_close()
    assert other.take(10) == b"last words"
    with pytest.raises(peers.Ended):
        other.take(1)
    other.send_raw(b"and more" * 1000)
    assert one.take(8000) == b"and more" * 1000
    other.close()
    one.expect_end()
    close = session.warp.wait_for("close")
    assert (close["by"], close["reason"]) == (first, "connection closed")


@pytest.mark.parametrize("first", ["client", "upstream"])
def test_reset(tunnel, first):
    session = tunnel()
    one, other = (session.client, session.server) if first == "client" else (session.server, session.client)
    one.reset()
    other.expect_end()
    assert session.warp.wait_for("close")["reason"] == "connection reset"


@pytest.mark.parametrize("first", ["client", "upstream"])
def test_side_that_has_closed_both_ways(tunnel, first):
    """Its kernel resets what it is sent: the other side learns that at once, not when it speaks again."""
    session = tunnel()
    one, other = (session.client, session.server) if first == "client" else (session.server, session.client)
    one.half_close()
    with pytest.raises(peers.Ended):
        other.take(1)
    one.close()
    other.send_raw(b"for nobody")
    other.expect_end()
    close = session.warp.wait_for("close")
    assert (close["by"], close["reason"]) == (first, "connection reset")


@pytest.mark.parametrize("options, reason", [
    (["--idle-timeout", 1, "--dot-timeout", 1.2], "silence inside of TLS"),
    (["--session-timeout", 1.5], "session too long")])
def test_timeouts(tunnel, options, reason):
    """Without a word to either side: it would stand in the middle of their TLS."""
    session = tunnel(*options)
    session.client.expect_end()
    session.server.expect_end()
    assert session.warp.wait_for("close")["reason"] == reason


@pytest.mark.parametrize("side", ["client", "upstream"])
def test_side_that_does_not_read(tunnel, side):
    session = tunnel("--block-timeout", 0.3)
    stuck, other = (session.client, session.server) if side == "client" else (session.server, session.client)
    stuck.paused = True
    other.send_what_fits(b"x" * 65536, 200_000_000)
    close = session.warp.wait_for("close")
    assert close["by"] == "smtpwarp" and "take" in close["reason"]


@pytest.mark.parametrize("patience", [0.3, 60])
def test_termination(tunnel, patience):
    """What is under way is not known, so it may go on for --drain-timeout, or until the second signal."""
    session = tunnel("--drain-timeout", patience)
    process = session.warp.processes[-1]
    process.terminate()
    session.client.send_raw(b"still")
    assert session.server.take(5) == b"still"
    if patience > 1:
        session.client.silent()
        process.terminate()
    session.client.expect_end()
    session.server.expect_end()
    assert session.warp.wait_for("close")["reason"] == "shutting down"


def test_upstream_lost_before_220(passing):
    session = passing()
    session.client.send("STARTTLS")
    session.server.expect_line("STARTTLS")
    session.server.close()
    session.client.expect("421 4.4.2")


def test_upstream_that_does_not_answer(passing):
    session = passing("--command-timeout", 1)
    session.client.send("STARTTLS")
    session.client.expect("421 4.4.2")


# Mail servers

@pytest.mark.skipif(bool(netns.unsupported()), reason=netns.unsupported())
@pytest.mark.skipif(not mta.PACKAGES.exists(), reason="test/fetch-packages has not been run")
@pytest.mark.parametrize("client_class, server_class", [(mta.Postfix, mta.Postfix), (mta.Exim, mta.Postfix),
                                                        (mta.Postfix, mta.Exim), (mta.Postfix, mta.OpenSMTPD)])
def test_mail_servers(client_class, server_class):
    """Redirected by the kernel, with the certificate verified by the client."""
    with netns.pair() as (client_host, mail_host), server_class(mail_host, certificate=True) as server, \
            client_class(client_host, relay=mail_host.ip4, trust=server.ca) as sender:
        client_host.nft("table inet smtpwarp { chain output { type nat hook output priority -100;"
                        " meta skuid != nobody tcp dport 25 redirect to :2525; }; }")
        with client_host:
            warp = Warp(client_host, sender.folder("smtpwarp", "nobody"), "--transparent", "--user", "nobody", *PASS)
            warp.listen("*:2525")
        mails = [mta.Mail("a@client.test", [f"b{n}@mail.test"], b"Subject: hi\r\n\r\n" + b"x\r\n" * size)
                 for n, size in enumerate((1, 1000, 100_000))]
        try:
            sender.submit(mails)
            sender.release()
            server.wait_stored(3)
            sender.wait_idle()
        finally:
            warp.close()
        arrived = sorted(one.identity() for one in server.stored())
        assert arrived == sorted(mta.expected(mails).elements())
        assert {record["result"] for record in warp.records("tls")} == {"passthrough"}
        assert warp.records("message") == [] and warp.records("error") == []
