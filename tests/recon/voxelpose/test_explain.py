"""Whose each detection is, and who is left out."""

import numpy as np
import pytest

from mvpose.recon.voxelpose.explain import Detections, People, explained, unexplained
from mvpose.skeleton import CLIP_SKELETON
from mvpose.synthetic.motion import generate_motion
from mvpose.synthetic.rigs import ring_rig

J = len(CLIP_SKELETON)
RNG = np.random.default_rng(0)
RIG = ring_rig(4, rng=RNG)
C = len(RIG)
MOTION = generate_motion(RNG, 1.0, people=1)
BODY = MOTION.at(np.array([0.5]))[0, 0][MOTION.skeleton.indices(CLIP_SKELETON.joint_names)]
NONE = np.zeros((0, J, 3))
NOBODY = People.proposed(NONE, NONE, C)


def standing(*places):
    """People of one body, moved to places (x, y), metres from the room's middle."""
    middle = BODY.mean(axis=0) * [1, 1, 0]
    return np.stack([BODY - middle + [x, y, 0] for x, y in places])


def detections(xyz):
    """What all cameras see of people (n, J, 3), in an order that differs from view to view."""
    xy = np.stack([np.roll(camera.project(xyz), c, axis=0) for c, camera in enumerate(RIG)])
    height = np.ptp(xy[..., 1], axis=-1)
    return Detections(xy, np.ones(xy.shape[:-1]), np.full(xy.shape[:-1], 4.0), height)


def proposals(xyz, error_m=0.0):
    """People whom a network puts in places that are a little wrong, each its own way."""
    rng = np.random.default_rng(1)
    return People.proposed(xyz + error_m * rng.normal(0, 1, (len(xyz), 1, 3)), np.full(xyz.shape, 0.05), C)


def rest(people, seen):
    """Which detections (C, K) nobody explains."""
    return unexplained([people], Detections(*(a[None] for a in vars(seen).values())))[0]


def test_people_are_placed_where_their_detections_say():
    true = standing((-0.5, 0), (0.6, 0.3))
    seen = detections(true)
    people = explained(NOBODY, proposals(true, 0.08), seen, RIG.cameras)
    assert np.abs(people.xyz_m - true).max() > 0.05
    assert np.abs(people.placed_m - true).max() < 1e-6
    assert people.detection.tolist() == [[c % 2 for c in range(C)], [(c + 1) % 2 for c in range(C)]]
    assert not rest(people, seen).any()


def test_doubles_are_one_who_has_all_detections():
    true = standing((0, 0))
    people = explained(NOBODY, proposals(np.repeat(true, 3, axis=0), 0.08), detections(true), RIG.cameras)
    assert len(people) == 1 and people.views.tolist() == [C]


def test_people_who_stand_close_are_two():
    true = standing((0, 0), (0.3, 0))
    people = explained(NOBODY, proposals(true, 0.05), detections(true), RIG.cameras)
    assert len(people) == 2 and people.views.tolist() == [C, C]
    assert np.abs(people.placed_m - true).max() < 1e-6


def test_who_was_found_before_keeps_what_is_his_and_the_other_gets_the_rest():
    true = standing((0, 0), (0.3, 0))
    seen = detections(true)
    first = explained(NOBODY, proposals(true[:1]), seen, RIG.cameras)
    assert rest(first, seen).sum(axis=1).tolist() == [1] * C
    both = explained(first, proposals(true[1:] - 0.02), seen, RIG.cameras)
    assert len(both) == 2 and np.abs(both.placed_m - true).max() < 1e-6


@pytest.mark.parametrize("views, found", [(0, 0), (1, 0), (2, 1)])
def test_whom_fewer_than_two_views_show_is_nobody(views, found):
    true = standing((0, 0))
    seen = detections(true)
    seen.xy_px[views:] = np.nan
    people = explained(NOBODY, proposals(true), seen, RIG.cameras)
    assert len(people) == found


def test_who_is_far_from_every_detection_is_nobody():
    seen = detections(standing((0, 0)))
    assert len(explained(NOBODY, proposals(standing((1.2, 0))), seen, RIG.cameras)) == 0
    assert rest(NOBODY, seen).all()


@pytest.mark.parametrize("joints, found", [(2, 0), (3, 1)])
def test_of_whom_two_views_place_too_few_joints_is_nobody(joints, found):
    """Two views see five joints each, of which so many are the same."""
    true = standing((0, 0))
    seen = detections(true)
    seen.xy_px[2:] = np.nan
    seen.xy_px[0, :, 5:], seen.xy_px[1, :, : 5 - joints], seen.xy_px[1, :, 10 - joints :] = np.nan, np.nan, np.nan
    people = explained(NOBODY, proposals(true), seen, RIG.cameras)
    assert len(people) == found
    if found:
        assert people.triangulated.sum() == joints
