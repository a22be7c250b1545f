"""Score 3D poses of several people by the field's measures: PCP, MPJPE, PA-MPJPE, AP, recall, identity switches.

The rules are those of VoxelPose's evaluation (microsoft/voxelpose-pytorch, ``lib/dataset/shelf.py``, ``campus.py`` and
``panoptic.py``), so that its tables and those of its followers can be put beside ours. Where poses may lack joints,
which those of VoxelPose never do, this module says what that costs.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from mvpose.calib.rig import UP_AXES
from mvpose.errors import ReconstructionError
from mvpose.poses import Poses3D
from mvpose.recon.metrics import MATCH_M, at_times, identity_switches, mean_known
from mvpose.skeleton import Skeleton

AP_MM = (25, 50, 100, 150)
ALPHA = 0.5
"""A limb is right when the mean error of its two ends is at most this part of its true length."""

Heads = Literal["own", "plain", "shelf", "campus"]
"""How a head is made out of joints that have none; see :func:`named_joints`."""

SHELF14 = Skeleton(
    "shelf14",
    (
        "right_ankle", "right_knee", "right_hip", "left_hip", "left_knee", "left_ankle",
        "right_wrist", "right_elbow", "right_shoulder", "left_shoulder", "left_elbow", "left_wrist",
        "neck", "head_top",
    ),
)  # fmt: skip
"""The joints of Shelf and Campus; ``neck`` is their *Bottom Head*, at the chin."""

LIMBS: Mapping[str, tuple[tuple[str, str], ...]] = {
    "head": (("neck", "head_top"),),
    "torso": (("pelvis", "neck"),),
    "upper arms": (("right_shoulder", "right_elbow"), ("left_shoulder", "left_elbow")),
    "lower arms": (("right_elbow", "right_wrist"), ("left_elbow", "left_wrist")),
    "upper legs": (("right_hip", "right_knee"), ("left_hip", "left_knee")),
    "lower legs": (("right_knee", "right_ankle"), ("left_knee", "left_ankle")),
}
"""The 10 limbs of PCP by group; the pelvis is the middle of the hips."""

_PAIRS = tuple(pair for group in LIMBS.values() for pair in group)
_ENDS = tuple(dict.fromkeys(name for pair in _PAIRS for name in pair))
_UNSURE_M = 0.1  # standard deviation of a joint's position at which its confidence has fallen to 1/e
_MIN_PROCRUSTES = 3  # joints that fix a rotation


@dataclass(frozen=True)
class Pcp:
    """Percentage of correct parts, as shares.

    Attributes:
        actors: (A,) each true person's share of right limbs; whom nobody comes near has wrong ones. NaN for a person
            who is never there.
        matched: (A,) the same, over the frames alone in which an estimate is within ``MATCH_M`` of the person.
        groups: Mean over the people of the share in each group of :data:`LIMBS`, misses counted.
    """

    actors: tuple[float, ...]
    matched: tuple[float, ...]
    groups: Mapping[str, float]

    @property
    def mean(self) -> float:
        """Mean over the people, each counting alike, as in the published tables."""
        return _mean(self.actors)

    @property
    def mean_matched(self) -> float:
        """The same without counting misses."""
        return _mean(self.matched)


@dataclass(frozen=True)
class PoseScores:
    """What the field asks of poses. Shares lie in [0, 1]; NaN where there is nothing to measure.

    Attributes:
        mpjpe_mm: Mean over found people of the mean distance of their joints to the true ones.
        pa_mpjpe_mm: The same after the best similarity (Procrustes: rotation, translation, scale) a person and frame.
        ap: Average precision by how near in mm an estimate must be to count.
        recall: Share of true people with an estimate within ``MATCH_M``.
        joints: Share of the found people's true joints that have an estimate.
        id_switches: How often the estimate that follows a true person changes (CLEAR MOT).
        pcp: Limbs; None where the truth has none.
        n_true: True people, each frame counting.
        n_estimates: Estimated people in frames in which somebody truly is, each frame counting.
    """

    mpjpe_mm: float
    pa_mpjpe_mm: float
    ap: Mapping[int, float]
    recall: float
    joints: float
    id_switches: int
    pcp: Pcp | None
    n_true: int
    n_estimates: int


@dataclass(frozen=True)
class Matches:
    """What of one recording goes into scores: one row an estimate, and counts of limbs; several may be pooled.

    Attributes:
        error_m: (N,) distance of each estimated person to the nearest true one of the frame, metres.
        true_id: (N,) which true person of which frame that is; unique over the recording.
        confidence: (N,) what estimates are ranked by.
        known_m: (N,) mean distance over the joints that the estimate has, metres.
        aligned_m: (N,) the same after the best similarity; NaN for fewer than three joints.
        joints: (N, 2) number of true joints that the estimate has, and that there are.
        limbs: (A, 10, 2) number of right limbs of each true person, and of limbs.
        matched_limbs: (A, 10, 2) the same in frames in which somebody is within ``MATCH_M``.
        n_true: True people, each frame counting.
        id_switches: Changes of the estimate that follows a true person.
    """

    error_m: np.ndarray
    true_id: np.ndarray
    confidence: np.ndarray
    known_m: np.ndarray
    aligned_m: np.ndarray
    joints: np.ndarray
    limbs: np.ndarray
    matched_limbs: np.ndarray
    n_true: int
    id_switches: int


def score_poses(
    poses: Poses3D,
    truth: Poses3D,
    confidence: np.ndarray | None = None,
    *,
    heads: Heads = "shelf",
    actors: int | None = None,
) -> PoseScores:
    """Score poses against the truth, in the same world and session time; see :func:`match_poses`."""
    return pooled_scores([match_poses(poses, truth, confidence, heads=heads, actors=actors)])


def match_poses(
    poses: Poses3D,
    truth: Poses3D,
    confidence: np.ndarray | None = None,
    *,
    heads: Heads = "shelf",
    actors: int | None = None,
) -> Matches:
    """Compare the people of every true frame with those estimated at its time.

    Joints are matched by name. A joint that an estimated person lacks although others of its kind have it counts as
    ``MATCH_M`` off in ``error_m``, by which people are found and ranked, and not at all in ``known_m``. As in
    VoxelPose's evaluation, each estimate is compared with the true person nearest to it and each true person's limbs
    with the estimate nearest to it; frames in which truly nobody is are left out. Joints and limbs that one of the two
    sets of joints does not have at all are not asked for.

    Args:
        poses: The estimate; between its times it is interpolated linearly, beyond them nobody is estimated.
        truth: The truth: a person may be absent (NaN) or lack joints.
        confidence: (T, P) of each estimated person at the estimate's times; by default :func:`pose_confidence`.
        heads: How a head is made of joints that have none.
        actors: Score the limbs of the first so many true people only; by default of all.

    Raises:
        ReconstructionError: The two share no joint.
    """
    names = [n for n in truth.skeleton.joint_names if _supplies(poses, n, heads) and _supplies(truth, n, heads)]
    if not names:
        raise ReconstructionError("the true poses and the estimate have no joint in common")
    sampled, rank = _sampled(poses, truth.time_s, pose_confidence(poses) if confidence is None else confidence)
    true = named_joints(truth.xyz_m, truth.skeleton, names, truth.up, heads)
    estimate = named_joints(sampled, poses.skeleton, names, poses.up, heads)
    miss = _distances(estimate, true)  # (T, P, Q, J)
    asked = np.isfinite(true).all(axis=-1)[:, None]
    distance = mean_known(np.where(asked & np.isnan(miss), MATCH_M, miss))
    distance[~np.isfinite(estimate).all(axis=-1).any(axis=-1)] = np.nan

    reach = np.where(np.isnan(distance), np.inf, distance)
    t, p = np.nonzero(np.isfinite(reach).any(axis=2))
    q = reach[t, p].argmin(axis=-1) if len(t) else t
    known = np.isfinite(miss[t, p, q])
    ends = named_joints(truth.xyz_m[:, :actors], truth.skeleton, _ENDS, truth.up, heads)
    ends[:, :, [not _supplies(poses, name, heads) for name in _ENDS]] = np.nan
    limbs, matched_limbs = _limb_counts(
        named_joints(sampled, poses.skeleton, _ENDS, poses.up, heads), ends, reach[:, :, :actors]
    )
    return Matches(
        error_m=reach[t, p, q],
        true_id=t * distance.shape[2] + q,
        confidence=rank[t, p],
        known_m=mean_known(miss[t, p, q]),
        aligned_m=_aligned_errors(estimate[t, p], true[t, q]),
        joints=np.stack([known.sum(axis=-1), asked[t, 0, q].sum(axis=-1)], axis=-1),
        limbs=limbs,
        matched_limbs=matched_limbs,
        n_true=int(np.isfinite(true).all(axis=-1).any(axis=-1).sum()),
        id_switches=identity_switches(distance),
    )


def pooled_scores(matches: Iterable[Matches]) -> PoseScores:
    """Score one recording, or several as if they were one; people of the same number count as one actor."""
    parts = list(matches)
    offsets = np.cumsum([0, *(int(m.true_id.max(initial=-1)) + 1 for m in parts)])
    order = np.argsort(-np.concatenate([m.confidence for m in parts]), kind="stable")
    error_m, known_m, aligned_m, joints = (
        np.concatenate([getattr(m, name) for m in parts])[order]
        for name in ("error_m", "known_m", "aligned_m", "joints")
    )
    true_id = np.concatenate([m.true_id + offset for m, offset in zip(parts, offsets, strict=False)])[order]
    n_true = sum(m.n_true for m in parts)
    found = _first_hits(error_m, true_id, MATCH_M)
    asked = joints[found, 1].sum()
    return PoseScores(
        mpjpe_mm=1000 * _mean(known_m[found]),
        pa_mpjpe_mm=1000 * _mean(aligned_m[found]),
        ap={mm: _average_precision(_first_hits(error_m, true_id, mm / 1000), n_true) for mm in AP_MM},
        recall=len(np.unique(true_id[error_m < MATCH_M])) / n_true if n_true else float("nan"),
        joints=float(joints[found, 0].sum() / asked) if asked else float("nan"),
        id_switches=sum(m.id_switches for m in parts),
        pcp=_pcp(_summed([m.limbs for m in parts]), _summed([m.matched_limbs for m in parts])),
        n_true=n_true,
        n_estimates=len(order),
    )


def pose_confidence(poses: Poses3D) -> np.ndarray:
    """Say how sure each person is at each time, to rank people by.

    The mean over the skeleton's joints of exp(−σ / 0.1 m), σ² being the trace of the joint's covariance; a joint that
    is missing adds nothing, one of unknown covariance counts as 0.1 m uncertain.

    Returns:
        (T, P) in [0, 1].
    """
    sigma_m = np.sqrt(np.maximum(np.trace(poses.cov_m2, axis1=-2, axis2=-1).astype(np.float64), 0.0))
    sureness = np.exp(-np.where(np.isfinite(sigma_m), sigma_m, _UNSURE_M) / _UNSURE_M)
    return np.where(np.isfinite(poses.xyz_m).all(axis=-1), sureness, 0.0).mean(axis=-1)


def named_joints(
    xyz_m: np.ndarray, skeleton: Skeleton, names: Sequence[str], up: str = "z", heads: Heads = "shelf"
) -> np.ndarray:
    """Pick joints by name, and make up those that other joints tell.

    The pelvis is the middle of the hips. The head's two ends ``neck`` and ``head_top`` depend on what the truth means
    by them; with s the middle of the shoulders, e that of the ears, n the nose, d = n − s, and d_up its part along up:

    - ``own``: neither is made.
    - ``plain``: neck = s (Panoptic, OpenPose); no head_top.
    - ``campus``: neck = (s + e) / 2, head_top = 2 e − neck (VoxelPose's ``coco2campus3D``).
    - ``shelf``: neck = s + d / 2, head_top = s + 0.75 d + 0.75 d_up, and a quarter of the way from there to those of
      ``campus`` (VoxelPose's ``coco2shelf3D``, there for z up).

    What cannot be had without ears is made of the nose alone. A set that has both ends itself keeps them; a neck alone
    is kept by ``own`` and ``plain`` only, since it means the shoulders' middle in most sets.

    Args:
        xyz_m: (T, P, J, 3) metres.
        skeleton: The J joints.
        names: The joints wanted.
        up: The world's up axis.
        heads: Which of these.

    Returns:
        (T, P, len(names), 3); NaN where a joint is missing or the set does not tell it.
    """
    at = {name: xyz_m[:, :, index] for index, name in enumerate(skeleton.joint_names)}
    if heads not in ("own", "plain") and not {"neck", "head_top"} <= at.keys():
        at = {name: place for name, place in at.items() if name not in ("neck", "head_top")}
    nowhere = np.full((*xyz_m.shape[:2], 3), np.nan)
    made = {"pelvis": _middle(at, "hip", nowhere), **_head(at, UP_AXES[up], heads, nowhere)}
    return np.stack([at.get(name, made.get(name, nowhere)) for name in names], axis=2)


def _middle(at: Mapping[str, np.ndarray], pair: str, nowhere: np.ndarray) -> np.ndarray:
    return (at.get(f"left_{pair}", nowhere) + at.get(f"right_{pair}", nowhere)) / 2


def _head(at: Mapping[str, np.ndarray], up: np.ndarray, heads: Heads, nowhere: np.ndarray) -> dict[str, np.ndarray]:
    shoulders = _middle(at, "shoulder", nowhere)
    if heads == "own":
        return {}
    if heads == "plain":
        return {"neck": shoulders}
    ears, forth = _middle(at, "ear", nowhere), at.get("nose", nowhere) - shoulders
    by_nose = (shoulders + 0.5 * forth, shoulders + 0.75 * forth + 0.75 * (forth @ up)[..., None] * up)
    bottom = (shoulders + ears) / 2
    weight = 1.0 if heads == "campus" else 0.25
    ends = []
    for of_nose, of_ears in zip(by_nose, (bottom, 2 * ears - bottom), strict=True):
        mixed = of_ears if weight == 1 else (1 - weight) * of_nose + weight * of_ears
        ends.append(np.where(np.isfinite(mixed), mixed, of_nose))
    return {"neck": ends[0], "head_top": ends[1]}


def _supplies(poses: Poses3D, name: str, heads: Heads) -> bool:
    """Tell whether a set of joints has a joint, or tells it, wherever its own joints are known."""
    anywhere = np.zeros((1, 1, len(poses.skeleton), 3))
    return bool(np.isfinite(named_joints(anywhere, poses.skeleton, [name], poses.up, heads)).all())


def _sampled(poses: Poses3D, at_s: np.ndarray, confidence: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return positions (t, P, J, 3) and confidences (t, P) at times (t,); NaN and 0 beyond the poses' own times."""
    out, rank = np.full((len(at_s), *poses.xyz_m.shape[1:]), np.nan), np.zeros((len(at_s), len(poses.person_ids)))
    if len(poses.time_s):
        within = (at_s >= poses.time_s[0] - 1e-6) & (at_s <= poses.time_s[-1] + 1e-6)
        out[within] = at_times(poses, at_s[within])
        rank[within] = confidence[np.searchsorted((poses.time_s[1:] + poses.time_s[:-1]) / 2, at_s[within])]
    return out, rank


def _distances(estimate: np.ndarray, true: np.ndarray) -> np.ndarray:
    """Return the distance (T, P, Q, J) of estimated (T, P, J, 3) and true joints (T, Q, J, 3), pair by pair."""
    out = np.empty((*estimate.shape[:2], *true.shape[1:3]))
    for q in range(true.shape[1]):
        out[:, :, q] = np.linalg.norm(estimate - true[:, q, None], axis=-1)
    return out


def _limb_counts(estimate: np.ndarray, true: np.ndarray, reach: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Count right limbs and limbs of each true person, (A, 10, 2), in all frames and in those where somebody is near.

    Args:
        estimate: (T, P, E, 3) ends of limbs, in the order of ``_ENDS``.
        true: (T, A, E, 3) the same of true people.
        reach: (T, P, A) distance between the two people, metres; infinite for somebody absent.
    """
    T, A = true.shape[:2]
    a, b = (np.array([_ENDS.index(pair[end]) for pair in _PAIRS]) for end in (0, 1))
    length = np.linalg.norm(true[:, :, a] - true[:, :, b], axis=-1)  # (T, A, 10)
    counted = np.isfinite(length)
    right, near = np.zeros(counted.shape, bool), np.zeros((T, A), bool)
    if reach.shape[1]:
        nearest = reach.argmin(axis=1)  # (T, A)
        error = np.linalg.norm(estimate[np.arange(T)[:, None], nearest] - true, axis=-1)
        right = counted & ((error[:, :, a] + error[:, :, b]) / 2 <= ALPHA * length)
        right &= np.isfinite(reach.min(axis=1))[..., None]
        near = reach.min(axis=1) < MATCH_M
    both = np.stack([right, counted], axis=-1)
    return both.sum(axis=0), (both & near[..., None, None]).sum(axis=0)


def _aligned_errors(estimate: np.ndarray, true: np.ndarray) -> np.ndarray:
    """Return the mean error (N,) of poses (N, J, 3) after the best rotation, translation and scale onto the true ones.

    The closed solution of Umeyama (1991), reflections excluded; NaN where fewer than three joints are known.
    """
    known = (np.isfinite(estimate) & np.isfinite(true)).all(axis=-1, keepdims=True)  # (N, J, 1)
    count = np.maximum(known.sum(axis=1, keepdims=True), 1)
    e, t = (np.where(known, x, 0.0) for x in (estimate, true))
    e, t = (np.where(known, x - x.sum(axis=1, keepdims=True) / count, 0.0) for x in (e, t))
    U, strength, Vt = np.linalg.svd(e.transpose(0, 2, 1) @ t)
    handed = np.sign(np.linalg.det(U @ Vt))
    strength[:, 2] *= handed
    U[:, :, 2] *= handed[:, None]
    spread = np.maximum((e**2).sum(axis=(1, 2)), 1e-12)
    moved = (strength.sum(axis=1) / spread)[:, None, None] * (e @ (U @ Vt))
    error = np.where(known[..., 0], np.linalg.norm(moved - t, axis=-1), np.nan)
    return np.where(known.sum(axis=(1, 2)) >= _MIN_PROCRUSTES, mean_known(error), np.nan)


def _first_hits(error_m: np.ndarray, true_id: np.ndarray, within_m: float) -> np.ndarray:
    """Tell of ranked estimates (N,) which are near enough to a true person that none before was near enough to."""
    hits = np.flatnonzero(error_m < within_m)
    first = np.zeros(len(error_m), bool)
    first[hits[np.unique(true_id[hits], return_index=True)[1]]] = True
    return first


def _average_precision(hit: np.ndarray, n_true: int) -> float:
    """Return the area under precision over recall of ranked hits and misses (N,), precision made to fall."""
    if not n_true:
        return float("nan")
    right = np.cumsum(hit)
    precision = right / np.arange(1, len(hit) + 1)
    precision = np.maximum.accumulate(precision[::-1])[::-1]
    return float((precision * hit).sum() / n_true)


def _summed(counts: Sequence[np.ndarray]) -> np.ndarray:
    """Add counts (A, 10, 2) of several recordings, each with its own number of people."""
    total = np.zeros((max(len(c) for c in counts), len(_PAIRS), 2))
    for count in counts:
        total[: len(count)] += count
    return total


def _pcp(limbs: np.ndarray, matched: np.ndarray) -> Pcp | None:
    if not limbs[..., 1].any():
        return None
    groups, at = {}, 0
    for name, pairs in LIMBS.items():
        groups[name] = _mean(_shares(limbs[:, at : at + len(pairs)]))
        at += len(pairs)
    return Pcp(_shares(limbs), _shares(matched), groups)


def _shares(limbs: np.ndarray) -> tuple[float, ...]:
    """Return each person's share (A,) of right limbs of counts (A, L, 2); NaN without any."""
    return tuple(float(right / all_) if all_ else float("nan") for right, all_ in limbs.sum(axis=1))


def _mean(values: Sequence[float] | np.ndarray) -> float:
    return float(mean_known(np.asarray(values, dtype=np.float64)))
