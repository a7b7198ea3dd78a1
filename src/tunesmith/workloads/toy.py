"""Toy problems of population based training.

The first is that of Jaderberg et al. 2017 (arXiv:1711.09846), Figure 2. A learner should maximise
``Q = 1.2 - (theta0^2 + theta1^2)``, but can only follow the gradient of a surrogate,
``1.2 - (h0 theta0^2 + h1 theta1^2)``. Two members start at theta = (0.9, 0.9), one with h = (1, 0) and one with (0, 1):
each sees half of the problem. With h fixed neither can pass Q = 0.39; moving h, or exchanging theta, gets to 1.2.

The others, ``Decay`` and ``Quadratic``, tell a greedy population from a patient one.
"""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Any, Literal

from tunesmith.analysis.lineage import lineage
from tunesmith.analysis.tables import population
from tunesmith.records import Goal
from tunesmith.schedulers import PBT, Jitter, Perturb, Tournament
from tunesmith.space import Float, Space
from tunesmith.study import Study

if TYPE_CHECKING:
    from matplotlib.figure import Figure

LEARNING_RATE = 0.01
STEPS = 200
OPTIMUM = 1.2
_REACH = 10.0  # |h| stays far below, so that the noise on h is never cut off
_NOISE = 0.1  # standard deviation of the additive explore

Theta = tuple[float, float]


def space() -> Space:
    """The weights of the surrogate's two terms."""
    return Space({"h0": Float(-_REACH, _REACH), "h1": Float(-_REACH, _REACH)})


class Toy:
    """The toy as a task; its state is theta."""

    def init(self, config: Mapping[str, Any], rng: Any = None) -> Theta:
        """The common starting point."""
        return (0.9, 0.9)

    def step(self, theta: Theta, config: Mapping[str, Any]) -> tuple[Theta, dict[str, float]]:
        """One step of gradient ascent on the surrogate; the metric ``q`` is the true objective."""
        first, second = (t + LEARNING_RATE * -2 * config[h] * t for t, h in zip(theta, ("h0", "h1"), strict=True))
        return (first, second), {"q": OPTIMUM - (first**2 + second**2)}

    def save(self, theta: Theta) -> list[float]:
        """Theta as a list."""
        return list(theta)

    def load(self, tree: Sequence[float], config: Mapping[str, Any]) -> Theta:
        """Theta from a list."""
        return (tree[0], tree[1])


@dataclass(frozen=True)
class Mode:
    """A row of the table: which parts of population based training are switched on."""

    name: str
    exploit: bool
    explore: Jitter | Perturb | None
    inherit: Literal["both", "weights"] = "weights"

    def scheduler(self, ready: int) -> PBT:
        """The scheduler of this mode: with two members, a tournament is "copy the other one if it is better"."""
        return PBT(
            population=2,
            ready=ready,
            steps=STEPS,
            exploit=Tournament() if self.exploit else None,
            explore=self.explore,
            inherit=self.inherit,
        )


_ADDITIVE = Jitter(scale=_NOISE / (2 * _REACH))
_PERTURB = Perturb(factor=1.2)
MODES = (
    Mode("grid search", False, None),
    Mode("explore only, additive noise", False, _ADDITIVE),
    Mode("explore only, perturb", False, _PERTURB),
    Mode("exploit only, copy theta", True, None),
    Mode("exploit only, copy theta and h", True, None, "both"),
    Mode("PBT, copy theta, additive noise", True, _ADDITIVE),
    Mode("PBT, copy theta, perturb", True, _PERTURB),
    Mode("PBT, copy theta and h, additive noise", True, _ADDITIVE, "both"),
    Mode("PBT, copy theta and h, perturb", True, _PERTURB, "both"),
)


@dataclass(frozen=True)
class Play:
    """One run: the best member's final Q, and the path of theta of both members.

    A path is a list of pieces, one a trial; a new piece begins where the member explored, or took over the other
    one's theta.
    """

    q: float
    paths: tuple[list[list[Theta]], list[list[Theta]]]


def play(mode: Mode, ready: int = 4, seed: int = 0) -> Play:
    """Run the two members side by side in one process: both advance, both report, both decide."""
    study = Study(space(), goals=[Goal("q", maximise=True)], scheduler=mode.scheduler(ready), seed=seed)
    study.enqueue({"h0": 1.0, "h1": 0.0})
    study.enqueue({"h0": 0.0, "h1": 1.0})
    task, pieces = Toy(), dict[int, list[Theta]]()
    while jobs := study.ask(2):
        reports = []
        for job in jobs:
            if job.trial not in pieces:
                origin = task.init(job.config)
                if job.parent is not None:
                    origin = pieces[job.parent][job.start - study.trials[job.parent].start]
                pieces[job.trial] = [origin]
            values = []
            for _ in range(job.start, job.until):
                theta, metrics = task.step(pieces[job.trial][-1], job.config)
                pieces[job.trial].append(theta)
                values.append(metrics["q"])
            reports.append({"q": values})
        study.tell(jobs, reports)
    final = [trial.last("q") for trial in population(study)]
    paths: tuple[list[list[Theta]], list[list[Theta]]] = ([], [])
    for trial, lane in lineage(study).lanes.items():
        paths[lane].append(pieces[trial])
    return Play(max(value for value in final if value is not None), paths)


def figure2(seeds: Iterable[int], ready: int = 4, modes: Sequence[Mode] = MODES) -> dict[str, list[float]]:
    """The best member's final Q for every mode, one value a seed."""
    seeds = list(seeds)
    return {mode.name: [play(mode, ready, seed).q for seed in seeds] for mode in modes}


# -- greedy or patient? -------------------------------------------------------------------------------------------


DecayState = tuple[int, float, float, int]


@dataclass(frozen=True)
class Decay:
    """Theta decays from 0.9 at a speed that h decides; the metric ``loss`` is theta squared, to be minimised.

    * *plain*: ``theta -= lr * 2 * (2 - h) * theta``. Whoever lowers h at once wins.
    * *deceptive*: ``2 - h`` becomes ``max(2 - h - 0.2 D, 0)``, where D grows by ``|h - target|`` twenty times in a
      training, and the target falls from 1 to 0 evenly. Lowering h still helps at once and costs speed for ever after;
      whoever follows the target wins.

    With *shocks*, theta jumps back to 0.9 now and then, as a training does that breaks.

    After the tests of "To be greedy or not" in the PBT-Zoo repository, which adds up D at every change of a
    hyperparameter; here it does not depend on how often a scheduler decides. The shocks and ``Quadratic`` are ours. The
    state is (step, theta, D, noise), and noise an integer that decides about the next shock.

    Attributes:
        deceptive: which of the two.
        shocks: probability of a shock, at each step.
        steps: of a training.
        lr: learning rate.
    """

    deceptive: bool = False
    shocks: float = 0.0
    steps: int = 1000
    lr: float = 0.001

    def space(self) -> Space:
        """``h`` from 0 to 2."""
        return Space({"h": Float(0.0, 2.0)})

    def first(self, population: int, rng: Any) -> list[dict[str, Any]]:
        """A first generation of this size: h uniform in [0.9, 1.1]."""
        return [{"h": float(h)} for h in rng.uniform(0.9, 1.1, population)]

    def init(self, config: Mapping[str, Any], rng: Any = None) -> DecayState:
        """Theta is 0.9. ``rng`` decides about shocks."""
        return (0, 0.9, 0.0, 0 if rng is None else int(rng.integers(2**32)))

    def step(self, state: DecayState, config: Mapping[str, Any]) -> tuple[DecayState, dict[str, float]]:
        """One step."""
        step, theta, deviation, noise = state
        h = config["h"]
        speed = 2 - h
        if self.deceptive:
            deviation += 20 / self.steps * abs(h - (1 - step / self.steps))
            speed = max(speed - 0.2 * deviation, 0.0)
        theta -= self.lr * 2 * speed * theta
        noise = (noise * 1664525 + 1013904223 + round(h * 2**20)) % 2**32  # a copy with another h has other shocks
        if noise < self.shocks * 2**32:
            theta = 0.9
        return (step + 1, theta, deviation, noise), {"loss": theta * theta}

    def save(self, state: DecayState) -> list[float]:
        """The state as a list of numbers."""
        return list(state)

    def load(self, tree: Sequence[float], config: Mapping[str, Any]) -> DecayState:
        """The state from a list."""
        return (int(tree[0]), tree[1], tree[2], int(tree[3]))


@dataclass(frozen=True)
class Quadratic:
    """A noisy quadratic trained by SGD (Zhang et al. 2019, arXiv:1907.04164), in expectation.

    The curvatures are ``1, 1/2, 1/4, ...`` and the gradient's noise in each direction has the curvature as its
    variance. A learning rate that is lowered makes the loss fall at once, since the noise is averaged, and slows down
    everything after: whoever lowers it early loses. The state is the mean square of each coordinate, 1e6 at most; the
    metric ``loss`` is ``1/2 sum(curvature * square)``.

    Attributes:
        steps: of a training.
        directions: how many curvatures.
    """

    steps: int = 1000
    directions: int = 8

    def space(self) -> Space:
        """``lr`` from 0.001 to 3; from 2 on it diverges."""
        return Space({"lr": Float(1e-3, 3.0, log=True)})

    def first(self, population: int, rng: Any) -> list[dict[str, Any]]:
        """A first generation of this size, drawn from the space."""
        return [dict(self.space().sample(rng)) for _ in range(population)]

    def init(self, config: Mapping[str, Any], rng: Any = None) -> list[float]:
        """Every coordinate is 1."""
        return [1.0] * self.directions

    def step(self, state: Sequence[float], config: Mapping[str, Any]) -> tuple[list[float], dict[str, float]]:
        """The expectation of one step of SGD: ``(1 - lr c)^2 square + lr^2 c`` for every curvature c."""
        rate, loss, after = config["lr"], 0.0, []
        curvature = 1.0
        for square in state:
            square = min((1 - rate * curvature) ** 2 * square + rate * rate * curvature, 1e6)
            loss += curvature * square / 2
            after.append(square)
            curvature /= 2
        return after, {"loss": loss}

    def save(self, state: Sequence[float]) -> list[float]:
        """The state as it is."""
        return list(state)

    def load(self, tree: Sequence[float], config: Mapping[str, Any]) -> list[float]:
        """The state as it was."""
        return list(tree)


def spread(values: Sequence[float]) -> tuple[float, float, float]:
    """Median, 10th and 90th percentile."""
    if len(values) == 1:
        return values[0], values[0], values[0]
    deciles = statistics.quantiles(values, n=10, method="inclusive")
    return statistics.median(values), deciles[0], deciles[-1]


def plot(seeds: Iterable[int], ready: int = 4) -> Figure:
    """Figure 2 of the paper: the paths of both members over the contours of Q, in four modes.

    Of each mode the run with the median final Q is drawn (the lower one of two medians).
    """
    import numpy as np
    from matplotlib.figure import Figure

    seeds = list(seeds)
    titles = {
        "PBT, copy theta, additive noise": "PBT",
        "explore only, additive noise": "Explore only",
        "exploit only, copy theta": "Exploit only",
        "grid search": "Grid search",
    }
    modes = {mode.name: mode for mode in MODES}
    figure = Figure(figsize=(10.0, 2.75), layout="constrained")
    panels = figure.subplots(1, 4, sharex=True, sharey=True)
    grid = np.linspace(-0.1, 1.0, 200)
    height = OPTIMUM - (grid[:, None] ** 2 + grid[None, :] ** 2)
    for axes, (name, title) in zip(panels, titles.items(), strict=True):
        runs = sorted((play(modes[name], ready, seed) for seed in seeds), key=lambda run: run.q)
        run = runs[(len(runs) - 1) // 2]
        shades = axes.contourf(grid, grid, height, levels=np.linspace(-0.8, OPTIMUM, 11), cmap="Greys_r", alpha=0.55)
        for path, colour, mark, size in zip(run.paths, ("#0072B2", "#D55E00"), "os", (9, 6), strict=True):
            for before, after in pairwise(path):
                jump = np.array([before[-1], after[0]])
                axes.plot(*jump.T, color=colour, lw=0.6, ls=":", alpha=0.8)
            for piece in path:
                axes.plot(*np.array(piece).T, color=colour, lw=1.8, solid_capstyle="round")
            axes.plot(*path[-1][-1], mark, color=colour, ms=size, mec="white", mew=1.0, zorder=4)
        axes.plot(0, 0, "*", color="#111111", ms=9, zorder=5)
        axes.set(xlabel=r"$\theta_0$", xlim=(-0.1, 1.0), ylim=(-0.1, 1.0), aspect="equal")
        axes.set_title(f"{title}: Q = {run.q:.2f}", fontsize=10)
    panels[0].set_ylabel(r"$\theta_1$")
    figure.colorbar(shades, ax=panels, label="Q", fraction=0.02, ticks=[-0.8, -0.4, 0, 0.4, 0.8, 1.2])
    return figure
