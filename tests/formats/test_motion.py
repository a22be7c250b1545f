"""Motion files: what other programs read back is what was reconstructed."""

import csv

import numpy as np
import pytest

from mvpose.calib.rig import UP_AXES
from mvpose.errors import FormatError, WorkspaceError
from mvpose.formats.motion import EXPORTS, export_trc, rotation_to_y_up, write_c3d, write_csv, write_trc
from mvpose.poses import Poses3D
from mvpose.skeleton import SKELETONS, Skeleton


def straight_walk(
    n_people=1, n_frames=5, rate=29.97, start_s=12.345678, up="z", skeleton=SKELETONS["coco17"], missing=()
) -> Poses3D:
    """Joint j of person p at frame f: (f, p, j) decimetres; ``missing`` lists (f, p, j)."""
    joints = len(skeleton)
    xyz = 0.1 * np.stack(np.meshgrid(*map(np.arange, (n_frames, n_people, joints)), indexing="ij"), axis=-1)
    for index in missing:
        xyz[index] = np.nan
    gone = np.isnan(xyz[..., 0])
    return Poses3D(
        time_s=start_s + np.arange(n_frames) / rate,
        xyz_m=xyz,
        person_ids=np.arange(n_people) + 3,
        reprojection_px=np.where(gone, np.nan, 1.25),
        n_views=np.where(gone, 0, 4),
        cov_m2=np.full((*gone.shape, 3, 3), np.nan, np.float32),
        skeleton=skeleton,
        up=up,
    )


def read_trc(path):
    """Read as OpenSim does: split at tabs, a joint of empty cells is NaN."""
    lines = path.read_text().splitlines()
    names = [cell for cell in lines[3].split("\t")[2:] if cell]
    header = dict(zip(lines[1].split("\t"), lines[2].split("\t"), strict=True))
    rows = [line.split("\t")[:-1] for line in lines[6:]]
    table = np.array([[float(cell or "nan") for cell in row] for row in rows])
    return header, names, table[:, 0], table[:, 1], table[:, 2:].reshape(len(rows), len(names), 3)


@pytest.mark.parametrize("up", UP_AXES)
def test_up_becomes_plus_y_by_a_proper_rotation(up):
    R = rotation_to_y_up(up)
    np.testing.assert_array_equal(R @ UP_AXES[up], [0, 1, 0])
    np.testing.assert_array_equal(R @ R.T, np.eye(3))
    assert np.linalg.det(R) == 1


def test_trc_holds_true_times_and_turned_positions(tmp_path):
    poses = straight_walk(n_people=2, up="z", missing=[(2, 1, 16), (0, 1, 0)])
    write_trc(poses, 4, tmp_path / "a.trc")
    header, names, numbers, times, xyz = read_trc(tmp_path / "a.trc")
    assert names == list(poses.skeleton.joint_names)
    assert numbers.tolist() == [1, 2, 3, 4, 5]
    np.testing.assert_allclose(times, poses.time_s, atol=1e-9)
    x, y, z = np.moveaxis(poses.xyz_m[:, 1], -1, 0)
    np.testing.assert_allclose(xyz, np.stack([x, z, -y], axis=-1), atol=1e-6)
    assert np.isnan(xyz[2, 16]).all()
    assert (header["Units"], header["NumMarkers"], header["NumFrames"]) == ("m", "17", "5")
    assert float(header["DataRate"]) == pytest.approx(29.97)


def test_every_trc_row_has_the_cells_that_opensim_counts(tmp_path):
    """OpenSim refuses a row whose number of cells differs; a joint missing at the end is the trap."""
    write_trc(straight_walk(missing=[(f, 0, 16) for f in range(5)]), 3, tmp_path / "a.trc")
    rows = (tmp_path / "a.trc").read_text().splitlines()[6:]
    assert {row.count("\t") for row in rows} == {2 + 3 * 17}


def test_trc_of_an_absent_person_is_refused(tmp_path):
    with pytest.raises(FormatError, match=r"no person 9, only \[3\]"):
        write_trc(straight_walk(), 9, tmp_path / "a.trc")
    assert not list(tmp_path.iterdir())


def test_c3d_round_trip(tmp_path):
    import ezc3d

    poses = straight_walk(n_people=2, n_frames=7, missing=[(1, 0, 2)], up="-y")
    write_c3d(poses, tmp_path / "a.c3d")
    file = ezc3d.c3d(str(tmp_path / "a.c3d"))
    point = file["parameters"]["POINT"]
    assert point["UNITS"]["value"] == ["m"]
    assert point["RATE"]["value"][0] == pytest.approx(29.97)
    assert point["LABELS"]["value"][:2] == ["p3_nose", "p3_left_eye"]
    assert point["LABELS"]["value"][17] == "p4_nose"
    assert file["header"]["points"]["first_frame"] == round(12.345678 * 29.97)
    assert float(file["parameters"]["MVPOSE"]["TIME_START"]["value"][0]) == 12.345678
    x, y, z = np.moveaxis(poses.xyz_m.reshape(7, 34, 3), -1, 0)
    read = file["data"]["points"][:3].transpose(2, 1, 0)
    np.testing.assert_allclose(read, np.stack([x, -y, -z], axis=-1), atol=1e-6)
    residual = file["data"]["meta_points"]["residuals"][0].T
    assert np.argwhere(residual < 0).tolist() == [[1, 2]]


def test_c3d_of_one_person_has_plain_labels(tmp_path):
    import ezc3d

    write_c3d(straight_walk(), tmp_path / "a.c3d")
    assert ezc3d.c3d(str(tmp_path / "a.c3d"))["parameters"]["POINT"]["LABELS"]["value"][0] == "nose"


@pytest.mark.parametrize("start_s", [-2.5, 1_700_000_000.123456])
def test_c3d_keeps_start_times_that_no_frame_number_can_hold(tmp_path, start_s):
    import ezc3d

    write_c3d(straight_walk(start_s=start_s), tmp_path / "a.c3d")
    file = ezc3d.c3d(str(tmp_path / "a.c3d"))
    assert float(file["parameters"]["MVPOSE"]["TIME_START"]["value"][0]) == start_s
    assert file["data"]["points"].shape[2] == 5


def test_c3d_holds_more_points_than_a_byte_counts(tmp_path):
    import ezc3d

    poses = straight_walk(n_people=12, skeleton=SKELETONS["halpe26"], n_frames=2)
    write_c3d(poses, tmp_path / "a.c3d")
    file = ezc3d.c3d(str(tmp_path / "a.c3d"))
    points = file["data"]["points"]
    assert points.shape == (4, 312, 2)
    np.testing.assert_allclose(points[:3, 311, 1], [0.1, 2.5, -1.1], atol=1e-6)


@pytest.mark.parametrize(("people", "frames", "what"), [(0, 5, "people"), (1, 0, "frames")])
def test_c3d_of_nothing_is_refused(tmp_path, people, frames, what):
    with pytest.raises(FormatError, match=f"holds no {what}"):
        write_c3d(straight_walk(n_people=people, n_frames=frames), tmp_path / "a.c3d")


def test_c3d_with_more_frames_than_it_can_number_is_refused(tmp_path):
    poses = straight_walk(n_frames=65535, skeleton=Skeleton("custom", ("nose",)))
    with pytest.raises(FormatError, match="at most 65535 frames"):
        write_c3d(poses, tmp_path / "a.c3d")


def test_csv_is_one_row_a_joint_in_the_world_frame(tmp_path):
    poses = straight_walk(n_people=2, up="-z", missing=[(2, 1, 4)])
    write_csv(poses, tmp_path / "a.csv")
    with (tmp_path / "a.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 5 * 2 * 17
    gap = next(r for r in rows if (r["frame"], r["person"], r["joint"]) == ("2", "4", "right_ear"))
    assert (gap["x_m"], gap["reprojection_px"], gap["n_views"]) == ("", "", "0")
    row = next(r for r in rows if (r["frame"], r["person"], r["joint"]) == ("3", "4", "right_ear"))
    assert [float(row[f"{axis}_m"]) for axis in "xyz"] == pytest.approx([0.3, 0.1, 0.4])
    assert float(row["time_s"]) == pytest.approx(poses.time_s[3], abs=1e-9)
    assert (row["reprojection_px"], row["n_views"]) == ("1.250", "4")


def test_csv_leaves_out_the_time_before_a_person_comes_and_after_they_go(tmp_path):
    poses = straight_walk(missing=[(0, 0), (4, 0), (2, 0)])
    write_csv(poses, tmp_path / "a.csv")
    with (tmp_path / "a.csv").open(newline="") as file:
        assert sorted({row["frame"] for row in csv.DictReader(file)}) == ["1", "2", "3"]


def test_csv_of_no_people_is_a_header(tmp_path):
    write_csv(straight_walk(n_people=0), tmp_path / "a.csv")
    assert (tmp_path / "a.csv").read_text().startswith("time_s,frame,person,joint,x_m")


@pytest.mark.parametrize("kind", EXPORTS)
def test_exports_return_what_they_wrote_and_leave_nothing_else(tmp_path, kind):
    written = EXPORTS[kind](straight_walk(n_people=2), tmp_path / "poses3d")
    assert sorted(tmp_path.iterdir()) == sorted(written)
    assert all(path.suffix == f".{kind}" for path in written)


def test_trc_is_one_file_a_person(tmp_path):
    names = [path.name for path in export_trc(straight_walk(n_people=2), tmp_path / "poses3d")]
    assert names == ["poses3d_p3.trc", "poses3d_p4.trc"]


@pytest.mark.parametrize("kind", EXPORTS)
def test_a_folder_that_cannot_be_is_named(tmp_path, kind):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(WorkspaceError, match=r"file/poses3d.* cannot be written"):
        EXPORTS[kind](straight_walk(), tmp_path / "file" / "poses3d")
