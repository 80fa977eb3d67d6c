# shellcheck shell=bash
# Sourced by a script after it has set its options to their defaults: reads `--name value` and `--name=value`
# from the script's arguments into the variables of those names (dashes in a name become underscores).
#
# The script declares what it knows:
#   options=(stage stop_stage config)   each sets the variable of its name; the last one given counts
#   boolean_options=(mini partial)      the same, and the value must be true or false
#   last_stage=5                        the last stage of the script
#   list_options=(set)                  may be repeated: --set a=1 --set b=2 gives set_options=(a=1 b=2)
#   help_files=(FILE)                   whose opening comments --help prints after the script's own
# --help prints the comment that opens the script. No value is ever evaluated as code.

# shellcheck source=utils/log.sh
. "$(dirname "${BASH_SOURCE[0]}")/log.sh"

# the comment between the first line of the script and its first line that is none; then that of each help file
_print_help() {
  local _file
  for _file in "$0" "${help_files[@]}"; do
    awk 'NR == 1 && /^#!/ { next } !/^#/ { exit } { sub(/^# ?/, ""); print }' "$_file"
  done
}

# Names of locals begin with _: printf -v must reach the script's variable, never a local of the same name.
_parse_options() {
  local _argument _name _value _known _all=("${options[@]}" "${boolean_options[@]}" "${list_options[@]}")
  while (($# > 0)); do
    _argument=$1
    shift
    case $_argument in
      -h | --help)
        _print_help
        exit 0
        ;;
      --?*) ;;
      *) die "'$_argument' is not an option: options are given as --name value or --name=value (--help shows them)." ;;
    esac
    _name=${_argument#--}
    _name=${_name%%=*}
    _name=${_name//-/_}
    _known=false
    [[ " ${_all[*]} " == *" $_name "* && $_name != *" "* && -n $_name ]] && _known=true
    $_known || die "unknown option '${_argument%%=*}': this script knows$(printf ' --%s' "${_all[@]//_/-}") and --help."
    if [[ $_argument == *=* ]]; then
      _value=${_argument#*=}
    elif (($# > 0)) && [[ $1 != --* ]]; then
      _value=$1
      shift
    else
      die "option $_argument needs a value: $_argument VALUE or $_argument=VALUE."
    fi
    if [[ " ${list_options[*]} " == *" $_name "* ]]; then
      local -n _list=${_name}_options
      _list+=("$_value")
    else
      printf -v "$_name" '%s' "$_value"
    fi
  done
}

_check_options() {
  local _name
  for _name in "${boolean_options[@]}"; do
    [[ ${!_name} == true || ${!_name} == false ]] ||
      die "option --${_name//_/-} is true or false, not '${!_name}'."
  done
  for _name in stage stop_stage; do
    [[ " ${options[*]} " != *" $_name "* || ${!_name} =~ ^(0|[1-9][0-9]{0,3})$ ]] ||
      die "option --${_name//_/-} is the whole number of a stage, not '${!_name}'."
  done
  # shellcheck disable=SC2154  # the script's options
  if [[ -n ${last_stage:-} ]] && ((stage > last_stage || stop_stage > last_stage)); then
    die "there is no stage after $last_stage: --stage $stage --stop-stage $stop_stage."
  fi
  # shellcheck disable=SC2154  # the script's options
  if [[ " ${options[*]} " == *" stage "* && " ${options[*]} " == *" stop_stage "* ]] && ((stage > stop_stage)); then
    die "--stage $stage is after --stop-stage $stop_stage: give a first stage that is not after the last."
  fi
}

[[ -v options[@] ]] || options=()
[[ -v boolean_options[@] ]] || boolean_options=()
[[ -v list_options[@] ]] || list_options=()
[[ -v help_files[@] ]] || help_files=()
for _name in "${list_options[@]}"; do
  declare -a "${_name}_options=()"
done
_parse_options "$@"
_check_options
unset _name
set --
