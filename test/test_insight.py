"""Insight on real input: a real Postfix sends a thousand messages to servers that throttle in the words of real providers, slow down, greylist
or know nobody; and the same traffic by all ways of starting, connections that fail, a full map, files that are no good;
and what it costs."""
import collections
import contextlib
import json
import os
import pathlib
import random
import re
import shutil
import signal
import struct
import tempfile
import time

import pytest

import hosts
import mta
import netns
from statemap import SLOT, SLOTS, SLOTS_AT, State
from test_start import activate_accept, inetd_nowait, inetd_wait, launch, xinetd
from test_stat_metrics import make_state        # noqa: F401
from test_stat_query import stat
from test_state import NETWORK, Sink, deliver, sink, state      # noqa: F401
from waiting import wait_until
from warp import NO_REPORTS, Warp, children_of

pytestmark = pytest.mark.skipif(bool(netns.unsupported()), reason=netns.unsupported())

RULES = hosts.ROOT / "rules" / "replies.rules"
USER = "nobody"     # smtpwarp's: its own connections are not redirected
REDIRECT = f"""
table inet smtpwarp {{
    chain output {{
        type nat hook output priority -100; policy accept;
        meta skuid != {USER} tcp dport 25 redirect to :2525
    }}
}}
"""


# A thousand messages by Postfix

MESSAGES, TAKEN = 80, 40     # of each server; how many it takes before it refuses
SHARE = random.Random(11)
THIRTY = [n >= 20 and SHARE.random() < 0.3 for n in range(MESSAGES)]
GOOGLE = ("421 4.7.28 [10.0.0.1 15] Our system has detected an unusual rate of unsolicited mail originating from your IP address. "
          "To protect our users from spam, mail sent from your IP address has been temporarily rate limited. gsmtp")


def after(stage, reply):
    """A server that refuses all at this stage once it has taken its share."""
    if stage == "banner":
        return {"banner": lambda messages: reply if messages >= TAKEN else "220 mx.example ESMTP"}
    return {"answer": lambda verb, line, n: reply if verb == stage and n >= TAKEN else None}


def wait(verb, n, usual=0.12):
    """Until 354 comes; in the end it takes eight times as long."""
    if verb == "DATA":
        time.sleep(8 * usual if n >= MESSAGES - 20 else usual)


# Who refuses at which stage, and how.
THROTTLERS = {
    "google": (".", GOOGLE),
    "outlook": ("banner", "421 RP-001 (BAY004-MC1F12) Unfortunately, some messages from 10.0.0.1 weren't sent. Please try again. The mail server "
                          "IP connecting to Outlook.com server has exceeded the rate limit allowed."),
    "office365": ("MAIL", "451 4.7.650 The mail server [10.0.0.1] has been temporarily rate limited due to IP reputation. For e-mail delivery "
                          "information, see https://aka.ms/postmaster (S775) [AM0EUR02FT004.eop-EUR02.prod.protection.outlook.com]"),
    "yahoo": ("MAIL", "421 4.7.0 [TSS04] Messages from 10.0.0.1 temporarily deferred due to unexpected volume or user complaints - 4.16.55.1; "
                      "see https://postmaster.yahooinc.com/error-codes"),
    "apple": (".", "421 4.7.1 Messages to user@icloud.com deferred due to excessive volume. Try again later - "
                   "https://support.apple.com/en-us/HT204137"),
    "orange": ("banner", "421 opmta1mti14nd1 smtp.orange.fr 10.0.0.1 Trop de connexions, veuillez verifier votre configuration. "
                         "Too many connections, slow down. OFR004_104 [104]"),
    "comcast": ("MAIL", "421 4.1.0 10.0.0.1 Throttled - try again later. Please see http://postmaster.comcast.net/smtp-error-codes.php#RL000001"),
}
SERVERS = {
    **{name: after(stage, reply) for name, (stage, reply) in THROTTLERS.items()},
    "thirty": {"answer": lambda verb, line, n: GOOGLE if verb == "." and THIRTY[n] else None},
    "slow": {"answer": lambda verb, line, n: wait(verb, n)},
    "greylists": after("RCPT", "450 4.2.0 <u@example.com>: Recipient address rejected: Greylisted, see http://postgrey.schweikert.ch/help/example.com.html"),
    "full": after("RCPT", "452 4.2.2 The email account that you tried to reach is over quota. Please direct the recipient to "
                           "https://support.google.com/mail/?p=OverQuotaTemp gsmtp"),
    "unknown": after("RCPT", "550 5.1.1 The email account that you tried to reach does not exist. Please try double-checking the recipient's "
                              "email address for typos or unnecessary spaces. gsmtp"),
    "fine": {},
}
SITES = {name: f"10.1.{number}.0/24" for number, name in enumerate(SERVERS)}
ADDRESSES = {name: f"10.1.{number}.1" for number, name in enumerate(SERVERS)}


class Sender(mta.Postfix):
    """To the addresses of its recipients, without a pause after a refusal, each message on a connection of its own."""
    CLIENT = mta.Postfix.CLIENT.replace("[{relay}]:25", "") + """
smtp_connection_cache_on_demand = no
default_destination_concurrency_failed_cohort_limit = 0
"""


@contextlib.contextmanager
def servers(mail_host):
    mail_host.ip(*(f"addr add {address}/32 dev lo" for address in ADDRESSES.values()))
    with mail_host, contextlib.ExitStack() as closing:
        for name, how in SERVERS.items():
            closing.callback(Sink(address=ADDRESSES[name], port=25, **how).close)
        yield


@pytest.fixture(name="thousand")
def fixture_thousand():
    """Sends; gives the records, what `top --json` and `metrics` say, and the state itself."""
    with netns.pair() as (client_host, mail_host), servers(mail_host), Sender(client_host, relay="all") as sender:
        client_host.nft(REDIRECT)
        directory = sender.folder("smtpwarp", USER)
        file = directory / "state"
        with client_host:
            warp = Warp(client_host, directory, "--transparent", "--user", USER, "--state", file, "--reply-rules", RULES)
            warp.listen("*:2525")
        try:
            sender.submit([mta.Mail("", [f"u@[{address}]" for address in ADDRESSES.values()], b"Subject: %d\r\n\r\nx\r\n" % number)
                           for number in range(MESSAGES)])
            sender.release()
            wait_until(lambda: sender.logfile.read_text().count(" status=") >= MESSAGES * len(SERVERS), sender.log, 120)
            warp.wait_until(lambda: not warp.children(), "the end of all sessions")
        finally:
            warp.close()
        yield (warp.records(), json.loads(stat("top", "--json", "--state", file).stdout),
               stat("metrics", "--state", file).stdout.decode(), State(file))


def of_site(records, name):
    """Until the first change of its state; and the changes."""
    own = [record for record in records if record.get("site") == SITES[name]]
    changes = [record for record in own if record["event"] == "backoff"]
    return own[:own.index(changes[0])] if changes else own, changes


def was_refused(record):
    return record["event"] == "message" and record["result"] != "accepted" or record["event"] == "connect" and record["code"] and record["code"] >= 400


def throttle_is_named(records, name):
    """Within five messages after the first refusal, in the provider's words."""
    before, changes = of_site(records, name)
    assert sum(bool(was_refused(record)) for record in before) < 5
    assert [(change["from"], change["to"], change["class"], change["why"]) for change in changes] == [("ok", "throttled", "throttle", "replies")]
    assert changes[0]["text"] == THROTTLERS[name][1][4:131]


def a_third_is_named(records):
    before, changes = of_site(records, "thirty")
    assert [(change["from"], change["to"]) for change in changes] == [("ok", "throttled")]
    messages = [record for record in before if record["event"] == "message"]
    first = next(at for at, record in enumerate(messages) if was_refused(record))
    assert len(messages) - first <= 21


def late_354_is_named(records):
    before, changes = of_site(records, "slow")
    assert [(change["from"], change["to"], change["why"]) for change in changes] == [("ok", "slow", "time to 354")]
    assert sum(record["event"] == "message" and record["data_reply_ms"] > 500 for record in before) <= 5


def nothing_is_named(records, counted, name):
    before, changes = of_site(records, name)
    assert not changes and sum(record["event"] == "message" for record in before) == MESSAGES
    slot = counted.slot(SITES[name], "10.0.0.1")
    assert (slot.state_name, slot.score) == ("ok", 0)


def test_a_thousand_messages_by_postfix(thousand):
    """What the log says of each site, top and metrics say as well, and count each message that Postfix has sent."""
    records, top, metrics, counted = thousand
    for name in THROTTLERS:
        throttle_is_named(records, name)
    a_third_is_named(records)
    late_354_is_named(records)
    for name in "greylists", "full", "unknown", "fine":
        nothing_is_named(records, counted, name)
    want = {SITES[name]: changes[-1]["to"] if (changes := of_site(records, name)[1]) else "ok" for name in SERVERS}
    assert {one["site"]: one["state"] for one in top["sites"] if one["site"] != "other"} == want
    levels = dict(re.findall(r'^smtpwarp_backoff_state\{site="([^"]+)",source="10.0.0.1"\} (\d)$', metrics, re.M))
    assert {site: ["ok", "slow", "throttled", "blocked"][int(level)] for site, level in levels.items()} == want
    messages = sum(int(n) for n in re.findall(r"^smtpwarp_messages_total\{.*\} (\d+)$", metrics, re.M))
    banners = sum(int(n) for n in re.findall(r'^smtpwarp_connects_total\{.*result="banner"\} (\d+)$', metrics, re.M))
    assert messages + banners == MESSAGES * len(SERVERS)
    assert messages == sum(record["event"] == "message" for record in records)


# The same traffic by all ways of starting

THROTTLED = "451 4.7.650 The mail server [10.0.0.1] has been temporarily rate limited due to IP reputation. (S775)"
REPLIES = {"RCPT": lambda line: "550 5.1.1 who?" if "<unknown@" in line else "452 4.2.2 full" if "<full@" in line else "",
           ".": lambda recipient: THROTTLED if "<many@" in recipient else "250 2.0.0 taken"}
TRAFFIC = [*[["one@mail.test", "unknown@mail.test", "full@mail.test"]] * 4, *[["many@mail.test"]] * 2]


def listener(host, *more):
    return [host.smtpwarp, "--listen", f"127.0.0.1:{hosts.PORT}", "--user", hosts.USER, *more]


@pytest.mark.parametrize("way", [listener, activate_accept, inetd_nowait, inetd_wait, xinetd], ids=lambda way: way.__name__)
def test_same_counts_by(way):
    with hosts.network() as net:
        net.serve(replies=REPLIES)
        net.host.rules("nftables-output.nft")
        directory = net.host.dir / "kept"
        directory.mkdir()
        os.chown(directory, net.host.uid, net.host.uid)
        file = directory / "state"
        rules = shutil.copy(RULES, net.host.dir)
        launch(net, way, "--state", str(file), "--reply-rules", rules)
        for recipients in TRAFFIC:
            client = hosts.connect(net.host.ns, net.mail.ip4)
            client.expect("220")
            client.ask("EHLO client.example", "250")
            deliver(None, 2, recipients, client=client)
        wait_until(lambda: State(file).totals.get("ended_client") == len(TRAFFIC), "the end of all sessions")
        slot = State(file).slot("10.0.0.0/24", "10.0.0.1")
        assert len(State(file).slots) == 2      # with that of "other"
    assert slot.counts == {"connect_ok": 6, "message_accepted": 8, "message_deferred": 4, "tls_plain": 6, "ok": 8, "throttle": 4,
                           "unknown-user": 8, "mailbox-full": 8}
    assert slot.timed == {"connect": 6, "banner": 6, "tls": 0, "rcpt": 12, "data": 12, "accept": 12}
    assert (slot.state_name, slot.text) == ("throttled", THROTTLED[4:])


# Connections that fail, a full map, files that are no good

def connects(file):
    text = stat("metrics", "--state", file).stdout.decode()
    return {result: int(n) for result, n in re.findall(r'^smtpwarp_connects_total\{site="127.0.0.0/24",.*result="(\w+)"\} (\d+)$', text, re.M) if n != "0"}


def test_connections_that_fail(host, warp, sink, state):    # noqa: F811
    host.nft("""table inet t { chain input { type filter hook input priority 0; policy accept;
        tcp dport 2601 drop
        tcp dport 2602 reject with icmp type host-unreachable
    }
    }""")
    want = {"timeout": 2, "unreachable": 2, "refused": 2, "banner": 2, "ok": 2}
    refusing, port = sink(banner="554 5.3.2 not today"), 2525
    for upstream in "127.0.0.1:2601", "127.0.0.1:2602", "127.0.0.1:2603", refusing.url, sink().url:
        for listens in False, True:
            port += 1
            proxy = warp("--state", state, "--connect-timeout", 0.2, "--upstream", upstream)
            if listens:
                proxy.listen(f"127.0.0.1:{port}")
            client = proxy.connect()
            if client.reply().code == 220:
                client.ask("EHLO client.example", "250")
                deliver(proxy, client=client)
            client.close()
            proxy.wait_for("close")
    wait_until(lambda: connects(state) == want, lambda: connects(state))


def age(file, used):
    """All slots were used at this time last, in microseconds since the boot."""
    with open(file, "r+b") as map_:
        for at in range(SLOTS):
            map_.seek(SLOTS_AT + at * SLOT + 24)
            map_.write(struct.pack("=Q", used))


def test_full_map(warp, sink, state, make_state):       # noqa: F811
    """What finds no slot counts as "other"; what was silent for an hour makes room, and its end is counted. Mail goes on."""
    make_state(state, 4 * SLOTS).communicate()
    assert len(State(state).slots) == SLOTS
    before, other = State(state).counts(), State(state).slot("other", "").counts["message_accepted"]
    proxy = warp("--state", state, upstream=sink()).listen()
    age(state, time.clock_gettime_ns(time.CLOCK_BOOTTIME) // 1000)
    assert deliver(proxy, 2) == [250, 250]
    proxy.wait_for("close")
    counted = State(state)
    assert counted.counts() - before == {"connect_ok": 1, "message_accepted": 2, "tls_plain": 1, "ok": 2}
    assert counted.slot("other", "").counts["message_accepted"] == other + 2
    assert counted.totals["evictions"] == evictions(state)
    if time.clock_gettime(time.CLOCK_BOOTTIME) > 3700:
        age(state, 1)
        assert deliver(proxy, 3) == [250, 250, 250]
        proxy.wait_for("close", 2)
        assert State(state).slot(NETWORK).counts["message_accepted"] == 3
        assert evictions(state) == counted.totals["evictions"] + 1


def evictions(file):
    return int(re.search(r"^smtpwarp_state_evictions_total(?:\{\})? (\d+)$", stat("metrics", "--state", file).stdout.decode(), re.M)[1])


@pytest.fixture(name="shared")
def fixture_shared():
    """A directory that other users come to."""
    with tempfile.TemporaryDirectory() as path:
        os.chmod(path, 0o755)
        yield pathlib.Path(path)


def other_layout(file, user):
    with open(file, "r+b") as map_:
        map_.seek(8)
        map_.write(struct.pack("=I", 2))
    os.chown(file.parent, user, user)
    os.chown(file, user, user)


def of_root(file, user):
    os.chown(file.parent, user, user)


def may_not_read(file, user):
    os.chown(file.parent, user, user)
    file.chmod(0)


@pytest.mark.parametrize("harm, why", [(other_layout, "it is no state of this version"), (of_root, "Permission denied"),
                                       (may_not_read, "Permission denied")])
def test_no_good_for_a_user(warp, sink, shared, make_state, harm, why):    # noqa: F811
    """One error that says so, and mail goes on."""
    file = shared / "state"
    make_state(file, 1).communicate()
    harm(file, 65534)
    before = file.read_bytes()
    proxy = warp("--state", file, "--user", "65534", upstream=sink()).listen()
    assert deliver(proxy, 2) == deliver(proxy, 2) == [250, 250]
    error, = proxy.records("error")
    assert error["error"].startswith(f"--state {file}: {why}") and file.read_bytes() == before


# What it costs

def calls_of_session(warp, server, tmp_path, file, port):
    """System calls of a session of five messages, by name, but for those whose number the moment decides."""
    trace = tmp_path / f"trace-{pathlib.Path(file).name}"
    proxy = warp("--state", file, upstream=server, env=NO_REPORTS)
    proxy.wrapper = ["strace", "-f", "-qq", "-o", trace, "-e", "signal=none"]
    proxy.listen(f"127.0.0.1:{port}")
    deliver(proxy, 5)
    proxy.wait_for("close")
    for pid in children_of(proxy.listener.pid):     # strace itself goes on until its child ends
        os.kill(pid, signal.SIGTERM)
    proxy.wait_exit()
    lines = [line.split(None, 1) for line in trace.read_text().splitlines()]
    session = next(pid for pid, call in lines if '"EHLO client' in call)
    names = collections.Counter(re.match(r"\w*", call)[0] for pid, call in lines if pid == session and "resumed>" not in call)
    return collections.Counter({name: n for name, n in names.items() if name not in ("", "poll", "ppoll", "read", "recvfrom", "readv")})


def test_system_calls(warp, sink, state, tmp_path):     # noqa: F811
    """A lock for each session, which counts it among those that there are, and none for a message."""
    server = sink()
    before, after = (calls_of_session(warp, server, tmp_path, file, port) for file, port in (("none", 2525), (state, 2526)))
    assert after - before == {"getpid": 1, "fcntl": 1} and not before - after


def test_place(warp, sink, state):     # noqa: F811
    """What most sessions need of the map is in the page table that they have for the clock, but for the odd start where that is full."""
    proxy = warp("--state", state, upstream=sink()).listen()
    maps = {line.split()[-1]: int(line.split("-")[0], 16)
            for line in reversed(pathlib.Path(f"/proc/{proxy.listener.pid}/maps").read_text().splitlines())}
    table, near = 1 << 21, 1 << 16
    behind = (maps["[vdso]"] + 2 * near - 1) // near * near
    if behind // table == maps["[vdso]"] // table:
        assert maps[str(state)] == behind
