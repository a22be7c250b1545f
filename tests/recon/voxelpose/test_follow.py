"""People followed from frame to frame."""

import numpy as np
import pytest

from mvpose.recon.voxelpose.follow import follow

TIME_S = np.arange(60) / 30.0
BODY = np.random.default_rng(0).normal(0, 0.4, (13, 3))


def walking(start, velocity, t):
    return BODY + np.array(start) + np.array(velocity) * t


def shuffled(people):
    """People in random order, as they are found, and who is who."""
    rng = np.random.default_rng(1)
    frames, truth = [], []
    for own in people:
        order = rng.permutation(len(own))
        frames.append(np.stack([own[i][1] for i in order]) if own else np.zeros((0, 13, 3)))
        truth.append(np.array([own[i][0] for i in order], dtype=int))
    return frames, truth


def same(names, truth):
    pairs = {(int(a), int(b)) for own, true in zip(names, truth, strict=True) for a, b in zip(own, true, strict=True)}
    return len(pairs) == len({a for a, _ in pairs}) == len({b for _, b in pairs})


def test_people_who_cross_keep_their_names():
    people = [[(0, walking([-2, 0.4, 1], [2, 0, 0], t)), (1, walking([2, -0.4, 1], [-2, 0, 0], t))] for t in TIME_S]
    frames, truth = shuffled(people)
    assert same(follow(TIME_S, frames), truth)


def test_whoever_is_not_found_for_a_second_goes_on_as_the_same():
    people = [[(0, walking([0, 0, 1], [0.8, 0, 0], t))] if not 0.5 < t < 1.4 else [] for t in TIME_S]
    names = follow(TIME_S, shuffled(people)[0])
    assert {int(n) for own in names for n in own} == {0}


def test_a_moment_makes_nobody():
    people = [[(0, walking([0, 0, 1], [0, 0, 0], t))] for t in TIME_S]
    for t in (20, 21, 22):
        people[t] = [*people[t], (1, walking([3, 3, 1], [0, 0, 0], 0))]
    names = follow(TIME_S, shuffled(people)[0])
    assert sorted({int(n) for own in names for n in own}) == [-1, 0]


@pytest.mark.parametrize("frames", [[np.zeros((0, 13, 3))] * 60, [np.zeros((0, 13, 3))]])
def test_nobody_stays_nobody(frames):
    names = follow(TIME_S[: len(frames)], frames)
    assert all(len(own) == 0 for own in names)
