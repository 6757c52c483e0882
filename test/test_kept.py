"""--max-kept: messages that hooks make sessions keep, all together. Issue: a host's memory is not for whoever sends at once."""
import contextlib
import os
import resource
import shutil
import signal
import subprocess

import pytest

import peers
from hooks import Hooks
from warp import BINARY, MESSAGE, NO_REPORTS

MIB = 1 << 20
LINE = b"x" * 1022 + b"\r\n"
FULL = "452 4.3.1 No room for this message beside those of other sessions"


@pytest.fixture
def hooks(tmp_path):
    hooks = Hooks(tmp_path / "hooks")
    hooks.script("data", "exit 0")
    return hooks


@pytest.fixture
def server(mail_server):
    return mail_server("SIZE 0", "PIPELINING")


@pytest.fixture
def kept(warp, server, hooks):
    """A proxy whose sessions keep what they are sent."""
    def start(how, *options):
        proxy = warp(*hooks.options, *options, upstream=server)
        return proxy.listen() if how == "listener" else proxy
    return start


def rooms(proxy):
    """Octets that sessions have taken: the end of each socket's name."""
    return sum(int(name[-16:], 16) for name in proxy.namespace.abstract_names("smtpwarp-kept-"))


def wait_rooms(proxy, octets):
    proxy.wait_until(lambda: rooms(proxy) == octets, f"{octets} octets that are taken, not {rooms(proxy)}")


def to_data(client, mail="MAIL FROM:<a@b.example>"):
    client.send(mail, "RCPT TO:<b@c.example>", "DATA")
    for code in "250", "250", "354":
        client.expect(code)


def begin(proxy, octets):
    """A client that has sent so much of a message, and not its end."""
    client = proxy.greeted()
    to_data(client)
    client.send_raw(LINE * (octets // len(LINE)))
    return client


def session_pids(proxy):
    return proxy.children() if proxy.listener else [process.pid for process in proxy.processes if process.poll() is None]


def memory(proxy):
    """Octets of messages that its sessions keep."""
    octets = 0
    for pid in session_pids(proxy):
        with contextlib.suppress(OSError):
            for number in os.listdir(f"/proc/{pid}/fd"):
                if "memfd:smtpwarp-message" in os.readlink(f"/proc/{pid}/fd/{number}"):
                    octets += os.stat(f"/proc/{pid}/fd/{number}").st_size
    return octets


@pytest.mark.parametrize("how", ["listener", "inetd"])
def test_20_sessions_and_room_for_5(kept, server, how):
    """Nothing is lost: whoever finds no room hears 452, stays, and gets its message through when there is some. Sessions that are killed
    have none."""
    proxy = kept(how, "--max-kept", 10 * MIB)
    proxy.complete, proxy.exit_codes = False, (0, -signal.SIGKILL)
    holders = []
    for count in range(1, 6):
        holders.append(begin(proxy, 3 * MIB // 2))
        wait_rooms(proxy, count * 2 * MIB)
    holding = session_pids(proxy)
    others = [begin(proxy, 3 * MIB // 2) for _ in range(15)]
    for client in others:
        client.silent(0)        # it hears so at its end
        client.send(".")
        client.expect(FULL)
    assert rooms(proxy) == 10 * MIB
    for pid in holding[:2]:
        os.kill(pid, signal.SIGKILL)
    wait_rooms(proxy, 6 * MIB)
    proxy.wait_until(lambda: sum(bool(client.ended) for client in holders) == 2, "the end of two")
    for client in others:
        to_data(client)
        client.send_raw(LINE * 1536 + b".\r\n")
        client.expect("250")
    alive = [client for client in holders if not client.ended]
    assert len(alive) == 3
    for client in alive:
        client.send(".")
        client.expect("250")
    wait_rooms(proxy, 0)
    assert len(server.messages) == 18
    assert len(proxy.records("message", result="deferred")) == 15


@pytest.mark.parametrize("how", ["listener", "inetd"])
def test_20_sessions_at_once(kept, server, how):
    """What they keep is never more than there is, but for 256 KiB each, and each message gets through within a few tries."""
    proxy = kept(how, "--max-kept", 10 * MIB)
    waiting, most = [begin(proxy, 0) for _ in range(20)], 0
    while waiting:
        for _ in range(48):
            for client in waiting:
                client.send_raw(LINE * 32)
            most = max(most, memory(proxy))
        for client in waiting:
            client.drained()
        most = max(most, memory(proxy))
        for client in waiting:
            client.send(".")
        replies = [(client, client.reply().code) for client in waiting]
        waiting = [client for client, code in replies if code == 452]
        assert 0 < len(replies) - len(waiting) == [code for _, code in replies].count(250)
        for client in waiting:
            to_data(client)
    assert 5 * MIB <= most <= 15 * MIB
    assert len(server.messages) == 20
    wait_rooms(proxy, 0)


def test_counted_together_however_sessions_start(kept):
    """A listener's, and those of two services of inetd."""
    proxies = [kept(how, "--max-kept", 4 * MIB) for how in ("listener", "inetd", "inetd")]
    holders = [begin(proxy, 3 * MIB // 2) for proxy in proxies[:2]]
    wait_rooms(proxies[0], 4 * MIB)
    for proxy in proxies:
        client = begin(proxy, MIB)
        client.send(".")
        client.expect(FULL)
    for client in holders:
        client.send(".")
        client.expect("250")


def test_small_messages_need_no_room(kept):
    proxy = kept("listener", "--max-kept", 2 * MIB)
    holder = begin(proxy, 3 * MIB // 2)
    wait_rooms(proxy, 2 * MIB)
    client = begin(proxy, 255 << 10)
    client.send(".")
    client.expect("250")
    holder.close()
    proxy.complete = False


def test_declared_size_is_refused_at_mail(kept):
    proxy = kept("listener", "--max-kept", 2 * MIB)
    holder = begin(proxy, MIB)
    wait_rooms(proxy, MIB)
    client = proxy.greeted()
    client.ask(f"MAIL FROM:<a@b.example> SIZE={MIB + 1}", FULL)
    client.ask(f"MAIL FROM:<a@b.example> SIZE={2 * MIB + 1}", "552 5.3.4")
    client.ask(f"MAIL FROM:<a@b.example> SIZE={MIB}", "250")
    holder.send(".")
    holder.expect("250")


OTHERS = ["smtpwarp-kept-" + "0" * 37 + f"{MIB:016x}", "smtpwarp-kept-" + "f" * 53, "smtpwarp-kept-"]


@pytest.mark.parametrize("user, taken", [(65534, True), (0, False)])
def test_sockets_of_others_take_no_room(kept, user, taken):
    with peers.abstract_sockets(OTHERS, user):
        proxy = kept("listener", "--max-kept", 3 * MIB // 2)
        client = begin(proxy, MIB)
        client.send(".")
        client.expect("250" if taken else FULL)


@pytest.mark.parametrize("call", ["bind", "socket"])
def test_mail_goes_on_where_room_cannot_be_counted(kept, tmp_path, call):
    proxy = kept("inetd", "--max-kept", MIB * 2)
    proxy.wrapper = ["strace", "-f", "-o", str(tmp_path / "trace"), "-e", f"inject={call}:error=EACCES:when={'1+' if call == 'bind' else '3+'}"]
    proxy.env = {"ASAN_OPTIONS": "detect_leaks=0"}
    client = begin(proxy, MIB)
    client.send(".")
    if call == "bind":
        client.expect("250")
    assert "kept messages cannot be counted" in proxy.wait_for("error")["error"]


def test_check_says_that_room_cannot_be_counted(tmp_path):
    """Where there is something to count: a hook that messages are kept for."""
    for event, warned in ("data", True), ("close", False):
        (tmp_path / event).mkdir()
        (tmp_path / event / "hook").symlink_to("/bin/true")
        done = subprocess.run(["strace", "-o", tmp_path / "trace", "-e", "inject=socket:error=EACCES", BINARY, "--check", "--hooks", tmp_path],
                              capture_output=True, text=True, check=False, env=NO_REPORTS)
        assert done.returncode == 0 and ("--max-kept: kept messages cannot be counted" in done.stderr) is warned
        shutil.rmtree(tmp_path / event)


@pytest.mark.parametrize("limit", [resource.RLIMIT_FSIZE, resource.RLIMIT_AS], ids=["write", "map"])
def test_kernel_has_no_room(kept, limit):
    """452, and the session goes on: the next message is a small one."""
    if "asan" in BINARY:
        pytest.skip("AddressSanitizer needs more address space")
    proxy = kept("inetd")
    client = proxy.greeted()
    pid = proxy.processes[0].pid
    with open(f"/proc/{pid}/statm") as file:
        size = int(file.read().split()[0]) * resource.getpagesize()
    resource.prlimit(pid, limit, [(1 if limit == resource.RLIMIT_FSIZE else size // MIB + 1) * MIB] * 2)
    to_data(client)
    client.send_raw(LINE * 4096 + b".\r\n")
    client.expect("452 4.3.1 No room for a message of this size")
    to_data(client)
    client.send_raw(MESSAGE)
    client.expect("250")
