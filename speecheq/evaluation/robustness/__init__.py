"""How robust a trained system is: test clips in noise and in rooms, under attack, and clips of other corpora.

attacks.py and white_box.py know tensors and models, neither corpora nor lhotse.
"""
