"""English words for emotions, as tables and metadata of corpora have them, in terms of SEQM."""

from speecheq import seqm

# Beside SEQM's own names, in small letters.
WORDS = {
    "angry": "anger",
    "mad": "anger",
    "annoyed": "annoyance",
    "bored": "boredom",
    "calm": "neutral",
    "disgusted": "disgust",
    "fearful": "fear",
    "scared": "fear",
    "afraid": "fear",
    "happy": "joy",
    "happiness": "joy",
    "excited": "joy",
    "excitement": "joy",
    "sad": "sadness",
    "surprised": "surprise",
}


def meaning(label: str) -> str | None:
    """The emotion of SEQM that a label names in English, in any case; None for any other word."""
    word = label.strip().lower()
    return word if word in seqm.EMOTIONS else WORDS.get(word)
