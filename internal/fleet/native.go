package fleet

import (
	"context"
	"time"
)

// Wire is a wire as trust sees it: what a device's word rests on.
type Wire string

// Wires, frozen: stored as text.
const (
	WireNone    Wire = ""         // it has proven nothing yet
	WireV1      Wire = "v1"       // a MAC of the v1 wire
	WireMACOnly Wire = "mac-only" // native; it believes manifests by the answer's MAC
	WireSigned  Wire = "signed"   // native; it believes manifests by their signatures
)

// WeakerThan orders wires by what a stolen server key, or a forged word, can do.
func (w Wire) WeakerThan(than Wire) bool { return w.rank() < than.rank() }

func (w Wire) rank() int {
	switch w {
	case WireV1:
		return 1
	case WireMACOnly:
		return 2
	case WireSigned:
		return 3
	}
	return 0
}

// KeyList is an accepted key list (docs/format/keylist.md). A server has one set
// of roots and so one chain of lists: several vendors are several servers.
type KeyList struct {
	Version, Generation uint32
	// First: it is the one by which this server came to the generation, and is served by its number.
	First    bool
	Digest   Digest // SHA-256 of Envelope
	Envelope []byte
	AddedAt  time.Time
}

// KeyLists keeps the chain of key lists. What may follow is decided before
// (package ingest): a store only sees to it that nobody else was faster.
type KeyLists interface {
	// AddKeyList stores a list that was accepted by the one of version after (0: none was
	// held), notes its digest among the manifests, has products take signed images only, and
	// raises the generation, in one transaction. ErrListMoved, a CodeConflict, where after is not the newest.
	// Digest, First and AddedAt are set here.
	AddKeyList(ctx context.Context, l KeyList, after uint32, products []string, now time.Time) (KeyList, error)
	// NewestKeyList and KeyListOf (a generation's first) answer CodeNotFound where there is none.
	NewestKeyList(ctx context.Context) (KeyList, error)
	KeyListOf(ctx context.Context, generation uint32) (KeyList, error)
	// ListKeyLists is newest first.
	ListKeyLists(ctx context.Context) ([]KeyList, error)
}

// Manifest is a signed manifest as it was taken in. They are only ever added.
type Manifest struct {
	Digest   Digest // SHA-256 of Envelope
	Envelope []byte
	AddedAt  time.Time
}

// Kinds of streams. Frozen: stored as text.
const (
	StreamRaw        = "raw" // the image as it is
	StreamPatch      = "patch"
	StreamCompressed = "compressed"
)

// Stream is a stream file of a release.
type Stream struct {
	Digest    Digest // SHA-256 of the file
	ReleaseID int64  // set by the store
	Kind      string
	Chunk     uint32 // bytes
	Length    int64  // of the file, bytes
	Root      Digest
	Sheet     []byte // envelope of the stream sheet; empty for a raw stream
	Proven    bool   // of a derived one: this server made the image out of it, or made it
}

// SignedReleases keeps releases that have a manifest, and their streams.
type SignedReleases interface {
	// PublishSigned stores the manifest's envelope, the release (ID, PublishedAt and ManifestDigest
	// are set here, and State unless it is ReleaseDraft: builds of a draft are drafts) and its streams, has the product take signed images only from
	// now on unless an operator decided, logs it and raises the generation, in one transaction.
	// The same manifest again answers the stored release and created=false; another one with its
	// product, epoch and sequence that is no build beside it (FindBuild): CodeConflict. judged is the
	// version of the key list that the manifest was judged by, 0 for none: ErrListMoved where
	// it is not the newest, by the hand of another server. CodeForbidden where the product's terms leave it out.
	PublishSigned(ctx context.Context, r Release, envelope []byte, streams []Stream, judged uint32, now time.Time) (stored Release, created bool, err error)
	// Manifest answers CodeNotFound for a digest that is not a manifest's.
	Manifest(ctx context.Context, digest Digest) (Manifest, error)
	Stream(ctx context.Context, digest Digest) (Stream, error)
	// Streams of a release, the smallest chunks first.
	Streams(ctx context.Context, releaseID int64) ([]Stream, error)
}

// SignedIntake is what taking release files in needs beside SignedReleases.
type SignedIntake interface {
	// PublishWithList is KeyLists.AddKeyList and SignedReleases.PublishSigned in one transaction.
	PublishWithList(ctx context.Context, r Release, envelope []byte, streams []Stream, l KeyList, after uint32, products []string, now time.Time) (stored Release, created bool, err error)
	// AllStreams is every stream once, with the first release that it was stored for.
	AllStreams(ctx context.Context) ([]Stream, error)
}

// ProductPolicy says what a product takes.
type ProductPolicy struct {
	Name       string
	SignedOnly bool // unsigned images are refused on every way in
	ByOperator bool // an operator said so: releases and key lists change it no more
	Terms      Terms
	AddedAt    time.Time
	ChangedAt  time.Time
}

// Policies keeps what products take. Publish enforces it, so that it holds on
// every way in.
type Policies interface {
	// Policy is the product's; that of one without a row takes unsigned images.
	Policy(ctx context.Context, product string) (ProductPolicy, error)
	ListPolicies(ctx context.Context) ([]ProductPolicy, error)
	// SetPolicy is an operator's word, which nothing but another one changes.
	SetPolicy(ctx context.Context, product string, signedOnly bool, now time.Time) error
	// SetTerms changes what of the product's terms is named; the generation rises.
	SetTerms(ctx context.Context, product string, change TermsChange, now time.Time) error
}

// NativeKey is one of a device's native secrets.
type NativeKey struct {
	Number uint8
	Secret Key
}

// MaxNativeKeys of a device live at once.
const MaxNativeKeys = 4

// NativeKeys is what a server needs to know of a device before it believes a word.
type NativeKeys struct {
	Device  string
	Product string
	Keys    []NativeKey // that live, the oldest first
	Version int64       // rises with every change of the keys
	Nonce   uint64      // highest stored
	Boot    uint32
}

// NativeDevice is what one statement reads for one poll. Device's Assurance and NativeKeys
// are not read: the wire that asks knows them.
type NativeDevice struct {
	Device
	Boot        uint32 // of the latest poll that was written
	Verdict     string // NativeDecision.Key that its timeline has
	KeysVersion int64  // NativeKeys.Version
	// Deployments of the releases that were asked for, of whichever of their builds.
	Deployments []Deployment
	Usage       []Usage // of the rollouts that were asked for
	Clock       Clock
	Generation  int64 // of the catalogue
}

// NativeFacts are what a poll says of a device and the server keeps, for people.
type NativeFacts struct {
	RunningVersion  string // "": not said
	Hardware        string // for people
	Epoch           uint32 // of what it confirmed last, with the next two
	Sequence        uint32
	SecurityVersion uint32
	ListVersion     uint32 // of the key list that it holds
	Slots           int    // how many it has
	RunningSlot     int    // or FactoryImage
	// Ask (NativeAsk.Text) is kept so that "why" decides as its next poll would.
	Ask string
}

// KeptDecision is one of a device's last decisions. It is written when the decision changes.
type KeptDecision struct {
	At      time.Time
	Verdict Verdict
	Rollout int64  // 0: none
	Version string // offered; "": none
	Why     string
}

// KeepDecisions of each device.
const KeepDecisions = 8

// NativeChange is what a poll changes at once. Nothing of it is done where Nonce
// is not above the stored one, or no longer the stored one where it was Taken.
type NativeChange struct {
	Device string
	Nonce  uint64
	Boot   uint32
	Now    time.Time
	Taken  bool // the nonce was taken already, for this poll (Replicas)

	Facts  NativeFacts
	Health Health
	Wire   Wire  // the strongest, from now on
	Key    uint8 // that it polled with: keys that are older are retired
	// Restarted: its boot counter went back, so names of reports begin anew.
	Restarted bool
	// RevertTold: it is told for the first time that an operator wants it to go back.
	RevertTold bool
	Verdict    string // what the timeline has from now on
	Events     []Event
	// Offered, if not 0, is a release whose deployment begins with state offered, unless it has one.
	Offered int64
	// Admit, if not nil, has it come into a rollout.
	Admit    *Admission
	Decision *KeptDecision // nil: as before
}

// Taken is what became of a poll's change.
type Taken struct {
	Fresh bool // the nonce was above the stored one
	// Refused: the rollout changed, or another device took the last place. The device gets nothing
	// by this poll, and is judged anew by its next one.
	Refused bool
}

// NativeSeen is what idle polls of a device taught since it was last written.
type NativeSeen struct {
	Device string
	Nonce  uint64
	Boot   uint32
	At     time.Time
	Health Health // the zero one leaves what is stored, as in NativeChange
}

// NativeReport is what a device says of a release over the native wire.
type NativeReport struct {
	Device          string
	Nonce           uint64
	Boot, Number    uint32 // name the report
	Epoch, Sequence uint32 // of the release; 0 each: of an image without one
	Image           Digest
	State           DeploymentState
	Bytes           uint32 // of the image in flash
	Reason          string // for people; "": none
	Class           Class  // of a failure
	Content         Digest // a SHA-256 of all of it but the nonce
	Key             uint8  // that it is under
	// DerivedFailed: a derived stream of the release is of no use to it, and it goes on with the raw one.
	DerivedFailed bool
	// Stale: its nonce is not above the highest that the wire knows, which the store may not know yet.
	Stale bool
}

// NativeDevices is what the native wire asks of a store.
type NativeDevices interface {
	// NativeKeys answers CodeNotFound for a device that is not known or has no native key.
	NativeKeys(ctx context.Context, device string) (NativeKeys, error)
	// NativePoll reads all that a poll needs in one statement.
	NativePoll(ctx context.Context, device string, want Wanted) (NativeDevice, error)
	// TakePoll makes the change; not Fresh where the nonce is not above the stored one: then
	// nothing was done. Where the admission is refused the rest is done without Verdict, Decision, Events
	// of offers, and without a deployment.
	TakePoll(ctx context.Context, c NativeChange) (Taken, error)
	// TakeReport applies a report by ApplyNativeReport. A report whose name and content are
	// stored changes nothing and is no error; else a nonce not above the stored one is
	// CodeReplay. CodeUnauthenticated where its key is retired. Durable when it returns.
	TakeReport(ctx context.Context, r NativeReport, now time.Time) error
	// SaveNativeSeen writes behind what idle polls taught. Values never go back.
	SaveNativeSeen(ctx context.Context, seen []NativeSeen) error
}

// NativeKeyring is how an operator gives devices native keys.
type NativeKeyring interface {
	// AddNativeDevice stores a device with native key 0, and with a v1 key if v1 is not nil.
	AddNativeDevice(ctx context.Context, d Device, native Key, v1 *Key, now time.Time) error
	// AddNativeKey gives a known device one more native key under the next number. The keys before
	// live until the device polls with it; of more than MaxNativeKeys the oldest, which is in use,
	// and the newest stay.
	AddNativeKey(ctx context.Context, device string, key Key, now time.Time) (number uint8, err error)
	// ResetWire lets the device speak any wire again.
	ResetWire(ctx context.Context, device string, now time.Time) error
}

// NativeCatalogue is the native wire's Catalogue.
type NativeCatalogue interface {
	// NativeSnapshot is all signed releases with their streams and manifests, the newest key
	// list and the products, of one generation.
	NativeSnapshot(ctx context.Context) (NativeSnapshot, error)
}

// NativeSnapshot is what NativeCatalogue reads.
type NativeSnapshot struct {
	Generation int64
	Releases   []SignedRelease
	List       *KeyList  // nil: none
	Products   []string  // that have releases, for ProductOf
	Rollouts   []Rollout // as RolloutSnapshot has them
	Groups     []Group
	Only       []string
	Terms      map[string]Terms
}

// SignedRelease is a release with what a native offer is made of.
type SignedRelease struct {
	Release
	Envelope []byte // of the manifest
	Streams  []Stream
}
