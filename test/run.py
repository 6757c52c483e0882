"""`make test`: everything that proves smtpwarp, with one closing line.

Unit tests and the fuzzers' corpus (sanitizers on), builds with other compilers, the end-to-end tests with the real
binary, and those of the scripted peers once more with a sanitizer build. Arguments go to pytest.
"""
import concurrent.futures
import functools
import os
import re
import subprocess
import sys
import tempfile
import threading

HERE = os.path.dirname(os.path.abspath(__file__))
ROOT = os.path.dirname(HERE)
CORES = os.cpu_count() or 1
STEP = 1800     # seconds: only what hangs takes so long
# Hostile input is where a sanitizer earns its keep; what else the others test does not depend on the build.
SANITIZED = ["framing", "replies", "commands", "pipelining", "extensions", "upstream_tls", "destination",
             "identity", "checks", "late_auth", "lookup"]
COUNTS = re.compile(r"(\d+) (passed|failed|errors?|skipped)")


class Tally:
    """Steps may run side by side."""

    def __init__(self):
        self.passed = self.failed = self.skipped = 0
        self.lock = threading.Lock()

    def add(self, passed, failed, skipped=0):
        with self.lock:
            self.passed += passed
            self.failed += failed
            self.skipped += skipped

    def step(self, title, *command):
        """One command that passes or fails as a whole. Its output is shown when it fails."""
        with tempfile.TemporaryFile("w+") as output:      # no pipe: what a step leaves behind might keep that open
            try:
                code = subprocess.run(command, cwd=ROOT, stdout=output, stderr=subprocess.STDOUT, check=False, timeout=STEP).returncode
            except subprocess.TimeoutExpired:
                code = f"killed after {STEP} s"
            output.seek(0)
            done = subprocess.CompletedProcess(command, code, output.read())
        said = f" ({code})\n{done.stdout[-8000:]}" if code else ""
        print(f"{'FAIL' if code else 'ok  '} {title}{said}", flush=True)
        return done

    def whole(self, title, *command):
        done = self.step(title, *command)
        self.add(int(done.returncode == 0), int(done.returncode != 0))
        return done.returncode == 0

    def cmocka(self, title, program):
        done = self.step(title, program)
        passed = re.search(r"\[  PASSED  \] (\d+) test", done.stdout)
        failed = re.search(r"\[  FAILED  \] (\d+) test", done.stdout)
        self.add(int(passed[1]) if passed else 0, int(failed[1]) if failed else int(done.returncode != 0))

    def pytest(self, title, *arguments, **env):
        print(f"---- {title}", flush=True)
        process = subprocess.Popen([sys.executable, "-B", "-m", "pytest", "-q", "--rootdir", HERE, "-n",
                                    str(2 * CORES), *arguments], cwd=HERE, env={**os.environ, **env},
                                   text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        last = ""
        for line in process.stdout:
            print(line, end="", flush=True)
            last = line if COUNTS.search(line) else last
        found = {kind.rstrip("s"): int(number) for number, kind in COUNTS.findall(last)}
        failed = found.get("failed", 0) + found.get("error", 0)
        self.add(found.get("passed", 0), failed or int(process.wait() != 0), found.get("skipped", 0))


def side_by_side(*steps):
    """Each a function, a core for each."""
    with concurrent.futures.ThreadPoolExecutor(CORES) as pool:
        for done in [pool.submit(step) for step in steps]:
            done.result()


def parts(kind):
    """The names of test/KIND/NAME.c."""
    return sorted(name[:-2] for name in os.listdir(os.path.join(HERE, kind)) if name.endswith(".c"))


def strict(tally, compiler):
    """Without a warning; where it is the compiler of ./smtpwarp, this build in another place is the same bytes."""
    place = f"build/strict-{compiler}"
    built = tally.whole(f"{compiler} without a warning", "make", "-s", f"CC={compiler}", f"O={place}", "WERROR=-Werror",
                        f"OUT={place}/smtpwarp-stripped")
    if built and compiler == "musl-gcc":
        tally.whole("two builds, the same bytes", "cmp", "smtpwarp", f"{place}/smtpwarp-stripped")


def unit(tally, name):
    tally.cmocka(f"unit tests of {name}.c", f"build/test/unit_{name}")


def corpus(tally, name):
    tally.whole(f"fuzzing corpus, {name}", f"build/test/replay_{name}", f"test/fuzz/corpus/{name}")


def prepare(tally, name):
    """No test: what it fails to make, the tests that need it report."""
    tally.step(f"made ahead for the end to end tests: {name}", sys.executable, "-B", "test/prepare.py", name)


def main():
    tally = Tally()
    if tally.step("build of the unit tests and fuzzers", "make", "-s", "-k", f"-j{CORES}", "programs").returncode:
        tally.add(0, 1)
    else:
        side_by_side(*(functools.partial(prepare, tally, name) for name in ("image", "debian", "aarch64", "riscv64")),
                     *(functools.partial(strict, tally, compiler) for compiler in ("gcc", "clang", "musl-gcc")),
                     *(functools.partial(unit, tally, name) for name in parts("unit")),
                     *(functools.partial(corpus, tally, name) for name in parts("fuzz")))
        tally.whole("fuzzer of hooks/dlp, 5 s", sys.executable, "-B", "test/fuzz/dlp.py", "--seconds", "5")
        tally.whole("session fuzzer, 40 s", "build/test/session_fuzzer", "--jobs", str(CORES), "--seconds", "40", "build/asan/smtpwarp")
    tests = sys.argv[1:]
    tally.pytest("end to end", *tests)
    if not tests:
        tally.pytest("hostile peers, sanitized", *(f"test_{name}.py" for name in SANITIZED),
                     SMTPWARP=os.path.join(ROOT, "build/asan/smtpwarp"))
    print(f"{tally.passed} passed, {tally.failed} failed, {tally.skipped} skipped")
    if os.environ.get("CI") and tally.skipped:
        sys.exit("in CI nothing may be skipped")
    sys.exit(1 if tally.failed else 0)


main()
