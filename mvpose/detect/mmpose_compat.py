"""Lets mmpose 1.3.2 and mmdet 3.3.0 be imported beside what pip installs today.

Both ask for compiled packages that have no wheels: mmcv's operators, xtcocotools for numpy 2, and torchvision's
operators where only its CUDA build meets a CPU torch. Top-down pose estimation needs one operator of them all, ``nms``.
Each stand-in below is put in place only where the real thing is absent.
"""

from __future__ import annotations

import importlib.util
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch


def import_openmmlab() -> None:
    """Import mmdet and mmpose and register their networks, with stand-ins for the compiled parts that are absent."""
    with library_warnings_silenced():
        _declare_torchvision_operators()
        _stand_in_for_mmcv_operators()
        _stand_in_for_xtcocotools()
        import_module("mmdet.models")
        import_module("mmpose.models")
        import_module("mmpose.datasets")


@contextmanager
def library_warnings_silenced() -> Iterator[None]:
    """Hide what these libraries, written for an older torch and setuptools, warn of; users cannot mend it."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def _declare_torchvision_operators() -> None:
    """Declare the operators whose absence stops ``import torchvision``.

    Package indices carry torchvision built for CUDA. Beside a CPU torch its compiled part does not load, and its import
    ends with "operator torchvision::nms does not exist". Nothing here calls the operators; they only have to be named.
    """
    if "torchvision" in sys.modules or importlib.util.find_spec("torchvision") is None:
        return
    import torch

    if torch.version.cuda is not None:
        return
    for schema in (
        "nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
        "qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
    ):
        if not hasattr(torch.ops.torchvision, schema.partition("(")[0]):
            _LIBRARY.append(torch.library.Library("torchvision", "FRAGMENT"))
            _LIBRARY[-1].define(schema)


_LIBRARY: list[Any] = []  # a declared operator lasts as long as its library object


def _stand_in_for_mmcv_operators() -> None:
    """Provide ``mmcv._ext``, which mmcv-lite lacks and ``mmcv.ops`` imports: ``nms`` in torch, the others absent."""
    if "mmcv._ext" in sys.modules or importlib.util.find_spec("mmcv._ext") is not None:
        return
    module = ModuleType("mmcv._ext", "Stand-in for mmcv's compiled operators.")
    module.nms = suppress_overlaps  # type: ignore[attr-defined]
    module.__getattr__ = _absent_operator  # type: ignore[method-assign]
    module.__spec__ = ModuleSpec("mmcv._ext", loader=None)  # without a loader mmengine knows that mmcv is not compiled
    sys.modules["mmcv._ext"] = module


def _absent_operator(name: str) -> Any:
    if name.startswith("__"):
        raise AttributeError(name)

    def absent(*_args: Any, **_kwargs: Any) -> None:
        raise NotImplementedError(f"the operator {name} needs the compiled mmcv (mim install mmcv==2.1.0)")

    return absent


def suppress_overlaps(
    bboxes: torch.Tensor, scores: torch.Tensor, iou_threshold: float, offset: int = 0
) -> torch.Tensor:
    """Non-maximum suppression with the signature of mmcv's operator.

    Args:
        bboxes: (N, 4) left, top, right, bottom.
        scores: (N,).
        iou_threshold: Boxes that overlap a better one by more are left out.
        offset: Added to widths and heights; 1 for boxes that include their last pixel.

    Returns:
        (k,) indices of the boxes that stay, best first.
    """
    import torch

    order = scores.argsort(descending=True, stable=True)
    boxes = bboxes[order]
    low = torch.maximum(boxes[:, None, :2], boxes[None, :, :2])
    high = torch.minimum(boxes[:, None, 2:], boxes[None, :, 2:])
    shared = (high - low + offset).clamp(min=0).prod(dim=-1)
    area = (boxes[:, 2:] - boxes[:, :2] + offset).prod(dim=-1)
    overlaps = (shared / (area[:, None] + area - shared).clamp(min=1e-9) > iou_threshold).cpu().numpy()
    kept: list[int] = []
    for index in range(len(order)):
        if not overlaps[index, kept].any():
            kept.append(index)
    return order[torch.tensor(kept, dtype=torch.long, device=order.device)]


def _stand_in_for_xtcocotools() -> None:
    """Let pycocotools stand in for xtcocotools, whose wheels are for numpy 1; only datasets and metrics use it."""
    if "xtcocotools" in sys.modules or importlib.util.find_spec("xtcocotools") is not None:
        return
    for name in ("", ".coco", ".cocoeval", ".mask"):
        sys.modules[f"xtcocotools{name}"] = import_module(f"pycocotools{name}")
