"""Every way to start smtpwarp, but for systemd as PID 1 (test_systemd.py): DESIGN 3.

The super-servers are real and their configuration is what units/ ships, with only the path of smtpwarp changed. Each
test has a network of its own; the redirect is units/nftables-output.nft.
"""
import json
import os
import pathlib
import re
import signal
import socket
import subprocess

import pytest

import hosts
import netns
import peers
from waiting import wait_until
from warp import is_pending

pytestmark = pytest.mark.skipif(bool(netns.unsupported()), reason=netns.unsupported())

XINETD = hosts.ROOT / "build" / "pkg" / "usr" / "sbin" / "xinetd"
ORDERLY, USAGE, CONFIG = 0, os.EX_USAGE, os.EX_CONFIG


@pytest.fixture(name="redirected")
def fixture_redirected(net):
    net.host.rules("nftables-output.nft")
    return net


# Super-servers: each function returns the command line; more are arguments for smtpwarp.

def shipped(host, name):
    return (hosts.UNITS / name).read_text(encoding="utf-8").replace("/usr/sbin/smtpwarp", host.smtpwarp)


def configured(host, text):
    path = host.dir / "superserver.conf"
    path.write_text(text, encoding="utf-8")
    path.chmod(0o755)
    return path


def inetd(host, more, kind):
    rows = [line.removeprefix("#") for line in shipped(host, "inetd.conf").splitlines()]
    rows = [" ".join([row, *more]) for row in rows if re.search(rf" stream tcp6? {kind}\b", row)]
    assert len(rows) == 2
    return ["inetd", "-i", configured(host, "\n".join(rows) + "\n")]


def inetd_nowait(host, *more):
    return inetd(host, more, "nowait")


def inetd_wait(host, *more):
    return inetd(host, more, "wait")


def xinetd(host, *more):
    text = shipped(host, "xinetd.conf")
    if more:
        text = text.replace(host.smtpwarp, f"{host.smtpwarp}\n\tserver_args = {' '.join(more)}")
    return [XINETD, "-dontfork", "-f", configured(host, text), "-pidfile", host.dir / "xinetd.pid"]


def tcpserver(host, *more):
    return ["sh", configured(host, shipped(host, "tcpserver.run").rstrip() + " ".join(["", *more]) + "\n")]


def activate(host, *more, options=()):
    return ["systemd-socket-activate", *options, "-l", f"127.0.0.1:{hosts.PORT}", as_user(host), *more]


def activate_both(host, *more):
    return activate(host, *more, options=["-l", f"[::1]:{hosts.PORT}"])


def activate_accept(host, *more):
    return activate_both(host, *more)[:1] + ["--accept"] + activate_both(host, *more)[1:]


def activate_inetd(host, *more):
    return activate(host, *more, options=["--inetd"])


def activate_inetd_accept(host, *more):
    return activate(host, *more, options=["--inetd", "--accept"])


def socat(host, *more):
    """nofork: the program gets the connection itself."""
    return ["socat", f"TCP-LISTEN:{hosts.PORT},bind=127.0.0.1,fork,reuseaddr",
            f"EXEC:{' '.join([as_user(host), *more])},nofork"]


def socat_pair(host, *more):
    """The program gets one end of a socketpair, which knows no destination."""
    command = " ".join([as_user(host), "--upstream", "10.0.0.2:25", *more])
    return [*socat(host)[:-1], "EXEC:" + command.replace(":", r"\:")]


def as_user(host):
    """A script that drops root, which these launchers do not do; the redirect knows smtpwarp by its uid."""
    script = host.dir / "as-user"
    script.write_text(f'#!/bin/sh\nexec setpriv --reuid {hosts.USER} --regid {hosts.USER} --clear-groups '
                      f'{host.smtpwarp} "$@"\n', encoding="utf-8")
    script.chmod(0o755)
    return str(script)


SUPERSERVERS = (inetd_nowait, inetd_wait, xinetd, tcpserver, activate_both, activate_accept, activate_inetd,
                activate_inetd_accept, socat, socat_pair)
IPV6 = (inetd_nowait, inetd_wait, xinetd, activate_both, activate_accept)
LOG_IN_SYSLOG = (inetd_nowait, inetd_wait, xinetd)      # where fd 2 is a socket of inetd's
NAMES = [server.__name__ for server in SUPERSERVERS]


def launch(net, server, *more):
    with open(net.host.dir / "stderr", "wb") as errors:
        child = net.host.popen(server(net.host, *more), stdout=errors, stderr=errors)
    net.host.ns.wait_listening(hosts.PORT, alive=lambda: child.poll() is None)
    return child


def events(path):
    lines = pathlib.Path(path).read_text(encoding="utf-8").splitlines()
    return [json.loads(line) for line in lines if line.startswith("{")]


@pytest.mark.parametrize("options", [(), ("--verbose",)], ids=["quiet", "verbose"])
@pytest.mark.parametrize("server", SUPERSERVERS, ids=NAMES)
def test_message(redirected, server, options):
    """The client sees the server's bytes and nothing else, the server gets the message, the log is where it belongs."""
    net = redirected
    launch(net, server, *options)
    targets = [net.mail.ip4, net.mail.ip6] if server in IPV6 else [net.mail.ip4]
    for address in targets:
        hosts.deliver(net.host.ns, address)
    assert [message["data"] for message in net.messages] == [b"Subject: one\r\n\r\nA line.\r\n.\r\n"] * len(targets)

    def logged():
        records = net.host.syslog_events() if server in LOG_IN_SYSLOG else events(net.host.dir / "stderr")
        return sum(record["event"] == "close" for record in records) == len(targets) and records
    records = wait_until(logged)
    assert [record["result"] for record in records if record["event"] == "message"] == ["accepted"] * len(targets)
    assert any(record["event"] == "comm" for record in records) == bool(options)
    if server is not socat_pair:
        connects = [record for record in records if record["event"] == "connect"]
        assert connects[0]["original"] == {"ip": net.mail.ip4, "port": 25}


@pytest.mark.parametrize("options", [["--no-such-option"], ["--tls-ca", "/nonexistent"], ["--tls", "sometimes"]],
                         ids=["option", "file", "value"])
@pytest.mark.parametrize("server", [inetd_nowait, xinetd, tcpserver, activate_accept, activate_inetd_accept, socat],
                         ids=lambda server: server.__name__)
def test_client_never_reads_a_message_for_a_person(redirected, server, options):
    launch(redirected, server, *options)
    client = hosts.connect(redirected.host.ns, redirected.mail.ip4)
    assert re.fullmatch(rb"421 [ -~]*\r\n", client.rest())
    assert not redirected.messages


def test_inetd_wait_ends_when_idle_and_comes_back(redirected):
    net = redirected
    inetd_process = launch(net, inetd_wait, "--idle-exit", "0.3")

    def running():
        return children(inetd_process.pid)

    for _ in range(2):
        client = hosts.greeted(net.host.ns, net.mail.ip4)
        assert running()
        hosts.finish(client)
        wait_until(lambda: not running())
    assert len(net.messages) == 2


def test_inetd_wait_does_not_end_under_a_session(redirected):
    net = redirected
    inetd_process = launch(net, inetd_wait, "--idle-exit", "0.1")
    client = hosts.greeted(net.host.ns, net.mail.ip4)
    client.silent(0.5)
    assert children(inetd_process.pid)
    hosts.finish(client)
    wait_until(lambda: not children(inetd_process.pid))


# Descriptors handed over

def children(pid):
    try:
        return [int(word) for word in pathlib.Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    except OSError:        # it ended while it was read: ENOENT or ESRCH
        return []


def status(pid):
    """/proc/PID/status as a dict of lists of words."""
    rows = pathlib.Path(f"/proc/{pid}/status").read_text().splitlines()
    return {name: words.split() for name, _, words in (row.partition(":") for row in rows)}


def listening(ns, address, port):
    with ns:
        return socket.create_server((address, port), family=socket.AF_INET6 if ":" in address else socket.AF_INET)


def upstream(net):
    return ["--upstream", f"{net.mail.ip4}:25"]


def listener(net, sockets, *more, **options):
    return net.host.listen_fds(sockets, [net.host.smtpwarp, *upstream(net), *more], **options)


@pytest.mark.parametrize("count", range(1, 9))
def test_listen_fds(net, count):
    """IPv4 and IPv6 in turn."""
    places = [(("127.0.0.1", "::1")[i % 2], 2500 + i) for i in range(count)]
    sockets = [listening(net.host.ns, *place) for place in places]
    child = listener(net, sockets)
    for sock in sockets:
        sock.close()
    for place in places:
        hosts.deliver(net.host.ns, *place)
    assert len(net.messages) == count
    assert hosts.stop(child) == ORDERLY


def test_listen_fds_dual_stack(net):
    """An IPv4 client of an IPv6 socket."""
    with net.host.ns:
        sock = socket.create_server(("::", 2500), family=socket.AF_INET6, dualstack_ipv6=True)
    child = listener(net, [sock], "--allow-clients", "127.0.0.0/8", "--allow-clients", "::1")
    for address in "127.0.0.1", "::1":
        hosts.deliver(net.host.ns, address, 2500)
    assert hosts.stop(child) == ORDERLY


def test_listen_fds_connected(redirected):
    """systemd's Accept=yes without StandardInput=socket: descriptor 3 is the client."""
    net = redirected
    with listening(net.host.ns, "127.0.0.1", hosts.PORT) as door:
        client = hosts.connect(net.host.ns, net.mail.ip4)
        accepted = door.accept()[0]
    child = net.host.listen_fds([accepted], [as_user(net.host)])
    accepted.close()
    hosts.finish(hosts.greet(client))
    assert child.wait(peers.TIMEOUT) == ORDERLY


def refused(net, argv, code, **options):
    """smtpwarp ends with the code and one clear line on stderr; returns the line."""
    child = net.host.popen(argv, stdout=subprocess.PIPE, stderr=subprocess.PIPE, **options)
    out, err = child.communicate(timeout=peers.TIMEOUT)
    assert (child.returncode, out) == (code, b""), err
    assert re.fullmatch(rb"smtpwarp: [ -~]+\n", err)
    return err.decode()


def test_more_than_eight_listen_fds(net):
    sockets = [listening(net.host.ns, "127.0.0.1", 2500 + i) for i in range(9)]
    child = listener(net, sockets, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    out, err = child.communicate(timeout=peers.TIMEOUT)
    assert (child.returncode, out) == (USAGE, b"")
    assert re.fullmatch(rb"smtpwarp: [ -~]+\n", err)


def test_listen_pid_of_another_process(net):
    """The descriptors are not for us (they were left to us by a careless parent): as if there were none."""
    with listening(net.host.ns, "127.0.0.1", 2500) as sock:
        child = listener(net, [sock], pid="1", stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        out, err = child.communicate(timeout=peers.TIMEOUT)
    assert (child.returncode, out) == (USAGE, b"")
    assert re.fullmatch(rb"smtpwarp: [ -~]+\n", err)


def test_listen_pid_of_another_process_beside_a_session(redirected):
    """Such descriptors are no reason not to serve the client on descriptor 0."""
    net = redirected
    script = net.host.dir / "bogus"
    script.write_text(f'#!/bin/sh\nLISTEN_PID=1 LISTEN_FDS=1 exec {as_user(net.host)}\n')
    script.chmod(0o755)
    net.host.popen(["systemd-socket-activate", "--inetd", "--accept", "-l", f"127.0.0.1:{hosts.PORT}", script],
                   stderr=subprocess.DEVNULL)
    net.host.ns.wait_listening(hosts.PORT)
    hosts.deliver(net.host.ns, net.mail.ip4)


def test_descriptor_that_is_no_stream(net):
    with net.host.ns, socket.socket(type=socket.SOCK_DGRAM) as sock:
        child = listener(net, [sock], stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        out, err = child.communicate(timeout=peers.TIMEOUT)
    assert (child.returncode, out) == (USAGE, b"")
    assert re.fullmatch(rb"smtpwarp: [ -~]+\n", err)


# Sockets of its own

def started(net, *argv, port=hosts.PORT, **options):
    child = net.host.popen([net.host.smtpwarp, *argv], **options)
    net.host.ns.wait_listening(port, alive=lambda: child.poll() is None)
    return child


def test_listen_several(redirected):
    net = redirected
    child = started(net, "--listen", "127.0.0.1:10025", "--listen=[::1]:10025", "-listen", "127.0.0.1:10026",
                    "--user", hosts.USER)
    hosts.deliver(net.host.ns, net.mail.ip4)
    hosts.deliver(net.host.ns, net.mail.ip6)
    assert re.match(rb"421 4\.3\.5 ", hosts.connect(net.host.ns, "127.0.0.1", 10026).rest())
    assert len(net.messages) == 2
    assert hosts.stop(child) == ORDERLY


def test_user(net):
    """Binds a port below 1024, then has nothing left of root, in the listener, its companions and each session."""
    child = started(net, "--listen", "127.0.0.1:25", "--user", hosts.USER, *upstream(net), port=25,
                    extra_groups=[0, 4, 27])
    client = hosts.greeted(net.host.ns, "127.0.0.1")
    keeper, dialer, session = children(child.pid)
    uid = [str(net.host.uid)] * 4
    for pid in child.pid, keeper, dialer, session:
        seen = status(pid)
        assert (seen["Uid"], seen["Gid"]) == (uid, uid)
        assert set(seen["Groups"]) <= set(uid)
        assert [int(seen[name][0], 16) for name in ("CapPrm", "CapEff", "CapAmb")] == [0, 0, 0]
    hosts.finish(client)


def test_user_unknown(net):
    line = refused(net, [net.host.smtpwarp, "--listen", "127.0.0.1:25", "--user", "no-such-user"], CONFIG)
    assert "no-such-user" in line
    assert 25 not in net.host.ns.listening_ports()


def test_user_of_a_single_connection(redirected):
    """It would be served as root, so it is not."""
    net = redirected
    with listening(net.host.ns, "127.0.0.1", hosts.PORT) as door:
        client = hosts.connect(net.host.ns, net.mail.ip4)
        accepted = door.accept()[0]
    child = net.host.listen_fds([accepted], [net.host.smtpwarp, "--user", hosts.USER], stderr=subprocess.PIPE, text=True)
    accepted.close()
    assert re.fullmatch(rb"421 4[.]3[.]5 [ -~]*\r\n", client.rest())
    assert child.wait(peers.TIMEOUT) == CONFIG
    assert f"--user {hosts.USER}: for one connection" in child.stderr.read()
    assert not net.messages


@pytest.mark.parametrize("option, more", [("--hooks", []), ("--plugins-dir", ["--plugins", "10-hook"])])
def test_hooks_in_a_folder_with_a_long_name(tmp_path, option, more):
    """They are not passed over in silence."""
    folder = tmp_path / ("x" * 250) / ("y" * 255)
    (folder / "rcpt").mkdir(parents=True)
    (folder / "rcpt" / "10-hook").write_text("#!/bin/sh\n")
    done = subprocess.run([hosts.SMTPWARP, "--check", option, folder, *more], capture_output=True, text=True, check=False)
    assert done.returncode == CONFIG and f"smtpwarp: {option} " in done.stderr and "name too long" in done.stderr.lower()


def test_check_does_not_bind(net):
    """--check only reads: the port may be taken, by the smtpwarp that is to be restarted."""
    with listening(net.host.ns, "127.0.0.1", 2500):
        net.host.run([net.host.smtpwarp, "--check", "--listen", "127.0.0.1:2500"])
    refused(net, [net.host.smtpwarp, "--check", "--listen", "127.0.0.1:65536"], USAGE)


# A listener's life

class Manager:
    """The other end of NOTIFY_SOCKET."""

    def __init__(self, path, abstract):
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.sock.settimeout(peers.TIMEOUT)
        self.sock.bind(f"\0{path}" if abstract else str(path))
        if not abstract:
            path.chmod(0o666)
        self.variable = {"NOTIFY_SOCKET": f"@{path}" if abstract else str(path)}

    def until(self, wanted):
        """Receives until an assignment that begins with wanted; all that came."""
        seen = []
        while not any(line.startswith(wanted) for line in seen):
            seen += self.sock.recv(4096).decode().splitlines()
        return seen


@pytest.mark.parametrize("abstract", [False, True], ids=["path", "abstract"])
def test_notifies_manager(net, abstract):
    with net.host.ns:       # which abstract names belong to
        manager = Manager(net.host.dir / "notify", abstract)
    child = started(net, "--listen", "127.0.0.1:2500", *upstream(net), port=2500,
                    env={**os.environ, **manager.variable})
    assert "READY=1" in manager.until("READY=1")
    client = hosts.greeted(net.host.ns, "127.0.0.1", 2500)
    assert re.search(r"\b1\b", manager.until("STATUS=")[-1])
    child.terminate()
    assert "STOPPING=1" in manager.until("STOPPING=1")
    hosts.finish_at_stop(client)
    assert child.wait(peers.TIMEOUT) == ORDERLY


def test_sigterm_to_a_session_of_its_own(redirected):
    """systemd stops a session unit so. A message that is under way is finished, then the client is told."""
    net = redirected
    launcher = launch(net, activate_inetd_accept)
    client = hosts.greeted(net.host.ns, net.mail.ip4)
    session, = children(launcher.pid)
    os.kill(session, signal.SIGTERM)
    client.ask("RCPT TO:<b@server.example>")
    client.ask("DATA", "354")
    client.send("A line.", ".")
    client.expect("250 2.0.0 taken")
    assert re.fullmatch(rb"421 4\.3\.2 [ -~]*\r\n", client.rest())
    client.close()
    wait_until(lambda: not children(launcher.pid))


@pytest.mark.parametrize("again", [signal.SIGTERM, None])
def test_sigterm_to_a_session_that_goes_on(redirected, again):
    """A second signal, or the time for draining, ends it in the middle: the client keeps its message."""
    net = redirected
    launcher = launch(net, activate_inetd_accept, *([] if again else ["--drain-timeout", "0.2"]))
    client = hosts.greeted(net.host.ns, net.mail.ip4)
    session, = children(launcher.pid)
    os.kill(session, signal.SIGTERM)
    client.ask("RCPT TO:<b@server.example>")
    if again:
        wait_until(lambda: not is_pending(session, again))
        os.kill(session, again)
    assert re.fullmatch(rb"421 4\.3\.2 [ -~]*\r\n", client.rest())
    client.close()
    wait_until(lambda: not children(launcher.pid))
    assert not net.messages


def test_listening_to_all_without_ipv6_in_the_kernel(warp, mail_server, tmp_path):
    """*:PORT is then 0.0.0.0:PORT."""
    if not os.path.exists("/usr/bin/strace"):
        pytest.skip("needs strace")
    proxy = warp("--allow-clients", "127.0.0.0/8", upstream=mail_server())
    proxy.wrapper = ["strace", "-D", "-o", str(tmp_path / "trace"), "-e", "trace=socket", "-e",
                     "inject=socket:error=EAFNOSUPPORT:when=1"]
    proxy.listen("*:2525")
    assert "AF_INET6, SOCK_STREAM" in (tmp_path / "trace").read_text().splitlines()[0]
    proxy.connect("127.0.0.1").expect("220")
    with pytest.raises(OSError):
        proxy.connect("::1")
