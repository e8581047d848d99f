#!/usr/bin/env bash
# Makes a pool of separate containers (testnet/compose.yaml) and shows that it is one: a file that is put on one is read on
# another after the one is gone. The number of peers is the only argument.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
. testnet/image.sh
peers=${1:-4}

engine
build
if command -v docker-compose >/dev/null; then compose=(docker-compose); else compose=(docker compose); fi
compose+=(-p "shoal-testnet-$$" -f testnet/compose.yaml)
trap '"${compose[@]}" down --volumes --timeout 5 >/dev/null 2>&1' EXIT
"${compose[@]}" up -d --scale "peer=$((peers - 1))" 2>/dev/null

# until runs a command until it succeeds, for a minute at most.
until_done() {
	local end=$((SECONDS + 60))
	until "$@"; do
		[ $SECONDS -lt $end ] || { echo "not within a minute: $*" >&2; return 1; }
		sleep 0.3
	done
}
on() { local who=$1; shift; docker exec -i "$who" /shoal "$@"; }
quiet() { "$@" >/dev/null 2>&1; }

founder=$("${compose[@]}" ps -q founder)
mapfile -t others < <("${compose[@]}" ps -q peer)
for c in "$founder" "${others[@]}"; do until_done quiet on "$c" status; done
ticket=$(on "$founder" invite --uses "$peers" 2>/dev/null)
for c in "${others[@]}"; do quiet on "$c" join --yes "$ticket"; done
online() { [ "$(on "$1" peers --json | grep -c '"state": "online"')" = "$peers" ]; }
for c in "$founder" "${others[@]}"; do until_done online "$c"; done
on "$founder" peers

text="put on the founder, read when it is gone"
# A pool that has just met gives a file its copies; what is put before that has one.
copied() { on "$founder" ls -l / | grep -qE '([2-9])/3 .* hello'; }
put() { quiet on "$founder" put - /hello <<<"$text" && copied; }
until_done put
docker kill "$founder" >/dev/null
reads() { [ "$(on "${others[0]}" cat /hello 2>/dev/null)" = "$text" ]; }
until_done reads
echo "ok: $peers containers are one pool, and $text"
