"""InSynFormer over whole recordings: windows in which people move are compared, and what they say is added up.

A window's log-likelihood ratio says how much likelier its people are at an offset than if they had nothing to do with
each other. Windows are nearly independent, so the ratios add up to one posterior of the pair, tempered for what they
share; it has as many modes as the motion has repetitions. First every window of one camera meets every window of the
other, which covers every offset of the recordings; then windows are cut anew at the best offsets, where they overlap
fully.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cache, cached_property

import numpy as np
import torch
from torch import Tensor

from mvpose.calib.camera import Camera
from mvpose.errors import FormatError
from mvpose.keypoints import Keypoints2D
from mvpose.sync.answers import LagPosterior
from mvpose.sync.clips import ClipPairs
from mvpose.sync.coarse import LagCurve
from mvpose.sync.insynformer import Curves, InSynFormer
from mvpose.sync.pretrained import WEIGHTS
from mvpose.sync.windows import (
    WINDOW_S,
    Track,
    Windows,
    clip_tracks,
    cut_windows,
    every_window,
    frames_per_window,
)
from mvpose.training.weights import load_weights

# Windows of one camera at most: in the first search and in the second, and in each epoch of the refinement.
_GLANCED, _SEARCHED, _REFINED = 8, 24, 40
SEARCH_NATS = 10.0
"""Less evidence than the best peak of a search by this much is not made up for by windows that overlap fully."""

MOMENTS = 2.0
"""Independent moments in a window, as a ``LagCurve`` counts them."""

_HOP_A_S, _HOP_B_S = 1.0, 0.5
_GRID_S = 0.02  # of the search's curve
_FINE_S = 0.001
_BATCH = 512
_KEPT = 2048  # windows of a camera whose curves are kept, some 140 MB; those of longer recordings are made as needed
_LEAST_NATS = -2.0  # what one window may hold against an offset: its person may be hidden from the other camera

# Powers of the summed likelihoods, without rays and with: windows overlap by half, and a detector's bias outlasts them.
# Chosen on recordings of the val split so that z-scores have about unit variance.
_TEMPER = {False: 0.5, True: 0.7}
_UNMODELLED_S = 0.0015


@dataclass(frozen=True)
class LearnedView:
    """One camera, ready to be compared.

    Attributes:
        tracks: Its people.
        camera: Its calibration, if there is one.
    """

    tracks: list[Track]
    camera: Camera | None
    _encoded: dict[tuple[InSynFormer, float], Encoded] = field(
        default_factory=dict, init=False, repr=False, compare=False
    )

    def encoded(self, network: InSynFormer, hop_s: float) -> Encoded:
        """Return all windows at a spacing, encoded once by image coordinates for however many cameras they meet."""
        if (network, hop_s) not in self._encoded:
            self._encoded[network, hop_s] = Encoded(self.tracks, network, hop_s)
        return self._encoded[network, hop_s]


class Encoded:
    """All windows of one camera, cut when they are wanted, and their curves.

    Attributes:
        opens_s: (n,) when each opens.
        hop_s: Their spacing.
    """

    def __init__(self, tracks: list[Track], network: InSynFormer, hop_s: float) -> None:
        self.opens_s, self._track = every_window(tracks, hop_s)
        self.hop_s = hop_s
        self._tracks, self._network = tracks, network
        self._frames = frames_per_window(tracks)
        self._kept: list[tuple[np.ndarray, Curves]] | None = None

    def windows(self, index: np.ndarray | slice) -> Windows:
        """Return some of the windows."""
        return cut_windows(self._tracks, self.opens_s[index], self._track[index], self._frames)

    @cached_property
    def motion(self) -> np.ndarray:
        """(n,) how far the joints range in each."""
        return np.concatenate([self.windows(part).motion() for part in _parts(len(self.opens_s))])

    def curves(self, index: np.ndarray | None = None) -> Iterable[tuple[np.ndarray, Curves]]:
        """Return curves in batches, with the indices (m,) of the windows.

        Args:
            index: (n,) windows that are wanted at least; by default all.
        """
        every = np.arange(len(self.opens_s))
        if len(every) > _KEPT:  # memory must not grow with the recording: they are encoded for each pair then
            return self._encode(every if index is None else index)
        if self._kept is None:
            self._kept = list(self._encode(every))
        return self._kept

    def one_by_one(self, index: np.ndarray) -> list[Curves]:
        """Return the curves of some windows (n,), each alone."""
        found: dict[int, Curves] = {}
        for own, curves in self.curves(index):
            found |= {i: curves.rows(slice(n, n + 1)) for n, i in enumerate(own)}
        return [found[i] for i in index]

    def _encode(self, index: np.ndarray) -> Iterator[tuple[np.ndarray, Curves]]:
        """Encode windows (n,) as pairs, one half of them beside the other."""
        for part in _parts(len(index), 2 * _BATCH):
            first, second = np.array_split(index[part], 2)
            filled = np.resize(second, len(first)) if len(second) else first  # of an odd number one is encoded twice
            pairs = _paired(self.windows(first), self.windows(filled), None, None)
            with torch.inference_mode():
                curves, more = self._network.encode(pairs, WINDOW_S)
            yield first, curves
            if len(second):
                yield second, more.rows(slice(len(second)))


@dataclass(frozen=True)
class LearnedFit:
    """The offset over an epoch.

    Attributes:
        at_s: Middle of the windows, on a's time.
        offset_s: Mean of the posterior's main mode.
        sigma_s: Its standard deviation.
        windows: How many windows it comes from.
        nats: Their summed log-likelihood ratio at the offset.
        seconds: Time that they cover.
        joints: How many joints were seen in a's windows.
    """

    at_s: float
    offset_s: float
    sigma_s: float
    windows: int
    nats: float
    seconds: float
    joints: int


def learned_views(keypoints: Mapping[str, Keypoints2D], cameras: Mapping[str, Camera] | None) -> dict[str, LearnedView]:
    """Return every camera's people with the joints that the networks know."""
    return {name: _view(k, None if cameras is None else cameras[name]) for name, k in keypoints.items()}


def _view(keypoints: Keypoints2D, camera: Camera | None) -> LearnedView:
    return LearnedView(clip_tracks(keypoints, camera), camera)


@cache
def shipped_network(rays: bool) -> InSynFormer:
    """Return the network that comes with the package.

    Raises:
        FormatError: Its weights are damaged, or of the other network.
    """
    name = "insynformer-rays" if rays else "insynformer"
    network, path = InSynFormer(rays=rays), WEIGHTS / f"{name}.safetensors"
    found = load_weights(network, path).get("row")
    if found != name:  # of image coordinates and rays the weights have the same shapes
        raise FormatError(f"{path} holds the weights of {found}, not of {name}; get the file anew")
    return network.eval()


@contextmanager
def _one_thread() -> Iterator[None]:
    """Let torch work alone: its threads wait for each other by spinning, and windows are too small to share anyway."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


@_one_thread()
def learned_search(a: LearnedView, b: LearnedView, network: InSynFormer) -> LagCurve | None:
    """Score all offsets at which two recordings overlap, without a calibration.

    Most pairs are plain from few windows of a and of b; the others are searched by many.

    Args:
        a: One camera.
        b: The other.
        network: Compares image coordinates.

    Returns:
        The curve; None if somebody moves in one camera at most.
    """
    if not a.tracks or not b.tracks:
        return None
    for most, hop_s in ((_GLANCED, _HOP_A_S), (_SEARCHED, _HOP_B_S)):
        curve = _search(a.encoded(network, _HOP_A_S), b.encoded(network, hop_s), network, most)
        if _is_plain(curve):
            break
    return curve


def _search(a: Encoded, b: Encoded, network: InSynFormer, most: int) -> LagCurve:
    """Let the windows of a that move most, so many at most, meet all of b."""
    chosen = _most_moving(a.opens_s, a.motion, most)
    lags = b.opens_s[None] - a.opens_s[chosen, None]  # (A, B)
    low, high = lags.min() - b.hop_s, lags.max() + b.hop_s
    grid = np.arange(int(np.ceil((high - low) / _GRID_S)) + 1) * _GRID_S + low
    reach = int(b.hop_s * 0.6 / _GRID_S)
    best = np.full((len(chosen), len(grid)), -np.inf, dtype=np.float32)
    people = np.zeros(best.shape, dtype=np.int32)
    curves_a = a.one_by_one(chosen)
    with torch.inference_mode():
        for index, curves_b in b.curves():
            frame_s = torch.full((len(index),), 0.1)
            for n, own_lags in enumerate(lags[:, index]):
                posterior = network.compare(curves_a[n], curves_b, frame_s)
                cell = np.round((own_lags - low) / _GRID_S).astype(int)[:, None] + np.arange(-reach, reach + 1)
                inside = (cell >= 0) & (cell < len(grid))
                cell = np.clip(cell, 0, len(grid) - 1)
                offset = (grid[cell] - own_lags[:, None]).astype(np.float32)
                ratio = posterior.log_likelihood_ratio(torch.from_numpy(offset)).numpy()
                np.maximum.at(best[n], cell, np.where(inside, ratio, -np.inf))
                np.add.at(people[n], cell, inside & (np.abs(offset) <= b.hop_s / 2))  # each person has one there
    met = np.isfinite(best)
    best -= np.log(np.maximum(people, 1))  # whoever of b it is, of so many the best is as good by chance
    moments = met.sum(0) * MOMENTS
    evidence = _TEMPER[network.rays] * np.where(met, np.maximum(best, _LEAST_NATS), 0.0).sum(0)
    overlap = moments / moments.max()
    evidence = np.where(moments > 0, evidence + 2.0 * np.log(np.maximum(overlap, 1e-6)), -np.inf)
    return LagCurve(grid, evidence, np.maximum(moments, 1e-9).astype(float))


def _is_plain(curve: LagCurve) -> bool:
    """Tell whether one offset alone is worth a refinement."""
    peaks = curve.peaks()
    if not peaks:
        return False
    first, *others = peaks
    least = max([curve.chance_evidence, *(peak.evidence for peak in others)])
    return first.evidence > least + SEARCH_NATS


@_one_thread()
def fit_learned(
    a: LearnedView,
    b: LearnedView,
    network: InSynFormer,
    around_s: float,
    window: tuple[float, float] = (-np.inf, np.inf),
) -> LearnedFit | None:
    """Refine an offset: cut windows at it in both cameras, add up their posteriors, and once more where that leads.

    Args:
        a: One camera.
        b: The other; both calibrated if the network compares rays.
        network: Compares the windows.
        around_s: Offset to start from, within half a second.
        window: Only windows that open within these bounds of a's time.

    Returns:
        The fit; None if nobody is seen by both.
    """
    fit = None
    for _ in range(2):
        fit = _fit_once(a, b, network, around_s, window)
        if fit is None:
            return None
        around_s = fit.offset_s
    return fit


def _fit_once(
    a: LearnedView, b: LearnedView, network: InSynFormer, around_s: float, bounds: tuple[float, float]
) -> LearnedFit | None:
    opens, whose = every_window(a.tracks, _HOP_A_S)
    # Of a long recording, windows that the other camera cannot have seen would take the places of those it did.
    start, end = common_time(a, b, around_s)
    inside = (opens >= max(bounds[0], start - WINDOW_S)) & (opens < min(bounds[1], end))
    frames = max(frames_per_window(a.tracks), frames_per_window(b.tracks))
    windows_a = cut_windows(a.tracks, opens[inside], whose[inside], frames)
    windows_a = windows_a.rows(_most_moving(windows_a.opens_s, windows_a.motion(), _REFINED))
    index_a, index_b = _candidates(windows_a, b.tracks, around_s)
    if not len(index_a):
        return None
    windows_b = cut_windows(b.tracks, windows_a.opens_s[index_a] + around_s, index_b, frames)
    grid = np.arange(-0.55, 0.55 + _FINE_S / 2, _FINE_S)
    nats = np.concatenate(
        [
            _compare(network, windows_a.rows(index_a[part]), windows_b.rows(part), a, b)
            .log_likelihood_ratio(torch.from_numpy(grid.astype(np.float32)).expand(len(index_a[part]), -1))
            .numpy()
            for part in _parts(len(index_a))
        ]
    )
    per_window = np.full((len(windows_a), len(grid)), -np.inf)
    np.maximum.at(per_window, index_a, nats)  # whoever of b fits best; of so many, one does by chance
    per_window -= np.log(np.maximum(np.bincount(index_a, minlength=len(windows_a)), 1))[:, None]
    met = np.isfinite(per_window[:, 0])
    total = np.maximum(per_window[met], _LEAST_NATS).sum(0)
    peak = int(np.argmax(total))
    weight = np.exp(_TEMPER[network.rays] * (total - total[peak]))
    weight[np.abs(grid - grid[peak]) > 0.3] = 0.0
    mean = float((weight * grid).sum() / weight.sum())
    variance = float((weight * (grid - mean) ** 2).sum() / weight.sum())
    used = windows_a.opens_s[met]
    return LearnedFit(
        at_s=float(used.mean() + WINDOW_S / 2),
        offset_s=around_s + mean,
        sigma_s=float(np.sqrt(variance + _UNMODELLED_S**2)),
        windows=int(met.sum()),
        nats=float(_TEMPER[network.rays] * total[peak]),
        seconds=float(min(np.ptp(used) + WINDOW_S, met.sum() * WINDOW_S)),
        joints=int(np.isfinite(windows_a.xy_px[met, ..., 0]).sum()),
    )


def common_time(a: LearnedView, b: LearnedView, offset_s: float) -> tuple[float, float]:
    """Return when both cameras see somebody, at an offset, on a's time."""
    spans_a, spans_b = ([track.span_s for track in view.tracks] for view in (a, b))
    start = max(min(s for s, _ in spans_a), min(s for s, _ in spans_b) - offset_s)
    return start, min(max(e for _, e in spans_a), max(e for _, e in spans_b) - offset_s)


def _candidates(windows: Windows, tracks: Sequence[Track], offset_s: float) -> tuple[np.ndarray, np.ndarray]:
    """Return pairs (n,) of a window and a track of the other camera that is seen for a good part of it then."""
    opens = windows.opens_s[:, None] + offset_s
    first = np.array([track.span_s[0] for track in tracks])
    last = np.array([track.span_s[1] for track in tracks])
    common = np.minimum(opens + WINDOW_S, last) - np.maximum(opens, first)
    window, track = np.nonzero(common >= min(0.3 * WINDOW_S, 0.9 * float((last - first).max())))
    return window, track


def _most_moving(opens_s: np.ndarray, motion: np.ndarray, most: int) -> np.ndarray:
    """Return which of windows (n,) to use, in order of time: who moves most in each of equal shares of them."""
    order = np.argsort(opens_s, kind="stable")
    shares = np.array_split(order, min(most, max(len(order), 1)))
    return np.array([share[int(np.argmax(motion[share]))] for share in shares if len(share)], dtype=int)


def _parts(count: int, most: int = _BATCH) -> Iterator[slice]:
    for start in range(0, count, most):
        yield slice(start, min(start + most, count))


def _compare(network: InSynFormer, wa: Windows, wb: Windows, a: LearnedView, b: LearnedView) -> LagPosterior:
    with torch.inference_mode():
        pairs = _paired(wa, wb, a.camera, b.camera)
        return network.compare(*network.encode(pairs, WINDOW_S), pairs.frame_s)


def _paired(wa: Windows, wb: Windows, a: Camera | None, b: Camera | None) -> ClipPairs:
    """Return windows (N,) of both cameras as pairs of clips."""

    def both(x: np.ndarray, y: np.ndarray) -> Tensor:
        return torch.from_numpy(np.stack([x, y], axis=1))

    def repeated(values: Sequence[np.ndarray]) -> Tensor:
        return torch.from_numpy(np.stack(values).astype(np.float32)).expand(len(wa), *(-1,) * (values[0].ndim + 1))

    cameras = (a, b)
    return ClipPairs(
        both(wa.xy_px, wb.xy_px),
        both(wa.score, wb.score),
        both(wa.time_s, wb.time_s),
        repeated([np.full((3, 3), np.nan) if c is None else c.K for c in cameras]),
        repeated([np.full((3, 4), np.nan) if c is None else c.cam_from_world[:3] for c in cameras]),
        torch.full((len(wa), 2, 2), torch.nan),  # people are measured by themselves, not by their images
    )
