"""How much two detections look like one person: overlap of boxes, closeness of joints."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from mvpose.keypoints import keypoint_boxes

# Distance of a joint, in units of the square root of the person's box area, at which its similarity falls to exp(-1/2).
# COCO's object keypoint similarity has 0.05 (eyes) to 0.21 (hips); one middle value serves joint sets of every kind.
KEYPOINT_FALLOFF = 0.15


def box_overlap(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Intersection over union of all pairs of boxes.

    Args:
        a: (A, 4) left, top, right, bottom.
        b: (B, 4) likewise.

    Returns:
        (A, B) in [0, 1]; 0 where a box is NaN or empty.

    >>> box_overlap(np.array([[0, 0, 2, 2]]), np.array([[1, 0, 3, 2], [5, 5, 6, 6]])).round(3).tolist()
    [[0.333, 0.0]]
    """
    low = np.maximum(a[:, None, :2], b[None, :, :2])
    high = np.minimum(a[:, None, 2:], b[None, :, 2:])
    shared = np.prod(np.maximum(high - low, 0.0), axis=-1)
    union = np.prod(a[:, 2:] - a[:, :2], axis=-1)[:, None] + np.prod(b[:, 2:] - b[:, :2], axis=-1) - shared
    return np.divide(shared, union, out=np.zeros_like(shared), where=union > 0)


def person_size_px(boxes: np.ndarray) -> np.ndarray:
    """Square root of each box's area (N, 4) → (N,), with a thin box taken for at least a quarter as wide as long."""
    extent = boxes[:, 2:] - boxes[:, :2]
    longest = extent.max(axis=1)
    return np.sqrt(longest * np.maximum(extent.min(axis=1), longest / 4))


@dataclass(frozen=True)
class Poses2D:
    """Detections as they are compared.

    Attributes:
        xy_px: (N, J, 2) pixels; 0 where missing.
        weight: (N, J) confidence in [0, 1]; 0 where missing.
        size_px: (N,) the size of each person.
    """

    xy_px: np.ndarray
    weight: np.ndarray
    size_px: np.ndarray

    def __getitem__(self, rows: np.ndarray | slice) -> Poses2D:
        return Poses2D(self.xy_px[rows], self.weight[rows], self.size_px[rows])

    def __len__(self) -> int:
        return len(self.xy_px)

    def moved(self, by_px: np.ndarray) -> Poses2D:
        """Return them displaced by (N, 2) pixels."""
        return Poses2D(self.xy_px + by_px[:, None], self.weight, self.size_px)


def poses_of(xy_px: np.ndarray, score: np.ndarray) -> Poses2D:
    """Prepare detections (N, J, 2), NaN where missing, with scores (N, J), to be compared."""
    seen = np.isfinite(xy_px).all(axis=-1)
    size_px = np.nan_to_num(person_size_px(keypoint_boxes(xy_px)))
    return Poses2D(np.where(seen[..., None], xy_px, 0.0), np.where(seen, score, 0.0), size_px)


def keypoint_similarity(a: Poses2D, b: Poses2D, falloff: float | np.ndarray = KEYPOINT_FALLOFF) -> np.ndarray:
    """Object keypoint similarity (COCO) of all pairs, each joint weighted by its confidence in both.

    Args:
        a: A detections.
        b: B detections.
        falloff: Distance, in units of a person's size, at which the similarity is exp(-1/2); one number, or (A,).

    Returns:
        (A, B) in [0, 1]; 0 for detections that share no joint.
    """
    reach = np.reshape(falloff, (-1, 1)) * 0.5 * (a.size_px[:, None] + b.size_px)
    squared = ((a.xy_px[:, None] - b.xy_px) ** 2).sum(axis=-1)
    weight = a.weight[:, None] * b.weight
    close = np.exp(-squared / np.maximum(2 * reach**2, 1e-9)[..., None])
    return (weight * close).sum(axis=-1) / np.maximum(weight.sum(axis=-1), 1e-12)


def distinct_people(poses: Poses2D, rank: np.ndarray, similarity: float) -> np.ndarray:
    """Indices (k,), ascending, that leave out every detection which repeats a better one.

    Args:
        poses: N detections of one frame.
        rank: (N,) how good each is; the highest stays.
        similarity: Keypoint similarity above which two detections are one person.
    """
    if len(poses) < 2:
        return np.arange(len(poses))
    return best_of_each(keypoint_similarity(poses, poses) > similarity, rank)


def best_of_each(same: np.ndarray, rank: np.ndarray) -> np.ndarray:
    """Indices (k,), ascending, of those that are the same (N, N) as none that is kept of higher rank (N,).

    >>> best_of_each(np.array([[True, True, False], [True, True, False], [False, False, True]]), np.array([1, 2, 0]))
    array([1, 2])
    """
    if np.count_nonzero(same) == len(same):  # each is the same as itself only
        return np.arange(len(same))
    kept: list[int] = []
    for index in np.argsort(-rank, kind="stable"):
        if not same[index, kept].any():
            kept.append(int(index))
    return np.sort(np.array(kept))
