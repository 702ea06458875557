"""Which readers the functions of :mod:`ccid.pcsc.scard` see, and the manager that has them.

Without more they are those on USB. Others are chosen by :func:`choose`, or by the environment
variable ``CCID_PCSC_READERS``, which has the words of ``ccid-run``, as
``--virtual 08e6:3437 --card echo``.
"""

from __future__ import annotations

import argparse
import os
import shlex
import threading
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, NoReturn

from ccid.errors import CcidError
from ccid.ground import at_exit
from ccid.ground.once import Once
from ccid.ground.records import record
from ccid.pcsc.manager import Manager, shared_manager

if TYPE_CHECKING:
    from ccid.virtual import VirtualReader

VARIABLE = "CCID_PCSC_READERS"


class WrongReaders(CcidError):
    """What says which readers there are to be cannot be understood."""


@record
class Choice:
    """Which readers.

    Attributes:
        virtual: Virtual ones.
        usb: Those on USB.
        names: Of those only these: names or parts of them, ``vvvv:pppp``, paths; empty for all.
    """

    virtual: tuple[VirtualReader, ...] = ()
    usb: bool = True
    names: tuple[str, ...] = ()


class _Parser(argparse.ArgumentParser):
    """Raises where another would end the process."""

    def error(self, message: str) -> NoReturn:
        raise WrongReaders(message)


def choice_of(options: argparse.Namespace) -> Choice:
    """What was asked for by the options of
    :func:`ccid.pcsc.service.virtual_options.add_arguments`.

    Raises:
        ReaderNotFound: The figures of a virtual reader are not known.
        ReaderUnsupported: Nothing virtual can do what one does.
    """
    from ccid.pcsc.service.virtual_options import make_readers

    return Choice(
        tuple(make_readers(options.virtual)) if options.virtual else (),
        bool(options.usb or options.reader or not options.virtual),
        () if options.usb else tuple(options.reader),
    )


def choice_of_words(words: str) -> Choice:
    """What ``CCID_PCSC_READERS`` says.

    Raises:
        WrongReaders: It cannot be understood.
        ReaderNotFound, ReaderUnsupported: As :func:`choice_of`.
    """
    from ccid.pcsc.service.virtual_options import add_arguments

    parser = _Parser(prog=VARIABLE, add_help=False)
    add_arguments(parser)
    try:
        return choice_of(parser.parse_args(shlex.split(words)))
    except (WrongReaders, ValueError) as error:
        raise WrongReaders(f"{VARIABLE}: {error}") from None


def _made() -> Manager:
    words = os.environ.get(VARIABLE, "")
    if not words.strip():
        return shared_manager()
    return _manager_of(choice_of_words(words))


def _manager_of(choice: Choice) -> Manager:
    return Manager(choice.virtual, usb=choice.usb, names=choice.names)


_chosen: Once[Manager] = Once(_made)
_is_over = False
"""Python ends."""
_own: Manager | None = None
"""The one that :func:`take` made."""
_again: Callable[[], Choice] | None = None
"""What a forked child has instead of it."""
_stopped: set[int] = set()
"""Contexts and handles of managers before, which nobody closed."""


def manager() -> Manager:
    """The manager that has the readers, made when it is first asked for.

    When Python ends, a thread that still asks waits here for ever: only daemon threads are left
    then, as that of pyscard's CardMonitor, which would tell the user that the service is gone.

    Raises:
        WrongReaders: ``CCID_PCSC_READERS`` cannot be understood.
    """
    if _is_over and threading.current_thread() is not threading.main_thread():
        threading.Event().wait()
    return _chosen()


def _end() -> None:
    global _is_over
    _is_over = True
    if _chosen.is_made:
        _chosen().close()


at_exit.add(_end)


def choose(virtual: Sequence[VirtualReader | str], usb: bool | None, names: Sequence[str]) -> None:
    """Have these readers from now on. Contexts and handles of before are invalid.

    Args:
        virtual: Virtual readers, or their models: ``vvvv:pppp``, empty for the built-in one.
        usb: Those on USB, too; by default if there are no virtual ones, or ``names``.
        names: Of those on USB only these.

    Raises:
        WrongReaders: A model is none.
        ReaderNotFound: The figures of a model are not known.
        ReaderUnsupported: Nothing virtual can do what it does.
    """
    has_usb = bool(names or not virtual) if usb is None else usb
    models = tuple(one for one in virtual if isinstance(one, str))
    take(
        Choice(tuple(_reader(one) for one in virtual), has_usb, tuple(names)),
        lambda: Choice(tuple(_reader(one) for one in models), has_usb, tuple(names)),
    )


def choose_by_options(options: argparse.Namespace) -> None:
    """The same by the options of a command line.

    Raises:
        ReaderNotFound, ReaderUnsupported: As :func:`choice_of`.
    """
    take(choice_of(options), lambda: choice_of(options))


def take(choice: Choice, again: Callable[[], Choice]) -> None:
    """Have the readers of ``choice`` from now on.

    Args:
        choice: Them.
        again: Makes what a forked child has: virtual readers of its own.
    """
    global _chosen, _own, _again
    before, made = _own, _manager_of(choice)
    if _chosen.is_made:
        _stopped.update(_chosen().numbers())
    _own, _chosen, _again = made, Once(lambda: made), again
    if before is not None:
        before.close()


def is_stopped(number: int) -> bool:
    """A context or a handle of readers that were chosen before: to its user the service was
    stopped, and another is there."""
    return number in _stopped


def forget(number: int) -> None:
    """The same, and it is closed now."""
    _stopped.discard(number)


def _reader(one: VirtualReader | str) -> VirtualReader:
    if not isinstance(one, str):
        return one
    from ccid.pcsc.service.virtual_options import MODEL
    from ccid.virtual.models import make

    if one and not MODEL.fullmatch(one):
        raise WrongReaders(f"{one!r} is not vvvv:pppp")
    return make(one or None)


def _renew() -> None:
    """In a forked child: contexts, handles and virtual readers are the parent's."""
    global _chosen, _own
    again, _own = _again, None
    _stopped.clear()
    _chosen = Once(_made if again is None else lambda: _manager_of(again()))


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_renew)
