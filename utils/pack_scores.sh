#!/usr/bin/env bash
# Packs the score files of a recipe's experiments, so that their page of results can be made anew without training.
#
#   utils/pack_scores.sh --exp DIR --archive FILE.tar.xz
#
# Packed are, of each fold and seed that stage 5 has scored, config.yaml, run.json, scores.tsv, metrics.json and the
# stages' marks: no checkpoints, features or clips. The same files make the same archive, byte for byte. To make the
# page:
#
#   mkdir DIR && tar -xf FILE.tar.xz -C DIR
#   speecheq report --exp DIR --title TITLE --results PAGE.md --table egs/RECIPE/conf/table.yaml
set -euo pipefail

exp='' archive=''
options=(exp archive)
# shellcheck source=utils/parse_options.sh
. "$(dirname "$(readlink -f "$0")")/parse_options.sh"

[[ -n $exp && -n $archive ]] || die "both are needed: --exp DIR --archive FILE.tar.xz (--help says what they are)."
[[ -d $exp ]] || die "--exp $exp: there is no such folder."
[[ $archive == *.tar.xz ]] || die "--archive $archive: the name must end in .tar.xz."

list=$(mktemp)
trap 'rm -f "$list" "$archive.part"' EXIT
folds=0
for mark in "$exp"/*/*/fold*/seed*/scored/stage.json; do
  [[ -e $mark ]] || die "--exp $exp: stage 5 has scored no fold in it."
  folds=$((folds + 1))
  for name in config.yaml run.json scores.tsv metrics.json stage.json scored/stage.json; do
    file=${mark%/scored/stage.json}/$name
    [[ ! -e $file ]] || printf '%s\n' "${file#"$exp"/}" >>"$list"
  done
done
LC_ALL=C sort -o "$list" "$list"
tar -C "$exp" --no-recursion --owner=0 --group=0 --numeric-owner --mode=644 --mtime=@0 --format=ustar \
  -cf - -T "$list" | xz -9e >"$archive.part" || die "--archive $archive: could not be written."
mv "$archive.part" "$archive"
log "$folds folds and seeds in $archive, $(stat -c %s "$archive") bytes"
