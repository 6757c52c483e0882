"""A Postfix whose mail is redirected to smtpwarp and that insists on TLS: README.md, "A mail server behind it, or in front".

smtp_tls_security_level = encrypt needs any TLS; dane needs the certificate that the server's TLSA record names, which only the server
has. The DNS says that it is signed (AD), and Postfix believes it.
"""
import hashlib
import re
import socket
import subprocess

import pytest

import certificates
import hosts
import mta
import nameservers
import netns
from waiting import wait_until

pytestmark = pytest.mark.skipif(bool(netns.unsupported()), reason=netns.unsupported())

SUBMIT_PORT = 10026     # not smtpwarp's
TLSA, NS, SIGNED = 52, 2, 0x81a0
RESOLVER = 'mount --bind "$1" /etc/resolv.conf; shift; exec "$@"'
SERVER = "mx.mail.test"


class Postfix(mta.Postfix):
    def __init__(self, host, level):
        super().__init__(host, relay=SERVER)
        self.level, self.port = level, SUBMIT_PORT

    def prepare(self):
        self.CLIENT = mta.Postfix.CLIENT.replace("{level}", self.level).replace("smtp_host_lookup = native", "smtp_host_lookup = dns")
        self.CLIENT += "smtp_dns_support_level = dnssec\nsmtp_address_preference = ipv4\n"
        super().prepare()
        self.write("resolv.conf", "nameserver 127.0.0.1\noptions edns0 trust-ad\n")

    def argv(self):
        return ["unshare", "--mount", "sh", "-ec", RESOLVER, "sh", self.directory / "resolv.conf", *super().argv()]

    def outcome(self):
        """What the first try to deliver comes to: its status, and why."""
        return wait_until(lambda: self.logfile.exists() and re.search(r"status=(\w+) \((.*)\)", self.logfile.read_text()), self.log).groups()


def zone(address, certificate):
    """The address of SERVER and its TLSA record, 3 1 1; a root, by which Postfix sees whether names are checked."""
    public = subprocess.run(f"openssl x509 -in {certificate} -noout -pubkey | openssl pkey -pubin -outform DER", shell=True, check=True,
                            capture_output=True).stdout
    known = {(SERVER, nameservers.A): socket.inet_aton(address),
             (f"_25._tcp.{SERVER}", TLSA): bytes([3, 1, 1]) + hashlib.sha256(public).digest(),
             ("", NS): b"\x01a\x00"}

    def answer(query, _):
        kind = nameservers.query_type(query)
        data = known.get((nameservers.query_name(query)[0].lower(), kind))
        return nameservers.reply(query, *([nameservers.record(kind, data)] if data else []), flags=SIGNED)
    return answer


CERTIFICATE = "--cert", "{cert}", "--key", "{key}"
PASSTHROUGH = "--client-tls", "passthrough"
SENT = "sent", "queued as"
NOT_OFFERED = "deferred", "TLS is required, but was not offered"
NOT_VERIFIED = "deferred", "Server certificate not verified"


@pytest.mark.parametrize("level, options, status", [
    ("encrypt", (), NOT_OFFERED), ("encrypt", CERTIFICATE, SENT), ("encrypt", PASSTHROUGH, SENT),
    ("dane", (), NOT_OFFERED), ("dane", CERTIFICATE, NOT_VERIFIED), ("dane", PASSTHROUGH, SENT)])
def test_postfix_that_insists_on_tls(level, options, status, tmp_path):
    pair = [tmp_path.chmod(0o755)] and certificates.Store(tmp_path / "certificates").pair("good")
    options = [option.format(cert=pair[0], key=pair[1]) for option in options]
    with hosts.network() as net:
        net.host.rules("nftables-output.nft")
        smtpwarp = net.host.popen([net.host.smtpwarp, "--listen", "localhost:10025", "--user", "smtpwarp", "--log", "none", *options])
        net.host.ns.wait_listening(hosts.PORT, alive=lambda: smtpwarp.poll() is None)
        with mta.Postfix(net.mail, certificate=True) as server:
            with net.host.ns:
                names = nameservers.Rude(zone(net.mail.ip4, server.directory / "tls/rsa.pem"), port=53)
            with names, Postfix(net.host.ns, level) as client:
                client.submit([mta.Mail("a@client.example", ["b@mail.test"], b"Subject: one\r\n\r\nA line.\r\n")])
                client.release()
                told, why = client.outcome()
                assert told == status[0] and status[1] in why
                server.wait_stored(told == "sent")
                assert ["using TLSv1" in mail.trace for mail in server.stored()] == [True] * (told == "sent")
