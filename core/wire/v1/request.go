package v1

import "github.com/runnel-fota/runnel/core/digest"

// Targets of the device's calls, without their queries.
const (
	ManifestPath = "/api/inverter/fota/manifest"
	ChunkPath    = "/api/inverter/fota/chunk"
	StatusPath   = "/api/inverter/fota/status"
	RollbackPath = "/api/inverter/fota/rollback-status"
)

// Request is what the port sends. Its slices lie in the buffer it was built in.
type Request struct {
	Method                string
	Target                []byte // path with query
	DeviceID              string // empty: no headers at all
	Nonce, Timestamp, MAC []byte // empty: header not sent
	Body                  []byte // JSON; empty for a GET
}

// Identity is who the device is over v1.
type Identity struct {
	ID     string // empty: a silent device
	Signed bool   // requests carry nonce, timestamp and MAC
	Key    []byte // pre-shared, 32 bytes
}

// Wire builds requests and checks chunks. The zero value needs SetIdentity.
type Wire struct {
	id   string
	sign bool
	mac  digest.HMAC
}

// SetIdentity takes the id and the key; the key itself is not kept.
func (w *Wire) SetIdentity(id Identity) {
	w.id, w.sign = id.ID, id.Signed && id.ID != ""
	w.mac.SetKey(id.Key)
}

// ID is the device's name, empty for a silent one.
func (w *Wire) ID() string { return w.id }

// Signed says whether requests carry nonces.
func (w *Wire) Signed() bool { return w.sign }

// Hash is a SHA-256 to use while no request is built and no chunk is checked: it
// shares its memory with the MAC.
func (w *Wire) Hash() *digest.SHA256 { return w.mac.Hash() }

// Manifest polls for a release.
func (w *Wire) Manifest(buf []byte, nonce uint64, unix uint32) (Request, error) {
	b := writer{buf: buf}
	b.text(ManifestPath)
	return w.get(&b, nonce, unix)
}

// Chunk asks for chunk n.
func (w *Wire) Chunk(buf []byte, n uint32, nonce uint64, unix uint32) (Request, error) {
	b := writer{buf: buf}
	b.text(ChunkPath)
	b.text("?chunk_number=")
	b.number(uint64(n))
	return w.get(&b, nonce, unix)
}

// RollbackStatus asks whether an operator wants the device to go back.
func (w *Wire) RollbackStatus(buf []byte, nonce uint64, unix uint32) (Request, error) {
	b := writer{buf: buf}
	b.text(RollbackPath)
	return w.get(&b, nonce, unix)
}

func (w *Wire) get(b *writer, nonce uint64, unix uint32) (Request, error) {
	r := Request{Method: "GET", Target: b.since(0)}
	return w.finish(b, r, nonce, unix)
}

// finish signs: MAC = HMAC(key, target + nonce + timestamp), as decimal text.
func (w *Wire) finish(b *writer, r Request, nonce uint64, unix uint32) (Request, error) {
	r.DeviceID = w.id
	if w.sign {
		at := b.n
		b.number(nonce)
		r.Nonce = b.since(at)
		at = b.n
		b.number(uint64(unix))
		r.Timestamp = b.since(at)
		var sum [32]byte
		w.mac.Begin()
		w.mac.Write(r.Target)
		w.mac.Write(r.Nonce)
		w.mac.Write(r.Timestamp)
		w.mac.Sum(&sum)
		at = b.n
		for _, c := range sum {
			b.hex(c)
		}
		r.MAC = b.since(at)
	}
	if b.full {
		return Request{}, ErrSpace
	}
	return r, nil
}

// ChunkMAC is what a chunk's MAC must be: HMAC(key, the chunk's bytes).
func (w *Wire) ChunkMAC(chunk []byte, out *[32]byte) {
	w.mac.Begin()
	w.mac.Write(chunk)
	w.mac.Sum(out)
}

// BootStatus is a report's word on the boot.
type BootStatus uint8

const (
	BootNone BootStatus = iota
	BootPendingReboot
	BootSuccess
	BootFailed
)

func (s BootStatus) text() string {
	switch s {
	case BootPendingReboot:
		return "pending_reboot"
	case BootSuccess:
		return "success"
	case BootFailed:
		return "failed"
	}
	return ""
}

// Report is what a device says of its deployment.
type Report struct {
	HasChunks                  bool
	ChunkReceived, TotalChunks uint32
	HasProgress                bool
	Progress                   uint8 // percent
	HasVerified, Verified      bool
	BootStatus                 BootStatus
	NewVersion                 []byte // empty: not said
	HasBootCount               bool
	BootCount                  uint32
	Rollback                   bool
	Error                      string // empty: none
}

// Report posts a report.
func (w *Wire) Report(buf []byte, r *Report, nonce uint64, unix uint32) (Request, error) {
	b := writer{buf: buf}
	b.text(StatusPath)
	req := Request{Method: "POST", Target: b.since(0)}
	at := b.n
	b.text(`{"fota_status":{`)
	if r.HasChunks {
		b.member("chunk_received")
		b.number(uint64(r.ChunkReceived))
		b.member("total_chunks")
		b.number(uint64(r.TotalChunks))
	}
	if r.HasProgress {
		b.member("progress")
		b.number(uint64(r.Progress))
	}
	if r.HasVerified {
		b.member("verified")
		b.truth(r.Verified)
	}
	if r.BootStatus != BootNone {
		b.member("boot_status")
		b.text(`"`)
		b.text(r.BootStatus.text())
		b.text(`"`)
	}
	if len(r.NewVersion) > 0 {
		b.member("new_version")
		b.text(`"`)
		for _, c := range r.NewVersion {
			b.escaped(c)
		}
		b.text(`"`)
	}
	if r.HasBootCount {
		b.member("boot_count")
		b.number(uint64(r.BootCount))
	}
	if r.Rollback {
		b.member("rollback")
		b.truth(true)
	}
	if r.Error != "" {
		b.member("error")
		b.text(`"`)
		for i := 0; i < len(r.Error); i++ {
			b.escaped(r.Error[i])
		}
		b.text(`"`)
	}
	b.text("}}")
	req.Body = b.since(at)
	return w.finish(&b, req, nonce, unix)
}

// writer fills a buffer and remembers that it was too small.
type writer struct {
	buf   []byte
	n     int
	full  bool
	comma bool
}

func (b *writer) byte(c byte) {
	if b.n >= len(b.buf) {
		b.full = true
		return
	}
	b.buf[b.n] = c
	b.n++
}

func (b *writer) text(s string) {
	for i := 0; i < len(s); i++ {
		b.byte(s[i])
	}
}

func (b *writer) since(at int) []byte { return b.buf[at:b.n:b.n] }

func (b *writer) number(v uint64) {
	div := uint64(1)
	for v/div >= 10 {
		div *= 10
	}
	for ; div > 0; div /= 10 {
		b.byte('0' + byte(v/div%10))
	}
}

const hexDigits = "0123456789abcdef"

func (b *writer) hex(c byte) {
	b.byte(hexDigits[c>>4])
	b.byte(hexDigits[c&15])
}

func (b *writer) member(name string) {
	if b.comma {
		b.byte(',')
	}
	b.comma = true
	b.byte('"')
	b.text(name)
	b.text(`":`)
}

func (b *writer) truth(v bool) {
	if v {
		b.text("true")
		return
	}
	b.text("false")
}

// escaped writes a byte of a JSON string. A version that was cut in the middle of
// a character would be no UTF-8: bytes beyond ASCII become '?'.
func (b *writer) escaped(c byte) {
	switch {
	case c == '"' || c == '\\':
		b.byte('\\')
		b.byte(c)
	case c < 0x20 || c >= 0x7F:
		b.byte('?')
	default:
		b.byte(c)
	}
}
