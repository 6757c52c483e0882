"""Certificates of all kinds for one host name, made when first asked for, kept for the run.

    store = Store(directory)
    store.ca                        # PEM of the authority
    store.context("expired")        # an ssl.SSLContext for a server that shows the expired one
"""
import datetime
import fcntl
import pathlib
import ssl
import subprocess

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.x509.oid import NameOID

HOST = "mail.example"
DAY = datetime.timedelta(days=1)

# name: key, and what differs from a good certificate
KINDS = {
    "good": {},
    "rsa": {"key": "rsa2048"},
    "rsa3072": {"key": "rsa3072"},
    "long-lived": {"days": (-1, 200)},
    "rsa-long-lived": {"key": "rsa2048", "days": (-1, 200)},
    "chained": {"issuer": "intermediate"},
    "wildcard": {"host": "*.example"},
    "localhost": {"host": "localhost"},
    "expired": {"days": (-30, -1)},
    "not-yet": {"days": (1, 30)},
    "self-signed": {"issuer": "self"},
    "wrong-name": {"host": "other.example"},
    "p384": {"key": "p384"},
    "rsa4096": {"key": "rsa4096"},
    "p521": {"key": "p521"},
    "rsa1024": {"key": "rsa1024"},
    "rsa8192": {"key": "rsa8192"},
    "ed25519": {"key": "ed25519"},
}


def _make_key(kind, path):
    """Writes a private key; OpenSSL's own command for the big one, for only that can make it of many small primes."""
    if kind == "rsa8192":
        subprocess.run(["openssl", "genpkey", "-quiet", "-algorithm", "RSA", "-pkeyopt", "rsa_keygen_bits:8192",
                        "-pkeyopt", "rsa_keygen_primes:5", "-out", path], check=True, capture_output=True)
        return
    if kind.startswith("rsa"):
        key = rsa.generate_private_key(65537, int(kind[3:]))
    elif kind == "ed25519":
        key = ed25519.Ed25519PrivateKey.generate()
    else:
        key = ec.generate_private_key({"p256": ec.SECP256R1, "p384": ec.SECP384R1, "p521": ec.SECP521R1}[kind]())
    path.write_bytes(key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8,
                                       serialization.NoEncryption()))


def _public_key(path):
    pem = subprocess.run(["openssl", "pkey", "-pubout", "-in", path], check=True, capture_output=True).stdout
    return serialization.load_pem_public_key(pem)


def _name(text):
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)])


def _certificate(subject, issuer, public_key, signing_key, days, authority):
    now = datetime.datetime.utcnow()
    builder = (x509.CertificateBuilder().subject_name(_name(subject)).issuer_name(_name(issuer)).public_key(public_key)
               .serial_number(x509.random_serial_number())
               .not_valid_before(now + days[0] * DAY).not_valid_after(now + days[1] * DAY)
               .add_extension(x509.BasicConstraints(authority, None), critical=True))
    if not authority:
        builder = builder.add_extension(x509.SubjectAlternativeName([x509.DNSName(subject)]), critical=False)
    algorithm = None if isinstance(signing_key, ed25519.Ed25519PrivateKey) else hashes.SHA256()
    return builder.sign(signing_key, algorithm).public_bytes(serialization.Encoding.PEM)


class Store:
    def __init__(self, directory):
        self.directory = pathlib.Path(directory)
        self.directory.mkdir(exist_ok=True)

    @property
    def ca(self):
        path, _ = self._pair("ca", lambda key: _certificate("test ca", "test ca", _public_key(key), _load(key),
                                                            (-1, 300), True), "p256")
        return path

    @property
    def intermediate(self):
        """An authority that the other has signed."""
        path, _ = self._pair("intermediate", lambda key: _certificate(
            "test intermediate", "test ca", _public_key(key), _load(self.ca.with_suffix(".key")), (-1, 300), True), "rsa2048")
        return path

    def pair(self, kind):
        """Paths of the certificate and its key."""
        what = {"key": "p256", "host": HOST, "days": (-1, 30), "issuer": "ca", **KINDS[kind]}

        def make(key):
            if what["issuer"] == "self":
                return _certificate(what["host"], what["host"], _public_key(key), _load(key), what["days"], False)
            issuer = self.intermediate if what["issuer"] == "intermediate" else self.ca
            chain = issuer.read_bytes() if issuer != self.ca else b""
            return _certificate(what["host"], f"test {issuer.stem}", _public_key(key),
                                _load(issuer.with_suffix(".key")), what["days"], False) + chain
        return self._pair(kind, make, what["key"])

    def options(self, kind="good"):
        """For a smtpwarp that shows it to clients."""
        cert, key = self.pair(kind)
        key.chmod(0o600)    # or the log complains
        return ["--cert", cert, "--key", key]

    def trusting(self, version=ssl.TLSVersion.TLSv1_2):
        """For a client, of that version."""
        context = ssl.create_default_context(cafile=self.ca)
        context.set_ciphers("ALL:@SECLEVEL=0")
        context.minimum_version = min(version, context.minimum_version)
        context.maximum_version = version
        return context

    def context(self, kind="good", minimum=None, maximum=None):
        """For a server; security level 0, as weak keys and old versions are wanted here."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.set_ciphers("ALL:@SECLEVEL=0")
        context.minimum_version = minimum or ssl.TLSVersion.TLSv1_2
        if maximum:
            context.maximum_version = maximum
        context.load_cert_chain(*self.pair(kind))
        return context

    def _pair(self, name, make, key_kind):
        certificate, key = self.directory / f"{name}.pem", self.directory / f"{name}.key"
        with open(self.directory / f"{name}.lock", "w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if not certificate.exists():
                _make_key(key_kind, key)
                certificate.write_bytes(make(key))
        return certificate, key


def _load(path):
    return serialization.load_pem_private_key(path.read_bytes(), None)
