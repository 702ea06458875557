"""Text from mails and web pages: in any encoding, quoted, or broken by a mail program. Pure."""

from __future__ import annotations

import codecs
import html
import quopri
import re

from ccid.errors import MalformedDescriptor

MAX_BYTES = 4 << 20
"""Bytes of the largest file that is accepted as a report of a reader."""
_MARKS = (  # UTF-32 first: its mark begins with the mark of UTF-16
    (codecs.BOM_UTF32_LE, "utf-32-le"),
    (codecs.BOM_UTF32_BE, "utf-32-be"),
    (codecs.BOM_UTF16_LE, "utf-16-le"),
    (codecs.BOM_UTF16_BE, "utf-16-be"),
    (codecs.BOM_UTF8, "utf-8"),
)
"""Byte order marks, and the encodings that they begin."""
_NO_TEXT = re.compile("[\0-\b\x0e-\x1a\x1c-\x1f\x7f]")
"""Control characters that no text has. ESC is allowed: text copied from a terminal has colours."""
_COLOURS = re.compile("\x1b\\[[0-9;]*[A-Za-z]")
_BLANKS = {0xA0: " ", 0x200B: None, 0xFEFF: None}
"""Blanks of web pages, and characters without width."""
_QUOTE = re.compile(r"^[ \t]*[A-Za-z]{0,3}>(?:[ \t]{0,2}[A-Za-z]{0,3}>)*[ \t]?", re.MULTILINE)
_HEADING = re.compile(
    r"^(?P<before>[^\n]{0,60}?)[ \t]{0,40}"
    r"(?:(?:Device|Configuration|Interface) Descriptor:|idVendor\b)",
    re.IGNORECASE | re.MULTILINE,
)
"""The text before a heading: of a log, of numbered lines, of another sign of quotation."""
_BREAK = re.compile(r"<br[ \t]{0,3}/?>\n?", re.IGNORECASE)
_ENTITY = re.compile(r"&(?:gt|lt|amp|quot|nbsp|#\d{1,4}|#x[0-9A-Fa-f]{1,4});")
_ENCODED = re.compile(r"=(?:[0-9A-Fa-f]{2})?[ \t]*$|=(?:20|3D)", re.MULTILINE)
"""Signs of quoted-printable: an encoded line end, blank or equals sign."""


def marked(content: bytes) -> tuple[bytes, str]:
    """The byte order mark that ``content`` begins with, and its encoding; both empty if there is
    none."""
    return next((found for found in _MARKS if content.startswith(found[0])), (b"", ""))


def decoded(content: bytes, file: str) -> str:
    """The text of a file: UTF-8, UTF-16 or UTF-32 with a byte order mark, UTF-16 without one,
    UTF-8 without one, Windows-1252 or Latin-1.

    Args:
        content: All bytes of the file.
        file: Name of the file, for errors.

    Raises:
        MalformedDescriptor: The file is no text.
    """
    mark, encoding = marked(content)
    if mark:
        return _as_text(content[len(mark) :], (encoding,), file)
    if b"\0" in content[:4]:
        return _as_text(content, ("utf-16-be" if content[:1] == b"\0" else "utf-16-le",), file)
    return _as_text(content, ("utf-8", "cp1252", "latin-1"), file)


def _as_text(content: bytes, encodings: tuple[str, ...], file: str) -> str:
    for encoding in encodings:
        try:
            text = content.decode(encoding)
        except UnicodeDecodeError:
            continue
        if _NO_TEXT.search(text) is None:
            return "\n".join(_COLOURS.sub("", text).translate(_BLANKS).splitlines())
        break
    raise MalformedDescriptor(f"{file}: it is no text")


def plain(text: str) -> str:
    """``text`` without quotation marks of mails, HTML entities of a mail archive, and
    quoted-printable encoding (RFC 2045, 6.7)."""
    text = _BREAK.sub("\n", text)
    if _ENTITY.search(text) is not None:
        text = html.unescape(text).translate(_BLANKS)
    text = _QUOTE.sub("", text)
    if _ENCODED.search(text) is None:
        return _bare(text)
    raw = quopri.decodestring(text.encode("utf-8"))
    try:
        text = raw.decode("utf-8")
    except UnicodeDecodeError:
        text = raw.decode("latin-1")
    return _bare(_QUOTE.sub("", "\n".join(text.splitlines())))


def _bare(text: str) -> str:
    """``text`` without a common beginning of its lines; numbers in the beginning may differ."""
    found = _HEADING.search(text)
    if found is None or not (before := found["before"].strip()):
        return text
    if '"' in before:  # a field of JSON
        return text
    parts = re.split(r"(\d+|\s+)", before)
    pattern = "".join(
        r"\d{1,9}" if part.isdigit() else r"\s{1,9}" if part.isspace() else re.escape(part)
        for part in parts
    )
    lines = text.split("\n")
    bare = [re.sub(rf"^[ \t]{{0,9}}{pattern}(?:[ \t]|$)?", "", line) for line in lines]
    changed = sum(old != new for old, new in zip(lines, bare, strict=True))
    return "\n".join(bare) if 2 * changed > len(lines) else text
