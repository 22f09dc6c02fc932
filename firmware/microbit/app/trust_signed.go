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
	if device.NewSigned(&signed, (*signatures)(nil), (*roots)(nil)) != nil {
		return false
	}
	c.Profile = signed.Profile()
	return true
}

// As in parts.go: what is handed over in an interface has no fields.
type (
	signatures struct{}
	roots      struct{}
)

func (*signatures) Verify(alg int8, key, sig, head, payload []byte) bool {
	return verifier.Verify(alg, key, sig, head, payload)
}
func (*signatures) Begin(alg int8, key, sig, head, payload []byte) {
	verifier.Begin(alg, key, sig, head, payload)
}
func (*signatures) Step() (done, ok bool) { return verifier.Step() }

func (*roots) ReadAt(p []byte, off uint32) error { return page.ReadAt(p, off) }

func (*keeper) TrustLen() uint32                  { return store.TrustLen() }
func (*keeper) SetTrust(n uint32) error           { return store.SetTrust(n) }
func (*keeper) ReadAt(p []byte, off uint32) error { return store.ReadAt(p, off) }
