"""2D pose of several people by MediaPipe's BlazePose networks, offline, from the files inside its wheel.

MediaPipe's own ``solutions.pose`` follows one person. Here its two networks run directly: the person detector over the
whole image and over square tiles of it, so that small people are found too, and the landmark network on an upright crop
of each person. Between two searches a person's crop follows from the landmarks of the frame before, as in MediaPipe
(Bazarevsky et al., "BlazePose: On-device Real-time Body Pose tracking", 2020). The constants are those of MediaPipe's
graphs ``pose_detection_cpu`` and ``pose_landmark_by_roi_cpu``.

Coordinates inside this module are measured from the corner of the image, as MediaPipe does; in ``Detections`` they are
the project's pixels, which begin at the centre of the top-left pixel, half a pixel further in.

A crop is (centre x, centre y, side, angle): a square in pixels, turned by the angle in radians, clockwise as displayed.
"""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from mvpose.detect.base import Detections
from mvpose.detect.similarity import best_of_each, box_overlap, keypoint_similarity, poses_of
from mvpose.errors import DetectionError, MissingDependencyError
from mvpose.keypoints import keypoint_boxes
from mvpose.skeleton import SKELETONS

PIP_LINE = 'pip install "mvpose[mediapipe]"'

_DETECTOR_SIDE = 224
_CROP_SIDE = 256
_CROP_MARGIN = 1.25  # the landmark network was trained on crops this much larger than the circle round a person
_SMALLEST_CROP, _LARGEST_CROP = 0.25, 1.25  # sides in units of the tile's; who is outside is left to tiles that fit
_SAME_CROP = 0.7  # overlap above which two crops are of one person; people who stand close reach 0.5
_BODY = slice(0, 33)
_CROP_CENTRE, _CROP_TOP = 33, 34  # landmarks that give the crop of the next frame: mid-hip, and a point of the circle
_REFINE_REACH = 3  # heatmap cells on either side of a landmark
_REFINE_CONFIDENCE = 0.5


@dataclass(frozen=True)
class MediapipeOptions:
    """When people are searched for, and what counts as one."""

    search_every: int = 10  # frames from one search of the whole image to the next
    search_lost_every: int = 3  # the same while somebody has just been lost
    min_detector_score: float = 0.5  # person detector's confidence, 0..1
    min_presence: float = 0.5  # landmark network's confidence that its crop holds a person, 0..1
    min_clarity_new: float = 0.6  # mean heatmap peak over the joints in the image, to begin following a person, 0..1
    min_clarity: float = 0.5  # the same, to go on; measured 0.65–0.9 on people, 0.3–0.55 on furniture and single legs
    duplicate_similarity: float = 0.55  # keypoint similarity above which two poses are one person, 0..1


@dataclass(frozen=True)
class _Poses:
    """People in one image.

    Attributes:
        xy: (n, 33, 2) landmarks, measured from the corner of the image.
        score: (n, 33) confidence in [0, 1].
        clarity: (n,) mean peak of the heatmaps of the joints in the image, in [0, 1].
        next_crop: (n, 4) where to look for the person in the next frame.
    """

    xy: np.ndarray
    score: np.ndarray
    clarity: np.ndarray
    next_crop: np.ndarray

    def __getitem__(self, index: np.ndarray) -> _Poses:
        return _Poses(self.xy[index], self.score[index], self.clarity[index], self.next_crop[index])

    def __len__(self) -> int:
        return len(self.xy)


_NOBODY = _Poses(np.empty((0, 33, 2)), np.empty((0, 33)), np.empty(0), np.empty((0, 4)))


def _concatenate(poses: list[_Poses]) -> _Poses:
    return _Poses(
        np.concatenate([p.xy for p in poses]),
        np.concatenate([p.score for p in poses]),
        np.concatenate([p.clarity for p in poses]),
        np.concatenate([p.next_crop for p in poses]),
    )


class MediapipeDetector:
    """BlazePose on everybody in the image.

    Attributes:
        name: ``mediapipe``.
        skeleton: The 33 joints of BlazePose.
    """

    name = "mediapipe"
    skeleton = SKELETONS["blazepose33"]

    def __init__(self, options: MediapipeOptions | None = None) -> None:
        self._options = options or MediapipeOptions()
        self._person_network = _Network("pose_detection/pose_detection.tflite")
        self._landmark_network = _Network("pose_landmark/pose_landmark_full.tflite")

    def detect(self, images: Iterable[np.ndarray]) -> Iterator[Detections]:
        """Yield the people of each image (H, W, 3) uint8 RGB; the images are consecutive frames of one video."""
        crops = np.empty((0, 4))
        since_search = self._options.search_every
        somebody_lost = False
        for image in images:
            poses = self._landmarks(image, crops, self._options.min_clarity)
            somebody_lost |= len(poses) < len(crops)
            since_search += 1
            if since_search >= (self._options.search_lost_every if somebody_lost else self._options.search_every):
                poses = self._search(image, poses)
                since_search, somebody_lost = 0, False
            crops = poses.next_crop
            yield _detections(poses, image)

    def _search(self, image: np.ndarray, known: _Poses) -> _Poses:
        """Add the people that are not followed yet."""
        crops = self._person_crops(image)
        new = ~(_crop_overlap(crops, known.next_crop) > _SAME_CROP).any(axis=1)
        found = self._landmarks(image, crops[new], self._options.min_clarity)
        # A crop from landmarks fits better than one from the person detector, and a second look unmasks most ghosts.
        found = self._landmarks(image, found.next_crop, self._options.min_clarity_new)
        return self._distinct(_concatenate([known, found]))

    def _person_crops(self, image: np.ndarray) -> np.ndarray:
        """Search the image and its tiles for people; crops (n, 4)."""
        crops, scores = [np.empty((0, 4))], [np.empty(0)]
        for tile in search_tiles(image.shape[1], image.shape[0]):
            raw_box, raw_score = self._person_network.run(_tile_pixels(image, tile) / 127.5 - 1)
            score, crop = decode_people(raw_box, raw_score[:, 0], tile, self._options.min_detector_score)
            largest = _LARGEST_CROP if tile[2] < max(image.shape[:2]) else np.inf
            fits = (crop[:, 2] > _SMALLEST_CROP * tile[2]) & (crop[:, 2] < largest * tile[2])
            crops.append(crop[fits])
            scores.append(score[fits])
        crop, score = np.concatenate(crops), np.concatenate(scores)
        return crop[best_of_each(_crop_overlap(crop, crop) > _SAME_CROP, score)]

    def _landmarks(self, image: np.ndarray, crops: np.ndarray, min_clarity: float) -> _Poses:
        """Landmark each crop (n, 4); those without a person, and repetitions of another, are left out."""
        poses = [pose for crop in crops if (pose := self._landmark_crop(image, crop, min_clarity)) is not None]
        if not poses:
            return _NOBODY
        return self._distinct(_concatenate(poses))

    def _distinct(self, poses: _Poses) -> _Poses:
        """Keep the clearest pose of each person; of two in one crop, one has taken its left for its right."""
        compared = poses_of(poses.xy, poses.score)
        same = keypoint_similarity(compared, compared) > self._options.duplicate_similarity
        same |= _crop_overlap(poses.next_crop, poses.next_crop) > _SAME_CROP
        return poses[best_of_each(same, poses.clarity)]

    def _landmark_crop(self, image: np.ndarray, crop: np.ndarray, min_clarity: float) -> _Poses | None:
        to_image = crop_to_image(crop)
        pixels = cv2.warpAffine(
            image,
            _between_pixel_centres(to_image),
            (_CROP_SIDE, _CROP_SIDE),
            flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP,
        )
        raw, presence, _, heatmap, _ = self._landmark_network.run(pixels / 255.0)
        if presence[0] < self._options.min_presence:
            return None
        xy, score = decode_landmarks(raw, heatmap, to_image)
        outside = _is_outside(xy[_BODY], image)
        peak = _sigmoid(heatmap[..., _BODY].max(axis=(0, 1)))
        clarity = peak[~outside].sum() / max(1, (~outside).sum())
        if clarity < min_clarity:
            return None
        next_crop = crop_round(xy[[_CROP_CENTRE]], xy[[_CROP_TOP]])
        return _Poses(xy[None, _BODY], score[None, _BODY], np.array([clarity]), next_crop)


class _Network:
    """One of the networks of MediaPipe's wheel on LiteRT. MediaPipe itself is not imported: it would bring jax."""

    def __init__(self, name: str) -> None:
        interpreter = _litert()
        self._interpreter = interpreter(str(model_file(name)), num_threads=min(4, os.cpu_count() or 1))
        self._interpreter.allocate_tensors()
        self._input = self._interpreter.get_input_details()[0]["index"]
        self._outputs = [detail["index"] for detail in self._interpreter.get_output_details()]

    def run(self, image: np.ndarray) -> list[np.ndarray]:
        """Run on one image (side, side, 3); outputs in the model's order, without the batch axis."""
        self._interpreter.set_tensor(self._input, image[None].astype(np.float32))
        self._interpreter.invoke()
        return [self._interpreter.get_tensor(index)[0] for index in self._outputs]


def is_installed() -> bool:
    """Whether MediaPipe's wheel and LiteRT are here; neither is imported."""
    return all(importlib.util.find_spec(package) is not None for package in ("mediapipe", "ai_edge_litert"))


def model_file(name: str) -> Path:
    """Find one of the networks in MediaPipe's wheel without importing it.

    Raises:
        MissingDependencyError: MediaPipe is not installed.
        DetectionError: It is installed in a version that no longer carries the networks.
    """
    spec = importlib.util.find_spec("mediapipe")
    if spec is None or not spec.submodule_search_locations:
        raise MissingDependencyError(f"the detector mediapipe is not installed: {PIP_LINE}")
    path = Path(spec.submodule_search_locations[0]) / "modules" / name
    if not path.is_file():
        raise DetectionError(
            f"the installed mediapipe carries no {path.name} (0.10.14 is the last that does): {PIP_LINE}"
        )
    return path


def _litert() -> type:
    try:
        from ai_edge_litert.interpreter import Interpreter
    except ImportError:
        raise MissingDependencyError(f"the detector mediapipe needs ai-edge-litert: {PIP_LINE}") from None
    return Interpreter


def search_tiles(width: int, height: int) -> np.ndarray:
    """Squares (n, 3) of left, top, side in which people are searched: the whole image, and its parts at two scales.

    >>> search_tiles(1920, 1080)[:4].tolist()
    [[0, -420, 1920], [0, 0, 1080], [420, 0, 1080], [840, 0, 1080]]
    """
    short, long = min(width, height), max(width, height)

    def starts(length: int, side: int, stride: float) -> np.ndarray:
        if length <= side:
            return np.array([(length - side) // 2])
        return np.linspace(0, length - side, int(np.ceil((length - side) / stride)) + 1).round().astype(int)

    return np.array(
        [
            (left, top, side)
            for side, stride in ((long, long), (short, short / 2), (short // 2, short / 3))
            for top in starts(height, side, stride)
            for left in starts(width, side, stride)
        ]
    )


def _tile_pixels(image: np.ndarray, tile: np.ndarray) -> np.ndarray:
    """Scale a tile to the detector's input, black where it reaches beyond the image."""
    left, top, side = (int(value) for value in tile)
    inside = image[max(top, 0) : top + side, max(left, 0) : left + side]
    scale = _DETECTOR_SIDE / side
    size = tuple(max(1, round(extent * scale)) for extent in inside.shape[1::-1])
    x, y = round(max(-left, 0) * scale), round(max(-top, 0) * scale)
    pixels = np.zeros((_DETECTOR_SIDE, _DETECTOR_SIDE, 3), dtype=np.uint8)
    pixels[y : y + size[1], x : x + size[0]] = cv2.resize(inside, size, interpolation=cv2.INTER_AREA)
    return pixels


def _anchors() -> np.ndarray:
    """Centres (2254, 2) of the detector's anchors: 2 a cell at strides 8 and 16, 6 at 32; in units of the input."""
    centres = []
    for stride, per_cell in ((8, 2), (16, 2), (32, 6)):
        at = (np.arange(_DETECTOR_SIDE // stride) + 0.5) * stride / _DETECTOR_SIDE
        y, x = np.meshgrid(at, at, indexing="ij")
        centres.append(np.repeat(np.stack([x.ravel(), y.ravel()], axis=1), per_cell, axis=0))
    return np.concatenate(centres)


_ANCHORS = _anchors()


def decode_people(
    raw: np.ndarray, raw_score: np.ndarray, tile: np.ndarray, min_score: float
) -> tuple[np.ndarray, np.ndarray]:
    """Turn the person detector's output into crops.

    Args:
        raw: (2254, 12) per anchor the centre and size of the face box and 4 points, relative to the anchor, in pixels
            of the input. Point 0 is the middle of the hips, point 1 lies upwards on the circle round the whole person.
        raw_score: (2254,) logits.
        tile: (3,) left, top and side of the searched square.
        min_score: Detections below it are left out.

    Returns:
        Scores (n,) and crops (n, 4).
    """
    score = _sigmoid(raw_score)
    sure = score >= min_score
    points = raw[sure, 4:8].reshape(-1, 2, 2) / _DETECTOR_SIDE + _ANCHORS[sure, None]
    points = points * tile[2] + tile[:2]
    return score[sure], crop_round(points[:, 0], points[:, 1])


def crop_round(centre: np.ndarray, top: np.ndarray) -> np.ndarray:
    """Upright crops (n, 4) of people given by the centre (n, 2) and the top (n, 2) of the circle round each."""
    up = top - centre
    side = 2 * _CROP_MARGIN * np.linalg.norm(up, axis=1)
    return np.column_stack([centre, side, np.arctan2(up[:, 0], -up[:, 1])])


def crop_to_image(crop: np.ndarray) -> np.ndarray:
    """(2, 3) affine map from the unit square of a crop to the image, both measured from their corner.

    >>> crop_to_image(np.array([100.0, 50.0, 20.0, 0.0])) @ [0, 0, 1]
    array([90., 40.])
    """
    x, y, side, angle = crop
    linear = side * np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    return np.column_stack([linear, np.array([x, y]) - linear @ [0.5, 0.5]])


def _between_pixel_centres(unit_to_image: np.ndarray) -> np.ndarray:
    """The same map from pixel indices of the crop to pixel indices of the image, whose integers are pixel centres."""
    linear = unit_to_image[:, :2] / _CROP_SIDE
    return np.column_stack([linear, unit_to_image[:, 2] + linear @ [0.5, 0.5] - 0.5])


def _crop_overlap(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Intersection over union (A, B) of crops as if they were not turned."""
    half_a, half_b = a[:, 2:3] / 2, b[:, 2:3] / 2
    return box_overlap(
        np.hstack([a[:, :2] - half_a, a[:, :2] + half_a]), np.hstack([b[:, :2] - half_b, b[:, :2] + half_b])
    )


def decode_landmarks(raw: np.ndarray, heatmap: np.ndarray, to_image: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Turn the landmark network's output into points of the image.

    Args:
        raw: (195,) = 39 × (x, y, z in pixels of the crop, visibility, presence as logits).
        heatmap: (64, 64, 39) logits.
        to_image: (2, 3) map from the unit square of the crop to the image.

    Returns:
        (39, 2) points and (39,) scores: the probability that the point is in the image and not hidden.
    """
    landmarks = raw.reshape(-1, 5).astype(float)
    in_crop = refine_by_heatmap(landmarks[:, :2] / _CROP_SIDE, heatmap)
    visible, present = _sigmoid(landmarks[:, 3:].T)
    return in_crop @ to_image[:, :2].T + to_image[:, 2], visible * present


def refine_by_heatmap(xy: np.ndarray, heatmap: np.ndarray) -> np.ndarray:
    """Move each landmark to the heatmap's centre of mass around it, where the heatmap is sure of itself.

    Args:
        xy: (L, 2) in units of the crop.
        heatmap: (S, S, L) logits.

    Returns:
        (L, 2).
    """
    cells = heatmap.shape[0]
    at = np.floor(xy * cells).astype(int)
    inside = ((at >= 0) & (at < cells)).all(axis=1)
    window = np.arange(-_REFINE_REACH, _REFINE_REACH + 1)
    rows, columns = (np.where(inside, at[:, axis], 0)[:, None] + window for axis in (1, 0))  # (L, 7) each
    layer = np.arange(len(xy))[:, None, None]
    in_map = ((rows >= 0) & (rows < cells))[:, :, None] & ((columns >= 0) & (columns < cells))[:, None, :]
    logits = heatmap[rows.clip(0, cells - 1)[:, :, None], columns.clip(0, cells - 1)[:, None, :], layer]
    confidence = np.where(in_map, _sigmoid(logits), 0.0)
    total = confidence.sum(axis=(1, 2))
    mass = np.stack(
        [(confidence.sum(axis=1) * columns).sum(axis=1), (confidence.sum(axis=2) * rows).sum(axis=1)], axis=1
    )
    sure = inside & (confidence.max(axis=(1, 2)) >= _REFINE_CONFIDENCE)
    return np.where(sure[:, None], mass / np.maximum(total, 1e-9)[:, None] / cells, xy)


def _sigmoid(logits: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-np.clip(logits.astype(float), -100, 100)))


def _is_outside(xy: np.ndarray, image: np.ndarray) -> np.ndarray:
    return np.any((xy < 0) | (xy > (image.shape[1], image.shape[0])), axis=-1)


def _detections(poses: _Poses, image: np.ndarray) -> Detections:
    """Call a joint missing that lies outside the image, where the network only extrapolates."""
    outside = _is_outside(poses.xy, image)
    xy_px = np.where(outside[..., None], np.nan, poses.xy - 0.5)
    return Detections(xy_px, np.where(outside, 0.0, poses.score), keypoint_boxes(xy_px))
