"""Which response code of IFD handler 3.0 stands for which error of this library."""

from __future__ import annotations

from ccid.errors import (
    CardAbsent,
    CardRemoved,
    CcidError,
    PpsFailed,
    ReaderClosed,
    ReaderRemoved,
)
from ccid.pcsc.ifd_numbers import Code

ERRORS: tuple[tuple[type[CcidError], Code], ...] = (
    (ReaderRemoved, Code.NO_SUCH_DEVICE),
    (ReaderClosed, Code.NO_SUCH_DEVICE),
    (CardRemoved, Code.ICC_NOT_PRESENT),
    (CardAbsent, Code.ICC_NOT_PRESENT),
    (PpsFailed, Code.ERROR_PTS_FAILURE),
    (CcidError, Code.COMMUNICATION_ERROR),
)
"""The first line whose type matches counts. A function of the handler may decide otherwise."""


def code_of(error: CcidError) -> Code:
    """The response code of the first line of :data:`ERRORS` that matches ``error``."""
    return next(code for kind, code in ERRORS if isinstance(error, kind))
