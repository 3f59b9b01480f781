"""The Lambda layers, as built."""

import ast
import fnmatch
import json
import platform
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from elftools.elf.elffile import ELFFile
from elftools.elf.gnuversions import GNUVerNeedSection

from layers import build as layers_build

pytestmark = pytest.mark.packaged

# The runtime, Amazon Linux 2023, has glibc 2.34; wheels for manylinux_2_28 need no more than this.
GLIBC_FLOOR = (2, 28)
# What functions may import although no layer holds it: the runtime has it.
IN_RUNTIME = {"boto3", "botocore"}


@pytest.fixture(scope="module")
def layers() -> dict[str, layers_build.Layer]:
    return {layer.name: layer for layer in layers_build.build()}


@pytest.fixture(scope="module")
def again(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, tuple[layers_build.Layer, ...]]:
    """A second build, somewhere else."""
    directory = tmp_path_factory.mktemp("again")
    return directory, layers_build.build(directory)


@pytest.fixture(scope="module")
def packages(layers: dict[str, layers_build.Layer]) -> dict[str, Path]:
    return {name: layers_build.DESTINATION / name / "python" for name in layers}


def _files(packages: dict[str, Path]) -> Iterator[tuple[str, Path]]:
    for root in packages.values():
        for path in root.rglob("*"):
            if path.is_file():
                yield path.relative_to(root).as_posix(), path


def test_two_builds_give_the_same_bits(
    layers: dict[str, layers_build.Layer], again: tuple[Path, tuple[layers_build.Layer, ...]]
) -> None:
    assert {layer.name: layer.sha256 for layer in again[1]} == {name: layer.sha256 for name, layer in layers.items()}


def test_a_second_build_does_nothing_and_tells_the_same(
    layers: dict[str, layers_build.Layer], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(layers_build, "_install", lambda *_: pytest.fail("installed again"))
    monkeypatch.setattr(layers_build, "_copy_package", lambda *_: pytest.fail("copied again"))
    assert layers_build.build() == tuple(layers.values())


def test_a_layer_whose_files_changed_is_built_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(layers_build, "LAYERS", ("countermark",))
    (first,) = layers_build.build(tmp_path)
    package = tmp_path / "countermark" / "python" / "countermark"
    (package / "stray.py").write_text("")
    (package / "errors.py").unlink()
    (second,) = layers_build.build(tmp_path)
    assert second == first
    assert layers_build.tree_digest(tmp_path / "countermark") == first.sha256
    assert (package / "errors.py").exists()
    assert not (package / "stray.py").exists()


def test_what_a_build_that_was_ended_half_way_left_behind_is_removed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(layers_build, "LAYERS", ("countermark",))
    left_over = tmp_path / f"{layers_build.SCRATCH_PREFIX}x" / "heavy"
    left_over.mkdir(parents=True)
    (left_over / "half").write_text("")
    layers_build.build(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == [".lock", "countermark", "manifest.json"]


@pytest.mark.parametrize("text", ["", "{", "[]", '{"layers": [{"name": "countermark"}]}', '{"layers": {"a": 1}}'])
def test_a_broken_manifest_is_taken_for_none(text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(layers_build, "LAYERS", ("countermark",))
    (first,) = layers_build.build(tmp_path)
    (tmp_path / "manifest.json").write_text(text)
    assert layers_build.build(tmp_path) == (first,)
    assert json.loads((tmp_path / "manifest.json").read_text())["layers"][0]["sha256"] == first.sha256


def test_extensions_are_a_layer_of_their_own_where_there_are_any(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(layers_build, "LAYERS", ("countermark",))
    monkeypatch.setattr(layers_build, "EXTENSIONS", tmp_path / "given")
    monkeypatch.setattr(layers_build, "_install", lambda lock, packages: (packages / "locked.py").write_text("X = 2"))
    made = tmp_path / "made"
    assert [layer.name for layer in layers_build.build(made)] == ["countermark"]
    module = tmp_path / "given" / "python" / "known_addresses.py"
    module.parent.mkdir(parents=True)
    module.write_text("X = 1")
    first = layers_build.build(made)
    assert [layer.name for layer in first] == ["countermark", "extensions"]
    assert (made / "extensions" / "python" / "known_addresses.py").read_text() == "X = 1"
    assert layers_build.build(made) == first
    module.write_text("X = 3")
    (tmp_path / "given" / "requirements.txt").write_text("made-up==1")
    second = layers_build.build(made)
    assert second[0] == first[0]
    assert second[1].sha256 != first[1].sha256
    assert (made / "extensions" / "python" / "known_addresses.py").read_text() == "X = 3"
    assert (made / "extensions" / "python" / "locked.py").exists()
    module.unlink()
    module.parent.rmdir()
    (tmp_path / "given" / "requirements.txt").unlink()
    assert [layer.name for layer in layers_build.build(made)] == ["countermark"]
    assert not (made / "extensions").exists()


def test_layers_above_the_limit_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(layers_build, "LAYERS", ("countermark",))
    (layer,) = layers_build.build(tmp_path)
    limit_bytes = layer.size_bytes + layers_build.FUNCTION_RESERVE_BYTES
    monkeypatch.setattr(layers_build, "UNPACKED_LIMIT_BYTES", limit_bytes)
    assert layers_build.build(tmp_path) == (layer,)
    monkeypatch.setattr(layers_build, "UNPACKED_LIMIT_BYTES", limit_bytes - 1)
    with pytest.raises(layers_build.BuildError, match=f"{layer.size_bytes:,} bytes unpacked"):
        layers_build.build(tmp_path)


def test_a_lock_without_hashes_is_refused(tmp_path: Path) -> None:
    lock = tmp_path / "requirements.txt"
    lock.write_text("packaging==26.3\n")
    with pytest.raises(layers_build.BuildError, match="hash"):
        layers_build._install(lock, tmp_path / "python")


def test_without_a_compiler_the_layers_hold_sources_and_main_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(layers_build, "LAYERS", ("countermark",))
    monkeypatch.setattr(layers_build, "find_compiler", lambda: None)
    layers = layers_build.build(tmp_path)
    assert layers[0].bytecode is None
    assert not list(tmp_path.rglob("*.pyc"))
    monkeypatch.setattr(layers_build, "build", lambda **_: layers)
    assert layers_build.main([]) == 0
    assert "no CPython 3.13" in capsys.readouterr().err


def test_a_failure_ends_main_with_its_reason(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(*, force: bool) -> None:
        raise layers_build.BuildError("no space")

    monkeypatch.setattr(layers_build, "build", fail)
    assert layers_build.main([]) == 1
    assert capsys.readouterr().err == "layers: no space\n"


def test_the_manifest_tells_what_was_built(layers: dict[str, layers_build.Layer]) -> None:
    manifest = json.loads((layers_build.DESTINATION / "manifest.json").read_text())
    assert [entry["name"] for entry in manifest["layers"]] == list(layers_build.LAYERS)
    assert manifest["size_bytes"] == sum(layer.size_bytes for layer in layers.values())
    for entry in manifest["layers"]:
        directory = layers_build.DESTINATION / entry["name"]
        assert entry["sha256"] == layers_build.tree_digest(directory)
        assert entry["size_bytes"] == sum(path.stat().st_size for path in directory.rglob("*") if path.is_file())


def test_the_layers_and_a_function_fit_into_lambda(layers: dict[str, layers_build.Layer]) -> None:
    size_bytes = sum(layer.size_bytes for layer in layers.values())
    assert size_bytes + layers_build.FUNCTION_RESERVE_BYTES <= 262_144_000


def test_no_layer_holds_tests_headers_stubs_or_scripts(packages: dict[str, Path]) -> None:
    unwanted = ["*/tests/*", "*/test/*", "*.pyi", "*.h", "*.hpp", "*.c", "*.cpp", "*.pyx", "*.pxd", "*.a", "bin/*"]
    unwanted += ["*.dist-info/RECORD", "*.dist-info/INSTALLER", "*.dist-info/direct_url.json"]
    found = [name for name, _ in _files(packages) for pattern in unwanted if fnmatch.fnmatch(name, pattern)]
    assert found == []


def test_licences_and_metadata_are_kept(packages: dict[str, Path]) -> None:
    for name in ("light", "heavy"):
        infos = list(packages[name].glob("*.dist-info"))
        assert len(infos) == len(_locked(name))
        for info in infos:
            assert (info / "METADATA").is_file()
            assert list(info.rglob("*LICEN[CS]E*")) or list(info.rglob("*COPYING*")), info.name


def test_the_layers_hold_what_their_locks_name_and_not_the_runtime_s_own(packages: dict[str, Path]) -> None:
    for name in ("light", "heavy"):
        held = {tuple(info.name.removesuffix(".dist-info").split("-")) for info in packages[name].glob("*.dist-info")}
        assert {(_canonical(project), version) for project, version in held} == _locked(name)
    assert not {"boto3", "botocore", "pdqhash"} & {project for n in ("light", "heavy") for project, _ in _locked(n)}


def test_the_layers_pin_what_the_tests_run_with() -> None:
    root = layers_build.ROOT
    tested = set(re.findall(r"^([\w.-]+)==([^\s;]+)", (root / "tests" / "requirements.txt").read_text(), re.MULTILINE))
    for name in ("light", "heavy"):
        assert _locked(name) <= {(_canonical(project), version) for project, version in tested}


def test_shared_objects_need_no_newer_glibc_than_the_runtime_has(packages: dict[str, Path]) -> None:
    floors = {name: _glibc_floor(path) for name, path in _files(packages) if ".so" in Path(name).suffixes}
    assert any(name.startswith("faiss/") for name in floors)
    assert {name: floor for name, floor in floors.items() if floor > GLIBC_FLOOR} == {}


def test_modes_and_times_are_the_same_in_every_build(
    layers: dict[str, layers_build.Layer], again: tuple[Path, tuple[layers_build.Layer, ...]]
) -> None:
    for name in layers:
        first, second = (
            {path.relative_to(root): (path.stat().st_mode & 0o777, path.stat().st_mtime) for path in root.rglob("*")}
            for root in (layers_build.DESTINATION / name, again[0] / name)
        )
        assert first == second
        assert {mode for mode, _ in first.values()} <= {0o755, 0o644}
        assert all(315_619_200 <= time_s < 1_400_000_000 for _, time_s in first.values())


def test_a_changed_file_has_another_time_so_that_no_cache_takes_it_for_the_old_one(tmp_path: Path) -> None:
    times_s = []
    for content in ("a = 1", "a = 2", "a = 1"):
        (tmp_path / "module.py").write_text(content)
        layers_build._normalise(tmp_path)
        times_s.append((tmp_path / "module.py").stat().st_mtime)
    assert times_s[0] == times_s[2] != times_s[1]


def test_a_symbolic_link_is_refused(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to("elsewhere")
    with pytest.raises(layers_build.BuildError, match="link is one"):
        layers_build._normalise(tmp_path)


def test_every_module_has_bytecode_that_shows_where_lambda_mounts_it(
    layers: dict[str, layers_build.Layer], packages: dict[str, Path]
) -> None:
    if any(layer.bytecode is None for layer in layers.values()):
        pytest.skip("this machine has no CPython 3.13 to compile with")
    for name, path in _files(packages):
        if path.suffix == ".py":
            compiled = path.parent / "__pycache__" / f"{path.stem}.cpython-313.pyc"
            content = compiled.read_bytes()
            # PEP 552: bit 0, by hash; bit 1, checked against the source.
            assert content[4:8] == b"\1\0\0\0", name
            assert f"/opt/python/{name}".encode() in content, name


def test_our_layer_holds_our_package_without_command_line_and_embedded_store(packages: dict[str, Path]) -> None:
    assert [path.name for path in packages["countermark"].iterdir()] == ["countermark"]
    package = packages["countermark"] / "countermark"
    source = layers_build.ROOT / "layers" / "countermark" / "python" / "countermark"
    expected = {
        path.relative_to(source).as_posix()
        for path in source.rglob("*")
        if path.is_file()
        and "__pycache__" not in path.parts
        and path.relative_to(source).parts[0] not in ("__main__.py", "cli", "local")
    }
    found = {path.relative_to(package).as_posix() for path in package.rglob("*") if path.is_file()}
    assert {name for name in found if "__pycache__" not in name} == expected


def test_every_import_of_our_layer_is_in_a_layer_or_in_the_runtime(packages: dict[str, Path]) -> None:
    missing = set()
    for path in packages["countermark"].rglob("*.py"):
        for name in _required_imports(path):
            top = name.partition(".")[0]
            if top in sys.stdlib_module_names or top in IN_RUNTIME:
                continue
            if not any(_holds(root, name if top == "countermark" else top) for root in packages.values()):
                missing.add((path.name, name))
    assert missing == set()


@pytest.mark.skipif(
    (platform.system(), platform.machine()) != ("Linux", "x86_64"), reason="the layers are for x86_64 Linux"
)
def test_the_layers_import_in_a_clean_python_of_the_runtime_s_version(packages: dict[str, Path]) -> None:
    compiler = layers_build.find_compiler()
    if compiler is None:
        pytest.skip("this machine has no CPython 3.13")
    modules = [
        "numpy",
        "faiss",
        "PIL.Image",
        "PIL._avif",
        "pillow_heif",
        "rapidfuzz.distance",
        "urllib3",
        "pydantic",
        "countermark",
    ]
    modules += ["aws_lambda_powertools", "aws_lambda_powertools.metrics", "aws_lambda_powertools.utilities.batch"]
    script = f"import sys; sys.path[:0] = {[str(path) for path in packages.values()]!r}\n"
    script += "".join(f"import {module}\n" for module in modules)
    # -I and -S: no environment, no site-packages; -W error: nothing deprecated on the way; -B: the layer is read-only.
    result = subprocess.run([compiler[0], "-I", "-S", "-B", "-c", script], capture_output=True, text=True)
    assert (result.returncode, result.stderr) == (0, "")


def _canonical(project: str) -> str:
    return re.sub(r"[-_.]+", "-", project).lower()


def _locked(name: str) -> set[tuple[str, str]]:
    """Return the projects and versions that a layer's lock names."""
    text = (layers_build.ROOT / "layers" / name / "requirements.txt").read_text()
    return {(_canonical(project), version) for project, version in re.findall(r"^([\w.-]+)==(\S+)", text, re.MULTILINE)}


def _glibc_floor(path: Path) -> tuple[int, ...]:
    """Return the newest version of glibc that a shared object needs symbols of; () where it needs none."""
    floor: tuple[int, ...] = ()
    with path.open("rb") as file:
        for section in ELFFile(file).iter_sections():
            if isinstance(section, GNUVerNeedSection):
                for _, needed in section.iter_versions():
                    for version in needed:
                        if match := re.fullmatch(r"GLIBC_([\d.]+)", version.name):
                            floor = max(floor, tuple(int(part) for part in match[1].split(".")))
    return floor


def _required_imports(path: Path) -> set[str]:
    """Return what a module imports anywhere, but for `if TYPE_CHECKING` and what it tries and can do without."""
    names = set()
    pending: list[ast.AST] = [ast.parse(path.read_bytes())]
    while pending:
        node = pending.pop()
        if isinstance(node, ast.If) and ast.unparse(node.test).endswith("TYPE_CHECKING"):
            pending += node.orelse
            continue
        if isinstance(node, ast.Try) and any("ImportError" in ast.unparse(h.type) for h in node.handlers if h.type):
            continue
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names.add(node.module)
        pending += ast.iter_child_nodes(node)
    return names


def _holds(root: Path, module: str) -> bool:
    place = root.joinpath(*module.split("."))
    return place.is_dir() or place.with_suffix(".py").is_file()


def test_what_has_changed_since_the_layers_were_built_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package, made = tmp_path / "package", tmp_path / "made"
    (package / "api").mkdir(parents=True)
    (package / "api" / "app.py").write_text("A = 1")
    (package / "gone.py").write_text("G = 1")
    monkeypatch.setattr(layers_build, "LAYERS", ("countermark",))
    monkeypatch.setattr(layers_build, "EXTENSIONS", tmp_path / "given")
    monkeypatch.setattr(layers_build, "_package", lambda: package)
    assert layers_build.changed_inputs(made) == ("the layer countermark, which was not built yet",)
    layers_build.build(made)
    assert layers_build.changed_inputs(made) == ()

    (package / "api" / "app.py").write_text("A = 2")
    (package / "gone.py").unlink()
    (package / "new.py").write_text("N = 1")
    # No function uses it.
    (package / "cli").mkdir()
    (package / "cli" / "root.py").write_text("C = 1")
    (tmp_path / "given" / "python").mkdir(parents=True)
    changed = ("api/app.py", "gone.py", "new.py", "the layer extensions, which was not built yet")
    assert layers_build.changed_inputs(made) == changed
    layers_build.build(made)
    assert layers_build.changed_inputs(made) == ()

    manifest = json.loads((made / "manifest.json").read_text())
    del manifest["inputs"]  # as an earlier version wrote it
    (made / "manifest.json").write_text(json.dumps(manifest))
    assert "the layer countermark, which was not built yet" in layers_build.changed_inputs(made)
