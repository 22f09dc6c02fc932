// Package v1 is the device's side of the original chunk protocol: bytes in, bytes
// out, no sockets and no heap. Answers are read as they arrive, in any pieces;
// base64 is decoded in place, straight into the chunk buffer. The wire is
// described in docs/api/v1.md.
package v1

// Error is the cause of a refused answer, or of a request that does not fit.
type Error uint8

const (
	ErrSyntax    Error = iota + 1 // not JSON
	ErrDepth                      // nested too deeply
	ErrTooLong                    // more data than the chunk buffer holds
	ErrField                      // a member of the wrong type, or out of range
	ErrDuplicate                  // a member of interest twice, or two MACs that differ
	ErrBase64                     // not padded base64
	ErrMissing                    // a mandatory member is absent, or the answer was cut
	ErrTrailing                   // bytes behind the answer
	ErrSpace                      // the request does not fit the buffer
)

func (e Error) Error() string {
	switch e {
	case ErrSyntax:
		return "v1: not JSON"
	case ErrDepth:
		return "v1: nested too deeply"
	case ErrTooLong:
		return "v1: more data than a chunk"
	case ErrField:
		return "v1: member of a wrong type or out of range"
	case ErrDuplicate:
		return "v1: member twice"
	case ErrBase64:
		return "v1: bad base64"
	case ErrMissing:
		return "v1: incomplete"
	case ErrTrailing:
		return "v1: bytes behind the answer"
	case ErrSpace:
		return "v1: request buffer too small"
	}
	return "v1: unknown error"
}

// Kind is which answer is expected.
type Kind uint8

const (
	KindManifest Kind = iota
	KindChunk
	KindRollback
	KindAck
)

// DefaultChunkSize is that of a manifest that names none.
const DefaultChunkSize = 1024

// Offer is what a manifest says. Mandatory are size and hash.
type Offer struct {
	Present         bool
	Size, ChunkSize uint32 // bytes; its hash is Answer.Hash
	// Stamp is uploaded_at as Unix seconds, 0 if absent or unreadable: a number,
	// or ISO-8601 text "2006-01-02T15:04:05" read as UTC.
	Stamp      uint32
	Version    [32]byte // shown, decides nothing; longer text is cut
	VersionLen uint8
}

// Chunks is how many chunks the image has.
func (o *Offer) Chunks() uint32 {
	if o.ChunkSize == 0 {
		return 0
	}
	return uint32((uint64(o.Size) + uint64(o.ChunkSize) - 1) / uint64(o.ChunkSize))
}

// Answer reads one answer. What it found is in the exported fields after End.
type Answer struct {
	Offer Offer
	// Of a chunk. Mandatory are data and mac (or hmac).
	Number, Size                        uint32
	Length                              uint32   // bytes decoded into the chunk buffer
	Hash                                [32]byte // a chunk's MAC, or a manifest's SHA-256 of the image
	HasNumber, HasSize, HasMAC, HasData bool
	Rollback                            bool // KindRollback
	Success                             bool // KindAck: "status" is "success"

	kind  Kind
	err   Error
	seen  uint16 // bit f: member f was there
	chunk []byte
	lex   lexer

	field field  // of the string or number that is read
	count uint32 // characters of the string so far
	acc   uint32 // base64 bits, or the date's number
	pad   uint8
	macOK bool // the second MAC agrees so far
	date  isoDate
}

type field uint8

const (
	fieldNone field = iota
	fieldFota
	fieldManifest
	fieldVersion
	fieldSize
	fieldHash
	fieldChunkSize
	fieldUploadedAt
	fieldNumber
	fieldData
	fieldMAC
	fieldHMAC
	fieldRollback
	fieldStatus
)

// Begin starts an answer of kind k. chunk is where data goes (KindChunk): its
// length bounds it.
func (a *Answer) Begin(k Kind, chunk []byte) {
	*a = Answer{kind: k, chunk: chunk}
}

// Feed takes the next piece. The first error stays.
func (a *Answer) Feed(p []byte) error {
	for _, c := range p {
		if a.err != 0 {
			break
		}
		if err := a.byte(c); err != nil {
			a.err = asError(err)
		}
	}
	if a.err != 0 {
		return a.err
	}
	return nil
}

func asError(err error) Error {
	if e, ok := err.(Error); ok {
		return e
	}
	return ErrSyntax
}

// End says whether the answer is whole and has what it must have.
func (a *Answer) End() error {
	if a.err != 0 {
		return a.err
	}
	if a.lex.state != lexEnd {
		return ErrMissing
	}
	switch a.kind {
	case KindManifest:
		if !a.Offer.Present {
			return nil
		}
		if !a.saw(fieldSize) || !a.saw(fieldHash) {
			return ErrMissing
		}
		if !a.saw(fieldChunkSize) {
			a.Offer.ChunkSize = DefaultChunkSize
		}
	case KindChunk:
		if !a.HasData || !a.HasMAC {
			return ErrMissing
		}
	case KindRollback:
		if !a.saw(fieldRollback) {
			return ErrMissing
		}
	case KindAck:
		if !a.saw(fieldStatus) {
			return ErrMissing
		}
	}
	return nil
}

func (a *Answer) saw(f field) bool { return a.seen&(1<<f) != 0 }

// lookUp names the key that was just read, by the answer's kind and the path.
func (a *Answer) lookUp() field {
	l := &a.lex
	if l.keyLen > maxKey {
		return fieldNone
	}
	k := l.key[:l.keyLen]
	switch {
	case a.kind == KindManifest && l.depth == 1:
		return match(k, "fota", fieldFota)
	case a.kind == KindManifest && l.depth == 2 && l.keys[0] == fieldFota:
		return match(k, "manifest", fieldManifest)
	case a.kind == KindManifest && l.depth == 3 && l.keys[0] == fieldFota && l.keys[1] == fieldManifest:
		return match(k, "version", fieldVersion) | match(k, "size", fieldSize) | match(k, "hash", fieldHash) |
			match(k, "chunk_size", fieldChunkSize) | match(k, "uploaded_at", fieldUploadedAt)
	case a.kind == KindChunk && l.depth == 1:
		return match(k, "chunk_number", fieldNumber) | match(k, "data", fieldData) | match(k, "mac", fieldMAC) |
			match(k, "hmac", fieldHMAC) | match(k, "size", fieldSize)
	case a.kind == KindRollback && l.depth == 1:
		return match(k, "rollback_required", fieldRollback)
	case a.kind == KindAck && l.depth == 1:
		return match(k, "status", fieldStatus)
	}
	return fieldNone
}

// match is f where k is name, else none; names differ, so results may be or'ed.
func match(k []byte, name string, f field) field {
	if len(k) != len(name) {
		return fieldNone
	}
	for i := range k {
		if k[i] != name[i] {
			return fieldNone
		}
	}
	return f
}

// value is the member whose value begins, none inside arrays.
func (a *Answer) valueField() field {
	l := &a.lex
	if l.depth == 0 || l.arrays&(1<<(l.depth-1)) != 0 {
		return fieldNone
	}
	return l.keys[l.depth-1]
}

// open is called where an object or array begins as a value.
func (a *Answer) open(array bool) error {
	switch a.valueField() {
	case fieldNone:
		return nil
	case fieldFota:
		if !array {
			return nil
		}
	case fieldManifest:
		if !array {
			a.Offer.Present = true
			return nil
		}
	}
	return ErrField
}

func (a *Answer) startString() error {
	a.field, a.count, a.acc, a.pad = a.valueField(), 0, 0, 0
	switch a.field {
	case fieldNone, fieldVersion, fieldHash, fieldUploadedAt, fieldStatus, fieldData:
		a.date = isoDate{}
		a.Success = a.field == fieldStatus
		return nil
	case fieldMAC, fieldHMAC:
		a.macOK = true
		return nil
	}
	return ErrField
}

// char takes a character of a key or a string.
func (a *Answer) char(c byte) error {
	l := &a.lex
	if l.inKey {
		if l.keyLen < maxKey {
			l.key[l.keyLen] = c
		}
		if l.keyLen <= maxKey {
			l.keyLen++
		}
		return nil
	}
	n := a.count
	a.count++
	switch a.field {
	case fieldData:
		return a.base64(c)
	case fieldMAC, fieldHMAC, fieldHash:
		return a.hex(n, c)
	case fieldVersion:
		if n < uint32(len(a.Offer.Version)) {
			a.Offer.Version[n] = c
			a.Offer.VersionLen = uint8(n + 1)
		}
	case fieldUploadedAt:
		a.date.char(n, c)
	case fieldStatus:
		const want = "success"
		if n >= uint32(len(want)) || want[n] != c {
			a.Success = false
		}
	}
	return nil
}

// hex fills Hash with 64 digits. A second MAC is compared with the first.
func (a *Answer) hex(n uint32, c byte) error {
	out := &a.Hash
	v, ok := hexDigit(c)
	if !ok || n >= 64 {
		return ErrField
	}
	if a.HasMAC {
		have := out[n/2] >> 4
		if n%2 == 1 {
			have = out[n/2] & 15
		}
		a.macOK = a.macOK && have == v
		return nil
	}
	if n%2 == 0 {
		out[n/2] = v << 4
	} else {
		out[n/2] |= v
	}
	return nil
}

// base64 decodes in place (RFC 4648, padded).
func (a *Answer) base64(c byte) error {
	var v byte
	switch {
	case c >= 'A' && c <= 'Z':
		v = c - 'A'
	case c >= 'a' && c <= 'z':
		v = c - 'a' + 26
	case c >= '0' && c <= '9':
		v = c - '0' + 52
	case c == '+':
		v = 62
	case c == '/':
		v = 63
	case c == '=':
		a.pad++
		if a.pad > 2 || a.count%4 != 0 && a.count%4 != 3 {
			return ErrBase64
		}
		return a.quad()
	default:
		return ErrBase64
	}
	if a.pad > 0 {
		return ErrBase64
	}
	a.acc = a.acc<<6 | uint32(v)
	return a.quad()
}

// quad puts three bytes out behind every four characters.
func (a *Answer) quad() error {
	if a.count%4 != 0 {
		return nil
	}
	n := uint32(3 - a.pad)
	// Bits that padding leaves over must be zero, or two texts mean the same bytes.
	left := uint32(a.pad) * 2
	if a.acc&(1<<left-1) != 0 {
		return ErrBase64
	}
	a.acc <<= uint32(a.pad) * 6
	if n > uint32(len(a.chunk))-a.Length {
		return ErrTooLong
	}
	for i := uint32(0); i < n; i++ {
		a.chunk[a.Length] = byte(a.acc >> (16 - 8*i))
		a.Length++
	}
	a.acc = 0
	return nil
}

func (a *Answer) endString() error {
	l := &a.lex
	if l.inKey {
		f := a.lookUp()
		if f != fieldNone && a.saw(f) {
			return ErrDuplicate
		}
		a.seen |= 1 << f
		l.keys[l.depth-1] = f
		l.state = lexColon
		return nil
	}
	l.state = lexAfter
	switch a.field {
	case fieldData:
		if a.count%4 != 0 {
			return ErrBase64
		}
		a.HasData = true
	case fieldMAC, fieldHMAC:
		if a.count != 64 {
			return ErrField
		}
		if !a.macOK {
			return ErrDuplicate
		}
		a.HasMAC = true
	case fieldHash:
		if a.count != 64 {
			return ErrField
		}
	case fieldUploadedAt:
		a.Offer.Stamp = a.date.unix()
	case fieldStatus:
		a.Success = a.Success && a.count == 7
	}
	return nil
}

func (a *Answer) endNumber() error {
	l := &a.lex
	f := a.valueField()
	if f == fieldNone {
		return nil
	}
	if f == fieldUploadedAt {
		if !l.neg && l.digits != 255 && l.number < numE {
			a.Offer.Stamp = l.value
		}
		return nil
	}
	if l.neg || l.digits == 255 || l.number > numInt {
		return ErrField
	}
	switch f {
	case fieldSize:
		if a.kind == KindManifest {
			a.Offer.Size = l.value
		} else {
			a.Size, a.HasSize = l.value, true
		}
	case fieldChunkSize:
		a.Offer.ChunkSize = l.value
	case fieldNumber:
		a.Number, a.HasNumber = l.value, true
	default:
		return ErrField
	}
	return nil
}

func (a *Answer) endLiteral(which uint8) error {
	switch a.valueField() {
	case fieldNone:
		return nil
	case fieldRollback:
		if which != litNull {
			a.Rollback = which == litTrue
			return nil
		}
	case fieldFota, fieldManifest, fieldUploadedAt, fieldVersion:
		if which == litNull {
			return nil // as good as absent
		}
	}
	return ErrField
}
