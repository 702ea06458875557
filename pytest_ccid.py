"""Fixtures for tests of programs that use smart cards: no reader, no card, no pcscd.

pytest loads this by itself where pyccid is installed; nothing of ``ccid`` is imported before a test
asks for a fixture.

- ``virtual_reader``: a virtual reader with a card in it, and a hand at it (:class:`ReaderInHand`).
- ``pcsc_service``: a PC/SC service with this reader, for programs of libpcsclite
  (:class:`PcscService`).

::

    @pytest.mark.virtual_reader("08e6:3437", card="echo")
    def test_my_program(virtual_reader, pcsc_service):
        pcsc_service.run(["my-program"], check=True)
        assert virtual_reader.apdus[0].command == bytes.fromhex("00A4040008A000000003000000")
"""

from __future__ import annotations

import subprocess
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    import os

    from ccid import VirtualReader
    from ccid.pcsc.service.service_thread import ServiceThread
    from ccid.virtual.card_watch import Exchanged
    from ccid.virtual.cards import Application
    from ccid.virtual.faults import Fault
    from ccid.virtual.virtual_slot import Card

MARK = "virtual_reader"
MARK_HELP = (
    f'{MARK}(model=None, *, card="files"): what the fixture virtual_reader is: model is vvvv:pppp '
    'of a known reader; card is "files", "echo", "piv", "none", a card or a class of cards'
)
RUN_S = 60.0
"""How long a program may take, by default."""


class ReaderInHand:
    """A virtual reader in the hand of a test.

    Args:
        reader: The reader.
        card: What is in it at the start, as for :meth:`insert`.

    Attributes:
        reader: The reader, for :func:`ccid.open_reader`, :func:`ccid.pcsc.under_pyscard`,
            :class:`ccid.pcsc.manager.Manager`.
    """

    def __init__(self, reader: VirtualReader, card: Any = "files") -> None:
        from ccid.virtual.card_watch import CardWatch

        self.reader = reader
        self._watch = CardWatch()
        if reader.functions[0].slots[0].inserted is not None:
            reader.remove()
        self.insert(card)

    @property
    def card(self) -> Card | None:
        """What is in it."""
        return self.reader.functions[0].slots[0].inserted

    @property
    def apdus(self) -> Sequence[Exchanged]:
        """The APDUs that its cards were asked and answered so far, the first one first."""
        return self._watch.exchanged

    @property
    def faults(self) -> list[Fault]:
        """What it does wrong: append one of :mod:`ccid.virtual.faults`, remove it again."""
        return self.reader.faults

    def insert(self, card: Card | type[Application] | str | None = "files") -> Card | None:
        """Put a card in, instead of the one that is there; returns it.

        Args:
            card: ``"files"``, ``"echo"`` or ``"piv"`` (:mod:`ccid.virtual.card_kinds`), ``"none"``
                or None for nothing; a card; or a class of cards, which is called.

        Raises:
            ValueError: There is no card of this name.
        """
        made = _card(card)
        self.remove()
        if made is not None:
            from ccid.virtual.cards import Contact

            self._watch.begin(made.application if isinstance(made, Contact) else made)
            self.reader.insert(made)
        return made

    def remove(self) -> Card | None:
        """Take the card out; returns it."""
        if self.card is None:
            return None
        taken = self.reader.remove()
        self._watch.end()
        return taken

    def unplug(self) -> None:
        """Pull the reader out, for good."""
        self.reader.unplug()

    def reset(self) -> None:
        """Reset the USB device: the card loses its power, and the reader is open again."""
        self.reader.reset()

    def replug(self) -> None:
        """Pull the reader out, and plug it in again at once."""
        self.reader.replug()

    def answer(
        self,
        command: bytes | str,
        response: bytes | str,
        *,
        times: int | None = None,
        after_s: float = 0.0,
    ) -> None:
        """Have the card answer so, instead of what it would.

        Args:
            command: How the commands begin that are meant: bytes or hexadecimal.
            response: The response with SW1 SW2: bytes or hexadecimal, at least 2 bytes.
            times: How often; None for ever. Then the card answers itself again.
            after_s: Seconds it takes.

        Raises:
            ValueError: That is no hexadecimal, or no response.
        """
        from ccid.virtual.card_watch import Scripted

        given = _bytes(response)
        if len(given) < 2:
            raise ValueError("a response has SW1 SW2 at least")
        self._watch.scripted.append(Scripted(_bytes(command), given, times, after_s))

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.reader.info.name!r}>"


class PcscService:
    """A PC/SC service for programs that a test starts: pcscd's part, in this process.

    Args:
        thread: The service.

    Attributes:
        environment: Of this process, and ``PCSCLITE_CSOCK_NAME``: libpcsclite finds the service by
            this. A program needs libpcsclite, and no pcscd.
    """

    def __init__(self, thread: ServiceThread) -> None:
        self.environment = thread.environment()
        self.path = thread.path

    def run(
        self, command: Sequence[str | os.PathLike[str]], **how: Any
    ) -> subprocess.CompletedProcess[str]:
        """Run a program on it; returns its output as text.

        Args:
            command: The program and its arguments.
            **how: For :func:`subprocess.run`; ``env`` is added to the environment.
        """
        environment = {**self.environment, **how.pop("env", {})}
        if not {"stdout", "stderr"} & how.keys():
            how.setdefault("capture_output", True)
        how = {"text": True, "timeout": RUN_S, **how}
        done: subprocess.CompletedProcess[str] = subprocess.run(command, env=environment, **how)
        return done


def _bytes(value: bytes | str) -> bytes:
    return bytes.fromhex(value) if isinstance(value, str) else bytes(value)


def _card(card: Card | type[Application] | str | None) -> Card | None:
    from ccid.virtual.card_kinds import MAKERS

    if isinstance(card, str):
        if card not in MAKERS:
            raise ValueError(f"there is no card {card!r}; there are {', '.join(MAKERS)}")
        make = MAKERS[card]
        return None if make is None else make()
    return card() if isinstance(card, type) else card


def pytest_configure(config: pytest.Config) -> None:
    """Tells pytest of the mark."""
    config.addinivalue_line("markers", MARK_HELP)


def _wanted(model: str | None = None, *, card: Any = "files") -> tuple[str | None, Any]:
    """The arguments of the mark."""
    return model, card


@pytest.fixture
def virtual_reader(request: pytest.FixtureRequest) -> ReaderInHand:
    """A virtual reader with a card, and a hand at it; ``@pytest.mark.virtual_reader`` says which.

    It is the test's own: tests that run beside each other do not share any.
    """
    from ccid.virtual.models import make

    mark = request.node.get_closest_marker(MARK)
    model, card = _wanted(*mark.args, **mark.kwargs) if mark is not None else _wanted()
    return ReaderInHand(make(model), card)


@pytest.fixture
def pcsc_service(virtual_reader: ReaderInHand) -> Iterator[PcscService]:
    """A PC/SC service that has ``virtual_reader``, as long as the test lasts."""
    from ccid.pcsc.service.service_thread import ServiceThread

    thread = ServiceThread([virtual_reader.reader])
    try:
        yield PcscService(thread)
    finally:
        thread.end()
