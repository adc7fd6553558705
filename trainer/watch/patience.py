"""When a run may stop early."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(kw_only=True)
class Patience:
    """Counts scorings without a better AP; `best` and `since_best` are what a state must keep."""

    limit: int  # of them before the run stops; 0: it never does
    best: float = -1.0
    since_best: int = 0

    def update(self, ap: float | None) -> bool:
        """Whether to stop now.

        Args:
            ap: of the scoring just done; as good as the best is not better. None, where there was
                no object to score on, tells nothing and is not counted.
        """
        if ap is not None:
            better = ap > self.best
            self.best = ap if better else self.best
            self.since_best = 0 if better else self.since_best + 1
        return 0 < self.limit <= self.since_best
