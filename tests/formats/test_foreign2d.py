"""Files as other programs write them, made here from people whose joints are known by name."""

import json
import pickle

import numpy as np
import pytest

from mvpose.errors import FormatError, MissingDependencyError
from mvpose.formats.foreign2d import read_foreign
from mvpose.formats.keypoints2d import read_keypoints
from mvpose.session import CameraSource, open_session
from mvpose.skeleton import LAYOUTS, SKELETONS, Skeleton
from mvpose.synthetic.motion import generate_motion
from mvpose.synthetic.rigs import ring_rig

SIZE = (1920, 1080)
N = 40
# OpenPose, src/openpose/pose/poseParameters.cpp: POSE_BODY_25B_BODY_PARTS.
BODY_25B = (
    "Nose", "LEye", "REye", "LEar", "REar", "LShoulder", "RShoulder", "LElbow", "RElbow", "LWrist", "RWrist", "LHip",
    "RHip", "LKnee", "RKnee", "LAnkle", "RAnkle", "UpperNeck", "HeadTop", "LBigToe", "LSmallToe", "LHeel", "RBigToe",
    "RSmallToe", "RHeel",
)  # fmt: skip
# MMPose, configs/_base_/datasets/h36m.py.
H36M = (
    "root", "right_hip", "right_knee", "right_foot", "left_hip", "left_knee", "left_foot", "spine", "thorax",
    "neck_base", "head", "left_shoulder", "left_elbow", "left_wrist", "right_shoulder", "right_elbow", "right_wrist",
)  # fmt: skip


@pytest.fixture(scope="module")
def walk():
    """Where a camera sees each named joint of somebody who walks: (N, 2) pixels."""
    rng = np.random.default_rng(5)
    motion = generate_motion(rng, 2.0)
    xy = ring_rig(3, rng=rng)["cam01"].project(motion.at(motion.time_s[0] + np.arange(N) / 25)[:, 0])
    return dict(zip(motion.skeleton.joint_names, np.moveaxis(xy, 1, 0), strict=True))


def laid_out(walk, names, frame):
    """x, y, score of one person in an order of joints; (0, 0, 0) where the walk lacks one."""
    points = np.zeros((len(names), 3))
    for index, name in enumerate(names):
        if name in walk:
            points[index] = [*walk[name][frame], 0.9]
    return points


def openpose(folder, walk, names, n=N, name="cam01_{:012d}_keypoints.json"):
    folder.mkdir(parents=True)
    for frame in range(n):
        people = [{"person_id": [-1], "pose_keypoints_2d": laid_out(walk, names, frame).ravel().tolist()}]
        (folder / name.format(frame)).write_text(json.dumps({"version": 1.3, "people": people}))
    return folder


def assert_is_the_walk(found, walk, frames=range(N)):
    assert found.frame.tolist() == list(frames)
    shared = [name for name in found.skeleton.joint_names if name in walk]
    assert len(shared) >= 12
    for name in shared:
        at = found.skeleton.joint_names.index(name)
        np.testing.assert_allclose(found.xy_px[:, at], walk[name][list(frames)], atol=0.01)


@pytest.mark.parametrize("name", ["body25", "body25b", "coco17", "h36m17", "body18", "halpe26"])
def test_orders_of_one_count_are_told_apart_by_the_body(tmp_path, walk, name, caplog):
    folder = openpose(tmp_path / "cam01_json", walk, SKELETONS[name].joint_names)
    found = read_foreign(folder)
    assert found.skeleton.name == name
    assert_is_the_walk(found, walk)
    assert bool(caplog.records) == (name in ("body25b", "h36m17"))
    few = read_foreign(openpose(tmp_path / "few_json", walk, SKELETONS[name].joint_names, n=1))
    assert few.skeleton.name == name


def test_body25b_is_in_the_order_of_openpose():
    names = tuple(name.replace("UpperNeck", "neck") for name in BODY_25B)
    assert SKELETONS["body25b"].joint_names == Skeleton("x", tuple(
        {"L": "left_", "R": "right_"}[n[0]] + {"BigToe": "big_toe", "SmallToe": "small_toe"}.get(n[1:], n[1:].lower())
        if n[0] in "LR" and n[1].isupper() else {"HeadTop": "head_top"}.get(n, n.lower()) for n in names
    )).joint_names  # fmt: skip


def test_an_order_that_is_told_is_kept_but_doubted(tmp_path, walk, caplog):
    folder = openpose(tmp_path / "cam01_json", walk, SKELETONS["body25b"].joint_names)
    assert read_foreign(folder, "body25").skeleton.name == "body25"
    assert "in the order of body25b the joints look more like bodies" in caplog.text
    caplog.clear()
    assert read_foreign(folder, "body25b").skeleton.name == "body25b"
    assert not caplog.text


@pytest.mark.parametrize(("count", "name"), [(133, "coco_wholebody23"), (136, "halpe26")])
def test_bodies_with_face_and_hands_are_known_by_their_count(tmp_path, walk, count, name):
    names = [*SKELETONS[name].joint_names, *("elsewhere" for _ in range(count - len(SKELETONS[name])))]
    found = read_foreign(openpose(tmp_path / "cam01_json", walk, names, name="{:06d}.json"))
    assert found.skeleton.name == name
    assert_is_the_walk(found, walk)
    layout = {133: "coco_wholebody133", 136: "halpe136"}[count]
    assert LAYOUTS[layout][0] == count
    assert read_foreign(tmp_path / "cam01_json", layout).skeleton.name == name
    frames = [
        {"frame_id": f, "instances": [{"keypoints": p[:, :2].tolist(), "keypoint_scores": p[:, 2].tolist()}]}
        for f in range(N)
        for p in [laid_out(walk, names, f)]
    ]
    (tmp_path / "cam01.json").write_text(json.dumps(frames))
    assert_is_the_walk(read_foreign(tmp_path / "cam01.json"), walk)


def test_pose2sim_leaves_an_empty_table_for_nobody(tmp_path, walk):
    folder = openpose(tmp_path / "cam01_json", walk, SKELETONS["halpe26"].joint_names)
    for path in sorted(folder.iterdir())[3::17]:
        path.write_text(json.dumps({"version": 1.3, "people": [{}]}))
    found = read_foreign(folder)
    assert_is_the_walk(found, walk, [f for f in range(N) if f % 17 != 3])
    assert (found.first_frame, found.last_frame, found.lists_all) == (0, N - 1, True)


def test_mmpose_names_of_h36m(tmp_path, walk):
    ours = [*SKELETONS["h36m17"].joint_names]
    frames = [
        {"frame_id": f, "instances": [{"keypoints": p[:, :2].tolist(), "keypoint_scores": p[:, 2].tolist()}]}
        for f in range(N)
        for p in [laid_out(walk, ours, f)]
    ]
    names = {"keypoint_id2name": {str(i): name for i, name in enumerate(H36M)}}
    (tmp_path / "cam01.json").write_text(json.dumps({"meta_info": names, "instance_info": frames}))
    found = read_foreign(tmp_path / "cam01.json")
    assert found.skeleton is SKELETONS["h36m17"]
    assert_is_the_walk(found, walk)


def test_mmposes_inferencer_writes_a_list_an_image(tmp_path, walk):
    folder = tmp_path / "cam01_json"
    folder.mkdir()
    for frame in range(N):
        points = laid_out(walk, SKELETONS["coco17"].joint_names, frame)
        instance = {"keypoints": points[:, :2].tolist(), "keypoint_scores": points[:, 2].tolist(),
                    "bbox": [[0, 0, 9, 9]], "bbox_score": 0.9}  # fmt: skip
        (folder / f"{frame:06d}.json").write_text(json.dumps([instance] if frame != 5 else []))
    found = read_foreign(folder)
    assert found.skeleton.name == "coco17"
    assert_is_the_walk(found, walk, [f for f in range(N) if f != 5])


def test_easymocap_annots(tmp_path, walk):
    folder = tmp_path / "cam01_json"
    folder.mkdir()
    for frame in range(N):
        points = laid_out(walk, SKELETONS["body25"].joint_names, frame)
        person = {"bbox": [0, 0, 9, 9, 0.9], "personID": 0, "keypoints": points.tolist(), "isKeyframe": False}
        content = {"filename": f"images/1/{frame:06d}.jpg", "height": 1080, "width": 1920, "annots": [person]}
        (folder / f"{frame:06d}.json").write_text(json.dumps(content))
    found = read_foreign(folder)
    assert found.skeleton.name == "body25"
    assert (found.track_id == -1).all()
    assert_is_the_walk(found, walk)


def test_hidden_files_are_passed_over(tmp_path, walk):
    folder = openpose(tmp_path / "keypoints" / "cam01_json", walk, SKELETONS["body25"].joint_names)
    (folder / "._cam01_000000000000_keypoints.json").write_bytes(b"\x00\x05\x16\x07\x00\x02\x00\x00Mac OS X        ")
    (tmp_path / "keypoints" / "._cam02.json").write_bytes(b"\x00\x05\x16\x07")
    assert open_session(tmp_path).names == ("cam01",)
    assert_is_the_walk(read_foreign(folder), walk)


# COCO's image numbers


def coco(walk, frame, number, **more):
    points = laid_out(walk, SKELETONS["coco17"].joint_names, frame)
    return {"image_id": number, "category_id": 1, "keypoints": points.ravel().tolist(), "score": 0.9, **more}


def test_image_ids_that_run_over_a_data_set_are_asked_about(tmp_path, walk):
    path = tmp_path / "cam 1.json"
    path.write_text(json.dumps([coco(walk, f, 20000 + f) for f in range(N)]))
    source = CameraSource("cam 1", keypoints=path, fps=25.0)
    with pytest.raises(FormatError, match=r'set cameras\."cam 1"\.frame_base = 20000 .* set it to 0'):
        read_keypoints(source, size_px=SIZE)
    for base, first in ((20000, 0), (0, 20000), (19990, 10)):
        own = CameraSource("cam 1", keypoints=path, fps=25.0, frame_base=base)
        assert read_keypoints(own, size_px=SIZE, frame_base=7).frame_index[0] == first
    # Somebody who comes ten seconds late needs no words.
    path.write_text(json.dumps([coco(walk, f, 250 + f) for f in range(N)]))
    assert read_keypoints(source, size_px=SIZE).frame_index[0] == 250


@pytest.mark.parametrize("key", ["frame_id", "file_name", None])
def test_frames_of_a_data_set_are_those_of_its_images(tmp_path, walk, key):
    """Nobody is seen in the first three images, and the images stand in any order."""
    images = []
    for f in range(N):
        image = {"id": 20000 + f if key is None else 90000 - f, "width": 1920}
        if key:
            image[key] = f if key == "frame_id" else f"cam01/{f + 1:06d}.jpg"
        images.append(image)
    annotations = [coco(walk, f, images[f]["id"]) for f in range(3, N)]
    path = tmp_path / "cam01.json"
    path.write_text(json.dumps({"images": images[::-1], "annotations": annotations}))
    found = read_keypoints(CameraSource("cam01", keypoints=path, fps=25.0), size_px=SIZE)
    assert found.n_frames == N
    assert found.frame_index.tolist() == list(range(3, N))
    annotations[0]["image_id"] = 5
    path.write_text(json.dumps({"images": images, "annotations": annotations}))
    with pytest.raises(FormatError, match="image 5, which is not among its images"):
        read_foreign(path)


# HDF5


def deeplabcut(path, walk, individuals=("",), names=SKELETONS["coco17"].joint_names, **attributes):
    """Write what pandas does; checked against a file of pandas 2.3 and PyTables 3.10 when this was written."""
    h5py = pytest.importorskip("h5py")
    columns, values = [], []
    for number, person in enumerate(individuals):
        for name in names:
            for index, coordinate in enumerate(("x", "y", "likelihood")):
                columns.append(("DLC_resnet50", *([person] if person else []), name, coordinate))
                column = [laid_out(walk, [name], f)[0, index] + number * 100 * (index < 2) for f in range(N)]
                values.append(column if name in walk else [np.nan] * N)
    table = np.zeros(N, dtype=[("index", "<i8"), ("values_block_0", "<f8", (len(columns),))])
    table["index"], table["values_block_0"] = np.arange(N), np.array(values).T
    with h5py.File(path, "w") as file:
        group = file.create_group("df_with_missing")
        group.attrs["non_index_axes"] = np.bytes_(pickle.dumps([(1, columns)], protocol=0))
        for name, value in attributes.items():
            group.attrs[name] = value
        group.create_dataset("table", data=table)
    return path


def test_deeplabcut(tmp_path, walk):
    found = read_foreign(deeplabcut(tmp_path / "cam01.h5", walk))
    assert found.skeleton.name == "coco17"
    assert_is_the_walk(found, walk)
    assert (found.track_id == -1).all()
    assert found.lists_all


def test_deeplabcut_of_several_people(tmp_path, walk):
    found = read_foreign(deeplabcut(tmp_path / "cam01.h5", walk, ("anna", "otto")))
    assert found.track_id.tolist() == [0, 1] * N
    shoulder = found.skeleton.joint_names.index("left_shoulder")
    np.testing.assert_allclose(found.xy_px[1::2, shoulder], walk["left_shoulder"] + 100)


def test_sleap(tmp_path, walk):
    h5py = pytest.importorskip("h5py")
    names = [name for name in SKELETONS["coco17"].joint_names if name in walk]
    tracks = np.full((2, 2, len(names), N), np.nan)
    tracks[0] = np.array([walk[name] for name in names]).transpose(2, 0, 1)
    tracks[1] = tracks[0] + 50
    tracks[1, :, :, :7] = np.nan
    with h5py.File(tmp_path / "cam01.h5", "w") as file:
        file["tracks"] = tracks
        file["node_names"] = [name.encode() for name in names]
        file["track_names"] = [b"anna", b"otto"]
        file["point_scores"] = np.where(np.isnan(tracks[:, 0]), np.nan, 0.8)
    found = read_foreign(tmp_path / "cam01.h5")
    assert found.track_id.tolist() == [0] * 7 + [0, 1] * (N - 7)
    for index, name in enumerate(found.skeleton.joint_names):
        np.testing.assert_allclose(found.xy_px[found.track_id == 0, index], walk[name])


def test_hdf_that_is_something_else_says_what_to_export(tmp_path):
    h5py = pytest.importorskip("h5py")
    with h5py.File(tmp_path / "cam01.h5", "w") as file:
        file["videos_json"] = [b"{}"]
    with pytest.raises(FormatError, match="Export Analysis HDF5"):
        read_foreign(tmp_path / "cam01.h5")


def test_hdf_without_h5py_says_how_to_get_it(tmp_path, walk, monkeypatch):
    path = deeplabcut(tmp_path / "cam01.h5", walk)
    monkeypatch.setitem(__import__("sys").modules, "h5py", None)
    with pytest.raises(MissingDependencyError, match=r"pip install 'mvpose\[hdf5\]'"):
        read_foreign(path)


@pytest.mark.parametrize(
    ("names", "camera"),
    [("cam01.h5", "cam01"), ("cam01DLC_resnet50_walkMar1shuffle1_50000.h5", "cam01"), ("cam01.analysis.h5", "cam01")],
)
def test_hdf_is_filed_under_its_camera(tmp_path, names, camera):
    (tmp_path / "keypoints").mkdir()
    (tmp_path / "keypoints" / names).touch()
    assert open_session(tmp_path).names == (camera,)


def test_hdf_runs_no_pickle(tmp_path, walk):
    class Trap:
        def __reduce__(self):
            return (tmp_path.joinpath("sprung").touch, ())

    path = deeplabcut(tmp_path / "cam01.h5", walk, non_index_axes=np.bytes_(pickle.dumps(Trap(), protocol=0)))
    with pytest.raises(FormatError, match=r"cam01\.h5"):
        read_foreign(path)
    assert not (tmp_path / "sprung").exists()
