"""``ccid-probe doctor``: why a reader does not work, and the cure."""

from __future__ import annotations

import argparse
import os
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import ccid
from ccid.device.find import select
from ccid.device.verdict import Level, judge
from ccid.errors import AccessDenied, CcidError, ReaderBusy, UsbUnavailable
from ccid.known.quirks import lookup
from ccid.probe import polkit_check, whose_name
from ccid.probe.output import Colour, Painted
from ccid.probe.reader_choice import opened, print_json, say, virtual_infos
from ccid.transport import ReaderInfo, linux
from ccid.transport.access_problems import PCSCD, linux_holder, who_holds

if TYPE_CHECKING:
    from ccid.transport.missing_interface import Lacking

PCSCD_SOCKET = Path("/run/pcscd/pcscd.comm")
DAEMONS = {PCSCD, "scdaemon"}
"""Processes that claim readers for their own use."""
LINUX = sys.platform.startswith("linux")


@dataclass
class Patient:
    """The findings about one reader, or about this machine.

    Attributes:
        name, path, id: Name, path and ``vvvv:pppp`` of the reader.
        facts: The facts, one line each.
        troubles: The troubles, each with its cure.
        cards: The state of each slot; empty if the reader could not be opened.
    """

    name: str
    path: str
    id: str
    facts: list[str] = field(default_factory=list)
    troubles: list[dict[str, str]] = field(default_factory=list)
    cards: list[str] = field(default_factory=list)

    def trouble(self, what: str, cure: str) -> None:
        """Add a trouble with its cure."""
        self.troubles.append({"trouble": what, "cure": cure})


def run(options: argparse.Namespace) -> int:
    """Examine the machine and all readers. Exit status 1 if there is any trouble."""
    machine = Patient("this machine", "", "")
    patients: list[Patient] = []
    infos = virtual_infos(options) if options.virtual else _look(machine, patients)
    if options.reader is not None:
        infos = [select(infos, options.reader)]
    patients.extend(_examine(options, info) for info in infos)
    if not infos and not any(one.troubles for one in [machine, *patients]):
        machine.trouble(
            "no CCID reader is on USB",
            "plug a reader in; if a reader is plugged in, see whether `lsusb` (or your system's "
            "device list) shows it: if not, the cable, the port or the reader is broken",
        )
    if options.json:
        print_json("doctor", machine=_as_json(machine), readers=[_as_json(p) for p in patients])
    else:
        for patient in [machine, *patients]:
            if patient.facts or patient.troubles:
                _describe(patient)
    return int(any(p.troubles for p in [machine, *patients]))


def _look(machine: Patient, patients: list[Patient]) -> list[ReaderInfo]:
    """Examine the machine without opening a reader; returns the readers."""
    machine.facts.append(f"system: {sys.platform}, Python {sys.version.split()[0]}")
    for trouble, cure in whose_name.troubles(ccid):
        machine.trouble(trouble, cure)
    try:
        from ccid.transport.discovery import discover
        from ccid.transport.libusb import library_name
        from ccid.transport.missing_interface import lacking

        machine.facts.append(f"libusb: {library_name()}")
        found = discover()
        without = lacking()
    except UsbUnavailable as error:
        machine.trouble("libusb cannot be used", str(error))
        return []
    if LINUX:
        _look_at_linux(machine)
        _look_for_unswitched(machine, {info.id for info in found.readers})
    patients.extend(_without_interface(one) for one in without)
    for broken in found.broken:
        if any(one.holds(broken.path) for one in without):
            continue  # descriptors cut short are reported already
        patient = Patient(f"smart-card interface of {broken.id}", broken.path, broken.id)
        patient.trouble(
            f"its descriptors cannot be understood: {broken.error}",
            "the reader's firmware is wrong: report this with the output of `lsusb -v`",
        )
        patients.append(patient)
    return found.readers


def _without_interface(one: Lacking) -> Patient:
    """The findings about a device with the ids of a reader and no smart-card interface."""
    patient = Patient(one.name, one.path, one.id, facts=one.facts)
    if one.cure:
        patient.trouble(f"{one.name} is plugged in, and {one.why}", one.cure)
    else:
        patient.facts.append(one.why)
    return patient


def _look_at_linux(machine: Patient) -> None:
    from ccid.transport.access_cures import PAGE, deaf, without_usb
    from ccid.transport.access_facts import gather

    facts = gather()
    machine.facts.append(f"this process runs {facts}")
    if deaf(facts):
        machine.facts.append(
            f"{deaf(facts)}: readers that come and go are noticed once a second "
            f"({PAGE}#without-hot-plug)"
        )
    if not Path("/dev/bus/usb").is_dir():
        machine.trouble("there is no /dev/bus/usb", without_usb(facts))
    daemons = linux.running(DAEMONS)
    for daemon in daemons:
        machine.facts.append(f"running: {daemon}")
    runs = any(daemon.name == PCSCD for daemon in daemons)
    if PCSCD_SOCKET.exists() and not runs:
        machine.facts.append(f"{PCSCD_SOCKET} is there: systemd starts pcscd when it is needed")
    if (PCSCD_SOCKET.exists() or runs) and polkit_check.pcscd_refuses():
        machine.facts.append(f"{polkit_check.REFUSES} ({PAGE}#{polkit_check.SECTION})")


def _look_for_unswitched(machine: Patient, there: set[str]) -> None:
    """Report devices that become readers only after a mode switch."""
    for name, vendor_id, product_id in linux.identities():
        quirks = lookup(vendor_id, product_id)
        if quirks.needs_mode_switch and f"{vendor_id:04x}:{product_id:04x}" not in there:
            machine.trouble(
                f"{quirks.name} at usb:{name} is no reader yet: its mode has to be switched",
                "run the mode-switch program of its maker",
            )


def _examine(options: argparse.Namespace, info: ReaderInfo) -> Patient:
    """Examine one reader: verdict, owner, whether it can be opened, its cards."""
    patient = Patient(info.name, info.path, info.id)
    verdict = judge(info)
    patient.facts.append(f"verdict: {verdict.level.value}")
    for reason in verdict.reasons:
        if reason.fatal:
            patient.trouble(str(reason), "use another reader, or another version of this library")
    if LINUX and info.bus:
        _permissions(patient, info)
        _power(patient, info)
    if verdict.level is Level.UNSUPPORTED:
        return patient
    holder, cure = who_holds(info) if info.bus else ("", "")
    kernel_driver = LINUX and holder.startswith("the kernel driver")
    if kernel_driver:
        patient.facts.append(f"{holder} is bound to it; opening the reader detaches it")
    try:
        with opened(options, info) as reader:
            for slot in reader.slots:
                patient.cards.append(f"slot {slot.index}: {slot.status().name.lower()}")
    except (AccessDenied, ReaderBusy) as error:
        patient.trouble(str(error).split("; ")[0], error.cure)
        by_pcscd = isinstance(error, ReaderBusy) and PCSCD in error.holder
        if by_pcscd and polkit_check.pcscd_refuses():  # so the one cure is to stop it
            patient.trouble(polkit_check.REFUSES, polkit_check.CURE)
    except CcidError as error:
        patient.trouble(str(error), cure or "unplug the reader, wait a second, plug it in again")
    else:
        patient.facts.append("opens, and answers")
    return patient


def _permissions(patient: Patient, info: ReaderInfo) -> None:
    node = linux.node(info.bus, info.address)
    mode = linux.permissions(node)
    able = "may" if os.access(node, os.R_OK | os.W_OK) else "may not"
    patient.facts.append(f"{node}: {mode or 'not there'}; you {able} open it")
    holder, _ = linux_holder(info)
    if holder:
        patient.facts.append(f"held by {holder}")
    elif linux.running({PCSCD}):
        patient.facts.append("pcscd is running, and claims the readers that it knows")


def _power(patient: Patient, info: ReaderInfo) -> None:
    """Report a reader that Linux suspends, though the reader does not survive autosuspend."""
    device = linux.device_in(info.path)
    quirks = info.quirks()
    if quirks.autosuspend_breaks and linux.attribute(device, "power/control") == "auto":
        patient.trouble(
            "Linux suspends the reader while it is idle, and the reader does not survive that",
            f"as root: echo on > /sys/bus/usb/devices/{device}/power/control",
        )


def _describe(patient: Patient) -> None:
    where = f" ({patient.id} at {patient.path})" if patient.path else ""
    say(f"{patient.name}{where}")
    for line in [*patient.facts, *patient.cards]:
        say(f"  {line}")
    for trouble in patient.troubles:
        say("  ", Painted("TROUBLE", Colour.BAD), f": {trouble['trouble']}")
        first, *more = trouble["cure"].split("\n")
        say(f"    cure: {first}")
        for line in more:
            say(f"    {line}")


def _as_json(patient: Patient) -> dict[str, Any]:
    return {
        "name": patient.name,
        "path": patient.path,
        "id": patient.id,
        "facts": patient.facts,
        "cards": patient.cards,
        "troubles": patient.troubles,
    }
