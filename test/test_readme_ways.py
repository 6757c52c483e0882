"""README.md, "Five ways to start" and "Day to day": each block of commands is run as it is written, then mail passes
and its record is there.

No line is changed. What the machines of these tests have for them: systemd as PID 1 in a container whose /usr has what `make install`
puts there (ways 1 to 3); a store of podman's own, and limits that podman may set (way 4); a kernel of Debian's where the running one
would be, which need not be Debian's, and no KVM, which not every machine that runs tests has in working order (way 5).
"""
import contextlib
import glob
import json
import os
import pathlib
import re
import shutil
import subprocess

import pytest

import building
import container
import hosts
import netns
import oci
import peers
from waiting import wait_until

pytestmark = pytest.mark.skipif(bool(netns.unsupported()), reason=netns.unsupported())

README = (hosts.ROOT / "README.md").read_text(encoding="utf-8")


def section(title):
    return re.search(rf"^## {title}\n(.*?)^## ", README, re.M | re.S)[1]


def blocks(text):
    return re.findall(r"^```sh\n(.*?)^```$", text, re.M | re.S)


WAYS = dict(zip(re.findall(r"^\*\*\d\. (?:An? )?([\w ]+)\*\*", section("Five ways to start"), re.M), blocks(section("Five ways to start"))))
UNPACKED = hosts.ROOT / "build/pkg"
BOOT_TIMEOUT = 180
KERNELS = glob.glob(f"{UNPACKED}/boot/vmlinuz-*-cloud-amd64")

# $1: a kernel, $2: its modules. They are where the running kernel's own would be, for this process and its children alone.
KERNEL = """
for place in /boot /lib/modules; do
    mkdir -p "$place"
    mount -t tmpfs own "$place"
done
cp "$1" "/boot/vmlinuz-$(uname -r)"
mkdir "/lib/modules/$(uname -r)"
mount --bind "$2" "/lib/modules/$(uname -r)"
[ ! -e /dev/kvm ] || mount --bind /dev/null /dev/kvm
"""

class Installed(container.Container):
    """What `make install` puts anywhere is there."""

    def _install(self):
        place = self.dir / "installed"
        building.make("stage", "install", f"DESTDIR={place}")
        self.usr = place / "usr"

    def _configure(self, settings, dropins):
        shutil.copytree(self.dir / "installed/etc", self.root / "etc", dirs_exist_ok=True)


def accepted(text):
    """The records of two accepted messages, once they are there."""
    def found():
        records = [json.loads(line) for line in re.findall(r'\{.*"event":"message".*\}', text())]
        return len(records) == 2 and records
    records = wait_until(found, text)
    assert [record["result"] for record in records] == ["accepted"] * 2
    return records


def deliver(net, ports=(hosts.PORT,)):
    """To the addresses of the mail server: the firewall does the rest."""
    for port in ports:
        net.host.ns.wait_listening(port)
    for address in net.mail.ip4, net.mail.ip6:
        hosts.deliver(net.host.ns, address)
    assert len(net.messages) == 2


def test_there_are_five_and_each_is_short():
    assert list(WAYS) == ["systemd", "inetd", "On its own", "container", "appliance"]
    assert all(len(block.splitlines()) < 10 for block in WAYS.values())


@pytest.mark.skipif(bool(container.missing()), reason=container.missing())
@pytest.mark.parametrize("way", ["systemd", "inetd", "On its own"])
def test_under_systemd(net, way):
    def log():
        if way == "On its own":
            return machine.run("cat /var/log/smtpwarp/log")
        return machine.run("journalctl --sync; journalctl -t smtpwarp -o cat")
    with Installed(net.host.ns) as machine:
        with open(machine.dir / "said", "wb") as said:
            child = machine.popen(WAYS[way], stdout=said, stderr=said)
            assert child.wait(60) == 0, (machine.dir / "said").read_text()
        deliver(net)
        assert [record["server"]["ip"] for record in accepted(log)] == [net.mail.ip4, net.mail.ip6]


@pytest.mark.skipif(bool(container.missing()) or not shutil.which("jq"), reason=container.missing() or "needs jq")
def test_day_to_day(net):
    """What is looked at, with the mail to Bob that the lines ask for; then the way out, and mail goes where it went before."""
    look, leave = blocks(section("Day to day"))
    with Installed(net.host.ns) as machine:
        machine.run(WAYS["systemd"])
        for recipient in "alice@mail.test", "bob@mail.test":
            client = hosts.greeted(net.host.ns, net.mail.ip4)
            client.ask(f"RCPT TO:<{recipient}>")
            client.ask("DATA", "354")
            client.send("Subject: one", "", "A line.", ".")
            client.expect("250")
            client.ask("QUIT", "221")
            client.close()
        accepted(lambda: machine.run("journalctl --sync; journalctl -t smtpwarp -o cat"))
        became, bob, status = [machine.run(line) for line in look.splitlines()]
        assert [json.loads(line)["event"] for line in became.splitlines()] == ["message"] * 2
        assert {json.loads(line)["session"] for line in bob.splitlines()} == {json.loads(became.splitlines()[1])["session"]}
        assert "the redirect is in, and out after a reboot" in status and "smtpwarp listens" in status
        machine.run(leave)
        assert machine.show("smtpwarp.service", "ActiveState") == "inactive"
        hosts.deliver(net.host.ns, net.mail.ip4)
        assert len(net.messages) == 3
        assert machine.run(look.splitlines()[0]) == became


@pytest.mark.skipif(bool(oci.missing()), reason=oci.missing())
def test_container(net):
    with oci.podman(net.host.ns) as podman:
        with building.alone("images"):
            net.host.ns.run(["sh", "-ec", WAYS["container"]], cwd=hosts.ROOT, env=podman.environment, timeout=300)
        deliver(net)
        accepted(lambda: podman("logs", "smtpwarp"))
        state = podman("volume", "inspect", "--format", "{{.Mountpoint}}", "smtpwarp").strip()
        assert os.listdir(state) == ["state.1"]
        podman("stop", "smtpwarp")


@pytest.mark.skipif(not (KERNELS and shutil.which("qemu-system-x86_64")), reason="needs QEMU and a kernel")
def test_appliance(host, mail_server, tmp_path):
    server = mail_server(port=25)
    modules = f"{UNPACKED}/lib/modules/{pathlib.Path(KERNELS[0]).name.removeprefix('vmlinuz-')}"
    console = tmp_path / "console"

    def text():
        return console.read_text(errors="replace")
    with building.alone("initramfs"), open(console, "wb") as output:
        machine = host.popen(["unshare", "--mount", "sh", "-ec", KERNEL + WAYS["appliance"], "sh", KERNELS[0], modules],
                             cwd=hosts.ROOT, stdin=subprocess.DEVNULL, stdout=output, stderr=output)
        try:
            wait_until(lambda: '"event":"start"' in text() or machine.poll() is not None, text, BOOT_TIMEOUT)
            for _ in range(2):
                hosts.deliver(host, "127.0.0.1", 2525)
            accepted(text)
            assert len(server.messages) == 2
        finally:
            with contextlib.suppress(ProcessLookupError):
                machine.kill()
            machine.wait(peers.TIMEOUT)
