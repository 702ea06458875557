"""Modules that are imported by others and never used: they are loaded when they are used.

construct and dataclasses import a debugger, OpenSSL's hashes and a disassembler for functions that
a driver never calls: a third of what a helper would have in memory, and of its time to start. In a
process that is ours alone they can stay where they are. (:class:`importlib.util.LazyLoader` does
not do: up to Python 3.11 an import statement alone makes it load.)
"""

from __future__ import annotations

import importlib
import sys
import threading
from types import ModuleType
from typing import Any

_lock = threading.Lock()


class Later(ModuleType):
    """Stands for a module until something of it is asked for."""

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):  # importlib asks for these; they are no use of it
            raise AttributeError(name)
        with _lock:  # what another thread has loaded meanwhile must stay
            if sys.modules.get(self.__name__) is self:
                del sys.modules[self.__name__]
        return getattr(importlib.import_module(self.__name__), name)


def later(*names: str) -> None:
    """Have the modules ``names`` loaded when they are used. To be called before they are
    imported, and only by whoever is the whole process."""
    for name in names:
        if name not in sys.modules:
            sys.modules[name] = Later(name)
