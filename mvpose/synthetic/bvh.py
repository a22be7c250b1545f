"""BVH files of anybody's motion capture, onto the joints of ``cmu21``.

BVH says neither its unit, nor which axis points up, nor what its joints are called. All three are found out here, told
in the log, and refused where they cannot be told: see :func:`read_bvh`.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from scipy.spatial.transform import Rotation

from mvpose.errors import FormatError
from mvpose.inputs import read_text
from mvpose.synthetic.motion import CMU21, Motion

log = logging.getLogger(__name__)

# Metres of one length unit. CMU's is an inch over 0.45, as its ASF files say.
UNITS_M = {"m": 1.0, "cm": 0.01, "mm": 0.001, "inch": 0.0254, "CMU's inch / 0.45": 0.0254 / 0.45}
# Neighbouring units differ by 2.2 or more, so at most one makes a stature between these.
_STATURES_M = (1.1, 2.3)

# What the joint at the near end of a bone is called, without its side, most telling name first: where there is an
# `arm`, `shoulder` is the collar bone, and where there is an `ankle`, `foot` is the toes.
_SIDED = {
    "hip": ("upleg", "thigh", "thighbend", "upperleg", "femur", "hip"),
    "knee": ("leg", "lowleg", "lowerleg", "shin", "calf", "tibia", "knee"),
    "ankle": ("ankle", "foot"),
    "toe": ("toebase", "toe", "toes", "toe0", "ball", "foot"),
    "shoulder": ("arm", "uparm", "upperarm", "uarm", "shldr", "shldrbend", "humerus", "shoulder"),
    "elbow": ("forearm", "forearmbend", "lowarm", "lowerarm", "farm", "radius", "elbow"),
    "wrist": ("wrist", "hand"),
}
_CROWNS = ("headtop", "headtopend", "headend", "headnub")

# Parts of the stature, after Drillis & Contini 1966 as in Winter, Biomechanics of Human Movement, fig. 4.1, and those
# of `mvpose.synthetic.motion`: thigh and shank, pelvis to base of the skull, soles, and what is put where a file has
# nothing.
_LEG, _TRUNK, _SPINE_SHARE = 0.491, 0.34, 0.38
_ANKLE_HEIGHT, _BALL_HEIGHT, _BALL_FORWARD = 0.039, 0.022, 0.09
_NECK_UP, _HEAD_UP, _NOSE_FORWARD, _NOSE_UP = 0.05, 0.065, 0.06, 0.045

_JUMP_MPS = 15.0  # a bind pose is left faster than any joint moves; the fastest toe of CMU's kicks reaches 16 m/s
_UPRIGHT = 0.8  # cosine between an axis and a standing body
_AXES = "XYZ"
Up = Literal["y", "z"]


@dataclass(frozen=True)
class _Tree:
    """The joints of a file, parents first, end sites included.

    Attributes:
        names: (J,) as in the file; an end site has none.
        parents: (J,) index of the parent; −1 of the root.
        offset: (J, 3) from the parent, in the parent's axes and the file's unit.
        channels: (J,) each joint's, such as ``Xposition`` or ``Zrotation``, in order.
    """

    names: tuple[str, ...]
    parents: tuple[int, ...]
    offset: np.ndarray
    channels: tuple[tuple[str, ...], ...]

    def ancestors(self, joint: int) -> list[int]:
        """Return the joints from the root to this one, itself included."""
        path = [joint]
        while self.parents[path[-1]] >= 0:
            path.append(self.parents[path[-1]])
        return path[::-1]

    def tip(self, joint: int, names: Sequence[str] = ()) -> int | None:
        """Return the joint's end site, or its child of one of these plain names."""
        plain = _plain_names(self.names)
        ends = [
            child
            for child, parent in enumerate(self.parents)
            if parent == joint and (not self.names[child] or plain[child] in names)
        ]
        return ends[0] if ends else None


def read_bvh(path: Path, *, unit_m: float | None = None, up: Up | None = None) -> Motion:
    """Read one person's motion from a BVH file, in metres, Z up, the floor at z = 0.

    **Joints** are known by the usual names: those of CMU's conversions by cgspeed, Mixamo, MotionBuilder, Biovision,
    Daz and Poser, Biped, Unreal, SMPL. Hips, knees, ankles, shoulders, elbows, wrists and the head must be there. The
    pelvis is the middle of the hips. The neck is where the head's joint is (the base of the skull); the thorax is that
    joint called neck whose distance to it is most nearly 5 % of the stature, or the middle of the shoulders. The spine
    lies 38 % of the way up from pelvis to thorax, along whatever joints there are. The end of the head is its top or,
    nearer, its middle; without one the head continues the neck. Toes are the foot's end site, or 9 % of the stature
    before the ankle. The nose is fixed to the head so that on average it points where the shoulders face. Bones are as
    long as the file has them: cgspeed's conversions lack a third of the forearm and 12 cm of the trunk.

    **Unit**: of m, cm, mm, inch and CMU's (inch / 0.45), the one that makes leg and trunk those of a person of 1.1 to
    2.3 m. **Up** is Y or Z: that along which the body stands, most of the time and in the rest pose; where only one of
    the two stands, it decides. Y up is turned by (x, y, z) → (z, x, y), so that who faced z faces x. **Floor**: below
    the lower sole in all but 1 % of the frames. A first frame without any rotation that a joint leaves at over 15 m/s
    is a bind pose, and left out.

    A joint's rotations are applied in the order of its channels, about its own axes; a position channel stands in place
    of that coordinate of the joint's offset.

    Args:
        path: The file.
        unit_m: Metres of the file's length unit, where it should not be guessed.
        up: The file's axis that points up, where it should not be guessed.

    Raises:
        FormatError: The file is broken, a joint is missing, or unit or axis cannot be told.
    """
    path = Path(path)
    tree, frame_s, values = _parse(path)
    xyz, R = _forward_kinematics(tree, values)
    at = _find_joints(tree, path)
    turn = np.eye(3)[[2, 0, 1] if (up or _up_axis(tree, xyz, at, path)) == "y" else [0, 1, 2]]
    xyz, R = xyz @ turn.T, turn @ R
    stature = _stature(tree, xyz, at)
    unit = _unit_m(stature, path) if unit_m is None else unit_m
    body = _body(tree, at, xyz * unit, R, stature * unit)
    body[..., 2] -= _floor_m(body, stature * unit)
    if _begins_with_bind_pose(tree, values, body, frame_s):
        log.info("%s: the first frame is a bind pose and left out", path)
        body = body[1:]
    return Motion(frame_s * np.arange(len(body)), body[:, None])


def read_bvh_folder(path: Path, *, unit_m: float | None = None, up: Up | None = None) -> dict[str, Motion]:
    """Read all BVH files below a folder, in natural order; one that cannot be read is skipped with a warning.

    Args:
        path: The folder.
        unit_m: As of :func:`read_bvh`.
        up: As of :func:`read_bvh`.

    Returns:
        Motions by the file's path below the folder, without its suffix.

    Raises:
        FormatError: No file can be read.
    """
    path = Path(path)
    files = sorted((p for p in path.rglob("*") if p.suffix.lower() == ".bvh" and p.is_file()), key=_natural)
    motions = {}
    for file in files:
        try:
            motions[file.relative_to(path).with_suffix("").as_posix()] = read_bvh(file, unit_m=unit_m, up=up)
        except FormatError as error:
            log.warning("skipped: %s", error)
    if not motions:
        found = (
            f"none of the {len(files)} BVH files in {path} can be read" if files else f"there is no BVH file in {path}"
        )
        raise FormatError(f"{found}. Give the folder that holds the motion, as .bvh files.")
    return motions


def _natural(path: Path) -> list[tuple[int, str]]:
    """Sort 2 before 10."""
    parts = re.findall(r"\d+|\D+", path.as_posix())
    return [(int(part), "") if part.isdecimal() else (-1, part.lower()) for part in parts]


# What the file says.


def _parse(path: Path) -> tuple[_Tree, float, np.ndarray]:
    """Return the joints, the duration of a frame in seconds, and the channels' values (T, C)."""
    try:
        text = read_text(path)
    except OSError as error:
        raise FormatError(f"{path} cannot be read: {error.strerror or error}.") from error
    except UnicodeDecodeError as error:
        raise FormatError(f"{path} is not text in UTF-8 (byte {error.start}), and so no BVH file.") from error
    if not text.lstrip().startswith("HIERARCHY"):
        raise FormatError(f"{path} is no BVH file: it does not begin with HIERARCHY.")
    hierarchy, found, motion = text.partition("MOTION")
    if not found:
        raise FormatError(f"{path} has no MOTION: it is cut short.")
    tree = _parse_hierarchy(hierarchy, path)
    return tree, *_parse_motion(motion, sum(map(len, tree.channels)), path)


def _parse_hierarchy(text: str, path: Path) -> _Tree:
    names: list[str] = []
    parents: list[int] = []
    offsets: list[list[float] | None] = []
    channels: list[tuple[str, ...]] = []
    stack: list[int] = []
    for keyword, rest in _statements(text):
        if keyword in ("ROOT", "JOINT", "End"):
            if (keyword == "ROOT") == bool(stack) or (keyword == "ROOT" and names):
                raise FormatError(
                    f"{path}: {keyword} {rest} does not belong there; there must be one ROOT, joints in it."
                )
            names.append("" if keyword == "End" else rest)
            parents.append(stack[-1] if stack else -1)
            offsets.append(None)
            channels.append(())
        elif keyword == "{":
            if not names or offsets[-1] is not None or (stack and stack[-1] == len(names) - 1):
                raise FormatError(f"{path}: a brace opens in the HIERARCHY that belongs to no joint.")
            stack.append(len(names) - 1)
        elif keyword == "}" and stack:
            stack.pop()
        elif keyword == "OFFSET" and stack:
            offsets[stack[-1]] = _offset_of(rest, names[stack[-1]], path)
        elif keyword == "CHANNELS" and stack:
            channels[stack[-1]] = _channels_of(rest, names[stack[-1]], path)
        else:
            raise FormatError(f"{path}: the HIERARCHY has {keyword!r} where a joint, OFFSET or CHANNELS should be.")
    if stack or not names:
        raise FormatError(f"{path}: the HIERARCHY is cut short, {len(stack)} braces stay open.")
    given = [offset for offset in offsets if offset is not None]
    if len(given) < len(names):
        raise FormatError(f"{path}: joint {names[offsets.index(None)]!r} has no OFFSET.")
    return _Tree(tuple(names), tuple(parents), np.array(given), tuple(channels))


def _statements(text: str) -> Iterator[tuple[str, str]]:
    """Yield the first word and the rest of each line; braces stand alone wherever they are written."""
    for line in text.replace("{", "\n{\n").replace("}", "\n}\n").splitlines():
        word, *rest = line.split(maxsplit=1)[:2] or [""]
        if word and word != "HIERARCHY":
            yield word, rest[0].strip() if rest else ""


def _offset_of(rest: str, name: str, path: Path) -> list[float]:
    try:
        offset = [float(word) for word in rest.split()]
    except ValueError:
        offset = []
    if len(offset) != 3 or not np.isfinite(offset).all():
        raise FormatError(f"{path}: the OFFSET of {name!r} is {rest!r}, not three numbers.")
    return offset


def _channels_of(rest: str, name: str, path: Path) -> tuple[str, ...]:
    count, *words = rest.split() or [""]
    channels = tuple(word[:1].upper() + word[1:].lower() for word in words)
    known = {axis + kind for axis in _AXES for kind in ("position", "rotation")}
    if count != str(len(channels)) or not known.issuperset(channels) or len(set(channels)) < len(channels):
        raise FormatError(f"{path}: the CHANNELS of {name!r} are {rest!r}, not a count and as many different channels.")
    return channels


def _parse_motion(text: str, width: int, path: Path) -> tuple[float, np.ndarray]:
    header = re.match(r"\s*Frames:\s*(\S+)\s+Frame Time:\s*(\S+)[^\n]*\n?", text)
    if header is None:
        raise FormatError(f"{path}: MOTION does not begin with Frames and Frame Time.")
    try:
        count, frame_s = int(header[1]), float(header[2])
    except ValueError as error:
        raise FormatError(f"{path}: Frames {header[1]} and Frame Time {header[2]} are not two numbers.") from error
    if not 0 < frame_s < np.inf:
        raise FormatError(f"{path}: the Frame Time is {header[2]} s; it must be positive.")
    if count < 2:
        raise FormatError(f"{path} holds {max(count, 0)} frames; a motion needs two.")
    rows = [row.split() for row in text[header.end() :].splitlines() if row.strip()]
    for frame, row in enumerate(rows[:-1] if len(rows) <= count else rows):
        if len(row) != width:
            raise FormatError(f"{path}: frame {frame} has {len(row)} values, and the hierarchy {width} channels.")
    if len(rows) != count or len(rows[-1]) != width:
        short = f", the last with {len(rows[-1])} of {width} values" if rows and len(rows[-1]) != width else ""
        raise FormatError(f"{path}: MOTION says {count} frames and has {len(rows)}{short}.")
    try:
        values = np.array(rows, dtype=np.float64)
    except ValueError as error:
        raise FormatError(f"{path}: MOTION holds something that is no number: {error}.") from error
    if not np.isfinite(values).all():
        raise FormatError(f"{path}: frame {np.argmin(np.isfinite(values).all(axis=1))} holds NaN or infinity.")
    return frame_s, values


def _forward_kinematics(tree: _Tree, values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Place the joints: positions (T, J, 3) in the file's unit and axes, and rotations (T, J, 3, 3) of their axes."""
    frames, joints = len(values), len(tree.names)
    xyz, R = np.zeros((frames, joints, 3)), np.zeros((frames, joints, 3, 3))
    column = 0
    for joint, (parent, channels) in enumerate(zip(tree.parents, tree.channels, strict=True)):
        own = values[:, column : column + len(channels)]
        column += len(channels)
        shift, turn = np.tile(tree.offset[joint], (frames, 1)), np.broadcast_to(np.eye(3), (frames, 3, 3))
        turning = [i for i, channel in enumerate(channels) if channel.endswith("rotation")]
        for i in set(range(len(channels))) - set(turning):
            shift[:, _AXES.index(channels[i][0])] = own[:, i]
        if turning:
            order = "".join(channels[i][0] for i in turning)  # capitals: about the joint's own axes
            turn = Rotation.from_euler(order, own[:, turning], degrees=True).as_matrix()
        xyz[:, joint] = shift if parent < 0 else xyz[:, parent] + np.einsum("tij,tj->ti", R[:, parent], shift)
        R[:, joint] = turn if parent < 0 else R[:, parent] @ turn
    return xyz, R


# What the joints are.


def _plain_names(names: Sequence[str]) -> list[str]:
    """Strip name spaces and prefixes of the whole skeleton, signs and capitals; end sites have no name and keep none.

    >>> _plain_names(["mixamorig:Hips", "mixamorig:LeftUpLeg", ""])
    ['hips', 'leftupleg', '']
    >>> _plain_names(["Actor_Hips", "Actor_Left_Leg", "Actor_thigh.L"])
    ['hips', 'leftleg', 'thighl']
    """
    short = [name.rpartition(":")[2] for name in names]
    given = [name for name in short if name] or [""]
    # What first and last in the alphabet both begin with, so do all between.
    shared = re.match(r"(.*[_ ]|)[^\0]*\0\1", f"{min(given)}\0{max(given)}")
    cut = 0 if shared is None else len(shared[1])
    bare = [re.sub(r"^(mixamorig\d*|bip\d+)", "", name[cut:], flags=re.IGNORECASE) for name in short]
    return [re.sub(r"[^a-z0-9]", "", name.lower()) for name in bare]


def _find_joints(tree: _Tree, path: Path) -> dict[str, int]:
    """Return the index of the head, of each sided joint and, where there are any, of the toes."""
    plain = _plain_names(tree.names)
    index = {name: i for i, name in reversed(list(enumerate(plain))) if name}
    at = {"head": index["head"]} if "head" in index else {}
    for side in ("left", "right"):
        for joint, parts in _SIDED.items():
            for part in parts:
                spelled = (side + part, side[0] + part, part + side, part + side[0])
                found = [index[name] for name in spelled if name in index and index[name] not in at.values()]
                if found:
                    at[f"{side}_{joint}"] = found[0]
                    break
    wanted = ["head", *(f"{side}_{joint}" for side in ("left", "right") for joint in _SIDED if joint != "toe")]
    missing = [name for name in wanted if name not in at]
    if missing:
        names = ", ".join(name for name in tree.names if name)
        raise FormatError(f"{path}: no joint is known as {', '.join(missing)}; its joints are {names}.")
    return at


def _up_axis(tree: _Tree, xyz: np.ndarray, at: dict[str, int], path: Path) -> Up:
    """Return the axis that points up in a file, by its positions (T, J, 3) and its rest pose."""

    def stood(poses: np.ndarray) -> set[Up]:
        body = poses[:, at["head"]] - (poses[:, at["left_ankle"]] + poses[:, at["right_ankle"]]) / 2
        along = np.median(_unit_vector(body), axis=0)
        axes: tuple[Up, Up] = ("y", "z")
        return {axis for axis, cosine in zip(axes, along[1:], strict=True) if cosine > _UPRIGHT}

    still = np.zeros((1, sum(map(len, tree.channels))))
    axes = stood(xyz) | stood(_forward_kinematics(tree, still)[0])
    if len(axes) == 1:
        return axes.pop()
    why = (
        "the rest pose stands along the other of Y and Z than the motion"
        if axes
        else "neither the motion nor the rest pose stands along Y or Z"
    )
    raise FormatError(f"{path}: which axis points up cannot be told, {why}; say so with up, or turn the file.")


def _stature(tree: _Tree, xyz: np.ndarray, at: dict[str, int]) -> float:
    """Return the standing height that leg and trunk belong to, in the unit of the positions."""
    legs = [[at[f"{side}_{joint}"] for joint in ("hip", "knee", "ankle")] for side in ("left", "right")]
    hips = xyz[:, [at["left_hip"], at["right_hip"]]].mean(axis=1)
    trunk = np.stack([hips, *(xyz[:, i] for i in _spine(tree, at)), xyz[:, at["head"]]], axis=1)
    lengths = [np.median(_lengths(part), axis=0).sum() for part in (*(xyz[:, leg] for leg in legs), trunk)]
    return float((lengths[0] + lengths[1]) / 2 + lengths[2]) / (_LEG + _TRUNK)


def _unit_m(stature: float, path: Path) -> float:
    """Return the metres of a length unit, by the stature in it."""
    for name, unit_m in UNITS_M.items():
        if _STATURES_M[0] <= stature * unit_m <= _STATURES_M[1]:
            log.info(
                "%s: its length unit is taken for %s, so that the person is %.2f m tall", path, name, stature * unit_m
            )
            return unit_m
    raise FormatError(
        f"{path}: the person is {stature:.4g} units tall, which is no person in m, cm, mm, inch or CMU's unit; "
        "say what the unit is with unit_m."
    )


def _spine(tree: _Tree, at: dict[str, int]) -> list[int]:
    """Return the joints from the last that carries both hips and the head, up to the head, which is left out."""
    paths = [tree.ancestors(at[name]) for name in ("head", "left_hip", "right_hip")]
    shared = sum(len(set(joints)) == 1 for joints in zip(*paths, strict=False))
    return paths[0][max(shared - 1, 0) : -1]


# The body.


def _body(tree: _Tree, at: dict[str, int], xyz: np.ndarray, R: np.ndarray, stature_m: float) -> np.ndarray:
    """Return the joints of ``cmu21`` (T, J, 3) from those of the file (T, j, 3) and their axes; metres, Z up."""
    joint = {name: xyz[:, index] for name, index in at.items()}
    joint["pelvis"] = (joint["left_hip"] + joint["right_hip"]) / 2
    joint["neck"] = xyz[:, at["head"]]
    spine, plain = _spine(tree, at), _plain_names(tree.names)
    far = {
        index: np.median(np.linalg.norm(joint["neck"] - xyz[:, index], axis=-1))
        for index in spine
        if plain[index].startswith("neck")
    }
    if far:
        base = min(far, key=lambda index: abs(far[index] - _NECK_UP * stature_m))
        spine = spine[: spine.index(base)]
        joint["thorax"] = xyz[:, base]
    else:
        joint["thorax"] = (joint["left_shoulder"] + joint["right_shoulder"]) / 2
    joint["spine"] = _along([joint["pelvis"], *(xyz[:, index] for index in spine), joint["thorax"]], _SPINE_SHARE)

    forward = _unit_vector(
        np.cross(joint["left_shoulder"] - joint["right_shoulder"], joint["thorax"] - joint["pelvis"])
    )
    head = R[:, at["head"]]
    crown = tree.tip(at["head"], _CROWNS)
    up = joint["neck"] - joint["thorax"] if crown is None else xyz[:, crown] - joint["neck"]
    length = np.median(np.linalg.norm(up, axis=-1)) / stature_m
    if crown is None or length < _HEAD_UP / 2:
        up, length = joint["neck"] - joint["thorax"], _HEAD_UP
    if length > 1.5 * _HEAD_UP:  # nearer to the top of the head than to its middle
        length /= 2
    axis = _carried(head, _unit_vector(up))
    joint["head"] = joint["neck"] + length * stature_m * axis
    joint["head_top"] = joint["neck"] + 2 * length * stature_m * axis
    joint["nose"] = joint["neck"] + stature_m * (_NOSE_FORWARD * _carried(head, forward) + _NOSE_UP * axis)

    for side in ("left", "right"):
        if f"{side}_toe" in joint:
            continue
        ankle, tip = at[f"{side}_ankle"], tree.tip(at[f"{side}_ankle"])
        if tip is not None and np.linalg.norm(tree.offset[tip]) > 0:
            joint[f"{side}_toe"] = xyz[:, tip]
        else:
            level = _unit_vector(forward * [1, 1, 0])
            sole = stature_m * (_BALL_FORWARD * level + (_BALL_HEIGHT - _ANKLE_HEIGHT) * np.array([0, 0, 1]))
            joint[f"{side}_toe"] = xyz[:, ankle] + _carried(R[:, ankle], sole)
    return np.stack([joint[name] for name in CMU21.joint_names], axis=1)


def _along(points: Sequence[np.ndarray], share: float) -> np.ndarray:
    """Return the place (T, 3) at a share of the way along points (T, 3); it keeps its bone and its place on it."""
    line = np.stack(points, axis=1)
    way = np.concatenate([[0.0], np.cumsum(np.median(_lengths(line), axis=0))])
    bone = min(int(np.searchsorted(way, share * way[-1], side="right")) - 1, len(points) - 2)
    part = (share * way[-1] - way[bone]) / (way[bone + 1] - way[bone])
    return (1 - part) * line[:, bone] + part * line[:, bone + 1]


def _carried(R: np.ndarray, wished: np.ndarray) -> np.ndarray:
    """Fix a vector in axes (T, 3, 3) that is on average as wished (T, 3), and of its length; return it (T, 3)."""
    own = np.einsum("tji,tj->ti", R, wished).mean(axis=0)
    return R @ (_unit_vector(own) * np.linalg.norm(wished, axis=-1).mean())


def _unit_vector(vector: np.ndarray) -> np.ndarray:
    return vector / np.maximum(np.linalg.norm(vector, axis=-1, keepdims=True), 1e-12)


def _lengths(chain: np.ndarray) -> np.ndarray:
    """Return the bones' lengths (T, n − 1) of chains (T, n, 3)."""
    return np.linalg.norm(np.diff(chain, axis=1), axis=-1)


def _floor_m(body: np.ndarray, stature_m: float) -> float:
    """Return the height of the floor under joints (T, J, 3); 1 % of the frames may have a foot in it."""
    ankles = body[:, CMU21.indices(("left_ankle", "right_ankle")), 2] - _ANKLE_HEIGHT * stature_m
    balls = body[:, CMU21.indices(("left_toe", "right_toe")), 2] - _BALL_HEIGHT * stature_m
    return float(np.percentile(np.concatenate([ankles, balls], axis=1).min(axis=1), 1))


def _begins_with_bind_pose(tree: _Tree, values: np.ndarray, body: np.ndarray, frame_s: float) -> bool:
    turning = np.array([channel.endswith("rotation") for channels in tree.channels for channel in channels])
    leap = np.linalg.norm(body[1] - body[0], axis=-1).max() / frame_s
    return len(body) > 2 and not values[0, turning].any() and bool(leap > _JUMP_MPS)
