//go:build !lossydisk && !breakfsync

package pack

// wrap is where a build with the tag lossydisk puts its crash model.
func wrap(f folder) FS { return f }
