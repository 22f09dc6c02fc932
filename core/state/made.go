//go:build tinygo

package state

// trustMade: this program sets trust stores. Where none is set it is a constant for the
// linker, and a save moves what is there without the code for a new one.
var trustMade bool

func makesTrust() { trustMade = true }
