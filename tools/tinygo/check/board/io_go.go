//go:build !tinygo

package board

// Plain Go only type-checks and vets these programs.

var in, out uint32

// Input is a word from outside.
func Input() uint32 { return in }

// Output is a word to outside.
func Output(v uint32) { out = v }
