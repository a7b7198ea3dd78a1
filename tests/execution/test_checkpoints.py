"""Trees go to disk and come back; damage is seen; the disk stays bounded."""

from __future__ import annotations

import contextlib
import hashlib
import json
import math
import os
import signal
import subprocess
import sys
import time
from collections import OrderedDict
from pathlib import Path

import numpy as np
import pytest
import torch
import training_code as code
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from jobs import checkpoint, job
from safetensors import safe_open

from tunesmith.checkpoints import folder_of, read_state, reported
from tunesmith.execution import CheckpointError, Checkpoints, Files

scalars = st.one_of(
    st.none(), st.booleans(), st.integers(), st.floats(), st.text(), st.binary(), st.sampled_from(["$", "__metadata__"])
)
dtypes = st.one_of(
    hnp.scalar_dtypes().filter(lambda dtype: dtype.itemsize > 0),
    hnp.complex_number_dtypes(),
    hnp.unicode_string_dtypes(max_len=4),
)
arrays = dtypes.flatmap(lambda dtype: hnp.arrays(dtype, hnp.array_shapes(min_dims=0, min_side=0)))
tensors = st.tuples(
    st.sampled_from([torch.float32, torch.bfloat16, torch.int64, torch.bool, torch.complex64, torch.float8_e5m2]),
    st.lists(st.integers(0, 3), max_size=3),
).map(lambda pair: torch.arange(math.prod(pair[1])).reshape(pair[1]).to(pair[0]))
keys = st.one_of(
    st.text(max_size=3), st.integers(), st.booleans(), st.none(), st.tuples(st.integers(), st.text(max_size=2))
)
trees = st.recursive(
    st.one_of(scalars, arrays, tensors),
    lambda inner: st.one_of(
        st.lists(inner, max_size=4), st.lists(inner, max_size=4).map(tuple), st.dictionaries(keys, inner, max_size=4)
    ),
    max_leaves=12,
)


def same(a, b):
    """Equal in type, structure and bits."""
    if isinstance(a, torch.Tensor):
        return a.dtype == b.dtype and a.shape == b.shape and same(raw(a), raw(b))
    if isinstance(a, np.ndarray | np.generic):
        swapped = a.dtype.newbyteorder("<") if a.dtype.byteorder == ">" else a.dtype
        return (
            type(a) is type(b)
            and b.dtype == swapped
            and a.shape == b.shape
            and a.astype(swapped).tobytes() == b.tobytes()
        )
    if isinstance(a, dict):
        return (
            list(a) == list(b)
            and all(type(i) is type(j) for i, j in zip(a, b, strict=True))
            and same([*a.values()], [*b.values()])
        )
    if isinstance(a, list | tuple):
        return type(a) is type(b) and len(a) == len(b) and all(map(same, a, b))
    return type(a) is type(b) and (a == b or a != a)


def raw(tensor):
    return tensor.contiguous().reshape(-1).view(torch.uint8).numpy() if tensor.numel() else np.empty(0)


@pytest.fixture
def store(tmp_path):
    return Checkpoints(tmp_path / "states")


@given(tree=trees)
def test_round_trip(tree, tmp_path_factory):
    store = Checkpoints(tmp_path_factory.getbasetemp() / "round-trip")
    saved = store.save(1, 2, tree)
    assert same(tree, store.load(saved.where, saved.digest))


def test_states_that_people_have(store):
    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.BatchNorm1d(4)).bfloat16()
    optimizer = torch.optim.Adam(model.parameters())
    model(torch.ones(2, 3, dtype=torch.bfloat16)).sum().backward()
    optimizer.step()
    tree = {
        "model": model.state_dict(),
        "optimizer": optimizer.state_dict(),
        "numpy": np.random.default_rng(1).bit_generator.state,
        "torch": torch.get_rng_state(),
        "view": torch.arange(6).reshape(2, 3).T,
        "fortran": np.asfortranarray(np.arange(6.0).reshape(2, 3)),
        "parameter": torch.nn.Parameter(torch.ones(2)),
        "ordered": OrderedDict(b=1, a=2),
    }
    saved = store.save(0, 1, tree)
    loaded = store.load(saved.where, saved.digest)
    assert (saved.step, saved.where) == (1, "0/1.safetensors")
    optimizer.load_state_dict(loaded["optimizer"])
    model.load_state_dict(loaded["model"])
    assert loaded["numpy"] == tree["numpy"]
    torch.testing.assert_close(loaded["view"], tree["view"])
    np.testing.assert_array_equal(loaded["fortran"], tree["fortran"])
    assert loaded["ordered"] == {"b": 1, "a": 2}
    loaded["view"] += 1  # what was loaded is our own, and can be written


@given(
    st.recursive(
        st.integers(0, 99).map(np.int64).map(np.atleast_1d),
        lambda inner: st.dictionaries(
            st.sampled_from(["a", "b", "a.b", "a#1", "a.b#2", "", "state"]), inner, max_size=4
        ),
        max_leaves=12,
    )
)
def test_arrays_of_similar_names_are_not_mixed_up(tmp_path_factory, tree):
    store = Checkpoints(tmp_path_factory.getbasetemp() / "names")
    saved = store.save(1, 2, tree)
    assert same(tree, store.load(saved.where, saved.digest))


def test_a_name_made_to_tell_two_apart_may_be_taken(store):
    tree = {"a.b": np.array([1]), "a.b#2": np.array([2]), "a": {"b": np.array([3])}}
    saved = store.save(0, 1, tree)
    assert same(tree, store.load(saved.where, saved.digest))


def test_other_tools_can_read_it(store):
    saved = store.save(0, 1, {"layer": {"w": torch.full((2,), 1.5), "n": np.arange(3)}})
    with safe_open(store.root / saved.where, "pt") as file:
        assert sorted(file.keys()) == ["layer.n", "layer.w"]
        torch.testing.assert_close(file.get_tensor("layer.w"), torch.full((2,), 1.5))
        assert file.get_tensor("layer.n").tolist() == [0, 1, 2]


class Foo:
    pass


@pytest.mark.parametrize(
    "bad", [Foo(), {1, 2}, len, np.array([Foo()]), np.ma.masked_array([1]), np.zeros(1, [("a", int)]), 1j]
)
def test_what_does_not_fit_is_named_with_its_place(store, bad):
    with pytest.raises(TypeError, match=r"state\['model'\]\[1\] is a .*"):
        store.save(0, 1, {"model": [0, bad]})
    assert store.files() == []


def test_files_of_the_users_own(store):
    def write(path):
        (path / "inner").mkdir()
        (path / "inner" / "a").write_bytes(b"abc")

    saved = store.save(3, 7, Files(write))
    assert saved.where == "3/7.files"
    assert (store.load(saved.where, saved.digest) / "inner" / "a").read_bytes() == b"abc"
    again = store.save(3, 7, Files(lambda path: (path / "b").write_bytes(b"new")))
    with pytest.raises(CheckpointError, match="damaged"):
        store.load(saved.where, saved.digest)
    assert (store.load(again.where, again.digest) / "b").read_bytes() == b"new"
    (store.root / again.where / "b").unlink()
    with pytest.raises(CheckpointError, match="damaged"):
        store.load(again.where, again.digest)
    assert store.sweep(set()) == 0
    with pytest.raises(CheckpointError, match="missing"):
        store.load(again.where, again.digest)


@pytest.mark.parametrize("tree", [{"x": [1.0] * 50}, {"x": np.zeros(50)}])
def test_every_truncation_and_any_flipped_byte_is_seen(store, tree):
    saved = store.save(0, 1, tree)
    path = store.root / saved.where
    content = path.read_bytes()
    for cut in range(0, len(content), 7):
        path.write_bytes(content[:cut])
        with pytest.raises(CheckpointError, match=r"1\.(json|safetensors) is damaged"):
            store.load(saved.where, saved.digest)
    for place in range(0, len(content), 7):
        path.write_bytes(content[:place] + bytes([content[place] ^ 1]) + content[place + 1 :])
        with pytest.raises(CheckpointError, match="damaged"):
            store.load(saved.where, saved.digest)


@pytest.mark.parametrize(
    "content",
    [b"", b"[", b"\xff" * 16, b"\x02\0\0\0\0\0\0\0{}", b'{"$": "numpy", "v": "a", "dtype": "<f4", "shape": [1]}'],
)
@pytest.mark.parametrize("suffix", ["json", "safetensors"])
def test_foreign_content_with_a_valid_digest_is_refused(store, content, suffix):
    from tunesmith.checkpoints import _hasher

    (store.root / "0").mkdir(parents=True)
    (store.root / f"0/1.{suffix}").write_bytes(content)
    digest = _hasher()
    digest.update(content)
    with pytest.raises(CheckpointError, match="not in tunesmith's format"):
        store.load(f"0/1.{suffix}", digest.hexdigest())


def foreign(store, content, suffix="json"):
    """Content of a stranger at the place of a checkpoint, with the digest that their study gives it."""
    (store.root / "0").mkdir(parents=True, exist_ok=True)
    (store.root / f"0/1.{suffix}").write_bytes(content)
    return f"0/1.{suffix}", hashlib.blake2b(content, digest_size=16).hexdigest()


def arrays_file(structure, header, data=b""):
    """A safetensors file as it should not be."""
    text = json.dumps({"__metadata__": {"tunesmith": structure}} | header).encode()
    return len(text).to_bytes(8, "little") + text + data


def array(**changes):
    return json.dumps({"$": "numpy", "v": "a", "dtype": "<f4", "shape": [1]} | changes)


HERE = {"a": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}}
HOSTILE = {
    "deep json": (b"[" * 200_000 + b"]" * 200_000, "json"),
    "deep dicts": (b'{"a":' * 20_000 + b"1" + b"}" * 20_000, "json"),
    "deep tuples": (b'{"$":"tuple","v":[' * 20_000 + b"]}" * 20_000, "json"),
    "a number without end": (b"9" * 1_000_000, "json"),
    "an unknown tag": (b'{"$": "code", "v": "x"}', "json"),
    "a tag that is no text": (b'{"$": [], "v": "x"}', "json"),
    "keys that are none": (b'{"$": "dict", "v": [[[1], 2]]}', "json"),
    "an empty scalar": (b'{"$": "scalar", "dtype": "<f4", "v": ""}', "json"),
    "objects": (b'{"$": "scalar", "dtype": "|O", "v": "0000000000000000"}', "json"),
    "a list of types": (b'{"$": "scalar", "dtype": "f4,f4", "v": "0000000000000000"}', "json"),
    "a type of many": (b'{"$": "scalar", "dtype": "(1000000000,)f4", "v": "00"}', "json"),
    "no text": (b'"\xff\xfe"', "json"),
    "outside": (arrays_file(array(), {"a": {"data_offsets": [0, 4]}}), "safetensors"),
    "before": (arrays_file(array(), {"a": {"data_offsets": [-8, 4]}}, bytes(8)), "safetensors"),
    "backwards": (arrays_file(array(), {"a": {"data_offsets": [4, 0]}}, bytes(8)), "safetensors"),
    "far away": (arrays_file(array(), {"a": {"data_offsets": [0, 2**70]}}, bytes(8)), "safetensors"),
    "half a number": (arrays_file(array(), {"a": {"data_offsets": [0.5, 4]}}, bytes(8)), "safetensors"),
    "three ends": (arrays_file(array(), {"a": {"data_offsets": [0, 4, 8]}}, bytes(8)), "safetensors"),
    "no array": (arrays_file(array(v="b"), HERE, bytes(4)), "safetensors"),
    "an array again and again": (arrays_file(f"[{array()}, {array()}]", HERE, bytes(4)), "safetensors"),
    "of another shape": (arrays_file(array(shape=[7]), HERE, bytes(4)), "safetensors"),
    "too large a shape": (arrays_file(array(shape=[2**62, 2**62]), HERE, bytes(4)), "safetensors"),
    "a shape that is none": (arrays_file(array(shape="x"), HERE, bytes(4)), "safetensors"),
    "no type": (arrays_file(array(dtype=7), HERE, bytes(4)), "safetensors"),
    "no type of torch": (arrays_file(array(**{"$": "torch", "dtype": "nn"}), HERE, bytes(4)), "safetensors"),
    "a function of torch": (arrays_file(array(**{"$": "torch", "dtype": "load"}), HERE, bytes(4)), "safetensors"),
    "nothing, at large": (
        arrays_file(array(**{"$": "torch", "dtype": "float32", "shape": [10**12]}), {"a": {"data_offsets": [0, 0]}}),
        "safetensors",
    ),
    "a header without end": ((2**63).to_bytes(8, "little") + b"{}", "safetensors"),
    "deep header": ((200_000).to_bytes(8, "little") + b"[" * 200_000, "safetensors"),
    "no metadata": ((2).to_bytes(8, "little") + b"{}", "safetensors"),
    "deep structure": (arrays_file("[" * 200_000, {}), "safetensors"),
}


@pytest.mark.parametrize("kind", HOSTILE)
def test_whatever_a_stranger_wrote_is_a_checkpoint_error(store, kind):
    where, digest = foreign(store, *HOSTILE[kind])
    with pytest.raises(CheckpointError, match="not in tunesmith's format"):
        store.load(where, digest)


def test_very_many_arrays(store):
    """Within seconds: a stranger's file must not hold up a run."""
    count = 20_000
    structure = json.dumps([json.loads(array(v=str(i))) for i in range(count)])
    header = {str(i): {"dtype": "F32", "shape": [1], "data_offsets": [4 * i, 4 * i + 4]} for i in range(count)}
    data = np.arange(count, dtype="<f4").tobytes()
    loaded = store.load(*foreign(store, arrays_file(structure, header, data), "safetensors"))
    assert [float(value[0]) for value in loaded] == list(range(count))


tags = st.sampled_from(["float", "tuple", "dict", "bytes", "numpy", "scalar", "torch"])
codes = st.sampled_from(["<f4", "float32", "O", "V0", "<U1", "M8[s]"])
structures = st.recursive(
    st.none() | st.integers() | st.text(max_size=5) | st.sampled_from(["a", "<f4", "float32"]),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["$", "v", "dtype", "shape"]), inner)
        | st.fixed_dictionaries({"$": tags, "v": inner, "dtype": codes, "shape": inner})
    ),
)


@settings(deadline=None)
@given(structure=structures, start=st.integers(-1, 9), end=st.integers(-1, 9))
def test_any_structure_is_loaded_or_refused(structure, start, end, tmp_path_factory):
    store = Checkpoints(tmp_path_factory.getbasetemp() / "any-structure")
    content = arrays_file(json.dumps(structure), {"a": {"data_offsets": [start, end]}}, bytes(8))
    for text, suffix in ((content, "safetensors"), (json.dumps(structure).encode(), "json")):
        with contextlib.suppress(CheckpointError):
            store.load(*foreign(store, text, suffix))


def pipe(path):
    os.mkfifo(path)


def endless(path):
    path.symlink_to("/dev/zero")


def elsewhere(path):
    path.parent.parent.parent.joinpath("secret.json").write_bytes(b"1")
    path.symlink_to("../../secret.json")


def loop(path):
    path.symlink_to(path.name)


def folder(path):
    path.mkdir()


def dangling(path):
    path.symlink_to("nothing")


@pytest.mark.parametrize("make", [pipe, endless, elsewhere, loop, folder, dangling])
@pytest.mark.parametrize("suffix", ["json", "safetensors", "files"])
def test_what_is_no_file_of_ours_is_refused_at_once(store, make, suffix):
    (store.root / "0").mkdir(parents=True)
    make(store.root / f"0/1.{suffix}")
    for content in (b"1", b"")[: 1 if make is folder else 2]:
        with pytest.raises(CheckpointError):
            store.load(f"0/1.{suffix}", hashlib.blake2b(content, digest_size=16).hexdigest())


def test_a_folder_of_a_trial_that_leads_elsewhere(store, tmp_path):
    """Nothing is read from there, and nothing removed."""
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "1.json").write_bytes(b"1")
    store.root.mkdir()
    (store.root / "0").symlink_to(tmp_path / "mine")
    with pytest.raises(CheckpointError, match="leads out of"):
        store.load("0/1.json", hashlib.blake2b(b"1", digest_size=16).hexdigest())
    assert store.files() == [] and store.sweep(()) == 0
    assert (tmp_path / "mine" / "1.json").exists()


def test_a_root_that_is_a_link_is_the_users_own(store, tmp_path):
    (tmp_path / "large disk").mkdir()
    store.root.symlink_to(tmp_path / "large disk")
    saved = store.save(0, 1, {"x": np.ones(2)})
    assert store.load(saved.where, saved.digest)["x"].tolist() == [1, 1]


@pytest.mark.parametrize("make", [pipe, endless, loop])
def test_files_hold_nothing_but_files(store, make):
    """Said when it is saved, and refused when a stranger has put it there."""

    def write(path):
        (path / "a").write_bytes(b"abc")
        (path / "latest").symlink_to("a")  # inside it may lead anywhere

    saved = store.save(0, 1, Files(write))
    assert (store.load(saved.where, saved.digest) / "latest").read_bytes() == b"abc"
    make(store.root / saved.where / "b")
    with pytest.raises(CheckpointError):
        store.load(saved.where, saved.digest)
    with pytest.raises((ValueError, RuntimeError, OSError)):
        store.save(0, 2, Files(lambda path: make(path / "b")))
    assert store.files() == [(0, 1)]


def test_an_earlier_checkpoint_is_tried_when_the_last_one_is_hostile(session):
    made = session(code.generator)
    *_, first = made.run(job(0, 0, 2))
    *_, last = made.run(job(0, 2, 4))
    place = made.checkpoints.root / last.saved.where
    for content in (HOSTILE["deep json"][0], HOSTILE["an empty scalar"][0]):
        place.write_bytes(content)
        digest = hashlib.blake2b(content, digest_size=16).hexdigest()
        sources = [checkpoint(0, last)._replace(digest=digest), checkpoint(0, first)]
        *_, report = session(code.generator).run(job(0, 4, 5, sources))
        assert (report.start, report.metrics["x"], report.failure) == (2, [3, 4, 5], None)
        assert "going on from an earlier state" in report.warning


def test_names_that_collide_or_are_no_text(store):
    tree = {
        "a.b": np.ones(1), "a": {"b": np.zeros(2), "b#1": np.full(1, 7.0)}, "a.b#1": np.full(3, 2.0),
        "__metadata__": np.full(2, 3.0), "\udcff": np.full(2, 4.0), ("a", "b"): np.full(2, 5.0),
    }  # fmt: skip
    saved = store.save(0, 1, tree)
    assert same(tree, store.load(saved.where, saved.digest))
    files = store.save(0, 2, Files(lambda path: Path(f"{path}/caf\udce9").write_text("x")))
    store.load(files.where, files.digest)


@pytest.mark.parametrize("where", ["/etc/passwd", "../0/1.json", "0/../1/1.json", "0/1.pickle", "0/1.json/..", ""])
def test_a_foreign_study_cannot_point_elsewhere(store, where):
    with pytest.raises(CheckpointError, match="not a place"):
        store.load(where, "")


names = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=300) | st.sampled_from(
    [".", "..", "...", "a/b", "a_b", "a%2Fb", "%2E", "\u5b66" * 60, "\u5b66" * 61]
)


@given(st.lists(names, min_size=2, max_size=6, unique=True))
def test_every_study_has_a_folder_of_its_own(names):
    folders = [folder_of(Path("/x/study.db"), name) for name in names]
    for folder in folders:
        assert folder.parent == Path("/x/study.db.checkpoints") and folder.name not in ("", ".", "..")
        assert "/" not in folder.name and len(os.fsencode(folder.name)) <= 255
    assert len(set(folders)) == len(names)
    assert folder_of(Path("/x/study.db"), "a\udcff").name == "a%5Cudcff"
    assert len({folder_of(Path("/x", store), "study") for store in ("x.1", "x.2", "x.db", "x.sqlite", "x")}) == 5


@pytest.mark.parametrize(
    "tree", [{"a": [1, "b"]}, {"w": np.arange(3.0)}, {"w": torch.ones(2), "n": 1}], ids=["plain", "numpy", "torch"]
)
def test_a_copy_is_read_without_its_study(store, tree, tmp_path):
    saved = store.save(3, 7, tree)
    source = store.root / saved.where
    copy = tmp_path / f"elsewhere{source.suffix}"
    copy.write_bytes(source.read_bytes())
    assert repr(read_state(copy)) == repr(read_state(str(copy))) == repr(store.load(saved.where, saved.digest))


def test_a_copy_of_what_a_function_reported_is_the_state_alone(store):
    saved = store.save(3, 7, reported(7, {"a": 1}))
    assert read_state(store.root / saved.where) == {"a": 1}


def test_a_copy_of_files_is_their_folder(store):
    saved = store.save(3, 7, Files(lambda path: (path / "x").write_text("1")))
    folder = read_state(store.root / saved.where)
    assert isinstance(folder, Path) and (folder / "x").read_text() == "1"


@pytest.mark.parametrize("name", ["7.json", "7.safetensors", "weights.bin"])
@pytest.mark.parametrize("content", [None, b"", b"no state", b"{}"])
def test_a_copy_that_is_none_is_refused_in_one_line(name, content, tmp_path):
    if content is not None:
        (tmp_path / name).write_bytes(content)
    if (name, content) == ("7.json", b"{}"):
        return  # it is a state: an empty tree
    with pytest.raises(CheckpointError, match=f"{name} is") as error:
        read_state(tmp_path / name)
    assert "\n" not in str(error.value)


def test_a_moved_directory_still_works(store, tmp_path):
    saved = store.save(0, 1, {"x": np.ones(2)})
    moved = store.root.rename(tmp_path / "elsewhere")
    assert Checkpoints(moved).load(saved.where, saved.digest)["x"].tolist() == [1, 1]


def test_sweep_keeps_what_is_wanted(store):
    for trial in range(3):
        for step in range(4):
            store.save(trial, step, {"x": step})
    before = store.files()
    store.save(9, 9, {"x": 1})
    assert store.sweep({(0, 1), (2, 3)}, among=before) == 3  # what came after the listing is not in question
    assert sorted(store.files()) == [(0, 1), (2, 3), (9, 9)]
    assert store.sweep({(2, 3)}) == 1
    assert store.files() == [(2, 3)]
    store.files()
    assert sorted(path.name for path in store.root.iterdir()) == ["2"]
    assert Checkpoints(store.root / "nothing").sweep({(1, 1)}) == 0


KILLED = """
import sys
from tunesmith.execution import Checkpoints, Files
store = Checkpoints(sys.argv[1])
def write(path):
    (path / "half").write_text("x")
    print("writing", flush=True)
    import time; time.sleep(600)
if sys.argv[2] == "files":
    store.save(0, 1, Files(write))
import numpy, pathlib
def replace(self, target):
    print("writing", flush=True)
    import time; time.sleep(600)
pathlib.Path.replace = replace
store.save(0, 1, {"x": numpy.zeros(3)})
"""


@pytest.mark.parametrize("kind", ["files", "safetensors"])
def test_killed_in_the_middle_of_writing_the_old_one_stays(store, kind):
    tree = {"x": np.ones(3)}
    saved = store.save(0, 1, Files(lambda path: (path / "a").write_text("old")) if kind == "files" else tree)
    with subprocess.Popen([sys.executable, "-c", KILLED, str(store.root), kind], stdout=subprocess.PIPE) as process:
        assert process.stdout.readline() == b"writing\n"
        assert len(list((store.root / "0").iterdir())) == 2
        store.sweep({(0, 1)})
        assert len(list((store.root / "0").iterdir())) == 2  # the writer is alive
        process.send_signal(signal.SIGKILL)
    store.load(saved.where, saved.digest)
    assert store.sweep({(0, 1)}) == 1
    assert [path.name for path in (store.root / "0").iterdir()] == [f"1.{kind}"]


def test_unfinished_files_of_other_machines_go_when_they_are_old(store):
    saved = store.save(0, 1, {"x": 1})
    fresh, old = (store.root / "0" / f".tmp-2-77-{name}-elsewhere" for name in "ab")
    for path in (fresh, old):
        path.write_text("half")
    os.utime(old, (time.time() - 7200,) * 2)
    store.sweep({(0, 1)})
    assert sorted(path.name for path in (store.root / "0").iterdir()) == [fresh.name, Path(saved.where).name]


def test_a_disk_that_can_not_be_written_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(CheckpointError, match=r"cannot write checkpoints to .*file"):
        Checkpoints(tmp_path / "file").save(0, 1, {"x": 1})
    with pytest.raises(CheckpointError, match="cannot write checkpoints"):
        Checkpoints(tmp_path / "file").save(0, 1, Files(lambda path: None))


def test_an_error_of_the_users_own_save_is_the_users(store):
    def write(path):
        (path / "missing" / "a").write_text("x")

    with pytest.raises(FileNotFoundError):
        store.save(0, 1, Files(write))
    assert store.files() == []


@pytest.mark.parametrize("state", [1.0, np.zeros(3), Files(lambda folder: (folder / "w").write_text("1"))])
def test_a_sweep_that_removes_the_empty_folder_in_between_does_no_harm(state, tmp_path, monkeypatch):
    """Another worker sweeps just after the folder of the trial was made."""
    store, mkdir, turns = Checkpoints(tmp_path / "states"), Path.mkdir, iter(range(20))

    def swept(path: Path, *args: object, **options: object) -> None:
        mkdir(path, *args, **options)
        if path.name == "7" and next(turns) < 4:
            store.sweep(())

    monkeypatch.setattr(Path, "mkdir", swept)
    saved = store.save(7, 1, state)
    assert store.files() == [(7, 1)] and store.load(saved.where, saved.digest) is not None
    assert next(turns) > 4
