"""Virtual ICCD devices of version A and B: USB ICCD rev 1.0, with requests written by hand."""

from __future__ import annotations

from typing import Any

import pytest

from ccid.codec.descriptors import ClassControl, parse_configuration, smart_card_interfaces
from ccid.codec.messages import parse_event
from ccid.codes import ExchangeLevel, InterfaceProtocol
from ccid.trace import TRAFFIC
from ccid.virtual import EchoCard, VirtualReader
from ccid.virtual.iccd_function import IccdFunction, make_iccd_descriptor
from ccid.virtual.usb_device import Stall

A, B = InterfaceProtocol.ICCD_A, InterfaceProtocol.ICCD_B


class Host:
    """Sends control requests. The test sets ``now``."""

    def __init__(self, version: InterfaceProtocol, **options: Any) -> None:
        self.card = EchoCard()
        self.function = IccdFunction(version, self.card, **options)
        self.now = 0.0

    def out(self, bRequest: int, data: str = "", wValue: int = 0) -> None:
        raw = bytes.fromhex(data)
        request = ClassControl(0x21, bRequest, wValue, 0, len(raw))
        assert self.function.control(request, raw, self.now) == b""

    def get(self, bRequest: int, wLength: int = 300) -> str:
        request = ClassControl(0xA1, bRequest, 0, 0, wLength)
        return self.function.control(request, b"", self.now).hex(" ").upper()


def a(**options: Any) -> Host:
    host = Host(A, **options)
    host.get(0x62, 33)
    return host


def b(**options: Any) -> Host:
    host = Host(B, **options)
    host.out(0x62, wValue=1)
    assert host.get(0x6F, 34) == "00 " + EchoCard.atr.hex(" ").upper()
    return host


# The device -----------------------------------------------------------------------------------


@pytest.mark.parametrize("version", [A, B])
@pytest.mark.parametrize("interrupt", [False, True])
def test_descriptors(version: InterfaceProtocol, interrupt: bool) -> None:
    virtual = VirtualReader(EchoCard(), bInterfaceProtocol=version, interrupt=interrupt)
    (found,) = smart_card_interfaces(parse_configuration(virtual.device.raw_configuration))
    assert found.protocol is version
    assert found.bulk_in is found.bulk_out is None
    assert (found.interrupt_in is not None) is interrupt
    assert found.interface.bNumEndpoints == int(interrupt)
    features = {A: 0x0000_0840, B: 0x0002_0840}
    assert found.smart_card.dwFeatures == features[version]


def test_a_ccid_is_no_iccd() -> None:
    with pytest.raises(ValueError, match="bInterfaceProtocol"):
        IccdFunction(0)


def test_no_bulk() -> None:
    with pytest.raises(Stall):
        a().function.bulk_out(bytes(10), 0)


@pytest.mark.parametrize(
    ("version", "kind", "bRequest"),
    [
        (A, 0xA1, 0x81),
        (A, 0x21, 0x62),
        (A, 0xA1, 0x65),
        (A, 0x21, 0x6F),
        (A, 0xA1, 0x03),
        (A, 0x41, 0x63),
        (A, 0xA1, 0x6F),
        (B, 0xA1, 0xA0),
        (B, 0xA1, 0x62),
        (B, 0xA1, 0x63),
        (B, 0x21, 0x6F),
        (B, 0x21, 0x01),
        (B, 0x41, 0x63),
    ],
)
def test_requests_it_refuses(version: InterfaceProtocol, kind: int, bRequest: int) -> None:
    host = a() if version is A else b()
    with pytest.raises(Stall):
        host.function.control(ClassControl(kind, bRequest, 0, 0, 64), b"", 0)


def test_it_is_virtually_taken_out_and_put_in() -> None:
    host = a(interrupt=True)
    host.function.put(0, None, 1.0)
    assert host.get(0xA0) == "80"
    assert host.function.interrupt_in is not None
    pulled = host.function.interrupt_in.pull(16, 1.0)
    assert pulled is not None
    assert type(parse_event(pulled[0])).__name__ == "RDR_to_PC_NotifySlotChange"
    host.function.put(0, host.card, 2.0)
    assert host.get(0xA0) == "00"


def test_a_bus_reset_forgets_all() -> None:
    host = a()
    host.out(0x65, "00 10 00 00 02")
    host.function.reset(1.0)
    assert host.get(0xA0) == "00"
    with pytest.raises(Stall):
        host.out(0x65, "00 10 00 00 02")


# Version A ------------------------------------------------------------------------------------


def test_a_power() -> None:
    host = Host(A)
    assert host.get(0xA0) == "00"
    assert host.get(0x62, 33) == EchoCard.atr.hex(" ").upper()
    host.out(0x63)
    with pytest.raises(Stall):
        host.out(0x65, "00 10 00 00 02")


def test_a_mute_card() -> None:
    host = Host(A)
    host.function.slots[0].mute = True
    assert host.get(0xA0) == "80"
    with pytest.raises(Stall):
        host.get(0x62)


def test_a_case_1_has_no_data_phase() -> None:
    host = a()
    host.out(0x65, "00 40 00 00 00")
    assert host.get(0xA0) == "20"
    assert host.get(0x6F, 2) == "90 00"
    assert host.get(0xA0) == "00"


def test_a_case_2() -> None:
    host = a()
    host.out(0x65, "00 10 07 00 03")
    assert host.get(0xA0) == "10"
    assert host.get(0x6F, 2) == "07 08", "it may return less"
    assert host.get(0x6F, 3) == "09"
    assert host.get(0xA0) == "20"
    assert host.get(0x6F, 2) == "90 00"


def test_a_case_3_and_get_response() -> None:
    host = a()
    host.out(0x65, "00 30 00 00 03")
    assert host.get(0xA0) == "10"
    assert host.card.commands == 0
    host.out(0x65, "AA BB CC")
    assert host.get(0xA0) == "20"
    assert host.get(0x6F, 2) == "61 03"
    host.out(0x65, "00 C0 00 00 03")
    assert host.get(0x6F, 3) == "AA BB CC"
    assert host.get(0x6F, 2) == "90 00"
    assert host.card.commands == 1


@pytest.mark.parametrize("data", ["AA BB CC DD", ""])
def test_a_data_of_a_wrong_length(data: str) -> None:
    host = a()
    host.out(0x65, "00 30 00 00 03")
    with pytest.raises(Stall):
        host.out(0x65, data)


def test_a_requests_out_of_phase() -> None:
    host = a()
    with pytest.raises(Stall):
        host.get(0x6F)
    with pytest.raises(Stall):
        host.out(0x65, "00 10 00 00")
    host.out(0x65, "00 10 00 00 02")
    with pytest.raises(Stall):
        host.out(0x65, "00 10 00 00 02")


def test_a_busy() -> None:
    host = a(busy_s=0.1)
    host.out(0x65, "00 50 01 F4 00")
    assert host.get(0xA0) == "40"
    with pytest.raises(Stall):
        host.get(0x6F)
    host.now = 0.49
    assert host.get(0xA0) == "40"
    host.now = 0.51
    assert host.get(0xA0) == "20"
    host.get(0x6F, 2)
    host.out(0x65, "00 20 00 00 02")
    assert host.get(0xA0) == "40"
    host.now = 0.62
    assert host.get(0xA0) == "10"


def test_a_refusal_makes_it_mute_until_power_on() -> None:
    host = a()
    host.function.refusals.append(0xFE)
    host.out(0x65, "00 40 00 00 00")
    assert host.get(0xA0) == "80"
    host.get(0x62)
    host.out(0x65, "00 40 00 00 00")
    assert host.get(0x6F, 2) == "90 00"


def test_a_at_tpdu_level_answers_in_one_piece() -> None:
    descriptor = make_iccd_descriptor(A, dwFeatures=0x0001_0840)
    assert descriptor.exchange_level is ExchangeLevel.TPDU
    host = a(descriptor=descriptor)
    host.out(0x65, "00 10 07 00 03")
    assert host.get(0x6F) == "07 08 09 90 00"
    host.out(0x65, "00 20 00 00 02 31 32")
    assert host.get(0x6F) == "90 00"


# Version B ------------------------------------------------------------------------------------


def test_b_power_and_slot_status() -> None:
    host = Host(B)
    assert host.get(0x81, 3) == "40 01 00"
    host.out(0x62, wValue=1)
    assert host.get(0x6F, 34) == "00 " + EchoCard.atr.hex(" ").upper()
    assert host.get(0x81, 3) == "40 00 00"
    host.out(0x63)
    assert host.get(0x81, 3) == "40 01 00"
    host.function.put(0, None, 0)
    assert host.get(0x81, 3) == "40 02 00"


def test_b_mute_card() -> None:
    host = Host(B)
    host.function.slots[0].mute = True
    host.out(0x62, wValue=1)
    assert host.get(0x6F, 34) == "40 41 FE"


def test_b_an_apdu() -> None:
    host = b()
    host.out(0x65, "00 30 00 00 02 AA BB 00")
    assert host.get(0x6F) == "00 AA BB 90 00"
    assert host.get(0x6F) == "40 40 00", "nothing more to say"


def test_b_chains_both_ways() -> None:
    host = b(descriptor=make_iccd_descriptor(B, dwMaxCCIDMessageLength=10 + 4))
    host.out(0x65, "00 30 00 00", 0x0100)
    assert host.get(0x6F) == "10"
    host.out(0x65, "03 AA BB CC", 0x0300)
    assert host.get(0x6F) == "10"
    host.out(0x65, "00", 0x0200)
    assert host.get(0x6F) == "01 AA BB CC 90"
    host.out(0x65, "", 0x1000)
    assert host.get(0x6F) == "02 00"
    assert host.card.commands == 1


@pytest.mark.parametrize("wValue", [0x0200, 0x0300, 0x1000, 0x7700])
def test_b_chains_that_did_not_begin(wValue: int) -> None:
    host = b()
    host.out(0x65, "00 40 00 00", wValue)
    assert host.get(0x6F) == "40 40 08"


def test_b_polling() -> None:
    host = b(wDelayTime=5)
    host.out(0x65, "00 50 01 F4")
    assert host.get(0x6F) == "80 05 00"
    with pytest.raises(Stall):
        host.out(0x65, "00 40 00 00")
    host.now = 0.51
    assert host.get(0x6F) == "00 90 00"


def test_b_always_busy_for_a_while() -> None:
    host = Host(B, busy_s=0.2, wDelayTime=0)
    host.out(0x62, wValue=1)
    assert host.get(0x6F) == "80 00 00"
    host.now = 0.2
    assert host.get(0x6F)[:5] == "00 3B"


def test_b_failures() -> None:
    host = b()
    host.function.refusals.append(0xFB)
    host.out(0x65, "00 40 00 00")
    assert host.get(0x6F) == "40 40 FB"
    host.out(0x63)
    host.out(0x65, "00 40 00 00")
    assert host.get(0x6F) == "40 41 FE"
    with pytest.raises(Stall):
        host.get(0x6F, 3)


# Secrets --------------------------------------------------------------------------------------


@pytest.mark.parametrize("version", [A, B])
def test_secrets_are_masked_in_the_log(
    version: InterfaceProtocol, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(TRAFFIC, "ccid.virtual")
    host = a() if version is A else b()
    if version is A:
        host.out(0x65, "00 20 00 81 04")
        host.out(0x65, "31 33 35 37")
    else:
        host.out(0x65, "00 20 00 81 04 31 33 35 37")
    host.get(0x6F)
    said = " | ".join(caplog.messages)
    assert "00 20 00 81 04" in said
    assert "31 33 35 37" not in said
    assert "2A 2A 2A 2A" in said
