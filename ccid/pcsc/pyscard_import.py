"""Has ``smartcard.scard``, pyscard's compiled part, be :mod:`ccid.pcsc.scard`.

The rest of pyscard is pure Python and imports that name. A finder in front of all others answers
for it, so pyscard's own is neither loaded nor needed: it may be missing, or built for another
Python.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType

from ccid.errors import CcidError

PACKAGE = "smartcard.scard"
NAMES = (PACKAGE, f"{PACKAGE}.scard")
"""pyscard's is a package with a module of the same name in it."""


class PyscardInUse(CcidError):
    """pyscard's own ``smartcard.scard`` was imported already: its functions are in use."""


class _Loader(Loader):
    """Fills a module with what :mod:`ccid.pcsc.scard` has."""

    def create_module(self, spec: ModuleSpec) -> None:
        """An ordinary one will do."""

    def exec_module(self, module: ModuleType) -> None:
        """The same names."""
        from ccid.pcsc import scard

        module.__doc__ = scard.__doc__
        for name in scard.__all__:
            setattr(module, name, getattr(scard, name))


class _Finder(MetaPathFinder):
    """Answers for :data:`NAMES`."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """The specification of a module that is ours; None for all others."""
        if fullname not in NAMES:
            return None
        return ModuleSpec(fullname, _Loader(), origin=__name__, is_package=fullname == PACKAGE)


_finder = _Finder()


def is_installed() -> bool:
    """:func:`install` was called."""
    return _finder in sys.meta_path


def install() -> None:
    """Have ``smartcard.scard`` be ours from its first import on.

    Raises:
        PyscardInUse: It was imported already, and is pyscard's own.
    """
    there = sys.modules.get(PACKAGE)
    spec = getattr(there, "__spec__", None)
    if there is not None and not isinstance(getattr(spec, "loader", None), _Loader):
        raise PyscardInUse(
            "smartcard.scard was imported before: call ccid.pcsc.under_pyscard() before the first "
            "import of smartcard"
        )
    if not is_installed():
        sys.meta_path.insert(0, _finder)
