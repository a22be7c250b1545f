"""What a 2D pose detector does to true projections.

Errors are in units of the person's standing height in the image. Their statistics follow Stacked-Hourglass joints
against motion-capture truth in four HD views at 50 Hz (150,000 frames, constant bias removed): a narrow core, heavy
tails, and an autocorrelation of which only a fifth is gone after one frame; the rest is a slow bias that no averaging
over neighbouring frames removes. ``tests/synthetic/test_noise.py`` holds the figures that were measured.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import numpy as np
from scipy.optimize import brentq

from mvpose.skeleton import Skeleton
from mvpose.synthetic.motion import still_motion


@dataclass(frozen=True)
class JointError:
    """How a detector errs at one joint, in units of the person's height in the image.

    Attributes:
        sigma: Standard deviation of either coordinate, from the median absolute deviation (1.4826 MAD).
        over_05: Share of errors longer than 0.05, left–right swaps included.
        over_10: Share of errors longer than 0.1, left–right swaps included.
        swapped: Share of frames in which the joint is taken for its left–right partner.
    """

    sigma: float
    over_05: float
    over_10: float
    swapped: float = 0.0


# Measured (see above), but for the tails of hips and head, which were not given: chosen between shoulder and elbow.
_ERRORS = {
    "wrist": JointError(0.0165, 0.18, 0.09, 0.023),
    "ankle": JointError(0.014, 0.125, 0.07, 0.023),
    "knee": JointError(0.012, 0.11, 0.07, 0.01),
    "elbow": JointError(0.013, 0.09, 0.03, 0.01),
    "shoulder": JointError(0.012, 0.04, 0.01, 0.004),
    "hip": JointError(0.0165, 0.05, 0.012, 0.004),
    "head": JointError(0.02, 0.07, 0.015),
}
_LIKE = {"toe": "ankle", "big_toe": "ankle", "small_toe": "ankle", "heel": "ankle"}
ARM = ("shoulder", "elbow", "wrist")
"""These are swapped together, as are the others."""

# Shares of variance and time constants (s) of the error's Gaussian latent: white, and two Ornstein–Uhlenbeck processes.
# Fitted so that the errors without swaps, after the heavy-tailed mapping below, have the measured autocorrelation.
WHITE_SHARE = 0.08
SLOW_SHARES = np.array([0.12, 0.80])
SLOW_S = np.array([0.066, 1.5])

_LONGEST = 0.5  # heights; a detector places joints within a person's surroundings


@dataclass(frozen=True)
class DetectorNoise:
    """How well the detector works. Shares are of joints or people and frames; holds are mean lengths of an episode.

    Where no source is named, no measurement was at hand and the value is chosen to be plausible.
    """

    scale: float = 1.0  # factor on every error's length; 1: as measured
    swaps: float = 1.0  # factor on the measured left–right swap shares
    swap_hold_s: float = 0.4  # length of a left–right swap, seconds
    missing_joint: float = 0.02  # share of joints not reported
    missing_person: float = 0.01  # share of people not reported
    missing_hold_s: float = 0.2  # length of a dropout, seconds
    occluded_error: float = 2.0  # factor on the error of a joint behind another person
    occluded_missing: float = 0.15  # further share of joints missing where they are behind another person
    occluded_score: float = 0.55  # factor on their score
    score_reach: float = 0.15  # error, in heights, at which the score has fallen to 1/e of a perfect joint's
    score_sigma: float = 0.08  # standard deviation of what in the score tells nothing
    false_people: float = 0.0  # mean number of people per frame who are not there


def apply_noise(
    rng: np.random.Generator,
    noise: DetectorNoise,
    time_s: np.ndarray,
    xy_px: np.ndarray,
    height_px: np.ndarray,
    depth_m: np.ndarray,
    skeleton: Skeleton,
) -> tuple[np.ndarray, np.ndarray]:
    """Turn true projections of one camera into what a detector reports.

    Args:
        rng: Source of randomness.
        noise: How well the detector works.
        time_s: (T,) true times of the frames, seconds, increasing.
        xy_px: (T, P, J, 2) true pixels; NaN where out of view or absent.
        height_px: (T, P) each person's standing height at that distance, pixels.
        depth_m: (T, P) distance along the optical axis, metres; who is nearer hides who is behind.
        skeleton: The joints, in order.

    Returns:
        ``xy_px`` (T, P, J, 2), NaN where missing, and ``score`` (T, P, J) in [0, 1], 0 where missing.
    """
    people_joints = xy_px.shape[1:3]
    hidden = _hidden_joints(xy_px, height_px, depth_m, skeleton)
    error = _errors(rng, time_s, people_joints[0], skeleton) * noise.scale
    error *= np.where(hidden, noise.occluded_error, 1.0)[..., None]
    swapped = _swapped_joints(rng, noise, time_s, people_joints[0], skeleton)
    xy = np.where(swapped[..., None], xy_px[:, :, skeleton.mirrored], xy_px) + error * height_px[..., None, None]

    lost = _held(rng, time_s, noise.missing_hold_s, people_joints)[..., 0]
    unseen = _held(rng, time_s, noise.missing_hold_s, people_joints[:1])[..., 0]
    missing = lost < noise.missing_joint + noise.occluded_missing * hidden
    missing |= (unseen < noise.missing_person + noise.occluded_missing * hidden.mean(axis=-1))[..., None]
    xy[missing] = np.nan

    score = np.exp(-np.linalg.norm(error, axis=-1) / noise.score_reach)
    score *= np.where(hidden, noise.occluded_score, 1.0)
    score = np.clip(0.95 * score + noise.score_sigma * rng.standard_normal(score.shape), 0.02, 1.0)
    return xy, np.where(np.isfinite(xy).all(axis=-1), score, 0.0)


def imagine_people(
    rng: np.random.Generator,
    noise: DetectorNoise,
    time_s: np.ndarray,
    skeleton: Skeleton,
    size_px: tuple[int, int],
) -> tuple[np.ndarray, np.ndarray]:
    """Return false people as a detector finds them in coats and mirrors: still but for jitter, for about a second.

    Returns:
        ``xy_px`` (T, F, J, 2), NaN where there is none, and ``score`` (T, F, J), low.
    """
    slots = int(np.ceil(2 * noise.false_people))
    body = still_motion(rng, 0.1)
    joints = body.xyz_m[0, 0, body.skeleton.indices(skeleton.joint_names)]
    shape = joints[:, [0, 2]] * [1, -1] / body.statures_m()[0]
    presence, where_x, where_y, size = np.moveaxis(_held(rng, time_s, 1.0, (slots,), 4), -1, 0)
    height = size_px[1] * (0.15 + 0.35 * size)
    foot = np.stack([where_x * size_px[0], (0.4 + 0.6 * where_y) * size_px[1]], axis=-1)
    xy = foot[:, :, None] + height[..., None, None] * shape
    xy += 0.02 * height[..., None, None] * rng.standard_normal(xy.shape)
    xy[presence * slots >= noise.false_people] = np.nan
    score = np.clip(0.35 + 0.15 * rng.standard_normal(xy.shape[:-1]), 0.02, 1.0)
    return xy, np.where(np.isfinite(xy).all(axis=-1), score, 0.0)


def joint_errors(skeleton: Skeleton) -> tuple[JointError, ...]:
    """Return how the detector errs at each joint (J,) of a set; the head's figures serve for trunk and face."""
    kinds = [name.removeprefix("left_").removeprefix("right_") for name in skeleton.joint_names]
    return tuple(_ERRORS.get(_LIKE.get(kind, kind), _ERRORS["head"]) for kind in kinds)


def _errors(rng: np.random.Generator, time_s: np.ndarray, people: int, skeleton: Skeleton) -> np.ndarray:
    """Draw errors (T, P, J, 2) in heights: a correlated Gaussian whose length is mapped to the heavy-tailed one.

    The mapping keeps each error's direction and rank (a Gaussian copula), so that both the distribution of its length
    and its correlation in time can be prescribed.
    """
    error = _correlated_gaussian(rng, time_s, (people, len(skeleton), 2))
    length = np.linalg.norm(error, axis=-1)
    for j, kind in enumerate(joint_errors(skeleton)):
        rank, mapped = length_mapping(kind)
        wanted = np.interp(length[:, :, j] ** 2 / 2, rank, mapped)
        error[:, :, j] *= (wanted / np.maximum(length[:, :, j], 1e-12))[..., None]
    return error


def _correlated_gaussian(rng: np.random.Generator, time_s: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """Draw (T, *shape) Gaussians of unit variance: white plus Ornstein–Uhlenbeck, exact at uneven times."""
    many = (slice(None), *(None,) * len(shape))
    kept = np.exp(-np.diff(time_s, prepend=time_s[:1])[:, None] / SLOW_S)  # (T, slow)
    fresh = np.sqrt(1 - kept**2)
    share = np.sqrt(SLOW_SHARES)
    out = np.sqrt(WHITE_SHARE) * rng.standard_normal((len(time_s), *shape))
    state = rng.standard_normal((len(SLOW_S), *shape))
    for k in range(len(time_s)):
        state = kept[k][many] * state + fresh[k][many] * rng.standard_normal(state.shape)
        out[k] += np.tensordot(share, state, axes=1)
    return out


@cache
def length_mapping(kind: JointError) -> tuple[np.ndarray, np.ndarray]:
    """Tabulate the error's length (in heights) against −log of the share of errors that are longer.

    The length's survival is ``(1 − w) exp(−r² / 2σ²) + w exp(−r / λ)``: a Gaussian core and an exponential tail, with w
    and λ from the shares over 0.05 and 0.1 without the swaps, which come on top, and σ such that a coordinate of the
    mixture has the measured median absolute deviation.
    """
    median = 0.6744898 * kind.sigma
    cosine = np.cos((np.arange(256) + 0.5) / 256 * np.pi / 2)

    def survival(r: np.ndarray, core: float, w: float, tail: float) -> np.ndarray:
        return (1 - w) * np.exp(-((r / core) ** 2) / 2) + w * np.exp(-r / tail)

    def fit_tail(core: float) -> tuple[float, float]:
        w = 0.0
        for _ in range(100):  # converges to 1e-12 within 60 for all joints
            beyond = [
                share - kind.swapped - (1 - w) * np.exp(-((r / core) ** 2) / 2)
                for r, share in ((0.05, kind.over_05), (0.1, kind.over_10))
            ]
            tail = 0.05 / np.log(beyond[0] / beyond[1])
            w = (w + beyond[1] * np.exp(0.1 / tail)) / 2
        return w, tail

    def excess(core: float) -> float:
        return float(survival(median / cosine, core, *fit_tail(core)).mean() - 0.5)

    core = brentq(excess, 0.5 * kind.sigma, kind.sigma)
    length = np.linspace(0, _LONGEST, 4001)
    return -np.log(survival(length, core, *fit_tail(core))), length


def _swapped_joints(
    rng: np.random.Generator, noise: DetectorNoise, time_s: np.ndarray, people: int, skeleton: Skeleton
) -> np.ndarray:
    """Tell (T, P, J) which joints are taken for their partner's; a swapped knee's ankle is swapped as well."""
    share = noise.swaps * np.array([kind.swapped for kind in joint_errors(skeleton)])
    arm = np.array([name.rpartition("_")[2] in ARM for name in skeleton.joint_names])
    has_partner = skeleton.mirrored != np.arange(len(skeleton))
    severity = _held(rng, time_s, noise.swap_hold_s, (people, 2))[..., 0]  # legs, arms
    return (severity[:, :, arm.astype(int)] < share) & has_partner


def _held(
    rng: np.random.Generator, time_s: np.ndarray, hold_s: float, shape: tuple[int, ...], values: int = 1
) -> np.ndarray:
    """Draw (T, *shape, values) uniform in [0, 1), kept for exponentially distributed times of mean ``hold_s``."""
    gap = np.diff(time_s, prepend=-np.inf).reshape(-1, *(1,) * len(shape))
    renewed = rng.random((len(time_s), *shape)) < 1 - np.exp(-gap / hold_s)
    frame = np.arange(len(time_s)).reshape(gap.shape)
    last = np.maximum.accumulate(np.where(renewed, frame, 0), axis=0)
    return np.take_along_axis(rng.random((len(time_s), *shape, values)), last[..., None], axis=0)


def _hidden_joints(xy_px: np.ndarray, height_px: np.ndarray, depth_m: np.ndarray, skeleton: Skeleton) -> np.ndarray:
    """Tell (T, P, J) which joints lie behind a nearer person: inside the box of that one's trunk, head to foot."""
    trunk = [j for j, name in enumerate(skeleton.joint_names) if name.endswith(("shoulder", "hip"))] or slice(None)
    x, y = xy_px[..., 0], xy_px[..., 1]
    margin = 0.05 * height_px
    left, right = np.fmin.reduce(x[:, :, trunk], axis=2) - margin, np.fmax.reduce(x[:, :, trunk], axis=2) + margin
    top, bottom = np.fmin.reduce(y, axis=2), np.fmax.reduce(y, axis=2)
    hidden = np.zeros(xy_px.shape[:-1], dtype=bool)
    for behind in range(xy_px.shape[1]):
        for front in range(xy_px.shape[1]):
            nearer = depth_m[:, front] < depth_m[:, behind] - 0.1
            edges = (edge[:, front, None] for edge in (left, right, top, bottom))
            x0, x1, y0, y1 = edges
            inside = (x[:, behind] > x0) & (x[:, behind] < x1) & (y[:, behind] > y0) & (y[:, behind] < y1)
            hidden[:, behind] |= inside & nearer[:, None]
    return hidden
