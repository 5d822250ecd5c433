"""Retrieval metrics: ranking of a database for each query, scores of each ranking, and their averages."""
