"""Hooks: what is read of a message, and what comes back, is whole, or it does not count. PROTOCOL 87."""
import json
import os
import socket
import threading

import pytest

from hooks import Hooks

LINES = b"".join(b"%06d %s\r\n" % (number, b"x" * 90) for number in range(3000))
MESSAGE = b"Subject: whole\r\n\r\n" + LINES
OUT_OF_ORDER = "451 4.3.0 A filter is out of order"


@pytest.fixture
def hooks(tmp_path):
    return Hooks(tmp_path / "hooks")


def deliver(client, data=MESSAGE):
    """The reply to a message."""
    client.ask("MAIL FROM:<a@client.example>", "250")
    client.ask("RCPT TO:<b@server.example>", "250")
    client.ask("DATA", "354")
    client.send_raw(data + b".\r\n")
    return client.reply()


def resident(path, answer):
    """A resident hook in a thread: answer(connection, message's descriptor or None), and what it says before it closes."""
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(path))
    listener.listen(8)

    def serve():
        while True:
            connection, _ = listener.accept()
            with connection:
                line, descriptors, _, _ = socket.recv_fds(connection, 65536, 1)
                while not line.endswith(b"\n"):
                    line += connection.recv(65536)
                json.loads(line)
                answer(connection, *descriptors or [None])
                for descriptor in descriptors:
                    os.close(descriptor)
    threading.Thread(target=serve, daemon=True).start()


# The message that a hook reads

@pytest.fixture
def reader_left_behind(hooks, tmp_path):
    """The first hook leaves a child that reads all of its descriptor 3 once the second one has begun to read."""
    for name in "begun", "read":
        os.mkfifo(tmp_path / name)
    hooks.script("data", f"(read x <{tmp_path}/begun; cat <&3 >/dev/null; echo >{tmp_path}/read) >/dev/null 2>&1 </dev/null &\n"
                 "echo accept", "10-first")
    return tmp_path


def test_each_program_reads_at_a_position_of_its_own(warp, mail_server, hooks, reader_left_behind):
    there = reader_left_behind
    hooks.script("data", f"echo replace-message; dd bs=1 count=1 <&3 2>/dev/null; echo >{there}/begun; read x <{there}/read; cat <&3",
                 "20-second")
    server = mail_server()
    assert deliver(warp(*hooks.options, upstream=server).greeted()).code == 250
    assert server.messages[0]["data"] == MESSAGE + b".\r\n"


def test_each_resident_hook_reads_at_a_position_of_its_own(warp, mail_server, hooks, reader_left_behind):
    def answer(connection, message):
        got = os.read(message, 1)
        (reader_left_behind / "begun").write_text("\n")
        (reader_left_behind / "read").read_text()
        while piece := os.read(message, 1 << 20):
            got += piece
        connection.sendall(b"replace-message %d\n" % len(got) + got)
    resident(hooks.place("data", "20-second"), answer)
    server = mail_server()
    assert deliver(warp(*hooks.options, upstream=server).greeted()).code == 250
    assert server.messages[0]["data"] == MESSAGE + b".\r\n"


def test_descriptor_3_is_for_reading_only(warp, mail_server, hooks):
    hooks.script("data", "grep -q '^flags:.*0$' /proc/self/fdinfo/3 && echo accept || echo reject")
    assert deliver(warp(*hooks.options, upstream=mail_server()).greeted()).code == 250


# The message that a hook returns

BIG = b"".join(b"%06d %s\r\n" % (number, b"y" * 300) for number in range(3000))


def test_message_goes_on_after_its_hook_has_exited(warp, mail_server, hooks, tmp_path):
    """As with bash's `exec > >(sed ...)`: what writes the message is left behind, and ends later."""
    for name in "exited", "gone":
        os.mkfifo(tmp_path / name)
    (tmp_path / "big").write_bytes(BIG)
    hooks.script("data", f"echo replace-message; echo Subject: new; echo\n"
                 f"(read x <{tmp_path}/exited; cat {tmp_path}/big) 2>/dev/null </dev/null &\n"
                 f"(while kill -0 $$; do read line rest </proc/$$/stat; case $rest in *') Z '*) break;; esac; done; echo >{tmp_path}/exited) >/dev/null 2>&1 &")
    server = mail_server()
    proxy = warp(*hooks.options, upstream=server)
    assert deliver(proxy.greeted()).code == 250
    assert server.messages[0]["data"] == b"Subject: new\r\n\r\n" + BIG + b".\r\n"


def test_message_after_the_longest_verdict(warp, mail_server, hooks, tmp_path):
    """All of it is still in a pipe made larger when the hook exits: smtpwarp is stopped from before its first octet to then."""
    (tmp_path / "big").write_bytes(BIG)
    hooks.script("data", f"""import fcntl, os, signal, sys
fcntl.fcntl(1, 1031, 1 << 20)      # F_SETPIPE_SZ
hook, smtpwarp = os.getpid(), os.getppid()
os.kill(smtpwarp, signal.SIGSTOP)
if os.fork() == 0:
    os.close(1)
    while ") Z " not in open(f"/proc/{{hook}}/stat").read():
        os.sched_yield()
    os.kill(smtpwarp, signal.SIGCONT)
    os._exit(0)
line = "log a " + "b" * 57
sys.stdout.write((line + "\\n") * (65536 // 64 - 1) + "replace-message\\n")
sys.stdout.flush()
sys.stdout.buffer.write(open("{tmp_path}/big", "rb").read())""", shell="#!/usr/bin/python3")
    server = mail_server()
    assert deliver(warp(*hooks.options, upstream=server).greeted()).code == 250
    assert server.messages[0]["data"] == BIG + b".\r\n"


def test_message_without_an_end_is_a_failure(warp, mail_server, hooks, tmp_path):
    """Its hook has exited, but somebody holds its stdout open: --hook-timeout ends the whole process group."""
    hooks.script("data", f"echo replace-message; echo half\n(echo $$ >{tmp_path}/group; exec sleep 1000) </dev/null 2>/dev/null &")
    server = mail_server()
    proxy = warp(*hooks.options, "--hook-timeout", 1, upstream=server)
    assert deliver(proxy.greeted()).startswith(OUT_OF_ORDER)
    assert proxy.wait_for("verdict")["text"] == "it did not end in time (--hook-timeout)" and not server.messages
    group = int((tmp_path / "group").read_text())

    def ended():
        try:
            os.killpg(group, 0)
        except ProcessLookupError:
            return True
    proxy.wait_until(ended, "the end of the hook's process group")


def test_program_that_fails_after_its_message(warp, mail_server, hooks):
    """Its exit status counts at once, whoever still holds its stdout."""
    hooks.script("data", "echo replace-message; echo half\nsleep 1000 </dev/null 2>/dev/null &\necho $! >&2; exit 3")
    server = mail_server()
    proxy = warp(*hooks.options, upstream=server)
    assert deliver(proxy.greeted()).startswith(OUT_OF_ORDER)
    text = proxy.wait_for("verdict")["text"]
    assert text.startswith("exit status 3: ") and not server.messages
    os.kill(int(text.split()[-1]), 9)


# A verdict over a socket

@pytest.mark.parametrize("verdict", [b"log a b\n", b"accept", b"reject 550 5.7.1 it is spa", b"add-header A: b\n", b"add-header A: b\nacc",
                                     b"discard", b"\n", b"replace-message 4"])
def test_87_verdict_that_breaks_off(warp, mail_server, hooks, verdict):
    """Only a final word with its line end counts: the filter may have crashed."""
    resident(hooks.place("data", "50-broken"), lambda connection, message: connection.sendall(verdict))
    server = mail_server()
    proxy = warp(*hooks.options, upstream=server)
    assert deliver(proxy.greeted()).startswith(OUT_OF_ORDER)
    assert proxy.wait_for("verdict")["verdict"] == "failed" and not server.messages


@pytest.mark.parametrize("verdict, code", [(b"accept\n", 250), (b"accept\nwhat follows", 250), (b"log a b\nreject\n", 550),
                                           (b"discard\r\n", 250), (b"replace-message 4\na: b", 250)])
def test_87_verdict_that_is_whole(warp, mail_server, hooks, verdict, code):
    resident(hooks.place("data", "50-whole"), lambda connection, message: connection.sendall(verdict))
    assert deliver(warp(*hooks.options, upstream=mail_server()).greeted()).code == code


@pytest.mark.parametrize("event", ["connect", "ehlo", "mail", "rcpt"])
def test_87_verdict_that_breaks_off_in_other_events(warp, mail_server, hooks, event):
    resident(hooks.place(event, "50-broken"), lambda connection, message: connection.sendall(b"log a b\nacce"))
    proxy = warp(*hooks.options, upstream=mail_server())
    client = proxy.connect()
    client.send("EHLO a", "MAIL FROM:<a@b>", "RCPT TO:<b@c>")
    assert proxy.wait_for("verdict")["verdict"] == "failed"


def test_returned_message_that_is_reset_has_its_reason(warp, mail_server, hooks):
    """The filter dies with a part of its line unread, in the middle of a message."""
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(hooks.place("data", "50-broken")))
    listener.listen()

    def die():
        connection, _ = listener.accept()
        connection.recv(1)
        connection.sendall(b"replace-message 1000\na: b")
        connection.close()
    threading.Thread(target=die, daemon=True).start()
    proxy = warp(*hooks.options, upstream=mail_server())
    assert deliver(proxy.greeted()).startswith(OUT_OF_ORDER)
    record = proxy.wait_for("verdict")
    assert record["verdict"] == "failed" and record["text"] == "the message it returns broke off: Connection reset by peer", record


def test_resident_close_hook_needs_no_verdict(warp, mail_server, hooks):
    """It only watches."""
    resident(hooks.place("close", "50-silent"), lambda connection, message: None)
    proxy = warp(*hooks.options, upstream=mail_server())
    proxy.greeted().ask("QUIT", "221")
    proxy.wait_exit()
    assert proxy.records("close") and not proxy.records("verdict")
