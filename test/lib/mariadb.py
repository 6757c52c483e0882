"""A MariaDB of the tests' own: its data in a directory of its own, on loopback of a namespace and on a Unix socket that is
reached from any.

    with mariadb.Server(namespace, certificate, key) as server:
        server.sql("create database mail")
"""
import os
import pathlib
import shutil
import signal
import subprocess
import tempfile

PORT = 3306
PASSWORD = """p"#\\' $(id) `id` ;@/:%?"""


class Server:
    """The user warp has PASSWORD; what it may do is the caller's to say."""

    def __init__(self, namespace, certificate, key):
        self.host, self.certificate, self.key, self.process = namespace, certificate, key, None
        self.directory = pathlib.Path(tempfile.mkdtemp(prefix="mariadb-"))      # short: a Unix socket is in it
        self.socket, self.data = self.directory / "socket", self.directory / "data"
        # A server that starts removes the temporary tables of others from a directory that it shares with them.
        self.environment = {**os.environ, "TMPDIR": str(self.directory)}

    def __enter__(self):
        try:
            made = subprocess.run(["mariadb-install-db", "--no-defaults", "--user=root", f"--datadir={self.data}",
                                   "--auth-root-authentication-method=normal", "--skip-test-db"], check=False,
                                  capture_output=True, text=True, timeout=120, env=self.environment)
            assert made.returncode == 0, made.stdout + made.stderr
            self.start()
            quoted = PASSWORD.replace("\\", "\\\\").replace("'", "\\'")
            self.sql(f"create user warp@'%' identified by '{quoted}'")
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_):
        self.stop()
        shutil.rmtree(self.directory)

    def start(self):
        with open(self.directory / "log", "ab") as log:
            self.process = self.host.popen(
                ["setpriv", "--pdeathsig", "KILL", "mariadbd", "--no-defaults", "--user=root", f"--datadir={self.data}",
                 f"--socket={self.socket}", f"--port={PORT}", "--bind-address=127.0.0.1",
                 f"--ssl-cert={self.certificate}", f"--ssl-key={self.key}", "--innodb-buffer-pool-size=8M",
                 "--innodb-flush-log-at-trx-commit=0"],
                stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=self.environment)
        self.host.wait_listening(PORT, alive=lambda: self.process.poll() is None)

    def stop(self):
        """At once: nothing in it is worth an orderly end."""
        if self.process:
            self.process.send_signal(signal.SIGKILL)
            self.process.wait()
            self.process = None

    def sql(self, statements, database=""):
        done = subprocess.run(["mariadb", "--no-defaults", "--user=root", f"--socket={self.socket}", "--batch",
                               "--skip-column-names", "--default-character-set=utf8mb4", database], input=statements,
                              text=True, capture_output=True, check=False, timeout=60)
        assert done.returncode == 0, done.stderr
        return done.stdout
