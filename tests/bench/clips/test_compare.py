from dataclasses import replace

import pytest
import torch
from click.testing import CliRunner

from mvpose.bench.clips.compare import Plan, best_rows, compare_rows, in_whole_frames
from mvpose.bench.clips.rows import ROWS
from mvpose.cli import cli
from mvpose.errors import FormatError, WorkspaceError
from mvpose.sync.clips import Decision
from mvpose.training.weights import save_weights


def quiet(what, done, total):
    pass


def test_an_unknown_row_is_refused_with_the_one_that_was_meant(tmp_path):
    with pytest.raises(FormatError, match="did you mean 'oracle'"):
        Plan(tmp_path, tmp_path, rows=("orcale",))
    with pytest.raises(FormatError, match="there is no row 'oracle'"):
        Plan(tmp_path, tmp_path, weights=(("oracle", tmp_path),))


def test_a_row_or_a_file_that_is_named_twice_is_refused(tmp_path):
    with pytest.raises(FormatError, match="sesyn is named twice"):
        Plan(tmp_path, tmp_path, rows=("sesyn", "oracle", "sesyn"))
    seeds = tuple(("insynformer", tmp_path / seed / "insynformer.safetensors") for seed in ("seed0", "seed1"))
    with pytest.raises(FormatError, match=r"insynformer\.safetensors is named twice"):
        Plan(tmp_path, tmp_path, weights=(*seeds, seeds[0]))


def test_whole_frames_are_the_nearest_ones_within_reach():
    found = Decision(torch.tensor([1, 1, 5]), torch.tensor([4, 6, 9]), torch.tensor([1.4, -1.6, 5.9]))
    whole = in_whole_frames(found)
    assert whole.ex.tolist() == [1, 2, 5] and whole.tenth is None
    assert whole.offset_frames.tolist() == [1, -2, 5]
    counted = Decision(torch.tensor([3]), None, torch.tensor([3.0]))
    assert in_whole_frames(counted) is counted


def test_the_best_rows_err_least_and_tell_tenths(score):
    scores = {"far": score([4], [0]), "near": score([2], [1]), "whole": score([2]), "middle": score([3], [0])}
    assert best_rows(scores, 2) == ["near", "middle"]
    assert best_rows({"whole": score([2]), "worse": score([5])}, 2) == ["whole", "worse"]


def test_rows_are_trained_once_and_tested_on_the_same_pairs(folder, tmp_path, monkeypatch):
    monkeypatch.setattr("mvpose.bench.clips.compare._CHOOSING", 64)
    plan = Plan(folder, tmp_path / "work", rows=("oracle", "cnnsiamese", "correlation"), clips=64, seeds=2, pairs=128)
    told = []
    first = compare_rows(plan, lambda *what: told.append(what))
    assert [(line.name, line.trained and line.trained.clips, len(line.scores)) for line in first.lines] == [
        ("cnnsiamese", 64, 2),
        ("correlation", None, 1),
        ("oracle", None, 1),
    ]
    assert {path.name for path in (tmp_path / "work").glob("*.safetensors")} == {
        "cnnsiamese.safetensors",
        "cnnsiamese-seed1.safetensors",
    }
    assert ("train cnnsiamese", 1, 1) in told and told[-1] == ("test", 3, 3)
    siamese, correlation, oracle = first.lines
    assert siamese.scores[0] != siamese.scores[1]
    assert oracle.scores[0].frame_error < 0.5 < min(correlation.scores[0].frame_error, siamese.scores[0].frame_error)

    told.clear()
    again = compare_rows(plan, lambda *what: told.append(what))
    assert {what for what, _, _ in told} == {"test"}
    assert [line.scores for line in again.lines] == [line.scores for line in first.lines]
    with pytest.raises(WorkspaceError, match="clips 64, not 128"):
        compare_rows(replace(plan, clips=128), quiet)


def test_seeds_are_of_the_rows_that_are_named(folder, tmp_path):
    with pytest.raises(FormatError, match="there is no row 'correlation'; there are cnnsiamese"):
        Plan(folder, tmp_path, rows=("cnnsiamese", "correlation"), seed_rows=("correlation",))
    plan = Plan(
        folder, tmp_path, rows=("cnnsiamese", "insynformer-ce"), clips=16, seeds=2, pairs=128, seed_rows=("cnnsiamese",)
    )
    assert [len(line.scores) for line in compare_rows(plan, quiet).lines] == [2, 1]


def test_weights_of_another_training_are_a_line_of_their_own(folder, tmp_path):
    network = ROWS["insynformer-hxe"].row.build()
    save_weights(network, tmp_path / "long.safetensors", {"clips": 12})
    weights = (("insynformer-hxe", tmp_path / "long.safetensors"),)
    plan = Plan(folder, tmp_path, rows=("correlation", "oracle"), pairs=128, weights=weights)
    lines = compare_rows(plan, quiet).lines
    assert [(line.name, line.trained and line.trained.clips) for line in lines] == [
        ("correlation", None),
        ("insynformer-hxe", 12),
        ("oracle", None),
    ]
    assert lines[1].title == "InSynFormer + HXE + TSA + CVA, long"
    assert lines[1].cost.parameters == sum(p.numel() for p in network.parameters())


def test_the_command_says_what_the_data_are(folder, tmp_path):
    words = ["bench", "clips", "--data", str(folder), "--work-dir", str(tmp_path), "--pairs", "128"]
    done = CliRunner().invoke(cli, [*words, "--rows", "correlation,oracle"])
    assert done.exit_code == 0
    assert "CMU motions seen by virtual cameras, not IFID" in done.stdout and "Table 1" in done.stdout
    done = CliRunner().invoke(cli, [*words, "--rows", "correlation", "--integer"])
    assert "not NTU-SYN or CMU-SYN" in done.stdout
    assert isinstance(CliRunner().invoke(cli, [*words, "--rows", "corelation"]).exception, FormatError)
    wrong = CliRunner().invoke(cli, [*words, "--rows", "sesyn", "--seed-rows", "synnet-ce"])
    assert "there is no row 'synnet-ce'; there are sesyn" in str(wrong.exception)
    assert CliRunner().invoke(cli, [*words, "--weights", "sesyn"]).exit_code == 2


def test_a_folder_without_motion_to_test_on_is_refused(folder, tmp_path):
    (folder / "pack_test.npz").unlink()
    with pytest.raises(FormatError, match="no motion to test on"):
        compare_rows(Plan(folder, tmp_path, rows=("correlation",)), quiet)
