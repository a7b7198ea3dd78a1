"""One line for every wrong use, which names the value and the way out, whatever the store; nothing is lost by it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import tunesmith as ts
from tunesmith.execution import run
from tunesmith.records import Failed, Noted, Told

SPACE = ts.Space({"x": ts.Float(0.0, 1.0)})
GOAL = ts.Goal("loss")
HUGE = 10**400


def train(config: Any) -> float:
    return float(config["x"])


def tune(**options: Any) -> ts.Study:
    return ts.tune(train, SPACE, **{"minimise": "loss", "trials": 2, **options})


def study(**options: Any) -> ts.Study:
    return ts.Study(SPACE, GOAL, **options)


DEFINITIONS: dict[str, tuple[Callable[[], Any], str]] = {
    "a scheduler's name": (lambda: study(scheduler="ASHA"), r"not 'ASHA': write schedulers.ASHA\(...\)"),
    "a sampler's name": (lambda: study(sampler="TPE"), r"not 'TPE': write samplers.TPE\(...\)"),
    "a class": (lambda: study(sampler=ts.samplers.TPE), r"is a class: write TPE\(...\)"),
    "swapped": (lambda: study(sampler=ts.schedulers.Full(3)), "is a scheduler: pass it as scheduler="),
    "a goal's name": (lambda: ts.Study(SPACE, "loss"), r"goals='loss' must be a Goal: Goal\('loss'\)"),  # type: ignore[arg-type]
    "a goal's name in tune": (lambda: tune(minimise=None, goals="loss"), r"goals='loss' must be a Goal"),
    "no goals": (lambda: ts.Study(SPACE, 3), "goals must be a list of Goal, .* not 3"),  # type: ignore[arg-type]
    "direction": (lambda: ts.Study(SPACE, direction="minimize"), r"'direction': here it is goals=Goal\('loss'\)"),  # type: ignore[call-arg]
    "minimise of a study": (lambda: ts.Study(SPACE, minimise="loss"), r"'minimise': here it is goals=Goal"),  # type: ignore[call-arg]
    "minimize": (lambda: tune(minimize="loss"), "'minimize': here it is minimise="),
    "n_trials": (lambda: tune(n_trials=3), "'n_trials': here it is trials="),
    "n_jobs": (lambda: tune(n_jobs=3), "'n_jobs': here it is workers="),
    "seconds as text": (lambda: tune(seconds="10"), "seconds must be a number of seconds, not '10'"),
    "no seconds": (lambda: tune(seconds=True), "seconds must be a number of seconds, not True"),
    "a limit as text": (lambda: tune(time_limit="5"), "time_limit must be a number of seconds, not '5'"),
    "progress": (lambda: tune(progress=5), "progress=5 must be True, False, None or a function"),
    "callback": (lambda: tune(callback=5), "callback=5 must be a function of the study and a trial"),
    "checkpoints": (lambda: tune(checkpoints=5), "checkpoints=5 must be the path of a folder"),
    "enqueue": (lambda: tune(enqueue=3), "enqueue must be a list of configurations, .* not 3"),
    "the name of a study in memory": (lambda: study(name=3), "name of a study must be a string .* not 3"),
    "no name": (lambda: study(name=""), "name of a study must be a string that is not empty"),
    "goals by name": (lambda: ts.Study(SPACE, ["loss"]), r"such as \[Goal\(.*\], not \['loss'\]"),  # type: ignore[list-item]
    "goals by name in tune": (
        lambda: tune(minimise=None, goals=["loss"]),
        r"such as \[Goal\(.*\], not \['loss'\]",
    ),
    "trials of a run": (
        lambda: run(study(), train, trials=9),  # type: ignore[call-arg]
        r"'trials': it is an argument of the study, Study\(..., trials=...\) or Study.open\(path, trials=...\)",
    ),
    "n_trials of a run": (lambda: run(study(), train, n_trials=9), r"'n_trials': .* Study\(..., trials="),  # type: ignore[call-arg]
    "a slip in open": (lambda: ts.Study.open("a.db", tirals=3), "Study.open has no argument 'tirals': did you mean tr"),  # type: ignore[call-arg]
    "no study to run": (lambda: run("study.db", train), r"run needs a study, not 'study.db'"),  # type: ignore[arg-type]
    "no study to replay": (lambda: ts.replay("study.db"), r"replay\(Study.open\(path\)\)"),  # type: ignore[arg-type]
    "endless": (lambda: tune(trials=None), "never end: give trials="),
    "endless by duplicates": (
        lambda: ts.tune(train, {"x": ts.Integer(1, 3)}, minimise="loss", duplicates=True),
        "never end: give trials=",
    ),
}


S = ts.schedulers
PARTS: dict[str, tuple[Callable[[], Any], str]] = {
    "minimise of a goal": (lambda: ts.Goal(minimise="x"), r"'minimise': a metric is minimised unless maximise=True"),  # type: ignore[call-arg]
    "direction of a goal": (lambda: ts.Goal("x", direction="minimize"), r"'direction': a metric is minimised unless"),  # type: ignore[call-arg]
    "mode of a goal": (lambda: ts.Goal("x", mode="min"), "'mode': a metric is minimised unless"),  # type: ignore[call-arg]
    "maximize": (lambda: ts.Goal("x", maximize=True), "Goal has no argument 'maximize': did you mean maximise="),  # type: ignore[call-arg]
    "a direction by position": (lambda: ts.Goal("x", "minimize"), "Goal: maximise='minimize' must be True or False"),  # type: ignore[arg-type]
    "a goal without a name": (lambda: ts.Goal(), "Goal: missing required argument 'metric'; it has metric, maximise"),  # type: ignore[call-arg]
    "a goal that is a number": (lambda: ts.Goal(3), "Goal: metric=3 must be the name of a metric"),  # type: ignore[arg-type]
    "once as text": (lambda: ts.Goal("x", once="no"), "Goal: once='no' must be True or False"),  # type: ignore[arg-type]
    "a constraint's limit": (lambda: ts.Constraint("m", limit=3.0), "'limit': did you mean at_most="),  # type: ignore[call-arg]
    "a constraint that is a number": (lambda: ts.Constraint(3, 1.0), "Constraint: metric=3 must be the name"),  # type: ignore[arg-type]
    "choices": (lambda: ts.Categorical(choices=["a"]), "Categorical has no argument 'choices': did you mean options="),  # type: ignore[call-arg]
    "an ordinal's choices": (lambda: ts.Ordinal(choices=[1, 2]), "'choices': did you mean values="),  # type: ignore[call-arg]
    "q": (lambda: ts.Float(0.0, 1.0, q=0.1), "Float has no argument 'q': did you mean step="),  # type: ignore[call-arg]
    "no upper end": (lambda: ts.Float(0.0), "Float: missing required argument 'high'"),  # type: ignore[call-arg]
    "too many": (lambda: ts.Budget(30), "Budget: extra positional arguments provided; it has seconds"),  # type: ignore[misc]
    "no length": (lambda: S.ASHA(), r"ASHA: missing .* 'max_steps'; .*: ASHA\(max_steps=27\), for instance"),  # type: ignore[call-arg]
    "no population": (lambda: S.PBT(steps=3), r"PBT\(population=16, ready=3, steps=27\), for instance"),  # type: ignore[call-arg]
    "no limit": (lambda: ts.Constraint("ms"), r"Constraint\(metric='loss', at_most=5.0\), for instance"),  # type: ignore[call-arg]
    "hi": (lambda: ts.Float(0.0, hi=1.0), "Float has no argument 'hi': did you mean high="),  # type: ignore[call-arg]
    "reduction_factor of ASHA": (lambda: S.ASHA(9, reduction_factor=3), "'reduction_factor': did you mean eta="),  # type: ignore[call-arg]
    "population_size": (
        lambda: S.PBT(population_size=4),
        "PBT has no argument 'population_size': did you mean population=",
    ),
    "max_t": (lambda: S.ASHA(max_t=9), "ASHA has no argument 'max_t': did you mean max_steps="),
    "reduction_factor": (lambda: S.Hyperband(9, reduction_factor=3), "'reduction_factor': did you mean eta="),
    "the seed of a sampler": (lambda: ts.samplers.TPE(seed=3), "'seed': all randomness follows from the seed of the"),
    "a goal that is no text": (
        lambda: ts.Study(SPACE, ts.Goal("a\udcff")),
        r"Goal: metric='a\\udcff' must be a name that",
    ),
    "a limit of no text": (
        lambda: study(constraints=ts.Constraint("a\udcff", 1.0)),
        r"Constraint: metric='a\\udcff' must be a name that can be written",
    ),
    "a slip": (lambda: ts.samplers.TPE(startip=3), "'startip': did you mean startup="),
    "another name": (lambda: S.Full(zebra=3), "Full has no argument 'zebra'; it has steps, seeds"),
    "none at all": (lambda: ts.samplers.Uniform(zebra=3), "Uniform has no argument 'zebra'; it has none"),
}


@pytest.mark.parametrize("struct", [S.ASHA, S.Hyperband, S.Median, S.Chain, S.FIRE, ts.Goal, ts.Float, ts.Categorical])
def test_the_example_of_what_is_missing_can_be_written(struct: Any) -> None:
    with pytest.raises(TypeError) as error:
        struct()
    example = str(error.value).split(": ")[-1].removesuffix(", for instance")
    assert isinstance(eval(example, {**vars(ts), **{name: getattr(S, name) for name in S.__all__}}), struct)


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("ASHA", "tunesmith has no 'ASHA': it is tunesmith.schedulers.ASHA$"),
        ("PBT", "it is tunesmith.schedulers.PBT$"),
        ("TPE", "it is tunesmith.samplers.TPE$"),
        ("tpe", "it is tunesmith.samplers.TPE$"),
        ("Choice", "it is tunesmith.Categorical$"),
        ("Int", "it is tunesmith.Integer$"),
        ("LogUniform", r"it is tunesmith.Float\(low, high, log=True\)$"),
        ("Uniform", "it is tunesmith.samplers.Uniform or tunesmith.Float$"),
        ("suggest_float", "it is tunesmith.Float$"),
        ("Categorial", "did you mean tunesmith.Categorical"),
        ("Hyperbnd", "did you mean tunesmith.schedulers.Hyperband"),
        ("run", "it is tunesmith.execution.run$"),
        ("zebra", "tunesmith has no 'zebra'$"),
    ],
)
def test_a_name_that_is_elsewhere(name: str, words: str) -> None:
    with pytest.raises(AttributeError, match=words):
        getattr(ts, name)


@pytest.mark.parametrize(("act", "words"), PARTS.values(), ids=PARTS)
def test_parts(act: Callable[[], Any], words: str) -> None:
    refused(act, words)


def refused(act: Callable[[], Any], words: str) -> None:
    with pytest.raises((TypeError, ValueError), match=words) as error:
        act()
    text = str(error.value)
    assert "\n" not in text and len(text) < 500


@pytest.mark.parametrize(("act", "words"), DEFINITIONS.values(), ids=DEFINITIONS)
def test_definitions(act: Callable[[], Any], words: str) -> None:
    refused(act, words)


Use = Callable[[ts.Study, Any], Any]
USES: dict[str, tuple[Use, str]] = {
    "ask for text": (lambda s, j: s.ask("3"), r"ask\('3'\): give a whole number"),
    "ask for a part": (lambda s, j: s.ask(2.5), r"ask\(2.5\): give a whole number"),
    "a worker": (lambda s, j: s.ask(worker=3), "worker=3 must be a string"),
    "fail nothing": (lambda s, j: s.fail(None), "a Job from ask.. is needed, not None"),
    "a kind": (lambda s, j: s.fail(j, "why", "weird"), "kind='weird' must be one of 'raised'"),
    "no duration of a failure": (lambda s, j: s.fail(j, seconds=float("nan")), "seconds=nan must be at least 0"),
    "no duration": (lambda s, j: s.tell(j, {"loss": 1.0}, seconds=float("nan")), "seconds=nan must be at least 0"),
    "half a step": (lambda s, j: s.tell(j, {"loss": 1.0}, step=1.5), "step=1.5 must be a whole number"),
    "a metric's name": (lambda s, j: s.tell(j, {3: 1.0}), "name of a metric must be a string, not 3"),
    "no metrics": (lambda s, j: s.tell(j, 0.5), "metrics must be a dict such as"),
    "too few metrics": (lambda s, j: s.tell([j, j], [{"loss": 1.0}]), r"tell: 2 jobs need a list of 2 metrics, not \["),
    "metrics of one": (lambda s, j: s.tell([j], {"loss": 1.0}), "tell: 1 jobs need a list of 1 metrics, not {"),
    "a complex number": (lambda s, j: s.tell(j, {"loss": 1j}), "is not a number"),
    "a checkpoint": (lambda s, j: s.tell(j, {"loss": 1.0}, checkpoint="a"), "checkpoint='a' must be a Checkpoint"),
    "add nothing": (lambda s, j: s.add(None, {"loss": 1.0}), "add needs a configuration, .* not None"),
    "add half a step": (lambda s, j: s.add({"x": 0.1}, {"loss": 1.0}, step=1.5), "step=1.5 must be a whole number"),
    "enqueue nothing": (lambda s, j: s.enqueue(None), "enqueue needs a configuration, .* not None"),
    "estimate": (lambda s, j: s.estimate(99), "there is no trial 99"),
    "a note": (lambda s, j: s.note(a=object()), "must be a string, a number"),
    "a sampler that is none": (lambda s, j: s.change(sampler=3), "sampler must be an object .* not 3"),
    "a scheduler's class": (lambda s, j: s.change(scheduler=ts.schedulers.Full), r"is a class: write Full\(...\)"),
    "a slip in a change": (
        lambda s, j: s.change(smpler=3),
        "Study.change has no argument 'smpler': did you mean sampler",
    ),  # type: ignore[call-arg]
    "a metric's name for its best step": (
        lambda s, j: s.trials[0].best_step("loss"),
        r"best_step\('loss'\) needs a goal",
    ),  # type: ignore[arg-type]
    "a metric's name as a goal": (lambda s, j: s.trials[0].value("loss"), r"value\('loss'\) needs a goal of the study"),  # type: ignore[arg-type]
    "a space that is none": (lambda s, j: s.change(space={"x": ts.Float(0, 1)}), "space must be a Space, not dict"),
    "a raw step": (lambda s, j: s.store.append([Told(0, 0, 1.5, {"loss": [1.0]})]), "Told is wrong.*`int`"),  # type: ignore[arg-type]
    "a raw kind": (lambda s, j: s.store.append([Failed(0, 0, "x", "weird")]), "Failed is wrong.*'weird'"),  # type: ignore[arg-type]
    "raw metrics": (lambda s, j: s.store.append([Told(0, 0, 0, {"loss": ["a"]})]), "Told is wrong"),  # type: ignore[list-item]
    "a raw note": (lambda s, j: s.store.append([Noted({"a": object()})]), "nothing was stored.*Noted is wrong"),  # type: ignore[dict-item]
    "no event": (lambda s, j: s.store.append(["x"]), "nothing was stored"),
}


@pytest.mark.parametrize("stored", [False, True], ids=["memory", "SQLite"])
@pytest.mark.parametrize(("use", "words"), USES.values(), ids=USES)
def test_of_a_study(use: Use, words: str, stored: bool, tmp_path: Path) -> None:
    with study(scheduler=ts.schedulers.Full(3), store=tmp_path / "a.db" if stored else None) as made:
        job = made.ask()
        assert job is not None
        before = made.events()
        refused(lambda: use(made, job), words)
        assert made.events() == before
        made.tell(job, {"loss": [3.0, 2.0, 1.0]})
        assert made.trials[0].status == "complete" and ts.replay(made) == []


@pytest.mark.parametrize("stored", [False, True], ids=["memory", "SQLite"])
def test_numbers_of_other_kinds(stored: bool, tmp_path: Path) -> None:
    with study(seed=np.int64(3), store=tmp_path / "a.db" if stored else None) as made:
        first, second = made.ask(2)
        made.tell(first, {"loss": np.float32(0.5), "size": HUGE})  # beyond all floats: not finite
        made.tell(second, {"loss": HUGE})
        made.note(size=HUGE)
        assert made.trials[0].metrics == {"loss": 0.5}
        assert made.trials[1].kind == "non-finite"
        assert made.notes == {"size": str(HUGE)}
