"""Real mail servers for tests: Postfix, Exim, OpenSMTPD, each with all its state in a directory of its own.

    with netns.pair() as (client, mail), \\
            mta.Exim(mail, certificate=True) as server, \\
            mta.Postfix(client, relay=mail.ip6) as sender:
        sender.submit([mta.Mail("a@b.test", ["c@d.test"], b"Subject: hi\\r\\n\\r\\nhello\\r\\n")])
        sender.release()
        server.wait_stored(1)
        assert server.stored()[0].content == ...

Without relay it is a server: it listens on port 25, IPv4 and IPv6, takes mail for anybody and stores each recipient's
copy as a file. With relay it is a client: it listens on SUBMIT_PORT of its host's loopback, queues what comes until
release(), and then sends everything to that address, port 25.

Postfix comes from the system, but sees neither its configuration nor its spool. Exim and OpenSMTPD, unpacked by
test/fetch-packages, have their paths and users compiled in: they run in a mount namespace in which /usr has the
packages on top, /var is the server's own directory, and /etc/passwd knows their users.
"""
import collections
import contextlib
import dataclasses
import functools
import glob
import hashlib
import os
import pathlib
import pwd
import re
import shutil
import signal
import smtplib
import socket
import subprocess
import tempfile

import certificates
from waiting import wait_until

SUBMIT_PORT = 10025
SIZE_LIMIT = 50_000_000
PACKAGES = pathlib.Path(__file__).resolve().parent.parent.parent / "build" / "pkg"
NAME = {True: "client.test", False: "mail.test"}    # by "is it a client"; a server must not meet its own name

DIE_WITH_PARENT = ["setpriv", "--pdeathsig", "TERM"]     # a test that is killed cannot clean up

# Sandboxed users: uid and gid.
USERS = {"Debian-exim": 64101, "opensmtpd": 64102, "opensmtpq": 64103}

SANDBOX = """
set -e
mount -t overlay -o lowerdir="$1/usr:/usr" none /usr
mount --bind "$2/var" /var
for file in passwd group resolv.conf; do mount --bind "$2/etc/$file" "/etc/$file"; done
shift 2
exec "$@"
"""

# What servers put on top of a message, and nothing else does.
TRACE = re.compile(rb"(?:(?:Return-path|Delivered-To|X-Original-To|Envelope-to|Delivery-date|Received):"
                   rb"[^\n]*\n(?:[ \t][^\n]*\n)*)*", re.I)
RETURN_PATH = re.compile(rb"^Return-path: <(.*)>$", re.I | re.M)
RECIPIENT = re.compile(rb"^(?:Delivered-To|Envelope-to): (.*)$", re.I | re.M)


@dataclasses.dataclass
class Mail:
    """A message to submit: content as it is on the wire, but for the stuffed dots; sender_params like "BODY=8BITMIME",
    recipient_params for all recipients."""
    sender: str
    recipients: list
    content: bytes
    sender_params: str = ""
    recipient_params: str = ""


@dataclasses.dataclass
class Stored:
    """A file that a server has delivered: one recipient's copy. Lines end in LF."""
    sender: str
    recipient: str
    trace: str
    content: bytes

    @classmethod
    def parse(cls, data):
        end = TRACE.match(data).end()
        trace = data[:end]
        sender = RETURN_PATH.search(trace)      # OpenSMTPD writes none for the null sender
        return cls(sender[1].decode() if sender else "", RECIPIENT.search(trace)[1].decode(),
                   trace.decode("utf-8", "replace"), data[end:])

    def identity(self):
        return self.sender, self.recipient, digest(self.content)


def digest(content):
    """Of a message's lines, whatever they end with: files have LF where the wire has CRLF. Exim puts the empty line
    that ends the header into an empty message, too."""
    content = content.replace(b"\r\n", b"\n")
    return hashlib.sha256(b"" if content == b"\n" else content).hexdigest()


def expected(mails):
    """The copies that servers must store, counted: to compare with Counter(s.identity() for s in server.stored())."""
    return collections.Counter((mail.sender, recipient, digest(mail.content))
                               for mail in mails for recipient in mail.recipients)


@functools.cache
def _certificates():
    """A directory of what make_certificate() copies: an RSA key takes its time."""
    made = tempfile.TemporaryDirectory(prefix="mta-tls-")   # pylint: disable=consider-using-with
    certificates.Store(pathlib.Path(made.name, "tls")).pair("rsa")
    return made


class Mta:
    """What the three have in common. `host` is the namespace, `certificate` whether STARTTLS is offered."""
    key_owner = "root"
    store_user = "nobody"       # owns the files of delivered mail
    offers_utf8 = True
    reports_envelope = True     # its delivery reports show ENVID and ORCPT
    tls_works = True

    def __init__(self, host, relay=None, certificate=False, trust=None, implicit=False):
        """trust: a client demands TLS, with a certificate for certificates.HOST that this CA has signed; implicit: from the
        first octet."""
        self.host, self.relay, self.certificate, self.trust, self.implicit = host, relay, certificate, trust, implicit
        self.port = SUBMIT_PORT if relay else 25
        self.directory = pathlib.Path(tempfile.mkdtemp(prefix=f"mta-{type(self).__name__.lower()}-"))
        self.directory.chmod(0o711)     # other users' processes work below it
        self.mail = self.folder("mail")
        for name in "tmp", "new", "cur":
            self.folder(f"mail/{name}", self.store_user)
        self.process = None

    def __enter__(self):
        try:
            if self.certificate:
                self.make_certificate()
            if self.trust:      # where every user can read it
                self.trust = self.write("trust.pem", pathlib.Path(self.trust).read_text())
            self.prepare()
            self.start()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_):
        self.stop()
        shutil.rmtree(self.directory)

    @property
    def encrypts(self):
        return self.certificate and self.tls_works

    @property
    def ca(self):
        return self.directory / "tls" / "ca.pem"

    def make_certificate(self):
        """tls/rsa.pem and tls/rsa.key, for certificates.HOST, signed by tls/ca.pem."""
        shutil.copytree(pathlib.Path(_certificates().name, "tls"), self.directory / "tls")
        key = self.directory / "tls/rsa.key"
        key.chmod(0o600)
        shutil.chown(key, self.key_owner)

    def folder(self, name, owner="root", mode=0o755):
        path = self.directory / name
        path.mkdir(parents=True)
        path.chmod(mode)
        shutil.chown(path, owner)
        return path

    def write(self, name, text):
        path = self.directory / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)
        os.utime(path, (0, 0))      # Postfix waits until its configuration is two seconds old
        return path

    def start(self):
        with open(self.directory / "output", "ab") as output:
            self.process = self.host.popen([*DIE_WITH_PARENT, *self.argv()], stdin=subprocess.DEVNULL,
                                           stdout=output, stderr=output, start_new_session=True)
        try:
            self.host.wait_listening(self.port, alive=lambda: self.process.poll() is None)
        except Exception as error:
            raise RuntimeError(f"{type(self).__name__} does not start: {self.log()}") from error

    def stop(self):
        """Its whole process group at once: nothing in it is worth an orderly end."""
        if self.process:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()
            self.process = None

    def submit(self, mails):
        """Queues them, in one session."""
        with self.host, smtplib.SMTP("127.0.0.1", self.port, timeout=60) as smtp:
            smtp.ehlo("test.test")
            smtp.command_encoding = "utf-8"
            for mail in mails:
                self._submit(smtp, mail)

    @staticmethod
    def _submit(smtp, mail):
        def say(command, reply):
            got = smtp.docmd(command)
            if got[0] != reply:
                raise RuntimeError(f"{command}: {got}")

        say(f"MAIL FROM:<{mail.sender}> {mail.sender_params}".rstrip(), 250)
        for recipient in mail.recipients:
            say(f"RCPT TO:<{recipient}> {mail.recipient_params}".rstrip(), 250)
        say("DATA", 354)
        smtp.send(re.sub(rb"(?m)^\.", b"..", mail.content) + b".\r\n")
        code, text = smtp.getreply()
        if code != 250:
            raise RuntimeError(f"data: {code} {text}")

    def files(self):
        return glob.glob(f"{self.mail}/new/*")

    def stored(self):
        return [Stored.parse(pathlib.Path(file).read_bytes()) for file in self.files()]

    def wait_stored(self, count, timeout=120):
        wait_until(lambda: len(self.files()) >= count,
                   lambda: f"{len(self.files())} of {count} mails are stored; {self.log()}", timeout)

    def wait_idle(self, timeout=120):
        wait_until(lambda: not self.queued(), lambda: f"mails stay in the queue: {self.queued()}; {self.log()}", timeout)

    def log(self):
        """The end of what it wrote to its log, for failures."""
        texts = [path.read_text(errors="replace") for path in (self.directory / "output", self.logfile)
                 if path.exists()]
        return "\n".join(texts)[-4000:]

    def files_below(self, *patterns):
        return [file for pattern in patterns for file in glob.glob(f"{self.directory}/{pattern}", recursive=True)]


class Postfix(Mta):
    """Offers PIPELINING SIZE VRFY ETRN STARTTLS ENHANCEDSTATUSCODES 8BITMIME DSN SMTPUTF8 CHUNKING; sends no BDAT."""

    MAIN = """
compatibility_level = 3.6
queue_directory = {directory}/queue
data_directory = {directory}/data
maillog_file = {directory}/log/maillog
maillog_file_prefixes = {directory}/log
myhostname = {name}
inet_interfaces = {interfaces}
mydestination =
local_header_rewrite_clients =
mynetworks = 0.0.0.0/0 [::]/0
smtpd_peername_lookup = no
smtpd_recipient_limit = 2000
smtpd_client_connection_count_limit = 0
message_size_limit = {size}
alias_maps =
smtpd_tls_received_header = yes
"""
    SERVER = """
virtual_mailbox_domains = static:all
mailbox_size_limit = 0
virtual_mailbox_limit = 0
virtual_mailbox_base = {mail}
virtual_mailbox_maps = static:./
virtual_uid_maps = static:{uid}
virtual_gid_maps = static:{gid}
smtpd_relay_restrictions = permit_mynetworks, reject
"""
    # Nothing in between may change the message: neither line folding nor conversion.
    CLIENT = """
relayhost = [{relay}]:25
smtp_line_length_limit = 0
smtp_destination_recipient_limit = 1000
smtp_host_lookup = native
smtp_tls_security_level = {level}
smtp_tls_wrappermode = {wrapper}
smtp_tls_CAfile = {trust}
smtp_tls_secure_cert_match = {host}
smtpd_relay_restrictions = check_client_access static:HOLD, permit_mynetworks, reject
"""
    TLS = """
smtpd_tls_security_level = may
smtpd_tls_chain_files = {directory}/tls/rsa.key {directory}/tls/rsa.pem
"""
    MASTER = """
{port} inet n - n - - smtpd
cleanup unix n - n - 0 cleanup
qmgr unix n - n 300 1 qmgr
tlsmgr unix - - n 1000? 1 tlsmgr
proxymap unix - - n - - proxymap
rewrite unix - - n - - trivial-rewrite
bounce unix - - n - 0 bounce
defer unix - - n - 0 bounce
trace unix - - n - 0 bounce
smtp unix - - n - - smtp
error unix - - n - - error
retry unix - - n - - error
virtual unix - n n - - virtual
anvil unix - - n - 1 anvil
scache unix - - n - 1 scache
postlog unix-dgram n - n - 1 postlogd
"""

    @property
    def logfile(self):
        return self.directory / "log" / "maillog"

    def prepare(self):
        user = pwd.getpwnam(self.store_user)
        values = dict(directory=self.directory, mail=self.mail, relay=self.relay, size=SIZE_LIMIT, uid=user.pw_uid,
                      gid=user.pw_gid, name=NAME[bool(self.relay)],
                      interfaces="loopback-only" if self.relay else "all", trust=self.trust or "",
                      level="secure" if self.trust else "none", wrapper="yes" if self.implicit else "no",
                      host=certificates.HOST)
        parts = self.MAIN, self.CLIENT if self.relay else self.SERVER, self.TLS if self.certificate else ""
        self.write("etc/main.cf", "".join(parts).format(**values))
        self.write("etc/master.cf", self.MASTER.format(port=self.port))
        self.folder("log")
        self.folder("data", "postfix", 0o700)
        self.folder("queue/pid")
        for name in "active bounce corrupt defer deferred flush hold incoming private saved trace".split():
            self.folder(f"queue/{name}", "postfix", 0o700)
        self.folder("queue/public", "postfix", 0o710)
        self.folder("queue/maildrop", "postfix", 0o730)

    def argv(self):
        program = pathlib.Path(subprocess.check_output(["postconf", "-dh", "daemon_directory"], text=True).strip())
        return [program / "master", "-c", self.directory / "etc", "-d"]

    def release(self):
        """From the hold queue to the incoming one, and a byte that has the queue manager look there."""
        for file in self.files_below("queue/hold/*"):
            os.rename(file, f"{self.directory}/queue/incoming/{os.path.basename(file)}")
        with socket.socket(socket.AF_UNIX) as qmgr:
            qmgr.connect(f"{self.directory}/queue/public/qmgr")
            qmgr.send(b"I")

    def queued(self):
        # A mail may move from one to the next, or between the last two, while this looks.
        names = self.files_below(*(f"queue/{name}/**/[0-9A-F]*" for name in ("hold", "incoming", "deferred", "active", "deferred")))
        return [name for name in names if not os.path.isdir(name)]      # deferred ones stand in folders


class Sandboxed(Mta):
    """A server of an unpacked package."""
    packages = PACKAGES

    def sandbox(self, *argv):
        return ["unshare", "--mount", "sh", "-c", SANDBOX, "sandbox", self.packages, self.directory, *argv]

    def prepare(self):
        if not self.packages.exists():
            raise RuntimeError("run test/fetch-packages first")
        users = "".join(f"{name}:x:{uid}:{uid}::/nonexistent:/usr/sbin/nologin\n" for name, uid in USERS.items())
        groups = "".join(f"{name}:x:{uid}:\n" for name, uid in USERS.items())
        self.write("etc/passwd", users + pathlib.Path("/etc/passwd").read_text())
        self.write("etc/group", groups + pathlib.Path("/etc/group").read_text())
        self.write("etc/resolv.conf", "nameserver 127.0.0.1\n")     # refuses at once: no test waits for DNS
        self.folder("var/tmp", mode=0o1777)
        self.folder("var/run")


class Exim(Sandboxed):
    """Offers SIZE 8BITMIME DSN PIPELINING CHUNKING SMTPUTF8 STARTTLS; sends BDAT to servers that offer CHUNKING."""
    key_owner = store_user = USERS["Debian-exim"]

    CONFIG = """
primary_hostname = {name}
spool_directory = /var/spool/exim4
log_file_path = /var/log/%slog
local_interfaces = {interfaces}
daemon_smtp_ports = {port}
deliver_drop_privilege
queue_only = {queue_only}
keep_environment =
host_lookup =
rfc1413_query_timeout = 0s
acl_smtp_rcpt = accept
acl_smtp_data = accept
message_size_limit = {size}
smtp_accept_max = 200
smtp_accept_queue_per_connection = 0
smtp_accept_max_per_connection = 0
chunking_advertise_hosts = *
dsn_advertise_hosts = *
smtputf8_advertise_hosts = *
tls_advertise_hosts = {tls}
tls_certificate = {directory}/tls/rsa.pem
tls_privatekey = {directory}/tls/rsa.key

begin routers
everything:
  driver = {driver}

begin transports
store:
  driver = appendfile
  maildir_format
  directory = {mail}
  return_path_add
  envelope_to_add
  user = Debian-exim
send:
  driver = smtp
  port = 25
  message_linelength_limit = 1G
  max_rcpt = 0
  {client_tls}

begin retry
* * F,1h,1m
"""
    NO_TLS = "hosts_avoid_tls = *"
    DEMAND_TLS = """protocol = {protocol}
  hosts_require_tls = *
  tls_verify_certificates = {trust}
  tls_verify_hosts = *
  tls_verify_cert_hostnames ="""
    STORE = "accept\n  transport = store"
    SEND = "manualroute\n  route_list = * {relay}\n  transport = send\n  self = send"
    RUNNERS = 4     # each sends one message at a time

    @property
    def logfile(self):
        return self.directory / "var" / "log" / "mainlog"

    def prepare(self):
        super().prepare()
        relay = f'"<+ {self.relay}"'
        interfaces = "127.0.0.1" if self.relay else "<; 0.0.0.0 ; ::0"
        config = self.CONFIG.format(
            name=NAME[bool(self.relay)], interfaces=interfaces, port=self.port, size=SIZE_LIMIT, mail=self.mail,
            client_tls=self.DEMAND_TLS.format(
                trust=self.trust, protocol="smtps" if self.implicit else "smtp") if self.trust else self.NO_TLS,
            queue_only=bool(self.relay), tls="*" if self.certificate else "", directory=self.directory,
            driver=self.SEND.format(relay=relay) if self.relay else self.STORE)
        self.folder("var/lib/exim4")
        self.write("var/lib/exim4/config.autogenerated", config)
        self.folder("var/spool/exim4", USERS["Debian-exim"])
        self.folder("var/log", USERS["Debian-exim"])

    def argv(self):
        return self.sandbox("exim4", "-bdf")

    def release(self):
        runners = [self.host.popen(self.sandbox("exim4", "-q")) for _ in range(self.RUNNERS)]
        for runner in runners:
            runner.wait()

    def queued(self):
        return self.files_below("var/spool/exim4/input/*-H")


class OpenSMTPD(Sandboxed):
    """Offers 8BITMIME ENHANCEDSTATUSCODES SIZE DSN HELP STARTTLS: neither PIPELINING nor SMTPUTF8. Server only."""
    packages = PACKAGES / "bookworm-backports"
    offers_utf8 = False
    reports_envelope = False

    CONFIG = """
{pki}
table everyone {{ "@" = "{user}" }}
listen on 0.0.0.0 port 25 hostname mail.test {tls}
listen on :: port 25 hostname mail.test {tls}
smtp max-message-size {size}
smtp limit max-mails 10000
smtp limit max-rcpt 10000
action "store" maildir "{mail}" virtual <everyone>
match from any for any action "store"
"""
    PKI = 'pki mail.test cert "{directory}/tls/rsa.pem"\npki mail.test key "{directory}/tls/rsa.key"'

    @property
    def logfile(self):
        return self.directory / "nothing"   # all goes to stderr

    def prepare(self):
        super().prepare()
        pki = self.PKI.format(directory=self.directory) if self.certificate else ""
        self.write("smtpd.conf", self.CONFIG.format(
            pki=pki, tls="tls pki mail.test" if self.certificate else "", user=self.store_user, size=SIZE_LIMIT,
            mail=self.mail))
        self.folder("var/spool/smtpd", mode=0o711)
        self.folder("var/lib/opensmtpd/empty")

    def argv(self):
        return self.sandbox("smtpd", "-d", "-f", self.directory / "smtpd.conf")

    def queued(self):
        return self.files_below("var/spool/smtpd/queue/*/*")


class OpenSMTPD68(OpenSMTPD):
    """That of Debian 12. It offers STARTTLS, but every handshake ends in its `internal error` (it cannot use its keys
    through OpenSSL 3), as in https://github.com/OpenSMTPD/OpenSMTPD/issues/1171: a server to fall back from."""
    packages = PACKAGES
    tls_works = False
