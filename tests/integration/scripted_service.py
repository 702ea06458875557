"""Our service in this process, with a hand at its reader, and the programs of
``pyscard_scripts.py`` on it."""

from __future__ import annotations

import os
import subprocess
import threading
from collections.abc import Callable, Sequence
from pathlib import Path

import ccid
from ccid.pcsc.manager.engine import Settings
from ccid.pcsc.manager.scard_codes import DEFAULT_SLOTS
from ccid.pcsc.service.socket_place import listen
from ccid.pcsc.service.socket_server import SocketServer
from ccid.virtual import FileSystemCard

PYTHON = "/usr/bin/python3"
"""The one that has Debian's pyscard, and so libpcsclite."""
TIMEOUT_S = 40
UNUSED_S = 1.0
"""So long a card that nobody uses keeps its power; ``pyscard_scripts.py`` has the same."""
PROGRAMS = Path(__file__).parent / "pyscard_scripts.py"
FEATURES = Path(__file__).parent / "pyscard_features.py"
CALLS = Path(__file__).parent / "scard_calls.py"
FUNCTIONS = (
    "BeginTransaction Cancel Connect Control Disconnect EndTransaction EstablishContext FreeMemory"
    " GetAttrib GetStatusChange IsValidContext ListReaderGroups ListReaders Reconnect"
    " ReleaseContext SetAttrib Status Transmit"
)
"""All that libpcsclite has."""
SCRIPTS = (
    "shared_and_exclusive",
    "exclusive_becomes_shared",
    "reconnect",
    "direct",
    "direct_beside_shared",
    "protocols",
    "transaction_and_disconnect",
    "transaction_and_exclusive",
    "transaction_of_another",
    "transaction_outlives_other_context",
    "one_context_two_threads",
    "what_blocks",
    "reset_notice",
    "removed_card",
    "begin_after_removal",
    "cancel_and_removal",
    "transmit_while_removed",
    "removed_reader",
    "power",
    "status_change",
    "reader_comes",
    "cancel",
    "attributes",
    "contexts",
    "program_executed",
    "forked",
    "fork_releases",
    "loops",
    "buffers",
    "monitor",
    "threads",
    "service_ends",
)
"""Those that need no other beside them, by their names."""
SAID = {"forked": "00000000\n"}
"""What they say with libpcsclite: a child uses its parent's context."""


class Service:
    """Our service in this process, so that a test has a hand at its reader.

    Args:
        folder: For its socket.
        python: How to run a Python that has pyscard.
        readers: So many virtual readers, with a card in each; or these.

    Attributes:
        path: Its socket.
        reader: The first reader.
    """

    def __init__(
        self,
        folder: Path,
        python: Sequence[str] = (PYTHON,),
        readers: int | Sequence[ccid.VirtualReader] = 1,
    ) -> None:
        self.path = folder / "pcscd.comm"
        self._python = python
        made = readers
        if isinstance(made, int):
            made = [ccid.VirtualReader() for _ in range(made)]
        self.reader = made[0]
        infos = tuple(info for reader in made for info in reader.infos)
        slots = max(len(made), DEFAULT_SLOTS)
        settings = Settings(virtual=infos, usb=False, max_slots=slots, grace_s=UNUSED_S)
        self._server = SocketServer(listen(self.path), settings, entries=16)
        self._thread = threading.Thread(target=self._server.serve)
        self._thread.start()

    def end(self) -> None:
        self.path.unlink(missing_ok=True)
        self._server.stop()
        self._thread.join(20)
        assert not self._thread.is_alive()

    def start(self, script: str) -> subprocess.Popen[str]:
        """Begin a script."""
        return self._start([str(PROGRAMS), script])

    def _start(self, words: Sequence[str]) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [*self._python, *words],
            env={**os.environ, "PCSCLITE_CSOCK_NAME": str(self.path)},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def play(self, *scripts: str) -> str:
        """Run scripts, and do what they ask for; returns what else they say."""
        return self.play_words([str(PROGRAMS), *scripts])

    def play_features(self, *scripts: str) -> str:
        """Run those of ``pyscard_features.py``."""
        return self.play_words([str(FEATURES), *scripts])

    def play_words(self, words: Sequence[str]) -> str:
        """The same with any program of Python.

        Args:
            words: Its file and its arguments.
        """
        with self._start(words) as process:
            watchdog = threading.Timer(TIMEOUT_S, process.kill)
            watchdog.start()
            assert process.stdout is not None
            assert process.stdin is not None
            said = ""
            for line in process.stdout:
                act = self._act(line.strip())
                if act is None:
                    said += line
                    continue
                act()
                process.stdin.write("done\n")
                process.stdin.flush()
            assert process.stderr is not None
            errors = process.stderr.read()
            status = process.wait()
            watchdog.cancel()
            assert status == 0, f"{words}: {errors}"
        return said

    def _act(self, word: str) -> Callable[[], object] | None:
        acts: dict[str, Callable[[], object]] = {
            "take out": self.reader.remove,
            "put in": self._put_in,
            "unplug": self.reader.unplug,
            "replug": self.reader.replug,
            "end": self.end,
        }
        return acts.get(word)

    def _put_in(self) -> None:
        self.reader.insert(FileSystemCard())
