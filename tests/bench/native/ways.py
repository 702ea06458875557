"""The ways an APDU can go to the reader, beside each other."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum


class Driver(Enum):
    """Who drives the reader for a client of pcscd."""

    LIBCCID = "libccid"
    CCID = "ccid"


@dataclass(frozen=True, slots=True)
class Way:
    """A program, and the daemon that it needs.

    Args:
        name: Short, as options and tables have it.
        title: What the APDU goes through.
        loop: The program in ``loops/``: a source in C (built) or in Python.
        driver: Of the pcscd that the program talks to; None if it needs none.
    """

    name: str
    title: str
    loop: str
    driver: Driver | None = None


WAYS = {
    way.name: way
    for way in (
        Way("A2", "C, libusb", "libusb_loop.c"),
        Way("A", "Python, pyusb", "pyusb_loop.py"),
        Way("A1", "Python, ctypes alone", "ctypes_loop.py"),
        Way("B", "Python, ccid", "ccid_loop.py"),
        Way("C2", "C, pcscd, libccid", "pcsc_loop.c", Driver.LIBCCID),
        Way("C", "pyscard, pcscd, libccid", "pyscard_loop.py", Driver.LIBCCID),
        Way("D2", "C, pcscd, ccid", "pcsc_loop.c", Driver.CCID),
        Way("D", "pyscard, pcscd, ccid", "pyscard_loop.py", Driver.CCID),
    )
}

COMPARED = (
    ("B", "A2"),
    ("B", "A"),
    ("B", "A1"),
    ("B", "C2"),
    ("B", "C"),
    ("D2", "C2"),
    ("D", "C"),
)
"""Pairs whose ratio is printed: the first as a multiple of the second."""
