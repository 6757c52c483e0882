"""The OCI images: `make image`, `make image-hooks`, and mail through containers of them."""
import contextlib
import os
import pathlib
import re
import sqlite3
import stat
import subprocess
import urllib.request

import pytest

import building
import hosts
import netns
import oci
from waiting import wait_until

pytestmark = pytest.mark.skipif(bool(oci.missing() or netns.unsupported()), reason=oci.missing() or netns.unsupported())

ROOT = hosts.ROOT
NUMBER = 65532
METRICS = 9125
FILES = {"etc/ssl/certs/ca-certificates.crt": 0o644, "usr/bin/smtpwarp-stat": 0o755, "usr/sbin/smtpwarp": 0o755,
         "usr/share/smtpwarp/providers": 0o644, "usr/share/smtpwarp/replies.rules": 0o644}
LABEL = "org.opencontainers.image."


def build(directory, target="image", umask=0o022):
    """The archive, and the digest that make tells."""
    said = building.make("images", target, f"IMAGES={directory}", "STAGE=build/images/stage",
                         "IMAGE_SOURCE=https://smtpwarp.example/source", umask=umask)
    return pathlib.Path(re.search(r"^(\S+): \d+ octets, sha256", said, re.M)[1]), re.search(r"sha256:\w{64}", said)[0]


@pytest.fixture(name="image", scope="module")
def fixture_image(tmp_path_factory):
    directory = tmp_path_factory.mktemp("image")
    return oci.Image(build(directory)[0], directory)


@pytest.fixture(name="net")
def fixture_net():
    """A network whose host sends its mail to port 10025, but for what NUMBER sends."""
    with hosts.network() as net:
        net.serve()
        text = (hosts.UNITS / "nftables-output.nft").read_text(encoding="utf-8")
        net.host.ns.nft(text.replace('"smtpwarp"', str(NUMBER)))
        yield net


def ready(net, container, port=hosts.PORT):
    net.host.ns.wait_listening(port, alive=container.alive)


def deliver(net):
    for address in net.mail.ip4, net.mail.ip6:
        hosts.deliver(net.host.ns, address)


def delivered(container):
    """The records of its messages, when there are two."""
    return wait_until(lambda: container.records("message")[1:] and container.records("message"), container.text)


def test_two_builds_have_one_digest(tmp_path, image):
    archive, digest = build(tmp_path, umask=0o077)
    assert digest == image.digest
    assert archive.stat().st_size < 2_000_000


def test_it_holds_what_is_promised_and_nothing_else(image):
    members = image.members()
    assert {name: stat.S_IMODE(member.mode) for name, member in members.items() if not member.isdir()} == FILES
    assert all(member.isreg() for name, member in members.items() if name in FILES)
    assert {member.uid for member in members.values()} == {member.gid for member in members.values()} == {0}
    directories = {str(parent) for name in [*FILES, "run/smtpwarp/x"] for parent in pathlib.PurePath(name).parents} - {"."}
    assert {name.rstrip("/"): stat.S_IMODE(member.mode) for name, member in members.items() if member.isdir()} == \
        {name: 0o1777 if name == "run/smtpwarp" else 0o755 for name in directories}
    assert sum(member.size for member in members.values()) < 2_000_000


def test_labels(image):
    labels = {name.removeprefix(LABEL): value for name, value in image.config["Labels"].items()}
    commit = subprocess.run(["git", "rev-parse", "HEAD"], cwd=ROOT, check=True, capture_output=True, text=True).stdout.strip()
    version = (ROOT / "VERSION").read_text().strip()
    assert labels["title"] == "smtpwarp" and labels["version"] == version and labels["licenses"] == "ISC"
    assert labels["source"] == "https://smtpwarp.example/source" and labels["revision"] == commit
    assert image.name == f"smtpwarp:{version}"
    assert all(image.name in (ROOT / page).read_text() for page in ("README.md", "man/smtpwarp.8"))
    assert image.config["User"] == f"{NUMBER}:{NUMBER}"


@pytest.mark.parametrize("name", ["build", "debian"])
def test_shellcheck(name):
    subprocess.run(["shellcheck", ROOT / "containers" / name], check=True)


def test_mail_through_a_container(net, image, tmp_path):
    """As a sidecar: it shares the network of a host whose mail is redirected. It needs neither root nor a capability, and writes only
    where a volume is. A second container of the image answers for its counts."""
    volume = tmp_path / "volume"
    volume.mkdir()
    os.chown(volume, NUMBER, NUMBER)
    with image.run(net.host.ns, volumes={"/run/smtpwarp": volume}) as smtpwarp, \
            image.run(net.host.ns, "metrics", "--listen", f"127.0.0.1:{METRICS}", entrypoint=["/usr/bin/smtpwarp-stat"],
                      volumes={"/run/smtpwarp": volume}) as metrics:
        ready(net, smtpwarp)
        status = smtpwarp.status()
        assert status["Uid"].split() == status["Gid"].split() == [str(NUMBER)] * 4
        assert {int(status[name], 16) for name in ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb")} == {0}
        assert status["NSpid"].split()[1] == "1"
        deliver(net)
        first, second = delivered(smtpwarp)
        assert (first["result"], first["server"]["ip"]) == ("accepted", net.mail.ip4)
        assert (second["result"], second["server"]["ip"]) == ("accepted", net.mail.ip6)
        assert [path.name for path in volume.iterdir()] == ["state.1"]
        ready(net, metrics, METRICS)
        with net.host.ns:
            text = urllib.request.urlopen(f"http://127.0.0.1:{METRICS}/metrics").read().decode()
        assert re.search(r'^smtpwarp_messages_total\{.*result="accepted".*\} 1$', text, re.M), text
        assert smtpwarp.stop() == 0
        assert metrics.stop() in (0, 128 + 15)


def test_mail_without_a_volume(net, image):
    """Nothing can be written at all. It says once what that costs."""
    with image.run(net.host.ns) as smtpwarp:
        ready(net, smtpwarp)
        deliver(net)
        assert [record["result"] for record in delivered(smtpwarp)] == ["accepted"] * 2
        error, = smtpwarp.records("error")
        assert error["error"] == "--state /run/smtpwarp/state.1: Read-only file system; nothing is observed"
        assert smtpwarp.stop() == 0


def test_the_ca_bundle_is_read(net, image):
    options = "--check", "--tls", "verify", "--upstream", "mx.example", "--allow-clients", "10.0.0.0/8"
    for more, status in ([], 0), (["--tls-ca", "/none"], os.EX_CONFIG):
        with image.run(net.host.ns, *options, *more) as smtpwarp:
            assert smtpwarp.runc.wait(60) == status, smtpwarp.text()


def test_rules_and_providers_are_read(net, image):
    with image.run(net.host.ns, "explain", "--reply", "421 4.7.28 unusual rate of unsolicited mail", "mx.google.com",
                   entrypoint=["/usr/bin/smtpwarp-stat"]) as explain:
        explain.runc.wait(60)
        said = explain.text()
    assert re.search(r"^site +gmail$", said, re.M) and "/usr/share/smtpwarp/providers" in said
    assert re.search(r"^class +throttle, .* of replies.rules, which ships", said, re.M)


def test_mail_through_a_container_of_buildah(net, image, tmp_path):
    """buildah run, which has no namespaces of its own with this isolation."""
    with oci.buildah(image.archive, tmp_path) as (command, made):
        child = net.host.ns.popen(command("run", "--isolation", "chroot", made, "--", *image.config["Entrypoint"]),
                                  stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        net.host.ns.wait_listening(hosts.PORT, alive=lambda: child.poll() is None)
        deliver(net)
        assert len(net.messages) == 2
        child.terminate()
        child.wait(60)


def test_hooks_in_a_container(net, tmp_path_factory):
    """`make image-hooks`: a hook in Python that refuses a message, one in the shell that writes a database; those in C find
    their libraries."""
    directory = tmp_path_factory.mktemp("hooks")
    image = oci.Image(build(ROOT / "build/images", "image-hooks")[0], directory)
    assert image.config["User"] == f"{NUMBER}:{NUMBER}"
    volumes = {name: directory / name[1:] for name in ("/run/smtpwarp", "/tmp")}
    for path in volumes.values():
        path.mkdir(parents=True)
        os.chown(path, NUMBER, NUMBER)
    patterns = directory / "patterns"
    patterns.write_text("secret  [Ss]trictly confidential\n")
    env = {"SMTPWARP_PLUGINS": "dlp,sqlite", "DSN": "/run/smtpwarp/mail.db"}
    with image.run(net.host.ns, volumes={**volumes, "/etc/smtpwarp/dlp.patterns": patterns}, env=env) as smtpwarp:
        ready(net, smtpwarp)
        for text, code in ("Public.", "250"), ("Strictly confidential.", "550 5.7.1"):
            client = hosts.greeted(net.host.ns, net.mail.ip4)
            client.ask("RCPT TO:<b@server.example>")
            client.ask("DATA", "354")
            client.send("Subject: plans", "", text, ".")
            client.expect(code)
            client.ask("QUIT", "221")
            client.close()
        wait_until(lambda: len(smtpwarp.records("close")) == 2, smtpwarp.text)
        assert smtpwarp.stop() == 0
        assert [record["hook"] for record in smtpwarp.records("verdict")] == ["dlp"] and not smtpwarp.records("error"), smtpwarp.text()
    assert len(net.messages) == 1
    with contextlib.closing(sqlite3.connect(volumes["/run/smtpwarp"] / "mail.db")) as database:
        assert sorted(row[0] for row in database.execute("SELECT result FROM messages")) == ["accepted", "rejected"]
    with image.run(net.host.ns, "-c", "cd /usr/lib/smtpwarp/hooks && ldd journal milter", entrypoint=["/bin/sh"]) as linked:
        assert linked.runc.wait(60) == 0
        assert "libjansson" in linked.text() and "not found" not in linked.text()
