"""JSON as text in a column: plain ASCII, so that even a lone surrogate from an exchange is stored without loss."""

import json
from typing import Any

from countermark.domain.json import JSON


def to_text(value: JSON) -> str:
    """Return the text of a value. Equal values with equal key order give equal texts."""
    return json.dumps(value, separators=(",", ":"), default=dict)


def from_text(text: str) -> Any:
    """Return the value of a text that `to_text` returned."""
    return json.loads(text)
