"""Claims about optimizers and what the trials say of them, as data with one line of plain language."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from numpy.typing import ArrayLike

from tunesmith import check
from tunesmith.comparison.ranks import beats, beats_band, crossing, gap
from tunesmith.comparison.statistics import DRAWS, LEVEL, Ints, reach, trials

Answer = Literal["holds", "does not hold", "cannot be told"]


@dataclass(frozen=True)
class Verdict:
    """What the trials say of a claim.

    Attributes:
        claim: a sentence that is true or false.
        answer: "holds", "does not hold", or "cannot be told" where the interval has both answers.
        reason: the figures, in one line.
    """

    claim: str
    answer: Answer
    reason: str

    def __str__(self) -> str:
        return f"{self.claim}: {self.answer} ({self.reason})"


def no_worse(
    general: ArrayLike,
    special: ArrayLike,
    k: int,
    *,
    names: tuple[str, str] = ("the general optimizer", "the special one"),
    margin: float = 0.0,
    level: float = LEVEL,
    maximise: bool = False,
) -> Verdict:
    """Whether an optimizer is no worse than one that it contains, by the median of the best of k trials.

    Choi et al. 2019: with enough tuning it is not, since it can do all that the other one does. Two that are equally
    good
    differ by chance alone: only a margin can show that.

    Args:
        general, special: values of trials [n], [m].
        k: the budget; at most the ``reach`` of the smaller number of trials, beyond which it cannot be told.
        names: of the two in the claim.
        margin: how much worse still counts as no worse, in the units of the values.
        level, maximise: as of ``gap``.

    Raises:
        TypeError, ValueError: as ``gap``, or the margin is under 0.
    """
    check.real("no_worse", margin=margin)
    if margin < 0:
        raise ValueError(f"no_worse: margin={margin} must be at least 0")
    told = _told("no_worse", general, special, level, maximise)
    check.whole("no_worse", 1, k=k)
    within = f" by more than {margin:g}" if margin else ""
    claim = f"with {k} trial{'s' * (k > 1)} {names[0]} is no worse than {names[1]}{within}"
    if k > told.largest:
        return Verdict(claim, "cannot be told", str(told))
    found = gap(general, special, [k], level=level, maximise=maximise)
    estimate, low, high = float(found.estimate[0]), float(found.low[0]), float(found.high[0])
    equal = float(beats(general, special, [k], ties=1.0, maximise=maximise)[0])
    answer: Answer = "holds" if high <= margin else "does not hold" if low > margin else "cannot be told"
    interval = f"{_percent(level)} {low:.4g} to {high:.4g}; under 0 is better"
    reason = f"its median is worse by {estimate:.4g}, {interval}; at least as good with probability {equal:.2f}"
    return Verdict(claim, answer, reason)


def better(
    one: ArrayLike,
    other: ArrayLike,
    k: int,
    *,
    names: tuple[str, str] = ("one", "the other"),
    level: float = LEVEL,
    maximise: bool = False,
) -> Verdict:
    """Whether the best of k trials of one is more often better than that of the other, by ``beats_band``.

    Args:
        one, other: values of trials [n], [m].
        k, names, level, maximise: as of ``no_worse``.
    """
    told = _told("better", one, other, level, maximise)
    check.whole("better", 1, k=k)
    claim = f"with {k} trial{'s' * (k > 1)} {names[0]} is more often better than {names[1]}"
    if k > told.largest:
        return Verdict(claim, "cannot be told", str(told))
    found = beats_band(one, other, [k], level=level, maximise=maximise)
    estimate, low, high = float(found.estimate[0]), float(found.low[0]), float(found.high[0])
    answer: Answer = "holds" if low > 0.5 else "does not hold" if high <= 0.5 else "cannot be told"
    return Verdict(claim, answer, f"with probability {estimate:.2f}, {_percent(level)} {low:.2f} to {high:.2f}")


def pays(
    general: ArrayLike,
    special: ArrayLike,
    budgets: Sequence[int] | Ints | None = None,
    *,
    names: tuple[str, str] = ("the general optimizer", "the special one"),
    margin: float = 0.0,
    level: float = LEVEL,
    draws: int = DRAWS,
    seed: int = 0,
    maximise: bool = False,
) -> Verdict:
    """Whether there is a budget from which on the more general optimizer is no worse, and which.

    Args:
        general, special, margin: as of ``no_worse``.
        budgets: as of ``crossing``.
        names, maximise: as of ``no_worse``.
        level, draws, seed: as of ``crossing``.

    Raises:
        TypeError, ValueError: as ``crossing``.
    """
    found = crossing(general, special, budgets, margin=margin, level=level, draws=draws, seed=seed, maximise=maximise)
    within = f" by more than {margin:g}" if margin else ""
    claim = f"from some budget on, up to {found.largest}, {names[0]} is no worse than {names[1]}{within}"
    told = _told("pays", general, special, level, maximise)
    if found.largest > told.largest:
        return Verdict(claim, "cannot be told", str(told))
    if math.isinf(found.low):
        answer: Answer = "does not hold"
    else:
        answer = "cannot be told" if math.isinf(found.high) else "holds"
    start = "at no k" if math.isinf(found.budget) else f"from k = {_budget(found.budget)} on"
    return Verdict(claim, answer, f"{start}, {_percent(level)} {_budget(found.low)} to {_budget(found.high)}")


@dataclass(frozen=True)
class _Told:
    """How many trials the smaller side has, and the largest budget of which so many tell."""

    trials: int
    largest: int

    def __str__(self) -> str:
        few = f"{self.trials} trial{'s' * (self.trials > 1)}"
        return f"{few} tell of the best of {self.largest} at most" if self.largest else f"{few} cannot tell"


def _told(owner: str, one: ArrayLike, other: ArrayLike, level: float, maximise: bool) -> _Told:
    least = min(len(trials(owner, values, maximise)) for values in (one, other))
    return _Told(least, reach(least, level))


def _percent(level: float) -> str:
    return f"{100 * level:g}% interval"


def _budget(k: float) -> str:
    return "never" if math.isinf(k) else str(int(k))
