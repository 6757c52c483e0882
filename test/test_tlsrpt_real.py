"""Reports for TLSRPT beside those of libtlsrpt, by which Postfix reports: the same but for the version of the protocol, which its version
in Debian does not say yet."""
import ctypes
import subprocess

import pytest

import building
import tlsrptd
from tlsrptd import Tlsrptd

LIBRARY = building.ROOT / "build/pkg/trixie/usr/lib/x86_64-linux-gnu/libtlsrpt.so.0"
STRINGS, MX = ["version: STSv1", 'mode: "enforce"', "x: \\ ä"], ["mx.a.example", "*.b.example"]
pytestmark = pytest.mark.skipif(not LIBRARY.exists(), reason="test/packages/fetch has not been run")


@pytest.fixture(scope="module")
def send_report():
    return building.program("send_report")


class Library:
    """libtlsrpt; any call that fails raises."""

    def __init__(self):
        self.library = ctypes.CDLL(str(LIBRARY))

    def __getattr__(self, name):
        def call(*values):
            error = getattr(self.library, f"tlsrpt_{name}")(*(v.encode() if isinstance(v, str) else v for v in values))
            assert error == 0, f"{name}: {error}"
        return call

    def send(self, path, kind, code, failed):
        connection, request = ctypes.c_void_p(), ctypes.c_void_p()
        self.open(ctypes.byref(connection), path)
        self.init_delivery_request(ctypes.byref(request), connection, "a.example", "v=TLSRPTv1; rua=mailto:tls@a.example")
        self.init_policy(request, kind, "a.example")
        for text in STRINGS if kind != tlsrptd.NO_POLICY else []:
            self.add_policy_string(request, text)
        for pattern in MX if kind == tlsrptd.STS else []:
            self.add_mx_host_pattern(request, pattern)
        if code:
            self.add_delivery_request_failure(request, code, "192.0.2.1", "mx.a.example", 'mx "1"', "2001:db8::1", None, "the \t reason")
        self.finish_policy(request, failed)
        self.finish_delivery_request(ctypes.byref(request))
        self.close(ctypes.byref(connection))


@pytest.mark.parametrize("kind", [tlsrptd.TLSA, tlsrptd.STS, tlsrptd.NO_POLICY], ids=["tlsa", "sts", "none"])
@pytest.mark.parametrize("code", [0, *tlsrptd.CODES])
def test_same_report(send_report, tmp_path, kind, code):
    failed = int(code > 0)
    with Tlsrptd(tmp_path / "socket") as collector:
        subprocess.run([send_report, collector.path, str(kind), str(code), str(failed)], check=True)
        ours = collector.report()
        Library().send(collector.path, kind, code, failed)
        theirs = collector.sock.recv(1 << 20)
        collector.nothing()
    assert tlsrptd.check(theirs.replace(b"{", b'{"dpv":"1",', 1)) == ours
