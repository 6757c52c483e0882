"""Log files as smtpwarp writes them, made up: for tests and figures of smtpwarp-stat.

    write_log(path, sessions=1000)          # the same file each time
"""
import datetime
import json
import math
import random

BEGIN = datetime.datetime(2026, 11, 23, 0, 0, tzinfo=datetime.timezone.utc)
SITES = [("gmail", "192.0.2.26"), ("outlook", "198.51.100.4"), ("yahoo", "203.0.113.77"), ("gmx", "192.0.2.140"),
         ("icloud", "198.51.100.200"), ("203.0.113.0/24", "203.0.113.9"), ("2001:db8:7::/48", "2001:db8:7::25")]
SOURCES = ["198.51.100.10", "198.51.100.11"]
REFUSALS = [(421, "4.7.28", "throttle", "4.7.28 Our system has detected an unusual rate of mail from 198.51.100.10. {n} - gsmtp"),
            (550, "5.1.1", "unknown-user", "5.1.1 <u{n}@site.example>: no such mailbox"),
            (552, "5.2.2", "mailbox-full", "5.2.2 mailbox is full"),
            (451, "4.7.1", "greylist", "4.7.1 greylisted, come back in {n} seconds"),
            (550, "5.7.1", "content", "5.7.1 message {n} looks like spam")]


def record(event, at, session, site, client="10.0.0.7", **more):
    """A record with the fields that every one has, and more."""
    server = dict(SITES)[site]
    return {"v": 1, "event": event, "time": at.strftime("%Y-%m-%dT%H:%M:%S.%fZ"), "session": session,
            "client": {"ip": client, "port": 40000, "tls": None},
            "server": {"ip": server, "port": 25, "tls": {"version": "TLSv1.2", "cipher": "TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256",
                                                          "verified": site != "gmx"}},
            "site": site, "helo": "client.example", "auth": None, "transaction": session + "-1",
            "mail_from": {"address": "news@shop.example", "params": {"SIZE": "4000"}}, "rcpt_to": [], "size": 4000,
            "message_id": f"<{session}@shop.example>", **more}


def outcome(random_, site, at):
    """What a recipient gets: gmail throttles from noon to four of the third day."""
    throttled = site == "gmail" and at.day == 25 and 12 <= at.hour < 16
    if random_.random() < (0.6 if throttled else 0.06):
        code, enhanced, kind, text = REFUSALS[0] if throttled else random_.choice(REFUSALS[1:])
        return {"code": code, "enhanced": enhanced, "class": kind, "text": text.format(n=random_.randrange(100000)), "by": "upstream"}
    return {"code": 250, "enhanced": "2.1.5", "class": "ok"}


def message(random_, session, site, at, client):
    to = [{"address": f"user{random_.randrange(5000)}@{site.split('/')[0].replace(':', '-')}.example", "params": {},
           **outcome(random_, site, at)} for _ in range(random_.choice([1, 1, 1, 2]))]
    worst = max(to, key=lambda recipient: recipient["code"])
    taken = any(recipient["code"] < 300 for recipient in to)
    slow = 8 if site == "gmail" and at.day == 25 and 11 <= at.hour < 16 else 1
    reply = {"code": 250, "enhanced": "2.0.0", "text": "2.0.0 Ok: queued", "class": "ok"} if taken else \
        {key: value for key, value in worst.items() if key not in ("address", "params")}
    return record("message", at, session, site, client, rcpt_to=to, size=random_.randrange(1000, 90000),
                  mail_from={"address": f"sender{int(random_.expovariate(0.5))}@shop{random_.randrange(3)}.example", "params": {}},
                  result="accepted" if taken else "rejected" if worst["code"] >= 500 else "deferred", reply=reply, mail_ms=1.132,
                  rcpt_ms=round(random_.lognormvariate(3, 0.7) * slow, 3), data_ms=round(random_.lognormvariate(5, 0.7) * slow, 3),
                  data_reply_ms=round(random_.lognormvariate(4.5, 0.6) * slow, 3) if taken else None,
                  accept_ms=round(random_.lognormvariate(5, 0.5), 3), hooks={})


def session_records(random_, number, at):
    session = f"01M7XC{number:020d}"
    site = random_.choices([name for name, _ in SITES], [40, 25, 12, 10, 6, 4, 3])[0]
    client = f"10.0.0.{7 + int(random_.expovariate(0.4))}"
    source = random_.choice(SOURCES)
    yield record("connect", at, session, site, client, transaction=None, mail_from=None, size=0, message_id=None,
                 original={"ip": dict(SITES)[site], "port": 25}, source={"ip": source, "port": 41000}, connect_ms=8.5,
                 banner_ms=22.25, banner="mx.site.example ESMTP", code=220, **{"class": "ok"})
    yield record("tls", at, session, site, client, side="upstream", level="may", result="ok", version="TLSv1.2",
                 cipher="TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256", verified=True, name=None, reason=None, tls_ms=31.25)
    if number % 9 == 0:
        yield record("verdict", at, session, site, client, on="data", hook="rspamd", verdict=random_.choice(["accept", "reject", "failed"]),
                     text="", lines=[], hook_ms=round(random_.lognormvariate(3, 0.8), 3))
    yield message(random_, session, site, at, client)
    yield record("close", at, session, site, client, transaction=None, mail_from=None, messages=1, recipients=1, errors=0, client_in=5000,
                 client_out=400, server_in=420, server_out=5100, connect_ms=8.5, banner_ms=22.25, tls_ms=31.25, duration_ms=900.5,
                 hooks={}, log_dropped=0, by="client", reason="QUIT")


def backoff(at, before, after, why, until):
    made = record("backoff", at, "01M7XC" + "9" * 20, "gmail", source=SOURCES[0], mode="observe", why=why, score=162)
    return {**made, "from": before, "to": after, "until": until and until.strftime("%Y-%m-%dT%H:%M:%S.%fZ"),
            "class": REFUSALS[0][2], "text": REFUSALS[0][3].format(n=1)}


def write_log(path, sessions=1000, days=7, seed=1):
    random_ = random.Random(seed)
    changes = [(BEGIN + datetime.timedelta(days=2, hours=11, minutes=4), "ok", "slow", "time to 354", 0),
               (BEGIN + datetime.timedelta(days=2, hours=12, minutes=2), "slow", "throttled", "replies", 5),
               (BEGIN + datetime.timedelta(days=2, hours=16, minutes=20), "throttled", "ok", "a message was accepted", 0)]
    with open(path, "w") as log:
        for number in range(sessions):
            day, part = divmod(days * number / sessions, 1)     # more by day than by night
            at = BEGIN + datetime.timedelta(days=day + part + 0.11 * math.sin(2 * math.pi * part))
            while changes and changes[0][0] <= at:
                when, before, after, why, minutes = changes.pop(0)
                log.write(json.dumps(backoff(when, before, after, why, minutes and when + datetime.timedelta(minutes=minutes) or None),
                                     separators=(",", ":")) + "\n")
            for made in session_records(random_, number, at):
                log.write(json.dumps(made, separators=(",", ":")) + "\n")
