"""Session: what a recording folder holds, as the user laid it out.

::

    SESSION/videos/<camera>.mp4        or the videos directly in SESSION
    SESSION/keypoints/<camera>.npz | <camera>.json | <camera>.h5 | <camera>_json/
    SESSION/session.toml               optional

A camera's name is its file's stem. A camera that recorded in chapters is either a folder ``videos/<camera>/`` or a run
of files as GoPro names them, called after the first.
"""

from __future__ import annotations

import logging
import re
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from difflib import get_close_matches
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from mvpose.atomic import is_text
from mvpose.errors import SessionError
from mvpose.frametimes import read_timestamps
from mvpose.inputs import NONSENSE, read_text
from mvpose.shutter import Readout
from mvpose.skeleton import LAYOUTS
from mvpose.video import Video

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

log = logging.getLogger(__name__)

VIDEO_SUFFIXES = frozenset(
    ".mp4 .mov .m4v .mkv .webm .avi .mts .m2ts .ts .mpg .mpeg .wmv .3gp".split()  # noqa: SIM905
)
_LONGEST_SIDE_PX = 100_000  # TOML's whole numbers have no limit, and arrays' have
# GH: H.264, GX: HEVC, then two digits of chapter and four of recording. Older: GOPR (first chapter), GP.
_LARGEST_TOML_BYTES = 1_000_000
_NAMED = 8  # files that a message lists
_GOPRO = re.compile(r"(?P<kind>GH|GX|GP)(?P<chapter>\d\d)(?P<number>\d{4})|GOPR(?P<first>\d{4})", re.IGNORECASE)


@dataclass(frozen=True)
class CameraSource:
    """What the session holds of one camera.

    Attributes:
        name: The camera's name.
        videos: Its video files, chapters in order; empty where only keypoints are given.
        keypoints: Its 2D keypoints: an npz, a JSON or HDF5 file, or a folder of one JSON file a frame.
        timestamps: Its file of frame times; they stand in place of the video's.
        fps: Frames per second, for keypoints that carry no times.
        start_s: Seconds added to the camera's own time.
        offset_hint_s: What the user knows of this camera's offset to the reference, seconds.
        hint_sigma_s: Standard deviation of that knowledge, seconds.
        rolling_shutter_s: Time from reading the first to reading the last row, seconds.
        readout: Direction in the displayed image in which rows are read.
        frame_base: Number of the first frame in its keypoint file; None for the session's.
        size_px: (width, height) of the displayed image, where neither a video nor a calibration says it.
    """

    name: str
    videos: tuple[Path, ...] = ()
    keypoints: Path | None = None
    timestamps: Path | None = None
    fps: float | None = None
    start_s: float = 0.0
    offset_hint_s: float | None = None
    hint_sigma_s: float = 0.5
    rolling_shutter_s: float | None = None
    readout: Readout = "down"
    frame_base: int | None = None
    size_px: tuple[int, int] | None = None


@dataclass(frozen=True)
class Session:
    """A recording: its cameras and what the user has said of them.

    Attributes:
        root: The folder.
        name: What to call it: the folder's name.
        cameras: The cameras in natural order of their names.
        reference: The camera whose time is to be the session's; None leaves the choice to the synchronisation.
        skeleton: Name of the joints of keypoint files that do not name them.
        frame_base: Number of the first frame in keypoint files; None for each format's own habit.
    """

    root: Path
    name: str
    cameras: tuple[CameraSource, ...]
    reference: str | None = None
    skeleton: str | None = None
    frame_base: int | None = None

    def __post_init__(self) -> None:
        if self.reference is not None:
            _require_known("reference camera", self.reference, self.names)

    @property
    def names(self) -> tuple[str, ...]:
        """The cameras' names."""
        return tuple(camera.name for camera in self.cameras)

    def __getitem__(self, camera: str) -> CameraSource:
        for source in self.cameras:
            if source.name == camera:
                return source
        raise KeyError(camera)


def open_session(path: Path) -> Session:
    """See what a recording folder holds; no video or keypoint file is opened.

    Raises:
        SessionError: There is no camera, two files claim one camera, or ``session.toml`` is wrong.
    """
    root = Path(path)
    if not root.is_dir():
        raise SessionError(f"{root} is not a folder. Give the folder that holds videos/ or keypoints/.")
    try:
        videos = _find_videos(root)
        keypoints = _find_keypoints(root / "keypoints")
    except OSError as error:
        raise SessionError(f"{root} cannot be read ({error.strerror}).") from error
    names = sorted(videos.keys() | keypoints.keys(), key=_natural)
    if not names:
        raise SessionError(
            f"{root} holds no camera. Put videos (<camera>.mp4, .mov, .mkv …) into {root / 'videos'} or {root}, "
            f"or keypoints (<camera>.npz, <camera>.json or <camera>_json/) into {root / 'keypoints'}."
        )
    for name in names:
        if not is_text(name):
            raise SessionError(f"{root}: the file name of camera {name!a} is not UTF-8; rename the file.")
    toml = _read_toml(root / "session.toml")
    for name in toml.cameras:
        _require_known(f"{root / 'session.toml'}: camera", name, names)
    cameras = tuple(
        _camera_source(root, name, videos.get(name, ()), keypoints.get(name), toml.cameras.get(name, {}))
        for name in names
    )
    return Session(root, root.resolve().name, cameras, **toml.session)


def require_two(session: Session) -> None:
    """Check that there is something to synchronise.

    Raises:
        SessionError: The session has one camera only.
    """
    if len(session.cameras) < 2:
        raise SessionError(
            f"{session.root} holds one camera only ({session.names[0]}); give at least two that saw the same people."
        )


def without(session: Session, skip: Iterable[str]) -> Session:
    """Leave cameras out.

    Raises:
        SessionError: One of them is unknown, is the reference, or none would be left.
    """
    skip = set(skip)
    for name in sorted(skip):
        _require_known("camera to skip", name, session.names)
        if name == session.reference:
            raise SessionError(f"{name} is the reference camera and cannot be skipped; name another reference.")
    cameras = tuple(camera for camera in session.cameras if camera.name not in skip)
    if not cameras:
        raise SessionError(f"all cameras of {session.root} are skipped.")
    return replace(session, cameras=cameras)


def camera_times(
    source: CameraSource, video: Video | None, n_frames: int | None = None, *, lists_all: bool = False
) -> np.ndarray:
    """Tell when each frame was taken, on the camera's own clock.

    The timestamps file where there is one, as it stands; else the video's presentation times plus ``start_s``; else
    frame numbers over ``fps``, plus ``start_s``.

    Args:
        source: The camera.
        video: Its video, if it has one.
        n_frames: Number of frames in its keypoint file, which decides only where there is no video.
        lists_all: Whether that file lists frames without people too, so that its last is the camera's last.

    Returns:
        (T,) strictly increasing seconds; with a timestamps file and no video, T may exceed ``n_frames`` by frames at
        the end in which nobody is seen, unless the keypoint file lists all frames.

    Raises:
        SessionError: Nothing says when the frames were taken, or the timestamps do not fit the frames.
    """
    if source.timestamps is not None:
        times = read_timestamps(source.name, source.timestamps)
        if video is not None and len(times) != video.n_frames:
            raise SessionError(
                f"{source.name}: {source.timestamps} has {len(times)} times, and the video {video.n_frames} frames; "
                "there must be one time a frame."
            )
        if video is None and n_frames is not None and len(times) < n_frames:
            raise SessionError(
                f"{source.name}: {source.timestamps} has {len(times)} times, and the keypoints go on to frame "
                f"{n_frames - 1}; there must be one time a frame."
            )
        if video is None and n_frames is not None and len(times) > n_frames:
            words = f"{source.timestamps} has {len(times)} times, and {source.keypoints} {n_frames} frames"
            if lists_all or len(times) >= 2 * n_frames:
                raise SessionError(
                    f"{source.name}: {words}; there must be one time a frame. Are those the times of another camera, "
                    "or of several?"
                )
            log.warning("%s: %s; the last %d show nobody", source.name, words, len(times) - n_frames)
        return times
    if video is not None:
        return video.time_s + source.start_s
    if source.fps is None or n_frames is None:
        raise SessionError(
            f"{source.name}: nothing says when the frames of {source.keypoints} were taken. Set fps or timestamps "
            f"under [cameras.{source.name}] in session.toml, or put its video into videos/."
        )
    return np.arange(n_frames) / source.fps + source.start_s


def _require_known(what: str, name: str, names: Iterable[str]) -> None:
    names = list(names)
    if name not in names:
        raise SessionError(f"{what} {name!r} is not in the session{_nearest(name, names)} It has {', '.join(names)}.")


def _nearest(word: str, words: Iterable[str]) -> str:
    close = get_close_matches(word, list(words), n=1, cutoff=0.5)
    return f"; did you mean {close[0]!r}?" if close else "."


def _natural(name: str) -> list[tuple[int, str]]:
    """Sort key by which cam2 stands before cam10."""
    return [(int(part), "") if part.isdecimal() else (-1, part) for part in re.split(r"(\d+)", name)]


def _visible(folder: Path) -> list[Path]:
    # Hidden files are the system's: macOS writes a ._name beside every file on disks of another make.
    paths = [path for path in folder.iterdir() if not path.name.startswith(".")]
    return sorted(paths, key=lambda path: _natural(path.name))


def _is_video(path: Path) -> bool:
    if path.suffix.lower() not in VIDEO_SUFFIXES:
        return False
    require_file(path)
    return path.is_file()


def require_file(path: Path) -> None:
    """Refuse a pipe or a device in place of a file or folder, at which reading would wait for ever.

    Raises:
        SessionError: It is one.
    """
    if path.exists() and not (path.is_file() or path.is_dir()):
        raise SessionError(f"{path} is a pipe or a device, not a file; put a copy of what it gives there.")


def _find_videos(root: Path) -> dict[str, tuple[Path, ...]]:
    has_folder = (root / "videos").is_dir()
    folder = root / "videos" if has_folder else root
    groups = _group_chapters(folder, [path for path in _visible(folder) if _is_video(path)])
    if not has_folder:
        return groups
    for inner in _visible(folder):
        if not inner.is_dir():
            continue
        chapters = [path for path in _visible(inner) if _is_video(path)]
        if not chapters:
            continue
        if inner.name in groups:
            raise SessionError(f"{folder} holds both a video and a folder of chapters for {inner.name}; remove one.")
        runs = _group_chapters(inner, chapters)
        # GoPro numbers the chapter before the recording, so that plain sorting would mix recordings.
        groups[inner.name] = tuple(path for run in runs.values() for path in run)
    return groups


class _GoPro(NamedTuple):
    """What a GoPro file name says; the first chapter of the old naming is number 0."""

    kind: str
    number: int
    chapter: int


def _gopro(path: Path) -> _GoPro | None:
    match = _GOPRO.fullmatch(path.stem)
    if match is None:
        return None
    if match["first"]:
        return _GoPro("GP", int(match["first"]), 0)
    return _GoPro(match["kind"].upper(), int(match["number"]), int(match["chapter"]))


def _group_chapters(folder: Path, paths: list[Path]) -> dict[str, tuple[Path, ...]]:
    """Group videos by camera: each by its stem, GoPro chapters of one recording under the stem of the first."""
    seen: dict[str, Path] = {}
    for path in paths:
        if path.stem in seen:
            raise SessionError(
                f"{folder} holds {seen[path.stem].name} and {path.name}, both camera {path.stem!r}; remove one."
            )
        seen[path.stem] = path
    recordings: dict[tuple[str, int], list[tuple[int, Path]]] = {}
    groups: dict[str, tuple[Path, ...]] = {}
    for path in paths:
        gopro = _gopro(path)
        if gopro is None:
            groups[path.stem] = (path,)
        else:
            recordings.setdefault((gopro.kind, gopro.number), []).append((gopro.chapter, path))
    for chapters in recordings.values():
        chapters.sort()
        numbers = [number for number, _ in chapters]
        if numbers != list(range(numbers[0], numbers[0] + len(numbers))):
            raise SessionError(
                f"{folder}: a chapter between {chapters[0][1].name} and {chapters[-1][1].name} is missing."
            )
        groups[chapters[0][1].stem] = tuple(path for _, path in chapters)
    return groups


# DeepLabCut names its files after video and network, SLEAP after project and video.
_NAMED_BY_PROGRAM = re.compile(r"(?P<camera>.+?)(DLC_\w.*|\.analysis)")
_KEYPOINT_SUFFIXES = (".npz", ".json", ".h5", ".hdf5")


def _find_keypoints(folder: Path) -> dict[str, Path]:
    """Choose each camera's keypoints: npz before anything else; two of other kinds together are refused.

    What is not read is named, for it was put there to be read.
    """
    if not folder.is_dir():
        return {}
    found: dict[str, list[Path]] = {}
    passed_over: list[Path] = []
    for path in _visible(folder):
        camera = _keypoints_camera(path)
        if camera is None:
            passed_over.append(path)
        else:
            found.setdefault(camera, []).append(path)
    chosen = {}
    for camera, paths in found.items():
        npz = [path for path in paths if path.suffix.lower() == ".npz"]
        if len(npz or paths) > 1:
            names = " and ".join(f"{path.name}/" if path.is_dir() else path.name for path in npz or paths)
            raise SessionError(f"{folder} holds both {names} for {camera}; remove one.")
        chosen[camera] = (npz or paths)[0]
        require_file(chosen[camera])
    if passed_over:
        named = ", ".join(f"{path.name}/" if path.is_dir() else path.name for path in passed_over[:_NAMED])
        more = f" and {len(passed_over) - _NAMED} more" if len(passed_over) > _NAMED else ""
        log.warning("%s in %s: not read. %s", named + more, folder, _advice(passed_over))
    return chosen


def _keypoints_camera(path: Path) -> str | None:
    """Return whose keypoints a file or folder of ``keypoints/`` holds; None if it is none that is read."""
    if path.is_dir():
        name = path.name.removesuffix("_json")
        return name if name != path.name and name else None
    if path.suffix.lower() not in _KEYPOINT_SUFFIXES:
        return None
    match = _NAMED_BY_PROGRAM.fullmatch(path.stem) if path.suffix.lower() in (".h5", ".hdf5") else None
    return match["camera"] if match else path.stem


def _advice(passed_over: Sequence[Path]) -> str:
    """Say what to do for files and folders in ``keypoints/`` that are not read."""
    advice = ["Keypoints are <camera>.npz, <camera>.json, <camera>.h5, or a folder <camera>_json/ of one file a frame"]
    folders = [path for path in passed_over if path.is_dir()]
    if folders:
        holds_frames = next((p for p in folders if any(f.suffix.lower() == ".json" for f in _visible(p))), None)
        if holds_frames is not None:
            advice.append(f"rename {holds_frames.name}/ to {holds_frames.name}_json/ if it holds a camera's frames")
    if any(path.suffix.lower() == ".csv" for path in passed_over):
        advice.append("DeepLabCut's tables are read as .h5, which it writes beside .csv")
    if any(path.suffix.lower() == ".slp" for path in passed_over):
        advice.append("of SLEAP export the analysis file, .h5")
    if any(path.suffix.lower() in (".pickle", ".pkl") for path in passed_over):
        advice.append("pickles are not read: of DeepLabCut give the .h5, of OpenCap the OpenPose or MMPose JSON")
    return "; ".join(advice) + "."


def _camera_source(
    root: Path, name: str, videos: tuple[Path, ...], keypoints: Path | None, settings: Mapping[str, Any]
) -> CameraSource:
    where = f"{root / 'session.toml'}: [cameras.{name}]"
    settings = dict(settings)
    if "timestamps" in settings:
        if "start_s" in settings:
            raise SessionError(
                f"{where} has both timestamps and start_s; timestamps stand as they are, so drop start_s."
            )
        settings["timestamps"] = _inside(root, settings["timestamps"], where)
    if "hint_sigma_s" in settings and "offset_hint_s" not in settings:
        raise SessionError(f"{where} has hint_sigma_s without offset_hint_s; give both or neither.")
    return CameraSource(name, videos, keypoints, **settings)


def _inside(root: Path, relative: str, where: str) -> Path:
    """Return the file, provided that it lies in the session, links followed."""
    try:
        path = (root / relative).resolve()
        inside = path.is_relative_to(root.resolve()) and ".." not in Path(relative).parts
        if inside and not Path(relative).is_absolute():
            if not path.is_file():
                raise SessionError(f"{where} timestamps: {root / relative} does not exist.")
            return path
    except (OSError, ValueError, RuntimeError) as error:
        raise SessionError(f"{where} timestamps: {relative!r} is not a usable path.") from error
    raise SessionError(f"{where} timestamps: {relative!r} leads out of the session; put the file into {root}.")


class _Toml(NamedTuple):
    """Checked contents of ``session.toml``: keywords of :class:`Session`, and of each camera's source."""

    session: dict[str, Any]
    cameras: dict[str, dict[str, Any]]


def _read_toml(path: Path) -> _Toml:
    if not path.exists():
        return _Toml({}, {})
    try:
        raw = tomllib.loads(read_text(path, _LARGEST_TOML_BYTES))
    except OSError as error:
        raise SessionError(f"{path} cannot be read: {error.strerror or error}.") from error
    except NONSENSE as error:
        raise SessionError(f"{path} is not valid TOML: {error or type(error).__name__}.") from error
    top = _checked(str(path), raw, {"reference": _string, "keypoints": _table, "cameras": _table})
    keypoints = _checked(
        f"{path}: [keypoints]",
        top.get("keypoints", {}),
        {"skeleton": _one_of(*LAYOUTS), "frame_base": _natural_number},
    )
    cameras = {
        name: _checked(f"{path}: [cameras.{name}]", _table(f"{path}: cameras.{name}", settings), _CAMERA_KEYS)
        for name, settings in top.get("cameras", {}).items()
    }
    reference = {"reference": top["reference"]} if "reference" in top else {}
    return _Toml({**reference, **keypoints}, cameras)


_Check = Callable[[str, Any], Any]


def _checked(where: str, table: Mapping[str, Any], checks: Mapping[str, _Check]) -> dict[str, Any]:
    for key in table:
        if key not in checks:
            raise SessionError(
                f"{where} has an unknown key {key!r}{_nearest(key, checks)} Known are {', '.join(checks)}."
            )
    return {key: checks[key](f"{where} {key}", value) for key, value in table.items()}


def _string(where: str, value: Any) -> str:
    if not isinstance(value, str) or not value:
        raise SessionError(f"{where} must be a text in quotes, not {value!r}.")
    return value


def _table(where: str, value: Any) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise SessionError(f"{where} must be a table, not {value!r}.")
    return value


def _number(where: str, value: Any) -> float:
    # Bounded, for TOML's whole numbers have no limit.
    if isinstance(value, bool) or not isinstance(value, int | float) or not abs(value) < 1e12:
        raise SessionError(f"{where} must be a finite number, not {value!r}.")
    return float(value)


def _positive(where: str, value: Any) -> float:
    if _number(where, value) <= 0:
        raise SessionError(f"{where} must be above 0, not {value!r}.")
    return float(value)


def _natural_number(where: str, value: Any) -> int:
    # Bounded, as numbers are.
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value < 10**12:
        raise SessionError(f"{where} must be a whole number from 0 on, not {str(value)[:40]}.")
    return value


def _size(where: str, value: Any) -> tuple[int, int]:
    if not isinstance(value, list) or len(value) != 2 or not all(_is_side(side) for side in value):
        raise SessionError(f"{where} must be [width, height] in whole pixels, not {value!r}.")
    return value[0], value[1]


def _is_side(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 < value <= _LONGEST_SIDE_PX


def _under_a_second(where: str, value: Any) -> float:
    if not 0 <= _number(where, value) < 1:
        raise SessionError(f"{where} must be seconds between 0 and 1, not {value!r}.")
    return float(value)


def _one_of(*choices: str) -> _Check:
    def check(where: str, value: Any) -> str:
        if value not in choices:
            hint = _nearest(value, choices) if isinstance(value, str) else "."
            raise SessionError(f"{where} cannot be {value!r}{hint} Known are {', '.join(choices)}.")
        return str(value)

    return check


_CAMERA_KEYS: dict[str, _Check] = {
    "fps": _positive,
    "start_s": _number,
    "timestamps": _string,
    "offset_hint_s": _number,
    "hint_sigma_s": _positive,
    "rolling_shutter_s": _under_a_second,
    "readout": _one_of("down", "up", "left", "right"),
    "frame_base": _natural_number,
    "size_px": _size,
}
