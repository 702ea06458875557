"""Pages of the site that docs/ does not have: a hook of mkdocs.

README, ARCHITECTURE and the like stay at the top, where GitHub and PyPI look for them. They become
pages here, the table of readers comes from ``tools/readers-page``, and the reference is made of the
docstrings. Links between files of the project lead to their pages; a link to a file that has no
page becomes its text.
"""

from __future__ import annotations

import posixpath
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

from mkdocs.structure.files import File

ROOT = Path(__file__).resolve().parents[2]
SOURCES = {
    "README.md": "overview.md",
    "ARCHITECTURE.md": "architecture.md",
    "CHANGELOG.md": "changelog.md",
    "CONTRIBUTING.md": "contributing.md",
    "SECURITY.md": "security-policy.md",
    "examples/README.md": "examples.md",
    "packaging/README.md": "packaging.md",
}
"""Files of the project, and their pages."""
TITLES = {"overview.md": "README"}
"""Titles in the navigation that are not those of the page."""
TABLE = "readers-table.html"
"""The table of readers, a page of its own that ``readers.md`` shows."""
FRAME = f"""
<a href="{TABLE}">The table alone, with more room</a>

<iframe class="readers" src="{TABLE}" title="The table of readers" loading="lazy"></iframe>
"""
REFERENCE = {
    "readers.md": (
        "Readers, slots and cards",
        (
            *("ccid.device.find.list_readers", "ccid.device.find.open_reader"),
            *("ccid.device.find.open_fd", "ccid.device.reader.Reader"),
            *("ccid.device.slot.Slot", "ccid.device.card.Card"),
            *("ccid.device.storage_card.StorageCard", "ccid.device.watching.watch"),
            *("ccid.device.watching.Event", "ccid.device.watching.EventKind"),
            *("ccid.device.composite.open_composite", "ccid.device.composite.Composite"),
            *("ccid.transport.ReaderInfo", "ccid.iso7816.atr.Atr"),
            *("ccid.codes.ExchangeLevel", "ccid.codes.IccStatus", "ccid.codes.Protocol"),
        ),
    ),
    "errors.md": ("Errors", ("ccid.errors",)),
    "aio.md": (
        "Readers in asyncio",
        (
            *("ccid.aio.async_reader.list_readers", "ccid.aio.async_reader.open_reader"),
            *("ccid.aio.async_reader.open_fd", "ccid.aio.async_reader.Reader"),
            *("ccid.aio.async_slot.Slot", "ccid.aio.async_card.Card"),
            *("ccid.aio.async_storage_card.StorageCard", "ccid.aio.async_watch.watch"),
            *("ccid.aio.async_watch.Watch", "ccid.aio.async_trace.Trace"),
            *("ccid.aio.async_composite.open_composite", "ccid.aio.async_composite.Composite"),
        ),
    ),
    "virtual.md": (
        "Virtual readers and cards",
        (
            *(
                "ccid.virtual.virtual_reader.VirtualReader",
                "ccid.virtual.cards.application.Application",
            ),
            *("ccid.virtual.cards.contact.Contact", "pytest_ccid"),
        ),
    ),
    "pcsc.md": (
        "PC/SC in a program",
        ("ccid.pcsc.manager.in_process.Manager", "ccid.pcsc.under_pyscard"),
    ),
}
"""The pages of the reference: title, and what is on them."""
LINK = re.compile(r"\[((?:[^\[\]]|\[[^\[\]]*\])*)\]\(([^)#:\s]*)(#[^)\s]+)?\)")


def on_files(files: Any, config: Any) -> Any:
    """Add the pages that are made."""
    for source, page in SOURCES.items():
        text = (ROOT / source).read_text("utf-8")
        files.append(File.generated(config, page, content=text))
    for name, (title, objects) in REFERENCE.items():
        text = "\n\n".join([f"# {title}", *(f"::: {one}" for one in objects)])
        files.append(File.generated(config, f"api/{name}", content=text + "\n"))
    made = subprocess.run(
        [sys.executable, ROOT / "tools/readers-page", "-"],
        capture_output=True,
        check=True,
        text=True,
    )
    files.append(File.generated(config, TABLE, content=made.stdout))
    return files


def on_page_markdown(markdown: str, page: Any, config: Any, files: Any) -> str:
    """Lead links to pages."""
    here = page.file.src_uri
    if here in TITLES:
        page.meta["title"] = TITLES[here]
    source = next((one for one, made in SOURCES.items() if made == here), f"docs/{here}")

    def lead(link: re.Match[str]) -> str:
        text, target, anchor = link[1], link[2], link[3] or ""
        if not target:
            return link[0]
        path = posixpath.normpath(posixpath.join(posixpath.dirname(source), target))
        to = SOURCES.get(path) or path.removeprefix("docs/")
        if files.get_file_from_path(to) is not None and (path in SOURCES or path != to):
            return f"[{text}]({posixpath.relpath(to, posixpath.dirname(here) or '.')}{anchor})"
        return text if (ROOT / path).exists() else link[0]

    return LINK.sub(lead, markdown) + (FRAME if here == "readers.md" else "")
