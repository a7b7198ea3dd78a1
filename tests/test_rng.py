"""Named streams: the same for ever, and independent of each other."""

from __future__ import annotations

from hashlib import blake2b

import numpy as np

from tunesmith.rng import stream, subseed


def test_a_stream_is_philox_keyed_with_the_hash_of_its_name() -> None:
    key = int.from_bytes(blake2b(b"7/ask/3", digest_size=16).digest(), "little")
    expected = np.random.Generator(np.random.Philox(key=key)).random(5)
    np.testing.assert_array_equal(stream(7, "ask", 3).random(5), expected)


def test_streams_do_not_change() -> None:
    assert stream(0, "ask").integers(1000, size=4).tolist() == [23, 480, 910, 256]
    assert subseed(0, "train", 1) == 5117484978319604450


def test_every_word_of_the_name_counts() -> None:
    names = [(seed, purpose, n) for seed in (0, 1, -1) for purpose in ("a", "b") for n in (0, 1, 12)]
    assert len({stream(*name).random() for name in names}) == len({subseed(*name) for name in names}) == len(names)


def test_neighbouring_streams_are_uncorrelated() -> None:
    draws = np.array([stream(0, "ask", n).random(200) for n in range(50)])
    correlations = np.corrcoef(draws)[np.triu_indices(50, 1)]
    assert abs(correlations.mean()) < 0.01 and correlations.std() < 0.1
