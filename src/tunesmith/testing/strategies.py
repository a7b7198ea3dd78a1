"""For tests of one's own parts: Hypothesis strategies for domains, spaces, configurations, studies and logs."""

from __future__ import annotations

from typing import Any

import numpy as np
from hypothesis import strategies as st
from msgspec.structs import replace

from tunesmith import Study, samplers
from tunesmith.records import AnyEvent
from tunesmith.schedulers import (
    FIRE,
    MFPBT,
    PB2,
    PBT,
    Backtrack,
    Full,
    Jitter,
    Perturb,
    Race,
    Tournament,
    Truncation,
    TTest,
)
from tunesmith.space import (
    Categorical,
    Config,
    Constant,
    Domain,
    Float,
    Integer,
    Ordinal,
    Prior,
    Scalar,
    Space,
    SpaceConstraint,
    forbid,
    less_than,
)
from tunesmith.testing.conformance import GOAL, mixed, play

_POSITIONS = st.floats(0.0, 1.0)


def scalars() -> st.SearchStrategy[Scalar]:
    """Strings, numbers, booleans and None."""
    numbers = st.integers(-100, 100) | st.floats(-1e6, 1e6)
    return st.none() | st.booleans() | numbers | st.text(max_size=5)


@st.composite
def _floats(draw: st.DrawFn) -> Float:
    log = draw(st.booleans())
    if draw(st.booleans()):
        step = draw(st.sampled_from([0.1, 0.25, 0.05, 1e-3, 1 / 3, 7.0, 1e-7]))
        low = draw(st.integers(1 if log else -50, 50)) * step
        return Float(low, low + draw(st.floats(1.0, 1000.0)) * step, log=log, step=step)
    if log:
        low = 10.0 ** draw(st.floats(-9.0, 3.0))
        return Float(low, low * 10.0 ** draw(st.floats(0.01, 9.0)), log=True)
    low = draw(st.floats(-1e3, 1e3))
    return Float(low, low + draw(st.floats(1.0, 1e6)))


@st.composite
def _integers(draw: st.DrawFn) -> Integer:
    log, step = draw(st.booleans()), draw(st.integers(1, 20))
    low = draw(st.integers(1 if log else -100, 100))
    return Integer(low, low + step + draw(st.integers(0, 10_000)), log=log, step=step)


_DISTINCT = st.lists(scalars(), min_size=1, max_size=5, unique_by=lambda value: (type(value), value))
_FREE = _floats() | _integers() | _DISTINCT.map(Ordinal) | _DISTINCT.map(Categorical)
_ANY: st.SearchStrategy[Domain] = _FREE | scalars().map(Constant)
_CONFIDENCES = st.sampled_from(["low", "medium", "high"]) | st.floats(0.01, 1.0)
_COINS = st.booleans()
_LETTERS = {size: st.lists(st.sampled_from("abcd"), max_size=size, unique=True) for size in (2, 4)}


@st.composite
def domains(draw: st.DrawFn) -> Domain:
    """Any domain without branches; some with a prior."""
    domain = draw(_ANY)
    if isinstance(domain, Constant) or draw(_COINS):
        return domain
    mode = Space({"x": domain}).decode([draw(_POSITIONS)])["x"]
    return replace(domain, prior=Prior(mode, draw(_CONFIDENCES)))


@st.composite
def spaces(draw: st.DrawFn, max_depth: int = 2, constraints: bool = True) -> Space:
    """Spaces of up to four parameters a level.

    Args:
        draw: given by Hypothesis.
        max_depth: how deep branches may nest; 0: none.
        constraints: whether there may be hard constraints; at least one draw in ten honours them.
    """
    plain = Space(draw(_parameters("", max_depth)))
    if not constraints or not draw(st.booleans()):
        return plain
    points = np.random.default_rng(0).random((50, len(plain.columns)))
    numeric = [name for name, domain in plain.items() if isinstance(domain, Float | Integer)]
    rules: list[SpaceConstraint] = []
    if len(numeric) >= 2:
        rules.append(less_than(*draw(st.permutations(numeric))[:2]))
    config = draw(configs(plain))
    if config:
        named = draw(st.lists(st.sampled_from(sorted(config)), min_size=1, max_size=2, unique=True))
        rules.append(forbid({name: config[name] for name in named}))
    space = Space(plain, rules)
    return space if sum(space.allows(u) for u in points) >= 5 else plain


@st.composite
def _parameters(draw: st.DrawFn, prefix: str, depth: int) -> dict[str, Domain]:
    """Parameters of one level: up to four, two in a branch."""
    found: dict[str, Domain] = {}
    for letter in draw(_LETTERS[2 if prefix else 4]):
        name = prefix + letter
        found[name] = draw(_branching(f"{name}.", depth - 1) if depth and draw(_COINS) else domains())
    return found


@st.composite
def _branching(draw: st.DrawFn, prefix: str, depth: int) -> Categorical:
    """A categorical with branches that share names, some of them with equal domains."""
    options = draw(_DISTINCT)
    first, second = draw(_parameters(prefix, depth)), draw(_parameters(prefix, depth))
    branches = (Space(first), Space(second), Space({**first, **second}), None)
    return Categorical({option: branches[i % 4] for i, option in enumerate(options)})


def configs(space: Space) -> st.SearchStrategy[Config]:
    """Configurations that lie in the space and honour its constraints."""
    d = len(space.columns)
    return st.lists(_POSITIONS, min_size=d, max_size=d).map(space.decode).filter(space.contains)


SAMPLERS = st.sampled_from(
    [
        samplers.Uniform(),
        samplers.Grid(3),
        samplers.QMC(),
        samplers.QMC("halton"),
        samplers.TPE(startup=4),
        samplers.RegularizedEvolution(population=4, sample=2),
        samplers.NSGA2(population=4),
    ]
)

_EXPLOIT = st.one_of(
    st.none(),
    st.just(Tournament()),
    st.builds(TTest, window=st.integers(2, 10), level=st.floats(0.01, 0.5)),
    st.builds(Truncation, st.floats(0.05, 0.5)),
)
_EXPLORE = st.one_of(
    st.none(),
    st.builds(Jitter, st.floats(0.01, 0.5)),
    st.builds(Perturb, factor=st.floats(1.01, 3), resample=st.floats(0, 1)),
    st.just(PB2(window=20)),
)


def populations() -> st.SearchStrategy[Any]:
    """Small populations of every kind, with every kind of exploit, explore and inheritance."""
    common: dict[str, Any] = {
        "ready": st.integers(1, 5),
        "steps": st.integers(5, 20),
        "explore": _EXPLORE,
        "synchronous": st.booleans(),
    }
    pbt = st.builds(
        PBT,
        population=st.integers(2, 8),
        exploit=_EXPLOIT,
        inherit=st.sampled_from(["both", "weights", "hyperparameters"]),
        backtrack=st.none() | st.builds(Backtrack, rungs=st.integers(1, 2), times=st.integers(1, 3)),
        **common,
    )
    frequencies = st.sampled_from([(1,), (1, 2), (3, 1)])
    mfpbt = st.builds(MFPBT, population=st.integers(4, 8), frequencies=frequencies, **common)
    fire = st.builds(FIRE, population=st.integers(5, 8), span=st.integers(1, 3), **common)
    return pbt | mfpbt | fire


_REPEATING = st.one_of(
    st.builds(Full, st.integers(1, 5), seeds=st.integers(2, 3)),
    st.builds(Race, steps=st.integers(1, 5), seeds=st.integers(2, 4), share=st.floats(0.1, 0.9)),
)


@st.composite
def studies(draw: st.DrawFn, schedulers: st.SearchStrategy[Any] | None = None) -> Study:
    """Studies in memory that were worked on in a random interleaving, with failures.

    Args:
        draw: given by Hypothesis.
        schedulers: of the studies; by default ``Full``, ``Race`` and ``populations()``.
    """
    every = st.builds(Full, st.integers(1, 10)) | _REPEATING | populations()
    scheduler: Any = draw(every if schedulers is None else schedulers)
    seed = draw(st.integers(0, 2**31))
    sampler: Any = draw(SAMPLERS)
    study = Study(mixed(), GOAL, sampler, scheduler, seed=seed)
    workers, faults = draw(st.integers(1, 10)), draw(st.sampled_from([0.0, 0.1, 0.5]))
    play(study, np.random.default_rng(seed), workers=workers, faults=faults, jobs=80)
    return study


def logs() -> st.SearchStrategy[list[AnyEvent]]:
    """Logs of such studies."""
    return studies().map(lambda study: study.events())
