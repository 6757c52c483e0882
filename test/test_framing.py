"""Where a message ends, and what must never look like its end: PROTOCOL 1-9."""
import contextlib
import re

import pytest

import peers

EVIL = b"MAIL FROM:<evil@client.example>\r\n"
# What some server somewhere takes for the end of data: any line end on either side of the dot, NULs ignored.
LENIENT_END = re.compile(rb"(?:\r\n|\n|\r)\0*\.\0*(?:\r\n|\n|\r)")


def in_data(session, *extensions):
    session.to("data", *extensions)
    return session.client, session.server


# 1: line ends of commands

@pytest.mark.parametrize("command", ["MAIL FROM:<a@b.example>", "NOOP", "FOO" * 3])
def test_1_bare_lf_ends_a_command_and_goes_on_as_crlf(session, command):
    session.greet()
    session.client.send_raw(command.encode() + b"\n")
    if command.startswith("FOO"):
        session.client.expect("500 5.5.1")
        return
    session.server.expect_line(command)     # line() wants CR LF
    session.server.send("250 2.0.0 fine")
    session.client.expect("250 2.0.0 fine")


def test_1_ehlo_with_bare_lf(session):
    session.banner()
    session.client.send_raw(b"EHLO client.example\n")
    session.server.expect_line("EHLO client.example")


@pytest.mark.parametrize("line", [
    b"MAIL FROM:<a@b.example>\rRCPT TO:<c@d.example>\r\n", b"NOOP\r\r\n", b"\rNOOP\r\n", b"NOOP x\ry\r\n",
    b"NOOP\0\r\n", b"\0\r\n", b"MAIL FROM:<a\0b@c.example>\r\n"])
def test_1_bare_cr_or_nul_in_a_command_is_refused(session, line):
    session.greet()
    session.client.send_raw(line)
    session.client.expect("500 5.5.2")
    session.exchange("RSET", "250 2.0.0 fine")
    assert session.server.got.count(b"\r\n") == 2, "the upstream saw a part of the line"


# 2: smuggling. Sequence -> what the upstream may see instead under `normalize`; several where RFC 5321 4.5.2 leaves
# open whether a dot between CR LF and a bare line end is stuffing.

NORMALIZED = {
    b"\n.\n": {b"\r\n..\r\n"},
    b"\n.\r\n": {b"\r\n..\r\n"},
    b"\r\n.\n": {b"\r\n..\r\n", b"\r\n\r\n"},
    b"\r.\r": {b" . "},
    b"\r.\r\n": {b" .\r\n"},
    b"\r\n.\r": {b"\r\n. ", b"\r\n ", b"\r\n.. "},
    b"\n.\r": {b"\r\n.. "},
    b"\r.\n": {b" .\r\n"},
    b"\r\n.\r\r\n": {b"\r\n. \r\n", b"\r\n \r\n", b"\r\n.. \r\n"},
    b"\r\r.\r\r\n": {b"  . \r\n"},
    b"\n\n.\n\n": {b"\r\n\r\n..\r\n\r\n"},
    b"\n..\n": {b"\r\n...\r\n"},
    b"\n.x\n": {b"\r\n..x\r\n"},
    b"\n\r.\r\n": {b"\r\n .\r\n"},
    b"\n\r\n.\n": {b"\r\n\r\n..\r\n", b"\r\n\r\n\r\n"},
    b"\r": {b" "},
    b"\n": {b"\r\n"},
}
NUL_AROUND_DOT = [b"\r\n\0.\r\n", b"\r\n.\0\r\n", b"\n\0.\n", b"\n.\0\n", b"\r\n\0.\0\r\n", b"\r\0.\0\n"]
SEQUENCES = [*NORMALIZED, *NUL_AROUND_DOT]
BARE = [sequence for sequence in SEQUENCES if re.search(rb"(?<!\r)\n|\r(?!\n)", sequence)]


def names(sequences):
    return [repr(sequence)[2:-1] for sequence in sequences]


def smuggle(session, sequence, whole=True):
    """Sends a message with the sequence and a command behind it; what the upstream saw of it, to the final dot."""
    client, server = in_data(session)
    data = b"Subject: x\r\n\r\nfirst" + sequence + EVIL + b"last\r\n.\r\n"
    if whole:
        client.send_raw(data)
    else:
        client.send_bytewise(data)
    seen = server.until(b"last\r\n.\r\n")
    server.send("250 2.0.0 one message")
    client.expect("250 2.0.0 one message")
    return seen


@pytest.mark.parametrize("whole", [True, False], ids=["whole", "bytewise"])
@pytest.mark.parametrize("sequence", SEQUENCES, ids=names(SEQUENCES))
def test_2_normalize_leaves_one_message_for_every_server(session, sequence, whole):
    """smtpproxy takes LF . LF for the end."""
    seen = smuggle(session, sequence, whole)
    assert seen.startswith(b"Subject: x\r\n\r\nfirst")
    ends = [match.end() for match in LENIENT_END.finditer(seen)]
    assert ends == [len(seen)], f"a lenient server finds the end at {ends} in {seen!r}"
    if sequence in NORMALIZED:
        middle = seen[len(b"Subject: x\r\n\r\nfirst"):-len(EVIL + b"last\r\n.\r\n")]
        assert middle in NORMALIZED[sequence], f"the upstream saw {middle!r}"


@pytest.mark.parametrize("sequence", SEQUENCES, ids=names(SEQUENCES))
def test_2_pass_changes_nothing(warp, sequence):
    session = warp("--bare-newline", "pass").session()
    assert smuggle(session, sequence) == b"Subject: x\r\n\r\nfirst" + sequence + EVIL + b"last\r\n.\r\n"


@pytest.mark.parametrize("sequence", BARE, ids=names(BARE))
def test_2_reject_refuses_and_the_upstream_gets_no_end(warp, sequence):
    session = warp("--bare-newline", "reject").session()
    client, server = in_data(session)
    client.send_raw(b"first" + sequence + EVIL + b"last\r\n.\r\n")
    client.expect("554 5.6.0")
    server.rest()
    assert not LENIENT_END.search(server.got), bytes(server.got)


def test_2_reject_takes_a_clean_message(warp):
    session = warp("--bare-newline", "reject").session()
    session.greet()
    assert session.transaction(b"a\r\n..b\r\n.\r\n") == b"a\r\n..b\r\n.\r\n"


def test_2_cr_before_the_true_end(session):
    """CR CR LF . CR LF holds the one true end; the CR before it is a bare one."""
    client, server = in_data(session)
    client.send_raw(b"x\r\r\n.\r\n")
    assert server.until(b"\r\n.\r\n") == b"x \r\n.\r\n"


@pytest.mark.parametrize("start", [b".\n", b".\r", b"\n.\n", b"\r.\r\n", b".\r\r\n", b"\n.\r\n"])
def test_2_at_the_very_start_of_data(session, start):
    client, server = in_data(session)
    client.send_raw(start + EVIL + b"last\r\n.\r\n")
    seen = b"\r\n" + server.until(b"last\r\n.\r\n")
    assert [match.end() for match in LENIENT_END.finditer(seen)] == [len(seen)], seen


# 3-5: the end of data

@pytest.mark.parametrize("bytewise", [False, True])
def test_3_empty_message(session, bytewise):
    client, server = in_data(session)
    (client.send_bytewise if bytewise else client.send_raw)(b".\r\n")
    assert server.take(3) == b".\r\n"
    session.sent()
    session.quit()


def test_3_empty_message_in_one_segment_with_its_commands(session):
    session.greet("PIPELINING")
    client, server = session.client, session.server
    client.send("MAIL FROM:<>", "RCPT TO:<a@b.example>", "DATA", ".", "QUIT")
    assert server.lines(3) == ["MAIL FROM:<>", "RCPT TO:<a@b.example>", "DATA"]
    server.send("250 a", "250 b", "354 c")
    assert server.line() == "."
    server.send("250 d")
    assert server.line() == "QUIT"
    server.send("221 e")
    assert [client.reply() for _ in range(5)] == ["250 a", "250 b", "354 c", "250 d", "221 e"]


DOTS = [b"..\r\n", b"...\r\n", b"..a\r\n", b".a\r\n", b"a.\r\n", b"a\r\n..\r\n..\r\n", b". \r\n", b"\r\n..\r\n\r\n",
        b"..\r\n.. \r\na..b\r\n....\r\n"]


@pytest.mark.parametrize("bytewise", [False, True])
@pytest.mark.parametrize("body", DOTS, ids=names(DOTS))
def test_4_dots_are_stuffed_once(session, body, bytewise):
    """`.a` is legal (4.5.2 takes the dot off), and means `a`: it may go on as either."""
    client, server = in_data(session)
    (client.send_bytewise if bytewise else client.send_raw)(body + b".\r\n")
    seen = server.take(3) if body == b".\r\n" else server.until(b"\r\n.\r\n")
    assert unstuffed(seen) == unstuffed(body + b".\r\n")
    if not re.search(rb"^\.[^.]", body, re.M):
        assert seen == body + b".\r\n", "not byte for byte"


def unstuffed(wire):
    return re.sub(rb"^\.", b"", wire, flags=re.M)


TAIL = b"end\r\n.\r\nMAIL FROM:<second@client.example>\r\n"


@pytest.mark.parametrize("at", range(1, len(TAIL)))
def test_5_end_of_data_split_at_every_byte(session, at):
    client, server = in_data(session)
    client.send_parts(TAIL[:at], TAIL[at:])
    assert server.until(b"\r\n.\r\n") == b"end\r\n.\r\n"
    assert not server.buffer, "a command went on before the reply to the message"
    server.send("250 2.0.0 first taken")
    server.expect_line("MAIL FROM:<second@client.example>")
    server.send("250 2.1.0 second")
    client.expect("250 2.0.0 first taken")
    client.expect("250 2.1.0 second")


def test_5_commands_behind_the_dot_are_not_lost(session):
    """Warp loses them."""
    client, server = in_data(session)
    client.send_raw(b"x\r\n.\r\nRSET\r\nNOOP\r\nQUIT\r\n")
    server.until(b"\r\n.\r\n")
    server.send("550 5.7.1 no")
    client.expect("550 5.7.1 no")
    for command, reply in ("RSET", "250 r"), ("NOOP", "250 n"), ("QUIT", "221 q"):
        server.expect_line(command)
        server.send(reply)
        client.expect(reply)


def test_5_commands_behind_the_dot_wait_for_its_reply(session):
    client, server = in_data(session)
    client.send_raw(b"x\r\n.\r\nRSET\r\n")
    server.until(b"\r\n.\r\n")
    client.drained()
    server.silent()
    session.sent()
    server.expect_line("RSET")


# 6, 7: odd content

ODD = {
    "8 bit": b"\xff\xfe\x80 \xc3\xa4\r\n",
    "all bytes": bytes(byte for byte in range(1, 256) if byte not in b"\r\n") + b"\r\n",
    "controls": b"\x01\x02\x7f\x1b[31m\x04\x1a\r\n",
    "no header": b"\r\n\r\n\r\n",
    "looks like replies": b"250 ok\r\n354 go\r\n421 bye\r\n",
    "looks like commands": b"QUIT\r\nRSET\r\nDATA\r\nSTARTTLS\r\nBDAT 5 LAST\r\n",
    "percent": b"%s%n%d%x %%\r\n",
}


@pytest.mark.parametrize("extensions", [(), ("8BITMIME",)], ids=["7bit", "8bitmime"])
@pytest.mark.parametrize("body", ODD.values(), ids=ODD)
def test_6_content_goes_through_byte_for_byte(session, body, extensions):
    session.greet(*extensions)
    assert session.transaction(body + b".\r\n") == body + b".\r\n"


def test_6_nul_in_a_message_neither_cuts_nor_splits_it(session):
    client, server = in_data(session)
    client.send_raw(b"a\0b\r\nc\0\r\n\0d\r\n.\r\n")
    seen = server.until(b"\r\n.\r\n")
    assert seen.replace(b"\0", b"") == b"ab\r\nc\r\nd\r\n.\r\n"


@pytest.mark.parametrize("length", [998, 999, 1000, 1001, 2048, 4096, 8191, 8192, 16384, 65536, 1 << 20])
@pytest.mark.parametrize("start", [b"", b".."])
def test_7_long_lines_are_never_split(session, length, start):
    """They pass whole, or the message is refused."""
    client, server = in_data(session)
    body = start + b"x" * (length - len(start)) + b"\r\nnext\r\n.\r\n"
    client.send_raw(body)
    assert server.until(b"\r\n.\r\n") == body


def test_7_a_big_message_with_dots_at_every_alignment(session):
    """Whatever the size of the buffers, some dot stands at their edge."""
    client, server = in_data(session)
    body = b"".join(b"x" * (number % 97) + b"\r\n..\r\n" for number in range(20000)) + b".\r\n"
    client.send_raw(body)
    assert server.until(b"\r\n.\r\n") == body


# 8: the client's part of the message never ends

UNFINISHED = [b"", b"x", b"x\r", b"x\r\n", b"x\r\n.", b"x\r\n.\r", b".", b".\r", b"x\n.\n", b"x" * 100000,
              b"x\r\n..\r\n", b"x\r\n.\r\r"]


@pytest.mark.parametrize("leave", ["close", "reset", "half_close"])
@pytest.mark.parametrize("data", UNFINISHED, ids=[name[:12] for name in names(UNFINISHED)])
def test_8_client_gone_in_data_and_the_upstream_gets_no_dot(warp, data, leave):
    """Willi sends the final dot and so delivers half a message."""
    proxy = warp()
    session = proxy.session()
    client, server = in_data(session)
    client.send_parts(data)
    getattr(client, leave)()
    seen = b"\r\n" + server.rest()
    assert not LENIENT_END.search(seen), seen[-50:]
    assert proxy.wait_for("message")["result"] == "aborted"


def test_8_a_refused_message_is_not_ended_upstream(warp):
    session = warp("--message-size-limit", 1000).session()
    client, server = in_data(session)
    client.send_raw(b"x" * 78 + b"\r\n")
    client.send_raw((b"x" * 78 + b"\r\n") * 100 + b".\r\n")
    client.expect("552 5.3.4")
    assert not LENIENT_END.search(server.rest())
    assert len(server.got) < 3000, "the upstream got what is over the limit"


@pytest.mark.parametrize("bytewise", [False, True])
@pytest.mark.parametrize("over", [0, 1])
def test_8_size_limit_to_the_byte(warp, over, bytewise):
    """RFC 1870 5: the octets of the message with its line ends, without the final dot."""
    session = warp("--message-size-limit", 100).session()
    client, server = in_data(session)
    body = b"x" * (98 + over) + b"\r\n"
    (client.send_bytewise if bytewise else client.send_raw)(body + b".\r\n")
    if over:
        client.expect("552 5.3.4")
        assert b"\r\n.\r\n" not in server.rest()
    else:
        assert server.until(b"\r\n.\r\n") == body + b".\r\n"
        session.sent()


def test_8_stuffed_dots_do_not_count(warp):
    """RFC 1870 5 again."""
    session = warp("--message-size-limit", 40).session()
    in_data(session)
    session.client.send_raw(b"..\r\n" * 13 + b".\r\n")    # 39 octets, 52 on the wire
    session.server.until(b"\r\n.\r\n")
    session.sent()


# 9: the upstream's part

@pytest.mark.parametrize("leave", ["close", "reset"])
@pytest.mark.parametrize("after", [b"", b"x\r\n", b"y" * 200000 + b"\r\n"], ids=["at once", "a line", "much"])
def test_9_upstream_gone_in_data(warp, leave, after):
    """The client's message is taken in to its dot, then 451: an earlier reply would be read as one to the dot."""
    proxy = warp()
    session = proxy.session()
    client, server = in_data(session)
    client.send_parts(after)
    if after:
        server.take(len(after) - 2)     # a scanner may keep CR LF back until it knows what follows
    getattr(server, leave)()
    client.send_parts(b"more\r\n" * 3)
    client.silent()
    client.send_raw(b"z" * 300000 + b"\r\n.\r\n")
    client.expect("451 4.4.2")
    assert proxy.wait_for("message")["result"] in ("aborted", "deferred")


@pytest.mark.parametrize("reply", ["552 5.3.4 too big for me", "451 4.3.0 disk full", "421 4.3.2 going down"])
def test_9_upstream_speaks_and_leaves_in_data(session, reply):
    client, server = in_data(session)
    client.send_raw(b"x" * 5000 + b"\r\n")
    server.take(5000)
    server.send(reply)
    server.close()
    client.send_raw(b"rest\r\n.\r\n")
    client.expect(reply[0] if reply[0] == "4" else reply[:3], "451 4.4.2")


@pytest.mark.parametrize("stay", [True, False])
def test_9_a_250_before_the_end_of_data_is_no_250_for_the_message(session, stay):
    client, server = in_data(session)
    client.send_parts(b"x\r\n")
    server.send("250 2.0.0 taken, I believe")
    if not stay:
        server.close()
    with contextlib.suppress(OSError, peers.Ended):     # it may leave at once
        client.send_raw(b"rest\r\n.\r\n")
        assert client.reply().code >= 400
