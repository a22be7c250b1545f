"""Moments from which on a camera's written times are off: frames that were lost, or put in, without a trace.

A loss of a few frames shows as a small step in the joint fit (``refine.find_jumps``). What is longer leaves nothing to
differentiate there: after it people are elsewhere. So each camera is set against all others moment by moment, at every
shift of up to a few seconds; a jump is where one shift agrees best until then, and another one from then on.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TypeVar

import numpy as np

from mvpose.clock import Clock, Clocks
from mvpose.sync.coarse import LAG_STEP_S, epipolar_agreement
from mvpose.sync.pairs import SAMPLE_STEP_S
from mvpose.sync.trajectories import Trajectory

REACH_S = 4.0
"""The longest jump that is looked for."""

DECISIVE_NATS = 40.0
"""By so much must a jump explain more than none. Clean recordings of the val split show 4 at most, people who walk to
and fro on one course 16; a third of a second that was lost, by hundreds if people move for 20 s on either side."""

_EVERY = 4  # steps of the shifts between two moments
_MOST_MOMENTS = 2000
_SUSPECT_NATS, _CONTRADICTED_NATS = 8.0, 12.0
_LEAST_NATS = 8.0  # that either side of a jump must have for its own shift
_PLACE_REACH_S = 5.0  # on either side, within which a jump is placed to a frame
_FINE_STEP_S, _MEASURE_S = 0.005, 20.0  # between shifts, and on either side, by which a jump is measured
_MEASURED_SIGMA_S = 0.006  # then; what is lost at 30 fps and more is always whole frames
_ONE_JUMP_S = 2.0  # what is found nearer to a jump than this is about the same one
_WHOLE_SIGMAS = 3.0  # within which a jump is taken for whole frames
_AS_LIKELY = 0.6  # of the plainest that is not plain enough: it may as well be that one
_AS_PLAIN = 0.8  # of the plainest; what one camera jumps by shows half as plainly in the others of three


@dataclass(frozen=True)
class Jump:
    """A moment at which a camera's written times leave out, or put in, what it did not record.

    Attributes:
        camera: Whose.
        at_s: From when on, on its own time as written.
        jump_s: How much its times after that must be raised.
        sigma_s: Its standard deviation.
    """

    camera: str
    at_s: float
    jump_s: float
    sigma_s: float


Geometry = Callable[[str, str], np.ndarray | None]
"""Of two cameras the matrix E (3, 3) by which ``x_bᵀ E x_a = 0``, in their tracks' coordinates; None if not known."""

_Found = TypeVar("_Found", Jump, "Split")


@dataclass(frozen=True)
class Agreement:
    """How well one camera agrees with all others, were its clock off.

    Attributes:
        camera: Its name.
        time_s: (T,) moments on its own time, by its clock.
        shift_s: (D,) how much later on its own time it is looked at, evenly spaced.
        nats: (T, D) evidence of each moment at each shift.
        alone: Whether no camera sees two people at a time.
    """

    camera: str
    time_s: np.ndarray
    shift_s: np.ndarray
    nats: np.ndarray
    alone: bool = True


@dataclass(frozen=True)
class Split:
    """The best explanation of an agreement by two shifts, one until a moment and one from then on.

    Attributes:
        camera: Whose.
        at_s: The moment, on its own time by the clock.
        before_s: Its shift until then.
        after_s: Its shift from then on.
        gain: Nats by which they explain more than one shift alone; 0 where either side says too little.
        unexplained: Nats by which the start or the end of the recording contradicts the clock as it is, before anything
            speaks for it. Of several people, others may be in view than in the other cameras: then it is 0.
    """

    camera: str
    at_s: float
    before_s: float
    after_s: float
    gain: float
    unexplained: float

    @property
    def jump_s(self) -> float:
        """How much its times must be raised."""
        return self.before_s - self.after_s


def agreement_of(
    camera: str,
    tracks: Mapping[str, Sequence[Trajectory]],
    geometry: Geometry,
    clocks: Clocks,
    *,
    span_s: tuple[float, float] = (-np.inf, np.inf),
    shift_s: tuple[float, float] = (-REACH_S, REACH_S),
    step_s: float = LAG_STEP_S,
    every: int = _EVERY,
) -> Agreement | None:
    """Set a camera against all others that have a clock, moment by moment; None if it or they see nobody.

    Args:
        camera: Its name.
        tracks: All people of each camera.
        geometry: Of every two cameras.
        clocks: Of cameras that are to be compared.
        span_s: Only moments between these, on its own time.
        shift_s: The least and the largest shift that are tried.
        step_s: Between two shifts.
        every: How many of them lie between two moments, at least.
    """
    known = {name: geometry(name, camera) for name in clocks.clocks if name != camera and tracks[name]}
    others = {name: E for name, E in known.items() if E is not None}
    if not others or not tracks[camera]:
        return None
    clock = clocks[camera]
    start = max(span_s[0], min(t.start_s for t in tracks[camera]))
    end = min(span_s[1], max(t.end_s for t in tracks[camera]))
    count = int((end - start) / step_s) + 1
    if count < 2:
        return None
    every *= int(np.ceil(count / every / _MOST_MOMENTS))
    shifts = np.arange(round(shift_s[0] / step_s), round(shift_s[1] / step_s) + 1)
    own = start + step_s * np.arange(shifts[0], count + shifts[-1])
    session = clock.to_session(start + step_s * np.arange(count))
    nats = sum(
        (
            epipolar_agreement(
                tracks[name],
                tracks[camera],
                E,
                clocks[name].to_camera(session),
                own,
                every,
            )
            for name, E in others.items()
        ),
        np.zeros((1, 1)),
    )
    alone = not any(_are_several(tracks[name]) for name in (camera, *others))
    return Agreement(camera, start + step_s * np.arange(count)[::every], step_s * shifts, nats, alone)


def _are_several(tracks: Sequence[Trajectory]) -> bool:
    """Tell whether two people are in view at a time."""
    spans = sorted((track.start_s, track.end_s) for track in tracks)
    return any(start_s < max(end_s for _, end_s in spans[:i]) for i, (start_s, _) in enumerate(spans) if i)


def split_of(agreement: Agreement) -> Split:
    """Explain an agreement by two shifts: the changepoint of largest likelihood."""
    until = np.concatenate([np.zeros((1, agreement.nats.shape[1])), np.cumsum(agreement.nats, axis=0)])
    since = until[-1] - until
    sure = np.minimum(until.max(1), since.max(1)) >= _LEAST_NATS
    gain = np.where(sure, until.max(1) + since.max(1) - until[-1].max(), 0.0)
    index = int(np.argmax(gain))
    before_s, after_s = (float(agreement.shift_s[part[index].argmax()]) for part in (until, since))
    near = agreement.nats[:, np.abs(agreement.shift_s) < 1.5 * LAG_STEP_S]
    unexplained = max(_contradiction(part) for part in (near, near[::-1])) if agreement.alone else 0.0
    at_s = float(agreement.time_s[min(index, len(agreement.time_s) - 1)])
    return Split(agreement.camera, at_s + min(before_s, after_s), before_s, after_s, float(gain[index]), unexplained)


def _contradiction(nats: np.ndarray) -> float:
    """Return by how much the first moments of (T, D) speak against all shifts, before others speak for one."""
    total = np.cumsum(nats, axis=0).max(axis=1, initial=-np.inf)
    favour = np.cumsum(np.maximum(nats.max(axis=1, initial=-np.inf), 0))
    return max(0.0, -float(total.min(where=favour < _LEAST_NATS, initial=0.0)))


def find_splits(
    tracks: Mapping[str, Sequence[Trajectory]],
    geometry: Geometry,
    clocks: Clocks,
    *,
    reach_s: float = REACH_S,
    step_s: float = LAG_STEP_S,
) -> list[Split]:
    """Return every camera's best split into shifts of up to so much, the plainest first."""
    agreements = (
        agreement_of(name, tracks, geometry, clocks, shift_s=(-reach_s, reach_s), step_s=step_s)
        for name in clocks.clocks
    )
    splits = [split_of(agreement) for agreement in agreements if agreement is not None]
    return plainest_first(splits, [split.gain for split in splits])


def suspected(splits: Sequence[Split], clocks: Clocks, least_nats: float = _SUSPECT_NATS) -> dict[str, str]:
    """Return why clocks are doubtful, if they stay as they are, by every camera's best split.

    Of a jump that is not plain, it is not plain either whose it is; one of the reference is in everybody's clock.

    Args:
        splits: Found with these clocks.
        clocks: Clocks.
        least_nats: Of a jump that is worth a doubt.
    """
    why = {}
    most = max((split.gain for split in splits), default=0.0)
    for split in splits:
        if most > least_nats and split.gain > _AS_LIKELY * most:
            jump = f"{1e3 * split.jump_s:.0f} ms about {split.at_s:.1f} s"
            why[split.camera] = f"the times of {split.camera} seem to jump by {jump}: too little moves to tell"
    if clocks.reference in why:
        why = dict.fromkeys(clocks.clocks, why[clocks.reference]) | why
    for split in splits:
        if split.unexplained > _CONTRADICTED_NATS:
            brief = "the other cameras contradict it near its start or end, too briefly to tell why"
            why.setdefault(split.camera, brief)
    return why


def plainest_first(found: Sequence[_Found], plainness: Sequence[float]) -> list[_Found]:
    """Sort jumps or splits of several cameras, the plainest first.

    Two cameras alone cannot tell a loss of one from something put in by the other; losses are what happens.
    """
    least = _AS_PLAIN * max(plainness, default=0.0)
    order = sorted(range(len(found)), key=lambda i: (plainness[i] > least and found[i].jump_s > 0, plainness[i]))
    return [found[i] for i in reversed(order)]


def until(split: Split, clocks: Clocks) -> Clocks:
    """Move a camera's clock to what holds until a split that was found with these clocks."""
    clock = clocks[split.camera]
    moved = replace(clock, offset_s=clock.offset_s - clock.rate * split.before_s)
    return replace(clocks, clocks={**clocks.clocks, split.camera: moved}).on(clocks.reference)


def jump_of(split: Split, clocks: Clocks) -> Jump:
    """Return what a camera's written times jump by at a split that was found with these clocks."""
    at_s = written_s(clocks[split.camera], split.at_s)
    return Jump(split.camera, at_s, split.jump_s, LAG_STEP_S / 2 / _WHOLE_SIGMAS)


def placed(jump: Jump, tracks: Mapping[str, Sequence[Trajectory]], geometry: Geometry, clocks: Clocks) -> Jump:
    """Move a jump to the frame from which on it explains most.

    Args:
        jump: The jump.
        tracks: All people of each camera, at the times of these clocks.
        geometry: Of every two cameras.
        clocks: Clocks without the jump, which hold until it.
    """
    steps = int(np.ceil(abs(jump.jump_s) / SAMPLE_STEP_S))
    clock = clocks[jump.camera]
    reach_s, about_s = _PLACE_REACH_S + abs(jump.jump_s), own_s(clock, jump.at_s)
    close = agreement_of(
        jump.camera,
        tracks,
        geometry,
        clocks,
        span_s=(about_s - reach_s, about_s + reach_s),
        shift_s=(min(0.0, -jump.jump_s), max(0.0, -jump.jump_s)),
        step_s=abs(jump.jump_s) / steps,
        every=1,
    )
    if close is None:
        return jump
    until, since = (close.nats[:, i] for i in ((-1, 0) if jump.jump_s > 0 else (0, -1)))
    # What was lost is seen by the others alone: it speaks neither for times before nor for those after.
    lost = steps if jump.jump_s > 0 else 0
    later = np.concatenate([np.cumsum(since[::-1])[::-1][lost:], np.zeros(min(lost, len(since)))])
    at_s = float(close.time_s[int(np.argmax(np.cumsum(until) - until + later))])
    return replace(jump, at_s=written_s(clock, at_s))


def measured(jump: Jump, tracks: Mapping[str, Sequence[Trajectory]], geometry: Geometry, clocks: Clocks) -> Jump:
    """Measure a jump to a few milliseconds, by the best shifts on either side of it.

    Args:
        jump: The jump, known to a step of the shifts.
        tracks: All people of each camera, at the times of these clocks.
        geometry: Of every two cameras.
        clocks: Clocks without the jump, which hold until it to a step of the shifts.
    """
    about_s = own_s(clocks[jump.camera], jump.at_s)
    best = []
    for span_s, near_s in (((about_s - _MEASURE_S, about_s), 0.0), ((about_s, about_s + _MEASURE_S), -jump.jump_s)):
        close = agreement_of(
            jump.camera,
            tracks,
            geometry,
            clocks,
            span_s=span_s,
            shift_s=(near_s - LAG_STEP_S, near_s + LAG_STEP_S),
            step_s=_FINE_STEP_S,
        )
        if close is None:
            return jump
        best.append(float(close.shift_s[int(close.nats.sum(0).argmax())]))
    return replace(jump, jump_s=best[0] - best[1], sigma_s=_MEASURED_SIGMA_S)


def is_near(jump: Jump, clock: Clock) -> bool:
    """Tell whether a jump is near one that its camera's clock has: then it is about the same."""
    return any(abs(at_s - jump.at_s) < _ONE_JUMP_S for at_s, _ in clock.jumps)


def own_s(clock: Clock, written_s: float) -> float:
    """Return a camera's own time, jumps taken out, at a written one."""
    return written_s + sum(jump_s for at_s, jump_s in clock.jumps if at_s <= written_s)


def written_s(clock: Clock, own_s: float) -> float:
    """Return a camera's written time at an own one; where frames were lost, that of the first frame after it."""
    for at_s, jump_s in clock.jumps:
        if own_s > at_s:
            own_s = max(own_s - jump_s, at_s)
    return own_s


def with_jump(clocks: Clocks, jump: Jump, frame_s: float) -> Clocks:
    """Give a camera's clock a jump that was found beside those which it has; what is near one of them changes that one.

    Its size is a number of whole frames where that fits: so it is exact.

    Args:
        clocks: Clocks.
        jump: The jump.
        frame_s: Time between two frames of the camera.
    """
    clock = clocks[jump.camera]
    same = [(at_s, jump_s) for at_s, jump_s in clock.jumps if abs(at_s - jump.at_s) < _ONE_JUMP_S]
    at_s, _ = max(same, key=lambda own: abs(own[1]), default=(jump.at_s, 0.0))
    jump_s = jump.jump_s + sum(jump_s for _, jump_s in same)
    whole_s = round(jump_s / frame_s) * frame_s
    jump_s = whole_s if abs(jump_s - whole_s) <= _WHOLE_SIGMAS * jump.sigma_s else jump_s
    jumps = {*clock.jumps} - {*same} | ({(at_s, jump_s)} if jump_s else set())
    return replace(clocks, clocks={**clocks.clocks, jump.camera: replace(clock, jumps=tuple(sorted(jumps)))})
