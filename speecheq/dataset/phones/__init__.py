"""Phones: from text to phone sequences, and the tables that number them."""
