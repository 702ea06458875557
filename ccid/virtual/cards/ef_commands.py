"""The commands that read and update EFs: ISO/IEC 7816-4:2013 11.2 and 11.3."""

from __future__ import annotations

from enum import IntEnum

from ccid.iso7816.apdu import CommandApdu
from ccid.virtual.cards import tlv
from ccid.virtual.cards.application import Answer
from ccid.virtual.cards.card_files import ElementaryFile, RecordFile, TransparentFile
from ccid.virtual.cards.interindustry import Refused, Sw
from ccid.virtual.cards.selection import Occurrence, Selection

OFFSET, DISCRETIONARY_DATA = 0x54, 0x53
"""Tags of the data objects of commands with an odd INS (ISO/IEC 7816-4:2013 11.2.2)."""

REFERENCE = 0x07
"""b3 to b1 of P2 of a record command: how P1 refers to the record. b8 to b4 name the EF."""
BY_NUMBER = 0x04
"""b3: P1 is a record number, and the record pointer does not move."""


class Records(IntEnum):
    """b3 to b1 of P2 of a record command with b3 = 1 (ISO/IEC 7816-4:2013 11.3.3)."""

    THIS = 4
    THIS_TO_LAST = 5
    LAST_TO_THIS = 6


def _expect_no_data(command: CommandApdu) -> None:
    if command.data or not command.ne:
        raise Refused(Sw.WRONG_LENGTH)


def _expect_data(command: CommandApdu) -> None:
    if not command.data:
        raise Refused(Sw.WRONG_LENGTH)


def _read(command: CommandApdu, data: bytes, most: int) -> Answer:
    """The answer with ``data``: a warning if ``data`` are shorter than a definite Le field.

    An Le field of zeros asks for all data.
    """
    everything = command.ne == (65536 if command.extended else 256)
    return Answer(data, Sw.OK if everything or len(data) >= most else Sw.END_REACHED)


def _values(data: bytes, *tags: int) -> list[bytes]:
    """The values of the data objects in ``data``, which must have exactly these tags."""
    try:
        objects = tlv.decode(data)
    except ValueError:
        raise Refused(Sw.INCORRECT_DATA) from None
    if [tag for tag, _ in objects] != list(tags):
        raise Refused(Sw.INCORRECT_DATA)
    return [value for _, value in objects]


class DataUnitCommands:
    """READ BINARY and UPDATE BINARY."""

    def __init__(self, selection: Selection) -> None:
        self._selection = selection

    def _unit(self, command: CommandApdu) -> tuple[ElementaryFile, int]:
        """EF and offset by P1-P2 of an even INS (ISO/IEC 7816-4:2013 11.2.2)."""
        if not command.p1 & 0x80:
            return self._selection.by_sfi(0), command.p1 << 8 | command.p2
        if command.p1 & 0x60:
            raise Refused(Sw.INCORRECT_P1_P2)
        return self._selection.by_sfi(command.p1 & 0x1F), command.p2

    def read(self, command: CommandApdu) -> Answer:
        """READ BINARY (ISO/IEC 7816-4:2013 11.2.3)."""
        _expect_no_data(command)
        ef, offset = self._unit(command)
        return _read(command, self._part(ef, offset, command.ne), command.ne)

    def read_odd(self, command: CommandApdu) -> Answer:
        """READ BINARY with offset data object (ISO/IEC 7816-4:2013 11.2.3)."""
        if command.ne < len(tlv.encode(DISCRETIONARY_DATA, b"\0")):
            raise Refused(Sw.WRONG_LENGTH)
        (offset,) = _values(command.data, OFFSET)
        ef = self._selection.by_p1_p2(command.p1 << 8 | command.p2)
        part = self._part(ef, int.from_bytes(offset, "big"), tlv.room(command.ne))
        answer = _read(command, part, tlv.room(command.ne))
        return Answer(tlv.encode(DISCRETIONARY_DATA, part), answer.sw)

    def _part(self, ef: ElementaryFile, offset: int, length: int) -> bytes:
        file = self._selection.permit(ef, TransparentFile, ef.read)
        if offset >= file.size:
            raise Refused(Sw.WRONG_P1_P2)
        self._selection.enter(file)
        return bytes(file.data[offset : offset + length])

    def update(self, command: CommandApdu) -> Answer:
        """UPDATE BINARY (ISO/IEC 7816-4:2013 11.2.5)."""
        _expect_data(command)
        ef, offset = self._unit(command)
        return self._write(ef, offset, command.data)

    def update_odd(self, command: CommandApdu) -> Answer:
        """UPDATE BINARY with data objects for offset and data (ISO/IEC 7816-4:2013 11.2.5)."""
        _expect_data(command)
        offset, data = _values(command.data, OFFSET, DISCRETIONARY_DATA)
        if not data:
            raise Refused(Sw.INCORRECT_DATA)
        ef = self._selection.by_p1_p2(command.p1 << 8 | command.p2)
        return self._write(ef, int.from_bytes(offset, "big"), data)

    def _write(self, ef: ElementaryFile, offset: int, data: bytes) -> Answer:
        file = self._selection.permit(ef, TransparentFile, ef.update)
        if offset >= file.size:
            raise Refused(Sw.WRONG_P1_P2)
        if offset + len(data) > file.size:
            raise Refused(Sw.NOT_ENOUGH_MEMORY)
        file.data[offset : offset + len(data)] = data
        self._selection.enter(file)
        return Answer()


class RecordCommands:
    """READ RECORD, UPDATE RECORD and APPEND RECORD.

    A command refers to a record by number, by the record pointer, or as the first, last, next or
    previous record; not by a record identifier.
    """

    def __init__(self, selection: Selection) -> None:
        self._selection = selection

    def _ef(self, command: CommandApdu) -> ElementaryFile:
        """b8 to b4 of P2 (ISO/IEC 7816-4:2013 11.3.2)."""
        return self._selection.by_sfi(command.p2 >> 3)

    def _pointer(self, command: CommandApdu) -> int:
        """The record pointer; a short EF identifier resets it."""
        return 0 if command.p2 >> 3 else self._selection.record

    def _number(self, command: CommandApdu, ef: RecordFile) -> int:
        """The number of the record that P1-P2 mean (ISO/IEC 7816-4:2013 11.3.2)."""
        p1, reference, last = command.p1, command.p2 & REFERENCE, len(ef.records)
        pointer = self._pointer(command)
        if p1 == 0xFF:
            raise Refused(Sw.INCORRECT_P1_P2)
        if reference & BY_NUMBER:
            number = p1 or pointer
        elif p1:
            raise Refused(Sw.FUNCTION_NOT_SUPPORTED)
        else:
            match reference:
                case Occurrence.FIRST:
                    number = 1
                case Occurrence.NEXT:
                    number = pointer + 1
                case Occurrence.PREVIOUS if pointer:
                    number = pointer - 1
                case _:
                    number = last
        if not 1 <= number <= last:
            raise Refused(Sw.RECORD_NOT_FOUND)
        return number

    def _finish(self, command: CommandApdu, ef: RecordFile, number: int) -> None:
        """Make ``ef`` current; and the record, unless P1 is a record number."""
        by_number = command.p2 & BY_NUMBER
        self._selection.enter(ef, self._pointer(command) if by_number else number)

    def read(self, command: CommandApdu) -> Answer:
        """READ RECORD (ISO/IEC 7816-4:2013 11.3.3)."""
        _expect_no_data(command)
        reference = command.p2 & REFERENCE
        if reference not in (*Occurrence, *Records):
            raise Refused(Sw.INCORRECT_P1_P2)
        ef = self._ef(command)
        file = self._selection.permit(ef, RecordFile, ef.read)
        number = self._number(command, file)
        records = file.records[number - 1 :]
        match reference:
            case Records.THIS_TO_LAST:
                pass
            case Records.LAST_TO_THIS:
                records.reverse()
            case _:
                records = records[:1]
        self._finish(command, file, number)
        return _read(command, b"".join(records), command.ne)

    def update(self, command: CommandApdu) -> Answer:
        """UPDATE RECORD (ISO/IEC 7816-4:2013 11.3.5).

        Updating the previous record of a cyclic EF adds a record, as APPEND RECORD does.
        """
        _expect_data(command)
        reference = command.p2 & REFERENCE
        if reference not in (*Occurrence, Records.THIS):
            raise Refused(Sw.INCORRECT_P1_P2)
        ef = self._ef(command)
        file = self._selection.permit(ef, RecordFile, ef.update)
        if file.structure.is_cyclic and reference == Occurrence.PREVIOUS and not command.p1:
            number = file.append(command.data)
        else:
            number = self._number(command, file)
            file.write(number, command.data)
        self._finish(command, file, number)
        return Answer()

    def append(self, command: CommandApdu) -> Answer:
        """APPEND RECORD (ISO/IEC 7816-4:2013 11.3.6): the new record becomes current."""
        _expect_data(command)
        if command.p1 or command.p2 & REFERENCE:
            raise Refused(Sw.INCORRECT_P1_P2)
        ef = self._ef(command)
        file = self._selection.permit(ef, RecordFile, ef.update)
        self._finish(command, file, file.append(command.data))
        return Answer()
