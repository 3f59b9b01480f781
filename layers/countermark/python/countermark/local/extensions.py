"""The names of the extensions, in a file of the state directory.

They are not in the database, so that the database does not decide which code runs.
"""

import json
from collections.abc import Callable, Sequence
from pathlib import Path

from countermark.errors import Unavailable
from countermark.local.directory import EXTENSIONS_FILE, claim, is_state_directory
from countermark.local.files import locked, make_directory, translated, write_atomically


class ExtensionList:
    """The sorted names of the extension modules in one state directory. Reading the list creates no files."""

    def __init__(self, directory: Path) -> None:
        """Use a state directory. It is created when the first name is added."""
        self._path = directory / EXTENSIONS_FILE

    def modules(self) -> Sequence[str]:
        """Return the names. Empty if the directory belongs to another program that uses a file with the same name.

        Raises:
            Unavailable: The file cannot be read, or does not hold a JSON list of names.
        """
        if not self._path.exists() or not is_state_directory(self._path.parent):
            return []
        with translated(self._path):
            try:
                data = self._path.read_bytes()
            except (FileNotFoundError, NotADirectoryError):
                return []
        try:
            names = json.loads(data)
        except ValueError:
            names = None
        if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
            raise Unavailable(f"{self._path} does not hold the names of extensions as they are stored")
        return names

    def add(self, module: str) -> None:
        """Add a name. Do nothing if it is already in the list.

        Raises:
            Unavailable: The file cannot be read or written.
        """
        self._change(lambda names: names | {module})

    def remove(self, module: str) -> None:
        """Remove a name. Do nothing if it is not in the list.

        Raises:
            Unavailable: The file cannot be read or written.
        """
        self._change(lambda names: names - {module})

    def _change(self, change: Callable[[frozenset[str]], frozenset[str]]) -> None:
        make_directory(self._path.parent)
        claim(self._path.parent)
        with locked(self._path.with_name(self._path.name + ".lock")):
            names = sorted(change(frozenset(self.modules())))
            write_atomically(self._path, (json.dumps(names, indent=1) + "\n").encode("ascii"))
