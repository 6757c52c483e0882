"""--try-hook: one hook, run and judged as in a session."""
import json
import os
import pathlib
import pwd
import re
import select
import socket
import subprocess
import threading

import pytest

import hooks
import netns
from hooks import Hooks, shipped
from warp import BINARY, environment, sanitizer_reports

GOES_ON = "none of smtpwarp's: it goes on"
DEFERRED = "451 4.3.0 A filter is out of order, try again later"
WATCHES = "none: hooks of this event only watch"
SCRIPT = "#!/bin/sh\n"


class Report:
    """What a trial has printed: report["reply"] is that line; lines without a word belong to the word before them."""

    def __init__(self, done):
        self.status, self.errors, self.words = done.returncode, done.stderr, {}
        for line in done.stdout.splitlines():
            word = line[:9].strip() or word     # pylint: disable=used-before-assignment
            self.words.setdefault(word, []).append(line[9:])

    def __getitem__(self, word):
        return "\n".join(self.words.get(word, []))


@pytest.fixture(name="attempt")
def fixture_attempt(tmp_path):
    """attempt(event, hook, sample, *options): hook is a script's text, or a path."""
    def run(event, hook, *words, env=None, **options):
        if isinstance(hook, str):
            text, hook = hook, Hooks(tmp_path / "hooks").script(event, "")
            hook.write_bytes(text.encode())
        done = subprocess.run([BINARY, "--try-hook", event, hook, *map(str, words)], env=environment(tmp_path, env), stdin=subprocess.DEVNULL,
                              capture_output=True, text=True, timeout=60, check=False, **options)
        assert done.returncode in (0, 70, 64, 78) and not sanitizer_reports(tmp_path), done.stderr
        return Report(done)
    return run


# Verdicts

@pytest.mark.parametrize("event", hooks.EVENTS)
def test_a_hook_of_each_event_gets_what_a_session_gives_it(attempt, tmp_path, event):
    """The members of our own sample are those of the samples that ship."""
    got = tmp_path / "got"
    report = attempt(event, SCRIPT + f"cat >{got}")
    lines = [json.loads(line) for line in got.read_text().splitlines()]
    if event == "log":
        assert {"connect", "comm", "message", "close"} == {line["event"] for line in lines}
        lines, samples = lines[-1:], [json.loads(line) for line in (hooks.SAMPLES / "log.jsonl").read_text().splitlines()][-1:]
    else:
        samples = [hooks.sample(event)]
    assert [set(line) for line in lines] == [set(line) for line in samples]
    assert [line["mail_from"] and line["mail_from"]["address"] for line in lines] == [
        line["mail_from"] and line["mail_from"]["address"] for line in samples]
    assert report.status == 0 and report["end"] == "exit status 0" and re.fullmatch(r"[\d.]+ ms", report["time"])
    assert report["reply"] == (WATCHES if event in ("close", "log") else GOES_ON)


@pytest.mark.parametrize("event, said, reply", [
    ("connect", "reject not you", "554 5.7.1 not you"), ("connect", "defer later", "421 4.7.1 later"),
    ("ehlo", "close go away", "421 4.7.0 go away"), ("mail", "reject", "550 5.7.1 Refused by policy"),
    ("rcpt", "reject 550 5.1.6 This person has left", "550 5.1.6 This person has left"),
    ("rcpt", "defer 450 4.2.0 \x1b[31mcaf\u00e9", "450 4.2.0  [31mcaf??"), ("data", "discard", "250 2.0.0 Ok"),
    ("data", "reject " + "word " * 200, None), ("ehlo", "tarpit 5\nreject no", "550 5.7.1 no"),
    ("ehlo", "tarpit 5", GOES_ON), ("rcpt", "rewrite b@c.example\nlog k v", GOES_ON)])
def test_verdict_and_reply(attempt, event, said, reply):
    report = attempt(event, SCRIPT + f"cat <<'END'\n{said}\nEND")
    assert (report.status, report["failed"]) == (0, "")
    assert [line.rstrip() for line in report.words["verdict"]][:said.count("\n") + 1] == \
        said.replace("\x1b", "?").rstrip().split("\n")
    if reply:
        assert report["reply"] == reply
    else:
        assert len(report.words["reply"]) > 1 and all(line.startswith("550") for line in report.words["reply"])
        assert max(map(len, report.words["reply"])) < 512


def test_edits_make_another_message(attempt):
    said = "add-header X-Checked: yes\nremove-header subject\naccept"
    report = attempt("data", SCRIPT + f"cat <<'END'\n{said}\nEND", "--verbose")
    assert report["verdict"] == said and report.words["message"][0] == "X-Checked: yes"
    assert "Subject" not in report["message"] and "Message-ID" in report["message"]
    plain = attempt("data", SCRIPT + "exit 0")
    assert plain["message"] == "255 octets go on; with --verbose they are shown"
    report = attempt("data", SCRIPT + "echo replace-message; sed s/Lunch/Dinner/ <&3", "--verbose")
    assert report["verdict"] == "replace-message" and "Subject: Dinner on Friday" in report["message"]


def test_message_of_a_file(attempt, tmp_path):
    """Its size and Message-ID are in the line; its lines end in CR LF, whatever the file's end in."""
    script = SCRIPT + f"cat >{tmp_path}/line; cat <&3 >{tmp_path}/message"
    text = (hooks.SAMPLES / "message.eml").read_bytes()
    for content in (text.replace(b"\r\n", b"\n"), text.replace(b"\r\n", b"\n")[:-1], b"x", b"\xff" * 3_000_000):
        (tmp_path / "sample").write_bytes(content)
        assert attempt("data", script, tmp_path / "sample").status == 0
        message = (tmp_path / "message").read_bytes()
        assert message == content.rstrip(b"\n").replace(b"\n", b"\r\n") + b"\r\n"
        line = json.loads((tmp_path / "line").read_text())
        assert line["size"] == len(message)
        assert line["message_id"] == ("<20261120205911.009445@client.example>" if b"Message-ID" in content else None)


def test_line_of_a_file(attempt, tmp_path):
    sample = tmp_path / "sample"
    script = SCRIPT + f"cat >{tmp_path}/line"
    for event in set(hooks.EVENTS) - {"log"}:
        sample.write_text(json.dumps(hooks.sample(event, helo="o'th\u00e9r"), ensure_ascii=False, separators=(",", ":")))
        assert attempt(event, script, sample).status == 0
        assert (tmp_path / "line").read_text() == sample.read_text() + "\n"
    assert attempt("log", script, hooks.SAMPLES / "log.jsonl").status == 0
    assert (tmp_path / "line").read_text() == (hooks.SAMPLES / "log.jsonl").read_text()


# Failures: as a session would have them

@pytest.mark.parametrize("event, hook, failed, end", [
    ("rcpt", SCRIPT + "echo log a b; echo rejct", "an unknown word, in line 2: rejct", "exit status 0"),
    ("rcpt", SCRIPT + "echo discard", "a word that is not for this event, in line 1: discard", "exit status 0"),
    ("rcpt", SCRIPT + "echo reject 450 x", "a reply code that does not go with the word, in line 1: reject 450 x", "exit status 0"),
    ("rcpt", SCRIPT + "echo rewrite a b", "rewrite takes an address, in line 1: rewrite a b", "exit status 0"),
    ("rcpt", SCRIPT + "echo upstream mx.example",
     "the server is connected already: this word needs --connect-on recipient, in line 1: upstream mx.example", "exit status 0"),
    ("rcpt", SCRIPT + "echo accept; echo one >&2; echo two >&2; exit 3", "exit status 3: two", "exit status 3"),
    ("rcpt", SCRIPT + "kill -9 $$", "killed by signal 9", "killed by signal 9"),
    ("rcpt", SCRIPT + "echo waits >&2; sleep 1000", "it did not end in time (--hook-timeout): waits", ""),
    ("close", SCRIPT + "echo no >&2; exit 75", "exit status 75: no", "exit status 75"),
    ("log", SCRIPT + "cat >/dev/null; echo no >&2; exit 75", "exit status 75: no", "exit status 75"),
    ("log", SCRIPT + "exec sleep 1000", "it did not end in time", ""),
    ("data", SCRIPT + "echo replace-message 6; echo four", "the message it returns is not as long as it said", "exit status 0"),
])
def test_failure(attempt, event, hook, failed, end):
    report = attempt(event, hook, "--hook-timeout", 1)
    assert (report.status, report["failed"], report["end"]) == (70, failed, end)
    assert report["reply"] == (WATCHES if event in ("close", "log") else DEFERRED)
    if "two" in failed:
        assert "one\ntwo\n" in report.errors and report["stderr"] == "two"     # all of it, and what the log keeps


def test_failure_with_hook_failure_accept(attempt):
    report = attempt("rcpt", SCRIPT + "exit 1", "--hook-failure", "accept")
    assert (report.status, report["failed"]) == (70, "exit status 1") and "--hook-failure is accept" in report["reply"]


@pytest.mark.parametrize("hook, failed, warning", [
    ("echo accept\n", "it cannot be run: Exec format error", "neither a program nor a script: its first line must begin with #!"),
    ("#!/nowhere/sh\n", "it cannot be run: No such file or directory", "its interpreter is missing: /nowhere/sh"),
    ("#!/bin/sh\r\necho accept\r\n", "it cannot be run: No such file or directory", "its lines end in CR LF: a script needs LF"),
    (pathlib.Path("/nowhere/hook"), "it cannot be run: No such file or directory", "/nowhere/hook: No such file or directory"),
    (pathlib.Path("/etc/passwd"), "it cannot be run: Permission denied", "/etc/passwd: not executable: chmod +x it")])
def test_what_cannot_be_run(attempt, hook, failed, warning):
    """It is told as --check tells it, and as a session does."""
    report = attempt("rcpt", hook)
    assert (report.status, report["failed"], report["reply"]) == (70, failed, DEFERRED)
    assert warning in report.errors


def test_two_verdicts(attempt):
    """The first one counts; the author hears of the rest."""
    report = attempt("rcpt", SCRIPT + "echo accept; echo reject 550 no")
    assert (report.status, report["verdict"], report["ignored"], report["reply"]) == (0, "accept", "reject 550 no", GOES_ON)
    assert attempt("rcpt", SCRIPT + "echo log a b")["verdict"] == "log a b\naccept (it says no line that ends a verdict)"


def test_route_with_connect_on_recipient(attempt):
    report = attempt("rcpt", SCRIPT + "echo upstream mx.example; echo tls verify; echo accept", "--connect-on", "recipient")
    assert (report.status, report["verdict"]) == (0, "upstream mx.example\ntls verify\naccept")
    assert attempt("connect", SCRIPT + "echo source 192.0.2.1")["verdict"].startswith("source 192.0.2.1")


# Resident hooks

@pytest.mark.parametrize("answer, failed", [
    (b"reject 550 no\n", ""), (b"", "it closed the socket without a verdict"),
    (b"log a b\n", "over a socket a verdict ends with a line such as accept, and that line's end"),
    (None, "it did not end in time (--hook-timeout)")])
def test_resident_hook(attempt, tmp_path, answer, failed):
    got = []

    def serve():
        client, _ = door.accept()
        with client:
            line, descriptors, _, _ = socket.recv_fds(client, 65536, 1)
            got.extend([json.loads(line), os.pread(descriptors[0], 100, 0)])
            os.close(descriptors[0])
            if answer is None:
                hangup = select.poll()
                hangup.register(client, 0)
                hangup.poll()       # until smtpwarp has had enough
            else:
                client.sendall(answer)

    with socket.socket(socket.AF_UNIX) as door:
        door.bind(str(tmp_path / "socket"))
        door.listen()
        thread = threading.Thread(target=serve)
        thread.start()
        report = attempt("data", tmp_path / "socket", "--hook-timeout", 1)
        thread.join()
    assert got[0]["event"] == "data" and got[1].startswith(b"From: Alice")
    assert (report.status, report["failed"]) == (70 if failed else 0, failed)
    assert report["reply"] == (DEFERRED if failed else "550 5.7.1 no") and not report["end"] and not report["stderr"]


def test_socket_that_nobody_listens_to(attempt, tmp_path):
    with socket.socket(socket.AF_UNIX) as door:
        door.bind(str(tmp_path / "socket"))
    report = attempt("rcpt", tmp_path / "socket")
    assert (report.status, report["failed"]) == (70, "it cannot be connected to: Connection refused")


# Hooks that ship

def shipped_cases(directory):
    """Each with the settings that let it run, and how its report ends: reply, or failure."""
    (directory / "patterns").write_text("lunch [Ll]unch\n")
    (directory / "table").write_text("* 192.0.2.1\n")
    gone = str(directory / "gone")
    return {
        "capture": ({"MAILDIR": f"{directory}/maildir"}, GOES_ON), "dlp": ({"DLP_PATTERNS": f"{directory}/patterns"}, "550 5.7.1 "),
        "file": ({"FILE_PATH": f"{directory}/file"}, WATCHES), "sqlite": ({"DSN": f"{directory}/sqlite"}, WATCHES),
        "source-by-sender": ({"SOURCE_TABLE": f"{directory}/table"}, GOES_ON),
        "clamav": ({"CLAMD_SOCKET": gone}, "exit status 75: clamav: "), "rspamd": ({"RSPAMD_URL": "http://127.0.0.1:1"}, "exit status 75: "),
        "spamassassin": ({"SPAMD_SOCKET": gone}, "exit status 75: "), "milter": ({"MILTER_SOCKET": f"unix:{gone}"}, "exit status 75: "),
        "mysql": ({"DSN": "no"}, "exit status 78: "), "route-mysql": ({}, "exit status 78: "), "slack": ({}, "exit status 78: "),
        "journal": ({}, ""),        # with journald or without
    }


@pytest.mark.parametrize("name", sorted(path.stem for path in (hooks.ROOT / "hooks").iterdir() if path.is_file()))
def test_hooks_that_ship(attempt, tmp_path, name):
    env, last = shipped_cases(tmp_path)[name]
    source = (hooks.ROOT / "hooks" / name).with_suffix(".c" if (hooks.ROOT / "hooks" / f"{name}.c").exists() else "")
    for event in re.search(r"^[#* ]*Events: (.*)$", source.read_text(), re.M)[1].split():
        report = attempt(event, shipped(name), "--connect-on", "recipient", env=env)
        if last:
            assert (report["failed"] or report["reply"]).startswith(last), report["failed"] + report.errors
            assert report.status == (70 if last.startswith("exit") else 0)
    if name == "capture":
        assert len(list((tmp_path / "maildir/new").iterdir())) == 1
    if name == "file":
        assert [json.loads(line)["event"] for line in (tmp_path / "file").read_text().splitlines()][-2:] == ["message", "close"]


# Who asks, and how

@pytest.mark.skipif(bool(netns.unsupported()), reason=netns.unsupported())
def test_user(attempt, tmp_path):
    """As root it becomes --user, and says when the hook runs as another."""
    place = pathlib.Path("/tmp") / tmp_path.name
    place.mkdir(mode=0o755, exist_ok=True)
    try:
        hook = place / "hook"
        hook.write_text(SCRIPT + "echo log user $(id -un)")
        hook.chmod(0o755)
        report = attempt("rcpt", hook, "--user", "nobody")
        assert report["user"] == "nobody" and report["verdict"].startswith("log user nobody") and "warning" not in report.errors
        report = attempt("rcpt", hook)
        assert report["user"] == "root" and "the hook runs as root: give --user" in report.errors
        report = attempt("rcpt", hook, "--user", "daemon", user="nobody")
        assert report["user"] == "nobody" and "not as --user daemon: run --try-hook as root" in report.errors
        hook.chmod(0o700)
        report = attempt("rcpt", hook, "--user", "nobody")
        assert (report.status, report["failed"]) == (70, "it cannot be run: Permission denied")
    finally:
        (place / "hook").unlink()
        place.rmdir()
    assert pwd.getpwuid(os.geteuid()).pw_name == "root"


def test_variables_of_the_service(attempt, tmp_path):
    settings = tmp_path / "settings"
    settings.write_text("SMTPWARP_HOOK_FAILURE=accept\nMINE='a b'\n")
    report = attempt("rcpt", SCRIPT + 'echo log mine "$MINE"; echo bad', "--env-file", settings)
    assert "--hook-failure is accept" in report["reply"]
    assert attempt("rcpt", SCRIPT + 'echo log mine "$MINE"', "--env-file", settings)["verdict"].startswith("log mine a b\n")


@pytest.mark.parametrize("words, status, error", [
    (["recipient", "/bin/true"], 64, "--try-hook recipient: it takes connect, ehlo, mail, rcpt, data, close or log"),
    ([], 64, "--try-hook: a value is missing (EVENT PATH [SAMPLE])"),
    (["rcpt"], 64, "--try-hook rcpt: give the hook's path behind the event: --try-hook EVENT PATH [SAMPLE]"),
    (["rcpt", "/bin/true", "/dev/null", "more"], 64, "unknown option more"),
    (["rcpt", "/bin/true", "/nowhere"], 78, "sample /nowhere: No such file"),
    (["rcpt", "/bin/true", "/dev/null"], 78, "sample /dev/null: it is empty"),
    (["rcpt", "/bin/true", str(hooks.SAMPLES / "mail.json")], 78, "mail.json: it is of another event"),
    (["rcpt", "/bin/true", str(hooks.SAMPLES / "log.jsonl")], 78, "a hook gets one line: make it one by jq -c"),
    (["rcpt", "/bin/true", "--user", "nosuchuser"], 78, "--user nosuchuser: there is no such user")])
def test_words_that_are_wrong(words, status, error):
    done = subprocess.run([BINARY, "--try-hook", *words], capture_output=True, text=True, timeout=20, check=False)
    assert done.returncode == status and error in done.stderr


def test_the_sample_may_come_from_standard_input(tmp_path):
    hook = Hooks(tmp_path).script("rcpt", "cat >&2")
    line = json.dumps(hooks.sample("rcpt"))
    done = subprocess.run([BINARY, "--try-hook", "rcpt", hook, "/dev/stdin"], input=line, capture_output=True, text=True, timeout=20, check=True)
    assert line in done.stderr


def test_a_signal_ends_it_and_its_hook(tmp_path):
    """Whoever presses the interrupt key does not wait for --hook-timeout."""
    os.mkfifo(tmp_path / "alive")
    hook = Hooks(tmp_path).script("rcpt", f"exec sleep 1000 >{tmp_path}/alive")
    process = subprocess.Popen([BINARY, "--try-hook", "rcpt", hook], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    with open(tmp_path / "alive", "rb") as alive:
        process.terminate()
        assert process.wait(20) == 70
        assert alive.read() == b""
