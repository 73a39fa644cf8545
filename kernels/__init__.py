"""Kernels, imported as ``zarr_gpu.kernels``.

Numba only; imports nothing of ``zarr_gpu``.  Every kernel takes (buffer, offset table) and never a
raw pointer, checks its bounds against input and output, and reports damaged data as a status.
"""
