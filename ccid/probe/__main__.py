"""The command ``ccid-probe``: its command line, its exit status, and the start of a command."""

from __future__ import annotations

import argparse
import importlib
import io
import re
import sys
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING, Any, NoReturn

from ccid._version import __version__
from ccid.codes import Protocol
from ccid.errors import CcidError
from ccid.ground.hexadecimal import mentioned
from ccid.ground.safe_text import printable
from ccid.probe.output import flush, note, silence

if TYPE_CHECKING:
    from ccid.virtual.card_kinds import CardKind

OK, FAILED, USAGE, INTERRUPTED = 0, 1, 2, 130
"""Exit codes."""

OPENING = (
    "dump", "card", "apdu", "shell", "bench", "lend", "buzz", "led", "doctor", "report",
)  # fmt: skip
"""The commands that open readers."""
OPENS_NONE = "opens no reader: --trace and --log would stay empty"
WITHOUT_TRACE = {
    "watch": "takes neither --trace nor --log: CCID_TRACE=FILE traces the readers that it opens"
}
"""The error message for ``--trace`` and ``--log``, for commands that do not take these options."""
IDS = re.compile(r"[0-9A-Fa-f]{4}:[0-9A-Fa-f]{4}")
EPILOG = """\
exit status: 0 for success, 1 if there is no reader or something failed, 2 for a wrong command line,
130 if Ctrl-C ended it, 143 if SIGTERM did.

A reader is named by its name, a part of the name, vvvv:pppp, or its path as `list` shows it.
--virtual uses the built-in virtual reader, with a card in it, instead of USB;
`--virtual vvvv:pppp` makes the virtual reader behave as that model. --card chooses the card: files
(the default), echo, piv, contactless, mifare-1k, mifare-4k, ultralight, ntag213, ntag215, ntag216,
none, vpcd:PORT, the card of a program that connects to 127.0.0.1:PORT (vsmartcard's vicc,
jCardSim), or vpcd:HOST:PORT, that of a program that listens (vicc --reversed).
"""

VIRTUAL = "use the built-in virtual reader, not USB; --virtual vvvv:pppp makes it one of that model"
VIRTUALS = "only the models that --virtual vvvv:pppp can take"
LONGEST_S = 1e9
"""The longest time that a user may give."""
MOST_TIMES = 100_000
"""How often a user may have something measured."""
QUOTED = re.compile(
    r"(invalid choice: |invalid \w+ value: |explicit argument |unrecognized arguments: )"
    r"(.+?)(?=,? \(choose from|, maybe you meant|$)",
    re.DOTALL,
)
"""The place where a message of argparse quotes a word of the command line."""


class _Parser(argparse.ArgumentParser):
    """argparse with messages as a Unix tool prints them. No message quotes an APDU."""

    def error(self, message: str) -> NoReturn:
        self.print_usage(sys.stderr)
        told = QUOTED.sub(lambda found: found[1] + _typed(found[2]), message)
        self.exit(USAGE, f"ccid-probe: {printable(told)}\n")


def _typed(quoted: str) -> str:
    """The word that argparse quotes; if the word may be an APDU, its length instead."""
    told = mentioned(quoted)
    return quoted if told.startswith(("'", '"')) else told


def parser() -> argparse.ArgumentParser:
    """The command line."""
    top = _Parser(
        prog="ccid-probe",
        allow_abbrev=False,
        description="Dump, judge and exercise USB smart-card readers.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    top.add_argument("--version", action="version", version=f"ccid-probe {__version__}")
    _add_common(top, {"virtual": False, "trace": None, "log": False, "trace_secrets": False,
                      "reader": None, "card": None}, VIRTUAL)  # fmt: skip
    commands = top.add_subparsers(dest="command", metavar="COMMAND")

    def command(
        name: str, text: str, *, json: bool = False, reader: bool = True
    ) -> argparse.ArgumentParser:
        sub = commands.add_parser(
            name, help=text, description=f"{text[0].upper()}{text[1:]}.", allow_abbrev=False
        )
        if reader:
            _add_common(sub, {}, VIRTUALS if name == "readers" else VIRTUAL)
        if json:
            sub.add_argument("--json", action="store_true", help="print JSON")
        return sub

    command("list", "list the readers (the default command)", json=True)
    command("dump", "print every field of a reader's descriptors", json=True)
    command("check", "judge whether a reader will work, and why", json=True)
    card = command("card", "power the card, explain its ATR, select its master file", json=True)
    apdu = command("apdu", "send command APDUs to the card", json=True)
    lend = command(
        "lend", "lend the card to a vpcd (vsmartcard's virtual reader) elsewhere", json=True
    )
    shell = command("shell", "send APDUs line by line; a script if standard input is no terminal")
    bench = command("bench", "measure how long host, reader and card take", json=True)
    for sub in (card, apdu, lend, shell, bench):
        sub.add_argument("--slot", type=int, default=0, metavar="N", help="bSlot, from 0")
        sub.add_argument(
            "--protocol", type=protocol, metavar="T=0|T=1", help="insist on this protocol"
        )
    apdu.add_argument(
        "hex", nargs="*", metavar="HEX",
        help="a command APDU in hexadecimal; - reads APDUs from standard input, one a line, and "
        "@FILE from FILE",
    )  # fmt: skip
    apdu.add_argument(
        "--file", action="append", default=[], metavar="FILE",
        help="read APDUs from FILE, one a line: no PIN appears in the list of processes",
    )  # fmt: skip
    lend.add_argument(
        "to", type=lend_to, metavar="HOST:PORT",
        help="the vpcd, which has no authentication and no encryption (port 35963 if not given)",
    )  # fmt: skip
    bench.add_argument("--apdu", metavar="HEX", help="the command APDU (default: SELECT MF)")
    bench.add_argument(
        "--count", type=count, default=200, metavar="N", help="how often (default: 200)"
    )
    bench.add_argument("--save", metavar="FILE", help="write the run to FILE, as JSON")
    bench.add_argument(
        "--compare", nargs="+", metavar="FILE",
        help="compare with a saved run; two saved runs are compared without a reader",
    )  # fmt: skip
    buzz = command("buzz", "let the reader's buzzer sound", json=True)
    buzz.add_argument(
        "--seconds", type=seconds, default=0.2, metavar="S", help="how long (default: 0.2)"
    )
    led = command("led", "switch the reader's LEDs; without a name, list them", json=True)
    led.add_argument(
        "names", nargs="*", metavar="NAME",
        help="the LEDs to switch on, such as green, and no others; `off` for none",
    )  # fmt: skip
    atr = command("atr", "explain ATRs, without a reader", json=True, reader=False)
    atr.add_argument(
        "atr", nargs="+", metavar="HEX|FILE",
        help="an ATR in hexadecimal, or a file with an ATR a line (- for standard input)",
    )  # fmt: skip
    stats = command(
        "atr-stats", "count the values of an interface byte in ATRs", json=True, reader=False
    )
    stats.add_argument("file", metavar="FILE", help="ATRs, one a line; - for standard input")
    stats.add_argument(
        "--byte",
        default="TB3",
        metavar="NAME",
        help="the interface byte: TA1, TD2 and so on (default: TB3)",
    )
    stats.add_argument("--svg", metavar="FILE", help="write the bars to FILE as SVG")
    stats.add_argument(
        "--png", metavar="FILE", help="write the bars to FILE as PNG; needs pyccid[plot]"
    )
    command("doctor", "find out why a reader does not work, and name the cure", json=True)
    watch = command("watch", "print readers and cards as they come and go", json=True)
    watch.add_argument(
        "--timeout", type=seconds, metavar="S", help="end after S seconds without an event"
    )
    watch.add_argument(
        "--plain", action="store_true", help="print lines at a terminal, too, and no live view"
    )
    known = command("readers", "search the table of known readers", json=True)
    known.add_argument(
        "words",
        nargs="*",
        metavar="WORD",
        help="a word that the reader's entry has; all words must fit",
    )
    report = command(
        "report", "write everything about a reader into one JSON file, for a bug report"
    )
    report.add_argument("--json", action="store_true", help="print JSON, as it does anyway")
    report.add_argument(
        "--output", metavar="FILE", help="write the report to FILE, not to standard output"
    )
    imported = command(
        "import",
        "make a table entry and a virtual reader of a reader's report",
        json=True,
        reader=False,
    )
    imported.add_argument(
        "files",
        nargs="+",
        metavar="FILE",
        help="a report, what libccid's parse or `lsusb -v` printed, or descriptors in "
        "hexadecimal; - for standard input",
    )
    imported.add_argument(
        "--save", action="store_true", help="also add the entry to your own file of readers"
    )
    return top


def protocol(text: str) -> Protocol:
    """``T=1``, ``T1`` or ``1``, for argparse."""
    found = re.fullmatch(r"(?:t\s*=?\s*)?([01])", text.strip(), re.ASCII | re.IGNORECASE)
    if found is None:
        raise argparse.ArgumentTypeError("it is T=0 or T=1")
    return Protocol(int(found[1]))


def card_kind(text: str) -> CardKind:
    """A kind of virtual card, for argparse."""
    from ccid.virtual.card_kinds import card_argument

    return card_argument(text)


def lend_to(text: str) -> tuple[str, int]:
    """Host and port of a vpcd, for argparse."""
    from ccid.ground.host_port import host_port
    from ccid.virtual.vpcd_messages import DEFAULT_PORT

    try:
        return host_port(text, DEFAULT_PORT)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def count(text: str) -> int:
    """How often, for argparse."""
    value = int(text)
    if not 1 <= value <= MOST_TIMES:
        raise ValueError(text)
    return value


def seconds(text: str) -> float:
    """A time, for argparse."""
    value = float(text)
    if not 0 <= value <= LONGEST_S:
        raise ValueError(text)
    return value


def _add_common(to: argparse.ArgumentParser, defaults: dict[str, Any], virtual: str) -> None:
    """Add the options that may stand before or after the command. After the command they have no
    default, so that a value given before the command stays. ``virtual`` is the help of
    ``--virtual``."""
    flag: dict[str, Any] = {"action": "store_true"}
    for name, text, more in (
        ("virtual", virtual, flag),
        (
            "card",
            "which card the virtual reader has (ccid-probe --help names them)",
            {"metavar": "CARD", "type": card_kind},
        ),
        (
            "reader",
            "which reader, if there are several: a part of its name, vvvv:pppp, or its path",
            {"metavar": "NAME"},
        ),
        ("trace", "write all USB messages to FILE (pcapng, for Wireshark)", {"metavar": "FILE"}),
        ("log", "log all USB messages to stderr", flag),
        ("trace-secrets", "do not mask PINs and keys in trace and log", flag),
    ):
        default = defaults.get(name.replace("-", "_"), argparse.SUPPRESS)
        to.add_argument(f"--{name}", help=text, default=default, **more)


def take_virtual(words: Sequence[str]) -> tuple[list[str], str | None]:
    """``words`` without the model that may follow ``--virtual``, and the model.

    The word after ``--virtual`` is a model only if it has the form ``vvvv:pppp``: in
    ``--virtual list``, ``list`` is the command.
    """
    rest: list[str] = []
    model = None
    for word in words:
        if word.startswith("--virtual="):
            rest, model = [*rest, "--virtual"], word.removeprefix("--virtual=")
        elif rest and rest[-1] == "--virtual" and model is None and IDS.fullmatch(word):
            model = word
        else:
            rest.append(word)
    return rest, model


def main(words: Sequence[str] | None = None) -> int:
    """Run ``ccid-probe`` and return its exit status."""
    if isinstance(
        sys.stdout, io.TextIOWrapper
    ):  # escapes characters that the encoding does not have
        sys.stdout.reconfigure(errors="backslashreplace")
    try:
        status = _run(sys.argv[1:] if words is None else words)
    except CcidError as error:
        status = _failed(error)
    except BrokenPipeError:
        status = OK
    except OSError as error:
        status = _failed(error)
    except KeyboardInterrupt as error:
        number = getattr(error, "number", None)  # of ccid.probe.termination.Terminated
        status = INTERRUPTED if number is None else 128 + number
    except SystemExit as left:  # argparse has printed its message
        status = left.code if isinstance(left.code, int) else OK
    return _ended(status)


def _failed(error: Exception) -> int:
    note(_file_error(error) if isinstance(error, OSError) else str(error))
    return FAILED


def _ended(status: int) -> int:
    """The exit status after standard output was flushed."""
    try:
        flush()
    except OSError as error:
        silence(sys.stdout)
        if not isinstance(error, BrokenPipeError):  # a closed pipe, as of `head`, is no error
            return _failed(error)
    return status


def _run(words: Sequence[str]) -> int:
    """Parse the command line and run its command."""
    rest, model = take_virtual(words)
    top = parser()
    if not _has_command(rest):
        rest = ["list", *rest]
    options = top.parse_args(rest)
    if options.command is None:
        top.error("a command is missing")
    if model is not None and not IDS.fullmatch(model):
        top.error(f"--virtual={mentioned(model)}: a model is named vvvv:pppp")
    if options.card is not None and not options.virtual:
        top.error("--card chooses the card of the virtual reader: it needs --virtual")
    options.model = model
    options.virtual_reader = None
    if options.command not in OPENING and (options.trace is not None or options.log):
        top.error(f"{options.command} {WITHOUT_TRACE.get(options.command, OPENS_NONE)}")
    module = options.command.replace("-", "_")
    run = importlib.import_module(f"ccid.probe.{module}_command").run
    with _looking(options):
        status: int = run(options)
    return status


def _file_error(error: OSError) -> str:
    """The message for a file error. The file name may be an APDU typed by mistake: then it is not
    quoted."""
    if error.filename is None or error.strerror is None:
        return str(error)
    return f"{error.strerror}: {mentioned(str(error.filename))}"


def _looking(options: argparse.Namespace) -> AbstractContextManager[None]:
    """What holds while the command runs."""
    if options.command == "watch":
        from ccid.probe.termination import orderly_end

        return orderly_end()
    if options.command not in OPENING:
        return nullcontext()
    from ccid.probe.reader_choice import looking

    return looking(options)


def _has_command(words: Sequence[str]) -> bool:
    """Whether one of ``words`` is a command, or an option for help or the version."""
    for before, word in zip(["", *words], words, strict=False):
        if word in ("-h", "--help", "--version"):
            return True
        if not word.startswith("-") and before not in ("--trace", "--reader", "--card"):
            return True
    return False


if __name__ == "__main__":
    sys.exit(main())
