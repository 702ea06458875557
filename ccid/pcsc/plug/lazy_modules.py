"""Modules that others import and a helper never uses: they are loaded when something uses them.

pyusb, construct and parts of the standard library (ctypes.util, urllib.parse, logging, and
dataclasses before Python 3.12) import modules for functions that a driver hardly ever calls: a
debugger, OpenSSL's hashes, a disassembler, subprocess (``ccid.pcsc.plug.helper.UNUSED`` is the
list). They cost some megabytes and a tenth of a helper's start.

A plain lazy import cannot do this: the ``import`` statements are not in this project.
:class:`importlib.util.LazyLoader` cannot do this: an ``import`` statement reads ``__spec__`` of the
module, and that loads the module (so in Python 3.11 to 3.13). Therefore a stand-in takes the place
of each module in ``sys.modules``. Only the helper process and ``ccid-pcscd`` do this: no other
program's code runs there.
"""

from __future__ import annotations

import importlib
import sys
import threading
from types import ModuleType
from typing import Any

_lock = threading.Lock()


class LazyModule(ModuleType):
    """Stands in for a module until an attribute of the module is read."""

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):  # importlib reads special names; that is no use of the module
            raise AttributeError(name)
        with _lock:  # if another thread has loaded the module meanwhile, that one stays
            if sys.modules.get(self.__name__) is self:
                del sys.modules[self.__name__]
        return getattr(importlib.import_module(self.__name__), name)


def load_lazily(*names: str) -> None:
    """Put a stand-in in the place of each module that is not loaded yet.

    Call this before anything imports the modules, and only in a process that runs nothing else.

    Args:
        names: Names of the modules.
    """
    for name in names:
        if name not in sys.modules:
            sys.modules[name] = LazyModule(name)
