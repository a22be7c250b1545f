import csv
from dataclasses import replace

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from torch import nn
from torch.nn import functional

from mvpose.bench.cost import count_flops, measure_cost
from mvpose.bench.sync import (
    INTEGER,
    Comparison,
    Line,
    Plan,
    best_rows,
    by_bins,
    check_training,
    compare_rows,
    draw_seeded,
    format_comparison,
    format_diagnosis,
    format_lines,
    in_whole_frames,
    ready_row,
)
from mvpose.cli import cli
from mvpose.errors import FormatError, WorkspaceError
from mvpose.sync.clips import Decision
from mvpose.sync.train.config import Training
from mvpose.sync.train.metrics import score_decisions
from mvpose.sync.train.rows import ROWS
from mvpose.sync.train.scenes import IFID
from mvpose.synthetic.motion import generate_motion
from mvpose.training.motions import motion_bank
from mvpose.training.weights import save_weights


@pytest.fixture(scope="module")
def motion():
    return generate_motion(np.random.default_rng(0), 20.0, people=1)


@pytest.fixture(scope="module")
def bank(motion):
    return motion_bank([motion])


@pytest.fixture
def folder(tmp_path, motion):
    """A folder of motion as the CMU pack is one."""
    data = tmp_path / "motion"
    data.mkdir()
    for split in ("train", "val", "test"):
        joints = {split: motion.xyz_m[:, 0].astype(np.float32)}
        np.savez(data / f"pack_{split}.npz", joint_names=np.array(motion.skeleton.joint_names), **joints)
    rate = 1 / np.diff(motion.time_s).mean()
    with (data / "index.csv").open("w", newline="") as file:
        csv.writer(file).writerows([("clip_id", "fps"), ("train", rate), ("val", rate), ("test", rate)])
    return data


def quiet(what, done, total):
    pass


def score(ex, tenth=None, truth=2.0):
    ex = torch.tensor(ex)
    offset = ex.float() if tenth is None else ex + torch.tensor(tenth) / 10
    return score_decisions(
        Decision(ex, None if tenth is None else torch.tensor(tenth), offset), torch.full((len(ex),), truth), 0.1
    )


# What is compared.


def test_the_same_pairs_are_drawn_every_time(bank):
    a, b = (draw_seeded(bank, IFID, 8, 5).pairs.xy for _ in range(2))
    torch.testing.assert_close(a, b, equal_nan=True)
    assert not torch.equal(torch.nan_to_num(a), torch.nan_to_num(draw_seeded(bank, IFID, 8, 6).pairs.xy))


def test_integer_protocols_have_whole_offsets_at_30_fps(bank):
    offset = draw_seeded(bank, INTEGER, 64, 0).offset_frames
    torch.testing.assert_close(offset, offset.round(), atol=1e-4, rtol=0)
    assert offset.abs().max() < 5.5 and INTEGER.fps == 30


def test_an_unknown_row_is_refused_with_the_one_that_was_meant(tmp_path):
    with pytest.raises(FormatError, match="did you mean 'oracle'"):
        Plan(tmp_path, tmp_path, rows=("orcale",))
    with pytest.raises(FormatError, match="there is no row 'oracle'"):
        Plan(tmp_path, tmp_path, weights=(("oracle", tmp_path),))


def test_a_row_or_a_file_that_is_named_twice_is_refused(tmp_path):
    with pytest.raises(FormatError, match="sesyn is named twice"):
        Plan(tmp_path, tmp_path, rows=("sesyn", "oracle", "sesyn"))
    seeds = tuple(("lagformer", tmp_path / seed / "lagformer.safetensors") for seed in ("seed0", "seed1"))
    with pytest.raises(FormatError, match=r"lagformer\.safetensors is named twice"):
        Plan(tmp_path, tmp_path, weights=(*seeds, seeds[0]))


def test_whole_frames_are_the_nearest_ones_within_reach():
    found = Decision(torch.tensor([1, 1, 5]), torch.tensor([4, 6, 9]), torch.tensor([1.4, -1.6, 5.9]))
    whole = in_whole_frames(found)
    assert whole.ex.tolist() == [1, 2, 5] and whole.tenth is None
    assert whole.offset_frames.tolist() == [1, -2, 5]
    counted = Decision(torch.tensor([3]), None, torch.tensor([3.0]))
    assert in_whole_frames(counted) is counted


def test_the_best_rows_err_least_and_tell_tenths():
    scores = {"far": score([4], [0]), "near": score([2], [1]), "whole": score([2]), "middle": score([3], [0])}
    assert best_rows(scores, 2) == ["near", "middle"]
    assert best_rows({"whole": score([2]), "worse": score([5])}, 2) == ["whole", "worse"]


def test_training_with_the_same_words_is_taken_and_another_is_named(tmp_path):
    training = Training(row="sesyn", clips=256, batch=128, recipes=((1.0, IFID),))
    metadata = {"training": training.course(), "data": "d"}
    check_training(tmp_path, metadata, replace(training, val_clips=7), "d")
    with pytest.raises(WorkspaceError, match="clips 256, not 512"):
        check_training(tmp_path, metadata, replace(training, clips=512), "d")
    with pytest.raises(WorkspaceError, match=r"recipes .*fps"):
        check_training(tmp_path, metadata, replace(training, recipes=((1.0, INTEGER),)), "d")
    with pytest.raises(WorkspaceError, match="data 'd', not 'e'"):
        check_training(tmp_path, metadata, training, "e")
    unsaid = {"training": {k: v for k, v in training.course().items() if k != "seed"}, "data": "d"}
    with pytest.raises(WorkspaceError, match="seed None, not 0"):
        check_training(tmp_path, unsaid, training, "d")


# The whole.


def test_rows_are_trained_once_and_tested_on_the_same_pairs(folder, tmp_path, monkeypatch):
    monkeypatch.setattr("mvpose.bench.sync._CHOOSING", 64)
    plan = Plan(folder, tmp_path / "work", rows=("oracle", "cnnsiamese", "correlation"), clips=64, seeds=2, pairs=128)
    told = []
    first = compare_rows(plan, lambda *what: told.append(what))
    assert [(line.name, line.clips, len(line.scores)) for line in first.lines] == [
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


def test_weights_of_another_training_are_a_line_of_their_own(folder, tmp_path):
    network = ROWS["insynformer-hxe"].build()
    save_weights(network, tmp_path / "long.safetensors", {"clips": 12})
    weights = (("insynformer-hxe", tmp_path / "long.safetensors"),)
    plan = Plan(folder, tmp_path, rows=("correlation", "oracle"), pairs=128, weights=weights)
    lines = compare_rows(plan, quiet).lines
    assert [(line.name, line.clips) for line in lines] == [
        ("correlation", None),
        ("insynformer-hxe", 12),
        ("oracle", None),
    ]
    assert lines[1].title == "InSynFormer + HXE + TSA + CVA, long"
    assert lines[1].cost.parameters == sum(p.numel() for p in network.parameters())


def test_the_command_says_what_the_data_are(folder, tmp_path):
    words = ["bench", "sync", "--data", str(folder), "--work-dir", str(tmp_path), "--pairs", "128"]
    done = CliRunner().invoke(cli, [*words, "--rows", "correlation,oracle"])
    assert done.exit_code == 0
    assert "CMU motions seen by virtual cameras, not IFID" in done.stdout and "Table 1" in done.stdout
    done = CliRunner().invoke(cli, [*words, "--rows", "correlation", "--integer"])
    assert "not NTU-SYN or CMU-SYN" in done.stdout
    assert isinstance(CliRunner().invoke(cli, [*words, "--rows", "corelation"]).exception, FormatError)
    assert CliRunner().invoke(cli, [*words, "--weights", "sesyn"]).exit_code == 2


def test_what_the_package_comes_with_is_loaded_from_it(bank):
    labelled = draw_seeded(bank, IFID, 32, 1)
    for name, rays in (("lagformer-shipped", False), ("lagformer-rays-shipped", True)):
        row = ready_row(name, IFID)
        assert row.network.rays == rays and row.any_length and row.name == name
        assert torch.isfinite(row.decide(labelled).sigma_frames).all()


def test_the_oracle_is_told_that_offsets_are_whole(bank):
    labelled = draw_seeded(bank, INTEGER, 8, 0)
    assert ready_row("oracle", INTEGER).decide(labelled).tenth is None
    assert ready_row("oracle", IFID).decide(draw_seeded(bank, IFID, 8, 0)).tenth is not None


def test_a_folder_without_motion_to_test_on_is_refused(folder, tmp_path):
    (folder / "pack_test.npz").unlink()
    with pytest.raises(FormatError, match="no motion to test on"):
        compare_rows(Plan(folder, tmp_path, rows=("correlation",)), quiet)


# Diagnoses.


def test_errors_are_told_apart_by_bins():
    value = torch.tensor([0.1, 0.5, 0.5, 1.0, 7.0])
    error = torch.tensor([1.0, 2.0, 4.0, 8.0, 10.0])
    found = by_bins("speed", value, (0.5, 1.0, 2.0), {"x": error})
    assert found.bins == ("< 0.5", "0.5–1", "1–2", "≥ 2") and found.pairs == (1, 2, 1, 1)
    assert found.mean_frames["x"] == (1, 3, 8, 10)
    empty = by_bins("speed", value, (20.0,), {"x": error})
    assert empty.pairs == (5, 0) and empty.mean_frames["x"] == (5, None)
    assert format_diagnosis(empty).splitlines()[-1].split() == ["x", "4.00", "/", "5.00", "–"]


def test_the_oracle_knows_each_recipe_and_short_clips_are_for_short_networks(folder, tmp_path, monkeypatch):
    monkeypatch.setattr("mvpose.bench.sync._DIAGNOSING", 32)
    weights = []
    for seed in ("seed0", "seed1"):  # as trainings write them: files of one name
        weights.append(("insynformer-hxe", tmp_path / seed / "insynformer-hxe.safetensors"))
        weights[-1][1].parent.mkdir()
        save_weights(ROWS["insynformer-hxe"].build(), weights[-1][1], {})
    plan = Plan(folder, tmp_path, rows=("oracle",), pairs=128, weights=tuple(weights), diagnose=True)
    *_, noise, length = compare_rows(plan, quiet).diagnoses
    network, _, oracle = length.mean_frames
    assert length.bins == ("5", "10", "20") and length.mean_frames[network][1:] == (None, None)
    assert all(mean < 0.5 for mean in length.mean_frames[oracle])
    assert noise.median_frames[oracle][0] < noise.median_frames[oracle][2]


# Text.


def test_lines_show_the_spread_over_seeds_and_the_paper_beneath():
    scores = (score([2, 2], [0, 0]), score([2, 3], [0, 0]))  # ex@1 100 and 50 %
    text = format_lines([Line("insynformer-hxe", "Ours", scores, 100, None)], paper=True).splitlines()
    assert text[1].split()[:4] == ["Ours", "100", "2", "75.0±35.4"]
    assert text[2].split()[:5] == ["the", "paper", "on", "IFID", "80.86"]
    plain = format_lines([Line("sesyn", "Sesyn", (score([2]),), 100, None)], paper=False).splitlines()
    assert plain[1].split()[3:7] == ["100.0", "100.0", "–", "–"] and len(plain) == 2


def test_each_row_stands_in_its_tables():
    def line(name):
        return Line(name, name, (score([2], [0]),), None, None)

    names = ("synnet-ce", "synnet-hxe", "sesyn", "insynformer-ce", "insynformer-hxe", "oracle")
    text = format_comparison(Comparison(False, 8, tuple(map(line, names)), ()))
    first, second = text.split("Table 1")[1].split("Table 2")
    rows = [
        [row.split()[0] for row in table.splitlines() if row.split()[:1] and row.split()[0] in names]
        for table in (first, second)
    ]
    assert rows == [
        ["synnet-hxe", "sesyn", "insynformer-hxe", "oracle"],
        ["synnet-ce", "synnet-hxe", "insynformer-ce", "insynformer-hxe"],
    ]


# Cost.


class Product(nn.Module):
    def __init__(self):
        super().__init__()
        self.map = nn.Linear(13, 4)

    def forward(self, pairs):
        return self.map(pairs.score)

    def decide(self, output):
        return output


class Attention(nn.Module):
    def forward(self, pairs):
        return functional.scaled_dot_product_attention(pairs.score, pairs.score, pairs.score)


def test_operations_are_counted_in_products_and_in_attention(bank):
    pairs = draw_seeded(bank, IFID, 3, 0).pairs
    assert count_flops(Product(), pairs) == 2 * (3 * 2 * 5) * 13 * 4
    # Scores (5 × 13 by 13 × 5) and their product with the values (5 × 5 by 5 × 13), of 3 · 2 clips.
    assert count_flops(Attention(), pairs) == 2 * 6 * (5 * 13 * 5 + 5 * 5 * 13)


def test_cost_is_of_one_pair_on_one_thread(bank):
    threads = torch.get_num_threads()
    cost = measure_cost(Product(), draw_seeded(bank, IFID, 128, 0).pairs)
    assert (cost.parameters, cost.megabytes) == (56, pytest.approx(56 * 4e-6))
    assert cost.gflops == pytest.approx(2 * 10 * 13 * 4 * 1e-9)
    assert cost.batched_per_s > cost.alone_per_s > 0
    assert torch.get_num_threads() == threads


def test_the_oracle_is_nearer_to_the_truth_than_correlation(bank):
    labelled = draw_seeded(bank, IFID, 64, 1)
    error = [
        (ready_row(name, IFID).decide(labelled).offset_frames - labelled.offset_frames).abs().mean()
        for name in ("oracle", "correlation")
    ]
    assert error[0] < 0.1 * error[1]
