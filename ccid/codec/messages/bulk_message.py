"""The form of all bulk messages: a header of 10 bytes, then dwLength bytes of data."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any, ClassVar, Self, TypeVar, cast, dataclass_transform

from ccid.codec.declaration import Declared, LaterStruct, build, declared, parse, wire
from ccid.codec.layouts import Byte, Bytes, Fields, GreedyBytes, Int32ul, ShortWay
from ccid.codes import CommandStatus, IccStatus, slot_error_text
from ccid.errors import MalformedMessage
from ccid.ground.records import vars_of

MESSAGE_HEADER = 10
"""Bytes of the header of every bulk message (USB CCID rev 1.1, 6.1 and 6.2)."""

M = TypeVar("M", bound="Message")


def data(layout: Any = GreedyBytes, *, default: Any = b"", secret: bool = True) -> Any:
    """Declare a field of the data after the header. dwLength is the length of the data.

    Args:
        layout: One of :mod:`ccid.codec.layouts`.
        default: The default value.
        secret: ``repr`` hides the value, which may hold a PIN.
    """
    return wire(layout, default=default, secret=secret, body=True)


def rfu(count: int) -> Any:
    """Declare ``count`` bytes reserved for future use; their value is zero."""
    return wire(Bytes(count), default=bytes(count))


@declared
class Message(Declared):
    """A bulk message. Every subclass defines bMessageType and declares its fields."""

    error = MalformedMessage
    bMessageType: ClassVar[int] = -1
    header: ClassVar[Any]
    """The ``Struct`` of construct for the header of 10 bytes, with bMessageType and dwLength."""
    header_fields: ClassVar[Fields]
    """Names and layouts of the header."""
    short_header: ClassVar[ShortWay]
    """The short way of the header."""
    body: ClassVar[Any]
    """The ``Struct`` of construct for the dwLength bytes of data."""
    short_body: ClassVar[ShortWay | None]
    """The short way of the data, where their layout is plain."""

    bSlot: int = wire(Byte, default=0)
    bSeq: int = wire(Byte, default=0)

    @classmethod
    def length_field(cls) -> str:
        """Name of the field that holds the number of data bytes: dwLength."""
        return "dwLength"

    def build(self) -> bytes:
        """The bytes on the wire.

        Raises:
            MalformedMessage: A value does not fit its field; ``field`` names the field.
        """
        values = vars_of(self)
        abData = None if self.short_body is None else self.short_body.build(values, values)
        if abData is None:
            abData = build(self.body, values, type(self), **values)
        values |= {"bMessageType": self.bMessageType, "dwLength": len(abData)}
        head = self.short_header.build(values, {})
        return (build(self.header, values, type(self)) if head is None else head) + abData

    @classmethod
    def parse(cls, data: bytes, **context: Any) -> Self:
        """The message that ``data`` encodes.

        Raises:
            MalformedMessage: ``data`` are too short or of another type, dwLength is not the
                number of bytes after the header, or the value of a field is not allowed; ``field``
                names the wrong field.
        """
        if len(data) < MESSAGE_HEADER:
            raise MalformedMessage(
                f"{cls.__name__}: {len(data)} bytes are no header of {MESSAGE_HEADER}",
                field=_field_at(cls, len(data)),
            )
        head, raw = data[:MESSAGE_HEADER], data[MESSAGE_HEADER:]
        values = cls.short_header.parse(head, {}) or parse(cls.header, head, cls)
        where = {"slot": values["bSlot"], "bSeq": values["bSeq"]}
        if values.pop("bMessageType") != cls.bMessageType:
            raise MalformedMessage(
                f"bMessageType 0x{data[0]:02X} is not 0x{cls.bMessageType:02X}, {cls.__name__}",
                field="bMessageType",
                **where,
            )
        dwLength = values.pop("dwLength")
        if dwLength != len(data) - MESSAGE_HEADER:
            raise MalformedMessage(
                f"{cls.__name__}: dwLength says {dwLength} bytes of data, "
                f"{len(data) - MESSAGE_HEADER} came",
                field="dwLength",
                **where,
            )
        body = None if cls.short_body is None else cls.short_body.parse(raw, values)
        return cls(**values, **parse(cls.body, raw, cls, **values) if body is None else body)


def _field_at(cls: type[Message], offset: int) -> str:
    """Name of the first header field that a message of ``offset`` bytes lacks."""
    for name, layout in cls.header_fields:
        offset -= layout.size
        if offset < 0:
            return name
    return ""


@dataclass_transform(frozen_default=True, kw_only_default=True, field_specifiers=(wire,))
def message(bMessageType: int) -> Callable[[type[M]], type[M]]:
    """Class decorator: declare a :class:`Message` with this bMessageType.

    Fields that :func:`data` declares are the body; all other fields are the header.
    """

    def decorate(cls: type[M]) -> type[M]:
        made: Any = declared(cls)
        made.bMessageType = bMessageType
        head: list[tuple[str, Any]] = [("bMessageType", Byte), ("dwLength", Int32ul)]
        body: list[tuple[str, Any]] = []
        for field in dataclasses.fields(made):
            part = field.name, field.metadata["wire"]
            (body if field.metadata["body"] else head).append(part)
        made.header_fields = head
        made.header, made.short_header = LaterStruct(head), ShortWay(head)
        made.body, made.short_body = LaterStruct(body), ShortWay.of(body)
        if made.short_header.fixed.size != MESSAGE_HEADER:
            raise TypeError(f"the header of {made.__name__} is not {MESSAGE_HEADER} bytes")
        return cast("type[M]", made)

    return decorate


@declared
class Command(Message):
    """A message on bulk-OUT (USB CCID rev 1.1, 6.1)."""


@declared
class Reply(Message):
    """A message on bulk-IN (USB CCID rev 1.1, 6.2)."""

    bStatus: int = wire(Byte, default=0)
    bError: int = wire(Byte, default=0)

    @property
    def icc_status(self) -> IccStatus:
        """bmICCStatus, bits 0 and 1 of bStatus."""
        return IccStatus(self.bStatus & 0x03)

    @property
    def command_status(self) -> CommandStatus:
        """bmCommandStatus, bits 6 and 7 of bStatus."""
        return CommandStatus(self.bStatus >> 6)

    @property
    def error_text(self) -> str:
        """The meaning of bError in words; empty if the command did not fail."""
        if self.command_status is not CommandStatus.FAILED:
            return ""
        return slot_error_text(self.bError)


def by_type(types: Mapping[int, type[M]], kind: str, data: bytes) -> M:
    """Parse ``data`` as the message of ``types`` that the first byte, bMessageType, names.

    Args:
        types: The message classes by bMessageType.
        kind: The kind of message, for the error.
        data: One message.

    Raises:
        MalformedMessage: ``types`` has no such bMessageType, or :meth:`Message.parse` fails.
    """
    if not data:
        raise MalformedMessage(f"an empty transfer is no {kind}", field="bMessageType")
    cls = types.get(data[0])
    if cls is None:
        raise MalformedMessage(f"bMessageType 0x{data[0]:02X} is no {kind}", field="bMessageType")
    return cls.parse(data)
