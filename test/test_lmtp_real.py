"""LMTP with real programs: Postfix and Exim as clients, by SMTP and by LMTP, and Dovecot behind smtpwarp. Every recipient that
is accepted has exactly one copy, identical. PROTOCOL 53; with 40, 45, 54 and 58 as they are met on the way."""
import collections
import contextlib
import fcntl
import pathlib
import pwd
import re
import shutil

import pytest

import mta
import netns
from test_hooks_route import retry
from waiting import wait_until

pytestmark = [
    pytest.mark.skipif(bool(netns.unsupported()), reason=netns.unsupported() or ""),
    pytest.mark.skipif(not mta.PACKAGES.exists(), reason="test/fetch-packages has not been run"),
]

USERS = [f"user{number}" for number in range(8)]
DOOR = "127.0.0.9"


class Dovecot(mta.Mta):
    """Offers 8BITMIME CHUNKING ENHANCEDSTATUSCODES PIPELINING STARTTLS VRFY and, on loopback, XCLIENT. It knows USERS and one
    with no room, and says so after the dot."""
    CONFIG = """
base_dir = {directory}/run
state_dir = {directory}/state
log_path = {directory}/log
protocols = lmtp
listen = 127.0.0.1
login_trusted_networks = {trusted}
mail_location = maildir:{mail}/%n
first_valid_uid = 1
mail_plugins = quota
plugin {{
  quota = maildir:User quota
}}
passdb {{
  driver = static
  args = nopassword=y
}}
userdb {{
  driver = passwd-file
  args = username_format=%n {directory}/users
}}
service lmtp {{
  process_min_avail = 2
  inet_listener lmtp {{
    port = 24
  }}
  unix_listener {directory}/socket {{
    mode = 0666
  }}
}}
ssl = {ssl}
{tls}
"""
    TLS = "ssl_cert = <{directory}/tls/rsa.pem\nssl_key = <{directory}/tls/rsa.key\n"

    def __init__(self, host, certificate=False, trusted=""):
        super().__init__(host, certificate=certificate)
        self.port, self.trusted = 24, trusted

    @property
    def logfile(self):
        return self.directory / "log"

    def prepare(self):
        user = pwd.getpwnam(self.store_user)
        lines = [f"{name}::{user.pw_uid}:{user.pw_gid}::{self.mail}/{name}::" for name in (*USERS, "full")]
        lines[-1] += "userdb_quota_rule=*:bytes=10"
        self.write("users", "".join(f"{line}\n" for line in lines))
        shutil.chown(self.mail, self.store_user)
        self.write("dovecot.conf", self.CONFIG.format(
            directory=self.directory, mail=self.mail, trusted=self.trusted, ssl="yes" if self.certificate else "no",
            tls=self.TLS.format(directory=self.directory) if self.certificate else ""))

    def argv(self):
        return ["dovecot", "-F", "-c", self.directory / "dovecot.conf"]

    def files(self):
        return self.files_below("mail/*/new/*")

    def copies(self):
        """Recipient and message, with how often it has it."""
        found = collections.Counter()
        for file in map(pathlib.Path, self.files()):
            data = file.read_bytes()
            found[file.parts[-3], mta.digest(data[mta.TRACE.match(data).end():])] += 1
        return found


class LmtpPostfix(mta.Postfix):
    """A client that speaks LMTP to where smtpwarp listens."""
    CLIENT = mta.Postfix.CLIENT.replace("relayhost = [{relay}]:25", "default_transport = lmtp:inet:[{relay}]:25")
    MASTER = mta.Postfix.MASTER + "lmtp unix - - n - - lmtp\n"


class SinglePostfix(mta.Postfix):
    """One that brings each recipient by itself."""
    CLIENT = mta.Postfix.CLIENT + "smtp_destination_recipient_limit = 1\n"


class SmtpExim(mta.Exim):
    """The same. It sends BDAT to servers that offer it; it does not keep a bounce that nobody wants."""
    CONFIG = "ignore_bounce_errors_after = 0s\n" + mta.Exim.CONFIG.replace("max_rcpt = 0", "max_rcpt = 1")


class LmtpExim(SmtpExim):
    CONFIG = SmtpExim.CONFIG.replace("max_rcpt = 1", "protocol = lmtp")


@pytest.fixture
def dovecot(host):
    with contextlib.ExitStack() as closing:
        yield lambda **options: closing.enter_context(Dovecot(host, **options))


def copies_of(mails):
    """What copies() is to be."""
    return collections.Counter((name, mta.digest(mail.content)) for mail in mails for name in USERS)


def mails(count):
    """To all, to one that is full and to one that there is not."""
    recipients = [f"{name}@mail.test" for name in (*USERS[:4], "full", *USERS[4:], "nobody")]
    return [mta.Mail("", recipients, b"Subject: m%d\r\n\r\n..\r\n.hello \xe4\r\n%s" % (n, b"line\r\n" * (n * 100)))
            for n in range(count)]


def is_free(file):
    """Whether no process of Postfix has locked the file."""
    with contextlib.suppress(FileNotFoundError), open(file, "rb") as queued:
        try:
            fcntl.flock(queued, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
    return True


def end(sender):
    """All of it is delivered or refused. What Postfix has put off is tried again, once its client has let go of the file."""
    def ended():
        if isinstance(sender, mta.Postfix) and not sender.files_below("queue/active/*", "queue/incoming/*") and \
                all(map(is_free, sender.files_below("queue/deferred/*/*"))):
            retry(sender)
        return not sender.queued()
    wait_until(ended, sender.log, 120)


@pytest.mark.parametrize("sender_class", [mta.Postfix, SinglePostfix, LmtpPostfix, SmtpExim, LmtpExim])
@pytest.mark.parametrize("options", [[], ["--connect-on", "recipient"]], ids=["early", "late"])
def test_53_one_copy_each(host, warp, dovecot, sender_class, options):
    count = 2 if sender_class is mta.Postfix else 10    # whose recipients come one by one, in as many attempts
    server = dovecot(certificate=True)
    proxy = warp("--upstream", "lmtp://127.0.0.1", *options).listen(f"{DOOR}:25")
    sent = mails(count)
    with sender_class(host, relay=DOOR) as sender:
        sender.submit(sent)
        sender.release()
        end(sender)
    assert server.copies() == copies_of(sent)
    records = proxy.records("message")
    codes = collections.Counter((recipient["address"].partition("@")[0], recipient["code"])
                                for record in records for recipient in record["rcpt_to"] if recipient["code"] != 452)
    assert codes == {**{(name, 250): count for name in USERS}, ("full", 552): count, ("nobody", 550): count}
    assert all(record["server"]["tls"] for record in records)
    assert max(len([recipient for recipient in record["rcpt_to"] if recipient["code"] in (250, 552)])
               for record in records) == (9 if "Lmtp" in sender_class.__name__ else 1)


@pytest.mark.parametrize("sender_class", [SinglePostfix, LmtpPostfix])
def test_53_dovecot_at_its_socket(host, warp, dovecot, sender_class):
    server = dovecot()
    proxy = warp("--upstream", f"lmtp:unix:{server.directory}/socket").listen(f"{DOOR}:25")
    sent = mails(3)
    with sender_class(host, relay=DOOR) as sender:
        sender.submit(sent)
        sender.release()
        end(sender)
    assert server.copies() == copies_of(sent)
    assert {record["server"]["path"] for record in proxy.records("message")} == {f"{server.directory}/socket"}


def test_53_45_exim_sends_bdat(host, warp, dovecot):
    server = dovecot()
    proxy = warp("--upstream", "lmtp://127.0.0.1", "--verbose").listen(f"{DOOR}:25")
    sent = mails(3)
    with LmtpExim(host, relay=DOOR) as sender:
        sender.submit(sent)
        sender.release()
        sender.wait_idle(60)
    assert len([record for record in proxy.records("comm") if record["data"].startswith("BDAT")]) == 3
    assert server.copies() == copies_of(sent)


@pytest.mark.parametrize("verb, kind", [("EHLO", "ESMTP"), ("LHLO", "LMTP")])
def test_53_54_58_dovecot_over_tls_knows_the_client(host, warp, dovecot, verb, kind):
    """XCLIENT inside of TLS; Received has the client's address, and Delivered-To its recipient."""
    server = dovecot(certificate=True, trusted="127.0.0.0/8")
    proxy = warp("--upstream", "lmtp://127.0.0.1", "--tls", "encrypt", "--xclient", "--verbose").listen(f"{DOOR}:25")
    client = proxy.connect(DOOR, 25, source=("127.0.0.7", 0))
    client.expect("220")
    assert "XCLIENT" not in client.ask(f"{verb} client.example", "250")
    client.send("MAIL FROM:<>", "RCPT TO:<user1@mail.test>", "RCPT TO:<full@mail.test>", "DATA")
    codes = client.replies_to(354)
    assert codes == [250, 250, 452 if verb == "EHLO" else 250, 354]
    client.send("Subject: x", "", ".")
    client.expect("250 2.0.0 <user1@mail.test>")
    if verb == "LHLO":
        client.expect("552 5.2.2 <full@mail.test>")
    client.ask("QUIT", "221")
    with open(server.files()[0]) as file:
        text = file.read()
    assert re.search(r"Received: from client\.example \(.*\[127\.0\.0\.7\]\)", text), text
    told, = [record["data"] for record in proxy.records("comm") if record["data"].startswith("XCLIENT")]
    assert f" PROTO={kind} " in f"{told} "
