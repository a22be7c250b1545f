"""Every error that a user's input or surroundings can cause.

::

    MvposeError                 exit code 3: one clear line, no traceback
    ├── SessionError            the recording folder or its session.toml
    ├── VideoError              a video that cannot be read to its end
    ├── CalibrationError        a calibration that is wrong, foreign or lacks a camera
    ├── FormatError             any other file that does not hold what its format promises
    ├── DetectionError          2D keypoints cannot be had
    ├── SyncError               fewer than two cameras share a clock
    ├── ReconstructionError     nothing to triangulate
    ├── WorkspaceError          the output folder cannot be written
    └── MissingDependencyError  an optional package is not installed

A message says what happened, to which camera or file, and what to do next. Anything else that is raised is a bug.
"""


class MvposeError(Exception):
    """Root of all errors that the user can mend."""


class SessionError(MvposeError):
    """The session folder or its ``session.toml`` is not usable."""


class VideoError(MvposeError):
    """A video is empty, truncated or not decodable."""


class CalibrationError(MvposeError):
    """A calibration is inconsistent, of unknown format or does not cover a camera."""


class FormatError(MvposeError):
    """A file does not hold what its format promises, or is of a newer version."""


class DetectionError(MvposeError):
    """No detector can run, or a camera's 2D keypoints cannot be had."""


class SyncError(MvposeError):
    """Fewer than two cameras can be brought onto one clock."""


class ReconstructionError(MvposeError):
    """No person is seen by two synchronised, calibrated cameras."""


class WorkspaceError(MvposeError):
    """The output folder cannot be written or holds something else."""


class MissingDependencyError(MvposeError):
    """An optional package is needed and not installed."""
