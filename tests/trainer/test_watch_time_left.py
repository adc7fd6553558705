"""The time estimate against simulated runs, and when a run stops early."""

from collections.abc import Callable
from dataclasses import asdict

import pytest

from cn2.trainer.watch.patience import Patience
from cn2.trainer.watch.time_left import RECENT_STEPS, TimeLeft

CLOSE = 0.1  # of the truth: what the estimate promises after a tenth of the run


class Simulation:
    """A run on a clock of its own, in the training loop's order: step, report, score, save."""

    def __init__(
        self,
        steps: int,
        step_s: Callable[[int], float],
        *,
        eval_every: int = 0,
        eval_s: float = 0.0,
        save_every: int = 10**9,
        save_s: float = 0.0,
        first_step: int = 0,
        known_eval_s: float | None = None,
    ) -> None:
        self.now = self.begin = 1000.0
        self.left = TimeLeft(
            steps,
            eval_every=eval_every,
            save_every=save_every,
            first_step=first_step,
            eval_s=known_eval_s,
            clock=lambda: self.now,
        )
        self.told: dict[int, tuple[float, float, bool]] = {}  # step: time, estimate, at least
        for step in range(first_step + 1, steps + 1):
            self.now += step_s(step)
            self.left.step_done()
            self.told[step] = (self.now, self.left.seconds(), self.left.at_least)
            if step == steps or (eval_every and step % eval_every == 0):
                self.now += eval_s
                self.left.evaluated()
            if step == steps or step % save_every == 0:
                self.now += save_s
                self.left.saved()
        self.end = self.now

    def errors(self, first: int) -> list[float]:
        """Relative errors from a step on, until a twentieth of the time is left."""
        rows = [
            (self.end - now, told) for step, (now, told, _) in self.told.items() if step >= first
        ]
        least = (self.end - self.begin) / 20
        return [abs(told - truth) / truth for truth, told in rows if truth >= least]


def slow_start(step: int) -> float:
    return 20.0 if step == 1 else 5.0 if step <= 3 else 0.5


def noisy(step: int) -> float:
    return 0.5 + 0.2 * (step * 7919 % 11 - 5) / 5


@pytest.mark.parametrize(
    ("steps", "step_s"),
    [(50, lambda _: 0.5), (50, slow_start), (1000, slow_start), (1000, noisy)],
)
def test_steps_alone(steps: int, step_s: Callable[[int], float]) -> None:
    run = Simulation(steps, step_s)
    assert len(run.errors(steps // 10)) >= 0.8 * steps
    assert max(run.errors(steps // 10)) < CLOSE


def test_scorings_and_savings_in_between_are_counted() -> None:
    run = Simulation(1000, slow_start, eval_every=50, eval_s=30, save_every=40, save_s=4)
    assert max(run.errors(100)) < 0.02
    steps_only = 0.5 * 900
    assert run.end - run.told[100][0] > 2 * steps_only  # without them it would be far off


def test_scorings_off_the_beat_of_the_last_step() -> None:
    run = Simulation(130, lambda _: 1.0, eval_every=50, eval_s=40, save_every=50, save_s=8)
    now, told, at_least = run.told[60]
    assert told == pytest.approx(run.end - now)  # one at 100, one at 130
    assert told == pytest.approx(70 + 2 * 40 + 2 * 8)
    assert not at_least
    assert run.told[100][1] == pytest.approx(30 + 2 * 40 + 2 * 8)  # that of step 100 is to come
    assert run.told[130][1] == pytest.approx(40 + 8)
    assert run.left.seconds() == 0


def test_before_the_first_scoring_it_is_at_least() -> None:
    run = Simulation(100, lambda _: 1.0, eval_every=40, eval_s=10)
    assert run.told[30][1:] == (pytest.approx(70), True)
    assert run.told[40][2]  # told before the scoring
    assert run.told[41][1:] == (pytest.approx(59 + 2 * 10), False)


def test_a_run_that_slows_down_and_speeds_up() -> None:
    """Half the machine is taken away at a third of the run and given back at two thirds."""
    run = Simulation(3000, lambda step: 1.0 if 1000 < step <= 2000 else 0.5)
    _, told, _ = run.told[1000 + RECENT_STEPS]
    assert told == pytest.approx(1.0 * (3000 - 1000 - RECENT_STEPS))  # as if it stayed so
    assert max(run.errors(2000 + RECENT_STEPS)) < 1e-9


def test_a_run_that_slows_by_a_fifth() -> None:
    run = Simulation(2000, lambda step: 0.5 * (1 + 0.2 * step / 2000), eval_every=100, eval_s=20)
    assert 0.05 < max(run.errors(200)) < CLOSE  # the trend is not foreseen: half of its rest


def test_a_resumed_run_knows_only_its_own_steps() -> None:
    whole = {"eval_every": 100, "eval_s": 20.0, "save_every": 100, "save_s": 2.0}
    run = Simulation(1000, slow_start, first_step=500, known_eval_s=20.0, **whole)
    assert not run.told[501][2]
    resumed = Simulation(1000, lambda _: 0.5, first_step=500, known_eval_s=20.0, **whole)
    assert max(resumed.errors(510)) < CLOSE
    now, told, _ = resumed.told[510]
    assert told == pytest.approx(resumed.end - now - 5 * 2.0)  # no saving has been seen yet


def test_before_the_first_step() -> None:
    left = TimeLeft(10, eval_every=0, save_every=5, clock=lambda: 0.0)
    assert left.seconds() == 0
    assert left.at_least
    finished = TimeLeft(10, eval_every=0, save_every=5, first_step=10, clock=lambda: 0.0)
    assert finished.seconds() == 0


def stops(patience: Patience, scores: list[float | None]) -> list[bool]:
    return [patience.update(ap) for ap in scores]


@pytest.mark.parametrize(
    ("limit", "scores", "expected"),
    [
        (2, [0.1, 0.2, 0.15, 0.19], [False, False, False, True]),
        (2, [0.1, 0.1, 0.1], [False, False, True]),  # a tie is not better
        (2, [0.1, 0.05, 0.2, 0.1], [False, False, False, False]),  # a better one begins anew
        (1, [None, None, 0.0, None, 0.0], [False, False, False, False, True]),  # None: no word
        (1, [0.0, 0.0], [False, True]),  # 0 is better than nothing at all
        (1, [0.3, float("nan")], [False, True]),
        (0, [0.5, 0.4, 0.3, None], [False] * 4),  # never
    ],
)
def test_patience(limit: int, scores: list[float | None], expected: list[bool]) -> None:
    assert stops(Patience(limit=limit), scores) == expected


def test_patience_goes_on_from_its_two_numbers() -> None:
    before = Patience(limit=3)
    assert stops(before, [0.4, 0.3]) == [False, False]
    assert asdict(before) == {"limit": 3, "best": 0.4, "since_best": 1}
    after = Patience(limit=3, best=before.best, since_best=before.since_best)
    assert stops(after, [0.39, 0.4]) == [False, True]
