"""Which engine detects: the one asked for, or the best that can run here."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType

from mvpose.detect.base import PoseDetector
from mvpose.errors import DetectionError, MissingDependencyError

log = logging.getLogger(__name__)

ENGINES: Mapping[str, str] = MappingProxyType(
    {
        "mmpose": "RTMPose on people found by RTMDet; its weights are downloaded once",
        "mediapipe": "BlazePose; runs offline from what pip installs",
    }
)


def choose_detector(name: str = "auto", *, checkpoint: Path | None = None, device: str | None = None) -> PoseDetector:
    """Make a 2D pose engine ready.

    Args:
        name: One of ``ENGINES``, or ``auto``: mmpose if it is installed and its weights are here or can be downloaded,
            else mediapipe.
        checkpoint: Weights of the pose network to use in place of the model zoo's; for mmpose.
        device: Where mmpose runs, e.g. ``cuda:0`` or ``cpu``; by default a GPU if there is one.

    Raises:
        DetectionError: No such engine, or its weights cannot be had.
        MissingDependencyError: It is not installed, or none is.
    """
    if name == "auto":
        return _best_detector(checkpoint, device)
    if name == "mmpose":
        return _mmpose(checkpoint, device)
    if name == "mediapipe":
        if checkpoint is not None:
            raise DetectionError("mediapipe takes no checkpoint; leave --checkpoint out or use --detector mmpose")
        return _mediapipe()
    raise DetectionError(f"there is no detector {name!r}; choose from auto, {', '.join(ENGINES)}")


def _best_detector(checkpoint: Path | None, device: str | None) -> PoseDetector:
    from mvpose.detect import mediapipe, mmpose

    if checkpoint is not None:
        log.info("detector: mmpose, because a checkpoint was given")
        return _mmpose(checkpoint, device)
    if not mmpose.is_installed():
        reason = "mmpose is not installed"
    elif (missing := mmpose.unreachable_weights()) is not None:
        reason = f"mmpose's weights are neither here nor reachable ({missing})"
    else:
        try:
            detector = _mmpose(None, device)
        except (DetectionError, MissingDependencyError) as error:
            reason = str(error)
        else:
            log.info("detector: mmpose, which is installed and has its weights")
            return detector
    if not mediapipe.is_installed():
        raise MissingDependencyError(
            f"no detector can run: {reason}, and mediapipe is not installed: {mediapipe.PIP_LINE}"
        )
    log.info("detector: mediapipe, because %s", reason)
    return _mediapipe()


def _mmpose(checkpoint: Path | None, device: str | None) -> PoseDetector:
    from mvpose.detect.mmpose import MmposeDetector

    return MmposeDetector(checkpoint=checkpoint, device=device)


def _mediapipe() -> PoseDetector:
    from mvpose.detect.mediapipe import MediapipeDetector

    return MediapipeDetector()
