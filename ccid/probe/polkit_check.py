"""Whether pcscd lets this user's programs in: it asks polkit, and so does ``ccid-probe doctor``."""

from __future__ import annotations

import os
import shutil
import subprocess

from ccid.transport.access_cures import GROUP, PAGE

ACTIONS = "org.debian.pcsc-lite.access_"
"""The beginning of pcscd's actions: ``access_pcsc`` to use it, ``access_card`` to use a card."""
NOT_AUTHORIZED = (1, 2, 3)
"""Statuses of pkcheck(1): no; only if a password is given; that was refused. pcscd asks nobody for
a password."""
TIME_S = 5.0
SECTION = "pcscd-refuses-you"
REFUSES = (
    "pcscd refuses the programs of this user (polkit's access_pcsc): it serves who sits at the "
    "machine"
)
CURE = f"""\
write into /etc/polkit-1/rules.d/49-pcscd.rules:
  polkit.addRule(function(action, subject) {{
    if (action.id.indexOf("{ACTIONS}") == 0 && subject.isInGroup("{GROUP}"))
      return polkit.Result.YES;
  }});
join the group: sudo usermod -aG {GROUP} $USER; log in again
({PAGE}#{SECTION} says more)"""


def pcscd_refuses() -> bool:
    """polkit says that this process may not use pcscd. False if polkit cannot be asked."""
    program = shutil.which("pkcheck")
    if program is None:
        return False
    command = [program, "--action-id", f"{ACTIONS}pcsc", "--process", str(os.getpid())]
    try:
        asked = subprocess.run(command, capture_output=True, timeout=TIME_S, check=False)
    except (OSError, subprocess.SubprocessError):
        return False
    return asked.returncode in NOT_AUTHORIZED
