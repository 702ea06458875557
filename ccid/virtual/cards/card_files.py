"""Files of a virtual card: ISO/IEC 7816-4:2013 7.1 to 7.4.

A dedicated file (DF) has children: DFs and elementary files (EF). An EF holds data units, one
byte each, or records. The DF at the root is the master file (MF).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from enum import Enum

from ccid.ground.records import record
from ccid.virtual.cards import tlv
from ccid.virtual.cards.interindustry import Refused, Sw
from ccid.virtual.cards.passwords import SPECIFIC, Password

MF = 0x3F00
RESERVED_FIDS = (0x0000, 0x3FFF, 0xFFFF)
"""Reserved file identifiers (ISO/IEC 7816-4:2013 7.3.2)."""
MAX_SFI = 30
MAX_RECORDS = 254
MAX_NAME = 16

DATA_CODING = 0x21
"""Data coding byte (12.1.1): no TLV structure; data units of 2 quartets, a byte."""
DF_DESCRIPTOR = 0x38
OPERATIONAL_ACTIVATED = 0x05
"""Life cycle status byte (ISO/IEC 7816-4:2013 7.4.10)."""

READ_MODE, UPDATE_MODE, APPEND_MODE = 0x01, 0x02, 0x04
"""Bits of the access mode byte for EFs (ISO/IEC 7816-4:2013 9.3.3)."""
USER_AUTHENTICATION = 0x10
"""b5 of a security condition byte, without a security environment (9.3.3)."""

# Tags of the control parameters (ISO/IEC 7816-4:2013 7.4.3) and of other data of a file
NUMBER_OF_BYTES = 0x80
FILE_DESCRIPTOR = 0x82
FILE_IDENTIFIER = 0x83
DF_NAME = 0x84
SHORT_EF_IDENTIFIER = 0x88
LIFE_CYCLE_STATUS = 0x8A
SECURITY_ATTRIBUTE_COMPACT = 0x8C
APPLICATION_IDENTIFIER = 0x4F
APPLICATION_LABEL = 0x50


class Access(Enum):
    """An access condition without a password; the value is the security condition byte (9.3.3)."""

    ALWAYS = 0x00
    NEVER = 0xFF


@record
class AfterPassword:
    """An access condition: the password with this reference is verified."""

    reference: int


Condition = Access | AfterPassword


class File(ABC):
    """The base class of DFs and EFs.

    Attributes:
        fid: File identifier.
        parent: The DF that contains the file; None for the MF.
    """

    def __init__(self, fid: int) -> None:
        if not 0 <= fid <= 0xFFFF or fid in RESERVED_FIDS:
            raise ValueError(f"{fid:04X} is no file identifier")
        self.fid = fid
        self.parent: DedicatedFile | None = None

    @abstractmethod
    def control_parameters(self) -> bytes:
        """The data objects of the file's FCP template (ISO/IEC 7816-4:2013 7.4.3)."""

    def management_data(self) -> bytes:
        """The data objects of the file's FMD template (ISO/IEC 7816-4:2013 7.4.1)."""
        return b""

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.fid:04X}>"


class ElementaryFile(File):
    """An EF.

    Attributes:
        sfi: Short EF identifier, 1 to 30; None for an EF without one.
        read, update: Access conditions. ``update`` is also the condition for appending.
    """

    access_modes = READ_MODE | UPDATE_MODE

    def __init__(self, fid: int, *, sfi: int | None, read: Condition, update: Condition) -> None:
        super().__init__(fid)
        if sfi is not None and not 1 <= sfi <= MAX_SFI:
            raise ValueError(f"{sfi} is no short EF identifier; these are 1 to {MAX_SFI}")
        self.sfi = sfi
        self.read = read
        self.update = update

    @property
    @abstractmethod
    def size(self) -> int:
        """Bytes of data in the EF."""

    @property
    @abstractmethod
    def descriptor(self) -> bytes:
        """The value of DO'82' (ISO/IEC 7816-4:2013 7.4.5)."""

    def control_parameters(self) -> bytes:
        size = self.size.to_bytes(max((self.size.bit_length() + 7) // 8, 2), "big")
        sfi = b"" if self.sfi is None else bytes((self.sfi << 3,))
        return (
            tlv.encode(NUMBER_OF_BYTES, size)
            + tlv.encode(FILE_DESCRIPTOR, self.descriptor)
            + tlv.encode(FILE_IDENTIFIER, self.fid.to_bytes(2, "big"))
            + tlv.encode(SHORT_EF_IDENTIFIER, sfi)
            + tlv.encode(LIFE_CYCLE_STATUS, bytes((OPERATIONAL_ACTIVATED,)))
            + tlv.encode(SECURITY_ATTRIBUTE_COMPACT, self._security_attribute())
        )

    def _security_attribute(self) -> bytes:
        """Access mode byte, then one condition byte for each set bit from b7 down (9.3.3)."""
        conditions = [self.update] * (self.access_modes.bit_count() - 1) + [self.read]
        return bytes((self.access_modes, *map(_condition_byte, conditions)))


def _condition_byte(condition: Condition) -> int:
    return condition.value if isinstance(condition, Access) else USER_AUTHENTICATION


class TransparentFile(ElementaryFile):
    """An EF of transparent structure.

    Args:
        fid: File identifier.
        data: The content.
        size: Bytes of the EF, by default the length of ``data``; FF fills the rest.
        sfi: Short EF identifier, 1 to 30; None for an EF without one.
        read, update: Access conditions.
    """

    def __init__(
        self,
        fid: int,
        data: bytes = b"",
        *,
        size: int | None = None,
        sfi: int | None = None,
        read: Condition = Access.ALWAYS,
        update: Condition = Access.ALWAYS,
    ) -> None:
        super().__init__(fid, sfi=sfi, read=read, update=update)
        if size is not None and len(data) > size:
            raise ValueError(f"{len(data)} bytes of data in an EF of {size}")
        self.data = bytearray(data.ljust(size or 0, b"\xff"))

    @property
    def size(self) -> int:
        return len(self.data)

    @property
    def descriptor(self) -> bytes:
        return b"\x01"


class RecordStructure(Enum):
    """The structure of an EF with records; the value is the file descriptor byte (7.4.5)."""

    LINEAR_FIXED = 0x02
    LINEAR_FIXED_TLV = 0x03
    LINEAR_VARIABLE = 0x04
    LINEAR_VARIABLE_TLV = 0x05
    CYCLIC = 0x06
    CYCLIC_TLV = 0x07

    @property
    def is_cyclic(self) -> bool:
        """True if record 1 is the newest, and appending to a full EF replaces the oldest."""
        return self in (RecordStructure.CYCLIC, RecordStructure.CYCLIC_TLV)

    @property
    def is_fixed(self) -> bool:
        """True if all records have the same size."""
        return self not in (RecordStructure.LINEAR_VARIABLE, RecordStructure.LINEAR_VARIABLE_TLV)


class RecordFile(ElementaryFile):
    """An EF of record structure.

    Args:
        fid: File identifier.
        structure: The structure of the EF.
        records: The records, from number 1; in a cyclic EF from the newest.
        record_size: Bytes of the longest record; by default that of ``records``.
        max_records: The largest number of records; by default the number of ``records``.
        sfi: Short EF identifier, 1 to 30; None for an EF without one.
        read, update: Access conditions; ``update`` is also the condition for appending.
    """

    access_modes = READ_MODE | UPDATE_MODE | APPEND_MODE

    def __init__(
        self,
        fid: int,
        structure: RecordStructure,
        records: Sequence[bytes] = (),
        *,
        record_size: int | None = None,
        max_records: int | None = None,
        sfi: int | None = None,
        read: Condition = Access.ALWAYS,
        update: Condition = Access.ALWAYS,
    ) -> None:
        super().__init__(fid, sfi=sfi, read=read, update=update)
        self.structure = structure
        self.record_size = record_size or max(map(len, records), default=0)
        self.max_records = max_records or len(records)
        self.records = [bytes(record) for record in records]
        if not 1 <= self.record_size <= 0xFFFF:
            raise ValueError(f"records of {self.record_size} bytes")
        if not max(len(records), 1) <= self.max_records <= MAX_RECORDS:
            raise ValueError(f"{len(records)} records where {self.max_records} can be")
        for one in self.records:
            if not self._fits(one):
                raise ValueError(f"a record of {len(one)} bytes, not {self.record_size}")

    @property
    def size(self) -> int:
        return sum(map(len, self.records))

    @property
    def descriptor(self) -> bytes:
        size = self.record_size.to_bytes(2, "big")
        return bytes((self.structure.value, DATA_CODING, *size, len(self.records)))

    def write(self, number: int, record: bytes) -> None:
        """Replace the record with this number; the first is 1."""
        self._check(record)
        self.records[number - 1] = record

    def append(self, record: bytes) -> int:
        """Add a record, in a full cyclic EF instead of the oldest; return the record's number."""
        self._check(record)
        if self.structure.is_cyclic:
            self.records = [record, *self.records][: self.max_records]
            return 1
        if len(self.records) == self.max_records:
            raise Refused(Sw.NOT_ENOUGH_MEMORY)
        self.records.append(record)
        return len(self.records)

    def _fits(self, record: bytes) -> bool:
        if self.structure.is_fixed:
            return len(record) == self.record_size
        return 1 <= len(record) <= self.record_size

    def _check(self, record: bytes) -> None:
        if not self._fits(record):
            raise Refused(Sw.WRONG_LENGTH)


class DedicatedFile(File):
    """A DF: the MF, an application DF, or one without a name.

    Args:
        fid: File identifier; :data:`MF` for the master file.
        children: The files in the DF.
        name: DF name, 1 to 16 bytes: the AID of an application. Empty for a DF without a name.
        label: Application label, DO'50'.
        passwords: Passwords for VERIFY; global ones in the MF, specific ones in other DFs.
        data_objects: Values for GET DATA in this DF and the DFs below, by tag (P1-P2).
    """

    def __init__(
        self,
        fid: int,
        children: Sequence[File] = (),
        *,
        name: bytes = b"",
        label: str = "",
        passwords: Sequence[Password] = (),
        data_objects: Mapping[int, bytes] | None = None,
    ) -> None:
        super().__init__(fid)
        if len(name) > MAX_NAME:
            raise ValueError(f"a DF name of {len(name)} bytes; it has at most {MAX_NAME}")
        self.name = name
        self.label = label
        self.children = tuple(children)
        self.passwords = tuple(passwords)
        self.data_objects = dict(data_objects or {})
        self._check_children()
        for password in self.passwords:
            if bool(password.reference & SPECIFIC) == (fid == MF):
                raise ValueError(f"{password!r} in the DF {fid:04X}")
        for child in self.children:
            child.parent = self

    def _check_children(self) -> None:
        fids = [child.fid for child in self.children]
        sfis = [e.sfi for e in self.elementary_files() if e.sfi is not None]
        for numbers in (fids, sfis):
            if len(set(numbers)) < len(numbers):
                raise ValueError(f"two files in the DF {self.fid:04X} have the same identifier")
        for child in self.children:
            if child.fid == MF or child.parent is not None:
                raise ValueError(f"{child!r} cannot be in the DF {self.fid:04X}")

    def elementary_files(self) -> Iterator[ElementaryFile]:
        """The EFs in this DF."""
        return (child for child in self.children if isinstance(child, ElementaryFile))

    def child(self, fid: int) -> File | None:
        """The file in this DF with this identifier; None if there is none."""
        return next((child for child in self.children if child.fid == fid), None)

    def path(self) -> Iterator[DedicatedFile]:
        """This DF, its parent and so on to the MF."""
        df: DedicatedFile | None = self
        while df is not None:
            yield df
            df = df.parent

    def tree(self) -> Iterator[DedicatedFile]:
        """This DF and all DFs below."""
        yield self
        for child in self.children:
            if isinstance(child, DedicatedFile):
                yield from child.tree()

    def password(self, reference: int) -> Password | None:
        """The password with this reference that is valid here: of this DF or of a DF above."""
        passwords = (p for df in self.path() for p in df.passwords)
        return next((p for p in passwords if p.reference == reference), None)

    def control_parameters(self) -> bytes:
        return (
            tlv.encode(FILE_DESCRIPTOR, bytes((DF_DESCRIPTOR,)))
            + tlv.encode(FILE_IDENTIFIER, self.fid.to_bytes(2, "big"))
            + (tlv.encode(DF_NAME, self.name) if self.name else b"")
            + tlv.encode(LIFE_CYCLE_STATUS, bytes((OPERATIONAL_ACTIVATED,)))
        )

    def management_data(self) -> bytes:
        return tlv.encode(APPLICATION_LABEL, self.label.encode()) if self.label else b""
