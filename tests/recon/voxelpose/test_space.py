"""The room of a rig, and the way between voxels and the world."""

from dataclasses import replace

import numpy as np
import pytest

from mvpose.calib.rig import CameraRig
from mvpose.errors import ReconstructionError
from mvpose.recon.voxelpose.space import MAX_CELLS, Space, room_of, upright_axes
from mvpose.synthetic.rigs import random_rig, ring_rig


@pytest.mark.parametrize("up", [[0, 0, 1], [0, -1, 0], [1, 0, 0], [0, 1, 0]])
def test_axes_are_a_rotation_whose_last_row_is_up(up):
    axes = upright_axes(np.array(up, dtype=float))
    assert np.allclose(axes @ axes.T, np.eye(3))
    assert np.linalg.det(axes) == pytest.approx(1)
    assert axes[2].tolist() == up


def test_cells_and_world_are_two_names_of_one_place():
    space = Space(np.array([1.0, 2, 3]), upright_axes(np.array([0.0, -1, 0])), (4, 8, 12), 0.25)
    points = space.points()
    assert points.shape == (4, 8, 12, 3)
    assert np.allclose(space.to_local(points[1, 2, 3]), [1, 2, 3])
    assert np.allclose(space.to_world(np.array([1, 2, 3])), points[1, 2, 3])
    assert np.allclose(points.mean(axis=(0, 1, 2)), [1, 2, 3])
    assert np.allclose(points[0, 0, 1] - points[0, 0, 0], [0, -0.25, 0])


@pytest.mark.parametrize("seed", range(5))
def test_a_room_holds_where_people_are_looked_at(seed):
    rig = random_rig(np.random.default_rng(seed), 4)
    room = room_of(rig)
    assert all(n % 4 == 0 and n <= MAX_CELLS for n in room.cells)
    for place in ([0, 0, 0.9], [0.7, -0.7, 1.0], [0, 0, 1.6]):
        cell = room.to_local(np.array(place))
        assert ((cell >= 0) & (cell <= np.array(room.cells) - 1)).all()


def test_a_room_follows_its_rig_wherever_and_however_the_world_lies():
    """The calibration's origin may be anywhere, and its y may point down."""
    rig = ring_rig(4)
    turn = np.array([[1.0, 0, 0], [0, 0, -1], [0, 1, 0]])  # world z up → y down: p' = turn p + shift
    shift = np.array([30.0, -7, 12])
    moved = []
    for camera in rig:
        world = np.eye(4)
        world[:3, :3], world[:3, 3] = turn.T, -turn.T @ shift
        moved.append(replace(camera, cam_from_world=camera.cam_from_world @ world))
    own, other = room_of(rig), room_of(CameraRig(tuple(moved), up="-y"))
    assert other.voxel_m == pytest.approx(own.voxel_m, rel=0.15)
    chest = np.array([0.2, 0.4, 1.2])
    assert np.allclose(other.to_world(other.to_local(turn @ chest + shift)), turn @ chest + shift)
    inside = other.to_local(turn @ chest + shift)
    assert ((inside > 0) & (inside < other.cells)).all()
    assert (other.axes[2] == [0, -1, 0]).all()


def test_cameras_that_share_no_place_are_named():
    a = ring_rig(2, radius_m=3.0).cameras[0]
    away = np.diag([-1.0, 1, -1, 1])  # turned by half a turn about its own y
    b = replace(a, name="cam02", cam_from_world=away @ a.cam_from_world)
    with pytest.raises(ReconstructionError, match="cam01, cam02 see a common place"):
        room_of(CameraRig((a, b)))
