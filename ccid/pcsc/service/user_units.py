"""Units for ``systemctl --user``: the service starts when the first program connects."""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path

NAME = "ccid-pcscd"

SOCKET = """\
[Unit]
Description=PC/SC without pcscd, by ccid

[Socket]
ListenStream=%t/ccid/pcscd.comm
SocketMode={mode}
DirectoryMode={folder_mode}
{group}
[Install]
WantedBy=sockets.target
"""

SERVICE = """\
[Unit]
Description=PC/SC without pcscd, by ccid
Requires={name}.socket
After={name}.socket

[Service]
ExecStart={command}
NoNewPrivileges=yes

[Install]
Also={name}.socket
"""


def folder() -> Path:
    """Where a user's units are (systemd.unit(5))."""
    config = os.environ.get("XDG_CONFIG_HOME")
    return (Path(config) if config else Path.home() / ".config") / "systemd" / "user"


def command(group: str | None) -> str:
    """What the unit starts."""
    script = shutil.which(NAME, path=str(Path(sys.executable).parent)) or shutil.which(NAME)
    words = [script] if script else [sys.executable, "-m", "ccid.pcsc.service"]
    if group is not None:
        words += ["--group", group]
    return " ".join(_quoted(word) for word in words)


def _quoted(word: str) -> str:
    """A word of ExecStart (systemd.service(5), "COMMAND LINES")."""
    text = word.replace("%", "%%").replace("$", "$$")
    if text.replace("/", "").replace("-", "").replace(".", "").replace("_", "").isalnum():
        return text
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'


def units(group: str | None = None, starts: str | None = None) -> dict[str, str]:
    """The units, by the names of their files.

    Args:
        group: Its members may connect, too.
        starts: The value of ExecStart; None for the command of this installation.
    """
    shared = group is not None
    socket = SOCKET.format(
        mode="0660" if shared else "0600",
        folder_mode="0750" if shared else "0700",
        group=f"SocketGroup={group}\n" if shared else "",
    )
    service = SERVICE.format(name=NAME, command=starts or command(group))
    return {f"{NAME}.socket": socket, f"{NAME}.service": service}


def install(group: str | None = None) -> int:
    """Write the units, and say what to do with them; returns the exit status."""
    where = folder()
    try:
        where.mkdir(parents=True, exist_ok=True)
        for name, text in units(group).items():
            (where / name).write_text(text, "utf-8")
            print(where / name)
    except OSError as error:
        print(f"ccid-pcscd: {where}: {error.strerror}", file=sys.stderr)
        return 1
    print(
        f"To have it from now on: systemctl --user enable --now {NAME}.socket\n"
        "Programs find it by: export PCSCLITE_CSOCK_NAME=$XDG_RUNTIME_DIR/ccid/pcscd.comm"
    )
    return 0
