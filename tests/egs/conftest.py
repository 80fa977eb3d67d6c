"""Recipes on synthesised nano corpora."""

import pytest
from recipes import Recipe


@pytest.fixture(scope="session")
def recipe():
    return Recipe
