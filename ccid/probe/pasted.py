"""Text as people send it: of any encoding, quoted in a reply, broken by a mail program. Pure."""

from __future__ import annotations

import codecs
import html
import quopri
import re

from ccid.errors import MalformedDescriptor

MAX_BYTES = 4 << 20
"""Of a file: what is longer is no report of a reader."""
_MARKS = (  # UTF-32 first: its mark begins with that of UTF-16
    (codecs.BOM_UTF32_LE, "utf-32-le"),
    (codecs.BOM_UTF32_BE, "utf-32-be"),
    (codecs.BOM_UTF16_LE, "utf-16-le"),
    (codecs.BOM_UTF16_BE, "utf-16-be"),
    (codecs.BOM_UTF8, "utf-8"),
)
_NO_TEXT = re.compile("[\0-\b\x0e-\x1a\x1c-\x1f\x7f]")
"""Control characters that no text has. It may have ESC, where a terminal's colours were copied."""
_COLOURS = re.compile("\x1b\\[[0-9;]*[A-Za-z]")
_BLANKS = {0xA0: " ", 0x200B: None, 0xFEFF: None}
"""What web pages put between words, and what has no width."""
_QUOTE = re.compile(r"^[ \t]*[A-Za-z]{0,3}>(?:[ \t]{0,2}[A-Za-z]{0,3}>)*[ \t]?", re.MULTILINE)
_HEADING = re.compile(
    r"^(?P<before>[^\n]{0,60}?)[ \t]{0,40}"
    r"(?:(?:Device|Configuration|Interface) Descriptor:|idVendor\b)",
    re.IGNORECASE | re.MULTILINE,
)
"""What stands before a heading: of a log, a listing with numbers, another sign of quotation."""
_BREAK = re.compile(r"<br[ \t]{0,3}/?>\n?", re.IGNORECASE)
_ENTITY = re.compile(r"&(?:gt|lt|amp|quot|nbsp|#\d{1,4}|#x[0-9A-Fa-f]{1,4});")
_ENCODED = re.compile(r"=(?:[0-9A-Fa-f]{2})?[ \t]*$|=(?:20|3D)", re.MULTILINE)
"""A line whose end is encoded, or a blank or sign of equality that is."""


def decoded(content: bytes, file: str) -> str:
    """The text of a file: UTF-8, UTF-16 or UTF-32 by its mark, UTF-16 without one, else what
    Windows and Latin-1 have.

    Args:
        content: All bytes of it.
        file: Its name, for errors.

    Raises:
        MalformedDescriptor: It is no text.
    """
    for mark, encoding in _MARKS:
        if content.startswith(mark):
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
    """``text`` without the marks of a quotation, and as it was before an archive made HTML of it,
    or a mail program made it quoted-printable (RFC 2045, 6.7)."""
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
    """``text`` without what each of its lines begins with: numbers in it may differ."""
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
