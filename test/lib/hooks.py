"""Hooks for a test: a hooks directory as DESIGN 6 has it, and shipped hooks run by hand.

    hooks = Hooks(tmp_path / "hooks")
    hooks.script("rcpt", "echo reject 550 5.7.1 not here")     # a hook in shell
    hooks.link("log", "sqlite")                                # one of hooks/
    proxy = warp(*hooks.options, upstream=mail_server(), env={"DSN": path})
"""
import fcntl
import json
import os
import pathlib
import re
import subprocess

ROOT = pathlib.Path(__file__).resolve().parent.parent.parent
EVENTS = "connect", "ehlo", "mail", "rcpt", "data", "close", "log"
SAMPLES = ROOT / "hooks" / "sample"


def shipped(name):
    """The program of a hook that ships: a script, or what make built of its C source."""
    script = ROOT / "hooks" / name
    return script if script.exists() else ROOT / "build" / "hooks" / name


def sample(event, **fields):
    """The sample line of an event, with other values for some fields."""
    return {**json.loads((SAMPLES / f"{event}.json").read_text()), **fields}


def examples():
    """What smtpwarp-hooks(7) shows, in its order."""
    page = (ROOT / "man/smtpwarp-hooks.7").read_text()
    shown = re.findall(r"^\.Bd -literal -offset indent\n(.*?)^\.Ed$", page, re.M | re.S)
    return [text.replace("\\e", "\\").replace("\\&", "") for text in shown]


SEALS = fcntl.F_SEAL_WRITE | fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SEAL


def by_hand(hook, line, message=None, env=None, **options):
    """Runs a shipped hook (or the program at a path) as smtpwarp does: the line (a dict, or bytes for a stream) on stdin,
    the message in sealed memory on descriptor 3."""
    program = str(hook if isinstance(hook, pathlib.Path) else shipped(hook))
    options = {"input": line if isinstance(line, bytes) else json.dumps(line).encode() + b"\n", "check": False,
               "env": {"PATH": os.environ["PATH"], **(env or {})}, "capture_output": True, "timeout": 60, **options}
    if message is None:
        return subprocess.run([program], **options)
    with os.fdopen(os.memfd_create("message", os.MFD_ALLOW_SEALING), "wb") as memory:
        memory.write(message)
        memory.flush()
        fcntl.fcntl(memory, fcntl.F_ADD_SEALS, SEALS)
        return subprocess.run(["sh", "-c", 'exec "$0" 3<"$1"', program, f"/dev/fd/{memory.fileno()}"],
                              pass_fds=[memory.fileno()], **options)


def program(path, text):
    """A file to execute; its path."""
    path.write_text(text)
    path.chmod(0o755)
    return path


class Hooks:
    def __init__(self, directory):
        self.directory = pathlib.Path(directory)
        self.directory.mkdir(parents=True, exist_ok=True)
        self.options = ["--hooks", str(self.directory)]

    def place(self, event, name):
        """The path of a hook of that event, its folder made."""
        (self.directory / event).mkdir(exist_ok=True)
        return self.directory / event / name

    def link(self, event, name, order="50"):
        """Enables a shipped hook, as an operator does."""
        path = self.place(event, f"{order}-{name}")
        path.symlink_to(shipped(name))
        return path

    def script(self, event, text, name="50-test", shell="#!/bin/sh"):
        """A hook in shell; its first line is put there."""
        return program(self.place(event, name), f"{shell}\n{text}\n")
