// Package fleet is the domain: products, releases, devices, deployments, and
// what a device may get and why. It imports nothing of ours but core/manifest.
// Stores implement its services; wires and the operator's API call them. Time
// comes in as an argument.
package fleet

import (
	"context"
	"encoding/hex"
	"fmt"
	"io"
	"time"
)

// Digest is a SHA-256.
type Digest [32]byte

func (d Digest) String() string { return hex.EncodeToString(d[:]) }

// ParseDigest reads 64 hex digits.
func ParseDigest(s string) (Digest, error) {
	var d Digest
	if len(s) != 64 {
		return d, fmt.Errorf("digest has %d hex digits, not 64", len(s))
	}
	_, err := hex.Decode(d[:], []byte(s))
	return d, err
}

// DefaultProduct takes what arrives without a product's name: devices added and
// images uploaded over the v1 wire, which has no word for a product.
const DefaultProduct = "default"

// Image is what the server knows of a release's bytes.
type Image struct {
	Digest     Digest `json:"-"`
	Size       int64  `json:"size"`        // bytes
	Chip       string `json:"chip"`        // "ESP32", "ESP32-C3", ...
	Project    string `json:"project"`     // of the app descriptor; empty where the image has none
	AppVersion string `json:"app_version"` // of the app descriptor
	IDFVersion string `json:"idf_version"`
}

// ReleaseState is frozen: it is stored as text.
type ReleaseState string

const (
	ReleaseDraft     ReleaseState = "draft" // taken in and checked, and for nobody yet
	ReleasePublished ReleaseState = "published"
	ReleaseWithdrawn ReleaseState = "withdrawn"
)

// Release is an image of a product with a version.
type Release struct {
	ID        int64
	Product   string
	Version   string
	Image     Image
	ChunkSize int // bytes
	State     ReleaseState
	// PublishedAt is whole seconds, UTC, and strictly rising per product: v1
	// devices tell newer from older by it (uploaded_at).
	PublishedAt time.Time

	// Of its manifest; all zero for an unsigned release.
	Epoch, Sequence, SecurityVersion uint32
	ManifestDigest                   Digest // SHA-256 of the envelope
	Hardware                         string // for people
	HasSlot                          bool   // its image may go into Slot only: it is one build of several
	Slot                             uint8
	Checked                          Checked // by intake; zero for an unsigned release

	// Notes and Channel are people's words. What is in a channel is given out by rollouts alone.
	Notes, Channel string
}

// Signed says whether the release has a manifest.
func (r Release) Signed() bool { return r.Sequence != 0 }

// Chunks is how many chunks the image has.
func (r Release) Chunks() int {
	return int((r.Image.Size + int64(r.ChunkSize) - 1) / int64(r.ChunkSize))
}

// Assurance is how well a device's identity is known.
type Assurance string

const (
	AssuranceNone   Assurance = "none"   // silent: no MAC; its reports are shown and decide nothing
	AssuranceShared Assurance = "shared" // the product's key
	AssuranceOwn    Assurance = "own"    // a key of its own
)

// Device is one board.
type Device struct {
	ID        string
	Product   string // empty: the only product there is, or DefaultProduct
	Assurance Assurance
	AddedAt   time.Time
	LastSeen  time.Time // zero: never
	// RunningVersion is what the device last reported to run, empty if it did not.
	RunningVersion string
	// Nonce is the highest v1 nonce stored; the one in force may be ahead of it in memory.
	Nonce uint64
	// Clocked: a ten-digit timestamp was accepted from it, so that a shorter one is refused from then on.
	Clocked bool
	// Signed: it has proven itself by a MAC at least once. From then on what is said
	// in its name without one goes to the log and nowhere else.
	Signed bool
	// RollbackWanted and RollbackReason: an operator asked the device to go back; kept until it
	// reports or its version changed. RollbackSentAt is when it was last told.
	RollbackWanted bool
	RollbackReason string
	RollbackSentAt time.Time
	// RetryAt moves the PublishedAt that this device is shown, so that it tries a release again
	// that it found bad. Zero: not asked for.
	RetryAt time.Time
	// RollbackNumber names the latest order to go back on the native wire: a device does what it was
	// told by one number once. 0: there was none.
	RollbackNumber uint32

	// StrongestWire is the strongest that it has spoken: weaker ones are refused under its name
	// until an operator resets that.
	StrongestWire Wire
	NativeNonce   uint64 // the highest that is stored
	NativeKeys    int    // native keys that live
	// What it says of itself over the native wire: Hardware for people, the numbers those of the
	// image that it confirmed last and of the key list that it holds.
	Hardware                                      string
	Epoch, Sequence, SecurityVersion, ListVersion uint32
	Slots                                         int    // how many it has; 0: not said
	RunningSlot                                   int    // with Slots: which it runs from, or FactoryImage
	Ask                                           string // what its latest poll said that it has and can take (ParseAsk)

	Tags       []string          // said by people, as the next
	Attributes map[string]string // nil: none
	Failures   int               // of releases, in a row
	Forced     int64             // rollout whose release it gets whatever its phase and budgets say; 0: none
	Heard      Clock             // the latest word of it that was written
	Health     Health            // as it said last
}

// DeploymentState is one of the glossary's words; frozen, stored as text.
type DeploymentState string

const (
	StateOffered     DeploymentState = "offered"
	StateDownloading DeploymentState = "downloading"
	StateVerifying   DeploymentState = "verifying"
	StateRebooting   DeploymentState = "rebooting"
	StateTrial       DeploymentState = "trial"
	StateConfirmed   DeploymentState = "confirmed"
	StateReverted    DeploymentState = "reverted"
	StateUnproven    DeploymentState = "unproven" // the device tries again by itself
	StateFailed      DeploymentState = "failed"
	StateCancelled   DeploymentState = "cancelled"
	StateSkipped     DeploymentState = "skipped"
)

// Deployment is one device and one release.
type Deployment struct {
	Device         string
	ReleaseID      int64
	Version        string
	State          DeploymentState
	ChunksReceived int
	ChunksTotal    int
	Verified       bool
	BootStatus     string // as reported over v1: pending_reboot, success, failed
	Reason         string // why it failed or went back, as the device said it
	// Proven: reports with a MAC made it what it is. One that is not is shown and decides nothing.
	Proven    bool
	StartedAt time.Time
	UpdatedAt time.Time

	Rollout   int64     // that it belongs to; 0: none
	Phase     int       // of it, by which the device came in
	Class     Class     // of the failure, where there is one
	Tries     int       // that ended badly
	Assurance Assurance // of the device when it spoke last; "": not said
	Heard     Clock     // its latest change
	RawOnly   bool      // a derived stream of the release failed on the device: it gets raw ones
}

// Event is one line of a device's timeline and of the log.
type Event struct {
	ID      int64     `json:"id"`
	Time    time.Time `json:"time"`
	Device  string    `json:"device,omitempty"`
	Version string    `json:"version,omitempty"`
	Name    string    `json:"event"` // firmware_uploaded, chunk_received, ... (docs/api/v1.md)
	Detail  string    `json:"detail,omitempty"`
	// Proven is false where a silent device said so.
	Proven bool `json:"proven"`
}

// Key is a device's or a product's pre-shared key, in the clear. It never
// reaches a log: whatever prints or encodes it gets a word instead.
type Key [32]byte

const hiddenKey = "(key)"

func (Key) String() string               { return hiddenKey }
func (Key) Format(s fmt.State, _ rune)   { io.WriteString(s, hiddenKey) }
func (Key) MarshalText() ([]byte, error) { return []byte(hiddenKey), nil }

// Report is what a device says of its deployment over v1; nil: not said.
type Report struct {
	ChunkReceived *int
	TotalChunks   *int
	Progress      *float64
	Verified      *bool
	BootStatus    *string
	NewVersion    *string
	BootCount     *int
	Rollback      *bool
	Error         *string
}

// Releases keeps releases.
type Releases interface {
	// Publish stores the release (ID and PublishedAt are set here, and State unless it is
	// ReleaseDraft) and logs firmware_uploaded, in one transaction. The same product and version with the same digest and chunk
	// size answers the stored one and created=false; with another digest: CodeConflict. A product
	// that takes signed images only, or whose terms leave it out (Policies), refuses it with CodeForbidden.
	Publish(ctx context.Context, r Release, now time.Time) (stored Release, created bool, err error)
	Release(ctx context.Context, id int64) (Release, error)
	// ReleaseByVersion is the newest of that version: a signed image may be issued anew under it,
	// and has it in several builds.
	ReleaseByVersion(ctx context.Context, product, version string) (Release, error)
	// List is newest first; product "" means all.
	ListReleases(ctx context.Context, product string) ([]Release, error)
	// Withdraw withdraws a release with all its builds, in one transaction, and answers the one of that id.
	Withdraw(ctx context.Context, id int64, now time.Time) (Release, error)
}

// Devices keeps devices and their keys, which are sealed at rest.
type Devices interface {
	// AddDevice stores a device with a key; CodeConflict where the id exists.
	AddDevice(ctx context.Context, d Device, key *Key, now time.Time) error
	Device(ctx context.Context, id string) (Device, error)
	// DeviceKey is the device's own key, or its product's; CodeNotFound where there is neither.
	DeviceKey(ctx context.Context, id string) (Key, Assurance, error)
	ListDevices(ctx context.Context) ([]Device, error)
	SetProductKey(ctx context.Context, product string, key Key, now time.Time) error
	// SaveSeen writes behind what polls taught: nonces, times, clocked. Values never go back.
	SaveSeen(ctx context.Context, seen []Seen) error
}

// Seen is what requests of a device taught since it was last written.
type Seen struct {
	Device  string
	Nonce   uint64
	Clocked bool
	At      time.Time
}

// Orders are what an operator tells one device.
type Orders interface {
	// OrderRollback sets the flag; device "all" means every device.
	OrderRollback(ctx context.Context, device, reason string, now time.Time) (devices int, err error)
	// RollbackSent notes that the device was told.
	RollbackSent(ctx context.Context, device string, now time.Time) error
	// OrderRetry lets the device try the release again that it found bad.
	OrderRetry(ctx context.Context, device string, now time.Time) error
	// ResetNonce forgets the device's nonce and clock.
	ResetNonce(ctx context.Context, device string, now time.Time) error
}

// Deployments keeps what devices report.
type Deployments interface {
	// Deployment is the device's latest, a proven one before any that is not; CodeNotFound where
	// there is none.
	Deployment(ctx context.Context, device string) (Deployment, error)
	// DeploymentOf is the device's of that release: what OfferFor asks for. CodeNotFound where there is none.
	DeploymentOf(ctx context.Context, device string, releaseID int64) (Deployment, error)
	// ListDeployments is each device's latest, in the order of device ids.
	ListDeployments(ctx context.Context) ([]Deployment, error)
	// Report applies a report to the device's deployment of release r (nil: none is on offer) by
	// ApplyReport, with its events and, if nonce > 0, the nonce, in one transaction: a nonce not above the stored
	// one is CodeReplay and changes nothing. Durable when it returns.
	Report(ctx context.Context, device string, r *Release, rep Report, proven bool, nonce uint64, now time.Time) error
}

// Catalogue lets a reader hold all releases in memory and know when to read again.
type Catalogue interface {
	// Generation rises with every change of releases, policies and key lists. It costs no SQL.
	Generation(ctx context.Context) (int64, error)
	// Snapshot is all releases, newest first, and the generation that they are of.
	Snapshot(ctx context.Context) (generation int64, releases []Release, err error)
}

// Token is one of an operator's, without its text: only a hash of that is kept.
type Token struct {
	ID        int64
	Name      string // for people
	CreatedAt time.Time
	RevokedAt time.Time // zero: in force
}

// Tokens keeps operators' tokens.
type Tokens interface {
	// AddToken stores the hash of a token that NewToken made.
	AddToken(ctx context.Context, name, token string, now time.Time) (Token, error)
	// CheckToken answers the token that is in force; CodeUnauthenticated for any other text.
	CheckToken(ctx context.Context, token string) (Token, error)
	ListTokens(ctx context.Context) ([]Token, error)
	RevokeToken(ctx context.Context, id int64, now time.Time) error
}

// Log reads events.
type Log interface {
	// Events is newest first; device "" means all; limit is 1 to 1000.
	Events(ctx context.Context, device string, limit int) (events []Event, total int, err error)
	Append(ctx context.Context, e Event) error
}
