"""The hook that writes to systemd's journal, in a container with systemd as PID 1; journalctl shows what arrived."""
import json
import re
import shutil
import subprocess

import pytest

import container
import hooks
import hosts
import netns
from waiting import wait_until

NEEDS = netns.unsupported() or container.missing()
pytestmark = pytest.mark.skipif(bool(NEEDS), reason=NEEDS)

STREAM = [json.loads(line) for line in (hooks.SAMPLES / "log.jsonl").read_text().splitlines()]
SESSION = STREAM[0]["session"]
HOSTILE = ["", " ", "\n", "a\nPRIORITY=0\nMESSAGE=gone\n", "=", "x=y", "\0", "a\0b", "\x1b[31m", "\u0085\u009b\u2028",
           "sënder", "\U0001f4ee", "\\", '"', "%s%n%d", "$(touch /owned)", "\ufffd", "x" * 100_000]


@pytest.fixture(name="machine", scope="module")
def fixture_machine():
    """One machine for the tests that run the hook by hand: each session is another."""
    with hosts.network() as net, container.Container(net.host.ns) as machine:
        yield enable(machine)


def enable(machine):
    """The hook is there as an operator has it."""
    place = machine.root / "etc/smtpwarp/hooks/log"
    place.mkdir(parents=True)
    shutil.copy(hooks.shipped("journal"), place / "50-journal")
    return machine


def encode(*records):
    return b"".join(json.dumps(record, ensure_ascii=False).encode() + b"\n" for record in records)


def run(machine, data, check=True):
    """The hook with that on its standard input; what it said."""
    (machine.root / "root/stream").write_bytes(data)
    return machine.run("/etc/smtpwarp/hooks/log/50-journal </root/stream", check)


def entries(machine, session):
    """As machine.journal(), which takes U+0085 and U+2028 in a text for the end of a line."""
    text = machine.run("journalctl --sync; journalctl --quiet --all -o json SYSLOG_IDENTIFIER=smtpwarp "
                       f"'SMTPWARP_SESSION={session}'")
    return [json.loads(line) for line in text.split("\n")[:-1]]


def own_fields(entry):
    return {name[len("SMTPWARP_"):]: value for name, value in entry.items() if name.startswith("SMTPWARP_")}


def octets(value):
    """journalctl shows what is not printable as a list of numbers."""
    return bytes(value) if isinstance(value, list) else value.encode()


def test_fields(machine):
    assert run(machine, encode(*STREAM)) == ""
    found = entries(machine, SESSION)
    assert [json.loads(entry["SMTPWARP_RECORD"]) for entry in found] == STREAM
    assert [(entry["PRIORITY"], entry["MESSAGE"]) for entry in found] == [
        ("6", "10.0.0.1 connected to 10.0.0.2 port 25"),
        ("7", "-> MAIL FROM:<alice@client.example> SIZE=512"),
        ("7", "<- 250 2.1.0 Ok"),
        ("6", "hook 50-rspamd at data: accept "),
        ("6", "<alice@client.example> => <bob@mail.example> and 1 more: accepted, 250 2.0.0 Ok: queued as EC62DAA2530"),
        ("6", "10.0.0.1 closed by client: QUIT")]
    assert {(entry["SYSLOG_FACILITY"], entry["_TRANSPORT"]) for entry in found} == {("2", "journal")}
    assert not any("CODE_FILE" in entry for entry in found)
    message, close = own_fields(found[4]), own_fields(found[5])
    del message["RECORD"], close["RECORD"]
    server = {"SERVER_IP": "10.0.0.2", "SERVER_PORT": "25", "SERVER_TLS_VERSION": "TLSv1.2",
              "SERVER_TLS_CIPHER": "TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256", "SERVER_TLS_VERIFIED": "false"}
    common = {"V": "1", "SESSION": SESSION, "CLIENT_IP": "10.0.0.1", "CLIENT_PORT": "56456", "HELO": "client.example",
              "HOOKS_SCORE": "-0.1", "SITE": "10.0.0.0/24", **server}
    assert message == {
        **common, "EVENT": "message", "TIME": STREAM[4]["time"], "MAIL_FROM": "alice@client.example",
        "RCPT_TO": ["bob@mail.example", "carol@mail.example"], "SIZE": "490",
        "TRANSACTION": STREAM[4]["transaction"], "MESSAGE_ID": "<20261120205911.009445@client.example>", "RESULT": "accepted", "CODE": "250",
        "ENHANCED": "2.0.0", "REPLY": "2.0.0 Ok: queued as EC62DAA2530",
        "MAIL_MS": "25.127", "RCPT_MS": "5.247", "DATA_MS": "178.027", "DATA_REPLY_MS": "0.412",
        "ACCEPT_MS": "4.941"}
    assert close == {
        **common, "EVENT": "close", "TIME": STREAM[5]["time"], "SIZE": "0", "MESSAGES": "1", "RECIPIENTS": "2",
        "ERRORS": "0", "CLIENT_IN": "811", "CLIENT_OUT": "402", "SERVER_IN": "530", "SERVER_OUT": "760",
        "CONNECT_MS": "0.312", "BANNER_MS": "4.101", "TLS_MS": "2.511", "DURATION_MS": "203.114", "SEEN": "true", "LOG_DROPPED": "0",
        "BY": "client", "REASON": "QUIT"}


@pytest.mark.parametrize("change, priority, message", [
    ({"event": "error", "error": "no route to host"}, "3", "error: no route to host"),
    ({"event": "tls", "result": "ok", "version": "TLSv1.2", "reason": None}, "6", "TLS with 10.0.0.2: ok TLSv1.2 "),
    ({"event": "tls", "result": "fallback", "reason": "it broke"}, "4", "TLS with 10.0.0.2: fallback  it broke"),
    ({"event": "message", "result": "rejected", "rcpt_to": [], "reply": {"code": 550, "text": "5.7.1 no"}}, "5",
     "<> => <>: rejected, 550 5.7.1 no"),
    ({"event": "message", "result": "discarded", "reply": None, "mail_from": {"address": ""}}, "6",
     "<> => <>: discarded"),
    ({"event": "new"}, "6", "new: ")])
def test_priorities(machine, change, priority, message):
    session = f"priorities of {message}"
    run(machine, encode({**STREAM[0], "session": session, **change}))
    entry, = entries(machine, session)
    assert (entry["PRIORITY"], entry["MESSAGE"]) == (priority, message)


def test_78_hostile_text(machine):
    """Every octet is in the field that it belongs to and in no other; MESSAGE can be shown. PROTOCOL 78"""
    records = []
    for number, text in enumerate(HOSTILE):
        record = {**STREAM[4], "session": f"hostile {number}", "helo": text, "auth": text, "message_id": text,
                  "mail_from": {"address": text, "params": {"X": text}}, "hooks": {"k.-": text},
                  "rcpt_to": [{"address": text, "params": {}}] * 2, "reply": {"code": 550, "text": text}}
        records.append({**record, "event": "comm", "direction": "->", "data": text} if number % 4 == 3 else record)
    run(machine, encode(*records))
    for number, (record, text) in enumerate(zip(records, HOSTILE)):
        entry, = entries(machine, f"hostile {number}")
        assert octets(entry["SMTPWARP_RECORD"]) == encode(record)[:-1]
        assert entry["PRIORITY"] == ("7" if record["event"] == "comm" else "6")
        for name in "HELO", "AUTH", "MESSAGE_ID", "MAIL_FROM", "REPLY", "HOOKS_K__":
            assert octets(entry[f"SMTPWARP_{name}"]) == text.encode()
        recipients = entry["SMTPWARP_RCPT_TO"]      # a field is kept once for each value
        assert octets(recipients) == text.encode()
        assert isinstance(entry["MESSAGE"], str)
        assert not re.search("[\0-\x1f\x7f-\x9f]", entry["MESSAGE"])
    assert not (machine.root / "owned").exists()


def test_many_recipients_and_fields(machine):
    """journald would drop the whole entry for too many fields, or a field for the length of its name."""
    record = {**STREAM[4], "session": "many", "hooks": {"n" * 100: "v"},
              "rcpt_to": [{"address": f"r{i}@mail.example", "params": {}} for i in range(10_000)]}
    run(machine, encode(record))
    entry, = entries(machine, "many")
    assert json.loads(entry["SMTPWARP_RECORD"]) == record
    recipients = entry["SMTPWARP_RCPT_TO"]
    assert recipients == [f"r{i}@mail.example" for i in range(len(recipients))]
    assert len(recipients) > 400
    assert (entry["SMTPWARP_RESULT"], entry["SMTPWARP_CODE"]) == ("accepted", "250")
    assert entry["SMTPWARP_HOOKS_" + "N" * 49] == "v"


def test_lines_that_are_none(machine):
    """They are told, and the others are written."""
    good = encode({**STREAM[0], "session": "good lines"})
    bad = [b"\n", b"{\n", b"[]\n", b"1\n", b"null\n", b'{"a":"\xff"}\n', b"\0\n", b'{"a":1}x\n', b"[" * 5000 + b"\n",
           b'{"session":' + b'{"a":' * 5000 + b"1" + b"}" * 5000 + b"}\n"]
    for line in bad:
        said = run(machine, good + line + good, check=False)
        assert re.fullmatch(r"journal: a line is no JSON object: .*\n", said), (line[:20], said)
    assert len(entries(machine, "good lines")) == 2 * len(bad)
    assert run(machine, good + b"{", check=False)
    assert run(machine, good[:-1]) == ""        # a last line without its end is one
    assert run(machine, b"{}\n{\"event\":5,\"rcpt_to\":7,\"client\":[],\"reply\":\"x\",\"hooks\":[1]}\n") == ""


@pytest.mark.parametrize("name, text, code", [("missing", "", 75), ("odd line", "{\n", 65)])
def test_exit_codes(machine, tmp_path, name, text, code):
    """Without a journal nothing may be lost in silence."""
    if name == "missing":
        done = subprocess.run(["unshare", "--mount", "sh", "-c", f"mount --bind {tmp_path} /run; exec $0",
                               hooks.shipped("journal")], input=encode(*STREAM), capture_output=True, check=False)
        assert done.stderr.startswith(b"journal: /run/systemd/journal/socket: ")
        assert done.returncode == code
    else:
        said = run(machine, text.encode() + encode(*STREAM), check=False)
        assert "JSON" in said
        assert f"exit {code}" in machine.run(
            "/etc/smtpwarp/hooks/log/50-journal </root/stream 2>&1 || echo \"exit $?\"")


def test_sanitizers(machine, tmp_path):
    """The same hostile streams, with AddressSanitizer and UndefinedBehaviorSanitizer."""
    binary = machine.root / "root/journal-asan"
    flags = subprocess.run(["pkg-config", "--cflags", "--libs", "jansson", "libsystemd"], capture_output=True,
                           text=True, check=True).stdout.split()
    subprocess.run(["gcc", "-std=c11", "-g", "-O1", "-fsanitize=address,undefined", "-fno-sanitize-recover=all",
                    str(hooks.ROOT / "hooks/journal.c"), "-o", str(binary), *flags], check=True, cwd=tmp_path)
    texts = [*HOSTILE, "\xc2", "\u0080" * 3, "\x7f"]
    records = [{**record, "session": "sanitized", "helo": text, "data": text, "error": text, "by": text, "reason": text,
                "time": 10 ** 15, "hooks": {text.replace("\0", "0"): text}, "mail_from": {"address": text},
                "reply": {"code": text, "text": text, "enhanced": 2.5}, "rcpt_to": [{"address": text}, {}, 5, None]}
               for text in texts for record in STREAM]
    odd = b'{"event":"message"}\n{"a":1e999}\n{"a":1e300}\n{"\\u0000":1}\n{"server":{"ip":5}}\n\xff\n'
    lines = encode(*records) + odd
    (machine.root / "root/hostile").write_bytes(lines + lines[:-100])
    said = machine.run("/root/journal-asan </root/hostile", check=False)
    assert set(re.sub("object: .*", "object", said).splitlines()) == {"journal: a line is no JSON object"}
    assert len(entries(machine, "sanitized")) >= 2 * len(records) - 1


@pytest.mark.parametrize("kind", ["smtpwarp", "smtpwarp-listener"])
def test_sessions(kind):
    """smtpwarp under systemd, in the sandbox of its units."""
    with hosts.network() as net:
        net.serve()
        with container.Container(net.host.ns, "SMTPWARP_LOG=none") as machine:
            enable(machine)
            machine.load("nftables-output.nft")
            machine.run(f"systemctl start {kind}.socket")
            for address in net.mail.ip4, net.mail.ip6:
                hosts.deliver(net.host.ns, address)
            closes = wait_until(lambda: len(found := machine.journal(SMTPWARP_EVENT="close")) == 2 and found)
            for close, address in zip(closes, (net.mail.ip4, net.mail.ip6)):
                found = entries(machine, close["SMTPWARP_SESSION"])
                assert found[-1] == close
                message, = [entry for entry in found if entry["SMTPWARP_EVENT"] == "message"]
                assert (message["SMTPWARP_MAIL_FROM"], message["SMTPWARP_RCPT_TO"], message["SMTPWARP_RESULT"],
                        message["SMTPWARP_CODE"], message["SMTPWARP_SERVER_IP"]) == (
                            "a@client.example", "b@server.example", "accepted", "250", address)
                # journald does not find out for a sender that has exited by then
                assert "smtpwarp" in message.get("_SYSTEMD_UNIT", "smtpwarp")
                said = [entry["SMTPWARP_DATA"] for entry in found if entry["SMTPWARP_EVENT"] == "comm"]
                assert "MAIL FROM:<a@client.example>" in said
            assert machine.journal(SMTPWARP_EVENT="error") == []
