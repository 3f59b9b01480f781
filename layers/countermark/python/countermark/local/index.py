"""The segments and the manifests of the index, as files."""

import hashlib
import re
from collections.abc import Collection, Iterable, Iterator
from contextlib import contextmanager
from io import FileIO
from pathlib import Path

from countermark.domain.index import Manifest, PublishedManifest, StoredSegment, garbage
from countermark.errors import InvalidInput, NotFound, PublishConflict
from countermark.indexes.manifest import decode_manifest, encode_manifest
from countermark.local.files import (
    LOCK_TIMEOUT_S,
    TEMPORARY_SUFFIX,
    Locked,
    locked,
    make_directory,
    translated,
    write_atomically,
)

_NAME = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9_.-]*(/[A-Za-z0-9_-][A-Za-z0-9_.-]*)*")


class FileManifestSlot:
    """A `ManifestSlot` that is one file, with a lock file beside it. The token is the SHA-256 of the file, in hex."""

    def __init__(self, path: Path, *, lock_timeout_s: float = LOCK_TIMEOUT_S) -> None:
        """Use a file. The first write creates it."""
        self._manifest = path
        self._manifest_lock = path.with_suffix(".lock")
        self._lock_timeout_s = lock_timeout_s

    def manifest(self) -> PublishedManifest | None:
        data = self._read_manifest()
        if data is None:
            return None
        return PublishedManifest(manifest=decode_manifest(data), token=_token(data))

    def manifest_token(self) -> str | None:
        data = self._read_manifest()
        return None if data is None else _token(data)

    def publish(self, manifest: Manifest, *, replaces: str | None) -> PublishedManifest:
        data = encode_manifest(manifest)
        make_directory(self._manifest.parent)
        with locked(self._manifest_lock, timeout_s=self._lock_timeout_s):
            published = self.manifest_token()
            if published != replaces:
                raise PublishConflict("another build published its manifest first")
            write_atomically(self._manifest, data)
        return PublishedManifest(manifest=manifest, token=_token(data))

    def _read_manifest(self) -> bytes | None:
        with translated(self._manifest):
            try:
                return self._manifest.read_bytes()
            except FileNotFoundError:
                return None


class FileIndexStore(FileManifestSlot):
    """The `IndexStore` of a directory with `manifest.json`, `staged.json`, segments below `segments/`, and lock files.

    Writers of segments hold a shared lock. A garbage collection acquires the same lock exclusively, so it never sees a
    segment that is being written.
    """

    def __init__(self, directory: Path, *, lock_timeout_s: float = LOCK_TIMEOUT_S) -> None:
        """Use a directory. The first write creates it."""
        super().__init__(directory / "manifest.json", lock_timeout_s=lock_timeout_s)
        self.staged = FileManifestSlot(directory / "staged.json", lock_timeout_s=lock_timeout_s)
        self._segments = directory / "segments"
        self._segments_lock = directory / "segments.lock"

    def write_segment(self, name: str, data: bytes | memoryview) -> None:
        """Store a segment, completely or not at all.

        An existing segment is written again. Its age then counts from now, so that it is not removed as garbage.

        Raises:
            InvalidInput: The name is not a valid name of a segment.
        """
        path = self._path(name)
        make_directory(path.parent)
        with locked(self._segments_lock, is_shared=True, timeout_s=self._lock_timeout_s):
            write_atomically(path, data)

    def read_segment(self, name: str, *, offset: int = 0, length: int | None = None) -> bytes:
        with self._opened(name) as file:
            file.seek(offset)
            return file.read(-1 if length is None else length)

    def read_segment_into(self, name: str, memory: memoryview, *, offset: int = 0) -> int:
        with self._opened(name) as file:
            file.seek(offset)
            count = 0
            while count < len(memory) and (bytes_read := file.readinto(memory[count:])):
                count += bytes_read
            return count

    def collect_garbage(
        self,
        keep: Iterable[str],
        *,
        older_than_s: int,
        now_s: int,
        max_bytes: int | None = None,
        grace_s: int = 0,
    ) -> int:
        """Remove segments that are not in `keep`, if they are too old or exceed the size limit.

        While a segment is being written, nothing is removed. The next build can remove the garbage.
        """
        kept = {self._path(name) for name in keep}
        if not self._segments.exists():
            return 0
        try:
            with translated(self._segments), locked(self._segments_lock, timeout_s=0):
                chosen = garbage(
                    _unreferenced_segments(self._segments, kept),
                    older_than_s=older_than_s,
                    now_s=now_s,
                    max_bytes=max_bytes,
                    grace_s=grace_s,
                )
                for segment in chosen:
                    Path(segment.name).unlink()
                return len(chosen)
        except Locked:
            return 0

    @contextmanager
    def _opened(self, name: str) -> Iterator[FileIO]:
        path = self._path(name)
        with translated(path):
            try:
                file = FileIO(path)
            except FileNotFoundError as error:
                raise NotFound(f"there is no segment {name!r}") from error
            with file:
                yield file

    def _path(self, name: str) -> Path:
        if not _NAME.fullmatch(name):
            raise InvalidInput(f"{name!r} is not the name of a segment")
        return self._segments / name


def _unreferenced_segments(directory: Path, kept: Collection[Path]) -> Iterator[StoredSegment]:
    """Yield the segments that are not in `kept`, named by their paths. Remove temporary files of killed writers."""
    for path in directory.rglob("*"):
        if path.suffix == TEMPORARY_SUFFIX:
            path.unlink()
        elif path not in kept and path.is_file():
            status = path.stat()
            yield StoredSegment(name=str(path), size_bytes=status.st_size, written_at_s=status.st_mtime)


def _token(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()
