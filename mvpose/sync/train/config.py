"""What a training is: a config file of mmengine and options over it, checked before anything is done."""

from __future__ import annotations

import ast
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field, fields
from difflib import get_close_matches
from pathlib import Path
from typing import Any, get_type_hints

from mvpose.errors import FormatError
from mvpose.sync.train.rows import ROWS, Row
from mvpose.sync.train.scenes import IFID, Recipe


@dataclass(frozen=True)
class Training:
    """What is trained, on what, for how long.

    Attributes:
        row: Name in ``ROWS``: network, loss and optimiser.
        clips: Pairs of clips to train on, all processes together.
        batch: Pairs in a batch of one process.
        recipes: Weights, and what a batch is drawn from with that weight.
        learning_rate: The highest of the schedule; the row's own if None.
        warm_up: Share of the iterations over which the rate rises from nothing; then it falls by a half cosine.
        last_rate: Where it ends, as a share of the highest.
        clip_grad: Largest norm of a gradient.
        autocast: ``bf16``: matrix products in 16 bits, which some processors do twice as fast; ``none``.
        half: Whether the weights are written in 16 bits.
        seed: Of weights and batches.
        val_clips: Pairs to validate on; the same ones in every training with these recipes and this batch.
        val_every: Iterations between validations.
        checkpoint_every: Iterations between checkpoints, of which the last one is kept.
        log_every: Iterations between lines in the log.
        threads: Of torch; as many as it likes if None.
        workers: Processes that draw batches; with none the training does so itself.
    """

    row: str
    clips: int
    batch: int
    recipes: tuple[tuple[float, Recipe], ...]
    learning_rate: float | None = None
    warm_up: float = 0.05
    last_rate: float = 0.01
    clip_grad: float = 1.0
    autocast: str = "none"
    half: bool = False
    seed: int = 0
    val_clips: int = 2048
    val_every: int = 500
    checkpoint_every: int = field(default=500, metadata={"course": False})
    log_every: int = field(default=100, metadata={"course": False})
    threads: int | None = field(default=None, metadata={"course": False})
    workers: int = field(default=0, metadata={"course": False})

    @property
    def network(self) -> Row:
        """The row of the registry."""
        return ROWS[self.row]

    def course(self) -> dict[str, Any]:
        """Return, as text and numbers, all that decides what the weights become; a resumed training must not differ."""
        values = {f.name: getattr(self, f.name) for f in fields(self) if f.metadata.get("course", True)}
        values["recipes"] = [[weight, _changed(recipe)] for weight, recipe in self.recipes]
        return values


def _changed(recipe: Recipe) -> dict[str, Any]:
    """Return what a recipe has other than by default."""
    plain = Recipe()
    values = {f.name: getattr(recipe, f.name) for f in fields(recipe)}
    return {
        k: list(v) if isinstance(v, tuple) else v for k, v in values.items() if v != getattr(plain, k) and k in _RECIPE
    }


# The models of detector and occlusion are measured, not chosen by a config.
_RECIPE = tuple(f.name for f in fields(Recipe) if f.name not in ("detector", "occlusion"))
_AUTOCASTS = ("none", "bf16")
_LESS_THAN = IFID.whole_frames + 1  # frames; the classes of the paper's networks end there


def read_training(path: Path, options: Sequence[str] = (), seed: int | None = None) -> Training:
    """Read a config file, put options over it and check all.

    Args:
        path: A config file of mmengine, which is Python and is executed.
        options: ``KEY=VALUE``, VALUE being a Python literal or else a text.
        seed: Over that of the config.

    Raises:
        FormatError: The file cannot be read, a key or a name is not known, or a value is impossible.
    """
    values = _read_config(path)
    for option in options:
        key, equals, text = option.partition("=")
        if not equals:
            raise FormatError(f"option {option!r} is not KEY=VALUE")
        values[key] = _literal(text)
    if seed is not None:
        values["seed"] = seed
    _check_keys(values, [f.name for f in fields(Training)], path)
    for key in ("row", "clips", "batch", "recipes"):
        if key not in values:
            raise FormatError(f"{path} gives no {key}")
    training = Training(**{**values, "recipes": _recipes(values["recipes"], path)})
    _check_types(training, path)
    _check_values(training, path)
    return training


def _read_config(path: Path) -> dict[str, Any]:
    from mmengine.config import Config

    if not path.is_file():
        raise FormatError(f"{path} is not there; name a config such as configs/sync/insynformer.py")
    try:
        return Config.fromfile(path).to_dict()
    except Exception as error:  # the file is a program of the user's, and may fail in any way
        raise FormatError(f"{path} cannot be read as a config: {type(error).__name__}: {error}") from error


def _literal(text: str) -> Any:
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError):
        return text


def _check_keys(found: Collection[str], known: Sequence[str], where: object) -> None:
    for key in found:
        if key not in known:
            raise FormatError(f"{where}: there is no {key!r}{_nearest(str(key), known)}")


def _nearest(name: str, known: Collection[str]) -> str:
    """Say which known name was meant, else all of them."""
    near = get_close_matches(name, known, 1)
    return f"; did you mean {near[0]!r}?" if near else f"; there are {', '.join(known)}"


def _recipes(found: object, path: Path) -> tuple[tuple[float, Recipe], ...]:
    """Turn ``[(weight, {field: value}), …]`` into recipes."""
    recipes = []
    for entry in found if isinstance(found, list | tuple) else ():
        if not (isinstance(entry, list | tuple) and len(entry) == 2 and isinstance(entry[1], dict)):
            break
        weight, values = entry
        if not _is_number(weight) or weight <= 0:
            raise FormatError(f"{path}: a recipe's weight is {weight!r}, not a number above 0")
        _check_keys(values, _RECIPE, f"{path}: a recipe")
        typed: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in values.items()}
        recipe = Recipe(**typed)
        _check_types(recipe, f"{path}: a recipe")
        _check_recipe(recipe, f"{path}: a recipe")
        recipes.append((float(weight), recipe))
    if not isinstance(found, list | tuple) or not recipes or len(recipes) < len(found):
        raise FormatError(f"{path}: recipes is not a list of (weight, dict(…)), such as [(1.0, dict(fps=30.0))]")
    return tuple(recipes)


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _check_types(value: Training | Recipe, where: object) -> None:
    """Refuse values of another type than the field's; whole numbers may stand for others."""
    hints = get_type_hints(type(value))
    for f in fields(value):
        found, hint = getattr(value, f.name), hints[f.name]
        if f.name in ("recipes", "detector", "occlusion"):
            continue
        if hint == tuple[float, float]:
            right = isinstance(found, tuple) and len(found) == 2 and all(map(_is_number, found))
        elif hint in (float, float | None):
            right = _is_number(found) or (found is None and hint is not float)
        elif hint in (int, int | None):
            right = (isinstance(found, int) and not isinstance(found, bool)) or (found is None and hint is not int)
        else:
            right = isinstance(found, hint)
        if not right:
            raise FormatError(f"{where}: {f.name} is {found!r}, not {getattr(hint, '__name__', hint)}")


def _check_recipe(recipe: Recipe, where: str) -> None:
    """Refuse what no pair can be drawn from."""
    shares = all(0 <= share <= 1 for share in (recipe.wild, recipe.unrelated, recipe.absent))
    ranges = 0 <= recipe.noise[0] <= recipe.noise[1] and 0 < recipe.speed[0] <= recipe.speed[1]
    times = recipe.fps > 0 and (recipe.span_s is None or recipe.span_s > 0)
    for right, what in (
        (recipe.frames >= 2 and recipe.whole_frames >= 0, "frames below 2, or whole_frames below 0"),
        (times, "fps or span_s that is not above 0"),
        (shares, "wild, unrelated or absent that is not within 0 … 1"),
        (ranges, "noise or speed that is not (low, high), or negative"),
    ):
        if not right:
            raise FormatError(f"{where} has {what}")


def _check_values(training: Training, path: Path) -> None:
    if training.row not in ROWS:
        raise FormatError(f"{path}: there is no row {training.row!r}{_nearest(training.row, ROWS)}")
    if training.autocast not in _AUTOCASTS:
        raise FormatError(f"{path}: autocast is {training.autocast!r}, not one of {', '.join(_AUTOCASTS)}")
    for key in ("batch", "val_clips", "val_every", "checkpoint_every", "log_every"):
        if getattr(training, key) < 1:
            raise FormatError(f"{path}: {key} is {getattr(training, key)}, not above 0")
    if training.clips < training.batch:
        raise FormatError(f"{path}: clips is {training.clips}, less than a batch of {training.batch}")
    for _, recipe in training.recipes:
        if recipe.unrelated and training.batch < 2:
            raise FormatError(f"{path}: a batch of 1 holds nobody else for unrelated pairs")
        others = recipe.unrelated or recipe.phase or recipe.frames != IFID.frames
        if not training.network.any_clips and (others or recipe.longest_offset_s * recipe.fps > _LESS_THAN + 1e-9):
            raise FormatError(
                f"{path}: {training.row} learns from related clips of {IFID.frames} frames that are less than "
                f"{_LESS_THAN} frames apart; for other recipes choose lagformer or lagformer-rays"
            )
    if training.seed < 0 or training.workers < 0:
        raise FormatError(f"{path}: seed and workers may not be negative")
    for key in ("learning_rate", "clip_grad", "threads"):
        if (number := getattr(training, key)) is not None and number <= 0:
            raise FormatError(f"{path}: {key} is {number}, not above 0")
    for key in ("warm_up", "last_rate"):
        if not 0 <= getattr(training, key) < 1:
            raise FormatError(f"{path}: {key} is {getattr(training, key)}, not within 0 … 1")
