import io
import json
import pickle
import zipfile
from dataclasses import replace

import numpy as np
import pytest

from mvpose.errors import FormatError, MvposeError, SessionError, WorkspaceError
from mvpose.formats.keypoints2d import read_keypoints, read_npz, write_keypoints
from mvpose.keypoints import Keypoints2D
from mvpose.session import CameraSource
from mvpose.skeleton import SKELETONS
from mvpose.video import Video

COCO = SKELETONS["coco17"]
SIZE = (640, 480)


def video_of(n, size_px=SIZE, camera="cam01"):
    return Video(camera, (), size_px, 0, np.arange(n) / 30, False)


def keypoints_of(counts=(1, 0, 2), skeleton=COCO, camera="cam01"):
    rng = np.random.default_rng(1)
    n = sum(counts)
    xy = rng.uniform(0, 400, (n, len(skeleton), 2))
    score = rng.uniform(0.1, 1, (n, len(skeleton)))
    if n:
        xy[0, 3] = np.nan
        score[0, 3] = 0
    ptr = np.concatenate([[0], np.cumsum(counts)])
    track = np.concatenate([np.arange(count) for count in counts])
    return Keypoints2D(camera, np.arange(len(counts)) / 30, ptr, xy, score, track, skeleton, SIZE)


def assert_same(a, b):
    for name in ("time_s", "frame_ptr", "xy_px", "score", "track_id", "bbox_px"):
        np.testing.assert_array_equal(getattr(a, name), getattr(b, name), err_msg=name)
    assert (a.camera, a.size_px, a.skeleton) == (b.camera, b.size_px, b.skeleton)


def source_of(path, content, **settings):
    if content is not None:
        path.write_text(content if isinstance(content, str) else json.dumps(content))
    return CameraSource("cam01", keypoints=path, **settings)


def mmpose_person(x=10.0, joints=17, score=0.9, **more):
    keypoints = [[x + joint, 2 * x + joint] for joint in range(joints)]
    return {"keypoints": keypoints, "keypoint_scores": [score] * joints, "bbox": [[0, 0, 1, 1]], **more}


def mmpose_file(*frames, names=COCO.joint_names):
    return {
        "meta_info": {"keypoint_id2name": {str(index): name for index, name in enumerate(names)}},
        "instance_info": [{"frame_id": frame, "instances": list(people)} for frame, people in frames],
    }


def coco_person(image_id, x=10.0, joints=17, v=0.8, **more):
    keypoints = [value for joint in range(joints) for value in (x + joint, 2 * x + joint, v)]
    return {"image_id": image_id, "category_id": 1, "keypoints": keypoints, "score": 0.7, **more}


def write_openpose(folder, frames, joints=25, name="cam01_{:012d}_keypoints.json"):
    folder.mkdir()
    for frame, people in frames.items():
        flat = [[value for joint in range(joints) for value in (x + joint, 2 * x + joint, 0.5)] for x in people]
        content = {"version": 1.3, "people": [{"person_id": [-1], "pose_keypoints_2d": person} for person in flat]}
        (folder / name.format(frame)).write_text(json.dumps(content))
    return CameraSource("cam01", keypoints=folder)


# Our own npz


@pytest.mark.parametrize("counts", [(1, 0, 2), (0, 0), (3,)])
@pytest.mark.parametrize("skeleton", ["coco17", "blazepose33"])
def test_save_and_load_is_identity(tmp_path, counts, skeleton):
    keypoints = keypoints_of(counts, SKELETONS[skeleton])
    write_keypoints(keypoints, tmp_path / "cam01.npz")
    assert_same(read_npz(tmp_path / "cam01.npz"), keypoints)
    assert [path.name for path in tmp_path.iterdir()] == ["cam01.npz"]


def test_a_size_that_nobody_knows_is_absent_and_told_later(tmp_path):
    write_keypoints(replace(keypoints_of(), size_px=None), tmp_path / "cam01.npz")
    with np.load(tmp_path / "cam01.npz") as file:
        assert "size_px" not in file.files
    assert_same(read_npz(tmp_path / "cam01.npz"), replace(keypoints_of(), size_px=None))
    source = CameraSource("cam01", keypoints=tmp_path / "cam01.npz")
    assert read_keypoints(source).size_px is None
    assert read_keypoints(source, size_px=(320, 240)).size_px == (320, 240)
    assert read_keypoints(source, video_of(3)).size_px == SIZE


def test_an_npz_of_other_images_than_session_toml_says_is_refused(tmp_path):
    write_keypoints(keypoints_of(), tmp_path / "cam01.npz")
    source = CameraSource("cam01", keypoints=tmp_path / "cam01.npz", size_px=SIZE)
    assert read_keypoints(source, size_px=SIZE).size_px == SIZE
    with pytest.raises(FormatError, match=r"640x480 px, and cameras\.cam01\.size_px in session\.toml says 320x240 px"):
        read_keypoints(replace(source, size_px=(320, 240)), size_px=(320, 240))


def test_unwritable_folder(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(WorkspaceError):
        write_keypoints(keypoints_of(), tmp_path / "file" / "cam01.npz")


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("format", "mvpose.keypoints2d/2", "newer"),
        ("format", "mvpose.poses3d/1", "mvpose.keypoints2d"),
        ("format", None, "mvpose.keypoints2d"),
        ("score", None, "no field score"),
        ("score", np.full((3, 17), np.nan), "scores"),
        ("score", np.full((3, 17), 1.5), "scores"),
        ("score", np.ones((3, 16)), "score must be"),
        ("xy_px", np.ones((3, 17, 3)), "xy_px must be"),
        ("xy_px", np.full((3, 17, 2), "a"), "xy_px must be numbers"),
        ("time_s", np.array([0, np.nan, 1]), "finite and increase"),
        ("time_s", np.array([0, 0.2, 0.1]), "finite and increase"),
        ("time_s", np.arange(4.0), "frame_ptr must be"),
        ("frame_ptr", np.array([0, 2, 1, 3]), "frame_ptr"),
        ("frame_ptr", np.array([0.0, 1.0, 1.0, 3.0]), "frame_ptr must be whole numbers"),
        ("track_id", np.zeros(2, int), "track_id must be"),
        ("joint_names", np.array(["nose"] * 17), "twice"),
        ("joint_names", np.arange(17), "joint_names must be text"),
        ("size_px", np.array([640, 0]), "positive"),
        ("bbox_px", np.zeros((3, 2)), "bbox_px must be"),
    ],
)
def test_wrong_npz_names_the_field(tmp_path, field, value, message):
    path = tmp_path / "cam01.npz"
    write_keypoints(keypoints_of(), path)
    with np.load(path) as archive:
        fields = dict(archive)
    fields.pop(field)
    if value is not None:
        fields[field] = value
    np.savez(path, **fields)
    with pytest.raises(FormatError, match=message) as caught:
        read_npz(path)
    assert "cam01.npz" in str(caught.value)


def test_pickles_are_never_opened(tmp_path):
    class Trap:
        def __reduce__(self):
            return (tmp_path.joinpath("sprung").touch, ())

    path = tmp_path / "cam01.npz"
    path.write_bytes(pickle.dumps(Trap()))
    with pytest.raises(FormatError):
        read_npz(path)
    write_keypoints(keypoints_of(), path)
    with np.load(path) as archive:
        fields = dict(archive)
    fields["camera"] = np.array([Trap()], dtype=object)
    np.savez(path, allow_pickle=True, **fields)
    with pytest.raises(FormatError):
        read_npz(path)
    assert not (tmp_path / "sprung").exists()


def test_npz_is_placed_on_the_cameras_time(tmp_path):
    path = tmp_path / "cam01.npz"
    write_keypoints(keypoints_of(camera="another name"), path)
    placed = read_keypoints(source_of(path, None, start_s=2.0, fps=5.0), video_of(5))
    assert placed.camera == "cam01"
    np.testing.assert_allclose(placed.time_s, 2 + np.arange(3) / 30)
    (tmp_path / "times.csv").write_text("7\n8\n9\n")
    placed = read_keypoints(source_of(path, None, timestamps=tmp_path / "times.csv"))
    np.testing.assert_array_equal(placed.time_s, [7, 8, 9])


def test_npz_of_another_video_is_refused(tmp_path):
    path = tmp_path / "cam01.npz"
    write_keypoints(keypoints_of(), path)
    with pytest.raises(FormatError, match="frame 2 counted from 0, and the camera has 2 frames"):
        read_keypoints(source_of(path, None), video_of(2))
    with pytest.raises(FormatError, match="640x480 px, and the video has 1280x720"):
        read_keypoints(source_of(path, None), video_of(3, (1280, 720)))


# MMPose


def test_mmpose_predictions(tmp_path):
    content = mmpose_file((0, [mmpose_person(1, track_id=4), mmpose_person(2)]), (1, []), (3, [mmpose_person(3)]))
    keypoints = read_keypoints(source_of(tmp_path / "cam01.json", content, start_s=1.0), video_of(6))
    assert keypoints.skeleton == COCO
    assert keypoints.size_px == SIZE
    np.testing.assert_allclose(keypoints.time_s, 1 + np.arange(6) / 30)
    assert keypoints.frame_ptr.tolist() == [0, 2, 2, 2, 3, 3, 3]
    assert keypoints.track_id.tolist() == [4, -1, -1]
    np.testing.assert_array_equal(keypoints.xy_px[2, 5], [8, 11])
    assert (keypoints.score == 0.9).all()


def test_frames_need_not_be_in_order(tmp_path):
    content = mmpose_file((3, [mmpose_person(3)]), (1, [mmpose_person(1)]))
    keypoints = read_keypoints(source_of(tmp_path / "cam01.json", content), video_of(4))
    assert keypoints.frame_index.tolist() == [1, 3]
    assert keypoints.xy_px[:, 0, 0].tolist() == [1, 3]


def test_any_named_set_is_taken(tmp_path):
    names = ["head", "LAnkle", "RAnkle"]
    content = mmpose_file((0, [mmpose_person(joints=3)]), names=names)
    keypoints = read_keypoints(source_of(tmp_path / "cam01.json", content), video_of(1), skeleton="body25")
    assert keypoints.skeleton.joint_names == ("head", "left_ankle", "right_ankle")
    assert keypoints.skeleton.name == "custom"


def test_inferencers_list_is_known_by_its_number_of_joints(tmp_path):
    content = mmpose_file((0, [mmpose_person(joints=26)]))["instance_info"]
    source = source_of(tmp_path / "cam01.json", content)
    assert read_keypoints(source, video_of(1)).skeleton.name == "halpe26"
    assert read_keypoints(source, video_of(1), skeleton="halpe26").skeleton.name == "halpe26"
    with pytest.raises(FormatError, match="26 joints, and coco17 has 17"):
        read_keypoints(source, video_of(1), skeleton="coco17")


def test_frame_base(tmp_path):
    content = mmpose_file((1, [mmpose_person()]), (3, [mmpose_person()]))
    source = source_of(tmp_path / "cam01.json", content)
    with pytest.raises(FormatError, match=r"frame 3 counted from 0, and the camera has 3 frames.*frame_base = 1"):
        read_keypoints(source, video_of(3))
    assert read_keypoints(source, video_of(3), frame_base=1).frame_index.tolist() == [0, 2]
    with pytest.raises(FormatError, match="frame 1, before the first, which is 2"):
        read_keypoints(source, video_of(3), frame_base=2)


def test_junk_becomes_missing_and_scores_are_clipped(tmp_path):
    person = mmpose_person(score=0.5)
    person["keypoints"][0] = [float("nan"), 1.0]
    person["keypoints"][1] = [float("inf"), 1.0]
    person["keypoints"][2] = [None, 1.0]
    person["keypoint_scores"][3:7] = [1.02, -0.1, float("nan"), 0]
    keypoints = read_keypoints(source_of(tmp_path / "cam01.json", mmpose_file((0, [person]))), video_of(1))
    assert np.isnan(keypoints.xy_px[0, [0, 1, 2, 4, 5, 6]]).all()
    assert np.isfinite(keypoints.xy_px[0, [3, *range(7, 17)]]).all()
    assert keypoints.score[0, :8].tolist() == [0, 0, 0, 1, 0, 0, 0, 0.5]


def test_nobody_is_legal_and_named(tmp_path, caplog):
    source = source_of(tmp_path / "cam01.json", mmpose_file((0, []), (1, [])))
    keypoints = read_keypoints(source, video_of(4))
    assert keypoints.frame_ptr.tolist() == [0] * 5
    assert "cam01: there are no people in" in caplog.text


def test_nothing_at_all_is_refused(tmp_path):
    with pytest.raises(FormatError, match="no frames"):
        read_keypoints(source_of(tmp_path / "cam01.json", [], fps=30), size_px=SIZE)


def test_without_video_times_come_from_fps(tmp_path):
    source = source_of(tmp_path / "cam01.json", mmpose_file((0, []), (4, [mmpose_person()])), fps=25.0)
    keypoints = read_keypoints(source, size_px=(320, 240))
    np.testing.assert_allclose(keypoints.time_s, np.arange(5) / 25)
    assert keypoints.size_px == (320, 240)
    assert read_keypoints(source).size_px is None
    with pytest.raises(SessionError, match="Set fps"):
        read_keypoints(source_of(tmp_path / "cam01.json", None), size_px=SIZE)


def test_two_people_cannot_share_a_track(tmp_path):
    content = mmpose_file((0, [mmpose_person(track_id=1)]), (2, [mmpose_person(track_id=1), mmpose_person(track_id=1)]))
    with pytest.raises(FormatError, match="track 1 to two people of frame 2"):
        read_keypoints(source_of(tmp_path / "cam01.json", content), video_of(3))


# COCO


def test_coco_results(tmp_path):
    content = [coco_person(2, 5.0, track_id=3), coco_person(0, 1.0), coco_person(2, 9.0, v=2)]
    keypoints = read_keypoints(source_of(tmp_path / "cam01.json", content), video_of(3))
    assert keypoints.skeleton == COCO
    assert keypoints.frame_index.tolist() == [0, 2, 2]
    assert keypoints.xy_px[:, 0, 0].tolist() == [1, 5, 9]
    assert keypoints.score[:, 0].tolist() == [0.8, 0.8, 1.0]
    assert keypoints.track_id.tolist() == [-1, 3, -1]


def test_coco_results_of_other_categories_are_known_by_their_number_of_joints(tmp_path):
    content = [coco_person(0, joints=26, category_id=2)]
    source = source_of(tmp_path / "cam01.json", content)
    assert read_keypoints(source, video_of(1)).skeleton.name == "halpe26"
    assert read_keypoints(source, video_of(1), skeleton="halpe26").skeleton.name == "halpe26"
    with pytest.raises(FormatError, match="does not name its 9 joints"):
        read_keypoints(source_of(tmp_path / "b.json", [coco_person(0, joints=9, category_id=2)]), video_of(1))
    with pytest.raises(FormatError, match=r"mixes the categories \[1, 2\]"):
        read_keypoints(source_of(tmp_path / "b.json", [*content, coco_person(0)]), video_of(1))
    with pytest.raises(FormatError, match="26 joints, and coco17 has 17"):
        read_keypoints(source_of(tmp_path / "b.json", [coco_person(0, joints=26)]), video_of(1))


def test_coco_data_set_counts_frames_as_its_images_say(tmp_path):
    content = {
        "images": [{"id": number} for number in range(100, 104)],
        "annotations": [coco_person(102, joints=3)],
        "categories": [{"id": 1, "keypoints": ["nose", "left_wrist", "right_wrist"]}],
    }
    keypoints = read_keypoints(source_of(tmp_path / "cam01.json", content, fps=10.0), size_px=SIZE)
    assert keypoints.n_frames == 4
    assert keypoints.frame_index.tolist() == [2]
    assert keypoints.skeleton.joint_names == ("nose", "left_wrist", "right_wrist")


# OpenPose


def test_openpose_folder(tmp_path):
    source = write_openpose(tmp_path / "cam01_json", {0: [1.0], 1: [], 10: [2.0, 3.0]})
    keypoints = read_keypoints(source, video_of(12), skeleton="body25")
    assert keypoints.skeleton.name == "body25"
    assert keypoints.frame_index.tolist() == [0, 10, 10]
    assert keypoints.n_frames == 12
    assert (keypoints.track_id == -1).all()
    np.testing.assert_array_equal(keypoints.xy_px[1, 4], [6, 8])


@pytest.mark.parametrize(("joints", "name"), [(18, "body18"), (17, "coco17"), (26, "halpe26")])
def test_openpose_sets_are_told_by_their_count(tmp_path, joints, name):
    source = write_openpose(tmp_path / "cam01_json", {0: [1.0]}, joints)
    assert read_keypoints(source, video_of(1)).skeleton.name == name


def test_openpose_zero_is_missing(tmp_path):
    source = write_openpose(tmp_path / "cam01_json", {0: [1.0]})
    path = next(source.keypoints.iterdir())
    content = json.loads(path.read_text())
    content["people"][0]["pose_keypoints_2d"][3:6] = [0, 0, 0]
    path.write_text(json.dumps(content))
    keypoints = read_keypoints(source, video_of(1))
    assert np.isnan(keypoints.xy_px[0, 1]).all()
    assert np.isfinite(keypoints.xy_px[0, 0]).all()


def test_openpose_mistakes(tmp_path):
    with pytest.raises(FormatError, match=r"holds no \.json"):
        read_keypoints(write_openpose(tmp_path / "a_json", {}), video_of(1))
    with pytest.raises(FormatError, match="not the number of a frame"):
        read_keypoints(write_openpose(tmp_path / "b_json", {0: []}, name="frame.json"), video_of(1))
    source = write_openpose(tmp_path / "c_json", {0: [1.0]})
    (source.keypoints / "frame0.json").write_text('{"people": []}')
    with pytest.raises(FormatError, match=r"are both frame 0"):
        read_keypoints(source, video_of(1))
    source = write_openpose(tmp_path / "d_json", {0: [1.0]}, joints=9)
    with pytest.raises(FormatError, match="does not name its 9 joints"):
        read_keypoints(source, video_of(1))


# Damage


@pytest.mark.parametrize(
    "content",
    [
        "",
        "{}",
        "3",
        "null",
        '["a"]',
        "[" * 100000,
        '{"people": []}',
        '{"instance_info": 3}',
        '{"instance_info": [3]}',
        '{"instance_info": [{"frame_id": 0}]}',
        '{"instance_info": [{"frame_id": "x", "instances": []}]}',
        '{"instance_info": [{"frame_id": -1, "instances": []}]}',
        '{"instance_info": [{"frame_id": 1e9, "instances": []}]}',
        '{"instance_info": [{"frame_id": 100000000000, "instances": []}]}',
        '{"instance_info": [{"frame_id": 0, "instances": [{"keypoints": 1, "keypoint_scores": 1}]}]}',
        '{"instance_info": [{"frame_id": 0, "instances": [{"keypoints": [[1]], "keypoint_scores": [1]}]}]}',
        '{"instance_info": [{"frame_id": 0, "instances": [{"keypoints": [["a", 1]], "keypoint_scores": [1]}]}]}',
        '{"instance_info": [{"frame_id": 0, "instances": [{"keypoints": [[1, 2], [1]], "keypoint_scores": [1, 1]}]}]}',
        '{"instance_info": [], "meta_info": {"keypoint_id2name": 3}}',
        '{"instance_info": [], "meta_info": {"keypoint_id2name": {"a": "nose"}}}',
        '{"instance_info": [], "meta_info": {"keypoint_id2name": {"1": "nose"}}}',
        '{"instance_info": [], "meta_info": {"keypoint_id2name": {"0": "nose", "1": "nose"}}}',
        '{"instance_info": [], "meta_info": {"keypoint_id2name": {}}}',
        '[{"image_id": 0}]',
        '[{"image_id": 0, "keypoints": [1, 2]}]',
        '[{"image_id": 0, "keypoints": [1, 2, {}]}]',
        '[{"image_id": 0, "keypoints": [1, 2, 3], "category_id": []}]',
        '[{"image_id": 0, "keypoints": [1, 2, 3], "track_id": "a"}]',
        '{"annotations": {}, "images": []}',
        '{"annotations": [], "images": 3}',
        '{"annotations": [], "images": [{"id": null}]}',
    ],
)
def test_damaged_json_is_one_clear_line(tmp_path, content):
    with pytest.raises(FormatError, match=r"cam01\.json") as caught:
        read_keypoints(source_of(tmp_path / "cam01.json", content, fps=30.0), size_px=SIZE)
    assert "\n" not in str(caught.value)


def test_missing_file_is_refused(tmp_path):
    for name in ("cam01.json", "cam01.npz"):
        with pytest.raises(FormatError, match="cannot be read"):
            read_keypoints(source_of(tmp_path / name, None, fps=30.0), size_px=SIZE)


def test_mutated_files_raise_nothing_else(tmp_path):
    rng = np.random.default_rng(0)
    write_keypoints(keypoints_of(), tmp_path / "cam01.npz")
    stored = io.BytesIO()
    with zipfile.ZipFile(tmp_path / "cam01.npz") as archive, zipfile.ZipFile(stored, "w") as plain:
        for name in archive.namelist():
            plain.writestr(name, archive.read(name))
    originals = {
        "a.npz": (tmp_path / "cam01.npz").read_bytes(),
        "b.npz": stored.getvalue(),
        "a.json": json.dumps(mmpose_file((0, [mmpose_person(track_id=2)]), (2, [mmpose_person()]))).encode(),
        "b.json": json.dumps([coco_person(0), coco_person(2)]).encode(),
    }
    for name, original in originals.items():
        refused = 0
        for trial in range(150):
            damaged = bytearray(original)
            if trial % 5 == 0:
                damaged = damaged[: rng.integers(0, len(damaged))]
            else:
                for at in rng.integers(0, len(damaged), 1 + trial % 4):
                    damaged[at] = rng.integers(0, 256)
            (tmp_path / name).write_bytes(damaged)
            try:
                read_keypoints(source_of(tmp_path / name, None, fps=30.0), size_px=SIZE)
            except MvposeError as error:
                assert name in str(error)
                refused += 1
        assert refused > 30
