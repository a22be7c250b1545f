import numpy as np
import pytest

from mvpose.sync.coarse import (
    LAG_STEP_S,
    OUTLIER_SCALE,
    LagCurve,
    Peak,
    correlation_search,
    epipolar_search,
    robust_cost,
)
from mvpose.sync.trajectories import STEP_S, Trajectory

# A rectified pair: a joint keeps its row, so x_bᵀ E x_a = y_b − y_a.
RECTIFIED = np.array([[0.0, 0, 0], [0, 0, 1], [0, -1, 0]])


def wander(rng, duration_s, joints=6):
    """Return smooth random joint heights (G, J): a sum of slow sines, of 0.2 in all."""
    t = np.arange(0, duration_s, STEP_S)[:, None, None]
    frequency, phase = rng.uniform(0.2, 1.0, (joints, 6)), rng.uniform(0, 2 * np.pi, (joints, 6))
    return 0.2 * np.sin(2 * np.pi * frequency * t + phase).sum(-1) / np.sqrt(3)


def track(start_s, height, *, x=None, noise=0.0, rng=None):
    """Return a person of size 1 whose joints are at given heights (G, J), in columns that tell nothing."""
    x = np.zeros_like(height) if x is None else x
    xy = np.stack([x, height], axis=-1)
    if noise:
        xy = xy + noise * rng.standard_normal(xy.shape)
    velocity = np.gradient(xy, STEP_S, axis=0)
    return Trajectory(start_s, xy, velocity, np.ones(len(xy)))


def best(curve):
    return curve.peaks()[0]


# Peaks and odds.


def test_the_robust_cost_saturates():
    assert robust_cost(np.array(0.0)) == 0
    assert robust_cost(np.array(OUTLIER_SCALE)) == pytest.approx(0.5)
    assert 0.99 < robust_cost(np.array(-100.0)) < 1


def test_peaks_come_best_first_and_apart():
    lags = np.arange(-5, 5, LAG_STEP_S)
    evidence = 10 * np.exp(-((lags - 1) ** 2) / 0.02) + 7 * np.exp(-((lags + 2) ** 2) / 0.02)
    evidence[3] = -np.inf
    curve = LagCurve(lags, evidence, np.full(len(lags), 5.0))
    found = curve.peaks()
    assert [p.offset_s for p in found[:2]] == pytest.approx([1.0, -2.0])
    assert found[0].evidence == pytest.approx(10.0)
    assert found[0].moments == 5.0
    assert min(abs(p.offset_s - q.offset_s) for p in found for q in found if p is not q) > 0.35
    assert len(curve.peaks(most=1)) == 1
    assert LagCurve(lags, np.full(len(lags), -np.inf), np.ones(len(lags))).peaks() == []
    # What was known beforehand reorders them, and leaves their evidence alone.
    hinted = curve.peaks(-((lags**2 - 4) ** 2))
    assert hinted[0].offset_s == pytest.approx(-2.0)
    assert hinted[0].evidence == pytest.approx(7.0)


def test_the_best_of_many_lags_must_beat_more_chance():
    short, long = (
        LagCurve(np.arange(0, span, 0.05), np.zeros(int(span / 0.05)), np.ones(int(span / 0.05))) for span in (4, 400)
    )
    assert long.chance_evidence - short.chance_evidence == pytest.approx(np.log(100), abs=0.02)
    assert LagCurve(np.zeros(1), np.zeros(1), np.ones(1)).chance_evidence == pytest.approx(np.log(5))


def test_a_longer_overlap_does_not_tell_repetitions_apart():
    # 3 nats a moment at both: the motion repeats itself, and the longer overlap holds more repetitions.
    assert Peak(0.0, 60.0, 20.0).log_odds_over(Peak(1.1, 54.0, 18.0)) == 0.0
    assert Peak(1.1, 54.0, 18.0).log_odds_over(Peak(0.0, 60.0, 20.0)) == 0.0


def test_agreement_beyond_twice_what_a_rival_saw_is_evidence():
    long, fluke = Peak(0.0, 60.0, 20.0), Peak(9.0, 9.0, 3.0)
    assert long.log_odds_over(fluke) == pytest.approx(3.0 * (20 - 2 * 3))
    assert fluke.log_odds_over(long) == pytest.approx(-42.0)


def test_noise_does_not_decide_between_repetitions_but_agreement_does():
    alike = Peak(0.0, 60.0, 20.0).log_odds_over(Peak(1.1, 58.0, 20.0))
    assert alike == 0.0  # 3.0 and 2.9 nats a moment
    apart = Peak(0.0, 60.0, 20.0).log_odds_over(Peak(1.1, 20.0, 20.0))
    assert apart == pytest.approx(20 * (3 - 1 - 0.25 * 3))
    assert Peak(1.1, 20.0, 20.0).log_odds_over(Peak(0.0, 60.0, 20.0)) == -apart


# The epipolar search.


@pytest.mark.parametrize("offset", [0.0, 3.7, -12.35])
def test_an_offset_is_found_on_the_grid_with_its_sign(offset):
    rng = np.random.default_rng(0)
    height = wander(rng, 30.0)
    a = track(100.0, height, noise=0.01, rng=rng)
    b = track(100.0 + offset, height, x=rng.normal(size=height.shape), noise=0.01, rng=rng)
    curve = epipolar_search([a], [b], RECTIFIED)
    assert best(curve).offset_s == pytest.approx(offset, abs=LAG_STEP_S / 2 + 1e-9)
    assert best(curve).evidence > 10 * curve.chance_evidence
    back = epipolar_search([b], [a], RECTIFIED.T)
    assert best(back).offset_s == pytest.approx(-offset, abs=LAG_STEP_S / 2 + 1e-9)
    assert best(back).evidence == pytest.approx(best(curve).evidence, rel=0.1)


def test_recordings_may_overlap_in_part():
    rng = np.random.default_rng(1)
    height = wander(rng, 40.0)
    a, b = track(0.0, height[:1000]), track(500.0, height[750:])  # 5 of 20 and 25 s in common
    found = best(epipolar_search([a], [b], RECTIFIED))
    assert found.offset_s == pytest.approx(500.0 - 15.0, abs=0.03)
    assert 8 < found.moments <= 10


def test_evidence_grows_with_the_time_in_common():
    rng = np.random.default_rng(2)
    height = wander(rng, 40.0)
    short, long = (
        best(epipolar_search([track(0.0, height[:n])], [track(0.0, height[:n])], RECTIFIED)) for n in (500, 2000)
    )
    assert short.offset_s == pytest.approx(0.0, abs=1e-9)
    assert 3.0 < long.evidence / short.evidence < 5.0
    assert 3.5 < long.moments / short.moments < 4.5
    # Twice a second a detector's error is new.
    assert 0.6 < long.moments / (40 / 0.5) < 1.01


def test_unrelated_motion_has_no_evidence():
    rng = np.random.default_rng(3)
    for _ in range(5):
        curve = epipolar_search([track(0.0, wander(rng, 20.0))], [track(0.0, wander(rng, 20.0))], RECTIFIED)
        assert best(curve).evidence <= curve.chance_evidence


def test_stillness_tells_nothing():
    rng = np.random.default_rng(4)
    still = np.tile(rng.normal(size=6), (1000, 1))
    for noise in (0.0, 0.005):
        tracks = [track(0.0, still, noise=noise, rng=rng) for _ in range(2)]
        assert epipolar_search(tracks[:1], tracks[1:], RECTIFIED) is None


def test_motion_along_the_lines_tells_nothing():
    rng = np.random.default_rng(5)
    height = np.tile(0.2 * rng.normal(size=6), (1000, 1))
    x = wander(rng, 20.0)
    curve = epipolar_search([track(0.0, height, x=x)], [track(0.0, height, x=x)], RECTIFIED)
    # It agrees everywhere, so no two offsets differ.
    first, second = curve.peaks()[:2]
    assert abs(first.log_odds_over(second)) < 0.1


def test_people_are_told_apart_by_their_motion():
    rng = np.random.default_rng(6)
    one, two, three = (wander(rng, 20.0) for _ in range(3))
    a = [track(0.0, one), track(0.0, two)]
    b = [track(7.0, two), track(7.0, three), track(7.0, one)]
    assert best(epipolar_search(a, b, RECTIFIED)).offset_s == pytest.approx(7.0)
    # Somebody whom the other camera never sees speaks against no offset.
    curve = epipolar_search(a, b[:2], RECTIFIED)
    assert best(curve).offset_s == pytest.approx(7.0)
    assert best(curve).evidence > 5 * curve.chance_evidence


def test_nobody_and_next_to_nobody_have_no_curve():
    rng = np.random.default_rng(7)
    person = track(0.0, wander(rng, 10.0))
    missing = track(0.0, np.full((500, 6), np.nan))
    glimpse = track(0.0, wander(rng, 0.4))
    for a, b in (([], [person]), ([person], []), ([], []), ([person], [missing]), ([missing], [person])):
        assert epipolar_search(a, b, RECTIFIED) is None
    assert epipolar_search([glimpse], [person], RECTIFIED) is None


def test_a_joint_or_two_in_common_are_too_few():
    rng = np.random.default_rng(8)
    height = wander(rng, 20.0, joints=8)
    left, right = height.copy(), height.copy()
    left[:, 5:], right[:, :3] = np.nan, np.nan  # two of eight in common
    assert epipolar_search([track(0.0, left)], [track(0.0, right)], RECTIFIED) is None


# The correlation.


def blink(start_s, duration_s, seed=0, offset_s=0.0):
    """Return a person whose one movement is known at every instant: joints on circles at changing speed."""
    rng = np.random.default_rng(seed)
    t = np.arange(0, duration_s, STEP_S)[:, None] + offset_s
    rate, phase = rng.uniform(0.15, 0.6, (3, 5, 4)), rng.uniform(0, 2 * np.pi, (3, 5, 4))
    angle = sum(np.sin(2 * np.pi * rate[k] * t[:, :, None] + phase[k]).sum(-1) for k in range(3))
    xy = 0.5 * np.stack([np.cos(angle), np.sin(angle)], axis=-1)
    return Trajectory(start_s, xy, np.gradient(xy, STEP_S, axis=0), np.ones(len(xy)))


@pytest.mark.parametrize("offset", [0.0, 4.3, -8.85])
def test_a_known_signal_is_found_with_its_sign(offset):
    # b's recording starts 10 s into a's motion: what a sees at 10 s, b sees at 10 s + offset.
    a, b = blink(0.0, 40.0), blink(10.0 + offset, 25.0, offset_s=10.0)
    curve = correlation_search([a], [b])
    assert best(curve).offset_s == pytest.approx(offset, abs=LAG_STEP_S / 2 + 1e-9)
    assert best(curve).evidence > 5 * curve.chance_evidence
    # 25 s, less what differences need at the ends, hold 50 moments.
    assert 48 < best(curve).moments <= 50
    back = best(correlation_search([b], [a]))
    assert back.offset_s == pytest.approx(-offset, abs=LAG_STEP_S / 2 + 1e-9)
    assert back.evidence == pytest.approx(best(curve).evidence, rel=0.02)


def test_the_correlation_s_evidence_is_that_of_its_coefficient():
    # A signal against itself: r = 1, cut at 0.999.
    found = best(correlation_search([blink(0.0, 30.0)], [blink(0.0, 30.0)]))
    assert found.offset_s == 0.0
    assert found.evidence / found.moments == pytest.approx(-0.5 * np.log(1 - 0.999**2), rel=1e-3)


def test_distance_and_focal_length_do_not_matter_to_the_correlation():
    a, b = blink(0.0, 30.0), blink(5.0, 30.0)
    near = Trajectory(5.0, 700 * b.xy, 700 * b.velocity, 700 * b.size)
    assert best(correlation_search([a], [near])) == pytest.approx(best(correlation_search([a], [b])))


def test_the_fastest_person_gives_the_signal():
    mover = blink(0.0, 30.0)
    still = Trajectory(0.0, np.zeros_like(mover.xy), np.zeros_like(mover.xy), mover.size)
    alone = best(correlation_search([mover], [mover]))
    for people in ([still, mover], [mover, still]):
        assert best(correlation_search(people, [mover])) == alone


def test_unrelated_signals_do_not_correlate():
    for seed in range(1, 6):
        curve = correlation_search([blink(0.0, 40.0)], [blink(0.0, 40.0, seed=seed)])
        assert best(curve).evidence < 2 * curve.chance_evidence
        assert best(curve).evidence / best(curve).moments < 0.35  # 3.1 where they are the same


def test_gaps_do_not_speak_for_an_offset():
    a, b = blink(0.0, 40.0), blink(0.0, 40.0)
    holes = a.xy.copy()
    holes[500:900] = np.nan
    holed = Trajectory(0.0, holes, a.velocity, a.size)
    found = best(correlation_search([holed], [b]))
    assert found.offset_s == 0.0
    assert 60 < found.moments < 66  # 80 moments less 16


def test_nobody_correlates_with_nobody():
    person = blink(0.0, 20.0)
    missing = Trajectory(0.0, np.full_like(person.xy, np.nan), person.velocity, np.full(1000, np.nan))
    for a, b in (([], [person]), ([person], []), ([person], [missing]), ([missing], [missing])):
        assert correlation_search(a, b) is None
