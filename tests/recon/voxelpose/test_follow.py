"""People followed from frame to frame."""

import numpy as np
import pytest

from mvpose.recon.track import continuity
from mvpose.recon.voxelpose import follow as module

TIME_S = np.arange(60) / 30.0
BODY = np.random.default_rng(0).normal(0, 0.4, (13, 3))


def follow(time_s, frames, tracks=None):
    """Follow people of whom no 2D tracks are known, unless these are given."""
    none = [np.full((len(own), 2), -1) for own in frames]
    return module.follow(time_s, frames, none if tracks is None else tracks)


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


def test_2d_tracks_tell_people_who_meet_while_one_is_not_found():
    """Where they are 0.3 m apart, one alone is found, between them, for a quarter of a second; then they part."""
    frames, truth, tracks = [], [], []
    for t in TIME_S:
        aside = max(0.15, abs(t - 1.0))
        pair = [walking([0, aside, 1], [0, 0, 0], t), walking([0, -aside, 1], [0, 0, 0], t)]
        lost, hidden = 0.9 < t < 1.15, 0.8 < t <= 0.9  # from all tracks
        frames.append(np.stack([walking([0, 0.02, 1], [0, 0, 0], t)] if lost else pair))
        truth.append(np.array([1] if lost else [0, 1]))
        tracks.append(np.array([[-1, 8]] if lost else [[-1, -1], [-1, -1]] if hidden else [[3, 4], [7, 8]]))
    names = follow(TIME_S, frames, tracks)
    assert same(names, truth)
    assert not same(follow(TIME_S, frames), truth)


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


def once(times, count):
    """One body that is found at some of the frames."""
    return [BODY[None] if t in times else np.zeros((0, 13, 3)) for t in range(count)]


def found(names):
    return {int(n) for own in names for n in own}


def test_moments_at_one_place_do_not_add_up_to_somebody():
    """Linked they are (4 s apart), and 15 frames together, half a second."""
    time_s = np.arange(1800) / 30
    assert found(follow(time_s, once(range(0, 1800, 120), 1800))) == {-1}
    assert found(follow(time_s, once({*range(0, 1800, 120), *range(121, 130)}, 1800))) == {0}


@pytest.mark.parametrize("fps", [1.0, 2.0, 5.0])
@pytest.mark.parametrize("frames, somebody", [(1, False), (2, False), (3, True)])
def test_at_few_frames_a_second_one_or_two_are_nobody(fps, frames, somebody):
    names = follow(np.arange(20) / fps, once(range(4, 4 + frames), 20))
    assert found(names) == {0 if somebody else -1}


@pytest.mark.parametrize("count", [1, 2])
def test_in_fewer_frames_than_that_somebody_is_in_all(count):
    time_s = np.arange(count) / 30
    assert found(follow(time_s, once(range(count), count))) == {0}
    assert found(follow(time_s, once(range(count - 1), count))) <= {-1}


@pytest.mark.parametrize("frames", [[np.zeros((0, 13, 3))] * 60, [np.zeros((0, 13, 3))]])
def test_nobody_stays_nobody(frames):
    names = follow(TIME_S[: len(frames)], frames)
    assert all(len(own) == 0 for own in names)


def test_only_stretches_that_can_go_on_from_one_another_are_compared(monkeypatch):
    """Of 200 that begin every half second, each has the 12 that begin within 6 s."""
    compared = []
    monkeypatch.setattr(module, "continuity", lambda a, b: compared.append(len(a)) or continuity(a, b))
    time_s = np.arange(400) / 4
    follow(time_s, [BODY[None] + 9 * t * np.eye(3)[0] if t % 2 else np.zeros((0, 13, 3)) for t in range(400)])
    assert compared == [200 * 12 - 12 * 13 // 2]
