"""Docstrings name objects by roles (``:class:`Reader```): on the site they are plain code. The
errors that ``Raises:`` names lead to the page of the errors, wherever they are imported."""

from __future__ import annotations

import re
from typing import Any

from griffe import Alias, Extension, Module, Object

import ccid.errors

ROLE = re.compile(r":(?:attr|class|data|exc|func|meth|mod):`~?([^`]+)`")

WHOLE = ("ccid.errors", "ccid.pcsc.under_pyscard")
"""Modules that ``pages.REFERENCE`` names."""


class DocstringRoles(Extension):
    """An extension of griffe, which mkdocstrings loads."""

    def on_object(self, *, obj: Object, **_: Any) -> None:
        """Change the docstring before it is parsed."""
        if obj.docstring is not None:
            obj.docstring.value = ROLE.sub(r"`\1`", obj.docstring.value)

    def on_module(self, *, mod: Module, **_: Any) -> None:
        """Let a module know the names of all errors. A module that is shown as a whole would show
        them as its own."""
        if mod.path.startswith("ccid.") and mod.path not in WHOLE:
            for name in vars(ccid.errors):
                if name[0].isupper() and name not in mod.members:
                    mod.set_member(name, Alias(name, f"ccid.errors.{name}", parent=mod))
