"""prepare.py NAME: makes what several end to end tests share, as the first of them would while the others wait for it."""
import os
import sys

sys.path.insert(1, os.path.join(os.path.dirname(os.path.abspath(__file__)), "lib"))

import building         # noqa: E402 pylint: disable=wrong-import-position
import debian           # noqa: E402 pylint: disable=wrong-import-position
import oci              # noqa: E402 pylint: disable=wrong-import-position
import test_cross       # noqa: E402 pylint: disable=wrong-import-position


def debian_and_packages():
    if not debian.missing():
        debian.packages()
        debian.root()


def hooks_image():
    """The Debian in it."""
    if not oci.missing():
        building.make("images", "build/images/smtpwarp-hooks/debian.tar")


def machine(name):
    """For test_cross.py."""
    made = test_cross.Machine(name)
    if not made.missing():
        made.make()
        made.make_units()


PREPARED = {"image": hooks_image, "debian": debian_and_packages,
            **{name: lambda name=name: machine(name) for name in test_cross.MACHINES}}

if __name__ == "__main__":
    PREPARED[sys.argv[1]]()
