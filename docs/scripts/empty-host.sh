#!/usr/bin/env bash
# Empty a hypervisor before it is repaired: its servers go into another cell and wait there.
#
#   empty-host.sh HOST CELL           move them to VERIFY_RESIZE
#   DRY_RUN=1 empty-host.sh HOST CELL       which would go, which would not, and why
#
# Nothing is confirmed: when the owners are content, `cellmove confirm` takes all of them at once (its
# command is printed), and when the host is back, `cellmove revert` does. Run again, it goes on with
# what is left. Ends with 0 when the host has no more server to move, else with the code of the last
# one that could not go.
set -euo pipefail

host=${1:?usage: empty-host.sh HOST CELL}
cell=${2:?usage: empty-host.sh HOST CELL}
look=()
[[ -n ${DRY_RUN:-} ]] && look=(--dry-run)
gone=()
last=0

# Asked before the loop, not in it: a list that cannot be had is no empty host.
listed=$(cellmove list --host "$host" --json --quiet) || {
  code=$?
  jq -r '.error | "\(.what) \(.seen)"' <<< "$listed"
  exit "$code"
}
servers=$(jq -r '.servers | sort_by(.name)[]
                 | select(.status == "ACTIVE" or .status == "SHUTOFF")
                 | "\(.server) \(.name)"' <<< "$listed")

while read -r server name; do
  [[ -n $server ]] || continue
  code=0
  answer=$(cellmove resize "$server" --to-cell "$cell" "${look[@]}" --json --quiet \
    < /dev/null) || code=$?
  case $code in
    0)
      echo "$name: $(jq -r '(.results[0].host // .plans[0].move.target.host) // "?"' <<< "$answer")"
      gone+=("$server")
      ;;
    4 | 5)
      jq -r '.error | "\(.what) \(.seen) \(.do)"' <<< "$answer"
      exit "$code"
      ;;
    *)
      echo "$name stays: $(jq -r '.error | [.what, .reasons[].what] | join(" ")' <<< "$answer")"
      last=$code
      ;;
  esac
done <<< "$servers"

if ((${#gone[@]} > 0 && ${#look[@]} == 0)); then
  echo "when they are well: cellmove confirm --yes ${gone[*]}"
fi
exit "$last"
