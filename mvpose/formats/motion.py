"""Motion files for other programs: OpenSim TRC, C3D, CSV.

TRC and C3D are written Y up, as OpenSim wants, the world being turned by the shortest proper rotation; CSV keeps the
calibration's world frame untouched. All three are in metres and carry the true session times.
"""

from __future__ import annotations

import csv
from collections.abc import Callable
from pathlib import Path

import numpy as np

from mvpose.atomic import atomic_path
from mvpose.errors import FormatError, WorkspaceError
from mvpose.poses import Poses3D

# Rows are the new x, y, z axes in the old world; y is the old up axis and every determinant is +1.
_Y_UP_FROM = {
    "x": ((0, -1, 0), (1, 0, 0), (0, 0, 1)),
    "-x": ((0, 1, 0), (-1, 0, 0), (0, 0, 1)),
    "y": ((1, 0, 0), (0, 1, 0), (0, 0, 1)),
    "-y": ((1, 0, 0), (0, -1, 0), (0, 0, -1)),
    "z": ((1, 0, 0), (0, 0, 1), (0, -1, 0)),
    "-z": ((1, 0, 0), (0, 0, -1), (0, 1, 0)),
}

# The header's frame numbers are unsigned 16-bit words.
_C3D_LAST_FRAME = 65535


def rotation_to_y_up(up: str) -> np.ndarray:
    """Return the (3, 3) rotation R with which ``R @ p_world`` has +Y up.

    Args:
        up: The world's up axis: x, y, z, -x, -y or -z.

    >>> rotation_to_y_up("z") @ [1, 2, 3]
    array([ 1.,  3., -2.])
    """
    return np.array(_Y_UP_FROM[up], dtype=float)


def write_trc(poses: Poses3D, person_id: int, path: Path) -> None:
    """Write one person as an OpenSim marker file.

    The Time column is session time, Frame# counts from 1. A missing joint is left empty, which OpenSim (≥ 4.0) and
    Pose2Sim read as NaN; like OpenSim's own writer, every row ends in a tab.

    Raises:
        FormatError: There is no such person, or no frames.
    """
    person = _index_of_person(poses, person_id, path)
    if not len(poses.time_s):
        raise FormatError(f"{path.name} cannot be written: the reconstruction holds no frames")
    names = poses.skeleton.joint_names
    rows = (poses.xyz_m[:, person] @ rotation_to_y_up(poses.up).T).reshape(len(poses.time_s), -1)
    rate = f"{_rate_or_one(poses):.6f}"
    count = str(len(rows))
    header = [
        ["PathFileType", "4", "(X/Y/Z)", path.name],
        ["DataRate", "CameraRate", "NumFrames", "NumMarkers", "Units", "OrigDataRate", "OrigDataStartFrame",
         "OrigNumFrames"],
        [rate, rate, count, str(len(names)), "m", rate, "1", count],
        ["Frame#", "Time", *(cell for name in names for cell in (name, "", "")), ""],
        ["", "", *(f"{axis}{marker + 1}" for marker in range(len(names)) for axis in "XYZ"), ""],
        [],
    ]  # fmt: skip
    with atomic_path(path) as temporary, temporary.open("w", encoding="utf-8", newline="\n") as file:
        file.writelines("\t".join(line) + "\n" for line in header)
        for number, (time_s, row) in enumerate(zip(poses.time_s, rows, strict=True), start=1):
            cells = "\t".join("" if value != value else f"{value:.6f}" for value in row.tolist())
            file.write(f"{number}\t{time_s:.9f}\t{cells}\t\n")


def write_c3d(poses: Poses3D, path: Path) -> None:
    """Write all people into one C3D file of points in metres, Y up.

    Points are named after the joints, with ``p<ID>_`` before them where there are several people. The residual is −1
    where the joint is missing and 0 elsewhere: C3D holds it in one byte, too coarse for an error in metres. C3D knows a
    first frame and a rate only, so the first frame is the one nearest to the true start; the exact start stands in the
    parameter ``MVPOSE:TIME_START``, seconds, as text because C3D's numbers have single precision.

    Raises:
        FormatError: There are no people or no frames, or more frames than C3D can number.
    """
    import ezc3d

    n_frames, n_people = poses.xyz_m.shape[:2]
    if not n_frames or not n_people:
        what = "people" if n_frames else "frames"
        raise FormatError(f"{path.name} cannot be written: the reconstruction holds no {what}")
    if n_frames >= _C3D_LAST_FRAME:
        raise FormatError(
            f"{path.name} cannot be written: C3D numbers at most {_C3D_LAST_FRAME} frames and there are {n_frames}; "
            "export csv or trc, or a part of the recording with --start and --end"
        )
    xyz = poses.xyz_m.reshape(n_frames, -1, 3) @ rotation_to_y_up(poses.up).T
    missing = ~np.isfinite(xyz).all(axis=-1)
    rate, start_s = _rate_or_one(poses), float(poses.time_s[0])
    first = int(np.clip(round(start_s * rate), 0, _C3D_LAST_FRAME - n_frames))

    file = ezc3d.c3d()
    point = file["parameters"]["POINT"]
    point["RATE"]["value"] = [rate]
    point["UNITS"]["value"] = ["m"]
    point["LABELS"]["value"] = _point_labels(poses)
    file["header"]["points"]["first_frame"] = first
    file["data"]["points"] = np.where(missing[..., None], np.nan, xyz).transpose(2, 1, 0)
    file["data"]["meta_points"]["residuals"] = np.where(missing, -1.0, 0.0).T[None]
    file.add_parameter("POINT", "X_SCREEN", ["+X"])
    file.add_parameter("POINT", "Y_SCREEN", ["+Y"])
    file.add_parameter("MVPOSE", "TIME_START", [repr(start_s)], "session time of the first frame, seconds")
    with atomic_path(path) as temporary:
        file.write(str(temporary))
        # ezc3d does not notice a disk that fills up.
        if temporary.stat().st_size < 16 * missing.size:
            raise WorkspaceError(f"{path.name} cannot be written: the disk is full; free space or choose another --out")


def write_csv(poses: Poses3D, path: Path) -> None:
    """Write a long table that pandas reads at once, in the calibration's world frame.

    One row a frame, person and joint, from each person's first frame to their last; columns ``time_s, frame, person,
    joint, x_m, y_m, z_m, reprojection_px, n_views``. A missing joint keeps its row with empty coordinates, so a gap is
    seen as one. ``frame`` counts from 0 and is exact to pivot on, where ``time_s`` is a float.
    """
    seen = np.isfinite(poses.xyz_m).all(axis=-1)
    names = poses.skeleton.joint_names
    with atomic_path(path) as temporary, temporary.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["time_s", "frame", "person", "joint", "x_m", "y_m", "z_m", "reprojection_px", "n_views"])
        for p, person in enumerate(np.asarray(poses.person_ids).tolist()):
            frames = np.flatnonzero(seen[:, p].any(axis=-1))
            for f in range(frames[0], frames[-1] + 1) if len(frames) else ():
                time_s = f"{poses.time_s[f]:.9f}"
                values = np.column_stack([poses.xyz_m[f, p], poses.reprojection_px[f, p]]).tolist()
                for name, (x, y, z, error), views in zip(names, values, poses.n_views[f, p].tolist(), strict=True):
                    cells = (_cell(x, 6), _cell(y, 6), _cell(z, 6), _cell(error, 3))
                    writer.writerow((time_s, f, person, name, *cells, int(views)))


def export_trc(poses: Poses3D, stem: Path) -> tuple[Path, ...]:
    """Write ``<stem>_p<ID>.trc`` for each person and return the paths."""
    paths = {person: stem.with_name(f"{stem.name}_p{person}.trc") for person in np.asarray(poses.person_ids).tolist()}
    for person, path in paths.items():
        write_trc(poses, person, path)
    return tuple(paths.values())


def export_c3d(poses: Poses3D, stem: Path) -> tuple[Path, ...]:
    """Write ``<stem>.c3d`` and return its path."""
    path = stem.with_name(f"{stem.name}.c3d")
    write_c3d(poses, path)
    return (path,)


def export_csv(poses: Poses3D, stem: Path) -> tuple[Path, ...]:
    """Write ``<stem>.csv`` and return its path."""
    path = stem.with_name(f"{stem.name}.csv")
    write_csv(poses, path)
    return (path,)


# What `mvpose export --to` offers: each takes the poses and the path without suffix, and returns what it wrote.
EXPORTS: dict[str, Callable[[Poses3D, Path], tuple[Path, ...]]] = {
    "trc": export_trc,
    "c3d": export_c3d,
    "csv": export_csv,
}


def _index_of_person(poses: Poses3D, person_id: int, path: Path) -> int:
    ids = np.asarray(poses.person_ids).tolist()
    if person_id not in ids:
        raise FormatError(f"{path.name} cannot be written: there is no person {person_id}, only {ids}")
    return ids.index(person_id)


def _rate_or_one(poses: Poses3D) -> float:
    return poses.frame_rate if np.isfinite(poses.frame_rate) else 1.0


def _point_labels(poses: Poses3D) -> list[str]:
    people, names = np.asarray(poses.person_ids).tolist(), poses.skeleton.joint_names
    return list(names) if len(people) == 1 else [f"p{person}_{name}" for person in people for name in names]


def _cell(value: float, decimals: int) -> str:
    return f"{value:.{decimals}f}" if np.isfinite(value) else ""
