"""The historical bytes of an ATR: ISO/IEC 7816-4:2013 12.1.1.

The first is the category indicator. After 00 and 80 come COMPACT-TLV data objects, each a byte of
tag number and length and then the value; after 00 the last three bytes are a status indicator,
after 80 it is an object like the others. After 10 comes the DIR data reference. 81 to 8F are
reserved, and all else is the issuer's own affair.

Nothing here is an error: a card is not worse for what it tells of itself. What does not fit is
told in ``warnings``, and what is left over in ``rest``.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from enum import Enum, IntEnum

STATUS_AT_END, DIR_DATA_REFERENCE, COMPACT_TLV = 0x00, 0x10, 0x80
"""Category indicators."""

PCSC_STORAGE_CARD = bytes.fromhex("804F0CA000000306")
"""How the historical bytes begin that a contactless reader makes up for a storage card (PC/SC
part 3, 3.1.3.2.3): an application identifier, written as BER-TLV."""


class Tag(IntEnum):
    """Tag numbers of the COMPACT-TLV objects (ISO/IEC 7816-4:2013 12.1.1)."""

    COUNTRY_CODE = 0x1
    ISSUER_IDENTIFICATION_NUMBER = 0x2
    CARD_SERVICE_DATA = 0x3
    INITIAL_ACCESS_DATA = 0x4
    CARD_ISSUER_DATA = 0x5
    PRE_ISSUING_DATA = 0x6
    CARD_CAPABILITIES = 0x7
    STATUS_INDICATOR = 0x8
    APPLICATION_IDENTIFIER = 0xF


class LifeCycle(Enum):
    """What a life cycle status byte says (ISO/IEC 7816-4:2013 7.4.10)."""

    NOT_REPORTED = "not reported"
    CREATION = "creation state"
    INITIALISATION = "initialisation state"
    DEACTIVATED = "operational state, deactivated"
    ACTIVATED = "operational state, activated"
    TERMINATION = "termination state"
    PROPRIETARY = "proprietary"
    RESERVED = "reserved"

    @classmethod
    def of(cls, lcs: int) -> LifeCycle:
        """The state that a life cycle status byte codes."""
        if lcs > 0x0F:
            return cls.PROPRIETARY
        known = {0: cls.NOT_REPORTED, 1: cls.CREATION, 3: cls.INITIALISATION}
        if lcs in known:
            return known[lcs]
        if lcs & 0x0C == 0x0C:
            return cls.TERMINATION
        if lcs & 0x0C == 0x04:
            return cls.ACTIVATED if lcs & 1 else cls.DEACTIVATED
        return cls.RESERVED


@dataclass(frozen=True, slots=True)
class DataObject:
    """A COMPACT-TLV data object.

    Attributes:
        tag: Tag number, 0 to 15.
        length: The length it announces, 0 to 15.
        value: The bytes that are there, at most ``length``.
    """

    tag: int
    length: int
    value: bytes

    @property
    def header(self) -> int:
        """The byte that the object begins with."""
        return self.tag << 4 | self.length


@dataclass(frozen=True, slots=True)
class CardServiceData:
    """The card service data byte (ISO/IEC 7816-4:2013 12.1.1, compact header 31).

    Attributes:
        byte: The byte as it is.
    """

    byte: int

    @property
    def select_by_full_df_name(self) -> bool:
        """Applications can be selected by full DF name (bit 8)."""
        return bool(self.byte & 0x80)

    @property
    def select_by_partial_df_name(self) -> bool:
        """Applications can be selected by partial DF name (bit 7)."""
        return bool(self.byte & 0x40)

    @property
    def ef_dir(self) -> bool:
        """Data objects are available in EF.DIR (bit 6)."""
        return bool(self.byte & 0x20)

    @property
    def ef_atr(self) -> bool:
        """Data objects are available in EF.ATR (bit 5)."""
        return bool(self.byte & 0x10)

    @property
    def access(self) -> str | None:
        """The command that reads EF.DIR and EF.ATR (bits 4 to 2); None for a reserved value."""
        commands = {4: "READ BINARY", 0: "READ RECORD", 2: "GET DATA"}
        return commands.get(self.byte >> 1 & 7)

    @property
    def has_mf(self) -> bool:
        """The card has a master file (bit 1 is 0)."""
        return not self.byte & 0x01


@dataclass(frozen=True, slots=True)
class CardCapabilities:
    """The software function tables (ISO/IEC 7816-4:2013 12.1.1, compact headers 71 to 73).

    Attributes:
        selection: First table: how DFs, EFs and records are selected.
        coding: Second table, the data coding byte; None if it is not told.
        commands: Third table: command chaining, length fields, logical channels; None if it is
            not told.
    """

    selection: int
    coding: int | None = None
    commands: int | None = None

    @property
    def write_function(self) -> str | None:
        """What a write does: ``one-time``, ``proprietary``, ``OR`` or ``AND``."""
        if self.coding is None:
            return None
        return ("one-time", "proprietary", "OR", "AND")[self.coding >> 5 & 3]

    @property
    def data_unit_quartets(self) -> int | None:
        """Size of a data unit, in quartets (half bytes)."""
        return None if self.coding is None else 2 ** (self.coding & 0x0F)

    @property
    def command_chaining(self) -> bool | None:
        """Commands may be chained (third table, bit 8)."""
        return None if self.commands is None else bool(self.commands & 0x80)

    @property
    def extended_length(self) -> bool | None:
        """Extended Lc and Le fields are understood (third table, bit 7)."""
        return None if self.commands is None else bool(self.commands & 0x40)

    @property
    def logical_channels(self) -> int | None:
        """The most logical channels there can be, 8 for eight or more; 1 without any but the
        basic one (third table, bits 5 to 1)."""
        if self.commands is None:
            return None
        return (self.commands & 7) + 1 if self.commands & 0x18 else 1


@dataclass(frozen=True, slots=True)
class StatusIndicator:
    """The status indicator (ISO/IEC 7816-4:2013 12.1.1).

    Attributes:
        lcs: Life cycle status byte; None if it is not told.
        sw: SW1 SW2 as one number; None if it is not told.
    """

    lcs: int | None = None
    sw: int | None = None

    @property
    def life_cycle(self) -> LifeCycle | None:
        """The state that ``lcs`` codes."""
        return None if self.lcs is None else LifeCycle.of(self.lcs)


@dataclass(frozen=True, slots=True)
class StorageCard:
    """A memory card behind a contactless reader, which made up the ATR (PC/SC part 3).

    Attributes:
        standard: SS, the standard the card keeps.
        name: NN, the number of its name.
    """

    standard: int
    name: int


@dataclass(frozen=True, slots=True)
class Historical:
    """Historical bytes, taken apart.

    Attributes:
        raw: The bytes.
        category: The category indicator; None without historical bytes.
        objects: The COMPACT-TLV objects, in the card's order.
        status: The status indicator, wherever it stood; None without it.
        dir_reference: The DIR data reference; None in other categories.
        storage_card: What a contactless reader tells of a storage card.
        rest: What belongs to none of these: all of a proprietary category.
        warnings: What does not fit.
    """

    raw: bytes
    category: int | None = None
    objects: tuple[DataObject, ...] = ()
    status: StatusIndicator | None = None
    dir_reference: int | None = None
    storage_card: StorageCard | None = None
    rest: bytes = b""
    warnings: tuple[str, ...] = ()

    @classmethod
    def parse(cls, raw: bytes) -> Historical:
        """Take historical bytes apart; any bytes will do."""
        raw = bytes(raw)
        if not raw:
            return cls(raw)
        category, body = raw[0], raw[1:]
        if category == STATUS_AT_END:
            if len(body) < 3:
                short = f"a status indicator of 3 bytes should end them, {len(body)} are there"
                return cls(raw, category, rest=body, warnings=(short,))
            objects, warnings = _objects(body[:-3])
            return cls(raw, category, objects, _status(body[-3:]), warnings=warnings)
        if category == COMPACT_TLV:
            if raw.startswith(PCSC_STORAGE_CARD) and len(raw) >= 11:
                card = StorageCard(raw[8], int.from_bytes(raw[9:11], "big"))
                return cls(raw, category, storage_card=card, rest=raw[11:])
            objects, warnings = _objects(body)
            status = next((o for o in objects if o.tag == Tag.STATUS_INDICATOR), None)
            told = None if status is None else _status(status.value)
            return cls(raw, category, objects, told, warnings=warnings)
        if category == DIR_DATA_REFERENCE:
            if not body:
                return cls(raw, category, warnings=("the DIR data reference is missing",))
            return cls(raw, category, dir_reference=body[0], rest=body[1:])
        return cls(raw, category, rest=body)

    def value(self, tag: int) -> bytes | None:
        """The value of the first object with a tag number; None without one."""
        return next((o.value for o in self.objects if o.tag == tag), None)

    @property
    def proprietary(self) -> bool:
        """The category is the issuer's own: these bytes keep no standard."""
        if self.category is None or self.category in (STATUS_AT_END, DIR_DATA_REFERENCE):
            return False
        return self.category >> 4 != 0x8

    @property
    def country_code(self) -> str | None:
        """Country code, three digits of ISO 3166-1 (compact header 12)."""
        value = self.value(Tag.COUNTRY_CODE)
        return None if value is None else digits(value)

    @property
    def issuer_identification_number(self) -> str | None:
        """Issuer identification number, digits of ISO/IEC 7812-1 (compact header 2Y)."""
        value = self.value(Tag.ISSUER_IDENTIFICATION_NUMBER)
        return None if value is None else digits(value)

    @property
    def card_service_data(self) -> CardServiceData | None:
        """The card service data byte (compact header 31)."""
        value = self.value(Tag.CARD_SERVICE_DATA)
        return CardServiceData(value[0]) if value else None

    @property
    def card_capabilities(self) -> CardCapabilities | None:
        """The software function tables (compact headers 71 to 73)."""
        value = self.value(Tag.CARD_CAPABILITIES)
        return CardCapabilities(*value[:3]) if value else None

    @property
    def application_identifier(self) -> bytes | None:
        """Application identifier (compact header FY)."""
        return self.value(Tag.APPLICATION_IDENTIFIER)


def digits(value: bytes) -> str:
    """Quartets as digits, without the F that fills up the last byte."""
    return value.hex().upper().rstrip("F")


def _status(value: bytes) -> StatusIndicator | None:
    match len(value):
        case 1:
            return StatusIndicator(lcs=value[0])
        case 2:
            return StatusIndicator(sw=int.from_bytes(value, "big"))
        case 3:
            return StatusIndicator(value[0], int.from_bytes(value[1:], "big"))
    return None


LENGTHS: dict[int, tuple[int, ...]] = {
    Tag.COUNTRY_CODE: (2,),
    Tag.CARD_SERVICE_DATA: (1,),
    Tag.CARD_CAPABILITIES: (1, 2, 3),
    Tag.STATUS_INDICATOR: (1, 2, 3),
}
"""Lengths that the standard allows, where it fixes them."""


def _objects(body: bytes) -> tuple[tuple[DataObject, ...], tuple[str, ...]]:
    """The COMPACT-TLV objects in ``body``, and what does not fit."""
    found, warnings = list(_split(body)), []
    for o in found:
        allowed = LENGTHS.get(o.tag)
        if len(o.value) < o.length:
            warnings.append(
                f"object {o.header:02X} announces {o.length} bytes, {len(o.value)} are there"
            )
        elif allowed is not None and o.length not in allowed:
            warnings.append(f"object {o.header:02X} has a length the standard does not allow")
    return tuple(found), tuple(warnings)


def _split(body: bytes) -> Iterator[DataObject]:
    offset = 0
    while offset < len(body):
        tag, length = body[offset] >> 4, body[offset] & 0x0F
        yield DataObject(tag, length, body[offset + 1 : offset + 1 + length])
        offset += 1 + length
