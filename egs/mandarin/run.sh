#!/usr/bin/env bash
# Experiment 1 of SpeechEQ (section 3.1): Mandarin. Emotion and gender from CASIA and SEQD, phonemes from AISHELL-1.
#
#   ./run.sh --casia DIR --aishell DIR --stage 0 --stop-stage 5
#   ./run.sh --mini true                      the same on corpora that it synthesises
#
# Stages, each runnable on its own (where no corpus is given, stages 2 to 5 take those that stage 1 prepared):
#   0 corpora     check what was given, or synthesise mini corpora (--mini true)
#   1 manifests   local/prepare_<corpus>.py -> DATA/manifests/<corpus>
#   2 features    80-dim fbank of each corpus -> DATA/fbank/<corpus>
#   3 unify       MsUD and folds -> DATA/msud/<target>.<protocol>/fold<k>, phonemes -> DATA/phonemes/<corpus>
#   4 train       a system on a fold with a seed -> EXP/<config>-<system>/<target>.<protocol>/fold<k>/seed<s>
#   5 score       every fold, then the tables -> EXP/.../{scores.tsv,metrics.json,RESULTS.md} and RESULTS
#
# Corpora (a DIR each; those not given are left out):
#   --casia DIR           holds casia/<speaker>/<emotion>/<201..250>.wav
#   --seqd DIR            holds labels.tsv and wav/<speaker>/<utt>.wav
#   --aishell DIR         holds data_aishell/ (and resource_aishell/)
#   --aishell-hours N     a seeded subset of so many hours of its training part
#   --partial true        accept incomplete copies
#   --mini true           synthesise small stand-ins of all three and use those
# What to run:
#   --stage N --stop-stage N    first and last stage (0, 5)
#   --target NAME         the corpus whose folds are trained and tested: casia or seqd (casia)
#   --protocol NAME       random10, speaker or text (CASIA), official (SEQD) (random10, of SEQD official)
#   --folds LIST          1, "1 3-5" or all (all; with --mini and random10 "1 2")
#   --seeds LIST          (1)
#   --systems LIST        names of conf/systems.yaml (speecheq)
#   --config FILE         the size (conf/paper.yaml; conf/small.yaml is for CPUs)
#   --set KEY=VALUE       change one setting, such as loss.gamma=2; may be repeated
#   --ctc-backend NAME    k2, torch or auto: k2 where it can be imported (auto)
#   --dev NAME            dev part of the training folds: clips (10 %) or speaker (clips)
# Where and how:
#   --data DIR --exp DIR --results FILE       (data, exp, RESULTS.md; with --mini data-mini, exp-mini, a page in it)
#   --nj N                processes that compute features (2)
#   --train-jobs N        trainings at once on this machine: with one thread each they fill a CPU's cores (1)
set -euo pipefail
recipe=$(dirname "$(readlink -f "$0")")

stage=0 stop_stage=5
# shellcheck disable=SC2034  # read by parse_options.sh
last_stage=5
# shellcheck disable=SC2034  # read by their names
casia='' seqd='' aishell='' aishell_hours=''
target=casia protocol='' folds='' seeds=1 systems=speecheq config='' ctc_backend='' dev=clips
data='' exp='' results='' nj=2 train_jobs=1
mini=false partial=false
# shellcheck disable=SC2034  # read by parse_options.sh
options=(stage stop_stage casia seqd aishell aishell_hours target protocol folds seeds systems config ctc_backend dev
  data exp results nj train_jobs)
# shellcheck disable=SC2034
boolean_options=(mini partial)
# shellcheck disable=SC2034
list_options=(set)
# shellcheck source=utils/parse_options.sh
. "$recipe/utils/parse_options.sh"
# shellcheck source=path.sh
. "$recipe/path.sh"

# a relative path is one of the caller's folder; --config may also be one of this folder, where conf/ lies
for name in casia seqd aishell config data exp results; do
  if [[ -n ${!name} && ${!name} != /* && ($name != config || -e ${!name}) ]]; then declare "$name=$PWD/${!name}"; fi
done
cd "$recipe"

[[ -z $aishell_hours || -n $aishell ]] || $mini || die "--aishell-hours is given without --aishell DIR."
if [[ -z $protocol ]]; then
  if [[ $target == seqd ]]; then protocol=official; else protocol=random10; fi
fi
if $mini; then
  [[ -z $casia$seqd$aishell ]] || die "--mini true makes its own corpora: leave out --casia, --seqd and --aishell."
  data=${data:-data-mini} exp=${exp:-exp-mini} config=${config:-conf/mini.yaml} partial=true
  if [[ $protocol == random10 ]]; then folds=${folds:-1 2}; fi
  results=${results:-$exp/RESULTS.md}
  for corpus in casia seqd aishell; do declare "$corpus=$data/corpora/$corpus"; done
fi
data=${data:-data} exp=${exp:-exp} config=${config:-conf/paper.yaml} folds=${folds:-all} results=${results:-RESULTS.md}

# the corpora of this run: those given, or, where none is, those that stage 1 has prepared
given=() emotion=() phonemes=''
for corpus in casia seqd aishell; do
  if [[ -n ${!corpus} ]]; then given+=("$corpus"); fi
done
if ((${#given[@]} == 0 && stage >= 2)); then
  for corpus in casia seqd aishell; do
    if [[ -f $data/manifests/$corpus/stage.json ]]; then given+=("$corpus"); fi
  done
fi
((${#given[@]})) || die "no corpus is given and none is prepared in $data/manifests: give --casia DIR and the others that" \
  "you have (AISHELL-1 is at openslr.org/33), or --mini true for synthesised ones; --help shows all."
[[ " ${given[*]} " == *" $target "* && $target != aishell ]] ||
  die "the target $target is not among the emotion corpora that are given or prepared (${given[*]}); see --help."
for corpus in casia seqd aishell; do
  if [[ " ${given[*]} " != *" $corpus "* ]]; then log "$corpus is not given and is left out"
  elif [[ $corpus == aishell ]]; then phonemes=aishell
  else emotion+=("$corpus"); fi
done
runs=(--data "$data" --exp "$exp" --config "$config" --systems "$systems" --target "$target" --protocol "$protocol"
  --folds "$folds" --seeds "$seeds")

if stage 0 "corpora"; then
  if $mini; then speecheq synth --out "$data/corpora" --corpora "${given[@]}"; fi
  for corpus in "${given[@]}"; do
    "local/prepare_$corpus.py" "${!corpus}" "$data/manifests/$corpus" --partial "$partial" --check-only
  done
fi

if stage 1 "manifests"; then
  for corpus in "${given[@]}"; do
    hours=''
    if [[ $corpus == aishell ]]; then hours=$aishell_hours; fi
    "local/prepare_$corpus.py" "${!corpus}" "$data/manifests/$corpus" --partial "$partial" --nj "$nj" \
      ${hours:+--hours "$hours"}
  done
fi

if stage 2 "features"; then
  speecheq features --data "$data" --corpora "${given[@]}" --nj "$nj"
fi

if stage 3 "unify"; then
  speecheq unify --data "$data" --target "$target" --protocol "$protocol" --folds "$folds" --dev "$dev" \
    --corpora "${emotion[@]}"
  if [[ -n $phonemes ]]; then speecheq phonemes --data "$data" --corpus "$phonemes"; fi
fi

if stage 4 "train"; then
  # shellcheck disable=SC2154  # set by parse_options.sh
  speecheq train "${runs[@]}" --jobs "$train_jobs" ${phonemes:+--phonemes "$phonemes"} \
    ${ctc_backend:+--ctc-backend "$ctc_backend"} "${set_options[@]/#/--set=}"
fi

if stage 5 "score"; then
  speecheq score "${runs[@]}"
  speecheq report --exp "$exp" --title "Experiment 1 (Mandarin)" --results "$results"
fi
