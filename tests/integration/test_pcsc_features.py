"""What programs ask of readers themselves, by the real libpcsclite of three releases, and in
process: attributes, features of PC/SC part 10, Escape commands, PIN pads with a person at them."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.integration.newer_clients import RELEASES, Release
from tests.integration.pin_pads import PADS, expected, pin_pad
from tests.integration.scripted_service import PYTHON, Service
from tests.integration.test_pyscard import run

NAMES = "attributes", "properties", "escapes", "pin_pads"


@pytest.mark.parametrize(
    "release", [None, *RELEASES], ids=["host", *(one.name for one in RELEASES)]
)
def test_features(tmp_path: Path, release: Release | None) -> None:
    if release is not None:
        release.need()
    readers = [pin_pad(ids) for ids in PADS]
    service = Service(tmp_path, [PYTHON] if release is None else release.python, readers)
    try:
        said = service.play_features(*NAMES)
    finally:
        service.end()
    assert said == expected([reader.number for reader in readers])


def test_features_in_process() -> None:
    script = Path(__file__).parent / "scripts_in_process.py"
    assert run(PYTHON, script, "--pads", *NAMES) == expected([1, 2, 3])
