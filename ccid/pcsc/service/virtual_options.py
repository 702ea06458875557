"""``--virtual`` and ``--card``: the virtual readers of a command line."""

from __future__ import annotations

import argparse
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ccid.virtual import VirtualReader

CARDS = ("files", "echo", "none")
MODEL = re.compile(r"[0-9A-Fa-f]{4}:[0-9A-Fa-f]{4}")


@dataclass(slots=True)
class Wanted:
    """A virtual reader that is asked for.

    Attributes:
        model: ``vvvv:pppp``; empty for the built-in one.
        card: One of :data:`CARDS`.
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
        if not namespace.virtual:
            parser.error("--card: there is no --virtual before it")
        namespace.virtual[-1].card = str(values)


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
        choices=CARDS,
        help="what is in the virtual reader before it (default: files)",
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
    """The virtual readers of a command line.

    Raises:
        ReaderNotFound: The figures of one are not known.
        ReaderUnsupported: Nothing virtual can do what one does.
    """
    return [_make(one) for one in wanted]


def _make(wanted: Wanted) -> VirtualReader:
    from ccid.virtual.cards import EchoCard
    from ccid.virtual.models import make

    reader = make(wanted.model or None)
    if wanted.card != "files":
        for number, function in enumerate(reader.functions):
            for index, slot in enumerate(function.slots):
                if slot.card is not None:
                    reader.remove(index, number)
                    if wanted.card == "echo":
                        reader.insert(EchoCard(), index, number)
    return reader


def as_arguments(options: argparse.Namespace) -> list[str]:
    """The same options, for another command line."""
    arguments = []
    for one in options.virtual:
        arguments += ["--virtual", *([one.model] if one.model else []), "--card", one.card]
    for name in options.reader:
        arguments += ["--reader", name]
    return [*arguments, "--usb"] if options.usb else arguments
