"""The Debian packages, built from debian/ and installed in a fresh Debian under its own systemd (lib/debian.py); smtpwarp-setup."""
import re
import subprocess

import pytest

import debian
import hosts
import netns
import peers
from waiting import wait_until

NEEDS = netns.unsupported() or debian.missing()
pytestmark = pytest.mark.skipif(bool(NEEDS), reason=NEEDS)

VERSION = (hosts.ROOT / "VERSION").read_text(encoding="utf-8").strip()
UNITS = "smtpwarp-listener.socket", "smtpwarp.socket", "smtpwarp.service", "smtpwarp-metrics.socket"
REDIRECT = "table inet smtpwarp_output"


@pytest.fixture(name="bare")
def fixture_bare(net):
    with debian.Machine(net.host.ns) as machine:
        yield machine


@pytest.fixture(name="machine")
def fixture_machine(bare):
    bare.install(*debian.packages())
    return bare


def redirected(machine):
    return REDIRECT in machine.run("nft list ruleset")


def messages(machine):
    """How many smtpwarp has logged, once its sessions are over."""
    text = machine.run("journalctl --sync; journalctl -o cat SYSLOG_IDENTIFIER=smtpwarp")
    return text.count('"event":"message"')


def switch(machine, command, status=0):
    """smtpwarp-setup; what it says."""
    child = machine.popen(f"smtpwarp-setup {command}", stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    said, _ = child.communicate(timeout=60)
    assert child.returncode == status, said
    return said


def states(machine):
    """Of the units that the packages bring: whether they are active, and whether they are enabled."""
    return [(machine.show(unit, "ActiveState"), machine.show(unit, "UnitFileState")) for unit in UNITS]


# The packages

def test_version_is_that_of_the_program():
    assert (hosts.ROOT / "debian/changelog").read_text(encoding="utf-8").startswith(f"smtpwarp ({VERSION}) ")


def test_lintian():
    """No error, no warning, and no override that nothing needs."""
    said = debian.run("lintian", "--allow-root", "--no-tag-display-limit", "--display-info", *debian.built().glob("*.changes"))
    assert [line for line in said.splitlines() if re.match("[EW]:|I: .*-override", line)] == []


def test_install_remove_and_purge(net, bare):
    """An install starts and redirects nothing; removed, it leaves its configuration, and purged, nothing; then again."""
    before = bare.files()
    for _ in range(2):
        bare.install(*debian.packages())
        assert set(states(bare)) == {("inactive", "disabled")} and not redirected(bare)
        hosts.deliver(net.host.ns, net.mail.ip4)
        assert messages(bare) == 0
        assert bare.run("stat -c '%U %a' /run/smtpwarp /var/lib/smtpwarp /var/log/smtpwarp").split("\n")[:3] == ["smtpwarp 755"] * 3
        assert "not found" not in bare.run("ldd /usr/lib/smtpwarp/hooks/journal /usr/lib/smtpwarp/hooks/milter")
        bare.run("smtpwarp --check --user smtpwarp --plugins sqlite,journal --env-file /etc/smtpwarp/smtpwarp.conf")
        bare.run("logrotate --debug /etc/logrotate.d/smtpwarp; touch /var/log/smtpwarp/log /var/lib/smtpwarp/capture")
        bare.run("dpkg --remove smtpwarp-hooks smtpwarp")
        left = {path for path in bare.files() - before if "dpkg" not in path}
        assert {path for path in left if path.startswith("/etc")} == {
            "/etc/logrotate.d/smtpwarp", "/etc/smtpwarp", "/etc/smtpwarp/smtpwarp.conf"}
        assert not {path for path in left if path.startswith(("/usr", "/lib"))}
        bare.run("dpkg --purge smtpwarp-hooks smtpwarp")
        assert {path for path in bare.files() - before} <= {"/var/log/dpkg.log"}
        assert before - bare.files() == set() and bare.run("ls /run").split().count("smtpwarp") == 0


def test_upgrade_under_sessions(net, machine, tmp_path):
    """The listener is exchanged; 50 sessions finish their message, and who connects meanwhile waits and is served."""
    newest = debian.of_version(debian.packages()[1], f"{VERSION}+2", tmp_path)
    newer = [debian.of_version(package, f"{VERSION}+1", tmp_path) for package in debian.packages()]
    machine.run("echo SMTPWARP_LOG=journal >>/etc/smtpwarp/smtpwarp.conf")
    switch(machine, "on")
    clients = [hosts.greeted(net.host.ns, (net.mail.ip4, net.mail.ip6)[i % 2]) for i in range(50)]
    old = machine.show("smtpwarp.service", "MainPID")
    upgrading = machine.popen(f"dpkg --install {' '.join(machine.share(*newer))}", stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    wait_until(lambda: machine.show("smtpwarp.service", "SubState") == "stop-sigterm")
    waiting = hosts.connect(net.host.ns, net.mail.ip4)
    for client in clients:
        hosts.finish_at_stop(client)
    hosts.finish(hosts.greet(waiting))
    said, _ = upgrading.communicate(timeout=peers.TIMEOUT)
    assert upgrading.returncode == 0, said
    assert f"{VERSION}+1" in machine.run("dpkg-query -W smtpwarp")
    assert machine.show("smtpwarp.service", "MainPID") not in (old, "0")
    assert len(net.messages) == 51 and redirected(machine)
    assert "SMTPWARP_LOG=journal" in machine.run("cat /etc/smtpwarp/smtpwarp.conf")
    switch(machine, "off")
    machine.install(newest)
    assert {active for active, _ in states(machine)} == {"inactive"} and not redirected(machine)


def test_removal_takes_the_redirect_out(net, machine):
    """Else nobody would take this host's mail."""
    switch(machine, "on --persistent")
    hosts.deliver(net.host.ns, net.mail.ip4)
    machine.run("dpkg --remove smtpwarp")
    assert not redirected(machine) and machine.show("smtpwarp.service", "ActiveState") == "inactive"
    hosts.deliver(net.host.ns, net.mail.ip4)
    machine.reboot()
    assert not redirected(machine)
    assert len(net.messages) == 2 and messages(machine) == 1


def test_autopkgtest(machine):
    """debian/tests, by the null runner, in the machine where the packages are installed."""
    tree = machine.dir / "shared/smtpwarp"
    debian.copy_source(tree)
    (tree / "debian/files").touch()     # by which autopkgtest knows that nothing is left to build
    said = machine.run("autopkgtest --no-built-binaries /shared/smtpwarp -- null")
    assert re.search(r"^redirect +PASS$", said, re.M), said


# smtpwarp-setup

@pytest.mark.parametrize("kind", ["smtpwarp-listener", "smtpwarp"])
def test_on_and_off(net, machine, kind):
    """Twice each way: mail goes through smtpwarp, and no longer."""
    through = 0
    for _ in range(2):
        if kind == "smtpwarp":
            machine.run("systemctl start smtpwarp.socket")
        switch(machine, "on")
        assert redirected(machine)
        assert switch(machine, "status").count(f"({kind}.socket)") == 1
        for address in net.mail.ip4, net.mail.ip6:
            hosts.deliver(net.host.ns, address)
        through += 2
        assert "nothing was changed" in switch(machine, "on", 1)
        assert redirected(machine)
        wait_until(lambda: messages(machine) == through)    # pylint: disable=cell-var-from-loop
        for _ in range(2):
            switch(machine, "off")
            assert not redirected(machine)
            assert switch(machine, "status", 1)
        assert {active for active, _ in states(machine)} == {"inactive"}
        hosts.deliver(net.host.ns, net.mail.ip4)
        assert messages(machine) == through


def test_on_without_ipv6(net, machine):
    for name in "all", "default", "lo":
        net.host.ns.sysctl(f"net.ipv6.conf.{name}.disable_ipv6", 1)
    said = switch(machine, "on")
    assert "tested: a connection to 192.0.2.1" in said and "2001:db8" not in said
    hosts.deliver(net.host.ns, net.mail.ip4)
    wait_until(lambda: messages(machine) == 1)


def test_the_user_is_made_if_there_is_none(net, machine):
    """As after `make install`; it stays, whatever fails."""
    machine.run("userdel smtpwarp")
    assert "the user smtpwarp is made" in switch(machine, "on")
    hosts.deliver(net.host.ns, net.mail.ip4)
    wait_until(lambda: messages(machine) == 1)


def test_persistent_later(net, machine):
    """A redirect that is in can be kept; one without smtpwarp cannot, nor can one whose firewall has a fault."""
    switch(machine, "on")
    machine.run("systemctl stop smtpwarp-listener.socket")
    assert "does not listen" in switch(machine, "on --persistent", 1)
    machine.run("systemctl start smtpwarp-listener.socket; cp /etc/nftables.conf /root; echo nonsense >>/etc/nftables.conf")
    assert "until then it stays in" in switch(machine, "on --persistent", 1)
    machine.run("mv /root/nftables.conf /etc")
    switch(machine, "on --persistent")
    assert "nothing was changed" in switch(machine, "on --persistent", 1)
    machine.reboot()
    switch(machine, "status")
    hosts.deliver(net.host.ns, net.mail.ip4)
    wait_until(lambda: messages(machine) == 1)


def test_over_a_reboot(net, machine):
    """Only if asked for; what it has changed for that, it changes back."""
    firewall = machine.run("cat /etc/nftables.conf")
    switch(machine, "on")
    machine.reboot()
    assert not redirected(machine)
    switch(machine, "status", 1)
    switch(machine, "on --persistent")
    machine.reboot()
    switch(machine, "status")
    hosts.deliver(net.host.ns, net.mail.ip4)
    wait_until(lambda: messages(machine) == 1)
    switch(machine, "off")
    assert machine.run("cat /etc/nftables.conf") == firewall
    assert machine.show("nftables.service", "UnitFileState") == "disabled"
    assert {enabled for _, enabled in states(machine)} == {"disabled"}


def test_the_rest_of_the_firewall_does_not_depend_on_us(machine):
    """A host that boots without its firewall, because our rules are missing, would be worse than one without a redirect."""
    switch(machine, "on --persistent")
    machine.run("rm /usr/share/smtpwarp/nftables-output.nft; systemctl restart nftables.service")
    assert "table inet filter" in machine.run("nft list ruleset")


FAILURES = {
    "a bad option": ("echo SMTPWARP_TLS=sometimes >/etc/smtpwarp/smtpwarp.conf", "on", "nothing was changed"),
    "a service that does not start": ("mkdir /etc/systemd/system/smtpwarp.service.d;"
                                      " printf '[Service]\\nExecStart=\\nExecStart=/bin/false\\n'"
                                      " >/etc/systemd/system/smtpwarp.service.d/x.conf; systemctl daemon-reload", "on", "does not start"),
    "a port that is taken": ("systemd-socket-activate -l 127.0.0.1:10025 cat >/dev/null 2>&1 &"
                             " while ! grep -q 0100007F:2729 /proc/net/tcp; do :; done", "on", "does not start"),
    "rules with a fault": ("echo nonsense >>/usr/share/smtpwarp/nftables-output.nft", "on", "nft does not take"),
    "a redirect that does not work": ("sed -i 's/redirect to :10025/accept/; s/reject with tcp reset/accept/'"
                                      " /usr/share/smtpwarp/nftables-output.nft",
                                      "on --test 10.0.0.2", "does not arrive"),
    "no route": ("ip route delete default; ip -6 route delete default", "on", "there is no route"),
    "a firewall with a fault": ("echo nonsense >>/etc/nftables.conf", "on --persistent", "cannot be kept"),
    "no nft": ("mv /usr/sbin/nft /usr/sbin/nft.away", "on", "package nftables"),
    "iptables instead": ("nft 'add table ip nat; add chain ip nat SMTPWARP'", "on", "chain SMTPWARP"),
}


@pytest.mark.parametrize("failure", FAILURES)
def test_a_step_that_fails_takes_all_back(net, machine, failure):
    """Mail goes where it went, nothing of smtpwarp runs, and it says why."""
    prepare, command, reason = FAILURES[failure]
    machine.run(prepare)
    before = machine.run("cat /etc/nftables.conf")
    said = switch(machine, command, 69 if failure == "no nft" else 1)
    assert reason in said
    machine.run("[ -e /usr/sbin/nft ] || mv /usr/sbin/nft.away /usr/sbin/nft")
    assert not redirected(machine) and machine.run("cat /etc/nftables.conf") == before
    assert set(states(machine)) <= {("inactive", "disabled"), ("failed", "disabled")}
    hosts.deliver(net.host.ns, net.mail.ip4)
    assert messages(machine) == 0


def test_off_leaves_smtpwarp_to_other_rules(net, machine):
    switch(machine, "on")
    machine.run("nft -f /usr/share/smtpwarp/nftables-gateway.nft")
    assert "goes on" in switch(machine, "off", 1)
    assert not redirected(machine) and machine.show("smtpwarp-listener.socket", "ActiveState") == "active"


def test_status_of_mail_that_nobody_takes(machine):
    switch(machine, "on")
    machine.run("systemctl stop smtpwarp-listener.socket")
    assert "nobody takes" in switch(machine, "status", 2)


@pytest.mark.parametrize("command", ["", "up", "on --persistently", "off --persistent", "on --test"])
def test_usage(command):
    done = subprocess.run([hosts.UNITS / "smtpwarp-setup", *command.split()], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (64, "") and done.stderr.startswith("usage: ")
