"""SpeechEQ: one metric and one multitask model for speech emotion recognition."""

__version__ = "0.1.0"
