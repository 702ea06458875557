"""Errors of the lab."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from lab.link import Result


class LabError(Exception):
    """QEMU, the guest or a card server failed."""


class NotPrepared(LabError):
    """``tools/prepare-lab`` has to run first; the message says why."""


class _Unsuccessful(LabError):
    """A command in the guest failed.

    Attributes:
        result: Exit code and output up to then.
    """

    said = ""

    def __init__(self, result: Result) -> None:
        super().__init__(result)
        self.result = result

    def __str__(self) -> str:
        said = self.said.format(code=self.result.returncode, seconds=self.result.seconds)
        parts = [f"{self.result.command!r} {said}"]
        for name in ("stdout", "stderr"):
            text = getattr(self.result, name)
            if text:
                parts.append(f"{name}:\n{'…' * (len(text) > 4000)}{text[-4000:]}")
        return "\n".join(parts)


class CommandFailed(_Unsuccessful):
    """The exit code is not 0, and ``check`` is true."""

    said = "gave exit code {code}"


class CommandTimeout(_Unsuccessful):
    """The command did not end in time, and was killed with its process group."""

    said = "was not done after {seconds:.1f} s"
