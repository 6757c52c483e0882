"""Checks of clients and recipients: --allow-clients and open relays, --greet-delay, --dnsbl, --valid-recipients,
--override-recipient, --tarpit. DESIGN 8; PROTOCOL 39, 79, and what is seen to break smtpproxy.

Name servers are a real NSD, and a scripted one that plays the rude. Clients are scripted, but for swaks and Postfix."""
import contextlib
import os
import signal
import socket
import struct
import subprocess
import time

import pytest

import mta
import nameservers
import netns
import peers
from hooks import Hooks
from nameservers import Nsd, Rude, A, CNAME, TXT, listed, record, reply, reversed_name
from warp import BINARY, MESSAGE, Warp, environment

OUTSIDE4, OUTSIDE6 = "192.0.2.9", "2001:db8::9"     # clients of these addresses are not on this host
NOBODY = 65534
STRANGERS = ["--allow-clients", "127.0.0.0/8"]      # refuses them
LATE = ["--connect-on", "recipient", "--hostname", "proxy.example"]
EARLY = "554 5.5.1 Protocol error: you spoke too early"


@pytest.fixture
def net(host):
    """Addresses to come from that are not loopback's."""
    host.ip(*(f"addr add {OUTSIDE4[:-1]}{i}/32 dev lo" for i in range(1, 12)))
    host.ip(f"addr add {OUTSIDE6}/128 dev lo nodad", f"addr add {OUTSIDE6[:-1]}1/128 dev lo nodad")
    return host


@pytest.fixture
def hooks(tmp_path):
    return Hooks(tmp_path / "hooks")


def run(host, *options, **variables):
    """A start that is to fail, or a check."""
    return subprocess.run([BINARY, "--log", "none", *map(str, options)], env=environment("/tmp", variables),
                          stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=20)


def outside(proxy, address=OUTSIDE4, **more):
    return proxy.connect("::1" if ":" in address else "127.0.0.1", source=(address, 0), **more)


def deliver(client, recipient="b@server.example"):
    client.ask("EHLO client.example", "250")
    client.ask("MAIL FROM:<a@client.example>", "250")
    client.ask(f"RCPT TO:<{recipient}>", "250")
    client.ask("DATA", "354")
    client.send_raw(MESSAGE)
    client.expect("250")
    client.ask("QUIT", "221")


def elapsed(since):
    return time.monotonic() - since


# --allow-clients

@pytest.mark.parametrize("ranges, address, allowed", [
    (["192.0.2.0/24"], OUTSIDE4, True), (["192.0.2.9"], OUTSIDE4, True), (["192.0.2.8/31"], OUTSIDE4, True),
    (["192.0.2.10/31"], OUTSIDE4, False), (["0.0.0.0/0"], OUTSIDE6, False), (["::/0"], OUTSIDE4, False),
    (["2001:db8::/64"], OUTSIDE6, True), (["2001:db8::8/125"], OUTSIDE6, True), (["2001:db9::/32"], OUTSIDE6, False),
    (["10.0.0.0/8", "2001:db8::9", "192.0.2.9/32"], OUTSIDE4, True), (["10.0.0.0/8"], "127.0.0.1", False),
    (["127.0.0.0/8"], "127.0.0.1", True)])
def test_allow_clients(net, warp, mail_server, ranges, address, allowed):
    server = mail_server()
    proxy = warp(*(word for text in ranges for word in ("--allow-clients", text)), upstream=server)
    client = outside(proxy, address)
    if allowed:
        client.expect("220")
        deliver(client)
        return
    client.expect(f"554 5.7.1 Client {address} is not allowed here")
    client.expect_end()
    verdict = proxy.wait_for("verdict")
    assert (verdict["on"], verdict["hook"], verdict["verdict"]) == ("clients", None, "reject")
    assert verdict["client"]["ip"] == address
    assert proxy.wait_for("close")["reason"] == "client is not allowed"
    assert not server.peers


def test_allow_clients_of_a_dual_stack_listener(net, warp, mail_server):
    """::ffff:192.0.2.9 is 192.0.2.9."""
    proxy = warp(env={"SMTPWARP_ALLOW_CLIENTS": "192.0.2.9 10.0.0.0/8"}, upstream=mail_server()).listen("*:2525")
    outside(proxy).expect("220")
    outside(proxy, OUTSIDE4[:-1] + "1").expect("554")


def test_a_client_without_an_address_is_a_stranger(net, warp):
    ours, theirs = socket.socketpair()
    proxy = warp("--allow-clients", "0.0.0.0/0")
    with theirs:
        proxy.spawn(stdin=theirs, stdout=theirs)
    client = peers.Peer(ours, proxy.group, "client")
    client.expect("554 5.7.1")
    client.expect_end()


@pytest.mark.parametrize("value", ["", "x", "10.0.0.1/8", "10.0.0.0/33", "::1/64", "10.0.0.0/8/8", "10.0.0.0/"])
def test_ranges_that_are_none(host, value):
    assert run(host, "--check", "--allow-clients", value).returncode == 64


# An open relay by accident

PUBLIC = ["192.0.2.1:2525", "*:2525", "0.0.0.0:2525", "[::]:2525", "[2001:db8::9]:2525", "10.0.0.1:2525"]
GUARDS = [["--allow-clients", "192.0.2.0/24"], ["--valid-recipients", "@server[.]example$"], "rcpt hook"]


@pytest.mark.parametrize("listen", PUBLIC)
@pytest.mark.parametrize("check", [[], ["--check"]], ids=["start", "check"])
@pytest.mark.parametrize("relay", ["--upstream", "--routes"])
def test_open_relay_does_not_start(net, tmp_path, listen, check, relay):
    (tmp_path / "routes").write_text("server.example;127.0.0.1:25\n")
    leads = "127.0.0.1:25" if relay == "--upstream" else tmp_path / "routes"
    result = run(net, *check, "--listen", "127.0.0.1:2526", "--listen", listen, relay, leads)
    assert result.returncode == 78 and result.stderr.count("\n") == 1
    for word in "--upstream", "--allow-clients", "--valid-recipients", "rcpt hook":
        assert word in result.stderr


@pytest.mark.parametrize("listen", PUBLIC)
@pytest.mark.parametrize("guard", [*GUARDS, "transparent", "loopback"], ids=str)
def test_no_open_relay_by_accident(net, hooks, listen, guard):
    hooks.script("rcpt" if guard == "rcpt hook" else "mail", "exit 0")
    options = ["--upstream", "127.0.0.1:25", "--listen", listen, *hooks.options]
    if guard == "transparent":
        options = options[2:]
    elif guard == "loopback":
        options[3] = "127.9.9.9:2525"
    elif guard != "rcpt hook":
        options += guard
    assert run(net, "--check", *options).returncode == 0


@pytest.mark.parametrize("inetd", [True, False])
def test_open_relay_by_a_socket_that_was_passed(net, inetd):
    with socket.create_server((OUTSIDE4, 2525)) as door:
        words = [BINARY, "--upstream", "127.0.0.1:25", "--log", "none"]
        if inetd:
            result = subprocess.run(words, stdin=door, capture_output=True, text=True, timeout=20)
        else:
            script = f'exec 3<&{door.fileno()}; LISTEN_FDS=1 LISTEN_PID=$$ exec "$@"'
            result = subprocess.run(["bash", "-c", script, "bash", *words], pass_fds=[door.fileno()],
                                    stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=20)
    assert result.returncode == 78 and "--allow-clients" in result.stderr


@pytest.mark.parametrize("address", [OUTSIDE4, OUTSIDE6])
@pytest.mark.parametrize("guard", [[], ["--allow-clients", "192.0.2.0/24", "--allow-clients", "2001:db8::/32"]],
                         ids=str)
@pytest.mark.parametrize("late", [[], LATE], ids=["early", "late"])
def test_open_relay_by_one_connection(net, warp, mail_server, address, guard, late):
    """inetd nowait and Accept=yes: the connection's own address tells."""
    server = mail_server()
    proxy = warp(*guard, *late, upstream=server)
    client = proxy.connect(address)
    if guard:
        client.expect("220")
        deliver(client)
        return
    client.expect("421 4.3.5 Service is not configured rightly")
    client.expect_end()
    assert "anybody who reaches it could relay" in proxy.wait_for("error")["error"]
    assert proxy.wait_for("close")["reason"] == "open relay" and not server.peers


@pytest.mark.parametrize("late", [[], LATE], ids=["early", "late"])
@pytest.mark.parametrize("guard", [[], *GUARDS[:2]], ids=str)
@pytest.mark.parametrize("source, far", [("192.0.2.1", True), ("127.0.0.1", False)])
def test_open_relay_for_who_a_proxy_names(warp, mail_server, late, guard, source, far):
    """The proxy is on loopback; its client is not for that."""
    server = mail_server()
    client = warp("--accept-proxy", "127.0.0.1", *guard, *late, upstream=server).connect()
    client.send_raw(b"PROXY TCP4 %s 127.0.0.1 4711 25\r\n" % source.encode())
    if far and not guard:
        client.expect("421 4.3.5 Service is not configured rightly")
        client.expect_end()
        assert not server.peers
    elif far or "--allow-clients" not in guard:
        client.expect("220")


@pytest.mark.parametrize("words, warned", [
    (["--upstream", "192.0.2.25"], True), (["--upstream", "192.0.2.25", "--allow-clients", "192.0.2.0/24"], False),
    (["--upstream", "192.0.2.25", "--valid-recipients", "@a"], False), ([], False)], ids=str)
def test_proxy_before_an_open_relay_is_warned_of(net, words, warned):
    """On loopback it starts, but clients from elsewhere would all be refused."""
    result = run(net, "--check", "--listen", "127.0.0.1:2525", "--accept-proxy", "127.0.0.1", *words)
    assert result.returncode == 0 and ("warning: --accept-proxy" in result.stderr) == warned


@pytest.mark.parametrize("options", [["--valid-recipients", "."], ["--override-recipient", "a@b.example"], "rcpt hook",
                                     ["--tls-policy", "socketmap:unix:/run/map:name"]], ids=str)
@pytest.mark.parametrize("check", [[], ["--check"]], ids=["start", "check"])
def test_passthrough_is_blind(net, hooks, check, options):
    """What is said inside TLS goes past every check of recipients, and their TLS policies: it does not start with one."""
    hooks.script("rcpt" if options == "rcpt hook" else "log", "exit 0")
    words = [*hooks.options, *(options if options != "rcpt hook" else [])]
    result = run(net, *check, "--listen", "127.0.0.1:2525", "--client-tls", "passthrough", *words)
    assert result.returncode == 78 and "--client-tls passthrough leaves TLS to client and upstream" in result.stderr


@pytest.mark.parametrize("how, warned", [("passthrough", True), ("auto", False)])
def test_passthrough_has_nothing_to_report(net, how, warned):
    result = run(net, "--check", "--listen", "127.0.0.1:2525", "--client-tls", how, "--tlsrpt", "/run/tlsrpt.sock")
    assert result.returncode == 0 and ("warning: --tlsrpt: with --client-tls passthrough" in result.stderr) == warned


def test_passthrough_is_no_guard(net):
    result = run(net, "--check", "--listen", PUBLIC[0], "--client-tls", "passthrough", "--upstream", "127.0.0.1:25")
    assert result.returncode == 78 and "anybody who reaches it could relay" in result.stderr


def test_hook_that_is_taken_away_from_a_running_relay(net, warp, mail_server, hooks):
    path = hooks.script("rcpt", "exit 0")
    proxy = warp(*hooks.options, upstream=mail_server()).listen(f"{OUTSIDE4}:2525")
    client = proxy.connect(OUTSIDE4)
    client.expect("220")
    path.unlink()

    def refuses():
        client = proxy.connect(OUTSIDE4)
        code = client.reply().code
        client.close()
        return code == 421
    proxy.wait_until(refuses, "a listener that has seen it")    # it looks once a second
    assert proxy.records("error")
    proxy.connect(OUTSIDE4).expect("421 4.3.5")


def test_redirected_connections_are_not_affected(net, warp, mail_server):
    """The redirect has decided about them, though their local address is none of loopback's."""
    server = mail_server()
    net.ip("addr add 198.51.100.1/32 dev lo", "route add 203.0.113.0/24 dev lo")
    net.nft("""
table ip test {
    chain output {
        type nat hook output priority -100;
        ip daddr 203.0.113.5 tcp dport 25 dnat to 198.51.100.1:2525
    }
}
""")
    proxy = warp(upstream=server)
    with socket.create_server(("198.51.100.1", 2525)) as door:
        client = peers.connect("203.0.113.5", 25, proxy.group)
        accepted, _ = door.accept()
    with accepted:
        proxy.spawn(stdin=accepted, stdout=accepted)
    client.expect("220")
    deliver(client)
    assert proxy.wait_for("connect")["original"] == {"ip": "203.0.113.5", "port": 25}


# --greet-delay

def test_39_teaser_first(warp, mail_server):
    proxy = warp("--greet-delay", 0.4, "--hostname", "proxy.example", upstream=mail_server())
    start = time.monotonic()
    client = proxy.connect()
    assert client.line() == "220-proxy.example ESMTP"
    assert client.line() == "220 server.example ESMTP ready" and elapsed(start) >= 0.4
    deliver(client)
    assert not proxy.records("verdict")
    assert proxy.wait_for("close")["messages"] == 1


def test_39_teaser_when_connecting_late(warp, mail_server):
    proxy = warp("--greet-delay", 0.3, *LATE, upstream=mail_server())
    start = time.monotonic()
    client = proxy.connect()
    assert client.reply() == "220-proxy.example ESMTP\n220 proxy.example ESMTP" and elapsed(start) >= 0.3
    deliver(client)


def test_39_greeting_of_several_lines(warp):
    proxy = warp("--greet-delay", 0.1, "--hostname", "proxy.example")
    client = proxy.connect()
    proxy.upstream.accept().send("220-server one", "220 server two")
    assert client.reply() == "220-proxy.example ESMTP\n220-server one\n220 server two"


@pytest.mark.parametrize("late", [[], LATE], ids=["early", "late"])
@pytest.mark.parametrize("said", [b"EHLO client.example\r\n", b"E", b"\r\n", b"\0", b"\x16\x03\x01\x02\x00",
                                  b"GET / HTTP/1.1\r\nHost: x\r\n\r\n", b"QUIT\r\n" * 10000],
                         ids=["EHLO", "E", "CRLF", "NUL", "TLS", "GET", "much"])
def test_39_early_talker(warp, mail_server, late, said):
    server = mail_server()
    proxy = warp("--greet-delay", 60, "--hostname", "proxy.example", *late, upstream=server)
    client = proxy.connect()
    assert client.line() == "220-proxy.example ESMTP"
    client.send_what_fits(said, len(said))
    assert client.line() == EARLY
    client.expect_end()
    verdict = proxy.wait_for("verdict")
    assert (verdict["on"], verdict["verdict"], verdict["text"]) == ("greeting", "reject", EARLY[4:])
    assert verdict["data"] == said[:len(verdict["data"])].decode() and 1 <= len(verdict["data"]) <= 100
    assert proxy.wait_for("close")["reason"] == "spoke too early" and not server.peers


def test_39_early_talker_before_the_first_line(warp, mail_server):
    """Its bytes are in the socket when the session begins."""
    proxy = warp("--greet-delay", 60, upstream=mail_server()).listen()
    os.kill(proxy.listener.pid, signal.SIGSTOP)
    client = proxy.connect()
    client.send("EHLO client.example")
    os.kill(proxy.listener.pid, signal.SIGCONT)
    assert client.line().startswith("220-") and client.line() == EARLY
    client.expect_end()


@pytest.mark.parametrize("tarpit", [0, 0.3])
def test_39_early_talker_while_the_upstream_is_slow_to_greet(warp, tarpit):
    """The delay is over, the greeting is not; the upstream is left in order."""
    proxy = warp("--greet-delay", 0.1, "--tarpit", tarpit)
    client = proxy.connect()
    server = proxy.upstream.accept()
    assert client.line().startswith("220-")
    client.send("EHLO client.example")
    client.silent(0.1)
    server.send("220 server.example")
    start = time.monotonic()
    server.expect_line("QUIT")
    server.expect_end()
    assert client.line() == EARLY and elapsed(start) >= tarpit
    client.expect_end()
    assert proxy.wait_for("connect") and len(proxy.records("verdict")) == 1


@pytest.mark.parametrize("late", [[], LATE], ids=["early", "late"])
def test_39_pipelining_after_the_greeting_is_legal(warp, mail_server, late):
    """Whatever comes in one segment behind the greeting's last line, at once."""
    server = mail_server("PIPELINING")
    proxy = warp("--greet-delay", 0.05, *late, upstream=server).listen()
    for _ in range(20):
        client = proxy.connect()
        client.expect("220")
        client.send_raw(b"EHLO client.example\r\nMAIL FROM:<a@b.example>\r\nRCPT TO:<b@c.example>\r\nDATA\r\n")
        assert [client.reply().code for _ in range(4)] == [250, 250, 250, 354]
        client.send_raw(MESSAGE + b"QUIT\r\n")
        assert [client.reply().code for _ in range(2)] == [250, 221]
    assert len(server.messages) == 20 and not proxy.records("verdict")


def test_39_without_the_option_nobody_is_too_early(warp, mail_server):
    client = warp(upstream=mail_server(banner="220 slow")).connect()
    client.send("EHLO client.example")
    assert [client.reply().code for _ in range(2)] == [220, 250]


@pytest.mark.parametrize("banner", ["554 5.7.1 not you", "421 4.3.2 busy", "554-not\n554 you", "521 no mail here"])
def test_39_upstream_refuses_behind_the_teaser(warp, banner):
    """Its words end the greeting, and the session, whatever a client makes of the first line."""
    proxy = warp("--greet-delay", 0.1)
    client = proxy.connect()
    server = proxy.upstream.accept()
    server.send(*banner.split("\n"))
    assert client.line().startswith("220-")
    assert client.lines(banner.count("\n") + 1) == banner.split("\n")
    client.expect_end()
    server.expect_end()
    assert proxy.wait_for("close")["by"] == "upstream"


def test_39_upstream_cannot_be_reached_behind_the_teaser(warp):
    client = warp("--greet-delay", 0.1, "--upstream", "127.0.0.1:1").connect()
    assert client.line().startswith("220-")
    client.expect("421 4.4.1")
    client.expect_end()


@pytest.mark.parametrize("verdict, code", [("reject", 554), ("defer", 421), ("close", 421)])
def test_39_hook_refuses_behind_the_teaser(warp, hooks, verdict, code):
    hooks.script("connect", f"echo {verdict} go away")
    client = warp("--greet-delay", 0.1, *hooks.options).connect()
    assert client.line().startswith("220-")
    client.expect(f"{code} ")
    client.expect_end()


def test_39_early_talker_while_a_hook_decides(warp, hooks, mail_server):
    said = hooks.directory.parent / "said"
    hooks.script("connect", f"until [ -e {said} ]; do sleep 0.05; done")
    client = warp("--greet-delay", 0.1, *hooks.options, upstream=mail_server()).connect()
    assert client.line().startswith("220-")
    client.silent(0.2)                          # the delay ends
    client.send("EHLO client.example")
    said.touch()
    assert client.line() == EARLY


@pytest.mark.parametrize("how", ["close", "half_close", "reset"])
def test_client_that_leaves_before_its_greeting(warp, mail_server, how):
    server = mail_server()
    proxy = warp("--greet-delay", 60, upstream=server)
    client = proxy.connect()
    client.line()
    getattr(client, how)()
    assert proxy.wait_for("close")["by"] == "client" and not server.peers


def test_sigterm_before_the_greeting(warp, mail_server):
    proxy = warp("--greet-delay", 30, upstream=mail_server())
    client = proxy.connect()
    client.line()
    proxy.processes[0].terminate()
    client.expect("421 4.3.2")
    client.expect_end()


def test_swaks_waits_for_its_greeting(net, warp, mail_server):
    server = mail_server("PIPELINING")
    proxy = warp("--greet-delay", 0.3, upstream=server).listen()
    result = net.run(["swaks", "--server", "127.0.0.1:2525", "--from", "a@b.example", "--to", "c@d.example",
                      "--pipeline"])
    assert "220-" in result.stdout and len(server.messages) == 1
    proxy.wait_for("close")


# --dnsbl

ZONES = {
    "bl.test": [
        "9.2.0.192 A 127.0.0.2", '9.2.0.192 TXT "open proxy, see" " https://bl.test/192.0.2.9"',
        "8.2.0.192 A 127.0.0.4", "8.2.0.192 A 127.0.0.11", "7.2.0.192 A 127.255.255.254",
        '7.2.0.192 TXT "error: public resolver"', "6.2.0.192 A 198.51.100.1", "5.2.0.192 CNAME 9.2.0.192",
        *(f"4.2.0.192 A 127.0.0.{i}" for i in range(2, 80)),
        '4.2.0.192 TXT "' + "x" * 250 + '" "' + "y" * 250 + '" "' + "z" * 250 + '"',
        "3.2.0.192 A 127.1.2.3", r'3.2.0.192 TXT "a\013\010250 forged\000\255 <html>"',
        reversed_name(OUTSIDE6).removesuffix(".bl.test") + " A 127.0.0.2"],
    "bl2.test": ["9.2.0.192 A 127.0.0.3", "8.2.0.192 A 127.0.0.2"],
    "wl.test": ["9.2.0.192 A 127.0.0.1", "8.2.0.192 A 127.0.9.9"],
}


@pytest.fixture
def nsd(net, tmp_path):
    with Nsd(net, tmp_path / "nsd", ZONES) as server:
        yield server


def lists(*zones, server="127.0.0.1"):
    return ["--dns-server", server, "--dnsbl-timeout", "20", *(word for zone in zones for word in ("--dnsbl", zone))]


# options, last number of the client's address, score, who lists it (None: nobody does)
CASES = [
    (["bl.test"], 9, 1, "bl.test"), (["bl.test"], 10, 0, None), (["bl.test"], 8, 1, "bl.test"),
    (["bl.test"], 7, 0, None), (["bl.test"], 6, 0, None), (["bl.test"], 5, 1, "bl.test"),
    (["bl.test"], 4, 1, "bl.test"),
    (["bl.test"], 3, 1, "bl.test"), (["BL.Test"], 9, 1, "BL.Test"),
    (["bl.test=127.0.0.2"], 9, 1, "bl.test"), (["bl.test=127.0.0.3"], 9, 0, None),
    (["bl.test=127.0.0.[2;4..11]"], 9, 1, "bl.test"), (["bl.test=127.0.0.[2;4..11]"], 8, 1, "bl.test"),
    (["bl.test=127.0.0.[3;5..10]"], 8, 0, None), (["bl.test=127.0.0.11"], 8, 1, "bl.test"),
    (["bl.test=127.0.0.[0..255]"], 3, 0, None), (["bl.test=127.[0..1].[0;2].[2..3]"], 3, 1, "bl.test"),
    (["bl.test=127.255.255.[0..255]"], 7, 0, None), (["bl.test=127.0.0.[70..79]"], 4, 0, None),
    (["bl.test*3"], 9, 3, "bl.test"), (["bl.test*3", "bl2.test*5"], 9, 8, "bl2.test"),
    (["bl.test", "wl.test*-1"], 9, 0, None), (["bl.test*2", "wl.test=127.0.0.1*-1"], 9, 1, "bl.test"),
    (["bl.test", "wl.test=127.0.9.9*-5"], 9, 1, "bl.test"), (["wl.test*-2", "bl.test", "bl2.test"], 8, 0, None),
    (["bl.test=127.0.0.4*2", "bl.test=127.0.0.11*3", "bl.test=127.0.0.5*7"], 8, 5, "bl.test"),
    (["bl.test", "--dnsbl-threshold", "2"], 9, 1, None),
    (["bl.test", "bl2.test", "--dnsbl-threshold", "2"], 9, 2, "bl.test"),
    (["bl.test*2", "--dnsbl-threshold", "2"], 9, 2, "bl.test"), (["bl.test*0"], 9, 0, None),
    (["gone.test", "bl.test"], 9, 1, "bl.test"), (["gone.test"], 9, 0, None)]


def options_of(words):
    zones = [word for word in words if "." in word]
    return lists(*zones) + [word for word in words if "." not in word]


@pytest.mark.parametrize("words, last, score, by", CASES, ids=lambda value: str(value).replace("/", "-"))
def test_79_dnsbl(nsd, warp, mail_server, words, last, score, by):
    """RFC 5782 2.1, 2.3; postscreen_dnsbl_sites of postconf(5)."""
    server = mail_server()
    proxy = warp(*options_of(words), upstream=server)
    address = OUTSIDE4[:-1] + str(last) if last < 10 else OUTSIDE4[:-1] + "10"
    client = outside(proxy, address)
    if by:
        client.expect(f"554 5.7.1 Client {address} is listed by {by}")
        client.expect_end()
        assert not server.peers and proxy.wait_for("close")["reason"] == "listed by --dnsbl"
    else:
        client.expect("220")
        deliver(client)
    verdicts = proxy.records("verdict")
    assert all(verdict["on"] == "dnsbl" and verdict["score"] == score for verdict in verdicts)
    assert len(verdicts) == (last < 10)
    if by:
        assert verdicts[0]["verdict"] == "reject" and verdicts[0]["text"].startswith("5.7.1 Client ")
    elif verdicts:
        assert verdicts[0]["verdict"] == "accept" and verdicts[0]["text"] is None


def test_79_ipv6(nsd, warp, mail_server):
    """Nibbles, RFC 5782 2.4."""
    proxy = warp(*lists("bl.test"), upstream=mail_server())
    client = outside(proxy, OUTSIDE6)
    client.expect(f"554 5.7.1 Client {OUTSIDE6} is listed by bl.test")
    outside(proxy, OUTSIDE6[:-1] + "1").expect("220")


def test_79_text_of_the_list(nsd, warp):
    client = outside(warp(*lists("bl.test")))
    client.expect("554 5.7.1 Client 192.0.2.9 is listed by bl.test: open proxy, see https://bl.test/192.0.2.9")


def test_79_text_is_bounded_and_clean(nsd, warp):
    proxy = warp(*lists("bl.test"))
    long = outside(proxy, "192.0.2.4").reply()          # came over TCP, cut by UDP
    assert len(long) < 510 and long.endswith("bl.test: " + "x" * 200)
    forged = outside(proxy, "192.0.2.3")
    assert forged.reply() == "554 5.7.1 Client 192.0.2.3 is listed by bl.test: a??250 forged?? <html>"
    forged.expect_end()


def test_79_record(nsd, warp):
    proxy = warp(*lists("bl.test=127.0.0.2*2", "bl2.test=127.0.0.9", "wl.test*-1", "none.bl.test"))
    outside(proxy).expect("554")
    verdict = proxy.wait_for("verdict")
    assert verdict["lists"] == [
        {"zone": "bl.test", "answer": "127.0.0.2", "weight": 2, "failure": None},
        {"zone": "bl2.test", "answer": "127.0.0.3", "weight": 0, "failure": None},
        {"zone": "wl.test", "answer": "127.0.0.1", "weight": -1, "failure": None},
        {"zone": "none.bl.test", "answer": None, "weight": 0, "failure": None}]
    assert verdict["score"] == 1 and verdict["check_ms"] >= 0


@pytest.mark.parametrize("last, answer, why", [(7, "127.255.255.254", "the list does not serve us"),
                                               (6, "198.51.100.1", "not in 127.0.0.0/8")])
def test_79_errors_are_no_listing(nsd, warp, mail_server, last, answer, why):
    """smtpproxy counts them as listed."""
    proxy = warp(*lists("bl.test"), upstream=mail_server())
    outside(proxy, OUTSIDE4[:-1] + str(last)).expect("220")
    entry = proxy.wait_for("verdict")["lists"][0]
    assert entry["answer"] == answer and why in entry["failure"] and entry["weight"] == 0


@pytest.mark.parametrize("who", ["loopback", "allowed"])
def test_79_who_is_not_asked_for(net, warp, mail_server, who):
    with Rude(lambda query, tcp: listed(query)) as server:
        allow = ["--allow-clients", "192.0.2.0/24"] if who == "allowed" else []
        proxy = warp(*lists("bl.test", server=server.name_port), *allow, upstream=mail_server())
        (outside(proxy) if allow else proxy.connect()).expect("220")
        assert not server.queries and not proxy.records("verdict")


def test_79_one_question_for_a_zone(net, warp):
    """And for the one that lists, its text; ids and ports are not to be guessed."""
    with Rude(lambda query, tcp: listed(query)) as server:
        zones = ["bl.test=127.0.0.2", "bl.test=127.0.0.3*5", "b2.test", "b3.test"]
        proxy = warp(*lists(*zones, server=server.name_port)).listen()
        for _ in range(8):
            outside(proxy).expect("554")
        names = [nameservers.query_name(query)[0] for query in server.queries]
        assert sorted(set(names)) == sorted(f"9.2.0.192.{zone}" for zone in ("b2.test", "b3.test", "bl.test"))
        assert [nameservers.query_type(query) for query in server.queries].count(A) == 24
        assert [nameservers.query_type(query) for query in server.queries].count(TXT) == 8
        assert len({query[:2] for query in server.queries}) > 28
        assert len({source[1] for source in server.sources}) > 28


def test_79_asked_in_parallel(net, warp, mail_server):
    """16 lists that say nothing cost the time of one, and nothing else."""
    with Rude(lambda query, tcp: None) as server:
        proxy = warp(*lists(*(f"b{i}.test" for i in range(16)), server=server.name_port), "--dnsbl-timeout", 1,
                     upstream=mail_server())
        start = time.monotonic()
        outside(proxy).expect("220")
        assert 1 <= elapsed(start) < 16
        verdict = proxy.wait_for("verdict")
        assert {entry["failure"] for entry in verdict["lists"]} == {"no answer in time"} and verdict["score"] == 0
        assert len(server.queries) == 16 * 4


def test_79_together_with_the_delay(net, warp, mail_server):
    with Rude(lambda query, tcp: None) as server:
        proxy = warp(*lists("bl.test", server=server.name_port), "--greet-delay", 60, upstream=mail_server())
        assert outside(proxy).line().startswith("220-")
        proxy.wait_until(lambda: server.queries, "a question while the delay lasts")


def test_79_listed_behind_the_teaser(nsd, warp):
    proxy = warp(*lists("bl.test"), "--greet-delay", 0.2)
    client = outside(proxy)
    assert client.line().startswith("220-")
    client.expect("554 5.7.1")
    client.expect_end()


def test_79_lost_datagrams(net, warp):
    """The third attempt is heard."""
    with Rude(lambda query, tcp: listed(query) if len(server.queries) == 3 else None) as server:
        proxy = warp(*lists("bl.test", server=server.name_port), "--dnsbl-timeout", 3)
        outside(proxy).expect("554 5.7.1")


@pytest.mark.parametrize("dead", ["closed", "silent", "SERVFAIL", "REFUSED", "cut"])
def test_79_next_server(net, warp, dead):
    flags = {"SERVFAIL": 0x8182, "REFUSED": 0x8185}
    answers = {"silent": lambda query, tcp: None, "cut": lambda query, tcp: b"" if tcp else reply(query, flags=0x8380)}
    with Rude(answers.get(dead, lambda query, tcp: reply(query, flags=flags[dead]))) as bad, \
            Rude(lambda query, tcp: listed(query)) as good:
        first = "127.0.0.1:1" if dead == "closed" else bad.name_port
        proxy = warp(*lists("bl.test", server=first), "--dns-server", good.name_port, "--dnsbl-timeout", 3)
        outside(proxy).expect("554 5.7.1")
        assert good.queries


def test_79_no_server_at_all(net, warp, mail_server):
    proxy = warp(*lists("bl.test", server="127.0.0.1:1"), "--dnsbl-timeout", 60, upstream=mail_server())
    outside(proxy).expect("220")
    assert proxy.wait_for("verdict")["lists"][0]["failure"] == "no server answers"


def test_79_system_settings(nsd, warp):
    """resolv.conf(5), the first three servers."""
    proxy = warp("--dnsbl", "bl.test", "--dnsbl-timeout", 4)
    proxy.etc(resolv_conf="# no\nsearch x.test\n nameserver 127.0.0.9\nnameserver\t127.0.0.5 # down\nnameserver 127.0.0.1\n"
                          "nameserver nonsense\noptions ndots:3\n")
    outside(proxy).expect("554 5.7.1 Client 192.0.2.9 is listed by bl.test: open")


def cut_everywhere(query, _):
    """Its own answer, cut at every octet."""
    whole = listed(query)
    return [whole[:n] for n in range(len(whole))]


def swapped(query, _):
    return reply(query, record(A, socket.inet_aton("127.0.0.2")),
                 question=b"\x01x\x04test\0" + struct.pack("!HH", A, 1))


HOSTILE = {
    "another id": lambda query, _: reply(query, record(A, b"\x7f\0\0\2"), ident=0x1234),
    "another question": swapped,
    "no answer but a query": lambda query, tcp: query,
    "garbage": lambda query, tcp: [os.urandom(n) for n in range(0, 600, 7)],
    "pieces": cut_everywhere,
    "loops": lambda query, tcp: reply(query, record(A, b"\x7f\0\0\2", name=b"\xc0\x1d"), record(CNAME, b"\xc0\x0c")),
    "counts": lambda query, tcp: reply(query, counts=(1, 65535, 65535, 65535)),
    "long data": lambda query, tcp: reply(query, record(A, b"\x7f\0\0\2")[:-6] + b"\xff\xff\x7f\0\0\2"),
    "huge": lambda query, tcp: reply(query, *[record(A, b"\x0a\0\0\1")] * 250),
    "cut for ever": lambda query, tcp: (nameservers.over_tcp(reply(query, flags=0x8380)) if tcp else
                                        reply(query, flags=0x8380)),
    "TCP that closes": lambda query, tcp: b"" if tcp else reply(query, flags=0x8380),
    "TCP of no length": lambda query, tcp: b"\0\0" * 9 if tcp else reply(query, flags=0x8380),
    "TCP of great length": lambda query, tcp: b"\xff\xff" + b"x" * 70000 if tcp else reply(query, flags=0x8380),
    "TCP of garbage": lambda query, tcp: nameservers.over_tcp(os.urandom(300)) if tcp else reply(query, flags=0x8380),
}


@pytest.mark.parametrize("how", HOSTILE)
def test_79_hostile_server(net, warp, mail_server, how):
    """Nothing of it lists a client, and none keeps it from its greeting."""
    with Rude(HOSTILE[how]) as server:
        proxy = warp(*lists("bl.test", server=server.name_port), "--dnsbl-timeout", 0.6, upstream=mail_server())
        client = outside(proxy)
        client.expect("220")
        deliver(client)
        assert server.queries and proxy.wait_for("verdict")["score"] == 0


def test_79_answer_behind_forged_ones(net, warp):
    """Of other ids, of other sources; the one that counts comes last."""
    def answer(query, _):
        source = server.sources[-1]
        forged = reply(query, record(A, b"\x7f\0\0\x63"))
        server.other.sendto(forged, source)
        return [*(reply(query, record(A, b"\x7f\0\0\x63"), ident=(query[0] << 8 | query[1]) ^ (1 << bit))
                  for bit in range(16)), listed(query)]
    with Rude(answer) as server:
        proxy = warp(*lists("bl.test=127.0.0.99*-50", "bl.test*2", server=server.name_port))
        outside(proxy).expect("554 5.7.1")
        assert proxy.wait_for("verdict")["lists"][0]["answer"] == "127.0.0.2"


@pytest.mark.parametrize("size", [1, 7, 1000])
def test_79_tcp_in_pieces(net, warp, size):
    def answer(query, tcp):
        if not tcp:
            return reply(query, flags=0x8380)
        whole = nameservers.over_tcp(reply(query, *[record(A, b"\x7f\0\0\2")] * 3))
        return [whole[at:at + size] for at in range(0, len(whole), size)]
    with Rude(answer) as server:
        proxy = warp(*lists("bl.test", server=server.name_port), "--dnsbl-timeout", 20)
        outside(proxy).expect("554 5.7.1")


@pytest.mark.parametrize("value", ["", "x", "bl", "bl.test=", "bl.test=127", "bl.test=127.0.0", "bl.test=127.0.0.256",
                                   "bl.test=127.0.0.[2", "bl.test=127.0.0.[]", "bl.test=127.0.0.[4..2]", "bl.test*",
                                   "bl.test=127.0.0.2..4", "bl.test=127.0.0.[2,3]", "bl.test*x", "bl.test* 1",
                                   "bl.test*1001",
                                   "bl.test=127.0.0.2*1*1", "bl.test=127.0.0.2.3", "bl .test", "bl..test", ".bl.test",
                                   "bl.test.", "x" * 64 + ".test", "a." * 95 + "test", "bl.test=127.0.0.99999999999"])
def test_lists_that_are_none(host, value):
    result = run(host, "--check", "--dnsbl", value)
    assert result.returncode == 64 and "--dnsbl" in result.stderr


@pytest.mark.parametrize("value", ["bl.test", "bl.test*-1", "bl.test*+2", "bl.test=127.0.0.2",
                                   "zen.bl.test=127.0.0.[2..11]*3",
                                   "bl.test=127.[0;1].[0..9;20].[2;4..6;8..11;255]*-7", "_x.bl-1.test",
                                   "a." * 92 + "test"])
def test_lists_as_postscreen_writes_them(host, value):
    assert run(host, "--check", "--dnsbl", value).returncode == 0


# --valid-recipients, --override-recipient

VALID = "^((info|sales)([+][^@]*)?|x{2,3})@(server|other)[.]example$"


def ask_recipients(client, *recipients):
    client.ask("MAIL FROM:<a@client.example>", "250")
    codes = []
    for recipient in recipients:
        client.send(f"RCPT TO:<{recipient}>")
        codes.append(client.reply())
    return codes


@pytest.mark.parametrize("late", [[], LATE], ids=["early", "late"])
@pytest.mark.parametrize("hooked", [False, True])
def test_valid_recipients(warp, mail_server, hooks, late, hooked):
    server = mail_server()
    if hooked:
        hooks.script("rcpt", "exit 0")
    proxy = warp("--valid-recipients", VALID, *late, *hooks.options, upstream=server)
    client = proxy.greeted()
    wanted = {"info@server.example": 250, "INFO@Server.EXAMPLE": 250, "info+tag@other.example": 250,
              "xx@server.example": 250,
              "info@server.example.evil": 550, "an.info@server.example": 550, "x@server.example": 550,
              "Postmaster": 550,
              "info%evil@x.example": 550}
    replies = ask_recipients(client, *wanted)
    assert [answer.code for answer in replies] == list(wanted.values())
    assert {answer for answer in replies if answer.code == 550} == {"550 5.1.1 There is no such recipient here"}
    client.ask("DATA", "354")
    client.send_raw(MESSAGE)
    client.expect("250")
    message = proxy.wait_for("message")
    assert [entry["code"] for entry in message["rcpt_to"]] == list(wanted.values())
    assert [entry["enhanced"] for entry in message["rcpt_to"] if entry["code"] == 550] == ["5.1.1"] * 5
    assert len(server.messages[0]["to"]) == 4


@pytest.mark.parametrize("late", [[], LATE], ids=["early", "late"])
def test_valid_recipients_pipelined(warp, mail_server, late):
    """Replies in order, and DATA behind none that is valid is refused."""
    server = mail_server("PIPELINING")
    client = warp("--valid-recipients", VALID, *late, upstream=server).greeted()
    client.send_raw(b"MAIL FROM:<a@b.example>\r\nRCPT TO:<no@x.example>\r\nRCPT TO:<xx@server.example>\r\n"
                    b"RCPT TO:<no@y.example>\r\nRSET\r\nMAIL FROM:<>\r\nRCPT TO:<no@x.example>\r\nDATA\r\nRSET\r\n")
    assert [client.reply().code for _ in range(9)] == [250, 550, 250, 550, 250, 250, 550, 554, 250]


def test_valid_recipients_and_harvesters(warp, mail_server):
    """Guesses are bad commands: --max-errors ends it."""
    proxy = warp("--valid-recipients", VALID, "--max-errors", 3, upstream=mail_server())
    client = proxy.greeted()
    client.send_raw(b"MAIL FROM:<a@b.example>\r\n" + b"".join(b"RCPT TO:<guess%d@x.example>\r\n" % i for i in range(9)))
    assert [client.reply().code for _ in range(5)] == [250, 550, 550, 550, 421]
    client.expect_end()
    assert proxy.wait_for("close")["errors"] == 3


@pytest.mark.parametrize("value", ["", "(", "a)", "[a", "*", "a{2", "(a)\\1", "\\w", "[[:nope:]]", "a{256}"])
def test_expressions_that_are_none(host, value):
    result = run(host, "--check", "--valid-recipients", value)
    assert result.returncode == 64 and "--valid-recipients" in result.stderr


@pytest.mark.parametrize("late", [[], LATE], ids=["early", "late"])
@pytest.mark.parametrize("rewritten", [False, True])
def test_override_recipient(warp, mail_server, hooks, late, rewritten):
    """The hook and the expression see the client's word; the record has both."""
    server = mail_server("DSN")
    if rewritten:
        hooks.script("rcpt", "grep -q '\"rcpt\":{\"address\":\"[bc]@' && echo rewrite other@x.example")
    proxy = warp("--override-recipient", "test@lab.example", "--valid-recipients", "^[bc]@", *late, *hooks.options,
                 upstream=server)
    client = proxy.greeted()
    replies = ask_recipients(client, "b@server.example", "c@else.example", "d@server.example")
    assert [answer.code for answer in replies] == [250, 250, 550]
    client.ask("DATA", "354")
    client.send_raw(MESSAGE)
    client.expect("250")
    assert server.messages[0]["to"] == ["<test@lab.example>"] * 2
    recipients = proxy.wait_for("message")["rcpt_to"]
    assert [(entry["address"], entry.get("original")) for entry in recipients] == [
        ("test@lab.example", "b@server.example"), ("test@lab.example", "c@else.example"), ("d@server.example", None)]


def test_override_goes_the_way_of_its_own_address(warp, mail_server, tmp_path):
    """--routes has to do with where mail goes, not with what the client said."""
    lab, other = mail_server(), mail_server()
    (tmp_path / "routes").write_text(f"lab.example;{lab.name_port}\nserver.example;{other.name_port}\n")
    client = warp("--transparent", "--override-recipient", "test@lab.example", "--routes",
                  tmp_path / "routes").greeted()
    assert [answer.code for answer in ask_recipients(client, "b@server.example", "c@nowhere.example")] == [250, 250]
    assert [line for line in lab.commands if line.startswith("RCPT")] == ["RCPT TO:<test@lab.example>"] * 2
    assert not other.peers


def test_override_keeps_parameters_or_refuses(warp, mail_server):
    server = mail_server("DSN", "PIPELINING")
    client = warp("--override-recipient", f"{'t' * 60}@lab.example", "--command-length", 12288,
                  upstream=server).greeted()
    client.ask("MAIL FROM:<a@b>", "250")
    client.ask("RCPT TO:<a@b> NOTIFY=NEVER", "250")
    assert server.commands[-1].startswith("RCPT TO:<ttt") and server.commands[-1].endswith("@lab.example> NOTIFY=NEVER")
    long = "ORCPT=rfc822;" + "x" * (12280 - len("RCPT TO:<a@b> ORCPT=rfc822;"))
    before = len(server.commands)
    client.ask(f"RCPT TO:<a@b> {long}", "500 5.5.2")
    assert len(server.commands) == before


@pytest.mark.parametrize("value", ["", "x", "a b@c", "a@b>", "<a@b>", "a@b> NOTIFY=NEVER", "a" * 300 + "@b.example"])
def test_addresses_that_are_none(host, value):
    assert run(host, "--check", "--override-recipient", value).returncode == 64


# --tarpit

def test_tarpit_before_each_refusal(net, warp, mail_server):
    proxy = warp("--tarpit", 0.3, "--max-tarpits", 1, "--valid-recipients", "^b@", *STRANGERS, upstream=mail_server())
    start = time.monotonic()
    client = outside(proxy)
    client.expect("554 5.7.1")
    assert elapsed(start) >= 0.3
    client.expect_end()
    client = proxy.greeted()
    assert [one.code for one in ask_recipients(client, "b@x")] == [250]
    for _ in range(2):
        start = time.monotonic()
        client.ask("RCPT TO:<c@x>", "550 5.1.1")
        assert elapsed(start) >= 0.3


def test_tarpit_before_nothing_else(warp, mail_server):
    """Who is not refused is not held, nor does every refusal come late."""
    client = warp("--tarpit", 60, "--valid-recipients", "^b@", upstream=mail_server()).greeted()
    assert [one.code for one in ask_recipients(client, "b@x")] == [250]
    client.ask("FROB", "500")


def test_tarpit_of_listed_and_early_clients(nsd, warp):
    proxy = warp("--tarpit", 0.3, *lists("bl.test"), "--greet-delay", 0.1)
    start = time.monotonic()
    client = outside(proxy)
    client.line()
    client.expect("554 5.7.1")
    assert elapsed(start) >= 0.4
    start = time.monotonic()
    client = outside(proxy)
    client.line()
    client.send("x")
    assert client.line() == EARLY and elapsed(start) >= 0.3


def started(proxy, how):
    return proxy.listen() if how == "listener" else proxy


def only_process(proxy):
    """The one session's."""
    return proxy.children()[0] if proxy.listener else proxy.processes[0].pid


@pytest.mark.parametrize("how", ["listener", "inetd"])
def test_tarpit_is_bounded_in_number(net, warp, how):
    """smtpproxy's are not, and it runs out of descriptors. Further clients are refused at once; all get their reply."""
    proxy = started(warp("--tarpit", 60, "--max-tarpits", 5, *STRANGERS), how)
    clients = [outside(proxy) for _ in range(25)]
    proxy.wait_until(lambda: sum(bool(client.got) for client in clients) == 20, "20 refusals")
    proxy.wait_held(5)
    for client in clients:
        if not client.got:
            client.half_close()
        client.expect("554 5.7.1")
    proxy.wait_held(0)
    outside(proxy)                              # there is room again
    proxy.wait_held()


@pytest.mark.parametrize("stay", [False, True])
def test_tarpits_leave_room_for_good_clients(net, warp, mail_server, stay):
    """PROTOCOL, seen to break smtpproxy: "unlimited tarpits exhaust descriptors and the process exits". 200 bad clients in a
    flood, and good ones among them; also when the bad stay though they have been refused, which is for a moment."""
    server = mail_server()
    proxy = warp("--max-sessions", 50, "--max-tarpits", 10, "--tarpit", 60, *STRANGERS, upstream=server)
    proxy.wrapper = ["prlimit", "--nofile=32"]
    proxy.listen()
    descriptors = os.listdir(f"/proc/{proxy.listener.pid}/fd")
    bad, served = [], 0

    def deliver_one():
        client = proxy.connect()
        good = client.reply().code == 220       # or 421, for a moment
        if good:
            deliver(client)
        client.close()
        return good

    def unanswered():
        proxy.group.turn(0.01)
        for client in bad:
            if client.got and not client.closed and not stay:
                client.expect("554 5.7.1")
                client.close()
        return [client for client in bad if not client.got]
    for number in range(200):
        bad.append(outside(proxy))
        if not stay:
            unanswered()
            if number % 20 == 19:
                proxy.wait_until(deliver_one, "a place for a good client")
                served += 1
    proxy.wait_until(lambda: deliver_one() and len(unanswered()) <= 10, "a place for a good client, and refusals of the bad")
    assert len(held := unanswered()) == 10
    assert len(server.messages) >= served + 1 and proxy.listener.poll() is None
    assert os.listdir(f"/proc/{proxy.listener.pid}/fd") == descriptors
    for client in held:
        client.half_close()
        client.expect("554 5.7.1")


def test_tarpits_leave_half_of_the_sessions(net, warp, mail_server):
    """As --max-tarpits is by default, and that would take all."""
    proxy = warp("--max-sessions", 6, "--tarpit", 60, *STRANGERS, upstream=mail_server()).listen()
    held = []
    for count in range(1, 4):
        held.append(outside(proxy))
        proxy.wait_held(count)
    outside(proxy).expect("554 5.7.1")
    client = proxy.connect()
    client.expect("220")
    deliver(client)
    for client in held:
        client.silent(0)
        client.close()


def test_tarpits_are_counted_together_however_sessions_start(net, warp):
    """A listener's, and inetd's of two services."""
    proxies = [warp("--tarpit", 30, "--max-tarpits", 2, *STRANGERS) for _ in range(3)]
    proxies[0].listen()
    held = [outside(proxy) for proxy in proxies[:2]]
    proxies[0].wait_held(2)
    for proxy in proxies:
        outside(proxy).expect("554")
    for client in held:
        client.silent(0)
        client.close()


@pytest.mark.parametrize("first", ["check", "hook at connect", "hook at ehlo"])
def test_tarpits_of_hooks_and_checks_are_counted_together(net, warp, mail_server, hooks, first):
    for event in "connect", "ehlo":
        hooks.script(event, f"! grep -q '127.0.0.{3 if event == 'connect' else 4}' || echo tarpit 30")
    proxy = warp("--tarpit", 30, "--max-tarpits", 1, *STRANGERS, *hooks.options, upstream=mail_server()).listen()

    def come(who):
        if who == "check":
            return outside(proxy)
        client = proxy.connect(source=(f"127.0.0.{3 if 'connect' in who else 4}", 0))
        if "ehlo" in who:
            client.expect("220")
            client.send("EHLO x")
        return client
    held = come(first)
    proxy.wait_held()
    come("check").expect("554")
    come("hook at connect").expect("220")
    come("hook at ehlo").expect("250")
    held.silent(0)
    held.close()
    proxy.wait_held(0)
    come("hook at ehlo")                        # its place is free
    proxy.wait_held()


@pytest.mark.parametrize("how", ["listener", "inetd"])
def test_tarpit_place_of_a_session_that_was_killed(net, warp, how):
    proxy = started(warp("--tarpit", 30, "--max-tarpits", 1, *STRANGERS), how)
    proxy.complete, proxy.exit_codes = False, (0, -signal.SIGKILL)
    held = outside(proxy)
    proxy.wait_held()
    pid = only_process(proxy)
    outside(proxy).expect("554")
    os.kill(pid, signal.SIGKILL)
    held.expect_end()
    proxy.wait_until(lambda: pid not in proxy.children() if proxy.listener else proxy.processes[0].poll() is not None,
                     "the end of the session")
    again = outside(proxy)
    proxy.wait_held()
    again.close()


@pytest.mark.parametrize("max_tarpits", [0, 1])
@pytest.mark.parametrize("hooked", [False, True])
def test_tarpit_of_a_single_session(net, warp, mail_server, hooks, max_tarpits, hooked):
    seconds = 1 if max_tarpits else 60          # which it is not held
    hooks.script("connect", f"echo tarpit {seconds}")
    start = time.monotonic()
    proxy = warp("--tarpit", seconds, "--max-tarpits", max_tarpits, *(hooks.options if hooked else STRANGERS),
                 upstream=mail_server())
    outside(proxy).expect("220" if hooked else "554")
    assert not max_tarpits or elapsed(start) >= seconds


@pytest.mark.parametrize("user, held", [(NOBODY, True), (0, False)])
def test_tarpit_places_that_others_have(net, warp, user, held):
    """Names without a file are for every user, but only sockets of smtpwarp's own user are places."""
    names = [f"smtpwarp-tarpit-{number:037x}{1:016x}" for number in range(100)] + [f"smtpwarp-tarpit-0-{number}" for number in range(100)]
    with peers.abstract_sockets(names, user):
        proxy = warp("--tarpit", 30, *STRANGERS)
        client = outside(proxy)
        if held:
            proxy.wait_held(2 * len(names) + 1)
        else:
            client.expect("554")
        assert not proxy.records("error")


@pytest.mark.parametrize("call", ["socket", "bind", "sendto"])
def test_tarpit_without_unix_sockets(net, warp, tmp_path, call):
    """As where RestrictAddressFamilies= lacks AF_UNIX or AF_NETLINK: refused at once, and the log says why."""
    proxy = warp("--tarpit", 30, *STRANGERS)
    proxy.wrapper = ["strace", "-f", "-o", str(tmp_path / "trace"), "-e", f"inject={call}:error=EACCES"]
    proxy.env = {"ASAN_OPTIONS": "detect_leaks=0"}
    client = outside(proxy)
    if call != "sendto":        # by which replies go, too
        client.expect("554")
    assert "held clients cannot be counted" in proxy.wait_for("error")["error"]


@pytest.mark.parametrize("said", [b"", b"x" * (1 << 20)], ids=["nothing", "much"])
def test_tarpit_costs_little(net, warp, said):
    """What is said meanwhile stays in the socket; the process sleeps."""
    proxy = warp("--tarpit", 60, *STRANGERS)
    client = outside(proxy)
    client.send_what_fits(said, len(said))
    pid = proxy.processes[0].pid

    def status():
        with open(f"/proc/{pid}/status") as file:
            return dict(line.split(":\t") for line in file)
    proxy.wait_held()
    proxy.wait_until(lambda: status()["State"].startswith("S"), "sleep")
    time.sleep(0.1)
    before = status()
    time.sleep(0.4)
    assert status()["voluntary_ctxt_switches"] == before["voluntary_ctxt_switches"]     # it has not woken up
    if "asan" not in BINARY:
        assert int(before["RssAnon"].split()[0]) < 200
    client.reset()


# why a client is held: what it has said, and the answer that it waits for
HELD = {
    "client": ([], "554 5.7.1"),
    "recipient": (["EHLO c.example", "MAIL FROM:<a@b.example>", "RCPT TO:<nobody@x.example>"], "550 5.1.1"),
    "hook at connect": ([], "220 server.example"),
    "hook that refuses": ([], "554 5.7.1"),
    "hook at ehlo": (["EHLO c.example"], "250 "),
}
MUCH = b"NOOP\r\n" * 1000      # more than is read while it is held
LEAVING = pytest.mark.parametrize("said", [b"", b"NOOP\r\n", MUCH], ids=["nothing", "little", "much"])


@pytest.fixture
def held(net, warp, mail_server, hooks):
    """held(why): the proxy, its upstream, and a client that is held for long."""
    def make(why):
        options = {"client": STRANGERS, "recipient": ["--valid-recipients", "^b@"]}.get(why, hooks.options)
        if "hook" in why:
            hooks.script("ehlo" if "ehlo" in why else "connect", "echo tarpit 60" + "; echo reject" * ("refuses" in why))
        server = mail_server("PIPELINING")
        proxy = warp("--tarpit", 60, "--max-tarpits", 1, *options, upstream=server)
        client = outside(proxy)
        for line in HELD[why][0]:
            client.expect("2")
            client.send(line)
        proxy.wait_held()
        client.silent(0)
        return proxy, server, client
    return make


@pytest.mark.parametrize("why", HELD)
@LEAVING
def test_70_tarpit_of_a_client_that_closes_its_side(held, why, said):
    """By shutdown(2) or close(2): one cannot tell. It gets its answer, now, and what it said before is answered too."""
    proxy, server, client = held(why)
    client.send_raw(said)
    client.silent(0.1)
    client.half_close()
    ends = why in ("client", "hook that refuses")
    if why == "hook at connect" and not said:
        assert not proxy.wait_exit() and not server.peers   # it can never say anything
    else:
        client.expect(HELD[why][1])
    assert client.rest().count(b"250 ") == (0 if ends else said.count(b"NOOP"))
    proxy.wait_exit()
    close = proxy.wait_for("close")
    reasons = {"client": "client is not allowed", "hook that refuses": "a hook closed it"}
    assert (close["by"], close["reason"]) == ("smtpwarp" if ends else "client", reasons.get(why, "connection closed"))


@pytest.mark.parametrize("why", HELD)
@LEAVING
@pytest.mark.parametrize("how", ["close", "reset"])
def test_tarpit_of_a_client_that_is_gone(held, why, said, how):
    """Its process ends, and its place is free."""
    proxy, _, client = held(why)
    client.send_raw(said)
    client.silent(0.1)
    getattr(client, how)()
    proxy.wait_exit()
    close = proxy.wait_for("close")
    if how == "reset":
        assert (close["by"], close["reason"]) == ("client", "connection reset")
    if not HELD[why][0]:
        outside(proxy)
        proxy.wait_held()


def test_70_tarpit_within_pipelined_commands(held):
    """The client has said all and closes its side: each command is answered, and the good recipient gets the message."""
    proxy, _, client = held("recipient")
    client.send("RCPT TO:<b@x.example>", "RCPT TO:<nobody@y.example>", f"RCPT TO:<{'n' * 300}@z.example>", "DATA")
    client.silent(0.1)
    client.half_close()
    assert [client.reply().code for _ in range(5)] == [550, 250, 550, 550, 354]
    proxy.wait_exit()
    message = proxy.wait_for("message")
    assert message["result"] == "aborted" and [one["code"] for one in message["rcpt_to"]] == [550, 250, 550, 550]


@pytest.mark.parametrize("end", ["half_close", "close", "reset"])
def test_greet_delay_of_a_client_that_closes(net, warp, mail_server, end):
    """Early talk is refused, to whoever can hear it; the tarpit does not outlast the client."""
    proxy = warp("--greet-delay", 60, "--tarpit", 60, upstream=mail_server())
    client = proxy.connect()
    client.line()
    client.send("EHLO x")
    proxy.wait_held()
    getattr(client, end)()
    if end == "half_close":
        assert client.line() == EARLY
        client.expect_end()
    proxy.wait_exit()
    assert proxy.wait_for("close")["reason"] == ("connection reset" if end == "reset" else "spoke too early")


def test_tarpit_and_sigterm(net, warp):
    proxy = warp("--tarpit", 60, "--allow-clients", "127.0.0.0/8").listen()
    client = outside(proxy)
    proxy.wait_held()
    proxy.listener.terminate()
    for pid in proxy.children():
        os.kill(pid, signal.SIGTERM)
    client.expect("421 4.3.2")


@pytest.mark.parametrize("option", ["--tarpit", "--greet-delay"])
@pytest.mark.parametrize("value", ["301", "-1", "x", ""])
def test_delays_are_bounded(host, option, value):
    assert run(host, "--check", option, value).returncode == 64


# Without these options

def test_sessions_that_check_nothing_make_no_call_more(net, warp, mail_server, tmp_path):
    """No socket, no file, and no sleep before the upstream is connected to."""
    trace = tmp_path / "trace"
    proxy = warp(upstream=mail_server())
    proxy.wrapper = ["strace", "-f", "-o", str(trace)]
    proxy.env = {**(proxy.env or {}), "ASAN_OPTIONS": "detect_leaks=0"}
    outside(proxy).expect("220")
    proxy.group.close()
    proxy.wait_exit()
    text = trace.read_text()
    assert ("madvise" not in text or "asan" in BINARY)
    assert "resolv.conf" not in text and "/etc/hosts" not in text and "socket(AF_INET, SOCK_DGRAM" not in text


# Real mail servers

@pytest.mark.skipif(not mta.PACKAGES.exists(), reason="test/fetch-packages has not been run")
def test_postfix_waits_and_bounces_what_is_not_there(tmp_path):
    """Through the delay, past the lists, to recipients of which half are refused: each of the others arrives once."""
    with netns.pair() as (client_host, mail_host), mta.Postfix(mail_host) as server, \
            Nsd(mail_host, tmp_path / "nsd", {"bl.test": ["9.0.0.10 A 127.0.0.2"]}), \
            mta.Postfix(client_host, relay=mail_host.ip4) as sender:
        with mail_host:
            proxy = Warp(mail_host, server.folder("smtpwarp"), "--upstream", f"{mail_host.ip4}:25",
                         "--greet-delay", 0.3,
                         "--valid-recipients", "^good", *lists("bl.test"), "--tarpit", 0.05)
            mail_host.nft("table ip t {\n chain p {\n type nat hook prerouting priority -100;\n"
                          " tcp dport 25 redirect to :2525\n }\n}")
            proxy.listen("*:2525")
        try:
            mails = [mta.Mail(f"s{i}@client.test", [f"good{i}@mail.test", f"bad{i}@mail.test"],
                              b"Subject: %d\r\nMessage-Id: <%d@client.test>\r\n\r\nHello.\r\n" % (i, i))
                     for i in range(10)]
            sender.submit(mails)
            sender.release()
            server.wait_stored(10)
            sender.wait_idle()
            stored = [one for one in server.stored() if one.recipient.startswith("good")]
            assert sorted(one.recipient for one in stored) == sorted(f"good{i}@mail.test" for i in range(10))
            refused = [entry["address"] for record in proxy.records("message") for entry in record["rcpt_to"]
                       if entry["code"] == 550 and entry["address"].startswith("bad")]
            assert sorted(refused) == sorted(f"bad{i}@mail.test" for i in range(10))
            assert not proxy.records("verdict")
        finally:
            proxy.close()
