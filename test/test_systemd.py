"""The units of units/ under a real systemd, as PID 1 in a container (container.py), unmodified: DESIGN 3.

Each test boots its own, on a network of its own; the redirect is units/nftables-output.nft.
"""
import contextlib
import json
import re
import subprocess

import pytest

import container
import hooks
import hosts
import netns
import peers
from prometheus import Prometheus
from waiting import wait_until

NEEDS = netns.unsupported() or container.missing()
pytestmark = pytest.mark.skipif(bool(NEEDS), reason=NEEDS)

KINDS = pytest.mark.parametrize("kind", ["smtpwarp", "smtpwarp-listener"])


@contextlib.contextmanager
def booted(net, kind, settings="", dropins=None):
    """A machine with the kind's socket listening and the host's mail redirected."""
    with container.Container(net.host.ns, settings, dropins) as machine:
        machine.load("nftables-output.nft")
        machine.run(f"systemctl start {kind}.socket")
        yield machine


def records(machine, event=None, **fields):
    """smtpwarp's records in the journal, once the last session's `close` is there, with the entries they came in."""
    def entries():
        found = [entry for entry in machine.journal(**fields) if entry["MESSAGE"].startswith("{")]
        return found if found and json.loads(found[-1]["MESSAGE"])["event"] == "close" else None
    pairs = [(json.loads(entry["MESSAGE"]), entry) for entry in wait_until(entries)]
    return [(record, entry) for record, entry in pairs if event in (None, record["event"])]


@KINDS
def test_message(net, kind):
    """IPv4 and IPv6, to where the client meant to go; the log is in the journal under the service that did it."""
    with booted(net, kind) as machine:
        for address in net.mail.ip4, net.mail.ip6:
            hosts.deliver(net.host.ns, address)
        assert len(net.messages) == 2
        messages = records(machine, "message")
        assert [record["result"] for record, _ in messages] == ["accepted"] * 2
        services = {entry["_SYSTEMD_UNIT"] for _, entry in messages}
        pattern = r"smtpwarp\.service" if kind == "smtpwarp-listener" else r"smtpwarp@.+\.service"
        assert all(re.fullmatch(pattern, service) for service in services)
        assert len(services) == (1 if kind == "smtpwarp-listener" else 2)


@KINDS
def test_host_whose_ipv6_is_switched_off(net, kind):
    """[::1] is not there to listen on, and nobody has to change the unit."""
    for name in "all", "default", "lo":
        net.host.ns.sysctl(f"net.ipv6.conf.{name}.disable_ipv6", 1)
    with booted(net, kind) as machine:
        hosts.deliver(net.host.ns, net.mail.ip4)
        assert [record["result"] for record, _ in records(machine, "message")] == ["accepted"]


@KINDS
def test_tarpits_are_counted_together(net, kind):
    """In the sandbox, by services of their own too."""
    settings = "SMTPWARP_TARPIT=60\nSMTPWARP_MAX_TARPITS=1\nSMTPWARP_ALLOW_CLIENTS=192.0.2.1\nSMTPWARP_TLS=none"   # there are no CAs
    with booted(net, kind, settings) as machine:
        held = hosts.connect(net.host.ns, net.mail.ip4)
        wait_until(lambda: net.host.ns.abstract_names("smtpwarp-tarpit-"))
        hosts.connect(net.host.ns, net.mail.ip4).expect("554 5.7.1")
        held.silent(0)
        held.half_close()
        held.expect("554 5.7.1")
        assert not records(machine, "error")


@pytest.mark.parametrize("sink, transport", [("journal", "journal"), ("syslog", "syslog")])
def test_log_sinks(net, sink, transport):
    with booted(net, "smtpwarp-listener", f"SMTPWARP_LOG={sink}\nSMTPWARP_VERBOSE=1") as machine:
        hosts.deliver(net.host.ns, net.mail.ip4)
        found = records(machine, SYSLOG_IDENTIFIER="smtpwarp", _TRANSPORT=transport)
        assert {"connect", "comm", "message", "close"} <= {record["event"] for record, _ in found}
        entry = next(entry for record, entry in found if record["event"] == "message")
        assert entry["PRIORITY"] == "6"
        if sink == "syslog":
            assert entry["SYSLOG_FACILITY"] == "2"      # mail


@pytest.mark.parametrize("sink", ["stderr", "journal", "syslog"])
def test_large_records_arrive_whole(net, sink):
    """1000 recipients as long as can be, 300 KB: more than a datagram (journal, syslog) or a line (journald splits
    those of a service's stderr at 48 KB) may have. Every record is JSON by itself, and no recipient is lost."""
    recipients = [f"{i:a>64}@" + ("d" * 60 + ".") * 3 + "example" for i in range(1000)]
    with booted(net, "smtpwarp-listener", f"SMTPWARP_LOG={sink}") as machine:
        client = hosts.greeted(net.host.ns, net.mail.ip4)
        client.send(*[f"RCPT TO:<{recipient}>" for recipient in recipients])
        for _ in recipients:
            client.expect("250")
        client.ask("DATA", "354")
        client.send("Subject: many", "", ".")
        client.expect("250")
        client.ask("QUIT", "221")
        logged = [entry["address"] for record, _ in records(machine, "message") for entry in record["rcpt_to"]]
        assert logged == recipients


def test_status_of_the_listener(net):
    """systemctl status says how many sessions there are."""
    def sessions(machine):
        return re.findall(r"\d+", machine.show("smtpwarp.service", "StatusText"))[:1]

    with booted(net, "smtpwarp-listener") as machine:
        clients = [hosts.greeted(net.host.ns, net.mail.ip4) for _ in range(2)]
        wait_until(lambda: sessions(machine) == ["2"])
        assert re.search(r'Status: ".*2', machine.run("systemctl status smtpwarp.service"))
        assert machine.show("smtpwarp.service", "ActiveState") == "active"
        for client in clients:
            hosts.finish(client)
        wait_until(lambda: sessions(machine) == ["0"])


def test_stop_lets_sessions_end(net):
    with booted(net, "smtpwarp-listener") as machine:
        client = hosts.greeted(net.host.ns, net.mail.ip4)
        stopping = machine.popen("systemctl stop smtpwarp-listener.socket smtpwarp.service",
                                 stderr=subprocess.DEVNULL)
        wait_until(lambda: machine.show("smtpwarp.service", "SubState") == "stop-sigterm")
        assert stopping.poll() is None
        hosts.finish_at_stop(client)
        assert stopping.wait(peers.TIMEOUT) == 0
        assert machine.show("smtpwarp.service", "Result") == "success"
        assert len(net.messages) == 1


def test_restart_loses_no_connection(net):
    """The sockets stay open in systemd's hands while the listener is exchanged."""
    with booted(net, "smtpwarp-listener") as machine:
        client = hosts.greeted(net.host.ns, net.mail.ip4)
        restarting = machine.popen("systemctl restart smtpwarp.service")
        wait_until(lambda: machine.show("smtpwarp.service", "SubState") == "stop-sigterm")
        waiting = hosts.connect(net.host.ns, net.mail.ip4)
        hosts.finish_at_stop(client)
        hosts.finish(hosts.greet(waiting))
        assert restarting.wait(peers.TIMEOUT) == 0
        assert len(net.messages) == 2


def main_pid(machine):
    return int(machine.show("smtpwarp.service", "MainPID"))


def upgrade(machine):
    before = main_pid(machine)
    machine.run("systemctl kill --kill-whom=main --signal=USR2 smtpwarp.service")
    wait_until(lambda: main_pid(machine) != before)


def test_upgrade_holds_nobody(net):
    """systemd takes the next process for the service's main one; sessions of the old one go on, and nobody waits for them."""
    with booted(net, "smtpwarp-listener") as machine:
        clients = [hosts.greeted(net.host.ns, net.mail.ip4)]
        for _ in range(2):
            upgrade(machine)
            clients.append(hosts.greeted(net.host.ns, net.mail.ip4))
        for client in clients:
            hosts.finish(client)
        assert len(net.messages) == 3
        wait_until(lambda: machine.show("smtpwarp.service", "StatusText").startswith("0 sessions"))
        assert (machine.show("smtpwarp.service", "ActiveState"), machine.show("smtpwarp.service", "NRestarts")) == ("active", "0")
        assert not any("not our child" in entry["MESSAGE"] or "reception only permitted" in entry["MESSAGE"] for entry in machine.journal())
        machine.run("systemctl reload smtpwarp.service")
        hosts.deliver(net.host.ns, net.mail.ip4)
        assert not records(machine, "error")


def test_stop_after_an_upgrade(net):
    """Sessions from before the upgrade end their message, too."""
    with booted(net, "smtpwarp-listener") as machine:
        client = hosts.greeted(net.host.ns, net.mail.ip4)
        upgrade(machine)
        stopping = machine.popen("systemctl stop smtpwarp-listener.socket smtpwarp.service", stderr=subprocess.DEVNULL)
        wait_until(lambda: machine.show("smtpwarp.service", "SubState") == "stop-sigterm")
        hosts.finish_at_stop(client)
        assert stopping.wait(peers.TIMEOUT) == 0
        assert machine.show("smtpwarp.service", "Result") == "success"
        assert len(net.messages) == 1


def test_a_crash_of_the_listener(net):
    """systemd kills what is left of the service, and starts it again. In a container of a host with version 1 of cgroups it does not see
    when they have gone, and waits as long as TimeoutStopSec= has it."""
    with booted(net, "smtpwarp-listener", dropins={"smtpwarp.service": "[Service]\nTimeoutStopSec=3\n"}) as machine:
        hosts.deliver(net.host.ns, net.mail.ip4)
        machine.run("systemctl kill --kill-whom=main --signal=SEGV smtpwarp.service")
        hosts.deliver(net.host.ns, net.mail.ip4)
        assert len(net.messages) == 2


def test_a_bad_option_does_not_cost_the_socket(net):
    """Connections wait, and as soon as the option is mended, mail flows; nothing has to be reset."""
    quick = {"smtpwarp.service": "[Service]\nRestartSec=0.2"}
    with booted(net, "smtpwarp-listener", "SMTPWARP_TLS=sometimes", quick) as machine:
        client = hosts.connect(net.host.ns, net.mail.ip4)
        wait_until(lambda: int(machine.show("smtpwarp.service", "NRestarts")) > 8)      # the default limit is 5 starts in 10 s
        assert machine.show("smtpwarp-listener.socket", "ActiveState") == "active"
        lines = [entry["MESSAGE"] for entry in machine.journal(_SYSTEMD_UNIT="smtpwarp.service")]
        assert any(re.search("SMTPWARP_TLS.*sometimes", line) for line in lines)
        (machine.root / "etc/smtpwarp/smtpwarp.conf").write_text("SMTPWARP_TLS=may\n", encoding="utf-8")
        hosts.finish(hosts.greet(client))
        assert len(net.messages) == 1


def test_restart_of_the_socket(net):
    """While the service runs, which systemd would refuse."""
    with booted(net, "smtpwarp-listener") as machine:
        hosts.deliver(net.host.ns, net.mail.ip4)
        machine.run("systemctl restart smtpwarp-listener.socket")
        hosts.deliver(net.host.ns, net.mail.ip4)
        assert len(net.messages) == 2
        assert machine.show("smtpwarp-listener.socket", "ActiveState") == "active"


def test_start_and_stop_and_fields_in_the_journal(net):
    with booted(net, "smtpwarp-listener", "SMTPWARP_LOG=journal\nSMTPWARP_TLS=none") as machine:
        hosts.deliver(net.host.ns, net.mail.ip4)
        message, entry = records(machine, "message")[0]
        assert (entry["SMTPWARP_EVENT"], entry["SMTPWARP_SESSION"], entry["SMTPWARP_RESULT"], entry["SMTPWARP_CLIENT_IP"]) == (
            "message", message["session"], message["result"], message["client"]["ip"])
        machine.run("systemctl stop smtpwarp-listener.socket")
        start, = machine.journal(SMTPWARP_EVENT="start")
        stop, = machine.journal(SMTPWARP_EVENT="stop")
        assert "SMTPWARP_SESSION" not in start
        start, stop = json.loads(start["MESSAGE"]), json.loads(stop["MESSAGE"])
        assert start["listen"] == ["127.0.0.1:10025", "[::1]:10025"] and start["version"] == stop["version"]
        assert start["options"] == ["--tls none", "--log journal"] and start["uid"] != 0
        assert (stop["sessions"], stop["reason"]) == (1, "SIGTERM or SIGINT")


def test_twenty_sessions_at_once(net):
    with booted(net, "smtpwarp") as machine:
        clients = [hosts.connect(net.host.ns, net.mail.ip4) for _ in range(20)]
        clients = [hosts.greet(client) for client in clients]
        assert len(machine.instances()) == 20
        for client in clients:
            hosts.finish(client)
        assert len(net.messages) == 20
        wait_until(lambda: not machine.instances())


@pytest.mark.parametrize("standard_input", ["null", "socket"])
def test_failures_do_not_pile_up(net, standard_input):
    """Sessions that cannot start, one killed, and one whose client goes away: nothing of them stays with systemd, and
    the client gets nothing that is not SMTP, even when its socket is the service's standard input."""
    dropins = {"smtpwarp@.service": f"[Service]\nStandardInput={standard_input}\n"}
    with booted(net, "smtpwarp", dropins=dropins) as machine:
        killed, gone = [hosts.greeted(net.host.ns, net.mail.ip4) for _ in range(2)]
        machine.run(f"systemctl kill --signal=KILL '{machine.instances()[0].split()[0]}'")
        wait_until(lambda: len(machine.instances()) == 1)
        killed.close()
        gone.reset()
        (machine.root / "etc/smtpwarp/smtpwarp.conf").write_text("SMTPWARP_TLS=sometimes\n", encoding="utf-8")
        for _ in range(3):
            rest = hosts.connect(net.host.ns, net.mail.ip4).rest(timeout=60)
            assert re.fullmatch(rb"421 [ -~]*\r\n", rest), rest
        wait_until(lambda: not machine.instances())
        assert machine.run("systemctl list-units --failed --plain --no-legend") == ""
        said = [entry["MESSAGE"] for entry in machine.journal(SYSLOG_IDENTIFIER="smtpwarp")]
        assert any("sometimes" in line for line in said)


def test_message_with_the_connection_as_standard_input(net):
    with booted(net, "smtpwarp", dropins={"smtpwarp@.service": "[Service]\nStandardInput=socket\n"}) as machine:
        hosts.deliver(net.host.ns, net.mail.ip4)
        assert [record["result"] for record, _ in records(machine, "message")] == ["accepted"]


def test_many_connections_do_not_fail_the_socket(net):
    """systemd's default would give up at 200 in two seconds."""
    with booted(net, "smtpwarp") as machine:
        clients = [hosts.connect(net.host.ns, net.mail.ip4) for _ in range(230)]
        for client in clients:
            client.reset()
        wait_until(lambda: not machine.instances(), timeout=60)
        assert machine.show("smtpwarp.socket", "ActiveState") == "active"
        hosts.deliver(net.host.ns, net.mail.ip4)


@KINDS
def test_sandbox(net, kind):
    """What the units promise holds for the process of a session, and hooks could run in it. All walls of smtpwarp's own stand, too."""
    service = {"smtpwarp-listener": "smtpwarp.service"}.get(kind, f"{kind}@.service")
    with booted(net, kind, dropins={service: "[Service]\nExecStartPre=/usr/sbin/smtpwarp --check --verbose\n"}) as machine:
        client = hosts.greeted(net.host.ns, net.mail.ip4)
        service = "smtpwarp.service" if kind == "smtpwarp-listener" else machine.instances()[0].split()[0]
        pid = machine.show(service, "MainPID")
        uid = machine.run("id -u smtpwarp").strip()
        wait_until(lambda: [entry for entry in machine.journal() if entry["MESSAGE"] ==
                            "smtpwarp: walls around sessions: calls files ports signals processes"], "all walls")
        status = dict(line.split(":\t", 1) for line in machine.run(f"cat /proc/{pid}/status").splitlines())
        assert status["Uid"].split() == [uid] * 4
        assert int(status["CapPrm"], 16) == int(status["CapBnd"], 16) == 0
        assert (status["NoNewPrivs"], status["Seccomp"]) == ("1", "2")
        inside = f"nsenter --mount --target={pid} setpriv --reuid={uid} --clear-groups sh -c"
        assert machine.run(f"{inside} 'echo x >/usr/x || echo x >/etc/x || echo refused' 2>/dev/null") == "refused\n"
        machine.run(f"{inside} 'echo x >/var/lib/smtpwarp/x; echo x >/var/log/smtpwarp/x; echo x >/tmp/x'")
        hosts.finish(client)


METRICS = "http://127.0.0.1:9125"
TEXT, OPEN = "text/plain; version=0.0.4; charset=utf-8", "application/openmetrics-text; version=1.0.0; charset=utf-8"


def fetch(machine, path, *options):
    """Status, Content-Type and body of what the metrics' socket answers."""
    body, _, last = machine.run(f"curl -sS -w '\\n%{{http_code}} %{{content_type}}' {' '.join(options)} {METRICS}{path}").rpartition("\n")
    status, _, kind = last.partition(" ")
    return int(status), kind, body


def counts(machine):
    """The metrics that count, without durations."""
    status, kind, body = fetch(machine, "/metrics")
    assert (status, kind) == (200, TEXT)
    found = dict(line.rsplit(" ", 1) for line in body.splitlines() if not line.startswith("#"))
    return {name: int(value) for name, value in found.items() if "_total{" in name}


def deliver_three(net, machine, closed):
    """Two messages over IPv4, one over IPv6; until so many sessions have been counted."""
    for address in net.mail.ip4, net.mail.ip4, net.mail.ip6:
        hosts.deliver(net.host.ns, address)
    return wait_until(lambda: (found := counts(machine))['smtpwarp_sessions_total{ended="client"}'] == closed and found)


def test_metrics(net):
    """By their socket: what both kinds of service have counted in one file, which neither a restart nor the last session takes away."""
    with booted(net, "smtpwarp-listener") as machine:
        machine.run("systemctl enable --now smtpwarp-metrics.socket")
        assert fetch(machine, "/healthz")[0] == fetch(machine, "/metrics")[0] == 503        # no session yet
        client = hosts.greeted(net.host.ns, net.mail.ip4)
        assert "\nsmtpwarp_sessions{} 1\n" in fetch(machine, "/metrics")[2]
        client.close()
        wait_until(lambda: "\nsmtpwarp_sessions{} 0\n" in fetch(machine, "/metrics")[2])
        before = counts(machine)
        machine.run("systemctl restart smtpwarp.service")
        by_listener = deliver_three(net, machine, before['smtpwarp_sessions_total{ended="client"}'] + 3)
        machine.run("systemctl start smtpwarp.socket")                                      # stops the listener
        assert counts(machine) == by_listener
        by_services = deliver_three(net, machine, by_listener['smtpwarp_sessions_total{ended="client"}'] + 3)
        assert {name: by_services[name] - n for name, n in by_listener.items()} == {
            name: n - before.get(name, 0) for name, n in by_listener.items()}
        messages = [(name, n) for name, n in by_services.items() if "messages_total" in name and "accepted" in name]
        assert messages == [('smtpwarp_messages_total{site="10.0.0.0/24",source="10.0.0.1",result="accepted"}', 4),
                            ('smtpwarp_messages_total{site="fd00::/48",source="fd00::1",result="accepted"}', 2)]
        assert machine.run("stat -c '%U:%G %a' /run/smtpwarp /run/smtpwarp/state.1") == "smtpwarp:smtpwarp 755\nsmtpwarp:smtpwarp 640\n"
        machine.run("setpriv --reuid=65534 --regid=smtpwarp --clear-groups smtpwarp-stat top")


def test_metrics_by_http(net, tmp_path):
    """What the socket answers, to whom, and how many; it leaves nothing in the journal."""
    with booted(net, "smtpwarp-listener") as machine:
        machine.run("systemctl start smtpwarp-metrics.socket")
        hosts.deliver(net.host.ns, net.mail.ip4)
        assert fetch(machine, "/metrics", "-H 'Accept: application/openmetrics-text;version=1.0.0'")[:2] == (200, OPEN)
        status, kind, head = fetch(machine, "/metrics", "--head")
        assert (status, kind) == (200, TEXT) and re.search(r"^Content-Length: \d{4,}\s[\s\S]*\n\n\Z", head, re.M)
        assert [fetch(machine, path)[0] for path in ("/healthz", "/metric", "/../etc/passwd")] == [200, 404, 404]
        assert fetch(machine, "/metrics", "-X DELETE")[0] == 405
        assert not machine.journal(_SYSTEMD_SLICE="system-smtpwarp\\x2dmetrics.slice")
        idle = [hosts.connect(net.host.ns, "127.0.0.1", 9125) for _ in range(8)]
        hosts.connect(net.host.ns, "127.0.0.1", 9125).expect_end()
        for client in idle:
            client.close()
        wait_until(lambda: "metrics@" not in machine.run("systemctl list-units --all --plain --no-legend"))
        with Prometheus(tmp_path, "127.0.0.1:9125", namespace=net.host.ns) as prometheus:
            prometheus.wait_scraped(2)
            assert [sample["value"][1] for sample in prometheus.ask("smtpwarp_messages_total")] == ["1"]
        with pytest.raises(ConnectionRefusedError):
            hosts.connect(net.inside, net.host.ns.ip4, 9125)


def test_log_to_a_file(net):
    """In the one directory that the sandbox leaves for it."""
    with booted(net, "smtpwarp", "SMTPWARP_LOG=file:/var/log/smtpwarp/log") as machine:
        hosts.deliver(net.host.ns, net.mail.ip4)
        wait_until(lambda: '"close"' in machine.run("cat /var/log/smtpwarp/log"))


@KINDS
def test_mark(net, kind):
    """service-transparent.conf gives what --mark needs."""
    service = "smtpwarp.service" if kind == "smtpwarp-listener" else "smtpwarp@.service"
    with booted(net, kind, "SMTPWARP_MARK=77", {service: "service-transparent.conf"}) as machine:
        machine.run("nft add table inet t;"
                    " nft 'add chain inet t output { type filter hook output priority 0; }';"
                    " nft add rule inet t output tcp dport 25 meta mark 77 counter")
        hosts.deliver(net.host.ns, net.mail.ip4)
        assert int(re.search(r"counter packets (\d+)", machine.run("nft list table inet t"))[1]) > 0


def test_gateway(net):
    """Another host's mail, redirected, over IPv4 (on an IPv6 socket) and IPv6; direct connections are refused."""
    with container.Container(net.host.ns, dropins={"smtpwarp-listener.socket": "socket-gateway.conf"}) as machine:
        machine.load("nftables-gateway.nft")
        machine.run("systemctl start smtpwarp-listener.socket")
        for address in net.mail.ip4, net.mail.ip6:
            hosts.deliver(net.inside, address)
        assert len(records(machine, "message")) == 2
        for address in net.host.ns.ip4, net.host.ns.ip6:
            with pytest.raises(ConnectionRefusedError):
                hosts.connect(net.inside, address, hosts.PORT)


def test_tproxy_in_the_clients_name(net):
    """Another host's mail by TPROXY, and on to the server from the client's own address."""
    dropins = {"smtpwarp-listener.socket": "socket-tproxy.conf", "smtpwarp.service": "service-transparent.conf"}
    with container.Container(net.host.ns, "SMTPWARP_OUTBOUND_IP=client", dropins) as machine:
        machine.load("nftables-tproxy.nft")
        machine.load("tproxy-routes", "sh -s add")
        machine.run("systemctl start smtpwarp-listener.socket")
        for address, server, source in zip((net.mail.ip4, net.mail.ip6), net.servers, (net.inside.ip4, net.inside.ip6)):
            client = hosts.greeted(net.inside, address)
            assert hosts.came_from(server, source)
            hosts.finish(client)


def test_one_kind_replaces_the_other(net):
    with booted(net, "smtpwarp-listener") as machine:
        for kind in "smtpwarp", "smtpwarp-listener":
            hosts.deliver(net.host.ns, net.mail.ip4)
            machine.run(f"systemctl start {kind}.socket")
            assert machine.show(f"{kind}.socket", "ActiveState") == "active"
        hosts.deliver(net.host.ns, net.mail.ip4)
        assert machine.show("smtpwarp.socket", "ActiveState") == "inactive"


def test_enable(net):
    """The install sections, and that the sockets are there after a boot."""
    with container.Container(net.host.ns) as machine:
        machine.run("systemctl enable smtpwarp-listener.socket")
        machine.load("nftables-output.nft")
        machine.run("systemctl start sockets.target")
        hosts.deliver(net.host.ns, net.mail.ip4)


LOG_HOOK = """\
mkdir -p /etc/smtpwarp/hooks/log /etc/smtpwarp/hooks/rcpt /etc/smtpwarp/hooks/close
cat >/etc/smtpwarp/hooks/log/50-late <<'END'
#!/bin/sh
cat >/var/log/smtpwarp/part-$$
sleep 1
mv /var/log/smtpwarp/part-$$ /var/log/smtpwarp/whole
END
cat >/etc/smtpwarp/hooks/rcpt/50-only <<'END'
#!/bin/sh
ls -l /proc/self/fd >/var/log/smtpwarp/descriptors
touch /etc/written 2>/dev/null && echo reject 554 5.3.0 the file system can be written
grep -q '"address":"b@' || echo reject 550 5.7.1 not for you
END
cat >/etc/smtpwarp/hooks/close/50-note <<'END'
#!/bin/sh
cat >/var/log/smtpwarp/closed
END
chmod -R 755 /etc/smtpwarp/hooks
"""


@KINDS
def test_hooks(net, kind):
    """In the sandbox; a `log` hook reads its last line and has its moment to finish, though its session is over."""
    with booted(net, kind) as machine:
        machine.run(LOG_HOOK)
        client = hosts.greeted(net.host.ns, net.mail.ip4)
        client.ask("RCPT TO:<other@x.example>", "550 5.7.1 not for you")
        client.ask("RCPT TO:<b@x.example>", "250")
        client.ask("DATA", "354")
        client.send("Subject: hooked", "", ".")
        client.expect("250")
        client.ask("QUIT", "221")
        client.expect_end()
        whole = wait_until(lambda: machine.run("cat /var/log/smtpwarp/whole 2>/dev/null || true"))
        logged = [json.loads(line) for line in whole.splitlines()]
        assert logged[0]["event"] in ("connect", "comm") and logged[-1]["event"] == "close"
        assert json.loads(machine.run("cat /var/log/smtpwarp/closed"))["messages"] == 1
        assert "socket" not in machine.run("cat /var/log/smtpwarp/descriptors")
        assert not [entry for record, entry in records(machine, "verdict") if record["verdict"] == "failed"]


NODE, NODE_UNIT = (next(text for text in hooks.examples() if start in text) for start in ("bin/node", "[Service]"))


def senders(net, machine, hook):
    """What senders hear whom a hook of the event mail accepts and refuses."""
    machine.run("mkdir -p /etc/smtpwarp/hooks/mail\ncat >/etc/smtpwarp/hooks/mail/50-node <<'END'\n" + hook +
                "END\nchmod -R 755 /etc/smtpwarp/hooks\nsmtpwarp --check")
    client = hosts.connect(net.host.ns, net.mail.ip4)
    client.expect("220")
    client.ask("HELO client.example")
    replies = [client.ask(f"MAIL FROM:<a@{domain}>", "") for domain in ("evil.example", "client.example")]
    client.ask("QUIT", "221")
    return replies


@KINDS
def test_hook_in_node(net, kind):
    """smtpwarp-hooks(7)'s, in the sandbox; --jitless is what it needs there, or the drop-in."""
    settings = "BLOCKED_DOMAINS=evil.example"
    judged = ["550 5.7.1 No mail from evil.example", "250"]
    bare = NODE.replace(" --jitless", "", 1)
    service = "smtpwarp.service" if kind == "smtpwarp-listener" else "smtpwarp@.service"
    with booted(net, kind, settings) as machine:
        assert [reply[:len(wanted)] for reply, wanted in zip(senders(net, machine, NODE), judged)] == judged
        assert [reply[:9] for reply in senders(net, machine, bare)] == ["451 4.3.0"] * 2
    with booted(net, kind, settings, {service: NODE_UNIT}) as machine:
        assert [reply[:len(wanted)] for reply, wanted in zip(senders(net, machine, bare), judged)] == judged


def test_stop_leaves_hooks_their_moment(net):
    """systemctl stop of one session's service: SIGTERM goes to smtpwarp alone, and its `log` hook ends by itself."""
    with booted(net, "smtpwarp", "SMTPWARP_DRAIN_TIMEOUT=0.2") as machine:
        machine.run(LOG_HOOK)
        client = hosts.greeted(net.host.ns, net.mail.ip4)
        machine.run("systemctl stop 'smtpwarp@*.service'")
        client.expect("421")
        whole = wait_until(lambda: machine.run("cat /var/log/smtpwarp/whole 2>/dev/null || true"))
        assert json.loads(whole.splitlines()[-1])["reason"] == "shutting down"


ENVIRONMENT = [r"""a b  """, r"""'a "b' """, r'''"a 'b\"\$\`\\\n" ''', r"""^\(a|b\\)$""", r"""a"b"'c'""", r"""'a' 'b'c d""",
               "a\\\n  b", r"""a # b; c""", "'a\nb'", '"a\\\nb"', r"""  \ a\ """, "a\r", r"""$HOME %h""", r"""a=b"""]

SHOW = """[Service]
Type=oneshot
EnvironmentFile=/etc/smtpwarp/smtpwarp.conf
ExecStart=/bin/sh -c "printf %%s \\"$$SMTPWARP_TLS\\" >/run/shown"
"""


def test_env_file_is_what_systemd_reads(net):
    """--check --env-file, value by value: each is one that the option does not take, and so shows in the message."""
    with container.Container(net.host.ns) as machine:
        machine.run(f"echo '{SHOW}' >/run/systemd/system/show.service; systemctl daemon-reload")
        for value in ENVIRONMENT:
            (machine.root / "etc/smtpwarp/smtpwarp.conf").write_text(f"SMTPWARP_TLS={value}\n", encoding="utf-8")
            real = machine.run("systemctl start show.service; cat /run/shown")
            ours = machine.run("/usr/sbin/smtpwarp --check --env-file /etc/smtpwarp/smtpwarp.conf 2>&1 || :")
            assert ours == f"smtpwarp: SMTPWARP_TLS={real}: it takes none, may, verify-if-offered, dane, encrypt, dane-only or verify\n", value
