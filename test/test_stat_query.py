"""smtpwarp-stat query: filters, totals, and log files of all kinds."""
import collections
import json
import os
import pathlib
import re
import subprocess

import pytest

import logs

ROOT = pathlib.Path(__file__).resolve().parent.parent
STAT = os.path.abspath(os.environ.get("SMTPWARP", ROOT / "smtpwarp")) + "-stat"


def stat(*arguments, status=0, **options):
    done = subprocess.run([STAT, *map(str, arguments)], capture_output=True, timeout=60, **options)
    assert done.returncode == status, done.stderr
    return done


def found(*arguments):
    return [json.loads(line) for line in stat("query", "--json", *arguments).stdout.splitlines()]


@pytest.fixture(scope="module")
def log(tmp_path_factory):
    path = tmp_path_factory.mktemp("log") / "log"
    logs.write_log(path, 2000)
    return path


@pytest.fixture(scope="module")
def records(log):
    return [json.loads(line) for line in log.read_text().splitlines()]


def test_change_of_state(log):
    """A line, with why and the last refusal."""
    lines = stat("query", log).stdout.decode().splitlines()
    assert re.fullmatch(r"\S+ backoff gmail slow -> throttled \(replies\) 4\.7\.28 Our .*", next(line for line in lines if " -> throttled" in line))


def recipients(records):
    return [(record, to) for record in records if record["event"] == "message" for to in record["rcpt_to"]]


def test_totals(log, records):
    """The same figures as counted here."""
    totals = json.loads(stat("query", "--totals", "--json", log).stdout)
    outcomes = recipients(records)
    assert totals["records"] == len(records) and totals["outcomes"] == len(outcomes)
    for name, value in [("class", lambda record, to: to["class"]), ("site", lambda record, to: record["site"]),
                        ("code", lambda record, to: str(to["code"]))]:
        assert totals[name] == collections.Counter(value(*outcome) for outcome in outcomes)
        assert list(totals[name].values()) == sorted(totals[name].values(), reverse=True)
    text = stat("query", "--totals", log).stdout.decode()
    assert f"{len(outcomes)} recipients" in text and "throttle" in text and "gmail" in text


FILTERS = {
    "class": (["--class", "throttle"], lambda record, to: to["class"] == "throttle"),
    "code": (["--code", "550"], lambda record, to: to["code"] == 550),
    "codes": (["--code=5xx"], lambda record, to: to["code"] >= 500),
    "to": (["--to", "user1*@GMAIL.example"], lambda record, to: to["address"].startswith("user1") and "@gmail." in to["address"]),
    "text": (["--text", "*mailbox is FULL"], lambda record, to: "mailbox is full" in to.get("text", "")),
    "site and class": (["--site", "yahoo", "--class", "content"],
                       lambda record, to: record["site"] == "yahoo" and to["class"] == "content"),
    "from": (["--code", "250", "--from", "sender3@*"], lambda record, to: to["code"] == 250 and
             record["mail_from"]["address"].startswith("sender3@")),
    "client": (["--class", "ok", "--client", "10.0.0.8/29"], lambda record, to: to["class"] == "ok" and
               8 <= int(record["client"]["ip"].split(".")[3]) < 16),
    "time": (["--class", "ok", "--since", "2026-11-24T06:00", "--until", "2026-11-24T06:30:00Z"],
             lambda record, to: to["class"] == "ok" and "2026-11-24T06:00" <= record["time"] < "2026-11-24T06:30"),
    "session": (["--class", "ok", "--session", "01M7XC00000000000000000010"],
                lambda record, to: to["class"] == "ok" and record["session"] == "01M7XC00000000000000000010"),
}


@pytest.mark.parametrize("name", FILTERS)
def test_filter(log, records, name):
    options, wanted = FILTERS[name]
    expected = []
    for record, to in recipients(records):
        if wanted(record, to) and record not in expected[-1:]:
            expected.append(record)
    assert expected and found(*options, log) == expected
    lines = stat("query", *options, log).stdout.decode().split("\n\n")[0].splitlines()
    assert len(lines) == sum(wanted(record, to) for record, to in recipients(records))


def test_refusals_without_message(tmp_path):
    """A greeting that refuses and a refused EHLO are outcomes; a good greeting is none."""
    at = logs.BEGIN
    made = [logs.record("connect", at, "A", "gmail", code=554, **{"class": "blocklist"}, text="listed by example"),
            logs.record("connect", at, "B", "gmail", code=220, **{"class": "ok"}),
            logs.record("refusal", at, "C", "gmail", stage="ehlo", code=421, enhanced="4.7.0", **{"class": "throttle"}, text="wait"),
            logs.record("message", at, "D", "gmail", reply={"code": 451, "enhanced": None, "text": "no sender", "class": "other"})]
    (tmp_path / "log").write_text("".join(json.dumps(record) + "\n" for record in made))
    totals = json.loads(stat("query", "--totals", "--json", tmp_path / "log").stdout)
    assert totals["class"] == {"blocklist": 1, "throttle": 1, "other": 1}
    assert [record["session"] for record in found("--text", "listed*", tmp_path / "log")] == ["A"]


def test_records_of_older_releases(tmp_path):
    """Without site and class: the server's network, and what the code says."""
    made = [logs.record("message", logs.BEGIN, "A", site, rcpt_to=[{"address": "a@b.example", "params": {}, "code": 550, "enhanced": None}])
            for site in ("gmail", "2001:db8:7::/48")]
    for record in made:
        del record["site"]
    (tmp_path / "log").write_text("".join(json.dumps(record) + "\n" for record in made))
    totals = json.loads(stat("query", "--totals", "--json", tmp_path / "log").stdout)
    assert totals["site"] == {"192.0.2.0/24": 1, "2001:db8:7::/48": 1} and totals["class"] == {"other": 2}


@pytest.mark.parametrize("packer", ["gzip", "zstd"])
def test_compressed(log, tmp_path, packer):
    """By its content, whatever its name; together with plain files. One that is cut is read as far as it goes."""
    packed = tmp_path / "log.1"
    packed.write_bytes(subprocess.run([packer, "-c", log], capture_output=True, check=True).stdout)
    once = json.loads(stat("query", "--totals", "--json", log).stdout)
    both = json.loads(stat("query", "--totals", "--json", log, packed).stdout)
    assert both["outcomes"] == 2 * once["outcomes"]
    packed.write_bytes(packed.read_bytes()[:-1000])
    cut = stat("query", "--totals", packed, status=66)
    assert packer.encode() in cut.stderr
    missing = stat("query", packed, status=66, env={"PATH": "/nowhere"})
    assert b"cannot be run" in missing.stderr


def test_torn_and_wrong_lines(log, tmp_path):
    """A torn last line is skipped and counted, and so is what is no record."""
    lines = log.read_text().splitlines()
    (tmp_path / "log").write_text("\n".join(lines[:50]) + '\nno record\n{"v":1}\n[1]\n' + lines[50] + "}\n" + lines[51][:-30])
    done = stat("query", "--totals", "--json", tmp_path / "log")
    totals = json.loads(done.stdout)
    assert (totals["records"], totals["torn"], totals["wrong"]) == (50, 1, 4)
    assert b"skipped" in done.stderr


def test_standard_input_and_long_lines(log):
    lines = log.read_bytes()
    done = stat("query", "--totals", "--json", input=lines + b"x" * (5 << 20) + b"\n" + lines)
    assert json.loads(done.stdout)["records"] == 2 * lines.count(b"\n") and b"longer than" in done.stderr


def test_texts_cannot_harm_a_terminal(tmp_path):
    record = logs.record("message", logs.BEGIN, "A", "gmail", rcpt_to=[
        {"address": "a@\x1b]0;x\x07.example", "params": {}, "code": 550, "text": "\u202eevil\u009b31m\x1b[2J\r\n", "class": "other"}])
    (tmp_path / "log").write_bytes(json.dumps(record).encode() + b"\n" + json.dumps(record, ensure_ascii=False).encode() + b"\n")
    shown = stat("query", tmp_path / "log").stdout.decode()
    assert not set(shown) & set("\x1b\r\x07\u202e\u009b") and "evil" in shown


@pytest.mark.parametrize("arguments", [[], ["nothing"], ["query", "--colour"], ["query", "--code", "9xx"], ["query", "--since", "soon"],
                                       ["query", "--client", "localhost"], ["query", "--site"], ["query", "--json=1"]])
def test_usage(arguments):
    assert b"--help" in stat(*arguments, status=64).stderr


def test_static_and_small():
    """The limit is its own: what it has in it is in the manual."""
    segments = subprocess.run(["readelf", "-lW", ROOT / "smtpwarp-stat"], capture_output=True, text=True, check=True).stdout
    assert "INTERP" not in segments and (ROOT / "smtpwarp-stat").stat().st_size <= 200_000
