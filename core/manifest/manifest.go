package manifest

import "github.com/runnel-fota/runnel/core/cbor"

// Formats of an image.
const (
	FormatESP uint8 = 1 // an ESP-IDF app image
	FormatRaw uint8 = 2
)

// Limits of a manifest and a sheet (docs/format/manifest.md).
const (
	MaxVersion     = 64 // bytes
	MaxComponent   = 16 // bytes
	MaxHardware    = 8
	MaxHardwareLen = 32           // bytes
	MinChunk       = 256          // bytes
	MaxChunk       = 16384        // bytes
	MinConfirm     = 10           // seconds
	MaxConfirm     = 24 * 60 * 60 // seconds
	MaxSlot        = 15
)

// Component is the one component that there is.
const Component = "app"

// Manifest is a manifest whose payload was read. Slices are views into the
// payload: copy what must outlive the buffer (the digest and a root, usually).
type Manifest struct {
	Product         []byte
	Version         []byte // shown, decides nothing
	Epoch           uint32
	Sequence        uint32
	SecurityVersion uint32
	Image           Image
	Contact         bool   // an authenticated answer is wanted before the image is confirmed
	ConfirmSeconds  uint32 // how long the trial may take
	SignedAt        uint64 // seconds since 1970, 0: not said; shown, decides nothing
	Offset          int    // of the defect, where Parse found one

	hardware []byte // the encoded array
}

// Image is the one image of a manifest.
type Image struct {
	Component  []byte
	Format     uint8
	Chip       uint16 // with FormatESP
	Digest     []byte // SHA-256 of the image, 32 bytes
	Size       uint32 // bytes
	HasSlot    bool   // it may go into Slot only
	HasAddress bool   // it may be loaded to Address only
	Slot       uint8
	Address    uint32
	Streams    [2]Raw
	NStreams   uint8 // 1 or 2
}

// Raw is a raw stream of the image.
type Raw struct {
	Chunk uint32 // bytes
	Root  []byte // hash of record 0, 32 bytes
}

// Parse reads and checks a payload. Check its signatures first: Verification.
//
//go:noinline
func (m *Manifest) Parse(p []byte) Error {
	*m = Manifest{}
	var r cbor.Reader
	r.Begin(p)
	m.read(&r)
	r.End()
	m.Offset = r.Offset()
	return fromCBOR(r.Err())
}

//go:noinline
func (m *Manifest) read(r *cbor.Reader) {
	var have fields
	for n := r.Map(); n > 0; n-- {
		k := r.Key()
		from := r.Pos()
		switch k {
		case 0:
			m.Product = name(r, MaxName)
		case 1:
			readHardware(r)
			m.hardware = r.Raw(from)
		case 2:
			m.Version = name(r, MaxVersion)
		case 3:
			m.Epoch = r.Uint32(1<<32 - 1)
		case 4:
			m.Sequence = positive(r)
		case 5:
			m.SecurityVersion = r.Uint32(1<<32 - 1)
		case 6:
			if r.Array() != 1 {
				r.Fail(cbor.ErrValue)
			}
			m.Image.read(r)
		case 7:
			m.confirm(r)
		case -1:
			// A note: what is not a number is skipped, as a reader does that does
			// not know the key.
			r.Skip()
			m.SignedAt = number(r.Raw(from))
			continue
		default:
			r.Unknown(k)
			continue
		}
		have.saw(k)
	}
	have.need(r, 0b11111111)
}

// number is an encoded number, 0 where p is something else.
func number(p []byte) uint64 {
	var r cbor.Reader
	r.Begin(p)
	return r.Uint(1<<64 - 1)
}

func readHardware(r *cbor.Reader) {
	n := r.Array()
	if n > MaxHardware {
		r.Fail(cbor.ErrLimit)
	}
	if n == 0 {
		r.Fail(cbor.ErrValue)
	}
	for i := 0; i < n && r.Err() == 0; i++ {
		if len(r.Bytes(MaxHardwareLen)) == 0 {
			r.Fail(cbor.ErrValue)
		}
	}
}

func (m *Manifest) confirm(r *cbor.Reader) {
	var have fields
	for n := r.Map(); n > 0; n-- {
		k := r.Key()
		switch k {
		case 0:
			m.Contact = r.Uint32(1) == 1
		case 1:
			m.ConfirmSeconds = r.Uint32(MaxConfirm)
			if m.ConfirmSeconds < MinConfirm {
				r.Fail(cbor.ErrValue)
			}
		default:
			r.Unknown(k)
			continue
		}
		have.saw(k)
	}
	have.need(r, 0b11)
}

func (im *Image) read(r *cbor.Reader) {
	var have fields
	for n := r.Map(); n > 0; n-- {
		k := r.Key()
		switch k {
		case 0:
			im.Component = name(r, MaxComponent)
		case 1:
			im.Format = uint8(r.Uint32(uint32(FormatRaw)))
			if im.Format == 0 {
				r.Fail(cbor.ErrValue)
			}
		case 2:
			im.Chip = uint16(r.Uint32(1<<16 - 1))
		case 3:
			im.Digest = r.Fixed(32)
		case 4:
			im.Size = positive(r)
		case 5:
			im.Slot, im.HasSlot = uint8(r.Uint32(MaxSlot)), true
		case 6:
			im.Address, im.HasAddress = r.Uint32(1<<32-1), true
		case 7:
			im.Streams[0].Chunk = chunk(r)
		case 8:
			im.Streams[0].Root = r.Fixed(32)
		case 9:
			im.Streams[1].Chunk = chunk(r)
			if im.Streams[1].Chunk == im.Streams[0].Chunk {
				r.Fail(cbor.ErrValue)
			}
		case 10:
			im.Streams[1].Root = r.Fixed(32)
		default:
			r.Unknown(k)
			continue
		}
		have.saw(k)
	}
	have.need(r, 0b1_1001_1011)
	if (im.Format == FormatESP) != (have&(1<<2) != 0) {
		r.Fail(cbor.ErrValue) // a chip with format 1, and only there
	}
	im.NStreams = 1
	if have&(1<<9|1<<10) != 0 {
		have.need(r, 1<<9|1<<10)
		im.NStreams = 2
	}
}

// chunk is a chunk size: a power of two.
func chunk(r *cbor.Reader) uint32 {
	v := r.Uint32(MaxChunk)
	if v < MinChunk || v&(v-1) != 0 {
		r.Fail(cbor.ErrValue)
	}
	return v
}

// Hardware walks over the hardware that it is for: byte strings.
func (m *Manifest) Hardware() Names {
	var n Names
	n.begin(m.hardware, true)
	return n
}

// For says whether the manifest names a hardware.
func (m *Manifest) For(hardware []byte) bool {
	var all Names
	all.begin(m.hardware, true)
	for h := all.Next(); h != nil; h = all.Next() {
		if equal(h, hardware) {
			return true
		}
	}
	return false
}

// Stream is the raw stream with the largest chunks of at most so many bytes, nil
// if there is none.
func (im *Image) Stream(most uint32) *Raw {
	var best *Raw
	for i := range im.Streams[:im.NStreams] {
		s := &im.Streams[i]
		if s.Chunk <= most && (best == nil || s.Chunk > best.Chunk) {
			best = s
		}
	}
	return best
}
