"""Lines of ``ccid-probe shell``: what they mean, how they are completed, and which parts of them
may be seen or kept. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from ccid.ground import hexadecimal
from ccid.ground.hexadecimal import NotHexadecimal
from ccid.iso7816.apdu import APDU_HEADER
from ccid.iso7816.status_words import MEANINGS
from ccid.masking.secret_commands import carries_secret, visible_length

COMMANDS = {
    "help": ("", "print this list"),
    "select": ("NAME|AID|FID", "select an application by name or AID, or a file by its identifier"),
    "verify": ("REF [LENGTH]", "ask for a PIN, and verify it; LENGTH pads it with FF"),
    "expect": ("SW", "fail if the last status word is another one; an x is any digit"),
    "sw": ("SW", "explain a status word"),
    "atr": ("", "explain the ATR of the card"),
    "status": ("", "ask the reader whether a card is in the slot"),
    "reset": ("[warm|cold]", "reset the card"),
    "readers": ("", "list the readers"),
    "reader": ("NAME", "go on with another reader"),
    "slot": ("N", "go on with another slot of this reader"),
    "quit": ("", "end; Ctrl-D does so, too"),
}
"""The commands: their arguments, and what they do."""
APPLICATIONS = {
    "mf": "3F00",
    "openpgp": "D27600012401",
    "piv": "A000000308000010000100",
    "oath": "A0000005272101",
    "fido": "A0000006472F0001",
    "ppse": "325041592E5359532E4444463031",
    "pse": "315041592E5359532E4444463031",
    "usim": "A0000000871002",
    "emrtd": "A0000002471001",
    "demo": "F0636369642064656D6F",
}
"""Names that ``select`` takes: the master file, and registered applications; ``demo`` is the one of
this library's virtual card."""
TEMPLATES = {
    "00A40400": "SELECT by name",
    "00A4000C02": "SELECT a file",
    "00B00000": "READ BINARY",
    "00B20104": "READ RECORD 1",
    "00CA0000": "GET DATA",
    "0084000008": "GET CHALLENGE",
    "00200081": "VERIFY (but `verify` asks for the PIN)",
    "00C00000": "GET RESPONSE",
    "FFCA000000": "the UID of a contactless card",
}
"""Beginnings of command APDUs, to complete a line."""
SCRIPT = re.compile(r"<\s*(?P<file>[^>]*[^>\s])\s*")
"""A line that runs a script."""
SW_PATTERN = re.compile(r"[0-9A-Fx]{4}", re.ASCII | re.IGNORECASE)
VERIFY_ARGUMENTS = re.compile(
    r"\s*verify\s+[0-9A-F]{2}(?:\s+\d{1,3})?(?=\s|$)", re.ASCII | re.IGNORECASE
)
"""What may stand behind ``verify``; whatever follows may be a PIN."""
MAY_BE_SECRET = re.compile(r"\d{4}|^[^G-Z]*$", re.ASCII | re.IGNORECASE)
"""A word that is no name of a reader or a file, but may be a PIN or an APDU."""
NUMBER = re.compile(r"^[\d\s]*\d{3}[\d\s]*$", re.ASCII)
"""A number, perhaps in groups: 12345678 is more likely a PIN than an APDU. Digits two by two, as in
``00 84 00 00 08``, are bytes."""
GROUP = re.compile(r"(?:0x|\\x)?([0-9A-F]+)", re.IGNORECASE)
SHOWN = "*"
UNKNOWN = "\ufffd"
"""Stands for bytes that were no text."""


class WrongLine(Exception):
    """A line that means nothing, or a command that failed. The message quotes no APDU."""


class Line(NamedTuple):
    """What a line means.

    Attributes:
        command: A key of :data:`COMMANDS`; ``<`` for a script; empty for an APDU.
        arguments: The words behind the command.
        apdu: The command APDU.
    """

    command: str
    arguments: tuple[str, ...] = ()
    apdu: bytes = b""


class Completion(NamedTuple):
    """One way to complete a line.

    Attributes:
        text: What comes instead of the last ``replaced`` characters.
        replaced: Number of characters.
        meaning: What it is, in words.
    """

    text: str
    replaced: int
    meaning: str


def parse(text: str) -> Line | None:
    """What a line means; None for an empty one.

    Raises:
        WrongLine: It means nothing.
    """
    text = text.split("#", 1)[0].strip()
    if not text:
        return None
    word, *more = text.split()
    name = {"exit": "quit", "?": "help"}.get(word.lower(), word.lower())
    if name in COMMANDS:
        usage = COMMANDS[name][0]
        least = 0 if not usage or usage.startswith("[") else 1
        most = 0 if not usage else 2 if " [" in usage else 1
        if name == "reader":
            more = [" ".join(more)] if more else []
        if not least <= len(more) <= most:
            raise WrongLine(f"it is: {name} {usage}".rstrip())
        return Line(name, tuple(more))
    script = SCRIPT.fullmatch(text)
    if script is not None:
        return Line("<", (script["file"],))
    try:
        return Line("", apdu=hexadecimal.parse(text))
    except NotHexadecimal as error:
        raise WrongLine(f"neither a command (see `help`) nor an APDU: {error}") from None


def is_kept(text: str) -> bool:
    """Whether a line may be kept in the history: it is known to hold no PIN and no key."""
    try:
        line = parse(text)
    except WrongLine:
        return False
    if line is None or "#" in text:
        return False
    match line.command:
        case "":
            is_apdu = len(line.apdu) >= APDU_HEADER and not NUMBER.search(text)
            return is_apdu and not carries_secret(line.apdu)
        case "verify":
            return VERIFY_ARGUMENTS.fullmatch(text.strip()) is not None
        case "sw" | "expect":
            return SW_PATTERN.fullmatch(line.arguments[0]) is not None
        case "select":
            return line.arguments[0].lower() in APPLICATIONS
        case _:
            return not any(MAY_BE_SECRET.search(word) for word in line.arguments)


def concealed(text: str) -> str:
    """``text`` as it may be shown while it is typed: the same length, with :data:`SHOWN` for each
    digit that may be part of a PIN or a key."""
    verify = VERIFY_ARGUMENTS.match(text)
    if verify is not None:
        return text[: verify.end()] + re.sub(r"\S", SHOWN, text[verify.end() :])
    words = text.split(maxsplit=1)
    if not words or words[0].lower() in COMMANDS:
        return text
    start, end = hexadecimal.body(text)
    places = [
        place
        for group in GROUP.finditer(text, start, end)
        for place in range(group.start(1), group.end(1))
    ]
    digits = "".join(text[place] for place in places)
    apdu = bytes.fromhex(digits[: len(digits) & ~1])
    if len(digits) <= 2 * APDU_HEADER or not carries_secret(apdu):
        return text
    shown = list(text)
    for place in places[2 * max(APDU_HEADER, visible_length(apdu)) :]:
        shown[place] = SHOWN
    return "".join(shown)


def completions(text: str, readers: Sequence[str] = ()) -> Iterator[Completion]:
    """The ways to complete a line.

    Args:
        text: The line up to the cursor.
        readers: The names of the readers.
    """
    word, blank, rest = text.lstrip().partition(" ")
    if not blank:
        choices = {name: told for name, (_, told) in COMMANDS.items()} | TEMPLATES
        yield from _beginning(word, choices)
        return
    match word.lower():
        case "sw" | "expect":
            yield from _beginning(rest, {f"{sw:04X}": told for sw, told in MEANINGS.items()})
        case "select":
            yield from _beginning(rest, APPLICATIONS)
        case "reset":
            yield from _beginning(rest, {"warm": "by RST", "cold": "off, and on again"})
        case "reader":
            yield from _beginning(rest, dict.fromkeys(readers, ""))


def _beginning(word: str, choices: dict[str, str]) -> Iterator[Completion]:
    for text, meaning in choices.items():
        if text.lower().startswith(word.lower()):
            yield Completion(text, len(word), meaning)


def fits(sw: int, pattern: str) -> bool:
    """Whether a status word is as a script expects it.

    Args:
        sw: SW1 SW2 as one number.
        pattern: Four digits; an ``x`` is any.

    Raises:
        WrongLine: The pattern is none.
    """
    if SW_PATTERN.fullmatch(pattern) is None:
        raise WrongLine("a status word has four hexadecimal digits; x stands for any")
    return all(
        want in ("X", digit) for want, digit in zip(pattern.upper(), f"{sw:04X}", strict=True)
    )


def select_apdu(word: str) -> bytes:
    """The SELECT for a name of :data:`APPLICATIONS`, an AID, or a file identifier (ISO/IEC
    7816-4:2013 11.1.1).

    Raises:
        WrongLine: It is none of them.
    """
    try:
        name = hexadecimal.parse(APPLICATIONS.get(word.lower(), word))
    except NotHexadecimal as error:
        raise WrongLine(f"neither a name that `select` knows nor an AID: {error}") from None
    if len(name) == 2:
        return bytes((0x00, 0xA4, 0x00, 0x0C, 2)) + name
    if not 5 <= len(name) <= 16:
        raise WrongLine("an AID has 5 to 16 bytes, a file identifier has 2")
    return bytes((0x00, 0xA4, 0x04, 0x00, len(name))) + name + b"\x00"


def verify_apdu(reference: str, length: str, pin: str) -> bytes:
    """VERIFY with a PIN in ASCII (ISO/IEC 7816-4:2013 11.5.6).

    Args:
        reference: P2 in hexadecimal.
        length: Bytes that the PIN is padded to by FF; empty for no padding.
        pin: The PIN.

    Raises:
        WrongLine: One of them is wrong. The message has no PIN in it.
    """
    if re.fullmatch(r"[0-9A-F]{2}", reference, re.ASCII | re.IGNORECASE) is None:
        raise WrongLine("the reference of a PIN, P2, is one byte in hexadecimal: verify 81")
    if length and re.fullmatch(r"\d{1,3}", length, re.ASCII) is None:
        raise WrongLine("the length of a padded PIN is a number of bytes: verify 80 8")
    if not pin.isprintable() or UNKNOWN in pin:
        raise WrongLine("the PIN has characters that are no text; it was not sent")
    data = pin.encode("utf-8")
    size = int(length) if length else len(data)
    if not 0 < len(data) <= size <= 255:
        raise WrongLine(f"a PIN has 1 to {min(int(length or 255), 255)} characters here")
    return bytes((0x00, 0x20, 0x00, int(reference, 16), size)) + data.ljust(size, b"\xff")
