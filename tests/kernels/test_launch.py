"""Where kernels run, what becomes of the axis of members, and that all of Triton's kernels compile."""

from __future__ import annotations

import itertools
import logging
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest

jax = pytest.importorskip("jax")

import numpy as np  # noqa: E402
from jax import numpy as jnp  # noqa: E402

from tunesmith.kernels import _launch  # noqa: E402


def devices(*capabilities: str) -> Callable[[], list[Any]]:
    return lambda: [SimpleNamespace(platform="gpu", compute_capability=each) for each in capabilities]


@pytest.fixture
def reason(monkeypatch: pytest.MonkeyPatch) -> Callable[[], str | None]:
    """Not the one of this machine that is remembered."""
    monkeypatch.setattr(_launch, "reason", _launch.reason.__wrapped__)
    return lambda: _launch.reason()


CASES = [
    (("7.5",), "8.0 or more; here are 7.5"),
    (("8.0", "9.0"), "one compute capability of 8.0 or more; here are 8.0, 9.0"),
    (("gfx942",), "here are gfx942"),
]


@pytest.mark.parametrize(("capabilities", "words"), CASES)
def test_other_gpus_have_formulas(
    reason: Callable[[], str | None],
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    capabilities: tuple[str, ...],
    words: str,
) -> None:
    monkeypatch.setattr(jax, "local_devices", devices(*capabilities))
    with caplog.at_level(logging.INFO, "tunesmith"):
        assert _launch.choose(lambda x: x + 1, lambda x: x + 2, 1) == 3
    assert words in caplog.text and "the plain formulas are" in caplog.text


def test_no_gpu_no_kernels(reason: Callable[[], str | None], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jax, "local_devices", lambda: [SimpleNamespace(platform="cpu")])
    assert reason() == "there is no GPU"


def test_without_triton_or_with_an_old_jax(reason: Callable[[], str | None], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jax, "local_devices", devices("9.0"))
    monkeypatch.setattr(_launch, "_compiled", _launch._compiled.__wrapped__)
    monkeypatch.setitem(__import__("sys").modules, "triton", None)
    assert "triton" in str(reason())
    monkeypatch.setattr(jax, "__version_info__", (0, 7, 2))
    assert "kernels need 0.10.2" in str(reason())


def test_another_launch_than_expected_is_not_tried(
    reason: Callable[[], str | None], monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("triton")
    monkeypatch.setattr(jax, "local_devices", devices("9.0"))
    monkeypatch.setattr(_launch, "_compiled", _launch._compiled.__wrapped__)
    monkeypatch.setattr(_launch, "_HIDDEN", 1)
    assert "made a kernel of 4 parameters, JAX gives 3" in str(reason())


@pytest.mark.parametrize("arch", [80, 90, 100, 120])
def test_compiles_for_all_architectures(arch: int) -> None:
    pytest.importorskip("triton")
    name, warps, _, _, ptx, _, of = _launch._compiled("nothing", ("fp32", "fp32"), (), 4, 2, arch)
    assert (name, warps, of) == ("nothing", 4, arch)
    assert f".target sm_{arch}" in ptx


# -- members -----------------------------------------------------------------------------------------------------------


def outer(a: Any, b: Any) -> Any:
    """Of members: each one's outer product and its row of ``a``, as a kernel would do it."""
    members = max(len(a), len(b))
    number = jnp.arange(members)
    a, b = a[number * _launch.step(a, members) // a[0].size], b[number * _launch.step(b, members) // b[0].size]
    return [a[:, :, None] * b[:, None, :], a]


AXES = [(0, 0), (0, None), (None, 0), (None, None)]


@pytest.mark.parametrize(("inner", "outer_"), list(itertools.product(AXES, AXES)))
def test_members_of_members(inner: tuple[int | None, ...], outer_: tuple[int | None, ...]) -> None:
    function = _launch.of_member(outer)
    rng = np.random.default_rng(0)
    shapes = [
        (*([3] if far == 0 else []), *([4] if near == 0 else []), size)
        for near, far, size in zip(inner, outer_, (2, 5), strict=True)
    ]
    a, b = (jnp.asarray(rng.normal(size=shape)) for shape in shapes)
    expected: Any = lambda a, b: [a[:, None] * b[None, :], a]  # noqa: E731
    for axes in (inner, outer_):
        if axes != (None, None):
            function, expected = jax.vmap(function, axes), jax.vmap(expected, axes)
    for one, other in zip(function(a, b), expected(a, b), strict=True):
        np.testing.assert_array_equal(one, other)


def test_what_members_share_is_not_copied() -> None:
    seen = []

    def watched(a: Any, b: Any) -> Any:
        seen.append((a.shape, b.shape))
        return outer(a, b)

    jax.vmap(_launch.of_member(watched), (0, None))(jnp.ones((3, 2)), jnp.ones(5))
    assert seen[-1] == ((3, 2), (1, 5))
