"""Several interfaces of a device as the slots of one reader."""

from __future__ import annotations

import dataclasses

import pytest

import ccid
from ccid.codes import ExchangeLevel, IccStatus
from ccid.device import composite
from ccid.errors import ReaderBusy, ReaderClosed, ReaderNotFound
from ccid.transport import ReaderInfo
from ccid.virtual import EchoCard, make_descriptor
from ccid.virtual.ccid_function import CcidFunction
from tests.unit.quirk_bench import CASE_1, Table


@pytest.fixture(autouse=True)
def the_table_alone(table: Table) -> None:
    """The table of readers without the user's file."""


def device(product_id: int = 0x0001) -> ccid.VirtualReader:
    """A device with two interfaces; the first interface has two slots."""
    short, extended = ExchangeLevel.SHORT_APDU, ExchangeLevel.EXTENDED_APDU
    return ccid.VirtualReader(
        functions=[
            CcidFunction(make_descriptor(short, 2), [EchoCard(), None]),
            CcidFunction(make_descriptor(extended), [EchoCard()]),
        ],
        product_id=product_id,
    )


@pytest.fixture
def on_usb(monkeypatch: pytest.MonkeyPatch) -> list[ReaderInfo]:
    """Two such devices on USB, with their interfaces in mixed order."""
    one, two = device(), device(0x0002)
    there = [two.infos[1], one.infos[1], two.infos[0], one.infos[0]]
    monkeypatch.setattr(composite, "list_readers", lambda: there)
    return there


def test_the_slots_of_all() -> None:
    virtual = device()
    with ccid.open_composite(virtual) as reader:
        assert isinstance(reader, ccid.Composite)
        assert [slot.index for slot in reader.slots] == [0, 1, 0]
        assert [slot.status() for slot in reader.slots] == [
            IccStatus.INACTIVE,
            IccStatus.ABSENT,
            IccStatus.INACTIVE,
        ]
        cards = [reader.slots[i].connect() for i in (0, 2)]
        for card in cards * 2:
            assert card.transmit(CASE_1) == b"\x90\x00"
        assert (reader.name, len(reader.readers)) == ("Virtual Reader [0]", 2)
        assert "2 interfaces" in repr(reader)
    for slot in reader.slots:
        with pytest.raises(ReaderClosed):
            slot.status()
    reader.close()
    ccid.open_composite(virtual).close()


def test_all_or_none() -> None:
    virtual = device()
    with ccid.open_reader(virtual.infos[1]):
        with pytest.raises(ReaderBusy):
            ccid.open_composite(virtual)
        ccid.open_reader(virtual.infos[0]).close()


@pytest.mark.parametrize("interface", [0, 1])
def test_by_one_of_its_interfaces(on_usb: list[ReaderInfo], interface: int) -> None:
    (info,) = (r for r in on_usb if (r.product_id, r.interface_number) == (0x0002, interface))
    for which in (info, info.path):
        with ccid.open_composite(which) as reader:
            assert [one.info.path for one in reader.readers] == [on_usb[2].path, on_usb[0].path]


def test_by_a_name_that_nobody_has(on_usb: list[ReaderInfo]) -> None:
    with pytest.raises(ReaderNotFound):
        ccid.open_composite("nobody")


def test_another_device_of_the_same_kind_is_no_sibling(on_usb: list[ReaderInfo]) -> None:
    info = on_usb[3]
    elsewhere = dataclasses.replace(info, address=info.address + 50)
    assert composite.siblings(info, [*on_usb, elsewhere]) == [info, on_usb[1]]


def test_a_table_that_names_none_of_its_interfaces(table: Table) -> None:
    """All interfaces are opened then."""
    table.only("1209:0001", "composite-interfaces = [7]")
    with ccid.open_composite(device()) as reader:
        assert len(reader.readers) == 2
