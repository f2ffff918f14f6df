"""Checks of saved Keras models, in files of their own or of skstack, before Keras reads them."""
