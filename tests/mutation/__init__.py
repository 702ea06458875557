"""Mutation tests: small changes of the code, each of which a unit test must notice."""

FOLDER = "MUTATION_RECORD"
"""The variable of the environment that tells the plugin where to keep its record."""
