"""Whatever becomes of a file, every reader answers with a value or with one clear error, soon and within bounds.

Valid files are made here, then damaged: bytes are cut, flipped, doubled; values become what no value is; arrays of an
npz claim what they do not hold. ``MVPOSE_FUZZ`` is how many damaged files each reader gets (10,000 in all are 300
each); seeds are fixed, and a failure names reader and number of its case. On a machine that is busy CPU time is what
counts.
"""

import contextlib
import io
import json
import os
import pickle
import re
import shutil
import signal
import time
import zipfile

import numpy as np
import pytest

from mvpose.bench.clips.folders import read_pair_table, read_sesyn_folder
from mvpose.calib.camera import Camera
from mvpose.calib.files import FORMATS, read_rig, write_rig
from mvpose.calib.rig import CameraRig
from mvpose.clock import Clock, Clocks, identity_clock
from mvpose.compare import METRICS_FORMAT, read_metrics
from mvpose.detect.mmpose_checkpoint import read_checkpoint
from mvpose.detect.tracks import track_people
from mvpose.errors import MvposeError
from mvpose.formats.keypoints2d import read_keypoints, read_npz, write_keypoints
from mvpose.formats.motion import EXPORTS
from mvpose.formats.results import read_clocks, read_offsets, read_poses, write_clocks, write_offsets, write_poses
from mvpose.keypoints import Keypoints2D
from mvpose.poses import Poses3D
from mvpose.session import CameraSource, camera_times, open_session
from mvpose.skeleton import SKELETONS
from mvpose.sync.offsets import Mode, OffsetGraph, PairwiseOffset, Support
from mvpose.synthetic.bvh import read_bvh
from mvpose.synthetic.motion import read_motion_pack
from mvpose.training.weights import load_weights, save_weights
from mvpose.video import probe, write_video

CASES = int(os.environ.get("MVPOSE_FUZZ", "12"))
MOST_CPU_S = 5.0 if "MVPOSE_FUZZ" in os.environ else 20.0  # the long run is for a quiet machine: others count more
MOST_KB = 1_000_000
COCO = SKELETONS["coco17"].joint_names
SIZE = (640, 480)
resource = pytest.importorskip("resource")

# Valid files: each maker writes into a folder and returns the file to damage.


def rig_of(up="z"):
    cameras = []
    for index, angle in enumerate((0.1, 2.2, 4.4)):
        forward = np.array([-np.cos(angle), -np.sin(angle), 0.0])
        R = np.stack([np.cross(forward, [0, 0, 1]), [0, 0, -1], forward])
        if up == "-y":
            R = R @ np.array([[1.0, 0, 0], [0, 0, 1], [0, -1, 0]])
        pose = np.eye(4)
        pose[:3, :3], pose[:3, 3] = R, (0.1, 0.2, 4.0)
        K = np.array([[600.5, 0, 319.25], [0, 601.5, 239.75], [0, 0, 1]])
        cameras.append(Camera(f"cam{index}", SIZE, K, np.array([-0.05, 0.14, 0.0006, -0.0007, 0.01]), pose))
    return CameraRig(tuple(cameras), up)


def calib(to, name):
    def make(folder):
        write_rig(rig_of("-y" if to == "panoptic" else "z"), folder / "calib", to)
        return folder / "calib" / name if name else folder / "calib"

    return make


def caliscope(folder):
    text = "[charuco]\ncolumns = 4\n"
    for index, c in enumerate(rig_of()):
        text += f"[cameras.{index}]\nsize = [640, 480]\nmatrix = {c.K.tolist()}\ndistortions = {c.dist.tolist()}\n"
        text += f"rotation = {c.R.tolist()}\ntranslation = {c.t.tolist()}\nrotation_count = {index}\n"
    return written(folder / "camera_array.toml", text)


def vicon(folder):
    text = "<Cameras>"
    for c in rig_of():
        text += f'<Camera DEVICEID="{c.name}" TYPE="VIDEO" SENSOR_SIZE="640 480" PIXEL_ASPECT_RATIO="1"><KeyFrames>'
        text += '<KeyFrame FOCAL_LENGTH="600" PRINCIPAL_POINT="320 240" ORIENTATION="0 0.6 0 0.8" POSITION="'
        text += " ".join(str(1000 * v) for v in c.center_m) + '" VICON_RADIAL2="V 320 240 -4e-8 1e-14 0"/>'
        text += "</KeyFrames></Camera>"
    return written(folder / "walk.xcp", text + "</Cameras>")


def opencap(folder):
    c = rig_of().cameras[0]
    document = {"distortion": c.dist[None], "intrinsicMat": c.K, "imageSize": np.array([[480.0], [640.0]]),
                "rotation": c.R, "translation": c.t[:, None] * 1000}  # fmt: skip
    return written(folder / "left.pickle", pickle.dumps(document, protocol=4))


def people():
    """Three frames with one, none and two people."""
    xy = np.random.default_rng(0).uniform(0, 400, (3, 17, 2))
    return Keypoints2D(
        "cam01", np.arange(3) / 30, np.array([0, 1, 1, 3]), xy, np.full((3, 17), 0.9), np.array([0, 0, 1]),
        SKELETONS["coco17"], SIZE,
    )  # fmt: skip


def keypoints_npz(folder):
    write_keypoints(people(), folder / "cam01.npz")
    return folder / "cam01.npz"


def instances(k, f):
    rows = range(k.frame_ptr[f], k.frame_ptr[f + 1])
    return [
        {"keypoints": k.xy_px[r].tolist(), "keypoint_scores": k.score[r].tolist(), "track_id": int(r)} for r in rows
    ]


def mmpose(folder):
    frames = [{"frame_id": f, "instances": instances(people(), f)} for f in range(3)]
    names = {"keypoint_id2name": {str(i): name for i, name in enumerate(COCO)}}
    return written(folder / "cam01.json", json.dumps({"meta_info": names, "instance_info": frames}))


def flat(k, row):
    return np.column_stack([k.xy_px[row], k.score[row]]).ravel().tolist()


def coco(folder):
    k = people()
    images = [{"id": f + 7, "file_name": f"{f:06d}.jpg", "frame_id": f} for f in range(3)]
    annotations = [
        {"image_id": int(f) + 7, "category_id": 1, "keypoints": flat(k, r)} for r, f in enumerate(k.frame_index)
    ]
    categories = [{"id": 1, "keypoints": list(COCO)}]
    content = {"images": images, "annotations": annotations, "categories": categories}
    return written(folder / "cam01.json", json.dumps(content))


def coco_results(folder):
    k = people()
    rows = [
        {"image_id": int(f), "category_id": 1, "keypoints": flat(k, r), "score": 0.9}
        for r, f in enumerate(k.frame_index)
    ]
    return written(folder / "cam01.json", json.dumps(rows))


def frames_folder(content):
    def make(folder):
        (folder / "cam01_json").mkdir()
        for f in (0, 1):
            written(folder / "cam01_json" / f"cam01_{f:06d}.json", json.dumps(content))
        return folder / "cam01_json" / "cam01_000001.json"

    return make


OPENPOSE = {"version": 1.3, "people": [{"pose_keypoints_2d": flat(people(), 0)}, {}]}
EASYMOCAP = {"filename": "1.jpg", "height": 480, "width": 640, "annots": [
    {"personID": 0, "bbox": [0, 0, 1, 1, 1], "keypoints": np.reshape(flat(people(), 0), (17, 3)).tolist()}]}  # fmt: skip


def deeplabcut(folder):
    import h5py

    columns = [("DLC", person, part, c) for person in "ab" for part in COCO for c in ("x", "y", "likelihood")]
    table = np.zeros(4, dtype=[("index", "<i8"), ("values_block_0", "<f8", (len(columns),))])
    table["index"], table["values_block_0"] = np.arange(4), np.arange(len(columns))
    with h5py.File(folder / "cam01.h5", "w") as file:
        group = file.create_group("df_with_missing")
        group.attrs["non_index_axes"] = np.bytes_(pickle.dumps([(1, columns)], protocol=0))
        group.create_dataset("table", data=table)
    return folder / "cam01.h5"


def sleap(folder):
    import h5py

    with h5py.File(folder / "cam01.h5", "w") as file:
        file["tracks"] = np.ones((2, 2, 17, 4))
        file["node_names"] = [name.encode() for name in COCO]
        file["track_names"] = [b"anna", b"otto"]
        file["point_scores"] = np.ones((2, 17, 4))
    return folder / "cam01.h5"


def session_toml(folder):
    for name in ("cam01.json", "cam02.json"):
        written(folder / "keypoints" / name, "[]")
    text = 'reference = "cam01"\n[keypoints]\nskeleton = "coco17"\nframe_base = 1\n[cameras.cam01]\nfps = 29.97\n'
    text += "start_s = -2.5\nrolling_shutter_s = 0.011\nreadout = 'up'\nframe_base = 3\n[cameras.cam02]\noffset_hint_s = 1\n"
    return written(folder / "session.toml", text)


def timestamps(folder):
    rows = [f"{camera},{100 + i / 30:.6f}" for i in range(40) for camera in ("cam01", "cam02")]
    return written(folder / "times.csv", "camera,time_s\n" + "\n".join(rows) + "\n")


def clocks(folder):
    own = Clock(
        "b",
        -0.03,
        1.00002,
        np.array([[4e-6, -1e-9], [-1e-9, 1e-11]]),
        10.0,
        True,
        "doubtful",
        "little",
        ((3.0, 0.1),),
        0.01,
    )
    write_clocks(
        Clocks("a", {"a": identity_clock("a"), "b": own}, {"c": "nobody"}, (("a", "b"), ("c",))), folder / "clocks.json"
    )
    return folder / "clocks.json"


def offsets(folder):
    edge = PairwiseOffset(
        "a", "b", 1.5, -0.03, 1e-3, "epipolar", modes=(Mode(-0.03, 1e-3, 0.9),), support=Support(3, 17, 12.5)
    )
    write_offsets(OffsetGraph(("a", "b", "c"), (edge,), {"c": "nobody"}), folder / "offsets.json")
    return folder / "offsets.json"


def metrics(folder):
    content = {"format": METRICS_FORMAT, "variants": {"raw": {"reprojection_px_mean": 43.0}}}
    return written(folder / "metrics.json", json.dumps(content))


def poses(folder):
    rng = np.random.default_rng(0)
    shape = (4, 2, 17)
    write_poses(
        Poses3D(
            np.arange(4) / 30, rng.normal(size=(*shape, 3)), np.array([5, 2]), rng.random(shape), rng.integers(0, 5, shape),
            rng.random((*shape, 3, 3)).astype(np.float32), SKELETONS["coco17"], ("cam01",), "-y", True,
        ),
        folder / "poses3d.npz",
    )  # fmt: skip
    return folder / "poses3d.npz"


def pack(folder):
    names = np.array([re.sub("^(l)eft|^(r)ight", r"\1\2", name) for name in SKELETONS["cmu21"].joint_names])
    clips = {f"clip{i}": np.random.default_rng(i).normal(size=(20, 21, 3)).astype(np.float32) for i in range(2)}
    np.savez_compressed(folder / "x_train.npz", joint_names=names, **clips)
    written(folder / "index.csv", "clip_id,fps\nclip0,120\nclip1,60\n")
    return folder / "x_train.npz"


def pack_index(folder):
    return pack(folder).with_name("index.csv")


def bvh(folder):
    joints = [
        "Spine",
        "Neck",
        "Head",
        *(s + j for s in ("Left", "Right") for j in ("UpLeg", "Leg", "Foot", "Arm", "ForeArm", "Hand")),
    ]
    parent = {"Leg": "UpLeg", "Foot": "Leg", "ForeArm": "Arm", "Hand": "ForeArm"}
    children = {}
    for j in joints:
        side, part = (j[:4], j[4:]) if j.startswith("Left") else (j[:5], j[5:]) if j.startswith("Right") else ("", j)
        up = (
            side + parent[part]
            if part in parent
            else {"Neck": "Spine", "Head": "Neck", "Arm": "Spine"}.get(part, "Hips")
        )
        children.setdefault(up, []).append(j)

    def joint(name, head="JOINT"):
        x = 0.1 if "Left" in name else -0.1 if "Right" in name else 0.0
        y = {"Hips": 0.0, "Spine": 0.3, "Neck": 0.15, "Head": 0.1}.get(
            name, -0.4 if re.search("tLeg|Foot", name) else 0.05
        )
        channels = "6 Xposition Yposition Zposition " if head == "ROOT" else "3 "
        inner = "".join(joint(child) for child in children.get(name, ())) or "End Site\n{\nOFFSET 0 0.1 0\n}\n"
        return f"{head} {name}\n{{\nOFFSET {x} {y} 0\nCHANNELS {channels}Zrotation Xrotation Yrotation\n{inner}}}\n"

    values = "0 1 0 " + "1 2 3 " * (len(joints) + 1)
    text = f"HIERARCHY\n{joint('Hips', 'ROOT')}MOTION\nFrames: 4\nFrame Time: 0.0083\n" + (values + "\n") * 4
    return written(folder / "walk.bvh", text)


def sesyn(folder):
    annotations = [{"frame_index": f, "id": 0, "person_id": 0, "keypoints": [[1.0, 2.0, 0.9]] * 17} for f in range(9)]
    info = {"num_frame": 9, "resolution": [640, 480], "keypoint_channels": ["x", "y", "score"]}
    for camera in ("C001", "C002"):
        content = {"info": info, "category_id": 2, "annotations": annotations}
        written(folder / f"S01{camera}P01.json", json.dumps(content))
    return folder / "S01C001P01.json"


def pairs(folder):
    for name in "ab":
        write_keypoints(people(), folder / f"{name}.npz")
    head = "split,keypoints_a,keypoints_b,offset_frames,fps,start_a,track_b\n"
    return written(folder / "pairs.csv", head + "train,a.npz,b.npz,0.5,30,1,0\ntest,b.npz,a.npz,-0.5,30,0,1\n")


def network():
    from torch import nn

    return nn.Linear(3, 2)


def weights(folder):
    save_weights(network(), folder / "w.safetensors", {"row": "tiny", "val": {"a": 0.5}})
    return folder / "w.safetensors"


def checkpoint(folder):
    import torch

    names = {"keypoint_id2name": {0: "nose", 1: "left_eye"}}
    content = {
        "state_dict": network().state_dict(),
        "meta": {"cfg": "a = dict(b=[1, dict(c=2)])", "dataset_meta": names},
    }
    torch.save(content, folder / "w.pth")
    return folder / "w.pth"


def video(suffix):
    def make(folder):
        rng = np.random.default_rng(0)
        write_video(
            folder / f"cam01{suffix}", (rng.integers(0, 255, (48, 64, 3), dtype=np.uint8) for _ in range(12)), 25.0
        )
        return folder / f"cam01{suffix}"

    return make


def written(path, content):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


# Readers, and what is done with what they give.


def keypoints_in(folder):
    path = next(
        p
        for p in (folder / "cam01.npz", folder / "cam01.json", folder / "cam01.h5", folder / "cam01_json")
        if p.exists()
    )
    found = read_keypoints(CameraSource("cam01", keypoints=path, fps=30.0), size_px=SIZE)
    if found.n_frames < 10_000:
        track_people(found)


def poses_in(folder):
    found = read_poses(folder / "poses3d.npz")
    for export in EXPORTS.values():
        export(found, folder / "out")


def toml_in(folder):
    open_session(folder)


def times_in(folder):
    camera_times(CameraSource("cam01", timestamps=folder / "times.csv"), None, 40)


READERS = {
    **{f"calib-{to}": (calib(to, "intri.yml" if to == "easymocap" else ""), lambda f: read_rig(f / "calib")) for to in FORMATS},
    "calib-extri": (calib("easymocap", "extri.yml"), lambda f: read_rig(f / "calib")),
    "calib-caliscope": (caliscope, lambda f: read_rig(f / "camera_array.toml")),
    "calib-vicon": (vicon, lambda f: read_rig(f / "walk.xcp")),
    "calib-opencap": (opencap, lambda f: read_rig(f / "left.pickle")),
    "keypoints-npz": (keypoints_npz, keypoints_in),
    "keypoints-mmpose": (mmpose, keypoints_in),
    "keypoints-coco": (coco, keypoints_in),
    "keypoints-results": (coco_results, keypoints_in),
    "keypoints-openpose": (frames_folder(OPENPOSE), keypoints_in),
    "keypoints-easymocap": (frames_folder(EASYMOCAP), keypoints_in),
    "keypoints-inferencer": (frames_folder(instances(people(), 2)), keypoints_in),
    "keypoints-deeplabcut": (deeplabcut, keypoints_in),
    "keypoints-sleap": (sleap, keypoints_in),
    "session": (session_toml, toml_in),
    "timestamps": (timestamps, times_in),
    "clocks": (clocks, lambda f: read_clocks(f / "clocks.json")),
    "offsets": (offsets, lambda f: read_offsets(f / "offsets.json")),
    "metrics": (metrics, lambda f: read_metrics(f / "metrics.json")),
    "poses": (poses, poses_in),
    "pack": (pack, lambda f: read_motion_pack(f / "x_train.npz")),
    "pack-index": (pack_index, lambda f: read_motion_pack(f / "x_train.npz")),
    "bvh": (bvh, lambda f: read_bvh(f / "walk.bvh")),
    "sesyn": (sesyn, read_sesyn_folder),
    "pairs": (pairs, lambda f: read_pair_table(f / "pairs.csv", "train", read_npz)),
    "weights": (weights, lambda f: load_weights(network(), f / "w.safetensors")),
    "checkpoint": (checkpoint, lambda f: read_checkpoint(f / "w.pth")),
    "video-mp4": (video(".mp4"), lambda f: probe("cam01", [f / "cam01.mp4"])),
    "video-mkv": (video(".mkv"), lambda f: probe("cam01", [f / "cam01.mkv"])),
}  # fmt: skip

# Damage.

WORDS = [
    b"null", b"[]", b"{}", b"1e999", b"1e308", b"-1e308", b"NaN", b"nan", b"inf", b"-1", b"0", b"9" * 400, b"-", b'"', b"[",
    b"}", b"\n", b":", b"\xff", b"\x00", b"\xed\xa0\x80", b"true", b"1e-320", b"[" * 3000, b'{"a":' * 3000, b"<", b"&", b"*a",
    b"&a ", b"18446744073709551616", b"2147483648", b"4294967295", b"\x80\x04", b"'", b",", b";", b"1,5", b"..", b"/etc/passwd",
]  # fmt: skip
EXTREMES = [np.nan, np.inf, -np.inf, 1e308, -1e308, 1e-320, 0, -1, 1, 255, 2**31, 2**63 - 1, -(2**63), 1e12]


def damaged(data, rng):
    """Return bytes of which a few are cut, changed, doubled or words put in."""
    data = bytearray(data)
    for _ in range(int(rng.integers(1, 4))):
        at, kind = int(rng.integers(len(data) + 1)), int(rng.integers(8))
        run = int(rng.geometric(0.05))
        if kind == 0:
            del data[at:]
        elif kind == 1:
            del data[at : at + run]
        elif kind == 2 and at < len(data):
            data[at] = int(rng.integers(256))
        elif kind == 3 and at < len(data):
            data[at] ^= 1 << int(rng.integers(8))
        elif kind == 4:
            data[at:at] = data[at : at + run] * int(rng.integers(1, 30))
        elif kind == 5:
            data[at : at + int(rng.integers(0, 8))] = WORDS[int(rng.integers(len(WORDS)))]
        else:  # a number or a word as a whole
            found = list(re.finditer(rb"-?\d[\d.eE+-]*|\w+", data[max(0, at - 200) : at + 200]))
            if found:
                match = found[int(rng.integers(len(found)))]
                low = max(0, at - 200)
                data[low + match.start() : low + match.end()] = WORDS[int(rng.integers(len(WORDS)))]
    return bytes(data)


def swollen(data, size, rng):
    """Return a file of a given size, a part of it over and over."""
    low, high = np.sort(rng.integers(0, len(data) + 1, 2))
    part = data[low : max(high, low + 1)] or b"["
    return data[:low] + part * max(1, size // len(part)) + data[high:]


def changed_tree(value, rng, depth=0):
    """Return JSON in which one value, anywhere, is another thing."""
    if isinstance(value, (list, dict)) and value and (depth == 0 or rng.random() < 0.75):
        keys = list(range(len(value))) if isinstance(value, list) else list(value)
        key = keys[int(rng.integers(len(keys)))]
        copy = value.copy()
        if rng.random() < 0.1:
            del copy[key]
        else:
            copy[key] = changed_tree(value[key], rng, depth + 1)
        return copy
    things = [
        None,
        [],
        {},
        "",
        "a\nb",
        True,
        -1,
        0,
        2**63,
        10**30,
        1.5,
        float("nan"),
        float("inf"),
        1e308,
        [[[[]]]],
        "1",
    ]
    things += [[value, value], {"a": value}, [value] * 1000, "\ud800", "x" * 10_000, -(10**400)]
    return things[int(rng.integers(len(things)))]


def changed_archive(data, rng):
    """Return an npz of which one array is another, or claims to be."""
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    name = list(members)[int(rng.integers(len(members)))]
    kind = int(rng.integers(6))
    if kind == 0:
        del members[name]
    elif kind == 1:  # the header lies
        members[name] = re.sub(
            rb"\(([\d, ]*)\)",
            lambda m: [b"(1000000000000,)", b"(0, 1000000000000)", b"(-1,)", b"()", b"(" + m[1] + b", 7)"][int(rng.integers(5))],
            members[name], count=1,
        )  # fmt: skip
    elif kind == 2:
        members[name] = re.sub(rb"[<|>=]?[a-zA-Z]\d+'", [b"<U0'", b"<f2'", b"|O'", b"<c16'", b"<f16'", b"<M8'", b"<i1'"][int(rng.integers(7))], members[name], count=1)  # fmt: skip
    elif kind == 3:
        members[name] = damaged(members[name], rng)
    else:
        with contextlib.suppress(ValueError):
            array = np.load(io.BytesIO(members[name]))
            out = io.BytesIO()
            np.save(out, changed_array(array, rng), allow_pickle=False)
            members[name] = out.getvalue()
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
        for key, content in members.items():
            archive.writestr(key, content)
    return out.getvalue()


def changed_array(array, rng):
    kind = int(rng.integers(5))
    if kind == 0 or not array.size or array.dtype.kind not in "fiu":
        return [
            array[..., None],
            np.zeros((0,) * array.ndim),
            np.array("word"),
            np.array(3.0),
            np.array([""] * 5),
            array.T,
        ][int(rng.integers(6))]
    if kind == 1:
        return array[:-1] if array.ndim else array[None]
    if kind == 2:
        return array.astype([np.float32, np.int8, np.uint64, bool, np.longdouble][int(rng.integers(5))])
    copy = array.astype(np.float64) if rng.random() < 0.5 else array.copy()
    with np.errstate(all="ignore"), contextlib.suppress(OverflowError, ValueError):
        copy.reshape(-1)[int(rng.integers(copy.size))] = EXTREMES[int(rng.integers(len(EXTREMES)))]
    return copy


def case_of(data, suffix, rng):
    """Return one damaged file."""
    structured = rng.random() < 0.5
    if structured and suffix == ".json":
        with contextlib.suppress(ValueError, UnicodeEncodeError):
            return json.dumps(changed_tree(json.loads(data), rng)).encode()
    if structured and suffix == ".npz":
        return changed_archive(data, rng)
    return damaged(data, rng)


class StuckError(Exception):
    """A reader took far too long."""


def stop(*_):
    raise StuckError


def answer(read, folder, what):
    """Read, and hold what it costs against the bounds."""
    before_kb, start = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.process_time()
    signal.signal(signal.SIGALRM, stop)
    signal.alarm(120)
    try:
        read(folder)
    except MvposeError as error:
        assert str(error), what
        assert "\n" not in str(error), what
    except Exception as error:
        raise AssertionError(f"{what}: {type(error).__name__}: {error}") from error
    finally:
        signal.alarm(0)
    took = time.process_time() - start
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before_kb
    assert took < MOST_CPU_S, f"{what} took {took:.1f} s"
    assert grown < MOST_KB, f"{what} took {grown / 1e6:.2f} GB"


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", READERS)
def test_damaged_files(name, tmp_path):
    make, read = READERS[name]
    if name in ("keypoints-deeplabcut", "keypoints-sleap"):
        pytest.importorskip("h5py")
    whole = tmp_path / "whole"
    whole.mkdir()
    path = make(whole)
    read(whole)  # as it is, it is read
    data = path.read_bytes()
    suffix = path.suffix or ".json" * data.startswith(b"{")
    place = tmp_path / "case"
    shutil.copytree(whole, place)
    target = place / path.relative_to(whole)
    for number in range(CASES):
        rng = np.random.default_rng([number, *name.encode()])
        # A hundredth of them is large.
        is_large = number % 100 == 99
        content = swollen(data, 10_000_000, rng) if is_large else case_of(data, suffix, rng)
        target.write_bytes(content)
        answer(read, place, f"{name}, case {number}")


LARGE = {
    "[]": (".json", b"[" + b"[]," * 3_300_000 + b"[]]"),
    "{}": (".json", b'{"annotations": [' + b'{"a":0},' * 1_200_000 + b"{}]}"),
    "numbers": (".json", b"[" + b"0.5," * 2_400_000 + b"1]"),
    "toml": (".toml", b"a = [" + b"1," * 4_900_000 + b"]\n"),
    "tables": (".toml", b"".join(b"[a%d]\nb = 1\n" % i for i in range(500_000))),
    "yaml": (".yml", b"camera_matrix:\n" + b" - 1\n" * 1_900_000),
    "xml": (".txt", b"<calibration>" + b"<camera/>" * 1_000_000 + b"</calibration>"),
    "csv": (".csv", b"time_s\n" + b"".join(b"%d.5\n" % i for i in range(1_300_000))),
    "lines": (".csv", b"\n" * 10_000_000),
}  # fmt: skip


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", LARGE)
def test_ten_megabytes_of_anything(name, tmp_path):
    suffix, content = LARGE[name]
    path = written(tmp_path / f"cam01{suffix}", content)
    readers = {
        ".json": [keypoints_in, lambda _: read_rig(path), lambda _: read_clocks(path)],
        ".csv": [lambda _: camera_times(CameraSource("cam01", timestamps=path), None, 40)],
    }.get(suffix, [lambda _: read_rig(path)])
    for number, read in enumerate(readers):
        answer(read, tmp_path, f"{name}, reader {number}")
    if suffix == ".toml":
        path.rename(tmp_path / "session.toml")
        answer(toml_in, tmp_path, f"{name} as session.toml")


def test_twenty_thousand_cameras(tmp_path):
    write_rig(rig_of(), tmp_path / "calib.json")
    document = json.loads((tmp_path / "calib.json").read_text())
    one = document["cameras"][0]
    document["cameras"] = [{**one, "name": f"c{i}", "t": [i % 50, i % 7, 1]} for i in range(20_000)]
    path = written(tmp_path / "calib.json", json.dumps(document))
    with pytest.raises(MvposeError, match="holds 20000 cameras, more than 2000; keep those of the session"):
        read_rig(path)
    document["cameras"] = document["cameras"][:2000]
    written(path, json.dumps(document))
    answer(lambda _: read_rig(path), tmp_path, "2,000 cameras")
