"""Network namespaces for tests, one set per test, nothing of the host's network touched.

    with netns.pair() as (client, mail):        # two hosts and a cable
        with mail:                              # this thread is on the mail host ...
            listener = socket.create_server((mail.ip4, 25))
            child = subprocess.Popen([...])     # ... and so are its sockets and children
        client.nft("table inet t { ... }")
        client.run(["swaks", "--server", mail.ip6, ...])

    with netns.single() as host:                # one host with 127.0.0.1 and ::1
        ...

A namespace has no name: it is held by a file descriptor and by the processes inside it. close() (also called at the
end of `with pair()` / `with single()`, by the garbage collector and at exit) kills those that are left and drops the
descriptor, so a failed test leaves nothing behind and parallel tests cannot meet. `with ns:` alone only enters and
leaves it. Needs root; unsupported() says why not.
"""
import contextlib
import ctypes
import fcntl
import ipaddress
import os
import re
import signal
import socket
import struct
import subprocess
import threading
import weakref

from waiting import wait_until

CLONE_NEWNET = 0x40000000
SIOCSIFFLAGS, IFF_UP = 0x8914, 1      # netdevice(7)
TCP_LISTEN = "0A"
RTF_LOCAL = 0x80000000    # linux/ipv6_route.h
THREAD_NS = "/proc/thread-self/ns/net"

_libc = ctypes.CDLL(None, use_errno=True)


def _checked(result):
    if result != 0:
        error = ctypes.get_errno()
        raise OSError(error, os.strerror(error))


def _new_namespace():
    """A descriptor of a new namespace. A thread makes it, so that the caller stays where it is."""
    made = []

    def make():
        try:
            _checked(_libc.unshare(CLONE_NEWNET))
            made.append(os.open(THREAD_NS, os.O_RDONLY | os.O_CLOEXEC))
        except OSError as error:
            made.append(error)

    thread = threading.Thread(target=make)
    thread.start()
    thread.join()
    if isinstance(made[0], OSError):
        raise made[0]
    return made[0]


def _processes_in(inode):
    """The processes in the namespace, but for this one, whose threads may be visiting."""
    for entry in os.listdir("/proc"):
        if entry.isdigit() and int(entry) != os.getpid():
            with contextlib.suppress(OSError):
                if os.stat(f"/proc/{entry}/ns/net").st_ino == inode:
                    yield int(entry)


def _kill_all(inode):
    """Kills until none is left: a process may fork while the list is read."""
    def none_left():
        pids = list(_processes_in(inode))
        for pid in pids:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        return not pids
    wait_until(none_left, lambda: f"processes {list(_processes_in(inode))} survive SIGKILL")


def _destroy(fd, owner):
    if os.getpid() != owner:    # a forked child's copy of the object is not the owner's
        return
    _kill_all(os.fstat(fd).st_ino)
    os.close(fd)


class NetNS:
    """One network namespace with lo up. ip4 and ip6 are the addresses that the host is reached under."""

    def __init__(self):
        self.ip4, self.ip6 = "127.0.0.1", "::1"
        self._fd = _new_namespace()
        self._visits = threading.local()
        self.close = weakref.finalize(self, _destroy, self._fd, os.getpid())
        self._bring_up_lo()

    @property
    def path(self):
        """For `nsenter --net=PATH` and `ip link set X netns PATH`, while this process lives."""
        return f"/proc/{os.getpid()}/fd/{self._fd}"

    def __enter__(self):
        """Moves the calling thread into the namespace. Blocks nest."""
        home = os.open(THREAD_NS, os.O_RDONLY | os.O_CLOEXEC)
        _checked(_libc.setns(self._fd, CLONE_NEWNET))
        self._visits.homes = [*getattr(self._visits, "homes", []), home]
        return self

    def __exit__(self, *_):
        home = self._visits.homes.pop()
        _checked(_libc.setns(home, CLONE_NEWNET))
        os.close(home)

    def _bring_up_lo(self):
        """As `ip link set lo up`, for thousands of tests without a process for each."""
        with self, socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as any_socket:
            fcntl.ioctl(any_socket, SIOCSIFFLAGS, struct.pack("16sh22x", b"lo", IFF_UP))

    def popen(self, argv, **options):
        with self:
            return subprocess.Popen(argv, **options)

    def run(self, argv, **options):
        """subprocess.run() inside; output is captured as text, a failure raises with its stderr, unless told else."""
        options = {"check": True, "capture_output": True, "text": True, "timeout": 60, **options}
        try:
            with self:
                return subprocess.run(argv, **options)
        except subprocess.CalledProcessError as error:
            raise RuntimeError(f"{argv}: exit {error.returncode}: {error.stdout}{error.stderr}") from error

    def ip(self, *commands):
        """ip(8) commands without the word `ip`, in one go. IPv6 addresses that it adds are usable when it returns."""
        output = self.run(["ip", "-batch", "-"], input="\n".join(commands) + "\n").stdout
        for address in re.findall(r"(?m)^addr add ([0-9a-f:]*:[0-9a-f:]*)", "\n".join(commands)):
            wait_until(lambda: self._is_local(address), f"a local route of {address}")  # pylint: disable=cell-var-from-loop
        return output

    def _is_local(self, address):
        """Whether the kernel takes the address for its own. A work queue of its does that, a moment after `ip addr add`."""
        with self, open("/proc/thread-self/net/ipv6_route") as file:
            rows = [line.split() for line in file]
        wanted = ipaddress.IPv6Address(address).packed.hex()
        return any(row[0] == wanted and int(row[8], 16) & RTF_LOCAL for row in rows)

    def nft(self, rules):
        """An nft(8) script; a chain's `type ...; policy ...;` line and every rule need a line of their own or a `;`."""
        return self.run(["nft", "-f", "-"], input=rules + "\n").stdout

    def sysctl(self, name, value):
        with self, open(f"/proc/sys/{name.replace('.', '/')}", "w") as file:
            file.write(str(value))

    def take_any_address(self):
        """Lets bind(2) take addresses that are not the host's, as for keepalived."""
        self.sysctl("net.ipv4.ip_nonlocal_bind", 1)
        self.sysctl("net.ipv6.ip_nonlocal_bind", 1)

    def listening_ports(self):
        """The TCP ports somebody listens on, IPv4 and IPv6 alike."""
        ports = set()
        for table in "tcp", "tcp6":
            with self, open(f"/proc/thread-self/net/{table}") as file:
                rows = [line.split() for line in file][1:]
            ports |= {int(row[1].rpartition(":")[2], 16) for row in rows if row[3] == TCP_LISTEN}
        return ports

    def abstract_names(self, start):
        """The names of Unix sockets that are no files and begin so."""
        with self, open("/proc/thread-self/net/unix") as file:
            return [name for line in file if (name := line.split()[-1]).startswith("@" + start)]

    def wait_listening(self, port, timeout=60, alive=lambda: True):
        """Until somebody listens on the port; alive() says whether that may still happen."""
        def listening():
            if not (found := port in self.listening_ports()) and not alive():
                raise RuntimeError(f"the server for port {port} has ended")
            return found
        wait_until(listening, f"somebody who listens on port {port}", timeout)


def cable(left, right, number=0):
    """A veth pair `vethN` on both, 10.0.N.1 and fd00:N::1 on the left, .2 and ::2 on the right; addresses usable at
    once (nodad). left.ip4 ... right.ip6 are set to them."""
    name = f"veth{number}"
    left.ip(f"link add {name} type veth peer name {name} netns {right.path}", f"link set {name} up")
    right.ip(f"link set {name} up")
    # Only now, with the cable live on both ends: before, an IPv6 address joins its multicast group a second late.
    for host, last in (left, 1), (right, 2):
        host.ip4 = f"10.0.{number}.{last}"
        host.ip6 = str(ipaddress.ip_address(f"fd00:{number}::{last}"))     # in its usual form: fd00::1 for fd00:0::1
        host.ip(f"addr add {host.ip4}/24 dev {name}", f"addr add {host.ip6}/64 dev {name} nodad")


@contextlib.contextmanager
def _closing(*hosts):
    try:
        yield hosts[0] if len(hosts) == 1 else hosts
    finally:
        for host in hosts:
            host.close()


def single():
    """`with single() as host`: one host, loopback only."""
    return _closing(NetNS())


def pair():
    """`with pair() as (client, mail)`: a client host (10.0.0.1, fd00::1) and a mail host (10.0.0.2, fd00::2), each
    the other's default route, so that any destination address can be tried."""
    client, mail = NetNS(), NetNS()
    cable(client, mail)
    for here, there in (client, mail), (mail, client):
        here.ip(f"route add default via {there.ip4}", f"route add ::/0 via {there.ip6}")
    return _closing(client, mail)


def unsupported():
    """Why there can be no namespaces here, or "". For pytest.mark.skipif."""
    if os.geteuid() != 0:
        return "needs root for network namespaces"
    with open("/proc/thread-self/status") as status:
        effective = int(re.search(r"^CapEff:\s*(\w+)", status.read(), re.M)[1], 16)
    return "" if effective >> 21 & 1 else "needs CAP_SYS_ADMIN for network namespaces"
