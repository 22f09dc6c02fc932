//go:build !tinygo

package board

// StartClock starts the timer from 0.
func StartClock() {}

// Instructions is how many there were since StartClock.
func Instructions() uint32 { return word }

// PaintStack fills the part of the stack that is not in use.
func PaintStack() {}

// StackUsed is the most that was in use since then.
func StackUsed() uint32 { return word }

// Print says a word and a number.
func Print(string, uint32) {}
