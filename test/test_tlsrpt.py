"""--tlsrpt end to end: what a collector hears of sessions with servers of all kinds. The records of the domains are in zones of a real NSD;
each code by itself is in unit/tlsreport.c. PROTOCOL 63."""
import pytest

import peers
import tlsrptd
from certificates import HOST
from nameservers import Nsd
from signedzone import Signed, tlsa
from test_destination import MAIL4, mail_host, redirect     # noqa: F401
from tlsrptd import Tlsrptd

RECORD = "v=TLSRPTv1; rua=mailto:tls@d.test"
ZONES = {"d.test": [f'_smtp._tls TXT "{RECORD}"'], "two.test": [f'_smtp._tls TXT "{RECORD}"', '_smtp._tls TXT "v=TLSRPTv1; rua=mailto:b@two.test"'],
         "silent.test": ["@ MX 10 mx"]}
STS = f"secure match={HOST} servername=hostname policy_type=sts policy_domain=d.test mx_host_pattern={HOST} " \
      "{{ policy_string = version: STSv1 }} {{ policy_string = mode: {} }}"
NONE = {"d": "d.test", "policy-type": tlsrptd.NO_POLICY, "policy-domain": "d.test"}


@pytest.fixture
def zones(host, tmp_path):
    with Nsd(host, tmp_path / "nsd", ZONES):
        yield


@pytest.fixture
def collector(tmp_path):
    with Tlsrptd(tmp_path / "tlsrpt.sock") as made:
        yield made


@pytest.fixture
def send(zones, warp, certs, mail_server, collector, tmp_path):
    """send(kind of certificate, reply to RCPT, options): one session to a recipient of d.test; policy: that of the domain."""
    def run(kind, reply, *options, policy=None, domain="d.test", by="inetd", path=None):
        if policy:
            (tmp_path / "policies").write_text(f"{domain} {policy}\n")
            options = (*options, "--tls-policy", tmp_path / "policies")
        server = mail_server(**{"tls": certs.context(kind)} if kind else {})
        made = warp("--tlsrpt", path or collector.path, "--dns-server", "127.0.0.1", "--tls-ca", certs.ca, *options, upstream=server)
        client = (made.listen() if by == "listener" else made).greeted()
        client.ask("MAIL FROM:<a@b.test>", "250")
        client.ask(f"RCPT TO:<r@{domain}>", reply)
        leave(made, client)
        made.wait_for("close")
        return made
    return run


def asks():
    """Whether a question to the name server is open."""
    with open("/proc/thread-self/net/udp", encoding="ascii") as sockets:
        return any(line.split()[2].endswith(":0035") for line in list(sockets)[1:])


def leave(made, client):
    made.wait_until(lambda: not asks(), "an answer of the DNS")     # which the session does not wait for
    client.close()


def failure(code, reason):
    return {"failure-details": [{"c": code, "s": "127.0.0.1", "h": "server.example", "r": "127.0.0.1", "f": reason}], "t": 1, "f": 1}


GOOD = {"t": 0, "f": 0}


@pytest.mark.parametrize("by", ["inetd", "listener"])
@pytest.mark.parametrize("kind, options, reply, wanted", [
    ("good", (), "250", GOOD),
    ("expired", (), "250", GOOD),       # nobody has said what it should be
    (None, (), "250", failure(201, "STARTTLS is not offered")),
    (None, ("--tls", "encrypt", "--tls-on", "recipient"), "451", failure(201, "STARTTLS is not offered")),
    ("good", ("--tls", "verify", "--tls-on", "recipient", "--tls-name", HOST), "250", GOOD),
    ("good", ("--tls", "verify", "--tls-on", "recipient", "--tls-name", "other.example"), "451", failure(202, "certificate is for another name")),
    ("self-signed", ("--tls", "verify", "--tls-on", "recipient", "--tls-name", HOST), "451",
     failure(203, "certificate is not signed by a trusted CA")),
    ("expired", ("--tls", "verify", "--tls-on", "recipient", "--tls-name", HOST), "451",
     failure(204, "certificate is expired or not yet valid")),
], ids=["good", "may-expired", "may-none", "encrypt-none", "verify", "name", "untrusted", "expired"])
def test_without_a_policy(send, collector, by, kind, options, reply, wanted):
    send(kind, reply, *options, by=by)
    assert collector.policy() == {**NONE, **wanted}
    collector.nothing()


@pytest.mark.parametrize("by", ["inetd", "listener"])
@pytest.mark.parametrize("mode, kind, reply, wanted", [
    ("enforce", "good", "250", GOOD),
    ("enforce", "expired", "451", failure(204, "certificate is expired or not yet valid")),
    ("testing", "expired", "250", failure(204, "certificate is expired or not yet valid")),
    ("testing", None, "250", failure(201, "STARTTLS is not offered")),
], ids=["enforce-good", "enforce-expired", "testing-expired", "testing-none"])
def test_mta_sts(send, collector, by, mode, kind, reply, wanted):
    send(kind, reply, policy=STS.format(mode), by=by)
    assert collector.policy() == {"d": "d.test", "policy-type": tlsrptd.STS, "policy-domain": "d.test",
                                  "policy-string": ["version: STSv1", f"mode: {mode}"], "mx-host": [HOST], **wanted}
    collector.nothing()


def test_before_the_client_speaks_tls(zones, warp, certs, mail_server, collector):
    """A message in plain is reported at the client's own STARTTLS, and what comes behind that is not."""
    server = mail_server(tls=certs.context(), replies={"STARTTLS": "454 4.7.0 not now"})
    made = warp("--tlsrpt", collector.path, "--dns-server", "127.0.0.1", "--client-tls", "auto", upstream=server).listen()
    client = made.greeted()
    client.ask("MAIL FROM:<a@b.test>", "250")
    client.ask("RCPT TO:<r@d.test>", "250")
    made.wait_until(lambda: not asks(), "an answer of the DNS")
    client.ask("RSET", "250")
    del server.replies["STARTTLS"]
    client.ask("STARTTLS", "220")
    assert collector.policy() == {**NONE, **failure(201, "STARTTLS was refused")}
    client.begin_tls(certs.trusting(), HOST)
    client.ask("EHLO client.example", "250")
    client.ask("MAIL FROM:<a@b.test>", "250")
    client.ask("RCPT TO:<r@d.test>", "250")
    client.close()
    made.wait_for("close")
    collector.nothing()


@pytest.mark.parametrize("kinds, reply, ends", [
    (("expired", "self-signed"), "451", {"t": 2, "f": 1}),
    (("expired", "good"), "250", {"t": 1, "f": 0}),
], ids=["neither", "second"])
def test_the_next_server(zones, warp, certs, mail_server, collector, kinds, reply, ends):
    """What failed with each server is told, and how it ended."""
    servers = [mail_server(tls=certs.context(kind), implicit=True) for kind in kinds]
    upstreams = [word for server in servers for word in ("--upstream", f"smtps://{server.name_port}")]
    made = warp("--tlsrpt", collector.path, "--dns-server", "127.0.0.1", "--tls-ca", certs.ca, "--tls", "verify", "--tls-name", HOST,
                "--connect-on", "recipient", *upstreams)
    client = made.greeted()
    client.ask("MAIL FROM:<a@b.test>", "250")
    client.ask("RCPT TO:<r@d.test>", reply)
    leave(made, client)
    made.wait_for("close")
    at = {"s": "127.0.0.1", "r": "127.0.0.1"}
    told = [{"c": 204, **at, "f": "certificate is expired or not yet valid"}, {"c": 203, **at, "f": "certificate is not signed by a trusted CA"}]
    assert collector.policy() == {**NONE, "failure-details": told[:ends["t"]], **ends}
    collector.nothing()


def test_a_key_that_we_do_not_know(send, collector):
    """That is no news to the domain."""
    send("rsa8192", "451", policy=f"secure match={HOST}")
    collector.nothing()


def test_nothing_in_common(send, collector):
    """That may be either's fault, and the reason says so."""
    send("ed25519", "451", policy=f"secure match={HOST}")
    reason = "the peer found no common parameters, or has only kinds of keys that are not supported"
    assert collector.policy() == {**NONE, **failure(205, reason)}


@pytest.mark.parametrize("domain", ["two.test", "silent.test", "nowhere.test"])
def test_who_wants_no_reports(send, collector, domain):
    send("good", "250", domain=domain)
    collector.nothing()


def test_no_collector(send, tmp_path):
    """A session goes on, and the record says why; another one right after it says nothing."""
    made = send("good", "250", by="listener", path=tmp_path / "none.sock")
    assert made.wait_for("error")["error"] == f"--tlsrpt {tmp_path}/none.sock: No such file or directory"
    client = made.greeted()
    client.ask("MAIL FROM:<a@b.test>", "250")
    client.ask("RCPT TO:<r@d.test>", "250")
    leave(made, client)
    made.wait_for("close", 2)
    assert len(made.records("error")) == 1


# ---- DANE ----

MX = "mx.d.example"
NO_MATCH = "no TLSA record matches the certificate, nor a CA of its chain"
ZEROS = f"TLSA 3 1 1 {64 * '0'}"


def of_server(code, reason):
    return {"c": code, "s": "127.0.0.1", "n": MX, "h": "server.example", "r": "127.0.0.1", "f": reason}


def of_policy(code, reply):
    return {"c": code, "n": MX, "f": reply}


DANE_ROWS = {   # records of the server, certificate, --tls, reply, whether the records are told (None: there was no policy), what failed
    "good": (["3 1 1"], "good", "dane", "250", True, []),
    "whole": (["3 0 0"], "good", "dane", "250", True, []),
    "expired": (["3 0 1"], "expired", "dane", "250", True, []),     # that does not count
    "by-a-ca": (["2 0 0"], "good", "dane", "451", True, [of_server(202, "certificate is for another name")]),
    "wrong": ([ZEROS], "good", "dane", "451", True, [of_server(205, NO_MATCH)]),
    "rolled": ([ZEROS, "3 1 1"], "good", "dane", "250", True, []),
    "plain": (["3 1 1"], None, "dane", "451", True, [of_server(201, "STARTTLS is not offered")]),
    "unusable": (["1 1 1"], "good", "dane", "250", False, [{"c": 304, "n": MX}]),
    "unusable-only": (["1 1 1"], "good", "dane-only", "451", False,
                      [of_policy(304, "451 4.7.5 dane-only: none of the server's TLSA records can be used")]),
    "lame": (None, "good", "dane", "451", False, [of_policy(305, f"451 4.7.5 DANE: records of {MX}: the server failed")]),
    "none": ([], "expired", "dane", "250", None, []),
    "none-only": ([], "good", "dane-only", "451", False,
             [of_policy(306, "451 4.7.5 dane-only: there are no signed TLSA records for the server")]),
}


def written_record(words, certs, kind):
    """A record about the certificate, or about its CA."""
    if words.startswith("TLSA"):
        return words
    return tlsa(words, certs.ca.read_bytes() if words[0] == "2" else certs.pair(kind or "good")[0].read_bytes())


@pytest.mark.parametrize("by", ["inetd", "listener"])
@pytest.mark.parametrize("row", DANE_ROWS)
def test_dane(host, warp, certs, mail_server, collector, tmp_path, row, by):
    """With a zone that is signed, and unbound: each member of a report."""
    words, kind, level, reply, told, failures = DANE_ROWS[row]
    server = mail_server(**{"tls": certs.context(kind)} if kind else {})
    records = [written_record(word, certs, kind) for word in words or []]
    zone = ["@ MX 10 mx", "mx A 127.0.0.1", f'_smtp._tls TXT "{RECORD}"', *(f"_{server.port}._tcp.mx {record}" for record in records),
            *(["_tcp.mx NS ns.lame", "ns.lame A 127.0.0.1"] if words is None else [])]
    with Signed(host, tmp_path / "dns", {"d.example": zone}, {"d.example": {}}) as lab:
        made = warp("--tlsrpt", collector.path, "--dns-server", lab.address, "--tls", level, "--tls-on", "recipient",
                    "--upstream", f"{MX}:{server.port}", "--allow-clients", "127.0.0.1")
        client = (made.listen() if by == "listener" else made).greeted()
        client.ask("MAIL FROM:<a@b.test>", "250")
        client.ask("RCPT TO:<r@d.example>", reply)
        leave(made, client)
        made.wait_for("close")
    report = collector.report()
    assert [report["dpv"], report["d"], report["pr"]] == ["1", "d.example", RECORD]
    report["policies"][0].get("policy-string", []).sort()   # the DNS has them in any order
    strings = {"policy-string": sorted(record.removeprefix("TLSA ") for record in records)} if told else {}
    details = {"failure-details": failures} if failures else {}
    kind = tlsrptd.NO_POLICY if told is None else tlsrptd.TLSA
    assert report["policies"] == [{"policy-type": kind, "policy-domain": MX if told else "d.example", **strings, **details,
                                   "t": len(failures), "f": int(bool(failures))}]
    collector.nothing()


@pytest.mark.parametrize("known", [True, False])
@pytest.mark.parametrize("record, reply, failures", [("3 1 1", "250", 0), (ZEROS, "451", 1)], ids=["right", "wrong"])
def test_dane_of_a_redirected_client(mail_host, warp, certs, mail_server, collector, tmp_path, known, record, reply, failures):   # noqa: F811
    """The server is the mail exchange with the address that the client wanted, or any of them: then it has no name, and the records are all
    of the domain's."""
    mail_server(address=MAIL4, port=25, tls=certs.context())
    redirect(mail_host, "meta mark != 77")
    record = written_record(record, certs, "good")
    zone = ["@ MX 10 mx", f"mx A {MAIL4 if known else '10.1.1.1'}", f'_smtp._tls TXT "{RECORD}"', f"_25._tcp.mx {record}"]
    with Signed(mail_host, tmp_path / "dns", {"d.example": zone}, {"d.example": {}}) as lab:
        made = warp("--tlsrpt", collector.path, "--dns-server", lab.address, "--tls", "dane", "--tls-on", "recipient", "--mark", 77,
                    "--transparent").listen("127.0.0.1:2525")
        client = peers.connect(MAIL4, 25, made.group)
        client.expect("220")
        client.ask("EHLO client.example", "250")
        client.ask("MAIL FROM:<a@b.test>", "250")
        client.ask("RCPT TO:<r@d.example>", reply)
        leave(made, client)
        made.wait_for("close")
    details = {"failure-details": [{"c": 205, "s": MAIL4, **({"n": MX} if known else {}), "h": "server.example", "r": MAIL4, "f": NO_MATCH}]}
    assert collector.policy() == {"d": "d.example", "policy-type": tlsrptd.TLSA, "policy-domain": MX if known else "d.example",
                                  "policy-string": [record.removeprefix("TLSA ")], **(details if failures else {}), "t": failures, "f": failures}
    collector.nothing()
