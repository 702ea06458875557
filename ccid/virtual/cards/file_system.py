"""A virtual card with a file system and passwords, after ISO/IEC 7816-4:2013."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from dataclasses import replace
from enum import IntEnum

from ccid.errors import MalformedAtr
from ccid.iso7816.apdu import CommandApdu
from ccid.iso7816.atr import Atr
from ccid.virtual.cards import tlv
from ccid.virtual.cards.application import DONE, Answer, Application
from ccid.virtual.cards.card_files import APPLICATION_IDENTIFIER, DedicatedFile, File
from ccid.virtual.cards.ef_commands import DataUnitCommands, RecordCommands
from ccid.virtual.cards.interindustry import CHAINING, Ins, Refused, Sw, joined
from ccid.virtual.cards.passwords import Password
from ccid.virtual.cards.sample_files import (
    CARD_CAPABILITIES,
    CARD_SERVICE_DATA,
    sample_master_file,
)
from ccid.virtual.cards.selection import Occurrence, SelectBy, Selection

# The class byte (ISO/IEC 7816-4:2013 5.4.1)
SECURE_MESSAGING = 0x0C
CHANNEL = 0x03
FURTHER_CHANNELS = range(0x40, 0x80)

MAX_CHAINED = 65535
"""Bytes of data of a whole command chain."""

# Tables for speed: every SELECT uses them, and a call of an enumeration takes 0.5 us.
WAYS_TO_SELECT = {int(way): way for way in SelectBy}
OCCURRENCES = tuple(Occurrence)

FCP_TEMPLATE, FMD_TEMPLATE, FCI_TEMPLATE = 0x62, 0x64, 0x6F
"""Tags of the templates of control information (ISO/IEC 7816-4:2013 7.4.1)."""

CATEGORY_COMPACT_TLV = 0x80
"""Category indicator byte: the historical bytes are COMPACT-TLV data objects (12.1.1)."""
ATR_BYTES, HISTORICAL_BYTES = 0x5F51, 0x5F52


class Information(IntEnum):
    """b4 b3 of P2 of SELECT: the information to return (ISO/IEC 7816-4:2013 11.1.1)."""

    FCI = 0x00
    FCP = 0x04
    FMD = 0x08
    NONE = 0x0C


class FileSystemCard(Application):
    """A card with files. A reset keeps the files and ends selection and verification.

    The card carries out SELECT, READ and UPDATE BINARY (with even and odd INS), READ, UPDATE and
    APPEND RECORD, VERIFY, CHANGE REFERENCE DATA, RESET RETRY COUNTER, GET CHALLENGE and GET
    DATA, with short and extended length fields and command chaining, on the basic channel.

    A verified password stays verified while the current DF is the password's DF or a DF below,
    and until the password's DF is selected again by name.

    Args:
        atr: The answer to reset. The default offers T=0 and T=1, and its historical bytes
            announce the abilities of the card with the sample files.
        master_file: The MF with all files; by default
            :func:`~ccid.virtual.cards.sample_files.sample_master_file`.
        rng: The source of GET CHALLENGE's bytes; the default gives the same bytes every time.
    """

    # T=0 and T=1, TA1 = 96, IFSC 254, BWI 4, CWI 5, clock stop, classes A, B and C. COMPACT-TLV
    # historical bytes: card service data, card capabilities, status (activated, 9000). TCK.
    atr = (
        bytes.fromhex("3B9B96 80B1FE45 1FC7 80")
        + bytes((0x31, CARD_SERVICE_DATA, 0x73, *CARD_CAPABILITIES))
        + bytes.fromhex("83059000 4C")
    )

    def __init__(
        self,
        atr: bytes | None = None,
        *,
        master_file: DedicatedFile | None = None,
        rng: random.Random | None = None,
    ) -> None:
        super().__init__(atr)
        self.master_file = master_file or sample_master_file()
        self._selection = Selection(self.master_file)
        self._rng = rng or random.Random(0)
        self._chain: CommandApdu | None = None
        units, records = DataUnitCommands(self._selection), RecordCommands(self._selection)
        self._handlers: dict[int, Callable[[CommandApdu], Answer]] = {
            Ins.SELECT: self._select,
            Ins.MANAGE_CHANNEL: self._manage_channel,
            Ins.READ_BINARY: units.read,
            Ins.READ_BINARY_ODD: units.read_odd,
            Ins.UPDATE_BINARY: units.update,
            Ins.UPDATE_BINARY_ODD: units.update_odd,
            Ins.READ_RECORD: records.read,
            Ins.UPDATE_RECORD: records.update,
            Ins.APPEND_RECORD: records.append,
            Ins.GET_DATA: self._get_data,
            Ins.VERIFY: self._verify,
            Ins.CHANGE_REFERENCE_DATA: self._change_reference_data,
            Ins.RESET_RETRY_COUNTER: self._reset_retry_counter,
            Ins.GET_CHALLENGE: self._get_challenge,
            Ins.GET_RESPONSE: self._get_response,
        }

    def reset(self) -> None:
        super().reset()
        self._selection.reset()
        self._chain = None

    def transmit(self, apdu: bytes) -> Answer:
        """Carry out a command APDU; return at most Ne bytes of response data."""
        answer = super().transmit(apdu)
        if not answer.data:
            return answer
        return replace(answer, data=answer.data[: CommandApdu.parse(apdu).ne])

    def process(self, command: CommandApdu) -> Answer:
        try:
            if command.cla:
                _check_class(command.cla)
            whole = self._chained(command)
            return DONE if whole is None else self._handlers[whole.ins](whole)
        except Refused as refusal:
            self._chain = None
            return Answer(sw=refusal.sw)

    def _chained(self, command: CommandApdu) -> CommandApdu | None:
        """The command with the data of its whole chain; None before the last part.

        ISO/IEC 7816-4:2013 5.3.3.
        """
        begun, self._chain = self._chain, None
        if begun is not None and begun.header[1:] != command.header[1:]:
            raise Refused(Sw.LAST_COMMAND_EXPECTED)
        if command.ins not in self._handlers:
            raise Refused(Sw.INS_NOT_SUPPORTED)
        if begun is None and not command.cla & CHAINING:
            return command
        whole = joined(begun, command, MAX_CHAINED)
        if not command.cla & CHAINING:
            return whole
        self._chain = whole
        return None

    # Selection --------------------------------------------------------------------------------

    def _select(self, command: CommandApdu) -> Answer:
        """SELECT (ISO/IEC 7816-4:2013 11.1.1)."""
        by, p2 = WAYS_TO_SELECT.get(command.p1), command.p2
        if by is None or p2 & 0xF0:
            raise Refused(Sw.INCORRECT_P1_P2)
        file = self._selection.select(by, command.data, OCCURRENCES[p2 & 0x03])
        return Answer(_information(file, Information(p2 & 0x0C))) if command.ne else DONE

    def _manage_channel(self, command: CommandApdu) -> Answer:
        """MANAGE CHANNEL (ISO/IEC 7816-4:2013 11.1.2): the card has the basic channel only."""
        return Answer(sw=Sw.CHANNEL_NOT_SUPPORTED)

    # Data objects -----------------------------------------------------------------------------

    def _get_data(self, command: CommandApdu) -> Answer:
        """GET DATA (ISO/IEC 7816-4:2013 11.4.3): the value of the data object P1-P2."""
        if command.data or not command.ne:
            raise Refused(Sw.WRONG_LENGTH)
        value = self._data_object(command.p1 << 8 | command.p2)
        if not value:
            raise Refused(Sw.REFERENCED_DATA_NOT_FOUND)
        return Answer(value)

    def _data_object(self, tag: int) -> bytes | None:
        """The value in the current DF, in a DF above, or in the ATR; None if there is none."""
        df = self._selection.df
        for above in df.path():
            if tag in above.data_objects:
                return above.data_objects[tag]
        historical = _historical_bytes(self.atr)
        own = {
            APPLICATION_IDENTIFIER: df.name,
            ATR_BYTES: self.atr,
            HISTORICAL_BYTES: historical,
            **dict(_compact_objects(historical)),
        }
        return own.get(tag)

    # Security ---------------------------------------------------------------------------------

    def _password(self, command: CommandApdu) -> Password:
        """The password that the qualifier P2 names in the current DF (7816-4:2013 11.5.1)."""
        if command.p2 & 0x60:
            raise Refused(Sw.INCORRECT_P1_P2)
        password = self._selection.df.password(command.p2)
        if password is None:
            raise Refused(Sw.REFERENCED_DATA_NOT_FOUND)
        return password

    def _verify(self, command: CommandApdu) -> Answer:
        self._selection.security.verify(self._password(command), command.p1, command.data)
        return DONE

    def _change_reference_data(self, command: CommandApdu) -> Answer:
        self._selection.security.change(self._password(command), command.p1, command.data)
        return DONE

    def _reset_retry_counter(self, command: CommandApdu) -> Answer:
        self._selection.security.reset_counter(self._password(command), command.p1, command.data)
        return DONE

    def _get_challenge(self, command: CommandApdu) -> Answer:
        """GET CHALLENGE (ISO/IEC 7816-4:2013 11.5.3): Ne random bytes."""
        if command.p1 or command.p2:
            raise Refused(Sw.INCORRECT_P1_P2)
        if command.data or not command.ne:
            raise Refused(Sw.WRONG_LENGTH)
        return Answer(self._rng.randbytes(command.ne))

    def _get_response(self, command: CommandApdu) -> Answer:
        """GET RESPONSE (ISO/IEC 7816-4:2013 11.7.1): the card has no response data waiting."""
        return Answer(sw=Sw.CONDITIONS_OF_USE_NOT_SATISFIED)


def _check_class(cla: int) -> None:
    """Refuse all but an interindustry class without secure messaging on the basic channel."""
    if cla in FURTHER_CHANNELS:
        raise Refused(Sw.CHANNEL_NOT_SUPPORTED)
    if cla & ~(CHAINING | SECURE_MESSAGING | CHANNEL):
        raise Refused(Sw.CLA_NOT_SUPPORTED)
    if cla & CHANNEL:
        raise Refused(Sw.CHANNEL_NOT_SUPPORTED)
    if cla & SECURE_MESSAGING:
        raise Refused(Sw.SECURE_MESSAGING_NOT_SUPPORTED)


def _information(file: File, what: Information) -> bytes:
    """Control information about a file (ISO/IEC 7816-4:2013 7.4.1)."""
    match what:
        case Information.FCI:
            both = file.control_parameters() + file.management_data()
            return tlv.encode(FCI_TEMPLATE, both)
        case Information.FCP:
            return tlv.encode(FCP_TEMPLATE, file.control_parameters())
        case Information.FMD:
            return tlv.encode(FMD_TEMPLATE, file.management_data())
        case Information.NONE:
            return b""


def _historical_bytes(atr: bytes) -> bytes:
    try:
        return Atr.parse(atr).historical
    except MalformedAtr:
        return b""


def _compact_objects(historical: bytes) -> Iterator[tuple[int, bytes]]:
    """Tags and values of COMPACT-TLV historical bytes (ISO/IEC 7816-4:2013 12.1.1)."""
    if historical[:1] != bytes((CATEGORY_COMPACT_TLV,)):
        return
    offset = 1
    while offset < len(historical):
        header = historical[offset]
        end = offset + 1 + (header & 0x0F)
        yield 0x40 | header >> 4, historical[offset + 1 : end]
        offset = end
