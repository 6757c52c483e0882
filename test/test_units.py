"""The files of units/: they say what systemd, the firewalls and the shell understand, and the rules do what they say.

That the units and the configuration of super-servers work is shown by test_systemd.py and test_start.py.
"""
import re
import shutil
import socket
import subprocess

import pytest

import hosts
import netns
from hooks import Hooks, shipped
from waiting import wait_until

needs_root = pytest.mark.skipif(bool(netns.unsupported()), reason=netns.unsupported())

SERVICES = "smtpwarp.service", "smtpwarp@.service"
SCRIPTS = "tcpserver.run", "s6.run", "tproxy-routes", "smtpwarp-setup"
NFT = "nftables-output.nft", "nftables-gateway.nft", "nftables-tproxy.nft"
IPTABLES = "iptables-output.rules", "iptables-gateway.rules", "iptables-tproxy.rules", "ip6tables-tproxy.rules"
MARK, TPROXY_TABLE = "25", "10025"
IPV6_TRANSPARENT = 75


def output(*argv, **options):
    child = subprocess.run(argv, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False, **options)
    assert child.returncode == 0, child.stdout
    return child.stdout


@pytest.fixture(name="units")
def fixture_units(tmp_path):
    """The units with a program and a manual page that exist."""
    for path in [*hosts.UNITS.glob("*.service"), *hosts.UNITS.glob("*.socket")]:
        text = re.sub("/usr/s?bin/smtpwarp(-stat)?", "/bin/true", path.read_text(encoding="utf-8"))
        (tmp_path / path.name).write_text(re.sub(r"man:smtpwarp(-stat)?\(8\)", "https://smtpwarp.example/", text))
    return tmp_path


def test_systemd_understands_every_line(units):
    """`verify` mentions unknown settings without failing for them, and things of this machine: only ours count."""
    said = output("systemd-analyze", "verify", *map(str, sorted(units.iterdir())))
    assert [line for line in said.splitlines() if "smtpwarp" in line] == []


def test_systemd_understands_every_dropin(units):
    for dropin, unit in (("service-transparent.conf", "smtpwarp.service"), ("socket-gateway.conf", "smtpwarp.socket"),
                         ("socket-tproxy.conf", "smtpwarp-listener.socket")):
        (units / f"{unit}.d").mkdir()
        shutil.copy(hosts.UNITS / dropin, units / f"{unit}.d")
    said = output("systemd-analyze", "verify", *map(str, sorted(units.glob("smtpwarp*[et]"))))
    assert [line for line in said.splitlines() if "smtpwarp" in line] == []


@pytest.mark.parametrize("name", [*SERVICES, "smtpwarp-metrics@.service"])
def test_security(units, name):
    said = output("systemd-analyze", "security", "--offline=true", "--threshold=19", "--no-pager", units / name)
    assert float(re.search(r"Overall exposure level for .*: ([\d.]+)", said)[1]) < 2.0


def test_units_share_their_sandbox():
    """The two services differ in how they start and stop, and in nothing else."""
    texts = [(hosts.UNITS / name).read_text(encoding="utf-8") for name in SERVICES]
    sandboxes = {text.partition("# --- Sandbox")[2].partition("\n[Install]")[0].strip() for text in texts}
    assert len(sandboxes) == 1 and "" not in sandboxes


def test_sysusers(tmp_path):
    said = output("systemd-sysusers", f"--root={tmp_path}", "--dry-run", hosts.UNITS / "smtpwarp.sysusers")
    assert re.search(r"Creating user 'smtpwarp'", said)


def test_tmpfiles_are_the_directories_of_the_units(tmp_path):
    """Each with the mode that systemd gives it, or the two would change it in turns."""
    text = (hosts.UNITS / "smtpwarp.tmpfiles").read_text(encoding="utf-8")
    made = re.findall(r"^d /(\S+)/smtpwarp 0755 smtpwarp smtpwarp$", text, re.M)
    service = (hosts.UNITS / "smtpwarp.service").read_text(encoding="utf-8")
    kinds = {"State": "var/lib", "Logs": "var/log", "Runtime": "run"}
    assert sorted(made) == sorted(kinds[kind] for kind in re.findall(r"^(State|Logs|Runtime)Directory=smtpwarp$", service, re.M))
    (tmp_path / "etc").mkdir()
    (tmp_path / "etc/passwd").write_text("smtpwarp:x:993:993::/:/bin/false\n")
    (tmp_path / "etc/group").write_text("smtpwarp:x:993:\n")
    output("systemd-tmpfiles", f"--root={tmp_path}", "--create", hosts.UNITS / "smtpwarp.tmpfiles")
    assert all((tmp_path / path / "smtpwarp").is_dir() for path in made)


@needs_root
def test_logrotate(net, tmp_path):
    """A listener's records go to the new file after the signal; the old one is whole."""
    directory = tmp_path / "log"
    directory.mkdir()
    shutil.chown(directory, net.host.uid, net.host.uid)
    for path in (tmp_path, *list(tmp_path.parents)[:-2]):
        path.chmod(path.stat().st_mode | 0o011)
    listener = net.host.popen([net.host.smtpwarp, "--listen", "127.0.0.1:10025", "--user", "smtpwarp", "--tls", "none",
                               "--log", f"file:{directory}/log"])
    net.host.ns.wait_listening(10025)
    net.host.rules("nftables-output.nft")
    systemctl = tmp_path / "systemctl"      # there is no systemd here: what `reload` does
    systemctl.write_text(f"#!/bin/sh\n[ \"$1\" != reload ] || kill -HUP {listener.pid}\n")
    systemctl.chmod(0o755)
    text = (hosts.UNITS / "smtpwarp.logrotate").read_text(encoding="utf-8")
    (tmp_path / "conf").write_text(text.replace("/var/log/smtpwarp/", f"{directory}/").replace("systemctl", str(systemctl)),
                                   encoding="utf-8")
    hosts.deliver(net.host.ns, net.mail.ip4)
    wait_until(lambda: '"close"' in (directory / "log").read_text())
    before = (directory / "log").read_text()
    net.host.run(["logrotate", "--state", tmp_path / "state", "--force", tmp_path / "conf"])

    def delivered():
        hosts.deliver(net.host.ns, net.mail.ip4)
        return (directory / "log").read_text()
    wait_until(delivered)       # the signal may take a moment
    assert (directory / "log.1").read_text().startswith(before)
    assert (directory / "log").stat().st_uid == net.host.uid


def test_example_settings(tmp_path, certs):
    """An untouched smtpwarp.conf sets nothing; each of its lines is a setting that smtpwarp knows and takes."""
    text = (hosts.UNITS / "smtpwarp.conf").read_text(encoding="utf-8")
    assert all(line.startswith("#") for line in text.splitlines() if line)
    known = output(hosts.SMTPWARP, "--help")
    names = re.findall(r"^#SMTPWARP_(\w+)=", text, re.M)
    assert len(names) > 5
    assert [name for name in names if f"--{name.lower().replace('_', '-')} " not in known] == []
    file = tmp_path / "smtpwarp.conf"
    policies = tmp_path / "tls_policy"
    policies.write_text("example.org may\n")
    file.write_text(text.replace("\n#SMTPWARP_", "\nSMTPWARP_").replace("/etc/smtpwarp/tls_policy", str(policies)), encoding="utf-8")
    plugins = Hooks(tmp_path / "plugins")       # where an installation has them
    for name in re.search(r"^#SMTPWARP_PLUGINS=(.*)$", text, re.M)[1].split(","):
        plugins.place({"rspamd": "data"}.get(name, "log"), name).symlink_to(shipped(name))
    cert, key = certs.pair("good")
    output(hosts.SMTPWARP, "--check", "--env-file", file, "--plugins-dir", plugins.directory,
           "--routes", hosts.UNITS / "routes.example", "--cert", cert, "--key", key)


@pytest.mark.parametrize("name", SCRIPTS)
def test_shellcheck(name):
    output("shellcheck", hosts.UNITS / name)
    assert (hosts.UNITS / name).stat().st_mode & 0o111 == 0o111


def test_every_file_names_the_same_program_and_port():
    """So that one sed in `make install` moves them all, and the parts fit together."""
    for path in hosts.UNITS.iterdir():
        text = path.read_text(encoding="utf-8")
        assert set(re.findall(r"/[\w/.]*/smtpwarp(?=[ \n])", text)) <= {
            "/usr/sbin/smtpwarp", "/run/smtpwarp", "/var/lib/smtpwarp", "/var/log/smtpwarp", "/etc/xinetd.d/smtpwarp"}, path
        assert set(re.findall(r"\b\d{5}\b(?!,)", text)) <= {"10025", "60000"}, path


@needs_root
@pytest.mark.parametrize("name", NFT)
def test_nft_loads_and_reloads(net, name):
    path = hosts.UNITS / name
    net.host.run(["nft", "--check", "-f", path])
    rules = []
    for _ in range(2):
        net.host.run(["nft", "-f", path])
        rules.append(net.host.run(["nft", "list", "ruleset"]).stdout)
    assert rules[0] == rules[1] != ""


@needs_root
@pytest.mark.parametrize("name", IPTABLES)
def test_iptables_loads(net, name):
    for family in hosts.families(name):
        text = (hosts.UNITS / name).read_text(encoding="utf-8")
        net.host.run([f"{family}-restore", "--test"], input=text)
        net.host.run([f"{family}-restore", "--noflush"], input=text)
        assert "10025" in net.host.run([f"{family}-save"]).stdout


def start(net, *more, listen=("127.0.0.1:10025", "[::1]:10025")):
    addresses = [word for address in listen for word in ("--listen", address)]
    child = net.host.popen([net.host.smtpwarp, *addresses, "--user", hosts.USER, *more])
    net.host.ns.wait_listening(hosts.PORT, alive=lambda: child.poll() is None)


@needs_root
@pytest.mark.parametrize("rules", ["nftables-output.nft", "iptables-output.rules"])
def test_output_rules(net, rules):
    """The host's own mail goes through smtpwarp; smtpwarp's connections are left alone, and mail to the host itself."""
    net.host.rules(rules)
    start(net)
    with net.host.ns, socket.create_server(("127.0.0.1", 25)) as local:
        for address, server in zip((net.mail.ip4, net.mail.ip6), net.servers):
            hosts.deliver(net.host.ns, address)
            assert len(server.messages) == len(server.peers) == 1
        connection = hosts.connect(net.host.ns, "127.0.0.1")
        assert local.accept()[1] == connection.sock.getsockname()


@needs_root
@pytest.mark.parametrize("rules", ["nftables-gateway.nft", "iptables-gateway.rules"])
def test_gateway_rules(net, rules):
    """The inner hosts' mail goes through smtpwarp, mail to the gateway does not; nobody reaches smtpwarp directly."""
    net.host.rules(rules)
    start(net, listen=["*:10025"])
    for address, server, source in zip((net.mail.ip4, net.mail.ip6), net.servers, (net.host.ns.ip4, net.host.ns.ip6)):
        client = hosts.greeted(net.inside, address)
        assert hosts.came_from(server, source)
        hosts.finish(client)
    for address, family in (net.host.ns.ip4, socket.AF_INET), (net.host.ns.ip6, socket.AF_INET6):
        with pytest.raises(ConnectionRefusedError):
            hosts.connect(net.inside, address, hosts.PORT)
        with net.host.ns, socket.create_server((address, 25), family=family) as local:
            connection = hosts.connect(net.inside, address)
            assert local.accept()[1][:2] == connection.sock.getsockname()[:2]


def transparent(address):
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    sock = socket.socket(family)
    if family == socket.AF_INET6:
        sock.setsockopt(socket.IPPROTO_IPV6, IPV6_TRANSPARENT, 1)
    else:
        sock.setsockopt(socket.IPPROTO_IP, socket.IP_TRANSPARENT, 1)
    sock.bind((address, hosts.PORT))
    sock.listen()
    return sock


@needs_root
@pytest.mark.parametrize("rules", [["nftables-tproxy.nft"], ["iptables-tproxy.rules", "ip6tables-tproxy.rules"]],
                         ids=["nft", "iptables"])
@pytest.mark.parametrize("own", [True, False], ids=["gateway-address", "client-address"])
def test_tproxy_rules(net, rules, own):
    """The inner hosts' mail goes through smtpwarp, and on from the gateway's address or the client's own."""
    for name in rules:
        net.host.rules(name)
    net.host.run([hosts.UNITS / "tproxy-routes", "add"])
    with net.host.ns:
        sockets = [transparent(address) for address in ("127.0.0.1", "::1")]
    net.host.listen_fds(sockets, [net.host.smtpwarp, *([] if own else ["--outbound-ip", "client"])])
    for sock in sockets:
        sock.close()
    sources = (net.host.ns.ip4, net.host.ns.ip6) if own else (net.inside.ip4, net.inside.ip6)
    for address, server, source in zip((net.mail.ip4, net.mail.ip6), net.servers, sources):
        client = hosts.greeted(net.inside, address)
        assert hosts.came_from(server, source)
        hosts.finish(client)


@needs_root
@pytest.mark.parametrize("rules", ["nftables-gateway.nft", "iptables-gateway.rules"])
def test_redirect_in_the_clients_name(net, rules):
    """--outbound-ip client behind a redirect: the server's answers need the divert rule and routes of TPROXY."""
    net.host.rules(rules)
    net.host.rules("nftables-tproxy.nft", interface="none")     # only what holds for sessions that exist
    net.host.run([hosts.UNITS / "tproxy-routes", "add"])
    with net.host.ns:
        sock = socket.create_server(("::", hosts.PORT), family=socket.AF_INET6, dualstack_ipv6=True)
    net.host.listen_fds([sock], [net.host.smtpwarp, "--outbound-ip", "client"])
    sock.close()
    for address, server, source in zip((net.mail.ip4, net.mail.ip6), net.servers, (net.inside.ip4, net.inside.ip6)):
        client = hosts.greeted(net.inside, address)
        assert hosts.came_from(server, source)
        hosts.finish(client)


@needs_root
def test_tproxy_routes(net):
    script = hosts.UNITS / "tproxy-routes"
    before = net.host.run(["ip", "rule"]).stdout
    net.host.run([script, "add"])
    for family in "-4", "-6":
        assert f"fwmark {int(MARK):#x} lookup {TPROXY_TABLE}" in net.host.run(["ip", family, "rule"]).stdout
        assert "local default dev lo" in net.host.run(["ip", family, "route", "show", "table", TPROXY_TABLE]).stdout
    net.host.run([script, "del"])
    assert net.host.run(["ip", "rule"]).stdout == before
    assert net.host.run([script, "replace"], check=False).returncode == 64
