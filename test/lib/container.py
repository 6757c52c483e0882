"""systemd as PID 1, in a container with the machine's own /usr and the units of units/, on a network of hosts.py.

    with container.Container(net.host.ns, "SMTPWARP_LOG=journal") as machine:
        machine.run("systemctl start smtpwarp.socket")
        ...
        machine.journal(SYSLOG_IDENTIFIER="smtpwarp")

Root directory, /etc and /var are empty but for what a boot needs, so the machine's own services stay out of it, and a
boot takes a tenth of a second.
"""
import contextlib
import json
import os
import pathlib
import re
import shutil
import signal
import socket
import subprocess
import tempfile
import time
import uuid

import hosts
from waiting import TIMEOUT, wait_until

TARGET = """\
[Unit]
Wants=systemd-journald.service systemd-sysusers.service systemd-tmpfiles-setup.service
After=systemd-journald.service systemd-sysusers.service systemd-tmpfiles-setup.service
"""


# Without a cgroup of its own it would share systemd-nspawn's with any other container, and leave it behind. The
# arguments before -- are the cgroups to make, one per hierarchy.
OWN_CGROUP = """
while [ "$1" != -- ]; do
    mkdir "$1"
    echo $$ >"$1/cgroup.procs"
    shift
done
shift
exec "$@"
"""
BOOT_TIMEOUT = 60
HIERARCHIES = "/sys/fs/cgroup/systemd", "/sys/fs/cgroup/unified", "/sys/fs/cgroup"


def missing():
    """Why there can be no container here, or ""."""
    return "" if shutil.which("systemd-nspawn") else "needs systemd-container"


def remove_cgroup(path):
    """It is busy for a moment after its last process was killed."""
    def removed(directory):
        with contextlib.suppress(OSError):
            os.rmdir(directory)
        return not os.path.exists(directory)
    for directory, _, _ in os.walk(path, topdown=False):
        wait_until(lambda: removed(directory), f"the end of {directory}")   # pylint: disable=cell-var-from-loop


class Container:
    """settings: the text of /etc/smtpwarp/smtpwarp.conf. dropins: unit -> text, or name of a file in units/."""

    def __init__(self, namespace, settings="", dropins=None):
        self.dir = pathlib.Path(tempfile.mkdtemp(prefix="smtpwarp-container-"))
        self.root, self.usr = self.dir / "root", self.dir / "usr"
        self._make_root()
        self._install()
        self._configure(settings, dropins or {})
        self.leader = None      # PID 1, as seen from outside
        self.name = f"smtpwarp-{uuid.uuid4().hex[:12]}"
        self.cgroups = [pathlib.Path(base, self.name) for base in HIERARCHIES if os.path.exists(f"{base}/cgroup.procs")]
        try:
            self._boot(namespace)
        except BaseException:
            self.close()
            raise

    def _make_root(self):
        for name in "etc/systemd/system", "etc/smtpwarp", "usr", "var", "run", "proc", "sys", "dev", "tmp", "root":
            (self.root / name).mkdir(parents=True)
        for name in "bin", "sbin", "lib", "lib64":
            (self.root / name).symlink_to(f"usr/{name}")
        for name, text in {"machine-id": uuid.uuid4().hex + "\n", "os-release": "ID=test\n",
                           "nsswitch.conf": "passwd: files\ngroup: files\n",
                           "systemd/system/test.target": TARGET}.items():
            (self.root / "etc" / name).write_text(text, encoding="utf-8")
        certificates = pathlib.Path("etc/ssl/certs/ca-certificates.crt")
        (self.root / certificates.parent).mkdir(parents=True)
        shutil.copy("/" / certificates, self.root / certificates)
        generators = self.root / "etc/systemd/system-generators"   # masked: the machine's take a second per reload
        generators.mkdir()
        for generator in os.listdir("/usr/lib/systemd/system-generators"):
            (generators / generator).symlink_to("/dev/null")
        for path in self.dir, self.root:
            path.chmod(0o755)

    def _install(self):
        """What `make install PREFIX=/usr` installs, on top of the machine's /usr."""
        system, users = self.usr / "lib/systemd/system", self.usr / "lib/sysusers.d"
        share = self.usr / "share/smtpwarp"
        for path in self.usr / "bin", self.usr / "sbin", system, users, share:
            path.mkdir(parents=True)
        shutil.copy(hosts.SMTPWARP, self.usr / "sbin/smtpwarp")
        shutil.copy(f"{hosts.SMTPWARP}-stat", self.usr / "bin/smtpwarp-stat")
        for name in "replies.rules", "providers":
            shutil.copy(hosts.ROOT / "rules" / name, share)
        for unit in [*hosts.UNITS.glob("*.socket"), *hosts.UNITS.glob("*.service")]:
            shutil.copy(unit, system)
        shutil.copy(hosts.UNITS / "smtpwarp.sysusers", users / "smtpwarp.conf")

    def _configure(self, settings, dropins):
        (self.root / "etc/smtpwarp/smtpwarp.conf").write_text(settings + "\n", encoding="utf-8")
        for unit, text in dropins.items():
            directory = self.root / f"etc/systemd/system/{unit}.d"
            directory.mkdir()
            if text.endswith(".conf"):
                text = (hosts.UNITS / text).read_text(encoding="utf-8")
            (directory / "test.conf").write_text(text, encoding="utf-8")

    def _command(self, namespace, *more, target="test.target"):
        return ["systemd-nspawn", "--quiet", f"--directory={self.root}", *(more or [f"--overlay-ro=/usr:{self.usr}:/usr"]),
                f"--machine={self.name}", f"--network-namespace-path={namespace.path}", "--capability=CAP_NET_ADMIN",
                "--system-call-filter=landlock_create_ruleset landlock_add_rule landlock_restrict_self",     # as a host has them
                "--boot", "--notify-ready=yes", "--register=no", "--keep-unit", "--console=pipe",
                f"systemd.unit={target}", "systemd.show_status=0"]

    def _boot(self, namespace):
        namespace.sysctl("net.unix.max_dgram_qlen", 512)    # as systemd does at boot, except in containers
        manager = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        manager.settimeout(0.2)
        manager.bind(str(self.dir / "notify"))
        self.output = open(self.dir / "output", "w+b")
        self.nspawn = subprocess.Popen(
            ["sh", "-ec", OWN_CGROUP, self.name, *map(str, self.cgroups), "--", *self._command(namespace)],
            stdin=subprocess.DEVNULL, stdout=self.output, stderr=self.output,
            env={**os.environ, "NOTIFY_SOCKET": str(self.dir / "notify")})
        told, end = "", time.monotonic() + BOOT_TIMEOUT
        while not re.search(r"^READY=1$", told, re.M):
            if self.nspawn.poll() is not None or time.monotonic() > end:
                raise RuntimeError(f"the container does not boot: {(self.dir / 'output').read_text()}")
            with contextlib.suppress(TimeoutError):
                told += manager.recv(4096).decode() + "\n"
            if match := re.search(r"X_NSPAWN_LEADER_PID=(\d+)", told):
                self.leader = int(match[1])
        manager.close()
        os.unlink(self.dir / "notify")

    # Commands

    def popen(self, command, **options):
        """A shell command inside."""
        return subprocess.Popen(["nsenter", "--all", f"--target={self.leader}", "sh", "-ec", command],
                                stdin=subprocess.DEVNULL, **options)

    def run(self, command, check=True):
        """A shell command inside; its output."""
        child = self.popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        out, _ = child.communicate(timeout=60)
        assert not check or child.returncode == 0, f"{command}: exit {child.returncode}: {out}"
        return out

    def load(self, name, loader="nft -f -"):
        """Loads a rule file of units/."""
        text = (hosts.UNITS / name).read_text(encoding="utf-8").replace("eth1", "veth1")
        self.run(f"{loader} <<'EOF'\n{text}\nEOF")

    def show(self, unit, name):
        return self.run(f"systemctl show -P {name} '{unit}'").strip()

    def instances(self):
        """The instances of smtpwarp@.service that systemd remembers, failed ones included."""
        return self.run("systemctl list-units --all --plain --no-legend 'smtpwarp@*.service'").splitlines()

    def journal(self, **matches):
        """The journal's entries with these fields."""
        words = " ".join(f"'{name}={value}'" for name, value in matches.items())
        text = self.run(f"journalctl --sync; journalctl --quiet --all -o json {words}")
        return [json.loads(line) for line in text.split("\n") if line]      # a text may have other line ends

    def close(self):
        self._shut_down()
        shutil.rmtree(self.dir)

    def _shut_down(self):
        self.nspawn.send_signal(signal.SIGTERM)     # an orderly shutdown
        try:
            self.nspawn.wait(TIMEOUT)
        except subprocess.TimeoutExpired:
            os.kill(self.leader or self.nspawn.pid, signal.SIGKILL)
            self.nspawn.wait(TIMEOUT)
        self.output.close()
        for cgroup in self.cgroups:
            remove_cgroup(cgroup)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()
