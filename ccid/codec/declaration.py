"""Declarations: a dataclass whose fields say, with construct, how they stand on the wire.

A message or a descriptor is written once, as a dataclass that reads like the specification's
table, and everything else comes from it: construct's ``Struct`` that parses and builds it, and,
where microseconds count, a :class:`struct.Struct` of the same layout (:func:`packer`).

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

T = TypeVar("T", bound="type[Declared]")


def wire(
    layout: Any,
    *,
    default: Any = dataclasses.MISSING,
    secret: bool = False,
    body: bool = False,
) -> Any:
    """Declare one field.

    Args:
        layout: Its construct.
        default: Its default value; without one it must be given.
        secret: Keep the value out of ``repr``: it may hold a PIN.
        body: It stands behind a message's fixed header.
    """
    metadata = {"wire": layout, "secret": secret, "body": body}
    if default is dataclasses.MISSING:
        return dataclasses.field(metadata=metadata)
    return dataclasses.field(default=default, metadata=metadata)


class Declared:
    """Base of all declarations: builds, parses, and shows itself without its secrets.

    A value never changes. What :mod:`dataclasses` would write for each class anew, and compile
    whenever this library is imported, is here once.
    """

    __slots__ = ()
    _defaults: ClassVar[dict[str, Any]] = {}
    """Of each field, MISSING where it has none."""
    layout: ClassVar[Any]
    """construct's ``Struct`` of the fields."""
    error: ClassVar[type[MalformedMessage] | type[MalformedDescriptor]]
    """What a failure to parse or build raises."""

    def __init__(self, **values: Any) -> None:
        for name, default in self._defaults.items():
            value = values.pop(name, default)
            if value is dataclasses.MISSING:
                raise TypeError(f"{type(self).__name__}: {name} is missing")
            object.__setattr__(self, name, value)
        if values:
            raise TypeError(f"{type(self).__name__} has no {', '.join(values)}")

    def __setattr__(self, name: str, value: Any) -> None:
        raise dataclasses.FrozenInstanceError(f"cannot assign to field {name!r}")

    def __delattr__(self, name: str) -> None:
        raise dataclasses.FrozenInstanceError(f"cannot delete field {name!r}")

    def __eq__(self, other: object) -> bool:
        if type(other) is not type(self):
            return NotImplemented
        return all(getattr(self, name) == getattr(other, name) for name in self._defaults)

    def __hash__(self) -> int:
        return hash((type(self), *vars_of(self).values()))

    def __reduce__(self) -> tuple[Any, ...]:
        return _remade, (type(self), vars_of(self))

    @classmethod
    def length_field(cls) -> str:
        """The field that says how many bytes there are; empty without one."""
        return "bLength" if cls.error is MalformedDescriptor else ""

    def build(self) -> bytes:
        """The bytes on the wire. Raises ``error`` if a value does not fit its field."""
        return build(self.layout, vars_of(self), type(self))

    @classmethod
    def parse(cls, data: bytes, **context: Any) -> Self:
        """The declaration that ``data`` spells, all of it. Raises ``error`` naming the field."""
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
    """Make ``cls`` a dataclass and gather its fields' constructs into ``cls.layout``."""
    made: Any = dataclasses.dataclass(
        init=False, eq=False, repr=False, kw_only=True, match_args=False, slots=True
    )(cls)
    made._defaults = {f.name: f.default for f in dataclasses.fields(made)}
    made.layout = construct.Struct(*(f.name / f.metadata["wire"] for f in dataclasses.fields(made)))
    return cast(T, made)


def vars_of(value: Declared) -> dict[str, Any]:
    """The fields of ``value`` by name."""
    return {name: getattr(value, name) for name in value._defaults}


def _remade(cls: type[Declared], values: dict[str, Any]) -> Declared:
    """A copy, for :mod:`copy` and :mod:`pickle`."""
    return cls(**values)


def build(layout: Any, values: Mapping[str, Any], owner: type[Declared], **context: Any) -> bytes:
    """``layout.build(values, **context)``, with errors as ``owner`` raises them."""
    try:
        return cast(bytes, layout.build(values, **context))
    except (construct.ConstructError, TypeError, ValueError, AttributeError) as error:
        raise _explained(owner, "cannot build", error) from None


def parse(layout: Any, data: bytes, owner: type[Declared], **context: Any) -> dict[str, Any]:
    """``layout.parse(data)`` to the last byte, with errors as ``owner`` raises them."""
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
    """construct's ``error`` as one of ours. Only its path is told: its text may quote data."""
    path = [step.strip() for step in (getattr(error, "path", None) or "").split("->")]
    field = path[-1] if len(path) > 1 else ""
    return owner.error(f"{owner.__name__}: {what}{f' at {field}' if field else ''}", field=field)


class Nested(construct.Adapter):  # type: ignore[misc]
    """A declaration used as the construct of a field of another one."""

    def __init__(self, cls: type[Declared]) -> None:
        super().__init__(cls.layout)
        self.cls = cls

    def _decode(self, obj: Any, context: Any, path: Any) -> Declared:
        return self.cls(**{k: v for k, v in obj.items() if not k.startswith("_")})

    def _encode(self, obj: Declared, context: Any, path: Any) -> dict[str, Any]:
        return vars_of(obj)


def packer(layout: Any) -> struct.Struct:
    """A :class:`struct.Struct` of the same bytes as ``layout``, a ``Struct`` of plain numbers.

    A parse by construct costs tens of microseconds, by ``struct`` a fraction of one. Taking the
    format from the declaration keeps the declaration the single truth.

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
