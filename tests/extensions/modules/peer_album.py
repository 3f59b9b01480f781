"""An extension of python-threatexchange: an album of photos and captions, and a signal type of albums."""

# mypy: disable-error-code="misc,import-not-found,no-untyped-def"
# It imports what only the environment of the peer has.

import hashlib
import tempfile
import zipfile
from pathlib import Path

from threatexchange.content_type.content_base import ContentType
from threatexchange.content_type.photo import PhotoContent
from threatexchange.content_type.text import TextContent
from threatexchange.extensions.manifest import ThreatExchangeExtensionManifest
from threatexchange.signal_type.signal_base import BytesHasher, SimpleSignalType


class AlbumContent(ContentType):
    """A ZIP archive: texts, photos and albums."""

    @classmethod
    def extract_additional_content(cls, content_arg: str) -> list[tuple[type[ContentType], str]]:
        kinds: dict[str, type[ContentType]] = {".png": PhotoContent, ".album": AlbumContent}
        directory = Path(tempfile.mkdtemp(prefix="album-", dir=Path.home()))
        found: list[tuple[type[ContentType], str]] = []
        with zipfile.ZipFile(content_arg) as archive:
            for name in archive.namelist():
                if name.endswith(".txt"):
                    found.append((TextContent, archive.read(name).decode()))
                else:
                    found.append((kinds[Path(name).suffix], archive.extract(name, directory)))
        return found


class AlbumDigestSignal(SimpleSignalType, BytesHasher):
    """The SHA-1 of an album."""

    @classmethod
    def get_content_types(cls) -> list[type[ContentType]]:
        return [AlbumContent]

    @classmethod
    def hash_from_bytes(cls, bytes_: bytes) -> str:
        return hashlib.sha1(bytes_, usedforsecurity=False).hexdigest()

    @classmethod
    def validate_signal_str(cls, signal_str: str) -> str:
        if len(signal_str) != 40:
            raise ValueError("no SHA-1")
        return signal_str

    @staticmethod
    def get_examples() -> list[str]:
        return ["da39a3ee5e6b4b0d3255bfef95601890afd80709"]


TX_MANIFEST = ThreatExchangeExtensionManifest(content_types=(AlbumContent,), signal_types=(AlbumDigestSignal,))
