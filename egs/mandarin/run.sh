#!/usr/bin/env bash
# Experiment 1 of SpeechEQ (section 3.1): Mandarin. Emotion and gender from CASIA, SEQD and ESD; phonemes from
# AISHELL-1.
#
#   ./run.sh --casia DIR --seqd DIR --esd DIR --aishell DIR --stage 0 --stop-stage 5
#   ./run.sh --mini true                      the same on corpora that it synthesises
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
#   --casia DIR           holds [casia/]<speaker>/<emotion>/<201..250>.wav; the default target, random10
#   --seqd DIR            holds labels.tsv and wav/<speaker>/<utt>.wav; as target: official, its fixed test part
#   --esd DIR             holds 0001 to 0010 (and 0011 to 0020); the Mandarin part, esd_zh, without Surprise; official
#   --aishell DIR         holds data_aishell/ (and resource_aishell/): phonemes
#   --aishell-hours N     a seeded subset of N hours of its training part
#
set -euo pipefail

# shellcheck disable=SC2034  # read by recipe.sh
{
  title="Experiment 1 (Mandarin)"
  emotion_corpora=(casia seqd esd_zh) phoneme_corpora=(aishell)
  mini_corpora=(casia seqd esd_zh aishell)
  target=casia extra_options=(aishell_hours) bpe_size=5000
}

# the paper's: ten random folds of CASIA, the given test parts of SEQD and ESD
default_protocol() {
  case $1 in casia) echo random10 ;; seqd | esd_zh) echo official ;; *) echo speaker ;; esac
}

# the paper leaves ESD's Surprise out
default_use() { echo esd_zh=neutral,joy,anger,sadness; }

# shellcheck source=utils/recipe.sh
. "$(dirname "$(readlink -f "$0")")/utils/recipe.sh"

if stage 0 "corpora"; then get_corpora; fi
if stage 1 "manifests"; then make_manifests; fi
if stage 2 "features"; then make_features; fi
if stage 3 "unify"; then make_msud; fi
if stage 4 "train"; then train_systems; fi
if stage 5 "score"; then score_systems; fi
