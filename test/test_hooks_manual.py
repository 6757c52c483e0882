"""smtpwarp-hooks(7): what it shows works as it is written, and what there is, is in it."""
import collections
import contextlib
import json
import os
import pathlib
import re
import signal
import socket
import subprocess
import time

import pytest

import hooks

TOP = hooks.ROOT
PAGE = (TOP / "man/smtpwarp-hooks.7").read_text()
LOG = (TOP / "man/smtpwarp-log.5").read_text()
(SHELL, BY_HAND, ANSWER, RESIDENT, SERVICE, SHELL_DATA, PYTHON, NODE, _, GO, GO_BUILD, C,
 C_SERVICE, FOLDERS, TRIALS, SAMPLES) = hooks.examples()
HEADER = (TOP / "pure/verdict.h").read_text()
WORDS = dict(re.findall(r'X\(([A-Z_]+), "([a-z-]+)"\)', HEADER.partition("#define VERDICT_WORDS")[2]))


def section(name):
    return PAGE.partition(f".Sh {name}\n")[2].partition("\n.Sh ")[0]


def macro_words(name, text=PAGE):
    """The arguments of all lines of a macro, also where it stands behind .It."""
    lines = re.findall(rf"^\.(?:It )?{name} (.*)$", text, re.M)
    return {word for line in lines for word in re.findall(r"[\w.-]*\w", line)}


# The examples

@pytest.fixture
def place(tmp_path, monkeypatch):
    """The examples' files, and the directories that the page names as directories of the test: place(text) is a text
    with these."""
    for name in "etc/smtpwarp", "run/left", "bin":
        (tmp_path / name).mkdir(parents=True)
    for event in hooks.EVENTS:
        hooks.Hooks(tmp_path / "etc/smtpwarp/hooks").place(event, "x")
    for name, text in (("left", SHELL), ("bin/resident-left", RESIDENT)):
        (tmp_path / name).write_text(text)
    (tmp_path / "bin/resident-left").chmod(0o755)
    (tmp_path / "etc/smtpwarp/left.txt").write_text("Carol@mail.example\ndave@mail.example\n")
    monkeypatch.chdir(tmp_path)
    places = {"/etc/smtpwarp": tmp_path / "etc/smtpwarp", "/run/left": tmp_path / "run/left",
              "/usr/share/smtpwarp/hooks/sample": hooks.SAMPLES, "/usr/lib/smtpwarp/hooks": TOP / "hooks"}
    return lambda text: re.sub("|".join(places), lambda found: str(places[found[0]]), text)


def shell(text, **options):
    options = {"check": True, "capture_output": True, "text": True, "timeout": 60, **options}
    return subprocess.run(["sh", "-eu"], input=text, **options)


def wait_accepting(path, timeout=10):
    end = time.monotonic() + timeout
    while True:
        with contextlib.suppress(FileNotFoundError, ConnectionRefusedError), socket.socket(socket.AF_UNIX) as probe:
            return probe.connect(str(path))
        assert time.monotonic() < end, "the resident hook does not listen"
        time.sleep(0.01)


Resident = collections.namedtuple("Resident", "pid path")


@pytest.fixture
def resident(place):
    """The resident hook, started by the page's commands."""
    with started(place(SERVICE), pathlib.Path("run/left/socket")) as hook:
        yield hook


@contextlib.contextmanager
def started(commands, path):
    """A resident hook at that socket. The commands start one background job."""
    script = commands + "echo $!\n"
    environment = {**os.environ, "PATH": f"{pathlib.Path('bin').resolve()}:{os.environ['PATH']}"}
    errors = pathlib.Path("resident.log").resolve()
    with open(errors, "w", encoding="utf-8") as log:
        starter = subprocess.Popen(["sh", "-eu"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log,
                                   env=environment, text=True)
        starter.stdin.write(script)
        starter.stdin.close()
    pid = int(starter.stdout.readline())
    path = path.resolve()
    wait_accepting(path)
    yield Resident(pid, str(path))
    os.kill(pid, signal.SIGKILL)
    starter.wait()
    assert errors.read_text() == ""


def ask(resident, line, message=None):
    """As smtpwarp asks a socket: the line, the message's descriptor with its first octets, end of file."""
    with socket.socket(socket.AF_UNIX) as hook, contextlib.ExitStack() as closing:
        hook.settimeout(20)
        hook.connect(resident.path)
        data, descriptors = json.dumps(line).encode() + b"\n", []
        if message is not None:
            descriptors = [os.memfd_create("message")]
            closing.callback(os.close, descriptors[0])
            os.write(descriptors[0], message)       # and the position is at its end
        socket.send_fds(hook, [data[:10]], descriptors)
        hook.sendall(data[10:])
        hook.shutdown(socket.SHUT_WR)
        return b"".join(iter(lambda: hook.recv(4096), b"")).decode()


def test_first_hook_is_ten_lines():
    assert len(SHELL.splitlines()) <= 10


def test_first_hook_by_hand_as_written(place):
    assert shell(place(BY_HAND)).stdout == ANSWER
    assert os.access("etc/smtpwarp/hooks/rcpt/50-left", os.X_OK)


@pytest.mark.parametrize("address, answer", [
    ("CAROL@MAIL.EXAMPLE", ANSWER), ("xcarol@mail.example", "accept\n"), ("carol@mailxexample", "accept\n"),
    (".*", "accept\n"), ("--help", "accept\n"), ("-f/etc/passwd", "accept\n"), ("$(id)`id`;'\"", "accept\n")])
def test_first_hook_with_other_recipients(place, address, answer):
    shell(place(BY_HAND))
    line = json.dumps(hooks.sample("rcpt", rcpt={"address": address, "params": {}}))
    done = subprocess.run(["./left"], input=line, env={**os.environ, "LEFT_FILE": "left.txt"}, capture_output=True,
                          text=True, check=True)
    assert (done.stdout, done.stderr) == (answer, "")


@pytest.mark.parametrize("line, variables", [("{}", {"LEFT_FILE": "/nonexistent"}), ("no json", {"LEFT_FILE": "left.txt"}),
                                             ("{}", {"LEFT_FILE": ""})])
def test_first_hook_fails_rather_than_accept(place, line, variables):
    shell(place(BY_HAND))
    done = subprocess.run(["./left"], input=line, env={**os.environ, **variables}, capture_output=True, text=True,
                          check=False)
    assert done.returncode not in (0, 1) and done.stderr and not done.stdout


def test_shell_examples_are_clean(place):
    shell(place(BY_HAND))
    subprocess.run(["shellcheck", "left"], check=True)


def test_resident_hook_answers_as_the_first_one(resident):
    assert ask(resident, hooks.sample("rcpt")) == ANSWER
    assert ask(resident, hooks.sample("rcpt", rcpt={"address": "DAVE@mail.example", "params": {}})) == ANSWER
    assert ask(resident, hooks.sample("rcpt", rcpt={"address": "eve@mail.example", "params": {}})) == "accept\n"
    for event in set(hooks.EVENTS) - {"rcpt", "data", "log"}:
        assert ask(resident, hooks.sample(event)) == "accept\n"


def test_resident_hook_reads_the_message(resident):
    message = b"To: carol@mail.example\r\n\r\n\xffCarol@Mail.Example, dave@mail.example\r\n"
    assert ask(resident, hooks.sample("data"), message) == "log left 3\naccept\n"
    assert ask(resident, hooks.sample("data"), b"") == "log left 0\naccept\n"
    big = hooks.sample("data", rcpt_to=[{"address": f"user{n}@mail.example", "params": {}} for n in range(10000)])
    assert ask(resident, big, b"x" * (5 << 20)) == "log left 0\naccept\n"


def test_resident_hook_serves_many_at_once_and_leaks_nothing(resident):
    with contextlib.ExitStack() as closing:
        for _ in range(50):     # connected and silent
            closing.enter_context(socket.socket(socket.AF_UNIX)).connect(resident.path)
        for _ in range(100):
            assert ask(resident, hooks.sample("data"), b"x\r\n") == "log left 0\naccept\n"
        assert len(os.listdir(f"/proc/{resident.pid}/fd")) < 100


@pytest.mark.parametrize("kind", ["shell", "resident"])
def test_examples_through_smtpwarp(request, place, warp, mail_server, kind):
    """The hooks as the page has put them there: one is refused, the other gets the message, and the record has what
    the resident hook said."""
    request.getfixturevalue("resident") if kind == "resident" else shell(place(BY_HAND))
    server = mail_server()
    proxy = warp("--hooks", "etc/smtpwarp/hooks", upstream=server, env={"LEFT_FILE": os.path.abspath("left.txt")})
    client = proxy.greeted()
    client.ask("MAIL FROM:<alice@client.example>", "250")
    client.ask("RCPT TO:<Carol@mail.example>", ANSWER.partition(" ")[2].strip())
    client.ask("RCPT TO:<bob@mail.example>", "250")
    client.ask("DATA", "354")
    client.send_raw(b"Subject: x\r\n\r\nGreetings to dave@mail.example.\r\n.\r\n")
    client.expect("250")
    assert [message["to"] for message in server.messages] == [["<bob@mail.example>"]]
    assert proxy.wait_for("message")["hooks"] == ({"left": "1"} if kind == "resident" else {})


def test_samples_by_hand_as_written(place, monkeypatch):
    """Verdicts of three hooks, and a database made from the stream."""
    shell(place(BY_HAND))
    pathlib.Path("patterns").write_text("lunch [Ll]unch\n")
    for name, value in (("LEFT_FILE", "left.txt"), ("DLP_PATTERNS", "patterns"), ("DSN", "database")):
        monkeypatch.setenv(name, os.path.abspath(value))
    lines = shell(place(SAMPLES)).stdout.splitlines()
    assert lines[0] == ANSWER.strip() and lines[-1] == "accept"
    assert lines[1:-1][-1].startswith("reject 550 5.7.1")
    assert pathlib.Path("database").stat().st_size > 0


def test_trials_as_written(resident, place, monkeypatch):   # pylint: disable=unused-argument
    """A program and a stream; the same recipient for a socket and a program."""
    shell(place(BY_HAND))
    pathlib.Path("patterns").write_text("lunch [Ll]unch\n")
    for name, value in (("LEFT_FILE", "left.txt"), ("DLP_PATTERNS", "patterns"), ("DSN", "database")):
        monkeypatch.setenv(name, os.path.abspath(value))
    monkeypatch.setenv("PATH", f"{TOP}:{os.environ['PATH']}")
    said = re.findall(r"^reply +(.*)$", shell(place(TRIALS) + "true\n").stdout, re.M)
    assert said == ["550 5.7.1 Message matches lunch" if "dlp" in line else
                    "none: hooks of this event only watch" if "sqlite" in line else
                    ANSWER.strip().replace("reject ", "") if "socket" in line else "none of smtpwarp's: it goes on"
                    for line in TRIALS.splitlines() if "--try-hook" in line]
    assert pathlib.Path("database").stat().st_size > 0


# Hooks by language

HEADER_OF_MAIL = b"From: a@client.example\r\nSubject: lunch\r\n"
SENDER = {"address": "eve\\nreject 550\n@client.example", "params": {}}
# name: (event, text, variables, (fields, message, answer) ...)
LANGUAGES = {
    "shell": ("data", SHELL_DATA, {}, [
        ({}, HEADER_OF_MAIL + b"\r\nAt noon?\r\n", ""), ({}, b"", ""), ({}, b"\0\xff", ""),
        ({}, HEADER_OF_MAIL + b"\r\n\0\xff of PROJECT nightfall\r\n",
         "reject 550 5.7.1 <alice@client.example> must not write about this\n"),
        ({"mail_from": SENDER}, b"\r\nProject Nightfall", "reject 550 5.7.1 <eve\\nreject 550@client.example> must not write "
         "about this\n")]),
    "python": ("data", PYTHON, {}, [
        ({"auth": "bob"}, HEADER_OF_MAIL + b"\r\nAt noon?\r\n", ""),
        ({"auth": None}, HEADER_OF_MAIL + b"\r\nAt noon?\r\n", b"replace-message\n" + HEADER_OF_MAIL.replace(
            b"lunch", b"[external] lunch") + b"\r\nAt noon?\r\n"),
        ({"auth": None}, b"A: b\r\nsubject :\xff\0\r\nSubject: c\r\n\r\n\r\n\r\nSubject: d\r\n", b"replace-message\n"
         b"A: b\r\nsubject : [external] \xff\0\r\nSubject: c\r\n\r\n\r\n\r\nSubject: d\r\n"),
        ({"auth": None}, HEADER_OF_MAIL + b"\r\n" + b"x" * 5_000_000, b"replace-message\n" + HEADER_OF_MAIL.replace(
            b"lunch", b"[external] lunch") + b"\r\n" + b"x" * 5_000_000),
        ({"auth": "bob"}, b"From: a@client.example\r\n\r\nSubject: x\r\n", "reject 550 5.6.0 A message needs a subject\n"),
        ({}, b"", "reject 550 5.6.0 A message needs a subject\n")]),
    "node": ("mail", NODE, {"BLOCKED_DOMAINS": "other.example Evil.example"}, [
        ({}, None, ""), ({"mail_from": {"address": "", "params": {}}}, None, ""), ({"mail_from": SENDER}, None, ""),
        ({"mail_from": {"address": "a@EVIL.example", "params": {}}}, None, "reject 550 5.7.1 No mail from evil.example\n")]),
}


@pytest.mark.parametrize("language", LANGUAGES)
def test_hook_by_language(language, tmp_path):
    event, text, variables, cases = LANGUAGES[language]
    program = hooks.program(tmp_path / language, text)
    for fields, message, answer in cases:
        done = hooks.by_hand(program, hooks.sample(event, **fields), message, variables)
        assert (done.returncode, done.stdout) == (0, answer if isinstance(answer, bytes) else answer.encode()), done.stderr
        assert [line for line in done.stderr.decode().splitlines() if "wasm" not in line] == []


@pytest.mark.parametrize("language", LANGUAGES)
def test_hook_by_language_fails_rather_than_accept(language, tmp_path):
    """Nor does it say anything. Its last line on standard error says why; Node has one about its options besides."""
    event, text, _, cases = LANGUAGES[language]
    program = hooks.program(tmp_path / language, text)
    done = hooks.by_hand(program, b"no json", cases[-1][1] and b"project nightfall\r\n", {})
    assert done.returncode not in (0, 1) or language == "python" and done.returncode == 1
    assert done.stdout == b"" and re.search(r"parse error: |JSONDecodeError: |blocked: ", done.stderr.decode().splitlines()[-1])


def test_shell_hook_by_language_is_clean(tmp_path):
    subprocess.run(["shellcheck", hooks.program(tmp_path / "hook", SHELL_DATA)], check=True)


def test_hooks_by_language_through_smtpwarp(warp, mail_server, tmp_path):
    """All of them at once. What a hook repeats is not ASCII: it is in the reply as question marks."""
    directory, server = hooks.Hooks(tmp_path / "hooks"), mail_server("SMTPUTF8", "8BITMIME")
    for language, (event, text, _, _) in LANGUAGES.items():
        hooks.program(directory.place(event, f"50-{language}"), text)
    proxy = warp(*directory.options, upstream=server, env={"BLOCKED_DOMAINS": "evil.example"})
    client = proxy.greeted()
    client.ask("MAIL FROM:<a@evil.example>", "550 5.7.1 No mail from evil.example")
    for sender, message, answer in (
            ("<\u00fc@client.example> SMTPUTF8", b"Subject: x\r\n\r\nProject Nightfall\r\n",
             "550 5.7.1 <??@client.example> must not write about this"),
            ("<a@client.example>", b"To: x\r\n\r\nx\r\n", "550 5.6.0 A message needs a subject"),
            ("<a@client.example>", b"Subject: x\r\n\r\nx\r\n", "250")):
        client.ask(f"MAIL FROM:{sender}", "250")
        client.ask("RCPT TO:<bob@mail.example>", "250")
        client.ask("DATA", "354")
        client.send_raw(message + b".\r\n")
        client.expect(answer)
    assert [message["data"] for message in server.messages] == [b"Subject: [external] x\r\n\r\nx\r\n.\r\n"]


@pytest.fixture
def resident_in_c(place):
    """Built and started by the page's commands."""
    pathlib.Path("long-lines.c").write_text(C)
    build, commands = C_SERVICE.split("\n", 1)
    shell(build.replace("-O2", "-O2 -Wall -Wextra -Werror") + "\nmv long-lines bin\n")
    with started(place(commands), pathlib.Path("run/left/long-lines")) as hook:
        yield hook


@pytest.mark.parametrize("message, answer", [
    (b"", "accept\n"), (b"Subject: x\r\n\r\nx", "accept\n"), (b"\xff" * 998 + b"\r\n" + b"\0" * 998, "accept\n"),
    (b"x\r\n" * 2_000_000, "accept\n"), (b"x\r\n" + b"x" * 999 + b"\r\n", "reject 550 5.6.0 A line has 999 octets\n"),
    (b"\xff" * 5_000_000, "reject 550 5.6.0 A line has 5000000 octets\n")], ids=range(6))
def test_resident_hook_in_c(resident_in_c, message, answer):
    event = hooks.sample("data", rcpt_to=[{"address": f"user{n}@mail.example", "params": {}} for n in range(10000)])
    with contextlib.ExitStack() as closing:
        for _ in range(5):     # connected and silent
            closing.enter_context(socket.socket(socket.AF_UNIX)).connect(resident_in_c.path)
        assert ask(resident_in_c, event, message) == answer
    assert ask(resident_in_c, event) == ""


def test_resident_hook_in_c_through_smtpwarp(resident_in_c, warp, mail_server):  # pylint: disable=unused-argument
    proxy = warp("--hooks", "etc/smtpwarp/hooks", upstream=mail_server())
    client = proxy.greeted()
    for length, answer in (998, "250"), (999, "550 5.6.0 A line has 999 octets"):
        client.ask("MAIL FROM:<alice@client.example>", "250")
        client.ask("RCPT TO:<bob@mail.example>", "250")
        client.ask("DATA", "354")
        client.send_raw(b"Subject: x\r\n\r\n" + b"x" * length + b"\r\n.\r\n")
        client.expect(answer)


def test_go_hook_is_whole():
    """Debian's Go takes 450 MB, so make test does not compile it: this holds it to its other half, the first hook."""
    assert GO.startswith("// Refuses") and "package main" in GO and GO.count("{") == GO.count("}")
    assert ANSWER.strip() in GO and "LEFT_FILE" in GO and ANSWER.strip() in SHELL
    assert GO_BUILD.splitlines()[1] == BY_HAND.splitlines()[-1]


# Complete

def test_every_verdict_word_is_in_the_page():
    assert len(WORDS) > 10
    assert set(WORDS.values()) == set(re.findall(r"^\.It Cm ([a-z-]+)", section("VERDICTS"), re.M))


def test_words_of_events_are_those_of_the_program():
    source = (TOP / "pure/verdict.c").read_text()
    sets = {name: set(re.findall(r"BIT\((\w+)\)", text))
            for name, text in re.findall(r"(always|route) = ([^;]*);", source)}
    for event, text in re.findall(r"case HOOK_(\w+):\s+return (always[^;]*);", source):
        wanted = set(re.findall(r"BIT\((\w+)\)", text)) | set().union(*(sets[name] for name in sets if name in text))
        item = re.search(rf"^\.It Cm {event.lower()}$(.*?)^\.(?:It|El)\b", section("EVENTS"), re.M | re.S)[1]
        verdicts = " ".join(re.findall(r"^\.Cm (.*)$", item.partition("Verdicts:")[2], re.M)).split()
        assert sorted(verdicts) == sorted(WORDS[word] for word in wanted), event


def keys(value):
    if isinstance(value, list):
        return set().union(*map(keys, value))
    if not isinstance(value, dict):
        return set()
    below = (keys(inner) for name, inner in value.items() if name not in ("params", "hooks"))
    return set(value).union(*below)


@pytest.mark.parametrize("event", hooks.EVENTS)
def test_every_field_of_the_samples_is_documented(event):
    """Here, or for records of the log, which close and log hooks get, in smtpwarp-log(5)."""
    text = (hooks.SAMPLES / (f"{event}.json" if event != "log" else "log.jsonl")).read_text()
    fields = set().union(*(keys(json.loads(line)) for line in text.splitlines()))
    assert len(fields) > 10
    page = LOG if event in ("close", "log") else section("INPUT")
    assert fields - macro_words("Va", page) == set()


def test_every_event_of_the_stream_is_documented():
    events = {json.loads(line)["event"] for line in (hooks.SAMPLES / "log.jsonl").read_text().splitlines()}
    assert len(events) > 4 and events <= set(re.findall(r"^\.Ss (\w+)$", LOG, re.M))
    assert ".Xr smtpwarp-log 5" in section("INPUT").partition("\n.Ss close\n")[2].partition("\n.Ss log\n")[0]
    assert ".Xr smtpwarp-log 5" in section("INPUT").partition("\n.Ss log\n")[2]


def test_every_folder_is_in_the_page():
    assert set(re.findall(r"^\.It Cm (\w+)$", section("EVENTS"), re.M)) == set(hooks.EVENTS)
    assert {name for name in re.findall(r"^    (\w+)/$", FOLDERS, re.M)} <= set(hooks.EVENTS)


def test_options_that_are_named_exist():
    known = subprocess.run([TOP / "smtpwarp", "--help"], capture_output=True, text=True, check=True).stdout
    named = set(re.findall(r"\bFl Fl ([a-z][a-z-]*)", PAGE)) | set(re.findall(r"(?<![\w-])--([a-z][a-z-]*)", PAGE))
    assert len(named) > 5
    named -= {"jitless"}    # Node's
    assert [name for name in sorted(named) if f"  --{name} " not in known] == []


# Shipped hooks

SHIPPED = sorted(path for path in (TOP / "hooks").iterdir() if path.is_file())


def item_of(path):
    items = re.findall(r"^\.It Nm (\S+)\n(.*?)(?=^\.(?:It|El)\b)", section("HOOKS THAT SHIP"), re.M | re.S)
    return dict(items).get(path.stem)


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.stem)
def test_every_hook_is_in_the_page(path):
    item = item_of(path)
    assert item, f"{path.stem} has no paragraph"
    text = path.read_text()
    events = re.search(r"^[#* ]*Events: (.*)$", text, re.M)[1].split()
    needs = re.search(r"^[#* ]*Needs: (.*)$", text, re.M)[1]
    variables = re.search(r"^[#* ]*Variables:(.*?)^[#* ]*\n", text, re.M | re.S)[1]
    lines = re.findall(r"^[#* ]*  ((?:[A-Z][A-Z_]+,? )+) ", variables, re.M)
    names = {word for line in lines for word in re.findall(r"\w+", line)}
    assert set(events) == set(re.search(r"^Event[s]?:\n\.Cm (.*)\.$", item.replace(" .\n", ".\n"), re.M)[1].split())
    assert names - macro_words("Ev", item) == set()
    assert {word for word in re.findall(r"[\w.+-]*\w", needs.partition("(")[0])} - set(re.findall(r"[\w.+-]*\w", item)) == set()


def test_page_names_no_other_hooks():
    named = set(re.findall(r"^\.It Nm (\S+)$", section("HOOKS THAT SHIP"), re.M))
    assert named == {path.stem for path in SHIPPED}


# The page itself

def test_page_has_its_sections():
    assert re.findall(r"^\.Sh (.*)$", PAGE, re.M) == [
        "NAME", "DESCRIPTION", "A FIRST HOOK", "A RESIDENT HOOK", "HOOKS BY LANGUAGE", "THE HOOKS DIRECTORY", "EVENTS", "INPUT", "VERDICTS",
        "SEVERAL HOOKS", "FAILURES", "CLOSE AND LOG HOOKS", "ENVIRONMENT", "TRYING A HOOK", "HOOKS THAT SHIP",
        "FILES", "SEE ALSO", "STANDARDS", "CAVEATS", "SECURITY CONSIDERATIONS"]
