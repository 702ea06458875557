"""``plug.c`` and Python declare the same numbers, names and frames; no compiler is needed."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest

from ccid.pcsc.ifd import device_strings
from ccid.pcsc.numbers import ifd_numbers
from ccid.pcsc.numbers.ifd_numbers import Asker, Code, Tag
from ccid.pcsc.plug import bundle, frames, helper
from ccid.pcsc.plug.frames import Kind, Operation
from tests.unit.plug_source import Declarations, numbers, parsed

SOURCE = bundle.plug_source().read_text("utf-8")

CODES = (
    Code.SUCCESS,
    Code.ERROR_TAG,
    Code.COMMUNICATION_ERROR,
    Code.ICC_NOT_PRESENT,
    Code.NO_SUCH_DEVICE,
    Code.ERROR_INSUFFICIENT_BUFFER,
)
"""The response codes that the plug itself returns or looks at."""
TAGS = (
    Tag.THREAD_SAFE,
    Tag.SIMULTANEOUS_ACCESS,
    Tag.POLLING_THREAD_KILLABLE,
    Tag.STOP_POLLING_THREAD,
    Tag.POLLING_THREAD_WITH_TIMEOUT,
    Tag.DEVICE_REMOVED,
)
"""The tags that the plug itself answers or looks at."""

ALONE = {
    "defines": {
        *("_GNU_SOURCE", "SILENCE_S", "START_S", "RESTART_S", "HELPER_END_S", "ASK_MS"),
        *("CHANNELS", "NAME_SIZE", "LOG_ERROR", "FRAMES", "MAX_DATA", "EXPORT"),
    },
    "enums": {"trouble"},
    "structs": {"helper", "channel"},
}
"""What the plug alone needs. Each other declaration of ``plug.c`` is one that Python has."""
PYTHON_ALONE = {"ALIVE", "REQUEST", "REPLY", "CONNECTION", "WITHOUT_DATA"}
"""Constants of ``frames.py`` that are made of the others, or that the plug does not need."""


def members(prefix: str, kinds: Any) -> dict[str, int]:
    """The members of a Python enum as C names them."""
    return {f"{prefix}_{member.name}": int(member) for member in kinds}


def python() -> Declarations:
    """What Python has, in the form that the parser of ``plug.c`` makes."""
    return Declarations(
        defines={
            "BUFFER_SIZE": frames.BUFFER_SIZE,
            "CONTROL_FD": frames.CONTROL_FD,
            "READER_SHIFT": ifd_numbers.READER_SHIFT,
            "MAX_READERS": ifd_numbers.MAX_READERS,
            "HELPER_MODULE": helper.__name__,
            "INTERPRETER": bundle.INTERPRETER,
            "LIBUDEV_PREFIX": device_strings.LIBUDEV_PREFIX,
            "LIBUDEV_PLACE": device_strings.LIBUDEV_PLACE,
            "LIBUSB_PREFIX": device_strings.LIBUSB_PREFIX,
            "LIBUSB_PLACE": device_strings.LIBUSB_PLACE,
        },
        enums={
            "code": members("IFD", CODES),
            "tag": members("TAG", TAGS),
            "operation": members("OP", Operation),
            "asker": members("ASKER", Asker),
            "kind": members("KIND", Kind),
            "event": {
                name: ord(value)
                for name, value in vars(frames).items()
                if name.startswith("EVENT_")
            },
        },
        structs={
            "request": frames.REQUEST_FIELDS,
            "reply": frames.REPLY_FIELDS,
            "connection": frames.CONNECTION_FIELDS,
        },
    )


def shared(declared: Declarations) -> Declarations:
    """The declarations without those that the plug alone needs."""
    kept: dict[str, Any] = {
        kind: {name: value for name, value in getattr(declared, kind).items() if name not in alone}
        for kind, alone in ALONE.items()
    }
    return Declarations(**kept)


def ordered(value: Any) -> Any:
    """A declaration, so that the order of its members and fields counts."""
    return list(value.items()) if isinstance(value, dict) else value


def differences(source: str, wanted: Declarations) -> list[str]:
    """Where a text of ``plug.c`` and Python's declarations differ; empty when both agree."""
    found = shared(parsed(source))
    different: list[str] = []
    for kind in ALONE:
        in_c, here = getattr(found, kind), getattr(wanted, kind)
        different += (
            f"{kind} {name}: {in_c.get(name)} in C, {here.get(name)} in Python"
            for name in sorted(in_c.keys() | here.keys())
            if ordered(in_c.get(name)) != ordered(here.get(name))
        )
    return different


def test_both_declare_the_same() -> None:
    assert differences(SOURCE, python()) == []


def test_every_constant_of_the_frames_is_compared() -> None:
    compared = python()
    fields = {f"{name.upper()}_FIELDS" for name in compared.structs}
    known = {*compared.defines, *compared.enums["event"], *fields, *PYTHON_ALONE}
    constants = {name for name in vars(frames) if name.isupper() and not name.startswith("_")}
    assert constants - known == set()


def test_no_shared_number_stands_elsewhere_in_the_c_file() -> None:
    compared = python()
    values = {value for members in compared.enums.values() for value in members.values()}
    values |= {value for value in compared.defines.values() if isinstance(value, int)}
    distinctive = {value for value in values if value >= ifd_numbers.MAX_READERS}
    assert distinctive & numbers(parsed(SOURCE).rest) == set()


def test_the_time_limits_of_both_sides_fit() -> None:
    """The helper sends ALIVE often enough, and ends before the plug kills it."""
    limits = parsed(SOURCE).defines
    silence, end = limits["SILENCE_S"], limits["HELPER_END_S"]
    assert isinstance(silence, int)
    assert isinstance(end, float)
    assert silence > 3 * helper.BEAT_S
    assert limits["START_S"] == helper.IMPORT_S > silence
    assert end > helper.POWER_OFF_S


# The comparison sees each change --------------------------------------------------------------


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("IFD_COMMUNICATION_ERROR = 612", "IFD_COMMUNICATION_ERROR = 613"),
        ("IFD_ERROR_TAG = 600,", ""),
        ("IFD_ERROR_TAG = 600,", "IFD_ERROR_TAG = 600, IFD_RESPONSE_TIMEOUT = 613,"),
        ("TAG_DEVICE_REMOVED = 0x0FB4", "TAG_DEVICE_REMOVED = 0x0FB5"),
        ("OP_GET = 3", "OP_GET = 4"),
        ("OP_PRESENCE = 9,", "OP_PRESENCE = 9, OP_MORE,"),
        ("ASKER_WATCHER = 1,", "ASKER_OBSERVER = 1,"),
        ("KIND_ALIVE = 1", "KIND_ALIVE = 2"),
        ("EVENT_GONE = 'x'", "EVENT_GONE = 'y'"),
        ("BUFFER_SIZE (1 << 17)", "BUFFER_SIZE (1 << 16)"),
        ("CONTROL_FD 3", "CONTROL_FD 4"),
        ('"ccid.pcsc.plug.helper"', '"ccid.pcsc.helper"'),
        ('"libudev:"', '"udev:"'),
        ("operation, argument, capacity", "argument, operation, capacity"),
        ("capacity, length;", "capacity;"),
        ("int32_t code;", "uint32_t code;"),
        ("\tuint32_t lun;", "\tuint32_t lun, slot;"),
        ("#define CHANNELS 256", "#define CHANNELS 256\n#define MAX_CHANNELS 256"),
        ("enum trouble {", "enum place { HERE };\nenum trouble {"),
        ("struct helper {", "struct more {\n\tint one;\n};\nstruct helper {"),
    ],
)
def test_a_change_in_c_is_seen(old: str, new: str) -> None:
    changed = SOURCE.replace(old, new)
    assert changed != SOURCE
    assert len(differences(changed, python())) == 1


@pytest.mark.parametrize(
    ("kind", "name"),
    [(kind, name) for kind in ALONE for name in getattr(python(), kind)],
)
def test_a_change_in_python_is_seen(kind: str, name: str) -> None:
    """Each declaration in turn is missing, and has one member or field more."""
    declared = getattr(python(), kind)
    missing: Any = {kind: {other: declared[other] for other in declared if other != name}}
    assert len(differences(SOURCE, dataclasses.replace(python(), **missing))) == 1
    value = declared[name]
    more = {**value, "MORE": 0} if isinstance(value, dict) else value * 2
    changed: Any = {kind: {**declared, name: more}}
    assert len(differences(SOURCE, dataclasses.replace(python(), **changed))) == 1


def test_a_number_elsewhere_in_c_is_seen() -> None:
    assert 612 in numbers(parsed(SOURCE + "int f(void) { return 612; }").rest)
    assert 0x0FB4 in numbers(parsed(SOURCE + "int f(void) { return 0x0FB4; }").rest)


# The parser -----------------------------------------------------------------------------------


def test_what_the_parser_makes_of_c() -> None:
    made = parsed(
        '/* #define NO 1 */\n#define SIZE (1 << 4)\n#define TEXT "a b"\n#define TIME 0.5\n'
        "enum some {\n\tA, B = 0x10, /* why */\n\tC,\n};\n"
        "struct pair {\n\tuint32_t x, y;\n\tint32_t z;\n};\nint f(void) { return 7; }\n"
    )
    assert made.defines == {"SIZE": 16, "TEXT": "a b", "TIME": 0.5}
    assert made.enums == {"some": {"A": 0, "B": 16, "C": 17}}
    assert made.structs == {"pair": {"x": "I", "y": "I", "z": "i"}}
    assert numbers(made.rest) == {7}


def test_an_enum_that_the_parser_does_not_understand() -> None:
    with pytest.raises(ValueError, match="no member of an enum"):
        parsed("enum bad { A B };")
