"""What a platform thinks of a record, in an exchange's own words."""

from collections.abc import Mapping

from countermark.domain.opinion import Verdict
from countermark.errors import InvalidInput


def sent(kind: str, words: Mapping[Verdict, str], verdict: Verdict) -> str:
    """Return the exchange's word for a verdict.

    Raises:
        InvalidInput: It has none.
    """
    if verdict not in words:
        raise InvalidInput(f"{kind} takes no such opinion: {verdict}")
    return words[verdict]
