"""Hooks: events, verdicts, chains, failures. DESIGN 6; PROTOCOL 10, 36, 68, 71, 77, 78."""
import base64
import email
import email.policy
import json
import os
import pathlib
import re
import signal
import socket
import tempfile
import threading
import time

import pytest

from hooks import Hooks
from warp import MESSAGE, NO_REPORTS


@pytest.fixture
def hooks(tmp_path):
    return Hooks(tmp_path / "hooks")


def noting(path, *verdict):
    """A hook in shell that keeps its line and says something."""
    return f"cat >>{path}\n" + "\n".join(f"echo '{line}'" for line in verdict)


def lines(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


def send(client, data=MESSAGE, sender="a@client.example", recipients=("b@server.example",)):
    """A whole message; the reply to its end."""
    client.ask(f"MAIL FROM:<{sender}>", "250")
    for recipient in recipients:
        client.ask(f"RCPT TO:<{recipient}>", "250")
    client.ask("DATA", "354")
    client.send_raw(data)
    return client.reply()


# Every event, what it gets

def test_events_and_their_lines(warp, mail_server, hooks, tmp_path):
    for event in "connect", "ehlo", "mail", "rcpt", "data", "close":
        hooks.script(event, noting(tmp_path / event))
    proxy = warp(*hooks.options, upstream=mail_server("PIPELINING", "SIZE 5000000", "DSN"))
    client = proxy.greeted()
    client.ask("MAIL FROM:<a@client.example> SIZE=100", "250")
    client.ask("RCPT TO:<b@server.example>", "250")
    client.ask("RCPT TO:<c@server.example> NOTIFY=NEVER", "250")
    client.ask("DATA", "354")
    client.send_raw(b"Message-ID: <1@x>\r\n\r\n..\r\n.\r\n")
    client.expect("250")
    client.ask("QUIT", "221")
    proxy.wait_exit()
    connect, ehlo, mail = lines(tmp_path / "connect")[0], lines(tmp_path / "ehlo")[0], lines(tmp_path / "mail")[0]
    rcpt, data, close = lines(tmp_path / "rcpt"), lines(tmp_path / "data")[0], lines(tmp_path / "close")[0]
    for line in connect, ehlo, mail, *rcpt, data, close:
        assert line["v"] == 1 and line["session"] == connect["session"]
        assert line["client"]["ip"] == "127.0.0.1" and line["client"]["tls"] is None
        assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z", line["time"])
    assert (connect["event"], connect["server"], connect["helo"], connect["mail_from"]) == ("connect", None, None, None)
    assert ehlo["helo"] == "client.example" and ehlo["server"]["port"]
    assert mail["mail_from"] == {"address": "a@client.example", "params": {"SIZE": "100"}}
    assert [line["rcpt"]["address"] for line in rcpt] == ["b@server.example", "c@server.example"]
    assert rcpt[0]["rcpt_to"] == [] and [r["address"] for r in rcpt[1]["rcpt_to"]] == ["b@server.example"]
    assert rcpt[1]["rcpt"]["params"] == {"NOTIFY": "NEVER"}
    assert data["message"] == "/dev/fd/3" and data["size"] == len(b"Message-ID: <1@x>\r\n\r\n.\r\n")
    assert data["message_id"] == "<1@x>" and len(data["rcpt_to"]) == 2
    assert close["messages"] == 1 and close["recipients"] == 2 and close["by"] == "client" and close["log_dropped"] == 0


def test_message_on_descriptor_3(warp, mail_server, hooks, tmp_path):
    """Sealed, seekable, dots unstuffed, read from its start by each hook, however often."""
    hooks.script("data", f"cat <&3 >{tmp_path}/first; cat /dev/fd/3 >{tmp_path}/again", "1")
    hooks.script("data", f"cat <&3 >{tmp_path}/second; (echo x >&3) 2>/dev/null && exit 9; exit 0", "2")
    server = mail_server()
    proxy = warp(*hooks.options, upstream=server)
    body = b"A: b\r\n\r\n..dot\r\n...\r\n\xff\x00 8 bit\r\n"
    assert send(proxy.greeted(), body + b".\r\n").code == 250
    for name in "first", "again", "second":
        assert (tmp_path / name).read_bytes() == b"A: b\r\n\r\n.dot\r\n..\r\n\xff\x00 8 bit\r\n"
    assert server.messages[0]["data"] == body + b".\r\n"


# Verdicts at each command, and the session goes on

@pytest.mark.parametrize("verdict, reply", [
    ("reject", "550 5.7.1 Refused by policy"), ("reject not you", "550 5.7.1 not you"),
    ("reject 553 5.1.8 bad sender", "553 5.1.8 bad sender"), ("reject 554 no more", "554 5.7.1 no more"),
    ("reject 5.2.2 full", "550 5.2.2 full"), ("defer", "451 4.7.1 Try again later"),
    ("defer 450 4.2.0 wait", "450 4.2.0 wait"), ("log a b\nreject x", "550 5.7.1 x"),
    ("reject   spaced   out  ", "550 5.7.1 spaced   out")])
@pytest.mark.parametrize("event, command", [("ehlo", "EHLO x.example"), ("mail", "MAIL FROM:<no@x.example>"),
                                            ("rcpt", "RCPT TO:<no@x.example>")])
def test_10_refusals_of_commands(warp, hooks, verdict, reply, event, command):
    hooks.script(event, f"grep -q x.example || exit 0\ncat <<'END'\n{verdict}\nEND")
    session = warp(*hooks.options, "--tls", "none").session()
    session.to({"ehlo": "banner", "mail": "ehlo", "rcpt": "mail"}[event])
    session.client.ask(command, reply)
    session.server.silent()
    if event == "ehlo":
        session.ehlo()
    if event != "rcpt":
        session.mail()
    session.rcpt()


def test_10_reply_text_cannot_break_the_line(warp, mail_server, hooks):
    """Controls become blanks, other octets '?', and what is long is wrapped at 512."""
    words = "word " * 300
    hooks.script("rcpt", f"printf 'reject 550 5.7.1 a\\tb\\001c\\303\\251 {words}\\n'")
    proxy = warp(*hooks.options, upstream=mail_server())
    client = proxy.greeted()
    client.ask("MAIL FROM:<a@b.example>", "250")
    client.send("RCPT TO:<b@c.example>")
    reply = client.reply()
    assert all(len(line) <= 510 and line[4:10] == "5.7.1 " for line in reply.lines) and len(reply.lines) > 2
    assert reply.lines[0].startswith("550-5.7.1 a b c?? word") and reply.code == 550
    assert " ".join(line[10:] for line in reply.lines).count("word") == 300
    client.ask("NOOP", "250")


@pytest.mark.parametrize("text", [r"reject\r\n250 ok", r"reject a\rb", r"reject a\000b", r"reject 250 2.0.0 fine",
                                  r"reject 450 later", r"defer 550 no", r"reject 550 4.7.1 class", r"reject 599 odd",
                                  r"unknown", r"Accept", r"discard", r"rewrite a@b", r"tarpit 3", r"accept now",
                                  r"add-header A: b", r"log", r"log bad/key x", r"source 10.0.0.1", r"accept\nreject",
                                  r"close 421 4.7.0 x", r"reject x\nnonsense"])
def test_10_what_is_no_verdict(warp, mail_server, hooks, text):
    """A failure, or harmless: nothing of it ever reaches the wire."""
    harmless = {r"reject\r\n250 ok": "550 5.7.1 Refused by policy", r"accept\nreject": "250", r"close 421 4.7.0 x": "421 4.7.0 421 4.7.0 x", r"reject x\nnonsense": "550 5.7.1 x"}
    hooks.script("mail", f"printf '{text}\\n'")
    proxy = warp(*hooks.options, upstream=mail_server())
    client = proxy.greeted()
    client.ask("MAIL FROM:<a@b.example>", harmless.get(text, "451 4.3.0 A filter is out of order"))
    if text not in harmless:
        record = proxy.wait_for("verdict")
        assert record["verdict"] == "failed" and record["on"] == "mail" and record["hook"] == "50-test"
        client.ask("NOOP", "250")


def test_close_verdict(warp, mail_server, hooks):
    hooks.script("rcpt", "echo close go away")
    proxy = warp(*hooks.options, upstream=mail_server())
    client = proxy.greeted()
    client.ask("MAIL FROM:<a@b.example>", "250")
    client.ask("RCPT TO:<b@b.example>", "421 4.7.0 go away")
    client.expect_end()
    assert proxy.wait_for("close")["by"] == "smtpwarp"
    message = proxy.records("message")[0]
    assert message["rcpt_to"][0]["code"] == 421


@pytest.mark.parametrize("verdict, reply", [("reject", "554 5.7.1 Refused"), ("reject 521 5.3.2 none", "521 5.3.2 none"),
                                            ("defer soon", "421 4.7.1 soon"), ("close", "421 4.7.0")])
def test_connect_refused(warp, hooks, verdict, reply):
    """RFC 5321 3.1: the greeting itself refuses; the upstream hears nothing."""
    hooks.script("connect", f"echo {verdict}")
    proxy = warp(*hooks.options)
    client = proxy.connect()
    client.expect(reply)
    client.expect_end()
    proxy.upstream.nobody()


def test_tarpit_at_connect_and_ehlo(warp, mail_server, hooks):
    hooks.script("connect", "echo tarpit 1")
    hooks.script("ehlo", "echo tarpit 1")
    proxy = warp(*hooks.options, upstream=mail_server())
    start = time.monotonic()
    client = proxy.connect()
    client.expect("220")
    greeted = time.monotonic()
    client.ask("EHLO x", "250")
    assert greeted - start >= 1 and time.monotonic() - greeted >= 1


def test_rewrite(warp, mail_server, hooks):
    hooks.script("rcpt", "echo 'rewrite sink+new@other.example'")
    server = mail_server("DSN")
    proxy = warp(*hooks.options, upstream=server)
    client = proxy.greeted()
    client.ask("MAIL FROM:<a@b.example>", "250")
    client.ask("RCPT TO:<old@b.example> NOTIFY=NEVER", "250")
    assert server.commands[-1] == "RCPT TO:<sink+new@other.example> NOTIFY=NEVER"
    client.ask("DATA", "354")
    client.send_raw(MESSAGE)
    client.expect("250")
    recipient = proxy.wait_for("message")["rcpt_to"][0]
    assert (recipient["address"], recipient["original"]) == ("sink+new@other.example", "old@b.example")


@pytest.mark.parametrize("address", ["", "a b@c", "<a@b>", "a@b> NOTIFY=NEVER", "x" * 13000, "a@b\x01"])
def test_rewrite_to_nonsense_is_a_failure(warp, mail_server, hooks, address):
    hooks.script("rcpt", f"cat <<'END'\nrewrite {address}\nEND")
    server = mail_server()
    client = warp(*hooks.options, upstream=server).greeted()
    client.ask("MAIL FROM:<a@b.example>", "250")
    client.ask("RCPT TO:<old@b.example>", "451 4.3.0")
    assert not any(command.startswith("RCPT") for command in server.commands)


# 36: a filter cannot be passed by any way of sending

def refusing(hooks):
    hooks.script("mail", "grep -q 'bad@' && echo reject 550 5.7.1 bad sender\nexit 0")
    hooks.script("rcpt", "grep -q '\"rcpt\":{\"address\":\"no@' && echo reject 550 5.7.1 bad recipient\nexit 0")
    hooks.script("data", "grep -q EVIL /dev/fd/3 && echo reject 550 5.7.1 bad content\nexit 0")


@pytest.mark.parametrize("extensions", [("PIPELINING", "CHUNKING"), ("CHUNKING",), ()])
def test_36_everything_in_one_segment(warp, mail_server, hooks, extensions):
    """Warp let this pass unfiltered."""
    refusing(hooks)
    server = mail_server(*extensions)
    proxy = warp(*hooks.options, upstream=server)
    client = proxy.greeted()
    client.send_raw(b"MAIL FROM:<bad@b.example>\r\nRCPT TO:<b@c.example>\r\nDATA\r\n"
                    b"MAIL FROM:<a@b.example>\r\nRCPT TO:<no@c.example>\r\nRCPT TO:<b@c.example>\r\nDATA\r\n"
                    b"EVIL\r\n.\r\n"
                    b"MAIL FROM:<a@b.example>\r\nRCPT TO:<b@c.example>\r\nDATA\r\nGood\r\n.\r\nQUIT\r\n")
    assert [client.reply().code for _ in range(12)] == [550, 503, 503, 250, 550, 250, 354, 550, 250, 250, 354, 250]
    client.expect("221")
    assert [message["data"] for message in server.messages] == [b"Good\r\n.\r\n"]
    assert [record["result"] for record in proxy.records("message")] == ["rejected", "rejected", "accepted"]


BODY = b"Subject: x\r\n\r\n" + b"line EVIL line\r\n" * 300


def by_chunks(body, size, last_alone):
    parts = [body[at:at + size] for at in range(0, len(body), size)]
    out = b"".join(b"BDAT %d%s\r\n%s" % (len(part), b" LAST" if number == len(parts) and not last_alone else b"", part)
                   for number, part in enumerate(parts, 1))
    return out + (b"BDAT 0 LAST\r\n" if last_alone else b"")


@pytest.mark.parametrize("size", [1, 7, 1000, 100000])
@pytest.mark.parametrize("last_alone", [False, True])
@pytest.mark.parametrize("good", [False, True])
def test_36_chunks(warp, mail_server, hooks, size, last_alone, good):
    refusing(hooks)
    body = BODY[:300].replace(b"EVIL", b"nice") if good else BODY if size > 7 else BODY[:60]
    server = mail_server("PIPELINING", "CHUNKING")
    client = warp(*hooks.options, upstream=server).greeted()
    client.send_raw(b"MAIL FROM:<a@b.example>\r\nRCPT TO:<b@c.example>\r\n" + by_chunks(body, size, last_alone) +
                    b"NOOP\r\n")
    codes = [client.reply().code for _ in range(2 + by_chunks(body, size, last_alone).count(b"BDAT"))]
    assert codes[-1] == (250 if good else 550) and set(codes[:-1]) == {250}
    client.expect("250")
    assert [message["data"] for message in server.messages] == ([body] if good else [])
    assert ("BDAT %d LAST" % len(body) in server.commands) == good


@pytest.mark.parametrize("way", ["DATA", "BDAT"])
def test_36_empty_message(warp, mail_server, hooks, tmp_path, way):
    """Warp hung here with a filter."""
    hooks.script("data", f"wc -c </dev/fd/3 >{tmp_path}/size")
    server = mail_server("CHUNKING")
    client = warp(*hooks.options, upstream=server).greeted()
    client.ask("MAIL FROM:<a@b.example>", "250")
    client.ask("RCPT TO:<b@c.example>", "250")
    if way == "DATA":
        client.ask("DATA", "354")
        client.ask(".", "250")
    else:
        client.ask("BDAT 0 LAST", "250")
    assert (tmp_path / "size").read_text().strip() == "0"
    assert server.messages[0]["data"] in (b".\r\n", b"")


@pytest.mark.parametrize("over", [0, 1])
@pytest.mark.parametrize("way", ["DATA", "BDAT"])
def test_36_message_of_the_limit(warp, mail_server, hooks, tmp_path, over, way):
    hooks.script("data", f"wc -c </dev/fd/3 >{tmp_path}/size")
    server = mail_server("CHUNKING")
    proxy = warp(*hooks.options, "--message-size-limit", 1000, upstream=server)
    client = proxy.greeted()
    body = b"x" * (998 + over) + b"\r\n"
    client.ask("MAIL FROM:<a@b.example>", "250")
    client.ask("RCPT TO:<b@c.example>", "250")
    if way == "DATA":
        client.ask("DATA", "354")
        client.send_raw(body + b".\r\n")
    else:
        client.send_raw(b"BDAT %d LAST\r\n" % len(body) + body)
    client.expect("552 5.3.4" if over else "250")
    assert (tmp_path / "size").exists() == (not over) and len(server.messages) == 1 - over
    assert send(client).code == 250         # the session goes on
    assert ("RSET" in server.commands) == bool(over)


def test_36_all_recipients_refused(warp, mail_server, hooks):
    refusing(hooks)
    server = mail_server("PIPELINING")
    client = warp(*hooks.options, upstream=server).greeted()
    client.send("MAIL FROM:<a@b.example>", "RCPT TO:<no@x>", "RCPT TO:<no@y>", "DATA", "NOOP")
    assert [client.reply().code for _ in range(5)] == [250, 550, 550, 554, 250]
    assert "DATA" not in server.commands


# 71: data

@pytest.mark.parametrize("verdict, reply, result", [
    ("reject", "550 5.7.1", "rejected"), ("reject 554 5.6.0 no such content", "554 5.6.0 no such content", "rejected"),
    ("defer", "451 4.7.1", "deferred"), ("discard", "250 2.0.0", "discarded")])
def test_71_message_that_stays_here(warp, mail_server, hooks, verdict, reply, result):
    """RSET upstream, and the session is as good as new."""
    hooks.script("data", f"grep -q Bad /dev/fd/3 && echo '{verdict}'\nexit 0")
    server = mail_server("PIPELINING")
    proxy = warp(*hooks.options, upstream=server)
    client = proxy.greeted()
    assert send(client, b"Bad\r\n.\r\n").startswith(reply)
    assert server.messages == []
    assert send(client, b"Fine\r\n.\r\n").code == 250
    assert server.commands.count("RSET") == 1 and server.commands.count("DATA") == 1
    first, second = proxy.records("message")
    assert (first["result"], second["result"]) == (result, "accepted")
    assert first["reply"]["code"] == int(reply[:3])


def test_data_is_asked_after_the_verdict(warp, hooks):
    """354 comes at once, DATA goes upstream last; its refusal is the client's reply and the envelope is reset."""
    hooks.script("data", "exit 0")
    proxy = warp(*hooks.options, "--tls", "none")
    session = proxy.session().to("rcpt")
    session.client.ask("DATA", "354")
    session.server.silent()
    session.client.send_raw(b"Hello\r\n.\r\n")
    session.server.expect_line("DATA")
    session.server.send("452-4.3.1 disk", "452 4.3.1 full")
    assert session.client.reply() == "452-4.3.1 disk\n452 4.3.1 full"
    session.server.expect_line("RSET")
    session.server.send("250 fine")
    session.mail()
    assert proxy.wait_for("message")["result"] == "deferred"


def test_68_slow_hook_and_lost_upstream(warp, hooks):
    """The upstream goes while a hook thinks: 451 for the message, nothing half done."""
    hooks.script("data", "sleep 1")
    proxy = warp(*hooks.options, "--tls", "none")
    session = proxy.session().to("rcpt")
    session.client.ask("DATA", "354")
    session.client.send_raw(b"Hello\r\n.\r\n")
    session.server.close()
    session.client.expect("451 4.4.2")
    session.client.ask("NOOP", "421")
    assert proxy.wait_for("message")["result"] == "deferred"


def test_8_client_gone_within_a_kept_message(warp, hooks, tmp_path):
    hooks.script("data", f"touch {tmp_path}/ran")
    proxy = warp(*hooks.options, "--tls", "none")
    session = proxy.session().to("rcpt")
    session.client.ask("DATA", "354")
    session.client.send_raw(b"Hello\r\nhalf of it")
    session.client.close()
    assert b"DATA" not in session.server.farewell()
    proxy.wait_exit()
    assert not (tmp_path / "ran").exists()


def test_66_outcome_of_a_kept_message_unknown(warp, hooks):
    hooks.script("data", "exit 0")
    proxy = warp(*hooks.options, "--tls", "none")
    session = proxy.session().to("rcpt")
    session.client.ask("DATA", "354")
    session.client.send_raw(b"Hello\r\n.\r\n")
    session.server.expect_line("DATA")
    session.server.send("354 go")
    assert session.server.until(b"\r\n.\r\n") == b"Hello\r\n.\r\n"
    session.server.close()
    session.client.expect_end()
    assert proxy.wait_for("message")["result"] == "unknown"


def test_9_upstream_refuses_in_the_middle_of_a_kept_message(warp, hooks):
    hooks.script("data", "exit 0")
    proxy = warp(*hooks.options, "--tls", "none", "--message-size-limit", 0)
    session = proxy.session().to("rcpt")
    session.client.ask("DATA", "354")
    session.client.send_raw(b"x" * 78 + b"\r\n" + b"y" * (30 << 20) + b"\r\n.\r\n")
    session.server.expect_line("DATA")
    session.server.paused = True
    session.server.send("354 go")
    session.server.wait_readable()
    session.server.send("552 5.3.4 enough")
    session.client.expect("552 5.3.4 enough")
    session.server.paused = False
    assert b"\r\n.\r\n" not in session.server.rest()
    assert proxy.wait_for("message")["result"] == "rejected"


def test_commands_behind_the_dot(warp, mail_server, hooks):
    """Warp lost them."""
    hooks.script("data", "exit 0")
    server = mail_server("PIPELINING")
    client = warp(*hooks.options, upstream=server).greeted()
    client.send("MAIL FROM:<a@b.example>", "RCPT TO:<b@c.example>", "DATA")
    assert [client.reply().code for _ in range(3)] == [250, 250, 354]
    client.send("Hello", ".", "MAIL FROM:<a@b.example>", "RCPT TO:<b@c.example>", "DATA")
    assert [client.reply().code for _ in range(4)] == [250, 250, 250, 354]
    client.send("Again", ".", "QUIT")
    assert [client.reply().code for _ in range(2)] == [250, 221]
    assert len(server.messages) == 2


@pytest.mark.parametrize("raw, seen", [
    (b"a\n.\nb\r\n.\r\n", b"a\r\n..\r\nb\r\n.\r\n"), (b"a\r\n.\nb\r\n.\r\n", b"a\r\n..\r\nb\r\n.\r\n"),
    (b"a\n.\r\nb\r\n.\r\n", b"a\r\n..\r\nb\r\n.\r\n"), (b"a\r.\rb\r\n.\r\n", b"a . b\r\n.\r\n"),
    (b"a\r\n.\0\r\nb\r\n.\r\n", b"a\r\n \r\nb\r\n.\r\n"), (b"a\r\n\0.\r\nb\r\n.\r\n", b"a\r\n\0 .\r\nb\r\n.\r\n"),
    (b"..a\r\n...\r\n.\r\n", b"..a\r\n...\r\n.\r\n"), (b".a\r\n.\r\n", b"a\r\n.\r\n"), (b".\r\n", b".\r\n")])
def test_2_smuggling_through_a_kept_message(warp, mail_server, hooks, raw, seen):
    hooks.script("data", "exit 0")
    server = mail_server()
    assert send(warp(*hooks.options, upstream=server).greeted(), raw).code == 250
    assert [message["data"] for message in server.messages] == [seen]


def test_77_body_text_alters_nothing(warp, mail_server, hooks, tmp_path):
    """Warp recorded what looked like commands in a body."""
    hooks.script("close", noting(tmp_path / "close"))
    hooks.script("data", noting(tmp_path / "data"))
    body = b"MAIL FROM:<evil@evil.example>\r\nRCPT TO:<evil@evil.example>\r\n\r\nMAIL FROM:<evil@x>\r\n.\r\n"
    proxy = warp(*hooks.options, upstream=mail_server())
    client = proxy.greeted()
    assert send(client, body).code == 250
    client.ask("QUIT", "221")
    proxy.wait_exit()
    assert "evil" not in (tmp_path / "data").read_text() + (tmp_path / "close").read_text() + proxy.log_text()


def test_78_hook_lines_are_utf8_whatever_the_bytes(warp, mail_server, hooks, tmp_path):
    for event in "ehlo", "mail", "rcpt", "data":
        hooks.script(event, noting(tmp_path / "seen"))
    server = mail_server("SMTPUTF8")
    client = warp(*hooks.options, upstream=server).connect()
    client.expect("220")
    client.send_raw(b"EHLO \xff\"\\\x01\x7f\r\n")
    client.expect("250")
    client.send_raw(b"MAIL FROM:<\"a\\\"\xe2\x82\xac\xe2\x82\"@b.example>\r\n")
    client.expect("250")
    client.send_raw(b"RCPT TO:<\xc3\xa9\xed\xa0\x80@c.example>\r\n")
    client.expect("250")
    client.ask("DATA", "354")
    client.send_raw(b"Message-ID: <\xfe>\r\n\r\n.\r\n")
    client.expect("250")
    text = (tmp_path / "seen").read_bytes().decode("utf-8")
    ehlo, mail, rcpt, data = (json.loads(line) for line in text.splitlines())
    assert ehlo["helo"] == "\ufffd\"\\\x01\x7f" and mail["mail_from"]["address"] == '"a\\"€\ufffd\ufffd"@b.example'
    assert rcpt["rcpt"]["address"] == "é\ufffd\ufffd\ufffd@c.example" and data["message_id"] == "<\ufffd>"
    assert server.messages[0]["data"] == b"Message-ID: <\xfe>\r\n\r\n.\r\n"


# Edits

def edited(warp, mail_server, hooks, body, *verdicts):
    for number, verdict in enumerate(verdicts):
        hooks.script("data", f"cat <<'END'\n{verdict}\nEND", f"{number}")
    server = mail_server()
    assert send(warp(*hooks.options, upstream=server).greeted(), body + b".\r\n").code == 250
    return server.messages[0]["data"][:-3]


HEADER = b"From: a\r\nX-Spam: one\r\n two\r\nSubject: s\r\nx-spam:\r\n\tthree\r\nX-Spammer: no\r\n\r\nX-Spam: body\r\n"


@pytest.mark.parametrize("verdict, seen", [
    ("add-header X-New: 1", b"X-New: 1\r\n" + HEADER),
    ("add-header A: 1\nadd-header B: 2", b"B: 2\r\nA: 1\r\n" + HEADER),
    ("remove-header X-SPAM", b"From: a\r\nSubject: s\r\nX-Spammer: no\r\n\r\nX-Spam: body\r\n"),
    ("remove-header X-Spam\nadd-header X-Spam: mine\naccept",
     b"X-Spam: mine\r\nFrom: a\r\nSubject: s\r\nX-Spammer: no\r\n\r\nX-Spam: body\r\n"),
    ("add-header X-Spam: mine\nremove-header x-spam", b"From: a\r\nSubject: s\r\nX-Spammer: no\r\n\r\nX-Spam: body\r\n"),
    ("remove-header None", HEADER), ("add-header Empty:", b"Empty: \r\n" + HEADER),
    ("add-header X-Long: " + "word " * 40, None), ("add-header X-One: " + "w" * 2000, None),
    ("add-header X-Caf\u00e9: \u00e9", None), ("add-header X-A: caf\u00e9\tb", b"X-A: =?UTF-8?B?Y2Fmw6k=?= b\r\n" + HEADER)])
def test_edits_of_the_header(warp, mail_server, hooks, verdict, seen):
    if "Caf" in verdict:        # no header has such a name: a failure
        hooks.script("data", f"cat <<'END'\n{verdict}\nEND")
        assert send(warp(*hooks.options, upstream=mail_server()).greeted()).code == 451
        return
    got = edited(warp, mail_server, hooks, HEADER, verdict)
    if seen:
        assert got == seen
        return
    added = got[:-len(HEADER)]
    assert got.endswith(HEADER) and all(len(line) <= 998 for line in added.split(b"\r\n"))
    assert all(line[:1] in b" \t" for line in added.split(b"\r\n")[1:-1])
    if "word" in verdict:
        assert added.replace(b"\r\n", b"").strip() == verdict.encode()[11:].strip()
        assert all(len(line) <= 78 for line in added.split(b"\r\n"))


def test_edits_accumulate_and_each_hook_sees_them(warp, mail_server, hooks, tmp_path):
    hooks.script("data", "echo add-header X-One: 1", "1")
    hooks.script("data", f"cp /dev/fd/3 {tmp_path}/second; cat >{tmp_path}/line; echo remove-header From", "2")
    hooks.script("data", f"cp /dev/fd/3 {tmp_path}/third; printf 'replace-message\\n'; sed s/body/BODY/ /dev/fd/3", "3")
    hooks.script("data", "echo add-header X-Four: 4; cat /dev/fd/3 >/dev/null", "4")
    server = mail_server()
    proxy = warp(*hooks.options, upstream=server)
    assert send(proxy.greeted(), b"From: a\r\nTo: b\r\n\r\nbody\r\n.\r\n").code == 250
    assert (tmp_path / "second").read_bytes() == b"X-One: 1\r\nFrom: a\r\nTo: b\r\n\r\nbody\r\n"
    assert lines(tmp_path / "line")[0]["size"] == len((tmp_path / "second").read_bytes())
    assert (tmp_path / "third").read_bytes() == b"X-One: 1\r\nTo: b\r\n\r\nbody\r\n"
    final = b"X-Four: 4\r\nX-One: 1\r\nTo: b\r\n\r\nBODY\r\n"
    assert server.messages[0]["data"] == final + b".\r\n"
    assert proxy.wait_for("message")["size"] == len(final)


@pytest.mark.parametrize("out, seen", [
    (b"A: b\n\nunix\n", b"A: b\r\n\r\nunix\r\n"), (b"A: b\r\n\r\ndos\r\n", b"A: b\r\n\r\ndos\r\n"),
    (b"A: b\n\n.\n..\n.dot\n", b"A: b\r\n\r\n..\r\n...\r\n..dot\r\n"), (b"A: b\n\nno end", b"A: b\r\n\r\nno end\r\n"),
    (b"A: b\n\nbare\rcr\n\r", b"A: b\r\n\r\nbare cr\r\n\r\n"), (b"", b""), (b"\n", b"\r\n"),
    (b"A: b\n\n\n.\nMAIL FROM:<x@y>\n", b"A: b\r\n\r\n\r\n..\r\nMAIL FROM:<x@y>\r\n")])
def test_replaced_messages(warp, mail_server, hooks, tmp_path, out, seen):
    """Whatever the hook's line ends: it is one message, whole."""
    (tmp_path / "new").write_bytes(out)
    hooks.script("data", f"echo log a b; echo replace-message; cat {tmp_path}/new")
    server = mail_server()
    assert send(warp(*hooks.options, upstream=server).greeted()).code == 250
    assert [message["data"] for message in server.messages] == [seen + b".\r\n"]


def test_header_on_a_message_without_one(warp, mail_server, hooks):
    """It must not run into the text, folded."""
    assert edited(warp, mail_server, hooks, b" text\r\n", "add-header A: b") == b"A: b\r\n\r\n text\r\n"
    assert edited(warp, mail_server, hooks, b"\r\ntext\r\n", "add-header A: b") == b"A: b\r\n\r\ntext\r\n"
    assert edited(warp, mail_server, hooks, b"", "add-header A: b") == b"A: b\r\n"


def test_large_message_through_hooks(warp, mail_server, hooks):
    hooks.script("data", "echo add-header X-A: 1", "1")
    hooks.script("data", "echo replace-message; cat /dev/fd/3", "2")
    body = b"Subject: x\r\n\r\n" + (b".%d" % 7 + b"x" * 900 + b"\r\n") * 22000
    server = mail_server()
    client = warp(*hooks.options, "--message-size-limit", 30_000_000, upstream=server).greeted()
    stuffed = body.replace(b"\r\n.", b"\r\n..")
    assert send(client, stuffed + b".\r\n").code == 250
    assert server.messages[0]["data"] == b"X-A: 1\r\n" + stuffed + b".\r\n"


# Chains and failures

def test_chain_ends_with_the_first_that_does_not_accept(warp, mail_server, hooks, tmp_path):
    hooks.script("rcpt", f"echo 10 >>{tmp_path}/order", "10")
    hooks.script("rcpt", f"echo 9 >>{tmp_path}/order; echo reject", "9")
    hooks.script("rcpt", f"echo 95 >>{tmp_path}/order", "95")
    hooks.script("rcpt", f"echo B >>{tmp_path}/order; echo accept", "1B")
    hooks.script("rcpt", f"echo hidden >>{tmp_path}/order; echo reject", ".hidden")
    hooks.script("rcpt", f"echo backup >>{tmp_path}/order; echo reject", "0backup~")
    client = warp(*hooks.options, upstream=mail_server()).greeted()
    client.ask("MAIL FROM:<a@b.example>", "250")
    client.ask("RCPT TO:<a@b.example>", "550")
    assert (tmp_path / "order").read_text().split() == ["10", "B", "9"]


FAILURES = {
    "exit": ("echo accept; echo first >&2; echo 'what went wrong' >&2; exit 3", "exit status 3: what went wrong"),
    "signal": ("kill -9 $$", "killed by signal 9"),
    "nonsense": ("echo log a b; echo; echo nonsense here", "an unknown word, in line 3: nonsense here"),
    "long": ("yes accept | head -c 70000", "longer than 64 KiB"),
    "endless": ("exec yes", "longer than 64 KiB"),
    "slow": ("sleep 60", "--hook-timeout"),
    "deaf and slow": ("exec <&- >&- 2>&-; sleep 60", "--hook-timeout"),
    "grandchild": ("(sleep 60; echo x) & wait", "--hook-timeout"),
}


@pytest.mark.parametrize("policy", ["defer", "accept"])
@pytest.mark.parametrize("kind", FAILURES)
@pytest.mark.parametrize("event", ["mail", "data"])
def test_failures_and_their_policy(warp, mail_server, hooks, kind, policy, event):
    script, why = FAILURES[kind]
    hooks.script(event, script)
    proxy = warp(*hooks.options, "--hook-timeout", 0.5 if why == "--hook-timeout" else 30, "--hook-failure", policy, upstream=mail_server())
    client = proxy.greeted()
    client.send("MAIL FROM:<a@b.example>")
    wanted = "451 4.3.0" if policy == "defer" else "250"
    client.expect(wanted if event == "mail" else "250")
    if event == "data":
        client.ask("RCPT TO:<b@c.example>", "250")
        client.ask("DATA", "354")
        client.send_raw(MESSAGE)
        client.expect(wanted)
    record = proxy.wait_for("verdict", on=event)
    assert record["verdict"] == "failed" and why in record["text"], record
    client.ask("NOOP", "250")


@pytest.mark.parametrize("make", ["not executable", "dangling", "directory", "no interpreter", "empty"])
def test_hooks_that_cannot_run(warp, mail_server, hooks, make):
    """A filter that has lost its x bit must not be passed in silence."""
    path = hooks.script("mail", "exit 0")
    if make == "not executable":
        path.chmod(0o644)
    elif make == "no interpreter":
        path.write_text("#!/nowhere/sh\n")
    elif make == "empty":
        path.write_text("")
    else:
        path.unlink()
        path.mkdir() if make == "directory" else path.symlink_to("/nowhere")
    proxy = warp(*hooks.options, upstream=mail_server())
    proxy.greeted().ask("MAIL FROM:<a@b.example>", "451 4.3.0")
    assert "cannot be run" in proxy.wait_for("verdict")["text"]


@pytest.mark.parametrize("script", ["exec <&-; exit 0", "exit 0", "head -c 10 >/dev/null", "sleep 0.2",
                                    "(sleep 60 >/dev/null) & exit 0", "(sleep 60) & echo accept",
                                    "head -c 1000000 /dev/zero >&2"])
def test_what_is_no_failure(warp, mail_server, hooks, script):
    """Not reading stdin, closing it, leaving a child behind that holds stdout."""
    hooks.script("rcpt", script)
    proxy = warp(*hooks.options, "--hook-timeout", 60, "--max-recipients", 2000, upstream=mail_server("PIPELINING"))
    client = proxy.greeted()
    client.ask("MAIL FROM:<a@b.example>", "250")
    client.ask("RCPT TO:<b@c.example>", "250")
    assert not proxy.records("verdict", verdict="failed")


def test_hook_that_does_not_read_a_line_longer_than_a_pipe(warp, mail_server, hooks, tmp_path):
    hooks.script("data", "exit 0", "1")
    hooks.script("data", noting(tmp_path / "seen"), "2")
    recipients = [f"{'r' * 60}{number}@{'d' * 60}.example" for number in range(900)]
    client = warp(*hooks.options, upstream=mail_server("PIPELINING")).greeted()
    client.send("MAIL FROM:<a@b.example>", *[f"RCPT TO:<{address}>" for address in recipients], "DATA")
    assert client.replies_to(354).count(250) == 901
    client.send_raw(MESSAGE)
    client.expect("250")
    assert [r["address"] for r in lines(tmp_path / "seen")[0]["rcpt_to"]] == recipients


def test_timeout_kills_the_whole_group(warp, mail_server, hooks, tmp_path):
    hooks.script("mail", f"(sleep 61 & echo $! >{tmp_path}/pid; wait) & wait")
    proxy = warp(*hooks.options, "--hook-timeout", 2, upstream=mail_server())
    proxy.greeted().ask("MAIL FROM:<a@b.example>", "451 4.3.0")
    process = pathlib.Path("/proc", (tmp_path / "pid").read_text().strip(), "stat")
    proxy.wait_until(lambda: not process.exists() or ") Z" in process.read_text(), "the end of the grandchild")


# What hooks must not get

def test_descriptors_and_environment(warp, mail_server, hooks, tmp_path):
    for event in "mail", "data", "log":
        hooks.script(event, f"(ls -l /proc/self/fd; env) >{tmp_path}/{event}; cat >/dev/null; exit 0")
    proxy = warp(*hooks.options, upstream=mail_server(),
                 env={"LISTEN_FDS": "1", "LISTEN_PID": "1", "LISTEN_FDNAMES": "x", "NOTIFY_SOCKET": "/nowhere", "KEPT": "yes"})
    leaked = socket.socket()
    os.set_inheritable(leaked.fileno(), True)
    client = proxy.greeted()
    assert send(client).code == 250
    client.ask("QUIT", "221")
    proxy.wait_exit()
    for event in "mail", "data", "log":
        text = (tmp_path / event).read_text()
        assert "socket:" not in text, text
        numbers = {int(number) for number in re.findall(r" (\d+) -> (?!/proc/)", text)}
        assert numbers - {0, 1, 2} == ({3} if event == "data" else set()), text
        assert not re.search(r"^(LISTEN_|NOTIFY_SOCKET)", text, re.M) and "KEPT=yes" in text


# Sockets: hooks that stay resident

class Resident:
    """A hook on a Unix socket, in a thread: answer(line, message) gives the verdict; None: closes without one."""

    def __init__(self, path, answer):
        self.lines, self.answer = [], answer
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.bind(str(path))
        self.sock.listen(64)
        threading.Thread(target=self.serve, daemon=True).start()

    def serve(self):
        while True:
            connection, _ = self.sock.accept()
            with connection:
                data, fds, _, _ = socket.recv_fds(connection, 65536, 1)
                while piece := connection.recv(65536):
                    data += piece
                message = None
                for fd in fds:
                    with os.fdopen(fd, "rb") as file:
                        message = file.read()
                self.lines.append(json.loads(data))
                verdict = self.answer(self.lines[-1], message)
                if verdict is not None:
                    connection.sendall(verdict)


def test_resident_hook(warp, mail_server, hooks):
    resident = Resident(hooks.place("data", "50-resident"),
                        lambda line, message: b"reject found\n" if b"EVIL" in message else b"add-header X-Seen: yes\naccept\n")
    server = mail_server()
    client = warp(*hooks.options, upstream=server).greeted()
    assert send(client, b"EVIL\r\n.\r\n") == "550 5.7.1 found"
    assert send(client, b"A: b\r\n\r\n..\r\n.\r\n").code == 250
    assert server.messages[0]["data"] == b"X-Seen: yes\r\nA: b\r\n\r\n..\r\n.\r\n"
    assert [line["event"] for line in resident.lines] == ["data", "data"]


@pytest.mark.parametrize("what", ["nobody", "silent", "slow", "nonsense", "no final word", "replace", "uncounted", "short", "long line"])
def test_resident_hooks_that_fail(warp, mail_server, hooks, what):
    """A filter that crashed closes its socket as well: only a word is a verdict."""
    answers = {"silent": None, "nonsense": b"what?\n", "no final word": b"log a b\n", "replace": b"replace-message 10\nA: b\n\nnew\n",
               "uncounted": b"replace-message\nA: b\n\nnew\n", "short": b"replace-message 11\nA: b\n\nnew\n", "long line": b"accept\n"}
    path = hooks.place("data", "50-resident")
    if what == "nobody":
        socket.socket(socket.AF_UNIX).bind(str(path))
    else:
        Resident(path, lambda line, message: time.sleep(5) if what == "slow" else answers[what])
    server = mail_server("PIPELINING")
    client = warp(*hooks.options, "--hook-timeout", 0.7 if what in ("silent", "slow") else 30, upstream=server).greeted()
    if what == "long line":
        reply = send(client, recipients=[f"{'r' * 60}{number}@{'d' * 60}.example" for number in range(900)])
    else:
        reply = send(client)
    assert reply.startswith("250" if what in ("replace", "long line") else "451 4.3.0")
    if what == "replace":
        assert server.messages[0]["data"] == b"A: b\r\n\r\nnew\r\n.\r\n"


# log and close: never in the way

def test_log_hook_gets_every_record(warp, mail_server, hooks, tmp_path):
    """And every command and reply, asked for or not; the last line too, before the process is gone."""
    hooks.script("log", f"cat >{tmp_path}/part; sleep 0.3; mv {tmp_path}/part {tmp_path}/all")
    proxy = warp(*hooks.options, upstream=mail_server())
    client = proxy.greeted()
    assert send(client).code == 250
    client.ask("QUIT", "221")
    proxy.wait_exit()
    records = lines(tmp_path / "all")
    assert [r for r in records if r["event"] != "comm"] == proxy.records()
    said = [(r["direction"], r["data"]) for r in records if r["event"] == "comm"]
    assert ("->", "MAIL FROM:<a@client.example>") in said
    assert any(direction == "<-" and data.startswith("250 2.1.0") for direction, data in said)
    assert {r["event"] for r in records} == {"connect", "comm", "message", "close"}


@pytest.mark.parametrize("script", ["exec sleep 60", "exit 1", "exec <&-; sleep 60", "head -n 1 >/dev/null",
                                    "kill -9 $$", "head -c 100000 /dev/zero >&2; exec sleep 60"])
def test_log_hook_that_does_not_read_costs_lines_not_time(warp, mail_server, hooks, script):
    hooks.script("log", script)
    proxy = warp(*hooks.options, "--hook-timeout", 0.5, upstream=mail_server("PIPELINING"))
    client = proxy.greeted()
    start = time.monotonic()
    for _ in range(20):
        client.send(*["NOOP " + "x" * 1000] * 200)
        assert [client.reply().code for _ in range(200)] == [250] * 200     # more than the 4 MiB that may wait
    assert send(client).code == 250
    client.ask("QUIT", "221")
    client.expect_end()
    assert time.monotonic() - start < 60        # half a second for each of 8000 lines would be 4000 s
    proxy.wait_exit()
    assert proxy.records("close")[0]["log_dropped"] > 0


@pytest.mark.parametrize("script", ["sleep 60", "exit 1", "kill -9 $$", "echo reject; cat >/dev/null"])
def test_close_hook_delays_nobody(warp, mail_server, hooks, script):
    hooks.script("close", script)
    proxy = warp(*hooks.options, "--hook-timeout", 3, upstream=mail_server())
    client = proxy.greeted()
    start = time.monotonic()
    client.ask("QUIT", "221")
    client.expect_end()
    assert time.monotonic() - start < 3
    proxy.wait_exit()
    failures = proxy.records("verdict", verdict="failed", on="close")
    assert len(failures) == (0 if script.startswith("echo") else 1)


def test_log_key_value(warp, mail_server, hooks):
    hooks.script("connect", "echo log site here")
    hooks.script("rcpt", "printf 'log list one\\nlog list two\\n'")
    hooks.script("data", "echo log score 5.1; echo log text 'with \"quotes\" and  blanks'")
    proxy = warp(*hooks.options, upstream=mail_server())
    client = proxy.greeted()
    assert send(client).code == 250
    client.ask("MAIL FROM:<a@b.example>", "250")
    client.ask("RSET", "250")
    client.ask("QUIT", "221")
    first, second = proxy.wait_for("message", 2) and proxy.records("message")
    assert first["hooks"] == {"site": "here", "list": "two", "score": "5.1", "text": 'with "quotes" and  blanks'}
    assert second["hooks"] == {"site": "here"}
    assert proxy.wait_for("close")["hooks"] == first["hooks"]


# Which hooks there are

def test_plugins_by_name(warp, mail_server, tmp_path):
    """As Warp's -plugins has it, from the folders that `make install` fills."""
    plugins = Hooks(tmp_path / "plugins")
    plugins.script("rcpt", "echo reject 550 5.7.1 by plugin", "guard")
    plugins.script("rcpt", "echo reject 550 5.7.1 not asked for", "another")
    plugins.script("mail", f"touch {tmp_path}/mail", "guard")
    client = warp("-plugins", "guard", "--plugins-dir", tmp_path / "plugins", upstream=mail_server()).greeted()
    client.ask("MAIL FROM:<a@b.example>", "250")
    client.ask("RCPT TO:<b@c.example>", "550 5.7.1 by plugin")
    assert (tmp_path / "mail").exists()


def test_listener_takes_new_hooks(warp, mail_server, hooks):
    """With the next session, at most a second later, when it looks again."""
    proxy = warp(*hooks.options, upstream=mail_server()).listen()
    proxy.greeted().ask("MAIL FROM:<a@b.example>", "250")
    hooks.script("mail", "echo reject")

    def refused():
        client = proxy.greeted()
        client.send("MAIL FROM:<a@b.example>")
        code = client.reply().code
        client.close()
        return code == 550
    proxy.wait_until(refused, "a listener that has seen it")


def test_sessions_of_a_listener_end_with_their_hooks(warp, mail_server, hooks, tmp_path):
    """SIGTERM: hooks of sessions that are told to end are killed, and the close hook still has its say."""
    hooks.script("mail", f"touch {tmp_path}/asked; sleep 60")
    hooks.script("close", f"cat >{tmp_path}/close")
    proxy = warp(*hooks.options, "--drain-timeout", 0.2, upstream=mail_server()).listen()
    client = proxy.greeted()
    client.send("MAIL FROM:<a@b.example>")
    proxy.wait_until((tmp_path / "asked").exists, "the hook")
    proxy.listener.send_signal(signal.SIGTERM)
    client.expect("421")
    proxy.wait_exit(proxy.listener)
    assert lines(tmp_path / "close")[0]["reason"] == "shutting down"


@pytest.fixture
def public():
    """A folder that --user can get at."""
    with tempfile.TemporaryDirectory(prefix="warp") as name:
        pathlib.Path(name).chmod(0o755)
        yield pathlib.Path(name)


def test_hooks_that_cannot_be_listed_for_a_moment(warp, mail_server, public):
    """The last list that could be read stays, and the log has an error, once a minute at most."""
    folder = public / "hooks"
    Hooks(folder).script("rcpt", "echo reject 550 5.7.1 no")
    proxy = warp("--hooks", folder, "--user", "nobody", upstream=mail_server(), env=NO_REPORTS).listen()
    (folder / "rcpt").chmod(0o711)      # as EMFILE would: it cannot be listed, its programs can be run
    for _ in range(2):
        time.sleep(1.1)                 # hooks are looked for once a second at most
        client = proxy.greeted()
        client.ask("MAIL FROM:<a@client.example>", "250")
        client.ask("RCPT TO:<b@server.example>", "550 5.7.1")
        client.ask("QUIT", "221")
    [error] = proxy.records("error")
    assert "Permission denied" in error["error"] and "still in use" in error["error"]


@pytest.mark.parametrize("policy, banner", [("defer", "421 4.3.0"), ("accept", "220")])
def test_hooks_that_cannot_be_listed(warp, mail_server, hooks, policy, banner):
    hooks.script("mail", "exit 0")
    proxy = warp(*hooks.options, "--hook-failure", policy, upstream=mail_server())
    (hooks.directory / "mail" / "50-test").unlink()
    (hooks.directory / "mail").rmdir()
    (hooks.directory / "mail").write_text("")
    proxy.connect().expect(banner)
    assert "Not a directory" in proxy.wait_for("error")["error"]


@pytest.mark.parametrize("shift", range(-4, 5))
def test_2_dots_wherever_a_kept_message_is_cut(warp, mail_server, hooks, shift):
    """It goes out in parts of 128 KiB; a dot that lost its stuffing there would end it, and begin a second one."""
    hooks.script("data", "exit 0")
    head = b"Subject: x\r\n\r\n"
    fill = b"x" * ((128 << 10) + shift - len(head) - 2) + b"\r\n"
    body = (head + fill + b"..\r\nMAIL FROM:<evil@x>\r\n" + b"y" * (128 << 10) + b"\r\n") * 2
    server = mail_server()
    client = warp(*hooks.options, upstream=server).greeted()
    assert send(client, body + b".\r\n").code == 250
    assert [message["data"] for message in server.messages] == [body + b".\r\n"]
    assert not any("evil" in command for command in server.commands)


# A header that some programs send

def test_first_line_of_a_mailbox_and_blanks_before_colons(warp, mail_server, hooks):
    """They belong to a header still: fields are added and removed, and the message has its Message-ID."""
    hooks.script("data", "echo add-header New: yes; echo remove-header x-spam")
    server = mail_server()
    proxy = warp(*hooks.options, upstream=server)
    assert send(proxy.greeted(), b"From a@b Sat Nov 28 10:00:00 2026\r\nX-Spam : no\r\nMessage-ID : <1@x>\r\n\r\nbody\r\n.\r\n").code == 250
    assert server.messages[0]["data"] == \
        b"From a@b Sat Nov 28 10:00:00 2026\r\nNew: yes\r\nMessage-ID : <1@x>\r\n\r\nbody\r\n.\r\n"
    assert proxy.wait_for("message")["message_id"] == "<1@x>"


# What has no lines

BINARY = b"A: b\r\nB: c\r\n\r\n\x00lone\nlines\rand\r\n.\r\nno end"


@pytest.mark.parametrize("body", ["BINARYMIME", "8BITMIME"])
def test_89_octets_survive_replace_message(warp, hooks, body):
    """RFC 3030 3: what came as octets, or by BDAT with bare line feeds, comes back from a hook as it was, and goes on so."""
    hooks.script("data", "echo add-header New: yes; echo replace-message; cat <&3")
    session = warp(*hooks.options, "--tls", "none").session().to("ehlo", "CHUNKING", "BINARYMIME", "8BITMIME")
    session.mail(f"MAIL FROM:<from@client.example> BODY={body}")
    session.rcpt()
    session.client.send_raw(b"BDAT %d LAST\r\n" % len(BINARY) + BINARY)
    new = b"New: yes\r\n" + BINARY
    session.server.expect_line(f"BDAT {len(new)} LAST")
    assert session.server.take(len(new)) == new
    session.sent()


def test_89_lines_of_a_chunk_become_lines_still(warp, hooks):
    """A message that came by BDAT in lines is one that a hook in shell may write with LF."""
    hooks.script("data", "echo replace-message; tr -d '\\r' <&3")
    session = warp(*hooks.options, "--tls", "none").session().to("rcpt", "CHUNKING")
    session.client.send_raw(b"BDAT 14 LAST\r\nA: b\r\n\r\nbody\r\n")
    session.server.expect_line("BDAT 14 LAST")
    assert session.server.take(14) == b"A: b\r\n\r\nbody\r\n"
    session.sent()


# SIZE=

@pytest.mark.parametrize("mode", ["early", "late"])
@pytest.mark.parametrize("event, options, seen", [
    ("data", [], "MAIL FROM:<a@b.example> BODY=8BITMIME"), ("data", ["--received"], "MAIL FROM:<a@b.example> BODY=8BITMIME"),
    ("mail", [], "MAIL FROM:<a@b.example> SIZE=1000 BODY=8BITMIME")])
def test_89_size_that_hooks_may_make_wrong(warp, hooks, mode, event, options, seen):
    """RFC 1870 6.3: what follows may be larger once hooks have edited it, so the server is not told."""
    hooks.script(event, "exit 0")
    late = ["--connect-on", "recipient"] if mode == "late" else []
    proxy = warp(*hooks.options, "--tls", "none", *late, *options)
    if late:
        client = proxy.greeted()
        client.send("MAIL FROM:<a@b.example> SIZE=1000 BODY=8BITMIME", "RCPT TO:<b@c.example>")
        server = proxy.upstream.accept()
        server.send("220 server.example")
        server.line()
        server.send("250-server.example", "250-8BITMIME", "250 SIZE 5000")
    else:
        session = proxy.session().to("ehlo", "SIZE 5000", "8BITMIME")
        session.client.send("MAIL FROM:<a@b.example> SIZE=1000 BODY=8BITMIME")
        server = session.server
    server.expect_line(seen)


@pytest.mark.parametrize("size", [0, 1000])
def test_89_size_counts_the_received_field(warp, size):
    session = warp("--tls", "none", "--received").session().to("ehlo", "SIZE 5000")
    session.client.send(f"MAIL FROM: a@b.example SIZE={size}")
    sent = int(re.fullmatch(r"MAIL FROM:<a@b\.example> SIZE=(\d+)", session.server.line())[1])
    session.server.send("250 ok")
    session.client.expect("250")
    session.rcpt()
    session.data()
    session.client.send_raw(b"A: b\r\n\r\n.\r\n")
    assert len(session.server.until(b"\r\n.\r\n")) - 3 == 8 + sent - size


# Events of the largest size

@pytest.mark.parametrize("local", [b'"' + b'\\"' * 515 + b'"', b"\xff" * 1000], ids=["quotes", "octets"])
def test_no_event_is_too_large_for_a_hook(warp, mail_server, hooks, tmp_path, local):
    """A sender must not be able to choose --hook-failure accept: a thousand recipients that JSON makes several times as long."""
    hooks.script("data", f"cat >{tmp_path}/line; echo reject")
    proxy = warp(*hooks.options, "--hook-failure", "accept", "--max-recipients", 1100, "--max-pipeline", 10,
                 upstream=mail_server("PIPELINING", "SMTPUTF8"))
    client = proxy.greeted()
    client.ask("MAIL FROM:<a@client.example> SMTPUTF8", "250")
    for _ in range(1000):
        client.send_raw(b"RCPT TO:<" + local + b"@b.example>\r\n")
        client.expect("250")
    client.ask("DATA", "354")
    client.send_raw(MESSAGE)
    client.expect("550")
    assert len(lines(tmp_path / "line")[0]["rcpt_to"]) == 1000 and (tmp_path / "line").stat().st_size > 2 << 20
    assert proxy.wait_for("verdict")["verdict"] == "reject"


# Records of verdicts

def test_verdict_records_name_what_was_judged(warp, mail_server, hooks):
    hooks.script("mail", "grep -q bad@ && echo reject; echo log a b")
    hooks.script("rcpt", "grep -q bad@ && echo reject; echo rewrite new@server.example", "10-first")
    hooks.script("rcpt", "exit 1", "20-second")
    proxy = warp(*hooks.options, upstream=mail_server("DSN", "SIZE"))
    client = proxy.greeted()
    client.ask("MAIL FROM:<bad@client.example> SIZE=5", "550")
    client.ask("MAIL FROM:<good@client.example>", "250")
    client.ask("RCPT TO:<bad@server.example> NOTIFY=NEVER", "550")
    client.ask("RCPT TO:<good@server.example>", "451")
    records = proxy.records("verdict")
    assert [record["mail_from"] for record in records] == [
        {"address": "bad@client.example", "params": {"SIZE": "5"}}] + 4 * [{"address": "good@client.example", "params": {}}]
    assert [record.get("rcpt", {}).get("address") for record in records] == [
        None, None, "bad@server.example", "good@server.example", "new@server.example"]
    assert records[2]["rcpt"]["params"] == {"NOTIFY": "NEVER"}
    assert [record["verdict"] for record in records] == ["reject", "accept", "reject", "accept", "failed"]


def test_each_message_has_an_id_of_its_own(warp, mail_server, hooks, tmp_path):
    for event in "ehlo", "mail", "rcpt", "data", "close":
        hooks.script(event, noting(tmp_path / event))
    hooks.script("rcpt", "grep -q bad@ && echo reject; exit 0", "90-refuses")
    proxy = warp(*hooks.options, upstream=mail_server())
    client = proxy.greeted()
    for _ in range(2):
        assert send(client).code == 250
    client.ask("MAIL FROM:<a@client.example>", "250")
    client.ask("RCPT TO:<bad@client.example>", "550")
    client.ask("QUIT", "221")
    proxy.wait_exit()
    session = lines(tmp_path / "ehlo")[0]["session"]
    ids = [f"{session}-{number}" for number in (1, 2, 3)]
    assert lines(tmp_path / "ehlo")[0]["transaction"] is lines(tmp_path / "close")[0]["transaction"] is None
    for event, seen in ("mail", ids), ("rcpt", ids), ("data", ids[:2]):
        assert [line["transaction"] for line in lines(tmp_path / event)] == seen
    assert [record["transaction"] for record in proxy.records("message")] == ids
    assert proxy.records("verdict")[-1]["transaction"] == ids[2]


# What is not ASCII

@pytest.mark.parametrize("how", ["rewrite", "override"])
@pytest.mark.parametrize("utf8", [True, False])
def test_rewrite_to_an_address_that_is_not_ascii(warp, mail_server, hooks, how, utf8):
    """RFC 6531 3.7.4.2: only in a transaction with SMTPUTF8."""
    hooks.script("rcpt", "echo rewrite bö@c.example" if how == "rewrite" else "exit 0")
    server = mail_server("SMTPUTF8", "8BITMIME")
    proxy = warp(*hooks.options, *(["--override-recipient", "bö@c.example"] if how == "override" else []), upstream=server)
    client = proxy.greeted()
    client.ask("MAIL FROM:<a@b.example>" + " SMTPUTF8" * utf8, "250")
    client.ask("RCPT TO:<b@c.example>", "250" if utf8 else "553 5.6.7")
    client.ask("QUIT", "221")
    assert any("bö@c.example" in command for command in server.commands) == utf8


@pytest.mark.parametrize("script", ["echo 'replace-message'; printf 'A: b\\n\\n\\303\\266\\n'", "echo accept"],
                         ids=["made so", "left"])
@pytest.mark.parametrize("extensions", [(), ("8BITMIME",)], ids=["without", "with"])
def test_hook_that_makes_a_message_eightbit(warp, mail_server, hooks, script, extensions):
    """RFC 6152 3: not for a server that does not know 8BITMIME."""
    hooks.script("data", script)
    client = warp(*hooks.options, upstream=mail_server(*extensions)).greeted()
    assert send(client).code == (554 if "replace" in script and not extensions else 250)


@pytest.mark.parametrize("value, seen", [
    ("Jürgen Müller <j@m.example> via smtpwarp", "=?UTF-8?B?SsO8cmdlbiBNw7xsbGVy?= <j@m.example> via smtpwarp"),
    ("a é", "a =?UTF-8?B?w6k=?="), (r"x\377y", "=?unknown-8bit?B?eP95?="), ("plain", "plain")])
@pytest.mark.parametrize("utf8", [True, False])
def test_added_fields_that_are_not_ascii(warp, mail_server, hooks, value, seen, utf8):
    """RFC 2047, unless the transaction has SMTPUTF8."""
    hooks.script("data", f"printf 'add-header X: {value}\\n'")
    server = mail_server("SMTPUTF8", "8BITMIME")
    client = warp(*hooks.options, upstream=server).greeted()
    client.ask("MAIL FROM:<a@b.example>" + " SMTPUTF8" * utf8, "250")
    client.ask("RCPT TO:<b@c.example>", "250")
    client.ask("DATA", "354")
    client.send_raw(MESSAGE)
    client.expect("250")
    got = server.messages[0]["data"].removesuffix(MESSAGE)
    assert got == b"X: " + (value.encode().replace(rb"\377", b"\xff") if utf8 else seen.encode()) + b"\r\n"


def test_long_value_that_is_not_ascii(warp, mail_server, hooks):
    """Encoded words of at most 75, in lines of 78, no character cut."""
    value = "größe " * 60 + "äöü" * 200
    hooks.script("data", f"echo 'add-header Subject: {value}'; echo remove-header x")
    server = mail_server()
    assert send(warp(*hooks.options, upstream=server).greeted()).code == 250
    field = email.message_from_bytes(server.messages[0]["data"], policy=email.policy.default)
    assert field["Subject"] == value and field["Subject"].defects == ()
    top = server.messages[0]["data"].split(b"\r\nSubject: hello")[0]
    assert all(len(line) <= 78 for line in top.split(b"\r\n"))
    assert all(len(word) <= 75 and base64.b64decode(word[10:-2]).decode() for word in top.split()[1:])


def test_eightbit_message_that_a_hook_only_marks(warp, mail_server, hooks):
    """What the client sends without asking is its own business, as without hooks."""
    hooks.script("data", "echo add-header A: b")
    client = warp(*hooks.options, upstream=mail_server()).greeted()
    assert send(client, b"Subject: x\r\n\r\n\xff\r\n.\r\n").code == 250
