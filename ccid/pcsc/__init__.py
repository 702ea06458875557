"""Faces towards PC/SC.

:mod:`~ccid.pcsc.ifd` is an IFD handler, :mod:`~ccid.pcsc.plug` the driver that pcscd loads. The
others do without pcscd: :mod:`~ccid.pcsc.manager` is a resource manager,
:mod:`~ccid.pcsc.service` the one for programs that use libpcsclite, :mod:`~ccid.pcsc.scard` the one
for programs that use pyscard, which :func:`under_pyscard` puts under it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ccid.virtual import VirtualReader


def under_pyscard(
    virtual: Sequence[VirtualReader | str] = (),
    *,
    usb: bool | None = None,
    readers: Sequence[str] = (),
) -> None:
    """Have pyscard (``import smartcard``) use this library instead of pcscd, in this process.

    Call it before pyscard is imported. Then nothing of libpcsclite is loaded, and pyscard's
    compiled part may be missing. May be called again to have other readers: contexts and handles of
    before are invalid then. ``python -m ccid.pcsc.under_pyscard PROGRAM`` does it for a program.

    Without any argument the readers are those that the environment variable ``CCID_PCSC_READERS``
    tells, in the words of ``ccid-run`` (``--virtual 08e6:3437 --card echo``), or else all on USB.

    Args:
        virtual: Virtual readers to be had: :class:`ccid.VirtualReader`, or models: ``vvvv:pppp``,
            empty for the built-in one.
        usb: Readers on USB are to be had; by default if there are no virtual ones, or ``readers``
            asks for some.
        readers: Of those only these: names or parts of them, ``vvvv:pppp``, paths.

    Raises:
        PyscardInUse: pyscard was imported already, with its own compiled part.
        WrongReaders: A model is none.
        ReaderNotFound: The figures of a model are not known.
        ReaderUnsupported: Nothing virtual can do what it does.
    """
    from ccid.pcsc import pyscard_import

    pyscard_import.install()
    if virtual or readers or usb is not None:
        from ccid.pcsc.scard import chosen_readers

        chosen_readers.choose(virtual, usb, readers)
