"""``ccid-probe atr``: explain ATRs."""

from __future__ import annotations

import argparse
import os
from collections.abc import Iterator, Sequence
from typing import Any

from ccid.errors import MalformedAtr
from ccid.ground.hexadecimal import joined, mentioned
from ccid.iso7816.atr import Atr
from ccid.iso7816.atr_text import CLASSES, CLOCK_STOP
from ccid.iso7816.historical_bytes import Historical
from ccid.probe import card_names
from ccid.probe.atr_list import Entry, NotHexadecimal, parse, read
from ccid.probe.reader_choice import note, print_json, say


def run(options: argparse.Namespace) -> int:
    """Explain every ATR. Exit status 1 if an ATR is malformed, 2 if a text is not hexadecimal."""
    try:
        there = list(found(options.atr))
    except NotHexadecimal as error:
        note(f"atr: {error}")
        return 2
    parsed = [(file, entry, _parsed(entry)) for file, entry in there]
    if options.json:
        print_json("atr", atrs=[as_json(*one) for one in parsed])
    else:
        for index, (file, entry, atr) in enumerate(parsed):
            if index:
                say()
            describe(file, entry, atr)
    return int(any(isinstance(atr, MalformedAtr) for _, _, atr in parsed))


def found(words: Sequence[str]) -> Iterator[tuple[str | None, Entry]]:
    """The ATRs that the words name, each with its file. Words of one byte each are one ATR.

    Raises:
        OSError: A file cannot be read.
        NotHexadecimal: A word is neither a file nor hexadecimal, or a line is not hexadecimal.
    """
    for word in joined(words):
        try:
            entry = parse(word)
        except NotHexadecimal as error:
            if word != "-" and not os.path.exists(word):
                raise NotHexadecimal(
                    f"{mentioned(word)} is no file, and no ATR: {error}", error.position
                ) from None
            yield from ((word, entry) for entry in read(word))
        else:
            yield None, entry


def _parsed(entry: Entry) -> Atr | MalformedAtr:
    try:
        return Atr.parse(entry.raw)
    except MalformedAtr as error:
        return error


def describe(file: str | None, entry: Entry, atr: Atr | MalformedAtr) -> None:
    """Print one ATR with its explanation."""
    say(f"ATR: {entry.raw.hex(' ').upper()}")
    if entry.pattern:
        say(f"  the lowest of {entry.text}")
    for line in entry.description:
        say(f"  # {line}")
    if isinstance(atr, MalformedAtr):
        where = "" if file is None else f"{file}: line {entry.line}: "
        say(f"  malformed: {atr}")
        note(f"atr: {where}malformed: {atr}")
        return
    for line in atr.explain().splitlines():
        say(f"  {line}")
    for line in _cards(entry):
        say(f"  Card: {line}")


def _cards(entry: Entry) -> tuple[str, ...]:
    """What the machine's list of ATRs says of the cards with this ATR. Nothing is asked where the
    ATR stands in a list itself, or is a pattern."""
    return () if entry.pattern or entry.description else card_names.names(entry.raw)


def as_json(file: str | None, entry: Entry, atr: Atr | MalformedAtr) -> dict[str, Any]:
    """One ATR of ``atr --json``."""
    malformed = isinstance(atr, MalformedAtr)
    return {
        "raw": entry.raw.hex().upper(),
        "file": file,
        "line": entry.line or None,
        "pattern": entry.text if entry.pattern else None,
        "description": list(entry.description),
        "cards": [] if malformed else list(_cards(entry)),
        "malformed": str(atr) if malformed else None,
        "atr": None if isinstance(atr, MalformedAtr) else _atr(atr),
    }


def _atr(atr: Atr) -> dict[str, Any]:
    x, y = atr.clock_stop, atr.classes
    return {
        "convention": "inverse" if atr.inverse else "direct",
        "interface_bytes": [
            {"name": name, "value": value, "T": group.t}
            for group in atr.groups
            for name, value in group.items()
        ],
        "Fi": atr.fi,
        "Di": atr.di,
        "fmax_mhz": atr.fmax_mhz,
        "N": atr.extra_guard_time,
        "protocols": list(atr.protocols),
        "default_protocol": atr.default_protocol,
        "specific_mode": atr.specific_mode,
        "can_change_mode": atr.can_change_mode,
        "implicit_parameters": atr.implicit_parameters,
        "WI": atr.wi,
        "IFSC": atr.ifsc,
        "BWI": atr.bwi,
        "CWI": atr.cwi,
        "error_detection": "CRC" if atr.crc else "LRC",
        "clock_stop": None if x is None else CLOCK_STOP[x],
        "classes": None if y is None else [text[0] for bit, text in CLASSES if y & bit],
        "SPU": atr.spu,
        "historical": _historical(atr.historical_data),
        "TCK": atr.tck,
        "TCK_right": atr.tck_right,
        "warnings": list(atr.warnings),
        "explanation": atr.explain().splitlines(),
    }


def _historical(data: Historical) -> dict[str, Any]:
    service, tables, status = data.card_service_data, data.card_capabilities, data.status
    aid, card = data.application_identifier, data.storage_card
    state = None if status is None else status.life_cycle
    return {
        "raw": data.raw.hex().upper(),
        "category": data.category,
        "objects": [
            {"tag": o.tag, "length": o.length, "value": o.value.hex().upper()} for o in data.objects
        ],
        "country_code": data.country_code,
        "issuer_identification_number": data.issuer_identification_number,
        "card_service_data": None
        if service is None
        else {
            "byte": service.byte,
            "select_by_full_df_name": service.select_by_full_df_name,
            "select_by_partial_df_name": service.select_by_partial_df_name,
            "ef_dir": service.ef_dir,
            "ef_atr": service.ef_atr,
            "access": service.access,
            "has_mf": service.has_mf,
        },
        "card_capabilities": None
        if tables is None
        else {
            "selection": tables.selection,
            "coding": tables.coding,
            "commands": tables.commands,
            "write_function": tables.write_function,
            "data_unit_quartets": tables.data_unit_quartets,
            "command_chaining": tables.command_chaining,
            "extended_length": tables.extended_length,
            "logical_channels": tables.logical_channels,
        },
        "status": None
        if status is None
        else {
            "lcs": status.lcs,
            "life_cycle": None if state is None else state.value,
            "sw": status.sw,
        },
        "application_identifier": None if aid is None else aid.hex().upper(),
        "dir_reference": data.dir_reference,
        "storage_card": None if card is None else {"standard": card.standard, "name": card.name},
        "rest": data.rest.hex().upper(),
        "warnings": list(data.warnings),
    }
