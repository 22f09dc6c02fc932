// Package patch makes a new image out of an old one and a patch, as the patch's bytes
// come: docs/format/patch.md has the bytes, docs/design/patches.md the reasons. A
// compressed image is a patch without an old image.
//
// The caller owns everything. It feeds bytes that were proven already (core/stream),
// and is handed output to write into the slot; the applier reads both images, and never
// writes. It has no heap, no floating point and no goroutine, and what a patch says is
// checked before it is used.
//
//	for {
//		switch a.Step() {
//		case patch.Hungry:  // a.Feed what has come, or a.End
//		case patch.Full:    // write a.Output into the slot, then a.Wrote
//		case patch.Restart: // a good place to note; go on with Step
//		case patch.Seek:    // Feed from the restart point that ResumeAt named
//		case patch.Done:    // write a.Output; the image is complete, and to be proven
//		case patch.Failed:  // a.Err says why
//		}
//	}
package patch

// Source is where an image is read: a slot, from offset 0 on. ReadAt fills p or fails.
// *flash.Area is one.
type Source interface {
	ReadAt(p []byte, off uint32) error
}

// Config is what an applier works on.
type Config struct {
	Old     Source
	OldSize uint32 // bytes, as it was signed; 0: there is no old image, and Old is not used
	New     Source // what Wrote named is read back from it
	NewSize uint32 // bytes, as it was signed
	// Out is where output waits for being written: MinOut bytes or more. A multiple of
	// the chip's page is wise.
	Out []byte
	// Memory is LargeWords, or SmallWords for patches that were made for it.
	Memory []uint16
}

// MinOut is the least length of an output buffer, bytes. MaxImage is the largest image.
const (
	MinOut   = 16
	MaxImage = 1 << 28
)

// Error is why a patch was not applied; 0 is none.
type Error uint8

const (
	ErrConfig  Error = iota + 1 // no output buffer, no source where one is needed, an image over MaxImage
	ErrVersion                  // not a patch, or of another version
	ErrMemory                   // wants more memory than there is
	ErrFormat                   // a field that this version does not know
	ErrSize                     // makes an image of another size
	ErrRange                    // refers to what is outside of an image
	ErrShort                    // ends too early
	ErrLong                     // goes on behind its end
	ErrRead                     // an image could not be read
	ErrResume                   // no restart point is there
)

func (e Error) Error() string {
	switch e {
	case 0:
		return "patch: no error"
	case ErrConfig:
		return "patch: no buffer, no source or too large an image"
	case ErrVersion:
		return "patch: not a patch, or of another version"
	case ErrMemory:
		return "patch: wants more memory than there is"
	case ErrFormat:
		return "patch: a field is not what this version knows"
	case ErrSize:
		return "patch: makes an image of another size"
	case ErrRange:
		return "patch: refers to what is outside of an image"
	case ErrShort:
		return "patch: ends too early"
	case ErrLong:
		return "patch: goes on behind its end"
	case ErrRead:
		return "patch: an image could not be read"
	case ErrResume:
		return "patch: no restart point is there"
	}
	return "patch: unknown error"
}

// Status is what an applier needs next.
type Status uint8

const (
	Hungry  Status = iota // Feed it, or say End
	Full                  // write Output, then say Wrote
	Restart               // at a restart point: LinkAt, Link and Made say where
	Seek                  // Feed from the restart point that ResumeAt named
	Done                  // all of the image is made; Output holds its end
	Failed                // Err says why
)
