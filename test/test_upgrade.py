"""Upgrades: SIGUSR2 starts the next smtpwarp, which takes over the listening sockets."""
import contextlib
import os
import pathlib
import shutil
import signal
import socket

import pytest
from hooks import Hooks
from waiting import TIMEOUT, wait_until
from warp import BINARY, MESSAGE, Warp, children_of, gone, send_message, sessions_of

ROUNDS, AT_ONCE = 4, 75     # 300 sessions, over three upgrades


@pytest.fixture
def hooks(tmp_path):
    return Hooks(tmp_path / "hooks")


def accepting(proxy):
    """The processes that listen there."""
    with proxy.namespace, open("/proc/thread-self/net/tcp") as file:
        sockets = {f"socket:[{row.split()[9]}]" for row in file if row.split()[3] == "0A" and row.split()[1].endswith(f":{proxy.listen_port:04X}")}
    found = []
    for process in pathlib.Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            if sockets & {os.readlink(entry) for entry in (process / "fd").iterdir()}:
                found.append(int(process.name))
    return found


def taken_over(proxy, before):
    """The one process that listens there, once it is another one. (A session that begins holds that socket for a moment, too.)"""
    def found():
        listeners = accepting(proxy)
        return listeners if len(listeners) == 1 and listeners != [before] else []
    return wait_until(found, lambda: f"{accepting(proxy)} listen")[0]


class Chain:
    """A listener and those that take over from it; the last one accepts."""

    def __init__(self, proxy):
        self.proxy, self.pids = proxy, [proxy.listener.pid]

    def signal(self, number=signal.SIGUSR2, which=-1):
        os.kill(self.pids[which], number)

    def upgrade(self):
        starts = len(self.proxy.records("start"))
        self.signal()
        self.proxy.wait_for("start", starts + 1)
        self.pids.append(taken_over(self.proxy, self.pids[-1]))

    def end(self):
        """All of them, as an operator ends the last."""
        self.signal(signal.SIGTERM)
        wait_until(lambda: all(map(gone, self.pids)))


@pytest.fixture
def chain():
    made = []

    def start(proxy):
        made.append(Chain(proxy))
        return made[-1]
    yield start
    for one in made:
        for pid in one.pids:
            with contextlib.suppress(ProcessLookupError):
                if not gone(pid):
                    os.kill(pid, signal.SIGTERM)
        wait_until(lambda one=one: all(map(gone, one.pids)))


def test_300_sessions_over_three_upgrades(warp, mail_server, chain):
    """In each round 75 sessions begin: some before the upgrade, some while it is under way. All stay to the end, and bring a message then."""
    server = mail_server()
    proxy = warp(upstream=server).listen()
    line, clients = chain(proxy), []
    for round_ in range(ROUNDS):
        while len(clients) < AT_ONCE * round_ + AT_ONCE // 3:
            clients.append(proxy.greeted())
        if round_ < ROUNDS - 1:
            beginning = [proxy.connect() for _ in range(AT_ONCE // 3)]
            line.signal()
            beginning += [proxy.connect() for _ in range(AT_ONCE - 2 * (AT_ONCE // 3))]
            for client in beginning:
                client.expect("220")
                client.ask("EHLO client.example", "250")
            clients += beginning
            line.pids.append(taken_over(proxy, line.pids[-1]))
        while len(clients) < AT_ONCE * (round_ + 1):
            clients.append(proxy.greeted())
    assert len(clients) == 300 and len(set(line.pids)) == ROUNDS
    assert not any(map(gone, line.pids)) and sum(len(sessions_of(pid)) for pid in line.pids) == 300
    for client in clients:
        send_message(client)
    for client in clients:
        client.ask("QUIT", "221")
    wait_until(lambda: all(map(gone, line.pids[:-1])))
    assert proxy.wait_exit(proxy.listener) == 0
    assert len(server.messages) == 300
    assert not proxy.records("error") and len(proxy.records("message", result="accepted")) == 300
    assert [record["reason"] for record in proxy.records("stop")] == ["SIGUSR2"] * (ROUNDS - 1)
    assert sum(record["sessions"] for record in proxy.records("stop")) + len(sessions_of(line.pids[-1])) <= 300
    line.end()


def refused(proxy, why, count=1):
    assert proxy.wait_for("error", count)["error"].startswith(f"SIGUSR2: there is no upgrade: {why}")


def copied(proxy, tmp_path):
    """smtpwarp runs from a file of the test's own, which is returned."""
    program = tmp_path / "smtpwarp"
    shutil.copy(BINARY, program)
    proxy.command = lambda: [str(program), *Warp.command(proxy)[1:]]
    return program


def replace(program, text):
    """As a package does: the file of a program that runs cannot be written to."""
    fresh = program.with_name("fresh")
    fresh.write_text(text)
    fresh.chmod(0o755)
    fresh.rename(program)


def test_next_one_does_not_start(warp, mail_server, tmp_path):
    """A bad file, no program, one that is broken, one that ends without a word: the reason is recorded, and the old one goes on."""
    rules = tmp_path / "rules"
    rules.write_text("")
    proxy = warp("--reply-rules", rules, upstream=mail_server())
    program = copied(proxy, tmp_path)
    proxy.listen()
    rules.write_text("nonsense\n")
    proxy.listener.send_signal(signal.SIGUSR2)
    refused(proxy, f"--reply-rules {rules}: line 1: ")
    assert f"smtpwarp: --reply-rules {rules}: line 1: " in proxy.error_path.read_text()
    send_message(proxy.greeted())
    rules.write_text("")
    for count, (text, why) in enumerate({"#!/bin/false\n": "the next smtpwarp has ended before it was ready",
                                         "nothing": f"{program}: Exec format error"}.items(), 2):
        replace(program, text)
        proxy.listener.send_signal(signal.SIGUSR2)
        refused(proxy, why, count)
        send_message(proxy.greeted())
    program.unlink()
    proxy.listener.send_signal(signal.SIGUSR2)
    refused(proxy, f"{program}: No such file or directory", 4)
    send_message(proxy.greeted())
    assert accepting(proxy) == [proxy.listener.pid]


def test_one_at_a_time(warp, mail_server, chain, tmp_path):
    """While the next one starts, and when it has taken over. What is there at the next attempt counts."""
    proxy = warp(upstream=mail_server())
    program = copied(proxy, tmp_path)
    proxy.listen()
    replace(program, f"#!/bin/sh\necho $$ >{tmp_path}/pid.new\nmv {tmp_path}/pid.new {tmp_path}/pid\nexec sleep 1000\n")
    proxy.listener.send_signal(signal.SIGUSR2)
    proxy.wait_until((tmp_path / "pid").exists, "the next one")
    proxy.listener.send_signal(signal.SIGUSR2)
    refused(proxy, "one is under way")
    send_message(proxy.greeted())
    os.kill(int((tmp_path / "pid").read_text()), signal.SIGKILL)
    refused(proxy, "the next smtpwarp has ended before it was ready", 2)
    program.unlink()
    shutil.copy(BINARY, program)
    client, line = proxy.greeted(), chain(proxy)
    line.upgrade()
    line.signal(which=0)
    refused(proxy, "it is done: that signal is for the process that accepts now", 3)
    send_message(client)
    send_message(proxy.greeted())
    line.end()


def test_hooks_across_an_upgrade(warp, mail_server, chain, hooks):
    """Those of sessions from before, and those of sessions from after."""
    hooks.script("mail", "echo accept")
    proxy = warp(*hooks.options, upstream=mail_server()).listen()
    line, before = chain(proxy), proxy.greeted()
    send_message(before)
    line.upgrade()
    after = proxy.greeted()
    for client in before, after, before:
        send_message(client)
    line.upgrade()
    for client in before, after, proxy.greeted():
        send_message(client)
    line.end()
    assert not proxy.records("error") and len(proxy.records("verdict")) == 7


def helpers(pid):
    return {name: child for child, name in children_of(pid).items() if name.startswith("smtpwarp-")}


def test_keeper_that_is_killed(warp, mail_server, hooks):
    """Mail goes on, and hooks, but for a new process to run them, and for upgrades."""
    hooks.script("mail", "echo accept")
    proxy = warp(*hooks.options, upstream=mail_server()).listen()
    keeper = helpers(proxy.listener.pid)["smtpwarp-keeper"]
    broker = wait_until(lambda: helpers(keeper).get("smtpwarp-broker"))
    os.kill(keeper, signal.SIGKILL)
    assert proxy.wait_for("error")["error"] == "the process that starts programs has ended: signal 9; there is no upgrade (SIGUSR2), and no " \
        "new process to run hooks, until smtpwarp is started again"
    send_message(proxy.greeted())
    proxy.listener.send_signal(signal.SIGUSR2)
    refused(proxy, "the process that would start it has ended", 2)
    os.kill(broker, signal.SIGKILL)
    wait_until(lambda: gone(broker))
    proxy.greeted().ask("MAIL FROM:<a@client.example>", "451 4.3.0")
    assert "Broken pipe" in proxy.records("verdict")[-1]["text"]


def test_keeper_ends_with_the_listener(warp, mail_server, hooks):
    """And holds neither its address nor a client."""
    hooks.script("mail", "echo accept")
    proxy = warp(*hooks.options, upstream=mail_server()).listen()
    proxy.exit_codes, proxy.complete = (-signal.SIGKILL,), False
    keeper = helpers(proxy.listener.pid)["smtpwarp-keeper"]
    for number in signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2:
        os.kill(keeper, number)
    wait_until(lambda: len(os.listdir(f"/proc/{keeper}/fd")) == 4, "it has started the broker and holds no more of that")
    assert accepting(proxy) == [proxy.listener.pid]
    client = proxy.greeted()
    send_message(client)
    proxy.listener.kill()
    wait_until(lambda: gone(keeper))
    send_message(client)


def test_hooks_that_come_later(warp, mail_server, hooks, tmp_path):
    """The folder of those that no option names is not there at first: the keeper is told when it is."""
    (tmp_path / "etc").mkdir()
    proxy = warp(upstream=mail_server())
    proxy.wrapper = ["unshare", "--mount", "sh", "-c", f'mount --bind {tmp_path}/etc /etc && exec "$@"', "sh"]
    proxy.listen()
    send_message(proxy.greeted())
    assert not helpers(helpers(proxy.listener.pid)["smtpwarp-keeper"])
    hooks.script("mail", "echo accept")
    (tmp_path / "etc/smtpwarp").mkdir()
    (tmp_path / "hooks").rename(tmp_path / "etc/smtpwarp/hooks")

    def asked():
        client = proxy.greeted()
        send_message(client)
        client.ask("QUIT", "221")
        return proxy.records("verdict")
    proxy.wait_until(asked, "the hook")
    assert helpers(helpers(proxy.listener.pid)["smtpwarp-keeper"])


def test_sigterm_ends_all(warp, mail_server, chain):
    """A message under way is finished by whoever has it; the last one waits for it, for systemd kills what stays behind that one."""
    server = mail_server()
    proxy = warp(upstream=server).listen()
    line, busy, idle = chain(proxy), proxy.greeted(), proxy.greeted()
    for command, code in ("MAIL FROM:<a@client.example>", "250"), ("RCPT TO:<b@mail.test>", "250"), ("DATA", "354"):
        busy.ask(command, code)
    line.upgrade()
    line.upgrade()
    line.signal(signal.SIGTERM)
    idle.expect("421")
    assert not gone(line.pids[0]) and not gone(line.pids[2])
    busy.send_raw(MESSAGE)
    busy.expect("250")
    wait_until(lambda: all(map(gone, line.pids)))
    assert len(server.messages) == 1
    reasons = [record["reason"] for record in proxy.records("stop")]
    assert reasons == ["SIGTERM or SIGINT"] * 3


def test_max_sessions_counts_all(warp, mail_server, chain):
    proxy = warp("--max-sessions", 3, upstream=mail_server()).listen()
    line, first, second = chain(proxy), proxy.greeted(), proxy.greeted()
    line.upgrade()
    third = proxy.greeted()
    line.upgrade()
    proxy.connect().expect("421 4.3.2 Too many sessions")
    second.ask("QUIT", "221")

    def served():
        return proxy.connect().reply().startswith("220")
    proxy.wait_until(served, "room for one more")
    for client in first, third:
        send_message(client)
    line.end()


def test_systemd_is_told_who_accepts(warp, mail_server, chain):
    proxy = warp(upstream=mail_server())
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as notify:
        notify.bind("")
        notify.settimeout(TIMEOUT)
        proxy.env = {"NOTIFY_SOCKET": "@" + notify.getsockname()[1:].decode()}
        proxy.listener, proxy.listen_port = proxy.spawn("--listen", "127.0.0.1:2525"), 2525
        assert b"READY=1" in notify.recv(4096)
        line = chain(proxy)
        for _ in range(2):
            line.upgrade()
            assert notify.recv(4096) == f"MAINPID={line.pids[-1]}".encode()
        assert not any(line.pids[-1] in children_of(pid) for pid in (*line.pids, *helpers(line.pids[0]).values()))
        line.signal(signal.SIGTERM)
        assert b"STOPPING=1" in notify.recv(4096)
