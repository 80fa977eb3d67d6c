# shellcheck shell=bash
# Sourced: log lines with their time, a clear end, and the stages of a recipe.

# log TEXT: one line on standard error, whatever names are in it
log() {
  local text=$*
  printf '%s %s\n' "$(date '+%Y-%m-%d %H:%M:%S')" "${text//[[:cntrl:]]/?}" >&2
}

# die SENTENCE: what is wrong and what to do, then exit 1
die() {
  log "error: $*"
  exit 1
}

# stage N NAME: true, after a heading, if N is between $stage and $stop_stage of the script
stage() {
  # shellcheck disable=SC2154  # the script's options
  ((stage <= $1 && $1 <= stop_stage)) || return 1
  log "stage $1: $2"
}
