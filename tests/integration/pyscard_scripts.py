"""What programs do with PC/SC, by pyscard's low-level functions; run by the system's Python, which
has the real libpcsclite: ``python3 pyscard_scripts.py NAME…``.

A script says a word when the test is to do something at the reader, and waits for a line. The steps
are those of pcsc-lite's own tests for its functions.
"""

from __future__ import annotations

import ctypes
import os
import queue
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable, Mapping
from typing import NoReturn

from smartcard.CardMonitoring import CardMonitor, CardObserver
from smartcard.scard import (
    SCARD_ATTR_ATR_STRING,
    SCARD_ATTR_DEVICE_FRIENDLY_NAME_A,
    SCARD_ATTR_VENDOR_NAME,
    SCARD_CTL_CODE,
    SCARD_E_CANCELLED,
    SCARD_E_INSUFFICIENT_BUFFER,
    SCARD_E_INVALID_HANDLE,
    SCARD_E_INVALID_VALUE,
    SCARD_E_NO_SERVICE,
    SCARD_E_NO_SMARTCARD,
    SCARD_E_NOT_TRANSACTED,
    SCARD_E_PROTO_MISMATCH,
    SCARD_E_READER_UNAVAILABLE,
    SCARD_E_SERVICE_STOPPED,
    SCARD_E_SHARING_VIOLATION,
    SCARD_E_TIMEOUT,
    SCARD_E_UNKNOWN_READER,
    SCARD_F_COMM_ERROR,
    SCARD_LEAVE_CARD,
    SCARD_PCI_T0,
    SCARD_PCI_T1,
    SCARD_PROTOCOL_ANY,
    SCARD_PROTOCOL_T1,
    SCARD_RESET_CARD,
    SCARD_S_SUCCESS,
    SCARD_SCOPE_USER,
    SCARD_SHARE_DIRECT,
    SCARD_SHARE_EXCLUSIVE,
    SCARD_SHARE_SHARED,
    SCARD_STATE_CHANGED,
    SCARD_STATE_EMPTY,
    SCARD_STATE_EXCLUSIVE,
    SCARD_STATE_INUSE,
    SCARD_STATE_PRESENT,
    SCARD_STATE_UNAWARE,
    SCARD_UNPOWER_CARD,
    SCARD_W_REMOVED_CARD,
    SCARD_W_RESET_CARD,
    SCardBeginTransaction,
    SCardCancel,
    SCardConnect,
    SCardControl,
    SCardDisconnect,
    SCardEndTransaction,
    SCardEstablishContext,
    SCardGetAttrib,
    SCardGetStatusChange,
    SCardIsValidContext,
    SCardListReaderGroups,
    SCardListReaders,
    SCardReconnect,
    SCardReleaseContext,
    SCardStatus,
    SCardTransmit,
)
from smartcard.System import readers

SELECT = [0x00, 0xA4, 0x00, 0x0C, 0x02, 0x3F, 0x00]
PNP = "\\\\?PnP?\\Notification"
OK = SCARD_S_SUCCESS
BLOCKED_S = 0.3
UNUSED_S = 1.0
"""So long a card that nobody uses keeps its power: the service is told so."""
ROUNDS = 100
"""Of what others do without end."""
CRASHES, TRIES = {"threads"}, 5
"""Where threads have a context each, SCardDisconnect of libpcsclite (1.9.9, 2.3.3, 2.5.2) crashes
now and then: 9 of 560 runs with pcscd, 16 of 592 with our service, none of 300 in process."""


def same(found: int, *wanted: int) -> None:
    """A code is the one that it has to be."""
    if found not in wanted:
        raise AssertionError(f"0x{found:08X}, not {' or '.join(f'0x{w:08X}' for w in wanted)}")


def context() -> int:
    code, made = SCardEstablishContext(SCARD_SCOPE_USER)
    same(code, OK)
    return int(made)


def first(of: int) -> str:
    code, names = SCardListReaders(of, [])
    same(code, OK)
    return str(names[0])


def connect(of: int, share: int = SCARD_SHARE_SHARED, name: str = "") -> int:
    """To the reader of this name, or the first one."""
    code, card, _ = SCardConnect(of, name or first(of), share, SCARD_PROTOCOL_ANY)
    same(code, OK)
    return int(card)


def ask(word: str) -> None:
    """Have the test do something."""
    print(word, flush=True)
    sys.stdin.readline()


class Later(threading.Thread):
    """A call in a thread of its own.

    Attributes:
        code: What it returned; None while it is under way.
        took: Seconds.
    """

    def __init__(self, call: Callable[[], int | list[int]]) -> None:
        super().__init__(daemon=True)
        self._call = call
        self.code: int | None = None
        self.took = 0.0
        self.start()

    def run(self) -> None:
        begun = time.monotonic()
        result = self._call()
        self.took = time.monotonic() - begun
        self.code = result[0] if isinstance(result, list) else result

    def blocks(self) -> bool:
        """It is under way still, after a moment."""
        self.join(BLOCKED_S)
        return self.code is None

    def end(self) -> int:
        """What it returned."""
        self.join(5)
        if self.code is None:
            raise AssertionError("it never ended")
        return self.code


# Sharing ----------------------------------------------------------------------------------------


def shared_and_exclusive() -> None:
    one, other = context(), context()
    name = first(one)
    card = connect(one, SCARD_SHARE_EXCLUSIVE)
    for share in (SCARD_SHARE_SHARED, SCARD_SHARE_EXCLUSIVE, SCARD_SHARE_DIRECT):
        same(SCardConnect(other, name, share, SCARD_PROTOCOL_ANY)[0], SCARD_E_SHARING_VIOLATION)
    code, states = SCardGetStatusChange(other, 0, [(name, SCARD_STATE_UNAWARE)])
    same(code, OK)
    assert states[0][1] & SCARD_STATE_EXCLUSIVE
    same(SCardDisconnect(card, SCARD_LEAVE_CARD), OK)
    card = connect(one)
    shared = connect(other)
    exclusive = SCardConnect(other, name, SCARD_SHARE_EXCLUSIVE, SCARD_PROTOCOL_ANY)
    same(exclusive[0], SCARD_E_SHARING_VIOLATION)
    code, states = SCardGetStatusChange(other, 0, [(name, SCARD_STATE_UNAWARE)])
    assert states[0][1] & SCARD_STATE_INUSE
    direct = connect(other, SCARD_SHARE_DIRECT)
    for one_card in (card, shared, direct):
        same(SCardDisconnect(one_card, SCARD_LEAVE_CARD), OK)


def exclusive_becomes_shared() -> None:
    """Others get in then; pcscd keeps them out."""
    one, other = context(), context()
    card = connect(one, SCARD_SHARE_EXCLUSIVE)
    same(SCardReconnect(card, SCARD_SHARE_SHARED, SCARD_PROTOCOL_ANY, SCARD_LEAVE_CARD)[0], OK)
    connect(other)


def reconnect() -> None:
    card = connect(context())
    leave = (SCARD_SHARE_EXCLUSIVE, SCARD_PROTOCOL_ANY, SCARD_LEAVE_CARD)
    same(SCardReconnect(card, *leave)[0], OK)
    reset = (SCARD_SHARE_EXCLUSIVE, SCARD_PROTOCOL_ANY, SCARD_RESET_CARD)
    same(SCardReconnect(card, *reset)[0], OK)
    same(SCardStatus(card)[0], OK)
    same(SCardDisconnect(card, SCARD_RESET_CARD), OK)


def direct() -> None:
    """DIRECT does not agree on a protocol, and does not forget one."""
    one = context()
    name = first(one)
    code, card, protocol = SCardConnect(one, name, SCARD_SHARE_DIRECT, 0)
    same(code, OK)
    assert protocol == 0
    code, protocol = SCardReconnect(card, SCARD_SHARE_DIRECT, SCARD_PROTOCOL_ANY, SCARD_LEAVE_CARD)
    same(code, OK)
    assert protocol == 0
    code, shared, agreed = SCardConnect(one, name, SCARD_SHARE_SHARED, SCARD_PROTOCOL_ANY)
    assert agreed
    same(SCardDisconnect(shared, SCARD_LEAVE_CARD), OK)
    code, protocol = SCardReconnect(card, SCARD_SHARE_DIRECT, SCARD_PROTOCOL_ANY, SCARD_LEAVE_CARD)
    assert protocol == agreed
    same(SCardDisconnect(card, SCARD_LEAVE_CARD), OK)
    code, card, protocol = SCardConnect(one, name, SCARD_SHARE_DIRECT, 0)
    same(code, OK)
    code, protocol = SCardReconnect(card, SCARD_SHARE_DIRECT, SCARD_PROTOCOL_ANY, SCARD_LEAVE_CARD)
    assert protocol == agreed
    same(SCardDisconnect(card, SCARD_RESET_CARD), OK)


def direct_beside_shared() -> None:
    one = context()
    name = first(one)
    shared = connect(one)
    same(SCardTransmit(shared, SCARD_PCI_T1, SELECT)[0], OK)
    code, straight, _ = SCardConnect(one, name, SCARD_SHARE_DIRECT, SCARD_PROTOCOL_ANY)
    same(code, OK)
    same(SCardTransmit(shared, SCARD_PCI_T1, SELECT)[0], OK)
    how = (SCARD_SHARE_DIRECT, SCARD_PROTOCOL_ANY, SCARD_LEAVE_CARD)
    same(SCardReconnect(straight, *how)[0], OK)
    code, answer = SCardTransmit(shared, SCARD_PCI_T1, SELECT)
    same(code, OK)
    assert answer == [0x90, 0x00]


def protocols() -> None:
    one = context()
    name = first(one)
    code, card, protocol = SCardConnect(one, name, SCARD_SHARE_SHARED, SCARD_PROTOCOL_T1)
    same(code, OK)
    assert protocol == SCARD_PROTOCOL_T1
    same(SCardTransmit(card, SCARD_PCI_T0, SELECT)[0], SCARD_E_PROTO_MISMATCH)
    same(SCardConnect(one, name, SCARD_SHARE_SHARED, 1)[0], SCARD_E_PROTO_MISMATCH)
    same(SCardConnect(one, name, SCARD_SHARE_SHARED, 0)[0], SCARD_E_PROTO_MISMATCH)
    same(SCardConnect(one, name, 7, 3)[0], SCARD_E_INVALID_VALUE)
    same(SCardConnect(one, "no such reader", 2, 3)[0], SCARD_E_UNKNOWN_READER)
    same(SCardDisconnect(card, 4), SCARD_E_INVALID_VALUE)


# Transactions -----------------------------------------------------------------------------------


def transaction_and_disconnect() -> None:
    one = context()
    card = connect(one)
    same(SCardBeginTransaction(card), OK)
    same(SCardBeginTransaction(card), OK)
    same(SCardDisconnect(card, SCARD_RESET_CARD), OK)
    same(SCardReleaseContext(one), OK)


def transaction_and_exclusive() -> None:
    one, other = context(), context()
    card, second = connect(one), connect(other)
    same(SCardBeginTransaction(card), OK)
    same(SCardDisconnect(second, SCARD_LEAVE_CARD), OK)
    same(SCardEndTransaction(card, SCARD_LEAVE_CARD), OK)
    same(SCardDisconnect(card, SCARD_LEAVE_CARD), OK)
    connect(one, SCARD_SHARE_EXCLUSIVE)


def transaction_of_another() -> None:
    """Nobody else resets the card."""
    one, other = context(), context()
    card, second = connect(one), connect(other)
    same(SCardBeginTransaction(card), OK)
    same(SCardEndTransaction(second, SCARD_UNPOWER_CARD), SCARD_E_SHARING_VIOLATION)
    same(SCardStatus(card)[0], OK)
    same(SCardEndTransaction(card, SCARD_LEAVE_CARD), OK)
    same(SCardEndTransaction(card, SCARD_LEAVE_CARD), SCARD_E_NOT_TRANSACTED)
    same(SCardEndTransaction(card, SCARD_RESET_CARD), SCARD_E_NOT_TRANSACTED)
    same(SCardStatus(second)[0], OK)


def transaction_outlives_other_context() -> None:
    """A context without a transaction is released: another's goes on."""
    one, two, three = context(), context(), context()
    connect(one)
    card, third = connect(two), connect(three)
    same(SCardBeginTransaction(card), OK)
    same(SCardReleaseContext(one), OK)
    begin = Later(lambda: SCardBeginTransaction(third))
    assert begin.blocks()
    same(SCardEndTransaction(card, SCARD_LEAVE_CARD), OK)
    same(begin.end(), OK)


def one_context_two_threads() -> None:
    """Reconnect waits for the transaction of another handle of the same context, which ends it."""
    one = context()
    card, second = connect(one), connect(one)
    same(SCardBeginTransaction(card), OK)
    how = (SCARD_SHARE_SHARED, SCARD_PROTOCOL_ANY, SCARD_LEAVE_CARD)
    again = Later(lambda: SCardReconnect(second, *how))
    assert again.blocks()
    same(SCardEndTransaction(card, SCARD_LEAVE_CARD), OK)
    same(again.end(), OK)


def begin_and_end(card: int) -> int:
    """A transaction in which nothing happens."""
    code = int(SCardBeginTransaction(card))
    return code if code != OK else int(SCardEndTransaction(card, SCARD_LEAVE_CARD))


def what_blocks() -> None:
    """All that waits while another has a transaction, and what does not."""
    holder = connect(context())
    cards = [connect(context()) for _ in range(5)]
    free = context()
    name = first(free)
    how = (SCARD_SHARE_SHARED, SCARD_PROTOCOL_ANY, SCARD_LEAVE_CARD)
    same(SCardBeginTransaction(holder), OK)
    waiting = [
        Later(lambda: begin_and_end(cards[0])),
        Later(lambda: SCardReconnect(cards[1], *how)),
        Later(lambda: SCardStatus(cards[2])),
        Later(lambda: SCardTransmit(cards[3], SCARD_PCI_T1, SELECT)),
        Later(lambda: SCardConnect(free, name, SCARD_SHARE_SHARED, SCARD_PROTOCOL_ANY)),
    ]
    last = cards[4]
    same(SCardGetAttrib(last, SCARD_ATTR_ATR_STRING)[0], SCARD_E_SHARING_VIOLATION)
    same(SCardControl(last, SCARD_CTL_CODE(3400), [])[0], SCARD_E_SHARING_VIOLATION)
    same(SCardDisconnect(last, SCARD_LEAVE_CARD), OK)
    assert all(one.blocks() for one in waiting)
    same(SCardEndTransaction(holder, SCARD_LEAVE_CARD), OK)
    for one in waiting:
        same(one.end(), OK)


def wake_up() -> None:
    """How soon one that waits has the card when the other's transaction ends."""
    one, other = connect(context()), connect(context())
    worst = 0.0
    for _ in range(10):
        same(SCardBeginTransaction(one), OK)
        begin = Later(lambda: SCardBeginTransaction(other))
        begin.join(0.05)
        ended = time.monotonic()
        same(SCardEndTransaction(one, SCARD_LEAVE_CARD), OK)
        same(begin.end(), OK)
        worst = max(worst, time.monotonic() - ended)
        same(SCardEndTransaction(other, SCARD_LEAVE_CARD), OK)
    print(f"{worst * 1000:.1f}")


# What others do to the card ---------------------------------------------------------------------


def reset_notice() -> None:
    """A reset by another is told by each call until SCardReconnect."""
    card, other = connect(context()), connect(context())
    how = (SCARD_SHARE_SHARED, SCARD_PROTOCOL_ANY, SCARD_RESET_CARD)
    same(SCardReconnect(other, *how)[0], OK)
    for _ in range(2):
        same(SCardStatus(card)[0], SCARD_W_RESET_CARD)
        same(SCardTransmit(card, SCARD_PCI_T1, SELECT)[0], SCARD_W_RESET_CARD)
        same(SCardBeginTransaction(card), SCARD_W_RESET_CARD)
    same(SCardStatus(other)[0], OK)
    leave = (SCARD_SHARE_SHARED, SCARD_PROTOCOL_ANY, SCARD_LEAVE_CARD)
    same(SCardReconnect(card, *leave)[0], OK)
    same(SCardTransmit(card, SCARD_PCI_T1, SELECT)[0], OK)
    same(SCardBeginTransaction(card), OK)
    same(SCardEndTransaction(card, SCARD_RESET_CARD), OK)
    same(SCardStatus(card)[0], SCARD_W_RESET_CARD)
    same(SCardStatus(other)[0], SCARD_W_RESET_CARD)
    same(SCardDisconnect(other, SCARD_UNPOWER_CARD), OK)
    same(SCardReconnect(card, *leave)[0], OK)
    same(SCardTransmit(card, SCARD_PCI_T1, SELECT)[0], OK)  # pcscd gives no power here


def removed_card() -> None:
    """A removal is told as one, also after another card came, and whatever is done then."""
    one = context()
    name = first(one)
    card, other = connect(one), connect(one)
    same(SCardBeginTransaction(card), OK)
    wait = Later(lambda: SCardGetStatusChange(context(), 10_000, [(name, SCARD_STATE_PRESENT)]))
    assert wait.blocks()
    ask("take out")
    same(wait.end(), OK)
    same(SCardStatus(card)[0], SCARD_W_REMOVED_CARD)
    how = (SCARD_SHARE_SHARED, SCARD_PROTOCOL_ANY, SCARD_LEAVE_CARD)
    same(SCardReconnect(card, *how)[0], SCARD_E_NO_SMARTCARD)
    same(SCardDisconnect(other, SCARD_RESET_CARD), OK)
    ask("put in")
    code, states = SCardGetStatusChange(one, 5000, [(name, SCARD_STATE_EMPTY)])
    same(code, OK)
    assert states[0][1] & SCARD_STATE_PRESENT
    assert states[0][2]
    same(SCardStatus(card)[0], SCARD_W_REMOVED_CARD)
    same(SCardEndTransaction(card, SCARD_LEAVE_CARD), SCARD_W_REMOVED_CARD)
    same(SCardReconnect(card, *how)[0], OK)
    same(SCardTransmit(card, SCARD_PCI_T1, SELECT)[0], OK)


def begin_after_removal() -> None:
    """A transaction is not begun with the card that came after."""
    one = context()
    name = first(one)
    card = connect(one)
    for word, state in (("take out", SCARD_STATE_EMPTY), ("put in", SCARD_STATE_PRESENT)):
        ask(word)
        until = time.monotonic() + 5
        while not SCardGetStatusChange(one, 0, [(name, SCARD_STATE_UNAWARE)])[1][0][1] & state:
            assert time.monotonic() < until
    same(SCardBeginTransaction(card), SCARD_W_REMOVED_CARD)


def exchange_cards(card: int, until: float) -> None:
    """The card goes, its handle hears of that before ``until``, and it comes again."""
    ask("take out")
    while (code := SCardStatus(card)[0]) == OK:
        assert time.monotonic() < until
    same(code, SCARD_W_REMOVED_CARD)
    ask("put in")


def cancel_and_removal() -> None:
    """A wait is cancelled, then the card goes: the handle hears of that and of nothing else."""
    one, other = context(), context()
    card = connect(other)
    wait = Later(lambda: SCardGetStatusChange(one, 10_000, [(PNP, SCARD_STATE_UNAWARE)]))
    assert wait.blocks()
    same(SCardCancel(one), OK)
    same(wait.end(), SCARD_E_CANCELLED)
    exchange_cards(card, until=time.monotonic() + 5)


def transmit_while_removed() -> None:
    card = connect(context())
    asked = threading.Timer(0.1, lambda: ask("take out"))
    asked.start()
    until = time.monotonic() + 5
    while (code := SCardTransmit(card, SCARD_PCI_T1, SELECT)[0]) == OK:
        assert time.monotonic() < until
    same(code, SCARD_E_NO_SMARTCARD, SCARD_W_REMOVED_CARD)
    same(SCardStatus(card)[0], SCARD_W_REMOVED_CARD)
    asked.join()


def removed_reader() -> None:
    one = context()
    name = first(one)
    same(SCardDisconnect(1234, SCARD_LEAVE_CARD), SCARD_E_INVALID_HANDLE)
    same(SCardReleaseContext(1234), SCARD_E_INVALID_HANDLE)
    card = connect(one)
    wait = Later(lambda: SCardGetStatusChange(context(), 10_000, [(name, SCARD_STATE_PRESENT)]))
    assert wait.blocks()
    ask("unplug")
    same(wait.end(), OK)
    same(SCardStatus(card)[0], SCARD_E_READER_UNAVAILABLE)
    same(SCardBeginTransaction(card), SCARD_E_INVALID_VALUE)
    same(SCardDisconnect(card, SCARD_LEAVE_CARD), OK)
    same(SCardDisconnect(card, SCARD_LEAVE_CARD), SCARD_E_INVALID_HANDLE)
    same(SCardConnect(one, name, SCARD_SHARE_SHARED, 3)[0], SCARD_E_UNKNOWN_READER)
    same(SCardReleaseContext(one), OK)
    same(SCardReleaseContext(one), SCARD_E_INVALID_HANDLE)


def power() -> None:
    """A card in use keeps its power and its protocol, also one that came while the handle was
    there: for longer than one that nobody uses."""
    card = connect(context())
    until = time.monotonic() + 5
    exchange_cards(card, until)
    how = (SCARD_SHARE_EXCLUSIVE, SCARD_PROTOCOL_ANY, SCARD_LEAVE_CARD)
    while (code := SCardReconnect(card, *how)[0]) == SCARD_E_NO_SMARTCARD:
        assert time.monotonic() < until
    same(code, OK)
    until = time.monotonic() + 1.5 * UNUSED_S
    while time.monotonic() < until:
        code, _, _, protocol, atr = SCardStatus(card)
        same(code, OK)
        assert protocol
        assert atr
        time.sleep(0.1)


# Changes ----------------------------------------------------------------------------------------


def status_change() -> None:
    one = context()
    name = first(one)
    code, states = SCardGetStatusChange(one, 0, [(name, SCARD_STATE_UNAWARE)])
    same(code, OK)
    assert states[0][1] & SCARD_STATE_CHANGED
    code, states = SCardGetStatusChange(one, 100, [(name, states[0][1])])
    same(code, SCARD_E_TIMEOUT)
    same(SCardGetStatusChange(one, 0, [("a", 0), ("b", 0)])[0], SCARD_E_UNKNOWN_READER)
    same(SCardGetStatusChange(one, 0, [])[0], OK)
    begun = time.monotonic()
    same(SCardGetStatusChange(one, 300, [(PNP, SCARD_STATE_UNAWARE)])[0], SCARD_E_TIMEOUT)
    assert 0.25 < time.monotonic() - begun < 3
    for _ in range(20):
        same(SCardGetStatusChange(one, 1, [(name, states[0][1])])[0], SCARD_E_TIMEOUT, OK)


def reader_comes() -> None:
    one = context()
    wait = Later(lambda: SCardGetStatusChange(one, 10_000, [(PNP, SCARD_STATE_UNAWARE)]))
    assert wait.blocks()
    other = context()
    before = time.monotonic()
    first(other)  # does not wait
    assert time.monotonic() - before < 1
    ask("unplug")
    same(wait.end(), OK)


def reader_event_counted() -> None:
    """A reader that went, or came, while nobody waited is told by the next call, by libpcsclite 2.3
    on: it asks for the number of such events."""
    one = context()
    name = first(one)
    code, states = SCardGetStatusChange(one, 0, [(name, 0), (PNP, SCARD_STATE_UNAWARE)])
    same(code, OK)
    known = states[1][1] & ~SCARD_STATE_CHANGED
    for word, more in (("replug", 2), ("unplug", 1)):
        ask(word)
        time.sleep(0.5)
        begun = time.monotonic()
        code, states = SCardGetStatusChange(one, 10_000, [(PNP, known)])
        same(code, OK)
        assert states[0][1] & SCARD_STATE_CHANGED
        assert states[0][1] >> 16 == (known >> 16) + more
        assert time.monotonic() - begun < 0.5
        known = states[0][1] & ~SCARD_STATE_CHANGED
        if word == "replug":
            assert first(one) == name
            connect(one)


def cancel() -> None:
    one = context()
    wait = Later(lambda: SCardGetStatusChange(one, 10_000, [(PNP, SCARD_STATE_UNAWARE)]))
    assert wait.blocks()
    same(SCardCancel(one), OK)
    same(wait.end(), SCARD_E_CANCELLED)
    assert wait.took < 2
    same(SCardCancel(one), OK)
    card = connect(one)
    same(SCardStatus(card)[0], OK)
    same(SCardReleaseContext(one), OK)
    same(SCardCancel(one), SCARD_E_INVALID_HANDLE)


# The rest ---------------------------------------------------------------------------------------


def attributes() -> None:
    one = context()
    name = first(one)
    card = connect(one, SCARD_SHARE_DIRECT)
    code, value = SCardGetAttrib(card, SCARD_ATTR_DEVICE_FRIENDLY_NAME_A)
    same(code, OK)
    assert bytes(value) == name.encode() + b"\0"
    code, value = SCardGetAttrib(card, SCARD_ATTR_VENDOR_NAME)
    same(code, OK)
    assert bytes(value) == b"ccid\0"
    code, value = SCardGetAttrib(card, SCARD_ATTR_ATR_STRING)
    same(code, OK)
    assert value == SCardStatus(card)[4]
    code, value = SCardControl(card, SCARD_CTL_CODE(3400), [])
    same(code, OK)
    assert len(value) % 6 == 0


def contexts() -> None:
    one = context()
    same(SCardIsValidContext(one), OK)
    same(SCardIsValidContext(one + 1), SCARD_E_INVALID_HANDLE)
    assert SCardListReaderGroups(one) == [OK, ["SCard$DefaultReaders"]]
    same(SCardReleaseContext(one), OK)
    same(SCardIsValidContext(one), SCARD_E_INVALID_HANDLE)


def program_executed() -> None:
    """Another program that this one becomes has no descriptor of it."""
    card = connect(context())
    same(SCardStatus(card)[0], OK)
    looks = (
        "import os; own = '/proc/self/fd/'; "
        "links = [os.readlink(own + n) for n in os.listdir(own) if os.path.exists(own + n)]; "
        "assert not any(one.startswith('socket') for one in links), links"
    )
    child = os.fork()
    if not child:
        words = open("/proc/self/cmdline", "rb").read().split(b"\0")
        python = words[: words.index(__file__.encode())]
        os.execv(python[0], [*python, b"-c", looks.encode()])
    assert os.waitpid(child, 0)[1] == 0


def forked() -> None:
    """A child that uses the parent's context. Says what the child is told.

    With libpcsclite both have one connection, and the service sees one client. In process the
    context is the parent's alone. In both the child's own context works, and the parent's goes on
    after the child, whatever that did.
    """
    one = context()
    name = first(one)
    card = connect(one)
    told = SCardListReaders(one, [])[0]
    for ending in (_uses_both, _leaves_all):
        child = os.fork()
        if not child:
            _end_with(lambda: ending(one, name))  # noqa: B023
        same(os.waitpid(child, 0)[1], 0)
        same(SCardListReaders(one, [])[0], told)
        same(SCardTransmit(card, SCARD_PCI_T1, SELECT)[0], OK)
    same(SCardDisconnect(card, SCARD_LEAVE_CARD), OK)
    same(SCardReleaseContext(one), OK)


def _uses_both(one: int, name: str) -> None:
    code, names = SCardListReaders(one, [])
    print(f"{code & 0xFFFFFFFF:08X}", flush=True)
    assert (code, names) in ((OK, [name]), (SCARD_E_INVALID_HANDLE, []))
    own = context()
    card = connect(own)
    same(SCardTransmit(card, SCARD_PCI_T1, SELECT)[0], OK)
    same(SCardDisconnect(card, SCARD_LEAVE_CARD), OK)
    same(SCardReleaseContext(own), OK)


def _leaves_all(one: int, name: str) -> None:
    """Contexts are left behind, and a handle."""
    connect(context())


def fork_releases() -> None:
    """A child that releases the parent's context. The parent has another."""
    one = context()
    connect(one)
    child = os.fork()
    if not child:
        _end_with(lambda: same(SCardReleaseContext(one), OK, SCARD_E_INVALID_HANDLE))
    same(os.waitpid(child, 0)[1], 0)
    SCardConnect(one, "any", SCARD_SHARE_SHARED, SCARD_PROTOCOL_ANY)  # ends, whatever it says
    card = connect(context())
    same(SCardTransmit(card, SCARD_PCI_T1, SELECT)[0], OK)


def loops() -> None:
    """What runs without end elsewhere: any code but success is a fault."""
    one = context()
    name = first(one)
    how = (SCARD_SHARE_SHARED, SCARD_PROTOCOL_ANY)
    for turn in range(ROUNDS):
        same(SCardListReaders(one, [])[0], OK)
        same(SCardGetStatusChange(one, 0, [(name, SCARD_STATE_UNAWARE)])[0], OK)
        card = connect(one)
        disposition = (SCARD_LEAVE_CARD, SCARD_RESET_CARD, SCARD_UNPOWER_CARD)[turn % 3]
        same(SCardReconnect(card, *how, disposition)[0], OK)
        same(SCardBeginTransaction(card), OK)
        for _ in range(10):
            assert SCardTransmit(card, SCARD_PCI_T1, SELECT) == [OK, [0x90, 0x00]]
        same(SCardStatus(card)[0], OK)
        same(SCardGetAttrib(card, SCARD_ATTR_VENDOR_NAME)[0], OK)
        same(SCardControl(card, SCARD_CTL_CODE(3400), [])[0], OK)
        same(SCardEndTransaction(card, SCARD_LEAVE_CARD), OK)
        same(SCardDisconnect(card, disposition), OK)
        other = context()
        same(SCardReleaseContext(other), OK)


def threads() -> None:
    def establish() -> int:
        for _ in range(100):
            one = context()
            same(SCardReleaseContext(one), OK)
        return 0

    def connected() -> int:
        for _ in range(10):
            one = context()
            card = connect(one)
            same(SCardDisconnect(card, SCARD_LEAVE_CARD), OK)
            same(SCardReleaseContext(one), OK)
        return 0

    for call in (establish, connected):
        for one in [Later(call) for _ in range(10)]:
            one.join(60)
            same(one.end(), OK)


def buffers() -> None:
    """Buffers that are too small or too large, by libpcsclite itself: pyscard has one of its own
    size."""
    library = ctypes.CDLL("libpcsclite.so.1")
    long, unsigned = ctypes.c_long, ctypes.c_ulong
    library.SCardEstablishContext.restype = long
    of, card, protocol = long(), long(), unsigned()
    assert library.SCardEstablishContext(unsigned(0), None, None, ctypes.byref(of)) == OK
    name = first(context()).encode()
    connected = library.SCardConnect(
        of, name, unsigned(2), unsigned(3), ctypes.byref(card), ctypes.byref(protocol)
    )
    assert connected == OK
    short = 0xFFFFFFFF & SCARD_E_INSUFFICIENT_BUFFER

    def code(result: int) -> int:
        return result & 0xFFFFFFFF

    data, got = ctypes.create_string_buffer(70000), unsigned()
    request = unsigned(SCARD_CTL_CODE(3400))
    for room, wanted in ((3, short), (264, OK), (65549, OK)):
        control = library.SCardControl(
            card, request, None, unsigned(0), data, unsigned(room), ctypes.byref(got)
        )
        same(code(control), wanted)
        assert got.value >= 6
    length = unsigned(264)
    atr = unsigned(SCARD_ATTR_ATR_STRING)
    same(code(library.SCardGetAttrib(card, atr, data, ctypes.byref(length))), OK)
    length = unsigned(265)
    same(code(library.SCardGetAttrib(card, atr, data, ctypes.byref(length))), short)
    length = unsigned(3)
    same(code(library.SCardGetAttrib(card, atr, data, ctypes.byref(length))), short)
    assert length.value > 3
    pci = (unsigned * 2)(protocol.value, 16)
    challenge = bytes.fromhex("0084000020")
    for room, wanted in ((30, short), (258, OK), (65549, OK)):
        length = unsigned(room)
        sent = library.SCardTransmit(
            card, pci, challenge, unsigned(5), None, data, ctypes.byref(length)
        )
        same(code(sent), wanted)
        assert length.value == 34


class Seen(CardObserver):  # type: ignore[misc]
    """What pyscard's monitor tells."""

    def __init__(self) -> None:
        self.told: queue.SimpleQueue[tuple[int, int]] = queue.SimpleQueue()

    def update(self, observable: object, handlers: tuple[list[object], list[object]]) -> None:
        added, removed = handlers
        if added or removed:  # its first word is that nothing happened yet
            self.told.put((len(added), len(removed)))


def monitor() -> None:
    """pyscard's own monitor of cards, and its connections."""
    cards, seen = CardMonitor(), Seen()
    cards.addObserver(seen)
    assert seen.told.get(timeout=10) == (1, 0)
    (reader,) = readers()
    connection = reader.createConnection()
    connection.connect()
    assert connection.transmit(SELECT)[1:] == (0x90, 0x00)
    connection.disconnect()
    ask("take out")
    assert seen.told.get(timeout=10) == (0, 1)
    ask("put in")
    assert seen.told.get(timeout=10) == (1, 0)
    cards.deleteObserver(seen)


def stress() -> None:
    """APDUs in transactions, until killed."""
    card = connect(context())
    while True:
        if SCardBeginTransaction(card) == OK:
            SCardTransmit(card, SCARD_PCI_T1, SELECT)
            SCardEndTransaction(card, SCARD_LEAVE_CARD)


def stress_waits() -> None:
    """Waits and connections, until killed."""
    one = context()
    name = first(one)
    while True:
        card = connect(one)
        SCardGetStatusChange(one, 20, [(name, SCARD_STATE_PRESENT), (PNP, 0)])
        SCardDisconnect(card, SCARD_RESET_CARD)


def killed() -> None:
    """Dies in a transaction."""
    card = connect(context())
    same(SCardBeginTransaction(card), OK)
    ask("kill")


def survives() -> None:
    """The other one."""
    one = context()
    card = connect(one)
    ask("connected")
    begin = Later(lambda: SCardBeginTransaction(card))
    assert begin.blocks()
    ask("waiting")
    same(begin.end(), SCARD_W_RESET_CARD)
    how = (SCARD_SHARE_SHARED, SCARD_PROTOCOL_ANY, SCARD_LEAVE_CARD)
    same(SCardReconnect(card, *how)[0], OK)
    same(SCardTransmit(card, SCARD_PCI_T1, SELECT)[0], OK)


def service_ends() -> None:
    one = context()
    name = first(one)
    wait = Later(lambda: SCardGetStatusChange(one, 20_000, [(name, SCARD_STATE_PRESENT)]))
    assert wait.blocks()
    ask("end")
    same(wait.end(), SCARD_E_NO_SERVICE, SCARD_E_SERVICE_STOPPED, SCARD_F_COMM_ERROR)
    assert wait.took < 5
    same(SCardEstablishContext(SCARD_SCOPE_USER)[0], SCARD_E_NO_SERVICE)


def _end_with(script: Callable[[], None]) -> NoReturn:
    """Run a script in this forked process, which ends then."""
    status = 1
    try:
        script()
        status = 0
    except Exception:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        os._exit(status)


def main(names: list[str], scripts: Mapping[str, Callable[[], None]]) -> None:
    """Run scripts. If there are several, each has a process of its own, which need not import
    anything. One that libpcsclite makes crash runs again."""
    for name in names:
        if len(names) == 1 and name not in CRASHES:
            scripts[name]()
            continue
        for _ in range(TRIES if name in CRASHES else 1):
            child = os.fork()
            if not child:
                _end_with(scripts[name])
            status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
            if status != -signal.SIGSEGV:
                break
        if status:
            sys.exit(f"{name} failed: {status}")


if __name__ == "__main__":
    main(sys.argv[1:], globals())
