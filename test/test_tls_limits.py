"""What BearSSL lacks, and what happens then: the tables of smtpwarp(8)."""
import contextlib
import pathlib
import re
import ssl
import subprocess

import pytest

import certificates
import peers
from mta import DIE_WITH_PARENT
from test_upstream_tls import start, talk

MANUAL = pathlib.Path(__file__).resolve().parent.parent / "man/smtpwarp.8"
LEVELS = ["may", "encrypt", "verify"]


def rows(name):
    """The rows of a table of the manual whose first column's head is this: {first cell: other cells}."""
    body = re.search(rf"^\.It Em {name} Ta .*\n((?:\.It .*\n)+)\.El", MANUAL.read_text(), re.M)[1]
    cells = [line.removeprefix(".It ").split(" Ta ") for line in body.splitlines()]
    return {first: others for first, *others in cells}


def extensions(record):
    """The kinds of extensions in a ClientHello, RFC 5246 7.4.1.2, or ServerHello, 7.4.1.3."""
    kind, body = record[5], record[9:]
    at = 35 + body[34]                                              # version, random, session
    at += 3 if kind == 2 else 2 + int.from_bytes(body[at:at + 2], "big")  # cipher suites, compression
    at += 0 if kind == 2 else 1 + body[at]
    at, found = at + 2, []
    while at < len(body):
        found.append(int.from_bytes(body[at:at + 2], "big"))
        at += 4 + int.from_bytes(body[at + 2:at + 4], "big")
    return found


EXTENDED_MASTER_SECRET = 23
HANDSHAKE_FAILURE = b"\x15\x03\x03\0\2\2\x28"


class Demanding:
    """In place of an ssl.SSLContext: a server that demands the Extended Master Secret, RFC 7627 5.2."""

    def wrap_socket(self, sock, **_):
        if EXTENDED_MASTER_SECRET not in extensions(sock.recv(4096)):
            sock.sendall(HANDSHAKE_FAILURE)
            raise OSError("no Extended Master Secret")
        raise AssertionError("this server can do no more")


def outcome(proxy, server):
    """How a message to this server goes, in the words of the manual."""
    replies = talk(proxy.connect(), server)
    record = proxy.wait_for("tls")
    if replies[-1].code != 250:
        assert not server.messages and record["result"] == "failed"
        return str(replies[-1])[:9]
    assert record["result"] == ("ok" if server.messages[0]["tls"] else "fallback")
    return "TLS" if server.messages[0]["tls"] else "in plain"


SERVERS = {"insists on TLS 1.3": "good", "has a key of P-521": "p521", "has a key of RSA with 8192 bits": "rsa8192",
           "has a key of Ed25519": "ed25519", "demands the Extended Master Secret": None}


@pytest.mark.parametrize("what", SERVERS)
def test_servers(warp, certs, mail_server, what):
    kind, found, reasons = SERVERS[what], [], set()
    tls = certs.context(kind, minimum=ssl.TLSVersion.TLSv1_3 if "1.3" in what else None) if kind else Demanding()
    for level in LEVELS:
        server = mail_server(tls=tls)
        proxy = start(warp, certs, server, "--tls", level)
        found.append(outcome(proxy, server))
        reasons.add(proxy.wait_for("tls")["reason"])
    reason, = reasons
    print(f"{what}: {' | '.join(found)}: {reason}")
    assert rows("The server")[what] == found
    assert (f"\n.It {reason}\n" in MANUAL.read_text()) == (found != ["TLS"] * 3)


def test_table_of_servers_is_whole():
    assert set(rows("The server")) == set(SERVERS)


@pytest.mark.parametrize("level", LEVELS)
def test_openssl_that_insists(warp, certs, host, level):
    """s_server, with TLS from the first octet: there is no fallback."""
    cert, key = certs.pair("good")
    process = host.popen([*DIE_WITH_PARENT, "openssl", "s_server", "-accept", "127.0.0.1:4650", "-cert", cert, "-key", key, "-tls1_3", "-quiet"],
                         stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    host.wait_listening(4650, alive=lambda: process.poll() is None)
    proxy = warp("--tls-ca", certs.ca, "--tls-name", certificates.HOST, "--tls", level, "--upstream", "smtps://127.0.0.1:4650")
    proxy.connect().expect("421 4.7.5")
    record = proxy.wait_for("tls")
    process.kill()
    process.wait()
    assert (record["result"], record["reason"]) == ("failed", "the peer takes no TLS version of ours (perhaps only TLS 1.3)")


def insist(how):
    """openssl s_client, which has no lower version."""
    done = subprocess.run(["openssl", "s_client", "-connect", "127.0.0.1:2525", "-tls1_3", *(["-starttls", "smtp"] if how != "implicit" else [])],
                          input=b"QUIT\n", capture_output=True, check=False, timeout=30)
    assert done.returncode, done.stdout


def demand(how):
    """RFC 7627 5.2: a client that is not answered with the extension gives up."""
    client = peers.connect("127.0.0.1", 2525)
    if how != "implicit":
        client.expect("220")
        client.ask("STARTTLS", "220")
    said, unread = ssl.MemoryBIO(), ssl.MemoryBIO()
    with contextlib.suppress(ssl.SSLWantReadError):
        ssl._create_unverified_context().wrap_bio(unread, said).do_handshake()  # pylint: disable=protected-access
    hello = said.read()
    assert EXTENDED_MASTER_SECRET in extensions(hello)
    client.send_raw(hello)
    head = client.take(5)
    assert EXTENDED_MASTER_SECRET not in extensions(head + client.take(int.from_bytes(head[3:], "big")))
    client.send_raw(HANDSHAKE_FAILURE)
    client.close()


CLIENTS = {"insists on TLS 1.3": insist, "demands the Extended Master Secret": demand}


@pytest.mark.parametrize("how", ["may", "require", "implicit"])
@pytest.mark.parametrize("what", CLIENTS)
def test_clients(warp, certs, mail_server, what, how):
    proxy = warp(*certs.options(), "--client-tls", how, upstream=mail_server()).listen()
    CLIENTS[what](how)
    record = proxy.wait_for("tls", side="client")
    assert record["result"] == "failed" and proxy.wait_for("close")["reason"] == "TLS handshake failed"
    print(f"{what}: {record['reason']}")
    assert rows("The client") == {**rows("The client"), what: [record["reason"]]} and set(rows("The client")) == set(CLIENTS)
