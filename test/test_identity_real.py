"""Who the client is, with real programs: HAProxy and nginx before smtpwarp, Postfix and HAProxy behind it. What Postfix
writes to its log is what it has understood. DESIGN 8 "Client address onward"; PROTOCOL 54, 55, 76."""
import contextlib
import pathlib
import re
import ssl
import struct
import subprocess
import tempfile

import pytest

import certificates
import mta
import peers
from test_identity import read_v2
from warp import send_message

CLIENT = "127.0.0.9"    # an address that none of the programs in between has
GUARD = "--valid-recipients", "."     # without one, smtpwarp warns of clients that the proxy names
DOOR = 10125            # where the program before smtpwarp listens

HAPROXY = """
global
    log stdout format raw local0 debug
defaults
    mode tcp
    log global
    option tcplog
    timeout connect 5s
    timeout client 60s
    timeout server 60s
listen smtp
    bind {bind}
    server next {server}
"""

NGINX = """
daemon off;
master_process off;
pid {directory}/nginx.pid;
error_log stderr;
load_module /usr/lib/nginx/modules/ngx_stream_module.so;
events {{ }}
stream {{
    server {{
        listen 127.0.0.1:{door};
        proxy_pass 127.0.0.1:2525;
        proxy_protocol on;
    }}
}}
"""


# AUTH is shown only to clients who have TLS.
DOVECOT = """
protocols = submission
listen = 127.0.0.1
base_dir = {directory}/run
state_dir = {directory}/state
log_path = /dev/stderr
mail_location = maildir:~/mail
ssl = no
disable_plaintext_auth = yes
haproxy_trusted_networks = 127.0.0.0/8
submission_relay_host = 127.0.0.1
submission_relay_port = {relay}
service submission-login {{
    chroot =
    inet_listener submission {{
        port = 587
        haproxy = yes
    }}
}}
passdb {{
    driver = static
    args = nopassword=y
}}
userdb {{
    driver = static
    args = uid=nobody gid=nogroup home={directory}/home
}}
"""


class Postfix(mta.Postfix):
    """A server with more lines in its main.cf."""

    def __init__(self, host, *lines, certificate=False):
        super().__init__(host, certificate=certificate)
        self.SERVER = mta.Postfix.SERVER + "".join(f"{line}\n" for line in lines).replace("{", "{{").replace("}", "}}")

    def clients(self):
        """What it says of the clients of messages: "unknown[127.0.0.9]", or both clients with XFORWARD."""
        text = self.logfile.read_text(errors="replace") if self.logfile.exists() else ""
        return re.findall(r"smtpd\[\d+\]: [0-9A-F]+: client=(.*)", text)


@pytest.fixture
def running(host, tmp_path):
    """running(argv, port): a program, once it listens there."""
    with contextlib.ExitStack() as closing:
        def run(argv, port):
            with open(tmp_path / f"{pathlib.Path(argv[0]).name}.log", "ab") as log:
                process = host.popen([*mta.DIE_WITH_PARENT, *map(str, argv)], stdin=subprocess.DEVNULL,
                                     stdout=log, stderr=log)
            closing.callback(process.wait)
            closing.callback(process.kill)
            host.wait_listening(port, alive=lambda: process.poll() is None)
            return process
        yield run


@pytest.fixture
def haproxy(running, tmp_path):
    def run(server, bind=f"127.0.0.1:{DOOR}"):
        path = tmp_path / f"haproxy-{bind.partition(' ')[0]}.cfg"
        path.write_text(HAPROXY.format(bind=bind, server=server))
        return running(["haproxy", "-db", "-f", path], int(re.search(r":(\d+)", bind)[1]))
    return run


@pytest.fixture
def postfix(host):
    with contextlib.ExitStack() as closing:
        yield lambda *lines, **options: closing.enter_context(Postfix(host, *lines, **options))


def deliver(port=DOOR, source=CLIENT, messages=1, tls=None, starttls=None):
    """Messages over one connection, with TLS from the first octet, or later, if there is a context for it."""
    client = peers.connect("127.0.0.1", port, source=(source, 0))
    if tls:
        client.begin_tls(tls, certificates.HOST)
    client.expect("220")
    client.ask("EHLO client.example", "250")
    if starttls:
        client.ask("STARTTLS", "220")
        client.begin_tls(starttls, certificates.HOST)
        client.ask("EHLO inside.example", "250")
    for _ in range(messages):
        send_message(client)
    client.ask("QUIT", "221")
    client.close()


def refused(source):
    """A client from there is for the access rules of the server behind."""
    client = peers.connect("127.0.0.1", 2525, source=(source, 0))
    client.expect("220")
    client.ask("EHLO client.example", "250")
    client.ask("MAIL FROM:<a@client.example>", "250")
    client.ask("RCPT TO:<b@mail.test>", "554 5.7.1")
    client.close()


@pytest.mark.parametrize("header", ["send-proxy", "send-proxy-v2", "send-proxy-v2 proxy-v2-options crc32c",
                                    "send-proxy-v2-ssl proxy-v2-options ssl,cert-cn,ssl-cipher,crc32c"])
def test_55_haproxy_in_front(warp, mail_server, haproxy, header):
    """Its v1 and its v2, with checksum and TLVs: the client is the one that HAProxy had."""
    server = mail_server()
    proxy = warp(*GUARD, "--accept-proxy", "127.0.0.1", "--tls", "none", upstream=server).listen()
    haproxy(f"127.0.0.1:2525 {header}")
    deliver()
    record = proxy.wait_for("message")
    assert record["client"]["ip"] == CLIENT and record["proxy"]["ip"] == "127.0.0.1"
    assert len(server.messages) == 1 and not proxy.records("error")


@pytest.mark.parametrize("header, shows", [
    ("send-proxy-v2", False), ("send-proxy-v2-ssl", False), ("send-proxy-v2-ssl-cn", False), ("send-proxy-v2-ssl-cn", True),
    ("send-proxy-v2-ssl-cn proxy-v2-options ssl-cipher,crc32c", True)])
@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3], ids=str)
def test_55_haproxy_ends_tls(warp, certs, mail_server, haproxy, tmp_path, header, shows, version):
    """What it says of the client's TLS, and of a certificate that the client shows, is in records, and is Received's word."""
    server = mail_server()
    proxy = warp(*GUARD, "--accept-proxy", "127.0.0.1", "--tls", "none", "--received", upstream=server).listen()
    both = tmp_path / "both.pem"
    both.write_bytes(b"".join(path.read_bytes() for path in certs.pair("rsa")))
    haproxy(f"127.0.0.1:2525 {header}", f"127.0.0.1:{DOOR} ssl crt {both} ca-file {certs.ca} verify optional")
    tls = certs.trusting(version)
    tls.minimum_version = version
    if shows:
        tls.load_cert_chain(*certs.pair("localhost"))
    deliver(tls=tls)
    told = proxy.wait_for("message")["client"]["tls"]
    assert b"with ESMTPS" in server.messages[0]["data"] if "ssl" in header else told is None
    if "ssl" in header:
        cipher = told.pop("cipher")
        name = {"cn": "localhost"} if shows else {}
        assert told == {"version": "TLSv1.3" if version.name == "TLSv1_3" else "TLSv1.2", "verified": shows, **name}
        assert re.fullmatch("(TLS_|ECDHE-RSA-)[A-Z0-9_-]+", cipher) if "ssl-cipher" in header else cipher is None
    assert not proxy.records("error")


def told_of(server):
    """The TLVs of the header that begins a connection, with those in PP2_TYPE_SSL, as HAProxy's numbers name them."""
    tlvs = read_v2(server)[-1]
    nested = tlvs.pop(0x20, b"")[5:]
    while nested:
        kind, length = struct.unpack(">BH", nested[:3])
        tlvs[kind], nested = nested[3:3 + length], nested[3 + length:]
    return tlvs


ALPN, AUTHORITY, VERSION, CN, CIPHER, SIGNATURE, KEY = 1, 2, 0x21, 0x22, 0x23, 0x24, 0x25


@pytest.mark.parametrize("kind, signature, key", [("good", b"ecdsa-with-SHA256", b"EC256"), ("p384", b"ecdsa-with-SHA256", b"EC384"),
                                                  ("rsa", b"ecdsa-with-SHA256", b"RSA2048"), ("chained", b"RSA-SHA256", b"EC256")])
def test_55_names_and_certificates_as_haproxy_tells(warp, certs, haproxy, tmp_path, kind, signature, key):
    """HAProxy tells of its certificate and of the name that the client has asked for: we pass that on, show the name in records, and tell
    the same of our own."""
    both = tmp_path / "both.pem"
    both.write_bytes(b"".join(path.read_bytes() for path in certs.pair(kind)))
    tls = certs.trusting()
    tls.load_cert_chain(*certs.pair("localhost"))
    tls.set_alpn_protocols(["smtp"])
    options = "send-proxy-v2-ssl-cn proxy-v2-options ssl,cert-cn,ssl-cipher,cert-sig,cert-key,authority,crc32c"
    ends = f"ssl crt {both} alpn smtp ca-file {certs.ca} verify optional"
    listener = peers.Listener()
    haproxy(f"{listener.name_port} {options}", f"127.0.0.1:{DOOR} {ends}")
    client = peers.connect("127.0.0.1", DOOR)
    client.begin_tls(tls, certificates.HOST)
    said = told_of(listener.accept())
    said.pop(3)     # the checksum
    assert said.pop(CIPHER) and said == {ALPN: b"smtp", AUTHORITY: certificates.HOST.encode(), VERSION: b"TLSv1.2", CN: b"localhost", SIGNATURE: signature, KEY: key}

    proxy = warp(*GUARD, "--accept-proxy", "127.0.0.1", "--send-proxy", "v2", "--tls", "none").listen()
    haproxy(f"127.0.0.1:2525 {options}", f"127.0.0.1:{DOOR + 1} {ends}")
    client = peers.connect("127.0.0.1", DOOR + 1)
    client.begin_tls(tls, certificates.HOST)
    server = proxy.upstream.accept()
    passed_on = told_of(server)
    assert passed_on.pop(CIPHER) and passed_on == said
    server.send("220 server.example")
    client.expect("220")
    assert proxy.wait_for("connect")["authority"] == certificates.HOST


@pytest.mark.parametrize("name", [certificates.HOST, None, "any_name.test"])
def test_55_names_and_certificates_for_haproxy(warp, certs, haproxy, mail_server, tmp_path, name):
    """It reads what we tell, and logs the name."""
    server = mail_server()
    haproxy(server.name_port, bind=f"127.0.0.1:{DOOR} accept-proxy\n    log-format name=%[fc_pp_authority]=")
    proxy = warp(*certs.options("wrong-name"), *certs.options("rsa"), "--client-tls", "implicit", "--send-proxy", "v2", "--tls", "none",
                 "--upstream", f"127.0.0.1:{DOOR}").listen()
    tls = certs.trusting()
    tls.check_hostname = False
    client = peers.connect("127.0.0.1", 2525)
    client.begin_tls(tls, name)
    client.expect("220")
    client.ask("EHLO client.example", "250")
    send_message(client)
    client.ask("QUIT", "221")
    client.close()
    log = tmp_path / "haproxy.log"
    proxy.wait_until(lambda: "name=" in log.read_text(), "the log of HAProxy")
    assert f"name={name or '-'}=" in log.read_text()
    assert len(server.messages) == 1 and "authority" not in proxy.wait_for("message")

    direct = warp(*certs.options("wrong-name"), *certs.options("rsa"), "--client-tls", "implicit", "--send-proxy", "v2", "--tls", "none")
    direct.connect().begin_tls(tls, name)
    told = told_of(direct.upstream.accept())
    assert told.pop(CIPHER) and told == {VERSION: b"TLSv1.2", SIGNATURE: b"ecdsa-with-SHA256", **({AUTHORITY: name.encode()} if name else {}),
                                         KEY: b"RSA2048" if name == certificates.HOST else b"EC256"}


def test_55_haproxy_without_tls(warp, mail_server, haproxy):
    """It says that there is none: a client that must not say AUTH in plain is not shown it."""
    proxy = warp(*GUARD, "--accept-proxy", "127.0.0.1", "--tls", "none", upstream=mail_server("AUTH PLAIN")).listen()
    haproxy("127.0.0.1:2525 send-proxy-v2-ssl")
    deliver()
    assert proxy.wait_for("message")["client"]["tls"] is None


@pytest.mark.parametrize("header", ["send-proxy-v2", "send-proxy-v2-ssl"])
def test_65_haproxy_lets_tls_through(warp, certs, mail_server, haproxy, header):
    """The client's handshake comes behind the header, and is with us."""
    server = mail_server()
    proxy = warp(*GUARD, "--accept-proxy", "127.0.0.1", "--tls", "none", *certs.options(), "--client-tls", "implicit",
                 upstream=server).listen()
    haproxy(f"127.0.0.1:2525 {header}")
    deliver(tls=certs.trusting())
    record = proxy.wait_for("message")
    assert record["client"]["ip"] == CLIENT and record["client"]["tls"]["version"] == "TLSv1.2"


def test_55_haproxy_looks_after_it(warp, mail_server, haproxy, host):
    """Its checks by SMTP, with a header of their own (LOCAL): no error, and mail goes on."""
    proxy = warp(*GUARD, "--accept-proxy", "127.0.0.1", "--tls", "none", upstream=mail_server()).listen()
    haproxy("127.0.0.1:2525 send-proxy-v2 check check-send-proxy inter 200ms\n    option smtpchk EHLO probe.example")
    proxy.wait_for("close", count=3)
    deliver()
    assert not proxy.records("error")
    assert {record["client"]["ip"] for record in proxy.records("close")} >= {"127.0.0.1"}
    assert "probe.example" in {record["helo"] for record in proxy.records("close")}


def test_55_nginx_in_front(warp, mail_server, running, tmp_path):
    proxy = warp(*GUARD, "--accept-proxy", "127.0.0.0/8", "--tls", "none", upstream=mail_server()).listen()
    config = tmp_path / "nginx.conf"
    config.write_text(NGINX.format(directory=tmp_path, door=DOOR))
    running(["/usr/sbin/nginx", "-c", config, "-p", tmp_path], DOOR)
    deliver()
    assert proxy.wait_for("message")["client"]["ip"] == CLIENT


@pytest.mark.parametrize("version", ["v1", "v2"])
@pytest.mark.parametrize("inward", ["send-proxy", "send-proxy-v2", None])
def test_55_bridged_to_postfix(warp, haproxy, postfix, version, inward):
    """smtpd_upstream_proxy_protocol: Postfix takes the client from the header."""
    server = postfix("smtpd_upstream_proxy_protocol = haproxy")
    warp("--tls", "none", "--send-proxy", version, "--upstream", "127.0.0.1:25",
         *([*GUARD, "--accept-proxy", "127.0.0.1"] if inward else [])).listen()
    if inward:
        haproxy(f"127.0.0.1:2525 {inward}")
    deliver(DOOR if inward else 2525)
    server.wait_stored(1)
    assert server.clients() == [f"unknown[{CLIENT}]"]


@pytest.mark.parametrize("version", ["v1", "v2"])
@pytest.mark.parametrize("tls", [False, True])
def test_55_header_for_haproxy(warp, certs, haproxy, postfix, version, tls):
    """accept-proxy of HAProxy behind smtpwarp, which tells Postfix."""
    server = postfix("smtpd_upstream_proxy_protocol = haproxy")
    haproxy("127.0.0.1:25 send-proxy-v2", bind=f"127.0.0.1:{DOOR} accept-proxy")
    own = [*certs.options(), "--client-tls", "implicit"] if tls else []
    warp("--tls", "none", "--send-proxy", version, "--upstream", f"127.0.0.1:{DOOR}", *own).listen()
    deliver(2525, tls=certs.trusting() if tls else None)
    server.wait_stored(1)
    assert server.clients() == [f"unknown[{CLIENT}]"]


@pytest.fixture
def dovecot(running, mail_server):
    """dovecot(): a submission server on port 587 that wants a PROXY header; returns where its mail goes."""
    with tempfile.TemporaryDirectory() as directory:
        path = pathlib.Path(directory)
        path.chmod(0o755)       # its users come in, too
        (path / "home").mkdir()
        (path / "home").chmod(0o777)

        def run():
            server = mail_server()
            (path / "dovecot.conf").write_text(DOVECOT.format(directory=directory, relay=server.port))
            running(["/usr/sbin/dovecot", "-F", "-c", path / "dovecot.conf"], 587)
            return server
        yield run


@pytest.mark.parametrize("version, tls, front, shown", [
    ("v2", True, None, True), ("v2", False, None, False), ("v1", True, None, False),
    ("v2", True, "send-proxy-v2-ssl", True), ("v2", True, "send-proxy-v2", False), ("v2", False, "send-proxy-v2-ssl", False)])
def test_55_dovecot_reads_of_tls(warp, certs, haproxy, dovecot, tmp_path, version, tls, front, shown):
    """Ours, or the one that HAProxy before us has ended: it lets only clients log in of whose TLS it was told."""
    server = dovecot()
    inward = [*GUARD, "--accept-proxy", "127.0.0.1"] if front else [*certs.options(), "--client-tls", "implicit"] if tls else []
    warp("--tls", "none", "--send-proxy", version, "--upstream", "127.0.0.1:587", "--plain-auth", *inward).listen()
    if front:
        both = tmp_path / "both.pem"
        both.write_bytes(b"".join(path.read_bytes() for path in certs.pair("rsa")))
        haproxy(f"127.0.0.1:2525 {front}", f"127.0.0.1:{DOOR}" + (f" ssl crt {both}" if tls else ""))
    client = peers.connect("127.0.0.1", DOOR if front else 2525, source=(CLIENT, 0))
    if tls:
        client.begin_tls(certs.trusting(), certificates.HOST)
    client.expect("220")
    assert ("AUTH PLAIN" in client.ask("EHLO client.example", "250").texts) == shown
    if shown:
        client.ask("AUTH PLAIN AHVzZXIAc2VjcmV0", "235")
        send_message(client)
        assert len(server.messages) == 1
    client.close()


@pytest.mark.parametrize("options", [["--tls", "none"], ["--tls", "encrypt"],
                                     ["--tls", "none", "--connect-on", "recipient"]])
def test_54_postfix_and_xclient(warp, postfix, options):
    """Inside TLS as well; its access rules and its log have the client."""
    server = postfix("smtpd_authorized_xclient_hosts = 127.0.0.1", "smtpd_client_restrictions = check_client_access "
                     "inline:{127.0.0.8=reject}", certificate=True)
    proxy = warp(*options, "--xclient", "--upstream", "127.0.0.1:25").listen()
    deliver(2525, messages=2)
    server.wait_stored(2)
    assert server.clients() == [f"unknown[{CLIENT}]"] * 2
    refused("127.0.0.8")
    assert not proxy.records("error")


@pytest.mark.parametrize("how", ["require", "passthrough"])
@pytest.mark.parametrize("tell", ["--xclient", "--send-proxy"])
def test_54_postfix_and_starttls(warp, certs, postfix, how, tell):
    """Of the client, who does TLS with us, or with Postfix itself: passed through, all that is told goes ahead of it."""
    lines = ["smtpd_upstream_proxy_protocol = haproxy"] if tell == "--send-proxy" else []
    server = postfix("smtpd_authorized_xclient_hosts = 127.0.0.1", *lines, certificate=True)
    own = certs.options() if how == "require" else []
    proxy = warp(*own, "--client-tls", how, tell, *(["v2"] if lines else []), "--upstream", "127.0.0.1:25").listen()
    deliver(2525, messages=2, starttls=certs.trusting() if own else ssl.create_default_context(cafile=server.ca))
    server.wait_stored(2)
    assert server.clients() == [f"unknown[{CLIENT}]"] * 2
    assert all("inside.example" in one.trace and "TLSv1" in one.trace for one in server.stored())
    assert len(proxy.records("message")) == (2 if own else 0) and not proxy.records("error")


def test_54_postfix_refuses_at_xclient(warp, postfix):
    """A client that its rules refuse before EHLO, or a proxy without the right: later, and the reason is in the log."""
    server = postfix("smtpd_authorized_xclient_hosts = 127.0.0.1", "smtpd_delay_reject = no",
                     "smtpd_client_restrictions = check_client_access inline:{127.0.0.8=reject}")
    proxy = warp("--tls", "none", "--xclient", "--upstream", "127.0.0.1:25").listen()
    client = peers.connect("127.0.0.1", 2525, source=("127.0.0.8", 0))
    client.expect("220")
    client.ask("EHLO client.example", "451 4.3.5")
    client.close()
    assert "XCLIENT was refused: 554" in proxy.wait_for("error")["error"]
    deliver(2525)
    server.wait_stored(1)


@pytest.mark.parametrize("options", [[], ["--connect-on", "recipient"]])
@pytest.mark.parametrize("verb", ["EHLO", "HELO"])
def test_54_postfix_and_xforward(warp, postfix, options, verb):
    """For its log: each message has the client that sent it."""
    server = postfix("smtpd_authorized_xforward_hosts = 127.0.0.1")
    proxy = warp(*options, "--tls", "none", "--xforward", "--upstream", "127.0.0.1:25").listen()
    client = peers.connect("127.0.0.1", 2525, source=(CLIENT, 0))
    client.expect("220")
    client.ask(f"{verb} client.example", "250")
    for _ in range(2):
        send_message(client)
    client.close()
    server.wait_stored(2)
    session = proxy.wait_for("message")["session"]
    told = server.clients()
    assert len(told) == 2 and all(f"orig_client=unknown[{CLIENT}]" in line for line in told)
    assert all(f"orig_queue_id={session}" in line for line in told)
    assert not proxy.records("error")


def test_76_received_is_above_the_message_and_below_postfix(warp, postfix):
    """And a real server takes it for what it is."""
    server = postfix()
    warp("--tls", "none", "--received", "--hostname", "proxy.example", "--upstream", "127.0.0.1:25").listen()
    deliver(2525)
    server.wait_stored(1)
    stored = server.stored()[0]
    hops = re.findall(r"^Received: from (\S+)", stored.trace, re.M)
    assert hops == ["client.example", "client.example"]
    assert f"([{CLIENT}])\n\tby proxy.example with ESMTP" in stored.trace
    assert stored.content == b"Subject: hello\n\nHello.\n"
