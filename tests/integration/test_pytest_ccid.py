"""The fixtures for tests of others: ``virtual_reader`` and ``pcsc_service``."""

from __future__ import annotations

import sys

import pytest

pytest_plugins = ["pytester"]

USED = """
import pytest
import ccid
from ccid.virtual import Answer, EchoCard, faults

SELECT = bytes.fromhex("00A4040C0AF0636369642064656D6F")

def test_a_file_system_card(virtual_reader):
    with ccid.open_reader(virtual_reader.reader) as reader:
        card = reader.slots[0].connect()
        assert card.transmit(SELECT) == b"\\x90\\x00"
        assert card.transmit(bytes.fromhex("00B0810005"))[:-2] == b"hello"
    select, read = virtual_reader.apdus
    assert (select.command, select.sw, read.response[-2:]) == (SELECT, 0x9000, b"\\x90\\x00")
    assert "F063" not in repr(select).upper() and SELECT.hex() not in repr(virtual_reader)

@pytest.mark.virtual_reader("08e6:3437", card="echo")
def test_a_model_and_an_echo_card(virtual_reader):
    assert virtual_reader.reader.info.id == "08e6:3437"
    with ccid.open_reader(virtual_reader.reader) as reader:
        card = reader.slots[0].connect()
        virtual_reader.answer("0010", "AA 9000", times=1)
        assert card.transmit(bytes.fromhex("0010050001")).hex() == "aa9000"
        assert card.transmit(bytes.fromhex("0010050001")).hex() == "059000"
        virtual_reader.remove()
        with pytest.raises(ccid.errors.CardRemoved):
            card.transmit(bytes.fromhex("0010050001"))
        assert virtual_reader.card is None
        own = EchoCard(bytes.fromhex("3B00"))
        assert virtual_reader.insert(own) is virtual_reader.card is own
        other = reader.slots[0].connect()
        assert other.atr.raw == own.atr
        other.transmit(bytes.fromhex("00400000"))
    assert [a.command[1] for a in virtual_reader.apdus] == [0x10, 0x10, 0x40]

@pytest.mark.virtual_reader(card="none")
def test_no_card(virtual_reader):
    with ccid.open_reader(virtual_reader.reader) as reader, pytest.raises(ccid.errors.CardAbsent):
        reader.slots[0].connect()
    assert virtual_reader.remove() is None

class Mine(EchoCard):
    atr = bytes.fromhex("3B01AA")

@pytest.mark.virtual_reader(card=Mine)
def test_a_class_of_cards_and_a_fault(virtual_reader):
    with ccid.open_reader(virtual_reader.reader) as reader:
        card = reader.slots[0].connect()
        assert card.atr.raw == Mine.atr
        virtual_reader.faults.append(faults.unplugged())
        with pytest.raises(ccid.errors.ReaderRemoved):
            card.transmit(bytes.fromhex("00400000"))

def test_wrong_words(virtual_reader):
    with pytest.raises(ValueError, match="there is no card 'nonsense'"):
        virtual_reader.insert("nonsense")
    with pytest.raises(ValueError, match="SW1 SW2"):
        virtual_reader.answer("00", "90")

@pytest.mark.virtual_reader(card="echo")
def test_nothing_of_the_last_test_is_left(virtual_reader):
    assert virtual_reader.apdus == []
    assert virtual_reader.faults == []
"""

CLIENT = """
import os, socket, struct, sys
with socket.socket(socket.AF_UNIX) as client:
    client.connect(os.environ["PCSCLITE_CSOCK_NAME"])
    client.sendall(struct.pack("=5I", 12, 0x11, 4, 4, 0) + struct.pack("=5I", 12, 1, 2, 0, 0))
    client.recv(24, socket.MSG_WAITALL)
    client.sendall(struct.pack("=2I", 0, 0x12))
    array = client.recv(2944, socket.MSG_WAITALL)
print(*[array[i:i + 128].rstrip(b"\\0").decode() for i in range(0, 2944, 184) if array[i]], sep="|")
print(array[132])
"""
"""A program that does what one with libpcsclite does: it prints readers, and the first's state."""

SERVED = """
import os
import subprocess
import sys
import pytest

CLIENT = {client!r}
WITH_CARD, WITHOUT = "52", "2"

@pytest.mark.parametrize("number", range(4))
def test_a_program(virtual_reader, pcsc_service, number):
    done = pcsc_service.run([sys.executable, "-c", CLIENT], check=True)
    name, state = done.stdout.splitlines()
    assert name.startswith("Virtual Reader (") and name.endswith(" 00 00")
    assert state == WITH_CARD
    assert str(pcsc_service.path) == pcsc_service.environment["PCSCLITE_CSOCK_NAME"]
    assert oct(pcsc_service.path.stat().st_mode)[-3:] == "600"

@pytest.mark.virtual_reader("08e6:3437", card="none")
def test_an_environment(virtual_reader, pcsc_service):
    command = [sys.executable, "-c", CLIENT]
    said = subprocess.check_output(command, env=pcsc_service.environment, text=True)
    assert said.splitlines()[1] == WITHOUT
    virtual_reader.insert("echo")

def test_how_a_program_is_run(pcsc_service):
    code = "import os, sys; print(os.environ['MORE'], file=sys.stderr); sys.exit(3)"
    done = pcsc_service.run([sys.executable, "-c", code], env={{"MORE": "x"}})
    assert (done.returncode, done.stdout, done.stderr) == (3, "", "x\\n")
    with pytest.raises(subprocess.TimeoutExpired):
        pcsc_service.run([sys.executable, "-c", "import time; time.sleep(60)"], timeout=0.2)

paths = []

def test_its_socket(pcsc_service):
    paths.append(pcsc_service.path)

def test_is_gone_after_the_test():
    assert paths == [] or not paths[0].parent.exists()
"""


@pytest.fixture(autouse=True)
def _no_plugins_of_ours(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> None:
    """pytest as users have it, to whom warnings are no errors and marks are strict."""
    monkeypatch.delenv("PYTEST_ADDOPTS", raising=False)
    pytester.makeini("[pytest]\naddopts = --strict-markers\nfilterwarnings = error\n")


def test_a_reader_in_the_hand(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(USED)
    pytester.runpytest_subprocess("-q").assert_outcomes(passed=6)


def test_a_service(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(SERVED.format(client=CLIENT))
    pytester.runpytest_subprocess("-q").assert_outcomes(passed=8)


def test_beside_each_other(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(test_used=USED, test_served=SERVED.format(client=CLIENT))
    pytester.runpytest_subprocess("-q", "-n", "3").assert_outcomes(passed=14)


def test_the_mark_takes_what_it_takes(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(
        """
        import pytest

        @pytest.mark.virtual_reader(model="08e6:3437", cards="echo")
        def test_one(virtual_reader): pass

        @pytest.mark.virtual_reader("ffff:ffff")
        def test_other(virtual_reader): pass
        """
    )
    result = pytester.runpytest_subprocess("-q")
    result.assert_outcomes(errors=2)
    result.stdout.fnmatch_lines(["*unexpected keyword argument 'cards'*"])
    result.stdout.fnmatch_lines(["*ReaderNotFound: no figures of a reader ffff:ffff*"])


def test_it_is_documented(pytester: pytest.Pytester) -> None:
    result = pytester.runpytest_subprocess("--markers")
    result.stdout.fnmatch_lines(["@pytest.mark.virtual_reader(model=None, ?, card=*"])
    result = pytester.runpytest_subprocess("--fixtures")
    result.stdout.fnmatch_lines(["virtual_reader*", "pcsc_service*"])


def test_nothing_of_ccid_is_imported_when_it_is_not_used(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(
        """
        import sys

        def test_modules():
            assert "pytest_ccid" in sys.modules
            assert [name for name in sys.modules if name.partition(".")[0] == "ccid"] == []
            assert {"usb", "construct", "libusb_package"} & sys.modules.keys() == set()
        """
    )
    pytester.runpytest_subprocess("-q").assert_outcomes(passed=1)


def test_pytest_finds_it_by_itself() -> None:
    from importlib.metadata import entry_points

    (found,) = entry_points(group="pytest11", name="ccid")
    assert found.value == "pytest_ccid"
    assert found.load() is sys.modules["pytest_ccid"]
