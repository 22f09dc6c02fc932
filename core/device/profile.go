package device

import (
	"github.com/runnel-fota/runnel/core/manifest"
	"github.com/runnel-fota/runnel/core/wire/native"
)

// Profile is how manifests are believed, fixed when the device is built: a Signed's,
// or MACOnly(). The zero Profile is none, and refused. Nothing received chooses it and
// no failure falls back. What a profile needs is linked only where it is made: a
// device that is mac-only by construction has no code that judges a signature.
type Profile struct {
	by     believer
	name   native.Profile
	signed *Signed // of profile signed
}

// believer is what the two profiles do differently. Its types have no fields: what is
// in an interface has all of its fields described in flash.
type believer interface {
	// attach checks what the profile was given.
	attach(n *Native, u *Updater) error
	// hold notes which key list is held, for the next poll. The buffer is free.
	hold(n *Native, u *Updater) (ok bool)
	// behind says whether a newer key list is to be fetched first, and begins to.
	behind(n *Native, u *Updater, version, generation uint32) bool
	// list fetches and judges a key list; it ends in another poll.
	list(n *Native, u *Updater) Need
	// begin starts on the manifest or the sheet in the Judge.
	begin(n *Native, k manifest.Kind) manifest.Error
	// check looks at one signature at most; with the last one it sets what the key list
	// says of floors.
	check(n *Native, f *manifest.Floors) (done bool, err manifest.Error)
}

var (
	_ believer = (*macOnly)(nil)
	_ believer = (*signed)(nil)
)

// MACOnly believes a manifest through the poll answer's MAC alone: weaker than Signed,
// and named so everywhere (docs/security.md).
func MACOnly() Profile { return Profile{by: (*macOnly)(nil), name: native.ProfileMACOnly} }

type macOnly struct{} // as overNative: a nil pointer

func (*macOnly) attach(*Native, *Updater) error                         { return nil }
func (*macOnly) hold(*Native, *Updater) bool                            { return true }
func (*macOnly) behind(*Native, *Updater, uint32, uint32) bool          { return false }
func (*macOnly) list(*Native, *Updater) Need                            { return Need{} }
func (*macOnly) begin(*Native, manifest.Kind) manifest.Error            { return 0 }
func (*macOnly) check(*Native, *manifest.Floors) (bool, manifest.Error) { return true, 0 }
