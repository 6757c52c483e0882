"""containers/kubernetes.yaml: its containers in runc, in its order, as a pod is: one network, volumes in common. The kubelet is the test."""
import re
import urllib.error
import urllib.request

import pytest
import yaml

import hosts
import netns
import oci
from test_image import NUMBER, fixture_image     # noqa: F401
from waiting import wait_until

pytestmark = pytest.mark.skipif(bool(oci.missing() or netns.unsupported()), reason=oci.missing() or netns.unsupported())

RULES, POD = yaml.safe_load_all((hosts.ROOT / "containers/kubernetes.yaml").read_text(encoding="utf-8"))
SPEC = POD["spec"]
METRICS, SMTPWARP, REDIRECT = SPEC["initContainers"]
TABLE = RULES["data"]["nftables-output.nft"]
PORT = METRICS["ports"][0]["containerPort"]


def plain(rules):
    return [" ".join(line.split()) for line in rules.splitlines() if line.strip() and not line.strip().startswith("#")]


def test_the_rules_are_those_of_units():
    shipped = (hosts.UNITS / "nftables-output.nft").read_text(encoding="utf-8")
    assert plain(TABLE) == plain(shipped.replace('"smtpwarp"', str(NUMBER)))


def test_the_parts_fit_together(image):
    assert [entry["name"] for entry in SPEC["initContainers"]] == ["metrics", "smtpwarp", "redirect"]
    for sidecar in METRICS, SMTPWARP:
        assert sidecar["image"] == f"localhost/{image.name}" and sidecar["restartPolicy"] == "Always"
        least = sidecar["securityContext"]
        assert f"{least['runAsUser']}:{least['runAsGroup']}" == image.config["User"]
        assert least["readOnlyRootFilesystem"] and not least["allowPrivilegeEscalation"] and least["capabilities"] == {"drop": ["ALL"]}
    assert REDIRECT["securityContext"]["capabilities"]["add"] == ["NET_ADMIN"]
    assert SMTPWARP["startupProbe"]["httpGet"]["port"] == PORT == int(POD["metadata"]["annotations"]["prometheus.io/port"])
    assert SPEC["containers"][0]["securityContext"]["runAsUser"] != NUMBER
    mounts = {mount["name"] for entry in SPEC["initContainers"] for mount in entry["volumeMounts"]}
    assert mounts == {volume["name"] for volume in SPEC["volumes"]}


class Pod:
    def __init__(self, net, image, state):
        self.net, self.image, self.state = net, image, state

    def start(self, entry):
        volumes = {mount["mountPath"]: self.state for mount in entry["volumeMounts"]}
        env = {setting["name"]: setting["value"] for setting in entry.get("env", [])}
        return self.image.run(self.net.host.ns, entrypoint=entry.get("command"), volumes=volumes, env=env)

    def probe(self):
        """What the kubelet's request is answered with."""
        probe = SMTPWARP["startupProbe"]["httpGet"]
        return self.get(probe["port"], probe["path"])[0]

    def get(self, port, path):
        with self.net.host.ns:
            try:
                answer = urllib.request.urlopen(f"http://127.0.0.1:{port}{path}")
                return answer.status, answer.read().decode()
            except urllib.error.HTTPError as error:
                return error.code, ""

    def accepted(self):
        counts = re.findall(r'^smtpwarp_messages_total\{.*result="accepted".*\} (\d+)$', self.get(PORT, "/metrics")[1], re.M)
        return sum(map(int, counts))


@pytest.fixture(name="pod")
def fixture_pod(image, tmp_path):
    state = tmp_path / "state"
    state.mkdir()
    state.chmod(0o777)      # as an emptyDir is
    with hosts.network() as net:
        net.serve()
        yield Pod(net, image, state)


def test_a_life(pod):
    """Start in order, mail, a kill and a restart, the end."""
    net = pod.net
    with pod.start(METRICS) as metrics:
        net.host.ns.wait_listening(PORT, alive=metrics.alive)
        assert pod.probe() == 503
        with pod.start(SMTPWARP) as smtpwarp:
            wait_until(lambda: pod.probe() == 200, smtpwarp.text)
            assert hosts.PORT in net.host.ns.listening_ports()
            for _ in range(2):      # an init container may run again
                net.host.ns.nft(TABLE)
            hosts.deliver(net.host.ns, net.mail.ip4)
            hosts.deliver(net.host.ns, net.mail.ip6)
            wait_until(lambda: pod.accepted() == 2)
        # The kernel has killed it: mail waits, it does not get past.
        with pytest.raises(ConnectionRefusedError):
            hosts.connect(net.host.ns, net.mail.ip4)
        with pod.start(SMTPWARP) as smtpwarp:
            net.host.ns.wait_listening(hosts.PORT, alive=smtpwarp.alive)
            client = hosts.greeted(net.host.ns, net.mail.ip4)
            smtpwarp.terminate()
            hosts.finish_at_stop(client)
            assert smtpwarp.runc.wait(60) == 0
        wait_until(lambda: pod.accepted() == 3)
        assert metrics.alive()
        assert len(net.messages) == 3
