"""Multiple-frequencies population based training, after MF-PBT (Doulazmi et al. 2025, arXiv:2506.03225).

The shorter the time between two decisions, the greedier a population: what helps at once is copied before it can do
harm. Here sub-populations decide at different frequencies, and the slow ones keep what pays late. Members migrate
between them with their weights; hyperparameters go from slower sub-populations to faster ones only, so that a greedy
schedule does not spread to the patient.
"""

from __future__ import annotations

from collections.abc import Sequence

from msgspec.structs import force_setattr

from tunesmith.records import Decision, Fork
from tunesmith.rng import Streams
from tunesmith.schedulers._population import Population, State
from tunesmith.schedulers._standing import Standing, ranked


class MFPBT(Population, frozen=True, kw_only=True):
    """Sub-populations that decide at different frequencies, with asymmetric migration.

    Args:
        population: members of all sub-populations together, which are as equal in size as can be.
        ready: steps between two decisions of a sub-population of frequency 1.
        steps: steps that every member's weights are trained for.
        frequencies: one number a sub-population: it decides every so many times ``ready``. The paper's code has
            (1, 10, 25, 50) for 1,000 decisions; the slowest should decide a few times.
        explore: how to change hyperparameters after copying: ``Perturb``, ``Jitter``, ``PB2``; None: not at all.
        synchronous: as for ``PBT``.

    Where a sub-population decides, its members are ranked among themselves. Each of the worst quarter copies one of the
    best quarter, drawn uniformly, and explores. Each of the quarter above the worst meets a member of the other
    sub-populations, the best of them the best one there, and takes over its weights if that is better: with its
    hyperparameters where it comes from a slower sub-population, else with those of the best of its own; as they are.

    As in ``PBT``, members are compared at equal steps, and a place costs exactly ``steps`` steps.
    """

    frequencies: tuple[int, ...] = (1, 4)

    def __post_init__(self) -> None:
        super().__post_init__()
        given = self.frequencies
        if not isinstance(given, list | tuple) or not all(type(frequency) is int for frequency in given):
            raise TypeError(f"MFPBT: frequencies={given!r} must be whole numbers, such as (1, 4)")
        force_setattr(self, "frequencies", tuple(given))
        if not self.frequencies or min(self.frequencies) < 1:
            raise ValueError(f"MFPBT: frequencies={self.frequencies} must be numbers of at least 1")
        if self.population < 2 * len(self.frequencies):
            raise ValueError(
                f"MFPBT: population={self.population} must be at least {2 * len(self.frequencies)}: "
                "two for each of the frequencies"
            )

    def group(self, slot: int) -> int:
        """The sub-population to which a place belongs."""
        return min(slot * len(self.frequencies) // self.population, len(self.frequencies) - 1)

    def _decide(self, state: State, member: Standing, streams: Streams) -> Decision:
        """Copy, migrate or go on, by the quarter of its sub-population in which a member stands."""
        group = self.group(member.slot)
        if member.step // self.ready % self.frequencies[group]:
            return self._resume(member)
        ranking = ranked(self._rung(state, member.step))
        own = [one for one in ranking if self.group(one.slot) == group]
        quarter, place = max(1, len(own) // 4), own.index(member)
        below = len(own) - 1 - place
        if place >= quarter and below < quarter:
            rng = streams.at("exploit", member.trial, member.step)
            return self._copy(state, own[int(rng.integers(quarter))], member.trial, streams)
        if place >= quarter and below < 2 * quarter:
            return self._migrate(state, member, ranking, own, 2 * quarter - 1 - below, streams)
        return self._resume(member)

    def _migrate(
        self,
        state: State,
        member: Standing,
        ranking: Sequence[Standing],
        own: Sequence[Standing],
        turn: int,
        streams: Streams,
    ) -> Decision:
        """The weights of the ``turn``-th best member of the others in the place of a worse one."""
        group = self.group(member.slot)
        others = [one for one in ranking if self.group(one.slot) != group]
        if turn >= len(others) or ranking.index(others[turn]) > ranking.index(member):
            return self._resume(member)
        guest = others[turn]
        slower = self.frequencies[self.group(guest.slot)] > self.frequencies[group]
        config = state.configs[guest.trial if slower else own[0].trial]
        until = min(member.step + self.ready, self.steps)
        inherited = self._inherited(state, config, guest.trial, member.trial, streams)
        return Fork(guest.trial, member.step, member.trial, inherited, until)

    def _peers(self, state: State, slot: int, step: int) -> Sequence[Standing]:
        """A failed member is replaced by one of its sub-population."""
        group = self.group(slot)
        return [one for one in super()._peers(state, slot, step) if self.group(one.slot) == group]
