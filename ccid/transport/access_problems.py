"""Why a reader cannot be opened (permissions, another holder), in words, and what to do."""

from __future__ import annotations

import os
import sys

from ccid.errors import AccessDenied, ReaderBusy
from ccid.transport import ReaderInfo, linux

RULE_FILE = "/etc/udev/rules.d/70-ccid.rules"

PCSCD = "pcscd"
_STOP_PCSCD = "stop {} (systemctl stop pcscd.socket pcscd.service), or reach the reader through {}"
KNOWN_HOLDERS = {
    PCSCD: _STOP_PCSCD.format("it", "it"),
    linux.HELPER: _STOP_PCSCD.format(PCSCD, PCSCD),
    "ccid-pcscd": "stop it (systemctl --user stop ccid-pcscd.socket ccid-pcscd.service, or Ctrl-C "
    "where you started it), or reach the reader through it",
    "scdaemon": "end it (gpgconf --kill scdaemon), or have it leave the reader to PC/SC "
    "(disable-ccid in scdaemon.conf)",
    "qemu-system-x86": "take the reader away from the virtual machine",
}
"""What to do about processes that hold readers, by name."""

MACOS_HOLDER = "macOS's own CCID driver (com.apple.ifdreader)"
MACOS_CURE = (
    "macOS claims every CCID interface for its smart card services and does not let go while "
    "the reader is plugged in; run as root, or use the reader through PC/SC"
)
WINDOWS_HOLDER = "Windows' own CCID driver (WUDFUsbccidDriver)"
WINDOWS_CURE = (
    "libusb reaches a device on Windows only when its interface is bound to WinUSB: bind it "
    "with Zadig, which takes the reader away from Windows' smart card service until undone"
)


GROUP = "plugdev"
"""The group of :func:`group_rule`: Debian's group for users of pluggable devices."""
RELOAD = "then: sudo udevadm control --reload && sudo udevadm trigger --subsystem-match=usb"
LAST_SERVICE_UID = 999
"""Users of services have numbers up to this one: SYS_UID_MAX of login.defs(5)."""


def udev_rule(info: ReaderInfo) -> str:
    """The udev rule that lets the user at the machine open this reader.

    logind gives that access to the user of a session on a seat (73-seat-late.rules). A user who
    is logged in by SSH, a service and a container do not get it.
    """
    return f'{_matches(info)}, TAG+="uaccess"'


def group_rule(info: ReaderInfo, group: str = GROUP) -> str:
    """The udev rule that lets the members of a group open this reader, from anywhere."""
    return f'{_matches(info)}, MODE="0660", GROUP="{group}"'


def _matches(info: ReaderInfo) -> str:
    return (
        f'SUBSYSTEM=="usb", ATTR{{idVendor}}=="{info.vendor_id:04x}", '
        f'ATTR{{idProduct}}=="{info.product_id:04x}"'
    )


def udev_cure(info: ReaderInfo) -> str:
    """The commands that put a rule in force, and which rule is for whom."""
    service = _service_group()
    if service is not None:
        user, group = service
        return (
            f"this process runs as the user {user} of a service, who gets nothing by uaccess: put "
            f"this line into {RULE_FILE}:\n"
            f"  {group_rule(info, group)}\n{RELOAD}"
        )
    return (
        f"if you sit at this machine, put this line into {RULE_FILE} (its name has to sort before "
        f"73-seat-late.rules):\n"
        f"  {udev_rule(info)}\n"
        f"it gives nothing to who comes by SSH, to a service, without a desktop, in WSL or in a "
        f"container. For those put this line there, too, and join the group "
        f"(sudo groupadd -f {GROUP}; sudo usermod -aG {GROUP} $USER, and log in again; a service "
        f"takes SupplementaryGroups={GROUP}; a container takes the rule on its host, "
        f"--device=/dev/bus/usb and --group-add with the group's number):\n"
        f"  {group_rule(info)}\n"
        f"{RELOAD}"
    )


def _service_group() -> tuple[str, str] | None:
    """The names of this process's user and of his group, if the user is one of a service, as is
    pcscd's; None if a person may have logged in as this user."""
    import grp
    import pwd

    if not 0 < os.geteuid() <= LAST_SERVICE_UID:
        return None
    try:
        user = pwd.getpwuid(os.geteuid())
        return user.pw_name, grp.getgrgid(user.pw_gid).gr_name
    except KeyError:
        return None


def blacklist_cure(driver: str) -> str:
    """The line that keeps a kernel driver from binding to the reader."""
    return (
        f"keep it away with this line in /etc/modprobe.d/ccid.conf, then plug the reader in "
        f"again:\n  blacklist {driver}"
    )


def access_denied(info: ReaderInfo) -> AccessDenied:
    """The error for a device that this user may not open."""
    if sys.platform.startswith("linux"):
        node = linux.node(info.bus, info.address)
        mode = linux.permissions(node)
        seen = f" ({mode})" if mode else ""
        message, cure = f"you may not open {node}{seen}", udev_cure(info)
    elif sys.platform == "darwin":
        message, cure = f"{MACOS_HOLDER} has it", MACOS_CURE
    elif sys.platform == "win32":
        message, cure = f"{WINDOWS_HOLDER} has it", WINDOWS_CURE
    else:
        message, cure = "the system does not let you open it", "ask for read and write access"
    return AccessDenied(f"{info.name}: {message}; {cure}", cure=cure, reader=info.name)


def busy(info: ReaderInfo) -> ReaderBusy:
    """The error for an interface that another program holds; it names a holder that is visible."""
    holder, cure = who_holds(info)
    if not holder:
        holder, cure = (
            "another process",
            "pcscd and scdaemon are the likely ones: "
            + "; ".join(f"{name}: {KNOWN_HOLDERS[name]}" for name in (PCSCD, "scdaemon")),
        )
    return ReaderBusy(
        f"{info.name} is held by {holder}; {cure}", holder=holder, cure=cure, reader=info.name
    )


def who_holds(info: ReaderInfo) -> tuple[str, str]:
    """The holder of the interface and the cure; empty texts if no holder is visible."""
    if sys.platform == "darwin":
        return MACOS_HOLDER, MACOS_CURE
    if sys.platform == "win32":
        return WINDOWS_HOLDER, WINDOWS_CURE
    if not sys.platform.startswith("linux") or info.bus == 0:
        return "", ""
    return linux_holder(info)


def linux_holder(info: ReaderInfo) -> tuple[str, str]:
    """:func:`who_holds` on Linux: the kernel driver bound to the interface, or the processes
    that have the device node open while someone has claimed it."""
    device = info.path.removeprefix("usb:").split(":")[0]
    configuration = info.configuration.bConfigurationValue
    driver = linux.driver(device, configuration, info.interface_number)
    if driver is None:
        return "", ""
    if driver != "usbfs":
        return f"the kernel driver {driver}", blacklist_cure(driver)
    processes = linux.holders(info.bus, info.address)
    if not processes:
        return "a process of another user", "look for it as root: ccid-probe doctor"
    cures = dict.fromkeys(
        KNOWN_HOLDERS.get(p.name, f"end {p.name}, or wait until it is done") for p in processes
    )
    return ", ".join(map(str, processes)), "; ".join(cures)
