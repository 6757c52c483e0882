"""The log: DESIGN 7, PROTOCOL 77 and 78. Every other test checks the form of its records too (warp.py)."""
import contextlib
import json
import os
import pathlib
import pwd
import re
import select
import signal
import socket
import stat
import tempfile
import threading
import time

import pytest

import peers
from hooks import Hooks
from warp import MESSAGE, NO_REPORTS, is_pending

SEND = ("EHLO client.example", "MAIL FROM:<a@b.example>", "RCPT TO:<c@d.example>", "DATA", "Subject: x", "", "y", ".",
        "QUIT")


def in_order(proxy):
    return [record["event"] for record in proxy.records()]


# Fields

def test_77_records_of_a_session(warp):
    proxy = warp()
    session = proxy.session()
    port = session.client.sock.getsockname()[1]
    session.greet("SIZE", "PIPELINING")
    session.mail("MAIL FROM:<a@b.example> SIZE=100")
    session.rcpt()
    session.data()
    session.client.send_raw(b"Subject: x\r\nMessage-ID: <one@client.example>\r\n\r\n..\r\n.\r\n")
    session.server.until(b"\r\n.\r\n")
    session.sent()
    session.quit()
    close = proxy.wait_for("close")
    assert in_order(proxy) == ["connect", "message", "close"]
    connect, message, _ = proxy.records()
    assert connect["client"] == {"ip": "127.0.0.1", "port": port, "tls": None}
    assert connect["server"] == {"ip": "127.0.0.1", "port": proxy.upstream.port, "tls": None}
    assert connect["original"] is None and connect["source"] and "server.example ESMTP" in connect["banner"]
    assert connect["banner_ms"] >= 0 and connect["connect_ms"] >= 0
    assert message["helo"] == "client.example" and message["auth"] is None
    assert message["mail_from"] == {"address": "a@b.example", "params": {"SIZE": "100"}}
    [recipient] = message["rcpt_to"]
    assert (recipient["address"], recipient["params"], recipient["enhanced"]) == ("to@server.example", {}, "2.1.5")
    assert message["message_id"] in ("<one@client.example>", "one@client.example")
    assert message["result"] == "accepted" and "taken" in message["reply"]["text"]
    for name in "mail_ms", "rcpt_ms", "data_ms", "accept_ms":
        assert message[name] >= 0, name
    assert close["messages"] == 1 and close["recipients"] == 1 and close["errors"] == 0
    assert close["client_in"] == len(b"EHLO client.example\r\nMAIL FROM:<a@b.example> SIZE=100\r\n"
                                     b"RCPT TO:<to@server.example>\r\nDATA\r\nSubject: x\r\n"
                                     b"Message-ID: <one@client.example>\r\n\r\n..\r\n.\r\nQUIT\r\n")
    assert close["client_out"] == len(session.client.got)
    assert close["server_in"] > 0 and close["server_out"] == len(session.server.got)
    assert close["by"] == "client" and close["duration_ms"] > 0 and isinstance(close["reason"], str)
    assert len({record["session"] for record in proxy.records()}) == 1
    times = [record["time"] for record in proxy.records()]
    assert times == sorted(times)


def test_77_size_is_that_of_the_message(warp):
    proxy = warp()
    session = proxy.session()
    session.greet()
    session.transaction(b"12345678\r\n..\r\n.\r\n")
    assert proxy.wait_for("message")["size"] in (13, 14)     # with or without the dot's stuffing


def test_77_timings(warp):
    """They measure what they say: 100 ms of waiting are in the right one."""
    waits = {"mail_ms": "MAIL FROM:<a@b.example>", "rcpt_ms": "RCPT TO:<c@d.example>", "data_ms": "DATA"}
    for name, command in waits.items():
        proxy = warp()
        session = proxy.session()
        session.greet()
        for line in waits.values():
            session.client.send(line)
            session.server.expect_line(line)
            if line == command:
                session.client.silent(0.1)
            session.server.send("354 go on" if line == "DATA" else "250 2.0.0 fine")
            session.client.expect("2", "3")
        session.body()
        session.dot()
        session.sent()
        record = proxy.wait_for("message")
        slow = {key for key in ("mail_ms", "rcpt_ms", "accept_ms") if record[key] >= 100}
        assert slow == {name} - {"data_ms"} and record["data_ms"] >= 100      # data_ms runs from the connect


def test_77_accept_ms(warp):
    proxy = warp()
    session = proxy.session().to("dot")
    session.client.silent(0.1)
    session.sent()
    assert proxy.wait_for("message")["accept_ms"] >= 100


FORGED = (b"MAIL FROM:<forged@evil.example>\r\nRCPT TO:<victim@evil.example>\r\nDATA\r\nFrom: x@evil.example\r\n"
          b"mail from:<forged@evil.example>\r\n..\r\nEHLO evil.example\r\n250 2.0.0 ok\r\n\r\n"
          b"RCPT TO:<v@evil.example>\r\n")


@pytest.mark.parametrize("bytewise", [False, True])
def test_77_text_of_the_message_does_not_reach_the_envelope(warp, bytewise):
    """Warp reads sender and recipients out of the body."""
    proxy = warp("--verbose")
    session = proxy.session().to("data")
    (session.client.send_bytewise if bytewise else session.client.send_raw)(FORGED + b".\r\n")
    session.server.until(b"\r\n.\r\n")
    session.sent()
    record = proxy.wait_for("message")
    assert record["mail_from"]["address"] == "from@client.example"
    assert [recipient["address"] for recipient in record["rcpt_to"]] == ["to@server.example"]
    assert record["helo"] == "client.example"
    assert "evil" not in proxy.log_text()


@pytest.mark.parametrize("head, found", [
    (b"Message-ID: <a@b.example>\r\n", "a@b.example"), (b"message-id:<a@b.example>\r\n", "a@b.example"),
    (b"Subject: x\r\nMESSAGE-ID:\r\n <a@b.example>\r\n", "a@b.example"), (b"Subject: x\r\n", None),
    (b"\r\nMessage-ID: <body@b.example>\r\n", None), (b"X-Message-ID: <a@b.example>\r\n", None)])
def test_77_message_id(warp, head, found):
    proxy = warp()
    session = proxy.session().to("data")
    session.client.send_raw(head + b"\r\ntext\r\n.\r\n")
    session.server.until(b"\r\n.\r\n")
    session.sent()
    seen = proxy.wait_for("message")["message_id"]
    assert (seen and seen.strip("<> ")) == found


def test_77_transactions_that_came_to_nothing(warp):
    proxy = warp()
    session = proxy.session()
    session.greet()
    session.exchange("MAIL FROM:<a@b.example>", "550 5.7.1 no")
    session.mail()
    session.exchange("RCPT TO:<c@d.example>", "550 5.1.1 no")
    session.exchange("RSET", "250 2.0.0 fine")
    session.quit()
    close = proxy.wait_for("close")
    assert close["messages"] == 0
    assert all(record["result"] in ("rejected", "aborted") for record in proxy.records("message"))


# 78: whatever the bytes

BYTES = [b'"', b"\\", b"\\u0000", b"\xff\xfe", b"\xc3", b"\xed\xa0\x80", b"\xf4\x90\x80\x80", b"\xc0\x80", b"\x1b[31m",
         b"\x7f", b"\x01\x02", "\x9b31m".encode(), "\x80\x85\x9f".encode(), "\xa0".encode(), b"</script>", "\u2028".encode(), "\U0001f600".encode(), b"%s%n", b"\xef\xbf\xbd", b"{}"]


@pytest.mark.parametrize("odd", BYTES, ids=[repr(odd)[2:-1] for odd in BYTES])
def test_78_every_byte_in_every_place(warp, odd):
    """Records stay JSON in UTF-8 (warp.py checks that), and what is UTF-8 is found again as it was."""
    proxy = warp("--verbose")
    session = proxy.session()
    client, server = session.client, session.server

    def exchange(command, reply):
        client.send_raw(command + b"\r\n")
        server.until(b"\r\n")
        server.send_raw(reply + b"\r\n")
        return client.reply()
    server.send_raw(b"220 banner " + odd + b"\r\n")
    client.expect("220")
    exchange(b"EHLO client" + odd, b"250 server" + odd)
    local = b"c" if odd[0] < 32 or odd in (b'"', b"\\", b"\x7f", b"</script>") else odd  # RFC 5321 4.1.2
    exchange(b"MAIL FROM:<" + local + b"@b.example>", b"250 2.1.0 " + odd)
    exchange(b"RCPT TO:<" + local + b"@d.example>", b"250 2.1.5 " + odd)
    exchange(b"DATA", b"354 " + odd)
    client.send_raw(b"Message-ID: <" + odd + b"@b.example>\r\n\r\n.\r\n")
    server.until(b"\r\n.\r\n")
    server.send_raw(b"250 2.0.0 " + odd + b"\r\n")
    client.expect("250")
    record = proxy.wait_for("message")
    want = odd.decode(errors="replace")
    if "\ufffd" not in want or odd == b"\xef\xbf\xbd":
        assert record["mail_from"]["address"] == f"{local.decode()}@b.example"
        assert record["helo"] == f"client{want}"
    else:
        assert "\ufffd" in record["mail_from"]["address"] and "\ufffd" in record["helo"]
    session.client.send_raw(b"FOO" + odd + b"\r\n")
    session.client.expect("500")
    session.client.close()
    proxy.wait_for("close")
    controls = {c for c in proxy.log_text() if c < " " or "\x7f" <= c < "\xa0"}
    assert controls == {"\n"}, "a terminal that shows the log would obey"


def test_78_all_bytes_in_one_command(warp):
    proxy = warp("--verbose")
    session = proxy.session()
    session.greet()
    address = bytes(byte for byte in range(1, 256) if byte not in b"\r\n<>\"\\")
    session.client.send_raw(b"MAIL FROM:<" + address + b">\r\n")
    session.client.wait(lambda: session.client.buffer or session.server.buffer, "either")
    session.client.close()
    proxy.wait_for("close")


@pytest.mark.parametrize("length", [2000, 2040])
def test_78_very_long_values(warp, length):
    proxy = warp("--verbose")
    session = proxy.session()
    session.greet("SMTPUTF8")
    address = "ü" * ((length - 40) // 2) + "@b.example"
    session.mail(f"MAIL FROM:<{address}>")
    session.rcpt()
    session.data()
    session.client.close()
    logged = proxy.wait_for("message")["mail_from"]["address"]
    assert address.startswith(logged.rstrip("…")) or logged == address


def test_78_a_thousand_recipients_with_long_names_are_one_record(warp, mail_server):
    server = mail_server("PIPELINING")
    proxy = warp(upstream=server)
    client = proxy.connect()
    client.expect("220")
    recipients = [f"{'r' * 60}{number}@{'d' * 200}.example" for number in range(1000)]
    client.send("EHLO client.example", "MAIL FROM:<a@b.example>", *[f"RCPT TO:<{one}>" for one in recipients], "DATA",
                ".", "QUIT")
    client.replies_to(221)
    assert [entry["address"] for entry in proxy.wait_for("message")["rcpt_to"]] == recipients


# Sinks

def test_78_parallel_sessions_do_not_mix_their_lines(warp, mail_server):
    """50 processes write to one file, 100 records and more each; warp.py parses every line."""
    server = mail_server("PIPELINING")
    proxy = warp("--verbose", upstream=server).listen()
    clients = [proxy.connect() for _ in range(50)]
    recipients = [f"RCPT TO:<{'x' * 200}{number}@server.example>" for number in range(20)]
    for client in clients:
        client.send("EHLO client.example", "MAIL FROM:<a@b.example>", *recipients, "DATA", ".", "QUIT")
    for client in clients:
        client.replies_to(221)
    proxy.wait_for("close", 50)
    assert len(proxy.records("message")) == 50


def test_78_one_write_per_record(warp, mail_server, tmp_path):
    """strace shows it; a record of a thousand recipients is no exception."""
    if not os.path.exists("/usr/bin/strace"):
        pytest.skip("needs strace")
    server = mail_server("PIPELINING")
    proxy = warp(upstream=server, env=NO_REPORTS)
    trace = tmp_path / "trace"
    proxy.wrapper = ["strace", "-f", "-o", str(trace), "-e", "trace=open,openat,write,writev,pwrite64", "-s", "1000000",
                     "-xx"]
    client = proxy.connect()
    client.expect("220")
    recipients = [f"RCPT TO:<{'u' * 50}{number}@d.example>" for number in range(999)]
    client.send("EHLO client.example", "MAIL FROM:<a@b.example>", *recipients, "DATA", ".", "QUIT")
    client.replies_to(221)
    proxy.wait_for("close")
    client.close()
    proxy.wait_exit()
    records = proxy.log_path.read_bytes().splitlines(True)
    text = trace.read_text()
    path = "".join(f"\\x{byte:02x}" for byte in str(proxy.log_path).encode())
    fd = re.search(rf'open(?:at)?\((?:AT_FDCWD, )?"{re.escape(path)}".*= (\d+)', text)[1]
    writes = re.findall(rf"(?:write|writev|pwrite64)\({fd}, .*= (\d+)$", text, re.M)
    assert [int(size) for size in writes] == [len(record) for record in records]


def collect(sock):
    """All that comes to a Unix socket, be it a stream or datagrams, until the writer has gone."""
    sock.settimeout(peers.TIMEOUT)
    connection, _ = sock.accept()
    with connection:
        connection.settimeout(peers.TIMEOUT)
        data = b""
        while block := connection.recv(65536):
            data += block
    return data


def test_78_unix_sink(warp, mail_server, tmp_path):
    path = tmp_path / "sink"
    with socket.socket(socket.AF_UNIX) as sink:
        sink.bind(str(path))
        sink.listen(5)
        proxy = warp("--log", f"unix:{path}", upstream=mail_server())
        client = proxy.connect()
        client.send(*SEND)
        client.replies_to(221)
        client.close()
        events = [json.loads(line)["event"] for line in collect(sink).splitlines()]
    assert events == ["connect", "message", "close"]


def test_78_unix_sink_that_does_not_read_holds_up_no_mail(warp, mail_server, tmp_path):
    """A moment's patience is in order, but not one for each record."""
    path = tmp_path / "sink"
    with socket.socket(socket.AF_UNIX) as sink:
        sink.bind(str(path))
        sink.listen(5)
        proxy = warp("--log", f"unix:{path}", "--verbose", upstream=mail_server("PIPELINING"))
        client = proxy.greeted()
        start = time.monotonic()
        for _ in range(1000):
            client.ask(f"NOOP {'x' * 1000}", "250")
            assert time.monotonic() - start < 60      # a tenth of a second for each would be 200 s
        client.ask("QUIT", "221")
        client.close()
        proxy.wait_exit()


def test_78_unix_sink_that_takes_no_connection_holds_up_no_mail(warp, mail_server, tmp_path):
    """Its queue of them is full."""
    path = tmp_path / "sink"
    with contextlib.ExitStack() as sockets:
        sink = sockets.enter_context(socket.socket(socket.AF_UNIX))
        sink.bind(str(path))
        sink.listen(0)
        with contextlib.suppress(BlockingIOError):
            while True:
                other = sockets.enter_context(socket.socket(socket.AF_UNIX))
                other.setblocking(False)
                other.connect(str(path))
        proxy = warp("--log", f"unix:{path}", "--verbose", upstream=mail_server("PIPELINING"))
        client = proxy.greeted()
        start = time.monotonic()
        for _ in range(300):
            client.ask("NOOP", "250")
            assert time.monotonic() - start < 30      # a fifth of a second for each record would be 120 s
        client.ask("QUIT", "221")
        client.close()
        proxy.wait_exit()


def test_78_unix_sink_never_gets_a_line_behind_half_a_line(warp, mail_server, tmp_path):
    """A socket that is nearly full takes a part of a large record, and its reader comes too late for the rest."""
    path, texts = tmp_path / "sink", []
    with socket.socket(socket.AF_UNIX) as sink:
        sink.bind(str(path))
        sink.listen(5)
        proxy = warp("--log", f"unix:{path}", upstream=mail_server("PIPELINING"))
        client = proxy.greeted()
        for number in range(8):
            if number == 5:
                reader = threading.Thread(target=lambda: texts.append(collect(sink)))
                reader.start()
            client.send("MAIL FROM:<a@b.example>", *(f"RCPT TO:<{'x' * 60}{i}@d.example>" for i in range(300)), "DATA")
            client.replies_to(354)
            client.send("x", ".")
            client.expect("250")
        client.ask("QUIT", "221")
        client.close()
        proxy.wait_exit()
        reader.join(peers.TIMEOUT)
        while select.select([sink], [], [], 0)[0]:
            texts.append(collect(sink))
    for text in texts:
        for line in text.split(b"\n")[:-1]:
            json.loads(line)
    assert len(texts[0]) > 100_000


def test_78_stderr_sink(warp, mail_server):
    proxy = warp("--log", "stderr", upstream=mail_server())
    client = proxy.connect()
    client.send(*SEND)
    client.replies_to(221)
    client.close()
    proxy.wait_exit()
    lines = proxy.error_path.read_text().splitlines()
    assert [json.loads(line)["event"] for line in lines] == ["connect", "message", "close"]


def fill(writer):
    os.set_blocking(writer, False)
    with contextlib.suppress(BlockingIOError):
        while os.write(writer, b"\n" * 4096):
            pass
    os.set_blocking(writer, True)       # as it is for whoever else writes there


@pytest.mark.parametrize("how", ["pipe", "socket"])
def test_78_stderr_that_nobody_reads_holds_up_no_mail(warp, mail_server, how):
    """Nor a listener's start or end. When it is read again, what was lost is told."""
    proxy = warp("--log", "stderr", "--user", "nobody", upstream=mail_server())
    reader, writer = os.pipe() if how == "pipe" else (end.detach() for end in socket.socketpair())
    spawn, proxy.spawn = proxy.spawn, lambda *options, **popen: spawn(*options, **popen, stderr=writer)
    fill(writer)
    proxy.listen()
    with contextlib.closing(proxy.connect()) as client:
        client.send(*SEND)
        client.replies_to(221)
    proxy.wait_until(lambda: not proxy.children())
    os.set_blocking(reader, False)
    with contextlib.suppress(BlockingIOError):
        while os.read(reader, 65536):
            pass
    proxy.listener.send_signal(signal.SIGTERM)
    proxy.wait_exit(proxy.listener)
    records = {record["event"]: record for record in map(json.loads, os.read(reader, 65536).splitlines())}
    assert set(records) == {"stop", "error"}        # the latter first if it was told when the session had ended, just after the last read
    assert "the log has lost 4 records" in records["error"]["error"]
    assert os.get_blocking(writer)
    os.close(reader)
    os.close(writer)


def test_78_terminal_that_nobody_reads_holds_up_no_mail(warp, mail_server):
    """Stopped by Ctrl-S, or a container's that nobody is attached to."""
    proxy = warp("--log", "stderr", "--user", "nobody", upstream=mail_server())
    reader, writer = os.openpty()
    spawn, proxy.spawn = proxy.spawn, lambda *options, **popen: spawn(*options, **popen, stderr=writer)
    fill(writer)
    os.read(reader, 500)        # there is room, but not for a record
    proxy.listen()
    with contextlib.closing(proxy.connect()) as client:
        client.send(*SEND)
        client.replies_to(221)
    proxy.wait_until(lambda: not proxy.children())
    proxy.listener.send_signal(signal.SIGTERM)
    proxy.wait_exit(proxy.listener)
    assert os.get_blocking(writer)
    os.close(reader)
    os.close(writer)


def test_78_what_is_said_on_stderr_that_nobody_reads_holds_up_no_mail(warp, mail_server, tmp_path):
    """That a log cannot be opened again."""
    proxy = warp("--log", f"file:{tmp_path}/log/log", upstream=mail_server())
    (tmp_path / "log").mkdir()
    reader, writer = os.pipe()
    spawn, proxy.spawn = proxy.spawn, lambda *options, **popen: spawn(*options, **popen, stderr=writer)
    proxy.listen()
    fill(writer)
    (tmp_path / "log").rename(tmp_path / "log.1")
    proxy.listener.send_signal(signal.SIGHUP)
    proxy.wait_until(lambda: "still go to the old file" in (tmp_path / "log.1/log").read_text())
    with contextlib.closing(proxy.connect()) as client:
        client.send(*SEND)
        client.replies_to(221)
    proxy.listener.send_signal(signal.SIGTERM)
    proxy.wait_exit(proxy.listener)
    os.close(reader)
    os.close(writer)


def test_78_named_pipe_without_a_reader_holds_up_no_mail(warp, mail_server, tmp_path):
    """Neither a start nor SIGHUP waits for one, and what was written meanwhile is there for it."""
    path = tmp_path / "sink"
    os.mkfifo(path)
    proxy = warp("--log", f"file:{path}", upstream=mail_server()).listen()
    reader = os.open(path, os.O_RDONLY)
    assert json.loads(os.read(reader, 65536))["event"] == "start"
    os.close(reader)
    proxy.listener.send_signal(signal.SIGHUP)
    proxy.wait_until(lambda: not is_pending(proxy.listener.pid, signal.SIGHUP))
    with contextlib.closing(proxy.connect()) as client:
        client.send(*SEND)
        client.replies_to(221)
    proxy.wait_until(lambda: not proxy.children())
    reader = os.open(path, os.O_RDONLY)
    assert [json.loads(line)["event"] for line in os.read(reader, 65536).splitlines()] == ["connect", "message", "close"]
    os.close(reader)


def test_78_none_writes_nothing(warp, mail_server):
    proxy = warp("--log", "none", upstream=mail_server())
    client = proxy.connect()
    client.send(*SEND)
    client.replies_to(221)
    client.close()
    proxy.wait_exit()
    assert proxy.error_path.read_text() == ""


@pytest.mark.parametrize("options", [[], ["--log", "stderr"], ["--log", "stderr", "--verbose"]])
def test_78_nothing_but_smtp_on_the_clients_socket(warp, mail_server, options):
    """inetd has fd 2 on the client as well: no record may end there, not even when told so."""
    server = mail_server()
    proxy = warp(*options, upstream=server)
    if not options:
        command = [word for word in proxy.command() if not word.startswith("file:") and word != "--log"]
        proxy.command = lambda: command
    with socket.create_server(("127.0.0.1", 0)) as door:
        client = peers.connect("127.0.0.1", door.getsockname()[1], proxy.group)
        accepted, _ = door.accept()
    proxy.exit_codes = (0, 64, 78)
    with accepted:
        proxy.spawn(stdin=accepted, stdout=accepted, stderr=accepted)
    client.send(*SEND)
    for line in client.rest().split(b"\r\n")[:-1]:
        assert re.match(rb"[2-5]\d\d[ -]", line), line
    assert b"{" not in client.got


@pytest.mark.parametrize("sink", ["file:/nonexistent/log", "file:/"])
def test_78_sink_that_cannot_be_opened(warp, sink):
    """One clear line and exit 78."""
    proxy = warp("--log", sink)
    proxy.exit_codes = (78,)
    process = proxy.spawn("--check")
    assert proxy.wait_exit(process) == 78
    [line] = proxy.error_path.read_text().splitlines()
    assert sink.partition(":")[2] in line


def test_78_records_are_whole_or_not_there_and_the_lost_ones_are_counted(warp, mail_server):
    """The file reaches a limit (LimitFSIZE=, ulimit -f), as on a full disk: no torn line, and no process that dies of SIGXFSZ."""
    proxy = warp(upstream=mail_server("PIPELINING"), env=NO_REPORTS)
    proxy.complete = False
    proxy.wrapper = ["prlimit", "--fsize=5000"]
    proxy.listen()
    def sent(count):
        for _ in range(count):
            client = proxy.connect()
            client.expect("220")
            client.send(*SEND)
            client.replies_to(221)
            client.expect_end()
        proxy.wait_until(lambda: not proxy.children())
    sent(1)
    each = len([record for record in proxy.records() if "session" in record])
    sent(9)
    full = proxy.log_path.read_bytes()
    assert len(full) < 5000 and full.endswith(b"\n")
    os.truncate(proxy.log_path, 0)
    sent(1)
    records = [*map(json.loads, full.splitlines()), *proxy.records()]
    told = [re.fullmatch(r"the log has lost (\d+) records: .+", record["error"]) for record in records if record["event"] == "error"]
    assert sum("session" in record for record in records) + sum(int(match[1]) for match in told) == 11 * each
    assert proxy.records("error")
    assert proxy.listener.poll() is None


def test_78_a_lone_session_says_what_its_log_lost(warp, mail_server):
    proxy = warp(upstream=mail_server("PIPELINING"), env=NO_REPORTS)
    proxy.complete = False
    proxy.wrapper = ["prlimit", "--fsize=600"]
    client = proxy.connect()
    client.expect("220")
    client.send(*SEND)
    client.replies_to(221)
    assert proxy.wait_exit() == 0
    assert len(proxy.records()) < 3
    assert re.search(r"^smtpwarp: the log has lost \d+ records: ", proxy.error_path.read_text(), re.M)


@pytest.fixture
def rotated(warp, mail_server):
    """A listener of another user whose log is in a folder that only root writes to; the log, and a function for one session."""
    with tempfile.TemporaryDirectory(prefix="warp") as name:
        folder = pathlib.Path(name)
        folder.chmod(0o755)
        proxy = warp("--log", f"file:{folder}/log", "--user", "nobody", upstream=mail_server("PIPELINING"), env=NO_REPORTS)
        proxy.log_path = folder / "log"
        proxy.listen()
        def sent():
            client = proxy.connect()
            client.expect("220")
            client.send(*SEND)
            client.replies_to(221)
            proxy.wait_until(lambda: not proxy.children())
        yield proxy, folder / "log", sent


def test_78_the_log_belongs_to_user_and_is_opened_again(rotated):
    """As logrotate's `create` has it, which takes owner and mode from the old file."""
    proxy, log, sent = rotated
    sent()
    old, new = log.rename(log.with_name("log.1")), log
    assert (old.stat().st_uid, old.stat().st_mode & 0o777) == (pwd.getpwnam("nobody").pw_uid, 0o640)
    new.touch(0o640)
    os.chown(new, old.stat().st_uid, old.stat().st_gid)
    proxy.listener.send_signal(signal.SIGHUP)
    proxy.wait_until(lambda: writes_to(proxy, new))
    sent()
    assert len(proxy.records("message")) == 1


def writes_to(proxy, log):
    """Whether the listener has it open. It may close a descriptor while we look, and has none for a moment when it opens another file."""
    folder = f"/proc/{proxy.listener.pid}/fd"
    for fd in os.listdir(folder):
        with contextlib.suppress(FileNotFoundError):
            if os.path.samefile(log, f"{folder}/{fd}"):
                return True
    return False


def test_78_a_log_that_cannot_be_opened_again(rotated):
    """An error on standard error too, for nobody reads the old file; and as soon as it can be opened, it is."""
    proxy, log, sent = rotated
    old = log.rename(log.with_name("log.1"))
    proxy.listener.send_signal(signal.SIGHUP)
    proxy.wait_until(lambda: "records still go to the old file" in proxy.error_path.read_text(), "the error")
    assert old.read_text().count("records still go to the old file") == 1
    log.touch()
    os.chown(log, old.stat().st_uid, old.stat().st_gid)
    proxy.wait_until(lambda: writes_to(proxy, log), "the new file")
    sent()
    assert len(proxy.records("message")) == 1


def test_78_root_follows_no_link_to_the_log(warp):
    proxy = warp("--user", "nobody", env=NO_REPORTS)
    with tempfile.TemporaryDirectory(prefix="warp") as name:
        os.chmod(name, 0o755)
        target = pathlib.Path(name, "target")
        os.symlink(target, f"{name}/log")
        process = proxy.spawn("--log", f"file:{name}/log", "--listen", "127.0.0.1:2525")
        proxy.exit_codes = (78,)
        assert proxy.wait_exit(process) == 78
        assert not target.exists()
    assert "Permission denied" in proxy.error_path.read_text()


def test_78_warnings_of_the_journal(warp, tmp_path):
    """A deferred message and a server that refuses in its greeting are warnings, an accepted message is none."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as journal:
        journal.bind(str(tmp_path / "journal"))
        journal.settimeout(peers.TIMEOUT)
        proxy = warp("--log", "journal", env=NO_REPORTS)
        proxy.wrapper = ["unshare", "--mount", "sh", "-c", "mount -t tmpfs none /run && mkdir -p /run/systemd/journal && "
                         f"ln -s {tmp_path}/journal /run/systemd/journal/socket && exec \"$@\"", "sh"]
        def entry(event):
            while True:
                fields = dict(line.split("=", 1) for line in journal.recv(65536).decode().splitlines())
                if fields["SMTPWARP_EVENT"] == event:
                    return int(fields["PRIORITY"]), json.loads(fields["MESSAGE"])
        for reply, priority, result in ("250 2.0.0 ok", 6, "accepted"), ("451 4.3.0 later", 4, "deferred"), ("550 5.7.1 no", 6, "rejected"):
            session = proxy.session()
            session.to("dot")
            session.server.send(reply)
            session.client.expect(reply[:3])
            session.quit()
            seen, record = entry("message")
            assert (seen, record["result"]) == (priority, result)
        client = proxy.connect()
        server = proxy.upstream.accept()
        server.send("421 too busy")
        client.expect("421")
        seen, record = entry("connect")
        assert (seen, record["banner"]) == (4, "too busy")


# --verbose

def comm(proxy):
    return [(record["direction"], record["data"].rstrip("\r\n")) for record in proxy.records("comm")]


def test_77_comm_events_in_order(warp):
    proxy = warp("--verbose", "--tls", "none")
    session = proxy.session()
    session.banner()
    session.client.ask("NOOP", "250")
    session.ehlo("PIPELINING")
    session.mail()
    session.client.ask("FOO", "500")
    session.rcpt()
    session.data()
    session.client.send_raw(MESSAGE)
    session.server.until(b"\r\n.\r\n")
    session.sent()
    session.quit()
    proxy.wait_for("close")
    said = [(mark, data) for mark, data in comm(proxy) if mark != "--"]
    assert said[:2] == [("<-", "220 server.example ESMTP"), (">|", "NOOP")]
    assert said[2][0] == "<|" and said[2][1].startswith("250")
    assert {mark for mark, _ in said} <= {"->", "<-", ">|", "|>", "|<", "<|"}
    passed = [("->", "MAIL FROM:<from@client.example>"), ("<-", "250 2.1.0 sender fine"),
              ("->", "RCPT TO:<to@server.example>"), ("<-", "250 2.1.5 recipient fine"), ("->", "DATA"),
              ("<-", "354 go on"), ("<-", "250 2.0.0 taken"), ("->", "QUIT"), ("<-", "221 2.0.0 bye")]
    assert [entry for entry in said if entry in passed] == passed
    assert (">|", "FOO") in said and said[said.index((">|", "FOO")) + 1][0] == "<|"
    assert "Hello." not in proxy.log_text(), "message content in the log"


def test_77_comm_events_of_starttls(warp, certs, mail_server):
    server = mail_server(tls=certs.context())
    proxy = warp("--verbose", upstream=server)
    client = proxy.greeted()
    client.ask("QUIT", "221")
    proxy.wait_for("close")
    said = comm(proxy)
    assert ("|>", "STARTTLS") in said and ("|<", "220 2.0.0 go ahead") in said
    assert said.index(("|>", "STARTTLS")) < said.index(("|<", "220 2.0.0 go ahead"))
    ehlos = [mark for mark, data in said if data == "EHLO client.example"]
    assert len(ehlos) >= 2 and ehlos.count("|>") + ehlos.count("->") == 2


def test_77_comm_without_verbose(warp, mail_server):
    proxy = warp(upstream=mail_server())
    client = proxy.connect()
    client.send(*SEND)
    client.replies_to(221)
    proxy.wait_for("close")
    assert proxy.records("comm") == []


def test_77_ids_are_unique_and_sort_by_time(warp, mail_server):
    server = mail_server()
    proxy = warp(upstream=server).listen()
    for number in range(20):
        client = proxy.connect()
        client.expect("220")
        client.ask("QUIT", "221")
        proxy.wait_for("close", number + 1)
    ids = [record["session"] for record in proxy.records("close")]
    assert len(set(ids)) == 20
    assert [one[:10] for one in ids] == sorted(one[:10] for one in ids)


@pytest.fixture
def syslog(tmp_path):
    """syslog(warp): that smtpwarp has a /dev of its own, with the socket that is returned as /dev/log."""
    folder = tmp_path / "dev"
    folder.mkdir()
    for name, minor in ("null", 3), ("urandom", 9):
        os.mknod(folder / name, 0o666 | stat.S_IFCHR, os.makedev(1, minor))
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as log:
        log.bind(str(folder / "log"))
        log.settimeout(peers.TIMEOUT)

        def attach(proxy):
            proxy.complete = False
            proxy.wrapper = ["unshare", "--mount", "sh", "-c", f'mount --bind {folder} /dev && exec "$@"', "sh"]
            return log
        yield attach


def test_syslog_that_is_a_stream(warp, mail_server, syslog, tmp_path):
    """There records are lines."""
    proxy = warp("--log", "syslog", upstream=mail_server())
    syslog(proxy)
    (tmp_path / "dev/log").unlink()
    with socket.socket(socket.AF_UNIX) as log:
        log.bind(str(tmp_path / "dev/log"))
        log.listen(5)
        client = proxy.connect()
        client.send(*SEND)
        client.replies_to(221)
        client.close()
        lines = collect(log).decode().splitlines()
    events = [json.loads(re.fullmatch(r"<2\d>smtpwarp\[\d+\]: (.*)", line)[1])["event"] for line in lines]
    assert events == ["connect", "message", "close"]


@pytest.mark.parametrize("kind", [socket.SOCK_DGRAM, socket.SOCK_STREAM, socket.SOCK_SEQPACKET], ids=["datagrams", "stream", "packets"])
@pytest.mark.parametrize("listener", [True, False])
def test_syslog_that_is_started_again(warp, mail_server, syslog, tmp_path, kind, listener):
    """While a session is under way, which connects to no server any more: its records go to the new one."""
    def daemon():
        (tmp_path / "dev/log").unlink()
        log = socket.socket(socket.AF_UNIX, kind)
        log.settimeout(peers.TIMEOUT)
        log.bind(str(tmp_path / "dev/log"))
        if kind != socket.SOCK_DGRAM:
            log.listen(5)
        return log
    proxy = warp("--log", "syslog", upstream=mail_server())
    syslog(proxy)
    before = daemon()
    if listener:
        proxy.listen()
    client = proxy.greeted()
    streams = [before.accept()[0]] if kind != socket.SOCK_DGRAM else []
    before.close()
    after = daemon()
    for stream in streams:
        stream.close()
    client.send(*SEND[1:])
    client.replies_to(221)
    source = after.accept()[0] if kind != socket.SOCK_DGRAM else after
    text = ""
    while '"event":"close"' not in text:
        text += source.recv(1 << 20).decode() + "\n"
    assert text.index('"event":"message"') < text.index('"event":"close"')
    after.close()


@pytest.mark.parametrize("length", [7000, 7500, 8000, 12000])
def test_no_record_is_too_long_for_syslog(warp, mail_server, syslog, tmp_path, length):
    """rsyslog cuts at 8 KiB: of one recipient, of a command, of what hooks note. Strings are cut instead, and it is JSON still."""
    hooks = Hooks(tmp_path / "hooks")
    hooks.script("mail", f"i=0; while [ $i -lt {length // 10} ]; do echo log key$i value$i; i=$((i+1)); done; echo accept")
    proxy = warp("--log", "syslog", "--verbose", "--command-length", "12288", *hooks.options, upstream=mail_server("DSN"))
    log, datagrams = syslog(proxy), []

    def read():     # all the time, because the socket's queue is short
        while not datagrams or b'"event":"close"' not in datagrams[-1]:
            datagrams.append(log.recv(1 << 20))
    reader = threading.Thread(target=read)
    reader.start()
    client = proxy.greeted()
    client.ask("MAIL FROM:<a@b.example>", "250")
    client.ask("RCPT TO:<c@d.example> ORCPT=rfc822;" + "grüße\\" * (length // 8), "250")
    client.ask("DATA", "354")
    client.send("x", ".")
    client.expect("250")
    client.ask("QUIT", "221")
    proxy.wait_exit()
    reader.join(peers.TIMEOUT)
    events = set()
    for datagram in datagrams:
        assert len(datagram) <= 8000 + 40
        record = json.loads(datagram.partition(b": ")[2])
        events.add(record["event"])
        if record["event"] == "message":
            assert record["result"] == "accepted" and record["rcpt_to"][0]["address"] == "c@d.example"
    assert {"connect", "comm", "message", "verdict"} <= events
