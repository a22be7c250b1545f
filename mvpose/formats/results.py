"""Our own result files: clocks.json, offsets.json and poses3d.npz. Each names its format and version."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from mvpose.atomic import atomic_path
from mvpose.clock import Clock, Clocks, carried
from mvpose.errors import FormatError
from mvpose.inputs import NONSENSE, parse_json, read_npz, read_text
from mvpose.poses import Poses3D
from mvpose.skeleton import skeleton_of
from mvpose.sync.offsets import EARLIER_NAMES, METHODS, Mode, OffsetGraph, PairwiseOffset, Support

CLOCKS_FORMAT = "mvpose.clocks/1"
OFFSETS_FORMAT = "mvpose.offsets/1"
POSES_FORMAT = "mvpose.poses3d/1"


def check_format(found: object, expected: str, path: Path) -> None:
    """Refuse a file of another kind, or of a newer version than this program knows.

    Raises:
        FormatError: It is not ``expected``, e.g. ``mvpose.clocks/1``.
    """
    kind, version = expected.split("/")
    match = re.fullmatch(re.escape(kind) + r"/(\d+)", str(found))
    if match is None:
        raise FormatError(f"{path} is not a {kind} file (its format is {str(found)[:60]!r})")
    if int(match[1]) > int(version):
        raise FormatError(
            f"{path} has format {found}, newer than the {expected} that this version reads; update mvpose"
        )


def write_json(value: Mapping[str, Any], path: Path) -> None:
    """Write JSON that any parser reads: NaN and infinity become null. Atomic.

    Raises:
        WorkspaceError: The file cannot be written.
    """
    text = json.dumps(plain(value), indent=1, ensure_ascii=False, allow_nan=False)
    with atomic_path(path) as temporary:
        # A path may hold what no text can; it must not cost the results that it lies beside.
        temporary.write_text(text + "\n", encoding="utf-8", errors="replace")


def plain(value: Any) -> Any:
    """Turn nested values into what JSON knows; NaN and infinity become null."""
    if isinstance(value, Mapping):
        return {str(k): plain(v) for k, v in value.items()}
    if isinstance(value, np.ndarray | list | tuple):
        return [plain(v) for v in value]
    if isinstance(value, np.bool_ | bool):
        return bool(value)
    if isinstance(value, np.integer):
        return int(value)
    if isinstance(value, float | np.floating):
        return float(value) if math.isfinite(value) else None
    return str(value) if isinstance(value, Path) else value


def read_json(path: Path, expected: str) -> dict[str, Any]:
    """Read one of our JSON files.

    Raises:
        FormatError: It is missing, not JSON, of another format or of a newer version.
    """
    try:
        value = parse_json(read_text(path))
    except OSError as error:
        raise FormatError(f"{path} cannot be read: {error.strerror}") from error
    except ValueError as error:
        raise FormatError(f"{path} cannot be read as JSON: {error}") from error
    if not isinstance(value, dict):
        raise FormatError(f"{path} does not hold a JSON object")
    check_format(value.get("format"), expected, path)
    return value


def write_clocks(clocks: Clocks, path: Path) -> None:
    """Write clocks.json, atomically."""
    write_json(
        {
            "format": CLOCKS_FORMAT,
            "reference": clocks.reference,
            "clocks": {name: _clock_json(clock) for name, clock in clocks.clocks.items()},
            "unsynchronised": dict(clocks.unsynchronised),
            "components": clocks.components,
            "cycle_residual_s": {"max": clocks.cycle_residual_max_s, "rms": clocks.cycle_residual_rms_s},
        },
        path,
    )


def _clock_json(clock: Clock) -> dict[str, Any]:
    cov = clock.cov_at_zero
    return {
        "offset_s": clock.offset_s,
        "rate": clock.rate,
        "sigma_offset_s": math.sqrt(cov[0, 0]),
        "sigma_rate": math.sqrt(cov[1, 1]),
        "cov": cov,
        "epoch_s": clock.epoch_s,
        "cov_at_epoch": clock.cov,
        "sigma_at_epoch_s": clock.sigma_at_epoch_s,
        "rate_fitted": clock.rate_fitted,
        "verdict": clock.verdict,
        **({"why": clock.why} if clock.why else {}),
        **({"jumps": clock.jumps} if clock.jumps else {}),
        **({"readout_s": clock.readout_s} if clock.readout_s is not None else {}),
    }


def _cov_at_epoch(c: Mapping[str, Any]) -> np.ndarray:
    """Return what was written of a clock's covariance: at the epoch, or, by others and before, at time 0 alone."""
    if "cov_at_epoch" in c:
        return np.asarray(c["cov_at_epoch"], dtype=float)
    return carried(np.asarray(c.get("cov", [[0, 0], [0, 0]]), dtype=float), float(c.get("epoch_s", 0.0)))


def read_clocks(path: Path) -> Clocks:
    """Read clocks.json.

    Raises:
        FormatError: It does not hold clocks, or is of a newer version.
    """
    value = read_json(path, CLOCKS_FORMAT)
    try:
        clocks = {
            name: Clock(
                name,
                float(c["offset_s"]),
                float(c["rate"]),
                _cov_at_epoch(c),
                epoch_s=float(c.get("epoch_s", 0.0)),
                rate_fitted=bool(c.get("rate_fitted", False)),
                verdict=c.get("verdict", "good"),
                why=c.get("why", ""),
                jumps=tuple((float(at_s), float(jump_s)) for at_s, jump_s in c.get("jumps", ())),
                readout_s=None if c.get("readout_s") is None else float(c["readout_s"]),
            )
            for name, c in value["clocks"].items()
        }
        cycle = value.get("cycle_residual_s") or {}
        return Clocks(
            value["reference"],
            clocks,
            dict(value.get("unsynchronised", {})),
            tuple(tuple(component) for component in value.get("components", ())),
            *(float("nan") if cycle.get(key) is None else float(cycle[key]) for key in ("max", "rms")),
        )
    except NONSENSE as error:
        raise FormatError(f"{path} does not hold clocks: {type(error).__name__}: {error}") from error


def write_offsets(graph: OffsetGraph, path: Path) -> None:
    """Write offsets.json, atomically."""
    estimates = [
        {
            "a": e.a,
            "b": e.b,
            "at_s": e.at_s,
            "offset_s": e.offset_s,
            "sigma_s": e.sigma_s,
            "method": e.method,
            "support": {"windows": e.support.windows, "joints": e.support.joints, "seconds": e.support.seconds},
            "modes": [[m.offset_s, m.sigma_s, m.weight] for m in e.modes],
            "accepted": e.accepted,
            "reason": e.reason,
        }
        for e in graph.edges
    ]
    write_json({"format": OFFSETS_FORMAT, "cameras": graph.cameras, "estimates": estimates, "notes": graph.notes}, path)


def read_offsets(path: Path) -> OffsetGraph:
    """Read offsets.json.

    Raises:
        FormatError: It does not hold offsets, or is of a newer version.
    """
    value = read_json(path, OFFSETS_FORMAT)
    try:
        edges = []
        for e in value["estimates"]:
            method = EARLIER_NAMES.get(e["method"], e["method"])
            if method not in METHODS:
                raise ValueError(f"unknown method {method!r}")
            edges.append(
                PairwiseOffset(
                    e["a"],
                    e["b"],
                    float(e["at_s"]),
                    float(e["offset_s"]),
                    float(e["sigma_s"]),
                    method,
                    modes=tuple(Mode(float(o), float(s), float(w)) for o, s, w in e.get("modes", ())),
                    support=Support(**e.get("support", {})),
                    accepted=bool(e.get("accepted", True)),
                    reason=str(e.get("reason", "")),
                )
            )
        return OffsetGraph(tuple(value["cameras"]), tuple(edges), dict(value.get("notes", {})))
    except NONSENSE as error:
        raise FormatError(f"{path} does not hold offsets: {type(error).__name__}: {error}") from error


@dataclass(frozen=True)
class Field:
    """What an array of a file must be.

    Attributes:
        kinds: Kinds of NumPy's dtypes: ``U`` text, ``iu`` whole numbers, ``fiu`` numbers, ``b`` truth values.
        shape: Its sides, a letter where any length will do that is the same wherever the letter stands. ``T+1`` is one
            more than ``T``.
        optional: Whether a file may lack it.
    """

    kinds: str
    shape: tuple[int | str, ...] = ()
    optional: bool = False


_KINDS = {"U": "text", "iu": "whole numbers", "fiu": "numbers", "b": "true or false"}
_MOST_NAMES = 1000  # of joints or cameras: all that is named


def read_arrays(path: Path, fields: Mapping[str, Field], format_name: str) -> dict[str, np.ndarray]:
    """Read one of our npz files: the arrays that its format promises, and no others; nothing is unpickled.

    Args:
        path: The file.
        fields: The arrays, beside ``format``.
        format_name: Its format and version, e.g. ``mvpose.poses3d/1``.

    Raises:
        FormatError: It is missing, damaged, no archive of plain arrays, of another format or of a newer version, or an
            array is not what it should be.
    """
    try:
        arrays = read_npz(path, ["format", *fields])
    except OSError as error:
        raise FormatError(f"{path} cannot be read as npz ({error.strerror or error}).") from error
    # A damaged archive makes zipfile, zlib and numpy's header parser raise nearly anything.
    except Exception as error:
        raise FormatError(f"{path} cannot be read as npz ({error or type(error).__name__}).") from error
    check_format(arrays.get("format", ""), format_name, path)
    sides: dict[str, int] = {}
    for name, field in fields.items():
        if name not in arrays and not field.optional:
            raise FormatError(f"{path} has no field {name}.")
    there = {name: field for name, field in fields.items() if name in arrays}
    for name, field in there.items():
        found = arrays[name]
        if found.dtype.kind not in field.kinds or found.ndim != len(field.shape):
            raise FormatError(
                f"{path}: {name} must be {_KINDS[field.kinds]} of {len(field.shape)} dimensions, not {found.dtype} "
                f"{found.shape}."
            )
        if found.dtype.kind == "U" and found.size > _MOST_NAMES:
            raise FormatError(f"{path}: {name} holds {found.size} names, and at most {_MOST_NAMES} make sense.")
        sides |= {
            side: n
            for side, n in zip(field.shape, found.shape, strict=True)
            if isinstance(side, str) and side not in sides
        }
    for name, field in there.items():
        wanted = tuple(
            sides["T"] + 1 if side == "T+1" else sides[side] if isinstance(side, str) else side for side in field.shape
        )
        if arrays[name].shape != wanted:
            raise FormatError(
                f"{path}: {name} must be ({', '.join(map(str, field.shape))}) = {wanted}, not {arrays[name].shape}."
            )
    return arrays


def write_poses(poses: Poses3D, path: Path) -> None:
    """Write poses3d.npz, atomically; no array in it is pickled."""
    with atomic_path(path) as temporary, temporary.open("wb") as file:
        np.savez_compressed(
            file,
            format=np.array(POSES_FORMAT),
            time_s=poses.time_s,
            xyz_m=poses.xyz_m,
            person_ids=np.asarray(poses.person_ids, dtype=np.int64),
            reprojection_px=poses.reprojection_px,
            n_views=poses.n_views,
            cov_m2=poses.cov_m2.astype(np.float32),
            joint_names=np.array(poses.skeleton.joint_names),
            skeleton=np.array(poses.skeleton.name),
            cameras=np.array(poses.cameras, dtype=np.str_),
            up=np.array(poses.up),
            smoothed=np.array(poses.smoothed),
        )


_POSES_FIELDS = {
    "time_s": Field("fiu", ("T",)),
    "person_ids": Field("iu", ("P",)),
    "joint_names": Field("U", ("J",)),
    "xyz_m": Field("fiu", ("T", "P", "J", 3)),
    "reprojection_px": Field("fiu", ("T", "P", "J")),
    "n_views": Field("iu", ("T", "P", "J")),
    "cov_m2": Field("fiu", ("T", "P", "J", 3, 3)),
    "skeleton": Field("U"),
    "cameras": Field("U", ("C",)),
    "up": Field("U"),
    "smoothed": Field("b"),
}


def read_poses(path: Path) -> Poses3D:
    """Read poses3d.npz.

    Raises:
        FormatError: It does not hold poses, or is of a newer version.
    """
    value = read_arrays(path, _POSES_FIELDS, POSES_FORMAT)
    try:
        return Poses3D(
            time_s=value["time_s"],
            xyz_m=value["xyz_m"],
            person_ids=value["person_ids"],
            reprojection_px=value["reprojection_px"],
            n_views=value["n_views"],
            cov_m2=value["cov_m2"],
            skeleton=skeleton_of([str(name) for name in value["joint_names"]]),
            cameras=tuple(str(name) for name in value["cameras"]),
            up=str(value["up"]),
            smoothed=bool(value["smoothed"]),
        )
    except NONSENSE as error:
        raise FormatError(f"{path} does not hold poses: {error}") from error
