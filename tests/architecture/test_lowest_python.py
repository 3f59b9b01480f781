"""Annotations are evaluated on import, so none holds what Python 3.11 cannot evaluate and 3.13 can."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
FUNCTIONS = frozenset({"threading.Lock", "threading.RLock", "Lock", "RLock"})
"""Classes to type checkers, functions before Python 3.13."""


def sources() -> list[Path]:
    return [path for top in ("layers/countermark", "lambdas", "tests") for path in sorted((ROOT / top).rglob("*.py"))]


def unions_of_functions(tree: ast.AST) -> Iterator[int]:
    """Yield the line of each `|` with a name that is a function in Python 3.11: quoted, it is text."""
    for node in ast.walk(tree):
        match node:
            case ast.BinOp(left, ast.BitOr(), right, lineno=line) if {
                ast.unparse(left),
                ast.unparse(right),
            } & FUNCTIONS:
                yield line


def test_no_function_is_part_of_a_union() -> None:
    found = {path: list(unions_of_functions(ast.parse(path.read_text(encoding="utf-8")))) for path in sources()}
    assert {str(path.relative_to(ROOT)): lines for path, lines in found.items() if lines} == {}


@pytest.mark.parametrize(
    ("code", "found"),
    [
        ("def f(lock: threading.Lock | None) -> None: ...", [1]),
        ("x: None | Lock", [1]),
        ('def f(lock: "threading.Lock | None") -> None: ...', []),
        ("def f(event: threading.Event | None) -> None: ...", []),
    ],
)
def test_a_union_with_a_function_is_found(code: str, found: list[int]) -> None:
    assert list(unions_of_functions(ast.parse(code))) == found
