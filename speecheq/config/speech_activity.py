"""What may find the speech of clips; a module of its own, since commands that only show their help import it."""

# Silero VAD, the energy of frames, or nothing: whole clips. See features/speech_activity.py.
SPEECH_ACTIVITIES = ("silero", "energy", "none")
