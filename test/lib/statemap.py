"""Reads the file of --state, as pure/statemap.h has it, and harms it; and counts the sessions that hold a lock on it."""
import collections
import fcntl
import os
import pathlib
import random
import re
import struct

HEADER = (pathlib.Path(__file__).parent.parent.parent / "pure" / "statemap.h").read_text()
CLASSES = re.findall(r"\tX\(\w+, \"([\w-]+)\"", (pathlib.Path(__file__).parent.parent.parent / "pure" / "replyclass.h").read_text())[:21]
STATES = "ok", "slow", "throttled", "blocked"
PHASES = "connect", "banner", "tls", "rcpt", "data", "accept"
SLOTS, SLOT, SLOTS_AT, LEARNT_AT = 1000, 2048, 4096 + 512 * 64, 4096
SIZE = SLOTS_AT + SLOTS * SLOT
PLACES_AT, PLACES, F_OFD_GETLK = 1 << 40, 65536, 36


def names(table):
    """The first column of a list of X(...) in the header, in lower case."""
    return [word.lower() for word in re.findall(r"X\((\w+),", re.search(rf"#define {table}\(X\)(.*?)\n\n", HEADER, re.S)[1])]


COUNTERS = names("STATEMAP_COUNTERS") + CLASSES
TOTALS = names("STATEMAP_TOTALS")


def text(data):
    return data.partition(b"\0")[0].decode("utf-8", "replace")


class Slot:
    def __init__(self, data):
        self.site, self.source = text(data[32:80]), text(data[80:128])
        self.score, self.state, self.level, self.share = struct.unpack_from("=H4xBBI", data, 128 + 64)
        self.until, = struct.unpack_from("=Q", data, 128 + 16)
        counts = struct.unpack_from(f"={len(COUNTERS)}Q", data, 280)
        self.counts = {name: n for name, n in zip(COUNTERS, counts) if n}
        self.replies = {at: n for at, n in enumerate(struct.unpack_from("=16Q", data, 280 + 8 * len(COUNTERS))) if n}
        buckets = struct.unpack_from("=84I", data, 792)
        self.timed = {phase: sum(buckets[14 * at:14 * at + 14]) for at, phase in enumerate(PHASES)}
        self.text = text(data[1184:1312])
        self.state_name = STATES[self.state]


class State:
    def __init__(self, path):
        self.data = pathlib.Path(path).read_bytes()
        assert len(self.data) == SIZE
        totals = struct.unpack_from(f"={len(TOTALS)}Q", self.data, 56)
        self.totals = {name: n for name, n in zip(TOTALS, totals) if n}
        self.slots = [Slot(data) for data in (self.data[at:at + SLOT] for at in range(SLOTS_AT, SIZE, SLOT)) if data[:8] != bytes(8)]

    def slot(self, site, source="127.0.0.1"):
        found = [slot for slot in self.slots if (slot.site, slot.source) == (site, source)]
        assert len(found) == 1, [(slot.site, slot.source) for slot in self.slots]
        return found[0]

    def counts(self):
        """Of all slots."""
        return sum((collections.Counter(slot.counts) for slot in self.slots), collections.Counter())


def sessions(path):
    """How many hold a lock."""
    with open(path, "rb") as file:
        def held(start, end):
            if start >= end:
                return 0
            answer = fcntl.fcntl(file, F_OFD_GETLK, struct.pack("=hhxxxxqqixxxx", fcntl.F_WRLCK, 0, start, end - start, 0))
            kind, _, at, length, _ = struct.unpack("=hhxxxxqqixxxx", answer)
            if kind == fcntl.F_UNLCK:
                return 0
            return length + held(start, at) + held(at + length, end)
        return held(PLACES_AT, PLACES_AT + PLACES)


def cut(path):
    os.truncate(path, 4096)


def scribble(path):
    with open(path, "r+b") as file:
        file.write(random.Random(5).randbytes(SIZE))


HARMS = cut, scribble, os.unlink
