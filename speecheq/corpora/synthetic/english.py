"""Mini versions of the English corpora that are read or acted line by line: LibriSpeech, RAVDESS, CREMA-D."""

import random

from speecheq.corpora.synthetic.plan import Plan, SyntheticClip, cast, emotional_prosody, scale_at
from speecheq.corpora.synthetic.sentences import ENGLISH_LINES, english_sentences
from speecheq.seqm import LEVEL_EIS, NEUTRAL

LANGUAGE = "en-us"

# --- LibriSpeech

LIBRISPEECH_SPEAKERS = {
    "train-clean-100": {"19": "F", "26": "M", "32": "F", "60": "M"},
    "dev-clean": {"84": "F", "174": "M"},
    "test-clean": {"121": "F", "61": "M"},
}
# size -> subset -> utterances of each speaker
LIBRISPEECH_SIZES = {
    "mini": {"train-clean-100": 24, "dev-clean": 20, "test-clean": 20},
    "nano": {"train-clean-100": 5, "dev-clean": 2, "test-clean": 2},
}
LIBRISPEECH_FIRST_CHAPTER = 1001
LIBRISPEECH_HEADING = "; Synthetic speakers in the columns of LibriSpeech\n;ID  |SEX| SUBSET           |MINUTES| NAME\n"


def plan_librispeech(size: str, rng: random.Random) -> Plan:
    """``LibriSpeech/<subset>/<speaker>/<chapter>/``: flac clips and a transcript; genders in ``SPEAKERS.TXT``."""
    clips, files, heading = [], {}, LIBRISPEECH_HEADING
    counts = {"speakers": 0, **dict.fromkeys(LIBRISPEECH_SPEAKERS, 0)}
    speakers = iter(cast({name: sex for genders in LIBRISPEECH_SPEAKERS.values() for name, sex in genders.items()}))
    texts = english_sentences(rng)
    for subset, names in LIBRISPEECH_SPEAKERS.items():
        for speaker in (next(speakers) for _ in names):
            chapter = LIBRISPEECH_FIRST_CHAPTER + counts["speakers"]
            folder, prefix = f"LibriSpeech/{subset}/{speaker.name}/{chapter}", f"{speaker.name}-{chapter}"
            transcript = ""
            for number in range(LIBRISPEECH_SIZES[size][subset]):
                text, prosody = next(texts), emotional_prosody(NEUTRAL, 0.0, rng)
                clips.append(SyntheticClip(f"{folder}/{prefix}-{number:04d}.flac", text, speaker, prosody, LANGUAGE))
                transcript += f"{prefix}-{number:04d} {text.upper()}\n"
                counts[subset] += 1
            files[f"{folder}/{prefix}.trans.txt"] = transcript.encode()
            heading += f"{speaker.name:<5}| {speaker.gender} | {subset:<16} | 1.00  | Voice {speaker.variant}\n"
            counts["speakers"] += 1
    files["LibriSpeech/SPEAKERS.TXT"] = heading.encode()
    return Plan(clips, files, counts)


# --- RAVDESS

RAVDESS_RATE = 48000
# Code -> (direction, scale at normal and at strong intensity). Calm has no direction in SEQM; here it is a weak
# trust, so that a model of the corpus' own classes can tell it from neutral.
RAVDESS_SCALES = tuple(scale_at(eis) for eis in LEVEL_EIS[2])
RAVDESS_EMOTIONS = {
    "01": (NEUTRAL, (0.0,)),
    "02": ("trust", (0.4, 0.6)),
    "03": ("joy", RAVDESS_SCALES),
    "04": ("sadness", RAVDESS_SCALES),
    "05": ("anger", RAVDESS_SCALES),
    "06": ("fear", RAVDESS_SCALES),
    "07": ("disgust", RAVDESS_SCALES),
    "08": ("surprise", RAVDESS_SCALES),
}
RAVDESS_ACTORS = {"mini": 8, "nano": 4}
RAVDESS_STEREO = "Actor_01/03-01-02-01-01-01-01.wav"


def plan_ravdess(size: str, rng: random.Random) -> Plan:
    """``Audio_Speech_Actors_01-24/Actor_NN/MM-VV-EE-II-SS-RR-AA.wav`` at 48 kHz, one of them stereo.

    In mini every actor says both statements, in nano the actors take turns.
    """
    clips = []
    actors = cast({f"{n:02d}": "M" if n % 2 else "F" for n in range(1, RAVDESS_ACTORS[size] + 1)}, first=1)
    for place, actor in enumerate(actors):
        for emotion, (category, scales) in RAVDESS_EMOTIONS.items():
            for intensity, scale in enumerate(scales, 1):
                for statement in (1, 2) if size == "mini" else (1 + place // 2 % 2,):
                    # statement 1 in its first repetition, statement 2 in its second
                    fields = ("03", "01", emotion, f"{intensity:02d}", f"{statement:02d}", f"{statement:02d}")
                    name = f"Actor_{actor.name}/{'-'.join((*fields, actor.name))}.wav"
                    path, text = f"Audio_Speech_Actors_01-24/{name}", ENGLISH_LINES[statement]
                    prosody, channels = emotional_prosody(category, scale, rng), 2 if name == RAVDESS_STEREO else 1
                    clips.append(SyntheticClip(path, text, actor, prosody, LANGUAGE, RAVDESS_RATE, channels))
    return Plan(clips, {}, {"speakers": len(actors)})


# --- CREMA-D

CREMA_D_SENTENCES = ("IEO", "TIE", "IOM", "IWW", "TAI", "MTI", "IWL", "ITH", "DFA", "ITS", "TSI", "WSI")
CREMA_D_GRADED = "IEO"
CREMA_D_EMOTIONS = {
    "ANG": "anger", "DIS": "disgust", "FEA": "fear", "HAP": "joy", "NEU": NEUTRAL, "SAD": "sadness",
}  # fmt: skip
CREMA_D_LEVELS = dict(zip(("LO", "MD", "HI"), LEVEL_EIS[3]))
CREMA_D_UNGRADED = "XX"
CREMA_D_ACTORS = {
    "1001": "M", "1002": "F", "1005": "M", "1006": "F", "1011": "M", "1007": "F", "1014": "M", "1008": "F",
}  # fmt: skip
CREMA_D_NANO_ACTORS = 4


def plan_crema_d(size: str, rng: random.Random) -> Plan:
    """``AudioWAV/<actor>_<sentence>_<emotion>_<level>.wav`` and ``VideoDemographics.csv``.

    Only the sentence IEO is graded; besides it an actor says two other sentences in mini, one in nano, where also
    the three levels take turns.
    """
    clips, table = [], "ActorID,Age,Sex,Race,Ethnicity\n"
    actors = cast(CREMA_D_ACTORS, first=3)[: None if size == "mini" else CREMA_D_NANO_ACTORS]
    for place, actor in enumerate(actors):
        table += f"{actor.name},{21 + 3 * place},{'Male' if actor.gender == 'M' else 'Female'},Unknown,Unknown\n"
        others = [CREMA_D_SENTENCES[1 + (place + shift) % 11] for shift in ((0, 5) if size == "mini" else (0,))]
        for turn, (emotion, category) in enumerate(CREMA_D_EMOTIONS.items()):
            levels = list(CREMA_D_LEVELS) if size == "mini" else [list(CREMA_D_LEVELS)[(place + turn) % 3]]
            if category == NEUTRAL:
                levels = [CREMA_D_UNGRADED]
            sentences = [(CREMA_D_GRADED, level) for level in levels] + [(code, CREMA_D_UNGRADED) for code in others]
            for sentence, level in sentences:
                scale = scale_at(CREMA_D_LEVELS[level]) if level in CREMA_D_LEVELS else 1.0
                path = f"AudioWAV/{actor.name}_{sentence}_{emotion}_{level}.wav"
                text = ENGLISH_LINES[CREMA_D_SENTENCES.index(sentence)]
                clips.append(SyntheticClip(path, text, actor, emotional_prosody(category, scale, rng), LANGUAGE))
    return Plan(clips, {"VideoDemographics.csv": table.encode()}, {"speakers": len(actors)})
