"""
Whether a data set may be passed on, from the head of its card.

A card says it by `license`, an identifier of the Hub, or outright by `redistribution: true` or `false`. What is not
known to be allowed counts as not allowed: such a data set stays private unless its owner says otherwise.
"""

import re
from dataclasses import dataclass
from typing import Any

import yaml  # type: ignore[import-untyped]

# Licences that let everybody pass the data on, if only for some ends. Those with "nd" do not let a converted form go.
OPEN_LICENCES = re.compile(
    r"(cc0|cc-by(-nc)?(-sa)?-\d|cc-by$|pddl|odbl|odc-by|cdla-|etalab|apache-2|mit$|bsd|openrail|unlicense|wtfpl|afl-|isc$)"
)
TERMS = re.compile(r"^\*\*Terms\.\*\*\s+(.+?)(?:\n\s*\n|\Z)", re.MULTILINE | re.DOTALL)  # a paragraph of our cards


@dataclass(frozen=True)
class DataTerms:
    """
    Terms of a data set.

    Args:
        text (`str`): What its card says, in one line.
        may_be_shared (`bool`): Whether they let everybody pass it on.
    """

    text: str
    may_be_shared: bool


def data_terms(card: str) -> DataTerms:
    """
    Terms of a data set.

    Args:
        card (`str`): Text of its `README.md`.

    Raises:
        ValueError: If its head is no yaml.
    """
    head = card_head(card)
    licences = head.get("license") or []
    names = [str(name).lower() for name in (licences if isinstance(licences, list) else [licences])]
    allowed = head.get("redistribution")
    if not isinstance(allowed, bool):
        allowed = bool(names) and all(OPEN_LICENCES.match(name) for name in names)
    paragraph = TERMS.search(card)
    text = head.get("license_details") or (paragraph and paragraph[1]) or head.get("license_name")
    text = text or (f"licence {', '.join(names)}" if names else "the card states none")
    return DataTerms(" ".join(str(text).split()), bool(allowed))


def card_head(card: str) -> dict[str, Any]:
    """The yaml at the head of a card; empty without one."""
    found = re.match(r"\s*---[ \t]*\r?\n(.*?)\r?\n---[ \t]*(\r?\n|$)", card, re.DOTALL)
    if found is None:
        return {}
    try:
        head = yaml.safe_load(found[1])
    except yaml.YAMLError as error:
        raise ValueError(f"the head of README.md is no yaml: {error}") from error
    return head if isinstance(head, dict) else {}


__all__ = ["DataTerms", "card_head", "data_terms"]
