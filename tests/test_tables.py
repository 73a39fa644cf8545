"""Tables of offsets against brute force: every item from its place to its place."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from index_strategies import build_metadata
from test_plan import plan_of, plans, source_positions, target_positions

from zarr_gpu.codecs.chain import Program
from zarr_gpu.devices.tables import PlacementTables, item_format
from zarr_gpu.layout import compile_layout
from zarr_gpu.plan import Plan
from zarr_gpu.select import Selection, select_coordinates, select_orthogonal

Shape = tuple[int, ...]


def program_of(dtype: str, chunks: Shape, *, layout: str = "v3", **kw: Any) -> Program:
    shape = tuple(2 * n for n in chunks)
    return compile_layout(build_metadata(layout, shape, chunks, dtype, **kw), "").program


def places(tables: PlacementTables, plan: Plan, index: np.ndarray) -> np.ndarray:
    """(items, 2) offset in the chunk and in the result of all items of one placement."""
    start, count = tables.placements(index[None])
    parts = [np.zeros((1, 2), np.int64)]
    for a, n in zip(start.tolist(), count.tolist(), strict=True):
        one = np.stack([tables.src[a : a + n], tables.dst[a : a + n]], axis=1)
        parts = [(parts[0][:, None] + one[None]).reshape(-1, 2)]
    return parts[0]


def expected_places(plan: Plan, index: np.ndarray, turned: np.ndarray, result: np.ndarray) -> Any:
    """The same from numbered chunks and results."""
    sources: list[Any] = [np.zeros(1, np.int64)] * turned.ndim
    grids: list[np.ndarray] = []
    for part, entry in zip(plan.sets, index, strict=True):
        grids.append(np.arange(int(part.count[entry])))
    mesh = np.meshgrid(*grids, indexing="ij") if grids else []
    target: list[Any] = [np.zeros(1, np.int64)] * result.ndim
    for part, entry, nth in zip(plan.sets, index, mesh, strict=True):
        within = source_positions(part, entry)
        for k, axis in enumerate(part.axes):
            sources[axis] = within[nth.reshape(-1), k]
        if part.out_axis is not None:
            target[part.out_axis] = target_positions(part, entry)[nth.reshape(-1)]
    return np.stack(
        [np.broadcast_to(turned[tuple(sources)].reshape(-1), max(1, math.prod(map(len, grids)))),
         np.broadcast_to(result[tuple(target)].reshape(-1), max(1, math.prod(map(len, grids))))],
        axis=1,
    )  # fmt: skip


@given(case=plans(), units=st.sampled_from([1, 2, 3]), seed=st.integers(0, 99))
def test_tables_say_where_every_item_is(
    case: tuple[Plan, Selection, Shape, Shape], units: int, seed: int
) -> None:
    plan, _, shape, chunks = case
    order = tuple(np.random.default_rng(seed).permutation(len(shape)).tolist())
    program = program_of("u1", chunks, layout="v3 transposed", order=order)
    # Unit numbers of the items of a chunk as it is stored, seen in the order of the array's axes.
    stored = np.arange(math.prod(chunks)).reshape([chunks[a] for a in order]) * units
    turned = stored.transpose(np.argsort(order)) if order else stored
    result = np.arange(math.prod(plan.work_shape)).reshape(plan.work_shape) * units
    strides = tuple(s // result.itemsize * units for s in result.strides)
    tables = PlacementTables(plan, program, units, strides)
    assert tables.nsets == len(plan.sets)
    for batch in plan.batches(7):
        for index in batch.index:
            got = places(tables, plan, index)
            assert np.array_equal(got, expected_places(plan, index, turned, result))


@given(case=plans())
def test_a_value_for_all_is_read_again_and_again(
    case: tuple[Plan, Selection, Shape, Shape],
) -> None:
    plan, _, _, chunks = case
    tables = PlacementTables(plan, program_of("i4", chunks), 1, (0,) * len(plan.work_shape))
    assert not tables.dst.any()
    assert len(tables.src) == sum(int(s.count.sum()) for s in plan.sets)


@given(data=st.data())
def test_only_the_last_of_repeated_items_is_kept(data: st.DataObject) -> None:
    """Threads write in no order, so no item of a chunk may be written twice."""
    rows = data.draw(st.lists(st.integers(0, 8), min_size=1, max_size=12))
    columns = data.draw(st.lists(st.integers(0, 5), min_size=len(rows), max_size=len(rows)))
    joint = data.draw(st.booleans())
    select = select_coordinates if joint else select_orthogonal
    selection = select((np.array(rows), np.array(columns)), (9, 6))
    plan = plan_of(selection, (4, 3), (9, 6))
    program = program_of("i4", (4, 3))
    values = np.arange(1, 1 + math.prod(plan.work_shape)).reshape(plan.work_shape)
    strides = tuple(s // values.itemsize for s in values.strides)
    expected = np.zeros((9, 6), np.int64)
    if joint:
        for row, column, value in zip(rows, columns, values.reshape(-1), strict=True):
            expected[row, column] = value
    else:
        for (i, j), value in np.ndenumerate(values):
            expected[rows[i], columns[j]] = value
    tables = PlacementTables(plan, program, 1, strides, last_only=True)
    got = np.zeros((12, 6), np.int64)
    for batch in plan.batches(3):
        for coords, index in zip(batch.coords, batch.index, strict=True):
            where = places(tables, plan, index)
            assert len(np.unique(where[:, 0])) == len(where)
            i, j = np.divmod(where[:, 0], 3)
            got[coords[0] * 4 + i, coords[1] * 3 + j] = values.reshape(-1)[where[:, 1]]
    assert np.array_equal(got[:9], expected)


FORMATS = {
    # type, byte order as stored: (unit, units, swapped)
    ("bool", "<"): ("u1", 1, False),
    ("i1", ">"): ("u1", 1, False),
    ("u2", "<"): ("u2", 1, False),
    ("u2", ">"): ("u2", 1, True),
    ("f2", ">"): ("u2", 1, True),
    ("f4", "<"): ("u4", 1, False),
    ("i8", ">"): ("u8", 1, True),
    ("c8", "<"): ("u4", 2, False),
    ("c8", ">"): ("u4", 2, True),
    ("c16", ">"): ("u8", 2, True),
}


@pytest.mark.parametrize(("dtype", "order"), FORMATS)
@pytest.mark.parametrize("layout", ["v2", "v3", "sharded"])
def test_formats_of_items(layout: str, dtype: str, order: str) -> None:
    unit, units, swap = FORMATS[dtype, order]
    if layout == "v2":
        dtype = np.dtype(dtype).newbyteorder(order).str
    form = item_format(program_of(dtype, (2, 3), layout=layout, big=order == ">"))
    assert form is not None
    assert (form.unit, form.units, form.swap) == (np.dtype(unit), units, swap)
    assert form.result == np.dtype(dtype).newbyteorder("=")
    assert form.result.isnative


@pytest.mark.parametrize("dtype", ["M8[s]", "m8[ns]", "S3", "U2", "V3", "string", "bytes"])
@pytest.mark.parametrize("layout", ["v2", "v3"])
def test_types_without_a_format(layout: str, dtype: str) -> None:
    assert item_format(program_of(dtype, (2, 3), layout=layout)) is None


def test_a_shard_decoded_as_a_whole_has_no_format() -> None:
    assert item_format(program_of("i4", (2, 3), layout="inline shards")) is None


@pytest.mark.parametrize("order", "<>")
@pytest.mark.parametrize(
    ("dtype", "value"),
    [
        ("f4", np.array(0x7FC00123, "u4").view("f4")[()]),
        ("f8", -0.0),
        ("c8", complex(1.5, -0.0)),
        ("u2", 0x0102),
        ("bool", True),
    ],
)
def test_fill_values_in_units(dtype: str, value: Any, order: str) -> None:
    form = item_format(program_of(dtype, (2,), big=order == ">"))
    assert form is not None
    expected = np.array([value], np.dtype(dtype).newbyteorder("="))
    assert form.fill_units(value, stored=False).tobytes() == expected.tobytes()
    stored = expected.astype(np.dtype(dtype).newbyteorder(order))
    assert form.fill_units(value, stored=True).tobytes() == stored.tobytes()
    assert form.fill_units(value, stored=True).shape == (form.units,)
