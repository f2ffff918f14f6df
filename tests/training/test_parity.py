"""The compiled engines learn what `keras.Model.fit` learns on the same batches."""

import functools

import keras
import numpy as np
import pytest
import tensorflow as tf

from skstack._training.config import StepRules, TrainConfig, TrainingData
from skstack._training.data import Orders
from skstack._training.engines import EXACT, GRAPH, MASKED, STEPWISE, choose
from skstack._training.initial_weights import initial_variables
from skstack._training.isolation import build
from skstack._training.keras_model import named_variables
from skstack._training.optimizers import update_in_few_operations
from skstack._training.program import POOL
from skstack._training.train import train

N_FEATURES = 6
ENGINES = ("graph", "stepwise", "xla")
each_engine = pytest.mark.parametrize("engine", ENGINES)
schedules = keras.optimizers.schedules


def inputs():
    return {"numeric": keras.Input((N_FEATURES,), name="numeric")}


def head(x):
    return keras.layers.Dense(1, activation="sigmoid", name="output")(x)


def mlp():
    i = inputs()
    return keras.Model(i, head(keras.layers.Dense(8, activation="relu")(i["numeric"])))


def dense_kinds():
    """Return an embedding, penalties of weights, and constrained weights."""
    i = {"job": keras.Input((), name="job", dtype="int32"), **inputs()}
    x = keras.layers.Concatenate()([keras.layers.Embedding(5, 3)(i["job"]), i["numeric"]])
    penalty = keras.regularizers.L1L2(0.002, 0.01)
    x = keras.layers.Dense(8, "tanh", kernel_regularizer=penalty, bias_regularizer="l2")(x)
    x = keras.layers.Dense(5, "tanh", kernel_constraint=keras.constraints.MaxNorm(0.7))(x)
    return keras.Model(i, head(x))


def normalised():
    i = inputs()
    x = keras.layers.Dense(8, use_bias=False)(i["numeric"])
    return keras.Model(i, head(keras.layers.BatchNormalization()(x)))


def activity():
    i = inputs()
    dense = keras.layers.Dense(8, "tanh", activity_regularizer=keras.regularizers.L2(0.01))
    return keras.Model(i, head(dense(i["numeric"])))


def masked_lstm():
    i = {"tokens": keras.Input((7,), name="tokens", dtype="int32")}
    x = keras.layers.Embedding(9, 4, mask_zero=True)(i["tokens"])
    return keras.Model(i, head(keras.layers.LSTM(5)(x)))


def series():
    """Return a recurrent layer and a convolution of the same steps."""
    i = {"series": keras.Input((7, 2), name="series")}
    convolved = keras.layers.Conv1D(4, 3, activation="relu")(i["series"])
    x = [keras.layers.LSTM(5)(i["series"]), keras.layers.Flatten()(convolved)]
    return keras.Model(i, head(keras.layers.Concatenate()(x)))


def masked_outputs():
    """A mask that reaches the loss: steps that are not there have no loss."""
    i = {"tokens": keras.Input((7,), name="tokens", dtype="int32")}
    x = keras.layers.Embedding(9, 4, mask_zero=True)(i["tokens"])
    return keras.Model(i, keras.layers.TimeDistributed(keras.layers.Dense(1))(x))


def attention():
    i = {"series": keras.Input((7, 2), name="series")}
    x = keras.layers.MultiHeadAttention(2, 3)(i["series"], i["series"])
    return keras.Model(i, head(keras.layers.GlobalAveragePooling1D()(x)))


def two_and_two():
    i = {"series": keras.Input((7, 2), name="series"), **inputs()}
    x = keras.layers.Conv1D(4, 3)(i["series"])
    x = keras.layers.Concatenate()([keras.layers.Flatten()(x), i["numeric"]])
    x = keras.layers.Dense(8, "relu")(x)
    return keras.Model(i, [head(x), keras.layers.Dense(2, name="second")(x)])


def sequential():
    return keras.Sequential(
        [
            keras.Input((N_FEATURES,)),
            keras.layers.Dense(8, "relu"),
            keras.layers.Dense(1, "sigmoid"),
        ]
    )


class Subclassed(keras.Model):
    def __init__(self):
        super().__init__()
        self.hidden = keras.layers.Dense(8, "relu")
        self.last = keras.layers.Dense(1, "sigmoid")

    def build(self, input_shape):
        self.hidden.build(input_shape)
        self.last.build((None, 8))
        super().build(input_shape)

    def call(self, x):
        return self.last(self.hidden(x))


def subclassed():
    model = Subclassed()
    model.build((None, N_FEATURES))
    return model


class Halved(keras.Model):
    """Clips its gradients, halves its loss, and records a metric."""

    def train_step(self, data):
        import tensorflow as tf

        x, y, weights = keras.utils.unpack_x_y_sample_weight(data)
        with tf.GradientTape() as tape:
            loss = 0.5 * self.compute_loss(
                y=y, y_pred=self(x, training=True), sample_weight=weights
            )
        gradients = tape.gradient(loss, self.trainable_weights)
        gradients, norm = tf.clip_by_global_norm(gradients, 0.05)
        self.optimizer.apply(gradients, self.trainable_weights)
        return {"loss": loss, "norm": norm}


def own_step():
    i = inputs()
    return Halved(i, head(keras.layers.Dense(8, activation="relu")(i["numeric"])))


def rows_for(make, binary_rows, weights=False, n_rows=75):
    rows = binary_rows(n_rows, weights=weights)
    model = make()
    generator = np.random.default_rng(1)
    numeric = rows.inputs["numeric"]
    # Tokens end in padding; every row has at least one.
    lengths = generator.integers(1, 8, n_rows)[:, None]
    tokens = generator.integers(1, 9, (n_rows, 7)) * (np.arange(7) < lengths)
    known = {
        "numeric": numeric,
        "job": generator.integers(0, 5, n_rows).astype("int32"),
        "tokens": tokens.astype("int32"),
        "series": np.repeat(numeric[:, None, :2], 7, axis=1)
        + generator.normal(size=(n_rows, 7, 2)).astype("float32"),
    }
    wanted = model.input if isinstance(getattr(model, "input", None), dict) else {"numeric": 0}
    targets = rows.targets
    if make is masked_outputs:
        targets = generator.normal(size=(n_rows, 7, 1)).astype("float32")
    if make is two_and_two:
        targets = [targets, numeric[:, 2:4] ** 2]
    return TrainingData({name: known[name] for name in wanted}, targets, rows.weights)


LOSSES = {masked_outputs: "mse", two_and_two: ["binary_crossentropy", "mse"]}


def plan_for(make, optimizer="adam", **settings):
    loss = LOSSES.get(make, "binary_crossentropy")
    return TrainConfig(loss, optimizer, **{"epochs": 3, "seed": 3, **settings})


def reference(blueprint, start, rows, plan, optimizer, **arguments):
    """Train with Keras' own `fit`, on our order of rows; few rows eagerly, without compilation."""
    model, eager = build(blueprint), len(rows) < 500
    for path, variable in named_variables(model).items():
        variable.assign(start[path])
    model.compile(optimizer, plan.loss, metrics=list(plan.metrics) or None, run_eagerly=eager)
    model.optimizer.build(model.trainable_variables)  # from these weights, not inside a trace
    order_of = Orders(plan.seed, len(rows))
    several = isinstance(rows.targets, list)
    losses = []
    for epoch in range(plan.epochs):
        order = order_of.next(1)[0]
        x = {name: array[order] for name, array in rows.inputs.items()}
        x = x if isinstance(getattr(model, "input", None), dict) else x["numeric"]
        w = None if rows.weights is None else (rows.weights / rows.weights.mean())[order]
        history = model.fit(
            x,
            [target[order] for target in rows.targets] if several else rows.targets[order],
            sample_weight=w,
            batch_size=plan.batch_size,
            shuffle=False,
            verbose=0,
            initial_epoch=epoch,
            epochs=epoch + 1,
            **arguments,
        )
        losses += history.history["loss"]
    return {path: v.numpy().copy() for path, v in named_variables(model).items()}, losses


def assert_close(found, expected, rtol=1e-5, *, ignored=()):
    for path, array in expected.items():
        if array.dtype.kind == "f" and not any(name in path for name in ignored):
            scale = np.abs(array).max() + 1e-3
            np.testing.assert_allclose(
                found[path], array, atol=rtol * scale, rtol=rtol, err_msg=path
            )


OPTIMIZERS = {
    "SGD, schedule": lambda: keras.optimizers.SGD(
        schedules.ExponentialDecay(0.1, 3, 0.7), momentum=0.5
    ),
    "SGD, accumulating": lambda: keras.optimizers.SGD(0.05, gradient_accumulation_steps=2),
    "Adam, decay and clipping": lambda: keras.optimizers.Adam(
        0.01, weight_decay=0.02, clipnorm=0.1
    ),
    "SGD, momentum": lambda: keras.optimizers.SGD(0.05, momentum=0.9, nesterov=True),
    "Adam": lambda: keras.optimizers.Adam(0.01),
    "SGD": lambda: keras.optimizers.SGD(0.05),
    "SGD, cosine": lambda: keras.optimizers.SGD(schedules.CosineDecay(0.1, 5, warmup_steps=2)),
    "Adam, clipped values": lambda: keras.optimizers.Adam(0.01, clipvalue=0.01),
    "Adam, clipped at once": lambda: keras.optimizers.Adam(0.01, global_clipnorm=0.05),
    "Adam, amsgrad": lambda: keras.optimizers.Adam(0.01, amsgrad=True),
    "AdamW": lambda: keras.optimizers.AdamW(0.01),
    "Adamax": lambda: keras.optimizers.Adamax(0.01),
    "Adadelta": lambda: keras.optimizers.Adadelta(0.5),
    "Adafactor": lambda: keras.optimizers.Adafactor(0.01),
    "Adagrad": lambda: keras.optimizers.Adagrad(0.05),
    "Lamb": lambda: keras.optimizers.Lamb(0.01),
    "Lion": lambda: keras.optimizers.Lion(0.005),
    "Muon": lambda: keras.optimizers.Muon(0.01),
    "Nadam": lambda: keras.optimizers.Nadam(0.01),
    "RMSprop": lambda: keras.optimizers.RMSprop(0.005, momentum=0.5, centered=True),
    "Ftrl": lambda: keras.optimizers.Ftrl(0.05),
}
# Not in the oldest Keras that is supported.
if hasattr(keras.optimizers, "ScheduleFreeAdamW"):
    OPTIMIZERS["ScheduleFreeAdamW"] = lambda: keras.optimizers.ScheduleFreeAdamW(0.01)
if hasattr(keras.optimizers, "MultiOptimizer"):
    OPTIMIZERS["MultiOptimizer"] = lambda: keras.optimizers.MultiOptimizer(
        keras.optimizers.OptimizerMap(
            keras.optimizers.Adam(0.01), {"output/.*": keras.optimizers.SGD(0.05)}
        )
    )
TOLERANCES = {"Ftrl": 2e-5}
IN_ONE_FIT = {
    "EMA": lambda: keras.optimizers.SGD(0.05, use_ema=True, ema_momentum=0.9),
    "EMA, overwriting": lambda: keras.optimizers.SGD(
        0.05, use_ema=True, ema_momentum=0.9, ema_overwrite_frequency=2
    ),
}
# What becomes of the last batch of an epoch.
ENGINE_OF = {
    mlp: MASKED,
    dense_kinds: MASKED,
    normalised: MASKED,
    series: MASKED,
    two_and_two: EXACT,
    attention: EXACT,
    activity: EXACT,
    sequential: MASKED,
    masked_lstm: GRAPH,
    masked_outputs: GRAPH,
    subclassed: GRAPH,
    own_step: GRAPH,
}
# Both engines where there are two; what only the graph can train is asked to take XLA, in vain.
ENGINES_OF = [("xla", make) for make in ENGINE_OF if make not in (activity, sequential)]
ENGINES_OF += [("graph", make) for make, engine in ENGINE_OF.items() if engine is not GRAPH]
ENGINES_OF += [("stepwise", make) for make in ENGINE_OF]
FIRST = [
    ("stepwise", two_and_two, False), ("xla", mlp, True), ("stepwise", masked_outputs, False),
    ("xla", own_step, False), ("xla", masked_outputs, False),
]  # fmt: skip
# The gradients of these are exactly zero, and what is left is rounding.
DRIFTING = {attention: ("key/bias",)}


_REFERENCES = {}


def _in_keras(case, *arguments):
    """Return the reference of a case, computed once for all engines."""
    if case not in _REFERENCES:
        _REFERENCES[case] = reference(*arguments)
    return _REFERENCES[case]


def engine_used(recipe, plan):
    (program,) = [p for p in POOL.programs() if p.key is not None and recipe.key in p.key]
    return choose(program, plan, 1)[0]


FURTHER = [
    *[("xla", make, False) for make in (mlp, masked_lstm)],
    ("graph", two_and_two, False),
    *[(engine, make, True) for engine, make in ENGINES_OF if make is not masked_outputs],
]  # Keras takes no weights of rows for outputs of rank 3
CASES = [*FIRST, *(case for case in FURTHER if case not in FIRST)]


@pytest.mark.slow(first=5)
@pytest.mark.parametrize(
    ("engine", "make", "weights"),
    CASES,
    ids=lambda part: "weighted" if part is True else getattr(part, "__name__", part or ""),
)
def test_networks_learn_the_same_as_in_keras(engine, make, weights, blueprint, binary_rows):
    rows = rows_for(make, binary_rows, weights)
    recipe = blueprint(make, key=f"{make.__name__} {engine} {weights}")
    plan = plan_for(make, engine=engine)
    start = initial_variables(recipe, 0)
    asked_in_vain = engine == "xla" and ENGINE_OF[make] is GRAPH
    if asked_in_vain:
        with pytest.warns(UserWarning, match="without XLA"):
            fit = train(recipe, start, rows, plan)
    else:  # a warning, an error here, would mean another engine
        fit = train(recipe, start, rows, plan)
        expected_engine = {"xla": ENGINE_OF[make], "graph": GRAPH, "stepwise": STEPWISE}[engine]
        assert engine_used(recipe, plan) == expected_engine
    expected, losses = _in_keras((make, weights), recipe, start, rows, plan, "adam")
    assert_close(fit.network.variables, expected, ignored=DRIFTING.get(make, ()))
    if make not in (own_step, masked_outputs):  # those logs are no means over rows
        np.testing.assert_allclose(fit.history["loss"], losses, rtol=1e-5)
    if make is own_step:
        np.testing.assert_allclose(fit.history["loss"], losses, rtol=1e-4)
        assert len(fit.history["norm"]) == 3


@pytest.mark.slow(first=3)
@pytest.mark.parametrize("name", OPTIMIZERS)
@pytest.mark.parametrize("engine", ["stepwise", "graph", "xla"])
def test_optimizers_learn_the_same_as_in_keras(engine, name, blueprint, binary_rows):
    rows, recipe = binary_rows(), blueprint(mlp)
    given = OPTIMIZERS[name]()
    plan = plan_for(mlp, given, engine=engine)
    start = initial_variables(recipe, 0)
    fit = train(recipe, start, rows, plan)
    expected, _ = _in_keras(name, recipe, start, rows, plan, OPTIMIZERS[name]())
    assert_close(fit.network.variables, expected, TOLERANCES.get(name, 1e-5))
    assert not given.built, "the user's optimizer was used"


def test_every_optimizer_of_keras_is_compared():
    abstract = (keras.optimizers.Optimizer, keras.optimizers.LossScaleOptimizer)
    known = {
        name
        for name, value in vars(keras.optimizers).items()
        if isinstance(value, type)
        and issubclass(value, keras.optimizers.Optimizer)
        and value not in abstract
    }
    assert known == {name.partition(",")[0] for name in OPTIMIZERS}


OF_ADAM = {
    "adam": lambda: keras.optimizers.Adam(0.01),
    "AdamW, decay and clipping": lambda: keras.optimizers.AdamW(0.01, 0.1, global_clipnorm=0.5),
    "a schedule": lambda: keras.optimizers.Adam(
        keras.optimizers.schedules.ExponentialDecay(0.01, 2, 0.5), beta_1=0.8, epsilon=1e-3
    ),
    "accumulated gradients": lambda: keras.optimizers.Adam(0.01, gradient_accumulation_steps=2),
    "moving averages": lambda: keras.optimizers.Adam(0.01, use_ema=True),
    "amsgrad": lambda: keras.optimizers.Adam(0.01, amsgrad=True),
    "scaled loss": lambda: keras.optimizers.LossScaleOptimizer(keras.optimizers.Adam(0.01)),
}


def _of_flat(function):
    return lambda *arguments: function(arguments)


@pytest.mark.parametrize(
    ("name", "dtype"),
    [*((name, "float32") for name in OF_ADAM), ("adam", "float64"), ("adam", "bfloat16")],
)
def test_steps_of_few_operations_are_those_of_keras(name, dtype):
    rng = np.random.default_rng(0)
    shapes = [(3, 2), (2,), (2, 4), ()]
    gradients = [[rng.normal(size=shape).astype("float32") for shape in shapes] for _ in range(5)]
    gradients[2][1] *= 0.0
    weights, counts = [], []
    for changed in (False, True):
        optimizer = OF_ADAM[name]()
        variables = [keras.Variable(np.full(shape, 0.5), dtype=dtype) for shape in shapes]
        if changed:
            update_in_few_operations(optimizer, variables)
        optimizer.build(variables)
        apply = functools.partial(optimizer.apply, trainable_variables=variables)
        step = tf.function(_of_flat(apply), autograph=False)
        for own in gradients:
            step(*map(tf.constant, own))
        weights.append([variable.numpy() for variable in variables])
        graph = step.get_concrete_function(*map(tf.constant, gradients[0])).graph
        counts.append(len(graph.get_operations()))
    for own, expected in zip(*weights, strict=True):
        np.testing.assert_array_equal(own, expected)
        assert dtype == "bfloat16" or (own != 0.5).all()
    if dtype != "float64" and name in (
        "adam",
        "AdamW, decay and clipping",
        "a schedule",
        "moving averages",
    ):
        assert counts[1] < 0.8 * counts[0]


@pytest.mark.slow
@pytest.mark.parametrize("name", IN_ONE_FIT)
@each_engine
def test_moving_averages_are_finalized_as_in_keras(engine, name, blueprint, binary_rows):
    """Keras averages at the end of each fit, so that the reference is one fit of three epochs."""
    rows, recipe = binary_rows(), blueprint(mlp)
    start = initial_variables(recipe, 0)
    fit, expected = (
        train(recipe, start, rows, plan_for(mlp, IN_ONE_FIT[name](), engine=each))
        for each in (engine, "keras")
    )
    assert_close(fit.network.variables, expected.network.variables)


@pytest.mark.slow(first=1)
@pytest.mark.parametrize(
    ("policy", "tolerance"), [("mixed_float16", 2e-3), ("mixed_bfloat16", 7e-2)]
)
def test_mixed_precision(policy, tolerance, blueprint, binary_rows):
    def build():
        i = inputs()
        x = keras.layers.Dense(8, activation="relu", dtype=policy)(i["numeric"])
        return keras.Model(i, keras.layers.Dense(1, "sigmoid", dtype="float32")(x))

    rows, recipe = binary_rows(), blueprint(build)
    start = initial_variables(recipe, 0)
    plan = plan_for(mlp)
    fit = train(recipe, start, rows, plan)
    expected, _ = reference(recipe, start, rows, plan, "adam")
    assert_close(fit.network.variables, expected, tolerance)


@pytest.mark.slow(first=1)
@pytest.mark.parametrize(
    ("dtype", "tolerance", "engine"),
    [
        ("float16", 2e-2, "stepwise"),
        ("float64", 1e-5, "keras"),
        ("float64", 1e-5, "stepwise"),
        ("float16", 2e-2, "keras"),
        ("bfloat16", 0.1, "stepwise"),
        ("bfloat16", 0.1, "keras"),
    ],
)
def test_the_norm_of_gradients_of_several_dtypes(dtype, tolerance, engine, blueprint, binary_rows):
    """Keras cannot clip it: it multiplies all gradients by a scale of one dtype."""

    def build(hidden):
        i = inputs()
        x = keras.layers.Dense(8, activation="tanh", dtype=hidden)(i["numeric"])
        return keras.Model(i, keras.layers.Dense(1, "sigmoid", dtype="float32")(x))

    rows, clipped = binary_rows(), keras.optimizers.SGD(0.5, global_clipnorm=0.1)
    recipes = [blueprint(functools.partial(build, each)) for each in ("float32", dtype)]
    start = initial_variables(recipes[0], 0)
    single, other = (
        train(recipe, start, rows, plan_for(mlp, clipped, engine=engine)).network.variables
        for recipe in recipes
    )
    assert str(other["dense/kernel"].dtype) == dtype
    assert_close(other, single, tolerance)
    free = train(recipes[1], start, rows, plan_for(mlp, keras.optimizers.SGD(0.5), engine=engine))
    assert np.abs(free.network.variables["dense/kernel"] - other["dense/kernel"]).max() > 0.1
    scaled = keras.optimizers.SGD(0.5, global_clipnorm=0.1, loss_scale_factor=64.0)
    same = train(recipes[1], start, rows, plan_for(mlp, scaled, engine=engine))
    assert_close(same.network.variables, other, tolerance)


def scheduled(optimizer, rows, blueprint, *, epochs, **settings):
    """Full-batch steps of a linear model whose learning rate falls in the second half of a fit."""

    def build():
        i = inputs()
        return keras.Model(i, keras.layers.Dense(1, use_bias=False)(i["numeric"]))

    recipe = blueprint(build)
    config = TrainConfig(
        "mse", optimizer, epochs=epochs, batch_size=len(rows), rules=StepRules("flat_cos")
    )
    return train(recipe, {"dense/kernel": np.zeros((6, 1), "float32")}, rows, config, **settings)


def test_a_schedule_counts_steps_that_accumulate_gradients(blueprint, binary_rows):
    rows = binary_rows()
    fit = scheduled(
        keras.optimizers.SGD(0.1, gradient_accumulation_steps=2), rows, blueprint, epochs=8
    )
    x, weights = rows.inputs["numeric"], np.zeros((6, 1))
    for done in (1, 3, 5, 7):
        rate = 0.1 * (1 + np.cos(np.pi * max(2 * done / 8 - 1, 0))) / 2
        weights -= rate * 2 * x.T @ (x @ weights - rows.targets) / len(x)
    assert_close(fit.network.variables, {"dense/kernel": weights})


def test_a_schedule_starts_again_where_losses_are_scaled(blueprint, binary_rows):
    rows, fits = binary_rows(), []
    for wrapped in (lambda each: each, keras.optimizers.LossScaleOptimizer):
        optimizer = wrapped(keras.optimizers.SGD(0.1))
        first = scheduled(optimizer, rows, blueprint, epochs=4)
        start = first.optimizer_variables
        fits.append(scheduled(optimizer, rows, blueprint, epochs=4, optimizer_start=start))
    plain, scaled = (fit.network.variables for fit in fits)
    assert_close(scaled, plain)


@pytest.mark.slow
def test_class_weights_have_the_same_effect_as_in_keras(blueprint, binary_rows):
    rows, recipe = binary_rows(), blueprint(mlp)
    weights = np.where(rows.targets[:, 0] == 1, 3.0, 0.5)
    of_class = {1: 3.0 / weights.mean(), 0: 0.5 / weights.mean()}
    start = initial_variables(recipe, 0)
    plan = plan_for(mlp, engine="xla")
    fit = train(recipe, start, TrainingData(rows.inputs, rows.targets, weights), plan)
    expected, _ = reference(recipe, start, rows, plan, "adam", class_weight=of_class)
    assert_close(fit.network.variables, expected)


LOSSES_OF_KERAS = [
    "mse",
    "mae",
    "binary_crossentropy",
    "huber",
    "log_cosh",
    "hinge",
    "binary_focal_crossentropy",
    keras.losses.MeanSquaredError(reduction="sum"),
    keras.losses.BinaryCrossentropy(label_smoothing=0.1),
    keras.losses.Huber(reduction="mean_with_sample_weight"),
    lambda y, p: keras.ops.mean(keras.ops.abs(y - p) ** 1.5, axis=-1),
    lambda y, p: keras.ops.logsumexp(keras.ops.abs(y - p)),  # mixes rows
    "dice",
    keras.losses.Tversky(),
]


# All with XLA, which most fits of users take; in single steps those whose rows count otherwise: by
# their sum, by their weights' sum, all at once.
_CASES_OF_LOSSES = [
    *(("stepwise", True, i) for i in (7, 9, 11, 13)),
    ("stepwise", False, 9),
    *(("xla", weights, i) for weights in (True, False) for i in range(len(LOSSES_OF_KERAS))),
    *(("stepwise", False, i) for i in (7, 11, 13)),
]


@pytest.mark.slow(first=5)
@pytest.mark.parametrize(("engine", "weights", "index"), _CASES_OF_LOSSES)
def test_losses_have_the_same_values_as_in_keras(engine, weights, index, blueprint, binary_rows):
    rows, recipe = binary_rows(weights=weights), blueprint(mlp)
    start = initial_variables(recipe, 0)
    plan = TrainConfig(LOSSES_OF_KERAS[index], "sgd", epochs=3, engine=engine, learning_rate=0.02)
    fit = train(recipe, start, rows, plan)
    sgd = keras.optimizers.SGD(0.02)
    expected, _ = _in_keras((index, weights), recipe, start, rows, plan, sgd)
    assert_close(fit.network.variables, expected)


@pytest.mark.slow
@pytest.mark.parametrize("make", [normalised, sequential, subclassed])
def test_the_keras_engine_learns_the_same_as_the_graph_engine(make, blueprint, binary_rows):
    rows, recipe = rows_for(make, binary_rows, True), blueprint(make)
    held_out = rows_for(make, binary_rows, True)
    start = initial_variables(recipe, 0)
    fits = [
        train(
            recipe,
            start,
            rows,
            TrainConfig("binary_crossentropy", epochs=2, engine=engine, metrics=("accuracy",)),
            validation=held_out,
        )
        for engine in ("graph", "keras" if make is subclassed else "xla", "keras")
    ]
    *compiled, expected = fits
    for fit in compiled:
        assert_close(fit.network.variables, expected.network.variables)
        assert {"loss", "accuracy", "val_loss", "val_accuracy"} == set(fit.history)
        for name, curve in fit.history.items():
            np.testing.assert_allclose(expected.history[name], curve, rtol=1e-5, err_msg=name)


@pytest.mark.slow
def test_weighting_equals_repeating(blueprint, binary_rows):
    rows, recipe = binary_rows(40), blueprint(mlp)
    times = np.random.default_rng(0).integers(0, 4, 40)
    repeated = TrainingData(
        {"numeric": np.repeat(rows.inputs["numeric"], times, axis=0)},
        np.repeat(rows.targets, times, axis=0),
    )
    weighted = TrainingData(rows.inputs, rows.targets, times.astype(float))
    start = initial_variables(recipe, 0)
    plan = TrainConfig("binary_crossentropy", epochs=5, batch_size=200, engine="graph")
    first = train(recipe, start, weighted, plan, validation=weighted)
    second = train(recipe, start, repeated, plan, validation=repeated)
    assert_close(first.network.variables, second.network.variables)
    np.testing.assert_allclose(first.history["loss"], second.history["loss"], rtol=1e-5)
    np.testing.assert_allclose(first.history["val_loss"], second.history["val_loss"], rtol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("engine", "make"), [("graph", normalised), ("xla", normalised), ("xla", activity)]
)
def test_monitored_epochs_give_the_same_result(engine, make, blueprint, binary_rows):
    rows, recipe = binary_rows(), blueprint(make)
    start = initial_variables(recipe, 0)
    plan = TrainConfig("binary_crossentropy", epochs=13, engine=engine)
    at_once = train(recipe, start, rows, plan)
    watched = train(recipe, start, rows, plan, validation=binary_rows(seed=1))
    shown = train(
        recipe,
        start,
        rows,
        TrainConfig(
            "binary_crossentropy", epochs=13, engine=engine, callbacks=(keras.callbacks.Callback(),)
        ),
    )
    for fit in (watched, shown):
        for path, array in at_once.network.variables.items():
            np.testing.assert_array_equal(fit.network.variables[path], array)
        assert fit.history["loss"] == at_once.history["loss"]


def test_two_fits_equal_one_longer_fit(blueprint, binary_rows):
    rows, recipe = binary_rows(), blueprint(mlp)
    start = initial_variables(recipe, 0)
    plan = TrainConfig("binary_crossentropy", epochs=2, batch_size=len(rows), engine="graph")
    first = train(recipe, start, rows, plan)
    second = train(
        recipe, first.network.variables, rows, plan, optimizer_start=first.optimizer_variables
    )
    whole = train(
        recipe, start, rows, TrainConfig(plan.loss, epochs=4, batch_size=len(rows), engine="graph")
    )
    assert_close(second.network.variables, whole.network.variables)


@pytest.mark.slow(first=3)
@pytest.mark.parametrize("n_rows", [1, 32, 33, 31, 2100])
@each_engine
def test_any_number_of_rows(engine, n_rows, blueprint, binary_rows):
    """Less than a batch, whole batches, one more, and more than one block of steps."""
    rows, recipe = binary_rows(n_rows), blueprint(mlp, key="any number")
    start = initial_variables(recipe, 0)
    plan = plan_for(mlp, engine=engine, batch_size=8, epochs=2)
    fit = train(recipe, start, rows, plan)
    expected, losses = _in_keras(n_rows, recipe, start, rows, plan, "adam")
    assert_close(fit.network.variables, expected, 2e-5)
    np.testing.assert_allclose(fit.history["loss"], losses, rtol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("engine", ["graph", "stepwise", "xla"])
def test_early_stopping_stops_where_keras_stops(engine, blueprint, binary_rows):
    rows, recipe = binary_rows(60), blueprint(mlp)
    wrong = binary_rows(60, seed=1)
    flipped = np.where(np.arange(60)[:, None] % 2, wrong.targets, 1 - wrong.targets)
    held_out = TrainingData(wrong.inputs, flipped)
    start = initial_variables(recipe, 0)
    settings = {"learning_rate": 0.01, "epochs": 60, "seed": 4}
    theirs = keras.callbacks.EarlyStopping(patience=4, restore_best_weights=True)
    plan = TrainConfig("binary_crossentropy", callbacks=(theirs,), engine="keras", **settings)
    expected = train(recipe, start, rows, plan, validation=held_out)
    plan = TrainConfig("binary_crossentropy", patience=4, tol=0.0, engine=engine, **settings)
    fit = train(recipe, start, rows, plan, validation=held_out)
    assert fit.n_epochs == expected.n_epochs < 60
    assert_close(fit.network.variables, expected.network.variables, 2e-5)


def mixing(*stack, shape=(4,)):
    """Networks of Keras' own layers that nevertheless look across rows, or at odd places."""
    return lambda: keras.Sequential(
        [
            keras.Input((N_FEATURES,), name="numeric"),
            keras.layers.Dense(4),
            *[make() for make in stack],
        ]
    )


def dict_of_steps():
    i = keras.Input((32, 3), name="series")
    return keras.Model({"series": i}, {"out": keras.layers.Dense(1, name="out")(i)})


L = keras.layers
ODD = {
    "softmax over rows": (mixing(lambda: L.Softmax(axis=0), lambda: L.Dense(1)), {}),
    "a layer as activation": (
        mixing(lambda: L.Dense(4, activation=L.Softmax(axis=0)), lambda: L.Dense(1)),
        {},
    ),
    "steps as many as rows": (dict_of_steps, {"series": (32, 3)}),
}


@pytest.mark.slow(first=1)
@pytest.mark.parametrize("name", ODD)
def test_layers_that_are_not_row_independent(name, blueprint, binary_rows):
    make, shapes = ODD[name]
    rows, generator = binary_rows(75), np.random.default_rng(0)
    if shapes:
        x = generator.normal(size=(75, 32, 3)).astype("float32")
        rows = TrainingData({"series": x}, x[:, :, :1] ** 2)
    recipe = blueprint(make, key=f"odd {name}")
    start = initial_variables(recipe, 0)
    fits = [
        train(
            recipe,
            start,
            rows,
            TrainConfig("mse", "sgd", learning_rate=0.01, epochs=3, engine=engine),
        )
        for engine in ("xla", "keras")
    ]
    assert_close(fits[0].network.variables, fits[1].network.variables)


def test_dropping_all_units_does_not_divide_by_zero(blueprint, binary_rows):
    recipe = blueprint(mixing(lambda: L.Dropout(1.0), lambda: L.Dense(1)))
    start = initial_variables(recipe, 0)
    fit = train(recipe, start, binary_rows(), TrainConfig("mse", "sgd", epochs=3, engine="xla"))
    for path, array in fit.network.variables.items():
        assert np.isfinite(array).all(), path
    first = next(iter(start))  # behind it nothing passes, so that nothing comes back
    np.testing.assert_array_equal(fit.network.variables[first], start[first])


@pytest.mark.slow(first=1)
@pytest.mark.parametrize("engine", ["stepwise", "graph", "xla"])
def test_moving_averages_inside_a_wrapper(engine, blueprint, binary_rows):
    def given():
        inner = keras.optimizers.SGD(0.05, use_ema=True, ema_momentum=0.9)
        return keras.optimizers.LossScaleOptimizer(inner, initial_scale=8.0)

    rows, recipe = binary_rows(), blueprint(mlp)
    start = initial_variables(recipe, 0)
    fit, expected = (
        train(recipe, start, rows, plan_for(mlp, given(), engine=each))
        for each in (engine, "keras")
    )
    assert_close(fit.network.variables, expected.network.variables)
