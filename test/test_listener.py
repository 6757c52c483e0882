"""The listener: its limits, its end, and what must not harm it: DESIGN 3, PROTOCOL 75."""
import contextlib
import os
import pathlib
import resource
import shutil
import signal
import socket
import subprocess
import tempfile

import pytest

import peers
from waiting import wait_until
from warp import BINARY, NO_REPORTS, cpu_seconds, gone, is_sealed


def wait_children(proxy, count):
    proxy.wait_until(lambda: len(proxy.children()) == count, f"{count} children")


def served(proxy):
    """A session that has come to its banner."""
    session = proxy.session()
    session.banner()
    return session


# Sessions at a time

def test_75_max_sessions(warp):
    proxy = warp("--max-sessions", 2).listen()
    first, second = served(proxy), served(proxy)
    third = proxy.connect()
    third.expect("421 4.3.2")
    third.expect_end()
    first.quit()
    wait_children(proxy, 1)
    fourth = served(proxy)
    second.quit()
    fourth.quit()


def test_75_max_sessions_per_source(warp):
    proxy = warp("--max-sessions-per-source", 1).listen()
    first = served(proxy)
    refused = proxy.connect()
    refused.expect("421")
    refused.expect_end()
    other = proxy.connect(source=("127.0.0.2", 0))
    server = proxy.upstream.accept()
    server.send("220 for another")
    other.expect("220 for another")
    first.quit()
    wait_children(proxy, 1)
    served(proxy).quit()


def test_75_max_sessions_per_source_by_network(warp, host):
    """A client with IPv6 has 2^64 addresses."""
    host.ip("addr add 2001:db8:0:1::1/64 dev lo nodad", "addr add 2001:db8:0:1:ffff::2/64 dev lo nodad",
            "addr add 2001:db8:0:2::1/64 dev lo nodad")
    proxy = warp("--max-sessions-per-source", 1, "--allow-clients", "2001:db8::/32").listen("[2001:db8:0:1::1]:2525")
    first = proxy.connect("2001:db8:0:1::1", source=("2001:db8:0:1::1", 0))
    proxy.connect("2001:db8:0:1::1", source=("2001:db8:0:1:ffff::2", 0)).expect("421 4.3.2")
    other = proxy.connect("2001:db8:0:1::1", source=("2001:db8:0:2::1", 0))
    for _ in range(2):      # in whichever order they come
        proxy.upstream.accept().send("220 for each")
    for client in first, other:
        client.expect("220")


def test_75_refused_sessions_cost_nothing(warp):
    """A flood beyond the limit: each gets its 421, none gets a process that stays."""
    proxy = warp("--max-sessions", 1).listen()
    first = served(proxy)
    clients = [proxy.connect() for _ in range(200)]
    for client in clients:
        client.expect("421 4.3.2")
        client.expect_end()
    wait_children(proxy, 1)
    first.quit()


def test_75_many_sessions_at_once(warp, mail_server):
    server = mail_server("PIPELINING")
    proxy = warp(upstream=server).listen()
    clients = [proxy.connect() for _ in range(100)]
    for client in clients:
        client.send("EHLO client.example", "MAIL FROM:<a@b.example>", "RCPT TO:<c@d.example>", "DATA", "x", ".", "QUIT")
    for client in clients:
        assert [client.reply().code for _ in range(7)] == [220, 250, 250, 250, 354, 250, 221]
    assert len(server.messages) == 100
    wait_children(proxy, 0)


def test_75_several_listeners(warp, mail_server):
    addresses = ["127.0.0.1:2525", "127.0.0.1:2526", "[::1]:2525"]
    proxy = warp(upstream=mail_server()).listen(*addresses)
    for address in addresses:
        host, _, port = address.rpartition(":")
        proxy.connect(host.strip("[]"), int(port)).expect("220")


# Harm

@pytest.mark.parametrize("how", [signal.SIGSEGV, signal.SIGKILL, signal.SIGABRT])
def test_75_a_session_that_dies_harms_nobody(warp, how):
    proxy = warp(env=NO_REPORTS).listen()
    proxy.complete = False
    first = served(proxy)
    [victim] = proxy.children()
    second = served(proxy)
    os.kill(victim, how)
    wait_children(proxy, 1)
    first.client.expect_end()
    words = "was killed" if how == signal.SIGKILL else f"crashed: signal {how}"
    assert f"session process {victim} {words}" in proxy.wait_for("error")["error"]
    served(proxy).quit()
    second.ehlo()
    second.quit()


def test_75_no_file_descriptors_left(warp):
    """421 4.3.2 to those it cannot serve, no busy loop, and service again when there are some."""
    proxy = warp().listen()
    pid = proxy.listener.pid
    used = len(os.listdir(f"/proc/{pid}/fd"))
    limits = resource.prlimit(pid, resource.RLIMIT_NOFILE)
    resource.prlimit(pid, resource.RLIMIT_NOFILE, (used, limits[1]))
    client = proxy.connect()
    client.expect("421 4.3.2")
    client.expect_end()
    before = cpu_seconds(pid)
    proxy.group.turn(0.3)
    assert cpu_seconds(pid) - before < 0.15, "a busy loop"
    resource.prlimit(pid, resource.RLIMIT_NOFILE, limits)
    served(proxy).quit()


def test_75_no_processes_left(warp):
    """--user, for root's forks know no limit."""
    proxy = warp("--user", "nobody", env=NO_REPORTS)
    proxy.wrapper = ["prlimit", "--nproc=0"]
    proxy.listen()
    for _ in range(3):
        client = proxy.connect()
        client.expect("421 4.3.2")
        client.expect_end()


def test_75_clients_that_leave_before_they_are_accepted(warp):
    proxy = warp("--max-sessions", 5).listen()
    os.kill(proxy.listener.pid, signal.SIGSTOP)
    for _ in range(50):
        proxy.connect().reset()
    os.kill(proxy.listener.pid, signal.SIGCONT)
    with contextlib.suppress(socket.timeout):
        while True:     # those dialled for nothing
            proxy.upstream.accept(0.1).close()
    wait_children(proxy, 0)
    served(proxy).quit()


@pytest.mark.parametrize("name", [signal.SIGPIPE, signal.SIGCHLD])
def test_75_signals_that_end_nothing(warp, name):
    proxy = warp().listen()
    session = served(proxy)
    os.kill(proxy.listener.pid, name)
    served(proxy).quit()
    session.quit()


# The end

def stop_listening(proxy, host):
    """SIGTERM, and its first effect."""
    proxy.listener.send_signal(signal.SIGTERM)
    proxy.wait_until(lambda: 2525 not in host.listening_ports(), "a closed port")


def test_75_sigterm_lets_sessions_end(warp, host):
    proxy = warp().listen()
    session = proxy.session().to("data")
    stop_listening(proxy, host)
    with pytest.raises(ConnectionRefusedError):
        proxy.connect()
    session.body()
    session.dot()
    assert proxy.listener.poll() is None
    session.sent()
    session.client.expect("421 4.3.2")
    session.client.expect_end()
    assert proxy.wait_exit(proxy.listener) == 0
    assert proxy.records("message")[0]["result"] == "accepted"


@pytest.mark.parametrize("phase", ["banner", "ehlo", "sent"])
@pytest.mark.parametrize("all_of_them", [False, True], ids=["listener", "all"])
def test_75_sigterm_ends_sessions_between_messages(warp, host, phase, all_of_them):
    """At once, as Accept=yes has it; a message under way goes on, though the signal reaches every process (a terminal's does)."""
    proxy = warp("--drain-timeout", 600).listen()
    idle, busy = proxy.session().to(phase), proxy.session().to("body")
    children = proxy.children()
    if all_of_them:
        for pid in children:
            os.kill(pid, signal.SIGTERM)
    stop_listening(proxy, host)
    idle.client.expect("421 4.3.2")
    idle.client.expect_end()
    busy.dot()
    busy.sent()
    busy.client.expect("421 4.3.2")
    assert proxy.wait_exit(proxy.listener) == 0


def test_75_sigterm_while_connections_wait(warp):
    """They may always do, and ppoll(2) takes no signal then."""
    def pending():
        signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM])
        signal.raise_signal(signal.SIGTERM)

    proxy = warp()
    with contextlib.ExitStack() as stack:
        door = stack.enter_context(socket.create_server(("127.0.0.1", 0)))
        for _ in range(20):
            stack.enter_context(socket.create_connection(door.getsockname()))
        proxy.wait_exit(proxy.spawn(stdin=door, preexec_fn=pending))
    [stop] = [record for record in proxy.records() if record["event"] == "stop"]
    assert stop["sessions"] == 0


def test_75_sigterm_without_sessions(warp):
    proxy = warp().listen()
    proxy.listener.send_signal(signal.SIGTERM)
    assert proxy.wait_exit(proxy.listener) == 0


@pytest.mark.parametrize("end", ["second signal", "drain timeout"])
def test_75_the_end_of_patience(warp, host, end):
    """Sessions are ended, none is left behind, and no message gets its dot by that."""
    proxy = warp("--drain-timeout", 0.4 if end == "drain timeout" else 60).listen()
    proxy.complete = False
    idle, busy = served(proxy), served(proxy)
    busy.ehlo()
    busy.mail()
    busy.rcpt()
    busy.data()
    busy.body()
    children = proxy.children()
    stop_listening(proxy, host)
    if end == "second signal":
        proxy.listener.send_signal(signal.SIGTERM)
    assert proxy.wait_exit(proxy.listener) == 0
    for session in idle, busy:
        assert session.client.rest() in (b"",) or session.client.got.split(b"\r\n")[-2].startswith(b"421 4.3.2")
        assert b"\r\n.\r\n" not in session.server.farewell()
    proxy.wait_until(lambda: all(map(gone, children)), "the sessions' end")


def test_75_sigint_ends_it_too(warp):
    proxy = warp().listen()
    proxy.exit_codes = (0, -signal.SIGINT)
    proxy.listener.send_signal(signal.SIGINT)
    proxy.wait_exit(proxy.listener)


def test_75_address_in_use(warp, host):
    with socket.create_server(("127.0.0.1", 2525)):
        proxy = warp()
        proxy.exit_codes = (75,)    # a temporary failure: it is tried again
        process = proxy.spawn("--listen", "127.0.0.1:2525")
        assert proxy.wait_exit(process) == 75
        assert "2525" in proxy.error_path.read_text()


def test_75_address_in_use_for_a_moment(warp, mail_server):
    """As after SIGKILL, when a session that was just forked still holds it."""
    proxy = warp(upstream=mail_server())
    with socket.create_server(("127.0.0.1", 2525)):
        process = proxy.spawn("--listen", "127.0.0.1:2525")
        proxy.group.turn(0.3)
        assert process.poll() is None
    proxy.wait_until(lambda: 2525 in proxy.namespace.listening_ports())
    peers.connect("127.0.0.1", 2525, proxy.group).expect("220")
    process.terminate()
    proxy.wait_exit(process)


def test_75_new_index_holds_no_address(warp, tmp_path):
    """The process that makes it can take a while."""
    routes, fresh = tmp_path / "routes", tmp_path / "fresh"
    for path in routes, fresh:
        path.write_text("".join(f"user{i}@{path.name}.example;127.0.0.1\n" for i in range(200000)))
    proxy = warp("--routes", routes).listen()
    os.rename(fresh, routes)
    client = proxy.connect()

    def listens(pid):
        with contextlib.suppress(OSError), open(f"/proc/{pid}/net/tcp") as file:
            listening = {f"socket:[{row.split()[9]}]" for row in file if row.split()[3] == "0A"}
            return any(os.readlink(path) in listening for path in pathlib.Path(f"/proc/{pid}/fd").iterdir())
        return False

    def both_without():
        children = proxy.children()
        return listens(proxy.listener.pid) and len(children) == 2 and not any(map(listens, children))
    proxy.wait_until(both_without, "a session and the process that makes an index, both without the listener's sockets")
    client.expect("220")


def test_75_user_is_dropped_to(warp):
    proxy = warp("--user", "nobody").listen()
    session = served(proxy)
    for pid in proxy.listener.pid, *proxy.children():
        with open(f"/proc/{pid}/status") as file:
            status = dict(line.split(":\t", 1) for line in file if ":\t" in line)
        assert status["Uid"].split() == ["65534"] * 4 and status["Gid"].split() == ["65534"] * 4
        assert status["Groups"].split() in ([], ["65534"])
    session.quit()


# SIGHUP

def test_sighup_opens_the_log_anew(warp, mail_server):
    """A renamed file is not written any more by sessions that begin afterwards."""
    proxy = warp(upstream=mail_server()).listen()
    proxy.greeted().ask("QUIT", "221")
    proxy.wait_for("close")
    proxy.log_path.rename(proxy.log_path.with_suffix(".1"))
    proxy.listener.send_signal(signal.SIGHUP)
    wait_until(proxy.log_path.exists)
    proxy.greeted().ask("QUIT", "221")
    proxy.wait_for("close")
    assert proxy.log_path.with_suffix(".1").read_text().count('"close"') == 1


@pytest.mark.parametrize("instead", [None, "a named pipe"])
def test_sighup_with_a_file_that_is_gone_keeps_the_old(warp, mail_server, certs, tmp_path, instead):
    """A CA file that has been taken away, or that would be waited for, is said once, and sessions go on."""
    ca = tmp_path / "ca.pem"
    ca.write_bytes(pathlib.Path(certs.ca).read_bytes())
    proxy = warp("--tls-ca", ca, upstream=mail_server()).listen()
    proxy.greeted().ask("QUIT", "221")
    ca.unlink()
    if instead:
        os.mkfifo(ca)
    proxy.listener.send_signal(signal.SIGHUP)
    assert "--tls-ca" in proxy.wait_for("error")["error"]
    proxy.greeted().ask("QUIT", "221")


# The memory that sessions share

NOBODY = 65534


@pytest.fixture(name="with_secrets")
def fixture_with_secrets(warp, certs):
    """A listener with all that sessions share, and a session of it."""
    with tempfile.TemporaryDirectory() as name:         # pytest's own are closed to other users
        folder = pathlib.Path(name)
        folder.chmod(0o755)
        yield from serving_with_secrets(warp, certs, folder / "passwords", folder / "routes")


def serving_with_secrets(warp, certs, passwords, routes):
    passwords.write_text("mx.example user:password\n")
    routes.write_text("".join(f"user{i}@mail.example;127.0.0.1\n" for i in range(5000)))
    proxy = warp(*certs.options(), "--tls-ca", certs.ca, "--upstream-auth", passwords, "--routes", routes, "--user", "nobody").listen()
    client = proxy.connect()
    client.expect("220")
    proxy.wait_until(lambda: len(proxy.children()) == 1, "a session")
    yield [proxy.listener.pid, *proxy.children()]


def test_72_what_sessions_share_cannot_be_changed(with_secrets):
    """Anchors, certificates, hosts with passwords, rules and the index of routes. Keys and passwords are the agents' alone: test_agent.py."""
    for pid in with_secrets:
        rows = [line.split() for line in pathlib.Path(f"/proc/{pid}/maps").read_text().splitlines()]
        shared = {row[5]: row[1] for row in rows if len(row) > 5 and row[5].startswith("/memfd:")}
        assert shared == {f"/memfd:{name}": "r--p" for name in ("anchors", "certificates", "hosts", "rules")}
        files = [path for path in pathlib.Path(f"/proc/{pid}/fd").iterdir() if os.readlink(path).startswith("/memfd:")]
        assert [os.readlink(path) for path in files] == ["/memfd:routes (deleted)"]
        with open(files[0], "r+b") as index:
            assert is_sealed(index)
            with pytest.raises(PermissionError):
                os.pwrite(index.fileno(), b"x", 0)


def test_72_processes_of_the_same_user_see_no_secrets(host):
    """Where smtpwarp is started as its user, as by systemd; a change of the user has the same effect by itself."""
    with tempfile.TemporaryDirectory() as name:
        os.chmod(name, 0o755)
        program = shutil.copy(BINARY, name)
        argv = [program, "--listen", "127.0.0.1:2525", "--upstream", "127.0.0.1:1", "--log", "none"]
        with subprocess.Popen(argv, user=NOBODY, group=NOBODY, extra_groups=[], cwd="/") as listener:
            host.wait_listening(2525, alive=lambda: listener.poll() is None)
            files = [f"/proc/{listener.pid}/{file}" for file in ("mem", "maps", "environ")]
            said = subprocess.run(["head", "-c1", *files], user=NOBODY, group=NOBODY, capture_output=True, text=True, check=False)
            listener.terminate()
            assert said.stderr.count("Permission denied") == len(files)
