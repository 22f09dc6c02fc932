package native

import "github.com/runnel-fota/runnel/core/cbor"

// Profile is how a device trusts, fixed when it was built (docs/format/exchange.md).
type Profile uint8

const (
	ProfileSigned  Profile = iota + 1 // manifests by their signatures
	ProfileMACOnly                    // manifests by the answer's MAC
)

// Factory is the running slot of a device that runs its factory image.
const Factory = 255

// Security are facts of the chip.
type Security uint8

const (
	SecureBoot      Security = 1 << iota
	FlashEncryption          // erased flash reads as noise
	Rollback                 // the bootloader goes back by itself
)

// Poll is what a device says of itself and asks with.
type Poll struct {
	Device   []byte // 1 to MaxDevice bytes of printable ASCII without spaces
	Random   []byte // RandomSize bytes; nil: the chip has no source
	Digest   []byte // SHA-256 of the running image; nil: not known
	Version  []byte // of the running image, text, to MaxVersion bytes; nil: not known
	Hardware []byte // 1 to MaxHardware bytes
	Health   []byte // an encoded Health; nil: the board says nothing of it

	Nonce                            uint64
	Boot                             uint32 // starts of the updater
	Epoch, Sequence, SecurityVersion uint32 // of the image last confirmed; 0: none yet
	ListVersion, ListGeneration      uint32 // of the key list that it holds
	Envelope, Chunk                  uint32 // the largest that it takes, bytes
	InProgress                       uint32 // sequence of the release in progress; 0: none
	Progress                         uint32 // bytes of it in flash
	SecureVersion                    uint32 // of the chip's efuses

	Slots     [MaxSlots]uint32 // sizes, bytes
	SlotCount uint8            // from 1
	Running   uint8            // slot number, or Factory
	Key       uint8            // which of the device's secrets
	Profile   Profile
	Security  Security

	HasSecureVersion bool
	HasChip          bool
	Chip             uint16 // chip id of ESP-IDF's image header

	Derived Derived // streams that it takes beside the raw ones
}

const pollMust = 1<<0 | 1<<1 | 1<<2 | 1<<4 | 7<<7 | 3<<10 | 1<<12 | 1<<13 | 1<<15 | 1<<16 | 1<<17 | 1<<18 | 1<<21

// valid holds what encoding and decoding ask of the fields alike.
func (m *Poll) valid() bool {
	return isName(m.Device) && len(m.Device) <= MaxDevice &&
		sized(m.Random, RandomSize) && sized(m.Digest, DigestSize) &&
		(m.Version == nil || between(m.Version, MaxVersion)) &&
		between(m.Hardware, MaxHardware) && len(m.Health) <= MaxHealth &&
		m.SlotCount > 0 && m.SlotCount <= MaxSlots &&
		(m.Running < m.SlotCount || m.Running == Factory) &&
		(m.Profile == ProfileSigned || m.Profile == ProfileMACOnly) &&
		(m.InProgress != 0 || m.Progress == 0) &&
		(m.HasChip || m.Chip == 0) && (m.HasSecureVersion || m.SecureVersion == 0)
}

// fields is how many there are. It is apart from Encode for TinyGo: of a function with
// more than a hundred uses of a pointer LLVM takes it that the pointer is kept, and what
// it points at goes to the heap.
func (m *Poll) fields() int {
	return 16 + count(m.Random != nil) + count(m.Digest != nil) + count(m.Version != nil) +
		count(m.HasChip) + 2*count(m.InProgress != 0) + count(m.HasSecureVersion) + count(len(m.Health) > 0) +
		count(derivedMade && m.Derived.Version != 0)
}

// Encode puts the body into buf and returns it.
//
//go:noinline
func (m *Poll) Encode(buf []byte, mac MAC) ([]byte, Error) {
	if !m.valid() {
		return nil, ErrField
	}
	var w cbor.Writer
	w.Begin(buf)
	w.Map(m.fields())
	fieldText(&w, 0, m.Device)
	field(&w, 1, uint32(m.Key))
	field64(&w, 2, m.Nonce)
	fieldBytes(&w, 3, m.Random)
	field(&w, 4, m.Boot)
	fieldBytes(&w, 5, m.Digest)
	fieldText(&w, 6, m.Version)
	field(&w, 7, m.Epoch)
	field(&w, 8, m.Sequence)
	field(&w, 9, m.SecurityVersion)
	field(&w, 10, m.ListVersion)
	field(&w, 11, m.ListGeneration)
	field(&w, 12, uint32(m.Profile))
	fieldBytes(&w, 13, m.Hardware)
	if m.HasChip {
		field(&w, 14, uint32(m.Chip))
	}
	w.Key(15)
	w.Array(int(m.SlotCount))
	for _, size := range m.Slots[:m.SlotCount] {
		w.Uint32(size)
	}
	field(&w, 16, uint32(m.Running))
	field(&w, 17, m.Envelope)
	field(&w, 18, m.Chunk)
	if m.InProgress != 0 {
		field(&w, 19, m.InProgress)
		field(&w, 20, m.Progress)
	}
	field(&w, 21, uint32(m.Security))
	if m.HasSecureVersion {
		field(&w, 22, m.SecureVersion)
	}
	if len(m.Health) > 0 {
		w.Key(-1)
		w.Raw(m.Health)
	}
	if derivedMade && m.Derived.Version != 0 {
		m.Derived.write(&w)
	}
	return seal(&w, buf, mac, MessagePoll)
}

// Decode reads the body of a poll whose device and secret Peek found.
func (m *Poll) Decode(body []byte, mac MAC) Error {
	*m = Poll{}
	var r cbor.Reader
	err := open(&r, body, mac, MessagePoll)
	if err == 0 {
		err = m.read(&r)
	}
	if err != 0 {
		*m = Poll{}
	}
	return err
}

func (m *Poll) read(r *cbor.Reader) Error {
	var seen uint32
	for n := r.Map(); n > 0; n-- {
		k := r.Key()
		switch k {
		case 0:
			m.Device = r.Text(MaxDevice)
		case 1:
			m.Key = uint8(r.Uint32(0xFF))
		case 2:
			m.Nonce = r.Uint(1<<64 - 1)
		case 3:
			m.Random = r.Fixed(RandomSize)
		case 4:
			m.Boot = u32(r)
		case 5:
			m.Digest = r.Fixed(DigestSize)
		case 6:
			m.Version = r.Text(MaxVersion)
		case 7:
			m.Epoch = u32(r)
		case 8:
			m.Sequence = u32(r)
		case 9:
			m.SecurityVersion = u32(r)
		case 10:
			m.ListVersion = u32(r)
		case 11:
			m.ListGeneration = u32(r)
		case 12:
			m.Profile = Profile(r.Uint32(0xFF))
		case 13:
			m.Hardware = r.Bytes(MaxHardware)
		case 14:
			m.Chip, m.HasChip = uint16(r.Uint32(0xFFFF)), true
		case 15:
			m.readSlots(r)
		case 16:
			m.Running = uint8(r.Uint32(0xFF))
		case 17:
			m.Envelope = u32(r)
		case 18:
			m.Chunk = u32(r)
		case 19:
			m.InProgress = u32(r)
		case 20:
			m.Progress = u32(r)
		case 21:
			m.Security = Security(r.Uint32(0xFF))
		case 22:
			m.SecureVersion, m.HasSecureVersion = u32(r), true
		case -1:
			from := r.Pos()
			r.Skip()
			if p := r.Raw(from); len(p) <= MaxHealth {
				m.Health = p // what is longer is nobody's: it is passed over
			}
			continue
		case derivedKey:
			from := r.Pos()
			r.Skip()
			m.Derived.decode(r.Raw(from))
			continue
		default:
			r.Unknown(k)
			continue
		}
		seen |= 1 << k
	}
	if err := end(r, seen, pollMust); err != 0 {
		return err
	}
	// 19 and 20: both or none, and a release in progress has a sequence.
	if seen>>19&1 != seen>>20&1 || (seen>>19&1 != 0 && m.InProgress == 0) || !m.valid() {
		return ErrField
	}
	return 0
}

func (m *Poll) readSlots(r *cbor.Reader) {
	n := r.Array()
	if n > MaxSlots {
		r.Fail(cbor.ErrValue)
		return
	}
	for i := range n {
		m.Slots[i] = u32(r)
	}
	m.SlotCount = uint8(n)
}
