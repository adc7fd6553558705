"""What the official code calls a tensor of ours: the rules of `names`, read backwards."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from functools import lru_cache
from itertools import product

from ..config import Config
from ..necks.bifpn import plan_nodes
from .names import BESIDE_BACKBONE, DLA, JOIN_PARTS, RULES, TREE_PARTS, our_name

DLA_STARTS = ("backbone.bottom_up.", "backbone.bottom_up.backbone.", "backbone.base.")
NUMBERS = tuple(str(number) for number in range(13))
SLOT = re.compile(r"\\(\d)|<(\\\d[^>]*|\\\d)>")


@lru_cache(maxsize=1000)
def official_names(ours: str, levels: int) -> tuple[str, ...]:
    """All official names that become this one of ours, in the order of the rules."""
    found = (name for rule in RULES for name in _by_rule(ours, levels, *rule))
    return tuple(dict.fromkeys(name for name in found if _becomes(name, levels) == ours))


def _becomes(official: str, levels: int) -> str | None:
    try:
        return our_name(official, levels)
    except ValueError:
        return None


def _by_rule(ours: str, levels: int, pattern: str, template: str) -> Iterator[str]:
    """Names that the rule may make ours of; some of them become another."""
    if pattern.startswith(BESIDE_BACKBONE):
        return  # what it is called there, nobody knows
    for name in _undone(ours):
        match = re.fullmatch(_pattern_of(template), name)
        if match:
            for official in _officials(pattern):
                yield from _filled(official, template, match.groups(), levels)


def _undone(ours: str) -> tuple[str, ...]:
    """Our name, and as it was before parts in trees and joins were renamed."""
    start, _, inside = ours.partition(".joins.")
    parts = JOIN_PARTS if inside else TREE_PARTS
    name = f".{inside.partition('.')[2]}" if inside else ours
    for theirs, our in parts:
        if our in (".0.", ".1."):
            name = re.sub(rf"(?<=[a-z]){re.escape(our)}", theirs, name)
        else:
            name = name.replace(our, theirs)
    return ours, f"{start}.joins.{inside.partition('.')[0]}{name}" if inside else name


def _pattern_of(template: str) -> str:
    """A rule's right side as a pattern: each slot is a group."""
    literal, position = "", 0
    for slot in SLOT.finditer(template):
        literal += re.escape(template[position : slot.start()]) + (r"(\d+)" if slot[2] else "(.+)")
        position = slot.end()
    return literal + re.escape(template[position:])


def _officials(pattern: str) -> list[str]:
    """A rule's left side with `{1}` for the first group, once for each thing it may begin with."""
    starts = [pattern.replace(DLA, re.escape(s)) for s in DLA_STARTS if DLA in pattern] or [pattern]
    ways = [start.replace(r"(?:\d\.)?", way) for start in starts for way in ("", r"0\.")]
    counted = []
    for way in dict.fromkeys(ways):
        groups = iter(range(1, 10))
        numbered = re.sub(r"\([^()]*\)", lambda _: f"{{{next(groups)}}}", way)  # noqa: B023
        counted.append(numbered.replace("\\", ""))
    return counted


def _filled(official: str, template: str, values: tuple[str, ...], levels: int) -> Iterator[str]:
    """The left side with the groups' values; what a slot counted anew is tried."""
    choices: dict[int, tuple[str, ...]] = {}
    for slot, value in zip(SLOT.finditer(template), values, strict=True):
        group = int(slot[1] or slot[2][1])
        choices[group] = (value,) if slot[1] else _numbers(slot[2], levels)
    for chosen in product(*(choices[group] for group in sorted(choices))):
        name = official
        for group, text in zip(sorted(choices), chosen, strict=True):
            name = name.replace(f"{{{group}}}", text)
        yield name


def _numbers(slot: str, levels: int) -> tuple[str, ...]:
    """What may stand in a slot that is counted: a node of a BiFPN, or a number."""
    if re.fullmatch(r"\\\d", slot):
        nodes = plan_nodes(levels)
        return tuple("_".join(map(str, (node.level, *node.inputs))) for node in nodes)
    return NUMBERS


def likely_name(ours: str, beside: Iterable[str], config: Config) -> str:
    """The official name of a tensor that a file lacks, as its other names and the preset suggest.

    Args:
        ours: our name.
        beside: official names that the file has.
        config: of the preset.
    """
    names = official_names(ours, len(config.model.neck.levels))
    if len(names) < 2:
        return names[0] if names else ours
    starts = {start for name in beside for start in _starts(name)}
    usual = re.compile("|".join(_usual(config)))

    def likelihood(name: str) -> tuple[int, bool]:
        return sum(start in starts for start in _starts(name)), usual.match(name) is not None

    return max(names, key=likelihood)


def _starts(name: str) -> list[str]:
    parts = name.split(".")
    return [".".join(parts[:count]) for count in range(1, len(parts))]


def _usual(config: Config) -> Iterator[str]:
    """How names begin in official models of these parts, where rules leave a choice."""
    model = config.model
    flavour = getattr(model.neck, "flavour", model.neck.kind)
    yield r"backbone\.repeated_bifpn\." if flavour == "fcos" else r"backbone\.(cell|resample)\."
    if model.backbone.kind == "dla":
        below = {"fcos": r"bottom_up\.backbone", "efficientdet": "bottom_up"}.get(flavour, "base")
        yield rf"backbone\.{below}\.(base_layer|level)"
    else:
        yield r"backbone\.bottom_up\.(stem|res\d.*\.(?!1\.)\w+\.\w+$)"
    single = len(getattr(model.second_stage, "ious", (0, 0))) == 1
    yield r"roi_heads\.box_\w+\.[a-z]" if single else r"roi_heads\.box_\w+\.\d"
    yield r"proposal_generator\.centernet_head\.\w+\.(?!\d+\.conv\.)"
