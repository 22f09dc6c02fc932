package fleet

import (
	"context"
	"time"
)

// A derivation is a derived stream that a server makes by itself for what its fleet runs:
// one for a release, a base and a profile. Any number of servers share them.

// DerivationState is frozen: it is stored as text.
type DerivationState string

const (
	DerivationMaking  DerivationState = "making"  // by a server, until its lease ends
	DerivationMade    DerivationState = "made"    // the release has the stream
	DerivationDropped DerivationState = "dropped" // it saves too little, or the image is too large
	DerivationFailed  DerivationState = "failed"  // tried again, MaxDerivationTries in all
)

// MaxDerivationTries of one that fails: what fails three times fails.
const MaxDerivationTries = 3

// DerivationName names one.
type DerivationName struct {
	Release int64
	Base    Digest // image that a patch starts from; zero: the image compressed
	Profile uint8  // of the coder
}

// Derivation is one as it stands.
type Derivation struct {
	DerivationName
	State     DerivationState
	Devices   int    // that it was of use to, when it was begun
	Percent   int    // done, while it is made
	Sent      int64  // bytes that a device is sent for it; 0: not known
	Stream    Digest // of a made one
	Reason    string // of a dropped or failed one, for people
	Tries     int    // that failed
	ChangedAt time.Time
	Lease     time.Time // of one that is being made: until then it is its maker's
}

// AskCount is how many devices of a product say the same of themselves.
type AskCount struct {
	Product string // the device's own; "": it has none
	Ask     string // ParseAsk
	Devices int
}

// Derivations keeps them, and what is made.
type Derivations interface {
	// CountAsks counts the devices that were heard of since then by what they said last.
	CountAsks(ctx context.Context, since time.Time) ([]AskCount, error)
	// ListDerivations is those of a release, 0: of all.
	ListDerivations(ctx context.Context, release int64) ([]Derivation, error)
	// BeginDerivation makes d the maker's until its lease ends; false: it is somebody else's now.
	BeginDerivation(ctx context.Context, d Derivation, maker string, now time.Time) (begun bool, err error)
	// SaveDerivation writes how far the maker is, or how it ended without a stream; false:
	// it is not the maker's any more.
	SaveDerivation(ctx context.Context, d Derivation, maker string, now time.Time) (saved bool, err error)
	// PublishDerived adds a proven derived stream to the release, as the end of d if that is
	// the maker's: a stream that is known has the newer sheet from then on. judged is the version of the key list
	// that the sheet was judged by: ErrListMoved where it is not the newest. The generation rises.
	PublishDerived(ctx context.Context, d Derivation, maker string, m Stream, judged uint32, now time.Time) (published bool, err error)
}

// StreamKeys keeps the key with which the server signs stream sheets: the seed of an
// Ed25519 key, sealed at rest.
type StreamKeys interface {
	// StreamKey is the key in force; CodeNotFound where there is none.
	StreamKey(ctx context.Context) (Key, error)
	// AddStreamKey makes key the one in force: always with renew, else where there is none. It
	// answers which is then.
	AddStreamKey(ctx context.Context, key Key, renew bool, now time.Time) (Key, error)
}
