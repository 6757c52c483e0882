"""Walls around a session: what code that a peer has smuggled into it can still do. test/proof/intruder.c is that code."""
import contextlib
import os
import pathlib
import re
import socket
import subprocess

import pytest

import building
import nameservers
from building import ROOT
from hooks import Hooks
from warp import BINARY

MODES = ["listener", "listener of root", "alone", "alone, root"]
NOBODY = 65534

# What is tried, with which operand, and what comes of it: words of the answer, or the call whose record ends the session.
REFUSED = [
    ("execute", "/bin/true", "execve"),
    ("read", "/etc/passwd", "refused: Permission denied"),
    ("read", "{key}", "refused: Permission denied"),
    ("read", "/proc/self/maps", "refused: Permission denied"),
    ("make", "{directory}/new", "refused: Permission denied"),
    ("remove", "{key}", "refused: Permission denied"),
    ("signal", "{parent}", "kill"),
    ("signal", "{sibling}", "kill"),
    ("own", "{parent}", "fcntl"),
    ("own", "{sibling}", "fcntl"),
    ("trace", "{parent}", "ptrace"),
    ("peek", "{sibling}", "process_vm_readv"),
    ("memory", "{parent}", "refused: Permission denied"),
    ("memory", "{sibling}", "refused: Permission denied"),
    ("socket", "17", "socket"),         # AF_PACKET
    ("socket", "40", "socket"),         # AF_VSOCK
    ("pair", "30", "socketpair"),       # AF_TIPC
    ("raw", "2", "socket"),
    ("raw", "16", "socket"),
    ("multipath", "", "socket"),
    ("connect", "7", "socket"),
    ("connect", "{upstream}", "socket"),
    ("datagram", "53", "socket"),
    ("listen", "", "socket"),
    ("again", "", "connect"),
    ("path", "{path}", "connect"),
    ("abstract", "somebody", "connect"),
    ("rule", "7", "refused: Bad file descriptor"),
    ("fork", "", "clone"),
    ("text", "", "mprotect"),
    ("code", "", "mmap"),
    ("files", "", "refused: Bad file descriptor"),
    ("root", "", "setuid"),
    ("namespace", "", "unshare"),
]


@pytest.fixture(name="intruder", scope="session")
def fixture_intruder():
    """smtpwarp with an intruder in its sessions."""
    if "asan" in BINARY:
        pytest.skip("with AddressSanitizer no system calls are filtered")
    building.make("test/intruder", "intruder", env={**os.environ, "MAKEFLAGS": ""})
    return str(ROOT / "build/test/intruder/bin/smtpwarp")


@pytest.fixture(name="begin")
def fixture_begin(warp, mail_server, intruder, tmp_path):
    """begin(mode, *options): a session with an intruder, and its smtpwarp. Call it again for another session of the same."""
    proxies, rules = {}, tmp_path / "rules"
    rules.write_text("*\t*\t4*\tother\n")
    tmp_path.chmod(0o755)
    for folder in tmp_path.parents[:-2]:
        folder.chmod(folder.stat().st_mode | 0o011)

    def make(mode, *options):
        proxy = warp("--reply-rules", rules, *options, *(["--log", "stderr"] if mode == "alone" else []), upstream=mail_server())
        proxy.binary, proxy.complete = intruder, False
        if mode == "alone":
            proxy.log_path = proxy.error_path
            proxy.wrapper = ["setpriv", f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups", "--"]
        if mode == "listener":
            proxy.options += ["--user", "nobody"]
        return proxy.listen() if mode.startswith("listener") else proxy

    def begin(mode, *options):
        if mode not in proxies:
            proxies[mode] = make(mode, *options)
        proxy = proxies[mode]
        client = proxy.greeted()
        pid = proxy.children()[-1] if mode.startswith("listener") else proxy.processes[-1].pid
        return proxy, client, pid
    return begin


def attempt(client, what, operand):
    client.send(f"NOOP intrude {what} {operand}")
    return client.reply().lines[-1]


def name_attempt(attempt):
    return f"{attempt[0]} {attempt[1]}".strip()


def names_call(proxy, client, call, words):
    """The session ends, and a record names the call."""
    client.send(f"NOOP intrude {words}")
    assert not client.rest()
    error = proxy.wait_for("error")["error"]
    assert error.startswith(f"a system call that a session never makes, {call} (")
    proxy.exit_codes = (0, 70)


@pytest.fixture(name="somebody")
def fixture_somebody(tmp_path):
    """Others' Unix sockets: one by path, one abstract."""
    with socket.socket(socket.AF_UNIX) as path, socket.socket(socket.AF_UNIX) as abstract:
        path.bind(str(tmp_path / "somebody"))
        (tmp_path / "somebody").chmod(0o777)
        abstract.bind("\0somebody")
        path.listen()
        abstract.listen()
        yield str(tmp_path / "somebody")


def upstream_port(proxy):
    return proxy.options[-1].rpartition(":")[2] if "--user" not in proxy.options else 25


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("what, operand, outcome", REFUSED, ids=map(name_attempt, REFUSED))
def test_refused(begin, tmp_path, somebody, mode, what, operand, outcome):
    """By listener and alone, as nobody and as root: the attempt is refused, or the session ends and a record names the call."""
    key = tmp_path / "key"
    key.write_text("secret")
    key.chmod(0o644)
    sibling = begin(mode)
    proxy, client, _ = begin(mode)
    words = operand.format(key=key, directory=tmp_path, sibling=sibling[2], path=somebody, upstream=upstream_port(proxy),
                           parent=proxy.listener.pid if proxy.listener else os.getpid())
    if outcome.startswith("refused"):
        assert attempt(client, what, words) == f"250 {outcome}"
    else:
        names_call(proxy, client, outcome, f"{what} {words}")
    assert key.read_text() == "secret" and not (tmp_path / "new").exists()
    sibling[1].ask("NOOP", "250")       # neither it nor the listener has come to harm


@pytest.mark.parametrize("mode", MODES)
def test_with_network(begin, somebody, mode):
    """A session that may have to connect to servers later: to those ports, and to Unix sockets by path."""
    proxy, client, _ = begin(mode, "--connect-on", "recipient")
    for what, operand in (("connect", upstream_port(proxy)), ("connect", 25), ("datagram", 53), ("path", somebody)):
        assert attempt(client, what, operand) == "250 done"
    assert attempt(client, "copies", "") == "250 refused: No such file or directory"
    assert attempt(client, "connect", "7") == "250 refused: Permission denied"
    assert attempt(client, "abstract", "somebody") == "250 refused: Operation not permitted"
    names_call(proxy, client, "sendto", "fast 7")


@pytest.mark.parametrize("mode", MODES)
def test_when_it_leaves_the_network(begin, mode):
    """By a listener once it has begun to connect: a dialer would do the rest. Else once the server takes mail."""
    proxy, _, _ = begin(mode)
    client = proxy.connect()
    client.expect("220")
    if mode.startswith("listener"):
        names_call(proxy, client, "socket", "connect 25")
    else:
        assert attempt(client, "connect", "25") == "250 done"


@pytest.fixture(name="network_user", params=[
    ("plain", "220"), ("connect-on", None), ("routes", None), ("tls-on", None), ("dane", None), ("tlsrpt", None), ("socket hook", None),
    ("connect hook", "EHLO"), ("name", "EHLO"), ("outbound-ip", "EHLO"), ("dnsbl", "220")], ids=lambda param: param[0])
def fixture_network_user(request, warp, intruder, mail_server, tmp_path):
    """A listener whose sessions have a use for the network, as smtpwarp(8) lists them, and after which reply they have left it."""
    what, leaves = request.param
    upstream, hooks, places = mail_server(), Hooks(tmp_path / "hooks"), contextlib.ExitStack()
    (tmp_path / "routes").write_text(f"*;{upstream.name_port}\n")
    options = {"connect-on": ["--connect-on", "recipient"], "routes": ["--routes", tmp_path / "routes"], "tls-on": ["--tls-on", "recipient"],
               "dane": ["--tls", "dane"], "tlsrpt": ["--tlsrpt", tmp_path / "reports"], "outbound-ip": ["--outbound-ip", "client"],
               "name": ["--upstream", f"localhost:{upstream.port}"]}.get(what, [])
    if what == "connect hook":
        hooks.script("connect", "echo accept")
        options = hooks.options
    elif what == "socket hook":
        places.enter_context(socket.socket(socket.AF_UNIX)).bind(str(hooks.place("mail", "50-hook")))
        options = hooks.options
    elif what == "dnsbl":
        server = places.enter_context(nameservers.Rude(lambda query, tcp: nameservers.reply(query, flags=0x8183)))
        options = ["--dnsbl", "bl.test", "--dns-server", server.name_port]
    with places:
        proxy = warp(*options, upstream=None if what in ("name", "routes") else upstream)
        proxy.binary, proxy.complete = intruder, False
        yield proxy.listen(), leaves


def test_network_while_it_is_needed(network_user):
    proxy, leaves = network_user
    client = proxy.connect()
    client.expect("220")
    if leaves == "220":
        names_call(proxy, client, "socket", "connect 25")
        return
    assert attempt(client, "connect", "25") == "250 done"
    client.ask("EHLO client.example", "250")
    if leaves == "EHLO":
        names_call(proxy, client, "socket", "connect 25")
    else:
        assert attempt(client, "connect", "25") == "250 done"


@pytest.mark.parametrize("mode", ["listener of root", "alone, root"])
def test_capabilities(begin, mode):
    """Of root's those are left that connect to Unix sockets, and set source addresses."""
    _, _, pid = begin(mode)
    status = pathlib.Path(f"/proc/{pid}/status").read_text()
    assert {int(value, 16) for value in re.findall(r"^Cap(?:Prm|Eff|Inh):\s*(\w+)", status, re.M)} == {1 << 1 | 1 << 13, 0}


def test_ways_that_are_shut(warp, mail_server, intruder, tmp_path, certs, secure):
    """To the broker and to agents, by a session, for all that there are: those to come have hooks and keys again, and a record says so."""
    hooks = Hooks(tmp_path / "hooks")
    hooks.script("mail", "echo accept")
    proxy = warp(*hooks.options, *certs.options(), upstream=mail_server())
    proxy.binary = intruder
    proxy.listen()
    for times in range(1, 4):
        beside, client = proxy.greeted(), proxy.greeted()
        beside.ask("MAIL FROM:<a@b.example>", "250")
        beside.ask("RSET", "250")
        assert attempt(client, "shut", "") == "250 done"
        beside.ask("MAIL FROM:<a@b.example>", "451 4.3.0")      # hooks of sessions under way are out of order
        proxy.wait_until(lambda: sum("has shut the way to the process that runs hooks" in record["error"]      # pylint: disable=cell-var-from-loop
                                     for record in proxy.records("error")) == times, "the record")
        proxy.wait_until(lambda: sum("a process that keeps secrets has ended" in record["error"]        # pylint: disable=cell-var-from-loop
                                     for record in proxy.records("error")) >= times, "the agent's end")
        after = proxy.greeted()
        after.ask("MAIL FROM:<a@b.example>", "250")
        after.ask("RSET", "250")
        secure(after)
        after.ask("EHLO client.example", "250")


def test_without_walls(begin):
    """--sandbox off, which the log says: the same attempts succeed."""
    proxy, client, _ = begin("listener of root", "--sandbox", "off")
    assert "--sandbox off: a client or server that takes a session over has this host's" in proxy.wait_for("error")["error"]
    assert proxy.records("start")[0]["walls"] == "none"
    for what, operand in (("read", "/etc/passwd"), ("fork", ""), ("code", ""), ("connect", "7"), ("signal", proxy.processes[-1].pid)):
        if what != "signal":
            assert attempt(client, what, operand) == "250 done"


def test_walls_are_named(begin):
    """In the record of the start, and by --check."""
    proxy, _, _ = begin("listener")
    walls = "calls files ports signals processes"
    assert proxy.records("start")[0]["walls"] == walls
    said = subprocess.run([BINARY, "--check", "--verbose", "--upstream", "127.0.0.1:25", "--log", "none"], capture_output=True, text=True,
                          check=True).stdout
    assert f"walls around sessions: {walls}\n" in said


def test_files_that_are_replaced(warp, mail_server, tmp_path):
    """A session reads files as they were when it began; the next one reads those that have taken their place."""
    first, second = mail_server(), mail_server()
    routes = tmp_path / "routes"
    routes.write_text(f"*;{first.name_port}\n")
    proxy = warp("--routes", routes).listen()
    old = proxy.greeted()
    (tmp_path / "new").write_text(f"*;{second.name_port}\n")
    (tmp_path / "new").rename(routes)

    def goes_to(server):
        client = proxy.greeted()
        client.ask("MAIL FROM:<a@b>", "250")
        client.ask("RCPT TO:<c@d>", "250")
        client.close()
        return any(command.startswith("RCPT") for command in server.commands)
    proxy.wait_until(lambda: goes_to(second), "the new file")
    before = [command for command in second.commands if command.startswith("RCPT")]
    old.ask("MAIL FROM:<a@b>", "250")
    old.ask("RCPT TO:<c@d>", "250")
    assert [command for command in second.commands if command.startswith("RCPT")] == before


def test_zones(warp, mail_server):
    """A client with a link-local address, whose zone is looked up by ioctl(2)."""
    for words in ("link add d0 type veth peer name d1", "link set d1 up", "link set d0 up", "address add fe80::1/64 dev d0 nodad"):
        subprocess.run(["ip", *words.split()], check=True)
    proxy = warp("--allow-clients", "fe80::/10", "--allow-clients", "127.0.0.1", upstream=mail_server()).listen("[::]:2525")
    client = proxy.connect("fe80::1%d0")
    client.expect("220")
    assert proxy.wait_for("connect")["client"]["ip"] == "fe80::1%d0"


def test_calls_are_made_with_their_pass():
    """Those of io/passes.h by libc's function would end the process. The broker and the keeper are forked before calls are filtered."""
    apart = {"passes.c", "broker.c", "keeper.c"}
    sources = [path for folder in (".", "io", "session", "pure") for path in (ROOT / folder).glob("*.c") if path.name not in apart]
    assert len(sources) > 60
    found = [f"{path.name}: {line}" for path in sources for line in path.read_text().splitlines()
             if re.search(r"(?<![\w.>])(_?[Ff]ork|vfork|kill|connect|socket)\((?!2\)|AF_UNIX|AF_NETLINK)|, connect\)", line)
             and not line.lstrip().startswith(("*", "/*"))]
    assert not found
