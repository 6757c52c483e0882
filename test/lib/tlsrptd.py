"""A collector of TLSRPT's datagrams, as tlsrpt-collectd is one: it takes what libtlsrpt's protocol version 1 allows, and nothing else.

    with Tlsrptd(directory / "tlsrpt.sock") as collector:
        ... "--tlsrpt", collector.path ...
        report = collector.report()     # a dict, checked
        collector.nothing()             # and no other one
"""
import ipaddress
import json
import os
import re
import socket

TLSA, STS, NO_POLICY = 1, 2, 9
STARTTLS_NOT_SUPPORTED, HOST_MISMATCH, NOT_TRUSTED, EXPIRED, VALIDATION_FAILURE = range(201, 206)
STS_FETCH_ERROR, STS_INVALID, STS_WEBPKI_INVALID, TLSA_INVALID, DNSSEC_INVALID, DANE_REQUIRED = range(301, 307)
CODES = [*range(201, 206), *range(301, 307)]
TIMEOUT = float(os.environ.get("TEST_TIMEOUT", 30))
DOMAIN = re.compile(r"(?=.{1,253}$)[a-z0-9_-]{1,63}(\.[a-z0-9_-]{1,63})*")


class Malformed(AssertionError):
    """A datagram that the protocol does not allow."""


def _demand(is_so, what, value):
    if not is_so:
        raise Malformed(f"{what}: {value!r}")


def _text(value):
    return isinstance(value, str) and value != ""


def _domain(value):
    return _text(value) and bool(DOMAIN.fullmatch(value))


def _number(*values):
    return lambda value: type(value) is int and value in values


def _texts(value):
    return isinstance(value, list) and value != [] and all(_text(item) for item in value)


def _address(value):
    try:
        return _text(value) and bool(ipaddress.ip_address(value.partition("%")[0]))
    except ValueError:
        return False


FAILURE = {"c": _number(*CODES), "s": _address, "n": _text, "h": _text, "r": _address, "a": _text, "f": _text}
POLICY = {"policy-type": _number(TLSA, STS, NO_POLICY), "policy-domain": _domain, "policy-string": _texts, "mx-host": _texts,
          "failure-details": lambda value: isinstance(value, list) and value != [], "t": lambda value: type(value) is int,
          "f": _number(0, 1)}
REPORT = {"dpv": lambda value: value == "1", "d": _domain, "pr": lambda value: _text(value) and value.startswith("v=TLSRPTv1;"),
          "policies": lambda value: isinstance(value, list) and value != []}


def _members(value, rules, needed, where):
    _demand(isinstance(value, dict), where, value)
    _demand(set(needed) <= set(value) <= set(rules), f"members of {where}", value)
    _demand(list(value) == [name for name in rules if name in value], f"order of {where}", list(value))
    for name, member in value.items():
        _demand(rules[name](member), f"{where}: {name}", member)


def _once(pairs):
    _demand(len(dict(pairs)) == len(pairs), "a member twice", pairs)
    return dict(pairs)


def check(datagram):
    """The report in it; raises Malformed."""
    try:
        report = json.loads(datagram.decode(), object_pairs_hook=_once)
    except ValueError as error:
        raise Malformed(f"no JSON: {datagram!r}") from error
    _members(report, REPORT, REPORT, "report")
    for policy in report["policies"]:
        _members(policy, POLICY, ["policy-type", "policy-domain", "t", "f"], "policy")
        details = policy.get("failure-details", [])
        _demand(policy["t"] == len(details), "t, the number of failures", policy)
        for detail in details:
            _members(detail, FAILURE, ["c"], "failure")
        _demand(policy["policy-type"] != NO_POLICY or not set(policy) & {"policy-string", "mx-host"}, "no policy has a text", policy)
        _demand(policy["policy-type"] == STS or "mx-host" not in policy, "only MTA-STS has patterns of servers", policy)
    return report


class Tlsrptd:
    def __init__(self, path):
        self.path = str(path)
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.sock.bind(self.path)
        os.chmod(self.path, 0o666)

    def report(self, timeout=TIMEOUT):
        self.sock.settimeout(timeout)
        return check(self.sock.recv(1 << 20))

    def policy(self, timeout=TIMEOUT):
        """The only policy of the next report, with the report's domain as "d"."""
        report = self.report(timeout)
        _demand(len(report["policies"]) == 1, "one policy", report)
        return {"d": report["d"], **report["policies"][0]}

    def nothing(self):
        self.sock.setblocking(False)
        try:
            raise AssertionError(f"one more report: {self.sock.recv(1 << 20)!r}")
        except BlockingIOError:
            pass

    def close(self):
        self.sock.close()

    __enter__ = lambda self: self
    __exit__ = lambda self, *_: self.close()
