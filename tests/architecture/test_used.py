"""Product code has no function, class or constant that only tests use."""

import ast
from collections.abc import Iterator
from functools import cache

import pytest

from tests.architecture.test_rings import ROOT, sources

EXTERNAL = {
    "COUNTERMARK_MANIFEST",  # what an extension exports
    "Refuses",  # documents what a signal type may offer; asked for by name, as that is faster
    "presign_upload",  # waits for its route
    # The parts of `feed.OVERLAP_S`, which a test adds up.
    "CLOCK_SKEW_S",
    "INDEX_LAG_S",
    "LONGEST_WRITE_S",
    "VARIANT_TOLERANCE_BITS",  # a bound that is promised, and measured by a test
}


def defined(tree: ast.Module) -> Iterator[str]:
    """Yield the public names that a module defines; what is decorated belongs to whoever decorates it."""
    for node in tree.body:
        match node:
            case ast.FunctionDef(name=name, decorator_list=[]) | ast.ClassDef(name=name):
                yield name
            case ast.Assign(targets=[ast.Name(id=name)]) | ast.AnnAssign(target=ast.Name(id=name)):
                yield name
            case _:
                continue


def used(tree: ast.AST) -> Iterator[str]:
    """Yield the names that a source reads or imports, also as attributes."""
    for node in ast.walk(tree):
        match node:
            case ast.Name(id=name, ctx=ast.Load()) | ast.Attribute(attr=name) | ast.alias(name=name):
                yield name
            case _:
                continue


@cache
def trees() -> dict[str, ast.Module]:
    return {str(path.relative_to(ROOT)): ast.parse(path.read_text(encoding="utf-8")) for _, path in sources()}


@cache
def all_used() -> frozenset[str]:
    return frozenset(name for tree in trees().values() for name in used(tree))


@pytest.mark.parametrize("path", trees())
def test_what_is_public_is_used_by_product_code(path: str) -> None:
    public = {name for name in defined(trees()[path]) if not name.startswith("_")}
    assert public - all_used() - EXTERNAL == set()


def test_the_exceptions_are_exceptions() -> None:
    every = {name for tree in trees().values() for name in defined(tree)}
    assert every >= EXTERNAL
    assert not EXTERNAL & all_used()
