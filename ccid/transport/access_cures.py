"""Which cure gives a user access to a reader on Linux: a decision from facts.

Where the process runs decides what helps: a rule for logind helps who sits at the machine and
nobody else, and in a container no rule helps. :mod:`ccid.transport.access_facts` gathers the facts.
"""

from __future__ import annotations

import enum

from ccid.ground.records import record

RULE_FILE = "/etc/udev/rules.d/70-ccid.rules"
GROUP = "plugdev"
"""The group of a rule for members: Debian's group for users of pluggable devices."""
RELOAD = "then: sudo udevadm control --reload && sudo udevadm trigger --subsystem-match=usb"
DEVICES = "-v /dev/bus/usb:/dev/bus/usb --device-cgroup-rule='c 189:* rmw'"
"""What gives a container the readers that are plugged in, and those that come later. 189 is the
number of USB devices in Linux."""
PAGE = "docs/access.md"
LAST_SERVICE_UID = 999
"""Users of services have numbers up to this one: SYS_UID_MAX of login.defs(5)."""


class Where(enum.Enum):
    """Where a process runs, and as whom. The value says so in words."""

    FLATPAK = "in the Flatpak sandbox"
    SNAP = "in the sandbox of a snap"
    CONTAINER = "in a container"
    WSL = "in WSL"
    SEAT = "at this machine"
    SERVICE = "as a service"
    SSH = "over SSH"
    NO_SEAT = "without a seat"

    @property
    def section(self) -> str:
        """The heading of this situation in :data:`PAGE`, as an anchor."""
        return self.value.replace(" ", "-").lower()


class Refusal(enum.Enum):
    """How Linux refuses to open a device node."""

    MODE = "mode"
    """EACCES: the file's mode, or a security module."""
    POLICY = "policy"
    """EPERM: a policy on devices (cgroup) of a container or a unit."""
    MISSING = "missing"
    """ENOENT: the device is plugged in, and its node is not there."""


@record
class Node:
    """A device node.

    Attributes:
        path: Its path.
        refusal: How Linux refuses to open it; None if it does not, or for another reason.
        gid, group: Its group.
        is_for_group: The group may read and write it.
        has_seat_rule: A rule of udev is in force that gives it to who sits at the machine.
    """

    path: str
    refusal: Refusal | None = Refusal.MODE
    gid: int = 0
    group: str = "root"
    is_for_group: bool = False
    has_seat_rule: bool = False


@record
class Facts:
    """What is known of this process and of its machine.

    Attributes:
        uid, user, group: The effective user, his name and the name of his group; empty if unknown.
        groups: The numbers of all groups that this process is in.
        memberships: The groups that the user is in by the list of groups.
        has_ssh: The environment says that somebody came by SSH.
        is_remote: logind says that this process is of a session from elsewhere.
        seats: The seats at which the user is active now, by logind.
        has_udev: udev runs here.
        unit: The system service that this process is part of, or empty.
        container: What made the container, or empty.
        has_own_users: The users of this process are not those of the machine (user namespace).
        is_wsl: The kernel is that of the Windows Subsystem for Linux.
        is_wsl1: It is no Linux at all: the first WSL, which has no USB.
        flatpak, snap: The name of the app in such a sandbox, or empty.
    """

    uid: int = 1000
    user: str = ""
    group: str = ""
    groups: frozenset[int] = frozenset()
    memberships: frozenset[str] = frozenset()
    has_ssh: bool = False
    is_remote: bool = False
    seats: tuple[str, ...] = ()
    has_udev: bool = True
    unit: str = ""
    container: str = ""
    has_own_users: bool = False
    is_wsl: bool = False
    is_wsl1: bool = False
    flatpak: str = ""
    snap: str = ""

    @property
    def where(self) -> Where:
        """Where this process runs: the first that is true. A user who is active at a seat has what
        the seat gives in all his processes, also in those that he began over SSH."""
        for place, is_true in (
            (Where.FLATPAK, bool(self.flatpak)),
            (Where.SNAP, bool(self.snap)),
            (Where.CONTAINER, bool(self.container)),
            (Where.WSL, self.is_wsl),
            (Where.SEAT, bool(self.seats)),
            (Where.SSH, self.has_ssh or self.is_remote),
            (Where.SERVICE, bool(self.unit) or 0 < self.uid <= LAST_SERVICE_UID),
        ):
            if is_true:
                return place
        return Where.NO_SEAT

    def __str__(self) -> str:
        """Where this process runs, with the name of what it runs in."""
        name = self.flatpak or self.snap or self.container or self.unit
        if self.where is Where.SERVICE and not self.unit:
            name = self.user
        if self.where is Where.SEAT:
            name = ", ".join(self.seats)
        is_named = self.where not in (Where.WSL, Where.SSH, Where.NO_SEAT) and name
        return f"{self.where.value} ({name})" if is_named else self.where.value


@record
class Advice:
    """One cause and one cure.

    Attributes:
        cause: Why the reader cannot be opened.
        cure: What to do.
    """

    cause: str
    cure: str


def seat_rule(ids: tuple[int, int]) -> str:
    """The udev rule that gives a reader to the user who sits at the machine (logind,
    73-seat-late.rules)."""
    return f'{_matches(ids)}, TAG+="uaccess"'


def group_rule(ids: tuple[int, int], group: str = GROUP) -> str:
    """The udev rule that gives a reader to the members of a group, wherever they are."""
    return f'{_matches(ids)}, MODE="0660", GROUP="{group}"'


def _matches(ids: tuple[int, int]) -> str:
    return f'SUBSYSTEM=="usb", ATTR{{idVendor}}=="{ids[0]:04x}", ATTR{{idProduct}}=="{ids[1]:04x}"'


def advice(facts: Facts, node: Node, ids: tuple[int, int]) -> Advice:
    """The cause and the cure for a reader that may not be opened.

    Args:
        facts: What is known of this process.
        node: The node of the reader.
        ids: idVendor and idProduct.
    """
    found = _DECISIONS[facts.where](facts, node, ids)
    return Advice(found.cause, f"{found.cure}\n({PAGE}#{facts.where.section} says more)")


def _flatpak(facts: Facts, node: Node, ids: tuple[int, int]) -> Advice:
    if node.refusal is Refusal.MISSING:
        cure = f"flatpak override --user --device=all {facts.flatpak}, and start it again"
        return Advice("Flatpak keeps USB devices from it", cure)
    return Advice("no rule outside the sandbox gives it to you", _seat_cure("on the host, ", ids))


def _snap(facts: Facts, node: Node, ids: tuple[int, int]) -> Advice:
    cure = (
        f"sudo snap connect {facts.snap}:raw-usb (the snap has to name that plug), and a udev rule "
        f"as outside the sandbox"
    )
    return Advice("the snap is not connected to USB devices", cure)


def _container(facts: Facts, node: Node, ids: tuple[int, int]) -> Advice:
    if node.refusal is not Refusal.MODE:
        why = "has no such file" if node.refusal is Refusal.MISSING else "may use no USB device"
        if facts.container == "lxc":
            cure = "add a device of type usb to it (lxc config device add NAME reader usb)"
        elif "kube" in facts.container.lower():
            cure = "give the pod /dev/bus/usb as a hostPath, and run it privileged"
        else:
            cure = f"start the container with {DEVICES}"
        return Advice(f"the container ({facts.container}) {why}", cure)
    if facts.has_own_users:
        return Advice(
            "the users of the container are users of the host, and what the host lets them counts",
            f"on the host, {_group_cure(ids)}\nstart the container with --group-add keep-groups",
        )
    return Advice(
        "a user of the container is no member of the group on the host",
        f"on the host, {_rule_cure(ids)}\n"
        f"start the container with --group-add $(getent group {GROUP} | cut -d: -f3)",
    )


def _wsl(facts: Facts, node: Node, ids: tuple[int, int]) -> Advice:
    if not facts.has_udev:
        return Advice(
            "no udev runs in this WSL, so no rule gives it to you",
            f"for now: sudo chmod 0666 {node.path} (each time that it is attached). For good: put "
            f"systemd=true under [boot] in /etc/wsl.conf, run wsl.exe --shutdown, attach the "
            f"reader again (usbipd attach --wsl), and run this again",
        )
    return _member(facts, node, ids, "WSL has no seat, so no rule for logind helps")


def _seat(facts: Facts, node: Node, ids: tuple[int, int]) -> Advice:
    old = _old_session(facts, node)
    if old is not None:
        return old
    if node.has_seat_rule:
        cure = "plug the reader in again, or: sudo udevadm trigger --subsystem-match=usb"
        return Advice("the rule is there, and came after the reader", cure)
    return Advice("no rule gives it to you", _seat_cure("", ids))


def _ssh(facts: Facts, node: Node, ids: tuple[int, int]) -> Advice:
    why = "who comes over SSH gets nothing by a rule for who sits at the machine (uaccess)"
    return _member(facts, node, ids, why)


def _no_seat(facts: Facts, node: Node, ids: tuple[int, int]) -> Advice:
    why = "you sit at no seat of logind, so a rule for who does (uaccess) gives you nothing"
    return _member(facts, node, ids, why)


def _service(facts: Facts, node: Node, ids: tuple[int, int]) -> Advice:
    if facts.unit and node.refusal is not Refusal.MODE:
        missing = node.refusal is Refusal.MISSING
        line = "PrivateDevices=no" if missing else "DeviceAllow=char-usb_device rw"
        return Advice(
            f"the unit {facts.unit} keeps USB devices from it",
            f"sudo systemctl edit {facts.unit}, and write:\n  [Service]\n  {line}\n"
            f"then: sudo systemctl restart {facts.unit}",
        )
    if node.is_for_group and node.group in facts.memberships and node.gid not in facts.groups:
        return Advice(
            f"the user is in the group {node.group} since after this process began",
            f"sudo systemctl restart {facts.unit}" if facts.unit else "start it again",
        )
    has_rule = node.is_for_group and node.gid != 0
    own = facts.group if facts.uid <= LAST_SERVICE_UID else ""
    group = node.group if has_rule else own or GROUP
    lines = [] if has_rule else [_rule_cure(ids, group)]
    if facts.unit and group != own:
        lines.append(
            f"sudo systemctl edit {facts.unit}, and write:\n  [Service]\n"
            f"  SupplementaryGroups={group}\nthen: sudo systemctl restart {facts.unit}"
        )
    elif has_rule:
        lines.append(f"sudo usermod -aG {group} {facts.user or '$USER'}, and start it again")
    user = f"the user {facts.user}" if facts.user else f"user {facts.uid}"
    why = "who gets nothing by a rule for who sits at the machine (uaccess)"
    if has_rule:
        why = f"who is not in the group {group}"
    return Advice(f"this process runs as {user} of a service, {why}", "\n".join(lines))


_DECISIONS = {
    Where.FLATPAK: _flatpak,
    Where.SNAP: _snap,
    Where.CONTAINER: _container,
    Where.WSL: _wsl,
    Where.SEAT: _seat,
    Where.SERVICE: _service,
    Where.SSH: _ssh,
    Where.NO_SEAT: _no_seat,
}


def _old_session(facts: Facts, node: Node) -> Advice | None:
    """The advice for a member of the node's group whose session is older than that."""
    is_member = node.group in facts.memberships
    if not node.is_for_group or not is_member or node.gid in facts.groups:
        return None
    return Advice(
        f"you are in the group {node.group} since after you logged in",
        f"log out and in again; for one shell: newgrp {node.group}",
    )


def _member(facts: Facts, node: Node, ids: tuple[int, int], why: str) -> Advice:
    """The advice for a user whom only a group helps."""
    old = _old_session(facts, node)
    if old is not None:
        return old
    if node.is_for_group and node.gid:
        name = facts.user or "$USER"
        return Advice(
            f"the rule is there, and you are not in the group {node.group}",
            f"sudo usermod -aG {node.group} {name}, and log in again",
        )
    return Advice(why, _group_cure(ids))


def _seat_cure(place: str, ids: tuple[int, int]) -> str:
    return (
        f"{place}put this line into {RULE_FILE} (its name has to sort before 73-seat-late.rules):\n"
        f"  {seat_rule(ids)}\n{RELOAD}"
    )


def _rule_cure(ids: tuple[int, int], group: str = GROUP) -> str:
    return f"put this line into {RULE_FILE}:\n  {group_rule(ids, group)}\n{RELOAD}"


def _group_cure(ids: tuple[int, int]) -> str:
    return (
        f"{_rule_cure(ids)}\n"
        f"join the group: sudo groupadd -f {GROUP}; sudo usermod -aG {GROUP} $USER; log in again"
    )


# Without a device to open -----------------------------------------------------------------------


def without_usb(facts: Facts) -> str:
    """What to do where there is no /dev/bus/usb."""
    match facts.where:
        case Where.FLATPAK:
            return _flatpak(facts, Node("", Refusal.MISSING), (0, 0)).cure
        case Where.CONTAINER:
            return _container(facts, Node("", Refusal.MISSING), (0, 0)).cure
        case Where.WSL if facts.is_wsl1:
            return "WSL 1 has no USB: wsl.exe --set-version NAME 2, then usbipd attach --wsl"
        case Where.WSL:
            return (
                "attach a reader from Windows: usbipd bind, then usbipd attach --wsl (usbipd-win)"
            )
        case Where.SERVICE if facts.unit:
            return _service(facts, Node("", Refusal.MISSING), (0, 0)).cure
    return "give a virtual machine a USB controller; else see whether lsusb shows anything"


def deaf(facts: Facts) -> str:
    """Why nobody may tell this process that a device is plugged in; empty if somebody does.

    udev sends its messages to one network namespace, that of the machine. libusb hears no other.
    """
    if not facts.has_udev:
        return f"no udev runs {facts.where.value if facts.where in _WITHOUT_UDEV else 'here'}"
    if facts.container or facts.flatpak:
        return f"udev may not be heard {facts.where.value}"
    return ""


_WITHOUT_UDEV = frozenset({Where.FLATPAK, Where.CONTAINER, Where.WSL})
