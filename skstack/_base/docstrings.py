"""Paragraphs that several public docstrings share."""

from __future__ import annotations

import re
import textwrap


def substitute(**paragraphs):
    """Replace lines of a class docstring that hold only ``{name}`` by shared paragraphs.

    Parameters
    ----------
    **paragraphs : str
        Text by name, without indentation.

    Returns
    -------
    callable
        A class decorator.
    """

    def fill(match):
        return textwrap.indent(paragraphs[match[2]].strip("\n"), match[1])

    def decorate(cls):
        if cls.__doc__ is not None:  # stripped by `python -OO`
            cls.__doc__ = re.sub(r"^( *)\{(\w+)\}$", fill, cls.__doc__, flags=re.MULTILINE)
        return cls

    return decorate
