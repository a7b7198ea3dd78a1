"""CMA-ES (Hansen & Ostermeier 2001) for mixed and conditional spaces, through the ``cmaes`` library.

The distribution is that of CatCMA with Margin (arXiv:2504.07884): a Gaussian over the numbers, whose levels keep a
least probability, and a categorical distribution over the options. Every combination of branches has a search of its
own.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from tunesmith._threads import one_thread
from tunesmith.errors import install
from tunesmith.hints import Options
from tunesmith.records import Asked, Constraint, Event, Failed, Goal, Told
from tunesmith.rng import stream, subseed
from tunesmith.samplers.base import (
    OBSERVED,
    PENDING,
    Floats,
    History,
    Point,
    identity,
    places,
    random_point,
    rounded,
    switches,
)
from tunesmith.space import Column, Space

if TYPE_CHECKING:
    from cmaes import CatCMAwM

FINE = 200  #: numbers of more levels count as continuous
TRIES = 50  #: draws for a point that the constraints allow
SPARE = 32  #: draws beyond a generation's size that are looked at to find a point that was not tried
IDLE = 20  #: generations in a row without a point that was not tried, after which a search starts again
LARGEST = 10_000  #: points a generation at most: a study of a stranger's must not hold up who reads it
THIN = 0.1  #: share of the first deviation where a search begins at a known point of a thin space
SURE = 0.75  #: most confidence that a prior is given where a search begins, so that it forbids nothing


class CMAES(Options, frozen=True):
    """Covariance matrix adaptation, one search for every combination of branches.

    A generation ends when as many of its points have results as the population is large, in whatever order; further
    workers get further points of the same distribution. Points that are still out then count for the next generation,
    and no other: later results, and those of points that came from elsewhere, are passed over. Among the results of a
    generation only the order counts, by constrained domination, then crowding; failed ones are worst. Trials that were
    trained further come before those that were stopped or wait.

    Args:
        population: points a generation; None: ``4 + floor(3 log d)``. Not less than the number of workers is best.
        sigma: deviation of the first generation, in the unit cube.
        restarts: what follows when a search has converged: ``"ipop"`` starts it again with twice the population (Auger
            & Hansen 2005), ``"bipop"`` by turns also with a small one (Hansen 2009), ``"none"`` goes on.
        branches: combinations of branches up to which each has its own search; with more, one search has all columns,
            and those that are not active in a point drift.
    """

    population: int | None = None
    sigma: float = 1 / 6
    restarts: Literal["ipop", "bipop", "none"] = "ipop"
    branches: int = 12

    def __post_init__(self) -> None:
        if self.population is not None and self.population < 4:
            raise ValueError(f"CMAES: population={self.population} must be at least 4")
        if self.population is not None and self.population > LARGEST:
            raise ValueError(f"CMAES: population={self.population} must be at most {LARGEST}")
        if not 0 < self.sigma <= 1:
            raise ValueError(f"CMAES: sigma={self.sigma} must be in (0, 1]")
        if self.restarts not in ("ipop", "bipop", "none"):
            raise ValueError(f"CMAES: restarts={self.restarts!r} must be 'ipop', 'bipop' or 'none'")
        if self.branches < 1:
            raise ValueError(f"CMAES: branches={self.branches} must be at least 1")

    def init(
        self,
        space: Space,
        goals: Sequence[Goal],
        rng: np.random.Generator,
        constraints: Sequence[Constraint] = (),
        duplicates: bool = False,
    ) -> Searches:
        """A search for every combination of branches. Raises ImportError without the library."""
        try:
            import cmaes  # noqa: F401
        except ImportError as error:
            raise ImportError(f"CMAES needs the cmaes library: {install('cmaes')}") from error
        seed = int(rng.integers(2**63))
        state = Searches(History(space, goals, constraints, duplicates))
        for i, chosen in enumerate(combinations(space.columns, self.branches)):
            state.searches.append(Search(self, state.history, state.rows, subseed(seed, "branch", i), chosen))
        return state

    def tell(self, state: Searches, event: Event) -> Searches:
        """Note a point or a result; the search whose generation it completes goes on to the next one."""
        history = state.history
        row = history.tell(event)
        if type(event) is Asked:
            if event.parent is not None or event.trial < state.trials:
                return state
            state.trials = event.trial + 1
            point = history.space.encode(event.config)
            key = rounded(point)
            if row is not None:
                state.rows[key] = row
            for search in state.searches:
                if search.contains(point) and (row is not None or history.duplicates):
                    search.begun(event.trial, key)
        elif row is not None and isinstance(event, Told | Failed):
            for search in state.searches:
                if search.contains(history.points[row]):
                    search.ended(event.trial, row)
        return state

    def ask(self, state: Searches, rng: np.random.Generator, until: int = 1) -> Point | None:
        """The next point of a generation: of the search that is due. A random point where all searches are used up."""
        found = [(search, point) for search in state.searches if (point := search.proposal()) is not None]
        if not found:
            return random_point(state.history.space, rng, state.history.points)
        return found[state.due([search for search, _ in found], rng)][1]


@dataclass(slots=True)
class Searches:
    """State: all searches, the rows of ``history`` by point, and the number of the next trial."""

    history: History
    searches: list[Search] = field(default_factory=list)
    rows: dict[bytes, int] = field(default_factory=dict)
    trials: int = 0

    def due(self, ready: list[Search], rng: np.random.Generator) -> int:
        """Which search should go on: the one that is least far with its first generation, until all have one.

        Then a random one, where the one with the r-th best result has the weight 1 / r^2.
        """
        begun = [min(1.0, search.asked / search.size) for search in ready]
        if len(ready) == 1 or min(begun) < 1:
            return int(np.argmin(begun))
        rows = np.array([-1 if search.best is None else search.best for search in ready])
        weights = 1.0 / (1 + places(self.history, rows)) ** 2
        return int(rng.choice(len(ready), p=weights / weights.sum()))


@dataclass(slots=True)
class Slot:
    """A draw of the library, and its point with its identity; no point (a bad result) where none is allowed.

    ``done``: its own trial has a result. It matters only with ``duplicates``, where a point may have other trials.
    """

    drawn: Any
    point: Point | None = None
    key: bytes = b""
    done: bool = False


class Search:
    """CMA-ES over the columns that are free when the branches in ``chosen`` (level by column) are taken.

    A generation is a sequence of slots: those that the last one left pending, then draws, of which there are as many
    as are needed. All of it follows from the events that were told; the slot that comes next is found when an event
    is told, too, so that an ask only reads.
    """

    def __init__(
        self, options: CMAES, history: History, rows: dict[bytes, int], seed: int, chosen: dict[int, int]
    ) -> None:
        columns = history.space.columns
        self.options, self.history, self.rows, self.seed, self.chosen = options, history, rows, seed, chosen
        self.template = np.full(len(columns), 0.5)
        for j, level in chosen.items():
            self.template[j] = (level + 0.5) / columns[j].levels
        free = [
            j for j, c in enumerate(columns) if c.levels != 1 and j not in chosen and (not chosen or taken(c, chosen))
        ]
        self.smooth = [j for j in free if columns[j].kind != "unordered" and not 1 < columns[j].levels <= FINE]
        self.stepped = [j for j in free if columns[j].kind == "ordered" and columns[j].levels <= FINE]
        self.unordered = [j for j in free if columns[j].kind == "unordered"]
        self.asked = 0
        self.best: int | None = None
        self.run = -1
        self.large = self.small = 0  # points of runs with a large and a small population
        self.doublings = 0
        self.default = options.population or 4 + int(3 * np.log(max(1, len(free))))
        self.size = self.default if free else 1
        self.idle = 0  # generations since the last result
        self.spread: list[tuple[Floats, Floats]] = []  # the least and the greatest losses of each generation of a run
        self.slots: list[Slot] = []
        self.carried = 0  # so many slots are left from the last generation
        self.handed = 0  # so many were handed out to trials, or passed over since their points were tried before
        self.next: int | None = None  # the slot that is handed out next
        self.tried = 0  # trials of this run
        self.out: dict[int, Slot] = {}  # by trial; only with duplicates
        self.library: CatCMAwM | None = None
        if free:
            self.start(grow=False)
        elif history.space.allows(point := history.space.snap(self.template)):
            self.slots = [Slot(None, point, identity(history.space, point))]
        self.look()

    def contains(self, point: Point) -> bool:
        """Whether the point takes these branches."""
        return all(abs(point[j] - self.template[j]) < 1e-9 for j in self.chosen)

    # -- runs -------------------------------------------------------------------------------------------------------

    def start(self, grow: bool) -> None:
        """Begin a run: the first one between the middle and the prior's mode, later ones at a random point."""
        from cmaes import CatCMAwM

        self.run += 1
        rng = stream(self.seed, "run", self.run)
        columns, scale = self.history.space.columns, 1.0
        if self.run == 0:
            beliefs = [c.prior or (0.5, 0.0) for c in columns]
            center = np.array([0.5 + min(confidence, SURE) * (mode - 0.5) for mode, confidence in beliefs])
        else:
            center, scale = self.anywhere(rng)
        sigma = scale * (self.regime(rng) if grow else self.options.sigma)
        numbers = self.smooth + self.stepped
        self.library = CatCMAwM(
            x_space=[[0.0, 1.0]] * len(self.smooth) or None,
            z_space=[self.history.space.positions(j).tolist() for j in self.stepped] or None,
            c_space=[columns[j].levels for j in self.unordered] or None,
            population_size=self.size,
            mean=center[numbers] if numbers else None,
            sigma=sigma if numbers else None,
            cov=np.eye(len(numbers)) if numbers else None,
            cat_param=believed([columns[j] for j in self.unordered]) if self.unordered else None,
        )
        self.spread = []
        self.tried = 0
        self.begin([])

    def anywhere(self, rng: np.random.Generator) -> tuple[Point, float]:
        """A random point of these branches that the constraints allow, and a factor for the first deviation.

        Where they allow none of a few draws, it is a known one, from which the search goes on in small steps.
        """
        space = self.history.space
        for _ in range(TRIES):
            drawn = rng.random(len(self.template))
            drawn[list(self.chosen)] = self.template[list(self.chosen)]
            if space.allows(space.snap(drawn)):
                return drawn, 1.0
        known = [point for point in self.history.points if self.contains(point) and space.allows(point)]
        if not known:
            return drawn, 1.0
        found = known[int(rng.integers(len(known)))]
        return np.where(np.isnan(found), drawn, found), THIN

    def regime(self, rng: np.random.Generator) -> float:
        """Set the population of a run; returns its sigma. As in the paper of BIPOP, the smaller budget is next."""
        sigma = self.options.sigma
        if self.options.restarts == "bipop" and self.small < self.large:
            self.size = int(self.default * (0.5 * 2**self.doublings) ** (rng.random() ** 2))
            self.size = max(self.size, self.default)
            return float(sigma * 10 ** (-2 * rng.random()))
        self.doublings += 1
        self.size = self.default * 2**self.doublings
        return sigma

    # -- generations ------------------------------------------------------------------------------------------------

    def begin(self, carried: list[Slot]) -> None:
        """Begin a generation, whose draws depend on nothing but its number and the distribution."""
        assert self.library is not None
        self.library.reseed_rng(subseed(self.seed, f"run {self.run}", self.library.generation) % 2**32)
        self.slots = carried
        self.carried = self.handed = len(carried)

    def slot(self, index: int) -> Slot:
        """One of the generation."""
        while index >= len(self.slots):
            self.slots.append(self.draw())
        return self.slots[index]

    def look(self) -> None:
        """Find the slot that comes next: the first one that may be tried. None where the search is used up for now."""
        self.next = None
        end = max(self.carried + self.size, self.handed) + SPARE
        for index in range(self.handed, end) if self.library is not None else range(len(self.slots)):
            slot = self.slot(index)
            if slot.point is not None and (self.history.duplicates or slot.key not in self.rows):
                self.next = index
                return

    def proposal(self) -> Point | None:
        """The point that comes next."""
        return None if self.next is None else self.slots[self.next].point

    @one_thread
    def draw(self) -> Slot:
        """The next draw that the constraints allow."""
        assert self.library is not None
        for _ in range(TRIES):
            drawn = self.library.ask()
            vector = self.template.copy()
            if self.smooth:
                vector[self.smooth] = drawn.x
            if self.stepped:
                vector[self.stepped] = drawn.z
            for j, chosen in zip(self.unordered, drawn.c if self.unordered else [], strict=True):
                vector[j] = (np.argmax(chosen) + 0.5) / self.history.space.columns[j].levels
            point = self.history.space.snap(vector)
            if self.history.space.allows(point):
                return Slot(drawn, point, identity(self.history.space, point))
        return Slot(drawn)

    def begun(self, trial: int, key: bytes) -> None:
        """Take in that a trial was started in these branches: of the next slot, or of a point from elsewhere."""
        self.asked += 1
        if self.next is not None and self.slots[self.next].key == key:
            self.handed = self.next + 1
            self.tried += 1
            if self.history.duplicates:
                self.out[trial] = self.slots[self.next]
        self.look()

    def ended(self, trial: int, row: int) -> None:
        """Take in that a trial in these branches has a result or has failed."""
        if self.history.status[row] == OBSERVED:
            pair = np.array([row if self.best is None else self.best, row])
            self.best = int(pair[np.argmin(places(self.history, pair))])
        slot = self.out.pop(trial, None)
        if slot is not None:
            slot.done = True
        if self.library is not None:
            self.idle = 0
            while self.advance():
                pass
        self.look()

    def settled(self, slot: Slot) -> bool:
        """Whether the place of a slot in its generation is known: it has a result, failed, or breaks a constraint."""
        if slot.point is None or slot.done:
            return True
        if self.history.duplicates or slot.key not in self.rows:
            return False
        return bool(self.history.status[self.rows[slot.key]] != PENDING)

    def advance(self) -> bool:
        """End the generation if it is complete. Points that were tried before have their results at once.

        Returns whether a generation ended and the next one may be complete already. That happens a few times in a row
        at most, since then the search begins again elsewhere and waits for news.
        """
        assert self.library is not None
        slots = [self.slot(index) for index in range(max(self.carried + self.size, self.handed))]
        done = [slot for slot in slots if self.settled(slot)][: self.size]
        if len(done) < self.size:
            return False
        nothing_allowed = all(slot.point is None for slot in slots)
        carried = [slot for slot in slots[self.carried : self.handed] if not self.settled(slot)]
        self.update(done)
        self.idle += 1
        if self.idle >= IDLE or nothing_allowed:
            self.start(grow=False)
            return False
        if self.options.restarts != "none" and self.over():
            # A larger population pays where there is much left to try, not where a finite space is used up.
            self.start(grow=self.tried >= self.size)
        else:
            self.begin(carried)
        return True

    @one_thread
    def update(self, slots: list[Slot]) -> None:
        """Tell the library the order of a generation's points."""
        assert self.library is not None
        rows = np.array([-1 if slot.point is None else self.rows[slot.key] for slot in slots])
        losses = self.history.losses[rows]
        losses[rows < 0] = np.nan
        order = places(self.history, rows)
        self.library.tell([(slot.drawn, float(place)) for slot, place in zip(slots, order, strict=True)])
        self.spread.append((np.fmin.reduce(losses, axis=0), np.fmax.reduce(losses, axis=0)))
        if self.run and self.size < self.default * 2**self.doublings:
            self.small += len(slots)
        else:
            self.large += len(slots)

    def over(self) -> bool:
        """Whether the run has converged: by the library's rules, or all losses of the last generations are equal."""
        assert self.library is not None
        n = len(self.smooth) + len(self.stepped)
        window = 10 + int(np.ceil(30 * n / self.size))
        if len(self.spread) > window:
            low = np.fmin.reduce([low for low, _ in self.spread[-window:]])
            high = np.fmax.reduce([high for _, high in self.spread[-window:]])
            if not (high / 2 - low / 2 > 1e-12 * np.fmax(np.abs(low), np.abs(high))).any():
                return True
        return bool(n and self.library.should_stop())


def combinations(columns: Sequence[Column], most: int) -> list[dict[int, int]]:
    """All ways to choose branches, as level by column; a single empty one if there are more than ``most``."""
    found: list[dict[int, int]] = [{}]
    for j in switches(columns):
        levels = range(columns[j].levels)
        found = [
            more for chosen in found
            for more in ([{**chosen, j: level} for level in levels] if taken(columns[j], chosen) else [chosen])
        ]  # fmt: skip
        if len(found) > most:
            return [{}]
    return found


def taken(column: Column, chosen: dict[int, int]) -> bool:
    """Whether a column is active where these branches are taken."""
    return column.parent is None or chosen.get(column.parent) in column.options


def believed(columns: Sequence[Column]) -> Floats:
    """First probabilities of the options of unordered columns: [columns, most levels], 0 behind the last option."""
    q = np.zeros((len(columns), max(column.levels for column in columns)))
    for row, column in zip(q, columns, strict=True):
        mode, confidence = column.prior or (0.0, 0.0)
        confidence = min(confidence, SURE)
        row[: column.levels] = (1 - confidence) / column.levels
        row[int(mode * column.levels)] += confidence
    return q
