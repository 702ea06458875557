"""A target with atheris, which makes inputs that reach new code: ``python -m tests.fuzz.guided
TARGET [FOLDER] -max_total_time=60``. What follows the target goes to libFuzzer. OSS-Fuzz builds
this program for each target."""

from __future__ import annotations

import os
import sys


def main() -> None:
    """Fuzz until the time is over, or an input breaks the target."""
    import atheris

    name = os.environ.get("CCID_FUZZ_TARGET") or sys.argv.pop(1)
    with atheris.instrument_imports(include=["ccid"]):
        from tests.fuzz.targets import TARGETS
    from tests.fuzz.bounds import Bounds

    target = TARGETS[name]
    bounds = Bounds(slower=10)  # counting what is reached takes time

    def one(data: bytes) -> None:
        bounds.run(target, data)

    with bounds:
        atheris.Setup(sys.argv, one)
        atheris.Fuzz()


if __name__ == "__main__":
    main()
