// Package native is the exchange between a device and its server on the native
// wire: polls and answers, reports and acknowledgements, enrolment. Bytes in,
// bytes out; docs/format/exchange.md has them, docs/format/encoding.md the CBOR.
//
// Both sides use it: each message is encoded and decoded here, and what one side
// writes is what the other reads. It imports core/cbor and core/digest, and must
// never import a socket, a clock, the updater or the domain. Nothing of a message
// is looked at before its MAC is right, but by the functions named Peek, whose
// results nobody believes.
//
// Text and bytes of a decoded message are views into its body: they last as long
// as the body is left alone. Nothing is allocated and nothing is kept.
package native

import (
	"github.com/runnel-fota/runnel/core/cbor"
	"github.com/runnel-fota/runnel/core/digest"
)

// Limits, bytes (docs/format/exchange.md).
const (
	MaxBody     = 1024 // a message with its MAC
	MACSize     = digest.Size
	SecretSize  = 32 // of a device, of a token
	DigestSize  = digest.Size
	RandomSize  = 8  // of a poll
	NonceSize   = 16 // of an enrolment
	MaxDevice   = 64
	MaxVersion  = 64
	MaxHardware = 32
	MaxToken    = 32
	MaxSlots    = 16
)

// Error is why a message was refused; 0 is none.
type Error uint8

const (
	ErrLength  Error = iota + 1 // too short for a MAC, or above MaxBody
	ErrMAC                      // the MAC is wrong: another key, another kind of message, other bytes
	ErrForm                     // not the CBOR of the profile, or not this message's
	ErrField                    // a field is missing, or has a value that is not allowed
	ErrUnknown                  // a critical field that this side does not know
	ErrOther                    // a right answer, but to another device or another request
	ErrSpace                    // the buffer is too short
)

func (e Error) Error() string {
	switch e {
	case 0:
		return "native: no error"
	case ErrLength:
		return "native: too short or too long"
	case ErrMAC:
		return "native: wrong MAC"
	case ErrForm:
		return "native: malformed message"
	case ErrField:
		return "native: a field is missing or out of range"
	case ErrUnknown:
		return "native: unknown critical field"
	case ErrOther:
		return "native: answer to something else"
	case ErrSpace:
		return "native: buffer too short"
	}
	return "native: unknown error"
}

// Message is a kind of message. Each is authenticated under a label of its own, so
// that none passes for another.
type Message uint8

const (
	MessagePoll Message = iota + 1
	MessageAnswer
	MessageReport
	MessageAck
	MessageEnrol
	MessageEnrolled
)

// Label is what the MAC covers before the message, without the zero byte behind it.
func (m Message) Label() string {
	switch m {
	case MessagePoll:
		return "runnel/poll/1"
	case MessageAnswer:
		return "runnel/answer/1"
	case MessageReport:
		return "runnel/report/1"
	case MessageAck:
		return "runnel/ack/1"
	case MessageEnrol:
		return "runnel/enrol/1"
	case MessageEnrolled:
		return "runnel/enrolled/1"
	}
	return ""
}

// Answers reports whether the message goes from server to device, under the answer key.
func (m Message) Answers() bool {
	return m == MessageAnswer || m == MessageAck || m == MessageEnrolled
}

// open checks the MAC of body and begins to read what is before it.
func open(r *cbor.Reader, body []byte, mac MAC, kind Message) Error {
	n := len(body) - MACSize
	if n < 1 || len(body) > MaxBody {
		return ErrLength
	}
	mac.Begin(kind)
	mac.Write(body[:n])
	if !mac.Is(body[n:]) {
		return ErrMAC
	}
	r.Begin(body[:n:n])
	return 0
}

// end is the end of a message of which the fields in seen were read. Mandatory are
// those in must.
func end(r *cbor.Reader, seen, must uint32) Error {
	r.End()
	switch r.Err() {
	case 0:
	case cbor.ErrLimit, cbor.ErrValue:
		return ErrField
	case cbor.ErrUnknown:
		return ErrUnknown
	default:
		return ErrForm
	}
	if seen&must != must {
		return ErrField
	}
	return 0
}

// seal puts the MAC behind the message at the front of buf.
func seal(w *cbor.Writer, buf []byte, mac MAC, kind Message) ([]byte, Error) {
	p, err := w.Done()
	if err == cbor.ErrSpace || (err == 0 && len(buf)-len(p) < MACSize) {
		return nil, ErrSpace
	}
	if err != 0 {
		return nil, ErrField // a text that is not UTF-8
	}
	mac.Begin(kind)
	mac.Write(p)
	n := len(p) + MACSize
	mac.Sum(buf[len(p):n])
	return buf[:n:n], 0
}

// Peek finds the device and the number of the secret in a poll or a report, so
// that a server knows under which key to check it. Nothing of it is believed.
func Peek(body []byte) (device []byte, key uint8, err Error) {
	var r cbor.Reader
	if err := peek(&r, body); err != 0 {
		return nil, 0, err
	}
	device = r.Text(MaxDevice)
	if r.Key() != 1 {
		r.Fail(cbor.ErrMissing)
	}
	key = uint8(r.Uint32(0xFF))
	if r.Err() != 0 || !isName(device) {
		return nil, 0, ErrForm
	}
	return device, key, 0
}

// PeekToken finds the token's id in an enrolment. Nothing of it is believed.
func PeekToken(body []byte) (token []byte, err Error) {
	var r cbor.Reader
	if err := peek(&r, body); err != 0 {
		return nil, err
	}
	token = r.Text(MaxToken)
	if r.Err() != 0 || !isName(token) {
		return nil, ErrForm
	}
	return token, 0
}

// peek reads as far as the value of field 0.
func peek(r *cbor.Reader, body []byte) Error {
	n := len(body) - MACSize
	if n < 1 || len(body) > MaxBody {
		return ErrLength
	}
	r.Begin(body[:n:n])
	r.Map()
	if r.Key() != 0 {
		r.Fail(cbor.ErrMissing)
	}
	return 0
}

// isName reports whether p is printable ASCII without spaces, and not empty: it
// can stand in a URL, a header and a log line.
func isName(p []byte) bool {
	for _, c := range p {
		if c < 0x21 || c > 0x7E {
			return false
		}
	}
	return len(p) > 0
}

// sized reports whether p is absent or has n bytes.
func sized(p []byte, n int) bool { return p == nil || len(p) == n }

// between reports whether p has from 1 to most bytes.
func between(p []byte, most int) bool { return len(p) > 0 && len(p) <= most }

// equal compares what is no secret.
func equal(a, b []byte) bool {
	if len(a) != len(b) {
		return false
	}
	for i := range a {
		if a[i] != b[i] {
			return false
		}
	}
	return true
}

func u32(r *cbor.Reader) uint32 { return r.Uint32(1<<32 - 1) }

// field writes a field that is a number.
func field(w *cbor.Writer, key int, v uint32) {
	w.Key(key)
	w.Uint32(v)
}

func field64(w *cbor.Writer, key int, v uint64) {
	w.Key(key)
	w.Uint(v)
}

// fieldBytes and fieldText write a field that is there if p is not empty.
func fieldBytes(w *cbor.Writer, key int, p []byte) {
	if len(p) > 0 {
		w.Key(key)
		w.Bytes(p)
	}
}

func fieldText(w *cbor.Writer, key int, p []byte) {
	if len(p) > 0 {
		w.Key(key)
		w.TextBytes(p)
	}
}

// count is 1 for what is there.
func count(there bool) int {
	if there {
		return 1
	}
	return 0
}
