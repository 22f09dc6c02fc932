package v1

import (
	"context"
	"slices"
	"strings"
	"sync"
	"time"

	"golang.org/x/sync/singleflight"

	"github.com/runnel-fota/runnel/internal/fleet"
)

// device is what is in memory of one, so that a chunk costs no SQL. id, product,
// key, hasKey, assurance and stronger don't change.
type device struct {
	id        string
	product   string
	key       fleet.Key
	hasKey    bool
	assurance fleet.Assurance
	read      time.Time // when, where that matters
	stronger  bool      // it has spoken a stronger wire: nothing of v1 is taken in its name

	mu      sync.Mutex
	nonce   uint64 // highest used
	clocked bool
	signed  bool      // a MAC proved it once
	seen    time.Time // zero: nothing to write
	dirty   bool
	gone    bool // out of the cache: another entry may be in use
	posts   int  // reports on their way to the store, which stores their nonces itself
	// offer is the release whose chunks it gets: that of its last poll, so that one which comes up
	// in mid-download does not mix with it. 0: none.
	offer int64
	asked bool  // offer is known, be it none
	asOf  int64 // the catalogue's generation when offer became known
}

// used is a nonce that was signed, with how. Where a header and an envelope were, it is the
// higher one.
type used struct {
	nonce   uint64
	lowest  uint64
	clocked bool // a timestamp was of a clock
	short   bool // one was not
	split   bool // its first digits may have been the target's last (endsInDigit)
	post    bool // keeps it from being written behind until posted is called
}

// leap is how far above the last nonce, last, one may be. Whoever moves the last digits of
// a recorded target, at least one, to a nonce of k digits leaps at least 10^k, so
// where that could have been done the leap has to stay below the last nonce's own
// length: a device that counts or tells the time does.
func (u used) leap(last, jump uint64) uint64 {
	if !u.split {
		return jump
	}
	length := uint64(1)
	for ; last >= 10; last /= 10 {
		length *= 10
	}
	return min(jump, max(length, splitLeap))
}

// after judges it by what is known of the device, and answers what is known then.
func (u used) after(by fleet.V1Known, jump uint64) (fleet.V1Known, error) {
	switch {
	case by.Clocked && u.short:
		// Or digits could be moved from the timestamp to the nonce: v1 has no separators.
		return by, errReplay("the timestamp is shorter than this device's were")
	case u.lowest <= by.Nonce:
		return by, errReplay("the nonce was used")
	case by.Nonce != 0 && u.nonce-by.Nonce > u.leap(by.Nonce, jump):
		return by, errReplay("the nonce leaps too far; an operator can reset it")
	}
	return fleet.V1Known{Nonce: u.nonce, Clocked: by.Clocked || u.clocked}, nil
}

// use takes the nonce if it is above the last and no further than allowed.
func (d *device) use(u used, jump uint64, now time.Time) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.gone {
		return fleet.Errorf(fleet.CodeBusy, "try again")
	}
	next, err := u.after(fleet.V1Known{Nonce: d.nonce, Clocked: d.clocked}, jump)
	if err != nil {
		return err
	}
	d.nonce, d.clocked, d.signed, d.dirty = next.Nonce, next.Clocked, true, true
	d.seen = now
	if u.post {
		d.posts++
	}
	return nil
}

func (d *device) posted() {
	d.mu.Lock()
	d.posts--
	d.mu.Unlock()
}

// seenSilent notes a request without a MAC, but not in the name of a device that
// has proven itself.
func (d *device) seenSilent(now time.Time) {
	d.mu.Lock()
	if !d.signed {
		d.seen, d.dirty = now, true
	}
	d.mu.Unlock()
}

// setOffer says whether that is new.
func (d *device) setOffer(o fleet.V1Offer) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	was := fleet.V1Offer{Known: d.asked, Release: d.offer, Generation: d.asOf}
	d.offer, d.asked, d.asOf = o.Release, o.Known, o.Generation
	return was != o
}

// lastOffer: that there was none counts only until a release comes up or goes. Who
// asks for chunks then without another poll gets what it would be offered.
func (d *device) lastOffer(generation int64) (release int64, asked bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.offer, d.asked && (d.offer != 0 || d.asOf == generation)
}

// deviceCache holds devices in use, limit at most. Unknown ones are not held.
type deviceCache struct {
	store fleet.Devices
	limit int
	load  singleflight.Group
	// maxAge, if not 0, is how long a device stays.
	maxAge time.Duration
	now    func() time.Time

	mu   sync.RWMutex
	byID map[string]*device

	writeMu sync.Mutex // one writer to the store, and no reset beside it
}

func newDeviceCache(store fleet.Devices, limit int) *deviceCache {
	return &deviceCache{store: store, limit: limit, byID: make(map[string]*device)}
}

func (c *deviceCache) isOld(d *device) bool { return c.maxAge > 0 && c.now().Sub(d.read) >= c.maxAge }

func (c *deviceCache) get(ctx context.Context, id string) (*device, error) {
	c.mu.RLock()
	d := c.byID[id]
	c.mu.RUnlock()
	if d != nil && !c.isOld(d) {
		return d, nil
	}
	v, err, _ := c.load.Do(id, func() (any, error) { return c.read(context.WithoutCancel(ctx), id) })
	if err != nil {
		return nil, err
	}
	return v.(*device), nil
}

func (c *deviceCache) read(ctx context.Context, id string) (*device, error) {
	// A reset waits, so that what is read here is not from before it.
	c.writeMu.Lock()
	defer c.writeMu.Unlock()
	c.mu.RLock()
	have := c.byID[id]
	full := len(c.byID) >= c.limit
	c.mu.RUnlock()
	if have != nil {
		if !c.isOld(have) {
			return have, nil
		}
		if err := c.flushLocked(ctx); err != nil {
			return nil, err
		}
		c.mu.Lock()
		c.drop(id)
		c.mu.Unlock()
	}
	known, err := c.store.Device(ctx, id)
	if err != nil {
		return nil, err
	}
	d := &device{id: id, product: known.Product, nonce: known.Nonce, clocked: known.Clocked, signed: known.Signed || known.Nonce > 0,
		stronger: fleet.WireV1.WeakerThan(known.StrongestWire)}
	if c.maxAge > 0 {
		d.read = c.now()
	}
	d.key, d.assurance, err = c.store.DeviceKey(ctx, id)
	switch fleet.CodeOf(err) {
	case "":
		d.hasKey = true
	case fleet.CodeNotFound:
	default:
		return nil, err
	}
	if full {
		if err := c.makeRoom(ctx); err != nil {
			return nil, err
		}
	}
	c.mu.Lock()
	c.byID[id] = d
	c.mu.Unlock()
	return d, nil
}

// makeRoom drops a sixteenth, of those that have nothing unwritten. writeMu is held.
func (c *deviceCache) makeRoom(ctx context.Context) error {
	if err := c.flushLocked(ctx); err != nil {
		return err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	want := c.limit - c.limit/16 - 1
	for id, d := range c.byID {
		if len(c.byID) <= want {
			break
		}
		d.mu.Lock()
		if !d.dirty && d.posts == 0 {
			d.gone = true
			delete(c.byID, id)
		}
		d.mu.Unlock()
	}
	if len(c.byID) >= c.limit {
		return fleet.Errorf(fleet.CodeBusy, "too many devices at once")
	}
	return nil
}

// flush writes what is not written yet.
func (c *deviceCache) flush(ctx context.Context) error {
	c.writeMu.Lock()
	defer c.writeMu.Unlock()
	return c.flushLocked(ctx)
}

func (c *deviceCache) flushLocked(ctx context.Context) error {
	var seen []fleet.Seen
	var of []*device
	c.mu.RLock()
	for _, d := range c.byID {
		d.mu.Lock()
		// A report's nonce must not be in the store before the report: it would be refused as used.
		if d.dirty && d.posts == 0 {
			seen = append(seen, fleet.Seen{Device: d.id, Nonce: d.nonce, Clocked: d.clocked, At: d.seen})
			of = append(of, d)
			d.dirty = false
		}
		d.mu.Unlock()
	}
	c.mu.RUnlock()
	if len(seen) == 0 {
		return nil
	}
	// Neighbours are on the same pages.
	slices.SortFunc(seen, func(a, b fleet.Seen) int { return strings.Compare(a.Device, b.Device) })
	err := c.store.SaveSeen(ctx, seen)
	if err != nil {
		for _, d := range of {
			d.mu.Lock()
			d.dirty = true
			d.mu.Unlock()
		}
	}
	return err
}

// without runs change while nothing of the device is in memory, nor gets there.
func (c *deviceCache) without(id string, change func() error) error {
	c.writeMu.Lock()
	defer c.writeMu.Unlock()
	err := change()
	if err == nil {
		c.mu.Lock()
		c.drop(id)
		c.mu.Unlock()
	}
	return err
}

// forget writes what is not written of the device, and drops it.
func (c *deviceCache) forget(ctx context.Context, id string) error {
	return c.without(id, func() error { return c.flushLocked(ctx) })
}

// drop takes a device out; mu is held.
func (c *deviceCache) drop(id string) {
	if d := c.byID[id]; d != nil {
		d.mu.Lock()
		d.gone = true
		d.mu.Unlock()
		delete(c.byID, id)
	}
}

// forgetShared drops all that have no key of their own, once their nonces are
// written: a product's key has changed. A nonce used between the writing and the
// dropping is forgotten with the key that it was signed with.
func (c *deviceCache) forgetShared(ctx context.Context) error {
	c.writeMu.Lock()
	defer c.writeMu.Unlock()
	if err := c.flushLocked(ctx); err != nil {
		return err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	for id, d := range c.byID {
		if d.assurance != fleet.AssuranceOwn {
			c.drop(id)
		}
	}
	return nil
}
