"""Options with values: training code gets the values; the log, programs and tables have the names."""

from __future__ import annotations

import json
import subprocess
import sys
import textwrap

import pytest
import torch
import training_code as code
from jax import numpy as jnp

import tunesmith as ts
from tunesmith.execution import ExecutionError, JaxTask, Options, Processes, TorchTask, run
from tunesmith.execution.retrain import retrain
from tunesmith.space import SpaceError


class Half:
    rate = 0.5


class Double:
    rate = 2.0


SPACE = ts.Space(
    {
        "lr": ts.Categorical(
            {"slow": 0.5, "fast": ts.Option(2.0, ts.Space({"extra": ts.Categorical({"one": (1, 2)})}))}
        ),
        "kind": ts.Categorical({"half": Half, "double": Double}),
    },
    constraints=[lambda config: config["kind"] == "double" or config["lr"] == "slow"],  # is not sent anywhere
)
RATES = {"slow": 0.5, "fast": 2.0}
FORMS = {name: train for name, train in code.RESUMABLE.items() if name != "command"}


def by_class(config):
    return {"x": config["kind"].rate}


def keyed(config):
    assert (config["lr"], config.get("extra")) in ((2.0, (1, 2)), (0.5, None))
    return {"x": config["kind"].rate}


@pytest.mark.parametrize("form", FORMS)
def test_every_form_gets_values_also_when_it_goes_on_or_forks(form):
    scheduler = ts.schedulers.PBT(population=4, ready=2, steps=6, explore=ts.schedulers.Perturb(resample=0.5))
    space = {"lr": ts.Categorical({"slow": 0.5, "fast": 2.0})}
    study = ts.tune(FORMS[form], space, maximise="x", scheduler=scheduler)
    assert any(trial.parent is not None for trial in study.trials)
    for trial in study.trials:
        assert trial.config["lr"] in RATES  # a name
        assert trial.last("lr") == RATES[trial.config["lr"]]
    assert {row["params.lr"] for row in study.to_dicts()} <= RATES.keys()


@pytest.mark.parametrize("form", FORMS)
def test_every_form_gets_values_in_worker_processes(form):
    study = ts.tune(FORMS[form], SPACE, maximise="x", trials=4, steps=3, workers=2, sampler=ts.samplers.Uniform())
    for trial in study.trials:
        assert trial.status == "complete" and trial.last("lr") == RATES[trial.config["lr"]]


@pytest.mark.parametrize("workers", [1, 2])
def test_functions_and_branches(workers):
    study = ts.tune(keyed, SPACE, maximise="x", trials=5, workers=workers, sampler=ts.samplers.QMC())
    for trial in study.trials:
        assert trial.last("x") == {"half": 0.5, "double": 2.0}[trial.config["kind"]]


class Alike:
    """A value that does not print what it is."""

    def __init__(self, rate):
        self.rate = rate

    def __repr__(self):
        return "Alike()"


class InJax:
    def init(self, config, key):
        return {"rate": jnp.zeros(())}

    def step(self, state, config, key):
        return {"rate": jnp.float32(config["kind"].rate)}, {"x": config["kind"].rate + 0 * config["lr"]}


class InTorch:
    def init(self, config, generator):
        return {"rate": torch.zeros(())}

    def step(self, state, config, drawn):
        return {"rate": torch.tensor(config["kind"].rate)}, {"x": config["kind"].rate + 0 * config["lr"]}


@pytest.mark.parametrize("task", [JaxTask(InJax()), TorchTask(InTorch(), device="cpu")], ids=["JAX", "PyTorch"])
def test_populations_as_one_program_get_values_and_tell_them_apart(task):
    kinds = ts.Categorical({"half": Alike(0.5), "double": Alike(2.0)})
    space = {"lr": ts.Float(0.1, 1.0), "kind": kinds}
    scheduler = ts.schedulers.PBT(population=6, ready=2, steps=6, explore=ts.schedulers.Perturb(resample=0.5))
    study = ts.tune(task, space, maximise="x", scheduler=scheduler)
    assert {trial.config["kind"] for trial in study.trials} == {"half", "double"}
    for trial in study.trials:
        assert trial.status != "failed" and trial.last("x") == {"half": 0.5, "double": 2.0}[trial.config["kind"]]


def test_values_that_decide_a_shape_are_seen_at_the_start():
    class Wide(InJax):
        def init(self, config, key):
            return {"w": jnp.zeros(int(2 * config["kind"].rate))}

        def step(self, state, config, key):
            return state, {"x": config["lr"]}

    space = {"lr": ts.Float(0.1, 1.0), "kind": ts.Categorical({"half": Alike(0.5), "double": Alike(2.0)})}
    with pytest.raises(ValueError, match=r"^kind decides the shapes .*fixed=True"):
        ts.tune(JaxTask(Wide()), space, maximise="x", scheduler=ts.schedulers.PBT(population=4, ready=1, steps=2))


def test_a_command_gets_names():
    script = "import json, os; print(json.dumps({'x': json.loads(os.environ['TUNESMITH_CONFIG'])['kind'] == 'half'}))"
    command = ts.Command([sys.executable, "-c", script, "{kind}"])
    study = ts.tune(command, SPACE, maximise="x", trials=2)
    assert [trial.last("x") for trial in study.trials] == [trial.config["kind"] == "half" for trial in study.trials]


def test_ask_and_tell_have_the_values(tmp_path):
    store = tmp_path / "study.db"
    with ts.Study(SPACE, ts.Goal("x"), store=store) as study:
        with pytest.raises(ts.TunesmithError, match="no best trial yet"):
            study.values()
        job = study.ask()
        assert study.values(job)["kind"].rate in (0.5, 2.0) and study.values(job)["lr"] == RATES[job.config["lr"]]
        study.tell(job, {"x": 1.0})
        assert study.values() == study.values(study.best) == study.values(0) == study.values(job)
        assert job.config["kind"] in ("half", "double")
    with ts.Study.open(store) as study, pytest.raises(SpaceError, match="pass the space that has it"):
        study.values(0)


def test_an_unknown_value_ends_the_run_and_costs_no_trial(tmp_path):
    store = tmp_path / "study.db"
    space = ts.Space({"kind": ts.Categorical({"half": Half, "double": Double})})
    ts.Study(space, ts.Goal("x"), store=store).close()
    with ts.Study.open(store, trials=2) as study:
        with pytest.raises(
            ExecutionError, match=r"'kind': the value of the option .* is not in the log: pass the space"
        ):
            run(study, by_class)
        assert [trial.status for trial in study.trials] == ["waiting"]
    with ts.Study.open(store, space=space, trials=2) as study:
        run(study, by_class)
        assert [trial.status for trial in study.trials] == ["complete"] * 2


def test_retrain_with_values():
    schedule = [{"lr": "slow"}] * 2 + [{"lr": "fast"}] * 2
    space = ts.Space({"lr": ts.Categorical({"slow": 0.5, "fast": 2.0})})
    for workers in (0, 2):
        found = retrain(
            code.generator, lambda step: schedule[step], 4, metric="x", seeds=[0], workers=workers, space=space
        )
        assert found.schedule[0]["x"] == 5.0 and found.constant[0]["x"] == 8.0


def test_a_loaded_state_belongs_to_the_values():
    study = ts.tune(code.generator, {"lr": ts.Categorical({"slow": 0.5, "fast": 2.0})}, maximise="x", steps=2)
    assert study.load() == {"x": 4.0} == {"x": 2 * study.values()["lr"]}


def test_values_that_cannot_be_sent():
    space = ts.Space({"rows": ts.Categorical({"all": (row for row in range(3))})})
    with pytest.raises(ExecutionError, match=r"'rows'.* can't be sent to worker processes"):
        Processes(by_class, Options(("x",), None, space=space))


SCRIPT = """
import json
import tunesmith as ts

class Relu:
    rate = 3.0

space = ts.Space({"kind": ts.Categorical({"relu": Relu})})

if __name__ == "__main__":
    study = ts.tune(TRAIN, space, maximise="x", workers=2)
    print(json.dumps([study.best.config, study.best.last("x")]))
"""


def test_values_that_stand_in_the_script(tmp_path):
    """The training code does not need the script, but its values do."""
    (tmp_path / "training.py").write_text("def train(config):\n    return {'x': config['kind'].rate}\n")
    script = "import training\n" + textwrap.dedent(SCRIPT).replace("TRAIN", "training.train")
    (tmp_path / "script.py").write_text(script)
    done = subprocess.run([sys.executable, "script.py"], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert json.loads(done.stdout) == [{"kind": "relu"}, 3.0]
