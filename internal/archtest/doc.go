// Package archtest holds the rules of docs/design/architecture.md as tests: who may
// import whom, what device code may not do, what no file may hold. It looks at
// source text only, so that a rule needs no tool but Go, and each message names
// the replacement.
//
// Every rule has a file in testdata with a small tree that breaks it, and the
// violations that it must find there: a rule that finds nothing anywhere would
// look like one that is kept.
package archtest
