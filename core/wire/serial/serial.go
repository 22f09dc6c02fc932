// Package serial is how a board without a network reaches its server: calls over
// a UART to a bridge, which speaks HTTP for it. docs/format/serial.md has the
// bytes; 'runnel bridge' is the other end.
//
// The board is the master. It sends one call and waits for its answer; the bridge
// says nothing unasked, so that nothing is lost while the chip's flash controller
// stalls its CPU. A call that gets no answer is sent again, under the same number,
// and the bridge does it once: who is asked again says the same bytes again.
//
// The line is believed as little as any network: a CRC keeps noise out, and says
// nothing of who spoke. What counts has a MAC or a hash of its own. The package
// imports core/digest, knows no UART, no clock and no updater, keeps no buffer of
// its caller, and allocates nothing. What only the bridge needs is in host.go.
package serial

// Sizes, bytes (docs/format/serial.md).
const (
	HeaderSize = 4    // op, sequence, session
	CRCSize    = 4    // behind the payload
	MaxPayload = 1280 // a message of 1 KiB, its target, and what is said of both
	MaxRead    = 1088 // of a body in one answer: a record with a chunk of 1 KiB
	MaxContent = HeaderSize + MaxPayload

	// MaxField: target, device, nonce, timestamp and MAC of a request, each.
	MaxField = 255

	requestHead = 14 // flags, from, to, five lengths
	headSize    = 19
	openCall    = 5
	openAnswer  = 7
	sayCall     = 7
	readCall    = 6
)

// Version of the protocol; both sides say theirs when a session opens.
const Version = 1

// Op is what a frame is. Calls are below 0x80; the answer to one has Answer set
// in it.
const (
	OpOpen  = 0x01 // begins a session
	OpSend  = 0x02 // a request; answered by its head
	OpRead  = 0x03 // some of the answer's body
	OpClose = 0x04 // lets go of the answer
	OpSay   = 0x05 // an event
	OpTime  = 0x06
	// OpHost to OpHostLast are the host's own: an emulated board's flash, for one.
	OpHost     = 0x40
	OpHostLast = 0x7F

	Answer    = 0x80
	OpRefused = 0xB0 // and an Error added to it: not done, and why
	OpBusy    = 0xBF // still at it: wait, and ask again
)

// Error is why a call failed, in Client.Fault. The first ones are on the wire too,
// where a bridge refuses a call; 0 is none.
type Error uint8

const (
	ErrSession Error = iota + 1 // the bridge knows no such session: it, or the board, started anew
	ErrForm                     // malformed, or another version of the protocol
	ErrOp                       // no such call
	ErrTarget                   // a target that the bridge fetches for nobody
	ErrHost                     // one of the host's own calls failed
	ErrSilent                   // no answer
	ErrBusy                     // an answer was not ready in time
	ErrSpace                    // a request that is too long for a frame
	ErrBroken                   // the bridge could not reach the server, or lost it
)

func (e Error) Error() string {
	switch e {
	case 0:
		return "serial: no error"
	case ErrSession:
		return "serial: no such session"
	case ErrForm:
		return "serial: malformed, or another version"
	case ErrOp:
		return "serial: no such call"
	case ErrTarget:
		return "serial: the bridge does not fetch that"
	case ErrHost:
		return "serial: the host could not do it"
	case ErrSilent:
		return "serial: no answer"
	case ErrBusy:
		return "serial: no answer in time"
	case ErrSpace:
		return "serial: too long for a frame"
	case ErrBroken:
		return "serial: the server could not be reached"
	}
	return "serial: unknown error"
}

// Request is what Send has sent: a POST where it has a body, else a GET.
type Request struct {
	Target []byte // path with query, at most MaxField bytes
	Body   []byte
	// Ranged asks for bytes From to To, To included. Without it, To, if not 0, is
	// where the target's last byte lies: a bound on what is worth reading.
	Ranged   bool
	From, To uint32
	// Headers of the v1 wire; empty: not sent. At most MaxField bytes each.
	Device                string
	Nonce, Timestamp, MAC []byte
}

// Head is what an answer says before its body.
type Head struct {
	Status     uint16
	RetryAfter uint32 // seconds; 0: not said
	// Of a 206: what its Content-Range says; Total 0: not said.
	From, To, Total uint32
	// Coded: the body has a content coding, which nobody here undoes.
	Coded bool
}

const (
	flagRanged = 1 // of a request
	flagCoded  = 1 // of a head
	flagEnd    = 1 // of a piece of a body: there is no more
	flagBroken = 2 // and this one is not the end that it should have had
)
