"""What a training of VoxelPose is."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from mvpose.errors import FormatError
from mvpose.recon.voxelpose.model import MAX_CUBE_CELLS, MAX_WIDTH
from mvpose.recon.voxelpose.train.scenes import Recipe
from mvpose.training.config import Plan, check_keys, check_plan, check_types, read_values

_KINDS = ("planes", "cubes")
# The models of detector and occlusion are measured, not chosen by a config.
_RECIPE = tuple(f.name for f in fields(Recipe) if f.name not in ("detector", "occlusion"))


@dataclass(frozen=True, kw_only=True)
class Training(Plan):
    """What is trained, on what, for how long.

    Attributes:
        voxelpose: ``planes`` or ``cubes``, which ``VoxelPose`` describes.
        width: Channels of its networks.
        cube_cells: Voxels along a person's cube.
        scenes: Rooms to train on, all processes together.
        batch: Rooms in a batch of one process, before one rig.
        people: Of a batch, at most so many are posed.
        part: Cells along the part of a room that is looked at.
        recipe: What scenes are drawn from.
        begin: A file of weights to begin with, or ``shipped``: those that ship, trained further on one's own rig.
        val_scenes: Rooms to validate on, of other rigs and other people.
    """

    voxelpose: str
    scenes: int
    recipe: Recipe
    begin: str | None = None
    width: int = 32
    cube_cells: int = 64
    batch: int = 4
    people: int = 8
    part: int = 48
    val_scenes: int = 64

    def course(self) -> dict[str, Any]:
        """Return, as text and numbers, all that decides what the weights become; a resumed training must not differ."""
        values = {name: getattr(self.recipe, name) for name in _RECIPE}
        plain = {k: list(v) if isinstance(v, tuple) else v for k, v in values.items()}
        return {**self.values(), "recipe": plain}


def read_training(path: Path, options: Sequence[str] = (), seed: int | None = None) -> Training:
    """Read a config file, put options over it and check all; ``training.config`` says more.

    Raises:
        FormatError: The file cannot be read, a key is not known, or a value is impossible.
    """
    values = read_values(path, options, seed)
    check_keys(values, [*Training.__annotations__, *Plan.__annotations__], path)
    for key in ("voxelpose", "scenes"):
        if key not in values:
            raise FormatError(f"{path} gives no {key}")
    training = Training(**{**values, "recipe": _recipe(values.get("recipe", {}), path)})
    check_types(training, path, ("recipe",))
    check_plan(training, path)
    _check_values(training, path)
    return training


def _recipe(found: object, path: Path) -> Recipe:
    if not isinstance(found, dict):
        raise FormatError(f"{path}: recipe is not a dict(…), such as dict(people=(1, 4))")
    check_keys(found, _RECIPE, f"{path}: recipe")
    typed: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in found.items()}
    recipe = Recipe(**typed)
    check_types(recipe, f"{path}: recipe", ("detector", "occlusion"))
    shares = all(0 <= share <= 1 for share in (recipe.missing_person, recipe.absent, recipe.crowded))
    ranges = all(0 <= low <= high for low, high in (recipe.noise, recipe.people, recipe.stature))
    for right, what in (
        (2 <= recipe.cameras[0] <= recipe.cameras[1], "cameras that are not (low, high), at least 2"),
        (ranges and recipe.people[1] > 0 and recipe.stature[0] > 0, "noise, people or stature that is not (low, high)"),
        (shares, "missing_person, absent or crowded that is not within 0 … 1"),
        (min(recipe.false_people, recipe.desync_s, recipe.jitter_m) >= 0, "a negative number"),
    ):
        if not right:
            raise FormatError(f"{path}: recipe has {what}")
    return recipe


def _check_values(training: Training, path: Path) -> None:
    if training.voxelpose not in _KINDS:
        raise FormatError(f"{path}: voxelpose is {training.voxelpose!r}, not one of {', '.join(_KINDS)}")
    for key in ("batch", "people", "val_scenes", "scenes"):
        if getattr(training, key) < 1:
            raise FormatError(f"{path}: {key} is {getattr(training, key)}, not above 0")
    for key in ("cube_cells", "part"):
        if getattr(training, key) < 8 or getattr(training, key) % 4:
            raise FormatError(f"{path}: {key} is {getattr(training, key)}, not a multiple of 4 above 4")
    if training.cube_cells > MAX_CUBE_CELLS:
        raise FormatError(f"{path}: cube_cells is {training.cube_cells}, above {MAX_CUBE_CELLS}")
    if not 8 <= training.width <= MAX_WIDTH or training.width % 2:
        raise FormatError(f"{path}: width is {training.width}, not an even number of 8 to {MAX_WIDTH}")
