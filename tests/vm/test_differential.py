"""The same reader, the same card, the same commands: with pcscd and libccid, and with this library.

The reader is ours, attached by USB/IP. libccid is the newest of Debian, and once more that of the
guest's Debian: :mod:`tests.vm.differential.judges`. The scenarios are those of
:mod:`tests.vm.differential.scenarios`. Without full counts the second judge plays those alone in
which libccid is wrong: there releases differ, and in the others they have sent the same. The
replies must be equal in every scenario without a fault
of the reference driver, and must differ in a scenario with one. Each difference on the wire must
have a name, and docs/differences.md must contain the name.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from lab.guest import Guest
from lab.link import Result
from lab.pcscd import pcscd

from tests.conftest import Tell
from tests.vm.attach import attach
from tests.vm.differential.judges import Judge, judges
from tests.vm.differential.scenario_parts import READERS, Scenario
from tests.vm.differential.scenarios import SCENARIOS
from tests.vm.test_qemu_reader import PRELOAD

ROOT = Path(__file__).parents[2]
HERE = Path(__file__).parent / "differential"
PORT = 3245
SOCKET = "/run/differential"
QEMU_READERS = 4
PLAY_S = 900
"""Seconds within which a driver plays all scenarios: two minutes on an idle machine without KVM."""
PATH = f"import sys; sys.path.insert(0, {str(ROOT)!r})\n"
POLLING = {"62", "63", "65"}
"""Commands for power and status: pcscd decides when to send them, not its driver."""
HEADINGS = re.compile(r"^### `([a-z0-9-]+)`", re.MULTILINE)

JUDGES = {judge.name: judge for judge in judges()}
FIRST = next(iter(JUDGES.values()))

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


def played_by(judge: Judge, full: bool) -> list[str]:
    """The scenarios that a judge plays: all, or the second those in which libccid is wrong."""
    everything = judge is FIRST or full or FIRST.missing
    return [name for name, one in SCENARIOS.items() if everything or one.fault]


class Played:
    """What was played on the attached readers. Each driver plays all scenarios, once, when its
    results are first asked for.

    Args:
        guest: Where the readers are attached.
        folder: For the messages.
        full: See :func:`played_by`.
    """

    def __init__(self, guest: Guest, folder: Path, full: bool) -> None:
        self._guest = guest
        self._folder = folder
        self._full = full
        self._results: dict[str, dict[str, list[str]]] = {}

    def outcomes(self, judge: Judge) -> dict[str, Outcome]:
        """The results of the judge and ours, by scenario."""
        if judge.name not in self._results:
            self._results[judge.name] = self._by_pcscd(judge)
        if "ours" not in self._results:
            self._results["ours"] = self._by_us()
        theirs, ours = self._results[judge.name], self._results["ours"]
        return {
            name: Outcome(
                theirs[name],
                ours[name],
                *(self._wire(who, number) for who in (judge.name, "ours")),
            )
            for number, name in enumerate(SCENARIOS)
            if name in theirs
        }

    def _wire(self, who: str, number: int) -> Wire:
        wire: Wire = json.loads((self._folder / f"{who}-{number}.json").read_text())
        return wire

    def _by_pcscd(self, judge: Judge) -> dict[str, list[str]]:
        file = self._folder / f"{judge.name}-scenarios.json"
        names = played_by(judge, self._full)
        lines = [
            [s.name, READERS[s.reader].name, s.steps, f"{self._folder}/{judge.name}-{number}.json"]
            for number, s in enumerate(SCENARIOS.values())
            if s.name in names
        ]
        file.write_text(json.dumps(lines))
        count = QEMU_READERS + len(READERS)
        with pcscd(self._guest, count, root=judge.root, args=judge.pcscd, timeout=90):
            command = ["/usr/bin/python3", str(HERE / "pcsc.py"), SOCKET, str(file)]
            done = self._guest.run(command, timeout=PLAY_S, check=True)
        return self._said(judge.name, done)

    def _by_us(self) -> dict[str, list[str]]:
        code = (
            PATH + "from tests.vm.differential.ours import main; main(*sys.argv[1:3], sys.argv[3:])"
        )
        done = self._guest.script(
            code, SOCKET, self._folder, *SCENARIOS, preload=PRELOAD, timeout=PLAY_S
        )
        return self._said("ours", done)

    def _said(self, who: str, done: Result) -> dict[str, list[str]]:
        (self._folder / f"{who}.err").write_text(done.stderr)
        results: dict[str, list[str]] = json.loads(done.stdout)
        return results


@pytest.fixture(scope="module")
def played(guest: Guest, full: bool, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Played]:
    """The readers, attached; each driver opens them in its turn."""
    code = (
        PATH + "from tests.vm.differential.server import main; main(int(sys.argv[1]), sys.argv[2])"
    )
    with guest.popen_script(code, str(PORT), SOCKET, preload=PRELOAD) as server:
        server.wait_for(r"serving", 90)
        for n in range(1, len(READERS) + 1):
            attach(guest, f"1-{n}", PORT)
        guest.run("udevadm settle; sleep 1", check=True)
        yield Played(guest, tmp_path_factory.mktemp("wire"), full)
    guest.run(
        "i=0; while usbip port 2>/dev/null | grep -q '^Port' && [ $i -lt 50 ]; "
        "do i=$((i+1)); sleep 0.1; done"
    )


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Each judge with each scenario that it plays, and that is of the kind of the test."""
    if "name" in metafunc.fixturenames:
        is_of_kind: Callable[[Scenario], bool] = {
            test_replies_are_equal: lambda one: not one.fault,
            test_where_the_reference_is_wrong_we_differ: lambda one: bool(one.fault),
            test_differences_on_the_wire_are_named: lambda one: True,
        }[metafunc.function]
        pairs = [
            (judge.name, name)
            for judge in JUDGES.values()
            for name in played_by(judge, metafunc.config.getoption("--full"))
            if is_of_kind(SCENARIOS[name])
        ]
        metafunc.parametrize(("judge", "name"), pairs, indirect=["judge"], scope="module")
    elif "judge" in metafunc.fixturenames:
        metafunc.parametrize("judge", JUDGES, indirect=True, scope="module")


@pytest.fixture(scope="module")
def judge(request: pytest.FixtureRequest) -> Judge:
    """Each judge in turn."""
    judge = JUDGES[request.param]
    if judge.missing:
        pytest.skip(judge.missing)
    return judge


@pytest.fixture(scope="module")
def outcomes(judge: Judge, played: Played) -> dict[str, Outcome]:
    """All scenarios by one judge and by us, one after the other on the same attached readers."""
    return played.outcomes(judge)


def commands(wire: Wire) -> list[list[str]]:
    """The commands of the host, without what depends on pcscd: type, bytes 7 to 9, data."""
    return [message[1:] for message in wire if message[0] == ">" and message[1] not in POLLING]


def test_replies_are_equal(judge: Judge, outcomes: dict[str, Outcome], name: str) -> None:
    ours, theirs = outcomes[name].ours, outcomes[name].theirs
    assert ours == theirs, judge.new_difference("a NEW DIFFERENCE of the replies", ours, theirs)


def test_where_the_reference_is_wrong_we_differ(
    judge: Judge, outcomes: dict[str, Outcome], name: str
) -> None:
    outcome = outcomes[name]
    assert outcome.ours != outcome.theirs, judge.new_difference(
        f"NO LONGER A FAULT of the reference ({SCENARIOS[name].fault})",
        outcome.ours,
        outcome.theirs,
    )
    assert ("failed" in outcome.ours) == SCENARIOS[name].refused
    assert "no connection" not in outcome.ours


def test_differences_on_the_wire_are_named(
    judge: Judge, outcomes: dict[str, Outcome], name: str
) -> None:
    outcome = outcomes[name]
    ours, theirs = commands(outcome.our_wire), commands(outcome.their_wire)
    if SCENARIOS[name].wire or SCENARIOS[name].fault:
        what = "NO LONGER A DIFFERENCE on the wire: take the tag away"
        assert ours != theirs, judge.new_difference(what, ours, theirs)
    else:
        what = "a NEW DIFFERENCE on the wire"
        assert ours == theirs, judge.new_difference(what, ours, theirs)


def test_there_are_enough_of_them() -> None:
    assert sum(not s.fault for s in SCENARIOS.values()) >= 80


def test_every_difference_is_documented() -> None:
    known = set(HEADINGS.findall((ROOT / "docs" / "differences.md").read_text()))
    used = {name for s in SCENARIOS.values() for name in s.wire}
    assert used <= known


def test_the_table(judge: Judge, outcomes: dict[str, Outcome], full: bool, tell: Tell) -> None:
    """The table is printed, so that a run shows what was compared."""
    lines = [" ".join(filter(None, [f"judge: {judge.name}, {judge.versions}", judge.moved]))]
    for name, o in outcomes.items():
        scenario: Scenario = SCENARIOS[name]
        same = "equal" if o.ours == o.theirs else "DIFFER"
        wire = "same" if commands(o.our_wire) == commands(o.their_wire) else ",".join(scenario.wire)
        tag = " reference-fault" if scenario.fault else ""
        lines.append(f"{name:52} {len(o.ours):3} steps {same}{tag}, wire {wire or 'differs'}")
    tell("\n".join(lines))
    assert len(lines) == len(played_by(judge, full)) + 1
