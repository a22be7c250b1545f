import numpy as np

from mvpose.recon.track import MAX_LINK_S, Stretch, continuity


def walk(start_s, stop_s, at, velocity, joints=3, step_s=0.1):
    """A person who is at ``at`` (3,) at time 0 and moves on at constant velocity."""
    t = np.arange(start_s, stop_s, step_s)
    shape = np.arange(joints)[:, None] * np.array([0, 0, 0.3])
    return Stretch(t, np.array(at) + t[:, None, None] * np.array(velocity) + shape)


def link(before, after):
    return continuity([before], [after])[0]


def test_steady_motion_over_a_gap_is_one_person():
    assert link(walk(0, 1, [0, 0, 0], [1, 0, 0]), walk(2, 3, [0, 0, 0], [1, 0, 0])) > 1


def test_someone_else_nearby_is_not():
    before = walk(0, 1, [0, 0, 0], [1, 0, 0])
    assert link(before, walk(1, 2, [0, 0.7, 0], [1, 0, 0])) < -1
    assert link(before, walk(1, 2, [0, 2.0, 0], [1, 0, 0])) < -5


def test_of_two_who_cross_each_goes_on_in_its_own_direction():
    east, west = walk(0, 1, [-1, 0.1, 0], [1, 0, 0]), walk(0, 1, [1, -0.1, 0], [-1, 0, 0])
    east_on, west_on = walk(1.3, 2, [-1, 0.1, 0], [1, 0, 0]), walk(1.3, 2, [1, -0.1, 0], [-1, 0, 0])
    assert link(east, east_on) > link(east, west_on) + 0.5
    assert link(west, west_on) > link(west, east_on) + 0.5


def test_evidence_fades_with_the_gap():
    first = walk(0, 1, [0, 0, 0], [0, 0, 0])
    weights = [link(first, walk(s, s + 1, [0, 0, 0], [0, 0, 0])) for s in (1.0, 1.5, 2.5)]
    assert weights[0] > weights[1] > weights[2] > 0
    late = 1.1 + MAX_LINK_S
    assert link(first, walk(late, late + 1, [0, 0, 0], [0, 0, 0])) == 0


def test_pairs_are_weighed_together_as_alone():
    one, two = walk(0, 1, [0, 0, 0], [1, 0, 0]), walk(0, 1.2, [0, 2, 0], [0, 1, 0])
    later = walk(2, 3, [0.1, 0, 0], [1, 0, 0])
    assert continuity([one, two], [later, later]).tolist() == [link(one, later), link(two, later)]
    assert continuity([], []).shape == (0,)


def test_the_velocity_is_that_near_the_end():
    t = np.arange(0, 3, 0.1)
    turned = Stretch(t, np.maximum(t - 2, 0)[:, None, None] * np.array([1.0, 0, 0]) + np.zeros((1, 3, 1)))
    assert np.allclose(turned.start.velocity_mps, 0) and np.allclose(turned.end.velocity_mps, [1, 0, 0])


def test_no_common_joint_is_no_evidence():
    before, after = walk(0, 1, [0, 0, 0], [0, 0, 0]), walk(1, 2, [0, 0, 0], [0, 0, 0])
    before.xyz_m[:, 0], after.xyz_m[:, 1:] = np.nan, np.nan
    assert link(before, after) == 0
