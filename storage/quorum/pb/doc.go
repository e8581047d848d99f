// Package pb holds the messages of storage/quorum, generated from quorum.proto beside it:
//
//	go build -o protoc-gen-go google.golang.org/protobuf/cmd/protoc-gen-go
//	PATH=$PATH:. protoc --go_out=. --go_opt=paths=source_relative quorum.proto
//
// It owns no logic: what a message means and how it is bounded is package quorum's.
package pb
