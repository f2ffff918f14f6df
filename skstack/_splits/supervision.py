"""Which estimators learn from y."""

from __future__ import annotations

import inspect

from sklearn.base import TransformerMixin, is_classifier, is_regressor
from sklearn.frozen import FrozenEstimator
from sklearn.pipeline import Pipeline
from sklearn.utils import get_tags

from skstack._base.params import is_keras_model, is_network_estimator
from skstack._base.sklearn import needs_y, wrapper_of

_FITS = ("fit", "fit_transform", "fit_resample")
_VARIADIC = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
_POSITIONAL = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
_NOT_Y = ("sample_weight", "groups")

# By package and class: estimators that take y in `fit` by convention only. A test fits each of them
# with two different y and compares the results. Subclasses are not included.
_IGNORES_Y = {
    "skstack": {"KerasAutoencoder", "PadSequences"},
    "sklearn": set(
        """
        AdditiveChi2Sampler AffinityPropagation AgglomerativeClustering BayesianGaussianMixture
        BernoulliRBM Binarizer Birch BisectingKMeans ClassicalMDS CountVectorizer DBSCAN
        DictVectorizer DictionaryLearning EllipticEnvelope EmpiricalCovariance FactorAnalysis
        FastICA FeatureAgglomeration FeatureHasher FunctionTransformer GaussianMixture
        GaussianRandomProjection GraphicalLasso GraphicalLassoCV HDBSCAN HashingVectorizer
        IncrementalPCA IsolationForest Isomap IterativeImputer KBinsDiscretizer KMeans KNNImputer
        KNeighborsTransformer KernelCenterer KernelDensity KernelPCA LatentDirichletAllocation
        LedoitWolf LocalOutlierFactor LocallyLinearEmbedding MDS MaxAbsScaler MeanShift MinCovDet
        MinMaxScaler MiniBatchDictionaryLearning MiniBatchKMeans MiniBatchNMF MiniBatchSparsePCA
        MissingIndicator NMF NearestNeighbors Normalizer Nystroem OAS OPTICS OneClassSVM
        OneHotEncoder OrdinalEncoder PCA PatchExtractor PolynomialCountSketch PolynomialFeatures
        PowerTransformer QuantileTransformer RBFSampler RadiusNeighborsTransformer
        RandomTreesEmbedding RobustScaler SGDOneClassSVM ShrunkCovariance SimpleImputer
        SkewedChi2Sampler SparseCoder SparsePCA SparseRandomProjection SpectralBiclustering
        SpectralClustering SpectralCoclustering SpectralEmbedding SplineTransformer StandardScaler
        TSNE TfidfTransformer TfidfVectorizer TruncatedSVD VarianceThreshold
        """.split()  # noqa: SIM905
    ),
}


def learns_from_y(estimator):
    """Whether an estimator, or a part of a composite, may learn from y.

    True for all that receive y and are not known to ignore it. False for what is not trained:
    networks, paths, frozen estimators, "passthrough", "drop" and None.
    """
    if _is_fixed(estimator):
        return False
    parts = parts_of(estimator)
    if parts is not None:
        return any(map(learns_from_y, parts))
    package = _package(estimator)
    if type(estimator).__name__ in _IGNORES_Y.get(package, ()):
        return False
    if package == "skstack" and hasattr(estimator, "_learns_from_y"):
        return estimator._learns_from_y()
    return _receives_y(estimator)


def requires_y(estimator):
    """Whether an estimator, or a part of a composite, cannot be fitted without y."""
    if _is_fixed(estimator):
        return False
    parts = parts_of(estimator)
    if parts is not None:
        return any(map(requires_y, parts))
    return (
        is_classifier(estimator)
        or is_regressor(estimator)
        or get_tags(estimator).target_tags.required
        or needs_y(estimator)
    )


def trains(estimator):
    """Whether ``fit`` learns anything."""
    if _is_fixed(estimator):
        return False
    parts = parts_of(estimator)
    if parts is not None:
        return any(map(trains, parts))
    return get_tags(estimator).requires_fit


def trains_network(estimator):
    """Whether a fit would train a network, or nothing."""
    if isinstance(estimator, FrozenEstimator) or hasattr(estimator, "_graph_outputs"):
        return True
    if is_network_estimator(estimator) or wrapper_of(estimator) is not None:
        return True
    if isinstance(estimator, Pipeline) or not hasattr(estimator, "get_params"):
        return False  # the steps before a network are tried
    return any(
        hasattr(part, "fit") and trains_network(part)
        for part in estimator.get_params(deep=True).values()
        if not isinstance(part, type)
    )


def parts_of(estimator):
    """The parts of a composite that passes all its rows to each of them; None for others."""
    package, name = _package(estimator), type(estimator).__name__
    if package in ("sklearn", "imblearn") and name == "Pipeline":
        return [step for _, step in estimator.steps]
    if package == "sklearn" and name == "FeatureUnion":
        return [part for _, part in estimator.transformer_list]
    if package == "sklearn" and name == "ColumnTransformer":
        return [*(entry[1] for entry in estimator.transformers), estimator.remainder]
    return None


def _is_fixed(estimator):
    """Whether nothing is trained: frozen estimators, networks, paths, "passthrough", "drop"."""
    return (
        isinstance(estimator, FrozenEstimator)
        or is_keras_model(estimator)
        or not any(hasattr(estimator, method) for method in _FITS)
    )


def _package(estimator):
    return type(estimator).__module__.partition(".")[0]


def _receives_y(estimator):
    """Whether a fitting method takes y by name, by position or in ``*args`` or ``**kwargs``."""
    methods = {name: getattr(type(estimator), name, None) for name in _FITS}
    if not (methods["fit"] or methods["fit_resample"]):  # delegated
        return True
    for method in methods.values():
        # The mixin's method only passes y to `fit`.
        if method is None or method is TransformerMixin.fit_transform:
            continue
        try:
            parameters = list(inspect.signature(method).parameters.values())[2:]
        except (TypeError, ValueError):  # no signature, as in C code
            return True
        for parameter in parameters:
            if parameter.name in ("y", "Y") or parameter.kind in _VARIADIC:
                return True
        if parameters and parameters[0].kind in _POSITIONAL and parameters[0].name not in _NOT_Y:
            return True
    return False
