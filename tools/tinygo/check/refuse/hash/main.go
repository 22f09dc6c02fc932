// Command hash uses the standard library's incremental SHA-256, which lives on
// the heap: the linker must refuse it. core/digest is there because of it.
package main

import (
	"crypto/sha256"

	"github.com/runnel-fota/runnel/tools/tinygo/check/board"
)

var sum [sha256.Size]byte

func main() {
	h := sha256.New()
	board.Fill(sum[:])
	h.Write(sum[:])
	board.Bytes(h.Sum(sum[:0]))
}
