"""Find out which 2D tracks, in all cameras and at all times, are the same person.

The tracks are sampled at about 10 Hz and cut into pieces of at most a second, more finely where two people overlap in
a view. Evidence between pieces is a log-likelihood ratio, same person against another, and adds up:

- across views: the epipolar distance of their joints in units of its own σ;
- over time: a 2D track that goes on, and 3D positions that continue one another (``mvpose.recon.track``).

Greedy additive edge contraction (Keuper et al., "Efficient decomposition of image and mesh graphs by lifted
multicuts", ICCV 2015) joins the pieces with the strongest evidence first, under the constraint that a person is in a
view only once: first across views within each second, where the evidence is clear, and then everything together. So a
track that a 2D tracker swaps or breaks in one view is mended by the others.
"""

from __future__ import annotations

import heapq
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np

from mvpose.calib.camera import Camera
from mvpose.calib.rig import CameraRig
from mvpose.geometry import essential_matrix, homogeneous, projection_matrices
from mvpose.keypoints import AlignedKeypoints, keypoint_boxes
from mvpose.recon.align import AlignedTracks, Tracklet
from mvpose.recon.track import MAX_LINK_S, TRACKED, TRACKED_THROUGH_CROSSING, Stretch, continuity
from mvpose.recon.triangulate import triangulate_points

MIN_PERSON_S = 0.25
"""A person must be seen by two cameras at once for at least this long."""
MIN_AGREEMENT = 0.6
"""Of a person's joints that two cameras see, at least this share must have a place in 3D; 0.46 were measured where
detectors' inventions met by chance, 0.66 and more for people seen by cameras whose clocks are seconds off."""
MAX_MISFIT_SIGMAS = 8.0
"""A piece whose median distance from its person's 3D joints is larger is left out."""

_SAMPLE_S = 0.1
_WINDOW_S = 1.0
_OVERLAP = 0.3  # share of the smaller box that lies in the other
_DUPLICATE_SIGMAS = 2.5  # median distance of the joints of two tracks on one person
_JUMP_HEIGHTS = 3.0  # a second, in heights: 5 m/s

# Likelihood of an epipolar distance of z σ: N(0, 2) for the same person (calibration and timing add to the detector's
# noise) or anything, 10 %; for another person anything up to about ±75, a body height.
_SAME_SIGMA, _GROSS_SHARE, _OTHER_DENSITY = 2.0, 0.1, 1 / 150
_INDEPENDENT_JOINTS = 4.0  # joints of a body move together, so count as no more
_INDEPENDENT_S = 0.4  # detectors' errors are correlated over about as long
_CLEAR = 6.0  # evidence that joins pieces without regard to time


@dataclass(frozen=True)
class _Views:
    """The tracks at S coarse times; each camera's tracks lie in K slots, at most one track in a slot at a time.

    Attributes:
        sample: (S,) index of each coarse time on the timeline.
        time_s: (S,) seconds.
        x: (S, C, K, J, 2) normalised points; NaN where missing.
        sigma: (S, C, K, J) their σ; NaN where missing.
        tracklet: (S, C, K) index of the tracklet; −1 where none.
        slot: (number of tracklets,) the slot of each.
    """

    sample: np.ndarray
    time_s: np.ndarray
    x: np.ndarray
    sigma: np.ndarray
    tracklet: np.ndarray
    slot: np.ndarray

    @property
    def step_s(self) -> float:
        """Time from sample to sample, seconds."""
        return float(self.time_s[1] - self.time_s[0]) if len(self.time_s) > 1 else _SAMPLE_S


@dataclass(frozen=True)
class _Edges:
    """Evidence between N nodes: ends (E, 2) and log-likelihood ratios (E,); several edges of a pair add up."""

    ends: np.ndarray
    weight: np.ndarray

    def contracted(self, label: np.ndarray) -> _Edges:
        """Return the edges between the groups of nodes that bear the same label (N,)."""
        ends = label[self.ends]
        between = ends[:, 0] != ends[:, 1]
        return _Edges(ends[between], self.weight[between])


def associate(tracks: AlignedTracks, rig: CameraRig) -> AlignedKeypoints:
    """Pair people across cameras and keep their identities over time.

    Args:
        tracks: All cameras' 2D tracks on one timeline.
        rig: Knows all of their cameras.

    Returns:
        Keypoints of each person in each camera. Only people whom two cameras see at once are there, numbered from 0 in
        order of appearance; P is 0 where there is none. What two cameras see of a person is kept for as long as the
        person is followed, also when one camera alone sees it.

    Raises:
        CalibrationError: The rig lacks a camera.
    """
    cameras = rig.subset(tracks.cameras).cameras
    if tracks.tracklets:
        views = _sample(tracks, cameras)
        piece, ambiguous = _cut(views, tracks)
        label = _group(views, piece, ambiguous, tracks, cameras)
        person = _people(views, piece, label, cameras)
        of_sample = np.where(piece >= 0, person[piece], -1)
        return _keypoints(tracks, views, of_sample)
    return _keypoints(tracks, None, None)


# Sampling and cutting


def _sample(tracks: AlignedTracks, cameras: Sequence[Camera]) -> _Views:
    T, J = len(tracks.time_s), len(tracks.skeleton)
    step_s = float(np.median(np.diff(tracks.time_s))) if T > 1 else _SAMPLE_S
    sample = np.arange(0, T, max(1, round(_SAMPLE_S / step_s)))
    slot = _slots(tracks)
    shape = (len(sample), len(cameras), int(slot.max()) + 1)
    x, sigma = np.full((*shape, J, 2), np.nan), np.full((*shape, J), np.nan)
    index = np.full(shape, -1)
    for i, tracklet in enumerate(tracks.tracklets):
        c = tracks.cameras.index(tracklet.camera)
        low, high = np.searchsorted(sample, [tracklet.start, tracklet.stop])
        rows = sample[low:high] - tracklet.start
        x[low:high, c, slot[i]] = cameras[c].undistort(tracklet.xy_px[rows])
        sigma[low:high, c, slot[i]] = tracklet.sigma_px[rows] / cameras[c].focal_px
        index[low:high, c, slot[i]] = i
    return _Views(sample, tracks.time_s[sample], x, sigma, index, slot)


def _slots(tracks: AlignedTracks) -> np.ndarray:
    """Give each tracklet the first slot of its camera that is free from its start on."""
    slot = np.zeros(len(tracks.tracklets), dtype=int)
    free_from: dict[str, list[int]] = {name: [] for name in tracks.cameras}
    for i in sorted(range(len(slot)), key=lambda i: tracks.tracklets[i].start):
        tracklet, free = tracks.tracklets[i], free_from[tracks.tracklets[i].camera]
        slot[i] = next((k for k, stop in enumerate(free) if stop <= tracklet.start), len(free))
        free[slot[i] : slot[i] + 1] = [tracklet.stop]
    return slot


def _cut(views: _Views, tracks: AlignedTracks) -> tuple[np.ndarray, np.ndarray]:
    """Cut the tracks into pieces.

    Returns:
        piece: (S, C, K) number of the piece, in order of camera, slot and time; −1 where none.
        ambiguous: (number of pieces,) whether another person's box overlaps.
    """
    present, overlap = _without_duplicates(views, tracks)
    window = np.floor(views.time_s / _WINDOW_S)[:, None, None]
    new = np.ones(present.shape, dtype=bool)
    tracklet = np.where(present, views.tracklet, -1)
    new[1:] = (tracklet[1:] != tracklet[:-1]) | (window[1:] != window[:-1]) | (overlap[1:] != overlap[:-1])
    new[1:] |= _jumps(views)
    order = (1, 2, 0)
    number = np.cumsum((new & present).transpose(order).ravel()).reshape(np.array(present.shape)[list(order)]) - 1
    piece = np.where(present, number.transpose(2, 0, 1), -1)
    ambiguous = np.zeros(piece.max(initial=-1) + 1, dtype=bool)
    ambiguous[piece[present]] = overlap[present]
    return piece, ambiguous


def _without_duplicates(views: _Views, tracks: AlignedTracks) -> tuple[np.ndarray, np.ndarray]:
    """Find where two tracks of a view are one person, and where two people's boxes overlap.

    Returns:
        present: (S, C, K) true where there is a track, of duplicates only the one with the greater sum of scores.
        overlap: (S, C, K) true where the box of another track overlaps.
    """
    S, C, K = views.tracklet.shape
    present = views.tracklet >= 0
    overlap = np.zeros_like(present)
    strength = np.array([tracklet.score.sum() for tracklet in tracks.tracklets])[views.tracklet]
    box = keypoint_boxes(views.x.reshape(S * C * K, -1, 2)).reshape(S, C, K, 4)
    area = (box[..., 2] - box[..., 0]) * (box[..., 3] - box[..., 1])
    for k, m in combinations(range(K), 2):
        both = present[:, :, k] & present[:, :, m]
        if not both.any():
            continue
        distance = np.linalg.norm(views.x[:, :, k] - views.x[:, :, m], axis=-1)[both]
        near = distance < _DUPLICATE_SIGMAS * np.hypot(views.sigma[:, :, k], views.sigma[:, :, m])[both]
        common = np.isfinite(distance).sum(axis=-1)
        same = np.zeros_like(both)
        same[both] = (common >= 3) & (near.sum(axis=-1) > 0.5 * common)
        weaker_k = strength[:, :, k] < strength[:, :, m]
        present[:, :, k] &= ~(same & weaker_k)
        present[:, :, m] &= ~(same & ~weaker_k)
        side = np.minimum(box[:, :, k, 2:], box[:, :, m, 2:]) - np.maximum(box[:, :, k, :2], box[:, :, m, :2])
        shared = np.where(both, np.maximum(side, 0).prod(axis=-1), 0.0)
        hit = shared > _OVERLAP * np.where(both, np.minimum(area[:, :, k], area[:, :, m]), 1.0)
        overlap[:, :, k] |= hit
        overlap[:, :, m] |= hit
    return present, overlap


def _jumps(views: _Views) -> np.ndarray:
    """Tell (S − 1, C, K) whether most joints of a slot moved further in one sample than a person can."""
    height = np.diff(keypoint_boxes(views.x.reshape(-1, *views.x.shape[3:]))[:, 1::2], axis=1)[:, 0]
    limit = _JUMP_HEIGHTS * views.step_s * height.reshape(views.tracklet.shape)[:-1, ..., None]
    moved = np.linalg.norm(np.diff(views.x, axis=0), axis=-1)
    common = np.isfinite(moved)
    far = common & (moved > np.where(common, limit, np.inf))
    return far.sum(axis=-1) > 0.5 * common.sum(axis=-1)


# Evidence


def _across_views(views: _Views, piece: np.ndarray, cameras: Sequence[Camera]) -> _Edges:
    """Compare all pieces of different views over the samples that they share."""
    ends: list[np.ndarray] = [np.zeros((0, 2), dtype=int)]
    weight: list[np.ndarray] = [np.zeros(0)]
    count = piece.max(initial=-1) + 1
    point = homogeneous(views.x)
    for a, b in combinations(range(len(cameras)), 2):
        E = essential_matrix(cameras[a], cameras[b])
        line_b, line_a = point[:, a] @ E.T, point[:, b] @ E  # (S, K, J, 3)
        variance_b = (views.sigma[:, b] ** 2)[:, None] * (line_b[..., :2] ** 2).sum(-1)[:, :, None]
        variance_a = (views.sigma[:, a] ** 2)[:, :, None] * (line_a[..., :2] ** 2).sum(-1)[:, None]
        algebraic = np.einsum("skji,slji->sklj", line_b, point[:, b])
        z2 = algebraic**2 / (variance_a + variance_b)  # (S, K, K, J)
        common = np.isfinite(z2)
        n = common.sum(axis=-1)
        ratio = np.where(common, _log_ratio(np.where(common, z2, 0.0)), 0.0).sum(axis=-1)
        ratio *= np.minimum(n, _INDEPENDENT_JOINTS) / np.maximum(n, 1)
        valid = (n >= 3) & (piece[:, a, :, None] >= 0) & (piece[:, b, None, :] >= 0)
        key = (piece[:, a, :, None] * count + piece[:, b, None, :])[valid]
        pair, which = np.unique(key, return_inverse=True)
        ends.append(np.stack([pair // count, pair % count], axis=1))
        weight.append(np.bincount(which, ratio[valid], minlength=len(pair)) * views.step_s / _INDEPENDENT_S)
    return _Edges(np.concatenate(ends), np.concatenate(weight))


def _log_ratio(z2: np.ndarray) -> np.ndarray:
    same = np.exp(-0.5 * z2 / _SAME_SIGMA**2) / (np.sqrt(2 * np.pi) * _SAME_SIGMA)
    return np.log((1 - _GROSS_SHARE) * same / _OTHER_DENSITY + _GROSS_SHARE)


def _along_tracks(views: _Views, piece: np.ndarray, ambiguous: np.ndarray, tracks: AlignedTracks) -> _Edges:
    """Link each piece to the next one of the same 2D track, if that follows soon."""
    first, last = _extents(piece, len(ambiguous))
    where = np.unravel_index(first[:, 0], piece.shape)
    tracklet = views.tracklet[where]
    camera = where[1]
    track_id = np.array([t.track_id for t in tracks.tracklets])[tracklet]
    start = first[:, 1]
    order = np.lexsort((start, track_id, camera))
    one, two = order[:-1], order[1:]
    gap_s = views.time_s[start[two]] - views.time_s[last[one]]
    linked = (camera[one] == camera[two]) & (track_id[one] == track_id[two]) & (gap_s <= MAX_LINK_S)
    smooth = ~ambiguous[one] & ~ambiguous[two] & (start[two] == last[one] + 1) & (tracklet[one] == tracklet[two])
    moved = _jumps(views)[np.maximum(start[two] - 1, 0), camera[two], views.slot[tracklet[two]]]
    weight = np.where(smooth & ~moved, TRACKED, np.where(moved & smooth, 0.0, TRACKED_THROUGH_CROSSING))
    return _Edges(np.stack([one, two], axis=1)[linked], weight[linked])


def _extents(piece: np.ndarray, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Return each piece's first flat index and first sample (N, 2), and its last sample (N,)."""
    flat = np.flatnonzero(piece.ravel() >= 0)
    number = piece.ravel()[flat]
    sample = flat // (piece.shape[1] * piece.shape[2])
    first = np.zeros((count, 2), dtype=int)
    last = np.zeros(count, dtype=int)
    first[number[::-1]] = np.stack([flat, sample], axis=1)[::-1]
    last[number] = sample
    return first, last


def _along_motion(views: _Views, piece: np.ndarray, label: np.ndarray, cameras: Sequence[Camera]) -> _Edges:
    """Link groups of pieces whose 3D positions continue one another."""
    stretches = _stretches(views, piece, label, cameras)
    begin = np.array([s.time_s[0] for s in stretches.values()])
    names = np.array(list(stretches), dtype=int)
    order = np.argsort(begin, kind="stable")
    begin, names = begin[order], names[order]
    ends, weight = [], []
    for name, stretch in stretches.items():
        end = stretch.time_s[-1]
        low, high = np.searchsorted(begin, [end, end + MAX_LINK_S], side="right")
        for other in names[low:high]:
            ends.append((name, other))
            weight.append(continuity(stretch, stretches[other]))
    return _Edges(np.array(ends, dtype=int).reshape(-1, 2), np.array(weight))


def _stretches(views: _Views, piece: np.ndarray, label: np.ndarray, cameras: Sequence[Camera]) -> dict[int, Stretch]:
    """Triangulate each group that at least two cameras see."""
    group = np.where(piece >= 0, label[piece], -1)
    xyz, names, _ = _triangulate_groups(views, group, cameras)
    found = np.isfinite(xyz).all(axis=-1).any(axis=-1)  # (S, Q)
    result: dict[int, Stretch] = {}
    s, q = np.nonzero(found)
    name = names[s, q]
    order = np.lexsort((s, name))
    s, q, name = s[order], q[order], name[order]
    for rows in np.split(np.arange(len(name)), np.flatnonzero(np.diff(name)) + 1):
        if len(rows):
            result[int(name[rows[0]])] = Stretch(views.time_s[s[rows]], xyz[s[rows], q[rows]])
    return result


def _triangulate_groups(
    views: _Views, group: np.ndarray, cameras: Sequence[Camera]
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Triangulate the groups present at each sample.

    Args:
        views: The observations.
        group: (S, C, K) the group of each; −1 leaves it out. A group is in a camera once at a time.
        cameras: (C,) cameras.

    Returns:
        xyz: (S, Q, J, 3) metres, the groups of each sample packed into Q places; NaN where missing.
        names: (S, Q) which group is in each place; −1 where none.
        shared: (S, Q, J) whether at least two cameras see the joint.
    """
    S, C, _ = group.shape
    J = views.x.shape[3]
    s, c, k = np.nonzero(group >= 0)
    key = s * (group.max(initial=0) + 1) + group[s, c, k]
    here, which = np.unique(key, return_inverse=True)
    sample, name = here // (group.max(initial=0) + 1), here % (group.max(initial=0) + 1)
    place = np.arange(len(here)) - np.searchsorted(sample, sample)
    Q = int(place.max(initial=-1)) + 1
    names = np.full((S, Q), -1)
    names[sample, place] = name
    x, sigma = np.full((S, Q, J, C, 2), np.nan), np.full((S, Q, J, C), np.nan)
    x[s, place[which], :, c] = views.x[s, c, k]
    sigma[s, place[which], :, c] = views.sigma[s, c, k]
    points = triangulate_points(projection_matrices(cameras), x.reshape(-1, C, 2), sigma.reshape(-1, C))
    return points.xyz_m.reshape(S, Q, J, 3), names, np.isfinite(sigma).sum(axis=-1) >= 2


# Grouping


def _group(
    views: _Views, piece: np.ndarray, ambiguous: np.ndarray, tracks: AlignedTracks, cameras: Sequence[Camera]
) -> np.ndarray:
    """Return a label for each piece: the same one for all pieces of a person."""
    across = _across_views(views, piece, cameras)
    along = _along_tracks(views, piece, ambiguous, tracks)
    occupied = _occupancy(piece, len(ambiguous))
    moment = _contract(across, occupied, _CLEAR)
    motion = _along_motion(views, piece, moment, cameras)
    joined = [0] * (int(moment.max(initial=-1)) + 1)
    for node, name in enumerate(moment):
        joined[name] |= occupied[node]
    everything = [across.contracted(moment), along.contracted(moment), motion]
    edges = _Edges(np.concatenate([e.ends for e in everything]), np.concatenate([e.weight for e in everything]))
    return _contract(edges, joined, 0.0)[moment]


def _occupancy(piece: np.ndarray, count: int) -> list[int]:
    """Return for each piece a set of bits, one for each sample and camera that it is in."""
    occupied = [0] * count
    C = piece.shape[1]
    for s, c, k in zip(*np.nonzero(piece >= 0), strict=True):
        occupied[piece[s, c, k]] |= 1 << int(s * C + c)
    return occupied


def _contract(edges: _Edges, occupied: Sequence[int], threshold: float) -> np.ndarray:
    """Join nodes along the edge of most evidence, again and again, while it exceeds a threshold.

    Args:
        edges: Evidence between the nodes; edges of joined nodes add up.
        occupied: Bits of each of the N nodes; nodes that share a bit are never joined.
        threshold: Evidence needed.

    Returns:
        (N,) labels from 0 on.
    """
    occupied = list(occupied)
    beside: list[dict[int, float]] = [{} for _ in occupied]
    for (a, b), weight in zip(edges.ends.tolist(), edges.weight.tolist(), strict=True):
        if not occupied[a] & occupied[b]:
            beside[a][b] = beside[b][a] = beside[a].get(b, 0.0) + weight
    parent = np.arange(len(occupied))
    queue = [(-w, a, b) for a, near in enumerate(beside) for b, w in near.items() if a < b and w > threshold]
    heapq.heapify(queue)
    while queue:
        negative, a, b = heapq.heappop(queue)
        if beside[a].get(b) != -negative:
            continue
        if len(beside[a]) < len(beside[b]):
            a, b = b, a
        parent[b] = a
        occupied[a] |= occupied[b]
        for other, weight in beside[b].items():
            del beside[other][b]
            if other != a:
                beside[a][other] = beside[other][a] = beside[a].get(other, 0.0) + weight
        beside[b] = {}
        for other in [other for other in beside[a] if occupied[a] & occupied[other]]:
            del beside[a][other], beside[other][a]
        for other, weight in beside[a].items():
            if weight > threshold:
                heapq.heappush(queue, (-weight, min(a, other), max(a, other)))
    while (parent != parent[parent]).any():
        parent = parent[parent]
    return np.unique(parent, return_inverse=True)[1]


# People


def _people(views: _Views, piece: np.ndarray, label: np.ndarray, cameras: Sequence[Camera]) -> np.ndarray:
    """Return the person (N,) of each piece, numbered in order of appearance; −1 where it is none's."""
    group = np.where(piece >= 0, label[piece], -1)
    xyz, names, shared = _triangulate_groups(views, group, cameras)
    fits = _misfit(views, piece, group, xyz, names, cameras, len(label)) <= MAX_MISFIT_SIGMAS
    joints = np.isfinite(xyz).all(axis=-1)
    found = joints.sum(axis=-1) >= 3  # (S, Q)
    groups = int(label.max(initial=-1)) + 1
    lasting = np.bincount(names[found], minlength=groups) * views.step_s >= MIN_PERSON_S
    there = names >= 0
    agreeing, asked = (
        np.bincount(names[there], count.sum(axis=-1)[there], minlength=groups) for count in (joints, shared)
    )
    accepted = lasting & (agreeing >= MIN_AGREEMENT * asked)
    first = np.full(groups, len(found))
    np.minimum.at(first, names[found], np.nonzero(found)[0])
    where = np.zeros(groups)
    s, q = np.nonzero(found & (names >= 0))
    at_first = s == first[names[s, q]]
    where[names[s, q][at_first]] = np.nanmean(xyz[s, q][at_first][..., 0], axis=-1)
    order = np.lexsort((where, first))
    person = np.full(groups, -1)
    kept = order[accepted[order]]
    person[kept] = np.arange(len(kept))
    return np.where(fits, person[label], -1)


def _misfit(
    views: _Views,
    piece: np.ndarray,
    group: np.ndarray,
    xyz: np.ndarray,
    names: np.ndarray,
    cameras: Sequence[Camera],
    count: int,
) -> np.ndarray:
    """Return each piece's median distance (N,) from the 3D joints of its group, in σ; 0 where there are none."""
    place = (names[:, None, None, :] == group[..., None]).argmax(axis=-1)  # (S, C, K)
    median = np.zeros(count)
    s, c, k = np.nonzero(group >= 0)
    P = projection_matrices(cameras)[c]
    cam = np.einsum("nik,njk->nji", P[:, :, :3], xyz[s, place[s, c, k]]) + P[:, None, :, 3]
    with np.errstate(invalid="ignore", divide="ignore"):
        miss = np.linalg.norm(cam[..., :2] / cam[..., 2:] - views.x[s, c, k], axis=-1) / views.sigma[s, c, k]
        miss = np.where(cam[..., 2] > 0, miss, np.where(np.isnan(cam[..., 2]), np.nan, np.inf))
    number = np.repeat(piece[s, c, k], miss.shape[1])
    miss = miss.ravel()
    known = ~np.isnan(miss)
    number, miss = number[known], miss[known]
    order = np.lexsort((miss, number))
    number, miss = number[order], miss[order]
    low, high = np.searchsorted(number, np.arange(count)), np.searchsorted(number, np.arange(count), side="right")
    some = high > low
    median[some] = miss[(low[some] + high[some] - 1) // 2]
    return median


def _keypoints(tracks: AlignedTracks, views: _Views | None, person: np.ndarray | None) -> AlignedKeypoints:
    """Lay the tracklets' samples out by person; person (S, C, K) holds at the coarse samples."""
    people = 0 if person is None else int(person.max(initial=-1)) + 1
    shape = (len(tracks.time_s), len(tracks.cameras), people, len(tracks.skeleton))
    xy, score, sigma = np.full((*shape, 2), np.nan), np.zeros(shape), np.full(shape, np.nan)
    if views is not None and person is not None:
        for i, tracklet in enumerate(tracks.tracklets):
            c = tracks.cameras.index(tracklet.camera)
            low, high = np.searchsorted(views.sample, [tracklet.start, tracklet.stop])
            if low == high:
                continue
            at = np.arange(tracklet.start, tracklet.stop)
            who = _between_samples(tracklet, person[low:high, c, views.slot[i]], views.sample[low:high])
            kept = who >= 0
            xy[at[kept], c, who[kept]] = tracklet.xy_px[kept]
            score[at[kept], c, who[kept]] = tracklet.score[kept]
            sigma[at[kept], c, who[kept]] = tracklet.sigma_px[kept]
    return AlignedKeypoints(tracks.cameras, tracks.time_s, xy, score, sigma, np.arange(people), tracks.skeleton)


def _between_samples(tracklet: Tracklet, person: np.ndarray, sample: np.ndarray) -> np.ndarray:
    """Carry a tracklet's person from coarse samples (s,) to all of its own (n,).

    Where the person changes between two of them, it does so at the greatest jump of the joints in between.
    """
    starts = np.full(len(person), tracklet.start)
    starts[1:] = (sample[:-1] + sample[1:] + 1) // 2
    for change in np.flatnonzero(np.diff(person)) + 1:
        low, high = sample[change - 1] - tracklet.start, sample[change] - tracklet.start
        step = np.linalg.norm(np.diff(tracklet.xy_px[low : high + 1], axis=0), axis=-1)
        jump = np.where(np.isfinite(step), step, 0.0).sum(axis=1)
        starts[change] = sample[change - 1] + 1 + jump.argmax()
    return np.repeat(person, np.diff(np.append(starts, tracklet.stop)))
