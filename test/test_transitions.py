"""Unit tests take every transition that session/state.h allows."""
import subprocess

import building
from building import ROOT


def transitions():
    """{legal transition: whether a unit test takes it}"""
    names = sorted(path.stem for path in (ROOT / "test/unit").glob("*.c") if "fake_session.h" in path.read_text())
    programs = [f"build/test/unit_{name}" for name in names]
    building.make("test", *programs)
    found = {}
    for program in programs:
        subprocess.run([f"./{program}"], cwd=ROOT, check=True, capture_output=True)
        for line in (ROOT / f"{program}.transitions").read_text().splitlines():
            transition = line.removesuffix(" reached")
            found[transition] = found.get(transition, False) or line != transition
    return found


def test_every_transition():
    assert not [transition for transition, reached in transitions().items() if not reached]
