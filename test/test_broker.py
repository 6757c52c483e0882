"""The process that runs hooks for sessions."""
import contextlib
import os
import pathlib
import signal
import tempfile

import peers
import pytest
from hooks import Hooks
from waiting import wait_until
from warp import children_of, gone

NAME = "smtpwarp-broker"


@pytest.fixture
def hooks(tmp_path):
    return Hooks(tmp_path / "hooks")


def broker_of(pid):
    """-> its process ID, or None."""
    keepers = [child for child, name in children_of(pid).items() if name == "smtpwarp-keeper"]
    found = [child for parent in (pid, *keepers) for child, name in children_of(parent).items() if name == NAME]
    assert len(found) < 2
    return found[0] if found else None


def running_broker(proxy):
    """The listener's, which the keeper starts a moment after the listener listens."""
    proxy.wait_until(lambda: broker_of(proxy.listener.pid), "the keeper's child")
    return broker_of(proxy.listener.pid)


def test_only_where_there_are_hooks(warp, mail_server, hooks):
    proxy = warp(upstream=mail_server()).listen()
    proxy.greeted().close()
    assert not broker_of(proxy.listener.pid)
    client = warp(upstream=mail_server())
    client.greeted()
    assert not children_of(client.processes[-1].pid)


def test_listener_has_one_for_all_sessions(warp, mail_server, hooks):
    hooks.script("mail", "echo accept")
    proxy = warp(*hooks.options, upstream=mail_server()).listen()
    broker = running_broker(proxy)
    for client in [proxy.greeted() for _ in range(5)]:
        client.ask("MAIL FROM:<a@b.example>", "250")
    assert broker_of(proxy.listener.pid) == broker
    assert not any(children_of(session) for session in proxy.children())


def test_program_ends_that_is_taken_away(warp, mail_server, hooks):
    hooks.script("mail", "echo accept")
    proxy = warp(*hooks.options, upstream=mail_server()).listen()
    client = proxy.greeted()
    client.ask("MAIL FROM:<a@b.example>", "250")
    client.ask("RSET", "250")
    hooks.place("mail", "50-test").unlink()
    client.ask("MAIL FROM:<a@b.example>", "451 4.3.0")
    assert "it cannot be run: No such file or directory" in proxy.records("verdict")[-1]["text"]


def test_broker_that_is_killed(warp, mail_server, hooks):
    """By a hook that kills its parent, or for lack of memory. The hook under way fails, those after it do not."""
    hooks.script("mail", "read line; case $line in *killer*) kill -9 $PPID;; esac; echo accept")
    proxy = warp(*hooks.options, upstream=mail_server()).listen()
    first, broker = proxy.greeted(), running_broker(proxy)
    first.ask("MAIL FROM:<a@b.example>", "250")
    first.ask("RSET", "250")
    first.ask("MAIL FROM:<killer@b.example>", "451 4.3.0")
    assert proxy.records("verdict")[-1]["text"] == "the process that runs hooks has ended"
    assert proxy.wait_for("error")["error"] == "the process that runs hooks has ended: signal 9"
    proxy.wait_until(lambda: broker_of(proxy.listener.pid) not in (None, broker), "another one")
    proxy.greeted().ask("MAIL FROM:<a@b.example>", "250")
    first.ask("MAIL FROM:<a@b.example>", "250")


def test_sigterm_leaves_it_to_sessions_under_way(warp, mail_server, hooks):
    """systemd's and a terminal's signals come to all processes."""
    hooks.script("rcpt", "echo accept")
    proxy = warp(*hooks.options, upstream=mail_server()).listen()
    client = proxy.greeted()
    client.ask("MAIL FROM:<a@b.example>", "250")
    broker = running_broker(proxy)
    for number in signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR1:
        os.kill(broker, number)
    proxy.listener.send_signal(signal.SIGTERM)
    client.ask("RCPT TO:<a@b.example>", "250")
    client.ask("DATA", "354")
    client.ask("hello\r\n.", "250")
    proxy.wait_exit(proxy.listener)
    proxy.wait_until(lambda: gone(broker), "the broker's end")


def kill_session(proxy, begun):
    """A session whose hook of MAIL makes this file is killed."""
    proxy.complete = False
    client = proxy.greeted()
    client.send("MAIL FROM:<a@b.example>")
    proxy.wait_until(begun.exists, "the hook")
    os.kill(proxy.children()[0], signal.SIGKILL)
    proxy.wait_until(lambda: not proxy.children(), "the session's end")


def test_hook_of_a_session_that_was_killed(warp, mail_server, hooks, tmp_path):
    """It has --hook-timeout left."""
    hooks.script("mail", f"echo $$ >{tmp_path}/pid.new; mv {tmp_path}/pid.new {tmp_path}/pid; exec sleep 1000")
    proxy = warp(*hooks.options, "--hook-timeout", 2, upstream=mail_server()).listen()
    kill_session(proxy, tmp_path / "pid")
    proxy.wait_until(lambda: gone(int((tmp_path / "pid").read_text())), "the hook's end")


def test_hook_of_a_killed_session_without_a_limit(warp, mail_server, hooks, tmp_path):
    """--hook-timeout 0 is no limit, so it may come to its end."""
    os.mkfifo(tmp_path / "go")
    hooks.script("mail", f"touch {tmp_path}/begun; read x <{tmp_path}/go; touch {tmp_path}/done")
    kill_session(warp(*hooks.options, "--hook-timeout", 0, upstream=mail_server()).listen(), tmp_path / "begun")
    go = os.open(tmp_path / "go", os.O_RDWR)    # does not wait for a reader
    os.write(go, b"\n")
    wait_until((tmp_path / "done").exists)
    os.close(go)


def test_it_holds_no_connection(warp, mail_server, hooks):
    """Neither the client's nor the listening one, whatever way smtpwarp was started."""
    hooks.script("mail", "exec sleep 1000")
    proxy = warp(*hooks.options, "--hook-timeout", 2, upstream=mail_server())
    client = proxy.greeted()
    client.send("MAIL FROM:<a@b.example>")
    process = proxy.processes[-1].pid
    proxy.wait_until(lambda: children_of(broker_of(process)), "the hook")
    client_inode = os.readlink(f"/proc/{process}/fd/0")
    def held_by(child):
        held = []
        for entry in pathlib.Path(f"/proc/{child}/fd").iterdir():
            with contextlib.suppress(OSError):        # the shell has closed it meanwhile
                held.append(os.readlink(entry))
        return held
    for child in broker_of(process), *children_of(broker_of(process)):
        held = held_by(child)
        assert client_inode.startswith("socket:") and client_inode not in held
    client.reply()


def test_killed_listener_leaves_its_address(warp, mail_server, hooks):
    """The broker outlives it as long as sessions do, and holds no listening socket."""
    hooks.script("mail", "echo accept")
    proxy = warp(*hooks.options, upstream=mail_server()).listen()
    proxy.exit_codes, proxy.complete = (0, -signal.SIGKILL), False
    client, broker = proxy.greeted(), running_broker(proxy)
    proxy.listener.kill()
    proxy.listener.wait()
    client.ask("MAIL FROM:<a@b.example>", "250")
    with peers.socket.create_server(("127.0.0.1", proxy.listen_port)):
        pass
    client.ask("QUIT", "221")
    proxy.wait_until(lambda: gone(broker), "the broker's end")


def test_default_folder_that_appears_later(warp, mail_server, tmp_path):
    missing = tmp_path / "missing"
    proxy = warp(upstream=mail_server())
    proxy.wrapper = ["unshare", "--mount", "sh", "-c", f"mkdir -p {missing} /etc/smtpwarp && mount --bind {missing} /etc/smtpwarp && "
                     'exec "$@"', "sh"]
    proxy.listen()
    assert not broker_of(proxy.listener.pid)
    (missing / "hooks/mail").mkdir(parents=True)
    (missing / "hooks/mail/50-test").write_text("#!/bin/sh\necho reject\n")
    (missing / "hooks/mail/50-test").chmod(0o755)

    def rejected():
        client = proxy.greeted()
        client.send("MAIL FROM:<a@b.example>")
        return client.reply().code == 550
    proxy.wait_until(rejected, "a refusal by the new hook")


def test_connection_ends_though_its_starter_holds_it(warp, mail_server, hooks, tmp_path):
    """As systemd does until the service has ended: `log` hooks delay no client."""
    os.mkfifo(tmp_path / "go")
    hooks.script("log", f"cat >/dev/null; cat {tmp_path}/go")
    proxy = warp(*hooks.options, upstream=mail_server())
    with peers.socket.create_server(("127.0.0.1", 0)) as door:
        client = peers.connect("127.0.0.1", door.getsockname()[1], proxy.group)
        accepted, _ = door.accept()
    with accepted:
        proxy.spawn(stdin=accepted, stdout=accepted)
        client.expect("220")
        client.ask("QUIT", "221")
        client.expect_end()
        (tmp_path / "go").write_text("")
        proxy.wait_exit()


def test_limit_of_descriptors_is_for_each_hook(warp, mail_server):
    """The broker has one for each that runs, and those on the way to it count for a user: more hooks than that run at once."""
    with tempfile.TemporaryDirectory() as name:         # pytest's own are closed to other users
        folder = pathlib.Path(name)
        folder.chmod(0o755)
        hooks = Hooks(folder / "hooks")
        hooks.script("log", '[ "$(ulimit -Sn) $(ulimit -Hn)" = "100 2000" ] || exit 1; cat >/dev/null')
        proxy = warp(*hooks.options, "--user", "nobody", upstream=mail_server())
        proxy.wrapper = ["prlimit", "--nofile=100:2000"]
        proxy.listen()
        clients = [proxy.connect() for _ in range(150)]
        for client in clients:
            client.expect("220")
        for client in clients:
            client.ask("QUIT", "221")
            client.close()
        proxy.wait_until(lambda: not proxy.children())
        assert not proxy.records("verdict")
