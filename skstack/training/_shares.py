"""Smaller steps for some variables: what learning rates by layer are."""

from __future__ import annotations

import tensorflow as tf


def share_steps(optimizer, shares) -> None:
    """Have an optimizer take only a share of each step with some variables.

    A smaller gradient would not do: Adam and its kin divide by its size. Of the step itself a share
    is a share of the learning rate, and of weight decay, for every rule that is linear in it.

    Parameters
    ----------
    optimizer : keras.optimizers.Optimizer
        Of one program alone. Changed.
    shares : list of (keras.Variable, float)
    """
    if not shares:
        return
    optimizer = getattr(optimizer, "inner_optimizer", optimizer)  # mixed_float16: wrapped
    share_of = {id(variable.value): (variable.value, share) for variable, share in shares}
    apply, update_step, before = optimizer.apply, optimizer.update_step, {}

    def applied(gradients, trainable_variables=None):
        # Decay changes them before the step, the moving average looks at them after it.
        before.update((key, tf.identity(own)) for key, (own, _) in share_of.items())
        return apply(gradients, trainable_variables)

    def updated(gradient, variable, learning_rate):
        update_step(gradient, variable, learning_rate)
        if id(variable) in share_of:
            (own, share), old = share_of[id(variable)], before[id(variable)]
            own.assign(old + tf.cast(share, old.dtype) * (own - old))

    # The instance's __dict__, for Keras tracks attributes that are set the usual way.
    vars(optimizer).update(apply=applied, update_step=updated)


def apply_without_reducing(optimizer) -> None:
    """Have an optimizer skip the sum of gradients over replicas where there is only one.

    TensorFlow registers a gradient for each such sum, for ever, and that keeps the traced graph.
    """
    optimizer = getattr(optimizer, "inner_optimizer", optimizer)  # mixed_float16: wrapped
    apply = optimizer.apply

    def applied(gradients, trainable_variables=None):
        if tf.distribute.has_strategy() or tf.distribute.in_cross_replica_context():
            return apply(gradients, trainable_variables)
        replica = tf.distribute.get_replica_context()
        return replica.merge_call(lambda _: apply(gradients, trainable_variables))

    vars(optimizer)["apply"] = applied
