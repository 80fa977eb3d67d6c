"""How a trained system holds up: test clips in noise and in rooms (noise.py), and under attack (adversarial.py).

attacks.py and white_box.py know tensors and models, neither corpora nor lhotse.
"""
