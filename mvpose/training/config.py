"""What a training is: a config file of mmengine and options over it, checked before anything is done."""

from __future__ import annotations

import ast
import shlex
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field, fields
from difflib import get_close_matches
from pathlib import Path
from typing import Any, get_type_hints

from mvpose.errors import FormatError


@dataclass(frozen=True, kw_only=True)
class Plan:
    """How a network is trained, whatever it is.

    Attributes:
        learning_rate: The highest of the schedule; the network's own if None.
        warm_up: Share of the iterations over which the rate rises from nothing; then it falls by a half cosine.
        last_rate: Where it ends, as a share of the highest.
        clip_grad: Largest norm of a gradient.
        autocast: ``bf16``: matrix products in 16 bits, which some processors do twice as fast; ``none``.
        half: Whether the weights are written in 16 bits.
        seed: Of weights and batches.
        val_every: Iterations between validations.
        checkpoint_every: Iterations between checkpoints, of which the last two are kept: one is whole.
        log_every: Iterations between lines in the log.
        threads: Of torch; as many as it likes if None.
        workers: Processes that draw batches, or lay out what is drawn by the network; with none the training does.
        minutes: The training stops at the first checkpoint after so long, to be resumed; None: when it is done.
    """

    learning_rate: float | None = None
    warm_up: float = 0.05
    last_rate: float = 0.01
    clip_grad: float = 1.0
    autocast: str = "none"
    half: bool = False
    seed: int = 0
    val_every: int = 500
    checkpoint_every: int = field(default=500, metadata={"course": False})
    log_every: int = field(default=100, metadata={"course": False})
    threads: int | None = field(default=None, metadata={"course": False})
    workers: int = field(default=0, metadata={"course": False})
    minutes: float | None = field(default=None, metadata={"course": False})

    def values(self) -> dict[str, Any]:
        """Return the fields that decide what the weights become."""
        return {f.name: getattr(self, f.name) for f in fields(self) if f.metadata.get("course", True)}


_AUTOCASTS = ("none", "bf16")


def command_of(config: Path, plan: Plan, options: Sequence[str]) -> str:
    """Return the command that makes a plan's weights again; where motions and results lie is nobody else's."""
    place = config.name if config.is_absolute() else config.as_posix()
    aside = {f.name for f in fields(plan) if not f.metadata.get("course", True)}
    own = [option for option in options if option.partition("=")[0] not in aside]
    return shlex.join(["mvpose", "train", place, "--seed", str(plan.seed), *(w for o in own for w in ("--option", o))])


def read_values(path: Path, options: Sequence[str], seed: int | None) -> dict[str, Any]:
    """Read a config file and put options over it.

    Args:
        path: A config file of mmengine, which is Python and is executed.
        options: ``KEY=VALUE``, VALUE being a Python literal or else a text.
        seed: Over that of the config.

    Raises:
        FormatError: The file cannot be read, or an option is none.
    """
    values = _read_config(path)
    for option in options:
        key, equals, text = option.partition("=")
        if not equals:
            raise FormatError(f"option {option!r} is not KEY=VALUE")
        values[key] = _literal(text)
    if seed is not None:
        values["seed"] = seed
    return values


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


def check_keys(found: Collection[str], known: Sequence[str], where: object) -> None:
    """Refuse keys that are not known, and say which was meant."""
    for key in found:
        if key not in known:
            raise FormatError(f"{where}: there is no {key!r}{nearest(str(key), known)}")


def nearest(name: str, known: Collection[str]) -> str:
    """Say which known name was meant, else all of them."""
    near = get_close_matches(name, known, 1)
    return f"; did you mean {near[0]!r}?" if near else f"; there are {', '.join(known)}"


def is_number(value: object) -> bool:
    """Tell whether a value is a number; True and False are none."""
    return isinstance(value, int | float) and not isinstance(value, bool)


def check_types(value: Any, where: object, unchecked: Collection[str] = ()) -> None:
    """Refuse values of another type than the field's; whole numbers may stand for others."""
    hints = get_type_hints(type(value))
    for f in fields(value):
        found, hint = getattr(value, f.name), hints[f.name]
        if f.name in unchecked:
            continue
        if hint in (tuple[float, float], tuple[int, int]):
            whole = hint == tuple[int, int]
            right = isinstance(found, tuple) and len(found) == 2 and all(map(is_number, found))
            right = right and not (whole and any(isinstance(one, float) for one in found))
        elif hint in (float, float | None):
            right = is_number(found) or (found is None and hint is not float)
        elif hint in (int, int | None):
            right = (isinstance(found, int) and not isinstance(found, bool)) or (found is None and hint is not int)
        else:
            right = isinstance(found, hint)
        if not right:
            raise FormatError(f"{where}: {f.name} is {found!r}, not {getattr(hint, '__name__', hint)}")


def check_plan(plan: Plan, path: Path) -> None:
    """Refuse a plan that cannot be followed."""
    if plan.autocast not in _AUTOCASTS:
        raise FormatError(f"{path}: autocast is {plan.autocast!r}, not one of {', '.join(_AUTOCASTS)}")
    for key in ("val_every", "checkpoint_every", "log_every"):
        if getattr(plan, key) < 1:
            raise FormatError(f"{path}: {key} is {getattr(plan, key)}, not above 0")
    if plan.seed < 0 or plan.workers < 0:
        raise FormatError(f"{path}: seed and workers may not be negative")
    for key in ("learning_rate", "clip_grad", "threads", "minutes"):
        if (number := getattr(plan, key)) is not None and number <= 0:
            raise FormatError(f"{path}: {key} is {number}, not above 0")
    for key in ("warm_up", "last_rate"):
        if not 0 <= getattr(plan, key) < 1:
            raise FormatError(f"{path}: {key} is {getattr(plan, key)}, not within 0 … 1")
