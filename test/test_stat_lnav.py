"""units/smtpwarp.lnav.json: a real lnav reads a log of smtpwarp's as a table."""
import csv
import io
import json
import os
import re
import shutil
import subprocess

import pytest

from test_stat_query import ROOT

FORMAT = ROOT / "units/smtpwarp.lnav.json"
PAGE = (ROOT / "man/smtpwarp-stat.8").read_text()
pytestmark = pytest.mark.skipif(not shutil.which("lnav"), reason="lnav is not installed")


@pytest.fixture
def lnav(tmp_path):
    """lnav(log, query): the rows, by name, as text; without a query what it shows."""
    def run(*arguments):
        done = subprocess.run(["lnav", *map(str, arguments)], env={"PATH": os.environ["PATH"], "HOME": str(tmp_path), "TZ": "UTC",
                                                                    "LC_ALL": "C.UTF-8"}, capture_output=True, text=True, timeout=60)
        assert done.returncode == 0 and "error" not in done.stderr, done.stderr
        return done.stdout

    run("-i", FORMAT)
    run("-C")

    def ask(log, query=None):
        if not query:
            return run("-n", log)
        text = run("-n", "-c", f";{query}", "-c", ":write-csv-to -", log)   # lnav 0.11 writes no good JSON of "127.0.0.1"
        return list(csv.DictReader(io.StringIO(text)))
    return ask


REPLIES = {"ok": "", "full": "452 4.2.2 mailbox is full", "none": "550 5.1.1 no such user", "busy": "451 4.7.28 slow down, please"}


@pytest.fixture
def log(warp, mail_server, tmp_path):
    """By a listener: a message for two recipients, some that are deferred, one that is rejected."""
    server = mail_server(replies={"RCPT": lambda line: REPLIES[re.search("<(\\w+)@", line)[1]]})
    made = warp("--tls", "none", "--state", tmp_path / "state", upstream=server).listen()
    for recipients in ["ok", "full"], ["busy"], ["busy"], ["busy"], ["none"]:
        client = made.connect()
        client.expect("220")
        client.ask("EHLO client.example")
        client.ask("MAIL FROM:<a@client.example>", "250")
        for recipient in recipients:
            client.ask(f"RCPT TO:<{recipient}@mail.test>", REPLIES[recipient] or "250")
        if "ok" in recipients:
            client.ask("DATA", "354")
            client.send("Subject: hello", "", "Hello.", ".")
            client.expect("250")
        client.ask("QUIT", "221")
        client.expect_end()
    made.close()
    return made.log_path


def as_text(value):
    return "<NULL>" if value is None else json.dumps(value, separators=(",", ":")) if isinstance(value, (dict, list)) else str(value)


def test_records_are_rows(lnav, log):
    records = [json.loads(line) for line in log.read_text().splitlines()]
    rows = lnav(log, "select * from smtpwarp_log")
    assert [row["event"] for row in rows] == [record["event"] for record in records] and len(rows) > 9
    columns = [name for name in rows[0] if not name.startswith("log_") and "/" not in name]
    for record, row in zip(records, rows):
        assert {name: row[name] for name in columns} == {name: as_text(record.get(name)) for name in columns}
    levels = {(row["result"], row["log_level"]) for row in rows if row["event"] == "message"}
    assert levels == {("accepted", "info"), ("deferred", "warning"), ("rejected", "error")}


def test_queries_of_the_manual(lnav, log):
    queries = [query.replace("\\(aq", "'").replace("\\e", "\\") for query in re.findall(r"^\.Dl ;(.*)$", PAGE, re.M)]
    assert len(queries) == 2
    assert lnav(log, queries[0]) == [{"refused": name, "recipients": str(n)} for name, n in (
        ("throttle", 3), ("mailbox-full", 1), ("unknown-user", 1))]
    changes = lnav(log, queries[1])
    assert [(row["site"], row["before"], row["after"]) for row in changes] == [("127.0.0.0/24", "ok", "throttled")]


def test_line(lnav, log):
    """What lnav shows of a record."""
    text = lnav(log)
    assert re.search(r"^\S+ \S+ message 127\.0\.0\.0/24 +a@client\.example none@mail\.test 550 unknown-user 5\.1\.1 no such user *$", text, re.M)
    assert len(text.splitlines()) == len(log.read_text().splitlines())


def test_columns_are_fields_of_the_log():
    """smtpwarp-log(5) has each; names that SQL reserves cannot be columns: lnav then makes no table."""
    columns = json.loads(FORMAT.read_text())["smtpwarp_log"]["value"]
    fields = set(re.findall(r"[a-z_]+", " ".join(re.findall(r"^\.(?:It )?Va (.*)$", (ROOT / "man/smtpwarp-log.5").read_text(), re.M))))
    assert {part for name in columns for part in re.split("#?/", name)} <= fields
    assert not set(columns) & {"from", "to", "on", "transaction"}
