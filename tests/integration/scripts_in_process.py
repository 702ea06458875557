"""The scripts of ``pyscard_scripts.py`` on :mod:`ccid.pcsc.scard`, in this process, which has the
hand at the reader: ``python3 scripts_in_process.py NAME…``. Each has a new reader, or one by its
model, so that a forked child has one, too. ``--pads NAME…`` runs those of ``pyscard_features.py``.
"""

from __future__ import annotations

import faulthandler
import os
import sys
import threading
from collections.abc import Callable

import ccid
from ccid.pcsc import scard, under_pyscard
from ccid.virtual import FileSystemCard

under_pyscard()

from tests.integration import pyscard_features, pyscard_scripts  # noqa: E402
from tests.integration.pin_pads import PADS, pin_pad  # noqa: E402

BY_MODEL = ("forked", "fork_releases", "forked_beside_threads")
FORKS, CHILD_S = 20, 30


def play(name: str) -> None:
    reader = ccid.VirtualReader()
    under_pyscard([""] if name in BY_MODEL else [reader])
    acts: dict[str, Callable[[], object]] = {
        "take out": reader.remove,
        "put in": lambda: reader.insert(FileSystemCard()),
        "unplug": reader.unplug,
        "replug": reader.replug,
    }

    def act(word: str) -> None:
        acts[word]()

    pyscard_scripts.ask = act
    script = globals().get(name) or getattr(pyscard_scripts, name)
    script()
    print(name, flush=True)


def forked_beside_threads() -> None:
    """Children of a process whose other threads are at any point of what they do."""
    is_over = threading.Event()

    def work() -> None:
        one = pyscard_scripts.context()
        name = pyscard_scripts.first(one)
        while not is_over.is_set():
            card = pyscard_scripts.connect(one)
            for _ in range(20):
                scard.SCardTransmit(card, scard.SCARD_PCI_T1, pyscard_scripts.SELECT)
            scard.SCardGetStatusChange(one, 1, [(name, scard.SCARD_STATE_PRESENT)])
            scard.SCardDisconnect(card, scard.SCARD_RESET_CARD)

    def child() -> None:
        faulthandler.dump_traceback_later(CHILD_S, exit=True)
        assert scard.SCardListReaders(parents, []) == [scard.SCARD_E_INVALID_HANDLE, []]
        card = pyscard_scripts.connect(pyscard_scripts.context())
        said = scard.SCardTransmit(card, scard.SCARD_PCI_T1, pyscard_scripts.SELECT)
        assert said == [scard.SCARD_S_SUCCESS, [0x90, 0x00]]

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    parents = pyscard_scripts.context()
    for _ in range(FORKS):
        pid = os.fork()
        if not pid:
            child()
            sys.exit()  # handlers of its end are run
        assert os.waitpid(pid, 0)[1] == 0
    is_over.set()
    for thread in threads:
        thread.join()
    assert scard.SCardIsValidContext(parents) == scard.SCARD_S_SUCCESS


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
