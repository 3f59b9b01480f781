"""JSON as text in a column.

The text is plain ASCII, so that even a lone surrogate from an exchange is stored without loss.
"""

import json
from typing import Any

from countermark.domain.json import JSON


def to_text(value: JSON) -> str:
    """Return a value as JSON text. Equal values with the same order of keys have the same text."""
    return json.dumps(value, separators=(",", ":"), default=dict)


def from_text(text: str) -> Any:
    """Return the value from a text that `to_text` returned."""
    return json.loads(text)
