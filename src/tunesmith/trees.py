"""Trees of plain values and arrays, taken apart into JSON and bytes and put together again. Executes nothing.

A tree is made of dicts (with any plain keys), lists, tuples, None, bool, int, float, str and bytes, and of numpy arrays
and scalars, torch tensors and jax arrays (which come back as numpy arrays) as leaves. Tensors come back on the CPU.
"""

from __future__ import annotations

import base64
import math
import re
import sys
from collections.abc import Callable, Mapping
from importlib import import_module
from itertools import chain, count
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from tunesmith.errors import clean

Tree: TypeAlias = Any
Bytes: TypeAlias = NDArray[np.uint8]

_PLAIN = (type(None), bool, int, str)
_PLAIN_CODE = re.compile(r"[<>|=]?[A-Za-z][A-Za-z0-9_]*(\[[A-Za-z0-9]+\])?")  # of an element type, as we write it
_TAG = "$"  # a dict with this key is a tagged value; a user's dict with this key is written as a list of pairs

#: element types that numpy and safetensors both know; others are written as raw bytes
KNOWN = {"bool", "float16", "float32", "float64"}
KNOWN |= {f"{kind}{bits}" for kind in ("int", "uint") for bits in (8, 16, 32, 64)}

Leaf: TypeAlias = NDArray[Any]  #: what safetensors is given to write


def pack(tree: Tree, leaves: dict[str, Leaf], path: tuple[object, ...] = ()) -> Any:
    """The tree as JSON values; its arrays are put into ``leaves`` under a name made of their path.

    Raises:
        TypeError: a value is none of the above; the message names its place in the tree.
    """
    kind = type(tree)
    if kind in _PLAIN:
        return tree
    if kind is float:
        return tree if math.isfinite(tree) else {_TAG: "float", "v": repr(tree)}
    if isinstance(tree, dict):
        return _pack_dict(tree, leaves, path)
    if kind is list or kind is tuple:
        values = [pack(value, leaves, (*path, i)) for i, value in enumerate(tree)]
        return values if kind is list else {_TAG: "tuple", "v": values}
    if kind is bytes:
        return {_TAG: "bytes", "v": base64.b64encode(tree).decode()}
    return _pack_array(tree, leaves, path)


def unpack(value: Any, leaf: Callable[[str], Bytes]) -> Tree:
    """The tree again; ``leaf(name)`` gives an array's bytes, which the tree then owns."""
    if isinstance(value, list):
        return [unpack(item, leaf) for item in value]
    if not isinstance(value, dict):
        return value
    if _TAG not in value:
        return {key: unpack(item, leaf) for key, item in value.items()}
    return _UNPACK[value[_TAG]](value, leaf)


def _pack_dict(tree: Mapping[Any, Tree], leaves: dict[str, Leaf], path: tuple[object, ...]) -> Any:
    if _TAG not in tree and all(type(key) is str for key in tree):
        return {key: pack(value, leaves, (*path, key)) for key, value in tree.items()}
    pairs = [[pack(key, leaves, (*path, key)), pack(value, leaves, (*path, key))] for key, value in tree.items()]
    return {_TAG: "dict", "v": pairs}


def _pack_array(tree: Any, leaves: dict[str, Leaf], path: tuple[object, ...]) -> Any:
    torch = sys.modules.get("torch")
    if torch is not None and isinstance(tree, torch.Tensor) and tree.layout is torch.strided and not tree.is_quantized:
        flat = tree.detach().cpu().resolve_conj().resolve_neg().contiguous().reshape(-1)
        dtype = str(tree.dtype).removeprefix("torch.")
        return _leaf("torch", dtype, dtype, tuple(tree.shape), flat.view(torch.uint8).numpy(), leaves, path)
    if type(tree).__module__.partition(".")[0] in ("jax", "jaxlib"):
        tree = np.asarray(tree)
    if isinstance(tree, np.generic) or type(tree) in (np.ndarray, np.memmap):
        array = np.asarray(tree)
        if not array.dtype.hasobject and array.dtype.names is None:
            array = array.astype(array.dtype.newbyteorder("<"), copy=False)
            code = array.dtype.name if array.dtype.kind == "V" else array.dtype.str  # V: bfloat16 and its like
            data = np.ascontiguousarray(array).reshape(-1).view(np.uint8)
            if isinstance(tree, np.generic):
                return {_TAG: "scalar", "dtype": code, "v": data.tobytes().hex()}
            return _leaf("numpy", code, array.dtype.name, array.shape, data, leaves, path)
    raise TypeError(
        f"{_show(path)} is a {type(tree).__module__}.{type(tree).__qualname__}, which no checkpoint can hold: use "
        "dicts, lists, tuples, numbers, strings, numpy arrays and torch tensors, or write files with save(self, path)"
    )


def _leaf(
    kind: str,
    code: str,
    name: str,
    shape: tuple[int, ...],
    data: Bytes,
    leaves: dict[str, Leaf],
    path: tuple[object, ...],
) -> Any:
    plain = clean(".".join(str(key) for key in path) or "state")
    names = chain([plain], (f"{plain}#{number}" for number in count(1)))  # keys with dots may lead to one name twice
    label = next(name for name in names if name not in leaves and name != "__metadata__")
    leaves[label] = data.view(name).reshape(shape) if name in KNOWN else data
    return {_TAG: kind, "v": label, "dtype": code, "shape": list(shape)}


def _show(path: tuple[object, ...]) -> str:
    return "state" + "".join(f"[{key!r}]" for key in path)


def _numpy_dtype(code: str) -> np.dtype[Any]:
    if not _PLAIN_CODE.fullmatch(code):
        raise ValueError(f"element type {code!r} is not plain data")
    if code.startswith(("bfloat", "float8", "int4", "uint4")):
        import_module("ml_dtypes")  # makes numpy know it
    dtype: np.dtype[Any] = np.dtype(code)
    if dtype.hasobject:
        raise ValueError(f"element type {code!r} is not plain data")
    return dtype


def _numpy(value: Any, leaf: Callable[[str], Bytes]) -> Tree:
    return leaf(value["v"]).view(_numpy_dtype(value["dtype"])).reshape(value["shape"])


def _scalar(value: Any, leaf: Callable[[str], Bytes]) -> Tree:
    return np.frombuffer(bytes.fromhex(value["v"]), _numpy_dtype(value["dtype"]))[0]


def _torch(value: Any, leaf: Callable[[str], Bytes]) -> Tree:
    import torch

    dtype = vars(torch).get(value["dtype"])
    if not isinstance(dtype, torch.dtype):
        raise ValueError(f"{value['dtype']!r} is no element type of torch")
    data = leaf(value["v"])
    if not data.size:
        return torch.empty(0, dtype=dtype).reshape(value["shape"])
    return torch.from_numpy(data).view(dtype).reshape(value["shape"])


_UNPACK: dict[str, Callable[[Any, Callable[[str], Bytes]], Tree]] = {
    "float": lambda value, leaf: float(value["v"]),
    "tuple": lambda value, leaf: tuple(unpack(item, leaf) for item in value["v"]),
    "dict": lambda value, leaf: {unpack(key, leaf): unpack(item, leaf) for key, item in value["v"]},
    "bytes": lambda value, leaf: base64.b64decode(value["v"]),
    "numpy": _numpy,
    "scalar": _scalar,
    "torch": _torch,
}
