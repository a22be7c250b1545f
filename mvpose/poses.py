"""3D poses, and everything that a reconstruction consists of."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from mvpose.keypoints import LATEST_S
from mvpose.skeleton import Skeleton

if TYPE_CHECKING:
    from mvpose.calib.rig import CameraRig
    from mvpose.clock import Clocks
    from mvpose.sync.offsets import OffsetGraph

_FARTHEST_M = 1e6
UP_NAMES = ("x", "y", "z", "-x", "-y", "-z")


@dataclass(frozen=True)
class Poses3D:
    """People in 3D on a uniform timeline.

    Attributes:
        time_s: (T,) session times, seconds, uniform.
        xyz_m: (T, P, J, 3) metres in the calibration's world frame; NaN where missing.
        person_ids: (P,) one lasting identity each.
        reprojection_px: (T, P, J) root mean square over the views used; NaN where missing.
        n_views: (T, P, J) number of views used; 0 where missing.
        cov_m2: (T, P, J, 3, 3) covariance, m², float32; NaN where missing.
        skeleton: The joints, in order.
        cameras: (C,) the cameras that took part.
        up: The world's up axis: x, y, z, -x, -y or -z.
        smoothed: Whether the positions have been smoothed over time.
    """

    time_s: np.ndarray
    xyz_m: np.ndarray
    person_ids: np.ndarray
    reprojection_px: np.ndarray
    n_views: np.ndarray
    cov_m2: np.ndarray
    skeleton: Skeleton
    cameras: tuple[str, ...] = ()
    up: str = "z"
    smoothed: bool = False

    def __post_init__(self) -> None:
        if not (np.abs(self.time_s) <= LATEST_S).all() or (np.diff(self.time_s) <= 0).any():
            raise ValueError("time_s must be finite and increase")
        if self.up not in UP_NAMES:
            raise ValueError(f"up is {self.up!r}, not one of {', '.join(UP_NAMES)}")
        shape = (len(self.time_s), len(self.person_ids), len(self.skeleton))
        if self.xyz_m.shape != (*shape, 3):
            raise ValueError(f"xyz_m is {self.xyz_m.shape}, not (T, P, J, 3) = {(*shape, 3)}")
        if self.reprojection_px.shape != shape or self.n_views.shape != shape:
            raise ValueError(f"reprojection_px and n_views must be (T, P, J) = {shape}")
        if self.cov_m2.shape != (*shape, 3, 3):
            raise ValueError(f"cov_m2 must be (T, P, J, 3, 3) = {(*shape, 3, 3)}")
        if len(set(np.asarray(self.person_ids).tolist())) != shape[1]:
            raise ValueError("person_ids must be unique")
        if (np.abs(self.xyz_m) > _FARTHEST_M).any():  # single precision, as C3D's, has no places left there
            raise ValueError(f"xyz_m holds places more than {_FARTHEST_M / 1000:.0f} km away")

    @property
    def frame_rate(self) -> float:
        """Frames per second; NaN for fewer than two frames."""
        return float(1 / np.median(np.diff(self.time_s))) if len(self.time_s) > 1 else float("nan")


@dataclass(frozen=True)
class Reconstruction:
    """The whole result: poses, and what they were made from."""

    poses: Poses3D
    rig: CameraRig
    clocks: Clocks
    offsets: OffsetGraph | None = None
    provenance: Mapping[str, Any] = field(default_factory=dict)
