"""What `make` and `make install` leave: the binary's size and hardening, the installed files."""
import os
import pathlib
import subprocess

import pytest

import building
from hooks import EVENTS

ROOT = pathlib.Path(__file__).resolve().parent.parent
BINARY = pathlib.Path(os.environ.get("SMTPWARP", ROOT / "smtpwarp"))


def readelf(*options):
    return subprocess.run(["readelf", "-W", *options, BINARY], capture_output=True, text=True, check=True).stdout


def test_size():
    """The limit of the contract. Each KB over 340 is named in the README's figures."""
    assert BINARY.stat().st_size <= 454_656
    kilobytes = BINARY.stat().st_size // 1000
    assert f"one static binary of {kilobytes} KB" in (ROOT / "README.md").read_text()


def test_static_pie():
    assert "DYN (" in readelf("-h")
    assert "INTERP" not in readelf("-l")
    assert "(NEEDED)" not in readelf("-d")
    assert "TEXTREL" not in readelf("-d")


def test_hardening():
    segments = readelf("-l")
    stack, = (line for line in segments.splitlines() if "GNU_STACK" in line)
    assert stack.split()[6] == "RW"
    assert "GNU_RELRO" in segments
    assert not any("LOAD" in line and "RWE" in line for line in segments.splitlines())
    assert "BIND_NOW" in readelf("-d") or "NOW" in readelf("-d")


def test_stack_protector():
    symbols = subprocess.run(["nm", ROOT / "build/musl-gcc/smtpwarp"], capture_output=True, text=True).stdout
    assert "__stack_chk_fail" in symbols


@pytest.mark.parametrize("prefix", ["/usr", "/opt/mail"])
def test_install(tmp_path, prefix):
    """With a build of its own: the path of plugins is in the program."""
    subprocess.run(["make", "-s", "-C", ROOT, "install", f"DESTDIR={tmp_path}/root", f"PREFIX={prefix}",
                    *building.copy_of_build(tmp_path)], check=True, capture_output=True)
    base = pathlib.Path(f"{tmp_path}/root{prefix}")
    installed = {str(path.relative_to(base)) for path in base.rglob("*") if path.is_file()}
    assert {"sbin/smtpwarp", "bin/smtpwarp-stat", "share/man/man8/smtpwarp-stat.8", "share/man/man8/smtpwarp.8", "share/man/man7/smtpwarp-hooks.7", "share/man/man5/smtpwarp-log.5",
            "share/man/man5/smtpwarp-routes.5", "lib/sysusers.d/smtpwarp.conf", "lib/tmpfiles.d/smtpwarp.conf", "sbin/smtpwarp-setup",
            "lib/systemd/system/smtpwarp.socket", "lib/systemd/system/smtpwarp@.service",
            "lib/systemd/system/smtpwarp-listener.socket", "lib/systemd/system/smtpwarp.service",
            "share/smtpwarp/smtpwarp.conf", "share/smtpwarp/replies.rules", "share/smtpwarp/kumo2rules",
            "share/smtpwarp/inetd.conf", "share/smtpwarp/alerts.yml", "share/smtpwarp/grafana.json", "share/smtpwarp/smtpwarp.lnav.json",
            "share/smtpwarp/MIGRATING.md"} <= installed
    assert os.access(base / "sbin/smtpwarp", os.X_OK) and os.access(base / "share/smtpwarp/tcpserver.run", os.X_OK)
    service = (base / "lib/systemd/system/smtpwarp.service").read_text()
    assert f"ExecStart={prefix}/sbin/smtpwarp\n" in service
    assert f"ExecStart={prefix}/bin/smtpwarp-stat metrics --http\n" in (base / "lib/systemd/system/smtpwarp-metrics@.service").read_text()
    assert f"\nrules={prefix}/share/smtpwarp/nftables-output.nft\n" in (base / "sbin/smtpwarp-setup").read_text()
    version = subprocess.run([base / "sbin/smtpwarp", "--version"], capture_output=True, text=True, check=True).stdout
    assert f"{prefix}/lib/smtpwarp/plugins)" in subprocess.run([base / "sbin/smtpwarp", "--help"], capture_output=True,
                                                               text=True, check=True).stdout
    hooks, plugins = base / "lib/smtpwarp/hooks", base / "lib/smtpwarp/plugins"
    shipped = {path.stem for path in (ROOT / "hooks").iterdir() if path.is_file()}
    assert {path.name for path in hooks.iterdir()} == shipped and len(shipped) == 13
    linked = {path.name for path in plugins.glob("*/*") if path.is_symlink() and os.access(path, os.X_OK)}
    assert linked == shipped and {path.name for path in plugins.iterdir()} <= set(EVENTS)
    assert (base / "share/smtpwarp/hooks/sample/message.eml").exists()
    assert version == f"smtpwarp {(ROOT / 'VERSION').read_text()}"


def files(directory):
    return {str(path.relative_to(directory)): path.read_bytes() for path in directory.rglob("*") if path.is_file()}


def test_uninstall(tmp_path):
    """It takes away what install has put there: files, and directories that were missing; /etc is the operator's."""
    root = tmp_path / "root"
    (root / "usr/bin").mkdir(parents=True)
    (root / "usr/bin/other").write_text("another program\n")
    settings = root / "etc/smtpwarp/smtpwarp.conf"
    place = building.copy_of_build(tmp_path)

    def make(*arguments):
        return subprocess.run(["make", "-s", "-C", ROOT, *arguments, f"DESTDIR={root}", *place], check=False, capture_output=True,
                              text=True)
    assert make("install").returncode == 0
    assert settings.read_bytes() == (ROOT / "units/smtpwarp.conf").read_bytes()
    first = files(root)
    assert make("install").returncode == 0 and files(root) == first
    settings.write_text("SMTPWARP_TLS=may\n")
    gone = root / "usr/share/smtpwarp/of-an-older-version"
    gone.touch()
    with open(root / "usr/share/smtpwarp/installed", "a", encoding="utf-8") as installed:
        installed.write("/usr/share/smtpwarp/of-an-older-version\n")
    assert make("install").returncode == 0
    assert settings.read_text() == "SMTPWARP_TLS=may\n"
    assert make("uninstall").returncode == 0
    assert set(files(root)) == {"usr/bin/other", "etc/smtpwarp/smtpwarp.conf", "etc/logrotate.d/smtpwarp"}
    assert [path.name for path in (root / "usr").iterdir()] == ["bin"]
    assert "nothing is installed" in make("uninstall").stderr


@pytest.mark.parametrize("status, gone", [(0, False), (2, False), (1, True), (69, True)])
def test_uninstall_does_not_strand_mail(tmp_path, status, gone):
    """What smtpwarp-setup says decides, where it is installed."""
    setup = tmp_path / "sbin/smtpwarp-setup"
    setup.parent.mkdir()
    setup.write_text(f"#!/bin/sh\nexit {status}\n")
    setup.chmod(0o755)
    (tmp_path / "share/smtpwarp").mkdir(parents=True)
    (tmp_path / "share/smtpwarp/installed").write_text(f"{setup}\n")
    done = subprocess.run(["make", "-s", "-C", ROOT, "uninstall", f"PREFIX={tmp_path}"], check=False, capture_output=True, text=True)
    assert (done.returncode == 0, setup.exists()) == (gone, not gone), done.stderr


def test_missing_packages_are_named(tmp_path):
    """libbearssl-dev, without which nothing is built, and musl-tools, without which the binary is not static."""
    made = subprocess.run(["make", "BEARSSL_LIB=libbearssl.a-is-missing", f"O={tmp_path}/o", f"OUT={tmp_path}/smtpwarp"], cwd=ROOT,
                          capture_output=True, text=True, check=False)
    assert made.returncode and "libbearssl-dev" in made.stderr
    for tool in pathlib.Path("/usr/bin").iterdir():
        if tool.name != "musl-gcc":
            (tmp_path / tool.name).symlink_to(tool)
    told = subprocess.run(["make", "-n", f"O={tmp_path}/o", f"OUT={tmp_path}/smtpwarp"], cwd=ROOT, capture_output=True, text=True,
                          check=True, env={"PATH": str(tmp_path)})
    assert "musl-tools" in told.stdout
    told = subprocess.run(["make", "-n", f"O={tmp_path}/o", f"OUT={tmp_path}/smtpwarp"], cwd=ROOT, capture_output=True, text=True,
                          check=True)
    assert "musl-tools" not in told.stdout
