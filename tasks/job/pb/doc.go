// Package pb holds the schema of a job's spec and of a task's result, and the code made from it. It decides nothing;
// package job bounds and checks what is read with it.
package pb
