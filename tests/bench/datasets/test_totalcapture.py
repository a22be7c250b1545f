from dataclasses import replace

import numpy as np
import pytest

from mvpose.bench.datasets import lay_out_session, list_parts, open_dataset
from mvpose.bench.recon_datasets import evaluate_dataset
from mvpose.calib.rig import CameraRig
from mvpose.errors import CalibrationError, DetectionError, FormatError

Y_UP = np.array([[1, 0, 0], [0, 0, 1], [0, -1, 0]])
NAMES = (
    "Hips", "Spine", "Spine1", "Spine2", "Spine3", "Neck", "Head",
    "RightShoulder", "RightArm", "RightForeArm", "RightHand", "LeftShoulder", "LeftArm", "LeftForeArm", "LeftHand",
    "RightUpLeg", "RightLeg", "RightFoot", "LeftUpLeg", "LeftLeg", "LeftFoot",
)  # fmt: skip
OURS = {
    "Hips": "pelvis", "Neck": "thorax", "Head": "head", "RightArm": "right_shoulder", "RightForeArm": "right_elbow",
    "RightHand": "right_wrist", "LeftArm": "left_shoulder", "LeftForeArm": "left_elbow", "LeftHand": "left_wrist",
    "RightUpLeg": "right_hip", "RightLeg": "right_knee", "RightFoot": "right_ankle", "LeftUpLeg": "left_hip",
    "LeftLeg": "left_knee", "LeftFoot": "left_ankle",
}  # fmt: skip


def calibration_text(rig):
    lines = [[len(rig), 1]]
    for c in rig:
        (width, height), K = c.size_px, c.K
        lines += [[0, height - 1, 0, width - 1], [K[0, 0], K[1, 1], K[0, 2], K[1, 2]], [c.dist[0]], *c.R, c.t]
    return "".join(" ".join(f"{number:.17g}" for number in line) + "\n" for line in lines)


@pytest.fixture
def totalcapture(make_scene, write_detections, tmp_path):
    def write(detections=True):
        room = make_scene(120, 60.0, people=1)
        lenses = tuple(replace(c, dist=np.array([-0.02, 0, 0, 0, 0])) for c in room.rig)
        room = replace(room, rig=CameraRig(lenses)).named([f"cam{i}" for i in (1, 2, 3, 4)])
        scene = room.turned(Y_UP)
        (tmp_path / "calibration.cal").write_text(calibration_text(scene.rig))
        known = scene.joints([OURS.get(name, "spine") for name in NAMES])[:, 0] / 0.0254
        rows = ["\t".join(" ".join(f"{v:.6g}" for v in joint) for joint in frame) + "\t" for frame in known]
        for part in ("S1/acting3", "S1/walking1"):
            (tmp_path / part).mkdir(parents=True)
            (tmp_path / part / "gt_skel_gbl_pos.txt").write_text("\t".join(NAMES) + "\t\n" + "\n".join(rows) + "\n")
        if detections:
            seen = room.seen(room.coco(), np.random.default_rng(0))
            write_detections(tmp_path / "S1/acting3/session/mvpose/keypoints2d", scene, seen)
        return scene

    return write


def test_what_is_read_is_what_was_written(totalcapture, tmp_path):
    scene = totalcapture()
    assert list_parts(tmp_path) == ("S1/acting3",)
    dataset = open_dataset(tmp_path)
    assert dataset.rig.up == "y" == dataset.truth.up and dataset.fps == 60
    np.testing.assert_allclose(
        dataset.truth.xyz_m,
        scene.joints(dataset.truth.skeleton.joint_names),
        atol=2e-4,  # six digits of inches
    )
    assert set(dataset.truth.skeleton.joint_names) == set(OURS.values())
    for camera in dataset.rig:
        written = scene.rig[camera.name]
        assert camera.size_px == written.size_px
        np.testing.assert_allclose(camera.project(dataset.truth.xyz_m), written.project(dataset.truth.xyz_m), atol=1e-6)


def test_reconstructed_keypoints_score_as_their_noise_lets_them(totalcapture, tmp_path):
    totalcapture()
    scores = evaluate_dataset(open_dataset(tmp_path))
    assert scores.n_true == 120 and scores.recall == 1
    assert 1 < scores.mpjpe_mm < 4 and scores.ap[25] == 1 and scores.id_switches == 0


def test_videos_become_a_session(totalcapture, tmp_path):
    totalcapture(detections=False)
    archive = tmp_path / "S1" / "videos"
    archive.mkdir()
    for action in ("acting3", "acting33", "walking1"):
        for number in (1, 2, 3, 4):
            (archive / f"TC_S1_{action}_cam{number}.mp4").write_bytes(f"{action} {number}".encode())
    with pytest.raises(DetectionError, match=r"cam1, cam2, cam3, cam4.*acting3/session"):
        open_dataset(tmp_path)
    session = lay_out_session(tmp_path)
    assert session == tmp_path / "S1" / "acting3" / "session"
    videos = {path.name: path.read_bytes().decode() for path in (session / "videos").iterdir()}
    assert videos == {f"cam{number}.mp4": f"acting3 {number}" for number in (1, 2, 3, 4)}


def test_what_is_wrong_is_named(totalcapture, tmp_path):
    totalcapture()
    positions = tmp_path / "S1" / "acting3" / "gt_skel_gbl_pos.txt"
    for broken in ("", "Nothing\n", "Hips\tHead\n1 2 3\t4 5\n", "Hips\n1 2 x\n"):
        positions.write_text(broken)
        with pytest.raises(FormatError, match="gt_skel_gbl_pos"):
            open_dataset(tmp_path)
    calibration = tmp_path / "calibration.cal"
    good = calibration.read_text()
    for broken in ("", "4 1\n1 2 3", good.replace("4 1", "4 2", 1), "camera 1", good.replace("0 1079", "0 -3", 1)):
        calibration.write_text(broken)
        with pytest.raises(CalibrationError, match=r"calibration\.cal"):
            open_dataset(tmp_path)
