"""The client's host name, for --xclient, --xforward and --received: looked up in the DNS and back, as Postfix and Willi do.
PROTOCOL 54, 76. Name servers are a real NSD, and a scripted one; what an answer is made of is in unit/dnsmessage.c."""
import socket
import subprocess
import threading

import pytest

import nameservers
import peers
from nameservers import A, AAAA, PTR, Nsd, Rude, record, reply
from test_identity import ALL, FORWARD, LATE, V1, V1_SIX, begin, proxied, transaction, xserver      # noqa: F401
from test_identity_real import CLIENT, Postfix, deliver, refused
from warp import BINARY

NAME = "mail.client.example"
LONG = ".".join(["x" * 63] * 3) + "." + "y" * 61       # 253 octets
ZONES = {
    "2.0.192.in-addr.arpa": [
        f"1 PTR {NAME}.", "2 PTR gone.client.example.", "3 PTR other.client.example.", "4 CNAME 4.0-127",
        "4.0-127 PTR a--b_.client.example.", r"5 PTR a\013\010XCLIENT.client.example.", r"6 PTR a\032b.client.example.",
        "7 PTR 192.0.2.7.", "8 PTR -x.client.example.", r"9 PTR b\195\188cher.example.", f"10 PTR {LONG}.", "11 PTR .",
        r"12 PTR a\.b.client.example.", *(f"13 PTR many-names-{n}.client.example." for n in range(60)),
        "14 PTR many.client.example.", r"15 PTR x\000.client.example.", f"16 PTR {NAME}.", r"17 PTR a+b=.client.example."],
    "0.0.0.0.8.b.d.0.1.0.0.2.ip6.arpa": [f"{'.'.join('1' + '0' * 19)} PTR {NAME}."],
    "client.example": ["mail A 192.0.2.99", "mail A 192.0.2.1", "mail AAAA 2001:db8::1", "other A 192.0.2.99",
                       "other AAAA 2001:db8::3", "a--b_ CNAME other-name", "other-name A 192.0.2.4",
                       r"a\.b A 192.0.2.12", *(f"many-names-{n} A 192.0.2.13" for n in range(60)),
                       *(f"many A 192.0.2.{n}" for n in range(14, 64))],
    LONG.partition(".")[2]: [f"{LONG.partition('.')[0]} A 192.0.2.10"],
}
# Last number of the client's address -> NAME, REVERSE_NAME; None: [UNAVAILABLE]
CASES = {1: (NAME, NAME), 2: (None, "gone.client.example"), 3: (None, "other.client.example"),
         4: ("a--b_.client.example",) * 2, 5: (None, None), 6: (None, None), 7: (None, None), 8: (None, None),
         9: (None, None), 10: (LONG, LONG), 11: (None, None), 12: (None, None), 14: ("many.client.example",) * 2,
         15: (None, None), 16: (None, NAME), 17: (None, None), 99: (None, None)}


@pytest.fixture
def nsd(host, tmp_path):
    with Nsd(host, tmp_path / "nsd", ZONES) as server:
        yield server


def told(server, verb="XCLIENT"):
    return [line for line in server.commands if line.startswith(verb)]


def values(line):
    return dict(item.split("=", 1) for item in line.split()[1:])


def asking(server, *options, timeout=60):
    return ["--dns-server", getattr(server, "name_port", "127.0.0.1"), "--dnsbl-timeout", timeout, *options]


def answering(query, back="192.0.2.1"):
    """As one that has the right of it."""
    kind = nameservers.query_type(query)
    if kind == PTR:
        labels = b"".join(bytes([len(label)]) + label.encode() for label in NAME.split("."))
        return reply(query, record(PTR, labels + b"\0"))
    return reply(query, record(kind, socket.inet_pton(socket.AF_INET if kind == A else socket.AF_INET6, back)))


@pytest.mark.parametrize("last", CASES)
def test_54_name_of_the_client(nsd, proxied, mail_server, last):
    """NAME leads back to the address; REVERSE_NAME need not. What cannot be a host's name never reaches the server."""
    server = xserver(mail_server, "XCLIENT NAME REVERSE_NAME")
    client = begin(proxied(*asking(nsd), "--xclient", upstream=server), V1.replace(b"192.0.2.1 ", b"192.0.2.%d " % last))
    client.expect("220")
    client.ask("EHLO c", "250")
    name, reverse = (value or "[UNAVAILABLE]" for value in CASES[last])
    assert server.commands[0] == server.commands[-1] == "EHLO c"
    assert [item for line in server.commands[1:-1] for item in line.split()[1:]] == [f"NAME={name}", f"REVERSE_NAME={reverse}"]


def test_54_name_of_an_ipv6_client(nsd, proxied, mail_server):
    server = xserver(mail_server, "XCLIENT NAME")
    client = begin(proxied(*asking(nsd), "--xclient", upstream=server), V1_SIX)
    client.expect("220")
    client.ask("EHLO c", "250")
    assert told(server) == [f"XCLIENT NAME={NAME}"]


def test_54_one_of_many_names(nsd, proxied, mail_server):
    """An answer that takes TCP."""
    server = xserver(mail_server, "XCLIENT NAME REVERSE_NAME")
    client = begin(proxied(*asking(nsd), "--xclient", upstream=server), V1.replace(b"192.0.2.1 ", b"192.0.2.13 "))
    client.expect("220")
    client.ask("EHLO c", "250")
    name = values(told(server)[0])["NAME"]
    assert name.startswith("many-names-") and values(told(server)[0])["REVERSE_NAME"] == name


@pytest.mark.parametrize("mode", [[], LATE])
def test_54_name_for_all_of_them(nsd, proxied, mail_server, mode):
    """Looked up once; XFORWARD has it before each MAIL, a Received field on top of each message (PROTOCOL 76)."""
    server = xserver(mail_server, ALL, FORWARD)
    client = begin(proxied(*asking(nsd), *mode, "--xclient", "--xforward", "--received", upstream=server), V1)
    client.expect("220")
    client.ask("EHLO client.example", "250")
    transaction(client)
    transaction(client)
    assert [values(line)["NAME"] for line in told(server) + told(server, "XFORWARD")] == [NAME] * 3
    assert [message["data"].startswith(f"Received: from client.example ({NAME} [192.0.2.1])\r\n".encode())
            for message in server.messages] == [True, True]


@pytest.mark.parametrize("answer, timeout, name, reverse", [
    ("servfail", 60, "[TEMPUNAVAIL]", "[TEMPUNAVAIL]"), ("silence", 0.3, "[TEMPUNAVAIL]", "[TEMPUNAVAIL]"),
    ("half", 0.3, "[TEMPUNAVAIL]", NAME), ("nxdomain", 60, "[UNAVAILABLE]", "[UNAVAILABLE]"),
    ("loop", 60, "[TEMPUNAVAIL]", "[TEMPUNAVAIL]"), ("guess", 0.3, "[TEMPUNAVAIL]", "[TEMPUNAVAIL]"),
    ("short", 60, "[UNAVAILABLE]", NAME), ("alias", 60, "[UNAVAILABLE]", "[UNAVAILABLE]")])
def test_54_name_that_cannot_be_had(proxied, mail_server, answer, timeout, name, reverse):
    """XCLIENT has two words for that, XFORWARD one; the first means that it may be known later."""
    answers = {
        "servfail": lambda query, tcp: reply(query, flags=0x8182), "silence": lambda query, tcp: None,
        "half": lambda query, tcp: answering(query) if nameservers.query_type(query) == PTR else None,
        "nxdomain": lambda query, tcp: reply(query, flags=0x8183),
        "loop": lambda query, tcp: reply(query, record(PTR, b"\x01a\xc0\x0c\xc0", name=b"\xc0\x20")),
        "guess": lambda query, tcp: [reply(query, record(PTR, b"\x04evil\0"), ident=n) for n in range(20)],
        "short": lambda query, tcp: answering(query) if nameservers.query_type(query) == PTR else
        reply(query, record(A, b"\xc0\0\2")),
        "alias": lambda query, tcp: reply(query, record(nameservers.CNAME, b"\xc0\x0c"))}
    with Rude(answers[answer]) as names:
        server = xserver(mail_server, "XCLIENT NAME REVERSE_NAME", "XFORWARD NAME")
        proxy = proxied(*asking(names, timeout=timeout), "--xclient", "--xforward", "--received", upstream=server)
        client = begin(proxy, V1)
        client.expect("220")
        client.ask("EHLO c", "250")
        transaction(client)
    assert told(server) == [f"XCLIENT NAME={name} REVERSE_NAME={reverse}"]
    assert told(server, "XFORWARD") == ["XFORWARD NAME=[UNAVAILABLE]"]
    assert server.messages[0]["data"].startswith(b"Received: from c ([192.0.2.1])\r\n")


class Gate:
    """A name server that keeps its answers until it is opened."""

    def __init__(self):
        self.opened = threading.Event()
        self.server = Rude(lambda query, tcp: answering(query) if self.opened.wait(peers.TIMEOUT) else None)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.opened.set()
        self.server.close()


@pytest.fixture
def gate(host):
    with Gate() as made:
        yield made


def test_54_connection_and_greeting_do_not_wait(gate, proxied):
    """What is not told of the name is not held up by the question: only XCLIENT waits."""
    proxy = proxied(*asking(gate.server), "--xclient")
    client = begin(proxy, V1)
    server = proxy.upstream.accept()
    server.send("220 server.example ESMTP")
    client.expect("220")
    client.send("EHLO c")
    server.expect_line("EHLO c")
    server.send("250-server.example", "250 XCLIENT NAME")
    server.silent(0.1)
    client.silent(0)
    gate.opened.set()
    server.expect_line(f"XCLIENT NAME={NAME}")
    server.send("220 server.example")
    server.expect_line("EHLO c")
    server.send("250 server.example")
    client.expect("250")


@pytest.mark.parametrize("mode", [[], LATE])
@pytest.mark.parametrize("option", ["--xforward", "--received"])
def test_54_only_mail_waits(gate, proxied, mail_server, mode, option):
    """With commands pipelined, whose replies stay in order."""
    server = xserver(mail_server, "XFORWARD NAME")
    proxy = proxied(*asking(gate.server), *mode, option, upstream=server)
    client = begin(proxy, V1)
    client.expect("220")
    client.ask("EHLO c", "250")
    client.send("MAIL FROM:<a@b>", "RCPT TO:<c@d>", "DATA")
    proxy.wait_asleep()
    assert not any(line.startswith(("MAIL", "XFORWARD")) for line in server.commands)
    gate.opened.set()
    assert [client.reply().code for _ in range(3)] == [250, 250, 354]
    client.send_raw(b"x\r\n.\r\n")
    client.expect("250")
    assert told(server, "XFORWARD") == ([f"XFORWARD NAME={NAME}"] if option == "--xforward" else [])
    assert (NAME.encode() in server.messages[0]["data"]) == (option == "--received")


@pytest.mark.parametrize("mode", [[], LATE])
@pytest.mark.parametrize("option", ["--xclient", "--received"])
@pytest.mark.parametrize("limit", ["--idle-timeout", "--command-timeout"])
def test_67_waiting_client_is_not_idle(gate, proxied, mail_server, mode, option, limit):
    """Nor slow to finish what it has pipelined: it is us who do not go on."""
    server = xserver(mail_server, "XCLIENT NAME")
    client = begin(proxied(*asking(gate.server), *mode, option, limit, 1, upstream=server), V1)
    client.expect("220")
    client.send("EHLO c", "MAIL FROM:<a@b>", "RCPT TO:<c@d>")
    if mode or option == "--received":
        client.expect("250")
    if mode:
        client.expect("250")
    client.silent(1.3)
    gate.opened.set()
    client.expect("250")


@pytest.mark.parametrize("option, mode", [("--xclient", []), ("--xforward", []), ("--xclient", LATE), ("--xforward", LATE)])
@pytest.mark.parametrize("how", ["close", "421 4.3.2 bye", "250 2.0.0 what?"])
def test_54_server_lost_while_it_waits(gate, proxied, option, mode, how):
    """Nothing is said to a server that is gone, nor to the next one too early."""
    proxy = proxied(*asking(gate.server), *mode, option, "--command-timeout", 60)
    client = begin(proxy, V1)
    if mode:
        client.expect("220")
        client.ask("EHLO c", "250")
        client.ask("MAIL FROM:<a@b>", "250")
        client.send("RCPT TO:<c@d>")
    server = proxy.upstream.accept()
    server.send("220 x")
    if not mode:
        client.expect("220")
        client.send("EHLO c")
    server.expect_line("EHLO c")
    server.send("250-x", f"250 {option[2:]} NAME")
    if not mode and option == "--xforward":
        client.expect("250")
        client.send("MAIL FROM:<a@b>")
    server.silent()
    server.close() if how == "close" else server.send(how)
    client.expect("451" if mode else "421")
    gate.opened.set()
    if mode:
        client.send("RSET", "MAIL FROM:<a@b>", "RCPT TO:<c@d>")
        server = proxy.upstream.accept()
        server.silent()
        server.send("220 x")
        server.expect_line("EHLO c")
        server.send("250-x", f"250 {option[2:]} NAME")
        server.expect_line(f"{option[2:].upper()} NAME={NAME}")
        assert [client.reply().code for _ in range(2)] == [250, 250]


@pytest.mark.parametrize("option", ["--xclient", "--xforward"])
def test_54_next_server_while_it_waits(gate, proxied, option):
    """What was due on the connection before is not said on this one, which has not even greeted."""
    proxy = proxied(*asking(gate.server), *LATE, option)
    first, second = proxy.upstream, peers.Listener(group=proxy.group)
    proxy.options += ["--upstream", first.name_port, "--upstream", second.name_port]
    client = begin(proxy, V1)
    client.expect("220")
    client.ask("EHLO c", "250")
    client.ask("MAIL FROM:<a@b>", "250")
    client.send("RCPT TO:<c@d>")
    server = first.accept()
    server.send("220 x")
    server.expect_line("EHLO c")
    server.send("250-x", f"250 {option[2:]} NAME")
    server.silent()
    server.close()
    server = second.accept()
    gate.opened.set()
    server.silent(0.2)
    server.send("220 x")
    server.expect_line("EHLO c")
    server.send("250-x", f"250 {option[2:]} NAME")
    server.expect_line(f"{option[2:].upper()} NAME={NAME}")
    second.close()


@pytest.mark.parametrize("how", ["close", "half_close"])
def test_54_client_leaves_while_it_waits(gate, proxied, mail_server, how):
    """What it said before it closed its side is answered."""
    server = xserver(mail_server, "XCLIENT NAME")
    proxy = proxied(*asking(gate.server), "--xclient", upstream=server)
    client = begin(proxy, V1)
    client.expect("220")
    client.send("EHLO c", "QUIT")
    proxy.wait_until(lambda: server.commands, "EHLO")
    getattr(client, how)()
    gate.opened.set()
    if how == "half_close":
        client.expect("250")
        client.expect("221")
    assert proxy.wait_for("close")["by"] == "client"


@pytest.mark.parametrize("options, asked", [
    (["--xclient", "--client-names", "none"], False), (["--received", "--client-names=none"], False), ([], False),
    (["--received"], True), (["--xforward", "--client-names", "lookup"], True)])
def test_54_who_is_asked_for(proxied, mail_server, options, asked):
    """Nobody, where nobody is told."""
    with Rude(lambda query, tcp: answering(query)) as names:
        server = xserver(mail_server, "XCLIENT NAME REVERSE_NAME")
        proxy = proxied(*asking(names), *options, upstream=server)
        client = begin(proxy, V1)
        client.expect("220")
        client.ask("EHLO c", "250")
        transaction(client)
        proxy.wait_until(lambda: len(names.queries) >= 2 * asked, "the questions")      # for which nothing has to wait
        kinds = [nameservers.query_type(query) for query in names.queries]
    assert kinds == ([PTR, A] if asked else [])
    assert told(server) == (["XCLIENT NAME=[UNAVAILABLE] REVERSE_NAME=[UNAVAILABLE]"] if "--xclient" in options else [])


def test_54_questions(proxied, mail_server):
    """By the address's own family; ids are not to be guessed."""
    with Rude(lambda query, tcp: answering(query, "2001:db8::1")) as names:
        server = xserver(mail_server, "XCLIENT NAME")
        client = begin(proxied(*asking(names), "--xclient", upstream=server), V1_SIX)
        client.expect("220")
        client.ask("EHLO c", "250")
        asked = [(nameservers.query_name(query)[0], nameservers.query_type(query)) for query in names.queries]
    assert asked == [(".".join("1" + "0" * 23 + "8bd01002") + ".ip6.arpa", PTR), (NAME, AAAA)]
    assert told(server) == [f"XCLIENT NAME={NAME}"]


def test_client_names_that_are_none(host):
    for value in "", "yes", "Lookup":
        assert subprocess.run([BINARY, "--check", "--client-names", value], capture_output=True).returncode == 64


# A real server

@pytest.mark.parametrize("options", [["--xclient"], ["--xclient", "--connect-on", "recipient"], ["--xforward"]])
@pytest.mark.parametrize("broken", [False, True])
def test_54_postfix_hears_the_name(host, tmp_path, warp, options, broken):
    """In its log, and for its rules; a name server that fails makes it "unknown", for now."""
    zones = {"0.0.127.in-addr.arpa": [f"9 PTR {NAME}.", f"8 PTR bad.client.example."],
             "client.example": ["mail A 127.0.0.9", "bad A 127.0.0.8"]}
    xclient = "--xclient" in options
    with Nsd(host, tmp_path / "nsd", {} if broken else zones) as names, \
            Postfix(host, "smtpd_authorized_xclient_hosts = 127.0.0.1", "smtpd_authorized_xforward_hosts = 127.0.0.1",
                    "smtpd_client_restrictions = check_client_access inline:{bad.client.example=reject}, "
                    "reject_unknown_reverse_client_hostname" if xclient else "") as server:
        proxy = warp(*asking(names), *options, "--tls", "none", "--upstream", "127.0.0.1:25").listen()
        if broken and xclient:
            client = peers.connect("127.0.0.1", 2525, source=(CLIENT, 0))
            client.expect("220")
            client.ask("EHLO client.example", "250")
            client.ask("MAIL FROM:<a@client.example>", "250")
            client.ask("RCPT TO:<b@mail.test>", "450 4.7.1")
            client.close()
            return
        deliver(2525)
        server.wait_stored(1)
        shown = "unknown" if broken else NAME
        assert f"{shown}[{CLIENT}]" in server.clients()[0]
        if xclient:
            refused("127.0.0.8")
        assert not proxy.records("error")
