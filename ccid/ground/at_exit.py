"""What is to be done before Python ends, while libusb can still be used.

Theory of operation. :mod:`atexit` calls what was registered last first. pyusb ends libusb from a
handler that :mod:`weakref` registered when the program first made any ``weakref.finalize``: perhaps
before this package was imported, perhaps after. So an exit handler alone may come too late for what
is opened late. Therefore each function here is called more than once: from an exit handler of its
own, and by :mod:`ccid.transport.libusb` right before pyusb ends libusb. The second call finds what
other exit handlers opened in between, and mostly nothing. A third comes as late as this package was
imported early: for a program that uses a reader in an exit handler only. No handler that is
registered by then would be called.
"""

from __future__ import annotations

import atexit
from collections.abc import Callable

_functions: list[Callable[[], None]] = []


def add(function: Callable[[], None]) -> None:
    """Have ``function`` called when Python ends; what was added later is called earlier. It must
    do no harm when it is called more than once."""
    _functions.append(function)
    atexit.register(function)


def run() -> None:
    """Call all functions that were added."""
    for function in reversed(_functions):
        try:
            function()
        except Exception:
            import logging  # not by all who import this

            logging.getLogger("ccid").exception("something cannot be ended")
