"""`make` from a test, one at a time in a folder: workers that run side by side would write the same files."""
import contextlib
import fcntl
import pathlib
import shutil
import subprocess

ROOT = pathlib.Path(__file__).resolve().parent.parent.parent


@contextlib.contextmanager
def alone(folder):
    """While nobody else makes what is in this folder, below build/."""
    (ROOT / "build" / folder).mkdir(parents=True, exist_ok=True)
    with open(ROOT / "build" / folder / "lock", "w", encoding="ascii") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def make(folder, *words, **options):
    """What make says. folder, below build/, is what it writes to."""
    with alone(folder):
        return subprocess.run(["make", "-s", *words], cwd=ROOT, check=True, capture_output=True, text=True, **options).stdout


def copy_of_build(directory):
    """Variables for make, for a build of its own there: a copy of what ./smtpwarp is made of, so that only what differs is made."""
    shutil.copytree(ROOT / "build/musl-gcc", directory / "build")
    for name in "smtpwarp", "smtpwarp-stat":
        shutil.copy2(ROOT / name, directory / name)
    return [f"O={directory}/build", f"OUT={directory}/smtpwarp"]


def program(name):
    """build/test/NAME."""
    make("test", f"build/test/{name}")
    return ROOT / "build/test" / name
