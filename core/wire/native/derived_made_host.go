//go:build !tinygo

package native

// derivedMade: a server knows of derived streams always.
const derivedMade = true

// MakesDerived says that this program's device takes derived streams.
func MakesDerived() {}

// Takes reports whether a device can apply a stream of a profile, 0 to 7.
func (d *Derived) Takes(profile uint8) bool {
	return d.Version != 0 && profile < 8 && d.Profiles>>profile&1 != 0
}
