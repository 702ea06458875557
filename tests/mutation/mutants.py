"""The changes: places of the code and operators by cosmic-ray, from which a seed takes a sample.

No mutant is: a change of annotations or other text that is not run, or to what is no Python; a
change between ``==`` or its like and ``is``: whether equal numbers are one is Python's affair."""

from __future__ import annotations

import ast
import random
from collections.abc import Iterable, Iterator
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

from cosmic_ray.ast import ast_nodes, get_ast
from cosmic_ray.mutating import mutate_code
from cosmic_ray.plugins import get_operator, operator_names

ROOT = Path(__file__).resolve().parents[2]

SUBJECTS = (
    "ccid/iso7816/t1*.py",
    "ccid/iso7816/t0*.py",
    "ccid/iso7816/atr*.py",
    "ccid/link/pipe.py",
    "ccid/link/shared_pipe.py",
    "ccid/pcsc/manager/*.py",
)
"""What is changed unless a command line names other modules."""

IDENTITY = ("_Is", "_IsNot", "Is_Eq", "Is_NotEq", "IsNot_Eq", "IsNot_NotEq")
"""Ends of names of operators that show only where two equal objects are not one."""


class Mutant(NamedTuple):
    """One change of one module."""

    module: str
    """Its path, from the project's folder."""
    line: int
    before: str
    after: str
    operator: str
    source: str
    """The whole module, changed."""

    def __str__(self) -> str:
        return f"{self.module}:{self.line}: {self.before}  →  {self.after}"

    @property
    def key(self) -> tuple[str, int, str, str]:
        """Tells it from all others, as long as the module stays as it is."""
        return self.module, self.line, self.before, self.after


class Place(NamedTuple):
    """Where one operator can change one module."""

    module: str
    operator: str
    occurrence: int
    start: tuple[int, int]

    @property
    def site(self) -> tuple[str, str, tuple[int, int]]:
        """The same for ``+`` replaced by ``-`` and by ``*``."""
        return self.module, self.operator.partition("_")[0], self.start


def operators() -> Iterator[tuple[str, Any]]:
    """cosmic-ray's operators that need no arguments, by their names."""
    for name in operator_names():
        operator = get_operator(name)
        if not operator.arguments():
            yield name, operator()


def places(modules: Iterable[str]) -> list[Place]:
    """All of these modules' places, in a fixed order."""
    found = []
    known = list(operators())
    for module in modules:
        nodes = list(ast_nodes(get_ast((ROOT / module).read_text("utf-8"))))
        for name, operator in known:
            starts = [start for node in nodes for start, _ in operator.mutation_positions(node)]
            found += [Place(module, name, which, start) for which, start in enumerate(starts)]
    return found


def sample(modules: Iterable[str], count: int, seed: int) -> list[Mutant]:
    """So many mutants of these modules, or all there are if they are fewer; always the same for a
    seed and the same code. An operator changes a place in one way only."""
    candidates = places(modules)
    random.Random(seed).shuffle(candidates)
    taken: list[Mutant] = []
    seen: set[tuple[str, str, tuple[int, int]]] = set()
    for place in candidates:
        if len(taken) == count:
            break
        if place.site not in seen and not is_identity(place.operator):
            mutant = changed(place)
            if mutant is not None:
                seen.add(place.site)
                taken.append(mutant)
    return taken


def is_identity(operator: str) -> bool:
    """Whether an operator puts ``is`` in the place of ``==`` or its like, or the reverse."""
    return operator.endswith(IDENTITY) and not operator.endswith(("_Is_IsNot", "_IsNot_Is"))


def changed(place: Place) -> Mutant | None:
    """The mutant of a place, or None if the change is none."""
    old = (ROOT / place.module).read_text("utf-8")
    new = mutate_code(old, get_operator(place.operator)(), place.occurrence)
    try:
        if new is None or what_runs(new) == what_runs(old):
            return None
    except SyntaxError:  # the * of a parameter is no operator
        return None
    pairs = zip(old.splitlines(), new.splitlines(), strict=False)
    line, before, after = next(
        (number, one.strip(), other.strip())
        for number, (one, other) in enumerate(pairs, 1)
        if one != other
    )
    if place.operator.endswith("RemoveDecorator"):
        line, before, after = place.start[0], old.splitlines()[place.start[0] - 1].strip(), ""
    return Mutant(place.module, line, before, after, place.operator, new)


@lru_cache(maxsize=64)
def what_runs(source: str) -> str:
    """The code without what nobody runs: annotations, and the text between the code."""
    return ast.dump(WithoutAnnotations().visit(ast.parse(source)))


class WithoutAnnotations(ast.NodeTransformer):
    """``from __future__ import annotations`` leaves them unevaluated."""

    def visit_arg(self, node: ast.arg) -> ast.arg:
        node.annotation = None
        return node

    def visit_AnnAssign(self, node: ast.AnnAssign) -> ast.AST:
        node.annotation = ast.Constant(None)
        return self.generic_visit(node)

    def visit_FunctionDef(self, node: ast.FunctionDef) -> ast.AST:
        node.returns = None
        return self.generic_visit(node)
