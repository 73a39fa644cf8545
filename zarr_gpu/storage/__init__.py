"""Stores: where keys and their bytes live."""
