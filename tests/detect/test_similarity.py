import numpy as np
import pytest

from mvpose.detect.similarity import distinct_people, keypoint_similarity, person_size_px, poses_of

BODY = np.array([[0.0, 0.0], [100.0, 0.0], [0.0, 100.0], [100.0, 100.0]])  # a person of 100 px
SURE = np.ones((1, 4))


def test_a_person_is_wholly_like_itself_and_unlike_one_far_away():
    here, there = poses_of(BODY[None], SURE), poses_of(BODY[None] + 1000, SURE)
    assert keypoint_similarity(here, here) == pytest.approx(1)
    assert keypoint_similarity(here, there) == pytest.approx(0)


def test_similarity_falls_as_defined():
    moved = BODY[None] + (15.0, 0.0)  # 0.15 of the person's size
    assert keypoint_similarity(poses_of(BODY[None], SURE), poses_of(moved, SURE)) == pytest.approx(np.exp(-0.5))


def test_similarity_is_symmetric_and_free_of_scale():
    a, b = BODY[None], BODY[None] + np.array([[3.0, 9.0], [20.0, 0.0], [0.0, 0.0], [-5.0, 4.0]])
    there = keypoint_similarity(poses_of(a, SURE), poses_of(b, SURE))
    assert keypoint_similarity(poses_of(b, SURE), poses_of(a, SURE)) == pytest.approx(there)
    assert keypoint_similarity(poses_of(7 * a, SURE), poses_of(7 * b, SURE)) == pytest.approx(there)


def test_missing_joints_do_not_count():
    partial = BODY[None].copy()
    partial[0, 3] = np.nan
    score = np.where(np.isfinite(partial[..., 0]), 1.0, 0.0)
    assert keypoint_similarity(poses_of(BODY[None], SURE), poses_of(partial, score)) == pytest.approx(1, abs=0.01)
    nothing = poses_of(np.full((1, 4, 2), np.nan), np.zeros((1, 4)))
    assert keypoint_similarity(poses_of(BODY[None], SURE), nothing) == 0


def test_the_best_of_repeated_detections_stays():
    xy_px = np.stack([BODY, BODY + 1, BODY + 500])
    assert distinct_people(poses_of(xy_px, np.ones((3, 4))), np.array([1.0, 2.0, 0.5]), 0.8).tolist() == [1, 2]


def test_a_thin_person_is_not_small():
    assert person_size_px(np.array([[0.0, 0.0, 1.0, 100.0]])) == pytest.approx(50)
