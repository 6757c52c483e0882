"""--tls-policy and --tls dane in sessions: what real engines and zones come to, by listener and by inetd. DESIGN 5; the order of who is
asked is in unit/policy.c, what senders see in test_tls_policies.py. PROTOCOL 61, 62."""
import os

import pytest

import certificates
import peers
from nameservers import Nsd
from policies import DAEMON, MtaStsDaemon, PolicyServer, SocketMap
from signedzone import Signed, tlsa
from test_client_tls_auto import MAIL
from test_destination import MAIL4, mail_host, redirect      # noqa: F401
from warp import MESSAGE

needs_daemon = pytest.mark.skipif(not os.path.exists(DAEMON), reason="postfix-mta-sts-resolver is not installed")
WAYS = pytest.mark.parametrize("way", ["alone", "listener", "listener, nobody"])


def policy(mode, *names):
    return ["version: STSv1", f"mode: {mode}", *(f"mx: {name}" for name in names), "max_age: 86400"]


def begun(proxy, way):
    if way == "listener, nobody":
        proxy.options += ["--user", "nobody"]
        for folder in proxy.directory, *proxy.directory.parents[:-2]:
            folder.chmod(folder.stat().st_mode | 0o055)
    return proxy.listen() if way.startswith("listener") else proxy


def outcome(proxy, recipient):
    """The reply to a recipient; if it is accepted the message is delivered."""
    client = proxy.greeted()
    client.ask(MAIL, "250")
    client.send(f"RCPT TO:<{recipient}>")
    reply = client.reply().lines[-1]
    if reply.startswith("250"):
        client.ask("DATA", "354")
        client.send_raw(MESSAGE)
        client.expect("250")
    client.close()
    return reply


@needs_daemon
@WAYS
@pytest.mark.parametrize("kind, enforced", [("good", "250"), ("wrong-name", "451 4.7.5"), ("self-signed", "451 4.7.5"), (None, "451 4.7.5")])
def test_62_mta_sts(host, warp, certs, mail_server, tmp_path, way, kind, enforced):
    """Enforced for the domain that wants it, for no other, and not where the domain only tests."""
    zones = {name: ['_mta-sts TXT "v=STSv1; id=20260101;"', "mta-sts A 127.0.0.1"] for name in ("sts.test", "testing.test")}
    zones["none.test"] = ["@ MX 10 mx"]
    served = {"sts.test": policy("enforce", certificates.HOST), "testing.test": policy("testing", certificates.HOST)}
    server = mail_server("SIZE", tls=certs.context(kind) if kind else None)
    with Nsd(host, tmp_path / "nsd", zones), PolicyServer(certs.context("mta-sts"), served), \
            MtaStsDaemon(host, tmp_path / "engine", certs.ca, 8461) as engine:
        proxy = begun(warp("--tls-policy", f"socketmap:{engine.map}", "--tls-ca", certs.ca, upstream=server), way)
        assert outcome(proxy, "b@STS.test").startswith(enforced)
        assert outcome(proxy, "b@testing.test").startswith("250")
        assert outcome(proxy, "b@none.test").startswith("250")
        assert {message["tls"] for message in server.messages} == {bool(kind)}
        said = [record.get("policy") for record in proxy.records("tls")]
        assert set(said) <= {"secure", "!secure", "may", "may:none"} and bool(said)


@WAYS
def test_engine_that_is_silent(warp, mail_server, tmp_path, way):
    """The recipient is deferred, and the next one asks again."""
    with SocketMap(tmp_path / "map.sock", {b"map d.test": b"TEMP broken", b"map e.test": b"OK may"}) as engine:
        (tmp_path / "map.sock").chmod(0o777)
        proxy = begun(warp("--tls-policy", f"socketmap:{engine.map}:map", upstream=mail_server()), way)
        assert outcome(proxy, "b@d.test") == "451 4.7.5 TLS policy of d.test: TEMP broken"
        assert outcome(proxy, "b@e.test").startswith("250")


@WAYS
@pytest.mark.parametrize("words, kind, wanted", [
    ("none", "good", "250"), ("encrypt", None, "451 4.7.5"), (f"secure match={certificates.HOST}", "good", "250"),
    (f"secure match={certificates.HOST}", "expired", "451 4.7.5"), ("secure", "good", "451 4.7.5"),
    ("fingerprint match=00:11", "good", None)])
def test_file(warp, certs, mail_server, tmp_path, way, words, kind, wanted):
    path = tmp_path / "policies"
    path.write_text(f"# ours\nother.test none\n.d.test {words}\n")
    server = mail_server("SIZE", tls=certs.context(kind) if kind else None)
    proxy = warp("--tls-policy", path, "--tls-ca", certs.ca, upstream=server)
    if wanted is None:
        assert proxy.spawn("--check").wait() == 78
        proxy.exit_codes = (78,)
        assert "line 3" in proxy.error_path.read_text()
        return
    begun(proxy, way)
    assert outcome(proxy, "b@sub.d.test").startswith(wanted)
    assert outcome(proxy, "b@d.test").startswith("250")


def test_file_is_read_again(warp, certs, mail_server, tmp_path):
    path = tmp_path / "policies"
    path.write_text("d.test may\n")
    proxy = warp("--tls-policy", path, "--tls-ca", certs.ca, upstream=mail_server()).listen()
    assert outcome(proxy, "b@d.test").startswith("250")
    path.write_text("d.test encrypt\n")
    proxy.hang_up()
    proxy.wait_until(lambda: outcome(proxy, "b@d.test").startswith("451"), "the new policy")
    path.write_text("d.test nonsense\n")
    proxy.hang_up()
    proxy.wait_until(lambda: any("line 1" in record["error"] for record in proxy.records("error")), "the fault")
    assert outcome(proxy, "b@d.test").startswith("451")


@WAYS
@pytest.mark.parametrize("record, reply, word, verified", [
    ("right", "250", "dane", True), ("wrong", "451 4.7.5", "!dane", False), (None, "250", "may", False)])
def test_61_dane(host, warp, certs, mail_server, tmp_path, way, record, reply, word, verified):
    """With a zone that is signed and unbound: at a server whose certificate has expired, which does not count."""
    server = mail_server("SIZE", tls=certs.context("expired"))
    words = {"right": tlsa("3 1 1", certs.pair("expired")[0].read_bytes()), "wrong": f"TLSA 3 1 1 {64 * '0'}", None: 'TXT "none"'}[record]
    with Signed(host, tmp_path, {"d.example": ["mx A 127.0.0.1", f"_{server.port}._tcp.mx {words}"]}, {"d.example": {}}) as lab:
        proxy = begun(warp("--tls", "dane", "--dns-server", lab.address, "--upstream", f"mx.d.example:{server.port}",
                           "--allow-clients", "127.0.0.1"), way)
        assert outcome(proxy, "b@anywhere.test").startswith(reply)
        said = proxy.wait_for("tls")
        assert (said["policy"], said["verified"]) == (word, verified)


@pytest.mark.parametrize("records, reply, word", [
    (("wrong", "right"), "250", "dane"), (("right", "wrong"), "451 4.7.5", "!dane"), (("wrong", None), "250", "may"),
    ((None, "wrong"), "451 4.7.5", "!dane")])
@pytest.mark.parametrize("way", ["alone", "listener, nobody"])
def test_second_upstream_has_records_of_its_own(host, warp, certs, mail_server, tmp_path, way, records, reply, word):
    """The first cannot be reached."""
    server = mail_server("SIZE", tls=certs.context("expired"))
    words = {"right": tlsa("3 1 1", certs.pair("expired")[0].read_bytes()), "wrong": f"TLSA 3 1 1 {64 * '0'}", None: 'TXT "none"'}
    zone = ["one A 127.0.0.9", "two A 127.0.0.1",
            *(f"_{server.port}._tcp.{name} {words[kind]}" for name, kind in zip(("one", "two"), records))]
    with Signed(host, tmp_path, {"d.example": zone}, {"d.example": {}}) as lab:
        proxy = begun(warp("--tls", "dane", "--connect-on", "recipient", "--dns-server", lab.address, "--allow-clients", "127.0.0.1",
                           "--upstream", f"one.d.example:{server.port}", "--upstream", f"two.d.example:{server.port}"), way)
        assert outcome(proxy, "b@anywhere.test").startswith(reply)
        assert proxy.wait_for("tls")["policy"] == word


@pytest.mark.parametrize("record, reply, word", [("right", "250", "dane"), (None, "250", "may"), ("wrong", "421 4.7.5", "!dane")])
@pytest.mark.parametrize("way", ["alone", "listener, nobody"])
def test_records_of_the_server_that_authenticates(host, warp, certs, mail_server, tmp_path, way, record, reply, word):
    """--auth: the connection that is made for the server's list of extensions has what its records demand, and the mail goes over it."""
    server = mail_server("SIZE", "AUTH PLAIN", tls=certs.context("expired"))
    words = {"right": tlsa("3 1 1", certs.pair("expired")[0].read_bytes()), "wrong": f"TLSA 3 1 1 {64 * '0'}", None: 'TXT "none"'}[record]
    with Signed(host, tmp_path, {"d.example": ["mx A 127.0.0.1", f"_{server.port}._tcp.mx {words}"]}, {"d.example": {}}) as lab:
        proxy = begun(warp("--tls", "dane", "--connect-on", "recipient", "--auth", "--dns-server", lab.address,
                           "--allow-clients", "127.0.0.1", "--upstream", f"mx.d.example:{server.port}"), way)
        client = proxy.connect()
        client.expect("220")
        client.send("EHLO client.example")
        said = client.reply()
        if reply == "250":
            assert any(line.endswith("AUTH PLAIN") for line in said.lines)
            client.ask("AUTH PLAIN AHRpbQBzZXNhbWU=", "235")
            client.ask(MAIL, "250")
            client.send("RCPT TO:<b@anywhere.test>")
            said = client.reply()
        assert said.lines[-1].startswith(reply)
        assert proxy.wait_for("tls")["policy"] == word


@pytest.mark.parametrize("signed, words, reply", [
    (True, "verify", "250"), (False, "verify", "451 4.7.5 TLS policy of d.example: it names no certificate"),
    (True, "secure match=nexthop policy_type=sts mx_host_pattern={host}", "250"),
    (True, "secure match=nexthop policy_type=sts mx_host_pattern=other.example", "451 4.7.5 TLS policy of d.example: its mail must not go")])
def test_name_of_the_server_by_signed_mx(mail_host, warp, certs, mail_server, tmp_path, signed, words, reply):      # noqa: F811
    """What the map says of names goes by the MX that has the address of a redirected connection, if who may serve the domain is signed."""
    zones = {"d.example": [f"@ MX 10 {certificates.HOST}.", "@ MX 20 none"], certificates.HOST: [f"@ A {MAIL4}"]}
    redirect(mail_host, "meta mark != 77")
    mail_server("SIZE", address=MAIL4, port=25, tls=certs.context("good"))
    with Signed(mail_host, tmp_path, zones, {"d.example": {}} if signed else {}) as lab, \
            SocketMap(tmp_path / "map.sock", {b"map d.example": b"OK " + words.format(host=certificates.HOST).encode()}) as engine:
        proxy = warp("--transparent", "--mark", 77, "--tls", "dane", "--tls-policy", f"socketmap:{engine.map}:map", "--tls-ca", certs.ca,
                     "--dns-server", lab.address).listen("127.0.0.1:2525")
        client = peers.connect(MAIL4, 25, proxy.group)
        client.expect("220")
        client.ask("EHLO client.example", "250")
        client.ask(MAIL, "250")
        client.send("RCPT TO:<b@d.example>")
        assert client.reply().lines[-1].startswith(reply)


@pytest.mark.parametrize("record, reply", [("right", "250"), ("wrong", "451 4.7.5")])
def test_domain_in_utf8(mail_host, warp, certs, mail_server, tmp_path, record, reply):      # noqa: F811
    """Its server and records are found under its name in the DNS."""
    words = {"right": tlsa("3 1 1", certs.pair("expired")[0].read_bytes()), "wrong": f"TLSA 3 1 1 {64 * '0'}"}[record]
    zones = {"xn--bcher-kva.example": ["@ MX 10 mx", f"mx A {MAIL4}", f"_25._tcp.mx {words}"]}
    redirect(mail_host, "meta mark != 77")
    mail_server("SIZE", "SMTPUTF8", address=MAIL4, port=25, tls=certs.context("expired"))
    with Signed(mail_host, tmp_path, zones, {"xn--bcher-kva.example": {}}) as lab:
        proxy = warp("--transparent", "--mark", 77, "--tls", "dane", "--dns-server", lab.address).listen("127.0.0.1:2525")
        client = peers.connect(MAIL4, 25, proxy.group)
        client.expect("220")
        client.ask("EHLO client.example", "250")
        client.ask("MAIL FROM:<a@client.example> SMTPUTF8", "250")
        client.send("RCPT TO:<b@Bücher.example>")
        assert client.reply().lines[-1].startswith(reply)
        assert proxy.wait_for("tls")["policy"] == {"250": "dane", "451 4.7.5": "!dane"}[reply]
