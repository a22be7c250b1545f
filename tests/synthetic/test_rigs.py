import numpy as np
import pytest

from mvpose.synthetic.rigs import random_rig, ring_rig


def test_a_ring_looks_at_its_centre():
    rig = ring_rig(5, radius_m=4.0, height_m=1.8)
    assert rig.names == ("cam01", "cam02", "cam03", "cam04", "cam05")
    assert rig.up == "z"
    for camera in rig:
        np.testing.assert_allclose(camera.project(np.array([0.0, 0.0, 1.0])), [959.5, 539.5], atol=1e-6)
        assert np.hypot(*camera.center_m[:2]) == pytest.approx(4.0)
        assert camera.center_m[2] == pytest.approx(1.8)


@pytest.mark.parametrize("seed", range(5))
def test_every_rig_stands_upright_and_sees_the_room(seed):
    rng = np.random.default_rng(seed)
    corners = np.array([[x, y, z] for x in (-0.7, 0.7) for y in (-0.7, 0.7) for z in (0.2, 1.7)])
    for camera in (*ring_rig(4, rng=rng), *random_rig(rng, 6)):
        foot, head = camera.project(np.array([[0, 0, 0.1], [0, 0, 1.7]]))
        assert head[1] < foot[1]
        assert camera.sees(corners).mean() > 0.6
        assert (camera.project(np.array([0.0, 0.0, 1.0])) > 0).all()


def test_randomness_moves_cameras_and_seeds_repeat_it():
    plain, first, again, other = (
        ring_rig(3, rng=None if seed is None else np.random.default_rng(seed)) for seed in (None, 1, 1, 2)
    )
    for a, b, c, d in zip(plain, first, again, other, strict=True):
        np.testing.assert_array_equal(b.cam_from_world, c.cam_from_world)
        assert 0.01 < np.linalg.norm(a.center_m - b.center_m) < 1.6
        assert np.linalg.norm(b.center_m - d.center_m) > 0.01
        assert b.dist.any()


def test_random_rigs_differ_in_height_shape_and_roll():
    cameras = [camera for seed in range(10) for camera in random_rig(np.random.default_rng(seed), 4)]
    heights = np.array([camera.center_m[2] for camera in cameras])
    assert heights.min() < 1.2
    assert heights.max() > 2.8
    upright = np.mean([camera.size_px[1] > camera.size_px[0] for camera in cameras])
    assert 0.05 < upright < 0.5
    assert np.std([camera.R[0, 2] for camera in cameras]) > 0.05
