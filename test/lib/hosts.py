"""Hosts to start smtpwarp on: network namespaces (netns.py) in which the user smtpwarp exists, /dev/log is the test's
and /run is empty, without a change to the machine that runs the tests.

    with hosts.network() as net:            # net.inside -- net.host -- net.mail
        net.serve()                         # a MailServer on port 25 of net.mail, IPv4 and IPv6
        net.host.nft("nftables-output.nft")
        net.host.popen([net.host.smtpwarp, "--listen", "127.0.0.1:10025", "--user", "smtpwarp"])
        net.host.ns.wait_listening(10025)
        hosts.deliver(net.host.ns, net.mail.ip4)
"""
import contextlib
import fcntl
import ipaddress
import json
import os
import pathlib
import pwd
import re
import shutil
import signal
import socket
import subprocess
import tempfile
import threading

import netns
import peers

ROOT = pathlib.Path(__file__).resolve().parent.parent.parent
UNITS = ROOT / "units"
SMTPWARP = pathlib.Path(os.environ.get("SMTPWARP", ROOT / "smtpwarp")).resolve()
USER = "smtpwarp"
PORT = 10025

# $1 is the directory of the Host. A copy of /dev, for a file in the machine's own would be seen by all.
PRIVATE_FILES = """
mount --bind "$1/passwd" /etc/passwd
mount --bind "$1/group" /etc/group
mount -t tmpfs -o mode=755 run /run
mount -t tmpfs -o mode=755 dev "$1/dev"
for node in null zero full random urandom tty; do
    : >"$1/dev/$node"
    mount --bind "/dev/$node" "$1/dev/$node"
done
ln -s /proc/self/fd "$1/dev/fd"
ln -s "$1/log" "$1/dev/log"
mount --move "$1/dev" /dev
shift
exec "$@"
"""

BANNER = "220 server.example ESMTP ready"
TRANSCRIPT = "".join(line + "\r\n" for line in (
    BANNER, "250 server.example", "250 2.1.0 sender fine", "250 2.1.5 recipient fine", "354 go on",
    "250 2.0.0 taken", "221 2.0.0 bye")).encode()


def families(rules):
    """The iptables that a rule file is for."""
    both = "output" in rules or "gateway" in rules
    return ["iptables", "ip6tables"] if both else [rules.partition("-")[0]]


def loaders(rules):
    """The commands that load a rule file from their standard input."""
    if rules.endswith(".nft"):
        return [["nft", "-f", "-"]]
    return [[f"{family}-restore", "--noflush"] for family in families(rules)]


class Syslog:
    """Receives what comes to a /dev/log."""

    def __init__(self, path):
        self.lines = []
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.sock.bind(str(path))
        path.chmod(0o666)
        self.thread = threading.Thread(target=self._receive, daemon=True)
        self.thread.start()

    def _receive(self):
        while line := self.sock.recv(65536):
            self.lines.append(line.decode())

    def close(self):
        self.sock.shutdown(socket.SHUT_RDWR)
        self.thread.join()
        self.sock.close()


class Host:
    def __init__(self, ns):
        self.ns = ns
        self.dir = pathlib.Path(tempfile.mkdtemp(prefix="smtpwarp-host-"))
        self.dir.chmod(0o755)       # smtpwarp's user comes in, too
        (self.dir / "dev").mkdir()
        self._users()
        self.smtpwarp = str(shutil.copy(SMTPWARP, self.dir / "smtpwarp"))
        self.syslog = Syslog(self.dir / "log")
        self.children = []

    def _users(self):
        for name, line in ("passwd", f"{USER}:x:993:993::/:/usr/sbin/nologin\n"), ("group", f"{USER}:x:993:\n"):
            text = pathlib.Path("/etc", name).read_text(encoding="utf-8")
            if not any(entry.startswith(f"{USER}:") for entry in text.splitlines()):
                text += line
            (self.dir / name).write_text(text, encoding="utf-8")

    @property
    def uid(self):
        with contextlib.suppress(KeyError):
            return pwd.getpwnam(USER).pw_uid
        return 993

    def _argv(self, argv):
        return ["unshare", "--mount", "sh", "-ec", PRIVATE_FILES, "sh", str(self.dir), *map(str, argv)]

    def popen(self, argv, **options):
        """The child's pid is that of argv itself."""
        child = self.ns.popen(self._argv(argv), stdin=subprocess.DEVNULL, **options)
        self.children.append(child)
        return child

    def run(self, argv, **options):
        return self.ns.run(self._argv(argv), **options)

    def rules(self, name, interface="veth1"):
        """Loads a rule file of units/, with the name of the inner interface changed as its user has to."""
        text = (UNITS / name).read_text(encoding="utf-8").replace("eth1", interface)
        for loader in loaders(name):
            self.run(loader, input=text)

    def listen_fds(self, sockets, argv, pid="$$", **options):
        """Starts argv as systemd does, with the sockets as descriptors 3, 4, ...; pid: what LISTEN_PID shall be."""
        high = [fcntl.fcntl(sock, fcntl.F_DUPFD, 100) for sock in sockets]
        moves = " ".join(f"{3 + i}<&{fd}" for i, fd in enumerate(high))
        closes = " ".join(f"{fd}<&-" for fd in high)
        script = f'exec {moves}; exec {closes}; export LISTEN_PID={pid} LISTEN_FDS={len(high)}; exec "$@"'
        child = self.popen(["bash", "-ec", script, "bash", *argv], pass_fds=high, **options)
        for fd in high:
            os.close(fd)
        return child

    def syslog_events(self):
        """The JSON records that have come to /dev/log so far."""
        heads = re.compile(r"<2\d>smtpwarp\[\d+\]: (?=\{)")         # facility mail
        return [json.loads(heads.sub("", line)) for line in list(self.syslog.lines) if heads.match(line)]

    def close(self):
        for child in self.children:
            if child.poll() is None:
                child.kill()
            child.communicate()
        self.ns.close()
        self.syslog.close()
        shutil.rmtree(self.dir)


class Network:
    """inside -- host -- mail: host is the gateway of inside, and mail that of host."""

    def __init__(self):
        self.inside, gateway, self.mail = netns.NetNS(), netns.NetNS(), netns.NetNS()
        for host in self.inside, gateway, self.mail:    # link-local addresses are used at once, not a second late
            host.sysctl("net.ipv6.conf.default.accept_dad", 0)
        gateway.sysctl("net.ipv4.ip_forward", 1)
        gateway.sysctl("net.ipv6.conf.all.forwarding", 1)
        netns.cable(self.inside, gateway, 1)
        netns.cable(gateway, self.mail)
        for here, there in (self.inside, "10.0.1.2 fd00:1::2"), (gateway, "10.0.0.2 fd00:0::2"), \
                (self.mail, "10.0.0.1 fd00:0::1"):
            via4, via6 = there.split()
            here.ip(f"route add default via {via4}", f"route add ::/0 via {via6}")
        self.host, self.servers = Host(gateway), []

    def serve(self, **options):
        with self.mail:
            self.servers = [peers.MailServer(address=address, port=25, banner=BANNER, **options)
                            for address in (self.mail.ip4, self.mail.ip6)]
        return self.servers

    @property
    def messages(self):
        return [message for server in self.servers for message in server.messages]

    def close(self):
        for server in self.servers:
            server.close()
        self.host.close()
        for host in self.inside, self.mail:
            host.close()


@contextlib.contextmanager
def network():
    net = Network()
    try:
        yield net
    finally:
        net.close()


def connect(ns, address, port=25):
    with ns:
        return peers.connect(address, port)


def greeted(ns, address, port=25):
    """A session that has a sender."""
    return greet(connect(ns, address, port))


def greet(client):
    client.expect("220")
    client.ask("HELO client.example")
    client.ask("MAIL FROM:<a@client.example>")
    return client


def finish_at_stop(client):
    """The rest of a greeted() session of a smtpwarp that is stopping: the message under way, and no more."""
    client.ask("RCPT TO:<b@server.example>")
    client.ask("DATA", "354")
    client.send("Subject: one", "", "A line.", ".")
    client.expect("250 2.0.0 taken")
    client.expect("421 4.3.2")
    client.expect_end()
    client.close()


def finish(client):
    """The rest of a greeted() session. Nothing but what the server sent may ever have been on the connection."""
    client.ask("RCPT TO:<b@server.example>")
    client.ask("DATA", "354")
    client.send("Subject: one", "", "A line.", ".")
    client.expect("250 2.0.0 taken")
    client.ask("QUIT", "221")
    client.expect_end()
    assert bytes(client.got) == TRANSCRIPT
    client.close()


def came_from(server, address):
    """Is the newest connection to the MailServer from there?"""
    source = server.peers[-1].sock.getpeername()[0]
    return ipaddress.ip_address(source) == ipaddress.ip_address(address)


def deliver(ns, address, port=25):
    """One message."""
    finish(greeted(ns, address, port))


def stop(child, timeout=peers.TIMEOUT):
    """SIGTERM; the exit code."""
    child.send_signal(signal.SIGTERM)
    return child.wait(timeout)
