"""`make initramfs`: a kernel of Debian's in QEMU, emulated, takes mail; and init alone, as process 1 of namespaces."""
import contextlib
import glob
import hashlib
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import threading
import time

import pytest

import netns
import peers
from hosts import ROOT
from waiting import wait_until
from warp import send_message

UNPACKED = ROOT / "build/pkg"
KERNELS = glob.glob(f"{UNPACKED}/boot/vmlinuz-*-cloud-amd64")
BOOT_TIMEOUT = 180
ADDRESS = "ip=10.0.2.15::10.0.2.2:255.255.255.0:appliance:eth0:off:10.0.2.3"
POWER_OFF, BOOT = -signal.SIGINT, -signal.SIGHUP    # what reboot(2) ends a PID namespace by

pytestmark = pytest.mark.skipif(bool(netns.unsupported()), reason=netns.unsupported())
needs_qemu = pytest.mark.skipif(not (KERNELS and shutil.which("qemu-system-x86_64")), reason="needs QEMU and a kernel")


def make(directory, *variables):
    subprocess.run(["make", "-s", f"I={directory}", "initramfs", *variables], cwd=ROOT, check=True, stdout=subprocess.DEVNULL)
    return directory


@pytest.fixture(name="images", scope="module")
def fixture_images(tmp_path_factory):
    return make(tmp_path_factory.mktemp("images"), f"KERNEL={UNPACKED}/lib/modules", "MODULES=virtio_pci virtio_net unix_diag")


@pytest.fixture(name="inits", scope="module")
def fixture_inits(tmp_path_factory):
    """child and init, without modules."""
    return make(tmp_path_factory.mktemp("inits"))


# The whole machine

class Machine:
    """A kernel with an initramfs; its console line by line, each with the time when it came."""

    def __init__(self, image, *words):
        with socket.create_server(("127.0.0.1", 0)) as free:
            self.port = free.getsockname()[1]
        self.process = subprocess.Popen(
            ["qemu-system-x86_64", "-accel", "tcg", "-cpu", "max", "-m", "128", "-nodefaults", "-display", "none", "-serial", "stdio",
             "-no-reboot", "-nic", f"user,model=virtio-net-pci,hostfwd=tcp:127.0.0.1:{self.port}-:25", "-kernel", KERNELS[0],
             "-initrd", image, "-append", " ".join(["console=ttyS0 panic=-1", *words])],
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE)
        self.lines = []
        self.reader = threading.Thread(target=self.read)
        self.reader.start()

    def read(self):
        for line in self.process.stdout:
            self.lines.append((time.monotonic(), line.decode(errors="replace").rstrip()))

    def wait_line(self, pattern):
        """The first line with it, after its time."""
        def found():
            return next(((when, line) for when, line in list(self.lines) if re.search(pattern, line)), None)

        def told():
            return f"a line with {pattern}; the console: " + "\n".join(line for _, line in self.lines[-20:])
        return wait_until(lambda: found() or self.process.poll() is not None, told, BOOT_TIMEOUT) and found()

    def wait_record(self, event):
        return json.loads(re.search(r"\{.*", self.wait_line(f'"event":"{event}"')[1])[0])

    def close(self):
        self.process.kill()
        self.process.wait()
        self.reader.join()


@needs_qemu
@pytest.mark.parametrize("image", ["child", "init"])
def test_mail_passes_through_a_machine(host, images, mail_server, image):
    server = mail_server()
    with contextlib.closing(Machine(
            images / f"{image}.cpio.gz", ADDRESS, "SMTPWARP_LISTEN=*:25", server.name_port.replace("127.0.0.1", "SMTPWARP_UPSTREAM=10.0.2.2"),
            "SMTPWARP_ALLOW_CLIENTS=10.0.2.2", "SMTPWARP_TLS=none", "--", "--user", "65532", "--max-kept", "1000000")) as machine:
        begun, line = machine.wait_line("init: .* smtpwarp starts")
        listening, _ = machine.wait_line('"event":"start"')
        seconds = float(re.search(r"init: ([\d.]+) s", line)[1]) + listening - begun
        print(f"{image}: listening {seconds:.2f} s after the kernel began")
        client = peers.connect("127.0.0.1", machine.port)
        client.expect("220")
        client.ask("EHLO client.example", "250")
        send_message(client)
        client.ask("QUIT", "221")
        assert len(server.messages) == 1
        record = machine.wait_record("message")
        assert (record["result"], record["client"]["ip"]) == ("accepted", "10.0.2.2")
        assert machine.wait_record("start")["uid"] == 65532
        assert not [line for _, line in machine.lines if '"event":"error"' in line or line.startswith("init: ") and "starts" not in line]


@needs_qemu
def test_smtpwarp_is_the_first_program(host, images):
    """Debian's kernels have no CONFIG_IP_PNP, so nobody gives this one an address."""
    with contextlib.closing(Machine(images / "init.cpio.gz", "rdinit=/sbin/smtpwarp", "SMTPWARP_LISTEN=*:25", "--", "--tls", "none")) as machine:
        assert machine.wait_record("start")["listen"] == ["[::]:25"]
        assert "/proc is not mounted" in machine.wait_record("error")["error"]


# The archive

def test_the_same_files_make_the_same_archive(inits, tmp_path):
    again = make(tmp_path / "again")
    for name in "child.cpio.gz", "init.cpio.gz":
        first, second = (hashlib.sha256((place / name).read_bytes()).hexdigest() for place in (inits, again))
        assert first == second
        assert (inits / name).stat().st_size < 500_000


def test_pack_is_a_good_script():
    subprocess.run(["shellcheck", ROOT / "initramfs/pack"], check=True)


def test_files_of_ones_own(tmp_path):
    settings = tmp_path / "files/etc/smtpwarp/smtpwarp.conf"
    settings.parent.mkdir(parents=True)
    settings.write_text("SMTPWARP_LISTEN=*:25\n")
    image = make(tmp_path / "made", f"FILES={tmp_path}/files", "CA=") / "child.cpio.gz"
    listed = subprocess.run(f"zcat {image} | cpio -t --quiet", shell=True, check=True, capture_output=True, text=True).stdout.splitlines()
    assert listed == """etc etc/smtpwarp etc/smtpwarp/smtpwarp.conf init lib lib/modules sbin sbin/smtpwarp usr usr/share
        usr/share/smtpwarp usr/share/smtpwarp/providers usr/share/smtpwarp/replies.rules""".split()


def test_a_module_that_the_kernel_has_not(tmp_path):
    made = subprocess.run(["make", "-s", f"I={tmp_path}", "initramfs", f"KERNEL={tmp_path}", "MODULES=virtio_net"], cwd=ROOT,
                          capture_output=True, text=True, check=False)
    assert made.returncode and "has no module virtio_net" in made.stderr


# init, as process 1 of namespaces

class Init:
    """One of the two programs in a root directory with smtpwarp, on the test's network."""

    def __init__(self, directory, program, *options, settings="", **variables):
        self.root, self.console = directory / "root", directory / "console"
        for source, name in (program, "init"), (ROOT / "smtpwarp", "sbin/smtpwarp"):
            (self.root / name).parent.mkdir(exist_ok=True, parents=True)
            shutil.copy(source, self.root / name)
        (self.root / "etc/smtpwarp").mkdir(parents=True)
        (self.root / "etc/smtpwarp/smtpwarp.conf").write_text(settings)
        with open(self.console, "wb") as console:
            self.process = subprocess.Popen(
                ["unshare", "--pid", "--mount", "--uts", "--fork", "--kill-child", "/usr/sbin/chroot", self.root, "/init", *options],
                stdin=subprocess.DEVNULL, stdout=console, stderr=console, env=variables)

    def children(self, pid=None):
        """Of process 1, or of this one."""
        pid = pid or self.children(self.process.pid)[0]
        with open(f"/proc/{pid}/task/{pid}/children") as file:
            return [int(word) for word in file.read().split()]

    def kill(self, how):
        os.kill(self.children(self.process.pid)[0], how)

    def said(self):
        return self.console.read_text()

    def wait_said(self, words):
        wait_until(lambda: words in self.said() or self.process.poll() is not None, lambda: f"{words}; the console: {self.said()}")
        assert words in self.said()

    def wait_end(self):
        wait_until(lambda: self.process.poll() is not None, lambda: f"the end; the console: {self.said()}")
        return self.process.returncode

    def close(self):
        if self.process.poll() is None:
            self.process.kill()     # and unshare its child
        self.process.wait()


@pytest.fixture(name="begin")
def fixture_begin(host, inits, tmp_path):
    """begin("child" or "init", *options, settings=..., ...): an Init that has come to smtpwarp."""
    host.ip("link add eth0 type veth peer name other", "link set other up", "link set lo down")
    with contextlib.ExitStack() as closing:
        def make_one(program, *options, **settings):
            made = closing.enter_context(contextlib.closing(Init(tmp_path, inits / program, *options, **settings)))
            made.wait_said('"event":"start"')
            return made
        yield make_one


def test_network_and_settings(begin, host):
    machine = begin("child", "--max-errors", "7", ip=ADDRESS[3:], SMTPWARP_LISTEN="*:25", HOME="/",
                    settings="# of the image\nSMTPWARP_LISTEN=*:26\nSMTPWARP_TLS='none'\n")
    [start] = [json.loads(line) for line in machine.said().splitlines() if line.startswith("{") and '"start"' in line]
    assert start["options"] == ["--max-errors 7", "--listen *:25", "--tls none"]
    assert "inet 10.0.2.15/24 " in host.ip("addr show dev eth0") and "default via 10.0.2.2 dev eth0" in host.ip("route")
    assert "LOOPBACK,UP" in host.ip("addr show dev lo")
    assert (machine.root / "etc/resolv.conf").read_text() == "nameserver 10.0.2.3\n"
    [smtpwarp] = machine.children()
    assert os.readlink(f"/proc/{smtpwarp}/exe") == f"{machine.root}/sbin/smtpwarp"
    names = subprocess.run(["nsenter", f"--target={smtpwarp}", "--uts", "uname", "-n"], capture_output=True, text=True, check=True)
    assert names.stdout == "appliance\n"


@pytest.mark.parametrize("how, ended", [(signal.SIGTERM, POWER_OFF), (signal.SIGINT, BOOT)])
def test_the_machine_ends_after_its_sessions(begin, mail_server, host, how, ended):
    host.ip("link set lo up")
    server = mail_server()
    machine = begin("child", SMTPWARP_LISTEN="127.0.0.1:25", SMTPWARP_TLS="none", SMTPWARP_UPSTREAM=server.name_port)
    client = peers.connect("127.0.0.1", 25)
    client.expect("220")
    client.ask("EHLO client.example", "250")
    client.ask("MAIL FROM:<a@client.example>", "250")
    client.ask("RCPT TO:<b@mail.test>", "250")
    client.ask("DATA", "354")
    machine.kill(how)
    wait_until(lambda: 25 not in host.listening_ports(), "smtpwarp to end")
    client.send("x", ".")
    client.expect("250")
    assert machine.wait_end() == ended
    assert len(server.messages) == 1 and "smtpwarp has ended" not in machine.said()


def test_smtpwarp_starts_again(begin):
    machine = begin("child", SMTPWARP_LISTEN="*:25", SMTPWARP_TLS="none")
    [first] = machine.children()
    os.kill(first, signal.SIGKILL)
    machine.wait_said("smtpwarp has ended, signal 9, and starts again in 5 seconds")
    wait_until(lambda: machine.said().count('"event":"start"') == 2, "a second start")
    wait_until(lambda: len(machine.children()) == 1, "the burial of the first one's keeper, which has outlived it")
    [second] = machine.children()
    assert second != first
    os.kill(second, signal.SIGTERM)
    machine.wait_said("smtpwarp has ended, exit status 0")
    machine.kill(signal.SIGINT)
    assert machine.wait_end() == BOOT


def test_hang_up_is_passed_on(begin):
    machine = begin("child", SMTPWARP_LISTEN="*:25", SMTPWARP_TLS="none")
    (machine.root / "usr/share/smtpwarp").mkdir(parents=True)
    (machine.root / "usr/share/smtpwarp/replies.rules").write_text("nonsense\n")
    machine.kill(signal.SIGHUP)
    machine.wait_said("what was read before is still in use")


def test_init_becomes_smtpwarp(begin):
    machine = begin("init", SMTPWARP_LISTEN="*:25", SMTPWARP_TLS="none")
    first, = machine.children(machine.process.pid)
    with open(f"/proc/{first}/cmdline") as file:
        assert file.read() == "smtpwarp\0"
    machine.kill(signal.SIGTERM)
    assert machine.wait_end() == 0


def test_a_device_and_an_address_that_are_wrong(begin):
    machine = begin("child", ip="10.0.2.300:::255.255.255.0::eth0", SMTPWARP_LISTEN="*:25", SMTPWARP_TLS="none", settings="export X\n")
    for words in "ip=: 10.0.2.300 is no IPv4 address", "/etc/smtpwarp/smtpwarp.conf: line 1: ":
        assert words in machine.said()


@pytest.mark.parametrize("program", ["child", "init"])
def test_it_is_for_process_1_alone(inits, program):
    """As another it would end the machine that it is tried on."""
    tried = subprocess.run([inits / program], capture_output=True, text=True, check=False)
    assert tried.returncode == 1 and "it is for process 1 of an initramfs" in tried.stderr
