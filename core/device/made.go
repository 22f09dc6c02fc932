//go:build tinygo

package device

// v1Made: this program makes a V1. Where none is made nobody sets it, so that it is a
// constant for the linker, and what v1 alone needs of the updater is not linked.
var v1Made bool

func makesV1() { v1Made = true }

// patchesMade: this program makes a Patches; as v1Made.
var patchesMade bool

func makesPatches() { patchesMade = true }
