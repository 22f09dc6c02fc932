package derive

import (
	"context"
	"crypto/ed25519"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"runtime"
	"sync/atomic"
	"time"

	"github.com/runnel-fota/runnel/core/patch"
	"github.com/runnel-fota/runnel/internal/delta"
	"github.com/runnel-fota/runnel/internal/fleet"
	"github.com/runnel-fota/runnel/release"
)

const (
	// Interval between looks whether something changed.
	Interval = 2 * time.Second
	// lookEvery is how often the fleet is counted where nothing was published: devices come,
	// and come to run other images.
	lookEvery = 10 * time.Minute
	// share of the time that counting a large fleet takes at most.
	share = 0.05
	// leaseTime is how long a derivation is its maker's without a word; saveEvery is how often
	// it says one.
	leaseTime = time.Minute
	saveEvery = 5 * time.Second
	// pauseAfter an error of the store, or of what is in it.
	pauseAfter = time.Minute
	// retryAfter a failure: what failed for a lack of room or of a disk may go well later.
	retryAfter = 10 * time.Minute
	// heardWithin: what a device ran longer ago it may run no more.
	heardWithin = 30 * 24 * time.Hour
	// DefaultBases is from how many images patches are made, of each release.
	DefaultBases = 4
	// DefaultMaxImage bounds the memory that making takes, which is about 120 bytes for each
	// of the image's (docs/design/patches-server.md).
	DefaultMaxImage = 4 << 20 // bytes
)

// Store is what Runner reads and writes.
type Store interface {
	fleet.Derivations
	fleet.NativeCatalogue
	StreamKey(ctx context.Context) (fleet.Key, error)
	Generation(ctx context.Context) (int64, error)
	ListReleases(ctx context.Context, product string) ([]fleet.Release, error)
}

// Runner makes the derived streams that a fleet is short of, one at a time. One goroutine
// runs it; several servers on one store share the work.
type Runner struct {
	Store Store
	// Open opens an image by its digest.
	Open func(ctx context.Context, d fleet.Digest) (*os.File, error)
	// Publish is ingest.Service.AddDerived.
	Publish func(ctx context.Context, d fleet.Derivation, maker, product string, m fleet.Stream, file []byte) (bool, error)
	Log     *slog.Logger
	Now     func() time.Time
	// Machine is the machine's own clock, by which the count of a large fleet is seen to be slow and
	// made less often; nil: none is.
	Machine func() time.Time
	Maker   string // names this server's leases: another one at each start
	// Bases is from how many images patches are made, of each release; MinSaving see Options;
	// MaxImage is the largest image that is worked on, bytes.
	Bases     int
	MinSaving float64
	MaxImage  int64

	seen   int64     // generation at which nothing was left to do
	wake   time.Time // when there may be something all the same
	looked time.Time // when the fleet was counted last
	cost   time.Duration
	left   <-chan struct{} // closed when work that was given up has ended; nil: there is none
}

// Run works until ctx ends. What fails is logged, and tried again.
func (r *Runner) Run(ctx context.Context) error {
	tick := time.NewTicker(Interval)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
			if _, err := r.Tick(ctx); err != nil && ctx.Err() == nil {
				r.Log.ErrorContext(ctx, "derived streams could not be made", "error", err)
			}
		case <-ctx.Done():
			return nil
		}
	}
}

// Tick looks for what is short, if something changed, and makes one of it; worked: it did.
func (r *Runner) Tick(ctx context.Context) (worked bool, err error) {
	generation, err := r.Store.Generation(ctx)
	if err != nil {
		return false, err
	}
	now := r.Now()
	if generation == r.seen && now.Before(r.wake) || now.Before(r.looked.Add(time.Duration(float64(r.cost)/share))) || r.busy() {
		return false, nil
	}
	began := r.machine()
	jobs, wake, err := r.plan(ctx, now)
	r.looked, r.cost = now, r.machine().Sub(began)
	if err != nil {
		r.cost = time.Duration(share * float64(pauseAfter))
		return false, err
	}
	for _, j := range jobs {
		if worked, err = r.make(ctx, j); worked || err != nil {
			return worked, err
		}
	}
	r.seen, r.wake = generation, wake
	return false, nil
}

func (r *Runner) machine() time.Time {
	if r.Machine == nil {
		return time.Time{}
	}
	return r.Machine()
}

// busy says whether work that was given up goes on: two at once would take twice the memory.
func (r *Runner) busy() bool {
	select {
	case <-r.left:
		r.left = nil
	default:
	}
	return r.left != nil
}

// job is a derivation that is to be made.
type job struct {
	fleet.Derivation
	release fleet.SignedRelease
	key     ed25519.PrivateKey
}

// coders are the profiles, the better ones first.
func coders() (list []fleet.Coder) {
	for _, p := range []uint8{patch.ProfileLarge, patch.ProfileSmall} {
		list = append(list, fleet.Coder{Profile: p, Chunk: delta.Chunk(p), RAM: uint32(delta.RAM(p))})
	}
	return list
}

// plan is what is to be made, in order, and when to look again where nothing changes.
func (r *Runner) plan(ctx context.Context, now time.Time) (jobs []job, wake time.Time, err error) {
	wake = now.Add(lookEvery)
	s, key, signed, err := r.signable(ctx)
	if err != nil || len(signed) == 0 {
		return nil, wake, err
	}
	asks, err := r.Store.CountAsks(ctx, now.Add(-heardWithin))
	if err != nil {
		return nil, wake, err
	}
	releases, err := r.Store.ListReleases(ctx, "")
	if err != nil {
		return nil, wake, err
	}
	held := map[fleet.Digest]bool{}
	for _, v := range releases {
		held[v.Image.Digest] = true
	}
	known, err := r.Store.ListDerivations(ctx, 0)
	if err != nil {
		return nil, wake, err
	}
	before := map[fleet.DerivationName]fleet.Derivation{}
	for _, d := range known {
		before[d.DerivationName] = d
	}
	for _, short := range fleet.NewNativeOffers(s).Shorts(asks, func(d fleet.Digest) bool { return held[d] }, coders(), r.Bases) {
		v, ok := signed[short.Release]
		d := before[short.DerivationName]
		at, ever := dueAt(d)
		switch {
		case !ok || !ever:
		case now.Before(at):
			if at.Before(wake) {
				wake = at
			}
		default:
			d.DerivationName, d.Devices = short.DerivationName, short.Devices
			jobs = append(jobs, job{d, v, key})
		}
	}
	return jobs, wake, nil
}

// signable are the signed releases whose streams' sheets the server's key may sign.
func (r *Runner) signable(ctx context.Context) (s fleet.NativeSnapshot, key ed25519.PrivateKey, signed map[int64]fleet.SignedRelease, err error) {
	seed, err := r.Store.StreamKey(ctx)
	if fleet.CodeOf(err) == fleet.CodeNotFound {
		return s, nil, nil, nil
	}
	if err != nil {
		return s, nil, nil, err
	}
	key = ed25519.NewKeyFromSeed(seed[:])
	s, err = r.Store.NativeSnapshot(ctx)
	if err != nil || s.List == nil {
		return s, key, nil, err
	}
	e, err := release.ParseEnvelope(s.List.Envelope)
	if err != nil {
		return s, key, nil, err
	}
	list, err := release.DecodeKeyList(e.Payload)
	if err != nil {
		return s, key, nil, err
	}
	signed = map[int64]fleet.SignedRelease{}
	for _, v := range s.Releases {
		if MaySign(list, key.Public().(ed25519.PublicKey), v.Product) {
			signed[v.ID] = v
		}
	}
	return s, key, signed, nil
}

// dueAt is when a derivation whose stream devices can't get is to be begun, if ever. The
// zero one is due: nobody began it.
func dueAt(d fleet.Derivation) (at time.Time, ever bool) {
	switch d.State {
	case fleet.DerivationMaking:
		return d.Lease, true
	case fleet.DerivationFailed:
		return d.ChangedAt.Add(retryAfter), d.Tries < fleet.MaxDerivationTries
	case fleet.DerivationDropped:
		return at, false
	}
	return at, true // a made one: its sheet's signer is not in the key list any more
}

// MaySign says whether a key may sign stream sheets of a product.
func MaySign(list *release.KeyList, key ed25519.PublicKey, product string) bool {
	k := list.Key(key)
	return k != nil && list.Product(product) != nil && k.SignsFor(product)
}

// make makes one; began is false where somebody else does.
func (r *Runner) make(ctx context.Context, j job) (began bool, err error) {
	j.Lease = r.Now().Add(leaseTime)
	if began, err = r.Store.BeginDerivation(ctx, j.Derivation, r.Maker, r.Now()); err != nil || !began {
		return began, err
	}
	j.State = fleet.DerivationMaking
	log := r.Log.With("product", j.release.Product, "version", j.release.Version, "profile", fleet.ProfileName(j.Profile))
	if j.Base == (fleet.Digest{}) {
		log = log.With("stream", "compressed")
	} else {
		log = log.With("stream", "patch", "base", j.Base)
	}
	start := time.Now()
	made, err := r.work(ctx, j)
	published := false
	if err == nil {
		published, err = r.Publish(ctx, j.Derivation, r.Maker, j.release.Product, made.Stream(), made.File)
	}
	var little *SavingError
	switch {
	case ctx.Err() != nil:
		return true, nil // the lease ends, and the work is done again
	case errors.As(err, &little), errors.Is(err, errTooLarge):
		j.State, j.Reason = fleet.DerivationDropped, err.Error()
		if little != nil {
			j.Sent = little.Sent
		}
		log.Info("derived stream dropped", "reason", err)
	case errors.Is(err, errNotOurs), err == nil && !published:
		log.Info("derived stream left to another server")
		return true, nil
	case err == nil:
		log.Info("derived stream made", "bytes", made.Sent(), "raw", made.Raw, "seconds", time.Since(start).Seconds())
		return true, nil
	default:
		j.State, j.Reason = fleet.DerivationFailed, err.Error()
		j.Tries++
		log.Error("derived stream could not be made", "try", j.Tries, "of", fleet.MaxDerivationTries, "error", err)
	}
	j.Lease = time.Time{}
	_, err = r.Store.SaveDerivation(ctx, j.Derivation, r.Maker, r.Now())
	return true, err
}

var (
	errNotOurs  = errors.New("another server makes this stream")
	errTooLarge = errors.New("the images are larger than this server makes patches of")
)

// work makes the stream, and says meanwhile how far it is. The coder can't be interrupted
// at any moment: what it still does after ctx ended nobody waits for.
func (r *Runner) work(ctx context.Context, j job) (*Made, error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	old, image, err := r.images(ctx, &j)
	if err != nil {
		return nil, err
	}
	e, err := release.ParseEnvelope(j.release.Envelope)
	if err != nil {
		return nil, err
	}
	m, err := release.DecodeManifest(e.Payload)
	if err != nil {
		return nil, err
	}
	var percent atomic.Int32
	type result struct {
		made *Made
		err  error
	}
	done, ended := make(chan result, 1), make(chan struct{})
	r.left = ended
	go func() {
		defer close(ended)
		// Never unlocked: the thread, which yields to all others, ends with the goroutine.
		runtime.LockOSThread()
		yieldToOthers()
		made, err := Make(ctx, old, image, m, Options{Profile: j.Profile, MinSaving: r.MinSaving, Signer: release.NewKeySigner(j.key),
			Progress: func(part float64, _ string) { percent.Store(int32(100 * part)) }})
		done <- result{made, err}
	}()
	tick := time.NewTicker(saveEvery)
	defer tick.Stop()
	for {
		select {
		case got := <-done:
			r.left = nil // its thread, which yields to all, may take long to end
			return got.made, got.err
		case <-ctx.Done():
			return nil, ctx.Err()
		case <-tick.C:
			j.Percent, j.Lease = int(percent.Load()), r.Now().Add(leaseTime)
			saved, err := r.Store.SaveDerivation(ctx, j.Derivation, r.Maker, r.Now())
			if err == nil && !saved {
				err = errNotOurs
			}
			if err != nil {
				return nil, err
			}
		}
	}
}

func (r *Runner) images(ctx context.Context, j *job) (old, image []byte, err error) {
	if j.Base != (fleet.Digest{}) {
		if old, err = r.read(ctx, j.Base); err != nil {
			return nil, nil, err
		}
	}
	image, err = r.read(ctx, j.release.Image.Digest)
	return old, image, err
}

func (r *Runner) read(ctx context.Context, d fleet.Digest) ([]byte, error) {
	f, err := r.Open(ctx, d)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	st, err := f.Stat()
	if err != nil {
		return nil, err
	}
	if st.Size() > r.MaxImage {
		return nil, fmt.Errorf("%w: %d bytes, at most %d", errTooLarge, st.Size(), r.MaxImage)
	}
	p := make([]byte, st.Size())
	if _, err = io.ReadFull(f, p); err == nil && sha256.Sum256(p) != d {
		err = fmt.Errorf("the stored image %s is damaged: 'runnel fsck' says which releases have it", d)
	}
	return p, err
}
