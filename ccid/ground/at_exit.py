"""Functions that are called when Python ends, while libusb can still be used.

Theory of operation. :mod:`atexit` calls exit handlers in reverse order of their registration. pyusb
ends libusb in an exit handler that :mod:`weakref` registers when the program makes its first
``weakref.finalize``: before or after the import of this package. An exit handler alone may
therefore run too late for a reader that is opened late. So each function is called up to three
times:

1. In an exit handler that :func:`add` registers.
2. By :mod:`ccid.transport.libusb`, right before pyusb ends libusb. This call closes what other exit
   handlers opened in between; mostly nothing.
3. In the exit handler that :mod:`ccid` registers when it is imported, which runs late. This call
   serves a program that first uses a reader in an exit handler: Python calls no handler that is
   registered at that time.
"""

from __future__ import annotations

import atexit
from collections.abc import Callable

_functions: list[Callable[[], None]] = []


def add(function: Callable[[], None]) -> None:
    """Have ``function`` called when Python ends. Functions are called in reverse order of their
    addition.

    Args:
        function: The function. Calls after the first must do no harm.
    """
    _functions.append(function)
    atexit.register(function)


def run() -> None:
    """Call all added functions. An error of a function is logged and does not stop the others."""
    for function in reversed(_functions):
        try:
            function()
        except Exception:
            import logging  # only here: most programs never need the module

            logging.getLogger("ccid").exception("something cannot be ended")
