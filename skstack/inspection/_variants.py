"""Variants of a stack with some of its parts."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from skstack._base.params import clone_part, draw_seed, is_bool, last_step, set_missing_seeds
from skstack._base.tables import column_indices
from skstack._stack.base import Stack
from skstack._stack.blending import blend_plan
from skstack._stack.branches import branch_list

ALONE = "downstream alone"


@dataclass(frozen=True)
class Variant:
    """A clone of the estimator with other parameters, and the variant that it is compared with.

    `change` is the subject and verb of the sentence on the comparison.
    """

    name: str
    estimator: Any
    against: str = ""
    change: str = ""


def stack_of(estimator):
    """The stack that an estimator is, or ends in."""
    last = last_step(estimator)
    if not isinstance(last, Stack):
        raise TypeError(
            f"estimator={estimator!r} must be a StackedKerasClassifier, a StackedKerasRegressor, "
            "or a Pipeline that ends in one."
        )
    return last


def seeded(estimator):
    """A clone with one seed for all variants, and the seed drawn for it, or None.

    A seed is drawn if the stack has no ``random_state``; steps before it without one get one, too.
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


def variants_of(estimator, X):
    """The variants that show the gain of each part, the downstream alone first, and notes on them.

    Branches are compared without fine-tuning and without a teacher's loss, which may refer to a
    dropped branch; both are then evaluated with all branches.
    """
    stack = stack_of(estimator)
    names = [name for name, _, _ in branch_list(stack)]
    if not names:
        raise ValueError(
            f"upstream={stack.upstream!r} has no branches, so that there is nothing to compare the "
            "downstream with."
        )
    is_list = isinstance(stack.upstream, list)
    fine_tune = stack.get_params(deep=False).get("fine_tune")
    loss = _teacher_loss(stack)

    def variant(kept=names, tuned=False, taught=False, **settings):
        changed = clone_part(estimator)
        own = stack_of(changed)
        own.set_params(**settings)
        dropped = [name for name in names if name not in kept]
        for name in dropped:
            own.set_params(**({name: "drop"} if is_list else {"upstream": []}))
        if dropped:
            if is_bool(own.blend, True):  # one part may be left, of which there is no blend
                own.set_params(blend="auto")
            _set_parts_left(own, dropped)
        if fine_tune is not None and not tuned:
            own.set_params(fine_tune=None)
        if loss is not None and not taught:
            last_step(own.downstream).set_params(loss=getattr(loss, "loss", None) or "auto")
        return changed

    notes, settings = [], {}
    if _is_off(stack.passthrough, X if stack is estimator else None):
        settings = {"passthrough": True}
        notes.append(
            "passthrough is off in the stack; only in the variant 'downstream alone' does the "
            "downstream receive the columns of X."
        )
    variants = [Variant(ALONE, variant(kept=(), **settings))]
    for name in names:
        change = f"{name} by itself changes" if len(names) > 1 else f"{name} changes"
        variants.append(Variant(f"with {name}", variant(kept=[name]), ALONE, change))
    whole = variants[-1].name
    if len(names) > 1:
        whole = "all"
        variants.append(Variant(whole, variant(), ALONE, "All branches together change"))
    if len(names) > 2:
        for name in names:
            kept = [other for other in names if other != name]
            change = f"Leaving {name} out changes"
            variants.append(Variant(f"without {name}", variant(kept=kept), whole, change))
    tuning, teaching = "fine-tuning", type(loss).__name__
    if fine_tune is not None:
        name, change = f"{whole}, {tuning}", "Fine-tuning changes"
        variants.append(Variant(name, variant(tuned=True), whole, change))
    if loss is not None:
        name, change = f"{whole}, {teaching}", f"{teaching} changes"
        variants.append(Variant(name, variant(taught=True), whole, change))
    if fine_tune is not None and loss is not None:
        name, change = f"{whole}, {tuning}, {teaching}", f"Fine-tuning and {teaching} change"
        variants.append(Variant(name, variant(tuned=True, taught=True), whole, change))
    return variants, notes


def _set_parts_left(stack, dropped):
    """Blend the parts that were named and are left, and no other ones."""
    named, stack.blend_parts = stack.blend_parts, None
    if not isinstance(named, list | tuple):  # None, or what `fit` refuses
        return
    left = [part for part in named if part not in dropped]
    try:
        blended = blend_plan(stack).parts
    except (TypeError, ValueError):  # invalid parameters: `fit` says why
        return
    if len(left) > 1 and set(left) != set(blended):
        stack.blend_parts = left
    elif len(left) < 2 and blended:
        stack.blend = False


def _is_off(passthrough, X):
    """Whether no column passes through; X is None if the stack receives other columns."""
    if isinstance(passthrough, bool | np.bool_):
        return not passthrough
    if X is None:
        return hasattr(passthrough, "__len__") and len(passthrough) == 0
    X = X if hasattr(X, "shape") else np.asarray(X, dtype=object)
    try:
        return len(column_indices(X, passthrough, "passthrough")) == 0
    except ValueError:  # `fit` says why
        return False


def _teacher_loss(stack):
    """The loss of the downstream if it has a teacher, else None."""
    downstream = last_step(stack.downstream)
    if not hasattr(downstream, "get_params"):
        return None
    loss = downstream.get_params(deep=False).get("loss")
    return loss if hasattr(loss, "teacher") else None
