"""A second device, made up: what runs there takes part in every calculation, and the CPU's tensors in none.

A GPU refuses tensors that were left behind on the CPU, or were made there; so does this, on a machine without a GPU.
Numbers are calculated by the CPU and are the same as there.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_map

ELSEWHERE = torch.device("cuda", 0)  # torch knows it by name, whether it is there or not


_SELECTING = ("index", "index_put", "index_put_", "_index_put_impl_")  # by their second argument


class Far(torch.Tensor):
    """A tensor of the second device, round one of the CPU."""

    @staticmethod
    def __new__(cls, near: Tensor) -> Far:
        far = torch.Tensor._make_wrapper_subclass(
            cls, near.size(), strides=near.stride(), storage_offset=near.storage_offset(), dtype=near.dtype
        )
        far.near = near
        return far

    device = property(lambda self: ELSEWHERE)

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        del types
        kwargs = kwargs or {}
        tensors: list[Tensor] = []
        tree_map(lambda x: tensors.append(x) if isinstance(x, Tensor) else None, (args, kwargs))
        name = func.overloadpacket.__name__
        # As on a GPU: numbers may come from the CPU, whole tensors may not, but for copies and what selects.
        if name in _SELECTING:
            tensors = [x for i, x in enumerate(args) if i != 1 and isinstance(x, Tensor)]
        left = [x for x in tensors if not isinstance(x, cls) and x.dim() > 0]
        if left and name != "copy_":
            raise RuntimeError(f"{name} of tensors on two devices, {tuple(left[0].shape)} on the CPU")
        found = func(*tree_map(_near, args), **tree_map(_near, kwargs))
        if func._schema.is_mutable:
            return args[0]
        return found if name == "_local_scalar_dense" else tree_map(_far, found)

    def numpy(self, **kwargs: Any) -> Any:
        """Refuse, as a GPU's tensor does."""
        raise TypeError("a tensor of another device is no array")

    __array__ = numpy

    def tolist(self) -> Any:
        return self.near.tolist()


def _near(x: Any) -> Any:
    return x.near if isinstance(x, Far) else x


def _far(x: Any) -> Any:
    return Far(x) if isinstance(x, Tensor) and not isinstance(x, Far) else x


class _Devices(TorchFunctionMode):
    """Makes and moves tensors where they are asked for.

    Attributes:
        brought: Shapes of the tensors that were moved there.
        fetched: Shapes of those that were moved back.
    """

    def __init__(self) -> None:
        super().__init__()
        self.brought: list[torch.Size] = []
        self.fetched: list[torch.Size] = []

    def enter(self, network: nn.Module) -> torch.device:
        """Move a network there; return the device."""
        for module in network.modules():
            for name, parameter in module._parameters.items():
                if parameter is not None:
                    module._parameters[name] = Far(parameter.detach()).requires_grad_()
        return ELSEWHERE

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        del types
        kwargs = dict(kwargs or {})
        generator = kwargs.get("generator")
        if generator is not None:
            where = kwargs.get("device") or (args[0].device if isinstance(args[0], Tensor) else torch.device("cpu"))
            if generator.device != where:
                raise RuntimeError(f"{func.__name__} on {where} by a generator on {generator.device}")
        if func is torch.Tensor.cpu or (func is torch.Tensor.to and isinstance(args[1], torch.device)):
            there = func is not torch.Tensor.cpu and args[1] == ELSEWHERE
            if there != isinstance(args[0], Far):
                (self.brought if there else self.fetched).append(args[0].shape)
            return _far(args[0]) if there else _near(args[0])
        if kwargs.get("device") is None:
            return func(*args, **kwargs)
        return _far(func(*args, **kwargs)) if kwargs.pop("device") == ELSEWHERE else func(*args, **kwargs)


class _Generator(torch.Generator):
    """A source of randomness that says it is on a device."""

    def __new__(cls, device: Any = "cpu") -> _Generator:
        made = super().__new__(cls, "cpu")
        made.where = torch.device(device)
        return made

    device = property(lambda self: self.where)


@pytest.fixture
def elsewhere(monkeypatch) -> Iterator[_Devices]:
    """Let there be a second device."""
    monkeypatch.setattr(torch, "Generator", _Generator)
    with _Devices() as devices:
        yield devices
