# Options of every recipe:
#   --<corpus> DIR        the folder of a corpus, one option a corpus; corpora without one are left out
#   --corpus NAME=PATH    any other corpus, may be repeated: a DIR for which there is local/prepare_NAME.py, or, without
#                         any code, a Kaldi data folder, a .csv or .tsv table, or EmoBox' metadata, NAME.jsonl
#                         (docs/adding_a_corpus.md)
#   --download LIST       fetch these first, into --corpora (aishell, librispeech, ravdess, emodb are open)
#   --noise DIR --rir DIR     folders of noises and of room impulse responses, for configurations that augment waveforms
#   --unlabelled DIR      a folder of recordings of speech, of any format, for systems that learn from it (MTL-AUG)
#   --unlabelled-hours N  a seeded subset of N hours of it
#   --test-noise DIR --test-rir DIR     noises and impulse responses for --robustness noise; none of them may be used
#                         in training
#   --partial true        accept incomplete copies
#   --speech-activity NAME    how speech is found: silero (Silero VAD), energy (of frames), or none, for whole clips;
#                         each clip is used from its first to its last speech (silero)
#   --mini true           synthesise small stand-ins of the recipe's corpora and use those
# What to run:
#   --stage N --stop-stage N    first and last stage (0, 5)
#   --target NAME         the corpus whose folds are trained and tested
#   --protocol NAME       random10, random5, speaker, speaker5, session, text, official, cross (train on the others,
#                         test on the whole target), all (train on all, test none), emobox (EmoBox' folds of CASIA
#                         and RAVDESS, which are of speakers), or any name for the folds of --folds-file
#   --folds-file FILE     published folds of the target: a table with the columns clip and test_fold, or a folder of
#                         EmoBox, data/NAME, with its fold_<k>/NAME_test_fold_<k>.jsonl
#   --as-published LIST   what the protocol of a paper does and this one does not: improvised (speech only, IEMOCAP),
#                         drop_short (clips of 2 s or less), best_test (the epoch is chosen on the test clips); its
#                         results have folders and tables of their own, which say so (docs/cited_systems.md)
#   --folds LIST          1, "1 3-5" or all (all; with --mini and random folds "1 2")
#   --seeds LIST          (1)
#   --systems LIST        names of conf/systems.yaml (speecheq; in egs/mtl_aug mtl_aug_unlabelled), and references of
#                         stage 5: probe, probe_linear (SVMs on the features) and majority (the most frequent class)
#   --config FILE         sizes and schedule (conf/paper.yaml; in egs/mtl_aug conf/from_scratch.yaml); for CPUs
#                         conf/small.yaml. In egs/mandarin and egs/iemocap conf/best.yaml is our best for unseen
#                         speakers where training speakers are few, on a pretrained encoder; on a GPU best_gpu.yaml
#                         (docs/recipes.md has all)
#   --features NAME       what the systems take: fbank, or the states of a pretrained encoder, NAME.yaml in
#                         conf/features, or starter; for stage 2 also NAME=FOLDER, the encoder's folder or a model
#                         folder (docs/encoders.md) (fbank)
#   --store-features false    do not store the encoder's states: with --set data.input=waveform stage 4 computes them
#   --status true         run nothing: list what is done, stale or missing in DATA and EXP, with time and disk
#   --set KEY=VALUE       change one setting, such as loss.gamma=2; may be repeated
#   --init-from MODEL     start from the weights of a trained model (its best.pt, or a model folder), also of other
#                         labels; give it an --exp of its own
#   --ctc-backend NAME    k2, torch or auto: torch on a CPU; on a GPU k2, where it can be imported (auto)
#   --score-train true    stage 5 scores the target's training clips too, for the distributions of EIS (Figure 3)
#   --probe true          stage 5 also scores an SVM on the mean and standard deviation of the features, a reference for
#                         the systems (docs/encoders.md)
#   --robustness LIST     stage 5 scores under other conditions too: corpora (all clips of others than the target),
#                         noise (with --test-noise at 20 to 0 dB, and reverberated), telephone (300 to 3400 Hz, mu-law,
#                         A-law, GSM), attack (FGSM, BIM, PGD, AutoPGD, AutoPGD+DLR); docs/robustness.md
#   --other-corpora LIST  of --robustness corpora: corpora that the systems were not trained on (all that are given)
#   --shots LIST          and adapt the systems first, with these numbers of labelled clips of each class
# Labels (for stage 3; --classes, --neutral-eis and --as-published also name folders: give them to stages 4 and 5 too):
#   --classes NAME        seqm: SEQM's nine classes; corpus: the target's own (seqm)
#   --neutral-eis NAME    EIS of neutral clips: as each corpus declares it, SEQM's 0 (metric), or what its own intensity
#                         says (corpus) (declared)
#   --use LIST            SEQM categories to take, of all corpora (joy,anger) or of one (ravdess=joy,anger); may be
#                         repeated, the last one wins; all, or CORPUS=all, removes the recipe's own restriction
#   --soft-labels true    learn ESC from the votes of listeners where a corpus has them (CREMA-D); stages 1 to 5 need it
#   --dev NAME            dev part of the training folds: clips (10 %), speaker, official, or auto: official with the
#                         protocol official where there is one, else clips (auto)
#   --phonemes NAME       the corpus of the phoneme task, or none (the recipe's own, where it is given)
#   --units NAME          what CTC learns: phone, or bpe (sentencepiece) of --bpe-size N pieces (phone; 500, in Mandarin
#                         5000: more than it has characters)
#   --pronunciations NAME what CTC learns of a word with several: the first, or the sum over all, with k2 (first)
#   --silence NAME        silence between words: none, the blank of CTC, or optional, a unit of its own, with k2 (none)
# Where and how:
#   --shar true           stage 3 writes training clips once more as shards (Lhotse Shar), stage 4 reads them from
#                         there, in long sequential runs: for corpora of thousands of hours (docs/scale.md)
#   --shard-clips N       clips a shard (1000)
#   --data DIR --exp DIR --results FILE       (data, exp, RESULTS.md; with --mini data-mini, exp-mini, a page in it)
#   --corpora DIR         where downloaded corpora go (DATA/corpora)
#   --nj N                processes that compute features and write shards, threads that read headers (2)
#   --train-jobs N        trainings at once on this machine: with one thread each they fill a CPU's cores (1)
#   --gpus N              GPUs of this machine that share each training; where there is none, or with
#                         --set run.device=cpu, N processes on the CPU (1)
#   --nodes N --rendezvous HOST:PORT
#                         machines that share each training: give the same command on each of them, with --stage 4
#                         --stop-stage 4; they see the same files and meet at a free port of one of them (1)
# On a cluster (cmd.sh has the defaults; docs/clusters.md):
#   --cmd NAME            where stages 1 to 5 run: local (here), slurm or sge. There each stage submits its missing work
#                         as a job array and waits for it; --nj N is then the number of jobs that share a corpus'
#                         features or a set's shards, --gpus and --nodes are those of each training's job (local)
#   --partition NAME --account NAME --time LIMIT --memory SIZE --cpus N
#                         what each job asks for (the cluster's own defaults)
#   --gpu KIND            of trainings and of their scoring: any, a kind of GPU, or none (any)
#   --jobs-at-once N      jobs of a stage at once, at most
#   --job-option FLAG     another flag of sbatch or qsub, given with = (--job-option=-H); may be repeated
#   --requeue true        jobs that are preempted, or whose time is up, save and start again by themselves
#   --keep-jobs true      Ctrl-C and SIGTERM leave the jobs running, and the same command waits for them again; else
#                         they are cancelled, and trainings save their step
#   --dry-run true        print what the first stage that is not done would submit, and submit nothing

# shellcheck shell=bash
# shellcheck disable=SC2154  # what the recipe sets, and the arrays that parse_options.sh makes
# Sourced by a recipe's run.sh, which sets before:
#   title                               of its results
#   emotion_corpora, phoneme_corpora    the corpora that have an option
#   mini_corpora                        those of them that --mini synthesises
#   target                              the default one
#   extra_options                       options of its own, such as aishell_hours
# and may set
#   mini_unlabelled                     the corpus that --mini takes as unlabelled speech
#   default_config, default_system      others than conf/paper.yaml and speecheq
# and defines default_protocol TARGET, which prints a name, and default_use TARGET, which prints a restriction as --use
# takes it; the user's own come after it. The stages at the end are what the recipes have in common.

# It reads as: options, checks, stages.

# ---- options

recipe=$(dirname "$(readlink -f "$0")")
# shellcheck source=cmd.sh
. "$recipe/cmd.sh"
stage=0 stop_stage=5
# shellcheck disable=SC2034  # read by their names, here and in parse_options.sh
{
  last_stage=5
  features=fbank store_features=true
  protocol='' folds='' folds_file='' seeds=1 systems=${default_system:-speecheq} config=''
  as_published='' init_from='' ctc_backend='' classes=seqm
  neutral_eis=declared dev=auto phonemes='' units=phone bpe_size=${bpe_size:-500} download='' corpora=''
  pronunciations=first silence=none
  speech_activity=silero
  noise='' rir='' unlabelled='' unlabelled_hours='' test_noise='' test_rir='' robustness='' other_corpora='' shots=''
  data='' exp='' results='' nj=2 train_jobs=1 gpus=1 nodes=1 rendezvous='' mini=false partial=false status=false
  soft_labels=false
  score_train=false probe=false keep_jobs=false dry_run=false
  shar=false shard_clips=1000
  help_files=("$recipe/utils/recipe.sh")
  boolean_options=(mini partial soft_labels status score_train probe store_features shar requeue keep_jobs dry_run)
  list_options=(set corpus use job_option)
}

# Corpora that a prep script makes of one folder, by its --part; '' is the one that it makes without.
declare -A part_of=([esd_zh]=zh [esd_en]=en [msp_podcast]='' [msp_podcast_test2]=test2)

# script_of CORPUS: the name of its prep script, of its option and of its data card
script_of() {
  local part=${part_of[$1]:-}
  echo "${1%"${part:+_$part}"}"
}

recipe_corpora=("${emotion_corpora[@]}" "${phoneme_corpora[@]}")
corpus_names=()  # of the options
for corpus in "${recipe_corpora[@]}"; do
  name=$(script_of "$corpus")
  corpus_names+=("$name")
  declare "$name="
done
for name in "${extra_options[@]}"; do declare "$name="; done
# shellcheck disable=SC2034  # read by parse_options.sh
options=(stage stop_stage "${corpus_names[@]}" "${extra_options[@]}" target protocol as_published folds
  folds_file seeds systems
  config features init_from ctc_backend classes neutral_eis dev phonemes units bpe_size pronunciations silence
  download corpora noise rir speech_activity test_noise test_rir unlabelled unlabelled_hours robustness
  other_corpora shots data
  exp results shard_clips nj train_jobs gpus nodes rendezvous cmd partition account time memory cpus gpu jobs_at_once)
# shellcheck source=utils/parse_options.sh
. "$recipe/utils/parse_options.sh"
# shellcheck source=path.sh
. "$recipe/path.sh"

# ---- checks, in the order in which they are called at the end of this part

# one_of NAME VALUE...: the option has one of these values
one_of() {
  local name=$1
  shift
  [[ " $* " == *" ${!name} "* ]] || die "--${name//_/-} is ${!name}, but it must be one of $*."
}

check_values() {
  local name condition
  one_of classes seqm corpus
  one_of neutral_eis declared metric corpus
  one_of dev auto clips speaker official
  one_of units phone bpe
  one_of pronunciations first all
  one_of silence none optional
  one_of speech_activity silero energy none
  one_of cmd local slurm sge
  for condition in $robustness; do
    [[ $condition =~ ^(corpora|noise|telephone|attack)$ ]] ||
      die "--robustness is $robustness, but it must be some of corpora, noise, telephone and attack."
  done
  if $dry_run && [[ $cmd == local ]]; then
    die "--dry-run prints what would be submitted: give --cmd slurm or sge too."
  fi
  for name in nj shard_clips train_jobs gpus nodes bpe_size ${cpus:+cpus} ${jobs_at_once:+jobs_at_once}; do
    [[ ${!name} =~ ^[1-9][0-9]*$ ]] || die "--${name//_/-} is ${!name}, but it must be a whole number above 0."
  done
}

# absolute PATH: a relative path counts from the caller's folder
absolute() {
  if [[ -z $1 || $1 == /* ]]; then echo "$1"; else echo "$PWD/$1"; fi
}

# the recipe runs in its own folder, whatever the caller's is
make_paths_absolute() {
  local name
  if [[ $features == *=* && -d ${features#*=} ]]; then features=${features%%=*}=$(absolute "${features#*=}"); fi
  for name in "${corpus_names[@]}" folds_file init_from config data exp results corpora noise rir unlabelled test_noise \
    test_rir; do
    # --config may also be relative to the recipe's folder, which has conf/
    if [[ $name != config || -e ${!name} ]]; then printf -v "$name" '%s' "$(absolute "${!name}")"; fi
  done
  [[ -z $folds_file || -e $folds_file ]] || die "--folds-file $folds_file: the file of folds does not exist."
}

declare -A folder_of=()  # corpus -> its folder; '' if there are only its manifests

# place CORPUS PATH: sets the folder of a corpus, once only
place() {
  local other parts
  [[ -z ${folder_of[$1]:-} ]] || die "the corpus $1 is given twice, as ${folder_of[$1]} and as $2; leave one out."
  parts=$(for other in "${!part_of[@]}"; do [[ $(script_of "$other") != "$1" ]] || echo "$other"; done | sort | xargs)
  [[ -z $parts || -v part_of[$1] ]] || die "--corpus $1=...: $1 comes in parts, name the one that is meant: $parts."
  folder_of[$1]=$2
}

place_given_corpora() {
  local corpus name value
  for corpus in "${recipe_corpora[@]}"; do
    name=$(script_of "$corpus")
    if [[ -n ${!name} ]]; then place "$corpus" "${!name}"; fi
  done
  for value in "${corpus_options[@]}"; do
    [[ $value =~ ^[a-z][a-z0-9_]*=.+ ]] ||
      die "--corpus '$value': expected NAME=PATH, the name in small letters, digits and underscores."
    place "${value%%=*}" "$(absolute "${value#*=}")"
  done
  for name in "${extra_options[@]}"; do  # aishell_hours
    [[ -z ${!name} || -n ${folder_of[${name%_hours}]:-} || " $download " == *" ${name%_hours} "* ]] || $mini ||
      die "--${name//_/-} is given without --${name%_hours} DIR."
  done
}

use_mini_corpora() {
  local corpus
  $mini || return 0
  [[ ${#folder_of[@]} -eq 0 && -z $download ]] ||
    die "--mini true makes its own corpora: leave out --<corpus> DIR, --corpus and --download."
  data=${data:-data-mini} exp=${exp:-exp-mini} config=${config:-conf/mini.yaml} partial=true
  if [[ $protocol == random* ]]; then folds=${folds:-1 2}; fi
  results=${results:-$exp/RESULTS.md}
  for corpus in "${mini_corpora[@]}"; do folder_of[$corpus]=$data/corpora/$(script_of "$corpus"); done
  if [[ -n ${mini_unlabelled:-} ]]; then unlabelled=${unlabelled:-$data/corpora/$mini_unlabelled}; fi
}

set_defaults() {
  if [[ -z $protocol ]]; then
    if [[ -n $folds_file ]]; then protocol=published; else protocol=$(default_protocol "$target"); fi
  fi
  use_mini_corpora
  data=${data:-data} exp=${exp:-exp} config=${config:-${default_config:-conf/paper.yaml}}
  folds=${folds:-all} results=${results:-RESULTS.md}
  corpora=${corpora:-$data/corpora}
}

place_downloads() {
  local corpus
  for corpus in $download; do
    [[ -f local/cards/$corpus.yaml ]] ||
      die "--download $corpus: there is no data card local/cards/$corpus.yaml; speecheq corpora lists what is open."
    # the folder that speecheq download makes, as the data card says
    place "$corpus" "$corpora/$corpus/$(sed -n 's/^folder: *//p' "local/cards/$corpus.yaml")"
  done
}

declare -A sounds=()  # noise, rir, unlabelled, test_noise, test_rir -> folder; '' where only its manifest is at hand

find_sounds() {
  local kind
  [[ -z $unlabelled_hours || -n $unlabelled ]] || die "--unlabelled-hours is given without --unlabelled DIR."
  for kind in noise rir unlabelled test_noise test_rir; do
    if [[ -n ${!kind} ]]; then sounds[$kind]=${!kind}
    elif ((${#folder_of[@]} == 0)) && [[ -f $data/manifests/$kind/stage.json ]]; then sounds[$kind]=''; fi
  done
}

# where no corpus is given: those that stage 1 has prepared (stage 1 itself may add sounds to them)
find_prepared_corpora() {
  local folder name
  ((${#folder_of[@]} == 0 && stage >= 1)) || return 0
  [[ $stage -ge 2 || -n $noise$rir$unlabelled$test_noise$test_rir ]] || return 0
  for folder in "$data"/manifests/*/; do
    name=$(basename "$folder")
    # other names cannot be the index of an array
    [[ $name =~ ^[a-z][a-z0-9_]*$ && -f $folder/stage.json &&
      ! $name =~ ^((test_)?(noise|rir)|unlabelled)$ ]] || continue
    folder_of[$name]=''
  done
  if ((${#folder_of[@]})); then log "no corpus is given: using those in $data/manifests"; fi
}

# any_exists PATH...: whether the first of a pattern's matches exists (a pattern without matches stays as it is)
any_exists() {
  [[ -e $1 ]]
}

given=() absent=()  # corpora of this run, and of the recipe those that are not, in the recipe's order
tables_only=false   # stage 5 where nothing but experiments is left: tables are made from their score files

choose_corpora() {
  local corpus
  find_prepared_corpora
  for corpus in "${recipe_corpora[@]}" $(printf '%s\n' "${!folder_of[@]}" | sort); do
    if [[ " ${given[*]} ${absent[*]} " == *" $corpus "* ]]; then continue
    elif [[ -v folder_of[$corpus] ]]; then given+=("$corpus")
    else absent+=("$corpus"); fi
  done
  if ((stage == 5 && ${#given[@]} == 0)) && [[ ! -e $data ]] && any_exists "$exp"/*/*/fold*/seed*/scored; then
    log "there is no $data: nothing is scored, the tables are made from the score files in $exp"
    tables_only=true
    return
  fi
  ((${#given[@]})) ||
    die "no corpus is given and none is prepared in $data/manifests: give --${corpus_names[0]} DIR" \
      "and the others that you have, or --mini true for synthesised ones; --help shows all. Sounds are added to" \
      "corpora that are prepared already with --stage 1."
  [[ " ${given[*]} " == *" $target "* ]] ||
    die "the target $target is not among the corpora that are given or prepared (${given[*]}); see --help."
  ! $soft_labels || [[ " ${given[*]} " == *" crema_d "* ]] ||
    die "--soft-labels true needs crema_d, whose listeners' votes it takes, among the corpora that are given or" \
      "prepared (${given[*]})."
  for corpus in "${absent[@]}"; do log "$corpus is not given and is left out"; done
}

choose_phonemes() {
  local corpus
  if [[ -z $phonemes ]]; then
    for corpus in "${phoneme_corpora[@]}"; do
      if [[ " ${given[*]} " == *" $corpus "* ]]; then phonemes=$corpus; fi
    done
  elif [[ $phonemes == none ]]; then phonemes=''
  else
    [[ " ${given[*]} " == *" $phonemes "* ]] ||
      die "--phonemes $phonemes is not among the corpora that are given or prepared (${given[*]})."
  fi
}

# what stage 5 runs itself, and what is left to be trained
references=()
declare -A kernel_of=([probe]=rbf [probe_linear]=linear [majority]=majority)
split_systems() {
  local name trained=()
  for name in $systems; do
    case $name in
      probe | probe_linear | majority) references+=("$name") ;;
      *) trained+=("$name") ;;
    esac
  done
  systems=${trained[*]}
  if $probe && [[ " ${references[*]} " != *" probe "* ]]; then references+=(probe); fi
  [[ -n $systems || ${#references[@]} -gt 0 ]] || die "--systems names no system."
}

# the options that several of speecheq's commands take
collect_arguments() {
  if $soft_labels; then set_options=(loss.soft_labels=true "${set_options[@]}"); fi
  labels=(--target "$target" --protocol "$protocol" --folds "$folds" --classes "$classes"
    --neutral-eis "$neutral_eis" --as-published "$as_published")
  runs=(--data "$data" --exp "$exp" --config "$config" --systems "$systems" --seeds "$seeds" "${labels[@]}"
    --features "${features%%=*}")
  phoneme_units=(--units "$units" --bpe-size "$bpe_size" --pronunciations "$pronunciations" --silence "$silence")
  training_options=(${phonemes:+--phonemes "$phonemes"} "${phoneme_units[@]}" "${set_options[@]/#/--set=}")
  jobs=()  # where stages run
  [[ $cmd != local ]] || return 0
  jobs=(--cmd "$cmd" --jobs-folder "$exp/jobs" --partition "$partition" --account "$account" --time "$time"
    --memory "$memory" --cpus "$cpus" --gpu "$gpu" --jobs-at-once "$jobs_at_once" --requeue "$requeue"
    --keep-jobs "$keep_jobs" --dry-run "$dry_run" "${job_option_options[@]/#/--job-option=}")
  export SPEECHEQ_RECIPE_PID=$$  # the commands that wait for jobs end when this shell does
}

check_values
make_paths_absolute
place_given_corpora
cd "$recipe" || exit 1
set_defaults
if $status; then
  speecheq status --data "$data" --exp "$exp"
  exit
fi
place_downloads
find_sounds
choose_corpora
choose_phonemes
split_systems
collect_arguments
# With --dry-run the first stage that is not done ends the recipe with status 3: what later stages would submit depends
# on its outputs.
if $dry_run; then trap '[[ $? != 3 ]] || exit 0' EXIT; fi

# ---- stages

# run_or_list NAME COMMAND...: runs what makes the manifests NAME, or, where $listing, takes it to the tasks of an array
run_or_list() {
  if $listing; then tasks+=("$1" "$data/manifests/$1/stage.json" "$(($# - 1))" "${@:2}"); else "${@:2}"; fi
}
listing=false tasks=()

# prepare CORPUS [OPTION...]: stage 1 of one corpus, by its prep script, or without any code from a folder or table
prepare() {
  local corpus=$1 script from part
  shift
  script=local/prepare_$(script_of "$corpus").py from=${folder_of[$corpus]} part=${part_of[$corpus]:-}
  if $soft_labels && [[ $corpus == crema_d ]]; then part=votes; fi
  if [[ -f $script && $from != *.[ct]sv && $from != *.jsonl && ! -f $from/wav.scp ]]; then
    run_or_list "$corpus" "$script" "$from" "$data/manifests/$corpus" ${part:+--part "$part"} --partial "$partial" "$@"
  else
    run_or_list "$corpus" speecheq import "$from" "$data/manifests/$corpus" --name "$corpus" --partial "$partial" "$@"
  fi
}

# prepare_sounds [OPTION...]: stage 1 of the noises, impulse responses and unlabelled speech that were given
prepare_sounds() {
  local kind hours
  for kind in "${!sounds[@]}"; do
    hours=${kind}_hours
    if [[ -n ${sounds[$kind]} ]]; then
      run_or_list "$kind" "local/prepare_${kind#test_}.py" "${sounds[$kind]}" "$data/manifests/$kind" \
        --partial "$partial" ${!hours:+--hours "${!hours}"} "$@"
    fi
  done
}

# stage 0: synthesise, download, check what was given, say where the rest is to be had
get_corpora() {
  local corpus names=()
  if $mini; then
    for corpus in "${mini_corpora[@]}" ${mini_unlabelled:+"$mini_unlabelled"}; do
      names+=("$(script_of "$corpus")")
    done
    speecheq synth --out "$data/corpora" --corpora "${names[@]}"
  fi
  for corpus in $download; do speecheq download "$corpus" --out "$corpora"; done
  for corpus in "${given[@]}"; do
    [[ -n ${folder_of[$corpus]} ]] || die "stage 0 checks corpora: give them, such as --${corpus_names[0]} DIR."
    prepare "$corpus" --check-only
  done
  prepare_sounds --check-only
  if ! $mini && ((${#absent[@]})); then speecheq corpora "${absent[@]}"; fi
}

make_manifests() {
  local corpus hours listing=false tasks=()
  if [[ $cmd != local ]]; then listing=true; fi
  for corpus in "${given[@]}"; do
    [[ -n ${folder_of[$corpus]} ]] || continue
    hours=${corpus}_hours
    prepare "$corpus" --nj "$nj" ${!hours:+--hours "${!hours}"}
  done
  prepare_sounds --nj "$nj"
  if ((${#tasks[@]})); then printf '%s\0' "${tasks[@]}" | speecheq jobs --name manifests "${jobs[@]}"; fi
}

make_features() {
  speecheq features --data "$data" --corpora "${given[@]}" --nj "$nj" --speech-activity "$speech_activity" \
    "${jobs[@]}"
  if [[ $features != fbank ]]; then
    speecheq features --features "$features" --store-features "$store_features" --data "$data" \
      --corpora "${given[@]}" --nj "$nj" "${jobs[@]}"
  fi
}

make_msud() {
  local emotion use
  emotion=$(speecheq corpora --prepared "$data/manifests" "${given[@]}")
  use=$(default_use "$target")
  # shellcheck disable=SC2086  # one word a corpus or restriction; of two for the same corpus the later counts
  speecheq unify --data "$data" "${labels[@]}" --dev "$dev" --corpora $emotion \
    --recipe-corpora "${emotion_corpora[@]}" ${use/#/--use=} "${use_options[@]/#/--use=}" \
    ${folds_file:+--folds-file "$folds_file"} "${jobs[@]}"
  if [[ -n $phonemes ]]; then
    speecheq phonemes --data "$data" --corpus "$phonemes" "${phoneme_units[@]}" "${jobs[@]}"
  fi
  if $shar && [[ -n $systems ]]; then
    speecheq shar "${runs[@]}" "${training_options[@]}" --shard-clips "$shard_clips" --nj "$nj" "${jobs[@]}"
  fi
}

train_systems() {
  local kind with_sounds=() from_shards=()
  [[ -n $systems ]] || return 0
  for kind in "${!sounds[@]}"; do
    if [[ $kind != test_* ]]; then with_sounds+=("--$kind" "$data/manifests/$kind"); fi
  done
  if $shar; then from_shards+=(--shar); fi
  speecheq train "${runs[@]}" "${training_options[@]}" --jobs "$train_jobs" --gpus "$gpus" --nodes "$nodes" \
    ${rendezvous:+--rendezvous "$rendezvous"} ${init_from:+--init-from "$init_from"} "${with_sounds[@]}" \
    ${ctc_backend:+--ctc-backend "$ctc_backend"} "${from_shards[@]}" "${jobs[@]}"
}

score_systems() {
  local kind corpus train_clips=() with_sounds=() others=()
  if $score_train; then train_clips+=(--train-clips); fi
  if $tables_only || [[ -z $systems ]]; then robustness=''; fi
  $tables_only || [[ -z $systems ]] || speecheq score "${runs[@]}" "${train_clips[@]}" "${jobs[@]}"
  if ! $tables_only && [[ -n $robustness ]]; then
    for kind in "${!sounds[@]}"; do
      if [[ $kind == test_* ]]; then with_sounds+=("--${kind#test_}" "$data/manifests/$kind"); fi
    done
    if [[ " $robustness " == *" corpora "* ]]; then
      for corpus in ${other_corpora:-$(speecheq corpora --prepared "$data/manifests" "${given[@]}")}; do
        if [[ -n $other_corpora || $corpus != "$target" ]]; then others+=("$corpus"); fi
      done
    fi
    # shellcheck disable=SC2086  # lists
    speecheq robustness $robustness "${runs[@]}" ${others:+--to "${others[@]}"} ${shots:+--shots $shots} \
      "${with_sounds[@]}" "${jobs[@]}"
  fi
  if ! $tables_only && ((${#references[@]})); then
    for kind in "${references[@]}"; do
      speecheq probe --data "$data" --exp "$exp" --features "${features%%=*}" "${labels[@]}" --config "$config" \
        "${set_options[@]/#/--set=}" --kernel "${kernel_of[$kind]}"
    done
  fi
  speecheq report --exp "$exp" --title "$title" --results "$results" --table conf/table.yaml
}
