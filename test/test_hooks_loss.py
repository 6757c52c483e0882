"""Log hooks that are slow or fail: what reaches them nevertheless, and what the log says of them."""
import json
import time

import pytest

from hooks import Hooks
from warp import MESSAGE


@pytest.fixture
def hooks(tmp_path):
    return Hooks(tmp_path / "hooks")


def lines(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


# Records of messages are never lost while their hook reads

def test_hook_that_reads_at_the_end_gets_every_message(warp, mail_server, hooks, tmp_path):
    """Commands and replies give way: 100 recipients in one segment fill a pipe several times."""
    hooks.script("log", f"while [ ! -e {tmp_path}/now ]; do sleep 0.05; done; cat >{tmp_path}/part; mv {tmp_path}/part {tmp_path}/all")
    proxy = warp(*hooks.options, upstream=mail_server("PIPELINING"))
    client = proxy.greeted()
    for number in range(20):
        client.send(f"MAIL FROM:<a{number}@client.example>", *[f"RCPT TO:<{'r' * 50}{rcpt}@{'d' * 50}.example>" for rcpt in range(100)], "DATA")
        assert client.replies_to(354).count(250) == 101
        client.send_raw(MESSAGE)
        client.expect("250")
    client.ask("QUIT", "221")
    client.expect_end()
    (tmp_path / "now").touch()
    proxy.wait_exit()
    records = lines(tmp_path / "all")
    messages = [record for record in records if record["event"] == "message"]
    assert [record["mail_from"]["address"] for record in messages] == [f"a{number}@client.example" for number in range(20)]
    assert all(len(record["rcpt_to"]) == 100 for record in messages)
    assert records[-1]["event"] == "close" and records[-1]["log_dropped"] > 0
    assert len(records) + records[-1]["log_dropped"] > 20 * 200      # what is lost is counted


def test_what_waits_is_sent_while_the_session_idles(warp, mail_server, hooks, tmp_path):
    hooks.script("log", f"while [ ! -e {tmp_path}/now ]; do sleep 0.05; done; exec cat >{tmp_path}/all")
    proxy = warp(*hooks.options, upstream=mail_server("PIPELINING"))
    client = proxy.greeted()
    client.send(*["RSET"] * 400)
    assert [client.reply().code for _ in range(400)] == [250] * 400
    (tmp_path / "now").touch()
    proxy.wait_until(lambda: (tmp_path / "all").exists() and (tmp_path / "all").read_text().count('"RSET"') == 400, "all lines")
