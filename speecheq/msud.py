"""Many corpora to one Multi-scale Unified Dataset, MsUD (sections 2.1 and 3.1).

Stage 3 writes, for each fold of a target corpus,

    <out>/<target>.<protocol>/fold<k>/{emotion,gender,dev,test}.jsonl.gz   (and test_<corpus> of other corpora)
    <out>/<target>.<protocol>/fold<k>/msud.json                            what went where

and once, for all folds, the phoneme cuts of an ASR corpus: <phonemes>/{train,dev,test}.jsonl.gz, phones.txt.
MsUD and the gender set hold training clips only: the target's training folds without their dev part, and of
every other corpus its official training part, or all its clips if it has none.
"""

from collections import Counter, defaultdict
from pathlib import Path
from typing import Callable, Dict, List, Optional, Sequence

from lhotse import CutSet, MonoCut

from speecheq.corpus import load_card
from speecheq.errors import InputError
from speecheq.features import load_cuts
from speecheq.files import read_json, whole_file, write_json
from speecheq.phones.mandarin import TABLE as MANDARIN_TABLE
from speecheq.phones.mandarin import text_to_phones as mandarin_phones
from speecheq.phones.table import NoPhones, PhoneTable
from speecheq.progress import log, progress
from speecheq.protocol import Clip, check_leaks, dev_part, make_folds, parse_numbers
from speecheq.seqm import is_specified
from speecheq.stages import Drops, Stage, require

# Raised when what this module writes changes its meaning.
FORMAT = 1

# Where a partial copy lacks the test part, so much of each training speaker is held out for scoring.
HELD_OUT = "heldout"
HELD_OUT_SHARE = 0.1

# language of a corpus -> (its phone table, its text to phones)
PHONES: Dict[str, tuple] = {"Mandarin": (MANDARIN_TABLE, mandarin_phones)}


def clip_of(cut: MonoCut) -> Clip:
    """The protocol's view of a cut."""
    supervision = cut.supervisions[0]
    custom = supervision.custom
    return Clip(
        supervision.id, supervision.speaker, custom["esc"], custom.get("text_id"), custom.get("split"), custom["corpus"]
    )


def _write(cuts: Sequence[MonoCut], path: Path) -> int:
    with whole_file(path) as temporary:
        CutSet.from_cuts(cuts).to_file(temporary)
    return len(cuts)


def _counts(cuts: Sequence[MonoCut]) -> Dict[str, Dict[str, int]]:
    def count(values) -> Dict[str, int]:
        return dict(sorted(Counter(map(str, values)).items()))

    supervisions = [cut.supervisions[0] for cut in cuts]
    return {
        "corpus": count(s.custom["corpus"] for s in supervisions),
        "esc": count(s.custom["esc"] for s in supervisions),
        "gender": count(s.gender for s in supervisions),
        "eis": count("specified" if is_specified(s.custom["eis"]) else "unspecified" for s in supervisions),
    }


def unify(
    target: str,
    protocol: str,
    folds: str,
    corpora: Sequence[str],
    manifests: Path,
    fbank: Path,
    out_dir: Path,
    dev: str = "clips",
    seed: int = 0,
) -> List[int]:
    """Write the cut sets of the asked ``folds`` of ``target``; returns their numbers.

    ``corpora`` are the emotion corpora of MsUD (the target among them or not, it always is one);
    ``manifests`` and ``fbank`` hold one folder a corpus. The labels of a corpus come from its card.
    """
    others = [name for name in corpora if name != target]
    cards = {name: load_card(manifests / name, name) for name in (target, *others)}
    for name, card in cards.items():
        if not card["labels"]:
            raise InputError(f"{name}: has no emotion labels, so it cannot be part of MsUD.")
    if cards[target]["test_split"] and protocol != "official":
        raise InputError(
            f"{target}: has a fixed test part, which the protocol {protocol!r} would train on; use the protocol 'official'."
        )
    cuts = {name: list(load_cuts(fbank / name)) for name in cards}
    clips = {cut.id: clip_of(cut) for cut in cuts[target]}
    all_folds = make_folds(protocol, list(clips.values()), seed)
    numbers = parse_numbers(folds, "fold", len(all_folds))
    options = {"target": target, "protocol": protocol, "corpora": sorted(cards), "dev": dev, "seed": seed}
    for number in numbers:
        folder = out_dir / f"{target}.{protocol}" / f"fold{number}"
        stage = Stage(
            "unify", f"{target}.{protocol}, fold {number}", folder, {**options, "fold": number},
            [fbank / name for name in sorted(cards)], FORMAT,
        )
        if stage.is_done():
            continue
        test_ids = all_folds[number - 1]
        pool = [clip for name, clip in clips.items() if name not in test_ids]
        dev_ids = dev_part(pool, dev, seed)
        sets: Dict[str, List[MonoCut]] = {
            "test": [cut for cut in cuts[target] if cut.id in test_ids],
            "dev": [cut for cut in cuts[target] if cut.id in dev_ids],
            "emotion": [cut for cut in cuts[target] if cut.id not in test_ids and cut.id not in dev_ids],
        }
        drops = Drops()
        for name in others:
            test_split = cards[name]["test_split"]
            for cut in cuts[name]:
                split = cut.supervisions[0].custom.get("split")
                if split is None or split == "train":
                    sets["emotion"].append(cut)
                elif split == test_split:
                    sets.setdefault(f"test_{name}", []).append(cut)
                else:
                    drops.add(f"the {split} part of {name}, not used", cut.id)
        sets["gender"] = [cut for cut in sets["emotion"] if cut.supervisions[0].gender is not None]
        training = [clip_of(cut) for cut in sets["emotion"]]
        dev_clips = [clip_of(cut) for cut in sets["dev"]]
        check_leaks(protocol, training, dev_clips, [clip_of(cut) for cut in sets["test"]])
        for name in others:  # their parts are official: no clip is shared, speakers may be
            check_leaks("official", training, dev_clips, [clip_of(cut) for cut in sets.get(f"test_{name}", ())])
        without_gender = len(sets["emotion"]) - len(sets["gender"])
        if without_gender:
            log.warning(
                "%s: %d training clips have no gender and are not in the gender set", stage.title, without_gender
            )
        with stage.anew() as temporary:
            for name, members in sets.items():
                _write(members, temporary / f"{name}.jsonl.gz")
            note = {
                "target": target,
                "protocol": protocol,
                "fold": number,
                "folds": len(all_folds),
                "dev": dev,
                "seed": seed,
                "corpora": sorted(cards),
                "target_esc": sorted(set(cards[target]["labels"].values())),
                "tests": sorted(name for name in sets if name.startswith("test")),
                "sets": {name: {"clips": len(members), **_counts(members)} for name, members in sets.items()},
            }
            write_json(temporary / "msud.json", note)
            total = sum(map(len, cuts.values()))
            stage.finish(temporary, total, total - len(drops), drops)
    return numbers


def load_fold(msud_dir: Path, fold: int) -> dict:
    """What ``msud.json`` says of a fold; InputError where stage 3 has not made it."""
    folder = Path(msud_dir) / f"fold{fold}"
    require(folder, "unify")
    return read_json(folder / "msud.json")


def made_folds(msud_dir: Path, folds: str) -> List[int]:
    """The fold numbers that ``folds`` asks for, each checked to be there; InputError where one is not."""
    some = next(iter(sorted(Path(msud_dir).glob("fold*/msud.json"))), None)
    if some is None:
        raise InputError(f"{msud_dir}: stage 3 (unify) has not been run; run it first, with --stage 3 --stop-stage 3.")
    numbers = parse_numbers(folds, "fold", read_json(some)["folds"])
    for number in numbers:
        load_fold(msud_dir, number)
    return numbers


def hold_out(training: Sequence[MonoCut]) -> List[MonoCut]:
    """The last 10 % of each speaker's cuts, by id; at least one, none of a speaker with a single cut."""
    by_speaker = defaultdict(list)
    for cut in training:
        by_speaker[cut.supervisions[0].speaker].append(cut)
    held = []
    for cuts in by_speaker.values():
        cuts.sort(key=lambda cut: cut.id)
        if len(cuts) > 1:
            held.extend(cuts[-max(1, round(HELD_OUT_SHARE * len(cuts))) :])
    return held


def phonemes(corpus: str, manifests: Path, fbank: Path, out_dir: Path) -> None:
    """Write the phoneme cuts of an ASR corpus: each supervision gets ``custom['phones']``, numbers of the table.

    Utterances whose text has no phones are dropped, by reason. Where the copy has no official test part,
    the last 10 % of each training speaker's usable utterances are held out, and the set is named ``heldout``.
    """
    card = load_card(manifests / corpus, corpus)
    if not card["has_transcripts"]:
        raise InputError(f"{corpus}: has no transcripts, so it cannot be the phoneme corpus.")
    if card["language"] not in PHONES:
        raise InputError(f"{corpus}: phones of {card['language']} are not to be had; there are {', '.join(PHONES)}.")
    table: PhoneTable
    to_phones: Callable[[str], List[str]]
    table, to_phones = PHONES[card["language"]]
    stage = Stage(
        "unify", f"phonemes of {corpus}", out_dir, {"corpus": corpus, "table": table.symbols}, [fbank / corpus], FORMAT
    )
    if stage.is_done():
        return
    sets: Dict[str, List[MonoCut]] = {"train": []}
    drops, went_in = Drops(), 0
    for cut in progress(load_cuts(fbank / corpus), f"{corpus}: phones", card["utterances"], "texts"):
        went_in += 1
        supervision = cut.supervisions[0]
        try:
            supervision.custom["phones"] = table.encode(to_phones(supervision.text))
        except NoPhones as refused:
            drops.add(f"no phones: {refused.reason}", f"{cut.id} {refused.found!r}")
            continue
        sets.setdefault(supervision.custom.get("split", "train"), []).append(cut)
    if not sets["train"]:
        raise InputError(f"{corpus}: no training utterance could be turned into phones.")
    test_name = "test"
    if not sets.get("test"):
        test_name = HELD_OUT
        sets[HELD_OUT] = hold_out(sets["train"])
        held = {cut.id for cut in sets[HELD_OUT]}
        sets["train"] = [cut for cut in sets["train"] if cut.id not in held]
        log.warning(
            "%s: the copy has no test part: the last 10 %% of each training speaker, %d utterances, are held out as %r",
            corpus, len(held), HELD_OUT,
        )
    with stage.anew() as temporary:
        for name, members in sets.items():
            _write(members, temporary / f"{name}.jsonl.gz")
        table.save(temporary / "phones.txt")
        note = {
            "corpus": corpus,
            "language": card["language"],
            "test": test_name,
            "partial": card["partial"],
            "clips": {name: len(members) for name, members in sets.items()},
            "dropped": drops.counts(),
        }
        write_json(temporary / "phonemes.json", note)
        stage.finish(temporary, went_in, went_in - len(drops), drops)
