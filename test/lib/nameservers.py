"""Name servers for lists of clients: NSD with zones of a test's own, and a rude one.

    with Nsd(host, directory, {"bl.test": ["2.0.0.127 A 127.0.0.2"]}) as server: ...
    with Rude(answer) as server: ...        # answer(query, tcp) -> bytes, a list of them (datagrams), or None

Rude is scripted: it plays servers that are broken or hostile.
"""
import contextlib
import ipaddress
import select
import socket
import struct
import subprocess
import threading
import time

from waiting import TIMEOUT

A, CNAME, PTR, TXT, AAAA = 1, 5, 12, 16, 28


def reversed_name(address, zone="bl.test"):
    """RFC 5782 2.1, 2.4."""
    name = ipaddress.ip_address(address).reverse_pointer
    return name.removesuffix(".in-addr.arpa").removesuffix(".ip6.arpa") + "." + zone


class Nsd:
    """zones: name -> lines of the zone, names relative to it. edit(name, path) may change the file of a zone."""

    CONFIG = """
server:
    ip-address: {address}@{port}
    username: ""
    chroot: ""
    server-count: 1
    database: ""
    zonesdir: "{directory}"
    xfrdir: "{directory}"
    xfrdfile: ""
    zonelistfile: "{directory}/zones.list"
    pidfile: ""
    rrl-ratelimit: 0
remote-control:
    control-enable: no
"""
    ZONE = """
zone:
    name: "{name}"
    zonefile: "{name}.zone"
"""

    def __init__(self, host, directory, zones, address="127.0.0.1", port=53, edit=lambda name, path: None):
        self.address = address
        directory.mkdir(exist_ok=True)
        config = self.CONFIG.format(directory=directory, address=address, port=port)
        for name, lines in zones.items():
            head = f"$ORIGIN {name.rstrip('.')}.\n$TTL 60\n@ SOA ns hostmaster 1 3600 600 86400 60\n@ NS ns\nns A {address}\n"
            (directory / f"{name}.zone").write_text(head + "\n".join(lines) + "\n")
            edit(name, directory / f"{name}.zone")
            config += self.ZONE.format(name=name)
        (directory / "nsd.conf").write_text(config)
        self.process = host.popen(["nsd", "-d", "-c", directory / "nsd.conf"], stdin=subprocess.DEVNULL,
                                  stdout=subprocess.DEVNULL, stderr=open(directory / "errors", "wb"))
        try:
            host.wait_listening(port, alive=lambda: self.process.poll() is None)
        except Exception as error:
            self.close()
            raise RuntimeError((directory / "errors").read_text()) from error

    def close(self):
        self.process.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.process.wait(5)
        self.process.kill()
        self.process.wait()

    __enter__ = lambda self: self
    __exit__ = lambda self, *_: self.close()


def query_name(query):
    """The question's name, and where it ends."""
    labels, at = [], 12
    while query[at]:
        labels.append(query[at + 1:at + 1 + query[at]].decode())
        at += 1 + query[at]
    return ".".join(labels), at + 1


def written(name):
    """As messages have it."""
    return b"".join(bytes([len(label)]) + label.encode() for label in name.split(".")) + b"\0"


def query_type(query):
    return struct.unpack_from("!H", query, query_name(query)[1])[0]


def record(kind, data, name=b"\xc0\x0c", ttl=60):
    return name + struct.pack("!HHIH", kind, 1, ttl, len(data)) + data


def reply(query, *records, flags=0x8180, ident=None, question=None, counts=None):
    """An answer to a query, as it should be but for what is given."""
    end = query_name(query)[1] + 4
    ident = struct.unpack("!H", query[:2])[0] if ident is None else ident
    counts = counts or (1, len(records), 0, 0)
    return struct.pack("!HH4H", ident, flags, *counts) + (question or query[12:end]) + b"".join(records)


def listed(query, address="127.0.0.2"):
    return reply(query, record(A, socket.inet_aton(address)))


class Rude:
    """A server on 127.0.0.1, UDP and TCP, that says what it is told; queries has all it was asked."""

    def __init__(self, answer, address="127.0.0.1", port=0):
        self.answer, self.queries, self.sources = answer, [], []
        for _ in range(100):        # a port of both kinds
            self.tcp = socket.create_server((address, port))
            self.port = self.tcp.getsockname()[1]
            self.udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
            try:
                self.udp.bind((address, self.port))
                break
            except OSError:
                self.udp.close()
                self.tcp.close()
        self.other = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)   # for answers from elsewhere
        self.other.bind((address, 0))
        self.name_port = f"{address}:{self.port}"
        self.stopping = False
        self.thread = threading.Thread(target=self._run, daemon=True)
        self.thread.start()

    def _run(self):
        while not self.stopping:
            for sock in select.select([self.udp, self.tcp], [], [], 0.02)[0]:
                if sock is self.udp:
                    query, source = sock.recvfrom(4096)
                    self._note(query, source)
                    for datagram in self._said(query, False):
                        self.udp.sendto(datagram, source)
                else:
                    with contextlib.suppress(OSError):
                        self._serve(sock.accept()[0])

    def _note(self, query, source):
        self.queries.append(query)
        self.sources.append(source)

    def _said(self, query, tcp):
        said = self.answer(query, tcp)
        return [] if said is None else [said] if isinstance(said, bytes) else said

    def _serve(self, sock):
        with sock:
            sock.settimeout(TIMEOUT)
            size = struct.unpack("!H", sock.recv(2, socket.MSG_WAITALL))[0]
            query = sock.recv(size, socket.MSG_WAITALL)
            self.queries.append(query)
            for piece in self._said(query, True):
                sock.sendall(piece)
                time.sleep(0.01)

    def close(self):
        self.stopping = True
        self.thread.join(10)
        for sock in self.udp, self.tcp, self.other:
            sock.close()

    __enter__ = lambda self: self
    __exit__ = lambda self, *_: self.close()


def over_tcp(message):
    return struct.pack("!H", len(message)) + message
