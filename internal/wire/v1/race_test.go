//go:build race

package v1_test

// The race detector makes everything ten times slower; the figures are those of the run without it.
const manyDevices = 1000
