"""A synthesised template, read as a person would: logical ids without their hashes, and what refers to what."""

import re
from collections.abc import Iterator, Mapping
from typing import Any

_HASH = re.compile(r"[0-9A-F]{8}$")
_EXPORT = re.compile(r".*:ExportsOutput(?:FnGetAtt|Ref)(?P<name>[A-Za-z0-9]+?)[0-9A-F]{8}(?:Arn)?[0-9A-F]{8}")


def named(template: Mapping[str, Any], resource_type: str) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield the resources of a type: their names, which are logical ids without the hash, and properties."""
    for logical_id, resource in template["Resources"].items():
        if resource["Type"] == resource_type:
            yield _HASH.sub("", logical_id), resource.get("Properties", {})


def reference(value: Any) -> str:
    """Return what a value of a template refers to, by name: `Banks`, `Banks/index/feed`, `*`."""
    match value:
        case str():
            return value
        case {"Fn::GetAtt": [str(logical_id), _]} | {"Ref": str(logical_id)}:
            return _HASH.sub("", logical_id)
        case {"Fn::ImportValue": str(export)}:
            found = _EXPORT.fullmatch(export)
            assert found is not None, export
            return found["name"]
        case {"Fn::Join": ["", list(parts)]}:
            return "".join(map(reference, parts))
    raise AssertionError(f"nothing that can be named: {value}")


def as_list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]
