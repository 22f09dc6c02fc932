// Command ed25519 reaches the exported API of core/ed25519.
package main

import (
	"github.com/runnel-fota/runnel/core/ed25519"
	"github.com/runnel-fota/runnel/tools/tinygo/check/board"
)

var (
	one      ed25519.Verification
	verifier ed25519.Verifier
	buf      [1024]byte
)

func main() {
	board.Fill(buf[:])
	key, sig, head, payload := buf[:ed25519.KeySize], buf[32:32+ed25519.SignatureSize], buf[96:103], buf[103:]
	one.Begin(key, sig, head, payload)
	done, ok := one.Step()
	board.Flag(done)
	board.Flag(ok)
	verifier.Begin(int8(board.Input()), key, sig, head, payload)
	done, ok = verifier.Step()
	board.Flag(done)
	board.Flag(ok)
	board.Flag(verifier.Verify(ed25519.AlgEdDSA, key, sig, head, payload))
}
