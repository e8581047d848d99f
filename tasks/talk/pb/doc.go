// Package pb is the schema of /shoal/market/1, /shoal/log/1 and the announcements, as generated from talk.proto.
package pb

//go:generate protoc --go_out=. --go_opt=paths=source_relative talk.proto
