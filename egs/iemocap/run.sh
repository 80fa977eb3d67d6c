#!/usr/bin/env bash
# Experiment 2 of SpeechEQ (section 3.1): English. Four emotions of IEMOCAP, its dominance as intensity; emotion and
# gender also from RAVDESS, CREMA-D and ESD; phonemes from LibriSpeech.
#
#   ./run.sh --iemocap DIR --ravdess DIR --crema-d DIR --esd DIR --librispeech DIR --stage 0 --stop-stage 5
#   ./run.sh --iemocap DIR --protocol session --systems wo_mtl     leave one session out, without phonemes
#   ./run.sh --mini true                               the same on corpora that it synthesises
#
# Stages, each runnable on its own (where no corpus is given, stages 2 to 5 take those that stage 1 prepared):
#   0 corpora     download what is open, check what was given, or synthesise mini corpora (--mini true)
#   1 manifests   local/prepare_<corpus>.py -> DATA/manifests/<corpus>
#   2 features    80-dim fbank of each corpus -> DATA/fbank/<corpus>, encoder states -> DATA/<features>/<corpus>
#   3 unify       MsUD and folds -> DATA/msud/<target>.<protocol>/fold<k>, phonemes -> DATA/phonemes/<corpus>
#   4 train       a system on a fold with a seed -> EXP/<config>-<system>/<target>.<protocol>/fold<k>/seed<s>
#   5 score       every fold, then the tables and pictures -> EXP/.../{scores.tsv,metrics.json,RESULTS.md,report.html,
#                 pictures}, RESULTS, EXP/report.html, EXP/tables
#
# Corpora of this recipe:
#   --iemocap DIR         holds Session1 to Session5; the default target, random5 (random 4:1), session or speaker
#   --ravdess DIR         holds Audio_Speech_Actors_01-24/
#   --crema-d DIR         holds AudioWAV/ and VideoDemographics.csv
#   --esd DIR             holds 0011 to 0020 (and 0001 to 0010); the English part, esd_en
#   --emodb DIR           holds wav/ (German; not in the paper)
#   --msp-improv DIR      holds Evaluation.txt and the clips (not in the paper)
#   --corpus NAME=DIR     emov_db, mead, meld, msp_podcast, msp_podcast_test2, savee (not in the paper; docs/corpora.md)
#   --librispeech DIR     holds train-clean-100, dev-clean, test-clean ...: phonemes
#   --librispeech-hours N     a seeded subset of N hours of its training part
#
# Table 4: the systems that the paper cites, with --config conf/cited.yaml (docs/cited_systems.md).
# With IEMOCAP or MSP-IMPROV as the target all corpora are restricted to anger, joy, neutral and sadness.
#
set -euo pipefail

# shellcheck disable=SC2034  # read by recipe.sh
{
  title="Experiment 2 (English)"
  emotion_corpora=(iemocap ravdess crema_d esd_en emodb msp_improv) phoneme_corpora=(librispeech)
  mini_corpora=(iemocap ravdess crema_d esd_en librispeech)
  target=iemocap extra_options=(librispeech_hours)
}

# the paper's: five random folds of IEMOCAP, the given test part of ESD
default_protocol() {
  case $1 in
    iemocap) echo random5 ;;
    esd_en | meld | msp_podcast) echo official ;;
    msp_improv) echo session ;;
    mead) echo speaker5 ;;
    *) echo speaker ;;
  esac
}

# Table 2: angry, happy (and excited), neutral, sad
default_use() {
  case $1 in iemocap | msp_improv) echo neutral,joy,anger,sadness ;; *) echo all ;; esac
}

# shellcheck source=utils/recipe.sh
. "$(dirname "$(readlink -f "$0")")/utils/recipe.sh"

if stage 0 "corpora"; then get_corpora; fi
if stage 1 "manifests"; then make_manifests; fi
if stage 2 "features"; then make_features; fi
if stage 3 "unify"; then make_msud; fi
if stage 4 "train"; then train_systems; fi
if stage 5 "score"; then score_systems; fi
