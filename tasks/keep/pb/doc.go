// Package pb is the schema of the records "keep/", as generated from keep.proto.
package pb

//go:generate protoc --go_out=. --go_opt=paths=source_relative keep.proto
