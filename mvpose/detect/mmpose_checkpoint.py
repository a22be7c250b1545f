"""Weights of mmpose and mmdet: where they lie, how they are downloaded, and reading them without running their code.

A checkpoint is a pickle, and may hold its config as Python source. Neither is executed: torch reads tensors only
(``weights_only``), the few other classes that mmengine puts into its files are replaced by an inert one, and a config
is evaluated as nested literals.
"""

from __future__ import annotations

import ast
import os
import re
import threading
import urllib.request
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from http.client import HTTPException, HTTPResponse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mvpose.atomic import atomic_path
from mvpose.errors import DetectionError, WorkspaceError
from mvpose.inputs import NONSENSE

if TYPE_CHECKING:
    import torch

_REACH_TIMEOUT_S = 3.0
_READ_TIMEOUT_S = 30.0

# Beside tensors, mmengine's files hold training histories and numpy numbers. Nothing here needs them.
_INERT_GLOBALS = (
    "builtins.getattr",
    "_codecs.encode",
    "mmengine.logging.history_buffer.HistoryBuffer",
    "numpy.ndarray",
    "numpy.dtype",
    *(
        f"numpy.{core}.multiarray.{name}"
        for core in ("core", "_core")
        for name in ("_reconstruct", "scalar")
    ),
    *(f"numpy.dtypes.{kind}DType" for kind in ("Float64", "Float32", "Int64", "Int32", "Bool")),
)  # fmt: skip


@dataclass(frozen=True)
class Checkpoint:
    """What a file of weights holds.

    Attributes:
        path: The file.
        weights: Tensor of each parameter.
        joint_names: Joints in order, where the file names them.
        config: The network's config as nested literals, where the file holds one.
    """

    path: Path
    weights: Mapping[str, torch.Tensor]
    joint_names: tuple[str, ...] | None
    config: Mapping[str, Any] | None


def weights_folder() -> Path:
    """Where torch.hub and mmengine keep downloaded weights."""
    cache = Path(os.environ.get("XDG_CACHE_HOME", "~/.cache"))
    return Path(os.environ.get("TORCH_HOME", cache / "torch")).expanduser() / "hub" / "checkpoints"


def cached_weights(url: str) -> Path:
    """Where the weights of an address lie once they are downloaded."""
    return weights_folder() / url.rpartition("/")[2]


def is_reachable(url: str) -> bool:
    """Whether a server answers for this address within a few seconds."""
    answered = threading.Event()

    def ask() -> None:
        try:
            with urllib.request.urlopen(urllib.request.Request(url, method="HEAD"), timeout=_REACH_TIMEOUT_S):
                answered.set()
        except (OSError, ValueError):
            pass

    # Looking up a name obeys no timeout, so a thread does the asking and is left behind if it takes too long.
    asking = threading.Thread(target=ask, daemon=True)
    asking.start()
    asking.join(_REACH_TIMEOUT_S + 1)
    return answered.is_set()


def fetch_weights(url: str) -> Path:
    """Return the downloaded weights of an address, downloading them if they are not here.

    Raises:
        DetectionError: The download failed; nothing is left behind.
    """
    path = cached_weights(url)
    if path.is_file():
        return path
    try:
        if not is_reachable(url):
            raise OSError("the server does not answer")
        with (
            urllib.request.urlopen(url, timeout=_READ_TIMEOUT_S) as answer,
            atomic_path(path) as partial,
            partial.open("wb") as file,
        ):
            file.writelines(_received(answer))
    except (OSError, HTTPException, WorkspaceError, _ConnectionBrokeError) as error:
        raise DetectionError(
            f"{url} cannot be downloaded ({error}); fetch it on another machine and put it into {path.parent}, "
            "or use --detector mediapipe"
        ) from error
    return path


class _ConnectionBrokeError(Exception):
    """A download ended early."""


def _received(answer: HTTPResponse) -> Iterator[bytes]:
    size = 0
    try:
        while block := answer.read(1 << 20):
            size += len(block)
            yield block
    except (OSError, HTTPException) as error:
        raise _ConnectionBrokeError(f"the connection broke: {error}") from error
    if size != int(answer.headers.get("Content-Length", size)):
        raise _ConnectionBrokeError("the connection broke")


def read_checkpoint(path: Path) -> Checkpoint:
    """Read a file of weights without executing anything that it holds.

    Raises:
        DetectionError: No such file, or it holds more than weights and mmengine's own records.
    """
    import pickle

    import torch

    if not path.is_file():
        raise DetectionError(f"there is no checkpoint {path}")
    try:
        with torch.serialization.safe_globals([(_Inert, name) for name in _INERT_GLOBALS]):
            content = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        refused = re.search(r"GLOBAL (\S+)", str(error))
        why = f"it would run {refused[1]}" if refused else "it is damaged or no file of torch"
        raise DetectionError(
            f"checkpoint {path} is refused: {why}; save its state_dict alone with torch.save(model.state_dict(), …)"
        ) from error
    except Exception as error:  # torch raises whatever the bytes bring about
        raise DetectionError(f"checkpoint {path} cannot be read: it is damaged or no file of torch") from error
    if not isinstance(content, dict):
        raise DetectionError(f"checkpoint {path} holds a {type(content).__name__}, not weights")
    weights = content.get("state_dict", content)
    if not isinstance(weights, dict) or not weights or not all(isinstance(w, torch.Tensor) for w in weights.values()):
        raise DetectionError(f"checkpoint {path} holds no state_dict")
    meta = content.get("meta") if "state_dict" in content else None
    meta = meta if isinstance(meta, dict) else {}
    dataset = meta.get("dataset_meta")
    dataset = dataset if isinstance(dataset, dict) else {}
    names = dataset.get("keypoint_id2name")
    return Checkpoint(
        path=path,
        weights={str(key).removeprefix("module."): value for key, value in weights.items()},
        joint_names=_joint_names(names),
        config=read_config(meta["cfg"], path) if isinstance(meta.get("cfg"), str) else None,
    )


def _joint_names(names: object) -> tuple[str, ...] | None:
    """Return the joints of a table by number; None where it is none."""
    if not isinstance(names, dict) or not all(isinstance(index, int) for index in names):
        return None
    return tuple(str(names[index]) for index in sorted(names))


class _Inert:
    """Takes the place of any class or function of a checkpoint that is not needed, and does nothing."""

    def __init__(self, *args: object, **kwargs: object) -> None:
        pass

    def __setstate__(self, state: object) -> None:
        pass


def read_config(text: str, path: Path) -> dict[str, Any]:
    """Evaluate a config's source as nested literals: ``name = …`` of numbers, strings, lists, tuples and ``dict(…)``.

    Raises:
        DetectionError: It holds anything else, or names a class by its path and so could import any code.

    >>> read_config("a = dict(type='RTMCCHead', sizes=(1, -2))", Path("weights.pth"))
    {'a': {'type': 'RTMCCHead', 'sizes': (1, -2)}}
    """
    try:
        config = dict(_assignment(statement) for statement in ast.parse(text).body)
        _refuse_paths(config)
    except (SyntaxError, MemoryError, *NONSENSE) as error:  # a parser that is out of stack says MemoryError
        raise DetectionError(
            f"checkpoint {path} is refused: its config is more than plain values ({error}); save its state_dict alone"
        ) from error
    return config


def _assignment(statement: ast.stmt) -> tuple[str, Any]:
    match statement:
        case ast.Assign(targets=[ast.Name(id=name)], value=value):
            return name, _literal(value)
        case _:
            raise ValueError(f"line {statement.lineno}")


def _literal(node: ast.expr) -> Any:
    match node:
        case ast.Call(func=ast.Name(id="dict"), args=[], keywords=keywords) if all(k.arg for k in keywords):
            return {keyword.arg: _literal(keyword.value) for keyword in keywords}
        case ast.Dict(keys=keys, values=values) if None not in keys:
            return {_literal(key): _literal(value) for key, value in zip(keys, values, strict=True) if key}
        case ast.List(elts=items):
            return [_literal(item) for item in items]
        case ast.Tuple(elts=items):
            return tuple(_literal(item) for item in items)
        case _:
            return ast.literal_eval(node)


def _refuse_paths(value: Any) -> None:
    """Allow registered class names only: mmengine imports whatever a dotted ``type`` names."""
    if isinstance(value, dict):
        kind = value.get("type")
        if isinstance(kind, str) and not re.fullmatch(r"((mmpose|mmdet|mmcv|mmengine)\.)?\w+", kind):
            raise ValueError(f"type {kind!r}")
        for item in value.values():
            _refuse_paths(item)
    elif isinstance(value, (list, tuple)):
        for item in value:
            _refuse_paths(item)
