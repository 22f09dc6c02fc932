package board

import (
	"crypto/ed25519"
	"unsafe"

	"github.com/runnel-fota/runnel/core/device"
	"github.com/runnel-fota/runnel/core/digest"
	ed "github.com/runnel-fota/runnel/core/ed25519"
	"github.com/runnel-fota/runnel/core/flash"
	"github.com/runnel-fota/runnel/core/manifest"
	"github.com/runnel-fota/runnel/core/patch"
	"github.com/runnel-fota/runnel/core/wire/native"
)

// Native is what a board that speaks the native wire was built with.
type Native struct {
	Device, Product, Hardware string
	Key                       uint8    // number of its secret
	Secret                    [32]byte // for this wire alone
	// Roots is the trust store that was baked in; nil: profile mac-only.
	Roots []byte
	// MinPollMillis and MaxPollMillis are the shortest and the longest time between
	// polls that it lets a server ask for; 0: a minute, a day.
	MinPollMillis, MaxPollMillis uint32
	// Raw: its images are no ESP-IDF images.
	Raw bool
	// Health is what the board says of itself with each poll, but for why it started, which it
	// knows; the zero one says nothing at all.
	Health native.Health
	// Patches is the memory for patches and compressed streams; PatchNone: raw streams only.
	Patches PatchMemory
	// Verifier checks signatures; nil: core/ed25519, as on a chip. Sweeps over very
	// many boards take the standard library's, which is several times as fast on a host.
	Verifier manifest.Verifier
}

// PatchMemory is how much memory a board has set aside for derived streams.
type PatchMemory uint8

const (
	PatchNone  PatchMemory = iota
	PatchSmall             // 8 KiB in all, with chunks of 1,024
	PatchLarge             // 16 KiB, with chunks of 2,048
)

// Chunk is the chunk size that a board has to take for derived streams, bytes; 0: any.
func (m PatchMemory) Chunk() int { return [...]int{0, 1024, 2048}[m] }

func (m PatchMemory) words() int { return [...]int{0, patch.SmallWords, patch.LargeWords}[m] }

// patchOut is a board's output buffer, bytes: a page of most chips.
const patchOut = 256

// Baked is a trust store in the program itself.
type Baked []byte

// ReadAt is manifest.TrustReader's.
func (b Baked) ReadAt(p []byte, off uint32) error {
	if uint64(off)+uint64(len(p)) > uint64(len(b)) {
		return flash.ErrRange
	}
	copy(p, b[off:])
	return nil
}

// Ed25519 is the standard library's verifier.
type Ed25519 struct{}

var _ manifest.Verifier = Ed25519{}

// Verify is manifest.Verifier's.
func (Ed25519) Verify(alg int8, key, sig, head, payload []byte) bool {
	if alg != manifest.AlgEdDSA || len(key) != ed25519.PublicKeySize {
		return false
	}
	return ed25519.Verify(key, append(append(make([]byte, 0, len(head)+len(payload)), head...), payload...), sig)
}

// wires is one start's wire: the one that the board was built for, and what it needs.
type wires struct {
	v1     device.V1
	native device.Native
	config device.NativeConfig
	keys   native.Keys
	hash   digest.SHA256
	mac    native.SoftMAC
	judge  device.Judge
	signed device.Signed
	chip   ed.Verifier

	patches device.Patches
	scratch flash.Area
	memory  [patch.LargeWords]uint16
	out     [patchOut]byte
}

// choose sets the board's wire up. Nothing received has a say in it.
// scratch is where snapshots go, or the zero Area.
func (w *wires) choose(app *App, scratch flash.Area) (device.Wire, error) {
	n := app.Native
	if n == nil {
		return w.v1.Wire(), device.NewV1(&w.v1, app.Identity)
	}
	w.keys.Derive(&n.Secret, &w.hash)
	w.mac = native.SoftMAC{Keys: &w.keys, Run: &w.hash}
	w.config = device.NativeConfig{
		Device: []byte(n.Device), Product: []byte(n.Product), Hardware: []byte(n.Hardware), Key: n.Key,
		MAC: &w.mac, Hash: &w.hash, Judge: &w.judge, Profile: device.MACOnly(), Format: manifest.FormatESP,
		Security: native.Rollback, MinPollMillis: n.MinPollMillis, MaxPollMillis: n.MaxPollMillis,
	}
	if n.Raw {
		w.config.Format = manifest.FormatRaw
	}
	if n.Patches != PatchNone {
		w.scratch = scratch
		c := device.PatchConfig{Memory: w.memory[:n.Patches.words()], Out: w.out[:], Scratch: &w.scratch}
		if err := device.NewPatches(&w.patches, &c); err != nil {
			return device.Wire{}, err
		}
		w.config.Patches = &w.patches
	}
	if n.Roots != nil {
		verifier := n.Verifier
		if verifier == nil {
			verifier = &w.chip
		}
		if err := device.NewSigned(&w.signed, verifier, Baked(n.Roots)); err != nil {
			return device.Wire{}, err
		}
		w.config.Profile = w.signed.Profile()
	}
	return w.native.Wire(), device.NewNative(&w.native, &w.config)
}

// Kind of a wire, for figures.
type Kind uint8

const (
	V1 Kind = iota
	NativeWire
)

// BufferBytes is how long an updater's buffer is for chunks of a size.
func BufferBytes(k Kind, chunk int) int {
	if k == V1 {
		return chunk + device.MinBuffer - device.MinChunkBuffer
	}
	return max(chunk+nativeBeside, nativeLeast)
}

const (
	nativeBeside = 48   // a record's hash, and a journal's entry
	nativeLeast  = 1280 // an envelope
)

// WorkingSet is the updater's RAM in bytes on this machine: its struct and its
// wire's, the buffer that it is handed, hash and MAC state, the boot records', the
// store's and the image check's, the areas. chunk is the largest chunk size taken.
func WorkingSet(k Kind, chunk, slots int) int {
	var r run
	var w wires
	n := int(unsafe.Sizeof(r.up)+unsafe.Sizeof(r.otad)+unsafe.Sizeof(r.check)+unsafe.Sizeof(r.store)) +
		BufferBytes(k, chunk) + slots*areaSize
	if k == V1 {
		return n + int(unsafe.Sizeof(w.v1))
	}
	return n + int(unsafe.Sizeof(w.native)+unsafe.Sizeof(w.keys)+unsafe.Sizeof(w.hash)+unsafe.Sizeof(w.mac))
}

// PatchBytes is what derived streams take beside WorkingSet on this machine, with the
// chunk size of the memory's.
func PatchBytes(m PatchMemory) int {
	return int(unsafe.Sizeof(device.Patches{})) + 2*m.words() + patchOut
}

// VerifierBytes is the state of a signature check on this machine, stated apart: it
// is used between two downloads only.
func VerifierBytes() int {
	return int(unsafe.Sizeof(device.Judge{}) + unsafe.Sizeof(device.Signed{}) + unsafe.Sizeof(ed.Verifier{}))
}
