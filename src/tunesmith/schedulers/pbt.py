"""Population based training (Jaderberg et al. 2017, arXiv:1711.09846).

A population trains in parallel. Every ``ready`` steps a member compares itself with the others: *exploit* may
replace its weights and hyperparameters by those of a better member, and *explore* then changes the
hyperparameters a little. Weights and hyperparameters are found together, and what is found is a schedule.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from tunesmith import check
from tunesmith.hints import Options
from tunesmith.records import Constraint, Decision, Fork, Goal
from tunesmith.rng import Streams
from tunesmith.schedulers._exploit import Tournament, Truncation, TTest
from tunesmith.schedulers._population import Population, Slot, State
from tunesmith.schedulers._standing import Standing, ranked
from tunesmith.space import Space


class Backtrack(Options, frozen=True):
    """Members that break go back to an earlier rung.

    A member has *collapsed* where every member was better ``rungs`` decisions ago than it is now (with several goals:
    dominates it). It is replaced by a copy of one of the best fifth on its own rung that has not collapsed; where all
    of them have, by one on the newest rung, of the last ``rungs``, where one has not. A place in which trial after
    trial *fails* begins one rung further back each time.

    Args:
        rungs: decisions to look, and to go, back. So many rungs of checkpoints more are kept.
        times: a place goes back so often at most; each time costs up to ``rungs * ready`` steps more.
    """

    rungs: int = 1
    times: int = 5

    def __post_init__(self) -> None:
        check.whole("Backtrack", 1, rungs=self.rungs, times=self.times)


class PBT(Population, frozen=True, kw_only=True):
    """Population based training.

    Args:
        population: members.
        ready: steps between two decisions of a member.
        steps: steps that every member's weights are trained for.
        exploit: whom to copy: ``Truncation``, ``Tournament``, ``TTest``; None: nobody (the paper's "explore only").
        explore: how to change hyperparameters after copying: ``Perturb``, ``Jitter``, ``PB2``; None: not at all.
        inherit: what a copy takes over: ``"weights"``, ``"hyperparameters"`` or ``"both"`` (section 4.4).
        synchronous: decide only when all members have come to a multiple of ``ready``; the study is then the same
            however many workers there are and in whatever order they finish. Otherwise nobody waits (the paper's way).
        first: where the first configurations come from: ``"design"``, a quasi-random sequence that begins with what
            experts believe (and a sampler that learns is not asked), or the ``"sampler"``.
        backtrack: ``Backtrack(...)``: members that have collapsed, or fail again and again, go back to an earlier rung.

    Members are compared at equal steps: one that comes to step t with what the others were worth at step t, as far as
    they have come there, and it copies a state of step t. So nobody gains by being ahead, and a place in the population
    costs exactly ``steps`` steps (but for ``backtrack``). With fewer workers than members the population is
    time-sliced, the member that is furthest behind first. A member that fails is replaced by a fork of one of the
    better half of those that did not fail where it did; one that fails again lets the others go on first. A member
    whose training has come to its end by itself stands there, and may be copied. Members that break an outcome
    constraint rank behind all others, by how much; of several goals counts the Pareto rank, and within a rank the
    crowding distance.
    """

    exploit: Truncation | Tournament | TTest | None = Truncation()
    inherit: Literal["both", "weights", "hyperparameters"] = "both"
    backtrack: Backtrack | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.inherit not in ("both", "weights", "hyperparameters"):
            raise ValueError(f"PBT: inherit={self.inherit!r} must be 'both', 'weights' or 'hyperparameters'")
        if self.exploit is not None and not hasattr(self.exploit, "select"):
            raise TypeError(f"PBT: exploit={self.exploit!r} must be Truncation(), Tournament(), TTest() or None")

    @property
    def window(self) -> int:
        """How many of the last losses a standing has."""
        return self.exploit.window if isinstance(self.exploit, TTest) else 0

    @property
    def depth(self) -> int:
        """How many steps below the last rung that all have passed rungs are remembered."""
        return 0 if self.backtrack is None else self.backtrack.rungs * self.ready

    def init(self, space: Space, goals: Sequence[Goal], constraints: Sequence[Constraint] = ()) -> State:
        """An empty population.

        Raises:
            ValueError: the study has more than one goal, and ``exploit`` compares values of one.
        """
        if len(goals) != 1 and isinstance(self.exploit, TTest):
            raise ValueError(f"TTest compares values of one goal, the study has {len(goals)}: exploit by Truncation()")
        return super().init(space, goals, constraints)

    def _decide(self, state: State, member: Standing, streams: Streams) -> Decision:
        """Exploit, and explore what was copied."""
        ranking, rng = ranked(self._rung(state, member.step)), streams.at("exploit", member.trial, member.step)
        if self.backtrack is not None and self._collapsed(state, member, member.step):
            healthy = self._healthy_donors(state, member)
            if healthy:
                return self._copy(state, healthy[int(rng.integers(len(healthy)))], member.trial, streams)
        donor: Standing | None = member
        if self.exploit is not None:
            donor = self.exploit.select(member, ranking, rng)
        elif self.explore is None:
            donor = None
        if donor is None:
            return self._resume(member)
        weights = member if self.inherit == "hyperparameters" else donor
        config = state.configs[member.trial if self.inherit == "weights" else donor.trial]
        until = min(member.step + self.ready, self.steps)
        explored = self._explored(state, config, weights, member.trial, streams)
        return Fork(weights.trial, member.step, member.trial, explored, until)

    # -- backtracking

    def _collapsed(self, state: State, one: Standing, step: int) -> bool:
        """Whether every member that stood on the rung so far before ``step`` was better than this one is now."""
        earlier = self._rung(state, step - self.depth)
        return bool(earlier) and all(before.beats(one) for before in earlier)

    def _healthy_donors(self, state: State, member: Standing) -> Sequence[Standing]:
        """Those of the best fifth that have not collapsed: on the member's rung, or on the newest that has some."""
        assert self.backtrack is not None
        back = self.backtrack.rungs if state.slots[member.slot].rewinds < self.backtrack.times else 0
        for step in range(member.step, member.step - back * self.ready - 1, -self.ready):
            ranking = ranked(self._rung(state, step))
            best = ranking[: max(1, len(ranking) // 5)]
            healthy = [one for one in best if not self._collapsed(state, one, member.step)]
            if healthy:
                return healthy
        return []

    def _restart_step(self, state: State, failed: Slot) -> int:
        """The rung to which the place of a failed member goes back."""
        step = super()._restart_step(state, failed)
        if self.backtrack is None or failed.rewinds >= self.backtrack.times:
            return step
        earlier = sorted(
            (known for known in self._known(state).rungs if known < step and self._rung(state, known)), reverse=True
        )
        back = min(failed.failures - 1, self.backtrack.rungs, len(earlier))
        return earlier[back - 1] if back > 0 else step
