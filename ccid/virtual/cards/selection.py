"""The current file of a card, and how commands refer to files: ISO/IEC 7816-4:2013 7.3."""

from __future__ import annotations

from enum import IntEnum
from typing import TypeVar

from ccid.virtual.cards.card_files import (
    MAX_NAME,
    MAX_SFI,
    MF,
    Access,
    AfterPassword,
    Condition,
    DedicatedFile,
    ElementaryFile,
    File,
)
from ccid.virtual.cards.interindustry import Refused, Sw
from ccid.virtual.cards.passwords import SPECIFIC, SecurityStatus

E = TypeVar("E", bound=ElementaryFile)


class SelectBy(IntEnum):
    """P1 of SELECT (ISO/IEC 7816-4:2013 11.1.1)."""

    FILE_IDENTIFIER = 0x00
    CHILD_DF = 0x01
    EF_UNDER_CURRENT_DF = 0x02
    PARENT_DF = 0x03
    DF_NAME = 0x04
    PATH_FROM_MF = 0x08
    PATH_FROM_CURRENT_DF = 0x09


class Occurrence(IntEnum):
    """b2 b1 of P2 of SELECT, and of the record commands with b3 = 0 (11.1.1 and 11.3.3)."""

    FIRST = 0
    LAST = 1
    NEXT = 2
    PREVIOUS = 3


PATHS = frozenset((SelectBy.PATH_FROM_MF, SelectBy.PATH_FROM_CURRENT_DF))


class Selection:
    """The current DF, EF and record, and the security status, which depends on the DF.

    Args:
        master_file: The MF, the current DF at first.

    Attributes:
        df: The current DF.
        ef: The current EF, None without one.
        record: The record pointer: number of the current record, 0 without one.
        security: The verified passwords.
    """

    def __init__(self, master_file: DedicatedFile) -> None:
        _check(master_file)
        self.master_file = master_file
        self.security = SecurityStatus()
        self.reset()

    def reset(self) -> None:
        """Make the MF current, without a current EF and without a verified password."""
        self.df = self.master_file
        self.ef: ElementaryFile | None = None
        self.record = 0
        self.security.clear()

    def enter(self, file: File, record: int = 0) -> None:
        """Make ``file`` current. Verification in a DF that the selection leaves ends."""
        if isinstance(file, DedicatedFile):
            self.df, self.ef = file, None
        elif isinstance(file, ElementaryFile):
            assert file.parent is not None
            self.df, self.ef = file.parent, file
        self.record = record
        if self.security.any_verified:
            self.security.keep(p for df in self.df.path() for p in df.passwords)

    # SELECT -----------------------------------------------------------------------------------

    def select(self, by: SelectBy, data: bytes, occurrence: Occurrence) -> File:
        """Select the file that ``data`` name; without such a file nothing changes."""
        is_name = by is SelectBy.DF_NAME
        if is_name:
            file: File | None = self._by_name(data, occurrence)
        elif occurrence:
            raise Refused(Sw.INCORRECT_P1_P2)
        elif by is SelectBy.FILE_IDENTIFIER and not data:
            file = self.master_file
        elif by is SelectBy.PARENT_DF:
            if data:
                raise Refused(Sw.NC_INCONSISTENT_WITH_P1_P2)
            file = self.df.parent
        else:
            file = self._by_identifiers(by, data)
        if file is None:
            raise Refused(Sw.FILE_NOT_FOUND)
        self.enter(file)
        if is_name:
            self.security.forget(p for p in self.df.passwords if p.reference & SPECIFIC)
        return file

    def _by_name(self, name: bytes, occurrence: Occurrence) -> DedicatedFile | None:
        """A DF by its name or the beginning of it; next and previous count from the current DF."""
        if not 1 <= len(name) <= MAX_NAME:
            raise Refused(Sw.NC_INCONSISTENT_WITH_P1_P2)
        dfs = list(self.master_file.tree())
        here = dfs.index(self.df)
        match occurrence:
            case Occurrence.NEXT:
                dfs = dfs[here + 1 :]
            case Occurrence.PREVIOUS:
                dfs = dfs[:here][::-1]
            case Occurrence.LAST:
                dfs.reverse()
        return next((df for df in dfs if df.name.startswith(name)), None)

    def _by_identifiers(self, by: SelectBy, data: bytes) -> File | None:
        """A file by its identifier, or by a path of identifiers."""
        if not data or len(data) % 2 or (len(data) > 2 and by not in PATHS):
            raise Refused(Sw.NC_INCONSISTENT_WITH_P1_P2)
        if by is SelectBy.FILE_IDENTIFIER:
            return self._near(int.from_bytes(data, "big"))
        fids = [int.from_bytes(data[i : i + 2], "big") for i in range(0, len(data), 2)]
        if by is SelectBy.PATH_FROM_MF:
            return _follow(self.master_file, fids)
        file = _follow(self.df, fids)
        match by:
            case SelectBy.CHILD_DF:
                return file if isinstance(file, DedicatedFile) else None
            case SelectBy.EF_UNDER_CURRENT_DF:
                return file if isinstance(file, ElementaryFile) else None
        return file

    def _near(self, fid: int) -> File | None:
        """The nearest file that ``fid`` alone can select: a child of the current DF, the current
        DF, its parent, another DF in the same parent, or the MF."""
        df = self.df
        for child in df.children:
            if child.fid == fid:
                return child
        if df.fid == fid:
            return df
        if df.parent is not None:
            if df.parent.fid == fid:
                return df.parent
            for beside in df.parent.children:
                if beside.fid == fid and isinstance(beside, DedicatedFile):
                    return beside
        return self.master_file if fid == MF else None

    # The EF of another command ----------------------------------------------------------------

    def by_sfi(self, sfi: int) -> ElementaryFile:
        """The EF in the current DF with this short EF identifier; 0 for the current EF."""
        if sfi > MAX_SFI:
            raise Refused(Sw.INCORRECT_P1_P2)
        if not sfi:
            if self.ef is None:
                raise Refused(Sw.NO_CURRENT_EF)
            return self.ef
        for ef in self.df.elementary_files():
            if ef.sfi == sfi:
                return ef
        raise Refused(Sw.FILE_NOT_FOUND)

    def by_p1_p2(self, p1_p2: int) -> ElementaryFile:
        """The EF that P1-P2 name with an odd INS (ISO/IEC 7816-4:2013 11.2.2)."""
        if p1_p2 <= 0x1F:
            return self.by_sfi(p1_p2)
        ef = self.df.child(p1_p2)
        if not isinstance(ef, ElementaryFile):
            raise Refused(Sw.FILE_NOT_FOUND)
        return ef

    def permit(self, ef: ElementaryFile, structure: type[E], condition: Condition) -> E:
        """``ef``, if its structure is ``structure`` and ``condition`` is fulfilled."""
        if not isinstance(ef, structure):
            raise Refused(Sw.INCOMPATIBLE_FILE_STRUCTURE)
        if not self._fulfilled(condition):
            raise Refused(Sw.SECURITY_STATUS_NOT_SATISFIED)
        return ef

    def _fulfilled(self, condition: Condition) -> bool:
        if isinstance(condition, Access):
            return condition is Access.ALWAYS
        password = self.df.password(condition.reference)
        return password is not None and self.security.satisfies(password)


def _follow(df: DedicatedFile, fids: list[int]) -> File | None:
    """The file at the end of a path that starts in ``df``."""
    file: File | None = df
    for fid in fids:
        file = file.child(fid) if isinstance(file, DedicatedFile) else None
    return file


def _check(master_file: DedicatedFile) -> None:
    if master_file.fid != MF or master_file.parent is not None:
        raise ValueError(f"{master_file!r} is no master file")
    for df in master_file.tree():
        for ef in df.elementary_files():
            for condition in (ef.read, ef.update):
                if isinstance(condition, AfterPassword) and not df.password(condition.reference):
                    raise ValueError(
                        f"no password 0x{condition.reference:02X}, which {ef!r} wants, "
                        f"is in a DF of its path"
                    )
