"""The scenarios by this library: runs in the guest.

ours.py SOCKET DIRECTORY SCENARIO…; prints results as JSON.
"""

from __future__ import annotations

import json
import sys
import threading
import time
import traceback
from collections.abc import Sequence

import ccid
from ccid import errors
from tests.vm.differential.scenario_parts import READERS, Scenario
from tests.vm.differential.scenarios import SCENARIOS
from tests.vm.differential.server import ask

PROTOCOLS = {"": None, "T0": ccid.Protocol.T0, "T1": ccid.Protocol.T1}


HEARD_S = 10
"""Seconds within which the reader must report that its card moved."""


def hand(reader: ccid.Reader, socket: str, line: str) -> None:
    """Move a card, and wait for the notification of the reader, as pcscd's clients do."""
    heard = threading.Event()
    end = reader.listen(lambda _: heard.set())
    try:
        ask(socket, line)
        if not heard.wait(HEARD_S):
            raise SystemExit(f"the reader does not tell of it: {line}")
    finally:
        end()


def play(reader: ccid.Reader, scenario: Scenario, socket: str) -> list[str]:
    """The results of the steps of a scenario."""
    said, card = [], None
    for step in scenario.steps:
        word, _, rest = step.partition(" ")
        try:
            if word == "connect":
                card = reader.slots[0].connect(PROTOCOLS[rest])
                said.append(f"{card.protocol} {card.atr.hex()}")
            elif word in ("remove", "insert"):
                hand(reader, socket, f"{word} {scenario.name}")
            elif card is None:
                said.append("no connection")
            elif word == "reset":
                said.append(card.reset().hex())
            else:
                said.append(card.transmit(bytes.fromhex(step)).hex())
        except (errors.CardRemoved, errors.CardAbsent):
            said.append("gone")
        except errors.CcidError:
            said.append("no connection" if word == "connect" else "failed")
            print(f"{scenario.name}: {step[:40]}\n{traceback.format_exc(limit=0)}", file=sys.stderr)
    if card is not None:
        card.disconnect()
    return said


def main(socket: str, directory: str, names: Sequence[str]) -> None:
    """Play all scenarios."""
    infos = {(r.vendor_id, r.product_id): r for r in ccid.list_readers()}
    models = {SCENARIOS[name].reader: READERS[SCENARIOS[name].reader] for name in names}
    readers = {
        key: ccid.open_reader(infos[model.vendor_id, model.product_id])
        for key, model in models.items()
    }
    results = {}
    for name in names:
        scenario = SCENARIOS[name]
        ask(socket, f"begin {name}")
        began = time.monotonic()
        results[name] = play(readers[scenario.reader], scenario, socket)
        print(f"{time.monotonic() - began:6.2f} s {name}", file=sys.stderr)
        ask(socket, f"wire {directory}/ours-{list(SCENARIOS).index(name)}.json")
        ask(socket, f"end {name}")
    for reader in readers.values():
        reader.close()
    print(json.dumps(results))


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], sys.argv[3:])
