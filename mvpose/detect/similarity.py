"""How much two detections look like one person: overlap of boxes, closeness of joints."""

from __future__ import annotations

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


def keypoint_similarity(
    xy_a: np.ndarray,
    score_a: np.ndarray,
    xy_b: np.ndarray,
    score_b: np.ndarray,
    falloff: float | np.ndarray = KEYPOINT_FALLOFF,
) -> np.ndarray:
    """Object keypoint similarity (COCO) of all pairs of detections, each joint weighted by its confidence in both.

    Args:
        xy_a: (A, J, 2) pixels, NaN where missing.
        score_a: (A, J) confidence in [0, 1].
        xy_b: (B, J, 2) likewise.
        score_b: (B, J) likewise.
        falloff: Distance, in units of a person's size, of similarity exp(-1/2); a number or one for each of A.

    Returns:
        (A, B) in [0, 1]; 0 for detections that share no joint.
    """
    size_a, size_b = person_size_px(keypoint_boxes(xy_a)), person_size_px(keypoint_boxes(xy_b))
    reach = np.reshape(falloff, (-1, 1)) * 0.5 * (size_a[:, None] + size_b)
    squared = ((xy_a[:, None] - xy_b) ** 2).sum(axis=-1)
    shared = np.isfinite(squared)
    weight = np.where(shared, score_a[:, None] * score_b, 0.0)
    with np.errstate(divide="ignore", invalid="ignore"):
        close = np.exp(-np.where(shared, squared, 0.0) / (2 * reach[..., None] ** 2))
    total = weight.sum(axis=-1)
    summed = (weight * np.where(shared, close, 0.0)).sum(axis=-1)
    return np.divide(summed, total, out=np.zeros_like(total), where=total > 0)


def distinct_people(xy: np.ndarray, score: np.ndarray, rank: np.ndarray, similarity: float) -> np.ndarray:
    """Indices (k,), ascending, that leave out every detection which repeats a better one.

    Args:
        xy: (N, J, 2) pixels, NaN where missing.
        score: (N, J) confidence in [0, 1].
        rank: (N,) how good each detection is; the higher stays.
        similarity: Keypoint similarity above which two detections are one person.
    """
    if len(xy) < 2:
        return np.arange(len(xy))
    same = keypoint_similarity(xy, score, xy, score) > similarity
    kept: list[int] = []
    for index in np.argsort(-rank, kind="stable"):
        if not same[index, kept].any():
            kept.append(int(index))
    return np.sort(np.array(kept))
