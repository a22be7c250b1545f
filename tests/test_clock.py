from dataclasses import replace

import numpy as np
import pytest

from mvpose.clock import Clock, Clocks, identity_clock, unsynchronised_clocks

COV = np.array([[4e-6, -1e-8], [-1e-8, 1e-9]])


def clock(name="b", offset_s=-3.5, rate=1.0001, **more):
    return Clock(name, offset_s, rate, more.pop("cov", COV), epoch_s=more.pop("epoch_s", 10.0), **more)


def three_clocks():
    clocks = {"a": identity_clock("a", 4.0), "b": clock(), "c": clock("c", 7.25, 0.9997, epoch_s=20.0)}
    return Clocks("a", clocks, {"d": "it shows a wall"}, (("a", "b", "c"), ("d",)), 0.004, 0.002)


def test_a_clock_maps_its_time_to_the_session_and_back():
    t = np.array([[0.0, 10.0], [-2.5, 1e4]])
    np.testing.assert_allclose(clock().to_session(t), -3.5 + 1.0001 * t, atol=1e-12)
    np.testing.assert_allclose(clock().to_camera(clock().to_session(t)), t, atol=1e-9)
    assert float(clock().to_session(10.0)) == pytest.approx(6.501)


def test_sigma_is_that_of_a_line_with_correlated_ends():
    t = np.array([0.0, 10.0, 40.0])
    lines = np.random.default_rng(0).multivariate_normal([0, 0], COV, 200_000)
    np.testing.assert_allclose(clock().sigma_s(t), (lines[:, :1] + lines[:, 1:] * (t - 10.0)).std(axis=0), rtol=0.01)
    np.testing.assert_allclose(np.sqrt(clock().cov_at_zero[0, 0]), clock().sigma_s(0.0))
    assert clock().sigma_at_epoch_s == clock().sigma_s(10.0)
    assert identity_clock("a", 10.0).sigma_at_epoch_s == 0.0


def test_times_since_1970_lose_nothing_to_rounding():
    # Known to 2 ms now, with a rate known to 30 ppm: at time 0, in 1970, that is hours.
    far = clock(cov=[[4e-6, 1e-9], [1e-9, 9e-10]], epoch_s=1.7e9)
    assert far.sigma_at_epoch_s == pytest.approx(2e-3, rel=1e-12)
    assert float(far.sigma_s(1.7e9 + 60.0)) == pytest.approx(float(np.sqrt(4e-6 + 120e-9 + 3600 * 9e-10)), rel=1e-6)
    assert far.cov_at_zero[0, 0] == pytest.approx(1.7e9**2 * 9e-10, rel=1e-6)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"cov": np.zeros(2)}, "symmetric"),
        ({"cov": [[1.0, 0.5], [0.0, 1.0]]}, "symmetric"),
        ({"cov": np.full((2, 2), np.nan)}, "clock of b"),
        ({"offset_s": np.nan}, "finite"),
        ({"rate": np.inf}, "finite"),
        ({"rate": 0.0}, "positive"),
        ({"rate": -1.0}, "positive"),
    ],
)
def test_what_is_no_clock_is_refused(wrong, message):
    with pytest.raises(ValueError, match=message):
        clock(**wrong)


def test_another_reference_changes_nothing_between_cameras():
    clocks = three_clocks()
    moved = clocks.on("c")
    assert (moved["c"].offset_s, moved["c"].rate) == (0.0, 1.0)
    assert not moved["c"].cov.any()
    assert moved.reference == "c"
    t = np.array([0.0, 100.0, 1e4])
    for name in "abc":
        for other in "abc":
            before = clocks[other].to_camera(clocks[name].to_session(t))
            np.testing.assert_allclose(moved[other].to_camera(moved[name].to_session(t)), before, atol=1e-8)
    back = moved.on("a")
    for name in "abc":
        assert back[name].offset_s == pytest.approx(clocks[name].offset_s, abs=1e-9)
        assert back[name].rate == pytest.approx(clocks[name].rate, abs=1e-12)
    assert moved["b"].epoch_s == clocks["b"].epoch_s
    assert moved.unsynchronised == clocks.unsynchronised
    assert moved.cycle_residual_max_s == clocks.cycle_residual_max_s


def test_uncertainties_count_in_the_new_reference_s_seconds():
    slow = replace(three_clocks(), clocks={"a": identity_clock("a"), "b": clock(), "c": clock("c", 0.0, 0.5)})
    np.testing.assert_allclose(slow.on("c")["b"].cov, COV * 4)


def test_a_camera_without_a_clock_is_no_reference():
    with pytest.raises(KeyError):
        three_clocks().on("d")


@pytest.mark.parametrize(
    ("reference", "clocks", "unsynchronised", "message"),
    [
        ("b", {"a": identity_clock("a")}, {}, "reference camera 'b' has no clock"),
        ("a", {"a": identity_clock("a")}, {"a": "?"}, "with a clock and without"),
        ("a", {"a": identity_clock("a"), "b": identity_clock("c")}, {}, "filed under 'b' belongs to 'c'"),
    ],
)
def test_clocks_that_contradict_themselves_are_refused(reference, clocks, unsynchronised, message):
    with pytest.raises(ValueError, match=message):
        Clocks(reference, clocks, unsynchronised)


def test_without_synchronisation_every_camera_keeps_its_own_time():
    raw = unsynchronised_clocks(["x", "y"])
    assert raw.reference == "x"
    assert raw.components == (("x", "y"),)
    assert [(raw[n].offset_s, raw[n].rate) for n in "xy"] == [(0.0, 1.0)] * 2
    assert np.isnan(raw.cycle_residual_max_s)
