#!/usr/bin/env bash
# From cron: can cellmove do its work, is a move half-way, does a server wait to be confirmed?
#
#   check-every-morning.sh operators@example.net
#
# Sends one mail when there is something to say, and none otherwise. MAIL is the command that sends
# it: it is given a subject and an address, and the text on standard input.
set -euo pipefail

to=${1:?usage: check-every-morning.sh ADDRESS}
read -ra mail <<< "${MAIL:-mail -s}"

code=0
checked=$(cellmove check --json --quiet) || code=$?
case $code in
  0) amiss= ;;
  7)
    amiss=$(jq -r '.findings[] | select(.result == "fail") | "\(.what): \(.seen) \(.do)"' \
      <<< "$checked")
    ;;
  *) amiss="cellmove check ended with $code: $(jq -r '.error.what' <<< "$checked")" ;;
esac

# What cannot be asked is told too: silence must mean that all is well.
said() {
  local document code=0
  document=$(cellmove "$1" --json --quiet) || code=$?
  if ((code == 0)); then
    jq -r "$2" <<< "$document"
  else
    echo "cellmove $1 ended with $code: $(jq -r '.error | "\(.what) \(.seen)"' <<< "$document")"
  fi
}

open=$(said moves '
  .moves[] | select(.state == "open" or .state == "undoing")
  | "move \(.number), \(.verb) \(.name), since \(.created_at): cellmove show \(.number)"')
waiting=$(said list '
  .servers[] | select(.status == "VERIFY_RESIZE") | "\(.name) (\(.server)) on \(.host)"')

text=
[[ -z $amiss ]] || text+="Out of order:"$'\n'"$amiss"$'\n\n'
[[ -z $open ]] || text+="Moves that stand half-way:"$'\n'"$open"$'\n\n'
[[ -z $waiting ]] || text+="Servers that wait for confirm or revert:"$'\n'"$waiting"$'\n'

if [[ -n $text ]]; then
  printf '%s' "$text" | "${mail[@]}" "cellmove on $(hostname)" "$to"
fi
exit "$code"
