"""Nothing gets past the redirect: whatever reaches a mail server, the log has it.

Connection tracking remembers smtpwarp's own connection for ten seconds after the server has reset it. A client that then connects
from the same address and port to the same server runs on that memory, which knows of no redirect. The tests force that: the server
resets every session, and clients take the ports that smtpwarp has just had.
"""
import contextlib
import json
import os
import select
import socket
import struct

import pytest

import hosts
import netns
from waiting import TIMEOUT, wait_until

pytestmark = pytest.mark.skipif(bool(netns.unsupported()), reason=netns.unsupported())

AT_ONCE = 20
OUTPUT = "nftables-output.nft", "iptables-output.rules"
GATEWAY = "nftables-gateway.nft", "iptables-gateway.rules"
TPROXY = ["nftables-tproxy.nft"], ["iptables-tproxy.rules", "ip6tables-tproxy.rules"]
SESSIONS = int(os.environ.get("BYPASS_SESSIONS", "400"))    # 20000 before a release, some two minutes for each rule
TINY = 40000, 40063
IPV6_TRANSPARENT = 75


@pytest.fixture(name="net")
def fixture_net():
    with hosts.network() as net:
        yield net


class Clients:
    """Clients on one host, and the mail server that they want to reach. seen: the names that reached the server. ports: those that
    the last sessions came from. refused: how many clients were not let in."""

    def __init__(self, net, clients, address):
        self.ns, self.address = clients, address
        self.seen, self.ports, self.count, self.refused = set(), [], 0, 0
        family = socket.AF_INET6 if ":" in address else socket.AF_INET
        with net.mail:
            self.server = socket.create_server((address, 25), family=family, backlog=512)

    def connect(self, port, timeout=TIMEOUT):
        with self.ns:
            client = socket.socket(self.server.family)
        client.settimeout(timeout)
        client.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            client.bind(("", port))
            client.connect((self.address, 25))
        except OSError:     # refused, or the port is somebody's
            self.refused += 1
            client.close()
            return None
        return client

    def _answered(self, opened):
        """The server's connections and the clients with its greeting. In their clients' name two connections can have the same ends:
        then one client gets no server's greeting, but a refusal of smtpwarp's."""
        waiting, accepted, greeted = set(opened), [], []

        def all_answered():
            ready = select.select([self.server, *waiting], [], [], 0)[0]
            if self.server in ready:
                accepted.append(self.server.accept())
                accepted[-1][0].settimeout(TIMEOUT)
                accepted[-1][0].sendall(b"220 server.example\r\n")
            for client in waiting & set(ready):
                waiting.discard(client)
                with contextlib.suppress(ConnectionError):
                    if client.recv(100).startswith(b"220"):
                        greeted.append(client)
            return not waiting
        wait_until(all_answered, lambda: f"answers to {[client.getsockname() for client in waiting]}")
        assert len(greeted) == len(accepted)
        return accepted, greeted

    def sessions(self, ports):
        """One session for each port, 0 for any, all at once. The server resets them all. How many there were."""
        opened = [client for port in ports if (client := self.connect(port))]
        accepted, clients = self._answered(opened)
        self.ports = [source[1] for _, source in accepted]
        for client in clients:
            self.count += 1
            client.sendall(b"HELO client%d.example\r\n" % self.count)
        for peer, _ in accepted:
            self.seen |= {word.decode() for word in peer.recv(100).split()[1:]}
            peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            peer.close()
        for client in clients:
            with contextlib.suppress(ConnectionError):
                while client.recv(1000):
                    pass
        for client in opened:
            client.close()
        return len(clients)

    def close(self):
        self.server.close()


@contextlib.contextmanager
def clients_of(net, *where):
    clients = Clients(net, *where)
    try:
        yield clients
    finally:
        clients.close()


def start(net, tmp_path, *options, sockets=()):
    """A smtpwarp with a log; a function that ends it and returns the names in the log."""
    tmp_path.chmod(0o711)
    for parent in list(tmp_path.parents)[:3]:
        with contextlib.suppress(PermissionError):
            parent.chmod(parent.stat().st_mode | 0o011)
    log = tmp_path / "log"
    log.touch()
    log.chmod(0o666)
    argv = [net.host.smtpwarp, "--log", f"file:{log}", "--tls", "none", *options]
    child = net.host.listen_fds(sockets, argv) if sockets else net.host.popen(argv)
    if not sockets:
        net.host.ns.wait_listening(hosts.PORT, alive=lambda: child.poll() is None)

    def logged():
        hosts.stop(child)
        records = [json.loads(line) for line in log.read_text(encoding="utf-8").splitlines()]
        return {record["helo"] for record in records if record["event"] == "close"}
    return logged


def transparent(address):
    sock = socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET)
    if sock.family == socket.AF_INET6:
        sock.setsockopt(socket.IPPROTO_IPV6, IPV6_TRANSPARENT, 1)
    else:
        sock.setsockopt(socket.IPPROTO_IP, socket.IP_TRANSPARENT, 1)
    sock.bind((address, hosts.PORT))
    sock.listen(512)
    return sock


def behind_tproxy(net, tmp_path, rules, address, *options):
    """start() with one transparent listening socket, and the rules that pass clients to it."""
    for name in rules:
        net.host.rules(name)
    net.host.run([hosts.UNITS / "tproxy-routes", "add"])
    with net.host.ns:
        sock = transparent(address)
    logged = start(net, tmp_path, *options, sockets=[sock])
    sock.close()
    return logged


def force_reuse(clients, times):
    """Sessions of clients whose port smtpwarp has just used, until there were so many. How many of them got through."""
    forced = through = 0
    while forced < times:
        clients.sessions([0] * AT_ONCE)
        ports = clients.ports
        through += clients.sessions(ports)
        forced += len(ports)
    return through


LISTEN = "--listen", "127.0.0.1:10025", "--listen", "[::1]:10025", "--user", hosts.USER


@pytest.mark.parametrize("rules", OUTPUT)
def test_reuse_of_ports_behind_output_rules(net, tmp_path, rules):
    """Two thousand times each. Most of these clients are refused, which they can mend by another port; none gets past."""
    net.host.rules(rules)
    logged = start(net, tmp_path, *LISTEN)
    with clients_of(net, net.host.ns, net.mail.ip4) as clients:
        force_reuse(clients, 2000)
        assert clients.refused > 1000   # so the reuse was forced indeed
        assert len(clients.seen) >= 2000
        assert clients.seen <= logged()


def many_sessions(clients):
    """Sessions of clients that take any port. Few may be refused, none gets past."""
    for _ in range(SESSIONS // AT_ONCE):
        clients.sessions([0] * AT_ONCE)
    assert clients.refused <= SESSIONS // 100 and len(clients.seen) == clients.count >= SESSIONS * 0.99


@pytest.mark.parametrize("rules", OUTPUT)
def test_many_sessions_behind_output_rules(net, tmp_path, rules):
    net.host.rules(rules)
    logged = start(net, tmp_path, *LISTEN)
    with clients_of(net, net.host.ns, net.mail.ip4) as clients:
        many_sessions(clients)
        assert clients.seen <= logged()


@pytest.mark.parametrize("rules", GATEWAY)
def test_many_sessions_behind_a_gateway(net, tmp_path, rules):
    net.host.rules(rules)
    logged = start(net, tmp_path, "--listen", "*:10025", "--user", hosts.USER)
    with clients_of(net, net.inside, net.mail.ip4) as clients:
        many_sessions(clients)
        assert clients.seen <= logged()


@pytest.mark.parametrize("rules", TPROXY, ids=["nft", "iptables"])
def test_many_sessions_behind_tproxy(net, tmp_path, rules):
    logged = behind_tproxy(net, tmp_path, rules, "127.0.0.1")
    with clients_of(net, net.inside, net.mail.ip4) as clients:
        many_sessions(clients)
        assert clients.seen <= logged()


@pytest.mark.parametrize("rules", OUTPUT)
def test_no_port_is_shared(net, tmp_path, rules):
    """With 64 ports for all clients, smtpwarp needs none of them, and no client meets a connection of smtpwarp's."""
    net.host.rules(rules)
    net.host.ns.sysctl("net.ipv4.ip_local_port_range", "%d %d" % TINY)
    logged = start(net, tmp_path, *LISTEN)
    for address in net.mail.ip4, net.mail.ip6:
        with clients_of(net, net.host.ns, address) as clients:
            for _ in range(15):
                clients.sessions([0] * AT_ONCE)
                assert not [port for port in clients.ports if TINY[0] <= port <= TINY[1]]
            assert clients.refused == 0 and len(clients.seen) == 15 * AT_ONCE
            seen = clients.seen
    assert seen <= logged()


def test_no_ports_are_left(net, tmp_path):
    """Where clients may have every port, smtpwarp takes what it gets, and its start and --check say so."""
    net.host.rules(OUTPUT[0])
    net.host.ns.sysctl("net.ipv4.ip_local_port_range", "1024 65535")
    assert "ip_local_port_range" in net.host.run([net.host.smtpwarp, "--check"]).stderr
    logged = start(net, tmp_path, *LISTEN)
    with clients_of(net, net.host.ns, net.mail.ip4) as clients:
        clients.sessions([0] * AT_ONCE)
        assert clients.seen <= logged()
    assert "ip_local_port_range" in (tmp_path / "log").read_text(encoding="utf-8")


@pytest.mark.parametrize("family", [4, 6])
@pytest.mark.parametrize("rules", GATEWAY)
def test_reuse_of_ports_behind_a_gateway(net, tmp_path, rules, family):
    """In its own name smtpwarp cannot meet a client. In the client's it can: those clients are refused."""
    net.host.rules(rules)
    address = net.mail.ip6 if family == 6 else net.mail.ip4
    logged = start(net, tmp_path, "--listen", "*:10025", "--user", hosts.USER)
    with clients_of(net, net.inside, address) as clients:
        assert force_reuse(clients, 100) == 100 and clients.refused == 0
        assert clients.seen <= logged()
    net.host.rules("nftables-tproxy.nft", interface="none")     # the divert rule for the server's answers
    net.host.run([hosts.UNITS / "tproxy-routes", "add"])
    with net.host.ns:
        sock = socket.create_server(("::", hosts.PORT), family=socket.AF_INET6, dualstack_ipv6=True)
    logged = start(net, tmp_path, "--outbound-ip", "client", sockets=[sock])
    sock.close()
    with clients_of(net, net.inside, address) as clients:
        force_reuse(clients, 100)
        assert clients.refused > 50
        assert clients.seen <= logged()


@pytest.mark.parametrize("family", [4, 6])
@pytest.mark.parametrize("own", [True, False], ids=["gateway-address", "client-address"])
@pytest.mark.parametrize("rules", TPROXY, ids=["nft", "iptables"])
def test_reuse_of_ports_behind_tproxy(net, tmp_path, rules, own, family):
    """TPROXY asks no memory of connections: every client gets through smtpwarp. When nobody listens, none gets through."""
    options = [] if own else ["--outbound-ip", "client"]
    logged = behind_tproxy(net, tmp_path, rules, "::1" if family == 6 else "127.0.0.1", *options)
    with clients_of(net, net.inside, net.mail.ip6 if family == 6 else net.mail.ip4) as clients:
        assert force_reuse(clients, 100) >= (100 if own else 90) and clients.refused == 0
        assert clients.seen <= logged()
        assert clients.connect(0, timeout=0.5) is None


@pytest.mark.parametrize("rules", TPROXY, ids=["nft", "iptables"])
def test_a_port_is_used_again_at_once(net, tmp_path, rules):
    """smtpwarp has closed first, so its end of the last session is in TIME_WAIT: the client's SYN is not for that."""
    behind_tproxy(net, tmp_path, rules, "127.0.0.1")
    with clients_of(net, net.inside, net.mail.ip4) as clients:
        assert clients.sessions([45000]) == 1
        wait_until(lambda: ":45000" in net.host.ns.run(["ss", "-Htn", "state", "time-wait"]).stdout, "the end in TIME_WAIT")
        assert clients.sessions([45000]) == 1
    tcp = [line.split() for line in net.inside.run(["cat", "/proc/net/snmp"]).stdout.splitlines() if line.startswith("Tcp:")]
    counts = dict(zip(*tcp))
    assert counts["RetransSegs"] == counts["OutRsts"] == "0"
