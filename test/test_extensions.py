"""ESMTP extensions: what is offered, and what goes through: PROTOCOL 40-42, 45, 46, 48-52."""
import base64

import pytest

import netns
import peers
from warp import Session, Warp


def b64(text):
    return base64.b64encode(text.encode()).decode()


def shown(session, *extensions):
    """What the client sees of the upstream's list, SIZE left out as smtpwarp has its own."""
    return {text for text in session.greet(*extensions).texts[1:] if not text.startswith("SIZE")}


# 40: the list

PASSED = ["ENHANCEDSTATUSCODES", "8BITMIME", "SMTPUTF8", "CHUNKING", "BINARYMIME", "DSN", "AUTH PLAIN LOGIN", "ETRN",
          "DELIVERBY", "DELIVERBY 240", "FUTURERELEASE 86400 2030-01-01T00:00:00Z", "MT-PRIORITY MIXER",
          "LIMITS RCPTMAX=20 MAILMAX=5", "HELP", "VRFY", "EXPN", "NO-SOLICITING org.example:ADV", "PIPELINING"]
REMOVED = ["STARTTLS", "XCLIENT ADDR NAME", "XFORWARD ADDR", "X-ANONYMOUSTLS", "XEXCH50", "BURL imap", "CHECKPOINT",
           "UNKNOWN", "TURN", "REQUIRETLS", "VERB", "DATAX", "SIZEX 5"]


@pytest.mark.parametrize("line", PASSED)
def test_40_known_extension_is_passed_on(session, line):
    assert shown(session, line) == {line, "PIPELINING"}


@pytest.mark.parametrize("line", REMOVED)
def test_40_unknown_or_unsuitable_extension_is_removed(warp, line):
    """REQUIRETLS among them: there is no verified TLS here."""
    assert shown(warp("--tls", "none").session(), line) == {"PIPELINING"}


def test_40_pipelining_is_always_offered(session):
    assert shown(session) == {"PIPELINING"}


def test_40_the_whole_list(warp):
    session = warp("--tls", "none").session()
    wanted = [line for line in PASSED if line != "DELIVERBY"]
    mixed = [line for pair in zip(wanted, REMOVED + ["MORE"] * len(wanted)) for line in pair]
    assert shown(session, *mixed) == set(wanted)
    session.transaction()


def test_90_the_servers_order(warp):
    """What smtpwarp leaves out leaves no trace; what it adds stands behind."""
    session = warp("--tls", "none", "--message-size-limit", "1000").session()
    reply = session.greet("PIPELINING", "X-OWN", "SIZE 10240000", "VRFY", "ETRN", "STARTTLS", "8BITMIME", "DSN", "CHUNKING")
    assert reply.texts == ["server.example", "PIPELINING", "SIZE 1000", "VRFY", "ETRN", "8BITMIME", "DSN", "CHUNKING"]


# 41: its form

@pytest.mark.parametrize("line, want", [("pipelining", "PIPELINING"), ("Dsn", "DSN"), ("auth plain", "AUTH PLAIN"),
                                        ("8bitMIME", "8BITMIME"), ("ChUnKiNg", "CHUNKING")])
def test_41_case_of_keywords(session, line, want):
    assert want in {text.upper() for text in shown(session, line)}


def test_41_starttls_in_any_case_is_used_and_not_shown(session):
    session.banner()
    session.client.send("EHLO client.example")
    session.server.line()
    session.server.send("250-server.example", "250 starttls")
    session.server.expect_line("STARTTLS")


@pytest.mark.parametrize("lines", [["AUTH=LOGIN PLAIN"], ["AUTH LOGIN PLAIN", "AUTH=LOGIN PLAIN"]])
def test_41_legacy_auth(session, lines):
    """`AUTH=` may be passed, turned into AUTH or left out; what is shown offers nothing else."""
    seen = shown(session, *lines) - {"PIPELINING"}
    assert seen <= {"AUTH=LOGIN PLAIN", "AUTH LOGIN PLAIN"}
    assert "AUTH LOGIN PLAIN" in seen or "AUTH LOGIN PLAIN" not in lines


def test_41_duplicates(session):
    seen = session.greet("DSN", "DSN", "8BITMIME", "PIPELINING", "pipelining", "SIZE 100", "SIZE 200").texts[1:]
    assert {text.split()[0].upper() for text in seen} == {"DSN", "8BITMIME", "PIPELINING", "SIZE"}
    assert sum(text.upper().startswith("PIPELINING") for text in seen) == 1
    assert sum(text.upper().startswith("SIZE") for text in seen) == 1


@pytest.mark.parametrize("count", [100, 1500])
def test_41_very_long_list(session, count):
    seen = shown(session, *[f"X-NUMBER-{number}" for number in range(count)], "DSN", *["HELP"] * 5)
    assert {"DSN", "PIPELINING"} <= seen <= {"DSN", "HELP", "PIPELINING"}
    session.mail()


@pytest.mark.parametrize("lines", [["", " ", "-"], ["AUTH"], ["SIZE x"], ["SIZE -1"], ["SIZE 1 2"], ["=", "8BITMIME="],
                                   ["DSN\tX"], ["\udcff\udcfe"], ["AUTH " + "MECH-" * 80]])
def test_41_odd_lists_do_no_harm(session, lines):
    session.greet(*lines, "DSN")
    session.mail()
    session.rcpt()


def test_41_long_lines(session):
    auth = "AUTH " + " ".join(f"MECHANISM-{number}" for number in range(30))
    seen = shown(session, auth, "X " + "y" * 3000, "DSN")
    assert "DSN" in seen
    session.mail()


def test_41_greeting_line_is_the_upstreams(session):
    session.banner()
    session.client.send("EHLO client.example")
    session.server.line()
    session.server.send("250-server.example Hello client [192.0.2.1], pleased", "250 DSN")
    assert session.client.reply().texts[0] == "server.example Hello client [192.0.2.1], pleased"


# 42: SIZE

@pytest.mark.parametrize("limit, offered, want", [
    (1000, "SIZE 500", "SIZE 500"), (1000, "SIZE 5000", "SIZE 1000"), (1000, "SIZE", "SIZE 1000"),
    (1000, "SIZE 0", "SIZE 1000"), (0, "SIZE 700", "SIZE 700"), (1000, "size 300", "SIZE 300"),
    (1000, "SIZE 99999999999999999999999", "SIZE 1000"), (1 << 40, f"SIZE {1 << 39}", f"SIZE {1 << 39}")])
def test_42_the_lower_size_is_offered(warp, limit, offered, want):
    session = warp("--message-size-limit", limit).session()
    assert [text.upper() for text in session.greet(offered).texts if text.upper().startswith("SIZE")] == [want]


@pytest.mark.parametrize("offered", ["SIZE", "SIZE 0"])
def test_42_no_limit_at_all(warp, offered):
    session = warp("--message-size-limit", 0).session()
    assert [text for text in session.greet(offered).texts if "SIZE" in text] in (["SIZE"], ["SIZE 0"])
    session.mail("MAIL FROM:<a@b.example> SIZE=123456789012")


@pytest.mark.parametrize("offered", ["SIZE 5000", "SIZE", "SIZE 0", "DSN"])
@pytest.mark.parametrize("size", [1001, 5001, 1 << 31, 1 << 32, (1 << 32) + 5, 1 << 63, 1 << 64, (1 << 64) + 5])
def test_42_declared_size_over_the_limit(warp, offered, size):
    """Refused here. No arithmetic overflow lets a big one through (501 is in order for what fits no 64 bits)."""
    session = warp("--message-size-limit", 1000).session()
    session.greet(offered)
    session.client.ask(f"MAIL FROM:<a@b.example> SIZE={size}", "552 5.3.4", *(["501 5.5.4"] if size >= 1 << 63 else []))
    session.mail("MAIL FROM:<a@b.example> SIZE=1000")


@pytest.mark.parametrize("value", ["x", "-1", "1x", "", "+5", "0x10"])
def test_42_size_that_is_no_number(warp, mail_server, value):
    server = mail_server("SIZE 1000", replies={"MAIL": lambda line: "501 5.5.4 SIZE"})
    client = warp(upstream=server).greeted()
    client.ask(f"MAIL FROM:<a@b.example> SIZE={value}", "501")


@pytest.mark.parametrize("reply", ["452 4.3.1 disk full", "552 5.3.4 too big for him"])
def test_42_the_upstreams_word_on_a_size(session, reply):
    session.greet("SIZE 1000")
    session.exchange("MAIL FROM:<a@b.example> SIZE=1000", reply)


def test_42_upstreams_lower_limit_holds_for_undeclared_messages_too(warp):
    """The upstream offered 100; more than that may be cut off here or refused there, and is not acknowledged."""
    session = warp().session()
    session.to("data", "SIZE 100")
    session.client.send_raw((b"x" * 50 + b"\r\n") * 10 + b".\r\n")
    session.client.wait(lambda: session.client.buffer or b"\r\n.\r\n" in session.server.buffer, "end")
    if not session.client.buffer:
        session.server.send("552 5.3.4 too big")
    session.client.expect("552 5.3.4")


# 45: BDAT

def chunk(data, last=False):
    return f"BDAT {len(data)}{' LAST' if last else ''}\r\n".encode() + data


PAYLOADS = [
    b"", b"hello\r\n", b"x\r\n.\r\n", b".\r\n", b"QUIT\r\nRSET\r\n", b"..\r\n", b"no line end", b"\r\n.\r", b"\r",
    bytes(range(256)), b"x" * 100000, b"BDAT 5 LAST\r\nabcde"]


@pytest.mark.parametrize("bytewise", [False, True])
@pytest.mark.parametrize("payload", PAYLOADS, ids=[repr(payload[:12])[2:-1] for payload in PAYLOADS])
def test_45_chunks_are_counted_octets(warp, payload, bytewise):
    """go-smtpproxy reads them as commands. Nothing in them ends anything, not even a final dot."""
    if bytewise:
        payload = payload[:256]
    session = warp("--bare-newline", "pass").session()
    session.to("rcpt", "CHUNKING", "PIPELINING")
    client, server = session.client, session.server
    send = client.send_bytewise if bytewise else client.send_raw
    send(chunk(payload))
    assert server.take(len(chunk(payload))) == chunk(payload)
    server.send("250 2.0.0 chunk")
    client.expect("250 2.0.0 chunk")
    send(chunk(payload, True) + b"NOOP\r\n")
    assert server.take(len(chunk(payload, True))) == chunk(payload, True)
    server.send("250 2.0.0 taken")
    client.expect("250 2.0.0 taken")
    server.expect_line("NOOP")


def test_45_chunks_in_one_segment(warp, mail_server):
    server = mail_server("CHUNKING", "PIPELINING")
    proxy = warp(upstream=server)
    client = proxy.greeted()
    client.send_raw(b"MAIL FROM:<a@b.example>\r\nRCPT TO:<c@d.example>\r\n" + chunk(b"one\r\n") + chunk(b".\r\n")
                    + chunk(b"three\r\n") + b"BDAT 0 LAST\r\nQUIT\r\n")
    assert [client.reply().code for _ in range(7)] == [250, 250, 250, 250, 250, 250, 221]
    assert server.messages[0]["data"] == b"one\r\n.\r\nthree\r\n"
    record = proxy.wait_for("message")
    assert (record["result"], record["size"]) == ("accepted", 15)


@pytest.mark.parametrize("line", ["bdat 5 last", "BDAT 5  LAST", "BDAT 5 LAST ", "Bdat 05 Last"])
def test_45_forms_of_the_command(session, line):
    session.to("rcpt", "CHUNKING")
    session.client.send_raw(line.encode() + b"\r\nabcde")
    seen = session.server.line()
    assert seen.upper().split()[0] == "BDAT" and int(seen.split()[1]) == 5 and seen.upper().split()[2] == "LAST"
    assert session.server.take(5) == b"abcde"
    session.sent()


@pytest.mark.parametrize("reply", ["552 5.3.4 too big", "451 4.3.0 later", "503 5.5.1 no"])
def test_45_refused_chunk_is_still_consumed(session, reply):
    """RFC 3030 2: the octets come, whatever the reply."""
    session.to("rcpt", "CHUNKING", "PIPELINING")
    client, server = session.client, session.server
    client.send_raw(chunk(b"QUIT\r\n" * 1000))
    assert server.line() == "BDAT 6000"
    server.send(reply)              # at once, before it has the octets
    server.take(6000)
    client.expect(reply)
    session.exchange("RSET", "250 2.0.0 fine")


def test_45_early_reply_to_a_chunk(session):
    """The reply comes while the client still sends: no octet of the rest becomes a command."""
    session.to("rcpt", "CHUNKING")
    client, server = session.client, session.server
    client.send_raw(b"BDAT 12 LAST\r\nQUIT\r\n")
    server.expect_line("BDAT 12 LAST")
    server.send("552 5.3.4 too big")
    server.drained()
    client.send_raw(b"QUIT\r\nRSET\r\n")
    client.expect("552 5.3.4")
    assert server.take(12) == b"QUIT\r\nQUIT\r\n"
    server.expect_line("RSET")


def test_45_data_after_bdat(warp, mail_server):
    server = mail_server("CHUNKING", "PIPELINING", replies={"DATA": "503 5.5.1 BDAT in progress"})
    client = warp(upstream=server).greeted()
    client.ask("MAIL FROM:<a@b.example>")
    client.ask("RCPT TO:<c@d.example>")
    client.send_raw(chunk(b"one\r\n"))
    client.expect("250")
    client.ask("DATA", "503 5.5.1")
    client.ask("RSET")
    client.ask("MAIL FROM:<second@b.example>")
    client.ask("RCPT TO:<c@d.example>")
    client.send_raw(chunk(b"two\r\n", True))
    client.expect("250")
    assert [message["data"] for message in server.messages] == [b"two\r\n"]


def test_45_bdat_without_recipients(warp, mail_server):
    """503, from whom ever, with the octets gone."""
    server = mail_server("CHUNKING", "PIPELINING")
    client = warp(upstream=server).greeted()
    client.send_raw(chunk(b"MAIL FROM:<evil@client.example>\r\n", True))
    client.expect("503")
    client.ask("MAIL FROM:<a@b.example>")
    assert not any("evil" in command for command in server.commands)


def test_45_bdat_not_offered(warp, mail_server):
    """Refused with its octets consumed, or the session ends: never are they read as commands."""
    server = mail_server("PIPELINING")
    client = warp(upstream=server).greeted()
    client.ask("MAIL FROM:<a@b.example>")
    client.ask("RCPT TO:<c@d.example>")
    client.send_raw(chunk(b"MAIL FROM:<evil@client.example>\r\n", True))
    assert client.reply().code >= 400
    try:
        client.ask("NOOP", "250", "421")
    except (peers.Ended, OSError):
        pass
    assert server.messages == [] and not any("evil" in command for command in server.commands)


@pytest.mark.parametrize("line", ["BDAT", "BDAT x", "BDAT -1", "BDAT 5 FIRST", "BDAT 5 LAST LAST", "BDAT 5LAST",
                                  "BDAT 0x5", "BDAT 99999999999999999999999999", "BDAT 18446744073709551621 LAST"])
def test_45_bad_size(session, line):
    """Nobody knows what follows: 501, and the upstream gets nothing of it."""
    session.to("rcpt", "CHUNKING")
    session.client.ask(line, "501", "500", "552", "421")
    session.client.close()
    assert session.server.farewell() in (b"", b"QUIT\r\n", b"RSET\r\n")


@pytest.mark.parametrize("sizes", [[101], [60, 60], [100, 1], [40, 40, 40]])
def test_45_size_limit_over_chunks(warp, sizes):
    """The chunk that goes over the limit is refused, and no LAST gets through."""
    session = warp("--message-size-limit", 100).session()
    session.to("rcpt", "CHUNKING")
    client, server = session.client, session.server
    for size in sizes[:-1]:
        client.send_raw(chunk(b"x" * size))
        server.take(len(chunk(b"x" * size)))
        server.send("250 2.0.0 chunk")
        client.expect("250")
    client.send_raw(chunk(b"y" * sizes[-1], True))
    client.expect("552 5.3.4")
    client.close()
    seen = server.farewell()
    assert b"LAST" not in seen or b"y" * sizes[-1] not in seen


@pytest.mark.parametrize("leave", ["close", "reset", "half_close"])
def test_45_client_gone_in_a_chunk(warp, leave):
    proxy = warp()
    session = proxy.session()
    session.to("rcpt", "CHUNKING")
    session.client.send_parts(b"BDAT 1000 LAST\r\n" + b"x" * 999)
    getattr(session.client, leave)()
    assert session.server.rest().count(b"x") < 1000
    assert proxy.wait_for("message")["result"] == "aborted"


@pytest.mark.parametrize("leave", ["close", "reset"])
def test_45_upstream_gone_in_a_chunk(session, leave):
    """As in 9: the octets are taken in, then a reply that is no success."""
    session.to("rcpt", "CHUNKING")
    session.client.send_parts(b"BDAT 100000 LAST\r\n" + b"x" * 1000)
    session.server.take(1000)
    getattr(session.server, leave)()
    session.client.send_raw(b"x" * 99000)
    session.client.expect("451 4.4.2", "421 4.4.2")


def test_45_bdat_to_a_non_pipelining_upstream(session):
    session.to("rcpt", "CHUNKING")
    client, server = session.client, session.server
    client.send_raw(chunk(b"one") + chunk(b"two", True))
    assert server.take(len(chunk(b"one"))) == chunk(b"one")
    client.drained()
    server.silent(0.02)
    server.send("250 2.0.0 one")
    assert server.take(len(chunk(b"two", True))) == chunk(b"two", True)
    server.send("250 2.0.0 two")
    client.expect("250 2.0.0 one")
    client.expect("250 2.0.0 two")


# 46: BINARYMIME

@pytest.mark.parametrize("mode", ["normalize", "reject", "pass"])
def test_46_binary_body_is_left_alone(warp, mode):
    """Bare CR and LF are legal in it: no --bare-newline applies."""
    session = warp("--bare-newline", mode).session()
    session.greet("CHUNKING", "BINARYMIME")
    session.mail("MAIL FROM:<a@b.example> BODY=BINARYMIME")
    session.rcpt()
    payload = b"\n.\n\r.\r\0\r\n.\r\n\xff"
    session.client.send_raw(chunk(payload, True))
    assert session.server.take(len(chunk(payload, True))) == chunk(payload, True)
    session.sent()


@pytest.mark.parametrize("mode", ["normalize", "reject", "pass"])
def test_46_bare_line_ends_in_a_chunk_that_is_not_binary(warp, mode):
    """Octets are counted, so none may be added or taken away without the count; refusing is in order."""
    session = warp("--bare-newline", mode).session()
    session.to("rcpt", "CHUNKING")
    payload = b"a\n.\nb\rc\r\n"
    session.client.send_raw(chunk(payload, True))
    session.client.wait(lambda: session.client.buffer or len(session.server.buffer) >= len(chunk(payload, True)), "end")
    if session.client.buffer:
        session.client.expect("554 5.6.0")
        return
    head = session.server.line()
    assert len(session.server.take(int(head.split()[1]))) == len(payload)
    session.sent()


def test_46_data_for_a_binary_body(warp, mail_server):
    """RFC 3030 3: 503, by either."""
    server = mail_server("CHUNKING", "BINARYMIME", replies={"DATA": "503 5.5.1 BDAT only"})
    client = warp(upstream=server).greeted()
    client.ask("MAIL FROM:<a@b.example> BODY=BINARYMIME")
    client.ask("RCPT TO:<c@d.example>")
    client.ask("DATA", "503 5.5.1")


# 48: DSN

@pytest.mark.parametrize("extensions", [("DSN",), ()])
def test_48_dsn_parameters_reach_upstream_and_log(warp, extensions):
    proxy = warp()
    session = proxy.session()
    session.greet(*extensions)
    session.mail("MAIL FROM:<a@b.example> RET=HDRS ENVID=QQ314159+2B+3D")
    session.rcpt("RCPT TO:<c@d.example> NOTIFY=SUCCESS,DELAY ORCPT=rfc822;Bob+2Bx@d.example")
    session.data()
    session.client.close()
    record = proxy.wait_for("message")
    assert record["mail_from"]["params"] == {"RET": "HDRS", "ENVID": "QQ314159+2B+3D"}
    assert record["rcpt_to"][0]["params"] == {"NOTIFY": "SUCCESS,DELAY", "ORCPT": "rfc822;Bob+2Bx@d.example"}


@pytest.mark.parametrize("sender, recipient", [("ENVID=a+2b", "ORCPT=rfc822;a+2bb@d.example"),
                                               ("ENVID=<1=2@x.example>", "ORCPT=rfc822;bounces=a=b@d.example")])
def test_48_xtext_as_postfix_takes_it(session, sender, recipient):
    """Hex in lower case, and '=': RFC 3461 4 has neither, real clients have both."""
    session.greet("DSN")
    session.mail(f"MAIL FROM:<a@b.example> {sender}")
    session.rcpt(f"RCPT TO:<c@d.example> {recipient}")


@pytest.mark.parametrize("line", ["MAIL FROM:<a@b.example> ENVID=a+2", "MAIL FROM:<a@b.example> ENVID=a+zz",
                                  "RCPT TO:<a@b.example> ORCPT=rfc822;a+GG", "RCPT TO:<a@b.example> ORCPT=;a"])
def test_48_bad_xtext(session, line):
    """RFC 3461 4: a plus sign and two upper-case hex digits."""
    session.to("mail" if line.startswith("RCPT") else "ehlo", "DSN")
    session.client.ask(line, "501 5.5.4")


# 49: AUTH

USER, SECRET = "tim@client.example", "open sesame 4711"
DIALOGUES = {
    "PLAIN at once": [(f"AUTH PLAIN {b64(chr(0) + USER + chr(0) + SECRET)}", "235 2.7.0 welcome")],
    "PLAIN after 334": [("AUTH PLAIN", "334 "), (b64(chr(0) + USER + chr(0) + SECRET), "235 2.7.0 welcome")],
    "PLAIN with another identity": [(f"AUTH PLAIN {b64('boss' + chr(0) + USER + chr(0) + SECRET)}", "235 2.7.0 ok")],
    "LOGIN": [("AUTH LOGIN", "334 VXNlcm5hbWU6"), (b64(USER), "334 UGFzc3dvcmQ6"), (b64(SECRET), "235 2.7.0 welcome")],
    "LOGIN with the name at once": [(f"AUTH LOGIN {b64(USER)}", "334 UGFzc3dvcmQ6"), (b64(SECRET), "235 2.7.0 ok")],
    "CRAM-MD5": [("AUTH CRAM-MD5", f"334 {b64('<1896.697170952@server.example>')}"),
                 (b64(USER + " b913a602c7eda7a495b4e6e7334d3890"), "235 2.7.0 welcome")],
    "lower case": [(f"auth plain {b64(chr(0) + USER + chr(0) + SECRET)}", "235 2.7.0 welcome")],
}
SECRETS = [SECRET, b64(SECRET), b64(SECRET)[:12], b64(chr(0) + USER + chr(0) + SECRET),
           b64("boss" + chr(0) + USER + chr(0) + SECRET), "b913a602c7eda7a495b4e6e7334d3890",
           b64(USER + " b913a602c7eda7a495b4e6e7334d3890")]


def authenticate(session, dialogue):
    for line, reply in dialogue:
        session.exchange(line, reply)


@pytest.mark.parametrize("verbose", [True, False])
@pytest.mark.parametrize("dialogue", DIALOGUES.values(), ids=DIALOGUES)
def test_49_name_is_logged_and_secret_is_not(warp, dialogue, verbose):
    proxy = warp(*(["--verbose"] if verbose else []))
    session = proxy.session()
    session.greet("AUTH PLAIN LOGIN CRAM-MD5")
    authenticate(session, dialogue)
    session.transaction()
    session.quit()
    assert proxy.wait_for("message")["auth"] == USER
    proxy.wait_for("close")
    text = proxy.log_text() + proxy.error_path.read_text()
    assert not [secret for secret in SECRETS if secret in text]


@pytest.mark.parametrize("verbose", [True, False])
@pytest.mark.parametrize("reply", ["535 5.7.8 no", "454 4.7.0 later", "534 5.7.9 too weak"])
@pytest.mark.parametrize("dialogue", DIALOGUES.values(), ids=DIALOGUES)
def test_49_refused(warp, dialogue, reply, verbose):
    """No user, then; and a refused secret is one still."""
    proxy = warp(*(["--verbose"] if verbose else []))
    session = proxy.session()
    session.greet("AUTH PLAIN LOGIN CRAM-MD5")
    authenticate(session, dialogue[:-1] + [(dialogue[-1][0], reply)])
    session.transaction()
    session.quit()
    assert proxy.wait_for("message")["auth"] is None
    text = proxy.log_text() + proxy.error_path.read_text()
    assert not [secret for secret in SECRETS if secret in text]


@pytest.mark.parametrize("mechanism, said, name", [
    ("SCRAM-SHA-256", "n,,n=tim=2Cjim,r=abc", "tim,jim"), ("SCRAM-SHA-256", "n,,r=abc,n=boss,x=y", ""),
    ("OAUTHBEARER", "n,a=tim=3D@x,\1auth=Bearer t\1\1", "tim=@x"),
    ("OAUTHBEARER", "n,,\1auth=Bearer t,a=boss,\1\1", "")])
def test_49_name_is_where_the_server_reads_it(warp, mechanism, said, name):
    """In the header of GS2, or directly behind it: elsewhere a client could have somebody else's name in our records, and sent on by
    XCLIENT."""
    proxy = warp()
    session = proxy.session()
    session.greet(f"AUTH {mechanism}")
    session.exchange(f"AUTH {mechanism} {b64(said)}", "235 2.7.0 welcome")
    session.transaction()
    assert proxy.wait_for("message")["auth"] == name


def test_49_cancel(session):
    session.greet("AUTH LOGIN")
    session.exchange("AUTH LOGIN", "334 VXNlcm5hbWU6")
    session.exchange("*", "501 5.7.0 cancelled")
    session.exchange("NOOP", "250 2.0.0 fine")


@pytest.mark.parametrize("line", ["QUIT", "RSET", "MAIL FROM:<a@b.example>", "", "=", "EHLO x.example"])
def test_49_continuation_is_no_command(session, line):
    """Whatever it looks like."""
    session.greet("AUTH LOGIN")
    session.exchange("AUTH LOGIN", "334 VXNlcm5hbWU6")
    session.exchange(line, "501 5.5.2 not base64")
    session.mail()


def test_49_empty_initial_response(session):
    session.greet("AUTH EXTERNAL")
    session.exchange("AUTH EXTERNAL =", "235 2.7.0 welcome")


def test_49_many_rounds(session):
    session.greet("AUTH GSSAPI")
    session.exchange("AUTH GSSAPI", "334 " + b64("0"))
    for number in range(20):
        session.exchange(b64(f"client {number}"), "334 " + b64(f"server {number}"))
    session.exchange(b64("end"), "235 2.7.0 welcome")
    session.mail()


@pytest.mark.parametrize("length", [1000, 2050, 8192, 12286])
def test_49_lines_of_12288_octets(session, length):
    """RFC 4954 4.5, CR LF counted; initial responses and challenges too (a Kerberos ticket is long)."""
    session.greet("AUTH GSSAPI")
    session.exchange("AUTH GSSAPI", "334 ")
    session.exchange("x" * length, "535 5.7.8 no")
    initial = "AUTH GSSAPI " + "x" * (length - 12)
    session.exchange(initial, "334 " + "y" * (length - 4))
    session.exchange("z" * length, "235 2.7.0 welcome")


def test_49_longer_lines_do_no_harm(session):
    session.greet("AUTH GSSAPI")
    session.exchange("AUTH GSSAPI", "334 ")
    session.client.send("x" * 200000)
    session.client.wait(lambda: session.client.buffer or session.server.buffer or session.client.ended, "reaction")
    if session.server.buffer and not session.client.buffer:
        session.server.until(b"\n")
        session.server.send("500 5.5.6 too long")
    assert session.client.reply().code in (500, 501, 421)


def test_49_auth_in_a_transaction(warp, mail_server):
    server = mail_server("AUTH PLAIN", replies={"AUTH": "503 5.5.1 not now"})
    client = warp(upstream=server).greeted()
    client.ask("MAIL FROM:<a@b.example>")
    client.ask("AUTH PLAIN AGEAYg==", "503 5.5.1")


def test_49_auth_twice(warp, mail_server):
    replies = iter(["235 2.7.0 welcome", "503 5.5.1 again?"])
    server = mail_server("AUTH PLAIN", replies={"AUTH": lambda line: next(replies)})
    client = warp(upstream=server).greeted()
    client.ask("AUTH PLAIN AGEAYg==", "235")
    client.ask("AUTH PLAIN AGEAYg==", "503 5.5.1")


def test_49_auth_parameter_of_mail(warp):
    proxy = warp()
    session = proxy.session()
    session.greet("AUTH PLAIN")
    session.mail("MAIL FROM:<a@b.example> AUTH=e+3Dmc2@example.com")
    session.rcpt()
    session.data()
    session.client.close()
    assert proxy.wait_for("message")["mail_from"]["params"] == {"AUTH": "e+3Dmc2@example.com"}


@pytest.mark.parametrize("leave", ["client", "server"])
def test_49_gone_in_the_middle(warp, leave):
    proxy = warp("--verbose")
    session = proxy.session()
    session.greet("AUTH LOGIN")
    session.exchange("AUTH LOGIN", "334 VXNlcm5hbWU6")
    session.exchange(b64(USER), "334 UGFzc3dvcmQ6")
    session.client.send_parts(b64(SECRET).encode())
    if leave == "client":
        session.client.close()
        assert b64(SECRET).encode() not in session.server.rest()
    else:
        session.server.close()
        session.client.expect("421 4.4.2")
    proxy.wait_for("close")
    assert b64(SECRET)[:12] not in proxy.log_text()


@pytest.fixture
def distant(tmp_path):
    """distant(*options): a client on another host than smtpwarp's, with its session."""
    if netns.unsupported():
        pytest.skip(netns.unsupported())
    made = []
    with netns.pair() as (client_host, host):
        def make(*options, family=4):
            address, source = (host.ip4, client_host.ip4) if family == 4 else (f"[{host.ip6}]", client_host.ip6)
            with host:
                host.take_any_address()
                proxy = Warp(host, tmp_path, "--allow-clients", source, *options)
                made.append(proxy)
                proxy.listen(f"{address}:2525")
            with client_host:
                client = peers.connect(address.strip("[]"), 2525, proxy.group)
            return Session(client, proxy.upstream.accept())
        yield make
        for proxy in made:
            proxy.close()


@pytest.mark.parametrize("family", [4, 6])
def test_85_auth_is_not_shown_to_distant_clients_in_the_clear(distant, family):
    """49: not even where bind(2) takes their addresses."""
    session = distant("--tls", "none", family=family)
    assert not [text for text in session.greet("AUTH PLAIN", "DSN").texts if "AUTH" in text]
    session.client.ask("AUTH PLAIN AGEAYg==", "538 5.7.11")
    session.client.ask("AUTH LOGIN", "538 5.7.11")
    session.mail()


def test_49_plain_auth_shows_it(distant):
    session = distant("--tls", "none", "--plain-auth")
    assert "AUTH PLAIN" in session.greet("AUTH PLAIN").texts
    session.exchange("AUTH PLAIN AGEAYg==", "235 2.7.0 welcome")


# 50-52 (REQUIRETLS with TLS: test_upstream_tls.py)

@pytest.mark.parametrize("extensions", [("REQUIRETLS",), ()])
def test_50_requiretls_without_tls(session, extensions):
    session.greet(*extensions)
    session.client.ask("MAIL FROM:<a@b.example> REQUIRETLS", "530 5.7.30")
    session.mail()


@pytest.mark.parametrize("line", ["MAIL FROM:<a@b.example> BY=120;R", "MAIL FROM:<a@b.example> HOLDFOR=86400",
                                  "MAIL FROM:<a@b.example> HOLDUNTIL=2030-01-01T00:00:00Z",
                                  "MAIL FROM:<a@b.example> MT-PRIORITY=3", "MAIL FROM:<a@b.example> BY=-20;NT",
                                  "MAIL FROM:<a@b.example> SOLICIT=org.example:ADV"])
def test_52_parameters_of_these_extensions_pass(session, line):
    session.greet("DELIVERBY", "FUTURERELEASE 1 2030-01-01T00:00:00Z", "MT-PRIORITY", "NO-SOLICITING")
    session.exchange(line, "250 2.1.0 fine")


def test_45_refused_chunk_has_its_time(warp):
    """552, and then the octets may come at leisure."""
    session = warp("--message-size-limit", 1000).session()
    session.to("rcpt", "CHUNKING", "PIPELINING")
    session.client.send("BDAT 5000 LAST")
    session.client.expect("552 5.3.4")
    session.server.expect_line("RSET")
    session.server.send("250 ok")
    session.client.silent(0.1)
    session.client.send_raw(b"x" * 5000)
    session.exchange("NOOP", "250 ok")


@pytest.mark.parametrize("line", [b"BDAT 38" + b" " * 3000 + b"LAST\r\n", b" bdat 38" + b" " * 9000 + b"\r\n"])
def test_45_bdat_line_that_is_too_long(session, line):
    """Its octets are not known, so nothing that follows is a command."""
    session.to("rcpt", "CHUNKING", "PIPELINING")
    session.client.send_raw(line + b"RSET\r\nMAIL FROM:<evil@example.com>\r\n")
    session.client.expect("500 5.5.2")
    session.client.expect("421")
    session.client.close()
    assert session.server.farewell() in (b"", b"QUIT\r\n")


def test_49_secret_in_the_place_of_the_mechanism(warp):
    proxy = warp("--verbose")
    session = proxy.session()
    session.greet("AUTH PLAIN")
    session.exchange("AUTH AGpvZQBzM2NyZXQ=", "504 5.5.4 mechanism")
    session.quit()
    proxy.wait_for("close")
    assert "AGpvZQBz" not in proxy.log_text()
