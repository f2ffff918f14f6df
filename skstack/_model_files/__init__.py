"""Checks of saved Keras models, given by path or inside our files, before Keras reads them."""
