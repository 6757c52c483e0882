"""Unit tests take every transition that session/state.h allows, or the transition stands here with the reason why none can."""
import pathlib
import subprocess

ROOT = pathlib.Path(__file__).resolve().parent.parent

UNREACHABLE = {
    "server STARTTLS AUTH": "after a refused STARTTLS the session goes on in plain only if there is no password for the server",
    "content SENT KEEPING": "the chunks of a message are all kept or all passed on",
    "content SENT_LATE KEEPING": "the same",
}


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
    legal = transitions()
    assert {transition for transition, reached in legal.items() if not reached} == set(UNREACHABLE)
