package manifest

import "github.com/runnel-fota/runnel/core/cbor"

// Error is why an object was refused; 0 is none. Each cause has a value of its
// own. From errCBOR up it is an error of package cbor: CBOR tells which.
type Error uint8

// Of an envelope.
const (
	ErrSize       Error = iota + 1 // payload empty or above MaxPayload
	ErrSignatures                  // no signature, or more than MaxSignatures
	ErrHeader                      // a signer's protected header is not exactly {alg, kid}

	// Of a key list.

	ErrAlg          // a key of an algorithm that is not known
	ErrKeyForm      // a public key whose y is not below 2^255-19
	ErrKeyOrder     // a public key of small order: anybody can sign for it
	ErrKeyTwice     // a public key twice, among roots and keys together
	ErrM            // m is 0, or more than there are roots
	ErrProductTwice // a product twice

	// Of a key list against what a device holds.

	ErrOldList    // its version is not above
	ErrOtherList  // the same version with other bytes
	ErrGeneration // neither the generation that is held nor the next
	ErrRoots      // other roots or another m without a new generation
	ErrOldQuorum  // not signed by m of the roots that are held
	ErrNewQuorum  // not signed by m of its own roots

	// Of a trust store.

	ErrTrust // can't be read, or is none
	ErrSpace // does not fit where it should go

	// Of a signature count.

	ErrNoProduct // the key list does not name the product
	ErrThreshold // fewer good signatures by distinct keys than are needed

	// Of a manifest against a device: Check.

	ErrProduct   // for another product
	ErrHardware  // for other hardware
	ErrComponent // for another component than the app
	ErrFormat    // in a format that the device does not start
	ErrChip      // for another chip
	ErrEpoch     // not the key list's epoch, or below the device's own
	ErrSequence  // not above what was confirmed
	ErrProgress  // below the release in progress
	ErrSecurity  // security version below a floor
	ErrSlot      // for another slot than the target
	ErrAddress   // for another address than the target's
	ErrTooLarge  // larger than the target slot
	ErrChunk     // no raw stream in chunks that fit the buffer

	errCBOR Error = 128
)

func fromCBOR(e cbor.Error) Error {
	if e == 0 {
		return 0
	}
	return errCBOR + Error(e)
}

// CBOR is the error of package cbor that it stands for, 0 if for none.
func (e Error) CBOR() cbor.Error {
	if e < errCBOR {
		return 0
	}
	return cbor.Error(e - errCBOR)
}

func (e Error) Error() string {
	switch e {
	case 0:
		return "no error"
	case ErrSize:
		return "payload empty or too long"
	case ErrSignatures:
		return "no signature, or too many"
	case ErrHeader:
		return "a signer's protected header is not exactly alg and kid"
	case ErrAlg:
		return "a key of an unknown algorithm"
	case ErrKeyForm:
		return "a public key that is not reduced"
	case ErrKeyOrder:
		return "a public key of small order"
	case ErrKeyTwice:
		return "a public key twice"
	case ErrM:
		return "m is more than there are roots"
	case ErrProductTwice:
		return "a product twice"
	case ErrOldList:
		return "key list is older than the one that is held"
	case ErrOtherList:
		return "key list has the version of the one that is held, and other bytes"
	case ErrGeneration:
		return "key list skips a generation of roots"
	case ErrRoots:
		return "key list changes roots or m without a new generation"
	case ErrOldQuorum:
		return "key list is not signed by enough of the roots that are held"
	case ErrNewQuorum:
		return "key list is not signed by enough of its own roots"
	case ErrTrust:
		return "trust store is not readable"
	case ErrSpace:
		return "buffer too short"
	case ErrNoProduct:
		return "key list does not name the product"
	case ErrThreshold:
		return "not enough good signatures"
	}
	return e.judged()
}

// judged is the text of what Check found.
func (e Error) judged() string {
	switch e {
	case ErrProduct:
		return "for another product"
	case ErrHardware:
		return "for other hardware"
	case ErrComponent:
		return "for an unknown component"
	case ErrFormat:
		return "in another image format"
	case ErrChip:
		return "for another chip"
	case ErrEpoch:
		return "of another epoch"
	case ErrSequence:
		return "sequence is not above the confirmed one"
	case ErrProgress:
		return "sequence is below the release in progress"
	case ErrSecurity:
		return "security version is below the floor"
	case ErrSlot:
		return "for another slot"
	case ErrAddress:
		return "for another address"
	case ErrTooLarge:
		return "larger than the slot"
	case ErrChunk:
		return "chunks do not fit the buffer"
	}
	return e.CBOR().Error()
}
