"""smtpwarp-stat report: one page of HTML, whatever stands in the log."""
import html.parser
import json
import os
import re
import resource
import subprocess

import pytest

import logs
from test_stat_query import STAT, stat

ALLOWED = {"html", "head", "meta", "title", "style", "body", "main", "h1", "h2", "h3", "p", "dl", "div", "dt", "dd", "small", "svg", "g", "rect",
           "path", "span", "ul", "li", "i", "table", "thead", "tbody", "tr", "th", "td", "strong", "code", "article", "section", "details",
           "summary"}
EVIL = ["<script>alert(1)</script>", "</title></style><img src=x onerror=alert(1)>", "\"'><svg/onload=alert(1)>", "javascript:alert(1)",
        "\u202egnp.exe\u2066", "x" * 65536, "\ud800 \udfff", "\x00\x1b[2J", "&lt;b&gt;&amp;", "]]>--><!--", "%s%n%d", "\t1\tok\t"]


class Page(html.parser.HTMLParser):
    """Every element is closed where it should be; what there is is collected."""

    def __init__(self, text):
        super().__init__()
        self.open, self.tags, self.attributes, self.text = [], set(), [], []
        self.feed(text)
        self.close()
        assert not self.open, self.open

    def handle_starttag(self, tag, attributes):
        self.tags.add(tag)
        self.attributes += [(tag, *attribute) for attribute in attributes]
        if tag != "meta":
            self.open.append(tag)

    def handle_startendtag(self, tag, attributes):
        self.handle_starttag(tag, attributes)
        assert self.open.pop() in ("rect", "path")

    def handle_endtag(self, tag):
        assert self.open and self.open.pop() == tag, tag

    def handle_data(self, data):
        self.text.append(data.strip())


def report(*arguments, **options):
    page = stat("report", *arguments, **options).stdout.decode()
    return page, Page(page)


@pytest.fixture(scope="module")
def log(tmp_path_factory):
    path = tmp_path_factory.mktemp("log") / "log"
    logs.write_log(path, 4000)
    return path


def test_sections(log):
    page, parsed = report(log)
    for heading in ("Messages by hour", "Who slowed us down", "Destinations", "What they say", "TLS with destinations", "Our addresses",
                    "Senders", "Clients", "Hooks"):
        assert f"<h2>{heading}</h2>" in page
    assert parsed.tags <= ALLOWED
    assert "gmail" in parsed.text and "throttled" in parsed.text and "198.51.100.10" in parsed.text and "rspamd" in parsed.text
    assert "throttled</strong></td><td class=t>replies</td><td class=text><code>4.7.28 Our system" in page
    assert any("4&#46;" in text or "#.#.# Our system has detected an unusual rate" in text for text in parsed.text)


def test_figures(log):
    """Those of query."""
    page, _ = report(log)
    totals = json.loads(stat("query", "--totals", "--json", log).stdout)
    records = [json.loads(line) for line in log.read_text().splitlines()]
    assert re.search(r"<dt>Messages</dt><dd>4\u202f000<", page)
    assert f"{totals['outcomes'] // 1000}\u202f{totals['outcomes'] % 1000:03} recipients" in page
    accepted = sum(record.get("result") == "accepted" for record in records)
    assert f"<small>{accepted // 1000}\u202f{accepted % 1000:03}</small>" in page


def test_one_hour(log):
    """It is named, is no huge bar, and the line of its delays is more than a point."""
    page, _ = report("--site", "gmail", "--since", "2026-11-25T12:00", "--until", "2026-11-25T13:00", log)
    assert page.count('style="width:8%"') == 3 and ">12:00</span>" in page
    assert re.search(r'<path class=p [^>]* d="M2 [\d.]+h5"/>', page)
    assert re.search(r">Wed 25 Nov 12:02</td><td class=t>not over<", page)


def test_end_on_the_same_day(log):
    assert re.search(r">Wed 25 Nov 12:02</td><td class=t>16:20<", report(log)[0])


def test_colours_of_classes(tmp_path):
    """Each of the six most frequent classes has its own in all of the page; the others share one."""
    with open(tmp_path / "log", "w") as out:
        for n, kind in enumerate(kind for kind in range(10) for _ in range(kind + 1)):
            made = logs.record("message", logs.BEGIN, f"S{n}", "gmail", result="rejected",
                               rcpt_to=[{"address": "a@b", "code": 550, "class": f"class{kind}", "text": "no"}])
            out.write(json.dumps(made) + "\n")
    colours = {int(kind): colour for colour, kind in re.findall(r'var\(--(c\d)\)"></i>class(\d)', report(tmp_path / "log")[0])}
    assert len(colours) == 10 and len({colours[kind] for kind in range(4, 10)} - {"c7"}) == 6
    assert {colours[kind] for kind in range(4)} == {"c7"}


def test_filter(log):
    page, parsed = report("--site", "yahoo", "--since", "2026-11-25", log)
    assert "yahoo" in parsed.text and "gmail" not in page and re.search(r"Wed 25 Nov 2026 0\d:\d\d to Sun 29", page)


def test_no_addresses(log):
    page, _ = report("--no-addresses", log)
    assert "sender" not in page and "user" not in page.replace("unknown-user", "") and "10.0.0." not in page and "shop" not in page


def test_no_script_and_nothing_from_elsewhere(log):
    page, parsed = report(log)
    assert "<meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'unsafe-inline'\">" in page
    names = {name for _, name, _ in parsed.attributes}
    assert not names & {"src", "href", "action", "srcset", "data", "formaction"} and not any(name.startswith("on") for name in names)
    assert "url(" not in page and "@import" not in page


def evil_record(text):
    to = {"address": text, "params": {text: text}, "code": 550, "enhanced": text, "class": text, "text": text}
    record = logs.record("message", logs.BEGIN, text, "gmail", rcpt_to=[to, to], reply=dict(to), result=text, data_reply_ms=12)
    record |= {"site": text, "client": {"ip": text, "port": 1, "tls": None}, "mail_from": {"address": text, "params": {}},
               "server": {"ip": text, "port": 25, "tls": {"version": text, "cipher": text, "verified": True}}}
    yield record
    yield {**record, "event": "verdict", "hook": text, "on": text, "verdict": text, "hook_ms": 1e300}
    yield {**record, "event": "backoff", "source": text, "from": text, "to": text, "why": text, "text": text, "until": text}
    yield {**record, "event": "connect", "source": {"ip": text}, "code": 554, "class": text, "text": text, "banner": text}
    yield {**record, "event": "tls", "result": "failed", "reason": text}
    yield {**record, "event": text}


@pytest.mark.parametrize("ascii_", [True, False])
def test_hostile_log(tmp_path, ascii_):
    """Nothing that others say becomes part of the page, and none of it changes the direction of text."""
    log = tmp_path / "log"
    with open(log, "wb") as out:
        for text in EVIL:
            for record in evil_record(text):
                out.write(json.dumps(record, ensure_ascii=ascii_).encode(errors="surrogatepass") + b"\n")
        out.write(json.dumps(next(evil_record("<b>RAW</b>"))).encode().replace(b"RAW", b"\xff\xc3(\xe2\x82") + b"\n")
    page, parsed = report(log)
    assert parsed.tags <= ALLOWED
    assert not set(page) & set("\u202e\u2066\x00\x1b\ud800")
    names = {name for _, name, _ in parsed.attributes}
    assert not any(name.startswith("on") for name in names)
    assert "".join(parsed.text).count("<script>alert(1)</script>") > 5 and len(page) < 200_000


def test_any_number_of_names_in_bounded_memory(tmp_path):
    """10,000 sites, senders, clients, classes and sources in 10 years: 64 MiB, and the frequent ones are right."""
    log = tmp_path / "log"
    with open(log, "w") as out:
        for n in range(10000):
            at = logs.BEGIN - logs.datetime.timedelta(hours=9 * (10000 - n))
            made = logs.record("message", at, f"S{n}", "gmail", rcpt_to=[{"address": f"a{n}@b", "code": 550, "class": f"class{n}", "text": f"t{n:x}"}],
                               result="rejected", mail_from={"address": f"s{n}@d", "params": {}}, client=f"10.0.{n // 250}.{n % 250}")
            made["site"] = "frequent" if n % 2 else f"site{n}"
            out.write(json.dumps(made) + "\n")
    page, parsed = report(log, preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_AS, (64 << 20, 64 << 20)))
    assert "frequent" in parsed.text and "further sites" in parsed.text and "further classes" in parsed.text
    assert "Rare ones are left out" in page and "count in totals only" in page
    assert re.search(r"<h3>frequent</h3><dl><div><dt>messages</dt><dd>5\u202f000<", page)


def test_empty_log(tmp_path):
    (tmp_path / "log").write_text("")
    assert report(tmp_path / "log")[1].tags <= ALLOWED


def test_progress_on_a_terminal_only(log, tmp_path):
    """For a large log; nothing where standard error is a file."""
    large = tmp_path / "large"
    with open(large, "wb") as out:
        while out.tell() < 101_000_000:
            out.write(log.read_bytes())
    assert stat("report", large).stderr == b""
    import pty
    main, side = pty.openpty()
    process = subprocess.Popen([STAT, "report", large], stdout=subprocess.DEVNULL, stderr=side)
    os.close(side)
    seen = b""
    try:
        while data := os.read(main, 4096):
            seen += data
    except OSError:
        pass
    os.close(main)
    assert process.wait() == 0 and re.search(rb" 50 % of 10\d MB", seen)
