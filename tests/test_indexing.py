"""Every index mode, read and write, on every layout: equal to NumPy."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from index_strategies import (
    LAYOUTS,
    MODES,
    STRUCTS_V2,
    assigned,
    build_metadata,
    cases,
    expected_items,
    make_array,
    new_values,
    orthogonal_selections,
    picked,
    random_values,
    same,
    vindex_selections,
)

from zarr_gpu.array import Array
from zarr_gpu.config import ArrayConfig
from zarr_gpu.errors import BoundsError, ReadOnlyError, SelectionError
from zarr_gpu.storage.memory import MemoryStore


def contents(array: Array) -> dict[str, bytes]:
    assert isinstance(array.store, MemoryStore)
    return dict(array.store.items)


OUTS = ["plain", "F order", "gaps", "wider"]


def make_out(kind: str, dtype: np.dtype[Any], shape: tuple[int, ...]) -> np.ndarray:
    """Memory of the caller's to read into."""
    if kind == "F order":
        return np.empty(shape, dtype, order="F")
    if kind == "gaps":
        return np.empty((*shape, 2), dtype)[..., 0]
    if kind == "wider" and dtype.kind in "iuf" and dtype.itemsize < 8:
        return np.empty(shape, f"{dtype.kind}8")
    return np.empty(shape, dtype)


# ------------------------------------------------------------------------------------------ read


@pytest.mark.parametrize("mode", MODES)
@given(data=st.data())
def test_reads_equal_numpy(mode: str, data: st.DataObject):
    case = data.draw(cases())
    selection = data.draw(MODES[mode].draw(case), label="selection")
    out_kind = data.draw(st.sampled_from([None, None, None, *OUTS]))
    with case.running():
        array, values = case.filled()
        items = expected_items(MODES[mode], case, selection)
        expected = picked(values, items)
        if out_kind is None:
            got = MODES[mode].get(array, selection)
            if items.ndim == 0:
                assert scalar_is(got, expected, case.dtype)
                return
        else:
            out = make_out(out_kind, case.dtype, items.shape)
            expected = np.asarray(expected).astype(out.dtype)
            got = MODES[mode].get(array, selection, out=out)
            assert got is out
    assert isinstance(got, np.ndarray)
    assert same(got, expected)


def scalar_is(got: Any, expected: Any, dtype: np.dtype[Any]) -> bool:
    """Whether a result without axes is the expected item, and a scalar of the right type."""
    expected = np.asarray(expected)
    if dtype.kind in "OT":
        return bool(type(got) is type(expected.item()) and got == expected.item())
    # NumPy's scalars have the byte order of the machine, as those of NumPy arrays.
    return isinstance(got, np.generic) and same(np.asarray(got, expected.dtype), expected)


@pytest.mark.parametrize("mode", MODES)
@given(data=st.data())
def test_out_of_bounds_names_axis_and_bound(mode: str, data: st.DataObject):
    """One index too far, in either direction: BoundsError, and a write changes nothing."""
    case = data.draw(cases(min_dims=1))
    lengths = case.blocks if mode == "block" else case.shape
    axis = data.draw(st.integers(0, len(lengths) - 1))
    n = lengths[axis]
    far = data.draw(st.sampled_from([n, n + 1, -n - 1, 2**63 - 1, -(2**63)]))
    selection: Any = [slice(None)] * len(lengths)
    if mode in {"basic", "block"}:
        selection[axis] = far
    elif mode in {"orthogonal", "coordinate"}:
        selection[axis] = np.array([0] * (n > 0) + [far] + [-1] * (n > 0))
    selection = tuple(selection)
    message = rf"index {far} is out of bounds for axis {axis} with size {n}$"
    if mode == "mask":
        shape = list(case.shape)
        shape[axis] += 1
        selection = np.zeros(shape, bool)
        message = "mask of shape .* does not fit the array's shape"
    array, _ = case.filled()
    before = contents(array)
    with pytest.raises(BoundsError, match=message):
        MODES[mode].get(array, selection)
    with pytest.raises(IndexError, match=message):
        MODES[mode].set(array, selection, array.fill_value)
    assert contents(array) == before


# ----------------------------------------------------------------------------------------- write


@pytest.mark.parametrize("mode", MODES)
@given(data=st.data())
def test_writes_equal_numpy(mode: str, data: st.DataObject):
    case = data.draw(cases())
    selection = data.draw(MODES[mode].draw(case), label="selection")
    items = expected_items(MODES[mode], case, selection)
    value, values = data.draw(new_values(case.dtype, items.shape), label="value")
    with case.running():
        array, before = case.filled()
        expected = assigned(before, items, values)
        MODES[mode].set(array, selection, value)
        got = array.get_basic_selection(Ellipsis)
    if not case.shape:
        assert scalar_is(got, expected, case.dtype)
    else:
        assert same(got, expected)


@pytest.mark.parametrize("mode", MODES)
@given(data=st.data())
def test_writes_to_a_new_array_leave_the_rest_at_the_fill_value(mode: str, data: st.DataObject):
    case = data.draw(cases())
    selection = data.draw(MODES[mode].draw(case), label="selection")
    items = expected_items(MODES[mode], case, selection)
    value, values = data.draw(new_values(case.dtype, items.shape), label="value")
    fill = case.empty().layout.fill_value
    before = np.empty(case.shape, case.dtype)
    before[...] = fill
    with case.running():
        array = case.empty()
        MODES[mode].set(array, selection, value)
        got = np.asarray(array)
    assert same(got, assigned(before, items, values))


# ---------------------------------------------------------------------------------------- fields


@st.composite
def field_names(draw: st.DrawFn, dtype: np.dtype[Any]) -> str | list[str]:
    assert dtype.names is not None
    if draw(st.booleans()):
        return draw(st.sampled_from(dtype.names))
    return draw(st.lists(st.sampled_from(dtype.names), min_size=1, max_size=3, unique=True))


FIELD_MODES = ["basic", "orthogonal", "coordinate", "mask", "block"]


@given(data=st.data())
def test_reads_of_fields_equal_numpy(data: st.DataObject):
    case = data.draw(cases(structs=True))
    mode = MODES[data.draw(st.sampled_from(FIELD_MODES))]
    selection = data.draw(mode.draw(case), label="selection")
    fields = data.draw(field_names(case.dtype))
    with case.running():
        array, values = case.filled()
        items = expected_items(mode, case, selection)
        item_shape = case.dtype[fields].shape
        expected = picked(values[fields], items, item_shape)
        got = mode.get(array, selection, fields=fields)
        assert same(got, expected) if expected.ndim else scalar_is(got, expected, expected.dtype)
        shape = (*items.shape, *item_shape)
        out = make_out(data.draw(st.sampled_from(OUTS)), expected.dtype, shape)
        assert mode.get(array, selection, fields=fields, out=out) is out
        assert same(out, expected.astype(out.dtype))


@given(data=st.data())
def test_writes_of_fields_equal_numpy(data: st.DataObject):
    case = data.draw(cases(structs=True))
    mode = MODES[data.draw(st.sampled_from(FIELD_MODES))]
    selection = data.draw(mode.draw(case), label="selection")
    fields = data.draw(field_names(case.dtype))
    items = expected_items(mode, case, selection)
    value, new = data.draw(new_values(case.dtype[fields], items.shape))
    with case.running():
        array, before = case.filled()
        mode.set(array, selection, value, fields=fields)
        got = np.asarray(array)
    expected = before.copy()
    for name in [fields] if isinstance(fields, str) else fields:
        values = new if isinstance(fields, str) else new[name]
        expected[name] = assigned(before[name], items, values, case.dtype[name].shape)
    assert same(got, expected)


def test_fields_in_brackets():
    dtype = np.dtype(STRUCTS_V2[0])
    values = random_values(dtype, (6, 4), 1)
    array = make("v2", (6, 4), (4, 3), STRUCTS_V2[0])
    array[...] = values
    assert same(array["x"], values["x"])
    assert same(array["y", 1:3], values["y"][1:3])
    assert same(array[2, "y", ::-1], values["y"][2, ::-1])
    assert same(array[["x", "tag"]], values[["x", "tag"]])
    assert same(array["tag", "x", 0], values[["tag", "x"]][0])
    assert same(array.oindex["x", [3, 0], [1, 1]], values["x"][np.ix_([3, 0], [1, 1])])
    assert same(array.vindex["x", [3, 0], [1, 1]], values["x"][[3, 0], [1, 1]])
    assert same(array.blocks["x", 1], values["x"][4:])
    assert array["x", 5, 3] == values["x"][5, 3]

    array["x"] = values["x"] = 7
    array["y", 1:3, 0] = values["y"][1:3, 0] = [1.5, 2.5]
    array[["y", "tag"], 5] = values[["y", "tag"]][5] = (9.0, b"zz")
    array.oindex["x", [0, 2], 1] = values["x"][[0, 2], 1] = [5, 6]
    array.vindex["x", [1, 1], [2, 2]] = [1, 2]
    values["x"][1, 2] = 2
    array.blocks["tag", 1, 1] = b"q"
    values["tag"][4:, 3:] = b"q"
    assert same(array[...], values)


def test_plain_values_go_to_every_field():
    """As NumPy assigns a number to a structure: each field takes it."""
    dtype = np.dtype(STRUCTS_V2[1])
    values = np.zeros((5,), dtype)
    array = make("v2", (5,), (2,), STRUCTS_V2[1])
    array[1:4] = values[1:4] = 3
    array[["a", "c"], 2:] = 4
    values[["a", "c"]][2:] = 4
    array.set_basic_selection(slice(0, 3), np.array([5, 6, 7]), fields=["b", "a"])
    values[["b", "a"]][:3] = np.array([5, 6, 7])
    assert same(array[...], values)


@pytest.mark.parametrize("fields", ["z", ["x", "z"], [], ["x", "x"], 3, [3]])
def test_fields_that_are_not_there(fields: Any):
    array = make("v2", (5,), (2,), STRUCTS_V2[0])
    with pytest.raises(SelectionError, match="field"):
        array.get_basic_selection(0, fields=fields)
    with pytest.raises(SelectionError, match="field"):
        array.set_basic_selection(0, 1, fields=fields)
    with pytest.raises(SelectionError, match="no field"):
        make("v3", (5,), (2,), "i4")["x"]
    assert contents(array) == {}


# -------------------------------------------------------------------------------------- brackets


def make(layout: str, shape: tuple[int, ...], chunks: tuple[int, ...], dtype: Any, **kw: Any):
    return make_array(MemoryStore(), build_metadata(layout, shape, chunks, dtype, **kw))


def mode_of_brackets(selection: Any, ndim: int) -> str:
    """What ``array[selection]`` means: the documented rule, written down once more."""
    items = selection if isinstance(selection, tuple) else (selection,)
    arrays = [np.asarray(i) for i in items if isinstance(i, list | range | np.ndarray)]
    arrays = [a for a in arrays if a.ndim]
    if not arrays:
        return "basic"
    masks = [a for a in arrays if a.dtype == bool]
    if len(items) == 1 and masks:
        return "coordinate"
    slices = any(i is None or i is Ellipsis or isinstance(i, slice) for i in items)
    if not slices and not masks and len(items) == ndim:
        return "coordinate"
    if len(arrays) == 1 and arrays[0].ndim > 1:
        return "coordinate"
    return "orthogonal"


@given(data=st.data())
def test_brackets_read_and_write_by_the_mode_they_mean(data: st.DataObject):
    case = data.draw(cases())
    drawn = st.one_of(orthogonal_selections(case.shape), vindex_selections(case.shape))
    selection = data.draw(drawn, label="selection")
    mode = MODES[mode_of_brackets(selection, len(case.shape))]
    array, before = case.filled()
    try:
        items = expected_items(mode, case, selection)
    except (IndexError, ValueError):  # arrays that do not broadcast, or of several axes
        untouched = contents(array)
        with pytest.raises(SelectionError):
            array[selection]
        with pytest.raises(SelectionError):
            array[selection] = array.fill_value
        assert contents(array) == untouched
        return
    got, expected = array[selection], picked(before, items)
    assert same(got, expected) if items.ndim else scalar_is(got, expected, case.dtype)
    value, values = data.draw(new_values(case.dtype, items.shape))
    array[selection] = value
    assert same(np.asarray(array), assigned(before, items, values))


@pytest.mark.parametrize("layout", LAYOUTS)
def test_indexers_are_the_selections(layout: str):
    values = np.arange(60).reshape(10, 6)
    array = make(layout, (10, 6), (3, 2), "i8")
    array[...] = values
    rows, columns = [7, 0, 7], [5, 1, 1]
    mask = values % 7 == 3
    assert same(array.oindex[rows, columns], values[np.ix_(rows, columns)])
    assert same(array.oindex[rows], values[rows])
    assert same(array.oindex[:, mask[0]], values[:, mask[0]])
    assert same(array.vindex[rows, columns], values[rows, columns])
    assert same(array.vindex[[[0], [1]], [2, 3]], values[[[0], [1]], [2, 3]])
    assert same(array.vindex[mask], values[mask])
    assert same(array[mask], values[mask])
    edge = array.metadata.chunk_shape
    assert same(array.blocks[0], values[: edge[0]])
    assert same(array.blocks[-1:, 0], values[-(10 % edge[0]) or -edge[0] :, : edge[1]])
    array.oindex[rows, [0, 2]] = [[1, 2], [3, 4], [5, 6]]
    values[np.ix_(rows, [0, 2])] = [[1, 2], [3, 4], [5, 6]]
    array.vindex[rows, columns] = values[rows, columns] = [-1, -2, -3]
    array.vindex[mask] = values[mask] = np.arange(mask.sum())
    array[mask] = values[mask] = -values[mask]
    array.blocks[0, :1] = values[: edge[0], : edge[1]] = 99
    assert same(array[...], values)


def test_index_arrays_of_other_kinds():
    """What has ``__array__`` indexes as its values do: our own arrays and other libraries'."""
    values = np.arange(20)
    array = make("sharded", (20,), (3,), "i8")
    array[...] = values
    index = make("v3", (4,), (2,), "u2")
    index[...] = [3, 19, 3, 0]
    assert same(array.oindex[index], values[[3, 19, 3, 0]])
    assert same(array.vindex[(3, 19), ...], values[[3, 19]])
    assert same(array[np.array([[1, 2], [3, 4]])], values[[[1, 2], [3, 4]]])
    assert same(array[[]], values[:0])


def test_iteration_and_length():
    values = np.arange(24).reshape(8, 3)
    array = make("sharded", (8, 3), (3, 2), "i8")
    array[...] = values
    assert len(array) == 8
    assert all(same(one, two) for one, two in zip(array, values, strict=True))


# ---------------------------------------------------------------------------------------- errors

_RAGGED = [[1], [2, 3]]
MALFORMED = {
    "basic": [
        (0, 0, 0), (..., ...), (..., 0, ...), 1.0, 1j, "x", b"x", True, np.True_, object(), {1},
        slice(0, 1, 0), slice("a"), slice(1.5, 2), [0, 1], np.array([0]), np.array(1.5), _RAGGED,
        (slice(None),) * 3,
    ],
    "orthogonal": [
        (0, 0, 0), (..., ...), 1.0, "x", True, object(), [[0, 1], [1, 2]], [0.5], [None], ["a"],
        [True], [True] * 7, _RAGGED, np.zeros((6, 4), bool), [2**70], [-1, 2**63], [6], [0, -7],
        np.array([2**64 - 1], np.uint64), slice(None, None, 0),
    ],
    "coordinate": [
        ([0], [0], [0]), (..., [0], ...), 1.0, "x", b"x", True, object(), ([0, 1], [0, 1, 2]),
        [0.5], ["a"], [True], np.zeros((4, 6), bool), np.zeros((6, 5), bool), _RAGGED, ([0], [4]),
        ([[0], [-7]], [0, 1]), (np.zeros((6, 4), bool), 0),
    ],
    "mask": [
        0, [0, 1], np.zeros((6, 4)), np.zeros(6, bool), np.zeros((4, 6), bool), _RAGGED, "x", None,
        slice(None), (np.zeros((6, 4), bool), 0), np.zeros((6, 4, 1), bool),
    ],
    "block": [
        (0, 0, 0), (..., ...), None, (0, None), 1.0, "x", True, [0], np.array([0]), 3, -4, (0, 2),
        slice(None, None, 2), slice(None, None, -1), slice(0, 1, 0), slice("a"),
    ],
}  # fmt: skip


@pytest.mark.parametrize("layout", ["v2", "sharded"])
@pytest.mark.parametrize("mode", MODES)
def test_malformed_selections_are_refused_and_change_nothing(mode: str, layout: str):
    array = make(layout, (6, 4), (2, 2), "i4", factors=(1, 1))
    array[...] = np.arange(24).reshape(6, 4)
    before = contents(array)
    for selection in MALFORMED[mode]:
        with pytest.raises(SelectionError) as caught:
            MODES[mode].get(array, selection)
        assert isinstance(caught.value, IndexError)
        with pytest.raises(SelectionError):
            MODES[mode].set(array, selection, 1)
        assert contents(array) == before, selection


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize(
    ("value", "error"),
    [
        (np.zeros(5), ValueError),
        (np.zeros((2, 6, 4)), ValueError),
        ([1, 2, 3], ValueError),
        ([1, [2]], ValueError),
        ("seven", ValueError),
        (2**40, OverflowError),
        (object(), TypeError),
        # Everything but the last item could be cast.
        (np.array([["1", "2", "3", "4"]] * 5 + [["5", "6", "7", "x"]]), ValueError),
        (np.array([[1, 2, 3, 4]] * 5 + [[5, 6, 7, None]], object), TypeError),
    ],
)
def test_values_that_do_not_fit_change_nothing(layout: str, value: Any, error: type[Exception]):
    array = make(layout, (6, 4), (2, 2), "i4")
    array[...] = np.arange(24).reshape(6, 4)
    before = contents(array)
    with pytest.raises(error):
        array[...] = value
    with pytest.raises(error):
        array.oindex[[0, 1, 2, 3, 4, 5]] = value
    assert contents(array) == before


def test_a_read_only_store_refuses_every_mode():
    items = {}
    metadata = build_metadata("v3", (6, 4), (2, 2), "i4")
    make_array(MemoryStore(items), metadata)[...] = 1
    array = make_array(MemoryStore(items, read_only=True), metadata)
    before = dict(items)
    selections = {"mask": np.ones((6, 4), bool), "orthogonal": [0], "coordinate": ([0], [0])}
    for name, mode in MODES.items():
        with pytest.raises(ReadOnlyError):
            mode.set(array, selections.get(name, 0), 5)
        assert mode.get(array, selections.get(name, 0)).max() == 1
    assert items == before


@pytest.mark.parametrize(
    ("out", "error"),
    [
        (np.zeros((3, 4), "i4"), ValueError),
        (np.zeros((2,), "i4"), ValueError),
        (np.zeros((2, 4), "u1"), TypeError),
        (np.zeros((2, 4), "M8[s]"), TypeError),
    ],
)
def test_out_must_have_the_shape_and_hold_the_type(out: np.ndarray, error: type[Exception]):
    array = make("v3", (6, 4), (2, 2), "i4")
    with pytest.raises(error):
        array.get_basic_selection(slice(0, 2), out=out)
    assert not out.astype(int).any()


@pytest.mark.parametrize("layout", LAYOUTS)
def test_the_longest_axes_there_can_be(layout: str):
    """Both ends of axes of 2^63 - 1 and 2^62 items, huge steps, no memory for what is absent."""
    n = 2**63 - 1
    array = make(layout, (n,), (1000,), "u1")
    array[n - 4 :] = [1, 2, 3, 4]
    array[2**62] = 7
    array.oindex[[-1, 0, 2**62 + 5]] = [9, 8, 6]
    array[1 : 2**60 : 2**57] = 5
    assert array[-5:].tolist() == [0, 1, 2, 3, 9]
    assert array[:: 2**62].tolist() == [8, 7]
    assert array[:: -(2**62)].tolist() == [9, 0]
    assert array[:: 2**80].tolist() == [8]
    assert array[1 : 2**60 : 2**57].tolist() == [5] * 8
    assert array.vindex[[0, -1, 2**62 + 5, n - 2]].tolist() == [8, 9, 6, 3]
    assert array.blocks[-1][-1] == 9
    with pytest.raises(BoundsError, match=f"index {n} is out of bounds for axis 0 with size {n}"):
        array[n]

    square = make(layout, (2**62, 2**62), (10, 10), "u1")
    square[2**61 - 2 : 2**61 + 2, -3:] = 1
    assert square[2**61 - 3 : 2**61 + 3, 2**62 - 4 :].sum() == 12
    assert square.vindex[[2**61, 0], [-1, -1]].tolist() == [1, 0]
    assert square[5:5].shape == (0, 2**62)


@pytest.mark.parametrize("order", ["C", "F"])
def test_results_have_the_memory_order_asked_for(order: Any):
    metadata = build_metadata("sharded", (6, 4), (2, 2), "i4")
    array = make_array(MemoryStore(), metadata, ArrayConfig(order=order))
    array[...] = np.arange(24).reshape(6, 4)
    for result in (array[...], array[1:5, ::-1], array.oindex[[3, 0], [1, 1, 2]]):
        assert result.flags[f"{order}_CONTIGUOUS"]
        assert not result.flags["CF".replace(order, "") + "_CONTIGUOUS"]
    assert make("v2 F order", (6, 4), (2, 2), "i4")[...].flags.f_contiguous


def test_repeated_points_take_the_last_value():
    for layout in LAYOUTS:
        array = make(layout, (10,), (3,), "i4")
        points = np.tile([9, 0, 4, 4, 1], 100)
        array.vindex[points] = np.arange(500)
        expected = np.zeros(10, "i4")
        expected[[9, 0, 4, 1]] = [495, 496, 498, 499]
        assert same(array[...], expected)
        array.oindex[points[::-1]] = np.arange(500)
        expected[[1, 4, 0, 9]] = [495, 497, 498, 499]
        assert same(array[...], expected)
