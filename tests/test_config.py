"""Settings: keys, environment, scopes; the run-time settings of one array."""

from __future__ import annotations

import threading

import pytest

from zarr_gpu.config import ArrayConfig, Config, config
from zarr_gpu.errors import MetadataError, ZarrUserWarning


def test_defaults_are_those_of_zarr_python():
    fresh = Config()
    assert fresh.get("default_zarr_format") == 3
    assert fresh.get("array.order") == "C"
    assert fresh.get("array.write_empty_chunks") is False
    assert fresh.get("array.read_missing_chunks") is True
    assert fresh.get("json_indent") == 2
    assert fresh.get("device") == "cpu"
    assert fresh.get("decode.max_variable_bytes") == 2 << 30


def test_nested_reads_and_writes():
    fresh = Config()
    fresh.set({"array": {"order": "F"}, "threads": 3})
    assert fresh.get("array") == {
        "order": "F",
        "write_empty_chunks": False,
        "read_missing_chunks": True,
        "strict": False,
        "verify": False,
    }
    assert fresh["threads"] == 3
    assert fresh.to_dict()["array"]["order"] == "F"
    fresh.set(array__order="C")
    assert fresh.get("array.order") == "C"
    fresh.reset()
    assert fresh.get("threads") == 0


def test_a_block_restores_what_was_and_blocks_nest():
    with config.set({"array.order": "F"}):
        assert config.get("array.order") == "F"
        with config.set({"array.order": "C", "threads": 1}):
            assert config.get("array.order") == "C"
            assert config.get("array")["order"] == "C"
        assert config.get("array.order") == "F"
        assert config.get("threads") == 0
    assert config.get("array.order") == "C"


def test_a_block_is_undone_after_an_error():
    with pytest.raises(ZeroDivisionError), config.set({"threads": 7}):
        _ = 1 / 0
    assert config.get("threads") == 0


def _seen_by_another_thread(settings, key):
    seen = []
    thread = threading.Thread(target=lambda: seen.append(settings.get(key)))
    thread.start()
    thread.join()
    return seen[0]


def test_a_plain_call_reaches_all_threads_and_a_block_only_its_own():
    fresh = Config()
    fresh.set({"threads": 5})
    assert _seen_by_another_thread(fresh, "threads") == 5
    with config.set({"threads": 6}):
        assert config.get("threads") == 6
        assert _seen_by_another_thread(config, "threads") == 0


def test_plain_calls_in_between_survive_the_end_of_a_block():
    fresh = Config()
    change = fresh.set({"threads": 2})
    fresh.set({"json_indent": None})
    with change:
        assert fresh.get("threads") == 2
    assert fresh.get("threads") == 0
    assert fresh.get("json_indent") is None


@pytest.mark.parametrize(
    "values",
    [
        {"no.such.key": 1},
        {"array": {"ordr": "C"}},
        {"array": "C"},
        {"array.order": "K"},
        {"array.order": ["C"]},
        {"default_zarr_format": 4},
        {"default_zarr_format": True},
        {"threads": -1},
        {"threads": "2"},
        {"json_indent": 1000},
        {"device": ""},
        {"decode.max_variable_bytes": 0},
        {"array.verify": "some"},
        {"array.strict": 1},
        {"gpu.job_bytes": 0},
        {"gpu.slots": 0},
        {"gpu.readers": True},
        {"gpu.staging": "gds"},
        {"gpu.host_rule": None},
        {"gpu.host_below_streams": -1},
        {"gpu.host_stream_bytes": 1.5},
        {"array.write_empty_chunks": 1},
        {3: 4},
    ],
)
def test_unknown_keys_and_unfit_values_change_nothing(values):
    fresh = Config()
    before = fresh.to_dict()
    with pytest.raises(MetadataError):
        fresh.set({"threads": 1, **values})
    assert fresh.to_dict() == before


def test_unknown_key_asked_for():
    with pytest.raises(MetadataError, match="no setting 'codec_pipeline'"):
        config.get("codec_pipeline")
    assert config.get("codec_pipeline", None) is None


def test_environment(monkeypatch):
    monkeypatch.setenv("ZARR_GPU_ARRAY__ORDER", "F")
    monkeypatch.setenv("ZARR_GPU_ARRAY__WRITE_EMPTY_CHUNKS", "True")
    monkeypatch.setenv("ZARR_GPU_THREADS", "4")
    monkeypatch.setenv("ZARR_GPU_JSON_INDENT", "null")
    monkeypatch.setenv("ZARR_GPU_DEVICE", "cpu")
    fresh = Config()
    assert fresh.get("array") == {
        "order": "F",
        "write_empty_chunks": True,
        "read_missing_chunks": True,
        "strict": False,
        "verify": False,
    }
    assert fresh.get("threads") == 4
    assert fresh.get("json_indent") is None
    assert fresh.get("device") == "cpu"
    monkeypatch.setenv("ZARR_GPU_THREADS", "2")
    assert fresh.get("threads") == 4
    fresh.reset()
    assert fresh.get("threads") == 2


def test_environment_that_does_not_fit(monkeypatch):
    monkeypatch.setenv("ZARR_GPU_THREADS", "many")
    with pytest.raises(MetadataError, match="ZARR_GPU_THREADS"):
        Config().get("threads")
    monkeypatch.setenv("ZARR_GPU_THREADS", "1")
    monkeypatch.setenv("ZARR_GPU_NO__SUCH", "1")
    with pytest.warns(ZarrUserWarning, match="ZARR_GPU_NO__SUCH"):
        assert Config().get("threads") == 1


def test_array_config():
    assert ArrayConfig() == ArrayConfig("C", write_empty_chunks=False, read_missing_chunks=True)
    assert ArrayConfig.parse(None) == ArrayConfig()
    with config.set({"array.order": "F"}):
        assert ArrayConfig.parse(None).order == "F"
        assert ArrayConfig.parse({"order": "C"}).order == "C"
        assert ArrayConfig.parse({"write_empty_chunks": True}).to_dict() == {
            "order": "F",
            "write_empty_chunks": True,
            "read_missing_chunks": True,
            "strict": False,
            "verify": False,
        }
    given = ArrayConfig(read_missing_chunks=False)
    assert ArrayConfig.parse(given) is given


@pytest.mark.parametrize(
    "value", [{"ordr": "C"}, {"order": "K"}, "C", 3, {"write_empty_chunks": 0}]
)
def test_array_config_refuses(value):
    with pytest.raises(MetadataError):
        ArrayConfig.parse(value)
