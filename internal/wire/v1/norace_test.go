//go:build !race

package v1_test

const manyDevices = 10_000
