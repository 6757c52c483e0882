"""Commands: their forms, their order, their limits: PROTOCOL 20-33."""
import pytest


def deliver(session):
    """The rest of a transaction, to its 250."""
    session.data()
    session.body()
    session.dot()
    session.sent()


# 20: case

@pytest.mark.parametrize("mail, rcpt", [("mail from:<JoHn@Client.Example>", "rcpt to:<MaRy@Server.Example>"),
                                        ("mAiL fRoM:<JoHn@Client.Example>", "RcPt tO:<MaRy@Server.Example>")])
def test_20_case_of_verbs_does_not_matter_and_that_of_addresses_is_kept(warp, mail, rcpt):
    proxy = warp()
    session = proxy.session()
    session.banner()
    session.client.send("eHlO Client.Example")
    assert session.server.line().upper() == "EHLO CLIENT.EXAMPLE"
    session.server.send("250 server.example")
    session.client.expect("250")
    for line in mail, rcpt:
        session.client.send(line)
        seen = session.server.line()
        assert seen.upper() == line.upper() and seen[seen.index("<"):] == line[line.index("<"):]
        session.server.send("250 2.0.0 fine")
        session.client.expect("250")
    session.client.send("data")
    assert session.server.line().upper() == "DATA"
    session.server.send("354 go on")
    session.client.expect("354")
    session.client.close()
    record = proxy.wait_for("message")
    assert record["mail_from"]["address"] == "JoHn@Client.Example"
    assert record["rcpt_to"][0]["address"] == "MaRy@Server.Example"


def test_20_case_of_parameters(warp):
    proxy = warp()
    session = proxy.session()
    session.greet("SIZE", "8BITMIME", "DSN")
    session.mail("MAIL FROM:<a@b.example> size=10 Body=8bitmime ENVid=AbC")
    session.rcpt()
    deliver(session)
    assert proxy.wait_for("message")["mail_from"]["params"] == {"SIZE": "10", "BODY": "8bitmime", "ENVID": "AbC"}


# 21-24: paths

@pytest.mark.parametrize("line", ["MAIL FROM: <a@b.example>", "MAIL FROM :<a@b.example>", "MAIL FROM : <a@b.example>",
                                  "MAIL  FROM:<a@b.example>", "MAIL FROM:  <a@b.example> "])
def test_21_space_around_the_colon(warp, line):
    """RFC 5321 3.3 forbids it, clients do it."""
    proxy = warp()
    session = proxy.session()
    session.greet()
    session.client.send(line)
    assert session.server.line().replace(" ", "") == "MAILFROM:<a@b.example>"
    session.server.send("250 2.1.0 fine")
    session.client.expect("250 2.1.0 fine")
    session.rcpt()
    deliver(session)
    assert proxy.wait_for("message")["mail_from"]["address"] == "a@b.example"


PATHS = ["", "a@b.example", '"a b"@c.example', '"a>b"@c.example', '"a@b"@c.example', r'"a\"b"@c.example',
         r'"a\\b"@c.example', '""@c.example', "a@[127.0.0.1]", "a@[IPv6:2001:db8::1]", "Postmaster", "postmaster",
         "a%b@c.example", "%s%n@c.example", "a+b=c@d.example", "grüße@bücher.example", "a@xn--bcher-kva.example",
         "!#$%&'*+-/=?^_`{|}~@c.example", '"a<b"@c.example', '"SIZE=5 "@c.example',
         "a..b@c.example", ".a@c.example"]


@pytest.mark.parametrize("path", PATHS)
def test_23_paths_go_through_as_they_are(warp, path):
    """22 as well: the null reverse-path. go-smtpproxy corrupts a percent sign, Willi glues on parameters."""
    proxy = warp()
    session = proxy.session()
    session.greet("SMTPUTF8", "SIZE", "DSN")
    session.mail(f"MAIL FROM:<{path}> SIZE=77")
    recipient = path or "to@server.example"
    session.rcpt(f"RCPT TO:<{recipient}> NOTIFY=NEVER")
    deliver(session)
    record = proxy.wait_for("message")
    assert record["mail_from"] == {"address": path, "params": {"SIZE": "77"}}
    [logged] = record["rcpt_to"]
    assert (logged["address"], logged["params"]) == (recipient, {"NOTIFY": "NEVER"})


@pytest.mark.parametrize("path", ["@a.example:c@d.example", "@a.example,@b.example:c@d.example"])
@pytest.mark.parametrize("options", [[], ["--valid-recipients", "^c@d[.]example$"]], ids=str)
def test_24_88_source_route_is_dropped(warp, path, options):
    """What the checks saw, and what the record says, is what goes on (RFC 5321 4.1.1.3, 3.6.1)."""
    proxy = warp(*options)
    session = proxy.session()
    session.greet("SIZE", "DSN")
    session.exchange(f"MAIL FROM:<{path}> SIZE=77", "250 fine", "MAIL FROM:<c@d.example> SIZE=77")
    session.exchange(f"RCPT TO: {path}", "250 fine", "RCPT TO:<c@d.example>")
    session.exchange(f"RCPT TO:<{path}> NOTIFY=NEVER", "250 fine", "RCPT TO:<c@d.example> NOTIFY=NEVER")
    session.client.close()
    assert proxy.wait_for("message")["rcpt_to"][1]["address"] == "c@d.example"


@pytest.mark.parametrize("path", ["<@a.example:>", "<@a.example:@b.example:c@d.example>", "john smith", "John Doe <a@b.example>",
                                  '"a b"@c.example', r"a\ b@c.example", "a@b.example c@d.example", "a@b.example SIZE=1 c"])
def test_88_no_address_is_made_of_a_part(session, path):
    """A route that leads nowhere, a path without brackets that has blanks."""
    session.greet("SIZE")
    session.client.ask(f"MAIL FROM:{path}", "501 5.5.4")
    session.mail()
    session.client.ask(f"RCPT TO: {path}", "501 5.5.4")
    session.rcpt()


@pytest.mark.parametrize("line", ["MAIL", "MAIL FROM", "MAIL FROM:", "MAIL FROM:<a@b.example", "MAIL TO:<a@b.example>",
                                  'MAIL FROM:<"a@b.example>', "MAIL FROM:<a@b.example>SIZE=1",
                                  "MAIL FROM:<a@b.example> =1", "MAIL FROM:<a@b.example> SIZE=", "MAIL <a@b.example>"])
def test_24_bad_path_is_a_syntax_error(warp, mail_server, line):
    """Whoever says so, smtpwarp or the upstream: a reply of class 5, and the session goes on."""
    server = mail_server(replies={"MAIL": "501 5.5.4 syntax"})
    client = warp(upstream=server).greeted()
    client.ask(line, "501", "500", "553")
    client.ask("NOOP", "250")


def test_24_path_without_brackets(session):
    """Not in the grammar, but in the field; what the log says and what the upstream sees are the same address."""
    session.greet()
    session.client.send("MAIL FROM:a@b.example")
    session.client.wait(lambda: session.client.buffer or session.server.buffer, "either")
    if not session.server.buffer:
        session.client.expect("501 5.5.4")
        return
    session.server.expect_line("MAIL FROM:a@b.example", "MAIL FROM:<a@b.example>")
    session.server.send("250 2.1.0 fine")
    session.client.expect("250")


# 25: EHLO again

@pytest.mark.parametrize("again", ["EHLO other.example", "HELO other.example"])
def test_25_greeting_again_resets_the_transaction(warp, mail_server, again):
    server = mail_server()
    proxy = warp(upstream=server)
    client = proxy.greeted()
    client.ask("MAIL FROM:<first@client.example>")
    client.ask("RCPT TO:<first@server.example>")
    client.ask(again, "250")
    client.ask("RCPT TO:<second@server.example>", "503 5.5.1")
    client.ask("MAIL FROM:<second@client.example>")
    client.ask("RCPT TO:<second@server.example>")
    client.ask("DATA", "354")
    client.send("x", ".")
    client.expect("250")
    client.ask("QUIT", "221")
    assert [message["to"] for message in server.messages] == [["<second@server.example>"]]
    record = proxy.wait_for("message", result="accepted")
    assert record["helo"] == "other.example"
    assert [recipient["address"] for recipient in record["rcpt_to"]] == ["second@server.example"]
    assert all(record["mail_from"]["address"] == "first@client.example"
               for record in proxy.records("message") if record["result"] != "accepted")


@pytest.mark.parametrize("name", ["client.example", "[192.0.2.1]", "[IPv6:2001:db8::1]", "localhost", "under_score",
                                  "a" * 255, "%s%n", "x y z"])
def test_25_the_clients_name_reaches_the_upstream(warp, name):
    """go-smtpproxy loses it."""
    proxy = warp()
    session = proxy.session()
    session.banner()
    session.client.send(f"EHLO {name}")
    session.server.expect_line(f"EHLO {name}")
    session.server.send("250 server.example")
    session.client.expect("250")
    session.client.close()
    assert proxy.wait_for("close")["helo"] == name


@pytest.mark.parametrize("line", ["EHLO", "HELO", "EHLO ", "HELO  "])
def test_25_greeting_without_a_name(session, line):
    session.banner()
    session.client.ask(line, "501 5.5.4")
    session.ehlo()


# 26: HELO

@pytest.mark.parametrize("tls, first", [("may", "EHLO client.example"), ("none", "HELO client.example")])
def test_26_helo_client_sees_no_extensions(warp, tls, first):
    """go-smtpproxy answers HELO twice."""
    session = warp("--tls", tls).session()
    session.banner()
    session.client.send("HELO client.example")
    seen = session.server.expect_line(first, "HELO client.example")
    if seen.startswith("EHLO"):
        session.server.send("250-server.example", "250-PIPELINING", "250 SIZE 1000")
        session.server.expect_line("HELO client.example")
    session.server.send("250 server.example at your service")
    assert session.client.reply() == "250 server.example at your service"
    session.mail()
    session.exchange("NOOP", "250 once only")


def test_26_helo_reply_of_several_lines_or_refusal(warp):
    session = warp("--tls", "none").session()
    session.banner()
    session.exchange("HELO client.example", "504 5.5.4 not you")
    session.exchange("HELO client.example", "250-a\n250 b")
    session.mail()


@pytest.mark.parametrize("refusal", ["500 5.5.1 what?", "502 5.5.1 no", "550 what?", "500-a\n500 b"])
def test_26_upstream_that_knows_only_helo(warp, refusal):
    proxy = warp()
    session = proxy.session()
    session.banner()
    session.client.send("EHLO client.example")
    session.server.expect_line("EHLO client.example")
    session.server.send(*refusal.split("\n"))
    session.server.expect_line("HELO client.example")
    session.server.send("250 server.example")
    offers = {text.split()[0] for text in session.client.expect("250").texts[1:]}
    assert {"PIPELINING"} <= offers <= {"PIPELINING", "SIZE"}
    session.transaction()
    session.quit()
    assert proxy.wait_for("message")["result"] == "accepted"


def test_26_pipelining_client_and_helo_upstream(session):
    """What smtpwarp offers by itself it must also do: one command at a time goes on."""
    session.banner()
    session.client.send("EHLO client.example")
    session.server.line()
    session.server.send("502 5.5.1 no")
    session.server.line()
    session.server.send("250 server.example")
    session.client.expect("250")
    session.client.send("MAIL FROM:<a@b.example>", "RCPT TO:<c@d.example>", "DATA")
    for command, reply in ("MAIL FROM:<a@b.example>", "250 a"), ("RCPT TO:<c@d.example>", "250 b"), ("DATA", "354 c"):
        session.server.expect_line(command)
        session.client.drained()
        session.server.silent(0.02)
        session.server.send(reply)
        session.client.expect(reply)


def test_26_upstream_that_refuses_ehlo_and_helo(session):
    session.banner()
    session.client.send("EHLO client.example")
    for verb in "EHLO", "HELO":
        session.server.expect_line(f"{verb} client.example")
        session.server.send("550 5.7.1 not you")
    session.client.expect("550 5.7.1 not you")


@pytest.mark.parametrize("reply", ["451 4.3.0 later", "450-a\n450 b"])
def test_26_temporary_refusal_of_ehlo_is_passed_on(session, reply):
    session.banner()
    session.client.send("EHLO client.example")
    session.server.line()
    session.server.send(*reply.split("\n"))
    assert session.client.reply() == reply
    session.client.ask("MAIL FROM:<>", "503 5.5.1")
    session.ehlo()


# 81: what smtpwarp said for itself

def helo_after_ehlo(session, helo_reply="503 5.5.1 Already identified", offers=()):
    """A HELO client, whose server was told EHLO for TLS, and answers the HELO behind it so."""
    session.banner()
    session.client.send("HELO client.example")
    session.server.expect_line("EHLO client.example")
    session.server.send("250-server.example hello", *[f"250-{offer}" for offer in offers], "250 SIZE 1000")
    if any(offer.startswith("X") for offer in offers):
        session.server.line()
        session.server.send("250 2.0.0 noted")
    session.server.expect_line("HELO client.example")
    session.server.send(helo_reply)


@pytest.mark.parametrize("text", ["503 5.5.1 Invalid command: Already identified", "503 Duplicate HELO/EHLO"])
def test_81_helo_client_never_hears_of_our_ehlo(session, text):
    """OpenSMTPD's words, and those of Python's smtpd."""
    helo_after_ehlo(session, text, ["CHUNKING"])
    assert session.client.reply() == "250 server.example hello"
    session.transaction()
    session.quit()


@pytest.mark.parametrize("reply", ["501 5.5.4 not such a name", "550 5.7.1 no", "450 4.7.1 later"])
def test_81_a_refusal_of_the_name_stands(session, reply):
    helo_after_ehlo(session, reply)
    assert session.client.reply() == reply
    session.client.send("HELO other.example")
    session.server.expect_line("EHLO other.example")
    session.server.send("503 5.5.1 Already identified")
    session.server.expect_line("HELO other.example")
    session.server.send("503 5.5.1 Already identified")
    assert session.client.reply().code == 250
    session.mail()


def test_81_helo_again_ends_the_transaction(session):
    """RFC 5321 4.1.4: at the server too, which does not take the HELO for it."""
    helo_after_ehlo(session)
    session.client.expect("250")
    session.mail()
    session.client.send("HELO client.example")
    for line in "EHLO client.example", "HELO client.example":
        session.server.expect_line(line)
        session.server.send("503 5.5.1 Already identified")
    session.server.expect_line("RSET")
    session.server.send("250 2.0.0 forgotten")
    session.client.expect("250")
    session.transaction()


def test_81_a_503_to_the_clients_own_greetings_is_passed_on(warp):
    session = warp("--tls", "none").session()
    session.greet()
    session.exchange("HELO client.example", "503 5.5.1 Already identified")
    session.mail()


@pytest.mark.parametrize("options", [[], ["--xforward"], ["--xclient"]], ids=str)
def test_81_server_that_closes_at_our_ehlo_is_told_helo(warp, options):
    proxy = warp(*options)
    session = proxy.session()
    session.banner()
    session.client.send("HELO client.example")
    session.server.expect_line("EHLO client.example")
    session.server.close()
    session.server = proxy.upstream.accept()
    session.server.send("220 server.example ESMTP")
    session.server.expect_line("HELO client.example")
    session.server.send("250 server.example")
    session.client.expect("250 server.example")
    session.transaction()
    session.exchange("HELO again.example", "250 server.example")
    assert "EHLO made it close the connection" in proxy.wait_for("error")["error"]


@pytest.mark.parametrize("options, hello", [([], "EHLO"), (["--tls", "encrypt"], "HELO")], ids=str)
def test_81_no_second_connection_for_who_cannot_use_it(warp, options, hello):
    """The client's own EHLO; TLS that cannot be had by HELO."""
    proxy = warp(*options)
    session = proxy.session()
    session.banner()
    session.client.send(f"{hello} client.example")
    session.server.expect_line("EHLO client.example")
    session.server.close()
    session.client.expect("421")
    session.client.expect_end()
    proxy.upstream.nobody()


# 83: a browser

BODY = ("Host: server.example", "Content-Type: text/plain", "", "EHLO browser.example", "MAIL FROM:<a@b.example>",
        "RCPT TO:<c@d.example>", "DATA", "Subject: forged", "", ".", "QUIT")


@pytest.mark.parametrize("phase", ["connect", "banner", "ehlo", "mail", "sent"])
@pytest.mark.parametrize("line", ["POST / HTTP/1.1", "GET /index.html HTTP/1.0", "post /", "OPTIONS * HTTP/1.1", "PRI * HTTP/2.0",
                                  "EHLO /x HTTP/1.1", "NOOP / HTTP/1.1", "POST /" + "x" * 3000 + " HTTP/1.1"],
                         ids=lambda line: line[:20])
def test_83_http_ends_the_session(warp, phase, line):
    """Postfix does so. The server's own defence would never see the line, and takes the message in its body."""
    proxy = warp("--tls", "none")
    session = proxy.session()
    session.to(phase, "PIPELINING")
    seen = len(session.server.got)
    if phase == "connect":
        session.client.send(line, *BODY)
        session.server.send("220 server.example")
        session.client.expect("220")
    else:
        session.client.send(line, *BODY)
    session.client.expect("500 5.5")
    session.client.expect("421 4.7.0")
    session.client.expect_end()
    proxy.wait_for("close", by="smtpwarp")
    session.server.rest()
    assert session.server.got[seen:] in (b"", b"QUIT\r\n")


def test_83_late(warp, mail_server):
    client = warp("--connect-on", "recipient", "--tls", "none", upstream=mail_server()).greeted()
    client.send("POST / HTTP/1.1", *BODY)
    client.expect("500 5.5")
    client.expect("421 4.7.0")
    client.expect_end()


@pytest.mark.parametrize("line", ["NOOP see http://server.example/", "VRFY post", "NOOP GET / HTTP/1.1x"])
def test_83_what_only_looks_like_it(session, line):
    session.greet()
    session.exchange(line, "250 2.0.0 fine")


# 27: RSET, NOOP, QUIT

@pytest.mark.parametrize("phase", ["ehlo", "mail", "rcpt", "sent"])
@pytest.mark.parametrize("command", ["RSET", "NOOP", "NOOP with an argument", "QUIT", "noop"])
def test_27_any_time_after_ehlo(session, phase, command):
    session.to(phase)
    session.exchange(command, "221 2.0.0 bye" if command == "QUIT" else "250 2.0.0 fine")


@pytest.mark.parametrize("command", ["RSET", "NOOP", "NOOP x"])
def test_27_before_ehlo(session, command):
    session.banner()
    session.client.ask(command, "250")
    session.ehlo()


def test_27_quit_before_ehlo(session):
    session.banner()
    session.quit()


def test_27_quit_and_upstream_that_says_nothing_more(session):
    session.greet()
    session.client.send("QUIT")
    session.server.expect_line("QUIT")
    session.server.close()
    session.client.expect("221", "421")
    session.client.expect_end()


def test_27_commands_after_quit_go_nowhere(session):
    session.greet("PIPELINING")
    session.client.send("QUIT", "MAIL FROM:<late@client.example>")
    session.server.expect_line("QUIT")
    session.server.send("221 bye")
    session.client.expect("221 bye")
    session.server.close()
    assert b"late" not in session.server.got
    session.client.expect_end()


# 28: several transactions

def test_28_several_transactions(warp):
    proxy = warp()
    session = proxy.session()
    session.greet("SIZE", "DSN")
    wanted = []
    for number in range(5):
        session.mail(f"MAIL FROM:<from{number}@client.example> SIZE={number + 1}")
        for recipient in range(number + 1):
            session.rcpt(f"RCPT TO:<to{number}.{recipient}@server.example>")
        wanted.append([f"to{number}.{recipient}@server.example" for recipient in range(number + 1)])
        deliver(session)
    session.quit()
    records = [proxy.wait_for("message", count) for count in range(1, 6)]
    assert [[recipient["address"] for recipient in record["rcpt_to"]] for record in records] == wanted
    assert [record["mail_from"] for record in records] == [
        {"address": f"from{number}@client.example", "params": {"SIZE": str(number + 1)}} for number in range(5)]
    close = proxy.wait_for("close")
    assert (close["messages"], close["recipients"]) == (5, 15)


@pytest.mark.parametrize("end", ["RSET", "refused data", "refused message"])
def test_28_nothing_of_a_failed_transaction_stays(warp, end):
    proxy = warp()
    session = proxy.session()
    session.greet("SIZE")
    session.mail("MAIL FROM:<first@client.example> SIZE=100")
    session.rcpt("RCPT TO:<first@server.example>")
    if end == "RSET":
        session.exchange("RSET", "250 2.0.0 fine")
    elif end == "refused data":
        session.exchange("DATA", "451 4.3.0 later")
        session.exchange("RSET", "250 2.0.0 fine")
    else:
        session.data()
        session.body()
        session.dot()
        session.server.send("550 5.7.1 no")
        session.client.expect("550 5.7.1 no")
    session.mail("MAIL FROM:<second@client.example>")
    session.rcpt("RCPT TO:<second@server.example>")
    deliver(session)
    record = proxy.wait_for("message", result="accepted")
    assert record["mail_from"] == {"address": "second@client.example", "params": {}}
    assert [recipient["address"] for recipient in record["rcpt_to"]] == ["second@server.example"]


def test_28_capabilities_of_one_session_do_not_leak_into_another(warp):
    """They do in go-smtpproxy."""
    proxy = warp().listen()
    offers = [("SIZE 1000", "AUTH PLAIN"), ("8BITMIME",), ("DSN", "SIZE 500")]
    sessions = [proxy.session() for _ in offers]
    for session in sessions:
        session.banner()
    for session, extensions in zip(sessions, offers):
        shown = set(session.ehlo(*extensions).texts[1:])
        assert {line for line in shown if line.split()[0] in ("AUTH", "8BITMIME", "DSN")} == {
            line for line in extensions if line.split()[0] in ("AUTH", "8BITMIME", "DSN")}
    for session in sessions:
        session.quit()


# 29, 30: parameters

@pytest.mark.parametrize("reply", ["250 2.1.0 fine", "555 5.5.4 unknown parameter"])
@pytest.mark.parametrize("line", ["MAIL FROM:<a@b.example> FOO=bar", "MAIL FROM:<a@b.example> X-Y BAR=<z>",
                                  "MAIL FROM:<a@b.example> SMTPUTF8", "MAIL FROM:<a@b.example> RET=HDRS ENVID=x",
                                  "MAIL FROM:<a@b.example> BODY=8BITMIME", "MAIL FROM:<a@b.example> AUTH=<>"])
def test_29_parameters_are_never_dropped(session, line, reply):
    """Whether the upstream offered them or not: it is the upstream's to say 555."""
    session.greet()
    session.exchange(line, reply)


def test_29_parameters_of_recipients_are_never_dropped(session):
    session.to("mail")
    session.exchange("RCPT TO:<a@b.example> NOTIFY=SUCCESS,FAILURE ORCPT=rfc822;a@b.example FOO=bar", "250 2.1.5 fine")


@pytest.mark.parametrize("line", ["MAIL FROM:<a@b.example> SIZE=1 SIZE=2", "MAIL FROM:<a@b.example> SIZE=1 size=1",
                                  "MAIL FROM:<a@b.example> BODY=7BIT RET=FULL BODY=8BITMIME",
                                  "RCPT TO:<a@b.example> NOTIFY=NEVER NOTIFY=SUCCESS",
                                  "MAIL FROM:<a@b.example> FOO FOO"])
def test_30_duplicate_parameters_are_refused(session, line):
    session.to("mail" if line.startswith("RCPT") else "ehlo", "SIZE", "DSN")
    session.client.ask(line, "501 5.5.4")
    session.exchange("RSET", "250 2.0.0 fine")


# 31: recipients

def test_31_a_thousand_recipients(warp, mail_server):
    server = mail_server("PIPELINING")
    proxy = warp(upstream=server)
    client = proxy.greeted()
    recipients = [f"user{number}@server.example" for number in range(1000)]
    client.send("MAIL FROM:<a@b.example>", *[f"RCPT TO:<{recipient}>" for recipient in recipients], "DATA")
    for _ in range(1001):
        client.expect("250")
    client.expect("354")
    client.send("x", ".")
    client.expect("250")
    client.ask("QUIT", "221")
    assert server.messages[0]["to"] == [f"<{recipient}>" for recipient in recipients]
    assert [entry["address"] for entry in proxy.wait_for("message")["rcpt_to"]] == recipients


@pytest.mark.parametrize("at_once", [True, False])
def test_31_too_many_recipients(warp, mail_server, at_once):
    """The first ones still get the message."""
    server = mail_server("PIPELINING")
    client = warp("--max-recipients", 5, upstream=server).greeted()
    client.ask("MAIL FROM:<a@b.example>")
    commands = [f"RCPT TO:<user{number}@server.example>" for number in range(8)]
    if at_once:
        client.send(*commands)
    for number, command in enumerate(commands):
        if not at_once:
            client.send(command)
        client.expect("250" if number < 5 else "452 4.5.3")
    client.ask("DATA", "354")
    client.send("x", ".")
    client.expect("250")
    client.ask("MAIL FROM:<a@b.example>")
    client.ask(commands[0], "250")
    assert len(server.messages[0]["to"]) == 5


# 32: lengths

@pytest.mark.parametrize("line", [f"MAIL FROM:<{'l' * 64}@client.example>", f"MAIL FROM:<a@{'d' * 251}.ex>",
                                  "NOOP " + "x" * 505, "MAIL FROM:<a@b.example> ENVID=" + "x" * 900,
                                  f"MAIL FROM:<{'l' * 64}@{'d' * 255}> ENVID={'x' * 1000}"],
                         ids=["local part", "domain", "512", "long parameter", "all"])
def test_32_lengths_that_must_pass(session, line):
    """RFC 5321 4.5.3.1 and what extensions add (RFC 3461 5.4: 500 octets)."""
    session.greet("DSN")
    session.exchange(line, "250 2.0.0 fine")


@pytest.mark.parametrize("length, bytewise", [(2049, True), (2050, True), *((n, False) for n in (2049, 4096, 5000, 65536, 1 << 20))])
def test_32_over_long_line_is_skipped_to_its_end(session, length, bytewise):
    """One reply for it, and no part of it is taken for a command."""
    session.greet()
    line = (b"MAIL FROM:<a@b.example> X=" + b"QUIT " * (length // 5))[:length - 2] + b"\r\n"
    (session.client.send_bytewise if bytewise else session.client.send_raw)(line)
    session.client.expect("500 5.5.2")
    session.exchange("NOOP", "250 2.0.0 fine")


@pytest.mark.parametrize("length, reply", [(510, "250"), (511, "250"), (512, "250"), (513, "500 5.5.2")])
def test_32_command_length_option(warp, length, reply):
    """The length counts CR LF, as RFC 5321 4.5.3.1.4 does."""
    session = warp("--command-length", 512).session()
    session.greet()
    line = "NOOP " + "x" * (length - 7)
    session.client.send(line)
    if reply == "250":
        session.server.expect_line(line)
        session.server.send("250 fine")
    session.client.expect(reply)


def test_32_over_long_line_without_an_end(warp):
    """100 MiB of it, and then the client leaves."""
    proxy = warp("--max-errors", 0)
    session = proxy.session()
    session.greet()
    session.client.send_raw(b"x" * (100 << 20))
    session.client.close()
    assert proxy.wait_for("close")["client_in"] > 100 << 20


# 33: space

@pytest.mark.parametrize("line", ["NOOP ", "NOOP   ", "NOOP\t", "RSET \t ", "rset  "])
def test_33_trailing_space(session, line):
    session.greet()
    session.client.send(line)
    assert session.server.line().strip().upper() == line.strip().upper()
    session.server.send("250 2.0.0 fine")
    session.client.expect("250")


@pytest.mark.parametrize("line", ["", " ", "\t", "   "])
def test_33_empty_command(session, line):
    session.greet()
    session.client.ask(line, "500")
    session.exchange("NOOP", "250 2.0.0 fine")


def test_33_trailing_space_after_a_path(warp):
    proxy = warp()
    session = proxy.session()
    session.greet()
    for line in "MAIL FROM:<a@b.example>  ", "RCPT TO:<c@d.example>\t":
        session.client.send(line)
        assert session.server.line().rstrip() == line.rstrip()
        session.server.send("250 2.0.0 fine")
        session.client.expect("250")
    deliver(session)
    record = proxy.wait_for("message")
    assert (record["mail_from"]["address"], record["rcpt_to"][0]["address"]) == ("a@b.example", "c@d.example")


@pytest.mark.parametrize("line", ["DATA x", "QUIT now", "RSET x"])
def test_33_argument_where_none_belongs(warp, mail_server, line):
    """RFC 5321 4.1.1: 501 is in order; whoever says it, it is neither 354 nor the end."""
    verb = line.split()[0]
    server = mail_server(replies={verb: lambda seen: "501 5.5.4 no argument" if " " in seen else "250 2.0.0 fine"})
    client = warp(upstream=server).greeted()
    client.ask("MAIL FROM:<a@b.example>")
    client.ask("RCPT TO:<c@d.example>")
    client.ask(line, "501 5.5.4")
    client.ask("NOOP")


# Errors per session

def test_33_too_many_errors_end_the_session(warp):
    proxy = warp("--max-errors", 5)
    session = proxy.session()
    session.greet()
    codes = []
    session.client.send(*["FOO"] * 10)
    while not codes or codes[-1] == 500:
        codes.append(session.client.reply().code)
    assert codes[-1] == 421 and 5 <= len(codes) <= 7
    session.client.expect_end()
    assert proxy.wait_for("close")["by"] == "smtpwarp"


def test_33_refused_recipients_are_no_clients_errors(warp):
    """A list with many dead addresses is refused by the upstream, one by one; the session goes on."""
    session = warp("--max-errors", 5).session()
    session.to("mail")
    for number in range(20):
        session.exchange(f"RCPT TO:<dead{number}@server.example>", "550 5.1.1 no")
    session.rcpt()


def test_18_mail_after_data_was_refused(session):
    """Whether the transaction is still open is for the upstream to say."""
    session.to("rcpt")
    session.exchange("DATA", "451 4.3.0 later")
    session.exchange("MAIL FROM:<again@client.example>", "250 fine")


def test_19_mail_after_the_lone_dot(session):
    session.greet("PIPELINING")
    session.mail()
    session.client.send("RCPT TO:<a@b.example>", "DATA")
    session.server.lines(2)
    session.server.send("550 no", "354 go")
    session.server.expect_line(".")
    session.server.send("554 none")
    session.client.expect("550")
    session.client.expect("554")
    session.exchange("MAIL FROM:<again@client.example>", "250 fine")


@pytest.mark.parametrize("last", ["DATA", "BDAT 5 LAST\r\nabc"], ids=["DATA", "BDAT"])
@pytest.mark.parametrize("options", [[], ["--message-size-limit", "1000"]], ids=["server", "smtpwarp"])
def test_69_what_follows_a_refused_mail_is_no_mistake(warp, mail_server, options, last):
    """A client that pipelines has said it before it knows: --max-errors does not count it."""
    server = mail_server("PIPELINING", "CHUNKING", replies={} if options else {"MAIL": "550 5.7.1 not you"})
    client = warp("--max-errors", 3, *options, upstream=server).greeted()
    for _ in range(2):
        client.send("MAIL FROM:<a@b.example> SIZE=2000" if options else "MAIL FROM:<a@b.example>",
                    *["RCPT TO:<c@d.example>"] * 20, last)
        assert [client.reply().code for _ in range(22)] == [552 if options else 550] + [503] * 21
    client.ask("NOOP", "250")


def test_69_nor_is_what_follows_refused_recipients(warp, mail_server):
    client = warp("--max-errors", 2, upstream=mail_server("PIPELINING", replies={"RCPT": "550 5.1.1 no"})).greeted()
    for _ in range(5):
        client.send("MAIL FROM:<a@b.example>", "RCPT TO:<c@d.example>", "RSET")
        assert [client.reply().code for _ in range(3)] == [250, 550, 250]
        client.ask("MAIL FROM:<a@b.example>", "250")
        client.ask("RCPT TO:<c@d.example>", "550")
        client.ask("DATA", "554 5.5.1")
        client.ask("RSET", "250")


def test_69_what_was_never_begun_is(warp, mail_server):
    client = warp("--max-errors", 3, upstream=mail_server()).greeted()
    for _ in range(3):
        client.ask("RCPT TO:<c@d.example>", "503")
    client.expect("421 4.7.0")
