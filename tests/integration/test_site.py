"""The site of the documents: it is built without a network, strictly, and loads nothing from
elsewhere."""

from __future__ import annotations

import os
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path
from types import ModuleType
from urllib.parse import unquote, urlsplit

import pytest

import ccid
import ccid.aio

ROOT = Path(__file__).parents[2]


class Page(HTMLParser):
    """The addresses that a page loads, those that it links to, and its anchors."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.loaded: list[str] = []
        self.linked: list[str] = []
        self.anchors: set[str] = set()
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = {name: value or "" for name, value in attrs}
        self.anchors.add(values.get("id", ""))
        for name in ("src", "href", "srcset", "data"):
            if name in values and not (tag == "form" or values[name].startswith("data:")):
                (self.linked if tag == "a" else self.loaded).append(values[name])


@pytest.fixture(scope="module")
def site() -> dict[Path, Page]:
    command = [str(ROOT / "tools/docs")]
    if os.geteuid() == 0:  # a network namespace without a network
        command = ["unshare", "-n", *command]
    venv = {"CCID_VENV": sys.prefix}
    done = subprocess.run(
        command, cwd=ROOT, env=os.environ | venv, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stdout + done.stderr
    folder = ROOT / "build" / "site"
    return {file: Page(file.read_text("utf-8")) for file in folder.rglob("*.html")}


def test_it_loads_nothing_from_elsewhere(site: dict[Path, Page]) -> None:
    assert len(site) > 30
    for file, page in site.items():
        assert [one for one in page.loaded if urlsplit(one).netloc] == [], file
    for file in (ROOT / "build" / "site").rglob("*.css"):
        text = file.read_text("utf-8")
        assert "url(http" not in text, file
        assert "@import" not in text, file


@pytest.mark.parametrize("package", [ccid, ccid.aio])
def test_the_reference_has_each_public_name(site: dict[Path, Page], package: ModuleType) -> None:
    anchors = {anchor for page in site.values() for anchor in page.anchors}
    for name in package.__all__:
        one = getattr(package, name)
        if not isinstance(one, str | ModuleType):
            assert {f"{one.__module__}.{name}", f"{package.__name__}.{name}"} & anchors, name


def test_errors_lead_to_their_page(site: dict[Path, Page]) -> None:
    """Also those that the module of a function does not import; and no other page shows them."""
    pages = {file.name: page for file, page in site.items() if file.parent.name == "api"}
    for name in ("readers.html", "aio.html"):
        assert "errors.html#ccid.errors.AccessDenied" in {
            link.removeprefix("../api/") for link in pages[name].linked
        }
    for name in pages.keys() - {"errors.html"}:
        assert not [one for one in pages[name].anchors if one.endswith(".AccessDenied")], name


def test_its_links_lead_somewhere(site: dict[Path, Page]) -> None:
    lost = []
    for file, page in site.items():
        if file.name == "404.html":
            continue  # its links begin at the root of the server
        for link in page.linked:
            parts = urlsplit(link)
            if parts.scheme or parts.netloc:
                continue
            path = (file.parent / unquote(parts.path)).resolve() if parts.path else file
            path = path / "index.html" if path.is_dir() else path
            anchor = unquote(parts.fragment)
            if path not in site or (anchor and anchor not in site[path].anchors | {"__tabbed"}):
                lost.append((file.name, link))
    assert lost == []
