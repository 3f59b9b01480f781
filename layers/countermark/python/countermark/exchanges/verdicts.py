"""Conversion of verdicts to the terms of an exchange."""

from collections.abc import Mapping

from countermark.domain.opinion import Verdict
from countermark.errors import InvalidInput


def verdict_term(kind: str, terms: Mapping[Verdict, str], verdict: Verdict) -> str:
    """Return the exchange's term for a verdict. `terms` has the term for each verdict that the exchange accepts.

    Raises:
        InvalidInput: The exchange does not accept this verdict.
    """
    if verdict not in terms:
        raise InvalidInput(f"{kind} does not accept the opinion {verdict}")
    return terms[verdict]
