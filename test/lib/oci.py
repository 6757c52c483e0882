"""OCI images and what runs in them, with Debian's umoci, runc, buildah and podman and without a container engine.

    image = oci.Image(archive, directory)           # image.config, image.files()
    with image.run(net.host.ns, "--verbose", volumes={"/run/smtpwarp": state}) as container:
        ...
        container.stop()
"""
import contextlib
import json
import os
import pathlib
import shutil
import signal
import subprocess
import tarfile
import tempfile
import uuid

from waiting import TIMEOUT

TOOLS = "buildah", "podman", "runc", "umoci"

# containers.conf and storage.conf of podman(): the limits are for hosts whose own are lower than podman's default.
CONTAINERS = """
[engine]
cgroup_manager = "cgroupfs"
runtime = "runc"
events_logger = "file"
tmp_dir = "{0}/tmp"
[containers]
log_driver = "k8s-file"
default_ulimits = ["nofile=1024:1024", "nproc=1024:1024"]
"""
STORAGE = """
[storage]
driver = "vfs"
graphroot = "{0}/root"
runroot = "{0}/run"
"""


def missing():
    """Why there can be no images here, or ""."""
    return ", ".join(f"needs {tool}" for tool in TOOLS if not shutil.which(tool))


class Image:
    """An archive, unpacked as OCI layout and as a bundle of runc's."""

    def __init__(self, archive, directory):
        self.archive, self.layout, self.bundle = archive, directory / "layout", directory / "bundle"
        with tarfile.open(archive) as tar:
            tar.extractall(self.layout)
        index = json.loads((self.layout / "index.json").read_text())
        self.digest = index["manifests"][0]["digest"]
        self.name = index["manifests"][0]["annotations"]["org.opencontainers.image.ref.name"]
        self.manifest = self.blob(index["manifests"][0])
        config = self.blob(self.manifest["config"])
        self.created, self.platform, self.config = config["created"], f"{config['os']}/{config['architecture']}", config["config"]
        subprocess.run(["umoci", "unpack", "--image", f"{self.layout}:{self.name}", self.bundle], check=True)

    def _path(self, descriptor):
        return self.layout / "blobs" / descriptor["digest"].replace(":", "/")

    def blob(self, descriptor):
        return json.loads(self._path(descriptor).read_text())

    def members(self):
        """What its layers hold: path -> tarfile.TarInfo."""
        found = {}
        for layer in self.manifest["layers"]:
            with tarfile.open(self._path(layer)) as tar:
                found.update({member.name: member for member in tar})
        return found

    def run(self, namespace, *arguments, entrypoint=None, volumes=None, env=None):
        return Container(self, namespace, [*(entrypoint or self.config["Entrypoint"]), *arguments], volumes or {}, env or {})


class Container:
    """A container of runc's in this network namespace: its root read-only, without capabilities, as the image's user. Its cgroup is the
    test's."""

    def __init__(self, image, namespace, argv, volumes, env):
        self.image, self.name = image, f"smtpwarp-{uuid.uuid4().hex[:12]}"
        self.bundle = image.bundle.parent / self.name
        self.bundle.mkdir()
        self._configure(namespace, argv, volumes, env)
        self.output = open(self.bundle / "output", "w+", encoding="utf-8")
        self.runc = subprocess.Popen([*self._command(), "run", "--bundle", self.bundle, self.name], stdin=subprocess.DEVNULL,
                                     stdout=self.output, stderr=self.output)

    def _command(self):
        return ["runc", "--root", self.bundle / "state"]

    def _configure(self, namespace, argv, volumes, env):
        config = json.loads((self.image.bundle / "config.json").read_text())
        process, linux = config["process"], config["linux"]
        process.update(terminal=False, args=argv, capabilities={}, noNewPrivileges=True)
        process["env"] += [f"{name}={value}" for name, value in env.items()]
        config["root"] = {"path": str(self.image.bundle / "rootfs"), "readonly": True}
        config["mounts"] = [mount for mount in config["mounts"] if mount["type"] != "cgroup"]
        config["mounts"] += [{"destination": inside, "type": "bind", "source": str(outside), "options": ["bind", "rw"]}
                             for inside, outside in volumes.items()]
        linux["namespaces"] = [space for space in linux["namespaces"] if space["type"] not in ("network", "cgroup")]
        linux["namespaces"].append({"type": "network", "path": namespace.path})
        linux.pop("resources", None)
        (self.bundle / "config.json").write_text(json.dumps(config))

    def alive(self):
        return self.runc.poll() is None

    def text(self):
        """What it has said so far, on both of its outputs."""
        return (self.bundle / "output").read_text(encoding="utf-8")

    def records(self, event):
        """Its records so far, when it logs to stderr."""
        found = [json.loads(line) for line in self.text().splitlines() if line.startswith("{")]
        return [record for record in found if record["event"] == event]

    def status(self):
        """/proc/PID/status of its first process."""
        state = json.loads(subprocess.run([*self._command(), "state", self.name], check=True, capture_output=True).stdout)
        with open(f"/proc/{state['pid']}/status", encoding="ascii") as file:
            return dict(line.rstrip("\n").split(":\t", 1) for line in file)

    def terminate(self):
        """SIGTERM, which runc passes on."""
        self.runc.send_signal(signal.SIGTERM)

    def stop(self):
        """SIGTERM; the exit status."""
        self.terminate()
        return self.runc.wait(TIMEOUT)

    def close(self):
        if self.alive():
            subprocess.run([*self._command(), "kill", self.name, "KILL"], check=False, capture_output=True)
            self.runc.wait(TIMEOUT)
        self.output.close()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()


@contextlib.contextmanager
def buildah(archive, directory):
    """buildah(command ...): argv of buildah with a store of its own; and the name of a container made of the image."""
    def command(*words):
        return ["buildah", "--storage-driver", "vfs", "--root", directory / "root", "--runroot", directory / "runroot", *words]
    made = subprocess.run(command("from", f"oci-archive:{archive}"), check=True, capture_output=True, text=True).stdout.strip()
    try:
        yield command, made
    finally:
        subprocess.run(command("rm", "--all"), check=True, capture_output=True)


class Podman:
    """podman("logs", name): what a podman command says, which keeps all it has in a directory of its own. environment: the same for
    others."""

    def __init__(self, namespace, directory):
        self.namespace = namespace
        self.environment = dict(os.environ)
        for name, text, variable in ("containers", CONTAINERS, "CONTAINERS_CONF"), ("storage", STORAGE, "CONTAINERS_STORAGE_CONF"):
            path = pathlib.Path(directory, f"{name}.conf")
            path.write_text(text.format(directory), encoding="utf-8")
            self.environment[variable] = str(path)

    def __call__(self, *words):
        done = self.namespace.run(["podman", *map(str, words)], env=self.environment)
        return done.stdout + done.stderr


@contextlib.contextmanager
def podman(namespace):
    """A Podman, whose containers are gone at the end."""
    with tempfile.TemporaryDirectory() as name:     # podman takes no longer one
        made = Podman(namespace, name)
        try:
            yield made
        finally:
            made("rm", "--all", "--force", "--time", 0)
