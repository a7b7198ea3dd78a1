"""Named randomness: every random decision has its own stream, found again from its name alone."""

from __future__ import annotations

from hashlib import blake2b

import numpy as np


def stream(seed: int, purpose: str, n: int = 0) -> np.random.Generator:
    """The generator of the ``n``-th decision for a purpose.

    Equal arguments give equal streams on every machine; different ones give independent streams, since a
    counter-based generator (Philox, Salmon et al. 2011) is keyed with a hash of the three.

    Args:
        seed: seed of the study.
        purpose: name of what is decided, such as ``"ask"`` or ``"train"``.
        n: number of the decision.
    """
    return np.random.Generator(np.random.Philox(key=_word(seed, purpose, n, 16)))


def subseed(seed: int, purpose: str, n: int = 0) -> int:
    """A seed in [0, 2**63) for someone else's generator, named in the same way."""
    return _word(seed, purpose, n, 8) >> 1


def _word(seed: int, purpose: str, n: int, size: int) -> int:
    return int.from_bytes(blake2b(f"{seed}/{purpose}/{n}".encode(), digest_size=size).digest(), "little")
