"""DANE: what a resolver that validates and zones that are really signed make of io/dane.c (RFC 7672 2). Each answer by itself is in
unit/tlsa.c."""
import pathlib
import subprocess

import pytest

import building
from signedzone import Signed, tlsa

TOP = pathlib.Path(__file__).resolve().parent.parent
HERE, ELSEWHERE = "10.1.1.1", "10.9.9.9"      # the address that a client wanted, and one that no server has


def domain(name, *records, mx="mx"):
    """A domain of a signed zone: its mail goes to mx.NAME, which has these records."""
    return [f"{name} MX 10 {mx}.{name}", f"mx.{name} A {HERE}", *(f"_25._tcp.mx.{name} {words}" for words in records)]


def zones(certs):
    leaf, ca = certs.pair("good")[0].read_bytes(), certs.ca.read_bytes()
    whole = [tlsa("3 0 0", certs.pair(kind)[0].read_bytes()) for kind in ("rsa", "rsa3072", "rsa4096", "rsa8192")]
    good, zeros = tlsa("3 1 1", leaf), "TLSA 3 1 1 " + 64 * "0"
    return {
        "signed.example": [
            *domain("ee", good), *domain("ta", tlsa("2 1 2", ca)), *domain("full", tlsa("2 0 0", ca), tlsa("3 0 0", leaf)),
            *domain("wrong", zeros), *domain("rolled", zeros, good), *domain("unusable", tlsa("1 1 1", leaf), tlsa("0 0 1", ca)),
            *domain("nodata"), *domain("alias", mx="also"), "also.alias CNAME mx.ee",
            *domain("led", good, mx="also"), "also.led CNAME mx.unsigned.example.", f"_25._tcp.also.led {good}",
            *domain("bare", mx="also"), "also.bare CNAME mx.unsigned.example.",
            *domain("named", good, mx="also"), "also.named CNAME mx.nodata", f"_25._tcp.also.named {good}",
            *domain("whole", *whole[:3]), *domain("huge", *whole, tlsa("3 0 0", leaf), tlsa("2 0 0", ca)),
            *domain("lame"), "_tcp.mx.lame NS ns.lame", "ns.lame A 127.0.0.1",
            f"@ A {HERE}", f"_25._tcp {good}", "null MX 0 .",
            "two MX 10 mx.ee", "two MX 20 mx.ta", "part MX 10 mx.ee", "part MX 20 mx.nodata",
            "outside MX 10 mx.unsigned.example.", "beside MX 10 mx.ee", "beside MX 20 mx.expired.example.",
            *(f"large MX {n} mx{n}.large" for n in range(10)), *(f"mx{n}.large A 10.1.2.{n}" for n in range(10)),
            *(f"_25._tcp.mx{n}.large {tlsa('3 1 2', leaf)}" for n in range(10)),
        ],
        "unsigned.example": ["@ MX 10 mx", f"mx A {HERE}", f"_25._tcp.mx {good}", "half MX 10 mx.ee.signed.example.",
                             "lies MX 10 mx.nodata.signed.example."],
        "expired.example": ["@ MX 10 mx", f"mx A {HERE}", f"_25._tcp.mx {good}"],
        "optout.example": ["@ MX 10 mx", f"mx A {HERE}"],
        "child.example": ["@ MX 10 mx", f"mx A {HERE}", "_tcp.mx NS ns._tcp.mx", "ns._tcp.mx A 127.0.0.1"],
        "_tcp.mx.child.example": [f"_25 {good}"],
    }


@pytest.fixture(scope="module", name="program")
def fixture_program():
    return building.program("ask_dane")


@pytest.fixture(name="ask")
def fixture_ask(host, certs, tmp_path, program):
    """ask(domain, address): the line that ask_dane prints."""
    signed = {"signed.example": {}, "expired.example": {"expired": True}, "optout.example": {"optout": True}, "child.example": {}}
    with Signed(host, tmp_path / "dns", zones(certs), signed) as lab:
        def run(name, address=HERE):
            return subprocess.run([program, lab.address, name, address, "25"], check=True, capture_output=True, text=True).stdout.strip()
        yield run


def usable(host, *names, records=1, flags=" every"):
    return f"usable{flags} {host}; {' '.join([host, *names])}; {records}"


def test_signed_zones(ask):
    """Each domain, and what is found out about its server."""
    signed = {
        "ee": usable("mx.ee.signed.example", "ee.signed.example"),
        "ta": usable("mx.ta.signed.example", "ta.signed.example"),
        "full": usable("mx.full.signed.example", "full.signed.example", records=2),
        "wrong": usable("mx.wrong.signed.example", "wrong.signed.example"),
        "rolled": usable("mx.rolled.signed.example", "rolled.signed.example", records=2),
        "unusable": "unusable",
        "nodata": "none",
        "alias": usable("mx.ee.signed.example", "also.alias.signed.example", "alias.signed.example"),
        "named": usable("also.named.signed.example", "named.signed.example"),
        "led": usable("also.led.signed.example", "led.signed.example"),
        "bare": "none",
        "whole": usable("mx.whole.signed.example", "whole.signed.example", records=3),      # over TCP
        "huge": "failed records of mx.huge.signed.example: the answer is too long",
        "lame": "failed records of mx.lame.signed.example: the server failed",
        "null": "none any",
        "missing": "none any",
        "outside": "none",
        "large": usable("mx0.large.signed.example", *(f"mx{n}.large.signed.example" for n in range(1, 10)), "large.signed.example",
                        records=10, flags=" any every"),
    }
    assert {name: ask(f"{name}.signed.example") for name in signed} == signed
    assert ask("signed.example") == usable("signed.example", "signed.example")      # it has no MX
    assert ask("host=mx.ee.signed.example", ELSEWHERE) == usable("mx.ee.signed.example")


def test_any_server(ask):
    """Nobody has the address."""
    assert ask("two.signed.example", ELSEWHERE) == usable("mx.ee.signed.example", "mx.ta.signed.example", "two.signed.example", records=2,
                                                          flags=" any every")
    assert ask("part.signed.example", ELSEWHERE) == usable("mx.ee.signed.example", "part.signed.example", flags=" any")
    assert ask("beside.signed.example", ELSEWHERE) == usable("mx.ee.signed.example", "beside.signed.example", flags=" any every")


def test_what_is_not_signed(ask):
    assert ask("unsigned.example") == "none half"
    assert ask("half.unsigned.example") == usable("mx.ee.signed.example", flags=" half every")
    assert ask("half.unsigned.example", ELSEWHERE) == "none half any"
    assert ask("lies.unsigned.example") == "none half"


def test_what_does_not_validate(ask):
    assert ask("expired.example") == "failed any MX of expired.example: the server failed"
    assert ask("host=mx.expired.example") == "failed records of mx.expired.example: the server failed"


def test_signed_in_part(ask):
    """A zone that leaves out unsigned names, which leaves no proof that there are no records; records in a zone that is not signed."""
    assert ask("optout.example") == "none"
    assert ask("child.example").startswith("failed records of mx.child.example: the name server has validated the address, but not")


def written(path, text):
    path.write_text(text)
    return path


@pytest.mark.parametrize("options, asks", [
    (lambda path: ["--tls", "dane"], True), (lambda path: ["--tls", "dane-only"], True), (lambda path: [], False),
    (lambda path: ["--routes", written(path, "a.test;mx.a.test;encrypt\nb.test;mx.b.test;dane\n")], True),
    (lambda path: ["--routes", written(path, "a.test;mx.a.test;dane-only mx.a.test\n")], True),
    (lambda path: ["--routes", written(path, "dane.test;dane.test;encrypt dane.test\n")], False),
    (lambda path: ["--tls-policy", written(path, "a.test encrypt\nb.test dane-only\n")], True),
    (lambda path: ["--tls-policy", written(path, "dane.test encrypt\n")], False)])
def test_check_asks_whether_name_servers_validate(host, certs, tmp_path, options, asks):
    """--check warns of those that do not, and of those that do not answer, if anything wants DANE."""
    def check(server):
        return subprocess.run([TOP / "smtpwarp", "--check", *options(tmp_path / "file"), "--dns-server", server, "--log", "none",
                               "--tls-ca", certs.ca, "--allow-clients", "127.0.0.1"], capture_output=True, text=True, check=True).stderr
    with Signed(host, tmp_path, {".": []}, {".": {}}) as lab:
        with host:
            assert check(lab.address) == ""
            if not asks:
                assert check("127.0.0.1:5") == ""
                return
            assert "no name server here validates" in check(f"{lab.address}:5353")
            assert "name servers cannot be asked" in check("127.0.0.1:5")
