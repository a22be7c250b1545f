import json
import os
import pickle
import subprocess
import sys
from dataclasses import dataclass

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from mvpose.errors import FormatError
from mvpose.training.weights import WEIGHTS_FORMAT, check_weights, load_weights, save_weights

METADATA = {"row": "tiny", "val": {"ex_1": 0.5}, "recipes": [[1.0, {"fps": 10.0}]]}


def tiny(width=4, seed=0):
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(3, width), nn.BatchNorm1d(width), nn.Linear(width, 2, bias=False))


@dataclass(frozen=True)
class Bomb:
    """Runs when it is unpickled."""

    path: str

    def __reduce__(self):
        return os.mkdir, (self.path,)


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "tiny.safetensors"
    save_weights(tiny(), path, METADATA)
    return path


def rewrite(path, header=None, **tensors):
    """Write the file of a tiny network with something else in it."""
    header = {"format": WEIGHTS_FORMAT, "metadata": "{}", **(header or {})}
    state = {**tiny().state_dict(), **tensors}
    save_file({k: v for k, v in state.items() if v is not None}, path, {k: v for k, v in header.items() if v})


def test_save_then_load_is_identity(file):
    network = tiny(seed=1)
    with torch.no_grad():
        network[1].num_batches_tracked += 7
    save_weights(network, file, METADATA)
    other = tiny(seed=2)
    assert load_weights(other, file) == METADATA
    for name, value in network.state_dict().items():
        assert torch.equal(other.state_dict()[name], value), name


def test_a_module_in_16_bits_takes_half_the_room_and_is_as_right_as_16_bits_are(tmp_path):
    network, other = nn.Linear(300, 300), nn.Linear(300, 300)
    save_weights(network, tmp_path / "whole.safetensors", {})
    save_weights(network, tmp_path / "half.safetensors", {}, half=True)
    sizes = [(tmp_path / f"{name}.safetensors").stat().st_size for name in ("half", "whole")]
    assert 0.49 < sizes[0] / sizes[1] < 0.51
    load_weights(other, tmp_path / "half.safetensors")
    assert other.weight.dtype == torch.float32
    error = (other.weight - network.weight).abs() / network.weight.abs().clamp(min=1e-4)
    assert 0 < error.max() < 2**-10


def test_counts_stay_whole_numbers_in_16_bits(tmp_path):
    network, other = tiny(), tiny(seed=1)
    network[1].num_batches_tracked += 70_001
    save_weights(network, tmp_path / "w.safetensors", METADATA, half=True)
    load_weights(other, tmp_path / "w.safetensors")
    assert other[1].num_batches_tracked == 70_001


def test_views_of_one_tensor_and_transposed_ones_are_written_too(tmp_path):
    network, other = nn.Linear(3, 3, bias=False), nn.Linear(3, 3, bias=False)
    both = nn.Sequential(network, nn.Linear(3, 3, bias=False))
    both[1].weight = network.weight
    network.weight.data = network.weight.data.t()
    save_weights(both, tmp_path / "w.safetensors", {})
    load_weights(nn.Sequential(other, nn.Linear(3, 3, bias=False)), tmp_path / "w.safetensors")
    assert torch.equal(other.weight, network.weight)


@pytest.mark.parametrize("half", [False, True])
def test_weights_that_are_not_finite_are_not_written(tmp_path, half):
    network = tiny()
    network[2].weight.data[1, 1] = float("nan")
    with pytest.raises(FormatError, match=r"not written: weights in 2.weight .* diverged"):
        save_weights(network, tmp_path / "w.safetensors", METADATA, half=half)
    assert list(tmp_path.iterdir()) == []


def test_weights_too_large_for_16_bits_are_refused_in_16_bits_only(tmp_path):
    network = tiny()
    network[2].weight.data[0, 0] = 1e5
    save_weights(network, tmp_path / "w.safetensors", METADATA)
    with pytest.raises(FormatError, match="16 bits are too few"):
        save_weights(network, tmp_path / "half.safetensors", METADATA, half=True)


def test_a_pickle_is_refused_and_not_unpickled(tmp_path):
    for name, write in (("plain", pickle.dump), ("torch", torch.save)):
        path = tmp_path / f"{name}.pth"
        with path.open("wb") as out:
            write({"0.weight": Bomb(str(tmp_path / "exploded"))}, out)
        with pytest.raises(FormatError, match="not a whole safetensors file"):
            load_weights(tiny(), path)
    assert not (tmp_path / "exploded").exists()


@pytest.mark.parametrize("content", [b"", b"hello, this is text and no weights", b"\xff" * 64, b"{}", b"\x00" * 8])
def test_foreign_bytes_are_refused(tmp_path, content):
    path = tmp_path / "w.safetensors"
    path.write_bytes(content)
    with pytest.raises(FormatError, match=r"w\.safetensors is not a whole safetensors file .*get it anew"):
        load_weights(tiny(), path)


def test_a_truncated_file_is_refused_wherever_it_ends(file):
    whole = file.read_bytes()
    for end in (4, 8, 100, len(whole) // 2, len(whole) - 1):
        file.write_bytes(whole[:end])
        with pytest.raises(FormatError, match="not a whole safetensors file"):
            load_weights(tiny(), file)


def test_a_missing_file_and_a_folder(tmp_path):
    with pytest.raises(FormatError, match="No such file"):
        load_weights(tiny(), tmp_path / "w.safetensors")
    with pytest.raises(FormatError, match="cannot be read"):
        load_weights(tiny(), tmp_path)


@pytest.mark.parametrize(
    ("header", "why"),
    [
        ({"format": None}, r"is not a mvpose\.weights file \(its format is 'None'\)"),
        ({"format": "pt"}, r"is not a mvpose\.weights file \(its format is 'pt'\)"),
        ({"format": "mvpose.weights/2"}, r"newer than the mvpose\.weights/1 that this version reads; update mvpose"),
        ({"metadata": None}, "says nothing readable"),
        ({"metadata": "{"}, "says nothing readable"),
        ({"metadata": "[1]"}, "says nothing readable"),
        ({"metadata": "[" * 200_000}, "says nothing readable"),
    ],
)
def test_headers(file, header, why):
    rewrite(file, header)
    with pytest.raises(FormatError, match=why):
        load_weights(tiny(), file)


@pytest.mark.parametrize(
    ("tensors", "why"),
    [
        ({"2.weight": None}, "it has no 2.weight"),
        ({"3.weight": torch.zeros(2)}, "3.weight is not known"),
        ({"2.weight": torch.zeros(2, 5)}, r"2\.weight is \(2, 5\), not \(2, 4\)"),
        ({"2.weight": torch.zeros(2, 4, dtype=torch.int64)}, r"2\.weight is I64, not torch\.float32"),
        ({"2.weight": torch.zeros(2, 4, dtype=torch.float8_e4m3fn)}, r"2\.weight is F8_E4M3, not torch\.float32"),
        ({"1.num_batches_tracked": torch.zeros(())}, r"1\.num_batches_tracked is F32, not torch\.int64"),
    ],
)
def test_the_weights_of_another_network(file, tensors, why):
    rewrite(file, **tensors)
    with pytest.raises(FormatError, match=f"another network .*{why}"):
        load_weights(tiny(), file)


WIDE = """
import resource, sys
from pathlib import Path
from torch import nn
from mvpose.errors import FormatError
from mvpose.training.weights import check_weights, load_weights, read_metadata
peak = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
before = peak()
for read in (load_weights, check_weights):
    try:
        read(nn.Linear(3, 2, bias=False), Path(sys.argv[1]))
    except FormatError as error:
        print(error)
print(read_metadata(Path(sys.argv[1])))
print(peak() - before)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="peaks are counted in other units elsewhere")
def test_weights_that_are_too_wide_are_refused_before_they_are_read(tmp_path):
    path, side = tmp_path / "wide.safetensors", 8000  # 256 MB, none of them on the disk
    header = {
        "__metadata__": {"format": WEIGHTS_FORMAT, "metadata": "{}"},
        "weight": {"dtype": "F32", "shape": [side, side], "data_offsets": [0, 4 * side**2]},
    }
    raw = json.dumps(header).encode()
    path.write_bytes(len(raw).to_bytes(8, "little") + raw)
    os.truncate(path, 8 + len(raw) + 4 * side**2)
    done = subprocess.run([sys.executable, "-c", WIDE, path], capture_output=True, text=True, check=True)
    *refused, metadata, grown_kb = done.stdout.splitlines()
    assert len(refused) == 2 and all(r"weight is (8000, 8000), not (2, 3)" in line for line in refused)
    assert metadata == "{}"
    assert int(grown_kb) < 20_000


def test_a_header_without_end_is_not_parsed(tmp_path):
    path = tmp_path / "w.safetensors"
    length = 90_000_000  # safetensors itself stops at 100 MB
    path.write_bytes(length.to_bytes(8, "little") + b"{}")
    os.truncate(path, length + 8)
    with pytest.raises(FormatError, match=r"not a whole safetensors file \(its header is to have 90000000 bytes, more"):
        load_weights(tiny(), path)


def test_weights_are_held_against_a_network_that_takes_no_memory(file):
    with torch.device("meta"):
        assert check_weights(tiny(), file) == METADATA
        with pytest.raises(FormatError, match=r"not \(99,"):
            check_weights(tiny(width=99), file)


def test_numbers_that_are_not_finite_are_refused_and_the_module_stays_as_it_was(file):
    rewrite(file, **{"2.weight": torch.full((2, 4), float("inf"))})
    network = tiny(seed=3)
    with pytest.raises(FormatError, match=r"not finite, in 2\.weight"):
        load_weights(network, file)
    assert torch.equal(network[0].weight, tiny(seed=3)[0].weight)


def test_the_header_is_plain_json(file):
    raw = file.read_bytes()
    header = json.loads(raw[8 : 8 + int.from_bytes(raw[:8], "little")])["__metadata__"]
    assert header["format"] == "mvpose.weights/1"
    assert json.loads(header["metadata"]) == METADATA
