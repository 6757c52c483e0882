"""Log hooks that are slow or fail: what reaches them nevertheless, and what the log says of them."""
import json
import re
import time

import pytest

from hooks import Hooks
from warp import BINARY, MESSAGE


@pytest.fixture
def hooks(tmp_path):
    return Hooks(tmp_path / "hooks")


def lines(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


# Records of messages are never lost while their hook reads

def test_hook_that_reads_at_the_end_gets_every_message(warp, mail_server, hooks, tmp_path):
    """Commands and replies give way: those about 6,000 recipients are more than may wait."""
    hooks.script("log", f"while [ ! -e {tmp_path}/now ]; do sleep 0.05; done; cat >{tmp_path}/part; mv {tmp_path}/part {tmp_path}/all")
    proxy = warp(*hooks.options, upstream=mail_server("PIPELINING"))
    client = proxy.greeted()
    for number in range(6):
        client.send(f"MAIL FROM:<a{number}@client.example>", *[f"RCPT TO:<{'r' * 50}{rcpt}@{'d' * 50}.example>" for rcpt in range(1000)], "DATA")
        assert client.replies_to(354).count(250) == 1001
        client.send_raw(MESSAGE)
        client.expect("250")
    client.ask("QUIT", "221")
    client.expect_end()
    (tmp_path / "now").touch()
    proxy.wait_exit()
    records = lines(tmp_path / "all")
    messages = [record for record in records if record["event"] == "message"]
    assert [record["mail_from"]["address"] for record in messages] == [f"a{number}@client.example" for number in range(6)]
    assert all(len(record["rcpt_to"]) == 1000 for record in messages)
    assert records[-1]["event"] == "close" and records[-1]["log_dropped"] > 0
    assert len(records) + records[-1]["log_dropped"] > 6 * 2000      # what is lost is counted


def test_what_waits_is_sent_while_the_session_idles(warp, mail_server, hooks, tmp_path):
    hooks.script("log", f"while [ ! -e {tmp_path}/now ]; do sleep 0.05; done; exec cat >{tmp_path}/all")
    proxy = warp(*hooks.options, upstream=mail_server("PIPELINING"))
    client = proxy.greeted()
    client.send(*["RSET"] * 400)
    assert [client.reply().code for _ in range(400)] == [250] * 400
    (tmp_path / "now").touch()
    proxy.wait_until(lambda: (tmp_path / "all").exists() and (tmp_path / "all").read_text().count('"RSET"') == 400, "all lines")


@pytest.mark.skipif("asan" in BINARY, reason="a sanitizer's memory is counted as well")
def test_a_long_session_with_a_slow_hook_stays_small(warp, mail_server, hooks):
    """What waits, at most 4 MiB here, moves to the front of the queue as the rest is taken: 60 MB of records do not wander through all
    32 MiB."""
    hooks.script("log", "exec perl -e 'while (sysread(STDIN, $x, 1 << 20)) { select(undef, undef, undef, 0.002) }'")
    proxy = warp(*hooks.options, upstream=mail_server("PIPELINING"))
    client = proxy.greeted()
    for _ in range(300):
        client.send(*["RSET"] * 300)
        for _ in range(300):
            client.reply()
    with open(f"/proc/{proxy.processes[-1].pid}/status") as status:
        assert int(re.search(r"RssAnon:\s*(\d+) kB", status.read())[1]) < 10_000
    client.ask("QUIT", "221")
    proxy.wait_exit()


# A log hook that fails

@pytest.mark.parametrize("script, text", [
    ("cat >/dev/null; echo the database is gone >&2; exit 75", "exit status 75: the database is gone"),
    ("exit 3", "exit status 3"), ("kill -9 $$", "killed by signal 9"),
    ("echo stuck >&2; exec sleep 1000", "it did not end in time: stuck")])
def test_failure_of_a_log_hook_is_logged(warp, mail_server, hooks, script, text):
    hooks.script("log", script)
    hooks.script("log", "cat >/dev/null; exit 9", "60-another")
    proxy = warp(*hooks.options, "--hook-timeout", 0.5, upstream=mail_server())
    proxy.greeted().ask("QUIT", "221")
    proxy.wait_exit()
    told = [(record["hook"], record["text"]) for record in proxy.records("verdict", on="log", verdict="failed")]
    assert told == [("50-test", text), ("60-another", "exit status 9")]


@pytest.mark.parametrize("name", ["file", "journal", "mysql", "slack", "sqlite"])
def test_hooks_that_ship_fail_aloud(warp, mail_server, hooks, name):
    hooks.link("log", name)
    proxy = warp(*hooks.options, upstream=mail_server())
    proxy.greeted().ask("QUIT", "221")
    proxy.wait_exit()
    record, = proxy.records("verdict", on="log", verdict="failed")
    assert record["text"].startswith("exit status 7") and f": {name}: " in record["text"]


def test_listener_logs_a_failure_once_a_minute(warp, mail_server, hooks):
    hooks.script("log", "cat >/dev/null; exit 3")
    hooks.script("log", "cat >/dev/null; exit 4", "60-another")
    proxy = warp(*hooks.options, upstream=mail_server()).listen()
    for _ in range(5):
        client = proxy.greeted()
        client.ask("QUIT", "221")
        client.expect_end()
    proxy.wait_until(lambda: not proxy.children(), "the end of the sessions")
    assert sorted(record["text"] for record in proxy.records("verdict")) == ["exit status 3", "exit status 4"]
