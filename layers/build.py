"""Build the Lambda layers into build/layers, without Docker or a compiler. Equal inputs produce equal bytes.

Each of the three layers is a directory that the CDK uses as an asset. `light` and `heavy` contain the packages that
the requirements.txt of each layer locks. `countermark` contains the package countermark, without its command line and
its embedded store, because no function uses these. If layers/extensions has packages or modules, a fourth layer,
`extensions`, is built. It contains the packages that layers/extensions/requirements.txt locks, and the modules in
layers/extensions/python. The file manifest.json, next to the layers, describes the built layers. If the inputs and
files of a layer have not changed, the layer is not built again.

The layers contain bytecode. Without bytecode, each cold start would compile the sources again, because a layer is
mounted read-only. Measured: without bytecode, imports take 3.1 s instead of 1.2 s. The bytecode must come from CPython
3.13, the version of the runtime. If this machine has no CPython 3.13, the layers are built without bytecode, and the
report says so.

Usage: python -m layers.build [--force]
"""

import argparse
import fcntl
import hashlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

SCRIPT = Path(__file__).resolve()
ROOT = SCRIPT.parent.parent
DESTINATION = ROOT / "build" / "layers"
LAYERS = ("light", "heavy", "countermark")
# The directory of the deployment's extensions, if it exists. It contains requirements.txt, the directory python, or
# both.
EXTENSIONS = ROOT / "layers" / "extensions"

# The functions' runtime is python3.13 on x86_64 and Amazon Linux 2023. Its glibc 2.34 can load wheels for glibc 2.28.
PYTHON_VERSION = "3.13"
PLATFORM = "x86_64-manylinux_2_28"
# The directory where Lambda mounts a layer's python directory. Tracebacks show paths below this directory.
MOUNT = "/opt/python"

# Source: AWS Lambda quotas, "Deployment package size": 250 MB unzipped, for all layers and the function together.
UNPACKED_LIMIT_BYTES = 250 * 1024 * 1024
# The part of the limit that remains for a function's code, the package `lambdas`, which is small.
FUNCTION_RESERVE_BYTES = 1024 * 1024

# A file's modification time is computed from the file's content. So the time is the same in every build, and changes
# with the content. One fixed time for all files would be wrong. The CDK caches a file's digest by inode, time and size;
# that cache remains after a build, and inodes are reused. The times are between 1980-01-02 and 2014, so that a zip file
# can represent them in every time zone.
FIRST_TIME_S = 315_619_200
TIME_SPAN_S = 2**30

# Directories that only tests and builds use: tests, headers, and NumPy's f2py, PyInstaller hook and C examples.
UNUSED_DIRECTORIES = frozenset({"__pycache__", "_examples", "_pyinstaller", "bin", "f2py", "include", "test", "tests"})
UNUSED_SUFFIXES = frozenset({".a", ".c", ".cpp", ".h", ".hpp", ".pc", ".pxd", ".pyc", ".pyi", ".pyx"})
# Files in which an installer records an installation. They differ between builds, and list files that `_strip` removes.
INSTALLER_NOTES = frozenset({"INSTALLER", "RECORD", "REQUESTED", "direct_url.json", "uv_build.json", "uv_cache.json"})
# The prefix of temporary directories in which layers are built. An interrupted build leaves its directory behind.
SCRATCH_PREFIX = ".making-"
# Parts of the package countermark that no function imports.
LOCAL_ONLY = frozenset({"__main__.py", "cli", "local"})


class BuildError(Exception):
    """The layers cannot be built, or must not be deployed. The message is the reason."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Layer:
    """One built layer.

    Attributes:
        name: One of LAYERS.
        inputs_sha256: Digest of all inputs of the build.
        sha256: Digest of the files: paths, modes and contents.
        size_bytes: Unpacked size.
        file_count: Number of files.
        bytecode: Version of the CPython that compiled the layer; None if the layer has no bytecode.
    """

    name: str
    inputs_sha256: str
    sha256: str
    size_bytes: int
    file_count: int
    bytecode: str | None


def build(destination: Path = DESTINATION, *, force: bool = False) -> tuple[Layer, ...]:
    """Build the layers that are missing or out of date, and return all layers, in the order of LAYERS.

    Several processes can call this function at once. One builds the layers; the others wait, and find them up to date.

    Args:
        destination: Directory for the layers; created if missing.
        force: Build every layer, even if its inputs and files have not changed.

    Raises:
        BuildError: An installer or compiler failed, or the layers are larger than Lambda allows.
    """
    destination.mkdir(parents=True, exist_ok=True)
    compiler = find_compiler()
    with _locked(destination):
        for leftover in destination.glob(f"{SCRATCH_PREFIX}*"):
            shutil.rmtree(leftover)
        known = {} if force else _read_manifest(destination)
        names = _names()
        layers = tuple(_build_layer(name, destination, compiler, known.get(name)) for name in names)
        if not _has_extensions():
            shutil.rmtree(destination / "extensions", ignore_errors=True)
        _write_manifest(destination, layers, {name: _inputs_by_name(name, compiler) for name in names})
    size_bytes = sum(layer.size_bytes for layer in layers)
    if size_bytes + FUNCTION_RESERVE_BYTES > UNPACKED_LIMIT_BYTES:
        raise BuildError(
            f"the layers take {size_bytes:,} bytes unpacked; "
            f"with {FUNCTION_RESERVE_BYTES:,} for a function, Lambda allows {UNPACKED_LIMIT_BYTES:,}"
        )
    return layers


def changed_inputs(destination: Path = DESTINATION) -> tuple[str, ...]:
    """Return the files that were added, changed or removed since the layers were built, sorted.

    A layer that was never built is one entry of the result, without the names of its files.
    """
    try:
        built = json.loads((destination / "manifest.json").read_text(encoding="utf-8"))["inputs"]
    except (FileNotFoundError, ValueError, KeyError, TypeError):
        built = {}
    compiler = find_compiler()
    changed: set[str] = set()
    for name in _names():
        if name in built:
            now = _inputs_by_name(name, compiler)
            changed |= {key for key in now.keys() | built[name].keys() if now.get(key) != built[name].get(key)}
        else:
            changed.add(f"the layer {name}, which was not built yet")
    return tuple(sorted(changed))


def find_compiler() -> tuple[Path, str] | None:
    """Return the path of a CPython 3.13 on this machine and its full version, or None if there is none."""
    if sys.implementation.name == "cpython" and sys.version_info[:2] == (3, 13):
        command = Path(sys.executable)
    else:
        found = subprocess.run(
            [ROOT / ".ci" / "find-python", "--only-3.13"], capture_output=True, text=True, check=False
        )
        if found.returncode != 0:
            return None
        command = Path(found.stdout.strip())
    version = _run([command, "-c", "import platform; print(platform.python_version())"])
    return command, version.strip()


def tree_digest(directory: Path) -> str:
    """Return the SHA-256 of a directory's files: sorted relative paths, modes, sizes and contents."""
    digest = hashlib.sha256()
    for path in _files(directory):
        status = path.stat()
        name = path.relative_to(directory).as_posix()
        digest.update(f"{name}\0{status.st_mode & 0o7777:o}\0{status.st_size}\0".encode())
        digest.update(path.read_bytes())
    return digest.hexdigest()


def _build_layer(name: str, destination: Path, compiler: tuple[Path, str] | None, known: Layer | None) -> Layer:
    target = destination / name
    inputs_sha256 = _inputs_digest(name, compiler)
    if known and known.inputs_sha256 == inputs_sha256 and target.is_dir() and tree_digest(target) == known.sha256:
        return known
    with tempfile.TemporaryDirectory(dir=destination, prefix=SCRATCH_PREFIX) as scratch:
        # The layer is built in a subdirectory, because only the owner is allowed to read the temporary directory.
        built = Path(scratch) / name
        packages = built / "python"
        packages.mkdir(parents=True)
        if name == "countermark":
            _copy_package(packages)
        elif _lock(name).is_file():
            _install(_lock(name), packages)
            _strip(packages)
        if name == "extensions" and _modules().is_dir():
            shutil.copytree(_modules(), packages, ignore=shutil.ignore_patterns("__pycache__"), dirs_exist_ok=True)
        if compiler:
            _compile(compiler[0], packages)
        _normalise(built)
        layer = Layer(
            name=name,
            inputs_sha256=inputs_sha256,
            sha256=tree_digest(built),
            size_bytes=sum(path.stat().st_size for path in _files(built)),
            file_count=sum(1 for _ in _files(built)),
            bytecode=compiler[1] if compiler else None,
        )
        shutil.rmtree(target, ignore_errors=True)
        built.rename(target)
    return layer


def _inputs_digest(name: str, compiler: tuple[Path, str] | None) -> str:
    """Return a digest of this script, the compiler's version and the layer's inputs."""
    parts = {"layer": name, **_inputs_by_name(name, compiler)}
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


def _inputs_by_name(name: str, compiler: tuple[Path, str] | None) -> dict[str, str]:
    """Return the digest or the version of each input of a layer, by the input's readable name."""
    found = {
        "the version of CPython that compiles": compiler[1] if compiler else "",
        "layers/build.py": _sha256(SCRIPT),
    }
    for root, path in _inputs(name):
        known = path.relative_to(ROOT) if path.is_relative_to(ROOT) else path.relative_to(root)
        found[known.as_posix()] = _sha256(path)
    return found


def _sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _inputs(name: str) -> Iterator[tuple[Path, Path]]:
    """Yield pairs of directory and file, one for each file that a layer is built from.

    The name of a file outside the checkout is relative to this directory.
    """
    if name == "countermark":
        yield from ((_package(), path) for path in _package_files())
    elif _lock(name).is_file():
        yield _lock(name).parent, _lock(name)
    if name == "extensions" and _modules().is_dir():
        yield from ((_modules(), path) for path in _files(_modules()) if "__pycache__" not in path.parts)


def _lock(name: str) -> Path:
    return (EXTENSIONS if name == "extensions" else ROOT / "layers" / name) / "requirements.txt"


def _modules() -> Path:
    return EXTENSIONS / "python"


def _names() -> tuple[str, ...]:
    return LAYERS + (("extensions",) if _has_extensions() else ())


def _has_extensions() -> bool:
    return _lock("extensions").is_file() or _modules().is_dir()


def _package() -> Path:
    return ROOT / "layers" / "countermark" / "python" / "countermark"


def _package_files() -> Iterator[Path]:
    """Yield the files of the package countermark that functions can need, sorted."""
    package = _package()
    for path in _files(package):
        parts = path.relative_to(package).parts
        if parts[0] not in LOCAL_ONLY and "__pycache__" not in parts:
            yield path


def _copy_package(packages: Path) -> None:
    for path in _package_files():
        copy = packages / "countermark" / path.relative_to(_package())
        copy.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, copy)


def _install(lock: Path, packages: Path) -> None:
    """Install the wheels that a lock file names, for the functions' platform and not for this machine."""
    # The installed files are changed later, so they must be copies. Hard links would change uv's cache.
    options = ["--quiet", "--no-deps", "--require-hashes", "--only-binary", ":all:", "--no-compile-bytecode"]
    options += ["--link-mode", "copy", "--target", str(packages), "--requirement", str(lock)]
    options += ["--python", sys.executable, "--python-version", PYTHON_VERSION, "--python-platform", PLATFORM]
    _run([sys.executable, "-m", "uv", "pip", "install", *options])


def _strip(packages: Path) -> None:
    """Remove files that only tests, builds and installers use. Licences and metadata remain."""
    for directory, names, files in os.walk(packages):
        parent = Path(directory)
        if parent.parent == packages and parent.suffix == ".dist-info":
            for file in INSTALLER_NOTES.intersection(files):
                (parent / file).unlink()
            names.clear()
            continue
        for name in UNUSED_DIRECTORIES.intersection(names):
            shutil.rmtree(parent / name)
            names.remove(name)
        for file in files:
            if (parent / file).suffix in UNUSED_SUFFIXES:
                (parent / file).unlink()
    for directory, _, _ in os.walk(packages, topdown=False):
        if not any(Path(directory).iterdir()):
            Path(directory).rmdir()


def _compile(python: Path, packages: Path) -> None:
    # With unchecked hashes, the interpreter does not compare bytecode with its source. A comparison would fail, because
    # a source file has another modification time and path on Lambda than in the build.
    options = ["-q", "-j", "0", "--invalidation-mode", "unchecked-hash", "-s", str(packages), "-p", MOUNT]
    _run([python, "-I", "-m", "compileall", *options, packages])


def _normalise(directory: Path) -> None:
    """Set every file's and directory's mode and modification time to values that do not depend on the machine."""
    for path in (*directory.rglob("*"), directory):
        if path.is_symlink():
            raise BuildError(f"a layer must not contain symbolic links, but {path.relative_to(directory)} is one")
        name = path.relative_to(directory).as_posix().encode()
        digest = hashlib.sha256(name + b"\0" + (path.read_bytes() if path.is_file() else b"")).digest()
        time_s = FIRST_TIME_S + int.from_bytes(digest[:8]) % TIME_SPAN_S
        path.chmod(0o755 if path.is_dir() else 0o644)
        os.utime(path, (time_s, time_s))


def _files(directory: Path) -> Iterator[Path]:
    return (path for path in sorted(directory.rglob("*")) if path.is_file())


def _run(command: Sequence[str | Path]) -> str:
    """Run a command and return its output.

    Raises:
        BuildError: The command could not be started, or failed. After a failure, the message ends with its output.
    """
    try:
        result = subprocess.run(command, capture_output=True, text=True, check=True, stdin=subprocess.DEVNULL)
    except OSError as error:
        raise BuildError(f"cannot run {command[0]}: {error}") from error
    except subprocess.CalledProcessError as error:
        output = (error.stderr.strip() or error.stdout.strip())[-2000:]
        raise BuildError(f"{' '.join(map(str, command))} failed:\n{output}") from error
    return result.stdout


@contextmanager
def _locked(destination: Path) -> Iterator[None]:
    """Hold the destination's lock, so that only one process builds. The lock is also released if the process ends."""
    with (destination / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _read_manifest(destination: Path) -> dict[str, Layer]:
    """Return the layers in the manifest by name; empty if the manifest is missing or has another format."""
    try:
        entries = json.loads((destination / "manifest.json").read_text(encoding="utf-8"))["layers"]
        return {entry["name"]: Layer(**entry) for entry in entries}
    except (FileNotFoundError, ValueError, KeyError, TypeError):
        return {}


def _write_manifest(destination: Path, layers: Sequence[Layer], inputs: Mapping[str, Mapping[str, str]]) -> None:
    manifest = {
        "platform": PLATFORM,
        "python": PYTHON_VERSION,
        "size_bytes": sum(layer.size_bytes for layer in layers),
        "limit_bytes": UNPACKED_LIMIT_BYTES,
        "layers": [asdict(layer) for layer in layers],
        "inputs": inputs,
    }
    written = destination / ".manifest.json"
    written.write_text(json.dumps(manifest, indent=2) + "\n", encoding="utf-8")
    written.replace(destination / "manifest.json")


def main(arguments: Sequence[str] | None = None) -> int:
    """Build the layers, print a report, and return the exit code."""
    parser = argparse.ArgumentParser(prog="python -m layers.build", description="Build the Lambda layers.")
    parser.add_argument("--force", action="store_true", help="build layers again even if they are up to date")
    force: bool = parser.parse_args(arguments).force
    started_s = time.monotonic()
    try:
        layers = build(force=force)
    except BuildError as error:
        print(f"layers: {error}", file=sys.stderr)
        return 1
    for layer in layers:
        print(f"{layer.name:12} {layer.size_bytes / 1e6:6.1f} MB {layer.file_count:5} files  sha256 {layer.sha256}")
    size_mb = sum(layer.size_bytes for layer in layers) / 1e6
    print(
        f"together     {size_mb:6.1f} MB of {UNPACKED_LIMIT_BYTES / 1e6:.1f}, in {time.monotonic() - started_s:.1f} s"
    )
    if any(layer.bytecode is None for layer in layers):
        print(
            "built without bytecode, because this machine has no CPython 3.13: "
            "the layers work, but each cold start takes about 2 s longer",
            file=sys.stderr,
        )
    return 0


if __name__ == "__main__":
    sys.exit(main())
