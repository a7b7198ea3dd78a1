"""Optimizers: update rules as pure functions of trees of arrays, what contains what, and learning-rate schedules.

The rules are those of Choi et al. 2019 ("On Empirical Comparisons of Optimizers for Deep Learning", arXiv:1910.05446,
table 1), with AdamW and NAdamW. They run on numpy arrays, PyTorch tensors and JAX arrays. Other optimizers come by an
adapter: `tunesmith.optimizers.adapters`.
"""

from tunesmith.optimizers.adaptive import Adam, AdamW, NAdam, NAdamW, RMSProp
from tunesmith.optimizers.base import OptimizerError, Rule
from tunesmith.optimizers.first_order import SGD, Momentum, Nesterov

RULES: dict[str, Rule] = {
    "sgd": SGD(),
    "momentum": Momentum(),
    "nesterov": Nesterov(),
    "rmsprop": RMSProp(),
    "adam": Adam(),
    "nadam": NAdam(),
    "adamw": AdamW(),
    "nadamw": NAdamW(),
}
"""The rules by their names."""

__all__ = [
    "RULES", "SGD", "Adam", "AdamW", "Momentum", "NAdam", "NAdamW", "Nesterov", "OptimizerError", "RMSProp", "Rule",
]  # fmt: skip
