"""The shipped hooks rspamd, clamav and spamassassin with the real daemons: by hand, and through smtpwarp.

The daemons of a module run in a network namespace of the module's own and keep all their state in directories of its
own. clamd knows one signature, that of the EICAR test file; rspamd has a few rules in Lua that do what a field of the
message says; spamd has Debian's rules and no network.
"""
import contextlib
import os
import pathlib
import shutil
import socket
import subprocess
import tempfile
import threading

import pytest

import mta
import netns
from hooks import Hooks, shipped
from test_hooks_content import BINARY, HOSTILE, MULTIPART, OCTETS, broken_sed, in_base64, part, run_hook, submit
from waiting import wait_until
from warp import BINARY as PROGRAM

pytestmark = pytest.mark.skipif(bool(netns.unsupported()), reason=netns.unsupported())

EICAR = rb"X5O!P%@AP[4\PZX54(P^)7CC)7}$EICAR-STANDARD-ANTIVIRUS-TEST-FILE!$H+H*"
SA_GTUBE = b"XJS*C4JDBQADN1.NSBN3*2IDNEN*GTUBE-STANDARD-ANTI-UBE-TEST-EMAIL*C.34X"
RSPAMD_GTUBE = b"JS*C4JDBQADN1.NSBN3*2IDNEN*GTUBE-STANDARD-ANTI-UBE-TEST-EMAIL*C.34X"   # a letter before it says what
HEAD = (b"From: Alice <alice@client.example>\r\nTo: bob@mail.example\r\nSubject: lunch\r\n"
        b"Date: Fri, 20 Nov 2026 20:59:11 +0000\r\nMessage-ID: <20261120205911.009445@client.example>\r\n")
PLAIN = HEAD + b"\r\nShall we meet at noon?\r\n"
BIG = (HEAD + b"Content-Type: application/zip\r\nContent-Transfer-Encoding: base64\r\n\r\n" +
       in_base64(os.urandom(7_200_000)))
FORGED = b"X-Spam-Status: No, score=-100.0 required=5.0 tests=FORGED autolearn=no\r\n" + PLAIN
MANY = [{"address": f"recipient{number}@{'long' * 50}.mail.example", "params": {}} for number in range(1000)]
FOREIGN = {"ip": "2001:db8::7", "port": 4711, "tls": None}


# The daemons

@pytest.fixture(scope="module")
def host():
    """In the place of conftest's: one namespace for the module, with its daemons inside."""
    with netns.single() as namespace, namespace:
        yield namespace


@contextlib.contextmanager
def directory(prefix):
    """For daemons that are not root: pytest's own is closed to others."""
    path = pathlib.Path(tempfile.mkdtemp(prefix=f"smtpwarp-{prefix}-"))
    path.chmod(0o755)
    try:
        yield path
    finally:
        shutil.rmtree(path)


@contextlib.contextmanager
def daemon(path, *command, ready):
    with open(path / "log", "wb") as log:
        process = subprocess.Popen([*mta.DIE_WITH_PARENT, *map(str, command)], stdin=subprocess.DEVNULL, stdout=log,
                                   stderr=log, cwd=path)
    try:
        wait_until(lambda: connects(ready) or process.poll() is not None, lambda: (path / "log").read_text(), 120)
        assert process.poll() is None, (path / "log").read_text()
        yield
    finally:
        process.terminate()
        try:
            process.wait(20)
        finally:
            process.kill()


def connects(address):
    family = socket.AF_UNIX if isinstance(address, str) else socket.AF_INET
    with socket.socket(family) as sock:
        return sock.connect_ex(address) == 0


@pytest.fixture(scope="module")
def clamd(host):    # pylint: disable=unused-argument
    with directory("clamd") as path:
        (path / "db").mkdir()
        (path / "db" / "test.ndb").write_text(f"Eicar-Test-Signature:0:*:{EICAR.hex()}\n")
        (path / "conf").write_text(f"LocalSocket {path}/sock\nTCPSocket 3310\nTCPAddr 127.0.0.1\nForeground yes\n"
                                   f"DatabaseDirectory {path}/db\nTemporaryDirectory {path}\nMaxFileSize 12M\n"
                                   "StreamMaxLength 13M\nAlertExceedsMax yes\n")
        with daemon(path, "/usr/sbin/clamd", "-c", path / "conf", ready=str(path / "sock")):
            yield {"CLAMD_SOCKET": str(path / "sock")}


RSPAMD_CONF = """
options {{
    filters = "regexp"; enable_test_patterns = true;
    url_tld = "{path}/tld"; tempdir = "{path}"; hs_cache_dir = "{path}";
    dns {{ nameserver = ["127.0.0.1"]; }}
}}
logging {{ type = "console"; level = "warning"; }}
actions {{
    reject = 100; rewrite_subject = 50; add_header = 20; greylist = 10; subject = "[spam] %s";
    discard = {{ flags = ["no_threshold"]; }} quarantine = {{ flags = ["no_threshold"]; }}
    hold = {{ flags = ["no_threshold"]; }}
}}
lua = "{path}/rules.lua";
worker "normal" {{ bind_socket = "127.0.0.1:11333"; count = 2; }}
worker "controller" {{ bind_socket = "127.0.0.1:11334"; count = 1; password = "open; sesame\\""; }}
"""
RSPAMD_RULES = r"""
local function field(task, name)
  local value = task:get_header(name)
  return value and tostring(value)
end
rspamd_config:register_symbol({ name = 'ORDERED', type = 'prefilter', callback = function(task)
  local wants = { sender = { change_from = 'x@y.example' }, recipients = { add_rcpt = { 'a@b.example' }, del_rcpt = { 'bob@mail.example' } },
    quarantine = { reject = 'quarantine' }, discard = { reject = 'discard' }, nothing = { no_action = true },
    headers = { add_headers = { ['X Bad'] = 'x', ['X-Good'] = 'y' }, remove_headers = { ['X-One'] = 1, ['X-All'] = 0 } },
    mark = { spam_header = 'Probably' }, marks = { spam_header = { ['X-Junk'] = 'a\r\naccept', ['X-Spam'] = 'So' } } }
  if field(task, 'X-Wants') then task:set_milter_reply(wants[field(task, 'X-Wants')]) end
  local action = field(task, 'X-Action')
  if action then task:set_pre_result(action, field(task, 'X-Text')) end
end })
rspamd_config:register_symbol({ name = 'SCORED', score = 1, callback = function(task)
  local score = field(task, 'X-Score')
  if score then task:insert_result('SCORED', tonumber(score)) end
end })
rspamd_config:register_symbol({ name = 'MARKED', score = 100, callback = function(task)
  for _, part in ipairs(task:get_text_parts() or {}) do
    if tostring(part:get_content()):find('orange marker') then task:insert_result('MARKED', 1) end
  end
end })
rspamd_config:register_symbol({ name = 'EDITED', score = 0, callback = function(task)
  local from, recipients = task:get_from('smtp'), task:get_recipients('smtp') or {}
  local sender = from and from[1] and from[1].addr or ''
  if field(task, 'X-Edit') then
    task:set_milter_reply({
      add_headers = {
        ['X-Seen'] = string.format('from=%s to=%s count=%d ip=%s helo=%s user=%s id=%s', sender,
          recipients[1] and recipients[1].addr, #recipients, task:get_from_ip(), task:get_helo(), task:get_user(),
          task:get_queue_id()),
        ['X-Twice'] = { { value = 'first\r\n\tfolded', order = 0 }, { value = 'second', order = 1 } },
        ['X-Evil'] = 'value\r\n\r\nreject 550 no',
      },
      remove_headers = { ['X-Secret'] = 0 },
    })
  end
end })
"""


@pytest.fixture(scope="module")
def rspamd(host):   # pylint: disable=unused-argument
    with directory("rspamd") as path:
        (path / "tld").write_text("com\nexample\n")    # the whole list takes seconds to compile
        (path / "rules.lua").write_text(RSPAMD_RULES)
        (path / "conf").write_text(RSPAMD_CONF.format(path=path))
        with daemon(path, "rspamd", "-f", "-i", "-c", path / "conf", ready=("127.0.0.1", 11333)):
            yield {"RSPAMD_URL": "http://127.0.0.1:11333"}


SPAMASSASSIN_RULES = r"""
use_bayes 0
report_safe 1
rewrite_header Subject [spam]
score RDNS_NONE 0
body LOCAL_MARK /orange marker/
header LOCAL_FIELD X-Marked =~ /orange/
score LOCAL_FIELD 0.1
score LOCAL_MARK 8
header LOCAL_RELAY X-Spam-Relays-External =~ /^\[ ip=2001:db8::7 rdns= helo=(client\.example|a__b) .* envfrom=bounce\@/
score LOCAL_RELAY 0.1
header LOCAL_SENDER EnvelopeFrom =~ /^bounce\@client\.example$/
score LOCAL_SENDER 0.1
"""


@contextlib.contextmanager
def run_spamd(rules, *options):
    with directory("spamd") as path:
        for file in pathlib.Path("/etc/spamassassin").glob("*.pre"):
            shutil.copy(file, path)
        (path / "local.cf").write_text(rules)
        with daemon(path, "/usr/sbin/spamd", "--local", "--nouser-config", "--username=nobody", "--syslog=stderr",
                    f"--socketpath={path}/sock", *options, f"--siteconfigpath={path}",
                    "--configpath=/usr/share/spamassassin", f"--helper-home-dir={path}", "--max-children=3",
                    ready=str(path / "sock")):
            yield {"SPAMD_SOCKET": str(path / "sock")}


@pytest.fixture(scope="module")
def spamd(host):    # pylint: disable=unused-argument
    with run_spamd(SPAMASSASSIN_RULES, "--listen=127.0.0.1:783") as env:
        yield env


DAEMONS = {"clamav": "clamd", "rspamd": "rspamd", "spamassassin": "spamd"}


@pytest.fixture(params=DAEMONS)
def scanner(request):
    """A hook's name and its environment, its daemon running."""
    return request.param, request.getfixturevalue(DAEMONS[request.param])


def verdict(name, env, message, **fields):
    """The lines of a run that went well."""
    done = run_hook(name, message, env, **fields)
    assert done.returncode == 0, done.stderr
    return done.stdout.decode().split("\n")[:-1]


def failure(name, env, message=FORGED, **fields):
    """The last line on stderr of a run that failed for want of a service: nothing is accepted or refused."""
    done = run_hook(name, message, env, **fields)
    assert (done.returncode, done.stdout) == (75, b""), done.stderr
    line = done.stderr.decode().splitlines()[-1]
    assert line.startswith(f"{name}: ")
    return line


@pytest.fixture
def impostor(host, tmp_path):   # pylint: disable=unused-argument
    """impostor(answer): a Unix socket and a port where everybody gets that answer, once they have sent something;
    impostor.answer = another one."""
    with contextlib.ExitStack() as closing:
        def make(answer):
            path = str(tmp_path / "impostor")
            doors = [socket.socket(socket.AF_UNIX), socket.create_server(("127.0.0.1", 0))]
            doors[0].bind(path)
            doors[0].listen()
            for door in doors:
                closing.callback(door.close)
                closing.callback(door.shutdown, socket.SHUT_RDWR)   # wakes accept()
                threading.Thread(target=serve, args=(door,), daemon=True).start()
            return path, doors[1].getsockname()[1]

        def serve(door):
            with contextlib.suppress(OSError):
                while True:
                    client, _ = door.accept()
                    with client, contextlib.suppress(OSError):
                        client.recv(1 << 20)
                        client.sendall(start.answer)
                        client.shutdown(socket.SHUT_WR)
                        while client.recv(1 << 20):
                            pass

        def start(answer):
            start.answer = answer
            return make(answer)
        yield start


# All three

MAILBOX_LINES = {"from": b"From a@b.example\r\n", "from-at-a-time": b"From a@b.example Mon Jan  1 00:00:00 2024\r\n",
                 "quoted-from": b">From a@b.example\r\n", "quoted-from-at-a-time": b">From a Mon Jan  1 00:00:00 2024\r\n"}
ANY_MESSAGE = {
    "plain": PLAIN, "empty": b"", "empty-line": b"\r\n", "no-header": b"only text\r\n", "no-end-of-header": HEAD,
    "no-end": PLAIN[:-2], "octets": HEAD + b"\r\n" + BINARY + b"\r\n",
    "nul-in-header": b"X-Nul: a\0b\r\n" + PLAIN, "8-bit-header": b"Subject: caf\xe9 \xff\r\n\r\nx\r\n",
    "no-message-id": b"From: a@client.example\r\nSubject: x\r\n\r\nx\r\n",
    "long-line": PLAIN + b"x" * 200_000 + b"\r\n",
    "fields": b"".join(b"X-Field-%d: value\r\n" % number for number in range(5000)) + PLAIN, "big": BIG,
}


@pytest.mark.parametrize("kind", ANY_MESSAGE)
def test_a_message_of_any_kind_is_looked_at(kind, scanner):
    name, env = scanner
    lines = verdict(name, env, ANY_MESSAGE[kind], message_id=None)
    assert not [line for line in lines if line.split()[0] not in ("log", "add-header", "remove-header")]
    assert name == "clamav" or any(line.startswith(f"log {name}_score ") for line in lines)


def test_any_envelope_is_taken(scanner):
    """A null sender, a thousand recipients with long names, and values that mean something elsewhere. PROTOCOL 78"""
    name, env = scanner
    hostile = {"address": HOSTILE + "ü" * 3000, "params": {"X": HOSTILE}}
    for fields in ({"mail_from": {"address": "", "params": {}}, "rcpt_to": MANY, "helo": None},
                   {"mail_from": hostile, "rcpt_to": [hostile], "helo": HOSTILE * 50, "auth": HOSTILE}):
        lines = verdict(name, env, PLAIN, **fields)
        assert not [line for line in lines if line.split()[0] not in ("log", "add-header", "remove-header")]


def test_a_trial_by_hand(scanner, tmp_path):
    """--try-hook, for clean mail and for what is refused."""
    name, env = scanner
    refused = {"clamav": EICAR, "rspamd": b"X" + RSPAMD_GTUBE, "spamassassin": SA_GTUBE}[name]
    for text, reply in ((b"Hello", "none of smtpwarp's: it goes on"), (refused, "550 5.7.1 ")):
        (tmp_path / "message").write_bytes(HEAD + b"\r\n" + text + b"\r\n")
        done = subprocess.run([PROGRAM, "--try-hook", "data", shipped(name), tmp_path / "message"], check=True, capture_output=True, text=True,
                              env={"PATH": os.environ["PATH"], "SPAMASSASSIN_REJECT": "900", **env}, timeout=60)
        assert f"\nreply    {reply}" in done.stdout and "\nend      exit status 0\n" in done.stdout, done.stdout


UNREACHABLE = {
    "clamav": [{"CLAMD_SOCKET": "/nowhere/clamd"}, {"CLAMD_HOST": "127.0.0.1:1"}, {"CLAMD_HOST": "[::1]"}],
    "rspamd": [{"RSPAMD_URL": "http://127.0.0.1:1"}, {"RSPAMD_URL": "file:///etc"}, {"RSPAMD_URL": "-o/tmp/x"}],
    "spamassassin": [{"SPAMD_SOCKET": "/nowhere/spamd"}, {"SPAMD_PORT": "1"}, {"SPAMD_HOST": "::1", "SPAMD_PORT": "1"}],
}


@pytest.mark.parametrize("name", DAEMONS)
def test_a_daemon_that_is_not_there_accepts_nothing(name, host):   # pylint: disable=unused-argument
    for env in UNREACHABLE[name]:
        failure(name, env)


@pytest.mark.parametrize("answer", [b"", b"\0", b"\r\n\r\n", b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n",
                                    b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}",
                                    b"HTTP/1.1 200 OK\r\nContent-Length: 90\r\n\r\n{\"action\": \"no action\"",
                                    b"HTTP/1.1 500 no\r\nContent-Length: 0\r\n\r\n", b"SPAMD/1.1 0 EX_OK\r\n\r\n",
                                    b"SPAMD/1.1 76 Bad header line\r\n\r\n", b"stream: OK? ERROR\0", b"OK\0",
                                    b"stream: OK\0stream: OK\0"])
def test_a_daemon_that_talks_nonsense_accepts_nothing(answer, impostor):
    path, port = impostor(answer)
    failure("clamav", {"CLAMD_SOCKET": path})
    failure("rspamd", {"RSPAMD_URL": f"http://127.0.0.1:{port}"})
    failure("spamassassin", {"SPAMD_SOCKET": path})
    failure("spamassassin", {"SPAMD_PORT": str(port)})


@pytest.mark.parametrize("name, env", [
    ("clamav", {"CLAMD_SOCKET": "/run/x,shut-none"}), ("clamav", {"CLAMD_HOST": "a b"}),
    ("spamassassin", {"SPAMASSASSIN_REJECT": "x"}), ("spamassassin", {"SPAMASSASSIN_REPLACE": "perhaps"}),
    ("spamassassin", {"SPAMASSASSIN_MAX_SIZE": "0.5"}), ("spamassassin", {"SPAMASSASSIN_TOO_BIG": "reject"}),
])
def test_a_wrong_variable_is_told(name, env):
    done = run_hook(name, PLAIN, env)
    assert (done.returncode, done.stdout) == (78, b"")
    assert list(env)[0] in done.stderr.decode().splitlines()[-1]


def through(warp, mail_server, tmp_path, name, env):
    hooks, server = Hooks(tmp_path / "hooks"), mail_server()
    hooks.link("data", name)
    return warp(*hooks.options, upstream=server, env=env).listen(), server


def taken(server):
    """The header fields that the server's last message has on top of its From, and all that follows."""
    top, start, rest = server.messages[-1]["data"].partition(b"From: Alice")
    return top.decode().split("\r\n")[:-1], start + rest


# clamav

INFECTED = ["log virus Eicar-Test-Signature.UNOFFICIAL",
            "reject 550 5.7.1 Virus found: Eicar-Test-Signature.UNOFFICIAL"]
CARRIERS = {
    "text": HEAD + b"\r\n" + EICAR + b"\r\n",
    "attachment": HEAD[:-2] + b"\r\n" + MULTIPART + part(b"", body=b"see there") +
                  part(b"Content-Type: application/x-msdownload", b"Content-Transfer-Encoding: base64",
                       body=in_base64(EICAR)) + b"--b--\r\n",
    # what clamd, left alone, does not take for mail
    "unknown-field-first": b"Foo: bar\r\nContent-Transfer-Encoding: base64\r\n\r\n" + in_base64(EICAR),
    "pdf-first": b"%PDF-1.4: bar\r\nContent-Transfer-Encoding: base64\r\n\r\n" + in_base64(EICAR),
    "big": BIG[:-2] + b"\r\n--b\r\n" + EICAR + b"\r\n",
    "blank-before-colon": HEAD + b"Content-Transfer-Encoding : base64\r\n\r\n" + in_base64(EICAR),
    "blank-before-a-part's-colon": HEAD[:-2] + b"\r\n" + MULTIPART + part(
        b"Content-Type\t: application/x-msdownload", b"content-transfer-encoding\t : base64", body=in_base64(EICAR)) + b"--b--\r\n",
    "LF": (HEAD + b"Content-Transfer-Encoding: base64\r\n\r\n" + in_base64(EICAR)).replace(b"\r\n", b"\n"),
    **{f"below-{name}": line + HEAD + b"Content-Transfer-Encoding: base64\r\n\r\n" + in_base64(EICAR)
       for name, line in MAILBOX_LINES.items()},
}


@pytest.mark.parametrize("carrier", CARRIERS)
def test_clamav_finds_the_virus_in(carrier, clamd):
    assert verdict("clamav", clamd, CARRIERS[carrier]) == INFECTED


def test_clamav_over_tcp(clamd):    # pylint: disable=unused-argument
    for address in "127.0.0.1", "127.0.0.1:3310":
        assert verdict("clamav", {"CLAMD_HOST": address}, CARRIERS["text"]) == INFECTED
        assert verdict("clamav", {"CLAMD_HOST": address}, PLAIN) == []


def test_clamav_does_not_accept_what_clamd_did_not_scan(clamd):
    line = failure("clamav", clamd, HEAD + b"\r\n" + b"x" * (13 << 20))
    # clamd answers and closes at once, and the answer may be lost
    assert "INSTREAM size limit exceeded. ERROR" in line or "longer than its StreamMaxLength" in line
    assert "Heuristics.Limits.Exceeded" in failure("clamav", clamd, HEAD + b"\r\n" + b"x\r\n" * (4 << 20))


def test_clamav_cleans_the_name_of_a_virus(impostor):
    path, _ = impostor(b"stream: Evil $(id)\xff; x FOUND\0")
    assert verdict("clamav", {"CLAMD_SOCKET": path}, PLAIN) == [
        "log virus Evil__(id)___x", "reject 550 5.7.1 Virus found: Evil__(id)___x"]


def test_clamav_through_smtpwarp(warp, mail_server, clamd, tmp_path):
    proxy, server = through(warp, mail_server, tmp_path, "clamav", clamd)
    assert submit(proxy, CARRIERS["attachment"]) == "550 5.7.1 Virus found: Eicar-Test-Signature.UNOFFICIAL"
    record = proxy.wait_for("message")
    assert (record["result"], record["hooks"]) == ("rejected", {"virus": "Eicar-Test-Signature.UNOFFICIAL"})
    assert not server.messages
    assert submit(proxy, PLAIN) == "250 2.0.0 taken"
    assert [message["data"] for message in server.messages] == [PLAIN + b".\r\n"]


def test_clamav_without_clamd_through_smtpwarp(warp, mail_server, tmp_path):
    proxy, server = through(warp, mail_server, tmp_path, "clamav", {"CLAMD_SOCKET": "/nowhere/clamd"})
    assert submit(proxy, PLAIN).startswith("451 4.3.0 ")
    assert not server.messages
    assert "no answer from UNIX-CONNECT:/nowhere/clamd" in proxy.log_text()


# rspamd

def does(env, message, **fields):
    """What rspamd's hook says, without what it logs and the fields that any message gets or loses."""
    return [line for line in verdict("rspamd", env, message, **fields)
            if not line.startswith("log ") and line != "remove-header X-Spam"]


def test_rspamd_actions(rspamd):
    def mime(text, *fields):
        head = b"".join(field + b"\r\n" for field in fields)
        return head + HEAD + b"MIME-Version: 1.0\r\nContent-Type: text/plain\r\n\r\n" + text + b"\r\n"

    subject = ["remove-header Subject", "add-header Subject: [spam] lunch"]
    for message, lines in (
            (mime(b"X" + RSPAMD_GTUBE), ["reject 550 5.7.1 Gtube pattern"]),
            (mime(b"Y" + RSPAMD_GTUBE), ["add-header X-Spam: Yes"]),
            (mime(b"Z" + RSPAMD_GTUBE), subject),
            (mime(b"A" + RSPAMD_GTUBE), []),
            (mime(b"", b"X-Score: 5"), []),
            (mime(b"", b"X-Score: 10"), ["defer 451 4.7.1 Try again later"]),
            (mime(b"", b"X-Score: 20"), ["add-header X-Spam: Yes"]),
            (mime(b"", b"X-Score: 50"), subject),
            (mime(b"", b"X-Score: 100"), ["reject 550 5.7.1 Spam message rejected"]),
            (mime(b"", b"X-Action: soft reject", b"X-Text: come again"), ["defer 451 4.7.1 come again"]),
            (mime(b"", b"X-Action: reject", b"X-Text: =?utf-8?q?a=0D=0Aaccept?="), ["reject 550 5.7.1 a  accept"]),
            (mime(b"", b"X-Action: discard"), ["discard"]),
    ):
        assert does(rspamd, message) == lines, message


def test_rspamd_action_without_a_verdict(rspamd):
    line = failure("rspamd", rspamd, b"X-Action: quarantine\r\n" + PLAIN)
    assert line == "rspamd: http://127.0.0.1:11333: its action quarantine is not in the table: set RSPAMD_ACTIONS"


@pytest.mark.parametrize("table, action, lines", [
    ("hold=defer", "hold", ["defer 451 4.7.1 Try again later"]), (" hold = mark ;quarantine= reject", "hold", ["add-header X-Spam: Yes"]),
    ("hold=mark;quarantine=reject;", "quarantine", ["reject 550 5.7.1 Spam message rejected"]), ("hold=accept", "hold", []),
    ("soft reject=accept", "soft reject", []), ("discard=reject;\nhold=discard", "hold", ["discard"]),
    ("discard=reject", "discard", ["reject 550 5.7.1 Spam message rejected"])])
def test_rspamd_actions_by_a_table(rspamd, table, action, lines):
    assert does({**rspamd, "RSPAMD_ACTIONS": table}, b"X-Action: %s\r\n" % action.encode() + PLAIN) == lines


@pytest.mark.parametrize("table", ["hold", "hold=quarantine", "=defer", "hold=defer;other=", "hold=defer,other=reject"])
def test_rspamd_table_that_is_wrong(table):
    done = run_hook("rspamd", PLAIN, {"RSPAMD_ACTIONS": table})
    assert (done.returncode, done.stdout) == (78, b"") and b"RSPAMD_ACTIONS has '" in done.stderr


@pytest.mark.parametrize("wants, action, ignored, lines", [
    ("sender", "no action", "change_from", []), ("recipients", "no action", "add_rcpt, del_rcpt", []),
    ("quarantine", "reject", "quarantine", ["reject 550 5.7.1 Spam message rejected"]), ("quarantine", "no action", None, []),
    ("discard", "reject", None, ["discard"]), ("nothing", "reject", None, []), ("nothing", "hold", None, []),
    ("headers", "no action", "X Bad, remove_headers of one X-One", ["remove-header X-All", "remove-header X-One", "add-header X-Good: y"]),
    ("mark", "add header", None, ["add-header X-Spam: Probably"]), ("mark", "no action", None, []),
    ("marks", "add header", None, ["remove-header X-Junk", "add-header X-Junk: a  accept", "add-header X-Spam: So"])])
def test_rspamd_says_what_it_was_asked_for_and_does_not_do(rspamd, wants, action, ignored, lines):
    message = b"X-Wants: %s\r\nX-Action: %s\r\n" % (wants.encode(), action.encode()) + PLAIN
    said = [line.partition(" ")[2] for line in verdict("rspamd", rspamd, message) if line.startswith("log rspamd_ignored ")]
    assert said == ([f"rspamd_ignored {ignored}"] if ignored else [])
    assert sorted(does(rspamd, message)) == sorted(lines)


@pytest.mark.parametrize("line", MAILBOX_LINES)
def test_rspamd_reads_the_header_below_the_line_of_a_mailbox(line, rspamd):
    order = HEAD.replace(b"Subject", b"X-Action: reject\r\nSubject")
    assert verdict("rspamd", rspamd, MAILBOX_LINES[line] + order + b"\r\nx\r\n")[-1] == "reject 550 5.7.1 Spam message rejected"


def test_rspamd_reads_fields_with_blanks_before_the_colon(rspamd):
    assert does(rspamd, HEAD + b"X-Action : reject\r\n\r\nx\r\n") == ["reject 550 5.7.1 Spam message rejected"]
    for blank in b"", b" ", b"\t":
        fields = b"Content-Type" + blank + b": text/plain", b"Content-Transfer-Encoding" + blank + b": base64"
        text = in_base64(b"an orange marker")
        for message in b"\r\n".join([*fields, b"", text]), MULTIPART.partition(b"1.0\r\n")[2] + part(*fields, body=text) + b"--b--\r\n":
            assert does(rspamd, HEAD + b"MIME-Version: 1.0\r\n" + message) == ["reject 550 5.7.1 Spam message rejected"]


def test_rspamd_judges_no_part_of_a_message(rspamd, tmp_path):
    env = {**rspamd, **broken_sed(tmp_path)}
    assert failure("rspamd", env, PLAIN + b"x\r\n" * 1000).endswith("the message broke off")


def test_rspamd_is_logged(rspamd):
    lines = verdict("rspamd", rspamd, b"X-Score: 20.123\r\n" + PLAIN)
    assert lines[:3] == ["log rspamd_action add header", "log rspamd_score 20.12", "log rspamd_symbols SCORED(20.12)"]


def seen(env, **fields):
    """What rspamd's rule saw of the envelope."""
    prefix = "add-header X-Seen: "
    [line] = [line for line in does(env, b"X-Edit: yes\r\n" + PLAIN, **fields) if line.startswith(prefix)]
    return line[len(prefix):]


def test_rspamd_sees_the_envelope(rspamd):
    assert seen(rspamd, auth="bob") == ("from=alice@client.example to=bob@mail.example count=2 ip=10.0.0.1 "
                                        "helo=client.example user=bob id=01M7XC341EM1X1D0XBD3DX3356-1")
    assert seen(rspamd, client=FOREIGN, mail_from={"address": "", "params": {}}).startswith(
        "from= to=bob@mail.example count=2 ip=2001:db8::7 helo=client.example user=nil ")


def test_rspamd_gets_no_field_from_the_client(rspamd):
    """PROTOCOL 78"""
    evil = "x\r\nIP: 192.0.2.1\r\nUser: root\r\n\r\n\u0000\u0085"
    got = seen(rspamd, helo=evil, mail_from={"address": f"a@b{evil}", "params": {}})
    assert " ip=10.0.0.1 helo=xIP: 192.0.2.1User: root user=nil " in got


def test_rspamd_gets_as_many_recipients_as_it_can_take(rspamd):
    assert " count=2" in seen(rspamd, rcpt_to=MANY)
    few = [{"address": f"r{number}@mail.example", "params": {}} for number in range(900)]
    assert " count=900 " in seen(rspamd, rcpt_to=few)


def test_rspamd_edits(rspamd):
    lines = does(rspamd, b"X-Edit: yes\r\nX-Secret: 1\r\n" + PLAIN)
    assert lines[0] == "remove-header X-Secret"
    twice = "add-header X-Twice: "
    assert [line for line in lines if line.startswith(twice)] == [twice + "second", twice + "first folded"]
    assert [line for line in lines if "no" in line.split()] == ["add-header X-Evil: value    reject 550 no"]


def test_rspamd_with_a_password(rspamd):    # pylint: disable=unused-argument
    env = {"RSPAMD_URL": "http://127.0.0.1:11334/"}
    wait_until(lambda: connects(("127.0.0.1", 11334)), "the controller", 60)
    assert does({**env, "RSPAMD_PASSWORD": "open; sesame\""}, b"X-Score: 20\r\n" + PLAIN) == ["add-header X-Spam: Yes"]
    assert "401" in failure("rspamd", {**env, "RSPAMD_PASSWORD": "wrong"})


def test_rspamd_through_smtpwarp(warp, mail_server, rspamd, tmp_path):
    proxy, server = through(warp, mail_server, tmp_path, "rspamd", rspamd)
    edited = b"X-Edit: yes\r\nX-Score: 50\r\nX-Secret: 1\r\nx-spam: no\r\n"
    assert submit(proxy, edited + HEAD + b"\r\n.\r\n" + b"\xff" * 20 + b"\r\n", sender="") == "250 2.0.0 taken"
    top, rest = taken(server)
    assert top[0] == "Subject: [spam] lunch"
    assert top[1] == "X-Twice: first folded"
    assert top[-2:] == ["X-Edit: yes", "X-Score: 50"]
    assert "X-Secret" not in "".join(top) and "x-spam" not in "".join(top)
    assert "id=" + proxy.wait_for("message")["session"] in "".join(top)
    assert rest == HEAD.replace(b"Subject: lunch\r\n", b"") + b"\r\n..\r\n" + b"\xff" * 20 + b"\r\n.\r\n"
    assert proxy.wait_for("message")["hooks"] == {"rspamd_action": "rewrite subject", "rspamd_score": "50",
                                                  "rspamd_symbols": "SCORED(50)"}
    assert submit(proxy, b"X-Score: 100\r\n" + PLAIN) == "550 5.7.1 Spam message rejected"
    assert submit(proxy, b"X-Score: 10\r\n" + PLAIN) == "451 4.7.1 Try again later"
    assert submit(proxy, b"X-Action: discard\r\n" + PLAIN).startswith("250 ")
    results = [proxy.wait_for("message", count)["result"] for count in range(1, 5)]
    assert results == ["accepted", "rejected", "deferred", "discarded"]
    assert len(server.messages) == 1


# spamassassin

SPAM = HEAD + b"\r\nan orange marker\r\n"


def score(lines):
    [line] = [line for line in lines if line.startswith("log spamassassin_score ")]
    return float(line.split()[2])


def hits(lines):
    [line] = [line for line in lines if line.startswith("log spamassassin_tests ")]
    return line.split()[2].split(",")


def test_spamassassin_tags(spamd):
    lines = verdict("spamassassin", spamd, SPAM)
    assert score(lines) > 5 and "LOCAL_MARK" in hits(lines)
    assert "add-header X-Spam-Flag: YES" in lines
    assert lines[2].startswith(f"add-header X-Spam-Status: Yes, score={score(lines)} required=5.0 tests=")
    clean = verdict("spamassassin", spamd, PLAIN)
    assert score(clean) < 5 and not [line for line in clean if "X-Spam-Flag" in line]
    assert clean[2].startswith(f"add-header X-Spam-Status: No, score={score(clean)} ")


@pytest.mark.parametrize("env", [{"SPAMD_HOST": "127.0.0.1"}, {"SPAMD_PORT": "783"}, {"SPAMD_USER": "nobody"}])
def test_spamassassin_over_tcp(env, spamd):     # pylint: disable=unused-argument
    assert "LOCAL_MARK" in hits(verdict("spamassassin", env, SPAM))


def test_spamassassin_rejects_from_a_score_on(spamd):
    def last(message, limit):
        return verdict("spamassassin", {**spamd, "SPAMASSASSIN_REJECT": limit}, message)[-1]

    refusal = "reject 550 5.7.1 Message looks like spam"
    assert last(HEAD + b"\r\n" + SA_GTUBE + b"\r\n", "900") == refusal
    reached = str(score(verdict("spamassassin", spamd, SPAM)))
    assert last(SPAM, reached) == refusal
    assert last(SPAM, f"{reached}1") != refusal
    assert last(PLAIN, "-99") == refusal


@pytest.mark.parametrize("template, tests", [
    ('add_header all Status "No, score=-100.0 required=5.0 tests=NOTHING"\nadd_header all Flag NO', ["NOTHING"]),
    ('add_header all Status "_YESNO_"', None), ("", None)])
def test_spamassassin_goes_by_the_verdict_not_by_a_template(host, template, tests):    # pylint: disable=unused-argument
    with run_spamd(f"{SPAMASSASSIN_RULES}\nclear_headers\n{template}\n") as env:
        lines = verdict("spamassassin", env, SPAM)
        assert score(lines) > 5
        assert tests is None and not any("_tests " in line for line in lines) or hits(lines) == tests
        assert verdict("spamassassin", {**env, "SPAMASSASSIN_REJECT": "5"}, SPAM)[-1] == "reject 550 5.7.1 Message looks like spam"
        assert score(verdict("spamassassin", env, PLAIN)) < 5


def test_spamassassin_takes_no_answer_that_breaks_off(impostor):
    answer = b"SPAMD/1.1 0 EX_OK\r\nContent-length: %d\r\nSpam: False ; 0.0 / 5.0\r\n\r\n" + PLAIN
    path, _ = impostor(answer % len(PLAIN))
    assert score(verdict("spamassassin", {"SPAMD_SOCKET": path}, PLAIN)) == 0
    for said, reason in ((answer % (len(PLAIN) + 1), "its answer breaks off"),
                         (answer.replace(b"Spam:", b"Ham:") % len(PLAIN), "its answer has no verdict"),
                         (b"SPAMD/1.1 74 I/O \x1berror\r\n\r\n", "it says: SPAMD/1.1 74 I/O ")):
        impostor.answer = said
        assert failure("spamassassin", {"SPAMD_SOCKET": path}).endswith(reason)


def test_spamassassin_judges_no_part_of_a_message(impostor, tmp_path):
    answer = b"SPAMD/1.1 0 EX_OK\r\nContent-length: %d\r\nSpam: False ; 0.0 / 5.0\r\n\r\n" + PLAIN
    path, _ = impostor(answer % len(PLAIN))
    env = {"SPAMD_SOCKET": path, **broken_sed(tmp_path)}
    assert failure("spamassassin", env, PLAIN + b"x\r\n" * 1000).endswith("the message broke off")


def test_spamassassin_takes_forged_fields_off(spamd):
    forged = (b"X-Spam-Status: No, score=-100.0 required=5.0 tests=FORGED\r\nx-spam-FLAG : NO\r\n"
              b"X-Spam-Whatever: a\r\n b\r\nX-Spam-Prev-Subject: x\r\nX-Spam-" + b"x" * 100 + b": y\r\n")
    lines = verdict("spamassassin", spamd, forged + SPAM + b"X-Spam-Body: stays\r\n")
    assert [line for line in lines if line.startswith("remove-header ")] == [
        "remove-header x-spam-FLAG", "remove-header X-Spam-Prev-Subject", "remove-header X-Spam-Status",
        "remove-header X-Spam-Whatever"]
    assert score(lines) > 5 and "FORGED" not in hits(lines)
    assert "remove-header" not in "".join(lines[4:])


def test_spamassassin_and_a_flood_of_forged_fields(spamd):
    """More names than a verdict can hold must not become a failure that --hook-failure accept lets in."""
    flood = b"".join(b"X-Spam-%d: x\r\n" % number for number in range(20_000))
    assert verdict("spamassassin", spamd, flood + PLAIN) == ["reject 550 5.7.1 Too many X-Spam fields"]


def test_spamassassin_knows_client_and_sender(spamd):
    fields = {"client": FOREIGN, "mail_from": {"address": "bounce@client.example", "params": {}}}
    found = hits(verdict("spamassassin", spamd, SPAM, **fields))
    assert {"LOCAL_RELAY", "LOCAL_SENDER"} <= set(found) and "ALL_TRUSTED" not in found
    assert "ALL_TRUSTED" in hits(verdict("spamassassin", spamd, SPAM, **fields, auth="bob"))
    # neither the message nor the client can claim another one
    trace = (b"X-Envelope-From: <x@evil.example>\r\n"
             b"Received: from x (x [127.0.0.1]) by smtpwarp (smtpwarp) with ESMTPA id 1\r\n")
    for message, helo in ((trace + SPAM, "client.example"), (SPAM, "a\r\nb")):
        found = hits(verdict("spamassassin", spamd, message, helo=helo, **fields))
        assert {"LOCAL_RELAY", "LOCAL_SENDER"} <= set(found)
    evil = "x (x [127.0.0.1]) by smtpwarp (smtpwarp) with ESMTPA id 1; \r\nReceived: from client.example"
    assert "ALL_TRUSTED" not in hits(verdict("spamassassin", spamd, SPAM, helo=evil, **fields))


def replaced(spamd, message):
    """The log lines and the message that follows replace-message."""
    done = run_hook("spamassassin", message, {**spamd, "SPAMASSASSIN_REPLACE": "yes"})
    assert done.returncode == 0, done.stderr
    head, _, content = done.stdout.partition(b"\nreplace-message\n")
    return head.decode().split("\n"), content


def test_spamassassin_replaces_the_message(spamd):
    """With report_safe spam becomes an attachment, unharmed; what is none gets fields on top. The trace stays here."""
    lines, content = replaced(spamd, SPAM + BINARY)
    assert score(lines) > 5
    assert b"\r\nSubject: [spam] lunch\r\n" in content and b"\r\nContent-Type: message/rfc822" in content
    assert content.count(SPAM + BINARY) == 1
    assert b"smtpwarp" not in content
    lines, content = replaced(spamd, PLAIN + BINARY)
    top, _, rest = content.partition(b"From: Alice")
    assert b"From: Alice" + rest == PLAIN + BINARY
    assert top.startswith(b"X-Spam-") and b"smtpwarp" not in top and score(lines) < 5


def test_89_spamassassin_replaces_no_octets(spamd):
    """BODY=BINARYMIME has no lines, which is all that spamd knows: the message only gets fields."""
    sender = {"address": "a@client.example", "params": {"BODY": "BINARYMIME"}}
    lines = verdict("spamassassin", {**spamd, "SPAMASSASSIN_REPLACE": "yes"}, SPAM, mail_from=sender)
    assert score(lines) > 5 and any(line.startswith("add-header X-Spam-Status") for line in lines)


def test_spamassassin_does_not_accept_what_is_too_big(spamd):
    env = {**spamd, "SPAMASSASSIN_MAX_SIZE": str(len(SPAM) - 1)}
    assert f"the message has {len(SPAM)} octets, SPAMASSASSIN_MAX_SIZE is {len(SPAM) - 1}" in failure(
        "spamassassin", env, SPAM)
    failure("spamassassin", spamd, HEAD + b"\r\n" + b"x" * 10_240_000)
    env["SPAMASSASSIN_TOO_BIG"] = "accept"
    assert verdict("spamassassin", env, b"X-Spam-Flag: NO\r\n" + SPAM) == [
        "log spamassassin_score too-big", "remove-header X-Spam-Flag"]
    assert "LOCAL_MARK" in hits(verdict("spamassassin", {**env, "SPAMASSASSIN_MAX_SIZE": str(len(SPAM))}, SPAM))


def test_spamassassin_through_smtpwarp(warp, mail_server, spamd, tmp_path):
    proxy, server = through(warp, mail_server, tmp_path, "spamassassin", {**spamd, "SPAMASSASSIN_REJECT": "900"})
    assert submit(proxy, b"X-Spam-Status: No, score=-100\r\nX-Spam-Foo: 1\r\n" + SPAM) == "250 2.0.0 taken"
    top, rest = taken(server)
    assert rest == SPAM + b".\r\n"
    assert top[0].startswith("X-Spam-Checker-Version: SpamAssassin ")
    assert "X-Spam-Flag: YES" in top and sum(line.startswith("X-Spam-Status: ") for line in top) == 1
    assert "X-Spam-Foo: 1" not in top and max(map(len, top)) < 100
    record = proxy.wait_for("message")
    assert float(record["hooks"]["spamassassin_score"]) > 5 and "LOCAL_MARK" in record["hooks"]["spamassassin_tests"]
    assert submit(proxy, HEAD + b"\r\n" + SA_GTUBE + b"\r\n") == "550 5.7.1 Message looks like spam"
    assert proxy.wait_for("message", 2)["result"] == "rejected"
    assert len(server.messages) == 1


def test_spamassassin_replaces_through_smtpwarp(warp, mail_server, spamd, tmp_path):
    proxy, server = through(warp, mail_server, tmp_path, "spamassassin", {**spamd, "SPAMASSASSIN_REPLACE": "yes"})
    assert submit(proxy, SPAM + b".dot\r\n" + OCTETS + b"\r\n") == "250 2.0.0 taken"
    [message] = server.messages
    assert SPAM + b"..dot\r\n" + OCTETS + b"\r\n" in message["data"]
    assert b"\r\nSubject: [spam] lunch\r\n" in message["data"] and b"smtpwarp" not in message["data"]

@pytest.mark.parametrize("line", MAILBOX_LINES)
def test_spamassassin_reads_the_header_below_the_line_of_a_mailbox(line, spamd):
    """X-Spam fields below it are forged, too."""
    head = b"X-Spam-Level: *****\r\nX-Marked : orange\r\n" + HEAD
    lines = verdict("spamassassin", spamd, MAILBOX_LINES[line] + head + b"\r\nx\r\n")
    assert "LOCAL_FIELD" in hits(lines) and "MISSING_SUBJECT" not in hits(lines)
    assert "remove-header X-Spam-Level" in lines


@pytest.mark.parametrize("line", MAILBOX_LINES)
def test_spamassassin_replaces_a_message_below_the_line_of_a_mailbox(line, spamd):
    for message in PLAIN, SPAM:
        lines, content = replaced(spamd, MAILBOX_LINES[line] + message)
        assert content.startswith(MAILBOX_LINES[line]) and content.count(b"From a") == 1 and b"smtpwarp" not in content
        top, _, rest = content[len(MAILBOX_LINES[line]):].partition(b"From: Alice")
        assert top.startswith((b"X-Spam-", b"Received: ")) and (score(lines) > 5 or b"From: Alice" + rest == PLAIN)
