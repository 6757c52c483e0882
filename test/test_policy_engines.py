"""Engines of MTA-STS, and what they say understood: mta-sts-daemon, which fetches policies from a web server of the test's, and a stand-in
that says what postfix-tlspol does."""
import json
import os
import subprocess

import pytest

import building
from nameservers import Nsd
from policies import DAEMON, MtaStsDaemon, PolicyServer, SocketMap

needs_daemon = pytest.mark.skipif(not os.path.exists(DAEMON), reason="postfix-mta-sts-resolver is not installed")
ENFORCED = ["version: STSv1", "mode: enforce", "mx: mx1.sts.test", "mx: *.mail.sts.test", "max_age: 86400"]
TESTED = ["version: STSv1", "mode: testing", "mx: mx1.testing.test", "max_age: 86400"]
ZONES = {name: ['_mta-sts TXT "v=STSv1; id=20260101;"', "mta-sts A 127.0.0.1"] for name in ("sts.test", "testing.test", "stranger.test")}
ZONES["none.test"] = ["@ MX 10 mx"]


@pytest.fixture(scope="module")
def ask_map():
    return building.program("ask_map")


@pytest.fixture
def ask(host, ask_map):
    return lambda where, domain: json.loads(subprocess.run([ask_map, where, domain], capture_output=True, text=True, check=True).stdout)


@pytest.fixture
def web(host, tmp_path, certs):
    served = {"sts.test": ENFORCED, "testing.test": TESTED, "stranger.test": ENFORCED}
    with Nsd(host, tmp_path / "nsd", ZONES), PolicyServer(certs.context("mta-sts"), served) as server:
        yield server


@needs_daemon
@pytest.mark.parametrize("port", [None, 8461], ids=["unix", "tcp"])
def test_mta_sts_daemon(host, web, ask, certs, tmp_path, port):
    with MtaStsDaemon(host, tmp_path / "engine", certs.ca, port) as engine:
        said = ask(engine.map, "STS.test")
        assert (said["result"], said["fault"], said["level"], said["servername"]) == ("found", None, "secure", "hostname")
        assert sorted(said["match"]) == [".mail.sts.test", "mx1.sts.test"]
        assert ask(engine.map, "testing.test")["result"] == "nothing"
        strict = ask(engine.map.replace(":postfix", ":strict"), "testing.test")
        assert (strict["level"], strict["match"]) == ("secure", ["mx1.testing.test"])
        assert ask(engine.map, "none.test")["result"] == "nothing"
        assert ask(engine.map, "stranger.test")["result"] == "nothing"      # whose web server has a certificate for others
        assert set(web.asked) == {"sts.test", "testing.test"}


@needs_daemon
def test_nobody_trusts_the_web_server(host, web, ask, certs, tmp_path):
    with MtaStsDaemon(host, tmp_path / "engine", certs.authority("foreign")) as engine:
        assert ask(engine.map, "sts.test")["result"] == "nothing"
    assert web.asked == []


@needs_daemon
def test_an_engine_that_is_gone(host, web, ask, certs, tmp_path):
    with MtaStsDaemon(host, tmp_path / "engine", certs.ca) as engine:
        where = engine.map
    said = ask(where, "sts.test")
    assert (said["result"], said["failure"]) == ("bad", "the map's server: Connection refused")


# What postfix-tlspol says by its name QUERYwithTLSRPT, as its source has it.
TLSPOL = (b"OK secure match=mx1.sts.test:.mail.sts.test servername=hostname policy_type=sts policy_domain=sts.test policy_ttl=86400 "
          b"mx_host_pattern=mx1.sts.test mx_host_pattern=*.mail.sts.test" +
          b"".join(b" { policy_string = %s }" % line.encode() for line in ENFORCED))


@pytest.mark.parametrize("reply, wanted", [
    (TLSPOL, {"result": "found", "fault": None, "level": "secure", "sts": True, "testing": False, "domain": "sts.test", "strings": ENFORCED,
              "mx": ["mx1.sts.test", "*.mail.sts.test"]}),
    (TLSPOL.replace(b"mode: enforce", b"mode: testing"), {"level": "secure", "testing": True}),
    (b"OK dane-only", {"level": "dane-only", "sts": False}),
    (b"OK dane", {"level": "dane"}),
    (b"TEMP ", {"result": "failed", "failure": "TEMP "}),
    (b"OK secure match=", {"result": "found", "fault": "an attribute has no value"}),
    (None, {"result": "bad", "failure": "the map's server: the connection ended before the reply"}),
    ((b"6:OK may;",), {"result": "bad", "failure": "the map's server: the reply is malformed"}),
], ids=["sts", "testing", "dane-only", "dane", "temp", "fault", "hangs-up", "malformed"])
def test_stand_in(ask, tmp_path, reply, wanted):
    with SocketMap(tmp_path / "map.sock", {b"QUERYwithTLSRPT sts.test": reply}) as server:
        said = ask(f"{server.map}:QUERYwithTLSRPT", "sts.test")
        assert said.items() >= wanted.items() and server.questions == [b"QUERYwithTLSRPT sts.test"]
