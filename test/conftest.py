"""What the tests of smtpwarp share: a network namespace, a smtpwarp, an upstream, certificates."""
import contextlib
import pathlib
import tempfile

import pytest

import certificates
import hosts
import netns
import peers
from warp import Warp

NEEDS_ROOT = netns.unsupported()


@pytest.fixture
def host():
    """A network namespace of the test's own, with lo only; the test runs inside it."""
    if NEEDS_ROOT:
        pytest.skip(NEEDS_ROOT)
    with netns.single() as namespace, namespace:
        yield namespace


@pytest.fixture(name="net")
def fixture_net():
    """A network of hosts, see hosts.py, with its mail server."""
    with hosts.network() as network:
        network.serve()
        yield network


@pytest.fixture
def warp(host, tmp_path):
    """warp(*options, upstream=mail_server(...)): a Warp in the test's namespace."""
    with contextlib.ExitStack() as closing:
        def make(*options, **settings):
            directory = pathlib.Path(tempfile.mkdtemp(prefix="warp", dir=tmp_path))
            made = Warp(host, directory, *options, **settings)
            closing.callback(made.close)
            return made
        yield make


@pytest.fixture
def session(warp):
    """A session of a smtpwarp without options, before the first byte."""
    return warp().session()


@pytest.fixture
def mail_server(host):
    """mail_server(...): a running peers.MailServer."""
    with contextlib.ExitStack() as closing:
        def make(*args, **options):
            made = peers.MailServer(*args, **options)
            closing.callback(made.close)
            return made
        yield make


@pytest.fixture(scope="session")
def certs(tmp_path_factory, worker_id):
    """Certificates of all kinds, made once for all workers of a run."""
    base = tmp_path_factory.getbasetemp()
    return certificates.Store((base if worker_id == "master" else base.parent) / "certificates")


@pytest.fixture
def secure(certs):
    """secure(client): STARTTLS and the handshake, the certificate verified."""
    def begin(client):
        client.ask("STARTTLS", "220 ")
        client.begin_tls(certs.trusting(), certificates.HOST)
    return begin
