"""From what a caller says about codecs to the codecs that metadata will name.

A codec may be given as one of our objects, as its v3 name or dict (``{"name": ...,
"configuration": ...}``), as its v2 dict (``{"id": ...}``), as a numcodecs object or as a codec
object of zarr-python; the last two are known by their methods alone and never imported.  Imports
``codecs.base``, ``codecs.registry`` and errors; called by ``creation``.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from zarr_gpu.codecs.base import ArrayToArray, ArrayToBytes, BytesToBytes, ChunkSpec, Codec
from zarr_gpu.codecs.registry import get_codec_class
from zarr_gpu.errors import MetadataError

__all__ = ["evolve_chain", "make_codec", "split_argument", "to_v2"]

_BLOSC_SHUFFLES = {0: "noshuffle", 1: "shuffle", 2: "bitshuffle"}


def make_codec(value: Any, what: str) -> Codec:
    """The codec meant by one argument.

    Those of numcodecs that v3 has under a name of its own (blosc, crc32c, gzip, zstd) become these.

    Raises
    ------
    MetadataError
        ``value`` is no codec, or its configuration is invalid.
    UnknownCodecError
        There is no codec of this name.
    """
    if isinstance(value, Codec):
        return value
    config = _as_mapping(value, what)
    if "id" in config and "name" not in config:
        return _from_numcodecs(config, what)
    tunable = getattr(value, "_tunable_attrs", None)
    if config.get("name") == "blosc" and tunable:
        # zarr-python's object fills in what its user left open only when it meets an array.
        options = dict(config["configuration"])
        return _make_blosc({name: options[name] for name in options.keys() - set(tunable)})
    unknown = set(config) - {"name", "configuration", "must_understand"}
    configuration = config.get("configuration", {})
    if unknown or "name" not in config or not isinstance(configuration, Mapping):
        raise MetadataError(
            f'{what}: a codec is {{"name": ..., "configuration": {{...}}}}, got {config!r:.200}'
        )
    return get_codec_class(config["name"]).from_config(configuration)


def _as_mapping(value: Any, what: str) -> Mapping[str, Any]:
    if isinstance(value, str):
        return {"name": value}
    if isinstance(value, Mapping):
        return value
    for method in ("get_config", "to_dict"):  # numcodecs, zarr-python
        get = getattr(value, method, None)
        if callable(get) and not isinstance(value, type):
            config = get()
            if isinstance(config, Mapping):
                return config
    raise MetadataError(f"{what}: a codec is needed, got {value!r:.200}")


def _from_numcodecs(config: Mapping[str, Any], what: str) -> Codec:
    identifier = config["id"]
    if not isinstance(identifier, str):
        raise MetadataError(f"{what}: the id of a codec must be a string, got {identifier!r:.80}")
    rest = {name: value for name, value in config.items() if name != "id"}
    codec = get_codec_class(f"numcodecs.{identifier}").from_config(rest)
    if identifier in ("zstd", "gzip"):
        if identifier == "gzip" and rest.get("level", 1) == -1:
            return codec  # zlib's own default, which v3's gzip cannot name
        known: dict[str, Any] = {"level": 1 if identifier == "gzip" else 0}
        known.update((name, rest[name]) for name in ("level", "checksum") if name in rest)
        return get_codec_class(identifier).from_config(known)
    if identifier == "crc32c" and rest.get("location", "end") == "end":
        return get_codec_class("crc32c").from_config({})
    if identifier == "blosc":
        full = {"cname": "lz4", "clevel": 5, "shuffle": 1, "blocksize": 0, **rest}
        full.pop("typesize", None)
        # -1 asks numcodecs to choose by the size of the elements, and so does leaving it out here.
        shuffle = _BLOSC_SHUFFLES.get(full.pop("shuffle"))
        return _make_blosc({**full, **({} if shuffle is None else {"shuffle": shuffle})})
    return codec


def _make_blosc(options: dict[str, Any]) -> Codec:
    """v3's ``blosc`` with its element size, and perhaps its shuffle, still to be filled in."""
    return get_codec_class("blosc")(**options)


def split_argument(value: Any) -> list[Any]:
    """The items of an argument that may be one codec or several; ``None`` is none."""
    if value is None:
        return []
    if isinstance(value, (str, Mapping, Codec)) or not isinstance(value, Iterable):
        return [value]
    return list(value)


def evolve_chain(
    filters: Sequence[Codec],
    serializer: Codec,
    compressors: Sequence[Codec],
    spec: ChunkSpec,
) -> list[Codec]:
    """The chain with everything filled in that depends on the data it will see.

    Raises
    ------
    MetadataError
        A codec stands where its kind may not, or does not suit the data.
    """
    chain: list[Codec] = []
    for codec in filters:
        if not isinstance(codec, ArrayToArray):
            raise MetadataError(
                f"filters: {codec.name!r} does not turn arrays into arrays", codec=codec.name
            )
        evolved = codec.evolve(spec)
        chain.append(evolved)
        spec = evolved.encoded_spec(spec)
    if not isinstance(serializer, ArrayToBytes):
        raise MetadataError(
            f"serializer: {serializer.name!r} does not turn arrays into bytes",
            codec=serializer.name,
        )
    chain.append(serializer.evolve(spec))
    for codec in compressors:
        if not isinstance(codec, BytesToBytes):
            raise MetadataError(
                f"compressors: {codec.name!r} does not turn bytes into bytes", codec=codec.name
            )
        chain.append(codec.evolve(spec))
    return chain


def to_v2(value: Any, what: str) -> dict[str, Any]:
    """The numcodecs dict that v2 metadata holds for one argument.

    Raises
    ------
    MetadataError
        ``value`` is no codec, or v2 has no such codec.
    """
    if not isinstance(value, Codec):
        config = _as_mapping(value, what)
        if "id" in config and "name" not in config:
            _from_numcodecs(config, what)  # refuses what could not be read back
            return dict(config)
    codec = make_codec(value, what)
    if codec.v2_id is None:
        raise MetadataError(f"{what}: format 2 has no codec {codec.name!r}", codec=codec.name)
    return {"id": codec.v2_id, **codec.to_v2_config()}
