"""Command-line options of ``python -m ccid.virtual`` for cards on their contacts.

A fault is the name of a function of :mod:`ccid.virtual.cards.contact_faults`, with hyphens for
underscores, and the function's arguments::

    corrupt:on=I,times=2    asks-wtx:multiplier=3,times=ever    late:by_s=0.5    silence
"""

from __future__ import annotations

import argparse
import inspect
from collections.abc import Callable

from ccid.errors import MalformedAtr
from ccid.ground.hexadecimal import NotHexadecimal, parse
from ccid.iso7816.atr import Atr
from ccid.virtual.cards import Application, Contact, ContactOptions, contact_faults
from ccid.virtual.cards.contact_faults import ContactFault
from ccid.virtual.cards.pps_card import Pps
from ccid.virtual.cards.t0_card import T0Options
from ccid.virtual.cards.t1_blocks import Check
from ccid.virtual.cards.t1_card import T1Options

FAULTS: dict[str, Callable[..., ContactFault]] = {
    function.__name__.replace("_", "-"): function
    for function in (
        contact_faults.corrupt,
        contact_faults.parity_error,
        contact_faults.silence,
        contact_faults.doubled,
        contact_faults.one_turn_late,
        contact_faults.replaced,
        contact_faults.cut_short,
        contact_faults.followed_by,
        contact_faults.late,
        contact_faults.pause,
        contact_faults.wrong_nad,
        contact_faults.wrong_pcb,
        contact_faults.wrong_ns,
        contact_faults.wrong_nr,
        contact_faults.wrong_len,
        contact_faults.wrong_inf,
        contact_faults.asks_wtx,
        contact_faults.asks_ifs,
        contact_faults.asks_resynch,
        contact_faults.aborts,
        contact_faults.wrong_procedure_byte,
        contact_faults.nulls,
    )
}
EVER = "ever"
OF_A_BYTE = ("multiplier", "ifsc", "nad", "pcb", "value")
SIGNED = ("by",)
BLOCKS = ("I", "R", "S")


def hexadecimal(text: str) -> bytes:
    """Bytes in hexadecimal, in any form that people paste."""
    try:
        return parse(text, quote=True)
    except NotHexadecimal as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def answer_to_reset(text: str) -> bytes:
    """An ATR in hexadecimal."""
    raw = hexadecimal(text)
    try:
        Atr.parse(raw)
    except MalformedAtr as error:
        raise argparse.ArgumentTypeError(str(error)) from None
    return raw


def fault(text: str) -> Callable[[], ContactFault]:
    """A function that makes the fault that ``text`` names, a new one for each card."""
    name, _, rest = text.partition(":")
    function = FAULTS.get(name)
    if function is None:
        raise argparse.ArgumentTypeError(f"no fault {name!r}; there are {', '.join(FAULTS)}")
    wanted = inspect.signature(function).parameters
    arguments: dict[str, object] = {}
    for word in filter(None, rest.split(",")):
        key, _, value = word.partition("=")
        if key not in wanted:
            raise argparse.ArgumentTypeError(f"{name} has {', '.join(wanted)}, and no {key!r}")
        arguments[key] = _value(key, str(wanted[key].annotation), value)
    lacking = [k for k, p in wanted.items() if p.default is p.empty and k not in arguments]
    if lacking:
        raise argparse.ArgumentTypeError(f"{name} needs {', '.join(lacking)}")
    return lambda: function(**arguments)


def _value(key: str, annotation: str, text: str) -> object:
    if key == "times" and text == EVER:
        return None
    if key == "on":
        if text not in BLOCKS:
            raise argparse.ArgumentTypeError(f"on={text}; T=1 has I, R and S")
        return text
    if annotation == "bytes":
        return hexadecimal(text)
    try:
        number = float(text) if annotation == "float" else int(text, 0)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{key}={text} is no number") from None
    if number > (0xFF if key in OF_A_BYTE else 1_000_000) or (number < 0 and key not in SIGNED):
        raise argparse.ArgumentTypeError(f"{key}={text} is out of range")
    return number


def byte(text: str) -> int:
    """A number from 0 to 255."""
    value = _value("value", "int", text)
    assert isinstance(value, int)
    return value


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of a card on its contacts."""
    group = parser.add_argument_group(
        "cards on their contacts", "what a host sees at TPDU and character level"
    )
    add = group.add_argument
    add("--atr", type=answer_to_reset, metavar="HEX", help="ATR, instead of the card's")
    add(
        "--pps",
        choices=[how.value for how in Pps],
        default=Pps.ECHO.value,
        help="the card's answer to a PPS request (default: echo)",
    )
    add(
        "--nulls",
        type=byte,
        default=0,
        metavar="N",
        help="T=0: number of NULL before procedure bytes",
    )
    add("--one-by-one", action="store_true", help="T=0: the card acknowledges each byte")
    add("--check", choices=[c.value for c in Check], help="T=1: LRC or CRC, instead of the ATR's")
    add("--announce-ifsc", type=byte, metavar="N", help="T=1: the card sends S(IFS request) first")
    add("--late", action="store_true", help="the card never asks for more time")
    add(
        "--fault",
        type=fault,
        action="append",
        default=[],
        metavar="NAME[:ARGUMENT=VALUE,...]",
        help=f"a fault of the card, any number of times: {', '.join(FAULTS)}; all take times=N or "
        f"times={EVER} and after=N, most on=I, R or S",
    )


def on_contacts(application: Application, options: argparse.Namespace) -> Contact:
    """A card with the contacts and faults that the command line asks for."""
    contact = Contact(
        application,
        ContactOptions(
            atr=options.atr,
            pps=Pps(options.pps),
            t0=T0Options(
                nulls=options.nulls,
                one_by_one=options.one_by_one,
                null_when_slow=not options.late,
            ),
            t1=T1Options(
                check=None if options.check is None else Check(options.check),
                announces_ifsc=options.announce_ifsc,
                wtx=not options.late,
            ),
        ),
    )
    contact.faults += [make() for make in options.fault]
    return contact
