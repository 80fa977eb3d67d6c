"""Toy corpora for tests of stage 3."""

from speecheq.corpora.prepare import PrepareRequest
from speecheq.corpora.prepare import prepare as prepare_corpus
from speecheq.features.storage import compute_features


class ToyCorpora:
    """Stages 1 and 2 of toy corpora in one folder, all on one clip of noise."""

    def __init__(self, folder, toys):
        self.root, self.clip = folder, toys.write_wav(folder / "audio" / "a.wav", 0.05)

    def add(self, corpus, utterances, partial=False):
        manifests = self.root / "manifests" / corpus.name
        texts = self.root / "corpora" / corpus.name / "texts.txt"  # what changes when the utterances do
        texts.parent.mkdir(parents=True, exist_ok=True)
        texts.write_text(repr(utterances), encoding="utf-8")
        utterances = self.with_audio(utterances)
        prepare_corpus(corpus, lambda *_: utterances, PrepareRequest(texts.parent, partial), manifests)
        compute_features(corpus.name, manifests, self.root / "fbank" / corpus.name)

    def with_audio(self, utterances):
        return utterances
