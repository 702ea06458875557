"""Finds the readers on USB, and those that come later, in a thread of its own.

No reader is opened here. Where libusb tells of devices the thread sleeps until it does; else it
lists them once a second.
"""

from __future__ import annotations

import logging
import queue
import threading
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass

from ccid.device.find import list_readers
from ccid.errors import CcidError
from ccid.ground.mailbox import Mailbox
from ccid.pcsc.manager.slot_driver import Post
from ccid.transport import ReaderInfo

logger = logging.getLogger("ccid.pcsc")

COMPARE_S = 1.0
"""How often the devices are listed where libusb does not tell."""


@dataclass(frozen=True, slots=True, eq=False)
class ReadersFound:
    """A message to the engine: the readers there are now."""

    infos: tuple[ReaderInfo, ...]


class ReaderFinder:
    """Posts :class:`ReadersFound` at once, and whenever something was plugged in or out.

    Args:
        post: Takes messages to the engine.
        names: Only readers of these names (or parts of them), ids or paths; empty for all.
    """

    def __init__(self, post: Post, names: Sequence[str] = ()) -> None:
        self._post = post
        self._names = [name.lower() for name in names]
        self._tokens: Mailbox[bool] = Mailbox()
        self._end_hotplug: Callable[[], None] | None = None
        self._thread = threading.Thread(target=self._run, name="finding readers", daemon=True)
        self._is_ended = False

    def begin(self) -> None:
        """Look for readers from now on."""
        self._thread.start()

    def look(self) -> None:
        """Look again."""
        self._tokens.put(True)

    def end(self) -> None:
        """Look no more."""
        self._is_ended = True
        self._tokens.put(False)

    def _run(self) -> None:
        try:
            from ccid.transport.hotplug import on_hotplug

            self._find()
            self._end_hotplug = on_hotplug(self.look)
            wait_s = COMPARE_S if self._end_hotplug is None else None
            if self._end_hotplug is not None:
                self._find()  # what came in between
            while not self._is_ended:
                with suppress(queue.Empty):
                    self._tokens.get(timeout=wait_s)
                if not self._is_ended:
                    self._find()
        except CcidError as error:
            logger.warning("no readers on USB: %s", error)
            self._post(ReadersFound(()))
        finally:
            if self._end_hotplug is not None:
                self._end_hotplug()

    def _find(self) -> None:
        infos = [info for info in list_readers() if self._is_wanted(info)]
        self._post(ReadersFound(tuple(infos)))

    def _is_wanted(self, info: ReaderInfo) -> bool:
        if not self._names:
            return True
        exact = (info.id, info.path.lower())
        return any(word in exact or word in info.name.lower() for word in self._names)
