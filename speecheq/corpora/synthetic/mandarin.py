"""Mini versions of the Mandarin corpora: CASIA, AISHELL-1, SEQD."""

import random

from speecheq.corpora.synthetic.plan import Plan, Speaker, SyntheticClip, emotional_prosody, scale_at
from speecheq.corpora.synthetic.sentences import MANDARIN_LINES, mandarin_sentences
from speecheq.seqm import CATEGORIES, EMOTIONS, LEVELS, NEUTRAL

CASIA_SPEAKERS = (
    Speaker("liuchanhg", "F", "f4"),
    Speaker("wangzhe", "M", "m3"),
    Speaker("zhaoquanyin", "F", "linda", 44),
    Speaker("ZhaoZuoxiang", "M", "m7", 46),
)
CASIA_EMOTIONS = {
    "angry": "anger", "fear": "fear", "happy": "joy", "neutral": NEUTRAL, "sad": "sadness", "surprise": "surprise",
}  # fmt: skip


def plan_casia(size: str, rng: random.Random) -> Plan:
    """``casia/<speaker>/<emotion>/<201..>.wav``, every text by every speaker in every emotion."""
    texts = MANDARIN_LINES[: {"mini": 10, "nano": 3}[size]]
    clips = []
    for speaker in CASIA_SPEAKERS:
        for emotion, category in CASIA_EMOTIONS.items():
            for number, text in enumerate(texts, start=201):
                path, prosody = f"casia/{speaker.name}/{emotion}/{number}.wav", emotional_prosody(category, 1.0, rng)
                clips.append(SyntheticClip(path, text, speaker, prosody))
    counts = {"speakers": len(CASIA_SPEAKERS), "emotions": len(CASIA_EMOTIONS), "texts": len(texts)}
    return Plan(clips, {}, counts)


AISHELL_SPEAKERS = {
    "train": (
        Speaker("S0002", "F", "f1", 44),
        Speaker("S0003", "M", "m2"),
        Speaker("S0004", "F", "Annie"),
        Speaker("S0005", "M", "m4", 54),
    ),
    "dev": (Speaker("S0724", "F", "aunty"), Speaker("S0725", "M", "Lee")),
    "test": (Speaker("S0764", "M", "m8"), Speaker("S0765", "F", "steph", 44)),
}
# size -> part -> (speakers, utterances of each)
AISHELL_SIZES = {
    "mini": {"train": (4, 24), "dev": (2, 20), "test": (2, 20)},
    "nano": {"train": (3, 6), "dev": (1, 4), "test": (1, 4)},
}
AISHELL_FIRST_UTTERANCE = 122


def plan_aishell(size: str, rng: random.Random) -> Plan:
    """AISHELL-1: ``data_aishell/wav/<part>/<speaker>``, the segmented transcript and ``speaker.info``."""
    clips, transcript, info = [], [], []
    counts = {"speakers": 0, "train": 0, "dev": 0, "test": 0}
    texts = mandarin_sentences(rng)
    for part, (speakers, utterances) in AISHELL_SIZES[size].items():
        for speaker in AISHELL_SPEAKERS[part][:speakers]:
            info.append(f"{speaker.name[1:]} {speaker.gender}\n")
            for number in range(AISHELL_FIRST_UTTERANCE, AISHELL_FIRST_UTTERANCE + utterances):
                utterance, text = f"BAC009{speaker.name}W{number:04d}", next(texts)
                path = f"data_aishell/wav/{part}/{speaker.name}/{utterance}.wav"
                clips.append(SyntheticClip(path, text.replace(" ", ""), speaker, emotional_prosody(NEUTRAL, 0.0, rng)))
                transcript.append(f"{utterance} {text}\n")
            counts[part] += utterances
        counts["speakers"] += speakers
    files = {
        "data_aishell/transcript/aishell_transcript_v0.8.txt": "".join(transcript).encode(),
        "resource_aishell/speaker.info": "".join(info).encode(),
    }
    return Plan(clips, files, counts)


SEQD_SPEAKERS = (
    Speaker("F01", "F", "f1"),
    Speaker("M01", "M", "m1", 56),
    Speaker("F02", "F", "belinda", 44),
    Speaker("M02", "M", "m6"),
)
SEQD_COLUMNS = ("utt", "speaker", "gender", "emotion", "category", "level", "split", "text")


def plan_seqd(size: str, rng: random.Random) -> Plan:
    """``wav/<speaker>/<utterance>.wav`` and ``labels.tsv``: the 25 emotions of SEQM.

    Of each emotion the last clip is in the test split; in nano only one emotion of each category has one,
    their levels taking turns.
    """
    clips, rows, counts = [], ["\t".join(SEQD_COLUMNS)], {"speakers": len(SEQD_SPEAKERS), "train": 0, "test": 0}
    clips_each = {"mini": 8, "nano": 3}[size]
    texts = mandarin_sentences(rng)
    for place, (name, category, level, eis) in enumerate(EMOTIONS.values()):
        turn = LEVELS[CATEGORIES.index(category) % len(LEVELS)]
        tested = size == "mini" or level in (None, turn)
        for number in range(1, clips_each + 1):
            speaker = SEQD_SPEAKERS[(place + number) % len(SEQD_SPEAKERS)]
            utterance, text = f"{speaker.name}_{name}_{number:02d}", next(texts).replace(" ", "")
            split = "test" if tested and number == clips_each else "train"
            prosody = emotional_prosody(category, scale_at(eis), rng)
            clips.append(SyntheticClip(f"wav/{speaker.name}/{utterance}.wav", text, speaker, prosody))
            rows.append("\t".join((utterance, speaker.name, speaker.gender, name, category, level or "-", split, text)))
            counts[split] += 1
    return Plan(clips, {"labels.tsv": ("\n".join(rows) + "\n").encode()}, counts)
