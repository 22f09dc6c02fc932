//go:build tinygo

package native

// derivedMade: this program's device takes derived streams. Where none does nobody
// sets it, so that it is a constant for the linker, and what they need of the exchange
// is not linked.
var derivedMade bool

// MakesDerived says that this program's device takes derived streams.
func MakesDerived() { derivedMade = true }
