"""JSON as text in a column: plain ASCII, so that even half a character that an exchange sent comes back."""

import json
from typing import Any

from countermark.domain.json import JSON


def to_text(value: JSON) -> str:
    """Return the text of a value; equal values of one key order give equal texts."""
    return json.dumps(value, separators=(",", ":"), default=dict)


def from_text(text: str) -> Any:
    """Return the value of a text that `to_text` made."""
    return json.loads(text)
