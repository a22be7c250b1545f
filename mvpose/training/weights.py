"""Weights of a network with what is known of them, in safetensors: a header of JSON and bare numbers, no code."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from mvpose.atomic import atomic_path
from mvpose.errors import FormatError
from mvpose.inputs import open_file, parse_json

WEIGHTS_FORMAT = "mvpose.weights/1"

_LONGEST_HEADER = 1 << 20  # bytes; those of the networks that ship have 15,000
_FLOATS = ("F16", "BF16", "F32", "F64")  # as safetensors calls them
_WHOLE = ("I8", "U8", "I16", "I32", "I64")


def save_weights(module: nn.Module, path: Path, metadata: Mapping[str, Any], *, half: bool = False) -> None:
    """Write all parameters and buffers of a module, and what JSON can say of them. Atomic.

    Args:
        module: Whose weights.
        path: Of the file, ``*.safetensors``.
        metadata: How they were made; ``load_weights`` returns it.
        half: Whether to store floats in 16 bits: half the size, a relative error of up to 0.0005.

    Raises:
        FormatError: A weight is not finite, or not in 16 bits; nothing is written.
        WorkspaceError: The file cannot be written.
    """
    tensors = {}
    for name, value in module.state_dict().items():
        stored = value.half() if half and value.is_floating_point() else value
        if not torch.isfinite(stored).all():
            reason = "16 bits are too few for them" if torch.isfinite(value).all() else "the training has diverged"
            raise FormatError(f"{path} is not written: weights in {name} are not finite; {reason}")
        tensors[name] = stored.detach().cpu().clone(memory_format=torch.contiguous_format)
    header = {"format": WEIGHTS_FORMAT, "metadata": json.dumps(metadata, ensure_ascii=False, allow_nan=False)}
    with atomic_path(path) as temporary:
        save_file(tensors, temporary, header)


def load_weights(module: nn.Module, path: Path) -> dict[str, Any]:
    """Put the weights of a file into a module, which keeps its own precision; return their metadata.

    Nothing is unpickled. The module is as it was where the file is refused.

    Raises:
        FormatError: The file is missing, corrupt, of another kind, of a newer version or of another network, or holds
            numbers that are not finite.
    """
    path, own = Path(path), module.state_dict()
    with _opened(path) as file:
        metadata = _checked(file, own, path)
        tensors = {name: file.get_tensor(name) for name in own}
    for name, value in tensors.items():
        if not torch.isfinite(value).all():
            raise FormatError(f"{path} holds numbers that are not finite, in {name}; get the file anew")
    with torch.no_grad():
        for name, value in tensors.items():
            own[name].copy_(value)
    return metadata


def check_weights(module: nn.Module, path: Path) -> dict[str, Any]:
    """See by its header alone that a file holds the weights of a module; return their metadata.

    No number is read, and the module may be on ``torch.device("meta")``, where it takes no memory: a network that is
    built as its file says can be held against the file before it takes any.

    Raises:
        FormatError: As ``load_weights``, but for numbers that are not finite.
    """
    with _opened(Path(path)) as file:
        return _checked(file, module.state_dict(), path)


def read_metadata(path: Path) -> dict[str, Any]:
    """Return what a file says of its weights, such as which network they are of.

    Raises:
        FormatError: The file is missing, corrupt, of another kind or of a newer version.
    """
    with _opened(Path(path)) as file:
        return _metadata(file.metadata() or {}, path)


def _checked(file: Any, own: Mapping[str, Tensor], path: Path) -> dict[str, Any]:
    """Return the metadata of an opened file that holds what a module needs, as far as its header says."""
    metadata = _metadata(file.metadata() or {}, path)
    if differing := _difference(own, file):
        raise FormatError(
            f"{path} holds the weights of another network ({differing}); choose the file that belongs to this one"
        )
    return metadata


def _metadata(header: Mapping[str, str], path: Path) -> dict[str, Any]:
    _check_format(header.get("format"), path)
    try:
        metadata = parse_json(header["metadata"])
    except (KeyError, ValueError):
        metadata = None
    if not isinstance(metadata, dict):
        raise FormatError(f"{path} says nothing readable of its weights; get the file anew")
    return metadata


@contextmanager
def _opened(path: Path) -> Iterator[Any]:
    """Open a safetensors file, of which the header alone is read until a tensor is asked for."""
    try:
        with open_file(path) as raw:  # safetensors' own words for what is missing, a folder or a pipe are of no use
            length = int.from_bytes(raw.read(8), "little")
        if length > _LONGEST_HEADER:
            raise SafetensorError(f"its header is to have {length} bytes, more than {_LONGEST_HEADER}")
        with safe_open(path, framework="pt") as file:
            yield file
    except OSError as error:
        raise FormatError(f"{path} cannot be read: {error.strerror or error}") from error
    except SafetensorError as error:
        raise FormatError(
            f"{path} is not a whole safetensors file ({error}); get it anew, weights in other formats are not read"
        ) from error


def _check_format(found: object, path: Path) -> None:
    """Refuse another kind of file, or a newer version; as formats.results does, which is next door to this wing."""
    kind, version = WEIGHTS_FORMAT.split("/")
    match = re.fullmatch(re.escape(kind) + r"/(\d+)", str(found))
    if match is None:
        raise FormatError(f"{path} is not a {kind} file (its format is {str(found)[:60]!r})")
    if int(match[1]) > int(version):
        raise FormatError(
            f"{path} has format {found}, newer than the {WEIGHTS_FORMAT} that this version reads; update mvpose"
        )


def _difference(own: Mapping[str, Tensor], file: Any) -> str:
    """Name the first thing in which a file's tensors differ from those that a module needs; empty where none does."""
    found = {name: file.get_slice(name) for name in file.keys()}  # noqa: SIM118
    for name in own:
        if name not in found:
            return f"it has no {name}"
    for name, value in found.items():
        if name not in own:
            return f"{name} is not known"
        shape, kind = tuple(value.get_shape()), value.get_dtype()
        if shape != tuple(own[name].shape):
            return f"{name} is {shape}, not {tuple(own[name].shape)}"
        if kind not in (_FLOATS if own[name].is_floating_point() else _WHOLE):
            return f"{name} is {kind}, not {own[name].dtype}"
    return ""
