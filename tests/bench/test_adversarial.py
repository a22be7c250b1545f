import itertools
import re
from dataclasses import replace

import numpy as np
import pytest

from mvpose.bench.adversarial import (
    KINDS,
    Answer,
    Outcome,
    answer,
    format_adversarial,
    judged,
    make_recording,
    mirrored,
    run_adversarial,
)
from mvpose.clock import Clock
from mvpose.synthetic.motion import generate_motion
from mvpose.synthetic.noise import DetectorNoise
from mvpose.synthetic.rigs import ring_rig
from mvpose.synthetic.world import make_world, observe


@pytest.fixture(scope="module")
def motions():
    return {f"clip{n}": generate_motion(np.random.default_rng(n), 6.0 + n) for n in range(4)}


def number_of(kind, turn):
    return turn * len(KINDS) + KINDS.index(kind)


def spans(recording):
    world = recording.world
    return np.array([world.clocks[n].to_session(world.frame_times_s[n][[0, -1]]) for n in world.rig.names])


def test_kinds_and_calibrations_take_turns(motions):
    made = [make_recording(number, motions) for number in range(14)]
    assert [r.kind for r in made] == 2 * [*KINDS]
    assert [r.calibrated for r in made] == [True] * 7 + [False] * 7
    for r in made:
        assert len(r.world.rig) in (3, 4)
        assert set(r.films) == set(r.noise) == set(r.world.rig.names)
        assert ("uncalibrated" in r.words) != r.calibrated
        assert bool(r.mirrored) == (r.kind == "mirrored")
        start, end = spans(r).T
        for motion in r.films.values():
            assert motion.time_s[0] <= start.min() and end.max() <= motion.time_s[-1]
        if r.kind != "late":
            assert 9.5 < end.min() - start.max() < 25.5
            assert np.ptp(start) <= 10.2


def test_the_number_decides_the_recording(motions):
    a, b, c = (make_recording(number, motions) for number in (8, 8, 15))
    seen = a.detected(), b.detected()
    for name, k in seen[0].items():
        np.testing.assert_array_equal(k.xy_px, seen[1][name].xy_px)
        np.testing.assert_array_equal(k.time_s, a.world.frame_times_s[name])
        assert (k.track_id >= 0).all()
    assert a.world.clocks["cam02"].offset_s != c.world.clocks["cam02"].offset_s


@pytest.mark.parametrize("turn", [0, 2])
@pytest.mark.parametrize("kind", ["walking", "in step"])
def test_walks_repeat_themselves(motions, kind, turn):
    r = make_recording(number_of(kind, turn), motions)
    assert ("laps" in r.words) == (turn == 2)
    period_s = float(re.search(r"(\d+\.\d+) s", r.words)[1])
    motion, times = r.films["cam01"], np.linspace(1, 3, 40)
    later = motion.at(times + period_s)
    if (kind, turn) == ("in step", 2):
        later = later[:, ::-1]  # after half a lap either is where the other was
    # The period is given to 5 ms, and feet move at some metres a second.
    assert np.abs(later - motion.at(times)).max() < 0.03
    assert np.abs(motion.at(times + 0.5 * period_s) - motion.at(times)).max() > 0.1


@pytest.mark.parametrize("turn", [0, 4])
def test_people_in_step_do_the_same_at_the_same_time(motions, turn):
    xyz = make_recording(number_of("in step", turn), motions).films["cam01"].xyz_m
    shift = xyz[:, 1] - xyz[:, 0]
    np.testing.assert_allclose(shift, np.broadcast_to(shift[0, 0], shift.shape), atol=1e-9)
    assert np.linalg.norm(shift[0, 0]) == pytest.approx(1.2)


def thigh_lengths(motion):
    """Lengths, to a hundredth of a millimetre, that a person's left thigh has for half a second or more."""
    hip, knee = motion.skeleton.indices(("left_hip", "left_knee"))
    length = np.linalg.norm(motion.xyz_m[:, 0, hip] - motion.xyz_m[:, 0, knee], axis=-1).round(5)
    values, count = np.unique(length, return_counts=True)
    return set(values[count >= 30])


def test_unrelated_cameras_film_different_people(motions):
    for turn in range(3):
        lengths = [thigh_lengths(m) for m in make_recording(number_of("unrelated", turn), motions).films.values()]
        assert all(lengths)
        assert all(a.isdisjoint(b) for a, b in itertools.combinations(lengths, 2))
    assert len({id(m) for m in make_recording(number_of("late", 0), motions).films.values()}) == 1


def test_one_camera_is_five_minutes_late(motions):
    r = make_recording(number_of("late", 0), motions)
    start, end = spans(r).T
    late = int(np.argmax(start))
    assert f"late: {r.world.rig.names[late]}" in r.words
    others = np.delete(start, late)
    assert (start[late] - others > 289).all() and (start[late] - others < 311).all()
    assert 19 < end.min() - start.max() < 41


@pytest.mark.parametrize("turn", [0, 2])
def test_half_of_one_camera_is_hidden(motions, turn):
    r = make_recording(number_of("occluded", turn), motions)
    odd = r.words.split("occluded: ")[1][:5]
    shares = {}
    for noise in (r.noise[odd], DetectorNoise()):
        seen = replace(r, noise={**r.noise, odd: noise}).detected()[odd]
        shares[noise] = np.isfinite(seen.xy_px[..., 0]).sum() / len(seen.time_s)
    # Measured 0.47 and 0.49; episodes of half a second and more are few in 10 to 35 s.
    assert 0.35 < shares[r.noise[odd]] / shares[DetectorNoise()] < 0.65


def test_mirroring_twice_changes_nothing(motions):
    rng = np.random.default_rng(0)
    rig = ring_rig(2)
    world = make_world(rng, motions["clip0"], rig, fps=(10.0, 10.0), max_offset_s=0.0, max_drift_ppm=0.0)
    seen = observe(world, rng)["cam01"]
    for named_anew in (False, True):
        once = mirrored(seen, named_anew=named_anew)
        assert once.bbox_px is not None and not np.allclose(once.bbox_px, seen.bbox_px)
        np.testing.assert_allclose(mirrored(once, named_anew=named_anew).xy_px, seen.xy_px)
    left, right = seen.skeleton.indices(("left_wrist", "right_wrist"))
    width = seen.size_px[0]
    np.testing.assert_allclose(mirrored(seen, named_anew=False).xy_px[:, left, 0], width - 1 - seen.xy_px[:, left, 0])
    np.testing.assert_allclose(mirrored(seen, named_anew=True).xy_px[:, left, 0], width - 1 - seen.xy_px[:, right, 0])


@pytest.mark.parametrize(
    ("error_ms", "sigma_ms", "wrong"), [(4.9, 0.1, False), (-5.1, 0.1, True), (39.0, 10.0, False), (41.0, 10.0, True)]
)
def test_wrong_is_beyond_four_sigmas_and_five_milliseconds(error_ms, sigma_ms, wrong):
    clock = Clock("cam02", 1.0, 1.0, np.diag([(1e-3 * sigma_ms) ** 2, 0.0]))
    found = judged(clock, error_ms, unrelated=False)
    assert (found.wrong, found.confidently_wrong) == (wrong, wrong)
    assert found.sigma_ms == pytest.approx(sigma_ms)
    assert judged(clock, 0.0, unrelated=True).confidently_wrong
    doubted = replace(clock, verdict="doubtful", why="little")
    assert not judged(doubted, error_ms, unrelated=True).confidently_wrong


def test_a_still_person_gets_no_clock_and_somebody_half_hidden_gets_one(motions):
    still = answer(make_recording(number_of("still", 2), motions), {"methods": ("epipolar",)})
    assert {a.verdict for a in still.answers} <= {"refused", "doubtful"}
    assert len(still.answers) >= 2 and all(a.why for a in still.answers)
    number = number_of("occluded", 2)
    (occluded,) = run_adversarial(motions, [number], lambda *call: None, {"methods": ("epipolar",)})
    assert (occluded.number, occluded.kind) == (number, "occluded")
    assert {a.verdict for a in occluded.answers} == {"good"}
    assert not any(a.wrong for a in occluded.answers)
    # Measured 0.6 to 1.2 ms.
    assert 0 < max(abs(a.error_ms) for a in occluded.answers) < 10
    assert occluded.estimates.startswith("epipolar")


def test_the_table_counts_by_kinds_and_names_what_is_confidently_wrong():
    right = Answer("cam02", "good", "", 1.0, 1.0)
    off = Answer("cam03", "good", "", 900.0, 2.0, wrong=True)
    doubted = Answer("cam03", "doubtful", "little", 900.0, 2.0, wrong=True)
    refused = Answer("cam02", "refused", "nothing")
    text = format_adversarial(
        [
            Outcome(4, "late", "20 s", (right,), "epipolar 3 of 3"),
            Outcome(11, "late", "20 s", (right, doubted), "epipolar 3 of 3"),
            Outcome(7, "walking", "laps", (refused, off), "learned 1 of 3"),
        ]
    )
    rows = {line.split("  ")[0]: line.split()[-6:] for line in text.splitlines()}
    assert rows["walking"] == ["1", "1", "0", "1", "1", "0"]
    assert rows["late"] == ["2", "2", "1", "0", "0", "1"]
    assert rows["all"] == ["3", "3", "1", "1", "1", "1"]
    assert "solvable ones answered: 1 of 2" in text
    wrong = text.splitlines()[-1]
    assert wrong.startswith("no. 7, walking (laps): cam03 is +900.0 ms off at a sigma of 2.0 ms, by learned 1 of 3")
    assert text.count("no. ") == 1
