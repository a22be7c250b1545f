from dataclasses import replace

import numpy as np
import pytest

from mvpose.bench.clocks import ESTIMATORS, Case, Estimator, Score, grid, recordings, score
from mvpose.synthetic.motion import generate_motion

SMALL = Case(6.0, (25.0, 30.0, 10.0), max_offset_s=3.0, drift_ppm=80.0)


@pytest.fixture(scope="module")
def motions():
    """Clips as a pack has them; one is too short to be chained."""
    clips = {f"clip{n}": generate_motion(np.random.default_rng(n), 4.0 + n) for n in range(3)}
    return {**clips, "glimpse": generate_motion(np.random.default_rng(9), 1.5)}


@pytest.fixture(scope="module")
def worlds(motions):
    return list(recordings(SMALL, motions, range(6)))


def spans(world):
    """First and last frame (C, 2) of each camera, in world time."""
    return np.array([world.clocks[n].to_session(world.frame_times_s[n][[0, -1]]) for n in world.rig.names])


def test_all_cameras_record_together_for_the_asked_time(worlds):
    for world in worlds:
        start, end = spans(world).T
        # To three frames in all, of a tenth of a second at most.
        assert end.min() - start.max() == pytest.approx(SMALL.common_s, abs=0.3)
        assert start.min() >= world.motion.time_s[0]
        assert end.max() <= world.motion.time_s[-1]


def test_starts_are_apart_by_what_was_asked(worlds):
    apart = [np.ptp(spans(world)[:, 0]) for world in worlds]
    assert max(apart) <= SMALL.max_offset_s + 0.1
    assert max(apart) > 0.3 * SMALL.max_offset_s
    assert min(apart) > 0
    earliest = {int(np.argmin(spans(world)[:, 0])) for world in worlds}
    assert len(earliest) > 1


def test_clocks_and_frames_are_of_the_cameras_own_time(worlds):
    for world in worlds:
        for name, fps in zip(world.rig.names, SMALL.fps, strict=True):
            own, clock = world.frame_times_s[name], world.clocks[name]
            assert own[0] == 0.0
            np.testing.assert_allclose(np.diff(own), 1 / fps, rtol=1e-9)
            assert abs(clock.rate - 1) <= 80e-6
            assert clock.rate_fitted
            assert clock.epoch_s == own[-1] / 2
        rates = [world.clocks[n].rate for n in world.rig.names]
        assert len(set(rates)) == 3


def test_fractions_of_frames_differ(worlds):
    # Else the offsets of cameras of one rate would be whole frames, which no estimator is to profit by.
    phase = np.array([spans(world)[:2, 0] * SMALL.fps[:2] % 1 for world in worlds])
    assert (np.ptp(phase, axis=0) > 0.3).all()
    assert np.ptp(phase[:, 0] - phase[:, 1]) > 0.3


def test_the_seed_decides_the_recording(motions, worlds):
    (again,) = recordings(SMALL, motions, [3])
    for name in again.rig.names:
        assert again.clocks[name].offset_s == worlds[3].clocks[name].offset_s
        assert again.clocks[name].offset_s != worlds[2].clocks[name].offset_s
    np.testing.assert_array_equal(again.motion.xyz_m, worlds[3].motion.xyz_m)


def test_the_motion_is_of_many_clips_and_without_gaps(motions, worlds):
    for world in worlds:
        assert np.isfinite(world.motion.xyz_m).all()
        assert world.motion.duration_s > max(m.duration_s for m in motions.values())
        # People do not jump at the seams.
        step = np.diff(world.motion.xyz_m, axis=0)
        assert np.abs(step).max() * 60 < 15  # m/s


def test_cases_are_all_pairs_of_lengths_and_rates():
    cases = grid([5, 10], [10, 30, 60], cameras=4)
    assert [(c.common_s, c.fps) for c in cases] == [(s, (f,) * 4) for s in (5, 10) for f in (10, 30, 60)]
    assert str(cases[0]) == "5 s at 10 fps"
    assert str(SMALL) == "6 s at 25/30/10 fps"


def test_figures_are_those_of_the_errors():
    line = Score(np.array([-3.0, 1.0, 2.0, 30.0]), np.array([1.0, -1.0, 1.0, -1.0]), 2).line()
    assert "median     2.5" in line
    assert "p90    21.9" in line
    assert "max     30.0 ms" in line
    assert "z RMS  1.00" in line
    assert line.endswith("4 clocks, 2 refused")
    assert Score(np.zeros(0), np.zeros(0), 3).line() == "no clock of 3"


def test_estimators_are_scored_on_the_same_recordings(motions):
    case = replace(SMALL, fps=(25.0, 30.0), noise=0.2)
    rows = (ESTIMATORS[0], ESTIMATORS[1], ESTIMATORS[2])
    assert [(e.methods, e.calibrated) for e in rows] == [
        (("correlation",), False), (("learned",), False), (("epipolar",), True)
    ]  # fmt: skip
    found = score(case, motions, rows, [0, 1])
    assert [len(s.error_ms) + s.refused for s in found] == [2, 2, 2]
    epipolar = found[2]
    # A fifth of the measured noise: some milliseconds; with the wrong sign it would be seconds.
    assert len(epipolar.error_ms) == 2
    assert np.abs(epipolar.error_ms).max() < 15
    assert len(epipolar.z) == 2 and np.isfinite(epipolar.z).all()
    learned = found[1]
    assert len(learned.error_ms) >= 1
    assert np.abs(learned.error_ms).max() < 80
    again = score(case, motions, [Estimator("the same", ("epipolar",), True)], [0, 1])
    np.testing.assert_array_equal(again[0].error_ms, epipolar.error_ms)


def test_every_row_has_a_title_of_its_own():
    assert len({e.title for e in ESTIMATORS}) == len(ESTIMATORS)
    assert all(e.calibrated for e in ESTIMATORS if "epipolar" in e.methods)
