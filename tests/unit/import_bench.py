"""Import every module of the package first, in a process of its own, and print those that fail.

The process is a fork. Its parent has imported the package of the module, as Python does in any
case, and everything that is not of this project. So each module costs only its own imports, and no
interpreter starts. A module that imports only modules that were tried before is loaded in the
parent after it was tried: such a module cannot be half loaded for another one.
"""

from __future__ import annotations

import gc
import importlib
import os
import pkgutil
import sys
import traceback

EARLIER = [
    *("argparse", "asyncio", "construct", "dataclasses", "importlib.resources", "json"),
    *("libusb_package", "logging", "selectors", "tomllib", "usb.backend.libusb1", "usb.core"),
]

BASE = (
    *("ground.safe_text", "ground.records", "errors", "codes"),
    *("codec.layouts", "codec.declaration", "codec.messages", "codec.descriptors"),
    *("iso7816", "known.quirks", "transport"),
)


def bad_below(package: str) -> int:
    """How many modules of ``package`` cannot be imported next. ``package`` is imported."""
    path = sys.modules[package].__path__
    return sum(
        bad_first(f"{package}.{found.name}", found.ispkg)
        for found in pkgutil.iter_modules(path)
        if found.name != "__main__"
    )


def bad_first(name: str, is_package: bool) -> int:
    """How many of module ``name`` and the modules below it cannot be imported in a process like
    this."""
    sys.stdout.flush()
    child = os.fork()
    if child:
        return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    bad = 0
    try:
        importlib.import_module(name)
        bad = bad_below(name) if is_package and hasattr(sys.modules[name], "__path__") else 0
    except BaseException:
        print(f"import {name}:", traceback.format_exc().splitlines()[-1])
        bad = 1
    finally:
        sys.stdout.flush()
        os._exit(bad)


gc.disable()
for module in EARLIER:
    importlib.import_module(module)
importlib.import_module("ccid")
bad, tried = 0, {"ccid.ground.at_exit", "ccid._version"}
for short in BASE:
    name = f"ccid.{short}"
    bad += bad_first(name, is_package=True) if not bad else 0
    importlib.import_module(name)
    tried |= {name, name.rpartition(".")[0]}
    needed = {n for n in sys.modules if n.startswith("ccid.")} - tried
    assert all(n.startswith(f"{name}.") for n in needed), f"{name} needs {needed}"
    tried |= needed
print(bad + bad_below("ccid"), "cannot be imported first")
