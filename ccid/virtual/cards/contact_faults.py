"""What a virtual card can be made to do wrong on its contacts, on request.

    contact.faults.append(contact_faults.corrupt(on="I"))

A fault strikes when it is the card's turn to send. ``on`` limits it to one kind of T=1 block of
the card (``I``, ``R`` or ``S``), ``after`` lets so many pass first, ``times`` says how many it
strikes, None for ever. ``times=2`` of a fault that bends an I-block bends it and, if that is what
comes then, its repetition.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from ccid.virtual.cards.line import Sent
from ccid.virtual.cards.t1_blocks import ABORT, IFS, PROLOGUE, RESYNCH, WTX, Check, kind

Bend = Callable[[list[Sent], Check], list[Sent]]
"""Takes what the card sends in its turn, and T=1's check; returns what it sends instead."""


@dataclass
class ContactFault:
    """One fault.

    Attributes:
        bend: Bends what the card sends; None if the fault is a request.
        request: The kind and INF of an S(request) that the card sends before it answers.
        on: ``I``, ``R`` or ``S``, what kind of block it was; None for any, and for T=0.
        times: How often it still strikes; None for ever.
        after: How many such turns pass before.
    """

    bend: Bend | None = None
    request: tuple[int, bytes] | None = None
    on: str | None = None
    times: int | None = 1
    after: int = 0

    def has_its_turn(self, name: str) -> bool:
        """Is it this fault's turn, now that the card sends a block of this kind?"""
        if self.on is not None and name != self.on:
            return False
        if self.after > 0:
            self.after -= 1
            return False
        if self.times == 0:
            return False
        if self.times is not None:
            self.times -= 1
        return True


def strike(faults: list[ContactFault], sent: list[Sent], check: Check) -> list[Sent]:
    """``sent``, bent by those of ``faults`` whose turn it is."""
    name = kind(sent[0].data) if sent else ""
    for fault in faults:
        if fault.bend is not None and fault.has_its_turn(name):
            sent = fault.bend(sent, check)
    return sent


def _bent(
    change: Callable[[bytes, Check], bytes], on: str | None, times: int | None, after: int
) -> ContactFault:
    """A fault that changes the characters."""

    def bend(sent: list[Sent], check: Check) -> list[Sent]:
        return [one._replace(data=change(one.data, check)) for one in sent]

    return ContactFault(bend, None, on, times, after)


def _patched(
    offset: int, new: Callable[[int], int], on: str | None, times: int | None, after: int
) -> ContactFault:
    """A fault that changes one byte of a block and makes the check right for it."""

    def change(data: bytes, check: Check) -> bytes:
        end = len(data) - check.length
        if offset >= end:
            return data
        head = data[:offset] + bytes((new(data[offset]) & 0xFF,)) + data[offset + 1 : end]
        return head + check.of(head)

    return _bent(change, on, times, after)


# Blocks and characters ------------------------------------------------------------------------


def corrupt(on: str | None = None, times: int | None = 1, after: int = 0) -> ContactFault:
    """The last character, of a T=1 block its check, has a bit wrong."""
    return _bent(
        lambda data, _: data[:-1] + bytes(byte ^ 1 for byte in data[-1:]), on, times, after
    )


def parity_error(on: str | None = None, times: int | None = 1, after: int = 0) -> ContactFault:
    """The characters come with wrong parity."""
    return ContactFault(
        lambda sent, _: [one._replace(parity_error=True) for one in sent], None, on, times, after
    )


def silence(on: str | None = None, times: int | None = 1, after: int = 0) -> ContactFault:
    """The card's answer is lost."""
    return ContactFault(lambda _sent, _check: [], None, on, times, after)


def doubled(on: str | None = None, times: int | None = 1, after: int = 0) -> ContactFault:
    """The answer comes twice."""
    return ContactFault(lambda sent, _: sent + sent, None, on, times, after)


def one_turn_late(on: str | None = None, times: int | None = 1, after: int = 0) -> ContactFault:
    """The answer comes in the card's next turn instead of that turn's own, and so on to the
    end of the fault."""
    held: list[Sent] = []

    def bend(sent: list[Sent], _check: Check) -> list[Sent]:
        late, held[:] = list(held), sent
        return late

    return ContactFault(bend, None, on, times, after)


def replaced(
    data: bytes, on: str | None = None, times: int | None = 1, after: int = 0
) -> ContactFault:
    """These characters come instead."""
    return ContactFault(lambda _sent, _check: [Sent(0.0, data)], None, on, times, after)


def cut_short(
    to: int, on: str | None = None, times: int | None = 1, after: int = 0
) -> ContactFault:
    """Only the first ``to`` characters come."""
    return _bent(lambda data, _: data[:to], on, times, after)


def followed_by(
    noise: bytes, on: str | None = None, times: int | None = 1, after: int = 0
) -> ContactFault:
    """More characters come right behind."""
    return _bent(lambda data, _: data + noise, on, times, after)


# Time -----------------------------------------------------------------------------------------


def late(by_s: float, on: str | None = None, times: int | None = 1, after: int = 0) -> ContactFault:
    """The answer comes ``by_s`` seconds later."""
    return ContactFault(
        lambda sent, _: [
            one._replace(after_s=one.after_s + by_s) if i == 0 else one
            for i, one in enumerate(sent)
        ],
        None,
        on,
        times,
        after,
    )


def pause(
    at: int, by_s: float, on: str | None = None, times: int | None = 1, after: int = 0
) -> ContactFault:
    """The card pauses for ``by_s`` seconds before character ``at`` of its answer."""

    def bend(sent: list[Sent], _check: Check) -> list[Sent]:
        if not sent:
            return sent
        first, *rest = sent
        head = first._replace(data=first.data[:at])
        return [head, Sent(by_s, first.data[at:], first.parity_error), *rest]

    return ContactFault(bend, None, on, times, after)


# T=1: blocks that are right as such, and wrong -----------------------------------------------


def wrong_nad(
    nad: int = 0x12, on: str | None = None, times: int | None = 1, after: int = 0
) -> ContactFault:
    """The block has another NAD."""
    return _patched(0, lambda _: nad, on, times, after)


def wrong_pcb(
    pcb: int, on: str | None = None, times: int | None = 1, after: int = 0
) -> ContactFault:
    """The block has another PCB."""
    return _patched(1, lambda _: pcb, on, times, after)


def wrong_ns(times: int | None = 1, after: int = 0) -> ContactFault:
    """An I-block has the other N(S)."""
    return _patched(1, lambda pcb: pcb ^ 0x40, "I", times, after)


def wrong_nr(times: int | None = 1, after: int = 0) -> ContactFault:
    """An R-block has the other N(R)."""
    return _patched(1, lambda pcb: pcb ^ 0x10, "R", times, after)


def wrong_len(
    by: int, on: str | None = None, times: int | None = 1, after: int = 0
) -> ContactFault:
    """LEN says ``by`` more or fewer bytes than there are."""
    return _patched(2, lambda length: length + by, on, times, after)


def wrong_inf(
    inf: bytes, on: str | None = None, times: int | None = 1, after: int = 0
) -> ContactFault:
    """The block has another INF."""

    def change(data: bytes, check: Check) -> bytes:
        head = data[:2] + bytes((len(inf),)) + inf
        return head + check.of(head) if len(data) >= PROLOGUE else data

    return _bent(change, on, times, after)


# T=1: requests of the card --------------------------------------------------------------------


def asks_wtx(
    multiplier: int = 1, on: str | None = None, times: int | None = 1, after: int = 0
) -> ContactFault:
    """The card asks for time, S(WTX request), before it answers; with ``times=None`` it never
    comes to answer."""
    return ContactFault(None, (WTX, bytes((multiplier,))), on, times, after)


def asks_ifs(
    ifsc: int, on: str | None = None, times: int | None = 1, after: int = 0
) -> ContactFault:
    """The card announces an IFSC, S(IFS request), before it answers; 0 and 255 are reserved."""
    return ContactFault(None, (IFS, bytes((ifsc,))), on, times, after)


def asks_resynch(on: str | None = None, times: int | None = 1, after: int = 0) -> ContactFault:
    """The card asks S(RESYNCH request), which only an interface device may."""
    return ContactFault(None, (RESYNCH, b""), on, times, after)


def aborts(on: str | None = None, times: int | None = 1, after: int = 0) -> ContactFault:
    """The card asks S(ABORT request): ``on="R"`` in a chain of the interface device, ``on="I"``
    with ``after=1`` in its own."""
    return ContactFault(None, (ABORT, b""), on, times, after)


# T=0 ------------------------------------------------------------------------------------------


def wrong_procedure_byte(value: int, times: int | None = 1, after: int = 0) -> ContactFault:
    """The first character that the card sends is this one."""
    return _bent(lambda data, _: bytes((value,)) + data[1:], None, times, after)


def nulls(count: int, every_s: float = 0.0, times: int | None = 1, after: int = 0) -> ContactFault:
    """The card sends NULL (0x60) ``count`` times before it answers, one every ``every_s``
    seconds; some thousands are endless."""
    before = [Sent(every_s, b"\x60")] * count
    return ContactFault(lambda sent, _: before + sent, None, None, times, after)
