from dataclasses import replace

import numpy as np
import pytest

from mvpose.bench.clocks import BASE, detect_people, make_recording
from mvpose.bench.refinements import (
    REFINEMENTS,
    START_ERROR_S,
    put_off,
    refine_by_points,
    refine_by_splines,
    refine_each_way,
)
from mvpose.recon.metrics import clock_errors
from mvpose.synthetic.motion import generate_motion
from mvpose.synthetic.noise import DetectorNoise
from mvpose.synthetic.world import observe

CASE = replace(BASE, common_s=8.0, fps=(25.0, 30.0, 10.0), max_offset_s=2.0, drift_ppm=0.0)


def seen(noise=None):
    """One person's keypoints, the cameras, and the true clocks."""
    world = make_recording(CASE, {"clip": generate_motion(np.random.default_rng(3), 20.0)}, 4)
    keypoints = observe(world, np.random.default_rng(5), noise)
    return keypoints, {camera.name: camera for camera in world.rig}, world.true_clocks(world.rig.names[1])


def middles(keypoints):
    return {name: float(k.time_s[[0, -1]].mean()) for name, k in keypoints.items()}


@pytest.mark.parametrize("refine", [refine_by_points, refine_by_splines])
@pytest.mark.parametrize("without_slow", [False, True])
def test_exact_keypoints_give_the_true_clocks_back(refine, without_slow):
    keypoints, cameras, truth = seen()
    middle_s = middles(keypoints)
    start = put_off(np.random.default_rng(0), truth, middle_s)
    clocks = refine(keypoints, cameras, start, without_slow=without_slow)
    assert clocks[truth.reference] == start[truth.reference]
    assert clock_errors(start, truth, middle_s)["timing_error_ms_max"] > 5
    # Measured: 0.05 to 0.4 ms.
    assert clock_errors(clocks, truth, middle_s)["timing_error_ms_max"] < 0.8


def test_clocks_are_put_off_by_up_to_the_start_error_but_for_the_reference():
    keypoints, _, truth = seen()
    middle_s = middles(keypoints)
    starts = [put_off(np.random.default_rng(seed), truth, middle_s) for seed in range(20)]
    errors = [abs(e["error_ms"]) for s in starts for e in clock_errors(s, truth, middle_s)["cameras"].values()]
    assert 0.8e3 * START_ERROR_S < max(errors) <= 1e3 * START_ERROR_S
    assert all(float(s[truth.reference].to_session(1.0)) == 1.0 for s in starts)


def test_every_way_finds_clocks_in_noise_from_the_same_start():
    keypoints, cameras, truth = seen(DetectorNoise())
    found = refine_each_way(keypoints, cameras, truth, 0)
    assert found.keys() == REFINEMENTS.keys()
    for title, (errors, cpu_s) in found.items():
        assert len(errors) == 2
        assert max(errors) < 12.0, title  # measured: 1 to 6 ms
        assert cpu_s > 0


def test_a_camera_that_saw_nobody_is_left_aside():
    motions = {"a": generate_motion(np.random.default_rng(1), 20.0)}
    case = replace(BASE, common_s=5.0, fps=(10.0,) * 4)
    world = make_recording(case, motions, 1)
    keypoints = detect_people(world, case, 1)
    blind = world.rig.names[0]
    keypoints[blind] = keypoints[blind].only(np.zeros(0, dtype=int))
    cameras = {camera.name: camera for camera in world.rig}
    found = refine_each_way(keypoints, cameras, world.true_clocks(blind), 1)
    seeing = sum(bool(len(k.xy_px)) for k in keypoints.values())
    assert seeing >= 2
    searching, *started = (len(errors) for errors, _ in found.values())
    assert searching <= seeing - 1  # it may refuse what it cannot find
    assert set(started) == {seeing - 1}
