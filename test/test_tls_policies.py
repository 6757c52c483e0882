"""What a sender's TLS policy comes to behind smtpwarp, in each of its modes, with each kind of server and of attack, and without smtpwarp:
smtpwarp(8), "What senders' policies come to", has the same table.

A Postfix, or an Exim, sends one message for each cell, to a domain of its own: its policy and the mode's redirect go by that. Names come
from zones that are signed, through a resolver that validates, which sender and smtpwarp both ask.
"""
import collections
import json
import os
import re
import socket
import ssl
import time

import pytest

import building
import hosts
import mta
import nameservers
import netns
import peers
from signedzone import Signed, tlsa
from waiting import wait_until

pytestmark = pytest.mark.skipif(bool(netns.unsupported()), reason=netns.unsupported())

CHAPTER = (building.ROOT / "man/smtpwarp.8").read_text().partition(".Ss What senders' policies come to\n")[2].partition("\n.Sh ")[0]
PORT = 10100        # of the first smtpwarp
SUBMIT_PORT = 10026
RESOLVER = 'mount --bind "$1" /etc/resolv.conf; shift; exec "$@"'

POLICIES = "none", "may", "dane", "dane-only", "encrypt", "verify", "secure"
CERT, AUTO, PASSTHROUGH, DANE = ("--cert", "{cert}", "--key", "{key}"), ("--client-tls", "auto"), ("--client-tls", "passthrough"), ("--tls", "dane")
WAIT = ("--plain-after", "{wait}", "--state", "{state}")
MODES = {"alone": None, "bare": (), "wait": WAIT, "cert": CERT, "hold": (*CERT, *WAIT), "auto": AUTO, "pass": PASSTHROUGH, "dane": DANE,
         "both": (*AUTO, *DANE)}
LATER = "later", "tls13-later"      # servers whose messages, or whose TLS, have waited long enough: a second, not five minutes
LETTERS = "PTV-"    # by how strong they are: sent in plain, over TLS, over TLS that has been verified; not sent


class Injecting(peers.Conversation):
    """Somebody in between adds a reply behind the 220."""

    def do_starttls(self, _):
        self.peer.send("220 2.0.0 go ahead", "250 2.0.0 taken")
        self.peer.start_tls(self.server.tls)
        self.reset()


class Refusing(peers.Conversation):
    """Somebody in between says that the server has no TLS."""

    def do_starttls(self, _):
        self.peer.send("454 4.7.0 TLS not available")


class Resetting(peers.Conversation):
    """Somebody in between resets the connection when the handshake begins."""

    def do_starttls(self, _):
        self.peer.send("220 2.0.0 go ahead")
        self.peer.take(1)
        self.peer.reset()
        return False


Server = collections.namedtuple("Server", "title certificate records conversation zone minimum", defaults=(None, "signed.example", None))

SERVERS = {     # what the manual calls it, the certificate it shows (None: no STARTTLS), its TLSA record
    "good": Server("TLSA records that match", "any-mx", "good"),
    "wrong": Server("TLSA records that do not match", "any-mx", "wrong"),
    "bogus": Server("TLSA records that do not validate", "any-mx", "bogus"),
    "unusable": Server("TLSA records that cannot be used", "any-mx", "unusable"),
    "none": Server("no TLSA records, self-signed", "any-mx-self-signed", None),
    "unsigned": Server("TLSA records that nobody has signed, self-signed", "any-mx-self-signed", "wrong", zone="unsigned.example"),
    "plain": Server("no TLSA records, no STARTTLS", None, None),
    "tls13": Server("no TLSA records, TLS 1.3 only", "any-mx", None, minimum=ssl.TLSVersion.TLSv1_3),
    "tls13-later": Server("the same, when the message has waited five minutes", "any-mx", None, minimum=ssl.TLSVersion.TLSv1_3),
    "ed25519": Server("TLSA records that match, an Ed25519 key", "any-mx-ed25519", "ed25519"),
    "stripped": Server("TLSA records; somebody strips STARTTLS", None, "good"),
    "replaced": Server("TLSA records; somebody replaces the certificate", "any-mx-self-signed", "good"),
    "injected": Server("TLSA records; somebody adds a reply to the 220", "any-mx", "good", Injecting),
    "refused": Server("no TLSA records; somebody answers STARTTLS with 454", "any-mx", None, Refusing),
    "reset": Server("no TLSA records; somebody resets the handshake", "any-mx", None, Resetting),
    "later": Server("the same, when the message has waited five minutes", "any-mx", None, Resetting),
    "cut": Server("TLSA records; somebody resets the handshake", "any-mx", "good", Resetting),
}


class Postfix(mta.Postfix):
    """Takes the policy from the domain: POLICY--SERVER--MODE."""
    policies, modes = POLICIES, tuple(MODES)

    def __init__(self, host, trust, resolver):
        super().__init__(host, relay="none", trust=trust)
        self.port, self.resolver = SUBMIT_PORT, resolver

    def prepare(self):
        options = {"relayhost": "", "smtp_host_lookup": "dns", "smtp_tls_security_level": "dane", "smtp_tls_loglevel": "1",
                   "smtp_tls_secure_cert_match": "nexthop, dot-nexthop", "smtp_dns_support_level": "dnssec", "dnssec_probe": "",
                   "inet_protocols": "ipv4", "default_process_limit": "20", "transport_maps": f"regexp:{self.directory}/etc/transports",
                   "smtp_tls_policy_maps": f"regexp:{self.directory}/etc/policies"}
        lines = [line for line in mta.Postfix.CLIENT.splitlines() if line.partition(" ")[0] not in options]
        self.CLIENT = "\n".join([*lines, *(f"{name} = {value}" for name, value in options.items())]) + "\n"
        self.MASTER = mta.Postfix.MASTER + "later unix - - n - - smtp -o minimal_backoff_time=1s\n"
        super().prepare()
        self.write("etc/transports", "/--later--/ later:\n")
        self.write("etc/policies", "".join(f"/^{policy}--/ {policy}\n" for policy in POLICIES))
        self.write("resolv.conf", self.resolver)

    def argv(self):
        return ["unshare", "--mount", "sh", "-ec", RESOLVER, "sh", self.directory / "resolv.conf", *super().argv()]

    def outcomes(self):
        """domain -> status of the first try, whether Postfix has verified the server."""
        verified, found = {}, {}
        for line in self.logfile.read_text().splitlines() if self.logfile.exists() else ():
            process = re.search(r"postfix/(?:later/)?smtp\[(\d+)\]", line)
            if process and "TLS connection established" in line:
                verified[process[1]] = "Verified TLS" in line
            elif process and (status := re.search(r" to=<[^>]*@([^>]*)>,.* status=(\w+) ", line)):
                found.setdefault(status[1], (status[2], verified.pop(process[1], False)))
        return found


class Exim(mta.Exim):
    """The same."""
    policies, modes = ("none", "may", "dane", "dane-only", "encrypt", "verify"), ("alone", "bare", "auto", "dane")
    OPTIONS = {"hosts_avoid_tls": ["none"], "hosts_try_dane": ["dane"], "hosts_require_dane": ["dane-only"],
               "hosts_require_tls": ["encrypt", "verify"], "tls_verify_hosts": ["verify"], "tls_try_verify_hosts": []}

    def __init__(self, host, trust, resolver):
        super().__init__(host, relay="none", trust=trust)
        self.port, self.resolver = SUBMIT_PORT, resolver

    def prepare(self):
        self.CONFIG = "disable_ipv6\ndns_dnssec_ok = 1\n" + mta.Exim.CONFIG
        self.SEND = "dnslookup\n  transport = send\n  self = send"
        self.DEMAND_TLS = "tls_verify_certificates = {trust}\n" + "".join(
            f"  {name} = ${{{{if match{{{{$domain}}}}{{{{^({'|'.join(policies)})--}}}}{{{{*}}}}{{{{}}}}}}}}\n"
            for name, policies in self.OPTIONS.items())
        super().prepare()
        self.write("etc/resolv.conf", self.resolver)

    def outcomes(self):
        found = {}
        for line in self.logfile.read_text().splitlines():
            if sent := re.search(r" => \S+@(\S+) .* H=\S+ .*?(?:X=\S+ CV=(\w+)|C=)", line):
                policy = sent[1].partition("--")[0]
                found.setdefault(sent[1], ("sent", sent[2] == "dane" or policy == "verify" and sent[2] == "yes"))
            elif kept := re.search(r" (?:==|\*\*) \S+@(\S+) ", line):     # for good, if there is nothing for dane-only
                found.setdefault(kept[1], ("deferred", False))
        return found


def domains(policies=POLICIES, modes=tuple(MODES)):
    """Of each cell, by policy, server and mode."""
    return {(policy, server, mode): f"{policy}--{server}--{mode}.{SERVERS[server].zone}"
            for policy in policies for server in SERVERS for mode in modes}


def zones(certs):
    leaf = certs.pair("any-mx")[0].read_bytes()
    words = {"good": tlsa("3 1 1", leaf), "wrong": "TLSA 3 1 1 " + 64 * "0", "unusable": tlsa("1 1 1", leaf),
             "bogus": "CNAME _25._tcp.expired.example.", "ed25519": tlsa("3 1 1", certs.pair("any-mx-ed25519")[0].read_bytes())}
    lines = {"signed.example": [], "unsigned.example": [], "expired.example": [f"_25._tcp {words['good']}"]}
    for (_, name, mode), domain in domains().items():
        label, _, zone = domain.partition(".")
        server = SERVERS[name]
        lines[zone] += [f"{label} MX 10 mx--{label}", f"mx--{label} A 10.7.{list(MODES).index(mode)}.{1 + list(SERVERS).index(name)}"]
        if server.records:
            lines[zone].append(f"_25._tcp.mx--{label} {words[server.records]}")
    return lines


def answers(certs, flags):
    """Those of a resolver that validates nothing."""
    types = {"A": (nameservers.A, lambda zone, words: socket.inet_aton(words[0])),
             "MX": (15, lambda zone, words: b"\0\x0a" + nameservers.written(f"{words[1]}.{zone}")),
             "TLSA": (52, lambda zone, words: bytes(map(int, words[:3])) + bytes.fromhex(words[3]))}
    known = {(f"{name}.{zone}", types[kind][0]): types[kind][1](zone, words) for zone, lines in zones(certs).items()
             for name, kind, *words in map(str.split, lines) if kind in types}

    def answer(query, _):
        kind = nameservers.query_type(query)
        data = known.get((nameservers.query_name(query)[0].lower(), kind))
        return nameservers.reply(query, *([nameservers.record(kind, data)] if data else []), flags=flags)
    return answer


class Lab:
    """The network, with a smtpwarp for each mode; the third octet of a server's address is the mode's, the fourth the server's. Those that
    wait have two: servers of LATER have one of their own."""
    WAITING = [mode for mode, options in MODES.items() if options and WAIT[0] in options]

    def __init__(self, net, certs, resolver, logs):
        self.net, self.certs = net, certs
        self.logs = [logs / f"{mode}.log" for mode, options in MODES.items() if options is not None]
        net.mail.ip("route add local 10.7.0.0/16 dev lo")
        net.mail.nft(self._nat("prerouting", (f"ip daddr & 0.0.0.255 == {1 + n} tcp dport 25 redirect to :{2501 + n}"
                                              for n in range(len(SERVERS)))))
        later = {f"10.7.{n}.{1 + list(SERVERS).index(server)}": PORT + n + len(MODES) for n, mode in enumerate(MODES) if mode in self.WAITING
                 for server in LATER}
        ports = later | {f"10.7.{n}.0/24": PORT + n for n, mode in enumerate(MODES) if MODES[mode] is not None}
        net.host.ns.nft(self._nat("output", [f"meta skuid {net.host.uid} accept", *(
            f"ip daddr {to} tcp dport 25 redirect to :{port}" for to, port in ports.items())]))
        with net.mail:
            net.servers = [peers.MailServer(address="0.0.0.0", port=2501 + n, conversation=server.conversation, tls=server.certificate and
                                            certs.context(server.certificate, server.minimum)) for n, server in enumerate(SERVERS.values())]
        states = net.host.dir / "states"
        states.mkdir()
        os.chown(states, net.host.uid, net.host.uid)
        for n, (mode, options) in enumerate(MODES.items()):
            for wait in () if options is None else (300, 1) if mode in self.WAITING else (300,):
                self._smtpwarp(PORT + n + len(MODES) * (wait == 1), {"wait": wait, "state": states / f"{mode}-{wait}"},
                               "--log", f"file:{logs / mode}.log", "--dns-server", resolver, *options)
        self._fail(later)

    @staticmethod
    def _nat(hook, rules):
        lines = "\n".join(rules)
        return f"table ip policies {{\nchain {hook} {{\ntype nat hook {hook} priority -100; policy accept;\n{lines}\n}}\n}}"

    def _smtpwarp(self, port, texts, *options):
        cert, key = self.certs.pair("localhost")
        child = self.net.host.popen([self.net.host.smtpwarp, "--listen", f"127.0.0.1:{port}", "--user", hosts.USER,
                                     *(option.format(cert=cert, key=key, **texts) for option in options)])
        self.net.host.ns.wait_listening(port, alive=lambda: child.poll() is None)

    def _fail(self, addresses):
        """TLS with these servers fails for the first time; Lab.send() waits."""
        with self.net.host.ns:
            for address in addresses:
                client = peers.connect(address, 25)
                client.expect("220")
                client.send("EHLO client.example")
                assert "plain in 1 s" in client.expect("451 4.7.5")
                client.close()

    def send(self, sender):
        """A message for each cell; what the cells come to, as letters."""
        ours = domains(sender.policies, sender.modes)
        sender.submit([mta.Mail("a@client.example", [f"b@{domain}"], b"Subject: one\r\n\r\nA line.\r\n") for domain in ours.values()])
        held = time.time()
        wait_until(lambda: time.time() > held + 2)      # see LATER
        sender.release()
        wait_until(lambda: len(sender.outcomes()) == len(ours), lambda: f"{set(ours.values()) - set(sender.outcomes())}; {sender.log()}",
                   180, lambda _: time.sleep(0.1))
        wait_until(lambda: not self._open(), lambda: f"these sessions do not end: {self._open()}", pause=lambda _: time.sleep(0.1))
        outcomes, taken, verified = sender.outcomes(), self._taken(), self._verified()

        def letter(domain):
            status, by_sender = outcomes[domain]
            assert (status, domain in taken) in (("sent", True), ("deferred", False)), (domain, status)
            return "-" if status != "sent" else "P" if not taken[domain] else "V" if by_sender or domain in verified else "T"
        return {key: letter(domain) for key, domain in ours.items()}

    def _taken(self):
        """domain -> whether the server took its message over TLS."""
        return {message["to"][0].partition("@")[2].rstrip(">"): message["tls"] for message in self.net.messages}

    def _records(self):
        return [json.loads(line) for path in self.logs for line in path.read_text().split("\n")[:-1]]

    def _open(self):
        """The sessions that have not written all their records: the last one of each."""
        last = {record["session"]: record for record in self._records() if "session" in record}
        return [record for record in last.values() if record["event"] != "close"]

    def _verified(self):
        """The domains to which a smtpwarp has sent over TLS that it has verified."""
        return {recipient["address"].partition("@")[2] for record in self._records() if record["event"] == "message"
                for recipient in record["rcpt_to"] if (record["server"]["tls"] or {}).get("verified")}


def is_weaker(one, other):
    return LETTERS.index(one) < LETTERS.index(other)


def weaker(cells):
    """Those in which less comes out than without smtpwarp."""
    return {key for key in cells if is_weaker(cells[key], cells[key[0], key[1], "alone"])}


def rows(cells, server):
    """Policies that come to the same, and what they come to in each mode: "P!" where that is weaker than without smtpwarp."""
    same = {}
    for policy in dict.fromkeys(policy for policy, _, _ in cells):
        came_to = [cells[policy, server, mode] for mode in MODES if (policy, server, mode) in cells]
        same.setdefault(tuple(one + "!" * is_weaker(one, came_to[0]) for one in came_to), []).append(policy)
    return {" ".join(policies): came_to for came_to, policies in same.items()}


def line(title, columns):
    return (f"{title:32}{columns[0]:6}" + "".join(f"{one:5}" for one in columns[1:])).rstrip()


def table(cells):
    """As the manual has it: servers that come to the same have their rows once."""
    lines, names = [line("", list(dict.fromkeys(mode for _, _, mode in cells)))], list(SERVERS)
    for n, (name, server) in enumerate(SERVERS.items()):
        lines.append(server.title)
        if [rows(cells, other) for other in names[n + 1:n + 2]] != [rows(cells, name)]:
            lines += [line(f"  {policies}", each) for policies, each in rows(cells, name).items()]
    return "\n".join(lines)


@pytest.fixture(name="net")
def fixture_net(tmp_path):
    tmp_path.chmod(0o755)
    with hosts.network() as network:
        yield network


def run(net, certs, resolver, logs, kind=Postfix):
    """The cells, where both the sender and smtpwarp ask this resolver."""
    with kind(net.host.ns, certs.ca, f"nameserver {resolver}\noptions edns0 trust-ad\n") as sender:
        return Lab(net, certs, resolver, logs).send(sender)


def signed(net, certs, directory):
    """A resolver that validates."""
    return Signed(net.host.ns, directory / "dns", zones(certs), {"signed.example": {}, "expired.example": {"expired": True}})


def test_policies(net, certs, tmp_path):
    """The table is the manual's."""
    with signed(net, certs, tmp_path):
        cells = run(net, certs, Signed.address, tmp_path)
    print("", table(cells), sep="\n")
    assert {server for _, server, mode in weaker(cells) if mode == "wait"} == {"tls13-later"}
    assert {key for key in cells if key[1] in ("reset", "later", "cut") and key[2] == "wait" and
            cells[key] != cells[key[0], key[1], "alone"]} == {("none", "reset", "wait"), ("none", "cut", "wait")}
    assert table(cells) == re.search(r"(?s)^\.Bd -literal.*?\n(.*?)\n\.Ed$", CHAPTER, re.M)[1]
    assert {mode for _, _, mode in weaker(cells)} == {"bare", "wait", "cert", "hold", "dane"}


@pytest.mark.parametrize("flags", [0x8180, 0x81a0], ids=["silent", "lying"])
def test_a_resolver_that_nobody_trusts(net, certs, tmp_path, flags):
    """On another host, it says that it has validated nothing, or all: TLSA records count for nothing. (Postfix believes it.)"""
    with net.mail:
        resolver = nameservers.Rude(answers(certs, flags), net.mail.ip4, 53)
    with resolver:
        cells = run(net, certs, net.mail.ip4, tmp_path)
    assert {key: cells[key] for key in cells if key[2] in ("dane", "both")} == \
        {(policy, server, {"bare": "dane", "auto": "both"}[mode]): cells[policy, server, mode] for policy, server, mode in cells
         if mode in ("bare", "auto")}
    assert {mode for _, _, mode in weaker(cells)} == {"bare", "wait", "cert", "hold", "dane"}


def test_exim(net, certs, tmp_path):
    """What is weaker is so for Exim, too, but for a handshake that fails: Exim goes on in plain at once."""
    with signed(net, certs, tmp_path):
        cells = run(net, certs, Signed.address, tmp_path, Exim)
    print("", table(cells), sep="\n")
    assert weaker(cells) == {("may", "ed25519", "bare"), *((policy, server, mode) for policy in ("may", "dane") for mode in ("bare", "dane")
                                                           for server in ("tls13", "tls13-later"))}
    assert {key for key in cells if key[2] == "auto" and cells[key] != cells[key[0], key[1], "alone"] and key[0] != "none"} == \
        {("may", "injected", "auto")}
