"""Serves the readers of test_pcscd_readers over USB/IP: runs in the guest.

    readers_server.py PORT SOCKET

The socket takes the lines of ``python -m ccid.virtual``: card in|out BUSID SLOT.
"""

from __future__ import annotations

import selectors

from ccid.codec.descriptors import SmartCardDescriptor
from ccid.codec.messages import PC_to_RDR_GetSlotStatus
from ccid.codes import ExchangeLevel, IccStatus, SlotError
from ccid.virtual import EchoCard, faults, known_faults
from ccid.virtual.ccid_function import CcidFunction
from ccid.virtual.control_socket import ControlCommands, ControlSocket
from ccid.virtual.usbip import UsbIpServer
from ccid.virtual.virtual_reader import VirtualReader, make_descriptor
from tests.pin_pad import MISMATCHED, SCRIPT, PinPad

T0, T1 = 1, 2
READERS = {
    "pad-t0": "096e:0503",
    "pad-t1": "04e6:5116",
    "pad-apdu": "0d46:3010",
    "at-once": "072f:90cc",
    "in-turn": "072f:b100",
    "composite": "08e6:5503",
    "sim": "08e6:3480",
}
"""The readers, in the order of their bus ids: 1-1 and so on. For the PIN pads the reference driver
has no exceptions, except the control code MCT for the last."""
PADS = 3


def _pad(level: ExchangeLevel, protocols: int) -> PinPad:
    descriptor = make_descriptor(level, dwProtocols=protocols, bPINSupport=3, wLcdLayout=0x0210)
    script = list(SCRIPT)
    if level is ExchangeLevel.TPDU and protocols == T1:
        script = [entry for entry in script if entry != MISMATCHED]
    return PinPad(descriptor, script, escape=lambda data: b"\x90" + data)


def _slots(level: ExchangeLevel, slots: int, busy: int) -> SmartCardDescriptor:
    return make_descriptor(level, slots, bMaxCCIDBusySlots=busy)


def make() -> dict[str, VirtualReader]:
    """The readers, by name."""
    two = [CcidFunction(make_descriptor(ExchangeLevel.SHORT_APDU), [EchoCard()]) for _ in "12"]
    two[0].faults.append(known_faults.hangs_beside(two[1]))
    two[1].faults.append(known_faults.hangs_beside(two[0]))
    numbers: dict[str, list[int]] = {"composite": [1, 2]}
    functions: dict[str, list[CcidFunction]] = {
        "pad-t0": [_pad(ExchangeLevel.TPDU, T0)],
        "pad-t1": [_pad(ExchangeLevel.TPDU, T1)],
        "pad-apdu": [_pad(ExchangeLevel.SHORT_APDU, T0 | T1)],
        "at-once": [CcidFunction(_slots(ExchangeLevel.SHORT_APDU, 3, 3), [EchoCard(), EchoCard()])],
        "in-turn": [
            CcidFunction(_slots(ExchangeLevel.EXTENDED_APDU, 2, 1), [EchoCard(), EchoCard()])
        ],
        "composite": two,
        "sim": [CcidFunction(make_descriptor(ExchangeLevel.SHORT_APDU), [None])],
    }
    functions["sim"][0].faults.append(
        faults.failing(SlotError.ICC_MUTE, IccStatus.ABSENT, on=PC_to_RDR_GetSlotStatus, times=None)
    )
    made = {}
    for name, ids in READERS.items():
        vendor_id, product_id = (int(part, 16) for part in ids.split(":"))
        made[name] = VirtualReader(
            functions=functions[name],
            numbers=numbers.get(name, ()),
            vendor_id=vendor_id,
            product_id=product_id,
            name=name,
        )
    return made


def main(port: int, path: str) -> None:
    """Print the serial numbers when the server is ready, and serve until a signal comes."""
    readers = make()
    with (
        selectors.DefaultSelector() as selector,
        UsbIpServer(list(readers.values()), "127.0.0.1", port) as server,
    ):
        ControlSocket(path, ControlCommands(server, EchoCard), selector)
        print("serving", *(reader.info.serial for reader in readers.values()), flush=True)
        while True:
            for key, _ in selector.select():
                key.data()
