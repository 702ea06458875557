"""The scenarios by pcscd and the driver it has loaded: runs in the guest, on Debian's Python.

pcsc.py SOCKET FILE: FILE is JSON, [[name, reader's name, [steps], file for the wire], …]; prints
results as JSON. It knows nothing of the library.
"""

import json
import socket
import sys
import time
from typing import Any

from smartcard.scard import (
    SCARD_LEAVE_CARD,
    SCARD_PCI_T0,
    SCARD_PCI_T1,
    SCARD_PROTOCOL_T0,
    SCARD_PROTOCOL_T1,
    SCARD_RESET_CARD,
    SCARD_S_SUCCESS,
    SCARD_SCOPE_SYSTEM,
    SCARD_SHARE_SHARED,
    SCARD_STATE_EMPTY,
    SCARD_STATE_PRESENT,
    SCARD_STATE_UNAWARE,
    SCardConnect,
    SCardDisconnect,
    SCardEstablishContext,
    SCardGetStatusChange,
    SCardListReaders,
    SCardReconnect,
    SCardStatus,
    SCardTransmit,
)

WANTED = {
    "": SCARD_PROTOCOL_T0 | SCARD_PROTOCOL_T1,
    "T0": SCARD_PROTOCOL_T0,
    "T1": SCARD_PROTOCOL_T1,
}
GONE = (0x80100069, 0x8010000C)  # SCARD_W_REMOVED_CARD, SCARD_E_NO_SMARTCARD


def ask(path: str, line: str) -> None:
    with socket.socket(socket.AF_UNIX) as s:
        s.connect(path)
        s.sendall(line.encode() + b"\n")
        answer = s.recv(1000)
    assert answer.startswith(b"ok"), answer


def until(context: Any, reader: str, wanted: int) -> None:
    """Wait until pcscd has seen the card come or go, and has tried to power a card that came."""
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline:
        code, states = SCardGetStatusChange(context, 0, [(reader, SCARD_STATE_UNAWARE)])
        if code == SCARD_S_SUCCESS and states[0][1] & wanted:
            return
        time.sleep(0.01)
    raise SystemExit(f"pcscd does not see the card: {reader} {wanted:x}")


def play(context: Any, reader: str, name: str, steps: list[str], path: str) -> list[str]:
    said: list[str] = []
    card: Any = None
    protocol = 0
    for step in steps:
        word, _, rest = step.partition(" ")
        if word == "connect":
            code, card, protocol = SCardConnect(context, reader, SCARD_SHARE_SHARED, WANTED[rest])
            if code != SCARD_S_SUCCESS:
                card = None
                said.append("no connection")
                print(name, step, hex(code & 0xFFFFFFFF), file=sys.stderr)
                continue
            code, _, _, _, atr = SCardStatus(card)
            said.append(f"T={int(protocol == SCARD_PROTOCOL_T1)} {bytes(atr).hex()}")
        elif word in ("remove", "insert"):
            ask(path, f"{word} {name}")
            until(context, reader, SCARD_STATE_EMPTY if word == "remove" else SCARD_STATE_PRESENT)
        elif card is None:
            said.append("no connection")
        else:
            if word == "reset":
                code, protocol = SCardReconnect(
                    card, SCARD_SHARE_SHARED, protocol, SCARD_RESET_CARD
                )
                data = SCardStatus(card)[4] if code == SCARD_S_SUCCESS else []
            else:
                pci = SCARD_PCI_T1 if protocol == SCARD_PROTOCOL_T1 else SCARD_PCI_T0
                code, data = SCardTransmit(card, pci, list(bytes.fromhex(step)))
            code &= 0xFFFFFFFF
            if code == SCARD_S_SUCCESS:
                said.append(bytes(data).hex())
            else:
                said.append("gone" if code in GONE else "failed")
                print(name, step[:40], hex(code), file=sys.stderr)
    if card is not None:
        SCardDisconnect(card, SCARD_LEAVE_CARD)
    return said


def main(path: str, file: str) -> None:
    code, context = SCardEstablishContext(SCARD_SCOPE_SYSTEM)
    assert code == SCARD_S_SUCCESS, hex(code)
    code, names = SCardListReaders(context, [])
    results = {}
    with open(file) as f:
        scenarios = json.load(f)
    for name, friendly, steps, wire in scenarios:
        reader = next(n for n in names if n.startswith(friendly))
        ask(path, f"begin {name}")
        until(context, reader, SCARD_STATE_PRESENT)
        began = time.monotonic()
        results[name] = play(context, reader, name, steps, path)
        print(f"{time.monotonic() - began:6.2f} s {name}", file=sys.stderr)
        ask(path, f"wire {wire}")
        ask(path, f"end {name}")
        until(context, reader, SCARD_STATE_EMPTY)
    print(json.dumps(results))


if __name__ == "__main__":
    main(*sys.argv[1:])
