"""``--virtual`` and ``--card``: the virtual readers of a command line."""

from __future__ import annotations

import argparse
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ccid.errors import ReaderNotFound

if TYPE_CHECKING:
    from ccid.virtual import VirtualReader

MODEL = re.compile(r"[0-9A-Fa-f]{4}:[0-9A-Fa-f]{4}")


@dataclass(slots=True)
class Wanted:
    """A virtual reader that is asked for.

    Attributes:
        model: ``vvvv:pppp``; empty for the built-in one.
        card: The name of a card, as :func:`ccid.virtual.card_kinds.card_kind` takes it.
    """

    model: str = ""
    card: str = "files"


class _Virtual(argparse.Action):
    """``--virtual [MODEL]``: one more."""

    def __call__(
        self,
        parser: argparse.ArgumentParser,
        namespace: argparse.Namespace,
        values: str | Sequence[Any] | None,
        option_string: str | None = None,
    ) -> None:
        model = str(values or "")
        if model and not MODEL.fullmatch(model):
            parser.error(f"--virtual: {model!r} is not vvvv:pppp")
        namespace.virtual = [*namespace.virtual, Wanted(model)]


class _Card(argparse.Action):
    """``--card KIND``: in the virtual reader before it."""

    def __call__(
        self,
        parser: argparse.ArgumentParser,
        namespace: argparse.Namespace,
        values: str | Sequence[Any] | None,
        option_string: str | None = None,
    ) -> None:
        from ccid.virtual.card_kinds import card_kind

        if not namespace.virtual:
            parser.error("--card: there is no --virtual before it")
        try:
            namespace.virtual[-1].card = card_kind(str(values)).name
        except ValueError as error:
            parser.error(f"--card: {error}")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options that say which readers there are."""
    group = parser.add_argument_group("readers", "without any of these, all on USB")
    group.add_argument(
        "--virtual",
        nargs="?",
        action=_Virtual,
        default=[],
        metavar="VVVV:PPPP",
        help="a virtual reader, as the real one with these ids is; any number of times. Readers "
        "on USB are not used then, unless --reader or --usb asks for them",
    )
    group.add_argument(
        "--card",
        action=_Card,
        metavar="CARD",
        help="what is in the virtual reader before it: files (the default), echo, piv, "
        "contactless, mifare-1k, mifare-4k, ultralight, ntag213, ntag215, ntag216, none, "
        "vpcd:PORT, the card of a program that connects to 127.0.0.1:PORT (vicc, jCardSim), or "
        "vpcd:HOST:PORT, that of a program that listens (vicc --reversed)",
    )
    group.add_argument(
        "--reader",
        action="append",
        default=[],
        metavar="NAME",
        help="a reader on USB: its name or a part of it, vvvv:pppp, or path; any number of times",
    )
    group.add_argument("--usb", action="store_true", help="all readers on USB, besides --virtual")


def make_readers(wanted: Sequence[Wanted]) -> list[VirtualReader]:
    """The virtual readers of a command line. A reader with ``vpcd:PORT`` listens at that port, and
    at the next ports for further slots, until the process ends.

    Raises:
        ReaderNotFound: The figures of a model are not known, or a port cannot be had.
        ReaderUnsupported: No virtual reader can do what the model does.
    """
    return [_make(one) for one in wanted]


def _make(wanted: Wanted) -> VirtualReader:
    from ccid.virtual.card_kinds import card_kind
    from ccid.virtual.models import make

    kind = card_kind(wanted.card)
    reader = make(wanted.model or None, kind.make)
    try:
        for listener in kind.listeners([reader]):
            listener.start()
    except (OSError, ValueError) as error:
        raise ReaderNotFound(f"--card {kind.name}: {error}") from None
    return reader


def as_arguments(options: argparse.Namespace) -> list[str]:
    """The same options, for another command line."""
    arguments = []
    for one in options.virtual:
        arguments += ["--virtual", *([one.model] if one.model else []), "--card", one.card]
    for name in options.reader:
        arguments += ["--reader", name]
    return [*arguments, "--usb"] if options.usb else arguments
