#!/usr/bin/env bash
# MTL-AUG: emotion learned together with two tasks that need no labels, which augmentation a clip had and what it was
# before that, also from unlabelled speech (Latif et al., IEEE Trans. Affective Computing 14(4)).
#
#   ./run.sh --emodb DIR --unlabelled DIR --target emodb --stage 0 --stop-stage 5
#   ./run.sh --iemocap DIR --msp-improv DIR --emodb DIR --noise DIR --unlabelled DIR
#   ./run.sh --emodb DIR --target emodb --systems "emotion mtl_aug"        without unlabelled speech
#   ./run.sh --mini true                               the same on corpora that it synthesises
#
# Stages, each runnable on its own (where no corpus is given, stages 2 to 5 take those that stage 1 prepared):
#   0 corpora     download what is open, check what was given, or synthesise mini corpora (--mini true)
#   1 manifests   local/prepare_<corpus>.py -> DATA/manifests/<corpus>, also of noises and of unlabelled speech
#   2 features    80-dim fbank of each corpus -> DATA/fbank/<corpus>, encoder states -> DATA/<features>/<corpus>
#   3 unify       folds -> DATA/msud/<target>.<protocol>/fold<k>
#   4 train       a system on a fold with a seed -> EXP/<config>-<system>/<target>.<protocol>/fold<k>/seed<s>
#   5 score       every fold, then the tables and pictures -> EXP/.../{scores.tsv,metrics.json,RESULTS.md,report.html,
#                 pictures}, RESULTS, EXP/report.html, EXP/tables
#
# Systems (conf/systems.yaml): emotion_plain, emotion, augmentation, reconstruction, mtl_aug, the last three also as
# ..._unlabelled, and emotion and mtl_aug_unlabelled with the CNN-BLSTM in place of SpeechEQ's backbone (..._cnn_blstm).
#
# Corpora of this recipe, each labelled; a system trains on the target's clips only (--set data.corpora=all joins all):
#   --iemocap DIR         holds Session1 to Session5; the default target, session, speaker or random5
#   --msp-improv DIR      holds Evaluation.txt and the clips
#   --emodb DIR           holds wav/
#   --casia DIR           holds the speakers' folders (not in the paper)
#   --ravdess DIR         holds Audio_Speech_Actors_01-24/ (not in the paper)
# With IEMOCAP or MSP-IMPROV as the target all corpora are restricted to anger, joy, neutral and sadness.
#
set -euo pipefail

# shellcheck disable=SC2034  # read by recipe.sh
{
  title="MTL-AUG"
  emotion_corpora=(iemocap msp_improv emodb casia ravdess) phoneme_corpora=()
  mini_corpora=(iemocap ravdess) mini_unlabelled=librispeech
  target=iemocap extra_options=() default_config=conf/from_scratch.yaml default_system=mtl_aug_unlabelled
}

default_protocol() {
  case $1 in iemocap | msp_improv) echo session ;; *) echo speaker ;; esac
}

# angry, happy (and excited), neutral, sad
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
