"""A real mail server's queue, redirected by the kernel, to a real mail server: every message arrives once, identical.

Postfix as client on one host, Postfix, Exim or OpenSMTPD on the other, IPv4 and IPv6, with and without STARTTLS, 200
messages each. Postfix sends DATA; Exim as client sends BDAT to servers that offer it.
"""
import collections
import functools
import random
import re

import pytest

import certificates
import mta
import netns
from warp import Warp

pytestmark = [
    pytest.mark.skipif(bool(netns.unsupported()), reason=netns.unsupported()),
    pytest.mark.skipif(not mta.PACKAGES.exists(), reason="test/fetch-packages has not been run"),
]

USER = "nobody"     # smtpwarp's; none of the mail servers connects under it
REDIRECT = f"""
table inet smtpwarp {{
    chain output {{
        type nat hook output priority -100; policy accept;
        meta skuid != {USER} tcp dport 25 redirect to :2525
    }}
}}
"""
BIG = 20_000_000


# The queue

def text_lines(rng):
    return [b" ".join(b"word%d" % rng.randrange(10 ** 6) for _ in range(rng.randrange(9)))
            for _ in range(rng.randrange(1, 300))]


def eight_bit(rng):
    octets = bytes(range(0x80, 0x100)) + b" abc"
    return [bytes(rng.choices(octets, k=rng.randrange(200))) for _ in range(rng.randrange(1, 100))]


def long_lines(rng):
    """RFC 5321 4.5.3.1.6 allows 998 octets. PROTOCOL 7"""
    return [b"x" * length for length in (998, 999, 1000, 1001, 2048, 4096, 8192, rng.randrange(999, 30000))]


def dots(rng):
    """PROTOCOL 4"""
    choice = [b".", b"..", b"...", b".text", b"..text", b"text.", b"", b". "]
    return [b"."] + rng.choices(choice, k=rng.randrange(50)) + [b"."]


def attachment(rng):
    return [rng.randbytes(57).hex().encode() for _ in range(2000)]


def big(rng):
    line = rng.randbytes(37).hex().encode()
    return [line] * (BIG // (len(line) + 2))


# kind: how many, the body's lines, and what is special about the envelope
KINDS = {
    "plain": (30, text_lines, {}),
    "eight-bit": (30, eight_bit, {"sender_params": "BODY=8BITMIME"}),
    "long-lines": (25, long_lines, {}),
    "dots": (25, dots, {}),
    "empty": (15, None, {}),        # PROTOCOL 3
    "many-recipients": (5, text_lines, {"copies": 100}),    # PROTOCOL 31
    "null-sender": (20, text_lines, {"sender": ""}),        # PROTOCOL 22
    "utf8": (20, eight_bit, {"sender": "sënder{}@client.test", "recipient": "получатель{}.{}@mail.test",
                             "sender_params": "BODY=8BITMIME SMTPUTF8"}),
    "dsn": (20, text_lines, {"sender_params": "RET=HDRS ENVID=envelope+2B{}",      # PROTOCOL 48
                             "recipient_params": "NOTIFY=SUCCESS,DELAY ORCPT=rfc822;first+2B{}@mail.test"}),
    "attachment": (9, attachment, {}),
    "big": (1, big, {}),
}
COUNT = 200


def make_mail(number, kind, lines, copies=1, sender="sender{}@client.test", recipient="recipient{}.{}@mail.test",
              sender_params="", recipient_params=""):
    rng = random.Random(number)
    header = [b"Message-Id: <%d@client.test>" % number, b"From: someone@client.test",
              b"Date: Thu, 1 Jan 2026 0:00:00 Z", b"Subject: %s" % kind.encode(), b""]
    content = b"".join(line + b"\r\n" for line in header + lines(rng)) if lines else b""
    return mta.Mail(sender.format(number), [recipient.format(number, copy) for copy in range(copies)], content,
                    sender_params.format(number), recipient_params.format(number))


@functools.cache
def make_queue(utf8):
    """Where the server lacks SMTPUTF8, plain messages take the place of those that need it."""
    kinds = [kind if utf8 or kind != "utf8" else "plain" for kind in KINDS for _ in range(KINDS[kind][0])]
    assert len(kinds) == COUNT
    return [make_mail(number, kind, KINDS[kind][1], **KINDS[kind][2]) for number, kind in enumerate(kinds)]


# What arrived

def is_report(stored):
    """A delivery report that the server made, to the sender of a message with NOTIFY=SUCCESS."""
    return stored.sender == "" and stored.recipient.endswith("@client.test")


def deliver(sender, server, queue):
    """Sends the queue; returns what the server stored of it, which must be all of it, once, and the reports."""
    expected = mta.expected(queue)
    notified = [mail for mail in queue if "NOTIFY" in mail.recipient_params]
    sender.submit(queue)
    assert len(sender.queued()) == len(queue)
    sender.release()
    server.wait_stored(expected.total() + len(notified), timeout=120)
    sender.wait_idle()
    server.wait_idle()
    everything = server.stored()
    reports = [one for one in everything if is_report(one)]
    stored = [one for one in everything if not is_report(one)]
    arrived = collections.Counter(one.identity() for one in stored)
    assert arrived == expected, f"missing {list(expected - arrived)[:5]}, unexpected {list(arrived - expected)[:5]}"
    assert sorted(report.recipient for report in reports) == sorted(mail.sender for mail in notified)
    return stored, reports


# What smtpwarp wrote

def plain(address):
    """As Mail has it: {"address": ..., "params": ...} without the parameters."""
    return address["address"]


def check_messages(warp, queue):
    """One `message` record for each message of the queue."""
    by_recipients = {tuple(sorted(mail.recipients)): mail for mail in queue}
    records = warp.records("message")
    assert len(records) == len(queue)
    for record in records:
        mail = by_recipients.pop(tuple(sorted(map(plain, record["rcpt_to"]))))     # Postfix sorts them
        assert plain(record["mail_from"]) == mail.sender
        assert record["result"] == "accepted"
        assert {recipient["code"] for recipient in record["rcpt_to"]} == {250}
        assert record["reply"]["code"] == 250
        assert record["size"] > len(mail.content)      # the client has put its Received on top
        if mail.content:
            assert record["message_id"].strip("<>").encode() in mail.content
        assert said_parameters(mail) <= set(record_parameters(record))


def said_parameters(mail):
    """Those that the client has to pass on as they are; it sets SIZE, and AUTH or BODY as it likes."""
    said = f"{mail.sender_params} {mail.recipient_params}".split()
    return {word for word in said if not word.startswith("BODY=")}


def record_parameters(record):
    for address in record["mail_from"], *record["rcpt_to"]:
        for keyword, value in (address["params"] or {}).items():
            yield keyword if value is True else f"{keyword}={value}"


def check_sessions(warp, server):
    closes = warp.records("close")
    assert len(closes) > 0
    assert sum(record["messages"] for record in closes) == COUNT
    assert warp.records("error") == []
    handshakes = [(record["side"], record["result"], record["verified"]) for record in warp.records("tls")]
    assert handshakes == [("upstream", *result) for result in expected_handshakes(server)] * len(closes)
    for record in warp.records("message"):
        assert bool(record["server"]["tls"]) == server.encrypts


def expected_handshakes(server):
    """Of one session: result and verified."""
    if server.encrypts:
        return [("ok", True)]
    return [("fallback", False)] if server.certificate else []


def check_route(warp, server_address):
    for record in warp.records("connect"):
        assert record["original"] == {"ip": server_address, "port": 25}
        assert record["server"]["ip"] == server_address


def check_trace(stored, encrypted):
    """The server's own view: its Received line says ESMTPS when the connection was encrypted."""
    for one in stored:
        received = re.search(r"^Received: from (client\.test|\S+ \(helo=client\.test\))(.|\n[ \t])*", one.trace, re.M)
        assert received, one.trace
        assert bool(re.search(r"with (?:ESMTPS|UTF8E?SMTPS)", received[0], re.I)) == encrypted, received[0]


def check_reports(reports):
    """The server saw ENVID and ORCPT, xtext and all; Exim shows the xtext, Postfix what it means. PROTOCOL 48"""
    for report in reports:
        number = int(re.search(r"\d+", report.recipient)[0])
        assert re.search(rb"envelope\+(2B)?%d\n" % number, report.content)
        assert re.search(rb"first\+(2B)?%d@mail.test\n" % number, report.content)


# The matrix

families = pytest.mark.parametrize("family", ["ip4", "ip6"])
starttls = pytest.mark.parametrize("tls", [False, True], ids=["plain", "starttls"])


@pytest.fixture
def rig():
    """rig(client class, server class, family, tls): sends the queue through smtpwarp; returns the client's log."""
    def run(client_class, server_class, family, tls):
        with netns.pair() as (client_host, mail_host), server_class(mail_host, certificate=tls) as server, \
                client_class(client_host, relay=getattr(mail_host, family)) as sender:
            client_host.nft(REDIRECT)
            verify = ["--tls-ca", server.ca, "--tls-name", certificates.HOST] if tls else []
            with client_host:
                warp = Warp(client_host, sender.folder("smtpwarp", USER), "--transparent", "--user", USER,
                            "--message-size-limit", 2 * BIG, *verify)
                warp.listen("*:2525")
            queue = make_queue(server.offers_utf8)
            try:
                stored, reports = deliver(sender, server, queue)
            finally:
                warp.close()
            check_trace(stored, server.encrypts)
            if server.reports_envelope:
                check_reports(reports)
            check_messages(warp, queue)
            check_sessions(warp, server)
            check_route(warp, getattr(mail_host, family))
            return sender.logfile.read_text()
    return run


@starttls
@families
@pytest.mark.parametrize("server", [mta.Postfix, mta.Exim, mta.OpenSMTPD])
def test_queue_by_data(rig, server, family, tls):
    log = rig(mta.Postfix, server, family, tls)
    assert set(re.findall(r" status=(\w+)", log)) == {"sent"}


@starttls
@families
@pytest.mark.parametrize("server", [mta.Postfix, mta.Exim])
def test_45_queue_by_bdat(rig, server, family, tls):
    log = rig(mta.Exim, server, family, tls)
    sent = re.findall(r"^.* => .*$", log, re.M)
    assert len(sent) == COUNT
    assert all(" K " in line for line in sent), "K marks what went by BDAT"
    assert " == " not in log, "a message was put off"


@families
def test_58_queue_to_a_server_with_broken_tls(rig, family):
    """STARTTLS is offered, and every handshake fails: each session goes on in plain, on a fresh connection."""
    log = rig(mta.Postfix, mta.OpenSMTPD68, family, True)
    assert set(re.findall(r" status=(\w+)", log)) == {"sent"}
