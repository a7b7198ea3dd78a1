"""Where the hyperparameters of each optimizer are searched, by how many trials there are, and whether that was wide
enough.

The parametrisation is that of Choi et al. 2019: everything log-uniform, what is near 1 by its distance from 1, and
where epsilon spans many orders of magnitude the learning rate as a multiple of it (of its root for RMSProp), since the
two then matter by their ratio. Which ones are tuned with how many trials follows the authors' Deep Learning Tuning
Playbook. The ranges are ours, wide ones to begin with: the paper settles on narrower ones for every workload.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike

from tunesmith import check
from tunesmith.optimizers import RULES, OptimizerError
from tunesmith.space import Float, Space

FEW, SEVERAL, MANY = 10, 25, 100  #: from so many trials on momentum is tuned, epsilon, and the second moment

_DISTANCE = "one_minus_"
_OVER_EPS, _OVER_ROOT = "lr_over_eps", "lr_over_sqrt_eps"
_RATE, _SMALL_RATE = Float(1e-4, 10.0, log=True), Float(1e-5, 0.1, log=True)
_MOMENTUM, _SECOND = Float(1e-3, 1.0, log=True), Float(1e-4, 1.0, log=True)
_EPSILON = Float(1e-4, 1e4, log=True)

BEST = 0.1  #: the share of the trials that count as the best ones,
EDGE = 0.1  #: and how near to an end of its range a value is near an edge, as a share of that
FEWEST = 6  #: finished trials say nothing of edges


def search_space(optimizer: str, trials: int) -> Space:
    """The space of an optimizer that is tuned with so many trials; ``hyperparameters`` reads its configurations.

    Args:
        optimizer: its name in ``RULES``.
        trials: how many there will be. With fewer than 10 the learning rate alone is tuned, from 10 on momentum, too,
            from 25 on epsilon and weight decay, and from 100 on the rate of the second moment.

    Raises:
        OptimizerError: there is no optimizer of this name.
        TypeError, ValueError: ``trials`` is not at least 1.
    """
    check.whole("search_space", 1, trials=trials)
    if optimizer not in RULES:
        raise OptimizerError(f"there is no optimizer {optimizer!r}; there are {', '.join(RULES)}")
    known = RULES[optimizer].defaults
    several = trials >= SEVERAL and "eps" in known
    domains: dict[str, Any] = {}
    if several:
        domains[_OVER_ROOT if optimizer == "rmsprop" else _OVER_EPS] = Float(1e-4, 1e3, log=True)
    else:
        domains["lr"] = _SMALL_RATE if "eps" in known else _RATE
    if trials >= FEW:
        domains |= {_DISTANCE + name: _MOMENTUM for name in ("momentum", "beta1") if name in known}
    if several:
        domains["eps"] = _EPSILON
    if trials >= SEVERAL and "weight_decay" in known:
        domains["weight_decay"] = Float(1e-5, 1.0, log=True)
    if trials >= MANY:
        domains |= {_DISTANCE + name: _SECOND for name in ("rho", "beta2") if name in known}
    return Space(domains)


def hyperparameters(config: Mapping[str, Any]) -> dict[str, Any]:
    """The hyperparameters of an optimizer's rule that a configuration of its space stands for."""
    found: dict[str, Any] = {}
    for name, value in config.items():
        if name.startswith(_DISTANCE):
            found[name.removeprefix(_DISTANCE)] = 1 - value
        elif name == _OVER_EPS:
            found["lr"] = value * config["eps"]
        elif name == _OVER_ROOT:
            found["lr"] = value * math.sqrt(config["eps"])
        else:
            found[name] = value
    return found


@dataclass(frozen=True)
class Edge:
    """The best trials lie near an end of a range: beyond it may be better ones.

    Attributes:
        name: of the parameter.
        side: which end.
        share: of the best trials that lie near it.
    """

    name: str
    side: Literal["low", "high"]
    share: float

    def __str__(self) -> str:
        return f"{self.name}: {100 * self.share:.0f}% of the best trials are near the {self.side} end of its range"


def edges(space: Space, configs: Sequence[Mapping[str, Any]], losses: ArrayLike) -> list[Edge]:
    """The ends of ranges near which at least half of the best trials lie.

    The best tenth count, and near is within a tenth of the range. Of fewer than 20 trials the best three count: near is
    then within the share of the range that three of so many trials have, and all three must lie there.

    Args:
        space: of ranges alone, as ``search_space`` makes it.
        configs: of all trials.
        losses: [trials], smaller is better; infinite where one has failed.

    Raises:
        ValueError: there are not as many losses as configurations.
    """
    values = np.asarray(losses, float)
    if values.shape != (len(configs),):
        raise ValueError(f"edges: {len(configs)} configurations need as many losses, not {values.shape}")
    finished = [i for i in np.argsort(values, kind="stable") if np.isfinite(values[i])]
    best = finished[: max(3, math.ceil(BEST * len(finished)))]
    found: list[Edge] = []
    if len(finished) < FEWEST:
        return found
    few = len(best) > BEST * len(finished) + 1
    near, enough = (len(best) / len(finished), 1.0) if few else (EDGE, 0.5)
    for name, domain in space.items():
        if not isinstance(domain, Float):
            continue
        places = np.array([_place(domain, configs[i][name]) for i in best])
        for side, share in (("low", np.mean(places < near)), ("high", np.mean(places > 1 - near))):
            if share >= enough and not (side == "high" and _is_end(name, domain)):
                found.append(Edge(name, side, float(share)))  # type: ignore[arg-type]  # one of the two
    return found


def widened(space: Space, found: Sequence[Edge]) -> Space:
    """The space with the ranges extended where the best trials lie near an end, by half of their width."""
    domains = dict(space)
    for edge in found:
        domain = domains[edge.name]
        assert isinstance(domain, Float)
        factor = math.sqrt(domain.high / domain.low)
        low = domain.low / factor if edge.side == "low" else domain.low
        high = domain.high * factor if edge.side == "high" else domain.high
        domains[edge.name] = Float(low, min(high, 1.0) if edge.name.startswith(_DISTANCE) else high, log=True)
    return Space(domains)


def _place(domain: Float, value: float) -> float:
    """Where in its range a value lies, from 0 to 1."""
    return math.log(value / domain.low) / math.log(domain.high / domain.low)


def _is_end(name: str, domain: Float) -> bool:
    """Whether there is nothing beyond: the distance from 1 of what is at least 0."""
    return name.startswith(_DISTANCE) and domain.high >= 1
