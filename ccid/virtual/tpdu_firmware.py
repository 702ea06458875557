"""The firmware of a reader at TPDU level: USB CCID rev 1.1, 3.2; ISO/IEC 7816-3:2006 10 and 11.

In T=0 the reader obeys the procedure bytes; in T=1 the reader passes a block to the card and a
block back.
"""

from __future__ import annotations

from ccid.codec.messages import ProtocolDataT1
from ccid.codes import Protocol, SlotError
from ccid.virtual.cards.t1_blocks import IFS, PROLOGUE, S_REQUEST, S_RESPONSE, Check, block
from ccid.virtual.contact_wire import Refused, Wire
from ccid.virtual.virtual_slot import VirtualSlot

OF_LENGTH = 1
"""Offset of dwLength."""
HEADER = 5
NULL = 0x60
IFS_ATTEMPTS = 3


def t0_tpdu(wire: Wire, tpdu: bytes, now: float) -> tuple[bytes, float]:
    """Send header, P3 and optional data; return data, SW1 and SW2, and the time of the end.

    Raises:
        Refused: Lengths that do not agree, PROCEDURE_BYTE_CONFLICT, or as :meth:`Wire.receive`.
    """
    if len(tpdu) == HEADER - 1:
        tpdu += b"\0"  # 3.2.1: the reader adds P3
    if len(tpdu) < HEADER:
        raise Refused(OF_LENGTH)
    header, out = tpdu[:HEADER], tpdu[HEADER:]
    ins, p3 = header[1], header[4]
    if len(out) == p3 + 1 > 1:
        out = out[:p3]  # drops the Le of a case 4 APDU, which is not part of a TPDU
    if out and len(out) != p3:
        raise Refused(OF_LENGTH)
    lacking = 0 if out else p3 or 256
    got = b""
    wire.clear()
    now = wire.send(header, now)
    while True:
        procedure, now = wire.receive(1, now)
        byte = procedure[0]
        if byte == NULL:
            continue
        if byte >> 4 in (0x6, 0x9):
            sw2, now = wire.receive(1, now)
            return got + procedure + sw2, now
        if byte not in (ins, ins ^ 0xFF) or not (out or lacking):
            wire.clear()
            raise Refused(SlotError.PROCEDURE_BYTE_CONFLICT, now)
        if out:
            count = len(out) if byte == ins else 1
            now = wire.send(out[:count], now)
            out = out[count:]
        else:
            part, now = wire.receive(lacking if byte == ins else 1, now)
            got, lacking = got + part, lacking - len(part)


def t1_block(
    slot: VirtualSlot, wire: Wire, data: bytes, multiplier: int, room: int, now: float
) -> tuple[bytes, float]:
    """Send a block; return the card's block, and the time of the end.

    Args:
        slot: The slot, whose parameters tell LRC or CRC.
        wire: The card's contacts.
        data: The block; the reader does not interpret the block.
        multiplier: Number of BWT that the card may take.
        room: The longest block that the reader can take, bytes.
        now: When the reader begins.

    Raises:
        Refused: XFR_OVERRUN, or as :meth:`Wire.receive`.
    """
    wire.clear()
    now = wire.send(data, now)
    head, now = wire.receive(PROLOGUE, now, multiplier)
    rest = head[2] + _check(slot).length
    if PROLOGUE + rest > room:
        wire.clear()
        raise Refused(SlotError.XFR_OVERRUN, now)
    tail, now = wire.receive(rest, now)
    return head + tail, now


def _check(slot: VirtualSlot) -> Check:
    parameters = slot.parameters[Protocol.T1]
    assert isinstance(parameters, ProtocolDataT1)
    return Check.CRC if parameters.bmTCCKST1 & 1 else Check.LRC


def announce_ifsd(slot: VirtualSlot, wire: Wire, ifsd: int, room: int, now: float) -> float:
    """Send the reader's own S(IFS request), once after each reset (dwFeatures bit 10); return the
    time of the end. A card that refuses the request keeps an IFSD of 32."""
    if slot.announced_ifsd or not 1 <= ifsd <= 254:
        return now
    slot.announced_ifsd = True
    inf = bytes((ifsd,))
    request = block(S_REQUEST | IFS, inf, _check(slot))
    response = block(S_RESPONSE | IFS, inf, _check(slot))
    for _ in range(IFS_ATTEMPTS):
        try:
            got, now = t1_block(slot, wire, request, 1, room, now)
        except Refused as refused:
            now = now if refused.at is None else refused.at
            continue
        if got == response:
            break
    return now
