"""Host names of upstreams: /etc/hosts, localhost, the DNS as resolv.conf(5) wants it asked, and which address is tried first.
The session goes on meanwhile. PROTOCOL 74. Name servers are a real NSD, and a scripted one; lines of these files are in
unit/lookup.c and unit/dnsmessage.c."""
import os
import signal
import socket
import time

import pytest

from hooks import Hooks
from nameservers import A, AAAA, Nsd, Rude, over_tcp, query_name, query_type, record, reply
from test_checks import HOSTILE
from test_late import LATE, transaction
from test_upstream_tls import asked_for_tls, greet_again
from waiting import wait_until
from warp import cpu_seconds, is_pending

WORLD, PRIVATE = "2001:db8::5", "fd00::5"
EMPTY = "127.0.0.1 here\n"
PATIENT = ["--connect-timeout", 60]     # longer than a test waits: what comes, comes before


@pytest.fixture
def server(mail_server):
    return mail_server("PIPELINING")


@pytest.fixture
def looking(warp):
    """looking(*options): with no upstream in /etc/hosts, and a name server here, unless told else."""
    def make(*options, hosts=EMPTY, resolv_conf="nameserver 127.0.0.1\n", **settings):
        proxy = warp("--tls", "none", *options, **settings)
        proxy.etc(hosts=hosts, resolv_conf=resolv_conf)
        return proxy
    return make


def address(text):
    family = socket.AF_INET6 if ":" in text else socket.AF_INET
    return record(AAAA if ":" in text else A, socket.inet_pton(family, text))


def having(*addresses):
    """A name server that says the same of every name."""
    def answer(query, _=False):
        return reply(query, *(item for item in map(address, addresses) if item[2:4] == query[-4:-2]))
    return answer


def asked(names):
    return [(query_name(query)[0], query_type(query)) for query in names.queries]


def tried(proxy, count):
    """The addresses that were tried, in order, none of which is there."""
    proxy.wait_for("error", count)
    proxy.group.close()
    proxy.wait_for("close")
    records = [item for item in proxy.records("error") if item["error"].startswith("4.4.1")]
    assert len(records) == count
    return [item["server"]["ip"] for item in records]


def silent_names():
    return Rude(lambda query, tcp: None)


# By the DNS

ZONES = {
    "a.test": ["mail A 127.0.0.1", "six AAAA ::1", "both A 127.0.0.1", "both AAAA ::1", "alias CNAME mail",
               "chain CNAME chain2", "chain2 CNAME chain3.b.test.", "text TXT none", "loop CNAME loop",
               *(f"many A 127.0.1.{n}" for n in range(1, 41)), "many A 127.0.0.1"],
    "b.test": ["chain3 CNAME mail.a.test.", "mail A 127.0.0.9"],
}


@pytest.fixture
def nsd(host, tmp_path):
    with Nsd(host, tmp_path / "nsd", ZONES) as running:
        yield running


@pytest.mark.parametrize("name", ["mail.a.test", "MAIL.A.Test", "mail.a.test.", "alias.a.test", "both.a.test"])
def test_74_name(nsd, looking, server, name):
    """By IPv4; both.a.test has ::1 as well, where nobody listens."""
    proxy = looking("--upstream", f"{name}:{server.port}")
    proxy.connect().expect("220")
    assert proxy.wait_for("connect")["server"] == {"ip": "127.0.0.1", "port": server.port, "tls": None}


def test_74_name_of_ipv6(nsd, looking, mail_server):
    server = mail_server(address="::1")
    looking("--upstream", f"six.a.test:{server.port}").connect().expect("220")


def test_74_more_addresses_than_a_datagram_holds(nsd, looking):
    """By TCP. Eight are tried."""
    proxy = looking("--upstream", "many.a.test:9")
    client = proxy.connect()
    client.expect("421 4.4.1 many.a.test: Connection refused")
    assert len(set(tried(proxy, 8))) == 8


@pytest.mark.parametrize("name, reason", [
    ("none.a.test", "no such name"), ("text.a.test", "it has no address"), ("loop.a.test", "it has no address"),
    ("mail.c.test", "name server: the server failed"), ("1234", "that is no host's name"), ("a..test", "that is no host's name"),
    (".".join(["x" * 63] * 4)[:254], "that is no host's name"), ("x" * 64 + ".test", "that is no host's name")])
@pytest.mark.parametrize("mode", [[], LATE])
def test_74_name_that_there_is_not(nsd, looking, server, name, reason, mode):
    proxy = looking("--upstream", name, *mode)
    client = proxy.connect()
    code = 451 if mode else 421
    if mode:
        client.expect("220")
        client.ask("EHLO c", "250")
        client.ask("MAIL FROM:<a@b>", "250")
        client.send("RCPT TO:<c@d>")
    client.expect(f"{code} 4.4.3 {name[:100]}: name lookup: {reason}")
    assert proxy.wait_for("error")["error"].endswith(f"name lookup: {reason}")
    if mode:
        client.ask("QUIT", "221")
    client.expect_end()


@pytest.mark.parametrize("first", ["none.a.test", "mail.c.test", "x..y"])
@pytest.mark.parametrize("mode", [[], LATE])
def test_74_next_upstream(nsd, looking, server, first, mode):
    """After a name that there is not, a refused address, and once more a name."""
    proxy = looking("--upstream", first, "--upstream", "127.0.0.1:9", "--upstream", f"mail.a.test:{server.port}", *mode)
    client = proxy.connect()
    client.expect("220")
    client.ask("EHLO c", "250")
    assert transaction(client, "b@d") == [250, 250]
    assert [item["error"][:5] for item in proxy.records("error")] == ["4.4.3", "4.4.1"]


def test_74_name_that_there_is_not_is_no_server(nsd, looking):
    """Its record does not have the one before."""
    proxy = looking("--upstream", "127.0.0.1:9", "--upstream", "none.a.test")
    proxy.connect().expect("421 4.4.3 none.a.test")
    assert [(item["server"] or {}).get("ip") for item in (proxy.wait_for("error"), proxy.wait_for("error", 2))] == ["127.0.0.1", None]


# Servers that fail

@pytest.mark.parametrize("bad, want", [(A, "::1"), (AAAA, "127.0.0.1")])
@pytest.mark.parametrize("how", ["SERVFAIL", "silence", "garbage", "NXDOMAIN"])
def test_74_one_family_fails(host, looking, mail_server, bad, want, how):
    """The other's addresses do; a server that is silent on one is not waited for long."""
    def answer(query, _):
        if query_type(query) != bad:
            return having("127.0.0.1", "::1")(query)
        return {"SERVFAIL": reply(query, flags=0x8182), "silence": None, "garbage": os.urandom(100),
                "NXDOMAIN": reply(query, flags=0x8183)}[how]
    server = mail_server(address=want)
    with Rude(answer) as names:
        proxy = looking("--dns-server", names.name_port, "--connect-timeout", 60, "--upstream", f"mail.test:{server.port}")
        proxy.connect().expect("220")
    assert proxy.wait_for("connect")["server"]["ip"] == want


@pytest.mark.parametrize("bad", [A, AAAA])
def test_74_one_family_fails_the_other_has_nothing(host, looking, bad):
    """Nobody can tell: another server must not be thought to be meant."""
    with Rude(lambda query, _: reply(query, flags=0x8182 if query_type(query) == bad else 0x8183)) as names:
        proxy = looking("--dns-server", names.name_port, "--upstream", "mail", resolv_conf="search a.test b.test\n")
        proxy.connect().expect("421 4.4.3 mail: name lookup: name server: the server failed")
        assert {name for name, _ in asked(names)} == {"mail.a.test"}


@pytest.mark.parametrize("dead", ["closed", "silent", "SERVFAIL", "cut"])
def test_74_second_name_server(host, looking, server, dead):
    answers = {"SERVFAIL": lambda query, _: reply(query, flags=0x8182),
               "cut": lambda query, tcp: b"" if tcp else reply(query, flags=0x8380)}
    with Rude(answers.get(dead, lambda query, _: None)) as bad, Rude(having("127.0.0.1")) as good:
        first = "127.0.0.1:1" if dead == "closed" else bad.name_port
        proxy = looking("--dns-server", first, "--dns-server", good.name_port, "--connect-timeout", 3,
                        "--upstream", f"mail.test:{server.port}")
        proxy.connect().expect("220")
        assert sorted(asked(good)) == [("mail.test", A), ("mail.test", AAAA)]


def test_74_cut_answer(host, looking, server):
    def answer(query, tcp):
        return over_tcp(having("127.0.0.1")(query)) if tcp else reply(query, flags=0x8380)
    with Rude(answer) as names:
        looking("--dns-server", names.name_port, "--upstream", f"mail.test:{server.port}").connect().expect("220")


@pytest.mark.parametrize("how", HOSTILE)
def test_74_hostile_name_server(host, looking, server, how):
    """The next upstream is reached all the same."""
    with Rude(HOSTILE[how]) as names:
        proxy = looking("--dns-server", names.name_port, "--connect-timeout", 0.6, "--upstream", "mail.test:9",
                        "--upstream", server.name_port)
        proxy.connect().expect("220")
        assert names.queries


def test_74_silent_name_server(host, looking):
    """--connect-timeout bounds it."""
    with silent_names() as names:
        proxy = looking("--dns-server", names.name_port, "--connect-timeout", 0.5, "--upstream", "mail.test")
        start = time.monotonic()
        client = proxy.connect()
        client.expect("421 4.4.3 mail.test: name lookup: name server: no answer in time")
        assert time.monotonic() - start > 0.4
        client.expect_end()


def test_74_no_resolv_conf(looking):
    """As in a container: nobody listens at 127.0.0.1:53, of which nobody has heard either."""
    proxy = looking("--connect-timeout", 2, "--upstream", "mail.test", resolv_conf="")
    client = proxy.connect()
    client.expect("421 4.4.3 mail.test: name lookup: name server: ")
    assert proxy.wait_for("error")["error"].endswith(" (127.0.0.1, for /etc/resolv.conf names none)")


# Meanwhile

def waiting(proxy, mode, names):
    """A client for whom a name is being looked up."""
    client = proxy.connect()
    if mode:
        client.expect("220")
        client.ask("EHLO c", "250")
        client.ask("MAIL FROM:<a@b>", "250")
        client.send("RCPT TO:<c@d>")
    wait_until(lambda: names.queries)
    return client


@pytest.mark.parametrize("mode", [[], LATE])
@pytest.mark.parametrize("how", ["close", "reset", "half_close"])
def test_74_client_leaves_meanwhile(host, looking, mode, how):
    with silent_names() as names:
        proxy = looking("--dns-server", names.name_port, "--upstream", "mail.test", *PATIENT, *mode)
        client = waiting(proxy, mode, names)
        getattr(client, how)()
        assert proxy.wait_for("close")["by"] == "client"
        proxy.wait_exit()


@pytest.mark.parametrize("mode, signals", [([], 1), (LATE, 2)])
def test_74_sigterm_meanwhile(host, looking, mode, signals):
    """Late, with a transaction open, a second one or --drain-timeout ends it."""
    with silent_names() as names:
        proxy = looking("--dns-server", names.name_port, "--upstream", "mail.test", *PATIENT, *mode)
        client = waiting(proxy, mode, names)
        process = proxy.processes[-1]
        for _ in range(signals):
            process.send_signal(signal.SIGTERM)
            wait_until(lambda: process.poll() is not None or not is_pending(process.pid, signal.SIGTERM))
        client.expect("421 4.3.2")
        client.close()
        proxy.wait_exit()


def test_74_drain_timeout_meanwhile(host, looking):
    with silent_names() as names:
        proxy = looking("--dns-server", names.name_port, "--upstream", "mail.test", *PATIENT, *LATE, "--drain-timeout", 0.3)
        client = proxy.connect()
        client.expect("220")
        client.ask("EHLO c", "250")
        client.ask("MAIL FROM:<a@b>", "250")
        client.send("RCPT TO:<c@d>")
        wait_until(lambda: names.queries)
        proxy.processes[-1].send_signal(signal.SIGTERM)
        client.expect("421 4.3.2")


def test_74_log_hooks_read_meanwhile(host, looking, tmp_path):
    """What was recorded before comes to them at once."""
    hooks = Hooks(tmp_path / "hooks")
    hooks.script("log", f"cat >{tmp_path}/seen")
    with silent_names() as names:
        proxy = looking("--hooks", hooks.directory, "--dns-server", names.name_port, "--upstream", "127.0.0.1:9",
                        "--upstream", "mail.test", *PATIENT)
        client = proxy.connect()
        wait_until(lambda: names.queries)
        wait_until(lambda: (tmp_path / "seen").exists() and "Connection refused" in (tmp_path / "seen").read_text())
        client.close()


def test_74_waiting_costs_nothing(host, looking):
    """No turn of the loop but for what comes."""
    with silent_names() as names:
        proxy = looking("--dns-server", names.name_port, "--upstream", "mail.test")
        client = proxy.connect()
        wait_until(lambda: names.queries)
        before = cpu_seconds(proxy.processes[-1].pid)
        time.sleep(0.5)
        assert cpu_seconds(proxy.processes[-1].pid) - before < 0.1
        client.close()


# By files

@pytest.mark.parametrize("hosts, address", [
    ("127.0.0.1 mail.test\n", "127.0.0.1"), ("127.0.0.1\tother.test Mail.TEST # x", "127.0.0.1"),
    ("# 127.0.0.9 mail.test\n127.0.0.9 # mail.test\n127.0.0.9 mail.tes mail.test. xmail.test\n127.0.0.1 mail.test", "127.0.0.1"),
    ("::1 mail.test\n", "::1"), ("::ffff:127.0.0.1 mail.test\n", "127.0.0.1"),
    ("nonsense mail.test\n127.0.0.1 mail.test\n", "127.0.0.1"), (b"\xff\0\0\n" * 999 + b"127.0.0.1 mail.test\r\n", "127.0.0.1"),
    (b"127.0.0.9 " + b"x" * 9000 + b" mail.test\n127.0.0.1 mail.test\n", "127.0.0.1"),
    (b"127.0.0.9 mail.test" + b" x" * 9000 + b"\n127.0.0.1 mail.test\n", "127.0.0.1"),
    ("10.9.8.7 some-name.example\n" * 100_000 + "127.0.0.1 mail.test", "127.0.0.1")],
    ids=["plain", "alias", "comments", "ipv6", "mapped", "nonsense", "bytes", "long-name", "long-line", "large"])
def test_74_hosts_file(host, looking, mail_server, hosts, address):
    """Nobody else is asked then."""
    server = mail_server(address=address)
    with Rude(having("127.0.0.9")) as names:
        proxy = looking("--dns-server", names.name_port, "--upstream", f"mail.test:{server.port}", hosts=hosts)
        proxy.connect().expect("220")
        assert not names.queries
    assert proxy.wait_for("connect")["server"]["ip"] == address


def test_74_hosts_file_of_no_end(host, looking, server):
    """20 MB without a line end, and what comes behind them."""
    with Rude(having("127.0.0.1")) as names:
        proxy = looking("--dns-server", names.name_port, "--upstream", f"mail.test:{server.port}",
                        hosts=b"\0" * (20 << 20) + b"\n127.0.0.9 mail.test\n")
        proxy.connect().expect("220")


def test_74_several_addresses_in_the_hosts_file(host, looking):
    hosts = "".join(f"127.0.0.{n} mail.test\n" for n in (5, 4, 5, *range(10, 30)))
    proxy = looking("--upstream", "mail.test:9", hosts=hosts + "::1 mail.test\n")
    proxy.connect().expect("421 4.4.1")
    assert tried(proxy, 8) == ["127.0.0.5", "127.0.0.4", *(f"127.0.0.{n}" for n in range(10, 16))]


@pytest.mark.parametrize("name", ["localhost", "LocalHost.", "mail.localhost"])
def test_74_localhost(host, looking, name):
    """RFC 6761 6.3: here, whoever says what."""
    with Rude(having("10.0.0.1")) as names:
        proxy = looking("--dns-server", names.name_port, "--upstream", f"{name}:9")
        proxy.connect().expect("421 4.4.1")
        assert tried(proxy, 2) == ["::1", "127.0.0.1"]
        assert not names.queries


def test_74_localhost_of_the_hosts_file(host, looking):
    proxy = looking("--upstream", "localhost:9", hosts="127.0.0.3 localhost\n")
    proxy.connect().expect("421 4.4.1")
    assert tried(proxy, 1) == ["127.0.0.3"]


@pytest.mark.parametrize("name, conf, names_asked", [
    ("mail", "search a.test b.test", ["mail.a.test", "mail.b.test", "mail"]),
    ("mail", "search a.test\ndomain b.test.", ["mail.b.test", "mail"]),
    ("mail", "search .", ["mail"]), ("mail", "", ["mail"]),
    ("mail.", "search a.test", ["mail"]), ("mail.x", "search a.test", ["mail.x"]),
    ("mail.x", "search a.test\noptions timeout:1 ndots:2", ["mail.x.a.test", "mail.x"]),
    ("mail", "search a.test\noptions ndots:0", ["mail"]),
    ("x" * 60, "search " + ".".join(["y" * 60] * 4)[:200] + " b.test", ["x" * 60 + ".b.test", "x" * 60])])
def test_74_suffixes(host, looking, name, conf, names_asked):
    """One after the other, both families each; the name as it is comes last, or, with enough dots, alone."""
    with Rude(lambda query, _: reply(query, flags=0x8183)) as names:
        proxy = looking("--dns-server", names.name_port, "--upstream", name, resolv_conf=conf + "\n")
        proxy.connect().expect(f"421 4.4.3 {name}: name lookup: no such name")
        assert [sorted(asked(names)[at:at + 2]) for at in range(0, len(asked(names)), 2)] == \
            [[(item, A), (item, AAAA)] for item in names_asked if len(item) < 254]


def test_74_suffix_that_is_right(nsd, looking, server):
    """The first that has an address."""
    proxy = looking("--upstream", f"mail:{server.port}", resolv_conf="nameserver 127.0.0.1\nsearch d.a.test a.test b.test\n")
    proxy.connect().expect("220")


# Which first

@pytest.mark.parametrize("routes, addresses, want", [
    ([], [WORLD, "::1", "127.0.0.1"], ["::1", "127.0.0.1", WORLD]),
    ([f"addr add {WORLD}/128 dev lo nodad"], ["127.0.0.1", WORLD], [WORLD, "127.0.0.1"]),
    ([f"addr add {PRIVATE}/128 dev lo nodad"], [PRIVATE, "127.0.0.1"], ["127.0.0.1", PRIVATE]),
    ([f"addr add {PRIVATE}/128 dev lo nodad", f"addr add {WORLD}/128 dev lo nodad"], [PRIVATE, "127.0.0.1", WORLD],
     [WORLD, "127.0.0.1", PRIVATE]),
    (["addr add fd00::1/128 dev lo nodad", "route add local 2001:db8::/64 dev lo src fd00::1"], [WORLD, "127.0.0.1"],
     ["127.0.0.1", WORLD]),
    ([], ["127.0.0.3", "127.0.0.1", "127.0.0.2"], ["127.0.0.3", "127.0.0.1", "127.0.0.2"]),
    ([], [*(f"2001:db8::{n}" for n in range(1, 20)), *(f"127.0.0.{n}" for n in range(1, 20))],
     [*(f"127.0.0.{n}" for n in range(1, 5)), *(f"2001:db8::{n}" for n in range(1, 5))]),
    ([], [*(f"2001:db8::{n}" for n in range(1, 20)), "127.0.0.1"], ["127.0.0.1", *(f"2001:db8::{n}" for n in range(1, 8))])],
    ids=["unreachable-last", "ipv6-first", "private-after-ipv4", "all-three", "source-private", "order-of-the-server",
         "many-of-both", "many-of-one"])
def test_74_order(host, looking, routes, addresses, want):
    """RFC 6724 6."""
    host.ip(*routes or ["link set lo up"])
    with Rude(having(*addresses)) as names:
        proxy = looking("--dns-server", names.name_port, "--upstream", "mail.test:9")
        proxy.connect().expect("421 4.4.1")
    assert tried(proxy, len(want)) == want


# Later

def test_74_late_two_names(nsd, looking, mail_server, tmp_path):
    """Each recipient's server by its own name; the one that cannot be found is that recipient's matter."""
    one, two = mail_server(), mail_server(address="::1")
    routes = tmp_path / "routes"
    routes.write_text(f"one.test;mail.a.test:{one.port};\ntwo.test;six.a.test:{two.port};\n"
                      f"three.test;none.a.test, alias.a.test:{one.port};\nnone.test;none.a.test;\n")
    proxy = looking("--routes", routes, "--hostname", "proxy.example")
    client = proxy.connect()
    client.expect("220")
    client.ask("EHLO c", "250")
    assert transaction(client, "b@one.test", "b@two.test") == [250, 452, 250]
    assert transaction(client, "b@none.test", "b@two.test", "b@one.test") == [451, 250, 452, 250]
    assert transaction(client, "b@none.test") == [451, 554]
    client.ask("RSET", "250")
    assert transaction(client, "b@three.test", "b@none.test") == [250, 452, 250]
    client.ask("QUIT", "221")
    assert (len(one.messages), len(two.messages)) == (2, 1)


def test_58_plain_again_without_a_lookup(host, looking):
    """The same address is dialled again."""
    with Rude(having("127.0.0.1", WORLD)) as names:
        proxy = looking("--dns-server", names.name_port, "--tls", "may")
        proxy.options += ["--upstream", f"mail.test:{proxy.upstream.name_port.rpartition(':')[2]}"]
        session = proxy.session()
        asked_for_tls(session)
        session.server.send("220 go ahead")
        session.server.take(5)
        session.server.close()
        session.server = greet_again(proxy)
        session.client.expect("250")
        assert len(names.queries) == 2


def test_80_source_of_one_family(host, looking, server):
    """Addresses of the other are not for it."""
    with Rude(having("::1", "127.0.0.1")) as names:
        proxy = looking("--dns-server", names.name_port, "--outbound-ip", "127.0.0.7", "--upstream", f"mail.test:{server.port}")
        proxy.connect().expect("220")
    assert server.peers[0].sock.getpeername()[0] == "127.0.0.7"
