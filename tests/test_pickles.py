import pickle
from collections import Counter, OrderedDict
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest

from mvpose.errors import FormatError
from mvpose.pickles import read_npz_objects, read_pickle

VALUES = {
    "S9": {"Walk 1": np.arange(24, dtype=np.float32).reshape(4, 2, 3)},
    "list": [1, 2.5, None, True, "é", b"\x80\xff", (3, (4,))],
    "columns": np.asfortranarray(np.arange(6.0).reshape(2, 3)),
    "big": np.arange(3, dtype=">i4"),
    "ragged": np.array([[1], [2, 3]], dtype=object),
    "scalar": np.float64(0.25),
    "seen": np.array([True, False]),
}


@pytest.mark.parametrize("protocol", [0, 1, 2, 3, 4, 5])
def test_values_come_back(protocol):
    read = read_pickle(pickle.dumps(VALUES, protocol=protocol))
    assert list(read) == list(VALUES) and read["list"] == VALUES["list"] and read["scalar"] == 0.25
    for name in ("columns", "big", "seen"):
        np.testing.assert_array_equal(read[name], VALUES[name])
    np.testing.assert_array_equal(read["S9"]["Walk 1"], VALUES["S9"]["Walk 1"])
    assert read["S9"]["Walk 1"].dtype == np.float32 and read["ragged"].shape == (2,)
    assert [list(item) for item in read["ragged"]] == [[1], [2, 3]]


def test_ordered_tables_are_tables():
    assert read_pickle(pickle.dumps(OrderedDict(b=1, a=2))) == {"b": 1, "a": 2}


def test_an_npz_of_objects(tmp_path):
    path = tmp_path / "data.npz"
    np.savez_compressed(path, positions=VALUES["S9"], plain=np.arange(3), number=7)
    read = read_npz_objects(path)
    np.testing.assert_array_equal(read["positions"]["Walk 1"], VALUES["S9"]["Walk 1"])
    np.testing.assert_array_equal(read["plain"], np.arange(3))
    assert read["number"] == 7


class Touch:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return Path.touch, (self.path,)


@pytest.mark.parametrize("protocol", [0, 2, 5])
def test_nothing_is_executed(tmp_path, protocol):
    target = tmp_path / "touched"
    for evil in (Touch(target), np.array([Touch(target)], dtype=object), range(3), Counter("ab"), np.dtype("U3")):
        with pytest.raises(FormatError, match=r"pickle|plain numbers"):
            read_pickle(pickle.dumps([evil], protocol=protocol))
        np.savez(tmp_path / "evil.npz", positions=np.array([evil, None], dtype=object))
        with pytest.raises(FormatError, match=r"evil\.npz"):
            read_npz_objects(tmp_path / "evil.npz")
    assert not target.exists()


def test_arrays_must_fit_their_bytes():
    data = pickle.dumps(np.arange(6, dtype=np.int64).reshape(2, 3), protocol=2)
    assert data.count(b"K\x02K\x03") == 1
    with pytest.raises(FormatError, match="do not fill its shape"):
        read_pickle(data.replace(b"K\x02K\x03", b"K\x02K\x04"))


@pytest.mark.parametrize("protocol", [2, 4, 5])
def test_mutants_are_read_or_refused(protocol):
    data, rng = pickle.dumps(VALUES, protocol=protocol), np.random.default_rng(protocol)
    for _ in range(400):
        mutant = bytearray(data)
        mutant[rng.integers(len(mutant))] = rng.integers(256)
        with suppress(FormatError):
            read_pickle(bytes(mutant))


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04 no archive"])
def test_a_damaged_npz(tmp_path, content):
    path = tmp_path / "data.npz"
    path.write_bytes(content)
    with pytest.raises(FormatError, match="cannot be read as npz"):
        read_npz_objects(path)
