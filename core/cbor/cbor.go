// Package cbor reads and writes the deterministic profile of CBOR (RFC 8949)
// that signed objects and the native wire use: docs/format/encoding.md. One
// object has one encoding: what the Reader accepts, the Writer writes again byte
// for byte.
//
// Both are values with an error that sticks, for callers that read straight
// through and ask once at the end. Nothing is allocated; what is read is a view
// into the caller's bytes. It is the lowest layer beside digest and flash: it
// imports nothing of ours, and knows no field of any object.
package cbor

// Error is why an object was refused; 0 is none.
type Error uint8

const (
	ErrEnd      Error = iota + 1 // the bytes end before the object, or a length reaches beyond them
	ErrForm                      // not in its shortest form, or of indefinite length
	ErrType                      // another type than the field's
	ErrBanned                    // a tag inside, a float, null, undefined or another simple value
	ErrKey                       // a map key that is no integer of 16 bits and a sign
	ErrOrder                     // map keys that repeat or don't rise bytewise
	ErrDepth                     // nested deeper than MaxDepth
	ErrLimit                     // above the field's limit
	ErrText                      // text that is not UTF-8
	ErrTrailing                  // bytes behind the object
	ErrUnknown                   // a critical key that the reader does not know
	ErrMissing                   // a mandatory field is absent; set by callers
	ErrValue                     // a value that the field does not allow; set by callers
	ErrSpace                     // the buffer is too short for what was written
	ErrUse                       // the caller's mistake: calls that do not fit the object's shape
)

func (e Error) Error() string {
	switch e {
	case 0:
		return "cbor: no error"
	case ErrEnd:
		return "cbor: ends early"
	case ErrForm:
		return "cbor: not in its shortest form"
	case ErrType:
		return "cbor: another type than the field's"
	case ErrBanned:
		return "cbor: a tag, float or simple value that the profile has not"
	case ErrKey:
		return "cbor: a map key that is no small integer"
	case ErrOrder:
		return "cbor: map keys repeat or don't rise"
	case ErrDepth:
		return "cbor: nested too deep"
	case ErrLimit:
		return "cbor: above the field's limit"
	case ErrText:
		return "cbor: text is not UTF-8"
	case ErrTrailing:
		return "cbor: bytes behind the object"
	case ErrUnknown:
		return "cbor: unknown critical key"
	case ErrMissing:
		return "cbor: a mandatory field is missing"
	case ErrValue:
		return "cbor: a value that the field does not allow"
	case ErrSpace:
		return "cbor: buffer too short"
	case ErrUse:
		return "cbor: calls out of order"
	}
	return "cbor: unknown error"
}

// Major types (RFC 8949, 3.1), in the upper three bits of an item's first byte.
const (
	majorUint  = 0 << 5
	majorNeg   = 1 << 5
	majorBytes = 2 << 5
	majorText  = 3 << 5
	majorArray = 4 << 5
	majorMap   = 5 << 5
	majorTag   = 6 << 5
	majorOther = 7 << 5

	simpleFalse = majorOther | 20
	simpleTrue  = majorOther | 21
)
