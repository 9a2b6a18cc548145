#!/usr/bin/env bash
# Move servers into another cell, one after the other, and keep those that answer afterwards.
#
#   move-at-night.sh CELL < servers          one name or UUID a line; # begins a remark
#   DRY_RUN=1 move-at-night.sh CELL < servers        look only
#   PROBE='check-web --fast' move-at-night.sh CELL < servers
#
# PROBE is a command that is given a server's UUID and its first address, and ends with 0 when the
# server is well; without one, that address is pinged. A server that is well within WAIT_SECONDS is
# confirmed, another one is brought back. Ends with 0 when all were moved, with 6 when some were not,
# and at once with 4 or 5 when a move stands half-way: then nothing more is begun.
set -euo pipefail

cell=${1:?usage: move-at-night.sh CELL < servers}
wait_seconds=${WAIT_SECONDS:-300}
remained=0

say() { printf '%s %s\n' "$(date -u +%H:%M:%S)" "$*"; }

# shellcheck disable=SC2329  # is_well calls it, unless there is a PROBE
pinged() { ping -q -c 3 -W 2 "$2" > /dev/null; }

address() {
  openstack server show -f json -c addresses "$1" \
    | jq -r '[.addresses | if type == "object" then .[][] else . end] | first // empty'
}

is_well() {
  local server=$1 at deadline
  at=$(address "$server") || at=
  deadline=$((SECONDS + wait_seconds))
  # PROBE is split into words on purpose: it is a command with its options.
  # shellcheck disable=SC2086
  until ${PROBE:-pinged} "$server" "$at"; do
    ((SECONDS < deadline)) || return 1
    sleep 2
  done
}

# Run cellmove; the number of its exit code is left in $code, and its document in $answer.
ask() {
  code=0
  answer=$(cellmove "$@" --json --quiet < /dev/null) || code=$?
}

# What an answer says went wrong, in one line.
why() { jq -r '.error // .results[0].error | "\(.what) \(.seen)"' <<< "$answer"; }

# After 4 and 5 a person decides; the codes 1, 2 and 3 leave the server as it was.
go_on_unless_it_stands() {
  if ((code == 4 || code == 5)); then
    say "$1: $(why)"
    say "stopped: see 'cellmove moves'"
    exit "$code"
  fi
}

while read -r name _; do
  [[ -n $name && $name != '#'* ]] || continue

  if [[ -n ${DRY_RUN:-} ]]; then
    ask resize "$name" --to-cell "$cell" --dry-run
    if ((code == 0)); then
      say "$name: would go to $(jq -r '.plans[0].move.target.host' <<< "$answer")"
    else
      say "$name: $(why)"
      remained=6
    fi
    continue
  fi

  ask resize "$name" --to-cell "$cell"
  go_on_unless_it_stands "$name"
  if ((code != 0)); then
    say "$name: stays: $(why)"
    remained=6
    continue
  fi
  server=$(jq -r '.results[0].server' <<< "$answer")
  host=$(jq -r '.results[0].host' <<< "$answer")

  if is_well "$server"; then
    ask confirm "$server" --yes
    go_on_unless_it_stands "$name"
    say "$name: moved to $host, and answers"
  else
    ask revert "$server" --yes
    go_on_unless_it_stands "$name"
    say "$name: did not answer on $host, and is back"
    remained=6
  fi
  if ((code != 0)); then
    say "$name: still waits to be confirmed or reverted: $(why)"
    remained=6
  fi
done

exit "$remained"
