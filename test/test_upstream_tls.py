"""TLS towards the upstream, by policy: PROTOCOL 50, 51, 56-60, 64, and smtps:// (65)."""
import contextlib
import re
import socket
import ssl
import struct
import subprocess

import pytest

import certificates
import peers
from hooks import Hooks
from test_identity_real import Postfix

TLS = ssl.TLSVersion
pytestmark = pytest.mark.filterwarnings("ignore:ssl.TLSVersion:DeprecationWarning")


def talk(client, server):
    """A message through a MailServer; the replies up to the first that is no success."""
    client.expect("220")
    replies = []
    for lines in (["EHLO client.example"], ["MAIL FROM:<a@b.example>"], ["RCPT TO:<c@d.example>"], ["DATA"],
                  ["Subject: hello", "", "..", "."]):
        client.send(*lines)
        replies.append(client.reply())
        if replies[-1].code >= 400:
            return replies
    assert len(server.messages) == 1
    return replies


def start(warp, certs, server, *options):
    return warp("--tls-ca", certs.ca, "--tls-name", certificates.HOST, *options, upstream=server)


def asked_for_tls(session):
    """The client has said EHLO, the upstream offers STARTTLS, smtpwarp asks for it."""
    session.banner()
    session.client.send("EHLO client.example")
    session.server.expect_line("EHLO client.example")
    session.server.send("250-server.example", "250 STARTTLS")
    session.server.expect_line("STARTTLS")


def greet_again(proxy):
    """The fresh connection of a fallback; it offers STARTTLS again, which must not be tried again."""
    second = proxy.upstream.accept()
    second.send("220 server.example once more")
    second.expect_line("EHLO client.example")
    second.send("250-server.example", "250 STARTTLS")
    return second


def refused(client, server=None):
    """EHLO was answered with 451 4.7.5, and 421 follows."""
    client.expect("451 4.7.5")
    client.send("MAIL FROM:<a@b.example>")
    client.expect("421")
    client.expect_end()
    assert not server or server.messages == []


# 60: certificates by policy

ODD_KEYS = ["p521", "rsa1024", "rsa8192", "ed25519"]
BAD = ["expired", "not-yet", "self-signed", "wrong-name"]
GOOD = ["good", "rsa", "wildcard", "p384"]
VERIFYING = ["verify", "verify-if-offered"]


@pytest.mark.parametrize("kind", GOOD + BAD)
@pytest.mark.parametrize("level", ["may", "encrypt"])
def test_60_opportunistic_tls_takes_any_certificate(warp, certs, mail_server, kind, level):
    server = mail_server("PIPELINING", tls=certs.context(kind))
    proxy = start(warp, certs, server, "--tls", level)
    talk(proxy.connect(), server)
    assert server.messages[0]["tls"] and len(server.peers) == 1
    record = proxy.wait_for("tls")
    assert (record["side"], record["result"], record["verified"]) == ("upstream", "ok", kind in GOOD)
    assert record["level"] == level and record["version"] and record["cipher"] and record["tls_ms"] >= 0
    assert bool(record["reason"]) == (kind in BAD), "the log says why it would not verify"
    assert proxy.wait_for("message")["server"]["tls"]["version"] == record["version"]


@pytest.mark.parametrize("kind", ODD_KEYS)
@pytest.mark.parametrize("level", ["may", "encrypt", "verify"])
def test_60_odd_keys(warp, certs, mail_server, kind, level):
    """With TLS if BearSSL can; if not, `may` delivers in the clear and the others do not."""
    server = mail_server(tls=certs.context(kind))
    proxy = start(warp, certs, server, "--tls", level)
    replies = talk(proxy.connect(), server)
    record = proxy.wait_for("tls")
    if level == "may" or replies[0].code == 250:
        assert len(server.messages) == 1 and (server.messages[0]["tls"] or level == "may")
    else:
        assert replies[0].startswith("451 4.7.5") and server.messages == []
    if not server.messages or not server.messages[0]["tls"]:
        assert record["result"] in ("failed", "fallback") and record["reason"]


@pytest.mark.parametrize("kind", GOOD)
@pytest.mark.parametrize("level", VERIFYING)
def test_60_verify_takes_good_certificates(warp, certs, mail_server, kind, level):
    server = mail_server(tls=certs.context(kind))
    proxy = start(warp, certs, server, "--tls", level)
    talk(proxy.connect(), server)
    assert server.messages[0]["tls"]
    assert proxy.wait_for("tls")["verified"] is True


@pytest.mark.parametrize("greeting", ["EHLO client.example", "HELO client.example"])
@pytest.mark.parametrize("kind", BAD)
@pytest.mark.parametrize("level", VERIFYING)
def test_60_verify_refuses_bad_certificates(warp, certs, mail_server, kind, greeting, level):
    """And the level that does without TLS does not do without it here."""
    server = mail_server(tls=certs.context(kind))
    proxy = start(warp, certs, server, "--tls", level)
    client = proxy.connect()
    client.expect("220")
    client.send(greeting)
    refused(client, server)
    record = proxy.wait_for("tls")
    assert record["result"] == "failed" and record["verified"] is False and record["reason"]
    assert not any(command.startswith("MAIL") for command in server.commands) and len(server.peers) == 1


@pytest.mark.parametrize("greeting", ["EHLO client.example", "HELO client.example"])
@pytest.mark.parametrize("helo_only", [True, False])
def test_60_verify_if_offered_without_an_offer(warp, certs, mail_server, greeting, helo_only):
    server = mail_server(helo_only=helo_only)
    client = start(warp, certs, server, "--tls", "verify-if-offered").connect()
    client.expect("220")
    if helo_only and greeting.startswith("EHLO"):
        client.send(greeting)
        client.reply()
        greeting = "HELO client.example"
    client.ask(greeting, "250")
    client.ask("MAIL FROM:<a@b.example>", "250")


def test_60_reasons_differ(warp, certs, mail_server):
    """Who reads the log can tell an expired certificate from a wrong name and an unknown authority."""
    reasons = []
    for kind in BAD[0], *BAD[2:]:
        server = mail_server(tls=certs.context(kind))
        proxy = start(warp, certs, server)
        talk(proxy.connect(), server)
        reasons.append(proxy.wait_for("tls")["reason"])
    assert len(set(reasons)) == 3, reasons


@pytest.mark.parametrize("ca", [True, False])
def test_60_verify_without_a_name_to_check_does_not_pass(warp, certs, mail_server, ca):
    """An address is no name: nothing may pass as verified."""
    server = mail_server(tls=certs.context())
    proxy = warp("--tls", "verify", *(["--tls-ca", certs.ca] if ca else []), upstream=server)
    proxy.exit_codes = (0, 78)
    client = proxy.connect()
    with contextlib.suppress(peers.Ended, AssertionError):     # it does not start, or says 421 instead of 220
        talk(client, server)
    assert server.messages == []
    proxy.wait_exit()
    assert proxy.records("error") or proxy.error_path.read_text()


# 60: what does not pass for verified: the log says so at every level, and the levels that verify refuse it

WEAK = {
    "sha1": "certificate's key or algorithm is not supported",
    "sha1-chained": "certificate's key or algorithm is not supported",
    "rsa1024": "certificate's key is too weak",
    "rsa1024-chained": "certificate's key is too weak",
    "rsa1024-rooted": "certificate's key is too weak",
    "clients": "certificate is not meant for this use",
    "clients-chained": "certificate is not meant for this use",
    "clients-rooted": "certificate is not meant for this use",
    "any-purpose": "certificate is not meant for this use",
    "rsa-encipherment": "certificate is not meant for this use",
    "cn-only": "certificate is for another name",
    "cn-and-other-names": "certificate is for another name",
    "constrained": "a CA of the chain may vouch for certain names only (name constraints), which is not checked",
    "constrained-critical": "a CA of the chain may vouch for certain names only (name constraints), which is not checked",
    "constrained-rooted": "a CA of the chain may vouch for certain names only (name constraints), which is not checked",
    "incomplete": "certificate is not signed by a trusted CA",
    "only-foreigners": "certificate is not signed by a trusted CA",
}
STRONG = ["servers", "servers-chained", "rsa-signing", "in-order", "reversed", "with-foreigners", "twice", "wrong-twin-first"]


def trusting(warp, certs, server, level):
    return warp("--tls-ca", certs.trusted, "--tls-name", certificates.HOST, "--tls", level, upstream=server)


@pytest.mark.parametrize("kind", WEAK)
@pytest.mark.parametrize("level", VERIFYING)
def test_60_verify_refuses_what_is_weak(warp, certs, mail_server, kind, level):
    """SHA-1, RSA of 1024 bits, a certificate (or its CA's) for clients, without alternative names, or under a CA that may vouch for
    certain names only. The mail waits."""
    server = mail_server(tls=certs.context(kind))
    proxy = trusting(warp, certs, server, level)
    client = proxy.connect()
    client.expect("220")
    client.send("EHLO client.example")
    refused(client, server)
    record = proxy.wait_for("tls")
    assert (record["result"], record["reason"]) == ("failed", WEAK[kind])


@pytest.mark.parametrize("kind", WEAK)
def test_60_log_says_what_verify_would_do(warp, certs, mail_server, kind):
    server = mail_server(tls=certs.context(kind))
    proxy = trusting(warp, certs, server, "may")
    talk(proxy.connect(), server)
    record = proxy.wait_for("tls")
    assert (record["result"], record["verified"], record["reason"]) == ("ok", False, WEAK[kind])


@pytest.mark.parametrize("kind", STRONG)
@pytest.mark.parametrize("level", ["may", "verify"])
def test_60_what_passes(warp, certs, mail_server, kind, level):
    """Whatever the order of the chain, and whatever else is in it."""
    server = mail_server(tls=certs.context(kind))
    proxy = trusting(warp, certs, server, level)
    talk(proxy.connect(), server)
    record = proxy.wait_for("tls")
    assert (record["result"], record["verified"], record["reason"]) == ("ok", True, None)


OLD_SUITES = ["ECDHE-RSA-AES128-SHA", "ECDHE-RSA-AES128-SHA256", "AES128-GCM-SHA256", "AES256-SHA256"]
NEW_SUITES = ["ECDHE-RSA-AES128-GCM-SHA256", "ECDHE-RSA-AES256-GCM-SHA384", "ECDHE-RSA-CHACHA20-POLY1305"]


@pytest.mark.parametrize("suite", OLD_SUITES + NEW_SUITES)
@pytest.mark.parametrize("level", ["may", "encrypt", *VERIFYING])
def test_60_verify_wants_ecdhe_and_aead(warp, certs, mail_server, suite, level):
    context = certs.context("rsa", maximum=TLS.TLSv1_2)
    context.set_ciphers(f"{suite}:@SECLEVEL=0")
    server = mail_server(tls=context)
    proxy = trusting(warp, certs, server, level)
    replies = talk(proxy.connect(), server)
    record = proxy.wait_for("tls")
    if suite in OLD_SUITES and level in VERIFYING:
        assert replies[-1].startswith("451 4.7.5") and record["result"] == "failed"
        return
    assert record["result"] == "ok" and record["verified"] == (suite in NEW_SUITES)
    assert record["reason"] == (None if record["verified"] else "TLS version or cipher suite is too weak")


def extension(hello, wanted):
    """What a ClientHello says in this extension, RFC 5246 7.4.1.2."""
    at = 4 + 2 + 32                                         # head, version, random
    at += 1 + hello[at]                                     # session
    at += 2 + int.from_bytes(hello[at:at + 2], "big")       # cipher suites
    at += 1 + hello[at] + 2                                 # compression, size of the extensions
    while at < len(hello):
        kind, size = struct.unpack_from(">HH", hello, at)
        if kind == wanted:
            return hello[at + 4:at + 4 + size]
        at += 4 + size
    return None


@pytest.mark.parametrize("level", VERIFYING)
def test_60_verify_wants_no_sha1_in_the_handshake(warp, certs, mail_server, level):
    """Nor is it offered: a server that knows nothing else fails."""
    from_client = []
    server = mail_server(tls=certs.context("rsa", maximum=TLS.TLSv1_2))
    server.tls._msg_callback = lambda _conn, _direction, _version, _type, _message, data: from_client.append(data)  # pylint: disable=protected-access
    talk(trusting(warp, certs, server, level).connect(), server)
    hello = next(data for data in from_client if data[:1] == b"\1")
    algorithms = extension(hello, 13)[2:]                   # signature_algorithms: a hash and a signature each
    assert set(algorithms[::2]) == {4, 5, 6}


def test_60_broken_certificate_does_not_hide_those_behind_it(warp, certs, mail_server, tmp_path):
    """It is skipped, with a warning: one that is cut, one that is no base64, one without an end."""
    good = certs.ca.read_text()
    lines = certs.authority("foreign").read_text().splitlines()
    broken = ["\n".join([lines[0], *lines[1:-3], lines[-1]]), "\n".join([lines[0], "!", *lines[1:]]), "\n".join(lines[:-1])]
    bundle = tmp_path / "bundle.pem"
    bundle.write_text("\n".join([*broken, good]))
    server = mail_server(tls=certs.context())
    proxy = warp("--tls-ca", bundle, "--tls-name", certificates.HOST, "--tls", "verify", upstream=server)
    talk(proxy.connect(), server)
    assert proxy.wait_for("tls")["verified"] is True
    assert proxy.records("error")[0]["error"] == f"warning: --tls-ca {bundle}: malformed certificates in it, which are skipped: 3"
    bundle.write_text("\n".join(broken))
    proxy.exit_codes = (0, 78)
    assert proxy.spawn("--check").wait() == 78
    assert "no certificate in it" in proxy.error_path.read_text()


def test_60_name_of_the_upstream_option(warp, certs, mail_server):
    server = mail_server(tls=certs.context("localhost"))
    proxy = warp("--upstream", f"localhost:{server.port}", "--tls", "verify", "--tls-ca", certs.ca)
    talk(proxy.connect(), server)
    assert proxy.wait_for("tls")["name"] == "localhost"


@pytest.mark.parametrize("name", [certificates.HOST, None])
def test_60_sni(warp, certs, mail_server, name):
    asked = []
    context = certs.context()
    context.sni_callback = lambda sock, server_name, _: asked.append(server_name)
    server = mail_server(tls=context)
    proxy = warp(*(["--tls-name", name] if name else []), upstream=server)
    talk(proxy.connect(), server)
    assert asked == [name]


@pytest.mark.parametrize("how", ["--tls-name", "--upstream", "route", "route's server", "verdict", "verdict's server"])
def test_91_last_dot_is_no_part_of_the_name(warp, certs, mail_server, tmp_path, how):
    """It ends a name for the DNS. SNI has none (RFC 6066 3), nor has a certificate: with it, the mail would be deferred for ever."""
    asked = []
    context = certs.context("localhost")
    context.sni_callback = lambda sock, server_name, _: asked.append(server_name)
    server = mail_server(tls=context)
    routes, hooks = tmp_path / "routes", Hooks(tmp_path / "hooks")
    options = {"--tls-name": ["--tls-name", "localhost.", "--upstream", server.url],
               "--upstream": ["--upstream", f"localhost.:{server.port}"]}.get(how, ["--tls-name", "other.example", "--upstream", "127.0.0.1:1"])
    if how.startswith("route"):
        routes.write_text(f"*;{server.url};verify localhost.\n" if how == "route" else f"*;localhost.:{server.port};verify\n")
        options += ["--routes", routes]
    elif how.startswith("verdict"):
        hooks.script("rcpt", f"echo upstream {server.url}; echo tls verify localhost." if how == "verdict" else
                     f"echo upstream localhost.:{server.port}; echo tls verify localhost.")
        options += ["--connect-on", "recipient", *hooks.options]
    proxy = warp("--tls", "verify", "--tls-ca", certs.ca, "--allow-clients", "127.0.0.1", *options)
    talk(proxy.connect(), server)
    record = proxy.wait_for("tls")
    assert record["verified"] is True and record["name"] == "localhost" and asked == ["localhost"]


# 64: versions

@pytest.mark.parametrize("version", [TLS.TLSv1, TLS.TLSv1_1, TLS.TLSv1_3], ids=str)
@pytest.mark.parametrize("level", ["may", "encrypt", "verify"])
def test_64_old_and_new_versions(warp, certs, mail_server, version, level):
    """1.0 and 1.1 only under `may`; 1.3 alone is beyond BearSSL. `may` delivers in any case."""
    server = mail_server(tls=certs.context("rsa", version, version))
    proxy = start(warp, certs, server, "--tls", level)
    replies = talk(proxy.connect(), server)
    if level == "may":
        assert len(server.messages) == 1
        assert version != TLS.TLSv1_3 or len(server.peers) == 2
    elif version != TLS.TLSv1_3 or not server.messages:
        assert replies[-1].startswith("451 4.7.5") and server.messages == []


def test_64_tls_1_2_is_chosen(warp, certs, mail_server):
    server = mail_server(tls=certs.context("good", TLS.TLSv1))
    proxy = start(warp, certs, server)
    talk(proxy.connect(), server)
    record = proxy.wait_for("tls")
    assert "1.2" in record["version"] and re.search("GCM|POLY1305", record["cipher"].upper()), record


# 56: injection

@pytest.mark.parametrize("level", ["may", "verify-if-offered", "encrypt", "verify"])
@pytest.mark.parametrize("injected", [b"250-evil.example\r\n250 AUTH PLAIN\r\n", b"x", b"250 2.1.0 ok\r\n", b"\r\n"])
def test_56_plaintext_behind_220_ends_the_session(warp, certs, level, injected):
    """An attack is answered neither by going on nor by falling back to plain text."""
    proxy = warp("--tls", level, "--tls-ca", certs.ca, "--tls-name", certificates.HOST)
    session = proxy.session()
    asked_for_tls(session)
    session.server.send_raw(b"220 go ahead\r\n" + injected)
    replies = session.client.rest()
    assert replies == b"" or replies[:1] == b"4", replies
    assert b"evil" not in replies
    proxy.upstream.nobody()
    assert proxy.wait_for("error")["error"]


def test_56_client_cannot_inject_either(session):
    """STARTTLS is not offered to the client in this mode; what follows it is an ordinary command."""
    session.greet()
    session.client.send("STARTTLS", "NOOP")
    session.client.expect("502 5.5.1")
    session.server.expect_line("NOOP")


# 57: after the handshake

def test_57_what_was_said_before_tls_is_forgotten(warp, certs):
    proxy = warp()
    session = proxy.session()
    asked_for_tls(session)
    session.server.send("220 go ahead")
    session.server.start_tls(certs.context())
    session.server.expect_line("EHLO client.example")
    session.server.send("250-server.example", "250-AUTH PLAIN", "250-STARTTLS", "250 LIMITS RCPTMAX=9")
    texts = session.client.expect("250").texts
    assert {"AUTH PLAIN", "LIMITS RCPTMAX=9"} <= set(texts) and "STARTTLS" not in texts
    session.transaction()
    session.quit()


def test_57_second_ehlo_of_the_client_does_not_start_tls_again(warp, certs, mail_server):
    """59 as well: no STARTTLS inside TLS, though the upstream offers it there."""
    server = mail_server("STARTTLS", "DSN", tls=certs.context())
    client = start(warp, certs, server).connect()
    client.expect("220")
    for _ in range(2):
        reply = client.ask("EHLO client.example", "250")
        assert "DSN" in reply.texts and "STARTTLS" not in reply.texts
    client.ask("QUIT", "221")
    assert [command.split()[0] for command in server.commands] == ["EHLO", "STARTTLS", "EHLO", "EHLO", "QUIT"]


@pytest.mark.parametrize("level", ["may", "encrypt"])
def test_57_helo_client_is_protected_too(warp, certs, mail_server, level):
    server = mail_server("DSN", tls=certs.context())
    client = start(warp, certs, server, "--tls", level).connect()
    client.expect("220")
    client.send("HELO client.example")
    assert client.reply() == "250 server.example"
    client.ask("MAIL FROM:<a@b.example>")
    client.ask("RCPT TO:<c@d.example>")
    client.ask("DATA", "354")
    client.send(".")
    client.expect("250")
    assert server.messages[0]["tls"]


@pytest.mark.parametrize("reply", ["550 5.7.1 not here", "421 4.3.2 going down", "451 4.3.0 later"])
def test_57_second_ehlo_refused(warp, certs, reply):
    session = warp().session()
    asked_for_tls(session)
    session.server.send("220 go ahead")
    session.server.start_tls(certs.context())
    session.server.expect_line("EHLO client.example")
    session.server.send(reply)
    if reply.startswith("5"):
        session.server.expect_line("HELO client.example")
        session.server.send("550 5.7.1 not so either")
    assert session.client.reply().code >= 400


def test_57_pipelined_commands_wait_for_tls(warp, certs, mail_server):
    server = mail_server("PIPELINING", tls=certs.context())
    client = start(warp, certs, server).connect()
    client.expect("220")
    client.send("EHLO client.example", "MAIL FROM:<a@b.example>", "RCPT TO:<c@d.example>", "DATA")
    assert [client.reply().code for _ in range(4)] == [250, 250, 250, 354]
    assert server.commands.index("STARTTLS") < server.commands.index("MAIL FROM:<a@b.example>")


# 58: when TLS fails

@pytest.mark.parametrize("reply", ["454 4.7.0 not now", "501 5.5.4 no", "500 5.5.1 what?", "554 5.7.1 no",
                                   "250 2.0.0 hm", "454-4.7.0 not\n454 4.7.0 now"])
def test_58_starttls_refused_under_may(warp, certs, mail_server, reply):
    """Warp hangs after 454."""
    server = mail_server(tls=certs.context(), replies={"STARTTLS": reply})
    proxy = start(warp, certs, server)
    talk(proxy.connect(), server)
    assert not server.messages[0]["tls"]
    record = proxy.wait_for("tls")
    assert record["result"] in ("failed", "fallback") and record["reason"]


@pytest.mark.parametrize("level", ["encrypt", *VERIFYING])
@pytest.mark.parametrize("reply", ["454 4.7.0 not now", "501 5.5.4 no", "554 5.7.1 no", "250 2.0.0 hm"])
def test_58_starttls_refused_when_required(warp, certs, mail_server, reply, level):
    server = mail_server(tls=certs.context(), replies={"STARTTLS": reply})
    client = start(warp, certs, server, "--tls", level).connect()
    client.expect("220")
    client.send("EHLO client.example")
    refused(client, server)


@pytest.mark.parametrize("level", ["encrypt", "verify"])
@pytest.mark.parametrize("greeting", ["EHLO client.example", "HELO client.example"])
@pytest.mark.parametrize("helo_only", [True, False])
def test_58_starttls_not_offered_when_required(warp, certs, mail_server, level, greeting, helo_only):
    server = mail_server("PIPELINING", helo_only=helo_only)
    client = start(warp, certs, server, "--tls", level).connect()
    client.expect("220")
    client.send(greeting)
    refused(client, server)


@pytest.mark.parametrize("level", ["encrypt", *VERIFYING])
@pytest.mark.parametrize("verb", ["EHLO", "HELO", "LHLO"])
@pytest.mark.parametrize("reply", [["251 hi"], ["220 server.example"], ["251-server.example", "251 STARTTLS"]])
def test_58_list_under_another_code_when_required(warp, certs, level, verb, reply):
    """RFC 5321 4.3.2: success is 250 alone. Who could change that in passing would have the mail in plain."""
    proxy = warp("--tls", level, "--tls-ca", certs.ca, "--tls-name", certificates.HOST)
    if verb == "LHLO":
        proxy.options += ["--upstream", f"lmtp://{proxy.upstream.name_port}"]
    session = proxy.session()
    session.banner()
    session.client.send(f"{verb} client.example")
    session.server.expect_line("EHLO client.example" if verb != "LHLO" else "LHLO client.example")
    session.server.send(*reply)
    session.client.expect("421 4.5.0")
    session.client.expect_end()
    assert session.server.farewell() == b""


def test_58_421_to_starttls(warp):
    session = warp().session()
    asked_for_tls(session)
    session.server.send("421 4.3.2 going down")
    session.server.close()
    session.client.expect("421")
    session.client.expect_end()


def fail_garbage(server, _):
    server.send("220 go ahead")
    server.take(5)
    server.send("500 this is no TLS", "500 at all")


def fail_alert(server, _):
    server.send("220 go ahead")
    server.take(5)
    server.send_raw(b"\x15\x03\x03\x00\x02\x02\x28")    # fatal, handshake_failure
    server.close()


def fail_close(server, _):
    server.send("220 go ahead")
    server.take(5)
    server.close()


def fail_reset(server, _):
    server.send("220 go ahead")
    server.take(5)
    server.reset()


def fail_silence(server, _):
    server.send("220 go ahead")


def fail_trickle(server, _):
    """The header of a record, and no more."""
    server.send("220 go ahead")
    server.take(5)
    server.send_raw(b"\x16\x03\x03\x40\x00\x02\x00")


def fail_no_cipher(server, certs):
    context = certs.context()
    context.set_ciphers("AES256-CCM8:PSK-AES256-CCM8@SECLEVEL=0")
    context.maximum_version = TLS.TLSv1_2
    server.send("220 go ahead")
    with contextlib.suppress(OSError):
        server.start_tls(context)
    server.close()


FAILURES = [fail_garbage, fail_alert, fail_close, fail_reset, fail_silence, fail_trickle, fail_no_cipher]


@pytest.mark.parametrize("fail", FAILURES)
def test_58_failed_handshake_under_may_falls_back_once(warp, certs, fail):
    """On a fresh connection, for the old one is spent; its banner is not shown to the client again."""
    proxy = warp("--tls-timeout", 0.4)
    session = proxy.session()
    asked_for_tls(session)
    fail(session.server, certs)
    session.server = greet_again(proxy)
    session.client.expect("250")
    session.transaction()
    session.quit()
    record = proxy.wait_for("tls")
    assert record["result"] in ("failed", "fallback") and record["reason"]
    assert proxy.wait_for("message")["server"]["tls"] is None
    proxy.upstream.nobody(0.02)


@pytest.mark.parametrize("fail", FAILURES)
@pytest.mark.parametrize("level", ["encrypt", *VERIFYING])
def test_58_failed_handshake_when_required(warp, certs, fail, level):
    proxy = warp("--tls-timeout", 0.4, "--tls", level, "--tls-ca", certs.ca, "--tls-name", certificates.HOST)
    session = proxy.session()
    asked_for_tls(session)
    fail(session.server, certs)
    refused(session.client)
    assert proxy.wait_for("tls")["reason"]
    proxy.upstream.nobody(0.02)


@pytest.mark.parametrize("second", ["refused", "554", "silence"])
def test_58_fallback_connection_fails_too(warp, second):
    proxy = warp("--connect-timeout", 1, "--banner-timeout", 1)
    session = proxy.session()
    asked_for_tls(session)
    session.server.send("220 go ahead")
    session.server.take(5)
    if second == "refused":
        proxy.upstream.close()
    session.server.close()
    if second != "refused":
        again = proxy.upstream.accept()
        if second == "554":
            again.send("554 5.7.1 enough of you")
    assert session.client.reply().code >= 400
    proxy.wait_for("tls")


def test_58_client_leaves_in_the_handshake(warp):
    proxy = warp()
    session = proxy.session()
    asked_for_tls(session)
    session.server.send("220 go ahead")
    session.server.take(5)
    session.client.reset()
    session.server.rest()
    assert proxy.wait_for("close")["by"] == "client"


def test_59_starttls_has_no_parameter(warp):
    """Whatever the upstream's keyword looks like."""
    session = warp().session()
    session.banner()
    session.client.send("EHLO client.example")
    session.server.line()
    session.server.send("250-server.example", "250 STARTTLS REQUIRED")
    session.server.expect_line("STARTTLS")


def test_59_none_means_none(warp, certs, mail_server):
    server = mail_server(tls=certs.context())
    proxy = start(warp, certs, server, "--tls", "none")
    talk(proxy.connect(), server)
    assert "STARTTLS" not in server.commands and not server.messages[0]["tls"]


# Data inside TLS

BODY = b"".join(b"x" * (number % 301) + b"\r\n..\xff\0\r\n" for number in range(20000)) + b".\r\n"


@pytest.mark.parametrize("version", [TLS.TLSv1, TLS.TLSv1_2], ids=str)
def test_64_big_message_byte_for_byte(warp, certs, version):
    session = warp().session()
    asked_for_tls(session)
    session.server.send("220 go ahead")
    session.server.start_tls(certs.context("rsa", version, version))
    session.server.expect_line("EHLO client.example")
    session.server.send("250 server.example")
    session.client.expect("250")
    assert session.transaction(BODY) == BODY
    session.quit()


@pytest.mark.parametrize("phase", ["mail", "data", "dot"])
@pytest.mark.parametrize("how", ["close", "reset", "garbage"])
def test_64_tls_connection_lost(warp, certs, phase, how):
    """A missing close_notify is a lost connection, unless all was said; a broken record is one as well."""
    proxy = warp()
    session = proxy.session()
    asked_for_tls(session)
    session.server.send("220 go ahead")
    plain = session.server.sock.dup()
    session.server.start_tls(certs.context())
    session.server.expect_line("EHLO client.example")
    session.server.send("250 server.example")
    session.client.expect("250")
    session.mail()
    if phase != "mail":
        session.rcpt()
        session.data()
        session.body()
    if phase == "dot":
        session.dot()
    with plain:
        if how == "garbage":
            plain.send(b"\x17\x03\x03\x00\x20" + b"g" * 32)
        else:
            plain.close()
            getattr(session.server, how)()
        if phase == "data":
            proxy.wait_for("error")     # so that the end of data finds the connection lost
            session.client.send_raw(b"\r\n.\r\n")
        if phase == "dot":
            session.client.expect_end()
            assert proxy.wait_for("message")["result"] == "unknown"
        else:
            if phase == "mail":
                with contextlib.suppress(OSError):
                    session.client.send("NOOP")
            session.client.expect("451 4.4.2" if phase == "data" else "421")


def leave(peer, plain, close_notify, *lines):
    """Lines, perhaps close_notify, and FIN, all in one segment. plain: the connection without its TLS, where what comes is left."""
    peer.paused = True
    plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_CORK, 1)
    peer.send(*lines)
    if close_notify:
        with contextlib.suppress(OSError):      # it would wait for the answer
            peer.sock.unwrap()
    plain.shutdown(socket.SHUT_WR)


def records_on(plain):
    """The types of the TLS records that come until the end."""
    plain.settimeout(peers.TIMEOUT)
    octets, types = b"".join(iter(lambda: plain.recv(4096), b"")), []
    while octets:
        types.append(octets[0])
        octets = octets[5 + int.from_bytes(octets[3:5], "big"):]
    return types


@pytest.mark.parametrize("close_notify", [True, False])
def test_nothing_follows_the_servers_fin(warp, certs, close_notify):
    """A server that has closed would answer close_notify with a reset, and firewalls would remember that."""
    session = warp().session()
    asked_for_tls(session)
    session.server.send("220 go ahead")
    with session.server.sock.dup() as plain:
        session.server.start_tls(certs.context())
        session.server.expect_line("EHLO client.example")
        session.server.send("250 server.example")
        session.client.expect("250")
        session.client.send("QUIT")
        session.server.expect_line("QUIT")
        leave(session.server, plain, close_notify, "221 2.0.0 bye")
        session.client.expect("221")
        session.client.expect_end()
        assert records_on(plain) == []


def test_no_close_notify_follows_the_clients_fin(warp, certs, secure):
    """Replies do: RFC 5321 4.1.1.10."""
    session = warp(*certs.options(), "--tls", "none").session()
    session.banner()
    with session.client.sock.dup() as plain:
        secure(session.client)
        leave(session.client, plain, False, "QUIT")
        session.server.expect_line("QUIT")
        session.server.send("221 2.0.0 bye")
        session.server.close()
        assert records_on(plain) == [23]        # application data: 221


def test_64_upstream_trickles_tls_records(warp, certs):
    """A record cut into bytes is a record."""
    session = warp().session()
    asked_for_tls(session)
    server = session.server
    server.send("220 go ahead")
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    tls = certs.context().wrap_bio(incoming, outgoing, server_side=True)

    def step(action):
        while True:
            try:
                result = action()
                server.send_parts(*[bytes([byte]) for byte in outgoing.read()])
                return result
            except ssl.SSLWantReadError:
                server.send_parts(*[bytes([byte]) for byte in outgoing.read()])
                server.wait(lambda: server.buffer, "TLS")
                incoming.write(server.take(len(server.buffer)))
    step(tls.do_handshake)
    assert step(lambda: tls.read(100)) == b"EHLO client.example\r\n"
    step(lambda: tls.write(b"250-server.example\r\n250 DSN\r\n"))
    assert "DSN" in session.client.expect("250").texts


# 65: TLS from the first byte

def test_65_smtps_upstream(warp, certs, mail_server):
    server = mail_server("DSN", "STARTTLS", tls=certs.context(), implicit=True)
    proxy = warp("--upstream", f"smtps://{server.name_port}", "--tls", "verify", "--tls-ca", certs.ca,
                 "--tls-name", certificates.HOST)
    talk(proxy.connect(), server)
    assert server.messages[0]["tls"] and "STARTTLS" not in server.commands
    assert proxy.wait_for("tls")["verified"] is True


@pytest.mark.parametrize("level", ["may", "encrypt"])
def test_65_smtps_never_falls_back_to_plain(warp, level):
    """A plain server where TLS was asked for by name."""
    proxy = warp("--tls", level, "--tls-timeout", 1)
    proxy.options += ["--upstream", f"smtps://{proxy.upstream.name_port}"]
    session = proxy.session()
    session.server.send("220 plain.example")
    session.client.expect("421", "451")
    session.client.close()
    assert b"EHLO" not in session.server.rest()
    proxy.upstream.nobody(0.02)


def test_65_smtp_upstream(warp, mail_server):
    server = mail_server()
    talk(warp("--upstream", f"smtp://{server.name_port}").connect(), server)


# 50: REQUIRETLS

@pytest.mark.parametrize("level, kind, offered", [("verify", "good", True), ("may", "good", True),
                                                  ("may", "expired", False), ("encrypt", "self-signed", False)])
def test_50_requiretls_needs_verified_tls(warp, certs, mail_server, secure, level, kind, offered):
    """With the server and with the client, RFC 8689 2: one without TLS neither hears of it nor may ask for it."""
    server = mail_server("REQUIRETLS", tls=certs.context(kind))
    client = start(warp, certs, server, "--tls", level, *certs.options()).connect()
    client.expect("220")
    assert "REQUIRETLS" not in client.ask("EHLO client.example", "250").texts
    client.ask("MAIL FROM:<a@b.example> REQUIRETLS", "530 5.7.30")
    client.ask("RSET", "250")
    secure(client)
    assert ("REQUIRETLS" in client.ask("EHLO client.example", "250").texts) == offered
    client.ask("MAIL FROM:<a@b.example> REQUIRETLS", "250" if offered else "530 5.7.30")
    assert any("MAIL" in command for command in server.commands) == offered


def test_50_requiretls_the_upstream_does_not_offer(warp, certs, mail_server, secure):
    server = mail_server(tls=certs.context())
    client = start(warp, certs, server, "--tls", "verify", *certs.options()).greeted()
    secure(client)
    client.ask("EHLO client.example", "250")
    client.ask("MAIL FROM:<a@b.example> REQUIRETLS", "530 5.7.30")


def test_51_limits_are_those_after_tls(warp, certs):
    session = warp().session()
    session.banner()
    session.client.send("EHLO client.example")
    session.server.line()
    session.server.send("250-server.example", "250-LIMITS RCPTMAX=1", "250-SIZE 10", "250 STARTTLS")
    session.server.expect_line("STARTTLS")
    session.server.send("220 go ahead")
    session.server.start_tls(certs.context())
    session.server.line()
    session.server.send("250-server.example", "250-LIMITS RCPTMAX=7 MAILMAX=2", "250 SIZE 4000")
    assert set(session.client.expect("250").texts[1:]) == {"LIMITS RCPTMAX=7 MAILMAX=2", "SIZE 4000", "PIPELINING"}


def test_57_failover_from_tls_to_plain_claims_no_tls(warp, certs):
    """What the record says of TLS is of the server that got the message."""
    proxy = warp("--tls-ca", certs.ca)
    second = proxy.listen_upstream("127.0.0.1", 2601)
    proxy.options += ["--upstream", f"smtps://{proxy.upstream.name_port}", "--upstream", "127.0.0.1:2601"]
    client = proxy.connect()
    first = proxy.upstream.accept()
    first.start_tls(certs.context("good"))
    first.send("554 not here")
    server = second.accept()
    server.send("220 second")
    client.expect("220")
    for command, reply in [("EHLO x", "250 second"), ("MAIL FROM:<a@b.example>", "250 ok"), ("QUIT", "221 bye")]:
        client.send(command)
        server.expect_line(command)
        server.send(reply)
        client.expect(reply[:3])
    assert proxy.wait_for("message")["server"]["tls"] is None


# Resumption: RFC 5246 F.1.4

def late(proxy, *recipients):
    """A session whose messages go to these, one after the other. Returns the tls records of its upstreams."""
    client = proxy.connect()
    client.expect("220")
    client.ask("EHLO client.example", "250")
    for recipient in recipients:
        client.ask("MAIL FROM:<a@b.example>", "250")
        client.send(f"RCPT TO:<{recipient}@d.example>")
        if client.reply().code == 250:
            client.ask("DATA", "354")
            client.send("Subject: hello", "", "hello", ".")
            client.expect("250")
        else:
            client.ask("RSET", "250")
    client.ask("QUIT", "221")
    client.close()
    proxy.wait_for("close")
    return proxy.records("tls", side="upstream")


@pytest.fixture
def routed(warp, certs, tmp_path):
    """routed(a=(server, level, name), ...): a smtpwarp that sends mail for each recipient to a server."""
    def make(**servers):
        routes = tmp_path / "routes"
        routes.write_text("".join(f"{who}@d.example;{server.url};{level} {name}\n" for who, (server, level, name) in servers.items()))
        return warp("--tls-ca", certs.ca, "--transparent", "--routes", routes)
    return make


def resumed(records):
    return [record.get("resumed", False) for record in records]


@pytest.mark.parametrize("implicit", [False, True])
@pytest.mark.parametrize("level, kind, verified", [("may", "good", True), ("may", "expired", False), ("encrypt", "self-signed", False),
                                                   ("verify", "rsa", True), ("verify", "chained", True)])
def test_64_session_is_resumed(routed, certs, mail_server, level, kind, verified, implicit):
    """With each of two servers in turn; what is known of them is what the first handshake has shown."""
    contexts = [certs.context(kind) for _ in range(2)]
    servers = [mail_server(tls=context, implicit=implicit, orderly=True) for context in contexts]
    for server in servers:
        server.url = f"smtps://{server.name_port}" if implicit else server.name_port
    proxy = routed(a=(servers[0], level, certificates.HOST), b=(servers[1], level, certificates.HOST))
    records = late(proxy, "a", "b", "a", "b", "a")
    assert resumed(records) == [False, False, True, True, True], [[context.session_stats()[word] for word in ("accept", "hits", "misses", "number")] for context in contexts]
    assert [context.session_stats()["hits"] for context in contexts] == [2, 1]
    assert {(record["verified"], record["reason"], record["cipher"]) for record in records} == {
        (verified, records[0]["reason"], records[0]["cipher"])}
    assert verified == (records[0]["reason"] is None)
    assert [len(server.messages) for server in servers] == [3, 2] and not proxy.records("error")
    assert all(message["tls"] for server in servers for message in server.messages)
    assert resumed(late(proxy, "a", "b")) == [False, False, True, True, True, False, False], "another session knows nothing of it"


def test_64_not_for_another_level_or_name(routed, certs, mail_server):
    """Nor at another address, though the server knows it: it is one context."""
    context = certs.context("wildcard")
    one, two = (mail_server(tls=context, orderly=True) for _ in range(2))
    proxy = routed(a=(one, "may", certificates.HOST), b=(one, "verify", certificates.HOST), c=(one, "may", "other.example"),
                   d=(two, "may", certificates.HOST))
    records = late(proxy, "a", "b", "c", "d", "b", "a")
    assert resumed(records) == [False, False, False, False, True, True]
    assert context.session_stats()["hits"] == 2


@pytest.mark.parametrize("kind, verified", [("good", True), ("rsa", True), ("expired", False)])
def test_64_server_that_forgets(routed, certs, mail_server, kind, verified):
    """It goes the full way, and is judged by what it shows now."""
    one, other = (mail_server(tls=certs.context("good"), orderly=True) for _ in range(2))
    other.replies["MAIL"] = lambda line: setattr(one, "tls", certs.context(kind)) or "250 2.1.0 fine"
    proxy = routed(a=(one, "may", certificates.HOST), b=(other, "may", certificates.HOST))
    records = late(proxy, "a", "b", "a")
    assert resumed(records) == [False, False, False]
    assert [record["verified"] for record in records] == [True, True, verified]


def test_64_verify_after_a_server_has_forgotten(routed, certs, mail_server):
    one, other = (mail_server(tls=certs.context("good"), orderly=True) for _ in range(2))
    other.replies["MAIL"] = lambda line: setattr(one, "tls", certs.context("expired")) or "250 2.1.0 fine"
    proxy = routed(a=(one, "verify", certificates.HOST), b=(other, "verify", certificates.HOST))
    assert [record["result"] for record in late(proxy, "a", "b", "a")] == ["ok", "ok", "failed"]
    assert len(one.messages) == 1


class Fickle:
    """An ssl.SSLContext that breaks one handshake off."""

    def __init__(self, context, broken):
        self.context, self.broken, self.count = context, broken, 0

    def wrap_socket(self, sock, **options):
        self.count += 1
        if self.count == self.broken:
            sock.recv(4096)
            sock.sendall(b"\x15\x03\x03\0\2\2\x28")     # a fatal alert: handshake_failure
            raise OSError("broken off")
        return self.context.wrap_socket(sock, **options)


@pytest.mark.parametrize("level", ["may", "verify"])
@pytest.mark.parametrize("implicit", [False, True])
def test_64_handshake_in_full_after_one_that_was_to_resume(routed, certs, mail_server, level, implicit):
    """A server that breaks it off is connected to again, and gets no mail in plain; after that nothing is resumed with it."""
    tls = Fickle(certs.context("good"), 2)
    one, other = mail_server(tls=tls, orderly=True, implicit=implicit), mail_server(tls=certs.context("good"), orderly=True)
    if implicit:
        one.url = f"smtps://{one.name_port}"
    proxy = routed(a=(one, level, certificates.HOST), b=(other, level, certificates.HOST))
    records = late(proxy, "a", "b", "a", "b", "a")
    assert resumed(records) == [False, False, False, True, True] and {record["result"] for record in records} == {"ok"}
    assert [message["tls"] for message in one.messages] == [True] * 3 and tls.count == 4
    error, = [record["error"] for record in proxy.records("error")]
    assert error.startswith("127.0.0.1: its TLS session could not be resumed: the peer found no common parameters")


@pytest.mark.parametrize("remembers", [True, False])
def test_64_postfix_resumes(host, routed, certs, mail_server, remembers):
    """It says so in its log, if it is told to remember sessions; without a cache it goes the full way."""
    lines = ["smtpd_tls_session_cache_database = btree:$data_directory/smtpd_scache"] if remembers else []
    with Postfix(host, "smtpd_tls_loglevel = 2", *lines, certificate=True) as server:
        server.url = "127.0.0.1:25"
        other = mail_server(tls=certs.context("good"), orderly=True)
        proxy = routed(a=(server, "encrypt", certificates.HOST), b=(other, "encrypt", certificates.HOST))
        records = late(proxy, "a", "b", "a", "b", "a")
        server.wait_stored(3)
        assert resumed(records) == ([False, False, True, True, True] if remembers else [False, False, False, True, False])
        assert ("eusing old session" in server.logfile.read_text()) == remembers
    assert not proxy.records("error")


def test_64_openssl_resumes(host, routed, certs, mail_server, tmp_path):
    """s_server, which has its part of SMTP said for it, calls the second connection reused."""
    cert, key = certs.pair("good")
    other = mail_server(tls=certs.context("good"), orderly=True)
    with open(tmp_path / "said", "wb") as said:
        process = host.popen(["openssl", "s_server", "-accept", "127.0.0.1:4650", "-cert", cert, "-key", key, "-tls1_2", "-crlf", "-naccept", "2"],
                             stdin=subprocess.PIPE, stdout=said, stderr=said)
    host.wait_listening(4650)
    process.url = "smtps://127.0.0.1:4650"
    proxy = routed(a=(process, "encrypt", certificates.HOST), b=(other, "encrypt", certificates.HOST))
    client = proxy.connect()
    client.expect("220")
    client.ask("EHLO client.example", "250")

    def told():
        return (tmp_path / "said").read_text(errors="replace")

    def plays(commands, seen):
        """The server's side of one connection up to a refused RCPT."""
        for command, reply in commands:
            proxy.wait_until(lambda c=command: told().count(c) > seen, f"{command}: {told()[-500:]}")
            process.stdin.write(f"{reply}\n".encode())
            process.stdin.flush()
    conversation = [("CIPHER is", "220 server.example"), ("EHLO client", "250 server.example"), ("MAIL FROM", "250 fine"),
                    ("RCPT TO", "550 5.1.1 nobody")]
    for count, recipient in enumerate(["a", "b", "a"]):
        client.ask("MAIL FROM:<a@b.example>", "250")
        client.send(f"RCPT TO:<{recipient}@d.example>")
        if recipient == "a":
            plays(conversation, count // 2)
        client.expect("550" if recipient == "a" else "250")
        client.send("RSET")
        if recipient == "a":
            plays([("RSET", "250 fine")], count // 2)
        client.expect("250")
    client.close()
    proxy.wait_for("close")
    process.kill()
    process.wait()
    assert resumed(proxy.records("tls")) == [False, False, True] and "Reused session-id" in told()
