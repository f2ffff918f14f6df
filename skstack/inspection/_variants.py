"""The same stack with fewer parts: what to compare it with."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from sklearn.pipeline import Pipeline

from skstack._base.params import clone_part, draw_seed, set_missing_seeds
from skstack._stack.base import Stack
from skstack._stack.branches import branch_list

ALONE = "downstream alone"


@dataclass(frozen=True)
class Variant:
    """An estimator to score, and what it is compared with.

    Parameters
    ----------
    name : str

    estimator : estimator
        A clone of the whole, with other parameters.

    against : str, default=""
        Name of the variant that it is compared with.

    change : str, default=""
        Subject and verb of a sentence that says what the comparison shows.
    """

    name: str
    estimator: Any
    against: str = ""
    change: str = ""


def stack_of(estimator):
    """The stack that an estimator is, or ends in.

    Raises
    ------
    TypeError
        If it is none.
    """
    last = _last(estimator)
    if not isinstance(last, Stack):
        raise TypeError(
            f"estimator={estimator!r} must be a StackedKerasClassifier, a StackedKerasRegressor, "
            "or a Pipeline that ends in one."
        )
    return last


def seeded(estimator):
    """Clone an estimator with one seed for all of its variants, where none was given.

    Returns
    -------
    estimator
        The clone.

    seed : int or None
        What was drawn for the stack; None where it has a ``random_state``. Steps before it that
        have none get one, too.
    """
    stack_of(estimator)
    estimator = clone_part(estimator)
    stack, seed = stack_of(estimator), None
    if stack.random_state is None:
        seed = draw_seed(None)
        stack.set_params(random_state=seed)
    if stack is not estimator:
        for _, step in estimator.steps[:-1]:
            set_missing_seeds(step, 0 if seed is None else seed, scikeras=False)
    return estimator, seed


def variants_of(estimator):
    """List the variants of a stack that show what each of its parts brings.

    Branches are compared with fine-tuning and a teacher's loss off, for these may name a branch
    that is dropped; both are then switched on beside all branches.

    Parameters
    ----------
    estimator : stack, or Pipeline that ends in one

    Returns
    -------
    variants : list of Variant
        The downstream alone is the first.

    notes : list of str
        What a reader of the comparison must know.

    Raises
    ------
    ValueError
        If the stack has no branch.
    """
    stack = stack_of(estimator)
    names = [name for name, _, _ in branch_list(stack)]
    if not names:
        raise ValueError(
            f"upstream={stack.upstream!r} has no branch that is not dropped: there is nothing to "
            "compare the downstream with."
        )
    listed = isinstance(stack.upstream, list)
    fine_tune = stack.get_params(deep=False).get("fine_tune")
    loss = _teacher_loss(stack)

    def variant(kept=names, tuned=False, taught=False, **settings):
        changed = clone_part(estimator)
        its = stack_of(changed)
        its.set_params(**settings)
        for name in names:
            if name not in kept:
                its.set_params(**({name: "drop"} if listed else {"upstream": []}))
        if fine_tune is not None and not tuned:
            its.set_params(fine_tune=None)
        if loss is not None and not taught:
            _last(its.downstream).set_params(loss=getattr(loss, "loss", None) or "auto")
        return changed

    notes, settings = [], {}
    if _is_off(stack.passthrough):
        settings = {"passthrough": True}
        notes.append(
            "passthrough is off in the stack; its downstream alone was given all columns of X, "
            "which the other variants do not pass through."
        )
    found = [Variant(ALONE, variant(kept=(), **settings))]
    for name in names:
        change = f"{name} by itself changes" if len(names) > 1 else f"{name} changes"
        found.append(Variant(f"with {name}", variant(kept=[name]), ALONE, change))
    whole = found[-1].name
    if len(names) > 1:
        whole = "all"
        found.append(Variant(whole, variant(), ALONE, "All branches together change"))
    if len(names) > 2:
        for name in names:
            kept = [other for other in names if other != name]
            change = f"Leaving {name} out changes"
            found.append(Variant(f"without {name}", variant(kept=kept), whole, change))
    tuning, teaching = "fine-tuning", type(loss).__name__
    if fine_tune is not None:
        name, change = f"{whole}, {tuning}", "Fine-tuning changes"
        found.append(Variant(name, variant(tuned=True), whole, change))
    if loss is not None:
        name, change = f"{whole}, {teaching}", f"{teaching} changes"
        found.append(Variant(name, variant(taught=True), whole, change))
    if fine_tune is not None and loss is not None:
        name, change = f"{whole}, {tuning}, {teaching}", f"Fine-tuning and {teaching} change"
        found.append(Variant(name, variant(tuned=True, taught=True), whole, change))
    return found, notes


def _last(estimator):
    while isinstance(estimator, Pipeline):
        estimator = estimator.steps[-1][1]
    return estimator


def _is_off(passthrough):
    """Whether no column passes through; callables and slices are asked by the stack."""
    if isinstance(passthrough, bool | np.bool_):
        return not passthrough
    return hasattr(passthrough, "__len__") and len(passthrough) == 0


def _teacher_loss(stack):
    """The loss of the downstream, where it learns from a teacher, too; else None."""
    downstream = _last(stack.downstream)
    if not hasattr(downstream, "get_params"):
        return None
    loss = downstream.get_params(deep=False).get("loss")
    return loss if hasattr(loss, "teacher") else None
