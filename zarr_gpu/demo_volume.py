"""A volume like those of a fluorescence microscope, and a picture of one.

Used by the demo; imports NumPy, and Pillow where a picture is saved.  Volumes are uint16 ``(z, y,
x)``: stained nuclei as soft ellipsoids over a dark, uneven background, with the shot noise of the
photons and the offset and read noise of a camera.  The same seed gives the same volume.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from zarr_gpu.errors import MissingDependencyError

__all__ = ["make_volume", "nuclei_of", "render_slab", "save_picture"]

F32 = npt.NDArray[np.float32]
U16 = npt.NDArray[np.uint16]

VOXELS_PER_NUCLEUS = 120_000
CAMERA_OFFSET = 100.0  # counts
READ_NOISE = 1.6  # counts
PICTURE_EDGE = 768  # pixels, of each half


def nuclei_of(shape: tuple[int, int, int], seed: int) -> F32:
    """Place nuclei at random.

    Returns
    -------
    float32 array of shape (n, 7)
        Centre z, y, x; widths z, y, x (standard deviations, in voxels); brightness in photons.
    """
    rng = np.random.default_rng(seed)
    n = max(8, int(np.prod(shape)) // VOXELS_PER_NUCLEUS)
    centre = rng.random((n, 3)) * shape
    width = rng.uniform(4, 12, (n, 1)) * rng.uniform(0.75, 1.3, (n, 3))
    width[:, 0] *= 0.6  # planes lie further apart than pixels
    photons = rng.lognormal(mean=6.0, sigma=0.6, size=(n, 1))
    return np.concatenate([centre, width, photons], axis=1).astype(np.float32)


def render_slab(shape: tuple[int, int, int], lo: int, hi: int, nuclei: F32, seed: int) -> U16:
    """The planes ``lo`` to ``hi`` of the volume, uint16 ``(hi - lo, y, x)``."""
    _, height, width = shape
    photons = np.empty((hi - lo, height, width), np.float32)
    haze_y = 1 + 0.5 * np.sin(np.linspace(0.3, 2.6, height, dtype=np.float32))
    haze_x = 1 + 0.5 * np.sin(np.linspace(0.2, 2.9, width, dtype=np.float32))
    photons[...] = 6 * haze_y[:, None] * haze_x
    for nucleus in nuclei:
        box = [
            slice(max(start, int(c - 3 * s)), min(stop, int(c + 3 * s) + 2))
            for (start, stop), c, s in zip(
                ((lo, hi), (0, height), (0, width)), nucleus[:3], nucleus[3:6], strict=True
            )
        ]
        if any(b.stop <= b.start for b in box):
            continue
        # A Gaussian is the product of its three profiles.
        z, y, x = (
            np.exp(-0.5 * ((np.arange(b.start, b.stop, dtype=np.float32) - c) / s) ** 2)
            for b, c, s in zip(box, nucleus[:3], nucleus[3:6], strict=True)
        )
        inside = (slice(box[0].start - lo, box[0].stop - lo), box[1], box[2])
        photons[inside] += (nucleus[6] * z)[:, None, None] * (y[:, None] * x)
    counts = np.empty(photons.shape, np.uint16)
    for i, plane in enumerate(photons):
        rng = np.random.default_rng((seed, lo + i))  # per plane: slabs may be of any thickness
        noise = rng.standard_normal(plane.shape, np.float32)
        # Shot noise as a normal of the same variance, the camera's own noise added to it.
        noise *= np.sqrt(plane + np.float32(READ_NOISE**2))
        noise += plane
        noise += np.float32(CAMERA_OFFSET)
        np.clip(noise, 0, 65535, out=noise)
        counts[i] = noise
    return counts


def make_volume(
    shape: tuple[int, int, int], *, seed: int = 7, slab: int = 16
) -> Iterator[tuple[slice, U16]]:
    """Yield ``(planes, counts)`` slab by slab.

    Examples
    --------
    >>> slabs = list(make_volume((40, 64, 64)))
    >>> [(planes.start, planes.stop) for planes, _ in slabs]
    [(0, 16), (16, 32), (32, 40)]
    >>> slabs[0][1].shape, slabs[0][1].dtype
    ((16, 64, 64), dtype('uint16'))
    """
    nuclei = nuclei_of(shape, seed)
    for lo in range(0, shape[0], slab):
        hi = min(shape[0], lo + slab)
        yield slice(lo, hi), render_slab(shape, lo, hi, nuclei, seed)


def stretch(image: npt.NDArray[Any]) -> npt.NDArray[np.uint8]:
    """Map a 2-D image to 0..255 so that all but its darkest and brightest pixels differ."""
    values = image.astype(np.float32)
    finite = values[np.isfinite(values)]
    low, high = np.percentile(finite, (1.0, 99.7)) if finite.size else (0.0, 1.0)
    scale = 255 / (high - low) if high > low else 0.0
    values = np.nan_to_num(values, nan=low, posinf=high, neginf=low)
    return np.clip((values - low) * scale, 0, 255).astype(np.uint8)


def shrink(image: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Keep every n-th pixel, so that the longer edge fits the picture."""
    step = max(1, -(-max(image.shape) // PICTURE_EDGE))
    return image[::step, ::step]


def save_picture(values: npt.NDArray[Any], path: Path) -> bool:
    """Save the middle slice and, where there is depth, the maximum projection beside it, as PNG.

    Parameters
    ----------
    values
        Numbers of any shape; the last two axes are the image, the one before them the depth, and
        of any other the middle is taken.
    path
        Where to save.

    Returns
    -------
    bool
        Whether there was anything to draw: False for text, for complex numbers, and below two
        dimensions.

    Raises
    ------
    MissingDependencyError
        Pillow is not installed.
    """
    if values.ndim < 2 or values.size == 0 or values.dtype.kind not in "biuf":
        return False
    try:
        from PIL import Image
    except ImportError as error:
        message = "saving a picture needs Pillow: pip install 'zarr-gpu[cli]'"
        raise MissingDependencyError(message) from error
    while values.ndim > 3:
        values = values[values.shape[0] // 2]
    panels = [values if values.ndim == 2 else values[values.shape[0] // 2]]
    if values.ndim == 3 and len(values) > 1:
        panels.append(values.max(axis=0))
    drawn = [stretch(shrink(panel)) for panel in panels]
    gap = np.full((drawn[0].shape[0], 8), 255, np.uint8)
    row = drawn[0] if len(drawn) == 1 else np.concatenate([drawn[0], gap, drawn[1]], axis=1)
    Image.fromarray(row).save(path, format="PNG")
    return True
