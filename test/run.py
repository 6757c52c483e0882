"""`make test`: everything that proves smtpwarp, with one closing line.

Unit tests and the fuzzers' corpus (sanitizers on), builds with other compilers, the end-to-end tests with the real
binary, and those of the scripted peers once more with a sanitizer build. Arguments go to pytest.
"""
import os
import re
import subprocess
import sys

HERE = os.path.dirname(os.path.abspath(__file__))
ROOT = os.path.dirname(HERE)
# Hostile input is where a sanitizer earns its keep; what else the others test does not depend on the build.
SANITIZED = ["framing", "replies", "commands", "pipelining", "extensions", "upstream_tls", "destination",
             "identity", "checks", "late_auth", "lookup"]
COUNTS = re.compile(r"(\d+) (passed|failed|errors?|skipped)")


class Tally:
    def __init__(self):
        self.passed = self.failed = self.skipped = 0

    def step(self, title, *command, **env):
        """One command that passes or fails as a whole. Its output is shown when it fails."""
        done = subprocess.run(command, cwd=ROOT, env={**os.environ, **env}, text=True, stdout=subprocess.PIPE,
                              stderr=subprocess.STDOUT)
        print(f"{'ok  ' if done.returncode == 0 else 'FAIL'} {title}", flush=True)
        if done.returncode:
            print(done.stdout[-8000:])
        return done

    def whole(self, title, *command, **env):
        if self.step(title, *command, **env).returncode:
            self.failed += 1
        else:
            self.passed += 1

    def cmocka(self, title, program):
        done = self.step(title, program)
        passed = re.search(r"\[  PASSED  \] (\d+) test", done.stdout)
        failed = re.search(r"\[  FAILED  \] (\d+) test", done.stdout)
        self.passed += int(passed[1]) if passed else 0
        self.failed += int(failed[1]) if failed else int(done.returncode != 0)

    def pytest(self, title, *arguments, **env):
        print(f"---- {title}", flush=True)
        process = subprocess.Popen([sys.executable, "-B", "-m", "pytest", "-q", "--rootdir", HERE, "-n",
                                    str(2 * (os.cpu_count() or 1)), *arguments], cwd=HERE, env={**os.environ, **env},
                                   text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        last = ""
        for line in process.stdout:
            print(line, end="", flush=True)
            last = line if COUNTS.search(line) else last
        found = {kind.rstrip("s"): int(number) for number, kind in COUNTS.findall(last)}
        failed = found.get("failed", 0) + found.get("error", 0)
        self.passed += found.get("passed", 0)
        self.skipped += found.get("skipped", 0)
        self.failed += failed or int(process.wait() != 0)


def reproducible(tally):
    """Two builds in different places are the same bytes."""
    tally.whole("two builds, the same bytes", "sh", "-c",
                "make -s O=build/again OUT=build/again/smtpwarp-stripped >/dev/null && "
                "cmp smtpwarp build/again/smtpwarp-stripped")


def parts(kind):
    """The names of test/KIND/NAME.c."""
    return sorted(name[:-2] for name in os.listdir(os.path.join(HERE, kind)) if name.endswith(".c"))


def main():
    tally = Tally()
    for name in parts("unit"):
        program = f"build/test/unit_{name}"
        if tally.step(f"build {program}", "make", "-s", program).returncode:
            tally.failed += 1
        else:
            tally.cmocka(f"unit tests of {name}.c", f"./{program}")
    for target in parts("fuzz"):
        program = f"build/test/replay_{target}"
        tally.whole(f"fuzzing corpus, {target}", "sh", "-c",
                    f"make -s {program} && {program} test/fuzz/corpus/{target}")
    tally.whole("session fuzzer, 60 s", "sh", "-c", "make -s build/test/session_fuzzer && "
                "build/test/session_fuzzer --jobs $(nproc) --seconds 60 build/asan/smtpwarp")
    tally.whole("fuzzer of hooks/dlp, 5 s", sys.executable, "-B", "test/fuzz/dlp.py", "--seconds", "5")
    for compiler in "gcc", "clang", "musl-gcc":
        tally.whole(f"{compiler} without a warning", "make", "-s", f"CC={compiler}", f"O=build/strict-{compiler}",
                    "WERROR=-Werror", f"OUT=build/strict-{compiler}/smtpwarp-stripped")
    reproducible(tally)
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
