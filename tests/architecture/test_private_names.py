"""Product code uses no private name of another package: those may change in any release.

A name is private if it starts with one underscore. Each that product code reads must be defined in the same module,
or in one of ours that the module imports. A class of ours that extends another package's may not define one that the
other class has: it would override it.
"""

import ast
import builtins
import contextlib
import functools
import importlib
import inspect
import textwrap
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
LIBRARY = ROOT / "layers/countermark/python"
OWN = ("countermark", "lambdas", "infra")

DOCUMENTED = frozenset({"_asdict", "_exit", "_fields", "_make", "_replace"})
"""Public names with an underscore, by the documentation of `collections.namedtuple` and `os`."""

EXCEPTIONS = frozenset(
    {
        # Authors of the peer's extensions override these two; it has no public way to read credentials from a text.
        ("countermark/extensions/threatexchange_api.py", "_from_str"),
        ("countermark/extensions/threatexchange_api.py", "_are_valid"),
    }
)
"""What has no public way, by file and name."""

BY_NAME = frozenset({"getattr", "setattr", "hasattr", "delattr", "attrgetter", "methodcaller"})
"""Functions that take the name of an attribute as text."""


def product_code() -> list[Path]:
    tops = [ROOT / "layers", ROOT / "lambdas", ROOT / "infra"]
    return [path for top in tops for path in sorted(top.rglob("*.py")) if "cdk.out" not in path.parts]


def is_private(name: str) -> bool:
    return name.startswith("_") and not name.startswith("__") and name != "_"


def has_private_part(dotted: str) -> bool:
    return any(is_private(part) for part in dotted.split("."))


@functools.cache
def parsed(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"), str(path))


def imported(tree: ast.AST) -> Iterator[tuple[str, str]]:
    """Yield each name that a module gets by importing, as it is called there and in full."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((alias.asname or alias.name.partition(".")[0], alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield from ((alias.asname or alias.name, f"{node.module}.{alias.name}") for alias in node.names)


def defined(tree: ast.AST) -> frozenset[str]:
    """Return the private names that code defines: functions, classes, variables, fields, slots, `self._name`."""
    found: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            found.add(node.name)
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            found.add(node.id)
        elif (
            isinstance(node, ast.Attribute)
            and isinstance(node.ctx, ast.Store)
            and isinstance(node.value, ast.Name)
            and node.value.id in {"self", "cls"}
        ):
            found.add(node.attr)
        if isinstance(node, ast.Assign) and any(dotted(target) == "__slots__" for target in node.targets):
            found |= {str(each.value) for each in ast.walk(node.value) if isinstance(each, ast.Constant)}
    return frozenset(name for name in found if is_private(name))


def own_path(module: str) -> Path | None:
    """Return the file of a module of ours; None where it is another's, or a name in a module."""
    if module.partition(".")[0] not in OWN:
        return None
    base = (LIBRARY if module.startswith("countermark") else ROOT) / module.replace(".", "/")
    return next((path for path in (base.with_suffix(".py"), base / "__init__.py") if path.exists()), None)


def known(path: Path) -> frozenset[str]:
    """Return the private names that a module may read: its own, and those of modules of ours that it imports."""
    tree = parsed(path)
    paths = {own_path(part) for _, full in imported(tree) for part in (full, full.rpartition(".")[0])}
    return defined(tree).union(*(defined(parsed(each)) for each in paths if each is not None))


def dotted(node: ast.expr) -> str:
    """Return an expression of names and dots as text; "" for any other."""
    return ast.unparse(node) if isinstance(node, ast.Name | ast.Attribute) else ""


def foreign_privates(path: Path) -> list[str]:
    """Return what a module uses of other packages' private names, each with its line."""
    tree = parsed(path)
    mine = known(path) | {name for file, name in EXCEPTIONS if path == LIBRARY / file}
    names = dict(imported(tree))
    wrong: list[tuple[int, str]] = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            wrong += ((node.lineno, alias.name) for alias in node.names if has_private_part(alias.name))
        elif isinstance(node, ast.ImportFrom):
            full = [f"{node.module}.{alias.name}" for alias in node.names]
            wrong += ((node.lineno, name) for name in full if has_private_part(name))
        elif isinstance(node, ast.Attribute) and is_private(node.attr):
            text = dotted(node)
            root = names.get(text.partition(".")[0], "")
            is_others = bool(root) and root.partition(".")[0] not in OWN
            if node.attr not in DOCUMENTED and (is_others or node.attr not in mine):
                wrong.append((node.lineno, text or f"….{node.attr}"))
        elif isinstance(node, ast.Call):
            called = dotted(node.func).rpartition(".")[2]
            texts = [each.value for each in node.args if isinstance(each, ast.Constant) and isinstance(each.value, str)]
            if called in BY_NAME:
                wrong += ((node.lineno, text) for text in texts if has_private_part(text) and text not in mine)
            elif called in {"import_module", "__import__", "files"}:
                wrong += ((node.lineno, text) for text in texts if has_private_part(text))
        elif isinstance(node, ast.ClassDef):
            wrong += ((node.lineno, name) for name in overridden(node, names))
    return [f"{path.relative_to(ROOT) if path.is_relative_to(ROOT) else path}:{line}: {name}" for line, name in wrong]


def overridden(node: ast.ClassDef, names: dict[str, str]) -> list[str]:
    """Return the private names that a class defines and a base of another package has as well."""
    found = []
    for base in node.bases:
        text = dotted(base.value if isinstance(base, ast.Subscript) else base)
        first, _, rest = text.partition(".")
        full = ".".join(filter(None, [names.get(first, ""), rest]))
        if not full and hasattr(builtins, text):
            full = f"builtins.{text}"
        if not full or full.partition(".")[0] in OWN:
            continue
        module, _, name = full.rpartition(".")
        theirs = privates_of(getattr(importlib.import_module(module), name))
        found += [f"{full}.{each}" for each in sorted(defined(node) & theirs)]
    return found


def privates_of(kind: object) -> frozenset[str]:
    """Return the private names of a class and its bases; those of its instances where its source can be read."""
    found = {name for name in dir(kind) if is_private(name)}
    for each in getattr(kind, "__mro__", ()):  # typing.NamedTuple is a function
        with contextlib.suppress(OSError, TypeError):
            found |= defined(ast.parse(textwrap.dedent(inspect.getsource(each))))
    return frozenset(found)


@pytest.mark.parametrize("path", product_code(), ids=lambda path: str(path.relative_to(ROOT)))
def test_product_code_uses_no_private_name_of_another_package(path: Path) -> None:
    assert foreign_privates(path) == []


@pytest.mark.parametrize(
    "code",
    [
        "import pkg._hidden",
        "from pkg import _hidden",
        "from pkg._hidden import name",
        "from pkg import thing\nthing._hidden()",
        "import pkg\npkg.thing._hidden",
        "import pkg\n_hidden = 1\npkg._hidden",
        "def f(other):\n    return other._hidden",
        "def f(other):\n    other._hidden = 1",
        "def f(other):\n    return getattr(other, '_hidden')",
        "def f(other):\n    return other()._hidden",
        "import importlib\nimportlib.import_module('pkg._hidden')",
        "import operator\noperator.attrgetter('value._hidden')",
        "class C(Base):\n    def f(self):\n        return self._hidden",
        "import asyncio\nclass C(asyncio.Queue):\n    def _get(self):\n        return 1",
        "from asyncio import Queue\nclass C(Queue[int]):\n    def f(self):\n        self._queue = 1",
    ],
)
def test_a_private_name_of_another_package_is_found(code: str, tmp_path: Path) -> None:
    path = tmp_path / "module.py"
    path.write_text(code, encoding="utf-8")
    assert len(foreign_privates(path)) == 1


@pytest.mark.parametrize(
    "code",
    [
        "import os\nos._exit(1)",
        "_cache = {}\n_cache.get(1)",
        "class C:\n    def __init__(self):\n        self._value = 1\n    def f(self, c):\n        return c._value",
        "class C:\n    __slots__ = ('_value',)\n    def f(self):\n        return self._value",
        "import pkg\npkg.__version__\nfor _ in pkg.names:\n    pass",
        "class C(Exception):\n    def _text(self):\n        return self._text()",
    ],
)
def test_a_private_name_of_our_own_is_allowed(code: str, tmp_path: Path) -> None:
    path = tmp_path / "module.py"
    path.write_text(code, encoding="utf-8")
    assert foreign_privates(path) == []
