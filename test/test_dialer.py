"""The dialer: sessions of a listener leave the network once they have begun to connect; what they connect to later, it does for them."""
import os
import signal

import pytest

import peers
from test_destination import MAIL4, MAIL6, mail_host, redirect  # noqa: F401 pylint: disable=unused-import
from warp import Session, children_of


def dialer_of(proxy):
    return [pid for pid, name in children_of(proxy.listener.pid).items() if name == "smtpwarp-dialer"]


def refuse_handshake(session):
    """The server offers STARTTLS, and closes in the handshake."""
    session.server.send("220 server.example")
    session.client.expect("220")
    session.client.send("EHLO client.example")
    session.server.expect_line("EHLO client.example")
    session.server.send("250-server.example", "250 STARTTLS")
    session.server.expect_line("STARTTLS")
    session.server.send("220 go ahead")
    session.server.close()


def continue_in_plain(session, server):
    session.server = server
    server.send("220 server.example")
    server.expect_line("EHLO client.example")
    server.send("250 server.example")
    session.client.expect("250")
    session.transaction()
    session.quit()


def test_plain_after_a_handshake_that_failed(warp):
    proxy = warp().listen()
    session = proxy.session()
    refuse_handshake(session)
    continue_in_plain(session, proxy.upstream.accept())
    assert proxy.wait_for("message")["result"] == "accepted"
    assert proxy.records("tls")[0]["result"] == "fallback"


@pytest.mark.parametrize("address", [MAIL4, MAIL6])
def test_the_original_destination(warp, mail_host, address):        # noqa: F811 pylint: disable=redefined-outer-name
    redirect(mail_host)
    proxy = warp("--transparent", "--user", "nobody").listen("*:2525")
    door = proxy.listen_upstream(address, 25)
    session = Session(peers.connect(address, 25, proxy.group), door.accept())
    refuse_handshake(session)
    continue_in_plain(session, door.accept())
    assert proxy.wait_for("message")["result"] == "accepted"


def test_the_next_server(warp, mail_server):
    """The first is dialled by the session itself and refuses it, the second by the dialer."""
    first, second = mail_server(banner="421 4.3.2 not now"), mail_server()
    proxy = warp("--upstream", first.url, "--upstream", second.url).listen()
    client = proxy.greeted()
    client.ask("MAIL FROM:<a@b.example>", "250")
    assert any(command.startswith("MAIL") for command in second.commands)


def test_its_end(warp):
    """Killed: a session that needs it defers its mail, and those to come have another; a record says so."""
    proxy = warp().listen()
    session = proxy.session()
    before, = dialer_of(proxy)
    os.kill(before, signal.SIGKILL)
    assert "the process that connects for sessions has ended: signal 9" in proxy.wait_for("error")["error"]
    refuse_handshake(session)
    assert session.client.reply().code in (421, 451)
    after = proxy.session()
    assert dialer_of(proxy) not in ([], [before])
    refuse_handshake(after)
    continue_in_plain(after, proxy.upstream.accept())


def test_it_ends_with_the_listener(warp):
    proxy = warp().listen()
    pid, = dialer_of(proxy)
    proxy.listener.send_signal(signal.SIGTERM)
    proxy.wait_exit(proxy.listener)
    assert not os.path.exists(f"/proc/{pid}")


@pytest.mark.parametrize("options", [["--connect-on", "recipient"], ["--upstream", "localhost:25"], ["--sandbox", "off"]])
def test_where_there_is_none(warp, options):
    """What servers these sessions need cannot be known before."""
    proxy = warp(*options).listen()
    proxy.connect()
    proxy.wait_until(proxy.children, "a session")
    assert not dialer_of(proxy)
