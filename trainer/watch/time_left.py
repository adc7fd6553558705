"""How long a run will still take, from how long its steps, scorings and savings took lately."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable
from statistics import fmean

RECENT_STEPS = 100  # whose mean is what the next steps are expected to take
SLOW_STEPS = 3  # the first ones of a process: kernels are chosen, workers and caches fill


class TimeLeft:
    """Seconds until a run ends: its steps, scorings and savings, each as long as lately.

    Tell it of each as it ends, in the order in which they happen; a thing's time is what went by
    since the thing before, so nothing is lost between. Early stopping is not foreseen.
    """

    def __init__(
        self,
        steps: int,
        *,
        eval_every: int,
        save_every: int,
        first_step: int = 0,
        eval_s: float | None = None,
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        """A run that begins, or goes on, now.

        Args:
            steps: of the whole run.
            eval_every: steps between two scorings; the end has one too, with 0 the only one.
            save_every: steps between two savings; the end has one too.
            first_step: steps done before, scored and saved as they should be.
            eval_s: what a scoring took, where it is known from before a resume.
            clock: seconds, monotonic.
        """
        self.steps = steps
        self._every = {"eval": eval_every, "save": save_every}
        self._step = first_step
        self._done_at = {"eval": first_step, "save": first_step}
        self._seconds: dict[str, float | None] = {"eval": eval_s, "save": None}
        self._recent: deque[float] = deque(maxlen=RECENT_STEPS)
        self._slow: int | None = SLOW_STEPS  # counted until there are better ones
        self._clock = clock
        self._last = clock()

    def step_done(self) -> None:
        """One more step is done."""
        if len(self._recent) == self._slow:
            self._recent.clear()
            self._slow = None
        self._recent.append(self._lap())
        self._step += 1

    def evaluated(self) -> None:
        """A scoring has just ended."""
        self._ended("eval")

    def saved(self) -> None:
        """A saving has just ended."""
        self._ended("save")

    def _ended(self, kind: str) -> None:
        self._seconds[kind] = self._lap()
        self._done_at[kind] = self._step

    def _lap(self) -> float:
        now = self._clock()
        seconds, self._last = now - self._last, now
        return seconds

    def seconds(self) -> float:
        """The estimate; what has not happened yet (see `at_least`) counts as 0."""
        steps = (self.steps - self._step) * (fmean(self._recent) if self._recent else 0.0)
        return steps + sum(
            self._to_come(kind) * (self._seconds[kind] or 0.0) for kind in self._every
        )

    @property
    def at_least(self) -> bool:
        """Whether the estimate lacks something: no step yet, or no scoring to know its time by."""
        unknown = self._seconds["eval"] is None and self._to_come("eval") > 0
        return unknown or not self._recent

    def _to_come(self, kind: str) -> int:
        """How often it will happen: at its multiples and at the last step."""
        done, every = self._done_at[kind], self._every[kind]
        multiples = self.steps // every - done // every if every else 0
        ends_apart = done < self.steps and (not every or self.steps % every != 0)
        return multiples + ends_apart
