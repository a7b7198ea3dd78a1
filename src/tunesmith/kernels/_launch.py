"""Where a kernel runs and where the plain formula does, and how one of Triton's kernels becomes part of a JAX program.

There is one way for kernels: they are written in Triton's own language, the package ``triton`` compiles them to PTX,
and JAX launches that by a call of its foreign function interface, ``triton_kernel_call_ffi``, which is part of
``jaxlib``. So a kernel works like any operation: in ``jit``, ``scan``, CUDA graphs, on several devices.

Why no other way:

* Pallas for Triton is deprecated since JAX 0.11, warns, and will be removed.
* Pallas for Mosaic GPU loads tiles that are boxes of an array, which the patches of a convolution with its groups and
  phases are not; and its interface has changed with every release.
* ``jax_triton`` wraps the same two halves. It does not batch either, and it reaches into the tracing of JAX: 0.4.1
  works with JAX 0.11 alone (Python 3.12, Triton 3.7), and no release of it with JAX 0.12.

What runs where:

* kernels: JAX 0.10.2 or newer, Triton 3.6 or newer, NVIDIA GPUs of one kind with compute capability 8.0 or higher
  (Ampere, Ada, Hopper, Blackwell);
* the plain formulas, which give the same results: older JAX, no Triton, older or mixed GPUs, AMD, TPU, processors.

`choose` decides, for all kernels, and `reason` finds out by trying: it compiles a tiny kernel. If a coming release of
either package changes what is used of it here, the formulas run. Nothing warns; the log of ``tunesmith`` (level INFO)
says why.
"""

from __future__ import annotations

import functools
import logging
import math
import re
import zlib
from collections.abc import Callable
from importlib import import_module
from typing import Any

import jax
from jax import lax
from jax import numpy as jnp

_log = logging.getLogger("tunesmith")

Function = Callable[..., Any]

_KINDS = {"bfloat16": "bf16", "float16": "fp16", "float32": "fp32"}  # JAX's name of a type, Triton's
_HIDDEN = 2  # pointers that Triton adds to the parameters of a kernel, and JAX to those of a launch


def choose(kernel: Function, formula: Function, *arrays: Any) -> Any:
    """``kernel(*arrays)`` where the program is lowered for a GPU that has kernels, else ``formula(*arrays)``."""
    if reason() is not None:
        return formula(*arrays)
    return lax.platform_dependent(*arrays, cuda=kernel, default=formula)


@functools.cache
def reason() -> str | None:
    """Why there are no kernels in this process; None where there are."""
    if not any(device.platform == "gpu" for device in jax.local_devices()):
        return "there is no GPU"
    try:
        if jax.__version_info__ < (0, 10, 2):
            raise RuntimeError(f"JAX is {jax.__version__}; kernels need 0.10.2")
        one = jax.ShapeDtypeStruct((1,), jnp.float32)  # type: ignore[no-untyped-call]
        jax.eval_shape(lambda x: launch("nothing", [x], [one], programs=1, constants={}), one)
    except Exception as error:  # whatever is missing or has changed
        why = " ".join(f"{type(error).__name__}: {error}".split())
        _log.info("kernels for GPUs are not used, the plain formulas are: %s", why)
        return why
    return None


def launch(
    kernel: str,
    arrays: list[Any],
    results: list[Any],
    *,
    programs: int,
    constants: dict[str, Any],
    warps: int = 4,
    stages: int = 2,
    in_place: dict[int, int] | None = None,
) -> list[Any]:
    """Calls a kernel of `_triton` by its name: its parameters are the arrays, the results, and then the constants.

    Args:
        kernel: its name.
        arrays: the operands.
        results: shapes and types of what is returned; where one is None, the kernel gets a None.
        programs: how many there are.
        constants: by name; hashable.
        warps: of a program.
        stages: how many tiles are on their way to a program at a time.
        in_place: by the number of an operand that of the result that may stand in its place.
    """
    kinds = tuple(None if each is None else _KINDS[each.dtype.name] for each in (*arrays, *results))
    code = _compiled(kernel, kinds, tuple(constants.items()), warps, stages, _capability())
    from jaxlib import gpu_triton

    parameters = [gpu_triton.create_array_parameter(0, 16) for kind in kinds if kind is not None]
    call = gpu_triton.TritonKernelCall(gpu_triton.TritonKernel(*code), programs, 1, 1, parameters).to_proto(kernel, b"")
    wanted = [each for each in results if each is not None]
    function = jax.ffi.ffi_call("triton_kernel_call_ffi", wanted, input_output_aliases=in_place)
    return list(function(*arrays, opaque=zlib.compress(call)))


@functools.cache
def _compiled(
    name: str, kinds: tuple[str | None, ...], constants: tuple[tuple[str, Any], ...], warps: int, stages: int, arch: int
) -> tuple[Any, ...]:
    """What ``jaxlib`` is told of a kernel: name, warps, blocks, bytes of shared memory, PTX, source, architecture."""
    import triton
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    function = getattr(import_module("tunesmith.kernels._triton"), name)
    given = dict(constants)
    signature, aligned = {}, {}
    for number, parameter in enumerate(function.arg_names):
        kind = kinds[number] if number < len(kinds) else None
        signature[parameter] = "constexpr" if kind is None else f"*{kind}"
        if kind is not None:
            aligned[(number,)] = [["tt.divisibility", 16]]
        elif number < len(kinds):
            given[parameter] = None
    version = 88 if arch in (103, 121) else 87  # of PTX, not newer than what JAX assembles
    code = triton.compile(
        ASTSource(function, signature=signature, constexprs=given, attrs=aligned),
        target=GPUTarget("cuda", arch, 32),
        options={"num_warps": warps, "num_stages": stages, "enable_fp_fusion": True, "ptx_version": version},
    )
    ptx = code.asm["ptx"]
    expected = len(aligned) + _HIDDEN
    found = len(set(re.findall(rf"\b{code.metadata.name}_param_(\d+)\b", ptx)))
    if found != expected or code.metadata.global_scratch_size:
        raise RuntimeError(f"Triton {triton.__version__} made a kernel of {found} parameters, JAX gives {expected}")
    return code.metadata.name, warps, 1, code.metadata.shared, ptx, "", arch


def _capability() -> int:
    """The compute capability of the GPUs, 90 for 9.0."""
    found = sorted({str(getattr(device, "compute_capability", "none")) for device in jax.local_devices()})
    if len(found) > 1 or not re.fullmatch(r"\d+\.\d", found[0]) or float(found[0]) < 8:
        raise RuntimeError(f"kernels need one compute capability of 8.0 or more; here are {', '.join(found)}")
    return int(found[0].replace(".", ""))


def step(array: Any, members: int) -> int:
    """How many values further the next member's are: none where all share them."""
    return 0 if len(array) == 1 < members else math.prod(array.shape[1:])


def of_member(function: Function) -> Function:
    """A function of one member, which ``vmap`` may be applied to, from one of arrays that begin with members.

    ``function`` is given arrays with an axis of members, of length 1 where all members share one, and returns arrays
    with an axis of all members. Members of members are flattened.
    """

    @jax.custom_batching.custom_vmap
    def together(*arrays: Any) -> Any:
        return function(*arrays)

    @together.def_vmap
    def flat(size: int, batched: list[bool], *arrays: Any) -> tuple[Any, Any]:
        """The arrays are [size, members or 1, ...] where they are batched, else [members or 1, ...]."""
        members = max(array.shape[own] for array, own in zip(arrays, batched, strict=True))
        given = []
        for array, own in zip(arrays, batched, strict=True):
            whole = array if own else array[None]
            if members > 1 and whole.shape[:2] != (1, 1):
                whole = jnp.broadcast_to(whole, (size, members, *whole.shape[2:]))
            given.append(whole.reshape(-1, *whole.shape[2:]))
        found = together(*given)
        apart = jax.tree.map(lambda each: each.reshape(size, members, *each.shape[1:]), found)
        return apart, jax.tree.map(lambda each: True, found)

    return lambda *arrays: jax.tree.map(lambda each: each[0], together(*(array[None] for array in arrays)))
