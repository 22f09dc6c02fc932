package delta

import (
	"errors"

	"github.com/runnel-fota/runnel/core/patch"
)

// image is an image in memory, as core/patch reads one.
type image []byte

var errRange = errors.New("outside of the image")

func (m image) ReadAt(p []byte, off uint32) error {
	if uint64(off)+uint64(len(p)) > uint64(len(m)) {
		return errRange
	}
	copy(p, m[off:])
	return nil
}

// growing is an image that is being made.
type growing struct{ made []byte }

func (g *growing) ReadAt(p []byte, off uint32) error { return image(g.made).ReadAt(p, off) }

// outSize is the output buffer, bytes, that figures of RAM count.
const outSize = 256

// Apply makes the new image, of size bytes, from the old one and a patch's payload.
func Apply(old, payload []byte, size uint32) ([]byte, error) {
	g := &growing{}
	var a patch.Applier
	err := a.Begin(patch.Config{Old: image(old), OldSize: uint32(len(old)), New: g, NewSize: size, Out: make([]byte, outSize), Memory: make([]uint16, patch.LargeWords)})
	if err != 0 {
		return nil, err
	}
	for {
		switch a.Step() {
		case patch.Hungry:
			payload = payload[a.Feed(payload):]
			if len(payload) == 0 {
				a.End()
			}
		case patch.Full:
			g.made = append(g.made, a.Output()...)
			a.Wrote()
		case patch.Restart:
		case patch.Done:
			if len(payload) > 0 {
				return nil, patch.ErrLong
			}
			return append(g.made, a.Output()...), nil
		default:
			return nil, a.Err()
		}
	}
}
