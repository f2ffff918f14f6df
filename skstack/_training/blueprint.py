"""What the training engine needs of a network."""

from __future__ import annotations

from collections.abc import Hashable
from typing import Any, Protocol


class Blueprint(Protocol):
    """A network that can be built any number of times.

    Implemented by the recipes, the adopted and frozen models of ``networks``, the networks with a
    teacher of ``losses``, and the joint network of a stack.
    """

    @property
    def key(self) -> Hashable | None:
        """Equal for blueprints that build equal networks; None if that is unknown.

        A network without a key is compiled for one fit only.
        """

    def build(self) -> Any:
        """Build an uncompiled ``keras.Model``, with initial weights of its own."""
