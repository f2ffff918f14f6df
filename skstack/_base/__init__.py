"""The ground floor: scikit-learn's private names, parameters, atomic fits."""
