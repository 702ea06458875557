"""Names of readers as pcscd builds them; pure.

A name is ``BASE[ [INTERFACE]][ (SERIAL)] HH SS``: HH counts the readers, SS the slots of one, both
in hexadecimal. pcscd gives a reader that comes back the lowest number that is free, so that another
reader may get its name. Here a number belongs to a device, known by its serial number or else by
its place, as long as the manager lives: another one gets it only when no other number is left.
"""

from __future__ import annotations

from collections.abc import Hashable

from ccid.pcsc.manager.scard_codes import MAX_READER_NAME

MAX_NUMBERS = 256
"""Two hexadecimal digits count so far."""
SUFFIX = len(" 00 00")


def base_name(name: str, interface: str | None = None, serial: str | None = None) -> str:
    """The name of a reader without its numbers, cut so that they fit behind it.

    Args:
        name: What it is called.
        interface: The string of its USB interface, if it has one.
        serial: Its USB serial number, if it has one; left out if ``interface`` has it already.
    """
    text = name
    if interface:
        text += f" [{_ascii(interface)}]"
    if serial and serial not in (interface or ""):
        text += f" ({serial})"
    room = MAX_READER_NAME - SUFFIX
    return text.encode("utf-8", "replace")[:room].decode("utf-8", "ignore")


def _ascii(text: str) -> str:
    return "".join(letter if letter.isascii() else "." for letter in text)


def slot_name(base: str, number: int, slot: int) -> str:
    """The name of a slot.

    Args:
        base: The name of its reader, of :func:`base_name`.
        number: The reader's number, 0 to 255.
        slot: The slot, from 0.
    """
    return f"{base} {number:02X} {slot:02X}"


class Numbers:
    """Which number belongs to which device."""

    def __init__(self) -> None:
        self._taken: dict[int, Hashable] = {}
        self._known: dict[Hashable, int] = {}

    def take(self, device: Hashable) -> int | None:
        """A number for a device that came; None where there is none left.

        Args:
            device: What tells it from others, and stays the same when it comes back.
        """
        number = self._known.get(device)
        if number is None or number in self._taken:
            remembered = set(self._known.values())
            free = [n for n in range(MAX_NUMBERS) if n not in self._taken]
            fresh = [n for n in free if n not in remembered]
            if not free:
                return None
            number = (fresh or free)[0]
            for other, its in list(self._known.items()):
                if its == number:
                    del self._known[other]
        self._taken[number] = device
        self._known[device] = number
        return number

    def give_back(self, number: int) -> None:
        """The device with this number left."""
        self._taken.pop(number, None)
