# shellcheck shell=bash
# Sourced: log lines with their time, a clear end, and the stages of a recipe.

# macOS has a bash of 2007 and no GNU tools; those of `brew install bash coreutils` are found where brew puts them
if [[ $OSTYPE == darwin* ]]; then
  for _gnubin in /opt/homebrew/opt/coreutils/libexec/gnubin /usr/local/opt/coreutils/libexec/gnubin; do
    [[ ! -d $_gnubin ]] || PATH=$_gnubin:$PATH
  done
fi
if ((BASH_VERSINFO[0] * 100 + BASH_VERSINFO[1] < 404)) || ! realpath -m / >/dev/null 2>&1; then
  echo "error: bash 4.4 or later and the GNU coreutils are needed, and this is bash $BASH_VERSION: on macOS run" \
    "'brew install bash coreutils', and start the script in a new shell." >&2
  exit 1
fi

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
