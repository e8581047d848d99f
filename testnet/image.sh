# Sourced by testnet.sh and compose.sh: where an engine is, and the image.

image=${SHOAL_IMAGE:-shoal-testnet}

# engine says why no engine can be used, on stderr; no answer is no success.
engine() {
	command -v docker >/dev/null || { echo "docker is not installed" >&2; return 1; }
	docker version --format '{{.Server.Version}}' >/dev/null 2>&1 || { echo "no docker engine answers" >&2; return 1; }
}

# build makes the image: in two stages where a Go image is at hand already (no registry is assumed to be reachable), else
# of a program that is built here. It is silent unless it fails.
build() {
	local go_image context out
	go_image=$(docker images --format '{{.Repository}}:{{.Tag}}' golang | grep -v '<none>' | head -n 1 || true)
	if [ -n "$go_image" ]; then
		out=$(docker build --build-arg "GO_IMAGE=$go_image" -f testnet/Dockerfile -t "$image" . 2>&1) || { echo "$out" >&2; return 1; }
		return
	fi
	command -v go >/dev/null || { echo "there is neither a Go image nor Go here to build the program with" >&2; return 1; }
	context=$(mktemp -d)
	out=$(CGO_ENABLED=0 GOOS=linux go build -trimpath -o "$context/shoal" ./cli/shoal 2>&1 &&
		docker build -f testnet/Dockerfile.built -t "$image" "$context" 2>&1) || { echo "$out" >&2; rm -rf "$context"; return 1; }
	rm -rf "$context"
}
