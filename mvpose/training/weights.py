"""Weights of a network with what is known of them, in safetensors: a header of JSON and bare numbers, no code."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
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
    header, tensors = _read(Path(path))
    metadata = _metadata(header, path)
    own = module.state_dict()
    if differing := _difference(own, tensors):
        raise FormatError(
            f"{path} holds the weights of another network ({differing}); choose the file that belongs to this one"
        )
    for name, value in tensors.items():
        if not torch.isfinite(value).all():
            raise FormatError(f"{path} holds numbers that are not finite, in {name}; get the file anew")
    with torch.no_grad():
        for name, value in tensors.items():
            own[name].copy_(value)
    return metadata


def read_metadata(path: Path) -> dict[str, Any]:
    """Return what a file says of its weights, such as which network they are of.

    Raises:
        FormatError: As ``load_weights``.
    """
    return _metadata(_read(Path(path))[0], path)


def _metadata(header: Mapping[str, str], path: Path) -> dict[str, Any]:
    _check_format(header.get("format"), path)
    try:
        metadata = parse_json(header["metadata"])
    except (KeyError, ValueError):
        metadata = None
    if not isinstance(metadata, dict):
        raise FormatError(f"{path} says nothing readable of its weights; get the file anew")
    return metadata


def _read(path: Path) -> tuple[dict[str, str], dict[str, Tensor]]:
    """Return header and tensors of a safetensors file."""
    try:
        open_file(path).close()  # safetensors' own words for what is missing, a folder or a pipe are of no use
        with safe_open(path, framework="pt") as file:
            return file.metadata() or {}, {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
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


def _difference(own: Mapping[str, Tensor], found: Mapping[str, Tensor]) -> str:
    """Name the first thing in which tensors differ from those that a module needs; empty where none does."""
    for name in own:
        if name not in found:
            return f"it has no {name}"
    for name, value in found.items():
        if name not in own:
            return f"{name} is not known"
        if value.shape != own[name].shape:
            return f"{name} is {tuple(value.shape)}, not {tuple(own[name].shape)}"
        if value.is_floating_point() != own[name].is_floating_point():
            return f"{name} is {value.dtype}, not {own[name].dtype}"
    return ""
