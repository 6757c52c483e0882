"""MIGRATING.md: what it names is there, and what it promises to those who come from elsewhere holds."""
import os
import pathlib
import re
import shlex
import sqlite3
import subprocess
import tempfile

import pytest

import hosts
from hooks import ROOT, Hooks, by_hand, shipped
from nameservers import Nsd
from test_docs import make_options, run
from test_routes import transaction
from warp import MESSAGE

PAGE = (ROOT / "MIGRATING.md").read_text(encoding="utf-8")

# What each of the four has, as its documentation and sources name it.
THEIRS = {
    "Warp": "-ip -port -outbound-ip -plugins -message-size-limit -verbose -version -pprof -storage PLUGIN_PATH FILE_PATH DSN"
            " SLACK_TOKEN SLACK_CHANNEL connections communications id mail_from mail_to occurred_at elapse connection_id"
            " direction data from to AfterInit AfterComm AfterConn BeforeRelay ConnID MailFrom MailTo SenderIP Helo Message"
            " FilterRelay FilterReject FilterAddHeader mysql sqlite file slack /opt/warp/plugins",
    "Willi": "-c -V loglevel listen domain read_timeout write_timeout max_message_bytes max_recipients recipient_delimiter"
             " tls_cert tls_key mappings static csv sql connection query server tls_verify pattern",
    "smtpproxy": "VALID_RECIPIENTS OVERRIDE_RECIPIENT RELAY_HOST SERVER_CERT SERVER_KEY LISTEN_ADDRESS DNSBL_DOMAINS"
                 " LISTEN_FDS LISTEN_PID smtpproxy.service",
    "go-smtpproxy": "-in_hostport -out_hostport -certfile -privkeyfile -logfile -verbose -downstream_debug"
                    " -insecure_skip_verify Addr Domain TLSConfig Debug ReadTimeout WriteTimeout AuthDisabled Init Greet"
                    " StartTLS Auth Mail Rcpt Reset Quit DataCommand Data Unknown",
}

WARP_TABLES = """
    create table connections (id text primary key, mail_from text, mail_to text, occurred_at datetime, elapse integer);
    create table communications (id text primary key, connection_id text, direction text, data text, occurred_at datetime);
    insert into connections values ('old', 'a@b', 'c@d', '2024-01-01T00:00:00.000001', 14)"""
WARP_COLUMNS = {"connections": ["id", "mail_from", "mail_to", "occurred_at", "elapse"],
                "communications": ["id", "connection_id", "direction", "data", "occurred_at"]}

# What the example of its configuration has.
WILLI_EXAMPLE = """pattern;server;tls_verify
foo@bar.com;{one};true
baz.org;{two};false
"""

WILLI_FILE = """pattern;server;tls_verify
# foo goes elsewhere

foo@bar.example;{one};false
baz.example;{two};FALSE
strict.example;{one};true
usual.example;{one}
"""

DEFAULTS = """# A comment
VALID_RECIPIENTS="^test@test[.]tld$"
OVERRIDE_RECIPIENT="othertest@test.tld"
RELAY_HOST="{relay}"
SERVER_CERT="{cert}"
SERVER_KEY="{key}"
LISTEN_ADDRESS=":25"
#DNSBL_DOMAINS="zen.spamhaus.org bl.spamcop.net"
"""


def section(name):
    return PAGE.partition(f"\n## {name}\n")[2].partition("\n## ")[0]


def blocks(text):
    return [re.sub(r"^    ", "", block, flags=re.M) for block in re.findall(r"(?:^    .*\n)+", text, re.M)]


def rows(name):
    """Left and right of each line of a program's table."""
    cells = [re.split(r"(?<!\\)\|", line)[1:-1] for line in section(name).splitlines() if line.startswith("|")]
    assert {len(row) for row in cells} == {2}
    return cells[2:]


def command(name):
    """The arguments of the example that starts smtpwarp."""
    line = next(block for block in blocks(section(name)) if block.startswith("smtpwarp "))
    return shlex.split(line.replace("\\\n", " "))[1:]


@pytest.fixture(name="plugins")
def fixture_plugins(tmp_path):
    """--plugins-dir as an installation has it."""
    plugins = Hooks(tmp_path / "plugins")
    for name in "mysql", "sqlite", "file", "slack":
        plugins.place("log", name).symlink_to(shipped(name))
    return "--plugins-dir", str(plugins.directory)


@pytest.fixture(name="place")
def fixture_place():
    """A directory that smtpwarp's own user may look into."""
    with tempfile.TemporaryDirectory() as directory:
        os.chmod(directory, 0o755)
        yield pathlib.Path(directory)


# The page

@pytest.mark.parametrize("name", THEIRS)
def test_everything_of_theirs_has_its_place(name):
    """In the table, or among what is not here."""
    text = " ".join(left for left, _ in rows(name)) + section(name).partition("\nNot here:")[2]
    assert section(name).count("\nNot here:") == 1
    told = {word for quoted in re.findall(r"`([^`]+)`", text) for word in quoted.split()}
    told |= {word for _, right in rows(name) for word in re.findall(r"`(\w+)`", right)}
    assert set(THEIRS[name].split()) - told == set()


def test_every_option_and_variable_of_ours_exists():
    options = make_options()
    names = set(re.findall(r"(?<![\w-])--([a-z][a-z-]*)", PAGE))
    assert len(names) > 25 and names <= set(options)
    variables = set(re.findall(r"\bSMTPWARP_(\w*[A-Z])", PAGE))
    assert len(variables) > 10 and variables <= {name.upper().replace("-", "_") for name in options}


def test_every_file_of_ours_exists():
    hooks = set(re.findall(r"`hooks/([\w-]+)`", PAGE))
    units = set(re.findall(r"`units/([\w.@-]+)`", PAGE))
    assert len(hooks) >= 6 and all(shipped(name).exists() for name in hooks)
    assert len(units) >= 4 and all((hosts.UNITS / name).exists() for name in units)


def test_every_variable_of_a_hook_is_in_its_head():
    for name, variables in {"file": "FILE_PATH", "sqlite": "DSN", "mysql": "DSN", "slack": "SLACK_TOKEN SLACK_CHANNEL",
                            "route-mysql": "ROUTE_DSN ROUTE_QUERY"}.items():
        head = shipped(name).read_text(encoding="utf-8").partition("\nset ")[0]
        assert f"hooks/{name}`" in PAGE
        for variable in variables.split():
            assert f"`{variable}`" in PAGE and re.search(rf"^#   {variable}\b", head, re.M), (name, variable)


def test_every_reply_is_in_the_manual():
    """But for what the reader's own hooks say."""
    manual = (ROOT / "man/smtpwarp.8").read_text(encoding="utf-8")
    replies = set(re.findall(r"`(\d{3} \d\.\d\.\d)`", PAGE))
    assert len(replies) >= 8 and [reply for reply in replies if reply not in manual] == []


@pytest.mark.parametrize("name", ["Warp", "Willi", "go-smtpproxy"])
def test_commands_pass_the_check(name, plugins, place, certs):
    """With the files that the reader is to have in /etc/smtpwarp."""
    cert, key = certs.pair("good")
    (place / "routes").write_text(WILLI_FILE.format(one="mail.bar.example:25", two="smtp.foo.example"), encoding="utf-8")
    files = {"/etc/smtpwarp/routes": place / "routes", "/etc/smtpwarp/cert.pem": cert, "/etc/smtpwarp/key.pem": key,
             "file:/var/log/smtpwarp/log": f"file:{place}/log"}
    arguments = [str(files.get(word, word)) for word in command(name)]
    result = run("--check", *plugins, *arguments)
    assert result.returncode == 0, result.stderr


def test_readme_leads_here():
    assert "`MIGRATING.md`" in (ROOT / "README.md").read_text(encoding="utf-8")


# Warp

def test_command_line_of_warp(warp, mail_server, plugins, tmp_path):
    """As it is, but for the address: it listens, sessions go through, both plugins write."""
    server, env = mail_server(), {"DSN": str(tmp_path / "db"), "FILE_PATH": str(tmp_path / "file")}
    options = [word.replace("0.0.0.0", "127.0.0.1") for word in command("Warp")]
    options.append(options.pop(options.index("-port") + 1))         # the port last, for listen_by()
    options.insert(-1, options.pop(options.index("-port")))
    proxy = warp(*plugins, upstream=server, env=env).listen_by(*options)
    client = proxy.connect()
    client.expect("220")
    client.ask("EHLO client.example", "250")
    assert transaction(client, "one@mail.example", "two@mail.example") == [250, 250, 250]
    client.ask("QUIT", "221")
    proxy.wait_for("close")
    proxy.close()
    database = sqlite3.connect(tmp_path / "db")
    assert database.execute("select mail_from, mail_to from connections").fetchall() == [
        ("sender@client.example", "two@mail.example")]
    directions = {row[0] for row in database.execute("select direction from communications")}
    assert {"->", "<-", "--"} <= directions
    assert '"event":"comm"' in (tmp_path / "file").read_text() and '"data_ms":' in (tmp_path / "file").read_text()


def test_outbound_ip_of_warp(warp, mail_server):
    """0.0.0.0 is no address to come from, but the kernel's choice."""
    for options, source in ([], "127.0.0.1"), (["-outbound-ip", "0.0.0.0"], "127.0.0.1"), \
            (["-outbound-ip", "127.0.0.9"], "127.0.0.9"):
        server = mail_server()
        warp(*options, upstream=server).greeted()
        assert server.peers[0].sock.getpeername()[0] == source


@pytest.mark.parametrize("old", [True, False])
def test_tables_of_warp(tmp_path, old):
    """Those that Warp made stay with their rows; new ones have its columns under the same names."""
    with sqlite3.connect(tmp_path / "db") as database:
        database.executescript(WARP_TABLES if old else "")
    sample = (ROOT / "hooks" / "sample" / "log.jsonl").read_bytes()
    assert by_hand("sqlite", sample, env={"DSN": str(tmp_path / "db")}).returncode == 0
    database = sqlite3.connect(tmp_path / "db")
    for table, columns in WARP_COLUMNS.items():
        made = [row[1] for row in database.execute(f"pragma table_info({table})")]
        assert set(columns) <= set(made)
        assert made[:len(columns)] == columns or not old
    found = database.execute("select id, mail_from, mail_to, elapse from connections where elapse is not null").fetchall()
    assert len(found) == 1 + old and (("old", "a@b", "c@d", 14) in found) == old


def test_port_that_is_none():
    assert run("--check", "-ip", "127.0.0.1", "-port", "0").returncode == 64


@pytest.mark.parametrize("text, code", [("free money", 550), ("hello", 250)])
def test_filter_of_the_page(warp, mail_server, tmp_path, text, code):
    hooks, server = Hooks(tmp_path / "hooks"), mail_server()
    script = next(block for block in blocks(section("Warp")) if block.startswith("#!/bin/sh"))
    hooks.script("data", script.partition("\n")[2])
    client = warp(*hooks.options, upstream=server).greeted()
    client.ask("MAIL FROM:<a@b>", "250")
    client.ask("RCPT TO:<c@d>", "250")
    client.ask("DATA", "354")
    client.send_raw(f"Subject: x\r\n\r\n{text}\r\n.\r\n".encode())
    assert client.reply().code == code
    assert [message["data"].startswith(b"X-Spam-Score: 0\r\n") for message in server.messages] == [True] * (code == 250)


# Willi

def test_file_of_willi(warp, mail_server, place):
    """By address, without its extension, by domain; nobody else; two servers in one session."""
    one, two = mail_server(), mail_server()
    (place / "routes").write_text(WILLI_FILE.format(one=one.name_port, two=two.name_port), encoding="utf-8")
    client = warp("--transparent", "--routes", place / "routes", "--recipient-delimiter", "+").greeted()
    assert transaction(client, "foo@bar.example", "foo+x@BAR.example", "x@baz.example", "x@bar.example") == [
        250, 250, 452, 550, 250]
    assert transaction(client, "x@baz.example") == [250, 250]
    assert [len(message["to"]) for message in one.messages + two.messages] == [2, 1]
    assert one.commands[0] == two.commands[0] == "EHLO client.example"


@pytest.mark.parametrize("text", [
    WILLI_EXAMPLE, WILLI_EXAMPLE.replace("true", "1").replace("false", "f"), WILLI_EXAMPLE.replace(";true", ""),
    WILLI_EXAMPLE.replace("pattern;server;tls_verify", "Empf\u00e4nger;Ziel;TLS?"), WILLI_EXAMPLE.replace("\n", "\r\n"),
    "\ufeff" + WILLI_EXAMPLE, WILLI_EXAMPLE.replace("\n", ";a note\n"), WILLI_EXAMPLE.replace(";", " ; ")])
@pytest.mark.parametrize("tls", [False, True])
def test_example_of_willi(warp, mail_server, place, certs, text, tls):
    """Its own lines, and other forms that it takes. To servers with TLS and without."""
    one, two = (mail_server(tls=certs.context(kind) if tls else None) for kind in ("localhost", "self-signed"))
    text = text.format(one=f"localhost:{one.port}", two=two.name_port)
    (place / "routes").write_text(text, encoding="utf-8", newline="")
    client = warp("--transparent", "--routes", place / "routes", "--tls", "verify-if-offered", "--tls-ca", certs.ca).greeted()
    assert transaction(client, "foo@bar.com") == [250, 250] == transaction(client, "x@baz.org")
    assert transaction(client, "x@bar.com") == [550]
    assert [message["tls"] for message in one.messages + two.messages] == [tls, tls]


def test_xclient_of_willi(warp, mail_server, host, place, tmp_path):
    """Where it is offered, with the host name that the address has in the DNS."""
    server = mail_server("XCLIENT NAME ADDR HELO", replies={"XCLIENT": "220 server.example ESMTP"})
    (place / "routes").write_text(f"*;{server.name_port};false\n", encoding="utf-8")
    zones = {"0.0.127.in-addr.arpa": ["1 PTR mail.client.example."], "client.example": ["mail A 127.0.0.1"]}
    with Nsd(host, tmp_path / "nsd", zones):
        client = warp("--transparent", "--routes", place / "routes", "--xclient", "--dns-server", "127.0.0.1").greeted()
        assert transaction(client, "x@y.example") == [250, 250]
    said = next(line for line in server.commands if line.startswith("XCLIENT"))
    assert said.split()[1:] == ["NAME=mail.client.example", "ADDR=127.0.0.1", "HELO=client.example"]


@pytest.mark.parametrize("recipient, code", [("foo@bar.example", 250), ("x@strict.example", 451), ("x@usual.example", 451)])
def test_tls_verify_of_willi(warp, mail_server, certs, place, recipient, code):
    """Towards a certificate that nobody signed: without a value it is true, with --tls verify-if-offered."""
    server = mail_server(tls=certs.context("self-signed"))
    (place / "routes").write_text(WILLI_FILE.format(one=server.name_port, two="localhost"), encoding="utf-8")
    client = warp("--transparent", "--routes", place / "routes", "--tls", "verify-if-offered", "--tls-ca",
                  certs.ca).greeted()
    assert transaction(client, recipient)[-1] == code
    assert [message["tls"] for message in server.messages] == [True] * (code == 250)


def test_static_mapping_of_willi(warp, mail_server, place):
    server = mail_server()
    text = WILLI_FILE.format(one="127.0.0.1:9", two="127.0.0.1:9") + f"*;{server.name_port};false\n"
    (place / "routes").write_text(text, encoding="utf-8")
    client = warp("--transparent", "--routes", place / "routes").greeted()
    assert transaction(client, "who@ever.example") == [250, 250]


@pytest.mark.parametrize("text", ["pattern (a@b);server;tls_verify\na.example;b.example;1\n",
                                  "key;host;port\na.example;b.example;25\n"])
def test_what_of_willi_is_not_here_is_complained_of(place, text):
    (place / "routes").write_text(text, encoding="utf-8")
    assert run("--check", "--routes", str(place / "routes")).returncode == 78


# smtpproxy

def converted(place, certs, relay, tail=""):
    """What the page's commands make of a file of smtpproxy."""
    cert, key = certs.pair("good")
    (place / "defaults").write_text(DEFAULTS.format(relay=relay, cert=cert, key=key) + tail, encoding="utf-8")
    script = next(block for block in blocks(section("smtpproxy")) if block.startswith("sed "))
    done = subprocess.run(["sh", "-ec", script.replace("/etc/default/smtpproxy", str(place / "defaults"))], check=True,
                          capture_output=True, text=True)
    (place / "smtpwarp.conf").write_text(done.stdout, encoding="utf-8")
    seen = subprocess.run(["sh", "-ec", f"set -a; . {place}/smtpwarp.conf; env"], check=True, capture_output=True, text=True,
                          env={"PATH": os.environ["PATH"]}).stdout
    return dict(line.split("=", 1) for line in seen.splitlines() if line.startswith("SMTPWARP_"))


def test_variables_of_smtpproxy_pass_the_check(place, certs):
    """All of them; on a listener as public as its own."""
    made = converted(place, certs, "mail.example:25", 'DNSBL_DOMAINS="zen.spamhaus.org bl.spamcop.net"\n')
    assert set(made) == {f"SMTPWARP_{name}" for name in ("VALID_RECIPIENTS", "OVERRIDE_RECIPIENT", "UPSTREAM", "CERT", "KEY",
                                                         "DNSBL", "GREET_DELAY", "TARPIT")}
    result = run("--check", "--listen", "*:25", **made)
    assert result.returncode == 0, result.stderr
    del made["SMTPWARP_VALID_RECIPIENTS"]       # an open relay there; here it does not start
    assert run("--check", "--listen", "*:25", **made).returncode == 78


def test_session_with_the_variables_of_smtpproxy(warp, mail_server, place, certs):
    server = mail_server()
    made = converted(place, certs, server.name_port)
    assert (made["SMTPWARP_GREET_DELAY"], made["SMTPWARP_TARPIT"]) == ("5", "60")
    made.update(SMTPWARP_GREET_DELAY="0.1", SMTPWARP_TARPIT="0.1")
    client = warp("--transparent", env=made).connect()
    client.expect("220")
    assert "STARTTLS" in client.ask("EHLO client.example", "250").texts
    assert transaction(client, "test@test.tld", "other@test.tld") == [250, 550, 250]
    assert server.messages[0]["to"] == ["<othertest@test.tld>"]


@pytest.mark.parametrize("value", [r"\d+@test.tld", r"(?i)test", r"\btest"])
def test_expressions_of_go_are_complained_of(value):
    assert run("--check", "--valid-recipients", value).returncode in (64, 78)


# go-smtpproxy

def test_what_go_smtpproxy_gets_wrong(warp, mail_server):
    """A refusal after the final dot, a reply of several lines, the client's name, a % in an address."""
    server = mail_server(replies={".": "550-5.7.1 no\n550 5.7.1 not here"})
    client = warp(upstream=server).greeted()
    client.ask("MAIL FROM:<a%d%s@b.example>", "250")
    client.ask("RCPT TO:<c%n@d.example>", "250")
    client.ask("DATA", "354")
    client.send_raw(MESSAGE)
    reply = client.reply()
    assert reply.code == 550 and len(reply.lines) == 2
    assert server.commands[0] == "EHLO client.example"
    assert "MAIL FROM:<a%d%s@b.example>" in server.commands and "RCPT TO:<c%n@d.example>" in server.commands


@pytest.mark.parametrize("options, code", [(["verify", "--tls-name", "mail.example"], 451), (["encrypt"], 250)])
def test_insecure_skip_verify(warp, mail_server, certs, options, code):
    """Towards a certificate that nobody signed."""
    client = warp("--tls", *options, "--tls-ca", certs.ca, upstream=mail_server(tls=certs.context("self-signed"))).connect()
    client.expect("220")
    client.ask("EHLO client.example", str(code))


def test_unknown_commands_do_not_go_on(warp, mail_server):
    server = mail_server()
    client = warp(upstream=server).greeted()
    client.ask("XUNKNOWN", "500")
    assert server.commands == ["EHLO client.example"]
