"""Zones that are signed, and a resolver that validates: NSD and unbound in a test's own namespace.

    with Signed(host, directory, zones, signed={"good.example": {}, "old.example": {"expired": True}}) as lab:
        lab.address                     # of the resolver, port 53: it sets AD for what it has validated
    tlsa("3 1 1", certificate)          # the words of a TLSA record about a certificate, PEM

zones is as for Nsd; a zone that is not in `signed` is none that anybody vouches for. There is no root: each signed zone has a trust anchor.
"""
import datetime
import hashlib
import subprocess

from cryptography import x509
from cryptography.hazmat.primitives import serialization

from nameservers import Nsd

PORT = 5353     # of NSD
DAY = datetime.timedelta(days=1)


def tlsa(words, pem):
    """RFC 6698 2.1: usage, selector, matching type, data."""
    _, selector, matching = words.split()
    certificate = x509.load_pem_x509_certificate(pem)
    data = (certificate.public_bytes(serialization.Encoding.DER) if selector == "0" else
            certificate.public_key().public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo))
    return f"TLSA {words} " + (data if matching == "0" else {"1": hashlib.sha256, "2": hashlib.sha512}[matching](data).digest()).hex()


class Signed:
    """signed: name -> how: expired, whether its signatures are; optout, whether NSEC3 leaves out names that are not signed (RFC 5155 6)."""

    CONFIG = """
server:
    interface: 127.0.0.1@53
    username: ""
    chroot: ""
    pidfile: ""
    directory: "{directory}"
    use-syslog: no
    do-not-query-localhost: no
    module-config: "validator iterator"
    num-threads: 1
    outgoing-range: 64
remote-control:
    control-enable: no
"""
    STUB = """
stub-zone:
    name: "{name}"
    stub-addr: 127.0.0.1@{port}
"""
    address = "127.0.0.1"

    def __init__(self, host, directory, zones, signed):
        self.directory, self.signed = directory, signed
        self.anchors = []
        self.nsd = Nsd(host, directory, zones, port=PORT, edit=self._sign)
        config = self.CONFIG.format(directory=directory)
        config = config.replace("server:", "server:" + "".join(f'\n    trust-anchor-file: "{path}"' for path in self.anchors), 1)
        (directory / "unbound.conf").write_text(config + "".join(self.STUB.format(name=name, port=PORT) for name in zones))
        try:
            self.process = host.popen(["unbound", "-d", "-p", "-c", directory / "unbound.conf"], stdin=subprocess.DEVNULL,
                                      stdout=subprocess.DEVNULL, stderr=open(directory / "unbound.errors", "wb"))
            host.wait_listening(53, alive=lambda: self.process.poll() is None)
        except Exception as error:
            self.close()
            raise RuntimeError((directory / "unbound.errors").read_text()) from error

    def _sign(self, name, path):
        if name not in self.signed:
            return
        how, now = self.signed[name], datetime.datetime.utcnow()
        key = subprocess.run(["ldns-keygen", "-a", "ECDSAP256SHA256", "-k", name], cwd=self.directory, check=True, capture_output=True,
                             text=True).stdout.strip()
        first, last = (now - 60 * DAY, now - DAY) if how.get("expired") else (now - DAY, now + 30 * DAY)
        subprocess.run(["ldns-signzone", *(["-n", "-p"] if how.get("optout") else []), "-i", f"{first:%Y%m%d}", "-e", f"{last:%Y%m%d}",
                        "-f", path, path, key], cwd=self.directory, check=True, capture_output=True)
        self.anchors.append(self.directory / f"{key}.ds")

    def close(self):
        self.nsd.close()
        if hasattr(self, "process"):
            self.process.kill()
            self.process.wait()

    __enter__ = lambda self: self
    __exit__ = lambda self, *_: self.close()
