"""Named randomness: every random decision has its own stream, found again from its name alone."""

from __future__ import annotations

from hashlib import blake2b

import numpy as np
from numpy.random.bit_generator import ISeedSequence
from numpy.typing import NDArray


def stream(seed: int, purpose: str, n: int = 0) -> np.random.Generator:
    """The generator of the ``n``-th decision for a purpose.

    Equal arguments give equal streams on every machine; different ones give independent streams, since a
    counter-based generator (Philox, Salmon et al. 2011) is keyed with a hash of the three.

    Args:
        seed: seed of the study.
        purpose: name of what is decided, such as ``"ask"`` or ``"train"``.
        n: number of the decision.
    """
    return np.random.Generator(np.random.Philox(_Key(_digest(seed, purpose, n, 16))))  # type: ignore[arg-type]  # it takes any ISeedSequence


def subseed(seed: int, purpose: str, n: int = 0) -> int:
    """A seed in [0, 2**63) for someone else's generator, named in the same way."""
    return int.from_bytes(_digest(seed, purpose, n, 8), "little") >> 1


class Streams:
    """Generators by the names of what they are for: what a scheduler draws from.

    A name says which decision it is (``streams.at("exploit", trial, step)``), never how many were decided before. So a
    decision is the same whatever else happened meanwhile: jobs that were asked again, others that were faster.
    """

    def __init__(self, seed: int, purpose: str = "scheduler") -> None:
        self.seed, self.purpose = seed, purpose

    def at(self, what: str, *numbers: int) -> np.random.Generator:
        """The generator of one decision; equal names give equal generators."""
        return stream(self.seed, "/".join((self.purpose, what, *map(str, numbers))))


class _Key(ISeedSequence):
    """Gives Philox its key as it is. With ``Philox(key=...)`` numpy also gathers entropy, which takes longer."""

    def __init__(self, digest: bytes) -> None:
        self.words = np.frombuffer(digest, dtype="<u8")

    def generate_state(self, n_words: int, dtype: object = np.uint32) -> NDArray[np.uint64]:
        return self.words


def _digest(seed: int, purpose: str, n: int, size: int) -> bytes:
    return blake2b(f"{seed}/{purpose}/{n}".encode(), digest_size=size).digest()
