//go:build !tinygo

package board

// Plain Go only type-checks and vets these programs.

var word uint32

// Input is a word from outside.
func Input() uint32 { return word }

// Output is a word to outside.
func Output(v uint32) { word = v }
