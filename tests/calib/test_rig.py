"""Video sizes against calibrated sizes, and which way is up."""

import numpy as np
import pytest

from mvpose.calib.camera import Camera
from mvpose.calib.rig import UP_AXES, CameraRig, guess_up, match_sizes
from mvpose.errors import CalibrationError


@pytest.fixture
def one(camera_at):
    return CameraRig((camera_at("cam01", (4.0, 0.5, 1.6)), camera_at("cam02", (-4.0, 0.5, 1.6))))


def test_same_size_is_silent(one, caplog):
    assert match_sizes(one, {"cam01": (1920, 1080)})["cam01"] is one["cam01"]
    assert not caplog.records


@pytest.mark.parametrize("size", [(1920, 1088), (1904, 1080), (1936, 1064)])
def test_padding_is_used_as_it_is(one, size, caplog):
    matched = match_sizes(one, {"cam01": size})
    assert matched["cam01"].size_px == size
    np.testing.assert_array_equal(matched["cam01"].K, one["cam01"].K)
    assert "camera cam01" in caplog.text
    assert "padding" in caplog.text
    assert matched["cam02"] is one["cam02"]


def test_padding_beats_scaling(camera_at):
    small = Camera("c", (320, 180), np.array([[300.0, 0, 160], [0, 300, 90], [0, 0, 1]]), np.zeros(5), np.eye(4))
    matched = match_sizes(CameraRig((small,)), {"c": (336, 189)})  # the same shape, 5 % larger
    np.testing.assert_array_equal(matched["c"].K, small.K)


@pytest.mark.parametrize("size", [(3840, 2160), (960, 540), (1280, 720), (1280, 717)])
def test_scaling_maps_pixel_areas(one, size, caplog):
    """A pixel's area, from x - 1/2 to x + 1/2, must scale: the image's corners stay its corners."""
    camera = one["cam01"]
    scaled = match_sizes(one, {"cam01": size})["cam01"]
    assert scaled.size_px == size
    ray_of_corner = (np.array([-0.5, -0.5]) - camera.K[:2, 2]) / camera.K[[0, 1], [0, 1]]
    np.testing.assert_allclose(ray_of_corner * scaled.K[[0, 1], [0, 1]] + scaled.K[:2, 2], [-0.5, -0.5], atol=1e-9)
    points = np.random.default_rng(0).uniform(-1, 1, (20, 3))
    expected = (camera.project(points) + 0.5) * np.array(size) / [1920, 1080] - 0.5
    np.testing.assert_allclose(scaled.project(points), expected, atol=1e-9)
    assert "scaled" in caplog.text


@pytest.mark.parametrize(
    ("size", "reason"),
    [
        ((1080, 1920), "width and height are swapped"),
        ((720, 1280), "width and height are swapped"),
        ((1088, 1920), "width and height are swapped"),
        ((1920, 1097), "neither the same shape nor within 16 px"),
        ((1937, 1080), "neither the same shape nor within 16 px"),
        ((1440, 1080), "neither the same shape nor within 16 px"),
        ((1280, 713), "neither the same shape"),
    ],
)
def test_other_sizes_are_refused(one, size, reason):
    with pytest.raises(CalibrationError, match=reason) as caught:
        match_sizes(one, {"cam01": size})
    assert f"camera cam01: the video is {size[0]} x {size[1]}, its calibration is for 1920 x 1080" in str(caught.value)


def test_unknown_camera_is_named(one):
    with pytest.raises(CalibrationError, match="no camera 'cam09'"):
        match_sizes(one, {"cam09": (1920, 1080)})


def test_unknown_size_takes_the_videos(camera_at):
    rig = CameraRig((camera_at("c", (4.0, 0.5, 1.6), size_known=False),))
    matched = match_sizes(rig, {"c": (1900, 1100)})["c"]
    assert (matched.size_px, matched.size_known) == ((1900, 1100), True)
    np.testing.assert_array_equal(matched.K, rig["c"].K)
    for size in ((3840, 2160), (960, 540), (1080, 1920)):
        with pytest.raises(CalibrationError, match="another resolution"):
            match_sizes(rig, {"c": size})


def ring(camera_at, up, elevation_deg=20, roll_deg=0):
    """Six cameras round the origin, looking down at it."""
    axis = UP_AXES[up]
    side = np.roll(axis, 1)
    other = np.cross(axis, side)
    turn = np.radians(roll_deg)
    roll = np.array([[np.cos(turn), -np.sin(turn), 0], [np.sin(turn), np.cos(turn), 0], [0, 0, 1]])
    cameras = []
    for index, angle in enumerate(np.linspace(0, 2 * np.pi, 6, endpoint=False)):
        flat = np.cos(angle) * side + np.sin(angle) * other
        centre = 4 * (np.cos(np.radians(elevation_deg)) * flat + np.sin(np.radians(elevation_deg)) * axis)
        camera = camera_at(f"c{index}", tuple(centre), up=axis)
        pose = camera.cam_from_world.copy()
        pose[:3] = roll @ pose[:3]
        cameras.append(Camera(camera.name, camera.size_px, camera.K, camera.dist, pose))
    return cameras


@pytest.mark.parametrize("up", UP_AXES)
@pytest.mark.parametrize("roll_deg", [0, 5, 90, -90])
def test_up_is_found_upright_and_lying(camera_at, up, roll_deg):
    guess, tilt = guess_up(ring(camera_at, up, roll_deg=roll_deg))
    assert guess == up
    assert tilt < 1e-3 or roll_deg == 5


def test_tilt_is_told(camera_at):
    cameras = [camera_at("c", (4.0, 0.0, 0.0), up=(0, np.sin(0.3), np.cos(0.3)))]
    assert guess_up(cameras) == ("z", pytest.approx(np.degrees(0.3)))


def test_cameras_from_above_know_no_up(camera_at):
    assert guess_up(ring(camera_at, "z", elevation_deg=85)) is None
