"""A contactless card in the field of a reader, as the reader shows it to the host. Pure.

A contactless reader makes an ATR of what the card says on the air, and takes pseudo-APDUs of class
FF for it (PC/SC part 3, 3.1.3.2.3 and 3.2.2). Here card and that part of the reader are one object.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable
from enum import IntEnum
from functools import reduce
from operator import xor

from ccid.iso7816.apdu import CommandApdu
from ccid.iso7816.historical_bytes import PCSC_STORAGE_CARD
from ccid.virtual.cards.application import Answer, Application
from ccid.virtual.cards.interindustry import Refused

PCSC = 0xFF
"""CLA of a pseudo-APDU."""
NONVOLATILE = 0x20
PLACES = 2
"""Places for keys in the reader."""

WRONG_NUMBER, WRONG_KEY_LENGTH, NO_NONVOLATILE = 0x6388, 0x6389, 0x6387
NO_INFORMATION, END_REACHED, NO_FUNCTION, NO_ADDRESS = 0x6300, 0x6282, 0x6A81, 0x6A82
WRONG_LENGTH, WRONG_PARAMETER, NOT_SATISFIED, NO_KEY = 0x6700, 0x6B00, 0x6982, 0x6984
NO_SUCH_KEY_TYPE, NOT_ALLOWED = 0x6986, 0x6986


class PseudoIns(IntEnum):
    """Instruction bytes of class FF (PC/SC part 3, 3.2.2.1); the last two are of some readers."""

    LOAD_KEYS = 0x82
    GENERAL_AUTHENTICATE = 0x86
    AUTHENTICATE = 0x88
    READ_BINARY = 0xB0
    GET_DATA = 0xCA
    UPDATE_BINARY = 0xD6
    READ_VALUE = 0xB1
    VALUE = 0xD7


def contactless_atr(historical: bytes) -> bytes:
    """The ATR that a contactless reader makes (PC/SC part 3, 3.1.3.2.3): T=0 and T=1, then TCK.

    Args:
        historical: At most 15 historical bytes.
    """
    body = bytes((0x80 | len(historical), 0x80, 0x01)) + historical
    return b"\x3b" + body + bytes((reduce(xor, body),))


def storage_atr(standard: int, name: int) -> bytes:
    """The ATR of a storage card (PC/SC part 3, 3.1.3.2.3.2).

    Args:
        standard: SS, the number of the standard.
        name: NN, the number of the card name.
    """
    return contactless_atr(
        PCSC_STORAGE_CARD + bytes((standard,)) + name.to_bytes(2, "big") + bytes(4)
    )


class Picc(Application):
    """A contactless card, and the reader's part for it.

    Args:
        uid: The UID.
        atr: The ATR that the reader makes.
        ats: What GET DATA with P1 = 01 returns; None if the card has no ATS.

    Attributes:
        of_reader: Takes a pseudo-APDU for the reader itself, as for its LEDs, and returns the
            response; None for a command that is not for the reader. The virtual reader sets it.
        keys: The keys in the reader, by the number of the place.
    """

    def __init__(self, uid: bytes, atr: bytes, ats: bytes | None = None) -> None:
        super().__init__(atr)
        self.uid = uid
        self.ats = ats
        self.of_reader: Callable[[bytes], bytes | None] | None = None
        self.keys: dict[int, bytes] = {}

    def transmit(self, apdu: bytes) -> Answer:
        """Carry out a pseudo-APDU for the reader, or a command for the card."""
        if self.of_reader is not None and apdu[:1] == bytes((PCSC,)):
            response = self.of_reader(apdu)
            if response is not None:
                return Answer(response[:-2], int.from_bytes(response[-2:], "big"))
        if apdu[:2] == bytes((PCSC, PseudoIns.AUTHENTICATE)) and len(apdu) == 6:
            # part 3 of 2005 has key type and number in place of Lc and data
            apdu = bytes((PCSC, PseudoIns.GENERAL_AUTHENTICATE, 0, 0, 5, 1)) + apdu[2:]
        return super().transmit(apdu)

    def process(self, command: CommandApdu) -> Answer:
        """Carry out ``command``."""
        if command.cla != PCSC:
            return self.on_air(command)
        try:
            return self._pseudo(command)
        except Refused as refused:
            return Answer(sw=refused.sw)

    def _pseudo(self, command: CommandApdu) -> Answer:
        address = command.p1 << 8 | command.p2
        match command.ins:
            case PseudoIns.GET_DATA:
                return self._get_data(command)
            case PseudoIns.LOAD_KEYS:
                return self._load_keys(command)
            case PseudoIns.GENERAL_AUTHENTICATE:
                return self._general_authenticate(command)
            case PseudoIns.READ_BINARY:
                return _cut(self.read(address, command.ne or 256), command.ne)
            case PseudoIns.UPDATE_BINARY:
                self.update(address, command.data)
                return Answer()
        return self.special(command)

    def _get_data(self, command: CommandApdu) -> Answer:
        if command.p2 or command.data or command.p1 > 1:
            raise Refused(WRONG_PARAMETER)
        found = self.ats if command.p1 else self.uid
        if found is None:
            raise Refused(NO_FUNCTION)
        if command.ne < len(found):
            raise Refused(0x6C00 | len(found))
        short = command.ne not in (256, 65536) and command.ne > len(found)
        return Answer(found, END_REACHED if short else 0x9000)

    def _load_keys(self, command: CommandApdu) -> Answer:
        if command.p1 == NONVOLATILE:
            raise Refused(NO_NONVOLATILE)
        if command.p1:
            raise Refused(WRONG_PARAMETER)
        if command.p2 >= PLACES:
            raise Refused(WRONG_NUMBER)
        if len(command.data) != self.key_length:
            raise Refused(WRONG_KEY_LENGTH)
        self.keys[command.p2] = command.data
        return Answer()

    def _general_authenticate(self, command: CommandApdu) -> Answer:
        if len(command.data) != 5 or command.data[0] != 1:
            raise Refused(WRONG_LENGTH)
        _, high, low, kind, number = command.data
        key = self.keys.get(number)
        if key is None:
            raise Refused(NO_KEY)
        self.authenticate(high << 8 | low, kind, key)
        return Answer()

    # What kinds of cards do -------------------------------------------------------------------

    key_length = 6
    """Bytes of a key."""

    @abstractmethod
    def on_air(self, command: CommandApdu) -> Answer:
        """Carry out a command APDU of another class than FF."""

    def read(self, address: int, length: int) -> bytes:
        """``length`` bytes from ``address`` on, or fewer at the end of the memory.

        Raises:
            Refused: The card refuses.
        """
        raise Refused(NO_FUNCTION)

    def update(self, address: int, data: bytes) -> None:
        """Write ``data`` at ``address``.

        Raises:
            Refused: The card refuses.
        """
        raise Refused(NO_FUNCTION)

    def authenticate(self, address: int, kind: int, key: bytes) -> None:
        """Authenticate to the sector of ``address`` with a key of type ``kind``, 60 or 61.

        Raises:
            Refused: The card refuses.
        """
        raise Refused(NO_FUNCTION)

    def special(self, command: CommandApdu) -> Answer:
        """Carry out a pseudo-APDU that only some readers have.

        Raises:
            Refused: The card or the reader refuses.
        """
        raise Refused(0x6D00)


def _cut(data: bytes, ne: int) -> Answer:
    """``data`` in answer to READ BINARY with ``ne``."""
    return Answer(data, END_REACHED if len(data) < ne < 256 else 0x9000)


class StoragePicc(Picc):
    """A storage card: it takes no APDU."""

    def on_air(self, command: CommandApdu) -> Answer:
        """Refuse: a storage card knows no classes."""
        return Answer(sw=0x6E00)
