"""Hooks and late connections under hostile events. DESIGN 4, 6; PROTOCOL 2, 8, 9, 15, 16, 66, 68, 71."""
import os
import signal
import socket
import threading
import time

import pytest

import peers
from hooks import Hooks
from warp import MESSAGE

LATE = ["--connect-on", "recipient", "--hostname", "proxy.example"]
BIG = b"A: b\r\n\r\n" + b"0123456789abcdef" * 62 + b"\r\n"
BIG *= 16 << 10     # more than sockets hold: 16 MiB


@pytest.fixture
def hooks(tmp_path):
    return Hooks(tmp_path / "hooks")


def opened(server, *extensions):
    """A server of a late session, up to its 250 to RCPT."""
    server.send("220 server.example")
    server.line()
    lines = ["server.example", *extensions]
    server.send(*[f"250-{line}" for line in lines[:-1]], f"250 {lines[-1]}")
    for verb in "MAIL", "RCPT":
        assert server.line().startswith(verb)
        server.send("250 2.1.0 fine")
    return server


def cpu(pid):
    """Seconds of CPU that a process has used."""
    fields = open(f"/proc/{pid}/stat").read().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def resident(path, answer):
    """A resident hook: answer(connection) for each, in a thread."""
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(path))
    listener.listen(8)

    def serve():
        while True:
            connection, _ = listener.accept()
            with connection:
                answer(connection)
    threading.Thread(target=serve, daemon=True).start()


# What the server says while it is sent a kept message

@pytest.mark.parametrize("mode", ["early", "late"])
@pytest.mark.parametrize("reply", ["552 5.3.4 too much", "250 2.0.0 taken"])
@pytest.mark.parametrize("end", ["half_close", "close"])
def test_9_reply_and_end_in_the_middle_of_a_chunk_of_ours(warp, hooks, mode, reply, end):
    """The client hears the refusal, or 451 for a 250 that cannot be meant, and a late session goes on."""
    hooks.script("data", "exit 0")
    proxy = warp(*hooks.options, *(LATE if mode == "late" else []), "--tls", "none", "--message-size-limit", 0,
                 "--hook-timeout", 8)
    if mode == "late":
        client = proxy.greeted()
        client.send("MAIL FROM:<a@b>", "RCPT TO:<b@c>")
        server = opened(proxy.upstream.accept(), "CHUNKING")
        for _ in range(2):
            client.expect("250")
    else:
        session = proxy.session().to("rcpt", "CHUNKING")
        client, server = session.client, session.server
    server.paused = True
    client.send_raw(b"BDAT %d LAST\r\n" % len(BIG) + BIG, timeout=30)
    time.sleep(0.5)
    server.send(reply)
    getattr(server, end)()
    if end == "half_close":
        server.paused = False
    client.expect("552 5.3.4 too much" if reply[0] == "5" else "451 4.5.0")
    if mode == "late":
        client.ask("NOOP", "250")
        client.ask("QUIT", "221")
    assert proxy.wait_for("message")["result"] != "accepted"


# Memory

@pytest.mark.parametrize("verdicts", ["echo rewrite {long}", "echo rewrite {long}; echo reject"])
def test_rewritten_recipients_fill_no_more_than_there_is_room_for(warp, mail_server, hooks, verdicts):
    """All addresses of a transaction together have 1 MiB; what is beyond it is a failure of the hook, or a 452."""
    hooks.script("rcpt", verdicts.format(long="$(printf '%011999d' 0)@x"))
    client = warp(*hooks.options, upstream=mail_server()).greeted()
    client.ask("MAIL FROM:<a@b>", "250")
    codes = []
    for number in range(100):
        client.send(f"RCPT TO:<{number}@c.example>")
        codes.append(client.reply().code)
    assert set(codes) == ({250, 451} if "reject" not in verdicts else {550, 451}), codes
    client.ask("RSET", "250")
    client.ask("QUIT", "221")


# Late: what is left of one message when the next begins

def test_71_message_refused_at_data_leaves_nothing_for_the_next(warp, mail_server):
    """MAIL without RSET, RFC 5321 4.1.4: the server's transaction, of which the client knows nothing, ends first."""
    refusals = ["451 4.3.0 not now"]
    server = mail_server(replies={"DATA": lambda line: refusals.pop() if refusals else "354 go on"})
    client = warp(*LATE, upstream=server).greeted()
    client.ask("MAIL FROM:<a@b>", "250")
    client.ask("RCPT TO:<one@c>", "250")
    client.ask("DATA", "451")
    client.ask("MAIL FROM:<a@b>", "250")
    client.ask("RCPT TO:<two@c>", "250")
    client.ask("DATA", "354")
    client.send_raw(MESSAGE)
    client.expect("250")
    assert [message["to"] for message in server.messages] == [["<two@c>"]]


def test_58_tls_that_failed_with_one_server_is_tried_with_the_next(warp, mail_server, certs):
    """Late, level may: the first falls back to plain and then does not want the message, the second knows TLS."""
    second = mail_server(tls=certs.context())
    first = mail_server("STARTTLS", replies={"STARTTLS": "454 4.7.0 not now", "MAIL": "421 4.3.2 later"})
    proxy = warp(*LATE, "--upstream", first.name_port, "--upstream", second.name_port)
    client = proxy.greeted()
    client.ask("MAIL FROM:<a@b>", "250")
    client.ask("RCPT TO:<b@c>", "250")
    assert "STARTTLS" in second.commands


# Time

def test_upstream_has_its_time_to_take_a_message(warp, hooks):
    """--block-timeout counts from when there was something to take, not from what was sent last."""
    hooks.script("data", "exit 0")
    proxy = warp(*hooks.options, "--tls", "none", "--block-timeout", 1, "--message-size-limit", 0)
    session = proxy.session().to("rcpt")
    session.client.ask("DATA", "354")
    session.client.send_raw(BIG + b".\r\n", timeout=30)
    session.server.expect_line("DATA")
    time.sleep(1.3)
    session.server.paused = True
    session.server.send("354 go on")
    time.sleep(0.3)
    session.server.paused = False
    assert session.server.take(len(BIG) + 3, timeout=30) == BIG + b".\r\n"
    session.server.send("250 2.0.0 taken")
    session.client.expect("250 2.0.0 taken")


def test_log_hook_that_talks_costs_no_cpu(warp, mail_server, hooks):
    """While the last reply lingers, and the client does not close, there is nothing to do."""
    hooks.script("log", "while read -r line; do echo; echo >&2; done")
    hooks.script("mail", "echo close go away")
    proxy = warp(*hooks.options, upstream=mail_server())
    client = proxy.greeted()
    client.ask("MAIL FROM:<a@b>", "421")
    before, start = cpu(proxy.processes[-1].pid), time.monotonic()
    time.sleep(1)
    assert cpu(proxy.processes[-1].pid) - before < 0.3 * (time.monotonic() - start)


def test_log_hook_that_repeats_what_it_reads_gets_all_of_it(warp, mail_server, hooks, tmp_path):
    """tee(1) is one: what a log hook says on stdout is nobody's business, however much it is."""
    hooks.script("log", f"exec tee {tmp_path}/all")
    proxy = warp(*hooks.options, upstream=mail_server("PIPELINING"))
    client = proxy.greeted()
    for _ in range(20):
        client.send(*["RSET"] * 30)
        assert [client.reply().code for _ in range(30)] == [250] * 30
    client.ask("QUIT", "221")
    proxy.wait_exit()
    text = (tmp_path / "all").read_text()
    assert proxy.wait_for("close")["log_dropped"] == 0 and len(text) > 100000 and '"event":"close"' in text


# Sockets

def test_resident_hook_that_is_killed_within_a_message(warp, mail_server, hooks):
    """It had not read what it was sent: the kernel tells, and half a message goes nowhere."""
    def answer(connection):
        connection.sendall(b"replace-message\nA: b\n\nfirst half")
    resident(hooks.place("data", "50-killed"), answer)
    server = mail_server()
    client = warp(*hooks.options, upstream=server).greeted()
    client.ask("MAIL FROM:<a@b>", "250")
    client.ask("RCPT TO:<b@c>", "250")
    client.ask("DATA", "354")
    client.send_raw(MESSAGE)
    client.expect("451 4.3.0")
    assert not server.messages


# Names

def test_25_a_name_that_hooks_refuse_is_not_said_to_the_server(warp, mail_server, hooks):
    """RFC 5321 4.1.4: after an EHLO that was refused all is as it was before."""
    hooks.script("ehlo", "grep -q bad.example && echo reject; exit 0")
    server = mail_server()
    proxy = warp(*hooks.options, *LATE, upstream=server)
    client = proxy.greeted()
    client.ask("EHLO bad.example", "550")
    client.ask("MAIL FROM:<a@b>", "250")
    client.ask("RCPT TO:<b@c>", "250")
    assert "EHLO client.example" in server.commands
