"""The rings, as a test: who may import whom, and which package may touch which library.

The source is read with `ast` rather than imported, so an import inside a function or under
TYPE_CHECKING counts as well.
"""

import ast
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
LIBRARY = ROOT / "layers/countermark/python/countermark"

# Inner to outer. A package may import itself and every ring before its own; siblings never.
RINGS: tuple[frozenset[str], ...] = (
    frozenset({"errors"}),
    frozenset({"domain"}),
    frozenset({"exchanges", "indexes", "signals", "transport"}),
    frozenset({"extensions", "flows"}),
    frozenset({"api", "aws", "local"}),
    frozenset({"cli"}),
)

# The libraries that each package may touch; absent means the standard library only.
MAY_USE: dict[str, frozenset[str]] = {
    "signals": frozenset({"numpy", "pdqhash", "PIL", "rapidfuzz", "regex", "vpdq"}),
    "indexes": frozenset({"numpy", "faiss"}),
    "exchanges": frozenset({"defusedxml"}),
    "transport": frozenset({"urllib3"}),
    "aws": frozenset(
        {"boto3", "botocore"}  # and the types of their clients, which no one has at run time
        | {f"mypy_boto3_{service}" for service in ("dynamodb", "events", "s3", "secretsmanager", "sqs")}
    ),
    "api": frozenset({"pydantic"}),
    "cli": frozenset({"click", "rich", "uvicorn", "uvloop"}),
    "lambdas": frozenset({"aws_lambda_powertools"}),
    # The preflight reads the account, and synthesis builds the layers.
    "infra": frozenset({"aws_cdk", "boto3", "botocore", "cdk_nag", "constructs", "jsii", "layers"}),
}

# What the edges outside the package may import of it.
EDGES: dict[str, frozenset[str]] = {
    "lambdas": frozenset(
        {"errors", "domain", "signals", "exchanges", "indexes", "transport", "extensions", "flows", "aws", "api"}
    ),
    "infra": frozenset({"aws"}),
}

# The stages, each with its parts in `flows`; a module of `flows` that is in none of them serves any stage.
STAGES: dict[str, frozenset[str]] = {
    "curate": frozenset({"opinions"}),
    "fetch": frozenset(),
    "hash": frozenset({"opening"}),
    "index": frozenset({"compaction", "drafts"}),
    "match": frozenset(),
}
STAGE_OF = {module: stage for stage, parts in STAGES.items() for module in (stage, *parts)}


def imports(path: Path) -> Iterator[str]:
    """Yield the full name of every module that a file imports, wherever in it."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"), str(path))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: absolute imports only"
            assert node.module is not None
            yield node.module


def sources() -> Iterator[tuple[str, Path]]:
    """Yield every source file with the package that answers for it."""
    for path in sorted(LIBRARY.rglob("*.py")):
        yield path.relative_to(LIBRARY).with_suffix("").parts[0], path
    for top in EDGES:
        for path in sorted((ROOT / top).rglob("*.py")):
            yield top, path


def ring(package: str) -> int:
    """Return the number of a package's ring, from the inside."""
    return next(number for number, packages in enumerate(RINGS) if package in packages)


def is_allowed(package: str, module: str) -> bool:
    """Tell whether a package may import a module."""
    root, *rest = module.split(".")
    if root == "countermark":
        if not rest:
            return True  # the package itself: its version
        target = rest[0]
        if package == "infra":
            return module in {"countermark.aws.names", "countermark.aws.settings"}
        if package in EDGES:
            return target in EDGES[package]
        if package in {"__init__", "__main__"}:
            return target in {"cli", "errors", "domain", "signals"}
        return target == package or ring(target) < ring(package)
    return root in sys.stdlib_module_names or root == package or root in MAY_USE.get(package, frozenset())


@pytest.mark.parametrize(
    ("package", "path"), [pytest.param(package, path, id=str(path.relative_to(ROOT))) for package, path in sources()]
)
def test_imports_point_inwards(package: str, path: Path) -> None:
    wrong = [module for module in imports(path) if not is_allowed(package, module)]
    assert not wrong, f"{path.relative_to(ROOT)} may not import {', '.join(wrong)}"


def stages_of(path: Path) -> set[str]:
    """Return the stages whose modules a file imports."""
    modules: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"), str(path))):
        if isinstance(node, ast.Import):
            modules |= {alias.name.removeprefix("countermark.flows.") for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module == "countermark.flows":
            modules |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            modules.add(node.module.removeprefix("countermark.flows."))
    return {STAGE_OF[module] for module in modules & STAGE_OF.keys()}


@pytest.mark.parametrize("path", sorted((LIBRARY / "flows").glob("*.py")), ids=lambda path: path.stem)
def test_no_stage_imports_another(path: Path) -> None:
    others = stages_of(path) - {STAGE_OF.get(path.stem)}
    assert not others, f"flows/{path.name} imports the stage {', '.join(sorted(others))}"


def test_every_stage_has_its_flow() -> None:
    assert STAGE_OF.keys() <= {path.stem for path in (LIBRARY / "flows").glob("*.py")}


@pytest.mark.parametrize(
    "line",
    [
        "from countermark.flows.drafts import Build",
        "from countermark.flows import cached, drafts",
        "import countermark.flows.index as stage",
        "def run():\n    from countermark.flows.index import build_index",
    ],
)
def test_an_import_of_a_stage_is_seen_in_any_form(line: str, tmp_path: Path) -> None:
    (tmp_path / "flow.py").write_text(line)
    assert stages_of(tmp_path / "flow.py") == {"index"}


def test_every_package_has_a_ring() -> None:
    found = {package for package, _ in sources()} - {"__init__", "__main__", *EDGES}
    assert found == frozenset[str]().union(*RINGS)


def test_the_rings_would_catch_a_wrong_import() -> None:
    assert not is_allowed("domain", "countermark.flows.match")
    assert not is_allowed("signals", "countermark.indexes.reader")
    assert not is_allowed("flows", "boto3")
    assert not is_allowed("infra", "countermark.aws.keys")
    assert not is_allowed("infra", "countermark.aws")
    assert is_allowed("infra", "countermark.aws.names")
    assert not is_allowed("local", "countermark.aws.banks")
    assert is_allowed("flows", "countermark.domain.bank")
    assert is_allowed("aws", "boto3")
