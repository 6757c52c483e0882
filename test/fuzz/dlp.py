#!/usr/bin/python3
"""Fuzzes hooks/dlp, which must find what is hidden in a message, and have an end with any.

    dlp.py [--seconds N] [--from SEED]      for so long, a message for each seed
    dlp.py --seed SEED                      one, shown

Of three kinds of messages a seed makes one:

* NEEDLE is in it, in one of the forms that mail has for text, under parts in parts: dlp must find it.
* The same with random faults. If Python's email package still finds the needle, dlp must, too.
* Pieces of mail in any order, some of them many times: there must be an end, without an exception, in little time and memory.
"""
import argparse
import base64
import email
import email.errors
import email.header
import importlib.machinery
import importlib.util
import pathlib
import random
import re
import resource
import signal
import sys
import time
import traceback
import urllib.parse

ROOT = pathlib.Path(__file__).resolve().parents[2]
NEEDLE = "verborgene T\xfcr 4711 \xa3\xe9"
CHARSETS = "utf-8", "UTF-8", "iso-8859-1", "ISO-8859-15", "Windows-1252", "utf-7", "gb18030", "latin1", "iso-8859-14"
SECONDS = 5             # of CPU time, for a message
MEMORY = 400 << 20      # besides what there is at the start


def load():
    loader = importlib.machinery.SourceFileLoader("dlp", str(ROOT / "hooks/dlp"))
    module = importlib.util.module_from_spec(importlib.util.spec_from_loader("dlp", loader))
    sys.dont_write_bytecode = True
    loader.exec_module(module)
    return module


# Messages that hide the needle

class Maker:
    def __init__(self, seed):
        self.random = random.Random(seed)
        self.chance, self.pick = self.random.random, self.random.choice
        self.end = self.pick([b"\r\n", b"\n"])
        self.blanks = self.pick([[b""], [b""], [b"", b"", b" ", b"\t "]])      # before colons
        self.boundaries = 0

    def cut(self, octets, most=6):
        """In pieces, between any two octets (or characters)."""
        places = sorted({self.random.randrange(len(octets) + 1) for _ in range(self.random.randrange(most))})
        return [octets[start:end] for start, end in zip([0, *places], [*places, len(octets)])]

    def fold(self):
        return self.end + self.pick([b" ", b"\t", b"  ", b" \t "])

    def blank(self):
        return self.pick([b" ", b" ", b"", b"\t", self.fold()])

    def field(self, name, value):
        name = self.pick([name, name, name.lower(), name.upper()])
        return name + self.pick(self.blanks) + b":" + self.pick([b" ", b"", self.fold()]) + value + self.end

    # Text in a header

    def quoted(self, octets, also=b"", blank=b"=20"):
        """Quoted-printable. What need not be encoded may be."""
        return b"".join(blank if octet == 0x20 else b"=%02X" % octet
                        if not 0x20 < octet < 0x7f or octet in b"=?_\"\\()'" + also or self.chance() < .1 else bytes([octet])
                        for octet in octets)

    def words(self, text=NEEDLE):
        """Encoded words in one character set, cut within characters, or in several; in any language and both encodings."""
        charsets = [name for name in CHARSETS if name != "utf-7"]
        charset, language = self.pick(charsets), self.pick([b"", b"", b"*en", b"*de-AT"])
        pieces = [(charset, octets) for octets in self.cut(text.encode(charset))]
        if self.chance() < .3:
            pieces = [(name, piece.encode(name)) for piece in self.cut(text) for name in [self.pick(charsets)]]
        cut = []
        for charset, octets in pieces:
            if self.chance() < .5:
                cut.append(b"=?%s%s?%s?%s?=" % (charset.encode(), language, self.pick([b"B", b"b"]), base64.b64encode(octets)))
            else:
                cut.append(b"=?%s%s?%s?%s?=" % (charset.encode(), language, self.pick([b"Q", b"q"]),
                                               self.quoted(octets, blank=self.pick([b"_", b"=20"]))))
        return self.pick([b" ", self.fold(), b"  ", self.fold()]).join(cut)

    def raw(self):
        return NEEDLE.encode(self.pick(["utf-8", "iso-8859-1"]))

    def in_quotes(self, octets):
        """With quoted pairs, which are needed or not."""
        return b'"%s"' % b"".join(b"\\" + bytes([octet]) if octet in b'"\\' or octet > 0x20 and self.chance() < .1 else bytes([octet])
                                  for octet in octets)

    def percent(self, octets):
        return urllib.parse.quote(octets, safe=self.pick(["", "!#$&+-.^_`|~"])).encode()

    def continued(self):
        """A name in pieces, some encoded, in any order: RFC 2231."""
        charset = self.pick(CHARSETS)
        name = self.pick([b"filename", b"name"])
        pieces = []
        for number, octets in enumerate(self.cut(NEEDLE.encode(charset))):
            plain = all(0x20 <= octet < 0x7f and octet not in b"%" for octet in octets) and number and self.chance() < .5
            if plain:
                pieces.append(b"%s*%d=%s" % (name, number, self.in_quotes(octets)))
            else:
                start = b"" if number else charset.encode() + b"'" + self.pick([b"", b"de"]) + b"'"
                value = start + self.percent(octets)
                pieces.append(b"%s*%d*=%s" % (name, number, self.pick([value, b'"%s"' % value])))
        self.random.shuffle(pieces)
        return (b";" + self.blank()).join(pieces)

    def parameter(self):
        name = self.pick([b"name", b"filename", b"FileName"])
        kind = self.random.randrange(6)
        if kind == 0:
            return name + b"=" + self.in_quotes(self.raw())
        if kind == 1:
            return name + b" = " + self.in_quotes(self.words())
        if kind == 2:
            charset = self.pick(CHARSETS)
            return name + b"*=" + charset.encode() + b"''" + self.percent(NEEDLE.encode(charset))
        if kind == 3:
            return b'name="x"; filename*=utf-8\'\'' + self.percent(NEEDLE.encode())
        if kind == 4:       # as some programs have it: encoded, and no star
            return name + b'="' + self.percent(NEEDLE.encode()) + b'"'
        return self.continued()

    def hiding_field(self):
        kind = self.random.randrange(4)
        if kind == 0:
            return self.field(self.pick([b"Subject", b"X-Note", b"Content-Description"]), b"about " + self.words() + b" (x)")
        if kind == 1:
            return self.field(b"Subject", self.raw())
        if kind == 2:
            return self.field(b"From", self.in_quotes(self.raw()) + b" <a@client.example>")
        start = self.pick([b"attachment", b"inline", b"attachment; size=7", b"attachment (a ; comment)"])
        name, start = self.pick([(b"Content-Disposition", start), (b"Content-Type", b"application/pdf")])
        return self.field(name, start + b";" + self.blank() + self.parameter())

    # Bodies

    def html(self, text):
        text = "".join(self.pick([char, f"&#{ord(char)};", f"&#x{ord(char):X};", f"<b>{char}</b>", f"&#000{ord(char)}"
                                  + ";"]) for char in text)
        return f"<html><p style='x'>{text}</p>"

    def base64(self, octets):
        """Lines of any length."""
        encoded = base64.b64encode(octets)
        return self.end.join(self.cut(encoded, 9)) + self.end

    def soft_breaks(self, encoded):
        return re.sub(rb"=[0-9A-F]{2}|.", lambda found: found[0] + (
            b"=" + self.pick([b"", b" ", b"\t "]) + self.end if self.chance() < .05 else b""), encoded, flags=re.S)

    def hiding_body(self):
        """(fields, body)"""
        charset, text = self.pick(CHARSETS + ("utf-16", "utf-16le", "utf-32be", "x-unknown")), f"some {NEEDLE} text"
        subtype = b"plain"
        if self.chance() < .3:
            subtype, text = b"html", self.html(text)
        octets = text.encode(charset if charset != "x-unknown" else "utf-8")
        named = self.pick([b"charset=%s", b'charset="%s"', b"format=flowed; Charset = \"%s\"", b"charset*=us-ascii'en'%s"])
        fields = self.field(b"Content-Type", b"text/" + subtype + b";" + self.blank() + named % charset.encode())
        kind = self.random.randrange(3) if "16" not in charset and "32" not in charset else 2
        coding = self.pick([b"quoted-printable", b"Quoted-Printable", b"QUOTED-PRINTABLE"]) if kind == 1 else self.pick(
            [b"base64", b"BASE64", b"Base64 "])
        if kind == 0:
            return fields, octets + self.end
        fields = [fields, self.field(b"Content-Transfer-Encoding", coding)]
        self.random.shuffle(fields)
        encoded = self.soft_breaks(self.quoted(octets, b" ")) if kind == 1 else self.base64(octets)
        return b"".join(fields), encoded

    # Parts in parts

    def other_part(self):
        return self.pick([self.end + b"nothing here" + self.end, self.end, b"",
                          self.field(b"Content-Type", b"text/plain") + self.end + b"x",
                          self.field(b"Content-Transfer-Encoding", b"base64") + self.end + b"AAAA" + self.end])

    def multipart(self, part):
        """(fields, body), the part among others"""
        self.boundaries += 1
        boundary = self.pick([b"b%d" % self.boundaries, b"b" * self.boundaries, b"=_x y%d" % self.boundaries,
                              b"'()+_,-./:=?%d" % self.boundaries])
        named = self.pick([b'boundary="%s"', b'x=y; Boundary = "%s"', b'(a "comment")\tboundary="%s"; z="a;b"',
                           b"boundary*0=\"%s\""])
        subtype = self.pick([b"mixed", b"alternative", b"related", b"x-other", b"Mixed"])
        parts = [self.other_part() for _ in range(self.random.randrange(3))]
        parts.insert(self.random.randrange(len(parts) + 1), part)
        line = b"--" + boundary + self.pick([b"", b" ", b"\t"]) + self.end
        body = self.pick([b"", b"preamble" + self.end, self.end]) + b"".join(line + inner + self.end for inner in parts)
        if self.chance() < .8:
            body += b"--" + boundary + b"--" + self.end + self.pick([b"", b"epilogue"])
        return self.field(b"Content-Type", b"multipart/" + subtype + b";" + self.blank() + named % boundary), body

    def message_part(self, part):
        if self.chance() < .5:
            return self.field(b"Content-Type", b"message/rfc822"), part
        return self.field(b"Content-Type", self.pick([b"message/rfc822", b"message/global"])) + \
            self.field(b"Content-Transfer-Encoding", b"base64"), self.base64(part)

    def header(self, fields):
        other = [self.field(b"Subject", b"x"), self.field(b"MIME-Version", b"1.0"), self.field(b"X-Y", b"z"), b""]
        self.random.shuffle(other)
        return other[0] + fields + other[1]

    def hidden(self):
        if self.chance() < .5:
            part = self.header(self.hiding_field()) + self.end + b"see there" + self.end
        else:
            fields, body = self.hiding_body()
            part = self.header(fields) + self.end + body
        for _ in range(self.random.randrange(5)):
            fields, body = self.pick([self.multipart, self.multipart, self.message_part])(part)
            part = self.header(fields) + self.end + body
        return self.pick([b"", b"", b"From a@b.example Mon Jan  1 00:00:00 2024" + self.end, b">From a" + self.end]) + part

    # Anything else

    def faulty(self):
        octets = self.hidden()
        for _ in range(self.random.randrange(1, 5)):
            at = self.random.randrange(len(octets) + 1)
            end = at + self.random.randrange(self.pick([2, 4, 40]))
            piece = self.pick([b"", b"", self.pick(PIECES), self.random.randbytes(2), octets[at:end] * 2])
            octets = octets[:at] + piece + octets[end:]
        return octets

    def pieces(self):
        made = []
        for _ in range(self.random.randrange(1, 60)):
            piece = self.pick(PIECES)
            piece = self.pick([piece, piece, piece, self.random.randbytes(3), self.hiding_field()])
            made.append(piece * (self.random.randrange(1, 60_000 // len(piece)) if self.chance() < .03 else 1))
        return b"".join(made)


PIECES = [b"\r\n", b"\n", b"\r\n\r\n", b"\n ", b"\r", b"\0", b" ", b"\t", b":", b";", b"=", b'"', b"\\", b"'", b"''", b"*", b"%", b"%41",
          b"(", b")", b"<", b"&#", b"&#x", b"&#99999999999", b"9", b"--", b"--b", b"\n--b\n", b"\n--b--\n", b"=?", b"?=", b"?Q?",
          b"?B?", b"=?utf-8?Q?a?=", b"=?utf-8?B?YQ==?=", b"=?\0?Q?a?=", b"=?zip?B?AAAA?= ", b"=?idna?Q?xn--a?= ",
          b"Content-Type: ", b"Content-Disposition: attachment", b"Content-Transfer-Encoding: ", b"base64", b"quoted-printable",
          b"multipart/mixed; boundary=b", b"multipart/digest; boundary=b", b"message/rfc822", b"text/html", b"; charset=",
          b"charset*=\0''", b"charset*=utf-16''%00", b"; charset*0*=a''%00", b"; boundary*=\0'\0'b", b"; filename*", b"0*=", b"*1=",
          b"*99999999999=", b"utf-7", b"punycode", b"undefined", b"unicode_escape", b"hz", b"iso-2022-kr", b"\xff\xfe", b"\xfe\xff",
          b"From a", b">From ", b"Subject: ", b"Subject : ", b"AAAA", b"====", b"=\r\n", b"=41", b"\x1b$B", b"~{", b"+AGE-", b"+", b"\xe9"]


# What Python's email package finds

def python_reads(message):
    """The texts that it shows."""
    for part in email.message_from_bytes(message).walk():
        for _, value in part.raw_items():
            octets = value.encode("ascii", "surrogateescape")
            yield "".join(text if isinstance(text, str) else text.decode(charset or "ascii", "replace")
                          for text, charset in email.header.decode_header(re.sub(r"\r?\n[ \t]+", " ", octets.decode("utf-8", "replace"))))
        yield part.get_filename() or ""
        if not part.is_multipart():
            yield part.get_payload(decode=True).decode(part.get_content_charset("utf-8"), "replace")


def python_finds(message):
    """Not if it fails, or if opinions differ: of a carriage return, which ends no line for mail servers, and of an encoded word
    that has the beginning of another in it. Long messages take it long."""
    if re.search(rb"\r(?!\n)|=\?[^?]*\?[BbQq]\?[^?]*=\?[^?]*\?[BbQq]\?", message) or len(message) > 20_000:
        return False
    try:
        return any(NEEDLE in text.replace("\0", "") for text in python_reads(message))
    except (ValueError, LookupError, TypeError, AttributeError, IndexError, AssertionError, email.errors.MessageError):
        return False


# The fuzzer

class Failure(Exception):
    """What dlp did wrong."""


def too_long(*_):
    raise Failure(f"no end within {SECONDS} s")


def finds(dlp, message):
    """Whether dlp would refuse it."""
    signal.setitimer(signal.ITIMER_VIRTUAL, SECONDS)
    try:
        with dlp.searched(message) as file:
            file.seek(0)
            return NEEDLE.encode() in file.read()
    except dlp.Unreadable:
        return True
    finally:
        signal.setitimer(signal.ITIMER_VIRTUAL, 0)


def message_of(seed):
    """(kind, message)"""
    maker = Maker(seed)
    kind = ("hidden", "faulty", "pieces")[seed % 3]
    return kind, getattr(maker, kind)()


def judge(dlp, seed):
    kind, message = message_of(seed)
    found = finds(dlp, message)
    if not found and (kind == "hidden" or python_finds(message)):
        raise Failure("the needle is not found" + " (Python finds it)" * (kind != "hidden"))


def limit_memory():
    pages = int(pathlib.Path("/proc/self/statm").read_text(encoding="ascii").split()[0])
    most = pages * resource.getpagesize() + MEMORY
    resource.setrlimit(resource.RLIMIT_AS, (most, most))


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--seconds", type=float, default=10)
    parser.add_argument("--from", dest="first", type=int, default=1)
    parser.add_argument("--seed", type=int)
    options = parser.parse_args()
    dlp = load()
    if options.seed is not None:
        sys.stdout.buffer.write(message_of(options.seed)[1])
    limit_memory()
    signal.signal(signal.SIGVTALRM, too_long)
    end, first, failed = time.monotonic() + options.seconds, options.first if options.seed is None else options.seed, 0
    seed = first
    while seed == options.seed or options.seed is None and time.monotonic() < end and failed < 10:
        try:
            judge(dlp, seed)
        except Exception as problem:    # pylint: disable=broad-except; that is what we look for
            failed += 1
            trace = "" if isinstance(problem, Failure) else traceback.format_exc()
            print(f"seed {seed}: {type(problem).__name__} {problem}\n{trace}", flush=True)
        seed += 1
    print(f"{seed - first} messages, {failed} failures")
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    main()
