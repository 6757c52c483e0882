"""--connect-on recipient: greeted here, connected when sender and recipient are known. DESIGN 4; PROTOCOL 29, 43, 44, 47,
71, 72, 80 and the right column of its table of EHLO keywords."""
import contextlib
import re

import pytest

import peers
from hooks import Hooks
from waiting import wait_until
from warp import MESSAGE

LATE = ["--connect-on", "recipient", "--hostname", "proxy.example"]


@pytest.fixture
def hooks(tmp_path):
    return Hooks(tmp_path / "hooks")


@pytest.fixture
def late(warp):
    """late(...): as warp(...), connecting late."""
    def make(*options, **settings):
        return warp(*LATE, *options, **settings)
    return make


def routing(hooks, **servers):
    """A rcpt hook: recipients at name.example go to servers[name]."""
    cases = "\n".join(f"*'@{name}.example\"'*) echo upstream {server.name_port};;" for name, server in servers.items())
    hooks.script("rcpt", f"line=$(cat)\ncase ${{line##*'\"rcpt\":'}} in\n{cases}\n*) echo reject 550 5.1.2 nowhere;;\nesac")


def transaction(client, *recipients, data=MESSAGE):
    """The codes of RCPT, and of the end of data if it came to that."""
    client.ask("MAIL FROM:<a@client.example>", "250")
    codes = []
    for recipient in recipients:
        client.send(f"RCPT TO:<{recipient}>")
        codes.append(client.reply().code)
    client.send("DATA")
    reply = client.reply()
    if reply.code == 354:
        client.send_raw(data)
        reply = client.reply()
    return [*codes, reply.code]


def test_greeted_in_our_name(late):
    proxy = late()
    client = proxy.connect()
    client.expect("220 proxy.example ESMTP")
    reply = client.ask("EHLO client.example", "250")
    assert reply.texts == ["proxy.example", "ENHANCEDSTATUSCODES", "SIZE 10240000", "8BITMIME", "SMTPUTF8", "CHUNKING",
                           "PIPELINING"]
    assert client.ask("HELO client.example", "250").texts == ["proxy.example"]
    for command, code in (("NOOP x", "250"), ("VRFY x", "252"), ("EXPN x", "502"), ("HELP", "214"), ("ETRN x", "502"),
                          ("AUTH PLAIN AAA=", "502"), ("RSET", "250"), ("STARTTLS", "502"), ("XCLIENT ADDR=1", "502"),
                          ("DATA", "503"), ("RCPT TO:<a@b>", "503"), ("FROB", "500"), ("MAIL FROM:<a@b>", "250"),
                          ("MAIL FROM:<a@b>", "503"), ("DATA", "503"), ("QUIT", "221")):
        client.ask(command, code)
    client.expect_end()
    proxy.upstream.nobody()


def test_connects_at_the_first_recipient(late):
    """With the client's name and sender; the upstream's reply to RCPT is the client's."""
    proxy = late("--tls", "none")
    client = proxy.connect()
    client.expect("220")
    client.ask("EHLO client.example", "250")
    client.ask("MAIL FROM:<a@client.example> SIZE=100 BODY=8BITMIME", "250")
    proxy.upstream.nobody()
    client.send("RCPT TO:<b@server.example>")
    server = proxy.upstream.accept()
    server.send("220 server")
    server.expect_line("EHLO client.example")
    server.send("250-server", "250-SIZE", "250 8BITMIME")
    server.expect_line("MAIL FROM:<a@client.example> SIZE=100 BODY=8BITMIME")
    server.send("250 2.1.0 fine")
    server.expect_line("RCPT TO:<b@server.example>")
    server.send("250-2.1.5 very", "250 2.1.5 well")
    assert client.reply() == "250-2.1.5 very\n250 2.1.5 well"
    client.send("DATA")
    server.expect_line("DATA")


@pytest.mark.parametrize("greeting", ["EHLO", "HELO"])
@pytest.mark.parametrize("helo_only", [False, True])
def test_26_servers_and_clients_of_few_words(late, mail_server, greeting, helo_only):
    server = mail_server(helo_only=helo_only)
    client = late(upstream=server).connect()
    client.expect("220")
    client.ask(f"{greeting} client.example", "250")
    assert transaction(client, "b@c.example") == [250, 250]
    assert server.messages[0]["data"] == MESSAGE and server.messages[0]["from"]


def test_everything_in_one_segment(late, mail_server):
    server = mail_server("PIPELINING", "CHUNKING")
    client = late(upstream=server).connect()
    client.send_raw(b"EHLO c\r\nMAIL FROM:<a@b>\r\nRCPT TO:<b@c>\r\nRCPT TO:<d@e>\r\nDATA\r\nHi\r\n.\r\nRSET\r\n"
                    b"MAIL FROM:<>\r\nRCPT TO:<f@g>\r\nBDAT 4\r\nHo\r\nBDAT 0 LAST\r\nQUIT\r\n")
    codes = [client.reply().code for _ in range(13)]
    assert codes == [220, 250, 250, 250, 250, 354, 250, 250, 250, 250, 250, 250, 221]
    assert [message["data"] for message in server.messages] == [b"Hi\r\n.\r\n", b"Ho\r\n"]
    assert len(server.peers) == 1           # one connection did for both


# Parameters and extensions

@pytest.mark.parametrize("command", ["MAIL FROM:<a@b> RET=HDRS", "MAIL FROM:<a@b> ENVID=x", "MAIL FROM:<a@b> AUTH=<>",
                                     "MAIL FROM:<a@b> BODY=BINARYMIME", "MAIL FROM:<a@b> REQUIRETLS",
                                     "MAIL FROM:<a@b> BY=120;R", "RCPT TO:<b@c> NOTIFY=NEVER",
                                     "RCPT TO:<b@c> ORCPT=rfc822;b@c"])
def test_29_parameters_of_what_was_not_offered(late, command):
    client = late().greeted()
    if command.startswith("RCPT"):
        client.ask("MAIL FROM:<a@b>", "250")
    client.ask(command, "555 5.5.4")


def test_29_parameters_that_the_server_does_not_know(late, mail_server):
    server = mail_server()
    client = late(upstream=server).greeted()
    client.ask("MAIL FROM:<a@b> SIZE=20 BODY=8BITMIME", "250")
    client.ask("RCPT TO:<b@c>", "250")
    assert "MAIL FROM:<a@b>" in server.commands


@pytest.mark.parametrize("knows", [False, True])
@pytest.mark.parametrize("way", ["DATA", "BDAT"])
@pytest.mark.parametrize("filtered", [False, True])
def test_43_eightbit_to_a_seven_bit_server(late, mail_server, hooks, knows, way, filtered):
    if filtered:
        hooks.script("data", "exit 0")
    server = mail_server(*(["8BITMIME"] if knows else []), "CHUNKING")
    client = late(*hooks.options, upstream=server).greeted()
    for body, good in (b"Seven\r\n", True), (b"Eight \xc3\xa9\r\n", knows):
        client.ask("MAIL FROM:<a@b> BODY=8BITMIME", "250")
        client.ask("RCPT TO:<b@c>", "250")
        if way == "DATA":
            client.ask("DATA", "354")
            client.send_raw(body + b".\r\n")
        else:
            client.send_raw(b"BDAT %d LAST\r\n" % len(body) + body)
        client.expect("250" if good else "554 5.6.3")
    assert len(server.messages) == 1 + knows
    assert transaction(client, "b@c") == [250, 250]      # and the session goes on


@pytest.mark.parametrize("knows", [False, True])
def test_44_smtputf8(late, mail_server, knows):
    server = mail_server(*(["SMTPUTF8", "8BITMIME"] if knows else []))
    client = late(upstream=server).greeted()
    client.ask("MAIL FROM:<\u00e9@b.example> SMTPUTF8", "250")
    client.ask("RCPT TO:<b@c>", "250" if knows else "553 5.6.7")
    assert ("MAIL FROM:<\u00e9@b.example> SMTPUTF8" in server.commands) == knows
    client.ask("RSET", "250")
    assert transaction(client, "b@c") == [250, 250]


@pytest.mark.parametrize("body, code", [(b"A: b\r\n\r\n..\r\n.\r\nend\r\n", 250), (b"no end", 250), (b"", 250), (b".", 250),
                                        (b"bare\nlf\r\n", 554), (b"bare\rcr\r\n", 554), (b"last cr\r", 554)])
@pytest.mark.parametrize("size", [1, 3, 1000])
def test_47_chunks_to_a_server_without_chunking(late, mail_server, body, code, size):
    """Dots stuffed, a last CR LF added; what could be taken for another line end is refused."""
    server = mail_server()
    client = late(upstream=server).greeted()
    client.ask("MAIL FROM:<a@b>", "250")
    client.ask("RCPT TO:<b@c>", "250")
    parts = [body[at:at + size] for at in range(0, len(body), size)]
    client.send_raw(b"".join(b"BDAT %d\r\n%s" % (len(part), part) for part in parts) + b"BDAT 0 LAST\r\n")
    assert [client.reply().code for _ in parts] == [250] * len(parts)
    assert client.reply().code == code
    stuffed = re.sub(rb"(?m)^\.", b"..", body if body.endswith(b"\r\n") or not body else body + b"\r\n")
    assert [message["data"] for message in server.messages] == ([stuffed + b".\r\n"] if code == 250 else [])
    assert transaction(client, "b@c") == [250, 250]


# Routes

def test_452_for_what_goes_another_way(late, mail_server, hooks):
    """And in a transaction of its own it goes there, over the same session; the old upstream hears QUIT."""
    one, two = mail_server(), mail_server()
    routing(hooks, one=one, two=two)
    proxy = late(*hooks.options)
    client = proxy.greeted()
    assert transaction(client, "a@one.example", "b@two.example", "c@none.example", "d@one.example") == [250, 452, 550, 250, 250]
    assert transaction(client, "b@two.example") == [250, 250]
    assert transaction(client, "e@two.example", "f@two.example") == [250, 250, 250]
    assert transaction(client, "a@one.example") == [250, 250]
    client.ask("QUIT", "221")
    proxy.wait_exit()
    assert [[to.strip("<>") for to in message["to"]] for message in one.messages] == [
        ["a@one.example", "d@one.example"], ["a@one.example"]]
    assert [len(message["to"]) for message in two.messages] == [1, 2]
    wait_until(lambda: one.commands.count("QUIT") == 2 and two.commands.count("QUIT") == 1)
    assert len(one.peers) == 2 and len(two.peers) == 1
    first = proxy.records("message")[0]
    assert [recipient["code"] for recipient in first["rcpt_to"]] == [250, 452, 550, 250]


def test_route_by_sender(late, mail_server, hooks):
    one, two = mail_server(), mail_server()
    hooks.script("mail", f"grep -q '\"address\":\"x@' && echo upstream {one.name_port} || echo upstream {two.name_port}")
    client = late(*hooks.options).greeted()
    client.ask("MAIL FROM:<x@b>", "250")
    client.ask("RCPT TO:<a@b>", "250")
    client.ask("RSET", "250")
    client.ask("MAIL FROM:<y@b>", "250")
    client.ask("RCPT TO:<a@b>", "250")
    assert "MAIL FROM:<x@b>" in one.commands and "MAIL FROM:<y@b>" in two.commands


def test_connect_verdict_routes_the_whole_session(warp, mail_server, hooks):
    """Early, too."""
    server = mail_server()
    hooks.script("connect", f"echo upstream {server.name_port}")
    client = warp("--transparent", *hooks.options).greeted()
    assert transaction(client, "a@b") == [250, 250]


@pytest.mark.parametrize("event, word", [("mail", "upstream 127.0.0.1:9"), ("rcpt", "source 127.0.0.2"),
                                         ("rcpt", "tls none")])
def test_routes_of_a_session_that_is_connected(warp, mail_server, hooks, event, word):
    """It is too late for them: a failure of the hook."""
    hooks.script(event, f"echo {word}")
    proxy = warp(*hooks.options, upstream=mail_server())
    client = proxy.greeted()
    client.ask("MAIL FROM:<a@b>", "451 4.3.0" if event == "mail" else "250")
    if event == "rcpt":
        client.ask("RCPT TO:<a@b>", "451 4.3.0")
    assert "--connect-on recipient" in proxy.wait_for("verdict")["text"]


def test_no_destination(late):
    proxy = late("--transparent")
    client = proxy.greeted()
    client.ask("MAIL FROM:<a@b>", "250")
    client.ask("RCPT TO:<a@b>", "451 4.3.5 No destination")
    client.ask("DATA", "554")
    client.ask("RSET", "250")


def test_unreachable_server(late, mail_server, hooks):
    """451 for the recipient, the session goes on, and the next recipient of the same server does not wait for it again."""
    server = mail_server()
    hooks.script("rcpt", "line=$(cat); case ${line##*'\"rcpt\":'} in *'@down.example\"'*) echo upstream 127.0.0.1:1;; "
                 f"*) echo upstream {server.name_port};; esac")
    proxy = late(*hooks.options)
    client = proxy.greeted()
    assert transaction(client, "a@down.example", "b@down.example", "c@up.example") == [451, 451, 250, 250]
    assert len(proxy.records("error")) == 1 and "Connection refused" in proxy.records("error")[0]["error"]
    assert transaction(client, "a@down.example") == [451, 554]
    assert [r["code"] for r in proxy.wait_for("message")["rcpt_to"]] == [451, 451, 250]


@pytest.mark.parametrize("banner, code", [("554 no", 451), ("421 later", 451)])
def test_server_that_does_not_want_us(late, mail_server, banner, code):
    client = late(upstream=mail_server(banner=banner)).greeted()
    assert transaction(client, "a@b") == [code, 554]
    client.ask("NOOP", "250")


@pytest.mark.parametrize("phase", ["banner", "EHLO", "MAIL", "RCPT"])
@pytest.mark.parametrize("leave", ["close", "421"])
def test_server_that_leaves_while_it_is_opened(late, phase, leave):
    proxy = late("--tls", "none")
    client = proxy.greeted()
    client.ask("MAIL FROM:<a@b>", "250")
    client.send("RCPT TO:<a@b>")
    server = proxy.upstream.accept()
    for step, reply in (("banner", "220 x"), ("EHLO", "250 x"), ("MAIL", "250 fine"), ("RCPT", "250 fine")):
        if step != "banner":
            assert server.line().startswith(step)
        if step == phase:
            server.close() if leave == "close" else server.send("421 4.3.2 shutting down")
            break
        server.send(reply)
    reply = client.reply()
    assert reply.code == (421 if phase == "RCPT" else 451), reply
    if phase != "RCPT":
        client.ask("NOOP", "250")


def test_mail_refused_by_the_server(late, mail_server):
    """It is the answer to RCPT, which can be told a client."""
    server = mail_server(replies={"MAIL": lambda line: "550-5.1.8 not\n550 5.1.8 you" if "bad" in line else "250 ok"})
    proxy = late(upstream=server)
    client = proxy.greeted()
    client.ask("MAIL FROM:<bad@b>", "250")
    client.send("RCPT TO:<a@b>")
    assert client.reply().code == 550
    client.ask("DATA", "554")
    client.ask("RSET", "250")
    client.ask("MAIL FROM:<good@b>", "250")
    client.send("RCPT TO:<a@b>")
    client.reply()
    assert [line for line in server.commands if line.startswith("MAIL")] == ["MAIL FROM:<bad@b>", "MAIL FROM:<good@b>"]
    assert len(server.peers) == 1 and "RSET" not in server.commands
    record = proxy.wait_for("message")
    assert record["rcpt_to"][0]["code"] == 550 and record["rcpt_to"][0]["enhanced"] == "5.1.8"


def test_server_that_closes_between_messages(late, mail_server):
    """Its idle timeout is not the client's business."""
    server = mail_server()
    client = late(upstream=server).greeted()
    assert transaction(client, "a@b") == [250, 250]
    server.peers[0].send("421 4.4.2 idle")
    with contextlib.suppress(OSError):      # smtpwarp may have been quicker
        server.peers[0].half_close()
    wait_until(lambda: server.peers[0].ended, "smtpwarp to see it")
    client.ask("NOOP", "250")
    assert transaction(client, "a@b") == [250, 250]
    assert len(server.peers) == 2


def test_71_rset_goes_upstream(late, mail_server):
    server = mail_server()
    client = late(upstream=server).greeted()
    client.ask("MAIL FROM:<a@b>", "250")
    client.ask("RCPT TO:<b@c>", "250")
    client.ask("RSET", "250")
    assert transaction(client, "d@e") == [250, 250]
    assert server.commands.count("RSET") == 1 and [to.strip("<>") for to in server.messages[0]["to"]] == ["d@e"]


def test_25_ehlo_within_the_session(late, mail_server):
    server = mail_server()
    client = late(upstream=server).greeted()
    client.ask("MAIL FROM:<a@b>", "250")
    client.ask("RCPT TO:<b@c>", "250")
    client.ask("EHLO another.example", "250")
    client.ask("DATA", "503")
    assert transaction(client, "d@e") == [250, 250]
    assert "EHLO another.example" in server.commands and len(server.messages) == 1


@pytest.mark.parametrize("level", ["encrypt", "verify mail.example", "none", "may", "verify-if-offered"])
def test_tls_verdict(late, mail_server, hooks, certs, level):
    """For one recipient's server; the policy failing is a 451 for that recipient."""
    server = mail_server(tls=None)
    hooks.script("rcpt", f"echo tls {level}")
    proxy = late(*hooks.options, upstream=server)
    client = proxy.greeted()
    good = level in ("none", "may", "verify-if-offered")
    assert transaction(client, "a@b") == ([250, 250] if good else [451, 554])
    client.ask("NOOP", "250")


# 80: source addresses

def test_80_source_by_recipient(late, hooks, host):
    host.ip("addr add 127.0.1.1/8 dev lo", "addr add 127.0.1.2/8 dev lo")
    server = peers.MailServer()
    hooks.script("rcpt", "line=$(cat); case ${line##*'\"rcpt\":'} in *one.example*) echo source 127.0.1.1;; "
                 "*two.example*) echo source 127.0.1.2;; *bad.example*) echo source 192.0.2.1;; "
                 "*six.example*) echo source ::1;; esac")
    try:
        proxy = late(*hooks.options, upstream=server)
        client = proxy.greeted()
        for recipient, codes in (("a@one.example", [250, 250]), ("a@two.example", [250, 250]),
                                 ("a@other.example", [250, 250]), ("a@bad.example", [451, 554]),
                                 ("a@six.example", [451, 554])):
            assert transaction(client, recipient) == codes
            if codes[0] == 451:
                client.ask("RSET", "250")
        sources = [record["source"]["ip"] for record in proxy.records("connect")]
        assert sources == ["127.0.1.1", "127.0.1.2", "127.0.0.1"]
        bad, six = (record["error"] for record in proxy.records("error"))
        assert "4.3.5" in bad and "192.0.2.1 is not on this host" in bad
        assert "4.3.5" in six and "other family" in six
    finally:
        server.close()


@pytest.mark.parametrize("level, verified", [("encrypt", False), ("verify mail.example", True), ("may", False),
                                             ("verify-if-offered mail.example", True)])
def test_tls_verdict_is_kept(late, mail_server, hooks, certs, level, verified):
    """A server with TLS, and a name to look for in its certificate."""
    server = mail_server("PIPELINING", tls=certs.context("good"))
    hooks.script("rcpt", f"echo tls {level}")
    proxy = late("--tls", "none", "--tls-ca", certs.ca, *hooks.options, upstream=server)
    client = proxy.greeted()
    assert transaction(client, "a@b", "c@d") == [250, 250, 250]
    assert server.messages[0]["tls"]
    record = proxy.wait_for("message")
    assert record["server"]["tls"]["verified"] == verified
    assert proxy.records("tls")[0]["level"] == level.split()[0]


@pytest.mark.parametrize("level", ["verify", "verify-if-offered", "verify mail2.example"])
def test_60_tls_verdict_without_the_right_name(late, mail_server, hooks, certs, level):
    """A certificate that some CA has signed is not enough where it is known for no name, or another; nothing goes in plain."""
    server = mail_server("PIPELINING", tls=certs.context("good"))
    hooks.script("rcpt", f"echo tls {level}")
    proxy = late("--tls-ca", certs.ca, *hooks.options, upstream=server)
    assert transaction(proxy.greeted(), "a@b") == [451, 554]
    assert not server.messages and len(server.peers) == 1
    reason = proxy.records("tls")[0]["reason"]
    assert ("no name is known" in reason) == (" " not in level)


def test_tls_that_fails_falls_back_on_a_fresh_connection(late, mail_server, hooks, certs):
    """`may`, for a recipient: plain, on a connection that has not seen TLS fail; the message arrives once."""
    server = mail_server("PIPELINING", tls=certs.context("good"))
    server.tls.minimum_version = server.tls.maximum_version = 772      # TLS 1.3, which BearSSL does not know
    proxy = late("--tls", "may", *hooks.options, upstream=server)
    assert transaction(proxy.greeted(), "a@b") == [250, 250]
    assert len(server.messages) == 1 and not server.messages[0]["tls"]
    assert proxy.records("tls")[0]["result"] == "fallback"


# Hooks decide here as they do on a session that is connected

@pytest.mark.parametrize("pipelining", [False, True])
@pytest.mark.parametrize("way", ["DATA", "BDAT"])
def test_36_filters_cannot_be_passed(late, mail_server, hooks, pipelining, way):
    hooks.script("ehlo", "grep -q 'bad.example' && echo reject 550 5.7.1 bad name\nexit 0")
    hooks.script("mail", "grep -q 'bad@' && echo reject 550 5.7.1 bad sender\nexit 0")
    hooks.script("rcpt", "grep -q '\"rcpt\":{\"address\":\"no@' && echo reject 550 5.7.1 bad recipient\nexit 0")
    hooks.script("data", "grep -q EVIL /dev/fd/3 && echo reject 550 5.7.1 bad content\n"
                 "grep -q GONE /dev/fd/3 && echo discard\necho add-header X-Seen: yes")
    server = mail_server("PIPELINING", "CHUNKING")
    proxy = late(*hooks.options, upstream=server)
    client = proxy.connect()
    client.expect("220")

    def content(text):
        return [b"DATA", text + b"\r\n."] if way == "DATA" else [b"BDAT %d LAST\r\n" % (len(text) + 2) + text]

    def after(code):
        return [354, code] if way == "DATA" else [code]
    commands, codes = [b"EHLO bad.example", b"EHLO good.example", b"MAIL FROM:<bad@b>", b"RCPT TO:<a@b>"], [550, 250, 550, 503]
    for sender, text, code in ((b"a@b", b"EVIL", 550), (b"a@b", b"GONE", 250), (b"", b"..", 250)):
        commands += [b"MAIL FROM:<" + sender + b">", b"RCPT TO:<no@b>", b"RCPT TO:<yes@b>", *content(text)]
        codes += [250, 550, 250, *after(code)]
    if pipelining:
        client.send_raw(b"\r\n".join(commands) + b"\r\n")
        assert [client.reply().code for _ in codes] == codes
    else:
        got = []
        for command in commands:
            client.send_raw(command + b"\r\n")
            got.append(client.reply().code)
        assert got == codes
    final = b"X-Seen: yes\r\n\r\n" + (b"..\r\n.\r\n" if way == "DATA" else b"..\r\n")
    assert [message["data"] for message in server.messages] == [final]
    assert [record["result"] for record in proxy.records("message")] == ["rejected", "rejected", "discarded", "accepted"]
    assert not any(word in " ".join(server.commands) for word in ("bad", "no@"))


def test_rewrite_and_route_together(late, mail_server, hooks):
    one, two = mail_server(), mail_server()
    hooks.script("rcpt", f"echo rewrite new@two.example; echo upstream {two.name_port}; echo log was rewritten")
    proxy = late(*hooks.options, upstream=one)
    assert transaction(proxy.greeted(), "old@one.example") == [250, 250]
    assert not one.peers and "RCPT TO:<new@two.example>" in two.commands
    record = proxy.wait_for("message")
    assert record["rcpt_to"][0]["original"] == "old@one.example" and record["hooks"] == {"was": "rewritten"}
