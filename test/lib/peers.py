"""SMTP peers held by a test: both ends of the proxy in one hand, and no thread between.

    client, server = pair                     # two Peers, smtpwarp between them
    client.send("MAIL FROM:<a@b.example>")    # a line; send_raw() for bytes
    assert server.line() == "MAIL FROM:<a@b.example>"
    server.send("250 2.1.0 fine")
    client.expect("250 2.1.0")

A Peer waits with a deadline, and while it waits it takes in what arrives for the other peers of its Group, so that
neither side can lock up the other. `peer.paused = True` makes a peer that does not read. All that a peer received is
in `peer.got`.

MailServer is a well-behaved server (or one badly behaved in a given way) in a thread, for tests that look at the
client's side only.
"""
import contextlib
import errno
import fcntl
import os
import re
import select
import socket
import ssl
import struct
import subprocess
import sys
import termios
import threading
import time

from waiting import TIMEOUT, wait_until

BLOCK = 65536


class Ended(Exception):
    """The other side has closed the connection, and what was waited for did not come."""


def encode(text):
    return text if isinstance(text, bytes) else text.encode("utf-8", "surrogateescape")


def decode(data):
    return bytes(data).decode("utf-8", "surrogateescape")


NETLINK_SOCK_DIAG, SOCK_DIAG_BY_FAMILY, NLMSG_ERROR = 4, 20, 2      # linux/netlink.h, linux/sock_diag.h


def unread_at(family, here, there):
    """How many octets wait at that end of a TCP connection of this namespace, sock_diag(7). 0 when there is no such end. (A look
    into /proc/net/tcp takes hundreds of times as long.)"""
    ends = [socket.inet_pton(family, end[0]).ljust(16, b"\0") for end in (here, there)]
    request = struct.pack("=BBBxI", family, socket.IPPROTO_TCP, 0, 0xffffffff) + \
        struct.pack("!HH", here[1], there[1]) + b"".join(ends) + struct.pack("=Iq", 0, -1)
    with socket.socket(socket.AF_NETLINK, socket.SOCK_DGRAM, NETLINK_SOCK_DIAG) as kernel:
        kernel.send(struct.pack("=IHHII", 16 + len(request), SOCK_DIAG_BY_FAMILY, 1, 0, 0) + request)   # 1: NLM_F_REQUEST
        answer = kernel.recv(4096)
    if struct.unpack_from("=H", answer, 4)[0] == NLMSG_ERROR:
        code = -struct.unpack_from("=i", answer, 16)[0]
        if code != errno.ENOENT:
            raise OSError(code, os.strerror(code))
        return 0
    return struct.unpack_from("=I", answer, 72)[0]      # idiag_rqueue


class Group:
    """The peers that one thread looks after."""

    def __init__(self):
        self.peers = []

    def turn(self, seconds, writer=None):
        """Waits for anything to read (or for writer's socket to take bytes) and takes it in."""
        poll = select.poll()
        readers = {peer.sock.fileno(): peer for peer in self.peers if peer.reads()}
        interest = {fd: select.POLLIN for fd in readers}
        if writer:
            fd = writer.sock.fileno()
            interest[fd] = interest.get(fd, 0) | select.POLLOUT
        for fd, events in interest.items():
            poll.register(fd, events)
        for fd, _ in poll.poll(max(0, seconds) * 1000):
            if fd in readers:
                readers[fd].absorb()

    def close(self):
        for peer in self.peers:
            peer.close()


class Reply(str):
    """An SMTP reply: its lines, joined by newlines, without their line ends."""

    @property
    def code(self):
        return int(self[:3])

    @property
    def lines(self):
        return self.split("\n")

    @property
    def texts(self):
        return [line[4:] for line in self.lines]


class Peer:
    """One end of a connection."""

    def __init__(self, sock, group=None, name="peer"):
        self.sock, self.group, self.name = sock, group or Group(), name
        self.buffer, self.got = bytearray(), bytearray()
        self.ended, self.paused, self.closed = None, False, False
        sock.setblocking(False)
        with contextlib.suppress(OSError):  # a unix socket has none
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.group.peers.append(self)

    # Reading

    def reads(self):
        return not (self.paused or self.ended or self.closed)

    def absorb(self):
        while self.reads():
            try:
                data = self.sock.recv(BLOCK)
            except (BlockingIOError, ssl.SSLWantReadError):
                return
            except OSError as error:        # ssl.SSLError is one
                self.ended = "reset" if error.errno in (errno.ECONNRESET, errno.EPIPE) else str(error)
                return
            if not data:
                self.ended = "close"
                return
            self.buffer += data
            self.got += data

    def wait(self, done, what, timeout=TIMEOUT):
        end = time.monotonic() + timeout
        while not done():
            if self.ended:
                raise Ended(f"{self.name}: {self.ended} instead of {what}; unread: {bytes(self.buffer[-300:])!r}")
            left = end - time.monotonic()
            if left <= 0:
                raise TimeoutError(f"{self.name}: no {what} in {timeout} s; unread: {bytes(self.buffer[-300:])!r}")
            self.group.turn(left)

    def take(self, count, timeout=TIMEOUT):
        """Exactly count bytes."""
        self.wait(lambda: len(self.buffer) >= count, f"{count} bytes", timeout)
        taken = bytes(self.buffer[:count])
        del self.buffer[:count]
        return taken

    def until(self, mark, timeout=TIMEOUT):
        """Everything up to and including the bytes mark."""
        searched = 0

        def found():
            nonlocal searched
            at = self.buffer.find(mark, max(0, searched - len(mark)))
            searched = len(self.buffer)
            return at >= 0
        self.wait(found, f"{mark!r}", timeout)
        return self.take(self.buffer.index(mark) + len(mark))

    def line(self, timeout=TIMEOUT):
        """The next line, which must end in CR LF and hold no other of either."""
        line = self.until(b"\n", timeout)
        assert line.endswith(b"\r\n") and b"\r" not in line[:-2], f"{self.name}: bad line end: {line[-100:]!r}"
        return decode(line[:-2])

    def lines(self, count):
        return [self.line() for _ in range(count)]

    def reply(self, timeout=TIMEOUT):
        """The next reply, which must be one by RFC 5321 4.2."""
        lines = [self.line(timeout)]
        while lines[-1][3:4] == "-":
            lines.append(self.line(timeout))
        for line in lines:
            assert re.match(r"[2-5][0-9]{2}([ -]|$)", line), f"{self.name}: not a reply: {line!r}"
            assert line[:3] == lines[0][:3], f"{self.name}: codes differ: {lines}"
        return Reply("\n".join(lines))

    def expect(self, *wanted, timeout=TIMEOUT):
        """The next reply; its last line begins with one of the wanted."""
        reply = self.reply(timeout)
        assert reply.lines[-1].startswith(wanted), f"{self.name}: wanted {wanted}, got {reply!r}"
        return reply

    def replies_to(self, code):
        """The codes of all replies up to the first with that code."""
        codes = [self.reply().code]
        while codes[-1] != code:
            codes.append(self.reply().code)
        return codes

    def expect_line(self, *wanted):
        line = self.line()
        assert line in wanted, f"{self.name}: wanted {wanted}, got {line!r}"
        return line

    def expect_end(self, timeout=TIMEOUT):
        """The other side closes (or resets) the connection and sends nothing more before that. Then so does this one: a
        process that lingers until its client has read all need not do so."""
        with contextlib.suppress(Ended):
            self.wait(lambda: self.buffer, "end", timeout)
        assert not self.buffer, f"{self.name}: wanted the end, got {bytes(self.buffer[:300])!r}"
        self.close()
        return self.ended

    def wait_readable(self):
        """Something has come, and is left where it is, for a peer that is paused."""
        wait_until(lambda: select.select([self.sock], [], [], 0)[0], f"something to read for {self.name}", pause=self.group.turn)

    def rest(self, timeout=TIMEOUT):
        """All that comes until the other side closes."""
        with contextlib.suppress(Ended):
            self.wait(lambda: False, "end", timeout)
        data = bytes(self.buffer)
        self.buffer.clear()
        return data

    def farewell(self):
        """As rest(), but what smtpwarp may say of its own before it leaves, RSET and QUIT, is answered."""
        replies = {b"RSET\r\n": "250 2.0.0 fine", b"QUIT\r\n": "221 2.0.0 bye"}
        with contextlib.suppress(Ended, OSError):
            while replies:
                self.wait(lambda: self.buffer.endswith(tuple(replies)), "RSET, QUIT or the end")
                self.send(replies.pop(bytes(self.buffer[-6:])))
        return self.rest()

    def silent(self, seconds=0.05):
        """Nothing has come, nor does in a moment. For what must not happen before the test goes on."""
        end = time.monotonic() + seconds
        while (left := end - time.monotonic()) > 0 and not self.ended:
            self.group.turn(left)
        assert not self.buffer, f"{self.name}: wanted silence, got {bytes(self.buffer[:300])!r}"
        assert not self.ended, f"{self.name}: wanted silence, got {self.ended}"

    # Writing

    def send_raw(self, data, timeout=TIMEOUT):
        """All bytes, in one segment if they fit."""
        view = memoryview(data)
        end = time.monotonic() + timeout
        while view:
            try:
                view = view[self.sock.send(view[:1 << 20]):]
            except (BlockingIOError, ssl.SSLWantWriteError, ssl.SSLWantReadError):
                left = end - time.monotonic()
                if left <= 0:
                    raise TimeoutError(f"{self.name}: the other side takes no more bytes") from None
                self.group.turn(left, writer=self)

    def send(self, *lines):
        """Lines, CR LF added to each, in one segment."""
        self.send_raw(b"".join(encode(line) + b"\r\n" for line in lines))

    def send_what_fits(self, data, limit):
        """Sends data again and again without reading until the socket stays full, the other side has gone, or limit; returns the
        byte count."""
        sent, blocked = 0, 0
        while sent < limit and blocked < 20:    # 20 turns of 10 ms with no progress: the other side has stopped
            try:
                sent += self.sock.send(data[sent % len(data):])
                blocked = 0
            except BlockingIOError:
                blocked += 1
                self.group.turn(0.01)
            except ConnectionError:
                break
        return sent

    def send_bytewise(self, data):
        """A byte at a time; the other side has read each before the next is sent."""
        for byte in data:
            self.send_parts(bytes([byte]))

    def send_parts(self, *parts):
        """Each part by itself; the other side has read each before the next is sent."""
        for part in parts:
            self.send_raw(part)
            self.drained()

    def drained(self, timeout=TIMEOUT):
        """Waits until the process at the other end has read all we sent (both ends in this namespace)."""
        wait_until(lambda: not self._unread(), f"{self.name}: the other side does not read", timeout,
                   lambda _: time.sleep(0.0001))

    def _unread(self):
        if struct.unpack("i", fcntl.ioctl(self.sock, termios.TIOCOUTQ, b"\0\0\0\0"))[0]:
            return True
        return unread_at(self.sock.family, self.sock.getpeername(), self.sock.getsockname()) > 0

    # Commands, the client's way

    def ask(self, line, *wanted):
        """Sends a command; its reply begins with one of the wanted."""
        self.send(line)
        return self.expect(*wanted or ("2",))

    # The connection itself

    def half_close(self):
        self.sock.shutdown(socket.SHUT_WR)

    def close(self):
        self.closed = True
        self.sock.close()

    def reset(self):
        """The other side sees ECONNRESET."""
        self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.close()

    def start_tls(self, context, timeout=TIMEOUT):
        """Serves the handshake; the connection is TLS from here on. Another thread that shuts the socket down ends it."""
        self.sock.settimeout(timeout)
        self.sock = context.wrap_socket(self.sock, server_side=True, do_handshake_on_connect=False)
        try:
            self.sock.do_handshake()
        except OSError:
            self.sock.close()
            raise
        self.sock.setblocking(False)
        self.absorb()

    def begin_tls(self, context, name=None, timeout=TIMEOUT):
        """The client's side of the handshake."""
        assert not self.buffer, f"{self.name}: {bytes(self.buffer[:300])!r} ahead of TLS"
        self.sock.settimeout(timeout)
        try:
            self.sock = context.wrap_socket(self.sock, server_hostname=name)
        except OSError:     # the socket is gone with it
            self.closed = True
            raise
        self.sock.setblocking(False)
        self.absorb()


class Listener:
    """A listening socket in the namespace of the calling thread, or at a path; accept() gives a Peer."""

    def __init__(self, address="127.0.0.1", port=0, group=None, name="server", backlog=512):
        self.group, self.name, self.address, self.port = group, name, str(address), port
        if self.address[0] == "/":
            self.sock = socket.socket(socket.AF_UNIX)
            self.sock.bind(self.address)
            self.sock.listen(backlog)
            return
        family = socket.AF_INET6 if ":" in address else socket.AF_INET
        self.sock = socket.create_server((address, port), family=family, backlog=backlog)
        self.port = self.sock.getsockname()[1]

    @property
    def name_port(self):
        if self.address[0] == "/":
            return self.address
        return f"[{self.address}]:{self.port}" if ":" in self.address else f"{self.address}:{self.port}"

    def accept(self, timeout=TIMEOUT):
        self.sock.settimeout(timeout)
        return Peer(self.sock.accept()[0], self.group, self.name)

    def nobody(self, seconds=0.05):
        """No connection is waiting, nor comes in a moment."""
        assert not select.select([self.sock], [], [], seconds)[0], "an unexpected connection"

    def close(self):
        self.sock.close()


def connect(address, port, group=None, source=None):
    return Peer(socket.create_connection((address, port), TIMEOUT, source), group, "client")


ABSTRACT_SOCKETS = """
import socket, sys
made = []
for name in sys.argv[1:]:
    for kind in socket.SOCK_DGRAM, socket.SOCK_SEQPACKET:
        made.append(socket.socket(socket.AF_UNIX, kind))
        made[-1].bind("\\0" + name)
    made[-1].listen()
print("ready", flush=True)
sys.stdin.read()
"""


@contextlib.contextmanager
def abstract_sockets(names, user):
    """Unix sockets of another user with these abstract names, for datagrams and for connections."""
    with subprocess.Popen([sys.executable, "-c", ABSTRACT_SOCKETS, *names], user=user, stdin=subprocess.PIPE,
                          stdout=subprocess.PIPE) as holder:
        assert holder.stdout.readline() == b"ready\n"
        yield
        holder.stdin.close()


class MailServer:
    """A server in a thread per connection that does its duty, but for what it is told:

    extensions  its EHLO list
    tls         an ssl.SSLContext: offers STARTTLS; implicit=True: TLS from the first byte
    replies     verb -> reply text for commands it shall answer differently ("." is the end of data); a callable gets
                the command line; None as reply means no answer at all
    helo_only   EHLO is unknown
    address     may be the path of a Unix socket, for LMTP
    lmtp        it speaks LMTP: "." gives the reply for one recipient, a callable gets that one
    banner      text of its greeting
    orderly     it ends TLS with close_notify at QUIT, without which OpenSSL forgets the session
    conversation  class of its conversations: a Conversation that does more than replies can say

    messages holds a dict of each message taken (from, to, data, tls), peers every connection, commands every command.
    """

    def __init__(self, *extensions, address="127.0.0.1", port=0, tls=None, implicit=False, replies=None,
                 helo_only=False, lmtp=False, banner="220 server.example ESMTP ready", orderly=False, conversation=None):
        self.orderly, self.conversation = orderly, conversation or Conversation
        self.extensions, self.tls, self.implicit, self.banner, self.lmtp = extensions, tls, implicit, banner, lmtp
        unknown = ["EHLO", "HELO"] if lmtp else ["EHLO", "LHLO"] if helo_only else ["LHLO"]
        self.replies = {verb: "500 5.5.1 what?" for verb in unknown}
        self.replies.update(replies or {})
        self.listener = Listener(address, port)
        self.port, self.name_port = self.listener.port, self.listener.name_port
        self.url = self.name_port
        if lmtp:
            self.url = ("lmtp:unix:" if self.url[0] == "/" else "lmtp://") + self.url
        self.messages, self.peers, self.commands, self.errors = [], [], [], []
        self.threads = [threading.Thread(target=self._accept, daemon=True)]
        self.threads[0].start()

    def _accept(self):
        while True:
            try:
                sock, _ = self.listener.sock.accept()
            except OSError:     # closed
                return
            peer = Peer(sock, name="server")
            self.peers.append(peer)
            thread = threading.Thread(target=self._serve, args=(peer,), daemon=True)
            thread.start()
            self.threads.append(thread)

    def _serve(self, peer):
        try:
            if self.implicit:
                peer.start_tls(self.tls)
            peer.send(self.banner)
            conversation = self.conversation(self, peer)
            while conversation.command(peer.line(timeout=60)):
                pass
        except (Ended, OSError):
            pass                # the other side has gone, which tests do on purpose
        except Exception as error:  # pylint: disable=broad-except; handed to the test's thread by close()
            self.errors.append(error)
        finally:
            peer.close()

    def close(self):
        with contextlib.suppress(OSError):
            self.listener.sock.shutdown(socket.SHUT_RDWR)   # wakes accept()
        self.listener.close()
        for peer in self.peers:
            with contextlib.suppress(OSError):
                socket.socket.shutdown(peer.sock, socket.SHUT_RDWR)     # wakes poll(); ssl's own would go on in plain
        for thread in self.threads:
            thread.join(TIMEOUT)
        if self.errors:
            raise self.errors[0]


class Conversation:
    """One connection of a MailServer."""

    def __init__(self, server, peer):
        self.server, self.peer = server, peer
        self.sender, self.recipients, self.chunks = None, [], b""

    def command(self, line):
        """Answers a command; False when the session is over."""
        verb = line.partition(" ")[0].upper()
        self.server.commands.append(line)
        own = self.server.replies.get(verb, "")
        if callable(own):
            own = own(line)
        if own is None:
            return True
        handler = getattr(self, f"do_{verb.lower()}", None)
        if own and not (verb == "DATA" and own.startswith("354")):
            self.peer.send(*own.split("\n"))
            return not own.startswith("421")
        if not handler:
            self.peer.send("500 5.5.1 unknown command")
            return True
        return handler(line) is not False

    def reset(self):
        self.sender, self.recipients, self.chunks = None, [], b""

    def do_ehlo(self, _):
        self.reset()
        offers = list(self.server.extensions)
        if self.server.tls and not self._encrypted():
            offers.append("STARTTLS")
        lines = ["server.example", *offers]
        self.peer.send(*[f"250-{line}" for line in lines[:-1]], f"250 {lines[-1]}")

    do_lhlo = do_ehlo

    def do_helo(self, _):
        self.reset()
        self.peer.send("250 server.example")

    def do_starttls(self, _):
        self.peer.send("220 2.0.0 go ahead")
        self.peer.start_tls(self.server.tls)
        self.reset()

    def do_mail(self, line):
        if self.sender is not None:
            self.peer.send("503 5.5.1 nested MAIL")
            return
        self.sender = line[len("MAIL FROM:"):]
        self.peer.send("250 2.1.0 sender fine")

    def do_rcpt(self, line):
        if self.sender is None:
            self.peer.send("503 5.5.1 MAIL first")
            return
        self.recipients.append(line[len("RCPT TO:"):])
        self.peer.send("250 2.1.5 recipient fine")

    def do_data(self, _):
        if not self.recipients:
            self.peer.send("554 5.5.1 no valid recipients" if self.sender and not self.server.lmtp else
                           "503 5.5.1 MAIL first")
            return
        self.peer.send("354 go on")
        lines = [self.peer.until(b"\r\n", timeout=60)]
        while lines[-1] != b".\r\n":
            lines.append(self.peer.until(b"\r\n", timeout=60))
        self.finish(b"".join(lines))

    def do_bdat(self, line):
        words = line.split()
        self.chunks += self.peer.take(int(words[1]))
        if not self.recipients:
            self.chunks = b""
            self.peer.send("503 5.5.1 RCPT first")
        elif words[-1].upper() == "LAST":
            self.finish(self.chunks)
        else:
            self.peer.send("250 2.0.0 chunk taken")

    def finish(self, data):
        own = self.server.replies.get(".", "250 2.0.0 taken")
        message = {"from": self.sender, "data": data, "tls": self._encrypted()}
        replies = []
        for recipients in [[one] for one in self.recipients] if self.server.lmtp else [self.recipients]:
            replies.append(own(recipients[0]) if callable(own) else own)
            if (replies[-1] or "").startswith("2"):
                self.server.messages.append({**message, "to": recipients})
        self.reset()
        lines = [line for reply in replies if reply for line in reply.split("\n")]
        if lines:
            self.peer.send(*lines)

    def do_auth(self, _):
        self.peer.send("235 2.7.0 welcome")

    def do_rset(self, _):
        self.reset()
        self.peer.send("250 2.0.0 forgotten")

    def do_noop(self, _):
        self.peer.send("250 2.0.0 fine")

    def do_vrfy(self, _):
        self.peer.send("252 2.5.2 perhaps")

    def do_quit(self, _):
        self.peer.send("221 2.0.0 bye")
        if self.server.orderly:
            with contextlib.suppress(OSError):  # it does not wait for the other side's
                self.peer.sock.unwrap()
        self.peer.half_close()
        return False

    def _encrypted(self):
        return isinstance(self.peer.sock, ssl.SSLSocket)
