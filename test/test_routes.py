"""--routes: which server a recipient's mail goes to. DESIGN 4; what is seen to break Willi (PROTOCOL). What a line is and what is looked up in which order is in unit_routes.c."""
import collections
import os
import pathlib
import shutil
import subprocess
import tempfile
import threading

import pytest

import certificates
import mta
import netns
import peers
from hooks import Hooks
from warp import BINARY, MESSAGE, Warp, environment, is_sealed

NOBODY = 65534


class Table:
    """A file of routes, replaced as a whole whenever it is written."""

    def __init__(self, directory):
        directory.chmod(0o755)      # smtpwarp's user reads it
        self.path = directory / "routes"
        self.options = ["--transparent", "--hostname", "proxy.example", "--routes", str(self.path)]

    def write(self, *lines):
        fresh = self.path.with_suffix(".new")
        fresh.write_text("".join(f"{line}\n" for line in lines))
        os.rename(fresh, self.path)

    def compile(self, *options):
        return subprocess.run([BINARY, "--compile-routes", self.path, *options], capture_output=True, text=True,
                              timeout=60, env=environment(self.path.parent))


@pytest.fixture
def table():
    """Not below pytest's own directory, into which smtpwarp's user may not look."""
    with tempfile.TemporaryDirectory() as directory:
        yield Table(pathlib.Path(directory))


def transaction(client, *recipients):
    """A message; the code of each recipient, and of its end if one was accepted."""
    client.ask("MAIL FROM:<sender@client.example>", "250")
    codes = []
    for recipient in recipients:
        client.send(f"RCPT TO:<{recipient}>")
        codes.append(client.reply().code)
    if 250 not in codes:
        client.ask("RSET", "250")
        return codes
    client.ask("DATA", "354")
    client.send_raw(MESSAGE)
    return [*codes, client.reply().code]


def recipients(server):
    return [address.strip("<>") for message in server.messages for address in message["to"]]


# Where it goes

def test_address_extension_domain_parent_and_rest(warp, mail_server, table):
    """One session, four servers; Willi's header and comments. Willi looks its keys up as they are written, case and all."""
    address, domain, parent, rest = (mail_server() for _ in range(4))
    table.write("pattern;server;tls_verify", "# a comment", "", f"  bob@mail.example ; {address.name_port} ; false",
                f"mail.example;{domain.name_port};false", f".example;{parent.name_port};", f"*;{rest.name_port};none")
    client = warp(*table.options, "--recipient-delimiter", "+-").greeted()
    wanted = {"bob@mail.example": address, "bob@MAIL.Example": address, "BOB@mail.example": address,
              "bob+news@mail.example": address, "bob-news+x@mail.example": address, "alice@mail.example": domain,
              "alice+bob@mail.example": domain, "x@a.example": parent, "x@a.b.EXAMPLE": parent, "x@example": rest,
              '"bob+x"@mail.example': domain, "x@[192.0.2.1]": rest, "postmaster": rest}
    for recipient in wanted:
        assert transaction(client, recipient) == [250, 250], recipient
    for server in address, domain, parent, rest:
        assert recipients(server) == [recipient for recipient, where in wanted.items() if where is server]


def test_names_that_are_not_plain(warp, mail_server, table):
    """Quoted local parts with what separates fields elsewhere, literals, and names in both spellings."""
    one, two = mail_server("SMTPUTF8", "8BITMIME"), mail_server("SMTPUTF8", "8BITMIME")
    table.write(f'"a;b c@d"@mail.example;{one.name_port}', f"user@[IPv6:2001:db8::1];{one.name_port}",
                f"xn--bcher-kva.example;{one.name_port}", f"bücher.example;{two.name_port}", f"*;{two.name_port}")
    client = warp(*table.options).greeted()
    for recipient in '"a;b c@d"@MAIL.example', "user@[ipv6:2001:db8::1]", "x@xn--bcher-kva.example":
        assert transaction(client, recipient) == [250, 250], recipient
    client.ask("MAIL FROM:<a@b> SMTPUTF8", "250")
    client.ask("RCPT TO:<x@bücher.example>", "250")
    client.ask("RSET", "250")
    assert len(recipients(one)) == 3 and any("bücher" in command for command in two.commands)


@pytest.mark.parametrize("pipelined", [False, True])
def test_452_for_what_goes_another_way(warp, mail_server, table, pipelined):
    """And 550 for what goes nowhere; each recipient is sent once, and to the right server."""
    one, two = mail_server("PIPELINING"), mail_server("PIPELINING")
    table.write(f"one.example;{one.name_port}", f"two.example;{two.name_port}")
    proxy = warp(*table.options)
    client = proxy.greeted()
    addresses = ["a@one.example", "b@two.example", "c@none.example", "d@one.example"]
    if pipelined:
        client.send("MAIL FROM:<x@y>", *(f"RCPT TO:<{address}>" for address in addresses), "DATA")
        assert [client.reply().code for _ in range(6)] == [250, 250, 452, 550, 250, 354]
        client.send_raw(MESSAGE)
        client.expect("250")
    else:
        assert transaction(client, *addresses) == [250, 452, 550, 250, 250]
    assert transaction(client, "b@two.example") == [250, 250]
    assert (recipients(one), recipients(two)) == (["a@one.example", "d@one.example"], ["b@two.example"])
    assert [r["enhanced"] for r in proxy.records("message")[0]["rcpt_to"]][2] == "5.1.2"


def test_no_server_is_connected_to_before_a_recipient_is_known(warp, mail_server, table):
    """--routes implies --connect-on recipient."""
    server = mail_server()
    table.write(f"*;{server.name_port}")
    proxy = warp(*table.options, "--connect-on", "connect")
    client = proxy.connect()
    client.expect("220 proxy.example")
    client.ask("EHLO client.example", "250")
    client.ask("MAIL FROM:<a@b>", "250")
    assert not server.peers
    client.ask("RCPT TO:<a@b>", "250")


def test_no_match_goes_to_the_upstream(warp, mail_server, table):
    """DESIGN 4: a match, else --upstream."""
    routed, other = mail_server(), mail_server()
    table.write(f"mail.example;{routed.name_port}")
    client = warp(*table.options, upstream=other).greeted()
    assert transaction(client, "a@mail.example") == [250, 250] == transaction(client, "a@x.example")
    assert (recipients(routed), recipients(other)) == (["a@mail.example"], ["a@x.example"])


def test_no_match_goes_to_the_original_destination(host, warp, table):
    """Where there is one: else the original destination."""
    host.ip("addr add 10.9.9.9/32 dev lo")
    host.nft(f"""table inet warp {{ chain output {{
        type nat hook output priority -100;
        tcp dport 25 meta skuid != {NOBODY} redirect to :2525;
    }}; }}""")
    there, routed = peers.MailServer(address="10.9.9.9", port=25), peers.MailServer()
    try:
        table.write(f"mail.example;{routed.name_port}")
        proxy = warp(*table.options, "--user", "nobody").listen()
        client = peers.connect("10.9.9.9", 25, proxy.group)
        client.expect("220 proxy.example")
        client.ask("EHLO client.example", "250")
        assert transaction(client, "a@mail.example") == [250, 250] == transaction(client, "a@x.example")
        assert (recipients(routed), recipients(there)) == (["a@mail.example"], ["a@x.example"])
    finally:
        there.close()
        routed.close()


def test_no_match_at_all(warp, mail_server, table):
    server = mail_server()
    table.write(f"mail.example;{server.name_port}")
    proxy = warp(*table.options)
    client = proxy.greeted()
    client.ask("MAIL FROM:<a@b>", "250")
    client.ask("RCPT TO:<a@x.example>", "550 5.1.2 No route")
    client.ask("RCPT TO:<a@mail.example>", "250")
    assert not proxy.records("error")


@pytest.mark.parametrize("form", ["{}", "smtp://{}", "smtp://{}/"])
def test_ipv6_server(warp, mail_server, table, form):
    server = mail_server(address="::1")
    table.write("*;" + form.format(server.name_port))
    assert transaction(warp(*table.options).greeted(), "a@b") == [250, 250]
    assert len(server.messages) == 1


@pytest.mark.parametrize("separator", [" ", ",", ", ", "\t"])
def test_servers_are_tried_in_order(warp, mail_server, table, separator):
    """As --upstream's are; the connection to the one that took it is used for the next recipient."""
    server, last = mail_server(), mail_server()
    busy = mail_server(banner="421 4.3.2 busy")
    table.write("*;" + separator.join(["127.0.0.1:1", busy.name_port, server.name_port, last.name_port]))
    proxy = warp(*table.options)
    client = proxy.greeted()
    assert transaction(client, "a@b", "c@d") == [250, 250, 250]
    assert transaction(client, "e@f") == [250, 250]
    assert len(server.messages) == 2 and len(server.peers) == 1 and not last.peers
    errors = [record["error"] for record in proxy.records("error")]
    assert len(errors) == 2 and "refused" in errors[0] and "421" in errors[1]


def test_servers_of_a_list_that_are_all_down(warp, table):
    table.write("*;127.0.0.1:1 127.0.0.1:2")
    proxy = warp(*table.options)
    assert transaction(proxy.greeted(), "a@b") == [451]
    assert ["refused" in record["error"] for record in proxy.records("error")] == [True, True]


# What breaks Willi

@pytest.mark.parametrize("leave", ["close", "reset", "half_close"])
@pytest.mark.parametrize("kept", [False, True])
@pytest.mark.parametrize("way", ["DATA", "BDAT"])
def test_8_client_gone_in_the_middle_of_a_message(warp, mail_server, table, tmp_path, leave, kept, way):
    """Willi sends the final dot, and half a message is delivered. Kept for hooks or not."""
    hooks, server = Hooks(tmp_path / "hooks"), mail_server("CHUNKING")
    if kept:
        hooks.script("data", "exit 0")
    table.write(f"mail.example;{server.name_port}")
    proxy = warp(*table.options, *hooks.options)
    client = proxy.greeted()
    client.ask("MAIL FROM:<a@b>", "250")
    client.ask("RCPT TO:<c@mail.example>", "250")
    if way == "DATA":
        client.ask("DATA", "354")
        client.send_raw(b"Subject: half\r\n\r\nhalf a mess")
    else:
        client.send_raw(b"BDAT 100\r\nSubject: half\r\n\r\nhalf a mess")
    client.drained()
    getattr(client, leave)()
    assert proxy.wait_for("message")["result"] == "aborted"
    proxy.wait_for("close")
    assert server.messages == [] and "." not in server.commands


def test_29_parameters_are_no_part_of_the_address(warp, mail_server, table):
    """Willi takes what follows the path for more of it, and looks that up. Here it is looked up without, and a parameter that is
    not offered refused."""
    server = mail_server()
    table.write(f"user@mail.example;{server.name_port}")
    client = warp(*table.options).greeted()
    client.ask("MAIL FROM:<a@b> SIZE=10 BODY=8BITMIME", "250")
    client.ask("RCPT TO:<user@mail.example> NOTIFY=NEVER", "555 5.5.4")
    client.ask("RCPT TO:<user@mail.example>", "250")
    assert [line for line in server.commands if line.startswith("RCPT")] == ["RCPT TO:<user@mail.example>"]


# TLS

@pytest.mark.parametrize("level, name, verified", [
    *((word, "localhost", True) for word in ("true", "TRUE", "True", "1", "t", "T", "verify-if-offered", "verify")),
    *((word, "127.0.0.1", False) for word in ("false", "FALSE", "False", "0", "f", "F")),
    ("1 localhost", "127.0.0.1", True),
    ("verify localhost", "127.0.0.1", True), ("encrypt", "localhost", True), ("false", "localhost", True),
    ("may", "127.0.0.1", False), ("none", "localhost", None), ("", "localhost", None)])
def test_level_of_a_line(warp, mail_server, table, certs, level, name, verified):
    """The name of the certificate is the server's, or the one behind the level. Empty: as --tls says, here none. Booleans: those
    of Go, as Willi has them."""
    server = mail_server("PIPELINING", tls=certs.context("localhost"))
    table.write(f"*;{name}:{server.port};{level}")
    proxy = warp(*table.options, "--tls", "none", "--tls-ca", certs.ca)
    assert transaction(proxy.greeted(), "a@b") == [250, 250]
    tls = proxy.wait_for("message")["server"]["tls"]
    assert (tls and tls["verified"]) == verified
    assert server.messages[0]["tls"] is (verified is not None)


@pytest.mark.parametrize("level, codes", [("true", [451]), ("verify", [451]), ("false", [250, 250]), ("encrypt", [250, 250]),
                                          ("", [451])])
def test_certificate_of_another(warp, mail_server, table, certs, level, codes):
    """false is no word about TLS itself, but about its certificate. Empty: as --tls says, here verify."""
    server = mail_server("PIPELINING", tls=certs.context("good"))
    table.write(f"*;localhost:{server.port};{level}")
    proxy = warp(*table.options, "--tls", "verify", "--tls-ca", certs.ca)
    client = proxy.greeted()
    assert transaction(client, "a@b") == codes
    client.ask("NOOP", "250")
    assert [message["tls"] for message in server.messages] == [True] * (len(codes) - 1)


@pytest.mark.parametrize("level, plain, refused", [
    ("true", [250, 250], [451]), ("false", [250, 250], [250, 250]), ("verify", [451], [451]), ("encrypt", [451], [451]),
    ("verify-if-offered", [250, 250], [451])])
def test_server_without_tls(warp, mail_server, table, level, plain, refused):
    """As Willi does with true: in plain where STARTTLS is not offered, not at all where it is and does not come off. verify
    is strict."""
    without, failing = mail_server(), mail_server("STARTTLS", replies={"STARTTLS": "454 4.7.0 not now"})
    table.write(f"plain.example;{without.name_port};{level} mx.example", f"*;{failing.name_port};{level} mx.example")
    proxy = warp(*table.options)
    client = proxy.greeted()
    assert (transaction(client, "a@plain.example"), transaction(client, "a@b")) == (plain, refused)
    assert (len(without.messages), len(failing.messages)) == (len(plain) - 1, len(refused) - 1)
    results = [(record["level"], record["result"]) for record in proxy.records("tls")]
    assert {"true": ("verify-if-offered", "failed"), "false": ("may", "fallback")}.get(level, (level, "failed")) in results


def test_true_for_an_address(warp, mail_server, table, certs):
    """A line as Willi takes it: such a server has no name to verify, which matters only if it offers TLS."""
    without, tls = mail_server(), mail_server(tls=certs.context("good"))
    table.write(f"plain.example;{without.name_port};true", f"*;{tls.name_port};true")
    proxy = warp(*table.options, "--tls-ca", certs.ca)
    client = proxy.greeted()
    assert (transaction(client, "a@plain.example"), transaction(client, "a@b")) == ([250, 250], [451])
    assert not tls.messages and len(tls.peers) == 1
    record = proxy.wait_for("tls")
    assert (record["level"], record["result"]) == ("verify-if-offered", "failed") and "no name is known" in record["reason"]


@pytest.mark.parametrize("level", ["true", "verify"])
def test_certificate_failure_is_not_for_ever(warp, mail_server, table, certs, level):
    """Willi answers 450 "Internal server error". Here client and log hear the server's name and the reason, nothing goes in plain,
    the server is not bothered again for the same transaction, and the next finds a certificate that was put right."""
    server = mail_server("PIPELINING", tls=certs.context("expired"))
    table.write(f"*;{server.name_port};{level} mail.example")
    proxy = warp(*table.options, "--tls-ca", certs.ca)
    client = proxy.greeted()
    client.ask("MAIL FROM:<a@b>", "250")
    first = client.ask("RCPT TO:<c@d>", "451 4.7.5 127.0.0.1: ")
    assert client.ask("RCPT TO:<e@f>", "451 4.7.5") == first and len(server.peers) == 1
    record = proxy.wait_for("tls")
    assert record["result"] == "failed" and "expired" in record["reason"] and first.endswith(record["reason"])
    client.ask("RSET", "250")
    server.tls = certs.context("good")
    assert transaction(client, "c@d") == [250, 250]
    assert [message["tls"] for message in server.messages] == [True]


@pytest.mark.parametrize("first", ["where;to;how", "KEY;Host", "Domain or user;Server (host:port);Verify?", "recipient;",
                                   '"Pattern";"Upstream, with port";"TLS, verified?"', "\ufeffpattern;server;tls_verify",
                                   "a;b;c;d;e", "to;http://x"])
@pytest.mark.parametrize("before", [[], ["# for Willi", ""]])
def test_header_of_other_names(warp, mail_server, table, first, before):
    """Willi passes the first line over, whatever it says."""
    server = mail_server()
    table.write(*before, first, f"mail.example;{server.name_port};true;and more;that Willi does not read")
    assert transaction(warp(*table.options).greeted(), "a@mail.example") == [250, 250]
    result = subprocess.run([BINARY, "--check", "--routes", table.path], capture_output=True, text=True)
    assert result.returncode == 0
    told = f"line {len(before) + 1}: it is no route, and taken for a header" in result.stdout
    assert told == (first not in ("KEY;Host", "\ufeffpattern;server;tls_verify"))
    assert table.compile().returncode == 0


@pytest.mark.parametrize("first", ["mail.example;{};true", "\ufeffmail.example;{};1", "*;{}", "a@mail.example;{};f", "mail;{};T"])
def test_route_in_the_first_line(warp, mail_server, table, first):
    """It counts, unlike for Willi: no route is passed over."""
    server = mail_server()
    table.write(first.format(server.name_port))
    address = "a@mail" if first.startswith("mail;") else "a@mail.example"
    assert transaction(warp(*table.options).greeted(), address) == [250, 250]


def test_two_levels_for_one_server(warp, mail_server, table, certs):
    """They are two ways, and do not share a connection."""
    server = mail_server("PIPELINING", tls=certs.context("good"))
    table.write(f"one.example;{server.name_port};encrypt", f"two.example;{server.name_port};none")
    client = warp(*table.options).greeted()
    assert transaction(client, "a@one.example", "a@two.example") == [250, 452, 250]
    assert transaction(client, "a@two.example") == [250, 250]
    assert [message["tls"] for message in server.messages] == [True, False]


def test_smtps(warp, mail_server, table, certs):
    server = mail_server(tls=certs.context("good"), implicit=True)
    table.write(f"*;smtps://{server.name_port};encrypt")
    assert transaction(warp(*table.options).greeted(), "a@b") == [250, 250]
    assert len(server.messages) == 1


# Hooks

def test_verdicts_win_over_the_file(warp, mail_server, table, tmp_path):
    """The server of a verdict at connect, mail or rcpt; the level of one beside the server of the file."""
    hooks = Hooks(tmp_path / "hooks")
    chosen, routed = mail_server(), mail_server()
    hooks.script("mail", f"grep -q special@ && echo upstream {chosen.name_port}\nexit 0")
    hooks.script("rcpt", "line=$(cat); case ${line##*'\"rcpt\":'} in "
                 f"*vip@*) echo upstream {chosen.name_port};; *secret@*) echo tls encrypt;; esac")
    table.write(f"mail.example;{routed.name_port};none", "broken.example;127.0.0.1:1")
    client = warp(*table.options, *hooks.options).greeted()
    assert transaction(client, "a@mail.example") == [250, 250]
    assert transaction(client, "vip@mail.example") == [250, 250]
    assert transaction(client, "vip@unknown.example") == [250, 250]
    assert transaction(client, "secret@mail.example") == [451]      # that server has no TLS
    client.ask("MAIL FROM:<special@client.example>", "250")
    client.ask("RCPT TO:<b@broken.example>", "250")
    client.ask("RSET", "250")
    assert (recipients(routed), recipients(chosen)) == (["a@mail.example"], ["vip@mail.example", "vip@unknown.example"])
    assert "RCPT TO:<b@broken.example>" in chosen.commands


def test_verdict_at_connect_wins(warp, mail_server, table, tmp_path):
    hooks = Hooks(tmp_path / "hooks")
    chosen, routed = mail_server(), mail_server()
    hooks.script("connect", f"echo upstream {chosen.name_port}")
    table.write(f"*;{routed.name_port}")
    assert transaction(warp(*table.options, *hooks.options).greeted(), "a@mail.example") == [250, 250]
    assert len(chosen.messages) == 1 and not routed.peers


def test_rewritten_recipient_goes_where_its_new_address_does(warp, mail_server, table, tmp_path):
    hooks = Hooks(tmp_path / "hooks")
    old, new = mail_server(), mail_server()
    hooks.script("rcpt", "echo rewrite bob@new.example")
    table.write(f"old.example;{old.name_port}", f"new.example;{new.name_port}")
    proxy = warp(*table.options, *hooks.options)
    assert transaction(proxy.greeted(), "bob@old.example") == [250, 250]
    assert recipients(new) == ["bob@new.example"] and not old.peers


# Files that are no good

BAD = {
    "a.example": "line 1: it names no server", "# x\n\na.example;;true": "line 3: it names no server",
    "a.b c;d": "line 1: its pattern", "*.example;c": "line 1: its pattern", "a.b;x;y;true": "line 1: its tls",
    '"a;b': "line 1: a quotation mark", "a;b c;\na;http://x;": "line 2: its server must be", "a.b;x:99999;": "line 1: its server",
    "a@b;x,y/z;": "line 1: its server", "a.b;x;ture": "line 1: its tls_verify must be", "*;x;verify a b": "line 1: its tls_verify",
    "a;10.0.0.1;verify": "line 1: a certificate cannot be verified", "a.b;x,10.0.0.1;verify": "line 1: a certificate cannot",
    "a.b;" + "x" * 300: "line 1: its server", "a.b;x " + "y " * 200: "line 1: its list of servers is too long",
    "a;" + "x," * 3000: "line 1: it is too long", "a.b;b;verify " + "x" * 300: "line 1: its tls_verify",
    "a.b;b;c" + "x" * 300: "line 1: its tls_verify", "where;to;how\nfrom;here;whence": "line 2: its tls_verify",
    "pattern;server\na b;c": "line 2: its pattern", "a;b\nwhere;to;how": "line 2: its tls_verify"}


@pytest.mark.parametrize("text", BAD, ids=lambda text: text[:20].replace("\n", "/"))
def test_bad_file_is_named_with_its_line_at_start(table, host, text):
    table.write(*text.split("\n"))
    for way in ["--check", "--routes", table.path], ["--listen", "127.0.0.1:2525", "--routes", table.path], \
            ["--compile-routes", table.path]:
        result = subprocess.run([BINARY, *way], capture_output=True, text=True, timeout=20,
                                env=environment(table.path.parent))
        assert result.returncode == 78 and result.stdout == ""
        [line] = result.stderr.splitlines()
        assert f"routes {table.path}: {BAD[text]}" in line, line
    assert [path.name for path in table.path.parent.iterdir()] == ["routes"]


def test_good_lines_pass_the_check(table, host):
    table.write("pattern;server;tls_verify", "a;x", "b;x:25,y [::1]:26;may", "c;10.0.0.1;false", "d;10.0.0.1;verify mx.example", "d;10.0.0.1;true",
                "e;smtps://x;encrypt mx.example", '"f";"x";"false"', "g;[::1]")
    result = subprocess.run([BINARY, "--check", "--routes", table.path], capture_output=True, text=True)
    assert (result.returncode, result.stderr) == (0, "")
    assert subprocess.run([BINARY, "--check", "--tls", "verify", "--routes", table.path]).returncode == 78      # g's
    assert subprocess.run([BINARY, "--check", "--tls", "verify", "--tls-name", "x", "--routes", table.path]).returncode == 0


def test_file_that_smtpwarp_s_user_cannot_read(table, host):
    """Said at the start, and not to the first client."""
    table.write("*;127.0.0.1:1")
    table.path.chmod(0o600)
    result = subprocess.run([BINARY, "--listen", "127.0.0.1:2525", "--user", "nobody", "--routes", table.path],
                            capture_output=True, text=True, timeout=20)
    assert result.returncode == 78 and f"--routes {table.path}: Permission denied" in result.stderr


def test_bad_file_at_run_time(warp, mail_server, table):
    """451 4.3.5, never 550: nobody knows where the recipient was to go. Other lines of a file that can be taken apart count."""
    server = mail_server()
    good = f"*;{server.name_port}"
    table.write(good)
    proxy = warp(*table.options)

    def ask(address, reply):
        client = proxy.greeted()
        client.ask("MAIL FROM:<a@b>", "250")
        client.ask(f"RCPT TO:<{address}>", reply)
        client.close()
    table.write(good, "# comment", "a.example 127.0.0.1")
    ask("a@a.example", "451 4.3.5")
    assert proxy.wait_for("error", 1)["error"] == f"--routes {table.path}: line 3: its pattern is no address, domain, " \
        ".domain or *"
    table.write(good, "a.example;127.0.0.1:x")
    ask("a@a.example", "451 4.3.5")
    assert f"{table.path}: line 2: its server must be" in proxy.wait_for("error", 2)["error"]
    ask("a@b.example", "250")
    table.path.unlink()
    ask("a@a.example", "451 4.3.5")
    assert f"{table.path}: No such file or directory" in proxy.wait_for("error", 3)["error"]
    os.mkfifo(table.path)
    ask("a@a.example", "451 4.3.5")
    assert "no regular file" in proxy.wait_for("error", 4)["error"]
    table.write(good)
    ask("a@a.example", "250")
    assert len(proxy.records("error")) == 4


@pytest.mark.parametrize("value", ["a", "+a", "@", '"', "+ "])
def test_recipient_delimiter_that_is_none(table, host, value):
    result = subprocess.run([BINARY, "--check", "--recipient-delimiter", value], capture_output=True, text=True)
    assert result.returncode == 64 and "--recipient-delimiter" in result.stderr


# Replaced while it is in use

def test_file_is_replaced_while_sessions_run(warp, mail_server, table):
    """Each recipient goes by the old file or by the new one, whole: one domain of each is routed, the other refused."""
    servers = [mail_server("PIPELINING"), mail_server("PIPELINING")]
    files = [[f"d{which}.example;{server.name_port}", *(f"x{n}.example;127.0.0.1:1" for n in range(400)),
              f"e{which}.example;{server.name_port}"] for which, server in enumerate(servers)]
    table.write(*files[0])
    proxy = warp(*table.options).listen()
    stop = threading.Event()

    def replace():
        while not stop.is_set():
            table.write(*files[1])
            table.write(*files[0])
    writer = threading.Thread(target=replace)
    writer.start()
    seen = collections.Counter()
    try:
        clients = [proxy.greeted() for _ in range(4)]
        for turn in range(100):
            for client in clients:
                client.send("MAIL FROM:<a@b>", *(f"RCPT TO:<r@{name}{turn % 2}.example>" for name in "de"), "RSET")
                replies = [client.reply() for _ in range(4)]
                assert [reply.code for reply in replies[::3]] == [250, 250]
                codes = [reply.code for reply in replies[1:3]]
                assert set(codes) <= {250, 550}
                seen.update(codes)
    finally:
        stop.set()
        writer.join()
    assert seen[250] > 50 and seen[550] > 50 and not proxy.records("error")
    for which, server in enumerate(servers):
        assert {command for command in server.commands if command.startswith("RCPT")} <= \
            {f"RCPT TO:<r@{name}{which}.example>" for name in "de"}


# Large files

def large(server, count=40000):
    """In no order, as a database gives them."""
    lines = [f"customer{n * 7919 % count}.example;127.0.0.1:1;" for n in range(count)]
    return ["pattern;server;tls_verify", *lines, f"bob@mail.example;{server.name_port};none"]


def octets_read(pid):
    """By read(2) and its like, files and sockets."""
    return int(pathlib.Path(f"/proc/{pid}/io").read_text().split()[1])


def memory_of_its_own(pid):
    """KiB of stack, data and heap. Not "Private": the program's text becomes private when the last other process ends that runs it."""
    text = pathlib.Path(f"/proc/{pid}/smaps_rollup").read_text()
    return next(int(line.split()[1]) for line in text.splitlines() if line.startswith("Anonymous:"))


def route_cost(client, pid, address="bob+x@mail.example", reply="250"):
    """Octets read for a recipient, which costs little memory in any case."""
    client.ask("MAIL FROM:<a@b>", "250")
    before = octets_read(pid), memory_of_its_own(pid)
    client.ask(f"RCPT TO:<{address}>", reply)
    after = octets_read(pid), memory_of_its_own(pid)
    client.ask("RSET", "250")
    assert after[1] - before[1] < 300 or "asan" in BINARY
    return after[0] - before[0]


def test_large_file_is_not_read_through_by_sessions_of_a_listener(warp, mail_server, table):
    """The listener makes an index, and another when the file is replaced."""
    first, second = mail_server(), mail_server()
    table.write(*large(first))
    proxy = warp(*table.options, "--recipient-delimiter", "+").listen()

    def session():
        client = proxy.greeted()
        return client, proxy.children()[-1]
    client, pid = session()
    assert route_cost(client, pid) < 40000
    assert route_cost(client, pid, "x@nowhere.example", "550") < 40000
    assert memory_of_its_own(proxy.listener.pid) < 1000 or "asan" in BINARY
    table.write(*large(second))
    assert route_cost(client, pid) < 40000        # the session under way knows the file as it was
    client.close()

    def cheap():
        client, pid = session()
        for index in pathlib.Path(f"/proc/{pid}/fd").iterdir():
            if os.readlink(index).startswith("/memfd:routes"):      # one that is being made is not among them
                with open(index, "r+b") as file:
                    assert is_sealed(file)
        octets = route_cost(client, pid)
        client.close()
        return octets < 40000 and any(c.startswith("RCPT") for c in second.commands)
    proxy.wait_until(cheap, "a new index")
    assert all(c.startswith("RCPT TO:<bob+x@mail") for c in second.commands if c.startswith("RCPT"))
    assert list(table.path.parent.iterdir()) == [table.path]


def test_large_file_that_is_replaced_by_a_bad_one(warp, mail_server, table):
    """The listener says so, once; sessions do what they can."""
    server = mail_server()
    table.write(*large(server))
    proxy = warp(*table.options, "--recipient-delimiter", "+").listen()
    table.write(*large(server), "bad.example;x;perhaps")
    proxy.greeted().close()

    def complained():
        proxy.greeted().close()
        return proxy.records("error")
    proxy.wait_until(complained, "an error")
    assert "line 40003: its tls_verify must be" in proxy.records("error")[0]["error"]
    client = proxy.greeted()
    assert transaction(client, "bob@mail.example") == [250, 250]
    assert transaction(client, "bob@bad.example") == [451]
    assert len(proxy.records("error")) == 2


def test_large_file_with_inetd(warp, mail_server, table):
    """--compile-routes; an index that does not fit the file any more does not count."""
    server, other = mail_server(), mail_server()
    table.write(*large(server))
    assert "--compile-routes" in subprocess.run([BINARY, "--check", "--routes", table.path], capture_output=True,
                                                text=True).stdout
    proxy = warp(*table.options, "--recipient-delimiter", "+")

    def cost():
        client = proxy.greeted()
        return route_cost(client, proxy.processes[-1].pid)
    assert cost() > 1000000
    assert table.compile().returncode == 0
    assert subprocess.run([BINARY, "--check", "--routes", table.path], capture_output=True,
                          text=True).stdout.count("\n") == 1
    assert cost() < 40000
    table.write(*large(other))
    assert cost() > 1000000 and any(command.startswith("RCPT") for command in other.commands)
    # Compiled before both are put in place, nothing is read through.
    shutil.copy(table.path, table.path.with_name("next"))
    table.path = table.path.with_name("next")
    assert table.compile().returncode == 0
    os.rename(table.path.with_name("next.index"), table.path.with_name("routes.index"))
    os.rename(table.path, table.path.with_name("routes"))
    assert cost() < 40000


def test_index_that_cannot_be_written(table, host):
    table.write("a;b")
    table.path.with_name("routes.index").mkdir()
    result = table.compile()
    assert result.returncode == 78 and f"--compile-routes {table.path}.index: " in result.stderr
    assert sorted(path.name for path in table.path.parent.iterdir()) == ["routes", "routes.index"]


# A real client

class EagerPostfix(mta.Postfix):
    """It comes back for what was put off within a second."""
    CLIENT = mta.Postfix.CLIENT + "minimal_backoff_time = 1s\nmaximal_backoff_time = 1s\nqueue_run_delay = 1s\n"


@pytest.mark.skipif(bool(netns.unsupported()), reason=netns.unsupported() or "")
def test_postfix_delivers_50_recipients_over_5_upstreams_once(tmp_path, table):
    """One message to ten recipients at each of five servers, mixed, and one that goes nowhere."""
    with netns.pair() as (client_host, proxy_host), EagerPostfix(client_host, relay=proxy_host.ip4) as sender:
        with proxy_host:
            servers = [peers.MailServer("PIPELINING", "8BITMIME", "ENHANCEDSTATUSCODES") for _ in range(5)]
            table.write(*(f"d{n}.test;{server.name_port}" for n, server in enumerate(servers)))
            proxy = Warp(proxy_host, tmp_path, *table.options, "--allow-clients", "10.0.0.0/8").listen(f"{proxy_host.ip4}:25")
        try:
            addresses = [f"user{n}@d{n * 3 % 5}.test" for n in range(50)]
            mail = mta.Mail("", [*addresses, "nobody@nowhere.test"], b"Subject: once\r\n\r\nhello\r\n")
            sender.submit([mail])
            sender.release()
            sender.wait_idle(60)
            for n, server in enumerate(servers):
                assert sorted(recipients(server)) == sorted(a for a in addresses if a.endswith(f"@d{n}.test"))
                assert all(b"hello" in message["data"] for message in server.messages)
            codes = collections.Counter(r["code"] for record in proxy.records("message") for r in record["rcpt_to"])
            assert codes[250] == 50 and codes[550] == 1 and codes[452] >= 40
        finally:
            for server in servers:
                server.close()
            proxy.close()
