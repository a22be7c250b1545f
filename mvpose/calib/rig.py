"""The calibrated cameras of a recording, in one world."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np

from mvpose.calib.camera import Camera
from mvpose.errors import CalibrationError

UP_AXES = {
    sign + axis: np.eye(3)[index] * (-1.0 if sign else 1.0) for sign in ("", "-") for index, axis in enumerate("xyz")
}


@dataclass(frozen=True)
class CameraRig:
    """Named cameras in order, and which way is up.

    Attributes:
        cameras: The cameras; names are unique.
        up: The world's up axis: x, y, z, -x, -y or -z.
    """

    cameras: tuple[Camera, ...]
    up: str = "z"

    def __post_init__(self) -> None:
        object.__setattr__(self, "cameras", tuple(self.cameras))
        names = self.names
        twice = sorted({name for name in names if names.count(name) > 1})
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
        raise CalibrationError(f"the calibration has no camera {name!r}; it has {', '.join(self.names)}")

    def subset(self, names: Iterable[str]) -> CameraRig:
        """Return the named cameras, in that order.

        Raises:
            CalibrationError: A camera is not in the calibration.
        """
        return CameraRig(tuple(self[name] for name in names), self.up)
