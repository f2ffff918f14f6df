"""Paragraphs that several public docstrings share."""

from __future__ import annotations

import re
import textwrap


def substitute(**paragraphs):
    """Decorator that replaces lines of a docstring that hold only ``{name}`` by ``paragraphs``."""

    def fill(match):
        return textwrap.indent(paragraphs[match[2]].strip("\n"), match[1])

    def decorate(documented):
        if documented.__doc__ is not None:  # stripped by `python -OO`
            pattern = r"^( *)\{(\w+)\}$"
            documented.__doc__ = re.sub(pattern, fill, documented.__doc__, flags=re.MULTILINE)
        return documented

    return decorate
