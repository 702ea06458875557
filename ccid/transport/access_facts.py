"""Facts on this process and its machine, for :mod:`ccid.transport.access_cures`: Linux's files and
the environment.

Every function takes the root of the file system, for tests. No function raises: a file that cannot
be read counts as absent.
"""

from __future__ import annotations

import errno
import os
import re
import stat
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

from ccid.ground.safe_text import printable
from ccid.transport import linux
from ccid.transport.access_cures import Facts, Node, Refusal

REFUSALS = {
    errno.EACCES: Refusal.MODE,
    errno.EPERM: Refusal.POLICY,
    errno.ENOENT: Refusal.MISSING,
}
MANAGERS = ("docker", "kubepods", "libpod", "lxc", "containerd", "garden")
"""What names of cgroups and of root file systems tell of containers."""
ALL_USERS = ["0", "0", "4294967295"]
"""uid_map (user_namespaces(7)) of a process that has the users of the machine."""
UDEV = ("control", "io.systemd.Udev")
"""Sockets of udev, the second of newer ones."""
MOST_BYTES = 1 << 16
MOST_NAME = 200
"""Characters of a name that a file or the environment tells."""


def gather(root: Path | None = None, environ: Mapping[str, str] | None = None) -> Facts:
    """The facts on this process.

    Args:
        root: Root folder of the file system.
        environ: The environment.
    """
    root, environ = root or linux.ROOT, os.environ if environ is None else environ
    uid = os.geteuid()
    user, group, memberships = _user(uid)
    groups = _text(root, "proc/self/cgroup")
    kernel = _text(root, "proc/sys/kernel/osrelease").lower()
    container = _container(root, environ)
    return Facts(
        uid=uid,
        user=user,
        group=group,
        groups=frozenset({*os.getgroups(), os.getegid()}),
        memberships=memberships,
        has_ssh=any(environ.get(name) for name in ("SSH_CONNECTION", "SSH_CLIENT", "SSH_TTY")),
        is_remote=_is_remote(root, groups),
        seats=tuple(_value(_text(root, f"run/systemd/users/{uid}"), "ACTIVE_SEATS").split()),
        has_udev=any(_is_there(root, f"run/udev/{name}") for name in UDEV),
        unit=_unit(groups),
        container="" if container in ("wsl", "flatpak") else container,
        has_own_users=_text(root, "proc/self/uid_map").split() not in ([], ALL_USERS),
        is_wsl="microsoft" in kernel,
        is_wsl1=kernel.rstrip().endswith("-microsoft"),
        flatpak=_flatpak(root),
        snap=_snap(root),
    )


def gather_node(path: Path, root: Path | None = None) -> Node:
    """The facts on the node of a USB device; it is opened and closed.

    Args:
        path: The node.
        root: Root folder of the file system.
    """
    import grp

    root = root or linux.ROOT
    refusal = refused(path)
    try:
        status = path.stat()
    except OSError:
        return Node(str(path), refusal)
    group = str(status.st_gid)
    with suppress(KeyError):
        group = grp.getgrgid(status.st_gid).gr_name
    number = f"{os.major(status.st_rdev)}:{os.minor(status.st_rdev)}"
    tags = _text(root, f"run/udev/data/c{number}").splitlines()
    return Node(
        path=str(path),
        refusal=refusal,
        gid=status.st_gid,
        group=group,
        is_for_group=stat.S_IMODE(status.st_mode) & 0o060 == 0o060,
        has_seat_rule="G:uaccess" in tags,
    )


def refused(path: Path) -> Refusal | None:
    """How Linux refuses to open a file for reading and writing; None if it does not, or for a
    reason that is no matter of rights."""
    try:
        os.close(os.open(path, os.O_RDWR | os.O_CLOEXEC))
    except OSError as error:
        return REFUSALS.get(error.errno or 0)
    return None


def _text(root: Path, name: str) -> str:
    """The beginning of a file; empty if it cannot be read."""
    try:
        with (root / name).open("rb") as file:
            return file.read(MOST_BYTES).decode("utf-8", "replace")
    except OSError:
        return ""


def _is_there(root: Path, name: str) -> bool:
    """The file is there. ``Path.exists`` raises where a folder above it may not be searched."""
    return os.path.exists(root / name)


def _value(text: str, key: str) -> str:
    """The value of a line ``key=value``."""
    found = re.search(rf"^{key} *= *(.*)$", text, re.M)
    return printable(found[1][:MOST_NAME].strip().strip('"')) if found else ""


def _user(uid: int) -> tuple[str, str, frozenset[str]]:
    """The name of a user, the name of his group, and those of all groups that he is in."""
    import grp
    import pwd

    try:
        user = pwd.getpwuid(uid)
        all_groups = [group.gr_name for group in grp.getgrall() if user.pw_name in group.gr_mem]
        return user.pw_name, grp.getgrgid(user.pw_gid).gr_name, frozenset(all_groups)
    except KeyError:
        return "", "", frozenset()


def _unit(groups: str) -> str:
    """The system service in /proc/self/cgroup."""
    found = re.search(r":/system\.slice/(?:\S*/)?([\w@:.\\-]+\.service)", groups)
    return found[1] if found else ""


def _is_remote(root: Path, groups: str) -> bool:
    """logind says that the session in /proc/self/cgroup came from elsewhere."""
    session = re.search(r"/session-(\w+)\.scope", groups)
    if session is None:
        return False
    return _value(_text(root, f"run/systemd/sessions/{session[1]}"), "REMOTE") == "1"


def _container(root: Path, environ: Mapping[str, str]) -> str:
    """What made the container around this process; empty without one."""
    for name in ("run/systemd/container", "run/host/container-manager"):
        said = printable(_text(root, name)[:MOST_NAME].strip())
        if said:
            return said
    if environ.get("KUBERNETES_SERVICE_HOST"):
        return "Kubernetes"
    engine = _value(_text(root, "run/.containerenv"), "engine")
    if engine or _is_there(root, "run/.containerenv"):
        return engine.partition("-")[0] or "podman"
    if _is_there(root, ".dockerenv"):
        return "docker"
    said = printable(environ.get("container", "")[:MOST_NAME].strip())
    if said:
        return said
    mounts = _text(root, "proc/self/mountinfo").splitlines()
    roots = [line for line in mounts if line.split()[4:5] == ["/"] and " - overlay " in line]
    for text in (_text(root, "proc/1/cgroup"), "\n".join(roots)):
        for manager in MANAGERS:
            if manager in text:
                return {"kubepods": "Kubernetes", "libpod": "podman"}.get(manager, manager)
    return ""


def _flatpak(root: Path) -> str:
    """The name of the app in whose Flatpak sandbox this process runs."""
    if not _is_there(root, ".flatpak-info"):
        return ""
    return _value(_text(root, ".flatpak-info"), "name") or "APP"


def _snap(root: Path) -> str:
    """The name of the snap in whose sandbox this process runs. A program that a classic snap
    started, such as a shell of an editor, has the snap's environment, and no sandbox."""
    for name in ("proc/self/attr/apparmor/current", "proc/self/attr/current"):
        found = re.match(r"snap\.([\w-]+)\.\S+ \(enforce\)", _text(root, name))
        if found:
            return found[1]
    return ""
