"""For tools that need a setup.py; everything stands in pyproject.toml."""

from setuptools import setup

setup()
