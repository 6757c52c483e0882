"""smtpwarp-stat(8), "AN MX SLOWS DOWN: WHAT YOU SEE": one hour of mail through a real smtpwarp, and what the commands that the page shows say
of it. Moments within a minute, and durations, differ each time; all else is as shown."""
import datetime
import html
import json
import re
import shutil
import subprocess
import time

import pytest

from test_stat_query import ROOT, STAT
from test_state import deliver, sink        # noqa: F401

US, MX = "198.51.100.10", "mx.example.net"
SLOW = 0.55     # seconds; below half a second nothing is slow
REFUSAL = f"421 4.7.28 Too many messages from {US}, please slow down"
HOUR = datetime.datetime(2026, 11, 28, 14, 0, tzinfo=datetime.timezone.utc)
SESSIONS = [(0, "fine", 20), (10, "fine", 20), (20, "fine", 20), *[(30 + 2 * i, "slow", 1) for i in range(6)],
            *[(44 + i, "busy", 1) for i in range(3)]]       # minute, mood of the server, messages
CHAPTER = (ROOT / "man/smtpwarp-stat.8").read_text().partition(".Sh AN MX SLOWS DOWN")[2].partition("\n.Sh ")[0]


def at(text):
    return datetime.datetime.fromisoformat(text.replace("Z", "+00:00"))


def written(moment):
    return moment.strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def move(path, minutes):
    """Gives the records of each session the time at which the hour had it."""
    records = [json.loads(line) for line in path.read_text().splitlines()]
    starts = {}
    for record in records:
        first, minute = starts.setdefault(record["session"], (at(record["time"]), minutes[min(len(starts), len(minutes) - 1)]))
        shift = HOUR + datetime.timedelta(minutes=minute) - first
        record["time"] = written(at(record["time"]) + shift)
        if record.get("until"):
            record["until"] = written(at(record["until"]) + shift)
    path.write_text("".join(json.dumps(record, separators=(",", ":")) + "\n" for record in records))


@pytest.fixture
def hour(warp, sink, host, tmp_path):       # noqa: F811
    """A directory with the files log and state."""
    mood = []

    def answer(verb, line, n):
        if verb == "DATA" and mood[-1] == "slow":
            time.sleep(SLOW)
        return REFUSAL if verb == "RCPT" and mood[-1] == "busy" else None

    host.ip(f"address add {US}/32 dev lo")
    server = sink(answer, banner=f"220 {MX} ESMTP")
    proxy = warp("--state", tmp_path / "state", "--outbound-ip", US, "--tls", "none", "--upstream", f"{MX}:{server.url.rpartition(':')[2]}",
                 "--log", f"file:{tmp_path}/log")
    proxy.etc(hosts=f"127.0.0.1 {MX}\n")
    for _, name, messages in SESSIONS:
        mood.append(name)
        deliver(proxy, messages, ["bob@example.net"])
        proxy.wait_exit()
    move(tmp_path / "log", [minute for minute, _, _ in SESSIONS])
    return tmp_path


def displays():
    """The commands of the chapter, each with the lines that it shows; what is indented by two belongs to the line before."""
    for text in re.findall(r"^\.Bd -literal.*\n([\s\S]*?)\.Ed$", CHAPTER, re.M):
        lines = re.sub(r"\n  (?! )", " ", text).splitlines()
        yield lines[0].removeprefix("$ "), lines[1:]


def steady(line):
    """Without blanks, moments and durations."""
    line = re.sub(r"(\d\d:\d\d):\d\d\.\d{6}Z", r"\1", line)
    return re.sub(r"\s", "", re.sub(r"\b[\d.]+m?s\b", "TIME", line))


def rows(page):
    """Of the report's table of times in which a site was not ok: its lines."""
    table = page.partition("Who slowed us down")[2].partition("</tbody>")[0]
    return "\n".join(html.unescape(re.sub("<[^>]*>", " ", row)) for row in re.findall("<tr>(.*)</tr>", table))


def shown(command, hour):
    files = {"log": hour / "log", "top": f"top --state {hour}/state", "metrics": f"metrics --state {hour}/state", "smtpwarp-stat": STAT}
    command = " ".join(str(files.get(word, word)) for word in command.split(" "))
    done = subprocess.run(["sh", "-c", command], capture_output=True, text=True, check=True, timeout=60)
    return (rows(done.stdout) if " report " in command else done.stdout).splitlines()


@pytest.mark.skipif(not shutil.which("jq"), reason="jq is not installed")
def test_chapter(hour):
    """The commands say what it shows, in this order."""
    commands = list(displays())
    assert {re.sub(r"^smtpwarp-stat ", "", command).split()[0] for command, _ in commands} == {"jq", "query", "top", "metrics", "report"}
    for command, lines in commands:
        said = shown(command, hour)
        rest = iter([steady(line) for line in said])
        assert lines and [line for line in lines if steady(line) not in rest] == [], (command, said)
