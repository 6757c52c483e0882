"""Hooks for a test: a hooks directory as DESIGN 6 has it, and shipped hooks run by hand.

    hooks = Hooks(tmp_path / "hooks")
    hooks.script("rcpt", "echo reject 550 5.7.1 not here")     # a hook in shell
    hooks.link("log", "sqlite")                                # one of hooks/
    proxy = warp(*hooks.options, upstream=mail_server(), env={"DSN": path})
"""
import json
import os
import pathlib
import subprocess

ROOT = pathlib.Path(__file__).resolve().parent.parent
EVENTS = "connect", "ehlo", "mail", "rcpt", "data", "close", "log"
SAMPLES = ROOT / "hooks" / "sample"


def shipped(name):
    """The program of a hook that ships: a script, or what make built of its C source."""
    script = ROOT / "hooks" / name
    return script if script.exists() else ROOT / "build" / "hooks" / name


def sample(event, **fields):
    """The sample line of an event, with other values for some fields."""
    return {**json.loads((SAMPLES / f"{event}.json").read_text()), **fields}


def by_hand(name, line, message=None, env=None, **options):
    """Runs a shipped hook as smtpwarp does: the line (a dict, or bytes for a stream) on stdin, the message on fd 3."""
    argv = [str(shipped(name))]
    text = line if isinstance(line, bytes) else json.dumps(line).encode() + b"\n"
    environment = {"PATH": os.environ["PATH"], **(env or {})}
    options = {"capture_output": True, "timeout": 60, **options}
    if message is None:
        return subprocess.run(argv, input=text, env=environment, check=False, **options)
    memory = os.memfd_create("message")
    try:
        os.write(memory, message)
        os.lseek(memory, 0, os.SEEK_SET)
        return subprocess.run(["sh", "-c", f'exec "$@" 3</dev/fd/{memory}', "sh", *argv], input=text, env=environment,
                              pass_fds=[memory], check=False, **options)
    finally:
        os.close(memory)


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
        path = self.place(event, name)
        path.write_text(f"{shell}\n{text}\n")
        path.chmod(0o755)
        return path
