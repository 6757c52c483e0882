"""Silence, close and reset at every moment, on either side: PROTOCOL 66, 67, 69-72, 74."""
import contextlib
import re
import time

import pytest

import peers
from warp import MESSAGE

PHASES = ["connect", "banner", "ehlo", "mail", "rcpt", "data", "body", "dot", "sent"]
WAITING = ["ehlo", "mail", "rcpt", "data"]      # a command has gone upstream and has no answer
COMMANDS = {"ehlo": "EHLO client.example", "mail": "MAIL FROM:<a@b.example>", "rcpt": "RCPT TO:<c@d.example>",
            "data": "DATA"}
END_OF_DATA = re.compile(rb"(^|\r\n)\.\r\n")


def waiting(session, phase):
    """The command of that phase has reached the upstream, which has not answered."""
    session.to(PHASES[PHASES.index(phase) - 1])
    session.client.send(COMMANDS[phase])
    session.server.expect_line(COMMANDS[phase])
    return session


# 66: who may say 250

@pytest.mark.parametrize("leave", ["close", "reset", "half_close"])
def test_66_unclear_outcome_is_never_told(warp, leave):
    """RFC 1047: the upstream may have taken the message or not. Neither 250 nor 4xx is true: the client is dropped."""
    proxy = warp()
    session = proxy.session().to("dot")
    getattr(session.server, leave)()
    session.client.expect_end()
    assert proxy.wait_for("message")["result"] == "unknown"


def test_66_unclear_outcome_of_a_silent_upstream(warp):
    proxy = warp("--dot-timeout", 0.3)
    session = proxy.session().to("dot")
    session.client.expect_end()
    assert proxy.wait_for("message")["result"] == "unknown"


def test_66_unclear_outcome_of_the_last_chunk(warp):
    proxy = warp()
    session = proxy.session().to("rcpt", "CHUNKING")
    session.client.send_raw(b"BDAT 5 LAST\r\nhello")
    session.server.take(len(b"BDAT 5 LAST\r\nhello"))
    session.server.close()
    session.client.expect_end()
    assert proxy.wait_for("message")["result"] == "unknown"


def test_66_half_a_reply_is_no_reply(warp):
    proxy = warp()
    session = proxy.session().to("dot")
    session.server.send_raw(b"250 2.0.0 tak")
    session.server.close()
    session.client.expect_end()
    assert proxy.wait_for("message")["result"] == "unknown"


def test_66_continuation_without_an_end_is_no_reply(warp):
    proxy = warp()
    session = proxy.session().to("dot")
    session.server.send_raw(b"250-2.0.0 taken\r\n")
    session.server.close()
    with contextlib.suppress(peers.Ended):
        session.client.reply()
        pytest.fail("the client got a whole reply")
    assert proxy.wait_for("message")["result"] == "unknown"


def test_66_client_gone_after_its_dot(warp):
    """The upstream's answer is logged all the same: it may have the message."""
    proxy = warp()
    session = proxy.session().to("dot")
    session.client.close()
    session.server.send("250 2.0.0 taken")
    assert proxy.wait_for("message")["result"] in ("accepted", "unknown")


def test_66_250_only_after_250(session):
    session.to("dot")
    session.client.silent()
    session.server.send("250-2.0.0 almost")
    session.client.drained()
    session.server.send("250 2.0.0 taken")
    session.client.expect("250 2.0.0 taken")


@pytest.mark.parametrize("then", ["close", "reset"])
def test_66_message_taken_and_connection_lost(warp, then):
    """The 250 came, so it is told, though the connection has ended since."""
    proxy = warp()
    session = proxy.session().to("dot")
    session.server.send("250 2.0.0 taken")
    session.server.drained()
    getattr(session.server, then)()
    session.client.expect("250 2.0.0 taken")
    assert proxy.wait_for("message")["result"] == "accepted"


def test_66_second_message_after_a_lost_one_is_not_mixed_up(warp):
    """Two messages in one segment; the upstream takes the first and dies: the second is not acknowledged."""
    session = warp().session().to("ehlo", "PIPELINING")
    client, server = session.client, session.server
    client.send_raw((b"MAIL FROM:<a@b.example>\r\nRCPT TO:<c@d.example>\r\nDATA\r\n" + MESSAGE) * 2)
    server.lines(3)
    server.send("250 a", "250 b", "354 c")
    server.until(b"\r\n.\r\n")
    server.send("250 taken")
    server.lines(3)
    server.close()
    assert [client.reply().code for _ in range(4)] == [250, 250, 354, 250]
    with contextlib.suppress(peers.Ended):
        while True:
            assert client.reply().code >= 400


# Close and reset, every phase, both sides

@pytest.mark.parametrize("leave", ["close", "reset", "half_close"])
@pytest.mark.parametrize("phase", [phase for phase in PHASES if phase != "dot"])
def test_66_client_leaves(warp, phase, leave):
    """The upstream is left in good order, never with an end of data that the client did not send."""
    proxy = warp()
    session = proxy.session().to(phase)
    getattr(session.client, leave)()
    seen = session.server.farewell()
    assert not END_OF_DATA.search(seen)
    assert not seen or seen == b"QUIT\r\n" or phase in ("data", "body"), seen
    session.server.close()
    assert proxy.wait_for("close")["by"] == "client"


@pytest.mark.parametrize("leave", ["close", "reset", "half_close"])
@pytest.mark.parametrize("phase", WAITING)
def test_66_client_leaves_while_a_command_waits(warp, phase, leave):
    proxy = warp()
    session = waiting(proxy.session(), phase)
    getattr(session.client, leave)()
    with contextlib.suppress(OSError):      # after half a close, it may still want the answer
        session.server.send("250 2.0.0 fine" if phase != "data" else "354 go on")
    assert not END_OF_DATA.search(session.server.farewell())
    session.server.close()
    proxy.wait_for("close")


@pytest.mark.parametrize("leave", ["close", "reset", "half_close"])
@pytest.mark.parametrize("phase", ["connect", *WAITING])
def test_66_upstream_leaves_while_a_command_waits(warp, phase, leave):
    proxy = warp()
    session = waiting(proxy.session(), phase) if phase != "connect" else proxy.session()
    getattr(session.server, leave)()
    session.client.expect("421 4.4.1" if phase == "connect" else "421 4.4.2")
    session.client.expect_end()
    assert proxy.wait_for("close")["by"] == "upstream" or phase == "connect"


@pytest.mark.parametrize("leave", ["close", "reset"])
@pytest.mark.parametrize("phase", ["banner", "ehlo", "mail", "rcpt", "sent"])
def test_66_upstream_leaves_between_commands(warp, phase, leave):
    """421, now or as answer to the next command, once."""
    proxy = warp()
    session = proxy.session().to(phase)
    getattr(session.server, leave)()
    with contextlib.suppress(OSError):
        session.client.send("EHLO client.example" if phase == "banner" else "NOOP")
    session.client.expect("421 4.4.2")
    session.client.expect_end()
    assert proxy.wait_for("close")["by"] == "upstream"


@pytest.mark.parametrize("part", [b"2", b"25", b"250", b"250-x", b"250-x\r", b"250-x\r\n", b"250 x", b"250 x\r"])
@pytest.mark.parametrize("phase", ["connect", "ehlo", "rcpt"])
def test_66_upstream_leaves_in_its_reply(warp, phase, part):
    session = warp().session()
    if phase != "connect":
        waiting(session, phase)
    session.server.send_raw(part.replace(b"250", b"220") if phase == "connect" else part)
    session.server.close()
    if part == b"250-x\r\n":        # lines that were whole may have gone on; a whole reply may not
        with contextlib.suppress(peers.Ended):
            assert b"\n250 " not in session.client.rest()
        return
    session.client.expect("421")
    session.client.expect_end()


def test_66_both_leave_at_once(warp):
    proxy = warp()
    session = proxy.session().to("body")
    session.client.reset()
    session.server.reset()
    assert proxy.wait_for("message")["result"] == "aborted"
    proxy.wait_for("close")


# 67: silence

@pytest.mark.parametrize("phase, option, code", [
    ("connect", "--banner-timeout", "421 4.4.1"), ("ehlo", "--command-timeout", "421 4.4.2"),
    ("mail", "--mail-timeout", "421 4.4.2"), ("rcpt", "--rcpt-timeout", "421 4.4.2"),
    ("data", "--data-timeout", "421 4.4.2")])
def test_67_silent_upstream(warp, phase, option, code):
    proxy = warp(option, 0.3)
    session = proxy.session()
    if phase != "connect":
        waiting(session, phase)
    session.client.expect(code, "421 4.4.2")
    session.client.expect_end()
    close = proxy.wait_for("close")
    assert close["duration_ms"] > 250 and re.search("time", close["reason"], re.I)


@pytest.mark.parametrize("command", ["NOOP", "RSET", "VRFY x", "HELP", "AUTH LOGIN"])
def test_67_silent_upstream_other_commands(warp, command):
    session = warp("--command-timeout", 0.3).session()
    session.greet("AUTH LOGIN")
    session.client.send(command)
    session.server.expect_line(command)
    session.client.expect("421 4.4.2")
    session.client.expect_end()


def test_67_silent_upstream_after_quit(warp):
    session = warp("--command-timeout", 0.3).session()
    session.greet()
    session.client.send("QUIT")
    session.client.expect("221", "421")
    session.client.expect_end()


@pytest.mark.parametrize("phase", ["connect", "ehlo", "mail", "data", "dot"])
def test_67_trickling_upstream(warp, phase):
    """A reply has its time as a whole: a byte now and then does not win more. (200 bytes at 20 ms: 4 s.)"""
    options = [word for name in ("banner", "command", "mail", "data", "dot") for word in (f"--{name}-timeout", 1)]
    proxy = warp(*options)
    session = proxy.session()
    if phase == "dot":
        session.to("dot")
    elif phase != "connect":
        waiting(session, phase)
    with contextlib.suppress(OSError):
        session.server.send_raw(b"220-" if phase == "connect" else b"354-" if phase == "data" else b"250-")
        for _ in range(200):
            session.server.send_raw(b"x")
            session.server.group.turn(0.02)
            if session.client.ended or session.client.buffer:
                break
        else:
            pytest.fail("the upstream has more time than it should")
    if phase != "dot":
        session.client.expect("421")
    session.client.expect_end()


def test_67_many_replies_in_time_do_not_time_out(warp):
    """The deadline is that of each command, not of the session."""
    session = warp("--mail-timeout", 1, "--command-timeout", 1).session()
    session.greet()
    for number in range(25):
        session.client.send(f"NOOP {number}")
        session.server.line()
        session.client.silent(0.05)
        session.server.send("250 fine")
        session.client.expect("250")


@pytest.mark.parametrize("phase", ["banner", "ehlo", "mail", "rcpt", "sent"])
def test_67_silent_client(warp, phase):
    proxy = warp("--idle-timeout", 1)
    session = proxy.session().to(phase)
    session.client.expect("421 4.4.2")
    session.client.expect_end()
    assert not END_OF_DATA.search(session.server.farewell())
    assert proxy.wait_for("close")["by"] == "smtpwarp"


@pytest.mark.parametrize("phase", ["data", "body"])
def test_67_silent_client_in_data(warp, phase):
    """No dot follows from a timeout."""
    proxy = warp("--block-timeout", 0.3)
    session = proxy.session().to(phase)
    session.client.expect("421 4.4.2")
    session.client.expect_end()
    assert not END_OF_DATA.search(session.server.farewell())
    assert proxy.wait_for("message")["result"] == "aborted"


def test_67_silent_client_in_a_chunk(warp):
    proxy = warp("--block-timeout", 0.3)
    session = proxy.session().to("rcpt", "CHUNKING")
    session.client.send_raw(b"BDAT 100 LAST\r\nhalf")
    session.client.expect("421 4.4.2")
    assert session.server.farewell().count(b"half") <= 1
    assert proxy.wait_for("message")["result"] == "aborted"


def test_67_upstream_that_stops_reading_in_data(warp):
    proxy = warp("--block-timeout", 1, "--message-size-limit", 0)
    session = proxy.session().to("data")
    session.server.paused = True
    session.client.send_what_fits(b"x" * 98 + b"\r\n", 64 << 20)
    proxy.wait_for("close")
    session.server.paused = False
    assert not END_OF_DATA.search(session.server.farewell())
    assert proxy.wait_for("message")["result"] in ("aborted", "deferred")


def test_67_session_timeout(warp):
    """However busy it is."""
    proxy = warp("--session-timeout", 0.5)
    session = proxy.session()
    session.greet()
    replies = []
    with contextlib.suppress(peers.Ended, OSError, AssertionError):
        for number in range(1000):
            session.client.send(f"NOOP {number}")
            session.client.wait(lambda: session.client.buffer or session.server.buffer, "next")
            if session.server.buffer:
                session.server.line()
                session.server.send("250 fine")
            replies.append(session.client.reply())
            session.client.group.turn(0.005)
    assert replies[-1].startswith("421 4.4.2")
    assert proxy.wait_for("close")["by"] == "smtpwarp"


def test_67_unreachable_upstream(warp, host):
    """Nobody answers the SYN."""
    host.nft("table inet t { chain o { type filter hook output priority 0; tcp dport 2599 drop; }; }")
    client = warp("--upstream", "127.0.0.1:2599", "--connect-timeout", 0.4).connect()
    client.expect("421 4.4.1")
    client.expect_end()


def test_67_client_that_stays_after_its_421(warp):
    """smtpwarp waits a moment so that the client can read it, not for ever."""
    proxy = warp("--idle-timeout", 1)
    session = proxy.session().to("ehlo")
    session.client.expect("421 4.4.2")
    with pytest.raises(peers.Ended):
        session.client.line()
    proxy.wait_exit()


# 69: slow on purpose

def test_69_a_command_has_its_time_as_a_whole(warp):
    """A byte now and then (the idle timeout would start anew with each) does not win more."""
    session = warp("--command-timeout", 1).session()
    session.greet()
    with contextlib.suppress(OSError):
        for byte in b"NOOP " + b"x" * 200:
            session.client.send_raw(bytes([byte]))
            session.client.group.turn(0.02)
            if session.client.buffer or session.client.ended:
                break
        else:
            pytest.fail("the client has more time than it should")
    session.client.expect("421 4.4.2")


def test_69_data_below_the_least_rate(warp):
    """Each byte in time, and yet too slow as a whole."""
    proxy = warp("--min-rate", 100000, "--block-timeout", 1)
    session = proxy.session().to("data")
    with contextlib.suppress(OSError):
        for _ in range(300):
            session.client.send_raw(b"x\r\n")
            session.client.group.turn(0.02)
            if session.client.buffer or session.client.ended:
                break
    session.client.expect("421 4.4.2")
    assert not END_OF_DATA.search(session.server.farewell())
    assert proxy.wait_for("message")["result"] == "aborted"


def test_69_fast_octets_are_no_credit_for_slow_ones(warp):
    """A megabyte at once would have bought a hundred seconds at an octet now and then."""
    session = warp("--min-rate", 10000, "--block-timeout", 1).session().to("data")
    session.client.send_raw(b"x" * 998 + b"\r\n" + (b"y" * 998 + b"\r\n") * 1000)
    for _ in range(200):
        with contextlib.suppress(OSError):
            session.client.send_raw(b"x\r\n")
        time.sleep(0.02)
        session.client.group.turn(0)
        if session.client.buffer or session.client.ended:
            break
    session.client.expect("421 4.4.2 client slow within a message")


def test_69_a_slow_client_above_the_least_rate_is_served(warp):
    session = warp("--min-rate", 10, "--block-timeout", 1).session().to("data")
    for _ in range(60):
        session.client.send_raw(b"twenty bytes or more\r\n")
        session.client.group.turn(0.02)
    session.client.send_raw(b".\r\n")
    session.server.until(b"\r\n.\r\n")
    session.sent()


# 70: half-close

def test_70_half_close_after_quit_still_gets_221(session):
    session.greet()
    session.client.send("QUIT")
    session.client.half_close()
    session.server.expect_line("QUIT")
    session.server.send("221 2.0.0 bye")
    session.client.expect("221 2.0.0 bye")
    session.server.close()
    session.client.expect_end()


def test_70_half_close_after_a_whole_session_in_one_segment(warp, mail_server):
    """`printf ... | nc`: all was said, all is answered, the message arrives."""
    server = mail_server("PIPELINING")
    client = warp(upstream=server).connect()
    client.send_raw(b"EHLO client.example\r\nMAIL FROM:<a@b.example>\r\nRCPT TO:<c@d.example>\r\nDATA\r\n" + MESSAGE
                    + b"QUIT\r\n")
    client.half_close()
    assert [client.reply().code for _ in range(7)] == [220, 250, 250, 250, 354, 250, 221]
    client.expect_end()
    assert [message["data"] for message in server.messages] == [MESSAGE]


def test_70_half_close_after_the_dot(warp, mail_server):
    server = mail_server()
    proxy = warp(upstream=server)
    client = proxy.connect()
    client.send_raw(b"EHLO client.example\r\nMAIL FROM:<a@b.example>\r\nRCPT TO:<c@d.example>\r\nDATA\r\n" + MESSAGE)
    client.half_close()
    assert [client.reply().code for _ in range(6)] == [220, 250, 250, 250, 354, 250]
    assert proxy.wait_for("message")["result"] == "accepted"


def test_70_upstream_half_closes_after_221(session):
    session.greet()
    session.client.send("QUIT")
    session.server.expect_line("QUIT")
    session.server.send("221 2.0.0 bye")
    session.server.half_close()
    session.client.expect("221 2.0.0 bye")
    session.client.expect_end()


# 71, 72: nothing is left behind

@pytest.mark.parametrize("refused", ["MAIL FROM:<b@b.example> SIZE=99999999999", "MAIL FROM:<b@b.example> X=1 X=1",
                                     "MAIL FROM:<b@b.example> REQUIRETLS"])
def test_71_what_smtpwarp_refuses_leaves_no_transaction_upstream(warp, mail_server, refused):
    """The recipients that follow in the same segment find no sender, be it this one or an older one."""
    server = mail_server("PIPELINING", "SIZE 1000")
    client = warp(upstream=server).greeted()
    client.ask("MAIL FROM:<old@b.example>")
    client.ask("RSET")
    client.send(refused, "RCPT TO:<c@d.example>", "DATA")
    assert [client.reply().code // 100 for _ in range(3)] == [5, 5, 5]
    client.ask("MAIL FROM:<new@b.example>")
    client.ask("RCPT TO:<e@f.example>")
    client.ask("DATA", "354")
    client.send(".")
    client.expect("250")
    assert [(message["from"], message["to"]) for message in server.messages] == [
        ("<new@b.example>", ["<e@f.example>"])]


def test_72_each_client_has_its_own_upstream_connection(warp, mail_server):
    server = mail_server("AUTH PLAIN")
    proxy = warp(upstream=server).listen()
    for number in range(3):
        client = proxy.greeted()
        if number == 0:
            client.ask("AUTH PLAIN AGEAYg==", "235")
        client.ask("MAIL FROM:<a@b.example>")
        client.ask("RCPT TO:<c@d.example>")
        client.ask("DATA", "354")
        client.send(".")
        client.expect("250")
        client.ask("QUIT", "221")
    assert len(server.peers) == 3
    assert [proxy.wait_for("message", count)["auth"] for count in (1, 2, 3)] == ["a", None, None]


# 74: no upstream at all

@pytest.mark.parametrize("address", ["127.0.0.1:1", "[::1]:1", "192.0.2.1:25"])
def test_74_dial_failure(warp, address):
    proxy = warp("--upstream", address)
    client = proxy.connect()
    reply = client.expect("421 4.4.1")
    assert address.rpartition(":")[0].strip("[]") in reply and reply.rstrip()[-1] != ":"
    client.expect_end()
    assert proxy.wait_for("error")["error"]
    assert proxy.wait_for("close")["messages"] == 0


def test_74_client_that_speaks_at_once_reads_the_421(warp):
    """Unread input would turn the close into a reset that eats the reply."""
    client = warp("--upstream", "127.0.0.1:1").connect()
    with contextlib.suppress(OSError):
        client.send_raw(b"EHLO client.example\r\n" * 2000)
    client.expect("421 4.4.1")


def test_74_client_leaves_while_smtpwarp_dials(warp, host):
    host.nft("table inet t { chain o { type filter hook output priority 0; tcp dport 2599 drop; }; }")
    proxy = warp("--upstream", "127.0.0.1:2599", "--connect-timeout", 60)
    client = proxy.connect()
    proxy.wait_asleep()
    client.reset()
    proxy.wait_exit()


# 66: a message is acknowledged by a reply to all of it, and by nothing else

LINES = (b"x" * 998 + b"\r\n") * 1000


def test_66_250_while_a_chunk_is_still_being_sent(warp):
    """It stands in the buffer when the last octets come: it cannot be meant for them."""
    proxy = warp()
    session = proxy.session()
    session.to("rcpt", "CHUNKING", "PIPELINING")
    session.client.send_raw(b"BDAT 4000 LAST\r\n" + b"x" * 1500)
    session.server.until(b"x" * 1500)
    session.server.send("250 2.0.0 taken")
    session.client.silent(0.05)
    session.client.send_raw(b"y" * 2500)
    assert not session.client.rest().startswith(b"250")
    assert proxy.wait_for("message")["result"] != "accepted"
    assert proxy.wait_for("close")["messages"] == 0


@pytest.mark.parametrize("chunks", [False, True])
def test_66_connection_that_takes_no_more_is_no_success(warp, chunks):
    """The last send fails; a 250 that had come before is not for this message."""
    proxy = warp()
    proxy.wrapper = ["strace", "-f", "-o", "/dev/null", "-e", "trace=sendto", "-e",
                     f"inject=sendto:error=EPIPE:when={10 if chunks else 11}"]
    session = proxy.session()
    session.to("rcpt" if chunks else "data", *(["CHUNKING", "PIPELINING"] if chunks else []))
    session.client.send_raw((b"BDAT 4000 LAST\r\n" if chunks else b"") + b"x" * 1500)
    session.server.until(b"x" * 1500)
    session.server.send("250 2.0.0 taken")
    session.client.send_raw(b"y" * 2500 + (b"" if chunks else b"\r\n.\r\n"))
    assert not session.client.rest().startswith(b"250")
    assert proxy.wait_for("message")["result"] != "accepted"


def test_9_message_is_drained_though_the_upstream_stopped_reading(warp):
    """It says 552 and reads no more: the client is read to its dot all the same, and hears the 552."""
    session = warp("--message-size-limit", 0).session().to("data")
    session.server.paused = True
    stuck = session.client.send_what_fits(LINES, 60_000_000)
    session.server.send("552 5.3.4 too big")
    rest = LINES[stuck % len(LINES):] if stuck % len(LINES) else b""
    assert session.client.send_what_fits(rest + LINES * 8, len(rest) + 8 * len(LINES)) > 4_000_000
    session.client.close()


def test_67_next_upstream_has_its_own_time(warp):
    proxy = warp("--banner-timeout", 1)
    second = proxy.listen_upstream("127.0.0.1", 2600)
    proxy.options += ["--upstream", proxy.upstream.name_port, "--upstream", "127.0.0.1:2600"]
    client = proxy.connect()
    proxy.upstream.accept()
    server = second.accept()
    client.silent(0.1)
    server.send("220 second")
    client.expect("220 second")


def test_28_chunk_behind_rset_leaves_nothing_to_the_next_transaction(warp):
    proxy = warp()
    session = proxy.session()
    session.to("rcpt", "CHUNKING", "PIPELINING")
    session.client.send_raw(b"RSET\r\nBDAT 10 LAST\r\nhello")
    session.server.until(b"hello")
    session.server.send("250 reset")
    session.client.expect("250 reset")
    session.client.send_raw(b"world")
    session.server.until(b"world")
    session.server.send("503 no mail")
    session.client.expect("503")
    session.mail()
    session.client.send("RCPT TO:<a@b.example>")
    session.server.expect_line("RCPT TO:<a@b.example>")
    session.server.close()
    session.client.expect("421 4.4.2")
    proxy.wait_for("close")
    assert [record["result"] for record in proxy.records("message")] == ["aborted", "aborted"]
