import numpy as np
import pytest

from mvpose.smoothing import body_size, local_parabola, running_median, smoothing_reach, without_gross_errors


def test_at_least_five_frames_carry_a_value():
    assert smoothing_reach(np.arange(100) / 60) == 0.1
    assert smoothing_reach(np.arange(100) / 10) == pytest.approx(0.22)


@pytest.mark.parametrize("rate_hz", [10.0, 25.0, 60.0])
def test_a_parabola_passes_unchanged_at_any_instant(rate_hz):
    rng = np.random.default_rng(0)
    time_s = np.arange(0, 4, 1 / rate_hz) + rng.uniform(-0.2, 0.2, int(4 * rate_hz)) / rate_hz
    at_s = rng.uniform(0.5, 3.5, 50)
    a, b, c = rng.normal(size=(3, 2, 2))
    curve = a + b * time_s[:, None, None] + c * time_s[:, None, None] ** 2
    value, slope = local_parabola(time_s, curve, rng.uniform(0.1, 1, (len(time_s), 2)), at_s, 0.25)
    np.testing.assert_allclose(value, a + b * at_s[:, None, None] + c * at_s[:, None, None] ** 2, atol=1e-7)
    np.testing.assert_allclose(slope, b + 2 * c * at_s[:, None, None], atol=1e-6)


def test_nothing_is_extrapolated_and_no_gap_bridged():
    time_s = np.concatenate([np.arange(0, 1, 0.04), np.arange(2, 3, 0.04)])
    at_s = np.array([-0.01, 0.0, 0.5, 0.96, 1.0, 1.5, 1.99, 2.0, 2.96, 2.97])
    value, _ = local_parabola(time_s, np.zeros((50, 1, 2)), np.ones((50, 1)), at_s, 0.1)
    seen = np.isfinite(value).all(axis=(1, 2))
    np.testing.assert_array_equal(seen, [False, True, True, True, False, False, False, True, True, False])


def test_a_missing_joint_is_left_out_of_its_neighbours():
    time_s = np.arange(0, 2, 0.04)
    xy = np.zeros((50, 2, 2))
    xy[20, 0] = np.nan
    xy[20, 1] = 100.0
    score = np.ones((50, 2))
    score[20, 1] = 0.0
    value, _ = local_parabola(time_s, xy, score, time_s[15:26], 0.15)
    np.testing.assert_allclose(value, 0, atol=1e-9)


def test_scores_weigh():
    time_s = np.arange(0, 2, 0.02)
    xy = np.zeros((100, 1, 2))
    xy[::2] = 1.0
    score = np.full((100, 1), 0.2)
    score[::2] = 0.8
    value, _ = local_parabola(time_s, xy, score, np.array([1.0]), 0.3)
    np.testing.assert_allclose(value, 0.8, atol=0.02)


def test_noise_is_nearly_the_same_between_frames_as_on_them():
    # Interpolating two frames would halve the variance half-way, and draw offsets there.
    rng = np.random.default_rng(0)
    time_s = np.arange(0, 400, 0.1)
    noise = rng.standard_normal((len(time_s), 8, 2))
    score = np.ones((len(time_s), 8))
    on, between = (local_parabola(time_s, noise, score, time_s[5:-5] + d, 0.22)[0].std() for d in (0.0, 0.05))
    assert 0.9 < between / on < 1.1  # measured 0.95; two frames would give 0.71


def test_the_running_median_is_of_what_is_known():
    values = np.array([5.0, np.nan, 1.0, 2.0, 9.0, np.nan, np.nan, np.nan])
    np.testing.assert_allclose(running_median(values, 1), [5.0, 3.0, 1.5, 2.0, 5.5, 9.0, np.nan, np.nan])


@pytest.mark.parametrize("rate_hz", [10.0, 30.0, 60.0])
def test_gross_errors_go_and_fast_joints_stay(rate_hz):
    rng = np.random.default_rng(1)
    time_s = np.arange(0, 6, 1 / rate_hz)
    still = np.linspace(0.0, 2.0, 14)[:, None] * [0.2, 1.0]
    waving = np.stack([0.5 + 0.4 * np.sin(2 * np.pi * time_s), 1 + 0.4 * np.cos(2 * np.pi * time_s)], -1)
    true = np.concatenate([np.repeat(still[None], len(time_s), 0), waving[:, None]], axis=1)
    seen = true + rng.normal(0, 0.02, true.shape)
    np.testing.assert_array_equal(np.isfinite(without_gross_errors(time_s, seen)), True)
    wrong = rng.random(seen.shape[:2]) < 0.1
    seen[wrong] = rng.uniform(-4, 4, (wrong.sum(), 2))
    kept = np.isfinite(without_gross_errors(time_s, seen)).all(-1)
    far = wrong & (np.linalg.norm(seen - true, axis=-1) > 1.0)
    assert kept[~wrong].mean() > 0.97
    # Measured: 0.085, 0.01, 0. At 10 fps five frames decide, and two of them may be wrong.
    assert kept[far].mean() < (0.12 if rate_hz == 10 else 0.03)
    np.testing.assert_allclose(body_size(time_s, np.where(kept[..., None], seen, np.nan)), 2.0, rtol=0.3)
