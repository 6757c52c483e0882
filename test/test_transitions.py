"""Unit tests take every transition that session/state.h allows."""
import pathlib
import subprocess

ROOT = pathlib.Path(__file__).resolve().parent.parent


def transitions():
    """{legal transition: whether a unit test takes it}"""
    names = sorted(path.stem for path in (ROOT / "test/unit").glob("*.c") if "fake_session.h" in path.read_text())
    programs = [f"build/test/unit_{name}" for name in names]
    subprocess.run(["make", "-s", *programs], cwd=ROOT, check=True)
    found = {}
    for program in programs:
        subprocess.run([f"./{program}"], cwd=ROOT, check=True, capture_output=True)
        for line in (ROOT / f"{program}.transitions").read_text().splitlines():
            transition = line.removesuffix(" reached")
            found[transition] = found.get(transition, False) or line != transition
    return found


def test_every_transition():
    assert not [transition for transition, reached in transitions().items() if not reached]
