"""Access to readers: where a process runs is found from files and the environment, and one cure is
given, which helps there."""

from __future__ import annotations

import os
import re
import sys
from pathlib import Path
from typing import Any

import pytest

from ccid.probe import doctor_command
from ccid.transport import access_facts, access_problems, linux, stale_list
from ccid.transport.access_cures import (
    PAGE,
    RULE_FILE,
    Facts,
    Node,
    Refusal,
    Where,
    advice,
    deaf,
    group_rule,
    seat_rule,
    without_usb,
)
from tests.unit.test_docs import anchors

ROOT = Path(__file__).parents[2]
IDS = (0x08E6, 0x3437)
USERS = f"run/systemd/users/{os.geteuid()}"
SEAT = {USERS: "NAME=me\nSEATS=seat0\nACTIVE_SEATS=seat0\n"}
SESSION = {"proc/self/cgroup": "0::/user.slice/user-1000.slice/session-c3.scope\n"}
OVERLAY = "600 500 0:50 / / rw,relatime - overlay overlay rw,lowerdir="
MACHINE = "600 500 8:1 / / rw - ext4 /dev/sda1 rw\n601 600 0:50 / /x rw - overlay overlay docker"


def made(folder: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    return folder


SITUATIONS: list[tuple[dict[str, str], dict[str, str], str]] = [
    ({}, {}, "without a seat"),
    (SEAT, {}, "at this machine (seat0)"),
    (SEAT, {"SSH_CONNECTION": "::1 2 ::1 22"}, "at this machine (seat0)"),
    ({USERS: "SEATS=seat0\nACTIVE_SEATS=\n"}, {}, "without a seat"),
    ({}, {"SSH_CONNECTION": "::1 2 ::1 22"}, "over SSH"),
    ({}, {"SSH_TTY": "/dev/pts/1"}, "over SSH"),
    ({}, {"SSH_TTY": ""}, "without a seat"),
    ({**SESSION, "run/systemd/sessions/c3": "REMOTE=1\n"}, {}, "over SSH"),
    ({**SESSION, "run/systemd/sessions/c3": "REMOTE=0\n"}, {}, "without a seat"),
    ({"proc/self/cgroup": "0::/system.slice/web@1.service\n"}, {}, "as a service (web@1.service)"),
    (
        {"proc/self/cgroup": "3:cpu:/x\n1:name=systemd:/system.slice/a.slice/web.service\n"},
        {},
        "as a service (web.service)",
    ),
    (
        {"proc/self/cgroup": "0::/user.slice/user@1.service/x.service"},
        {},
        "without a seat",
    ),
    ({".dockerenv": ""}, {}, "in a container (docker)"),
    ({"run/.containerenv": 'engine="podman-4.3.1"\n'}, {}, "in a container (podman)"),
    ({"run/.containerenv": ""}, {}, "in a container (podman)"),
    ({"run/systemd/container": "systemd-nspawn\n"}, {}, "in a container (systemd-nspawn)"),
    ({"run/host/container-manager": "lxc\n"}, {}, "in a container (lxc)"),
    ({}, {"container": "lxc"}, "in a container (lxc)"),
    ({}, {"KUBERNETES_SERVICE_HOST": "10.0.0.1"}, "in a container (Kubernetes)"),
    ({"proc/1/cgroup": "1:cpu:/docker/0123\n"}, {}, "in a container (docker)"),
    ({"proc/1/cgroup": "0::/kubepods.slice/x\n"}, {}, "in a container (Kubernetes)"),
    ({"proc/self/mountinfo": f"{OVERLAY}/var/lib/docker/x\n"}, {}, "in a container (docker)"),
    ({"proc/self/mountinfo": MACHINE}, {}, "without a seat"),
    ({".dockerenv": "", **SEAT}, {"SSH_TTY": "x"}, "in a container (docker)"),
    ({"proc/sys/kernel/osrelease": "5.15.90.1-microsoft-standard-WSL2\n"}, {}, "in WSL"),
    (
        {
            "proc/sys/kernel/osrelease": "6.6-microsoft-standard-WSL2",
            "run/systemd/container": "wsl",
        },
        {},
        "in WSL",
    ),
    ({"proc/sys/kernel/osrelease": "6.1.0-9-amd64\n"}, {}, "without a seat"),
    (
        {".flatpak-info": "[Application]\nname=org.example.App\n"},
        {"container": "flatpak"},
        "in the Flatpak sandbox (org.example.App)",
    ),
    (
        {"proc/self/attr/current": "snap.cards.app (enforce)\n"},
        {"SNAP": "/snap/cards/1"},
        "in the sandbox of a snap (cards)",
    ),
    ({"proc/self/attr/current": "snap.code.code (complain)\n"}, {"SNAP": "x"}, "without a seat"),
    (
        {"run/systemd/container": "a\x1b[31m"},
        {},
        "in a container (a\\x1b[31m)",
    ),
]


@pytest.mark.parametrize(("files", "environ", "said"), SITUATIONS)
def test_where_a_process_runs(
    tmp_path: Path, files: dict[str, str], environ: dict[str, str], said: str
) -> None:
    facts = access_facts.gather(made(tmp_path, files), environ)
    is_service = 0 < os.geteuid() < 1000 and said == "without a seat"
    assert is_service or str(facts) == said


@pytest.mark.parametrize(
    ("name", "is_there"), [("control", True), ("io.systemd.Udev", True), ("data", False)]
)
def test_udev_runs_here(tmp_path: Path, name: str, is_there: bool) -> None:
    files = made(tmp_path, {f"run/udev/{name}": ""})
    assert access_facts.gather(files, {}).has_udev is is_there


def test_facts_of_this_machine_are_gathered_without_an_error() -> None:
    facts = access_facts.gather(Path("/"))
    assert facts.uid == os.geteuid()
    assert facts.where in Where
    assert access_facts.gather(Path("/nothing"), {}).container == ""


def test_a_root_that_cannot_be_searched_counts_as_empty(tmp_path: Path) -> None:
    """A name that is too long stands for a folder without rights: root, too, gets an error."""
    root = tmp_path / ("x" * 300)
    facts = access_facts.gather(root, {"container": "\x1b" + "y" * 100_000})
    assert not facts.has_udev
    assert facts.flatpak == ""
    assert facts.container.startswith("\\x1by")
    assert len(facts.container) < 1000
    assert linux.addresses(root) == set()
    assert linux.identities(root) == []
    assert linux.device_at(1, 2, root) is None


def test_the_node_is_tried(tmp_path: Path) -> None:
    path = tmp_path / "002"
    assert access_facts.gather_node(path, tmp_path) == Node(str(path), Refusal.MISSING)
    path.touch()
    path.chmod(0o660)
    number = f"{os.major(path.stat().st_rdev)}:{os.minor(path.stat().st_rdev)}"
    made(tmp_path, {f"run/udev/data/c{number}": "I:1\nG:uaccess\n"})
    node = access_facts.gather_node(path, tmp_path)
    assert (node.refusal, node.gid, node.is_for_group) == (None, path.stat().st_gid, True)
    assert node.has_seat_rule


@pytest.mark.parametrize(
    ("number", "refusal"), [(13, Refusal.MODE), (1, Refusal.POLICY), (19, None), (30, None)]
)
def test_how_linux_refuses(
    monkeypatch: pytest.MonkeyPatch, number: int, refusal: Refusal | None
) -> None:
    def refuse(*_: object) -> int:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "open", refuse)
    assert access_facts.refused(Path("002")) is refusal


GROUPED = Node("n", gid=46, group="plugdev", is_for_group=True)
MISSING, POLICY = Node("n", Refusal.MISSING), Node("n", Refusal.POLICY)
SEAT_RULE, GROUP_RULE = seat_rule(IDS), group_rule(IDS)
POD = Facts(container="Kubernetes")
CURES: list[tuple[Facts, Node, list[str], list[str]]] = [
    (Facts(seats=("seat0",)), Node("n"), [SEAT_RULE, "73-seat-late.rules"], ["GROUP"]),
    (Facts(seats=("seat0",)), Node("n", has_seat_rule=True), ["plug the reader in again"], ["TAG"]),
    (Facts(has_ssh=True), Node("n"), [GROUP_RULE, "usermod -aG plugdev"], ["TAG"]),
    (Facts(), Node("n"), [GROUP_RULE, "usermod -aG plugdev"], ["TAG"]),
    (Facts(user="eve"), GROUPED, ["usermod -aG plugdev eve"], ["idVendor"]),
    (Facts(memberships=frozenset({"plugdev"})), GROUPED, ["newgrp plugdev"], ["idVendor"]),
    (
        Facts(uid=108, user="www", group="www-data"),
        Node("n"),
        [group_rule(IDS, "www-data"), "user www"],
        ["TAG", "usermod"],
    ),
    (
        Facts(unit="web.service"),
        Node("n"),
        [GROUP_RULE, "SupplementaryGroups=plugdev", "edit web.service"],
        ["TAG"],
    ),
    (
        Facts(unit="web.service", memberships=frozenset({"plugdev"})),
        GROUPED,
        ["systemctl restart web.service", "since after"],
        ["idVendor", "Supplementary"],
    ),
    (
        Facts(unit="web.service"),
        GROUPED,
        ["SupplementaryGroups=plugdev", "not in the group plugdev"],
        ["idVendor"],
    ),
    (
        Facts(uid=108, user="www", group="www-data"),
        GROUPED,
        ["usermod -aG plugdev www"],
        ["idVendor"],
    ),
    (Facts(unit="web.service"), POLICY, ["DeviceAllow=char-usb_device rw"], ["idVendor"]),
    (Facts(unit="web.service"), MISSING, ["PrivateDevices=no"], ["idVendor"]),
    (
        Facts(container="docker"),
        MISSING,
        ["start the container with -v /dev/bus/usb", "'c 189:* rmw'"],
        ["idVendor"],
    ),
    (Facts(container="docker"), POLICY, ["-v /dev/bus/usb", "'c 189:* rmw'"], ["idVendor"]),
    (Facts(container="docker"), Node("n"), [GROUP_RULE, "--group-add $(getent"], ["TAG"]),
    (
        Facts(container="podman", has_own_users=True),
        Node("n"),
        [GROUP_RULE, "keep-groups"],
        ["TAG"],
    ),
    (Facts(container="lxc"), POLICY, ["lxc config device add"], ["docker", "idVendor"]),
    (POD, POLICY, ["hostPath"], ["docker", "idVendor"]),
    (Facts(is_wsl=True, has_udev=False), Node("n"), ["systemd=true", "chmod 0666 n"], ["TAG"]),
    (Facts(is_wsl=True), Node("n"), [GROUP_RULE], ["TAG", "systemd=true"]),
    (Facts(flatpak="org.x"), MISSING, ["flatpak override --user --device=all org.x"], ["idVendor"]),
    (Facts(flatpak="org.x"), Node("n"), [SEAT_RULE, "on the host"], ["override"]),
    (Facts(snap="cards"), Node("n"), ["snap connect cards:raw-usb"], ["idVendor"]),
]


@pytest.mark.parametrize(("facts", "node", "there", "absent"), CURES)
def test_one_cure_that_helps_there(
    facts: Facts, node: Node, there: list[str], absent: list[str]
) -> None:
    found = advice(facts, node, IDS)
    text = f"{found.cause}\n{found.cure}"
    assert [word for word in there if word not in text] == []
    assert [word for word in absent if word in found.cure] == []
    assert "\n" not in found.cause
    assert len(found.cure.splitlines()) <= 8


def test_each_situation_has_its_section() -> None:
    known = set(anchors(ROOT / PAGE))
    for where in Where:
        assert where.section in known
    for facts, node, *_ in CURES:
        (anchor,) = re.findall(rf"{PAGE}#([\w-]+)", advice(facts, node, IDS).cure)
        assert anchor == facts.where.section
    assert {facts.where for facts, *_ in CURES} == set(Where)
    assert "without-hot-plug" in known


def test_the_file_of_the_rule_comes_before_that_of_logind() -> None:
    assert RULE_FILE.rpartition("/")[2] < "73-seat-late.rules"


@pytest.mark.parametrize(
    ("facts", "words"),
    [
        (Facts(container="docker"), "-v /dev/bus/usb"),
        (Facts(is_wsl=True), "usbipd attach"),
        (Facts(is_wsl=True, is_wsl1=True), "WSL 1 has no USB"),
        (Facts(flatpak="org.x"), "--device=all org.x"),
        (Facts(unit="web.service"), "PrivateDevices=no"),
        (Facts(), "virtual machine"),
    ],
)
def test_what_to_do_where_there_is_no_usb(facts: Facts, words: str) -> None:
    assert words in without_usb(facts)


@pytest.mark.parametrize(
    ("facts", "words"),
    [
        (Facts(), ""),
        (Facts(has_ssh=True), ""),
        (Facts(is_wsl=True), ""),
        (Facts(is_wsl=True, has_udev=False), "no udev runs in WSL"),
        (Facts(has_udev=False), "no udev runs here"),
        (Facts(container="docker"), "udev may not be heard in a container"),
    ],
)
def test_who_hears_nothing_of_devices(facts: Facts, words: str) -> None:
    assert deaf(facts) == words


# What the system refuses, and libusb reports as something else ------------------------------------


@pytest.fixture
def device(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """A reader at usb:1-1, which is device 2 on bus 1, in a file system of its own."""
    from dataclasses import replace

    from ccid.virtual.virtual_reader import VirtualReader

    made(tmp_path, {"sys/bus/usb/devices/1-1/devnum": "2\n"})
    monkeypatch.setattr(linux, "node", lambda *_: tmp_path / "002")
    monkeypatch.setattr(
        linux, "attribute", lambda *a, real=linux.attribute: real(*a, root=tmp_path)
    )
    return replace(VirtualReader().info, path="usb:1-1:1.0", bus=1, address=2)


def test_a_device_without_its_node_is_not_unplugged(
    device: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "platform", "linux")
    assert access_problems.is_denied(device)
    assert "002, which is not there: " in str(access_problems.access_denied(device))
    (tmp_path / "sys/bus/usb/devices/1-1/devnum").write_text("3\n")
    assert not access_problems.is_denied(device), "another device is there now"


def test_a_policy_on_devices_is_no_input_output_error(
    device: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "platform", "linux")
    for refusal, is_denied in ((Refusal.POLICY, True), (Refusal.MODE, False), (None, False)):
        monkeypatch.setattr(access_facts, "refused", lambda _, said=refusal: said)
        assert access_problems.is_denied(device) is is_denied


# A list of devices that is not kept ---------------------------------------------------------------


class Libusb:
    """pyusb's backend on a list of devices, each its address on bus 1."""

    lib = None
    now: tuple[int, ...] = ()
    scans: list[Libusb]

    def __init__(self, lib: object) -> None:
        self.listed, self.is_over = Libusb.now, False
        Libusb.scans.append(self)

    def enumerate_devices(self) -> Listing:
        return Listing(self.listed)

    def get_device_descriptor(self, device: Device) -> Any:
        return type("Raw", (), {"bus": 1, "address": device.address})

    def finalize(self) -> None:
        self.is_over = True


class Device:
    def __init__(self, address: int) -> None:
        self.address, self.is_over = address, False

    def finalize(self) -> None:
        self.is_over = True


class Listing(list[Device]):
    def __init__(self, addresses: tuple[int, ...]) -> None:
        super().__init__(map(Device, addresses))

    def finalize(self) -> None:
        assert all(device.is_over for device in self)


@pytest.fixture
def libusb(monkeypatch: pytest.MonkeyPatch) -> Libusb:
    Libusb.now, Libusb.scans = (1, 2), []
    monkeypatch.setattr(stale_list, "why_deaf", lambda: "no udev runs here")
    monkeypatch.setattr(linux, "LINUX", True)
    monkeypatch.setattr(stale_list._Read, "has_begun", True)
    monkeypatch.setattr(linux, "addresses", lambda: {(1, one) for one in Libusb.now})
    return Libusb(None)


@pytest.mark.parametrize("why", ["deaf", "fork"])
def test_a_list_that_is_not_kept_is_read_anew(
    libusb: Libusb, monkeypatch: pytest.MonkeyPatch, why: str
) -> None:
    if why == "fork":  # libusb's thread that listens is the parent's
        monkeypatch.setattr(stale_list, "why_deaf", str)
        monkeypatch.setattr(stale_list, "is_fork", lambda: True)
    with stale_list.listed(libusb) as (devices, by_node):
        assert (len(devices), by_node, len(Libusb.scans)) == (2, False, 1)
    Libusb.now = (1, 3, 4)
    with stale_list.listed(libusb) as (devices, by_node):
        assert ([one.address for one in devices], by_node) == ([1, 3, 4], True)
        assert not Libusb.scans[1].is_over
    assert Libusb.scans[1].is_over
    assert all(one.is_over for one in devices)


@pytest.mark.parametrize("why", ["heard", "not Linux", "first", "no /sys"])
def test_libusbs_own_list_is_taken_otherwise(
    libusb: Libusb, monkeypatch: pytest.MonkeyPatch, why: str
) -> None:
    Libusb.now = (1, 3) if why != "no /sys" else ()
    if why == "heard":
        monkeypatch.setattr(stale_list, "why_deaf", str)
    if why == "not Linux":
        monkeypatch.setattr(linux, "LINUX", False)
    if why == "first":
        monkeypatch.setattr(stale_list._Read, "has_begun", False)
    with stale_list.listed(libusb) as (devices, by_node):
        assert ([one.address for one in devices], by_node) == ([1, 2], False)
    assert len(Libusb.scans) == 1


def test_the_numbers_of_devices_in_sys(tmp_path: Path) -> None:
    folder = "sys/bus/usb/devices"
    made(
        tmp_path,
        {
            f"{folder}/1-1/devnum": "2\n",
            f"{folder}/1-1/busnum": "1\n",
            f"{folder}/usb1/devnum": "1\n",
            f"{folder}/usb1/busnum": "1\n",
            f"{folder}/1-2/devnum": "x\n",
            f"{folder}/1-2/busnum": "1\n",
            f"{folder}/1-3/devnum": "9\n",
        },
    )
    assert linux.addresses(tmp_path) == {(1, 1), (1, 2)}
    assert linux.addresses(tmp_path / "none") == set()


def test_the_page_shows_what_the_doctor_says(capsys: pytest.CaptureFixture[str]) -> None:
    """docs/access.md: a reader on USB, and a user over SSH."""
    (shown,) = re.findall(r"```console\n(.*?)```", (ROOT / PAGE).read_text("utf-8"), re.S)
    found = advice(Facts(has_ssh=True), Node("/dev/bus/usb/001/002"), (0x08E6, 0x4433))
    patient = doctor_command.Patient("", "", "")
    patient.trouble(found.cause, found.cure)
    doctor_command._describe(patient)
    said = capsys.readouterr().out.splitlines()
    assert f"(crw-rw-r-- root root): {found.cause}\n" in shown
    assert "\n".join(said[2:]) in shown
    assert "this process runs over SSH\n" in shown


def test_the_rules_of_the_page_are_those_of_the_error() -> None:
    page = (ROOT / PAGE).read_text("utf-8")
    ids = (0x08E6, 0x4433)
    shown = re.findall(r"^SUBSYSTEM.*", page, re.M)
    assert shown == [seat_rule(ids), group_rule(ids, "plugdev"), group_rule(ids, "www-data")]
