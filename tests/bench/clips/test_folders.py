import json
import logging
from pathlib import Path

import numpy as np
import pytest
import torch

from mvpose.bench.clips.folders import Cut, View, ViewPair, clip_batches, read_pair_table, read_sesyn_folder
from mvpose.errors import FormatError
from mvpose.formats.keypoints2d import read_npz, write_keypoints
from mvpose.keypoints import Keypoints2D
from mvpose.skeleton import CLIP_SKELETON, SKELETONS

COCO = SKELETONS["coco17"]
JOINTS = len(CLIP_SKELETON)


def clock_view(frames, late):
    """A view in which every joint shows the time, in frames: what it shows in frame n is n + late."""
    shown = np.arange(frames) + late
    return View(np.tile(shown[:, None, None], (1, JOINTS, 2)), np.ones((frames, JOINTS)), (640, 480))


def clock_pair(offset, frames_a=60, frames_b=60):
    """An instant is n in a and n + offset in b; so b's frame m shows m − offset."""
    return ViewPair(clock_view(frames_a, 0.0), clock_view(frames_b, -offset), offset, 10.0, "pairs.csv, line 2")


def batches(pairs, size=64, seed=0, **cut):
    return list(clip_batches(torch.Generator().manual_seed(seed), pairs, Cut(**cut), size))


def shown_offsets(clips):
    """The offset that the clips themselves show: t_b = t_a + offset."""
    first = clips.xy[:, :, 0, 0, 0]
    return first[:, 0] - first[:, 1]


# Cutting.


@pytest.mark.parametrize("offset", [0.0, 3.25, -17.4, 22.0, 5.9999999])
def test_clips_show_the_offset_that_they_are_labelled_with(offset):
    for clips, offsets in batches([clock_pair(offset)], draws=200):
        np.testing.assert_allclose(shown_offsets(clips), offsets, atol=1e-4)
        assert (offsets.abs() < 6).all()
        np.testing.assert_allclose(torch.diff(clips.xy[..., 0, 0], dim=2), 1, atol=1e-4)


def test_whole_frames_are_drawn_evenly_and_the_fraction_stays():
    offsets = torch.cat([offsets for _, offsets in batches([clock_pair(7.25, 100, 100)], draws=4400, size=500)])
    exchanged = offsets % 1 == 0.75
    assert (exchanged | (offsets % 1 == 0.25)).all()
    assert 0.47 < exchanged.float().mean() < 0.53  # sigma 0.0075
    for signed in (-offsets[exchanged], offsets[~exchanged]):
        whole, counts = signed.floor().unique(return_counts=True)
        assert whole.tolist() == list(range(-5, 6))
        assert 150 < counts.min() <= counts.max() < 250  # 200 each, sigma 14
    assert abs(offsets.mean()) < 0.2  # sigma 0.05; 0.25 if the views were never exchanged


def test_whole_offsets_stay_whole():
    offsets = torch.cat([offsets for _, offsets in batches([clock_pair(-23.0)], draws=300)])
    assert set(offsets.tolist()) == set(range(-5, 6))


def test_clips_come_from_everywhere_that_both_views_have():
    clips, _ = batches([clock_pair(2.0, 9, 12)], draws=3000, size=3000)[0]
    first = {tuple(shown) for shown in clips.xy[:, :, 0, 0, 0].tolist()}
    # View a shows 0 to 8 and its clips begin at 0 to 4; view b shows −2 to 9, its clips begin at −2 to 5.
    possible = {(a, b) for a in range(5) for b in range(-2, 6) if abs(a - b) <= 5}
    assert first == possible | {(b, a) for a, b in possible}


def test_short_views_have_the_offsets_that_fit():
    _, offsets = batches([clock_pair(1.0, 6, 5)], draws=200, size=200)[0]
    assert set(offsets.abs().tolist()) == {1.0, 2.0}  # b has one clip, a two
    with pytest.raises(FormatError, match=r"pairs\.csv, line 2: views of \d+ and \d+ frames.* have no two clips of 5"):
        batches([clock_pair(0.0, 60, 4)])
    with pytest.raises(FormatError, match="no two clips of 5 frames within 5 frames"):
        batches([clock_pair(40.0, 10, 10)])


def test_without_draws_the_clips_are_those_recorded(caplog):
    with caplog.at_level(logging.INFO):
        ((clips, offsets),) = batches([clock_pair(5.5), clock_pair(-5.9), clock_pair(6.0)], draws=None)
    assert sorted(offsets.tolist()) == pytest.approx([-5.9, 5.5])
    np.testing.assert_allclose(shown_offsets(clips), offsets, atol=1e-6)
    assert (clips.xy[:, 0, 0] == 0).all()
    assert "1 of 3 pairs are left out" in caplog.text
    with pytest.raises(FormatError, match="none of 1 pairs has an offset of less than 6 frames"):
        batches([clock_pair(-6.0)], draws=None)
    with pytest.raises(FormatError, match=r"line 2: a view has no 5 frames; it has 3\."):
        batches([clock_pair(0.0, 3, 9)], draws=None)


def test_every_pair_is_drawn_as_often_and_batches_are_full():
    pairs = [clock_pair(0.0), clock_pair(0.25), clock_pair(0.4)]
    found = batches(pairs, size=4, draws=3)
    assert [len(clips) for clips, _ in found] == [4, 4, 1]
    fractions = torch.cat([offsets for _, offsets in found]) % 1
    assert np.sort(torch.minimum(fractions, 1 - fractions).numpy()) == pytest.approx(
        np.repeat([0, 0.25, 0.4], 3), abs=1e-6
    )


def test_the_seed_decides_the_batches():
    pairs = [clock_pair(0.25), clock_pair(0.5)]
    again = [torch.cat([offsets for _, offsets in batches(pairs, seed=seed, draws=20)]) for seed in (1, 1, 2)]
    assert torch.equal(again[0], again[1])
    assert not torch.equal(again[0], again[2])


def test_clips_are_float32_of_5_frames_and_know_of_no_calibration():
    clips, offsets = batches([clock_pair(0.0)], draws=3)[0]
    shapes = {
        name: tuple(getattr(clips, name).shape) for name in ("xy", "score", "time_s", "K", "cam_from_world", "size_px")
    }
    assert shapes == {
        "xy": (3, 2, 5, 13, 2), "score": (3, 2, 5, 13), "time_s": (3, 2, 5),
        "K": (3, 2, 3, 3), "cam_from_world": (3, 2, 3, 4), "size_px": (3, 2, 2),
    }  # fmt: skip
    assert {getattr(clips, name).dtype for name in shapes} | {offsets.dtype} == {torch.float32}
    assert torch.isnan(clips.K).all()
    assert torch.isnan(clips.cam_from_world).all()
    assert clips.size_px[0].tolist() == [[640, 480]] * 2
    np.testing.assert_allclose(clips.time_s[0, 0], np.arange(5) / 10, atol=1e-6)


# A table of pairs.

HEADER = "split,keypoints_a,keypoints_b,offset_frames,fps,start_a,start_b,track_a,track_b\n"


def detections(rows, skeleton=COCO, frames=20, fps=10.0):
    """Detections (frame, track, x, score): all joints at (x, 7)."""
    rows = sorted(rows)
    frame, track, x, score = (np.array(column) for column in zip(*rows, strict=True))
    return Keypoints2D(
        camera="c",
        time_s=np.arange(frames) / fps,
        frame_ptr=np.searchsorted(frame, np.arange(frames + 1)),
        xy_px=np.tile(np.stack([x, np.full(len(x), 7)], axis=-1)[:, None], (1, len(skeleton), 1)).astype(float),
        score=np.tile(score[:, None], (1, len(skeleton))).astype(float),
        track_id=track,
        skeleton=skeleton,
        size_px=(640, 480),
    )


@pytest.fixture
def folder(tmp_path):
    """Two views of one person, and of a passer-by in the second."""
    write_keypoints(detections([(n, 0, 100 + n, 0.9) for n in range(20)]), tmp_path / "kp/a.npz")
    passer = [(n, 3, 500, 0.8) for n in range(4)]
    write_keypoints(detections([(n, 2, 200 + n, 0.5) for n in range(20)] + passer), tmp_path / "kp/b.npz")
    return tmp_path


def table(folder, *rows, header=HEADER):
    path = folder / "pairs.csv"
    path.write_text(header + "".join(f"{row}\n" for row in rows), encoding="utf-8")
    return path


def test_a_table_is_read_with_its_offsets_starts_and_splits(folder):
    path = table(
        folder, "train,kp/a.npz,kp/b.npz,2.3,10,4,5,,", "test,kp/b.npz,kp/a.npz,-1,10,,,,", "val,no,no,0,10,,,,"
    )
    (pair,) = read_pair_table(path, "train", read_npz)
    assert (pair.offset_frames, pair.fps) == (2.3, 10.0)
    assert pair.a.xy_px[:, 0, 0].tolist() == list(range(104, 120))
    assert pair.b.xy_px[:, 0, 0].tolist() == list(range(205, 220))
    assert (pair.a.xy_px[..., 1] == 7).all()
    assert pair.b.score[0, 0] == 0.5
    assert (pair.a.size_px, pair.source) == ((640, 480), f"{path}, line 2")
    (pair,) = read_pair_table(path, "test", read_npz)
    assert (pair.a.xy_px[0, 0, 0], pair.b.xy_px[0, 0, 0], pair.offset_frames) == (200, 100, -1.0)


def test_a_file_is_read_once(folder):
    seen = []

    def read(path):
        seen.append(path)
        return read_npz(path)

    path = table(folder, *["train,kp/a.npz,kp/b.npz,0,10,,,,"] * 3)
    assert len(read_pair_table(path, "train", read)) == 3
    assert seen == [folder / "kp/a.npz", folder / "kp/b.npz"]


def test_the_person_is_the_track_named_or_the_longest(folder):
    path = table(folder, "train,kp/a.npz,kp/b.npz,0,10,,,,3", "train,kp/a.npz,kp/b.npz,0,10,,,0,")
    passer, longest = (pair.b for pair in read_pair_table(path, "train", read_npz))
    assert (passer.xy_px[:4] == [500, 7]).all()
    assert np.isnan(passer.xy_px[4:]).all()
    assert not passer.score[4:].any()
    assert longest.xy_px[:, 0, 0].tolist() == list(range(200, 220))


def test_untracked_people_are_the_most_confident_of_each_frame(folder):
    rows = [(0, -1, 1, 0.3), (0, -1, 2, 0.6), (1, -1, 3, 0.9), (1, -1, 4, 0.2)]
    write_keypoints(detections(rows), folder / "kp/b.npz")
    (pair,) = read_pair_table(table(folder, "train,kp/a.npz,kp/b.npz,0,10,,,,"), "train", read_npz)
    assert pair.b.xy_px[:2, 0, 0].tolist() == [2, 3]
    assert np.isnan(pair.b.xy_px[2:]).all()


def test_joints_are_picked_by_name_and_what_is_lacking_is_missing(folder):
    skeleton = SKELETONS["h36m17"]  # no nose
    keypoints = detections([(0, 0, 5, 1.0)], skeleton=skeleton)
    keypoints.xy_px[0, :, 0] = np.arange(len(skeleton))
    write_keypoints(keypoints, folder / "kp/b.npz")
    (pair,) = read_pair_table(table(folder, "train,kp/a.npz,kp/b.npz,0,10,,,,"), "train", read_npz)
    for index, name in enumerate(CLIP_SKELETON.joint_names):
        if name == "nose":
            assert np.isnan(pair.b.xy_px[0, index]).all()
            assert pair.b.score[0, index] == 0
        else:
            assert pair.b.xy_px[0, index, 0] == skeleton.joint_names.index(name)


def test_optional_columns_may_be_left_out_and_blanks_are_passed_over(folder):
    header = "split, keypoints_a, keypoints_b, offset_frames, fps\n"
    (pair,) = read_pair_table(table(folder, "train, kp/a.npz ,kp/b.npz, 1.5,10", header=header), "train", read_npz)
    assert (len(pair.a), pair.offset_frames) == (20, 1.5)


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ("train,kp/a.npz,kp/b.npz,x,10,,,,", "line 3: offset_frames is 'x', not a number"),
        ("test,kp/a.npz,kp/b.npz,nan,10,,,,", "line 3: offset_frames is 'nan', not a number"),
        ("train,kp/a.npz,kp/b.npz,0,0,,,,", "line 3: fps is 0; it must be positive"),
        ("train,kp/a.npz,kp/b.npz,0,25,,,,", r"line 3: fps is 25, and kp/a\.npz has 10\.00 frames per second"),
        ("train,kp/a.npz,kp/b.npz,0,10,-1,,,", "line 3: start_a is '-1'; it must be a whole number from 0"),
        ("train,kp/a.npz,kp/b.npz,0,10,,1.5,,", "line 3: start_b is '1.5'; it must be a whole number"),
        ("train,kp/a.npz,kp/b.npz,0,10,,20,,", r"line 3: start_b is 20, and kp/b\.npz has 20 frames"),
        ("train,kp/a.npz,kp/b.npz,0,10,,,,7", r"line 3: kp/b\.npz shows no track 7"),
        ("train,kp/a.npz,kp/c.npz,0,10,,,,", r"line 3: there is no .*c\.npz"),
        ("train,kp/a.npz,,0,10,,,,", "line 3: keypoints_b must not be empty"),
        ("train,kp/a.npz,kp/b.npz,0,10", "line 3: the row has not as many cells as the header, 9"),
        ("train,kp/a.npz,kp/b.npz,0,10,,,,,1", "line 3: the row has not as many cells"),
        ("train,kp/a.npz,kp/junk.npz,0,10,,,,", r"line 3: .*junk\.npz"),
        ("train,kp/a.npz,kp/empty.npz,0,10,,,,", r"line 3: kp/empty\.npz shows nobody"),
    ],
)
def test_a_bad_row_is_named_with_file_and_line(folder, row, message):
    (folder / "kp/junk.npz").write_bytes(b"junk")
    empty = detections([(0, 0, 1, 1.0)])
    write_keypoints(empty.only(np.array([], dtype=int)), folder / "kp/empty.npz")
    path = table(folder, "train,kp/a.npz,kp/b.npz,0,10,,,,", row)
    with pytest.raises(FormatError, match=message) as caught:
        read_pair_table(path, "train", read_npz)
    assert str(caught.value).startswith(f"{path}, line 3: ")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("header", "message"),
    [
        ("", "lacks the columns split, keypoints_a"),
        ("split,keypoints_a,keypoints_b,fps\n", "lacks the columns offset_frames"),
        (HEADER.replace("track_b", "trackb"), "has a column 'trackb', did you mean 'track_b'"),
        (HEADER.replace("track_b", "weather"), r"has a column 'weather'\? Remove it"),
        (HEADER.replace("track_b", "split"), "has a column 'split'"),
        (HEADER, r"has no pairs of split 'train'; its splits are: none"),
    ],
)
def test_a_bad_table_is_refused(folder, header, message):
    with pytest.raises(FormatError, match=message):
        read_pair_table(table(folder, header=header), "train", read_npz)


def test_what_is_no_table_is_refused(folder):
    with pytest.raises(FormatError, match=r"no\.csv cannot be read: No such file"):
        read_pair_table(folder / "no.csv", "train", read_npz)
    (folder / "pairs.csv").write_bytes(b"split,\xff\n")
    with pytest.raises(FormatError, match="not a table of comma-separated values in UTF-8"):
        read_pair_table(folder / "pairs.csv", "train", read_npz)


# NTU-SYN and CMU-SYN.


def write_view(path: Path, late=0, frames=40, start=0.0, people=(0,), **changed):
    """A view in SeSyn-Net's layout: every joint of person p shows the frame, plus ``start``, plus 1000 p."""
    data = {
        "info": {
            "num_frame": frames, "num_keypoints": 17, "keypoint_channels": ["x", "y", "score"],
            "resolution": [1920, 1080],
        },
        "annotations": [
            {"id": p, "person_id": None if p == 0 else p, "frame_index": n,
             "keypoints": [[start + n + 1000 * p, j, 0.0 if (n, j) == (9, 5) else 0.75] for j in range(17)]}
            for n in range(frames) for p in people
        ],
        "category_id": late,
        **changed,
    }  # fmt: skip
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps(data), encoding="utf-8")


def test_ntu_syn_is_read_by_the_names_of_its_cameras(tmp_path):
    for action in (1, 2):
        for camera, late in (("C001", 0), ("C002", 12), ("C003", 5)):
            write_view(
                tmp_path / f"S001{camera}P001R001A00{action}.json", late=late, start=100.0 * action, people=(0, 1)
            )
    (tmp_path / "notes.txt").write_text("hello", encoding="utf-8")
    pairs = read_sesyn_folder(tmp_path)
    assert [pair.offset_frames for pair in pairs] == [-12.0, -12.0]
    assert [pair.a.xy_px[0, 0, 0] for pair in pairs] == [100.0, 200.0]
    assert [len(pair.b) for pair in pairs] == [28, 28]
    assert pairs[0].b.xy_px[0, 0, 0] == 112.0
    assert (pairs[0].fps, pairs[0].a.size_px) == (30.0, (1920, 1080))
    assert pairs[0].a.xy_px[0, :, 1].tolist() == COCO.indices(CLIP_SKELETON.joint_names).tolist()
    for clips, offsets in batches(pairs, draws=50):
        assert torch.equal(shown_offsets(clips), offsets)  # both views show one clock
        assert set(offsets.tolist()) <= set(range(-5, 6))


def test_what_has_no_score_or_no_place_is_missing(tmp_path):
    for camera in ("C11", "C21"):
        write_view(tmp_path / f"dance_{camera}.json")
    path = tmp_path / "dance_C11.json"
    path.write_text(path.read_text(encoding="utf-8").replace("[8.0, 5, 0.75]", "[NaN, 5, 0.75]"), encoding="utf-8")
    (pair,) = read_sesyn_folder(tmp_path, fps=29.97)
    shoulder = CLIP_SKELETON.joint_names.index(COCO.joint_names[5])
    assert np.argwhere(np.isnan(pair.a.xy_px).any(-1)).tolist() == [[8, shoulder], [9, shoulder]]
    assert pair.a.score[7:10, shoulder].tolist() == [0.75, 0, 0]
    assert pair.fps == 29.97


def test_cmu_syn_is_paired_in_order_where_names_do_not_tell(tmp_path, caplog):
    for name, late in (("C11_1", 1), ("C11_2", 2), ("C21_x", 30), ("C21_y", 20)):
        write_view(tmp_path / f"{name}.json", late=late)
    assert [pair.offset_frames for pair in read_sesyn_folder(tmp_path)] == [-29.0, -18.0]
    assert "names do not tell" in caplog.text


def test_views_are_paired_by_name_wherever_the_camera_stands_in_it(tmp_path, caplog):
    for name, late in (("C11_a", 1), ("C15_C11", 2), ("C21_a", 11), ("C15_C21", 22)):
        write_view(tmp_path / f"{name}.json", late=late)
    assert sorted(pair.offset_frames for pair in read_sesyn_folder(tmp_path)) == [-20.0, -10.0]
    assert not caplog.text


def test_a_view_alone_is_named(tmp_path):
    for name in ("S1C001A1", "S1C002A1", "S1C001A2"):
        write_view(tmp_path / f"{name}.json")
    with pytest.raises(FormatError, match=r"2 files of camera C001 and 1 of C002; alone is, .* S1A2\.json"):
        read_sesyn_folder(tmp_path)
    with pytest.raises(FormatError, match=r"no JSON files with C001 and C002 \(NTU-SYN\) or C11 and C21"):
        read_sesyn_folder(tmp_path / "none")


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"info": {}}, "is not a view of NTU-SYN or CMU-SYN: KeyError"),
        ({"annotations": []}, "category_id, the view's late start, is 0, of 0 frames"),
        (
            {"annotations": [{"id": 0, "person_id": 0, "frame_index": 1, "keypoints": [[1, 2, 1]]}]},
            "17 keypoints of COCO",
        ),
        (
            {"annotations": [{"id": 0, "person_id": 0, "frame_index": 1, "keypoints": 7}]},
            "is not a view .*: IndexError",
        ),
        ({"annotations": [3]}, "is not a view .*: TypeError"),
        ({"category_id": 39}, "category_id, the view's late start, is 39, of 39 frames"),
        ({"category_id": -1}, "late start, is -1"),
        ({"category_id": "two"}, "late start, is 'two'"),
    ],
)
def test_a_broken_view_is_named(tmp_path, changed, message):
    write_view(tmp_path / "a_C11.json")
    write_view(tmp_path / "a_C21.json", **changed)
    with pytest.raises(FormatError, match=message) as caught:
        read_sesyn_folder(tmp_path)
    assert str(caught.value).startswith(str(tmp_path / "a_C21.json"))


def test_what_is_no_json_is_named(tmp_path):
    write_view(tmp_path / "a_C11.json")
    (tmp_path / "a_C21.json").write_bytes(b"\xff{")
    with pytest.raises(FormatError, match=r"a_C21\.json is not a view"):
        read_sesyn_folder(tmp_path)
