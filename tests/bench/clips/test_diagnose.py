import torch

from mvpose.bench.clips.compare import Plan, compare_rows
from mvpose.bench.clips.diagnose import by_bins
from mvpose.bench.clips.rows import ROWS
from mvpose.bench.clips.tables import format_diagnosis
from mvpose.training.weights import save_weights


def quiet(what, done, total):
    pass


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
    monkeypatch.setattr("mvpose.bench.clips.diagnose._DIAGNOSING", 32)
    weights = []
    for seed in ("seed0", "seed1"):  # as trainings write them: files of one name
        weights.append(("insynformer-hxe", tmp_path / seed / "insynformer-hxe.safetensors"))
        weights[-1][1].parent.mkdir()
        save_weights(ROWS["insynformer-hxe"].row.build(), weights[-1][1], {})
    plan = Plan(folder, tmp_path, rows=("oracle",), pairs=128, weights=tuple(weights), diagnose=True)
    *_, noise, length = compare_rows(plan, quiet).diagnoses
    network, _, oracle = length.mean_frames
    assert length.bins == ("5", "10", "20") and length.mean_frames[network][1:] == (None, None)
    assert all(mean < 0.5 for mean in length.mean_frames[oracle])
    assert noise.median_frames[oracle][0] < noise.median_frames[oracle][2]
