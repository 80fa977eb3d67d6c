# shellcheck shell=bash
# Sourced by every script (`. ./path.sh`, also through a recipe's link), and by users in bash or zsh: puts the
# environment in place that utils/install.sh made in .venv, or in $SPEECHEQ_VENV, and the package of this checkout
# before any other.

# Up to the first [[ any shell must be able to read this.
if [ -n "${BASH_VERSION:-}" ]; then
  # shellcheck disable=SC2128  # the first one, in words that other shells can read
  _speecheq_file=$BASH_SOURCE
elif [ -n "${ZSH_VERSION:-}" ]; then
  _speecheq_file=$0  # of a sourced file, in zsh
else
  echo "error: path.sh is for bash and zsh: start one of them and source it there." >&2
  # shellcheck disable=SC2317  # exit: for who runs this file instead of sourcing it
  return 1 2>/dev/null || exit 1
fi
if ! env pwd >/dev/null 2>&1; then
  echo "error: the working folder does not exist any more: change to another one (cd) and try again." >&2
  # shellcheck disable=SC2317
  return 1 2>/dev/null || exit 1
fi
SPEECHEQ_ROOT=$(dirname "$(readlink -f "$_speecheq_file")")
unset _speecheq_file
SPEECHEQ_VENV=${SPEECHEQ_VENV:-$SPEECHEQ_ROOT/.venv}

# _speecheq_hindrance: says what of the environment is there and may not be used, nothing if all may be
_speecheq_hindrance() {
  local part user python=$SPEECHEQ_VENV/bin/python
  user=$(id -un 2>/dev/null || id -u)
  part=$SPEECHEQ_VENV
  [[ $part == /* ]] || part=$PWD/$part
  while [[ -n $part && ! -e $part ]]; do part=${part%/*}; done  # of an environment that is not seen, where it ends
  if [[ -d ${part:-/} && ! -x ${part:-/} ]]; then
    echo "$user may not look into ${part:-/}"
    return
  fi
  for part in bin lib bin/python pyvenv.cfg speecheq-stack speecheq-stamp; do
    part=$SPEECHEQ_VENV/$part
    if [[ -e $part && ! -r $part ]] || [[ -d $part && ! -x $part ]]; then
      echo "$user may not read $part"
      return
    fi
  done
  if [[ -L $python && ! -e $python ]]; then
    echo "its Python is a link to $(readlink -m "$python" 2>/dev/null || readlink "$python"), which is missing, or $user may not look there"
  elif [[ -e $python && ! -x $python ]]; then
    echo "$user may not run $python"
  fi
}
_speecheq_why=$(_speecheq_hindrance)
unset -f _speecheq_hindrance
if [[ -n $_speecheq_why ]]; then
  echo "error: the environment in $SPEECHEQ_VENV cannot be used: $_speecheq_why; have its rights changed, make one of" \
    "your own with $SPEECHEQ_ROOT/utils/install.sh --venv DIR, or set SPEECHEQ_VENV to another one." >&2
  unset _speecheq_why
  # shellcheck disable=SC2317
  return 1 2>/dev/null || exit 1
fi
unset _speecheq_why
if [[ ! -x $SPEECHEQ_VENV/bin/python ]]; then
  echo "error: no environment is installed in $SPEECHEQ_VENV: run $SPEECHEQ_ROOT/utils/install.sh" \
    "(or make demo), or set SPEECHEQ_VENV to the one to use." >&2
  # shellcheck disable=SC2317
  return 1 2>/dev/null || exit 1
fi
SPEECHEQ_VENV=$(CDPATH='' cd -- "$SPEECHEQ_VENV" >/dev/null && pwd)
# An environment of our installer names its stack from the start and has a stamp once it is whole.
SPEECHEQ_STACK=unknown
if [[ -f $SPEECHEQ_VENV/speecheq-stack ]]; then
  read -r SPEECHEQ_STACK <"$SPEECHEQ_VENV/speecheq-stack" || true
  if [[ ! -f $SPEECHEQ_VENV/speecheq-stamp ]]; then
    echo "error: the installation in $SPEECHEQ_VENV did not finish: run $SPEECHEQ_ROOT/utils/install.sh again." >&2
    # shellcheck disable=SC2317
    return 1 2>/dev/null || exit 1
  fi
fi
export SPEECHEQ_ROOT SPEECHEQ_VENV SPEECHEQ_STACK
export VIRTUAL_ENV=$SPEECHEQ_VENV
[[ $PATH == "$SPEECHEQ_VENV/bin:"* ]] || export PATH="$SPEECHEQ_VENV/bin:$PATH"
[[ ${PYTHONPATH:-} == "$SPEECHEQ_ROOT" || ${PYTHONPATH:-} == "$SPEECHEQ_ROOT:"* ]] ||
  export PYTHONPATH="$SPEECHEQ_ROOT${PYTHONPATH:+:$PYTHONPATH}"
unset PYTHONHOME
# Spinning OpenMP threads take each other's cores: without this, steps can stall for seconds.
export OMP_WAIT_POLICY=PASSIVE
# Training frees and takes large blocks all the time. By default malloc hands each back to the system and has it again
# page by page, which was up to 60 % of a training step on a CPU.
export MALLOC_MMAP_MAX_=0 MALLOC_TRIM_THRESHOLD_=17179869184
# The MKL of torch 1.13 takes its slowest code on processors that are not Intel's; this is its AVX2 code, three times
# as fast. Later ones know no such variable.
if grep -qs AuthenticAMD /proc/cpuinfo && grep -qsw avx2 /proc/cpuinfo; then export MKL_DEBUG_CPU_TYPE=5; fi
# A job's log shows its lines as they are written.
export PYTHONUNBUFFERED=1
# Paths and transcripts are Chinese: the same bytes and order of sorting everywhere.
export LC_ALL=C.UTF-8
if [[ $OSTYPE == darwin* ]]; then
  unset LC_ALL  # of macOS, which knows no C.UTF-8
  export LC_COLLATE=C LC_NUMERIC=C LC_CTYPE=UTF-8
  export OBJC_DISABLE_INITIALIZE_FORK_SAFETY=YES  # processes that read clips are forked
fi
