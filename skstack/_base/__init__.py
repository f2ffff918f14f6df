"""What every other room uses: scikit-learn's private names, parameters, tables, atomic fits."""
