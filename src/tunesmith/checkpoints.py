"""Checkpoints on disk: one file each, written atomically, checked by a digest, and loaded without executing anything.

A tree of plain values becomes a JSON file; one with arrays a safetensors file (which other tools can open) whose
metadata holds the structure. Training code that writes its own files gets a directory. Places are relative to the
root, so that a study can be moved.
"""

from __future__ import annotations

import errno
import glob
import hashlib
import json
import os
import re
import shutil
import socket
import stat
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import quote
from uuid import uuid4

import msgspec
import numpy as np

from tunesmith.errors import TunesmithError, clean, install
from tunesmith.temporary import alive
from tunesmith.trees import Bytes, Leaf, Tree, pack, unpack

T = TypeVar("T")

_PLACE = re.compile(r"[0-9]{1,18}/([0-9]{1,18})\.(json|safetensors|files)")
_DAMAGED = "the checkpoint {} is damaged or cut short: its digest is not the recorded one"
_METADATA = "tunesmith"  # key of the structure in the metadata of a safetensors file
_DISK = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EIO)
_LONGEST_NAME = 200  # bytes of a directory's name: no file system has fewer than 255
_KEPT = 100  # bytes that stay of a name that is longer
_ABANDONED = 3600.0  # seconds after which an unfinished file of another machine is taken for abandoned


def folder_of(store: Path, study: str) -> Path:
    """The directory with the checkpoints of a study: next to its store, one for each store and study.

    ``x.db.checkpoints/study`` for the study ``study`` in ``x.db``; characters that no name of a file may have are
    percent-encoded, and the end of a long name is replaced by its digest. A directory that an earlier version has made,
    ``x.checkpoints/study``, is used as it is, unless another store beside this one would have the same.
    """
    folder = store.parent / f"{store.name}.checkpoints" / _file_name(study)
    before = store.with_suffix(".checkpoints") / re.sub(r"[^\w.\- ]|^\.+", "_", study)
    if before.is_dir() and not folder.exists() and re.fullmatch(r"[\w\- ]+", study):
        others = [other for other in store.parent.glob(f"{glob.escape(store.stem)}.*") if other.is_file()]
        if all(other.name.startswith(store.name) for other in others):
            return before
    return folder


def _file_name(study: str) -> str:
    """A name of a file that only this study has."""
    name = quote(clean(study), safe=" ()+,=@~")
    if not name.strip("."):  # "." and ".." are directories
        return name.replace(".", "%2E")
    if len(name) > _LONGEST_NAME:  # what is encoded has no "%-"
        return f"{name[:_KEPT]}%-{hashlib.sha256(name.encode()).hexdigest()[:32]}"
    return name


REPORTED = "tunesmith.step"  #: key of the step in the state of a function that reports


def reported(step: int, state: Tree) -> Tree:
    """The tree that is saved of a function that reports: it must know the step when it goes on."""
    return {REPORTED: step, "state": state}


def of_user(tree: Tree | Path) -> Tree | Path:
    """What training code gave as its state, of the tree that was saved of it."""
    if isinstance(tree, dict) and tree.keys() == {REPORTED, "state"}:
        return tree["state"]
    return tree


class CheckpointError(TunesmithError):
    """A checkpoint is missing or damaged, or cannot be written."""


@dataclass(frozen=True)
class Files:
    """A state that training code writes itself: ``write(directory)`` puts any files into an empty directory.

    Links in it must not lead out of it.
    """

    write: Callable[[Path], object]


@dataclass(frozen=True)
class Saved:
    """A checkpoint that was written: the step, the place relative to the root, and the digest of its bytes."""

    step: int
    where: str
    digest: str
    size: int = 0
    """Bytes on the disk."""


def read_state(path: str | os.PathLike[str]) -> Tree | Path:
    """A state from a copy of its file or its directory, such as ``tunesmith best --checkpoint`` makes, as
    ``Study.load`` gives it. Nothing that stands there is executed, whoever wrote it.

    Raises:
        CheckpointError: it is missing, damaged or not in the format.
    """
    path = Path(path).absolute()
    with _reading(path):
        return path if path.is_dir() else of_user(_read(path, _content(path)))


class Checkpoints:
    """The checkpoints of one study below the directory ``root``, which is made when the first one is saved."""

    def __init__(self, root: str | os.PathLike[str]) -> None:
        self.root = Path(root).absolute()

    def save(self, trial: int, step: int, tree: Tree | Files) -> Saved:
        """Write a state. Readers see the old file or the whole new one, never a part.

        Raises:
            TypeError: the tree holds something that is neither a plain value nor an array; names its place.
            ValueError: among the files is a link that leads elsewhere, or something that is no file.
            CheckpointError: the disk is full or not writable.
        """
        if isinstance(tree, Files):
            return self._save_files(trial, step, tree)
        leaves: dict[str, Leaf] = {}
        structure = json.dumps(pack(tree, leaves))
        where = f"{trial}/{step}.{'safetensors' if leaves else 'json'}"
        content = _library().numpy.save(leaves, {_METADATA: structure}) if leaves else structure.encode()
        temporary = self._temporary(trial, step)
        try:
            with self._beside(temporary, lambda: temporary.open("xb")) as file:
                file.write(content)
            temporary.replace(self.root / where)
        except OSError as error:
            with suppress(OSError):
                temporary.unlink()
            raise self._unwritable(error) from error
        return Saved(step, where, _digest(content), len(content))

    def load(self, where: str, digest: str) -> Tree | Path:
        """Read a state back; of a ``Files`` the directory, which the caller must not change.

        Nothing that stands there is executed, whoever wrote it.

        Raises:
            CheckpointError: it is missing, damaged, no file or not in the format, or ``where`` is not a place below
                the root.
        """
        path = self._path(where)
        with _reading(path):
            if not path.resolve().is_relative_to(self.root.resolve()):
                raise CheckpointError(f"the checkpoint {path} is a link that leads out of {self.root}")
            if path.suffix == ".files":
                if _digest_files(path) != digest:
                    raise CheckpointError(_DAMAGED.format(path))
                return path
            content = _content(path)
            if _digest(content) != digest:
                raise CheckpointError(_DAMAGED.format(path))
            return _read(path, content)

    def files(self) -> list[tuple[int, int]]:
        """The checkpoints on disk, as (trial, step)."""
        return [place for place, _ in self._entries() if place]

    def size(self) -> int:
        """Bytes of all checkpoints on disk."""
        return sum(_size(path) for place, path in self._entries() if place)

    def sweep(self, keep: Iterable[tuple[int, int]], among: Iterable[tuple[int, int]] | None = None) -> int:
        """Remove the checkpoints that are not in ``keep``, and files that a killed process left unfinished.

        Args:
            keep: (trial, step) of what is still needed.
            among: remove only these (what ``files()`` gave before ``keep`` was computed, so that a checkpoint saved
                meanwhile is safe); all by default.

        Returns:
            How many checkpoints are left.
        """
        kept = set(keep)
        doomed = None if among is None else set(among) - kept
        left = 0
        for place, path in list(self._entries()):
            if place is None:
                abandoned = _abandoned(path)
            else:
                abandoned = place not in kept if doomed is None else place in doomed
                left += not abandoned
            if abandoned:
                _remove(path)
        return left

    def _entries(self) -> Iterator[tuple[tuple[int, int] | None, Path]]:
        """Every checkpoint with its (trial, step), and every unfinished file with None."""
        for folder in _children(self.root):
            if not folder.name.isdecimal() or folder.is_symlink():
                continue
            paths = _children(folder)
            for path in paths:
                match = _PLACE.fullmatch(f"{folder.name}/{path.name}")
                if match:
                    yield (int(folder.name), int(match[1])), path
                elif path.name.count("-") >= 4 and path.name.startswith(".tmp-"):
                    yield None, path
            if not paths:
                _remove_folder(folder)

    def _save_files(self, trial: int, step: int, files: Files) -> Saved:
        temporary = self._temporary(trial, step)
        where = f"{trial}/{step}.files"
        path = self.root / where
        try:
            self._beside(temporary, temporary.mkdir)
        except OSError as error:
            raise self._unwritable(error) from error
        try:
            files.write(temporary)
            digest = _digest_files(temporary)
            if path.exists():
                shutil.rmtree(path.replace(self._temporary(trial, step)))
            temporary.replace(path)
        except OSError as error:
            if error.errno not in _DISK:
                raise  # a mistake in the user's own code
            raise self._unwritable(error) from error
        finally:
            shutil.rmtree(temporary, ignore_errors=True)
        return Saved(step, where, digest, _size(path))

    def _temporary(self, trial: int, step: int) -> Path:
        return self.root / str(trial) / f".tmp-{step}-{os.getpid()}-{uuid4().hex[:8]}-{socket.gethostname()}"

    @staticmethod
    def _beside(path: Path, create: Callable[[], T]) -> T:
        """Create ``path`` in its folder, which is made if need be; a sweep may remove that while it is empty."""
        for _ in range(10):
            with suppress(FileNotFoundError):
                return create()
            with suppress(FileNotFoundError):
                path.parent.mkdir(parents=True, exist_ok=True)
        return create()

    def _path(self, where: str) -> Path:
        if not _PLACE.fullmatch(where):
            raise CheckpointError(
                f"{where!r} is not a place of a checkpoint below {self.root}: the study names a foreign file"
            )
        return self.root / where

    def _unwritable(self, error: OSError) -> CheckpointError:
        return CheckpointError(
            f"cannot write checkpoints to {self.root}: {error.strerror or error}; free or change the disk"
        )


def _digest(content: bytes) -> str:
    return hashlib.blake2b(content, digest_size=16).hexdigest()


def _hasher() -> Any:
    return hashlib.blake2b(digest_size=16)


@contextmanager
def _reading(path: Path) -> Iterator[None]:
    """Say what is wrong with a checkpoint that can't be read."""
    try:
        yield
    except CheckpointError:
        raise
    except FileNotFoundError as error:
        message = f"the checkpoint {path} is missing (nobody needed it any more, or it was moved or cleaned up)"
        raise CheckpointError(message) from error
    except ImportError as error:
        raise CheckpointError(f"the checkpoint {path} needs {error.name}, which is not installed") from error
    except OSError as error:
        raise CheckpointError(f"the checkpoint {path} can't be read: {error.strerror or error}") from error
    except Exception as error:  # whatever a foreign file may do to the libraries that read it
        problem = str(error) or type(error).__name__
        raise CheckpointError(f"the checkpoint {path} is not in tunesmith's format: {problem}") from error


def _content(path: Path) -> bytes:
    """The bytes of a regular file: reading from a pipe or a device might never end."""
    with open(path, "rb", opener=lambda name, flags: os.open(name, flags | os.O_NONBLOCK)) as file:
        if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
            raise ValueError("it is no regular file")
        return file.read()


def _read(path: Path, content: bytes) -> Tree:
    if path.suffix == ".json":
        return unpack(json.loads(content), _no_leaf)
    begin = 8 + int.from_bytes(content[:8], "little")  # the size of the header, which says where arrays begin and end
    header = msgspec.json.decode(content[8:begin], type=dict[str, msgspec.Raw])
    structure = json.loads(msgspec.json.decode(header["__metadata__"])[_METADATA])

    def leaf(name: str) -> Bytes:
        first, last = msgspec.json.decode(header.pop(name))[
            "data_offsets"
        ]  # each array once: the tree is no larger than the file
        if not 0 <= first <= last <= len(content) - begin:
            raise ValueError(f"the array {name!r} lies outside of the file")
        return np.frombuffer(content, np.uint8, last - first, begin + first).copy()

    return unpack(structure, leaf)


def _library() -> Any:
    try:
        import safetensors.numpy
    except ModuleNotFoundError as error:
        message = f"a state with arrays is saved with safetensors: {install('checkpoints')}"
        raise CheckpointError(message) from error
    return safetensors


def _no_leaf(name: str) -> Bytes:
    raise ValueError(f"a JSON checkpoint holds no array {name!r}")


def _digest_files(folder: Path) -> str:
    """The digest of all files in a folder, with their names.

    Raises:
        ValueError: something in it is a link that leads elsewhere, or neither a file nor a folder.
    """
    digest = _hasher()
    if not folder.is_dir():
        raise FileNotFoundError(folder)
    inside = folder.resolve()
    for path in sorted(folder.rglob("*")):
        place = path.relative_to(folder)
        if path.is_symlink() and not path.resolve().is_relative_to(inside):
            raise ValueError(f"{str(place)!r} is a link that leads out of the checkpoint: copy what it leads to")
        if path.is_dir():
            continue
        if not path.is_file():
            raise ValueError(f"{str(place)!r} is no regular file")
        name = os.fsencode(place)
        with path.open("rb") as file:
            content = hashlib.file_digest(file, _hasher).digest()
        digest.update(len(name).to_bytes(8, "little") + name + content)
    return str(digest.hexdigest())


def _abandoned(path: Path) -> bool:
    """Whether the process that was writing this temporary file is gone."""
    _, _, pid, _, host = path.name.split("-", 4)
    try:
        if host == socket.gethostname() and not alive(int(pid)):
            return True
        return time.time() - path.stat().st_mtime > _ABANDONED
    except (OSError, ValueError):
        return False


def _size(path: Path) -> int:
    """The bytes of a file, or of all files in a folder."""
    files = path.rglob("*") if path.is_dir() else [path]
    size = 0
    for file in files:
        with suppress(OSError):  # removed meanwhile by another driver
            size += file.lstat().st_size
    return size


def _children(folder: Path) -> list[Path]:
    try:
        return list(folder.iterdir())
    except (FileNotFoundError, NotADirectoryError):
        return []  # removed meanwhile by another driver


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)


def _remove_folder(folder: Path) -> None:
    try:
        folder.rmdir()
    except OSError:
        return  # someone has just saved into it
