"""Bodies of multipart/form-data, parsed from bytes, with limits.

Source: RFC 7578 (the form) and RFC 2046, section 5.1 (the boundary). A line break before a boundary belongs
to the boundary, and a boundary stands at the beginning of a line: content may hold its text elsewhere.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass

from countermark.errors import InvalidInput

MAX_HEADER_BYTES = 8 * 1024
"""The largest headers of one part."""

_BOUNDARY = re.compile(r"[0-9A-Za-z'()+_,./:=? -]{0,69}[0-9A-Za-z'()+_,./:=?-]")
_PARAMETER = re.compile(r';\s*([A-Za-z0-9_*-]+)\s*=\s*(?:"((?:[^"\\]|\\.)*)"|([^\s;"]+))')


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """One field of a form. `filename` is None where it is no file."""

    name: str
    filename: str | None
    data: bytes

    @property
    def text(self) -> str:
        """The field as text.

        Raises:
            InvalidInput: It is not UTF-8.
        """
        try:
            return self.data.decode("utf-8")
        except UnicodeDecodeError as error:
            raise InvalidInput(f"the form field {self.name!r} is not UTF-8") from error


def is_multipart(content_type: str) -> bool:
    """Tell whether a Content-Type says that the body is a form of parts."""
    return content_type.partition(";")[0].strip().lower() == "multipart/form-data"


def parse(body: bytes, content_type: str, *, max_parts: int) -> list[Part]:
    """Return the parts of a form, in order.

    Raises:
        InvalidInput: There is no boundary, the form is cut off or malformed, or it has too many parts.
    """
    boundary = parameters(content_type).get("boundary", "")
    if not _BOUNDARY.fullmatch(boundary):
        raise InvalidInput("multipart/form-data needs a boundary in its Content-Type")
    parts: list[Part] = []
    for raw in _split(body, b"--" + boundary.encode("ascii")):
        if len(parts) == max_parts:
            raise InvalidInput(f"a form has at most {max_parts} parts")
        parts.append(_part(raw))
    return parts


def parameters(header: str) -> dict[str, str]:
    """Return the parameters of a header, names in lower case: `form-data; name="photo"`."""
    found = {}
    for match in _PARAMETER.finditer(header):
        name, quoted, token = match.groups()
        found[name.lower()] = token if quoted is None else re.sub(r"\\(.)", r"\1", quoted)
    return found


def _split(body: bytes, delimiter: bytes) -> Iterator[bytes]:
    """Yield what lies between the boundaries, up to the closing one."""
    line = re.compile(rb"(?:\A|\r\n)" + re.escape(delimiter) + rb"(--)?[ \t]*(?:\r\n|\Z)")
    before = line.search(body)
    while before is not None and before.group(1) is None:
        # A part may be empty: its boundary's line break is also the one that opens the next boundary.
        after = line.search(body, max(0, before.end() - 2))
        if after is None:
            raise InvalidInput("the form is cut off: its closing boundary is missing")
        yield body[before.end() : max(before.end(), after.start())]
        before = after
    if before is None:
        raise InvalidInput("the form holds no boundary")


def _part(raw: bytes) -> Part:
    head, separator, data = raw.partition(b"\r\n\r\n")
    if not separator or len(head) > MAX_HEADER_BYTES:
        raise InvalidInput("a part of the form has no headers, or too many")
    try:
        lines = head.decode("utf-8").split("\r\n")
    except UnicodeDecodeError as error:
        raise InvalidInput("a part of the form has headers that are not UTF-8") from error
    for line in lines:
        name, _, value = line.partition(":")
        if name.strip().lower() == "content-disposition":
            found = parameters(value)
            if "name" in found:
                return Part(name=found["name"], filename=found.get("filename"), data=data)
    raise InvalidInput("a part of the form has no name")
