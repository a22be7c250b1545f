import logging
from itertools import permutations

import numpy as np
import pytest

from mvpose.errors import FormatError
from mvpose.skeleton import SKELETONS
from mvpose.synthetic.bvh import read_bvh, read_bvh_folder

CMU21 = SKELETONS["cmu21"]
LIMBS = [
    f"{side}_{joint}" for side in ("left", "right") for joint in ("hip", "knee", "ankle", "shoulder", "elbow", "wrist")
]

# A person in a T-pose who faces z, left is x, up is y: joint, its parent, its offset in metres.
SIDED = [
    ("hip", "root", (0.09, -0.05, 0.0)),
    ("knee", "hip", (0.0, -0.42, 0.0)),
    ("ankle", "knee", (0.0, -0.42, 0.0)),
    ("toe", "ankle", (0.0, -0.05, 0.15)),
    ("collar", "chest", (0.03, 0.14, 0.0)),
    ("shoulder", "collar", (0.16, 0.0, 0.0)),
    ("elbow", "shoulder", (0.29, 0.0, 0.0)),
    ("wrist", "elbow", (0.25, 0.0, 0.0)),
]
PERSON = [
    ("root", None, (0.0, 0.0, 0.0)),
    ("spine", "root", (0.0, 0.10, 0.0)),
    ("chest", "spine", (0.0, 0.25, 0.0)),
    ("neck", "chest", (0.0, 0.15, 0.0)),
    ("head", "neck", (0.0, 0.09, 0.0)),
    *(
        (f"{side}_{joint}", parent if parent in ("root", "chest") else f"{side}_{parent}", (sign * x, y, z))
        for side, sign in (("left", 1), ("right", -1))
        for joint, parent, (x, y, z) in SIDED
    ),
]
ENDS = {
    "head": (0.0, 0.22, 0.0),
    "left_wrist": (0.08, 0.0, 0.0), "right_wrist": (-0.08, 0.0, 0.0),
    "left_toe": (0.0, 0.0, 0.05), "right_toe": (0.0, 0.0, 0.05),
}  # fmt: skip
NO_TOES = [bone for bone in PERSON if not bone[0].endswith("toe")]
TOE_ENDS = {
    **{joint: end for joint, end in ENDS.items() if not joint.endswith("toe")},
    **{joint.replace("toe", "ankle"): (0.0, -0.05, 0.15) for joint in ENDS if joint.endswith("toe")},
}
ROOT = (0.5, 0.95, 2.0)


def family(central, sided):
    return {**central, **{f"{s.lower()}_{joint}": name(s) for s in ("Left", "Right") for joint, name in sided.items()}}


CMU = family(
    {"root": "Hips", "spine": "Spine", "chest": "Spine1", "neck": "Neck", "head": "Head"},
    {
        "hip": "{}UpLeg".format, "knee": "{}Leg".format, "ankle": "{}Foot".format, "toe": "{}ToeBase".format,
        "collar": "{}Shoulder".format, "shoulder": "{}Arm".format, "elbow": "{}ForeArm".format,
        "wrist": "{}Hand".format,
    },
)  # fmt: skip
MIXAMO = {joint: f"mixamorig:{name}" for joint, name in CMU.items()}
MOTIONBUILDER = {joint: f"Character1_{name}" for joint, name in CMU.items()}
BIOVISION = family(
    {"root": "Hips", "spine": "Chest", "chest": "Chest2", "neck": "Neck", "head": "Head"},
    {
        "hip": "{}Hip".format, "knee": "{}Knee".format, "ankle": "{}Ankle".format, "toe": "{}Toe".format,
        "collar": "{}Collar".format, "shoulder": "{}Shoulder".format, "elbow": "{}Elbow".format,
        "wrist": "{}Wrist".format,
    },
)  # fmt: skip
SMPL = family(
    {"root": "Pelvis", "spine": "Spine1", "chest": "Spine3", "neck": "Neck", "head": "Head"},
    {
        "hip": lambda s: f"{s[0]}_Hip", "knee": lambda s: f"{s[0]}_Knee", "ankle": lambda s: f"{s[0]}_Ankle",
        "toe": lambda s: f"{s[0]}_Foot", "collar": lambda s: f"{s[0]}_Collar", "shoulder": lambda s: f"{s[0]}_Shoulder",
        "elbow": lambda s: f"{s[0]}_Elbow", "wrist": lambda s: f"{s[0]}_Wrist",
    },
)  # fmt: skip
UNREAL = family(
    {"root": "pelvis", "spine": "spine_01", "chest": "spine_03", "neck": "neck_01", "head": "head"},
    {
        "hip": lambda s: f"thigh_{s[0].lower()}", "knee": lambda s: f"calf_{s[0].lower()}",
        "ankle": lambda s: f"foot_{s[0].lower()}", "toe": lambda s: f"ball_{s[0].lower()}",
        "collar": lambda s: f"clavicle_{s[0].lower()}", "shoulder": lambda s: f"upperarm_{s[0].lower()}",
        "elbow": lambda s: f"lowerarm_{s[0].lower()}", "wrist": lambda s: f"hand_{s[0].lower()}",
    },
)  # fmt: skip
DAZ = family(
    {"root": "hip", "spine": "abdomen", "chest": "chest", "neck": "neck", "head": "head"},
    {
        "hip": lambda s: f"{s[0].lower()}Thigh", "knee": lambda s: f"{s[0].lower()}Shin",
        "ankle": lambda s: f"{s[0].lower()}Foot", "collar": lambda s: f"{s[0].lower()}Collar",
        "shoulder": lambda s: f"{s[0].lower()}Shldr", "elbow": lambda s: f"{s[0].lower()}ForeArm",
        "wrist": lambda s: f"{s[0].lower()}Hand",
    },
)  # fmt: skip


def bvh(
    frames,
    *,
    names=CMU,
    bones=PERSON,
    ends=ENDS,
    order="ZXY",
    unit=1.0,
    axes=(0, 1, 2),
    frame_s=0.1,
    root_offset=(0, 0, 0),
):
    """Write a BVH; a frame is {joint: its angles in ``order``, or ``root_at``: metres}."""
    lines, columns = ["HIERARCHY"], []

    def numbers(xyz):
        return " ".join(f"{unit * xyz[axis]:.9f}" for axis in axes)

    def joint(name, depth):
        pad = "\t" * depth
        offset = next(offset for bone, _, offset in bones if bone == name)
        lines.append(f"{pad}{'ROOT' if depth == 0 else 'JOINT'} {names[name]}\n{pad}{{")
        lines.append(f"{pad}\tOFFSET {numbers(root_offset if depth == 0 else offset)}")
        places = "Xposition Yposition Zposition " if depth == 0 else ""
        lines.append(f"{pad}\tCHANNELS {6 if places else 3} {places}" + " ".join(f"{axis}rotation" for axis in order))
        columns.append(name)
        for bone, parent, _ in bones:
            if parent == name:
                joint(bone, depth + 1)
        if name in ends:
            lines.append(f"{pad}\tEnd Site\n{pad}\t{{\n{pad}\t\tOFFSET {numbers(ends[name])}\n{pad}\t}}")
        lines.append(f"{pad}}}")

    joint("root", 0)
    lines += ["MOTION", f"Frames: {len(frames)}", f"Frame Time: {frame_s}"]
    for frame in frames:
        angles = " ".join(f"{a:.9f}" for name in columns for a in frame.get(name, (0, 0, 0)))
        lines.append(f"{numbers(frame.get('root_at', ROOT))} {angles}")
    return "\n".join(lines) + "\n"


@pytest.fixture
def read(tmp_path):
    def write_and_read(frames, unit_m=None, up=None, **options):
        path = tmp_path / "a.bvh"
        path.write_text(bvh(frames, **options), encoding="utf-8")
        return read_bvh(path, unit_m=unit_m, up=up)

    return write_and_read


def joints(motion, *names):
    return motion.xyz_m[:, 0, CMU21.indices(names)]


def z_up(xyz):
    return np.asarray(xyz)[..., [2, 0, 1]]


STILL = [{}, {}]


def rest(name):
    """Where a joint is in the rest pose, from the root, Z up."""
    _, parent, offset = next(bone for bone in PERSON if bone[0] == name)
    return z_up(offset) + (0 if parent is None else rest(parent))


# Kinematics.


def quarter(axis):
    """A rotation by 90 degrees, written out."""
    return np.array(
        {
            "X": [[1, 0, 0], [0, 0, -1], [0, 1, 0]],
            "Y": [[0, 0, 1], [0, 1, 0], [-1, 0, 0]],
            "Z": [[0, -1, 0], [1, 0, 0], [0, 0, 1]],
        }[axis]
    )


@pytest.mark.parametrize("order", ["".join(p) for p in permutations("XYZ")])
@pytest.mark.parametrize("turned", ["X", "Y", "Z", "XY", "YZ", "ZX", "XYZ"])
def test_a_bone_turns_about_its_axes_in_the_order_of_its_channels(read, order, turned):
    angles = [90.0 * (axis in turned) for axis in order]
    motion = read([{}, {"left_elbow": angles}, {"left_shoulder": (90, 0, 0), "left_elbow": angles}], order=order)
    R = np.eye(3)
    for axis in order:
        R = R @ quarter(axis) if axis in turned else R
    shoulder, elbow, wrist = np.moveaxis(joints(motion, "left_shoulder", "left_elbow", "left_wrist"), 1, 0)
    upper, fore = np.array([0.29, 0, 0]), np.array([0.25, 0, 0])
    np.testing.assert_allclose(elbow - shoulder, z_up([upper, upper, quarter(order[0]) @ upper]), atol=1e-8)
    np.testing.assert_allclose(wrist - elbow, z_up([fore, R @ fore, quarter(order[0]) @ R @ fore]), atol=1e-8)


def test_the_root_carries_the_body(read):
    motion = read([{}, {"root": (0, 0, 90), "root_at": (1.0, 0.95, -1.0)}], order="ZXY")  # to the left: z becomes x
    names = [*LIMBS, "left_toe", "right_toe", "neck", "thorax"]
    at = np.array([rest({"neck": "head", "thorax": "neck"}.get(name, name)) for name in names])
    turned = at @ np.array([[0, -1, 0], [1, 0, 0], [0, 0, 1]]).T
    root = z_up([ROOT, (1.0, 0.95, -1.0)])
    expected = np.stack([at, turned]) + root[:, None]
    found = joints(motion, *names)
    np.testing.assert_allclose(found[..., :2], expected[..., :2], atol=1e-8)
    np.testing.assert_allclose(np.ptp(found[..., 2] - expected[..., 2]), 0, atol=1e-8)  # but for the floor


def test_positions_stand_in_place_of_the_offset(read):
    np.testing.assert_allclose(read(STILL, root_offset=(7, 8, 9)).xyz_m, read(STILL).xyz_m, atol=1e-12)


def test_time_starts_at_zero_in_steps_of_the_frame_time(read):
    np.testing.assert_allclose(read([{}, {}, {}], frame_s=0.008333).time_s, [0, 0.008333, 0.016666], atol=1e-12)


def test_the_root_may_be_a_point_on_the_floor(read):
    bones = [("root", None, (0, 0, 0)), ("hips", "root", (0, 0.95, 0))]
    bones += [(bone, "hips" if parent == "root" else parent, offset) for bone, parent, offset in PERSON[1:]]
    motion = read([{"root_at": (0.5, 0, 2)}] * 2, names={**CMU, "root": "Reference", "hips": "Hips"}, bones=bones)
    np.testing.assert_allclose(motion.xyz_m, read(STILL).xyz_m, atol=1e-8)


# Names.


@pytest.mark.parametrize("names", [CMU, MIXAMO, MOTIONBUILDER, BIOVISION, SMPL, UNREAL])
def test_joints_are_known_in_every_family_of_names(read, names):
    motion = read(STILL, names=names)
    expected = np.array([rest(name) for name in [*LIMBS, "left_toe", "right_toe", "head", "neck"]])
    found = joints(motion, *LIMBS, "left_toe", "right_toe", "neck", "thorax")
    np.testing.assert_allclose(found - found[:, :1], np.stack([expected - expected[0]] * 2), atol=1e-8)


def test_daz_names_and_feet_that_end_in_the_toes(read):
    motion = read(STILL, names=DAZ, bones=NO_TOES, ends=TOE_ENDS)
    np.testing.assert_allclose(motion.xyz_m, read(STILL).xyz_m, atol=1e-8)


def test_the_top_of_the_head_may_be_a_joint(read):
    bones = [*PERSON, ("crown", "head", (0.0, 0.22, 0.0))]
    ends = {**ENDS, "crown": (0.0, 0.01, 0.0)}
    del ends["head"]
    motion = read(STILL, names={**MIXAMO, "crown": "mixamorig:HeadTop_End"}, bones=bones, ends=ends)
    np.testing.assert_allclose(motion.xyz_m, read(STILL).xyz_m, atol=1e-8)


def test_missing_joints_are_named(read):
    bones = [bone for bone in PERSON if bone[0] not in ("left_wrist", "head")]
    with pytest.raises(FormatError, match=r"a\.bvh: no joint is known as head, left_wrist; its joints are Hips, "):
        read(STILL, bones=bones)


# What is estimated.


def test_pelvis_spine_and_thorax_lie_on_the_trunk(read):
    pelvis, spine, thorax = joints(read(STILL), "pelvis", "spine", "thorax")[0]
    np.testing.assert_allclose(thorax - pelvis, [0, 0, 0.55], atol=1e-8)
    np.testing.assert_allclose(spine - pelvis, [0, 0, 0.38 * 0.55], atol=1e-8)


def test_without_a_neck_the_thorax_is_between_the_shoulders(read):
    bones = [("head", "chest", (0.0, 0.24, 0.0)) if bone[0] == "head" else bone for bone in PERSON if bone[0] != "neck"]
    thorax, left, right = joints(read(STILL, bones=bones), "thorax", "left_shoulder", "right_shoulder")[0]
    np.testing.assert_allclose(thorax, (left + right) / 2, atol=1e-8)


@pytest.mark.parametrize(("low", "high"), [(0.0, 0.15), (0.15, 0.20)])  # as cgspeed's, as MotionBuilder's
def test_of_two_neck_joints_the_one_a_neck_below_the_head_is_the_thorax(read, low, high):
    two = {
        "neck": ("neck", "chest", (0.0, low, 0.0)),
        "neck1": ("neck1", "neck", (0.0, high - low, 0.0)),
        "head": ("head", "neck1", (0.0, 0.24 - high, 0.0)),
    }
    bones = [two.get(bone[0], bone) for bone in [*PERSON, ("neck1", "neck", None)]]
    motion = read(STILL, names={**CMU, "neck1": "Neck1"}, bones=bones)
    np.testing.assert_allclose(motion.xyz_m, read(STILL).xyz_m, atol=1e-8)


@pytest.mark.parametrize(
    ("end", "middle", "top"), [(0.22, 0.11, 0.22), (0.10, 0.10, 0.20), (0.0, 0.065 * 1.72, 0.13 * 1.72)]
)
def test_the_end_of_the_head_is_its_top_or_its_middle(read, end, middle, top):
    neck, head, head_top = joints(read(STILL, ends={**ENDS, "head": (0.0, end, 0.0)}), "neck", "head", "head_top")[0]
    # Without an end the parts are those of the stature, here 1.72 to 1.80 m by leg and trunk.
    near = 0.01 if end == 0 else 1e-8
    np.testing.assert_allclose(head - neck, [0, 0, middle], atol=near)
    np.testing.assert_allclose(head_top - neck, [0, 0, top], atol=near)


def test_the_nose_is_fixed_to_the_head_and_on_average_before_it(read):
    motion = read([{"head": (0, 0, 30.0)}, {"head": (0, 0, -30.0)}])  # about y: the head looks left, then right
    nose = np.diff(joints(motion, "neck", "nose"), axis=1)[:, 0]
    heading = np.rad2deg(np.arctan2(nose[:, 1], nose[:, 0]))
    np.testing.assert_allclose(heading, [30, -30], atol=1e-6)
    np.testing.assert_allclose(nose[:, 2], 0.75 * np.hypot(nose[:, 0], nose[:, 1]), atol=1e-8)
    assert 0.09 < nose[0, 0] < 0.11


def test_feet_without_toes_get_some_that_turn_with_them(read):
    ends = {"head": ENDS["head"]}
    flat = read(STILL, bones=NO_TOES, ends=ends)
    toe = np.diff(joints(flat, "left_ankle", "left_toe"), axis=1)[0, 0]
    assert toe[0] == pytest.approx(0.09 * 1.76, abs=0.01)
    assert toe[1] == pytest.approx(0, abs=1e-8)
    assert -0.04 < toe[2] < -0.02
    tiptoe = read([{"left_ankle": (0, 40.0, 0)}, {"left_ankle": (0, -40.0, 0)}], bones=NO_TOES, ends=ends)
    toes = np.diff(joints(tiptoe, "left_ankle", "left_toe"), axis=1)[:, 0]
    pitch = np.rad2deg(np.arctan2(toes[:, 2], toes[:, 0]))
    assert pitch[1] - pitch[0] == pytest.approx(80, abs=1e-6)  # about x, z goes down: the toes were down first


# Unit, axis, floor.


@pytest.mark.parametrize(
    ("per_m", "name"),
    [(1, "m"), (100, "cm"), (1000, "mm"), (1 / 0.0254, "inch"), (0.45 / 0.0254, "CMU's inch / 0.45")],
)
def test_the_unit_is_the_one_that_makes_a_human(read, caplog, per_m, name):
    with caplog.at_level(logging.INFO):
        motion = read(STILL, unit=per_m)
    np.testing.assert_allclose(motion.xyz_m, read(STILL).xyz_m, atol=1e-6)
    assert f"its length unit is taken for {name}, so that the person is 1.7" in caplog.text


@pytest.mark.parametrize("stature", [0.68, 1.25])
def test_units_are_right_for_children_and_giants(read, stature):
    motion = read(STILL, unit=100 * stature)
    np.testing.assert_allclose(motion.statures_m(), stature * read(STILL).statures_m(), atol=1e-6)


def test_a_unit_that_makes_no_human_is_refused_or_told(read):
    with pytest.raises(FormatError, match=r"a\.bvh: the person is 8\.\d+ units tall, .* unit_m"):
        read(STILL, unit=5.0)
    np.testing.assert_allclose(read(STILL, unit=5.0, unit_m=0.2).xyz_m, read(STILL).xyz_m, atol=1e-8)


def test_z_up_is_seen(read):
    np.testing.assert_allclose(read(STILL, axes=(2, 0, 1)).xyz_m, read(STILL).xyz_m, atol=1e-8)


def test_who_lies_on_the_side_is_turned_as_the_rest_pose_stands(read):
    lying = read([{"root": (-90.0, 0, 0)}] * 2)
    pelvis, neck = joints(lying, "pelvis", "neck")[0]
    np.testing.assert_allclose(neck - pelvis, [0, 0.64, 0], atol=1e-8)  # the head to the left, which was x


def test_a_motion_that_stands_otherwise_than_the_rest_pose_is_refused_or_told(read):
    lying_or_z_up = [{"root": (0, 90.0, 0)}] * 2  # about x: the head to the front, or up
    with pytest.raises(FormatError, match=r"a\.bvh: which axis points up cannot be told, the rest pose .* with up"):
        read(lying_or_z_up)
    for up, along in (("y", [0.64, 0, 0]), ("z", [0, 0, 0.64])):
        pelvis, neck = joints(read(lying_or_z_up, up=up), "pelvis", "neck")[0]
        np.testing.assert_allclose(neck - pelvis, along, atol=1e-8)


def test_x_up_is_refused(read):
    with pytest.raises(FormatError, match="neither the motion nor the rest pose stands along Y or Z"):
        read(STILL, axes=(1, 2, 0))


def test_the_lower_sole_is_on_the_floor(read):
    high = read([{"root_at": (0, 5.0, 0)}, {"root_at": (0, 5.3, 0)}])
    stature = 1.76
    ankle, toe = joints(high, "left_ankle", "left_toe")[0]
    assert min(ankle[2] - 0.039 * stature, toe[2] - 0.022 * stature) == pytest.approx(0, abs=4e-3)  # 1 % of a jump
    np.testing.assert_allclose(np.diff(high.xyz_m[..., 2], axis=0), 0.3, atol=1e-8)


def test_a_bind_pose_before_the_motion_is_left_out(read, caplog):
    walk = [{"left_shoulder": (-80.0, 0, 0), "root_at": (3.0, 0.95, 0.01 * k)} for k in range(4)]
    bind = {"root_at": (0.0, 0.95, 0.0)}
    with caplog.at_level(logging.INFO):
        np.testing.assert_allclose(read([bind, *walk]).xyz_m, read(walk).xyz_m, atol=1e-12)
    assert "the first frame is a bind pose" in caplog.text
    assert len(read([{"root_at": (3.0, 0.95, 0.0)}, *walk]).time_s) == 5  # near enough to be motion


# Broken files.

GOOD = bvh(STILL)
ROW = GOOD.splitlines()[-1]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "does not begin with HIERARCHY"),
        (GOOD.partition("MOTION")[0], "has no MOTION"),
        (GOOD.replace("Frames: 2", "Frames: 3"), "MOTION says 3 frames and has 2"),
        (GOOD[: -len(ROW) // 2], r"MOTION says 2 frames and has 2, the last with \d+ of 66 values"),
        (GOOD + ROW + "\n", "MOTION says 2 frames and has 3"),
        (GOOD.replace(ROW, ROW + " 1.0"), "frame 0 has 67 values, and the hierarchy 66 channels"),
        (GOOD.replace("Frames: 2", "Frames: 0"), "holds 0 frames"),
        (GOOD.replace("Frames: 2", "Frames: 1"), "holds 1 frames"),
        (GOOD.replace("Frames: 2", "Frames: two"), "Frames two and Frame Time 0.1 are not two numbers"),
        (GOOD.replace("Frames: 2\n", ""), "does not begin with Frames and Frame Time"),
        (GOOD.replace("Frame Time: 0.1", "Frame Time: 0"), "the Frame Time is 0 s"),
        (GOOD.replace("Frame Time: 0.1", "Frame Time: nan"), "the Frame Time is nan s"),
        (GOOD.removesuffix(ROW + "\n") + ROW.replace("0.950000000", "nan"), "frame 1 holds NaN"),
        (GOOD.replace("0.950000000", "up"), "holds something that is no number"),
        (GOOD.replace("CHANNELS 3", "CHANNELS 4", 1), "the CHANNELS of 'Spine' are '4 Zrotation"),
        (GOOD.replace("Zrotation", "Wrotation", 1), "the CHANNELS of 'Hips'"),
        (GOOD.replace("Xrotation", "Zrotation", 1), "the CHANNELS of 'Hips'"),
        (GOOD.replace("OFFSET 0.000000000 0.100000000", "OFFSET 0.1", 1), "the OFFSET of 'Spine' is '0.1 0.000000000'"),
        (GOOD.replace("\t\tOFFSET 0.000000000 0.100000000 0.000000000\n", "", 1), "joint 'Spine' has no OFFSET"),
        (GOOD.replace("}", "", 1), "cut short, 1 braces stay open"),
        (GOOD.replace("JOINT Spine\n", "ROOT Spine\n"), "ROOT Spine does not belong there"),
        (GOOD.replace("JOINT Spine\n", ""), "a brace opens"),
        (GOOD.replace("JOINT Spine\n", "JUNK Spine\n"), "the HIERARCHY has 'JUNK'"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_said_in_one_line(tmp_path, text, message):
    path = tmp_path / "walk.bvh"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(FormatError, match=message) as caught:
        read_bvh(path)
    assert str(caught.value).startswith(f"{path}")
    assert "\n" not in str(caught.value)


def test_what_is_no_text_or_no_file_is_refused(tmp_path):
    path = tmp_path / "walk.bvh"
    path.write_bytes(GOOD.encode().replace(b"Spine", b"Spin\xe9"))
    with pytest.raises(FormatError, match=r"walk\.bvh is not text in UTF-8 \(byte \d+\)"):
        read_bvh(path)
    with pytest.raises(FormatError, match=r"run\.bvh cannot be read: No such file"):
        read_bvh(tmp_path / "run.bvh")


def test_written_otherwise_it_is_the_same(tmp_path, read):
    path = tmp_path / "b.bvh"
    path.write_bytes(b"\xef\xbb\xbf" + GOOD.replace("\n", "\r\n").replace("Frames: ", "Frames:\t").encode())
    np.testing.assert_array_equal(read_bvh(path).xyz_m, read(STILL).xyz_m)
    path.write_text(GOOD.replace("\n\t{", " {").replace("rotation", "ROTATION"), encoding="utf-8")
    np.testing.assert_array_equal(read_bvh(path).xyz_m, read(STILL).xyz_m)


# Folders.


def test_a_folder_is_read_in_natural_order_without_what_is_broken(tmp_path, caplog):
    for name in ("take10.bvh", "Take2.BVH", "more/take1.bvh"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(GOOD, encoding="utf-8")
    (tmp_path / "take3.bvh").write_text(GOOD[:500], encoding="utf-8")
    (tmp_path / "notes.txt").write_text("no motion", encoding="utf-8")
    motions = read_bvh_folder(tmp_path)
    assert list(motions) == ["more/take1", "Take2", "take10"]
    assert all(motion.xyz_m.shape == (2, 1, 21, 3) for motion in motions.values())
    assert [record.levelname for record in caplog.records] == ["WARNING"]
    assert "take3.bvh has no MOTION" in caplog.text


def test_a_folder_without_any_motion_is_refused(tmp_path):
    with pytest.raises(FormatError, match="there is no BVH file in"):
        read_bvh_folder(tmp_path)
    (tmp_path / "a.bvh").write_text("junk", encoding="utf-8")
    with pytest.raises(FormatError, match="none of the 1 BVH files in"):
        read_bvh_folder(tmp_path)
