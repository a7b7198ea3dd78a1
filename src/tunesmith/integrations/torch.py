"""PyTorch under population based training: load the state of a training, but not its old hyperparameters.

``optimizer.load_state_dict`` also loads the learning rate, the momentum, ... that the state was saved with. After a
fork that undoes what was explored. Make model, optimizer and schedule from the *new* configuration, then::

    model.load_state_dict(state["model"])
    load_optimizer(optimizer, state["optimizer"])
    load_scheduler(scheduler, state["scheduler"])
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch.optim import Optimizer
    from torch.optim.lr_scheduler import LRScheduler

#: what a schedule has counted so far; everything else in its state is a hyperparameter
_COUNTERS = ("last_epoch", "_step_count", "best", "num_bad_epochs", "cooldown_counter", "T_cur", "T_i")


def load_optimizer(optimizer: Optimizer, state_dict: Mapping[str, Any]) -> None:
    """Load momentum buffers, step counts and the like, but not learning rate, momentum, betas, weight decay, ...

    Args:
        optimizer: made from the present configuration; changed in place.
        state_dict: what ``state_dict()`` of an optimizer of the same kind, with the same parameters, has given.

    Raises:
        ValueError: the parameter groups are not the same ones.
    """
    present = [{name: value for name, value in group.items() if name != "params"} for group in optimizer.param_groups]
    optimizer.load_state_dict(dict(state_dict))
    for group, hyperparameters in zip(optimizer.param_groups, present, strict=True):
        for name in group.keys() - hyperparameters.keys() - {"params"}:
            del group[name]  # left there by a learning-rate schedule of the old training
        group.update(hyperparameters)


def load_scheduler(scheduler: LRScheduler, state_dict: Mapping[str, Any]) -> None:
    """Load how far a learning-rate schedule is; base learning rates and its other hyperparameters stay as they are.

    The optimizer's learning rates become those of the present schedule at that point. Load the optimizer first.

    Args:
        scheduler: made from the present configuration, around the present optimizer; changed in place.
        state_dict: what ``state_dict()`` of a schedule of the same kind has given.
    """
    _load_counters(scheduler, state_dict)
    rates = _rates(scheduler, state_dict)
    if rates is None:
        return
    for group, rate in zip(scheduler.optimizer.param_groups, rates, strict=True):
        group["lr"] = rate
    scheduler._last_lr = list(rates)


def _load_counters(scheduler: Any, state: Mapping[str, Any]) -> None:
    for name in _COUNTERS:
        if name in state:
            setattr(scheduler, name, state[name])
    for inner, its_state in zip(getattr(scheduler, "_schedulers", ()), state.get("_schedulers", ()), strict=True):
        _load_counters(inner, its_state)


def _rates(scheduler: Any, state: Mapping[str, Any]) -> list[float] | None:
    """The learning rates of the schedule at its present step; None where only the past tells (reduce on plateau)."""
    if hasattr(scheduler, "_get_closed_form_lr"):
        return list(scheduler._get_closed_form_lr())
    inner = state.get("_schedulers")
    old, rates = (inner[0] if inner else state).get("base_lrs"), state.get("_last_lr")
    bases = [group.get("initial_lr", group["lr"]) for group in scheduler.optimizer.param_groups]
    if not old or not rates:
        return None
    return [base * rate / before if before else base for base, rate, before in zip(bases, rates, old, strict=True)]
