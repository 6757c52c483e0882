"""Where TLS policies come from: mta-sts-daemon of Debian's postfix-mta-sts-resolver with the web server that it asks, and a stand-in for
servers of maps.

    with PolicyServer(certs.context("mta-sts"), {"sts.test": [...]}), MtaStsDaemon(host, directory, certs.ca) as daemon:
        daemon.map                      # "unix:PATH:postfix"
    with SocketMap(path, {b"map sts.test": b"OK may"}) as server: ...

SocketMap is no engine: it knows questions and replies by heart, and can say what no server should.
"""
import contextlib
import http.server
import os
import socket
import threading

from waiting import wait_until

DAEMON = "/usr/bin/mta-sts-daemon"
RESOLVER = 'mount --bind "$1" /etc/resolv.conf; shift; exec "$@"'


class PolicyServer:
    """HTTPS at 127.0.0.1:443 for https://mta-sts.DOMAIN/.well-known/mta-sts.txt; lines by domain. `asked` has the domains."""

    def __init__(self, context, policies):
        self.asked = asked = []

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self):   # pylint: disable=invalid-name
                domain = self.headers["Host"].removeprefix("mta-sts.")
                asked.append(domain)
                found = domain in policies and self.path == "/.well-known/mta-sts.txt"
                body = "".join(f"{line}\r\n" for line in policies.get(domain, [])).encode()
                self.send_response(200 if found else 404)
                self.send_header("Content-Type", "text/plain")
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_):  # pylint: disable=arguments-differ
                pass

        class Server(http.server.ThreadingHTTPServer):
            daemon_threads = True

            def get_request(self):
                sock, address = super().get_request()
                sock.settimeout(10)
                return context.wrap_socket(sock, server_side=True), address

            def handle_error(self, *_):     # a client that does not trust us, for one
                pass

        self.server = Server(("127.0.0.1", 443), Handler)
        self.thread = threading.Thread(target=self.server.serve_forever, daemon=True, kwargs={"poll_interval": 0.02})
        self.thread.start()

    def close(self):
        self.server.shutdown()
        self.server.server_close()
        self.thread.join(10)

    __enter__ = lambda self: self
    __exit__ = lambda self, *_: self.close()


class MtaStsDaemon:
    """In the namespace of the host, which has a name server at 127.0.0.1. ca: whom it trusts."""

    CONFIG = """
{where}
shutdown_timeout: 1
cache:
  type: internal
  options:
    cache_size: 100
default_zone:
  strict_testing: false
  timeout: 4
zones:
  strict:
    strict_testing: true
    timeout: 4
"""

    def __init__(self, host, directory, ca, port=None):
        directory.mkdir(exist_ok=True)
        path = directory / "mta-sts.sock"
        self.map = f"inet:127.0.0.1:{port}:postfix" if port else f"unix:{path}:postfix"
        where = f"host: 127.0.0.1\nport: {port}" if port else f"path: {path}\nmode: 0666"
        (directory / "mta-sts.yml").write_text(self.CONFIG.format(where=where))
        (directory / "resolv.conf").write_text("nameserver 127.0.0.1\n")
        self.errors = directory / "mta-sts.errors"
        self.process = host.popen(["unshare", "--mount", "sh", "-ec", RESOLVER, "sh", directory / "resolv.conf", DAEMON, "-c",
                                   directory / "mta-sts.yml"], env={**os.environ, "SSL_CERT_FILE": str(ca)},
                                  stdout=open(self.errors, "wb"), stderr=-2)
        wait_until(lambda: self._listens(path, port), lambda: self.errors.read_text())

    def _listens(self, path, port):
        assert self.process.poll() is None, self.errors.read_text()
        with socket.socket(socket.AF_INET if port else socket.AF_UNIX) as sock:
            return sock.connect_ex(("127.0.0.1", port) if port else str(path)) == 0

    def close(self):
        self.process.kill()
        self.process.wait()

    __enter__ = lambda self: self
    __exit__ = lambda self, *_: self.close()


class SocketMap:
    """A stand-in: replies by question, b"NAME KEY"; None hangs up, a tuple is sent as it is, without the netstring. What it does not
    know is not found. `questions` has all that were asked."""

    def __init__(self, path, replies):
        self.replies, self.questions = replies, []
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.bind(str(path))
        self.sock.listen(100)
        os.chmod(path, 0o666)
        self.map = f"unix:{path}"
        self.thread = threading.Thread(target=self._run, daemon=True)
        self.thread.start()

    def _run(self):
        with contextlib.suppress(OSError):
            while True:
                threading.Thread(target=self._serve, args=(self.sock.accept()[0],), daemon=True).start()

    def _serve(self, sock):
        with contextlib.suppress(OSError, ValueError), sock, sock.makefile("rwb") as file:
            while head := file.read(1):
                while not head.endswith(b":"):
                    head += file.read(1)
                question = file.read(int(head[:-1]))
                assert file.read(1) == b","
                self.questions.append(question)
                reply = self.replies.get(question, b"NOTFOUND ")
                if reply is None:
                    return
                file.write(b"".join(reply) if isinstance(reply, tuple) else b"%d:%s," % (len(reply), reply))
                file.flush()

    def close(self):
        with contextlib.suppress(OSError):
            self.sock.shutdown(socket.SHUT_RDWR)
        self.sock.close()
        self.thread.join(10)

    __enter__ = lambda self: self
    __exit__ = lambda self, *_: self.close()
