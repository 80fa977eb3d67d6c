"""Stage 2 with a pretrained encoder: what is stored is what the encoder gives, whole, resumable, and read in pieces."""

import numpy as np
import pytest
import torch
from encoder_models import write_whisper
from lhotse import CutSet

from speecheq.common.errors import InputError
from speecheq.common.files import read_json
from speecheq.config.schema import EncoderConfig
from speecheq.corpora import Corpus, Utterance
from speecheq.corpora.prepare import PrepareRequest, prepare
from speecheq.dataset.batch import with_draw
from speecheq.features import encoder_states, storage
from speecheq.features.audio import load_waveform, resampler
from speecheq.features.encoder_states import StoredStates, encoder_settings, open_encoder
from speecheq.features.encoders import load_encoder
from speecheq.features.storage import compute_features, missing_parts

TOY = Corpus("toy", "the toy", "Mandarin", "DIR/*.wav", labels={"mad": "anger"})
DIM = 8


@pytest.fixture
def toy(toys, tmp_path, monkeypatch):
    """A prepared corpus of 7 clips with filter banks, in parts of 3, and a tiny Whisper of 2 blocks."""
    monkeypatch.setattr(storage, "CUTS_A_PART", 3)
    for number in range(7):
        toys.write_wav(tmp_path / "toy" / f"{number}.wav", 0.9 - 0.1 * number)

    def find(folder, *_):
        return [Utterance(p.stem, p, "s", "F", label="mad") for p in sorted(folder.glob("*.wav"))]

    prepare(TOY, find, PrepareRequest(tmp_path / "toy"), tmp_path / "manifests")
    compute_features("toy", tmp_path / "manifests", tmp_path / "fbank" / "toy")
    write_whisper(tmp_path / "whisper", layers=2, dim=DIM)
    return tmp_path


def config(toy, **changed):
    return EncoderConfig(model=str(toy / "whisper"), **{"layers": "1 2", **changed})


def compute(toy, name="states", nj=1, parts=None, **changed):
    """Stage 2 in DATA/NAME/toy."""
    feature_set = open_encoder(config(toy, **changed))[1]
    where = dict(corpus="toy", manifests=toy / "manifests", out_dir=toy / name / "toy", cuts=toy / "fbank" / "toy")
    compute_features(**where, feature_set=feature_set, nj=nj, parts=parts)
    return {**where, "feature_set": feature_set}


def cuts_of(toy, name="states"):
    return list(CutSet.from_jsonl_lazy(toy / name / "toy" / "cuts.jsonl.gz"))


def made_encoder(toy, **changed):
    return load_encoder(encoder_settings(config(toy, **changed)))


def states_of(toy, cut, **changed):
    samples = torch.from_numpy(load_waveform(cut))
    with torch.no_grad():
        return made_encoder(toy, **changed)(samples[None], torch.tensor([len(samples)]))[0][0]


@pytest.mark.parametrize(("stored_as", "tolerance"), [("float16", 2e-3), ("float32", 1e-6)])
def test_what_is_stored_is_what_the_encoder_gives(toy, stored_as, tolerance):
    compute(toy, stored_as=stored_as)
    stored, cuts = StoredStates(toy / "states"), cuts_of(toy)
    assert [cut.id for cut in cuts] == [str(number) for number in range(7)]
    for cut in cuts:
        expected = states_of(toy, cut)
        found = stored.load(cut)
        assert found.dtype == torch.float32 and found.shape == expected.shape == (len(expected), 2 * DIM)
        assert (found - expected).abs().max() < tolerance * expected.abs().max()
        # as a lhotse temporal array too
        array = cut.load_custom("states")
        assert array.shape == (len(expected), 2, DIM) and array.dtype == stored_as
        assert np.array_equal(array.reshape(len(array), -1).astype(np.float32), found.numpy())


def test_archives_are_ordinary_npy_files(toy):
    compute(toy)
    archives = sorted((toy / "states" / "toy").glob("parts-*/*.npy"))
    assert len(archives) == 3
    rows = [np.load(path, allow_pickle=False).shape for path in archives]
    frames = [cut.custom["states"].shape[0] for cut in cuts_of(toy)]
    assert rows == [(sum(frames[first : first + 3]), 2, DIM) for first in (0, 3, 6)]


def test_a_piece_of_a_clip_gets_its_own_frames(toy):
    compute(toy)
    stored, cut = StoredStates(toy / "states"), cuts_of(toy)[0]
    whole = stored.load(cut)
    piece = stored.load(cut.truncate(offset=0.2, duration=0.4, preserve_id=True))
    assert torch.equal(piece, whole[10:30])
    at_end = stored.load(cut.truncate(offset=0.6, duration=0.3, preserve_id=True))
    assert torch.equal(at_end, whole[30:])


def test_copies_at_other_speeds_are_stored_and_drawn(toy):
    plain = compute(toy, "plain")["feature_set"]
    made = compute(toy, speeds="0.8 1.25")["feature_set"]
    assert set(made.options()) - set(plain.options()) == {"speeds", "resampler"}, "others keep the key that they had"
    stored, cuts = StoredStates(toy / "states"), cuts_of(toy)
    for cut in cuts:
        own, slow, fast = (stored.load(with_draw(cut, draw)) for draw in (0.0, 0.4, 0.99))
        assert torch.equal(own, stored.load(cut)) and torch.equal(own, StoredStates(toy / "plain").load(cut))
        samples = load_waveform(cut)
        for found, rate in ((slow, 12800), (fast, 20000)):
            changed = torch.from_numpy(resampler(rate, 16000)(samples))
            with torch.no_grad():
                expected = made_encoder(toy)(changed[None], torch.tensor([len(changed)]))[0][0]
            assert found.shape == expected.shape
            assert (found - expected).abs().max() < 2e-3 * expected.abs().max()
    # a piece is the same piece of what is said: 0.2 to 0.6 s of the clip are 0.25 to 0.75 s of the slow one
    piece = cuts[0].truncate(offset=0.2, duration=0.4, preserve_id=True)
    whole = stored.load(with_draw(cuts[0], 0.4))
    assert torch.equal(stored.load(with_draw(piece, 0.4)), whole[12:37])


def test_jobs_that_share_the_parts_leave_what_one_run_leaves(toy):
    alone = compute(toy, "alone")
    where = {**alone, "out_dir": toy / "states" / "toy"}
    assert missing_parts(**where) == [0, 1, 2]
    compute(toy, parts=[2])
    compute(toy, parts=[0, 1])
    assert missing_parts(**where) == []
    compute(toy, nj=2)
    assert missing_parts(**where) is None
    one, other = StoredStates(toy / "alone"), StoredStates(toy / "states")
    assert all(torch.equal(one.load(cut), other.load(cut)) for cut in cuts_of(toy))


def test_an_interrupted_run_goes_on_and_other_settings_begin_anew(toy, monkeypatch):
    calls, load = [], encoder_states.load_waveform

    def broken(cut, rate):
        calls.append(cut.id)
        if len(calls) == 5:
            raise InputError("the power is gone")
        return load(cut, rate)

    monkeypatch.setattr(encoder_states, "load_waveform", broken)
    with pytest.raises(InputError, match="power"):
        compute(toy)
    calls.clear()
    calls.extend([""] * 5)
    compute(toy)
    assert sorted(calls[5:]) == ["3", "4", "5", "6"], "the first part is kept"
    calls[5:] = []
    compute(toy)
    assert not calls[5:], "done"
    for changed in ({"layers": "2"}, {"layers": "2", "padding": "30s"}, {"layers": "2", "normalise": "yes"}):
        compute(toy, **changed)
        assert len(calls) == 12, changed
        calls[5:] = []


def test_another_model_is_another_key_and_another_place_is_not(toy):
    first = open_encoder(config(toy))[0]
    moved = toy / "moved"
    (toy / "whisper").rename(moved)
    assert open_encoder(EncoderConfig(model=str(moved), layers="1 2"))[0].digest == first.digest
    weights = moved / "model.safetensors"
    content = bytearray(weights.read_bytes())
    content[-1] ^= 1
    weights.write_bytes(content)
    assert open_encoder(EncoderConfig(model=str(moved), layers="1 2"))[0].digest != first.digest


def test_the_disk_is_looked_at_before_it_is_written(toy, monkeypatch, capsys):
    compute(toy, parts=[0])
    monkeypatch.setattr(encoder_states.shutil, "disk_usage", lambda _: type("Usage", (), {"free": 1000})())
    with pytest.raises(InputError, match=r"the states of toy take about 0\.0 GB, but 0\.0 GB are free; choose fewer"):
        compute(toy, "other")
    assert not list((toy / "other").rglob("*.npy"))


def test_states_that_float16_cannot_hold_are_refused(toy):
    feature_set = open_encoder(config(toy))[1]
    with pytest.raises(InputError, match="clip: its states are not finite or above 65504, .* stored_as: float32"):
        feature_set._as_stored(np.full((3, 2 * DIM), 7e4, dtype=np.float32), "clip")
    with pytest.raises(InputError, match="not finite"):
        feature_set._as_stored(np.full((3, 2 * DIM), np.nan, dtype=np.float32), "clip")


def test_missing_and_damaged_states_are_named(toy):
    compute(toy)
    cut = cuts_of(toy)[0]
    with pytest.raises(InputError, match="stage 2"):
        StoredStates(toy / "nothing").load(cut)
    foreign = cut.with_id("foreign")
    with pytest.raises(InputError, match="holds no states of foreign; run stage 2 again"):
        StoredStates(toy / "states").load(foreign)
    stored = StoredStates(toy / "states")
    stored.open("toy")
    for archive in (toy / "states" / "toy").glob("parts-*/*.npy"):
        archive.write_bytes(b"no array")
    with pytest.raises(InputError, match=r"the states of 0 cannot be read \(.*\); run stage 2 again"):
        stored.load(cut)
    encoder_states._mapped.cache_clear()
    with pytest.raises(InputError, match="is missing or has changed since stage 2"):
        StoredStates(toy / "states").load(cut)


def test_all_settings_are_in_the_stamp(toy):
    compute(toy)
    options = read_json(toy / "states" / "toy" / "stage.json")["options"]
    assert options == {"corpus": "toy", "encoder": open_encoder(config(toy))[0].digest, "stored_as": "float16"}
