"""The scripts of ``pyscard_scripts.py`` on :mod:`ccid.pcsc.scard`, in this process, which has the
hand at the reader: ``python3 scripts_in_process.py NAME…``. Each has a new reader, or one by its
model, so that a forked child has one, too."""

from __future__ import annotations

import sys

import ccid
from ccid.pcsc import under_pyscard
from ccid.virtual import FileSystemCard

under_pyscard()

from tests.integration import pyscard_scripts as scripts  # noqa: E402

BY_MODEL = ("forked", "fork_releases")


def play(name: str) -> None:
    reader = ccid.VirtualReader()
    under_pyscard([""] if name in BY_MODEL else [reader])
    acts = {
        "take out": reader.remove,
        "put in": lambda: reader.insert(FileSystemCard()),
        "unplug": reader.unplug,
    }
    scripts.ask = lambda word: acts[word]()
    getattr(scripts, name)()


if __name__ == "__main__":
    for script in sys.argv[1:]:
        play(script)
        print(script, flush=True)
