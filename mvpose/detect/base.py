"""What every 2D pose engine offers, and what it gives for one image."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from mvpose.skeleton import Skeleton


@dataclass(frozen=True)
class Detections:
    """The people in one image.

    Attributes:
        xy_px: (n, J, 2) pixels of the image; (0, 0) is the centre of its top-left pixel; NaN where missing.
        score: (n, J) confidence in [0, 1]; 0 where missing.
        bbox_px: (n, 4) left, top, right, bottom.
    """

    xy_px: np.ndarray
    score: np.ndarray
    bbox_px: np.ndarray

    def __len__(self) -> int:
        return len(self.xy_px)


class PoseDetector(Protocol):
    """An engine that finds people and their joints.

    Attributes:
        name: The name by which the engine is chosen.
        skeleton: The joints of its detections.
    """

    name: str
    skeleton: Skeleton

    def detect(self, images: Iterable[np.ndarray]) -> Iterator[Detections]:
        """Yield the people of each image, in order.

        Engines may follow people from image to image and may read a batch ahead, so one call is one video.

        Args:
            images: Consecutive frames of one video, each (H, W, 3) uint8 RGB, all of one size.
        """
        ...
