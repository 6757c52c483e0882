"""The processes that keep keys and passwords: nobody else has them. DESIGN 8; issue 11 A4."""
import os
import pathlib
import re
import signal

import pytest
from cryptography.hazmat.primitives.serialization import load_pem_private_key

import certificates
from test_client_tls import Renewed, kind_now
from warp import children_of, gone, send_message, sessions_of

NAME = "smtpwarp-agent"


def agents_of(pid):
    return [child for child, name in children_of(pid).items() if name == NAME]


def memory(pid):
    """All that a process can read, as far as it is anybody's."""
    found = []
    with open(f"/proc/{pid}/mem", "rb", 0) as file:
        for line in pathlib.Path(f"/proc/{pid}/maps").read_text().splitlines():
            start, end, mode = re.match(r"(\w+)-(\w+) (\S+)", line).groups()
            if mode[0] == "r" and "[v" not in line:
                file.seek(int(start, 16))
                found.append(file.read(int(end, 16) - int(start, 16)) or b"")
    return b"\0".join(found)


def secrets_of(path):
    """What only the key has, in either order of octets, and as its file says it."""
    text = pathlib.Path(path).read_bytes()
    key = load_pem_private_key(text, None).private_numbers()
    numbers = [key.p, key.q, key.d, key.dmp1, key.dmq1, key.iqmp] if hasattr(key, "p") else [key.private_value]
    found = [number.to_bytes((number.bit_length() + 7) // 8, order) for number in numbers for order in ("big", "little")]
    return [secret[4:28] for secret in found] + text.splitlines()[2:3]


def has(pid, secrets):
    text = memory(pid)
    return [secret for secret in secrets if secret in text]


def only_agents_have(secrets, listener):
    """Returns the agents that have it."""
    for pid in [listener, *sessions_of(listener)]:
        assert not has(pid, secrets)
    return [pid for pid in agents_of(listener) if has(pid, secrets)]


def secured(made, certs):
    client = made.greeted()
    client.ask("STARTTLS", "220")
    client.begin_tls(certs.trusting(), certificates.HOST)
    client.ask("EHLO client.example", "250")
    return client


@pytest.mark.parametrize("together", [False, True])
@pytest.mark.parametrize("kind", ["good", "rsa"])
def test_key_is_in_no_session(warp, certs, mail_server, tmp_path, kind, together):
    """Nor where it is in one file with the certificate."""
    cert, key = certs.pair(kind)
    both = tmp_path / "both.pem"
    both.write_text(pathlib.Path(key).read_text() + pathlib.Path(cert).read_text())
    options = ["--cert", both] if together else ["--cert", cert, "--key", key]
    made = warp(*options, upstream=mail_server()).listen()
    client = secured(made, certs)
    send_message(client)
    assert len(sessions_of(made.listener.pid)) == 1
    keepers = only_agents_have(secrets_of(key), made.listener.pid)
    assert keepers == agents_of(made.listener.pid) and 1 <= len(keepers) <= 4


def test_each_pair_has_agents_of_its_own(warp, certs, mail_server):
    """And they end one without the other."""
    made = warp(*certs.options("good"), *certs.options("rsa"), upstream=mail_server()).listen()
    secured(made, certs)
    first, second = (only_agents_have(secrets_of(certs.pair(kind)[1]), made.listener.pid) for kind in ("good", "rsa"))
    assert first and second and not set(first) & set(second)
    assert sorted(first + second) == sorted(agents_of(made.listener.pid))
    for agent in second:
        os.kill(agent, signal.SIGKILL)
    made.wait_for("error", count=len(second))
    secured(made, certs)
    assert set(first) < set(agents_of(made.listener.pid)) and not set(second) & set(agents_of(made.listener.pid))
    assert len(only_agents_have(secrets_of(certs.pair("rsa")[1]), made.listener.pid)) == len(second)


@pytest.mark.parametrize("kind", ["good", "rsa"])
def test_key_for_upstreams(warp, certs, mail_server, kind):
    """Each agent has one key."""
    cert, key = certs.pair(kind)
    context = certs.context()
    context.verify_mode = 2
    context.load_verify_locations(certs.ca)
    server = mail_server(tls=context)
    other = certs.pair("rsa" if kind == "good" else "good")
    made = warp("--tls-cert", cert, "--tls-key", key, "--cert", other[0], "--key", other[1], "--tls", "encrypt",
                upstream=server).listen()
    client = secured(made, certs)
    send_message(client)
    assert server.messages[0]["tls"]
    ours = only_agents_have(secrets_of(key), made.listener.pid)
    theirs = only_agents_have(secrets_of(other[1]), made.listener.pid)
    assert len(ours) == 1 and theirs and not set(ours) & set(theirs)


def test_inetd(warp, certs, mail_server):
    made = warp(*certs.options(), upstream=mail_server())
    client = secured(made, certs)
    session = made.processes[-1].pid
    agent, = agents_of(session)
    secrets = secrets_of(certs.pair("good")[1])
    assert has(agent, secrets) and not has(session, secrets)
    client.ask("QUIT", "221")
    made.wait_exit()
    made.wait_until(lambda: gone(agent), "its end")


def test_without_keys_there_is_none(warp, mail_server):
    made = warp(upstream=mail_server()).listen()
    made.greeted()
    assert not agents_of(made.listener.pid)


def test_replaced_key(warp, certs, mail_server, tmp_path):
    """An older session has its own agent for as long as it lasts."""
    files = Renewed(certs, tmp_path / "renewed")
    files.replace("good")
    made = warp(*files.options, upstream=mail_server()).listen()
    old, first = made.greeted(), agents_of(made.listener.pid)
    files.replace("rsa")
    assert kind_now(made) == "rsa"
    assert set(first) < set(agents_of(made.listener.pid))
    old.ask("STARTTLS", "220")
    old.begin_tls(certs.trusting(), certificates.HOST)
    assert "ECDSA" in old.sock.cipher()[0]
    old.close()
    made.wait_until(lambda: not set(first) & set(agents_of(made.listener.pid)), "the end of the old agents")
    assert kind_now(made) == "rsa" and not made.records("error")


def test_agents_that_are_killed(warp, certs, mail_server):
    """A session of theirs fails and does not wait; the next one has new agents."""
    made = warp(*certs.options(), upstream=mail_server()).listen()
    old, first = made.greeted(), agents_of(made.listener.pid)
    for agent in first:
        os.kill(agent, signal.SIGKILL)
    old.ask("STARTTLS", "220")
    with pytest.raises((OSError, AssertionError)):
        old.begin_tls(certs.trusting(), certificates.HOST)
    assert made.wait_for("tls", result="failed")["reason"] == "the process that keeps our key did not sign"
    secured(made, certs)
    assert made.wait_for("error", count=len(first))["error"] == "a process that keeps secrets has ended: signal 9"
    assert not set(first) & set(agents_of(made.listener.pid))


def test_killed_and_the_key_is_gone(warp, certs, mail_server, tmp_path):
    files = Renewed(certs, tmp_path / "renewed")
    files.replace("good")
    made = warp(*files.options, upstream=mail_server()).listen()
    first = agents_of(made.listener.pid)
    files.key.unlink()
    for agent in first:
        os.kill(agent, signal.SIGKILL)
    made.wait_until(lambda: all(map(gone, first)), "their end")
    for _ in range(3):
        made.greeted().ask("STARTTLS", "220")
    error, = [record["error"] for record in made.records("error") if "start smtpwarp again" in record["error"]]
    assert error.startswith(f"--key {files.key}: No such file")
    files.replace("good")
    secured(made, certs)


def test_passwords_are_in_no_session(warp, certs, mail_server, tmp_path):
    """It gets the one that it needs, and wipes it; the file's other lines, comments too, it never sees."""
    path = tmp_path / "passwords"
    path.write_text("# old.example me:an-0ld-secret\nother.example us3r:0ther-secret\n127.0.0.1 relay:th3-right-one\n")
    path.chmod(0o600)
    server = mail_server("AUTH PLAIN", tls=certs.context(), replies={"AUTH": "235 2.7.0 welcome"})
    made = warp("--tls-ca", certs.ca, "--tls-name", certificates.HOST, "--upstream-auth", path, upstream=server).listen()
    send_message(made.greeted())
    assert any(command.startswith("AUTH PLAIN") for command in server.commands)
    secrets = [b"0ther-secret", b"th3-right-one", b"us3r:"]
    agent, = only_agents_have(secrets, made.listener.pid)
    assert has(agent, secrets) == secrets
    assert not has(made.listener.pid, [b"an-0ld-secret"])
    path.write_text("127.0.0.1 relay:a-n3w-one\n")
    made.hang_up()
    made.greeted()
    new, = only_agents_have([b"a-n3w-one"], made.listener.pid)
    assert new != agent and only_agents_have(secrets, made.listener.pid) == [agent]


def test_password_agent_that_is_killed(warp, certs, mail_server, tmp_path):
    path = tmp_path / "passwords"
    path.write_text("127.0.0.1 relay:th3-right-one\n")
    server = mail_server("AUTH PLAIN", tls=certs.context(), replies={"AUTH": "235 2.7.0 welcome"})
    made = warp("--tls-ca", certs.ca, "--tls-name", certificates.HOST, "--upstream-auth", path, upstream=server).listen()
    old, (agent,) = made.connect(), agents_of(made.listener.pid)
    old.expect("220")
    os.kill(agent, signal.SIGKILL)
    made.wait_until(lambda: gone(agent), "its end")
    old.ask("EHLO client.example", "451 4.3.0 127.0.0.1: its password is not to be had")
    send_message(made.greeted())


def test_signals_that_all_processes_get(warp, certs, mail_server):
    made = warp(*certs.options(), upstream=mail_server()).listen()
    client, agents = made.greeted(), agents_of(made.listener.pid)
    for agent in agents:
        for number in signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR1:
            os.kill(agent, number)
    client.ask("STARTTLS", "220")
    client.begin_tls(certs.trusting(), certificates.HOST)
    assert agents_of(made.listener.pid) == agents
    client.close()
    made.listener.kill()
    made.listener.wait()
    made.exit_codes = (-9,)
    made.wait_until(lambda: all(gone(agent) for agent in agents), "the agents' end")
