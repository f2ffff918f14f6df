"""Preprocessing of X for networks: columns, blocks of columns, padding and profiles."""

from skstack.preprocessing._open_table import open_table
from skstack.preprocessing._pad_sequences import PadSequences

__all__ = ["PadSequences", "open_table"]
