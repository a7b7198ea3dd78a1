"""Which optimizer contains which (Choi et al. 2019, section 3): the relation as data, with the maps that realise it.

``A`` is contained in ``B`` where for all hyperparameters of A there are some of B with which B does what A does,
exactly or in a limit. The maps give the hyperparameters of B for every update from those of A for every update: where
the learning rate changes while it trains, so do others, which a map of single values would miss.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from tunesmith.optimizers.adaptive import correction
from tunesmith.optimizers.base import OptimizerError

Course = Sequence[Mapping[str, Any]]
"""The hyperparameters of every update."""

LARGE = 1e6  #: an epsilon beside which the root of the mean squares hardly counts


@dataclass(frozen=True)
class Inclusion:
    """One optimizer does what another one does.

    Attributes:
        special: the name of the contained one.
        general: the name of the containing one.
        how: the setting, in words.
        realise: the hyperparameters of the general one, for every update. In a limit they depend on ``epsilon``: the
            larger, the closer.
        exact: whether it does so exactly, not in a limit.
    """

    special: str
    general: str
    how: str
    realise: Callable[[Course, float], list[dict[str, Any]]]
    exact: bool = True


def _without_momentum(course: Course, epsilon: float) -> list[dict[str, Any]]:
    return [{"lr": given["lr"], "momentum": 0.0} for given in course]


def _without_decay(course: Course, epsilon: float) -> list[dict[str, Any]]:
    return [{**given, "weight_decay": 0.0} for given in course]


def _constant_squares(course: Course, epsilon: float) -> list[dict[str, Any]]:
    """The mean squares stay at 1. The learning rate is inside of RMSProp's momentum, so that follows its changes."""
    found, before = [], course[0]["lr"]
    for given in course:
        momentum = given["momentum"] * given["lr"] / before
        found.append({"lr": given["lr"], "momentum": momentum, "rho": 1.0, "eps": 0.0})
        before = given["lr"]
    return found


def _large_epsilon(course: Course, epsilon: float) -> list[dict[str, Any]]:
    """The mean squares do not count beside epsilon; the learning rate takes the correction of Adam's mean back."""
    found = []
    for count, given in enumerate(course, 1):
        momentum, beta2 = given["momentum"], 0.999
        lr = epsilon * given["lr"] / ((1 - momentum) * correction(momentum, beta2, count))
        found.append({"lr": lr, "beta1": momentum, "beta2": beta2, "eps": epsilon})
    return found


INCLUSIONS = (
    Inclusion("sgd", "momentum", "momentum = 0", _without_momentum),
    Inclusion("sgd", "nesterov", "momentum = 0", _without_momentum),
    Inclusion("momentum", "rmsprop", "rho = 1, eps = 0, momentum_t = momentum lr_t / lr_(t-1)", _constant_squares),
    Inclusion("momentum", "adam", "eps to infinity, lr_t = eps lr_t / ((1 - beta1) b_t), beta1 = momentum",
              _large_epsilon, exact=False),
    Inclusion("nesterov", "nadam", "eps to infinity, lr_t = eps lr_t / ((1 - beta1) b_t), beta1 = momentum",
              _large_epsilon, exact=False),
    Inclusion("adam", "adamw", "weight_decay = 0", _without_decay),
    Inclusion("nadam", "nadamw", "weight_decay = 0", _without_decay),
)  # fmt: skip
"""The direct inclusions; others follow by going along several of them."""


def path(special: str, general: str) -> list[Inclusion]:
    """How one optimizer is contained in another one: the inclusions to go along; empty where they are the same one.

    Raises:
        OptimizerError: it is not contained there.
    """
    ways: list[list[Inclusion]] = [[]]
    for way in ways:  # breadth first: the list grows
        here = way[-1].general if way else special
        if here == general:
            return way
        ways += [[*way, one] for one in INCLUSIONS if one.special == here]
    raise OptimizerError(f"{special!r} is not contained in {general!r}")


def contains(general: str, special: str) -> bool:
    """Whether an optimizer can do what another one does."""
    try:
        path(special, general)
    except OptimizerError:
        return False
    return True
