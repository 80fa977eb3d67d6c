"""The typed settings of a run and their layers."""
