"""``ccid.pcsc.scard`` has the names, arguments, codes and shapes of results that pyscard 2.3.1 has
with libpcsclite. What stands here was seen with that; ``tests/integration/test_pyscard.py`` holds
both against each other."""

from __future__ import annotations

import multiprocessing
import sys
import threading
from collections.abc import Iterator
from typing import Any

import pytest

import ccid
from ccid.pcsc import scard, under_pyscard
from ccid.pcsc.scard import chosen_readers
from ccid.pcsc.scard.chosen_readers import VARIABLE, WrongReaders, choice_of_words
from ccid.virtual.cards import EchoCard
from tests.unit.pyscard_names import CONSTANTS, FUNCTIONS

PNP = "\\\\?PnP?\\Notification"
ATR = bytes.fromhex("3BD596008031FE456363696421 65")
T1 = scard.SCARD_PROTOCOL_T1
ANY = scard.SCARD_PROTOCOL_ANY
SHARED = scard.SCARD_SHARE_SHARED


@pytest.fixture(autouse=True)
def reader(monkeypatch: pytest.MonkeyPatch) -> Iterator[ccid.VirtualReader]:
    """The only reader, with an echo card."""
    monkeypatch.setattr(sys, "meta_path", list(sys.meta_path))  # under_pyscard() adds to it
    made = ccid.VirtualReader(EchoCard())
    chosen_readers.choose([made], None, ())
    yield made
    chosen_readers.manager().close()


@pytest.fixture
def context() -> int:
    code, made = scard.SCardEstablishContext(scard.SCARD_SCOPE_USER)
    assert code == scard.SCARD_S_SUCCESS
    return int(made)


@pytest.fixture
def name(context: int) -> str:
    code, (only,) = scard.SCardListReaders(context, [])
    assert code == scard.SCARD_S_SUCCESS
    return str(only)


@pytest.fixture
def card(context: int, name: str) -> int:
    code, handle, protocol = scard.SCardConnect(context, name, SHARED, ANY)
    assert (code, protocol) == (scard.SCARD_S_SUCCESS, T1)
    return int(handle)


# Names --------------------------------------------------------------------------------------------


def test_constants_are_pyscards() -> None:
    ours = {n: v for n, v in vars(scard).items() if n in scard.__all__ and isinstance(v, int)}
    assert ours == CONSTANTS
    assert all(type(value) is int for value in ours.values())
    assert (scard.resourceManager, scard.resourceManagerSubType) == ("pcsclite", "pcsclite-linux")


def test_functions_have_pyscards_arguments() -> None:
    ours = {
        n: ", ".join(f.__code__.co_varnames[: f.__code__.co_argcount])
        for n, f in vars(scard).items()
        if n in scard.__all__ and callable(f) and n != "error"
    }
    assert ours == FUNCTIONS
    assert issubclass(scard.error, Exception)


def test_nothing_else_comes_by_a_star() -> None:
    others = {"INFINITE", "INVALID_HANDLE", "error", "resourceManager", "resourceManagerSubType"}
    assert set(scard.__all__) == {*CONSTANTS, *FUNCTIONS, *others}


# Results ------------------------------------------------------------------------------------------


def test_a_card_is_used(context: int, name: str, card: int) -> None:
    said = scard.SCardTransmit(card, scard.SCARD_PCI_T1, [0x00, 0x10, 5, 0, 3])
    assert said == [0, [5, 6, 7, 0x90, 0]]
    assert scard.SCardStatus(card) == [0, name, 0x34, T1, list(ATR)]
    assert scard.SCardBeginTransaction(card) == 0
    assert scard.SCardEndTransaction(card, scard.SCARD_LEAVE_CARD) == 0
    assert scard.SCardReconnect(card, SHARED, ANY, scard.SCARD_RESET_CARD) == [0, T1]
    assert scard.SCardGetAttrib(card, scard.SCARD_ATTR_ATR_STRING) == [0, list(ATR)]
    code, features = scard.SCardControl(card, scard.SCARD_CTL_CODE(3400), [])
    assert (code, features[:2]) == (0, [0x12, 4])
    assert scard.SCardDisconnect(card, scard.SCARD_UNPOWER_CARD) == 0
    assert scard.SCardReleaseContext(context) == 0
    assert scard.SCardIsValidContext(context) == scard.SCARD_E_INVALID_HANDLE


def test_lists(context: int, name: str) -> None:
    assert scard.SCardListReaders(context, ["no such group"]) == [0, [name]]
    assert scard.SCardListReaderGroups(context) == [0, ["SCard$DefaultReaders"]]
    assert scard.SCardIsValidContext(context) == 0
    chosen_readers.choose([], False, ())
    other = scard.SCardEstablishContext(0)[1]
    assert scard.SCardListReaders(other, []) == [scard.SCARD_E_NO_READERS_AVAILABLE, []]


def test_a_list_may_be_appended_to(context: int, name: str) -> None:
    """pyscard does that."""
    scard.SCardListReaders(context, [])[1].append(PNP)
    assert scard.SCardListReaders(context, [])[1] == [name]


@pytest.mark.parametrize(
    ("apdu", "answer"),
    [
        ([0x100, 0x10 - 0x100, 0x205, 0, 1], [5, 0x90, 0]),
        ([False, 0x10, 5, 0, True], [5, 0x90, 0]),
        ([2**70, 0x10, 5, 0, 1], [5, 0x90, 0]),
    ],
)
def test_values_are_cut_to_bytes(card: int, apdu: list[int], answer: list[int]) -> None:
    assert scard.SCardTransmit(card, scard.SCARD_PCI_T1, apdu) == [0, answer]


@pytest.mark.parametrize(
    ("pci", "code"),
    [
        (0, 0),
        (scard.SCARD_PCI_RAW, 0),
        (scard.SCARD_PCI_T1, 0),
        (scard.SCARD_PCI_T0, scard.SCARD_E_PROTO_MISMATCH),
        (3, scard.SCARD_E_INVALID_PARAMETER),
        (8, scard.SCARD_E_INVALID_PARAMETER),
    ],
)
def test_send_headers(card: int, pci: int, code: int) -> None:
    response = [] if code else [0x90, 0]
    assert scard.SCardTransmit(card, pci, [0, 0x40, 0, 0]) == [code, response]


def test_status_changes(context: int, name: str, reader: ccid.VirtualReader) -> None:
    code, [(told, state, atr)] = scard.SCardGetStatusChange(context, 0, [(name, 0)])
    present = scard.SCARD_STATE_PRESENT | scard.SCARD_STATE_CHANGED
    assert (code, told, state & 0xFFFF, atr) == (0, name, present, list(ATR))
    late = scard.SCARD_E_TIMEOUT
    same = [late, [(name, state ^ scard.SCARD_STATE_CHANGED, list(ATR))]]
    assert scard.SCardGetStatusChange(context, 5, [(name, state)]) == same
    assert scard.SCardGetStatusChange(context, 5, [(name, state, [1] * 40)]) == same
    code, states = scard.SCardGetStatusChange(context, 0, [(name, 0), (PNP.lower(), 0)])
    assert (code, [one[0] for one in states]) == (0, [name, PNP.lower()])
    unheard = scard.SCARD_STATE_IGNORE
    assert scard.SCardGetStatusChange(context, 0, [(name, unheard)]) == [0, [(name, 0, [])]]
    reader.remove()
    code, [(_, state, atr)] = scard.SCardGetStatusChange(context, scard.INFINITE, [(name, state)])
    assert (code, state >> 16, atr) == (0, 1, [])
    assert state & scard.SCARD_STATE_EMPTY


def test_status_changes_that_fail(context: int, name: str) -> None:
    nothing: list[Any] = [("nix", 0, [])]
    asked: list[Any] = [("nix", 0)]
    unknown = scard.SCARD_E_UNKNOWN_READER
    assert scard.SCardGetStatusChange(context, 0, asked) == [unknown, nothing]
    assert scard.SCardGetStatusChange(5, 0, asked) == [scard.SCARD_E_INVALID_HANDLE, nothing]
    assert scard.SCardGetStatusChange(context, 0, []) == [0, []]
    assert scard.SCardGetStatusChange(5, 0, []) == [0, []]


def test_another_thread_cancels(context: int, name: str) -> None:
    known = scard.SCardGetStatusChange(context, 0, [(name, 0)])[1][0][:2]
    results: list[Any] = []
    waiting = threading.Thread(
        target=lambda: results.append(scard.SCardGetStatusChange(context, -1, [known]))
    )
    waiting.start()
    while waiting.is_alive():
        assert scard.SCardCancel(context) == 0
        waiting.join(0.01)
    assert results[0][0] == scard.SCARD_E_CANCELLED


def test_codes_without_a_card_or_a_handle(
    context: int, name: str, reader: ccid.VirtualReader
) -> None:
    bad = scard.SCARD_E_INVALID_HANDLE
    assert scard.SCardStatus(5) == [bad, "", 0, 0, []]
    assert scard.SCardTransmit(0, 1, [0, 0, 0, 0]) == [bad, []]
    assert scard.SCardReconnect(5, SHARED, ANY, 0) == [bad, 0]
    assert scard.SCardControl(5, 5, []) == scard.SCardGetAttrib(5, 5) == [bad, []]
    assert scard.SCardSetAttrib(5, 5, [1]) == scard.SCardBeginTransaction(5) == bad
    assert scard.SCardEndTransaction(5, 0) == scard.SCardDisconnect(5, 0) == bad
    assert scard.SCardReleaseContext(5) == scard.SCardCancel(5) == bad
    assert scard.SCardListReaders(5, []) == scard.SCardListReaderGroups(5) == [bad, []]
    assert scard.SCardConnect(5, name, SHARED, ANY) == [bad, 0, 0]
    assert scard.SCardConnect(context, "n", SHARED, ANY)[0] == scard.SCARD_E_UNKNOWN_READER
    assert scard.SCardConnect(context, "\ud800", SHARED, ANY)[0] == scard.SCARD_E_UNKNOWN_READER
    assert scard.SCardConnect(context, "n" * 129, SHARED, ANY)[0] == scard.SCARD_E_INVALID_VALUE
    assert scard.SCardEstablishContext(7) == [scard.SCARD_E_INVALID_VALUE, 0]
    assert scard.SCardEstablishContext(-1) == [scard.SCARD_E_INVALID_VALUE, 0]
    reader.remove()
    code = scard.SCARD_E_TIMEOUT
    while code == scard.SCARD_E_TIMEOUT:
        states: list[Any] = [(name, scard.SCARD_STATE_PRESENT)]
        code = scard.SCardGetStatusChange(context, 5000, states)[0]
    assert scard.SCardConnect(context, name, SHARED, ANY) == [scard.SCARD_E_NO_SMARTCARD, 0, 0]


WRONG = [
    ("SCardEstablishContext", ("0",)),
    ("SCardEstablishContext", (1.0,)),
    ("SCardReleaseContext", ("foo",)),
    ("SCardIsValidContext", (None,)),
    ("SCardCancel", (b"",)),
    ("SCardListReaders", (1, None)),
    ("SCardListReaders", (1, ())),
    ("SCardListReaders", (1, [1])),
    ("SCardConnect", (1, b"name", 2, 3)),
    ("SCardConnect", (1, "name", "2", 3)),
    ("SCardReconnect", (1, 2, 3, None)),
    ("SCardTransmit", (1, 1, b"0000")),
    ("SCardTransmit", (1, 1, (0, 0))),
    ("SCardTransmit", (1, 1, ["a"])),
    ("SCardTransmit", (1, 1, [0, 256, 3.0])),
    ("SCardTransmit", (1, "x", [0])),
    ("SCardControl", (1, 1, b"")),
    ("SCardSetAttrib", (1, 1, None)),
    ("SCardGetStatusChange", (1, 0, None)),
    ("SCardGetStatusChange", (1, 0, [["n", 0]])),
    ("SCardGetStatusChange", (1, 0, (("n", 0),))),
    ("SCardGetStatusChange", (1, 0, [("n",)])),
    ("SCardGetStatusChange", (1, 0, [("n", 0, [], 5)])),
    ("SCardGetStatusChange", (1, 0, [("n", 0, "x")])),
    ("SCardGetStatusChange", (1, 0, [(b"n", 0)])),
    ("SCardGetStatusChange", (1, 0, [("n", "x")])),
    ("SCardGetErrorMessage", ("x",)),
    ("SCARD_CTL_CODE", ("x",)),
    ("SCardIntroduceReader", (1, 1, 1)),
    ("SCardAddReaderToGroup", (1, "a", 1)),
]


@pytest.mark.parametrize(("function", "arguments"), WRONG)
def test_wrong_types(function: str, arguments: tuple[Any, ...]) -> None:
    with pytest.raises(TypeError):
        getattr(scard, function)(*arguments)


def test_a_wrong_list_shows_none_of_its_values() -> None:
    """They may be a PIN's."""
    with pytest.raises(TypeError) as raised:
        scard.SCardTransmit(1, 1, [0x31, 0x32, 777, "x"])  # type: ignore[list-item]
    error: BaseException | None = raised.value
    while error is not None:
        assert "777" not in str(error)
        error = error.__cause__ or error.__context__


def test_there_is_no_database() -> None:
    for function, names in (
        (scard.SCardIntroduceReader, ("a", "b")),
        (scard.SCardAddReaderToGroup, ("a", "b")),
        (scard.SCardRemoveReaderFromGroup, ("a", "b")),
        (scard.SCardForgetReader, ("a",)),
        (scard.SCardIntroduceReaderGroup, ("a",)),
        (scard.SCardForgetReaderGroup, ("a",)),
    ):
        assert function(1, *names) == scard.SCARD_E_UNSUPPORTED_FEATURE


@pytest.mark.parametrize(
    ("code", "text"),
    [
        (0, "Command successful."),
        (1, "Unknown error: 0x00000001"),
        (scard.SCARD_F_INTERNAL_ERROR, "Internal error."),
        (scard.SCARD_E_UNKNOWN_READER, "Unknown reader specified."),
        (scard.SCARD_E_NOT_TRANSACTED, "Transaction failed."),
        (scard.SCARD_E_DUPLICATE_READER, "Reader already exists."),
        (scard.SCARD_E_NO_SERVICE, "Service not available."),
        (scard.SCARD_W_REMOVED_CARD, "Card was removed."),
        (scard.SCARD_E_SERVER_TOO_BUSY, "Unknown error: 0x80100031"),
        (-1, "Unknown error: 0xFFFFFFFFFFFFFFFF"),
    ],
)
def test_texts(code: int, text: str) -> None:
    assert scard.SCardGetErrorMessage(code) == text


# Which readers ------------------------------------------------------------------------------------


def test_other_readers_are_chosen(context: int, card: int) -> None:
    under_pyscard(["08e6:3437", ccid.VirtualReader(name="Mine"), ""])
    assert scard.SCardIsValidContext(context) == scard.SCARD_E_INVALID_HANDLE
    assert scard.SCardTransmit(card, 2, [0, 0x40, 0, 0])[0] == scard.SCARD_E_INVALID_HANDLE
    names = scard.SCardListReaders(scard.SCardEstablishContext(0)[1], [])[1]
    assert [name.split(" (")[0] for name in names] == [
        "Gemalto PC Twin Reader",
        "Mine",
        "Virtual Reader",
    ]


def test_what_is_left_of_readers_chosen_before(context: int, name: str, card: int) -> None:
    """To a program the service was stopped, and there is another: pyscard's monitors establish
    another context then. With INVALID_HANDLE they print a traceback without end."""
    other = scard.SCardEstablishContext(0)[1]
    chosen_readers.choose([""], None, ())
    stopped = scard.SCARD_E_SERVICE_STOPPED
    assert scard.SCardListReaders(context, []) == [stopped, []]
    assert scard.SCardGetStatusChange(context, 0, [(name, 0)])[0] == stopped
    assert scard.SCardConnect(other, name, SHARED, ANY)[0] == stopped
    chosen_readers.choose([""], None, ())
    assert scard.SCardListReaders(context, [])[0] == stopped
    unknown = scard.SCARD_E_INVALID_HANDLE
    assert [scard.SCardDisconnect(card, 0) for _ in range(2)] == [0, unknown]
    assert [scard.SCardReleaseContext(other) for _ in range(2)] == [0, unknown]


def test_a_wait_ends_when_others_are_chosen(context: int, name: str) -> None:
    results: list[Any] = []
    waiting = threading.Thread(
        target=lambda: results.append(scard.SCardGetStatusChange(context, -1, [(name, 0x20)]))
    )
    waiting.start()
    chosen_readers.choose([""], None, ())
    waiting.join(20)
    assert results


def test_after_the_end_there_is_no_service(context: int, card: int) -> None:
    """What closes a context or a handle has no fault to tell: pyscard would raise."""
    chosen_readers.manager().close()
    assert scard.SCardEstablishContext(0) == [scard.SCARD_E_NO_SERVICE, 0]
    assert scard.SCardListReaders(context, []) == [scard.SCARD_E_NO_SERVICE, []]
    assert scard.SCardTransmit(card, 2, [0, 0, 0, 0]) == [scard.SCARD_E_NO_SERVICE, []]
    assert scard.SCardDisconnect(card, 0) == scard.SCardReleaseContext(context) == 0


@pytest.mark.parametrize(
    ("words", "virtual", "usb", "names"),
    [
        ("", 0, True, ()),
        ("--virtual", 1, False, ()),
        ("--virtual 08e6:3437 --card none --virtual", 2, False, ()),
        ("--virtual --usb", 1, True, ()),
        ("--reader 'Gemalto PC'", 0, True, ("Gemalto PC",)),
    ],
)
def test_words(words: str, virtual: int, usb: bool, names: tuple[str, ...]) -> None:
    choice = choice_of_words(words)
    assert (len(choice.virtual), choice.usb, choice.names) == (virtual, usb, names)


@pytest.mark.parametrize("words", ["--nonsense", "--card echo", "--virtual x", "'open", "word"])
def test_words_that_mean_nothing(words: str) -> None:
    with pytest.raises(WrongReaders, match=VARIABLE):
        choice_of_words(words)


def test_models_that_are_none() -> None:
    with pytest.raises(WrongReaders):
        under_pyscard(["nonsense"])
    with pytest.raises(ccid.errors.ReaderNotFound):
        under_pyscard(["ffff:ffff"])


def _in_a_fork(context: int, queue: Any) -> None:
    valid = scard.SCardIsValidContext(context)
    code, names = scard.SCardListReaders(scard.SCardEstablishContext(0)[1], [])
    queue.put((valid, code, len(names)))


@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
@pytest.mark.parametrize("is_model", [True, False])
def test_a_fork_has_readers_of_its_own(context: int, is_model: bool) -> None:
    """By model; a reader that is an object stays the parent's."""
    if is_model:
        under_pyscard([""])
        context = scard.SCardEstablishContext(0)[1]
    fork = multiprocessing.get_context("fork")
    queue = fork.Queue()
    child = fork.Process(target=_in_a_fork, args=(context, queue))
    child.start()
    none = (scard.SCARD_E_NO_READERS_AVAILABLE, 0)
    said = queue.get(timeout=20)
    child.join(20)
    assert said == (scard.SCARD_E_INVALID_HANDLE, *((0, 1) if is_model else none))
    assert scard.SCardIsValidContext(context) == 0
