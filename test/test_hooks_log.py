"""The hooks that log to a file, to SQLite, to MySQL (a real MariaDB) and to Slack (an HTTPS server of the test's)."""
import contextlib
import http.server
import json
import os
import pathlib
import re
import secrets
import shutil
import sqlite3
import subprocess
import threading

import pytest

import container
import hooks
import hosts
import mariadb
import netns
import peers
from hooks import Hooks, by_hand, shipped
from waiting import wait_until

SESSIONS = 50
BASE32 = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"
STREAM = [json.loads(line) for line in (hooks.SAMPLES / "log.jsonl").read_text().splitlines()]
COUNT = {"communications": 4, "messages": 1, "connections": 1}      # rows of the sample session

# Each is a sender, a recipient, an EHLO name, a command, a reply, ... PROTOCOL 78
HOSTILE = [
    "", " ", "null", "NULL", "0", "-1", "--help", "-", ".", ".quit", "\n.shell touch owned\n", ";.quit\n", "\\", "\\\\",
    "'", "''", "\\'", "\\\\'", '"', '\\"', "`", "$(touch owned)", "`touch owned`", "; touch owned;", "%s%n",
    "\\g", "\\!",
    "'); drop table messages; --", "\\'); drop table messages; --", '"); drop table messages; --', "x' || 'y",
    "*/ drop table messages /*", "# x", "-- x", "?", ":name", "@sql", "\r\n", "\t", "\x01\x1b\x7f", "\u0085\u2028",
    "\ufffd", "sënder", "почта", "\U0001f4ee", "\\u0000", "\\\\u0000", "\\\\\\u0041", "\\ufffd", "x" * 12000,
    "é'" * 3000, "delimiter //", "source /etc/passwd", "&lt;<!channel>&", "\u202egnp.exe",
]


def session_id():
    return "0" + "".join(secrets.choice(BASE32) for _ in range(25))


def encode(*records):
    """As smtpwarp writes: a line each, UTF-8 as it is, control characters escaped."""
    lines = [json.dumps(record, ensure_ascii=False, separators=(",", ":")) for record in records]
    return "".join(line.replace("\x7f", "\\u007f") + "\n" for line in lines).encode()


def stream(text=None, session=None):
    """The events of the sample session under an ID of its own, with that text wherever a peer's text stands."""
    records = json.loads(json.dumps(STREAM))
    session = session or session_id()
    for record in records:
        record["session"] = session
        if text is not None:
            put_text(record, text)
    return records


def put_text(record, text):
    for name in "helo", "auth", "data", "message_id", "banner":
        if name in record:
            record[name] = text
    for place in [record.get("mail_from"), *(record.get("rcpt_to") or [])]:
        if place:
            place.update(address=text, params={"SIZE": text})
    if record["event"] == "message":
        record["reply"]["text"] = record["hooks"]["score"] = text


def start(name, env, **options):
    return subprocess.Popen([shipped(name)], stdin=subprocess.PIPE, stderr=subprocess.PIPE,
                            env={"PATH": os.environ["PATH"], **env}, **options)


def feed(process, lines):
    process.stdin.write(b"".join(lines))
    process.stdin.flush()


def at_once(name, env, streams, said=b""):
    """A process for each stream of lines; none gets its second half before all have had their first. said: None, anything on stderr."""
    processes = [start(name, env) for _ in streams]
    for half in slice(0, 3), slice(3, None):
        feeders = [threading.Thread(target=feed, args=(process, lines[half]))
                   for process, lines in zip(processes, streams)]
        for feeder in feeders:
            feeder.start()
        for feeder in feeders:
            feeder.join()
    ends = [(process.communicate(timeout=60)[1], process.returncode) for process in processes]
    assert [(text if said is not None else None, code) for text, code in ends] == [(said, 0)] * len(streams)


def works(name, *lines, **env):
    done = by_hand(name, b"".join(lines), env=env)
    assert (done.returncode, done.stderr, done.stdout) == (0, b"", b"")


def fails(name, code, pattern, *lines, **env):
    """It fails by that exit code, and the last line it says fits the pattern."""
    done = by_hand(name, b"".join(lines), env=env)
    assert done.returncode == code, done.stderr
    assert re.match(f"{name}: .*{pattern}", done.stderr.decode().splitlines()[-1]), done.stderr
    return done.stderr.decode()


def command_lines():
    """What any user sees of all processes."""
    for path in pathlib.Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):
            yield path.read_bytes().replace(b"\0", b" ").decode(errors="replace")


# file

def test_file_gets_the_stream(tmp_path):
    path = tmp_path / "log"
    first, second = encode(*stream()), encode(*stream("ä'\\\n"))
    for part in first, second, b"":
        works("file", part, FILE_PATH=str(path))
    assert path.read_bytes() == first + second
    assert path.stat().st_mode & 0o777 == 0o640


def test_file_of_many_sessions(tmp_path):
    """Lines of 200 octets to 100 KB from 50 processes: whole, none lost, in order within each session."""
    streams = []
    for session in [session_id() for _ in range(SESSIONS)]:
        streams.append([encode({"session": session, "number": i, "data": "xyz"[i % 3] * (100_000 if i % 2 else 200)})
                        for i in range(8)])
    at_once("file", {"FILE_PATH": str(tmp_path / "log")}, streams)
    lines = (tmp_path / "log").read_bytes().splitlines(keepends=True)
    assert sorted(lines) == sorted(line for lines in streams for line in lines)
    seen = {}
    for line in map(json.loads, lines):
        assert line["number"] == seen.get(line["session"], -1) + 1
        seen[line["session"]] = line["number"]


def test_file_gets_a_line_by_one_write(tmp_path):
    """Which the kernel does not mix with others."""
    lines = [encode({"data": "x" * size}) for size in (10, 4096, 65536, 100_000, 2 << 20, 10)]
    subprocess.run(["strace", "-f", "-o", tmp_path / "trace", "-e", "trace=write", "-e", "signal=none",
                    shipped("file")], input=b"".join(lines), check=True,
                   env={"PATH": os.environ["PATH"], "FILE_PATH": str(tmp_path / "log")})
    written = re.findall(r"write\(1, .* = (\d+)$", (tmp_path / "trace").read_text(), re.M)
    assert list(map(int, written)) == [len(line) for line in lines]


def test_file_line_is_there_at_once(tmp_path):
    process = start("file", {"FILE_PATH": str(tmp_path / "log")})
    lines = [encode(record) for record in stream()]
    for count, line in enumerate(lines, 1):
        feed(process, [line])
        wait_until(lambda: (tmp_path / "log").exists() and
                   (tmp_path / "log").read_bytes() == b"".join(lines[:count]))     # pylint: disable=cell-var-from-loop
    assert process.communicate(timeout=60)[1] == b""


def test_file_rotation(tmp_path):
    """A session under way goes on in the renamed file, the next one makes the new; none of it is lost."""
    path, lines = tmp_path / "log", [encode(record) for record in stream()]
    process = start("file", {"FILE_PATH": str(path)})
    feed(process, lines[:2])
    wait_until(lambda: path.exists() and path.read_bytes() == b"".join(lines[:2]))
    path.rename(tmp_path / "log.1")
    works("file", *lines, FILE_PATH=str(path))
    feed(process, lines[2:])
    assert (process.communicate(timeout=60)[1], process.returncode) == (b"", 0)
    assert (tmp_path / "log.1").read_bytes() == path.read_bytes() == b"".join(lines)


def test_file_rotation_by_copytruncate(tmp_path):
    path, lines = tmp_path / "log", [encode(record) for record in stream()]
    process = start("file", {"FILE_PATH": str(path)})
    feed(process, lines[:2])
    wait_until(lambda: path.exists() and path.read_bytes() == b"".join(lines[:2]))
    os.truncate(path, 0)
    feed(process, lines[2:])
    assert (process.communicate(timeout=60)[1], process.returncode) == (b"", 0)
    assert path.read_bytes() == b"".join(lines[2:])


def test_file_fails(tmp_path):
    fails("file", 78, "FILE_PATH", encode(*STREAM))
    fails("file", 78, "cannot append to .*/no/such", encode(*STREAM), FILE_PATH=str(tmp_path / "no/such"))
    fails("file", 75, "/dev/full", encode(*STREAM), FILE_PATH="/dev/full")
    works("file", encode(*STREAM), FILE_PATH=f"{tmp_path}/$(touch owned) -e")
    assert os.listdir(tmp_path) == ["$(touch owned) -e"]


def test_file_that_a_full_disk_has_cut(tmp_path):
    """No line follows within half of another one."""
    small, lines = tmp_path / "small", [encode(record) for record in stream()]
    small.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=16k", "tmpfs", small], check=True)
    try:
        fails("file", 75, "not everything could be written", b"".join(lines * 20), FILE_PATH=str(small / "log"))
        half = (small / "log").read_bytes()
        assert half and not half.endswith(b"\n")
        subprocess.run(["mount", "-o", "remount,size=1m", small], check=True)
        works("file", b"".join(lines), FILE_PATH=str(small / "log"))
        works("file", b"".join(lines), FILE_PATH=str(small / "log"))
        assert (small / "log").read_bytes() == half + b"\n" + b"".join(lines * 2)
    finally:
        subprocess.run(["umount", small], check=True)


# Databases. What is the same for both is tested with both.

class SQLite:
    """A file."""

    name, nul = "sqlite", "\ufffd"
    warp = """
        create table connections (id text primary key, mail_from text, mail_to text,
            occurred_at datetime default CURRENT_TIMESTAMP, elapse integer);
        create table communications (id text primary key, connection_id text, direction text, data text,
            occurred_at datetime default CURRENT_TIMESTAMP)"""

    def __init__(self, directory):
        self.path = directory / "log.sqlite"
        self.dsn = str(self.path)

    def has(self, table):
        if not self.path.exists():
            return False
        with contextlib.closing(sqlite3.connect(self.path)) as connection:
            return connection.execute("select 1 from sqlite_master where name = ?", (table,)).fetchone() is not None

    def rows(self, table):
        """Each row a dict; all values are text or None. None before the hook has made its tables."""
        if not self.has(table):
            return []
        with contextlib.closing(sqlite3.connect(self.path)) as connection:
            connection.row_factory = sqlite3.Row
            return [{name: row[name] if row[name] is None else str(row[name]) for name in row.keys()}
                    for row in connection.execute(f"select * from {table} order by rowid")]

    def execute(self, statements):
        with contextlib.closing(sqlite3.connect(self.path)) as connection:
            connection.executescript(statements)


class MySQL:
    """A database of the server."""

    name, nul = "mysql", "\0"
    warp = """
        create table connections (id varchar(26) not null default '', mail_from varchar(512) default null,
            mail_to varchar(512) default null, occurred_at timestamp(6) not null default current_timestamp(6),
            elapse bigint, primary key (id)) engine=innodb default charset=utf8mb4;
        create table communications (id varchar(26) not null default '', connection_id varchar(26) not null default '',
            direction varchar(2) not null default '', data text,
            occurred_at timestamp(6) not null default current_timestamp(6), primary key (id))
            engine=innodb default charset=utf8mb4"""

    def __init__(self, server):
        self.server, self.database = server, f"warp_{secrets.token_hex(4)}"
        server.sql(f"create database {self.database}; grant all on {self.database}.* to warp;"
                   f"grant select, insert on {self.database}.* to reader")
        self.dsn = f"warp:{mariadb.PASSWORD}@unix({server.socket})/{self.database}"

    def rows(self, table):
        names = self.server.sql("select column_name from information_schema.columns where table_schema = database() "
                                f"and table_name = '{table}' order by ordinal_position", self.database).split()
        if not names:       # the hook has not made its tables yet
            return []
        values = ", '|', ".join(f"ifnull(hex(convert({name} using utf8mb4)), '-')" for name in names)
        text = self.server.sql(f"select concat({values}) from {table} order by id", self.database)
        return [dict(zip(names, [None if value == "-" else bytes.fromhex(value).decode() for value in line.split("|")]))
                for line in text.splitlines()]

    def execute(self, statements):
        self.server.sql(statements, self.database)


@pytest.fixture(scope="module", name="server")
def fixture_server(certs):
    with netns.single() as namespace, mariadb.Server(namespace, *certs.pair("localhost")) as server:
        server.sql("create user reader@'%' identified by ''")
        yield server


@pytest.fixture(name="database", params=["sqlite", "mysql"])
def fixture_database(request, tmp_path):
    return SQLite(tmp_path) if request.param == "sqlite" else MySQL(request.getfixturevalue("server"))


def log_to(database, *lines):
    works(database.name, *lines, DSN=database.dsn)


def test_tables(database):
    """Warp's columns and ours, of the sample session."""
    log_to(database, encode(*STREAM))
    connection, = database.rows("connections")
    session = STREAM[0]["session"]
    assert connection["occurred_at"].replace("T", " ") == "2026-11-20 20:59:11.990900"
    expected = {"id": session, "mail_from": "alice@client.example", "mail_to": "carol@mail.example", "elapse": "178",
                "client_ip": "10.0.0.1", "client_port": "56456", "client_tls": None, "server_ip": "10.0.0.2",
                "server_port": "25", "server_tls": "TLSv1.2", "server_cipher": "TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256",
                "server_verified": "0", "helo": "client.example", "auth": None, "messages": "1", "recipients": "2",
                "errors": "0", "client_in": "811", "client_out": "402", "server_in": "530", "server_out": "760",
                "connect_ms": "0.312", "banner_ms": "4.101", "tls_ms": "2.511", "duration_ms": "203.114",
                "closed_by": "client", "reason": "QUIT", "hooks": '{"score":"-0.1"}', "log_dropped": "0"}
    assert {**connection, "occurred_at": None} == {**expected, "occurred_at": None}
    rows = database.rows("communications")
    assert [(row["direction"], row["data"]) for row in rows] == [
        ("--", "connected to 10.0.0.2:25"), ("->", "MAIL FROM:<alice@client.example> SIZE=512"),
        ("<-", "250 2.1.0 Ok"), ("--", "data 50-rspamd: accept ")]
    assert {row["connection_id"] for row in rows} == {session}
    assert all(re.fullmatch(f"[{BASE32}]{{26}}", row["id"]) for row in rows)
    assert len({row["id"] for row in rows}) == 4
    assert [row["occurred_at"][-15:] for row in rows] == ["20:59:11.901000", "20:59:11.910000", "20:59:11.911000",
                                                         "20:59:11.940000"]
    message, = database.rows("messages")
    assert json.loads(message.pop("recipients")) == STREAM[4]["rcpt_to"]
    assert re.fullmatch(f"[{BASE32}]{{26}}", message.pop("id"))
    assert message.pop("occurred_at").replace("T", " ") == "2026-11-20 20:59:11.980000"
    assert message == {"connection_id": session, "client_ip": "10.0.0.1", "server_ip": "10.0.0.2",
                       "helo": "client.example", "auth": None, "mail_from": "alice@client.example",
                       "mail_to": "bob@mail.example carol@mail.example", "size": "490",
                       "message_id": "<20261120205911.009445@client.example>", "result": "accepted", "code": "250",
                       "enhanced": "2.0.0", "reply": "2.0.0 Ok: queued as EC62DAA2530", "mail_ms": "25.127",
                       "rcpt_ms": "5.247", "data_ms": "178.027", "accept_ms": "4.941", "hooks": '{"score":"-0.1"}'}


def test_both_databases_have_the_same(tmp_path, server):
    """So that the two lists of columns cannot drift apart; the rows are of all kinds of events."""
    events = [*stream("x"), *stream()[:2], {**STREAM[0], "event": "tls", "result": "ok", "version": "TLSv1.2"},
              {**STREAM[0], "event": "error", "error": "it's broken"}, *stream()[2:]]
    session = session_id()
    for event in events[:-1]:
        event["session"] = session
    databases = SQLite(tmp_path), MySQL(server)
    for database in databases:
        log_to(database, encode(*events))
    for table in COUNT:
        rows = [sorted(comparable(row) for row in database.rows(table)) for database in databases]
        assert rows[0] == rows[1]
        assert rows[0]


def comparable(row):
    """Columns sorted by name; the databases write times and JSON each in their way."""
    row = {**row, "occurred_at": row["occurred_at"].replace(" ", "T")}
    return str(sorted((name, json.dumps(json.loads(value)) if (value or "")[:1] in ("{", "[") else value)
                      for name, value in row.items()))


def check_texts(database, texts):
    """The very text is in every column that it belongs to, and nothing else has happened."""
    sessions = {session_id(): text for text in texts}
    log_to(database, *[encode(*stream(text, session)) for session, text in sessions.items()])
    for row in database.rows("connections"):
        text = sessions[row["id"]]
        assert [row["helo"], row["auth"], row["mail_from"], row["mail_to"]] == [text, text, *[cut(database, text)] * 2]
    for row in database.rows("messages"):
        text = sessions[row["connection_id"]]
        assert {row[name] for name in ("helo", "auth", "mail_from", "message_id", "reply")} == {text}
        assert row["mail_to"] == f"{text} {text}"
        assert [entry["address"] for entry in json.loads(row["recipients"])] == [text] * 2
        assert json.loads(row["hooks"]) == {"score": text}
    for row in database.rows("communications"):
        if row["direction"] != "--":
            assert row["data"] == sessions[row["connection_id"]]
    assert {table: len(database.rows(table)) for table in COUNT} == {
        table: count * len(texts) for table, count in COUNT.items()}


def cut(database, text):
    """Warp's columns for addresses have a length in MySQL."""
    return text[:512] if database.name == "mysql" else text


def test_78_hostile_text(database, tmp_path, monkeypatch):
    """PROTOCOL 78"""
    monkeypatch.chdir(tmp_path)
    check_texts(database, HOSTILE)
    assert not (tmp_path / "owned").exists()


@pytest.mark.parametrize("mode", ["NO_BACKSLASH_ESCAPES", "ANSI_QUOTES,PIPES_AS_CONCAT,NO_BACKSLASH_ESCAPES", "ORACLE",
                                  ""])
def test_78_hostile_text_in_other_modes_of_mysql(server, mode):
    """PROTOCOL 78"""
    mode_before = server.sql("select @@global.sql_mode").strip()
    server.sql(f"set global sql_mode = '{mode}'")
    try:
        check_texts(MySQL(server), [text for text in HOSTILE if "'" in text or "\\" in text or '"' in text])
    finally:
        server.sql(f"set global sql_mode = '{mode_before}'")


def test_nul(database):
    """SQLite's JSON functions end a string at NUL, so there it is U+FFFD; what follows is not lost."""
    texts = ["\0", "a\0b", "\0\0\0'\0", "\\\0", "\\\\\0x", "x\\u0000\0"]
    sessions = {session_id(): text for text in texts}
    log_to(database, *[encode(*stream(text, session)) for session, text in sessions.items()])
    assert {row["connection_id"]: row["reply"] for row in database.rows("messages")} == {
        session: text.replace("\0", database.nul) for session, text in sessions.items()}


def test_many_recipients(database):
    """A line of 2 MB."""
    record = stream()[4]
    record["rcpt_to"] = [{"address": f"{i}{'r' * 190}@mail.example", "params": {}, "code": 250, "enhanced": None}
                         for i in range(8000)]
    log_to(database, encode(record))
    row, = database.rows("messages")
    assert json.loads(row["recipients"]) == record["rcpt_to"]
    assert row["mail_to"].split() == [entry["address"] for entry in record["rcpt_to"]]


def test_null_sender_and_no_message(database):
    """PROTOCOL 22: the null sender is empty; Warp's word for no message at all is unknown."""
    bounce, none = stream(), stream()
    bounce[4]["mail_from"]["address"] = ""
    del none[4]
    log_to(database, encode(*bounce))
    log_to(database, encode(*none))
    rows = {row["id"]: (row["mail_from"], row["mail_to"], row["elapse"]) for row in database.rows("connections")}
    assert rows == {bounce[0]["session"]: ("", "carol@mail.example", "178"),
                    none[0]["session"]: ("unknown", "unknown", None)}


def test_tables_of_warp(database):
    """They are taken over: Warp's rows stay, the columns that are missing are added."""
    database.execute(database.warp)
    database.execute("insert into connections (id, mail_from, mail_to, elapse) values ('old', 'a', 'b', 7);"
                     "insert into communications (id, connection_id, direction, data) values ('1', 'old', '->', 'x')")
    log_to(database, encode(*stream("very 'new'")))
    old, new = sorted(database.rows("connections"), key=lambda row: row["id"] != "old")
    assert (old["mail_from"], old["mail_to"], old["elapse"], old["client_ip"]) == ("a", "b", "7", None)
    assert (new["mail_from"], new["elapse"], new["client_ip"]) == ("very 'new'", "178", "10.0.0.1")
    assert {row["data"] for row in database.rows("communications")} >= {"x", "very 'new'"}


@pytest.mark.parametrize("state", ["new", "warp's"])
def test_many_sessions_at_once(database, state):
    """All of them find the tables missing, or without our columns, and no row is lost. (sqlite: the real sqlite3.)"""
    if state != "new":
        database.execute(database.warp)
    sessions = [session_id() for _ in range(SESSIONS)]
    at_once(database.name, {"DSN": database.dsn},
            [[encode(record) for record in stream(f"text of {session}", session)] for session in sessions])
    assert sorted(row["id"] for row in database.rows("connections")) == sorted(sessions)
    for table in "messages", "communications":
        rows = database.rows(table)
        assert sorted(row["connection_id"] for row in rows) == sorted(sessions * COUNT[table])
        assert len({row["id"] for row in rows}) == len(rows)
    assert {row["reply"] for row in database.rows("messages")} == {f"text of {session}" for session in sessions}
    if database.name == "sqlite":
        assert database.path.read_bytes()[18:20] == b"\2\2"    # the file's header says WAL


def test_rows_while_the_session_goes_on(database):
    """What led to a message is there with it; what follows, with the end."""
    log_to(database)        # an empty stream makes the tables
    process = start(database.name, {"DSN": database.dsn})
    records = stream()
    feed(process, [encode(*records[1:3])])
    feed(process, [encode(records[4])])
    wait_until(lambda: database.rows("messages"))
    assert len(database.rows("communications")) == 2
    feed(process, [encode(records[1], records[2])])
    assert (process.communicate(timeout=60)[1], process.returncode) == (b"", 0)
    assert len(database.rows("communications")) == 4
    assert database.rows("connections") == []       # no `close` has come


def test_failed_writes_are_told(database):
    lines = encode(*stream())
    log_to(database, lines)
    fails(database.name, 75, "(UNIQUE|Duplicate)", lines, DSN=database.dsn)
    fails(database.name, 75, "(JSON|jq: error)", encode(*stream()), b"{\n", DSN=database.dsn)
    fails(database.name, 78, "set DSN", lines)
    database.execute("alter table messages rename to gone; create view messages as select 1 as id")
    fails(database.name, 75, "messages", encode(*stream()), DSN=database.dsn)


def test_close_alone(database):
    """As a hook of `close`."""
    log_to(database, encode(json.loads((hooks.SAMPLES / "close.json").read_text())))
    row, = database.rows("connections")
    assert (row["mail_from"], row["client_in"], row["reason"]) == ("unknown", "811", "QUIT")


@pytest.mark.parametrize("form", ["{}", "file:{}", "file:{}?mode=rwc", "{}?_pragma=busy_timeout(5000)"])
def test_dsn_of_sqlite(tmp_path, form):
    database = SQLite(tmp_path)
    works("sqlite", encode(*stream()), DSN=form.format(database.path))
    assert len(database.rows("messages")) == 1
    assert os.listdir(tmp_path) == ["log.sqlite"]


@pytest.mark.parametrize("path", ["-help", ".dump", "a b'c\"$(touch owned)"])
def test_odd_relative_path_of_sqlite(tmp_path, monkeypatch, path):
    monkeypatch.chdir(tmp_path)
    works("sqlite", encode(*stream()), DSN=path)
    assert os.listdir(tmp_path) == [path]


def test_sqlite_waits_for_other_writers(tmp_path):
    """A second's lock costs no row, and what only gathers does not wait for it. In WAL mode readers never wait."""
    database, records = SQLite(tmp_path), stream()
    works("sqlite", DSN=database.dsn)
    process = start("sqlite", {"DSN": database.dsn})
    with contextlib.closing(sqlite3.connect(database.path, isolation_level=None)) as other:
        other.execute("begin immediate")
        feeder = threading.Thread(target=feed, args=(process, [encode(records[1])] * 1000), daemon=True)
        feeder.start()
        feeder.join(peers.TIMEOUT)
        assert not feeder.is_alive()        # 500 KB, more than the pipes hold
        feed(process, [encode(*records[4:])])
        process.stdin.close()
        with pytest.raises(subprocess.TimeoutExpired):
            process.wait(1)
        assert database.rows("communications") == database.rows("messages") == []
        other.execute("commit")
    assert process.wait(60) == 0
    assert [len(database.rows(table)) for table in COUNT] == [1000, 1, 1]


def test_sqlite_that_cannot_be_written(tmp_path):
    (tmp_path / "text").write_text("no database " * 100)
    fails("sqlite", 75, "not a database", encode(*STREAM), DSN=str(tmp_path / "text"))
    fails("sqlite", 75, "unable to open", encode(*STREAM), DSN=str(tmp_path / "no/such"))
    log_to(SQLite(tmp_path), encode(*STREAM))
    assert (tmp_path / "log.sqlite").stat().st_mode & 0o777 == 0o640
    fails("sqlite", 75, "readonly", encode(*stream()), DSN=f"file:{tmp_path}/log.sqlite?mode=ro")


def test_sqlite_reads_no_settings_of_the_user(tmp_path):
    home, database = tmp_path / "home", SQLite(tmp_path)
    home.mkdir()
    (home / ".sqliterc").write_text("create table owned (x);\n")
    script = f"mount --bind {home} $(getent passwd $(id -u) | cut -d: -f6) && exec $0"
    subprocess.run(["unshare", "--mount", "sh", "-c", script, shipped("sqlite")], input=encode(*STREAM), check=True,
                   env={"PATH": os.environ["PATH"], "DSN": database.dsn})
    assert len(database.rows("messages")) == 1
    assert not database.has("owned")


# MySQL alone

def mysql_by_tcp(server, dsn, *lines, **env):
    with server.host:
        return by_hand("mysql", b"".join(lines), env={"DSN": dsn, **env})


@pytest.mark.parametrize("address", ["tcp(127.0.0.1:3306)", "tcp(localhost:3306)", "tcp(127.0.0.1)"])
@pytest.mark.parametrize("parameters", ["", "?parseTime=true&loc=Local", "?tls=preferred"])
def test_dsn_of_mysql(server, address, parameters):
    database = MySQL(server)
    done = mysql_by_tcp(server, f"warp:{mariadb.PASSWORD}@{address}/{database.database}{parameters}", encode(*stream()))
    assert (done.returncode, done.stderr) == (0, b"")
    assert len(database.rows("messages")) == 1


def test_tls_of_mysql(server, certs):
    """tls=true accepts the certificate of a known CA for the right name only."""
    database = MySQL(server)
    account = f"warp:{mariadb.PASSWORD}"
    server.sql("alter user warp require ssl")
    try:
        for host, ca, code in ("localhost", certs.ca, 0), ("127.0.0.1", certs.ca, 75), ("localhost", "", 75):
            done = mysql_by_tcp(server, f"{account}@tcp({host}:3306)/{database.database}?tls=true", encode(*stream()),
                                **({"SSL_CERT_FILE": str(ca)} if ca else {}))
            assert done.returncode == code, (host, ca, done.stderr)
    finally:
        server.sql("alter user warp require none")
    assert len(database.rows("messages")) == 1
    fails("mysql", 78, "tls in DSN", encode(*stream()), DSN=database.dsn + "?tls=skip-verify")


def test_mysql_that_does_not_answer(server):
    database = MySQL(server)
    said = fails("mysql", 75, "Access denied", encode(*STREAM), DSN=database.dsn.replace("p\"#", "P\"#"))
    assert "$(id)" not in said
    fails("mysql", 75, "denied .*to database", encode(*STREAM), DSN=database.dsn + "x")
    fails("mysql", 75, "6 rows are lost: ERROR 2002 .*Can't connect", encode(*STREAM), DSN="u:p@unix(/no/such)/db", MYSQL_PATIENCE="0")
    fails("mysql", 78, "MYSQL_PATIENCE", encode(*STREAM), DSN="u:p@unix(/no/such)/db", MYSQL_PATIENCE="1s")
    for dsn in "warp", "warp:x@tcp(h:1)/", "warp:x@pipe(h)/db", "a\nb/c":
        fails("mysql", 78, "DSN", encode(*STREAM), DSN=dsn)


def test_mysql_user_who_may_not_create_tables(server):
    database = MySQL(server)
    dsn = f"reader@unix({server.socket})/{database.database}"
    fails("mysql", 75, "CREATE command denied", encode(*stream()), DSN=dsn)
    log_to(database, encode(*stream()))
    works("mysql", encode(*stream()), DSN=dsn)
    assert len(database.rows("messages")) == 2


def test_password_of_mysql_is_not_seen(server):
    database = MySQL(server)
    process = start("mysql", {"DSN": database.dsn})
    feed(process, [encode(*STREAM[:5])])
    wait_until(lambda: database.server.sql(f"show tables from {database.database}").count("\n") == 3 and
               database.rows("messages"))
    seen = list(command_lines())
    process.communicate(timeout=60)
    assert any("defaults-file" in line for line in seen)
    assert not [line for line in seen if "$(id) `id`" in line]


# Slack

TOKEN = "xoxb-4711-secret"


class Slack:
    """An HTTPS server that keeps what it is sent, and answers (status, header, body) as told, then that all is well."""

    fine = 200, {}, {"ok": True, "ts": "1.2"}

    def __init__(self, context):
        self.requests, self.answers = [], []
        self.go_on = threading.Event()      # until it is set nobody gets an answer
        self.go_on.set()
        outer = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_POST(self):              # pylint: disable=invalid-name; the library wants it so
                body = self.rfile.read(int(self.headers["Content-Length"]))
                outer.requests.append((self.path, dict(self.headers), json.loads(body)))
                outer.go_on.wait(60)
                status, headers, answer = outer.answers.pop(0) if outer.answers else outer.fine
                with contextlib.suppress(OSError):      # curl has given up
                    self.send_response(status)
                    for header in headers.items():
                        self.send_header(*header)
                    self.end_headers()
                    self.wfile.write(json.dumps(answer).encode())

            def log_message(self, *_):      # pylint: disable=arguments-differ
                pass

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.socket = context.wrap_socket(self.server.socket, server_side=True)
        self.url = f"https://localhost:{self.server.server_port}/api/chat.postMessage"
        self.thread = threading.Thread(target=self.server.serve_forever, args=(0.01,), daemon=True)
        self.thread.start()

    @property
    def texts(self):
        return [body["text"] for _, _, body in self.requests]

    def close(self):
        self.go_on.set()
        self.server.shutdown()
        self.thread.join()
        self.server.server_close()


@pytest.fixture(name="slack")
def fixture_slack(host, certs):     # pylint: disable=unused-argument; the namespace that it listens in
    with contextlib.closing(Slack(certs.context("localhost"))) as slack:
        slack.env = {"SLACK_TOKEN": TOKEN, "SLACK_CHANNEL": "#mail", "SLACK_URL": slack.url,
                     "CURL_CA_BUNDLE": str(certs.ca)}
        yield slack


SAMPLE_POST = ("`alice@client.example` => `bob@mail.example`, `carol@mail.example` (178 msec): accepted, "
               "`250 2.0.0 Ok: queued as EC62DAA2530`, 490 octets "
               "[`10.0.0.1` to `10.0.0.2`, session 01M7XC341EM1X1D0XBD3DX3356]")


def test_slack_gets_a_post_for_a_message(slack):
    works("slack", encode(*STREAM), **slack.env)
    (path, headers, body), = slack.requests
    assert path == "/api/chat.postMessage"
    assert headers["Authorization"] == f"Bearer {TOKEN}"
    assert headers["Content-Type"] == "application/json; charset=utf-8"
    assert body == {"channel": "#mail", "text": SAMPLE_POST, "unfurl_links": False, "unfurl_media": False}


def test_slack_gets_errors_and_wanted_results(slack):
    rejected = {**STREAM[4], "result": "rejected", "reply": {"code": 550, "enhanced": "5.7.1", "text": "5.7.1 no"},
                "data_ms": None}
    aborted = {**STREAM[4], "result": "aborted", "reply": None, "rcpt_to": []}
    error = {**STREAM[0], "event": "error", "error": "no route to host", "server": None}
    works("slack", encode(rejected, STREAM[4], aborted, error), **slack.env, SLACK_RESULTS="rejected aborted")
    assert [text.split(" [")[0] for text in slack.texts] == [
        "`alice@client.example` => `bob@mail.example`, `carol@mail.example`: rejected, `550 5.7.1 no`, 490 octets",
        "`alice@client.example` => nobody (178 msec): aborted, 490 octets",
        "Error: `no route to host`"]


def test_78_hostile_text_for_slack(slack, tmp_path, monkeypatch):
    """It cannot leave the code that it stands in, call anybody, or be long. PROTOCOL 78"""
    monkeypatch.chdir(tmp_path)
    texts = [text for text in HOSTILE if text] + ["<!channel> & <http://x|y>", "a`b` *c*", "\0`\0"]
    works("slack", *[encode(stream(text)[4]) for text in texts], **slack.env)
    assert len(slack.requests) == len(texts)
    for text, post in zip(texts, slack.texts):
        shown = re.sub("[\0-\x1f\x7f`]", " ", text[:300])
        for character, entity in ("&", "&amp;"), ("<", "&lt;"), (">", "&gt;"):
            shown = shown.replace(character, entity)
        assert post.startswith(f"`{shown}` => `{shown}`, `{shown}` (178 msec): accepted, `250 ")
        assert "<" not in post and len(post) < 3000
    assert not os.listdir(tmp_path)


def test_slack_and_many_recipients(slack):
    record = {**STREAM[4], "rcpt_to": [{"address": f"r{i}@mail.example", "params": {}} for i in range(1000)]}
    works("slack", encode(record), **slack.env)
    assert "`r9@mail.example` and 990 more (178 msec)" in slack.texts[0]


@pytest.mark.parametrize("status, headers", [(503, {}), (429, {"Retry-After": "1"})])
def test_slack_that_is_busy_is_asked_again(slack, status, headers):
    slack.answers = [(status, headers, {"ok": False, "error": "busy"})]
    works("slack", encode(*STREAM), **slack.env)
    assert slack.texts == [SAMPLE_POST] * 2


def test_slack_that_refuses(slack):
    """What was not posted is told; the next post is tried all the same."""
    slack.answers = [(200, {}, {"ok": False, "error": "channel_not_found"})]
    fails("slack", 75, '1 not posted: .*"channel_not_found"', encode(STREAM[4], STREAM[4]), **slack.env)
    assert len(slack.requests) == 2
    fails("slack", 75, "1 not posted: .*certificate", encode(*STREAM), **{**slack.env, "CURL_CA_BUNDLE": ""})
    fails("slack", 75, "1 not posted: .*match", encode(*STREAM),
          **{**slack.env, "SLACK_URL": slack.url.replace("localhost", "127.0.0.1")})
    fails("slack", 75, "1 not posted: .*connect", encode(*STREAM), **{**slack.env, "SLACK_URL": "https://localhost:1/"})
    fails("slack", 75, "not JSON", b"{\n", **slack.env)
    assert len(slack.requests) == 2


@pytest.mark.parametrize("name", ["SLACK_TOKEN", "SLACK_CHANNEL"])
def test_slack_without_settings(slack, name):
    fails("slack", 78, f"set {name}", encode(*STREAM), **{**slack.env, name: ""})
    assert not slack.requests


def test_slack_and_a_token_that_is_none(slack):
    said = fails("slack", 78, "SLACK_TOKEN", encode(*STREAM), **{**slack.env, "SLACK_TOKEN": 'x"\nurl = "http://x'})
    assert 'url' not in said
    assert not slack.requests


def test_token_of_slack_is_not_seen(slack, tmp_path):
    """Nor does curl read the user's settings."""
    (tmp_path / ".curlrc").write_text("verbose\n")
    slack.go_on.clear()
    process = start("slack", {**slack.env, "HOME": str(tmp_path)})
    feed(process, [encode(*STREAM)])
    wait_until(lambda: slack.requests)
    seen = list(command_lines())
    slack.go_on.set()
    assert (process.communicate(timeout=60)[1], process.returncode) == (b"", 0)
    assert any(slack.url in line for line in seen)
    assert not [line for line in seen if TOKEN in line]


# With smtpwarp

def say(client, sender, recipient, helo="client.example", body=b"Subject: x\r\n\r\nx\r\n.\r\n"):
    """A session with a message."""
    client.expect("220")
    client.ask(f"EHLO {helo}")
    client.ask(f"MAIL FROM:<{sender}>")
    client.ask(f"RCPT TO:<{recipient}>")
    client.ask("DATA", "354")
    client.send_raw(body)
    reply = client.reply()
    client.ask("QUIT", "221")
    client.expect_end()
    return reply


SPEECH = ("\"'); drop table messages; --\"@client.example", "\"\\$(touch owned)'`\"@mail.example",
          "x'||(select`1`)--\\", "250 2.0.0 it's \\ \"fine\"; '); delete from messages; -- <!channel>")


@pytest.fixture(name="talk")
def fixture_talk(warp, mail_server, tmp_path):
    """talk(hook, env): a session by which a hostile client talks with a hostile server, logged by that hook."""
    def run(name, env):
        enabled = Hooks(tmp_path / "hooks")
        enabled.link("log", name)
        proxy = warp(*enabled.options, upstream=mail_server(replies={".": SPEECH[3]}), env=env)
        assert say(proxy.connect(), *SPEECH[:3]) == SPEECH[3]
        proxy.wait_exit()
        assert proxy.records("error") == []
        return proxy
    return run


def test_stream_of_a_session_in_a_file(talk, tmp_path):
    """What smtpwarp logs, and all commands and replies, though it is not --verbose."""
    proxy = talk("file", {"FILE_PATH": str(tmp_path / "stream")})
    wait_until(lambda: '"event":"close"' in (tmp_path / "stream").read_text())
    events = [json.loads(line) for line in (tmp_path / "stream").read_text().splitlines()]
    assert [event["event"] for event in events if event["event"] != "comm"] == ["connect", "message", "close"]
    said = [event["data"] for event in events if event["event"] == "comm"]
    assert f"MAIL FROM:<{SPEECH[0]}>" in "\n".join(said)
    assert {event["session"] for event in events} == {proxy.records("close")[0]["session"]}


def test_session_in_a_database(talk, database):
    proxy = talk(database.name, {"DSN": database.dsn})
    wait_until(lambda: database.rows("connections"))
    connection, = database.rows("connections")
    message, = database.rows("messages")
    assert (connection["id"], connection["mail_from"], connection["mail_to"], connection["helo"]) == (
        proxy.records("close")[0]["session"], *SPEECH[:3])
    assert (message["connection_id"], message["mail_from"], message["mail_to"], message["helo"], message["result"]) == (
        connection["id"], *SPEECH[:3], "accepted")
    assert message["reply"] == SPEECH[3][4:]
    assert f"RCPT TO:<{SPEECH[1]}>" in "\n".join(row["data"] for row in database.rows("communications"))


def test_sessions_at_once_in_a_database(warp, mail_server, database, tmp_path):
    enabled = Hooks(tmp_path / "hooks")
    enabled.link("log", database.name)
    proxy = warp(*enabled.options, upstream=mail_server(), env={"DSN": database.dsn}).listen()
    senders = [f"sender{number}@client.example" for number in range(SESSIONS)]
    clients = [threading.Thread(target=lambda sender: say(peers.connect("127.0.0.1", proxy.listen_port), sender,
                                                          "b@mail.example"), args=(sender,)) for sender in senders]
    for client in clients:
        client.start()
    for client in clients:
        client.join()
    wait_until(lambda: len(database.rows("connections")) == SESSIONS, timeout=60)
    assert sorted(row["mail_from"] for row in database.rows("messages")) == sorted(senders)
    connections = database.rows("connections")
    assert sorted(row["mail_from"] for row in connections) == sorted(senders)
    assert {row["log_dropped"] for row in connections} == {"0"}
    said = [row["data"] for row in database.rows("communications")]
    assert sorted(line for line in said if line.startswith("MAIL")) == sorted(f"MAIL FROM:<{name}>" for name in senders)


def test_every_row_of_many_recipients_and_messages(warp, mail_server, database, tmp_path):
    """What a session says as fast as it can: 10,000 recipients in a few segments, then 200 messages."""
    enabled = Hooks(tmp_path / "hooks")
    enabled.link("log", database.name)
    proxy = warp(*enabled.options, "--hook-timeout", 120, "--max-recipients", 10000, "--verbose", upstream=mail_server("PIPELINING"),
                 env={"DSN": database.dsn})
    client = proxy.greeted()
    commands = ["MAIL FROM:<a@client.example>", *[f"RCPT TO:<b{number}@mail.example>" for number in range(10000)], "DATA"]
    client.send(*commands)
    assert client.replies_to(354).count(250) == 10001
    for number in range(200):
        client.send_raw(b"Subject: x\r\n\r\n.\r\n")
        client.expect("250")
        client.send(f"MAIL FROM:<a{number}@client.example>", "RCPT TO:<b@mail.example>", "DATA")
        assert client.replies_to(354).count(250) == 2
    client.close()
    proxy.wait_exit()
    assert proxy.records("verdict") == []
    messages = database.rows("messages")    # one of 10,000 recipients is told in parts
    assert {row["mail_from"] for row in messages} == {"a@client.example", *[f"a{number}@client.example" for number in range(200)]}
    recipients = [rcpt["address"] for row in messages for rcpt in json.loads(row["recipients"])]
    assert len(recipients) == 10200 and len(set(recipients)) == 10001
    connection, = database.rows("connections")
    assert connection["messages"] == "200"
    told = [record for record in proxy.records() if record["event"] not in ("message", "close")]
    assert len(database.rows("communications")) + int(connection["log_dropped"]) == len(told) > 20000
    if connection["log_dropped"] == "0":    # a database that is slow costs comm records, and nothing else
        assert {row["data"] for row in database.rows("communications")} >= set(commands)


def test_mysql_is_connected_again_within_a_session(server):
    """After wait_timeout, or a restart, the server has closed the connection."""
    database = MySQL(server)
    hook = subprocess.Popen([shipped("mysql")], stdin=subprocess.PIPE, env={"PATH": os.environ["PATH"], "DSN": database.dsn})
    events = stream()
    hook.stdin.write(encode(events[0]))
    hook.stdin.flush()
    wait_until(lambda: database.rows("communications"))
    kills = server.sql(f"select concat('kill ', id, ';') from information_schema.processlist where db = '{database.database}' and user = 'warp'")
    server.sql(kills)
    hook.stdin.write(encode(*events[1:]))
    hook.stdin.close()
    assert hook.wait(60) == 0
    assert len(database.rows("connections")) == len(database.rows("messages")) == 1


def test_sqlite_says_how_many_rows_are_lost(tmp_path):
    """Those behind what it has written."""
    database, events = SQLite(tmp_path), stream()
    hook = start("sqlite", {"DSN": database.dsn})
    feed(hook, [encode(*events[:3])])
    wait_until(lambda: len(database.rows("communications")) == 3)
    database.execute("drop table communications")
    error = hook.communicate(encode(*events[3:]), timeout=60)[1].decode()
    assert hook.returncode == 75 and re.match(f"sqlite: 3 rows are lost: {database.path}: .*no such table", error), error
    fails("sqlite", 75, "6 rows are lost: .*not a database", encode(*stream()), DSN=__file__)


def test_mysql_waits_for_a_server_that_is_away(server, tmp_path):
    """While the session goes on without an end to that, and longer than five seconds behind its end."""
    database, errors = MySQL(server), tmp_path / "errors"
    with open(errors, "wb") as stderr:
        hook = subprocess.Popen([shipped("mysql")], stdin=subprocess.PIPE, stderr=stderr,
                                env={"PATH": os.environ["PATH"], "DSN": database.dsn, "MYSQL_PATIENCE": "60"})
    first, second = stream(), stream()
    feed(hook, [encode(*first)])
    wait_until(lambda: database.rows("connections"))
    server.process.terminate()      # in order: it has what it has acknowledged
    server.process.wait(60)
    try:
        feed(hook, [encode(*second[:3])])
        wait_until(lambda: errors.read_text().count("mysql: 3 rows wait: ERROR 2002") >= 2)
        feed(hook, [encode(*second[3:])])
        hook.stdin.close()
        wait_until(lambda: errors.read_text().count("mysql: 6 rows wait: ERROR 2002") >= 6)
    finally:
        server.start()
    assert hook.wait(60) == 0
    assert [len(database.rows(table)) for table in COUNT] == [2 * count for count in COUNT.values()]


def test_mysql_takes_its_turn_when_the_server_has_no_room(server):
    database = MySQL(server)
    server.sql("set global max_connections = 10")
    try:
        at_once("mysql", {"DSN": database.dsn, "MYSQL_PATIENCE": "60"}, [[encode(event) for event in stream()] for _ in range(20)], None)
    finally:
        server.sql("set global max_connections = 151")
    assert [len(database.rows(table)) for table in COUNT] == [20 * count for count in COUNT.values()]


@pytest.mark.parametrize("patience, timeout, text", [
    (0, 30, "exit status 75: mysql: 17 rows are lost: ERROR 2002 "), (60, 2, "it did not end in time: mysql: 17 rows wait: ERROR 2002 ")])
def test_rows_that_are_lost_are_in_the_log(warp, mail_server, tmp_path, patience, timeout, text):
    enabled = Hooks(tmp_path / "hooks")
    enabled.link("log", "mysql")
    proxy = warp(*enabled.options, "--hook-timeout", timeout, upstream=mail_server(),
                 env={"DSN": "u:p@unix(/no/such)/db", "MYSQL_PATIENCE": str(patience)})
    assert say(proxy.connect(), "a@client.example", "b@mail.example").code == 250
    proxy.wait_exit()
    record, = proxy.records("verdict", on="log", verdict="failed")
    assert record["text"].startswith(text), record["text"]


def test_session_in_slack(talk, slack):
    talk("slack", slack.env)
    wait_until(lambda: slack.requests)
    assert slack.texts[0].startswith("`\"'); drop table messages; --\"@client.example` => ")
    assert "&lt;!channel&gt;" in slack.texts[0]


@pytest.mark.parametrize("state", ["slow", "refusing", "gone"])
def test_session_is_not_harmed_by_slack(warp, mail_server, slack, tmp_path, state):
    """The client has all its replies before Slack has given one."""
    if state == "slow":
        slack.go_on.clear()
    slack.answers = [(200, {}, {"ok": False, "error": "invalid_auth"})]
    env = {**slack.env, **({"SLACK_URL": "https://localhost:1/"} if state == "gone" else {})}
    enabled = Hooks(tmp_path / "hooks")
    enabled.link("log", "slack")
    proxy = warp(*enabled.options, upstream=mail_server(), env=env)
    assert say(proxy.connect(), "a@client.example", "b@mail.example").code == 250
    if state != "gone":
        wait_until(lambda: slack.requests)
    slack.go_on.set()
    proxy.wait_exit()


def test_in_the_sandbox_of_the_units():
    """File and SQLite where systemd lets them write; DSN and FILE_PATH from smtpwarp.conf."""
    settings = "SMTPWARP_LOG=none\nFILE_PATH=/var/log/smtpwarp/stream\nDSN=/var/lib/smtpwarp/log.sqlite"
    with hosts.network() as net:
        net.serve()
        with container.Container(net.host.ns, settings) as machine:
            place = machine.root / "etc/smtpwarp/hooks/log"
            place.mkdir(parents=True)
            for name in "file", "sqlite":
                shutil.copy(shipped(name), place)
            machine.load("nftables-output.nft")
            machine.run("systemctl start smtpwarp-listener.socket")
            for _ in range(2):
                hosts.deliver(net.host.ns, net.mail.ip4)
            log = machine.root / "var/log/smtpwarp/stream"
            wait_until(lambda: log.exists() and log.read_text().count('"event":"close"') == 2)
            # Root who reads a database makes files beside it that are root's for a moment, and the hook could not open them.
            wait_until(lambda: not machine.run("pgrep sqlite || true").strip())
            database = SQLite(machine.root / "var/lib/smtpwarp")
            assert len(database.rows("connections")) == 2
            assert {row["mail_to"] for row in database.rows("messages")} == {"b@server.example"}
            assert machine.journal(_SYSTEMD_UNIT="smtpwarp.service", PRIORITY="3") == []
