"""Readers from their descriptors in a file: a report of ``ccid-probe``, the output of libccid's
``parse`` or of ``lsusb -v``, or a dump in hexadecimal. Pure."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import replace
from functools import partial
from typing import Any, TypeVar

from ccid.errors import CcidError, MalformedDescriptor
from ccid.ground.safe_text import short
from ccid.known.descriptor_figures import DeviceFigures, distinct
from ccid.probe.hexdump import STARTS, from_bytes, from_hex
from ccid.probe.listed_descriptors import SECTION, from_lsusb, from_parse
from ccid.probe.pasted import MAX_BYTES, decoded, plain
from ccid.probe.reader_from_fields import device, unnamed

T = TypeVar("T")

SCHEMAS = ("ccid-probe/report/", "ccid-probe/dump/")


def devices(content: str | bytes, file: str) -> list[DeviceFigures]:
    """The devices described in a file, each once.

    Args:
        content: A report or dump of ``ccid-probe``, output of libccid's parse or of ``lsusb -v``,
            or a dump of descriptors in hexadecimal; as text, or as the bytes of the file. The text
            may be quoted in a mail.
        file: Name of the file, for errors.

    Raises:
        MalformedDescriptor: No device is described, or a field is missing or wrong.
    """
    if len(content) > MAX_BYTES:
        raise MalformedDescriptor(f"{file}: it is too long for the report of a reader")
    if isinstance(content, str):
        return _checked(partial(_from_text, content), file)
    if content[:2] in STARTS:
        return _checked(partial(from_bytes, content, unnamed("")), file)
    return _checked(partial(_from_text, decoded(content, file)), file)


def _checked(take: Callable[[], Iterable[DeviceFigures]], file: str) -> list[DeviceFigures]:
    """The devices that ``take`` finds, with their interfaces joined. Errors name the file."""
    try:
        found = unique(_merged(take()))
    except RecursionError:
        raise MalformedDescriptor(f"{file}: nested too deeply") from None
    except (CcidError, ValueError) as error:
        kind = f"{type(error).__name__}: " if isinstance(error, json.JSONDecodeError) else ""
        raise MalformedDescriptor(
            f"{file}: {kind}{error}", field=getattr(error, "field", "")
        ) from None
    if not found:
        raise MalformedDescriptor(
            f"{file}: no smart-card reader is described; give a report, output of libccid's parse "
            f"or of `lsusb -v`, or descriptors in hexadecimal"
        )
    return found


def unique(found: Iterable[DeviceFigures]) -> list[DeviceFigures]:
    """Each device once, in the order of ``found``."""
    return list(dict.fromkeys(found))


def _from_text(text: str) -> Iterable[DeviceFigures]:
    bare = plain(text)
    if (start := _json_start(text)) is not None:
        try:
            return _from_json(text[start:])
        except json.JSONDecodeError:
            if bare == text:
                raise
    text = bare
    if (start := _json_start(text)) is not None:
        return _from_json(text[start:])
    readers = [from_parse, from_hex]
    if any(SECTION.match(line.strip()) for line in text.splitlines()):
        readers.insert(0, from_lsusb)
    for reader in readers:
        if found := list(reader(text)):
            return found
    return []


def _merged(found: Iterable[DeviceFigures]) -> Iterator[DeviceFigures]:
    """Consecutive interfaces of the same device, joined into one device."""
    whole: DeviceFigures | None = None
    for one in found:
        if whole is not None:
            numbers = {interface.number for interface in whole.interfaces}
            same = replace(one, interfaces=()) == replace(whole, interfaces=())
            if same and not numbers & {i.number for i in one.interfaces}:
                whole = replace(whole, interfaces=whole.interfaces + one.interfaces)
                continue
            yield whole
        whole = one
    if whole is not None:
        yield whole


# A report, or dump --json ---------------------------------------------------------------------

_SCHEMA = re.compile(r'\{\s*"schema"\s*:\s*"ccid-probe/')
_BRACE = re.compile(r'\s*\{(?=\s*(?:"|\}|$))')


def _json_start(text: str) -> int | None:
    """Position of a JSON document, which text may precede; None if there is no document."""
    found = _SCHEMA.search(text)
    if found is not None:
        return found.start()
    found = _BRACE.match(text)
    return None if found is None else found.end() - 1


def _from_json(text: str) -> list[DeviceFigures]:
    document, _ = json.JSONDecoder(strict=False).raw_decode(text)
    schema = document.get("schema", "")
    if not isinstance(schema, str) or not schema.startswith(SCHEMAS):
        raise ValueError("no report of ccid-probe")
    readers = document.get("readers")
    if not isinstance(readers, list):
        raise ValueError(f"readers: {short(readers)} is no list")
    places: dict[str, list[DeviceFigures]] = {}
    for index, reader in enumerate(readers):
        try:
            found = _reader(reader)
        except (CcidError, ValueError) as error:
            raise MalformedDescriptor(
                f"readers[{index}]: {error}", field=getattr(error, "field", "")
            ) from None
        places.setdefault(_place(reader, index), []).append(found)
    return [whole for found in places.values() for whole in _joined(found)]


def _place(reader: Mapping[str, Any], index: int) -> str:
    """The place of a reader's device: readers of one place are interfaces of one device."""
    path = reader.get("path")
    if not isinstance(path, str) or ":" not in path:
        return f"#{index}"
    return f"{path.rpartition(':')[0]} {short(reader.get('bus'))} {short(reader.get('address'))}"


def _joined(found: list[DeviceFigures]) -> Iterator[DeviceFigures]:
    """The readers of one place as one device, unless their fields contradict each other."""
    first, *rest = found
    same = all(replace(one, interfaces=()) == replace(first, interfaces=()) for one in rest)
    interfaces = [interface for one in found for interface in one.interfaces]
    if same and len({interface.number for interface in interfaces}) == len(interfaces):
        yield replace(first, interfaces=distinct(interfaces))
    else:
        yield from found


def _reader(reader: Any) -> DeviceFigures:
    """One reader of a report."""
    if not isinstance(reader, dict):
        raise ValueError(f"{short(reader)} is no reader")
    named = _part(reader, "strings", dict)
    strings = {name: _string_or_none(name, text) for name, text in named.items()}
    return device(
        {**_part(reader, "device", dict), **strings},
        {**_part(reader, "interface", dict), **strings},
        _part(reader, "smart_card", dict),
        _part(reader, "endpoints", list),
        misplaced=reader.get("misplaced", False),
        rates=reader.get("data_rates"),
        clocks=reader.get("clock_frequencies"),
    )


def _part(reader: dict[str, Any], name: str, kind: type[T]) -> T:
    """A table or a list that each reader of a report must have."""
    part = reader.get(name)
    if not isinstance(part, kind):
        raise ValueError(f"{name}: {short(part)}, and its fields are wanted")
    return part


def _string_or_none(name: str, text: Any) -> str:
    """A string of a report; empty if the string was not read."""
    if text is not None and not isinstance(text, str):
        raise ValueError(f"{name}: {short(text)} is no string")
    return text or ""
