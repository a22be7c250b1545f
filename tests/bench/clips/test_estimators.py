from dataclasses import replace

import pytest
import torch

from mvpose.bench.clips.estimators import Trained, check_training, loaded_row, ready_row
from mvpose.bench.clips.protocol import INTEGER, draw_seeded
from mvpose.bench.clips.rows import ROWS, training_of
from mvpose.errors import WorkspaceError
from mvpose.sync.train.scenes import IFID
from mvpose.training.weights import save_weights


def test_training_with_the_same_words_is_taken_and_another_is_named(tmp_path):
    training = training_of("sesyn", 256, IFID, 0)
    metadata = {"training": training.course(), "data": "d"}
    check_training(tmp_path, metadata, replace(training, val_clips=7), "d")
    with pytest.raises(WorkspaceError, match="clips 256, not 512"):
        check_training(tmp_path, metadata, replace(training, clips=512), "d")
    with pytest.raises(WorkspaceError, match=r"recipes .*fps"):
        check_training(tmp_path, metadata, replace(training, recipes=((1.0, INTEGER),)), "d")
    with pytest.raises(WorkspaceError, match="data 'd', not 'e'"):
        check_training(tmp_path, metadata, training, "e")
    with pytest.raises(WorkspaceError, match="batch 128, not 64"):
        check_training(tmp_path, metadata, replace(training, batch=64), "d")
    with pytest.raises(WorkspaceError, match=r"learning_rate None, not 0\.01"):
        check_training(tmp_path, metadata, replace(training, learning_rate=0.01), "d")
    unsaid = {"training": {k: v for k, v in training.course().items() if k != "seed"}, "data": "d"}
    with pytest.raises(WorkspaceError, match="seed None, not 0"):
        check_training(tmp_path, unsaid, training, "d")


def test_what_the_package_comes_with_is_loaded_from_it(bank):
    labelled = draw_seeded(bank, IFID, 32, 1)
    for name, rays in (("insynformer-shipped", False), ("insynformer-rays-shipped", True)):
        row = ready_row(name, IFID)
        assert row.network.rays == rays and row.any_length and row.name == name
        assert torch.isfinite(row.decide(labelled).sigma_frames).all()


def test_lines_say_what_weights_were_trained_by_as_far_as_these_tell(tmp_path):
    row, path = ROWS["insynformer-hxe"].row, tmp_path / "w.safetensors"
    for metadata, trained in (
        ({}, Trained()),
        ({"clips": "many", "training": 5}, Trained()),
        ({"clips": 96, "training": {"batch": 32, "learning_rate": None}}, Trained(96, 32, row.learning_rate)),
        ({"clips": 96, "training": {"batch": 32, "learning_rate": 0.5}}, Trained(96, 32, 0.5)),
    ):
        save_weights(row.build(), path, metadata)
        assert loaded_row(row, path).trained == trained


def test_the_oracle_is_told_that_offsets_are_whole(bank):
    labelled = draw_seeded(bank, INTEGER, 8, 0)
    assert ready_row("oracle", INTEGER).decide(labelled).tenth is None
    assert ready_row("oracle", IFID).decide(draw_seeded(bank, IFID, 8, 0)).tenth is not None


def test_the_oracle_is_nearer_to_the_truth_than_correlation(bank):
    labelled = draw_seeded(bank, IFID, 64, 1)
    error = [
        (ready_row(name, IFID).decide(labelled).offset_frames - labelled.offset_frames).abs().mean()
        for name in ("oracle", "correlation")
    ]
    assert error[0] < 0.1 * error[1]
