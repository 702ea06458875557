"""The layouts of fields: what a declaration says of a field on the wire. Pure.

Each word has the name of construct's, and makes construct's object when one is needed. Until then
construct, which takes some 10 ms to import, is not loaded. Numbers, fixed bytes and "all bytes that
are left" also know how :mod:`struct` has them: :class:`ShortWay` parses and builds what consists of
these. It says None wherever anything is not as it should be, and construct then says what is wrong.
So both ways give equal results, and construct's is the judge.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any


class Layout:
    """The layout of one field.

    Args:
        make: Makes construct's object; is given the module ``construct``.
    """

    def __init__(self, make: Callable[[Any], Any]) -> None:
        self.make = make

    def construct(self, field: str) -> Any:
        """Construct's object.

        Args:
            field: Name of the field.
        """
        import construct

        return self.make(construct)


class Fixed(Layout):
    """A field of fixed size.

    Args:
        make: As for :class:`Layout`.
        code: The field, little-endian, as :mod:`struct` has it.
        allowed: The values it may have; None for any.
    """

    def __init__(
        self, make: Callable[[Any], Any], code: str, allowed: Collection[int] | None = None
    ) -> None:
        super().__init__(make)
        self.code = code
        self.allowed = allowed
        self.size = struct.calcsize("<" + code)


Byte = Fixed(lambda c: c.Byte, "B")
Int16ul = Fixed(lambda c: c.Int16ul, "H")
Int32ul = Fixed(lambda c: c.Int32ul, "I")


def Const(value: int, number: Fixed) -> Fixed:  # noqa: N802
    """A number that always has this value."""
    return Fixed(lambda c: c.Const(value, number.make(c)), number.code, (value,))


def OneOf(number: Fixed, values: Collection[int]) -> Fixed:  # noqa: N802
    """A number that has one of these values."""
    return Fixed(lambda c: c.OneOf(number.make(c), values), number.code, values)


def Bytes(count: int) -> Fixed:  # noqa: N802
    """So many bytes."""
    return Fixed(lambda c: c.Bytes(count), f"{count}s")


class Rest(Layout):
    """All bytes that are left."""

    def __init__(self) -> None:
        super().__init__(lambda c: c.GreedyBytes)

    def decode(self, raw: bytes, values: Mapping[str, Any]) -> Any:
        """What ``raw`` is.

        Args:
            raw: The bytes.
            values: The fields before this one, of the header too.
        """
        return raw

    def encode(self, value: Any, values: Mapping[str, Any], field: str) -> bytes | None:
        """The bytes of ``value``; None if it is nothing that has bytes.

        Args:
            value: What :meth:`decode` returns.
            values: As above.
            field: Name of the field, for errors.
        """
        return value if isinstance(value, bytes) else None


GreedyBytes = Rest()


class Structure(Rest):
    """All bytes that are left, as something else than bytes."""

    def construct(self, field: str) -> Any:
        import construct

        def decoded(raw: bytes, context: Any) -> Any:
            return self.decode(raw, _values(context))

        def encoded(value: Any, context: Any) -> Any:
            raw = self.encode(value, _values(context), field)
            return value if raw is None else raw

        return construct.ExprAdapter(construct.GreedyBytes, decoded, encoded)


def _values(context: Any) -> dict[str, Any]:
    """The fields that construct knows of in the middle of a structure."""
    return {name: value for name, value in {**context._params, **context}.items() if name[0] != "_"}


Fields = Sequence[tuple[str, Any]]
"""Names and layouts: :class:`Layout`, or objects of construct."""


def constructed(fields: Fields) -> Any:
    """The ``Struct`` of construct with these fields."""
    import construct

    return construct.Struct(
        *(
            name / (layout.construct(name) if isinstance(layout, Layout) else layout)
            for name, layout in fields
        )
    )


class ShortWay:
    """Fields of fixed size, and perhaps one behind them that takes all bytes that are left.

    Args:
        fields: Names and layouts.

    Raises:
        TypeError: There are other fields.

    Attributes:
        fixed: The fields of fixed size.
    """

    def __init__(self, fields: Fields) -> None:
        *most, last = fields or [("", None)]
        self._rest: Rest | None = last[1] if isinstance(last[1], Rest) else None
        self._last = last[0] if self._rest is not None else ""
        fixed = [*most] if self._rest is not None or not fields else list(fields)
        others = [name for name, layout in fixed if not isinstance(layout, Fixed)]
        if others:
            raise TypeError(f"{', '.join(others)}: not of fixed size")
        self.fixed = struct.Struct("<" + "".join(layout.code for _, layout in fixed))
        self._names = [name for name, _ in fixed]
        self._checked = [(name, f.allowed) for name, f in fixed if f.allowed is not None]
        self._bytes = [(name, f.size) for name, f in fixed if f.code[-1] == "s"]

    @classmethod
    def of(cls, fields: Fields) -> ShortWay | None:
        """The short way of ``fields``; None where there is none."""
        try:
            return cls(fields)
        except TypeError:
            return None

    def parse(self, data: bytes, context: Mapping[str, Any]) -> dict[str, Any] | None:
        """The values of all fields; None if anything is not as it should be."""
        size = self.fixed.size
        if len(data) < size or (len(data) > size and self._rest is None):
            return None
        values = dict(zip(self._names, self.fixed.unpack_from(data), strict=True))
        if not all(values[name] in allowed for name, allowed in self._checked):
            return None
        if self._rest is not None:
            raw = bytes(data[size:])
            values[self._last] = self._rest.decode(raw, {**context, **values})
        return values

    def build(self, values: Mapping[str, Any], context: Mapping[str, Any]) -> bytes | None:
        """The bytes; None if anything is not as it should be."""
        if not all(values[name] in allowed for name, allowed in self._checked):
            return None
        for name, size in self._bytes:  # struct would fill them up, or cut them off
            if not isinstance(values[name], bytes) or len(values[name]) != size:
                return None
        try:
            built = self.fixed.pack(*[values[name] for name in self._names])
        except (struct.error, KeyError):
            return None
        if self._rest is None:
            return built
        rest = self._rest.encode(values[self._last], {**context, **values}, self._last)
        return None if rest is None else built + rest
