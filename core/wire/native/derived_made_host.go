//go:build !tinygo

package native

// derivedMade: a server knows of derived streams always.
const derivedMade = true

// MakesDerived says that this program's device takes derived streams.
func MakesDerived() {}
