"""Three places where kernels run: Triton's interpreter, a GPU that is pretended, and one that is there."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest


@pytest.fixture
def interpreted(monkeypatch: pytest.MonkeyPatch) -> None:
    """All kernels run on any machine, in NumPy: in full precision, and what they leave out stays NaN."""
    jax = pytest.importorskip("jax")
    torch = pytest.importorskip("torch")
    pytest.importorskip("triton")
    from tunesmith.kernels import _launch

    monkeypatch.setenv("TRITON_INTERPRET", "1")
    spec = importlib.util.spec_from_file_location("interpreted_kernels", Path(_launch.__file__).with_name("_triton.py"))
    assert spec is not None and spec.loader is not None
    kernels = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(kernels)

    def launch(
        kernel: str, arrays: list[Any], results: list[Any], *, programs: int, constants: dict[str, Any], **how: Any
    ) -> list[Any]:
        wanted = [each for each in results if each is not None]
        in_place = {to: origin for origin, to in (how.get("in_place") or {}).items()}

        def run(*arrays: Any) -> list[Any]:
            given = [torch.tensor(np.asarray(array)) for array in arrays]
            made: list[Any] = []
            for number, each in enumerate(results):
                if number in in_place:
                    made.append(given[in_place[number]])
                else:
                    made.append(each and torch.full(each.shape, torch.nan, dtype=getattr(torch, each.dtype.name)))
            getattr(kernels, kernel)[(programs,)](*given, *made, **constants)
            return [each.numpy() for each in made if each is not None]

        return jax.pure_callback(run, wanted, *arrays)  # type: ignore[no-any-return]

    def choose(kernel: Callable[..., Any], formula: Callable[..., Any], *arrays: Any) -> Any:
        return kernel(*arrays)

    monkeypatch.setattr(_launch, "launch", launch)
    monkeypatch.setattr(_launch, "choose", choose)


@pytest.fixture
def pretended(monkeypatch: pytest.MonkeyPatch) -> Callable[..., str]:
    """Lowers a function for an H100, whatever is there: the program as text."""
    jax = pytest.importorskip("jax")
    pytest.importorskip("triton")
    if jax.__version_info__ < (0, 10, 2):
        pytest.skip("the formulas run with an older JAX")
    from jaxlib import gpu_triton

    from tunesmith.kernels import _launch

    class Call:
        def __init__(self, *parts: Any) -> None:
            pass

        def to_proto(self, name: str, data: bytes) -> bytes:
            return name.encode()

    monkeypatch.setattr(_launch, "reason", lambda: None)
    monkeypatch.setattr(_launch, "_capability", lambda: 90)
    monkeypatch.setattr(gpu_triton, "create_array_parameter", lambda zeros, divisor: divisor, raising=False)
    for name in ("TritonKernel", "TritonKernelCall"):
        monkeypatch.setattr(gpu_triton, name, Call, raising=False)

    def lowered(function: Callable[..., Any], *arrays: Any) -> str:
        return jax.jit(function).trace(*arrays).lower(lowering_platforms=("cuda",)).as_text()  # type: ignore[no-any-return]

    return lowered


@pytest.fixture
def on_a_gpu() -> Iterator[None]:
    """Skips where there is none; kernels must run where there is one and all that they need."""
    jax = pytest.importorskip("jax", minversion="0.10.2")
    gpus = [device for device in jax.local_devices() if device.platform == "gpu"]
    if not gpus or float(gpus[0].compute_capability) < 8:
        pytest.skip("needs an NVIDIA GPU of compute capability 8.0")
    pytest.importorskip("triton", minversion="3.6")
    from tunesmith.kernels import _launch

    assert _launch.reason() is None
    with jax.default_device(gpus[0]):
        yield
