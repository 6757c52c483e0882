"""A Debian to install packages in: minbase, unpacked once, with systemd as PID 1, on a network of hosts.py; and our packages.

    with debian.Machine(net.host.ns) as machine:
        machine.install(*debian.packages())
        machine.run("smtpwarp-setup on")
"""
import contextlib
import fcntl
import hashlib
import os
import pathlib
import re
import shutil
import subprocess

import container
import hosts

CACHE = hosts.ROOT / "build/debian"
INCLUDE = ("systemd", "systemd-sysv", "dbus", "nftables", "iproute2", "procps", "python3", "libjansson4", "logrotate", "autopkgtest")
NOT_SOURCE = shutil.ignore_patterns("build", ".git", "__pycache__", ".pytest_cache", "smtpwarp", "smtpwarp-stat")
# $1: the unpacked Debian; $2: a directory for what changes. The mount goes with the container.
OVER = """
mount -t overlay -o "lowerdir=$1,upperdir=$2/upper,workdir=$2/work" debian "$2/root"
shift 2
exec "$@"
"""


def missing():
    """Why there can be no Debian here, or ""."""
    programs = [name for name in ("mmdebstrap", "dpkg-buildpackage", "dh", "lintian") if not shutil.which(name)]
    return container.missing() or (f"needs {', '.join(programs)}" if programs else "")


def made(name, make):
    """build/debian/NAME, which make(path) fills if it is not there yet; once, however many tests ask at a time."""
    CACHE.mkdir(parents=True, exist_ok=True)
    path = CACHE / name
    with open(CACHE / "lock", "w", encoding="utf-8") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not path.exists():
            part = CACHE / f"{name}.part"
            shutil.rmtree(part, ignore_errors=True)
            for old in CACHE.glob(f"{name.partition('-')[0]}-*"):
                shutil.rmtree(old)
            make(part)
            part.rename(path)
    return path


def run(*argv, **options):
    done = subprocess.run([str(word) for word in argv], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                          text=True, check=False, **options)
    assert done.returncode == 0, f"{argv[0]}: {done.stdout[-8000:]}"
    return done.stdout


def root():
    """The unpacked Debian, which nobody writes to."""
    lists = subprocess.run(["apt-get", "indextargets", "--format", "$(CODENAME) $(REPO_URI)"], capture_output=True, text=True,
                           check=True).stdout
    release, mirror = next(line.split() for line in lists.splitlines() if re.match(r"\w+ ", line) and "security" not in line)
    key = hashlib.sha256(f"{release} {INCLUDE}".encode()).hexdigest()[:12]
    return made(f"root-{key}", lambda path: run("mmdebstrap", "--mode=root", "--variant=minbase", f"--include={','.join(INCLUDE)}",
                                                release, path, mirror))


def source_files():
    with contextlib.suppress(subprocess.CalledProcessError, FileNotFoundError):
        listed = subprocess.run(["git", "ls-files", "-coz", "--exclude-standard"], cwd=hosts.ROOT, capture_output=True, text=True,
                                check=True).stdout
        return sorted(name for name in listed.split("\0") if name and not name.startswith("test/") and (hosts.ROOT / name).is_file())
    return []


def copy_source(tree):
    shutil.copytree(hosts.ROOT, tree, ignore=NOT_SOURCE, symlinks=True)


def _build(path):
    tree = path / "smtpwarp"
    copy_source(tree)
    log = run("dpkg-buildpackage", "-us", "-uc", "-b", cwd=tree, env={**os.environ, "DEB_BUILD_OPTIONS": "nocheck"})
    shutil.rmtree(tree)
    (path / "log").write_text(log, encoding="utf-8")


def built():
    """The directory with the packages of this source, their .changes and the log of the build."""
    digest = hashlib.sha256()
    for name in source_files():
        digest.update(name.encode() + (hosts.ROOT / name).read_bytes())
    return made(f"packages-{digest.hexdigest()[:12]}", _build)


def packages():
    """The files of smtpwarp and smtpwarp-hooks."""
    found = sorted(path for path in built().glob("*.deb") if "dbgsym" not in path.name)
    assert [path.name.partition("_")[0] for path in found] == ["smtpwarp-hooks", "smtpwarp"], found
    return found


def of_version(package, version, directory):
    """A copy of a package that says that it is of another version."""
    tree = directory / "repacked"
    run("dpkg-deb", "-R", package, tree)
    control = tree / "DEBIAN/control"
    control.write_text(re.sub(r"(?m)^Version: .*", f"Version: {version}", control.read_text(encoding="utf-8")), encoding="utf-8")
    new = directory / f"{package.name.partition('_')[0]}_{version}.deb"
    run("dpkg-deb", "-b", tree, new)
    shutil.rmtree(tree)
    return new


class Machine(container.Container):
    def __init__(self, namespace):
        self.namespace = namespace
        super().__init__(namespace)

    def _make_root(self):
        for name in "upper", "work", "root", "shared":
            (self.dir / name).mkdir()
        self.dir.chmod(0o755)

    def _install(self):
        """install() does."""

    def _configure(self, settings, dropins):
        (self.dir / "upper/etc").mkdir()
        (self.dir / "upper/etc/machine-id").write_text("0123456789abcdef0123456789abcdef\n", encoding="utf-8")

    def _command(self, namespace, *more, target="multi-user.target"):
        return ["unshare", "--mount", "sh", "-ec", OVER, "sh", str(root()), str(self.dir),
                *super()._command(namespace, f"--bind={self.dir}/shared:/shared", *more, target=target)]

    def reboot(self):
        """The kernel, too, forgets what is not loaded again: the firewall."""
        self._shut_down()
        self.namespace.run(["nft", "flush", "ruleset"])
        self._boot(self.namespace)

    def share(self, *files):
        """Their names inside."""
        for file in files:
            shutil.copy(file, self.dir / "shared")
        return [f"/shared/{pathlib.Path(file).name}" for file in files]

    def install(self, *files):
        return self.run(f"dpkg -i {' '.join(self.share(*files))}")

    def files(self):
        """What is on its disk, without what is there anyway."""
        listed = self.run("cd / && find . -xdev -path ./shared -prune -o -print")
        return {line[1:] for line in listed.splitlines()}
