// Command signed is the updater of a small board that believes manifests by their
// signatures. Its verifier is a stub: Ed25519 has a program of its own.
package main

import (
	"github.com/runnel-fota/runnel/core/device"
	"github.com/runnel-fota/runnel/core/manifest"
	"github.com/runnel-fota/runnel/tools/tinygo/check/board"
	"github.com/runnel-fota/runnel/tools/tinygo/check/board/node"
)

var signed device.Signed

func main() {
	board.Err(device.NewSigned(&signed, verifier{}, roots{}))
	node.Run(signed.Profile())
}

// verifier stands where Ed25519 is.
type verifier struct{}

func (verifier) Verify(alg int8, key, sig, head, payload []byte) bool {
	board.Bytes(key)
	board.Bytes(sig)
	board.Bytes(head)
	board.Bytes(payload)
	return board.Bool()
}

// baked is a trust store in flash, not folded away.
var baked [manifest.TrustHeaderSize + 2*manifest.RecordSize]byte

type roots struct{}

func (roots) ReadAt(p []byte, off uint32) error {
	copy(p, baked[off:])
	return nil
}
