"""What the upstream answers, in every form and at every time: PROTOCOL 11-19."""
import contextlib

import pytest

import peers
from warp import Session, same

# 11, 12: form

FORMS = {
    "one line": "250 2.1.0 fine",
    "two lines": "250-2.1.0 first\n250 2.1.0 last",
    "bare code": "250",
    "code and space": "250 ",
    "bare code at the end": "250-first\n250",
    "empty lines": "250-\n250-\n250 ",
    "hyphens": "250--\n250-250 250-250\n250 -",
    "looks like another": "250-550 no\n250 421 bye",
    "utf-8": "250 grüße ☃",
    "8 bit": "250 \udcff\udcfe",
    "percent": "250 %s%n%d 100%",
    "512 octets": "250 " + "x" * 506,
    "refused": "550-5.1.1 no\n550 5.1.1 such user",
    "thousand lines": "\n".join(["250-line of no great interest"] * 999 + ["250 end"]),
}


@pytest.mark.parametrize("reply", FORMS.values(), ids=FORMS)
def test_11_reply_goes_through_as_it_is(session, reply):
    """go-smtpproxy breaks those of several lines."""
    session.greet()
    session.exchange("MAIL FROM:<a@b.example>", reply)
    session.exchange("RSET", "250 2.0.0 in step")


@pytest.mark.parametrize("reply", [name for name in FORMS.values() if len(name) < 100])
def test_12_reply_a_byte_at_a_time(session, reply):
    session.greet()
    session.client.send("NOOP")
    session.server.line()
    session.server.send_bytewise(reply.replace("\n", "\r\n").encode("utf-8", "surrogateescape") + b"\r\n")
    assert same(session.client.reply(), reply)


def test_12_reply_split_at_every_byte(session):
    session.greet()
    wire = b"250-2.0.0 a\r\n250 2.0.0 b\r\n"
    for at in range(1, len(wire)):
        session.client.send("NOOP")
        session.server.line()
        session.server.send_parts(wire[:at], wire[at:])
        assert session.client.reply() == "250-2.0.0 a\n250 2.0.0 b"


def test_12_banner_and_ehlo_a_byte_at_a_time(session):
    client, server = session.client, session.server
    server.send_bytewise(b"220-two\r\n220 lines\r\n")
    assert client.reply() == "220-two\n220 lines"
    client.send("EHLO client.example")
    server.line()
    server.send_bytewise(b"250-server.example\r\n250-SIZE 1000\r\n250 PIPELINING\r\n")
    assert set(client.reply().texts[1:]) == {"SIZE 1000", "PIPELINING"}


def test_12_several_replies_in_one_read(session):
    session.greet("PIPELINING")
    session.client.send("MAIL FROM:<a@b.example>", "RCPT TO:<c@d.example>", "RCPT TO:<e@f.example>", "DATA")
    session.server.lines(4)
    session.server.send("250-a", "250 a", "550 b", "250 c", "354 d")
    assert [session.client.reply() for _ in range(4)] == ["250-a\n250 a", "550 b", "250 c", "354 d"]


@pytest.mark.parametrize("length", [513, 2000, 70000])
def test_11_over_long_reply_line_does_no_harm(session, length):
    """Shortened, folded or taken for a fault (RFC 5321 4.5.3.1.5 allows 512): never a wrong code, never out of step."""
    session.greet()
    session.client.send("MAIL FROM:<a@b.example>")
    session.server.line()
    session.server.send_raw(b"550 " + b"x" * length + b"\r\n")
    assert session.client.reply().code in (550, 421)


def test_11_bare_lf_reply_reaches_the_client_as_crlf(session):
    session.greet()
    session.client.send("NOOP")
    session.server.line()
    session.server.send_raw(b"250-a\n250 b\n")
    reply = session.client.reply()      # line() has checked the line ends
    assert reply == "250-a\n250 b" or reply.code == 421


# 13: classes

@pytest.mark.parametrize("reply", ["451 4.3.0 later", "554 5.5.1 no", "452-4.3.1 a\n452 4.3.1 b", "503 5.5.1 order"])
def test_13_refused_data_stays_in_command_mode(session, reply):
    session.to("rcpt")
    session.exchange("DATA", reply)
    session.exchange("RSET", "250 2.0.0 fine")
    session.quit()


@pytest.mark.parametrize("reply", ["250 2.0.0 fine", "220 x", "221 x"])
def test_13_success_to_data_is_no_354(session, reply):
    """It must not make the client send a message, nor believe that one was taken."""
    session.to("rcpt")
    session.client.send("DATA")
    session.server.line()
    session.server.send(reply)
    assert session.client.reply().code >= 400


@pytest.mark.parametrize("command", ["MAIL FROM:<a@b.example>", "RSET", "NOOP", "VRFY x", "EHLO again.example"])
@pytest.mark.parametrize("reply", ["354 go on", "334 aGk=", "354"])
def test_13_go_on_to_a_command_that_has_nothing_to_go_on_with(session, command, reply):
    session.greet()
    session.client.send(command)
    session.server.line()
    session.server.send(reply)
    assert session.client.reply().code >= 400


@pytest.mark.parametrize("reply", ["354 go on", "334 aGk="])
def test_13_go_on_to_the_end_of_data(session, reply):
    session.to("dot")
    session.server.send(reply)
    with contextlib.suppress(peers.Ended):
        assert session.client.reply().code >= 400


NOT_REPLIES = [b"25", b"2500 ok", b"25O ok", b"ok", b"-250 x", b" 250 x", b"150 wait", b"099 x", b"650 x",
               b"999 x", b"250x", b"250\tx", b"\xff\xff\xff x", b"250-a\r\nb", b"250-a\r\n25",
               b"HTTP/1.1 400 x", b"\x15\x03\x01\x00\x02\x02\x50", b"250\0 x"]


@pytest.mark.parametrize("phase", ["ehlo", "mail", "data", "dot"])
@pytest.mark.parametrize("line", NOT_REPLIES, ids=[repr(line)[2:-1] for line in NOT_REPLIES])
def test_16_what_is_no_reply_is_never_taken_for_success(session, phase, line):
    """RFC 5321 4.2.1: one code, hyphen or space or nothing. The client gets a 4xx, or the connection ends."""
    before = Session.PHASES[Session.PHASES.index(phase) - 1]
    session.to("dot" if phase == "dot" else before)
    command = {"ehlo": "EHLO client.example", "mail": "MAIL FROM:<a@b.example>", "data": "DATA"}.get(phase)
    if command:
        session.client.send(command)
        session.server.line()
    session.server.send_raw(line + b"\r\n")
    with contextlib.suppress(peers.Ended):
        assert session.client.reply().code >= 400


@pytest.mark.parametrize("line", NOT_REPLIES, ids=[repr(line)[2:-1] for line in NOT_REPLIES])
def test_16_what_is_no_greeting(session, line):
    session.server.send_raw(line + b"\r\n")
    session.client.expect("421")
    session.client.expect_end()


# 14: the greeting

@pytest.mark.parametrize("greeting", ["554 5.7.1 go away", "521 5.3.2 takes no mail", "556 5.1.10 null MX",
                                      "554-5.7.1 your address\n554 5.7.1 is listed"])
def test_14_refusing_greeting_is_passed_on(session, greeting):
    """RFC 5321 3.1, RFC 7504: the client must learn that this is for good."""
    session.server.send(*greeting.split("\n"))
    assert session.client.reply() == greeting
    session.client.send("QUIT")
    seen = session.server.until(b"\r\n") if not session.client.ended else b""
    assert seen in (b"QUIT\r\n", b"")


@pytest.mark.parametrize("greeting", ["421 4.3.2 too busy", "450 4.3.2 too busy"])
def test_14_temporary_greeting(session, greeting):
    session.server.send(greeting)
    session.server.close()
    session.client.expect(greeting, "421 4.4.1")
    with contextlib.suppress(OSError, peers.Ended):     # RFC 5321 3.1 lets the client say QUIT
        session.client.ask("QUIT", "221", "421")
    session.client.expect_end()


@pytest.mark.parametrize("banner", ["220", "220 server.example", "220-first\n220 last", "220 x ESMTP " + "y" * 480])
def test_14_banner_is_the_upstreams(warp, banner):
    proxy = warp()
    session = proxy.session()
    session.server.send(*banner.split("\n"))
    assert same(session.client.reply(), banner)
    assert proxy.wait_for("connect")["banner"] in banner


# 82: lines of one reply with different codes

MIXED = {"220-teaser\n521 5.7.1 go away": 521, "220-a\n220-b\n550-c\n550 5.7.1 d": 550, "554-a\n421 4.3.2 b": 421}


@pytest.mark.parametrize("greeting", MIXED)
def test_82_greeting_that_refuses_in_its_last_line(warp, greeting):
    """As real postscreen has it, and our own --greet-delay; what the server closes is closed without a word of ours."""
    proxy = warp()
    session = proxy.session()
    session.server.send(*greeting.split("\n"))
    session.server.close()
    reply = session.client.reply()
    assert reply.code == MIXED[greeting] and reply.texts == [line[4:] for line in greeting.split("\n")]
    if reply.code != 421:
        session.client.ask("QUIT", "221")
    session.client.expect_end()
    assert session.client.got.count(b"421") == (2 if reply.code == 421 else 0)
    assert proxy.wait_for("connect")["banner"] == reply.texts[-1]
    assert not proxy.records("error")


@pytest.mark.parametrize("options", [["--tls", "none"], []], ids=str)
def test_82_refusing_greeting_behind_a_teaser_of_smtpwarp(warp, options):
    """One smtpwarp behind another."""
    behind = warp("--greet-delay", "0.05", "--allow-clients", "192.0.2.0/24", "--tls", "none").listen()
    proxy = warp("--upstream", "127.0.0.1:2525", *options)
    client = proxy.connect()
    assert client.reply().code == 554
    client.ask("QUIT", "221")
    behind.wait_for("close")


@pytest.mark.parametrize("phase", ["ehlo", "mail", "rcpt", "data", "dot"])
@pytest.mark.parametrize("reply, code", [("550-5.7.1 first\n554 5.7.1 second", 554), ("451-4.3.0 a\n450-b\n452 4.3.1 c", 452),
                                         ("250-a\n550 5.7.1 b", 550)])
def test_82_last_line_decides(warp, phase, reply, code):
    proxy = warp("--tls", "none")
    session = proxy.session()
    session.to("dot" if phase == "dot" else Session.PHASES[Session.PHASES.index(phase) - 1])
    command = {"ehlo": "HELO client.example", "mail": "MAIL FROM:<a@b.example>", "rcpt": "RCPT TO:<c@d.example>",
               "data": "DATA"}.get(phase)
    if command:
        session.client.send(command)
        session.server.expect_line(command)
    session.server.send(*reply.split("\n"))
    got = session.client.reply()
    assert got.code == code and got.texts == [line[4:] for line in reply.split("\n")]
    if phase == "ehlo":     # NOOP is answered by smtpwarp
        session.client.ask("NOOP", "250")
    else:
        session.exchange("NOOP", "250 2.0.0 in step")
    session.client.close()
    proxy.wait_for("close")
    if phase in ("mail", "data", "dot"):
        assert proxy.wait_for("message")["reply"]["code"] == code


LATE = ["--connect-on", "recipient", "--tls", "none"]


@pytest.mark.parametrize("banner", ["554 5.7.1 you are listed", "220-teaser\n554 5.7.1 you are listed"])
@pytest.mark.parametrize("refuses", ["banner", "ehlo"])
def test_82_late_refusals_in_the_servers_words(warp, mail_server, banner, refuses):
    if refuses == "banner":
        server = mail_server(banner=banner.replace("\n", "\r\n"))
    else:
        server = mail_server(replies={"EHLO": banner.replace("220", "250"), "HELO": banner.replace("220", "250")})
    proxy = warp(*LATE, upstream=server)
    client = proxy.greeted()
    client.ask("MAIL FROM:<a@b.example>", "250")
    client.send("RCPT TO:<c@d.example>")
    reply = client.reply()
    assert reply.code == 451 and "554 5.7.1 you are listed" in reply
    assert "554 5.7.1 you are listed" in proxy.wait_for("error")["error"]


def test_82_words_of_a_421_reach_the_log(warp):
    proxy = warp()
    session = proxy.session()
    session.greet()
    session.server.send("421-4.3.2 going", "421 4.3.2 down for the night")
    session.client.expect("421")
    assert proxy.wait_for("close")["reason"] == "reply 421 4.3.2 down for the night"


def test_82_early_refusal_in_several_lines(session):
    """Within a message, by the last line too."""
    session.to("body")
    session.server.send_raw(b"552-5.3.4 too large\r\n")
    session.server.drained()
    session.server.send("552 5.3.4 see https://server.example/")
    session.client.send_raw(b"\r\n.\r\n")
    session.client.expect("552 5.3.4 see https://server.example/")


# 15: 421

@pytest.mark.parametrize("phase", ["ehlo", "mail", "rcpt", "data", "dot"])
def test_15_421_as_reply(warp, phase):
    proxy = warp()
    session = proxy.session()
    if phase == "dot":
        session.to("dot")
    else:
        session.to(Session.PHASES[Session.PHASES.index(phase) - 1])
        session.client.send({"ehlo": "EHLO client.example", "mail": "MAIL FROM:<>", "rcpt": "RCPT TO:<a@b.example>",
                             "data": "DATA"}[phase])
        session.server.line()
    session.server.send("421 4.3.2 going down")
    session.server.close()
    assert session.client.reply() == "421 4.3.2 going down"
    session.client.expect_end()
    proxy.wait_for("close")


@pytest.mark.parametrize("phase", ["banner", "ehlo", "mail", "rcpt", "sent"])
@pytest.mark.parametrize("leave", ["close", "reset", "stay"])
def test_15_unsolicited_421(session, phase, leave):
    """Told once, now or as the answer to the next command."""
    session.to(phase)
    session.server.send("421 4.4.2 idle too long")
    if leave != "stay":
        session.server.drained()
        getattr(session.server, leave)()
    with contextlib.suppress(OSError):
        session.client.send("NOOP")
    session.client.expect("421")
    session.client.expect_end()


def test_15_421_after_pipelined_commands_is_told_once(session):
    session.greet("PIPELINING")
    session.client.send("MAIL FROM:<a@b.example>", "RCPT TO:<c@d.example>", "RCPT TO:<e@f.example>")
    session.server.lines(3)
    session.server.send("250 2.1.0 fine", "421 4.3.2 going down")
    session.server.close()
    session.client.expect("250 2.1.0 fine")
    session.client.expect("421 4.3.2 going down")
    session.client.expect_end()


# 16: too many

@pytest.mark.parametrize("phase", ["mail", "rcpt", "sent"])
@pytest.mark.parametrize("extra", ["250 2.0.0 extra", "250 2.1.5 extra\r\n250 2.1.5 more", "550 5.0.0 extra"])
def test_16_extra_reply_answers_no_later_command(session, phase, extra):
    """It came before the command, so it is no answer to it."""
    session.to(phase)
    session.server.send(extra)
    session.server.drained()
    with contextlib.suppress(OSError):
        session.client.send("RCPT TO:<next@server.example>")
    with contextlib.suppress(peers.Ended):
        session.client.expect("421")
    session.client.expect_end()


@pytest.mark.parametrize("pipelining", [True, False])
def test_16_extra_reply_together_with_the_right_one(session, pipelining):
    session.greet(*(["PIPELINING"] if pipelining else []))
    session.client.send("MAIL FROM:<a@b.example>")
    session.server.line()
    session.server.send("250 2.1.0 fine", "250 2.1.5 for nobody")
    session.client.expect("250 2.1.0 fine", "421")
    with contextlib.suppress(OSError, peers.Ended):
        session.client.send("RCPT TO:<c@d.example>")
        session.client.expect("421")
    session.client.expect_end()


def test_16_extra_reply_after_a_message_does_not_acknowledge_the_next(session):
    """The 250 for nobody must not become that of a second message, which the upstream may never take."""
    session.to("dot", "PIPELINING")
    session.server.send("250 2.0.0 taken", "250 2.0.0 and again")
    session.client.expect("250 2.0.0 taken")
    with contextlib.suppress(OSError, peers.Ended):
        session.client.send("MAIL FROM:<>")
        session.client.expect("421")
    session.client.expect_end()


def test_16_replies_before_the_banner_is_asked_for_anything(session):
    session.server.send("220 server.example", "250 hello", "250 sender fine")
    session.client.expect("220", "421")
    with contextlib.suppress(OSError, peers.Ended):
        session.client.send("EHLO client.example")
        session.client.expect("421")
    session.client.expect_end()


def test_16_reply_flood(warp):
    """A server that never stops talking ends the session; it neither fills memory nor burns time."""
    proxy = warp()
    session = proxy.session()
    session.greet()
    with contextlib.suppress(OSError, TimeoutError):
        session.server.send_raw(b"250 2.0.0 and more\r\n" * 500000, timeout=5)
    session.client.rest()
    assert proxy.wait_for("close")["by"] in ("smtpwarp", "upstream")


def test_16_endless_reply(session):
    """Continuation lines for ever: passed on with back-pressure, or cut off; the client's end closes it all."""
    session.greet()
    session.client.send("HELP")
    session.server.line()
    session.client.paused = True
    sent = session.server.send_what_fits(b"214-help\r\n" * 5000, 100 << 20)
    assert sent < 60 << 20, "smtpwarp swallowed it all"
    session.client.close()


def test_16_endless_reply_line(session):
    session.greet()
    session.client.send("NOOP")
    session.server.line()
    with contextlib.suppress(OSError, TimeoutError):
        session.server.send_raw(b"250 " + b"x" * (20 << 20), timeout=5)
        session.server.send_raw(b"\r\n", timeout=1)
    assert len(session.client.got) < 1 << 20
    session.client.close()


EMPTY = [b"\r\n", b"\n", b"\r\n\r\n\n", b"\r\r\n"]


@pytest.mark.parametrize("options", [[], ["--connect-on", "recipient"], ["--tls", "none"]], ids=str)
@pytest.mark.parametrize("empty", EMPTY, ids=repr)
def test_16_empty_lines_are_no_replies(warp, options, empty):
    """Passed over, as Postfix and nodemailer do: before, between, together with the reply and apart."""
    proxy = warp(*options)
    client = proxy.connect()
    late = "recipient" in options
    if late:
        client.expect("220")
        client.ask("EHLO client.example", "250")
        client.ask("MAIL FROM:<a@b.example>", "250")
        client.send("RCPT TO:<c@d.example>")
    server = proxy.upstream.accept()
    server.send_raw(empty + b"220 server.example\r\n" + empty)
    if not late:
        client.expect("220")
        client.send("EHLO client.example")
    for command in "EHLO client.example", "MAIL FROM:<a@b.example>", "RCPT TO:<c@d.example>":
        if not late and command[0] != "E":
            client.send(command)
        server.expect_line(command)
        server.send_raw(empty)
        server.drained()
        server.send_raw(b"250 fine\r\n" + empty)
        if not late:
            client.expect("250")
    if late:
        client.expect("250")
    client.send("DATA")
    server.expect_line("DATA")
    server.send_raw(b"354 go on\r\n" + empty)
    client.expect("354")
    client.send("x", ".")
    server.until(b"\r\n.\r\n")
    server.send_raw(empty + b"250 taken\r\n" + empty)
    client.expect("250 taken")


def test_16_empty_line_within_a_reply_is_a_violation(session):
    session.greet()
    session.client.send("NOOP")
    session.server.line()
    session.server.send_raw(b"250-a\r\n\r\n250 b\r\n")
    session.client.expect("421")


def test_56_empty_line_behind_starttls_is_plaintext(warp):
    session = warp().session()
    session.banner()
    session.client.send("EHLO client.example")
    session.server.line()
    session.server.send("250-server.example", "250 STARTTLS")
    session.server.expect_line("STARTTLS")
    session.server.send_raw(b"220 go\r\n\r\n")
    session.client.expect("421 4.7.0")


def test_41_list_that_ends_its_lines_in_cr_cr_lf(session):
    session.banner()
    session.client.send("EHLO client.example")
    session.server.line()
    session.server.send_raw(b"250-server.example\r\r\n250-SIZE 1000\r\r\n250-8BITMIME\r\r\n250 DSN\r\r\n")
    assert session.client.reply().texts == ["server.example", "SIZE 1000", "8BITMIME", "DSN", "PIPELINING"]


# 17: enhanced codes

@pytest.mark.parametrize("reply", ["250 2.1.0 fine", "250-2.1.5 a\n250-2.1.5 b\n250 2.1.5 c", "452 4.2.2 full",
                                   "550 5.123.45 odd", "250 no code at all", "550 2.0.0 class differs"])
def test_17_enhanced_codes_stay(session, reply):
    session.to("mail", "ENHANCEDSTATUSCODES")
    session.exchange("RCPT TO:<a@b.example>", reply)


def test_17_no_enhanced_code_is_added(session):
    session.server.send("220 server.example")
    assert session.client.reply() == "220 server.example"
    reply = session.ehlo("SIZE 1000")
    assert reply.lines[0] == "250-server.example"
    session.mail()
    session.rcpt()
    session.data()


def test_17_codes_reach_the_log(warp):
    proxy = warp()
    session = proxy.session()
    session.greet()
    session.mail()
    session.exchange("RCPT TO:<a@b.example>", "250 2.1.5 fine")
    session.exchange("RCPT TO:<c@d.example>", "550-5.1.1 no\n550 5.1.1 such user")
    session.exchange("RCPT TO:<e@f.example>", "450 later")
    session.data()
    session.body()
    session.dot()
    session.server.send("250 2.6.0 queued as 4711")
    session.client.expect("250")
    record = proxy.wait_for("message")
    seen = [(r["address"], int(r["code"]), r["enhanced"]) for r in record["rcpt_to"]]
    assert seen == [("a@b.example", 250, "2.1.5"), ("c@d.example", 550, "5.1.1"), ("e@f.example", 450, None)]
    assert record["result"] == "accepted" and record["reply"]["enhanced"] == "2.6.0"
    assert "queued as 4711" in record["reply"]["text"]


@pytest.mark.parametrize("reply, result", [("250 2.0.0 ok", "accepted"), ("550 5.7.1 spam", "rejected"),
                                           ("451 4.7.1 later", "deferred"), ("554-5.0.0 a\n554 5.0.0 b", "rejected")])
def test_17_final_reply_reaches_client_and_log(warp, reply, result):
    """With go-smtpproxy a 550 after the final dot reaches the client as code 0."""
    proxy = warp()
    session = proxy.session()
    session.to("dot")
    session.server.send(*reply.split("\n"))
    assert session.client.reply() == reply
    record = proxy.wait_for("message")
    assert (record["result"], int(record["reply"]["code"])) == (result, int(reply[:3]))


# 18: verbs

@pytest.mark.parametrize("command, reply", [
    ("VRFY someone", "252 2.5.2 perhaps"), ("VRFY someone", "250 2.1.5 <someone@server.example>"),
    ("VRFY x", "550 5.1.1 no"), ("VRFY x", "251 2.1.5 elsewhere"), ("EXPN list", "250-a@b.example\n250 c@d.example"),
    ("EXPN x", "502 5.5.1 no"), ("HELP", "214-a\n214 b"), ("HELP MAIL", "214 x"), ("ETRN server.example", "250 x")])
def test_18_vrfy_expn_help_are_the_upstreams(session, command, reply):
    session.greet("VRFY", "EXPN", "HELP", "ETRN")
    session.exchange(command, reply)


@pytest.mark.parametrize("command", ["FOO", "XFOO bar", "TURN", "SEND FROM:<a@b.example>", "MAILFROM:<a@b.example>",
                                     "HTTP/1.1", "RCPTTO:<a@b.example>", "NOOPX", "Subject: hello", "."])
def test_18_unknown_command(session, command):
    session.greet()
    session.client.ask(command, "500 5.5.1")
    session.exchange("NOOP", "250 2.0.0 fine")


@pytest.mark.parametrize("command", ["STARTTLS", "XCLIENT ADDR=1.2.3.4", "XFORWARD ADDR=1.2.3.4"])
def test_18_not_offered(session, command):
    session.greet("XCLIENT ADDR NAME", "XFORWARD ADDR")
    session.client.ask(command, "502 5.5.1")
    session.exchange("NOOP", "250 2.0.0 fine")


@pytest.mark.parametrize("command", ["MAIL FROM:<a@b.example>", "RCPT TO:<a@b.example>", "DATA", "ETRN x",
                                     "AUTH PLAIN AGEAYg==", "BDAT 0 LAST"])
def test_18_before_ehlo_503(session, command):
    session.banner()
    session.client.ask(command, "503 5.5.1")
    session.ehlo()
    assert session.server.got == b"EHLO client.example\r\n"


@pytest.mark.parametrize("options", [[], ["--connect-on", "recipient"]], ids=str)
@pytest.mark.parametrize("command, code", [("NOOP", 250), ("RSET", 250), ("HELP", 214), ("HELP MAIL", 214), ("VRFY x", 252),
                                           ("EXPN x", 502)])
def test_18_before_ehlo_in_order(warp, mail_server, options, command, code):
    """RFC 5321 4.1.4 names them all. They are answered here: before TLS nothing is sent upstream."""
    server = mail_server()
    client = warp(*options, upstream=server).connect()
    client.expect("220")
    client.ask(command, str(code))
    client.ask("EHLO client.example", "250")
    assert not options and server.commands == ["EHLO client.example"] or options


@pytest.mark.parametrize("command", ["RCPT TO:<a@b.example>", "DATA"])
def test_18_out_of_order(warp, mail_server, command):
    """By the upstream's word or smtpwarp's own, there is no 354 without sender and recipient."""
    client = warp(upstream=mail_server()).greeted()
    client.ask(command, "503 5.5.1")
    client.ask("MAIL FROM:<a@b.example>")
    client.ask("MAIL FROM:<a@b.example>", "503 5.5.1")
    client.ask("DATA", "503", "554")
    client.ask("RCPT TO:<c@d.example>")
    client.ask("DATA", "354")


# 19: DATA with no recipient left

@pytest.mark.parametrize("after_dot", ["554 5.5.1 nobody", "250 2.0.0 nothing taken"])
def test_19_lone_dot_when_all_recipients_were_refused(session, after_dot):
    """RFC 2920 3.1. The client hears 554 and sends no message; smtpwarp ends the upstream's wait by itself."""
    session.greet("PIPELINING")
    client, server = session.client, session.server
    client.send("MAIL FROM:<a@b.example>", "RCPT TO:<c@d.example>", "RCPT TO:<e@f.example>", "DATA")
    assert server.lines(4)[3] == "DATA"
    server.send("250 2.1.0 a", "550 5.1.1 b", "550 5.1.1 c", "354 go on")
    assert server.line() == "."
    server.send(after_dot)
    assert [client.reply().code for _ in range(3)] == [250, 550, 550]
    client.expect("554 5.5.1")
    session.exchange("RSET", "250 2.0.0 fine")
    session.mail()


def test_19_refused_data_when_all_recipients_were_refused(session):
    session.greet("PIPELINING")
    session.client.send("MAIL FROM:<a@b.example>", "RCPT TO:<c@d.example>", "DATA")
    session.server.lines(3)
    session.server.send("250 2.1.0 a", "550 5.1.1 b", "554 5.5.1 c")
    assert [session.client.reply() for _ in range(3)] == ["250 2.1.0 a", "550 5.1.1 b", "554 5.5.1 c"]
    session.exchange("RSET", "250 2.0.0 fine")


def test_19_null_sender_and_refused_recipient_are_answered(session):
    """smtpproxy answers neither."""
    session.greet()
    session.mail("MAIL FROM:<>")
    session.exchange("RCPT TO:<c@d.example>", "550 5.1.1 no")
