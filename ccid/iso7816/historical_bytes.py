"""The historical bytes of an ATR, parsed (ISO/IEC 7816-4:2013 12.1.1).

The first byte is the category indicator. The values 00 and 80 announce COMPACT-TLV data objects:
one byte with tag number and length, then the value. The status indicator is the last three bytes
after 00, and a data object after 80. The value 10 announces the DIR data reference. The values 81
to 8F are reserved; all other values are proprietary.

Parsing never fails: wrong historical bytes do not make a card unusable. ``warnings`` holds
violations of the standard, ``rest`` the bytes without a meaning in the standard.
"""

from __future__ import annotations

from collections.abc import Iterator
from enum import Enum, IntEnum

from ccid.ground.records import record

STATUS_AT_END, DIR_DATA_REFERENCE, COMPACT_TLV = 0x00, 0x10, 0x80
"""Category indicators."""

PCSC_STORAGE_CARD = bytes.fromhex("804F0CA000000306")
"""The first historical bytes in the ATR that a contactless reader builds for a storage card (PC/SC
part 3, 3.1.3.2.3): category indicator, and a BER-TLV object with an application identifier."""


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
    """The meanings of a life cycle status byte (ISO/IEC 7816-4:2013 7.4.10)."""

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
        """The meaning of a life cycle status byte."""
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


@record
class DataObject:
    """A COMPACT-TLV data object.

    Attributes:
        tag: Tag number, 0 to 15.
        length: The length in the header, 0 to 15 bytes.
        value: The bytes that are present, at most ``length``.
    """

    tag: int
    length: int
    value: bytes

    @property
    def header(self) -> int:
        """The first byte of the object: tag number and length."""
        return self.tag << 4 | self.length


@record
class CardServiceData:
    """The card service data byte (ISO/IEC 7816-4:2013 12.1.1, compact header 31).

    Attributes:
        byte: The byte.
    """

    byte: int

    @property
    def select_by_full_df_name(self) -> bool:
        """True if applications can be selected by full DF name (bit 8)."""
        return bool(self.byte & 0x80)

    @property
    def select_by_partial_df_name(self) -> bool:
        """True if applications can be selected by partial DF name (bit 7)."""
        return bool(self.byte & 0x40)

    @property
    def ef_dir(self) -> bool:
        """True if data objects are available in EF.DIR (bit 6)."""
        return bool(self.byte & 0x20)

    @property
    def ef_atr(self) -> bool:
        """True if data objects are available in EF.ATR (bit 5)."""
        return bool(self.byte & 0x10)

    @property
    def access(self) -> str | None:
        """The command that reads EF.DIR and EF.ATR (bits 4 to 2); None for a reserved value."""
        commands = {4: "READ BINARY", 0: "READ RECORD", 2: "GET DATA"}
        return commands.get(self.byte >> 1 & 7)

    @property
    def has_mf(self) -> bool:
        """True if the card has a master file (bit 1 is 0)."""
        return not self.byte & 0x01


@record
class CardCapabilities:
    """The software function tables (ISO/IEC 7816-4:2013 12.1.1, compact headers 71 to 73).

    Attributes:
        selection: First table: how DFs, EFs and records are selected.
        coding: Second table, the data coding byte; None without it.
        commands: Third table: command chaining, length fields, logical channels; None without
            it.
    """

    selection: int
    coding: int | None = None
    commands: int | None = None

    @property
    def write_function(self) -> str | None:
        """The behaviour of write functions: ``one-time``, ``proprietary``, ``OR`` or ``AND``; None
        without the second table."""
        if self.coding is None:
            return None
        return ("one-time", "proprietary", "OR", "AND")[self.coding >> 5 & 3]

    @property
    def data_unit_quartets(self) -> int | None:
        """Size of a data unit in quartets (half bytes); None without the second table."""
        return None if self.coding is None else 2 ** (self.coding & 0x0F)

    @property
    def command_chaining(self) -> bool | None:
        """True if the card supports command chaining (third table, bit 8); None without the third
        table."""
        return None if self.commands is None else bool(self.commands & 0x80)

    @property
    def extended_length(self) -> bool | None:
        """True if the card supports extended Lc and Le fields (third table, bit 7); None without
        the third table."""
        return None if self.commands is None else bool(self.commands & 0x40)

    @property
    def logical_channels(self) -> int | None:
        """The greatest number of logical channels (third table, bits 5 to 1): 1 for the basic
        channel alone, 8 for eight or more; None without the third table."""
        if self.commands is None:
            return None
        return (self.commands & 7) + 1 if self.commands & 0x18 else 1


@record
class StatusIndicator:
    """The status indicator (ISO/IEC 7816-4:2013 12.1.1).

    Attributes:
        lcs: Life cycle status byte; None without it.
        sw: SW1 SW2 as one number; None without it.
    """

    lcs: int | None = None
    sw: int | None = None

    @property
    def life_cycle(self) -> LifeCycle | None:
        """The meaning of ``lcs``; None without ``lcs``."""
        return None if self.lcs is None else LifeCycle.of(self.lcs)


@record
class StorageCard:
    """A storage card in a contactless reader that builds the ATR (PC/SC part 3, 3.1.3.2.3).

    Attributes:
        standard: SS, the number of the standard that the card conforms to.
        name: NN, the number of the card name.
    """

    standard: int
    name: int


@record
class Historical:
    """Parsed historical bytes.

    Attributes:
        raw: The bytes.
        category: The category indicator; None without historical bytes.
        objects: The COMPACT-TLV data objects, in the order of the ATR.
        status: The status indicator, of the last three bytes or of a data object; None without
            it.
        dir_reference: The DIR data reference; None in other categories.
        storage_card: The storage card in a contactless reader; None for other cards.
        rest: The bytes that belong to no other attribute, such as those of a proprietary category.
        warnings: Violations of the standard, in words.
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
        """Parse historical bytes (ISO/IEC 7816-4:2013 12.1.1). Parsing never fails."""
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
            found = next((o for o in objects if o.tag == Tag.STATUS_INDICATOR), None)
            status = None if found is None else _status(found.value)
            return cls(raw, category, objects, status, warnings=warnings)
        if category == DIR_DATA_REFERENCE:
            if not body:
                return cls(raw, category, warnings=("the DIR data reference is missing",))
            return cls(raw, category, dir_reference=body[0], rest=body[1:])
        return cls(raw, category, rest=body)

    def value(self, tag: int) -> bytes | None:
        """The value of the first data object with tag number ``tag``; None without such an
        object."""
        return next((o.value for o in self.objects if o.tag == tag), None)

    @property
    def proprietary(self) -> bool:
        """True if the category is proprietary: the standard does not define these bytes."""
        if self.category is None or self.category in (STATUS_AT_END, DIR_DATA_REFERENCE):
            return False
        return self.category >> 4 != 0x8

    @property
    def country_code(self) -> str | None:
        """The country code, three digits of ISO 3166-1 (compact header 12); None without it."""
        value = self.value(Tag.COUNTRY_CODE)
        return None if value is None else digits(value)

    @property
    def issuer_identification_number(self) -> str | None:
        """The issuer identification number, digits of ISO/IEC 7812-1 (compact header 2Y); None
        without it."""
        value = self.value(Tag.ISSUER_IDENTIFICATION_NUMBER)
        return None if value is None else digits(value)

    @property
    def card_service_data(self) -> CardServiceData | None:
        """The card service data byte (compact header 31); None without it."""
        value = self.value(Tag.CARD_SERVICE_DATA)
        return CardServiceData(value[0]) if value else None

    @property
    def card_capabilities(self) -> CardCapabilities | None:
        """The software function tables (compact headers 71 to 73); None without them."""
        value = self.value(Tag.CARD_CAPABILITIES)
        return CardCapabilities(*value[:3]) if value else None

    @property
    def application_identifier(self) -> bytes | None:
        """The application identifier (compact header FY); None without it."""
        return self.value(Tag.APPLICATION_IDENTIFIER)


def digits(value: bytes) -> str:
    """The quartets of ``value`` as digits, without the F that pads the last byte."""
    return value.hex().upper().rstrip("F")


def _status(value: bytes) -> StatusIndicator | None:
    """The status indicator of 1 to 3 bytes; None for another length."""
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
"""Lengths in bytes that the standard allows for the value of a data object."""


def _objects(body: bytes) -> tuple[tuple[DataObject, ...], tuple[str, ...]]:
    """The COMPACT-TLV data objects in ``body``, and warnings about them."""
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
