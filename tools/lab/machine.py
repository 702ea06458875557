"""QEMU's command line for the lab's machine: what is in it but the readers."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

MONITOR, AGENT, HAND, GO = range(4)
"""The host's connections to a machine: QEMU's monitor, and three ports that the guest has: for the
agent, for the hand, and for the word to go on after its state was saved."""
CONNECTIONS = ("qmp", "agent", "hand", "go")
CONTROLLERS = {"uhci": "piix3-usb-uhci", "xhci": "qemu-xhci,p2=8,p3=1"}
PORTS = {"uhci": 2, "xhci": 8}
"""Numbers of USB 1 and USB 2 ports of one controller."""


def controller(kind: str, number: int = 0) -> list[str]:
    """The options for the ``number``-th controller of its kind; its bus is ``{kind}{number}.0``."""
    return ["-device", f"{CONTROLLERS[kind]},id={kind}{number}"]


def machine(
    accel: str,
    memory: int,
    smp: int,
    boot: Sequence[str],
    console: Path,
    shares: Sequence[tuple[str, str]],
    fds: Sequence[int],
) -> list[str]:
    """The command line.

    Args:
        accel: "kvm" or "tcg".
        memory, smp: MiB and processors.
        boot: The options for kernel and disk.
        console: The file for what the guest's kernel and boot say.
        shares: Tag, and path with options, of each directory that the guest may mount by 9p.
        fds: The sockets of ``CONNECTIONS``.
    """
    line = ["qemu-system-x86_64", "-machine", f"q35,accel={accel}"]
    line += ["-cpu", "host" if accel == "kvm" else "max", "-m", str(memory), "-smp", str(smp)]
    line += ["-nodefaults", "-no-user-config", "-display", "none", "-no-reboot", *boot]
    line += ["-serial", f"file:{console}"]
    for tag, path in shares:
        line += ["-fsdev", f"local,id={tag},security_model=none,multidevs=remap,path={path}"]
        line += ["-device", f"virtio-9p-pci,fsdev={tag},mount_tag={tag}"]
    line += ["-device", "virtio-serial-pci,id=ports"]
    for name, fd in zip(CONNECTIONS, fds, strict=True):
        line += ["-chardev", f"socket,id={name},fd={fd}"]
        if name == "qmp":
            line += ["-mon", "chardev=qmp,mode=control"]
        else:
            line += ["-device", f"virtserialport,bus=ports.0,chardev={name},name={name}"]
    return line
