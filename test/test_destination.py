"""Where a connection goes, and from where: DESIGN 4, PROTOCOL 73, 80."""
import re
import socket

import pytest

import netns
import peers
from warp import Session, Warp

NOBODY = 65534
IP_TRANSPARENT, IPV6_TRANSPARENT = 19, 75
MAIL4, MAIL6 = "10.9.9.9", "fd09::9"


@pytest.fixture
def mail_host(host):
    """The namespace has two more addresses, which stand for a distant mail server's."""
    host.ip(f"addr add {MAIL4}/32 dev lo", f"addr add {MAIL6}/128 dev lo nodad")
    return host


def redirect(host, exempt=f"meta skuid != {NOBODY}"):
    host.nft(f"""table inet warp {{ chain output {{
        type nat hook output priority -100;
        tcp dport 25 {exempt} redirect to :2525;
    }}; }}""")


def one_message(session):
    session.greet()
    session.transaction()
    session.quit()


# Redirect

@pytest.mark.parametrize("listen, address", [("127.0.0.1:2525", MAIL4), ("[::1]:2525", MAIL6), ("*:2525", MAIL4),
                                             ("*:2525", MAIL6)])
def test_73_redirected_connection_goes_to_its_original_destination(warp, mail_host, listen, address):
    redirect(mail_host)
    proxy = warp("--transparent", "--user", "nobody").listen(listen)
    server = proxy.listen_upstream(address, 25)
    one_message(Session(peers.connect(address, 25, proxy.group), server.accept()))
    record = proxy.wait_for("connect")
    assert record["original"] == {"ip": address, "port": 25}
    assert (record["server"]["ip"], record["server"]["port"]) == (address, 25)
    assert record["client"]["ip"] in (address, mail_host.ip4, mail_host.ip6)
    assert proxy.wait_for("message")["result"] == "accepted"


@pytest.mark.parametrize("option", [("--outbound-ip", "client"), ("--mark", 25)])
def test_a_capability_that_is_missing_is_named(warp, option):
    proxy = warp(*option, "--user", "nobody").listen("127.0.0.1:2525")
    proxy.connect().expect("421 4.3.5")
    assert re.search(rf"{option[0]}.*Operation not permitted: .*CAP_NET_RAW, see service-transparent.conf", proxy.wait_for("error")["error"])


def test_73_v4_mapped_peer_on_a_dual_stack_listener(warp, mail_host):
    """inetd's wait mode hands over such a socket. SO_ORIGINAL_DST has to be asked at the IPv4 level."""
    redirect(mail_host)
    proxy = warp("--transparent", "--user", "nobody", "--idle-exit", 0.3)
    with socket.create_server(("::", 2525), family=socket.AF_INET6, dualstack_ipv6=True) as door:
        server = proxy.listen_upstream(MAIL4, 25)
        client = peers.connect(MAIL4, 25, proxy.group)
        proxy.spawn(stdin=door)
        one_message(Session(client, server.accept()))
        record = proxy.wait_for("connect")
        assert record["original"] == {"ip": MAIL4, "port": 25}
        assert ":" not in record["client"]["ip"], "an IPv4 client is logged as one"
        proxy.wait_exit()


def test_73_redirected_session_on_fd_0(warp, mail_host):
    """inetd's nowait mode: the one process asks its fd 0."""
    redirect(mail_host, "meta mark != 77")
    proxy = warp("--transparent", "--mark", 77)
    with socket.create_server(("127.0.0.1", 2525)) as door:
        client = peers.connect(MAIL4, 25, proxy.group)
        accepted, _ = door.accept()
    server = proxy.listen_upstream(MAIL4, 25)
    with accepted:
        proxy.spawn(stdin=accepted, stdout=accepted)
    one_message(Session(client, server.accept()))
    assert proxy.wait_for("connect")["original"] == {"ip": MAIL4, "port": 25}


def test_73_upstream_option_wins_over_the_original_destination(warp, mail_host):
    redirect(mail_host)
    proxy = warp("--user", "nobody").listen("127.0.0.1:2525")
    session = Session(peers.connect(MAIL4, 25, proxy.group), proxy.upstream.accept())
    one_message(session)
    assert proxy.wait_for("connect")["original"] == {"ip": MAIL4, "port": 25}


def test_73_closed_port_at_the_original_destination(warp, mail_host):
    redirect(mail_host)
    proxy = warp("--transparent", "--user", "nobody").listen("127.0.0.1:2525")
    client = peers.connect(MAIL4, 25, proxy.group)
    assert MAIL4 in client.expect("421 4.4.1")
    client.expect_end()


# Loops

@pytest.mark.parametrize("listen, address", [("127.0.0.1:2525", "127.0.0.1"), ("[::1]:2525", "::1"),
                                             ("*:2525", "127.0.0.1"), ("*:2525", "::1")])
@pytest.mark.parametrize("conntrack", [True, False])
def test_73_direct_connection_without_upstream(warp, host, listen, address, conntrack):
    """Warp connects to itself thousands of times. With conntrack, SO_ORIGINAL_DST gives our own address."""
    if conntrack:
        redirect(host)
    proxy = warp("--transparent").listen(listen)
    client = proxy.connect(address)
    client.expect("421 4.3.5")
    client.expect_end()
    proxy.wait_for("close")
    assert len(proxy.records("error")) == 1 and len(proxy.records("close")) == 1


def test_73_direct_connection_on_fd_0(warp):
    proxy = warp("--transparent")
    client = proxy.connect()
    client.expect("421 4.3.5")
    client.expect_end()
    assert len(proxy.records("error")) == 1


def test_73_upstream_that_is_smtpwarp_itself(warp):
    """--upstream names our own listener."""
    proxy = warp("--upstream", "127.0.0.1:2525").listen("127.0.0.1:2525")
    client = proxy.connect()
    client.expect("421")
    client.expect_end()
    assert len(proxy.records("close")) <= 2


@pytest.mark.parametrize("address, other", [(MAIL4, "10.9.9.8"), (MAIL6, "fd00:9::8")])
def test_86_client_from_a_port_of_ours(warp, mail_host, address, other):
    """smtpwarp has a connection from the client's very address and port, but to another server."""
    redirect(mail_host)
    mail_host.ip(f"addr add {other}/{128 if ':' in other else 32} dev lo" + " nodad" * (":" in other))
    slow, server = peers.Listener(address, 25), peers.MailServer(address=other, port=25)
    proxy = warp("--transparent", "--user", "nobody").listen("*:2525")
    first = peers.connect(address, 25, proxy.group)
    dialled = slow.accept()                     # smtpwarp waits for its greeting
    sock = socket.socket(slow.sock.family)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    sock.bind(dialled.sock.getpeername()[:2])
    sock.connect((other, 25))
    second = peers.Peer(sock, proxy.group, "client")
    second.expect("220")
    second.ask("QUIT", "221")
    assert proxy.records("error") == []
    for closing in first, dialled, slow, server:
        closing.close()


@pytest.mark.parametrize("address", [MAIL4, MAIL6])
def test_86_names_that_others_take(warp, mail_host, address):
    """The name that would mark the client's connection as smtpwarp's own is another user's socket."""
    redirect(mail_host)
    server = peers.MailServer(address=address, port=25)
    proxy = warp("--transparent", "--user", "nobody").listen("*:2525")
    port = 40001
    with peers.abstract_sockets([f"smtpwarp/{port}/25/{address}/{address}"], 65533):
        client = peers.connect(address, 25, proxy.group, source=(address, port))
        client.expect("220")
        client.ask("QUIT", "221")
    server.close()


@pytest.mark.parametrize("address", [MAIL4, MAIL6, "127.0.0.1"])
def test_73_redirect_without_any_exemption(warp, mail_host, address):
    """Every dial comes back to the listener. Each of 100 connections costs two processes and two log lines at most."""
    redirect(mail_host, exempt="")
    proxy = warp("--transparent").listen("*:2525")
    proxy.complete = False      # a connection of its own that came back has a line, and is no session to close
    most = 0
    clients = []
    for _ in range(100):
        clients.append(peers.connect(address, 25, proxy.group))
        most = max(most, len(proxy.children()))
    for client in clients:
        client.expect("421")
        client.expect_end()
        most = max(most, len(proxy.children()))
    proxy.wait_for("close", 100)
    assert most <= 220, "a fork storm"
    proxy.wait_until(lambda: not proxy.children(), "the end of all sessions")
    assert 100 <= len(proxy.records("error")) <= 200
    assert len(proxy.records("close")) <= 200


# TPROXY

def route_to_lo(host):
    """What is marked 1 is taken in, whatever its destination (Linux, networking/tproxy)."""
    host.ip("rule add fwmark 1 lookup 100", "route add local 0.0.0.0/0 dev lo table 100")
    for command in "rule add fwmark 1 lookup 100", "route add local ::/0 dev lo table 100":
        host.run(["ip", "-6", *command.split()])


def transparent_door(address, port=2525):
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    door = socket.socket(family)
    level, option = (socket.IPPROTO_IPV6, IPV6_TRANSPARENT) if ":" in address else (socket.IPPROTO_IP, IP_TRANSPARENT)
    door.setsockopt(level, option, 1)
    door.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    door.bind((address, port))
    door.listen(100)
    return door


@pytest.fixture
def relay_host(tmp_path):
    """client -- host -- mail: three hosts in a row; tcp port 25 from the client is caught by TPROXY on the host."""
    if netns.unsupported():
        pytest.skip(netns.unsupported())
    client, host, mail = netns.NetNS(), netns.NetNS(), netns.NetNS()
    netns.cable(client, host, 0)
    netns.cable(host, mail, 1)
    for end, number in (client, 0), (mail, 1):
        near = f"10.0.{number}.{2 - number}", f"fd00:{number}::{2 - number}"
        end.ip(f"route add default via {near[0]}", f"route add ::/0 via {near[1]}")
    for name in "net.ipv4.ip_forward", "net.ipv6.conf.all.forwarding":
        host.sysctl(name, 1)
    route_to_lo(host)
    host.nft("""table inet t { chain p {
        type filter hook prerouting priority mangle;
        meta l4proto tcp socket transparent 1 meta mark set 1 accept;
        iifname veth0 ip version 4 tcp dport 25 tproxy ip to 127.0.0.1:2525 meta mark set 1 accept;
        iifname veth0 ip6 version 6 tcp dport 25 tproxy ip6 to [::1]:2525 meta mark set 1 accept;
    }; }""")
    with host:
        proxy = Warp(host, tmp_path, "--transparent", "--idle-exit", 0.3)
    yield client, host, mail, proxy
    proxy.close()
    for one in client, host, mail:
        one.close()


@pytest.mark.parametrize("family", ["ip4", "ip6"])
@pytest.mark.parametrize("source", ["own", "client"])
@pytest.mark.parametrize("any_address", [False, True])
def test_73_tproxy(relay_host, family, source, any_address):
    """80 as well: with --outbound-ip client the mail host sees the client's address, else that of smtpwarp's host. 85: where bind(2)
    takes any address, too."""
    client_host, host, mail, proxy = relay_host
    if any_address:
        host.take_any_address()
    address = getattr(mail, family)
    if source == "client":
        proxy.options += ["--outbound-ip", "client"]
    with mail:
        server = proxy.listen_upstream(address, 25)
    with host:
        door = transparent_door("::1" if family == "ip6" else "127.0.0.1")
    with client_host:
        client = peers.connect(address, 25, proxy.group)
    with host, door:
        proxy.spawn(stdin=door)
    session = Session(client, server.accept())
    expected = getattr(client_host, family) if source == "client" else getattr(host, family)
    assert session.server.sock.getpeername()[0] == expected
    one_message(session)
    record = proxy.wait_for("connect")
    assert record["original"] == {"ip": address, "port": 25}
    assert record["client"]["ip"] == getattr(client_host, family)


# --upstream

def test_74_upstreams_are_tried_in_order(warp, mail_server):
    first, second = mail_server(banner="220 first.example"), mail_server(banner="220 second.example")
    proxy = warp("--upstream", "127.0.0.1:1", "--upstream", "[::1]:1", "--upstream", first.name_port,
                 "--upstream", second.name_port)
    proxy.connect().expect("220 first.example")
    assert proxy.wait_for("connect")["server"]["port"] == first.port
    assert second.peers == []


def test_74_all_upstreams_are_down(warp):
    client = warp("--upstream", "127.0.0.1:1", "--upstream", "[::1]:1").connect()
    client.expect("421 4.4.1")
    client.expect_end()


def test_74_upstream_that_drops_packets_is_followed_by_the_next(warp, host, mail_server):
    host.nft("table inet t { chain o { type filter hook output priority 0; tcp dport 2599 drop; }; }")
    server = mail_server()
    proxy = warp("--upstream", "127.0.0.1:2599", "--upstream", server.name_port, "--connect-timeout", 0.4)
    proxy.connect().expect("220")


def test_74_upstream_by_ipv6(warp, mail_server):
    server = mail_server(address="::1")
    proxy = warp(upstream=server)
    proxy.connect().expect("220")
    assert proxy.wait_for("connect")["server"]["ip"] == "::1"


# 80: source address and mark

@pytest.mark.parametrize("listen_on, wanted", [("127.0.0.1", "127.0.0.77"), ("::1", MAIL6)])
def test_80_outbound_ip_by_family(warp, mail_host, mail_server, listen_on, wanted):
    server = mail_server(address=listen_on)
    proxy = warp("--outbound-ip", "127.0.0.77", "--outbound-ip", MAIL6, upstream=server)
    proxy.connect().expect("220")
    assert server.peers[0].sock.getpeername()[0] == wanted


def test_80_no_outbound_ip_for_this_family(warp, mail_server):
    server = mail_server(address="::1")
    warp("--outbound-ip", "127.0.0.77", upstream=server).connect().expect("220")
    assert server.peers[0].sock.getpeername()[0] == "::1"


@pytest.mark.parametrize("address", ["192.0.2.77", "10.1.2.3"])
@pytest.mark.parametrize("any_address", [False, True])
def test_80_outbound_ip_that_is_not_on_the_host(warp, host, mail_server, address, any_address):
    """85: where bind(2) takes any address, too."""
    if any_address:
        host.take_any_address()
    server = mail_server()
    proxy = warp("--outbound-ip", address, upstream=server)
    client = proxy.connect()
    client.expect("421 4.3.5")
    client.expect_end()
    assert address in proxy.wait_for("error")["error"]
    assert server.peers == []


def test_80_outbound_ip_client_on_the_same_host(warp, mail_server):
    server = mail_server()
    proxy = warp("--outbound-ip", "client", upstream=server).listen()
    peers.connect("127.0.0.1", 2525, proxy.group, ("127.0.0.33", 0)).expect("220")
    assert server.peers[0].sock.getpeername()[0] == "127.0.0.33"


def test_80_outbound_ip_client_of_the_other_family(warp, mail_server):
    """An IPv6 client's address cannot be the source of an IPv4 connection: refused, or the kernel's choice."""
    server = mail_server()
    warp("--outbound-ip", "client", upstream=server).connect("::1").expect("220", "421 4.3.5")


@pytest.mark.parametrize("mark", [77, 0xdeadbeef])
def test_80_mark(warp, host, mail_server, mark):
    host.nft(f"table inet t {{ chain o {{ type filter hook output priority 0; meta mark {mark} counter; }}; }}")
    proxy = warp("--mark", mark, upstream=mail_server())
    proxy.connect().expect("220")
    packets = int(re.search(r"counter packets (\d+)", host.run(["nft", "list", "ruleset"]).stdout)[1])
    assert packets >= 2


def test_80_mark_without_the_right_to_it(warp, mail_server):
    """SO_MARK needs CAP_NET_ADMIN or CAP_NET_RAW. Going on without the mark could mean a loop."""
    server = mail_server()
    proxy = warp("--mark", 77, upstream=server)
    proxy.wrapper = ["setpriv", "--bounding-set=-net_admin,-net_raw"]
    client = proxy.connect()
    client.expect("421")
    client.expect_end()
    assert server.peers == [] and proxy.wait_for("error")["error"]
