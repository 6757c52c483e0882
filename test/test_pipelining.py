"""Commands sent ahead, replies in order, and nothing that can lock up: PROTOCOL 34-38."""
import random

import pytest

SEGMENT = ("MAIL FROM:<from@client.example>", "RCPT TO:<one@server.example>", "RCPT TO:<two@server.example>", "DATA")


def resident_kib(pid):
    with open(f"/proc/{pid}/status") as file:
        return next(int(line.split()[1]) for line in file if line.startswith("VmRSS"))


# 34: order

def test_34_local_reply_waits_for_the_upstreams(session):
    session.greet("PIPELINING")
    client, server = session.client, session.server
    client.send("MAIL FROM:<a@b.example>", "FOO", "RCPT TO:<c@d.example>", "XCLIENT x", "RCPT TO:<e@f.example>", "")
    client.drained()
    assert server.lines(3)[2] == "RCPT TO:<e@f.example>"
    client.silent()
    server.send("250 first", "550 second", "250 third")
    assert [client.reply().code for _ in range(6)] == [250, 500, 550, 502, 250, 500]


def test_34_each_refused_command_has_its_own_reply(session):
    session.greet("PIPELINING", "SIZE 1000")
    client, server = session.client, session.server
    client.send("NOOP 1", "MAIL FROM:<a@b.example> SIZE=99999999999", "NOOP 2", "MAIL FROM:<a@b.example> X=1 X=2",
                "NOOP 3", "STARTTLS", "NOOP 4")
    for number in range(1, 5):
        server.expect_line(f"NOOP {number}")
        server.send(f"250 {number}")
    replies = [client.reply() for _ in range(7)]
    assert [reply[:3] for reply in replies] == ["250", "552", "250", "501", "250", "502", "250"]
    assert [reply[4] for reply in replies if reply.startswith("250")] == list("1234")


def test_34_pipelining_stays_pipelining(session):
    """The whole group reaches the upstream before it has answered anything."""
    session.greet("PIPELINING")
    session.client.send(*SEGMENT)
    assert session.server.lines(4) == list(SEGMENT)
    session.server.send("250 a", "550 b", "250 c", "354 d")
    assert [session.client.reply() for _ in range(4)] == ["250 a", "550 b", "250 c", "354 d"]


def test_34_upstream_without_pipelining_gets_one_at_a_time(session):
    session.greet()
    client, server = session.client, session.server
    client.send(*SEGMENT)
    client.drained()
    for command, reply in zip(SEGMENT, ("250 a", "550-b\r\n550 b", "250 c", "354 d")):
        server.expect_line(command)
        server.silent(0.02)
        server.send(reply)
        assert client.reply().replace("\n", "\r\n") == reply


def test_34_refused_mail_in_a_segment(session):
    """36 as well, with the upstream in the part of the hook: each command is answered."""
    session.greet("PIPELINING")
    session.client.send(*SEGMENT)
    session.server.lines(4)
    session.server.send("550 a", "503 b", "503 c", "503 d")
    assert [session.client.reply() for _ in range(4)] == ["550 a", "503 b", "503 c", "503 d"]
    session.exchange("RSET", "250 2.0.0 fine")


def test_36_mail_refused_here_while_the_rest_is_in_the_buffer(warp, mail_server):
    server = mail_server("PIPELINING", "SIZE 9000")
    client = warp("--message-size-limit", 1000, upstream=server).greeted()
    client.send("MAIL FROM:<a@b.example> SIZE=5000", "RCPT TO:<c@d.example>", "DATA", "QUIT")
    client.expect("552 5.3.4")
    client.expect("503")
    client.expect("503", "554")
    client.expect("221")
    assert server.messages == []


# 35: ends of groups

@pytest.mark.parametrize("greeting", ["EHLO client.example", "HELO client.example"])
def test_35_commands_in_one_segment_with_the_greeting(warp, mail_server, greeting):
    """Not legal, but in the field; the answers must be right anyway."""
    server = mail_server("PIPELINING")
    client = warp(upstream=server).connect()
    client.expect("220")
    client.send(greeting, "MAIL FROM:<a@b.example>", "RCPT TO:<c@d.example>", "DATA")
    for code in "250", "250", "250", "354":
        client.expect(code)


def test_35_quit_in_a_group_is_last(session):
    session.greet("PIPELINING")
    session.client.send("RSET", "NOOP", "QUIT")
    for command, reply in ("RSET", "250 a"), ("NOOP", "250 b"), ("QUIT", "221 c"):
        session.server.expect_line(command)
        session.server.send(reply)
    assert [session.client.reply() for _ in range(3)] == ["250 a", "250 b", "221 c"]


def test_35_second_ehlo_in_a_group(session):
    session.greet("PIPELINING")
    session.client.send("MAIL FROM:<a@b.example>", "EHLO other.example", "MAIL FROM:<c@d.example>")
    session.server.expect_line("MAIL FROM:<a@b.example>")
    session.server.send("250 first")
    session.server.expect_line("EHLO other.example")
    session.client.drained()
    session.server.silent(0.02)
    session.server.send("250-server.example", "250 8BITMIME")
    session.server.expect_line("MAIL FROM:<c@d.example>")
    session.server.send("250 second")
    session.client.expect("250 first")
    assert "8BITMIME" in session.client.expect("250").texts
    session.client.expect("250 second")


def test_35_what_follows_auth_waits(session):
    session.greet("PIPELINING", "AUTH PLAIN")
    session.client.send("AUTH PLAIN AGEAYg==", "MAIL FROM:<a@b.example>")
    session.server.expect_line("AUTH PLAIN AGEAYg==")
    session.client.drained()
    session.server.silent(0.02)
    session.server.send("235 2.7.0 welcome")
    session.client.expect("235")
    session.server.expect_line("MAIL FROM:<a@b.example>")


def test_35_data_in_a_group_ends_it(session):
    """What follows DATA in the same segment is the message when the upstream says 354 ..."""
    session.greet("PIPELINING")
    session.client.send(*SEGMENT, "RSET", ".")
    session.server.lines(4)
    session.client.drained()
    session.server.silent(0.02)
    session.server.send("250 a", "250 b", "250 c", "354 d")
    assert session.server.until(b"\r\n.\r\n") == b"RSET\r\n.\r\n"


def test_35_data_refused_in_a_group_leaves_commands(session):
    """... and commands when it does not."""
    session.greet("PIPELINING")
    session.client.send(*SEGMENT, "RSET")
    session.server.lines(4)
    session.server.send("250 a", "250 b", "250 c", "451 4.3.0 later")
    session.server.expect_line("RSET")


# 37: however it is cut

def whole_session(client, server, send):
    """A session with two messages, sent by send(); what the upstream saw, and what the client."""
    first = b"Subject: a\r\n\r\n..dot\r\nRSET\r\n.\r\n"
    send(b"EHLO client.example\r\n")
    server.expect_line("EHLO client.example")
    server.send("250-server.example", "250 PIPELINING")
    client.expect("250")
    send("\r\n".join(SEGMENT).encode() + b"\r\n")
    assert server.lines(4) == list(SEGMENT)
    server.send("250 a", "250 b", "250 c", "354 d")
    send(first + b"MAIL FROM:<>\r\nRCPT TO:<x@y.example>\r\nDATA\r\n")
    assert server.take(len(first)) == first
    server.send("250 e")
    assert server.lines(3) == ["MAIL FROM:<>", "RCPT TO:<x@y.example>", "DATA"]
    server.send("250 f", "250 g", "354 h")
    send(b".\r\nQUIT\r\n")
    assert server.take(3) == b".\r\n"
    server.send("550 i")
    server.expect_line("QUIT")
    server.send("221 j")
    server.close()
    return [client.reply() for _ in range(10)]


REPLIES = ["250 a", "250 b", "250 c", "354 d", "250 e", "250 f", "250 g", "354 h", "550 i", "221 j"]


def test_37_bytes_one_at_a_time(session):
    session.banner()
    assert whole_session(session.client, session.server, session.client.send_bytewise) == REPLIES


def test_37_line_by_line_and_whole(session):
    session.banner()
    assert whole_session(session.client, session.server, session.client.send_raw) == REPLIES


@pytest.mark.parametrize("seed", range(5))
def test_37_cut_at_random(session, seed):
    pieces = random.Random(seed)

    def send(data):
        while data:
            size = pieces.randint(1, 30)
            session.client.send_parts(data[:size])
            data = data[size:]
    session.banner()
    assert whole_session(session.client, session.server, send) == REPLIES


@pytest.mark.parametrize("pipelining", [True, False])
def test_37_a_session_in_one_segment(warp, mail_server, pipelining):
    """Everything at once, even before the banner. Warp lets such a message through unfiltered."""
    server = mail_server(*(["PIPELINING"] if pipelining else []))
    proxy = warp(upstream=server)
    client = proxy.connect()
    client.send("EHLO client.example", *SEGMENT, "Subject: a", "", "b", ".", *SEGMENT, ".", "QUIT")
    codes = [client.reply().code for _ in range(13)]
    assert codes == [220, 250, 250, 250, 250, 354, 250, 250, 250, 250, 354, 250, 221]
    assert [message["data"] for message in server.messages] == [b"Subject: a\r\n\r\nb\r\n.\r\n", b".\r\n"]
    assert len(proxy.records("message")) == 2


# 38: floods

def test_38_thousands_of_commands_ahead(warp, mail_server):
    server = mail_server("PIPELINING")
    client = warp(upstream=server).greeted()
    client.send_raw(b"MAIL FROM:<a@b.example>\r\nRSET\r\n" * 5000 + b"QUIT\r\n")
    codes = [client.reply().code for _ in range(10001)]
    assert codes == [250] * 10000 + [221]
    assert server.commands.count("RSET") == 5000


def test_38_no_more_than_max_pipeline_wait_upstream(warp):
    session = warp("--max-pipeline", 4).session()
    session.greet("PIPELINING")
    session.mail()
    session.client.send(*[f"RCPT TO:<user{number}@server.example>" for number in range(20)])
    assert session.server.lines(4)[3] == "RCPT TO:<user3@server.example>"
    session.client.drained()
    session.server.silent(0.03)
    for number in range(20):
        session.server.send(f"550 {number}")
        session.client.expect(f"550 {number}")


def test_38_client_that_does_not_read(warp, mail_server):
    """It is not read from either, so that nothing piles up; when it reads again, nothing is missing."""
    server = mail_server("PIPELINING", replies={"NOOP": "250 2.0.0 " + "x" * 490})
    proxy = warp(upstream=server)
    client = proxy.greeted()
    client.paused = True
    command = b"NOOP " + b"y" * 493 + b"\r\n"
    sent = client.send_what_fits(command, 200 << 20)
    assert sent < 100 << 20, "smtpwarp read on and on"
    assert resident_kib(proxy.processes[0].pid) < 20000 or "asan" in proxy.command()[0]
    client.paused = False
    client.send_raw(command[sent % len(command):] if sent % len(command) else b"")
    for _ in range(-(-sent // len(command))):
        client.expect("250")


def test_38_upstream_that_does_not_read(warp):
    """A message towards a stuck upstream stops at the buffers, and goes on when it reads again."""
    proxy = warp("--message-size-limit", 0)
    session = proxy.session()
    session.to("data")
    session.server.paused = True
    line = b"x" * 98 + b"\r\n"
    sent = session.client.send_what_fits(line, 200 << 20)
    assert sent < 100 << 20, "smtpwarp read on and on"
    session.server.paused = False
    session.client.send_raw(line[sent % len(line):] + b".\r\n")
    seen = session.server.until(b"\r\n.\r\n")
    assert len(seen) == (sent // len(line) + 1) * len(line) + 3
    session.sent()


def test_38_both_sides_write_at_once(session):
    """Commands and long replies cross; neither waits for the other for ever."""
    session.greet("PIPELINING")
    session.client.send("HELP")
    session.server.line()
    session.server.paused = True
    session.client.send_what_fits(b"NOOP " + b"x" * 93 + b"\r\n", 4 << 20)
    session.client.paused = True
    reply = "\r\n".join(["214-help me"] * 50000 + ["214 end"]).encode() + b"\r\n"
    sent = session.server.send_what_fits(reply, len(reply))
    session.server.paused = session.client.paused = False
    session.server.send_raw(reply[sent:])
    session.client.until(b"214 end\r\n")
    session.server.line()
    session.server.send("250 next")
    session.client.expect("250 next")


def test_38_hundred_pipelined_recipients_one_refusal(session):
    session.greet("PIPELINING")
    session.client.send("MAIL FROM:<a@b.example>", *[f"RCPT TO:<u{n}@server.example>" for n in range(100)], "DATA")
    seen = []
    for number in range(102):
        seen.append(session.server.line())
        session.server.send("354 go" if seen[-1] == "DATA" else f"{550 if number == 50 else 250} {number}")
    codes = [session.client.reply().code for _ in range(102)]
    assert codes == [250] * 50 + [550] + [250] * 50 + [354]
