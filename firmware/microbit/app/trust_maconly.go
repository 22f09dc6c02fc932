//go:build tinygo && !signed

package main

import "github.com/runnel-fota/runnel/core/device"

// trust: this image believes its HMAC key alone.
func trust(c *device.NativeConfig) bool {
	c.Profile = device.MACOnly()
	return true
}
