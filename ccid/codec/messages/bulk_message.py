"""What all bulk messages share: a header of 10 bytes, then dwLength bytes of data."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any, ClassVar, Self, TypeVar, cast, dataclass_transform

import construct
from construct import Byte, Bytes, GreedyBytes, Int32ul

from ccid.codec.declaration import Declared, build, declared, parse, vars_of, wire
from ccid.codes import CommandStatus, IccStatus, slot_error_text
from ccid.errors import MalformedMessage

MESSAGE_HEADER = 10
"""Bytes before the data of every bulk message (USB CCID rev 1.1, 6.1 and 6.2)."""

M = TypeVar("M", bound="Message")


def data(layout: Any = GreedyBytes, *, default: Any = b"", secret: bool = True) -> Any:
    """Declare a field of what follows the header, whose length is dwLength.

    Bytes there are never shown by ``repr``: they may hold a PIN.
    """
    return wire(layout, default=default, secret=secret, body=True)


def rfu(count: int) -> Any:
    """Declare ``count`` bytes that are reserved for future use, zero."""
    return wire(Bytes(count), default=bytes(count))


@declared
class Message(Declared):
    """A bulk message. Every subclass fixes bMessageType and declares its own fields."""

    error = MalformedMessage
    bMessageType: ClassVar[int] = -1
    header: ClassVar[Any]
    """construct's ``Struct`` of the first 10 bytes, bMessageType and dwLength with them."""
    body: ClassVar[Any]
    """construct's ``Struct`` of the dwLength bytes that follow."""

    bSlot: int = wire(Byte, default=0)
    bSeq: int = wire(Byte, default=0)

    @classmethod
    def length_field(cls) -> str:
        return "dwLength"

    def build(self) -> bytes:
        """The bytes on the wire.

        Raises:
            MalformedMessage: A value does not fit its field; ``field`` names it.
        """
        values = vars_of(self)
        abData = build(self.body, values, type(self), **values)
        values |= {"bMessageType": self.bMessageType, "dwLength": len(abData)}
        return build(self.header, values, type(self)) + abData

    @classmethod
    def parse(cls, data: bytes, **context: Any) -> Self:
        """The message that ``data`` spells.

        Raises:
            MalformedMessage: Too short, of another type, dwLength is not the number of bytes
                after the header, or a field is out of order; ``field`` names it.
        """
        if len(data) < MESSAGE_HEADER:
            raise MalformedMessage(
                f"{cls.__name__}: {len(data)} bytes are no header of {MESSAGE_HEADER}",
                field=_field_at(cls, len(data)),
            )
        values = parse(cls.header, data[:MESSAGE_HEADER], cls)
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
        return cls(**values, **parse(cls.body, data[MESSAGE_HEADER:], cls, **values))


def _field_at(cls: type[Message], offset: int) -> str:
    """Name of the header's field that a message cut at ``offset`` lacks first."""
    for named in cls.header.subcons:
        offset -= named.sizeof()
        if offset < 0:
            return str(named.name)
    return ""


@dataclass_transform(frozen_default=True, kw_only_default=True, field_specifiers=(wire,))
def message(bMessageType: int) -> Callable[[type[M]], type[M]]:
    """Class decorator: a declared :class:`Message` of this type.

    The fields up to byte 9 make the header; the one declared by :func:`data`, the body.
    """

    def decorate(cls: type[M]) -> type[M]:
        made: Any = declared(cls)
        made.bMessageType = bMessageType
        head: list[Any] = ["bMessageType" / Byte, "dwLength" / Int32ul]
        body: list[Any] = []
        for field in dataclasses.fields(made):
            part = field.name / field.metadata["wire"]
            (body if field.metadata["body"] else head).append(part)
        made.header = construct.Struct(*head)
        made.body = construct.Struct(*body)
        if made.header.sizeof() != MESSAGE_HEADER:
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
        """What bError says, in words; empty unless the command failed."""
        if self.command_status is not CommandStatus.FAILED:
            return ""
        return slot_error_text(self.bError)


def by_type(types: Mapping[int, type[M]], kind: str, data: bytes) -> M:
    """Parse ``data`` as the message its first byte says, one of ``types``.

    Raises:
        MalformedMessage: No such type, or as :meth:`Message.parse`.
    """
    if not data:
        raise MalformedMessage(f"an empty transfer is no {kind}", field="bMessageType")
    cls = types.get(data[0])
    if cls is None:
        raise MalformedMessage(f"bMessageType 0x{data[0]:02X} is no {kind}", field="bMessageType")
    return cls.parse(data)
