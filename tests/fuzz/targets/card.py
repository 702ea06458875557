"""What a card says, and what a card is told: ATR, PPS, T=0, T=1, APDUs."""

from __future__ import annotations

from collections.abc import Callable, Generator
from contextlib import suppress
from typing import Any

from ccid.codes import ExchangeLevel, PowerSelect, Protocol
from ccid.errors import CcidError
from ccid.iso7816 import pps as pps_rules
from ccid.iso7816 import t0
from ccid.iso7816.apdu import CommandApdu, is_extended
from ccid.iso7816.atr import Atr
from ccid.iso7816.error_detection import lrc
from ccid.iso7816.historical_bytes import Historical
from ccid.iso7816.historical_bytes_text import lines
from ccid.iso7816.protocol_runner import run
from ccid.iso7816.t1 import T1, LinkError
from ccid.iso7816.timing import Timing, pps_timeout
from ccid.masking import secret_commands
from ccid.masking.exchange_watch import ApduWatch, T0Watch, T1Watch, Watch
from ccid.probe.atr_stats import choose
from ccid.session import negotiation
from ccid.virtual import Contact, EchoCard, FileSystemCard, make_descriptor
from ccid.virtual.cards.contact import ContactOptions
from tests.fuzz.taking import Taker

READERS = [
    make_descriptor(level, dwFeatures=features | level, bVoltageSupport=voltages)
    for level, features, voltages in (
        (ExchangeLevel.CHARACTER, 0, 7),
        (ExchangeLevel.TPDU, 0x842, 6),
        (ExchangeLevel.SHORT_APDU, 0xBA, 1),
        (ExchangeLevel.EXTENDED_APDU, 0x0A, 7),
    )
]
MOST_STEPS = 4000
"""More than any exchange has: a machine that takes more does not end."""


def atr(data: bytes) -> None:
    """An ATR: explained, timed, and judged for several readers."""
    parsed = Atr.parse(data)
    assert parsed.raw == data[: len(parsed.raw)]
    assert parsed.explain().replace("\n", "").isprintable()
    for byte in ("TA1", "TD1", "TC2", "TA3", "TB3"):
        choose(parsed, byte)
    for clock_hz in (0.0, 1.0, 4e6):
        timing = Timing.of(parsed, clock_hz, parsed.ta1 or 0x11)
        assert timing is None or min(timing.etu_s, timing.wwt_s, timing.bwt_s) > 0
        assert 0 < pps_timeout(timing) <= 60
    for reader in READERS:
        _negotiated(parsed, reader)


def _negotiated(parsed: Atr, reader: Any) -> None:
    for select in list(PowerSelect):
        negotiation.better_voltage(parsed, select, reader)
    for wanted in (None, Protocol.T0, Protocol.T1):
        for no_pps in (False, True):
            try:
                protocols = negotiation.choose_protocol(parsed, reader, wanted, no_pps=no_pps)
                fidis = negotiation.speeds(parsed, reader, [], no_pps=no_pps)
            except CcidError:
                continue
            assert protocols
            assert fidis
            for protocol in protocols:
                for fidi in fidis:
                    assert 0 <= fidi <= 0xFF
                    negotiation.needs_pps(parsed, reader, protocol, fidi)
                    negotiation.protocol_data(parsed, protocol, fidi).build()
    t1 = negotiation.make_t1(parsed, reader, "fuzz")
    assert 1 <= negotiation.choose_ifsd(reader, t1) <= 254


def historical(data: bytes) -> None:
    """Historical bytes, in words."""
    for line in lines(Historical.parse(data)):
        assert line.isprintable()


def pps(data: bytes) -> None:
    """A PPS request, and the response to it; then a card with an ATR that gets a request."""
    taker = Taker(data)
    protocol = taker.number() & 0x0F
    rest = [taker.number() if taker.number() & 1 else None for _ in range(3)]
    asked = pps_rules.request(protocol, *rest)
    assert pps_rules.is_pps(asked)
    with suppress(CcidError):
        assert 0 <= pps_rules.confirmed(asked, taker.piece()) <= 0xFF
    card = Contact(EchoCard(), ContactOptions(atr=taker.piece() or b"\x3b\x00"))
    card.reset()
    is_asked_first = not card._atr.specific_mode
    received = taker.piece()
    sent = b"".join(one.data for one in card.receive(received))
    if is_asked_first and received[:1] == b"\xff":
        assert not sent or pps_rules.is_pps(sent)


def apdu(data: bytes) -> None:
    """A command APDU, and what is masked of it."""
    assert 0 <= secret_commands.visible_length(data) <= len(data)
    secret_commands.carries_secret(data)
    is_extended(data)
    secrecy = secret_commands.Secrecy()
    for end in range(0, len(data), max(1, len(data) // 8)):
        secrecy.begins(data[:end], whole=False)
    watches: tuple[Watch, ...] = (ApduWatch(), T0Watch(), T1Watch())
    for watch in watches:
        for cut in (5, 17):
            assert len(watch.out(data[:cut], data[0] & 3 if data else 0)) == len(data[:cut])
            assert len(watch.back(data[cut:], data[-1] & 3 if data else 0)) == len(data[cut:])
    parsed = CommandApdu.parse(data)
    assert parsed.build() == data
    assert "data=" not in repr(parsed)


def _run(machine: Generator[Any, Any, Any], answers: Callable[[Any], Any]) -> Any:
    """Drive a machine; None if it fails as it should."""
    steps = 0

    def answer(step: Any) -> Any:
        nonlocal steps
        steps += 1
        if steps > MOST_STEPS:
            raise AssertionError(f"not at an end after {MOST_STEPS} steps")
        return answers(step)

    try:
        return run(machine, answer)
    except CcidError:
        return None


def t0_host(data: bytes) -> None:
    """A command APDU by T=0: TPDU by TPDU, or character by character."""
    taker = Taker(data)
    by_characters, command = taker.number() & 1, taker.piece()
    if by_characters:
        _run(t0.procedure(command), lambda step: taker.take(min(step.expected, taker.number())))
        return
    response = _run(t0.command(command), lambda _: taker.piece())
    assert response is None or len(response) >= 2


def _card(taker: Taker, atr: str) -> Contact:
    options = ContactOptions(atr=bytes.fromhex(atr))
    made = Contact(FileSystemCard() if taker.number() & 1 else EchoCard(), options)
    made.reset()
    return made


def t0_card(data: bytes) -> None:
    """Characters to a card of T=0."""
    taker = Taker(data)
    card = _card(taker, "3B00")
    while not taker.is_empty:
        for sent in card.receive(taker.piece()):
            assert sent.data


def _block(taker: Taker) -> bytes:
    """A block: as it stands, or with a right length and epilogue."""
    if taker.number() & 1:
        return taker.piece()
    nad, pcb, inf = taker.number(), taker.number(), taker.piece()
    block = bytes((nad & 0x11, pcb, len(inf))) + inf
    return block + lrc(block)


def t1_host(data: bytes) -> None:
    """Commands by T=1 to a card that answers anything, and then nothing."""
    taker = Taker(data)
    state = T1(taker.number(), crc=bool(taker.number() & 1), max_inf=taker.number() or 254)
    errors = list(LinkError)

    def answer(_: Any) -> bytes | LinkError:
        if taker.is_empty or taker.number() == 0x45:
            return taker.one_of(errors)
        return _block(taker)

    for _ in range(3):
        command = taker.piece()
        single = state.single(command) if len(command) >= 4 else None
        if single is not None and state.single_answer(_block(taker)) is not None:
            continue
        response = _run(state.exchange(command), answer)
        assert response is None or len(response) >= 2
    ifsd = _run(state.announce_ifsd(254), answer)
    assert ifsd is None or 1 <= ifsd <= 254


def t1_card(data: bytes) -> None:
    """Blocks to a card of T=1."""
    taker = Taker(data)
    card = _card(taker, "3B8001" + "81")
    while not taker.is_empty:
        for sent in card.receive(_block(taker)):
            assert 4 <= len(sent.data) <= 259 or pps_rules.is_pps(sent.data)
        card.idle()
