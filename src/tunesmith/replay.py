"""Replay: decide every ask of a study again from its log."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

from tunesmith.decide import Decider
from tunesmith.fold import Fold
from tunesmith.records import Asked
from tunesmith.space import Config
from tunesmith.study import Study


class Difference(NamedTuple):
    """A decision in the log that comes out otherwise when it is decided again."""

    ask: int
    field: str
    logged: Any
    decided: Any


def replay(study: Study, tolerance: float = 0.0) -> list[Difference]:
    """Decide every ask of a study again, from its log, and list what comes out otherwise.

    An empty list means that the study is reproducible: also one that many processes worked on at once.

    Args:
        study: any study whose sampler and scheduler are at hand.
        tolerance: relative difference that two numbers may have; 0 on one machine, about 1e-6 across machines
            whose linear algebra rounds otherwise.
    """
    if not isinstance(study, Study):
        raise TypeError(f"replay needs a study, not {study!r}: replay(Study.open(path))")
    events = study.events()
    folded = Fold(study.given, hearing=True)
    decider = Decider(folded, study.given)
    differences: list[Difference] = []
    for event in events:
        if not isinstance(event, Asked) or "added" in event.tags:
            continue
        while folded.number < event.seen:
            folded.fold(events[folded.number])
        decided = decider.decide(closed="closed" in event.tags).asked
        if decided is None:
            differences.append(Difference(event.ask, "decision", "a job", "none"))
            continue
        for field in ("trial", "config", "start", "until", "parent", "replaces", "repeat_of", "tags", "stands_at"):
            logged, now = getattr(event, field), getattr(decided, field)
            if logged != now and not (field == "config" and _close(logged, now, tolerance)):
                differences.append(Difference(event.ask, field, logged, now))
    return differences


def _close(a: Config, b: Config, tolerance: float) -> bool:
    def same(x: Any, y: Any) -> bool:
        return isinstance(x, float) and isinstance(y, float) and math.isclose(x, y, rel_tol=tolerance)

    return a.keys() == b.keys() and all(a[k] == b[k] or same(a[k], b[k]) for k in a)
