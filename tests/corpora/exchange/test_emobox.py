"""EmoBox' metadata as a corpus, on made-up files in its layout: labels, audio, speakers, faults of lines."""

import json

import pytest

from speecheq.common.errors import InputError
from speecheq.common.files import read_json
from speecheq.corpora.exchange import import_corpus
from speecheq.corpora.prepare import PrepareRequest
from speecheq.corpora.prepared_corpus import iter_utterances

WORDS = {"a": "Angry", "h": "Happy", "n": "Neutral", "x": "Sarcasm"}


def write(root, toys, lines=None, words=WORDS, audio="downloads/made/Clips"):
    """data/made/made.jsonl below ``root``, with a clip of audio for each of its lines."""
    folder = root / "data" / "made"
    folder.mkdir(parents=True, exist_ok=True)
    if lines is None:
        lines = [line(f"made-{label}{number}", label) for label in WORDS for number in range(2)]
    for content in lines:
        toys.write_wav(root / audio / content["wav"].rpartition("/")[2])
    (folder / "made.jsonl").write_text("".join(json.dumps(content) + "\n" for content in lines), encoding="utf-8")
    (folder / "label_map.json").write_text(json.dumps(words))
    return folder / "made.jsonl"


def line(key, label="a", **more):
    wav = f"downloads/made/Clips/{key.partition('-')[2]}.wav"
    return {"key": key, "dataset": "made", "wav": wav, "emo": label, "sample_rate": 16000, "channel": 1, **more}


def prepared(tmp_path, metadata, name="made", **request):
    import_corpus(name, PrepareRequest(metadata, **request), tmp_path / "manifests")
    found = {utterance.id: utterance for utterance, _ in iter_utterances(tmp_path / "manifests")}
    return found, read_json(tmp_path / "manifests" / f"{name}_card.json")


def test_the_words_of_emobox_are_the_labels_and_what_seqm_lacks_is_counted(tmp_path, toys):
    found, card = prepared(tmp_path, write(tmp_path, toys))
    assert {name: clip.label for name, clip in found.items()} == {
        f"made-{label}{number}": word
        for label, word in (("a", "Angry"), ("h", "Happy"), ("n", "Neutral"))
        for number in range(2)
    }
    assert card["labels"] == {"Angry": "anger", "Happy": "joy", "Neutral": "neutral"}
    dropped = read_json(tmp_path / "manifests" / "stage.json")["dropped"]
    assert dropped == {"the label Sarcasm, which has no place in SEQM's terms": ["made-x0", "made-x1"]}
    assert {clip.speaker for clip in found.values()} == {"unknown"}


def test_speakers_and_genders_are_taken_where_a_line_has_them(tmp_path, toys):
    lines = [line("made-1", speaker="s1", gender="female"), line("made-2", "h", spk=2, sex="M")]
    found, _ = prepared(tmp_path, write(tmp_path, toys, lines))
    assert [(clip.speaker, clip.gender) for _, clip in sorted(found.items())] == [("s1", "F"), ("2", "M")]


def test_a_labels_file_names_the_folder_of_the_audio_and_maps_other_words(tmp_path, toys):
    metadata = write(tmp_path, toys, audio="elsewhere/made")
    (metadata.parent / "labels.yaml").write_text(
        "language: French\nlabels: {Angry: anger, Happy: joy, Neutral: neutral, Sarcasm: disgust}\n"
        "audio_root: ../../elsewhere\n"
    )
    for wav in (tmp_path / "elsewhere" / "made").iterdir():  # below audio_root as the end of the path, made/Clips/...
        (tmp_path / "elsewhere" / "made" / "Clips").mkdir(exist_ok=True)
        if wav.is_file():
            wav.rename(wav.parent / "Clips" / wav.name)
    found, card = prepared(tmp_path, metadata)
    assert len(found) == 8 and card["labels"]["Sarcasm"] == "disgust" and card["language"] == "French"


def test_missing_audio_is_an_error_or_in_a_partial_copy_counted(tmp_path, toys):
    metadata = write(tmp_path, toys)
    (tmp_path / "downloads/made/Clips/h1.wav").unlink()
    with pytest.raises(InputError, match="made.jsonl, line 4: there is no audio downloads/made/Clips/h1.wav"):
        prepared(tmp_path, metadata)
    found, _ = prepared(tmp_path, metadata, partial=True)
    assert len(found) == 5
    assert read_json(tmp_path / "manifests" / "stage.json")["dropped"]["audio missing"] == ["made-h1"]


@pytest.mark.parametrize(
    "text, words",
    [
        ("{", "line 1: is not JSON"),
        ("[1]", "line 1: expected an object with a key"),
        ('{"wav": "a.wav"}', "line 1: expected an object with a key"),
        ('{"key": "made-1", "emo": "a"}', "line 1: names no wav"),
        ('{"key": "made-1", "emo": ["a"], "wav": "a.wav"}', "line 1: emo is .*, but it must be a word"),
        (
            json.dumps(line("made-a0")) + "\n" + json.dumps(line("made-a0")),
            "line 2: the key made-a0 occurs a second time",
        ),
        (json.dumps(line("made-a0", gender="both")), "line 1: the gender 'both' is none of"),
        (json.dumps(line("made-a0", "x")), "no label is an English word for an emotion"),
    ],
)
def test_what_is_wrong_is_named_with_its_line(tmp_path, toys, text, words):
    metadata = write(tmp_path, toys)
    if "second time" not in words and "no label" not in words:
        text += "\n" + json.dumps(line("made-h0", "h"))
    metadata.write_text(text)
    with pytest.raises(InputError, match=words):
        prepared(tmp_path, metadata)
    assert not (tmp_path / "manifests").exists()
