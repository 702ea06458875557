"""Declarations: a dataclass whose fields name their layout on the wire.

A message or a descriptor is declared once, as a dataclass that reads like the table in the
specification. The rest follows from the declaration: the ``Struct`` of construct, which parses and
builds the bytes, and, where the layout is plain, a :class:`struct.Struct` of the same layout, which
does the same in a fraction of the time, and without the time that construct takes to be imported
(:class:`ccid.codec.layouts.ShortWay`).

    @declared
    class SlotStatus(Declared):
        bStatus: int = wire(Byte)
        bClockStatus: int = wire(Byte, default=0)
"""

from __future__ import annotations

import dataclasses
import io
import struct
import sys
from collections.abc import Mapping
from typing import Any, ClassVar, Self, TypeVar, cast, dataclass_transform

from ccid.codec.layouts import Fields, ShortWay, constructed
from ccid.errors import MalformedDescriptor, MalformedMessage
from ccid.ground.records import make, vars_of

T = TypeVar("T", bound="type[Declared]")


def wire(
    layout: Any,
    *,
    default: Any = dataclasses.MISSING,
    secret: bool = False,
    body: bool = False,
) -> Any:
    """Declare one field of a :class:`Declared`.

    Args:
        layout: One of :mod:`ccid.codec.layouts`, or an object of construct.
        default: The default value. A field without a default value is obligatory.
        secret: ``repr`` hides the value, which may hold a PIN.
        body: The field stands after the fixed header of a message.
    """
    metadata = {"wire": layout, "secret": secret, "body": body}
    if default is dataclasses.MISSING:
        return dataclasses.field(metadata=metadata)
    return dataclasses.field(default=default, metadata=metadata)


class Declared:
    """Base class of all declarations: build, parse, and ``repr`` without secrets. They are records
    (:mod:`ccid.ground.records`): immutable, and made by naming the fields."""

    __slots__ = ()
    layout: ClassVar[Any]
    """The ``Struct`` of construct with all fields."""
    short: ClassVar[ShortWay | None]
    """The short way of all fields, where the layout is plain."""
    error: ClassVar[type[MalformedMessage] | type[MalformedDescriptor]]
    """The class of the error that parsing and building raise."""

    @classmethod
    def length_field(cls) -> str:
        """Name of the field that holds the number of bytes; empty without such a field."""
        return "bLength" if cls.error is MalformedDescriptor else ""

    def build(self) -> bytes:
        """The bytes on the wire.

        Raises:
            MalformedMessage, MalformedDescriptor: A value does not fit its field; ``field`` names
                the field.
        """
        values = vars_of(self)
        built = None if self.short is None else self.short.build(values, {})
        return build(self.layout, values, type(self)) if built is None else built

    @classmethod
    def size(cls) -> int:
        """Bytes on the wire of all fields of fixed size."""
        return cls.layout.sizeof() if cls.short is None else cls.short.fixed.size

    @classmethod
    def parse(cls, data: bytes, **context: Any) -> Self:
        """The object that ``data`` encodes.

        Args:
            data: All bytes of the object, and no more.
            **context: Values that the constructs of the fields need.

        Raises:
            MalformedMessage, MalformedDescriptor: ``data`` are too short, too long or wrong;
                ``field`` names the wrong field.
        """
        values = None if cls.short is None else cls.short.parse(data, context)
        return cls(**parse(cls.layout, data, cls, **context) if values is None else values)

    def __repr__(self) -> str:
        shown = []
        for field in dataclasses.fields(cast(Any, self)):
            value = getattr(self, field.name)
            if field.metadata.get("secret") and isinstance(value, bytes):
                text = f"<{len(value)} bytes>"
            elif isinstance(value, bytes):
                text = f"bytes.fromhex('{value.hex()}')"
            elif isinstance(value, int) and not isinstance(value, bool) and value > 9:
                text = hex(value)
            else:
                text = repr(value)
            shown.append(f"{field.name}={text}")
        return f"{type(self).__name__}({', '.join(shown)})"


@dataclass_transform(frozen_default=True, kw_only_default=True, field_specifiers=(wire,))
def declared(cls: T) -> T:
    """Class decorator: make ``cls`` a dataclass, and collect the constructs of its fields in
    ``cls.layout``."""
    made: Any = make(cls, kw_only=True, match_args=False)
    fields = [(f.name, f.metadata["wire"]) for f in dataclasses.fields(made)]
    made.layout, made.short = LaterStruct(fields), ShortWay.of(fields)
    return cast(T, made)


class LaterStruct:
    """A ``Struct`` of construct as an attribute of a class. It is made when it is first asked for:
    only then construct is imported.

    Args:
        fields: Names and layouts.
    """

    def __init__(self, fields: Fields) -> None:
        self._fields = fields
        self._made: Any = None

    def __get__(self, _: Any, owner: type[Any]) -> Any:
        if self._made is None:
            self._made = constructed(self._fields)
        return self._made


def build(layout: Any, values: Mapping[str, Any], owner: type[Declared], **context: Any) -> bytes:
    """``layout.build(values, **context)``; a failure raises ``owner.error``."""
    try:
        return cast(bytes, layout.build(values, **context))
    except (_construct_error(), TypeError, ValueError, AttributeError) as error:
        raise _explained(owner, "cannot build", error) from None


def parse(layout: Any, data: bytes, owner: type[Declared], **context: Any) -> dict[str, Any]:
    """``layout.parse(data, **context)`` of all bytes; a failure raises ``owner.error``."""
    stream = io.BytesIO(data)
    try:
        container = layout.parse_stream(stream, **context)
    except _construct_error() as error:
        raise _explained(owner, f"{len(data)} bytes are too few or wrong", error) from None
    if stream.tell() != len(data):
        raise owner.error(
            f"{owner.__name__}: {len(data) - stream.tell()} bytes too many after its last field",
            field=owner.length_field(),
        )
    return {key: value for key, value in container.items() if not key.startswith("_")}


def _construct_error() -> type[Exception]:
    """What construct raises. Whoever has a ``Struct`` has imported construct."""
    error: type[Exception] = sys.modules["construct"].ConstructError
    return error


def _explained(
    owner: type[Declared], what: str, error: Exception
) -> MalformedMessage | MalformedDescriptor:
    """An error of class ``owner.error`` for an error of construct. The message contains only the
    path of the field, because the text of construct may quote data."""
    path = [step.strip() for step in (getattr(error, "path", None) or "").split("->")]
    field = path[-1] if len(path) > 1 else ""
    return owner.error(f"{owner.__name__}: {what}{f' at {field}' if field else ''}", field=field)


def packer(fields: Fields) -> struct.Struct:
    """A :class:`struct.Struct` of ``fields``, for the hot path.

    construct needs tens of microseconds to parse a header, ``struct`` a fraction of one. The
    format comes from the declaration, so that the layout is written only once.

    Args:
        fields: Names and layouts.

    Raises:
        TypeError: A field is not of fixed size.
    """
    return ShortWay(fields).fixed
