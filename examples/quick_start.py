"""Quick start
===========

The README's quick start: features from a network, a whole stack, and a search over it.
"""

from sklearn.datasets import load_breast_cancer
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV, cross_val_score
from sklearn.pipeline import make_pipeline

import skstack
from skstack import (
    KerasAutoencoder,
    KerasClassifier,
    KerasFeatureTransformer,
    StackedKerasClassifier,
)
from skstack.networks import MLP

skstack.silence_tensorflow()

X, y = load_breast_cancer(return_X_y=True, as_frame=True)

# 1. An autoencoder's latent layer and error, added to the columns of X, in any Pipeline.
features = KerasFeatureTransformer(
    KerasAutoencoder(epochs=20),
    features=["outputs", "reconstruction_error"],
    passthrough=True,
    random_state=0,
)
model = make_pipeline(features, LogisticRegression(max_iter=5000))
print(f"with an autoencoder: {cross_val_score(model, X, y, scoring='roc_auc').mean():.3f}")

# 2. A whole stack as one estimator: in `fit`, features learned from y are out-of-fold.
stack = StackedKerasClassifier(
    upstream=[
        ("anomaly", features.set_params(passthrough=False)),
        ("risk", KerasClassifier(MLP(hidden_layer_sizes=(32,)), epochs=20)),
    ],
    downstream=KerasClassifier(MLP(hidden_layer_sizes=(16,)), epochs=20),
    random_state=0,
)

# 3. One search over parameters of all parts, by name.
search = GridSearchCV(
    stack,
    {"risk__model__dropout": [0.0, 0.2], "downstream__learning_rate": [1e-3, 3e-3]},
    scoring="roc_auc",
    cv=3,
).fit(X, y)
print(f"best stack: {search.best_score_:.3f} with {search.best_params_}")
