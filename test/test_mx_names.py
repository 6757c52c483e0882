"""--mx-names: the DNS tells whose server it is, and nothing waits for it. Connections are redirected from addresses of their own; name servers
are a real NSD, and one that says nothing. What follows from which answer is in unit/mxname.c."""
import pytest

import peers
from nameservers import Nsd, Rude
from statemap import SLOTS_AT, State
from test_destination import MAIL4, MAIL6, mail_host, redirect      # noqa: F401
from warp import Session

NETWORK, NETWORK6 = "10.9.9.0/24", "fd09::/48"
LATE = ["--connect-on", "recipient"]
ZONES = {
    "gmail.example": ["@ MX 5 in.google.test.", "@ MX 10 alt1.in.google.test."],
    "google.test": [f"in A {MAIL4}", f"in AAAA {MAIL6}", "alt1.in A 10.9.9.10"],
    "owner.example": ["@ MX 10 no.owner.example.", "@ MX 20 mx.owner.example.", "no A 10.9.9.8", f"mx A {MAIL4}"],
    "plain.example": [f"@ A {MAIL4}"],
    "elsewhere.example": ["@ MX 10 mx", "mx A 10.1.1.1"],
    # Its owner calls Google's server by names of his own, beside Google's name, and without it.
    "evil.example": ["@ MX 1 in.google.test.evil.example.", "@ MX 2 aaa", "@ MX 3 in.google.test.", f"in.google.test A {MAIL4}",
                     f"aaa A {MAIL4}"],
    "worse.example": ["@ MX 1 in.google.test.worse.example.", f"in.google.test A {MAIL4}"],
    "many.example": [*(f"@ MX {n} mx{n}" for n in range(40)), *(f"mx{n} A {MAIL4}" for n in range(40))],
}


@pytest.fixture
def nsd(host, tmp_path):
    with Nsd(host, tmp_path / "nsd", ZONES) as server:
        yield server


@pytest.fixture
def state(tmp_path):
    return tmp_path / "state"


@pytest.fixture
def asking(warp, mail_host, state, tmp_path):      # noqa: F811
    """A listener behind a redirect."""
    providers = tmp_path / "providers"
    providers.write_text("gmail .google.test\n")
    redirect(mail_host, "meta mark != 77")

    def start(*options, dns="127.0.0.1"):
        return warp("--transparent", "--mark", 77, "--state", state, "--providers", providers, "--dns-server", dns,
                    "--dnsbl-timeout", 60, *options).listen("127.0.0.1:2525", "[::1]:2525")
    return start


def knows(state, name):
    """The map has learnt this site."""
    return b"\0" + name.encode() + b"\0" in b"\0" + state.read_bytes()[4096:SLOTS_AT]


class Mail:
    """A session that is about to send a message to this domain."""

    def __init__(self, proxy, domain, late=False, address=MAIL4):
        self.proxy, self.door = proxy, proxy.listen_upstream(address, 25)
        self.number = len(proxy.records("close")) + 1
        self.client = peers.connect(address, 25, proxy.group)
        if late:
            self.client.expect("220")
            self.client.ask("EHLO client.example", "250")
            self.client.ask("MAIL FROM:<a@client.example>", "250")
            self.client.send(f"RCPT TO:<to@{domain}>")
        self.session = Session(self.client, self.door.accept())
        if late:
            self.session.server.send("220 server.example ESMTP")
            for command in "EHLO", "MAIL", "RCPT":
                assert self.session.server.line().startswith(command)
                self.session.server.send("250 fine")
            self.client.expect("250")
        else:
            self.session.greet()
            self.session.mail()
            self.session.rcpt(f"RCPT TO:<to@{domain}>")

    def ends(self):
        """The sites of the records of this message and session."""
        self.session.data()
        self.client.send_raw(b"\r\n.\r\n")
        self.session.server.until(b"\r\n.\r\n")
        self.session.sent()
        self.client.send("QUIT")
        self.session.server.expect_line("QUIT")
        self.session.server.send("221 bye")
        self.client.expect("221")
        self.session.server.close()
        self.door.close()
        close = self.proxy.wait_for("close", self.number)
        return self.proxy.records("message")[-1]["site"], close["site"]


@pytest.mark.parametrize("late", [False, True], ids=["early", "late"])
@pytest.mark.parametrize("domain, learnt, site", [
    ("gmail.example", "gmail", "gmail"), ("owner.example", "owner.example", "owner.example"), ("plain.example", "plain.example", "plain.example"),
    ("elsewhere.example", NETWORK, NETWORK), ("none.example", NETWORK, NETWORK), ("evil.example", "gmail", "gmail"),
    ("worse.example", "google.test.worse.example", "google.test.worse.example"), ("many.example", "many.example", "many.example")])
def test_site_by_the_mx(nsd, asking, state, domain, learnt, site, late):
    proxy = asking(*(LATE if late else []))
    mail = Mail(proxy, domain, late)
    if domain != "none.example":        # NSD refuses to tell of it
        proxy.wait_until(lambda: knows(state, learnt))
    assert mail.ends() == (site, site)
    assert State(state).slot(site, MAIL4).counts["message_accepted"] == 1


@pytest.mark.parametrize("late", [False, True], ids=["early", "late"])
def test_ipv6(nsd, asking, state, late):
    proxy = asking(*(LATE if late else []))
    mail = Mail(proxy, "gmail.example", late, MAIL6)
    proxy.wait_until(lambda: knows(state, "gmail"))
    assert mail.ends() == ("gmail", "gmail")


@pytest.mark.parametrize("late", [False, True], ids=["early", "late"])
def test_nothing_waits_for_an_answer(asking, late):
    """None comes."""
    with Rude(lambda query, tcp: None) as silent:
        proxy = asking(*(LATE if late else []), dns=silent.name_port)
        assert Mail(proxy, "gmail.example", late).ends() == (NETWORK, NETWORK)
        proxy.wait_until(lambda: silent.queries)
        assert proxy.records("close")[-1]["reason"] == "QUIT" and not proxy.records("error")


@pytest.mark.parametrize("late", [False, True], ids=["early", "late"])
def test_what_is_known_is_not_asked(nsd, asking, state, late):
    """A provider's network for every domain, another name for its own."""
    proxy, known = asking(*(LATE if late else [])), []
    for domain, learnt in ("owner.example", "owner.example"), ("gmail.example", "gmail"):
        mail = Mail(proxy, domain, late)
        proxy.wait_until(lambda: knows(state, learnt))      # noqa: B023
        mail.ends()
    nsd.close()
    with Rude(lambda query, tcp: None, port=53) as counting:
        assert Mail(proxy, "gmail.example", late).ends() == ("gmail", "gmail")
        assert Mail(proxy, "worse.example", late).ends() == ("gmail", "gmail")
        assert Mail(proxy, "owner.example", late).ends() == ("gmail", "gmail")
        assert proxy.records("connect")[-1]["site"] == "gmail"
        assert not counting.queries


def test_a_domain_speaks_for_itself_alone(nsd, asking, state):
    """What one that leads its own names to a provider's server has told counts for no other, and is not asked again."""
    proxy = asking()
    mail = Mail(proxy, "worse.example")
    proxy.wait_until(lambda: knows(state, "google.test.worse.example"))
    mail.ends()
    nsd.close()
    with Rude(lambda query, tcp: None, port=53) as counting:
        assert Mail(proxy, "worse.example").ends() == ("google.test.worse.example",) * 2
        assert not counting.queries
        assert Mail(proxy, "gmail.example").ends() == (NETWORK, NETWORK)
        proxy.wait_until(lambda: counting.queries)
        assert not knows(state, "gmail")


@pytest.mark.parametrize("options", [["--mx-names", "none"], ["--state", "none"]])
def test_not_asked(asking, options):
    with Rude(lambda query, tcp: None) as counting:
        proxy = asking(*options, dns=counting.name_port)
        assert Mail(proxy, "gmail.example").ends() == (NETWORK, NETWORK)
        assert not counting.queries
