from pathlib import Path

import cv2
import numpy as np
import pytest

from mvpose.detect import mediapipe
from mvpose.video import probe

SINGLE = Path(__file__).parents[2] / "../shared/data/pose2sim/Demo_SinglePerson/videos/cam03.mp4"
DOUBLE = Path(__file__).parents[2] / "../shared/data/pose2sim/Demo_MultiPerson/videos/cam04.mp4"

needs_networks = pytest.mark.skipif(not mediapipe.is_installed(), reason="mediapipe or ai-edge-litert is not installed")


def frames_of(path, stop):
    if not path.is_file():
        pytest.skip(f"{path.name} of Pose2Sim is not here")
    return list(probe(path.stem, [path]).frames(0, stop))


@pytest.mark.parametrize("size", [(1920, 1080), (1080, 1920), (640, 640), (641, 77)])
def test_search_tiles_cover_the_image_at_every_scale(size):
    width, height = size
    tiles = mediapipe.search_tiles(width, height)
    for side in np.unique(tiles[:, 2]):
        covered = np.zeros((height, width), bool)
        for left, top, _ in tiles[tiles[:, 2] == side]:
            covered[max(top, 0) : top + side, max(left, 0) : left + side] = True
        assert covered.all()


def test_a_planted_person_is_decoded_where_it_is():
    raw, score = np.zeros((2254, 12)), np.full(2254, -10.0)
    anchor = 2 * (28 * 14 + 7)  # stride 8, row 14, column 7: its centre is (60, 116) of 224
    raw[anchor, 4:8] = [10, -6, 10, -6 - 56]  # hips at (70, 110), the circle's top 56 above
    score[anchor] = 3.0
    found, crops = mediapipe.decode_people(raw, score, np.array([100, 200, 448]), min_score=0.5)
    assert found == pytest.approx([1 / (1 + np.exp(-3.0))])
    np.testing.assert_allclose(crops, [[100 + 140, 200 + 220, 2 * 1.25 * 112, 0.0]])


@pytest.mark.parametrize("angle", [0.0, 0.5, -2.0, np.pi])
def test_the_crop_shows_the_person_upright(angle):
    centre = np.array([[300.0, 200.0]])
    top = centre + 80 * np.array([[np.sin(angle), -np.cos(angle)]])
    to_image = mediapipe.crop_to_image(mediapipe.crop_round(centre, top)[0])
    np.testing.assert_allclose(to_image @ [0.5, 0.5, 1], centre[0])
    np.testing.assert_allclose(to_image @ [0.5, 0.5 - 0.5 / 1.25, 1], top[0])


def test_landmarks_move_to_the_peak_of_a_sure_heatmap_only():
    heatmap = np.full((64, 64, 3), -20.0)
    heatmap[33, 30, :2] = 8.0
    heatmap[:, :, 1] -= 10  # the same peak, not sure
    xy = np.array([[32.5 / 64, 32.5 / 64]] * 2 + [[1.2, 0.5]])
    refined = mediapipe.refine_by_heatmap(xy, heatmap)
    np.testing.assert_allclose(refined[0], [30 / 64, 33 / 64], atol=1e-4)
    np.testing.assert_array_equal(refined[1:], xy[1:])


@needs_networks
def test_an_empty_image_holds_nobody():
    images = [np.full((480, 640, 3), 127, np.uint8)] * 2
    assert [len(people) for people in mediapipe.MediapipeDetector().detect(images)] == [0, 0]


@needs_networks
def test_a_person_is_found_and_moves_with_the_image():
    image = frames_of(SINGLE, 1)[0]
    shifted = np.zeros_like(image)
    shifted[40:] = image[:-40]
    here, there = (next(mediapipe.MediapipeDetector().detect([picture])) for picture in (image, shifted))
    assert len(here) == len(there) == 1
    moved = there.xy_px[0] - here.xy_px[0]
    # Tiles fall elsewhere on the person, so its crop differs a little: measured 0.2 px, of a person of 740.
    np.testing.assert_allclose(np.median(moved, axis=0), [0, 40], atol=2)


@needs_networks
def test_everybody_is_found_and_followed():
    image = frames_of(SINGLE, 1)[0]
    crowd = np.hstack([image, image, image])  # three of the same person, side by side
    for people in mediapipe.MediapipeDetector().detect([crowd] * 3):
        assert len(people) == 3
        in_own_third = people.xy_px[:, :, 0] - image.shape[1] * np.floor(
            np.nanmean(people.xy_px[..., 0], axis=1, keepdims=True) / image.shape[1]
        )
        assert np.nanstd(in_own_third, axis=0).max() < 30


@needs_networks
def test_a_person_far_away_is_found():
    image = frames_of(SINGLE, 1)[0]
    height, width = (side // 6 for side in image.shape[:2])
    canvas = np.full_like(image, 127)
    canvas[500 : 500 + height, 250 : 250 + width] = cv2.resize(image, (width, height), interpolation=cv2.INTER_AREA)
    near, far = (next(mediapipe.MediapipeDetector().detect([picture])) for picture in (image, canvas))
    assert len(far) == 1
    # Measured 1.3 px, of a person of 120.
    assert np.nanmedian(np.abs(far.xy_px[0] - (near.xy_px[0] / 6 + (250, 500)))) < 5


@needs_networks
def test_two_people_are_found_in_every_frame():
    detector = mediapipe.MediapipeDetector()
    for people in detector.detect(frames_of(DOUBLE, 12)):
        assert len(people) == 2
        assert people.score.min() >= 0
        assert people.score.max() <= 1
        assert people.score.mean() > 0.8


@needs_networks
def test_joints_outside_the_image_are_missing():
    image = frames_of(SINGLE, 1)[0][:1000]  # cut off below the hips
    people = next(mediapipe.MediapipeDetector().detect([image]))
    seen = np.isfinite(people.xy_px).all(axis=-1)
    assert not seen.all()
    assert (people.score[~seen] == 0).all()
    assert (people.xy_px[seen] <= (image.shape[1], image.shape[0])).all()
