"""What a check has found: lists of findings, each with its severity, count and examples."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

Severity = Literal["error", "warning", "note"]

EXAMPLES = 10  # kept of each finding
EXAMPLE_LENGTH = 300  # characters


@dataclass(frozen=True, kw_only=True)
class Finding:
    """One kind of thing found in one set."""

    severity: Severity  # error: training refuses or loses it; warning: look at it; note: legal
    kind: str  # a short stable name: "tiny", "leak"
    set: str  # "train", "train 2", "val"
    count: int
    what: str  # one line: what it is and what comes of it
    examples: tuple[str, ...]


class Findings:
    """Collects findings; nothing is added for a count of 0."""

    def __init__(self) -> None:
        self._found: list[Finding] = []

    def add(
        self,
        severity: Severity,
        kind: str,
        set: str,
        what: str,
        examples: Sequence[str],
        count: int | None = None,
    ) -> None:
        """Add a finding; its count is that of the examples, of which the first are kept."""
        count = len(examples) if count is None else count
        if count:
            kept = tuple(example[:EXAMPLE_LENGTH] for example in examples[:EXAMPLES])
            self._found.append(
                Finding(
                    severity=severity, kind=kind, set=set, count=count, what=what, examples=kept
                )
            )

    def __iter__(self) -> Iterator[Finding]:
        """Errors first, then warnings, then notes."""
        order = {"error": 0, "warning": 1, "note": 2}
        return iter(sorted(self._found, key=lambda finding: order[finding.severity]))

    def count(self, severity: Severity) -> int:
        """How many findings of a severity there are."""
        return sum(finding.severity == severity for finding in self._found)

    def as_records(self) -> list[dict[str, Any]]:
        """For JSON."""
        return [asdict(finding) for finding in self]


def shares(count: int, of: int) -> str:
    """`12 of 205 (5.9 %)`."""
    return f"{count} of {of} ({count / max(of, 1):.1%})".replace("%", " %")


def shorten(names: Iterable[str], limit: int = 8) -> str:
    """The first few names, and how many more there are."""
    listed = list(names)
    more = f" and {len(listed) - limit} more" if len(listed) > limit else ""
    return ", ".join(listed[:limit]) + more
