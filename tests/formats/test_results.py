"""Our own result files: what is read is what was written, and anything else is refused by name."""

import json
from dataclasses import replace

import numpy as np
import pytest

from mvpose.clock import Clock, Clocks, identity_clock
from mvpose.errors import FormatError, WorkspaceError
from mvpose.formats.results import (
    check_format,
    plain,
    read_clocks,
    read_json,
    read_offsets,
    read_poses,
    write_clocks,
    write_json,
    write_offsets,
    write_poses,
)
from mvpose.poses import Poses3D
from mvpose.skeleton import SKELETONS, Skeleton
from mvpose.sync.offsets import METHODS, Mode, OffsetGraph, PairwiseOffset, Support

CLOCKS = Clocks(
    "cam02",
    {
        "cam02": identity_clock("cam02", 3.0),
        "cam01": Clock(
            "cam01", -0.1 / 3, 1 + 2.13e-5, np.array([[4e-6, -1e-9], [-1e-9, 1e-11]]), 10.0, True, "doubtful", "little"
        ),
    },
    unsynchronised={"Kamera Süd": "nobody is seen"},
    components=(("cam01", "cam02"), ("Kamera Süd",)),
    cycle_residual_max_s=0.004,
)
GRAPH = OffsetGraph(
    ("a", "b", "c"),
    (
        PairwiseOffset(
            "a", "b", 1.5, -0.1 / 3, 1e-3, "epipolar",
            modes=(Mode(-0.1 / 3, 1e-3, 0.9), Mode(7.0, 0.1, 0.1)), support=Support(3, 17, 12.5),
        ),
        PairwiseOffset("a", "c", 0.0, 5.0, 0.5, "hint", accepted=False, reason="contradicted"),
    ),
    notes={"c": "nobody is seen"},
)  # fmt: skip


def some_poses(frames: int = 4, people: int = 2, skeleton: Skeleton = SKELETONS["coco17"]) -> Poses3D:
    rng = np.random.default_rng(0)
    shape = (frames, people, len(skeleton))
    xyz = rng.normal(size=(*shape, 3))
    xyz[:1, :1] = np.nan
    return Poses3D(
        12.3 + np.arange(frames) / 29.97, xyz, np.array([5, 2])[:people], rng.random(shape), rng.integers(0, 5, shape),
        rng.random((*shape, 3, 3)).astype(np.float32), skeleton, ("cam01", "Süd"), "-y", True,
    )  # fmt: skip


def edit(path, change) -> None:
    value = json.loads(path.read_text(encoding="utf-8"))
    change(value)
    path.write_text(json.dumps(value), encoding="utf-8")


def test_clocks_survive_to_the_last_bit(tmp_path):
    write_clocks(CLOCKS, tmp_path / "clocks.json")
    back = read_clocks(tmp_path / "clocks.json")
    assert back.reference == "cam02"
    assert list(back.clocks) == ["cam02", "cam01"]
    for name, clock in CLOCKS.clocks.items():
        assert {**vars(back[name]), "cov": None} == {**vars(clock), "cov": None}
        np.testing.assert_array_equal(back[name].cov, clock.cov)
    assert back.unsynchronised == CLOCKS.unsynchronised
    assert back.components == CLOCKS.components
    assert back.cycle_residual_max_s == 0.004
    assert np.isnan(back.cycle_residual_rms_s)


def test_clocks_of_which_nothing_but_time_0_is_told_are_read(tmp_path):
    write_clocks(CLOCKS, tmp_path / "clocks.json")
    edit(tmp_path / "clocks.json", lambda value: value["clocks"]["cam01"].pop("cov_at_epoch"))
    np.testing.assert_allclose(read_clocks(tmp_path / "clocks.json")["cam01"].cov, CLOCKS["cam01"].cov, rtol=1e-9)


def test_clocks_json_is_as_the_contract_says(tmp_path):
    write_clocks(CLOCKS, tmp_path / "clocks.json")
    value = json.loads((tmp_path / "clocks.json").read_text(encoding="utf-8"))
    assert value["format"] == "mvpose.clocks/1"
    cam01 = value["clocks"]["cam01"]
    assert set(cam01) == {
        "offset_s", "rate", "sigma_offset_s", "sigma_rate", "cov", "epoch_s", "sigma_at_epoch_s", "cov_at_epoch",
        "rate_fitted", "verdict", "why",
    }  # fmt: skip
    assert cam01["sigma_at_epoch_s"] == pytest.approx(2e-3)
    assert cam01["cov_at_epoch"] == [[4e-6, -1e-9], [-1e-9, 1e-11]]
    # σ² at t_camera = 0, 10 s earlier: 4e-6 + 2 · 10 · 1e-9 + 100 · 1e-11
    assert cam01["sigma_offset_s"] == pytest.approx(np.sqrt(4.021e-6))
    np.testing.assert_allclose(cam01["cov"], [[4.021e-6, -1.1e-9], [-1.1e-9, 1e-11]])
    assert value["clocks"]["cam02"]["offset_s"] == 0
    assert value["clocks"]["cam02"]["rate"] == 1
    assert "why" not in value["clocks"]["cam02"]
    assert value["cycle_residual_s"] == {"max": 0.004, "rms": None}  # NaN is not JSON
    assert "Kamera Süd" in (tmp_path / "clocks.json").read_text(encoding="utf-8")


def test_clocks_may_leave_out_all_but_the_clock_itself(tmp_path):
    minimal = {
        "format": "mvpose.clocks/1", "reference": "a", "clocks": {"a": {"offset_s": 0, "rate": 1}}, "later": "unknown"
    }  # fmt: skip
    (tmp_path / "clocks.json").write_text(json.dumps(minimal))
    assert read_clocks(tmp_path / "clocks.json").clocks["a"].verdict == "good"


@pytest.mark.parametrize(
    "change",
    [
        lambda v: v.pop("reference"),
        lambda v: v.update(reference="cam09"),
        lambda v: v.pop("clocks"),
        lambda v: v.update(clocks=[1]),
        lambda v: v["clocks"].update(cam01=3),
        lambda v: v["clocks"]["cam01"].pop("rate"),
        lambda v: v["clocks"]["cam01"].update(rate="fast"),
        lambda v: v["clocks"]["cam01"].update(rate=-1),
        lambda v: v["clocks"]["cam01"].update(offset_s=None),
        lambda v: v["clocks"]["cam01"].update(cov_at_epoch=[[1, 2], [3]]),
        lambda v: v["clocks"]["cam01"].update(cov_at_epoch=[1]),
        lambda v: v.update(unsynchronised=[1]),
        lambda v: v.update(unsynchronised={"cam01": "has a clock, too"}),
        lambda v: v.update(components=3),
        lambda v: v.update(cycle_residual_s="small"),
    ],
)
def test_clocks_that_cannot_be_are_refused(tmp_path, change):
    write_clocks(CLOCKS, tmp_path / "clocks.json")
    edit(tmp_path / "clocks.json", change)
    with pytest.raises(FormatError, match=r"clocks\.json does not hold clocks"):
        read_clocks(tmp_path / "clocks.json")


def test_offsets_survive_to_the_last_bit(tmp_path):
    write_offsets(GRAPH, tmp_path / "offsets.json")
    assert read_offsets(tmp_path / "offsets.json") == GRAPH


@pytest.mark.parametrize("method", METHODS)
def test_every_method_has_a_name_on_disk(tmp_path, method):
    graph = OffsetGraph(("a", "b"), (PairwiseOffset("a", "b", 0.0, 1.0, 0.1, method),))
    write_offsets(graph, tmp_path / "offsets.json")
    assert json.loads((tmp_path / "offsets.json").read_text())["estimates"][0]["method"] == method
    assert read_offsets(tmp_path / "offsets.json") == graph


def test_what_earlier_versions_called_learned_is_insynformer(tmp_path):
    write_offsets(GRAPH, tmp_path / "offsets.json")
    edit(tmp_path / "offsets.json", lambda v: v["estimates"][0].update(method="learned"))
    assert read_offsets(tmp_path / "offsets.json").edges[0].method == "insynformer"
    write_offsets(read_offsets(tmp_path / "offsets.json"), tmp_path / "offsets.json")
    assert "learned" not in (tmp_path / "offsets.json").read_text()


@pytest.mark.parametrize(
    "change",
    [
        lambda v: v.pop("cameras"),
        lambda v: v.update(cameras=["a"]),
        lambda v: v.update(estimates=3),
        lambda v: v["estimates"][0].update(a="b", b="a"),
        lambda v: v["estimates"][0].update(sigma_s=0),
        lambda v: v["estimates"][0].update(offset_s=None),
        lambda v: v["estimates"][0].update(method="guess"),
        lambda v: v["estimates"][0].update(modes=[[1, 2]]),
        lambda v: v["estimates"][0].update(support={"luck": 3}),
    ],
)
def test_offsets_that_cannot_be_are_refused(tmp_path, change):
    write_offsets(GRAPH, tmp_path / "offsets.json")
    edit(tmp_path / "offsets.json", change)
    with pytest.raises(FormatError, match=r"offsets\.json does not hold offsets"):
        read_offsets(tmp_path / "offsets.json")


@pytest.mark.parametrize("skeleton", [SKELETONS["coco17"], Skeleton("custom", ("tail", "nose"))], ids=lambda s: s.name)
@pytest.mark.parametrize("people", [0, 1, 2])
def test_poses_survive_to_the_last_bit(tmp_path, people, skeleton):
    poses = some_poses(people=people, skeleton=skeleton)
    write_poses(poses, tmp_path / "poses3d.npz")
    back = read_poses(tmp_path / "poses3d.npz")
    for name, value in vars(poses).items():
        np.testing.assert_array_equal(getattr(back, name), value, err_msg=name)
    assert back.skeleton == skeleton
    assert back.cov_m2.dtype == np.float32
    assert back.time_s.dtype == np.float64


def test_poses3d_npz_is_as_the_contract_says(tmp_path):
    write_poses(some_poses(), tmp_path / "poses3d.npz")
    with np.load(tmp_path / "poses3d.npz", allow_pickle=False) as file:
        assert set(file.files) == {
            "format", "time_s", "xyz_m", "person_ids", "reprojection_px", "n_views", "cov_m2", "joint_names",
            "skeleton", "cameras", "up", "smoothed",
        }  # fmt: skip
        assert str(file["format"]) == "mvpose.poses3d/1"


def test_without_cameras_or_frames_poses_are_still_a_file(tmp_path):
    write_poses(replace(some_poses(frames=0), cameras=()), tmp_path / "poses3d.npz")
    back = read_poses(tmp_path / "poses3d.npz")
    assert back.xyz_m.shape == (0, 2, 17, 3)
    assert back.cameras == ()


@pytest.mark.parametrize(
    "fields",
    [
        {"xyz_m": np.zeros((4, 2, 16, 3))},
        {"time_s": np.zeros((2, 2))},
        {"person_ids": np.array([1, 1])},
        {"joint_names": np.array(["nose", "nose"])},
        {"joint_names": np.array(3)},
        {"cov_m2": np.zeros(3)},
        {"up": None},
        {"up": np.array("south")},
        {"cameras": None},
        {"time_s": np.array([0.0, 1.0, np.nan, 3.0])},
        {"time_s": np.array([0.0, 2.0, 1.0, 3.0])},
        {"time_s": np.arange(4, dtype=np.longdouble)},
        {"xyz_m": np.full((4, 2, 17, 3), 1e300)},
        {"xyz_m": np.zeros((4, 2, 17, 3), np.complex128)},
    ],
    ids=lambda fields: next(iter(fields)),
)
def test_poses_that_cannot_be_are_refused(tmp_path, fields):
    write_poses(some_poses(), tmp_path / "poses3d.npz")
    with np.load(tmp_path / "poses3d.npz") as archive:
        arrays = {**archive, **fields}
    np.savez(tmp_path / "poses3d.npz", **{name: value for name, value in arrays.items() if value is not None})
    with pytest.raises(FormatError, match=r"poses3d\.npz"):
        read_poses(tmp_path / "poses3d.npz")


@pytest.mark.parametrize("content", [b"", b"nonsense", b"PK\x03\x04 hardly a zip", b"\x93NUMPY"])
def test_what_is_no_archive_is_refused(tmp_path, content):
    (tmp_path / "a.npz").write_bytes(content)
    with pytest.raises(FormatError, match=r"a\.npz cannot be read as npz") as caught:
        read_poses(tmp_path / "a.npz")
    assert "allow_pickle" not in str(caught.value)


def test_objects_are_not_unpickled(tmp_path):
    np.savez(tmp_path / "a.npz", format="mvpose.poses3d/1", xyz_m=np.array([{}, []], dtype=object))
    with pytest.raises(FormatError, match="plain numbers"):
        read_poses(tmp_path / "a.npz")


def test_a_single_array_is_no_archive(tmp_path):
    with (tmp_path / "a.npz").open("wb") as file:
        np.save(file, np.arange(3))
    with pytest.raises(FormatError, match="cannot be read as npz"):
        read_poses(tmp_path / "a.npz")


def test_missing_files_are_named(tmp_path):
    for read in (read_clocks, read_offsets, read_poses):
        with pytest.raises(FormatError, match="nowhere"):
            read(tmp_path / "nowhere")


@pytest.mark.parametrize(
    ("found", "words"),
    [
        ("mvpose.clocks/2", "newer .* update mvpose"),
        ("mvpose.clocks/10", "newer"),
        ("mvpose.poses3d/1", "not a mvpose.clocks file"),
        ("mvpose.clocks/1.5", "not a mvpose.clocks file"),
        ("mvposeXclocks/1", "not a mvpose.clocks file"),
        (None, "not a mvpose.clocks file"),
        (["x" * 1000], "not a mvpose.clocks file"),
    ],
)
def test_other_formats_and_newer_versions_are_refused(tmp_path, found, words):
    with pytest.raises(FormatError, match=words) as caught:
        check_format(found, "mvpose.clocks/1", tmp_path / "clocks.json")
    assert len(str(caught.value)) < 300
    check_format("mvpose.clocks/1", "mvpose.clocks/1", tmp_path)
    check_format("mvpose.clocks/1", "mvpose.clocks/2", tmp_path)  # older is fine


def test_json_is_plain_whatever_numpy_puts_in(tmp_path):
    value = {
        "a": np.float32(0.5), "b": np.int64(3), "c": np.bool_(True), "d": np.array([[1.5, np.nan]]), "e": (1, None),
        "f": float("inf"), "g": tmp_path, 7: "key", "h": "−0,3 s",
    }  # fmt: skip
    write_json({"format": "x/1", **value}, tmp_path / "a.json")
    back = read_json(tmp_path / "a.json", "x/1")
    assert back == {
        "format": "x/1", "a": 0.5, "b": 3, "c": True, "d": [[1.5, None]], "e": [1, None], "f": None,
        "g": str(tmp_path), "7": "key", "h": "−0,3 s",
    }  # fmt: skip
    assert plain(back) == back


def test_json_is_written_whole_or_not_at_all(tmp_path):
    write_json({"format": "x/1"}, tmp_path / "a.json")
    with pytest.raises(TypeError):
        write_json({"format": "x/1", "b": object()}, tmp_path / "a.json")
    assert read_json(tmp_path / "a.json", "x/1") == {"format": "x/1"}
    with pytest.raises(WorkspaceError, match="cannot be written"):
        write_json({"format": "x/1"}, tmp_path / "a.json" / "b.json")
    assert [path.name for path in tmp_path.iterdir()] == ["a.json"]
