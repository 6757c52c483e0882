"""Who the client is, from proxies before smtpwarp and to servers behind it: --accept-proxy, --send-proxy, --xclient,
--xforward, --received. DESIGN 8 "Client address onward"; PROTOCOL 54, 55, 72, 76. With real HAProxy, nginx and Postfix:
test_identity_real.py. The client's host name: test_client_names.py; here no name server can be reached."""
import datetime
import email.utils
import json
import re
import socket
import struct
import subprocess

import pytest

import certificates
import peers
from hooks import Hooks
from warp import BINARY, MESSAGE, Session

LATE = ["--connect-on", "recipient"]
SIGNATURE = b"\r\n\r\n\0\r\nQUIT\n"
V1 = b"PROXY TCP4 192.0.2.1 198.51.100.2 4711 25\r\n"
V1_SIX = b"PROXY TCP6 2001:db8::1 2001:db8::2 4711 25\r\n"
SERVER = ("PIPELINING", "CHUNKING", "8BITMIME")
GUARD = ["--valid-recipients", "."]     # else a server would be an open relay for clients that proxies name
ALL = "XCLIENT NAME ADDR PORT PROTO HELO REVERSE_NAME LOGIN DESTADDR DESTPORT FUTURE"
FORWARD = "XFORWARD NAME ADDR PORT PROTO HELO IDENT SOURCE FUTURE"


def v2(source="192.0.2.1", dest="198.51.100.2", command=1, tlvs=b"", ports=(4711, 25)):
    family = socket.AF_INET6 if ":" in source else socket.AF_INET
    body = socket.inet_pton(family, source) + socket.inet_pton(family, dest) + struct.pack(">HH", *ports) + tlvs
    return SIGNATURE + struct.pack(">BBH", 0x20 | command, 0x21 if ":" in source else 0x11, len(body)) + body


def tlv(kind, value):
    return struct.pack(">BH", kind, len(value)) + value


def ended(version=b"TLSv1.3", cipher=b"TLS_AES_128_GCM_SHA256", cn=b"", flags=1, verify=1, signature=b"", key=b""):
    """PP2_TYPE_SSL, of a proxy that has ended the client's TLS."""
    texts = ((0x21, version), (0x22, cn), (0x23, cipher), (0x24, signature), (0x25, key))
    return tlv(0x20, struct.pack(">BI", flags, verify) + b"".join(tlv(kind, text) for kind, text in texts if text))


def read_v2(peer):
    """(command, family, source, dest, source port, dest port, {TLV: value}) of the header that begins a connection."""
    assert peer.take(12) == SIGNATURE
    command, family, length = struct.unpack(">BBH", peer.take(4))
    body = peer.take(length)
    size = {0x11: 4, 0x21: 16, 0: 0}[family]
    if not size:
        assert not body
        return command, family
    kind = socket.AF_INET if size == 4 else socket.AF_INET6
    ends = [socket.inet_ntop(kind, body[at:at + size]) for at in (0, size)]
    rest, tlvs = body[2 * size + 4:], {}
    while rest:
        kind, length = struct.unpack(">BH", rest[:3])
        tlvs[kind], rest = rest[3:3 + length], rest[3 + length:]
    return command, family, *ends, *struct.unpack(">HH", body[2 * size:2 * size + 4]), tlvs


@pytest.fixture
def hooks(tmp_path):
    return Hooks(tmp_path / "hooks")


@pytest.fixture
def proxied(warp):
    """proxied(...): a smtpwarp behind proxies on loopback."""
    def make(*options, **settings):
        return warp("--accept-proxy", "127.0.0.0/8", "--accept-proxy", "::1", *GUARD, "--tls", "none", *options, **settings)
    return make


def begin(proxy, header):
    """A client whose connection a proxy passes on."""
    client = proxy.connect()
    client.send_raw(header)
    return client


def transaction(client, data=MESSAGE, params="", recipients=1):
    client.ask(f"MAIL FROM:<a@client.example>{params}", "250")
    for number in range(recipients):
        client.ask(f"RCPT TO:<b{number}@server.example>", "250")
    client.ask("DATA", "354")
    client.send_raw(data)
    client.expect("250")


# 55: a PROXY header before the session

@pytest.mark.parametrize("header, ip, port", [
    (V1, "192.0.2.1", 4711), (V1_SIX, "2001:db8::1", 4711), (v2(), "192.0.2.1", 4711),
    (v2("2001:db8::1", "2001:db8::2"), "2001:db8::1", 4711),
    (v2("::ffff:192.0.2.1", "::ffff:198.51.100.2"), "192.0.2.1", 4711),
    (v2("::ffff:192.0.2.1", "2001:db8::2"), "192.0.2.1", 4711), (v2("2001:db8::1", "::ffff:198.51.100.2"), "2001:db8::1", 4711),
    (b"PROXY TCP6 ::ffff:192.0.2.1 ::ffff:198.51.100.2 4711 25\r\n", "192.0.2.1", 4711),
    (b"PROXY TCP6 ::ffff:192.0.2.1 2001:db8::2 4711 25\r\n", "192.0.2.1", 4711),
    (v2(tlvs=tlv(4, b"\0" * 30000) + tlv(0x20, b"\0\0\0\0\1" + tlv(0x21, b"TLSv1.3"))), "192.0.2.1", 4711),
])
def test_55_client_is_whom_the_header_names(proxied, hooks, mail_server, header, ip, port):
    """In records and for hooks, from the first on; the proxy is told of as well."""
    seen = hooks.directory / "seen"
    for event in "connect", "mail":
        hooks.script(event, f"cat >>{seen}")
    proxy = proxied(*hooks.options, upstream=mail_server(*SERVER))
    client = begin(proxy, header)
    client.expect("220")
    client.ask("EHLO client.example", "250")
    transaction(client)
    client.ask("QUIT", "221")
    proxy.wait_exit()
    address = client.sock.getsockname()[:2]
    assert {record["event"] for record in proxy.records()} >= {"connect", "message", "close"}
    for record in proxy.records():
        assert record["client"] == {"ip": ip, "port": port, "tls": None}
        assert record["proxy"] == {"ip": address[0], "port": address[1]}
    told = [re.findall(r'"client":\{"ip":"([^"]*)","port":(\d+)', line)[0] for line in seen.read_text().splitlines()]
    assert told == [(ip, str(port))] * 2


@pytest.mark.parametrize("header", [V1, v2(), v2(tlvs=tlv(4, b"x" * 600)), v2(command=0)],
                         ids=["v1", "v2", "tlv", "local"])
@pytest.mark.parametrize("how", ["bytewise", "halves", "with a command"])
def test_55_header_in_pieces(proxied, mail_server, header, how):
    """What follows it in the same segment is the client's, early as it is."""
    proxy = proxied(upstream=mail_server(*SERVER))
    client = proxy.connect()
    if how == "bytewise":
        client.send_bytewise(header)
    elif how == "halves":
        client.send_parts(header[:13], header[13:])
    else:
        client.send_raw(header + b"EHLO client.example\r\n")
    client.expect("220")
    if how != "with a command":
        client.send("EHLO client.example")
    client.expect("250")
    transaction(client)


@pytest.mark.parametrize("header", [b"PROXY UNKNOWN\r\n", b"PROXY UNKNOWN ::1 ::2 1 2\r\n", v2(command=0),
                                    SIGNATURE + b"\x21\0\0\0", SIGNATURE + b"\x21\x31\0\xd8" + b"/" * 216])
def test_55_header_without_addresses(proxied, mail_server, header):
    """The proxy speaks for itself: a check of its own, say."""
    proxy = proxied(upstream=mail_server())
    client = begin(proxy, header)
    client.expect("220")
    client.ask("QUIT", "221")
    record = proxy.wait_for("connect")
    assert record["client"]["port"] == client.sock.getsockname()[1] and "proxy" not in record


@pytest.mark.parametrize("header, why", [
    (b"EHLO client.example\r\n", "no PROXY header"), (b"\r\nEHLO", "no PROXY header"), (b"\0", "no PROXY header"),
    (b"PROXY TCP4 192.0.2.1 198.51.100.2 4711 25 \r\n", "malformed PROXY v1"), (b"PROXY " + b"x" * 200, "too long"),
    (b"PROXY TCP4 192.0.2.1 198.51.100.2 4711 70000\r\n", "malformed PROXY v1"),
    (V1[:-2] + b"\n", "malformed PROXY v1"),
    (SIGNATURE + b"\x31\x11\0\0", "unknown version"), (SIGNATURE + b"\x21\x11\0\1x", "without room"),
    (v2(tlvs=b"\4\0\2x"), "lengths do not fit"), (v2(tlvs=tlv(0x20, b"\1\0\0\0")), "lengths do not fit"),
    (v2(tlvs=tlv(0x20, b"\1\0\0\0\1\x21\0\2x")), "lengths do not fit"), (v2(tlvs=ended() * 2), "TLS twice"),
    (v2(tlvs=tlv(3, b"\0\0\0\0")), "checksum is wrong"),
    (V1[:20], "closed within"), (v2()[:20], "closed within")])
def test_55_bad_header(proxied, header, why):
    """Not a byte for whoever sent it; nobody is connected to."""
    proxy = proxied()
    client = begin(proxy, header)
    if why == "closed within":
        client.half_close()
    client.expect_end()
    assert not client.got
    assert why in proxy.wait_for("error")["error"]
    proxy.wait_exit()
    proxy.upstream.nobody()
    assert proxy.records("close")[0]["by"] == "smtpwarp" and not proxy.records("connect")


@pytest.mark.parametrize("first", [b"", b"PROXY TCP4 ", SIGNATURE])
def test_55_header_that_does_not_come(proxied, first):
    """Nothing is said, nobody dialled before it: no banner for a proxy to forward."""
    proxy = proxied("--proxy-timeout", "1")
    client = begin(proxy, first)
    proxy.upstream.nobody(0.1)
    client.silent()
    client.expect_end()
    assert not client.got and "no PROXY header in time" in proxy.wait_for("error")["error"]
    assert proxy.wait_for("close")["duration_ms"] >= 1000


def test_55_proxy_that_only_knocks(proxied):
    """Balancers look whether a port is open; that is no error."""
    proxy = proxied()
    proxy.connect().close()
    record = proxy.wait_for("close")
    assert (record["by"], record["reason"]) == ("client", "connection closed")
    proxy.wait_exit()
    assert not proxy.records("error")


@pytest.mark.parametrize("blocks, source, trusted", [
    (["10.0.0.0/8"], "127.0.0.1", False), (["127.0.0.0/25"], "127.0.0.127", True),
    (["127.0.0.0/25"], "127.0.0.128", False),
    (["127.0.0.2"], "127.0.0.2", True), (["127.0.0.2/31"], "127.0.0.3", True), (["127.0.0.2/31"], "127.0.0.4", False),
    (["0.0.0.0/0"], "127.0.0.1", True), (["::/0"], "127.0.0.1", False),
    (["10.0.0.0/8", "127.0.0.1/32"], "127.0.0.1", True)])
def test_55_only_from_trusted_networks(warp, blocks, source, trusted):
    """From others it is a command like any, and the client is who connected; in a dual-stack listener too."""
    options = [word for block in blocks for word in ("--accept-proxy", block)]
    proxy = warp("--tls", "none", "--allow-clients", "0.0.0.0/0", *options).listen("*:2525")
    client = proxy.connect(source=(source, 0))
    if not trusted:
        proxy.upstream.accept().send("220 server.example ESMTP")
        client.expect("220")
    client.send_raw(V1)
    if trusted:
        proxy.upstream.accept().send("220 server.example ESMTP")
        client.expect("220")
    else:
        client.expect("500 5.5.1")
    record = proxy.wait_for("connect")
    assert record["client"]["ip"] == ("192.0.2.1" if trusted else source)
    assert ("proxy" in record) == trusted
    client.close()
    proxy.wait_for("close")


@pytest.mark.parametrize("option, value, good", [
    ("accept-proxy", "10.0.0.0/8", True), ("accept-proxy", "2001:db8::/128", True), ("accept-proxy", "::1", True),
    ("accept-proxy", "10.0.0.0/33", False), ("accept-proxy", "::/129", False), ("accept-proxy", "10.0.0.0/", False),
    ("accept-proxy", "10.0.0.0/-1", False), ("accept-proxy", "10.0.0.0/8x", False), ("accept-proxy", "/8", False),
    ("accept-proxy", "host.example", False), ("accept-proxy", "10.0.0/8", False), ("accept-proxy", "1" * 200, False),
    ("send-proxy", "v1", True), ("send-proxy", "v3", False), ("send-proxy", "v22", False), ("send-proxy", "2", False),
    ("proxy-timeout", "0.5", True), ("proxy-timeout", "soon", False)])
def test_values_of_options(option, value, good):
    result = subprocess.run([BINARY, "--check", "--log", "none", f"--{option}", value], stdin=subprocess.DEVNULL,
                            capture_output=True, text=True, timeout=20, check=False)
    assert result.returncode == (0 if good else 64) and (good or f"--{option} {value}: it takes" in result.stderr)


def test_too_many_proxies():
    options = [word for number in range(17) for word in ("--accept-proxy", f"10.0.0.{number}")]
    result = subprocess.run([BINARY, "--check", "--log", "none", *options], stdin=subprocess.DEVNULL,
                            capture_output=True, text=True, timeout=20, check=False)
    assert result.returncode == 64 and "can be given 16 times at most" in result.stderr


def test_55_trusted_ipv6_proxy(proxied, mail_server):
    proxy = proxied(upstream=mail_server()).listen("[::1]:2525")
    client = proxy.connect("::1")
    client.send_raw(v2())
    client.expect("220")
    assert proxy.wait_for("connect")["proxy"]["ip"] == "::1"


def test_55_once(proxied, mail_server):
    """A client cannot name another: a second header is a bad command."""
    proxy = proxied(upstream=mail_server())
    client = begin(proxy, V1 + b"PROXY TCP4 10.9.8.7 198.51.100.2 4711 25\r\n")
    client.expect("220")
    client.expect("500")
    assert "10.9.8.7" not in str([record["client"] for record in proxy.records()])


@pytest.mark.parametrize("header, shown", [(V1, False), (b"PROXY UNKNOWN\r\n", True)])
def test_55_distant_clients_of_a_near_proxy(proxied, mail_server, header, shown):
    """AUTH is shown to clients on this host: the proxy here does not make its clients such."""
    client = begin(proxied(upstream=mail_server("AUTH PLAIN")), header)
    client.expect("220")
    assert ("AUTH PLAIN" in client.ask("EHLO client.example", "250").texts) == shown


# 55: a proxy that has ended the client's TLS

def facts(version="TLSv1.3", cipher="TLS_AES_128_GCM_SHA256", verified=False, **more):
    return {"version": version, "cipher": cipher, "verified": verified, **more}


@pytest.mark.parametrize("said, shown", [
    (ended(), facts()), (ended(cipher=b""), facts(cipher=None)), (ended(b"", b""), facts(None, None)),
    (ended(b"TLSv1.3\r\nX: y", b"A (b)"), facts(None, None)), (ended(b"x" * 64, b"x" * 65), facts("x" * 64, None)),
    (ended(cn=b"J\xc3\xbcrgen \"", flags=7, verify=0), facts(verified=True, cn='J\u00fcrgen "')),
    (ended(cn=b"a\xffb\n", flags=3, verify=0), facts(verified=True, cn="a\ufffdb\n")),
    (ended(cn=b"admin", flags=7, verify=18), facts()), (ended(cn=b"admin", flags=1, verify=0), facts()),
    (ended(cn=b"ad\0min", flags=7, verify=0), facts(verified=True)), (ended(flags=0), None), (ended(flags=6), None)])
def test_55_tls_of_the_client(proxied, hooks, mail_server, said, shown):
    """In all records and for hooks, as far as it is told; a name only if the proxy has verified it."""
    hooks.script("connect", f"cat >{hooks.directory}/seen")
    proxy = proxied(*hooks.options, upstream=mail_server(*SERVER))
    client = begin(proxy, v2(tlvs=tlv(4, b"x") + said + tlv(5, b"id")))
    client.expect("220")
    client.ask("EHLO client.example", "250")
    transaction(client)
    client.ask("QUIT", "221")
    proxy.wait_exit()
    assert [record["client"]["tls"] for record in proxy.records()] == [shown] * len(proxy.records())
    assert json.loads((hooks.directory / "seen").read_text())["client"]["tls"] == shown


@pytest.mark.parametrize("mode", [[], LATE])
def test_55_encrypted_by_the_proxy_counts(proxied, mail_server, certs, mode):
    """As if the handshake had been ours: --client-tls require is content, AUTH is shown, there is no STARTTLS any more."""
    proxy = proxied(*certs.options(), "--client-tls", "require", *mode, upstream=mail_server(*SERVER, "AUTH PLAIN"))
    client = begin(proxy, v2(tlvs=ended()))
    client.expect("220")
    client.ask("STARTTLS", "503 5.5.1")
    texts = client.ask("EHLO client.example", "250").texts
    assert "STARTTLS" not in texts and ("AUTH PLAIN" in texts) == (not mode)
    client.ask("STARTTLS", "503 5.5.1")
    transaction(client)
    client = begin(proxy, v2(tlvs=ended(flags=0)))
    client.expect("220")
    assert "STARTTLS" in client.ask("EHLO client.example", "250").texts
    client.ask("MAIL FROM:<a@b>", "530 5.7.0")


def test_55_proxy_that_encrypts_again(proxied, mail_server, certs):
    """--client-tls implicit: the handshake is the proxy's; the client's TLS is what the header says."""
    proxy = proxied(*certs.options(), "--client-tls", "implicit", upstream=mail_server(*SERVER))
    client = begin(proxy, v2(tlvs=ended()))
    client.begin_tls(certs.trusting(), certificates.HOST)
    client.expect("220")
    client.ask("EHLO client.example", "250")
    transaction(client)
    assert proxy.wait_for("message")["client"]["tls"] == facts()
    assert proxy.wait_for("tls")["cipher"] == "TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256"


@pytest.mark.parametrize("level", ["may", "none"])
def test_55_no_starttls_to_pass_through(warp, mail_server, certs, level):
    """The client cannot ask for it any more, so smtpwarp does, if it may."""
    server = mail_server(*SERVER, tls=certs.context())
    proxy = warp("--accept-proxy", "127.0.0.1", "--allow-clients", "0.0.0.0/0", "--client-tls", "passthrough", "--tls", level, upstream=server)
    client = begin(proxy, v2(tlvs=ended()))
    client.expect("220")
    client.ask("STARTTLS", "503 5.5.1")
    assert "STARTTLS" not in client.ask("EHLO client.example", "250").texts
    client.ask("STARTTLS", "503 5.5.1")
    transaction(client)
    assert server.messages[0]["tls"] == (level == "may")


@pytest.mark.parametrize("said", [ended(), ended(cipher=b""), ended(b"x" * 64, b"y" * 64), ended(flags=0),
                                  ended(cn=b"J\xc3\xbcrgen", flags=7, verify=0), ended(cn=b"c" * 255, flags=7, verify=0),
                                  ended(signature=b"RSA-SHA256", key=b"RSA2048"), ended(key=b"EC256")])
@pytest.mark.parametrize("name", [b"", b"mail.example", b"a" * 250])
def test_55_tls_is_passed_on(proxied, said, name):
    """What we were told is told to a server with PROXY headers of version 2, as far as 512 octets hold it: a long name in the client's
    certificate has no room beside a long one that the client asked for."""
    begin(proxy := proxied("--send-proxy", "v2"), v2(tlvs=said + tlv(1, b"h2") + tlv(5, b"id") + (tlv(2, name) if name else b"")))
    if len(said) + len(name) > 400:
        said = ended(flags=7, verify=0)
    wanted = {**({} if said[3] == 0 else {0x20: said[3:]}), **({2: name} if name else {}), 1: b"h2"}
    assert read_v2(proxy.upstream.accept())[-1] == wanted


@pytest.mark.parametrize("name, shown", [
    (b"mail.example", "mail.example"), (b"A_b-3." * 42 + b"abc", "A_b-3." * 42 + "abc"), (b"a" * 256, None), (b"", None), (b"a b", None),
    (b'a"b', None), (b"a\r\nRCPT TO:<b@c>", None), (b"a\0b", None), (b"\xc3\xa9.example", None), (b"../x", None)])
@pytest.mark.parametrize("with_tls", [False, True])
def test_55_name_that_the_client_asked_for(proxied, hooks, mail_server, name, shown, with_tls):
    """In all records and for hooks, if it may be a host's; TLS or not."""
    hooks.script("connect", f"cat >{hooks.directory}/seen")
    proxy = proxied(*hooks.options, upstream=mail_server(*SERVER))
    client = begin(proxy, v2(tlvs=(ended() if with_tls else b"") + tlv(2, name) + tlv(2, b"second.example" if shown else b"a/b")))
    client.expect("220")
    client.ask("QUIT", "221")
    proxy.wait_exit()
    assert [record.get("authority") for record in proxy.records()] == [shown] * len(proxy.records())
    assert json.loads((hooks.directory / "seen").read_text()).get("authority") == shown


@pytest.mark.parametrize("said, field", [
    (ended(), b"ESMTPS (TLSv1.3 TLS_AES_128_GCM_SHA256)"), (ended(cipher=b""), b"ESMTPS (TLSv1.3)"),
    (ended(b"a) by x", b"AES"), b"ESMTPS"), (ended(flags=0), b"ESMTP")])
def test_76_tls_that_the_proxy_has_ended(proxied, mail_server, said, field):
    server = mail_server(*SERVER)
    client = begin(proxied("--received", "--hostname", "proxy.example", upstream=server), v2(tlvs=said))
    client.expect("220")
    client.ask("EHLO client.example", "250")
    transaction(client)
    assert b"\r\n\tby proxy.example with " + field + b"\r\n\tid " in server.messages[0]["data"]


# TLS of our own towards the client

@pytest.mark.parametrize("header", [V1, V1_SIX, v2(), v2(tlvs=tlv(4, b"x" * 600))], ids=["v1", "v1 six", "v2", "tlv"])
@pytest.mark.parametrize("together", [True, False])
def test_65_implicit_behind_a_header(proxied, mail_server, certs, header, together):
    """The handshake is what follows the header, in the same segment too."""
    proxy = proxied(*certs.options(), "--client-tls", "implicit", upstream=mail_server(*SERVER))
    client = proxy.connect()
    client.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_CORK, together)   # it leaves with the first of the handshake
    client.send_raw(header)
    if not together:
        client.silent()
    client.begin_tls(certs.trusting(), certificates.HOST)
    client.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_CORK, False)
    client.expect("220")
    client.ask("EHLO client.example", "250")
    transaction(client)
    told = proxy.wait_for("message")["client"]
    assert told["ip"] == ("2001:db8::1" if header is V1_SIX else "192.0.2.1") and told["tls"]["version"] == "TLSv1.2"


@pytest.mark.parametrize("header", [V1, v2()], ids=["v1", "v2"])
def test_65_header_inside_of_tls_is_none(proxied, certs, header):
    """It belongs ahead of the handshake: who sends TLS first is no proxy of ours."""
    proxy = proxied(*certs.options(), "--client-tls", "implicit")
    with pytest.raises((OSError, peers.Ended)):
        proxy.connect().begin_tls(certs.trusting(), certificates.HOST)
    assert "no PROXY header" in proxy.wait_for("error")["error"]


@pytest.mark.parametrize("how, mode, told", [("implicit", [], True), ("may", [], False), ("may", LATE, True),
                                             ("implicit", LATE, True)])
@pytest.mark.parametrize("version", ["v1", "v2"])
def test_tls_in_the_header_to_the_server(warp, certs, secure, how, mode, told, version):
    """Version 2 tells of what there is when the server is connected to."""
    proxy = warp("--tls", "none", *certs.options(), "--client-tls", how, "--send-proxy", version, *mode)
    client = proxy.connect()
    if how == "implicit":
        client.begin_tls(certs.trusting(), certificates.HOST)
    if mode:
        client.expect("220")
        if how == "may":
            secure(client)
        client.ask("EHLO client.example", "250")
        client.ask("MAIL FROM:<a@b>", "250")
        client.send("RCPT TO:<c@d>")
    server = proxy.upstream.accept()
    if version == "v1":
        assert server.line().startswith("PROXY TCP4 127.0.0.1 ")
        return
    tlvs = read_v2(server)[-1]
    said = ended(b"TLSv1.2", b"TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256", signature=b"ecdsa-with-SHA256", key=b"EC256")
    assert tlvs == ({0x20: said[3:], 2: certificates.HOST.encode()} if told else {})


def test_name_of_a_suite_in_the_header(warp, certs):
    """The longest there is, whole."""
    proxy = warp("--tls", "none", *certs.options(), "--client-tls", "implicit", "--send-proxy", "v2")
    tls = certs.trusting()
    tls.set_ciphers("ECDHE-ECDSA-CHACHA20-POLY1305")
    proxy.connect().begin_tls(tls, certificates.HOST)
    assert b"\x23\0\x2dTLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256\x24" in read_v2(proxy.upstream.accept())[-1][0x20]


@pytest.mark.parametrize("upstream_tls", [False, True])
def test_54_xclient_and_starttls(warp, mail_server, certs, secure, upstream_tls):
    """What the client says inside of TLS is told anew; PROTO has no word for TLS."""
    server = xserver(mail_server, "XCLIENT PROTO HELO", "XFORWARD PROTO", tls=certs.context() if upstream_tls else None)
    proxy = warp("--xclient", "--xforward", *certs.options(), upstream=server)
    client = proxy.greeted()
    secure(client)
    client.ask("EHLO inside.example", "250")
    transaction(client)
    assert [line for line in server.commands if line.startswith("X")] == [
        "XCLIENT PROTO=ESMTP HELO=client.example", "XCLIENT PROTO=ESMTP HELO=inside.example", "XFORWARD PROTO=ESMTP"]
    assert server.messages[0]["tls"] == upstream_tls and not proxy.records("error")


@pytest.mark.parametrize("mode, greeting, protocol", [
    ([], "EHLO c", "ESMTPS"), ([], "HELO c", "SMTP"), ([], "auth", "ESMTPSA"), ([], "utf8", "UTF8SMTPS"),
    (LATE, "EHLO c", "ESMTPS"), (LATE, "utf8", "UTF8SMTPS")])
def test_76_protocol_inside_of_tls(warp, mail_server, certs, secure, mode, greeting, protocol):
    """RFC 3848; what was agreed on stands behind it."""
    server = mail_server(*SERVER, "AUTH PLAIN", "SMTPUTF8")
    client = warp(*RECEIVED, *certs.options(), *mode, upstream=server).greeted()
    secure(client)
    client.ask(greeting if " " in greeting else "EHLO c", "250")
    if greeting == "auth":
        client.ask("AUTH PLAIN AGEAYg==", "235")
    transaction(client, params=" SMTPUTF8" if greeting == "utf8" else "")
    suite = "TLSv1.2 TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256"
    assert f"\r\n\tby proxy.example with {protocol} ({suite})\r\n\tid ".encode() in server.messages[0]["data"]


def test_55_service_stops(proxied):
    """While a header is awaited: at once."""
    proxy = proxied("--proxy-timeout", "0")
    client = begin(proxy, b"PROXY")
    client.drained()
    proxy.processes[-1].terminate()
    client.expect_end()
    assert not client.got and proxy.wait_for("close")["reason"] == "shutting down"


# --send-proxy: a PROXY header to the server

@pytest.mark.parametrize("version", ["v1", "v2"])
@pytest.mark.parametrize("family", [4, 6])
def test_header_to_the_server(warp, version, family):
    """Ahead of its greeting."""
    ip = "127.0.0.1" if family == 4 else "::1"
    proxy = warp("--tls", "none", "--send-proxy", version).listen(f"[{ip}]:2525" if family == 6 else f"{ip}:2525")
    client = proxy.connect(ip)
    server = proxy.upstream.accept()
    port = client.sock.getsockname()[1]
    if version == "v1":
        server.expect_line(f"PROXY TCP{family} {ip} {ip} {port} 2525")
    else:
        assert read_v2(server) == (0x21, 0x11 if family == 4 else 0x21, ip, ip, port, 2525, {})
    server.send("220 server.example ESMTP")
    client.expect("220")
    client.send("EHLO client.example")
    server.expect_line("EHLO client.example")


KNOWN = V1, V1_SIX, v2(), v2("2001:db8::1", "2001:db8::2")


@pytest.mark.parametrize("header", [*KNOWN, b"PROXY UNKNOWN\r\n", v2(command=0)])
@pytest.mark.parametrize("version", ["v1", "v2"])
def test_bridging(proxied, header, version):
    """From v1 to v2 and back: both ends as the proxy before us has them."""
    proxy = proxied("--send-proxy", version)
    client = begin(proxy, header)
    server = proxy.upstream.accept()
    six = header in (V1_SIX, KNOWN[3])
    ends = ("2001:db8::1", "2001:db8::2") if six else ("192.0.2.1", "198.51.100.2")
    ports = 4711, 25
    if header not in KNOWN:
        ends, ports = ("127.0.0.1", "127.0.0.1"), (client.sock.getsockname()[1], client.sock.getpeername()[1])
    if version == "v1":
        server.expect_line(f"PROXY TCP{6 if six else 4} {ends[0]} {ends[1]} {ports[0]} {ports[1]}")
    else:
        assert read_v2(server) == (0x21, 0x21 if six else 0x11, *ends, *ports, {})


@pytest.mark.parametrize("version", ["v1", "v2"])
def test_client_without_an_address(warp, version):
    """Over a Unix socket."""
    proxy = warp("--tls", "none", "--send-proxy", version)
    ours, theirs = socket.socketpair()
    with theirs:
        proxy.spawn(stdin=theirs, stdout=theirs)
    client = peers.Peer(ours, proxy.group, "client")
    server = proxy.upstream.accept()
    if version == "v1":
        server.expect_line("PROXY UNKNOWN")
    else:
        assert read_v2(server) == (0x20, 0)
    server.send("220 server.example ESMTP")
    client.expect("220")


@pytest.mark.parametrize("version", ["v1", "v2"])
def test_header_ahead_of_tls(warp, certs, version):
    """smtps://: before the handshake, in the clear."""
    proxy = warp("--send-proxy", version)
    proxy.options += ["--upstream", f"smtps://{proxy.upstream.name_port}"]
    client = proxy.connect()
    server = proxy.upstream.accept()
    if version == "v1":
        header = b""
        while not header.endswith(b"\r\n"):     # not an octet more: the handshake is TLS's
            header += server.sock.recv(1) if wait_readable(server) else b""
        assert header.startswith(b"PROXY TCP4 127.0.0.1 127.0.0.1 ")
    else:
        wait_readable(server)
        assert server.sock.recv(28)[:14] == SIGNATURE + b"\x21\x11"
    server.start_tls(certs.context("good"))
    server.send("220 server.example ESMTP")
    client.expect("220")
    assert proxy.wait_for("tls")["result"] == "ok"


def wait_readable(peer):
    peer.sock.settimeout(peers.TIMEOUT)
    return peer.sock.recv(1, socket.MSG_PEEK)


def test_header_on_the_connection_after_a_failed_handshake(warp):
    """Falling back to plain makes another connection, which begins anew."""
    proxy = warp("--tls", "may", "--send-proxy", "v1")
    client = proxy.connect()
    server = proxy.upstream.accept()
    first = server.line()
    assert first.startswith("PROXY TCP4 ")
    server.send("220 server.example ESMTP")
    client.expect("220")
    client.send("EHLO client.example")
    server.line()
    server.send("250-server.example", "250 STARTTLS")
    server.expect_line("STARTTLS")
    server.send("220 go ahead")
    server.wait(lambda: server.buffer, "a handshake")
    server.send_raw(b"no TLS at all\r\n")
    again = proxy.upstream.accept()
    again.expect_line(first)
    again.send("220 server.example ESMTP")
    again.expect_line("EHLO client.example")
    again.send("250 server.example")
    client.expect("250")


def test_header_late(warp, mail_server):
    """With --connect-on recipient each connection has one."""
    proxy = warp(*LATE, "--tls", "none", "--send-proxy", "v1")
    client = proxy.greeted()
    client.ask("MAIL FROM:<a@b>", "250")
    client.send("RCPT TO:<a@b>")
    server = proxy.upstream.accept()
    assert server.line().startswith("PROXY TCP4 127.0.0.1 127.0.0.1 ")
    server.send("220 x")
    server.expect_line("EHLO client.example")


# 54: XCLIENT

def xserver(mail_server, *extensions, xclient="220 server.example ESMTP", xforward="250 2.0.0 Ok", **options):
    replies = {"XCLIENT": xclient, "XFORWARD": xforward, **options.pop("replies", {})}
    return mail_server(*SERVER, *extensions, replies=replies, **options)


@pytest.mark.parametrize("mode", [[], LATE])
def test_54_xclient(proxied, mail_server, mode):
    """Only what is listed; EHLO anew, which Willi leaves out, and whose list is the one that counts; neither keyword reaches the
    client."""
    lists = iter(["250-server.example\n250-SIZE 1000\n250 " + ALL,
                  "250-server.example\n250-DSN\n250-SIZE 2000\n250 " + ALL])
    server = xserver(mail_server, replies={"EHLO": lambda line: next(lists)})
    proxy = proxied(*mode, "--xclient", "--xforward", upstream=server)
    client = begin(proxy, V1)
    client.expect("220")
    texts = client.ask("EHLO client.example", "250").texts
    assert not any("XCLIENT" in text or "XFORWARD" in text for text in texts)
    client.ask("XCLIENT ADDR=10.0.0.1", "502")
    client.ask("XFORWARD ADDR=10.0.0.1", "502")
    if not mode:
        assert texts[1:3] == ["DSN", "SIZE 2000"]
    transaction(client)
    assert server.commands[:3] == [
        "EHLO client.example", "XCLIENT NAME=[TEMPUNAVAIL] REVERSE_NAME=[TEMPUNAVAIL] ADDR=192.0.2.1 PORT=4711 "
        "PROTO=ESMTP HELO=client.example DESTADDR=198.51.100.2 DESTPORT=25", "EHLO client.example"]
    assert server.commands[3].startswith("MAIL")


@pytest.mark.parametrize("listed, told", [
    ("ADDR", "ADDR=IPV6:2001:db8::1"), ("addr Helo", "ADDR=IPV6:2001:db8::1 HELO=c"),
    ("PROTO  PORT", "PORT=4711 PROTO=ESMTP"),
    ("NAME", "NAME=[TEMPUNAVAIL]"), ("DESTADDR", "DESTADDR=IPV6:2001:db8::2"), ("LOGIN", None), ("IDENT SOURCE", None),
    ("", None), ("NEW THINGS", None)])
def test_54_only_attributes_that_are_listed(proxied, mail_server, listed, told):
    server = xserver(mail_server, f"XCLIENT {listed}".rstrip())
    client = begin(proxied("--xclient", upstream=server), V1_SIX)
    client.expect("220")
    client.ask("EHLO c", "250")
    assert server.commands == (["EHLO c", f"XCLIENT {told}", "EHLO c"] if told else ["EHLO c"])


def test_54_xclient_is_not_offered(warp, mail_server):
    server = mail_server(*SERVER)
    transaction(warp("--xclient", "--xforward", "--tls", "none", upstream=server).greeted())
    assert [line.split()[0] for line in server.commands] == ["EHLO", "MAIL", "RCPT", "DATA"]


@pytest.mark.parametrize("name, value", [
    ("plain.example", "plain.example"), ("a+b=c", "a+2Bb+3Dc"), ("\u00e9.example", "+C3+A9.example"),
    ("[::1]", "[::1]"), ("a b", "a+20b"), ("a\x01b", "a+01b"), ("x" * 255, "x" * 255), ("x" * 256, "[UNAVAILABLE]"),
    ("=" * 250, "[UNAVAILABLE]")])
def test_54_xtext(warp, mail_server, name, value):
    """Willi sends the name as it is."""
    server = xserver(mail_server, "XCLIENT HELO")
    client = warp("--xclient", "--tls", "none", upstream=server).connect()
    client.expect("220")
    client.send(f"EHLO {name}")
    assert client.reply().code == 250
    assert server.commands[1] == f"XCLIENT HELO={value}"


def test_54_lines_of_512_octets(warp, mail_server):
    """What does not fit goes with another command; EHLO follows the last."""
    server = xserver(mail_server, ALL, FORWARD)
    client = warp("--xclient", "--xforward", "--tls", "none", upstream=server).connect()
    client.expect("220")
    name = "+" * 150
    client.ask(f"EHLO {name}", "250")
    transaction(client)
    told = [line for line in server.commands if line.startswith("XCLIENT")]
    assert len(told) == 2 and all(len(line) <= 510 for line in told)
    assert server.commands[:4] == [f"EHLO {name}", *told, f"EHLO {name}"]
    names = re.findall(r"(\w+)=", " ".join(told))
    assert names == ["NAME", "REVERSE_NAME", "ADDR", "PORT", "PROTO", "HELO", "DESTADDR", "DESTPORT"]
    forwarded = [line for line in server.commands if line.startswith("XFORWARD")]
    assert len(forwarded) == 2 and all(len(line) <= 510 for line in forwarded)


@pytest.mark.parametrize("options, implicit", [([], False), (["--tls", "encrypt"], False)])
@pytest.mark.parametrize("mode", [[], LATE])
def test_54_after_starttls(warp, mail_server, certs, options, implicit, mode):
    """Inside TLS, once; and HELO clients get it too."""
    server = xserver(mail_server, "XCLIENT PROTO HELO", tls=certs.context("good"))
    client = warp(*mode, *options, "--xclient", upstream=server).connect()
    client.expect("220")
    client.ask("HELO client.example", "250")
    client.ask("MAIL FROM:<a@b>", "250")
    client.ask("RCPT TO:<a@b>", "250")
    last = "EHLO" if mode else "HELO"
    assert server.commands[:5] == ["EHLO client.example", "STARTTLS", "EHLO client.example",
                                   "XCLIENT PROTO=SMTP HELO=client.example", f"{last} client.example"]


def test_54_starttls_refused(warp, mail_server):
    """The way on in plain passes XCLIENT too."""
    server = xserver(mail_server, "XCLIENT PROTO", "STARTTLS", replies={"STARTTLS": "454 not now"})
    warp("--xclient", upstream=server).greeted()
    assert server.commands == ["EHLO client.example", "STARTTLS", "XCLIENT PROTO=ESMTP", "EHLO client.example"]


@pytest.mark.parametrize("verb", ["EHLO", "HELO"])
def test_54_plain_client_without_ehlo(warp, mail_server, verb):
    server = xserver(mail_server, "XCLIENT PROTO", "XFORWARD PROTO")
    client = warp("--xclient", "--xforward", "--tls", "none", upstream=server).connect()
    client.expect("220")
    reply = client.ask(f"{verb} c", "250")
    assert len(reply.lines) == (1 if verb == "HELO" else 4)
    proto = "ESMTP" if verb == "EHLO" else "SMTP"
    transaction(client)
    assert server.commands[:5] == ["EHLO c", f"XCLIENT PROTO={proto}", f"{verb} c", f"XFORWARD PROTO={proto}",
                                   "MAIL FROM:<a@client.example>"]


@pytest.mark.parametrize("refusal", ["550 5.7.1 insufficient authorization", "501 5.5.4 bad", "451 4.3.0 no",
                                     "250 what?", "550-5.7.1 go\n550 5.7.1 away"])
def test_54_xclient_refused(warp, mail_server, refusal):
    """No message may go by a policy for our own address: for now it does not go at all."""
    server = xserver(mail_server, "XCLIENT ADDR", xclient=refusal)
    proxy = warp("--tls", "none", "--xclient", upstream=server)
    client = proxy.connect()
    client.expect("220")
    client.ask("EHLO client.example", f"451 4.3.5 127.0.0.1: XCLIENT was refused: {refusal.splitlines()[-1]}")
    client.ask("MAIL FROM:<a@b>", "421 4.3.5 127.0.0.1: XCLIENT was refused")
    client.expect_end()
    assert server.commands[:2] == ["EHLO client.example", "XCLIENT ADDR=127.0.0.1"]
    assert not any(line.startswith("MAIL") for line in server.commands)
    assert "XCLIENT was refused: " + refusal[:3] in proxy.wait_for("error")["error"]


@pytest.mark.parametrize("refusal, code", [("550 5.7.1 no", "451 4.3.5"), ("451 4.3.0 no", "451 4.3.5"),
                                           ("421 4.3.0 later", "451 4.4.1")])
def test_54_xclient_refused_late(warp, mail_server, refusal, code):
    """It is RCPT's reply, and the session goes on."""
    server = xserver(mail_server, "XCLIENT ADDR", xclient=refusal)
    proxy = warp(*LATE, "--tls", "none", "--xclient", upstream=server)
    client = proxy.greeted()
    client.ask("MAIL FROM:<a@b>", "250")
    client.ask("RCPT TO:<a@b>", code)
    client.ask("RSET", "250")
    assert not any(line.startswith("MAIL") for line in server.commands)
    assert proxy.records("error")


def test_54_login(warp, mail_server):
    """The user, once there is one, at the next EHLO; a name is xtext too."""
    server = xserver(mail_server, "XCLIENT LOGIN PROTO", "AUTH PLAIN")
    client = warp("--xclient", "--tls", "none", upstream=server).greeted()
    client.ask("AUTH PLAIN AGErYgBzZWNyZXQ=", "235")
    client.ask("EHLO again.example", "250")
    assert [line for line in server.commands if line.startswith("XCLIENT")] == ["XCLIENT PROTO=ESMTP",
                                                                               "XCLIENT PROTO=ESMTP LOGIN=a+2Bb"]


@pytest.mark.parametrize("command", ["XCLIENT", "XFORWARD"])
def test_54_replies_to_nothing(warp, command):
    """A server that says more than it was asked is not believed: the next reply would answer something else."""
    session = warp(f"--{command.lower()}", "--tls", "none").session()
    session.banner()
    session.client.send("EHLO client.example")
    session.server.line()
    session.server.send("250-server.example", f"250 {command} ADDR")
    if command == "XFORWARD":
        session.client.expect("250")
        session.client.send("MAIL FROM:<a@b>")
    session.server.expect_line(f"{command} ADDR=127.0.0.1")
    session.server.send("220 one", "220 two")
    session.client.expect("421 4.5.0")
    session.client.expect_end()


@pytest.mark.parametrize("listed, auth", [("PROTO", "PLAIN AGErYgBzZWNyZXQ="), ("PROTO LOGIN", "GSSAPI AAAA")])
def test_54_login_that_cannot_be_told(warp, mail_server, listed, auth):
    """A second XCLIENT would make the server forget it: it is left as it was told at first."""
    server = xserver(mail_server, f"XCLIENT {listed}", "AUTH PLAIN GSSAPI")
    client = warp("--xclient", "--tls", "none", upstream=server).greeted()
    client.ask(f"AUTH {auth}", "235")
    client.ask("EHLO again.example", "250")
    assert [line for line in server.commands if not line.startswith("AUTH")] == [
        "EHLO client.example", "XCLIENT PROTO=ESMTP", "EHLO client.example", "EHLO again.example"]


@pytest.mark.parametrize("ending", ["close", "421"])
def test_54_server_lost_at_xclient(warp, ending):
    proxy = warp("--xclient", "--tls", "none")
    session = proxy.session()
    session.banner()
    session.client.send("EHLO client.example")
    session.server.line()
    session.server.send("250-server.example", "250 XCLIENT ADDR")
    session.server.line()
    session.server.close() if ending == "close" else session.server.send("421 4.3.2 bye")
    session.client.expect("421 4.4.2" if ending == "close" else "421 4.3.2")
    session.client.expect_end()


# 54: XFORWARD

@pytest.mark.parametrize("mode", [[], LATE])
def test_54_xforward_before_each_mail(proxied, mail_server, mode):
    """A message ends its life: the next one is told of again."""
    server = xserver(mail_server, FORWARD)
    proxy = proxied(*mode, "--xforward", upstream=server)
    client = begin(proxy, V1)
    client.expect("220")
    client.ask("EHLO client.example", "250")
    transaction(client)
    transaction(client)
    told = [line for line in server.commands if line.startswith(("XFORWARD", "MAIL"))]
    ident = proxy.wait_for("connect")["session"]
    assert told[0] == ("XFORWARD NAME=[UNAVAILABLE] ADDR=192.0.2.1 PORT=4711 PROTO=ESMTP HELO=client.example "
                       f"IDENT={ident} SOURCE=REMOTE")
    assert told[1].startswith("MAIL") and told[2:] == told[:2]


def test_85_xforward_where_any_address_can_be_bound(host, proxied, mail_server):
    host.take_any_address()
    server = xserver(mail_server, FORWARD)
    client = begin(proxied("--xforward", upstream=server), V1)
    client.expect("220")
    client.ask("EHLO client.example", "250")
    transaction(client)
    assert [line for line in server.commands if line.startswith("XFORWARD") and line.endswith("SOURCE=REMOTE")]


def test_54_xforward_of_a_local_client(warp, mail_server):
    server = xserver(mail_server, "XFORWARD SOURCE ADDR")
    transaction(warp("--xforward", "--tls", "none", upstream=server).greeted())
    assert "XFORWARD ADDR=127.0.0.1 SOURCE=LOCAL" in server.commands


@pytest.mark.parametrize("mode", [[], LATE])
def test_54_xforward_refused(warp, mail_server, mode):
    """It is for a log: mail goes on, and the server is not asked again."""
    server = xserver(mail_server, "XFORWARD ADDR", xforward="501 5.5.4 no")
    proxy = warp(*mode, "--xforward", "--tls", "none", upstream=server)
    client = proxy.greeted()
    transaction(client)
    transaction(client)
    assert len(server.messages) == 2 and len([line for line in server.commands if "XFORWARD" in line]) == 1
    assert "XFORWARD was refused: 501" in proxy.records("error")[0]["error"] and len(proxy.records("error")) == 1


@pytest.mark.parametrize("mode", [[], LATE])
@pytest.mark.parametrize("ending", ["close", "421"])
def test_54_server_lost_at_xforward(warp, mode, ending):
    proxy = warp(*mode, "--xforward", "--tls", "none")
    client = proxy.connect()
    if mode:
        client.expect("220")
        client.ask("EHLO c", "250")
        client.ask("MAIL FROM:<a@b>", "250")
        client.send("RCPT TO:<a@b>")
    server = proxy.upstream.accept()
    server.send("220 x")
    if not mode:
        client.expect("220")
        client.send("EHLO c")
    server.line()
    server.send("250-x", "250 XFORWARD ADDR")
    if not mode:
        client.expect("250")
        client.send("MAIL FROM:<a@b>")
    server.expect_line("XFORWARD ADDR=127.0.0.1")
    server.close() if ending == "close" else server.send("421 4.3.2 bye")
    client.expect("451 4.4.1" if mode else "421")
    if mode:
        client.ask("NOOP", "250")


def test_54_pipelined_client(warp, mail_server):
    """Replies in their order, and XFORWARD's to nobody."""
    server = xserver(mail_server, "XFORWARD ADDR")
    client = warp("--xforward", "--tls", "none", upstream=server).greeted()
    client.send("MAIL FROM:<a@b>", "RCPT TO:<c@d>", "DATA")
    assert [client.reply().code for _ in range(3)] == [250, 250, 354]
    client.send_raw(b"x\r\n.\r\nMAIL FROM:<e@f>\r\nRSET\r\nQUIT\r\n")
    assert [client.reply().code for _ in range(4)] == [250, 250, 250, 221]
    assert server.commands[1:] == ["XFORWARD ADDR=127.0.0.1", "MAIL FROM:<a@b>", "RCPT TO:<c@d>", "DATA",
                                   "XFORWARD ADDR=127.0.0.1", "MAIL FROM:<e@f>", "RSET", "QUIT"]


def test_54_xforward_with_hooks(warp, mail_server, hooks):
    """What a hook refuses is not told of."""
    hooks.script("mail", "grep -q bad@ && echo reject 550 5.7.1 no\nexit 0")
    server = xserver(mail_server, "XFORWARD ADDR")
    client = warp("--xforward", "--tls", "none", *hooks.options, upstream=server).greeted()
    client.ask("MAIL FROM:<bad@b>", "550")
    transaction(client)
    assert server.commands[1:3] == ["XFORWARD ADDR=127.0.0.1", "MAIL FROM:<a@client.example>"]


def test_72_identity_does_not_outlive_its_session(warp, mail_server):
    """Late, the server is left when the client begins anew: what it was told goes with it."""
    server = xserver(mail_server, "XCLIENT HELO", "XFORWARD HELO")
    client = warp(*LATE, "--xclient", "--xforward", "--tls", "none", upstream=server).greeted()
    transaction(client)
    client.ask("EHLO another.example", "250")
    transaction(client)
    assert len(server.peers) == 2
    second = [line for line in server.commands[server.commands.index("EHLO another.example"):] if "HELO=" in line]
    assert second == ["XCLIENT HELO=another.example", "XFORWARD HELO=another.example"]


def test_57_72_who_spoke_before_tls_was_somebody_else(warp, mail_server, certs, secure):
    """Late, a server that was told of it is left, and the next one is told of who speaks inside."""
    server = xserver(mail_server, "XCLIENT HELO", "XFORWARD HELO")
    client = warp(*LATE, "--xclient", "--xforward", "--tls", "none", *certs.options(), upstream=server).greeted()
    transaction(client)
    secure(client)
    client.ask("MAIL FROM:<a@b>", "503 5.5.1")
    client.ask("EHLO inside.example", "250")
    transaction(client)
    assert len(server.peers) == 2
    second = [line for line in server.commands[server.commands.index("EHLO inside.example"):] if "HELO=" in line]
    assert second == ["XCLIENT HELO=inside.example", "XFORWARD HELO=inside.example"]


@pytest.mark.parametrize("ending", ["close", "421 4.4.2 idle"])
def test_72_connection_that_has_had_enough(warp, mail_server, ending):
    """Late, a server that was used before ends at XFORWARD: on the new connection all is told again."""
    told = []

    def forward(line):
        told.append(line)
        if len(told) == 2 and ending == "close":
            server.peers[0].sock.shutdown(2)
        return ending if len(told) == 2 and ending != "close" else "250 2.0.0 Ok"
    server = xserver(mail_server, "XCLIENT HELO", "XFORWARD HELO", xforward=forward)
    client = warp(*LATE, "--xclient", "--xforward", "--tls", "none", upstream=server).greeted()
    transaction(client)
    transaction(client)
    assert [line.split()[0] for line in server.commands if "HELO=" in line] == [
        "XCLIENT", "XFORWARD", "XFORWARD", "XCLIENT", "XFORWARD"]
    assert len(server.peers) == 2 and len(server.messages) == 2


# 76: Received

TRACE = re.compile(rb"Received: from (\S+) \(\[(\S+)\]\)\r\n\tby (\S+) with (\w+)\r\n"
                   rb"\tid ([0-9A-HJKMNP-TV-Z]{26}); (.*)\r\n")
DATE = r"\w{3}, \d{1,2} \w{3} \d{4} \d\d:\d\d:\d\d \+0000"


def traced(data):
    """(from, address, by, protocol, id, date) of the field on top, and what follows it."""
    found = TRACE.match(data)
    assert found, data[:300]
    return [part.decode() for part in found.groups()], data[found.end():]


RECEIVED = ["--received", "--hostname", "proxy.example", "--tls", "none"]


@pytest.mark.parametrize("mode", [[], LATE])
def test_76_received(proxied, mail_server, mode):
    server = mail_server(*SERVER)
    proxy = proxied(*mode, *RECEIVED, upstream=server)
    client = begin(proxy, V1)
    client.expect("220")
    client.ask("EHLO client.example", "250")
    transaction(client, recipients=2)
    transaction(client, b".\r\n")
    fields, rest = traced(server.messages[0]["data"])
    assert rest == MESSAGE
    assert fields[:5] == ["client.example", "192.0.2.1", "proxy.example", "ESMTP", proxy.wait_for("connect")["session"]]
    age = datetime.datetime.now(datetime.timezone.utc) - email.utils.parsedate_to_datetime(fields[5])
    assert abs(age.total_seconds()) < 60 and re.fullmatch(DATE, fields[5])
    assert traced(server.messages[1]["data"])[1] == b".\r\n"
    assert [record["size"] for record in proxy.records("message")] == [len(MESSAGE) - 3, 0]


def test_76_none_by_default(warp, mail_server):
    server = mail_server(*SERVER)
    transaction(warp("--tls", "none", upstream=server).greeted())
    assert server.messages[0]["data"] == MESSAGE


@pytest.mark.parametrize("mode, offered", [([], True), (LATE, True), (LATE, False)])
@pytest.mark.parametrize("chunks", [[b"A: b\r\n\r\nhello\r\n"], [b"A", b": b\r\n", b""], [b""], [b"", b"x"],
                                    [b"x" * 70000, b"y"]])
def test_76_received_with_bdat(warp, mail_server, mode, chunks, offered):
    """The count of the first chunk is more by the field; two messages, so that nothing is out of step."""
    server = mail_server(*(SERVER if offered else SERVER[:1]))
    client = warp(*mode, *RECEIVED, upstream=server).greeted()
    for _ in range(2):
        client.ask("MAIL FROM:<a@b>", "250")
        client.ask("RCPT TO:<c@d>", "250")
        for number, chunk in enumerate(chunks, 1):
            client.send_raw(b"BDAT %d%s\r\n" % (len(chunk), b" LAST" if number == len(chunks) else b"") + chunk)
            client.expect("250")
    whole = b"".join(chunks)
    end = b"" if offered else b".\r\n" if whole.endswith(b"\r\n") or not whole else b"\r\n.\r\n"
    assert [traced(message["data"])[1] for message in server.messages] == [whole + end] * 2


@pytest.mark.parametrize("way", ["DATA", "BDAT"])
def test_76_hooks_see_what_the_client_sent(warp, mail_server, hooks, way):
    """The field comes on top of what they have added."""
    seen = hooks.directory / "seen"
    hooks.script("data", f"cat /dev/fd/3 >{seen}\necho add-header X-Added: yes")
    server = mail_server(*SERVER)
    client = warp(*RECEIVED, *hooks.options, upstream=server).greeted()
    body = b"A: b\r\n\r\n..dots\r\n"
    client.ask("MAIL FROM:<a@b>", "250")
    client.ask("RCPT TO:<c@d>", "250")
    if way == "DATA":
        client.ask("DATA", "354")
        client.send_raw(body.replace(b"..", b"...") + b".\r\n")
    else:
        client.send_raw(b"BDAT %d LAST\r\n" % len(body) + body)
    client.expect("250")
    assert seen.read_bytes() == body
    rest = traced(server.messages[0]["data"])[1]
    assert rest == b"X-Added: yes\r\n" + (body.replace(b"..", b"...") + b".\r\n" if way == "DATA" else body)


@pytest.mark.parametrize("greeting, protocol", [("EHLO c", "ESMTP"), ("HELO c", "SMTP"), ("auth", "ESMTPA"),
                                                ("utf8", "UTF8SMTP")])
def test_76_protocol(warp, mail_server, greeting, protocol):
    server = mail_server(*SERVER, "AUTH PLAIN", "SMTPUTF8")
    client = warp(*RECEIVED, upstream=server).connect()
    client.expect("220")
    client.ask(greeting if " " in greeting else "EHLO c", "250")
    if greeting == "auth":
        client.ask("AUTH PLAIN AGEAYg==", "235")
    transaction(client, params=" SMTPUTF8" if greeting == "utf8" else "")
    assert traced(server.messages[0]["data"])[0][3] == protocol


@pytest.mark.parametrize("name, shown", [
    ("[192.0.2.7]", "[192.0.2.7]"), ("[IPv6:::1]", "[IPv6:::1]"), ("a_b-c.example", "a_b-c.example"),
    ("x) by evil (y;", "x??by?evil??y?"), ("a]b[c:d", "a?b?c?d"), ("\u00e9", "??"), ("a\x01\x7f\"<>", "a?????"),
    ("x" * 500, "x" * 500)])
def test_76_hostile_names(warp, mail_server, name, shown):
    """They cannot end the field, nor look like more of it."""
    server = mail_server(*SERVER)
    client = warp(*RECEIVED, upstream=server).connect()
    client.expect("220")
    client.ask(f"EHLO {name}", "250")
    transaction(client)
    assert traced(server.messages[0]["data"])[0][0] == shown


def test_76_address_literal_of_ipv6(proxied, mail_server):
    server = mail_server(*SERVER)
    client = begin(proxied(*RECEIVED, upstream=server), V1_SIX)
    client.expect("220")
    client.ask("EHLO c", "250")
    transaction(client)
    assert traced(server.messages[0]["data"])[0][1] == "IPv6:2001:db8::1"


def test_76_client_without_an_address(warp):
    proxy = warp(*RECEIVED)
    ours, theirs = socket.socketpair()
    with theirs:
        proxy.spawn(stdin=theirs, stdout=theirs)
    session = Session(peers.Peer(ours, proxy.group, "client"), proxy.upstream.accept())
    session.greet()
    assert session.transaction().startswith(b"Received: from client.example\r\n\tby proxy.example with ESMTP\r\n\tid ")


def test_76_count_that_would_wrap(warp):
    """A chunk of nearly 2^64 octets keeps its count: a small one would make a message into commands."""
    proxy = warp(*RECEIVED, "--message-size-limit", "0")
    session = proxy.session().to("rcpt", "CHUNKING")
    session.client.send("BDAT 18446744073709551600 LAST")
    session.server.expect_line("BDAT 18446744073709551600 LAST")


@pytest.mark.parametrize("reply", ["554 5.5.1 no", "451 4.3.0 later"])
def test_76_message_that_the_server_does_not_want(warp, reply):
    """No field goes where no message does."""
    session = warp(*RECEIVED).session().to("rcpt")
    session.exchange("DATA", reply)
    session.exchange("RSET", "250 fine")
    assert b"Received" not in session.server.got
