"""smtpwarp-stat top: in a terminal (tmux), as a table, and as JSON."""
import json
import os
import re
import subprocess

import pytest

from test_stat_metrics import make_state, state       # noqa: F401
from test_stat_query import STAT, stat
from test_state import deliver, sink                   # noqa: F401
from waiting import wait_until


class Terminal:
    """A tmux server of its own, with one window."""

    def __init__(self, directory, width, height, *command):
        self.socket = directory / "tmux"
        self.tmux("-f", "/dev/null", "new-session", "-d", "-x", str(width), "-y", str(height), *map(str, command))
        self.tmux("set-option", "-g", "status", "off")
        self.tmux("set-option", "-g", "window-size", "manual")

    def tmux(self, *arguments):
        return subprocess.run(["tmux", "-S", self.socket, *arguments], capture_output=True, text=True, timeout=30,
                              env={**os.environ, "TERM": "xterm", "LC_ALL": "C.UTF-8"})

    def lines(self):
        return self.tmux("capture-pane", "-p").stdout.splitlines()

    def key(self, *keys):
        self.tmux("send-keys", *keys)

    def shows(self, pattern):
        wait_until(lambda: re.search(pattern, "\n".join(self.lines()), re.M))
        return self.lines()

    def resize(self, width, height):
        self.tmux("resize-window", "-x", str(width), "-y", str(height))

    def running(self):
        return self.tmux("list-sessions").returncode == 0

    def close(self):
        self.tmux("kill-server")


@pytest.fixture
def terminal(tmp_path, state):     # noqa: F811
    made = Terminal(tmp_path, 100, 24, STAT, "top", "--state", state)
    yield made
    made.close()


def test_table(state):      # noqa: F811
    lines = stat("top", "--state", state).stdout.decode().splitlines()
    assert re.match(r"SITE +SOURCE +MSG +MSG/S +OK% +4XX% +CLASS +P50 +P95 +STATE +HOLD$", lines[0].rstrip())
    assert re.match(r"mx0 +192\.0\.2\.1 .* throttled +\d+s", lines[1]) and re.match(r"mx1 .* slow ", lines[2])
    assert "\033" not in "".join(lines)


def test_json(state):       # noqa: F811
    made = json.loads(stat("top", "--json", "--state", state).stdout)
    assert made["sessions"] == 1
    first = made["sites"][0]
    assert (first["site"], first["source"], first["state"]) == ("mx0", "192.0.2.1", "throttled")
    assert first["text"].startswith("4.7.28 rate of mail") and "\x1b" not in first["text"]


def test_refused_before_recipients(warp, sink, tmp_path):      # noqa: F811
    """A server that refuses at MAIL, or in its greeting, does not look as if all were well."""
    for answer, banner in [(lambda verb, line, n: "421 4.7.28 slow down" if verb == "MAIL" else None, "220 mx.example"), (None, "421 4.7.28 slow down")]:
        server = sink(*[answer] * bool(answer), banner=banner)
        proxy = warp("--tls", "none", "--state", tmp_path / server.url, upstream=server)
        for _ in range(3):
            if answer:
                deliver(proxy)
            else:
                proxy.connect().expect("421")
            proxy.wait_exit()
        row = stat("top", "--state", tmp_path / server.url).stdout.decode().splitlines()[1].split()
        assert row[0] == "127.0.0.0/24" and row[4:7] == ["0", "100", "throttle"] and row[9] == "throttled"


def test_keys(terminal):
    lines = terminal.shows(r"^mx0 .*throttled")
    assert "1 session, " in lines[0] and "by state" in lines[0] and re.match(r"SITE .* STATE +HOLD$", lines[1])
    terminal.shows(r"^mx0 .*throttled +\d+s$")
    terminal.shows(r"^mx0 .* 0\.0 ")            # a rate, after a second
    terminal.key("s")
    terminal.shows("by messages a second")
    terminal.key("s")
    terminal.shows("by messages  ")
    terminal.key("s", "s", "s")
    terminal.shows("by state")
    terminal.key("r")
    terminal.shows(r", counted for \d+ s[\s\S]*^mx0 +192\.0\.2\.1 +0 +0\.0 +- +- - +- +throttled")
    terminal.key("r")
    terminal.shows(r"^mx0 +192\.0\.2\.1 +100\d\d\d .* [\d.]+s throttled")
    terminal.key("Enter")
    terminal.shows(r"mx0 from 192\.0\.2\.1: throttled[\s\S]*last refusal \(throttle\): 4\.7\.28")
    terminal.key("Enter", "Down", "Enter")
    terminal.shows(r"mx1 from 192\.0\.2\.2: slow")
    terminal.key("q")
    wait_until(lambda: not terminal.running())


def test_resize(terminal):
    """Columns go as there is less room; nothing wraps."""
    assert "SOURCE" in terminal.shows(r"^mx0 .*throttled")[1]
    terminal.resize(45, 10)
    lines = terminal.shows(r"^SITE +STATE +HOLD *$|^SITE +(?!SOURCE)\S.*STATE")
    wait_until(lambda: "SOURCE" not in terminal.lines()[1] and len(terminal.lines()) <= 10)
    lines = terminal.lines()
    assert "STATE" in lines[1] and lines[2].startswith("mx0") and all(len(line) <= 45 for line in lines)
    terminal.resize(14, 5)
    wait_until(lambda: terminal.lines()[1].strip() == "SITE")
    terminal.resize(160, 40)
    terminal.shows("SOURCE .* STATE")


def test_detail_in_a_narrow_terminal(terminal):
    """The last refusal wraps."""
    terminal.shows(r"^mx0 .*throttled")
    terminal.resize(30, 20)
    terminal.key("Enter")
    lines = terminal.shows("of mail")
    begin = next(i for i, line in enumerate(lines) if "last refusal" in line)
    assert "".join(line.ljust(30) for line in lines[begin:begin + 3]).startswith(' last refusal (throttle): 4.7.28 rate of mail from "us" \\')


def test_state_goes(terminal, state):       # noqa: F811
    """The terminal is as it was, and the reason is said."""
    terminal.shows(r"^mx0")
    terminal.tmux("set-option", "-g", "remain-on-exit", "on")
    state.unlink()
    wait_until(lambda: re.search(r"smtpwarp-stat: .*state:", terminal.tmux("capture-pane", "-p", "-J", "-S", "-9").stdout))


def test_usage(state):      # noqa: F811
    stat("top", "--colour", status=64)
    stat("top", "--state", f"{state}-none", status=66)
