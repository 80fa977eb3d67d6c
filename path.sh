# shellcheck shell=bash
# Sourced by every script (`. ./path.sh`, also through a recipe's link): puts the environment in place that
# utils/install.sh made in .venv, or in $SPEECHEQ_VENV, and the package of this checkout before any other.

SPEECHEQ_ROOT=$(dirname "$(readlink -f "${BASH_SOURCE[0]}")")
SPEECHEQ_VENV=${SPEECHEQ_VENV:-$SPEECHEQ_ROOT/.venv}
if [[ ! -x $SPEECHEQ_VENV/bin/python ]]; then
  echo "error: no environment is installed in $SPEECHEQ_VENV: run $SPEECHEQ_ROOT/utils/install.sh" \
    "(or make demo), or set SPEECHEQ_VENV to the one to use." >&2
  # shellcheck disable=SC2317  # exit: for who runs this file instead of sourcing it
  return 1 2>/dev/null || exit 1
fi
SPEECHEQ_VENV=$(cd "$SPEECHEQ_VENV" && pwd)
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
