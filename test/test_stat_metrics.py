"""smtpwarp-stat metrics: text, HTTP, and a real Prometheus."""
import json
import os
import pathlib
import random
import re
import shutil
import signal
import socket
import subprocess
import time

import pytest

from prometheus import Prometheus, free_port, get
from test_stat_query import ROOT, STAT, stat
from waiting import wait_until

SHARED = ["io/statefile.c", "io/file.c", "io/readable.c", "pure/statemap.c", "pure/detector.c", "pure/replyclass.c"]
TEXT, OPEN = "text/plain; version=0.0.4; charset=utf-8", "application/openmetrics-text; version=1.0.0; charset=utf-8"
PROMETHEUS_ACCEPT = "application/openmetrics-text;version=1.0.0,application/openmetrics-text;version=0.0.1;q=0.75,text/plain;version=0.0.4;q=0.5,*/*;q=0.1"


@pytest.fixture(scope="session")
def make_state(tmp_path_factory):
    """make_state(path, slots): a process that is one of smtpwarp's sessions."""
    program = tmp_path_factory.mktemp("make_state") / "make_state"
    subprocess.run(["gcc", "-std=c11", f"-I{ROOT}", "-o", program, ROOT / "test/lib/make_state.c", *(ROOT / name for name in SHARED)], check=True)

    def make(path, slots):
        process = subprocess.Popen([program, path, str(slots)], stdin=subprocess.PIPE)
        wait_until(lambda: path.exists() and "smtpwarp_sessions{} 1\n" in stat("metrics", "--state", path).stdout.decode())
        return process
    return make


@pytest.fixture
def state(make_state, tmp_path):
    path = tmp_path / "state"
    process = make_state(path, 40)
    yield path
    process.communicate()


def samples(text):
    """{name{labels}: value}, and that no two are the same."""
    found = {}
    for line in text.splitlines():
        if not line.startswith("#"):
            name, value = re.fullmatch(r'(\w+\{(?:\w+="(?:[^"\\]|\\.)*",?)*\}) (\S+)', line).groups()
            assert name not in found, name
            found[name] = float(value)
    return found


def request(path, head, wait=True):
    """One request as inetd passes it on: what comes back."""
    ours, theirs = socket.socketpair()
    process = subprocess.Popen([STAT, "metrics", "--http", "--state", path], stdin=theirs, stdout=theirs)
    theirs.close()
    ours.sendall(head)
    if wait:
        ours.shutdown(socket.SHUT_WR)
    answer = b""
    while data := ours.recv(65536):
        answer += data
    ours.close()
    assert process.wait() == 0
    head, _, body = answer.partition(b"\r\n\r\n")
    fields = dict(line.split(": ", 1) for line in head.decode().split("\r\n")[1:])
    return (head.split(b" ")[1].decode() if head else "", fields, body.decode())


def test_text(state):
    text = stat("metrics", "--state", state).stdout.decode()
    found = samples(text)
    assert found['smtpwarp_backoff_state{site="mx0",source="192.0.2.1"}'] == 2
    assert found['smtpwarp_backoff_state{site="mx1",source="192.0.2.2"}'] == 1
    assert found['smtpwarp_hold_seconds{site="mx0",source="192.0.2.1"}'] > 200
    assert found["smtpwarp_sessions{}"] == 1
    assert found['smtpwarp_hook_failures_total{hook="rspamd",event="rcpt"}'] == 1
    assert not any("_created" in name for name in found)
    for name in [name for name in found if name.startswith("smtpwarp_phase_seconds_count")]:
        assert found[name] == found[name.replace("_count{", "_bucket{").replace("}", ',le="+Inf"}')]
    checked = subprocess.run(["promtool", "check", "metrics"], input=text.encode(), capture_output=True)
    assert (checked.returncode, checked.stdout, checked.stderr) == (0, b"", b"")


def test_openmetrics(state):
    """A family's samples stand together under one name that no other has; counters end in _total; # EOF is the end."""
    text = stat("metrics", "--openmetrics", "--state", state).stdout.decode()
    assert text.endswith("\n# EOF\n")
    kinds, family = {}, None
    for line in text.splitlines()[:-1]:
        if line.startswith("# TYPE"):
            _, _, family, kind = line.split()
            assert family not in kinds and not (kind == "counter" and family.endswith("_total"))
            kinds[family] = kind
        elif not line.startswith("#"):
            suffix = line[len(family):line.index("{")]
            assert line.startswith(family) and suffix in {"counter": ("_total", "_created"), "gauge": ("",), "unknown": ("",),
                                                          "histogram": ("_bucket", "_sum", "_count", "_created")}[kinds[family]]
    assert samples(text)


def test_number_of_series_is_bounded(make_state, tmp_path):
    """200 sites, those that are not ok among them, and the rest as one; nothing is lost of the sum."""
    process = make_state(tmp_path / "state", 900)
    found = samples(stat("metrics", "--state", tmp_path / "state").stdout.decode())
    sites = {re.search('site="([^"]*)"', name)[1] for name in found if "site=" in name}
    assert len(sites) == 201 and {"mx0", "mx1", "other"} <= sites
    accepted = sum(value for name, value in found.items() if name.startswith("smtpwarp_messages_total") and "accepted" in name)
    assert accepted == sum(100000 - 50 * i + 1 + (i * 7 + 5) % 50 for i in range(900))
    begin = time.monotonic()
    stat("metrics", "--state", tmp_path / "state")
    print(f"metrics of 900 slots: {1000 * (time.monotonic() - begin):.0f} ms")
    process.communicate()


@pytest.mark.parametrize("seed", range(20))
def test_hostile_state(state, seed):
    """Sessions may write anything into the map: what comes out is well-formed all the same, and comes."""
    random_ = random.Random(seed)
    data = bytearray(state.read_bytes())
    for _ in range(4000 if seed % 2 else 400000):
        data[random_.randrange(64, len(data))] = random_.choice([0, 1, 34, 92, 10, 255, random_.randrange(256)])
    state.write_bytes(data)
    for options in [], ["--openmetrics"]:
        assert samples(stat("metrics", "--state", state, *options).stdout.decode())
    stat("top", "--json", "--state", state)


def test_no_state(tmp_path):
    assert str(tmp_path).encode() in stat("metrics", "--state", tmp_path / "none", status=66).stderr
    (tmp_path / "other").write_bytes(b"x" * 10000)
    stat("metrics", "--state", tmp_path / "other", status=66)
    assert request(tmp_path / "none", b"GET /healthz HTTP/1.1\r\n\r\n")[0] == "503"


@pytest.mark.parametrize("head, status, kind", [
    ("GET /metrics HTTP/1.1\r\nHost: a\r\n\r\n", "200", TEXT),
    ("GET /metrics?x=1 HTTP/1.0\n\n", "200", TEXT),
    (f"GET /metrics HTTP/1.1\r\nhost: a\r\naccept: {PROMETHEUS_ACCEPT}\r\n\r\n", "200", OPEN),
    ("HEAD /metrics HTTP/1.1\r\n\r\n", "200", TEXT),
    ("GET /healthz HTTP/1.1\r\n\r\n", "200", None),
    ("GET / HTTP/1.1\r\n\r\n", "404", None),
    ("POST /metrics HTTP/1.1\r\nContent-Length: 0\r\n\r\n", "405", None),
    ("GET /metrics\r\n\r\n", "400", None),
    ("\x00\r\n\r\n", "400", None),
    ("GET /" + "a" * 8187, "431", None)])
def test_http(state, head, status, kind):
    got, fields, body = request(state, head.encode())
    assert got == status and fields["Connection"] == "close"
    if kind:
        assert fields["Content-Type"] == kind
    if head.startswith("HEAD"):
        assert body == "" and int(fields["Content-Length"]) > 1000
    else:
        assert int(fields["Content-Length"]) == len(body.encode())
    assert "smtpwarp_sessions" in body or status != "200" or body == "ok\n" or head.startswith("HEAD")


def test_slow_client_is_left(state):
    """After 5 s, without a word."""
    begin = time.monotonic()
    assert request(state, b"GET /metrics HTTP/1.1\r\n", wait=False)[0] == ""
    assert 4 < time.monotonic() - begin < 30


def test_client_that_leaves(state):
    assert request(state, b"GET /met")[0] == ""


def reachable(port):
    try:
        socket.create_connection(("127.0.0.1", port)).close()
        return True
    except ConnectionRefusedError:
        return False


def test_listen(state):
    """Idle clients do not keep others waiting, up to a limit; SIGTERM ends it."""
    port = free_port()
    process = subprocess.Popen([STAT, "metrics", "--listen", f"127.0.0.1:{port}", "--state", state])
    wait_until(lambda: reachable(port))
    idle = [socket.create_connection(("127.0.0.1", port)) for _ in range(6)]
    assert "smtpwarp_build_info" in get(f"http://127.0.0.1:{port}/metrics")
    for client in idle:
        client.close()
    process.send_signal(signal.SIGTERM)
    assert process.wait() == 0


def test_listen_nowhere(state):
    assert stat("metrics", "--listen", "localhost", "--state", state, status=64)


@pytest.mark.skipif(not shutil.which("prometheus"), reason="prometheus is not installed")
def test_prometheus(state, tmp_path):
    """Scrapes by socket activation; each expression of the dashboard and of the alerts gives data there."""
    port = free_port()
    activate = subprocess.Popen(["systemd-socket-activate", "--accept", "-l", f"127.0.0.1:{port}", STAT, "metrics", "--http", "--state", state],
                                stderr=subprocess.DEVNULL)
    try:
        with Prometheus(tmp_path, f"127.0.0.1:{port}", [ROOT / "units/alerts.yml"]) as prometheus:
            prometheus.wait_scraped(3)
            board = json.loads((ROOT / "units/grafana.json").read_text())
            expressions = [target["expr"] for panel in board["panels"] for target in panel["targets"]]
            assert len(expressions) > 15
            for expression in expressions:
                asked = expression.replace("$__rate_interval", "1m").replace("$site", ".*")
                assert prometheus.ask(asked), asked
            rules = prometheus.api("rules")["groups"][0]["rules"]
            assert len(rules) == 8
            for rule in rules:
                prometheus.ask(rule["query"])
            assert prometheus.ask("smtpwarp_backoff_state >= 2")
    finally:
        activate.terminate()
        activate.wait()


def test_rules():
    checked = subprocess.run(["promtool", "check", "rules", ROOT / "units/alerts.yml"], capture_output=True, text=True)
    assert checked.returncode == 0, checked.stderr
