"""Find out which 2D tracks, in all cameras and at all times, are the same person.

The tracks are sampled at about 10 Hz and cut into pieces of at most half a second, more finely where two people
overlap in a view or a track jumps. Evidence between pieces is a log-likelihood ratio, same person against another, and
adds up:

- across views: the epipolar distance of their joints in units of its own σ;
- over time: a 2D track that goes on, and 3D positions that continue one another (``mvpose.recon.track``).

Greedy additive edge contraction (Keuper et al., "Efficient decomposition of image and mesh graphs by lifted
multicuts", ICCV 2015) joins the pieces with the strongest evidence first, under the constraint that a person is in a
view only once: first across views within each half second, where the evidence is clear, and then everything together.
So a track that a 2D tracker swaps or breaks in one view is mended by the others. At last, people who were lost from
sight altogether are taken for those who appear where they can have gone.
"""

from __future__ import annotations

import heapq
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np

from mvpose.calib.camera import Camera
from mvpose.calib.rig import CameraRig
from mvpose.geometry import essential_matrix, homogeneous, projection_matrices
from mvpose.keypoints import AlignedKeypoints, keypoint_boxes
from mvpose.recon.align import AlignedTracks, Tracklet, slots_of
from mvpose.recon.track import MAX_LINK_S, TRACKED, TRACKED_THROUGH_CROSSING, Stretch, continuity
from mvpose.recon.triangulate import triangulate_points
from mvpose.skeleton import Skeleton

log = logging.getLogger(__name__)

MIN_EVIDENCE = 45.0
"""Log-likelihood ratio of all pairs of views of a person, together, over all time, beyond what chance gathers. Two
views that agree on one of two people gather about 20 a second, four 130. People whom detectors' inventions made up by
chance reached 40 (11 synthetic recordings of 8 to 15 s, 2 to 20 inventions a frame and view, by which this was chosen);
of eight others, with 20 inventions, one kept a person of 3 s."""
MAX_MISFIT_SIGMAS = 8.0
"""A piece is left out if its median distance from its person's 3D joints is larger, left and right exchanged or not."""

_SAMPLE_S = 0.1
_WINDOW_S = 0.5
_OVERLAP = 0.3  # share of the smaller box that lies in the other
_DUPLICATE_SIGMAS = 2.5  # median distance of the joints of two tracks on one person
_JUMP_HEIGHTS, _JUMP_HEIGHTS_PER_S = 0.05, 1.5  # 2.6 m/s on top of the detector's noise

# Likelihood of an epipolar distance of z σ: N(0, 2) for the same person (calibration and timing add to the detector's
# noise) or anything, 10 %; for another person anything up to about ±75, a body height.
_SAME_SIGMA, _GROSS_SHARE, _OTHER_DENSITY = 2.0, 0.1, 1 / 150
_INDEPENDENT_JOINTS = 4.0  # joints of a body move together, so count as no more
_INDEPENDENT_S = 0.4  # detectors' errors are correlated over about as long
_CLEAR = 5.0  # evidence that joins pieces without regard to time
_FEW = 0.25  # of what a camera sees; less is a sign that something is wrong with it
_RETURN = 3.0  # log-odds that who appears is somebody who was lost from sight rather than somebody new
_NEXT_S = 0.75  # what begins within this time may be what went on, beside what 2D tracks say


@dataclass(frozen=True)
class _Views:
    """The tracks at S coarse times; each camera's tracks lie in K slots, at most one track in a slot at a time.

    Attributes:
        sample: (S,) index of each coarse time on the timeline.
        time_s: (S,) seconds.
        x: (S, C, K, J, 2) normalised points; NaN where missing.
        sigma: (S, C, K, J) their σ; NaN where missing.
        tracklet: (S, C, K) index of the tracklet; −1 where none.
        jumped: (S, C, K) whether the tracklet jumped since the sample before.
        slot: (number of tracklets,) the slot of each.
    """

    sample: np.ndarray
    time_s: np.ndarray
    x: np.ndarray
    sigma: np.ndarray
    tracklet: np.ndarray
    jumped: np.ndarray
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
        joined = _Edges(label[self.ends], self.weight)
        return joined.only(joined.ends[:, 0] != joined.ends[:, 1])

    def only(self, kept: np.ndarray) -> _Edges:
        """Return the edges for which kept (E,) is true."""
        return _Edges(self.ends[kept], self.weight[kept])

    @staticmethod
    def all(edges: Sequence[_Edges]) -> _Edges:
        """Return the edges of several kinds of evidence."""
        return _Edges(np.concatenate([e.ends for e in edges]), np.concatenate([e.weight for e in edges]))


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
    people = _people(tracks, cameras) if tracks.tracklets else []
    warn_of_strangers(tracks, people)
    return _by_person(tracks, people)


def warn_of_strangers(tracks: AlignedTracks, people: Sequence[np.ndarray]) -> None:
    """Name cameras of whose people most are nobody whom others see, if there is anybody: so look wrong ones.

    Args:
        tracks: All cameras' 2D tracks.
        people: Whom each tracklet shows at each of its samples (n,); −1 for nobody.
    """
    owned = dict.fromkeys(tracks.cameras, 0)
    seen = dict.fromkeys(tracks.cameras, 0)
    for tracklet, person in zip(tracks.tracklets, people, strict=False):
        owned[tracklet.camera] += int((person >= 0).sum())
        seen[tracklet.camera] += len(person)
    for name in tracks.cameras:
        if any(owned.values()) and seen[name] and owned[name] < _FEW * seen[name]:
            log.warning(
                "%s: only %.0f %% of the people found in it fit those whom others see; check its calibration, its "
                "clock, and whether the detector takes things for people",
                name,
                100 * owned[name] / seen[name],
            )


def _people(tracks: AlignedTracks, cameras: Sequence[Camera]) -> list[np.ndarray]:
    """Return for each tracklet who it shows at each of its samples (n,): people from 0 on, −1 for nobody."""
    views = _sample(tracks, cameras)
    piece, ambiguous = _cut(views, tracks)
    across = _across_views(views, piece, cameras)
    along = _along_tracks(views, piece, ambiguous, tracks)
    proof = _beyond_chance(across, piece)
    label = _group(views, piece, across, along, proof, cameras)
    number, fits = _accept(views, piece, label, proof, cameras, tracks.skeleton)
    return _at_all_times(tracks, views, np.append(np.where(fits, number[label], -1), -1)[piece])


def judge(tracks: AlignedTracks, people: Sequence[np.ndarray], rig: CameraRig) -> tuple[np.ndarray, list[np.ndarray]]:
    """Judge people who were found by other means as ``associate`` judges those whom it finds.

    Args:
        tracks: All cameras' 2D tracks on one timeline.
        people: Whom each tracklet shows at each of its samples (n,): one of P people, or −1 for nobody. Nobody is in a
            view twice at a time.
        rig: Knows all of their cameras.

    Returns:
        number: (P,) from 0 on in order of appearance; −1 for those in whom the evidence does not reach
            ``MIN_EVIDENCE``.
        people: Whom of those numbers each tracklet shows, −1 also where it does not fit (``MAX_MISFIT_SIGMAS``).

    Raises:
        CalibrationError: The rig lacks a camera.
    """
    cameras = rig.subset(tracks.cameras).cameras
    count = max((int(own.max(initial=-1)) + 1 for own in people), default=0)
    if not count:
        return np.zeros(0, dtype=int), [np.full(len(own), -1) for own in people]
    views = _sample(tracks, cameras)
    person = np.full(views.tracklet.shape, -1)
    for i, (tracklet, own) in enumerate(zip(tracks.tracklets, people, strict=True)):
        low, high = np.searchsorted(views.sample, [tracklet.start, tracklet.stop])
        at = (slice(low, high), tracks.cameras.index(tracklet.camera), views.slot[i])
        person[at] = own[views.sample[low:high] - tracklet.start]
    if not (person >= 0).any():
        return np.full(count, -1), [np.full(len(own), -1) for own in people]
    piece = _numbered(views, views.tracklet >= 0, person)
    label = np.full(int(piece.max(initial=-1)) + 1, -1)
    label[piece[person >= 0]] = person[person >= 0]
    proof = _beyond_chance(_across_views(views, piece, cameras), piece)
    number, fits = _accept(views, piece, label, proof, cameras, tracks.skeleton)
    number = np.append(number, np.full(count + 1 - len(number), -1))  # label −1 is the last
    return number[:count], _at_all_times(tracks, views, np.append(np.where(fits, number[label], -1), -1)[piece])


def _at_all_times(tracks: AlignedTracks, views: _Views, person: np.ndarray) -> list[np.ndarray]:
    """Return for each tracklet who it shows at each of its samples (n,), from who (S, C, K) it is at coarse times."""
    people = []
    for i, tracklet in enumerate(tracks.tracklets):
        low, high = np.searchsorted(views.sample, [tracklet.start, tracklet.stop])
        own = person[low:high, tracks.cameras.index(tracklet.camera), views.slot[i]]
        people.append(_between_samples(tracklet, own, views.sample[low:high]))
    return people


# Sampling and cutting


def _sample(tracks: AlignedTracks, cameras: Sequence[Camera]) -> _Views:
    T, J = len(tracks.time_s), len(tracks.skeleton)
    step_s = float(np.median(np.diff(tracks.time_s))) if T > 1 else _SAMPLE_S
    sample = np.arange(0, T, max(1, round(_SAMPLE_S / step_s)))
    slot = slots_of(tracks)
    shape = (len(sample), len(cameras), int(slot.max()) + 1)
    x, sigma = np.full((*shape, J, 2), np.nan), np.full((*shape, J), np.nan)
    index, jumped = np.full(shape, -1), np.zeros(shape, dtype=bool)
    for i, tracklet in enumerate(tracks.tracklets):
        c = tracks.cameras.index(tracklet.camera)
        low, high = np.searchsorted(sample, [tracklet.start, tracklet.stop])
        rows = sample[low:high] - tracklet.start
        x[low:high, c, slot[i]] = cameras[c].undistort(tracklet.xy_px[rows])
        sigma[low:high, c, slot[i]] = tracklet.sigma_px[rows] / cameras[c].focal_px
        index[low:high, c, slot[i]] = i
        jumps = np.concatenate([[0], np.cumsum(_jumps(tracklet, step_s))])[rows]
        jumped[low + 1 : high, c, slot[i]] = np.diff(jumps) > 0
    return _Views(sample, tracks.time_s[sample], x, sigma, index, jumped, slot)


def _cut(views: _Views, tracks: AlignedTracks) -> tuple[np.ndarray, np.ndarray]:
    """Cut the tracks into pieces.

    Returns:
        piece: (S, C, K) number of the piece, in order of camera, slot and time; −1 where none.
        ambiguous: (number of pieces,) whether another person's box overlaps.
    """
    present, overlap = _without_duplicates(views, tracks)
    piece = _numbered(views, present, overlap)
    ambiguous = np.zeros(piece.max(initial=-1) + 1, dtype=bool)
    ambiguous[piece[present]] = overlap[present]
    return piece, ambiguous


def _numbered(views: _Views, present: np.ndarray, state: np.ndarray) -> np.ndarray:
    """Cut what is present (S, C, K) where tracks end or jump, windows end, and its state (S, C, K) changes.

    Returns:
        (S, C, K) number of the piece, in order of camera, slot and time; −1 where none.
    """
    window = np.broadcast_to(np.floor(views.time_s / _WINDOW_S)[:, None, None], present.shape)
    new = views.jumped.copy()
    new[0] = True
    for change in (np.where(present, views.tracklet, -1), window, state):
        new[1:] |= change[1:] != change[:-1]
    order = (1, 2, 0)
    number = np.cumsum((new & present).transpose(order).ravel()).reshape(np.array(present.shape)[list(order)]) - 1
    return np.where(present, number.transpose(2, 0, 1), -1)


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


def _jumps(tracklet: Tracklet, step_s: float) -> np.ndarray:
    """Tell (n − 1,) from sample to sample whether most joints moved further than a whole person does."""
    moved = np.linalg.norm(np.diff(tracklet.xy_px, axis=0), axis=-1)
    common = np.isfinite(moved)
    limit = tracklet.height_px[:-1] * (_JUMP_HEIGHTS + _JUMP_HEIGHTS_PER_S * step_s)
    far = np.where(common, moved, 0.0) > limit[:, None]
    return far.sum(axis=1) > 0.5 * common.sum(axis=1)


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
    moved = views.jumped[start[two], camera[two], views.slot[tracklet[two]]]
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


def _along_motion(
    views: _Views, piece: np.ndarray, label: np.ndarray, cameras: Sequence[Camera], longest_s: float
) -> _Edges:
    """Link groups of pieces whose 3D positions continue one another after at most ``longest_s``."""
    stretches = _stretches(views, piece, label, cameras)
    names = np.array(sorted(stretches, key=lambda name: float(stretches[name].time_s[0])), dtype=int)
    begin = np.array([stretches[name].time_s[0] for name in names])
    ends = []
    for name, stretch in stretches.items():
        low, high = np.searchsorted(begin, stretch.time_s[-1] + np.array([0.0, longest_s]), side="right")
        ends += [(name, other) for other in names[low:high].tolist()]
    weight = continuity([stretches[a] for a, _ in ends], [stretches[b] for _, b in ends])
    return _Edges(np.array(ends, dtype=int).reshape(-1, 2), weight)


def _stretches(views: _Views, piece: np.ndarray, label: np.ndarray, cameras: Sequence[Camera]) -> dict[int, Stretch]:
    """Triangulate each group that at least two cameras see."""
    group = np.append(label, -1)[piece]
    xyz, names = _triangulate_groups(views, group, cameras)
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


def _triangulate_groups(views: _Views, group: np.ndarray, cameras: Sequence[Camera]) -> tuple[np.ndarray, np.ndarray]:
    """Triangulate the groups present at each sample.

    Args:
        views: The observations.
        group: (S, C, K) the group of each; −1 leaves it out. A group is in a camera once at a time.
        cameras: (C,) cameras.

    Returns:
        xyz: (S, Q, J, 3) metres, the groups of each sample packed into Q places; NaN where missing.
        names: (S, Q) which group is in each place; −1 where none.
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
    return points.xyz_m.reshape(S, Q, J, 3), names


# Grouping


def _group(
    views: _Views, piece: np.ndarray, across: _Edges, along: _Edges, proof: _Edges, cameras: Sequence[Camera]
) -> np.ndarray:
    """Return a label for each piece: the same one for all pieces of a person."""
    occupied = _occupancy(piece)
    moment = _contract(across, occupied, _CLEAR)
    motion = _along_motion(views, piece, moment, cameras, _NEXT_S)
    edges = _Edges.all([across.contracted(moment), along.contracted(moment), motion])
    label = _contract(edges, _joined(occupied, moment), 0.0)[moment]
    lost = _along_motion(views, piece, label, cameras, MAX_LINK_S)
    sure = _evidence(label, proof) >= MIN_EVIDENCE  # or inventions here and there would add up to a person
    lost = lost.only(sure[lost.ends].all(axis=1))
    return _followed(lost, _joined(occupied, label), -_RETURN)[label]


def _beyond_chance(across: _Edges, piece: np.ndarray) -> _Edges:
    """Take off what the best of all pairs that two views offer at a time gathers by chance: log of their number."""
    s, c, k = np.nonzero(piece >= 0)
    crowd = np.ones(int(piece.max(initial=-1)) + 1)  # people whom the piece's camera sees at the time
    np.maximum.at(crowd, piece[s, c, k], (piece >= 0).sum(axis=2)[s, c])
    return _Edges(across.ends, across.weight - np.log(crowd[across.ends]).sum(axis=1))


def _evidence(label: np.ndarray, edges: _Edges) -> np.ndarray:
    """Return for each label from 0 on the evidence that all edges within it add up to."""
    within = (label[edges.ends[:, 0]] == label[edges.ends[:, 1]]) & (label[edges.ends[:, 0]] >= 0)
    groups = int(label.max(initial=-1)) + 1
    return np.bincount(label[edges.ends[within, 0]], edges.weight[within], minlength=groups)


def _followed(edges: _Edges, occupied: Sequence[int], threshold: float) -> np.ndarray:
    """Let each group go on as at most one later one, pairs of most evidence first, while it exceeds a threshold.

    Args:
        edges: Evidence that the second end is the first one's next appearance. Unlike that of contractions it does not
            add up: what a person did before the last appearance tells nothing more.
        occupied: Bits of each of the N groups; groups that share a bit are never joined.
        threshold: Evidence needed.

    Returns:
        (N,) labels from 0 on.
    """
    bits, label = list(occupied), np.arange(len(occupied))
    led, followed = np.zeros(len(bits), dtype=bool), np.zeros(len(bits), dtype=bool)
    for edge in np.argsort(-edges.weight, kind="stable"):
        (a, b), weight = edges.ends[edge], edges.weight[edge]
        one, two = label[a], label[b]
        if weight > threshold and not (led[a] or followed[b] or bits[one] & bits[two]):
            led[a] = followed[b] = True
            label[label == two] = one
            bits[one] |= bits[two]
    return np.unique(label, return_inverse=True)[1]


def _joined(occupied: Sequence[int], label: np.ndarray) -> list[int]:
    """Return the bits of groups of nodes, from the nodes' own and their labels (N,)."""
    joined = [0] * (int(label.max(initial=-1)) + 1)
    for bits, name in zip(occupied, label.tolist(), strict=True):
        joined[name] |= bits
    return joined


def _occupancy(piece: np.ndarray) -> list[int]:
    """Return for each piece a set of bits, one for each sample and camera that it is in."""
    occupied = [0] * (int(piece.max(initial=-1)) + 1)
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


def _accept(
    views: _Views,
    piece: np.ndarray,
    label: np.ndarray,
    proof: _Edges,
    cameras: Sequence[Camera],
    skeleton: Skeleton,
) -> tuple[np.ndarray, np.ndarray]:
    """Say which groups of pieces are people, and which pieces fit theirs.

    Args:
        views: The observations.
        piece: (S, C, K) number of the piece; −1 where none.
        label: (N,) group of each piece; −1 where it is nobody's.
        proof: Evidence between pieces, beyond chance.
        cameras: (C,) cameras.
        skeleton: The joints.

    Returns:
        number: (groups,) the person that each is, in order of appearance; −1 for nobody.
        fits: (N,) whether the piece shows what its group is.
    """
    group = np.append(label, -1)[piece]
    xyz, names = _triangulate_groups(views, group, cameras)
    fits = _misfit(views, piece, group, xyz, names, cameras, skeleton) <= MAX_MISFIT_SIGMAS
    evidence = _evidence(label, proof)

    s, q = np.nonzero(np.isfinite(xyz).all(axis=-1).any(axis=-1))
    first, rows = np.unique(names[s, q], return_index=True)  # s rises, so these are each group's first samples
    accepted = evidence[first] >= MIN_EVIDENCE
    s, q = s[rows], q[rows]
    # People who appear together are told apart by where they stand, not by the order of cameras.
    order = np.lexsort((np.nanmean(xyz[s, q], axis=1)[:, 0], s))
    kept = first[order][accepted[order]]
    person = np.full(len(evidence), -1)
    person[kept] = np.arange(len(kept))
    return person, fits & (label >= 0)


def _misfit(
    views: _Views,
    piece: np.ndarray,
    group: np.ndarray,
    xyz: np.ndarray,
    names: np.ndarray,
    cameras: Sequence[Camera],
    skeleton: Skeleton,
) -> np.ndarray:
    """Return each piece's median distance (N,) from the 3D joints of its group, in σ; 0 where there are none.

    A view that takes the person's left for the right still shows that person: the better of both readings counts.
    """
    s, c, k = np.nonzero(group >= 0)
    place = (names[s] == group[s, c, k][:, None]).argmax(axis=1)
    P = projection_matrices(cameras)[c]
    cam = np.einsum("nik,njk->nji", P[:, :, :3], xyz[s, place]) + P[:, None, :, 3]
    with np.errstate(invalid="ignore", divide="ignore"):
        image = np.where(
            cam[..., 2:] > 0, cam[..., :2] / cam[..., 2:], np.where(np.isnan(cam[..., 2:]), np.nan, np.inf)
        )
    readings = []
    for joints in (np.arange(len(skeleton)), skeleton.mirrored):
        miss = np.linalg.norm(image - views.x[s, c, k][:, joints], axis=-1) / views.sigma[s, c, k][:, joints]
        readings.append(_medians(np.repeat(piece[s, c, k], miss.shape[1]), miss.ravel(), int(piece.max()) + 1))
    return np.minimum(*readings)


def _medians(number: np.ndarray, value: np.ndarray, count: int) -> np.ndarray:
    """Return the lower median (count,) of the values (M,) that bear each number; 0 where there are none but NaN."""
    known = ~np.isnan(value)
    number, value = number[known], value[known]
    order = np.lexsort((value, number))
    number, value = number[order], value[order]
    low, high = (np.searchsorted(number, np.arange(count), side=side) for side in ("left", "right"))
    median = np.zeros(count)
    some = high > low
    median[some] = value[(low[some] + high[some] - 1) // 2]
    return median


def _between_samples(tracklet: Tracklet, person: np.ndarray, sample: np.ndarray) -> np.ndarray:
    """Carry a tracklet's person from coarse samples (s,) to all of its own (n,).

    Where the person changes between two of them, it does so at the greatest jump of the joints in between.
    """
    if not len(sample):
        return np.full(tracklet.stop - tracklet.start, -1)
    starts = np.full(len(person), tracklet.start)
    starts[1:] = (sample[:-1] + sample[1:] + 1) // 2
    for change in np.flatnonzero(np.diff(person)) + 1:
        low, high = sample[change - 1] - tracklet.start, sample[change] - tracklet.start
        step = np.linalg.norm(np.diff(tracklet.xy_px[low : high + 1], axis=0), axis=-1)
        jump = np.where(np.isfinite(step), step, 0.0).sum(axis=1)
        starts[change] = sample[change - 1] + 1 + jump.argmax()
    return np.repeat(person, np.diff(np.append(starts, tracklet.stop)))


def _by_person(tracks: AlignedTracks, people: Sequence[np.ndarray]) -> AlignedKeypoints:
    """Lay the tracklets' samples out by the person that each shows."""
    P = max((int(person.max(initial=-1)) + 1 for person in people), default=0)
    shape = (len(tracks.time_s), len(tracks.cameras), P, len(tracks.skeleton))
    xy, score, sigma = np.full((*shape, 2), np.nan), np.zeros(shape), np.full(shape, np.nan)
    for tracklet, person in zip(tracks.tracklets, people, strict=False):
        kept = person >= 0
        at = (np.arange(tracklet.start, tracklet.stop)[kept], tracks.cameras.index(tracklet.camera), person[kept])
        xy[at], score[at], sigma[at] = tracklet.xy_px[kept], tracklet.score[kept], tracklet.sigma_px[kept]
    return AlignedKeypoints(tracks.cameras, tracks.time_s, xy, score, sigma, np.arange(P), tracks.skeleton)
