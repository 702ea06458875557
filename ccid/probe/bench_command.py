"""``ccid-probe bench``: how long reader, card and host take for an APDU."""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from typing import Any

from ccid.ground import hexadecimal
from ccid.ground.hexadecimal import NotHexadecimal
from ccid.probe.card_command import SELECT_MF
from ccid.probe.exchanges import Exchanges
from ccid.probe.output import Colour, Painted, json_text
from ccid.probe.progress import progress
from ccid.probe.reader_choice import card_slot, note, opened, print_json, protocol_of, say
from ccid.probe.report_command import surroundings
from ccid.probe.text_file import read_lines
from ccid.probe.timings import (
    APDU,
    SCHEMA,
    STATUS,
    Figures,
    as_json,
    compared,
    figures,
    read_run,
    shares,
)
from ccid.trace.private_files import write_private

WARM_UP = 5
"""How often each thing is done before it is measured."""
LONGEST_S = 20.0
"""How long one thing is measured at most: then it is measured less often."""


def run(options: argparse.Namespace) -> int:
    """Measure, or take two saved runs; print, save and compare them."""
    earlier = [read_run("\n".join(read_lines(file)), file) for file in options.compare or ()]
    if len(earlier) > 2:
        note("bench: --compare takes one saved run, or two")
        return 2
    if len(earlier) == 2:
        document, measured = earlier[1]
    else:
        try:
            apdu = SELECT_MF if options.apdu is None else hexadecimal.parse(options.apdu)
        except NotHexadecimal as error:
            note(f"bench: the APDU is not hexadecimal: {error}")
            return 2
        document, measured = measure(options, apdu)
    if earlier:
        document = {**document, "compared": compared(earlier[0][1], measured)}
    content = {name: value for name, value in document.items() if name != "schema"}
    if options.save is not None:
        text = json_text({"schema": SCHEMA, **content, "compared": None}, indent=2)
        write_private(options.save, f"{text}\n")
        note(f"{options.save} holds the run; --compare takes it")
    if options.json:
        print_json("bench", **content)
    else:
        show(document, measured)
    return 0


def measure(options: argparse.Namespace, apdu: bytes) -> tuple[dict[str, Any], dict[str, Figures]]:
    """Measure GetSlotStatus and an APDU, in turns of the same number.

    Raises:
        CcidError: Reader or card failed.
    """
    with opened(options) as reader:
        slot = card_slot(reader, options)
        with slot.connect(protocol_of(options)) as card:
            exchange = Exchanges(options.trace_secrets).send(card, apdu)
            count = options.count
            with progress("bench", 2 * count) as done:
                measured = {
                    STATUS: _timed(slot.commands.slot_status, count, done),
                    APDU: _timed(lambda: card.transmit(apdu), count, lambda n: done(count + n)),
                }
            document = {
                **surroundings(),
                "name": reader.name,
                "id": reader.info.id,
                "bcdDevice": reader.info.device.bcdDevice,
                "slot": slot.index,
                "atr": card.atr.hex().upper(),
                "protocol": str(card.protocol),
                "exchange": exchange.as_json(),
                "measured": as_json(measured),
                "shares_us": shares(measured[STATUS], measured[APDU]),
                "compared": None,
            }
    return document, measured


def _timed(act: Callable[[], object], count: int, done: Callable[[int], None]) -> Figures:
    for _ in range(WARM_UP):
        act()
    times: list[float] = []
    cpu = 0.0
    limit = time.monotonic() + LONGEST_S
    while len(times) < count and (not times or time.monotonic() < limit):
        cpu_before = time.thread_time()
        before = time.perf_counter()
        act()
        times.append(time.perf_counter() - before)
        cpu += time.thread_time() - cpu_before
        done(len(times))
    done(count)
    return figures(times, cpu)


def show(document: dict[str, Any], measured: dict[str, Figures]) -> None:
    """Print a run."""
    exchange = document.get("exchange")
    say(f"{document.get('name')} ({document.get('id')}), card {document.get('atr')}")
    if isinstance(exchange, dict):
        say(f"APDU: {exchange.get('command')}, answered by {exchange.get('sw')}")
    say(f"{'µs':14}{'min':>9}{'median':>9}{'90 %':>9}{'99 %':>9}{'max':>9}{'CPU':>9}{'times':>8}")
    for name, one in measured.items():
        values = (one.min, one.p50, one.p90, one.p99, one.max, one.cpu)
        say(f"{name:14}{''.join(f'{value:9.1f}' for value in values)}{one.count:8}")
    parts = shares(measured[STATUS], measured[APDU])
    told = ", ".join(f"{name} {value:.1f} µs" for name, value in parts.items())
    say(f"of the APDU's median: {told}")
    for row in document.get("compared") or ():
        ratio = row["ratio"]
        text = "not clear: the times overlap"
        colour = None
        if row["clear"]:
            is_faster = row["after_us"] < row["before_us"]
            colour = Colour.GOOD if is_faster else Colour.BAD
            text = "faster" if is_faster else "slower"
        say(
            f"{row['what']}: {row['before_us']:.1f} µs before, {row['after_us']:.1f} µs after"
            f"{'' if ratio is None else f' ({ratio:.2f} times)'}: ",
            Painted(text, colour),
        )
