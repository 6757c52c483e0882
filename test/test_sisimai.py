"""Sisimai as an oracle: it and our rules give reasons for the same replies, those that stand in Sisimai's own tables of Google, Exchange,
Mimecast and QQ, and our samples. Where the two differ, sisimai.judged says once why."""
import collections
import pathlib
import re
import subprocess

import pytest

from test_reply_rules import SAMPLES, classify, fields     # noqa: F401 (a fixture)

TABLES = pathlib.Path("/usr/share/perl5/Sisimai/Rhost")
HERE = pathlib.Path(__file__).resolve().parent
JUDGED = HERE / "sisimai.judged"
pytestmark = pytest.mark.skipif(not TABLES.exists(), reason="libsisimai-perl is not installed")

# Sisimai's reasons, and the classes that say the same. It has none for greylisting, and its `blocked` is whatever is about an address.
# `securityerror` and `filtered` are what it makes of x.7.x and x.2.x where no text says more; with `onhold` and `undefined` it knows nothing.
SAME = {
    "blocked": "blocklist reputation throttle auth greylist policy", "badreputation": "reputation", "contenterror": "content protocol",
    "exceedlimit": "size throttle", "expired": "network system greylist throttle", "filtered": "policy unknown-user inactive content blocklist reputation throttle",
    "hasmoved": "inactive", "hostunknown": "no-route unknown-user bad-sender", "mailboxfull": "mailbox-full",
    "mailererror": "system", "mesgtoobig": "size", "networkerror": "network", "norelaying": "relay-denied",
    "notaccept": "no-route", "onhold": None, "undefined": None, "none": None,
    "policyviolation": "policy content auth reputation", "rejected": "bad-sender auth reputation policy",
    "securityerror": "policy tls auth content blocklist reputation throttle", "spamdetected": "content reputation", "suspend": "inactive",
    "syntaxerror": "protocol", "systemerror": "system network", "systemfull": "system", "toomanyconn": "throttle too-many-recipients",
    "userunknown": "unknown-user inactive", "virusdetected": "content",
}
QUOTED = r"""["']((?:[^"'\n]|(?<=\w)'(?=\w))+)["']"""


def of_tables():
    """(host, reply) of each text in the tables."""
    google, exchange, mimecast, qq = ((TABLES / f"{name}.pm").read_text() for name in
                                      ("GoogleApps", "ExchangeOnline", "Mimecast", "TencentQQ"))
    for code, enhanced, text in re.findall(rf"\['(\d{{3}})',\s*'([\d.]+)',\s*{QUOTED}\]", google):
        yield "aspmx.l.google.com", f"{code} {enhanced} {text}"
    for enhanced, least, text in re.findall(rf"\['([45][\d.]+)',\s*(\d+),\s*\d+,\s*{QUOTED}\]", exchange):
        whole = enhanced + (least if enhanced.endswith(".") else "")
        yield "example.mail.protection.outlook.com", f"{'451' if whole[0] == '4' else '550'} {whole} {text}"
    for code, text in re.findall(rf"\[(\d{{3}}), {QUOTED}\]", mimecast):
        yield "eu-smtp-inbound-1.mimecast.com", f"{code} {text}"
    for text in re.findall(rf"{QUOTED}\s*=> '\w+',", qq):
        yield "mx3.qq.com", f"550 {text}"


def stage_of(reply):
    """Where a reply that stands alone belongs: as dot, where texts say the most of them."""
    return "rcpt" if re.match(r"\d+ (\d\.[12]\.|.*(user|mailbox|recipient|client host))", reply, re.I) else "dot"


def test_agreement(classify):      # noqa: F811
    samples = [("mx.example.net", sample[2]) for _, sample in fields(SAMPLES.read_text().splitlines())]
    replies = list(dict.fromkeys([*of_tables(), *samples]))
    # Sisimai goes through some tables as Perl has mixed their keys: always the same way here.
    done = subprocess.run([HERE / "lib/sisimai.pl"], input="".join(f"{host}\t{reply}\n" for host, reply in replies), text=True,
                          capture_output=True, check=True, env={"PATH": "/usr/bin:/bin", "PERL_HASH_SEED": "0", "PERL_PERTURB_KEYS": "0"})
    reasons = done.stdout.split()
    assert len(reasons) == len(replies) > 400
    classes = [found[0] for found in classify([(stage_of(reply), reply) for _, reply in replies])]
    table, differ = collections.Counter(), {}
    for (_, reply), reason, kind in zip(replies, reasons, classes):
        same = SAME[reason]
        table["no reason" if same is None else "agree" if kind in same.split() else "differ"] += 1
        if same is not None and kind not in same.split():
            differ[reply] = (reason, kind)
    judged = {reply: (reason, kind) for _, (reason, kind, _, reply) in fields(JUDGED.read_text().splitlines())}
    both = table["agree"] + table["differ"]
    print(f"Sisimai: {len(replies)} replies, {both} with a reason; {table['agree']} agree ({100 * table['agree'] // both} %), "
          f"{table['differ']} differ")
    unjudged = {reply: how for reply, how in differ.items() if judged.get(reply) != how}
    assert not unjudged, "not judged:\n" + "\n".join(f"{reason}\t{kind}\t\t{reply}" for reply, (reason, kind) in unjudged.items())
    assert judged.keys() <= differ.keys(), f"no longer different: {judged.keys() - differ.keys()}"
