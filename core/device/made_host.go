//go:build !tinygo

package device

// v1Made: a host links both wires, and makes them on many goroutines.
const v1Made = true

func makesV1() {}

// patchesMade: the same.
const patchesMade = true

func makesPatches() {}
