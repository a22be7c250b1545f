from dataclasses import replace

import numpy as np
import pytest

from mvpose.poses import Poses3D
from mvpose.recon.smooth import smooth
from mvpose.skeleton import Skeleton

ONE = Skeleton("one", ("nose",))


def path(xyz, fps=60.0, cov=None):
    """Poses of one person with one joint that goes along xyz (T, 3)."""
    xyz = np.asarray(xyz, dtype=float)[:, None, None]
    there = np.isfinite(xyz).all(axis=-1)
    cov = np.full(len(xyz), 1e-4) if cov is None else cov
    return Poses3D(
        time_s=np.arange(len(xyz)) / fps,
        xyz_m=xyz,
        person_ids=np.array([0]),
        reprojection_px=np.where(there, 1.0, np.nan),
        n_views=np.where(there, 4, 0),
        cov_m2=np.where(there[..., None, None], (np.asarray(cov)[:, None, None, None, None] * np.eye(3)), np.nan),
        skeleton=ONE,
    )


def wave(frequency_hz, T=1200, fps=60.0):
    t = np.arange(T) / fps
    return np.stack([np.sin(2 * np.pi * frequency_hz * t), 0 * t, 0 * t + 5], axis=-1)


def test_a_parabola_passes_unchanged():
    t = np.arange(200)[:, None] / 60
    xyz = t**2 * [1, -2, 0.5] + t * [0, 3, 1] + 7
    out = smooth(path(xyz))
    assert np.allclose(out.xyz_m[:, 0, 0], xyz, atol=1e-6)
    assert out.smoothed and not path(xyz).smoothed


@pytest.mark.parametrize("cutoff_hz", [3.0, 6.0, 12.0])
@pytest.mark.parametrize("fps", [25.0, 60.0, 240.0])
def test_the_cutoff_keeps_half_the_power(cutoff_hz, fps):
    if cutoff_hz > 0.45 * fps:
        pytest.skip("beyond Nyquist")
    T = int(10 * fps)
    x = smooth(path(wave(cutoff_hz, T, fps), fps), cutoff_hz=cutoff_hz).xyz_m[:, 0, 0, 0]
    middle = slice(T // 4, -T // 4)
    gain = np.std(x[middle]) / np.std(wave(cutoff_hz, T, fps)[middle, 0])
    assert 0.66 < gain < 0.74  # 1/√2; the search for spikes takes a little of it


def test_slow_motion_stays_and_fast_noise_goes():
    for frequency_hz, low, high in ((1.0, 0.995, 1.001), (20.0, 0.0, 0.01)):
        x = smooth(path(wave(frequency_hz))).xyz_m[300:-300, 0, 0, 0]
        assert low < np.std(x) * np.sqrt(2) < high


def test_a_cutoff_above_nyquist_smooths_next_to_nothing():
    xyz = wave(1.0, 200, 10.0)
    assert np.abs(smooth(path(xyz, 10.0)).xyz_m[:, 0, 0] - xyz).max() < 0.02


def test_a_short_gap_is_bridged_and_says_so():
    xyz = wave(0.5)
    gap = slice(300, 312)
    holed = xyz.copy()
    holed[gap] = np.nan
    out = smooth(path(holed))
    assert np.abs(out.xyz_m[gap, 0, 0] - xyz[gap]).max() < 0.002
    assert (out.n_views[gap] == 0).all() and np.isnan(out.reprojection_px[gap]).all()
    sigma = np.sqrt(out.cov_m2[295:317, 0, 0, 0, 0])
    assert (sigma[5:17] > 1.05 * sigma[0]).all() and sigma.argmax() in (10, 11)
    assert sigma[10] == pytest.approx(np.hypot(0.01, 0.5 * 10 * (13 / 60) ** 2 / 4), rel=0.02)


def test_a_long_gap_and_the_ends_stay_missing():
    xyz = wave(0.5)
    xyz[300:320] = np.nan
    xyz[:5] = np.nan
    xyz[-7:] = np.nan
    out = smooth(path(xyz))
    assert np.array_equal(np.isfinite(out.xyz_m[:, 0, 0]), np.isfinite(xyz))
    assert np.array_equal(np.isfinite(out.cov_m2[:, 0, 0, 0, 0]), np.isfinite(xyz[:, 0]))


def test_too_few_samples_about_a_gap_are_not_joined():
    xyz = np.full((30, 3), np.nan)
    xyz[[10, 14]] = 1.0
    out = smooth(path(xyz))
    assert np.array_equal(np.isfinite(out.xyz_m[:, 0, 0, 0]), np.isfinite(xyz[:, 0]))
    assert np.allclose(out.xyz_m[[10, 14]], 1.0)


def test_a_spike_and_an_uncertain_stretch_have_little_say():
    xyz = wave(0.5)
    rng = np.random.default_rng(0)
    noisy = xyz + rng.normal(0, 0.005, xyz.shape)
    noisy[600] += 0.5
    assert np.abs(smooth(path(noisy)).xyz_m[595:606, 0, 0] - xyz[595:606]).max() < 0.02
    shaky = xyz + rng.normal(0, 0.005, xyz.shape)
    shaky[600:603, 1] += 0.05
    cov = np.full(len(xyz), 1e-4)
    cov[600:603] = 1e-2
    errors = [np.abs(smooth(path(shaky, cov=c)).xyz_m[598:605, 0, 0, 1]).max() for c in (None, cov)]
    assert errors[1] < 0.6 * errors[0]


def test_nothing_seen_one_sample_and_a_bad_cutoff():
    empty = path(np.full((10, 3), np.nan))
    assert np.isnan(smooth(empty).xyz_m).all()
    assert np.array_equal(smooth(path([[1, 2, 3]])).xyz_m[0, 0, 0], [1, 2, 3])
    with pytest.raises(ValueError, match="cutoff"):
        smooth(empty, cutoff_hz=0)


def test_the_input_is_left_as_it_was():
    poses = path(wave(2.0))
    before = replace(poses, xyz_m=poses.xyz_m.copy())
    smooth(poses)
    assert np.array_equal(poses.xyz_m, before.xyz_m)
