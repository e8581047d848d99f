#!/usr/bin/env bash
# Runs a scenario of the testnet in one container, in which each peer has a network namespace of its own. It takes what
# `shoal testnet` takes, and ends with its exit code:
#
#   testnet/testnet.sh --peers 20 --report churn.html churn
#
# The container has no network: what the peers send stays between them. Where no engine answers, the same runs
# without a container, and it says why.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
. testnet/image.sh

args=() report='' copies=()
while [ $# -gt 0 ]; do
	case $1 in
	--report) report=${2:?a file name is missing after --report}; args+=(--report /data/report.html); shift ;;
	--report=*) report=${1#*=}; args+=(--report /data/report.html) ;;
	*)
		# A scenario of one's own goes into the container.
		if [ -f "$1" ]; then copies+=("$1"); args+=("/data/${1##*/}"); else args+=("$1"); fi ;;
	esac
	shift
done

if ! why=$(engine 2>&1) || ! why=$(build 2>&1); then
	echo "not in a container: $why" >&2
	for i in "${!args[@]}"; do
		case ${args[$i]} in
		/data/report.html) args[$i]=$report ;;
		/data/*) for c in "${copies[@]}"; do [ "${c##*/}" != "${args[$i]#/data/}" ] || args[$i]=$c; done ;;
		esac
	done
	exec go run ./cli/shoal testnet "${args[@]}"
fi

# What the runner needs to make namespaces, devices and mounts inside, and no more. Device and rights may be refused (a rootless
# engine): then the runner says so and uses processes.
rights=(--cap-drop ALL --cap-add NET_ADMIN --cap-add SYS_ADMIN --security-opt apparmor=unconfined)
[ ! -e /dev/net/tun ] || rights+=(--device /dev/net/tun)
[ ! -e /dev/fuse ] || rights+=(--device /dev/fuse)
container=$(docker create --network none "${rights[@]}" "$image" testnet "${args[@]}")
trap 'docker rm -f -v "$container" >/dev/null 2>&1' EXIT
trap 'docker kill -s INT "$container" >/dev/null 2>&1' INT TERM
for c in ${copies[@]+"${copies[@]}"}; do docker cp -q "$c" "$container:/data/${c##*/}" 2>/dev/null || docker cp "$c" "$container:/data/${c##*/}" >&2; done
code=0
docker start --attach "$container" || code=$?
[ -z "$report" ] || docker cp "$container:/data/report.html" "$report" >/dev/null || echo "there is no report" >&2
exit "$code"
