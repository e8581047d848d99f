//go:build lossydisk && !breakfsync

package folder

const syncForgotten = false
