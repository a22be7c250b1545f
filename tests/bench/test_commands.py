import csv
import json
import re

import click
import numpy as np
import pytest

from mvpose.bench import ablation, refinements
from mvpose.bench.clocks import ESTIMATORS, choose_cases, choose_estimators, grid
from mvpose.bench.commands import bench
from mvpose.bench.cut import Outcome, format_outcome
from mvpose.clock import Clock, Clocks
from mvpose.errors import FormatError
from mvpose.synthetic.motion import generate_motion

TABLES = [
    "clips", "recordings", "adversarial", "generated", "cut", "ablation", "refinements", "detection", "recon",
]  # fmt: skip


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """A folder of motion with a split to report on."""
    folder = tmp_path_factory.mktemp("motion")
    motions = {f"clip{seed}": generate_motion(np.random.default_rng(seed), 20.0) for seed in range(2)}
    joints = {name: motion.xyz_m[:, 0].astype("f4") for name, motion in motions.items()}
    np.savez(folder / "pack_test.npz", joint_names=np.array(motions["clip0"].skeleton.joint_names), **joints)
    with (folder / "index.csv").open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([("clip_id", "fps"), *((name, 60) for name in motions)])
    return folder


def test_help_lists_the_tables(mvpose):
    ended = mvpose("bench", "--help")
    assert ended.code == 0
    assert re.findall(r"^  ([a-z]+)  +\S", ended.out.split("Commands:")[1], re.MULTILINE) == TABLES


@pytest.mark.parametrize("table", TABLES)
def test_every_option_has_help(mvpose, table):
    ended = mvpose("bench", table, "--help")
    assert ended.code == 0
    assert [p.name for p in bench.commands[table].params if isinstance(p, click.Option) and not p.help] == []


def test_a_table_that_is_none_ends_with_those_that_there_are(mvpose):
    ended = mvpose("bench", "sync", "--recordings")
    assert ended.code == 2
    assert "No such command 'sync'. There are clips, recordings, adversarial" in ended.err


@pytest.mark.parametrize(
    "argv",
    [
        ["clips", "--recordings"],
        ["clips", "--pairs", "7"],
        ["recordings", "--clips", "7"],
        ["recordings", "--split", "all"],
        ["adversarial", "--integer"],
        ["generated", "--fps", "30"],
        ["generated", "--fps", "30,fast"],
        ["generated", "--fps", "30,0"],
        ["detection"],
        ["recon", "--speed", "--rigs", "2"],
        ["recon", "--rigs", "2"],  # no --data
        ["recon", "--lay-out"],  # no --data
        ["recon", "--method", "guess"],
    ],
    ids=" ".join,
)
def test_wrong_flags_end_with_2(mvpose, argv):
    ended = mvpose("bench", *argv)
    assert ended.code == 2
    assert ended.out == ""
    assert "Error: " in ended.err


@pytest.mark.parametrize("table", ["recordings", "adversarial", "ablation", "refinements"])
def test_the_motion_that_is_lacking_is_named(refused, tmp_path, table):
    split = "val" if table == "refinements" else "test"
    assert f"{tmp_path} holds no motion pack *_{split}.npz" in refused("bench", table, "--data", tmp_path)


def test_recordings_are_of_the_kinds_and_by_the_estimators_that_are_named(mvpose, data):
    argv = ["bench", "recordings", "--data", data, "--seeds", 1, "--cases", "5 s at 10 fps", "--estimators"]
    ended = mvpose(*argv, "correlation", "--no-poses", "--no-speed", "--json")
    assert ended.code == 0, ended.err
    found = json.loads(ended.out)
    assert [(t["case"], t["estimator"]) for t in found["trials"]] == [("5 s at 10 fps", "correlation of speeds")]
    assert found["repairs"] == found["speeds"] == []
    text = mvpose(*argv, "correlation", "--no-speed").out  # none of the kinds that are reconstructed
    assert "correlation of speeds" in text and "MPJPE" not in text and "plain correlation" not in text


def test_names_of_estimators_and_words_of_cases():
    assert choose_estimators(None) == ESTIMATORS
    assert [e.name for e in choose_estimators(("rays", "correlation"))] == ["correlation", "rays"]
    assert len({e.name for e in ESTIMATORS}) == len(ESTIMATORS)
    with pytest.raises(FormatError, match="there is no estimator 'ray'; did you mean 'rays'"):
        choose_estimators(("ray",))
    assert choose_cases(grid(), "") == grid()
    assert [str(case) for case in choose_cases(grid(), "8 cameras")] == ["20 s at 30 fps, 8 cameras"]
    with pytest.raises(FormatError, match="no kind of recording is described by 'rain'; there are: 5 s at 10 fps; "):
        choose_cases(grid(), "rain")


def test_generated_recordings_go_through_the_whole_chain(mvpose):
    argv = ["--seeds", 2, "--first-seed", 7, "--duration", 15, "--max-offset", 2, "--fps", "25,20", "--no-raw"]
    ended = mvpose("bench", "generated", *argv)
    assert ended.code == 0, ended.err
    one, two, *summary = ended.out.splitlines()
    assert one.startswith("seed 7: clocks ") and two.startswith("seed 8: clocks ")
    assert "raw" not in one and "perfect" in one
    assert summary[0].startswith("clock error: median ") and "(2 clocks, 0 cameras without)" in summary[0]
    assert summary[-1].startswith("peak memory")


def test_ablations_and_refinements_are_told_kind_by_kind(mvpose, data, monkeypatch):
    monkeypatch.setattr(ablation, "CASES", ())
    monkeypatch.setattr(ablation, "BRIEF", ablation.BRIEF[:1])
    monkeypatch.setattr(ablation, "EDGES", dict(list(ablation.EDGES.items())[1:2]))
    monkeypatch.setattr(refinements, "CASES", refinements.CASES[:1])
    monkeypatch.setattr(refinements, "REFINEMENTS", dict(list(refinements.REFINEMENTS.items())[-1:]))
    for table, case, way in (
        ("ablation", "4 s at 10 fps", "no learned edges"),
        ("refinements", "20 s at 10 fps", "all pairs together (kept)"),
    ):
        ended = mvpose("bench", table, "--data", data, "--seeds", 1, "--split", "test")
        assert ended.code == 0, ended.err
        _, head, line = ended.out.splitlines()
        assert head == f"{case} (1 recordings)"
        assert line.strip().startswith(way)


def clocks(**offset_s):
    return Clocks("cam01", {name: Clock(name, s, 1.0, np.zeros((2, 2))) for name, s in offset_s.items()}, {})


def test_a_cut_is_judged_with_what_the_uncut_videos_were_off():
    metrics = {
        "reprojection_px_mean": 2.0, "reprojection_px_median": 1.0, "bone_spread_mm": 3.0, "joints_found": 0.5,
        "n_people": 1.0,
    }  # fmt: skip
    found = Outcome(clocks(cam01=0.0, cam02=0.107), clocks(cam01=0.0), clocks(cam01=0.0, cam02=0.1), {"raw": metrics})
    uncut = clocks(cam01=0.0, cam02=0.005)
    lines = [line.strip() for line in format_outcome(found, uncut).splitlines()]
    assert lines == [
        "against the cut alone: cam02 +7.0 ms (mean |error| 7.0)",
        "against the cut and the uncut clocks: cam02 +2.0 ms (mean |error| 2.0)",
        "without calibration, against both: no clocks",
        "raw     reprojection mean 2.00 median 1.00 px, bone spread 3.0 mm, joints found 50.0 %, 1 people",
    ]
    assert (
        format_outcome(found, None).splitlines()[0].strip() == "its own clocks: cam01 +0.0 ± 0.0, cam02 +107.0 ± 0.0 ms"
    )


def test_a_video_that_is_not_there_is_named(refused, tmp_path):
    assert "nowhere.mp4" in refused("bench", "detection", tmp_path / "nowhere.mp4")
