"""One calibrated camera: from world metres to distorted pixels and back."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import cv2
import numpy as np

from mvpose.errors import CalibrationError

Model = Literal["pinhole", "fisheye"]
MAX_SIDE_PX = 16_384
"""Of an image; 12K cinema has 12,288."""
MIN_SIDE_PX = 16
_FASTEST_FPS = 100_000
_FOCAL_SIDES = (0.05, 1000.0)  # focal length over the image's longer side: a fisheye of half a turn has 0.3
_OFF_CENTRE_SIDES = 5.0  # principal point from the image's middle, in sides: crops of large sensors have 1
_ASTRAY_PX = 2.0  # that a pixel in the middle of the image may be off after it went through the lens and back
_DIST_LENGTHS: dict[str, tuple[int, ...]] = {"pinhole": (4, 5, 8, 12, 14), "fisheye": (4,)}


@dataclass(frozen=True)
class Camera:
    """A calibrated camera, in OpenCV's frame: x right, y down, z forward.

    Attributes:
        name: The camera's name, as in the session.
        size_px: (width, height) of the displayed image that K refers to.
        K: (3, 3) intrinsics, pixels; pixel (0, 0) is the centre of the top-left pixel.
        dist: Distortion, OpenCV's order: 4, 5, 8, 12 or 14 values (pinhole), 4 (fisheye).
        cam_from_world: (4, 4) rigid transform, metres: ``p_cam = cam_from_world @ p_world``.
        model: ``pinhole`` or ``fisheye``.
        fps: What the calibration says of the frame rate; informs only.
        rolling_shutter_s: Read-out time from the first to the last row, seconds; None if unknown.
        size_known: False where the calibration does not say for which image size K holds, so that ``size_px`` is only
            what a centred principal point suggests; :func:`mvpose.calib.rig.match_sizes` then takes the video's.

    Raises:
        CalibrationError: A value cannot belong to a camera, e.g. a reflection for a rotation.
    """

    name: str
    size_px: tuple[int, int]
    K: np.ndarray
    dist: np.ndarray
    cam_from_world: np.ndarray
    model: Model = "pinhole"
    fps: float | None = None
    rolling_shutter_s: float | None = None
    size_known: bool = True

    def __post_init__(self) -> None:
        for field, value in (("K", self.K), ("dist", self.dist), ("cam_from_world", self.cam_from_world)):
            array = np.array(value, dtype=np.float64)
            array.flags.writeable = False
            object.__setattr__(self, field, array)
            if not np.isfinite(array).all():
                raise CalibrationError(f"camera {self.name}: {field} holds values that are not finite")
        object.__setattr__(self, "size_px", (int(self.size_px[0]), int(self.size_px[1])))
        if self.model not in _DIST_LENGTHS:
            raise CalibrationError(f"camera {self.name}: model {self.model!r} is not one of {sorted(_DIST_LENGTHS)}")
        if not MIN_SIDE_PX <= min(self.size_px) <= max(self.size_px) <= MAX_SIDE_PX:
            raise CalibrationError(
                f"camera {self.name}: image size {self.size_px[0]} x {self.size_px[1]} is not that of a video, whose "
                f"sides have {MIN_SIDE_PX} to {MAX_SIDE_PX} pixels"
            )
        if self.K.shape != (3, 3) or not np.allclose(self.K[2], (0, 0, 1)) or min(self.K[0, 0], self.K[1, 1]) <= 0:
            raise CalibrationError(f"camera {self.name}: K is not an intrinsic matrix [[fx s cx] [0 fy cy] [0 0 1]]")
        if self.dist.shape not in {(n,) for n in _DIST_LENGTHS[self.model]}:
            raise CalibrationError(
                f"camera {self.name}: {self.dist.size} distortion values, a {self.model} camera has "
                f"{' or '.join(map(str, _DIST_LENGTHS[self.model]))}"
            )
        if self.fps is not None and not 0 < self.fps < _FASTEST_FPS:
            raise CalibrationError(f"camera {self.name}: fps {self.fps:g} is no frame rate")
        if self.rolling_shutter_s is not None and not 0 <= self.rolling_shutter_s < 1:
            raise CalibrationError(f"camera {self.name}: rolling_shutter_s {self.rolling_shutter_s:g} is not 0 to 1 s")
        self._check_lens()
        self._check_pose()

    def _check_lens(self) -> None:
        """Demand that the lens could make the image: its middle goes out along rays, and comes back where it was."""
        longer = max(self.size_px)
        low, high = (sides * longer for sides in _FOCAL_SIDES)
        for name, value in (("fx", self.K[0, 0]), ("fy", self.K[1, 1])):
            if not low <= value <= high:
                raise CalibrationError(
                    f"camera {self.name}: {name} {value:g} px is no focal length of {longer} px images"
                )
        if abs(self.K[0, 1]) > self.K[0, 0] or self.K[1, 0]:
            raise CalibrationError(f"camera {self.name}: K is not an intrinsic matrix, its skew is {self.K[0, 1]:g} px")
        off = np.abs(self.K[:2, 2] - np.array(self.size_px) / 2)
        if (off > _OFF_CENTRE_SIDES * longer).any():
            raise CalibrationError(
                f"camera {self.name}: its principal point {self.K[0, 2]:g}, {self.K[1, 2]:g} lies far outside the image"
            )
        # Lenses fitted to points near the middle may well be wrong at the edge; nothing is asked of them there.
        grid = np.stack(np.meshgrid([-1, 0, 1], [-1, 0, 1]), axis=-1).reshape(-1, 2) * min(self.size_px) / 8
        pixels = self.K[:2, 2] + grid
        with np.errstate(all="ignore"):
            rays = self.undistort(pixels)
            back = self._image_of(np.concatenate([rays, np.ones((len(rays), 1))], axis=1)[:, None])
        if not (np.abs(back - pixels) <= _ASTRAY_PX).all() or not (np.abs(rays) < 100).all():
            raise CalibrationError(
                f"camera {self.name}: dist {', '.join(f'{value:.4g}' for value in self.dist)} is not a lens: the "
                "middle of its image does not come back to the same pixels"
            )

    def _check_pose(self) -> None:
        if self.cam_from_world.shape != (4, 4) or not np.allclose(self.cam_from_world[3], (0, 0, 0, 1)):
            raise CalibrationError(f"camera {self.name}: cam_from_world is not a (4, 4) rigid transform")
        error = np.abs(self.R @ self.R.T - np.eye(3)).max()
        if error > 1e-3:
            raise CalibrationError(
                f"camera {self.name}: R is not a rotation (R Rᵀ is off by {error:.2g} from identity)"
            )
        if np.linalg.det(self.R) < 0:
            raise CalibrationError(
                f"camera {self.name}: R is a reflection (determinant −1), not a rotation; one of its axes is flipped"
            )

    @property
    def R(self) -> np.ndarray:
        """(3, 3) rotation, world to camera."""
        return self.cam_from_world[:3, :3]

    @property
    def t(self) -> np.ndarray:
        """(3,) translation, world to camera, metres."""
        return self.cam_from_world[:3, 3]

    @property
    def center_m(self) -> np.ndarray:
        """(3,) the optical centre in the world, metres."""
        return -self.R.T @ self.t

    @property
    def focal_px(self) -> float:
        """Mean focal length, pixels: what turns a small angle into pixels."""
        return float((self.K[0, 0] + self.K[1, 1]) / 2)

    def undistort(self, xy_px: np.ndarray) -> np.ndarray:
        """Map distorted pixels (..., 2) to normalised coordinates (..., 2) on the plane z = 1; NaN stays NaN."""
        xy = np.asarray(xy_px, dtype=np.float64)
        flat = xy.reshape(-1, 2)
        out = np.full_like(flat, np.nan)
        seen = np.isfinite(flat).all(axis=1)
        if seen.any():
            points = np.ascontiguousarray(flat[seen][:, None])
            criteria = (cv2.TERM_CRITERIA_COUNT | cv2.TERM_CRITERIA_EPS, 40, 1e-10)
            if self.model == "fisheye":
                out[seen] = cv2.fisheye.undistortPoints(points, self.K, self.dist)[:, 0]
            else:
                out[seen] = cv2.undistortPoints(points, self.K, self.dist, criteria=criteria)[:, 0]
        return out.reshape(xy.shape)

    def project(self, xyz_m: np.ndarray) -> np.ndarray:
        """Map world points (..., 3) to distorted pixels (..., 2); NaN where missing or behind the camera."""
        xyz = np.asarray(xyz_m, dtype=np.float64)
        cam = xyz.reshape(-1, 3) @ self.R.T + self.t
        out = np.full((len(cam), 2), np.nan)
        front = np.isfinite(cam).all(axis=1) & (cam[:, 2] > 1e-6)
        if front.any():
            points = np.ascontiguousarray(cam[front][:, None])
            out[front] = self._image_of(points)
        return out.reshape(*xyz.shape[:-1], 2)

    def _image_of(self, points: np.ndarray) -> np.ndarray:
        """Return the pixels (n, 2) of points (n, 1, 3) before the camera."""
        zero = np.zeros(3)
        if self.model == "fisheye":
            return np.asarray(cv2.fisheye.projectPoints(points, zero, zero, self.K, self.dist)[0][:, 0])
        return np.asarray(cv2.projectPoints(points, zero, zero, self.K, self.dist)[0][:, 0])

    def sees(self, xyz_m: np.ndarray) -> np.ndarray:
        """Tell for world points (..., 3) whether they lie in front of the camera and inside its image."""
        xy = self.project(xyz_m)
        with np.errstate(invalid="ignore"):
            return np.asarray(((xy >= -0.5) & (xy <= np.array(self.size_px) - 0.5)).all(axis=-1))
