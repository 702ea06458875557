"""The same reader, the same card, the same commands: with pcscd and libccid, and with this library.

The reader is ours, attached by USB/IP; libccid is Debian's. See
:mod:`tests.vm.differential.scenarios`. The replies must be equal in every scenario without a fault
of the reference driver, and must differ in a scenario with one. Each difference on the wire must
have a name, and docs/differences.md must contain the name.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from lab.guest import Guest
from lab.pcscd import pcscd

from tests.conftest import Tell
from tests.vm.attach import attach
from tests.vm.differential.scenarios import READERS, SCENARIOS, Scenario
from tests.vm.test_qemu_reader import PRELOAD

ROOT = Path(__file__).parents[2]
HERE = Path(__file__).parent / "differential"
PORT = 3245
QEMU_READERS = 4
PATH = f"import sys; sys.path.insert(0, {str(ROOT)!r})\n"
POLLING = {"62", "63", "65"}
"""Commands for power and status: pcscd decides when to send them, not its driver."""
HEADINGS = re.compile(r"^### `([a-z0-9-]+)`", re.MULTILINE)

Wire = list[list[str]]


@dataclass(frozen=True)
class Outcome:
    """The results of one scenario with both drivers.

    Attributes:
        theirs, ours: Results of the steps.
        their_wire, our_wire: Messages: way, type, bytes 7 to 9, data.
    """

    theirs: list[str]
    ours: list[str]
    their_wire: Wire
    our_wire: Wire


@pytest.fixture(scope="module")
def outcomes(
    guest: Guest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[dict[str, Outcome]]:
    """All scenarios, with both drivers, one after the other on the same attached readers."""
    folder, socket = tmp_path_factory.mktemp("wire"), "/run/differential"
    names = list(SCENARIOS)
    code = (
        PATH + "from tests.vm.differential.server import main; main(int(sys.argv[1]), sys.argv[2])"
    )
    with guest.popen_script(code, str(PORT), socket, preload=PRELOAD) as server:
        server.wait_for(r"serving", 90)
        for n in range(1, len(READERS) + 1):
            attach(guest, f"1-{n}", PORT)
        guest.run("udevadm settle; sleep 1", check=True)
        theirs = by_pcscd(guest, folder, socket, names)
        code = (
            PATH + "from tests.vm.differential.ours import main; main(*sys.argv[1:3], sys.argv[3:])"
        )
        done = guest.script(code, socket, folder, *names, preload=PRELOAD, timeout=400)
        (folder / "ours.err").write_text(done.stderr)
        ours = json.loads(done.stdout)
        found = {}
        for number, name in enumerate(names):
            wires = [
                json.loads((folder / f"{who}-{number}.json").read_text())
                for who in ("theirs", "ours")
            ]
            found[name] = Outcome(theirs[name], ours[name], *wires)
        yield found
    guest.run(
        "i=0; while usbip port 2>/dev/null | grep -q '^Port' && [ $i -lt 50 ]; "
        "do i=$((i+1)); sleep 0.1; done"
    )


def by_pcscd(guest: Guest, folder: Path, socket: str, names: list[str]) -> dict[str, list[str]]:
    """The results of pcscd with libccid."""
    file = folder / "scenarios.json"
    lines = [
        [s.name, READERS[s.reader].name, s.steps, f"{folder}/theirs-{names.index(s.name)}.json"]
        for s in SCENARIOS.values()
    ]
    file.write_text(json.dumps(lines))
    with pcscd(guest, QEMU_READERS + len(READERS), timeout=90):
        command = ["/usr/bin/python3", str(HERE / "pcsc.py"), socket, str(file)]
        done = guest.run(command, timeout=400, check=True)
    (folder / "theirs.err").write_text(done.stderr)
    results: dict[str, list[str]] = json.loads(done.stdout)
    return results


def commands(wire: Wire) -> list[list[str]]:
    """The commands of the host, without what depends on pcscd: type, bytes 7 to 9, data."""
    return [message[1:] for message in wire if message[0] == ">" and message[1] not in POLLING]


@pytest.mark.parametrize("name", [s.name for s in SCENARIOS.values() if not s.fault])
def test_replies_are_equal(outcomes: dict[str, Outcome], name: str) -> None:
    outcome = outcomes[name]
    assert outcome.ours == outcome.theirs


@pytest.mark.parametrize("name", [s.name for s in SCENARIOS.values() if s.fault])
def test_where_the_reference_is_wrong_we_differ(outcomes: dict[str, Outcome], name: str) -> None:
    outcome = outcomes[name]
    assert outcome.ours != outcome.theirs
    assert "failed" not in outcome.ours or "twice" in SCENARIOS[name].fault
    assert "no connection" not in outcome.ours


@pytest.mark.parametrize("name", SCENARIOS)
def test_differences_on_the_wire_are_named(outcomes: dict[str, Outcome], name: str) -> None:
    outcome = outcomes[name]
    ours, theirs = commands(outcome.our_wire), commands(outcome.their_wire)
    if SCENARIOS[name].wire or SCENARIOS[name].fault:
        assert ours != theirs, "no longer a difference: take the tag away"
    else:
        assert ours == theirs


def test_there_are_enough_of_them() -> None:
    assert sum(not s.fault for s in SCENARIOS.values()) >= 40


def test_every_difference_is_documented() -> None:
    known = set(HEADINGS.findall((ROOT / "docs" / "differences.md").read_text()))
    used = {name for s in SCENARIOS.values() for name in s.wire}
    assert used <= known


def test_the_table(outcomes: dict[str, Outcome], tell: Tell) -> None:
    """The table is printed, so that a run shows what was compared."""
    lines = []
    for name, o in outcomes.items():
        scenario: Scenario = SCENARIOS[name]
        same = "equal" if o.ours == o.theirs else "DIFFER"
        wire = "same" if commands(o.our_wire) == commands(o.their_wire) else ",".join(scenario.wire)
        tag = " reference-fault" if scenario.fault else ""
        lines.append(f"{name:52} {len(o.ours):3} steps {same}{tag}, wire {wire or 'differs'}")
    tell("\n".join(lines))
    assert len(lines) == len(SCENARIOS)
