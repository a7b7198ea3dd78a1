"""The kinds of parameters that stand alone, and what all kinds share."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from numbers import Integral
from typing import TYPE_CHECKING

from msgspec.structs import force_setattr

from tunesmith._axes import (
    LARGEST,
    Axis,
    Grid,
    Held,
    Line,
    LogGrid,
    Scalar,
    Table,
    flag,
    integer,
    real,
    scalar,
    scalars,
    shown,
)
from tunesmith.hints import Hinted

CONFIDENCE = {"low": 0.25, "medium": 0.5, "high": 0.75}


class Prior(Hinted, frozen=True, forbid_unknown_fields=True):
    """What an expert believes about one parameter: its best value, and how sure that is.

    Args:
        mode: the value believed best.
        confidence: in (0, 1], or "low", "medium", "high" for 0.25, 0.5, 0.75.
    """

    mode: Scalar
    confidence: float | str = "medium"

    def __post_init__(self) -> None:
        confidence: object = self.confidence
        if isinstance(confidence, str):
            if confidence not in CONFIDENCE:
                raise ValueError(f"confidence={shown(confidence)} must be one of {', '.join(CONFIDENCE)}, or in (0, 1]")
            confidence = CONFIDENCE[confidence]
        confidence = real("confidence", confidence)
        if not 0 < confidence <= 1:
            raise ValueError(f"confidence={confidence} must be in (0, 1]")
        force_setattr(self, "confidence", confidence)
        force_setattr(self, "mode", scalar("mode", self.mode))


class Parameter(Hinted, frozen=True, tag_field="kind", forbid_unknown_fields=True, repr_omit_defaults=True):
    """What the kinds of parameters share."""

    def axis(self) -> Axis:
        """How the values lie in [0, 1]."""
        raise NotImplementedError

    def settle_prior(self, prior: Prior | None) -> None:
        """Check that the prior's mode is a value of this parameter, and keep it as such."""
        if prior is None:
            return
        if not isinstance(prior, Prior):
            raise TypeError(f"prior={shown(prior)} must be a Prior, such as Prior(mode=..., confidence='medium')")
        try:
            mode = self.axis().canonical(prior.mode)
        except ValueError as error:
            raise ValueError(f"the mode of the prior, {shown(prior.mode)}, {error}") from None
        force_setattr(self, "prior", Prior(mode, prior.confidence))


def _settle_interval(domain: Float | Integer, number: Callable[[str, object], float]) -> None:
    """Check and normalise the fields of a numeric parameter."""
    low, high, log = number("low", domain.low), number("high", domain.high), flag("log", domain.log)
    step = None if isinstance(domain, Float) and domain.step is None else number("step", domain.step)
    if low > high:
        raise ValueError(f"low={shown(low)} must be < high={shown(high)}")
    if low == high:
        raise ValueError(f"low and high are both {shown(low)}: use Constant({shown(low)})")
    if log and low <= 0:
        raise ValueError(f"low={shown(low)} must be > 0 when log=True")
    size = max(abs(low), abs(high), high - low)
    if step is None:
        if high - low < max(1e-12 * size, 1e-300):
            raise ValueError(f"low={low} and high={high} are too close to tell apart: use Constant({low})")
    else:
        most = 40 if log else 50
        if step <= 0:
            raise ValueError(f"step={shown(step)} must be > 0")
        if size > step * 2**most:
            raise ValueError(
                f"too many levels: step={shown(step)} must be at least 2**-{most} of the bounds' size {shown(size)}"
            )
        if size > LARGEST and isinstance(domain, Integer):
            bounds = f"low={shown(low)} and high={shown(high)}"
            raise ValueError(f"{bounds} must be at most 2**63 - 1 in size: use Float with a step")
        if step > (high - low) * (1 + 1e-9):
            raise ValueError(f"step={shown(step)} must be at most high - low = {high - low}")
        high = (LogGrid if log else Grid)(low, high, step, log, isinstance(domain, Integer)).high
    for field, value in (("low", low), ("high", high), ("log", log), ("step", step)):
        force_setattr(domain, field, value)
    force_setattr(domain, "fixed", flag("fixed", domain.fixed))
    domain.settle_prior(domain.prior)


class Float(Parameter, frozen=True, tag="float"):
    """A real number in [low, high].

    Args:
        low: least value; > 0 with ``log``.
        high: greatest value. With a ``step`` that does not divide the range, lowered to the last point of the grid.
        log: whether the unit cube is filled evenly in the logarithm.
        step: distance of the points of a grid that starts at ``low``; None: continuous.
        prior: what is believed about the best value.
        fixed: chosen once, when a trial starts afresh; whoever copies its weights keeps the value. For what decides
            the shape of the weights.
    """

    low: float
    high: float
    log: bool = False
    step: float | None = None
    prior: Prior | None = None
    fixed: bool = False

    def __post_init__(self) -> None:
        _settle_interval(self, real)

    def axis(self) -> Axis:
        if self.step is None:
            return Line(self.low, self.high, self.log)
        return (LogGrid if self.log else Grid)(self.low, self.high, self.step, self.log, whole=False)


class Integer(Parameter, frozen=True, tag="integer"):
    """An integer: low, low + step, ..., high. Arguments as for `Float`."""

    low: int
    high: int
    log: bool = False
    step: int = 1
    prior: Prior | None = None
    fixed: bool = False

    def __post_init__(self) -> None:
        _settle_interval(self, integer)

    def axis(self) -> Axis:
        return (LogGrid if self.log else Grid)(self.low, self.high, self.step, self.log, whole=True)


class Ordinal(Parameter, frozen=True, tag="ordinal"):
    """One of several values with an order: the one in which they are given. ``prior`` and ``fixed`` as for `Float`."""

    values: tuple[Scalar, ...]
    prior: Prior | None = None
    fixed: bool = False

    if TYPE_CHECKING:

        def __init__(self, values: Iterable[Scalar], prior: Prior | None = None, fixed: bool = False): ...

    def __post_init__(self) -> None:
        force_setattr(self, "values", scalars("values", self.values, "Ordinal([16, 32, 64])"))
        force_setattr(self, "fixed", flag("fixed", self.fixed))
        self.settle_prior(self.prior)

    def axis(self) -> Table:
        return Table(self.values, ordered=True)


class Constant(Parameter, frozen=True, tag="constant"):
    """A fixed value; it stands in every configuration and has no column."""

    value: Scalar

    def __post_init__(self) -> None:
        force_setattr(self, "value", scalar("value", self.value))

    def axis(self) -> Table:
        return Table((self.value,), ordered=False)


class Fidelity(Parameter, frozen=True, tag="fidelity"):
    """How thoroughly a trial is evaluated, beside its steps: a share of the data, the size of images, folds.

    No sampler chooses it: the rung of a job does. On the first rung it is ``low``, on the last one ``high``, and from
    rung to rung it grows by the same factor (or, without ``log``, by the same difference). A scheduler without rungs
    has it ``high`` always.

    Args:
        low: on the first rung; > 0 with ``log``.
        high: on the last one. Where both are integers the values between are rounded to integers.
        log: grows by a factor.
        carry: a trial that comes to another value goes on with its weights; otherwise it is trained anew from step 0.
    """

    low: float | int
    high: float | int
    log: bool = True
    carry: bool = False

    def __post_init__(self) -> None:
        for field in ("low", "high"):
            bound: object = getattr(self, field)
            x = real(field, bound)
            force_setattr(self, field, scalar(field, int(bound) if isinstance(bound, Integral) else x))
        for field in ("log", "carry"):
            force_setattr(self, field, flag(field, getattr(self, field)))
        if not self.low < self.high:
            raise ValueError(f"low={self.low} must be < high={self.high}")
        if self.log and self.low <= 0:
            raise ValueError(f"low={self.low} must be > 0 when log=True")

    @property
    def whole(self) -> bool:
        """Whether the values are integers."""
        return isinstance(self.low, int) and isinstance(self.high, int)

    def at(self, position: float) -> float | int:
        """The value at a position in [0, 1] on the ladder of rungs."""
        if position >= 1:
            return self.high
        if self.log:
            value = self.low * (self.high / self.low) ** position
        else:
            value = self.low + (self.high - self.low) * position
        return round(value) if self.whole else float(value)

    def axis(self) -> Held:
        return Held(self.low, self.high, self.whole)
