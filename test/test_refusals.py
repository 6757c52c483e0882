"""Why the upstream refuses: classes of its replies in records and for hooks, and the rules of --reply-rules. smtpwarp-replies(5)."""
import json
import os
import signal
import subprocess
import time

import pytest

from hooks import Hooks
from warp import BINARY

LATE = ["--connect-on", "recipient", "--hostname", "proxy.example"]
GOOGLE = ("421-4.7.28 [192.0.2.1 15] Our system has detected an unusual rate of\n"
          "421-4.7.28 unsolicited mail originating from your IP address. To protect our\n"
          "421 4.7.28 users from spam, mail has been temporarily rate limited.")


@pytest.fixture
def hooks(tmp_path):
    return Hooks(tmp_path / "hooks")


@pytest.fixture
def rules(tmp_path):
    """rules(line, ...): a file of these rules, with a blank for each TAB."""
    def make(*lines, name="rules"):
        path = tmp_path / name
        path.write_text("".join(line.replace(" ", "\t", 2).replace(" => ", "\t").replace(" & ", "\t") + "\n" for line in lines))
        return path
    return make


def refused_rcpt(session, reply, recipient="to@server.example"):
    session.exchange(f"RCPT TO:<{recipient}>", reply)


def recipients(record):
    return [(rcpt["code"], rcpt["class"], rcpt.get("text"), rcpt.get("by")) for rcpt in record["rcpt_to"]]


def test_recipients(warp):
    proxy = warp()
    session = proxy.session()
    session.greet()
    session.mail()
    refused_rcpt(session, "550 5.1.1 Nobody")
    refused_rcpt(session, "452-4.2.2 The mailbox\n452 4.2.2 is full")
    session.rcpt()
    session.data()
    session.body()
    session.dot()
    session.sent()
    message = proxy.wait_for("message")
    assert recipients(message) == [(550, "unknown-user", "5.1.1 Nobody", "upstream"),
                                   (452, "mailbox-full", "4.2.2 is full", "upstream"), (250, "ok", None, None)]
    assert message["reply"] == {"code": 250, "enhanced": "2.0.0", "text": "2.0.0 taken", "class": "ok"}


@pytest.mark.parametrize("phase, command, reply, kind", [
    ("ehlo", "MAIL FROM:<a@b.example>", "550 5.1.8 No such domain", "bad-sender"),
    ("rcpt", "DATA", "451 4.3.2 Not now", "system")])
def test_commands(warp, phase, command, reply, kind):
    proxy = warp()
    session = proxy.session().to(phase)
    session.exchange(command, reply)
    session.quit()
    decided = proxy.wait_for("message")["reply"]
    assert (decided["class"], decided["by"], decided["text"]) == (kind, "upstream", reply[4:])


def test_final_reply(warp, rules):
    """All lines of a reply are matched as one."""
    proxy = warp("--reply-rules", rules("* dot 421 4.7.28 [*] our system*rate of unsolicited*users from spam => reputation"))
    session = proxy.session().to("dot")
    session.server.send(*GOOGLE.split("\n"))
    session.client.expect("421")
    decided = proxy.wait_for("message")["reply"]
    assert (decided["class"], decided["by"]) == ("reputation", "upstream")
    assert proxy.wait_for("close")["refusal"] == {
        "stage": "dot", "code": 421, "enhanced": "4.7.28", "class": "reputation",
        "text": "4.7.28 users from spam, mail has been temporarily rate limited."}


def test_no_refusals(warp):
    proxy = warp()
    session = proxy.session()
    session.greet()
    session.transaction()
    session.quit()
    assert "refusal" not in proxy.wait_for("close") and proxy.records("refusal") == []
    connect, = proxy.records("connect")
    assert (connect["code"], connect["class"]) == (220, "ok") and "text" not in connect


def test_greeting(warp):
    proxy = warp()
    session = proxy.session()
    session.server.send("554-Go\n554 away".split("\n")[0], "554 away")
    session.client.expect("554")
    session.client.close()
    connect = proxy.wait_for("connect")
    assert (connect["code"], connect["class"], connect["text"]) == (554, "blocklist", "away")
    assert proxy.wait_for("close")["refusal"]["stage"] == "banner" and proxy.records("refusal") == []


def test_greeting_that_the_client_does_not_see(warp):
    proxy = warp(*LATE)
    client = proxy.greeted()
    client.ask("MAIL FROM:<a@b.example>", "250")
    client.send("RCPT TO:<c@d.example>")
    server = proxy.upstream.accept()
    server.send("421 4.7.0 Too many connections")
    client.expect("451 4.4.1")
    client.close()
    refusal = proxy.wait_for("refusal")
    assert (refusal["stage"], refusal["code"], refusal["enhanced"], refusal["class"]) == ("banner", 421, "4.7.0", "throttle")
    assert recipients(proxy.wait_for("message"))[0][1::2] == (None, "smtpwarp")


@pytest.mark.parametrize("code", [450, 550])
def test_ehlo(warp, code):
    proxy = warp()
    session = proxy.session()
    session.banner()
    session.client.send("EHLO client.example")
    session.server.expect_line("EHLO client.example")
    session.server.send(f"{code} 5.7.1 Not with that name")
    if code == 550:
        session.server.expect_line("HELO client.example")
        session.server.send("550 5.7.1 Nor so")
    session.client.expect(str(code))
    session.client.close()
    refusal = proxy.wait_for("refusal", 1 + (code == 550))
    assert (refusal["stage"], refusal["code"], refusal["class"]) == ("ehlo", code, "policy")


def test_starttls(warp):
    proxy = warp()
    session = proxy.session()
    session.banner()
    session.client.send("EHLO client.example")
    session.server.expect_line("EHLO client.example")
    session.server.send("250-server.example", "250 STARTTLS")
    session.server.expect_line("STARTTLS")
    session.server.send("454 4.3.0 No random numbers")
    session.client.expect("250")
    refusal = proxy.wait_for("refusal")
    assert (refusal["stage"], refusal["code"], refusal["class"]) == ("tls", 454, "system")


def test_mail_refused_late(warp):
    """The client gets the reply to MAIL as that to RCPT; its class comes along."""
    proxy = warp(*LATE)
    client = proxy.greeted()
    client.ask("MAIL FROM:<a@b.example>", "250")
    client.send("RCPT TO:<c@d.example>")
    server = proxy.upstream.accept()
    server.send("220 server.example")
    server.expect_line("EHLO client.example")
    server.send("250 server.example")
    server.expect_line("MAIL FROM:<a@b.example>")
    server.send("550 5.7.23 SPF")
    client.expect("550 5.7.23 SPF")
    client.close()
    assert recipients(proxy.wait_for("message")) == [(550, "auth", "5.7.23 SPF", "upstream")]
    assert proxy.records("refusal") == []


def test_early_reply(warp):
    """A server that refuses in the middle of a message has decided it."""
    proxy = warp()
    session = proxy.session().to("data")
    session.body()
    assert session.server.until(b"half")
    session.server.send("552 5.3.4 Too much")
    session.client.send_raw(b"\r\n.\r\n")
    session.client.expect("552")
    decided = proxy.wait_for("message")["reply"]
    assert (decided["class"], decided["by"]) == ("size", "upstream")


def test_own_refusals_have_no_class(warp, hooks):
    hooks.script("rcpt", "grep -q bad@ && echo reject 550 5.1.1 no such user || :")
    hooks.script("data", "echo defer 451 4.7.1 spam")
    proxy = warp(*hooks.options, "--valid-recipients", "^(bad|good)@")
    session = proxy.session()
    session.greet()
    session.mail()
    for recipient, code in (("bad@d.example", "550"), ("other@d.example", "550")):
        session.client.ask(f"RCPT TO:<{recipient}>", code)
    session.rcpt("RCPT TO:<good@d.example>")
    session.client.ask("DATA", "354")
    session.client.send_raw(b"x\r\n.\r\n")
    session.client.expect("451")
    message = proxy.wait_for("message")
    assert message["rcpt_ms"] < 30_000      # of the one that the server was told
    assert [(kind, by) for _, kind, _, by in recipients(message)] == [(None, "hook"), (None, "smtpwarp"), ("ok", None)]
    assert (message["reply"]["class"], message["reply"]["by"]) == (None, "hook")
    session.client.close()
    session.server.close()
    assert "refusal" not in proxy.wait_for("close")


def test_lmtp(warp):
    """Each recipient has the reply to the message that was for it; the best decides."""
    proxy = warp()
    proxy.options += ["--upstream", f"lmtp://{proxy.upstream.name_port}"]
    session = proxy.session()
    session.banner()
    session.client.send("LHLO client.example")
    session.server.expect_line("LHLO client.example")
    session.server.send("250 server.example")
    session.client.expect("250")
    session.mail()
    for name in "abc":
        session.rcpt(f"RCPT TO:<{name}@d.example>")
    session.data()
    session.body()
    session.dot()
    replies = "552 5.2.2 Over quota", "250 2.1.5 Delivered", "550 5.2.1 Gone"
    session.server.send(*replies)
    for reply in replies:
        session.client.expect(reply)
    message = proxy.wait_for("message")
    assert recipients(message) == [(552, "mailbox-full", "5.2.2 Over quota", "upstream"),
                                   (250, "ok", "2.1.5 Delivered", None), (550, "inactive", "5.2.1 Gone", "upstream")]
    assert message["reply"]["class"] == "ok" and "by" not in message["reply"]


@pytest.mark.parametrize("said, text", [
    (b"x" * 300, "x" * 200), (b"\xc3\xa4" * 150, "ä" * 97), (b"\x9b31m \xc2\x9b31m \xff", "\ufffd31m \x9b31m \ufffd"),
    (b"\x00\x1b[31m", "\x00\x1b[31m")])
def test_hostile_text(warp, said, text):
    proxy = warp()
    session = proxy.session().to("mail")
    session.client.send("RCPT TO:<a@b.example>")
    session.server.line()
    session.server.send_raw(b"550 5.1.1 " + said + b"\r\n")
    session.client.expect("550")
    session.client.close()
    got = proxy.wait_for("message")["rcpt_to"][0]["text"]
    assert got.startswith("5.1.1 ") and got[6:].strip() == text[:194].strip()
    assert b"\x9b" not in proxy.log_path.read_bytes().replace(b"\\u009b", b"")


def test_texts_are_bounded(warp):
    """The class stays where there is no room for the text; one that follows itself takes no room."""
    proxy = warp("--max-recipients", "10000", "--max-errors", "0")
    session = proxy.session().to("mail")
    for number in range(800):
        refused_rcpt(session, f"550 5.1.1 {'x' * 200}{number % 2}" if number < 10 else f"550 5.1.1 {number:03}{'x' * 200}")
    for _ in range(10):
        refused_rcpt(session, "550 5.1.1 same")
    session.client.close()
    found = [rcpt for record in (proxy.wait_for("close"), *proxy.records("message")) for rcpt in record.get("rcpt_to", ())]
    texts = [rcpt.get("text") for rcpt in found]
    assert len(found) == 810 and all(rcpt["class"] == "unknown-user" for rcpt in found)
    assert texts[:10] == ["5.1.1 " + "x" * 194] * 10
    assert sum(text is not None for text in texts) == 645 + 9 + 10 and texts[-10:] == ["5.1.1 same"] * 10


def test_data_times(warp):
    """data_reply_ms is DATA's own; data_ms of a later message does not count what came before it."""
    proxy = warp()
    session = proxy.session()
    session.greet()
    session.client.silent(0.2)
    began, took = time.monotonic(), []
    for _ in range(2):
        session.mail()
        session.rcpt()
        session.client.send("DATA")
        session.server.expect_line("DATA")
        session.client.silent(0.05)
        session.server.send("354 go on")
        session.client.expect("354")
        took.append(1000 * (time.monotonic() - began))
        session.body()
        session.dot()
        began = time.monotonic()
        session.sent()
    proxy.wait_for("message", 2)
    first, second = proxy.records("message")
    assert 50 <= first["data_reply_ms"] <= first["data_ms"] - 200
    assert 50 <= second["data_reply_ms"] <= second["data_ms"] <= took[1] + 1


def test_data_times_of_kept_messages(warp, hooks):
    hooks.script("data", ":")
    proxy = warp(*hooks.options)
    session = proxy.session().to("rcpt")
    session.client.ask("DATA", "354")
    session.client.send_raw(b"x\r\n.\r\n")
    session.server.expect_line("DATA")
    session.client.silent(0.05)
    session.server.send("354 go on")
    session.server.until(b".\r\n")
    session.sent()
    assert proxy.wait_for("message")["data_reply_ms"] >= 50


# ---- the files ----

def test_first_rule_counts(warp, rules):
    first, second = rules("* rcpt 550 5.1.1 a => policy", name="first"), rules("* * 550 5.1.1 => content & scope=ip", name="second")
    proxy = warp("--reply-rules", first, "--reply-rules", second)
    session = proxy.session().to("mail")
    for text in ("a", "b"):
        refused_rcpt(session, f"550 5.1.1 {text}")
    session.client.close()
    assert [kind for _, kind, _, _ in recipients(proxy.wait_for("message"))] == ["policy", "content"]


def test_fault_ends_the_start(warp, rules):
    file = rules("* * 550 => policy", "* * 550 => polici")
    for extra in (["--listen", "127.0.0.1:2525"], ["--check"]):
        done = subprocess.run([BINARY, "--upstream", "127.0.0.1:1", "--allow-clients", "127.0.0.1", "--log", "stderr", "--reply-rules",
                               file, *extra], capture_output=True, text=True, stdin=subprocess.DEVNULL, check=False)
        assert done.returncode == 78 and f"--reply-rules {file}: line 2: unknown class" in done.stderr
    done = subprocess.run([BINARY, "--check", "--log", "stderr", "--reply-rules", "/nowhere"], capture_output=True, text=True, check=False)
    assert done.returncode == 78 and "--reply-rules /nowhere: No such file" in done.stderr


def test_fault_in_a_session_of_its_own(warp, rules):
    """It is told at the first refusal, once, and the codes still count."""
    file = rules("* * 550")
    proxy = warp("--reply-rules", file)
    session = proxy.session().to("mail")
    for _ in range(2):
        refused_rcpt(session, "550 5.1.1 a")
    session.client.close()
    assert recipients(proxy.wait_for("message"))[0][1] == "unknown-user"
    error, = proxy.records("error")
    assert error["error"].startswith(f"--reply-rules {file}: line 1: a rule is")


def test_a_session_without_refusals_reads_no_rules(warp, rules, tmp_path):
    proxy = warp("--reply-rules", rules("* * 550"))
    session = proxy.session()
    session.greet()
    session.transaction()
    session.quit()
    proxy.wait_for("close")
    assert proxy.records("error") == []


def test_read_again(warp, rules):
    """SIGHUP: sessions that begin then have the new rules; a file with a fault changes nothing."""
    file = rules("* * 550 => policy")
    proxy = warp("--reply-rules", file).listen()

    def kind(count):
        session = proxy.session().to("mail")
        refused_rcpt(session, "550 5.1.1 a")
        session.client.close()
        return recipients(proxy.wait_for("message", count))[0][1]
    assert kind(1) == "policy"
    rules("* * 550 => nonsense")
    os.kill(proxy.listener.pid, signal.SIGHUP)
    assert "line 1: unknown class" in proxy.wait_for("error")["error"]
    assert kind(2) == "policy"
    rules("* * 550 => content")
    os.kill(proxy.listener.pid, signal.SIGHUP)
    proxy.listener.poll()
    while kind(len(proxy.records("message")) + 1) != "content":
        pass


def test_rules_are_shared_sealed(warp, rules):
    """A session can change them for no other."""
    proxy = warp("--reply-rules", rules("* * 550 => policy")).listen()
    maps = [line for line in open(f"/proc/{proxy.listener.pid}/maps") if "memfd:rules" in line]
    assert len(maps) == 1 and maps[0].split()[1] == "r--p"


def test_hooks_see_it(warp, hooks, tmp_path):
    hooks.script("close", f"cat >{tmp_path}/close.json")
    hooks.script("log", f"cat >{tmp_path}/log.json")
    proxy = warp(*hooks.options)
    session = proxy.session().to("mail")
    refused_rcpt(session, "550 5.1.1 Nobody")
    session.quit()
    proxy.wait_exit()
    assert json.loads((tmp_path / "close.json").read_text())["refusal"]["class"] == "unknown-user"
    records = [json.loads(line) for line in (tmp_path / "log.json").read_text().splitlines()]
    message, = [record for record in records if record["event"] == "message"]
    assert (message["rcpt_to"][0]["class"], message["rcpt_to"][0]["text"]) == ("unknown-user", "5.1.1 Nobody")
