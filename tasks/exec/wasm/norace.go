//go:build !race

package wasm

const raceSlack = 0
