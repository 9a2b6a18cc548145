"""The little language in which a flavor's extra specs ask for values."""

from __future__ import annotations

import operator
from collections.abc import Callable

_NUMBERS: dict[str, Callable[[float, float], bool]] = {
    "=": operator.ge,  # nova means "at least" by it
    "==": operator.eq,
    "!=": operator.ne,
    ">=": operator.ge,
    "<=": operator.le,
}
_TEXTS: dict[str, Callable[[str, str], bool]] = {
    "s==": operator.eq,
    "s!=": operator.ne,
    "s<": operator.lt,
    "s<=": operator.le,
    "s>": operator.gt,
    "s>=": operator.ge,
    "<in>": operator.contains,
}


def match(value: str, wanted: str) -> bool:
    """Whether a value is as an extra spec asks for; without an operator: the same text.

    nova 26: scheduler/filters/extra_specs_ops.py. What cannot be read as a number does not match.
    """
    sign, *words = wanted.split() or [""]
    if sign == "<or>":
        return value in [word for word in words if word != "<or>"]
    if sign == "<all-in>":
        return bool(words) and all(word in value for word in words)
    if sign in _TEXTS:
        return bool(words) and _TEXTS[sign](value, words[0])
    if sign in _NUMBERS:
        try:
            return bool(words) and _NUMBERS[sign](float(value), float(words[0]))
        except ValueError:
            return False
    return value == wanted
