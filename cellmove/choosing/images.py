"""What an image asks of a host, and which hosts are kept for some images only."""

from __future__ import annotations

import operator
import re
from collections.abc import Callable

from cellmove.choosing.facts import Candidate, Wish

KINDS = ("hw_architecture", "img_hv_type", "hw_vm_mode")
VERSION_KEY = "img_hv_requested_version"
PROPERTY_PREFIXES = ("hw_", "img_", "os_")
"""Of the properties that nova knows (26: objects/image_meta.py); aggregates have other keys too."""
TRAIT = re.compile(r"trait[^:]*:(.+)")
"""In a flavor or an image; a number or a name before the colon tells which group asks for it."""

_BOUND = re.compile(r"\s*(<=|>=|<|>|==|!=)\s*(\d+\.\d+(?:\.\d+)?)\s*")
_COMPARED: dict[str, Callable[[tuple[int, ...], tuple[int, ...]], bool]] = {
    "<": operator.lt,
    "<=": operator.le,
    "==": operator.eq,
    "!=": operator.ne,
    ">=": operator.ge,
    ">": operator.gt,
}
_FACTOR = 1000
"""Between two numbers of a version that is written as one."""


def runs_image(candidate: Candidate, wish: Wish) -> str:
    """The image's architecture, hypervisor and mode.

    nova 26: scheduler/filters/image_props_filter.py.
    """
    wanted = [wish.image[key].lower() for key in KINDS if wish.image.get(key)]
    if any(all(each in kind for each in wanted) for kind in candidate.supports) or not wanted:
        return ""
    return f"it does not run images of kind {'/'.join(wanted)}"


def has_version(candidate: Candidate, wish: Wish) -> str:
    """The image's `img_hv_requested_version`, as `>=6.0, <8.0`.

    nova 26: scheduler/filters/image_props_filter.py. A host that tells no version passes there too.
    """
    wanted, found = wish.image.get(VERSION_KEY), candidate.capabilities.get("hypervisor_version")
    if not wanted or not isinstance(found, int) or not found:
        return ""
    bounds = [_BOUND.fullmatch(each) for each in wanted.split(",")]
    version = _numbers(found)
    if all(each and _COMPARED[each[1]](version, _padded(each[2])) for each in bounds):
        return ""
    if None in bounds:
        return f"the image's {VERSION_KEY} cannot be read: {wanted}"
    return f"its hypervisor is {'.'.join(map(str, version))}, the image wants {wanted}"


def suits_aggregates(candidate: Candidate, wish: Wish) -> str:
    """Where an aggregate names one of the image's properties, its value is among those there.

    nova 26: scheduler/filters/aggregate_image_properties_isolation.py. Values are compared without
    regard to case: nova reads `true` of an image as `True`.
    """
    for key, value in wish.image.items():
        if not key.startswith(PROPERTY_PREFIXES) or not value:
            continue
        listed = [each.strip() for text in candidate.metadata(key) for each in text.split(",")]
        if listed and value.lower() not in map(str.lower, listed):
            return f"its aggregate is for images with {key} {', '.join(listed)}, not {value}"
    return ""


def has_traits_of_aggregates(candidate: Candidate, wish: Wish) -> str:
    """Hosts of an aggregate with a required trait are for servers that ask for that trait.

    nova 26: scheduler/request_filter.py:isolate_aggregates.
    """
    asked = {
        found[1]
        for key, how in (*wish.flavor.extra_specs.items(), *wish.image.items())
        if how == "required" and (found := TRAIT.fullmatch(key))
    }
    for aggregate in candidate.aggregates:
        for key, how in aggregate.metadata.items():
            trait = key.removeprefix("trait:")
            if how == "required" and trait != key and trait not in asked:
                return f"its aggregate is for servers that require trait {trait}"
    return ""


def is_isolated_alike(candidate: Candidate, wish: Wish) -> str:
    """Isolated images run on isolated hosts, and nothing else does.

    nova 26: scheduler/filters/isolated_hosts_filter.py, as it is by default.
    """
    if candidate.isolated == wish.isolated:
        return ""
    if wish.isolated:
        return "the server's image is for isolated hosts"
    return "it is an isolated host, for isolated images"


def _numbers(version: int) -> tuple[int, ...]:
    """7002000 -> (7, 2, 0)."""
    numbers: list[int] = []
    while version:
        version, number = divmod(version, _FACTOR)
        numbers.insert(0, number)
    return tuple(numbers)


def _padded(text: str) -> tuple[int, ...]:
    """`7.2` -> (7, 2, 0)."""
    numbers = tuple(map(int, text.split(".")))
    return numbers + (0,) * (3 - len(numbers))
