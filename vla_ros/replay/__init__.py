"""Bags: read, recorded, played, stepped through the pipeline, judged and reported."""
