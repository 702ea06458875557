"""A program at a terminal (a pseudo-terminal), with someone who types and reads."""

from __future__ import annotations

import os
import pty
import re
import select
import subprocess
import time

PATIENCE_S = 30.0


class Typist:
    """Types into a program at a terminal, and reads what it shows.

    Args:
        words: The command line.
        env: Its environment.
    """

    def __init__(self, words: list[str], env: dict[str, str]) -> None:
        self._seen = b""
        self._read = 0
        self._end, inside = pty.openpty()
        self.process = subprocess.Popen(
            words, stdin=inside, stdout=inside, stderr=inside, env=env, start_new_session=True
        )
        os.close(inside)

    def type(self, text: str) -> None:
        os.write(self._end, text.encode())

    def until(self, wanted: str) -> None:
        """Read on, up to a text; without colours and moves of the cursor."""
        limit = time.monotonic() + PATIENCE_S
        while wanted not in self._plain[self._read :]:
            left = max(limit - time.monotonic(), 0.0)
            ready = select.select([self._end], [], [], left)[0]
            assert ready, f"{wanted!r} is not in {self._plain[self._read :]!r}"
            try:
                self._seen += os.read(self._end, 65536)
            except OSError:
                raise AssertionError(f"it ended without {wanted!r}: {self.shown!r}") from None
        self._read = self._plain.index(wanted, self._read) + len(wanted)

    @property
    def _plain(self) -> str:
        return re.sub(r"\x1b\[[0-?]*[ -/]*[@-~]", "", self._seen.decode("utf-8", "replace"))

    @property
    def shown(self) -> str:
        """All that was shown."""
        return self._plain

    def close(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
        os.close(self._end)
