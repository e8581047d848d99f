//go:build !lossydisk && !breakfsync

package folder

// wrap is where a build with the tag lossydisk puts its crash model.
func wrap(f onDisk) FS { return f }
