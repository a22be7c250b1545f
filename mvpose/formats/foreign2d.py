"""2D keypoints that other programs wrote: MMPose, COCO, OpenPose and its kin, EasyMocap, DeepLabCut, SLEAP.

Only what the files truly say is taken: a place in a list is no identity, a joint without a score is no point, and a
frame that is not listed has no people. Scores are clipped to [0, 1], which MMPose's SimCC heads exceed a little.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from mvpose.errors import FormatError, MvposeError
from mvpose.formats.hdf2d import read_hdf
from mvpose.inputs import NONSENSE, open_file, read_json
from mvpose.keypoints import UNTRACKED
from mvpose.skeleton import LAYOUTS, Skeleton, skeleton_of

log = logging.getLogger(__name__)

# Two days at 60 frames a second: a greater number is no frame's.
_MAX_FRAME = 2 * 86400 * 60
# Where several orders of joints have one count, the first is what most programs write.
_HABITS = ("body25", "body18", "coco17", "halpe26", "coco_wholebody133", "halpe136", "body25b", "h36m17", "blazepose33")
_TELLING_PEOPLE = 500  # of a file: enough to tell orders apart
# Right names have a likeness of 0.89 and more on synthetic walks of 1 to 3 people, wrong ones of 0.59 and less.
_CLEARLY = 0.15
# Somebody who stands with their arms down: to the side and up, in statures (Drillis & Contini 1966).
_STANDING = {
    "shoulder": (0.11, 0.82), "elbow": (0.13, 0.63), "wrist": (0.14, 0.48),
    "hip": (0.07, 0.53), "knee": (0.07, 0.285), "ankle": (0.07, 0.04),
}  # fmt: skip


@dataclass(frozen=True)
class ForeignKeypoints:
    """What a file says, frames numbered as it counts them. Rows are detections in the order of the file.

    Attributes:
        frame: (N,) frame number of each detection.
        xy_px: (N, J, 2) pixels; NaN where missing.
        score: (N, J) in [0, 1]; 0 where missing.
        track_id: (N,) identity; −1 where the file has none.
        skeleton: The joints.
        first_frame: Least frame number listed, with people or without.
        last_frame: Greatest; less than ``first_frame`` where no frame is listed.
        frame_base: Number of the video's first frame, as the file says or by the habit of its format.
        knows_base: Whether the file says it: it lists the images of its video, or is a table of all frames.
        lists_all: Whether every frame between the first and the last is listed, as it is where each has its own entry.
    """

    frame: np.ndarray
    xy_px: np.ndarray
    score: np.ndarray
    track_id: np.ndarray
    skeleton: Skeleton
    first_frame: int
    last_frame: int
    frame_base: int = 0
    knows_base: bool = False
    lists_all: bool = False


class _Person(NamedTuple):
    """One person in one frame: (J, 3) of x, y, score."""

    frame: int
    points: np.ndarray
    track_id: int


class _BadContentError(Exception):
    """What is wrong with a file, without its name."""


def read_foreign(path: Path, skeleton: str | None = None) -> ForeignKeypoints:
    """Read a file, or a folder of one file a frame, its format told by its content.

    Args:
        path: The file or folder.
        skeleton: Name of the joints, of :data:`mvpose.skeleton.LAYOUTS`, where the file does not name them.

    Raises:
        FormatError: The content is of no known format or damaged, or its joints cannot be told.
        MissingDependencyError: It is HDF5, and h5py is not installed.
    """
    try:
        if path.is_dir():
            return _read_folder(path, skeleton)
        with open_file(path) as file:
            is_hdf = file.read(8) == b"\x89HDF\r\n\x1a\n"
        if is_hdf:
            return _read_tracks(path)
        content = read_json(path)
        if isinstance(content, dict) and "instance_info" in content:
            return _read_mmpose(content["instance_info"], content.get("meta_info"), skeleton)
        if isinstance(content, dict) and "annotations" in content:
            return _read_coco(content["annotations"], content, skeleton)
        if isinstance(content, list) and any(isinstance(item, dict) and "instances" in item for item in content):
            return _read_mmpose(content, None, skeleton)
        if isinstance(content, list) and all(isinstance(item, dict) and "image_id" in item for item in content):
            return _read_coco(content, {}, skeleton)
        raise _BadContentError(
            "it is neither MMPose predictions nor COCO results; one file a frame, as OpenPose, EasyMocap and MMPose's "
            "inferencer write for images, belongs into a folder <camera>_json"
        )
    except MvposeError:
        raise
    except _BadContentError as error:
        raise FormatError(f"{path}: {error}.") from error
    except OSError as error:
        raise FormatError(f"{path} cannot be read ({error.strerror or error}).") from error
    except NONSENSE as error:
        raise FormatError(f"{path} is not valid JSON of keypoints ({error or type(error).__name__}).") from error


def _read_mmpose(frames: Any, meta: Any, skeleton: str | None) -> ForeignKeypoints:
    """Read predictions of MMPose's demos, which name the joints, or of its inferencer, which do not."""
    people: list[_Person] = []
    listed: list[int] = []
    for item in _items(frames, "its list of frames"):
        frame = _frame_number(_get(item, "frame_id", "a frame"))
        listed.append(frame)
        for instance in _items(_get(item, "instances", f"frame {frame}"), f"frame {frame}"):
            people.append(_Person(frame, _instance_points(instance, frame), _track_id(instance, frame)))
    names = meta.get("keypoint_id2name") if isinstance(meta, dict) else None
    return _found(people, listed, *_joints(names, skeleton, people))


def _read_coco(annotations: Any, dataset: dict[str, Any], skeleton: str | None) -> ForeignKeypoints:
    """Read a list of results, or a data set, whose images say where frames begin and whose category names joints."""
    people: list[_Person] = []
    categories: set[Any] = set()
    for item in _items(annotations, "its list of annotations"):
        frame = _frame_number(_get(item, "image_id", "an annotation"))
        points = _triples(_get(item, "keypoints", f"image {frame}"), frame)
        category = item.get("category_id", 1)
        if not isinstance(category, int):
            raise _BadContentError(f"image {frame} has the category {str(category)[:40]!r}")
        categories.add(category)
        people.append(_Person(frame, points, _track_id(item, frame)))
    if len(categories) > 1:
        raise _BadContentError(f"it mixes the categories {sorted(categories)}; keep those of people only")
    names = None
    for category in _items(dataset.get("categories", []), "its list of categories"):
        if category.get("id") in categories:
            names = category.get("keypoints")
    is_coco = categories <= {1} and skeleton is None  # the format's own set, where nobody says otherwise
    joints = _joints(names, "coco17" if is_coco else skeleton, people)
    images = _frames_of_images(_items(dataset.get("images", []), "its list of images"))
    if not images:
        return _found(people, [person.frame for person in people], *joints, has_entry_a_frame=False)
    strangers = [person.frame for person in people if person.frame not in images]
    if strangers:
        raise _BadContentError(f"it has an annotation of image {strangers[0]}, which is not among its images")
    people = [person._replace(frame=images[person.frame]) for person in people]
    listed = list(images.values())
    return _found(people, listed, *joints, frame_base=min(listed), knows_base=True)


def _frames_of_images(images: Iterable[dict[str, Any]]) -> dict[int, int]:
    """Return the frame of each image by its id: its ``frame_id``, else the number in its name, else its id."""
    images = list(images)
    ids = [_frame_number(_get(image, "id", "an image")) for image in images]

    def numbers(key: str) -> list[int] | None:
        values = [image.get(key) for image in images]
        try:
            found = [_frame_number(value) for value in values]
        except _BadContentError:
            return None
        return found if len(set(found)) == len(found) else None

    return dict(zip(ids, numbers("frame_id") or numbers("file_name") or ids, strict=True))


def _read_folder(folder: Path, skeleton: str | None) -> ForeignKeypoints:
    """Read one file a frame, ``*_<frame number>_keypoints.json`` or otherwise numbered.

    What each holds tells the program: ``people`` OpenPose's format, ``annots`` EasyMocap's, a list of instances that of
    MMPose's inferencer for images.
    """
    people: list[_Person] = []
    files: dict[int, str] = {}
    paths = [path for path in folder.glob("*") if path.suffix.lower() == ".json" and not path.name.startswith(".")]
    for path in sorted(paths):
        frame = _frame_number(path.stem)
        if frame in files:
            raise _BadContentError(f"{files[frame]} and {path.name} are both frame {frame}")
        files[frame] = path.name
        try:
            content = read_json(path)
        except ValueError as error:
            raise _BadContentError(f"{path.name} is not valid JSON ({error})") from error
        people += [_Person(frame, points, UNTRACKED) for points in _people_in(content, path.name, frame)]
    if not files:
        raise _BadContentError("it holds no .json file")
    return _found(people, list(files), *_joints(None, skeleton, people))


def _people_in(content: Any, name: str, frame: int) -> list[np.ndarray]:
    """Return (J, 3) of each person in one frame's file."""
    if isinstance(content, list):
        return [_instance_points(instance, frame) for instance in _items(content, name)]
    if isinstance(content, dict) and "annots" in content:
        return [_points(_get(person, "keypoints", name), frame) for person in _items(content["annots"], name)]
    # Pose2Sim leaves an empty table where a camera does not see a person.
    people = [person for person in _items(_get(content, "people", name), name) if person]
    found = [_triples(_get(person, "pose_keypoints_2d", name), frame) for person in people]
    return [points for points in found if len(points)]


def _read_tracks(path: Path) -> ForeignKeypoints:
    """Read the HDF5 of DeepLabCut or SLEAP: a table of everybody in every frame."""
    tracks = read_hdf(path)
    frames, rows = np.nonzero(np.isfinite(tracks.points).any(axis=(2, 3)).T)
    _, skeleton = _joints(list(tracks.joint_names), None, ())
    n_frames = tracks.points.shape[1]
    track_id = rows if tracks.identified else np.full(len(rows), UNTRACKED)
    return _keypoints(
        tracks.points[rows, frames], frames, track_id, skeleton, 0, n_frames - 1, knows_base=True, lists_all=True
    )


def _found(
    people: list[_Person],
    listed: list[int],
    n_points: int,
    skeleton: Skeleton,
    frame_base: int = 0,
    knows_base: bool = False,
    has_entry_a_frame: bool = True,
) -> ForeignKeypoints:
    for person in people:
        if len(person.points) != n_points:
            raise _BadContentError(
                f"frame {person.frame} has a person of {len(person.points)} joints, and {skeleton.name} has "
                f"{n_points}; set skeleton under [keypoints] in session.toml if it is another set"
            )
    first, last = min(listed, default=frame_base), max(listed, default=frame_base - 1)
    return _keypoints(
        np.array([person.points[: len(skeleton)] for person in people]).reshape(len(people), len(skeleton), 3),
        np.array([person.frame for person in people], dtype=np.int64),
        np.array([person.track_id for person in people], dtype=np.int64),
        skeleton,
        first,
        last,
        frame_base=frame_base,
        knows_base=knows_base,
        lists_all=has_entry_a_frame and len(set(listed)) == last - first + 1,
    )


def _keypoints(
    points: np.ndarray,
    frame: np.ndarray,
    track_id: np.ndarray,
    skeleton: Skeleton,
    first_frame: int,
    last_frame: int,
    **more: Any,
) -> ForeignKeypoints:
    """Tell what of points (N, J, 3) is missing, and keep scores within bounds."""
    missing = ~(np.isfinite(points).all(axis=-1) & (points[..., 2] > 0))
    return ForeignKeypoints(
        frame=frame,
        xy_px=np.where(missing[..., None], np.nan, points[..., :2]),
        score=np.where(missing, 0.0, np.clip(points[..., 2], 0.0, 1.0)),
        track_id=track_id,
        skeleton=skeleton,
        first_frame=first_frame,
        last_frame=last_frame,
        **more,
    )


def _joints(names: Any, skeleton: str | None, people: Sequence[_Person]) -> tuple[int, Skeleton]:
    """Choose the joints: those that the file names, else those of session.toml, else by their number and the limbs.

    Returns:
        How many points a person has, and the joints that the first of them are.
    """
    if names is not None:
        try:
            if isinstance(names, dict):
                by_number = {int(number): name for number, name in names.items()}
                names = [by_number[number] for number in range(len(by_number))]
            named = skeleton_of([str(name) for name in names])
            return len(named), named
        except NONSENSE as error:
            raise _BadContentError(f"its names of joints are not usable ({error})") from error
    if skeleton is not None:
        _warn_of_likelier(people, skeleton)
        return LAYOUTS[skeleton]
    if not people:
        return LAYOUTS["coco17"]
    count = len(people[0].points)
    possible = [LAYOUTS[name] for name in _HABITS if LAYOUTS[name][0] == count]
    if not possible:
        raise _BadContentError(
            f"it does not name its {count} joints; set skeleton under [keypoints] in session.toml, one of "
            f"{', '.join(LAYOUTS)}"
        )
    return _likeliest(people, possible)


def _likeliest(people: Sequence[_Person], possible: Sequence[tuple[int, Skeleton]]) -> tuple[int, Skeleton]:
    """Return the first of several orders of joints, unless people look clearly more like a body in another.

    Args:
        people: People of one file.
        possible: Orders of as many joints, the most usual first.
    """
    if len(possible) == 1:
        return possible[0]
    likeness = [_likeness(people, skeleton) for _, skeleton in possible]
    best = int(np.argmax(likeness))
    if likeness[best] < likeness[0] + _CLEARLY:
        return possible[0]
    log.warning(
        "%d joints are taken for %s, in whose order they look like bodies (%.2f), not for %s (%.2f); skeleton under "
        "[keypoints] in session.toml overrides",
        len(people[0].points),
        possible[best][1].name,
        likeness[best],
        possible[0][1].name,
        likeness[0],
    )
    return possible[best]


def _warn_of_likelier(people: Sequence[_Person], skeleton: str) -> None:
    """Say so if people look clearly more like bodies in another order of as many joints."""
    count, chosen = LAYOUTS[skeleton]
    if not people or len(people[0].points) != count:
        return
    for name in _HABITS:
        if LAYOUTS[name][0] == count and LAYOUTS[name][1] != chosen:
            likeness = [_likeness(people, one) for one in (chosen, LAYOUTS[name][1])]
            if likeness[1] > likeness[0] + _CLEARLY:
                log.warning(
                    "skeleton is %s, but in the order of %s the joints look more like bodies (%.2f, not %.2f)",
                    skeleton,
                    name,
                    likeness[1],
                    likeness[0],
                )


def _likeness(people: Sequence[_Person], skeleton: Skeleton) -> float:
    """Return how alike two tables are: of mean distances between arms' and legs' joints, and of somebody standing.

    It is the tables' correlation, which nobody's size, turn or place in the image changes; 0 where nothing is seen.
    """
    names = [f"{side}_{joint}" for side in ("left", "right") for joint in _STANDING]
    standing = np.array([(side * x, y) for side in (1, -1) for x, y in _STANDING.values()])
    some = [person.points for person in people[:: max(1, len(people) // _TELLING_PEOPLE)]]
    points = np.array([p[skeleton.indices(names)] for p in some if len(p) == len(some[0])])
    with np.errstate(over="ignore", invalid="ignore"):
        seen = np.isfinite(points).all(-1, keepdims=True) & (points[..., 2:] > 0) & (np.abs(points[..., :2]) < 1e6)
        xy = np.where(seen.all(-1, keepdims=True), points[..., :2], np.nan)
    first, second = np.triu_indices(len(names), 1)
    apart = np.linalg.norm(xy[:, first] - xy[:, second], axis=-1)
    known = np.isfinite(apart)
    size = apart.sum(1, where=known) / np.maximum(known.sum(1), 1)
    share = apart / np.where(size > 0, size, np.nan)[:, None]
    known = np.isfinite(share)
    mean = share.sum(0, where=known) / np.maximum(known.sum(0), 1)
    pairs = known.any(0)
    expected = np.linalg.norm(standing[first] - standing[second], axis=-1)
    if pairs.sum() < 3 or np.ptp(mean[pairs]) == 0:
        return 0.0
    return float(np.corrcoef(mean[pairs], expected[pairs])[0, 1])


def _items(value: Any, where: str) -> Iterable[dict[str, Any]]:
    if not isinstance(value, list) or not all(isinstance(item, dict) for item in value):
        raise _BadContentError(f"{where} is not a list of objects")
    return value


def _get(item: Any, key: str, where: str) -> Any:
    if not isinstance(item, dict) or key not in item:
        raise _BadContentError(f"{where} has no {key}")
    return item[key]


def _numbers(value: Any, frame: int) -> np.ndarray:
    try:
        return np.asarray(value, dtype=np.float64)
    except (TypeError, ValueError, OverflowError) as error:
        raise _BadContentError(f"frame {frame} has keypoints that are not numbers") from error


def _instance_points(instance: dict[str, Any], frame: int) -> np.ndarray:
    """(J, 3) of an instance of MMPose's."""
    xy = _numbers(_get(instance, "keypoints", f"frame {frame}"), frame)
    score = _numbers(_get(instance, "keypoint_scores", f"frame {frame}"), frame)
    if xy.ndim != 2 or xy.shape[1] != 2 or score.shape != xy.shape[:1]:
        raise _BadContentError(f"frame {frame} has keypoints {xy.shape} with scores {score.shape}")
    return np.column_stack([xy, score])


def _points(value: Any, frame: int) -> np.ndarray:
    """(J, 3) from a list of [x, y, score]."""
    points = _numbers(value, frame)
    if points.ndim != 2 or points.shape[1] != 3:
        raise _BadContentError(f"frame {frame} has keypoints that are not a list of [x, y, score]")
    return points


def _triples(value: Any, frame: int) -> np.ndarray:
    """(J, 3) from a flat list of x, y, score."""
    flat = _numbers(value, frame)
    if flat.ndim != 1 or len(flat) % 3:
        raise _BadContentError(f"frame {frame} has keypoints that are not a list of x, y, score")
    return flat.reshape(-1, 3)


def _frame_number(value: Any) -> int:
    """Return a whole number, or the last one in a name like ``cam01_000000000012_keypoints``."""
    if isinstance(value, str):
        digits = re.findall(r"[0-9]+", value)
        value = int(digits[-1][:20]) if digits else None
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value <= _MAX_FRAME:
        raise _BadContentError(f"{str(value)[:40]!r} is not the number of a frame")
    return value


def _track_id(item: dict[str, Any], frame: int) -> int:
    track = item.get("track_id")
    if track is None:
        return UNTRACKED
    if isinstance(track, bool) or not isinstance(track, int) or abs(track) > 2**53:
        raise _BadContentError(f"frame {frame} has a track_id that is not a whole number")
    return max(track, UNTRACKED)
