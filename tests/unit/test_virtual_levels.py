"""The virtual reader at TPDU and character level: USB CCID rev 1.1, 3.2, 6.1.4 to 6.1.7."""

from __future__ import annotations

from functools import reduce
from operator import xor
from typing import Any

import pytest

from ccid.codec.messages import (
    PC_to_RDR_GetParameters,
    PC_to_RDR_IccPowerOn,
    PC_to_RDR_ResetParameters,
    PC_to_RDR_SetParameters,
    PC_to_RDR_XfrBlock,
    ProtocolDataT0,
    ProtocolDataT1,
    RDR_to_PC_DataBlock,
    RDR_to_PC_Parameters,
    Reply,
)
from ccid.codes import CommandStatus, ExchangeLevel, Features, Protocol, SlotError
from ccid.trace import TRAFFIC
from ccid.virtual import Contact, ContactOptions, EchoCard, VirtualReader, make_descriptor
from ccid.virtual.cards import contact_faults as faults
from ccid.virtual.cards.pps_card import Pps
from ccid.virtual.cards.t0_card import T0Options
from ccid.virtual.cards.t1_card import T1Options
from ccid.virtual.ccid_function import CcidFunction
from ccid.virtual.virtual_reader import MANUAL
from tests.unit.virtual_bench import Bench, failed

TPDU, CHARACTER = ExchangeLevel.TPDU, ExchangeLevel.CHARACTER
PARAMETERS_T1 = ProtocolDataT1(
    bmFindexDindex=0x96, bmWaitingIntegersT1=0x45, bGuardTimeT1=0, bIFSC=0xFE
)
SPECIFIC_T1 = bytes.fromhex("3B 90 95 91 01 21 25 91")


def contact(**options: Any) -> Contact:
    return Contact(EchoCard(), ContactOptions(**options))


def bench(
    level: ExchangeLevel,
    card: Contact | None = None,
    features: int = MANUAL,
    function: dict[str, Any] | None = None,
    **fields: Any,
) -> Bench:
    """A reader without automatic functions; its card has power."""
    descriptor = make_descriptor(level, **{"dwFeatures": features | level, **fields})
    made = Bench(CcidFunction(descriptor, [card or contact()], **(function or {})))
    made.ask(PC_to_RDR_IccPowerOn())
    return made


def of(made: Bench) -> Contact:
    wire = made.function.slots[0].wire
    assert wire is not None
    return wire.contact


def xfr(made: Bench, text: str, level: int = 0, bBWI: int = 0) -> RDR_to_PC_DataBlock:
    command = PC_to_RDR_XfrBlock(
        bSeq=5, bBWI=bBWI, wLevelParameter=level, abData=bytes.fromhex(text)
    )
    made.send(command)
    due = made.function.bulk_in.next_due()
    made.now = max(made.now, due or 0.0)
    reply = made.reply()
    while reply is not None and reply.command_status is CommandStatus.TIME_EXTENSION:
        due = made.function.bulk_in.next_due()
        assert due is not None
        made.now = max(made.now, due)
        reply = made.reply()
    assert isinstance(reply, RDR_to_PC_DataBlock)
    return reply


def say(made: Bench, text: str, level: int = 0, bBWI: int = 0) -> str:
    """The data of the reply, or its bError."""
    reply = xfr(made, text, level, bBWI)
    if reply.command_status is CommandStatus.FAILED:
        return f"{reply.bError:02X}!"
    return reply.abData.hex(" ").upper()


def block(text: str) -> str:
    data = bytes.fromhex(text)
    return (data + bytes((reduce(xor, data),))).hex(" ").upper()


def set_t1(made: Bench, data: ProtocolDataT1 = PARAMETERS_T1) -> Reply:
    return made.ask(PC_to_RDR_SetParameters(bProtocolNum=1, abProtocolDataStructure=data))


def set_t0(made: Bench, data: ProtocolDataT0) -> Reply:
    return made.ask(PC_to_RDR_SetParameters(bProtocolNum=0, abProtocolDataStructure=data))


def in_t1(level: ExchangeLevel = TPDU, **more: Any) -> Bench:
    """Does PPS and sets parameters, as a host does for this card."""
    made = bench(level, **more)
    assert say(made, "FF 11 96 78", 4 if level is CHARACTER else 0) == "FF 11 96 78"
    assert not failed(set_t1(made), SlotError.CMD_NOT_SUPPORTED)
    return made


# Defaults -------------------------------------------------------------------------------------


@pytest.mark.parametrize("level", [TPDU, CHARACTER])
def test_readers_have_both_protocols(level: ExchangeLevel) -> None:
    info = VirtualReader(EchoCard(), level=level).info
    assert info.descriptor.dwProtocols == 3
    assert info.descriptor.exchange_level is level


def test_figures_can_be_given() -> None:
    descriptor = make_descriptor(TPDU, dwFeatures=TPDU, dwMaxIFSD=100, dwDefaultClock=4800)
    assert (descriptor.dwFeatures, descriptor.dwMaxIFSD) == (0x10000, 100)


# TPDU, T=0 ------------------------------------------------------------------------------------


def test_the_cases_of_t0() -> None:
    made = bench(TPDU)
    assert say(made, "00 40 00 00") == "90 00"
    assert say(made, "00 40 00 00 00") == "90 00"
    assert say(made, "00 10 05 00 03") == "05 06 07 90 00"
    assert len(xfr(made, "00 10 00 00 00").abData) == 258
    assert say(made, "00 20 00 00 02 31 32") == "90 00"
    assert say(made, "00 30 00 00 02 AA BB") == "61 02"
    assert say(made, "00 C0 00 00 05") == "6C 02"
    assert say(made, "00 C0 00 00 02") == "AA BB 90 00"
    assert say(made, "00 30 00 00 01 CC 00") == "61 01", "Le of case 4 is no part of a TPDU"


@pytest.mark.parametrize("options", [T0Options(nulls=3), T0Options(one_by_one=True)])
def test_the_reader_runs_the_procedure_bytes(options: T0Options) -> None:
    made = bench(TPDU, contact(t0=options))
    assert say(made, "00 10 05 00 03") == "05 06 07 90 00"
    assert say(made, "00 20 00 00 03 31 32 33") == "90 00"
    assert say(made, "00 30 00 00 01 AA") == "61 01"


@pytest.mark.parametrize(
    "text", ["", "00", "00 20 00", "00 20 00 00 03 31", "00 20 00 00 01 3132 33"]
)
def test_lengths_that_do_not_agree(text: str) -> None:
    assert say(bench(TPDU), text) == "01!"


def test_a_procedure_byte_that_is_none() -> None:
    made = bench(TPDU)
    of(made).faults += [faults.wrong_procedure_byte(0x21)]
    assert say(made, "00 10 05 00 03") == "F4!"
    assert say(made, "00 10 05 00 03") == "05 06 07 90 00"


def test_an_ack_when_nothing_is_left() -> None:
    made = bench(TPDU)
    of(made).faults += [faults.replaced(bytes.fromhex("10 05 06 10 90 00"))]
    assert say(made, "00 10 05 00 02") == "F4!"


def test_parity_and_silence_in_t0() -> None:
    made = bench(TPDU)
    of(made).faults += [faults.parity_error(), faults.silence(after=1)]
    assert say(made, "00 10 05 00 03") == "FD!"
    assert made.now == 0.0
    assert say(made, "00 10 05 00 03") == "FE!"
    assert made.now == pytest.approx(0.8928), "WWT"


def test_wwt_follows_the_parameters() -> None:
    made = bench(TPDU)
    of(made).faults += [faults.late(0.5, times=None)]
    assert say(made, "00 40 00 00") == "90 00"
    set_t0(made, ProtocolDataT0(bWaitingIntegerT0=5))
    assert say(made, "00 40 00 00") == "FE!"


def test_time_extensions_in_t0() -> None:
    made = bench(TPDU)
    made.send(PC_to_RDR_XfrBlock(bSeq=9, abData=bytes.fromhex("00 38 00 02")))
    said = []
    for tick in range(25):
        made.now = tick / 10 + 1e-6
        while (reply := made.reply()) is not None:
            said.append((tick, reply.command_status))
    asked = CommandStatus.TIME_EXTENSION
    assert said == [(4, asked), (8, asked), (12, asked), (16, asked), (20, CommandStatus.PROCESSED)]


def test_null_without_end() -> None:
    made = bench(TPDU)
    made.function.extension_s = None
    of(made).faults += [faults.nulls(4000, 0.8)]
    made.send(PC_to_RDR_XfrBlock(bSeq=9, abData=bytes.fromhex("00 40 00 00")))
    assert made.function.bulk_in.next_due() == pytest.approx(3200.0)


# TPDU, T=1 ------------------------------------------------------------------------------------


def test_blocks() -> None:
    made = in_t1()
    assert say(made, block("00 C1 01 FE")) == block("00 E1 01 FE")
    assert say(made, block("00 00 05 00 10 07 00 02")) == block("00 00 04 07 08 90 00")
    assert say(made, block("00 40 05 00 10 07 00 01")) == block("00 40 03 07 90 00")
    assert say(made, "00 81 00 00") == block("00 81 00"), "the reader does not look into blocks"


def test_a_card_with_a_crc() -> None:
    made = bench(TPDU, contact(atr=bytes.fromhex("3B 80 81 71 FE 45 01 CA")))
    set_t1(made, ProtocolDataT1(bmTCCKST1=0x11, bmWaitingIntegersT1=0x45, bIFSC=0xFE))
    assert say(made, "00 C1 01 FE 54 4E") == "00 E1 01 FE 57 75"


@pytest.mark.parametrize(
    ("fault", "expected"),
    [
        (faults.silence(), "FE!"),
        (faults.cut_short(2), "FE!"),
        (faults.cut_short(5), "FE!"),
        (faults.wrong_len(1), "FE!"),
        (faults.parity_error(), "FD!"),
        (faults.replaced(bytes.fromhex("00 00 FF") + bytes(256)), "00 00 FF" + " 00" * 256),
        (faults.doubled(), block("00 00 02 90 00")),
        (faults.corrupt(), "00 00 02 90 00 93"),
        (faults.pause(3, 0.0001), block("00 00 02 90 00")),
        (faults.pause(3, 0.01), "FE!"),
        (faults.late(1.4), block("00 00 02 90 00")),
        (faults.late(1.5), "FE!"),
    ],
)
def test_what_comes_of_faults(fault: faults.ContactFault, expected: str) -> None:
    """BWT is 1.43 s, CWT is 43 etu of 4 µs."""
    made = in_t1()
    of(made).faults.append(fault)
    assert say(made, block("00 00 04 00 40 00 00")) == expected
    assert say(made, block("00 C0 00")) == block("00 E0 00"), "and it goes on"


def test_a_block_too_long_for_the_reader() -> None:
    made = in_t1(dwMaxCCIDMessageLength=10 + 261 - 3)
    of(made).faults.append(faults.replaced(bytes.fromhex("00 00 FF") + bytes(256)))
    assert say(made, block("00 00 04 00 40 00 00")) == "FC!"


def test_silence_lasts_bwt_times_bbwi() -> None:
    made = in_t1()
    of(made).faults.append(faults.silence(times=None))
    begun = made.now
    assert say(made, block("00 00 04 00 40 00 00")) == "FE!"
    assert made.now - begun == pytest.approx(1.4285, abs=1e-3)
    begun = made.now
    assert say(made, block("00 81 00"), bBWI=3) == "FE!"
    assert made.now - begun == pytest.approx(3 * 1.4285, abs=1e-3)


def test_wtx_with_and_without_the_multiplier() -> None:
    made = in_t1(card=contact(t1=T1Options(wtx_multiplier=3)))
    begun = made.now
    assert say(made, block("00 00 04 00 38 00 04")) == block("00 C3 01 03")
    assert say(made, block("00 E3 01 03"), bBWI=3) == block("00 00 02 90 00")
    assert made.now - begun == pytest.approx(4.0, abs=1e-3)
    assert say(made, block("00 40 04 00 38 00 04")) == block("00 C3 01 03")
    assert say(made, block("00 E3 01 03")) == "FE!"


def test_bwt_follows_the_parameters() -> None:
    made = in_t1()
    of(made).faults.append(faults.late(1.0, times=None))
    assert say(made, block("00 00 04 00 40 00 00")) == block("00 00 02 90 00")
    set_t1(made, ProtocolDataT1(bmFindexDindex=0x96, bmWaitingIntegersT1=0x35))
    assert say(made, block("00 40 04 00 40 00 00")) == "FE!"


def test_no_pps_and_other_parameters() -> None:
    """The card still uses Fd, Dd and T=0."""
    made = bench(TPDU)
    set_t1(made)
    assert say(made, block("00 C1 01 FE")) == "FE!"


def test_pps_and_no_parameters() -> None:
    made = bench(TPDU)
    assert say(made, "FF 11 96 78") == "FF 11 96 78"
    assert say(made, "00 40 00 00") == "FD!", "the card hears noise, and so does the reader"


def test_a_wrong_rate_in_t1_is_a_parity_error() -> None:
    made = in_t1()
    set_t1(made, ProtocolDataT1(bmFindexDindex=0x95, bmWaitingIntegersT1=0x45))
    assert say(made, block("00 C1 01 FE")) == "FD!"


def test_specific_mode_without_its_rate() -> None:
    made = bench(TPDU, contact(atr=SPECIFIC_T1))
    set_t1(made, ProtocolDataT1(bmWaitingIntegersT1=0x25))
    assert say(made, block("00 C1 01 20")) == "FD!"
    set_t1(made, ProtocolDataT1(bmFindexDindex=0x95, bmWaitingIntegersT1=0x25))
    assert say(made, block("00 C1 01 20")) == block("00 E1 01 20")


def test_wlevelparameter_means_nothing_at_tpdu_level() -> None:
    assert say(bench(TPDU), "00 40 00 00", level=1) == "08!"


def test_the_reader_announces_its_ifsd() -> None:
    made = in_t1(features=MANUAL | Features.AUTO_IFSD, dwMaxIFSD=200)
    assert say(made, block("00 00 05 00 10 00 00 C6")) == block(
        "00 00 C8 " + bytes(range(198)).hex() + "90 00"
    )
    assert of(made).t1.ifsd == 200


def test_a_card_that_does_not_take_the_readers_ifsd() -> None:
    card = contact(t1=T1Options(accepts_ifs=False))
    made = in_t1(card=card, features=MANUAL | Features.AUTO_IFSD)
    assert say(made, block("00 00 04 00 40 00 00")) == block("00 00 02 90 00")
    assert of(made).t1.ifsd == 32


# PPS by the reader ----------------------------------------------------------------------------


@pytest.mark.parametrize("level", [TPDU, CHARACTER])
def test_automatic_pps(level: ExchangeLevel) -> None:
    made = bench(level, features=Features.AUTO_PPS | Features.AUTO_VOLTAGE)
    reply = set_t1(made)
    assert isinstance(reply, RDR_to_PC_Parameters)
    assert (reply.bProtocolNum, reply.abProtocolDataStructure) == (1, PARAMETERS_T1)
    assert (of(made).protocol, of(made).fidi) == (1, 0x96)
    assert say(made, block("00 C1 01 FE"), 5 if level is CHARACTER else 0) == block("00 E1 01 FE")


def test_a_card_that_does_not_take_pps1_tells_in_the_parameters() -> None:
    made = bench(TPDU, contact(pps=Pps.WITHOUT_PPS1), Features.AUTO_PPS | Features.AUTO_VOLTAGE)
    reply = set_t1(made)
    assert isinstance(reply, RDR_to_PC_Parameters)
    assert isinstance(reply.abProtocolDataStructure, ProtocolDataT1)
    assert reply.abProtocolDataStructure.bmFindexDindex == 0x11
    assert say(made, block("00 C1 01 FE")) == block("00 E1 01 FE")


@pytest.mark.parametrize(("how", "bError"), [(Pps.MUTE, 0xFE), (Pps.OTHER_PPS1, 10)])
def test_automatic_pps_that_fails(how: Pps, bError: int) -> None:
    made = bench(TPDU, contact(pps=how), Features.AUTO_PPS | Features.AUTO_VOLTAGE)
    made.send(PC_to_RDR_SetParameters(bProtocolNum=1, abProtocolDataStructure=PARAMETERS_T1))
    made.now = 10.0
    said = []
    while (reply := made.reply()) is not None:
        said.append(reply)
    assert failed(said[-1], bError)


def test_a_reader_that_does_pps_takes_the_hosts_for_a_header() -> None:
    """The answer of the card is then no procedure byte."""
    made = bench(TPDU, features=Features.AUTO_PPS | Features.AUTO_VOLTAGE)
    assert say(made, "FF 11 96 78 00") == "F4!"


def test_automatic_pps_does_not_touch_specific_mode() -> None:
    made = bench(TPDU, contact(atr=SPECIFIC_T1), Features.AUTO_PPS | Features.AUTO_VOLTAGE)
    set_t1(made, ProtocolDataT1(bmFindexDindex=0x95, bmWaitingIntegersT1=0x25))
    assert say(made, block("00 C1 01 20")) == block("00 E1 01 20")


@pytest.mark.parametrize("preferred", [Protocol.T0, Protocol.T1])
def test_automatic_negotiation(preferred: Protocol) -> None:
    made = bench(
        TPDU,
        features=Features.AUTO_NEGOTIATION | Features.AUTO_VOLTAGE,
        function={"preferred": preferred},
    )
    asked = made.ask(PC_to_RDR_GetParameters())
    assert isinstance(asked, RDR_to_PC_Parameters)
    data = asked.abProtocolDataStructure
    assert isinstance(data, ProtocolDataT0 | ProtocolDataT1)
    assert (asked.bProtocolNum, data.bmFindexDindex) == (preferred, 0x96)
    assert (of(made).protocol, of(made).fidi) == (preferred, 0x96)


def test_the_host_may_want_the_other_protocol_of_a_reader_that_negotiates() -> None:
    made = bench(
        TPDU,
        features=Features.AUTO_NEGOTIATION | Features.AUTO_VOLTAGE,
        function={"preferred": Protocol.T0},
    )
    assert say(made, "00 10 05 00 03") == "05 06 07 90 00"
    set_t1(made)
    assert (of(made).protocol, of(made).fidi) == (1, 0x96), "after a warm reset"
    assert say(made, block("00 C1 01 FE")) == block("00 E1 01 FE")


def test_automatic_negotiation_for_a_reader_with_one_protocol() -> None:
    features = Features.AUTO_NEGOTIATION | Features.AUTO_VOLTAGE
    made = bench(TPDU, features=features, dwProtocols=2)
    assert (of(made).protocol, of(made).fidi) == (1, 0x96)


def test_automatic_negotiation_with_a_card_that_refuses() -> None:
    features = Features.AUTO_NEGOTIATION | Features.AUTO_VOLTAGE
    descriptor = make_descriptor(TPDU, dwFeatures=features | TPDU)
    made = Bench(CcidFunction(descriptor, [contact(pps=Pps.MUTE)]))
    made.send(PC_to_RDR_IccPowerOn())
    made.now = 5.0
    said = []
    while (reply := made.reply()) is not None:
        said.append(reply)
    assert said[-1].command_status is CommandStatus.PROCESSED
    assert say(made, "00 10 05 00 03") == "05 06 07 90 00"


# Parameters -----------------------------------------------------------------------------------


def test_parameters_by_the_atr() -> None:
    made = bench(
        TPDU,
        contact(atr=bytes.fromhex("3B 80 81 31 FE 45 8B")),
        Features.AUTO_PARAMETERS | Features.AUTO_VOLTAGE,
    )
    asked = made.ask(PC_to_RDR_GetParameters())
    assert isinstance(asked, RDR_to_PC_Parameters)
    assert asked.abProtocolDataStructure == ProtocolDataT1(bmWaitingIntegersT1=0x45, bIFSC=0xFE)
    assert say(made, block("00 C1 01 FE")) == block("00 E1 01 FE")


def test_without_that_they_are_the_defaults() -> None:
    made = bench(TPDU, contact(atr=bytes.fromhex("3B 80 81 31 FE 45 8B")))
    asked = made.ask(PC_to_RDR_GetParameters())
    assert isinstance(asked, RDR_to_PC_Parameters)
    assert (asked.bProtocolNum, asked.abProtocolDataStructure) == (0, ProtocolDataT0())


@pytest.mark.parametrize("level", [TPDU, CHARACTER, ExchangeLevel.SHORT_APDU])
@pytest.mark.parametrize("data", [ProtocolDataT0(bGuardTimeT0=5), ProtocolDataT1(bIFSC=80)])
def test_set_get_reset(level: ExchangeLevel, data: ProtocolDataT0 | ProtocolDataT1) -> None:
    made = bench(level)
    number = int(isinstance(data, ProtocolDataT1))
    told = made.ask(PC_to_RDR_SetParameters(bProtocolNum=number, abProtocolDataStructure=data))
    for reply in (told, made.ask(PC_to_RDR_GetParameters())):
        assert isinstance(reply, RDR_to_PC_Parameters)
        assert (reply.bProtocolNum, reply.abProtocolDataStructure) == (number, data)
    reset = made.ask(PC_to_RDR_ResetParameters())
    assert isinstance(reset, RDR_to_PC_Parameters)
    assert (reset.bProtocolNum, reset.abProtocolDataStructure) == (number, type(data)())


@pytest.mark.parametrize(
    ("data", "bError"),
    [
        (ProtocolDataT1(bmFindexDindex=0x70), 10),
        (ProtocolDataT1(bmFindexDindex=0x97), 10),  # 500,000 bit/s, above dwMaxDataRate
        (ProtocolDataT1(bmWaitingIntegersT1=0xA5), 13),
        (ProtocolDataT1(bIFSC=0), 15),
        (ProtocolDataT1(bIFSC=255), 15),
        (ProtocolDataT1(bGuardTimeT1=7), 12),
    ],
)
def test_fields_it_refuses(data: ProtocolDataT1, bError: int) -> None:
    made = bench(TPDU, function={"unchangeable": ["bGuardTimeT1"]})
    assert failed(set_t1(made, data), bError)
    asked = made.ask(PC_to_RDR_GetParameters())
    assert isinstance(asked, RDR_to_PC_Parameters)
    assert asked.bProtocolNum == 0, "nothing changed"


def test_rates_it_has_not() -> None:
    made = bench(TPDU, function={"data_rates": [10752, 125000]})
    assert failed(set_t1(made), 10)
    assert not failed(set_t1(made, ProtocolDataT1(bmFindexDindex=0x95)), 10)
    assert not failed(set_t1(made, ProtocolDataT1(bmFindexDindex=0x11)), 10)


# Character level ------------------------------------------------------------------------------


def test_t0_character_by_character() -> None:
    made = bench(CHARACTER)
    assert say(made, "00 10 05 00 03", 1) == "10"
    assert say(made, "", 3) == "05 06 07"
    assert say(made, "", 2) == "90 00"
    assert say(made, "00 20 00 00 02", 1) == "20"
    assert say(made, "31 32", 1) == "90"
    assert say(made, "", 1) == "00"


def test_the_header_in_pieces() -> None:
    made = bench(CHARACTER)
    assert say(made, "00 40", 0) == ""
    assert say(made, "00 00 00", 2) == "90 00"


def test_silence_at_character_level() -> None:
    made = bench(CHARACTER)
    assert say(made, "00 40 00 00", 1) == "FE!"
    assert made.now == pytest.approx(0.8928)
    assert say(made, "00", 3) == "FE!", "two come, the third does not"
    assert say(made, "", 0) == ""


def test_one_by_one_at_character_level() -> None:
    made = bench(CHARACTER, contact(t0=T0Options(one_by_one=True, nulls=1)))
    assert say(made, "00 20 00 00 02", 1) == "60"
    assert say(made, "", 1) == "DF"
    assert say(made, "31", 2) == "60 DF"
    assert say(made, "32", 3) == "60 90 00"


def test_t1_in_two_reads() -> None:
    made = in_t1(CHARACTER)
    assert say(made, block("00 00 05 00 10 07 00 02"), 3) == "00 00 04"
    assert say(made, "", 5) == block("00 00 04 07 08 90 00")[9:]
    assert say(made, block("00 40 04 00 40 00 00"), 6) == block("00 40 02 90 00")


def test_an_unfinished_block_is_answered_after_cwt() -> None:
    made = in_t1(CHARACTER)
    assert say(made, "00 00 05 00", 4) == block("00 82 00")


def test_bwt_and_cwt_at_character_level() -> None:
    made = in_t1(CHARACTER)
    of(made).faults += [
        faults.late(2.0),
        faults.pause(3, 0.1, after=1),
        faults.parity_error(after=2),
    ]
    assert say(made, block("00 00 04 00 40 00 00"), 6) == "FE!"
    assert say(made, block("00 81 00"), 3) == "00 00 02"
    assert say(made, "", 3) == "FE!"
    assert say(made, block("00 81 00"), 6) == "FD!"
    assert say(made, block("00 81 00"), 6) == block("00 00 02 90 00")


def test_bbwi_at_character_level() -> None:
    made = in_t1(CHARACTER)
    of(made).faults.append(faults.late(2.0))
    assert say(made, block("00 00 04 00 40 00 00"), 6, bBWI=2) == block("00 00 02 90 00")


def test_what_is_not_fetched_stays() -> None:
    made = in_t1(CHARACTER)
    of(made).faults.append(faults.doubled())
    assert say(made, block("00 00 04 00 40 00 00"), 6) == block("00 00 02 90 00")
    assert say(made, "", 6) == block("00 00 02 90 00")


def test_more_than_a_message_holds() -> None:
    made = bench(CHARACTER)
    assert say(made, "00 40 00 00 00", 262) == "08!"
    assert say(made, "00" * 262, 1) == "01!"


def test_characters_take_their_time() -> None:
    """5 characters out, guard time, 2 back: 12 etu each, 16 etu between; an etu is 93 µs."""
    made = bench(CHARACTER, function={"real_time": True})
    assert say(made, "00 40 00 00 00", 2) == "90 00"
    assert made.now == pytest.approx((60 + 16 + 12) * 93e-6)


# A card that comes with its contacts ----------------------------------------------------------


def test_a_contact_is_put_in_and_comes_out_again() -> None:
    card = contact(t0=T0Options(nulls=2))
    virtual = VirtualReader(card, level=TPDU)
    assert virtual.remove() is card
    virtual.insert(card)
    assert virtual.functions[0].slots[0].card is card.application


# Secrets in the log ---------------------------------------------------------------------------

VERIFY = "00 20 00 81 08 "
PIN = "31 33 35 37 39 30 38 36"


@pytest.fixture
def log(caplog: pytest.LogCaptureFixture) -> pytest.LogCaptureFixture:
    caplog.set_level(TRAFFIC, "ccid.virtual")
    return caplog


def lines(log: pytest.LogCaptureFixture, kind: str) -> list[str]:
    return [m.split("seq=5 ", 1)[1] for m in log.messages if kind in m and "seq=5 " in m]


def test_a_pin_in_t1_blocks(log: pytest.LogCaptureFixture) -> None:
    made = in_t1()
    log.clear()
    xfr(made, block("00 00 0D" + VERIFY + PIN))
    xfr(made, block("00 40 05 00 10 00 00 01"))
    assert lines(log, "XfrBlock") == [
        "00 00 0D 00 20 00 81 08" + " 2A" * 9,
        "00 40 05 00 10 00 00 01 54",
    ]
    assert lines(log, "DataBlock") == [
        "ACTIVE PROCESSED 00 00 02 90 00 92",
        "ACTIVE PROCESSED 00 40 03 00 90 00 D3",
    ]


def test_a_pin_in_a_chain_of_blocks_and_in_their_repetition(log: pytest.LogCaptureFixture) -> None:
    made = in_t1()
    log.clear()
    parts = [block("00 20 08" + VERIFY + PIN[:8]), block("00 40 05" + PIN[9:])]
    for part in (parts[0], parts[1], parts[1], block("00 C0 00"), parts[1].replace("40", "00")):
        xfr(made, part)
    assert lines(log, "XfrBlock") == [
        "00 20 08 00 20 00 81" + " 2A" * 5,
        "00 40 05" + " 2A" * 6,
        "00 40 05" + " 2A" * 6,
        "00 C0 00 C0",
        "00 00 05" + " 2A" * 6,
    ]


def test_a_pin_in_characters_of_t1(log: pytest.LogCaptureFixture) -> None:
    made = in_t1(CHARACTER)
    log.clear()
    whole = block("00 00 0D" + VERIFY + PIN)
    for piece in (whole[:3], whole[3:15], whole[15:30]):
        xfr(made, piece)
    xfr(made, whole[30:], 3)
    xfr(made, "", 3)
    shown = " ".join(line.split(" level")[0] for line in lines(log, "XfrBlock"))
    assert "2A 2A 2A" in shown
    assert not any(digit in shown.split() for digit in PIN.split())


@pytest.mark.parametrize("one_by_one", [False, True])
def test_a_pin_in_characters_of_t0(one_by_one: bool, log: pytest.LogCaptureFixture) -> None:
    made = bench(CHARACTER, contact(t0=T0Options(one_by_one=one_by_one, nulls=1)))
    log.clear()
    xfr(made, VERIFY, 2)
    for piece in PIN.split() if one_by_one else [PIN]:
        xfr(made, piece, 2)
    xfr(made, "", 1)
    xfr(made, "00 10 31 00 01", 5)
    out = lines(log, "XfrBlock")
    assert not any(digit in " ".join(out[1:-2]).split() for digit in PIN.split())
    assert out[0].endswith("00 20 00 81 08")
    assert out[-1].endswith("00 10 31 00 01"), "the command behind it is seen again"
    assert lines(log, "DataBlock")[-1] == (
        "ACTIVE PROCESSED 60 EF 31 90 00" if one_by_one else "ACTIVE PROCESSED 60 10 31 90 00"
    )


def test_a_pin_in_a_t0_tpdu(log: pytest.LogCaptureFixture) -> None:
    made = bench(TPDU)
    log.clear()
    xfr(made, VERIFY + PIN)
    assert lines(log, "XfrBlock") == ["00 20 00 81 08" + " 2A" * 8]


def test_a_pin_whose_card_went_silent_stays_masked(log: pytest.LogCaptureFixture) -> None:
    made = bench(CHARACTER)
    of(made).faults.append(faults.silence())
    log.clear()
    xfr(made, VERIFY, 1)
    xfr(made, PIN, 1)
    assert not any(digit in " ".join(lines(log, "XfrBlock")[1:]).split() for digit in PIN.split())
