"""The `milter` hook: with OpenDKIM, with milters that libmilter serves (python3-milter), and with a scripted stand-in
on the wire for what those never say.

OpenDKIM signs what goes through smtpwarp, and Postfix at the far side, with an OpenDKIM of its own, verifies it: no
code of ours is on that side. By hand the hook is a build with sanitizers.
"""
import contextlib
import dataclasses
import itertools
import json
import pathlib
import random
import re
import shutil
import signal
import socket
import struct
import subprocess
import tempfile
import threading
import time

import pytest

import hooks
import mta
from waiting import wait_until

SANITIZE = {"ASAN_OPTIONS": "detect_leaks=0", "UBSAN_OPTIONS": "halt_on_error=1"}
FLAGS = "-std=c11 -g -O1 -Wall -Wextra -Wshadow -Wconversion -Wvla -Werror -fsanitize=address,undefined"
HOST = socket.gethostname()

MESSAGE = (b"Received: from here\r\n\tby there\r\nSubject: a\r\nsubject:b\r\nX-Folded: one\r\n  two\r\n\tthree\r\n"
           b"Subject:  c\r\n\r\nbody\r\n.\r\n..dots\r\n")
HEADER, BODY = MESSAGE.split(b"\r\n\r\n", 1)
HEADER += b"\r\n"


# The hook run by hand

@dataclasses.dataclass
class Outcome:
    status: int
    lines: list     # verdicts
    message: bytes  # what follows replace-message, or None
    error: str


def run(program, socket_name, message=MESSAGE, env=None, **fields):
    environment = {"MILTER_SOCKET": socket_name, **SANITIZE, **(env or {})}
    done = hooks.by_hand(program, hooks.sample("data", **fields), message, environment)
    error = done.stderr.decode()
    assert "Sanitizer" not in error and "runtime error" not in error, error
    verdicts, found, replaced = done.stdout.partition(b"replace-message\n")
    return Outcome(done.returncode, verdicts.decode("ascii").splitlines(), replaced if found else None, error)


def accepted(outcome):
    """Exit 0 and no error; the changed message, or None."""
    assert (outcome.status, outcome.lines, outcome.error) == (0, [], "")
    return outcome.message


def verdict(outcome):
    assert (outcome.status, outcome.message, outcome.error) == (0, None, "")
    return outcome.lines


def failure(outcome, status=75):
    """One line on stderr, which is returned, and no verdict that could pass for one."""
    assert outcome.status == status, outcome
    assert outcome.message is None
    assert re.fullmatch(r"milter: [ -~]+\n", outcome.error), outcome.error
    return outcome.error


@pytest.fixture(scope="module")
def sanitized(tmp_path_factory):
    """The hook, built with sanitizers."""
    program = tmp_path_factory.mktemp("milter") / "milter"
    libraries = subprocess.check_output(["pkg-config", "--cflags", "--libs", "jansson"], text=True).split()
    subprocess.run(["gcc", *FLAGS.split(), "-o", program, hooks.ROOT / "hooks" / "milter.c", *libraries], check=True)
    return program


# A milter's side of the wire

def packet(code, data=b""):
    return struct.pack(">I", len(data) + 1) + code + data


def negotiated(version=6, actions=0x1ff, steps=0, rest=b""):
    return packet(b"O", struct.pack(">III", version, actions, steps) + rest)


def strings(*texts):
    return b"".join(text + b"\0" for text in texts)


def indexed(code, index, name, value):
    return packet(code, struct.pack(">I", index) + strings(name, value))


CONTINUE = packet(b"c")
QUIET = 0xdf080     # the protocol's bits for "sends no reply" to all steps but the unknown command


class StandIn:
    """A scripted fake of a milter, for one connection. `replies` has the octets to answer a command with, as a letter;
    a list has those for its first, second, ... time; a callable gets the connection. What it does not name is answered
    as a milter does that is content. `got` has every command."""

    def __init__(self, path, replies=None, negotiation=None, quiet="", address=None):
        self.name = f"unix:{path}"
        self.replies = {"O": negotiation or negotiated(), "D": b"", "A": b"", "Q": b"", **(replies or {})}
        self.replies.update({letter: b"" for letter in quiet})
        self.got, self.times = [], {}
        if address:
            family = socket.AF_INET6 if ":" in address else socket.AF_INET
            self.listener = socket.create_server((address, 8891), family=family)
        else:
            self.listener = socket.socket(socket.AF_UNIX)
            self.listener.bind(str(path))
            self.listener.listen()
        self.thread = threading.Thread(target=self._serve)
        self.thread.start()

    def _serve(self):
        with contextlib.suppress(OSError):
            connection, _ = self.listener.accept()
            with connection, connection.makefile("rb") as stream:
                while len(head := stream.read(4)) == 4:
                    content = stream.read(struct.unpack(">I", head)[0])
                    self.got.append((content[:1].decode(), content[1:]))
                    if not self._answer(connection, content[:1].decode()):
                        break

    def _answer(self, connection, letter):
        """False ends the connection."""
        count = self.times[letter] = self.times.get(letter, -1) + 1
        reply = self.replies.get(letter, CONTINUE)
        if isinstance(reply, list):
            reply = reply[count] if count < len(reply) else CONTINUE
        if callable(reply):
            return reply(connection)
        if reply:
            connection.sendall(reply)
        return True

    def close(self):
        with contextlib.suppress(OSError):
            self.listener.shutdown(socket.SHUT_RDWR)
        self.thread.join(20)
        self.listener.close()
        assert not self.thread.is_alive()

    def data(self, letter):
        return [content for code, content in self.got if code == letter]

    def macros(self, letter):
        """Those that came for the command; those of the last one, if it came more than once."""
        words = [content[1:].split(b"\0")[:-1] for content in self.data("D") if content[:1] == letter.encode()][-1]
        return dict(zip(words[::2], words[1::2]))


@pytest.fixture
def stand_in(tmp_path):
    numbers = itertools.count()
    with contextlib.ExitStack() as closing:
        def make(replies=None, **options):
            made = StandIn(tmp_path / f"socket{next(numbers)}", replies, **options)
            closing.callback(made.close)
            return made
        yield make


# What the milter is told

def test_all_steps_in_order(sanitized, stand_in):
    milter = stand_in()
    assert accepted(run(sanitized, milter.name)) is None
    milter.close()
    assert "".join(code for code, _ in milter.got) == "ODCDHDMDRDRDTLLLLLDNBDEQ".replace("DH", "H")
    assert milter.got[0] == ("O", struct.pack(">III", 6, 0x1ff, 0x1fffff))
    assert milter.data("C") == [b"[10.0.0.1]\x004\xdc\x8810.0.0.1\0"]
    assert milter.data("H") == [b"client.example\0"]
    assert milter.data("M") == [strings(b"<alice@client.example>", b"SIZE=512")]
    assert milter.data("R") == [strings(b"<bob@mail.example>"), strings(b"<carol@mail.example>", b"NOTIFY=SUCCESS")]
    assert milter.data("T") == milter.data("N") == milter.data("E") == [b""]
    assert milter.data("B") == [BODY]


def test_fields_as_milters_get_them(sanitized, stand_in):
    plain, leading = stand_in(), stand_in(negotiation=negotiated(steps=0x100000))
    assert accepted(run(sanitized, plain.name)) is accepted(run(sanitized, leading.name)) is None
    names = [b"Received", b"Subject", b"subject", b"X-Folded", b"Subject"]
    values = [b" from here\n\tby there", b" a", b"b", b" one\n  two\n\tthree", b"  c"]
    assert leading.data("L") == [strings(*pair) for pair in zip(names, values)]
    assert plain.data("L") == [strings(name, value.removeprefix(b" ")) for name, value in zip(names, values)]


@pytest.mark.parametrize("message, header, body", [
    (b"", [], b""),
    (b"\r\n", [], b""),
    (b"\r\nbody", [], b"body"),
    (b"A: b", [(b"A", b"b")], b""),
    (b"A: b\r\n", [(b"A", b"b")], b""),
    (b"A: b\r\n\r\n", [(b"A", b"b")], b""),
    (b"A:\r\n\r\n\r\n", [(b"A", b"")], b"\r\n"),
    (b"A : b\r\n\r\nx", [(b"A", b"b")], b"x"),
    (b"A:\tb\r\nno field\r\n", [(b"A", b"\tb")], b"no field\r\n"),
    (b" not a field\r\nA: b\r\n", [], b" not a field\r\nA: b\r\n"),
    (b"A: b\0c\r\n \0d\r\n\r\nx\0y\xff", [(b"A", b"b c\n  d")], b"x\0y\xff"),
    (b"A: b\rc\r\r\n\r\nx\ry\r", [(b"A", b"b\rc\r")], b"x\ry\r"),
    (b"A: b\nB: \xe9\n c\n\nx\n", [(b"A", b"b"), (b"B", b"\xe9\n c")], b"x\n"),
    (b": b\r\n", [], b": b\r\n"),
    (b"From a@b Sat\r\nA: b\r\n\r\nx", [(b"A", b"b")], b"x"),
    (b">From a@b\r\nA: b\r\n\r\nx", [(b"A", b"b")], b"x"),
    (b"From : b\r\n\r\nx", [(b"From", b"b")], b"x"),
    (b"\xe9: b\r\n", [], b"\xe9: b\r\n"),
    (b"A: b\r\n\r\n" + b"x" * 200_000, [(b"A", b"b")], b"x" * 200_000),
])
def test_where_the_header_ends(sanitized, stand_in, message, header, body):
    milter = stand_in()
    assert accepted(run(sanitized, milter.name, message)) is None
    assert milter.data("L") == [strings(*field) for field in header]
    whole = body if body.endswith(b"\n") or not body else body + b"\r\n"
    assert b"".join(milter.data("B")) == whole
    assert [len(chunk) for chunk in milter.data("B")[:-2]] == [65535] * (len(body) // 65535)
    assert all(0 < len(chunk) <= 65535 for chunk in milter.data("B"))


def test_89_octets_get_no_line_end(sanitized, stand_in):
    """BODY=BINARYMIME, RFC 3030 3: neither for the milter nor on the way back."""
    milter = stand_in(changes(packet(b"h", strings(b"New", b"v"))))
    sender = {"address": "a@b", "params": {"BODY": "BINARYMIME"}}
    changed = accepted(run(sanitized, milter.name, b"A: b\r\n\r\n\0\n\rend", mail_from=sender))
    assert changed == b"A: b\r\nNew: v\r\n\r\n\0\n\rend" and milter.data("B") == [b"\0\n\rend"]


def test_steps_that_the_milter_skips(sanitized, stand_in):
    milter = stand_in(negotiation=negotiated(steps=0x27f))
    assert accepted(run(sanitized, milter.name)) is None
    milter.close()
    assert "".join(code for code, _ in milter.got if code != "D") == "OEQ"
    assert milter.macros("R")[b"{rcpt_addr}"] == b"carol@mail.example"


@pytest.mark.parametrize("steps", [QUIET, QUIET | 0x100400])
def test_steps_without_reply(sanitized, stand_in, steps):
    milter = stand_in({"E": packet(b"h", strings(b"X", b"y")) + CONTINUE}, negotiation=negotiated(steps=steps),
                      quiet="CHMRTLNB")
    body = b"line\r\n" * 100_000
    changed = accepted(run(sanitized, milter.name, HEADER + b"\r\n" + body))
    assert changed == HEADER + (b"X:y\r\n" if steps & 0x100000 else b"X: y\r\n") + b"\r\n" + body
    assert b"".join(milter.data("B")) == body


def test_skip_ends_the_body(sanitized, stand_in):
    milter = stand_in({"B": [CONTINUE, packet(b"s")]}, negotiation=negotiated(steps=0x400))
    assert accepted(run(sanitized, milter.name, b"A: b\r\n\r\n" + b"x" * 1_000_000)) is None
    assert len(milter.data("B")) == 2
    assert len(milter.data("E")) == 1


def test_old_versions_get_no_data_command(sanitized, stand_in):
    for version, count in (2, 0), (3, 0), (4, 1):
        milter = stand_in(negotiation=negotiated(version, 0x3f))
        assert accepted(run(sanitized, milter.name)) is None
        assert len(milter.data("T")) == count


def test_no_helo_and_the_null_sender(sanitized, stand_in):
    milter = stand_in()
    sender = {"address": "", "params": {"SMTPUTF8": True}}
    assert accepted(run(sanitized, milter.name, helo=None, mail_from=sender)) is None
    assert milter.data("H") == []
    assert milter.data("M") == [strings(b"<>", b"SMTPUTF8")]
    assert milter.macros("M")[b"{mail_addr}"] == milter.macros("M")[b"{mail_host}"] == b""


@pytest.mark.parametrize("ip, connect", [
    ("2001:db8::7", b"[IPv6:2001:db8::7]\x006\x04\xd22001:db8::7\0"),
    ("::ffff:192.0.2.7", b"[192.0.2.7]\x004\x04\xd2192.0.2.7\0"),
    ("nonsense", b"[nonsense]\0U"),
])
def test_addresses_of_clients(sanitized, stand_in, ip, connect):
    milter = stand_in()
    assert accepted(run(sanitized, milter.name, client={"ip": ip, "port": 1234, "tls": None})) is None
    assert milter.data("C") == [connect]


@pytest.mark.parametrize("client, macros", [
    ({"verified": False}, {b"{verify}": b"NO"}),
    ({"verified": True, "cn": "alice"}, {b"{verify}": b"OK", b"{cert_subject}": b"alice"}),
    ({"cipher": None, "verified": False}, {b"{verify}": b"NO", b"{cipher}": None})])
def test_macros_of_tls(sanitized, stand_in, client, macros):
    """As far as it is known: a proxy that has ended it may not tell all."""
    milter = stand_in()
    tls = {"version": "TLSv1.3", "cipher": "AES", **client}
    assert accepted(run(sanitized, milter.name, client={"ip": "192.0.2.7", "port": 1, "tls": tls})) is None
    wanted = {b"{tls_version}": b"TLSv1.3", b"{cipher}": b"AES", **macros}
    assert milter.macros("H") == {name: value for name, value in wanted.items() if value}


def test_macros(sanitized, stand_in):
    tls = {"version": "TLSv1.2", "cipher": "TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256", "verified": False}
    milter = stand_in()
    fields = {"client": {"ip": "2001:db8::7", "port": 1234, "tls": tls}, "auth": "alice", "transaction": "01SESSION"}
    env = {"MILTER_MACROS": "daemon_name=ORIGINATING {own}=a=b\tz= rcpt_mailer=esmtp"}
    assert accepted(run(sanitized, milter.name, env=env, **fields)) is None
    name = b"[IPv6:2001:db8::7]"
    assert milter.macros("C") == {
        b"j": HOST.encode(), b"_": name, b"v": b"smtpwarp", b"{daemon_name}": b"ORIGINATING", b"z": b"",
        b"{own}": b"a=b",
        b"{client_addr}": b"IPv6:2001:db8::7", b"{client_port}": b"1234", b"{client_name}": name, b"{client_ptr}": name,
        b"{rcpt_mailer}": b"esmtp"}
    assert milter.macros("H") == {b"{tls_version}": b"TLSv1.2", b"{cipher}": tls["cipher"].encode(), b"{verify}": b"NO"}
    assert milter.macros("M") == {
        b"i": b"01SESSION", b"{auth_authen}": b"alice", b"{auth_type}": b"PLAIN", b"{mail_mailer}": b"smtp",
        b"{mail_addr}": b"alice@client.example", b"{mail_host}": b"client.example"}
    assert milter.macros("R") == {
        b"{rcpt_addr}": b"carol@mail.example", b"{rcpt_host}": b"mail.example", b"{rcpt_mailer}": b"esmtp"}
    assert milter.macros("T") == milter.macros("N") == milter.macros("E") == {b"i": b"01SESSION"}


def test_macros_that_the_milter_asks_for(sanitized, stand_in):
    lists = b"".join(struct.pack(">I", stage) + names + b"\0" for stage, names in
                     [(0, b"j, {client_addr} nonesuch"), (3, b""), (5, b"i {rcpt_addr}"), (77, b"j")])
    milter = stand_in(negotiation=negotiated(rest=lists))
    assert accepted(run(sanitized, milter.name)) is None
    assert milter.macros("C") == {b"j": HOST.encode(), b"{client_addr}": b"10.0.0.1"}
    assert milter.macros("E") == {b"i": hooks.sample("data")["transaction"].encode(), b"{rcpt_addr}": b"carol@mail.example"}
    assert not [content for content in milter.data("D") if content[:1] in b"R"]
    assert milter.macros("M")[b"{mail_addr}"] == b"alice@client.example"


HOSTILE = "-a\"'`$(touch x);\0\r\n\t\x7f\ufffd\u00e9%s%n@b"


def test_hostile_envelope(sanitized, stand_in):
    """Nothing in a name or address ends a string of the protocol, or adds one."""
    milter = stand_in()
    clean = HOSTILE.translate({code: "?" for code in (0, 9, 10, 13, 127)}).encode()
    outcome = run(sanitized, milter.name, helo=HOSTILE, auth=HOSTILE, mail_from={"address": HOSTILE, "params": {}},
                  rcpt_to=[{"address": HOSTILE, "params": {"ORCPT": HOSTILE, "X\n": True}}])
    assert accepted(outcome) is None
    assert milter.data("H") == [clean + b"\0"]
    assert milter.data("M") == [strings(b"<" + clean + b">")]
    assert milter.data("R") == [strings(b"<" + clean + b">", b"ORCPT=" + clean, b"X?")]
    assert milter.macros("M")[b"{auth_authen}"] == clean


def test_many_recipients(sanitized, stand_in):
    milter = stand_in()
    recipients = [{"address": f"user{number}@mail.example", "params": {}} for number in range(1000)]
    assert accepted(run(sanitized, milter.name, rcpt_to=recipients)) is None
    assert milter.data("R") == [strings(b"<user%d@mail.example>" % number) for number in range(1000)]


@pytest.mark.parametrize("fields, message, why", [
    ({"helo": "x" * 70_000}, MESSAGE, "A line of it is too long for the filter"),
    ({}, b"X: " + b"y" * 70_000 + b"\r\n\r\n", "A line of it is too long for the filter"),
    ({}, b"X:\r\n" * 10_000, "Its header has too many fields for the filter"),
], ids=["helo", "field", "fields"])
def test_what_the_protocol_cannot_carry(sanitized, stand_in, fields, message, why):
    """It would fail each time that the client tries it again."""
    assert verdict(run(sanitized, stand_in().name, message, **fields)) == [f"reject 554 5.6.0 {why}"]


# Its answers: changes. Where one is added, the whole message is compared, octet for octet.

def changes(*packets):
    return {"E": b"".join(packets) + CONTINUE}


CHANGES = {
    "append": ([packet(b"h", strings(b"New", b"v"))], HEADER + b"New: v\r\n"),
    "on top": ([indexed(b"i", 0, b"New", b"v")], b"New: v\r\n" + HEADER),
    "below the Received of a mail server": ([indexed(b"i", 1, b"New", b"v")], b"New: v\r\n" + HEADER),
    "two on top": ([indexed(b"i", 0, b"A", b"v"), indexed(b"i", 0, b"B", b"w")], b"B: w\r\nA: v\r\n" + HEADER),
    "second": ([indexed(b"i", 2, b"New", b"v")], HEADER.replace(b"Subject: a", b"New: v\r\nSubject: a")),
    "far below": ([indexed(b"i", 0xffffffff, b"New", b"v")], HEADER + b"New: v\r\n"),
    "change the first": ([indexed(b"m", 1, b"SUBJECT", b"new")], HEADER.replace(b"Subject: a", b"SUBJECT: new")),
    "0 is the first": ([indexed(b"m", 0, b"Subject", b"new")], HEADER.replace(b"Subject: a", b"Subject: new")),
    "change the third": ([indexed(b"m", 3, b"Subject", b"n")], HEADER.replace(b"Subject:  c", b"Subject: n")),
    "change one that is not there": ([indexed(b"m", 4, b"Subject", b"n")], HEADER + b"Subject: n\r\n"),
    "delete": ([indexed(b"m", 2, b"Subject", b"")], HEADER.replace(b"subject:b\r\n", b"")),
    "delete a folded one": ([indexed(b"m", 1, b"x-folded", b"")],
                            HEADER.replace(b"X-Folded: one\r\n  two\r\n\tthree\r\n", b"")),
    "delete all, first one first": ([indexed(b"m", number, b"Subject", b"") for number in (1, 2, 3)],
                                    re.sub(rb"(?i)subject:.*\r\n", b"", HEADER)),
    "delete all, last one first": ([indexed(b"m", number, b"Subject", b"") for number in (3, 2, 1)],
                                   re.sub(rb"(?i)subject:.*\r\n", b"", HEADER)),
    "folded, LF": ([packet(b"h", strings(b"New", b"one\n\ttwo\n  three"))],
                   HEADER + b"New: one\r\n\ttwo\r\n  three\r\n"),
    "folded, CRLF": ([packet(b"h", strings(b"New", b"one\r\n two\r\n"))], HEADER + b"New: one\r\n two\r\n"),
    "no new field inside": ([packet(b"h", strings(b"New", b"one\nBcc: x\n\nbody\rhere"))],
                            HEADER + b"New: one\r\n\tBcc: x\r\n\t\r\n\tbody here\r\n"),
    "8 bit": ([packet(b"h", strings(b"New", b"\xe9\xff"))], HEADER + b"New: \xe9\xff\r\n"),
    "empty": ([packet(b"h", strings(b"New", b""))], HEADER + b"New: \r\n"),
    "long": ([packet(b"h", strings(b"New", b"x" * 300_000))], HEADER + b"New: " + b"x" * 300_000 + b"\r\n"),
}


@pytest.mark.parametrize("name", CHANGES)
def test_changes_of_the_header(sanitized, stand_in, name):
    packets, header = CHANGES[name]
    assert accepted(run(sanitized, stand_in(changes(*packets)).name)) == header + b"\r\n" + BODY


def test_deleting_nothing_is_no_change(sanitized, stand_in):
    milter = stand_in(changes(indexed(b"m", 1, b"Nonesuch", b""), indexed(b"m", 4, b"Subject", b""),
                              indexed(b"m", 1, b"", b"")))
    assert accepted(run(sanitized, milter.name)) is None


def test_a_changed_field_without_leading_space(sanitized, stand_in):
    milter = stand_in(changes(indexed(b"m", 1, b"Subject", b"\tnew"), packet(b"h", strings(b"New", b" v"))),
                      negotiation=negotiated(steps=0x100000))
    assert accepted(run(sanitized, milter.name)) == \
        HEADER.replace(b"Subject: a", b"Subject:\tnew") + b"New: v\r\n\r\n" + BODY


@pytest.mark.parametrize("message, changed", [
    (b"", b"New: v\r\n"),
    (b"A: b", b"A: b\r\nNew: v\r\n"),
    (b"A: b\r\n", b"A: b\r\nNew: v\r\n"),
    (b"A: b\r\n\r\n", b"A: b\r\nNew: v\r\n\r\n"),
    (b"A: b\r\n\r\nend", b"A: b\r\nNew: v\r\n\r\nend\r\n"),
    (b"A: b\r\nno field\r\n", b"A: b\r\nNew: v\r\n\r\nno field\r\n"),
    (b"no field\r\n", b"New: v\r\n\r\nno field\r\n"),
    (b"From a\r\nA: b\r\n\r\n", b"From a\r\nA: b\r\nNew: v\r\n\r\n"),
    (b">From a\r\nno field\r\n", b">From a\r\nNew: v\r\n\r\nno field\r\n"),
    (b"\r\n\r\n", b"New: v\r\n\r\n\r\n"),
    (b"A: \0\xff\r\n\r\n\0\xff\r", b"A: \0\xff\r\nNew: v\r\n\r\n\0\xff\r\r\n"),
])
def test_odd_messages_changed(sanitized, stand_in, message, changed):
    milter = stand_in(changes(packet(b"h", strings(b"New", b"v"))))
    assert accepted(run(sanitized, milter.name, message)) == changed


@pytest.mark.parametrize("chunks", [[b""], [b"new\r\n"], [b"a\0\r", b"\n.\r\n", b"", b"\xff"],
                                    [bytes(range(256)) * 255] * 40])
def test_a_new_body(sanitized, stand_in, chunks):
    milter = stand_in(changes(*(packet(b"b", chunk) for chunk in chunks)))
    assert accepted(run(sanitized, milter.name)) == HEADER + b"\r\n" + b"".join(chunks)
    milter = stand_in(changes(*(packet(b"b", chunk) for chunk in chunks)))
    wanted = b"A: b\r\n" + (b"\r\n" if any(chunks) else b"") + b"".join(chunks)
    assert accepted(run(sanitized, milter.name, b"A: b\r\n")) == wanted


def test_accept_at_the_end_keeps_the_changes(sanitized, stand_in):
    milter = stand_in({"E": packet(b"h", strings(b"New", b"v")) + packet(b"a")})
    assert accepted(run(sanitized, milter.name)) == HEADER + b"New: v\r\n\r\n" + BODY


# Its answers: refusals

STEPS = "CHMTLNBE"


@pytest.mark.parametrize("step", STEPS)
@pytest.mark.parametrize("reply, wanted", [
    (packet(b"r"), "reject 550 5.7.1 Refused by the filter"),
    (packet(b"t"), "defer 451 4.7.1 The filter asks to try again later"),
    (packet(b"d"), "discard"),
    (packet(b"a"), None),
    (packet(b"4"), "close 4.7.0 The filter ends the session"),
    (packet(b"f"), "close 4.7.0 The filter ends the session"),
    (packet(b"y", b"554 5.6.0 no\0"), "reject 554 5.6.0 no"),
])
def test_refusals_at_each_step(sanitized, stand_in, step, reply, wanted):
    milter = stand_in({step: reply})
    assert verdict(run(sanitized, milter.name)) == ([wanted] if wanted else [])
    milter.close()
    assert milter.got[-1][0] == "Q"
    assert milter.got[-2][0] == ("E" if step == "E" else step if step in "CH" else "A")


@pytest.mark.parametrize("text, wanted", [
    (b"550 5.1.1 unknown", "reject 550 5.1.1 unknown"),
    (b"450 4.2.0 greylisted", "defer 450 4.2.0 greylisted"),
    (b"421 4.3.2 go away", "close 4.3.2 go away"),
    (b"550 unknown", "reject 550 5.7.1 unknown"),
    (b"550 5.7.1", "reject 550 5.7.1 Refused by the filter"),
    (b"451\r\n", "defer 451 4.7.1 The filter asks to try again later"),
    (b"550-5.7.1 one\r\n550-5.7.1 two\r\n550 5.7.1 three\r\n", "reject 550 5.7.1 one two three"),
    (b"550-one\n550-\n550 three", "reject 550 5.7.1 one three"),
    (b"550 5.7.1 100%% sure, 5% not", "reject 550 5.7.1 100% sure, 5% not"),
    (b"550 5.7.1 caf\xc3\xa9\t\x07", "reject 550 5.7.1 caf????"),
    (b"599 5.7.1 code", "reject 550 5.7.1 code"),
    (b"550 4.7.1 class", "reject 550 5.7.1 4.7.1 class"),
    (b"550 5.1234.1 number", "reject 550 5.7.1 5.1234.1 number"),
    (b"550 5.7.1\r\n550 5.7.1 250 2.0.0 queued", "reject 550 5.7.1 250 2.0.0 queued"),
    (b"550 5.7.1 " + b"long " * 1000, "reject 550 5.7.1 " + "long " * 80),
])
def test_reply_texts(sanitized, stand_in, text, wanted):
    """PROTOCOL 10"""
    assert verdict(run(sanitized, stand_in({"E": packet(b"y", text + b"\0")}).name)) == [wanted]


def test_refused_recipients(sanitized, stand_in):
    """One that is refused refuses the message, whatever becomes of the others."""
    no, later, ok = packet(b"y", b"550 5.1.1 no such user\0"), packet(b"t"), CONTINUE
    for replies, wanted in [
            ([no, ok], "reject 550 5.1.1 no such user (bob@mail.example)"),
            ([ok, no], "reject 550 5.1.1 no such user (carol@mail.example)"),
            ([later, no], "reject 550 5.1.1 no such user (carol@mail.example)"),
            ([no, later], "reject 550 5.1.1 no such user (bob@mail.example)"),
            ([ok, later], "defer 451 4.7.1 The filter asks to try again later (carol@mail.example)"),
            ([no, no], "reject 550 5.1.1 no such user (bob@mail.example)"),
            ([no, packet(b"a")], "reject 550 5.1.1 no such user (bob@mail.example)"),
            ([no, packet(b"d")], "discard")]:
        milter = stand_in({"R": replies})
        assert verdict(run(sanitized, milter.name)) == [wanted]
        milter.close()
        assert [code for code, _ in milter.got[-3:]] == ["R", "A", "Q"]
        assert len(milter.data("R")) == 2


def test_names_of_refused_recipients(sanitized, stand_in):
    milter = stand_in({"R": packet(b"y", b"550 5.1.1 no such user\0")})
    hostile = {"address": HOSTILE, "params": {}}
    assert verdict(run(sanitized, milter.name, rcpt_to=[hostile])) == ["reject 550 5.1.1 no such user"]
    clean = "".join(c if " " <= c < "\x7f" else "?" * len(c.encode()) if c > "\x7f" else "?" for c in HOSTILE)
    milter = stand_in({"R": packet(b"y", b"550 5.1.1 no such user\0")})
    assert verdict(run(sanitized, milter.name, rcpt_to=[hostile, hostile])) == \
        [f"reject 550 5.1.1 no such user ({clean})"]


def test_quarantine_is_a_refusal(sanitized, stand_in):
    milter = stand_in(changes(packet(b"q", b"looks bad\r\nreject 250 x\0"), packet(b"q", b"again\0"),
                              packet(b"h", strings(b"New", b"v"))))
    log, refusal = verdict(run(sanitized, milter.name))
    assert log == "log milter_quarantine looks bad??reject 250 x"
    assert refusal.startswith("reject 550 5.7.1 ")
    milter = stand_in({"E": packet(b"q", b"bad\0") + packet(b"d")})
    assert verdict(run(sanitized, milter.name)) == ["log milter_quarantine bad", "discard"]


@pytest.mark.parametrize("change, what", [
    (packet(b"+", b"<x@y.example>\0"), "adds a recipient"),
    (packet(b"2", b"<x@y.example>\0NOTIFY=NEVER\0"), "adds a recipient"),
    (packet(b"-", b"<bob@mail.example>\0"), "removes a recipient"),
    (packet(b"e", b"<x@y.example>\0"), "changes the sender"),
])
def test_changes_of_the_envelope_are_failures(sanitized, stand_in, change, what):
    assert what in failure(run(sanitized, stand_in(changes(packet(b"h", strings(b"New", b"v")), change)).name))


def test_progress_is_waited_for(sanitized, stand_in):
    def slow(connection):
        for _ in range(11):
            time.sleep(0.3)
            connection.sendall(packet(b"p"))
        connection.sendall(packet(b"r"))
        return True
    outcome = run(sanitized, stand_in({"E": slow}).name, env={"MILTER_TIMEOUT": "3"})
    assert verdict(outcome) == ["reject 550 5.7.1 Refused by the filter"]


# Rude answers

def drip(connection):
    """Never nothing for a second, never a reply."""
    for byte in b"\0\0\0\x20yyyyyyyyyyyyy":
        connection.sendall(bytes([byte]))
        time.sleep(0.3)
    return False


def silence(connection):
    connection.settimeout(10)
    return connection.recv(1) == b"-"       # until the hook has left


def endless(connection):
    while True:
        connection.sendall(packet(b"b", b"x" * 65535))


RUDE = {
    "length 0": ("H", struct.pack(">I", 0) + b"cccc", "reply of 0 octets"),
    "length of 4 GB": ("H", struct.pack(">I", 0xffffffff) + b"c", "reply of 4294967295 octets"),
    "length beyond all": ("H", struct.pack(">I", 0x100002) + b"c" * 0x100002, "reply of 1048578 octets"),
    "half a length": ("H", lambda connection: connection.sendall(b"\0\0"), "closed"),
    "half a reply": ("H", lambda connection: connection.sendall(b"\0\0\0\x10yabc"), "closed"),
    "no reply": ("H", silence, "does not answer in 1 s"),
    "a reply in drops": ("H", drip, "does not answer in 1 s"),
    "closed at once": ("O", lambda connection: False, "closed"),
    "closed after negotiation": ("C", lambda connection: False, "closed"),
    "closed in the body": ("B", lambda connection: False, "closed"),
    "closed at the end": ("E", lambda connection: False, "closed"),
    "unknown reply": ("H", packet(b"Z"), r"answered H with reply Z \(0x5a\) of 0 octets"),
    "unprintable reply": ("H", packet(b"\0"), r"answered H with reply \? \(0x00\)"),
    "8-bit reply": ("H", packet(b"\xff", b"\n\n"), r"answered H with reply \? \(0xff\) of 2 octets"),
    "a change before the end": ("L", packet(b"h", strings(b"A", b"b")), "answered L with reply h"),
    "SKIP for a recipient": ("R", packet(b"s"), "answered R with reply s"),
    "SKIP at the end": ("E", packet(b"s"), "answered E with reply s"),
    "negotiation again": ("E", negotiated(), "answered E with reply O"),
    "two replies": ("H", CONTINUE + CONTINUE, "out of turn"),
    "two replies to the end": ("E", CONTINUE + packet(b"r"), "out of turn"),
    "two replies to a field": ("L", CONTINUE + CONTINUE, "out of turn"),
    "no text": ("H", packet(b"y"), "answered H with reply y"),
    "text without NUL": ("H", packet(b"y", b"550 5.7.1 x"), "answered H with reply y"),
    "text with NUL": ("H", packet(b"y", b"550 5.7.1 x\0y\0"), "answered H with reply y"),
    "text of 250": ("H", packet(b"y", b"250 2.0.0 fine\0"), "answered H with reply y"),
    "text of 2 digits": ("H", packet(b"y", b"55\0"), "answered H with reply y"),
    "text of 4 digits": ("H", packet(b"y", b"5501 x\0"), "answered H with reply y"),
    "empty text": ("H", packet(b"y", b"\0"), "answered H with reply y"),
    "added without data": ("E", packet(b"h"), "answered E with reply h"),
    "added without value": ("E", packet(b"h", b"A\0"), "answered E with reply h"),
    "added without NUL": ("E", packet(b"h", b"A\0b"), "answered E with reply h"),
    "added with more": ("E", packet(b"h", b"A\0b\0c\0"), "answered E with reply h"),
    "added without name": ("E", packet(b"h", b"\0b\0"), "name that is none"),
    "name with colon": ("E", packet(b"h", b"A: b\r\nC\0d\0"), "name that is none"),
    "name with blank": ("E", packet(b"h", b"A B\0d\0"), "name that is none"),
    "name with blank behind": ("E", packet(b"h", b"A \0d\0"), "name that is none"),
    "name with newline": ("E", packet(b"h", b"A\nB\0d\0"), "name that is none"),
    "name of 8 bits": ("E", packet(b"h", b"\xe9\0d\0"), "name that is none"),
    "changed to a name that is none": ("E", indexed(b"m", 9, b"A:", b"b"), "name that is none"),
    "half an index": ("E", packet(b"m", b"\0\0"), "answered E with reply m"),
    "index alone": ("E", packet(b"i", b"\0\0\0\0"), "answered E with reply i"),
    "too many fields": ("E", packet(b"h", strings(b"A", b"")) * 10_000, "more than 9999 fields"),
    "too long a header": ("E", packet(b"h", strings(b"A", b"\n" * 1_000_000 + b"x")) * 5, "adds more than"),
    "too long a body": ("E", packet(b"b", b"x" * 1_000_000) * 18, "a body of more than"),
    "a body without end": ("E", endless, "a body of more than"),
    "negotiation refused": ("O", packet(b"r"), "refuses negotiation"),
    "negotiation too short": ("O", packet(b"O", b"\0\0\0\6\0\0\0\0\0\0\0"), "refuses negotiation"),
    "version 7": ("O", negotiated(version=7), "version 7"),
    "version 1": ("O", negotiated(version=1), "version 1"),
    "actions not offered": ("O", negotiated(actions=0x200), "not offered: actions 0x200"),
    "protocol not offered": ("O", negotiated(steps=0x10000000), "not offered.*protocol 0x10000000"),
    "half a list of macros": ("O", negotiated(rest=b"\0\0\0\0j"), "half a list"),
    "half a stage": ("O", negotiated(rest=b"\0\0"), "half a list"),
}


@pytest.mark.parametrize("name", RUDE)
def test_rude_answers(sanitized, stand_in, name):
    step, reply, error = RUDE[name]
    outcome = run(sanitized, stand_in({step: reply}).name, env={"MILTER_TIMEOUT": "1"} if "in 1 s" in error else {})
    assert re.search(error, failure(outcome)), outcome.error
    assert outcome.lines == []


@pytest.mark.parametrize("actions, change", [
    (0x1fe, packet(b"h", strings(b"A", b"b"))), (0x1fe, indexed(b"i", 0, b"A", b"b")),
    (0x1ef, indexed(b"m", 1, b"Subject", b"")), (0x1fd, packet(b"b", b"x")), (0x1df, packet(b"q", b"x\0")),
])
def test_changes_that_were_not_negotiated(sanitized, stand_in, actions, change):
    milter = stand_in(changes(change), negotiation=negotiated(actions=actions))
    assert "did not ask for" in failure(run(sanitized, milter.name))


def test_a_milter_that_does_not_read(sanitized, stand_in):
    over = threading.Event()
    milter = stand_in({"O": lambda connection: connection.sendall(negotiated(steps=QUIET)) or not over.wait(60)})
    outcome = run(sanitized, milter.name, b"A: b\r\n\r\n" + b"x" * 10_000_000, env={"MILTER_TIMEOUT": "1"})
    over.set()
    assert "does not read in 1 s" in failure(outcome)


@pytest.mark.parametrize("seed", range(8))
def test_noise(sanitized, stand_in, seed):
    """Replies with octets changed, cut and repeated: a verdict or a failure, never a crash."""
    rng = random.Random(seed)
    seeds = [packet(b"h", strings(b"A", b"b\n c")), indexed(b"m", 1, b"Subject", b"x"), indexed(b"i", 1, b"A", b"b"),
             packet(b"y", b"550-5.7.1 one\r\n550 5.7.1 two\0"), packet(b"b", b"body\r\n"), packet(b"q", b"why\0"),
             negotiated(rest=b"\0\0\0\0j {client_addr}\0"), indexed(b"m", 2, b"A", b""), CONTINUE, packet(b"p"),
             packet(b"t")]

    def noise():
        octets = bytearray(b"".join(rng.choices(seeds, k=rng.randrange(1, 6))))
        for _ in range(rng.randrange(6)):
            octets[rng.randrange(len(octets))] = rng.choice((0, 1, 10, 13, 37, 53, 255, rng.randrange(256)))
        return bytes(octets[:rng.randrange(len(octets) + 1)] if rng.random() < 0.2 else octets)

    def answer(connection):
        connection.sendall(noise() + (CONTINUE if rng.random() < 0.7 else b""))
        return rng.random() < 0.5

    for _ in range(15):
        milter = stand_in({rng.choice("OCHMRTLNBE" + "EEEEE"): answer})
        outcome = run(sanitized, milter.name, env={"MILTER_TIMEOUT": "1"})
        if outcome.status:
            failure(outcome)
        else:
            assert outcome.error == ""
        milter.close()


# Settings and places

@pytest.mark.parametrize("env, error", [
    ({"MILTER_SOCKET": ""}, "MILTER_SOCKET must say"),
    ({"MILTER_SOCKET": "/run/milter"}, "MILTER_SOCKET must be"),
    ({"MILTER_SOCKET": "tcp:25@localhost"}, "MILTER_SOCKET must be"),
    ({"MILTER_SOCKET": "unix:"}, "no path"),
    ({"MILTER_SOCKET": "unix:/" + "x" * 200}, "too long"),
    ({"MILTER_SOCKET": "inet:localhost:25"}, "must be inet:PORT@HOST"),
    ({"MILTER_SOCKET": "inet:25@"}, "must be inet:PORT@HOST"),
    ({"MILTER_SOCKET": "inet:0@localhost"}, "must be inet:PORT@HOST"),
    ({"MILTER_SOCKET": "inet:65536@localhost"}, "must be inet:PORT@HOST"),
    ({"MILTER_SOCKET": "inet:0000025@localhost"}, "must be inet:PORT@HOST"),
    ({"MILTER_SOCKET": "inet6:x@localhost"}, "must be inet:PORT@HOST"),
    ({"MILTER_TIMEOUT": "0"}, "MILTER_TIMEOUT"),
    ({"MILTER_TIMEOUT": "3601"}, "MILTER_TIMEOUT"),
    ({"MILTER_TIMEOUT": "5s"}, "MILTER_TIMEOUT"),
    ({"MILTER_TIMEOUT": "x"}, "MILTER_TIMEOUT"),
    ({"MILTER_MACROS": "daemon_name"}, "MILTER_MACROS must be"),
    ({"MILTER_MACROS": "a=b =c"}, "MILTER_MACROS must be"),
    ({"MILTER_MACROS": "{}=c"}, "MILTER_MACROS must be"),
    ({"MILTER_MACROS": "x" * 300 + "=c"}, "MILTER_MACROS must be"),
    ({"MILTER_MACROS": " ".join(f"x{number}=y" for number in range(70))}, "too many macros"),
])
def test_settings_that_are_wrong(sanitized, env, error):
    assert error in failure(run(sanitized, "unix:/nonexistent/milter", env=env), 78)


@pytest.mark.parametrize("place, address", [("inet:8891@127.0.0.1", "127.0.0.1"), ("inet:8891@localhost", "127.0.0.1"),
                                            ("inet6:8891@::1", "::1"), ("inet6:8891@::ffff:127.0.0.1", "127.0.0.1")])
def test_places_of_the_net(sanitized, host, stand_in, place, address):
    milter = stand_in(address=address)
    assert accepted(run(sanitized, place)) is None
    milter.close()
    assert milter.got[-1] == ("Q", b"")


def test_places_of_the_file_system(sanitized, stand_in):
    milter = stand_in()
    assert accepted(run(sanitized, milter.name.replace("unix:", "local:"))) is None
    milter.close()
    assert milter.got[-1] == ("Q", b"")


def test_a_milter_with_its_hands_full(sanitized, tmp_path):
    """Its queue of connections is full; one of them goes away while the hook waits."""
    with socket.socket(socket.AF_UNIX) as listener, socket.socket(socket.AF_UNIX) as waiting:
        listener.bind(str(tmp_path / "full"))
        listener.listen(0)
        waiting.connect(str(tmp_path / "full"))
        accepting = threading.Timer(0.5, lambda: listener.accept()[0].close() or listener.accept()[0].close())
        accepting.start()
        assert re.search("closed the connection|reset by peer|Broken pipe", failure(run(sanitized, f"unix:{tmp_path}/full")))
        accepting.join()


def test_milters_that_are_not_there(sanitized, host, tmp_path):
    for place in "unix:/nonexistent/milter", "inet:9@127.0.0.1", "inet6:9@::1", "inet6:9@127.0.0.1", "inet:9@nonesuch.":
        assert f"no milter at {place}: " in failure(run(sanitized, place))
    with socket.socket(socket.AF_UNIX) as full:      # nobody accepts, and there is no more room to wait
        full.bind(str(tmp_path / "full"))
        full.listen(0)
        with socket.socket(socket.AF_UNIX) as waiting:
            waiting.connect(str(tmp_path / "full"))
            assert "unavailable" in failure(run(sanitized, f"unix:{tmp_path}/full", env={"MILTER_TIMEOUT": "1"}))


@pytest.mark.parametrize("line", [b"", b"nonsense\n", b"[]\n", b"{}\n", b'{"mail_from":null,"rcpt_to":[]}\n',
                                  b'{"mail_from":{},"rcpt_to":[{}]}\n', b'{"mail_from":{},"rcpt_to":[1]}\n'])
def test_lines_that_are_none(sanitized, stand_in, line):
    done = hooks.by_hand(sanitized, line, MESSAGE, {"MILTER_SOCKET": stand_in().name, **SANITIZE})
    assert done.returncode == 65 and done.stdout == b""
    assert re.fullmatch(rb"milter: [ -~]+\n", done.stderr)


def test_no_message(sanitized, stand_in):
    done = hooks.by_hand(sanitized, hooks.sample("data"), None, {"MILTER_SOCKET": stand_in().name, **SANITIZE})
    assert done.returncode == 66
    assert re.fullmatch(rb"milter: no message on descriptor 3: [ -~]+\n", done.stderr)


# Milters that libmilter serves: what one of them sees, and what it changes when it is told to

LIBMILTER = r"""
import json, sys, Milter

def change(milter, name, *arguments):
    getattr(milter, name)(*(a.encode("latin-1") if name == "replacebody" else a for a in arguments))

class Plain(Milter.Base):
    def connect(self, host, family, address):
        self.seen = {"connect": [host, *address], "addr": self.getsymval("{client_addr}"), "fields": [], "to": []}
        self.body_octets = b""
        self.orders = []
        return Milter.CONTINUE
    def hello(self, name):
        self.seen["helo"] = name
        return Milter.CONTINUE
    def envfrom(self, address, *parameters):
        self.seen["from"] = [address, *parameters]
        self.seen["i"] = self.getsymval("i")
        return Milter.DISCARD if address == "<discard@client.example>" else Milter.CONTINUE
    def envrcpt(self, address, *parameters):
        self.seen["to"].append([address, *parameters, self.getsymval("{rcpt_addr}")])
        if address.startswith("<refused"):
            self.setreply("550", "5.1.1", "no such user", "here: 100%%")
            return Milter.REJECT
        return Milter.TEMPFAIL if address.startswith("<later") else Milter.CONTINUE
    @Milter.decode("bytes")
    def header(self, name, value):
        self.seen["fields"].append([name, value.decode("latin-1")])
        if name == "X-Order":
            self.orders.append(json.loads(value))
        return Milter.CONTINUE
    def eoh(self):
        return Milter.CONTINUE
    def body(self, chunk):
        self.body_octets += chunk
        return Milter.SKIP if ["skip"] in self.orders else Milter.CONTINUE
    def eom(self):
        self.seen["body"] = self.body_octets.decode("latin-1")
        with open(sys.argv[3], "w") as file:
            json.dump(self.seen, file)
        result = Milter.CONTINUE
        for name, *arguments in self.orders:
            if name == "result":
                result = getattr(Milter, arguments[0])
            elif name != "skip":
                change(self, name, *arguments)
        return result

@Milter.header_leading_space
class Quiet(Plain):
    connect = Milter.noreply(Plain.connect)
    hello = Milter.noreply(Plain.hello)
    envfrom = Milter.noreply(Plain.envfrom)
    header = Milter.noreply(Plain.header)
    eoh = Milter.noreply(Plain.eoh)
    def negotiate(self, options):
        self._ctx.setsymlist(Milter.M_ENVRCPT, "i {rcpt_addr}")     # Base.setsymlist fails in Python 3
        return Plain.negotiate(self, options)

Milter.factory = globals()[sys.argv[1]]
Milter.set_flags(Milter.ADDHDRS | Milter.CHGHDRS | Milter.CHGBODY | Milter.QUARANTINE | Milter.ADDRCPT |
                 Milter.SETSYMLIST)
Milter.runmilter("test", "local:" + sys.argv[2], 60)
"""


class Daemon:
    """A milter in a process of its own, in a directory that Postfix may enter."""

    def __init__(self, directory, name, command):
        self.path = pathlib.Path(directory) / name
        self.socket = f"unix:{self.path}"
        with open(f"{self.path}.log", "wb") as log:
            self.process = subprocess.Popen([*mta.DIE_WITH_PARENT, *command], stdin=subprocess.DEVNULL, stdout=log,
                                            stderr=log)
        wait_until(self._listens, lambda: f"{name} does not start: {pathlib.Path(log.name).read_text()}")

    def _listens(self):
        with socket.socket(socket.AF_UNIX) as probe:
            return probe.connect_ex(str(self.path)) == 0

    def stop(self):
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()


@pytest.fixture(scope="module")
def milters():
    """A directory, and what starts a milter there."""
    directory = pathlib.Path(tempfile.mkdtemp(prefix="milter-"))
    directory.chmod(0o711)
    with contextlib.ExitStack() as closing:
        closing.callback(shutil.rmtree, directory)

        def start_milter(name, *command):
            daemon = Daemon(directory, name, command)
            closing.callback(daemon.stop)
            return daemon
        start_milter.directory = directory
        yield start_milter


class Libmilter:
    """name: of its socket, which no other may have: libmilter would put its own in the place of that while a test uses it."""
    def __init__(self, milters, variant, name):
        script, self.seen_path = milters.directory / f"{name}.py", milters.directory / f"{name}.json"
        script.write_text(LIBMILTER)
        arguments = variant, milters.directory / name, self.seen_path
        self.socket = milters(name, "/usr/bin/python3", "-B", script, *arguments).socket

    def seen(self):
        text = self.seen_path.read_text()
        self.seen_path.unlink()
        return json.loads(text)


@pytest.fixture(scope="module", params=["Plain", "Quiet"])
def libmilter(milters, request):
    return Libmilter(milters, request.param, request.param)


@pytest.fixture(scope="module")
def plain_libmilter(milters):
    return Libmilter(milters, "Plain", "OnTheWay")


def ordered(*orders, message=MESSAGE):
    """A message that tells the milter what to do with it."""
    return b"".join(b"X-Order: %s\r\n" % json.dumps(order).encode() for order in orders) + message


def test_what_libmilter_sees(sanitized, libmilter):
    message = b"A: one\r\n  two\xff\r\nB:\tthree\r\nC:  four\r\n\r\n.body\0\xff\r\n" + b"line\r\n" * 40_000
    assert accepted(run(sanitized, libmilter.socket, message)) is None
    seen = libmilter.seen()
    header, body = message.decode("latin-1").split("\r\n\r\n", 1)
    space = "" if libmilter.socket.endswith("Plain") else " "
    assert seen == {
        "connect": ["[10.0.0.1]", "10.0.0.1", 56456], "addr": "10.0.0.1", "helo": "client.example",
        "from": ["<alice@client.example>", "SIZE=512"], "i": hooks.sample("data")["transaction"],
        "to": [["<bob@mail.example>", "bob@mail.example"],
               ["<carol@mail.example>", "NOTIFY=SUCCESS", "carol@mail.example"]],
        "fields": [["A", space + "one\n  two\xff"], ["B", "\tthree"], ["C", space + " four"]], "body": body}


def test_libmilter_changes(sanitized, libmilter):
    message = ordered(["chgheader", "Subject", 1, "changed"], ["chgheader", "subject", 3, ""], ["progress"],
                      ["addheader", "End", "e"], ["addheader", "Top", "long\n\tfolded", 0],
                      ["replacebody", "new\r\n\xff"])
    header = message.split(b"\r\n\r\n")[0] + b"\r\n"
    header = header.replace(b"Subject: a", b"Subject:changed").replace(b"Subject:  c\r\n", b"")
    wanted = b"Top:long\r\n\tfolded\r\n" + header + b"End:e\r\n\r\nnew\r\n\xff"
    if libmilter.socket.endswith("Plain"):      # the space is understood
        wanted = re.sub(rb"(?m)^(Top|Subject|End):(?=[lce])", rb"\1: ", wanted)
    assert accepted(run(sanitized, libmilter.socket, message)) == wanted


def test_libmilter_skips_the_body(sanitized, libmilter):
    """What it changes goes through although it did not see all."""
    message = ordered(["skip"], ["addheader", "Top", "t", 0], message=b"\r\n" + b"x" * 1_000_000)
    space = b" " if libmilter.socket.endswith("Plain") else b""
    assert accepted(run(sanitized, libmilter.socket, message)) == b"Top:" + space + b"t\r\n" + message + b"\r\n"
    assert len(libmilter.seen()["body"]) == 65535


@pytest.mark.parametrize("orders, wanted", [
    ([["result", "REJECT"]], ["reject 550 5.7.1 Refused by the filter"]),
    ([["result", "TEMPFAIL"]], ["defer 451 4.7.1 The filter asks to try again later"]),
    ([["result", "DISCARD"]], ["discard"]),
    ([["result", "ACCEPT"]], []),
    ([["setreply", "554", "5.6.1", "one 5%%", "two"], ["result", "REJECT"]], ["reject 554 5.6.1 one 5% two"]),
    ([["setreply", "452", "4.2.2", "full"], ["result", "TEMPFAIL"]], ["defer 452 4.2.2 full"]),
    ([["setreply", "421", "4.3.2", "bye"], ["result", "TEMPFAIL"]], ["close 4.3.2 bye"]),
    ([["quarantine", "odd"]], ["log milter_quarantine odd",
                               "reject 550 5.7.1 The filter wants this message held, which is not done here"]),
])
def test_libmilter_refuses(sanitized, libmilter, orders, wanted):
    assert verdict(run(sanitized, libmilter.socket, ordered(*orders))) == wanted


def test_libmilter_refuses_a_recipient(sanitized, libmilter):
    recipients = [{"address": name + "@mail.example", "params": {}} for name in ("later", "fine", "refused", "later")]
    assert verdict(run(sanitized, libmilter.socket, rcpt_to=recipients)) == \
        ["reject 550 5.1.1 no such user here: 100% (refused@mail.example)"]


def test_libmilter_adds_a_recipient(sanitized, libmilter):
    assert "adds a recipient" in failure(run(sanitized, libmilter.socket, ordered(["addrcpt", "<x@y.example>"])))


# OpenDKIM, by hand

DOMAIN, SELECTOR = "client.example", "sel"
CANONICALIZATIONS = "simple/simple", "relaxed/relaxed", "relaxed/simple", "simple/relaxed"

SIGN = """
Mode s
Domain {domain}
Selector {selector}
KeyFile {directory}/{selector}.private
Canonicalization {canonicalization}
InternalHosts 0.0.0.0/0
OversignHeaders From
"""
VERIFY = """
Mode v
TestDNSData {directory}/dns
AuthservID verifier.example
AlwaysAddARHeader yes
On-BadSignature {bad}
"""
COMMON = """
Socket local:{directory}/{name}
UMask 000
Background no
Syslog no
RequireSafeKeys no
"""


class OpenDKIM:
    """Sockets of signers, by canonicalization, of a verifier that only says what it thinks, and one that refuses. All
    run from the start: what starts in a test's namespace ends with it."""

    def __init__(self, milters):
        self.milters, self.directory = milters, milters.directory
        subprocess.run(["opendkim-genkey", "-b", "2048", "-d", DOMAIN, "-s", SELECTOR, "-D", self.directory],
                       check=True)
        record = "".join(re.findall('"(.*?)"', (self.directory / f"{SELECTOR}.txt").read_text()))
        (self.directory / "dns").write_text(f"{SELECTOR}._domainkey.{DOMAIN} {record}\n")
        self.signers = {form: self._start("sign-" + form.replace("/", "-"), SIGN, canonicalization=form)
                        for form in CANONICALIZATIONS}
        self.verifier = self._start("verify", VERIFY, bad="accept")
        self.strict = self._start("strict", VERIFY, bad="reject")

    def _start(self, name, template, **values):
        config = self.directory / f"{name}.conf"
        config.write_text((template + COMMON).format(directory=self.directory, name=name, domain=DOMAIN,
                                                     selector=SELECTOR, **values))
        return self.milters(name, "opendkim", "-f", "-x", config).socket


@pytest.fixture(scope="module")
def opendkim(milters):
    return OpenDKIM(milters)


FROM = b"From: Alice <alice@client.example>\r\n"
ODD = (FROM + b"To:bob@mail.example\r\nSubject:   odd\r\n\t spacing \r\n  here  \r\n"
       b"Date:\tThu, 1 Jan 2026 0:00:00 Z\r\nReceived: from a\r\n\tby b\r\nReceived: from c\r\n")

MAILS = {
    "plain": FROM + b"Subject: plain\r\n\r\nHello.\r\n",
    "dots": ODD + b"\r\n.\r\n..\r\n...x\r\n.\r\n",
    "8 bit": ODD + b"Subject: caf\xe9 \xff\r\n\r\ncaf\xe9 \x80\xff\r\n",
    "empty": ODD + b"\r\n",
    "only a header": ODD,
    "blank lines": ODD + b"\r\n\r\n\r\nx\r\n\r\n\r\n",
    "nothing but blank lines": ODD + b"\r\n\r\n\r\n\r\n",
    "trailing blanks": ODD + b"\r\nx \t\r\n y\t \r\n \r\n",
    "many lines": ODD + b"\r\n" + b"All work and no play.\r\n" * 20_000,
    "long lines": ODD + b"\r\n" + (b"x" * 990 + b"\r\n") * 200,
}


def result_of(message):
    """What the verifier has written on top."""
    return re.match(rb"(?s)Authentication-Results: verifier\.example;\r?\n?\s+dkim=(\w+)", message)[1].decode()


@pytest.mark.parametrize("canonicalization", CANONICALIZATIONS)
def test_signatures(sanitized, opendkim, canonicalization):
    """Signed and verified by hand."""
    for name, mail in [*MAILS.items(), ("no line end", ODD + b"\r\nno line end"), ("only half a header", ODD[:-2])]:
        signed = accepted(run(sanitized, opendkim.signers[canonicalization], mail))
        assert re.match(rb"DKIM-Signature: v=1; a=rsa-sha256; c=%s;" % canonicalization.encode(), signed), name
        assert signed.endswith(mail if mail.endswith(b"\n") else mail + b"\r\n"), name
        assert result_of(accepted(run(sanitized, opendkim.verifier, signed))) == "pass", name
        damaged = signed.replace(b"alice@", b"alicf@")
        assert result_of(accepted(run(sanitized, opendkim.verifier, damaged))) == "fail", name


def test_a_bad_signature_is_refused(sanitized, opendkim):
    signed = accepted(run(sanitized, opendkim.signers["simple/simple"], MAILS["plain"]))
    assert accepted(run(sanitized, opendkim.strict, signed))
    code, text = verdict(run(sanitized, opendkim.strict, signed + b"x\r\n"))[0].split(" ", 1)
    assert code == "reject" and text.startswith("550 5.7.0 ")


# Through smtpwarp

class VerifyingPostfix(mta.Postfix):
    """With a milter of its own."""

    def __init__(self, host, milter):
        super().__init__(host)
        self.SERVER = mta.Postfix.SERVER + f"smtpd_milters = {milter}\nmilter_default_action = tempfail\n"


def enabled(tmp_path, milter, **env):
    """Options and settings of a smtpwarp with the hook."""
    made = hooks.Hooks(tmp_path / "hooks")
    made.link("data", "milter")
    return made.options, {"MILTER_SOCKET": milter, **env}


def stuffed(mail):
    return re.sub(rb"(?m)^\.", b"..", mail) + b".\r\n"


def send(client, mail, sender="alice@client.example", recipient="bob@mail.example", chunk=False):
    """The reply to the message."""
    client.ask(f"MAIL FROM:<{sender}> BODY=8BITMIME", "250")
    client.ask(f"RCPT TO:<{recipient}>", "250")
    if chunk:
        client.send_raw(b"BDAT %d LAST\r\n%s" % (len(mail), mail))
    else:
        client.ask("DATA", "354")
        client.send_raw(stuffed(mail))
    return client.reply()


@pytest.mark.parametrize("canonicalization", CANONICALIZATIONS)
def test_signed_on_the_way(host, warp, opendkim, tmp_path, canonicalization):
    """OpenDKIM signs at smtpwarp; a Postfix with an OpenDKIM of its own finds every signature good."""
    options, env = enabled(tmp_path, opendkim.signers[canonicalization])
    with VerifyingPostfix(host, opendkim.verifier) as server:
        proxy = warp(*options, "--upstream", "127.0.0.1:25", env=env)
        client = proxy.greeted()
        for name, mail in MAILS.items():
            assert send(client, b"X-Case: %s\r\n%s" % (name.encode(), mail)).startswith("250"), name
        half = b"X-Case: no line end\r\n" + ODD + b"\r\nno line end"
        assert send(client, half, chunk=True).startswith("250")
        client.ask("QUIT", "221")
        server.wait_stored(len(MAILS) + 1)
        stored = {re.search(rb"X-Case: (.*)\n", mail.content)[1].decode(): mail.content for mail in server.stored()}
    assert set(stored) == {*MAILS, "no line end"}
    for name, content in stored.items():
        assert result_of(content) == "pass", (name, content[:1000])
        signature, rest = content.split(b"DKIM-Signature:", 1)[1].split(b"X-Case: ", 1)
        assert b" c=%s;" % canonicalization.encode() in signature
        mail = MAILS.get(name, ODD + b"\r\nno line end\r\n").replace(b"\r\n", b"\n")
        assert rest.removeprefix(name.encode() + b"\n") in (mail, mail + b"\n"), name


def test_without_the_hook_nothing_is_signed(host, warp, opendkim):
    """What the far side says is not always `pass`."""
    with VerifyingPostfix(host, opendkim.verifier) as server:
        client = warp("--upstream", "127.0.0.1:25").greeted()
        assert send(client, MAILS["plain"]).startswith("250")
        client.ask("QUIT", "221")
        server.wait_stored(1)
        assert result_of(server.stored()[0].content) == "none"


def test_changes_and_refusals_on_the_way(warp, mail_server, plain_libmilter, tmp_path):
    options, env = enabled(tmp_path, plain_libmilter.socket)
    server = mail_server()
    proxy = warp(*options, upstream=server, env=env)
    client = proxy.greeted()
    message = ordered(["chgheader", "Subject", 1, "changed"], ["addheader", "Top", "x\n\ty", 0],
                      ["replacebody", ".\r\n..new"])
    header = message.split(b"\r\n\r\n")[0].replace(b"Subject: a", b"Subject: changed")
    assert send(client, message).startswith("250")
    assert server.messages[0]["data"] == stuffed(b"Top: x\r\n\ty\r\n" + header + b"\r\n\r\n.\r\n..new\r\n")
    assert send(client, MESSAGE).startswith("250")
    assert server.messages[1]["data"] == stuffed(MESSAGE)
    refused = ordered(["setreply", "554", "5.6.1", "one", "two"], ["result", "REJECT"])
    assert send(client, refused) == "554 5.6.1 one two"
    assert send(client, ordered(["result", "TEMPFAIL"])) == "451 4.7.1 The filter asks to try again later"
    assert send(client, MESSAGE, recipient="refused@mail.example") == "550 5.1.1 no such user here: 100%"
    assert send(client, MESSAGE, sender="discard@client.example").startswith("250")
    assert send(client, ordered(["quarantine", "odd"])).startswith("550 5.7.1")
    client.ask("QUIT", "221")
    assert len(server.messages) == 2
    assert proxy.wait_for("message", count=7)["hooks"] == {"milter_quarantine": "odd"}
    assert [record["result"] for record in proxy.records("message")] == \
        ["accepted", "accepted", "rejected", "deferred", "rejected", "discarded", "rejected"]


def test_milter_gone_on_the_way(warp, mail_server, tmp_path):
    options, env = enabled(tmp_path, "unix:/nonexistent/milter")
    server = mail_server()
    proxy = warp(*options, upstream=server, env=env)
    client = proxy.greeted()
    assert send(client, MESSAGE).startswith("451 4.3.0")
    client.ask("QUIT", "221")
    assert server.messages == []
    assert "no milter at unix:/nonexistent/milter" in json.dumps(proxy.records())
