"""aarch64 and riscv64: unit tests and mail with Debian's cross compilers, musl and qemu-user.

What they cannot show is what the emulator lacks: sockets of NETLINK_SOCK_DIAG, so --max-kept counts nothing there.
"""
import re
import shutil
import subprocess

import pytest

import building
import certificates
import hosts
import oci
import warp as starting

ROOT = hosts.ROOT
SYSROOT = "build/pkg/trixie"
MACHINES = "aarch64", "riscv64"
UNITS = sorted(path.stem for path in (ROOT / "test/unit").glob("*.c"))
# Those that take a second or more in an emulator: one machine each, by which emulator is quick with what; and none for those that take ten.
SLOW = {"neither": {"commands", "detector"},
        "riscv64": {"hello", "identity", "maildata", "recipient", "replies", "server", "steps", "transaction", "checks", "filter", "observe", "tls",
                    "agent", "certificate", "dialogue", "message", "policy", "policylist", "routes", "statemap", "tlsreport"},
        "aarch64": {"smtp", "verdict"}}
# Tests that fail there, and why.
FAILING = {
    "address": {"what_they_are"},           # musl writes ::127.0.0.1 as ::7f00:1
    "ere": {"as_libc_by_chance"},           # musl reads other expressions than glibc
    "server": {"each_candidate", "attempts_that_cannot_begin", "redial_cannot_begin"},  # musl's strerror() has other texts
    "keeper": {"next_gets_what_it_needs"},  # the kernel runs no program of another machine
    "agent": {"it_goes_on_after_anything"},  # the emulator takes more descriptors than it hands on, and keeps the rest
    "net": {"shares_add_up", "large_shares", "never_more_than_all", "one_of_two_gets_it", "killed_have_none", "each_user_has_its_own"},
}                                           # the emulator has no NETLINK_SOCK_DIAG


class Machine:
    def __init__(self, name):
        self.name, self.triplet, self.emulator = name, f"{name}-linux-gnu", f"qemu-{name}-static"
        self.made = ROOT / "build/cross" / self.triplet
        self.units = [unit for unit in UNITS if not any(unit in slow for other, slow in SLOW.items() if other != name)]

    def missing(self):
        tools = [f"{self.triplet}-gcc", self.emulator, "llvm-objcopy"]
        return ", ".join(f"needs {tool}" for tool in tools if not shutil.which(tool))

    def make(self, *targets):
        building.make(f"cross/{self.triplet}", f"CROSS={self.triplet}", f"SYSROOT={SYSROOT}", *targets)

    def make_units(self):
        self.make(*(f"build/cross/{self.triplet}/test/unit_{unit}" for unit in self.units))


@pytest.fixture(name="machine", params=MACHINES, scope="module")
def fixture_machine(request):
    made = Machine(request.param)
    if made.missing():
        pytest.skip(made.missing())
    made.make()
    return made


def test_binary(machine):
    """Static, position-independent, and for that machine."""
    read = subprocess.run(["readelf", "-W", "-h", "-l", "-d", "-r", machine.made / "smtpwarp"], check=True, capture_output=True, text=True).stdout
    assert re.search({"aarch64": r"Machine: +AArch64", "riscv64": r"Machine: +RISC-V"}[machine.name], read)
    assert "DYN (" in read and "INTERP" not in read and "(NEEDED)" not in read and "TEXTREL" not in read
    assert {kind.rpartition("_")[2] for kind in re.findall(r"\bR_\w+", read)} == {"RELATIVE"}      # musl does no more to a static program
    said = subprocess.run([machine.emulator, machine.made / "bin/smtpwarp", "--version"], check=True, capture_output=True, text=True).stdout
    assert said == f"smtpwarp {(ROOT / 'VERSION').read_text()}"


@pytest.mark.skipif(bool(oci.missing()), reason=oci.missing())
def test_image(machine, tmp_path):
    machine.make("image", f"IMAGES={tmp_path}")
    image = oci.Image(tmp_path / "smtpwarp.tar", tmp_path)
    assert image.platform == {"aarch64": "linux/arm64", "riscv64": "linux/riscv64"}[machine.name]
    assert (image.bundle / "rootfs/usr/sbin/smtpwarp").read_bytes() == (machine.made / "bin/smtpwarp").read_bytes()


def test_units(machine):
    machine.make_units()
    for unit in machine.units:
        wrong = FAILING.get(unit, set())
        done = subprocess.run([machine.emulator, machine.made / "test" / f"unit_{unit}"], cwd=ROOT, check=False, capture_output=True,
                              text=True, errors="replace", timeout=300)
        failed = set(re.findall(r"^\[  FAILED  \] (\w+)$", done.stdout, re.M)) if wrong else set()
        assert "[  PASSED  ]" in done.stdout and done.returncode == len(wrong) and failed == wrong, f"{unit}: {done.stdout[-2000:]}"


@pytest.fixture(name="emulated")
def fixture_emulated(machine, warp, monkeypatch):
    """warp() in the machine's emulator."""
    monkeypatch.setattr(starting, "BINARY", str(machine.made / "bin/smtpwarp"))

    def make(*options, **settings):
        made = warp(*options, **settings)
        made.wrapper = [machine.emulator]
        return made
    return make


@pytest.mark.parametrize("way", ["inetd", "listen"])
def test_mail(emulated, certs, mail_server, secure, way):
    """TLS with both sides, the server's certificate verified; a process for one connection, and one that forks."""
    server = mail_server("PIPELINING", tls=certs.context("good"))
    proxy = emulated("--tls", "verify", "--tls-ca", certs.ca, "--tls-name", certificates.HOST, *certs.options("good"), upstream=server)
    if way == "listen":
        proxy.listen()
    client = proxy.connect()
    client.expect("220")
    client.ask("EHLO client.example", "250")
    secure(client)
    client.ask("EHLO client.example", "250")
    starting.send_message(client)
    client.ask("QUIT", "221")
    client.expect_end()
    assert server.messages[0]["data"] == starting.MESSAGE and server.messages[0]["tls"]
    record = proxy.wait_for("message")
    assert record["result"] == "accepted" and record["server"]["tls"]["verified"] and record["client"]["tls"]
