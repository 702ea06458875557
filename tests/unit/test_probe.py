"""``ccid-probe``."""

from __future__ import annotations

import importlib.resources
import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import jsonschema
import pytest

import ccid
from ccid import errors
from ccid.probe import doctor_command, list_command, session
from ccid.probe.__main__ import take_virtual
from ccid.trace.log import logger
from ccid.transport import discovery, usb
from ccid.transport.libusb import Status
from tests.pcapng import packets
from tests.unit.conftest import Run
from tests.unit.fake_usb import FakeBackend, FakeDevice
from tests.unit.test_descriptors import QEMU, configuration, interface

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text("utf-8")
JSON_DOCUMENT = (ROOT / "docs" / "json.md").read_text("utf-8")


@pytest.fixture(autouse=True)
def empty_usb(monkeypatch: pytest.MonkeyPatch) -> FakeBackend:
    """No reader on USB, whatever this machine has."""
    backend = FakeBackend()
    for module in (discovery, usb):
        monkeypatch.setattr(module, "backend", lambda: backend)
    return backend


# No reader ------------------------------------------------------------------------------------


def test_without_a_reader_list_shows_the_virtual_one(run: Run) -> None:
    for words in ((), ("list",)):
        status, out, err = run(*words)
        assert status == 0
        assert "Virtual Reader" in out
        assert "no CCID reader on USB" in err


@pytest.mark.parametrize("command", ["dump", "check", "card"])
def test_without_a_reader_others_fail(run: Run, command: str) -> None:
    status, out, err = run(command)
    assert (status, out) == (1, "")
    assert "no CCID reader" in err
    assert "--virtual" in err


def test_without_a_reader_apdu_fails(run: Run) -> None:
    assert run("apdu", "00A40400")[0] == 1


# The command line -----------------------------------------------------------------------------


def test_version(run: Run) -> None:
    assert run("--version") == (0, f"ccid-probe {ccid.__version__}\n", "")


@pytest.mark.parametrize(
    "words",
    [
        ["frob"],
        ["--frob"],
        ["apdu"],
        ["dump", "--slot", "x"],
        ["--virtual=12"],
        ["card", "--virtual=frob"],
        ["--rea", "foo"],
        ["--reade", "foo", "list"],
        ["dump", "--virt"],
        ["apdu", "--virtual", "--proto", "T0", "00A40400"],
        ["--virtual", "apdu", ""],
        ["--virtual", "apdu", "00A40400", " "],
    ],
)
def test_wrong_command_lines(run: Run, words: list[str]) -> None:
    status, out, err = run(*words)
    assert (status, out) == (2, "")
    assert "ccid-probe: " in err


def test_help_names_every_command(run: Run) -> None:
    status, out, _ = run("--help")
    assert status == 0
    for name in ("list", "dump", "check", "card", "apdu", "atr", "atr-stats", "doctor"):
        assert f"\n    {name} " in out


@pytest.mark.parametrize(
    ("words", "rest", "model"),
    [
        (["--virtual"], ["--virtual"], None),
        (["--virtual", "list"], ["--virtual", "list"], None),
        (["--virtual", "08e6:4433", "list"], ["--virtual", "list"], "08e6:4433"),
        (["list", "--virtual", "08E6:4433"], ["list", "--virtual"], "08E6:4433"),
        (["--virtual=08e6:4433"], ["--virtual"], "08e6:4433"),
        (["list", "08e6:4433"], ["list", "08e6:4433"], None),
        (["--virtual", "apdu", "00A4"], ["--virtual", "apdu", "00A4"], None),
    ],
)
def test_virtual_swallows_the_next_word_only_if_it_is_a_model(
    words: list[str], rest: list[str], model: str | None
) -> None:
    assert take_virtual(words) == (rest, model)


@pytest.mark.parametrize(
    "words",
    [
        ["--virtual", "08e6:4433", "dump"],
        ["dump", "--virtual", "08e6:4433"],
        ["--virtual", "dump", "--virtual=08e6:4433"],
    ],
)
def test_virtual_before_and_after_the_command(run: Run, words: list[str]) -> None:
    status, out, _ = run(*words)
    assert status == 0
    assert "0x4433" in out


def test_options_before_the_command_hold(run: Run, tmp_path: Path) -> None:
    file = tmp_path / "t.pcapng"
    assert run("--virtual", "--trace", str(file), "card")[0] == 0
    assert file.stat().st_size > 500


def test_an_unknown_model(run: Run) -> None:
    status, _, err = run("dump", "--virtual", "ffff:0001")
    assert status == 1
    assert "ffff:0001" in err


def test_an_unknown_reader(run: Run) -> None:
    status, _, err = run("dump", "--virtual", "--reader", "nobody")
    assert status == 1
    assert "nobody" in err


def test_it_ends_quietly_when_nobody_listens() -> None:
    child = subprocess.Popen(
        [sys.executable, "-m", "ccid.probe", "dump", "--virtual"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    assert child.stdout is not None
    child.stdout.close()
    assert child.stderr is not None
    assert child.stderr.read() == b""
    child.stderr.close()
    assert child.wait(20) == 0


def test_a_trace_that_cannot_be_written(run: Run) -> None:
    status, _, err = run("card", "--virtual", "--trace", "/none/at/all.pcapng")
    assert status == 1
    assert "/none/at/all.pcapng" in err


# What it imports ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "code", ["import ccid", "from ccid.probe.__main__ import main; main(['--version'])"]
)
def test_start_pulls_in_neither_pyusb_nor_construct(code: str) -> None:
    script = f"""
import sys
try:
    {code}
except SystemExit:
    sys.stdout.flush()
heavy = {{"usb", "construct", "libusb_package", "logging", "dataclasses"}} & set(sys.modules)
sys.exit(", ".join(sorted(heavy)) or 0)
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")


# The commands ---------------------------------------------------------------------------------


def test_dump_in_the_order_libccids_users_know(run: Run) -> None:
    _, out, _ = run("dump", "--virtual", "08e6:4433")
    names = [line.split(":")[0].strip() for line in out.splitlines()]
    order = [
        "idVendor", "iManufacturer", "idProduct", "iProduct", "bcdDevice", "bInterfaceNumber",
        "bAlternateSetting", "bNumEndpoints", "bInterfaceClass", "bInterfaceSubClass",
        "bInterfaceProtocol", "bcdCCID", "bMaxSlotIndex", "bVoltageSupport", "dwProtocols",
        "dwDefaultClock", "dwMaximumClock", "bNumClockSupported", "dwDataRate", "dwMaxDataRate",
        "bNumDataRatesSupported", "dwMaxIFSD", "dwSynchProtocols", "dwMechanical", "dwFeatures",
        "dwMaxCCIDMessageLength", "bClassGetResponse", "bClassEnvelope", "wLcdLayout",
        "bPINSupport", "bMaxCCIDBusySlots",
    ]  # fmt: skip
    places = [names.index(name) for name in order]
    assert places == sorted(places)
    assert "TPDU level exchange" in out


def test_check(run: Run) -> None:
    status, out, _ = run("check", "--virtual", "08e6:4433")
    assert status == 0
    assert "works with limits" in out
    assert "dwProtocols" in out


def test_check_fails_for_a_reader_that_cannot_work(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    from ccid.codes import ExchangeLevel
    from ccid.virtual import make_descriptor

    bad = make_descriptor(ExchangeLevel.SHORT_APDU, dwProtocols=0)
    virtual = ccid.VirtualReader(None, descriptor=bad)
    monkeypatch.setattr(session, "list_readers", lambda: [virtual.info])
    status, out, _ = run("check")
    assert status == 1
    assert "unsupported" in out
    assert "fatal dwProtocols" in out


def test_card(run: Run) -> None:
    status, out, _ = run("card", "--virtual")
    assert status == 0
    assert "direct convention" in out
    assert "Protocol: T=" in out
    assert "> 00 A4 00 0C 02 3F 00  SELECT MF" in out
    assert "< 90 00  normal processing" in out


@pytest.mark.parametrize("protocol", ["T0", "T1"])
def test_card_with_a_protocol(run: Run, protocol: str) -> None:
    _, out, _ = run("card", "--virtual", "--protocol", protocol)
    assert f"Protocol: T={protocol[1]}" in out


def test_a_slot_the_reader_has_not(run: Run) -> None:
    status, _, err = run("card", "--virtual", "--slot", "3")
    assert status == 1
    assert "no slot 3" in err


def test_apdus(run: Run) -> None:
    status, out, _ = run("--virtual", "apdu", "00 A4 00 0C 02 3F 00", "00:84:00:00:04")
    assert status == 0
    assert out.count("> ") == 2
    assert out.count("< 90 00") == 2


def test_a_pin_on_the_command_line_is_not_printed(run: Run) -> None:
    _, out, _ = run("--virtual", "apdu", "0020008104 39383736")
    assert "39 38 37 36" not in out
    assert "> 00 20 00 81 04 2A 2A 2A 2A" in out
    _, out, _ = run("--virtual", "--trace-secrets", "apdu", "0020008104 39383736")
    assert "39 38 37 36" in out


@pytest.mark.parametrize("word", ["xx", "00A", "00-A4"])
def test_what_is_not_hexadecimal(run: Run, word: str) -> None:
    status, _, err = run("--virtual", "apdu", word)
    assert status == 2
    assert "not hexadecimal" in err


def test_an_apdu_too_short(run: Run) -> None:
    status, _, err = run("--virtual", "apdu", "00A4")
    assert status == 1
    assert "2 bytes; a command APDU has 4 to" in err


def test_the_log(run: Run) -> None:
    before = list(logger.handlers), logger.level, logger.propagate
    for _ in range(2):
        _, _, err = run("card", "--virtual", "--log")
        assert err.count("PC_to_RDR_IccPowerOn") == 1
    assert (list(logger.handlers), logger.level, logger.propagate) == before


def test_a_pin_in_the_log(run: Run) -> None:
    words = ("--virtual", "--log", "apdu", "0020008104 39383736")
    _, _, err = run(*words)
    assert "00 20 00 81 04 2A 2A 2A 2A" in err
    assert "39 38 37 36" not in err
    _, _, err = run("--trace-secrets", *words)
    assert "00 20 00 81 04 39 38 37 36" in err
    _, _, err = run(*words)
    assert "39 38 37 36" not in err, "asked for once"


def test_a_pin_in_an_envelope_on_the_command_line_is_not_printed(run: Run) -> None:
    _, out, _ = run("--virtual", "apdu", "00C2000009 0020008104 39383736")
    assert "> 00 C2 00 00 09 2A" in out
    assert "39 38 37 36" not in out


# One trace and one log for several readers -----------------------------------------------------


@pytest.fixture
def two_readers(monkeypatch: pytest.MonkeyPatch) -> list[ccid.ReaderInfo]:
    infos = [ccid.VirtualReader().info for _ in range(2)]
    monkeypatch.setattr(session, "virtual_infos", lambda _: infos)
    monkeypatch.setattr(doctor_command, "virtual_infos", lambda _: infos)
    return infos


@pytest.mark.parametrize("command", ["dump", "doctor", "report"])
def test_one_trace_for_all_readers(
    run: Run, two_readers: list[ccid.ReaderInfo], tmp_path: Path, command: str
) -> None:
    file = tmp_path / "t.pcapng"
    status, _, err = run(command, "--virtual", "--trace", str(file), "--log")
    assert status == 0
    found = packets(file.read_bytes())
    begun = [unit for unit in found if unit.data == two_readers[0].device.build()]
    assert len(begun) == 2
    lines = [line[13:] for line in err.splitlines() if "== " in line and "end" not in line]
    assert len(lines) == 2, "each reader is logged once"


@pytest.mark.parametrize("command", ["list", "check", "readers"])
@pytest.mark.parametrize("option", [["--trace", "t.pcapng"], ["--log"]])
def test_what_opens_no_reader_has_nothing_to_trace(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, command: str, option: list[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    status, out, err = run(command, "--virtual", *option)
    assert (status, out) == (2, "")
    assert f"{command} opens no reader" in err
    assert list(tmp_path.iterdir()) == []


# Readers whose descriptors are wrong ------------------------------------------------------------


@pytest.fixture
def broken_usb(empty_usb: FakeBackend) -> FakeBackend:
    wrong = configuration(interface())  # no class descriptor
    empty_usb.devices = (FakeDevice(wrong),)
    return empty_usb


def test_list_notes_a_reader_that_cannot_be_understood(run: Run, broken_usb: FakeBackend) -> None:
    status, out, err = run("list")
    assert status == 0
    assert "usb:1-1:1.0 of 1234:5678 cannot be used" in err
    assert "Virtual Reader" in out


def test_check_judges_a_reader_that_cannot_be_understood(run: Run, broken_usb: FakeBackend) -> None:
    status, out, _ = run("check")
    assert status == 1
    assert "smart-card interface of 1234:5678 (1234:5678 at usb:1-1:1.0): unsupported" in out
    assert "  fatal b" in out
    status, out, _ = run("check", "--json")
    assert status == 1
    document = json.loads(out)
    jsonschema.Draft202012Validator(schema("check")).validate(document)
    (reader,) = document["readers"]
    assert (reader["idVendor"], reader["verdict"]) == (0x1234, "unsupported")
    assert run("check", "--reader", "usb:1-1:1.0")[0] == 1
    assert "no CCID reader" in run("check", "--reader", "usb:1-2:1.0")[2]
    assert run("check", "--virtual")[0] == 0


def test_check_judges_the_others_as_well(run: Run, broken_usb: FakeBackend) -> None:
    broken_usb.devices += (FakeDevice(QEMU, ports=(2,), address=3),)
    status, out, _ = run("check")
    assert status == 1
    assert "usb:1-2:1.0): works" in out
    assert "usb:1-1:1.0): unsupported" in out
    assert run("check", "--reader", "usb:1-2:1.0")[0] == 0


def test_usb_that_cannot_be_listed(run: Run, empty_usb: FakeBackend) -> None:
    empty_usb.fail["enumerate_devices"] = Status.NO_MEM
    with pytest.raises(errors.UsbUnavailable, match="out of memory"):
        ccid.list_readers()
    status, _, err = run("list")
    assert status == 1
    assert "libusb cannot list" in err


# The doctor -----------------------------------------------------------------------------------


def test_the_doctor_finds_nothing(run: Run) -> None:
    status, out, _ = run("doctor")
    assert status == 1
    assert "TROUBLE" in out
    assert "cure: " in out
    assert "libusb" in out


def test_the_doctor_on_a_good_reader(run: Run) -> None:
    status, out, _ = run("doctor", "--virtual")
    assert status == 0
    assert "verdict: works" in out
    assert "slot 0: inactive" in out
    assert "opens, and answers" in out


def test_the_doctor_on_a_broken_one(run: Run, empty_usb: FakeBackend) -> None:
    empty_usb.devices = (FakeDevice(configuration(interface())),)
    status, out, _ = run("doctor")
    assert status == 1
    assert "descriptors cannot be understood" in out


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (errors.AccessDenied("no; rule", cure="the udev rule"), "the udev rule"),
        (errors.ReaderBusy("held by pcscd; stop it", cure="stop it"), "held by pcscd"),
        (errors.TransportTimeout("silence"), "unplug the reader"),
    ],
)
def test_the_doctor_tells_trouble_and_cure(
    run: Run, monkeypatch: pytest.MonkeyPatch, error: Exception, words: str
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr(session, "open_reader", fail)
    status, out, _ = run("doctor", "--virtual")
    assert status == 1
    assert words in out


# JSON -----------------------------------------------------------------------------------------


def schema(name: str) -> Any:
    folder = importlib.resources.files("ccid.probe") / "schemas"
    return json.loads((folder / f"{name}.json").read_text())


@pytest.mark.parametrize("name", ["list", "dump", "check", "doctor"])
@pytest.mark.parametrize("model", [(), ("08e6:4433",)], ids=["default", "qemu"])
def test_json_is_as_documented(run: Run, name: str, model: tuple[str, ...]) -> None:
    status, out, _ = run(name, "--json", "--virtual", *model)
    assert status == 0
    document = json.loads(out)
    assert document["schema"] == f"ccid-probe/{name}/1"
    checker = jsonschema.Draft202012Validator(schema(name))
    checker.check_schema(schema(name))
    checker.validate(document)


@pytest.mark.parametrize("name", ["list", "dump", "check", "doctor"])
def test_json_schemas_are_strict(run: Run, name: str) -> None:
    document = json.loads(run(name, "--json", "--virtual")[1])
    reader, *others = document["readers"]
    nameless = {key: value for key, value in reader.items() if key != "name"}
    for spoilt in ({**document, "more": 1}, {**document, "readers": [nameless, *others]}):
        with pytest.raises(jsonschema.ValidationError):
            jsonschema.Draft202012Validator(schema(name)).validate(spoilt)


def test_each_schema_is_in_the_document() -> None:
    names = {file.name for file in (ROOT / "ccid" / "probe" / "schemas").iterdir()}
    linked = re.findall(r"\]\(\.\./ccid/probe/schemas/(\S+?)\)", JSON_DOCUMENT)
    assert sorted(linked) == sorted(names)


def test_json_without_a_reader(run: Run) -> None:
    status, out, err = run("list", "--json")
    assert status == 0
    document = json.loads(out)
    assert document["virtual"] is True
    assert "no CCID reader" in err


def test_json_dump_has_every_field_as_it_is(run: Run) -> None:
    document = json.loads(run("dump", "--json", "--virtual", "08e6:4433")[1])
    (reader,) = document["readers"]
    assert reader["smart_card"]["dwFeatures"] == 0x000104FE
    assert reader["smart_card"]["dwMaxCCIDMessageLength"] == 65554
    assert reader["interface"]["bInterfaceClass"] == 0x0B
    assert [e["bmAttributes"] for e in reader["endpoints"]] == [2, 2, 3]
    assert reader["clock_frequencies"] == []
    assert reader["strings"]["iProduct"] == "QEMU USB CCID"


def test_dump_of_a_reader_that_cannot_be_opened(run: Run, empty_usb: FakeBackend) -> None:
    from ccid.transport.libusb import Status

    empty_usb.devices = (FakeDevice(QEMU),)
    empty_usb.fail["claim_interface"] = Status.BUSY
    status, out, err = run("dump", "--json")
    assert status == 0
    assert json.loads(out)["readers"][0]["data_rates"] is None
    assert "were not read" in err
    jsonschema.Draft202012Validator(schema("dump")).validate(json.loads(out))


def test_list_of_a_reader_with_several_levels() -> None:
    from ccid.codes import ExchangeLevel
    from ccid.virtual import make_descriptor

    odd = make_descriptor(ExchangeLevel.SHORT_APDU, dwFeatures=0x00060000)
    entry = list_command.as_json(ccid.VirtualReader(None, descriptor=odd).info)
    assert entry["level"] is None
    assert entry["verdict"] == "unsupported"


def test_watch_tells_what_is_there_as_documented(run: Run) -> None:
    status, out, _ = run("watch", "--json", "--virtual", "--timeout", "0")
    assert status == 0
    documents = [json.loads(line) for line in out.splitlines()]
    assert [one["event"] for one in documents] == ["READER_ARRIVED", "CARD_ARRIVED"]
    for document in documents:
        jsonschema.Draft202012Validator(schema("watch")).validate(document)


@pytest.mark.parametrize("option", [["--trace", "t.pcapng"], ["--log"]])
def test_watch_says_what_traces_its_readers(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, option: list[str]
) -> None:
    """It opens them: what it says instead of --trace is true."""
    monkeypatch.chdir(tmp_path)
    status, out, err = run("watch", "--virtual", "--timeout", "0", *option)
    assert (status, out) == (2, "")
    assert "watch takes neither --trace nor --log: CCID_TRACE=FILE traces the readers" in err
    assert "opens no reader" not in err
    assert list(tmp_path.iterdir()) == []
    command = [sys.executable, "-m", "ccid.probe", "watch", "--virtual", "--timeout", "0"]
    subprocess.run(command, env={**os.environ, "CCID_TRACE": "t.pcapng"}, check=True)
    assert packets((tmp_path / "t.pcapng").read_bytes())


def test_ctrl_c_has_an_exit_status_of_its_own(
    run: Run, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def interrupted(_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(list_command, "run", interrupted)
    assert run("list", "--virtual") == (130, "", "")
    for text in (run("--help")[1], README, JSON_DOCUMENT):
        assert "130 if Ctrl-C ended it" in " ".join(text.split())


@pytest.mark.parametrize("seconds", ["-1", "nan", "x"])
def test_watch_takes_no_negative_time(run: Run, seconds: str) -> None:
    status, _, err = run("watch", "--timeout", seconds)
    assert status == 2
    assert f"invalid seconds value: '{seconds}'" in err
