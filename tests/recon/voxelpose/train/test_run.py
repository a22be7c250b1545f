"""Training VoxelPose: losses that are least at the truth, a course that resumes, configs that are checked."""

from pathlib import Path

import numpy as np
import pytest
import torch
from mmengine.fileio import LocalBackend

from mvpose.calib.files import write_rig
from mvpose.errors import FormatError, WorkspaceError
from mvpose.recon.voxelpose.fuse import load_voxelpose
from mvpose.recon.voxelpose.train.config import read_training
from mvpose.recon.voxelpose.train.losses import _gaussians, _marked_error
from mvpose.recon.voxelpose.train.run import _VoxelPoseJob, run_config
from mvpose.skeleton import CLIP_SKELETON
from mvpose.synthetic.motion import CMU21, generate_motion
from mvpose.synthetic.rigs import ring_rig
from mvpose.training.folder import MotionFolder
from mvpose.training.weights import read_metadata

CONFIGS = Path(__file__).parents[4] / "configs" / "voxelpose"
TINY = ["scenes=4", "batch=2", "people=2", "part=16", "cube_cells=8", "width=8", "val_scenes=2", "threads=1"]
TINY += ["checkpoint_every=1", "log_every=1", "autocast=none", "half=False"]


@pytest.fixture(scope="module")
def motion(tmp_path_factory):
    folder = tmp_path_factory.mktemp("motion")
    for split, seed in (("train", 1), ("val", 2)):
        xyz = generate_motion(np.random.default_rng(seed), 6.0).xyz_m[:, 0].astype("f4")
        np.savez(folder / f"small_{split}.npz", joint_names=np.array(CMU21.joint_names), **{f"{split}_1": xyz})
    (folder / "index.csv").write_text("clip_id,fps\ntrain_1,60\nval_1,60\n", encoding="utf-8")
    return folder


def silent(what, done, total):
    """Report to nobody."""


def until(last):
    def progress(what, done, total):
        if done == last:
            raise KeyboardInterrupt

    return progress


def same_weights(one, two):
    states = [load_voxelpose(path).state_dict().values() for path in (one, two)]
    return all(torch.equal(a, b) for a, b in zip(*states, strict=True))


@pytest.mark.parametrize("name", ["planes", "planes_published", "voxelpose"])
def test_the_configs_that_ship_can_be_read(name):
    training = read_training(CONFIGS / f"{name}.py")
    assert training.recipe.cameras == (2, 10)
    assert training.voxelpose == ("cubes" if name == "voxelpose" else "planes")


@pytest.mark.parametrize("kind", ["planes", "cubes"])
def test_a_training_that_was_interrupted_ends_as_one_that_was_not(kind, motion, tmp_path):
    options = [*TINY, f"voxelpose={kind}"]
    whole, figures = run_config(CONFIGS / "planes.py", motion, tmp_path / "whole", silent, options=options)
    with pytest.raises(KeyboardInterrupt):
        run_config(CONFIGS / "planes.py", motion, tmp_path / "parts", until(1), options=options)
    parts, again = run_config(CONFIGS / "planes.py", motion, tmp_path / "parts", silent, options=options, resume=True)
    assert load_voxelpose(whole).finder.kind == kind
    assert same_weights(whole, parts)
    assert figures == again
    assert np.isfinite(figures.loss)
    assert 0 <= figures.recall <= 1


def test_a_training_in_parts_ends_as_one_in_one_go(motion, tmp_path, caplog):
    whole, _ = run_config(CONFIGS / "planes.py", motion, tmp_path / "whole", silent, options=TINY)
    short = [*TINY, "minutes=1e-6"]
    assert run_config(CONFIGS / "planes.py", motion, tmp_path / "parts", silent, options=short) is None
    assert "voxelpose was trained for 1 of 2 iterations; go on with --resume" in caplog.text
    assert not (tmp_path / "parts" / "voxelpose.safetensors").exists()
    assert "val" not in "".join(record.getMessage() for record in caplog.records)
    parts, _ = run_config(CONFIGS / "planes.py", motion, tmp_path / "parts", silent, options=short, resume=True)
    assert "minutes" not in read_metadata(parts)["command"]
    assert same_weights(whole, parts)


def test_a_network_can_be_trained_on_ones_own_rig(motion, tmp_path):
    calib = tmp_path / "calib.json"
    write_rig(ring_rig(3), calib)
    options = [*TINY, f"recipe={{'rig': {str(calib)!r}}}", "checkpoint_every=1"]
    path, _ = run_config(CONFIGS / "planes.py", motion, tmp_path / "work", silent, options=options)
    assert path.name == "voxelpose.safetensors"
    job = _VoxelPoseJob(read_training(CONFIGS / "planes.py", options), MotionFolder(motion), "")
    assert all(batch.stage.rig.names == ring_rig(3).names for batch in map(job.batches(0, 2, 0).lay_out, range(2)))
    write_rig(ring_rig(4), calib)
    with pytest.raises(WorkspaceError, match="is of a training with rig"):
        run_config(CONFIGS / "planes.py", motion, tmp_path / "work", silent, options=options, resume=True)


def test_nobody_to_validate_on_is_said_before_anything_is_done(motion, tmp_path):
    nobody = [*TINY, "recipe={'missing_person': 1.0}"]
    with pytest.raises(FormatError, match="nobody is seen by two cameras in the 2 rooms to validate on"):
        run_config(CONFIGS / "planes.py", motion, tmp_path, silent, options=nobody)


def test_a_checkpoint_that_could_not_be_written_leaves_the_one_before(motion, tmp_path, monkeypatch):
    """The disk is full, or the process is killed, within the second of two."""
    whole, _ = run_config(CONFIGS / "planes.py", motion, tmp_path / "whole", silent, options=TINY)
    put, written = LocalBackend.put, []

    def full(self, obj, path):
        if str(path).endswith("iter_2.pth"):
            Path(path).write_bytes(bytes(obj)[:100])
            raise OSError(28, "No space left on device")
        written.append(path)
        put(self, obj, path)

    with monkeypatch.context() as patch, pytest.raises(WorkspaceError, match="No space left"):
        patch.setattr(LocalBackend, "put", full)
        run_config(CONFIGS / "planes.py", motion, tmp_path / "parts", silent, options=TINY)
    assert written
    parts, _ = run_config(CONFIGS / "planes.py", motion, tmp_path / "parts", silent, options=TINY, resume=True)
    assert same_weights(whole, parts)


@pytest.mark.parametrize("kind", ["planes", "cubes"])
def test_scenes_are_drawn_and_learned_from_where_the_network_is(kind, motion, elsewhere):
    """A GPU that is not there: no tensor stays behind or is made on the CPU, and all numbers are the CPU's."""
    people = "recipe={'people': (2, 2), 'missing_person': 0.0, 'cameras': (4, 4)}"
    training = read_training(CONFIGS / "planes.py", [*TINY, "part=80", f"voxelpose={kind}", people])
    job = _VoxelPoseJob(training, MotionFolder(motion), "")
    batch = job.batches(0, 2, 0).lay_out(1)
    network = job.build()
    torch.manual_seed(0)
    near, figures = job.loss(network, batch), job.evaluate(network)
    device = elsewhere.enter(network)
    bank = job.bank.to(device)
    elsewhere.brought.clear()
    scenes = batch.drawn(bank, training.recipe, 2)
    assert scenes.maps.device == scenes.xyz_m.device == device
    assert scenes.there.any()
    assert elsewhere.fetched == []
    assert elsewhere.brought == [x.shape for x in (batch.stage.views.P, batch.stage.views.size)] + [(4,)]  # the rig's
    torch.manual_seed(0)
    far = job.loss(network, batch)
    far.backward()
    assert far.device == device
    assert far.item() == near.item()
    assert all(parameter.grad.device == device for parameter in network.parameters())
    assert job.evaluate(network) == figures


@pytest.mark.parametrize(
    ("option", "why"),
    [
        ("voxelpose=cones", "voxelpose is 'cones', not one of planes, cubes"),
        ("cube_cells=42", "cube_cells is 42, not a multiple of 4"),
        ("scenes=0", "scenes is 0, not above 0"),
        ("width=7", "width is 7, not an even number"),
        ("width=130", "width is 130, not an even number of 8 to 128"),
        ("cube_cells=132", "cube_cells is 132, above 128"),
        ("scene=3", "there is no 'scene'; did you mean 'scenes'"),
        ("recipe={'camera': (2, 3)}", "recipe: there is no 'camera'; did you mean 'cameras'"),
        ("recipe={'cameras': (1, 3)}", "cameras that are not"),
        ("recipe={'people': (2, 0)}", "noise, people or stature"),
        ("recipe={'missing_person': 2.0}", "missing_person, absent or crowded"),
        ("recipe=3", "recipe is not a dict"),
        ("warm_up=2.0", "warm_up is 2.0, not within 0"),
    ],
)
def test_wrong_values_are_named(option, why):
    with pytest.raises(FormatError, match=why):
        read_training(CONFIGS / "planes.py", [option])


def test_the_maps_to_be_found_are_gaussians_round_roots():
    volume = torch.zeros(1, len(CLIP_SKELETON), 12, 10, 8)
    root = torch.tensor([[[3.0, 4.0, 2.0], [8.5, 4.0, 5.0]]])
    drawn = _gaussians(root, torch.tensor([[True, True]]), volume, 2.0)
    assert drawn.shape == (1, 12, 10, 8)
    assert float(drawn[0, 3, 4, 2]) == pytest.approx(1)
    assert float(drawn[0, 5, 4, 2]) == pytest.approx(np.exp(-0.5), abs=1e-5)
    alone = _gaussians(root, torch.tensor([[True, False]]), volume, 2.0)
    assert float(alone[0, 8, 4, 5]) < 0.05
    flat = _gaussians(root[..., :2], torch.tensor([[False, False]]), volume[..., 0], 2.0)
    assert float(flat.max()) == 0
    assert float(_marked_error(drawn, drawn)) == 0
    assert float(_marked_error(drawn * 0, drawn)) > float(_marked_error(drawn + 0.01, drawn)) > 0
