"""Models, their data, training, evaluation, and export to a bundle."""
