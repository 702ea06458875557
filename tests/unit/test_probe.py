"""The command ``ccid-probe``: its command line, and the commands that open or list readers."""

from __future__ import annotations

import argparse
import importlib.resources
import io
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
from ccid.codec.descriptors import InterfaceDescriptor
from ccid.iso7816.apdu import CommandApdu
from ccid.probe import doctor_command, list_command
from ccid.probe import reader_choice as session
from ccid.probe.__main__ import main, parser, take_virtual
from ccid.trace.log import logger
from ccid.transport import discovery, linux
from ccid.transport import missing_interface as lacking
from ccid.transport.libusb import Status
from tests.pcapng import packets
from tests.unit.conftest import Run
from tests.unit.fake_usb import FakeBackend, FakeDevice, use_backend
from tests.unit.fake_usb import error as fake_error
from tests.unit.test_descriptors import QEMU, configuration, interface

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text("utf-8")
JSON_DOCUMENT = (ROOT / "docs" / "json.md").read_text("utf-8")


@pytest.fixture(autouse=True)
def empty_usb(monkeypatch: pytest.MonkeyPatch) -> FakeBackend:
    """USB without any reader, whatever is plugged into this machine."""
    backend = FakeBackend()
    use_backend(monkeypatch, backend)
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
def test_virtual_takes_the_next_word_only_if_it_is_a_model(
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


def test_a_closed_pipe_ends_the_command_without_an_error() -> None:
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


def argparse_imports() -> set[str]:
    """The modules that a bare parser imports: dataclasses since Python 3.14, for its colours."""
    script = "import argparse, sys; argparse.ArgumentParser(); print(*sys.modules)"
    return set(subprocess.check_output([sys.executable, "-c", script], text=True).split())


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
if "argparse" in sys.modules:
    heavy -= {argparse_imports()}
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


def test_a_slot_that_the_reader_does_not_have(run: Run) -> None:
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


@pytest.mark.parametrize("apdu", ["0088000004 A1B2C3D4 04", "80100A0004", "00C0000004"])
def test_what_a_secret_command_answers_is_not_printed(
    run: Run, monkeypatch: pytest.MonkeyPatch, apdu: str
) -> None:
    class Card(ccid.virtual.EchoCard):
        def process(self, command: CommandApdu) -> ccid.virtual.Answer:
            return ccid.virtual.Answer(b"\x0a\x0b\x0c\x0d")

        def takes_data(self, header: bytes) -> bool:
            return header[1] == 0x88

    monkeypatch.setattr(session, "virtual_infos", lambda _: [ccid.VirtualReader(Card()).info])
    _, out, _ = run("--virtual", "apdu", apdu)
    assert "0A 0B 0C 0D" not in out
    assert "\n< 2A 2A 2A 2A\n< 90 00  normal processing" in out
    assert "masked: --trace-secrets shows it" in out
    _, out, _ = run("--virtual", "--trace-secrets", "apdu", apdu)
    assert "\n< 0A 0B 0C 0D\n" in out
    assert "masked" not in out


PIN = b"13579086".hex()
VERIFY = f"0020008108{PIN}"


@pytest.mark.parametrize(
    "words",
    [
        [VERIFY],
        [" ".join(VERIFY[i : i + 2] for i in range(0, len(VERIFY), 2))],
        [VERIFY[i : i + 2] for i in range(0, len(VERIFY), 2)],
        ["APDU: " + ",".join(f"0x{VERIFY[i : i + 2]}" for i in range(0, len(VERIFY), 2))],
        ["".join(f"\\x{VERIFY[i : i + 2]}" for i in range(0, len(VERIFY), 2))],
        ["-"],
        ["@FILE"],
        ["@-"],
        ["--file", "FILE"],
    ],
)
def test_an_apdu_in_any_form(
    run: Run, words: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "apdus"
    file.write_text(f"# what to send\n\n{VERIFY}  # the PIN\n")
    monkeypatch.setattr("sys.stdin", io.StringIO(file.read_text()))
    status, out, err = run("--virtual", "apdu", *(w.replace("FILE", str(file)) for w in words))
    assert (status, err) == (0, "")
    assert out.startswith("> 00 20 00 81 08 2A 2A 2A 2A 2A 2A 2A 2A  masked")


def test_apdus_of_the_command_line_and_of_files_in_their_order(run: Run, tmp_path: Path) -> None:
    file = tmp_path / "apdus"
    file.write_text("00B00000\r\n00B00001")
    out = run("--virtual", "apdu", "00A40400", "00C00000", "--file", str(file))[1]
    sent = [line[2:] for line in out.splitlines() if line.startswith(">")]
    assert sent == ["00 A4 04 00", "00 C0 00 00", "00 B0 00 00", "00 B0 00 01"]


def test_an_apdu_of_several_lines(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """As programs and editors break a list within brackets, or behind a comma."""
    text = "[0x00, 0xA4, # SELECT\n 0x04, 0x00\n]\n0x00,0xC0,\n0x00,0x00\n00B00001\n"
    monkeypatch.setattr("sys.stdin", io.StringIO(text))
    out = run("--virtual", "apdu", "-")[1]
    sent = [line[2:] for line in out.splitlines() if line.startswith(">")]
    assert sent == ["00 A4 04 00", "00 C0 00 00", "00 B0 00 01"]
    monkeypatch.setattr("sys.stdin", io.StringIO(f"00A40400\n[{VERIFY}\n00B00001\n"))
    status, out, err = run("--virtual", "apdu", "-")
    assert (status, out) == (2, "")
    assert "standard input: line 2 is not hexadecimal" in err
    assert PIN not in err


def test_all_are_read_before_one_is_sent(run: Run, tmp_path: Path) -> None:
    file = tmp_path / "apdus"
    file.write_text(f"00A40400\n{VERIFY}G\n")
    status, out, err = run("--virtual", "apdu", "--file", str(file))
    assert (status, out) == (2, "")
    assert f"{file}: line 2 is not hexadecimal: character 27" in err
    assert run("--virtual", "apdu", "--file", str(tmp_path / "none"))[0] == 1
    file.write_text("# nothing\n")
    assert run("--virtual", "apdu", "--file", str(file))[0] == 2


SPACED = [VERIFY[i : i + 2] for i in range(0, len(VERIFY), 2)]


@pytest.mark.parametrize(
    "words",
    [
        ["--virtual", "apdu", VERIFY + "G"],
        ["--virtual", "apdu", VERIFY[:-1]],
        ["--virtual", "apdu", *SPACED[:-1], "3G"],
        ["--virtual", "apdu", *SPACED, "x"],
        ["--virtual", "apdu", f"0x{VERIFY},20"],
        ["--virtual", "apdu", f"[{VERIFY}"],
        ["--virtual", "apdu", f"--{VERIFY}"],
        ["--virtual", "apdu", "--file", VERIFY],
        ["--virtual", "apdu", f"@{VERIFY}"],
        ["--virtual", "apdu", "--file", " ".join(SPACED)],
        ["--virtual", "apdu", "--slot", VERIFY, "00A40400"],
        ["--virtual", "apdu", "--slot", PIN, "00A40400"],
        ["--virtual", "apdu", "--protocol", VERIFY, "00A40400"],
        ["--virtual", VERIFY],
        ["--virtual", *SPACED],
        ["--virtual", "dump", VERIFY],
        ["--virtual", "dump", *SPACED],
        ["--virtual", "dump", f"--json={VERIFY}"],
        [f"--virtual={VERIFY}", "dump"],
        ["watch", "--virtual", "--timeout", VERIFY],
        ["watch", "--virtual", "--timeout", f"{VERIFY}G"],
        ["atr", VERIFY + "G"],
        ["atr-stats", VERIFY],
        ["atr-stats", "--byte", VERIFY, "FILE"],
        ["import", VERIFY],
    ],
)
def test_no_error_quotes_a_word_that_may_be_a_pin(
    run: Run, words: list[str], tmp_path: Path
) -> None:
    file = tmp_path / "list"
    file.write_text("3B00\n")
    status, out, err = run(*(str(file) if word == "FILE" else word for word in words))
    assert status in (1, 2)
    bare = re.sub(r"[^0-9A-Fa-f]", "", err)
    assert PIN[2:-2] not in bare
    assert PIN not in out
    assert "ccid-probe: " in err


def test_an_error_quotes_a_word_that_cannot_be_bytes(run: Run) -> None:
    assert "invalid choice: 'frob'" in run("frob")[2]
    assert "unrecognized arguments: --frob" in run("dump", "--frob")[2]
    assert "'none.txt'" in run("atr", "none.txt")[2]


@pytest.mark.parametrize("word", ["T=1", "T1", "1", "t=1", "t1", " T = 1 "])
def test_ways_to_write_a_protocol(run: Run, word: str) -> None:
    status, out, _ = run("--virtual", "card", "--protocol", word)
    assert status == 0
    assert "Protocol: T=1\n" in out


@pytest.mark.parametrize("word", ["T=2", "", "T=", "2", "T=01", "Tx1", "\u0661"])
def test_no_protocol(run: Run, word: str) -> None:
    status, _, err = run("--virtual", "card", "--protocol", word)
    assert status == 2
    assert "T=0 or T=1" in err


@pytest.mark.parametrize("word", ["xx", "00A", "00+A4"])
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
def test_a_command_that_opens_no_reader_takes_no_trace(
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


def test_the_doctor_without_a_reader(run: Run) -> None:
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


HEAD = bytes([9, 2, 93, 0, 1, 1, 0, 0x80, 50])
"""A configuration of 93 bytes (wTotalLength), cut short after its own descriptor."""
HID = InterfaceDescriptor(bInterfaceNumber=0, bInterfaceClass=3, bNumEndpoints=0).build()
HIDS = configuration(HID, interface(1, bInterfaceClass=3), interfaces=2)
CUT = bytes([9, 2, 93, 0, 1, 1, 0, 0x80, 50]) + interface(endpoints=3)
"""The same, cut short after the smart-card interface descriptor."""


def troubled(run: Run) -> dict[str, Any]:
    """The findings of ``doctor`` about the one device in trouble."""
    status, out, _ = run("doctor", "--json")
    assert status == 1
    (found,) = [one for one in json.loads(out)["readers"] if one["troubles"]]
    jsonschema.validate(json.loads(out), schema("doctor"))
    assert isinstance(found, dict)
    return found


@pytest.mark.parametrize(
    ("ids", "data", "name", "why", "cure"),
    [
        ((0x2CE3, 0x9563), HEAD, "Alcor Link AK9563", "says 93 bytes, 9 came", "another port"),
        ((0x2CE3, 0x9563), CUT, "Alcor Link AK9563", "says 93 bytes, 18 came", "another port"),
        ((0x1234, 0x5678), CUT, "CCID reader 1234:5678", "93 bytes, 18 came", "another port"),
        ((0x08E6, 0x3437), HIDS, "Twin", "shows no smart-card interface", "lsusb -v -d 08e6:3437"),
        ((0x1050, 0x0401), HIDS, "YubiKey OTP", "is switched off", "ykman config"),
        ((0x1050, 0x0402), HIDS, "YubiKey FIDO", "is switched off", "ykman config"),
        ((0x1050, 0x0403), HIDS, "YubiKey OTP+FIDO", "is switched off", "ykman config"),
        ((0x1050, 0x0110), HIDS, "NEO OTP", "is switched off", "ykman config mode"),
        ((0x1050, 0x0113), HIDS, "NEO U2F", "is switched off", "ykman config mode"),
        ((0x1050, 0x0114), HIDS, "NEO OTP+U2F", "is switched off", "ykman config mode"),
        ((0x1050, 0x0407), HIDS, "YubiKey OTP+FIDO+CCID", "shows no smart-card", "another mode"),
    ],
)
def test_a_reader_by_its_ids_alone(
    run: Run,
    empty_usb: FakeBackend,
    ids: tuple[int, int],
    data: bytes,
    name: str,
    why: str,
    cure: str,
) -> None:
    empty_usb.devices = (FakeDevice(data, idVendor=ids[0], idProduct=ids[1]),)
    found = troubled(run)
    assert name in found["name"]
    assert found["id"] == f"{ids[0]:04x}:{ids[1]:04x}"
    assert found["path"] == "usb:1-1"
    (trouble,) = found["troubles"]
    assert why in trouble["trouble"]
    assert cure in trouble["cure"]
    if data is HIDS:
        assert found["facts"][:2] == ["interface 0: HID", "interface 1: HID"]
    status, out, err = run("list")
    assert status == 0
    assert (name in err) is (data is not CUT), "a reader listed as broken has no second remark"
    assert found["id"] in err
    status, out, err = run("check")
    assert status == 1
    assert found["id"] in out + err


@pytest.mark.parametrize("product_id", [0x0010, 0x0120, 0x0410])
def test_a_key_that_has_no_smart_card(
    run: Run, empty_usb: FakeBackend, monkeypatch: pytest.MonkeyPatch, product_id: int
) -> None:
    """A YubiKey without a smart card is no reader, and that is no trouble."""
    monkeypatch.setattr(doctor_command, "LINUX", False)
    empty_usb.devices = (FakeDevice(HIDS, idVendor=0x1050, idProduct=product_id),)
    status, out, _ = run("doctor")
    assert status == 1
    assert f"(1050:{product_id:04x} at usb:1-1)" in out
    assert "has no smart card in it" in out
    assert re.findall("TROUBLE: (.*)", out) == ["no CCID reader is on USB"]
    assert "1050" not in run("list")[2]


def test_a_reader_whose_configuration_cannot_be_read(
    run: Run, empty_usb: FakeBackend, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise fake_error(Status.IO)

    empty_usb.devices = (FakeDevice(QEMU, idVendor=0x08E6, idProduct=0x3437),)
    monkeypatch.setattr(empty_usb, "get_configuration_descriptor", fail)
    (trouble,) = troubled(run)["troubles"]
    assert "no configuration of it can be read" in trouble["trouble"]


def test_a_reader_that_libusb_leaves_out(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(discovery, "LINUX", True)
    there = [("1-9", 0x2CE3, 0x9563), ("1-2", 0x1D6B, 0x0002)]
    monkeypatch.setattr(linux, "identities", lambda *_: there)
    found = troubled(run)
    assert (found["path"], found["id"]) == ("usb:1-9", "2ce3:9563")
    assert "libusb does not show it" in found["troubles"][0]["trouble"]


def test_the_driver_that_is_bound_to_such_a_device(
    run: Run, empty_usb: FakeBackend, monkeypatch: pytest.MonkeyPatch
) -> None:
    empty_usb.devices = (FakeDevice(HIDS, idVendor=0x08E6, idProduct=0x3437),)
    monkeypatch.setattr(linux, "driver", lambda device, value, number: "usbhid")
    assert "bound to it: the kernel driver usbhid" in troubled(run)["facts"]


def test_good_readers_and_other_devices_are_not_reported(run: Run, empty_usb: FakeBackend) -> None:
    empty_usb.devices = (
        FakeDevice(QEMU, idVendor=0x08E6, idProduct=0x3437),
        FakeDevice(HIDS, ports=(2,)),
        FakeDevice(HEAD, ports=(3,)),
        FakeDevice(HIDS, ports=(4,), idVendor=0x08E6, idProduct=0x3437, gone=True),
    )
    assert lacking.lacking() == []
    assert run("list")[2] == ""


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


def valid(out: str, name: str) -> dict[str, Any]:
    """The JSON document in ``out``, held against its schema."""
    document: dict[str, Any] = json.loads(out)
    jsonschema.Draft202012Validator.check_schema(schema(name))
    jsonschema.Draft202012Validator(schema(name)).validate(document)
    return document


def test_json_of_a_card(run: Run) -> None:
    status, out, _ = run("card", "--virtual", "--json")
    document = valid(out, "card")
    assert status == 0
    assert document["atr"].startswith("3B9B96")
    assert [one["sw"] for one in document["exchanges"]] == ["9000"]


def test_json_of_apdus_has_no_pin_and_all_before_an_error(run: Run) -> None:
    status, out, err = run("apdu", "--virtual", "--json", "00A4000C023F00", VERIFY, "00A4")
    document = valid(out, "apdu")
    assert status == 1
    assert "a command APDU has 4 to" in err
    assert [one["masked"] for one in document["exchanges"]] == [False, True]
    assert document["exchanges"][1]["command"] == "0020008108" + 8 * "2A"
    assert PIN not in out
    _, out, _ = run("apdu", "--virtual", "--json", "--trace-secrets", VERIFY)
    assert valid(out, "apdu")["exchanges"][0]["command"] == VERIFY


def test_json_of_imported_readers(run: Run, tmp_path: Path) -> None:
    file = tmp_path / "report.json"
    file.write_text(run("report", "--json", "--virtual", "08e6:4433")[1])
    status, out, _ = run("import", "--json", str(file))
    document = valid(out, "import")
    assert status == 0
    assert (document["readers"][0]["id"], document["saved"]) == ("08e6:4433", False)


def test_each_command_has_json() -> None:
    """All but those whose result no program reads."""
    top = parser()
    (commands,) = (a.choices for a in top._actions if isinstance(a, argparse._SubParsersAction))
    without = [name for name, sub in commands.items() if "--json" not in sub._option_string_actions]
    assert without == [name for name in ("shell",) if name in commands]


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize(
    ("environment", "stream", "is_coloured"),
    [
        ({}, Terminal, True),
        ({"NO_COLOR": "1"}, Terminal, False),
        ({"NO_COLOR": ""}, Terminal, True),
        ({"TERM": "dumb"}, Terminal, False),
        ({}, io.StringIO, False),
    ],
)
def test_colours_are_for_terminals_that_want_them(
    monkeypatch: pytest.MonkeyPatch,
    environment: dict[str, str],
    stream: type[io.StringIO],
    is_coloured: bool,
) -> None:
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.delenv("NO_COLOR", raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    printed = stream()
    monkeypatch.setattr(sys, "stdout", printed)
    assert main(["apdu", "--virtual", "00A4000C023F00", "00FF0000"]) == 0
    assert main(["check", "--virtual"]) == 0
    out = printed.getvalue()
    for text in ("32m< 90 00  normal", "31m< 6D 00", "32mworks"):
        assert (f"\x1b[{text}" in out) == is_coloured, text
    assert ("\x1b" in out) == is_coloured


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


def test_watch_reports_present_readers_as_documented(run: Run) -> None:
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
    """``watch`` opens readers, and its message about --trace names CCID_TRACE."""
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
