// Package pb is the schema of the records "job/", as generated from card.proto.
package pb

//go:generate protoc --go_out=. --go_opt=paths=source_relative card.proto
