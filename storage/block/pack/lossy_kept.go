//go:build lossydisk && !breakfsync

package pack

const syncForgotten = false
