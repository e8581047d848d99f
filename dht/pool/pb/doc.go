// Package pb holds the messages of dht/pool, generated from pool.proto beside it:
//
//	go build -o protoc-gen-go google.golang.org/protobuf/cmd/protoc-gen-go
//	PATH=$PATH:. protoc --go_out=. --go_opt=paths=source_relative pool.proto
//
// It knows nothing of what they mean.
package pb
