import numpy as np

from mvpose.recon.track import Stretch, continuity


def walk(start_s, stop_s, at, velocity, joints=3, step_s=0.1):
    """A person who is at ``at`` (3,) at time 0 and moves on at constant velocity."""
    t = np.arange(start_s, stop_s, step_s)
    shape = np.arange(joints)[:, None] * np.array([0, 0, 0.3])
    return Stretch(t, np.array(at) + t[:, None, None] * np.array(velocity) + shape)


def test_steady_motion_over_a_gap_is_one_person():
    assert continuity(walk(0, 1, [0, 0, 0], [1, 0, 0]), walk(2, 3, [0, 0, 0], [1, 0, 0])) > 1


def test_someone_else_nearby_is_not():
    before = walk(0, 1, [0, 0, 0], [1, 0, 0])
    assert continuity(before, walk(1, 2, [0, 0.7, 0], [1, 0, 0])) < -5


def test_of_two_who_cross_each_goes_on_in_its_own_direction():
    east, west = walk(0, 1, [-1, 0.1, 0], [1, 0, 0]), walk(0, 1, [1, -0.1, 0], [-1, 0, 0])
    east_on, west_on = walk(1.3, 2, [-1, 0.1, 0], [1, 0, 0]), walk(1.3, 2, [1, -0.1, 0], [-1, 0, 0])
    assert continuity(east, east_on) > continuity(east, west_on) + 0.5
    assert continuity(west, west_on) > continuity(west, east_on) + 0.5


def test_evidence_fades_with_the_gap():
    first = walk(0, 1, [0, 0, 0], [0, 0, 0])
    weights = [continuity(first, walk(s, s + 1, [0, 0, 0], [0, 0, 0])) for s in (1.0, 1.5, 2.5)]
    assert weights[0] > weights[1] > weights[2] > 0
    assert continuity(first, walk(4, 5, [0, 0, 0], [0, 0, 0])) == 0


def test_no_common_joint_is_no_evidence():
    before, after = walk(0, 1, [0, 0, 0], [0, 0, 0]), walk(1, 2, [0, 0, 0], [0, 0, 0])
    before.xyz_m[:, 0], after.xyz_m[:, 1:] = np.nan, np.nan
    assert continuity(before, after) == 0
