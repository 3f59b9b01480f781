"""Verdicts in the terms of each exchange."""

from collections.abc import Mapping

from countermark.domain.opinion import Verdict
from countermark.errors import InvalidInput


def verdict_term(kind: str, terms: Mapping[Verdict, str], verdict: Verdict) -> str:
    """Return the exchange's term for a verdict. `terms` maps the verdicts that the exchange accepts to its terms.

    Raises:
        InvalidInput: The exchange does not accept this verdict.
    """
    if verdict not in terms:
        raise InvalidInput(f"{kind} does not accept the opinion {verdict}")
    return terms[verdict]
