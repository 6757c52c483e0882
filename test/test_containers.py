"""containers/compose.yaml and containers/smtpwarp.container, by Debian's programs, in Debian 12's podman. podman-compose and quadlet are
Debian 13's: podman-compose 1.0 of Debian 12 cannot give a container the host's network, and quadlet is only in podman 4.4 and later.
"""
import re
import shlex
import shutil
import subprocess
import sys

import pytest

import hosts
import netns
import oci
import peers
from test_image import NUMBER, fixture_image, fixture_net     # noqa: F401
from waiting import wait_until

pytestmark = pytest.mark.skipif(bool(oci.missing() or netns.unsupported()), reason=oci.missing() or netns.unsupported())

COMPOSE, UNIT = hosts.ROOT / "containers/compose.yaml", hosts.ROOT / "containers/smtpwarp.container"
NEWER = hosts.ROOT / "build/pkg/trixie/usr"
QUADLET, PODMAN_COMPOSE = NEWER / "libexec/podman/quadlet", NEWER / "lib/python3/dist-packages/podman_compose.py"
METRICS = 9125
NEEDS_QUADLET = pytest.mark.skipif(not QUADLET.exists(), reason="needs podman of Debian 13, unpacked")


@pytest.fixture(name="podman")
def fixture_podman(net, image):
    """Podman on a host whose mail is redirected; it has the image."""
    with oci.podman(net.host.ns) as podman:
        podman("load", "-i", image.archive)
        yield podman


def deliver(net):
    net.host.ns.wait_listening(hosts.PORT)
    for address in net.mail.ip4, net.mail.ip6:
        hosts.deliver(net.host.ns, address)


def unit(directory=UNIT.parent):
    """What quadlet makes of the file, by key, each with its values."""
    made = subprocess.run([QUADLET, "-dryrun"], env={"QUADLET_UNIT_DIRS": str(directory)}, capture_output=True, text=True, check=False)
    assert made.returncode == 0, made.stderr
    found = {}
    for key, value in re.findall(r"^(\w+)=(.*)$", made.stdout, re.M):
        found.setdefault(key, []).append(value)
    return found


@pytest.mark.skipif(not shutil.which("docker-compose"), reason="needs docker-compose")
@pytest.mark.parametrize("change, status", [(("x", "x"), 0), (("stop_grace_period", "stop_grace"), 1)])
def test_compose_file_is_valid(tmp_path, change, status):
    """By the schema that docker-compose has; it notices a key that there is not."""
    (tmp_path / "compose.yaml").write_text(COMPOSE.read_text().replace(*change))
    done = subprocess.run(["docker-compose", "-f", tmp_path / "compose.yaml", "config", "--quiet"], stderr=subprocess.PIPE, text=True,
                          check=False)
    assert (done.returncode, "Unsupported config option" in done.stderr) == (status, bool(status)), done.stderr


@pytest.mark.skipif(not PODMAN_COMPOSE.exists(), reason="needs podman-compose of Debian 13, unpacked")
def test_mail_through_compose(net, podman):
    def compose(*words):
        return net.host.ns.run([sys.executable, PODMAN_COMPOSE, "-f", COMPOSE, *words], env=podman.environment)
    compose("up", "--detach")
    deliver(net)
    net.host.ns.wait_listening(METRICS)
    text = net.host.ns.run(["curl", "-sS", f"http://127.0.0.1:{METRICS}/metrics"]).stdout
    assert "smtpwarp_messages_total" in text
    compose("down")
    assert len(net.messages) == 2


@NEEDS_QUADLET
def test_quadlet_refuses_a_key_that_there_is_not(tmp_path):
    text = UNIT.read_text()
    (tmp_path / UNIT.name).write_text(text.replace("ReadOnly=", "ReadOnlee="))
    with pytest.raises(AssertionError, match="unsupported key 'ReadOnlee'"):
        unit(tmp_path)


@NEEDS_QUADLET
def test_mail_through_the_unit_of_quadlet(net, image, podman, tmp_path):
    """ExecStart, mail, ExecStop while a message is under way. --cgroups=split is for services of systemd, which the test is not."""
    made = unit()
    assert int(made["TimeoutStopSec"][0]) > int(re.search(r"--stop-timeout=(\d+)", made["ExecStart"][0])[1]) > 60

    def argv(key):
        line = made[key][0].replace("%t", str(tmp_path)).replace("%N", "smtpwarp")
        return [word for word in shlex.split(line)[1:] if word != "--cgroups=split"]
    assert f"localhost/{image.name}" == argv("ExecStart")[-1]
    podman(*argv("ExecStart"))
    deliver(net)
    client = hosts.greeted(net.host.ns, net.mail.ip4)
    stopping = net.host.ns.popen(["podman", *argv("ExecStop")], env=podman.environment, stdout=subprocess.DEVNULL)
    wait_until(lambda: hosts.PORT not in net.host.ns.listening_ports(), "smtpwarp to stop listening")
    hosts.finish_at_stop(client)
    assert stopping.wait(peers.TIMEOUT) == 0
    assert len(net.messages) == 3
