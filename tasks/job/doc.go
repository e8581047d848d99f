// Package job owns the vocabulary of work: a job's spec as its submitter signs it, how it is split into tasks, what one
// task may use and what it gives back, and the token that names one attempt.
//
// A job is an immutable signed Spec; its ID is the SHA-256 of the signed bytes, which therefore are a raw block of that
// name. A task is (job, index). An attempt is one run of a task by one worker; its Token only grows. A Result is what an
// attempt gives back.
//
// The package refuses to do anything: it runs, fetches and grants nothing, and knows no clock. Everything decoded here is
// bounded and checked; what passes Validate may be handed to a runner.
package job
