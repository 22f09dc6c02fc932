//go:build !tinygo

package native

import "github.com/runnel-fota/runnel/core/cbor"

// Decode reads the health of a poll, which is absent in most: a server's side. A poll
// does not fail for it: numbers that mean nothing are not said.
func (h *Health) Decode(p []byte) Error {
	*h = Health{}
	if len(p) == 0 {
		return 0
	}
	var r cbor.Reader
	r.Begin(p)
	for n := r.Map(); n > 0; n-- {
		switch k := r.Key(); k {
		case 0:
			h.FreeRAM = u32(&r)
		case 1:
			h.Reset = uint8(r.Uint32(0xFF))
		case 2:
			h.Battery = uint8(r.Uint32(0xFF))
		case 3:
			h.Signal = uint8(r.Uint32(0xFF))
		default:
			r.Unknown(k)
		}
	}
	err := end(&r, 0, 0)
	if err != 0 {
		*h = Health{}
	}
	if h.Battery > 100 {
		h.Battery = 0
	}
	return err
}
