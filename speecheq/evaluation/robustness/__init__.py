"""Robustness of a trained system: test clips with noise and reverberation, under attack, and of other corpora.

attacks.py and white_box.py depend on neither corpora nor lhotse.
"""
