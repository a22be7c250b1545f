"""Estimate the offsets of cameras from what their microphones heard.

A rough search over every lag compares how loud the two recordings are in several bands of frequency, which asks little
memory and bears any microphone, gain control and drift. Around the lag that it finds, GCC-PHAT (Knapp & Carter 1976,
"The generalized correlation method for estimation of time delay") compares the waveforms in windows along the
recording.

**Sign.** A sound leaves its source at one session time and reaches camera c after ``d_c / 343`` s. So what is measured
is ``offset + (d_b − d_a) / 343``: with the source nearer to b, b hears early and the measured offset is too small.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from scipy import fft
from scipy.ndimage import maximum_filter1d, uniform_filter1d

from mvpose.calib.camera import Camera
from mvpose.sync.coarse import Peak
from mvpose.sync.estimate import PairEstimate, moved_modes, unless_ambiguous
from mvpose.sync.offsets import Mode, OffsetGraph, PairwiseOffset, Support
from mvpose.video import Sound

SOUND_M_PER_S = 343.0
"""Speed of sound in air at 20 °C; it changes by 0.2 % a degree."""

_HOP_S, _WINDOW_S = 0.01, 0.032  # of the loudness
_BANDS_HZ = np.geomspace(150.0, 3600.0, 9)  # what microphones of phones and action cameras share
_QUIETEST = 1e-8  # power in a window's bin of the last of 16 bits
_SLOW_S = 1.0  # loudness is against its mean over this long: gain controls are slower
_LOUDEST = 8.0  # standard deviations; one bang is no more than that, which is enough to be found by
_TOUCHED_S = 1.0  # at both ends, where cameras are touched and beep; a twentieth of what is shorter than 20 s
_PIECE_S = 300.0  # 100 ppm are 30 ms in it, about as wide as a peak of the loudness
_DRIFT = 2e-4  # relative rate of two consumer clocks at most
_LEAST_OVERLAP_S = 2.0
_MOMENT_S = 0.5
_APART_S = 0.1  # rivals closer than this are the waveforms' to decide
_CHANCE = 100.0  # odds against the best of all lags being a chance find
_REPEAT_NATS = 10.0  # by which a lag is likelier than another at which nothing agrees; alike ones are a repetition

_BLOCK_S = 1.0  # waveforms are compared in blocks, for 100 ppm shift two blocks a minute apart by 50 wavelengths
_EPOCH_S = 25.0
_MOST_EPOCHS = 8
_REACH_S = 0.05  # about the lag that the loudness tells
_SLOPES = np.arange(-_DRIFT, 1.01 * _DRIFT, 2.5e-5)
_UPSAMPLING = 2
_CLEAR_SIGMAS = 10.0  # above the other lags; one bang against an unrelated one reaches 8, a real one in noise 13
_ECHO = 0.6  # of the highest peak; the lower ones do not count as possible delays

_PATH_M = 3.0  # by which distances to a source differ where nobody knows where the cameras are
_SKEW_S = 0.005  # by which cameras record sound before or after pictures; assumed, one model's cancels


@dataclass(frozen=True)
class SoundPath:
    """How much later a sound reaches camera b than camera a, seconds, and the standard deviation of that."""

    delay_s: float
    sigma_s: float


@dataclass(frozen=True)
class _Loudness:
    """How loud a recording is: (n, bands) standard deviations above its surroundings; 0 where nothing was heard.

    ``heard`` (n,) tells where something counts; ``start_s`` is the middle of the first row's window.
    """

    values: np.ndarray
    heard: np.ndarray
    start_s: float


def sound_offsets(
    sounds: Mapping[str, Sound],
    cameras: Mapping[str, Camera] | None = None,
    *,
    progress: Callable[[int, int], None] | None = None,
) -> OffsetGraph:
    """Estimate the offsets of all pairs by sound.

    Args:
        sounds: What each camera heard, on its own time; all at one sampling rate.
        cameras: Their calibration; None without. With it edges are corrected for a source at the place that the cameras
            look at, and their sigma is that of a source anywhere among them; without it, of one whose distances differ
            by some 3 m.
        progress: Called with (pairs done, pairs in all).

    Returns:
        Up to eight edges a pair along the recording, whose errors are mostly the same (the path of the sound), and for
        each camera what was found wanting.
    """
    loudness = {name: _loudness(sound) for name, sound in sounds.items()}
    scene = None if cameras is None else _scene(list(cameras.values()))
    pairs = list(itertools.combinations(sorted(sounds), 2))
    edges: list[PairwiseOffset] = []
    reasons: dict[str, list[str]] = {name: [] for name in sounds}
    for done, (a, b) in enumerate(pairs):
        path = sound_path(cameras[a], cameras[b], *scene) if cameras and scene else _UNKNOWN_PATH
        estimate = _heard_pair(a, b, (sounds[a], loudness[a]), (sounds[b], loudness[b]), path)
        edges += estimate.edges
        if estimate.why_not:
            reasons[a].append(estimate.why_not.format(other=b))
            reasons[b].append(estimate.why_not.format(other=a))
        if progress:
            progress(done + 1, len(pairs))
    notes = {name: "; ".join(reasons[name]) for name in sounds if reasons[name]}
    notes |= {name: "its sound is silent" for name in sounds if not loudness[name].values.any()}
    return OffsetGraph(tuple(sounds), tuple(edges), notes)


_UNKNOWN_PATH = SoundPath(0.0, _PATH_M / SOUND_M_PER_S)


def sound_path(a: Camera, b: Camera, place_m: np.ndarray, reach_m: float) -> SoundPath:
    """Tell how much later b hears than a what sounds within ``reach_m`` of a place (3,), metres.

    To first order in the source's distance from the place, uniform in a ball, whose standard deviation along a line is
    reach / √5; but never more than that of a source anywhere, for which the delay is uniform within the baseline.
    """
    to_a, to_b = place_m - a.center_m, place_m - b.center_m
    distance_a, distance_b = float(np.linalg.norm(to_a)), float(np.linalg.norm(to_b))
    turn = float(np.linalg.norm(to_b / max(distance_b, 1e-9) - to_a / max(distance_a, 1e-9)))
    baseline_m = float(np.linalg.norm(a.center_m - b.center_m))
    sigma_m = min(reach_m / np.sqrt(5.0) * turn, baseline_m / np.sqrt(3.0))
    return SoundPath((distance_b - distance_a) / SOUND_M_PER_S, sigma_m / SOUND_M_PER_S)


def _scene(cameras: Sequence[Camera]) -> tuple[np.ndarray, float]:
    """Return the point (3,) nearest to all optical axes, and the cameras' mean distance to it, metres.

    The middle of the cameras where the axes are nearly parallel, or meet behind one of them.
    """
    axes, centers = np.stack([c.R[2] for c in cameras]), np.stack([c.center_m for c in cameras])
    across = np.eye(3) - axes[:, :, None] * axes[:, None, :]
    place = centers.mean(axis=0)
    if np.linalg.eigvalsh(across.sum(axis=0))[0] > 0.02 * len(cameras):
        nearest = np.linalg.solve(across.sum(axis=0), np.einsum("cij,cj->i", across, centers))
        if (((nearest - centers) * axes).sum(axis=1) > 0).all():
            place = nearest
    return place, float(np.linalg.norm(centers - place, axis=1).mean())


def _heard_pair(
    a: str, b: str, heard_a: tuple[Sound, _Loudness], heard_b: tuple[Sound, _Loudness], path: SoundPath
) -> PairEstimate:
    (sound_a, loud_a), (sound_b, loud_b) = heard_a, heard_b
    if sound_a.rate_hz != sound_b.rate_hz:
        raise ValueError(f"{a} at {sound_a.rate_hz} Hz and {b} at {sound_b.rate_hz} Hz; resample one of them")
    peaks = _search(loud_a, loud_b)
    if not peaks:
        return PairEstimate((), "nothing that it hears stands out in {other} at one offset")
    weights = _weights(peaks)
    order = np.argsort(-weights, kind="stable")
    modes = [Mode(peaks[i].offset_s - path.delay_s, _HOP_S, float(weights[i])) for i in order if weights[i] > 1e-6]
    rough_s = peaks[order[0]].offset_s
    windows = _windows(loud_a, loud_b, rough_s)
    middle_s = float(np.mean(windows)) if windows else 0.0
    edges = []
    for start_s, end_s in windows:
        reach_s = _REACH_S + _DRIFT * abs((start_s + end_s) / 2 - middle_s)
        delay = _phat(sound_a, sound_b, (start_s, end_s), rough_s, reach_s)
        if delay is None:
            continue
        offset_s = delay.offset_s - path.delay_s
        sigma_s = float(np.sqrt(delay.spread_s**2 + path.sigma_s**2 + _SKEW_S**2))
        edges.append(
            PairwiseOffset(
                a,
                b,
                at_s=delay.at_s,
                offset_s=offset_s,
                sigma_s=sigma_s,
                method="audio",
                modes=moved_modes(modes, offset_s, sigma_s, offset_s - modes[0].offset_s),
                support=Support(seconds=round(end_s - start_s, 3)),
            )
        )
    if not edges:
        return PairEstimate((), "it and {other} are loud together, but their waveforms do not fit")
    return PairEstimate(tuple(unless_ambiguous(e) for e in edges))


def _loudness(sound: Sound) -> _Loudness:
    """Return how far the log power in each band rises above its mean over a second, 100 times a second."""
    hop, window = round(_HOP_S * sound.rate_hz), round(_WINDOW_S * sound.rate_hz)
    power = _band_powers(sound, hop, window)
    heard = np.isfinite(power).all(axis=1)
    edge = min(round(_TOUCHED_S / _HOP_S), len(heard) // 20)
    heard[:edge] = heard[len(heard) - edge :] = False
    values = np.zeros(power.shape, np.float32)
    if heard.any():
        level = np.log(power + _QUIETEST)
        level = np.where(heard[:, None], level, level[heard].mean(axis=0))
        rise = level - uniform_filter1d(level, round(_SLOW_S / _HOP_S), axis=0)
        spread = rise[heard].std(axis=0)
        scaled = np.clip(rise / np.maximum(spread, 1e-9), -_LOUDEST, _LOUDEST)
        values[heard] = np.where(spread > 1e-3, scaled, 0.0)[heard]
    return _Loudness(values, heard, sound.start_s + _WINDOW_S / 2)


def _band_powers(sound: Sound, hop: int, window: int) -> np.ndarray:
    """Return the power (n, bands) in windows of the sound; NaN where it has a gap."""
    if len(sound.samples) < window:
        return np.zeros((0, len(_BANDS_HZ) - 1))
    frequency = fft.rfftfreq(window, 1 / sound.rate_hz)
    band = np.searchsorted(_BANDS_HZ, frequency, side="right") - 1
    within = (band[:, None] == np.arange(len(_BANDS_HZ) - 1)).astype(np.float32)
    frames = np.lib.stride_tricks.sliding_window_view(sound.samples, window)[::hop]
    taper = np.hanning(window).astype(np.float32)
    chunks = np.array_split(frames, max(1, len(frames) // 4096))
    return np.concatenate([np.square(np.abs(fft.rfft(chunk * taper, axis=1))) @ within for chunk in chunks])


def _search(a: _Loudness, b: _Loudness) -> list[Peak]:
    """Return the lags at which both are loud together, best first, with their evidence beyond what chance may show.

    The correlation at each lag is measured against that of all other lags. Its evidence is added up over pieces of a,
    each of which may lie off by what clocks drift.
    """
    if not a.values.any() or not b.values.any():
        return []
    size = fft.next_fast_len(len(a.values) + len(b.values), real=True)
    lags = np.arange(-(len(a.values) - 1), len(b.values))
    spectrum_b, mask_b = fft.rfft(b.values, size, axis=0), fft.rfft(b.heard.astype(np.float32), size)
    evidence, overlap = np.zeros(len(lags)), np.zeros(len(lags))
    count = max(1, round(len(a.values) * _HOP_S / _PIECE_S))
    for rows in np.array_split(np.arange(len(a.values)), count):
        piece, mask = np.zeros_like(a.values), np.zeros(len(a.values), np.float32)
        piece[rows], mask[rows] = a.values[rows], a.heard[rows]
        together = fft.irfft((np.conj(fft.rfft(piece, size, axis=0)) * spectrum_b).sum(axis=1), size)[lags]
        common = np.round(fft.irfft(np.conj(fft.rfft(mask, size)) * mask_b, size)[lags])
        enough = common >= _LEAST_OVERLAP_S / _HOP_S
        if not enough.any():
            continue
        score = np.where(enough, together / np.sqrt(np.maximum(common, 1.0)), 0.0)
        others = enough & (np.abs(lags - lags[np.argmax(score)]) > _MOMENT_S / _HOP_S)
        score /= _spread(score[others]) if others.any() else np.inf
        drift = round(_DRIFT * abs(rows.mean() - len(a.values) / 2))
        evidence += maximum_filter1d(0.5 * np.square(np.maximum(score, 0.0)), 2 * drift + 1)
        overlap += np.where(enough, common, 0.0)
    evidence = np.where(overlap > 0, evidence - np.median(evidence) - np.log(_CHANCE * len(lags)), -np.inf)
    offsets = b.start_s - a.start_s + lags * _HOP_S
    apart_s = _APART_S + _DRIFT * len(a.values) / 2 * _HOP_S
    found: list[Peak] = []
    for index in np.argsort(-evidence)[: len(lags) // 2]:
        if evidence[index] <= 0 or len(found) == 6:
            break
        if all(abs(offsets[index] - peak.offset_s) > apart_s for peak in found):
            found.append(Peak(float(offsets[index]), float(evidence[index]), overlap[index] * _HOP_S / _MOMENT_S))
    return found


def _spread(values: np.ndarray) -> float:
    """Return the standard deviation of values that are mostly noise, as their middle or their tails show it."""
    deviation = np.abs(values - np.median(values))
    return float(max(1.4826 * np.median(deviation), np.quantile(deviation, 0.95) / 1.96, 1e-9))


def _weights(peaks: Sequence[Peak]) -> np.ndarray:
    """Return the probability of each peak, given that one of them is right.

    A sound that repeats itself agrees with itself a period away nearly as well, for a little less time. So that lags
    agree for longer is no evidence between them: what counts is how well they agree.
    """
    evidence = np.array([peak.evidence for peak in peaks])
    alike = np.sqrt(evidence / [peak.moments for peak in peaks])
    log_odds = -np.minimum(evidence[0] - evidence, _REPEAT_NATS * (1 - alike / alike[0]))
    weights = np.exp(log_odds - log_odds.max())
    return np.asarray(weights / weights.sum())


def _windows(a: _Loudness, b: _Loudness, offset_s: float) -> list[tuple[float, float]]:
    """Return windows on a's time, one in each stretch of the common time: where both are loud together most."""
    lag = round((offset_s - (b.start_s - a.start_s)) / _HOP_S)
    first, end = max(0, -lag), min(len(a.values), len(b.values) - lag)
    if (end - first) * _HOP_S < _LEAST_OVERLAP_S:
        return []
    together = (a.values[first:end] * b.values[first + lag : end + lag]).sum(axis=1)
    count = int(np.clip(len(together) * _HOP_S / _EPOCH_S, 1, _MOST_EPOCHS))
    windows = []
    for rows in np.array_split(np.arange(len(together)), count):
        length = min(round(_EPOCH_S / _HOP_S), len(rows))
        total = np.concatenate([[0.0], np.cumsum(together[rows])])
        best = int(np.argmax(total[length:] - total[: len(total) - length]))
        start_s = float(a.start_s + (first + rows[0] + best) * _HOP_S)
        windows.append((start_s, start_s + length * _HOP_S))
    return windows


@dataclass(frozen=True)
class _Delay:
    """An offset as heard at one of a's times; the spread is that of all delays at which the waveforms nearly agree."""

    at_s: float
    offset_s: float
    spread_s: float


def _phat(a: Sound, b: Sound, window: tuple[float, float], offset_s: float, reach_s: float) -> _Delay | None:
    """Return the offset within ``reach_s`` of a guess at which the waveforms agree in a window of a's time.

    Correlations of blocks are added up along straight lines in time, for the clocks drift. None unless the best line
    stands out from all others.
    """
    rate = a.rate_hz
    block, reach = round(_BLOCK_S * rate), round(reach_s * rate)
    first_a = round((window[0] - a.start_s) * rate)
    first_b = round((window[0] + offset_s - b.start_s) * rate) - reach
    steps = np.arange(0, round((window[1] - window[0]) * rate) - block + 1, block // 2)  # Hann windows add up to one
    blocks_a = np.stack([_cut(a, first_a + int(step), block) for step in steps]) * np.hanning(block).astype(np.float32)
    blocks_b = np.stack([_cut(b, first_b + int(step), block + 2 * reach) for step in steps])
    size = fft.next_fast_len(2 * block + 2 * reach, real=True)
    cross = np.conj(fft.rfft(blocks_a, size, axis=1)) * fft.rfft(blocks_b, size, axis=1)
    cross *= _band_pass(fft.rfftfreq(size, 1 / rate)) / np.maximum(np.abs(cross), 1e-20)
    correlation = fft.irfft(cross, _UPSAMPLING * size, axis=1)
    lags = np.arange(2 * reach * _UPSAMPLING + 1)
    later = (steps - steps.mean()) * _UPSAMPLING
    lines = np.stack(
        [
            correlation[np.arange(len(steps))[:, None], lags + np.rint(slope * later).astype(int)[:, None]].sum(axis=0)
            for slope in _SLOPES
        ]
    )
    lines -= np.median(lines)
    row, peak = np.unravel_index(int(np.argmax(lines)), lines.shape)
    best = lines[row]
    if best[peak] < _CLEAR_SIGMAS * _spread(lines) or not 0 < peak < len(lags) - 1:
        return None
    before, top, after = best[peak - 1 : peak + 2]
    vertex = peak + 0.5 * (before - after) / (before - 2 * top + after)
    possible = np.flatnonzero(best > _ECHO * top)
    spread = float(np.sqrt(np.average(np.square(possible - vertex), weights=best[possible])))
    # The slope is hardly known if all sound is at one end of the window, and does not matter at the sound.
    along = correlation[np.arange(len(steps)), peak + np.rint(_SLOPES[row] * later).astype(int)]
    centre = float(np.average(later, weights=np.square(along)))
    ahead_s = b.start_s + first_b / rate - (a.start_s + first_a / rate)
    return _Delay(
        at_s=float(a.start_s + (first_a + steps.mean() + block / 2 + centre / _UPSAMPLING) / rate),
        offset_s=float(ahead_s + (vertex + _SLOPES[row] * centre) / (_UPSAMPLING * rate)),
        spread_s=spread / (_UPSAMPLING * rate),
    )


def _cut(sound: Sound, first: int, length: int) -> np.ndarray:
    """Return samples (length,) from an index on that may lie outside; 0 where there are none."""
    cut = np.zeros(length, np.float32)
    low, high = max(first, 0), min(first + length, len(sound.samples))
    if low < high:
        cut[low - first : high - first] = np.nan_to_num(sound.samples[low:high])
    return cut


def _band_pass(frequency_hz: np.ndarray) -> np.ndarray:
    """Return the weight (F,) of each frequency: 1 within the bands that are compared, falling off over 100 Hz."""
    inside = np.minimum(frequency_hz - _BANDS_HZ[0], _BANDS_HZ[-1] - frequency_hz)
    return np.clip(1 + inside / 100.0, 0.0, 1.0)
