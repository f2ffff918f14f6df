"""Networks as scikit-learn estimators: classifier, regressor, autoencoder."""
