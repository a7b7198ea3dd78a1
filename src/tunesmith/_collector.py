"""The garbage collector kept away from work that makes very many objects, none of them garbage."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager

MANY = 10_000  #: for fewer it is not worth the trouble


@contextmanager
def quiet(objects: int = MANY) -> Iterator[None]:
    """No garbage collection while about so many objects are made, if they are many.

    Afterwards they count as old, or the next collection would look at all of them.
    """
    if objects < MANY or not gc.isenabled():
        yield
        return
    gc.disable()
    try:
        yield
    finally:
        if not gc.get_freeze_count():
            gc.freeze()
            gc.unfreeze()
        gc.enable()
