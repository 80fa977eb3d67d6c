"""What stage 1 wrote, for the tests of prep scripts."""

from lhotse import RecordingSet, SupervisionSet, validate_recordings_and_supervisions

PARTIAL = ("--partial", "true")


def read_manifests(folder, corpus, split="all"):
    """Id -> supervision of one part of a prepared corpus, of which each clip is a file, after lhotse's validation."""
    recordings = RecordingSet.from_file(folder / f"{corpus}_recordings_{split}.jsonl.gz")
    supervisions = SupervisionSet.from_file(folder / f"{corpus}_supervisions_{split}.jsonl.gz")
    validate_recordings_and_supervisions(recordings, supervisions)
    assert len(recordings) == len(supervisions)
    return {supervision.id: supervision for supervision in supervisions}


def change(path, old, new):
    """Replace the first ``old`` in a text file."""
    text = path.read_text(encoding="utf-8")
    assert old in text
    path.write_text(text.replace(old, new, 1), encoding="utf-8")
