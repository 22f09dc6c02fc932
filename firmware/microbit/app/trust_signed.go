//go:build tinygo && signed

package main

import (
	"github.com/runnel-fota/runnel/core/device"
	"github.com/runnel-fota/runnel/core/ed25519"
)

var (
	signed   device.Signed
	verifier ed25519.Verifier
)

// trust: this image believes what release keys signed, under the roots of its factory
// page and the key lists that followed them.
func trust(c *device.NativeConfig) bool {
	if device.NewSigned(&signed, &verifier, &page) != nil {
		return false
	}
	c.Profile = signed.Profile()
	return true
}
