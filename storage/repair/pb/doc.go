// Package pb holds the messages of /shoal/hold/1 and the value of the records "lends/", generated from hold.proto
// beside it:
//
//	go build -o protoc-gen-go google.golang.org/protobuf/cmd/protoc-gen-go
//	PATH=$PATH:. protoc --go_out=. --go_opt=paths=source_relative hold.proto
//
// It knows no stream and checks nothing: whoever reads a message does.
package pb
