"""The scripts of ``pyscard_scripts.py`` on :mod:`ccid.pcsc.scard`, in this process, which has the
hand at the reader: ``python3 scripts_in_process.py NAME…``. Each has a new reader, or one by its
model, so that a forked child has one, too. ``--pads NAME…`` runs those of ``pyscard_features.py``.
"""

from __future__ import annotations

import sys
from collections.abc import Callable

import ccid
from ccid.pcsc import under_pyscard
from ccid.virtual import FileSystemCard

under_pyscard()

from tests.integration import pyscard_features, pyscard_scripts  # noqa: E402
from tests.integration.pin_pads import PADS, pin_pad  # noqa: E402

BY_MODEL = ("forked", "fork_releases")


def play(name: str) -> None:
    reader = ccid.VirtualReader()
    under_pyscard([""] if name in BY_MODEL else [reader])
    acts: dict[str, Callable[[], object]] = {
        "take out": reader.remove,
        "put in": lambda: reader.insert(FileSystemCard()),
        "unplug": reader.unplug,
    }

    def act(word: str) -> None:
        acts[word]()

    pyscard_scripts.ask = act
    getattr(pyscard_scripts, name)()
    print(name, flush=True)


def main(names: list[str]) -> None:
    if names[0] == "--pads":
        under_pyscard([pin_pad(ids) for ids in PADS])
        for name in names[1:]:
            pyscard_features.SCRIPTS[name]()
    else:
        for name in names:
            play(name)


if __name__ == "__main__":
    main(sys.argv[1:])
