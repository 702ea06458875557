"""The historical bytes of an ATR in words (ISO/IEC 7816-4:2013 12.1.1)."""

from __future__ import annotations

from collections.abc import Iterator

from ccid.iso7816 import status_words
from ccid.iso7816.historical_bytes import (
    COMPACT_TLV,
    DIR_DATA_REFERENCE,
    STATUS_AT_END,
    CardCapabilities,
    CardServiceData,
    DataObject,
    Historical,
    LifeCycle,
    StatusIndicator,
    StorageCard,
    Tag,
    digits,
)
from ccid.iso7816.storage_card_names import STORAGE_NAMES, STORAGE_STANDARDS

SELECTION = (
    (0x80, "full DF name"),
    (0x40, "partial DF name"),
    (0x20, "path"),
    (0x10, "file identifier"),
    (0x08, "implicit"),
)
"""Methods to select a DF: first software function table, bits 8 to 4."""
REFERENCES = ((0x04, "short EF identifier"), (0x02, "record number"), (0x01, "record identifier"))
"""References to an EF or a record: first software function table, bits 3 to 1."""
CHANNELS = (None, "the interface device", "the card", "the interface device or the card")
"""The side that assigns logical channels: third software function table, bits 5 and 4."""


def lines(historical: Historical) -> list[str]:
    """``historical`` in words, one line for each element, then the warnings (ISO/IEC 7816-4:2013
    12.1.1)."""
    return [*_lines(historical), *(f"Warning: {warning}" for warning in historical.warnings)]


def _lines(historical: Historical) -> Iterator[str]:
    category = historical.category
    if category is None:
        return
    yield f"{category:02X} = {_category(category)}"
    if historical.storage_card is not None:
        yield from _storage_card(historical.raw, historical.storage_card)
    for o in historical.objects:
        shown = bytes((o.header,)) + o.value
        yield f"{_hex(shown)} = {_object(o)}"
        if o.tag == Tag.CARD_CAPABILITIES and o.value:
            yield from (f"  {line}" for line in _capabilities(CardCapabilities(*o.value[:3])))
    if category == STATUS_AT_END and historical.status is not None:
        yield f"{_hex(historical.raw[-3:])} = status indicator: {_status(historical.status)}"
    if historical.dir_reference is not None:
        yield f"{historical.dir_reference:02X} = DIR data reference"
    if historical.rest and not historical.proprietary:
        yield f"{_hex(historical.rest)} = no meaning in the standard"


def _hex(data: bytes) -> str:
    return data.hex(" ").upper()


def _category(category: int) -> str:
    if category == STATUS_AT_END:
        return "COMPACT-TLV objects, then a status indicator of three bytes"
    if category == COMPACT_TLV:
        return "COMPACT-TLV objects"
    if category == DIR_DATA_REFERENCE:
        return "the DIR data reference follows"
    return "a reserved category" if category >> 4 == 0x8 else "a proprietary category"


def _object(o: DataObject) -> str:
    match o.tag:
        case Tag.COUNTRY_CODE:
            return f"country code {digits(o.value)} (ISO 3166-1)"
        case Tag.ISSUER_IDENTIFICATION_NUMBER:
            return f"issuer identification number {digits(o.value)} (ISO/IEC 7812-1)"
        case Tag.CARD_SERVICE_DATA:
            service = _service(CardServiceData(o.value[0])) if o.value else "missing"
            return f"card service data: {service}"
        case Tag.INITIAL_ACCESS_DATA:
            read = (
                f": READ BINARY of {o.value[0] or 256} bytes" if o.length == 1 and o.value else ""
            )
            return f"initial access data{read}"
        case Tag.CARD_ISSUER_DATA:
            return f"card issuer's data {_printable(o.value)}"
        case Tag.PRE_ISSUING_DATA:
            return f"pre-issuing data {_printable(o.value)}"
        case Tag.CARD_CAPABILITIES:
            return "card capabilities" if o.value else "card capabilities: missing"
        case Tag.STATUS_INDICATOR:
            value = o.value
            status = StatusIndicator(
                lcs=value[0] if len(value) in (1, 3) else None,
                sw=int.from_bytes(value[-2:], "big") if len(value) in (2, 3) else None,
            )
            return f"status indicator: {_status(status)}"
        case Tag.APPLICATION_IDENTIFIER:
            return "application identifier"
    return "an object of no standard meaning"


def _printable(value: bytes) -> str:
    return repr("".join(chr(b) if 0x20 <= b < 0x7F else "." for b in value))


def _service(data: CardServiceData) -> str:
    names = [
        text
        for there, text in (
            (data.select_by_full_df_name, "full"),
            (data.select_by_partial_df_name, "partial"),
        )
        if there
    ]
    how = f"by {' and '.join(names)} DF name" if names else "implicitly only"
    files = [text for there, text in ((data.ef_dir, "EF.DIR"), (data.ef_atr, "EF.ATR")) if there]
    where = f"data objects in {' and '.join(files) or 'neither EF.DIR nor EF.ATR'}"
    by = data.access or "a reserved code"
    mf = "with MF" if data.has_mf else "without MF"
    return f"applications selected {how}; {where}; access by {by}; {mf}"


def _capabilities(tables: CardCapabilities) -> Iterator[str]:
    ways = [text for bit, text in SELECTION if tables.selection & bit]
    others = [text for bit, text in REFERENCES if tables.selection & bit]
    yield (
        f"{tables.selection:02X}: DF selection: {', '.join(ways) or 'not told'}; "
        f"{', '.join(others) or 'no short EF identifier, no records'}"
    )
    if tables.coding is not None:
        tlv = "EF of TLV structure; " if tables.coding & 0x80 else ""
        valid = "valid" if tables.coding & 0x10 else "invalid"
        quartets = tables.data_unit_quartets
        yield (
            f"{tables.coding:02X}: {tlv}write function {tables.write_function}; "
            f"FF as first byte of a BER-TLV tag {valid}; "
            f"data unit of {quartets} quartet{'' if quartets == 1 else 's'}"
        )
    if tables.commands is not None:
        chaining = "command chaining" if tables.command_chaining else "no command chaining"
        length = "extended Lc and Le" if tables.extended_length else "no extended Lc and Le"
        atr = "; extended length information in EF.ATR" if tables.commands & 0x20 else ""
        yield f"{tables.commands:02X}: {chaining}; {length}{atr}; {_channels(tables)}"


def _channels(tables: CardCapabilities) -> str:
    giver = CHANNELS[(tables.commands or 0) >> 3 & 3]
    if giver is None:
        return "no logical channels but the basic one"
    count = tables.logical_channels or 1
    most = "8 or more" if count == 8 else str(count)
    return f"up to {most} logical channel{'' if count == 1 else 's'}, given out by {giver}"


def _status(status: StatusIndicator) -> str:
    parts = []
    if status.lcs is not None:
        state = LifeCycle.of(status.lcs).value
        parts.append(f"life cycle {status.lcs:02X}, {state}")
    if status.sw is not None:
        words = status_words.explain(status.sw) if status.sw else "not reported"
        parts.append(f"SW {status.sw:04X}, {words}")
    return "; ".join(parts) or "of a length the standard does not allow"


def _storage_card(raw: bytes, card: StorageCard) -> Iterator[str]:
    yield f"{_hex(raw[1:8])} = application identifier of a storage card (PC/SC part 3)"
    yield f"{card.standard:02X} = {STORAGE_STANDARDS.get(card.standard, 'another standard')}"
    yield f"{_hex(raw[9:11])} = {STORAGE_NAMES.get(card.name, 'another card')}"
