"""``ccid-install-driver``: the files that it writes, and its messages where the driver cannot
work."""

from __future__ import annotations

import grp
import os
import plistlib
import pwd
import sys
from collections.abc import Collection
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

import ccid
from ccid.known.quirks import lookup
from ccid.pcsc.plug import bundle, install, prebuilt
from ccid.pcsc.plug import pcscd_account as pcscd_account_module
from ccid.pcsc.plug.bundle import NAME, Entry
from ccid.pcsc.plug.pcscd_account import obstacle, pcscd_account
from ccid.pcsc.plug.plist_options import Options, read_options

PYTHON = "/opt/ccid/bin/python"


def run(*words: str | Path) -> int:
    return install.main([str(word) for word in words])


def plist_in(folder: Path) -> dict[str, Any]:
    content: dict[str, Any] = plistlib.loads((folder / NAME / "Contents/Info.plist").read_bytes())
    return content


COMPILER = """
import pathlib, sys
(source,) = (word for word in sys.argv[1:] if word.endswith(".c"))
into = pathlib.Path(sys.argv[sys.argv.index("-o") + 1])
into.write_text(f"compiled from {pathlib.Path(source).name}")
"""


@pytest.fixture(autouse=True)
def compiler(monkeypatch: pytest.MonkeyPatch) -> None:
    """A program that every machine has, in place of a C compiler. The tests of the package and of
    the plug use a real compiler."""
    command = [sys.executable, "-I", "-S", "-c", COMPILER]
    monkeypatch.setattr(bundle, "compilers", lambda: [command])


@pytest.fixture
def nothing_wrong(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(install, "troubles", lambda *_: [])
    # a pcscd of this machine may have a user who cannot reach the interpreter of the tests
    monkeypatch.setattr(pcscd_account_module, "pcscd_account", lambda *_: None)


def test_the_bundle(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    named = ["08e6:3437:PC Twin", "08E6:4433", "1111:222A"]
    assert run("--dropdir", tmp_path, *(f"--reader={text}" for text in named)) == 0
    content = plist_in(tmp_path)
    assert content["ifdVendorID"] == ["0x08E6", "0x08E6", "0x1111"]
    assert content["ifdProductID"] == ["0x3437", "0x4433", "0x222A"]
    known = "Gemalto Gemplus USB SmartCard Reader 433-Swap"
    assert content["ifdFriendlyName"] == ["PC Twin", known, "CCID reader 1111:222a"]
    code = tmp_path / NAME / "Contents/Linux"
    assert content["CFBundleExecutable"] == "libccid-python.so"
    assert (code / "libccid-python.so").read_text() == "compiled from plug.c"
    assert (code / "interpreter").read_text() == f"{sys.executable}\n"
    assert (code / "interpreter").stat().st_mode & 0o777 == 0o644
    assert "3 readers" in capsys.readouterr().out
    assert [p.name for p in tmp_path.iterdir()] == [NAME], "nothing else is left there"


def test_all_readers_of_the_table(tmp_path: Path) -> None:
    assert run("--dropdir", tmp_path) == 0
    content = plist_in(tmp_path)
    lists = [content[key] for key in ("ifdVendorID", "ifdProductID", "ifdFriendlyName")]
    assert len({len(each) for each in lists}) == 1
    assert len(lists[0]) > 500
    pairs = list(zip(lists[0], lists[1], strict=True))
    assert len(set(pairs)) == len(pairs)
    assert ("0x08E6", "0x4433") in pairs


def test_each_value_has_a_line_of_its_own() -> None:
    """The parser of the daemon needs that, and knows only one entity."""
    entries = [Entry(1, 2, "A & B <c> 'd'")]
    text = bundle.info_plist(entries, "linux").decode()
    lines = [line.strip() for line in text.splitlines()]
    assert "<string>A &amp; B &lt;c&gt; 'd'</string>" in lines
    for line in lines:
        assert line.count("<string>") == line.count("</string>") <= 1
        assert "<string></string>" not in line


def test_readers_that_are_plugged_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from ccid.device import find

    info = ccid.VirtualReader(vendor_id=0x1234, product_id=0x5678, name="There").info
    info = replace(info, model="ccid There")  # as on USB: with the manufacturer
    monkeypatch.setattr(find, "list_readers", lambda: [info, info])
    assert run("--dropdir", tmp_path, "--attached") == 0
    assert plist_in(tmp_path)["ifdFriendlyName"] == ["ccid There"]
    monkeypatch.setattr(find, "list_readers", list)
    with pytest.raises(SystemExit) as end:
        run("--dropdir", tmp_path, "--attached")
    assert end.value.code == 2


def test_equal_readers_share_a_name_without_serial_number(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Our own names tell equal readers apart; the bundle has one name for all of a model."""
    from ccid.device import find

    twin = ccid.VirtualReader(vendor_id=0x08E6, product_id=0x3437).info
    model = lookup(0x08E6, 0x3437).name or ""  # as on USB: of the table
    twins = [
        replace(twin, name=f"{model} ({serial})", serial=serial, model=model)
        for serial in ("12", "34")
    ]
    monkeypatch.setattr(find, "list_readers", lambda: twins)
    assert run("--dropdir", tmp_path, "--attached") == 0
    assert plist_in(tmp_path)["ifdFriendlyName"] == [lookup(0x08E6, 0x3437).name]


def test_what_makes_pcscd_take_the_driver(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """pcscd reads its bundles only when it starts."""
    for words in (["--reader", "1111:1111"], ["--uninstall"]):
        assert run("--dropdir", tmp_path, *words) == 0
        said = capsys.readouterr().out
        assert "systemctl restart pcscd.service" in said
        assert "plug" not in said


def test_writing_again_and_removing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for reader in ("1111:1111", "2222:2222"):
        assert run("--dropdir", tmp_path, "--reader", reader) == 0
    assert plist_in(tmp_path)["ifdVendorID"] == ["0x2222"]
    assert run("--dropdir", tmp_path, "--uninstall") == 0
    assert list(tmp_path.iterdir()) == []
    assert run("--dropdir", tmp_path, "--uninstall") == 0
    assert "there is no" in capsys.readouterr().out


def test_for_another_system(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """ifdreader of CryptoTokenKit expects the code in Contents/MacOS."""
    assert run("--dropdir", tmp_path, "--platform", "macos", "--reader", "08e6:3437") == 0
    content = plist_in(tmp_path)
    assert content["CFBundleExecutable"] == "libccid-python.dylib"
    assert content["CFBundlePackageType"] == "BNDL"
    code = tmp_path / NAME / "Contents/MacOS"
    assert sorted(p.name for p in code.iterdir()) == ["interpreter", "plug.c"]
    assert "to be compiled on macos" in capsys.readouterr().out


@pytest.mark.parametrize("text", ["08e6", "08e6:343", "08e6:3437:", "xxxx:3437"])
def test_what_is_no_reader(text: str, tmp_path: Path) -> None:
    with pytest.raises(SystemExit) as end:
        run("--dropdir", tmp_path, "--reader", text)
    assert end.value.code == 2


def test_udev_rules(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("--udev", "--reader", "08E6:3437") == 0
    (rule,) = capsys.readouterr().out.splitlines()
    assert 'ATTR{idVendor}=="08e6", ATTR{idProduct}=="3437"' in rule
    assert rule.endswith('GROUP="pcscd", MODE="0660"')


# Where the driver cannot work -----------------------------------------------------------------


@pytest.mark.parametrize("python", ["/root/venv/bin/python", "/home/me/.venv/bin/python"])
def test_an_interpreter_that_the_sandbox_hides(python: str) -> None:
    said = install.troubles(python, "linux")
    assert any(python in text and "python3 -m venv" in text for text in said)


def test_an_interpreter_that_others_may_change(tmp_path: Path) -> None:
    (tmp_path / "bin").mkdir(mode=0o755)
    python = tmp_path / "bin/python"
    python.touch(mode=0o755)
    python.chmod(0o775)
    assert install.others_may_change(python) == python
    assert any("chmod go-w" in text for text in install.troubles(str(python), "linux"))
    assert install.others_may_change(Path("/usr/bin/env")) is None


def test_no_pcscd(tmp_path: Path) -> None:
    assert any("pcscd is not found" in t for t in install.troubles("/x", "linux", str(tmp_path)))
    (tmp_path / "usr/sbin").mkdir(parents=True)
    (tmp_path / "usr/sbin/pcscd").touch()
    assert not any("not found" in t for t in install.troubles("/x", "linux", str(tmp_path)))


def test_the_systems_folder_wants_it_to_work(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Into any other folder the driver is installed with a warning."""
    monkeypatch.setattr(install, "SYSTEM_DROPDIRS", {"linux": (str(tmp_path),)})
    monkeypatch.setattr(install, "troubles", lambda *_: ["it is hidden"])
    for words in ((), ("--dropdir", tmp_path)):
        assert run("--reader", "1111:1111", *words) == 1
        assert "trouble: it is hidden" in capsys.readouterr().err
        assert list(tmp_path.iterdir()) == []
    assert run("--reader", "1111:1111", "--dropdir", tmp_path / "other") == 0
    assert "warning: it is hidden" in capsys.readouterr().err
    assert run("--reader", "1111:1111", "--force") == 0
    assert (tmp_path / NAME).is_dir()


def test_no_compiler(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(bundle, "compilers", list)
    assert run("--dropdir", tmp_path, "--reader", "1111:1111") == 1
    assert "pip install 'pyccid[driver]'" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("content", "variable", "is_used"),
    [
        ("loads", "", True),
        ("loads", "CFLAGS", False),  # who gives options to a compiler wants one
        ("of another machine", "", False),
        (None, "", False),
    ],
)
def test_the_compiled_plug_of_a_wheel(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    content: str | None,
    variable: str,
    is_used: bool,
) -> None:
    """It is used where it loads; else the plug is compiled as before."""
    for name in prebuilt.OPTIONS:
        monkeypatch.delenv(name, raising=False)
    if variable:
        monkeypatch.setenv(variable, "-O1")
    file = tmp_path / "plug.so"
    if content is not None:
        file.write_text(content)
    if content == "loads":
        monkeypatch.setattr(prebuilt, "TRY", "")
    monkeypatch.setattr(prebuilt.is_wanted, "__defaults__", (file,))
    monkeypatch.setattr(prebuilt.copy, "__defaults__", (file,))
    assert run("--dropdir", tmp_path / "drivers", "--reader", "1111:1111") == 0
    library = tmp_path / "drivers" / NAME / "Contents/Linux/libccid-python.so"
    assert library.read_text() == ("loads" if is_used else "compiled from plug.c")
    assert library.stat().st_mode & 0o777 == 0o755


def test_checking(tmp_path: Path, nothing_wrong: None, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("--dropdir", tmp_path, "--check") == 1
    told = capsys.readouterr().err
    assert f"there is no driver of ours in {tmp_path}: run ccid-install-driver" in told
    assert run("--dropdir", tmp_path, "--reader", "1111:1111") == 0
    assert run("--dropdir", tmp_path, "--check") == 0
    assert "in good order" in capsys.readouterr().out
    named = tmp_path / NAME / "Contents/Linux/interpreter"
    named.write_text("/nonexistent/python\n")
    (named.parent / "libccid-python.so").unlink()
    plist = tmp_path / NAME / "Contents/Info.plist"
    old = plist.read_text().replace(f"<string>{ccid.__version__}<", "<string>0.0.1<")
    plist.write_text(old)
    assert run("--dropdir", tmp_path, "--check") == 1
    said = capsys.readouterr().err
    for text in ("cannot be run any more", "is missing", "written by version 0.0.1"):
        assert text in said


# The user that pcscd runs as -------------------------------------------------------------------

NOBODY = pwd.getpwnam("nobody")
IS_ROOT = os.geteuid() == 0


def machine(root: Path, *lines: str, user: str = "nobody") -> Path:
    """A root folder with a pcscd, which runs as ``user``."""
    folder = root / "usr/lib/systemd/system"
    folder.mkdir(parents=True)
    (folder / "pcscd.service").write_text("\n".join(["[Service]", f"User={user}", *lines]))
    (root / "usr/sbin").mkdir()
    (root / "usr/sbin/pcscd").touch()
    return root


def test_whom_the_unit_names(tmp_path: Path) -> None:
    assert pcscd_account(tmp_path) is None
    root = machine(tmp_path, "SupplementaryGroups=tty", "#User=root")
    account = pcscd_account(root)
    assert account is not None
    assert (account.name, account.uid, account.gid) == ("nobody", NOBODY.pw_uid, NOBODY.pw_gid)
    assert grp.getgrnam("tty").gr_gid in account.others
    over = root / "etc/systemd/system/pcscd.service.d"
    over.mkdir(parents=True)
    (over / "group.conf").write_text("[Service]\nGroup=tty\nSupplementaryGroups=\n")
    account = pcscd_account(root)
    assert account is not None
    assert account.group == "tty"
    (over / "user.conf").write_text("[Service]\nUser=root\n")
    assert pcscd_account(root) is None
    (over / "user.conf").write_text("[Service]\nUser=no-such-user\n")
    assert pcscd_account(root) is None


def test_whose_process_pcscd_is_where_it_has_no_unit(tmp_path: Path) -> None:
    process = tmp_path / "proc/42"
    process.mkdir(parents=True)
    (process / "comm").write_text("pcscd\n")
    if IS_ROOT:
        os.chown(process, NOBODY.pw_uid, NOBODY.pw_gid)
    account = pcscd_account(tmp_path)
    assert account is not None
    assert account.uid == process.stat().st_uid


def test_a_virtual_environment_that_is_closed_to_pcscd(
    tmp_path: Path, open_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Made under umask 077."""
    monkeypatch.setattr(install, "HIDDEN", ("/root", "/home"))  # the folder is under /tmp
    root = machine(tmp_path)
    made = open_folder / "venv"
    python = made / "bin/python"
    python.parent.mkdir(parents=True)
    (made / "pyvenv.cfg").touch()
    python.symlink_to("/bin/sh")

    def said() -> list[str]:
        return [text for text in install.troubles(str(python), "linux", str(root))
                if "nobody" in text and str(made) in text]  # fmt: skip

    assert said() == []
    made.chmod(0o700)
    (told,) = said()
    assert f"the user nobody, who may not enter {made} (drwx------" in told
    assert told.endswith(f"chmod -R go+rX {made}")
    made.chmod(0o755)
    python.unlink()
    python.touch(mode=0o700)
    (told,) = said()
    assert f"may not run {python}" in told


def test_folders_behind_symbolic_links_count(tmp_path: Path, open_folder: Path) -> None:
    account = pcscd_account(machine(tmp_path))
    assert account is not None
    closed = open_folder / "closed"
    (closed / "lib").mkdir(parents=True)
    (closed / "lib/file").touch()
    (open_folder / "lib").symlink_to(closed / "lib")
    (open_folder / "link").symlink_to("lib/file")
    for name in ("link", "lib/file"):
        closed.chmod(0o755)
        assert obstacle(account, open_folder / name, "r") is None
        closed.chmod(0o700)
        assert obstacle(account, open_folder / name, "r") == closed
    closed.chmod(0o755)
    (closed / "lib/file").chmod(0o600)
    assert obstacle(account, open_folder / "link", "r") == closed / "lib/file"
    (open_folder / "loop").symlink_to("loop")
    assert obstacle(account, open_folder / "loop", "r") is None


def test_an_import_as_the_user_of_pcscd(
    tmp_path: Path, open_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What modes do not tell: here an interpreter that fails for everybody but root."""
    if not IS_ROOT:
        pytest.skip("only root can become another user")
    account = pcscd_account(machine(tmp_path))
    monkeypatch.setattr(pcscd_account_module, "pcscd_account", lambda *_: account)
    python = open_folder / "python"
    python.write_text(
        '#!/bin/sh\n[ "$(id -u)" = 0 ] || { echo "no module named x" >&2; exit 1; }\n'
    )
    python.chmod(0o755)
    told = install._import_trouble(str(python), is_closed=False)
    assert "as pcscd's user nobody, cannot load the driver: no module named x" in told
    assert install._import_trouble(str(python), is_closed=True) == ""


def test_a_library_that_cannot_be_loaded(open_folder: Path) -> None:
    """An environment in which pyusb is broken, or libusb is missing."""
    python = open_folder / "python"
    hidden = "import sys; sys.modules['usb.core'] = None; exec(sys.argv[1])"
    python.write_text(f'#!/bin/sh\nexec {sys.executable} -c "{hidden}" "$3"\n')
    python.chmod(0o755)
    told = install._import_trouble(str(python), is_closed=True)
    assert "cannot load the driver: ModuleNotFoundError" in told
    assert install._import_trouble(sys.executable, is_closed=True) == ""


def reader_node(root: Path, monkeypatch: pytest.MonkeyPatch, **more: Any) -> Path:
    """A reader that is plugged in, and its device node."""
    from ccid.device import find

    info = replace(
        ccid.VirtualReader(vendor_id=0x1209, product_id=0x0001).info, bus=1, address=4, **more
    )
    monkeypatch.setattr(find, "list_readers", lambda: [info])
    node = root / "dev/bus/usb/001/004"
    node.parent.mkdir(parents=True)
    node.touch()
    return node


def test_a_reader_that_pcscd_may_not_open(
    tmp_path: Path, open_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No udev rule gives it to pcscd's group."""
    root = machine(open_folder, "Group=tty")
    named = {(0x1209, 0x0001)}
    assert install.closed_readers(named, root) == []
    node = reader_node(root, monkeypatch)
    node.chmod(0o664)
    (told,) = install.closed_readers(named, root)
    assert f"the user nobody, who may not open {node} (-rw-rw-r--" in told
    assert "ccid-install-driver --udev --reader 1209:0001" in told
    assert install.closed_readers({(0x1209, 0x0002)}, root) == []
    if IS_ROOT:
        os.chown(node, 0, grp.getgrnam("tty").gr_gid)
        assert install.closed_readers(named, root) == []
    node.chmod(0o666)
    assert install.closed_readers(named, root) == []
    (root / "usr/lib/systemd/system/pcscd.service").write_text("[Service]\n")
    node.chmod(0o600)
    assert install.closed_readers(named, root) == [], "root may"


def test_both_commands_warn_of_a_closed_reader(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    nothing_wrong: None,
    capsys: pytest.CaptureFixture[str],
) -> None:
    asked: list[Collection[tuple[int, int]]] = []

    def closed(named: Collection[tuple[int, int]]) -> list[str]:
        asked.append(named)
        return ["the reader is closed"]

    monkeypatch.setattr(install, "closed_readers", closed)
    assert run("--dropdir", tmp_path, "--reader", "08e6:3437") == 0
    assert "warning: the reader is closed" in capsys.readouterr().err
    assert run("--dropdir", tmp_path, "--check") == 1
    assert "trouble: the reader is closed" in capsys.readouterr().err
    assert asked == [{(0x08E6, 0x3437)}] * 2


def test_the_rule_names_the_group_of_pcscd(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    account = pcscd_account(machine(tmp_path, "Group=tty"))
    monkeypatch.setattr(pcscd_account_module, "pcscd_account", lambda *_: account)
    assert run("--udev", "--reader", "08E6:3437") == 0
    said = capsys.readouterr()
    assert 'GROUP="tty"' in said.out
    assert said.err == ""
    monkeypatch.setattr(pcscd_account_module, "pcscd_account", lambda *_: None)
    assert run("--udev", "--reader", "08E6:3437") == 0
    assert "needs no rule" in capsys.readouterr().err


# Options --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("value", "bits"), [("0x0000", 0), ("0x0001", 1), ("1", 1), ("0x0077", 0x77), ("64", 0x40),
                        ("what", 0)],
)  # fmt: skip
def test_options_of_the_bundle(tmp_path: Path, value: str, bits: int) -> None:
    assert run("--dropdir", tmp_path, "--reader", "1111:1111") == 0
    plist = tmp_path / NAME / "Contents/Info.plist"
    text = plist.read_text()
    assert "<string>0x0000</string>" in text
    plist.write_text(text.replace("<string>0x0000</string>", f"<string>{value}</string>"))
    assert read_options(str(tmp_path / NAME / "Contents/Linux")) == Options.of(bits)


def test_no_bundle_no_options(tmp_path: Path) -> None:
    assert read_options(str(tmp_path)) == Options()
    assert read_options("") == Options()
