"""Tests, files and names that the documents mention exist."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
NAMED = re.compile(r"`((?:tests/unit/)?test_\w+\.py)(?:::(test_\w+))?`")


def named() -> list[tuple[str, str]]:
    """The tests that docs/differences.md mentions: file and function."""
    text = (ROOT / "docs" / "differences.md").read_text("utf-8")
    return sorted({(file.rpartition("/")[2], function) for file, function in NAMED.findall(text)})


@pytest.mark.parametrize(("file", "function"), named())
def test_each_difference_has_its_test(file: str, function: str) -> None:
    source = (ROOT / "tests" / "unit" / file).read_text("utf-8")
    assert f"def {function}(" in source if function else source


def test_there_are_some() -> None:
    assert len(named()) > 15


DOCUMENTS = sorted(
    str(file.relative_to(ROOT))
    for pattern in ("*.md", "docs/*.md", "examples/*.md", ".github/**/*.md")
    for file in ROOT.glob(pattern)
)


@pytest.mark.parametrize("document", DOCUMENTS)
def test_links_lead_somewhere(document: str) -> None:
    file = ROOT / document
    for target in re.findall(r"\]\(([^)#:]+)\)", file.read_text("utf-8")):
        assert (file.parent / target).exists(), target


@pytest.mark.parametrize("document", [name for name in DOCUMENTS if name.startswith("docs/")])
def test_each_document_is_linked_from_the_readme(document: str) -> None:
    assert f"]({document})" in (ROOT / "README.md").read_text("utf-8")
