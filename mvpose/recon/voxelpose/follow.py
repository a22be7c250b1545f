"""Follow people found frame by frame: one lasting identity each, nobody who is there for a moment only."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.optimize import linear_sum_assignment

from mvpose.recon.track import MAX_LINK_S, Stretch, continuity

SHORTEST_S = 0.3
"""Whoever is never followed for this time without a break, and for ``SHORTEST_FRAMES``, is nobody."""
SHORTEST_FRAMES = 3
"""Where frames are so far apart that fewer would last long enough; of a recording of fewer, all of them."""

_NEAR_M, _SPEED_MPS = 0.25, 2.5  # from what was foretold: a person's joints, in the mean
_CHANGED_M = 0.25  # as far apart count people whom none of the 2D tracks shows that showed the person before
_LOST_S = 0.35  # a person not found for longer goes on as somebody else, until stretches are linked; a frame at least
_END_S = 1.0  # of a stretch, for how it goes on


def follow(time_s: np.ndarray, frames: Sequence[np.ndarray], tracks: Sequence[np.ndarray]) -> list[np.ndarray]:
    """Name the people of all frames.

    Each frame's people are given to the stretches that foretell them best, at constant velocity and shown by the same
    2D tracks (Hungarian); then stretches that go on from one another are linked, the surest first.

    Args:
        time_s: (T,) times of the frames, seconds, uniform.
        frames: T arrays (n, J, 3), metres: the people found, in any order.
        tracks: T arrays (n, C): which 2D track shows each of them in each view, by any numbers; −1 where none does.

    Returns:
        T arrays (n,): whom each one is, from 0 on in order of appearance; −1 for nobody.
    """
    stretch = _stretches(time_s, frames, tracks)
    count = max((int(s.max(initial=-1)) + 1 for s in stretch), default=0)
    person = _linked(time_s, frames, stretch, count)
    named = [person[s] for s in stretch]
    frames_of = np.bincount(np.concatenate([*stretch, np.zeros(0, dtype=int)]), minlength=count)
    kept = np.unique(person[:count][frames_of >= _fewest(time_s)])
    first = {int(p): next(t for t, own in enumerate(named) if p in own) for p in kept}
    order = sorted(first, key=lambda p: (first[p], p))
    number = np.full(count + 1, -1)
    number[order] = np.arange(len(order))
    return [number[own] for own in named]


def _fewest(time_s: np.ndarray) -> int:
    """Return of how many frames somebody's longest stretch has to be."""
    if len(time_s) < 2:
        return 1
    lasting = int(np.ceil(SHORTEST_S / (time_s[1] - time_s[0]) - 1e-6))
    return max(min(max(lasting, SHORTEST_FRAMES), len(time_s)), 1)


@dataclass(frozen=True)
class _Last:
    """How a stretch ends for now: time, joints (J, 3), velocity (3,), and the tracks (C,) that showed it last."""

    time_s: float
    xyz_m: np.ndarray
    velocity_mps: np.ndarray
    tracks: np.ndarray

    def foretold(self, time_s: float) -> np.ndarray:
        return self.xyz_m + (time_s - self.time_s) * self.velocity_mps

    def then(self, time_s: float, xyz_m: np.ndarray, tracks: np.ndarray) -> _Last:
        moved = (xyz_m - self.xyz_m).mean(axis=0) / (time_s - self.time_s)
        velocity = 0.7 * self.velocity_mps + 0.3 * moved
        return _Last(time_s, xyz_m, velocity, np.where(tracks >= 0, tracks, self.tracks))


def _stretches(time_s: np.ndarray, frames: Sequence[np.ndarray], tracks: Sequence[np.ndarray]) -> list[np.ndarray]:
    """Return for each frame the stretch (n,) of each of its people."""
    last: dict[int, _Last] = {}
    lost_s = max(_LOST_S, 1.5 * float(time_s[1] - time_s[0])) if len(time_s) > 1 else _LOST_S
    result, count = [], 0
    for t, found, shown in zip(time_s.tolist(), frames, tracks, strict=True):
        last = {name: state for name, state in last.items() if t - state.time_s <= lost_s}
        names = list(last)
        own = np.full(len(found), -1)
        if names and len(found):
            foretold = np.stack([last[name].foretold(t) for name in names])
            apart = np.linalg.norm(found[:, None] - foretold[None], axis=-1).mean(axis=-1)
            limit = _NEAR_M + _SPEED_MPS * np.array([t - last[name].time_s for name in names])
            changed = _changed(shown[:, None], np.stack([last[name].tracks for name in names]))
            cost = np.where(apart <= limit, apart + _CHANGED_M * changed, 1e3)
            for i, j in zip(*linear_sum_assignment(cost), strict=True):
                if cost[i, j] < 1e3:
                    own[i] = names[j]
        for i in np.flatnonzero(own < 0):
            own[i], count = count, count + 1
        for i, name in enumerate(own.tolist()):
            new = _Last(t, found[i], np.zeros(3), shown[i])
            last[name] = last[name].then(t, found[i], shown[i]) if name in last else new
        result.append(own)
    return result


def _changed(tracks: np.ndarray, before: np.ndarray) -> np.ndarray:
    """Return in which share (...) of the views that show both they are not shown by the same tracks (..., C)."""
    both = (tracks >= 0) & (before >= 0)
    return (both & (tracks != before)).sum(axis=-1) / np.maximum(both.sum(axis=-1), 2)  # one alone decides nothing


def _linked(time_s: np.ndarray, frames: Sequence[np.ndarray], stretch: Sequence[np.ndarray], count: int) -> np.ndarray:
    """Return the person (count + 1,) of each stretch: stretches that one person makes one after the other."""
    rows: list[list[tuple[int, int]]] = [[] for _ in range(count)]
    for t, own in enumerate(stretch):
        for i, name in enumerate(own.tolist()):
            rows[name].append((t, i))
    heads, tails = [], []
    for own_rows in rows:
        first_s, last_s = time_s[own_rows[0][0]], time_s[own_rows[-1][0]]
        heads.append(_part(time_s, frames, [r for r in own_rows if time_s[r[0]] <= first_s + _END_S]))
        tails.append(_part(time_s, frames, [r for r in own_rows if time_s[r[0]] >= last_s - _END_S]))
    begin_s = np.array([head.time_s[0] for head in heads])  # ascending, as stretches are numbered
    pairs = []
    for a, tail in enumerate(tails):
        low, high = np.searchsorted(begin_s, tail.time_s[-1] + np.array([0.0, MAX_LINK_S]), side="right")
        pairs += [(a, b) for b in range(low, high)]
    weight = continuity([tails[a] for a, _ in pairs], [heads[b] for _, b in pairs])
    links = [(w, a, b) for w, (a, b) in zip(weight.tolist(), pairs, strict=True) if w > 0]
    after: dict[int, int] = {}
    before: dict[int, int] = {}
    for _, a, b in sorted(links, reverse=True):
        if a not in after and b not in before:
            after[a], before[b] = b, a
    person = np.arange(count + 1)
    for a in range(count):
        if a not in before:
            b = a
            while b in after:
                b = after[b]
                person[b] = a
    person[count] = -1
    return person


def _part(time_s: np.ndarray, frames: Sequence[np.ndarray], rows: Sequence[tuple[int, int]]) -> Stretch:
    return Stretch(time_s[[t for t, _ in rows]], np.stack([frames[t][i] for t, i in rows]))
