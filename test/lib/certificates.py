"""Certificates of all kinds for one host name, made when first asked for, kept for the run.

    store = Store(directory)
    store.ca                        # PEM of the authority
    store.context("expired")        # an ssl.SSLContext for a server that shows the expired one
"""
import contextlib
import datetime
import fcntl
import pathlib
import ssl
import subprocess
import warnings

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

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
    "mta-sts": {"host": "mta-sts.sts.test", "names": ["mta-sts.sts.test", "mta-sts.testing.test"]},
    "any-mx": {"names": ["*.signed.example", "*.unsigned.example"]},
    "any-mx-ed25519": {"names": ["*.signed.example"], "key": "ed25519"},
    "any-mx-self-signed": {"names": ["*.signed.example", "*.unsigned.example"], "issuer": "self"},
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
    # What verification must not pass over
    "sha1": {"hash": hashes.SHA1()},
    "sha1-chained": {"issuer": "sha1-ca"},
    "rsa1024-chained": {"issuer": "rsa1024-ca"},
    "rsa1024-rooted": {"issuer": "rsa1024-root", "chain": []},
    "clients": {"purposes": [ExtendedKeyUsageOID.CLIENT_AUTH]},
    "clients-chained": {"issuer": "clients-ca"},
    "clients-rooted": {"issuer": "clients-root", "chain": []},
    "any-purpose": {"purposes": [ExtendedKeyUsageOID.ANY_EXTENDED_KEY_USAGE]},
    "servers": {"purposes": [ExtendedKeyUsageOID.CLIENT_AUTH, ExtendedKeyUsageOID.SERVER_AUTH]},
    "servers-chained": {"issuer": "servers-ca"},
    "cn-only": {"names": []},
    "cn-and-other-names": {"names": ["other.example"]},
    "constrained": {"issuer": "constrained-ca"},
    "constrained-critical": {"issuer": "constrained-critical-ca"},
    "constrained-rooted": {"issuer": "constrained-root", "chain": []},
    "rsa-encipherment": {"key": "rsa2048", "usage": "key_encipherment"},
    "rsa-signing": {"key": "rsa2048", "usage": "digital_signature"},
    # Chains that are not in order
    "in-order": {"issuer": "second", "chain": ["second", "intermediate"]},
    "reversed": {"issuer": "second", "chain": ["ca", "intermediate", "second"]},
    "with-foreigners": {"issuer": "second", "chain": ["foreign", "intermediate", "good", "foreign", "second", "constrained-ca"]},
    "twice": {"issuer": "second", "chain": ["second", "second", "intermediate", "intermediate", "ca"]},
    "wrong-twin-first": {"issuer": "second", "chain": ["second", "intermediate-twin", "intermediate"]},
    "incomplete": {"issuer": "second", "chain": ["second", "foreign"]},
    "only-foreigners": {"issuer": "foreign", "chain": ["foreign", "intermediate", "ca"]},
}

# Those that sign: their keys, who signs them ("self"), whether they are among the trusted ones, and what else is special.
AUTHORITIES = {
    "ca": {"issuer": "self", "trusted": True},
    "intermediate": {"key": "rsa2048"},
    "intermediate-twin": {"name": "test intermediate", "issuer": "self"},
    "second": {"issuer": "intermediate"},
    "foreign": {"issuer": "self"},
    "sha1-ca": {"hash": hashes.SHA1()},
    "rsa1024-ca": {"key": "rsa1024"},
    "rsa1024-root": {"key": "rsa1024", "issuer": "self", "trusted": True},
    "clients-ca": {"purposes": [ExtendedKeyUsageOID.CLIENT_AUTH]},
    "clients-root": {"purposes": [ExtendedKeyUsageOID.CLIENT_AUTH], "issuer": "self", "trusted": True},
    "servers-ca": {"purposes": [ExtendedKeyUsageOID.SERVER_AUTH]},
    "constrained-ca": {"constraints": False},
    "constrained-critical-ca": {"constraints": True},
    "constrained-root": {"constraints": True, "issuer": "self", "trusted": True},
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


def _key_usage(what):
    names = ("digital_signature content_commitment key_encipherment data_encipherment key_agreement key_cert_sign crl_sign "
             "encipher_only decipher_only").split()
    return x509.KeyUsage(**{name: name == what for name in names})


def _certificate(subject, issuer, public_key, signing_key, what, authority):
    """what: as in KINDS and AUTHORITIES."""
    now = datetime.datetime.utcnow()
    builder = (x509.CertificateBuilder().subject_name(_name(subject)).issuer_name(_name(issuer)).public_key(public_key)
               .serial_number(x509.random_serial_number())
               .not_valid_before(now + what["days"][0] * DAY).not_valid_after(now + what["days"][1] * DAY)
               .add_extension(x509.BasicConstraints(authority, None), critical=True))
    names = [] if authority else what.get("names", [subject])
    if names:
        builder = builder.add_extension(x509.SubjectAlternativeName([x509.DNSName(name) for name in names]), critical=False)
    if "purposes" in what:
        builder = builder.add_extension(x509.ExtendedKeyUsage(what["purposes"]), critical=False)
    if "usage" in what:
        builder = builder.add_extension(_key_usage(what["usage"]), critical=True)
    if "constraints" in what:
        builder = builder.add_extension(x509.NameConstraints([x509.DNSName("elsewhere.example")], None), what["constraints"])
    algorithm = None if isinstance(signing_key, ed25519.Ed25519PrivateKey) else what.get("hash", hashes.SHA256())
    with warnings.catch_warnings():     # SHA-1 is deprecated, and this is why it is here
        warnings.simplefilter("ignore")
        return builder.sign(signing_key, algorithm).public_bytes(serialization.Encoding.PEM)


class Store:
    def __init__(self, directory):
        self.directory = pathlib.Path(directory)
        self.directory.mkdir(exist_ok=True)

    @property
    def ca(self):
        return self.authority("ca")

    @property
    def trusted(self):
        """One file with all that are to be trusted, good or not."""
        path = self.directory / "trusted.pem"
        with self._locked("trusted"):
            if not path.exists():
                path.write_bytes(b"".join(self.authority(name).read_bytes() for name, what in AUTHORITIES.items()
                                          if what.get("trusted")))
        return path

    def authority(self, name):
        """The path of its certificate, beside which is its key."""
        what = {"key": "p256", "days": (-1, 300), "issuer": "ca", **AUTHORITIES[name]}
        subject = what.get("name", f"test {name}")

        def make(key):
            if what["issuer"] == "self":
                return _certificate(subject, subject, _public_key(key), _load(key), what, True)
            return _certificate(subject, f"test {what['issuer']}", _public_key(key),
                                _load(self.authority(what["issuer"]).with_suffix(".key")), what, True)
        return self._pair(name, make, what["key"])[0]

    def pair(self, kind):
        """Paths of the certificate and its key."""
        what = {"key": "p256", "host": HOST, "days": (-1, 30), "issuer": "ca", **KINDS[kind]}

        def make(key):
            if what["issuer"] == "self":
                return _certificate(what["host"], what["host"], _public_key(key), _load(key), what, False)
            chain = what.get("chain", [what["issuer"]] if what["issuer"] != "ca" else [])
            return _certificate(what["host"], f"test {what['issuer']}", _public_key(key),
                                _load(self.authority(what["issuer"]).with_suffix(".key")), what, False) + b"".join(
                (self.authority(name) if name in AUTHORITIES else self.pair(name)[0]).read_bytes() for name in chain)
        return self._pair(f"{kind}.leaf" if kind in AUTHORITIES else kind, make, what["key"])

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

    @contextlib.contextmanager
    def _locked(self, name):
        with open(self.directory / f"{name}.lock", "w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield

    def _pair(self, name, make, key_kind):
        certificate, key = self.directory / f"{name}.pem", self.directory / f"{name}.key"
        with self._locked(name):
            if not certificate.exists():
                _make_key(key_kind, key)
                certificate.write_bytes(make(key))
        return certificate, key


def _load(path):
    return serialization.load_pem_private_key(path.read_bytes(), None)
