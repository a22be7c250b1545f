"""The calibrated cameras of a recording, in one world."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace

import numpy as np

from mvpose.calib.camera import Camera
from mvpose.errors import CalibrationError

log = logging.getLogger(__name__)

PADDING_PX = 16  # a codec's macroblock: what container and sensor size may differ by without any scaling
SAME_SHAPE = 0.005  # relative difference of aspect ratios that still counts as one shape
_LISTED = 30  # names in a message
UPRIGHT = 0.5  # mean length below which the cameras' image axes do not agree on a direction

UP_AXES = {
    sign + axis: np.eye(3)[index] * (-1.0 if sign else 1.0) for sign in ("", "-") for index, axis in enumerate("xyz")
}


@dataclass(frozen=True)
class CameraRig:
    """Named cameras in order, and which way is up.

    Attributes:
        cameras: The cameras; names are unique.
        up: The world's up axis: x, y, z, -x, -y or -z.
        incomplete: Why entries of the calibration are no cameras, by their names; asking for one says it.
    """

    cameras: tuple[Camera, ...]
    up: str = "z"
    incomplete: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        object.__setattr__(self, "cameras", tuple(self.cameras))
        twice = sorted(name for name, count in Counter(self.names).items() if count > 1)
        if twice:
            raise CalibrationError(f"the calibration names {', '.join(twice)} more than once")
        if self.up not in UP_AXES:
            raise CalibrationError(f"the up axis {self.up!r} is not one of {', '.join(UP_AXES)}")

    @property
    def names(self) -> tuple[str, ...]:
        """(C,) the cameras' names."""
        return tuple(camera.name for camera in self.cameras)

    @property
    def up_vector(self) -> np.ndarray:
        """(3,) unit vector that points up in the world."""
        return UP_AXES[self.up]

    def __len__(self) -> int:
        return len(self.cameras)

    def __iter__(self) -> Iterator[Camera]:
        return iter(self.cameras)

    def __getitem__(self, name: str) -> Camera:
        for camera in self.cameras:
            if camera.name == name:
                return camera
        if name in self.incomplete:
            raise CalibrationError(f"the calibration's entry {name!r} is no whole camera: {self.incomplete[name]}")
        raise CalibrationError(f"the calibration has no camera {name!r}; it has {listed(self.names)}")

    def subset(self, names: Iterable[str]) -> CameraRig:
        """Return the named cameras, in that order.

        Raises:
            CalibrationError: A camera is not in the calibration.
        """
        return CameraRig(tuple(self[name] for name in names), self.up)


def listed(names: Collection[str]) -> str:
    """Return names for a message, which is one line."""
    shown = list(names)[:_LISTED]
    return ", ".join(shown) + (f" and {len(names) - _LISTED} more" if len(names) > _LISTED else "")


def guess_up(cameras: Iterable[Camera]) -> tuple[str, float] | None:
    """Guess the world's up axis from the cameras, whose images mostly show people upright.

    The mean of the cameras' −y axes decides. Where these point all ways, as with phones lying on their sides whose
    images were not turned, the x axes decide instead, with the sign that makes the cameras look down rather than up.

    Returns:
        The axis (x, y, z, -x, -y or -z) nearest to that mean, and the angle between the two in degrees; None where
        the cameras agree on no direction, as when they look straight down.
    """
    axes = np.stack([camera.R for camera in cameras]).mean(axis=0)
    direction = -axes[1]
    if np.linalg.norm(direction) < UPRIGHT < np.linalg.norm(axes[0]):
        direction = -axes[0] if axes[0] @ axes[2] > 0 else axes[0]
    length = float(np.linalg.norm(direction))
    if length < UPRIGHT:
        return None
    up = max(UP_AXES, key=lambda name: float(UP_AXES[name] @ direction))
    return up, float(np.degrees(np.arccos(min(1.0, float(UP_AXES[up] @ direction) / length))))


def match_sizes(rig: CameraRig, sizes: Mapping[str, tuple[int, int]], said_by: str = "the video") -> CameraRig:
    """Make the calibration refer to the displayed images.

    Up to 16 px off on an axis is padding by the codec: K is used as it is, with a warning. The same shape within 0.5
    % is the same image at another resolution: K is scaled, the centre of the top-left pixel staying at (0, 0), with a
    warning. Where the calibration does not say its size, the video's is taken if the principal point lies near its
    middle.

    Args:
        rig: The calibration.
        sizes: (width, height) in pixels of each camera's displayed image; cameras not named stay as they are.
        said_by: What says so, for whoever reads that it cannot be.

    Returns:
        The rig, with ``size_px`` as given.

    Raises:
        CalibrationError: A camera is not in the rig, or the images' size cannot belong to its calibration.
    """
    unknown = [name for name in sizes if name not in rig.names]
    if unknown:
        rig[unknown[0]]  # raises, naming the cameras that there are
    return CameraRig(
        tuple(_match_size(c, sizes[c.name], said_by) if c.name in sizes else c for c in rig), rig.up, rig.incomplete
    )


def _match_size(camera: Camera, size: tuple[int, int], said_by: str) -> Camera:
    video, calibrated = np.array(size, dtype=float), np.array(camera.size_px, dtype=float)
    words = f"{said_by} is {size[0]} x {size[1]}, its calibration is for {camera.size_px[0]} x {camera.size_px[1]}"
    if not camera.size_known:
        return _adopt_size(camera, size, said_by)
    if (video == calibrated).all():
        return camera
    if (np.abs(video - calibrated) <= PADDING_PX).all():
        log.warning("camera %s: %s; taken as padding, the calibration is used as it is", camera.name, words)
        return replace(camera, size_px=size)
    scale = video / calibrated
    if _same_shape(scale):
        log.warning("camera %s: %s; the calibration is scaled by %.4g", camera.name, words, scale.mean())
        K = camera.K.copy()
        K[:2] *= scale[:, None]
        K[:2, 2] += (scale - 1) / 2  # pixel centres: x + 1/2 scales, x does not
        return replace(camera, K=K, size_px=size)
    turned = calibrated[::-1]
    if _same_shape(video / turned) or (np.abs(video - turned) <= PADDING_PX).all():
        raise CalibrationError(
            f"camera {camera.name}: {words}: width and height are swapped. Probably the phone was turned between "
            "calibration and recording, or one of the two ignored the video's rotation flag; calibrate on images as "
            "they are displayed"
        )
    raise CalibrationError(
        f"camera {camera.name}: {words}: neither the same shape nor within {PADDING_PX} px. Is this another camera's "
        "video, or was it cropped? Calibrate in the recording's video mode"
    )


def _same_shape(scale: np.ndarray) -> bool:
    return abs(scale[0] / scale[1] - 1) <= SAME_SHAPE


def _adopt_size(camera: Camera, size: tuple[int, int], said_by: str) -> Camera:
    place = (camera.K[:2, 2] + 0.5) / size
    if ((place < 0.3) | (place > 0.7)).any():
        raise CalibrationError(
            f"camera {camera.name}: its calibration names no image size, and its principal point at "
            f"{camera.K[0, 2]:.0f}, {camera.K[1, 2]:.0f} is far from the middle of {size[0]} x {size[1]}, which "
            f"{said_by} says: it must be for another resolution"
        )
    return replace(camera, size_px=size, size_known=True)
