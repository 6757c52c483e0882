"""LMTP towards the upstream: PROTOCOL 53, RFC 2033. A message has a reply for each recipient there, so a client that speaks
SMTP sends each recipient by itself, and one that speaks LMTP gets all replies."""
import collections
import re
import socket

import pytest

from hooks import Hooks
from peers import Listener
from warp import MESSAGE

LATE = ["--connect-on", "recipient", "--hostname", "proxy.example"]
TWO = "MAIL FROM:<a@client.example>", "RCPT TO:<b@server.example>", "RCPT TO:<c@server.example>"
LOTS = [f"user{number}@server.example" for number in range(12)]


@pytest.fixture
def hooks(tmp_path):
    return Hooks(tmp_path / "hooks")


@pytest.fixture
def lmtp(warp):
    """lmtp(...): as warp(...), with an upstream that speaks LMTP."""
    def make(*options, upstream=None, **settings):
        made = warp(*options, upstream=upstream, **settings)
        if not upstream:
            made.options += ["--upstream", f"lmtp://{made.upstream.name_port}"]
        return made
    return make


def opened(proxy, verb="LHLO", *extensions):
    """A Session with a proxy that has been greeted on both sides."""
    session = proxy.session()
    session.banner()
    session.client.send(f"{verb} client.example")
    session.server.expect_line("LHLO client.example")
    lines = ["server.example", "PIPELINING", *extensions]
    session.server.send(*[f"250-{line}" for line in lines[:-1]], f"250 {lines[-1]}")
    session.client.expect("250")
    return session


def to_two(session, *codes):
    """MAIL and recipients b and c, who get these replies, and DATA."""
    session.client.send(*TWO, "DATA")
    for line in *TWO, "DATA":
        session.server.expect_line(line)
    codes = codes or ("250 2.1.5 b", "250 2.1.5 c")
    session.server.send("250 2.1.0 a", *codes, "354 go on")
    for code in "250", *codes, "354":
        session.client.expect(code)


def to_all(session, verb):
    """As many recipients as this client may have in a message."""
    if verb == "LHLO":
        to_two(session)
    else:
        session.mail()
        session.rcpt()
        session.data()


def sent(session, data=MESSAGE):
    """The message has reached the upstream, which has not answered."""
    session.client.send_raw(data)
    assert session.server.until(b"\r\n.\r\n") == data


def codes_of(record):
    return [recipient["code"] for recipient in record["rcpt_to"]]


def greeted(proxy, verb="EHLO"):
    client = proxy.connect()
    client.expect("220")
    client.ask(f"{verb} client.example", "250")
    return client


def send_to_all(client, recipients, verb, data=MESSAGE):
    """Every recipient's last reply: sends the message in as many transactions as it takes."""
    final, waiting = {}, list(recipients)
    while waiting:
        client.send("MAIL FROM:<a@client.example>", *[f"RCPT TO:<{recipient}>" for recipient in waiting])
        client.expect("250")
        codes = {recipient: client.reply() for recipient in waiting}
        taken = [recipient for recipient in waiting if codes[recipient].code == 250]
        later = [recipient for recipient in waiting if codes[recipient].startswith("452 4.5.3")]
        final.update({recipient: codes[recipient] for recipient in waiting if recipient not in taken + later})
        if taken:
            client.ask("DATA", "354")
            client.send_raw(data)
            assert verb == "LHLO" or len(taken) == 1
            final.update({recipient: client.reply() for recipient in taken})
        else:
            assert not later
            client.ask("RSET", "250")
        waiting = later
    return {recipient: reply.code for recipient, reply in final.items()}


# Greetings

@pytest.mark.parametrize("verb", ["EHLO", "LHLO"])
def test_53_lhlo(lmtp, verb):
    """RFC 2033 4.1: LHLO upstream, whatever the client says; the list is the client's, but for a limit (PROTOCOL 51)."""
    proxy = lmtp()
    session = proxy.session()
    session.banner()
    session.client.send(f"{verb} client.example")
    session.server.expect_line("LHLO client.example")
    session.server.send("250-server.example hi", "250-PIPELINING", "250-ENHANCEDSTATUSCODES", "250-SIZE 999",
                        "250-XCLIENT ADDR", "250-LIMITS RCPTMAX=50", "250 8BITMIME")
    limits = ["LIMITS RCPTMAX=1"] if verb == "EHLO" else ["LIMITS RCPTMAX=50"]
    texts = session.client.reply().texts
    assert sorted(texts[1:]) == sorted(["ENHANCEDSTATUSCODES", "SIZE 999", "8BITMIME", "PIPELINING", *limits])
    assert texts[0] == "server.example hi"
    session.quit()
    assert proxy.wait_for("close")["helo"] == "client.example"


@pytest.mark.parametrize("option", [[], ["--xclient"]])
def test_26_53_helo(lmtp, option):
    """A client of few words hears of no extensions; the upstream hears LHLO."""
    session = lmtp(*option).session()
    session.banner()
    session.client.send("HELO client.example")
    session.server.expect_line("LHLO client.example")
    session.server.send("250-server.example hi", "250-CHUNKING", "250 PIPELINING")
    assert session.client.reply() == "250 server.example hi"
    session.client.ask("BDAT 0 LAST", "503")
    session.transaction()
    session.mail()
    session.rcpt()
    session.client.ask("BDAT 0 LAST", "502")


@pytest.mark.parametrize("verb", ["EHLO", "HELO", "LHLO"])
def test_53_no_fallback_to_helo(lmtp, verb):
    session = lmtp().session()
    session.banner()
    session.exchange(f"{verb} c", "500 5.5.1 what?", seen="LHLO c")
    session.client.ask("MAIL FROM:<a@b>", "503")
    session.client.send(f"{verb} c")
    session.server.expect_line("LHLO c")
    session.server.send("250 server")
    session.client.expect("250")


def test_53_lhlo_to_a_server_of_smtp(warp, mail_server):
    server = mail_server()
    client = greeted(warp(upstream=server))
    client.ask("LHLO client.example", "500 5.5.1")
    client.ask("MAIL FROM:<a@b>", "250")
    assert not any("LHLO" in command for command in server.commands)


def test_53_each_upstream_by_its_own(warp, mail_server):
    """The first cannot be reached; the next speaks LMTP, or does not."""
    for server in mail_server(lmtp=True), mail_server():
        client = greeted(warp("--upstream", "127.0.0.1:1", "--upstream", "lmtp://127.0.0.1:2", upstream=server))
        client.ask("MAIL FROM:<a@b>", "250")
        client.ask("RCPT TO:<c@d>", "250")
        client.ask("RCPT TO:<e@f>", "452 4.5.3" if server.lmtp else "250")


def test_53_standard_port(warp, mail_server):
    server = mail_server(lmtp=True, address="127.0.0.2", port=24)
    client = greeted(warp("--upstream", "lmtp://127.0.0.2"))
    assert send_to_all(client, LOTS[:2], "EHLO") == dict.fromkeys(LOTS[:2], 250)
    assert len(server.messages) == 2


# A client that speaks SMTP

def test_53_one_recipient_at_a_time(lmtp):
    """In one segment. A recipient that was refused makes room for the next."""
    proxy = lmtp("--tls", "none")
    session = opened(proxy, "EHLO")
    client, server = session.client, session.server
    client.send(*TWO, "RCPT TO:<d@server.example>", "DATA", "Subject: one", "", "Body", ".", "NOOP")
    server.expect_line(TWO[0])
    server.send("250 2.1.0 a")
    server.expect_line(TWO[1])
    server.silent()
    server.send("550 5.1.1 b")
    server.expect_line(TWO[2])
    server.send("250 2.1.5 c")
    server.expect_line("DATA")
    server.send("354 go on")
    assert server.until(b"\r\n.\r\n") == b"Subject: one\r\n\r\nBody\r\n.\r\n"
    server.silent()
    server.send("250-2.0.0 <c>", "250 2.0.0 taken")
    server.expect_line("NOOP")
    server.send("250 2.0.0 fine")
    assert [client.reply().code for _ in range(7)] == [250, 550, 250, 452, 354, 250, 250]
    session.quit()
    record, = proxy.records("message")
    assert record["result"] == "accepted" and record["reply"]["text"] == "2.0.0 taken"
    assert codes_of(record) == [550, 250] and record["rcpt_to"][1]["enhanced"] == "2.0.0"
    assert proxy.wait_for("close")["recipients"] == 1


@pytest.mark.parametrize("reply, result", [("452 4.2.2 full", "deferred"), ("552 5.2.2 over quota", "rejected")])
def test_53_refused_after_the_dot(lmtp, reply, result):
    proxy = lmtp("--tls", "none")
    session = opened(proxy, "EHLO")
    session.mail()
    session.rcpt()
    session.data()
    sent(session)
    session.server.send(reply)
    session.client.expect(reply)
    session.mail()          # the next one has room
    session.rcpt()
    record, = proxy.records("message")
    assert record["result"] == result and codes_of(record) == [int(reply[:3])]
    session.client.close()
    assert proxy.wait_for("close")["recipients"] == 0


def test_53_reply_too_many(lmtp):
    """A server that thinks of two recipients where we had one: PROTOCOL 16."""
    proxy = lmtp("--tls", "none")
    session = opened(proxy, "EHLO")
    session.mail()
    session.rcpt()
    session.data()
    sent(session)
    session.server.send("250 2.0.0 one", "250 2.0.0 two")
    session.client.expect("250 2.0.0 one")
    session.client.expect("421 4.5.0")
    session.client.expect_end()
    assert [record["result"] for record in proxy.records("message")] == ["accepted"]


@pytest.mark.parametrize("verb", ["EHLO", "LHLO"])
def test_53_data_for_nobody(lmtp, verb):
    """RFC 2033 4.2: 503, and there is no message to reply to."""
    session = opened(lmtp("--tls", "none"), verb)
    session.client.send(TWO[0], TWO[1], "DATA", "NOOP")
    session.server.expect_line(TWO[0])
    session.server.send("250 a")
    for line in TWO[1], "DATA":
        session.server.expect_line(line)
    session.server.send("550 b", "503 5.5.1 no recipients")
    session.server.expect_line("NOOP")
    session.server.send("250 fine")
    assert [session.client.reply().code for _ in range(4)] == [250, 550, 503, 250]
    session.client.ask("DATA", "503" if verb == "LHLO" else "554")


@pytest.mark.parametrize("verb", ["EHLO", "LHLO"])
def test_53_message_for_nobody(lmtp, verb):
    """A server that wants one breaks the protocol: how many replies it would give is not known."""
    session = opened(lmtp("--tls", "none"), verb)
    session.client.send(TWO[0], TWO[1], "DATA")
    session.server.expect_line(TWO[0])
    session.server.send("250 a")
    for line in TWO[1], "DATA":
        session.server.expect_line(line)
    session.server.send("550 b", "354 go on")
    assert session.client.replies_to(421) == [250, 550, 421]
    session.client.expect_end()
    assert session.server.rest() == b""


@pytest.mark.parametrize("late", [False, True])
@pytest.mark.parametrize("verb", ["HELO", "EHLO", "LHLO"])
@pytest.mark.parametrize("hooked", [False, True])
def test_53_every_recipient_once(lmtp, mail_server, hooks, late, verb, hooked):
    """Messages to many, of whom some are unknown and some have no room: each accepted recipient has one copy."""
    room = {recipient: "250 2.0.0 stored" for recipient in LOTS}
    room.update({LOTS[3]: "452 4.2.2 full", LOTS[7]: "552 5.2.2 too much"})
    server = mail_server("PIPELINING", lmtp=True, replies={
        "RCPT": lambda line: "550 5.1.1 unknown" if "user5@" in line else "",
        ".": lambda recipient: room[recipient.strip("<>")]})
    if hooked:
        hooks.script("data", "cat >/dev/null")
        hooks.script("rcpt", "case $(cat) in *'\"rcpt\":{\"address\":\"user9@'*) echo reject 550 5.7.1 not he;; esac")
    proxy = lmtp(*(LATE if late else []), *hooks.options, upstream=server)
    client = greeted(proxy, verb)
    for _ in range(2):
        got = send_to_all(client, LOTS, verb)
        assert got == {**dict.fromkeys(LOTS, 250), LOTS[3]: 452, LOTS[5]: 550, LOTS[7]: 552, **({LOTS[9]: 550} if hooked else {})}
    client.ask("QUIT", "221")
    accepted = [recipient for recipient, code in got.items() if code == 250]
    copies = collections.Counter(recipient.strip("<>") for message in server.messages for recipient in message["to"])
    assert copies == dict.fromkeys(accepted, 2)
    assert {message["data"] for message in server.messages} == {MESSAGE}
    assert proxy.wait_for("close")["recipients"] == 2 * len(accepted)
    assert len(server.peers) == 1


# A client that speaks LMTP

def test_53_a_reply_for_each_recipient(lmtp):
    """In order, each as soon as it is there."""
    proxy = lmtp("--tls", "none")
    session = opened(proxy)
    session.client.send(*TWO, "RCPT TO:<d@server.example>", "DATA")
    assert len(session.server.lines(5)) == 5        # without a reply in between
    session.server.send("250 a", "250 2.1.5 b", "550 5.1.1 c", "250 2.1.5 d", "354 go on")
    assert [session.client.reply().code for _ in range(5)] == [250, 250, 550, 250, 354]
    sent(session)
    session.client.send("NOOP")
    session.server.send("452-4.2.2 no room", "452 4.2.2 for b")
    assert session.client.reply() == "452-4.2.2 no room\n452 4.2.2 for b"
    session.server.silent()
    session.server.send("250 2.0.0 d")
    session.client.expect("250 2.0.0 d")
    session.server.expect_line("NOOP")
    session.server.send("250 fine")
    session.client.expect("250 fine")
    session.quit()
    record, = proxy.records("message")
    assert record["result"] == "accepted" and record["reply"]["text"] == "2.0.0 d"
    assert codes_of(record) == [452, 550, 250]
    assert [recipient["enhanced"] for recipient in record["rcpt_to"]] == ["4.2.2", "5.1.1", "2.0.0"]
    assert proxy.wait_for("close")["recipients"] == 1


@pytest.mark.parametrize("replies, result, decided", [
    (("550 5.1.1 x", "452 4.2.2 y"), "deferred", 452), (("452 4.2.2 x", "550 5.1.1 y"), "deferred", 452),
    (("250 2.0.0 x", "550 5.1.1 y"), "accepted", 250), (("550 5.1.1 x", "551 5.1.1 y"), "rejected", 550)])
def test_53_the_best_reply_decides(lmtp, replies, result, decided):
    proxy = lmtp("--tls", "none")
    session = opened(proxy)
    to_two(session)
    sent(session)
    session.server.send(*replies)
    for reply in replies:
        session.client.expect(reply)
    session.quit()
    record, = proxy.records("message")
    assert (record["result"], record["reply"]["code"]) == (result, decided)
    assert codes_of(record) == [int(reply[:3]) for reply in replies]


@pytest.mark.parametrize("verb, replies, whole", [("EHLO", 0, False), ("EHLO", 1, True), ("LHLO", 0, False),
                                                   ("LHLO", 1, False), ("LHLO", 2, True)])
def test_53_66_lost_before_the_last_reply(lmtp, verb, replies, whole):
    """What became of the rest is not known: the client is dropped without a word."""
    proxy = lmtp("--tls", "none")
    session = opened(proxy, verb)
    to_all(session, verb)
    sent(session)
    for _ in range(replies):
        session.server.send("250 2.0.0 taken")
        session.client.expect("250 2.0.0 taken")
    session.server.close()
    if whole:
        session.client.expect("421 4.4.2")
    session.client.expect_end()
    assert proxy.wait_for("message")["result"] == ("accepted" if whole else "unknown")
    assert proxy.wait_for("close")["recipients"] == (replies if whole else 0)


def test_53_15_421_for_the_second(lmtp):
    proxy = lmtp("--tls", "none")
    session = opened(proxy)
    session.client.send(*TWO, "RCPT TO:<d@server.example>", "DATA")
    session.server.lines(5)
    session.server.send("250 a", "250 b", "250 c", "250 d", "354 go on")
    session.client.replies_to(354)
    sent(session)
    session.server.send("250 2.0.0 b", "421 4.3.2 going down")
    session.client.expect("250 2.0.0 b")
    session.client.expect("421 4.3.2 going down")
    session.client.expect_end()
    record = proxy.wait_for("message")
    assert record["result"] == "unknown" and codes_of(record) == [250, 421, 250]


def test_53_one_reply_too_many(lmtp):
    session = opened(lmtp("--tls", "none"))
    to_two(session)
    sent(session)
    session.server.send("250 2.0.0 b", "250 2.0.0 c", "250 2.0.0 who?")
    session.client.expect("250 2.0.0 b")
    session.client.expect("250 2.0.0 c")
    session.client.expect("421 4.5.0")
    session.client.expect_end()


def test_53_one_reply_too_few(lmtp):
    proxy = lmtp("--tls", "none", "--dot-timeout", "1")
    session = opened(proxy)
    to_two(session)
    sent(session)
    session.server.send("250 2.0.0 b")
    session.client.expect("250 2.0.0 b")
    session.client.expect_end()
    assert proxy.wait_for("message")["result"] == "unknown"


def test_53_rset_and_the_next(lmtp):
    """PROTOCOL 28: what is left of one transaction does not count for the next."""
    session = opened(lmtp("--tls", "none"))
    session.client.send(*TWO, "RSET", TWO[0], TWO[2], "DATA")
    assert session.server.lines(4) == [*TWO, "RSET"]
    session.server.send("250 a", "250 b", "250 c", "250 forgotten")
    assert session.server.lines(3) == [TWO[0], TWO[2], "DATA"]
    session.server.send("250 a", "250 c", "354 go on")
    session.client.replies_to(354)
    sent(session)
    session.server.send("250 2.0.0 c")
    session.client.expect("250 2.0.0 c")
    session.client.send("EHLO client.example")
    session.server.expect_line("LHLO client.example")
    session.server.send("250 server.example")
    session.client.expect("250")
    session.mail()
    session.rcpt()
    session.client.ask("RCPT TO:<c@d>", "452 4.5.3")


def test_31_53_most_recipients(lmtp):
    """PROTOCOL 31: 100, to whom a long reply of ours goes without any of them being cut."""
    proxy = lmtp("--tls", "none", "--bare-newline", "reject")
    session = opened(proxy)
    recipients = [f"RCPT TO:<user{number}@server.example>" for number in range(101)]
    session.client.send(TWO[0])
    session.server.expect_line(TWO[0])
    session.server.send("250 a")
    session.client.expect("250 a")
    for recipient in recipients[:100]:
        session.exchange(recipient, "250 2.1.5 fine")
    session.client.ask(recipients[100], "452 4.5.3")
    session.data()
    session.client.send_raw(b"Subject: x")
    session.server.send("550 5.6.0 " + "y" * 500)
    session.server.rest()
    session.client.send_raw(b"\r\n.\r\n")
    codes = [session.client.reply() for _ in range(100)]
    assert {code.code for code in codes} == {550} and len(codes[50]) > 450
    session.client.ask("NOOP", "421")
    assert codes_of(proxy.wait_for("message")) == [250] * 100


# What smtpwarp says itself

@pytest.mark.parametrize("verb", ["EHLO", "LHLO"])
@pytest.mark.parametrize("verdict, reply, result", [
    ("reject 550 5.7.1 no", "550 5.7.1 no", "rejected"), ("defer", "451 4.7.1", "deferred"), ("discard", "250 2.0.0", "discarded")])
def test_53_71_hooks_decide_on_a_message(lmtp, hooks, verb, verdict, reply, result):
    """A reply for each recipient that the server has accepted; then it is to forget them."""
    hooks.script("rcpt", "case $(cat) in *'\"rcpt\":{\"address\":\"x@'*) echo reject 550 5.7.1 not he;; esac")
    hooks.script("data", f"cat >/dev/null\necho {verdict}")
    proxy = lmtp("--tls", "none", *hooks.options)
    session = opened(proxy, verb)
    session.mail()
    session.client.ask("RCPT TO:<x@server.example>", "550 5.7.1")
    session.rcpt()
    if verb == "LHLO":
        session.exchange("RCPT TO:<y@server.example>", "550 5.1.1 no")
        session.rcpt("RCPT TO:<z@server.example>")
    session.client.ask("DATA", "354")
    session.client.send_raw(MESSAGE)
    for _ in range(2 if verb == "LHLO" else 1):
        session.client.expect(reply)
    session.server.expect_line("RSET")
    session.server.send("250 forgotten")
    session.mail()
    assert proxy.wait_for("message")["result"] == result


def test_53_long_text_of_a_hook(lmtp, hooks):
    """All of it once, a line of it for each of the others."""
    hooks.script("data", "cat >/dev/null\nprintf 'reject 550 5.7.1 %0900d\\n' 7")
    session = opened(lmtp("--tls", "none", *hooks.options))
    session.mail()
    for number in range(3):
        session.rcpt(f"RCPT TO:<{number}@server.example>")
    session.client.ask("DATA", "354")
    session.client.send_raw(MESSAGE)
    replies = [session.client.expect("550 5.7.1 0") for _ in range(3)]
    assert sorted(len(reply.lines) for reply in replies) == [1, 1, 2]
    assert all(len(line) <= 510 for reply in replies for line in reply.lines)


@pytest.mark.parametrize("answer", ["354 go", "451 4.3.0 later"])
def test_53_a_kept_message(lmtp, hooks, answer):
    hooks.script("data", "cat >/dev/null")
    proxy = lmtp("--tls", "none", *hooks.options)
    session = opened(proxy)
    session.client.send(*TWO)
    for line, reply in zip(TWO, ("250 a", "250 b", "250 c")):
        session.server.expect_line(line)
        session.server.send(reply)
        session.client.expect(reply)
    session.client.ask("DATA", "354")
    session.client.send_raw(MESSAGE)
    session.server.expect_line("DATA")
    session.server.send(answer)
    if answer.startswith("354"):
        assert session.server.until(b"\r\n.\r\n") == MESSAGE
        session.server.send("250 2.0.0 b", "552 5.2.2 c")
        session.client.expect("250 2.0.0 b")
        session.client.expect("552 5.2.2 c")
    else:
        session.client.expect(answer)
        session.client.expect(answer)
        session.server.expect_line("RSET")
        session.server.send("250 forgotten")
    session.mail()
    assert codes_of(proxy.wait_for("message")) == ([250, 552] if answer.startswith("354") else [250, 250])


@pytest.mark.parametrize("verb, replies", [("EHLO", 1), ("LHLO", 2)])
@pytest.mark.parametrize("fault", ["large", "newline", "lost", "early"])
def test_8_9_53_messages_that_cannot_go_on(lmtp, verb, replies, fault):
    """The upstream never sees a final dot; a reply for each recipient tells the client."""
    proxy = lmtp("--tls", "none", "--message-size-limit", "1000", "--bare-newline", "reject")
    session = opened(proxy, verb)
    to_all(session, verb)
    session.client.send_raw(b"Subject: x\r\n\r\n" + {"large": b"y" * 2000, "newline": b"a\nb"}.get(fault, b"z"))
    if fault == "lost":
        session.server.close()
    elif fault == "early":
        session.server.send("552 5.2.2 no more")
    seen = None if fault == "lost" else session.server.rest()
    session.client.send_raw(b"\r\n.\r\n")
    wanted = {"large": "552 5.3.4", "newline": "554 5.6.0", "lost": "451 4.4.2", "early": "552 5.2.2"}[fault]
    for _ in range(replies):
        session.client.expect(wanted)
    session.client.ask("NOOP", "421")
    session.client.expect_end()
    assert seen is None or b"\r\n.\r\n" not in seen
    assert proxy.wait_for("message")["result"] == ("deferred" if fault == "lost" else "rejected")


# BDAT

@pytest.mark.parametrize("verb, replies", [("EHLO", ["250 2.0.0 b"]), ("LHLO", ["250 2.0.0 b", "452 4.2.2 c"])])
def test_45_53_bdat(lmtp, verb, replies):
    """RFC 2033 4.3. The last chunk waits until it is known how many replies it will have."""
    proxy = lmtp("--tls", "none")
    session = opened(proxy, verb, "CHUNKING")
    client, server = session.client, session.server
    client.send_raw(b"".join(line.encode() + b"\r\n" for line in TWO) + b"BDAT 4\r\nHi\r\nBDAT 3 LAST\r\nyou")
    server.expect_line(TWO[0])
    server.send("250 a")
    server.expect_line(TWO[1])
    if verb == "LHLO":
        server.expect_line(TWO[2])
    server.silent()
    server.send("250 b", *(["250 c"] if verb == "LHLO" else []))
    server.expect_line("BDAT 4")
    assert server.take(4) == b"Hi\r\n"
    server.silent()
    server.send("250 go on")
    server.expect_line("BDAT 3 LAST")
    assert server.take(3) == b"you"
    server.send(*replies)
    assert [client.reply().code for _ in range(4)] == [250, 250, 452 if verb == "EHLO" else 250, 250]
    for reply in replies:
        client.expect(reply)
    session.quit()
    assert codes_of(proxy.wait_for("message")) == [int(reply[:3]) for reply in replies]


@pytest.mark.parametrize("verb, replies", [("EHLO", 1), ("LHLO", 2)])
def test_45_53_a_chunk_is_refused(lmtp, verb, replies):
    """The server is to forget the message: what it would say of the next chunk, and how often, is anybody's guess."""
    session = opened(lmtp("--tls", "none"), verb, "CHUNKING")
    session.mail()
    session.rcpt()
    if verb == "LHLO":
        session.rcpt("RCPT TO:<c@server.example>")
    session.client.send_raw(b"BDAT 2\r\nHiBDAT 2 LAST\r\nHo")
    session.server.expect_line("BDAT 2")
    session.server.take(2)
    session.server.send("452 4.3.1 disk")
    session.client.expect("452 4.3.1 disk")
    session.server.expect_line("RSET")
    session.server.send("250 forgotten")
    for _ in range(replies):
        session.client.expect("503 5.5.1")
    session.mail()
    session.rcpt()


@pytest.mark.parametrize("last, replies", [("", 1), (" LAST", 2)])
def test_45_53_lost_in_a_chunk(lmtp, last, replies):
    """Only the last one has a reply for each recipient."""
    session = opened(lmtp("--tls", "none"), "LHLO", "CHUNKING")
    session.mail()
    session.rcpt()
    session.rcpt("RCPT TO:<c@server.example>")
    session.client.send_raw(f"BDAT 4{last}\r\nHi".encode())
    session.server.expect_line(f"BDAT 4{last}")
    session.server.take(2)
    session.server.close()
    session.client.drained()
    session.client.send_raw(b"\r\n")
    for _ in range(replies):
        session.client.expect("451 4.4.2")
    session.client.ask("NOOP", "421")


def test_45_53_a_chunk_too_large(lmtp):
    session = opened(lmtp("--tls", "none", "--message-size-limit", "1000"), "LHLO", "CHUNKING")
    session.mail()
    session.rcpt()
    session.rcpt("RCPT TO:<c@server.example>")
    session.client.send_raw(b"BDAT 1001 LAST\r\n" + b"x" * 1001)
    session.client.expect("552 5.3.4")
    session.client.expect("552 5.3.4")
    session.server.expect_line("RSET")
    session.server.send("250 forgotten")
    session.mail()


@pytest.mark.parametrize("offers", [["PIPELINING"], ["PIPELINING", "CHUNKING"]])
@pytest.mark.parametrize("hooked", [False, True])
@pytest.mark.parametrize("verb", ["EHLO", "LHLO"])
def test_47_53_bdat_late(lmtp, mail_server, hooks, offers, hooked, verb):
    """It becomes DATA where the upstream lacks CHUNKING."""
    if hooked:
        hooks.script("data", "cat >/dev/null")
    server = mail_server(*offers, lmtp=True)
    client = greeted(lmtp(*LATE, *hooks.options, upstream=server), verb)
    recipients = 3 if verb == "LHLO" else 1
    client.ask("MAIL FROM:<a@b>", "250")
    for number in range(recipients):
        client.ask(f"RCPT TO:<{number}@server.example>", "250")
    client.send_raw(b"BDAT 4\r\nHi\r\nBDAT 3 LAST\r\n.yo")
    client.expect("250")
    for _ in range(recipients):
        client.expect("250 2.0.0 taken")
    client.ask("NOOP", "250")
    data = server.messages[0]["data"]
    assert data in (b"Hi\r\n.yo", b"Hi\r\n..yo\r\n.\r\n") and len(server.messages) == recipients


# Late

def test_53_routes_to_both(warp, mail_server, tmp_path):
    """A client that speaks LMTP, and recipients of both kinds: the one reply of SMTP is each recipient's."""
    servers = {"lmtp": mail_server("PIPELINING", lmtp=True, replies={".": lambda who: "250 ok" if "1" in who else "550 no"}),
               "smtp": mail_server("PIPELINING", replies={".": "452 4.3.1 later"})}
    table = tmp_path / "routes"
    table.write_text("".join(f"{name}.example;{server.url}\n" for name, server in servers.items()))
    proxy = warp(*LATE, "--routes", table, "--transparent")
    recipients = [f"{number}@{name}.example" for name in servers for number in (1, 2)]
    assert list(send_to_all(greeted(proxy, "LHLO"), recipients, "LHLO").values()) == [250, 550, 452, 452]
    client = greeted(proxy)
    got = send_to_all(client, recipients[:2], "EHLO")
    assert list(got.values()) == [250, 550]
    client.send("MAIL FROM:<a@b>", *[f"RCPT TO:<{recipient}>" for recipient in recipients[2:]], "DATA")
    assert client.replies_to(354) == [250, 250, 250, 354]
    client.send_raw(MESSAGE)
    client.expect("452 4.3.1 later")


@pytest.mark.parametrize("unix", [False, True])
def test_53_verdict(warp, mail_server, hooks, tmp_path, unix):
    server = mail_server("PIPELINING", lmtp=True, **({"address": tmp_path / "lmtp"} if unix else {}))
    hooks.script("rcpt", f"cat >/dev/null\necho upstream {server.url}\necho source {'::1' if unix else '127.0.0.3'}")
    client = greeted(warp(*LATE, *hooks.options, "--transparent"))
    assert set(send_to_all(client, LOTS[:3], "EHLO").values()) == {250}
    assert len(server.messages) == 3 and len(server.peers) == 1


def test_53_same_place_another_protocol(warp, mail_server, hooks):
    """The way of speaking is part of the way to go."""
    server = mail_server("PIPELINING", lmtp=True)
    hooks.script("rcpt", f"case $(cat) in *'\"rcpt\":{{\"address\":\"b@'*) echo upstream {server.url};; "
                         f"*) echo upstream {server.name_port};; esac")
    client = greeted(warp(*LATE, *hooks.options, "--transparent"))
    client.ask("MAIL FROM:<a@b>", "250")
    client.ask("RCPT TO:<b@c>", "250")
    client.ask("RCPT TO:<d@c>", "452 4.5.3")
    client.ask("RSET", "250")
    client.ask("MAIL FROM:<a@b>", "250")
    client.ask("RCPT TO:<d@c>", "451 4.4.1")


# TLS, and who the client is

@pytest.mark.parametrize("verb", ["HELO", "EHLO", "LHLO"])
@pytest.mark.parametrize("late", [False, True])
def test_53_starttls(lmtp, mail_server, certs, verb, late):
    server = mail_server("PIPELINING", lmtp=True, tls=certs.context("rsa"))
    proxy = lmtp("--tls", "encrypt", *(LATE if late else []), upstream=server)
    assert set(send_to_all(greeted(proxy, verb), LOTS[:2], verb).values()) == {250}
    assert all(message["tls"] for message in server.messages) and len(server.messages) == 2
    assert [command for command in server.commands if "c" in command][:3] == \
        ["LHLO client.example", "LHLO client.example", "MAIL FROM:<a@client.example>"]


@pytest.mark.parametrize("verb, protocol", [("EHLO", "ESMTP"), ("LHLO", "LMTP")])
def test_53_54_xclient_xforward_received(lmtp, mail_server, verb, protocol):
    server = mail_server("PIPELINING", "XCLIENT PROTO", "XFORWARD PROTO", lmtp=True,
                         replies={"XCLIENT": "220 again", "XFORWARD": "250 fine"})
    proxy = lmtp("--xclient", "--xforward", "--received", "--hostname", "proxy.example", upstream=server)
    assert set(send_to_all(greeted(proxy, verb), LOTS[:1], verb).values()) == {250}
    assert server.commands[:4] == ["LHLO client.example", f"XCLIENT PROTO={protocol}", "LHLO client.example",
                                   f"XFORWARD PROTO={protocol}"]
    assert re.match(rb"Received: from client\.example \(\[127\.0\.0\.1\]\)\r\n\tby proxy\.example with "
                    + protocol.encode() + rb"\r\n", server.messages[0]["data"])


def test_53_54_xclient_to_a_server_of_smtp(warp, mail_server):
    """Postfix takes SMTP and ESMTP alone."""
    server = mail_server("PIPELINING", "XCLIENT PROTO", replies={"XCLIENT": "220 again"})
    proxy = warp(*LATE, "--xclient", upstream=server)
    assert set(send_to_all(greeted(proxy, "LHLO"), LOTS[:2], "LHLO").values()) == {250}
    assert "XCLIENT PROTO=ESMTP" in server.commands


def test_53_upstream_auth(lmtp, mail_server, certs, tmp_path):
    (tmp_path / "auth").write_text("* user:secret\n")
    server = mail_server("PIPELINING", "AUTH PLAIN", lmtp=True, tls=certs.context("rsa"))
    proxy = lmtp("--upstream-auth", tmp_path / "auth", upstream=server)
    assert set(send_to_all(greeted(proxy, "LHLO"), LOTS[:3], "LHLO").values()) == {250}
    assert "AUTH PLAIN AHVzZXIAc2VjcmV0" in server.commands


@pytest.mark.parametrize("verb", ["HELO", "EHLO", "LHLO"])
def test_49_53_auth_late(lmtp, mail_server, verb):
    """--auth: the upstream is asked when the client says EHLO, or LHLO."""
    server = mail_server("PIPELINING", "AUTH PLAIN", lmtp=True)
    client = greeted(lmtp(*LATE, "--auth", upstream=server), verb)
    assert server.commands == ([] if verb == "HELO" else ["LHLO client.example"])
    if verb != "HELO":
        client.ask("AUTH PLAIN AHVzZXIAc2VjcmV0", "235")
    assert set(send_to_all(client, LOTS[:2], verb).values()) == {250}
    assert len(server.messages) == 2 and len(server.peers) == 1


@pytest.mark.parametrize("verb", ["EHLO", "LHLO"])
def test_53_passthrough(lmtp, mail_server, certs, verb):
    """Inside of TLS nobody would translate."""
    server = mail_server("PIPELINING", lmtp=True, tls=certs.context("rsa"))
    client = lmtp("--client-tls", "passthrough", upstream=server).connect()
    client.expect("220")
    offers = client.ask(f"{verb} client.example", "250").texts
    assert ("STARTTLS" in offers) == (verb == "LHLO")
    client.ask("STARTTLS", "220" if verb == "LHLO" else "502")


# A Unix socket

@pytest.fixture
def path(tmp_path):
    return tmp_path / "lmtp"


@pytest.mark.parametrize("verb", ["HELO", "EHLO", "LHLO"])
@pytest.mark.parametrize("options", [[], LATE, ["--outbound-ip", "127.0.0.5", "--xclient", "--send-proxy", "v1"]])
def test_53_unix_socket(warp, mail_server, path, verb, options):
    """Records have its path. Source addresses and marks are nothing to it."""
    offers = ["PIPELINING", "XCLIENT ADDR PORT"]
    server = mail_server(*offers, address=path, lmtp=True, replies={"XCLIENT": "220 again", "PROXY": None})
    proxy = warp(*options, upstream=server).listen()
    clients = [greeted(proxy, verb) for _ in range(3)]      # at the same time
    for client in clients:
        assert send_to_all(client, LOTS[:2], verb) == dict.fromkeys(LOTS[:2], 250)
        client.ask("QUIT", "221")
    assert len(server.messages) == 6
    wanted = {"ip": None, "port": 0, "path": str(path), "tls": None}
    assert proxy.wait_for("close", count=3)["server"] == wanted
    assert {(record["server"]["path"], record["source"]) for record in proxy.records("connect")} == {(str(path), None)}


def test_53_unix_socket_with_tls(warp, mail_server, certs, path):
    """A path is no name: none is asked for, or looked for."""
    server = mail_server(address=path, lmtp=True, tls=certs.context("good"))
    proxy = warp(upstream=server)
    send_to_all(greeted(proxy), LOTS[:1], "EHLO")
    assert server.messages[0]["tls"] and proxy.wait_for("tls")["name"] is None
    nameless = warp("--check", "--tls", "verify", upstream=server)
    nameless.exit_codes = (78,)
    nameless.wait_exit(nameless.spawn())
    assert "needs a name" in nameless.error_path.read_text()


def test_53_unix_sockets_of_other_case(warp, mail_server, path):
    """Names of hosts may differ in that, paths not."""
    servers = [mail_server(address=path.with_name(name), lmtp=True) for name in ("lmtp", "LMTP")]
    routes = path.with_name("routes")
    routes.write_text("".join(f"{n}.example;{server.url}\n" for n, server in enumerate(servers)))
    got = send_to_all(greeted(warp(*LATE, "--routes", routes, "--transparent"), "LHLO"), ["a@0.example", "b@1.example"], "LHLO")
    assert set(got.values()) == {250}
    assert [[message["to"] for message in server.messages] for server in servers] == [[["<a@0.example>"]], [["<b@1.example>"]]]


def test_53_no_unix_socket_there(warp, mail_server, path):
    options = "--upstream", f"lmtp:unix:{path}"
    client = warp(*options).connect()
    client.expect(f"421 4.4.1 {path}: connect: No such file or directory")
    client.expect_end()
    server = mail_server()
    assert send_to_all(greeted(warp(*options, upstream=server), "HELO"), LOTS[:1], "HELO") == {LOTS[0]: 250}
    (path.parent / "routes").write_text(f"server.example;lmtp:unix:{path} {server.url};verify\n")
    proxy = warp("--check", "--routes", path.parent / "routes", "--transparent")
    proxy.exit_codes = (78,)
    proxy.wait_exit(proxy.spawn())


@pytest.mark.parametrize("patient", [True, False])
def test_53_unix_socket_that_is_busy(warp, path, patient):
    """With a full backlog: it is waited for."""
    proxy = warp("--upstream", f"lmtp:unix:{path}", "--connect-timeout", "20" if patient else "1")
    proxy.doors.append(door := Listener(path, group=proxy.group, backlog=0))
    before = socket.socket(socket.AF_UNIX)
    before.connect(str(path))
    client = proxy.connect()
    client.silent()
    if not patient:
        client.expect(f"421 4.4.1 {path}: connect: ")
        return
    door.accept()
    door.accept().send("220 server.example")
    client.expect("220 server.example")


@pytest.mark.parametrize("bad", ["lmtp:unix:", "lmtp:unix:x", "lmtp:unix:/" + "x" * 107, "smtp:unix:/x", "unix:/x", "/x", "lmtp:/x",
                                 "lmtp://", "lmtp:host", "lmtp://host:0", "lmtp:///x", "lmtps://host"])
def test_53_no_such_upstream(warp, bad):
    made = warp("--check", "--upstream", bad)
    made.exit_codes = (64,)
    made.wait_exit(made.spawn())
    assert "lmtp://" in made.error_path.read_text()
