import json
import os
import re
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from mvpose.errors import FormatError, MvposeError, WorkspaceError
from mvpose.sync.clips import Decision
from mvpose.sync.train.config import Training, read_training
from mvpose.sync.train.dataset import Batch, Batches
from mvpose.sync.train.rows import ROWS, Row
from mvpose.sync.train.run import evaluate, run_config, train
from mvpose.sync.train.scenes import IFID, Recipe
from mvpose.training.folder import MotionFolder
from mvpose.training.weights import load_weights

CONFIGS = Path(__file__).parents[3] / "configs" / "sync"
SMALL = Training(
    row="insynformer", clips=48, batch=4, recipes=((1.0, IFID),), val_clips=8, checkpoint_every=5, log_every=1,
    threads=1,
)  # fmt: skip


def silent(what, done, total):
    """Report to nobody."""


def until(last):
    """Interrupt the training after so many iterations, as ctrl+c would."""

    def progress(what, done, total):
        if done == last:
            raise KeyboardInterrupt

    return progress


def weights(training, path):
    network = training.network.build()
    metadata = load_weights(network, path)
    return network.state_dict(), metadata


def same(a, b):
    return all(torch.equal(a[name], b[name]) for name in a)


@pytest.fixture(scope="module")
def trained(motion, tmp_path_factory):
    """A training that was never interrupted."""
    folder = tmp_path_factory.mktemp("trained")
    path, figures = train(SMALL, MotionFolder(motion), folder, silent)
    return folder, path, figures


def scalars(folder, key):
    lines = next(folder.glob("*/vis_data/scalars.json")).read_text(encoding="utf-8").splitlines()
    return [value[key] for value in map(json.loads, lines) if key in value]


# The course of a training.


def test_a_training_writes_weights_that_say_how_they_were_made(trained):
    folder, path, figures = trained
    assert path == folder / "insynformer.safetensors"
    _, metadata = weights(SMALL, path)
    assert metadata["row"] == "insynformer"
    assert metadata["clips"] == 48
    assert metadata["training"]["seed"] == 0
    assert metadata["training"]["recipes"] == [[1.0, {}]]
    assert re.fullmatch("[0-9a-f]{16}", metadata["data"])
    assert metadata["val"]["loss"] == pytest.approx(figures.loss, abs=1e-5)
    assert str(folder) not in json.dumps(metadata)
    assert len(list(folder.glob("*/vis_data/events.out.tfevents.*"))) == 1


def test_the_last_two_checkpoints_are_kept_and_hold_no_objects(trained):
    folder = trained[0]
    assert sorted(path.name for path in folder.glob("*.pth")) == ["iter_10.pth", "iter_12.pth"]
    assert (folder / "last_checkpoint").read_text(encoding="utf-8").endswith("iter_12.pth")
    checkpoint = torch.load(folder / "iter_12.pth", weights_only=True)
    state, _ = weights(SMALL, trained[1])
    assert same(state, {k.removeprefix("network."): v for k, v in checkpoint["state_dict"].items()})


def test_a_resumed_training_ends_with_the_same_weights_bit_by_bit(motion, trained, tmp_path):
    with pytest.raises(KeyboardInterrupt):
        train(SMALL, MotionFolder(motion), tmp_path, until(8))
    assert [path.name for path in tmp_path.glob("*.pth")] == ["iter_5.pth"]
    path, figures = train(SMALL, MotionFolder(motion), tmp_path, silent, resume=True)
    assert same(weights(SMALL, path)[0], weights(SMALL, trained[1])[0])
    assert figures == trained[2]


def test_a_moved_folder_resumes_and_a_finished_training_has_nothing_left_to_do(motion, trained, tmp_path):
    moved = tmp_path / "elsewhere"
    moved.mkdir()
    (moved / "iter_12.pth").write_bytes((trained[0] / "iter_12.pth").read_bytes())
    (moved / "last_checkpoint").write_text(str(tmp_path / "before" / "iter_12.pth"), encoding="utf-8")
    path, figures = train(SMALL, MotionFolder(motion), moved, silent, resume=True)
    assert same(weights(SMALL, path)[0], weights(SMALL, trained[1])[0])
    assert figures == trained[2]


def test_resume_without_a_checkpoint_begins(motion, trained, tmp_path):
    path, _ = train(SMALL, MotionFolder(motion), tmp_path, silent, resume=True)
    assert same(weights(SMALL, path)[0], weights(SMALL, trained[1])[0])


def test_the_seed_decides(motion, trained, tmp_path):
    other = replace(SMALL, seed=1)
    path, _ = train(other, MotionFolder(motion), tmp_path, silent)
    assert not same(weights(SMALL, path)[0], weights(SMALL, trained[1])[0])


def test_batches_from_other_processes_are_the_same(motion, trained, tmp_path):
    path, _ = train(replace(SMALL, workers=1), MotionFolder(motion), tmp_path, silent)
    assert same(weights(SMALL, path)[0], weights(SMALL, trained[1])[0])


def test_the_rate_rises_and_falls_as_it_should(motion, tmp_path):
    training = replace(SMALL, clips=160, learning_rate=2e-3, warm_up=0.25, last_rate=0.1, checkpoint_every=100)
    train(training, MotionFolder(motion), tmp_path, silent)
    rate = np.array(scalars(tmp_path, "lr"))
    assert len(rate) == 40
    assert rate[0] == pytest.approx(2e-5)
    assert (np.diff(rate[:10]) > 0).all()
    assert rate.max() == pytest.approx(2e-3, rel=1e-6)
    assert (np.diff(rate[10:]) < 0).all()
    assert rate[25] == pytest.approx(2e-4 + 1.8e-3 / 2, rel=0.01)  # half-way down a cosine
    assert rate[-1] == pytest.approx(2e-4, rel=0.1)


@pytest.mark.parametrize("clips", [4, 8, 80])
def test_a_short_training_is_at_its_full_rate_too(motion, tmp_path, clips):
    train(replace(SMALL, clips=clips, learning_rate=1e-3), MotionFolder(motion), tmp_path, silent)
    assert max(scalars(tmp_path, "lr")) == pytest.approx(1e-3, rel=1e-6)


def test_the_runner_does_what_a_few_lines_of_torch_do(motion, tmp_path):
    training = replace(SMALL, clips=16, learning_rate=1e-2, warm_up=0.0, last_rate=0.2, clip_grad=0.05)
    path, _ = train(training, MotionFolder(motion), tmp_path, silent)

    batches = Batches(MotionFolder(motion).bank("train"), [(1.0, IFID)], 4, 4, (0, 0))
    torch.manual_seed(0)
    network = training.network.build()
    optimizer = training.network.optimizer_of(network)
    for i in range(4):
        optimizer.param_groups[0]["lr"] = 2e-3 + 8e-3 * (1 + np.cos(np.pi * i / 4)) / 2
        batch = batches.draw(i)
        optimizer.zero_grad()
        training.network.loss(network(batch.pairs), batch.offset_frames).backward()
        norm = nn.utils.clip_grad_norm_(network.parameters(), 0.05)
        assert norm > 0.05
        optimizer.step()
    state = weights(training, path)[0]
    for name, value in network.state_dict().items():
        # Adam divides by the gradient's size, so the rate's last digits are seen, and hardly more.
        assert torch.allclose(state[name], value, atol=1e-5), name


def test_half_precision_in_training_leaves_whole_weights(motion, trained, tmp_path):
    path, figures = train(replace(SMALL, autocast="bf16"), MotionFolder(motion), tmp_path, silent)
    state, exact = weights(SMALL, path)[0], weights(SMALL, trained[1])[0]
    apart = max(float((state[name] - exact[name]).abs().max()) for name in state)
    assert 0 < apart < 0.02
    assert figures.loss == pytest.approx(trained[2].loss, rel=0.01)


def test_a_training_that_diverges_is_stopped(motion, tmp_path):
    with pytest.raises(MvposeError, match=r"insynformer has diverged within \d+ iterations; lower learning_rate"):
        train(replace(SMALL, learning_rate=1e30, clip_grad=1e30), MotionFolder(motion), tmp_path, silent)
    assert list(tmp_path.glob("*.safetensors")) == []


# What is refused.


def test_a_folder_that_holds_a_training_is_not_written_over(motion, trained):
    with pytest.raises(WorkspaceError, match="holds a training; go on with --resume, or choose another --work-dir"):
        train(SMALL, MotionFolder(motion), trained[0], silent)


def test_a_training_resumes_with_its_own_values_only(motion, trained):
    with pytest.raises(WorkspaceError, match="with batch 4, not 8"):
        train(replace(SMALL, batch=8), MotionFolder(motion), trained[0], silent, resume=True)
    with pytest.raises(WorkspaceError, match=r"with recipes \[\[1.0, {}\]\], not \[\[1.0, {'mirror': True}\]\]"):
        train(
            replace(SMALL, recipes=((1.0, Recipe(mirror=True)),)), MotionFolder(motion), trained[0], silent, resume=True
        )
    train(replace(SMALL, log_every=3, workers=0), MotionFolder(motion), trained[0], silent, resume=True)


@dataclass(frozen=True)
class Bomb:
    """Runs when it is unpickled."""

    path: str

    def __reduce__(self):
        return os.mkdir, (self.path,)


def test_a_checkpoint_is_never_unpickled(motion, tmp_path):
    (tmp_path / "last_checkpoint").write_text("iter_5.pth", encoding="utf-8")
    path = tmp_path / "iter_5.pth"
    torch.save({"meta": {"iter": 5}, "course": Bomb(str(tmp_path / "exploded"))}, path)
    for content in (path.read_bytes(), path.read_bytes()[:100], b"", b"some text"):
        path.write_bytes(content)
        with pytest.raises(FormatError, match=r"iter_5\.pth is not a checkpoint of mvpose train .*anew"):
            train(SMALL, MotionFolder(motion), tmp_path, silent, resume=True)
    path.unlink()
    with pytest.raises(FormatError, match="No such file"):
        train(SMALL, MotionFolder(motion), tmp_path, silent, resume=True)
    assert not (tmp_path / "exploded").exists()


def test_motions_too_short_for_a_recipe(motion, tmp_path):
    training = replace(SMALL, recipes=((1.0, IFID), (1.0, Recipe(frames=200))))
    with pytest.raises(FormatError, match=r"train: no motion lasts 20\.\d s, .*; choose shorter recipes"):
        train(training, MotionFolder(motion), tmp_path, silent)


def test_a_launcher_that_did_not_launch(motion, tmp_path, monkeypatch):
    monkeypatch.delenv("RANK", raising=False)
    with pytest.raises(MvposeError, match="torchrun"):
        train(SMALL, MotionFolder(motion), tmp_path, silent, launcher="pytorch")


# Data.


def test_a_batch_is_the_same_whoever_asks_for_it_and_no_two_are_alike(motion):
    bank = MotionFolder(motion).bank("train")
    make = lambda *stream: Batches(bank, [(1.0, IFID)], 3, 9, stream)  # noqa: E731
    one, other = make(0, 0), make(0, 0)
    for index in (4, 1, 4):
        a, b = one.draw(index), other.draw(index)
        assert torch.equal(a.offset_frames, b.offset_frames)
        assert torch.equal(a.pairs.xy.nan_to_num(-1), b.pairs.xy.nan_to_num(-1))
    offsets = [make(*stream).draw(index).offset_frames for stream in ((0, 0), (0, 1), (1, 0)) for index in (0, 1)]
    assert len({tuple(o.tolist()) for o in offsets}) == 6


def test_what_a_resumed_training_passes_over_is_not_drawn(motion):
    batches = Batches(MotionFolder(motion).bank("train"), [(1.0, IFID)], 3, 9, (0, 0), first=2)
    assert [len(batches[i]) for i in range(4)] == [0, 0, 1, 1]


def test_recipes_are_drawn_by_their_weights(motion):
    recipes = [(3.0, IFID), (1.0, Recipe(frames=7))]
    batches = Batches(MotionFolder(motion).bank("train"), recipes, 1, 200, (0, 0))
    frames = [batches.draw(i).pairs.xy.shape[2] for i in range(200)]
    assert set(frames) == {5, 7}
    assert 30 < frames.count(7) < 70  # 50 ± 6


BONES = [
    ("Spine", "Hips", (0, 0.1, 0)), ("Spine1", "Spine", (0, 0.25, 0)),
    ("Neck", "Spine1", (0, 0.15, 0)), ("Head", "Neck", (0, 0.09, 0)),
    *(
        (f"{side}{joint}", parent if parent in ("Hips", "Spine1") else f"{side}{parent}", (sign * x, y, z))
        for side, sign in (("Left", 1), ("Right", -1))
        for joint, parent, (x, y, z) in (
            ("UpLeg", "Hips", (0.09, -0.05, 0)), ("Leg", "UpLeg", (0, -0.42, 0)), ("Foot", "Leg", (0, -0.42, 0)),
            ("ToeBase", "Foot", (0, -0.05, 0.15)), ("Shoulder", "Spine1", (0.03, 0.14, 0)),
            ("Arm", "Shoulder", (0.16, 0, 0)), ("ForeArm", "Arm", (0.29, 0, 0)), ("Hand", "ForeArm", (0.25, 0, 0)),
        )
    ),
]  # fmt: skip


def write_bvh(path, frames):
    """Write a person in a T-pose who slides along, in metres, Y up, 30 frames a second."""

    def joint(name, offset, channels="CHANNELS 3 Zrotation Xrotation Yrotation"):
        below = [joint(child, o) for child, parent, o in BONES if parent == name]
        ends = "End Site\n{\nOFFSET 0 0.1 0\n}\n"
        word = "ROOT" if name == "Hips" else "JOINT"
        place = " ".join(map(str, offset))
        return f"{word} {name}\n{{\nOFFSET {place}\n{channels}\n{''.join(below) or ends}}}\n"

    root = joint("Hips", (0, 0, 0), "CHANNELS 6 Xposition Yposition Zposition Zrotation Xrotation Yrotation")
    rows = [" ".join(map(str, [0.01 * i, 0.95, 0.0] + [0.0] * 3 * (len(BONES) + 1))) for i in range(frames)]
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(
        "\n".join([f"HIERARCHY\n{root}MOTION\nFrames: {frames}\nFrame Time: 0.0333333", *rows]), encoding="utf-8"
    )


def lengths(folder, split):
    return sorted(len(motion.time_s) for motion in MotionFolder(folder).motions(split))


def test_bvh_files_are_split_by_their_subfolders(tmp_path):
    for frames, name in ((30, "train/a"), (40, "train/deep/b"), (50, "val/a")):
        write_bvh(tmp_path / f"{name}.bvh", frames)
    assert lengths(tmp_path, "train") == [30, 40]
    assert lengths(tmp_path, "val") == [50]


@pytest.mark.parametrize("part", ["train", "val", "test"])
def test_what_lies_in_one_split_is_in_no_other(tmp_path, part):
    for number in range(30):
        write_bvh(tmp_path / part / f"walk_{number:02}.bvh", 30)
    for other in {"train", "val"} - {part}:
        with pytest.raises(FormatError, match=rf"no motion to learn from for {other}: .* in {other} if there are"):
            MotionFolder(tmp_path).motions(other)


def test_bvh_files_of_one_folder_are_split_by_their_names_for_good(tmp_path):
    for number in range(30):
        write_bvh(tmp_path / f"walk_{number:02}.BVH", 30 + number)
    val = lengths(tmp_path, "val")
    assert 1 <= len(val) <= 8
    assert sorted(val + lengths(tmp_path, "train")) == list(range(30, 60))
    for number in range(30, 40):
        write_bvh(tmp_path / f"walk_{number:02}.bvh", 30 + number)
    assert set(val) <= set(lengths(tmp_path, "val"))


def test_motions_that_are_not_finite_are_refused(motion, tmp_path):
    for path in motion.iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    with np.load(tmp_path / "small_train.npz") as file:
        arrays = dict(file)
    arrays["train_1"][5, 3] = np.nan
    np.savez(tmp_path / "small_train.npz", **arrays)
    with pytest.raises(FormatError, match="clip train_1 holds places that are not finite"):
        MotionFolder(tmp_path).bank("train")


@pytest.mark.parametrize("split", ["train", "val"])
def test_a_folder_without_motion_says_what_it_needs(tmp_path, split):
    with pytest.raises(FormatError, match=rf"no motion to learn from for {split}: neither \*_{split}\.npz .*--data"):
        MotionFolder(tmp_path / "nowhere").motions(split)


def test_the_digest_changes_with_the_data_and_with_nothing_else(motion, tmp_path):
    for path in motion.iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    before = MotionFolder(motion).digest()
    assert MotionFolder(tmp_path).digest() == before
    with (tmp_path / "small_val.npz").open("ab") as file:
        file.write(b" ")
    assert MotionFolder(tmp_path).digest() != before


# Figures.


class SaysOneOffset(nn.Module):
    """Decides the same offset of every pair, whatever it sees."""

    def __init__(self, offset):
        super().__init__()
        self.offset = nn.Parameter(torch.tensor(offset))

    def forward(self, pairs):
        return self.offset * torch.ones(len(pairs))

    def decide(self, output):
        size = output.abs() + 1e-4
        return Decision(size.long(), (10 * (size % 1)).long(), output)


def distance_from_two(output, offset_frames):
    return (output - 2).abs().mean()


def test_figures_of_a_network_that_always_says_the_same(motion):
    batch = Batches(MotionFolder(motion).bank("val"), [(1.0, IFID)], 4, 1, (0,)).draw(0)
    row = Row("one", "One", lambda: SaysOneOffset(2.3), distance_from_two, 1e-3, torch.optim.SGD)
    truth = torch.tensor([2.3, -2.6, 4.3, float("nan")])
    figures = evaluate(row, row.build(), [Batch(batch.pairs, truth)] * 2)
    assert figures.loss == pytest.approx(0.3, abs=1e-6)
    assert figures.ex_1 == pytest.approx(2 / 3)  # 2, 2 and 4; the unrelated pair is not counted
    assert figures.frame_error == pytest.approx((0.0 + 0.3 + 2.0) / 3, abs=1e-5)
    assert figures.median_frames == pytest.approx(2.0, abs=1e-5)  # of 0, 4.9 and 2


def test_measuring_leaves_a_network_in_training(motion):
    batch = Batches(MotionFolder(motion).bank("val"), [(1.0, IFID)], 4, 1, (0,)).draw(0)
    network = ROWS["insynformer"].build().train()
    before = {name: value.clone() for name, value in network.state_dict().items()}
    evaluate(ROWS["insynformer"], network, [batch])
    assert network.training
    assert same(before, network.state_dict())


# Configs.


@pytest.mark.parametrize("path", sorted(CONFIGS.glob("*.py")), ids=lambda path: path.stem)
def test_every_config_can_be_read(path):
    assert read_training(path).row in ROWS


def test_there_is_a_config_for_every_row():
    assert sorted(read_training(path).row for path in CONFIGS.glob("*.py")) == sorted(ROWS)


@pytest.fixture
def config(tmp_path):
    path = tmp_path / "small.py"
    path.write_text(
        "row = 'insynformer'\nclips = 8\nbatch = 4\nrecipes = [(1, dict(fps=20, noise=[0.5, 1]))]\n",
        encoding="utf-8",
    )
    return path


def test_options_stand_over_the_config(config):
    training = read_training(
        config, ["clips=12_000", "row=insynformer-rays", "learning_rate=1e-4", "half=True"], seed=7
    )
    recipes = ((1.0, Recipe(fps=20, noise=(0.5, 1))),)
    assert training == Training(
        row="insynformer-rays", clips=12_000, batch=4, recipes=recipes, learning_rate=1e-4, half=True, seed=7
    )


@pytest.mark.parametrize(
    ("option", "why"),
    [
        ("learning_rat=1", "there is no 'learning_rat'; did you mean 'learning_rate'"),
        ("xyz=1", "there is no 'xyz'; there are row, clips, batch"),
        ("clips", "'clips' is not KEY=VALUE"),
        ("clips=many", "clips is 'many', not int"),
        ("clips=True", "clips is True, not int"),
        ("clips=3", "clips is 3, less than a batch of 4"),
        ("batch=0", "batch is 0, not above 0"),
        ("row=insynforme", "there is no row 'insynforme'; did you mean 'insynformer'"),
        ("autocast=fp8", "autocast is 'fp8', not one of none, bf16"),
        ("learning_rate=-1", "learning_rate is -1, not above 0"),
        ("warm_up=1.5", "warm_up is 1.5, not within 0"),
        ("seed=-1", "seed and workers may not be negative"),
        ("recipes=[]", "recipes is not a list"),
        ("recipes=5", "recipes is not a list"),
        ("recipes=[{}]", "recipes is not a list"),
        ("recipes=[(0, {})]", "weight is 0, not a number above 0"),
        ("recipes=[(1, {'wilde': 1})]", "there is no 'wilde'; did you mean 'wild'"),
        ("recipes=[(1, {'noise': 1})]", "noise is 1, not"),
        ("recipes=[(1, {'fps': '10'})]", "fps is '10', not float"),
        ("recipes=[(1, {'fps': 0})]", "a recipe has fps or span_s that is not above 0"),
        ("recipes=[(1, {'frames': 1})]", "a recipe has frames below 2"),
        (
            "recipes=[(1, {'absent': 1.5})]",
            "a recipe has wild, unrelated, absent, cropped or stranger that is not within 0",
        ),
        ("recipes=[(1, {'speed': [2, 1]})]", "a recipe has noise or speed that is not (low, high)"),
        ("recipes=[(1, {'cropped': -0.1})]", "cropped or stranger that is not within 0"),
    ],
)
def test_wrong_values_are_named(config, option, why):
    with pytest.raises(FormatError, match=re.escape(why)):
        read_training(config, [option])


def test_a_lone_pair_has_nobody_to_be_unrelated_to(config):
    options = ["row=insynformer", "recipes=[(1, {'unrelated': 0.2, 'frames': 10, 'span_s': 0.7})]"]
    assert read_training(config, options).recipes[0][1].unrelated == 0.2
    with pytest.raises(FormatError, match="a batch of 1 holds nobody else"):
        read_training(config, [*options, "batch=1"])


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("clips = 8\nbatch = 4\nrecipes = [(1, {})]", "gives no row"),
        ("row = ", "cannot be read as a config: "),
        ("1 / 0", "cannot be read as a config: ZeroDivisionError"),
        ("_base_ = 'nowhere.py'", "cannot be read as a config: "),
    ],
)
def test_broken_configs(tmp_path, text, why):
    (tmp_path / "c.py").write_text(text, encoding="utf-8")
    with pytest.raises(FormatError, match=why):
        read_training(tmp_path / "c.py")


def test_a_config_that_is_not_there(tmp_path):
    with pytest.raises(FormatError, match=r"c\.py is not there; name a config"):
        read_training(tmp_path / "c.py")


def test_parts_leave_no_checkpoints_behind(motion, tmp_path):
    parts = replace(SMALL, checkpoint_every=2, minutes=1e-6)
    for _ in range(4):
        assert train(parts, MotionFolder(motion), tmp_path, silent, resume=True) is None
    assert sorted(path.name for path in tmp_path.glob("*.pth")) == ["iter_6.pth", "iter_8.pth"]


def test_the_command_in_the_weights_makes_them_again_and_names_no_folder(config, motion, tmp_path):
    path, _ = run_config(config, motion, tmp_path / "w", silent, seed=3, options=["threads=1", "val_clips=4"])
    network = ROWS["insynformer"].build()
    assert load_weights(network, path)["command"] == ("mvpose train small.py --seed 3 --option val_clips=4")
