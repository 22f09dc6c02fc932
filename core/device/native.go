package device

import (
	"github.com/runnel-fota/runnel/core/digest"
	"github.com/runnel-fota/runnel/core/manifest"
	"github.com/runnel-fota/runnel/core/stream"
	"github.com/runnel-fota/runnel/core/wire/native"
)

// Native speaks the native wire: polls and reports under the device's own key, a
// manifest that release keys signed, and a stream whose every record is proven
// before it reaches flash (docs/format). One connection carries all of it where the
// server lets it.
//
// The buffer takes a record; what is behind its chunk is spare. The largest chunk
// size that fits is taken: 1,024 bytes with MinBuffer + 512, 4,096 with 4,144.
type Native struct {
	c *NativeConfig

	step    nativeStep // of a poll
	tries   uint8      // of the same record, or the same walk
	jumps   uint8      // polls of this start that were told a higher nonce
	have    bool       // the window holds a record that was taken
	busy    bool       // a stream is being read
	plain   bool       // the server or a cache ignores Range: whole files only
	settled bool       // the manifest that was judged led nowhere: nothing to fetch it again for
	again   bool       // the report is one that was not acknowledged
	doubt   bool       // walks don't end at the root: the stream decides what is wrong

	number   uint32 // of the last report in this boot
	judgedBy uint32 // version of the key list that the manifest was judged by, plus 1; 0: not judged
	order    uint32 // the last one to go back that was tried in this boot
	until    uint32 // record at which the present request ends

	manifestLen uint16
	held        uint32                  // version of the key list that is held, while a poll runs
	heldGen     uint32                  // and its generation
	hint        uint32                  // record that a resume is tried from
	random      [native.RandomSize]byte // of the last poll
	judged      [8]byte                 // head of the digest of the manifest that was judged
	file        [32]byte                // digest of the stream file
	root        [32]byte                // of the manifest's raw stream; until that is read, the digest of its envelope
	v           stream.Verifier         // of the release in progress
	walk        stream.Walk
}

// NativeConfig is what a device was built with for the native wire. It stays the
// caller's, unchanged, for as long as the Updater is used.
type NativeConfig struct {
	Device   []byte // id, 1 to 64 bytes of printable ASCII without spaces
	Product  []byte
	Hardware []byte
	Key      uint8      // number of its secret
	MAC      native.MAC // under the two keys that follow from the secret
	// Hash is the running hash that everything shares, MAC included.
	Hash *digest.SHA256

	// Profile is how manifests are believed: a Signed's, or MACOnly(). There is no default.
	Profile Profile
	// Judge is room for judging a manifest, for this device alone.
	Judge *Judge
	// Patches takes patches and compressed streams, for this device alone; nil: raw
	// streams only.
	Patches *Patches

	Format        uint8 // manifest.FormatESP or FormatRaw
	Security      native.Security
	SecureVersion uint32 // of the efuses
	HasSecure     bool
	// MinPollMillis and MaxPollMillis clamp the server's come-back; 0: a minute, a day.
	MinPollMillis, MaxPollMillis uint32
}

// Judge is what a manifest is read into. With what a Signed holds it is the state of a
// verification: not counted in the working set, stated apart (docs/design/updater.md).
// It is used between two downloads only.
type Judge struct {
	envelope manifest.Envelope
	manifest manifest.Manifest
	floors   manifest.Floors
	release  release
}

// Wire is for the Config.
func (n *Native) Wire() Wire { return Wire{by: (*overNative)(nil), native: n} }

// overNative is handed over as a nil pointer: methods of the value would be the
// pointer's too, and each call through the interface would compare with both types.
type overNative struct{}

var _ protocol = (*overNative)(nil)

func (*overNative) attach(u *Updater) error { return u.w.native.attach(u) }
func (*overNative) body(u *Updater) bool    { return u.w.native.body(u) }
func (*overNative) poll(u *Updater) Need    { return u.w.native.poll(u) }
func (*overNative) resume(u *Updater) Need  { return u.w.native.resume(u) }
func (*overNative) fetch(u *Updater) Need   { return u.w.native.fetch(u) }
func (*overNative) report(u *Updater) Need  { return u.w.native.report(u) }

// Bounds with their reasons.
const (
	minPoll     = 60_000     // ms: a server must not make a fleet hammer it
	maxPoll     = 86_400_000 // ms: nor lose it
	maxLists    = 8          // rotations that a device may have slept through
	maxJumps    = 3          // polls that were told a higher nonce; then one an hour
	maxNonce    = 1 << 62    // no device counts that far: it is not told to either, or its counter might wrap
	walkTries   = 5          // the same point twice, then three steps back
	bustAfter   = 2          // bad records in a row: around the cache
	originAfter = 4          // and then without the detour that the server names
	windowHash  = 32         // bytes before the resume point
)

// NewNative refuses what could not be trusted: there is no trust on first use.
func NewNative(n *Native, c *NativeConfig) error {
	*n = Native{}
	switch {
	case len(c.Device) == 0 || len(c.Device) > native.MaxDevice || len(c.Product) == 0 || len(c.Hardware) == 0 ||
		c.MAC == nil || c.Hash == nil || c.Judge == nil:
		return ErrIdentity
	case c.Profile.by == nil:
		return ErrTrust
	}
	n.c = c
	return nil
}

//go:noinline
func (n *Native) attach(u *Updater) error {
	if n.c == nil {
		return ErrIdentity
	}
	if len(u.buf) < manifestRoom {
		return ErrBuffer
	}
	unit := int(u.c.Slots[0].ProgramSize())
	chunk := stream.MaxChunk
	for ; chunk > stream.MinChunk; chunk /= 2 {
		// Behind the chunk: its hash, then a journal's entry, which needs one unit.
		if len(u.buf) >= chunk+max(windowHash+entryBytes, unit) {
			break
		}
	}
	if p := n.patches(); p != nil {
		if err := p.attach(u); err != nil {
			return err
		}
	}
	u.chunkTo, u.spareAt = uint16(chunk), uint16(chunk)
	u.hash, u.signed, u.chain = n.c.Hash, true, true
	return n.c.Profile.by.attach(n, u)
}

// manifestRoom is what every device takes of an envelope, bytes (docs/format/encoding.md).
const manifestRoom = 1280

// body: an answer is taken up to its window. A window that is full stays so until
// what is in it was used: the connection waits while flash works.
//
//go:noinline
func (n *Native) body(u *Updater) bool {
	if s := u.io.head.Status; s != 200 && s != 206 || u.io.head.Coded {
		return u.skim()
	}
	if n.busy && u.phase != phaseResume && (u.phase != phaseFetch || u.eraseDue()) {
		return false // the buffer is needed for the journal
	}
	if u.io.got == u.io.inTo-u.io.inFrom {
		if !n.busy && u.io.state == ioBody {
			u.io.state = ioDone
		}
		return false
	}
	return u.io.state == ioBody
}

// window says where the next bytes of the stream go, and how many are wanted.
func (n *Native) window(u *Updater, length uint32) {
	u.io.inFrom, u.io.inTo, u.io.got = 0, uint16(length), 0
}

func full(u *Updater) bool { return u.io.got == u.io.inTo-u.io.inFrom }

// ok says whether an exchange ended in a whole answer that may be looked at.
//
//go:noinline
func (n *Native) ok(u *Updater) bool {
	return u.io.state == ioDone && u.io.head.Status == 200 && !u.io.head.Coded
}

// get asks for an object that has no secrets and no device's name in it.
func (n *Native) get(u *Updater, target []byte, room int) Need {
	l := &u.io.req
	*l = layout{}
	l.target = uint16(len(target))
	l.body = l.target
	u.io.ranged, u.io.from, u.io.to = false, 0, 0
	return u.send(0, room)
}

// post sends a body that lies in the buffer behind the target.
func (n *Native) post(u *Updater, target, body []byte) Need {
	l := &u.io.req
	*l = layout{}
	l.target = uint16(len(target))
	l.body = l.target + uint16(len(body))
	u.io.ranged, u.io.from, u.io.to = false, 0, 0
	return u.send(0, native.MaxBody)
}

// Targets of the native wire (docs/format/exchange.md).
const (
	pollTarget     = "/r1/poll"
	reportTarget   = "/r1/report"
	listTarget     = "/r1/keylists/"
	manifestTarget = "/r1/manifests/"
	streamTarget   = "/r1/streams/"
)

// text writes a target to the front of the buffer.
type text struct {
	buf []byte
	n   int
}

func (t *text) add(s string) {
	for i := 0; i < len(s); i++ {
		t.buf[t.n] = s[i]
		t.n++
	}
}

const hexDigits = "0123456789abcdef"

func (t *text) hex(p []byte) {
	for _, b := range p {
		t.buf[t.n], t.buf[t.n+1] = hexDigits[b>>4], hexDigits[b&15]
		t.n += 2
	}
}

func (t *text) number(v uint32) {
	div := uint32(1)
	for v/div >= 10 {
		div *= 10
	}
	for ; div > 0; div /= 10 {
		t.buf[t.n] = '0' + byte(v/div%10)
		t.n++
	}
}

func (t *text) bytes() []byte { return t.buf[:t.n] }
