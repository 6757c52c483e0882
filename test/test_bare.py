"""Nothing on the machine but smtpwarp, and smtpwarp as process 1: what is missing is said once, at start, and mail goes on."""
import os
import pathlib
import shutil
import signal
import subprocess
import time

import pytest

import peers
from test_options import run
from waiting import wait_until
from warp import BINARY, send_message, sessions_of

STATIC = b"/ld-linux" not in pathlib.Path(BINARY).read_bytes()[:4096]
needs_static = pytest.mark.skipif(not STATIC, reason="needs a static smtpwarp")

RESOLVER = "warning: /etc/resolv.conf names no server: names are looked up at 127.0.0.1; give --dns-server ADDR"
CAS = "warning: --tls-ca /etc/ssl/certs/ca-certificates.crt: No such file or directory: no upstream's certificate can be verified"
PORTS = "warning: /proc is not mounted: net.ipv4.ip_local_port_range is not known, so Linux's default is taken for it"
MESSAGES = "warning: /proc is not mounted: data hooks cannot get the message, and fail"
PROCESS_1 = ["unshare", "--pid", "--fork", "--kill-child"]


@pytest.fixture(name="alone")
def fixture_alone(warp, tmp_path):
    """alone(*options, ...): a smtpwarp that is process 1 of an empty root directory, not listening yet."""
    root = tmp_path / "root"
    copy = root / BINARY[1:]
    copy.parent.mkdir(parents=True)
    shutil.copy(BINARY, copy)
    root.chmod(0o755)

    def make(*options, **settings):
        proxy = warp("--log", "file:/log", *options, **settings)
        proxy.wrapper = [*PROCESS_1, "chroot", root]
        proxy.log_path = root / "log"
        return proxy
    return make


def process_1(proxy):
    """Its process, which the one that the test has started waits for."""
    return proxy.wait_until(proxy.children, "process 1")[0]


def finish(proxy, how=signal.SIGTERM):
    os.kill(process_1(proxy), how)
    assert proxy.wait_exit(proxy.listener) == 0


def faults(proxy):
    return [record["error"] for record in proxy.records("error") if "session" not in record]


@needs_static
@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGINT])
def test_mail_passes_where_there_is_nothing(alone, mail_server, how):
    server = mail_server()
    proxy = alone("--user", "65532", upstream=server).listen()
    with open(f"/proc/{process_1(proxy)}/status") as file:
        status = dict(line.rstrip("\n").split(":\t", 1) for line in file)
    assert status["NSpid"].split()[1] == "1"
    assert (status["Uid"].split(), status["Gid"].split(), status["Groups"].split()) == (["65532"] * 4, ["65532"] * 4, [])
    for _ in range(2):
        client = proxy.greeted()
        send_message(client)
        client.ask("QUIT", "221")
    assert len(server.messages) == 2
    finish(proxy, how)
    assert faults(proxy) == [CAS]
    assert proxy.records("start")[0]["uid"] == 65532
    assert [proxy.records("stop")[0][name] for name in ("sessions", "reason")] == [2, "SIGTERM or SIGINT"]


@needs_static
@pytest.mark.parametrize("options, told", [
    (["--tls", "none"], []), (["--tls", "none", "--transparent"], [PORTS]), (["--upstream", "mail.test"], [RESOLVER, CAS]),
    (["--upstream", "mail.test", "--dns-server", "127.0.0.9"], [CAS]), (["--tls", "none", "--received"], [RESOLVER]),
    (["--tls", "none", "--received", "--client-names", "none"], []), (["--tls", "none", "--dnsbl", "bl.test"], [RESOLVER]),
    (["--tls", "dane"], [RESOLVER, CAS])])
def test_each_lack_that_matters_is_told_once(alone, options, told):
    proxy = alone(*options).listen()
    finish(proxy)
    assert faults(proxy) == told
    checked = subprocess.run([*proxy.command(), "--check"], capture_output=True, text=True, timeout=peers.TIMEOUT, check=False)
    assert checked.returncode == 0
    unanswered = ["warning: DANE: name servers cannot be asked: no server answers; mail would be deferred"] * ("dane" in options)
    assert checked.stderr.splitlines() == ["smtpwarp: " + line for line in told + unanswered]


@needs_static
def test_hooks_without_proc(alone, tmp_path):
    """A data hook gets the message by way of /proc."""
    hook = tmp_path / "root/hooks/data/50-hook"
    hook.parent.mkdir(parents=True)
    hook.symlink_to(BINARY)
    proxy = alone("--tls", "none", "--hooks", "/hooks").listen()
    session = proxy.session().to("ehlo")
    session.mail()
    session.rcpt()
    session.client.ask("DATA", "354")
    session.client.send("x", ".")
    session.client.expect("451 4.3.0")
    session.client.close()
    session.server.close()
    proxy.wait_for("close")
    finish(proxy)
    assert MESSAGES in faults(proxy)


@needs_static
def test_no_descriptors_and_no_null_device(alone):
    """A kernel without a console starts its first process so. No socket gets such a number."""
    proxy = alone("--tls", "none")
    proxy.wrapper = ["sh", "-c", 'exec "$@" <&- >&- 2>&-', "sh", *proxy.wrapper]
    proxy.listen()
    assert {os.readlink(f"/proc/{process_1(proxy)}/fd/{name}") for name in "012"} == {str(proxy.log_path.parent)}
    session = proxy.session().to("ehlo")
    session.quit()
    finish(proxy)


def test_a_user_that_is_not_there(host):
    result = run("--listen", "127.0.0.1:2525", "--user", "no-such-user")
    assert result.returncode == 78
    assert "there is no such user: give a name of /etc/passwd, or numbers, UID or UID:GID" in result.stderr


def test_user_and_group_by_number(warp):
    proxy = warp("--user", "65532:65533").listen()
    with open(f"/proc/{proxy.listener.pid}/status") as file:
        status = dict(line.rstrip("\n").split(":\t", 1) for line in file)
    assert (status["Uid"].split()[0], status["Gid"].split()[0], status["Groups"].split()) == ("65532", "65533", [])


def test_a_kernel_without_a_name_for_the_host(warp):
    proxy = warp("--connect-on", "recipient")
    proxy.wrapper = ["unshare", "--uts", "sh", "-c", "echo '(none)' >/proc/sys/kernel/hostname; exec \"$@\"", "sh"]
    proxy.listen().connect().expect("220 localhost ")


# Children that are no sessions

ORPHAN = """#!/bin/sh
(sh -c 'kill -SEGV $$' &)
echo accept
"""


def test_process_1_buries_orphans(warp, mail_server, tmp_path):
    """They count as no session, and how they end is told by nobody."""
    hook = tmp_path / "hooks/mail/50-hook"
    hook.parent.mkdir(parents=True)
    hook.write_text(ORPHAN)
    hook.chmod(0o755)
    server = mail_server()
    proxy = warp("--hooks", tmp_path / "hooks", "--max-sessions", 2, upstream=server)
    proxy.wrapper = PROCESS_1
    proxy.listen()
    first = process_1(proxy)

    def children():
        return sessions_of(first)
    stays = proxy.greeted()
    for _ in range(5):
        client = proxy.greeted()
        send_message(client)
        client.ask("QUIT", "221")
        proxy.wait_until(lambda: len(children()) == 1, "the end of all but one session")
    other = proxy.greeted()
    proxy.connect().expect("421 4.3.2")
    for client in stays, other:
        client.ask("QUIT", "221")
    proxy.wait_until(lambda: not children(), "the end of all sessions")
    finish(proxy)
    assert faults(proxy) == ["Too many sessions (--max-sessions)"]


def test_children_from_before(warp):
    """A shell's, which has become smtpwarp."""
    proxy = warp()
    proxy.wrapper = ["sh", "-c", 'sh -c "sleep 0.3; kill -SEGV \\$\\$" & exec "$@"', "sh"]
    proxy.listen()
    proxy.wait_until(lambda: not proxy.children(), "the end of the other child")
    assert faults(proxy) == []


def test_idle_exit_with_another_child(warp, host):
    """Its end is not the end of the wait."""
    proxy = warp("--idle-exit", "1")
    proxy.wrapper = ["sh", "-c", 'sleep 0.2 & exec "$@"', "sh"]
    began = time.monotonic()
    with peers.socket.create_server(("127.0.0.1", 2525)) as door:
        process = proxy.spawn(stdin=door)
        wait_until(lambda: process.poll() is not None, "the end")
    assert process.returncode == 0 and time.monotonic() - began >= 1
