//go:build race

package wasm

const raceSlack = 3 << 30
