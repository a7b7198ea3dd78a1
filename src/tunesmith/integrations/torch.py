"""PyTorch under population based training: load the state of a training, but not its old hyperparameters.

``optimizer.load_state_dict`` also loads the learning rate, the momentum, ... that the state was saved with. After a
fork that undoes what was explored. Make model, optimizer and schedule from the *new* configuration, then::

    model.load_state_dict(state["model"])
    load_optimizer(optimizer, state["optimizer"])
    load_scheduler(scheduler, state["scheduler"])

With the same configuration the training goes on to the bit as if it had never been interrupted.

Of PyTorch's schedules only ``ReduceLROnPlateau`` keeps no note of the learning rates that it began with, without which
nobody can tell how much of the present rate is its reductions. Importing this module makes it keep one, as the
attribute ``base_lrs`` that the others have.
"""

from __future__ import annotations

import copy
import functools
import math
from bisect import bisect_right
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any
from weakref import WeakKeyDictionary

from tunesmith.errors import install

try:
    import torch
except ModuleNotFoundError as error:
    if error.name != "torch":
        raise
    raise ModuleNotFoundError(f"{__name__} needs PyTorch: {install('torch')}", name="torch") from error
from torch.optim import ASGD, LBFGS, Optimizer, RMSprop
from torch.optim.lr_scheduler import (
    ChainedScheduler,
    CosineAnnealingWarmRestarts,
    CyclicLR,
    LambdaLR,
    LRScheduler,
    OneCycleLR,
    ReduceLROnPlateau,
    SequentialLR,
)
from torch.optim.swa_utils import SWALR

#: what a schedule has counted so far; everything else in its state is a hyperparameter
_COUNTERS = ("last_epoch", "_step_count", "best", "num_bad_epochs", "cooldown_counter", "T_cur", "T_i")

#: schedules whose learning rate follows from their step alone, whatever it was before
_MEMORYLESS = (LambdaLR, CosineAnnealingWarmRestarts, OneCycleLR, CyclicLR)


@dataclass(frozen=True)
class _Saved:
    """Of the state that an optimizer has loaded: its parameter groups, and the next step sizes of ASGD."""

    groups: list[dict[str, Any]]
    etas: dict[torch.Tensor, torch.Tensor]


_saved: WeakKeyDictionary[Optimizer, _Saved] = WeakKeyDictionary()


def load_optimizer(optimizer: Optimizer, state_dict: Mapping[str, Any]) -> None:
    """Load momentum buffers, step counts and the like, but not learning rate, momentum, betas, weight decay, ...

    Args:
        optimizer: made from the present configuration; changed in place.
        state_dict: what ``state_dict()`` of an optimizer of the same kind, with the same parameters, has given; it
            stays as it is.

    Raises:
        ValueError: the parameter groups are not the same ones.
    """
    present = [_hyperparameters(group) for group in optimizer.param_groups]
    groups = state_dict["param_groups"]
    loaded = [group | mine for group, mine in zip(groups, present, strict=False)] + groups[len(present) :]
    optimizer.load_state_dict({"state": copy.deepcopy(state_dict["state"]), "param_groups": loaded})
    for group, mine in zip(optimizer.param_groups, present, strict=True):
        for name in _hyperparameters(group).keys() - mine.keys():
            del group[name]  # left there by a learning-rate schedule of the old training
        group.update(mine)  # a learning rate that is a tensor stays the same tensor
        for parameter in group["params"]:
            if optimizer.state.get(parameter):
                _complete(optimizer, group, parameter)
    etas = {p: memory["eta"].clone() for p, memory in optimizer.state.items() if isinstance(optimizer, ASGD)}
    _saved[optimizer] = _Saved([_hyperparameters(copy.deepcopy(group)) for group in groups], etas)
    _set_step_sizes(optimizer)


def load_scheduler(scheduler: LRScheduler, state_dict: Mapping[str, Any]) -> None:
    """Load how far a learning-rate schedule is; base learning rates and its other hyperparameters stay as they are.

    The present base learning rates take the place of the old ones, and what the schedule has made of them so far
    stays. Where its other hyperparameters have changed too, the learning rate becomes that of the present schedule at
    this step; only ``MultiplicativeLR`` and ``ReduceLROnPlateau``, which can't tell that, keep what the old one made.
    ``OneCycleLR`` and ``CyclicLR`` set the momentum, too.

    Load the optimizer first. Where several schedules act on one optimizer, load each of them.

    Args:
        scheduler: made from the present configuration, around the present optimizer; changed in place.
        state_dict: what ``state_dict()`` of a schedule of the same kind has given; it stays as it is.
    """
    optimizer = scheduler.optimizer
    if isinstance(scheduler, ReduceLROnPlateau) and not hasattr(scheduler, "base_lrs"):  # made before this module was
        scheduler.base_lrs = list(scheduler._last_lr)
    told = _floats(state_dict["_last_lr"])
    saved = _saved.get(optimizer)
    rates = told if saved is None else _floats(group["lr"] for group in saved.groups)
    old = _as_saved(scheduler, state_dict, rates)
    _load_counters(scheduler, state_dict)
    _set_momentum(scheduler)
    active = _active(scheduler)
    if isinstance(active, SWALR):
        rates = _annealed(active, _active(old), rates, saved)
    elif isinstance(active, _MEMORYLESS) and told == rates:  # otherwise another schedule has had the last word
        rates = _asked(active)
    else:
        rates = _scaled(rates, _formula(old), _formula(scheduler))
    if isinstance(scheduler, ReduceLROnPlateau):
        floors = map(min, _floats(scheduler.min_lrs), _bases(scheduler))
        rates = list(map(max, rates, floors))
    for group, rate in zip(optimizer.param_groups, rates, strict=True):
        if isinstance(group["lr"], torch.Tensor):
            group["lr"].fill_(rate)
        else:
            group["lr"] = rate
    for schedule in (scheduler, active):
        schedule._last_lr = [copy.deepcopy(group["lr"]) for group in optimizer.param_groups]
    _set_step_sizes(optimizer)


# -- optimizers ---------------------------------------------------------------------------------------------------


def _hyperparameters(group: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in group.items() if name != "params"}


def _complete(optimizer: Optimizer, group: Mapping[str, Any], parameter: torch.Tensor) -> None:
    """Give the memory of a parameter what the present hyperparameters need, and take away what is too much."""
    memory = optimizer.state[parameter]
    needed = {"max_exp_avg_sq": group.get("amsgrad", False)}
    if isinstance(optimizer, RMSprop):
        needed |= {"grad_avg": group["centered"], "momentum_buffer": group["momentum"] > 0}
    for name, is_needed in needed.items():
        if is_needed and name not in memory:
            memory[name] = torch.zeros_like(parameter, memory_format=torch.preserve_format)
    if isinstance(optimizer, LBFGS):
        memory.pop("al", None)  # scratch, as long as the history
        for name in ("old_dirs", "old_stps", "ro"):
            if memory.get(name):
                memory[name] = memory[name][-group["history_size"] :]


def _set_step_sizes(optimizer: Optimizer) -> None:
    """ASGD has the size of its next step in its memory, made of the learning rate that was saved."""
    saved = _saved.get(optimizer)
    if saved is None or not saved.etas:
        return
    for group, before in zip(optimizer.param_groups, saved.groups, strict=True):
        for parameter in group["params"]:
            if parameter in saved.etas:
                memory = optimizer.state[parameter]
                step = float(memory["step"])
                memory["eta"].copy_(saved.etas[parameter] * (_step_size(group, step) / _step_size(before, step)))


def _step_size(group: Mapping[str, Any], step: float) -> float:
    rate = float(group["lr"])
    return float(rate / (1 + group["lambd"] * rate * step) ** group["alpha"])


# -- schedules ----------------------------------------------------------------------------------------------------


def _note_base_lrs() -> None:
    """Have ``ReduceLROnPlateau`` remember the learning rates that it began with."""
    begin = ReduceLROnPlateau.__init__

    @functools.wraps(begin)
    def begin_and_note(self: Any, optimizer: Optimizer, *args: Any, **options: Any) -> None:
        begin(self, optimizer, *args, **options)
        self.base_lrs = list(self._last_lr)

    if not hasattr(begin, "__wrapped__"):
        ReduceLROnPlateau.__init__ = begin_and_note  # type: ignore[method-assign]


_note_base_lrs()


def _as_saved(scheduler: Any, state: Mapping[str, Any], rates: list[float]) -> Any:
    """A schedule with the hyperparameters, the base learning rates and the counts of a state."""
    old = copy.copy(scheduler)
    for name, value in state.items():
        if name == "_schedulers":
            old._schedulers = [
                _as_saved(inner, its, rates) for inner, its in zip(scheduler._schedulers, value, strict=True)
            ]
        elif name not in ("lr_lambdas", "_scale_fn_custom"):  # functions, which no state has
            counted = isinstance(getattr(scheduler, name, None), Counter)
            setattr(old, name, Counter(value) if counted else value)  # a checkpoint makes a dict of it
    if isinstance(scheduler, SWALR) and "_anneal_strategy" in state:
        old._set_anneal_func(old._anneal_strategy)
    if isinstance(scheduler, ReduceLROnPlateau) and "base_lrs" not in state:
        old.base_lrs = _began(scheduler, old, rates)
    return old


def _began(scheduler: Any, old: Any, rates: list[float]) -> list[float]:
    """The rates that a schedule began with which has kept no note of them: those from which a whole number of
    reductions leads to the present rates, and of these the nearest to the base rates of the present schedule.
    """
    most = old.last_epoch // (old.patience + 1)
    began = []
    for base, rate, floor in zip(_bases(scheduler), rates, old.min_lrs, strict=True):
        reduced = [base]
        for _ in range(most):
            reduced.append(max(reduced[-1] * old.factor, floor))
        if rate in reduced or rate <= 0 or base <= 0 or old.factor <= 0:
            began.append(base)
        else:
            times = min(max(0, round(math.log(rate / base) / math.log(old.factor))), most)
            began.append(rate / old.factor**times)
    return began


def _load_counters(scheduler: Any, state: Mapping[str, Any]) -> None:
    """Count as far as the saved schedule; where its phases were others, place the present one at the same step."""
    phases = [name for name in ("_milestones", "T_0", "T_mult") if name in state]
    if any(getattr(scheduler, name) != state[name] for name in phases):
        _place(scheduler, state["last_epoch"])
        return
    for name in _COUNTERS:
        if name in state:
            setattr(scheduler, name, state[name])
    for inner, its in zip(getattr(scheduler, "_schedulers", ()), state.get("_schedulers", ()), strict=True):
        _load_counters(inner, its)


def _place(scheduler: Any, epoch: int) -> None:
    """Count to an epoch, and let each phase of a sequence count to its part of it."""
    if not isinstance(scheduler, ChainedScheduler):
        scheduler.last_epoch, scheduler._step_count = epoch, epoch + 1
    if isinstance(scheduler, CosineAnnealingWarmRestarts):
        scheduler.T_cur, scheduler.T_i = epoch, scheduler.T_0
        while scheduler.T_cur >= scheduler.T_i:
            scheduler.T_cur, scheduler.T_i = scheduler.T_cur - scheduler.T_i, scheduler.T_i * scheduler.T_mult
    if isinstance(scheduler, ChainedScheduler):
        for inner in scheduler._schedulers:
            _place(inner, epoch)
    if isinstance(scheduler, SequentialLR):
        starts = [0, *scheduler._milestones]
        ends = [*scheduler._milestones, epoch + 1]
        for inner, start, end in zip(scheduler._schedulers, starts, ends, strict=True):
            if start <= epoch:
                _place(inner, min(epoch, end - 1) - start)


def _begun(scheduler: Any) -> list[Any]:
    """The schedules in a sequence that have begun, the present one last; all those of a chain."""
    inner: list[Any] = list(getattr(scheduler, "_schedulers", ()))
    if isinstance(scheduler, SequentialLR):
        return inner[: bisect_right(scheduler._milestones, scheduler.last_epoch) + 1]
    return inner


def _active(scheduler: Any) -> Any:
    """The schedule in a sequence whose turn it is; any other is its own."""
    return _active(_begun(scheduler)[-1]) if isinstance(scheduler, SequentialLR) else scheduler


def _set_momentum(scheduler: Any) -> None:
    """Set the momentum that a schedule prescribes at its step."""
    for inner in _begun(scheduler):
        _set_momentum(inner)
    if isinstance(scheduler, OneCycleLR | CyclicLR):
        _asked(scheduler)


def _asked(scheduler: Any) -> list[float]:
    """The rates of a schedule that follow from its step alone."""
    scheduler._get_lr_called_within_step = True  # or it warns
    try:
        return _floats(scheduler.get_lr())
    finally:
        scheduler._get_lr_called_within_step = False


def _formula(scheduler: Any) -> list[float]:
    """The rates at its step as far as a formula tells them; where only the past does, its base rates."""
    if isinstance(scheduler, SequentialLR):
        return _formula(_active(scheduler))
    if isinstance(scheduler, ChainedScheduler):
        first, *others = scheduler._schedulers
        rates = _formula(first)
        for other in others:
            rates = _scaled(rates, _bases(other), _formula(other))
        return rates
    if hasattr(scheduler, "_get_closed_form_lr"):
        return _floats(scheduler._get_closed_form_lr())
    return _bases(scheduler)


def _bases(scheduler: Any) -> list[float]:
    """The learning rates that a schedule began with."""
    return _bases(scheduler._schedulers[0]) if hasattr(scheduler, "_schedulers") else _floats(scheduler.base_lrs)


def _scaled(rates: list[float], before: list[float], now: list[float]) -> list[float]:
    """Rates, changed by as much as others have; to the bit the same where those are."""
    changes = zip(rates, before, now, strict=True)
    return [rate if new == old else rate * (new / old) if old else new for rate, old, new in changes]


def _annealed(scheduler: Any, old: Any, rates: list[float], saved: _Saved | None) -> list[float]:
    """The rates of stochastic weight averaging at its step: between where it began, scaled, and its goal."""
    groups = scheduler.optimizer.param_groups
    goals = _floats(group["swa_lr"] for group in groups)
    old_goals = goals if saved is None else [float(group.get("swa_lr", group["lr"])) for group in saved.groups]
    there, part = _progress(old), _progress(scheduler)
    bases, old_bases = _bases(scheduler), _bases(old)
    if (part, goals, bases) == (there, old_goals, old_bases):
        return rates
    began = [scheduler._get_initial_lr(rate, goal, there) for rate, goal in zip(rates, old_goals, strict=True)]
    starts = _scaled(began, old_bases, bases) if there < 1 else bases  # at its goal it does not know any more
    return [goal * part + start * (1 - part) for goal, start in zip(goals, starts, strict=True)]


def _progress(scheduler: Any) -> float:
    """How much of the way to its goal weight averaging has gone."""
    steps = max(scheduler._step_count - 1, scheduler.anneal_epochs == 0)
    return float(scheduler.anneal_func(min(1.0, steps / max(1, scheduler.anneal_epochs))))


def _floats(values: Iterable[Any]) -> list[float]:
    return [float(value) for value in values]
