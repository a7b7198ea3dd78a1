"""One thread for linear algebra on small matrices.

BLAS libraries share out even small products over all cores, and their threads wait for each other by spinning. Where
the cores are busy with training, this makes a Gaussian process many times slower; and the last bits of its results
depend on the number of threads.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache, wraps
from typing import Any, ParamSpec, TypeVar

P = ParamSpec("P")
R = TypeVar("R")


def one_thread(function: Callable[P, R]) -> Callable[P, R]:
    """The function, during whose calls BLAS has one thread in this process."""

    @wraps(function)
    def limited(*args: P.args, **kwargs: P.kwargs) -> R:
        with _libraries().limit(limits=1, user_api="blas"):
            return function(*args, **kwargs)

    return limited


@cache
def _libraries() -> Any:
    import scipy.linalg  # noqa: F401  (has a BLAS of its own, which is found when it is loaded)
    from threadpoolctl import ThreadpoolController

    return ThreadpoolController()
