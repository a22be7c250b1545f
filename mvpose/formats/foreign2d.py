"""2D keypoints that other programs wrote: MMPose predictions, COCO results, folders of OpenPose frames.

Only what the files truly say is taken: a place in a list is no identity, a joint without a score is no point, and a
frame that is not listed has no people. Scores are clipped to [0, 1], which MMPose's SimCC heads exceed a little.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from mvpose.errors import FormatError
from mvpose.keypoints import UNTRACKED
from mvpose.skeleton import SKELETONS, Skeleton, skeleton_of

# Two days at 60 frames a second: a greater number is no frame's.
_MAX_FRAME = 2 * 86400 * 60
# OpenPose's own sets come first; other programs write the rest in its format.
_OPENPOSE_SETS = {25: "body25", 18: "body18", 17: "coco17", 26: "halpe26"}


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
        frame_base: Number of the video's first frame by the habit of the format.
    """

    frame: np.ndarray
    xy_px: np.ndarray
    score: np.ndarray
    track_id: np.ndarray
    skeleton: Skeleton
    first_frame: int
    last_frame: int
    frame_base: int = 0


class _Person(NamedTuple):
    """One person in one frame: (J, 3) of x, y, score."""

    frame: int
    points: np.ndarray
    track_id: int


class _BadContentError(Exception):
    """What is wrong with a file, without its name."""


def read_foreign(path: Path, skeleton: str | None = None) -> ForeignKeypoints:
    """Read a JSON file or a folder of OpenPose frames, its format told by its content.

    Args:
        path: The file or folder.
        skeleton: Name of the joints, where the file does not name them.

    Raises:
        FormatError: The content is of no known format or damaged, or its joints cannot be told.
    """
    try:
        if path.is_dir():
            return _read_openpose(path, skeleton)
        content = _load_json(path)
        if isinstance(content, dict) and "instance_info" in content:
            return _read_mmpose(content["instance_info"], content.get("meta_info"), skeleton)
        if isinstance(content, dict) and "annotations" in content:
            return _read_coco(content["annotations"], content, skeleton)
        if isinstance(content, list) and any(isinstance(item, dict) and "instances" in item for item in content):
            return _read_mmpose(content, None, skeleton)
        if isinstance(content, list) and all(isinstance(item, dict) and "image_id" in item for item in content):
            return _read_coco(content, {}, skeleton)
        raise _BadContentError("it is neither MMPose predictions nor COCO results")
    except _BadContentError as error:
        raise FormatError(f"{path}: {error}.") from error
    except OSError as error:
        raise FormatError(f"{path} cannot be read ({error.strerror}).") from error


def _load_json(path: Path) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8-sig"))
    except (ValueError, RecursionError) as error:
        raise _BadContentError(f"{path.name} is not valid JSON ({error or type(error).__name__})") from error


def _read_mmpose(frames: Any, meta: Any, skeleton: str | None) -> ForeignKeypoints:
    """Read predictions of MMPose's demos, which name the joints, or of its inferencer, which do not."""
    people: list[_Person] = []
    listed: list[int] = []
    for item in _items(frames, "its list of frames"):
        frame = _frame_number(_get(item, "frame_id", "a frame"))
        listed.append(frame)
        for instance in _items(_get(item, "instances", f"frame {frame}"), f"frame {frame}"):
            xy = _numbers(_get(instance, "keypoints", f"frame {frame}"), frame)
            score = _numbers(_get(instance, "keypoint_scores", f"frame {frame}"), frame)
            if xy.ndim != 2 or xy.shape[1] != 2 or score.shape != xy.shape[:1]:
                raise _BadContentError(f"frame {frame} has keypoints {xy.shape} with scores {score.shape}")
            people.append(_Person(frame, np.column_stack([xy, score]), _track_id(instance, frame)))
    names = meta.get("keypoint_id2name") if isinstance(meta, dict) else None
    joints = _joints(names, skeleton, people, None if people else "coco17")
    return _found(people, listed, joints)


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
    images = [
        _frame_number(_get(image, "id", "an image"))
        for image in _items(dataset.get("images", []), "its list of images")
    ]
    joints = _joints(names, skeleton, people, "coco17" if categories <= {1} else None)
    listed = images + [person.frame for person in people]
    return _found(people, listed, joints, frame_base=min(images, default=0))


def _read_openpose(folder: Path, skeleton: str | None) -> ForeignKeypoints:
    """Read ``*_<frame number>_keypoints.json``, one file a frame."""
    people: list[_Person] = []
    files: dict[int, str] = {}
    for path in sorted(folder.glob("*.json")):
        frame = _frame_number(path.stem)
        if frame in files:
            raise _BadContentError(f"{files[frame]} and {path.name} are both frame {frame}")
        files[frame] = path.name
        for person in _items(_get(_load_json(path), "people", path.name), path.name):
            points = _triples(_get(person, "pose_keypoints_2d", path.name), frame)
            if len(points):
                people.append(_Person(frame, points, UNTRACKED))
    if not files:
        raise _BadContentError("it holds no .json file")
    default = _OPENPOSE_SETS.get(len(people[0].points)) if people else "body25"
    return _found(people, list(files), _joints(None, skeleton, people, default))


def _found(people: list[_Person], listed: list[int], skeleton: Skeleton, frame_base: int = 0) -> ForeignKeypoints:
    for person in people:
        if len(person.points) != len(skeleton):
            raise _BadContentError(
                f"frame {person.frame} has a person of {len(person.points)} joints, and {skeleton.name} has "
                f"{len(skeleton)}; set skeleton under [keypoints] in session.toml if it is another set"
            )
    points = np.array([person.points for person in people]).reshape(len(people), len(skeleton), 3)
    missing = ~(np.isfinite(points).all(axis=-1) & (points[..., 2] > 0))
    return ForeignKeypoints(
        frame=np.array([person.frame for person in people], dtype=np.int64),
        xy_px=np.where(missing[..., None], np.nan, points[..., :2]),
        score=np.where(missing, 0.0, np.clip(points[..., 2], 0.0, 1.0)),
        track_id=np.array([person.track_id for person in people], dtype=np.int64),
        skeleton=skeleton,
        first_frame=min(listed, default=frame_base),
        last_frame=max(listed, default=frame_base - 1),
        frame_base=frame_base,
    )


def _joints(names: Any, skeleton: str | None, people: list[_Person], default: str | None) -> Skeleton:
    """Choose the joints: those that the file names, else those of session.toml, else the habit of the format."""
    if names is not None:
        try:
            if isinstance(names, dict):
                by_number = {int(number): name for number, name in names.items()}
                names = [by_number[number] for number in range(len(by_number))]
            return skeleton_of([str(name) for name in names])
        except (ValueError, KeyError, TypeError) as error:
            raise _BadContentError(f"its names of joints are not usable ({error})") from error
    if skeleton is None and default is None:
        count = f"{len(people[0].points)} " if people else ""
        raise _BadContentError(
            f"it does not name its {count}joints; set skeleton under [keypoints] in session.toml, one of "
            f"{', '.join(SKELETONS)}"
        )
    return SKELETONS[skeleton or default or ""]


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
