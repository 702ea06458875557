"""What the package of a distribution has beside the library, and ``ccid-install-driver`` where the
driver belongs to such a package."""

from __future__ import annotations

import os
import plistlib
import sys
from pathlib import Path

import pytest

import ccid
from ccid.pcsc import system_package
from ccid.pcsc.plug import bundle, install, pcscd_account
from ccid.pcsc.plug.bundle import NAME, Entry

PYTHON = "/usr/bin/python3"
HERE = str(Path(sys.executable).parent)
COMPILER = "import sys; open(sys.argv[sys.argv.index('-o') + 1], 'w').write(' '.join(sys.argv))"


@pytest.fixture(autouse=True)
def compiler(monkeypatch: pytest.MonkeyPatch) -> None:
    """A program that every machine has, in place of a C compiler."""
    monkeypatch.setattr(bundle, "compilers", lambda: [[sys.executable, "-I", "-S", "-c", COMPILER]])


@pytest.fixture
def dropdir(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of drivers of a system that has the package, which this interpreter runs."""
    settings = tmp_path / "etc/Info.plist"
    monkeypatch.setattr(system_package, "SETTINGS", str(settings))
    monkeypatch.setattr(install, "troubles", lambda *_: [])
    # a pcscd of this machine may have a user who cannot reach the interpreter of the tests
    monkeypatch.setattr(pcscd_account, "pcscd_account", lambda *_: None)
    assert system_package.main(["--destdir", str(tmp_path), "--python", sys.executable]) == 0
    settings.parent.mkdir()
    settings.write_bytes((tmp_path / system_package.TEMPLATE[1:]).read_bytes())
    return tmp_path / system_package.DROPDIR[1:]


def named(dropdir: Path) -> list[str]:
    content = plistlib.loads((dropdir / NAME / "Contents/Info.plist").read_bytes())
    assert len(content["ifdVendorID"]) == len(content["ifdFriendlyName"])
    return [
        f"{v}:{p}" for v, p in zip(content["ifdVendorID"], content["ifdProductID"], strict=True)
    ]


# What is written ------------------------------------------------------------------------------


def test_the_files(tmp_path: Path) -> None:
    system_package.write(tmp_path, PYTHON, "/usr/lib64/pcsc/drivers")
    files = {str(p.relative_to(tmp_path)) for p in tmp_path.rglob("*") if not p.is_dir()}
    driver = f"usr/lib64/pcsc/drivers/{NAME}/Contents"
    assert files == {
        f"{driver}/Info.plist",
        f"{driver}/Linux/interpreter",
        f"{driver}/Linux/libccid-python.so",
        "usr/share/pyccid-driver/Info.plist",
        "usr/lib/udev/rules.d/70-ccid.rules",
        "usr/lib/udev/rules.d/92-ccid-pcscd.rules",
        "usr/lib/systemd/user/ccid-pcscd.service",
        "usr/lib/systemd/user/ccid-pcscd.socket",
    }
    assert os.readlink(tmp_path / driver / "Info.plist") == "/etc/pyccid-driver/Info.plist"
    assert (tmp_path / driver / "Linux/interpreter").read_text() == "/usr/bin/python3\n"
    service = (tmp_path / "usr/lib/systemd/user/ccid-pcscd.service").read_text()
    assert "\nExecStart=/usr/bin/ccid-pcscd\n" in service
    assert str(tmp_path) not in "".join(
        (tmp_path / f).read_text() for f in files if not f.endswith((".so", "Contents/Info.plist"))
    )


def test_the_driver_names_no_reader(dropdir: Path) -> None:
    assert named(dropdir) == []


def test_the_rules(tmp_path: Path) -> None:
    """Readers of the class, and those of the table that declare another class."""
    lines = system_package.rules("# why\n", 'TAG+="uaccess"').splitlines()
    assert lines[0] == "# why"
    assert 'ENV{ID_USB_INTERFACES}=="*:0b????:*", TAG+="uaccess"' in lines[1]
    others = [line for line in lines if 'ATTR{idVendor}=="08e6"' in line]
    assert any('ATTR{idProduct}=="2202"' in line for line in others), "bInterfaceClass 0xFF"
    assert not any('ATTR{idProduct}=="3437"' in line for line in others), "of the class"
    assert all(line.endswith(', TAG+="uaccess"') for line in lines[1:])


def test_a_folder_that_cannot_be_written(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "usr").write_text("a file")
    assert system_package.main(["--destdir", str(tmp_path), "--python", PYTHON]) == 1
    assert "usr" in capsys.readouterr().err


def test_the_compiler_gets_what_the_builder_asks_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CPPFLAGS", "-DA='b c'")
    monkeypatch.setenv("CFLAGS", "-g -O1")
    monkeypatch.setenv("LDFLAGS", "-Wl,-z,now")
    bundle.compile_plug(tmp_path / "plug.so")
    assert "-DA=b c -g -O1 -Wl,-z,now" in (tmp_path / "plug.so").read_text()


def test_the_compiler_that_the_builder_names(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    monkeypatch.setenv("CC", "some-cc -m32")
    assert bundle.compilers()[0] == ["some-cc", "-m32"]


# ccid-install-driver --------------------------------------------------------------------------


def test_readers_are_named_in_the_settings_alone(
    dropdir: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code = dropdir / NAME / "Contents/Linux/libccid-python.so"
    before = code.stat().st_mtime_ns
    assert install.main(["--dropdir", str(dropdir), "--reader", "1111:222a"]) == 0
    assert "etc/Info.plist" in capsys.readouterr().out
    assert named(dropdir) == ["0x1111:0x222A"]
    assert (dropdir / NAME / "Contents/Info.plist").is_symlink()
    assert code.stat().st_mtime_ns == before
    assert [p.name for p in (tmp_path / "etc").iterdir()] == ["Info.plist"]
    assert (tmp_path / "etc/Info.plist").stat().st_mode & 0o777 == 0o644


def test_uninstalling_names_no_reader(dropdir: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert install.main(["--dropdir", str(dropdir), "--reader", "1111:222a"]) == 0
    assert install.main(["--dropdir", str(dropdir), "--uninstall"]) == 0
    assert "belongs to a package" in capsys.readouterr().out
    assert named(dropdir) == []
    assert (dropdir / NAME / "Contents/Linux/libccid-python.so").is_file()


def test_checking(dropdir: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The file in /etc may be of an older version: the package brings the code."""
    assert install.main(["--dropdir", str(dropdir), "--check"]) == 1
    assert "names no reader" in capsys.readouterr().err
    assert install.main(["--dropdir", str(dropdir), "--reader", "1111:222a"]) == 0
    settings = tmp_path / "etc/Info.plist"
    settings.write_text(settings.read_text().replace(f">{ccid.__version__}<", ">0.0.1<"))
    assert install.main(["--dropdir", str(dropdir), "--check"]) == 0
    settings.write_text("<?xml version='1.0'?><plist")
    assert install.main(["--dropdir", str(dropdir), "--check"]) == 1
    assert "no driver of ours" in capsys.readouterr().err


def test_another_interpreter_does_not_touch_it(
    dropdir: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["--dropdir", str(dropdir), "--reader", "1111:222a", "--python", "/opt/x/bin/python"]
    assert install.main(words) == 1
    assert "belongs to a package of the system" in capsys.readouterr().err
    assert named(dropdir) == []
    assert install.main([*words[:-1], f"{HERE}/python-of-the-same-folder"]) == 0


@pytest.mark.parametrize("is_managed", [True, False])
def test_options_are_kept(dropdir: Path, tmp_path: Path, is_managed: bool) -> None:
    """Naming other readers leaves ifdDriverOptions as the administrator wrote it."""
    if not is_managed:
        dropdir = tmp_path / "own"
        bundle.write(dropdir, [Entry(1, 2, "x")], "linux", PYTHON)
    plist = Path(os.path.realpath(dropdir / NAME / "Contents/Info.plist"))
    text = plist.read_text()
    plist.write_text(text.replace("<string>0x0000</string>", "<string>0x0011</string>"))
    assert install.main(["--dropdir", str(dropdir), "--reader", "1111:222a"]) == 0
    assert "<string>0x0011</string>" in plist.read_text()
    plist.write_text("no plist at all")
    assert install.main(["--dropdir", str(dropdir), "--reader", "1111:222a"]) == 0
    assert "<string>0x0000</string>" in plist.read_text()
