from dataclasses import replace

import numpy as np
import pytest

from mvpose.bench.clocks import (
    BASE,
    ESTIMATORS,
    MIXED_FPS,
    Case,
    Estimator,
    Repair,
    Speed,
    Trial,
    common_time,
    detect_people,
    format_repairs,
    format_speeds,
    format_trials,
    grid,
    make_recording,
    mean_speed,
    measure_speed,
    plain_lag_s,
    read_motion,
    run_repairs,
    run_trials,
    speed_signal,
)
from mvpose.errors import FormatError
from mvpose.synthetic.motion import Motion, generate_motion

SMALL = Case(6.0, (25.0, 30.0, 10.0), max_offset_s=3.0, drift_ppm=80.0)


def quiet(what, done, total):
    pass


@pytest.fixture(scope="module")
def motions():
    """Clips as a pack has them; one is too short to be chained."""
    clips = {f"clip{n}": generate_motion(np.random.default_rng(n), 4.0 + n) for n in range(3)}
    return {**clips, "glimpse": generate_motion(np.random.default_rng(9), 1.5)}


@pytest.fixture(scope="module")
def worlds(motions):
    return [make_recording(SMALL, motions, seed) for seed in range(6)]


def spans(world):
    """First and last frame (C, 2) of each camera, in world time."""
    return np.array([world.clocks[n].to_session(world.frame_times_s[n][[0, -1]]) for n in world.rig.names])


def test_all_cameras_record_together_for_the_asked_time(worlds):
    for world in worlds:
        start, end = spans(world).T
        # To three frames in all, of a tenth of a second at most.
        assert end.min() - start.max() == pytest.approx(SMALL.common_s, abs=0.3)
        assert common_time(world) == (start.max(), end.min())
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
    again = make_recording(SMALL, motions, 3)
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


def test_frames_are_dropped_and_wobble_as_asked(motions):
    case = replace(SMALL, fps=(30.0,) * 3, common_s=20.0, dropped_frames=0.2, jitter_s=0.002)
    steps = np.concatenate([np.diff(t) for t in make_recording(case, motions, 0).frame_times_s.values()])
    # One step in five spans a dropped frame; 1,900 steps, so to 5 % for certain.
    assert np.mean(steps > 1.5 / 30) == pytest.approx(0.2, abs=0.05)
    assert np.std(steps[steps < 1.5 / 30]) == pytest.approx(0.002 * np.sqrt(2), rel=0.2)


def test_lost_and_repeated_frames_and_slow_rows_are_what_was_asked(motions):
    plain = make_recording(SMALL, motions, 0)
    lossy = make_recording(replace(SMALL, lost_frames=10), motions, 0)
    fewer = {n: len(plain.frame_times_s[n]) - len(lossy.frame_times_s[n]) for n in plain.rig.names}
    assert fewer == {"cam01": 0, "cam02": 10, "cam03": 0}
    np.testing.assert_allclose(np.diff(lossy.frame_times_s["cam02"]), 1 / 30, rtol=1e-9)  # nothing shows there
    assert np.diff(lossy.true_times_s["cam02"]).max() == pytest.approx(11 / 30)

    case = replace(SMALL, repeated_frames=0.2)
    seen = detect_people(plain, case, 0)["cam02"]
    usual = detect_people(plain, SMALL, 0)["cam02"]
    assert np.mean(np.diff(seen.frame_ptr) == 0) == pytest.approx(0.2 + np.mean(np.diff(usual.frame_ptr) == 0), abs=0.1)

    slow = replace(SMALL, readout_s=0.02, noise=0.0)
    world = make_recording(slow, motions, 0)
    assert set(world.readout_s.values()) == {0.02}
    told, untold = (detect_people(world, replace(slow, told=told), 0)["cam02"].xy_px for told in (True, False))
    moved = np.linalg.norm(told - untold, axis=-1)
    assert 0.5 < np.nanmedian(moved) < 20  # 10 ms of some hundred pixels a second


def test_several_people_share_the_room(motions):
    world = make_recording(replace(SMALL, people=3), motions, 1)
    assert world.motion.n_people == 3
    assert np.isfinite(world.motion.xyz_m).all()
    pelvis = world.motion.xyz_m[:, :, 0]
    assert np.linalg.norm(pelvis[:, 0] - pelvis[:, 1], axis=-1).mean() > 0.3
    seen = detect_people(world, SMALL, 0)
    assert np.median(np.diff(seen["cam01"].frame_ptr)) == 3


def test_speed_is_that_of_all_joints_between_the_times():
    time_s = np.arange(301) / 30
    xyz = np.zeros((301, 2, 21, 3))
    xyz[:, 0, :, 0] = np.maximum(time_s - 5, 0)[:, None] * 0.8  # stands for 5 s, then glides at 0.8 m/s
    motion = Motion(time_s, xyz)
    assert mean_speed(motion, 6.0, 9.0) == pytest.approx(0.4, rel=1e-3)  # the other one stands
    assert mean_speed(motion, 0.0, 4.5) == pytest.approx(0.0, abs=1e-3)


def test_the_grid_is_fixed_and_every_case_has_words_of_its_own():
    cases = grid()
    words = [str(case) for case in cases]
    assert len(set(words)) == len(cases)
    for seconds in (5.0, 10.0, 20.0, 60.0):
        for fps in ((10.0,) * 4, (30.0,) * 4, (60.0,) * 4, MIXED_FPS):
            assert replace(BASE, common_s=seconds, fps=fps) in cases
    assert {len(case.fps) for case in cases} == {2, 4, 8}
    assert {case.people for case in cases} == {1, 2, 3}
    assert {case.noise for case in cases} == {0.5, 1.0, 2.0}
    assert {case.drift_ppm for case in cases} == {0.0, 50.0, 100.0}
    assert {case.lost_at for case in cases if case.lost_frames} == {0.25, 0.5, 0.9}
    assert [case.told for case in cases if case.readout_s] == [True, False]
    assert str(BASE) == "20 s at 30 fps"
    assert str(replace(BASE, fps=MIXED_FPS)) == "20 s at 50/25/17/10 fps"
    assert str(SMALL) == "6 s at 25/30/10 fps, 3 cameras, drift ± 80 ppm"


def trial(case="a", seed=0, estimator="one", speed_mps=0.5, common_s=20.0, error_ms=(), z=(), rate=(), refused=0):
    return Trial(case, seed, estimator, speed_mps, common_s, error_ms, z, tuple(map(abs, error_ms)), rate, refused)


def test_figures_are_those_of_the_errors():
    line = format_trials([trial(error_ms=(-3.0, 1.0, 2.0, 30.0), z=(1.0, -1.0, 1.0, -1.0), refused=2)]).splitlines()[1]
    assert "median     2.5" in line
    assert "p90    21.9" in line
    assert "max     30.0 ms" in line
    assert "z RMS  1.00" in line
    assert "over frames p90    21.9" in line
    assert line.endswith("4 clocks, 2 refused")
    assert "no clock of 3" in format_trials([trial(refused=3)])


def test_lines_below_are_of_all_of_moving_people_and_of_rates():
    text = format_trials(
        [
            trial("a", 0, "one", 0.5, 20.0, (1.0,), (1.0,), (50.0,)),
            trial("a", 1, "one", 0.3, 20.0, (9.0,), (3.0,), (50.0,)),
            trial("b", 0, "one", 0.6, 600.0, (3.0,), (1.0,), (-4.0,)),
            trial("b", 0, "two", 0.6, 600.0, (7.0,), (1.0,), (1.0,)),
        ]
    )
    blocks = {block.splitlines()[0]: block.splitlines()[1:] for block in text.split("\n\n")}
    assert list(blocks) == [
        "a (2 recordings)",
        "b (1 recordings)",
        "all (3 recordings)",
        "all whose people move at 0.4 m/s or more (2 recordings)",
        "rates, 600 s",
    ]
    assert "median     3.0" in blocks["all (3 recordings)"][0]  # of 1, 9 and 3
    assert "median     2.0" in blocks["all whose people move at 0.4 m/s or more (2 recordings)"][0]  # of 1 and 3
    assert [line.split()[2] for line in blocks["rates, 600 s"]] == ["4.00", "1.00"]
    assert "rates" not in format_trials([trial(error_ms=(1.0,), z=(1.0,), rate=(5.0,))])


def test_estimators_are_tried_on_the_same_recordings(motions):
    case = replace(SMALL, fps=(25.0, 30.0), noise=0.2)
    rows = (ESTIMATORS[0], ESTIMATORS[1], ESTIMATORS[-1], replace(ESTIMATORS[-1], title="the same"))
    calls = []
    trials = run_trials([case], motions, rows, [0, 1], lambda *call: calls.append(call))
    assert calls == [("recordings", 1, 2), ("recordings", 2, 2)]
    assert [(t.seed, t.estimator) for t in trials] == [(seed, row.title) for seed in (0, 1) for row in rows]
    for t in trials:
        assert len(t.error_ms) + t.refused == 1
        assert all(abs(middle) < 2 * over + 1.0 for middle, over in zip(t.error_ms, t.frames_ms, strict=True))
        assert len(t.z) == len(t.rate_error_ppm) == len(t.error_ms)
        assert t.common_s == pytest.approx(6.0, abs=0.3)
        assert 0.2 < t.speed_mps < 1.5
    best = [t for t in trials if t.estimator == ESTIMATORS[-1].title]
    assert [t.error_ms for t in trials if t.estimator == "the same"] == [t.error_ms for t in best]
    # A fifth of the measured noise: measured 0.07 and 0.97 ms; with the wrong sign it would be seconds.
    errors = np.abs([e for t in best for e in t.error_ms])
    assert len(errors) == 2
    assert 0 < errors.max() < 15
    rates = [abs(r) for t in best for r in t.rate_error_ppm]
    assert 0 < max(rates) < 200  # 6 s tell nothing of rates, so the errors are the drift itself
    assert trials[0].case == str(case)


def test_every_row_has_a_title_of_its_own():
    assert len({e.title for e in ESTIMATORS}) == len(ESTIMATORS)
    assert [e.options for e in ESTIMATORS if "default" in e.title] == [{}, {}]
    assert ESTIMATORS[-1] == Estimator("calibrated", ESTIMATORS[-1].title, True)


def test_poses_by_repaired_clocks_are_nearly_those_by_true_ones(motions):
    case = Case(6.0, (30.0,) * 3, max_offset_s=1.5, noise=0.3)
    (repair,) = run_repairs([case], motions, [0], quiet)
    assert (repair.case, repair.seed) == (str(case), 0)
    # Measured 12.7 and 12.8 mm, and 903 mm with nobody's time repaired.
    assert 5 < repair.perfect_mm < 40
    assert 0.9 < repair.synced_mm / repair.perfect_mm < 1.1
    assert repair.raw_mm > 3 * repair.perfect_mm


def test_the_ratio_is_taken_recording_by_recording():
    text = format_repairs([Repair("a", 0, 300.0, 30.0, 20.0), Repair("a", 1, 500.0, 40.0, 40.0)])
    assert text.splitlines()[1] == "  a"
    assert text.splitlines()[2].split() == ["400.0", "35.0", "30.0", "1.250", "1.500"]


def test_plain_correlation_finds_the_lag(motions):
    world = make_recording(Case(12.0, (25.0,), noise=0.0), motions, 1)
    (keypoints,) = detect_people(world, SMALL, 0).values()
    signal = speed_signal(keypoints)
    assert len(signal) == pytest.approx(12 * 30, abs=4)
    assert signal.mean() == pytest.approx(0, abs=1e-9)
    # Who starts 1.5 s later sees everything at times that are smaller by 1.5.
    assert plain_lag_s(signal[:-45], signal[45:]) == -1.5
    assert plain_lag_s(signal[45:], signal[:-45]) == 1.5


def test_times_are_compared_with_plain_correlation_in_one_run(motions):
    (speed,) = measure_speed(motions, [2.0], quiet, repeats=1)
    assert speed.common_s == 2.0
    assert speed.sync_s > speed.signals_s > 0
    assert speed.sync_s > speed.correlation_s > 0
    assert speed.uncalibrated_s > speed.correlation_s
    assert 0 < speed.uncalibrated_cpu_s < 2 * speed.uncalibrated_s  # its threads do not spin
    text = format_speeds([Speed(60.0, 5.0, 2.0, 1.9, 0.4, 0.1)])
    row = ["60", "s", "5.00", "2.00", "1.90", "10", "×", "50", "×", "4", "×", "20", "×"]
    assert text.splitlines()[1].split() == row


def test_a_folder_without_a_test_split_is_named(tmp_path):
    with pytest.raises(FormatError, match="holds no motion pack"):
        read_motion(tmp_path)
