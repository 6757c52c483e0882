"""Options, variables, exit codes: DESIGN 3."""
import os
import pathlib
import re
import resource
import shutil
import socket
import subprocess
import tempfile

import pytest

import peers
from hooks import shipped
from warp import BINARY

SIZE_OPTION = "message-size-limit"


def run(*arguments, env=None, **options):
    return subprocess.run([BINARY, *arguments], env={"PATH": "/usr/bin:/bin", **(env or {})}, capture_output=True,
                          text=True, timeout=peers.TIMEOUT, **{"stdin": subprocess.DEVNULL, **options})


def offered_size(proxy):
    return next(text for text in proxy.session().greet("SIZE").texts if text.startswith("SIZE"))


# Where values come from

@pytest.mark.parametrize("form", [["--message-size-limit", "777"], ["--message-size-limit=777"],
                                  ["-message-size-limit", "777"], ["-message-size-limit=777"]])
def test_forms_of_an_option(warp, form):
    assert offered_size(warp(*form)) == "SIZE 777"


def test_variable(warp):
    assert offered_size(warp(env={"SMTPWARP_MESSAGE_SIZE_LIMIT": "778"})) == "SIZE 778"


def test_command_line_wins_over_the_variable(warp):
    assert offered_size(warp("--message-size-limit", 779, env={"SMTPWARP_MESSAGE_SIZE_LIMIT": "5"})) == "SIZE 779"


@pytest.mark.parametrize("separator", [",", " ", ", "])
def test_repeatable_option_in_a_variable(warp, mail_server, separator):
    server = mail_server(banner="220 by variable")
    proxy = warp("--transparent", env={"SMTPWARP_UPSTREAM": separator.join(["127.0.0.1:1", server.name_port])})
    proxy.connect().expect("220 by variable")


def test_command_line_replaces_a_repeatable_variable(warp, mail_server):
    server = mail_server(banner="220 by option")
    other = mail_server(banner="220 by variable")
    proxy = warp(env={"SMTPWARP_UPSTREAM": other.name_port}, upstream=server)
    proxy.connect().expect("220 by option")
    assert other.peers == []


def test_variable_of_a_switch(warp):
    proxy = warp(env={"SMTPWARP_VERBOSE": "1"})
    session = proxy.session()
    session.greet()
    assert proxy.wait_for("comm")


def test_warps_own_command_line(warp, mail_server):
    """-ip -port -outbound-ip -message-size-limit -verbose, as Warp has them."""
    server = mail_server("SIZE")
    proxy = warp(upstream=server)
    proxy.listen_by("-outbound-ip", "127.0.0.9", "-message-size-limit", "1000", "-verbose", "-ip", "127.0.0.1", "-port",
                    "2525")
    client = proxy.connect()
    client.expect("220")
    assert "SIZE 1000" in client.ask("EHLO client.example", "250").texts
    assert server.peers[0].sock.getpeername()[0] == "127.0.0.9"
    assert proxy.records("comm")


# Units, and what is short for something longer

def test_units(warp):
    assert offered_size(warp("--message-size-limit", "10M")) == "SIZE 10485760"
    assert run("--check", "--idle-timeout", "5m", "--session-timeout", "1d", "--max-kept", "1G").returncode == 0


@pytest.mark.parametrize("ipv6", [True, False])
def test_listen_at_localhost(warp, host, mail_server, ipv6):
    """On a host without IPv6 it is IPv4 alone."""
    host.sysctl("net.ipv6.conf.all.disable_ipv6", int(not ipv6))
    proxy = warp(upstream=mail_server()).listen("localhost:2525")
    assert proxy.records("start")[0]["listen"] == ["127.0.0.1:2525", "[::1]:2525"][:1 + ipv6]
    for address in ["127.0.0.1", "::1"][:1 + ipv6]:
        proxy.connect(address).expect("220")


def test_an_address_of_ipv6_that_the_host_has_not(host):
    host.sysctl("net.ipv6.conf.all.disable_ipv6", 1)
    result = run("--listen", "127.0.0.1:2525", "--listen", "[::1]:2525")
    assert result.returncode == 78 and "--listen ::1 port 2525: " in result.stderr


def test_a_port_is_all_addresses(warp, mail_server):
    proxy = warp("--allow-clients", "127.0.0.1", upstream=mail_server()).listen(":2525")
    assert proxy.records("start")[0]["listen"] == ["[::]:2525"]


# Bad ones

BAD = [["--no-such-option"], ["--listen"], ["--tls", "perhaps"], ["--max-sessions", "many"], ["--max-sessions", "-1"],
       ["--message-size-limit", "10x"], ["--message-size-limit", "99999999999999999999999"], ["--listen", "127.0.0.1"],
       ["--listen", "127.0.0.1:99999"], ["--listen", "127.0.0.1:x"], ["--listen", "no.such.host.invalid:25"],
       ["--upstream", ""], ["--upstream", "http://x:25"], ["--upstream", "x:99999"], ["--outbound-ip", "nowhere"],
       ["--bare-newline", "keep"], ["--log", "nowhere"], ["--log", "file:"], ["--user", "no-such-user"],
       ["--tls-ca", "/nonexistent"], ["--tls-ca", "/etc/passwd"], ["--dot-timeout", "soon"], ["--dot-timeout", "-1"],
       ["--mark", "x"], ["--min-rate", "1.2.3"], ["stray"], ["--verbose=maybe"], ["--check=1", "--nonsense"],
       ["--outbound-ip", "127.0.0.1", "--outbound-ip", "127.0.0.2"]]


@pytest.mark.parametrize("check", [True, False])
@pytest.mark.parametrize("options", BAD, ids=" ".join)
def test_bad_option_is_one_clear_line(host, options, check):
    result = run("--check" if check else "--listen=127.0.0.1:2525", *options)
    assert result.returncode in (64, 78), result
    assert result.stdout == ""
    [line] = result.stderr.splitlines()
    assert line.startswith("smtpwarp: ")
    option = options[-2] if len(options) > 1 and not options[-1].startswith("--") else options[-1]
    assert option.lstrip("-").partition("=")[0] in line, "the line does not name what is wrong"


@pytest.mark.parametrize("name, value", [("TLS", "perhaps"), ("MAX_SESSIONS", "many"), ("LISTEN", "127.0.0.1:x")])
def test_bad_variable(host, name, value):
    result = run(env={f"SMTPWARP_{name}": value})
    assert result.returncode in (64, 78)
    [line] = result.stderr.splitlines()
    assert value in line


def test_usage_errors_and_bad_values_have_their_exit_codes(host):
    assert run("--no-such-option").returncode == 64
    assert run("--check", "--tls-ca", "/nonexistent").returncode == 78
    assert run("--check", "--user", "no-such-user").returncode == 78


@pytest.mark.parametrize("stdin", ["null", "file", "pipe", "closed"])
def test_nothing_to_serve(host, stdin, tmp_path):
    """Neither a socket nor --listen: one line, exit 64."""
    (tmp_path / "file").write_text("EHLO x\r\n")
    shell = {"null": "exec $0 < /dev/null", "file": f"exec $0 < {tmp_path}/file", "pipe": ": | $0",
             "closed": "exec $0 <&-"}
    result = subprocess.run(["sh", "-c", shell[stdin], BINARY], capture_output=True, text=True, timeout=peers.TIMEOUT)
    assert result.returncode == 64
    assert len(result.stderr.splitlines()) == 1


# --check, --help, --version

def test_check(host):
    result = run("--check", "--listen", "127.0.0.1:2525", "--upstream", "127.0.0.1:25", "--tls", "may")
    assert (result.returncode, result.stderr) == (0, "")
    assert 2525 not in host.listening_ports()


def test_help_names_every_option(host):
    result = run("--help")
    assert result.returncode == 0 and result.stderr == ""
    names = """listen ip port user max-sessions max-sessions-per-source drain-timeout idle-exit upstream outbound-ip
        mark connect-timeout tls tls-ca tls-name tls-timeout log verbose message-size-limit max-recipients max-errors
        max-pipeline command-length bare-newline plain-auth banner-timeout mail-timeout rcpt-timeout data-timeout
        block-timeout dot-timeout command-timeout idle-timeout session-timeout min-rate check help version""".split()
    assert not [name for name in names if not re.search(rf"(?<![\w-])--?{name}(?![\w-])", result.stdout)]


def test_short_help(host):
    assert run("-h").stdout == run("--help").stdout


@pytest.mark.parametrize("option", ["--version", "-version"])
def test_version(host, option):
    result = run(option)
    assert result.returncode == 0
    assert re.fullmatch(r"smtpwarp \d+\.\d+\S*\n", result.stdout)


def test_help_and_version_win_over_the_environment(host):
    assert run("--version", env={"SMTPWARP_UPSTREAM": "127.0.0.1:25"}).returncode == 0


# Hooks

ROOT = pathlib.Path(__file__).resolve().parent.parent


def script(path, text):
    path.write_bytes(text)
    path.chmod(0o755)


@pytest.mark.parametrize("name", ["50-a~", "50-a.bak", "50-a.dpkg-old", "50-a.rpmsave", ".50-a"])
def test_what_package_managers_leave_behind_is_no_hook(tmp_path, name):
    (tmp_path / "rcpt").mkdir()
    (tmp_path / "rcpt" / name).write_text("no program")
    result = run("--check", "--hooks", tmp_path)
    assert result.returncode == 0
    told = f"warning: --hooks: {tmp_path}/rcpt/{name}: it is skipped, for it has the name of a backup\n"
    assert (told in result.stderr) == (name[0] != ".")


def test_a_program_beside_the_folders_is_told(tmp_path):
    script(tmp_path / "50-lost", b"#!/bin/sh\n")
    (tmp_path / "README").touch()
    result = run("--check", "--hooks", tmp_path)
    assert result.returncode == 0 and "README" not in result.stderr
    assert f"warning: --hooks: {tmp_path}/50-lost: it does not run: a hook stands in the folder of its event\n" in result.stderr


def test_check_tells_of_all_hooks(tmp_path):
    (tmp_path / "rcpt").mkdir()
    (tmp_path / "log").mkdir()
    script(tmp_path / "rcpt/10-a", b"echo\n")
    script(tmp_path / "rcpt/20-b", b"#!/bin/sh\n")
    (tmp_path / "log/10-milter").symlink_to(shipped("milter"))
    (tmp_path / "log/20-journal").symlink_to(shipped("journal"))
    result = run("--check", "--hooks", tmp_path)
    assert result.returncode == 78 and "20-" not in result.stderr
    assert "rcpt/10-a: neither a program nor a script" in result.stderr
    assert "log/10-milter: it is not for this event: its head says for which" in result.stderr
    assert "--hooks: 2 of 4 hooks would fail" in result.stderr


@pytest.mark.parametrize("name", ["milter", "journal"])
def test_programs_say_the_events_of_their_head(name):
    source = (ROOT / "hooks" / f"{name}.c").read_text()
    event, = re.findall(r"^ \* Events: (.*)$", source, re.M)
    assert f"smtpwarp hook: Events: {event}\n".encode() in shipped(name).read_bytes()


@pytest.mark.parametrize("make, words", [
    (lambda path: path.write_text("#!/bin/sh\n"), "not executable"), (lambda path: path.symlink_to("/nowhere"), "No such file"),
    (lambda path: path.mkdir(), "neither a program nor a Unix socket"),
    (lambda path: script(path, b"echo accept\n"), "must begin with #!"),
    (lambda path: script(path, b"#!/bin/sh\r\necho accept\r\n"), "CR LF"),
    (lambda path: script(path, b"#! /nowhere/sh -e\n"), "its interpreter is missing: /nowhere/sh"),
    (lambda path: script(path, b"#!/usr/bin/env no-such-python\n"), "its interpreter is missing: no-such-python"),
    (lambda path: script(path, b"#!/bin/sh\n# Options: --connect-on recipient\n"), "it needs --connect-on recipient"),
    (lambda path: path.symlink_to(ROOT / "hooks" / "clamav"), "not for this event")])
def test_check_looks_at_hooks(tmp_path, make, words):
    folder = tmp_path / "rcpt"
    folder.mkdir()
    make(folder / "50-broken")
    result = run("--check", "--hooks", tmp_path)
    assert result.returncode == 78 and words in result.stderr and "50-broken" in result.stderr
    (folder / ".50-broken").exists() or (folder / "50-broken").rename(folder / ".50-broken")
    assert run("--check", "--hooks", tmp_path).returncode == 0


@pytest.mark.parametrize("text", [b"#!/bin/sh\n", b"#!/usr/bin/env python3\n", b"#!/usr/bin/env -S python3 -B\n", b"\x7fELF"])
def test_check_is_content_with_hooks(tmp_path, text):
    (tmp_path / "rcpt").mkdir()
    script(tmp_path / "rcpt/50-good", text)
    assert run("--check", "--hooks", tmp_path).returncode == 0


@pytest.mark.parametrize("name", ["route-mysql", "source-by-sender"])
def test_check_knows_hooks_that_need_connect_on_recipient(tmp_path, name):
    (tmp_path / "rcpt").mkdir()
    (tmp_path / "rcpt" / name).symlink_to(shipped(name))
    assert run("--check", "--hooks", tmp_path).returncode == 78
    assert run("--check", "--hooks", tmp_path, "--connect-on", "recipient").returncode == 0


@pytest.mark.parametrize("arguments", [["--check"], ["--listen", "127.0.0.1:2"]])
@pytest.mark.parametrize("name", ["recipient", "DATA", "rcpt.d"])
def test_a_folder_that_is_no_event_ends_the_start(tmp_path, name, arguments):
    """As a misspelt variable does; files, and what begins with a dot, may stand there."""
    for good in "rcpt", ".git":
        (tmp_path / good).mkdir()
    (tmp_path / "README").touch()
    assert run("--check", "--hooks", tmp_path).returncode == 0
    (tmp_path / name).mkdir()
    result = run(*arguments, "--hooks", tmp_path)
    assert result.returncode == 78 and f"/{name}: no event has the name of this folder" in result.stderr


# --check

@pytest.fixture
def public():
    """A folder that --user can get at."""
    with tempfile.TemporaryDirectory(prefix="warp") as name:
        pathlib.Path(name).chmod(0o755)
        yield pathlib.Path(name)


@pytest.mark.parametrize("sink, path", [("unix:/nowhere/log", "/nowhere/log"), ("syslog", "/dev/log")])
def test_a_log_that_nobody_reads(sink, path):
    """A daemon may come later, so it is a warning."""
    result = run("--check", "--log", sink)
    assert result.returncode == 0
    assert pathlib.Path(path).exists() or f"warning: --log {sink}: {path}: No such file or directory" in result.stderr


@pytest.mark.parametrize("line, more, warned", [("verify", [], True), ("verify match=hostname", [], True), ("verify match=mx.d.example", [], False),
                                                ("verify", ["--upstream", "mx.d.example:25"], False)], ids=str)
def test_check_warns_of_policies_that_no_server_meets(tmp_path, line, more, warned):
    (tmp_path / "policies").write_text(f"d.example {line}\n")
    done = run("--check", "--listen", "127.0.0.1:2525", "--tls-policy", tmp_path / "policies", *more)
    assert done.returncode == 0 and ("a line demands a certificate for the server's name" in done.stderr) == warned


@pytest.mark.parametrize("option", ["--tls-policy", "--reply-rules", "--providers", "--upstream-auth"])
def test_check_takes_no_fifo_for_an_empty_file(tmp_path, option):
    """Else mail would go without what the file demands."""
    os.mkfifo(fifo := tmp_path / "fifo", 0o600)
    done = run("--check", "--listen", "127.0.0.1:2525", option, fifo)
    assert (done.returncode, done.stderr) == (78, f"smtpwarp: {option} {fifo}: No data available\n")
    assert run("--check", "--listen", "127.0.0.1:2525", option, "/dev/null").returncode == 0


def test_check_creates_no_file(public):
    """The log would be root's, and the service could not write to it."""
    for user in [], ["--user", "nobody"]:
        assert run("--check", "--log", f"file:{public}/log", *user).returncode == 0
        assert not (public / "log").exists()
    (public / "log").touch(0o600)
    result = run("--check", "--log", f"file:{public}/log", "--user", "nobody")
    assert result.returncode == 0 and "warning: --log" in result.stderr and "after a rotation" in result.stderr
    assert (public / "log").read_text() == ""


def test_check_sees_what_user_will_see(public):
    """Routes and hooks that only root may read: every mail would get 421."""
    routes, folder = public / "routes", public / "hooks/rcpt"
    routes.write_text("*;192.0.2.1;none\n")
    folder.mkdir(parents=True)
    script(folder / "50-good", b"#!/bin/sh\n")
    check = ["--check", "--user", "nobody", "--routes", routes, "--hooks", folder.parent]
    assert run(*check).returncode == 0
    for path, mode in (routes, 0o600), (folder / "50-good", 0o700), (folder, 0o700), (folder.parent, 0o700):
        good = path.stat().st_mode
        path.chmod(mode)
        result = run(*check)
        assert result.returncode == 78 and str(path) in result.stderr and "Permission denied" in result.stderr, path
        path.chmod(good)
    assert run(*check).returncode == 0


def test_check_warns_of_keys_that_user_cannot_read(public, certs):
    """Root reads them at start, but nobody reads them again; and systemd starts its units as that user."""
    cert, key = certs.pair("good")
    shutil.copy(cert, public / "cert")
    shutil.copy(key, public / "key")
    (public / "key").chmod(0o600)
    result = run("--check", "--user", "nobody", "--cert", public / "cert", "--key", public / "key")
    assert result.returncode == 0 and re.search(r"warning: --key .*Permission denied", result.stderr)


@pytest.mark.parametrize("option, value", [("--tlsrpt", "{}"), ("--tls-policy", "socketmap:unix:{}:map")])
def test_check_warns_of_programs_that_are_not_there(public, option, value):
    """They may come later. Only some users may reach them."""
    path = public / "socket"
    check = ["--check", "--user", "nobody", option, value.format(path)]
    result = run(*check)
    assert result.returncode == 0 and f"warning: {option}: {path}: No such file or directory: while that is so," in result.stderr
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(path))
        path.chmod(0o700)
        assert f"warning: {option}: {path}: Permission denied: while" in run(*check).stderr
        path.chmod(0o777)
        assert option not in run(*check).stderr


@pytest.mark.parametrize("options, warned", [(["auto"], True), (["passthrough"], True), (["auto", "--tls-inspect", "192.0.2.1"], False),
                                             (["may"], False)], ids=str)
def test_check_warns_of_a_certificate_that_nobody_is_shown(certs, options, warned):
    cert, key = certs.pair("good")
    result = run("--check", "--cert", cert, "--key", key, "--client-tls", *options)
    assert result.returncode == 0 and ("warning: --cert: with --client-tls" in result.stderr) == warned


def test_env_file(tmp_path):
    """What a shell would stumble over, systemd takes; the environment of --check does not count."""
    file = tmp_path / "smtpwarp.conf"
    check = ["--check", "--env-file", file]
    file.write_text("# x\nSMTPWARP_VALID_RECIPIENTS=^(a|b)@example[.]com$\nSMTPWARP_TLS='encrypt'\nOTHER=$x\n")
    assert run(*check, env={"SMTPWARP_TLS": "sometimes"}).returncode == 0
    for text, code, words in (("SMTPWARP_TLS=some times", 64, "SMTPWARP_TLS=some times: it takes"),
                              ("\nSMTPWARP_TSL=may\n", 64, "unknown variable SMTPWARP_TSL"),
                              ("\nexport SMTPWARP_TLS=may\n", 78, "line 2: "), ("SMTPWARP_TLS may\n", 78, "line 1: "),
                              ("SMTPWARP_HOSTNAME='x\n\n", 78, "line 1: ")):
        file.write_text(text)
        result = run(*check)
        assert result.returncode == code and words in result.stderr
    assert run("--check", "--env-file", tmp_path / "none").returncode == 78
    assert run("--env-file", file).returncode == 64


@pytest.mark.parametrize("options, words", [
    (["--hooks", "/nowhere"], "/nowhere: No such file"), (["--plugins", "none"], "there is no hook of that name"),
    (["--plugins", "../etc"], "names of hooks"), (["--hook-failure", "reject"], "defer or accept"),
    (["--connect-on", "data"], "connect or recipient"), (["--hostname", "a b"], "a host name")])
def test_hook_options_that_are_no_good(options, words):
    result = run("--check", *options)
    assert result.returncode in (64, 78) and words in result.stderr


@pytest.mark.parametrize("event, most", [("mail", 64), ("log", 4)])
def test_no_more_hooks_than_there_is_room_for(tmp_path, event, most):
    (tmp_path / event).mkdir()
    for number in range(most + 1):
        (tmp_path / event / str(number)).symlink_to("/bin/true")
    result = run("--check", "--hooks", tmp_path)
    assert result.returncode == 78 and f"({most})" in result.stderr
    (tmp_path / event / "0").unlink()
    assert run("--check", "--hooks", tmp_path).returncode == 0


def test_limit_of_file_sizes(host, tmp_path):
    """It holds for files in memory, too; nothing is wrong with the file that is named."""
    (tmp_path / "passwords").write_text("mail.example user:secret\n")
    result = run("--check", "--upstream", "mail.example", "--upstream-auth", tmp_path / "passwords",
                 preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (20000, 20000)))
    assert result.returncode == 78 and "raise RLIMIT_FSIZE (LimitFSIZE=, ulimit -f)" in result.stderr
