"""The events that programs see when a reader is unplugged: runs in the guest, with pyscard.

    removal_client.py

A line of standard input names a reader (a part of its name), the card in it ("empty", "idle": no
program uses the card and pcscd has powered the card off, "powered": a program disconnected just
now, "held": this program keeps a handle to the card), and may end with "transmits": then this
program sends APDUs all the time. After "ready" the caller unplugs the reader. Three programs
(threads, each with a context of its own) call SCardGetStatusChange: the first for the reader, the
second for the reader and the pseudo reader of all readers, the third for the pseudo reader alone.
Their events are printed as JSON after "said": the result and the states, in the form of pcsc-lite's
own tests. Events count from the first call on.
"""

from __future__ import annotations

import json
import sys
import threading
import time
from collections.abc import Callable

from smartcard import scard

PNP = "\\\\?PnP?\\Notification"
BOTH = scard.SCARD_PROTOCOL_T0 | scard.SCARD_PROTOCOL_T1
ECHO = [0, 0x10, 0, 0, 2]
WAIT_S = 60
NAMES = (
    "IGNORE", "CHANGED", "UNKNOWN", "UNAVAILABLE", "EMPTY", "PRESENT", "ATRMATCH", "EXCLUSIVE",
    "INUSE", "MUTE", "UNPOWERED",
)  # fmt: skip


def code(hresult: int) -> str:
    return f"{hresult & 0xFFFFFFFF:08x}"


def establish() -> int:
    hresult, context = scard.SCardEstablishContext(scard.SCARD_SCOPE_USER)
    assert hresult == 0, code(hresult)
    return context  # type: ignore[no-any-return]


def listed(context: int) -> list[str]:
    return scard.SCardListReaders(context, [])[1] or []


def state_of(context: int, name: str) -> int:
    states = scard.SCardGetStatusChange(context, 0, [(name, 0)])[1]
    return states[0][1] if states else 0


def until(context: int, part: str, wanted: int) -> str:
    """Wait until a reader is in a state; returns the name of the reader."""
    deadline = time.monotonic() + WAIT_S
    while time.monotonic() < deadline:
        for name in listed(context):
            if part in name and state_of(context, name) & wanted:
                return name
        time.sleep(0.1)
    raise TimeoutError(f"{part}: {[(n, state_of(context, n)) for n in listed(context)]}")


def connect(context: int, name: str) -> tuple[int, int]:
    hresult, card, protocol = scard.SCardConnect(context, name, scard.SCARD_SHARE_SHARED, BOTH)
    assert hresult == 0, code(hresult)
    hresult = scard.SCardTransmit(card, protocol, ECHO)[0]
    assert hresult == 0, code(hresult)
    return card, protocol


class Watcher(threading.Thread):
    """A program that waits for changes of some readers."""

    def __init__(self, name: str, which: list[str], looked: threading.Barrier) -> None:
        super().__init__(daemon=True)
        self.reader = name
        self.which = which
        self.looked = looked
        self.said: list[str] = []
        self.base = 0

    def text(self, name: str, state: int) -> str:
        words = [word for bit, word in enumerate(NAMES) if state >> bit & 1]
        if name == self.reader and not state & scard.SCARD_STATE_UNKNOWN:
            words.append(f"+{(state >> 16) - self.base}")
        return " ".join(words) or "-"

    def run(self) -> None:
        context = establish()
        states = [(name, 0) for name in self.which if name != PNP]
        if states:
            states = [s[:2] for s in scard.SCardGetStatusChange(context, 0, states)[1]]
            self.base = states[0][1] >> 16
            self.said.append(self.text(*states[0]))
        if PNP in self.which:
            states.append((PNP, 0))
        self.looked.wait()
        deadline = time.monotonic() + WAIT_S
        while time.monotonic() < deadline:
            hresult, changed = scard.SCardGetStatusChange(context, 20_000, states)
            states = [s[:2] for s in changed]
            self.said.append(
                f"{code(hresult)}: " + ", ".join(self.text(*state) for state in states)
            )
            if hresult == scard.SCARD_E_UNKNOWN_READER or self.reader not in listed(context):
                break
        scard.SCardReleaseContext(context)


def scenario(context: int, part: str, card: str, transmits: bool) -> dict[str, list[str]]:
    empty = card == "empty"
    wanted = scard.SCARD_STATE_EMPTY if empty else scard.SCARD_STATE_PRESENT
    name = until(context, part, wanted)
    handle, protocol = None, 0
    if card in ("powered", "held"):
        handle, protocol = connect(context, name)
    elif card == "idle":
        time.sleep(6)
    if card == "powered":
        scard.SCardDisconnect(handle, scard.SCARD_LEAVE_CARD)
        handle = None
    lists = {"reader": [name], "both": [name, PNP], "pnp": [PNP]}
    looked = threading.Barrier(len(lists) + 1)
    watchers = {key: Watcher(name, which, looked) for key, which in lists.items()}
    for watcher in watchers.values():
        watcher.start()
    looked.wait()
    print("ready", flush=True)
    said: dict[str, list[str]] = {"transmit": [], "after": []}
    while transmits and len(said["transmit"]) < 20:
        hresult = code(scard.SCardTransmit(handle, protocol, ECHO)[0])
        if said["transmit"][-1:] != [hresult]:
            said["transmit"].append(hresult)
        if name not in listed(context):
            break
    for key, watcher in watchers.items():
        watcher.join(WAIT_S + 10)
        said[key] = watcher.said
    if handle is not None:
        afterwards: list[Callable[[], int]] = [
            lambda: scard.SCardStatus(handle)[0],
            lambda: scard.SCardTransmit(handle, protocol, ECHO)[0],
            lambda: scard.SCardDisconnect(handle, scard.SCARD_LEAVE_CARD),
        ]
        said["after"] = [code(one()) for one in afterwards]
    return said


def main() -> None:
    context = establish()
    print("started", flush=True)
    for line in sys.stdin:
        part, card, *rest = line.split()
        print("said", json.dumps(scenario(context, part, card, "transmits" in rest)), flush=True)


main()
