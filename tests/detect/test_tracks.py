import numpy as np
import pytest

from mvpose.detect.tracks import track_people
from mvpose.keypoints import UNTRACKED, Keypoints2D
from mvpose.skeleton import SKELETONS

# A standing person of 340 px, COCO-17, around the middle of the body.
STANDING = 2.0 * np.array(
    [
        [0, -80], [-5, -85], [5, -85], [-8, -82], [8, -82], [-20, -60], [20, -60], [-25, -30], [25, -30],
        [-28, 0], [28, 0], [-12, 0], [12, 0], [-13, 45], [13, 45], [-13, 90], [13, 90],
    ]
)  # fmt: skip


def people_at(centres_px, time_s, present=None, shuffle=None):
    """Keypoints of people (T, P, 2) in order of person, and who each row is; ``present`` (T, P) cuts detections out."""
    frames, persons = centres_px.shape[:2]
    present = np.ones((frames, persons), bool) if present is None else present
    frame, person = np.nonzero(present)
    if shuffle is not None:
        order = np.lexsort((shuffle.random(len(frame)), frame))
        frame, person = frame[order], person[order]
    xy_px = STANDING + centres_px[frame, person][:, None]
    keypoints = Keypoints2D(
        camera="cam01",
        time_s=time_s,
        frame_ptr=np.concatenate([[0], np.cumsum(present.sum(axis=1))]),
        xy_px=xy_px,
        score=np.full(xy_px.shape[:2], 0.9),
        track_id=np.full(len(xy_px), UNTRACKED),
        skeleton=SKELETONS["coco17"],
        size_px=(1920, 1080),
    )
    return keypoints, person


def walking(time_s, *lines):
    """Centres (T, P, 2) of people who walk along the image: start and speed of each in pixels and pixels a second."""
    return np.stack([np.stack([x + v * time_s, np.full_like(time_s, 500.0)], axis=1) for x, v in lines], axis=1)


def is_pure(track_id, person):
    return all(len(np.unique(person[track_id == identity])) == 1 for identity in np.unique(track_id))


def test_people_apart_keep_one_identity_each():
    time_s = np.arange(90) / 30
    keypoints, person = people_at(walking(time_s, (300, 100), (900, -50), (1400, 60)), time_s)
    tracked = track_people(keypoints)
    assert tracked.is_tracked
    np.testing.assert_array_equal(tracked.track_id, person)


def test_the_order_within_a_frame_does_not_matter():
    time_s = np.arange(90) / 30
    centres = walking(time_s, (300, 100), (900, -50), (1400, 60))
    keypoints, person = people_at(centres, time_s, shuffle=np.random.default_rng(1))
    track_id = track_people(keypoints).track_id
    assert len(np.unique(track_id)) == 3
    assert is_pure(track_id, person)


def test_true_times_carry_a_track_through_missing_frames():
    # At 600 px/s a gap of 0.3 s moves the person by more than its width: only its velocity finds it again.
    time_s = np.concatenate([np.arange(20) / 30, 0.95 + np.arange(20) / 30])
    keypoints, _ = people_at(walking(time_s, (300, 600)), time_s)
    assert np.unique(track_people(keypoints).track_id).tolist() == [0]


@pytest.mark.parametrize(("gap_s", "tracks"), [(0.4, 1), (0.8, 2)])
def test_a_track_survives_a_short_gap_only(gap_s, tracks):
    time_s = np.arange(90) / 30
    present = ~((time_s > 1.0) & (time_s < 1.0 + gap_s))[:, None]
    keypoints, _ = people_at(walking(time_s, (300, 40)), time_s, present)
    assert len(np.unique(track_people(keypoints).track_id)) == tracks


@pytest.mark.parametrize("speed", [30, 150, 600])
@pytest.mark.parametrize("hidden_px", [0, 60])
def test_people_who_cross_are_never_taken_for_one_another(speed, hidden_px):
    time_s = np.arange(int(2 * 30 * 400 / speed)) / 30
    centres = walking(time_s, (960 - 400, speed), (960 + 400, -speed))
    centres += np.random.default_rng(0).normal(scale=2, size=centres.shape)
    present = np.ones(centres.shape[:2], bool)
    present[np.abs(centres[:, 0, 0] - centres[:, 1, 0]) < hidden_px, 1] = False
    keypoints, _ = people_at(centres, time_s, present)
    tracked = track_people(keypoints)
    # Rows may have been left out as duplicates, so ask the position who it is.
    x = tracked.xy_px.mean(axis=1)[:, 0]
    frame = tracked.frame_index
    mid = STANDING[:, 0].mean()
    distance = np.abs(centres[frame, :, 0] + mid - x[:, None])
    assert distance.min(axis=1).max() < 1e-6
    assert is_pure(tracked.track_id, distance.argmin(axis=1))
    assert len(np.unique(tracked.track_id)) <= 8


def test_people_side_by_side_are_kept_apart():
    time_s = np.arange(60) / 30
    keypoints, person = people_at(walking(time_s, (900, 50), (970, 50)), time_s)
    np.testing.assert_array_equal(track_people(keypoints).track_id, person)


def test_a_repeated_detection_is_left_out():
    time_s = np.arange(30) / 30
    centres = walking(time_s, (300, 100), (301, 100))
    tracked = track_people(people_at(centres, time_s)[0])
    np.testing.assert_array_equal(np.diff(tracked.frame_ptr), 1)
    assert np.unique(tracked.track_id).tolist() == [0]


def test_missing_joints_and_missing_scores_do_not_break_a_track():
    time_s = np.arange(30) / 30
    keypoints, _ = people_at(walking(time_s, (300, 100)), time_s)
    xy_px = keypoints.xy_px.copy()
    xy_px[np.random.default_rng(0).random(xy_px.shape[:2]) < 0.3] = np.nan
    score = np.zeros(xy_px.shape[:2])
    some = Keypoints2D(
        "cam01", time_s, keypoints.frame_ptr, xy_px, score, keypoints.track_id, keypoints.skeleton, (9, 9)
    )
    assert np.unique(track_people(some).track_id).tolist() == [0]


def test_a_detection_without_joints_stays_untracked():
    time_s = np.arange(3) / 30
    keypoints, _ = people_at(walking(time_s, (300, 100)), time_s)
    xy_px = keypoints.xy_px.copy()
    xy_px[1] = np.nan
    some = Keypoints2D(
        "cam01", time_s, keypoints.frame_ptr, xy_px, keypoints.score, keypoints.track_id, keypoints.skeleton, (9, 9)
    )
    assert track_people(some).track_id.tolist() == [0, UNTRACKED, 0]


def test_a_recording_without_people_stays_empty():
    time_s = np.arange(5) / 30
    keypoints, _ = people_at(walking(time_s, (300, 100)), time_s, np.zeros((5, 1), bool))
    tracked = track_people(keypoints)
    assert tracked.n_frames == 5
    assert len(tracked.track_id) == 0
