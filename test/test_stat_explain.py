"""smtpwarp-stat explain: whose server it is, what is known of it, and which line says what a reply means."""
import pytest

from test_stat_metrics import make_state, state       # noqa: F401
from test_stat_query import ROOT, stat

PROVIDERS = "--providers", ROOT / "rules/providers"


def explained(state, *arguments):     # noqa: F811
    """{word: lines}"""
    found = {}
    for line in stat("explain", "--state", state, *map(str, arguments)).stdout.decode().splitlines():
        word = line[:9].strip() or word
        found.setdefault(word, []).append(line[9:])
    return found


def line_of(file, start):
    return 1 + next(number for number, line in enumerate(file.read_text().splitlines()) if line.startswith(start))


@pytest.mark.parametrize("what, site, because", [
    ("aspmx.l.google.com", "gmail", f"line {line_of(ROOT / 'rules/providers', 'gmail')} of "),
    ("mx1.example.org", "example.org", "no line"),
    ("mx1.mail.ovh.net", "ovh", "line"), ("ns300.ip-203-0-113.ovh.net", "ip-203-0-113.ovh.net", "no line"),
    ("inbound-smtp.eu-west-1.amazonaws.com", "amazon", "line"),
    ("ec2-203-0-113-7.eu-west-1.compute.amazonaws.com", "eu-west-1.compute.amazonaws.com", "no line"),
    ("smtp.secureserver.net", "godaddy", "line"), ("ip-203-0-113-7.ip.secureserver.net", "ip.secureserver.net", "no line"),
    ("c-203-0-113-7.hsd1.ca.comcast.net", "hsd1.ca.comcast.net", "no line"),
    ("203.0.113.7", "203.0.113.0/24", "no server in this network"),
    ("2001:db8:1::7", "2001:db8:1::/48", "no server in this network"),
])
def test_whose_server_it_is(state, what, site, because):      # noqa: F811
    found = explained(state, *PROVIDERS, what)
    assert found["site"] == [site] and because in found["because"][0]
    assert found["source"][0].startswith("none")


def test_what_is_known(state):      # noqa: F811
    lines = explained(state, "mx0")["source"]
    assert lines[0].startswith("192.0.2.1: throttled for ") and "hold back for" in lines[0]
    assert any(line.startswith("last refusal: throttle: 4.7.28 rate of mail") and "\x1b" not in line for line in lines)


def test_which_line_says_so(state, tmp_path):      # noqa: F811
    own = tmp_path / "own.rules"
    own.write_text("# ours\nmx0\trcpt\t45# 4.2.1 *busy\tthrottle\tscope=domain\n*\t*\t421 4.7.28\treputation\n")
    for site, reply, stage, said in (
            ("mx0", "450 4.2.1 too busy", "rcpt", f"throttle, domain's, by line 2 of {own}"),
            ("mx1", "450 4.2.1 too busy", "rcpt", "inactive, by its codes at rcpt: no rule matches"),
            ("mx1", "421 4.7.28 slow down", "banner", f"reputation, ip's, by line 3 of {own}")):
        assert explained(state, "--reply-rules", own, "--reply", reply, "--stage", stage, site)["class"] == [said]


def test_what_is_wrong(state, tmp_path):      # noqa: F811
    (tmp_path / "bad").write_text("one\n")
    stat("explain", status=64)
    stat("explain", "a", "b", status=64)
    stat("explain", "--stage", "never", "a", status=64)
    stat("explain", "--reply", "no reply", "--state", state, "a", status=64)
    stat("explain", "--state", tmp_path / "none", "a", status=66)
    assert b"line 1" in stat("explain", "--providers", tmp_path / "bad", "--state", state, "a", status=78).stderr
    assert b"line 1" in stat("explain", "--reply-rules", tmp_path / "bad", "--state", state, "a", status=78).stderr
