"""Faults of a virtual card on its contacts, on request.

    contact.faults.append(contact_faults.corrupt(on="I"))

A fault changes what the card sends in one turn. ``on`` limits the fault to one kind of T=1 block
of the card (``I``, ``R`` or ``S``). ``after`` is the number of turns that pass unchanged first,
``times`` the number of turns that the fault changes, None for all. A fault with ``times=2`` changes
an I-block and also its repetition, if the repetition is the next block.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from ccid.virtual.cards.line import Sent
from ccid.virtual.cards.t1_blocks import ABORT, IFS, PROLOGUE, RESYNCH, WTX, Check, kind

Bend = Callable[[list[Sent], Check], list[Sent]]
"""Takes what the card sends in one turn, and T=1's check; returns what the card sends instead."""


@dataclass
class ContactFault:
    """One fault.

    Attributes:
        bend: Changes what the card sends; None if the fault is a request.
        request: The kind and INF of an S(request) that the card sends before the answer.
        on: ``I``, ``R`` or ``S``, the kind of block that the fault changes; None for any, and
            for T=0.
        times: Number of turns that the fault still changes; None for all.
        after: Number of such turns that pass unchanged first.
    """

    bend: Bend | None = None
    request: tuple[int, bytes] | None = None
    on: str | None = None
    times: int | None = 1
    after: int = 0

    def has_its_turn(self, name: str) -> bool:
        """True if the fault applies to this turn, in which the card sends a block of this kind."""
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
    """``sent``, changed by those of ``faults`` that apply to this turn."""
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
    """A fault that changes one byte of a block and computes the check anew."""

    def change(data: bytes, check: Check) -> bytes:
        end = len(data) - check.length
        if offset >= end:
            return data
        head = data[:offset] + bytes((new(data[offset]) & 0xFF,)) + data[offset + 1 : end]
        return head + check.of(head)

    return _bent(change, on, times, after)


# Blocks and characters ------------------------------------------------------------------------


def corrupt(on: str | None = None, times: int | None = 1, after: int = 0) -> ContactFault:
    """The last character has a wrong bit; in a T=1 block that is the check."""
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
    """The answer comes two times."""
    return ContactFault(lambda sent, _: sent + sent, None, on, times, after)


def one_turn_late(on: str | None = None, times: int | None = 1, after: int = 0) -> ContactFault:
    """Each answer comes one turn late, in place of the answer of that turn, to the end of the
    fault."""
    held: list[Sent] = []

    def bend(sent: list[Sent], _check: Check) -> list[Sent]:
        late, held[:] = list(held), sent
        return late

    return ContactFault(bend, None, on, times, after)


def replaced(
    data: bytes, on: str | None = None, times: int | None = 1, after: int = 0
) -> ContactFault:
    """These characters come instead of the answer."""
    return ContactFault(lambda _sent, _check: [Sent(0.0, data)], None, on, times, after)


def cut_short(
    to: int, on: str | None = None, times: int | None = 1, after: int = 0
) -> ContactFault:
    """Only the first ``to`` characters come."""
    return _bent(lambda data, _: data[:to], on, times, after)


def followed_by(
    noise: bytes, on: str | None = None, times: int | None = 1, after: int = 0
) -> ContactFault:
    """More characters follow the answer without a pause."""
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


# T=1: blocks with a correct check and a wrong content ----------------------------------------


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
    """LEN is ``by`` too large (or too small, if negative)."""
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
    """The card asks for time, S(WTX request), before the answer; with ``times=None`` the answer
    never comes."""
    return ContactFault(None, (WTX, bytes((multiplier,))), on, times, after)


def asks_ifs(
    ifsc: int, on: str | None = None, times: int | None = 1, after: int = 0
) -> ContactFault:
    """The card announces an IFSC, S(IFS request), before the answer; 0 and 255 are reserved."""
    return ContactFault(None, (IFS, bytes((ifsc,))), on, times, after)


def asks_resynch(on: str | None = None, times: int | None = 1, after: int = 0) -> ContactFault:
    """The card sends S(RESYNCH request), which only an interface device may send."""
    return ContactFault(None, (RESYNCH, b""), on, times, after)


def aborts(on: str | None = None, times: int | None = 1, after: int = 0) -> ContactFault:
    """The card sends S(ABORT request): ``on="R"`` in a chain of the interface device, ``on="I"``
    with ``after=1`` in a chain of the card."""
    return ContactFault(None, (ABORT, b""), on, times, after)


# T=0 ------------------------------------------------------------------------------------------


def wrong_procedure_byte(value: int, times: int | None = 1, after: int = 0) -> ContactFault:
    """The first character that the card sends has this value."""
    return _bent(lambda data, _: bytes((value,)) + data[1:], None, times, after)


def nulls(count: int, every_s: float = 0.0, times: int | None = 1, after: int = 0) -> ContactFault:
    """The card sends NULL (0x60) ``count`` times before the answer, one every ``every_s``
    seconds. Some thousands count as endless."""
    before = [Sent(every_s, b"\x60")] * count
    return ContactFault(lambda sent, _: before + sent, None, None, times, after)
