"""hooks/route-mysql with a real MariaDB, hooks/source-by-sender with tables, SQLite and real addresses."""
import collections
import contextlib
import json
import os
import pathlib
import re
import sqlite3
import subprocess
import time

import pytest

import certificates
import hooks
import mariadb
import mta
import netns
import peers
from waiting import wait_until
from warp import Warp

EXTRA_ROWS = {"'; DROP TABLE mx_external_servers; --@mail.example", "x' OR '1'='1@mail.example", 'a"b@mail.example',
              "back\\slash@mail.example", "back\\@mail.example", "\\'@mail.example", "per%cent_@mail.example",
              "$(touch /tmp/x)`id`@mail.example", "-e@mail.example", "\\! id@mail.example", "ä€😀@mail.example",
              "tab\there@mail.example", "line\nSELECT 1;@mail.example", "?@mail.example", "@@mail.example"}


class Routes(mariadb.Server):
    """With the table that the hook expects."""

    def __enter__(self):
        super().__enter__()
        self.sql("CREATE DATABASE mail CHARACTER SET utf8mb4; USE mail;"
                 "CREATE TABLE mx_external_servers (pattern VARCHAR(320) PRIMARY KEY, server VARCHAR(300),"
                 " tls_verify VARCHAR(300)); GRANT SELECT ON mail.* TO warp@'%'")
        return self

    def rows(self, rows):
        """The table holds these and no others: {pattern: server or (server, tls_verify)}."""
        def text(value):
            return "NULL" if value is None else f"CONVERT(x'{value.encode().hex()}' USING utf8mb4)"
        values = [(pattern, *(row if isinstance(row, tuple) else (row, "false"))) for pattern, row in rows.items()]
        self.sql("USE mail; DELETE FROM mx_external_servers; INSERT INTO mx_external_servers VALUES "
                 + ", ".join(f"({', '.join(map(text, row))})" for row in values))

    @property
    def dsn(self):
        return f"warp:{mariadb.PASSWORD}@unix({self.socket})/mail"

    def tcp(self, address=f"127.0.0.1:{mariadb.PORT}", parameters=""):
        return f"warp:{mariadb.PASSWORD}@tcp({address})/mail{parameters}"


@pytest.fixture(scope="module")
def database(certs):
    """One for all tests of the module that this worker runs, in the namespace that they share."""
    with netns.single() as namespace, Routes(namespace, *certs.pair("localhost")) as server:
        yield server


@pytest.fixture
def host(database):
    with database.host:
        yield database.host


# route-mysql, by hand

def route(database, recipient, sender="alice@client.example", **env):
    line = hooks.sample("rcpt", rcpt={"address": recipient, "params": {}}, mail_from={"address": sender, "params": {}})
    return hooks.by_hand("route-mysql", line, env={"DSN": database.dsn, **env}, text=False)


def verdict(database, recipient, sender="alice@client.example", **env):
    done = route(database, recipient, sender, **env)
    assert (done.returncode, done.stderr) == (0, b"")
    return done.stdout.decode().removesuffix("\n").split("\n") if done.stdout else []


REFUSED = ["reject 550 5.1.2 No route to this recipient"]


def test_route_of_the_sample_line(database, host):
    database.rows({"mail.example": ("mx.mail.example:2525", "true")})
    line = (hooks.SAMPLES / "rcpt.json").read_bytes()
    done = hooks.by_hand("route-mysql", line, env={"DSN": database.dsn})
    assert (done.returncode, done.stdout, done.stderr) == (0, b"upstream mx.mail.example:2525\ntls verify-if-offered\n", b"")


@pytest.mark.parametrize("address, parameters", [
    (f"127.0.0.1:{mariadb.PORT}", ""), ("127.0.0.1", "?charset=utf8mb4&parseTime=true"),
    ("localhost", "?parseTime=true&tls=true"), ("127.0.0.1", "?tls=preferred"), (f"localhost:{mariadb.PORT}", "?tls=false")])
def test_route_by_tcp_and_tls(database, host, certs, address, parameters):
    database.rows({"*": "192.0.2.1"})
    dsn = database.tcp(address, parameters)
    assert verdict(database, "a@b.example", DSN=dsn, SSL_CERT_FILE=str(certs.ca)) == ["upstream 192.0.2.1", "tls may"]


def test_route_dsn_wins_over_the_dsn_of_other_hooks(database, host):
    database.rows({"*": "192.0.2.1"})
    assert verdict(database, "a@b.example", DSN="file.db", ROUTE_DSN=database.dsn)[0] == "upstream 192.0.2.1"


@pytest.mark.parametrize("row, lines", [
    *((("h", word), ["tls verify-if-offered"]) for word in ("true", "TRUE", "1", "t", "verify-if-offered")),
    *((("h", word), ["tls may"]) for word in ("false", "False", "0", "F")), (("h", None), []), (("h", "none"), ["tls none"]),
    (("h", "encrypt"), ["tls encrypt"]), (("h", "Verify mx.example"), ["tls verify mx.example"]),
    (("h", "true mx.example"), ["tls verify-if-offered mx.example"])])
def test_tls_verify(database, host, row, lines):
    database.rows({"b.example": row})
    assert verdict(database, "a@b.example") == ["upstream h", *lines]


def test_result_without_tls_verify_means_true(database, host):
    query = "SELECT 1 AS one, pattern AS Server FROM mx_external_servers WHERE pattern = ?"
    database.rows({"b.example": "h"})
    assert verdict(database, "a@b.example", ROUTE_QUERY=query) == ["upstream b.example", "tls verify-if-offered"]


ORDER = ["bob+news@a.b.example", "bob@a.b.example", "a.b.example", ".b.example", ".example", "*"]


@pytest.mark.parametrize("missing", range(len(ORDER) + 1))
def test_order_of_keys(database, host, missing):
    """All keys but the first `missing` have a row."""
    database.rows({"other.example": "wrong", **{key: f"host{number}" for number, key in enumerate(ORDER)
                                                if number >= missing}})
    wanted = [f"upstream host{missing}", "tls may"] if missing < len(ORDER) else REFUSED
    assert verdict(database, "bob+news@A.b.EXAMPLE", RECIPIENT_DELIMITER="-+") == wanted


def test_domain_of_its_own_is_not_among_its_subdomains(database, host):
    database.rows({".b.example": "sub"})
    assert verdict(database, "a@b.example") == REFUSED
    assert verdict(database, "a@x.y.b.example")[0] == "upstream sub"


@pytest.mark.parametrize("recipient, env, wanted", [
    ("bob+news@b.example", {}, "domain"),
    ("bob+news@b.example", {"SMTPWARP_RECIPIENT_DELIMITER": "+"}, "bob"),
    ("bob+news@b.example", {"SMTPWARP_RECIPIENT_DELIMITER": "+", "RECIPIENT_DELIMITER": ""}, "domain"),
    ("bob+news+x@b.example", {"RECIPIENT_DELIMITER": "+"}, "bob"),
    ("+bob@b.example", {"RECIPIENT_DELIMITER": "+"}, "domain"),         # or it would be nobody at all
    ("bob@x+y@b.example", {"RECIPIENT_DELIMITER": "+"}, "two"),
    ("postmaster", {"RECIPIENT_DELIMITER": "+"}, "local"),
    ("postmaster+b.example", {"RECIPIENT_DELIMITER": "+"}, "rest")])
def test_recipient_delimiter(database, host, recipient, env, wanted):
    database.rows({"bob@b.example": "bob", "b.example": "domain", "bob@x@b.example": "two", "postmaster": "local",
                   "@b.example": "nobody", "*": "rest"})
    assert verdict(database, recipient, **env)[0] == f"upstream {wanted}"


def test_first_row_counts(database, host):
    database.rows({"b.example": "second", "*": "first"})
    query = ("SELECT server, tls_verify FROM mx_external_servers WHERE ? IS NOT NULL ORDER BY server")
    assert verdict(database, "a@b.example", ROUTE_QUERY=query)[0] == "upstream first"


def test_query_with_variables_instead_of_a_placeholder(database, host):
    query = ("SELECT CONCAT_WS('|', @recipient, @domain, @sender, @client) AS server, 'none' AS tls_verify;")
    assert verdict(database, "A@B.example", "", ROUTE_QUERY=query) == ["upstream A@b.example|b.example||10.0.0.1",
                                                                       "tls none"]


@pytest.mark.parametrize("mode", ["", "ANSI_QUOTES", "NO_BACKSLASH_ESCAPES", "ANSI_QUOTES,NO_BACKSLASH_ESCAPES",
                                  "ORACLE", "STRICT_ALL_TABLES,PIPES_AS_CONCAT"])
def test_hostile_recipients_are_found_as_they_are(database, host, mode):
    """Each is a key of its own row: what arrives at the table is what came, and nothing else happens."""
    rows = {recipient: f"host{number}" for number, recipient in enumerate(sorted(EXTRA_ROWS))}
    database.rows(rows)
    database.sql(f"SET GLOBAL sql_mode = '{mode}'")
    try:
        for recipient, server in rows.items():
            assert verdict(database, recipient)[0] == f"upstream {server}"
        assert verdict(database, "x" + "".join(rows)) == REFUSED
    finally:
        database.sql("SET GLOBAL sql_mode = DEFAULT")
    assert int(database.sql("SELECT COUNT(*) FROM mail.mx_external_servers")) == len(rows)


@pytest.mark.parametrize("recipient", ["", "@", "@b.example", "a@", "\0", "a\0b@b.example", "\ufffd@b.example",
                                       "a@" + "x." * 700, "x" * 60000 + "@b.example", "a@[192.0.2.1]", "a@[IPv6:::1]"])
def test_odd_recipients_are_refused(database, host, recipient):
    database.rows({"other.example": "h"})
    assert verdict(database, recipient, "'\"\\\0") == REFUSED


def test_long_domain_is_no_reason_for_a_thousand_queries(database, host):
    database.rows({"*": "rest"})
    asked = int(database.sql("SHOW GLOBAL STATUS LIKE 'Com_stmt_execute'").split()[1])
    assert verdict(database, "a@" + "x." * 1000 + "example")[0] == "upstream rest"
    assert int(database.sql("SHOW GLOBAL STATUS LIKE 'Com_stmt_execute'").split()[1]) - asked < 10


def test_column_of_another_character_set(database, host):
    """What the column cannot hold is not found, if the query says so."""
    database.sql("USE mail; CREATE OR REPLACE TABLE old (pattern VARCHAR(99) CHARACTER SET latin1 PRIMARY KEY,"
                 " server VARCHAR(99) CHARACTER SET latin1); INSERT INTO old VALUES ('ä@b.example', 'old')")
    query = "SELECT server, 'false' AS tls_verify FROM old WHERE pattern = ?"
    assert verdict(database, "ä@b.example", ROUTE_QUERY=query)[0] == "upstream old"
    failure(route(database, "€😀@b.example", ROUTE_QUERY=query), 75, "collation")
    query = query.replace("?", "CONVERT(? USING latin1)")
    assert verdict(database, "ä@b.example", ROUTE_QUERY=query)[0] == "upstream old"
    assert verdict(database, "€😀@b.example", ROUTE_QUERY=query) == REFUSED


@pytest.mark.parametrize("server", ["a\nreject 550 5.7.1 gotcha", "a\r\nb", "a\rb", "a\tb"])
def test_value_of_the_table_cannot_end_a_line(database, host, server):
    database.rows({"*": server})
    assert len(verdict(database, "a@b.example")) == 2


def failure(done, status, *words):
    """It failed in that way, gave no verdict, and the last line on stderr, the one that is logged, says why."""
    assert (done.returncode, done.stdout) == (status, b""), done.stderr
    last = done.stderr.decode().splitlines()[-1]
    assert [word for word in words if word not in last] == [], last
    assert mariadb.PASSWORD not in done.stderr.decode()


@pytest.mark.parametrize("dsn, word", [
    ("", "set DSN"), ("warp", "set DSN"), ("warp:x@udp(1.2.3.4)/mail", "tcp(HOST:PORT)"), ("warp@/mail", "tcp(HOST"),
    ("a:b\nsocket=/x@tcp(h)/mail", "line break"), ("a:b@tcp(h)/mail?tls=skip-verify", "tls"),
    ("a:b@tcp(h)/mail?x=y&tls=custom", "tls")])
def test_bad_dsn(database, host, dsn, word):
    failure(route(database, "a@b.example", DSN=dsn), 78, word)


@pytest.mark.parametrize("row, words", [
    ((None, "true"), ["no server"]), (("", "true"), ["no server"]), (("h", "perhaps"), ["tls_verify", "perhaps"]),
    (("h", ""), ["tls_verify"]), (("h", "verify a b"), ["tls_verify"])])
def test_bad_row(database, host, row, words):
    database.rows({"b.example": row})
    failure(route(database, "a@b.example"), 78, *words)


@pytest.mark.parametrize("query, status, word", [
    ("SELECT pattern FROM mx_external_servers WHERE pattern = ?", 78, "no column named server"),
    ("SELECT server FROM mx_external_servers WHERE pattern = ? OR pattern = ?", 75, "EXECUTE"),
    ("SELECT server FROM nowhere WHERE pattern = ?", 75, "nowhere"),
    ("SELECT '?' AS server", 75, "EXECUTE"), ("nonsense ?", 75, "nonsense"), ("\\! id >&2", 75, "syntax"),
    ("DELETE FROM mx_external_servers WHERE pattern = ?", 75, "denied")])
def test_bad_query(database, host, query, status, word):
    database.rows({"*": "h"})
    failure(route(database, "a@b.example", ROUTE_QUERY=query), status, word)
    assert int(database.sql("SELECT COUNT(*) FROM mail.mx_external_servers")) == 1


@pytest.mark.parametrize("dsn, word", [
    (f"warp:wrong@tcp(127.0.0.1:{mariadb.PORT})/mail", "Access denied"), ("a:b@tcp(127.0.0.1:1)/mail", "127.0.0.1"),
    ("a:b@unix(/nonexistent/s)/mail", "/nonexistent/s"), ("a:b@tcp([::1]:1)/mail", "::1")])
def test_database_that_does_not_answer(database, host, dsn, word):
    failure(route(database, "a@b.example", DSN=dsn), 75, word)


def test_tls_is_enforced(database, host, certs):
    """The certificate is of an unknown CA, then for another name: not a byte of a query goes out."""
    failure(route(database, "a@b.example", DSN=database.tcp("localhost", "?tls=true")), 75, "TLS", "issuer")
    failure(route(database, "a@b.example", DSN=database.tcp(parameters="?tls=true"), SSL_CERT_FILE=str(certs.ca)), 75,
            "TLS", "Validation")


def test_secrets_are_on_no_command_line(database, host, tmp_path):
    database.rows({"*": "h"})
    line = json.dumps(hooks.sample("rcpt", rcpt={"address": "private@b.example", "params": {}}))
    env = {"PATH": os.environ["PATH"], "DSN": database.tcp()}
    trace = tmp_path / "trace"
    subprocess.run(["strace", "-f", "-v", "-s", "100000", "-e", "trace=execve", "-o", trace,
                    hooks.shipped("route-mysql")], input=line, text=True, env=env, check=True, capture_output=True)
    commands = re.findall(r'execve\("([^"]*)", (\[.*?\]), \[', trace.read_text())
    assert {"mariadb", "jq", "awk"} <= {pathlib.Path(program).name for program, _ in commands}
    for _, arguments in commands:
        assert "$(id)" not in arguments and "private@" not in arguments


# route-mysql, through smtpwarp

SERVERS = ["127.0.0.2", "127.0.0.3", "127.0.0.4"]


def send_honouring_452(client, recipients, body=b"Subject: many\r\n\r\nHello.\r\n.\r\n"):
    """Sends one message to all, in as many transactions as the server wants; returns replies that were refusals."""
    refused, waiting, transactions = {}, list(recipients), 0
    while waiting:
        client.ask("MAIL FROM:<alice@client.example>", "250")
        later, taken = [], 0
        for recipient in waiting:
            client.send(f"RCPT TO:<{recipient}>")
            reply = client.expect("250", "452 4.5.3", "550 5.1.2")
            if reply.code == 452:
                later.append(recipient)
            elif reply.code == 550:
                refused[recipient] = reply
            taken += reply.code == 250
        assert taken or not later, "no transaction takes any of the rest"
        if taken:
            client.ask("DATA", "354")
            client.send_raw(body)
            client.expect("250")
            transactions += 1
        else:
            client.ask("RSET", "250")
        waiting = later
    return refused, transactions


@pytest.fixture
def routed(host, database, warp, mail_server, tmp_path):
    """A smtpwarp that asks the database, and the servers by their addresses."""
    placed = hooks.Hooks(tmp_path / "hooks")
    placed.link("rcpt", "route-mysql")
    servers = {address: mail_server("PIPELINING", address=address, port=25) for address in SERVERS}

    def make(*options, **env):
        proxy = warp(*placed.options, "--connect-on", "recipient", *options, "--transparent",
                     env={"DSN": database.dsn, **env})
        return proxy.listen()
    return make, servers


def test_fifty_mixed_recipients_arrive_once_each_where_they_belong(database, routed):
    """By address, domain, subdomain and delimiter, in no order; ten of them have no route."""
    make, servers = routed
    database.rows({"one.example": SERVERS[0], "two.example": SERVERS[1], ".three.example": SERVERS[2],
                   "vip@one.example": SERVERS[2], "bob@two.example": SERVERS[0]})
    home = {"vip@one.example": SERVERS[2], "vip+x@one.example": SERVERS[2], "bob+1@TWO.example": SERVERS[0]}
    for number in range(37):
        domain, server = [("one.example", SERVERS[0]), ("two.EXAMPLE", SERVERS[1]),
                          (f"s{number}.three.example", SERVERS[2])][number % 3]
        home[f"user{number}@{domain}"] = server
    lost = [f"user{number}@nowhere.example" for number in range(10)]
    mixed = sorted([*home, *lost], key=lambda name: hash(name) % 97)
    assert len(mixed) == 50
    proxy = make(RECIPIENT_DELIMITER="+")
    refused, transactions = send_honouring_452(proxy.greeted(), mixed)
    assert sorted(refused) == sorted(lost)
    assert transactions == len(SERVERS)
    for address, server in servers.items():
        arrived = collections.Counter(word for message in server.messages for word in message["to"])
        wanted = {f"<{name}>" for name, place in home.items() if place == address}
        assert arrived == collections.Counter(wanted)
    assert sum(record["result"] == "accepted" for record in proxy.records("message")) == transactions


def retry(sender):
    """What Postfix has put off is tried again at once; a file's time says when it would have been."""
    for file in sender.files_below("queue/deferred/*/*"):
        os.utime(file)
        os.rename(file, f"{sender.directory}/queue/incoming/{os.path.basename(file)}")
    sender.release()


def try_again(sender, attempt):
    """Until this attempt has begun, for Postfix may still hold the file of the last one."""
    def pause(seconds):
        retry(sender)
        time.sleep(seconds)
    wait_until(lambda: sender.logfile.read_text().count("(queue active)") >= attempt, sender.log, 60, pause)


def test_recipients_of_a_real_client_arrive_once_each(database, host, warp, mail_server, tmp_path):
    """Postfix takes a 452 for a recipient's own and brings it with the next attempt, which is here as many as servers."""
    placed = hooks.Hooks(tmp_path / "hooks")
    placed.link("rcpt", "route-mysql")
    servers = {address: mail_server("PIPELINING", address=address, port=25) for address in SERVERS}
    domains = {"one.example": SERVERS[0], "two.example": SERVERS[1], "three.example": SERVERS[2]}
    database.rows(domains)
    proxy = warp(*placed.options, "--connect-on", "recipient", "--transparent", env={"DSN": database.dsn})
    proxy.listen("127.0.0.9:25")
    recipients = [f"user{number}@{domain}" for number in range(4) for domain in domains]
    with mta.Postfix(host, relay="127.0.0.9") as sender:
        sender.submit([mta.Mail("alice@client.example", recipients, b"Subject: x\r\n\r\nHello.\r\n")])
        sender.release()
        for attempt in range(1, len(SERVERS) + 1):
            wait_until(lambda count=attempt: sender.logfile.read_text().count("status=sent") == 4 * count
                       and not sender.files_below("queue/active/*"), sender.log, 60)
            if attempt < len(SERVERS):
                try_again(sender, attempt + 1)
    for domain, address in domains.items():
        arrived = [word for message in servers[address].messages for word in message["to"]]
        assert sorted(arrived) == [f"<user{number}@{domain}>" for number in range(4)]


def test_tls_of_the_route_is_kept(database, host, warp, mail_server, certs, tmp_path):
    """verify with a name, may with a certificate that is worth nothing, and verify that fails."""
    placed = hooks.Hooks(tmp_path / "hooks")
    placed.link("rcpt", "route-mysql")
    good = mail_server(address=SERVERS[0], port=25, tls=certs.context("good"))
    bad = mail_server(address=SERVERS[1], port=25, tls=certs.context("self-signed"))
    database.rows({"good.example": (SERVERS[0], f"verify {certificates.HOST}"), "may.example": (SERVERS[1], "false"),
                   "bad.example": (SERVERS[1], f"verify {certificates.HOST}"), "none.example": (SERVERS[0], "none")})
    proxy = warp(*placed.options, "--connect-on", "recipient", "--tls-ca", certs.ca, "--transparent",
                 env={"DSN": database.dsn}).listen()
    for domain, reply in (("good", "250"), ("may", "250"), ("bad", "451 4.7.5"), ("none", "250")):
        client = proxy.greeted()
        client.ask("MAIL FROM:<alice@client.example>", "250")
        client.send(f"RCPT TO:<bob@{domain}.example>")
        if not client.expect(reply).startswith("250"):
            continue
        client.ask("DATA", "354")
        client.send_raw(b"Subject: x\r\n\r\n.\r\n")
        client.expect("250")
    assert [bool(message["tls"]) for message in good.messages] == [True, False]
    assert [bool(message["tls"]) for message in bad.messages] == [True]
    verified = [record["server"]["tls"] and record["server"]["tls"]["verified"]
                for record in proxy.records("message", result="accepted")]
    assert verified == [True, False, None]


def test_database_that_is_down_defers_the_recipient(routed):
    make, servers = routed
    proxy = make(DSN="warp@tcp(127.0.0.1:1)/mail")
    client = proxy.greeted()
    client.ask("MAIL FROM:<alice@client.example>", "250")
    client.ask("RCPT TO:<bob@one.example>", "451 4.3.0")
    client.ask("DATA", "554", "503")
    assert not any(server.peers for server in servers.values())
    assert "127.0.0.1" in proxy.wait_for("verdict", verdict="failed")["text"]


# source-by-sender, by hand

TABLE = """
# who                  comes from where
alice@client.example   192.0.2.1  2001:db8::1   # two families
@client.example        192.0.2.2
.client.example        192.0.2.3
<>                     192.0.2.4
to:mail.example        192.0.2.5
to:.big.example        192.0.2.6
*                      192.0.2.7
"""


def choose(tmp_path, table=None, scores=None, sender="alice@client.example", recipient=None):
    """The hook's answer; at event mail without a recipient."""
    env = {}
    if table is not None:
        (tmp_path / "table").write_text(table)
        env["SOURCE_TABLE"] = str(tmp_path / "table")
    if scores is not None:
        env["REPUTATION_DB"] = str(tmp_path / "scores")
        with contextlib.closing(sqlite3.connect(env["REPUTATION_DB"])) as database, database:
            database.execute(schema())
            database.execute("DELETE FROM reputation")
            database.executemany("INSERT INTO reputation VALUES (?, ?, ?)", scores)
    line = hooks.sample("rcpt" if recipient is not None else "mail", mail_from={"address": sender, "params": {}})
    if recipient is not None:
        line["rcpt"]["address"] = recipient
    return hooks.by_hand("source-by-sender", line, env=env)


def schema():
    """As the head of the hook has it."""
    text = hooks.shipped("source-by-sender").read_text()
    return re.search(r"CREATE (TABLE reputation .*;)", text)[0].replace("TABLE", "TABLE IF NOT EXISTS")


def sources(*args, **options):
    done = choose(*args, **options)
    assert (done.returncode, done.stderr) == (0, b"")
    return [line.removeprefix("source ") for line in done.stdout.decode().splitlines()]


@pytest.mark.parametrize("sender, recipient, wanted", [
    ("alice@client.example", None, ["192.0.2.1", "2001:db8::1"]),
    ("ALICE@Client.EXAMPLE", "bob@mail.example", ["192.0.2.1", "2001:db8::1"]),
    ("bob@client.example", "bob@mail.example", ["192.0.2.2"]),
    ("bob@a.b.client.example", "bob@mail.example", ["192.0.2.3"]),
    ("", None, ["192.0.2.4"]), ("", "bob@mail.example", ["192.0.2.4"]),
    ("x@other.example", None, ["192.0.2.7"]),
    ("x@other.example", "bob@MAIL.example", ["192.0.2.5"]),
    ("x@other.example", "bob@a.big.example", ["192.0.2.6"]),
    ("x@other.example", "bob@big.example", ["192.0.2.7"]),
    ("x@other.example", "postmaster", ["192.0.2.7"]),
    ("local", None, ["192.0.2.7"]),
    # A sender cannot pose as a key of another kind, nor as two of them.
    ("*", None, ["192.0.2.7"]), ("to:mail.example", None, ["192.0.2.7"]), ("<>", None, ["192.0.2.7"]),
    ("client.example", None, ["192.0.2.7"]), ("@client.example", None, ["192.0.2.2"]),
    ("x@y\nalice@client.example@other.example", None, ["192.0.2.7"]),
    ("x alice@client.example", "bob@mail.example\n", ["192.0.2.2"]), ("x@*", "bob@*", ["192.0.2.7"]),
    ("x@to:mail.example", "bob@x.example", ["192.0.2.7"]), ("x@<>", "bob@to:mail.example", ["192.0.2.7"]),
    ("x@y\nto:mail.example", "bob@y\n.client.example", ["192.0.2.7"]),
    ("$(id)`id`'\"\\\0;@other.example", "\0'@x", ["192.0.2.7"]), ("-n@\ufffd", "-v@x", ["192.0.2.7"]),
    ("x" * 60000, "x" * 60000, ["192.0.2.7"])])
def test_keys_of_the_table(tmp_path, sender, recipient, wanted):
    assert sources(tmp_path, TABLE, sender=sender, recipient=recipient) == wanted


def test_nothing_matches(tmp_path):
    assert sources(tmp_path, "other.example 192.0.2.1\n") == []


def test_several_addresses_are_spread_over_senders_and_stay_with_them(tmp_path):
    """Lines with the same key add up. Each of 64 senders has one address, all addresses are used, whoever asks."""
    table = "client.example 192.0.2.1 2001:db8::1\nother.example 192.0.2.9\nclient.example 192.0.2.2 192.0.2.3\n"
    chosen = {}
    for number in range(64):
        sender = f"user{number}@client.example"
        four, six = sources(tmp_path, table, sender=sender)
        chosen.setdefault(four, []).append(sender)
        assert six == "2001:db8::1"
    assert set(chosen) == {"192.0.2.1", "192.0.2.2", "192.0.2.3"}
    assert min(map(len, chosen.values())) >= 10
    for four, senders in chosen.items():
        assert sources(tmp_path, table, sender=senders[0], recipient="bob@mail.example")[0] == four


def test_long_list_of_recipients(tmp_path):
    """A line of a megabyte: it goes by no command line."""
    line = hooks.sample("rcpt", rcpt_to=[{"address": f"user{n}@mail.example", "params": {}} for n in range(20000)])
    (tmp_path / "table").write_text("* 192.0.2.1\n")
    with contextlib.closing(sqlite3.connect(tmp_path / "scores")) as database, database:
        database.execute(schema())
    done = hooks.by_hand("source-by-sender", line, env={"SOURCE_TABLE": str(tmp_path / "table"),
                                                       "REPUTATION_DB": str(tmp_path / "scores")})
    assert (done.returncode, done.stdout, done.stderr) == (0, b"source 192.0.2.1\n", b"")


# Its reputation

POOL = "client.example 192.0.2.1 192.0.2.2 192.0.2.3 2001:db8::1 2001:db8::2\n"
SCORES = [("192.0.2.1", 10, ""), ("192.0.2.2", 20, ""), ("192.0.2.2", -5, "mail.example"), ("192.0.2.3", -1, ""),
          ("2001:db8::2", 0.5, ""), ("192.0.2.99", 1000, "")]


@pytest.mark.parametrize("recipient, wanted", [
    (None, ["192.0.2.2", "2001:db8::2"]), ("bob@other.example", ["192.0.2.2", "2001:db8::2"]),
    ("bob@Mail.EXAMPLE", ["192.0.2.1", "2001:db8::2"]), ("postmaster", ["192.0.2.2", "2001:db8::2"]),
    ("x@' OR '1'='1", ["192.0.2.2", "2001:db8::2"]), ("x@\0';\n.shell id\n", ["192.0.2.2", "2001:db8::2"])])
def test_best_score_of_the_table_s_addresses(tmp_path, recipient, wanted):
    assert sorted(sources(tmp_path, POOL, SCORES, recipient=recipient)) == wanted


@pytest.mark.parametrize("table", [None, "other.example 192.0.2.1\n"])
def test_best_score_of_all(tmp_path, table):
    assert sorted(sources(tmp_path, table, SCORES)) == ["192.0.2.99", "2001:db8::2"]


def test_equal_scores_leave_the_choice_to_the_hash(tmp_path):
    table = "client.example 192.0.2.1 192.0.2.2\n"
    for number in range(8):
        sender = f"user{number}@client.example"
        assert sources(tmp_path, table, [], sender=sender) == sources(tmp_path, table, sender=sender)


def test_address_that_the_table_fixes_stays(tmp_path):
    assert sources(tmp_path, "client.example 192.0.2.3\n", SCORES) == ["192.0.2.3"]


def test_empty_database(tmp_path):
    assert sources(tmp_path, None, []) == []


@pytest.mark.parametrize("table, word", [
    ("a.example\n", ":1: a key without an address"), ("# x\n\na.example 1.2.3\n", ":3: not an address: 1.2.3"),
    ("a.example mail.example\n", "mail.example"), ("* 192.0.2.1;id\n", "192.0.2.1;id")])
def test_bad_table(tmp_path, table, word):
    failure(choose(tmp_path, table), 78, str(tmp_path / "table"), word)


def test_table_or_database_that_is_missing(tmp_path):
    line = hooks.sample("mail")
    for env, status in (({"SOURCE_TABLE": "/nonexistent"}, 78), ({"REPUTATION_DB": "/nonexistent"}, 75),
                        ({"SOURCE_TABLE": str(tmp_path)}, 78)):
        failure(hooks.by_hand("source-by-sender", line, env=env), status, *env.values())
    if not os.path.exists("/etc/smtpwarp/source.table"):
        failure(hooks.by_hand("source-by-sender", line), 78, "SOURCE_TABLE", "REPUTATION_DB")


def test_database_without_the_table_or_busy(tmp_path):
    path = tmp_path / "scores"
    env = {"REPUTATION_DB": str(path)}
    with contextlib.closing(sqlite3.connect(path)) as database, database:
        database.execute("CREATE TABLE other (x)")
    failure(hooks.by_hand("source-by-sender", hooks.sample("mail"), env=env), 75, "reputation")


def test_line_that_is_no_json(tmp_path):
    (tmp_path / "table").write_text("* 192.0.2.1\n")
    for env in {"SOURCE_TABLE": str(tmp_path / "table")}, {"REPUTATION_DB": str(tmp_path / "table")}:
        done = hooks.by_hand("source-by-sender", b"no json\n", env=env)
        assert (done.returncode, done.stdout) == (65, b"")


# source-by-sender, through smtpwarp, between two hosts

FOURS, SIXES = ["10.0.0.11", "10.0.0.12", "10.0.0.13"], ["fd00::11", "fd00::12", "fd00::13"]


class Server(peers.MailServer):
    """Notes where connections come from, as a server sees it."""

    def __init__(self, *args, **options):
        self.sources = []
        super().__init__(*args, **options)

    def _serve(self, peer):
        self.sources.append(peer.sock.getpeername()[0])
        super()._serve(peer)


@pytest.fixture
def network(tmp_path):
    """(make, servers): make(*options, event=) starts a smtpwarp on a client host of many addresses; servers are one for
    each family on the other host."""
    with contextlib.ExitStack() as closing:
        here, there = closing.enter_context(netns.pair())
        here.ip(*(f"addr add {address}/24 dev veth0" for address in FOURS),     # deprecated: the kernel chooses others
                *(f"addr add {address}/64 dev veth0 nodad preferred_lft 0" for address in SIXES))
        with there:
            servers = [Server(address=address, port=25) for address in (there.ip4, there.ip6)]
        for server in servers:
            closing.callback(server.close)
        closing.enter_context(here)
        placed = hooks.Hooks(tmp_path / "hooks")

        def make(*options, event="rcpt"):
            placed.link(event, "source-by-sender")
            proxy = Warp(here, tmp_path, *placed.options, "--connect-on", "recipient", *options,
                         env={"SOURCE_TABLE": str(tmp_path / "table")})
            closing.callback(proxy.close)
            return proxy.listen()
        yield make, servers


def send(proxy, sender, recipient, reply="250"):
    """A message in a session of its own."""
    client = proxy.greeted()
    client.ask(f"MAIL FROM:<{sender}>", "250")
    client.ask(f"RCPT TO:<{recipient}>", reply)
    if reply == "250":
        client.ask("DATA", "354")
        client.send_raw(b"Subject: x\r\n\r\n.\r\n")
        client.expect("250")
    client.close()


def route_table(tmp_path):
    (tmp_path / "table").write_text(f"""
alice@client.example {FOURS[0]} {SIXES[0]}
shop.example {FOURS[1]} {SIXES[1]}
to:mail.example {FOURS[2]} {SIXES[2]}
old.example {FOURS[0]}
bad.example 10.0.0.99
""")


@pytest.mark.parametrize("family, expected", [(0, [*FOURS, "10.0.0.1"]), (1, [*SIXES, "fd00::1"])],
                         ids=["ip4", "ip6"])
def test_upstream_sees_the_address_of_the_sender(network, tmp_path, family, expected):
    """By sender, by the sender's domain, by the recipient's, and by none of them."""
    route_table(tmp_path)
    make, servers = network
    proxy = make("--upstream", servers[family].name_port)
    for sender, recipient in (("alice@client.example", "bob@mail.example"), ("x@shop.example", "bob@mail.example"),
                              ("x@other.example", "bob@mail.example"), ("x@other.example", "bob@other.example")):
        send(proxy, sender, recipient)
    assert len(servers[family].messages) == 4
    assert servers[family].sources == expected
    assert [record["source"]["ip"] for record in proxy.records("connect")] == expected


def test_address_of_another_host_defers(network, tmp_path):
    """The client hears 451 4.3.5, an error record says which address; other senders are not touched."""
    route_table(tmp_path)
    make, servers = network
    proxy = make("--upstream", servers[0].name_port)
    send(proxy, "x@bad.example", "bob@other.example", "451 4.3.5")
    assert "10.0.0.99" in proxy.wait_for("error")["error"]
    assert servers[0].sources == []
    send(proxy, "x@shop.example", "bob@other.example")
    assert len(servers[0].messages) == 1


def test_address_of_the_other_family_defers(network, tmp_path):
    """An address that nobody has chosen must not be seen outside."""
    route_table(tmp_path)
    make, servers = network
    proxy = make("--upstream", servers[1].name_port)
    send(proxy, "x@old.example", "bob@other.example", "451 4.3.5")
    assert "family" in proxy.wait_for("error")["error"]
    assert servers[1].sources == []


def test_sender_alone_decides_at_mail(network, tmp_path):
    route_table(tmp_path)
    make, servers = network
    proxy = make("--upstream", servers[0].name_port, event="mail")
    send(proxy, "x@shop.example", "bob@mail.example")
    assert servers[0].sources == [FOURS[1]]


def test_recipients_from_other_addresses_are_sent_apart(network, tmp_path):
    """One sender, recipients whose domains have addresses of their own: each goes out from its own, once."""
    table = {f"d{number}.example": address for number, address in enumerate(FOURS)}
    (tmp_path / "table").write_text("".join(f"to:{domain} {address}\n" for domain, address in table.items()))
    make, servers = network
    proxy = make("--upstream", servers[0].name_port)
    recipients = [f"user{number}@d{number % 3}.example" for number in range(50)]
    refused, transactions = send_honouring_452(proxy.greeted(), recipients)
    assert (refused, transactions) == ({}, 3)
    arrived = {}
    for record in proxy.records("message", result="accepted"):
        source = next(one["source"]["ip"] for one in reversed(proxy.records("connect"))
                      if one["time"] <= record["time"])
        for recipient in record["rcpt_to"]:
            if recipient["code"] == 250:
                assert recipient["address"] not in arrived
                arrived[recipient["address"]] = source
    assert arrived == {recipient: table[recipient.partition("@")[2]] for recipient in recipients}
