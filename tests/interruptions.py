"""Interruptions: an exception of a signal handler (Ctrl-C) at one place after the other.

CPython runs the handler of a signal at certain places only (``CHECK_EVAL_BREAKER``): where a
function begins, after a call of a C function, and where a loop begins anew. So no handler runs
between an ``__enter__`` in C and the block of its ``with``, nor between the end of the block and an
``__exit__`` in C. An exception that the handler raises after a call counts as raised by the call.
(CPython 3.14 runs one after an ``__enter__`` in C, too: see :mod:`ccid.ground.signal_safe_locks`.)

From CPython 3.12 on, a function whose frame is asked for the events of its bytecodes tells them
only from its next call on, and from CPython 3.13 on no more once the hook has raised in it. So each
function under test is asked before each run.
"""

from __future__ import annotations

import dis
import enum
import gc
import inspect
import itertools
import sys
import threading
from collections.abc import Callable, Iterable, Iterator
from functools import cache
from pathlib import Path
from types import CellType, CodeType, FrameType, FunctionType
from typing import Any

import ccid

PACKAGE = Path(ccid.__file__).parent
MOST = 100_000
"""No code under test has so many places."""
LEAVES_WITH = {"LOAD_CONST", "SWAP", "COPY", "RETURN_CONST"}
"""First bytecodes of leaving a ``with``."""


class Places(enum.Enum):
    """The places where an interruption comes."""

    SIGNALS = enum.auto()
    """Exactly where CPython runs the handlers of signals."""
    AFTER_CALLS = enum.auto()
    """At the bytecode behind each call, of a Python function as well, and behind the beginning of
    each function; and where a loop begins anew. Not where a ``with`` begins to leave."""
    BYTECODES = enum.auto()
    """At every bytecode: the hook of a debugger may raise there."""


class Interruption(KeyboardInterrupt):
    """The exception that the handler raises."""


@cache
def _backward_jumps(code: CodeType) -> frozenset[int]:
    """Offsets of the bytecodes where a loop begins anew."""
    steps = dis.get_instructions(code)
    return frozenset(step.offset for step in steps if "JUMP_BACKWARD" in step.opname)


@cache
def _after_calls(code: CodeType) -> frozenset[int]:
    """Offsets of the bytecodes behind calls, and behind the beginning of a function."""
    steps = [step for step in dis.get_instructions(code) if step.opname != "CACHE"]
    return frozenset(
        after.offset
        for before, after in itertools.pairwise(steps)
        if before.opname.startswith(("CALL", "RESUME")) and after.opname not in LEAVES_WITH
    )


@cache
def _beginning(code: CodeType) -> int:
    """Offset where a function begins; a generator that is resumed begins elsewhere."""
    return next(step.offset for step in dis.get_instructions(code) if step.opname == "RESUME")


class _Entered(Exception):
    """Ends a function where it begins."""


@cache
def _functions_of(file: str) -> list[CodeType]:
    """All functions of a file, those within others as well."""
    functions = [one for one in gc.get_objects() if isinstance(one, FunctionType)]
    # Free-threaded CPython 3.13 hides the functions from the collector once there was a thread.
    for module in list(sys.modules.values()):
        if getattr(module, "__file__", None) == file:
            functions += _functions_in(vars(module).values(), module.__name__)
    found = {one.__code__: None for one in functions if one.__code__.co_filename == file}
    left = list(found)
    while left:
        inner = [one for one in left.pop().co_consts if isinstance(one, CodeType)]
        left += [one for one in inner if one not in found]
        found.update(dict.fromkeys(inner))
    return [code for code in found if code.co_flags & inspect.CO_OPTIMIZED]  # no body of a class


def _functions_in(things: Iterable[object], module: str) -> list[FunctionType]:
    """The functions among ``things``, in the classes of the module among them, and those that these
    functions are wrapped around."""
    left, seen, found = list(things), set[int](), []
    while left:
        one = left.pop()
        if id(one) in seen:
            continue
        seen.add(id(one))
        if isinstance(one, FunctionType):
            found.append(one)
            left += [
                referent for cell in one.__closure__ or () for referent in gc.get_referents(cell)
            ]
        elif isinstance(one, type):
            left += vars(one).values() if one.__module__ == module else ()
        elif isinstance(one, property | staticmethod | classmethod):
            left += gc.get_referents(one)
    return found


def _ask_for_bytecodes(code: CodeType) -> None:
    """Have a function tell its bytecodes, from its next call on. It does not run: it is called, and
    ended where it begins."""
    function = FunctionType(code, {}, closure=tuple(CellType() for _ in code.co_freevars))
    count = code.co_argcount
    by_name = code.co_varnames[count : count + code.co_kwonlyargcount]

    def enter(frame: FrameType, event: str, _: object) -> Any:
        if frame.f_code is not code:
            return None
        frame.f_trace_opcodes = True
        if event != "call":  # its first line: by now CPython does what was asked for
            raise _Entered
        return enter

    before = sys.gettrace()
    sys.settrace(enter)
    try:
        made = function(*[None] * count, **dict.fromkeys(by_name))
        made.send(None)  # a generator or a coroutine begins with this
    except _Entered:
        pass
    finally:
        sys.settrace(before)


class Interrupter:
    """Calls a function, and raises an :class:`Interruption` at one place in it.

    Args:
        files: The files whose places count: a path in the package, or ``threading.py``.
        at: Number of the place, from 0.
        places: The places that count.
        again: True to raise a second time, where the next function in ``files`` begins.

    Attributes:
        error: The exception that was raised; None until then.
    """

    def __init__(
        self, files: tuple[str, ...], at: int, places: Places, again: bool = False
    ) -> None:
        self._files = frozenset(_path_of(file) for file in files)
        self._places = places
        self._left = at
        self._again = again
        self.error: Interruption | None = None

    def run(self, work: Callable[[], object]) -> None:
        """Call ``work``.

        Raises:
            Interruption: The place was reached, and ``work`` did not catch the exception.
        """
        if sys.version_info >= (3, 12):
            for code in itertools.chain(*map(_functions_of, self._files)):
                _ask_for_bytecodes(code)
        before = sys.gettrace(), sys.getprofile()
        collects = gc.isenabled()
        # what the collector calls belongs to what other tests left behind
        gc.disable()
        try:
            sys.settrace(self._trace)
            if self._again or self._places is Places.SIGNALS:
                sys.setprofile(self._profile)
            work()
        finally:
            sys.setprofile(before[1])
            sys.settrace(before[0])
            if collects:
                gc.enable()

    def _trace(self, frame: FrameType, event: str, _: object) -> Any:
        if self.error is not None or not self._is_under_test(frame.f_code):
            return None
        frame.f_trace_opcodes, frame.f_trace_lines = True, False
        if event == "opcode" and self._counts(frame.f_code, frame.f_lasti):
            self._reach()
        return self._trace

    def _is_under_test(self, code: CodeType) -> bool:
        """False for ``__del__``: Python prints what is raised there, and goes on."""
        return code.co_filename in self._files and code.co_name != "__del__"

    def _counts(self, code: CodeType, offset: int) -> bool:
        """True if the bytecode at ``offset`` is a place."""
        if self._places is Places.BYTECODES or offset in _backward_jumps(code):
            return True
        return self._places is Places.AFTER_CALLS and offset in _after_calls(code)

    def _profile(self, frame: FrameType, event: str, _: object) -> None:
        if not self._is_under_test(frame.f_code):
            return
        if self._again and self.error is not None and event == "call":
            raise Interruption
        begins = event == "call" and frame.f_lasti <= _beginning(frame.f_code)
        if self._places is Places.SIGNALS and (begins or event == "c_return"):
            self._reach()

    def _reach(self) -> None:
        """Count a place that is reached, and raise at the one that is asked for."""
        if self.error is not None:
            return
        self._left -= 1
        if self._left < 0:
            self.error = Interruption()
            raise self.error


def _path_of(file: str) -> str:
    """The file name in the code objects of ``file``."""
    path = Path(threading.__file__) if file == "threading.py" else PACKAGE / file
    assert path.is_file(), file
    return str(path)


def interrupted(
    work: Callable[[], object],
    files: tuple[str, ...],
    places: Places = Places.SIGNALS,
    again: bool = False,
) -> Iterator[Interruption | None]:
    """Call ``work`` again and again: interrupted at the first place, at the second, and so on.

    Args:
        work: The code under test.
        files: As for :class:`Interrupter`.
        places: The places that count.
        again: As for :class:`Interrupter`.

    Yields:
        After each call the exception that was raised in it; after the last call None: that call
        had fewer places, and was not interrupted.
    """
    for at in range(MOST):
        interrupter = Interrupter(files, at, places, again)
        try:
            interrupter.run(work)
        except Interruption:
            assert interrupter.error is not None
        yield interrupter.error
        if interrupter.error is None:
            return
    raise AssertionError(f"more than {MOST} places")


def interrupt_everywhere(
    work: Callable[[], object],
    check: Callable[[], object],
    files: tuple[str, ...],
    places: Places,
    again: bool = False,
) -> int:
    """Interrupt ``work`` at each place, and call ``check`` after each call of ``work``.

    Args:
        work: The code under test.
        check: Asserts that the interruption left everything in order.
        files: As for :class:`Interrupter`.
        places: The places that count.
        again: As for :class:`Interrupter`.

    Returns:
        How many places there are.
    """
    count = 0
    for error in interrupted(work, files, places, again):
        try:
            check()
        except AssertionError as failure:
            failure.add_note(f"after an interruption at place {count}")
            raise
        if error is not None:
            count += 1
    return count
