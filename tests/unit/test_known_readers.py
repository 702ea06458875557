"""A virtual reader for every reader with known figures: the reader opens, the verdict is that of
the table, and the card answers at the reader's level of exchange, even if the first power-on
fails."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

import ccid
from ccid.device.verdict import Level, Verdict, judge
from ccid.errors import ReaderUnsupported
from ccid.known.descriptor_figures import DeviceFigures, all_figures
from ccid.known.quirks import lookup, reader_table
from ccid.transport import ReaderInfo
from ccid.virtual import __main__ as virtual_main
from ccid.virtual.ccid_function import CcidFunction
from ccid.virtual.models import make, virtual_reader
from tests.unit.each import each

SELECT_MF = bytes.fromhex("00A4000C023F00")
SELECT_DEMO = bytes.fromhex("00A404000AF0636369642064656D6F")
READ_HELLO = bytes.fromhex("00B0810019")


@pytest.fixture(autouse=True, scope="module")
def no_user_file(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """The table of readers without the user's file; and no real pauses: neither between two
    power-ons nor after opening (``open-delay-s``)."""
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr("time.sleep", lambda _: None)
        patched.delenv(reader_table.VARIABLE, raising=False)
        patched.setenv("XDG_CONFIG_HOME", str(tmp_path_factory.mktemp("config")))
        yield


@each(device=all_figures)
def test_as_a_virtual_reader(device: DeviceFigures) -> None:
    reader = virtual_reader(device)
    assert len(reader.infos) == len(device.interfaces)
    for info, figures, function in zip(
        reader.infos, device.interfaces, reader.functions, strict=True
    ):
        assert info.id == device.id
        assert info.reader.smart_card == figures.descriptor
        assert info.reader.misplaced == figures.reader.misplaced
        assert info.interface_number == figures.number
        assert len(info.reader.endpoints) == len(figures.reader.endpoints)
        judged_and_used(info, function)


def judged_and_used(info: ReaderInfo, function: CcidFunction) -> None:
    """The verdict is that of the table. If the verdict is not "unsupported", the card answers, and
    answers again after its first power-on failed."""
    quirks, verdict = lookup(info.vendor_id, info.product_id), judge(info)
    fatal = [reason.text for reason in verdict.reasons if reason.fatal]
    too_old = quirks.min_release is not None and info.device.bcdDevice < quirks.min_release
    if quirks.status == "disabled" or too_old:
        refused(info, verdict)
        return
    assert verdict.level is not Level.UNSUPPORTED, fatal
    if quirks.status == "unsupported":
        assert verdict.level is Level.LIMITS
    with ccid.open_reader(info) as reader:
        assert len(reader.slots) == info.descriptor.slot_count
        with reader.slots[0].connect() as card:
            assert card.transmit(SELECT_MF) == b"\x90\x00"
            assert card.transmit(SELECT_DEMO)[-2] in (0x90, 0x61)  # 61xx at TPDU level, T=0
            assert card.transmit(READ_HELLO) == b"hello from a virtual card\x90\x00"
        function.slots[0].mute_for = 1
        with reader.slots[0].connect() as card:
            assert card.transmit(SELECT_MF) == b"\x90\x00"
        assert function.slots[0].mute_for == 0


def refused(info: ReaderInfo, verdict: Verdict) -> None:
    assert verdict.level is Level.UNSUPPORTED
    with pytest.raises(ReaderUnsupported):
        ccid.open_reader(info)


def test_iccd_devices_are_among_them() -> None:
    iccd = [d for d in all_figures() if any(i.reader.is_iccd for i in d.interfaces)]
    assert len(iccd) == 12


def test_models_by_their_ids() -> None:
    twin = make("08e6:3437").info
    assert (twin.product, twin.name) == ("USB SmartCard Reader", "Gemalto PC Twin Reader")
    assert make("1050:0407").info.model == "Yubico YubiKey OTP+FIDO+CCID"
    assert make("076B:5422").infos[1].interface_number == 1
    assert [i.interface_number for i in make("08e6:5503").infos] == [1, 2]


def test_a_model_without_figures() -> None:
    with pytest.raises(ccid.errors.ReaderNotFound, match=r"no figures of a reader ffff:0001"):
        make("ffff:0001")
    with pytest.raises(ccid.errors.ReaderNotFound, match=r"0d46:4081 \(KOBIL Systems"):
        make("0d46:4081")


def test_models_for_usbip(capsys: pytest.CaptureFixture[str]) -> None:
    options = virtual_main._parser().parse_args(
        ["--usbip", "127.0.0.1:0", "--model", "08E6:5503", "--count", "2", "--card", "none"]
    )
    readers = virtual_main._readers(options)
    assert [reader.info.id for reader in readers] == ["08e6:5503"] * 2
    assert all(f.slots[0].card is None for reader in readers for f in reader.functions)
    with pytest.raises(SystemExit):
        virtual_main.main(["--usbip", "127.0.0.1:0", "--model", "ffff:0001"])
    assert "--model: no figures of a reader ffff:0001 are known" in capsys.readouterr().err
