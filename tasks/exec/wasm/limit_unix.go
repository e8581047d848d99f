//go:build unix && !linux

package wasm

const dontneedZeroes = false

func limitData(uint64) {}
