"""Waiting for what a test can observe, never for a time to pass. Only a defect reaches the deadline."""
import os
import time

TIMEOUT = float(os.environ.get("TEST_TIMEOUT", 30))   # seconds, for what comes at once: a loaded machine takes its time
PAUSE = 0.005


def wait_until(condition, what="", timeout=TIMEOUT, pause=time.sleep):
    """The value of condition() once it is true. what, a text or a function that returns one, tells what was missing;
    pause(seconds) is what to do between two looks."""
    end = time.monotonic() + timeout
    while not (value := condition()):
        if time.monotonic() > end:
            raise TimeoutError(f"not within {timeout} s: {what() if callable(what) else what}")
        pause(PAUSE)
    return value
