"""Why a reader cannot be opened (permissions, another holder), in words, and what to do."""

from __future__ import annotations

import sys

from ccid.errors import AccessDenied, ReaderBusy
from ccid.transport import ReaderInfo, linux

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


def blacklist_cure(driver: str) -> str:
    """The line that keeps a kernel driver from binding to the reader."""
    return (
        f"keep it away with this line in /etc/modprobe.d/ccid.conf, then plug the reader in "
        f"again:\n  blacklist {driver}"
    )


def access_denied(info: ReaderInfo) -> AccessDenied:
    """The error for a device that this user may not open."""
    if sys.platform.startswith("linux"):
        from ccid.transport.access_cures import advice
        from ccid.transport.access_facts import gather, gather_node

        path = linux.node(info.bus, info.address)
        mode = linux.permissions(path)
        seen = f" ({mode})" if mode else ", which is not there"
        found = advice(gather(), gather_node(path), (info.vendor_id, info.product_id))
        message, cure = f"you may not open {path}{seen}: {found.cause}", found.cure
    elif sys.platform == "darwin":
        message, cure = f"{MACOS_HOLDER} has it", MACOS_CURE
    elif sys.platform == "win32":
        message, cure = f"{WINDOWS_HOLDER} has it", WINDOWS_CURE
    else:
        message, cure = "the system does not let you open it", "ask for read and write access"
    return AccessDenied(f"{info.name}: {message}; {cure}", cure=cure, reader=info.name)


def is_denied(info: ReaderInfo) -> bool:
    """The system, and not the device, is why an open failed for which libusb gives another reason:
    a policy on devices refuses it (a container, a unit), or there is no node for a device that is
    plugged in. On Linux only."""
    if not sys.platform.startswith("linux") or not info.bus:
        return False
    from ccid.transport.access_cures import Refusal
    from ccid.transport.access_facts import refused

    refusal = refused(linux.node(info.bus, info.address))
    if refusal is Refusal.MISSING:
        device = linux.device_in(info.path)
        return linux.attribute(device, "devnum") == str(info.address)
    return refusal is Refusal.POLICY


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
    device = linux.device_in(info.path)
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
