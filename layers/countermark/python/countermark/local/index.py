"""The index's segments and manifest, as files."""

import hashlib
import re
from collections.abc import Iterable
from pathlib import Path

from countermark.domain.index import Manifest, PublishedManifest
from countermark.errors import InvalidInput, NotFound, PublishConflict
from countermark.indexes.manifest import decode_manifest, encode_manifest
from countermark.local.files import (
    LOCK_TIMEOUT_S,
    TEMPORARY_SUFFIX,
    locked,
    make_directory,
    translated,
    write_atomically,
)

_NAME = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9_.-]*(/[A-Za-z0-9_-][A-Za-z0-9_.-]*)*")


class FileIndexStore:
    """The `IndexStore` of one directory: `manifest.json`, `manifest.lock`, and the segments below `segments/`.

    A token is the SHA-256 of the manifest's file.
    """

    def __init__(self, directory: Path, *, lock_timeout_s: float = LOCK_TIMEOUT_S) -> None:
        """Use a directory, created with the first write."""
        self._segments = directory / "segments"
        self._manifest = directory / "manifest.json"
        self._lock = directory / "manifest.lock"
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
        with locked(self._lock, timeout_s=self._lock_timeout_s):
            published = self.manifest_token()
            if published != replaces:
                raise PublishConflict("another build has published its manifest meanwhile")
            write_atomically(self._manifest, data)
        return PublishedManifest(manifest=manifest, token=_token(data))

    def write_segment(self, name: str, data: bytes | memoryview) -> None:
        """Store a segment, whole or not at all.

        One that is there is written anew: it is young again, and so is not taken for garbage by a
        collection that began before this build.

        Raises:
            InvalidInput: The name is not one of a segment.
        """
        path = self._path(name)
        make_directory(path.parent)
        write_atomically(path, data, under=locked(self._lock, timeout_s=self._lock_timeout_s))

    def read_segment(self, name: str, *, offset: int = 0, length: int | None = None) -> bytes:
        path = self._path(name)
        with translated(path):
            try:
                with path.open("rb") as file:
                    file.seek(offset)
                    return file.read(-1 if length is None else length)
            except FileNotFoundError as error:
                raise NotFound(f"there is no segment {name!r}") from error

    def collect_garbage(self, keep: Iterable[str], *, older_than_s: int, now_s: int) -> int:
        kept = {self._path(name) for name in keep}
        if not self._segments.exists():
            return 0
        removed = 0
        # Under the lock no build can write a segment between the look at its age and its end.
        with translated(self._segments), locked(self._lock, timeout_s=self._lock_timeout_s):
            for path in self._segments.rglob("*"):
                if path in kept or not path.is_file() or path.stat().st_mtime >= now_s - older_than_s:
                    continue
                path.unlink()
                removed += path.suffix != TEMPORARY_SUFFIX
        return removed

    def _path(self, name: str) -> Path:
        if not _NAME.fullmatch(name):
            raise InvalidInput(f"{name!r} is not the name of a segment")
        return self._segments / name

    def _read_manifest(self) -> bytes | None:
        with translated(self._manifest):
            try:
                return self._manifest.read_bytes()
            except FileNotFoundError:
                return None


def _token(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()
