"""What a training of a row is."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from mvpose.errors import FormatError
from mvpose.sync.train.rows import ROWS, Row
from mvpose.sync.train.scenes import Recipe
from mvpose.training.config import Plan, check_keys, check_plan, check_types, is_number, nearest, read_values


@dataclass(frozen=True, kw_only=True)
class Training(Plan):
    """What is trained, on what, for how long.

    Attributes:
        row: Name of network, loss and optimiser.
        clips: Pairs of clips to train on, all processes together.
        batch: Pairs in a batch of one process.
        recipes: Weights, and what a batch is drawn from with that weight.
        val_clips: Pairs to validate on; the same ones in every training with these recipes and this batch.
    """

    row: str
    clips: int
    batch: int
    recipes: tuple[tuple[float, Recipe], ...]
    val_clips: int = 2048

    @property
    def network(self) -> Row:
        """The row: one of ``ROWS``, unless a kind of training has rows of its own."""
        return ROWS[self.row]

    def course(self) -> dict[str, Any]:
        """Return, as text and numbers, all that decides what the weights become; a resumed training must not differ."""
        return {**self.values(), "recipes": [[weight, _changed(recipe)] for weight, recipe in self.recipes]}


def _changed(recipe: Recipe) -> dict[str, Any]:
    """Return what a recipe has other than by default."""
    plain = Recipe()
    values = {f.name: getattr(recipe, f.name) for f in fields(recipe)}
    return {
        k: list(v) if isinstance(v, tuple) else v for k, v in values.items() if v != getattr(plain, k) and k in _RECIPE
    }


# The models of detector and occlusion are measured, not chosen by a config.
_RECIPE = tuple(f.name for f in fields(Recipe) if f.name not in ("detector", "occlusion"))


def read_training(path: Path, options: Sequence[str] = (), seed: int | None = None) -> Training:
    """Read a config file, put options over it and check all; ``training.config`` says more.

    Raises:
        FormatError: The file cannot be read, a key or a name is not known, or a value is impossible.
    """
    values = read_values(path, options, seed)
    check_keys(values, [*Training.__annotations__, *Plan.__annotations__], path)
    for key in ("row", "clips", "batch", "recipes"):
        if key not in values:
            raise FormatError(f"{path} gives no {key}")
    training = Training(**{**values, "recipes": _recipes(values["recipes"], path)})
    check_types(training, path, ("recipes",))
    _check_values(training, path)
    return training


def _recipes(found: object, path: Path) -> tuple[tuple[float, Recipe], ...]:
    """Turn ``[(weight, {field: value}), …]`` into recipes."""
    recipes = []
    for entry in found if isinstance(found, list | tuple) else ():
        if not (isinstance(entry, list | tuple) and len(entry) == 2 and isinstance(entry[1], dict)):
            break
        weight, values = entry
        if not is_number(weight) or weight <= 0:
            raise FormatError(f"{path}: a recipe's weight is {weight!r}, not a number above 0")
        check_keys(values, _RECIPE, f"{path}: a recipe")
        typed: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in values.items()}
        recipe = Recipe(**typed)
        check_types(recipe, f"{path}: a recipe", ("detector", "occlusion"))
        _check_recipe(recipe, f"{path}: a recipe")
        recipes.append((float(weight), recipe))
    if not isinstance(found, list | tuple) or not recipes or len(recipes) < len(found):
        raise FormatError(f"{path}: recipes is not a list of (weight, dict(…)), such as [(1.0, dict(fps=30.0))]")
    return tuple(recipes)


def _check_recipe(recipe: Recipe, where: str) -> None:
    """Refuse what no pair can be drawn from."""
    shares = all(
        0 <= share <= 1 for share in (recipe.wild, recipe.unrelated, recipe.absent, recipe.cropped, recipe.stranger)
    )
    ranges = 0 <= recipe.noise[0] <= recipe.noise[1] and 0 < recipe.speed[0] <= recipe.speed[1]
    times = recipe.fps > 0 and (recipe.span_s is None or recipe.span_s > 0)
    for right, what in (
        (recipe.frames >= 2 and recipe.whole_frames >= 0, "frames below 2, or whole_frames below 0"),
        (times, "fps or span_s that is not above 0"),
        (shares, "wild, unrelated, absent, cropped or stranger that is not within 0 … 1"),
        (ranges, "noise or speed that is not (low, high), or negative"),
    ):
        if not right:
            raise FormatError(f"{where} has {what}")


def _check_values(training: Training, path: Path) -> None:
    if training.row not in ROWS:
        raise FormatError(f"{path}: there is no row {training.row!r}{nearest(training.row, ROWS)}")
    check_plan(training, path)
    for key in ("batch", "val_clips"):
        if getattr(training, key) < 1:
            raise FormatError(f"{path}: {key} is {getattr(training, key)}, not above 0")
    if training.clips < training.batch:
        raise FormatError(f"{path}: clips is {training.clips}, less than a batch of {training.batch}")
    for _, recipe in training.recipes:
        if recipe.unrelated and training.batch < 2:
            raise FormatError(f"{path}: a batch of 1 holds nobody else for unrelated pairs")
