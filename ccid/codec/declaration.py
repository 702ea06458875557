"""Declarations: a dataclass whose fields name their layout on the wire, as constructs.

A message or a descriptor is declared once, as a dataclass that reads like the table in the
specification. The rest follows from the declaration: the ``Struct`` of construct, which parses and
builds the bytes, and, for the hot path, a :class:`struct.Struct` of the same layout
(:func:`packer`).

    @declared
    class SlotStatus(Declared):
        bStatus: int = wire(Int8ul)
        bClockStatus: int = wire(Int8ul, default=0)
"""

from __future__ import annotations

import dataclasses
import io
import struct
from collections.abc import Mapping
from typing import Any, ClassVar, Self, TypeVar, cast, dataclass_transform

import construct

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
        layout: The construct of the field.
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
        return build(self.layout, vars_of(self), type(self))

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
        return cls(**parse(cls.layout, data, cls, **context))

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
    made.layout = construct.Struct(*(f.name / f.metadata["wire"] for f in dataclasses.fields(made)))
    return cast(T, made)


def build(layout: Any, values: Mapping[str, Any], owner: type[Declared], **context: Any) -> bytes:
    """``layout.build(values, **context)``; a failure raises ``owner.error``."""
    try:
        return cast(bytes, layout.build(values, **context))
    except (construct.ConstructError, TypeError, ValueError, AttributeError) as error:
        raise _explained(owner, "cannot build", error) from None


def parse(layout: Any, data: bytes, owner: type[Declared], **context: Any) -> dict[str, Any]:
    """``layout.parse(data, **context)`` of all bytes; a failure raises ``owner.error``."""
    stream = io.BytesIO(data)
    try:
        container = layout.parse_stream(stream, **context)
    except construct.ConstructError as error:
        raise _explained(owner, f"{len(data)} bytes are too few or wrong", error) from None
    if stream.tell() != len(data):
        raise owner.error(
            f"{owner.__name__}: {len(data) - stream.tell()} bytes too many after its last field",
            field=owner.length_field(),
        )
    return {key: value for key, value in container.items() if not key.startswith("_")}


def _explained(
    owner: type[Declared], what: str, error: Exception
) -> MalformedMessage | MalformedDescriptor:
    """An error of class ``owner.error`` for an error of construct. The message contains only the
    path of the field, because the text of construct may quote data."""
    path = [step.strip() for step in (getattr(error, "path", None) or "").split("->")]
    field = path[-1] if len(path) > 1 else ""
    return owner.error(f"{owner.__name__}: {what}{f' at {field}' if field else ''}", field=field)


class Nested(construct.Adapter):  # type: ignore[misc]
    """A declaration as the construct of a field in another declaration."""

    def __init__(self, cls: type[Declared]) -> None:
        super().__init__(cls.layout)
        self.cls = cls

    def _decode(self, obj: Any, context: Any, path: Any) -> Declared:
        return self.cls(**{k: v for k, v in obj.items() if not k.startswith("_")})

    def _encode(self, obj: Declared, context: Any, path: Any) -> dict[str, Any]:
        return vars_of(obj)


def packer(layout: Any) -> struct.Struct:
    """A :class:`struct.Struct` of the same bytes as ``layout``.

    construct needs tens of microseconds to parse a header, ``struct`` a fraction of one. The
    format comes from the declaration, so that the layout is written only once.

    Args:
        layout: A ``Struct`` of construct whose fields are numbers.

    Raises:
        TypeError: A field is no little-endian number of fixed size.
    """
    codes = []
    for named in layout.subcons:
        inner = named.subcon
        plain = isinstance(inner, construct.FormatField)
        if not plain or (inner.length > 1 and not inner.fmtstr.startswith("<")):
            raise TypeError(f"{named.name} has no fixed little-endian format")
        codes.append(inner.fmtstr[1:])
    return struct.Struct("<" + "".join(codes))
