"""`make demo`: a client host that knows no TLS, a mail host with a real Postfix that offers STARTTLS, smtpwarp between.

The client host's kernel redirects its outbound port 25 to smtpwarp. swaks there sends a message with an attachment to
the mail host's address. Shows what swaks saw, what smtpwarp logged and what Postfix stored, and checks that the message
arrived byte for byte, over TLS, though the client spoke plain. Ends with 0 if all of that holds.
"""
import contextlib
import json
import os
import pathlib
import re
import shutil
import subprocess
import sys
import tempfile

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "lib"))

import mta
import netns

SMTPWARP = os.path.abspath(os.environ.get("SMTPWARP", pathlib.Path(__file__).parent.parent / "smtpwarp"))
PROGRAMS = "swaks", "nft", "ip", "postconf", "openssl", SMTPWARP
USER, PORT = "nobody", 2525
REDIRECT = f"""
table inet smtpwarp {{
    chain output {{
        type nat hook output priority -100; policy accept;
        meta skuid != {USER} tcp dport 25 redirect to :{PORT}
    }}
}}"""
ATTACHMENT = bytes(range(256)) * 200
SHOWN_LINES = 45


def title(text):
    print(f"\n\033[1m== {text}\033[0m" if sys.stdout.isatty() else f"\n== {text}")


def show(text, limit=SHOWN_LINES):
    """Indented; of a long text the beginning and the end."""
    lines = text.rstrip("\n").splitlines()
    if len(lines) > limit:
        half = limit // 2
        lines = [*lines[:half], f"... {len(lines) - 2 * half} lines more ...", *lines[-half:]]
    print("\n".join(f"   {line}" for line in lines))


def send(host, directory):
    """Sends a message with swaks; what it says of it."""
    attachment = directory / "picture.bin"
    attachment.write_bytes(ATTACHMENT)
    return host.run(["swaks", "--server", "10.0.0.2", "--from", "alice@client.test", "--to", "bob@mail.test",
                     "--header", "Subject: a picture", "--body", "See the attachment.",
                     "--attach-type", "application/octet-stream", "--attach", f"@{attachment}"]).stdout


def sent_message(transcript):
    """The lines between 354 and the final dot, as the client sent them."""
    data = transcript.partition("\n<-  354 ")[2].partition("\n -> .\n")[0]
    lines = [line.removeprefix(" -> ") for line in data.splitlines()[1:]]
    return "".join(line.removeprefix(".") + "\n" for line in lines).encode()


@contextlib.contextmanager
def smtpwarp(host, log):
    """smtpwarp on the host, its log in a file; stopped in an orderly way, so that the log is complete."""
    command = [SMTPWARP, "--listen", f"*:{PORT}", "--user", USER]
    show("# " + " ".join(["smtpwarp", *command[1:]]))
    with open(log, "wb") as stderr:
        process = host.popen(command, stdin=subprocess.DEVNULL, stderr=stderr)
    try:
        host.wait_listening(PORT, alive=lambda: process.poll() is None)
        yield
        process.terminate()
        process.wait(10)
    finally:
        process.kill()
        process.wait()


def records(log):
    return [json.loads(line) for line in log.read_text().splitlines() if line.startswith("{")]


def checks(transcript, events, stored):
    """What has to hold, and whether it does."""
    mail = sent_message(transcript)
    received = stored.trace.partition("Received:")[2].partition("Received:")[0]
    tls = [record for record in events if record["event"] == "tls"]
    messages = [record for record in events if record["event"] == "message"]
    originals = {(record["original"]["ip"], record["original"]["port"]) for record in events if "original" in record}
    return {
        "the client spoke plain: its transcript has neither STARTTLS nor encrypted lines":
            not re.search("STARTTLS|^(~>|<~)", transcript, re.M),
        "smtpwarp took it to where the client wanted to go": originals == {("10.0.0.2", 25)},
        "smtpwarp logged one TLS handshake": [record["result"] for record in tls] == ["ok"],
        "smtpwarp logged one message, accepted": [record["result"] for record in messages] == ["accepted"],
        "Postfix got it over TLS: its Received line says so": "with ESMTPS" in received and "TLSv1.2" in received,
        "sender and recipient are right": (stored.sender, stored.recipient) == ("alice@client.test", "bob@mail.test"),
        f"the message is the same, all {len(mail)} bytes of it": mail != b"" and
            mta.digest(stored.content) == mta.digest(mail),
    }


def demo(directory):
    log = directory / "log"
    with netns.pair() as (client, mail_host), mta.Postfix(mail_host, certificate=True) as postfix:
        title(f"A client host, {client.ip4}, and a mail host, {mail_host.ip4}, with Postfix that offers STARTTLS")
        title("On the client host: outbound port 25 goes to smtpwarp")
        show("# nft -f - <<END" + REDIRECT + "\nEND")
        client.nft(REDIRECT)
        with smtpwarp(client, log):
            title("The client sends a message with an attachment")
            transcript = send(client, directory)
            show(transcript)
            postfix.wait_stored(1)
        title("What smtpwarp logged")
        show(log.read_text())
        stored, = postfix.stored()
        title("What Postfix stored")
        show(stored.trace + stored.content.decode(), 20)
        results = checks(transcript, records(log), stored)
        title("Checks")
        for what, holds in results.items():
            print(f"   {'ok  ' if holds else 'FAIL'}  {what}")
        return all(results.values())


def main():
    missing = [f"{name} is missing" for name in PROGRAMS if not shutil.which(name)]
    if obstacles := [*filter(None, [netns.unsupported()]), *missing]:
        sys.exit("demo: " + "; ".join(obstacles))
    with tempfile.TemporaryDirectory(prefix="smtpwarp-demo-") as directory:
        sys.exit(0 if demo(pathlib.Path(directory)) else 1)


if __name__ == "__main__":
    main()
