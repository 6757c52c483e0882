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
