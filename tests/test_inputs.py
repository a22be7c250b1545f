"""What a reader opens and allocates does not depend on what a file claims."""

import json
import os
import zipfile

import numpy as np
import pytest

from mvpose.inputs import open_file, parse_json, read_bytes, read_npz, read_text


def npy(header, data=b""):
    """Return a .npy file with any header."""
    text = repr(header).encode() + b" " * 3 + b"\n"
    return b"\x93NUMPY\x01\x00" + len(text).to_bytes(2, "little") + text + data


def archive(path, **members):
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as file:
        for name, content in members.items():
            file.writestr(f"{name}.npy", content)
    return path


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="there are no named pipes here")
def test_pipes_and_devices_are_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path / "pipe", "/dev/zero"):
        with pytest.raises(OSError, match="a pipe or a device"):
            open_file(path)
    with pytest.raises(OSError, match="it is a folder"):
        open_file(tmp_path)


def test_size_is_looked_at_first(tmp_path):
    (tmp_path / "a").write_bytes(b"\xef\xbb\xbfabc")
    assert read_text(tmp_path / "a") == "abc"
    assert read_bytes(tmp_path / "a", 6) == b"\xef\xbb\xbfabc"
    with pytest.raises(OSError, match="no such file has more"):
        read_bytes(tmp_path / "a", 5)


def test_json_is_as_json_has_it():
    for value in (None, 3, -1.5, "a", [], {}, [[1, {"a": [2, "[["]}]], {"a": {"b": True}}, 10**17):
        assert parse_json(json.dumps(value)) == value


@pytest.mark.parametrize("text", ["[" * 100_000, "[" * 3000 + "]" * 3000, '{"a":' * 3000 + "1" + "}" * 3000, "", "{"])
def test_json_that_nobody_digests_is_refused(text):
    with pytest.raises(ValueError, match=r".+"):
        parse_json(text)


def test_long_numbers_become_floats():
    assert parse_json("9" * 18) == 10**18 - 1
    assert parse_json("1" + "0" * 30) == 1e30
    assert parse_json("9" * 400) == float("inf")
    float(parse_json("-" + "9" * 400))


def test_arrays_are_as_numpy_has_them(tmp_path):
    arrays = {
        "a": np.arange(6.0).reshape(2, 3), "b": np.asfortranarray(np.arange(6).reshape(2, 3)), "c": np.array("word"),
        "d": np.zeros((0, 4)), "e": np.array(["Süd", ""]), "f": np.array(True), "g": np.array(""),
    }  # fmt: skip
    np.savez(tmp_path / "a.npz", **arrays)
    np.savez_compressed(tmp_path / "b.npz", **arrays)
    for name in ("a.npz", "b.npz"):
        found = read_npz(tmp_path / name)
        assert list(found) == list(arrays)
        for key, value in arrays.items():
            np.testing.assert_array_equal(found[key], value)
            assert found[key].dtype == value.dtype
        assert list(read_npz(tmp_path / name, ["c", "z"])) == ["c"]


@pytest.mark.parametrize(
    "member",
    [
        npy({"descr": "<U0", "fortran_order": False, "shape": (10**12,)}),
        npy({"descr": "<f8", "fortran_order": False, "shape": (10**12, 0)}),
        npy({"descr": "<f8", "fortran_order": False, "shape": (10**9,)}, b"\0" * 800),
        npy({"descr": "<f8", "fortran_order": False, "shape": (100,)}, b"\0" * 799),
        npy({"descr": "<f8", "fortran_order": False, "shape": (-1,)}),
        npy({"descr": "<f16", "fortran_order": False, "shape": (1,)}, b"\0" * 16),
        npy({"descr": "|O", "fortran_order": False, "shape": (1,)}, b"\x80\x04N."),
        npy({"descr": "<U9999", "fortran_order": False, "shape": (2,)}, b"\0" * 9999 * 8),
        b"\x93NUMPY\x02\x00\xff\xff\xff\xff{",
        b"\x93NUMPY\x03\x00\x01\x00\x00\x00{",
        b"",
    ],
)
def test_what_an_array_claims_is_not_believed(tmp_path, member):
    path = archive(tmp_path / "a.npz", a=member)
    with pytest.raises(ValueError, match=r".+"):
        read_npz(path)
    assert read_npz(path, ["b"]) == {}


def test_what_is_not_wanted_is_not_inflated(tmp_path):
    resource = pytest.importorskip("resource")
    path = tmp_path / "a.npz"
    np.savez(path, wanted=np.arange(3))
    with zipfile.ZipFile(path, "a", zipfile.ZIP_DEFLATED) as file, file.open("junk.npy", "w") as member:
        member.write(npy({"descr": "<f8", "fortran_order": False, "shape": (2**26,)}))
        for _ in range(64):
            member.write(b"\0" * (8 << 20))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    np.testing.assert_array_equal(read_npz(path, ["wanted"])["wanted"], [0, 1, 2])
    with pytest.raises(ValueError, match="more than such a file can hold"):
        read_npz(path)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 100_000
