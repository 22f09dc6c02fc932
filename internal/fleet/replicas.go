package fleet

import (
	"context"
	"time"
)

// Replicas is what wires ask of a store that several servers share, as well as of
// NativeDevices and Devices: what one server would keep in memory is in the store, and
// read with what a request reads anyway. Nonces that are taken here may be forgotten, all
// from some moment on, where the database crashes within a second.
type Replicas interface {
	// PollTaking is NativePoll that takes the poll's nonce too, in the same statement, where it is
	// above the stored one and keys is still NativeKeys.Version. What it reads is as it was before.
	PollTaking(ctx context.Context, seen NativeSeen, keys int64, want Wanted) (n NativeDevice, taken bool, err error)
	// TakeV1 takes the nonce of a v1 request in one statement, where the device is still as the
	// wire judged it, and speaks no stronger wire. CodeNotFound for a device that is not there.
	TakeV1(ctx context.Context, t V1Take) (V1State, error)
	// OfferV1 notes which release the device's poll was offered.
	OfferV1(ctx context.Context, device string, o V1Offer) error
}

// V1Known is what a v1 nonce and time are judged by.
type V1Known struct {
	Nonce   uint64 // the last one
	Clocked bool   // its timestamps were of a clock
}

// V1Take is a nonce to be taken.
type V1Take struct {
	Device string
	By     V1Known // it was judged by
	New    V1Known // what is to be known then
	At     time.Time
}

// V1State is what a take found.
type V1State struct {
	Taken      bool
	Known      V1Known // before
	Wire       Wire    // the strongest, before
	Offer      V1Offer
	Generation int64 // of the catalogue
}

// V1Offer is what a device's latest v1 poll was offered.
type V1Offer struct {
	Known      bool  // it is known, be it none
	Release    int64 // 0: none
	Generation int64 // of the catalogue then
}
