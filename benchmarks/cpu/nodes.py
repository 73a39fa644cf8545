"""Workloads of metadata: opening arrays, listing groups."""

from __future__ import annotations

import os
from collections.abc import Iterator
from functools import partial
from typing import Any, ClassVar

import numpy as np

from benchmarks.cpu.base import Workload, digest
from benchmarks.cpu.engines import Work


class OpenOne(Workload):
    name, title, stored = "open", "open read-blosc and read one item", "read-blosc"
    per_call, nbytes = True, 0

    def points(self) -> Iterator[tuple[int, ...]]:
        rng = np.random.default_rng(12)
        for _ in range(self.scale.opens):
            yield tuple(int(n) for n in rng.integers(0, self.scale.edge, 3))

    def start(self, engine: Any) -> list[Work]:
        def open_and_read(point: tuple[int, ...]) -> Any:
            return engine.read(engine.open(self.path), point)()

        return [partial(open_and_read, point) for point in self.points()]

    def expected(self) -> int:
        return digest(self.values[point] for point in self.points())


class Members(Workload):
    """A group of groups of arrays."""

    name, title, stored = "list", "list all members of 10 groups of 100 arrays", "groups"
    nbytes = 0
    consolidated: ClassVar[bool] = False
    opens: ClassVar[bool] = False

    def names(self) -> list[str]:
        scale = self.scale
        return [f"g{i}/a{j:02}" for i in range(scale.groups) for j in range(scale.arrays)]

    def prepare(self, engine: Any) -> None:
        if os.path.exists(self.path):  # noqa: PTH110
            return
        zarr = engine.zarr
        root = zarr.create_group(f"{self.path}.new")
        for i, name in enumerate(self.names()):
            shape = (100 + i % self.scale.arrays, 10)
            root.create_array(name, shape=shape, chunks=(50, 10), dtype="f4")
        zarr.consolidate_metadata(f"{self.path}.new")
        os.rename(f"{self.path}.new", self.path)  # noqa: PTH104

    def start(self, engine: Any) -> list[Work]:
        if not self.opens:
            return [engine.list_group(self.path, consolidated=self.consolidated)]
        return [engine.open_members(self.path, self.names(), consolidated=self.consolidated)]

    def expected(self) -> int:
        if self.opens:
            return digest([[(100 + i % self.scale.arrays, 10) for i in range(len(self.names()))]])
        return digest([sorted([*(f"g{i}" for i in range(self.scale.groups)), *self.names()])])


class MembersConsolidated(Members):
    name, title, consolidated = "list-consolidated", "as list, metadata consolidated", True


class OpenMembers(Members):
    name, title, opens = "open-members", "open the 1,000 arrays from the root by path", True


class OpenMembersConsolidated(OpenMembers):
    name, title = "open-members-consolidated", "as open-members, metadata consolidated"
    consolidated = True
