"""The user that pcscd runs as, and what this user may enter, read, run and open.

Up to 2.3, and as Debian 12 has it, pcscd runs as root. Since 2.4 its unit says ``User=pcscd``.
"""

from __future__ import annotations

import grp
import os
import pwd
import stat
import subprocess
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from ccid.transport import linux
from ccid.transport.access_problems import PCSCD

UNIT = "pcscd.service"
UNIT_FOLDERS = (
    "etc/systemd/system",
    "run/systemd/system",
    "usr/local/lib/systemd/system",
    "usr/lib/systemd/system",
    "lib/systemd/system",
)
"""systemd.unit(5), the first counts."""
MOST_LINKS = 40
"""Symbolic links that Linux follows, one after the other."""
TRIAL_S = 60.0
"""Time for a program that is run as another user."""


@dataclass(frozen=True, slots=True)
class Account:
    """A user that is not root.

    Attributes:
        name: The user's name.
        uid: The user's number.
        group: The name of the user's group.
        gid: The number of that group.
        others: Numbers of the user's other groups.
    """

    name: str
    uid: int
    group: str
    gid: int
    others: frozenset[int] = frozenset()


def pcscd_account(root: Path = linux.ROOT) -> Account | None:
    """The user that pcscd runs as: by its unit; without a unit, by a pcscd that runs. None if that
    is root, or if this machine has neither.

    Args:
        root: Root folder of the file system, for tests.
    """
    user = group = ""
    extra: list[str] = []
    text = _unit(root)
    if text is None:
        for process in linux.running({PCSCD}, root):
            with suppress(OSError):
                user = str((root / "proc" / str(process.pid)).stat().st_uid)
    for line in (text or "").splitlines():
        key, _, value = line.partition("=")
        match key.strip():
            case "User":
                user = value.strip()
            case "Group":
                group = value.strip()
            case "SupplementaryGroups":
                extra = [*extra, *value.split()] if value.strip() else []
    return _account(user, group, extra) if user else None


def _unit(root: Path) -> str | None:
    """The unit of pcscd, with what is put over it; None if there is none."""
    for folder in UNIT_FOLDERS:
        with suppress(OSError):
            main = (root / folder / UNIT).read_text("utf-8", "replace")
            break
    else:
        return None
    over: dict[str, str] = {}
    for folder in reversed(UNIT_FOLDERS):
        for file in (root / folder / f"{UNIT}.d").glob("*.conf"):
            with suppress(OSError):
                over[file.name] = file.read_text("utf-8", "replace")
    return "\n".join([main, *(over[name] for name in sorted(over))])


def _account(user: str, group: str, extra: list[str]) -> Account | None:
    try:
        entry = pwd.getpwuid(int(user)) if user.isdecimal() else pwd.getpwnam(user)
        own = _group(group) if group else grp.getgrgid(entry.pw_gid)
    except KeyError:
        return None
    if entry.pw_uid == 0:
        return None
    others = set(os.getgrouplist(entry.pw_name, own.gr_gid))
    for name in extra:
        with suppress(KeyError):
            others.add(_group(name).gr_gid)
    return Account(entry.pw_name, entry.pw_uid, own.gr_name, own.gr_gid, frozenset(others))


def _group(text: str) -> grp.struct_group:
    return grp.getgrgid(int(text)) if text.isdecimal() else grp.getgrnam(text)


# What the user may do -------------------------------------------------------------------------


def obstacle(account: Account, path: Path, wanted: str) -> Path | None:
    """What keeps a user from a file.

    Args:
        account: The user.
        path: An absolute path. A file that does not exist keeps nobody.
        wanted: What the user is to do with the file: letters of ``rwx``.

    Returns:
        The first folder that the user may not enter, or the file itself; None if nothing does.
    """
    for place in _on_the_way(path):
        if not may(account, place, "x"):
            return place
    return None if may(account, path, wanted) else Path(os.path.realpath(path))


def _on_the_way(path: Path) -> Iterator[Path]:
    """The folders that lead to a file, also those of the symbolic links on the way."""
    seen, left = set[Path](), MOST_LINKS
    while left:
        for folder in reversed(path.parents):
            if folder not in seen:
                seen.add(folder)
                if folder.is_symlink():
                    yield from _on_the_way(Path(os.path.realpath(folder)) / "x")
                yield folder
        if not path.is_symlink():
            return
        path, left = path.parent / os.readlink(path), left - 1


def may(account: Account, path: Path, wanted: str) -> bool:
    """Whether a user has rights at a file: by its mode. Where the mode says no, root looks closer,
    as that user: an access control list may say yes.

    Args:
        account: The user.
        path: An absolute path.
        wanted: Letters of ``rwx``.
    """
    try:
        status = path.stat()
    except OSError:
        return True  # not there, or not to be seen: nothing is known
    if status.st_uid == account.uid:
        shift = 6
    elif status.st_gid == account.gid or status.st_gid in account.others:
        shift = 3
    else:
        shift = 0
    mode = stat.S_IMODE(status.st_mode) >> shift
    if all(mode & {"r": 4, "w": 2, "x": 1}[letter] for letter in wanted):
        return True
    tests = " && ".join(f'test -{letter} "$1"' for letter in wanted)
    told = run_as(account, ["/bin/sh", "-c", tests, "sh", str(path)])
    return told is not None and told.returncode == 0


def run_as(account: Account, command: list[str]) -> subprocess.CompletedProcess[str] | None:
    """Run a program as another user, which only root may.

    Args:
        account: The user.
        command: The program's path and its arguments.

    Returns:
        What the program said, with status 127 if the user cannot run it, or if it does not end
        within :data:`TRIAL_S`. None if this process is not root's.
    """
    if os.geteuid() != 0:
        return None
    try:
        return subprocess.run(
            command,
            capture_output=True,
            text=True,
            errors="replace",
            cwd="/",
            timeout=TRIAL_S,
            user=account.uid,
            group=account.gid,
            extra_groups=sorted(account.others),
        )
    except (OSError, subprocess.SubprocessError) as error:
        return subprocess.CompletedProcess(command, 127, "", str(error))
