//go:build tinygo

package boot

// roomMade: this program lends records room. Where it does not, that is a constant for
// the linker, and the records' own buffer is known to be the one.
var roomMade bool

func makesRoom() { roomMade = true }
