"""The shipped hooks dlp and capture: by hand with everything that a message can be, and through smtpwarp."""
import base64
import email.header
import json
import os
import quopri
import resource
import smtplib
import subprocess
import threading

import pytest

import netns
from hooks import Hooks, by_hand, program, sample, shipped

PATTERNS = """\
# what must not leave

iban    [A-Z]{2}[0-9]{2}( ?[0-9A-Z]{4}){3,7}
secret\t [Ss]trictly (confidential|private)
umlaut  geheime T[uü]r
"""
IBAN = b"DE89 3704 0044 0532 0130 00"
HEAD = b"From: a@client.example\r\nSubject: hello\r\n"
MULTIPART = HEAD + b"MIME-Version: 1.0\r\nContent-Type: multipart/mixed; boundary=b\r\n\r\n"
BINARY = bytes(range(256)) * 40
OCTETS = bytes(octet for octet in range(256) if octet not in b"\r\n")
HOSTILE = "-e`id`$(id);\"'\\@x\u0000\r\nBcc: evil\u0085\ufffd"


def crlf(data):
    return data.replace(b"\n", b"\r\n")


def part(*fields, body=b"", boundary=b"b"):
    return b"--%s\r\n%s\r\n%s\r\n" % (boundary, b"".join(field + b"\r\n" for field in fields), body)


def in_base64(data):
    return crlf(base64.encodebytes(data))


def run_hook(name, message, env=None, cwd=None, timeout=60, **fields):
    return by_hand(name, sample("data", **fields), message, env, cwd=cwd, timeout=timeout)


def submit(proxy, message, recipients=("bob@mail.example",), sender="alice@client.example"):
    """The reply to the end of data."""
    with smtplib.SMTP("127.0.0.1", proxy.listen_port, "client.example") as client:
        client.ehlo()
        client.mail(sender)
        for recipient in recipients:
            assert client.rcpt(recipient)[0] == 250
        code, text = client.data(message)
    return f"{code} {text.decode()}"


# dlp

@pytest.fixture
def patterns(tmp_path):
    path = tmp_path / "patterns"
    path.write_text(PATTERNS)
    return path


@pytest.fixture
def dlp(patterns):
    """dlp(message, VARIABLE=value): its verdict, after a run that went well."""
    def run(message, **env):
        done = run_hook("dlp", message, env={"DLP_PATTERNS": str(patterns), **env})
        assert (done.returncode, done.stderr) == (0, b"")
        return done.stdout.decode()
    return run


def rejected(name):
    return f"log dlp {name}\nreject 550 5.7.1 Message matches {name}\n"


CARRIERS = {
    "body": HEAD + b"\r\n" + IBAN + b"\r\n",
    "header": HEAD + b"X-Note: pay to\r\n\t" + IBAN + b"\r\n\r\n",
    "folded-header": HEAD + b"X-Note: DE89 3704\r\n 0044 0532 0130 00\r\n\r\n",
    "encoded-word": b"Subject: =?utf-8?B?" + base64.b64encode(IBAN) + b"?=\r\n\r\n",
    "encoded-words": b"Subject: =?utf-8?q?DE89_3704?=\r\n =?iso-8859-1?B?" + base64.b64encode(IBAN[9:]) + b"?=\r\n\r\n",
    "quoted-printable": HEAD + b"Content-Transfer-Encoding: quoted-printable\r\n\r\n"
                               b"DE=389 3704 0044 =\r\n0532 0130 00\r\n",
    "base64": HEAD + b"Content-Transfer-Encoding: BASE64\r\n\r\n" + in_base64(b"pay to " + IBAN),
    "base64-after-padding": HEAD + b"Content-Transfer-Encoding: base64\r\n\r\n" + base64.b64encode(b"ab") +
                            b"\r\n" + base64.b64encode(IBAN),
    "base64-with-noise": HEAD + b"Content-Transfer-Encoding: base64\r\n\r\n" +
                         b"!\r\n".join(bytes([octet]) for octet in base64.b64encode(IBAN) + b"A") + b"!\r\n",
    "two-encodings": HEAD + b"Content-Transfer-Encoding: 7bit\r\nContent-Transfer-Encoding: base64\r\n\r\n" +
                     in_base64(IBAN),
    "attachment": MULTIPART + part(b"", body=b"see there") +
                  part(b"Content-Type: application/octet-stream", b"Content-Transfer-Encoding: base64",
                       body=in_base64(BINARY + b"\n" + IBAN)) + b"--b--\r\n",
    "utf-16": MULTIPART + part(b"Content-Type: text/plain; charset=utf-16le", b"Content-Transfer-Encoding: base64",
                               body=in_base64(IBAN.decode().encode("utf-16le"))) + b"--b--\r\n",
    "utf-16-not-told": MULTIPART + part(b"Content-Transfer-Encoding: base64",
                                        body=in_base64(IBAN.decode().encode("utf-16be"))) + b"--b--\r\n",
    "utf-7": HEAD + b"Content-Type: text/plain; charset=utf-7\r\n\r\n+AEQ-E89 3704 0044 0532 0130 00\r\n",
    "html": HEAD + b"Content-Type: text/html\r\n\r\n<p>D<b>E89</b>&#32;3704 0044 &#x30;532 0130 00</p>\r\n",
    "message-in-message": MULTIPART + part(b"Content-Type: message/rfc822", body=HEAD +
                          b"Content-Transfer-Encoding: base64\r\n\r\n" + in_base64(IBAN)) + b"--b--\r\n",
    "message-in-base64": MULTIPART + part(b"Content-Type: message/rfc822", b"Content-Transfer-Encoding: base64",
                         body=in_base64(HEAD + b"Content-Transfer-Encoding: quoted-printable\r\n\r\n" +
                                        b"DE=38=39 3704 0044 0532 0130 00")) + b"--b--\r\n",
    "preamble": MULTIPART + IBAN + b"\r\n" + part(b"", body=b"x") + b"--b--\r\n",
    "epilogue": MULTIPART + part(b"", body=b"x") + b"--b--\r\n" + IBAN + b"\r\n",
    "no-end": MULTIPART + part(b"Content-Transfer-Encoding: base64", body=base64.b64encode(IBAN)),
    "no-boundary": HEAD + b"Content-Type: multipart/mixed\r\nContent-Transfer-Encoding: base64\r\n\r\n" +
                   in_base64(IBAN),
    "no-header": IBAN + b"\r\n",
    "nul-bytes": HEAD + b"\r\n" + b"\0".join(bytes([octet]) for octet in IBAN) + b"\r\n",
    "among-binary": HEAD + b"\r\n" + BINARY + b"\r\n" + IBAN + b"\r\n" + BINARY,
    "unknown-charset": HEAD + b"Content-Type: text/plain; charset=klingon\r\n\r\n\xe9 " + IBAN + b"\r\n",
    "no-text-codec": HEAD + b"Content-Type: text/plain; charset=zip\r\n\r\n" + IBAN + b"\r\n",
    "blank-before-colon": HEAD + b"Content-Transfer-Encoding : base64\r\n\r\n" + in_base64(IBAN),
    "mailbox-line": b"From a@b.example Mon Jan  1 00:00:00 2024\r\n" + HEAD + b"Content-Transfer-Encoding: base64\r\n\r\n" +
                    in_base64(IBAN),
    "quoted-mailbox-line": b">From a\r\n" + HEAD + b"Content-Transfer-Encoding: base64\r\n\r\n" + in_base64(IBAN),
    "line-among-fields": HEAD + b"no field\r\nContent-Transfer-Encoding: base64\r\n\r\n" + in_base64(IBAN),
    "line-ends-header": HEAD + b"Content-Transfer-Encoding: quoted-printable\r\nDE=389 3704 0044 =\r\n0532 0130 00\r\n\r\n",
    "blank-ends-header": HEAD + b"Content-Transfer-Encoding: quoted-printable\r\nX : DE=389 3704 0044 0532 0130 00\r\n\r\n",
    "LF": (MULTIPART + part(b"Content-Transfer-Encoding: base64", body=in_base64(IBAN))).replace(b"\r\n", b"\n"),
    "digest": HEAD + b"Content-Type: multipart/digest; boundary=b\r\n\r\n" + part(
        body=HEAD + b"Content-Transfer-Encoding: base64\r\n\r\n" + in_base64(IBAN)) + b"--b--\r\n",
    "pair-in-boundary": HEAD + b'Content-Type: multipart/mixed; boundary="\\b"\r\n\r\n' +
                        part(b"Content-Transfer-Encoding: base64", body=in_base64(IBAN)),
    "pieces-of-boundary": HEAD + b'Content-Type: multipart/mixed; boundary*0=x; boundary*1="b"\r\n\r\n' +
                          part(b"Content-Transfer-Encoding: base64", body=in_base64(IBAN), boundary=b"xb"),
    "two-boundaries": HEAD + b"Content-Type: multipart/mixed; boundary=x; boundary=b\r\n\r\n" +
                      part(b"Content-Transfer-Encoding: base64", body=in_base64(IBAN)),
    "two-types": HEAD + b"Content-Type: text/plain\r\nContent-Type: multipart/mixed; boundary=b\r\n\r\n" +
                 part(b"Content-Transfer-Encoding: base64", body=in_base64(IBAN)),
    "begins-with-boundary": MULTIPART + part(b"Content-Transfer-Encoding: base64", body=in_base64(IBAN), boundary=b"b1"),
    "comment-before-boundary": HEAD + b"Content-Type: multipart/mixed; (one; two) boundary=b\r\n\r\n" +
                               part(b"Content-Transfer-Encoding: base64", body=in_base64(IBAN)),
    "below-base64": HEAD + b"Content-Transfer-Encoding: base64\r\n\r\n" + in_base64(b"text") + b"-- \r\n" + IBAN + b"\r\n",
    "blanks-after-soft-break": HEAD + b"Content-Transfer-Encoding: quoted-printable\r\n\r\nDE89 3704= \r\n 0044 0532 0130 00",
    "quoted-pairs": b'From: "DE\\89\\ 3704 0044 0532 0130 00" <a@client.example>\r\n\r\n',
    "words-in-quotes": HEAD + b'Content-Type: a/b; name="=?utf-8?Q?DE89_3704?=\r\n =?utf-8?Q?_0044_0532_0130_00?="\r\n\r\n',
    "percent-without-star": HEAD + b'Content-Type: a/b; name="DE89%203704%200044%200532%200130%2000"\r\n\r\n',
    "half-a-word": b"Subject: =?utf-8?B?REU4 =?utf-8?Q?DE89_3704_0044_0532_0130_00?=\r\n\r\n",
    "html-number": HEAD + b"Content-Type: text/html\r\n\r\n&#" + b"9" * 5000 + b"; " + IBAN + b"\r\n",
    "html-zeros": HEAD + b"Content-Type: text/html\r\n\r\n&#" + b"0" * 5000 + b"68;E89 3704 0044 0532 0130 00\r\n",
    **{f"nul-in-{name}": HEAD + b"Content-Type: text/plain; %s\r\n\r\n" % parameter + IBAN + b"\r\n" for name, parameter in {
        "charset": b"charset=\0", "extended-charset": b"charset*=\0''utf-8", "name": b"name*=\0''x",
        "boundary": b"boundary*=\0'\0'b", "pieces": b"name*0*=\0'\0'; name*\0=b"}.items()},
}


@pytest.mark.parametrize("carrier", CARRIERS)
def test_dlp_finds_it_in(carrier, dlp):
    assert dlp(CARRIERS[carrier]) == rejected("iban")


@pytest.mark.parametrize("message", [
    "Content-Type: text/plain; charset=iso-8859-1\r\n\r\ngeheime Tür\r\n".encode("latin-1"),
    "Content-Type: text/plain; charset=utf-8\r\n\r\ngeheime Tür\r\n".encode(),
    "Subject: geheime Tür\r\n\r\n".encode(),
    "Subject: {}\r\n\r\n".format(email.header.Header("geheime Tür", "iso-8859-15").encode()).encode(),
    b"Content-Transfer-Encoding: quoted-printable\r\n\r\n" + quopri.encodestring("geheime Tür".encode()),
    "Content-Type: multipart/mixed; boundary=b\r\n\r\ngeheime Tür\r\n--b\r\n\r\n\r\n--b--\r\n".encode(),
    b"Subject: =?utf-8?Q?geheime_T=C3?=\r\n =?utf-8?B?vHI=?=\r\n\r\n",
    b"Subject: =?utf-8*de?Q?geheime_T=C3=BCr?=\r\n\r\n",
    b"Subject: =?us-ascii?Q?geheime_T=FCr?=\r\n\r\n",
    b"Subject: geheime T\xfcr\r\n\r\n",
    b'Content-Disposition: attachment; filename="geheime T\xfcr.pdf"\r\n\r\n',
    b"Content-Disposition: attachment; filename*=iso-8859-1'de'geheime%20T%FCr.pdf\r\n\r\n",
    b"Content-Type: a/b; name=x\r\nContent-Disposition: attachment; filename=y; filename*=UTF-8''geheime%20T%C3%BCr\r\n\r\n",
    b"Content-Type: a/b;\r\n name*0*=utf-8''geheime%20T%C3;\r\n name*1*=%BCr\r\n\r\n",
    b'Content-Type: a/b;\r\n name*2="r.pdf"; name*0="gehe"; name*1*=ime%20T%FC\r\n\r\n',
    b'Content-Type: a/b;\r\n name*0="=?utf-8?Q?geheime_T"; name*1="=C3=BCr?="\r\n\r\n',
    b"Content-Transfer-Encoding: base64\r\n\r\n" + base64.b64encode("geheime Tür".encode("utf-16")),
    b"Content-Type: text/plain; charset*=us-ascii''iso-8859-7; charset=utf-16be\r\n\r\n" + "geheime Tür".encode("utf-16be"),
], ids=["latin-1", "utf-8", "header", "encoded-word", "quoted-printable", "preamble", "cut-character", "language", "no-ascii",
        "raw-header", "raw-name", "extended-name", "two-names", "cut-name", "pieces", "cut-word", "byte-order-mark", "two-charsets"])
def test_dlp_knows_character_sets(message, dlp):
    assert dlp(message) == rejected("umlaut")


@pytest.mark.parametrize("message", [
    b"", b"\r\n", HEAD, HEAD + b"\r\nDE89 37 is no account\r\n", HEAD + b"\r\n" + BINARY,
    MULTIPART, MULTIPART + part(b"", body=b"fine") + b"--b--\r\n",
    # the letters of an IBAN, but in base64, which is no text; decoded it is something else
    HEAD + b"Content-Transfer-Encoding: base64\r\n\r\nDE89370400440532013000\r\n",
    HEAD + b"\r\nDE89 3704\r\n0044 0532 0130 00\r\n",
], ids=["empty", "empty-line", "header-only", "plain", "binary", "torso", "multipart", "base64", "two-lines"])
def test_dlp_lets_pass(message, dlp):
    assert dlp(message) == ""


def test_dlp_names_all_patterns_and_no_text(dlp):
    verdict = dlp(HEAD + b"\r\nStrictly private: " + IBAN + b"\r\n")
    assert verdict == "log dlp iban,secret\nreject 550 5.7.1 Message matches iban\n"


def test_dlp_only_logs(dlp):
    assert dlp(CARRIERS["body"], DLP_ACTION="log") == "log dlp iban\n"


def test_dlp_searches_ten_megabytes(dlp):
    filler = in_base64(os.urandom(7_000_000))
    assert len(filler) > 9_500_000
    fields = b"Content-Type: application/zip", b"Content-Transfer-Encoding: base64"
    big = MULTIPART + part(*fields, body=filler)
    assert dlp(big + b"--b--\r\n") == ""
    assert dlp(big + part(*fields, body=in_base64(IBAN)) + b"--b--\r\n") == rejected("iban")


def nested(depth):
    return HEAD + b"".join(b"Content-Type: multipart/mixed; boundary=b%d\r\n\r\n--b%d\r\n" % (level, level)
                           for level in range(depth)) + b"\r\n" + IBAN + b"\r\n"


def test_dlp_looks_into_parts_in_parts(dlp):
    assert dlp(nested(50)) == rejected("iban")


@pytest.mark.parametrize("message", [
    nested(2000), HEAD + b"Content-Type: multipart/mixed" + b";" * 5_000_000 + b"\r\n",
    b"a:\n" * 3_000_000, b"a: b" + b"\r\n c" * 2_000_000, MULTIPART + b"--b\r\n\r\n" * 1_000_000,
    b"Content-Type: message/rfc822\r\nContent-Transfer-Encoding: base64 quoted-printable\r\n\r\n" * 90 + b"x" * 5_000_000,
    HEAD + b"Content-Type: multipart/mixed" + b"".join(b"; boundary=%d" % number for number in range(1000)) + b"\r\n\r\n",
], ids=["nested", "parameters", "fields", "folded", "parts", "readings", "boundaries"])
def test_dlp_refuses_what_no_reader_could_show(message, dlp):
    assert dlp(message) == rejected("unreadable-mime")


SLOW_FOR_THE_CARELESS = {
    "tags": HEAD + b"Content-Type: text/html\r\n\r\n" + b"<" * 3_000_000,
    "words": b"Subject: " + b"=?a?q?" * 500_000 + b"\r\n\r\n",
    "spaces": b"Subject: " + b"?=" + b" " * 3_000_000 + b"\r\n\r\n",
    "line": b"Subject: " + b"a" * 5_000_000 + b"\r\n\r\n",
    "charsets": b"Subject: " + b" ".join(b"=?c%d?q?a?=" % number for number in range(200_000)) + b"\r\n\r\n",
    "parts": MULTIPART + part(b"Content-Type: text/plain; name=x", body=b"x") * 10_000 + b"--b--\r\n",
    "delimiters": MULTIPART + b"--b" * 1_000_000,
    "references": HEAD + b"Content-Type: text/html\r\n\r\n" + b"&#68;" * 500_000 + b"&#x" + b"9" * 1_000_000,
    "characters": HEAD + b"Content-Type: text/html; charset=gb18030\r\n\r\n" + "\u4e01".encode("gb18030") * 4_000_000,
    "equal-signs": HEAD + b"Content-Transfer-Encoding: quoted-printable\r\n\r\n" + b"=" * 3_000_000,
    "punycode": HEAD + b"Content-Type: text/plain; charset=punycode\r\n\r\n" + b"a-" + b"b" * 3_000_000,
}


@pytest.mark.parametrize("kind", SLOW_FOR_THE_CARELESS)
def test_dlp_cannot_be_slowed_down(kind, patterns):
    """Nor use up memory."""
    done = by_hand("dlp", sample("data"), SLOW_FOR_THE_CARELESS[kind], {"DLP_PATTERNS": str(patterns)}, timeout=15,
                   preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_AS, (400 << 20, 400 << 20)))
    assert (done.returncode, done.stdout, done.stderr) == (0, b"", b"")


def test_dlp_knows_where_lines_end(tmp_path):
    path = tmp_path / "patterns"
    path.write_text("last left$\n")
    for end in b"\r\n", b"\n", b"":
        assert run_hook("dlp", b"\r\nwho left" + end, {"DLP_PATTERNS": str(path)}).stdout.decode() == rejected("last")


def test_dlp_of_a_message_that_cannot_be_read_only_logs(dlp):
    assert dlp(nested(2000), DLP_ACTION="log") == "log dlp unreadable-mime\n"


@pytest.mark.parametrize("text, complaint", [
    ("a b\n# fine\nbroken  (unclosed\n", b"line 3: the pattern broken is no extended regular expression"),
    ("a b\n\nc [z-a]\n", b"line 3: the pattern c is no extended regular expression"),
    ("onlyname\n", b"line 1: must be a name"),
    ("na;me x\n", b"line 1: must be a name"),
    ("# nothing\n\n", b"has no patterns"),
    (None, b"DLP_PATTERNS must name a file"),
])
def test_dlp_tells_what_is_wrong_with_the_patterns(text, complaint, patterns):
    if text is None:
        patterns.unlink()
    else:
        patterns.write_text(text)
    done = run_hook("dlp", CARRIERS["body"], env={"DLP_PATTERNS": str(patterns)})
    assert (done.returncode, done.stdout) == (78, b"")
    assert complaint in done.stderr and done.stderr.count(b"\n") == 1


def test_dlp_knows_its_actions(patterns):
    done = run_hook("dlp", b"", env={"DLP_PATTERNS": str(patterns), "DLP_ACTION": "ask"})
    assert (done.returncode, done.stdout) == (78, b"") and b"DLP_ACTION" in done.stderr


def test_dlp_takes_patterns_as_they_are(tmp_path):
    """A quote, a dash, what a shell would run and a back-reference."""
    path = tmp_path / "patterns"
    path.write_bytes(b"dash -v\r\nshell \\$\\(touch x\\)|`\nquote '\"\\\\\nback (ab)\\1\n")
    for text, name in (b"a -v b", "dash"), (b"$(touch x)", "shell"), (b"'\"\\", "quote"), (b"xababx", "back"):
        done = run_hook("dlp", b"\r\n" + text + b"\r\n", env={"DLP_PATTERNS": str(path)}, cwd=tmp_path)
        assert done.stdout.decode() == rejected(name)
    assert sorted(os.listdir(tmp_path)) == ["patterns"]


def test_dlp_through_smtpwarp(warp, mail_server, patterns, tmp_path):
    hooks, server = Hooks(tmp_path / "hooks"), mail_server()
    hooks.link("data", "dlp")
    proxy = warp(*hooks.options, upstream=server, env={"DLP_PATTERNS": str(patterns)}).listen()
    assert submit(proxy, CARRIERS["attachment"]) == "550 5.7.1 Message matches iban"
    record = proxy.wait_for("message")
    assert (record["result"], record["hooks"]) == ("rejected", {"dlp": "iban"})
    assert IBAN.decode() not in proxy.log_text()
    assert not server.messages
    clean = HEAD + b"\r\nnothing\r\n"
    assert submit(proxy, clean) == "250 2.0.0 taken"
    assert [message["data"] for message in server.messages] == [clean + b".\r\n"]


# capture

class Maildir:
    def __init__(self, path):
        self.path = path

    def names(self, folder="new"):
        return sorted(os.listdir(self.path / folder))

    def contents(self):
        """Of each message the header that capture made, a list of lines, and what follows it."""
        return [self.split((self.path / "new" / name).read_bytes()) for name in self.names()]

    @staticmethod
    def split(data):
        head, end, content = data.partition(b"\nX-Envelope-Session: ")
        return (head + end).decode().split("\n")[:-1], content.partition(b"\n")[2]


@pytest.fixture
def maildir(tmp_path):
    return Maildir(tmp_path / "mail dir")


def broken_sed(folder):
    """The variable that makes a hook find a sed that breaks off when it reads the message."""
    program(folder / "sed", '#!/bin/sh\ncase " $* " in *" /dev/fd/3 "*) /usr/bin/sed "$@" | head -c 300; exit 4 ;; esac\nexec /usr/bin/sed "$@"\n')
    return {"PATH": f"{folder}:{os.environ['PATH']}"}


def capture(maildir, message, env=None, **fields):
    return run_hook("capture", message, {"MAILDIR": str(maildir.path), **(env or {})}, **fields)


def test_capture_stores_envelope_and_message(maildir):
    done = capture(maildir, HEAD + b"\r\nHello.\r\n")
    [name] = maildir.names()
    assert (done.returncode, done.stdout.decode(), done.stderr) == (0, f"log capture {name}\n", b"")
    assert maildir.contents() == [([
        "Return-Path: <alice@client.example>",
        "Delivered-To: bob@mail.example",
        "Delivered-To: carol@mail.example",
        "X-Envelope-From: <alice@client.example> SIZE=512",
        "X-Envelope-To: <bob@mail.example>",
        "X-Envelope-To: <carol@mail.example> NOTIFY=SUCCESS",
        "X-Envelope-Client: client.example [10.0.0.1]",
    ], (HEAD + b"\r\nHello.\r\n").replace(b"\r\n", b"\n"))]
    assert maildir.names("tmp") == maildir.names("cur") == []
    assert ":" not in name and "/" not in name


@pytest.mark.parametrize("line", [b"From a@b Mon\r\n", b">From a Mon\r\n"])
def test_capture_puts_the_envelope_below_the_line_of_a_mailbox(line, maildir):
    assert capture(maildir, line + HEAD + b"\r\n" + line).returncode == 0
    [(head, content)] = maildir.contents()
    assert head[:2] == [line[:-2].decode(), "Return-Path: <alice@client.example>"]
    assert content == (HEAD + b"\r\n" + line).replace(b"\r\n", b"\n")


def test_capture_puts_the_envelope_above_a_field(maildir):
    assert capture(maildir, b"From : x\r\n\r\n").returncode == 0
    assert maildir.contents()[0][0][0] == "Return-Path: <alice@client.example>"


@pytest.mark.parametrize("message", [
    b"", b"\r\n", HEAD, b"no header\r\n", b"\r\n" + OCTETS + b"\r\n", b"\r\ncarriage\rreturn\r\r\n", b"\r\nno end",
    b"\r\n" + b"x" * 100_000 + b"\r\n", b"\r\n.\r\n..\r\nFrom me\r\n",
], ids=["empty", "empty-line", "header-only", "no-header", "octets", "returns", "no-end", "long-line", "dots"])
def test_capture_changes_line_ends_and_nothing_else(message, maildir):
    assert capture(maildir, message).returncode == 0
    [(_, content)] = maildir.contents()
    assert content == message.replace(b"\r\n", b"\n")


def test_capture_stores_ten_megabytes(maildir):
    message = HEAD + b"\r\n" + crlf(base64.encodebytes(os.urandom(7_500_000)))
    assert capture(maildir, message).returncode == 0
    [(_, content)] = maildir.contents()
    assert crlf(content) == message


def test_capture_of_a_null_sender_and_hundreds_of_recipients(maildir):
    recipients = [f"rcpt{number}@mail.example" for number in range(999)]
    capture(maildir, HEAD, mail_from={"address": "", "params": {"SMTPUTF8": True}}, helo=None, message_id=None,
            rcpt_to=[{"address": recipient, "params": {}} for recipient in recipients])
    [(head, _)] = maildir.contents()
    assert head[0] == "Return-Path: <>"
    assert head[1:1000] == [f"Delivered-To: {recipient}" for recipient in recipients]
    assert head[1000] == "X-Envelope-From: <> SMTPUTF8"
    assert head[2000:] == ["X-Envelope-Client:  [10.0.0.1]"]


def test_capture_lets_no_value_become_a_field(maildir):
    """PROTOCOL 78"""
    capture(maildir, HEAD, mail_from={"address": HOSTILE, "params": {"ENVID": HOSTILE}}, helo=HOSTILE,
            rcpt_to=[{"address": HOSTILE + "ü" * 5000, "params": {}}])
    [(head, _)] = maildir.contents()
    cleaned = "-e`id`$(id);\"'\\@xBcc: evil\ufffd"
    assert head == [f"Return-Path: <{cleaned}>", f"Delivered-To: {cleaned}{'ü' * 5000}",
                    f"X-Envelope-From: <{cleaned}> ENVID={cleaned}", f"X-Envelope-To: <{cleaned}{'ü' * 5000}>",
                    f"X-Envelope-Client: {cleaned} [10.0.0.1]"]


def test_capture_can_discard(maildir):
    done = capture(maildir, HEAD, {"CAPTURE_ACTION": "discard"})
    assert done.stdout.decode() == f"log capture {maildir.names()[0]}\ndiscard\n"


def test_capture_fifty_at_once(maildir):
    """Each whole and under its own sender, and at no time is half a message in new/."""
    messages = {number: HEAD + b"\r\n" + (b"%d\r\n" % number) * 40_000 for number in range(50)}
    seen, done = set(), threading.Event()

    def watch():
        while not done.wait(0.002):
            for name in os.listdir(maildir.path / "new") if maildir.path.exists() else ():
                seen.add(((maildir.path / "new" / name).stat().st_size, name))

    def deliver(number):
        sender = {"address": f"{number}@a.example", "params": {}}
        return capture(maildir, messages[number], mail_from=sender).returncode

    (maildir.path / "new").mkdir(parents=True)
    results, watcher = {}, threading.Thread(target=watch)
    watcher.start()
    threads = [threading.Thread(target=lambda number=number: results.update({number: deliver(number)}))
               for number in messages]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    done.set()
    watcher.join()
    assert set(results.values()) == {0}
    stored = {int(head[0].partition("<")[2].partition("@")[0]): crlf(content) for head, content in maildir.contents()}
    assert stored == messages
    assert maildir.names("tmp") == []
    assert len(seen) == len({name for _, name in seen}), "a file in new/ has grown"


@pytest.mark.skipif(bool(netns.unsupported()), reason=netns.unsupported())
def test_capture_leaves_nothing_when_the_disk_is_full(maildir):
    """A file system of 300 KB in a mount namespace of the hook's own."""
    maildir.path.mkdir()
    script = 'mount -t tmpfs -o size=300k none "$MAILDIR" && "$1" <"$2" 3<"$3"; s=$?; find "$MAILDIR" -type f; exit $s'
    root = maildir.path.parent
    (root / "message").write_bytes(b"\r\n" + b"x" * 400_000)
    (root / "line").write_text(json.dumps(sample("data")))
    command = ["unshare", "-m", "sh", "-c", script, "sh", shipped("capture"), root / "line", root / "message"]
    done = subprocess.run(command, env={"PATH": os.environ["PATH"], "MAILDIR": str(maildir.path)}, capture_output=True,
                          check=False)
    assert (done.returncode, done.stdout) == (75, b"")
    assert b"capture: cannot write" in done.stderr.splitlines()[-1]


def test_capture_takes_no_part_of_a_message(maildir, tmp_path):
    """sed has no memory for a line: the client must not hear 250."""
    env = {"CAPTURE_ACTION": "discard", **broken_sed(tmp_path)}
    done = capture(maildir, HEAD + b"\r\n" + b"x\r\n" * 1000, env)
    assert (done.returncode, done.stdout) == (75, b"") and maildir.names() == maildir.names("tmp") == []


@pytest.mark.parametrize("env, complaint", [
    ({"CAPTURE_ACTION": "accept; discard"}, b"CAPTURE_ACTION"),
    ({"MAILDIR": "/proc/none/mail"}, b"MAILDIR must name"),
])
def test_capture_says_what_is_wrong(env, complaint, maildir):
    done = capture(maildir, HEAD, env)
    assert (done.returncode, done.stdout) == (78, b"")
    assert complaint in done.stderr.splitlines()[-1]
    assert not maildir.path.exists() or maildir.names() == []


@pytest.mark.parametrize("action", ["accept", "discard"])
def test_capture_through_smtpwarp(action, warp, mail_server, maildir, tmp_path):
    hooks, server = Hooks(tmp_path / "hooks"), mail_server()
    hooks.link("data", "capture")
    proxy = warp(*hooks.options, upstream=server,
                 env={"MAILDIR": str(maildir.path), "CAPTURE_ACTION": action}).listen()
    recipients = [f"rcpt{number}@mail.example" for number in range(300)]
    message = HEAD + b"\r\n.dot\r\n" + OCTETS * 40 + b"\r\n"
    assert submit(proxy, message, recipients, sender="").startswith("250 ")
    [(head, content)] = maildir.contents()
    assert head[:301] == ["Return-Path: <>", *(f"Delivered-To: {recipient}" for recipient in recipients)]
    assert crlf(content) == message
    record = proxy.wait_for("message")
    assert record["hooks"] == {"capture": maildir.names()[0]}
    assert record["result"] == {"accept": "accepted", "discard": "discarded"}[action]
    stuffed = message.replace(b"\r\n.", b"\r\n..") + b".\r\n"
    assert [taken["data"] for taken in server.messages] == ([stuffed] if action == "accept" else [])
