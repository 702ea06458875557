"""The dumps of descriptors in a release of libccid: what ``parse`` printed of each reader. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Set
from dataclasses import dataclass

from ccid.errors import CcidError
from ccid.known.descriptor_figures import DeviceFigures
from ccid.probe.imported import devices


@dataclass(frozen=True, slots=True)
class Dump:
    """A dump with figures that the table does not have, or that cannot be read.

    Attributes:
        file: Its name.
        device: The figures; None if the dump cannot be read.
        text: What is new, or what is wrong.
        wanted: False if the table has no entry for the reader, or the dump cannot be read.
    """

    file: str
    device: DeviceFigures | None
    text: str
    wanted: bool = False

    def __str__(self) -> str:
        if self.device is None:
            return f"unread   {self.text}"
        return f"figures  {self.device.id}  {self.text}: {self.file}"


def new_figures(
    dumps: Iterable[tuple[str, bytes]], known: Iterable[DeviceFigures], ids: Set[str]
) -> list[Dump]:
    """The dumps that say more than the table, in the order of their ids.

    Args:
        dumps: Name and bytes of each file.
        known: All figures of the table.
        ids: The readers of the table and of the release, as ``vvvv:pppp``.
    """
    table: dict[str, list[DeviceFigures]] = {}
    for device in known:
        table.setdefault(device.id, []).append(device)
    found = []
    for file, content in dumps:
        try:
            read = devices(content, file)
        except CcidError as error:
            found.append(Dump(file, None, str(error)))
            continue
        for device in read:
            ours = table.get(device.id, [])
            if device.id not in ids:
                found.append(Dump(file, device, "a reader that is in no list"))
            elif device not in ours:
                found.append(Dump(file, device, _what(device, ours), wanted=True))
    return sorted(found, key=lambda dump: (dump.device.id if dump.device else "~", dump.file))


def _what(device: DeviceFigures, ours: Iterable[DeviceFigures]) -> str:
    releases = [one.bcdDevice for one in ours]
    if not releases:
        return "no figures yet"
    if device.bcdDevice not in releases:
        return f"another release, bcdDevice {device.bcdDevice:04X}"
    return f"other figures for bcdDevice {device.bcdDevice:04X}"
